/*-------------------------------------------------------------------------
 *
 * stats.c
 *		What statements add to the statistics.
 *
 * A run counts where it was created and, once finished, where it finished, with its
 * outcome and duration; a task when it finished, with its tokens and cost.  The AFTER
 * triggers of runs and tasks sum up by group what their statement changed, old rows negative,
 * new rows positive, and append a row per group to stat_deltas: nobody waits for anybody.
 * What was finished and is retried moves from its outcome to "retried".
 *
 * Deletion does not change statistics: they outlive the runs.  Only a run that is deleted
 * while it is open was never created.
 *
 * Whoever reads statistics adds stat_totals and stat_deltas, and stats_fold.c moves
 * from one to the other in a transaction: the sum is the same in every snapshot.
 *
 * Memory: a context under the current one for each statement, deleted at its end.
 *
 *-------------------------------------------------------------------------
 */
#include "run_tracker.h"

#include "access/table.h"
#include "access/tableam.h"
#include "executor/executor.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/snapmgr.h"

#include "runs.h"
#include "stats.h"
#include "usage.h"
#include "totals.h"
#include "writer.h"

PG_FUNCTION_INFO_V1(run_tracker_count_history);

/* longer names are cut off: they are part of a key */
#define MAX_NAME_LENGTH 200

#define RETRIED "retried"

/* ----------------------------------------------------------------
 * What rows contribute
 * ----------------------------------------------------------------
 */

/* The beginning of the hour of a moment, UTC. */
static TimestampTz
hour_of(TimestampTz moment)
{
	int64 rest;

	if (TIMESTAMP_NOT_FINITE(moment))
		return 0;
	rest = moment % USECS_PER_HOUR;
	return moment - (rest < 0 ? rest + USECS_PER_HOUR : rest);
}

/* A column of a row as a name: cut off, and "" for null.  The value stays in the row. */
static void
name_from(RtStatKey *key, RtStatName name, TupleTableSlot *row, AttrNumber att)
{
	bool isnull;
	Datum value = slot_getattr(row, att, &isnull);
	text *t;

	if (isnull)
	{
		rt_stat_name(key, name, NULL);
		return;
	}
	t = DatumGetTextPP(value);
	key->names[name] = VARDATA_ANY(t);
	key->lens[name] = pg_mbcliplen(VARDATA_ANY(t), VARSIZE_ANY_EXHDR(t), MAX_NAME_LENGTH);
	/* who has a longer id than is possible by now is nobody here */
	if (name == RT_STAT_USER_ID)
		key->lens[name] = VARSIZE_ANY_EXHDR(t) > RT_MAX_NAME_BYTES ? 0 : (int) VARSIZE_ANY_EXHDR(t);
}

static RtPhase
phase_of(TupleTableSlot *row, AttrNumber att)
{
	bool isnull;

	return rt_phase_decode(slot_getattr(row, att, &isnull));
}

/* Add milliseconds, and count them in a histogram. */
static void
add_ms(RtStats *stats, RtStat *stat, RtStatCounter counter, RtHistogram *histogram, int64 ms,
	   int sign)
{
	MemoryContext old = MemoryContextSwitchTo(stats->context);

	ms = Min(ms, RT_MAX_MS);
	rt_stat_count(stat, counter, sign * ms);
	rt_histogram_add(histogram, rt_histogram_bucket(ms), sign);
	MemoryContextSwitchTo(old);
}

/* The mode of a run: settings ->> 'mode'. */
static void
mode_from(RtStatKey *key, TupleTableSlot *row, const RtTable *t)
{
	bool isnull;
	Datum value = slot_getattr(row, RT_ATT(t, runs, settings), &isnull);
	Jsonb *settings;
	JsonbValue buf;
	JsonbValue *mode;

	if (isnull)
		return;
	settings = DatumGetJsonbP(value);
	if (!JB_ROOT_IS_OBJECT(settings))
		return;
	mode = getKeyJsonValueFromContainer(&settings->root, "mode", 4, &buf);
	if (mode && mode->type == jbvString)
	{
		key->names[RT_STAT_MODE] = mode->val.string.val;
		key->lens[RT_STAT_MODE] =
			pg_mbcliplen(mode->val.string.val, mode->val.string.len, MAX_NAME_LENGTH);
	}
}

static void
begin_key(RtStatKey *key, const char *source, const char *phase)
{
	memset(key, 0, sizeof(RtStatKey));
	key->usage_on = DATEVAL_NOBEGIN;
	for (int i = 0; i < RT_NSTATNAMES; i++)
		rt_stat_name(key, i, NULL);
	rt_stat_name(key, RT_STAT_SOURCE, source);
	rt_stat_name(key, RT_STAT_PHASE, phase);
}

