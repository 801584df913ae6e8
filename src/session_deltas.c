/*-------------------------------------------------------------------------
 *
 * session_deltas.c
 *		The versioned state of sessions.
 *
 * The state of a session is what its deltas, JSON merge patches, make of an empty object.
 * Each delta is a version.  So that reading the state stays cheap, it is written down as a
 * snapshot whenever the deltas since the last one have become larger than that one: so a
 * state is read from at most about twice its size, and what snapshots cost is in proportion
 * to what deltas cost.
 *
 * Locking protocol: the row of a session is its lock.  Who appends holds it (FOR NO KEY
 * UPDATE), so that versions come one after another; it is what protects the snapshot, too.
 *
 *-------------------------------------------------------------------------
 */
#include "run_tracker.h"

#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "utils/datum.h"
#include "utils/fmgroids.h"
#include "utils/snapmgr.h"

#include "calls.h"
#include "identity.h"
#include "merge_patch.h"
#include "row.h"
#include "sessions.h"
#include "writer.h"

PG_FUNCTION_INFO_V1(run_tracker_session_deltas_before);
PG_FUNCTION_INFO_V1(run_tracker_append_delta);
PG_FUNCTION_INFO_V1(run_tracker_session_state);

/* what reading a delta costs besides its bytes, in bytes */
#define DELTA_OVERHEAD 80

/* ----------------------------------------------------------------
 * State
 * ----------------------------------------------------------------
 */

/* Begin to merge from the snapshot of a session, unless it is newer than wanted; its version. */
static RtPatched *
begin_state(Datum session_id, int64 version, Snapshot snapshot, int64 *from)
{
	Relation rel = table_open(rt_table(RT_session_snapshots)->relid, AccessShareLock);
	const RtTable *t = rt_table(RT_session_snapshots);
	RtPatched *patched = NULL;
	RtProbe probe;
	bool isnull;

	*from = 0;
	rt_probe_begin(&probe, rel, session_id, snapshot);
	if (rt_probe_next(&probe, BackwardScanDirection))
		*from =
			DatumGetInt64(slot_getattr(probe.slot, RT_ATT(t, session_snapshots, version), &isnull));
	if (*from > 0 && *from <= version)
		patched = rt_patched_begin(
			DatumGetJsonbP(slot_getattr(probe.slot, RT_ATT(t, session_snapshots, state), &isnull)));
	rt_probe_end(&probe);
	table_close(rel, NoLock);
	if (patched == NULL)
	{
		*from = 0;
		patched = rt_patched_begin(NULL);
	}
	return patched;
}

/* 55000 if a delta of a session is not there. */
static void
require_delta(Datum session_id, int64 expected, int64 found)
{
	if (found != expected)
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("deltas of the session are missing"),
						errdetail("Session %s has no version %lld.", rt_uuid_string(session_id),
								  (long long) expected),
						errhint("They may have been deleted; the state cannot be known then.")));
}

