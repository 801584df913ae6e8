/*-------------------------------------------------------------------------
 *
 * reservations.c
 *		Reservations: quotas that cannot be overshot.
 *
 * A reservation sets aside what a call may use.  What is used, reserved and asked for must
 * not exceed a quota.  When the call is over, its usage is counted and the reservation
 * ends in the same transaction, so that every snapshot sees one of the two.
 *
 * Locking protocol: who reserves holds the lock of the user (rt_limits_lock()) until the end of
 * the transaction, and reads what is committed after getting it: whatever others
 * reserve is there, or has not been asked for.  Those who settle or release only lock the row
 * of the reservation, the last thing that they lock; they never make room smaller.
 *
 * A reservation counts until expires_at, whether or not the worker has marked it as expired.
 *
 * Memory: the settlements of a statement live in the caller's context.
 *
 *-------------------------------------------------------------------------
 */
#include "run_tracker.h"

#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "miscadmin.h"
#include "tcop/utility.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/snapmgr.h"

#include "calls.h"
#include "identity.h"
#include "accounts.h"
#include "notes.h"
#include "row.h"
#include "runs.h"
#include "shared.h"
#include "stats.h"
#include "usage.h"
#include "writer.h"

PG_FUNCTION_INFO_V1(run_tracker_reserve_usage);
PG_FUNCTION_INFO_V1(run_tracker_settle_usage);
PG_FUNCTION_INFO_V1(run_tracker_release_usage);
PG_FUNCTION_INFO_V1(run_tracker_forget_reservations);

/* a check that reads more deltas than that wants them folded: so many, if it does that itself */
#define FOLD_SOON 200
#define FOLD_NOW  5000

/* no call takes longer than that */
#define MAX_TTL_US (30 * USECS_PER_DAY)

/* ----------------------------------------------------------------
 * Reserving
 * ----------------------------------------------------------------
 */

/* What a call asks for. */
typedef struct Request
{
	int64 tokens;
	int32 requests;
	Datum cost;
	TimestampTz now;
	TimestampTz expires_at;
} Request;

/* RT004 */
static void
refuse(const char *quota, const char *used, const char *reserved, const char *asked,
	   const char *limit, TimestampTz reset_at)
{
	ereport(ERROR,
			(errcode(ERRCODE_RT_QUOTA_EXCEEDED), errmsg("quota exceeded: %s", quota),
			 errdetail("Used: %s, reserved: %s, requested: %s, limit: %s, reset at: %s.", used,
					   reserved, asked, limit, timestamptz_to_str(reset_at)),
			 errhint("run_tracker.quotas() shows what is left. It grows when a reservation is "
					 "released, and anew when the window ends.")));
}

static void
check_count(const char *quota, int64 used, int64 reserved, int64 asked, int64 limit,
			TimestampTz reset_at)
{
	/* no limit, or nothing asked for: what is overdrawn already is no matter */
	if (limit < 0 || asked == 0)
		return;
	/* none of these is large enough for the sum to overflow, unless it is beyond any limit */
	if (used > limit || reserved > limit - used || asked > limit - used - reserved)
		refuse(quota, psprintf("%lld", (long long) used), psprintf("%lld", (long long) reserved),
			   psprintf("%lld", (long long) asked), psprintf("%lld", (long long) limit), reset_at);
}

static char *
numeric_string(Datum number)
{
	return DatumGetCString(DirectFunctionCall1(numeric_out, number));
}

static void
check_cost(const RtUsage *usage, Datum asked, Datum limit)
{
	Datum sum;

	if (limit == (Datum) 0 ||
		DatumGetBool(DirectFunctionCall2(numeric_eq, asked,
										 DirectFunctionCall1(int8_numeric, Int64GetDatum(0)))))
		return;
	sum = DirectFunctionCall2(numeric_add, asked,
							  DirectFunctionCall2(numeric_add, usage->month_cost,
												  usage->reserved_cost));
	if (DatumGetBool(DirectFunctionCall2(numeric_gt, sum, limit)))
		refuse("monthly_cost", numeric_string(usage->month_cost),
			   numeric_string(usage->reserved_cost), numeric_string(asked), numeric_string(limit),
			   usage->windows.month_ends_at);
}

