/*-------------------------------------------------------------------------
 *
 * stats.h
 *		Sums over many runs and tasks, and histograms of their durations.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RT_STATS_H
#define RT_STATS_H

#include "utils/array.h"
#include "utils/date.h"
#include "utils/hsearch.h"

#include "catalog.h"
#include "changes.h"

/* ---- histogram.c ---- */

/* 0 to 100 ms one by one, then 90 for each of ten decades */
#define RT_NBUCKETS (101 + 90 * 10)

/* longer durations are taken for this one, 31 years */
#define RT_MAX_MS INT64CONST(1000000000000)

typedef struct RtBucket
{
	int32 bucket;
	int64 count; /* of a difference: perhaps negative */
} RtBucket;

/* The buckets that are not empty, in order. */
typedef struct RtHistogram
{
	int n;
	int size;
	RtBucket *buckets;
} RtHistogram;

extern int rt_histogram_bucket(int64 ms);
extern void rt_histogram_add(RtHistogram *histogram, int bucket, int64 count);
extern void rt_histogram_merge(RtHistogram *histogram, Datum array);
extern Datum rt_histogram_datum(const RtHistogram *histogram);

/* ---- stat_groups.c ---- */

/* What a group is told apart by, besides its time. */
typedef enum RtStatName
{
	RT_STAT_SOURCE, /* run or task; of totals: the grain */
	RT_STAT_PERIOD, /* of totals only */
	RT_STAT_USER_ID,
	RT_STAT_KIND,
	RT_STAT_WORKFLOW_ID,
	RT_STAT_MODE,
	RT_STAT_PROVIDER,
	RT_STAT_MODEL,
	RT_STAT_OPERATION,
	RT_STAT_PHASE,
	RT_NSTATNAMES
} RtStatName;

typedef struct RtStatKey
{
	TimestampTz period_at;
	DateADT usage_on; /* of deltas: the day that it counts as usage; DATEVAL_NOBEGIN: it does not */
	bool all_users;
	int lens[RT_NSTATNAMES];
	const char *names[RT_NSTATNAMES]; /* not terminated */
} RtStatKey;

typedef enum RtStatCounter
{
	RT_STAT_CREATED,
	RT_STAT_FINISHED,
	RT_STAT_TASKS,		  /* of totals only */
	RT_STAT_FAILED_TASKS, /* of totals only */
	RT_STAT_INPUT_TOKENS,
	RT_STAT_OUTPUT_TOKENS,
	RT_STAT_TOTAL_TOKENS,
	RT_STAT_DURATION_MS,
	RT_STAT_FIRST_TOKEN_MS,
	RT_NSTATCOUNTERS
} RtStatCounter;

/* What is to be added to a group. */
typedef struct RtStat
{
	RtStatKey key; /* must be first */
	int64 counts[RT_NSTATCOUNTERS];
	Datum cost; /* numeric, or 0 for none */
	RtHistogram durations;
	RtHistogram first_tokens;
} RtStat;

/* What statistics need to know of the run of a task. */
typedef struct RtStatRun
{
	pg_uuid_t run_id; /* key */
	int kind_len;
	int workflow_id_len;
	const char *kind;
	const char *workflow_id;
} RtStatRun;

typedef struct RtStats
{
	MemoryContext context;
	MemoryContext row_context; /* for what a row is unpacked to */
	HTAB *groups;
	RtStat *last_group;
	HTAB *runs;		 /* RtStatRun */
	RtStatRun *last; /* tasks of one run mostly come together */
} RtStats;

extern RtStats *rt_stats_begin(void);
extern RtStat *rt_stats_get(RtStats *stats, const RtStatKey *key);
extern int rt_stats_all(RtStats *stats, RtStat ***all);
extern void rt_stats_free(RtStats *stats);
extern void rt_stats_end(RtStats *stats);
extern void rt_stat_name(RtStatKey *key, RtStatName name, const char *value);
extern void rt_stat_count(RtStat *stat, RtStatCounter counter, int64 amount);
extern void rt_stat_cost(RtStats *stats, RtStat *stat, Datum cost, int sign);
extern bool rt_stat_is_zero(const RtStat *stat);

/* ---- stats.c ---- */

extern void rt_stats_truncate_runs(void);
extern void rt_stats_change_run(RtStats *stats, const RtChanges *changes, const RtTable *t);
extern void rt_stats_change_usage(RtStats *stats, const RtChanges *changes, const RtTable *t);
extern void rt_stats_change_task(RtStats *stats, const RtChanges *changes, const RtTable *t);

/* ---- stats_fold.c ---- */

extern int64 rt_stats_fold(int64 max_deltas, TimestampTz until, bool wait, bool *more);

#endif /* RT_STATS_H */
