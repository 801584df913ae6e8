/*-------------------------------------------------------------------------
 *
 * breakers.c
 *		Circuit breakers: calls that are known to fail are not made.
 *
 * A breaker is closed until too many calls have failed within its window; then it is open,
 * and nobody may call.  After reset_after it is half open: one caller, the probe, may.  If
 * that succeeds the breaker is closed, with nothing in its window; if not, it is open again.
 * A probe that is not heard of within reset_after is given up, and another one let through.
 *
 * Nobody says which call a result belongs to: a call may be recorded by another connection
 * than asked for it.  So results count by when they arrive:
 *	closed:		each counts.
 *	open:		it can only be that of a call from before the opening, and changes nothing but
 *				the last error.
 *	half open:	the first one decides, also if it is that of an earlier call: as to whether
 *				calls succeed now, it is as good as the probe's.
 *
 * The state is in shared memory (limit_state.c), the settings in the table breakers.  They are
 * read before the entry is locked.  Nothing is held while the protected call runs, and nothing
 * is remembered per connection.  A closed breaker without calls in its window has no entry.
 *
 *-------------------------------------------------------------------------
 */
#include "run_tracker.h"

#include "access/table.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/snapmgr.h"

#include "calls.h"
#include "identity.h"
#include "limit_state.h"
#include "writer.h"

PG_FUNCTION_INFO_V1(run_tracker_breaker_allow);
PG_FUNCTION_INFO_V1(run_tracker_breaker_allow_or_fail);
PG_FUNCTION_INFO_V1(run_tracker_breaker_record);
PG_FUNCTION_INFO_V1(run_tracker_reset_breaker);
PG_FUNCTION_INFO_V1(run_tracker_breaker_state);

static const char *const state_names[] = {"closed", "open", "half_open"};

typedef struct Settings
{
	int32 failure_threshold; /* 0: none */
	double failure_rate;	 /* 0: none */
	int32 minimum_calls;
	int64 window_us;
	int64 reset_after_us;
} Settings;

/* What breaker_allow() says, and if no, what for. */
typedef struct Answer
{
	bool allowed;
	bool probing;	/* somebody else is */
	int64 probe_us; /* until the next probe */
} Answer;

/* The key of a breaker that argument 0 names; 22023 for a bad name. */
static RtLimitKey
breaker_key(FunctionCallInfo fcinfo)
{
	RtLimitKey key = {RT_LIMIT_BREAKER};
	text *name;

	rt_call_require(fcinfo, 0, "name");
	name = rt_call_check_name(PG_GETARG_TEXT_PP(0), "name");
	key.owner = VARDATA_ANY(name);
	key.owner_len = VARSIZE_ANY_EXHDR(name);
	key.name = "";
	return key;
}

/* Read the settings of a breaker as they are now: the defaults of the table if it has no row. */
static void
read_settings(Datum name, Settings *settings)
{
	const RtTable *table = rt_table(RT_breakers);
	Relation rel = table_open(table->relid, AccessShareLock);
	Snapshot snapshot = rt_latest_snapshot();
	RtProbe probe;

	*settings = (Settings){5, 0, 10, 60 * USECS_PER_SEC, 60 * USECS_PER_SEC};
	rt_probe_begin_name(&probe, rel, name, snapshot);
	if (rt_probe_next(&probe, ForwardScanDirection))
	{
		Datum rate = rt_slot_value(probe.slot, RT_ATT(table, breakers, failure_rate));

		settings->failure_threshold =
			DatumGetInt32(rt_slot_value(probe.slot, RT_ATT(table, breakers, failure_threshold)));
		if (rate != (Datum) 0)
			settings->failure_rate = DatumGetFloat8(DirectFunctionCall1(numeric_float8, rate));
		settings->minimum_calls =
			DatumGetInt32(rt_slot_value(probe.slot, RT_ATT(table, breakers, minimum_calls)));
		settings->window_us = rt_interval_us(
			DatumGetIntervalP(rt_slot_value(probe.slot, RT_ATT(table, breakers, window))));
		settings->reset_after_us = rt_interval_us(
			DatumGetIntervalP(rt_slot_value(probe.slot, RT_ATT(table, breakers, reset_after))));
	}
	rt_probe_end(&probe);
	UnregisterSnapshot(snapshot);
	table_close(rel, NoLock);
}

