/*-------------------------------------------------------------------------
 *
 * open_runs.c
 *		The open set: one narrow row per run that is not finished, derived from
 *		runs.  Workers claim from it, and it says when a run times out.
 *
 * The row of a run is written by whoever changes the run, and so holds the lock on
 * its row in runs; it waits for those who only mark activity.  Activity of children
 * is marked by rt_open_runs_touch(), which never waits: if somebody else holds the
 * row, it is being marked already.  A mark moves last_activity_at only, which has no
 * index, and is made at most a few times per timeout.
 *
 * There is no foreign key to runs, since checking it would wait for whoever is about
 * to finish the run: the trigger on runs deletes the rows.
 *
 *-------------------------------------------------------------------------
 */
#include "run_tracker.h"

#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "executor/spi.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/fmgrprotos.h"
#include "utils/snapmgr.h"

#include "lifecycles.h"
#include "notes.h"
#include "open_runs.h"
#include "writer.h"

PG_FUNCTION_INFO_V1(run_tracker_rebuild_open_runs);

/* marks per idle timeout, and bounds of the time between two marks */
#define RT_MARKS_PER_TIMEOUT 16
#define RT_MARK_MIN_US		 (10 * INT64CONST(1000))
#define RT_MARK_MAX_US		 (5 * INT64CONST(1000000))

/* what is further away than this is for ever */
#define RT_FOREVER_YEARS 1000
#define RT_FOREVER_US	 (RT_FOREVER_YEARS * INT64CONST(366) * USECS_PER_DAY)

/*
 * A moment plus an interval that users may choose freely: infinity where the sum, or a part
 * of it, would leave the range of timestamps.  Never fails: a pass over all users' runs
 * depends on it.
 */
static TimestampTz
add_interval(TimestampTz moment, Datum datum)
{
	const Interval *interval = DatumGetIntervalP(datum);

	if (TIMESTAMP_NOT_FINITE(moment))
		return moment;
	if (abs(interval->month) > RT_FOREVER_YEARS * MONTHS_PER_YEAR ||
		abs(interval->day) > RT_FOREVER_YEARS * 366 || interval->time > RT_FOREVER_US ||
		interval->time < -RT_FOREVER_US || moment > END_TIMESTAMP - 4 * RT_FOREVER_US ||
		moment < MIN_TIMESTAMP + 4 * RT_FOREVER_US)
		return DT_NOEND;
	return DatumGetTimestampTz(
		DirectFunctionCall2(timestamptz_pl_interval, TimestampTzGetDatum(moment), datum));
}

/* The moment before which a queued run is not to be claimed. */
TimestampTz
rt_open_run_available(const RtRun *run)
{
	return run->scheduled_at != DT_NOBEGIN ? run->scheduled_at : run->created_at;
}

/*
 * When an open run times out if nothing happens to it any more: idle timeout after
 * its last activity, but not after its start plus max_duration.  False if never.
 */
bool
rt_open_run_deadline(const RtRun *run, TimestampTz last_activity, TimestampTz available,
					 TimestampTz *result, bool *by_max_duration)
{
	const RtLifecycle *lifecycle = rt_lifecycle_get(run->lifecycle);
	const RtState *state = &lifecycle->states[rt_lifecycle_state_required(lifecycle, run->status)];
	bool found = false;

	*by_max_duration = false;
	if (run->phase == RT_WAITING || !lifecycle->can_time_out)
		return false;
	if (state->has_timeout || (run->timeout != (Datum) 0 && !state->never))
	{
		Interval timeout = state->timeout;

		/* a queued run begins to wait when it is due */
		*result =
			add_interval(run->phase == RT_QUEUED ? Max(last_activity, available) : last_activity,
						 run->timeout != (Datum) 0 ? run->timeout : IntervalPGetDatum(&timeout));
		found = true;
	}
	if (run->max_duration != (Datum) 0 && run->started_at != DT_NOBEGIN)
	{
		TimestampTz end = add_interval(run->started_at, run->max_duration);

		if (!found || end < *result)
		{
			*result = end;
			*by_max_duration = true;
		}
		found = true;
	}
	return found;
}

