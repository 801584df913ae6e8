/*-------------------------------------------------------------------------
 *
 * runs.c
 *		Triggers of runs, and what the other parts ask about runs.
 *
 * Locking protocol: the row in runs is the lock of its run.  Inserting a child
 * takes FOR KEY SHARE on it, by the foreign key.  Ending a run takes FOR UPDATE,
 * which waits for those insertions; whoever inserts an open task afterwards waits
 * for the end of the run, and is then refused.  Nothing else waits: completing
 * tasks does not touch the row.  Order: run, then its open_runs row, then its tasks.
 *
 *-------------------------------------------------------------------------
 */
#include "run_tracker.h"

#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/snapmgr.h"

#include "finish.h"
#include "identity.h"
#include "notes.h"
#include "open_runs.h"
#include "runs.h"
#include "stats.h"
#include "totals.h"
#include "writer.h"

PG_FUNCTION_INFO_V1(run_tracker_runs_before);
PG_FUNCTION_INFO_V1(run_tracker_runs_after);

/* The runs that the tracker itself is ending, in order: the lifecycle need not list that. */
static struct
{
	const pg_uuid_t *run_ids;
	int n;
} forced;

/* ----------------------------------------------------------------
 * Looking at runs
 * ----------------------------------------------------------------
 */

/*
 * A column of a row as a palloc'd copy; 0 for null.  A long value stays where it is, out of
 * line: what users may make 16 MB long must not be kept for many rows at once.
 */
static Datum
copy_value(TupleTableSlot *row, AttrNumber att, bool varlena)
{
	bool isnull;
	Datum value = slot_getattr(row, att, &isnull);

	return isnull ? (Datum) 0 : datumCopy(value, false, varlena ? -1 : 16);
}

static TimestampTz
time_value(TupleTableSlot *row, AttrNumber att)
{
	bool isnull;
	Datum value = slot_getattr(row, att, &isnull);

	return isnull ? DT_NOBEGIN : DatumGetTimestampTz(value);
}

/* Copy what the bookkeeping needs out of a row of runs. */
void
rt_run_decode(RtRun *run, TupleTableSlot *row, const RtTable *table)
{
	bool isnull;

	run->run_id = *DatumGetUUIDP(slot_getattr(row, RT_ATT(table, runs, run_id), &isnull));
	run->user_id = copy_value(row, RT_ATT(table, runs, user_id), true);
	run->lifecycle = copy_value(row, RT_ATT(table, runs, lifecycle), true);
	run->status = copy_value(row, RT_ATT(table, runs, status), true);
	run->phase = rt_phase_decode(slot_getattr(row, RT_ATT(table, runs, phase), &isnull));
	run->kind = copy_value(row, RT_ATT(table, runs, kind), true);
	run->worker = copy_value(row, RT_ATT(table, runs, worker), true);
	run->error = copy_value(row, RT_ATT(table, runs, error), true);
	run->priority = DatumGetInt32(slot_getattr(row, RT_ATT(table, runs, priority), &isnull));
	run->attempt = DatumGetInt32(slot_getattr(row, RT_ATT(table, runs, attempt), &isnull));
	run->max_attempts =
		DatumGetInt32(slot_getattr(row, RT_ATT(table, runs, max_attempts), &isnull));
	run->created_at = time_value(row, RT_ATT(table, runs, created_at));
	run->scheduled_at = time_value(row, RT_ATT(table, runs, scheduled_at));
	run->started_at = time_value(row, RT_ATT(table, runs, started_at));
	run->updated_at = time_value(row, RT_ATT(table, runs, updated_at));
	run->timeout = copy_value(row, RT_ATT(table, runs, timeout), false);
	run->max_duration = copy_value(row, RT_ATT(table, runs, max_duration), false);
	run->retry_base = copy_value(row, RT_ATT(table, runs, retry_base), false);
	run->retry_cap = copy_value(row, RT_ATT(table, runs, retry_cap), false);
}

/*
 * Find the row of a run, whoever owns it, and begin to scan it.  The row may have
 * been inserted by the very command that is running (a WITH query), which only
 * SnapshotSelf sees, and which cannot be locked; nor need it be.
 */
