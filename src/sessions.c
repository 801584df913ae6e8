/*-------------------------------------------------------------------------
 *
 * sessions.c
 *		Sessions, and how many of them a user may have at a time.
 *
 * A session is active while it is not closed and was touched within
 * run_tracker.session_timeout; any UPDATE of a session that is not closed touches it.
 *
 * Locking protocol: who makes a session active takes the lock of the user (rt_limits_lock)
 * until the end of the transaction, and then counts.  Touching a session that is active takes
 * no lock but its row; if it is about to expire, the lock of the user, too, so that nobody
 * counts between the look at the clock and the write.  Who counts waits for those who have
 * touched a session in time that would be expired without that.
 *
 *-------------------------------------------------------------------------
 */
#include "run_tracker.h"

#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/fmgroids.h"
#include "utils/snapmgr.h"

#include "calls.h"
#include "changes.h"
#include "identity.h"
#include "accounts.h"
#include "row.h"
#include "sessions.h"
#include "writer.h"

PG_FUNCTION_INFO_V1(run_tracker_sessions_before);
PG_FUNCTION_INFO_V1(run_tracker_sessions_after);
PG_FUNCTION_INFO_V1(run_tracker_touch_session);
PG_FUNCTION_INFO_V1(run_tracker_close_session);

/* the longest time that may pass between a look at the clock and the write, unless locked */
#define TOUCH_MARGIN USECS_PER_SEC

/* The session that the tracker itself is giving a new version, or NULL. */
static const pg_uuid_t *appending = NULL;
static TimestampTz appended_at;

/* P0002: no such session, or not the caller's; the error is the same. */
void
rt_session_not_found(Datum session_id)
{
	ereport(ERROR,
			(errcode(ERRCODE_NO_DATA_FOUND), errmsg("session not found"),
			 errdetail("There is no session %s that you may see.", rt_uuid_string(session_id))));
}

/* 55000: there is nothing that can be done to a closed session. */
void
rt_session_refuse_closed(Datum session_id)
{
	ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE), errmsg("session is closed"),
					errdetail("Session %s can be read, but neither touched nor changed any more.",
							  rt_uuid_string(session_id)),
					errhint("Open another session.")));
}

/* ----------------------------------------------------------------
 * The quota on concurrent sessions
 * ----------------------------------------------------------------
 */

/* A count of the active sessions of a user. */
typedef struct Census
{
	Relation rel;
	const RtTable *t;
	Relation index;
	Datum user_id;
	const pg_uuid_t *except; /* the session that is to become active */
	TimestampTz since;		 /* active sessions were touched after that */
	Snapshot snapshot;
} Census;

static int64
timeout_us(void)
{
	return rt_session_timeout_s * USECS_PER_SEC;
}

/* The moment of a touch, down to the hour: what the index has, so that it seldom changes. */
static TimestampTz
hour_of(TimestampTz moment)
{
	int64 hour = moment / USECS_PER_HOUR;

	if (TIMESTAMP_NOT_FINITE(moment))
		return moment;
	return (moment < 0 && moment % USECS_PER_HOUR != 0 ? hour - 1 : hour) * USECS_PER_HOUR;
}

static bool
is_active(TupleTableSlot *row, const RtTable *t, TimestampTz since)
{
	bool isnull;
	TimestampTz updated_at =
		DatumGetTimestampTz(slot_getattr(row, RT_ATT(t, sessions, updated_at), &isnull));

	(void) slot_getattr(row, RT_ATT(t, sessions, closed_at), &isnull);
	return isnull && updated_at > since;
}

static IndexScanDesc
begin_census(Census *census, Snapshot snapshot)
{
	ScanKeyData keys[2];
	IndexScanDesc scan = rt_index_beginscan(census->rel, census->index, snapshot, 2);

	ScanKeyEntryInitialize(&keys[0], 0, 1, BTEqualStrategyNumber, InvalidOid,
						   census->index->rd_indcollation[0], F_TEXTEQ, census->user_id);
	ScanKeyInit(&keys[1], 2, BTGreaterEqualStrategyNumber, F_TIMESTAMPTZ_GE,
				TimestampTzGetDatum(hour_of(census->since)));
	index_rescan(scan, keys, lengthof(keys), NULL, 0);
	return scan;
}