/* Begin the row that a run should have. */
static void
begin_row(RtWriter *writer, const RtRun *run, TimestampTz now)
{
	const RtTable *t = writer->table;
	TimestampTz available = rt_open_run_available(run);
	TimestampTz deadline_at = 0;
	bool by_max_duration;
	bool has_deadline = rt_open_run_deadline(run, now, available, &deadline_at, &by_max_duration);

	if (has_deadline)
		rt_note_deadline(deadline_at);
	rt_writer_set(writer, RT_ATT(t, open_runs, run_id), UUIDPGetDatum(&run->run_id), false);
	rt_writer_set(writer, RT_ATT(t, open_runs, user_id), run->user_id, false);
	rt_writer_set(writer, RT_ATT(t, open_runs, lifecycle), run->lifecycle, false);
	rt_writer_set(writer, RT_ATT(t, open_runs, kind), run->kind, run->kind == (Datum) 0);
	rt_writer_set(writer, RT_ATT(t, open_runs, phase), rt_phase_datum(run->phase), false);
	rt_writer_set(writer, RT_ATT(t, open_runs, priority), Int32GetDatum(run->priority), false);
	rt_writer_set(writer, RT_ATT(t, open_runs, available_at), TimestampTzGetDatum(available),
				  false);
	rt_writer_set(writer, RT_ATT(t, open_runs, deadline_at), TimestampTzGetDatum(deadline_at),
				  !has_deadline);
	rt_writer_set(writer, RT_ATT(t, open_runs, last_activity_at), TimestampTzGetDatum(now), false);
	rt_writer_set(writer, RT_ATT(t, open_runs, worker), run->worker, run->worker == (Datum) 0);
	rt_writer_set(writer, RT_ATT(t, open_runs, attempt), Int32GetDatum(run->attempt), false);
}

/* Lock the row of a run; 40001 if it was changed after the transaction's snapshot. */
static void
lock_row(Relation rel, TupleTableSlot *row, Snapshot snapshot)
{
	ItemPointerData tid = row->tts_tid;

	if (!rt_row_lock(rel, row, snapshot, LockTupleExclusive, true) ||
		(IsolationUsesXactSnapshot() && !ItemPointerEquals(&tid, &row->tts_tid)))
		ereport(ERROR, (errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
						errmsg("could not serialize access due to concurrent update"),
						errdetail("Another transaction has noted activity of the run."),
						errhint("The transaction might succeed if retried."), errtable(rel)));
}

/* Make the rows of runs, whose rows in runs the caller has locked, what they should be. */
void
rt_open_runs_sync(const RtRun *runs, int n)
{
	RtWriter writer;
	Snapshot snapshot;
	TimestampTz now = GetCurrentTimestamp();

	if (n == 0)
		return;
	rt_writer_open(&writer, RT_open_runs);
	snapshot = rt_current_snapshot();
	for (int i = 0; i < n; i++)
	{
		const RtRun *run = &runs[i];
		RtProbe probe;
		bool found;

		rt_probe_begin(&probe, writer.rel, UUIDPGetDatum(&run->run_id), snapshot);
		found = rt_probe_next(&probe, ForwardScanDirection);
		if (found)
			lock_row(writer.rel, probe.slot, snapshot);
		if (!RT_PHASE_IS_OPEN(run->phase))
		{
			if (found)
				rt_writer_delete(&writer, probe.slot);
		}
		else if (found)
		{
			rt_writer_copy(&writer, probe.slot);
			begin_row(&writer, run, now);
			rt_writer_update(&writer, probe.slot);
		}
		else
		{
			rt_writer_blank(&writer);
			begin_row(&writer, run, now);
			rt_writer_insert(&writer);
		}
		rt_probe_end(&probe);
	}
	UnregisterSnapshot(snapshot);
	rt_writer_close(&writer);
}

/*
 * Is it time to mark activity again?  Activity that leaves its time elsewhere, too, is
 * marked now and then; a heartbeat, which does not, whenever it comes.
 */
