/*-------------------------------------------------------------------------
 *
 * tasks.c
 *		Triggers of tasks (model calls): lifecycle, tokens and cost, totals.
 *
 * A task that is completed touches its own row and a slot of its run's totals,
 * never the run: see totals.c for the locking protocol, and runs.c for how open
 * tasks and the end of their run exclude each other.
 *
 *-------------------------------------------------------------------------
 */
#include "run_tracker.h"

#include "access/detoast.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "common/int.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"
#include "utils/numeric.h"

#include "identity.h"
#include "notes.h"
#include "open_runs.h"
#include "responses.h"
#include "runs.h"
#include "stats.h"
#include "totals.h"
#include "usage.h"

PG_FUNCTION_INFO_V1(run_tracker_tasks_before);
PG_FUNCTION_INFO_V1(run_tracker_tasks_after);

/* ----------------------------------------------------------------
 * BEFORE ROW
 * ----------------------------------------------------------------
 */

static void
check_values(const RtRow *row)
{
	const RtTable *t = row->table;
	int64 input = rt_row_amount(row, RT_ATT(t, tasks, input_tokens));
	int64 output = rt_row_amount(row, RT_ATT(t, tasks, output_tokens));
	int64 cache_read = rt_row_amount(row, RT_ATT(t, tasks, cache_read_input_tokens));
	int64 cache_creation = rt_row_amount(row, RT_ATT(t, tasks, cache_creation_input_tokens));
	int64 reasoning = rt_row_amount(row, RT_ATT(t, tasks, reasoning_output_tokens));
	int64 cached;
	AttrNumber names[] = {RT_ATT(t, tasks, service),	   RT_ATT(t, tasks, name),
						  RT_ATT(t, tasks, operation),	   RT_ATT(t, tasks, provider),
						  RT_ATT(t, tasks, model),		   RT_ATT(t, tasks, response_model),
						  RT_ATT(t, tasks, finish_reason), RT_ATT(t, tasks, response_id),
						  RT_ATT(t, tasks, cost_source)};

	rt_row_check_names(row, names, lengthof(names));
	(void) rt_row_amount(row, RT_ATT(t, tasks, total_tokens));
	(void) rt_row_amount(row, RT_ATT(t, tasks, time_to_first_token_ms));

	if (!rt_row_isnull(row, RT_ATT(t, tasks, input_tokens)) &&
		(pg_add_s64_overflow(cache_read, cache_creation, &cached) || cached > input))
		rt_row_violation(row, RT_ATT(t, tasks, input_tokens),
						 psprintf("Input tokens include cached ones: %lld input tokens are fewer "
								  "than %lld read from and %lld written to the cache.",
								  (long long) input, (long long) cache_read,
								  (long long) cache_creation));
	if (!rt_row_isnull(row, RT_ATT(t, tasks, output_tokens)) && reasoning > output)
		rt_row_violation(row, RT_ATT(t, tasks, output_tokens),
						 psprintf("Output tokens include reasoning: %lld output tokens are fewer "
								  "than %lld reasoning tokens.",
								  (long long) output, (long long) reasoning));

	rt_row_check_cost(row, RT_ATT(t, tasks, cost));
	rt_row_check_json(row, RT_ATT(t, tasks, metadata), false);
	rt_row_check_size(row);
}

/* The total is the sum of input and output unless the client says otherwise. */
static void
set_total_tokens(RtRow *row)
{
	const RtTable *t = row->table;
	AttrNumber input = RT_ATT(t, tasks, input_tokens);
	AttrNumber output = RT_ATT(t, tasks, output_tokens);
	AttrNumber total = RT_ATT(t, tasks, total_tokens);
	int64 sum;

	if (rt_row_isnull(row, input) && rt_row_isnull(row, output))
		return;
	if (!rt_row_isnull(row, total))
	{
		/* follow a correction, if the total was the sum before and is not set itself */
		if (row->old == NULL || rt_row_differs(row, total) ||
			!(rt_row_differs(row, input) || rt_row_differs(row, output)) ||
			DatumGetInt64(row->old_values[total - 1]) !=
				(row->old_nulls[input - 1] ? 0 : DatumGetInt64(row->old_values[input - 1])) +
					(row->old_nulls[output - 1] ? 0 : DatumGetInt64(row->old_values[output - 1])))
			return;
	}
	if (pg_add_s64_overflow(rt_row_amount(row, input), rt_row_amount(row, output), &sum))
		ereport(ERROR, (errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
						errmsg("total tokens out of range"), errtablecol(row->rel, total)));
	rt_row_set(row, total, Int64GetDatum(sum));
}