/* The next row that is an active session, not the one that is to become active. */
static bool
next_active(const Census *census, IndexScanDesc scan, TupleTableSlot *row)
{
	while (index_getnext_slot(scan, ForwardScanDirection, row))
	{
		bool isnull;
		pg_uuid_t *id =
			DatumGetUUIDP(slot_getattr(row, RT_ATT(census->t, sessions, session_id), &isnull));

		CHECK_FOR_INTERRUPTS();
		if (is_active(row, census->t, census->since) &&
			memcmp(id, census->except, sizeof(pg_uuid_t)) != 0)
			return true;
	}
	return false;
}

/* How many sessions are active, as far as the snapshot shows. */
static int64
count_active(Census *census)
{
	TupleTableSlot *row = table_slot_create(census->rel, NULL);
	IndexScanDesc scan = begin_census(census, census->snapshot);
	int64 n = 0;

	while (next_active(census, scan, row))
		n++;
	index_endscan(scan);
	ExecDropSingleTupleTableSlot(row);
	return n;
}

/* Does the snapshot show this session, in whatever version, as active? */
static bool
was_counted(const Census *census, TupleTableSlot *row)
{
	bool isnull;
	RtProbe probe;
	bool result;

	if (table_tuple_satisfies_snapshot(census->rel, row, census->snapshot))
		return true;
	rt_probe_begin(&probe, census->rel,
				   slot_getattr(row, RT_ATT(census->t, sessions, session_id), &isnull),
				   census->snapshot);
	result = rt_probe_next(&probe, BackwardScanDirection) &&
			 is_active(probe.slot, census->t, census->since);
	rt_probe_end(&probe);
	return result;
}

/*
 * How many sessions were not counted, but touched in time by transactions that have not
 * committed, or have only just.  One that is still running, and its row, are returned.
 */
static int64
count_pending(Census *census, TransactionId *xid, ItemPointer tid)
{
	TupleTableSlot *row = table_slot_create(census->rel, NULL);
	SnapshotData dirty;
	IndexScanDesc scan;
	int64 n = 0;

	InitDirtySnapshot(dirty);
	scan = begin_census(census, &dirty);
	while (next_active(census, scan, row))
	{
		TransactionId writer = dirty.xmin;

		if (was_counted(census, row))
			continue;
		n++;
		if (TransactionIdIsValid(writer))
		{
			*xid = writer;
			*tid = row->tts_tid;
		}
	}
	index_endscan(scan);
	ExecDropSingleTupleTableSlot(row);
	return n;
}

static void
refuse(Relation rel, int64 active, int64 limit)
{
	ereport(ERROR, (errcode(ERRCODE_RT_QUOTA_EXCEEDED),
					errmsg("quota exceeded: %s", "concurrent_sessions"),
					errdetail("Used: %lld, limit: %lld.", (long long) active, (long long) limit),
					errhint("Close a session, or wait until one has not been touched for "
							"run_tracker.session_timeout (%d s).",
							rt_session_timeout_s),
					errtable(rel)));
}

/* RT004 unless the user may have one more active session.  The caller holds the user's lock. */
static void
require_quota(Relation rel, Datum user_id, Datum session_id, const RtLimits *limits)
{
	Census census = {.rel = rel, .t = rt_table(RT_sessions), .user_id = user_id};
	AttrNumber keys[] = {RT_ATT(census.t, sessions, user_id),
						 RT_ATT(census.t, sessions, active_hour_at)};
	int64 limit = limits->concurrent_sessions;
	bool settled;

	census.except = DatumGetUUIDP(session_id);
	census.index = rt_index_open(rel, "sessions_active_idx", lengthof(keys), keys, -1);
	do
	{
		TransactionId xid = InvalidTransactionId;
		ItemPointerData tid;
		int64 active;

		census.since = GetCurrentTimestamp() - timeout_us();
		census.snapshot = rt_latest_snapshot();
		active = count_active(&census);
		if (active >= limit)
			refuse(rel, active, limit);
		settled = active + count_pending(&census, &xid, &tid) < limit;
		UnregisterSnapshot(census.snapshot);
		if (TransactionIdIsValid(xid) && !settled)
			XactLockTableWait(xid, rel, &tid, XLTW_None);
	} while (!settled);
	index_close(census.index, AccessShareLock);
}

