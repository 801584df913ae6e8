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
 * Locking protocol: the pass never waits for a client.  It locks the row of a run in
 * runs, then that in open_runs, each only if nobody else has it or has changed it
 * since the snapshot of the pass; and it leaves alone a run of which somebody is
 * changing open tasks.  Those who change a run are its activity, so it is looked at again
 * a little later.  What is locked cannot change any more before the UPDATE.
 *
 * An error while ending runs, which only a trigger or a constraint of the owner's can
 * cause, must not keep the others from ending: runs that fail together are tried one
 * by one, and what fails then is put off for a minute.
 *
 * Memory: everything lives in the caller's context, for one pass.
 *
 *-------------------------------------------------------------------------
 */
#include "timeouts.h"

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
#include "utils/resowner.h"
#include "utils/snapmgr.h"
#include "utils/timeout.h"

#include "calls.h"
#include "claims.h"
#include "identity.h"
#include "lifecycles.h"
#include "open_runs.h"
#include "runs.h"
#include "totals.h"
#include "writer.h"

PG_FUNCTION_INFO_V1(run_tracker_expire_runs);

/* a run that cannot be ended is tried again after this time */
#define PUT_OFF_US (60 * INT64CONST(1000000))

/* rows that a pass looks at, at most, for each run that it may end */
#define LOOKS_PER_RUN 20

/* A run whose time is up, locked. */
typedef struct Due
{
	RtRun run; /* must be first: sorted by run_id */
	char *error;
	char *detail;
	const char *status;		/* to end in */
	const char *requeue_to; /* status to go on to from there; NULL: none */
} Due;

typedef struct State
{
	RtPass *pass;
	Relation runs;
	Relation open_runs;
	Snapshot snapshot;
	RtWriter writer; /* of open_runs, if writing */
	bool writing;
	Due *due;
	int ndue;
} State;

/* ----------------------------------------------------------------
 * Finding what is due
 * ----------------------------------------------------------------
 */

/* The last activity of a run's children, which marks in open_runs may lag behind. */
static TimestampTz
last_activity_of_children(const pg_uuid_t *run_id, Snapshot snapshot)
{
	Relation rel = table_open(rt_table(RT_run_totals)->relid, AccessShareLock);
	const RtTable *t = rt_table(RT_run_totals);
	TimestampTz last = DT_NOBEGIN;
	RtProbe probe;

	rt_probe_begin(&probe, rel, UUIDPGetDatum(run_id), snapshot);
	while (rt_probe_next(&probe, ForwardScanDirection))
	{
		bool isnull;
		TimestampTz value = DatumGetTimestampTz(
			slot_getattr(probe.slot, RT_ATT(t, run_totals, last_activity_at), &isnull));

		last = Max(last, value);
	}
	rt_probe_end(&probe);
	table_close(rel, NoLock);
	return last;
}

/* Lock the row of open_runs, and begin to write over it; false if somebody else has it. */
static bool
begin_rewrite(State *state, TupleTableSlot *row)
{
	if (!rt_row_lock(state->open_runs, row, state->snapshot, LockTupleExclusive, false))
		return false;
	if (!state->writing)
		rt_writer_open(&state->writer, RT_open_runs);
	state->writing = true;
	rt_writer_copy(&state->writer, row);
	return true;
}

/* Set the deadline of an open run to where it belongs by now. */
static bool
rearm(State *state, TupleTableSlot *row, TimestampTz deadline, bool has_deadline, TimestampTz last)
{
	if (!begin_rewrite(state, row))
		return false;
	rt_writer_set(&state->writer, RT_ATT(state->writer.table, open_runs, deadline_at),
				  TimestampTzGetDatum(deadline), !has_deadline);
	rt_writer_set(&state->writer, RT_ATT(state->writer.table, open_runs, last_activity_at),
				  TimestampTzGetDatum(last), false);
	rt_writer_update(&state->writer, row);
	state->pass->rearmed++;
	return true;
}

static char *
interval_string(Datum interval)
{
	return DatumGetCString(DirectFunctionCall1(interval_out, interval));
}

/* Say which timeout it was, after how long, in which status; and choose where to go. */
static void
explain(Due *due, TimestampTz now, TimestampTz since, bool by_max_duration)
{
	const RtRun *run = &due->run;
	const RtLifecycle *lifecycle = rt_lifecycle_get(run->lifecycle);
	int from = rt_lifecycle_state_required(lifecycle, run->status);
	int to = rt_lifecycle_closing(lifecycle, from, RT_TIMED_OUT);
	int again = rt_lifecycle_next(lifecycle, to, RT_QUEUED);
	int64 ms = rt_elapsed_ms(since, now);
	Interval timeout = lifecycle->states[from].timeout;
	Datum limit = by_max_duration			? run->max_duration :
				  run->timeout != (Datum) 0 ? run->timeout :
											  IntervalPGetDatum(&timeout);

	due->error = psprintf(by_max_duration ?
							  "maximum duration: not finished after %lld.%03d s in status \"%s\"" :
							  "idle timeout: no activity for %lld.%03d s in status \"%s\"",
						  (long long) (ms / 1000), (int) (ms % 1000), lifecycle->states[from].name);
	due->detail =
		psprintf(by_max_duration ? "The maximum duration is %s; the attempt began at %s." :
								   "The idle timeout is %s; the last activity was at %s.",
				 interval_string(limit),
				 DatumGetCString(DirectFunctionCall1(timestamptz_out, TimestampTzGetDatum(since))));
	due->status = pstrdup(lifecycle->states[to].name);
	due->requeue_to = NULL;
	if (run->phase == RT_ACTIVE && run->attempt < run->max_attempts && again >= 0)
		due->requeue_to = pstrdup(lifecycle->states[again].name);
}

