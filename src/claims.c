/*-------------------------------------------------------------------------
 *
 * claims.c
 *		Work that is handed out: claim_runs(), heartbeat_run(), release_run(), and the
 *		delay before a run is tried again.
 *
 * Runs to be claimed are found and locked in queue.c, which waits for nobody.  What was
 * locked for a claim that failed stays locked until the end of the transaction.
 *
 * Memory: the caller's context; a claim needs little.
 *
 *-------------------------------------------------------------------------
 */
#include "claims.h"

#include <math.h>

#include "access/table.h"
#include "access/tableam.h"
#include "common/pg_prng.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/snapmgr.h"

#include "attempt.h"
#include "calls.h"
#include "identity.h"
#include "lifecycles.h"
#include "open_runs.h"
#include "queue.h"
#include "writer.h"

PG_FUNCTION_INFO_V1(run_tracker_claim_runs);
PG_FUNCTION_INFO_V1(run_tracker_heartbeat_run);
PG_FUNCTION_INFO_V1(run_tracker_release_run);

#define MAX_CLAIM 10000

/* ----------------------------------------------------------------
 * Trying again
 * ----------------------------------------------------------------
 */

/* delays where neither the run nor its lifecycle says otherwise */
#define RETRY_BASE_US (1.0 * 1000000)
#define RETRY_CAP_US  (5.0 * 60 * 1000000)

static double
interval_us(const Interval *interval)
{
	return (double) interval->time +
		   ((double) interval->month * DAYS_PER_MONTH + interval->day) * USECS_PER_DAY;
}

/*
 * When a run whose attempt has failed may be claimed again: base, doubled for each
 * attempt after the first, up to cap, of which a random half is taken off so that runs
 * that failed together do not come back together.
 */
TimestampTz
rt_retry_at(const RtRun *run, TimestampTz now)
{
	const RtLifecycle *lifecycle = rt_lifecycle_get(run->lifecycle);
	double base = RETRY_BASE_US;
	double cap = RETRY_CAP_US;
	double delay;

	if (run->retry_base != (Datum) 0)
		base = interval_us(DatumGetIntervalP(run->retry_base));
	else if (lifecycle->has_retry_base)
		base = interval_us(&lifecycle->retry_base);
	if (run->retry_cap != (Datum) 0)
		cap = interval_us(DatumGetIntervalP(run->retry_cap));
	else if (lifecycle->has_retry_cap)
		cap = interval_us(&lifecycle->retry_cap);

	delay = Min(base * pow(2.0, Min(run->attempt - 1, 60)), cap);
	delay *= 1.0 - pg_prng_double(&pg_global_prng_state) / 2;
	/* a thousand years are for ever; now is at most as much ahead of the clock */
	return now + (int64) Min(delay, 1000.0 * DAYS_PER_YEAR * USECS_PER_DAY);
}

/* ----------------------------------------------------------------
 * Claiming
 * ----------------------------------------------------------------
 */

/* Move n of the runs that are locked to their new status, and return them. */
static void
take_runs(const RtClaim *claim, int first, int n, Datum worker, Tuplestorestate *result)
{
	static RtPlan plan =
		{"WITH claimed AS (UPDATE run_tracker.runs r SET status = c.status, worker = $3 "
		 "FROM ROWS FROM (unnest($1), unnest($2)) WITH ORDINALITY AS c (run_id, status, n) "
		 "WHERE r.run_id = c.run_id "
		 "RETURNING c.n, r.run_id, r.attempt, r.user_id, r.lifecycle, r.status, r.kind, r.name, "
		 "r.priority, r.max_attempts, r.workflow_id, r.session_id, r.subject_id, r.parent_run_id, "
		 "r.inputs, r.settings, r.variables, r.plan, r.metadata, r.created_at, r.scheduled_at) "
		 "SELECT run_id, attempt, user_id, lifecycle, status, kind, name, priority, max_attempts, "
		 "workflow_id, session_id, subject_id, parent_run_id, inputs, settings, variables, plan, "
		 "metadata, created_at, scheduled_at FROM claimed ORDER BY n",
		 3,
		 {UUIDARRAYOID, TEXTARRAYOID, TEXTOID}};
	/* the plan of the other is made anew for each array, which costs more than to claim a run */
	static RtPlan single =
		{"UPDATE run_tracker.runs r SET status = $2, worker = $3 WHERE r.run_id = $1 "
		 "RETURNING r.run_id, r.attempt, r.user_id, r.lifecycle, r.status, r.kind, r.name, "
		 "r.priority, r.max_attempts, r.workflow_id, r.session_id, r.subject_id, r.parent_run_id, "
		 "r.inputs, r.settings, r.variables, r.plan, r.metadata, r.created_at, r.scheduled_at",
		 3,
		 {UUIDOID, TEXTOID, TEXTOID}};
	NullableDatum args[3] = {{0}};

	args[2].value = worker;
	SPI_connect();
	if (n == 1)
	{
		args[0].value = claim->run_ids[first];
		args[1].value = claim->statuses[first];
		rt_plan_execute(&single, args, SPI_OK_UPDATE_RETURNING, false);
	}
	else
	{
		args[0].value = PointerGetDatum(
			construct_array(claim->run_ids + first, n, UUIDOID, UUID_LEN, false, TYPALIGN_CHAR));
		args[1].value = PointerGetDatum(
			construct_array(claim->statuses + first, n, TEXTOID, -1, false, TYPALIGN_INT));
		rt_plan_execute(&plan, args, SPI_OK_SELECT, false);
	}
	if (SPI_processed != n)
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("%d of %d runs could not be claimed", n - (int) SPI_processed, n),
						errhint("A policy or a trigger may have suppressed the update.")));
	for (uint64 i = 0; i < SPI_processed; i++)
		tuplestore_puttuple(result, SPI_tuptable->vals[i]);
	SPI_finish();
}