static void
begin_run_key(RtStatKey *key, TupleTableSlot *row, const RtTable *t, const char *phase)
{
	begin_key(key, "run", phase);
	name_from(key, RT_STAT_USER_ID, row, RT_ATT(t, runs, user_id));
	name_from(key, RT_STAT_KIND, row, RT_ATT(t, runs, kind));
	name_from(key, RT_STAT_WORKFLOW_ID, row, RT_ATT(t, runs, workflow_id));
	mode_from(key, row, t);
}

/* A run was created, or else it was not. */
static void
count_created_run(RtStats *stats, TupleTableSlot *row, const RtTable *t, int sign)
{
	RtStatKey key;

	begin_run_key(&key, row, t, NULL);
	key.period_at = hour_of(rt_slot_int64(row, RT_ATT(t, runs, created_at)));
	rt_stat_count(rt_stats_get(stats, &key), RT_STAT_CREATED, sign);
}

/* A run has finished, with this outcome. */
static void
count_finished_run(RtStats *stats, TupleTableSlot *row, const RtTable *t, const char *phase,
				   int sign)
{
	RtStatKey key;
	RtStat *stat;

	begin_run_key(&key, row, t, phase);
	key.period_at = hour_of(rt_slot_int64(row, RT_ATT(t, runs, finished_at)));
	stat = rt_stats_get(stats, &key);
	rt_stat_count(stat, RT_STAT_FINISHED, sign);
	add_ms(stats, stat, RT_STAT_DURATION_MS, &stat->durations,
		   rt_slot_int64(row, RT_ATT(t, runs, duration_ms)), sign);
}

/* All that a run contributes. */
static void
count_run(RtStats *stats, TupleTableSlot *row, const RtTable *t, int sign)
{
	RtPhase phase = phase_of(row, RT_ATT(t, runs, phase));

	count_created_run(stats, row, t, sign);
	if (!RT_PHASE_IS_OPEN(phase))
		count_finished_run(stats, row, t, rt_phase_names[phase], sign);
}

/* A name, cut off, to be kept with the sums; 0 is none. */
static const char *
copy_name(RtStats *stats, Datum value, int *len)
{
	text *t = value == (Datum) 0 ? cstring_to_text("") : DatumGetTextPP(value);
	char *copy;

	*len = pg_mbcliplen(VARDATA_ANY(t), VARSIZE_ANY_EXHDR(t), MAX_NAME_LENGTH);
	copy = MemoryContextAlloc(stats->context, *len + 1);
	memcpy(copy, VARDATA_ANY(t), *len);
	return copy;
}