/*
 * Keep the next checks cheap: have the worker fold what this one had to add up.  Where there is
 * none, do it here, though nobody else can until the end of the transaction.
 */
static void
fold_for(const RtUsage *usage)
{
	bool more;

	if (usage->deltas <= FOLD_SOON)
		return;
	if (rt_shared_available())
		rt_note_statistics(RT_FOLD_SOON);
	else if (!IsolationUsesXactSnapshot())
		(void) rt_stats_fold(FOLD_NOW, DT_NOEND, false, &more);
}

/* RT004 unless the quotas of a user, who is locked, leave what is asked for. */
static void
check_quotas(Datum user_id, const Request *request)
{
	Snapshot snapshot = rt_latest_snapshot();
	RtLimits limits;
	RtUsage usage;

	rt_limits_read(user_id, &limits);
	rt_usage_read(user_id, snapshot, &usage);
	UnregisterSnapshot(snapshot);
	check_count("monthly_tokens", usage.month_tokens, usage.reserved_tokens, request->tokens,
				limits.monthly_tokens, usage.windows.month_ends_at);
	check_count("daily_requests", usage.day_requests, usage.reserved_requests, request->requests,
				limits.daily_requests, usage.windows.day_ends_at);
	check_cost(&usage, request->cost, limits.monthly_cost);
	fold_for(&usage);
}

/* 22023 for an argument that is out of range. */
static void
bad_argument(const char *name, const char *range)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("argument \"%s\" is out of range", name), errdetail("It must be %s.", range)));
}

/* The time that a reservation has begins now. */
static void
set_expiry(Request *request, Datum ttl)
{
	request->now = GetCurrentTimestamp();
	request->expires_at = DatumGetTimestampTz(
		DirectFunctionCall2(timestamptz_pl_interval, TimestampTzGetDatum(request->now), ttl));
	if (request->expires_at <= request->now || request->expires_at > request->now + MAX_TTL_US)
		bad_argument("ttl", "longer than nothing, and at most 30 days");
}

/* Read the arguments tokens, cost, ttl and requests, from the second one on. */
static void
get_request(FunctionCallInfo fcinfo, Request *request)
{
	Datum zero = DirectFunctionCall1(int8_numeric, Int64GetDatum(0));
	Datum most = DirectFunctionCall1(int8_numeric, Int64GetDatum(RT_MAX_AMOUNT));

	request->tokens = PG_ARGISNULL(1) ? 0 : PG_GETARG_INT64(1);
	if (request->tokens < 0 || request->tokens > RT_MAX_AMOUNT)
		bad_argument("tokens", psprintf("from 0 to %lld", (long long) RT_MAX_AMOUNT));
	request->cost = PG_ARGISNULL(2) ? zero : PG_GETARG_DATUM(2);
	/* NaN is greater than every number */
	if (DatumGetBool(DirectFunctionCall2(numeric_lt, request->cost, zero)) ||
		DatumGetBool(DirectFunctionCall2(numeric_gt, request->cost, most)) ||
		DatumGetInt32(DirectFunctionCall1(numeric_scale, request->cost)) > 40)
		bad_argument("cost", psprintf("from 0 to %lld, with at most 40 digits after the point",
									  (long long) RT_MAX_AMOUNT));
	rt_call_require(fcinfo, 3, "ttl");
	set_expiry(request, PG_GETARG_DATUM(3));
	request->requests = PG_ARGISNULL(4) ? 1 : PG_GETARG_INT32(4);
	if (request->requests < 0 || request->requests > 1000000)
		bad_argument("requests", "from 0 to 1000000");
}