/* The state of a session at a version, as a snapshot shows it. */
static RtPatched *
build_state(Datum session_id, int64 version, Snapshot snapshot)
{
	Relation rel = table_open(rt_table(RT_session_deltas)->relid, AccessShareLock);
	const RtTable *t = rt_table(RT_session_deltas);
	AttrNumber atts[] = {RT_ATT(t, session_deltas, session_id), RT_ATT(t, session_deltas, version)};
	Relation index = rt_index_open(rel, "session_deltas_pkey", lengthof(atts), atts, -1);
	TupleTableSlot *row = table_slot_create(rel, NULL);
	ScanKeyData keys[2];
	IndexScanDesc scan;
	RtPatched *patched;
	int64 at;

	patched = begin_state(session_id, version, snapshot, &at);
	ScanKeyInit(&keys[0], 1, BTEqualStrategyNumber, F_UUID_EQ, session_id);
	ScanKeyInit(&keys[1], 2, BTGreaterStrategyNumber, F_INT8GT, Int64GetDatum(at));
	scan = rt_index_beginscan(rel, index, snapshot, lengthof(keys));
	index_rescan(scan, keys, lengthof(keys), NULL, 0);
	while (at < version && index_getnext_slot(scan, ForwardScanDirection, row))
	{
		bool isnull;
		Datum delta = slot_getattr(row, RT_ATT(t, session_deltas, delta), &isnull);
		Jsonb *patch = DatumGetJsonbP(delta);

		CHECK_FOR_INTERRUPTS();
		require_delta(session_id, ++at,
					  DatumGetInt64(
						  slot_getattr(row, RT_ATT(t, session_deltas, version), &isnull)));
		rt_patched_merge(patched, patch);
		if ((Pointer) patch != DatumGetPointer(delta))
			pfree(patch);
	}
	if (at < version)
		require_delta(session_id, at + 1, -1);
	index_endscan(scan);
	ExecDropSingleTupleTableSlot(row);
	index_close(index, AccessShareLock);
	table_close(rel, NoLock);
	return patched;
}

/* The state as jsonb.  Deltas are objects, so it is one, too. */
static Jsonb *
finish_state(RtPatched *patched)
{
	Jsonb *state = rt_patched_result(patched);

	if (!JB_ROOT_IS_OBJECT(state))
		elog(ERROR, "state of a session is no object");
	return state;
}

/* Write the snapshot of a session's state at a version; the caller holds the session. */
static void
write_snapshot(Datum session_id, Datum user_id, int64 version, Jsonb *state)
{
	RtWriter writer;
	RtProbe probe;
	Snapshot snapshot = rt_latest_snapshot();
	const RtTable *t;
	bool found;

	rt_writer_open(&writer, RT_session_snapshots);
	t = writer.table;
	rt_probe_begin(&probe, writer.rel, session_id, snapshot);
	found = rt_probe_next(&probe, BackwardScanDirection);
	if (found)
		rt_writer_copy(&writer, probe.slot);
	else
	{
		rt_writer_blank(&writer);
		rt_writer_set(&writer, RT_ATT(t, session_snapshots, session_id), session_id, false);
		rt_writer_set(&writer, RT_ATT(t, session_snapshots, user_id), user_id, false);
	}
	rt_writer_set(&writer, RT_ATT(t, session_snapshots, version), Int64GetDatum(version), false);
	rt_writer_set(&writer, RT_ATT(t, session_snapshots, state), JsonbPGetDatum(state), false);
	rt_writer_set(&writer, RT_ATT(t, session_snapshots, updated_at),
				  TimestampTzGetDatum(GetCurrentTimestamp()), false);
	if (found)
		rt_writer_update(&writer, probe.slot);
	else
		rt_writer_insert(&writer);
	rt_probe_end(&probe);
	UnregisterSnapshot(snapshot);
	rt_writer_close(&writer);
}

/* ----------------------------------------------------------------
 * The trigger of deltas
 * ----------------------------------------------------------------
 */

/* The session that is appended to: found and locked. */
typedef struct Target
{
	Relation rel;
	RtProbe probe;
	Snapshot snapshot;
	Datum session_id;
	Datum user_id;
	int64 version;		  /* before */
	int64 snapshot_after; /* what is left until the next snapshot */
} Target;

