/*-------------------------------------------------------------------------
 *
 * accounts.c
 *		Accounts and their tiers: what a user may do.
 *
 * A user without an account has the limits of the tier "free".  What an account overrides
 * wins over its tier.  Limits are read at every check, as they are committed then, past
 * privileges: so changing them needs no restart, and users need not see them.
 *
 * Locking protocol: whoever checks a quota and then takes of it holds a lock of the user's
 * until the end of the transaction, so that what others took is either committed and
 * counted, or not begun.  Another lock keeps two from making an account at the same time:
 * see lock_making().  They are heavyweight locks of classes that SQL functions cannot
 * reach: nobody can hold them to keep others away.
 *
 * Memory: everything is palloc'd in the caller's context.
 *
 *-------------------------------------------------------------------------
 */
#include "run_tracker.h"

#include "access/table.h"
#include "common/hashfn.h"
#include "mb/pg_wchar.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/fmgrprotos.h"
#include "utils/numeric.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"

#include "calls.h"
#include "identity.h"
#include "accounts.h"
#include "row.h"
#include "writer.h"

PG_FUNCTION_INFO_V1(run_tracker_accounts_before);
PG_FUNCTION_INFO_V1(run_tracker_tiers_before);

#define DEFAULT_TIER "free"

/* beside those of sequence.c and stats_fold.c: see there */
#define RT_LOCK_CLASS 0x5256

/* of whoever makes an account that is not there */
#define RT_MAKE_LOCK_CLASS 0x5257

/* limits beyond this are none */
#define MAX_LIMIT INT64CONST(1000000000000000)

#define MIN_WINDOW_US INT64CONST(1000)
#define MAX_WINDOW_US (366 * USECS_PER_DAY)

/* ----------------------------------------------------------------
 * Rates
 * ----------------------------------------------------------------
 */

static JsonbValue *
find_key(JsonbContainer *object, const char *key, JsonbValue *buf)
{
	return getKeyJsonValueFromContainer(object, key, strlen(key), buf);
}

/* A JSON number that is an integer from 0 to a bound; false if it is not. */
static bool
get_count(const JsonbValue *value, int64 bound, int64 *count)
{
	Datum number;
	Datum whole;

	if (value == NULL || value->type != jbvNumeric)
		return false;
	number = NumericGetDatum(value->val.numeric);
	whole = DirectFunctionCall2(numeric_trunc, number, Int32GetDatum(0));
	if (!DatumGetBool(DirectFunctionCall2(numeric_eq, number, whole)) ||
		DatumGetBool(DirectFunctionCall2(numeric_lt, number,
										 DirectFunctionCall1(int8_numeric, Int64GetDatum(0)))) ||
		DatumGetBool(DirectFunctionCall2(numeric_gt, number,
										 DirectFunctionCall1(int8_numeric, Int64GetDatum(bound)))))
		return false;
	*count = DatumGetInt64(DirectFunctionCall1(numeric_int8, number));
	return true;
}

/* A window: a number of seconds, or the text of an interval. */
static bool
get_window(const JsonbValue *value, int64 *window_us)
{
	Interval *interval;
	double seconds;

	if (value == NULL)
		return false;
	if (value->type == jbvNumeric)
		seconds = DatumGetFloat8(
			DirectFunctionCall1(numeric_float8_no_overflow, NumericGetDatum(value->val.numeric)));
	else if (value->type == jbvString)
	{
		char *text = pnstrdup(value->val.string.val, value->val.string.len);

		/* what a sign applies to depends on IntervalStyle, which is the caller's */
		if (strchr(text, '-'))
			return false;
		/* an error where it is written, not where it is read: there it has been written */
		interval =
			DatumGetIntervalP(DirectFunctionCall3(interval_in, CStringGetDatum(text),
												  ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1)));
		seconds = ((double) interval->month * DAYS_PER_MONTH + interval->day) * SECS_PER_DAY +
				  interval->time / 1000000.0;
	}
	else
		return false;
	if (!(seconds * 1000000.0 >= MIN_WINDOW_US && seconds * 1000000.0 <= MAX_WINDOW_US))
		return false;
	*window_us = (int64) (seconds * 1000000.0);
	return true;
}

/*
 * The rate that an entry of rate_limits allows: false if it is none, and *unlimited tells
 * whether that is meant.
 */