static bool
find_run(RtProbe *probe, Relation rel, const pg_uuid_t *run_id, Snapshot snapshot, bool *lockable)
{
	rt_probe_begin(probe, rel, UUIDPGetDatum(run_id), snapshot);
	*lockable = rt_probe_next(probe, ForwardScanDirection);
	if (*lockable)
		return true;
	rt_probe_end(probe);
	rt_probe_begin(probe, rel, UUIDPGetDatum(run_id), SnapshotSelf);
	return rt_probe_next(probe, ForwardScanDirection);
}

/* What children need to know of a run, out of its row. */
static void
decode_info(RtRunInfo *info, TupleTableSlot *row, const RtTable *t)
{
	bool isnull;

	info->user_id = copy_value(row, RT_ATT(t, runs, user_id), true);
	info->phase = rt_phase_decode(slot_getattr(row, RT_ATT(t, runs, phase), &isnull));
	(void) slot_getattr(row, RT_ATT(t, runs, name), &isnull);
	info->named = !isnull;
	info->kind = copy_value(row, RT_ATT(t, runs, kind), true);
	info->workflow_id = copy_value(row, RT_ATT(t, runs, workflow_id), true);
}

/* Look up a run, whoever owns it; false if there is none. */
bool
rt_run_lookup(const pg_uuid_t *run_id, RtRunInfo *info)
{
	Relation rel = table_open(rt_table(RT_runs)->relid, AccessShareLock);
	Snapshot snapshot = rt_latest_snapshot();
	RtProbe probe;
	bool lockable;
	bool found = find_run(&probe, rel, run_id, snapshot, &lockable);

	if (found)
		decode_info(info, probe.slot, rt_table(RT_runs));
	rt_probe_end(&probe);
	UnregisterSnapshot(snapshot);
	table_close(rel, NoLock);
	return found;
}

/* The same for a run that the command that is running may have deleted. */
bool
rt_run_lookup_before(const pg_uuid_t *run_id, RtRunInfo *info)
{
	Relation rel;
	RtProbe probe;
	bool found;

	if (rt_run_lookup(run_id, info))
		return true;
	rel = table_open(rt_table(RT_runs)->relid, AccessShareLock);
	rt_probe_begin(&probe, rel, UUIDPGetDatum(run_id), GetActiveSnapshot());
	found = rt_probe_next(&probe, ForwardScanDirection);
	if (found)
		decode_info(info, probe.slot, rt_table(RT_runs));
	rt_probe_end(&probe);
	table_close(rel, NoLock);
	return found;
}

/* Fetch all that the bookkeeping needs of a run; false if there is none. */
bool
rt_run_fetch(const pg_uuid_t *run_id, RtRun *run)
{
	Relation rel = table_open(rt_table(RT_runs)->relid, AccessShareLock);
	Snapshot snapshot = rt_latest_snapshot();
	RtProbe probe;
	bool lockable;
	bool found = find_run(&probe, rel, run_id, snapshot, &lockable);

	if (found)
		rt_run_decode(run, probe.slot, rt_table(RT_runs));
	rt_probe_end(&probe);
	UnregisterSnapshot(snapshot);
	table_close(rel, NoLock);
	return found;
}

/*
 * Keep a run from being ended or deleted until this transaction has ended: what the
 * foreign key of a child does, but before the child is numbered.
 */
void
rt_run_hold(const pg_uuid_t *run_id)
{
	Relation rel = table_open(rt_table(RT_runs)->relid, RowShareLock);
	Snapshot snapshot = rt_latest_snapshot();
	RtProbe probe;
	bool lockable;

	if (find_run(&probe, rel, run_id, snapshot, &lockable) && lockable)
		(void) rt_row_lock(rel, probe.slot, snapshot, LockTupleKeyShare, true);
	rt_probe_end(&probe);
	UnregisterSnapshot(snapshot);
	table_close(rel, NoLock);
}

/* P0002 unless the run is there and the caller may see it; the error is the same. */
void
rt_run_require(Datum run_id)
{
	RtRunInfo info;

	if (!rt_run_lookup(DatumGetUUIDP(run_id), &info) || !rt_identity_owns(info.user_id))
		ereport(ERROR, (errcode(ERRCODE_NO_DATA_FOUND), errmsg("run not found"),
						errdetail("There is no run %s that you may see.", rt_uuid_string(run_id))));
}

/*
 * 55000 unless the run is open.  With lock, keep it from ending until this
 * transaction has ended; without, the caller's foreign key has done that.
 */