/* Some of the runs that are locked, and what becomes of them. */
typedef struct Taking
{
	int first;
	int n;
	Datum worker;
	Tuplestorestate *result;
} Taking;

/* Step: move runs to their new status, and return them. */
static void
take(void *arg1, void *arg2)
{
	const RtClaim *claim = arg1;
	const Taking *taking = arg2;

	take_runs(claim, taking->first, taking->n, taking->worker, taking->result);
}

/* Can an error be due to one of several runs?  Else it is the caller's, or somebody was in the way.
 */
static bool
is_due_to_a_run(int sqlerrcode)
{
	switch (ERRCODE_TO_CATEGORY(sqlerrcode))
	{
		case ERRCODE_TRANSACTION_ROLLBACK:
		case ERRCODE_SYNTAX_ERROR_OR_ACCESS_RULE_VIOLATION:
		case ERRCODE_INSUFFICIENT_RESOURCES:
		case ERRCODE_PROGRAM_LIMIT_EXCEEDED:
		case ERRCODE_OPERATOR_INTERVENTION:
		case ERRCODE_SYSTEM_ERROR:
			return false;
		default:
			return sqlerrcode != ERRCODE_LOCK_NOT_AVAILABLE;
	}
}

/*
 * Take the runs that are locked: together or, if that fails, one by one, so that one that a
 * trigger does not let go does not keep everybody from the rest of the queue.  Returns how
 * many were taken.
 */
static int
take_all(RtClaim *claim, Datum worker, Tuplestorestate *result, ErrorData **error)
{
	Taking taking = {0, claim->n, worker, result};
	int taken = 0;

	*error = rt_attempt(take, claim, &taking, 0);
	if (*error == NULL)
		return claim->n;
	for (int i = 0; i < claim->n; i++)
	{
		ErrorData *failure = *error;

		taking.first = i;
		taking.n = 1;
		if (claim->n > 1)
			failure = rt_attempt(take, claim, &taking, 0);
		if (failure == NULL)
		{
			taken++;
			continue;
		}
		*error = failure;
		if (!is_due_to_a_run(failure->sqlerrcode) || claim->nfailed == RT_MAX_FAILED)
			ReThrowError(failure);
		claim->failed[claim->nfailed++] = *DatumGetUUIDP(claim->run_ids[i]);
		ereport(WARNING, (errcode(failure->sqlerrcode),
						  errmsg("run %s could not be claimed: %s",
								 rt_uuid_string(claim->run_ids[i]), failure->message)));
	}
	return taken;
}