/* Find and lock the session of a new delta: P0002 unless it is the caller's, 55000 if closed. */
static void
begin_append(Target *target, const RtRow *row)
{
	const RtTable *t = rt_table(RT_sessions);
	AttrNumber user_att = RT_ATT(row->table, session_deltas, user_id);
	TupleTableSlot *slot;
	bool isnull;

	target->session_id = rt_row_get(row, RT_ATT(row->table, session_deltas, session_id));
	target->rel = table_open(t->relid, RowExclusiveLock);
	target->snapshot = rt_latest_snapshot();
	rt_probe_begin(&target->probe, target->rel, target->session_id, target->snapshot);
	slot = target->probe.slot;
	/* of its versions, the last one is found first this way, mostly */
	if (!rt_probe_next(&target->probe, BackwardScanDirection))
		rt_session_not_found(target->session_id);
	target->user_id =
		datumCopy(slot_getattr(slot, RT_ATT(t, sessions, user_id), &isnull), false, -1);
	if (!rt_identity_owns(target->user_id) ||
		(!rt_row_isnull(row, user_att) &&
		 !datum_image_eq(PointerGetDatum(PG_DETOAST_DATUM(rt_row_get(row, user_att))),
						 PointerGetDatum(PG_DETOAST_DATUM(target->user_id)), false, -1)))
		rt_session_not_found(target->session_id);
	if (!rt_row_lock(target->rel, slot, target->snapshot, LockTupleNoKeyExclusive, true))
		rt_session_not_found(target->session_id);
	rt_row_require_visible(target->rel, slot);
	target->version = DatumGetInt64(slot_getattr(slot, RT_ATT(t, sessions, version), &isnull));
	target->snapshot_after =
		DatumGetInt64(slot_getattr(slot, RT_ATT(t, sessions, snapshot_after), &isnull));
	(void) slot_getattr(slot, RT_ATT(t, sessions, closed_at), &isnull);
	if (!isnull)
		rt_session_refuse_closed(target->session_id);
}

static void
end_append(Target *target)
{
	rt_probe_end(&target->probe);
	UnregisterSnapshot(target->snapshot);
	table_close(target->rel, NoLock);
}

/* RT007 if the delta is not made for the version that the session has. */
static void
check_version(const RtRow *row, const Target *target)
{
	AttrNumber att = RT_ATT(row->table, session_deltas, version);
	int64 version;

	if (target->version == PG_INT64_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
				 errmsg("session %s has no version left", rt_uuid_string(target->session_id))));
	if (rt_row_isnull(row, att))
		return;
	version = DatumGetInt64(rt_row_get(row, att));
	if (version < 1)
		rt_row_violation(row, att, "Versions begin with 1.");
	if (version != target->version + 1)
		ereport(ERROR,
				(errcode(ERRCODE_RT_VERSION_CONFLICT), errmsg("version conflict"),
				 errdetail("The current version is %lld, the base version is %lld.",
						   (long long) target->version, (long long) version - 1),
				 errhint("Read the state again, and append to that; or give no base version."),
				 errtablecol(row->rel, att)));
}

/* 54000 if the state has become too large. */
static void
check_state_size(Relation rel, const Jsonb *state)
{
	int64 limit = (int64) rt_max_payload_kb * 1024;
	int64 size = VARSIZE(state) - VARHDRSZ;

	if (size > limit)
		ereport(ERROR, (errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
						errmsg("state of the session is too large"),
						errdetail("It would have %lld bytes, at most %lld are allowed.",
								  (long long) size, (long long) limit),
						errhint("Remove members by deltas that set them to null, or raise "
								"run_tracker.max_payload."),
						errtable(rel)));
}

/* Count a delta; if it is time for a snapshot, write one. */
static void
count_delta(Target *target, Relation rel, Jsonb *delta)
{
	RtPatched *patched;
	Snapshot snapshot;
	Jsonb *state;

	target->snapshot_after -= VARSIZE(delta) + DELTA_OVERHEAD;
	if (target->snapshot_after > 0)
		return;
	/* now that the session is locked, this shows all that came before */
	snapshot = rt_latest_snapshot();
	patched = build_state(target->session_id, target->version, snapshot);
	UnregisterSnapshot(snapshot);
	rt_patched_merge(patched, delta);
	state = finish_state(patched);
	check_state_size(rel, state);
	write_snapshot(target->session_id, target->user_id, target->version + 1, state);
	target->snapshot_after = VARSIZE(state) + RT_SNAPSHOT_SLACK;
}