void
rt_run_require_open(const pg_uuid_t *run_id, bool lock)
{
	Relation rel = table_open(rt_table(RT_runs)->relid, RowShareLock);
	const RtTable *t = rt_table(RT_runs);
	Snapshot snapshot = rt_latest_snapshot();
	RtProbe probe;
	bool lockable;
	bool isnull;

	if (find_run(&probe, rel, run_id, snapshot, &lockable) &&
		(!lock || !lockable || rt_row_lock(rel, probe.slot, snapshot, LockTupleKeyShare, true)) &&
		!RT_PHASE_IS_OPEN(
			rt_phase_decode(slot_getattr(probe.slot, RT_ATT(t, runs, phase), &isnull))))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE), errmsg("run is finished"),
				 errdetail("Run %s has status \"%s\" and takes no open task.",
						   rt_uuid_string(UUIDPGetDatum(run_id)),
						   TextDatumGetCString(
							   slot_getattr(probe.slot, RT_ATT(t, runs, status), &isnull))),
				 errhint("Retry the run first."), errtable(rel)));
	rt_probe_end(&probe);
	UnregisterSnapshot(snapshot);
	table_close(rel, NoLock);
}

/*
 * Give a new child row the user of its run.  A run of somebody else's gives the
 * same error as one that does not exist.
 */
void
rt_run_adopt(RtRow *row, AttrNumber run_id_att, AttrNumber user_id_att)
{
	RtRunInfo run;
	Datum run_id;

	rt_row_require(row, run_id_att);
	run_id = rt_row_get(row, run_id_att);
	if (!rt_run_lookup(DatumGetUUIDP(run_id), &run) || !rt_identity_owns(run.user_id) ||
		(!rt_row_isnull(row, user_id_att) &&
		 !datum_image_eq(PointerGetDatum(PG_DETOAST_DATUM(rt_row_get(row, user_id_att))),
						 run.user_id, false, -1)))
		ereport(ERROR,
				(errcode(ERRCODE_FOREIGN_KEY_VIOLATION), errmsg("run does not exist"),
				 errdetail("There is no run %s%s that you may write to.", rt_uuid_string(run_id),
						   rt_row_isnull(row, user_id_att) ? "" : " of this user"),
				 errtablecol(row->rel, run_id_att)));
	rt_row_default(row, user_id_att, run.user_id);
}

/* ----------------------------------------------------------------
 * BEFORE ROW
 * ----------------------------------------------------------------
 */

static void
check_values(const RtRow *row)
{
	const RtTable *t = row->table;
	AttrNumber progress = RT_ATT(t, runs, progress);
	AttrNumber max_attempts = RT_ATT(t, runs, max_attempts);
	AttrNumber intervals[] = {RT_ATT(t, runs, timeout), RT_ATT(t, runs, max_duration),
							  RT_ATT(t, runs, retry_base), RT_ATT(t, runs, retry_cap)};
	AttrNumber names[] = {RT_ATT(t, runs, kind),		RT_ATT(t, runs, name),
						  RT_ATT(t, runs, workflow_id), RT_ATT(t, runs, session_id),
						  RT_ATT(t, runs, subject_id),	RT_ATT(t, runs, current_step)};

	if (!rt_row_isnull(row, progress) && (DatumGetInt16(rt_row_get(row, progress)) < 0 ||
										  DatumGetInt16(rt_row_get(row, progress)) > 100))
		rt_row_violation(row, progress,
						 psprintf("Progress is %d, it must be 0 to 100.",
								  DatumGetInt16(rt_row_get(row, progress))));
	if (!rt_row_isnull(row, max_attempts) && DatumGetInt32(rt_row_get(row, max_attempts)) < 1)
		rt_row_violation(row, max_attempts, "At least one attempt must be allowed.");
	for (int i = 0; i < lengthof(intervals); i++)
	{
		Interval zero = {0};

		if (!rt_row_isnull(row, intervals[i]) &&
			DatumGetBool(DirectFunctionCall2(interval_le, rt_row_get(row, intervals[i]),
											 IntervalPGetDatum(&zero))))
			rt_row_violation(row, intervals[i], "It must be a positive interval.");
	}

	rt_row_check_names(row, names, lengthof(names));
	rt_row_check_json(row, RT_ATT(t, runs, settings), false);
	rt_row_check_json(row, RT_ATT(t, runs, variables), false);
	rt_row_check_json(row, RT_ATT(t, runs, metrics), false);
	rt_row_check_json(row, RT_ATT(t, runs, metadata), false);
	rt_row_check_size(row);
}