/* May a call be made now?  Becomes the probe if it is time for one. */
static void
allow(const RtLimitKey *key, Datum name, Answer *answer)
{
	RtLimitEntry *entry = rt_limit_enter(key, LW_SHARED);
	RtBreaker *breaker;
	Settings settings;

	*answer = (Answer){true};
	if (entry == NULL)
		return;
	answer->allowed = entry->body.breaker.state == RT_BREAKER_CLOSED;
	rt_limit_leave();
	if (answer->allowed)
		return;

	/* settings are read without the lock; then it may have changed */
	read_settings(name, &settings);
	entry = rt_limit_enter(key, LW_EXCLUSIVE);
	answer->allowed = entry == NULL || entry->body.breaker.state == RT_BREAKER_CLOSED;
	if (entry == NULL)
		return;
	breaker = &entry->body.breaker;
	if (!answer->allowed)
	{
		int64 now = rt_window_now();

		answer->probing = breaker->state == RT_BREAKER_HALF_OPEN;
		answer->probe_us = breaker->since + settings.reset_after_us - now;
		if (answer->probe_us <= 0)
		{
			breaker->state = RT_BREAKER_HALF_OPEN;
			breaker->since = now;
			answer->allowed = true;
		}
	}
	rt_limit_leave();
}

/* breaker_allow(name) → boolean */
Datum
run_tracker_breaker_allow(PG_FUNCTION_ARGS)
{
	RtLimitKey key = breaker_key(fcinfo);
	Answer answer;

	allow(&key, PG_GETARG_DATUM(0), &answer);
	PG_RETURN_BOOL(answer.allowed);
}

/* breaker_allow_or_fail(name) → true, or RT006 */
Datum
run_tracker_breaker_allow_or_fail(PG_FUNCTION_ARGS)
{
	RtLimitKey key = breaker_key(fcinfo);
	Answer answer;

	allow(&key, PG_GETARG_DATUM(0), &answer);
	if (!answer.allowed)
		ereport(ERROR,
				(errcode(ERRCODE_RT_CIRCUIT_OPEN), errmsg("circuit is open"),
				 errdetail("Breaker \"%.*s\" is %s, next probe in %lld ms.", (int) key.owner_len,
						   key.owner, answer.probing ? "half open" : "open",
						   (long long) (answer.probe_us + 999) / 1000),
				 errhint(answer.probing ? "A call is under way that may close it; try again then." :
										  "The calls that it protects have failed; try again "
										  "then.")));
	PG_RETURN_BOOL(true);
}

/* Open a breaker. */
static void
open_breaker(RtBreaker *breaker, int64 now)
{
	breaker->state = RT_BREAKER_OPEN;
	breaker->since = now;
	breaker->opened_at = GetCurrentTimestamp();
}

/* Count a result of a closed breaker, and open it if that is one too many. */
static void
count_result(RtBreaker *breaker, const Settings *settings, bool ok, int64 now)
{
	int64 calls;
	int64 failures;

	rt_window_advance(&breaker->calls, settings->window_us, now);
	rt_window_advance(&breaker->failures, settings->window_us, now);
	rt_window_add(&breaker->calls, 1);
	rt_window_add(&breaker->failures, ok ? 0 : 1);
	calls = breaker->calls.sum;
	failures = breaker->failures.sum;
	if ((settings->failure_threshold > 0 && failures >= settings->failure_threshold) ||
		/* both sides are rounded from the same fraction if they are equal */
		(settings->failure_rate > 0 && calls >= settings->minimum_calls &&
		 (double) failures / calls >= settings->failure_rate))
		open_breaker(breaker, now);
}

/* Record what came of a call; returns the state then. */
static RtBreakerState
record(const RtLimitKey *key, const Settings *settings, bool ok, const char *error, int error_len)
{
	RtBreaker *breaker = &rt_limit_create(key, 0)->body.breaker;
	int64 now = rt_window_now();
	RtBreakerState state;