static bool
mark_is_due(const RtTable *t, TupleTableSlot *row, TimestampTz now, bool heartbeat)
{
	bool isnull;
	TimestampTz last =
		DatumGetTimestampTz(slot_getattr(row, RT_ATT(t, open_runs, last_activity_at), &isnull));
	Datum deadline_at = slot_getattr(row, RT_ATT(t, open_runs, deadline_at), &isnull);
	int64 interval = RT_MARK_MAX_US;

	if (heartbeat)
		interval = RT_MARK_MIN_US;
	else if (!isnull)
		interval = (DatumGetTimestampTz(deadline_at) - last) / RT_MARKS_PER_TIMEOUT;
	return now - last >= Min(Max(interval, RT_MARK_MIN_US), RT_MARK_MAX_US);
}

/*
 * Mark a run as alive, if that is not known yet.  Never waits: false if somebody else has
 * the row, or it is too early.  The caller has a lock on the table.
 */
static bool
mark(RtWriter *writer, bool *writing, Relation rel, TupleTableSlot *row, Snapshot snapshot,
	 TimestampTz now, bool heartbeat)
{
	const RtTable *t = rt_table(RT_open_runs);

	if (!mark_is_due(t, row, now, heartbeat) ||
		!rt_row_lock(rel, row, snapshot, LockTupleNoKeyExclusive, false))
		return false;
	if (!*writing)
		rt_writer_open(writer, RT_open_runs);
	*writing = true;
	rt_writer_copy(writer, row);
	rt_writer_set(writer, RT_ATT(writer->table, open_runs, last_activity_at),
				  TimestampTzGetDatum(now), false);
	rt_writer_update(writer, row);
	return true;
}

/* Mark runs as alive, if they are open and that is not known yet.  Never waits. */
void
rt_open_runs_touch(RtDelta **deltas, int n)
{
	Relation rel = table_open(rt_table(RT_open_runs)->relid, RowExclusiveLock);
	Snapshot snapshot = rt_current_snapshot();
	TimestampTz now = GetCurrentTimestamp();
	RtWriter writer;
	bool writing = false;

	for (int i = 0; i < n; i++)
	{
		RtProbe probe;

		rt_probe_begin(&probe, rel, UUIDPGetDatum(&deltas[i]->run_id), snapshot);
		if (rt_probe_next(&probe, ForwardScanDirection))
			(void) mark(&writer, &writing, rel, probe.slot, snapshot, now, false);
		rt_probe_end(&probe);
	}
	UnregisterSnapshot(snapshot);
	if (writing)
		rt_writer_close(&writer);
	table_close(rel, NoLock);
}

/* Note a heartbeat in the row of a run that the caller has found. */
bool
rt_open_run_heartbeat(TupleTableSlot *row, Relation rel, Snapshot snapshot)
{
	RtWriter writer;
	bool writing = false;
	bool marked = mark(&writer, &writing, rel, row, snapshot, GetCurrentTimestamp(), true);

	if (writing)
		rt_writer_close(&writer);
	return marked;
}

/*
 * rebuild_open_runs() → number of rows put right, besides those that must go.  For install(), after
 * the triggers were gone for a while; the caller keeps writers away.
 */
Datum
run_tracker_rebuild_open_runs(PG_FUNCTION_ARGS)
{
	RtRun *runs;
	uint64 nruns;

	(void) rt_table(RT_runs);
	SPI_connect();
	if (SPI_execute("SELECT r.run_id FROM run_tracker.runs r "
					"LEFT JOIN run_tracker.open_runs o ON o.run_id = r.run_id "
					"WHERE r.phase IN ('queued', 'active', 'waiting') "
					"AND (o.lifecycle, o.kind, o.phase, o.priority, o.worker, o.attempt) "
					"IS DISTINCT FROM (r.lifecycle, r.kind, r.phase, r.priority, r.worker, r.attempt)",
					false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read runs");
	runs = palloc(sizeof(RtRun) * Max(SPI_processed, 1));
	nruns = 0;
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		bool isnull;
		Datum run_id = SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1, &isnull);

		if (rt_run_fetch(DatumGetUUIDP(run_id), &runs[nruns]))
			nruns++;
	}
	rt_open_runs_sync(runs, nruns);
	SPI_finish();
	PG_RETURN_INT64(nruns);
}
