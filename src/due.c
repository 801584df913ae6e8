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
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"

#include "due.h"
#include "lifecycles.h"
#include "open_runs.h"
#include "totals.h"

/*
 * The last activity of a run.  What is later than now was noted before the clock was set
 * back, and must not keep the run alive.
 */
typedef struct Activity
{
	TimestampTz now;
	TimestampTz last; /* DT_NOBEGIN: none known */
} Activity;

static void
note_activity(Activity *activity, TimestampTz moment)
{
	/* what came since the pass took the time counts as of then */
	if (moment > activity->now && moment <= GetCurrentTimestamp())
		moment = activity->now;
	if (moment <= activity->now)
		activity->last = Max(activity->last, moment);
}

/* Note the activity that rows of a table tell of: all of them, or the one with the highest key. */
static void
note_activity_in(Activity *activity, RtTableId id, AttrNumber att, bool highest, Datum run_id,
				 Snapshot snapshot)
{
	Relation rel = table_open(rt_table(id)->relid, AccessShareLock);
	ScanDirection direction = highest ? BackwardScanDirection : ForwardScanDirection;
	RtProbe probe;

	rt_probe_begin(&probe, rel, run_id, snapshot);
	while (rt_probe_next(&probe, direction))
	{
		bool isnull;
		Datum moment = slot_getattr(probe.slot, att, &isnull);

		CHECK_FOR_INTERRUPTS();
		if (!isnull)
			note_activity(activity, DatumGetTimestampTz(moment));
		if (highest)
			break;
	}
	rt_probe_end(&probe);
	table_close(rel, NoLock);
}

/*
 * When a run was last active.  Marks in open_runs lag behind; so a run that looks idle is
 * looked at in full before it ends: what does not change its totals, too.
 */
static TimestampTz
last_activity(const RtRun *run, TimestampTz marked, TimestampTz now, Snapshot snapshot,
			  bool in_full)
{
	Activity activity = {now, DT_NOBEGIN};
	Datum run_id = UUIDPGetDatum(&run->run_id);

	note_activity(&activity, marked);
	note_activity(&activity, run->updated_at);
	if (in_full)
	{
		note_activity_in(&activity, RT_run_totals,
						 RT_ATT(rt_table(RT_run_totals), run_totals, last_activity_at), false,
						 run_id, snapshot);
		note_activity_in(&activity, RT_tasks, RT_ATT(rt_table(RT_tasks), tasks, updated_at), false,
						 run_id, snapshot);
		note_activity_in(&activity, RT_response_chunks,
						 RT_ATT(rt_table(RT_response_chunks), response_chunks, created_at), false,
						 run_id, snapshot);
		note_activity_in(&activity, RT_logs, RT_ATT(rt_table(RT_logs), logs, created_at), true,
						 run_id, snapshot);
	}
	return activity.last == DT_NOBEGIN ? now : activity.last;
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
	TimestampTz marked;
	TimestampTz last = 0;
	TimestampTz available;
	TimestampTz deadline;
	bool by_max_duration;
	bool has_deadline = true;
	bool found;
	bool isnull;
	bool done = false;
	RtProbe probe;

	run_id = *DatumGetUUIDP(slot_getattr(row, RT_ATT(t, open_runs, run_id), &isnull));
	marked =
		DatumGetTimestampTz(slot_getattr(row, RT_ATT(t, open_runs, last_activity_at), &isnull));

	rt_probe_begin(&probe, state->runs, UUIDPGetDatum(&run_id), state->snapshot);
	found = rt_probe_next(&probe, ForwardScanDirection);
	if (found)
		rt_run_decode(&run, probe.slot, rt_table(RT_runs));
	if (!found || !RT_PHASE_IS_OPEN(run.phase))
	{
		/* somebody has deleted or ended the run past the triggers */
		done = begin_rewrite(state, row);
		if (done)
			rt_writer_delete(&state->writer, row);
		rt_probe_end(&probe);
		return done;
	}
	available = rt_open_run_available(&run);
	for (int in_full = 0; in_full <= 1; in_full++)
	{
		last = last_activity(&run, marked, now, state->snapshot, in_full);
		has_deadline = rt_open_run_deadline(&run, last, available, &deadline, &by_max_duration);
		if (!has_deadline || deadline > now)
			break;
	}

	if (!has_deadline || deadline > now)
		done = rearm(state, row, has_deadline ? deadline : 0, has_deadline, last);
	else if (!rt_run_is_busy(&run_id, true) &&
			 rt_row_lock(state->runs, probe.slot, state->snapshot, LockTupleExclusive, false) &&
			 rt_row_lock(state->open_runs, row, state->snapshot, LockTupleExclusive, false) &&
			 rt_tasks_lock_open(&run_id))
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
