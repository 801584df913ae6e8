/*-------------------------------------------------------------------------
 *
 * stats_fold.c
 *		Folding of stat_deltas into stat_totals.
 *
 * stat_totals has the sums in the ways in which they are read: by kind of runs, by
 * workflow, by user, by model; per user and over all users; of all time, per day and per
 * hour.
 * So reading them costs the same however long the history is.
 *
 * Locking protocol: one fold at a time, under an advisory lock.  Nobody else changes
 * stat_totals, or deletes from stat_deltas.
 *
 * Memory: the sums of some thousand deltas at a time, in a context of their own.
 *
 *-------------------------------------------------------------------------
 */
#include "run_tracker.h"

#include "access/stratnum.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "tcop/utility.h"
#include "storage/lock.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "identity.h"
#include "stats.h"
#include "writer.h"

PG_FUNCTION_INFO_V1(run_tracker_fold_statistics);

/* fields of the advisory lock: another class than that of sequence.c, whose fields users can choose
 */
#define RT_LOCK_CLASS 0x5255
#define RT_LOCK_FOLD  1

/*
 * Deltas that are summed up before their sums are written: few at first, then twice as many
 * each time.  So none of these turns takes much longer than all before it.
 */
#define FIRST_CHUNK 100
#define CHUNK		4000

/* The columns that a row's key consists of, in the order of the primary key. */
#define NKEYS 12

/* ----------------------------------------------------------------
 * From deltas to sums
 * ----------------------------------------------------------------
 */

/* A delta, in the memory of its row. */
typedef struct Delta
{
	RtStatKey key;
	DateADT usage_on;
	int64 counts[RT_NSTATCOUNTERS];
	Datum cost;
	Datum durations; /* 0: none */
	Datum first_tokens;
} Delta;

static int64
get_int64(TupleTableSlot *row, AttrNumber att)
{
	bool isnull;

	return DatumGetInt64(slot_getattr(row, att, &isnull));
}

static void
get_name(RtStatKey *key, RtStatName name, TupleTableSlot *row, AttrNumber att)
{
	bool isnull;
	text *value = DatumGetTextPP(slot_getattr(row, att, &isnull));

	key->names[name] = VARDATA_ANY(value);
	key->lens[name] = VARSIZE_ANY_EXHDR(value);
}

static Datum
get_array(TupleTableSlot *row, AttrNumber att)
{
	bool isnull;
	Datum value = slot_getattr(row, att, &isnull);

	return isnull ? (Datum) 0 : value;
}

static void
decode_delta(Delta *delta, TupleTableSlot *row, const RtTable *t)
{
	Datum usage_on;
	bool isnull;

	memset(delta, 0, sizeof(Delta));
	rt_stat_name(&delta->key, RT_STAT_PERIOD, NULL);
	get_name(&delta->key, RT_STAT_SOURCE, row, RT_ATT(t, stat_deltas, source));
	get_name(&delta->key, RT_STAT_USER_ID, row, RT_ATT(t, stat_deltas, user_id));
	get_name(&delta->key, RT_STAT_KIND, row, RT_ATT(t, stat_deltas, kind));
	get_name(&delta->key, RT_STAT_WORKFLOW_ID, row, RT_ATT(t, stat_deltas, workflow_id));
	get_name(&delta->key, RT_STAT_MODE, row, RT_ATT(t, stat_deltas, mode));
	get_name(&delta->key, RT_STAT_PROVIDER, row, RT_ATT(t, stat_deltas, provider));
	get_name(&delta->key, RT_STAT_MODEL, row, RT_ATT(t, stat_deltas, model));
	get_name(&delta->key, RT_STAT_OPERATION, row, RT_ATT(t, stat_deltas, operation));
	get_name(&delta->key, RT_STAT_PHASE, row, RT_ATT(t, stat_deltas, phase));
	delta->key.period_at = get_int64(row, RT_ATT(t, stat_deltas, period_at));
	usage_on = slot_getattr(row, RT_ATT(t, stat_deltas, usage_on), &isnull);
	delta->usage_on = isnull ? DATEVAL_NOBEGIN : DatumGetDateADT(usage_on);
	delta->key.usage_on = DATEVAL_NOBEGIN;
	delta->counts[RT_STAT_CREATED] = get_int64(row, RT_ATT(t, stat_deltas, created_count));
	delta->counts[RT_STAT_FINISHED] = get_int64(row, RT_ATT(t, stat_deltas, finished_count));
	delta->counts[RT_STAT_INPUT_TOKENS] = get_int64(row, RT_ATT(t, stat_deltas, input_tokens));
	delta->counts[RT_STAT_OUTPUT_TOKENS] = get_int64(row, RT_ATT(t, stat_deltas, output_tokens));
	delta->counts[RT_STAT_TOTAL_TOKENS] = get_int64(row, RT_ATT(t, stat_deltas, total_tokens));
	delta->counts[RT_STAT_DURATION_MS] = get_int64(row, RT_ATT(t, stat_deltas, duration_ms));
	delta->counts[RT_STAT_FIRST_TOKEN_MS] = get_int64(row, RT_ATT(t, stat_deltas, first_token_ms));
	delta->cost = slot_getattr(row, RT_ATT(t, stat_deltas, cost), &isnull);
	delta->durations = get_array(row, RT_ATT(t, stat_deltas, durations));
	delta->first_tokens = get_array(row, RT_ATT(t, stat_deltas, first_tokens));
}