/* BEFORE INSERT OR UPDATE FOR EACH ROW on session_deltas: the next version of the session. */
Datum
run_tracker_session_deltas_before(PG_FUNCTION_ARGS)
{
	const RtTable *t =
		rt_trigger_check(fcinfo, RT_session_deltas, RT_BEFORE_ROW, "session_deltas_before");
	TriggerData *trigdata = (TriggerData *) fcinfo->context;
	AttrNumber delta = RT_ATT(t, session_deltas, delta);
	AttrNumber created_at = RT_ATT(t, session_deltas, created_at);
	Target target;
	RtRow row;

	if (TRIGGER_FIRED_BY_UPDATE(trigdata->tg_event))
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("deltas cannot be changed"), errhint("Append another delta."),
						errtable(trigdata->tg_relation)));
	/* this very command may have appended before, or opened the session */
	CommandCounterIncrement();
	rt_row_begin(&row, trigdata, t);
	rt_row_require(&row, RT_ATT(t, session_deltas, session_id));
	rt_row_require(&row, delta);
	rt_row_check_json(&row, delta, false);
	rt_row_check_size(&row);

	begin_append(&target, &row);
	check_version(&row, &target);
	count_delta(&target, row.rel, DatumGetJsonbP(rt_row_get(&row, delta)));
	rt_row_default(&row, created_at, TimestampTzGetDatum(GetCurrentTimestamp()));
	rt_session_advance(&target.probe, target.version + 1, target.snapshot_after,
					   DatumGetTimestampTz(rt_row_get(&row, created_at)));
	end_append(&target);

	rt_row_set(&row, RT_ATT(t, session_deltas, version), Int64GetDatum(target.version + 1));
	rt_row_set(&row, RT_ATT(t, session_deltas, user_id), target.user_id);
	return rt_row_end(&row);
}

/* ----------------------------------------------------------------
 * Functions
 * ----------------------------------------------------------------
 */

/* append_delta(session_id, base_version, delta) → version */
Datum
run_tracker_append_delta(PG_FUNCTION_ARGS)
{
	static RtPlan plan = {"INSERT INTO run_tracker.session_deltas (session_id, version, delta) "
						  "VALUES ($1, $2 OPERATOR(pg_catalog.+) 1, $3) RETURNING version",
						  3,
						  {UUIDOID, INT8OID, JSONBOID}};

	rt_call_require(fcinfo, 0, "session_id");
	rt_call_require(fcinfo, 2, "delta");
	if (!PG_ARGISNULL(1) && PG_GETARG_INT64(1) < 0)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("argument \"base_version\" must not be negative")));
	return rt_call_insert(&plan, fcinfo, RT_session_deltas);
}

/* session_state(session_id, at_version) → jsonb */
Datum
run_tracker_session_state(PG_FUNCTION_ARGS)
{
	static RtPlan find = {"SELECT version FROM run_tracker.sessions WHERE session_id = $1",
						  1,
						  {UUIDOID}};
	Datum session_id;
	int64 version;
	bool isnull;

	rt_call_require(fcinfo, 0, "session_id");
	session_id = PG_GETARG_DATUM(0);
	(void) rt_table(RT_sessions);
	SPI_connect();
	rt_plan_execute(&find, fcinfo->args, SPI_OK_SELECT, true);
	if (SPI_processed == 0)
		rt_session_not_found(session_id);
	version =
		DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	SPI_finish();
	if (!PG_ARGISNULL(1))
	{
		if (PG_GETARG_INT64(1) < 0 || PG_GETARG_INT64(1) > version)
			ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
							errmsg("there is no such version of the session"),
							errdetail("The current version is %lld, asked for is %lld.",
									  (long long) version, (long long) PG_GETARG_INT64(1))));
		version = PG_GETARG_INT64(1);
	}
	PG_RETURN_JSONB_P(finish_state(build_state(session_id, version, GetActiveSnapshot())));
}
