/*-------------------------------------------------------------------------
 *
 * usage.c
 *		What users have used: by day and month, and entry by entry.
 *
 * Finished tasks, and rows of usage_records, are usage.  Their statements append to
 * stat_deltas, as for all statistics, with the day in run_tracker.time_zone that they count
 * for; folds add that to stat_totals, per day and per month.  So what a user has used in a
 * window is one row there, and what is not folded yet; nothing is ever set back.
 *
 * Memory: everything is palloc'd in the caller's context.
 *
 *-------------------------------------------------------------------------
 */
#include "run_tracker.h"

#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "common/int.h"
#include "executor/executor.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "tcop/utility.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/datum.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/snapmgr.h"

#include "calls.h"
#include "identity.h"
#include "accounts.h"
#include "row.h"
#include "stats.h"
#include "usage.h"
#include "writer.h"

PG_FUNCTION_INFO_V1(run_tracker_usage_sums);
PG_FUNCTION_INFO_V1(run_tracker_usage_records_before);
PG_FUNCTION_INFO_V1(run_tracker_usage_records_after);
PG_FUNCTION_INFO_V1(run_tracker_record_usage);

/* ----------------------------------------------------------------
 * Windows
 * ----------------------------------------------------------------
 */

static void
local_time(TimestampTz moment, struct pg_tm *tm)
{
	fsec_t fsec;
	int tz;

	if (timestamp2tm(moment, &tz, tm, &fsec, NULL, rt_time_zone) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE), errmsg("timestamp out of range")));
}

/* When a day begins in run_tracker.time_zone. */
static TimestampTz
beginning_of(DateADT day)
{
	struct pg_tm tm = {0};
	TimestampTz result;
	int tz;

	j2date(day + POSTGRES_EPOCH_JDATE, &tm.tm_year, &tm.tm_mon, &tm.tm_mday);
	tz = DetermineTimeZoneOffset(&tm, rt_time_zone);
	if (tm2timestamp(&tm, 0, &tz, &result) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE), errmsg("timestamp out of range")));
	return result;
}

/*
 * The day of a moment in run_tracker.time_zone.  Moments of a statement are mostly of one day, so
 * the last one is remembered.
 */
DateADT
rt_usage_day(TimestampTz moment)
{
	static const pg_tz *zone = NULL;
	static TimestampTz begins_at;
	static TimestampTz ends_at;
	static DateADT day;
	struct pg_tm tm;

	if (zone == rt_time_zone && moment >= begins_at && moment < ends_at)
		return day;
	local_time(moment, &tm);
	zone = NULL;
	day = date2j(tm.tm_year, tm.tm_mon, tm.tm_mday) - POSTGRES_EPOCH_JDATE;
	/* the first and the last day have no beginning or no end */
	if (moment - MIN_TIMESTAMP < 2 * USECS_PER_DAY || END_TIMESTAMP - moment < 2 * USECS_PER_DAY)
		return day;
	begins_at = beginning_of(day);
	ends_at = beginning_of(day + 1);
	/* where clocks are set back at midnight, a day begins twice: on such days, each is computed */
	if (ends_at - begins_at == USECS_PER_DAY)
		zone = rt_time_zone;
	return day;
}

/* The day and the month of a moment. */
void
rt_usage_windows(TimestampTz moment, RtWindows *windows)
{
	struct pg_tm tm;
	int next_year;
	int next_month;

	local_time(moment, &tm);
	next_year = tm.tm_mon == MONTHS_PER_YEAR ? tm.tm_year + 1 : tm.tm_year;
	next_month = tm.tm_mon == MONTHS_PER_YEAR ? 1 : tm.tm_mon + 1;
	windows->day = date2j(tm.tm_year, tm.tm_mon, tm.tm_mday) - POSTGRES_EPOCH_JDATE;
	windows->month = date2j(tm.tm_year, tm.tm_mon, 1) - POSTGRES_EPOCH_JDATE;
	windows->next_month = date2j(next_year, next_month, 1) - POSTGRES_EPOCH_JDATE;
	windows->day_ends_at = beginning_of(windows->day + 1);
	windows->month_ends_at = beginning_of(windows->next_month);
}

/* ----------------------------------------------------------------
 * Sums
 * ----------------------------------------------------------------
 */

/* Add to a sum, which stays in range. */
static void
add(int64 *sum, int64 amount)
{
	int64 result;

	if (pg_add_s64_overflow(*sum, amount, &result))
		result = amount > 0 ? PG_INT64_MAX : PG_INT64_MIN;
	*sum = result;
}

