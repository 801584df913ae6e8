/*-------------------------------------------------------------------------
 *
 * timeouts.c
 *		Ending the runs whose time is up: one pass, for the worker and for
 *		expire_runs().
 *
 * The index on deadline_at says which runs are due.  Activity does not move
 * deadline_at, so a run that is due may have been active since: then its deadline is
 * moved to where it belongs by now.  Else the run ends, with its open tasks; if it has
 * attempts left, it goes back to the queue at once.
 *
 * Locking protocol: the pass never waits for a client, nor a client for a run that the pass
 * leaves alone: it asks first whether somebody is changing the run.  It locks the row of a run in
 * runs, then that in open_runs, each only if nobody else has it or has changed it
 * since the snapshot of the pass, then its open tasks likewise.  Those who change a run
 * are its activity, so it is looked at again a little later.  What is locked cannot
 * change any more before the UPDATE, and the UPDATE finds nothing to wait for.
 *
 * An error that has to do with one run, such as a trigger of the owner's may raise, must
 * not keep the others from ending: each step over many runs is a subtransaction, runs
 * that fail together are tried one by one, and what fails then is put off for a minute.
 *
 * Memory: everything lives in the caller's context, for one pass; what is only needed to
 * look at a row, in a context that is reset for each.
 *
 *-------------------------------------------------------------------------
 */
#include "run_tracker.h"

#include "access/genam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "attempt.h"
#include "calls.h"
#include "claims.h"
#include "due.h"
#include "identity.h"
#include "open_runs.h"
#include "runs.h"
#include "usage.h"
#include "writer.h"

PG_FUNCTION_INFO_V1(run_tracker_expire_runs);

/* a run that cannot be ended is tried again after this time */
#define PUT_OFF_US (60 * INT64CONST(1000000))

/* how far ahead "now" may be */
#define FUTURE_US (1000 * INT64CONST(366) * USECS_PER_DAY)

/* a pass gives up after so many runs that others are in the way of: they may wait for its locks */
#define MAX_BLOCKED 2

/* reservations that a pass releases, at most, and when it goes on */
#define RESERVATIONS		  1000
#define RESERVATIONS_RETRY_US (100 * INT64CONST(1000))

/* rows that a pass looks at, at most, for each run that it may end */
#define LOOKS_PER_RUN 20

/* ----------------------------------------------------------------
 * Steps that may fail
 * ----------------------------------------------------------------
 */

/* Do a step in a subtransaction: NULL if it succeeded, else the error. */
static ErrorData *
attempt(RtPassState *state, RtStep step, void *arg)
{
	ErrorData *error =
		rt_attempt(step, state, arg, state->pass->background ? rt_batch_timeout_ms : 0);

	/* the caller of expire_runs() wants to stop */
	if (error && error->sqlerrcode == ERRCODE_QUERY_CANCELED && !state->pass->background)
		ReThrowError(error);
	return error;
}

/* Errors that say nothing of the run: somebody else was in the way. */
static bool
is_transient(int sqlerrcode)
{
	return ERRCODE_TO_CATEGORY(sqlerrcode) == ERRCODE_TRANSACTION_ROLLBACK ||
		   sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE;
}

/* Step: try a run again later. */
static void
put_off(void *pass_state, void *arg)
{
	RtPassState *state = pass_state;
	const pg_uuid_t *run_id = arg;
	Snapshot snapshot = rt_current_snapshot();
	RtProbe probe;

	rt_probe_begin(&probe, state->open_runs, UUIDPGetDatum(run_id), snapshot);
	if (rt_probe_next(&probe, ForwardScanDirection) &&
		rt_row_lock(state->open_runs, probe.slot, snapshot, LockTupleExclusive, false))
	{
		RtWriter writer;

		rt_writer_open(&writer, RT_open_runs);
		rt_writer_copy(&writer, probe.slot);
		rt_writer_set(&writer, RT_ATT(writer.table, open_runs, deadline_at),
					  TimestampTzGetDatum(state->pass->now + PUT_OFF_US), false);
		rt_writer_update(&writer, probe.slot);
		rt_writer_close(&writer);
	}
	rt_probe_end(&probe);
	UnregisterSnapshot(snapshot);
}