/*
 * Look at a row of open_runs whose deadline_at has passed.  False if nothing could be
 * done about it now.
 */
static bool
look_at(State *state, TupleTableSlot *row)
{
	const RtTable *t = rt_table(RT_open_runs);
	TimestampTz now = state->pass->now;
	Due *due = &state->due[state->ndue];
	pg_uuid_t run_id;
	TimestampTz last;
	TimestampTz available;
	TimestampTz deadline;
	bool by_max_duration;
	bool has_deadline;
	bool isnull;
	bool done = false;
	RtProbe probe;

	run_id = *DatumGetUUIDP(slot_getattr(row, RT_ATT(t, open_runs, run_id), &isnull));
	last = DatumGetTimestampTz(slot_getattr(row, RT_ATT(t, open_runs, last_activity_at), &isnull));

	rt_probe_begin(&probe, state->runs, UUIDPGetDatum(&run_id), state->snapshot);
	if (!rt_probe_next(&probe, ForwardScanDirection))
	{
		/* somebody has deleted the run past the triggers */
		done = begin_rewrite(state, row);
		if (done)
			rt_writer_delete(&state->writer, row);
		rt_probe_end(&probe);
		return done;
	}
	rt_run_decode(&due->run, probe.slot, rt_table(RT_runs));
	last = Max(last, due->run.updated_at);
	last = Max(last, last_activity_of_children(&run_id, state->snapshot));
	/* a clock that was set back must not keep a run alive */
	last = Min(last, now);
	available = rt_open_run_available(&due->run);
	has_deadline = RT_PHASE_IS_OPEN(due->run.phase) &&
				   rt_open_run_deadline(&due->run, last, available, &deadline, &by_max_duration);

	if (!has_deadline || deadline > now)
		done = rearm(state, row, has_deadline ? deadline : 0, has_deadline, last);
	else if (rt_row_lock(state->runs, probe.slot, state->snapshot, LockTupleExclusive, false) &&
			 rt_row_lock(state->open_runs, row, state->snapshot, LockTupleExclusive, false) &&
			 !rt_tasks_are_busy(&run_id))
	{
		if (by_max_duration)
			last = due->run.started_at;
		else if (due->run.phase == RT_QUEUED)
			last = Max(last, available);
		explain(due, now, last, by_max_duration);
		state->ndue++;
		done = true;
	}
	rt_probe_end(&probe);
	return done;
}

/* Begin to read the index of deadlines, up to a moment or after it. */
static IndexScanDesc
begin_scan(State *state, Relation index, StrategyNumber strategy, RegProcedure comparison)
{
	IndexScanDesc scan = rt_index_beginscan(state->open_runs, index, state->snapshot, 1);
	ScanKeyData key;

	ScanKeyInit(&key, 1, strategy, comparison, TimestampTzGetDatum(state->pass->now));
	index_rescan(scan, &key, 1, NULL, 0);
	return scan;
}

/* Find, and lock, the runs that end now; move the deadlines of those that were active. */
static void
find_due(State *state, Relation index)
{
	IndexScanDesc scan = begin_scan(state, index, BTLessEqualStrategyNumber, F_TIMESTAMPTZ_LE);
	TupleTableSlot *row = table_slot_create(state->open_runs, NULL);
	int64 looks = (int64) state->pass->max_runs * LOOKS_PER_RUN;

	while (index_getnext_slot(scan, ForwardScanDirection, row))
	{
		CHECK_FOR_INTERRUPTS();
		if (state->ndue >= state->pass->max_runs || looks <= 0)
		{
			state->pass->more = true;
			break;
		}
		/* those that nothing can be done about now must not keep us from the others */
		if (look_at(state, row))
			looks--;
		else
			state->pass->busy = true;
	}
	ExecDropSingleTupleTableSlot(row);
	index_endscan(scan);
	if (state->writing)
		rt_writer_close(&state->writer);
	state->writing = false;
}

/* When the next deadline after this pass is. */
static void
find_next(State *state, Relation index)
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
end_runs(Due *due, int n, TimestampTz now)
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

/* Errors that say nothing of the run: somebody else was in the way. */
static bool
is_transient(int sqlerrcode)
{
	return ERRCODE_TO_CATEGORY(sqlerrcode) == ERRCODE_TRANSACTION_ROLLBACK ||
		   sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE;
}

/* The time limit may strike at the last moment, and must not hit what comes next. */
static void
end_time_limit(void)
{
	disable_timeout(STATEMENT_TIMEOUT, false);
	QueryCancelPending = false;
}

