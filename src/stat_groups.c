/*-------------------------------------------------------------------------
 *
 * stat_groups.c
 *		Sums of a statement, or of a fold, by group.
 *
 * A group is told apart by names and its time.  What a statement adds to the statistics is
 * appended to stat_deltas, a row per group; what a fold has summed up goes to
 * stat_totals, see stats_fold.c.
 *
 * Memory: a context under the current one, deleted by rt_stats_end() or rt_stats_free().
 *
 *-------------------------------------------------------------------------
 */
#include "run_tracker.h"

#include "common/hashfn.h"
#include "common/int.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"

#include "notes.h"
#include "stats.h"
#include "writer.h"

/* ----------------------------------------------------------------
 * Groups
 * ----------------------------------------------------------------
 */

static uint32
hash_key(const void *key, Size size)
{
	const RtStatKey *k = key;
	uint32 hash = hash_bytes((const unsigned char *) &k->period_at, sizeof(k->period_at));

	hash = hash_combine(hash, (uint32) k->usage_on);
	for (int i = 0; i < RT_NSTATNAMES; i++)
		hash = hash_combine(hash, hash_bytes((const unsigned char *) k->names[i], k->lens[i]));
	return hash;
}

/* An order of groups, to write them in; 0 if they are the same. */
static int
compare_keys(const void *key1, const void *key2, Size size)
{
	const RtStatKey *a = key1;
	const RtStatKey *b = key2;

	for (int i = 0; i < RT_NSTATNAMES; i++)
	{
		int result = memcmp(a->names[i], b->names[i], Min(a->lens[i], b->lens[i]));

		if (result == 0)
			result = a->lens[i] - b->lens[i];
		if (result != 0)
			return result;
	}
	if (a->period_at != b->period_at)
		return a->period_at < b->period_at ? -1 : 1;
	if (a->usage_on != b->usage_on)
		return a->usage_on < b->usage_on ? -1 : 1;
	return (int) a->all_users - (int) b->all_users;
}

/* Begin to sum up; the caller ends it with rt_stats_end() or rt_stats_free(). */
RtStats *
rt_stats_begin(void)
{
	MemoryContext context =
		AllocSetContextCreate(CurrentMemoryContext, "run_tracker stats", ALLOCSET_SMALL_SIZES);
	RtStats *stats = MemoryContextAllocZero(context, sizeof(RtStats));
	HASHCTL ctl = {0};

	stats->context = context;
	stats->row_context = AllocSetContextCreate(context, "run_tracker row", ALLOCSET_SMALL_SIZES);
	ctl.keysize = sizeof(RtStatKey);
	ctl.entrysize = sizeof(RtStat);
	ctl.hash = hash_key;
	ctl.match = compare_keys;
	ctl.hcxt = context;
	stats->groups = hash_create("run_tracker groups", 16, &ctl,
								HASH_ELEM | HASH_FUNCTION | HASH_COMPARE | HASH_CONTEXT);
	return stats;
}

/* Free what belongs to the sums. */
void
rt_stats_free(RtStats *stats)
{
	MemoryContextDelete(stats->context);
}

/* Set a name of a key; NULL is none.  The value must stay while the key is used. */
void
rt_stat_name(RtStatKey *key, RtStatName name, const char *value)
{
	key->names[name] = value ? value : "";
	key->lens[name] = value ? strlen(value) : 0;
}

/* The group of a key, made when it is not there. */
RtStat *
rt_stats_get(RtStats *stats, const RtStatKey *key)
{
	bool found;
	RtStat *stat = stats->last_group;

	/* rows of one group mostly come together */
	if (stat && compare_keys(&stat->key, key, 0) == 0)
		return stat;
	stat = hash_search(stats->groups, key, HASH_ENTER, &found);
	stats->last_group = stat;
	if (!found)
	{
		for (int i = 0; i < RT_NSTATNAMES; i++)
		{
			char *copy = MemoryContextAlloc(stats->context, Max(key->lens[i], 1));

			memcpy(copy, key->names[i], key->lens[i]);
			stat->key.names[i] = copy;
		}
		memset(stat->counts, 0, sizeof(stat->counts));
		memset(&stat->durations, 0, sizeof(stat->durations));
		memset(&stat->first_tokens, 0, sizeof(stat->first_tokens));
		stat->cost = (Datum) 0;
	}
	return stat;
}