/* A step failed for a single run: note it, and put the run off. */
static void
give_up(RtPassState *state, pg_uuid_t *run_id, const ErrorData *error)
{
	RtPass *pass = state->pass;
	MemoryContext old;

	if (is_transient(error->sqlerrcode))
	{
		pass->busy = true;
		state->blocked++;
		return;
	}
	/* if even that fails, it is tried again as one that somebody else is changing */
	if (attempt(state, put_off, run_id))
		pass->busy = true;
	else
		pass->failed++;
	if (!pass->background)
		ereport(WARNING, (errcode(error->sqlerrcode),
						  errmsg("run %s could not be timed out: %s",
								 rt_uuid_string(UUIDPGetDatum(run_id)), error->message)));
	old = MemoryContextSwitchTo(state->context);
	if (pass->error == NULL)
		pass->error = psprintf("run %s: %s", rt_uuid_string(UUIDPGetDatum(run_id)), error->message);
	MemoryContextSwitchTo(old);
}

/* ----------------------------------------------------------------
 * Reading what is due
 * ----------------------------------------------------------------
 */

/* Begin to read the index of deadlines, up to a moment or after it. */
static IndexScanDesc
begin_scan(RtPassState *state, Relation index, StrategyNumber strategy, RegProcedure comparison)
{
	IndexScanDesc scan = rt_index_beginscan(state->open_runs, index, state->snapshot, 1);
	ScanKeyData key;

	ScanKeyInit(&key, 1, strategy, comparison, TimestampTzGetDatum(state->pass->now));
	index_rescan(scan, &key, 1, NULL, 0);
	return scan;
}

/* Step: look at one row. */
static void
look_at_one(void *pass_state, void *arg)
{
	RtPassState *state = pass_state;
	if (!rt_due_look_at(state, arg))
		state->pass->busy = true;
	if (state->writing)
		rt_writer_close(&state->writer);
	state->writing = false;
}

/* Read what is due: all in one go or, if that has failed, each row in a step of its own. */
static void
read_due(RtPassState *state, Relation index, bool one_by_one)
{
	IndexScanDesc scan = begin_scan(state, index, BTLessEqualStrategyNumber, F_TIMESTAMPTZ_LE);
	TupleTableSlot *row = table_slot_create(state->open_runs, NULL);
	AttrNumber att = RT_ATT(rt_table(RT_open_runs), open_runs, run_id);
	int64 looks = (int64) state->pass->max_runs * LOOKS_PER_RUN;

	while (index_getnext_slot(scan, ForwardScanDirection, row))
	{
		MemoryContext old = MemoryContextSwitchTo(state->row_context);

		CHECK_FOR_INTERRUPTS();
		if (state->blocked >= MAX_BLOCKED)
		{
			MemoryContextSwitchTo(old);
			break;
		}
		if (state->ndue >= state->pass->max_runs || looks <= 0)
		{
			state->pass->more = true;
			MemoryContextSwitchTo(old);
			break;
		}
		/* those that nothing can be done about now must not keep us from the others */
		if (!one_by_one)
		{
			if (rt_due_look_at(state, row))
				looks--;
			else
				state->pass->busy = true;
		}
		else
		{
			bool isnull;
			pg_uuid_t run_id = *DatumGetUUIDP(slot_getattr(row, att, &isnull));
			ErrorData *error = attempt(state, look_at_one, row);

			/* what the step had opened is gone with it */
			state->writing = false;
			if (error)
				give_up(state, &run_id, error);
			looks--;
		}
		MemoryContextSwitchTo(old);
		MemoryContextReset(state->row_context);
	}
	ExecDropSingleTupleTableSlot(row);
	index_endscan(scan);
	if (state->writing)
		rt_writer_close(&state->writer);
	state->writing = false;
}