static bool
get_rate(const JsonbValue *entry, RtRate *rate, bool *unlimited)
{
	JsonbValue limit;
	JsonbValue window;
	JsonbContainer *object;

	*unlimited = entry->type == jbvNull;
	if (entry->type != jbvBinary || !JsonContainerIsObject(entry->val.binary.data))
		return false;
	object = entry->val.binary.data;
	return get_count(find_key(object, "limit", &limit), MAX_LIMIT, &rate->limit) &&
		   get_window(find_key(object, "window", &window), &rate->window_us);
}

/*
 * The rate at which a user may call an endpoint; false if there is no limit.  What is said of
 * this endpoint wins over what is said of all others ("*", then *shared is set), and
 * then the account over its tier.
 */
bool
rt_limits_rate(const RtLimits *limits, const char *endpoint, int len, RtRate *rate, bool *shared)
{
	for (int all = 0; all <= 1; all++)
	{
		Jsonb *sources[] = {limits->rate_overrides, limits->rate_limits};

		*shared = all == 1;
		for (int i = 0; i < lengthof(sources); i++)
		{
			JsonbValue buf;
			JsonbValue *entry;
			bool unlimited;

			if (sources[i] == NULL)
				continue;
			entry = getKeyJsonValueFromContainer(&sources[i]->root, all ? "*" : endpoint,
												 all ? 1 : len, &buf);
			if (entry)
				return get_rate(entry, rate, &unlimited);
		}
	}
	return false;
}

/* ----------------------------------------------------------------
 * Reading limits
 * ----------------------------------------------------------------
 */

static int64
count_column(TupleTableSlot *row, AttrNumber att)
{
	bool isnull;
	Datum value = slot_getattr(row, att, &isnull);

	return isnull ? -1 : DatumGetInt64(value);
}

static Jsonb *
json_column(TupleTableSlot *row, AttrNumber att)
{
	bool isnull;
	Datum value = slot_getattr(row, att, &isnull);
	Jsonb *json;

	if (isnull)
		return NULL;
	json = DatumGetJsonbPCopy(value);
	return JB_ROOT_IS_OBJECT(json) ? json : NULL;
}

/* The account of a user: its tier, and its overrides or NULL; false if there is none. */
static bool
read_account(Datum user_id, Snapshot snapshot, const char **tier, Jsonb **overrides)
{
	Relation rel = table_open(rt_table(RT_accounts)->relid, AccessShareLock);
	const RtTable *t = rt_table(RT_accounts);
	RtProbe probe;
	bool found;
	bool isnull;

	rt_probe_begin_name(&probe, rel, user_id, snapshot);
	found = rt_probe_next(&probe, ForwardScanDirection);
	if (found)
	{
		*tier = TextDatumGetCString(slot_getattr(probe.slot, RT_ATT(t, accounts, tier), &isnull));
		*overrides = json_column(probe.slot, RT_ATT(t, accounts, overrides));
	}
	rt_probe_end(&probe);
	table_close(rel, AccessShareLock);
	return found;
}

/* The limits of a tier; none if it does not exist. */
static void
read_tier(Snapshot snapshot, RtLimits *limits)
{
	Relation rel = table_open(rt_table(RT_tiers)->relid, AccessShareLock);
	const RtTable *t = rt_table(RT_tiers);
	RtProbe probe;

	rt_probe_begin_name(&probe, rel, CStringGetTextDatum(limits->tier), snapshot);
	if (rt_probe_next(&probe, ForwardScanDirection))
	{
		TupleTableSlot *row = probe.slot;
		bool isnull;
		Datum cost = slot_getattr(row, RT_ATT(t, tiers, monthly_cost), &isnull);

		limits->monthly_tokens = count_column(row, RT_ATT(t, tiers, monthly_tokens));
		limits->daily_requests = count_column(row, RT_ATT(t, tiers, daily_requests));
		limits->concurrent_sessions = count_column(row, RT_ATT(t, tiers, concurrent_sessions));
		limits->monthly_cost = isnull ? (Datum) 0 : datumCopy(cost, false, -1);
		limits->rate_limits = json_column(row, RT_ATT(t, tiers, rate_limits));
	}
	rt_probe_end(&probe);
	table_close(rel, AccessShareLock);
}