static int
compare_stats(const void *a, const void *b)
{
	return compare_keys(&(*(RtStat *const *) a)->key, &(*(RtStat *const *) b)->key, 0);
}

/* All groups, in order of their keys; they live as long as the sums. */
int
rt_stats_all(RtStats *stats, RtStat ***all)
{
	int n = 0;
	HASH_SEQ_STATUS status;
	RtStat *stat;

	*all = MemoryContextAllocHuge(stats->context,
								  sizeof(RtStat *) * Max(hash_get_num_entries(stats->groups), 1));
	hash_seq_init(&status, stats->groups);
	while ((stat = hash_seq_search(&status)) != NULL)
		(*all)[n++] = stat;
	qsort(*all, n, sizeof(RtStat *), compare_stats);
	return n;
}

/* Add to a counter; it stays in range, whatever clients say. */
void
rt_stat_count(RtStat *stat, RtStatCounter counter, int64 amount)
{
	int64 sum;

	if (pg_add_s64_overflow(stat->counts[counter], amount, &sum))
		sum = amount > 0 ? PG_INT64_MAX : PG_INT64_MIN;
	stat->counts[counter] = sum;
}

/* Add a cost, sign times.  What is computed on the way stays in the current context. */
void
rt_stat_cost(RtStats *stats, RtStat *stat, Datum cost, int sign)
{
	MemoryContext old;
	Datum sum;

	if (stat->cost == (Datum) 0)
		sum = sign > 0 ? cost : DirectFunctionCall1(numeric_uminus, cost);
	else
		sum = DirectFunctionCall2(sign > 0 ? numeric_add : numeric_sub, stat->cost, cost);
	old = MemoryContextSwitchTo(stats->context);
	if (stat->cost != (Datum) 0)
		pfree(DatumGetPointer(stat->cost));
	stat->cost = PointerGetDatum(PG_DETOAST_DATUM_COPY(sum));
	MemoryContextSwitchTo(old);
}

static bool
histogram_is_zero(const RtHistogram *histogram)
{
	for (int i = 0; i < histogram->n; i++)
		if (histogram->buckets[i].count != 0)
			return false;
	return true;
}

/* Is there nothing to be added? */
bool
rt_stat_is_zero(const RtStat *stat)
{
	for (int i = 0; i < RT_NSTATCOUNTERS; i++)
		if (stat->counts[i] != 0)
			return false;
	if (stat->cost != (Datum) 0 &&
		!DatumGetBool(DirectFunctionCall2(numeric_eq, stat->cost,
										  DirectFunctionCall1(int8_numeric, Int64GetDatum(0)))))
		return false;
	return histogram_is_zero(&stat->durations) && histogram_is_zero(&stat->first_tokens);
}

/* ----------------------------------------------------------------
 * Appending to stat_deltas
 * ----------------------------------------------------------------
 */

static void
put_name(RtWriter *writer, AttrNumber att, const RtStat *stat, RtStatName name)
{
	rt_writer_set(writer, att,
				  PointerGetDatum(
					  cstring_to_text_with_len(stat->key.names[name], stat->key.lens[name])),
				  false);
}

static void
put_histogram(RtWriter *writer, AttrNumber att, const RtHistogram *histogram)
{
	Datum array = rt_histogram_datum(histogram);

	rt_writer_set(writer, att, array, array == (Datum) 0);
}