static bool
name_is(const RtStatKey *key, RtStatName name, const char *value)
{
	return key->lens[name] == (int) strlen(value) &&
		   memcmp(key->names[name], value, key->lens[name]) == 0;
}

/* Whose sums there are */
#define OF_USER 1
#define OF_ALL	2

/* Add a delta to the sum of a key: for the user, for all users, or both. */
static void
add_to(RtStats *stats, RtStatKey key, const Delta *delta, int whose)
{
	for (int all_users = 0; all_users <= 1; all_users++)
	{
		MemoryContext old;
		RtStat *stat;

		if ((whose & (all_users ? OF_ALL : OF_USER)) == 0)
			continue;
		key.all_users = all_users;
		if (all_users)
			rt_stat_name(&key, RT_STAT_USER_ID, NULL);
		stat = rt_stats_get(stats, &key);
		for (int i = 0; i < RT_NSTATCOUNTERS; i++)
			rt_stat_count(stat, i, delta->counts[i]);
		rt_stat_cost(stats, stat, delta->cost, 1);
		old = MemoryContextSwitchTo(stats->context);
		if (delta->durations != (Datum) 0)
			rt_histogram_merge(&stat->durations, delta->durations);
		if (delta->first_tokens != (Datum) 0)
			rt_histogram_merge(&stat->first_tokens, delta->first_tokens);
		MemoryContextSwitchTo(old);
	}
}

/*
 * Add a delta to the sums of all time, of its day and of its hour.  Days and hours are many
 * rows: modes are not kept apart there, nor the tasks of a user by the hour.
 */
static void
add_to_periods(RtStats *stats, RtStatKey key, const Delta *delta, int whose_hours)
{
	TimestampTz hour = key.period_at;
	int64 rest = TIMESTAMP_NOT_FINITE(hour) ? 0 : hour % USECS_PER_DAY;

	rt_stat_name(&key, RT_STAT_PERIOD, "all");
	key.period_at = DT_NOBEGIN;
	add_to(stats, key, delta, OF_USER | OF_ALL);
	rt_stat_name(&key, RT_STAT_MODE, NULL);
	key.period_at = hour;
	rt_stat_name(&key, RT_STAT_PERIOD, "hour");
	add_to(stats, key, delta, whose_hours);
	rt_stat_name(&key, RT_STAT_PERIOD, "day");
	key.period_at = hour - (rest < 0 ? rest + USECS_PER_DAY : rest);
	add_to(stats, key, delta, OF_USER | OF_ALL);
}

/* Of kinds and workflows, what is about tasks goes to the row without a phase, but for retried
 * ones. */