/* reserve_usage(user_id, tokens, cost, ttl, requests) → reservation_id */
Datum
run_tracker_reserve_usage(PG_FUNCTION_ARGS)
{
	Datum user_id = rt_limits_user(fcinfo, 0);
	pg_uuid_t *id = palloc(sizeof(pg_uuid_t));
	Request request;
	RtWriter writer;
	const RtTable *t;

	PreventCommandIfReadOnly("reserve_usage()");
	PreventCommandDuringRecovery("reserve_usage()");
	get_request(fcinfo, &request);
	rt_limits_lock(user_id);
	/* waiting for the lock is not part of it */
	set_expiry(&request, PG_GETARG_DATUM(3));
	check_quotas(user_id, &request);

	rt_uuid_generate(id);
	rt_writer_open(&writer, RT_reservations);
	t = writer.table;
	rt_writer_blank(&writer);
	rt_writer_set(&writer, RT_ATT(t, reservations, reservation_id), UUIDPGetDatum(id), false);
	rt_writer_set(&writer, RT_ATT(t, reservations, user_id), user_id, false);
	rt_writer_set(&writer, RT_ATT(t, reservations, state), CStringGetTextDatum("held"), false);
	rt_writer_set(&writer, RT_ATT(t, reservations, tokens), Int64GetDatum(request.tokens), false);
	rt_writer_set(&writer, RT_ATT(t, reservations, cost), request.cost, false);
	rt_writer_set(&writer, RT_ATT(t, reservations, requests), Int32GetDatum(request.requests),
				  false);
	rt_writer_set(&writer, RT_ATT(t, reservations, created_at), TimestampTzGetDatum(request.now),
				  false);
	rt_writer_set(&writer, RT_ATT(t, reservations, expires_at),
				  TimestampTzGetDatum(request.expires_at), false);
	rt_writer_insert(&writer);
	rt_writer_close(&writer);
	rt_note_deadline(request.expires_at);
	PG_RETURN_UUID_P(id);
}

/* ----------------------------------------------------------------
 * Ending reservations
 * ----------------------------------------------------------------
 */

static bool
state_is(TupleTableSlot *row, const RtTable *t, const char *state)
{
	text *value = DatumGetTextPP(rt_slot_value(row, RT_ATT(t, reservations, state)));

	return VARSIZE_ANY_EXHDR(value) == strlen(state) &&
		   memcmp(VARDATA_ANY(value), state, strlen(state)) == 0;
}

/* End a reservation that is locked. */
static void
end_reservation(RtWriter *writer, TupleTableSlot *row, const char *state, const pg_uuid_t *task_id)
{
	const RtTable *t = writer->table;

	rt_writer_copy(writer, row);
	rt_writer_set(writer, RT_ATT(t, reservations, state), CStringGetTextDatum(state), false);
	rt_writer_set(writer, RT_ATT(t, reservations, ended_at),
				  TimestampTzGetDatum(GetCurrentTimestamp()), false);
	if (task_id)
		rt_writer_set(writer, RT_ATT(t, reservations, task_id), UUIDPGetDatum(task_id), false);
	rt_writer_update(writer, row);
}

/* P0002 */
static void
not_found(Datum reservation_id)
{
	ereport(ERROR, (errcode(ERRCODE_NO_DATA_FOUND), errmsg("reservation not found"),
					errdetail("There is no reservation %s that you may change.",
							  rt_uuid_string(reservation_id))));
}

/* What a reservation was, when it ended. */
typedef struct Ended
{
	bool changed;
	Datum user_id; /* palloc'd */
	int64 tokens;
	int32 requests;
	Datum cost; /* palloc'd */
} Ended;