static void
add_cost(Datum *sum, TupleTableSlot *row, AttrNumber att)
{
	bool isnull;

	*sum = DirectFunctionCall2(numeric_add, *sum, slot_getattr(row, att, &isnull));
}

/* Begin to scan an index of ours for rows with certain values in its first columns. */
static void
begin_scan(RtProbe *probe, Relation rel, const char *name, int nkeys, const AttrNumber *atts,
		   const RegProcedure *equal, const Datum *values, Snapshot snapshot)
{
	ScanKeyData keys[5];

	probe->rel = rel;
	probe->index = rt_index_open(rel, name, nkeys, atts, -1);
	for (int i = 0; i < nkeys; i++)
		ScanKeyEntryInitialize(&keys[i], 0, i + 1, BTEqualStrategyNumber, InvalidOid,
							   probe->index->rd_indcollation[i], equal[i], values[i]);
	probe->slot = table_slot_create(rel, NULL);
	probe->scan = rt_index_beginscan(rel, probe->index, snapshot, nkeys);
	index_rescan(probe->scan, keys, nkeys, NULL, 0);
}

/* What has not been folded yet. */
static void
add_deltas(Datum user_id, Snapshot snapshot, RtUsage *usage)
{
	Relation rel = table_open(rt_table(RT_stat_deltas)->relid, AccessShareLock);
	const RtTable *t = rt_table(RT_stat_deltas);
	AttrNumber atts[] = {RT_ATT(t, stat_deltas, user_id)};
	RegProcedure equal[] = {F_TEXTEQ};
	RtProbe probe;

	begin_scan(&probe, rel, "stat_deltas_usage_idx", 1, atts, equal, &user_id, snapshot);
	while (rt_probe_next(&probe, ForwardScanDirection))
	{
		bool isnull;
		Datum usage_on = slot_getattr(probe.slot, RT_ATT(t, stat_deltas, usage_on), &isnull);

		CHECK_FOR_INTERRUPTS();
		usage->deltas++;
		if (isnull || DatumGetDateADT(usage_on) < usage->windows.month ||
			DatumGetDateADT(usage_on) >= usage->windows.next_month)
			continue;
		add(&usage->month_tokens, rt_slot_int64(probe.slot, RT_ATT(t, stat_deltas, total_tokens)));
		add_cost(&usage->month_cost, probe.slot, RT_ATT(t, stat_deltas, cost));
		if (DatumGetDateADT(usage_on) == usage->windows.day)
			add(&usage->day_requests,
				rt_slot_int64(probe.slot, RT_ATT(t, stat_deltas, finished_count)));
	}
	rt_probe_end(&probe);
	table_close(rel, AccessShareLock);
}

/* What has been folded of a day or a month. */
static void
add_totals(Datum user_id, const char *period, DateADT date, Snapshot snapshot, RtUsage *usage)
{
	Relation rel = table_open(rt_table(RT_stat_totals)->relid, AccessShareLock);
	const RtTable *t = rt_table(RT_stat_totals);
	AttrNumber atts[] = {RT_ATT(t, stat_totals, grain), RT_ATT(t, stat_totals, period),
						 RT_ATT(t, stat_totals, all_users), RT_ATT(t, stat_totals, user_id),
						 RT_ATT(t, stat_totals, period_at)};
	RegProcedure equal[] = {F_TEXTEQ, F_TEXTEQ, F_BOOLEQ, F_TEXTEQ, F_TIMESTAMPTZ_EQ};
	Datum values[] = {CStringGetTextDatum("usage"), CStringGetTextDatum(period),
					  BoolGetDatum(false), user_id, TimestampTzGetDatum(date * USECS_PER_DAY)};
	RtProbe probe;

	begin_scan(&probe, rel, "stat_totals_pkey", lengthof(atts), atts, equal, values, snapshot);
	if (rt_probe_next(&probe, ForwardScanDirection))
	{
		if (period[0] == 'm')
		{
			add(&usage->month_tokens,
				rt_slot_int64(probe.slot, RT_ATT(t, stat_totals, total_tokens)));
			add_cost(&usage->month_cost, probe.slot, RT_ATT(t, stat_totals, cost));
		}
		else
			add(&usage->day_requests,
				rt_slot_int64(probe.slot, RT_ATT(t, stat_totals, finished_count)));
	}
	rt_probe_end(&probe);
	table_close(rel, AccessShareLock);
}