/*
 * Let a session that was touched at a moment be active from now on; RT004 if it was not, and
 * the user has as many as he may have.  Returns now.
 */
static TimestampTz
activate(const RtRow *row, TimestampTz touched_at, RtLimits *limits)
{
	const RtTable *t = row->table;
	Datum user_id = rt_row_get(row, RT_ATT(t, sessions, user_id));
	TimestampTz now = GetCurrentTimestamp();
	int64 timeout = timeout_us();
	RtLimits read;

	if (now + Min(TOUCH_MARGIN, timeout / 10) - timeout < touched_at)
		return now;
	if (limits == NULL)
	{
		limits = &read;
		rt_limits_read(user_id, limits);
	}
	if (limits->concurrent_sessions < 0)
		return now;
	rt_limits_lock(user_id);
	/* what was allowed before may have changed while we waited */
	rt_limits_read(user_id, limits);
	if (limits->concurrent_sessions >= 0 && GetCurrentTimestamp() - timeout >= touched_at)
		require_quota(row->rel, user_id, rt_row_get(row, RT_ATT(t, sessions, session_id)), limits);
	return GetCurrentTimestamp();
}

/* ----------------------------------------------------------------
 * The triggers of sessions
 * ----------------------------------------------------------------
 */

static void
set_touched(RtRow *row, TimestampTz moment)
{
	const RtTable *t = row->table;

	rt_row_set(row, RT_ATT(t, sessions, updated_at), TimestampTzGetDatum(moment));
	rt_row_set(row, RT_ATT(t, sessions, active_hour_at), TimestampTzGetDatum(hour_of(moment)));
}

/* The user of a new session: the caller, unless a service says otherwise. */
static Datum
set_user(RtRow *row)
{
	AttrNumber att = RT_ATT(row->table, sessions, user_id);

	if (rt_row_isnull(row, att))
	{
		char *user = rt_identity_user();

		if (user == NULL)
			ereport(ERROR, (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE), errmsg("no user is known"),
							errdetail("run_tracker.current_user_id() is null."),
							errhint("Name the user, or set request.jwt.claims as a gateway "
									"does."),
							errtablecol(row->rel, att)));
		rt_row_set(row, att, CStringGetTextDatum(user));
	}
	rt_row_check_key(row, att);
	/* before anything is locked or counted that is not the caller's */
	if (!rt_identity_owns(rt_row_get(row, att)))
		ereport(ERROR, (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
						errmsg("only services may open sessions of other users"),
						errdetail("The user is \"%s\".", TextDatumGetCString(rt_row_get(row, att))),
						errtablecol(row->rel, att)));
	return rt_row_get(row, att);
}

/* A new session.  Its times, and its end, may be given by whoever may write these columns. */
static void
open_row(RtRow *row)
{
	const RtTable *t = row->table;
	AttrNumber updated_at = RT_ATT(t, sessions, updated_at);
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz touched_at = now;
	RtLimits limits;

	rt_limits_read(set_user(row), &limits);
	rt_row_default_id(row, RT_ATT(t, sessions, session_id));
	rt_row_default(row, RT_ATT(t, sessions, tier), CStringGetTextDatum(limits.tier));
	rt_row_set(row, RT_ATT(t, sessions, version), Int64GetDatum(0));
	rt_row_set(row, RT_ATT(t, sessions, snapshot_after), Int64GetDatum(RT_SNAPSHOT_SLACK));
	rt_row_default(row, RT_ATT(t, sessions, created_at), TimestampTzGetDatum(now));
	if (!rt_row_isnull(row, updated_at))
		touched_at = Min(now, DatumGetTimestampTz(rt_row_get(row, updated_at)));
	if (rt_row_isnull(row, RT_ATT(t, sessions, closed_at)) && touched_at > now - timeout_us())
	{
		now = activate(row, DT_NOBEGIN, &limits);
		if (rt_row_isnull(row, updated_at))
			touched_at = now;
	}
	set_touched(row, touched_at);
}