/* End a reservation of the caller's as settled or released, unless it has ended so before. */
static void
end_own(Datum reservation_id, const char *state, Ended *ended)
{
	Snapshot snapshot;
	RtProbe probe;
	RtWriter writer;
	const RtTable *t;
	bool settle = strcmp(state, "settled") == 0;

	rt_writer_open(&writer, RT_reservations);
	t = writer.table;
	snapshot = rt_latest_snapshot();
	rt_probe_begin(&probe, writer.rel, reservation_id, snapshot);
	/* nobody waits for, or keeps waiting, what is not his */
	if (!rt_probe_next(&probe, ForwardScanDirection) ||
		!rt_identity_owns(rt_slot_value(probe.slot, RT_ATT(t, reservations, user_id))) ||
		!rt_row_lock(writer.rel, probe.slot, snapshot, LockTupleNoKeyExclusive, true))
		not_found(reservation_id);
	if (settle && state_is(probe.slot, t, "released"))
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("reservation was released"),
						errdetail("Reservation %s has ended.", rt_uuid_string(reservation_id)),
						errhint("Record what was used with run_tracker.record_usage().")));
	/* what was spent counts, however late it is told */
	ended->changed =
		state_is(probe.slot, t, "held") || (settle && state_is(probe.slot, t, "expired"));
	if (ended->changed)
	{
		ended->user_id = PointerGetDatum(
			PG_DETOAST_DATUM_COPY(rt_slot_value(probe.slot, RT_ATT(t, reservations, user_id))));
		ended->tokens = rt_slot_int64(probe.slot, RT_ATT(t, reservations, tokens));
		ended->requests =
			DatumGetInt32(rt_slot_value(probe.slot, RT_ATT(t, reservations, requests)));
		ended->cost = PointerGetDatum(
			PG_DETOAST_DATUM_COPY(rt_slot_value(probe.slot, RT_ATT(t, reservations, cost))));
		end_reservation(&writer, probe.slot, state, NULL);
	}
	rt_probe_end(&probe);
	UnregisterSnapshot(snapshot);
	rt_writer_close(&writer);
}

/*
 * settle_usage(reservation_id, tokens, cost, requests, input_tokens, output_tokens, provider,
 * model, endpoint, session_id, run_id, metadata) → changed
 */
Datum
run_tracker_settle_usage(PG_FUNCTION_ARGS)
{
	static RtPlan plan =
		{"INSERT INTO run_tracker.usage_records (reservation_id, total_tokens, cost, requests, "
		 "input_tokens, output_tokens, provider, model, endpoint, session_id, run_id, metadata, "
		 "user_id, source) "
		 "VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, 'reservation')",
		 13,
		 {UUIDOID, INT8OID, NUMERICOID, INT4OID, INT8OID, INT8OID, TEXTOID, TEXTOID, TEXTOID,
		  UUIDOID, UUIDOID, JSONBOID, TEXTOID}};
	NullableDatum args[13];
	Ended ended;

	PreventCommandIfReadOnly("settle_usage()");
	PreventCommandDuringRecovery("settle_usage()");
	rt_call_require(fcinfo, 0, "reservation_id");
	SPI_connect();
	end_own(PG_GETARG_DATUM(0), "settled", &ended);
	if (ended.changed)
	{
		memcpy(args, fcinfo->args, 12 * sizeof(NullableDatum));
		/* without numbers, it was what had been reserved */
		if (args[1].isnull && args[4].isnull && args[5].isnull)
			args[1] = (NullableDatum){Int64GetDatum(ended.tokens), false};
		if (args[2].isnull)
			args[2] = (NullableDatum){ended.cost, false};
		if (args[3].isnull)
			args[3] = (NullableDatum){Int32GetDatum(ended.requests), false};
		args[12] = (NullableDatum){ended.user_id, false};
		rt_plan_execute(&plan, args, SPI_OK_INSERT, false);
	}
	SPI_finish();
	PG_RETURN_BOOL(ended.changed);
}

/* release_usage(reservation_id) → changed */
Datum
run_tracker_release_usage(PG_FUNCTION_ARGS)
{
	Ended ended;

	PreventCommandIfReadOnly("release_usage()");
	PreventCommandDuringRecovery("release_usage()");
	rt_call_require(fcinfo, 0, "reservation_id");
	end_own(PG_GETARG_DATUM(0), "released", &ended);
	PG_RETURN_BOOL(ended.changed);
}

/* ----------------------------------------------------------------
 * Reservations of tasks
 * ----------------------------------------------------------------
 */