static void
tasks_of_runs(Delta *delta)
{
	RtStatKey *key = &delta->key;

	if (name_is(key, RT_STAT_PHASE, "succeeded"))
		delta->counts[RT_STAT_TASKS] = delta->counts[RT_STAT_FINISHED];
	else if (name_is(key, RT_STAT_PHASE, "failed") || name_is(key, RT_STAT_PHASE, "timed_out"))
		delta->counts[RT_STAT_FAILED_TASKS] = delta->counts[RT_STAT_FINISHED];
	if (!name_is(key, RT_STAT_PHASE, "retried"))
		rt_stat_name(key, RT_STAT_PHASE, NULL);
	rt_stat_name(key, RT_STAT_PROVIDER, NULL);
	rt_stat_name(key, RT_STAT_MODEL, NULL);
	rt_stat_name(key, RT_STAT_OPERATION, NULL);
	delta->counts[RT_STAT_FINISHED] = 0;
	delta->counts[RT_STAT_DURATION_MS] = 0;
	delta->counts[RT_STAT_FIRST_TOKEN_MS] = 0;
	delta->durations = (Datum) 0;
	delta->first_tokens = (Datum) 0;
}

/* A date as a timestamp: at midnight of UTC, as far as there are timestamps. */
static TimestampTz
midnight_of(int julian_day)
{
	TimestampTz midnight = (julian_day - POSTGRES_EPOCH_JDATE) * USECS_PER_DAY;

	return Max(MIN_TIMESTAMP, Min(midnight, END_TIMESTAMP - 1));
}

/* Add what is usage to the sums of the user's day and month. */
static void
add_usage(RtStats *stats, const Delta *delta)
{
	Delta usage = *delta;
	RtStatKey *key = &usage.key;
	int year;
	int month;
	int day;

	for (int i = 0; i < RT_NSTATNAMES; i++)
		if (i != RT_STAT_USER_ID)
			rt_stat_name(key, i, NULL);
	rt_stat_name(key, RT_STAT_SOURCE, "usage");
	usage.counts[RT_STAT_DURATION_MS] = 0;
	usage.counts[RT_STAT_FIRST_TOKEN_MS] = 0;
	usage.durations = (Datum) 0;
	usage.first_tokens = (Datum) 0;

	rt_stat_name(key, RT_STAT_PERIOD, "day");
	key->period_at = midnight_of(delta->usage_on + POSTGRES_EPOCH_JDATE);
	add_to(stats, *key, &usage, OF_USER);
	j2date(delta->usage_on + POSTGRES_EPOCH_JDATE, &year, &month, &day);
	rt_stat_name(key, RT_STAT_PERIOD, "month");
	key->period_at = midnight_of(date2j(year, month, 1));
	add_to(stats, *key, &usage, OF_USER);
}

/* Add a delta to all sums that it belongs to. */
static void
add_delta(RtStats *stats, Delta *delta)
{
	RtStatKey key;

	if (delta->usage_on != DATEVAL_NOBEGIN)
		add_usage(stats, delta);
	if (name_is(&delta->key, RT_STAT_SOURCE, "usage"))
		return;

	if (name_is(&delta->key, RT_STAT_SOURCE, "task"))
	{
		key = delta->key;
		rt_stat_name(&key, RT_STAT_SOURCE, "model");
		rt_stat_name(&key, RT_STAT_KIND, NULL);
		rt_stat_name(&key, RT_STAT_WORKFLOW_ID, NULL);
		add_to_periods(stats, key, delta, OF_ALL);
		tasks_of_runs(delta);
	}

	key = delta->key;
	rt_stat_name(&key, RT_STAT_SOURCE, "kind");
	rt_stat_name(&key, RT_STAT_WORKFLOW_ID, NULL);
	add_to_periods(stats, key, delta, OF_USER | OF_ALL);

	/* of a user, without kinds; and of a workflow: of all time */
	rt_stat_name(&key, RT_STAT_PERIOD, "all");
	rt_stat_name(&key, RT_STAT_KIND, NULL);
	key.period_at = DT_NOBEGIN;
	rt_stat_name(&key, RT_STAT_SOURCE, "user");
	add_to(stats, key, delta, OF_USER);
	if (delta->key.lens[RT_STAT_WORKFLOW_ID] > 0)
	{
		rt_stat_name(&key, RT_STAT_SOURCE, "workflow");
		key.names[RT_STAT_WORKFLOW_ID] = delta->key.names[RT_STAT_WORKFLOW_ID];
		key.lens[RT_STAT_WORKFLOW_ID] = delta->key.lens[RT_STAT_WORKFLOW_ID];
		add_to(stats, key, delta, OF_USER | OF_ALL);
	}
}