/* Somebody touches or closes a session, or appends to it. */
static void
change_row(RtRow *row)
{
	const RtTable *t = row->table;
	AttrNumber computed[] = {RT_ATT(t, sessions, tier),		  RT_ATT(t, sessions, created_at),
							 RT_ATT(t, sessions, updated_at), RT_ATT(t, sessions, active_hour_at),
							 RT_ATT(t, sessions, version),	  RT_ATT(t, sessions, snapshot_after)};
	AttrNumber session_id = RT_ATT(t, sessions, session_id);
	AttrNumber updated_at = RT_ATT(t, sessions, updated_at);
	AttrNumber closed_at = RT_ATT(t, sessions, closed_at);
	int ncomputed = lengthof(computed);
	bool fact = false;
	TimestampTz touched_at = DatumGetTimestampTz(row->old_values[updated_at - 1]);
	TimestampTz now;

	rt_row_check_same(row, session_id);
	rt_row_check_same(row, RT_ATT(t, sessions, user_id));
	if (appending && memcmp(appending, DatumGetUUIDP(rt_row_get(row, session_id)), UUID_LEN) == 0)
	{
		ncomputed -= 2;
		fact = appended_at <= Max(touched_at, GetCurrentTimestamp() - timeout_us());
	}
	for (int i = 0; i < ncomputed; i++)
		rt_row_keep(row, computed[i]);

	if (!row->old_nulls[closed_at - 1])
	{
		if (rt_row_isnull(row, closed_at))
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE), errmsg("session is closed"),
					 errdetail("Session %s cannot be opened again.",
							   rt_uuid_string(rt_row_get(row, session_id))),
					 errhint("Open another session."), errtablecol(row->rel, closed_at)));
		rt_row_keep(row, closed_at);
		return;
	}
	if (fact)
		now = Max(touched_at, appended_at);
	else if (rt_row_isnull(row, closed_at))
		now = activate(row, touched_at, NULL);
	else
	{
		now = GetCurrentTimestamp();
		rt_row_set(row, closed_at, TimestampTzGetDatum(now));
	}
	set_touched(row, now);
}

/* BEFORE INSERT OR UPDATE FOR EACH ROW on sessions: the quota, and what is computed. */
Datum
run_tracker_sessions_before(PG_FUNCTION_ARGS)
{
	const RtTable *t = rt_trigger_check(fcinfo, RT_sessions, RT_BEFORE_ROW, "sessions_before");
	TriggerData *trigdata = (TriggerData *) fcinfo->context;
	RtRow row;

	/* what this very command has written before counts, too */
	CommandCounterIncrement();
	rt_row_begin(&row, trigdata, t);
	rt_row_check_json(&row, RT_ATT(t, sessions, metadata), false);
	rt_row_check_size(&row);
	if (TRIGGER_FIRED_BY_INSERT(trigdata->tg_event))
		open_row(&row);
	else
		change_row(&row);
	return rt_row_end(&row);
}