/* 23503 unless a reservation is one of a user's. */
void
rt_reservation_check(Datum reservation_id, Datum user_id)
{
	Relation rel = table_open(rt_table(RT_reservations)->relid, AccessShareLock);
	const RtTable *t = rt_table(RT_reservations);
	Snapshot snapshot = rt_latest_snapshot();
	RtProbe probe;

	rt_probe_begin(&probe, rel, reservation_id, snapshot);
	if (!rt_probe_next(&probe, ForwardScanDirection) ||
		!rt_identity_is(rt_slot_value(probe.slot, RT_ATT(t, reservations, user_id)),
						TextDatumGetCString(user_id)))
		ereport(ERROR,
				(errcode(ERRCODE_FOREIGN_KEY_VIOLATION), errmsg("reservation does not exist"),
				 errdetail("The user of the task has no reservation %s.",
						   rt_uuid_string(reservation_id)),
				 errhint("run_tracker.reserve_usage() makes one.")));
	rt_probe_end(&probe);
	UnregisterSnapshot(snapshot);
	table_close(rel, AccessShareLock);
}

/* A reservation whose task has come to its end. */
typedef struct Settlement
{
	pg_uuid_t reservation_id;
	pg_uuid_t task_id;
	bool release; /* the task was deleted before it finished */
} Settlement;

struct RtSettlements
{
	int n;
	int size;
	Settlement *all;
};

/* Note the reservation of a task that this change finishes, or deletes unfinished. */
void
rt_settlements_note(RtSettlements **settlements, const RtChanges *changes, const RtTable *t)
{
	TupleTableSlot *row = changes->new ? changes->new : changes->old;
	Datum reservation_id = rt_slot_value(row, RT_ATT(t, tasks, reservation_id));
	RtSettlements *s = *settlements;
	Settlement *settlement;

	/* what is inserted as finished is a fact */
	if (reservation_id == (Datum) 0 || changes->old == NULL || !rt_task_is_open(changes->old, t) ||
		(changes->new &&rt_task_is_open(changes->new, t)))
		return;
	if (s == NULL)
		s = *settlements = palloc0(sizeof(RtSettlements));
	if (s->n == s->size)
	{
		s->size = Max(s->size * 2, 16);
		s->all = s->all ? repalloc_huge(s->all, sizeof(Settlement) * s->size) :
						  palloc(sizeof(Settlement) * s->size);
	}
	settlement = &s->all[s->n++];
	settlement->reservation_id = *DatumGetUUIDP(reservation_id);
	settlement->task_id = *DatumGetUUIDP(rt_slot_value(row, RT_ATT(t, tasks, task_id)));
	settlement->release = changes->new == NULL;
}

static int
compare_settlements(const void *a, const void *b)
{
	return memcmp(&((const Settlement *) a)->reservation_id,
				  &((const Settlement *) b)->reservation_id, sizeof(pg_uuid_t));
}

/* End the reservations that were noted, in order of their ids, and free the list. */
void
rt_settlements_apply(RtSettlements *settlements)
{
	RtWriter writer;
	Snapshot snapshot;

	if (settlements == NULL)
		return;
	qsort(settlements->all, settlements->n, sizeof(Settlement), compare_settlements);
	rt_writer_open(&writer, RT_reservations);
	snapshot = rt_latest_snapshot();
	for (int i = 0; i < settlements->n; i++)
	{
		Settlement *settlement = &settlements->all[i];
		RtProbe probe;

		CHECK_FOR_INTERRUPTS();
		/* several tasks may name one reservation: the first of them ends it */
		if (i > 0 && compare_settlements(settlement - 1, settlement) == 0)
			continue;
		rt_probe_begin(&probe, writer.rel, UUIDPGetDatum(&settlement->reservation_id), snapshot);
		if (rt_probe_next(&probe, ForwardScanDirection) &&
			rt_row_lock(writer.rel, probe.slot, snapshot, LockTupleNoKeyExclusive, true) &&
			(state_is(probe.slot, writer.table, "held") ||
			 (!settlement->release && state_is(probe.slot, writer.table, "expired"))))
			end_reservation(&writer, probe.slot, settlement->release ? "released" : "settled",
							settlement->release ? NULL : &settlement->task_id);
		rt_probe_end(&probe);
	}
	UnregisterSnapshot(snapshot);
	rt_writer_close(&writer);
	pfree(settlements->all);
	pfree(settlements);
}