/* ----------------------------------------------------------------
 * From sums to stat_totals
 * ----------------------------------------------------------------
 */

/* The columns of the primary key, and their values for a sum. */
static void
get_keys(const RtStat *stat, const RtTable *t, AttrNumber *atts, Datum *values)
{
	static const RtStatName names[] = {RT_STAT_SOURCE,	 RT_STAT_PERIOD,	  RT_STAT_USER_ID,
									   RT_STAT_KIND,	 RT_STAT_WORKFLOW_ID, RT_STAT_MODE,
									   RT_STAT_PROVIDER, RT_STAT_MODEL,		  RT_STAT_OPERATION,
									   RT_STAT_PHASE};
	const AttrNumber columns[NKEYS] =
		{RT_ATT(t, stat_totals, grain),		  RT_ATT(t, stat_totals, period),
		 RT_ATT(t, stat_totals, all_users),	  RT_ATT(t, stat_totals, user_id),
		 RT_ATT(t, stat_totals, period_at),	  RT_ATT(t, stat_totals, kind),
		 RT_ATT(t, stat_totals, workflow_id), RT_ATT(t, stat_totals, mode),
		 RT_ATT(t, stat_totals, provider),	  RT_ATT(t, stat_totals, model),
		 RT_ATT(t, stat_totals, operation),	  RT_ATT(t, stat_totals, phase)};
	int name = 0;

	for (int i = 0; i < NKEYS; i++)
	{
		atts[i] = columns[i];
		if (i == 2)
			values[i] = BoolGetDatum(stat->key.all_users);
		else if (i == 4)
			values[i] = TimestampTzGetDatum(stat->key.period_at);
		else
		{
			values[i] = PointerGetDatum(cstring_to_text_with_len(stat->key.names[names[name]],
																 stat->key.lens[names[name]]));
			name++;
		}
	}
}

/* Find the row of a sum; false if there is none yet.  The scan is used again for the next one. */
static bool
find_total(IndexScanDesc scan, const Datum *values, TupleTableSlot *row)
{
	ScanKeyData keys[NKEYS];
	MemoryContext old;
	bool found;

	for (int i = 0; i < NKEYS; i++)
	{
		RegProcedure equal = i == 2 ? F_BOOLEQ : i == 4 ? F_TIMESTAMPTZ_EQ : F_TEXTEQ;

		ScanKeyEntryInitialize(&keys[i], 0, i + 1, BTEqualStrategyNumber, InvalidOid,
							   scan->indexRelation->rd_indcollation[i], equal, values[i]);
	}
	/* the index may keep what it allocates until the end of the scan */
	old = MemoryContextSwitchTo(GetMemoryChunkContext(scan));
	index_rescan(scan, keys, NKEYS, NULL, 0);
	found = index_getnext_slot(scan, ForwardScanDirection, row);
	MemoryContextSwitchTo(old);
	if (found)
		ExecMaterializeSlot(row);
	return found;
}

static void
put_count(RtWriter *writer, AttrNumber att, int64 amount)
{
	RtStat sum = {0};

	rt_stat_count(&sum, RT_STAT_CREATED, DatumGetInt64(writer->slot->tts_values[att - 1]));
	rt_stat_count(&sum, RT_STAT_CREATED, amount);
	rt_writer_set(writer, att, Int64GetDatum(sum.counts[RT_STAT_CREATED]), false);
}

