/*-------------------------------------------------------------------------
 *
 * task_close.c
 *		The open tasks of a run that ends end with it.
 *
 * Whoever ends a run holds FOR UPDATE on its row, so no open task can be added any
 * more; see runs.c for the locking protocol.
 *
 * Memory: one static struct that says whose tasks are being ended, while they are.
 *
 *-------------------------------------------------------------------------
 */
#include "run_tracker.h"

#include "access/table.h"
#include "access/xact.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"

#include "runs.h"
#include "totals.h"
#include "writer.h"

/* The runs whose open tasks are being ended, in order, while rt_tasks_close() does that. */
typedef struct Closing
{
	const pg_uuid_t *run_ids;
	int nruns;
	RtPhase phase;
} Closing;

static Closing closing;

/*
 * If the run of the task is being ended, an open task ends with it, whatever its
 * lifecycle lists.  True if this was done.
 */
bool
rt_tasks_close_with_run(RtRow *row, const RtStatusColumns *c)
{
	AttrNumber run_id = RT_ATT(row->table, tasks, run_id);
	const RtLifecycle *lifecycle;
	int state;

	if (closing.nruns == 0 || rt_row_isnull(row, c->status) || rt_row_differs(row, c->status) ||
		bsearch(DatumGetUUIDP(rt_row_get(row, run_id)), closing.run_ids, closing.nruns,
				sizeof(pg_uuid_t), rt_uuid_compare) == NULL)
		return false;
	lifecycle = rt_lifecycle_get(rt_row_get(row, c->lifecycle));
	state = rt_lifecycle_state_required(lifecycle, rt_row_get(row, c->status));
	if (!RT_PHASE_IS_OPEN(lifecycle->states[state].phase))
		return false;
	state = rt_lifecycle_closing(lifecycle, state, closing.phase);
	rt_row_set(row, c->status, CStringGetTextDatum(lifecycle->states[state].name));
	return true;
}

/* Has the run open tasks, according to its totals? */
static bool
has_open_tasks(Relation totals, const RtTable *t, const pg_uuid_t *run_id, Snapshot snapshot)
{
	RtProbe probe;
	int64 open = 0;

	rt_probe_begin(&probe, totals, UUIDPGetDatum(run_id), snapshot);
	while (rt_probe_next(&probe, ForwardScanDirection))
	{
		bool isnull;

		open += DatumGetInt64(
			slot_getattr(probe.slot, RT_ATT(t, run_totals, open_task_count), &isnull));
	}
	rt_probe_end(&probe);
	return open != 0;
}

/*
 * A transaction in progress that is changing rows of a run in a table or, with inserted,
 * adding some; invalid if there is none.
 */
static TransactionId
find_writer(Relation rel, Datum run_id, bool inserted, ItemPointer tid)
{
	TransactionId writer = InvalidTransactionId;
	SnapshotData dirty;
	RtProbe probe;

	InitDirtySnapshot(dirty);
	rt_probe_begin(&probe, rel, run_id, &dirty);
	while (!TransactionIdIsValid(writer) && rt_probe_next(&probe, ForwardScanDirection))
	{
		CHECK_FOR_INTERRUPTS();
		/* set for a version that a transaction in progress is about to replace */
		writer = dirty.xmax;
		/* and for one that a transaction in progress has made */
		if (inserted && TransactionIdIsValid(dirty.xmin))
			writer = dirty.xmin;
		*tid = probe.slot->tts_tid;
	}
	rt_probe_end(&probe);
	return writer;
}

/* Wait for those who are changing rows of a run in a table, without locking anything. */
static void
wait_for_writers_in(RtTableId id, Datum run_id)
{
	Relation rel = table_open(rt_table(id)->relid, AccessShareLock);
	TransactionId writer;
	ItemPointerData tid;

	while (TransactionIdIsValid(writer = find_writer(rel, run_id, id == RT_response_chunks, &tid)))
		XactLockTableWait(writer, rel, &tid, XLTW_Update);
	table_close(rel, NoLock);
}

