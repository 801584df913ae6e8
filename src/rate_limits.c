/*-------------------------------------------------------------------------
 *
 * rate_limits.c
 *		How often users may call what: counts within sliding windows.
 *
 * A sliding window, not a token bucket: then there are never more calls than the limit in
 * any window of that length, which is what providers of models count, and "current" is a
 * number that a user understands.  A bucket that was full lets almost twice as many through.
 *
 * The limits in force are read from the tables with each call; what was used is in shared
 * memory (limit_state.c), and looked at and changed in one step under the lock of its entry.
 * So N callers at a time get exactly the limit, nobody waits for a transaction, and a
 * rollback gives nothing back.
 *
 *-------------------------------------------------------------------------
 */
#include "run_tracker.h"

#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"

#include "calls.h"
#include "identity.h"
#include "limit_state.h"
#include "accounts.h"

PG_FUNCTION_INFO_V1(run_tracker_consume_rate_limit);
PG_FUNCTION_INFO_V1(run_tracker_consume_rate_limit_or_fail);
PG_FUNCTION_INFO_V1(run_tracker_reset_rate_limit);
PG_FUNCTION_INFO_V1(run_tracker_rate_limit_state);

/* all endpoints that have no limit of their own */
#define ANY_ENDPOINT "*"

/* A user has counts for so many endpoints; further ones without a limit of their own share one. */
#define MAX_ENDPOINTS 1000

/* What became of a call that is limited. */
typedef struct Answer
{
	bool allowed;
	int64 current;
	int64 reset_us; /* from now; -1: never */
} Answer;

/* The entry of a key, locked; NULL if there is none, and nothing is to be consumed. */
static RtLimitEntry *
enter(RtLimitKey *key, bool shared, int32 cost)
{
	RtLimitEntry *entry;

	if (cost == 0)
		entry = rt_limit_enter(key, LW_EXCLUSIVE);
	else
		entry = rt_limit_create(key, shared ? MAX_ENDPOINTS : 0);
	if (entry == NULL && cost > 0)
	{
		key->name = ANY_ENDPOINT;
		key->name_len = strlen(ANY_ENDPOINT);
		entry = rt_limit_create(key, 0);
	}
	return entry;
}

/* Consume, if the limit allows it.  A cost of 0 asks what a cost of 1 would get. */
static void
consume(RtLimitKey *key, const RtRate *rate, bool shared, int32 cost, Answer *answer)
{
	int64 weight = Max(cost, 1);
	RtLimitEntry *entry = enter(key, shared, cost);
	RtRateUse *use;
	int64 now;

	if (entry == NULL)
	{
		answer->current = 0;
		answer->allowed = weight <= rate->limit;
		answer->reset_us = answer->allowed ? 0 : -1;
		return;
	}
	use = &entry->body.rate;
	now = rt_window_now(); /* under the lock, so it does not go back */
	rt_window_advance(&use->used, rate->window_us, now);
	use->limit = rate->limit;
	use->window_us = rate->window_us;
	answer->allowed = weight <= rate->limit - use->used.sum;
	if (answer->allowed)
		rt_window_add(&use->used, cost);
	answer->current = use->used.sum;
	if (!answer->allowed && weight > rate->limit)
		answer->reset_us = -1;
	else if (answer->current == 0)
		answer->reset_us = 0;
	else
	{
		int64 amount = answer->allowed ? answer->current : answer->current + weight - rate->limit;

		answer->reset_us = rt_window_free_at(&use->used, amount) - now;
	}
	rt_limit_leave();
}

/* Let a key be that of an endpoint; 22023 if it is none. */
static void
set_endpoint(RtLimitKey *key, text *endpoint)
{
	(void) rt_call_check_name(endpoint, "endpoint");
	key->name = VARDATA_ANY(endpoint);
	key->name_len = VARSIZE_ANY_EXHDR(endpoint);
}

/* The milliseconds that a time takes at most. */
static int64
to_ms(int64 us)
{
	return (us + 999) / 1000;
}

/* RT005 for a call that was refused. */
static void
refuse(const RtLimitKey *key, const RtRate *rate, int32 cost, const Answer *answer)
{
	if (answer->reset_us < 0)
		ereport(ERROR,
				(errcode(ERRCODE_RT_RATE_LIMIT), errmsg("rate limit exceeded"),
				 errdetail("Endpoint \"%.*s\": current %lld, limit %lld, cost %d; never allowed.",
						   (int) key->name_len, key->name, (long long) answer->current,
						   (long long) rate->limit, Max(cost, 1)),
				 errhint("One call may not cost more than the limit.")));
	ereport(ERROR, (errcode(ERRCODE_RT_RATE_LIMIT), errmsg("rate limit exceeded"),
					errdetail("Endpoint \"%.*s\": current %lld, limit %lld, reset in %lld ms.",
							  (int) key->name_len, key->name, (long long) answer->current,
							  (long long) rate->limit, (long long) to_ms(answer->reset_us)),
					errhint("Try again then.")));
}