/* claim_runs(worker, max_runs, lifecycle, kind) → the runs, in the order of their claim */
Datum
run_tracker_claim_runs(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	RtClaim claim = {0};
	ErrorData *error = NULL;
	int max_runs;
	int taken = 0;
	int failed;

	PreventCommandIfReadOnly("claim_runs()");
	rt_call_require(fcinfo, 0, "worker");
	rt_call_require(fcinfo, 1, "max_runs");
	max_runs = PG_GETARG_INT32(1);
	if (max_runs < 1 || max_runs > MAX_CLAIM)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("argument \"max_runs\" is out of range"),
						errdetail("It is %d, it must be 1 to %d.", max_runs, MAX_CLAIM)));
	if (!PG_ARGISNULL(2))
		(void) rt_lifecycle_get(PG_GETARG_DATUM(2));
	rt_triggers_require();
	InitMaterializedSRF(fcinfo, 0);

	claim.kind = PG_ARGISNULL(3) ? (Datum) 0 : PG_GETARG_DATUM(3);
	claim.now = GetCurrentTimestamp();
	claim.service = rt_identity_is_service();
	claim.user = rt_identity_user();
	claim.run_ids = palloc(sizeof(Datum) * max_runs);
	claim.statuses = palloc(sizeof(Datum) * max_runs);
	do
	{
		failed = claim.nfailed;
		claim.n = 0;
		claim.wanted = max_runs - taken;
		rt_queue_lock(&claim, PG_ARGISNULL(2) ? (Datum) 0 : PG_GETARG_DATUM(2));
		if (claim.n > 0)
			taken += take_all(&claim, PG_GETARG_DATUM(0), rsinfo->setResult, &error);
	} while (taken < max_runs && claim.nfailed > failed);

	if (taken == 0 && error)
		ReThrowError(error);
	return (Datum) 0;
}

/* ----------------------------------------------------------------
 * Keeping a run, and giving it back
 * ----------------------------------------------------------------
 */

/* The run of a heartbeat is not open: say why. */
static void
refuse_heartbeat(FunctionCallInfo fcinfo)
{
	RtRun run;

	if (!rt_run_fetch(PG_GETARG_UUID_P(0), &run) || !rt_identity_owns(run.user_id))
		ereport(ERROR, (errcode(ERRCODE_NO_DATA_FOUND), errmsg("run not found"),
						errdetail("There is no run %s that you may change.",
								  rt_uuid_string(PG_GETARG_DATUM(0)))));
	rt_call_check_attempt(fcinfo, 1, run.attempt, "run");
	if (!RT_PHASE_IS_OPEN(run.phase))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE), errmsg("run is finished"),
				 errdetail("Run %s has status \"%s\".", rt_uuid_string(PG_GETARG_DATUM(0)),
						   TextDatumGetCString(run.status)),
				 errhint("Stop working on it.")));
}

/* heartbeat_run(run_id, attempt) → noted.  Looks at open_runs only, and writes nothing else. */
Datum
run_tracker_heartbeat_run(PG_FUNCTION_ARGS)
{
	Relation rel;
	const RtTable *t;
	Snapshot snapshot;
	RtProbe probe;
	bool isnull;
	bool found;
	bool marked = false;

	PreventCommandIfReadOnly("heartbeat_run()");
	rt_call_require(fcinfo, 0, "run_id");
	rel = table_open(rt_table(RT_open_runs)->relid, RowExclusiveLock);
	t = rt_table(RT_open_runs);
	snapshot = rt_current_snapshot();
	rt_probe_begin(&probe, rel, PG_GETARG_DATUM(0), snapshot);
	found = rt_probe_next(&probe, ForwardScanDirection) &&
			rt_identity_owns(slot_getattr(probe.slot, RT_ATT(t, open_runs, user_id), &isnull));
	if (found)
	{
		rt_call_check_attempt(fcinfo, 1,
							  DatumGetInt32(
								  slot_getattr(probe.slot, RT_ATT(t, open_runs, attempt), &isnull)),
							  "run");
		marked = rt_open_run_heartbeat(probe.slot, rel, snapshot);
	}
	rt_probe_end(&probe);
	UnregisterSnapshot(snapshot);
	table_close(rel, NoLock);
	if (!found)
		refuse_heartbeat(fcinfo);
	PG_RETURN_BOOL(marked);
}

/* release_run(run_id, delay, attempt) → changed */
Datum
run_tracker_release_run(PG_FUNCTION_ARGS)
{
	static RtPlan find = {"SELECT lifecycle, status, attempt FROM run_tracker.runs "
						  "WHERE run_id = $1 FOR NO KEY UPDATE",
						  1,
						  {UUIDOID}};
	static RtPlan update = {"UPDATE run_tracker.runs SET status = $2, worker = NULL, "
							"scheduled_at = COALESCE($3, scheduled_at) WHERE run_id = $1",
							3,
							{UUIDOID, TEXTOID, TIMESTAMPTZOID}};
	RtMoveCall call = {.table = RT_runs,
					   .word = "run",
					   .find = &find,
					   .update = &update,
					   .wanted = {RT_QUEUED},
					   .nwanted = 1,
					   .open = true,
					   .attempt_arg = 2};
	NullableDatum scheduled_at = rt_call_delay(fcinfo, 1);

	PG_RETURN_BOOL(rt_call_move(fcinfo, &call, &scheduled_at, 1));
}