static void
fill_new_run(RtRow *row, const RtStatusColumns *c)
{
	const RtTable *t = row->table;
	AttrNumber user_id = RT_ATT(t, runs, user_id);
	bool service = rt_identity_is_service();
	int user_id_len;

	if (rt_row_isnull(row, user_id))
	{
		char *user = rt_identity_user();

		if (user == NULL && !service)
			ereport(ERROR,
					(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE), errmsg("no user is known"),
					 errdetail("run_tracker.current_user_id() is null."),
					 errhint("Connect through a gateway that sets request.jwt.claims, or have "
							 "run_tracker.identity set to 'role'.")));
		rt_row_set(row, user_id, CStringGetTextDatum(user ? user : ""));
	}
	user_id_len = VARSIZE_ANY_EXHDR(DatumGetTextPP(rt_row_get(row, user_id)));
	if (user_id_len > RT_MAX_NAME_BYTES)
		rt_row_violation(row, user_id,
						 psprintf("It has %d bytes, at most %d are possible.", user_id_len,
								  RT_MAX_NAME_BYTES));
	rt_row_default_id(row, RT_ATT(t, runs, run_id));
	rt_row_default(row, RT_ATT(t, runs, priority), Int32GetDatum(0));
	(void) rt_status_insert(row, c, "run", service);
	if (rt_row_isnull(row, RT_ATT(t, runs, max_attempts)))
		rt_row_set(row, RT_ATT(t, runs, max_attempts),
				   Int32GetDatum(rt_lifecycle_get(rt_row_get(row, RT_ATT(t, runs, lifecycle)))
									 ->max_attempts));
}

/*
 * Take FOR UPDATE on a run that is about to end.  The UPDATE that is under way holds
 * a weaker lock, so this waits only for those who insert children.
 */
static void
lock_ending_run(Relation rel, HeapTuple tuple)
{
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	Snapshot snapshot = rt_latest_snapshot();

	slot->tts_tid = tuple->t_self;
	if (!rt_row_lock(rel, slot, snapshot, LockTupleExclusive, true))
		elog(ERROR, "run was changed while it was being updated");
	UnregisterSnapshot(snapshot);
	ExecDropSingleTupleTableSlot(slot);
}

/*
 * Runs, in order of their ids, that the next UPDATE ends because their time is up.  The
 * caller takes them back with n = 0, also after an error.
 */
void
rt_runs_force(const pg_uuid_t *run_ids, int n)
{
	forced.run_ids = run_ids;
	forced.n = n;
}

/* Is this the UPDATE that ends a run because its time is up? */
static bool
is_forced(const RtRow *row, const RtStatusColumns *c)
{
	const RtLifecycle *lifecycle;
	int state;

	if (forced.n == 0 || rt_row_isnull(row, c->status) ||
		bsearch(DatumGetUUIDP(rt_row_get(row, RT_ATT(row->table, runs, run_id))), forced.run_ids,
				forced.n, UUID_LEN, rt_uuid_compare) == NULL)
		return false;
	lifecycle = rt_lifecycle_get(rt_row_get(row, c->lifecycle));
	state = rt_lifecycle_state(lifecycle, rt_row_get(row, c->status));
	return state >= 0 && !RT_PHASE_IS_OPEN(lifecycle->states[state].phase);
}