static void
put_histogram(RtWriter *writer, AttrNumber att, RtHistogram *histogram)
{
	Datum array;

	if (!writer->slot->tts_isnull[att - 1])
		rt_histogram_merge(histogram, writer->slot->tts_values[att - 1]);
	array = rt_histogram_datum(histogram);
	rt_writer_set(writer, att, array, array == (Datum) 0);
}

/* Add a sum to its row, which is made if need be. */
static void
put_total(RtWriter *writer, IndexScanDesc scan, RtStat *stat, TupleTableSlot *row)
{
	const RtTable *t = writer->table;
	const AttrNumber counters[RT_NSTATCOUNTERS] = {RT_ATT(t, stat_totals, created_count),
												   RT_ATT(t, stat_totals, finished_count),
												   RT_ATT(t, stat_totals, task_count),
												   RT_ATT(t, stat_totals, failed_task_count),
												   RT_ATT(t, stat_totals, input_tokens),
												   RT_ATT(t, stat_totals, output_tokens),
												   RT_ATT(t, stat_totals, total_tokens),
												   RT_ATT(t, stat_totals, duration_ms),
												   RT_ATT(t, stat_totals, first_token_ms)};
	AttrNumber cost = RT_ATT(t, stat_totals, cost);
	AttrNumber atts[NKEYS];
	Datum values[NKEYS];
	bool found;

	get_keys(stat, t, atts, values);
	found = find_total(scan, values, row);
	if (found)
		rt_writer_copy(writer, row);
	else
	{
		rt_writer_blank(writer);
		for (int i = 0; i < NKEYS; i++)
			rt_writer_set(writer, atts[i], values[i], false);
		for (int i = 0; i < RT_NSTATCOUNTERS; i++)
			rt_writer_set(writer, counters[i], Int64GetDatum(0), false);
		rt_writer_set(writer, cost, DirectFunctionCall1(int8_numeric, Int64GetDatum(0)), false);
	}
	for (int i = 0; i < RT_NSTATCOUNTERS; i++)
		put_count(writer, counters[i], stat->counts[i]);
	if (stat->cost != (Datum) 0)
		rt_writer_set(writer, cost,
					  DirectFunctionCall2(numeric_add, writer->slot->tts_values[cost - 1],
										  stat->cost),
					  false);
	put_histogram(writer, RT_ATT(t, stat_totals, durations), &stat->durations);
	put_histogram(writer, RT_ATT(t, stat_totals, first_tokens), &stat->first_tokens);
	if (found)
		rt_writer_update(writer, row);
	else
		rt_writer_insert(writer);
	ExecClearTuple(row);
}

/* The primary key of stat_totals; 55000 if it is not what it should be. */
static Relation
open_key(RtWriter *writer)
{
	RtStat none = {0};
	AttrNumber atts[NKEYS];
	Datum values[NKEYS];

	for (int i = 0; i < RT_NSTATNAMES; i++)
		rt_stat_name(&none.key, i, NULL);
	get_keys(&none, writer->table, atts, values);
	return rt_index_open(writer->rel, "stat_totals_pkey", NKEYS, atts, -1);
}

/* Write the sums. */
static void
put_totals(RtStats *stats)
{
	RtStat **all;
	int n = rt_stats_all(stats, &all);
	RtWriter writer;
	Relation index;
	Snapshot snapshot;
	IndexScanDesc scan;
	TupleTableSlot *row;
	MemoryContext context =
		AllocSetContextCreate(CurrentMemoryContext, "run_tracker total", ALLOCSET_DEFAULT_SIZES);
	MemoryContext old;

	rt_writer_open(&writer, RT_stat_totals);
	index = open_key(&writer);
	snapshot = rt_latest_snapshot();
	scan = rt_index_beginscan(writer.rel, index, snapshot, NKEYS);
	row = table_slot_create(writer.rel, NULL);
	old = MemoryContextSwitchTo(context);
	for (int i = 0; i < n; i++)
	{
		CHECK_FOR_INTERRUPTS();
		if (!rt_stat_is_zero(all[i]))
			put_total(&writer, scan, all[i], row);
		MemoryContextReset(context);
	}
	MemoryContextSwitchTo(old);
	ExecDropSingleTupleTableSlot(row);
	index_endscan(scan);
	UnregisterSnapshot(snapshot);
	index_close(index, NoLock);
	rt_writer_close(&writer);
	MemoryContextDelete(context);
}