/* Is somebody changing rows of a run in a table? */
static bool
is_written(RtTableId id, const pg_uuid_t *run_id)
{
	Relation rel = table_open(rt_table(id)->relid, AccessShareLock);
	ItemPointerData tid;
	bool written = TransactionIdIsValid(
		find_writer(rel, UUIDPGetDatum(run_id), id == RT_response_chunks, &tid));

	table_close(rel, NoLock);
	return written;
}

/*
 * Is somebody marking a run as alive or, if tasks counts, changing its tasks?  Those who go
 * past such a run ask this before they lock its row, so as not to leave it locked.
 */
bool
rt_run_is_busy(const pg_uuid_t *run_id, bool tasks)
{
	return is_written(RT_open_runs, run_id) ||
		   (tasks && (is_written(RT_tasks, run_id) || is_written(RT_response_chunks, run_id)));
}

/*
 * Lock the open tasks of a run that is about to end, and is locked; false if somebody else is
 * changing one of them.  Never waits; nor has the end of the run anything to wait for then.
 */
bool
rt_tasks_lock_open(const pg_uuid_t *run_id)
{
	/* newer than what the caller went by: tasks may have been added before it locked the run */
	Snapshot snapshot = rt_current_snapshot();
	Relation rel = table_open(rt_table(RT_run_totals)->relid, AccessShareLock);
	bool open = has_open_tasks(rel, rt_table(RT_run_totals), run_id, snapshot);
	bool locked = true;
	const RtTable *t;
	RtProbe probe;

	table_close(rel, NoLock);
	if (!open)
	{
		UnregisterSnapshot(snapshot);
		return true;
	}
	rel = table_open(rt_table(RT_tasks)->relid, RowExclusiveLock);
	t = rt_table(RT_tasks);
	rt_probe_begin(&probe, rel, UUIDPGetDatum(run_id), snapshot);
	while (locked && rt_probe_next(&probe, ForwardScanDirection))
	{
		bool isnull;
		Datum phase = slot_getattr(probe.slot, RT_ATT(t, tasks, phase), &isnull);

		CHECK_FOR_INTERRUPTS();
		if (RT_PHASE_IS_OPEN(rt_phase_decode(phase)))
			locked = rt_row_lock(rel, probe.slot, snapshot, LockTupleNoKeyExclusive, false);
	}
	rt_probe_end(&probe);
	UnregisterSnapshot(snapshot);
	table_close(rel, NoLock);
	return locked;
}

/*
 * Wait for the transactions that are marking a run as alive or, if it is about to end,
 * changing its open tasks.  Called before the run is locked: waiting for them afterwards
 * would deadlock with those that go on to change the run itself, as they do when the last
 * task is completed.  What begins in between is left to the deadlock detector.
 */
void
rt_tasks_wait_for_writers(const pg_uuid_t *run_id, bool ending)
{
	if (ending)
	{
		Relation totals = table_open(rt_table(RT_run_totals)->relid, AccessShareLock);
		Snapshot snapshot = rt_latest_snapshot();
		bool open = has_open_tasks(totals, rt_table(RT_run_totals), run_id, snapshot);

		UnregisterSnapshot(snapshot);
		table_close(totals, NoLock);
		if (open)
		{
			wait_for_writers_in(RT_tasks, UUIDPGetDatum(run_id));
			/* who appends to a response holds its task, without changing it */
			wait_for_writers_in(RT_response_chunks, UUIDPGetDatum(run_id));
		}
	}
	wait_for_writers_in(RT_open_runs, UUIDPGetDatum(run_id));
}

/*
 * Update the open tasks of runs; tasks_before ends them.  As the caller, so that triggers
 * of the owner's run with no more rights than those of any other update.
 */