/* BEFORE INSERT OR UPDATE FOR EACH ROW on runs: the lifecycle, and derived columns. */
Datum
run_tracker_runs_before(PG_FUNCTION_ARGS)
{
	const RtTable *t = rt_trigger_check(fcinfo, RT_runs, RT_BEFORE_ROW, "runs_before");
	TriggerData *trigdata = (TriggerData *) fcinfo->context;
	RtStatusColumns c = RT_STATUS_COLUMNS(t, runs);
	RtRow row;

	rt_row_begin(&row, trigdata, t);
	if (TRIGGER_FIRED_BY_INSERT(trigdata->tg_event))
	{
		check_values(&row);
		fill_new_run(&row, &c);
	}
	else
	{
		rt_row_check_same(&row, RT_ATT(t, runs, run_id));
		rt_row_check_same(&row, RT_ATT(t, runs, user_id));
		check_values(&row);
		switch (rt_status_update(&row, &c, "run", is_forced(&row, &c)))
		{
			case RT_MOVE_FINISH:
				lock_ending_run(row.rel, row.old);
				break;
			case RT_MOVE_RETRY:
				if (!rt_row_differs(&row, RT_ATT(t, runs, reflections)))
					rt_row_set_null(&row, RT_ATT(t, runs, reflections));
				if (!rt_row_differs(&row, RT_ATT(t, runs, progress)))
					rt_row_set_null(&row, RT_ATT(t, runs, progress));
				if (!rt_row_differs(&row, RT_ATT(t, runs, current_step)))
					rt_row_set_null(&row, RT_ATT(t, runs, current_step));
				if (!rt_row_differs(&row, RT_ATT(t, runs, worker)))
					rt_row_set_null(&row, RT_ATT(t, runs, worker));
				break;
			case RT_MOVE_OPEN:
				/* given back */
				if (rt_phase_decode(rt_row_get(&row, c.phase)) == RT_QUEUED &&
					!rt_row_differs(&row, RT_ATT(t, runs, worker)))
					rt_row_set_null(&row, RT_ATT(t, runs, worker));
				break;
			default:
				break;
		}
	}
	return rt_row_end(&row);
}

/* ----------------------------------------------------------------
 * AFTER STATEMENT
 * ----------------------------------------------------------------
 */

/* Append a row to an array, which is made larger if need be. */
static void
add_run(RtRun **runs, int n, TupleTableSlot *row, const RtTable *t)
{
	/* the size is the next power of two */
	if (n == 0)
		*runs = palloc(sizeof(RtRun));
	else if ((n & (n - 1)) == 0)
		*runs = repalloc_huge(*runs, sizeof(RtRun) * n * 2);
	rt_run_decode(&(*runs)[n], row, t);
}

static bool
same_value(Datum a, Datum b, int len)
{
	if (a == (Datum) 0 || b == (Datum) 0)
		return a == b;
	return datum_image_eq(a, b, false, len);
}

/* Has anything changed that the open set shows? */
static bool
open_run_differs(const RtRun *old, const RtRun *new)
{
	if (!RT_PHASE_IS_OPEN(old->phase) && !RT_PHASE_IS_OPEN(new->phase))
		return false;
	return !same_value(old->status, new->status, -1) || !same_value(old->kind, new->kind, -1) ||
		   !same_value(old->worker, new->worker, -1) || old->priority != new->priority ||
		   old->scheduled_at != new->scheduled_at ||
		   !same_value(old->timeout, new->timeout, sizeof(Interval)) ||
		   !same_value(old->max_duration, new->max_duration, sizeof(Interval));
}

static void
after_insert(RtRun *runs, int n)
{
	pg_uuid_t *run_ids = palloc(sizeof(pg_uuid_t) * Max(n, 1));
	Datum *user_ids = palloc(sizeof(Datum) * Max(n, 1));
	int nopen = 0;

	for (int i = 0; i < n; i++)
	{
		run_ids[i] = runs[i].run_id;
		user_ids[i] = runs[i].user_id;
	}
	rt_totals_create(run_ids, user_ids, n);

	/* a run that is inserted as finished is a fact, no event */
	for (int i = 0; i < n; i++)
	{
		if (!RT_PHASE_IS_OPEN(runs[i].phase))
			continue;
		rt_note_run(&runs[i].run_id);
		runs[nopen++] = runs[i];
	}
	rt_open_runs_sync(runs, nopen);
}