/* Step: read all that is due. */
static void
read_all_due(void *pass_state, void *arg)
{
	RtPassState *state = pass_state;
	read_due(state, arg, false);
}

/* Find, and lock, the runs that end now; move the deadlines of those that were active. */
static void
find_due(RtPassState *state, Relation index)
{
	RtPass before = *state->pass;

	state->snapshot = rt_current_snapshot();
	if (attempt(state, read_all_due, index))
	{
		*state->pass = before;
		state->ndue = 0;
		state->writing = false;
		read_due(state, index, true);
	}
	UnregisterSnapshot(state->snapshot);
}

/* When the next deadline after this pass is. */
static void
find_next(RtPassState *state, Relation index)
{
	const RtTable *t = rt_table(RT_open_runs);
	IndexScanDesc scan;
	TupleTableSlot *row = table_slot_create(state->open_runs, NULL);
	bool isnull;

	state->snapshot = rt_latest_snapshot();
	scan = begin_scan(state, index, BTGreaterStrategyNumber, F_TIMESTAMPTZ_GT);
	if (index_getnext_slot(scan, ForwardScanDirection, row))
		state->pass->next_at =
			DatumGetTimestampTz(slot_getattr(row, RT_ATT(t, open_runs, deadline_at), &isnull));
	index_endscan(scan);
	ExecDropSingleTupleTableSlot(row);
	UnregisterSnapshot(state->snapshot);
}

/* ----------------------------------------------------------------
 * Ending runs
 * ----------------------------------------------------------------
 */

static Datum
text_array(Datum *values, int n)
{
	return PointerGetDatum(construct_array(values, n, TEXTOID, -1, false, TYPALIGN_INT));
}

static int
compare_due(const void *a, const void *b)
{
	return rt_uuid_compare(a, b);
}

/* Run an update of n runs; an error if it does not reach all of them. */
static void
update_runs(RtPlan *plan, const NullableDatum *args, int n)
{
	rt_plan_execute(plan, args, SPI_OK_UPDATE, false);
	if (SPI_processed != n)
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("%d of %d runs could not be timed out", n - (int) SPI_processed, n),
						errhint("A trigger or a policy may have suppressed the update.")));
}