/* A retried model call begins with nothing of the last one. */
static void
clear_last_call(RtRow *row)
{
	const RtTable *t = row->table;
	AttrNumber columns[] = {RT_ATT(t, tasks, response),
							RT_ATT(t, tasks, input_tokens),
							RT_ATT(t, tasks, output_tokens),
							RT_ATT(t, tasks, total_tokens),
							RT_ATT(t, tasks, cache_read_input_tokens),
							RT_ATT(t, tasks, cache_creation_input_tokens),
							RT_ATT(t, tasks, reasoning_output_tokens),
							RT_ATT(t, tasks, cost),
							RT_ATT(t, tasks, cost_source),
							RT_ATT(t, tasks, finish_reason),
							RT_ATT(t, tasks, response_id),
							RT_ATT(t, tasks, time_to_first_token_ms)};

	for (int i = 0; i < lengthof(columns); i++)
		if (!rt_row_differs(row, columns[i]))
			rt_row_set_null(row, columns[i]);
}

static bool
is_empty(Datum text, bool isnull)
{
	return isnull || toast_raw_datum_size(text) == VARHDRSZ;
}

/*
 * The first text of a response that is still under way: that was the first token.  If it is
 * what starts the task, the call began when the task was created, or queued again.
 */
static void
note_first_token(RtRow *row)
{
	const RtTable *t = row->table;
	AttrNumber response = RT_ATT(t, tasks, response);
	AttrNumber started_at = RT_ATT(t, tasks, started_at);
	AttrNumber first = RT_ATT(t, tasks, time_to_first_token_ms);
	TimestampTz since;

	if (!rt_row_isnull(row, first) || rt_row_isnull(row, started_at) ||
		is_empty(rt_row_get(row, response), rt_row_isnull(row, response)) ||
		!is_empty(row->old_values[response - 1], row->old_nulls[response - 1]) ||
		!RT_PHASE_IS_OPEN(rt_phase_decode(rt_row_get(row, RT_ATT(t, tasks, phase)))))
		return;
	if (!row->old_nulls[started_at - 1])
		since = DatumGetTimestampTz(rt_row_get(row, started_at));
	else if (DatumGetInt32(rt_row_get(row, RT_ATT(t, tasks, attempt))) == 1)
		since = DatumGetTimestampTz(rt_row_get(row, RT_ATT(t, tasks, created_at)));
	else
		since = DatumGetTimestampTz(row->old_values[RT_ATT(t, tasks, updated_at) - 1]);
	rt_row_set(row, first, Int64GetDatum(rt_elapsed_ms(since, GetCurrentTimestamp())));
}

/*
 * A task counts as usage from when it finishes, if it is anybody's; what is inserted as
 * finished is no usage.
 */
static void
note_usage(RtRow *row, RtMove move, AttrNumber finished_at)
{
	AttrNumber usage_at = RT_ATT(row->table, tasks, usage_at);

	if (move == RT_MOVE_FINISH &&
		toast_raw_datum_size(rt_row_get(row, RT_ATT(row->table, tasks, user_id))) > VARHDRSZ)
		rt_row_set(row, usage_at, rt_row_get(row, finished_at));
	else if (move == RT_MOVE_RETRY)
		rt_row_set_null(row, usage_at);
	else
		rt_row_keep(row, usage_at);
}

/* Is the task open, as it will be written? */
static bool
is_open(const RtRow *row)
{
	return RT_PHASE_IS_OPEN(rt_phase_decode(rt_row_get(row, RT_ATT(row->table, tasks, phase))));
}

/*
 * The reservation that a task is given must be one of its user's.  A task that has finished
 * settles none: its reservation may be gone by now.
 */
static void
check_reservation(const RtRow *row)
{
	const RtTable *t = row->table;
	AttrNumber reservation_id = RT_ATT(t, tasks, reservation_id);

	if (!rt_row_isnull(row, reservation_id) && (row->old || is_open(row)) &&
		(row->old == NULL || rt_row_differs(row, reservation_id)))
		rt_reservation_check(rt_row_get(row, reservation_id),
							 rt_row_get(row, RT_ATT(t, tasks, user_id)));
}