static void
append_delta(RtWriter *writer, const RtStat *stat, Datum zero)
{
	const RtTable *t = writer->table;
	const int64 *counts = stat->counts;

	rt_writer_blank(writer);
	rt_writer_set(writer, RT_ATT(t, stat_deltas, period_at),
				  TimestampTzGetDatum(stat->key.period_at), false);
	rt_writer_set(writer, RT_ATT(t, stat_deltas, usage_on), DateADTGetDatum(stat->key.usage_on),
				  stat->key.usage_on == DATEVAL_NOBEGIN);
	put_name(writer, RT_ATT(t, stat_deltas, source), stat, RT_STAT_SOURCE);
	put_name(writer, RT_ATT(t, stat_deltas, user_id), stat, RT_STAT_USER_ID);
	put_name(writer, RT_ATT(t, stat_deltas, kind), stat, RT_STAT_KIND);
	put_name(writer, RT_ATT(t, stat_deltas, workflow_id), stat, RT_STAT_WORKFLOW_ID);
	put_name(writer, RT_ATT(t, stat_deltas, mode), stat, RT_STAT_MODE);
	put_name(writer, RT_ATT(t, stat_deltas, provider), stat, RT_STAT_PROVIDER);
	put_name(writer, RT_ATT(t, stat_deltas, model), stat, RT_STAT_MODEL);
	put_name(writer, RT_ATT(t, stat_deltas, operation), stat, RT_STAT_OPERATION);
	put_name(writer, RT_ATT(t, stat_deltas, phase), stat, RT_STAT_PHASE);
	rt_writer_set(writer, RT_ATT(t, stat_deltas, created_count),
				  Int64GetDatum(counts[RT_STAT_CREATED]), false);
	rt_writer_set(writer, RT_ATT(t, stat_deltas, finished_count),
				  Int64GetDatum(counts[RT_STAT_FINISHED]), false);
	rt_writer_set(writer, RT_ATT(t, stat_deltas, input_tokens),
				  Int64GetDatum(counts[RT_STAT_INPUT_TOKENS]), false);
	rt_writer_set(writer, RT_ATT(t, stat_deltas, output_tokens),
				  Int64GetDatum(counts[RT_STAT_OUTPUT_TOKENS]), false);
	rt_writer_set(writer, RT_ATT(t, stat_deltas, total_tokens),
				  Int64GetDatum(counts[RT_STAT_TOTAL_TOKENS]), false);
	rt_writer_set(writer, RT_ATT(t, stat_deltas, duration_ms),
				  Int64GetDatum(counts[RT_STAT_DURATION_MS]), false);
	rt_writer_set(writer, RT_ATT(t, stat_deltas, first_token_ms),
				  Int64GetDatum(counts[RT_STAT_FIRST_TOKEN_MS]), false);
	rt_writer_set(writer, RT_ATT(t, stat_deltas, cost), stat->cost ? stat->cost : zero, false);
	put_histogram(writer, RT_ATT(t, stat_deltas, durations), &stat->durations);
	put_histogram(writer, RT_ATT(t, stat_deltas, first_tokens), &stat->first_tokens);
	rt_writer_insert(writer);
}

/* Append what was summed up to stat_deltas, and free the sums. */
void
rt_stats_end(RtStats *stats)
{
	Datum zero;
	RtWriter writer;
	RtStat **all;
	int n = rt_stats_all(stats, &all);
	bool open = false;

	zero = DirectFunctionCall1(int8_numeric, Int64GetDatum(0));
	for (int i = 0; i < n; i++)
	{
		if (rt_stat_is_zero(all[i]))
			continue;
		if (!open)
			rt_writer_open(&writer, RT_stat_deltas);
		open = true;
		append_delta(&writer, all[i], zero);
	}
	if (open)
	{
		rt_writer_close(&writer);
		rt_note_statistics(RT_FOLD_LATER);
	}
	rt_stats_free(stats);
}