/* AFTER DELETE FOR EACH STATEMENT on sessions: their deltas and snapshots go with them. */
Datum
run_tracker_sessions_after(PG_FUNCTION_ARGS)
{
	const RtTable *t = rt_trigger_check(fcinfo, RT_sessions, RT_AFTER_STATEMENT, "sessions_after");
	int size = 16;
	pg_uuid_t *ids = palloc(size * sizeof(pg_uuid_t));
	int n = 0;
	RtChanges changes;

	rt_changes_begin(&changes, (TriggerData *) fcinfo->context);
	while (rt_changes_next(&changes))
	{
		bool isnull;

		if (changes.old == NULL || changes.new)
			continue;
		if (n == size)
			ids = repalloc_huge(ids, (size *= 2) * sizeof(pg_uuid_t));
		ids[n++] =
			*DatumGetUUIDP(slot_getattr(changes.old, RT_ATT(t, sessions, session_id), &isnull));
	}
	rt_changes_end(&changes);
	if (n > 0)
	{
		rt_writer_delete_runs(RT_session_deltas, ids, n);
		rt_writer_delete_runs(RT_session_snapshots, ids, n);
	}
	return PointerGetDatum(NULL);
}

/*
 * Give a session, whose row was found by the probe and is locked, its next version, which
 * touches it at a moment: what was appended when the session was active makes it no more so.
 * snapshot_after is what remains until the next snapshot of its state.
 */
void
rt_session_advance(RtProbe *probe, int64 version, int64 snapshot_after, TimestampTz moment)
{
	/* a trigger of the owner's may append elsewhere meanwhile */
	const pg_uuid_t *outer = appending;
	TimestampTz outer_at = appended_at;
	pg_uuid_t session_id;
	RtWriter writer;
	bool isnull;

	rt_writer_open(&writer, RT_sessions);
	rt_writer_copy(&writer, probe->slot);
	rt_writer_set(&writer, RT_ATT(writer.table, sessions, version), Int64GetDatum(version), false);
	rt_writer_set(&writer, RT_ATT(writer.table, sessions, snapshot_after),
				  Int64GetDatum(snapshot_after), false);
	session_id = *DatumGetUUIDP(
		slot_getattr(probe->slot, RT_ATT(writer.table, sessions, session_id), &isnull));
	appending = &session_id;
	appended_at = moment;
	PG_TRY();
	{
		rt_writer_update(&writer, probe->slot);
	}
	PG_FINALLY();
	{
		appending = outer;
		appended_at = outer_at;
	}
	PG_END_TRY();
	rt_writer_close(&writer);
}

/* ----------------------------------------------------------------
 * Functions
 * ----------------------------------------------------------------
 */

/* Update a session that is open; false if it is closed, P0002 if there is none. */
static bool
update_open(FunctionCallInfo fcinfo, RtPlan *update)
{
	static RtPlan find = {"SELECT FROM run_tracker.sessions WHERE session_id = $1", 1, {UUIDOID}};
	bool updated;

	rt_call_require(fcinfo, 0, "session_id");
	(void) rt_table(RT_sessions);
	SPI_connect();
	rt_plan_execute(update, fcinfo->args, SPI_OK_UPDATE, false);
	updated = SPI_processed > 0;
	if (!updated)
	{
		rt_plan_execute(&find, fcinfo->args, SPI_OK_SELECT, false);
		if (SPI_processed == 0)
			rt_session_not_found(PG_GETARG_DATUM(0));
	}
	SPI_finish();
	return updated;
}

/* touch_session(session_id) → true */
Datum
run_tracker_touch_session(PG_FUNCTION_ARGS)
{
	static RtPlan touch = {"UPDATE run_tracker.sessions SET metadata = metadata "
						   "WHERE session_id = $1 AND closed_at IS NULL",
						   1,
						   {UUIDOID}};

	if (!update_open(fcinfo, &touch))
		rt_session_refuse_closed(PG_GETARG_DATUM(0));
	PG_RETURN_BOOL(true);
}

/* close_session(session_id) → changed */
Datum
run_tracker_close_session(PG_FUNCTION_ARGS)
{
	static RtPlan close = {"UPDATE run_tracker.sessions SET closed_at = pg_catalog.now() "
						   "WHERE session_id = $1 AND closed_at IS NULL",
						   1,
						   {UUIDOID}};

	PG_RETURN_BOOL(update_open(fcinfo, &close));
}