/* BEFORE INSERT OR UPDATE FOR EACH ROW on tasks: the lifecycle, and derived columns. */
Datum
run_tracker_tasks_before(PG_FUNCTION_ARGS)
{
	const RtTable *t = rt_trigger_check(fcinfo, RT_tasks, RT_BEFORE_ROW, "tasks_before");
	TriggerData *trigdata = (TriggerData *) fcinfo->context;
	RtStatusColumns c = RT_STATUS_COLUMNS(t, tasks);
	RtRow row;

	rt_row_begin(&row, trigdata, t);
	if (TRIGGER_FIRED_BY_INSERT(trigdata->tg_event))
	{
		check_values(&row);
		rt_run_adopt(&row, RT_ATT(t, tasks, run_id), RT_ATT(t, tasks, user_id));
		rt_row_default_id(&row, RT_ATT(t, tasks, task_id));
		(void) rt_status_insert(&row, &c, "task", rt_identity_is_service());
		/* a restored one that has finished keeps it */
		if (is_open(&row))
			rt_row_set_null(&row, RT_ATT(t, tasks, usage_at));
		check_reservation(&row);
	}
	else
	{
		AttrNumber run_id = RT_ATT(t, tasks, run_id);
		bool moved = rt_row_differs(&row, run_id);
		bool forced = rt_tasks_close_with_run(&row, &c);
		RtMove move;

		check_values(&row);
		if (moved)
			rt_run_adopt(&row, run_id, RT_ATT(t, tasks, user_id));
		move = rt_status_update(&row, &c, "task", forced);
		if (move == RT_MOVE_RETRY)
			clear_last_call(&row);
		else
			note_first_token(&row);
		rt_response_complete(&row);
		note_usage(&row, move, c.finished_at);
		check_reservation(&row);
		if ((move == RT_MOVE_RETRY || moved) && is_open(&row))
			rt_run_require_open(DatumGetUUIDP(rt_row_get(&row, run_id)), true);
	}
	set_total_tokens(&row);
	return rt_row_end(&row);
}

/* ----------------------------------------------------------------
 * AFTER STATEMENT
 * ----------------------------------------------------------------
 */

static void
count_column(RtDelta *delta, RtCounter counter, TupleTableSlot *row, AttrNumber att, int sign)
{
	bool isnull;
	Datum value = slot_getattr(row, att, &isnull);

	if (!isnull)
		rt_delta_count(delta, counter, sign * DatumGetInt64(value));
}

/* What a task counts: as open, or else with its outcome, tokens and cost. */
static void
task_contribution(RtDelta *delta, TupleTableSlot *row, const RtTable *t, int sign)
{
	bool isnull;
	Datum value;
	RtPhase phase = rt_phase_decode(slot_getattr(row, RT_ATT(t, tasks, phase), &isnull));

	if (RT_PHASE_IS_OPEN(phase))
	{
		rt_delta_count(delta, RT_COUNT_OPEN_TASKS, sign);
		return;
	}
	if (phase == RT_SUCCEEDED)
	{
		TimestampTz finished_at =
			DatumGetTimestampTz(slot_getattr(row, RT_ATT(t, tasks, finished_at), &isnull));

		rt_delta_count(delta, RT_COUNT_TASKS, sign);
		if (sign > 0 && !isnull && finished_at > delta->last_message_at)
			delta->last_message_at = finished_at;
	}
	else if (phase != RT_CANCELLED)
		rt_delta_count(delta, RT_COUNT_FAILED_TASKS, sign);

	count_column(delta, RT_COUNT_INPUT_TOKENS, row, RT_ATT(t, tasks, input_tokens), sign);
	count_column(delta, RT_COUNT_OUTPUT_TOKENS, row, RT_ATT(t, tasks, output_tokens), sign);
	count_column(delta, RT_COUNT_TOTAL_TOKENS, row, RT_ATT(t, tasks, total_tokens), sign);
	value = slot_getattr(row, RT_ATT(t, tasks, cost), &isnull);
	if (!isnull)
		rt_delta_cost(delta, value, sign);
}

/* Is a row of tasks that of an open task? */
bool
rt_task_is_open(TupleTableSlot *row, const RtTable *t)
{
	bool isnull;

	return RT_PHASE_IS_OPEN(rt_phase_decode(slot_getattr(row, RT_ATT(t, tasks, phase), &isnull)));
}

static TimestampTz
status_since(TupleTableSlot *row, const RtTable *t)
{
	AttrNumber columns[] = {RT_ATT(t, tasks, finished_at), RT_ATT(t, tasks, started_at),
							RT_ATT(t, tasks, created_at)};
	bool isnull;
	Datum value = (Datum) 0;

	for (int i = 0; i < lengthof(columns); i++)
	{
		value = slot_getattr(row, columns[i], &isnull);
		if (!isnull)
			break;
	}
	return DatumGetTimestampTz(value);
}