/* ----------------------------------------------------------------
 * Reservations whose time is up, and old ones
 * ----------------------------------------------------------------
 */

/* A scan of the reservations that are held, or have ended, in order of when that is or was. */
static void
begin_time_scan(RtProbe *probe, Relation rel, const char *name, AttrNumber att, TimestampTz until,
				Snapshot snapshot)
{
	ScanKeyData key;

	probe->rel = rel;
	probe->index = rt_index_open(rel, name, 1, &att, -1);
	ScanKeyInit(&key, 1, BTLessEqualStrategyNumber, F_TIMESTAMPTZ_LE, TimestampTzGetDatum(until));
	probe->slot = table_slot_create(rel, NULL);
	probe->scan = rt_index_beginscan(rel, probe->index, snapshot, 1);
	index_rescan(probe->scan, &key, 1, NULL, 0);
}

/* When the first reservation that is held expires, or has expired; DT_NOEND if there is none. */
TimestampTz
rt_reservations_next(void)
{
	Relation rel = table_open(rt_table(RT_reservations)->relid, AccessShareLock);
	const RtTable *t = rt_table(RT_reservations);
	AttrNumber expires_at = RT_ATT(t, reservations, expires_at);
	Snapshot snapshot = rt_latest_snapshot();
	TimestampTz next = DT_NOEND;
	RtProbe probe;

	begin_time_scan(&probe, rel, "reservations_expiry_idx", expires_at, DT_NOEND, snapshot);
	if (rt_probe_next(&probe, ForwardScanDirection))
		next = DatumGetTimestampTz(rt_slot_value(probe.slot, expires_at));
	rt_probe_end(&probe);
	UnregisterSnapshot(snapshot);
	table_close(rel, NoLock);
	return next;
}

/* Mark reservations, at most so many, as expired.  Those that somebody else is ending are left. */
void
rt_reservations_expire(TimestampTz now, int max)
{
	RtWriter writer;
	Snapshot snapshot;
	RtProbe probe;
	int n = 0;

	rt_writer_open(&writer, RT_reservations);
	snapshot = rt_current_snapshot();
	begin_time_scan(&probe, writer.rel, "reservations_expiry_idx",
					RT_ATT(writer.table, reservations, expires_at), now, snapshot);
	while (n < max && rt_probe_next(&probe, ForwardScanDirection))
	{
		CHECK_FOR_INTERRUPTS();
		if (!rt_row_lock(writer.rel, probe.slot, snapshot, LockTupleNoKeyExclusive, false))
			continue;
		end_reservation(&writer, probe.slot, "expired", NULL);
		n++;
	}
	rt_probe_end(&probe);
	UnregisterSnapshot(snapshot);
	rt_writer_close(&writer);
}

/* forget_reservations(before, max_rows) → number of reservations deleted */
Datum
run_tracker_forget_reservations(PG_FUNCTION_ARGS)
{
	RtWriter writer;
	Snapshot snapshot;
	RtProbe probe;
	int n = 0;

	PreventCommandIfReadOnly("forget_reservations()");
	rt_call_require(fcinfo, 0, "before");
	rt_call_require(fcinfo, 1, "max_rows");
	if (!rt_identity_is_service())
		ereport(ERROR, (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
						errmsg("only services may delete reservations")));
	rt_writer_open(&writer, RT_reservations);
	snapshot = rt_current_snapshot();
	begin_time_scan(&probe, writer.rel, "reservations_ended_idx",
					RT_ATT(writer.table, reservations, ended_at), PG_GETARG_TIMESTAMPTZ(0),
					snapshot);
	while (n < PG_GETARG_INT32(1) && rt_probe_next(&probe, ForwardScanDirection))
	{
		CHECK_FOR_INTERRUPTS();
		if (!rt_row_lock(writer.rel, probe.slot, snapshot, LockTupleExclusive, false))
			continue;
		rt_writer_delete(&writer, probe.slot);
		n++;
	}
	rt_probe_end(&probe);
	UnregisterSnapshot(snapshot);
	rt_writer_close(&writer);
	PG_RETURN_INT64(n);
}