/* A limit that an account overrides: a number, or null for no limit. */
static void
override_count(const Jsonb *overrides, const char *key, int64 *limit)
{
	JsonbValue buf;
	JsonbValue *value = find_key((JsonbContainer *) &overrides->root, key, &buf);

	if (value && value->type == jbvNull)
		*limit = -1;
	else if (value)
		(void) get_count(value, MAX_LIMIT, limit);
}

/* The limits that are in force for a user now.  The caller has an active snapshot. */
void
rt_limits_read(Datum user_id, RtLimits *limits)
{
	Snapshot snapshot = rt_latest_snapshot();
	Jsonb *overrides = NULL;
	JsonbValue buf;
	JsonbValue *value;

	memset(limits, 0, sizeof(RtLimits));
	limits->tier = DEFAULT_TIER;
	limits->monthly_tokens = limits->daily_requests = limits->concurrent_sessions = -1;
	(void) read_account(user_id, snapshot, &limits->tier, &overrides);
	read_tier(snapshot, limits);
	UnregisterSnapshot(snapshot);
	if (overrides == NULL)
		return;
	override_count(overrides, "monthly_tokens", &limits->monthly_tokens);
	override_count(overrides, "daily_requests", &limits->daily_requests);
	override_count(overrides, "concurrent_sessions", &limits->concurrent_sessions);
	value = find_key(&overrides->root, "monthly_cost", &buf);
	if (value)
		limits->monthly_cost =
			value->type == jbvNumeric ? NumericGetDatum(value->val.numeric) : (Datum) 0;
	value = find_key(&overrides->root, "rate_limits", &buf);
	if (value && value->type == jbvBinary && JsonContainerIsObject(value->val.binary.data))
		limits->rate_overrides = JsonbValueToJsonb(value);
}

/* ----------------------------------------------------------------
 * Whose limits
 * ----------------------------------------------------------------
 */

static void
set_tag(LOCKTAG *tag, Datum user_id, uint16 lock_class)
{
	text *user = DatumGetTextPP(user_id);
	uint64 hash = DatumGetUInt64(
		hash_any_extended((unsigned char *) VARDATA_ANY(user), VARSIZE_ANY_EXHDR(user), 0));

	SET_LOCKTAG_ADVISORY(*tag, MyDatabaseId, (uint32) (hash >> 32), (uint32) hash, lock_class);
}

/* Keep everybody else from taking of a user's quotas until the end of the transaction. */
void
rt_limits_lock(Datum user_id)
{
	LOCKTAG tag;

	set_tag(&tag, user_id, RT_LOCK_CLASS);
	(void) LockAcquire(&tag, ExclusiveLock, false, false);
}

/*
 * Is there an account of that user, committed or of this transaction?  One that another is
 * inserting need not be in all indexes yet.
 */
static bool
is_made(Relation rel, Datum user_id)
{
	SnapshotData dirty;
	RtProbe probe;
	bool found;

	InitDirtySnapshot(dirty);
	rt_probe_begin_name(&probe, rel, user_id, &dirty);
	found = rt_probe_next(&probe, ForwardScanDirection) && !TransactionIdIsValid(dirty.xmin);
	rt_probe_end(&probe);
	return found;
}

/*
 * An account is about to be inserted.  It has two unique keys, and ON CONFLICT looks at one:
 * of two that insert at the same time, the second could fail on the other.  So whoever
 * inserts an account that is not there yet keeps others from that until it is there, in
 * all indexes.  One lock is held at a time, however many accounts a statement makes; who
 * waits for it would wait for the end of the transaction that inserts the account anyway.
 */
static void
lock_making(Relation rel, Datum user_id)
{
	static LOCKTAG tag;
	ResourceOwner save = CurrentResourceOwner;

	if (!rt_identity_owns(user_id) || is_made(rel, user_id))
		return;
	PG_TRY();
	{
		/* whichever subtransaction comes next can release it */
		CurrentResourceOwner = TopTransactionResourceOwner;
		if (rt_lock_held(&tag, ExclusiveLock))
			LockRelease(&tag, ExclusiveLock, false);
		set_tag(&tag, user_id, RT_MAKE_LOCK_CLASS);
		(void) LockAcquire(&tag, ExclusiveLock, false, false);
	}
	PG_FINALLY();
	{
		CurrentResourceOwner = save;
	}
	PG_END_TRY();
}