/* What is reserved. */
static void
add_reservations(Datum user_id, TimestampTz now, Snapshot snapshot, RtUsage *usage)
{
	Relation rel = table_open(rt_table(RT_reservations)->relid, AccessShareLock);
	const RtTable *t = rt_table(RT_reservations);
	AttrNumber atts[] = {RT_ATT(t, reservations, user_id)};
	RegProcedure equal[] = {F_TEXTEQ};
	RtProbe probe;

	begin_scan(&probe, rel, "reservations_held_idx", 1, atts, equal, &user_id, snapshot);
	while (rt_probe_next(&probe, ForwardScanDirection))
	{
		bool isnull;

		CHECK_FOR_INTERRUPTS();
		if (rt_slot_int64(probe.slot, RT_ATT(t, reservations, expires_at)) <= now)
			continue;
		add(&usage->reserved_tokens, rt_slot_int64(probe.slot, RT_ATT(t, reservations, tokens)));
		add_cost(&usage->reserved_cost, probe.slot, RT_ATT(t, reservations, cost));
		add(&usage->reserved_requests,
			DatumGetInt32(slot_getattr(probe.slot, RT_ATT(t, reservations, requests), &isnull)));
	}
	rt_probe_end(&probe);
	table_close(rel, AccessShareLock);
}

/* What a user has used of this day and month, and has reserved, as a snapshot sees it. */
void
rt_usage_read(Datum user_id, Snapshot snapshot, RtUsage *usage)
{
	TimestampTz now = GetCurrentTimestamp();

	memset(usage, 0, sizeof(RtUsage));
	rt_usage_windows(now, &usage->windows);
	usage->month_cost = usage->reserved_cost = DirectFunctionCall1(int8_numeric, Int64GetDatum(0));
	add_deltas(user_id, snapshot, usage);
	add_totals(user_id, "month", usage->windows.month, snapshot, usage);
	add_totals(user_id, "day", usage->windows.day, snapshot, usage);
	add_reservations(user_id, now, snapshot, usage);
}

/* usage_sums(user_id) → windows, what is used and reserved, and limits */
Datum
run_tracker_usage_sums(PG_FUNCTION_ARGS)
{
	Datum user_id = rt_limits_user(fcinfo, 0);
	Datum values[15];
	bool nulls[15] = {false};
	TupleDesc desc;
	RtLimits limits;
	RtUsage usage;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	rt_limits_read(user_id, &limits);
	rt_usage_read(user_id, GetActiveSnapshot(), &usage);
	values[0] = CStringGetTextDatum(limits.tier);
	values[1] = DateADTGetDatum(usage.windows.day);
	values[2] = DateADTGetDatum(usage.windows.month);
	values[3] = TimestampTzGetDatum(usage.windows.day_ends_at);
	values[4] = TimestampTzGetDatum(usage.windows.month_ends_at);
	values[5] = Int64GetDatum(usage.month_tokens);
	values[6] = usage.month_cost;
	values[7] = Int64GetDatum(usage.day_requests);
	values[8] = Int64GetDatum(usage.reserved_tokens);
	values[9] = usage.reserved_cost;
	values[10] = Int64GetDatum(usage.reserved_requests);
	values[11] = Int64GetDatum(limits.monthly_tokens);
	nulls[11] = limits.monthly_tokens < 0;
	values[12] = limits.monthly_cost;
	nulls[12] = limits.monthly_cost == (Datum) 0;
	values[13] = Int64GetDatum(limits.daily_requests);
	nulls[13] = limits.daily_requests < 0;
	values[14] = Int64GetDatum(limits.concurrent_sessions);
	nulls[14] = limits.concurrent_sessions < 0;
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}

/* ----------------------------------------------------------------
 * Triggers of usage_records
 * ----------------------------------------------------------------
 */

/* requests are few: what is more, is a mistake */
#define MAX_REQUESTS 1000000

static void
check_record(RtRow *row)
{
	const RtTable *t = row->table;
	AttrNumber names[] = {RT_ATT(t, usage_records, endpoint), RT_ATT(t, usage_records, provider),
						  RT_ATT(t, usage_records, model)};
	AttrNumber requests = RT_ATT(t, usage_records, requests);
	AttrNumber total = RT_ATT(t, usage_records, total_tokens);
	int64 sum = rt_row_amount(row, RT_ATT(t, usage_records, input_tokens)) +
				rt_row_amount(row, RT_ATT(t, usage_records, output_tokens));

	rt_row_check_names(row, names, lengthof(names));
	rt_row_default(row, RT_ATT(t, usage_records, source), CStringGetTextDatum("call"));
	rt_row_default(row, requests, Int32GetDatum(1));
	if (DatumGetInt32(rt_row_get(row, requests)) < 0 ||
		DatumGetInt32(rt_row_get(row, requests)) > MAX_REQUESTS)
		rt_row_violation(row, requests, psprintf("It must be from 0 to %d.", MAX_REQUESTS));
	rt_row_default(row, total, Int64GetDatum(sum));
	(void) rt_row_amount(row, total);
	rt_row_default(row, RT_ATT(t, usage_records, cost),
				   DirectFunctionCall1(int8_numeric, Int64GetDatum(0)));
	rt_row_check_cost(row, RT_ATT(t, usage_records, cost));
	rt_row_check_json(row, RT_ATT(t, usage_records, metadata), false);
	rt_row_check_size(row);
}