	if (!ok)
	{
		memcpy(breaker->last_error, error, error_len);
		breaker->last_error[error_len] = '\0';
		breaker->last_error_at = GetCurrentTimestamp();
	}
	if (breaker->state == RT_BREAKER_CLOSED)
		count_result(breaker, settings, ok, now);
	else if (breaker->state == RT_BREAKER_HALF_OPEN && ok)
	{
		breaker->state = RT_BREAKER_CLOSED;
		memset(&breaker->calls, 0, sizeof(RtWindow));
		memset(&breaker->failures, 0, sizeof(RtWindow));
	}
	else if (breaker->state == RT_BREAKER_HALF_OPEN)
		open_breaker(breaker, now);
	state = breaker->state;
	rt_limit_leave();
	return state;
}

/* breaker_record(name, ok, error) → the state then */
Datum
run_tracker_breaker_record(PG_FUNCTION_ARGS)
{
	RtLimitKey key = breaker_key(fcinfo);
	const char *error = "";
	Settings settings;
	int len = 0;
	bool ok;

	rt_call_require(fcinfo, 1, "ok");
	ok = PG_GETARG_BOOL(1);
	if (!ok && !PG_ARGISNULL(2))
	{
		text *t = PG_GETARG_TEXT_PP(2);

		error = VARDATA_ANY(t);
		len = pg_mbcliplen(error, VARSIZE_ANY_EXHDR(t), RT_MAX_LIMIT_ERROR);
	}
	read_settings(PG_GETARG_DATUM(0), &settings);
	PG_RETURN_TEXT_P(cstring_to_text(state_names[record(&key, &settings, ok, error, len)]));
}

/* reset_breaker(name) → was there anything to forget? */
Datum
run_tracker_reset_breaker(PG_FUNCTION_ARGS)
{
	RtLimitKey key = breaker_key(fcinfo);

	PG_RETURN_BOOL(rt_limit_remove(&key, true) > 0);
}

/* A row of breaker_state(). */
static void
put_breaker(ReturnSetInfo *rsinfo, RtLimitEntry *entry, bool service)
{
	RtBreaker *breaker = &entry->body.breaker;
	int64 now = rt_window_now();
	Interval since = {0};
	Datum values[8];
	bool nulls[8] = {0};
	int c = 0;

	/* calls that it has never counted have no slices */
	if (breaker->calls.slice_us > 0)
	{
		int64 length = breaker->calls.slice_us * RT_WINDOW_SLICES;

		rt_window_advance(&breaker->calls, length, now);
		rt_window_advance(&breaker->failures, length, now);
	}
	since.time = now - breaker->since;
	values[c++] =
		PointerGetDatum(cstring_to_text_with_len(rt_limit_owner(entry), entry->owner_len));
	values[c++] = CStringGetTextDatum(state_names[breaker->state]);
	values[c++] = Int64GetDatum(breaker->failures.sum);
	values[c++] = Int64GetDatum(breaker->calls.sum);
	nulls[c] = breaker->opened_at == 0;
	values[c++] = TimestampTzGetDatum(breaker->opened_at);
	nulls[c] = breaker->state == RT_BREAKER_CLOSED;
	values[c++] = IntervalPGetDatum(&since);
	nulls[c] = !service || breaker->last_error[0] == '\0';
	values[c++] = CStringGetTextDatum(breaker->last_error);
	nulls[c] = breaker->last_error_at == 0;
	values[c++] = TimestampTzGetDatum(breaker->last_error_at);
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

/* breaker_state() → the breakers of this database that have something to tell */
Datum
run_tracker_breaker_state(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	bool service = rt_identity_is_service();
	int first;
	int count = rt_limit_partitions(NULL, &first);

	InitMaterializedSRF(fcinfo, 0);
	for (int i = first; i < first + count; i++)
	{
		ListCell *lc;

		CHECK_FOR_INTERRUPTS();
		foreach(lc, rt_limit_list(RT_LIMIT_BREAKER, i, NULL))
			put_breaker(rsinfo, lfirst(lc), service);
	}
	return (Datum) 0;
}