/*
 * An argument "user_id": the caller if it is null.  42501 for somebody else unless the caller
 * is a service; 22023 if there is no user, or if it cannot be one.
 */
Datum
rt_limits_user(FunctionCallInfo fcinfo, int arg)
{
	char *caller = rt_identity_user();
	Datum user_id;

	if (PG_ARGISNULL(arg) && caller == NULL)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("argument \"user_id\" is missing, and there is no current user"),
						errhint("Name the user, or set request.jwt.claims as a gateway does.")));
	user_id = PG_ARGISNULL(arg) ? CStringGetTextDatum(caller) : PG_GETARG_DATUM(arg);
	(void) rt_call_check_name(DatumGetTextPP(user_id), "user_id");
	if (!rt_identity_is(user_id, caller) && !rt_identity_is_service())
		ereport(ERROR, (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
						errmsg("only services may act for other users"),
						errdetail("The user is \"%s\".", TextDatumGetCString(user_id))));
	return user_id;
}

/* ----------------------------------------------------------------
 * Triggers: what tiers and accounts may say
 * ----------------------------------------------------------------
 */

/* 23514 unless an object says what rate_limits may say. */
static void
check_rates(const RtRow *row, AttrNumber att, JsonbContainer *rates)
{
	JsonbIterator *it = JsonbIteratorInit(rates);
	JsonbValue value;
	JsonbIteratorToken token = JsonbIteratorNext(&it, &value, true);
	const char *name = "";

	if (token != WJB_BEGIN_OBJECT)
		rt_row_violation(row, att, "rate_limits must be a JSON object.");
	while ((token = JsonbIteratorNext(&it, &value, true)) != WJB_DONE)
	{
		RtRate rate;
		bool unlimited;

		CHECK_FOR_INTERRUPTS();
		if (token == WJB_KEY)
			name = pnstrdup(value.val.string.val, Min(value.val.string.len, RT_MAX_NAME_BYTES + 1));
		else if (token == WJB_VALUE && (strlen(name) == 0 || strlen(name) > RT_MAX_NAME_BYTES))
			rt_row_violation(row, att,
							 psprintf("The name of an endpoint must have 1 to %d bytes.",
									  RT_MAX_NAME_BYTES));
		else if (token == WJB_VALUE && !get_rate(&value, &rate, &unlimited) && !unlimited)
			rt_row_violation(row, att,
							 psprintf("The rate limit of \"%s\" must be null, or an object like "
									  "{\"limit\": 60, \"window\": \"1 minute\"}, with a limit from "
									  "0 to %lld, and a window of 1 ms to 366 days: an interval, or "
									  "a number of seconds.",
									  name, (long long) MAX_LIMIT));
	}
}

/* Is a number a cost that can be a limit?  NaN is greater than every number. */
static bool
is_cost(Datum cost)
{
	return !DatumGetBool(
			   DirectFunctionCall2(numeric_lt, cost,
								   DirectFunctionCall1(int8_numeric, Int64GetDatum(0)))) &&
		   !DatumGetBool(
			   DirectFunctionCall2(numeric_gt, cost,
								   DirectFunctionCall1(int8_numeric, Int64GetDatum(MAX_LIMIT))));
}

/* 23514 unless a JSON object says what overrides may say. */
static void
check_overrides(const RtRow *row, AttrNumber att)
{
	static const char *const counts[] = {"monthly_tokens", "daily_requests", "concurrent_sessions"};
	JsonbIterator *it;
	JsonbValue value;
	JsonbIteratorToken token;
	char *name = NULL;

	rt_row_check_json(row, att, false);
	if (rt_row_isnull(row, att))
		return;
	it = JsonbIteratorInit(&DatumGetJsonbP(rt_row_get(row, att))->root);
	(void) JsonbIteratorNext(&it, &value, true);
	while ((token = JsonbIteratorNext(&it, &value, true)) != WJB_DONE)
	{
		bool known = false;
		bool good = value.type == jbvNull;
		int64 count;

		if (token == WJB_KEY)
			name = pnstrdup(value.val.string.val,
							pg_mbcliplen(value.val.string.val, value.val.string.len, 64));
		if (token != WJB_VALUE)
			continue;
		for (int i = 0; i < lengthof(counts); i++)
		{
			known = known || strcmp(name, counts[i]) == 0;
			if (strcmp(name, counts[i]) == 0)
				good = good || get_count(&value, MAX_LIMIT, &count);
		}
		if (strcmp(name, "monthly_cost") == 0)
		{
			known = true;
			good =
				good || (value.type == jbvNumeric && is_cost(NumericGetDatum(value.val.numeric)));
		}
		else if (strcmp(name, "rate_limits") == 0)
		{
			known = good = true;
			if (value.type == jbvBinary)
				check_rates(row, att, value.val.binary.data);
			else if (value.type != jbvNull)
				good = false;
		}
		if (!known || !good)
			rt_row_violation(row, att,
							 psprintf(known ?
										  "The value of \"%s\" must be null, or a limit." :
										  "There is no quota \"%s\": there are monthly_tokens, "
										  "daily_requests, concurrent_sessions, monthly_cost and "
										  "rate_limits.",
									  name));
	}
}