/*
 * end_runs() in a subtransaction: NULL if it succeeded, else the error.  Errors that are
 * meant for the caller as a whole are thrown.
 */
static ErrorData *
try_to_end(Due *due, int n, const RtPass *pass)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	ErrorData *volatile error = NULL;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		if (pass->background)
			enable_timeout_after(STATEMENT_TIMEOUT, rt_batch_timeout_ms);
		end_runs(due, n, pass->now);
		if (pass->background)
			end_time_limit();
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		if (pass->background)
			end_time_limit();
		RollbackAndReleaseCurrentSubTransaction();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;

	if (error && (error->elevel > ERROR ||
				  (error->sqlerrcode == ERRCODE_QUERY_CANCELED && !pass->background) ||
				  error->sqlerrcode == ERRCODE_ADMIN_SHUTDOWN))
		ReThrowError(error);
	return error;
}

/* Try a run that cannot be ended again later. */
static void
put_off(const Due *due, RtPass *pass)
{
	Relation rel = table_open(rt_table(RT_open_runs)->relid, RowExclusiveLock);
	Snapshot snapshot = rt_latest_snapshot();
	RtProbe probe;

	rt_probe_begin(&probe, rel, UUIDPGetDatum(&due->run.run_id), snapshot);
	if (rt_probe_next(&probe, ForwardScanDirection) &&
		rt_row_lock(rel, probe.slot, snapshot, LockTupleExclusive, false))
	{
		RtWriter writer;

		rt_writer_open(&writer, RT_open_runs);
		rt_writer_copy(&writer, probe.slot);
		rt_writer_set(&writer, RT_ATT(writer.table, open_runs, deadline_at),
					  TimestampTzGetDatum(pass->now + PUT_OFF_US), false);
		rt_writer_update(&writer, probe.slot);
		rt_writer_close(&writer);
	}
	rt_probe_end(&probe);
	UnregisterSnapshot(snapshot);
	table_close(rel, NoLock);
}

/* A single run could not be ended. */
static void
note_failure(const Due *due, RtPass *pass, const ErrorData *error)
{
	if (is_transient(error->sqlerrcode))
	{
		pass->busy = true;
		return;
	}
	put_off(due, pass);
	if (!pass->background)
		ereport(WARNING, (errcode(error->sqlerrcode),
						  errmsg("run %s could not be timed out: %s",
								 rt_uuid_string(UUIDPGetDatum(&due->run.run_id)), error->message)));
	if (pass->error == NULL)
		pass->error =
			psprintf("run %s: %s", rt_uuid_string(UUIDPGetDatum(&due->run.run_id)), error->message);
	pass->failed++;
}

/* End the runs that were found: all together or, if that fails, one by one. */
static void
end_due(Due *due, int n, RtPass *pass)
{
	TimestampTz give_up = GetCurrentTimestamp() + rt_batch_timeout_ms * INT64CONST(2000);
	bool together;

	if (n == 0)
		return;
	qsort(due, n, sizeof(Due), compare_due);
	together = try_to_end(due, n, pass) == NULL;
	for (int i = 0; i < n; i++)
	{
		ErrorData *error = NULL;

		if (!together)
		{
			/* the rest in the next pass, so that this one ends some time */
			if (pass->background && GetCurrentTimestamp() > give_up)
			{
				pass->more = true;
				break;
			}
			error = try_to_end(&due[i], 1, pass);
		}
		if (error)
			note_failure(&due[i], pass, error);
		else if (due[i].requeue_to)
			pass->requeued++;
		else
			pass->timed_out++;
	}
}

/*
 * One pass, in the transaction and with the rights of the caller, who has an active
 * snapshot and sets the first fields of pass; the others begin as zero.
 */
void
rt_timeouts_pass(RtPass *pass)
{
	State state = {.pass = pass};
	const RtTable *t;
	Relation index;
	AttrNumber key;

	pass->next_at = DT_NOEND;
	state.runs = table_open(rt_table(RT_runs)->relid, RowExclusiveLock);
	state.open_runs = table_open(rt_table(RT_open_runs)->relid, RowExclusiveLock);
	t = rt_table(RT_open_runs);
	key = RT_ATT(t, open_runs, deadline_at);
	index = rt_index_open(state.open_runs, RT_DEADLINE_INDEX, 1, &key);
	state.due = MemoryContextAllocHuge(CurrentMemoryContext, sizeof(Due) * (pass->max_runs + 1));
	state.snapshot = rt_current_snapshot();
	find_due(&state, index);
	UnregisterSnapshot(state.snapshot);
	end_due(state.due, state.ndue, pass);
	find_next(&state, index);

	pfree(state.due);
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

	rt_call_require(fcinfo, 0, "max_runs");
	max_runs = PG_GETARG_INT32(0);
	if (max_runs < 1)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("argument \"max_runs\" must be at least 1"),
						errdetail("It is %d.", max_runs)));
	if (!rt_identity_is_service())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE), errmsg("only services may time out runs"),
				 errhint("run_tracker.grant_service(role) makes a role a service.")));

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