/* BEFORE INSERT OR UPDATE FOR EACH ROW on usage_records */
Datum
run_tracker_usage_records_before(PG_FUNCTION_ARGS)
{
	const RtTable *t =
		rt_trigger_check(fcinfo, RT_usage_records, RT_BEFORE_ROW, "usage_records_before");
	AttrNumber user_id = RT_ATT(t, usage_records, user_id);
	AttrNumber used_at = RT_ATT(t, usage_records, used_at);
	RtRow row;

	rt_row_begin(&row, (TriggerData *) fcinfo->context, t);
	if (row.old == NULL)
	{
		char *user = rt_identity_user();

		if (user)
			rt_row_default(&row, user_id, CStringGetTextDatum(user));
		rt_row_require(&row, user_id);
		rt_row_check_key(&row, user_id);
		rt_row_default_id(&row, RT_ATT(t, usage_records, usage_id));
		rt_row_default(&row, used_at, TimestampTzGetDatum(GetCurrentTimestamp()));
		if (TIMESTAMP_NOT_FINITE(DatumGetTimestampTz(rt_row_get(&row, used_at))))
			rt_row_violation(&row, used_at, "It must be finite.");
	}
	else
	{
		rt_row_keep(&row, RT_ATT(t, usage_records, usage_id));
		rt_row_keep(&row, user_id);
		rt_row_keep(&row, used_at);
	}
	check_record(&row);
	return rt_row_end(&row);
}

/* AFTER INSERT OR UPDATE FOR EACH STATEMENT on usage_records: what was used, or corrected. */
Datum
run_tracker_usage_records_after(PG_FUNCTION_ARGS)
{
	const RtTable *t =
		rt_trigger_check(fcinfo, RT_usage_records, RT_AFTER_STATEMENT, "usage_records_after");
	RtStats *stats = rt_stats_begin();
	RtChanges changes;

	rt_changes_begin(&changes, (TriggerData *) fcinfo->context);
	while (rt_changes_next(&changes))
		rt_stats_change_usage(stats, &changes, t);
	rt_changes_end(&changes);
	rt_stats_end(stats);
	return PointerGetDatum(NULL);
}

/* ----------------------------------------------------------------
 * Tasks that are retried
 * ----------------------------------------------------------------
 */

/* Copy a column of a task to one of an entry. */
static void
keep(RtWriter *writer, AttrNumber to, TupleTableSlot *task, AttrNumber from)
{
	bool isnull;
	Datum value = slot_getattr(task, from, &isnull);

	rt_writer_set(writer, to, value, isnull);
}

/*
 * A task that is retried loses its tokens and cost; they were used all the same, and have been
 * counted.  So an entry is written for them, which counts nothing.
 */