/* BEFORE INSERT OR UPDATE FOR EACH ROW on tiers: limits are limits. */
Datum
run_tracker_tiers_before(PG_FUNCTION_ARGS)
{
	const RtTable *t = rt_trigger_check(fcinfo, RT_tiers, RT_BEFORE_ROW, "tiers_before");
	AttrNumber counts[] = {RT_ATT(t, tiers, monthly_tokens), RT_ATT(t, tiers, daily_requests),
						   RT_ATT(t, tiers, concurrent_sessions)};
	AttrNumber cost = RT_ATT(t, tiers, monthly_cost);
	AttrNumber rates = RT_ATT(t, tiers, rate_limits);
	AttrNumber name = RT_ATT(t, tiers, name);
	RtRow row;

	rt_row_begin(&row, (TriggerData *) fcinfo->context, t);
	rt_row_require(&row, name);
	rt_row_check_key(&row, name);
	for (int i = 0; i < lengthof(counts); i++)
	{
		if (!rt_row_isnull(&row, counts[i]) &&
			(DatumGetInt64(rt_row_get(&row, counts[i])) < 0 ||
			 DatumGetInt64(rt_row_get(&row, counts[i])) > MAX_LIMIT))
			rt_row_violation(&row, counts[i],
							 psprintf("The limit must be null, or from 0 to %lld.",
									  (long long) MAX_LIMIT));
	}
	if (!rt_row_isnull(&row, cost) && !is_cost(rt_row_get(&row, cost)))
		rt_row_violation(&row, cost,
						 psprintf("The limit must be null, or from 0 to %lld.",
								  (long long) MAX_LIMIT));
	if (!rt_row_isnull(&row, rates))
		check_rates(&row, rates, &DatumGetJsonbP(rt_row_get(&row, rates))->root);
	rt_row_check_size(&row);
	return rt_row_end(&row);
}

/* BEFORE INSERT OR UPDATE FOR EACH ROW on accounts: whose it is, and what it overrides. */
Datum
run_tracker_accounts_before(PG_FUNCTION_ARGS)
{
	const RtTable *t = rt_trigger_check(fcinfo, RT_accounts, RT_BEFORE_ROW, "accounts_before");
	AttrNumber user_id = RT_ATT(t, accounts, user_id);
	AttrNumber created_at = RT_ATT(t, accounts, created_at);
	AttrNumber updated_at = RT_ATT(t, accounts, updated_at);
	Datum now = TimestampTzGetDatum(GetCurrentTimestamp());
	RtRow row;

	rt_row_begin(&row, (TriggerData *) fcinfo->context, t);
	if (row.old == NULL)
	{
		char *user = rt_identity_user();

		if (user)
			rt_row_default(&row, user_id, CStringGetTextDatum(user));
		rt_row_require(&row, user_id);
		rt_row_check_key(&row, user_id);
		lock_making(row.rel, rt_row_get(&row, user_id));
		/* a restored account keeps its age */
		rt_row_default(&row, created_at, now);
		rt_row_default(&row, updated_at, rt_row_get(&row, created_at));
	}
	else
	{
		rt_row_keep(&row, user_id);
		rt_row_keep(&row, created_at);
		rt_row_keep(&row, updated_at);
		if (!rt_row_unchanged(&row))
			rt_row_set(&row, updated_at, now);
	}
	check_overrides(&row, RT_ATT(t, accounts, overrides));
	rt_row_check_json(&row, RT_ATT(t, accounts, metadata), false);
	rt_row_check_size(&row);
	return rt_row_end(&row);
}