/* Kind and workflow of the run of a task; looked up once. */
static const RtStatRun *
find_run(RtStats *stats, const pg_uuid_t *run_id)
{
	bool found;

	if (stats->last && rt_uuid_compare(&stats->last->run_id, run_id) == 0)
		return stats->last;
	if (stats->runs == NULL)
	{
		HASHCTL ctl = {0};

		ctl.keysize = sizeof(pg_uuid_t);
		ctl.entrysize = sizeof(RtStatRun);
		ctl.hcxt = stats->context;
		stats->runs = hash_create("run_tracker names of runs", 64, &ctl,
								  HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	}
	stats->last = hash_search(stats->runs, run_id, HASH_ENTER, &found);
	if (!found)
	{
		RtStatRun *names = stats->last;
		RtRunInfo run = {0};

		(void) rt_run_lookup_before(run_id, &run);
		names->kind = copy_name(stats, run.kind, &names->kind_len);
		names->workflow_id = copy_name(stats, run.workflow_id, &names->workflow_id_len);
	}
	return stats->last;
}

/* A task has finished, with this outcome.  Whether it was usage, its row says. */
static void
count_finished_task(RtStats *stats, const RtStatRun *run, TupleTableSlot *row, const RtTable *t,
					const char *phase, int sign)
{
	AttrNumber usage_at = RT_ATT(t, tasks, usage_at);
	AttrNumber first_token = RT_ATT(t, tasks, time_to_first_token_ms);
	AttrNumber model = RT_ATT(t, tasks, model);
	bool isnull;
	Datum cost;
	RtStatKey key;
	RtStat *stat;

	begin_key(&key, "task", phase);
	key.names[RT_STAT_KIND] = run->kind;
	key.lens[RT_STAT_KIND] = run->kind_len;
	key.names[RT_STAT_WORKFLOW_ID] = run->workflow_id;
	key.lens[RT_STAT_WORKFLOW_ID] = run->workflow_id_len;
	name_from(&key, RT_STAT_USER_ID, row, RT_ATT(t, tasks, user_id));
	name_from(&key, RT_STAT_PROVIDER, row, RT_ATT(t, tasks, provider));
	name_from(&key, RT_STAT_OPERATION, row, RT_ATT(t, tasks, operation));
	(void) slot_getattr(row, model, &isnull);
	name_from(&key, RT_STAT_MODEL, row, isnull ? RT_ATT(t, tasks, response_model) : model);
	key.period_at = hour_of(rt_slot_int64(row, RT_ATT(t, tasks, finished_at)));
	(void) slot_getattr(row, usage_at, &isnull);
	if (!isnull)
		key.usage_on = rt_usage_day(rt_slot_int64(row, usage_at));

	stat = rt_stats_get(stats, &key);
	rt_stat_count(stat, RT_STAT_FINISHED, sign);
	rt_stat_count(stat, RT_STAT_INPUT_TOKENS,
				  sign * rt_slot_int64(row, RT_ATT(t, tasks, input_tokens)));
	rt_stat_count(stat, RT_STAT_OUTPUT_TOKENS,
				  sign * rt_slot_int64(row, RT_ATT(t, tasks, output_tokens)));
	rt_stat_count(stat, RT_STAT_TOTAL_TOKENS,
				  sign * rt_slot_int64(row, RT_ATT(t, tasks, total_tokens)));
	cost = slot_getattr(row, RT_ATT(t, tasks, cost), &isnull);
	if (!isnull)
		rt_stat_cost(stats, stat, cost, sign);
	add_ms(stats, stat, RT_STAT_DURATION_MS, &stat->durations,
		   rt_slot_int64(row, RT_ATT(t, tasks, duration_ms)), sign);
	(void) slot_getattr(row, first_token, &isnull);
	if (!isnull)
		add_ms(stats, stat, RT_STAT_FIRST_TOKEN_MS, &stat->first_tokens,
			   rt_slot_int64(row, first_token), sign);
}

/* The run of a task, by what statistics call it. */
static const RtStatRun *
run_of(RtStats *stats, TupleTableSlot *task, const RtTable *t)
{
	bool isnull;

	return find_run(stats, DatumGetUUIDP(slot_getattr(task, RT_ATT(t, tasks, run_id), &isnull)));
}

static void
names_from(RtStatRun *names, TupleTableSlot *run, const RtTable *t)
{
	RtStatKey key;

	name_from(&key, RT_STAT_KIND, run, RT_ATT(t, runs, kind));
	name_from(&key, RT_STAT_WORKFLOW_ID, run, RT_ATT(t, runs, workflow_id));
	names->kind = key.names[RT_STAT_KIND];
	names->kind_len = key.lens[RT_STAT_KIND];
	names->workflow_id = key.names[RT_STAT_WORKFLOW_ID];
	names->workflow_id_len = key.lens[RT_STAT_WORKFLOW_ID];
}

/*
 * A run gets another kind or workflow: what its tasks counted goes with it.  What the same
 * command does to its tasks, their own trigger counts, under the new names.
 */
static void
move_tasks(RtStats *stats, const RtChanges *changes, const RtTable *t)
{
	Relation rel = table_open(rt_table(RT_tasks)->relid, AccessShareLock);
	const RtTable *tasks = rt_table(RT_tasks);
	Snapshot snapshot = rt_latest_snapshot();
	RtStatRun names[2];
	RtProbe probe;
	bool isnull;

	snapshot->curcid = GetActiveSnapshot()->curcid;
	names_from(&names[0], changes->old, t);
	names_from(&names[1], changes->new, t);
	rt_probe_begin(&probe, rel, slot_getattr(changes->new, RT_ATT(t, runs, run_id), &isnull),
				   snapshot);
	while (rt_probe_next(&probe, ForwardScanDirection))
	{
		RtPhase phase = phase_of(probe.slot, RT_ATT(tasks, tasks, phase));

		CHECK_FOR_INTERRUPTS();
		if (RT_PHASE_IS_OPEN(phase))
			continue;
		count_finished_task(stats, &names[0], probe.slot, tasks, rt_phase_names[phase], -1);
		count_finished_task(stats, &names[1], probe.slot, tasks, rt_phase_names[phase], 1);
	}
	rt_probe_end(&probe);
	UnregisterSnapshot(snapshot);
	table_close(rel, NoLock);
}

/* What an UPDATE of a run contributes: mostly nothing. */
static void
count_changed_run(RtStats *stats, const RtChanges *changes, const RtTable *t)
{
	TupleTableSlot *old = changes->old;
	TupleTableSlot *new = changes->new;
	AttrNumber phase = RT_ATT(t, runs, phase);
	AttrNumber finished_at = RT_ATT(t, runs, finished_at);
	RtPhase before = phase_of(old, phase);
	RtPhase after = phase_of(new, phase);

	if (rt_changes_differ(changes, RT_ATT(t, runs, kind)) ||
		rt_changes_differ(changes, RT_ATT(t, runs, workflow_id)) ||
		rt_changes_differ(changes, RT_ATT(t, runs, settings)))
	{
		count_run(stats, old, t, -1);
		count_run(stats, new, t, 1);
		if (rt_changes_differ(changes, RT_ATT(t, runs, kind)) ||
			rt_changes_differ(changes, RT_ATT(t, runs, workflow_id)))
			move_tasks(stats, changes, t);
	}
	else if (before != after || rt_slot_int64(old, finished_at) != rt_slot_int64(new, finished_at))
	{
		if (!RT_PHASE_IS_OPEN(before))
			count_finished_run(stats, old, t, rt_phase_names[before], -1);
		if (!RT_PHASE_IS_OPEN(after))
			count_finished_run(stats, new, t, rt_phase_names[after], 1);
	}
	if (!RT_PHASE_IS_OPEN(before) && RT_PHASE_IS_OPEN(after))
		count_finished_run(stats, old, t, RETRIED, 1);
}

/* ----------------------------------------------------------------
 * Statements
 * ----------------------------------------------------------------
 */

/* Count a change of a task.  A statement's deltas are appended by rt_stats_end(). */
void
rt_stats_change_task(RtStats *stats, const RtChanges *changes, const RtTable *t)
{
	AttrNumber phase = RT_ATT(t, tasks, phase);
	RtPhase before = changes->old ? phase_of(changes->old, phase) : RT_QUEUED;
	RtPhase after = changes->new ? phase_of(changes->new, phase) : RT_QUEUED;
	MemoryContext old;

	/* what is deleted still counts */
	if (changes->new == NULL || (RT_PHASE_IS_OPEN(before) && RT_PHASE_IS_OPEN(after)))
		return;
	old = MemoryContextSwitchTo(stats->row_context);
	if (changes->old && !RT_PHASE_IS_OPEN(before))
		count_finished_task(stats, run_of(stats, changes->old, t), changes->old, t,
							rt_phase_names[before], -1);
	if (!RT_PHASE_IS_OPEN(after))
		count_finished_task(stats, run_of(stats, changes->new, t), changes->new, t,
							rt_phase_names[after], 1);
	else if (changes->old)
		count_finished_task(stats, run_of(stats, changes->old, t), changes->old, t, RETRIED, 1);
	MemoryContextSwitchTo(old);
	MemoryContextReset(stats->row_context);
}

/* What was recorded as usage. */
static void
count_usage(RtStats *stats, TupleTableSlot *row, const RtTable *t, int sign)
{
	TimestampTz used_at = rt_slot_int64(row, RT_ATT(t, usage_records, used_at));
	bool isnull;
	RtStatKey key;
	RtStat *stat;

	begin_key(&key, "usage", NULL);
	name_from(&key, RT_STAT_USER_ID, row, RT_ATT(t, usage_records, user_id));
	key.period_at = hour_of(used_at);
	key.usage_on = rt_usage_day(used_at);
	stat = rt_stats_get(stats, &key);
	rt_stat_count(stat, RT_STAT_FINISHED,
				  (int64) sign * DatumGetInt32(slot_getattr(row, RT_ATT(t, usage_records, requests),
															&isnull)));
	rt_stat_count(stat, RT_STAT_INPUT_TOKENS,
				  sign * rt_slot_int64(row, RT_ATT(t, usage_records, input_tokens)));
	rt_stat_count(stat, RT_STAT_OUTPUT_TOKENS,
				  sign * rt_slot_int64(row, RT_ATT(t, usage_records, output_tokens)));
	rt_stat_count(stat, RT_STAT_TOTAL_TOKENS,
				  sign * rt_slot_int64(row, RT_ATT(t, usage_records, total_tokens)));
	rt_stat_cost(stats, stat, slot_getattr(row, RT_ATT(t, usage_records, cost), &isnull), sign);
}

/* Count an entry of usage_records, or the difference that its correction makes. */
void
rt_stats_change_usage(RtStats *stats, const RtChanges *changes, const RtTable *t)
{
	MemoryContext old = MemoryContextSwitchTo(stats->row_context);

	if (changes->old && changes->new)
		count_usage(stats, changes->old, t, -1);
	if (changes->new)
		count_usage(stats, changes->new, t, 1);
	MemoryContextSwitchTo(old);
	MemoryContextReset(stats->row_context);
}

/* Count a change of a run. */
void
rt_stats_change_run(RtStats *stats, const RtChanges *changes, const RtTable *t)
{
	MemoryContext old = MemoryContextSwitchTo(stats->row_context);

	if (changes->old && changes->new)
		count_changed_run(stats, changes, t);
	else if (changes->new)
		count_run(stats, changes->new, t, 1);
	else if (changes->old && RT_PHASE_IS_OPEN(phase_of(changes->old, RT_ATT(t, runs, phase))))
		count_created_run(stats, changes->old, t, -1);
	MemoryContextSwitchTo(old);
	MemoryContextReset(stats->row_context);
}

/* Before TRUNCATE of runs: those that are open were never created. */
void
rt_stats_truncate_runs(void)
{
	Relation open_runs = table_open(rt_table(RT_open_runs)->relid, AccessShareLock);
	Relation runs = table_open(rt_table(RT_runs)->relid, AccessShareLock);
	Snapshot snapshot = rt_latest_snapshot();
	RtStats *stats = rt_stats_begin();
	TupleTableSlot *row = table_slot_create(open_runs, NULL);
	TableScanDesc scan = table_beginscan(open_runs, snapshot, 0, NULL);

	while (table_scan_getnextslot(scan, ForwardScanDirection, row))
	{
		bool isnull;
		Datum run_id =
			slot_getattr(row, RT_ATT(rt_table(RT_open_runs), open_runs, run_id), &isnull);
		MemoryContext old = MemoryContextSwitchTo(stats->row_context);
		RtProbe probe;

		CHECK_FOR_INTERRUPTS();
		rt_probe_begin(&probe, runs, run_id, snapshot);
		if (rt_probe_next(&probe, ForwardScanDirection) &&
			RT_PHASE_IS_OPEN(phase_of(probe.slot, RT_ATT(rt_table(RT_runs), runs, phase))))
			count_created_run(stats, probe.slot, rt_table(RT_runs), -1);
		rt_probe_end(&probe);
		MemoryContextSwitchTo(old);
		MemoryContextReset(stats->row_context);
	}
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(row);
	UnregisterSnapshot(snapshot);
	table_close(runs, NoLock);
	table_close(open_runs, NoLock);
	rt_stats_end(stats);
}

/* rows that are summed up before their sums are written */
#define HISTORY_BATCH 10000

/* Count what a row of a table that has no statistics yet contributes. */
static void
count_existing(RtStats *stats, RtTableId id, TupleTableSlot *row)
{
	const RtTable *t = rt_table(id);
	MemoryContext old = MemoryContextSwitchTo(stats->row_context);

	if (id == RT_runs)
		count_run(stats, row, t, 1);
	else
	{
		RtPhase phase = phase_of(row, RT_ATT(t, tasks, phase));

		if (!RT_PHASE_IS_OPEN(phase))
			count_finished_task(stats, run_of(stats, row, t), row, t, rt_phase_names[phase], 1);
	}
	MemoryContextSwitchTo(old);
	MemoryContextReset(stats->row_context);
}

static int64
count_table(RtTableId id)
{
	Relation rel = table_open(rt_table(id)->relid, AccessShareLock);
	Snapshot snapshot = rt_latest_snapshot();
	TupleTableSlot *row = table_slot_create(rel, NULL);
	TableScanDesc scan = table_beginscan(rel, snapshot, 0, NULL);
	RtStats *stats = rt_stats_begin();
	int64 n = 0;

	while (table_scan_getnextslot(scan, ForwardScanDirection, row))
	{
		CHECK_FOR_INTERRUPTS();
		count_existing(stats, id, row);
		if (++n % HISTORY_BATCH == 0)
		{
			rt_stats_end(stats);
			stats = rt_stats_begin();
		}
	}
	rt_stats_end(stats);
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(row);
	UnregisterSnapshot(snapshot);
	table_close(rel, NoLock);
	return n;
}

/*
 * count_history() → number of rows: fill statistics that are new from the ledger.  Only for
 * install(), which keeps everyone else away.
 */
Datum
run_tracker_count_history(PG_FUNCTION_ARGS)
{
	if (!rt_is_owner(rt_table(RT_stat_deltas)->relid, GetUserId()))
		aclcheck_error(ACLCHECK_NOT_OWNER, OBJECT_TABLE, rt_table_name(RT_stat_deltas));
	PG_RETURN_INT64(count_table(RT_runs) + count_table(RT_tasks));
}