/* ----------------------------------------------------------------
 * The fold
 * ----------------------------------------------------------------
 */

/* Take up to so many deltas away, and add them to the sums; returns how many there were. */
static int64
take_deltas(RtWriter *writer, TableScanDesc scan, TupleTableSlot *row, RtStats *stats, int64 max)
{
	MemoryContext context =
		AllocSetContextCreate(CurrentMemoryContext, "run_tracker delta", ALLOCSET_DEFAULT_SIZES);
	int64 n = 0;

	while (n < max && table_scan_getnextslot(scan, ForwardScanDirection, row))
	{
		MemoryContext old = MemoryContextSwitchTo(context);
		Delta delta;

		CHECK_FOR_INTERRUPTS();
		decode_delta(&delta, row, writer->table);
		add_delta(stats, &delta);
		rt_writer_delete(writer, row);
		MemoryContextSwitchTo(old);
		MemoryContextReset(context);
		n++;
	}
	MemoryContextDelete(context);
	return n;
}

/*
 * Fold at most so many deltas, and none after a moment; returns how many, or -1 if somebody
 * else is at it and we are not to wait.  more says whether there may be more of them.  In a
 * READ COMMITTED transaction, whose end makes it visible.
 */
int64
rt_stats_fold(int64 max_deltas, TimestampTz until, bool wait, bool *more)
{
	int64 folded = 0;
	int64 chunk = FIRST_CHUNK;
	LOCKTAG tag;
	RtWriter writer;
	Snapshot snapshot;
	TableScanDesc scan;
	TupleTableSlot *row;

	SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, 0, RT_LOCK_FOLD, RT_LOCK_CLASS);
	if (LockAcquire(&tag, ExclusiveLock, false, !wait) == LOCKACQUIRE_NOT_AVAIL)
		return -1;
	rt_writer_open(&writer, RT_stat_deltas);
	/* after the lock: what others have folded is gone */
	snapshot = rt_latest_snapshot();
	row = table_slot_create(writer.rel, NULL);
	scan = table_beginscan(writer.rel, snapshot, 0, NULL);
	*more = true;
	while (*more && folded < max_deltas && GetCurrentTimestamp() < until)
	{
		RtStats *stats = rt_stats_begin();
		int64 wanted = Min(chunk, max_deltas - folded);
		int64 n = take_deltas(&writer, scan, row, stats, wanted);

		if (n > 0)
			put_totals(stats);
		folded += n;
		/* a scan that has ended would begin again */
		*more = n == wanted;
		chunk = Min(chunk * 2, CHUNK);
		rt_stats_free(stats);
	}
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(row);
	UnregisterSnapshot(snapshot);
	rt_writer_close(&writer);
	return folded;
}

/* fold_statistics(max_deltas) → number of deltas folded */
Datum
run_tracker_fold_statistics(PG_FUNCTION_ARGS)
{
	bool more;

	PreventCommandIfReadOnly("fold_statistics()");
	PreventCommandDuringRecovery("fold_statistics()");
	if (PG_ARGISNULL(0) || PG_GETARG_INT32(0) < 1)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("argument \"max_deltas\" must be at least 1")));
	if (!rt_identity_is_service())
		ereport(ERROR, (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
						errmsg("only services may fold statistics")));
	if (IsolationUsesXactSnapshot())
		ereport(ERROR, (errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
						errmsg("statistics can only be folded in a READ COMMITTED transaction")));
	PG_RETURN_INT64(rt_stats_fold(PG_GETARG_INT32(0), DT_NOEND, true, &more));
}