/* The work of consume_rate_limit() and consume_rate_limit_or_fail(). */
static void
consume_rate_limit(FunctionCallInfo fcinfo, bool or_fail)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	Datum values[6] = {0};
	bool nulls[6] = {false, true, true, true, true, true};
	Answer answer = {true};
	RtLimitKey key = {RT_LIMIT_RATE};
	RtLimits limits;
	RtRate rate;
	bool shared;
	text *user;
	int32 cost;

	rt_call_require(fcinfo, 0, "endpoint");
	rt_call_require(fcinfo, 1, "cost");
	set_endpoint(&key, PG_GETARG_TEXT_PP(0));
	cost = PG_GETARG_INT32(1);
	if (cost < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"cost\" must not be negative"), errdetail("It is %d.", cost)));
	user = DatumGetTextPP(rt_limits_user(fcinfo, 2));
	key.owner = VARDATA_ANY(user);
	key.owner_len = VARSIZE_ANY_EXHDR(user);

	rt_limits_read(PointerGetDatum(user), &limits);
	if (rt_limits_rate(&limits, key.name, key.name_len, &rate, &shared))
	{
		consume(&key, &rate, shared, cost, &answer);
		if (or_fail && !answer.allowed)
			refuse(&key, &rate, cost, &answer);
		values[1] = Int64GetDatum(answer.current);
		values[2] = Int64GetDatum(rate.limit);
		values[3] = Int64GetDatum(Max(rate.limit - answer.current, 0));
		values[4] = TimestampTzGetDatum(GetCurrentTimestamp() + answer.reset_us);
		values[5] = Int64GetDatum(to_ms(answer.reset_us));
		memset(nulls, false, sizeof(nulls));
		nulls[4] = nulls[5] = answer.reset_us < 0;
	}
	values[0] = BoolGetDatum(answer.allowed);
	InitMaterializedSRF(fcinfo, 0);
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

/* consume_rate_limit(endpoint, cost, user_id) → one row */
Datum
run_tracker_consume_rate_limit(PG_FUNCTION_ARGS)
{
	consume_rate_limit(fcinfo, false);
	return (Datum) 0;
}

/* consume_rate_limit_or_fail(endpoint, cost, user_id) → the same row, or RT005 */
Datum
run_tracker_consume_rate_limit_or_fail(PG_FUNCTION_ARGS)
{
	consume_rate_limit(fcinfo, true);
	return (Datum) 0;
}

/* reset_rate_limit(user_id, endpoint) → how many counts were forgotten */
Datum
run_tracker_reset_rate_limit(PG_FUNCTION_ARGS)
{
	RtLimitKey key = {RT_LIMIT_RATE};
	text *user;

	rt_call_require(fcinfo, 0, "user_id");
	user = DatumGetTextPP(rt_limits_user(fcinfo, 0));
	key.owner = VARDATA_ANY(user);
	key.owner_len = VARSIZE_ANY_EXHDR(user);
	if (!PG_ARGISNULL(1))
		set_endpoint(&key, PG_GETARG_TEXT_PP(1));
	PG_RETURN_INT64(rt_limit_remove(&key, PG_ARGISNULL(1)));
}

/* A row of rate_limit_state(). */
static void
put_rate(ReturnSetInfo *rsinfo, RtLimitEntry *entry, int64 now)
{
	RtRateUse *use = &entry->body.rate;
	Interval window = {.time = use->window_us};
	Datum values[7];
	bool nulls[7] = {0};
	TimestampTz reset_at;

	reset_at = GetCurrentTimestamp() + rt_window_free_at(&use->used, use->used.sum) - now;
	values[0] = PointerGetDatum(cstring_to_text_with_len(rt_limit_owner(entry), entry->owner_len));
	values[1] = PointerGetDatum(cstring_to_text_with_len(rt_limit_name(entry), entry->name_len));
	values[2] = Int64GetDatum(use->used.sum);
	values[3] = Int64GetDatum(use->limit);
	values[4] = Int64GetDatum(Max(use->limit - use->used.sum, 0));
	values[5] = TimestampTzGetDatum(reset_at);
	values[6] = DirectFunctionCall1(interval_justify_hours, IntervalPGetDatum(&window));
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

/* rate_limit_state() → what was used: by all users for services, by the caller for others */
Datum
run_tracker_rate_limit_state(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	bool service = rt_identity_is_service();
	char *user = service ? NULL : rt_identity_user();
	RtLimitKey key = {RT_LIMIT_RATE};
	MemoryContext context;
	int first;
	int count;

	InitMaterializedSRF(fcinfo, 0);
	if (!service && user == NULL)
		return (Datum) 0;
	key.owner = user;
	key.owner_len = user ? strlen(user) : 0;
	count = rt_limit_partitions(service ? NULL : &key, &first);
	context = AllocSetContextCreate(CurrentMemoryContext, "run_tracker rate limits",
									ALLOCSET_DEFAULT_SIZES);
	for (int i = first; i < first + count; i++)
	{
		MemoryContext old = MemoryContextSwitchTo(context);
		ListCell *lc;

		CHECK_FOR_INTERRUPTS();
		foreach(lc, rt_limit_list(RT_LIMIT_RATE, i, service ? NULL : &key))
		{
			RtLimitEntry *entry = lfirst(lc);
			int64 now = rt_window_now();

			rt_window_advance(&entry->body.rate.used, entry->body.rate.window_us, now);
			if (entry->body.rate.used.sum > 0)
				put_rate(rsinfo, entry, now);
		}
		MemoryContextSwitchTo(old);
		MemoryContextReset(context);
	}
	MemoryContextDelete(context);
	return (Datum) 0;
}