/* Returns how many runs have finished, or finished otherwise: those come first in new then. */
static int
after_update(RtRun *old, RtRun *new, int n)
{
	RtTransition *transitions = palloc(sizeof(RtTransition) * Max(n, 1));
	RtRun *moved = palloc(sizeof(RtRun) * Max(n, 1));
	RtDelta *alive = palloc0(sizeof(RtDelta) * Max(n, 1));
	RtDelta **touched = palloc(sizeof(RtDelta *) * Max(n, 1));
	RtRun *ended = palloc(sizeof(RtRun) * Max(n, 1));
	int ntransitions = 0;
	int nmoved = 0;
	int ntouched = 0;
	int nended = 0;
	int nfinished = 0;

	for (int i = 0; i < n; i++)
	{
		if (memcmp(&old[i].run_id, &new[i].run_id, sizeof(pg_uuid_t)) != 0)
			elog(ERROR, "old and new rows of runs do not match");
		if (old[i].updated_at != new[i].updated_at)
			rt_note_run(&new[i].run_id);

		if (!same_value(old[i].status, new[i].status, -1))
		{
			RtTransition *transition = &transitions[ntransitions++];

			transition->run_id = new[i].run_id;
			transition->user_id = new[i].user_id;
			transition->task_id = NULL;
			transition->from = old[i].status;
			transition->to = new[i].status;
			transition->attempt = new[i].attempt;
			transition->reason = RT_PHASE_IS_OPEN(new[i].phase) ? (Datum) 0 : new[i].error;
			transition->since = new[i].created_at;
			if (RT_PHASE_IS_OPEN(old[i].phase) && !RT_PHASE_IS_OPEN(new[i].phase))
				ended[nended++] = new[i];
		}

		if (open_run_differs(&old[i], &new[i]))
			moved[nmoved++] = new[i];
		else
		{
			alive[ntouched].run_id = new[i].run_id;
			touched[ntouched] = &alive[ntouched];
			ntouched++;
		}
	}

	rt_transitions_write(transitions, ntransitions);
	rt_open_runs_sync(moved, nmoved);
	rt_tasks_close(ended, nended);
	if (ntouched > 0)
		rt_open_runs_touch(touched, ntouched);

	for (int i = 0; i < n; i++)
		if (!RT_PHASE_IS_OPEN(new[i].phase) && !same_value(old[i].status, new[i].status, -1))
			new[nfinished++] = new[i];
	return nfinished;
}

static void
after_delete(RtRun *runs, int n)
{
	pg_uuid_t *run_ids = palloc(sizeof(pg_uuid_t) * Max(n, 1));

	for (int i = 0; i < n; i++)
		run_ids[i] = runs[i].run_id;
	rt_writer_delete_runs(RT_run_totals, run_ids, n);
	rt_writer_delete_runs(RT_open_runs, run_ids, n);
	rt_writer_delete_runs(RT_transitions, run_ids, n);
}

static int
compare_runs(const void *a, const void *b)
{
	return rt_uuid_compare(a, b);
}

/*
 * AFTER INSERT, UPDATE or DELETE FOR EACH STATEMENT on runs: totals, open set,
 * history, the tasks of runs that end, and functions that want to know of it.
 */
Datum
run_tracker_runs_after(PG_FUNCTION_ARGS)
{
	const RtTable *t = rt_trigger_check(fcinfo, RT_runs, RT_AFTER_STATEMENT, "runs_after");
	TriggerData *trigdata = (TriggerData *) fcinfo->context;
	RtStats *stats = rt_stats_begin();
	RtChanges changes;
	RtRun *old = NULL;
	RtRun *new = NULL;
	int nold = 0;
	int nnew = 0;
	int nfinished = 0;
	int nforced = forced.n;

	/* see what other parts of the statement did */
	CommandCounterIncrement();
	rt_changes_begin(&changes, trigdata);
	while (rt_changes_next(&changes))
	{
		if (changes.old)
			add_run(&old, nold++, changes.old, t);
		if (changes.new)
			add_run(&new, nnew++, changes.new, t);
		rt_stats_change_run(stats, &changes, t);
	}
	rt_changes_end(&changes);

	/* always in the same order, so that statements over many runs cannot deadlock */
	if (nold > 1)
		qsort(old, nold, sizeof(RtRun), compare_runs);
	if (nnew > 1)
		qsort(new, nnew, sizeof(RtRun), compare_runs);

	if (TRIGGER_FIRED_BY_INSERT(trigdata->tg_event))
	{
		if (nnew > 0)
			after_insert(new, nnew);
	}
	else if (TRIGGER_FIRED_BY_UPDATE(trigdata->tg_event))
	{
		if (nnew > 0)
			nfinished = after_update(old, new, nnew);
	}
	else if (TRIGGER_FIRED_BY_DELETE(trigdata->tg_event))
	{
		if (nold > 0)
			after_delete(old, nold);
	}
	rt_stats_end(stats);

	/* what users do in there is nothing that the tracker does */
	forced.n = 0;
	rt_finish_call(new, nfinished);
	forced.n = nforced;
	return PointerGetDatum(NULL);
}
