/*-------------------------------------------------------------------------
 *
 * due.c
 *		One run whose deadline has passed: either its time has come, or it was active
 *		since, and its deadline moves.
 *
 * See timeouts.c for the locking protocol: nothing here waits.
 *
 * Memory: the caller resets the current context after each row; what outlives that is
 * allocated in the context of the pass.
 *
 *-------------------------------------------------------------------------
 */
#include "run_tracker.h"

#include "access/table.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"

#include "due.h"
#include "lifecycles.h"
#include "open_runs.h"
#include "totals.h"

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
begin_rewrite(RtPassState *state, TupleTableSlot *row)
{
	if (!rt_row_lock(state->open_runs, row, state->snapshot, LockTupleExclusive, false))
		return false;
	if (!state->writing)
	{
		MemoryContext old = MemoryContextSwitchTo(state->context);

		rt_writer_open(&state->writer, RT_open_runs);
		state->writing = true;
		MemoryContextSwitchTo(old);
	}
	rt_writer_copy(&state->writer, row);
	return true;
}

/* Set the deadline of an open run to where it belongs by now. */
static bool
rearm(RtPassState *state, TupleTableSlot *row, TimestampTz deadline, bool has_deadline,
	  TimestampTz last)
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
explain(RtDue *due, TimestampTz now, TimestampTz since, bool by_max_duration)
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
bool
rt_due_look_at(RtPassState *state, TupleTableSlot *row)
{
	const RtTable *t = rt_table(RT_open_runs);
	TimestampTz now = state->pass->now;
	RtRun run;
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
	rt_run_decode(&run, probe.slot, rt_table(RT_runs));
	last = Max(last, run.updated_at);
	last = Max(last, last_activity_of_children(&run_id, state->snapshot));
	/* a clock that was set back must not keep a run alive */
	last = Min(last, now);
	available = rt_open_run_available(&run);
	has_deadline = RT_PHASE_IS_OPEN(run.phase) &&
				   rt_open_run_deadline(&run, last, available, &deadline, &by_max_duration);

	if (!has_deadline || deadline > now)
		done = rearm(state, row, has_deadline ? deadline : 0, has_deadline, last);
	else if (rt_row_lock(state->runs, probe.slot, state->snapshot, LockTupleExclusive, false) &&
			 rt_row_lock(state->open_runs, row, state->snapshot, LockTupleExclusive, false) &&
			 rt_tasks_lock_open(&run_id, state->snapshot))
	{
		RtDue *due = &state->due[state->ndue];
		MemoryContext old = MemoryContextSwitchTo(state->context);

		rt_run_decode(&due->run, probe.slot, rt_table(RT_runs));
		if (by_max_duration)
			last = run.started_at;
		else if (run.phase == RT_QUEUED)
			last = Max(last, available);
		explain(due, now, last, by_max_duration);
		MemoryContextSwitchTo(old);
		state->ndue++;
		done = true;
	}
	rt_probe_end(&probe);
	return done;
}