void
rt_retries_note(RtRetries *retries, const RtChanges *changes, const RtTable *t)
{
	RtWriter *writer = &retries->writer;
	AttrNumber usage_at = RT_ATT(t, tasks, usage_at);
	TupleTableSlot *task = changes->old;
	const RtTable *u;
	pg_uuid_t id;
	bool isnull;
	Datum value;

	if (changes->old == NULL || changes->new == NULL)
		return;
	value = slot_getattr(task, usage_at, &isnull);
	if (isnull)
		return;
	(void) slot_getattr(changes->new, usage_at, &isnull);
	if (!isnull)
		return;
	if (!retries->open)
		rt_writer_open(writer, RT_usage_records);
	retries->open = true;
	u = writer->table;
	rt_writer_blank(writer);
	rt_uuid_generate(&id);
	rt_writer_set(writer, RT_ATT(u, usage_records, usage_id), UUIDPGetDatum(&id), false);
	rt_writer_set(writer, RT_ATT(u, usage_records, source), CStringGetTextDatum("retry"), false);
	rt_writer_set(writer, RT_ATT(u, usage_records, requests), Int32GetDatum(1), false);
	rt_writer_set(writer, RT_ATT(u, usage_records, used_at), value, false);
	keep(writer, RT_ATT(u, usage_records, user_id), task, RT_ATT(t, tasks, user_id));
	keep(writer, RT_ATT(u, usage_records, run_id), task, RT_ATT(t, tasks, run_id));
	keep(writer, RT_ATT(u, usage_records, task_id), task, RT_ATT(t, tasks, task_id));
	keep(writer, RT_ATT(u, usage_records, reservation_id), task, RT_ATT(t, tasks, reservation_id));
	keep(writer, RT_ATT(u, usage_records, endpoint), task, RT_ATT(t, tasks, operation));
	keep(writer, RT_ATT(u, usage_records, provider), task, RT_ATT(t, tasks, provider));
	keep(writer, RT_ATT(u, usage_records, model), task, RT_ATT(t, tasks, model));
	keep(writer, RT_ATT(u, usage_records, input_tokens), task, RT_ATT(t, tasks, input_tokens));
	keep(writer, RT_ATT(u, usage_records, output_tokens), task, RT_ATT(t, tasks, output_tokens));
	keep(writer, RT_ATT(u, usage_records, total_tokens), task, RT_ATT(t, tasks, total_tokens));
	keep(writer, RT_ATT(u, usage_records, cost), task, RT_ATT(t, tasks, cost));
	if (writer->slot->tts_isnull[RT_ATT(u, usage_records, total_tokens) - 1])
		rt_writer_set(writer, RT_ATT(u, usage_records, total_tokens), Int64GetDatum(0), false);
	if (writer->slot->tts_isnull[RT_ATT(u, usage_records, cost) - 1])
		rt_writer_set(writer, RT_ATT(u, usage_records, cost),
					  DirectFunctionCall1(int8_numeric, Int64GetDatum(0)), false);
	rt_writer_insert(writer);
}

/* The end of the statement. */
void
rt_retries_end(RtRetries *retries)
{
	if (retries->open)
		rt_writer_close(&retries->writer);
}

/* ----------------------------------------------------------------
 * Recording usage
 * ----------------------------------------------------------------
 */

/* An entry of that id is there already: of this user, or else 23505. */
static void
check_recorded(const NullableDatum *args)
{
	static RtPlan find = {"SELECT 1 FROM run_tracker.usage_records "
						  "WHERE user_id = $1 AND usage_id = $13",
						  13,
						  {TEXTOID, INT8OID, NUMERICOID, INT4OID, INT8OID, INT8OID, TEXTOID,
						   TEXTOID, TEXTOID, UUIDOID, UUIDOID, JSONBOID, UUIDOID}};

	rt_plan_execute(&find, args, SPI_OK_SELECT, false);
	if (SPI_processed == 0)
		ereport(ERROR, (errcode(ERRCODE_UNIQUE_VIOLATION), errmsg("usage id is taken"),
						errdetail("There is another entry %s.", rt_uuid_string(args[12].value))));
}

/*
 * record_usage(user_id, tokens, cost, requests, input_tokens, output_tokens, provider, model,
 * endpoint, session_id, run_id, metadata, usage_id) → usage_id
 */
Datum
run_tracker_record_usage(PG_FUNCTION_ARGS)
{
	static RtPlan plan =
		{"INSERT INTO run_tracker.usage_records (user_id, total_tokens, cost, requests, input_tokens, "
		 "output_tokens, provider, model, endpoint, session_id, run_id, metadata, usage_id) "
		 "VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13) "
		 "ON CONFLICT (usage_id) DO NOTHING",
		 13,
		 {TEXTOID, INT8OID, NUMERICOID, INT4OID, INT8OID, INT8OID, TEXTOID, TEXTOID, TEXTOID,
		  UUIDOID, UUIDOID, JSONBOID, UUIDOID}};
	NullableDatum args[13];
	pg_uuid_t *id;

	PreventCommandIfReadOnly("record_usage()");
	(void) rt_table(RT_usage_records);
	memcpy(args, fcinfo->args, sizeof(args));
	args[0].value = rt_limits_user(fcinfo, 0);
	args[0].isnull = false;
	if (args[3].isnull)
		args[3].value = Int32GetDatum(1);
	args[3].isnull = false;
	if (args[12].isnull)
	{
		id = palloc(sizeof(pg_uuid_t));
		rt_uuid_generate(id);
		args[12].value = UUIDPGetDatum(id);
		args[12].isnull = false;
	}
	SPI_connect();
	rt_plan_execute(&plan, args, SPI_OK_INSERT, false);
	if (SPI_processed == 0)
		check_recorded(args);
	SPI_finish();
	PG_RETURN_DATUM(args[12].value);
}