static void
close_tasks(const pg_uuid_t *run_ids, int n, RtPhase phase, Snapshot snapshot)
{
	static SPIPlanPtr plan = NULL;
	Datum *ids = palloc(sizeof(Datum) * n);
	Datum arg;
	Closing saved;
	int result = 0;

	for (int i = 0; i < n; i++)
		ids[i] = UUIDPGetDatum(&run_ids[i]);
	arg = PointerGetDatum(construct_array(ids, n, UUIDOID, UUID_LEN, false, TYPALIGN_CHAR));

	SPI_connect();
	saved = closing;
	if (plan == NULL)
	{
		Oid types[1] = {UUIDARRAYOID};

		plan = SPI_prepare("UPDATE run_tracker.tasks t "
						   "SET error = COALESCE(t.error, 'run ' OPERATOR(pg_catalog.||) r.status) "
						   "FROM run_tracker.runs r WHERE r.run_id OPERATOR(pg_catalog.=) ANY ($1) "
						   "AND t.run_id OPERATOR(pg_catalog.=) r.run_id "
						   "AND t.phase OPERATOR(pg_catalog.=) ANY "
						   "('{queued,active,waiting}'::pg_catalog.text[])",
						   1, types);
		if (plan == NULL)
			elog(ERROR, "could not prepare: %s", SPI_result_code_string(SPI_result));
		SPI_keepplan(plan);
	}

	closing.run_ids = run_ids;
	closing.nruns = n;
	closing.phase = phase;
	PG_TRY();
	{
		result = SPI_execute_snapshot(plan, &arg, NULL, snapshot,
									  IsolationUsesXactSnapshot() ? GetTransactionSnapshot() :
																	InvalidSnapshot,
									  false, true, 0);
	}
	PG_FINALLY();
	{
		closing = saved;
	}
	PG_END_TRY();
	if (result != SPI_OK_UPDATE)
		elog(ERROR, "could not close tasks: %s", SPI_result_code_string(result));
	SPI_finish();
}

/*
 * End the open tasks of runs that have ended: as timed out if the run timed out, else
 * as cancelled.  The caller's transaction holds FOR UPDATE on the runs, so no open task
 * can be added any more; those added before are committed.  Under REPEATABLE READ they
 * may be too new for the transaction's snapshot: the crosscheck then raises 40001.
 */
void
rt_tasks_close(const RtRun *runs, int n)
{
	static const RtPhase phases[] = {RT_TIMED_OUT, RT_CANCELLED};
	pg_uuid_t *run_ids;
	Relation totals;
	Snapshot snapshot;

	if (n == 0)
		return;

	run_ids = palloc(sizeof(pg_uuid_t) * n);
	snapshot = rt_latest_snapshot();
	for (int p = 0; p < lengthof(phases); p++)
	{
		int nids = 0;

		totals = table_open(rt_table(RT_run_totals)->relid, AccessShareLock);
		for (int i = 0; i < n; i++)
			if ((runs[i].phase == RT_TIMED_OUT) == (phases[p] == RT_TIMED_OUT) &&
				has_open_tasks(totals, rt_table(RT_run_totals), &runs[i].run_id, snapshot))
				run_ids[nids++] = runs[i].run_id;
		table_close(totals, NoLock);
		if (nids > 0)
			close_tasks(run_ids, nids, phases[p], snapshot);
	}
	UnregisterSnapshot(snapshot);

	/* a policy or a trigger may have kept the caller from ending them */
	totals = table_open(rt_table(RT_run_totals)->relid, AccessShareLock);
	snapshot = rt_latest_snapshot();
	for (int i = 0; i < n; i++)
		if (has_open_tasks(totals, rt_table(RT_run_totals), &runs[i].run_id, snapshot))
			ereport(ERROR, (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
							errmsg("open tasks of the run could not be ended"),
							errdetail("Run %s has open tasks that were not updated.",
									  rt_uuid_string(UUIDPGetDatum(&runs[i].run_id))),
							errhint("A policy or a trigger may have kept you from it.")));
	UnregisterSnapshot(snapshot);
	table_close(totals, NoLock);
}