/* End runs in one UPDATE, and send back to the queue those with attempts left in another. */
static void
end_runs(RtDue *due, int n, TimestampTz now)
{
	static RtPlan end =
		{"UPDATE run_tracker.runs r SET status = c.status, error = c.error, "
		 "error_detail = c.detail FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2), "
		 "pg_catalog.unnest($3), pg_catalog.unnest($4)) AS c (run_id, status, error, detail) "
		 "WHERE r.run_id OPERATOR(pg_catalog.=) c.run_id",
		 4,
		 {UUIDARRAYOID, TEXTARRAYOID, TEXTARRAYOID, TEXTARRAYOID}};
	static RtPlan requeue =
		{"UPDATE run_tracker.runs r SET status = c.status, scheduled_at = c.scheduled_at "
		 "FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3)) "
		 "AS c (run_id, status, scheduled_at) "
		 "WHERE r.run_id OPERATOR(pg_catalog.=) c.run_id",
		 3,
		 {UUIDARRAYOID, TEXTARRAYOID, TIMESTAMPTZARRAYOID}};
	Datum *columns[4];
	pg_uuid_t *run_ids = palloc(sizeof(pg_uuid_t) * n);
	NullableDatum args[4] = {{0}};
	int again = 0;

	for (int c = 0; c < lengthof(columns); c++)
		columns[c] = palloc(sizeof(Datum) * n);
	for (int i = 0; i < n; i++)
	{
		run_ids[i] = due[i].run.run_id;
		columns[0][i] = UUIDPGetDatum(&run_ids[i]);
		columns[1][i] = CStringGetTextDatum(due[i].status);
		columns[2][i] = CStringGetTextDatum(due[i].error);
		columns[3][i] = CStringGetTextDatum(due[i].detail);
	}
	args[0].value =
		PointerGetDatum(construct_array(columns[0], n, UUIDOID, UUID_LEN, false, TYPALIGN_CHAR));
	for (int c = 1; c < lengthof(columns); c++)
		args[c].value = text_array(columns[c], n);

	SPI_connect();
	rt_runs_force(run_ids, n);
	PG_TRY();
	{
		update_runs(&end, args, n);
	}
	PG_FINALLY();
	{
		rt_runs_force(NULL, 0);
	}
	PG_END_TRY();

	for (int i = 0; i < n; i++)
	{
		if (due[i].requeue_to == NULL)
			continue;
		columns[0][again] = UUIDPGetDatum(&run_ids[i]);
		columns[1][again] = CStringGetTextDatum(due[i].requeue_to);
		columns[2][again] = TimestampTzGetDatum(rt_retry_at(&due[i].run, now));
		again++;
	}
	if (again > 0)
	{
		args[0].value = PointerGetDatum(
			construct_array(columns[0], again, UUIDOID, UUID_LEN, false, TYPALIGN_CHAR));
		args[1].value = text_array(columns[1], again);
		args[2].value = PointerGetDatum(construct_array(columns[2], again, TIMESTAMPTZOID, 8,
														FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
		update_runs(&requeue, args, again);
	}
	SPI_finish();
}

/* Some of the runs that were found. */
typedef struct DueGroup
{
	RtDue *due;
	int n;
} DueGroup;

/* Step: end a group. */
static void
end_group(void *pass_state, void *arg)
{
	RtPassState *state = pass_state;
	const DueGroup *group = arg;

	end_runs(group->due, group->n, state->pass->now);
}

/* End the runs that were found: all together or, if that fails, one by one. */
static void
end_due(RtPassState *state)
{
	RtPass *pass = state->pass;
	DueGroup all = {state->due, state->ndue};
	TimestampTz limit = GetCurrentTimestamp() + rt_batch_timeout_ms * INT64CONST(3000);
	bool together;

	if (all.n == 0)
		return;
	qsort(all.due, all.n, sizeof(RtDue), compare_due);
	together = attempt(state, end_group, &all) == NULL;
	for (int i = 0; i < all.n; i++)
	{
		RtDue *due = &all.due[i];
		ErrorData *error = NULL;

		if (!together)
		{
			DueGroup one = {due, 1};

			/* the rest in another pass, so that this one ends some time */
			if (state->blocked >= MAX_BLOCKED ||
				(pass->background && GetCurrentTimestamp() > limit))
			{
				pass->busy = true;
				break;
			}
			error = attempt(state, end_group, &one);
		}
		if (error)
			give_up(state, &due->run.run_id, error);
		else if (due->requeue_to)
			pass->requeued++;
		else
			pass->timed_out++;
	}
}

/* Step: release reservations that have expired. */
static void
expire_reservations(void *pass_state, void *arg)
{
	rt_reservations_expire(((RtPassState *) pass_state)->pass->now, RESERVATIONS);
}

/* Release what has been reserved for too long; it does not count any more in any case. */
static void
release_reservations(RtPassState *state)
{
	RtPass *pass = state->pass;
	TimestampTz next = rt_reservations_next();

	if (next <= pass->now)
	{
		ErrorData *error = attempt(state, expire_reservations, NULL);

		next = rt_reservations_next();
		if (error && !is_transient(error->sqlerrcode))
		{
			next = Max(next, pass->now + PUT_OFF_US);
			if (pass->error == NULL)
				pass->error = MemoryContextStrdup(state->context, error->message);
		}
		/* others are settling them, or there are more */
		else if (next <= pass->now)
			next = pass->now + RESERVATIONS_RETRY_US;
	}
	pass->next_at = Min(pass->next_at, next);
}

/*
 * One pass, in the transaction and with the rights of the caller, who has an active
 * snapshot and sets the first fields of pass; the others begin as zero.
 */
void
rt_timeouts_pass(RtPass *pass)
{
	RtPassState state = {.pass = pass};
	const RtTable *t;
	Relation index;
	AttrNumber key;

	pass->next_at = DT_NOEND;
	state.runs = table_open(rt_table(RT_runs)->relid, RowExclusiveLock);
	state.open_runs = table_open(rt_table(RT_open_runs)->relid, RowExclusiveLock);
	t = rt_table(RT_open_runs);
	key = RT_ATT(t, open_runs, deadline_at);
	index = rt_index_open(state.open_runs, RT_DEADLINE_INDEX, 1, &key, -1);
	state.context = CurrentMemoryContext;
	state.row_context =
		AllocSetContextCreate(CurrentMemoryContext, "run_tracker row", ALLOCSET_DEFAULT_SIZES);
	state.due = MemoryContextAllocHuge(CurrentMemoryContext, sizeof(RtDue) * pass->max_runs);
	find_due(&state, index);
	end_due(&state);
	find_next(&state, index);
	release_reservations(&state);

	pfree(state.due);
	MemoryContextDelete(state.row_context);
	index_close(index, AccessShareLock);
	table_close(state.open_runs, NoLock);
	table_close(state.runs, NoLock);
}

/* expire_runs(max_runs, now) → number of runs timed out or sent back to the queue */
Datum
run_tracker_expire_runs(PG_FUNCTION_ARGS)
{
	int max_runs;
	int64 ended = 0;
	MemoryContext context;
	RtOwnerSwitch save;
	Relation runs;
	bool as_owner;
	RtPass pass;

	PreventCommandIfReadOnly("expire_runs()");
	rt_call_require(fcinfo, 0, "max_runs");
	max_runs = PG_GETARG_INT32(0);
	if (max_runs < 1)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("argument \"max_runs\" must be at least 1"),
						errdetail("It is %d.", max_runs)));
	if (!PG_ARGISNULL(1) && (TIMESTAMP_NOT_FINITE(PG_GETARG_TIMESTAMPTZ(1)) ||
							 PG_GETARG_TIMESTAMPTZ(1) > GetCurrentTimestamp() + FUTURE_US))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("argument \"now\" is out of range"),
						errdetail("It must be finite, and at most 1000 years ahead.")));
	if (!rt_identity_is_service())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE), errmsg("only services may time out runs"),
				 errhint("run_tracker.grant_service(role) makes a role a service.")));

	rt_triggers_require();
	runs = table_open(rt_table(RT_runs)->relid, AccessShareLock);
	/* as for all bookkeeping: triggers of the owner's do not get the rights of a superuser */
	as_owner = superuser() && !superuser_arg(runs->rd_rel->relowner);
	if (as_owner)
		rt_owner_enter(&save, runs);
	context =
		AllocSetContextCreate(CurrentMemoryContext, "run_tracker pass", ALLOCSET_DEFAULT_SIZES);
	do
	{
		MemoryContext oldcontext = MemoryContextSwitchTo(context);

		memset(&pass, 0, sizeof(pass));
		pass.now = PG_ARGISNULL(1) ? GetCurrentTimestamp() : PG_GETARG_TIMESTAMPTZ(1);
		pass.max_runs = Min(max_runs - ended, rt_batch_size);
		rt_timeouts_pass(&pass);
		ended += pass.timed_out + pass.requeued;
		MemoryContextSwitchTo(oldcontext);
		MemoryContextReset(context);
	} while (pass.more && ended < max_runs &&
			 pass.timed_out + pass.requeued + pass.rearmed + pass.failed > 0);
	if (as_owner)
		rt_owner_leave(&save);
	table_close(runs, NoLock);
	MemoryContextDelete(context);
	PG_RETURN_INT64(ended);
}