static Datum
copy_text(TupleTableSlot *row, AttrNumber att)
{
	bool isnull;
	Datum value = slot_getattr(row, att, &isnull);

	return isnull ? (Datum) 0 : PointerGetDatum(PG_DETOAST_DATUM_COPY(value));
}

/* The status changes of a statement, for the history. */
typedef struct History
{
	int n;
	int size;
	RtTransition *transitions;
} History;

/* Note a change of a task, if it is one of its status. */
static void
note_transition(History *history, const RtChanges *changes, const RtTable *t)
{
	TupleTableSlot *new = changes->new;
	AttrNumber status = RT_ATT(t, tasks, status);
	RtTransition *transition;
	pg_uuid_t *task_id;
	bool isnull;

	if (!rt_changes_differ(changes, status))
		return;
	if (history->n == history->size)
	{
		history->size = Max(history->size * 2, 16);
		history->transitions =
			history->transitions ?
				repalloc_huge(history->transitions, sizeof(RtTransition) * history->size) :
				palloc(sizeof(RtTransition) * history->size);
	}
	transition = &history->transitions[history->n++];
	task_id = palloc(sizeof(pg_uuid_t));
	*task_id = *DatumGetUUIDP(slot_getattr(new, RT_ATT(t, tasks, task_id), &isnull));
	transition->run_id = *DatumGetUUIDP(slot_getattr(new, RT_ATT(t, tasks, run_id), &isnull));
	transition->user_id = copy_text(new, RT_ATT(t, tasks, user_id));
	transition->task_id = task_id;
	transition->from = copy_text(changes->old, status);
	transition->to = copy_text(new, status);
	transition->attempt = DatumGetInt32(slot_getattr(new, RT_ATT(t, tasks, attempt), &isnull));
	transition->reason =
		rt_task_is_open(new, t) ? (Datum) 0 : copy_text(new, RT_ATT(t, tasks, error));
	transition->since = status_since(changes->old, t);
}

/*
 * AFTER INSERT, UPDATE or DELETE FOR EACH STATEMENT on tasks: totals of the runs,
 * and the check that runs with new open tasks are open.
 */
Datum
run_tracker_tasks_after(PG_FUNCTION_ARGS)
{
	const RtTable *t = rt_trigger_check(fcinfo, RT_tasks, RT_AFTER_STATEMENT, "tasks_after");
	TriggerData *trigdata = (TriggerData *) fcinfo->context;
	AttrNumber run_id = RT_ATT(t, tasks, run_id);
	RtFold *fold = rt_fold_begin();
	RtStats *stats = rt_stats_begin();
	RtResponses *responses = NULL;
	RtSettlements *settlements = NULL;
	RtRetries retries = {.open = false};
	History history = {0};
	RtChanges changes;
	RtDelta **deltas;
	int n;

	/* see what other parts of the statement did */
	CommandCounterIncrement();
	rt_changes_begin(&changes, trigdata);
	while (rt_changes_next(&changes))
	{
		rt_fold_change(fold, &changes, t, run_id, task_contribution);
		rt_stats_change_task(stats, &changes, t);
		rt_responses_note(&responses, &changes, t);
		rt_settlements_note(&settlements, &changes, t);
		rt_retries_note(&retries, &changes, t);
		if (rt_task_transitions && changes.old && changes.new)
			note_transition(&history, &changes, t);
	}
	rt_changes_end(&changes);
	rt_retries_end(&retries);
	n = rt_fold_deltas(fold, &deltas);

	for (int i = 0; i < n; i++)
	{
		/* by now, the foreign key or tasks_before holds the run */
		if (deltas[i]->counts[RT_COUNT_OPEN_TASKS] > 0)
			rt_run_require_open(&deltas[i]->run_id, false);
		/* a task that is inserted as finished is a fact, no event */
		if (trigdata->tg_oldtable || deltas[i]->counts[RT_COUNT_OPEN_TASKS] > 0)
			rt_note_run(&deltas[i]->run_id);
		/* a response is a message, too, for whoever sorts conversations by their last one */
		if (deltas[i]->counts[RT_COUNT_TASKS] <= 0 || !trigdata->tg_newtable)
			deltas[i]->last_message_at = DT_NOBEGIN;
	}

	rt_totals_apply(deltas, n);
	if (trigdata->tg_newtable)
		rt_open_runs_touch(deltas, n);
	rt_responses_forget(responses);
	rt_stats_end(stats);
	rt_settlements_apply(settlements);
	rt_transitions_write(history.transitions, history.n);
	rt_fold_end(fold);
	return PointerGetDatum(NULL);
}
