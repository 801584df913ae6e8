/*-------------------------------------------------------------------------
 *
 * task_calls.c
 *		The functions that applications call to create and move tasks.
 *
 *-------------------------------------------------------------------------
 */
#include "run_tracker.h"

#include "utils/builtins.h"

#include "calls.h"
#include "runs.h"

PG_FUNCTION_INFO_V1(run_tracker_create_task);
PG_FUNCTION_INFO_V1(run_tracker_start_task);
PG_FUNCTION_INFO_V1(run_tracker_complete_task);
PG_FUNCTION_INFO_V1(run_tracker_fail_task);
PG_FUNCTION_INFO_V1(run_tracker_cancel_task);
PG_FUNCTION_INFO_V1(run_tracker_task_target);

static RtPlan find_task = {"SELECT lifecycle, status, attempt FROM run_tracker.tasks "
						   "WHERE task_id = $1 FOR NO KEY UPDATE",
						   1,
						   {UUIDOID}};

/*
 * create_task(run_id, task_id, name, service, operation, provider, model, request,
 * parent_task_id, lifecycle, metadata, reservation_id) → task_id
 */
Datum
run_tracker_create_task(PG_FUNCTION_ARGS)
{
	static RtPlan plan =
		{"INSERT INTO run_tracker.tasks (run_id, task_id, name, service, operation, provider, model, "
		 "request, parent_task_id, lifecycle, metadata, reservation_id) "
		 "VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) RETURNING task_id",
		 12,
		 {UUIDOID, UUIDOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, JSONBOID, UUIDOID, TEXTOID,
		  JSONBOID, UUIDOID}};

	rt_call_require(fcinfo, 0, "run_id");
	rt_run_require(PG_GETARG_DATUM(0));
	return rt_call_insert(&plan, fcinfo, RT_tasks);
}

/* start_task(task_id, status, attempt) → changed */
Datum
run_tracker_start_task(PG_FUNCTION_ARGS)
{
	static RtPlan update = {"UPDATE run_tracker.tasks SET status = $2 WHERE task_id = $1",
							2,
							{UUIDOID, TEXTOID}};
	RtMoveCall call = {.table = RT_tasks,
					   .word = "task",
					   .find = &find_task,
					   .update = &update,
					   .wanted = {RT_ACTIVE},
					   .nwanted = 1,
					   .attempt_arg = 2};

	if (!PG_ARGISNULL(1))
		call.status = PG_GETARG_DATUM(1);
	PG_RETURN_BOOL(rt_call_move(fcinfo, &call, NULL, 0));
}

/*
 * complete_task(task_id, response, input_tokens, output_tokens, cost,
 * time_to_first_token_ms, result, total_tokens, cache_read_input_tokens,
 * cache_creation_input_tokens, reasoning_output_tokens, response_model, finish_reason,
 * response_id, cost_source, attempt) → changed
 */
Datum
run_tracker_complete_task(PG_FUNCTION_ARGS)
{
	static RtPlan update =
		{"UPDATE run_tracker.tasks SET status = $2, response = COALESCE($3, response), "
		 "input_tokens = COALESCE($4, input_tokens), output_tokens = COALESCE($5, output_tokens), "
		 "cost = COALESCE($6, cost), "
		 "time_to_first_token_ms = COALESCE($7, time_to_first_token_ms), "
		 "result = COALESCE($8, result), total_tokens = COALESCE($9, total_tokens), "
		 "cache_read_input_tokens = COALESCE($10, cache_read_input_tokens), "
		 "cache_creation_input_tokens = COALESCE($11, cache_creation_input_tokens), "
		 "reasoning_output_tokens = COALESCE($12, reasoning_output_tokens), "
		 "response_model = COALESCE($13, response_model), "
		 "finish_reason = COALESCE($14, finish_reason), "
		 "response_id = COALESCE($15, response_id), cost_source = COALESCE($16, cost_source) "
		 "WHERE task_id = $1",
		 16,
		 {UUIDOID, TEXTOID, TEXTOID, INT8OID, INT8OID, NUMERICOID, INT8OID, JSONBOID, INT8OID,
		  INT8OID, INT8OID, INT8OID, TEXTOID, TEXTOID, TEXTOID, TEXTOID}};
	RtMoveCall call = {.table = RT_tasks,
					   .word = "task",
					   .find = &find_task,
					   .update = &update,
					   .wanted = {RT_SUCCEEDED},
					   .nwanted = 1,
					   .attempt_arg = 15};

	PG_RETURN_BOOL(rt_call_move(fcinfo, &call, &fcinfo->args[1], 14));
}

/*
 * fail_task(task_id, error, error_detail, input_tokens, output_tokens, cost, attempt)
 * → changed
 */
Datum
run_tracker_fail_task(PG_FUNCTION_ARGS)
{
	static RtPlan update =
		{"UPDATE run_tracker.tasks SET status = $2, error = COALESCE($3, error), "
		 "error_detail = COALESCE($4, error_detail), "
		 "input_tokens = COALESCE($5, input_tokens), output_tokens = COALESCE($6, output_tokens), "
		 "cost = COALESCE($7, cost) WHERE task_id = $1",
		 7,
		 {UUIDOID, TEXTOID, TEXTOID, TEXTOID, INT8OID, INT8OID, NUMERICOID}};
	RtMoveCall call = {.table = RT_tasks,
					   .word = "task",
					   .find = &find_task,
					   .update = &update,
					   .wanted = {RT_FAILED},
					   .nwanted = 1,
					   .attempt_arg = 6};

	PG_RETURN_BOOL(rt_call_move(fcinfo, &call, &fcinfo->args[1], 5));
}

/* cancel_task(task_id, reason, attempt) → changed */
Datum
run_tracker_cancel_task(PG_FUNCTION_ARGS)
{
	static RtPlan update = {"UPDATE run_tracker.tasks SET status = $2, error = COALESCE($3, error) "
							"WHERE task_id = $1",
							3,
							{UUIDOID, TEXTOID, TEXTOID}};
	RtMoveCall call = {.table = RT_tasks,
					   .word = "task",
					   .find = &find_task,
					   .update = &update,
					   .wanted = {RT_CANCELLED},
					   .nwanted = 1,
					   .attempt_arg = 2};

	PG_RETURN_BOOL(rt_call_move(fcinfo, &call, &fcinfo->args[1], 1));
}

/*
 * task_target(lifecycle, status) → the status that complete_task() takes such a task to: the
 * same for one that has succeeded, null if its lifecycle lists none
 */
Datum
run_tracker_task_target(PG_FUNCTION_ARGS)
{
	const RtLifecycle *lifecycle = rt_lifecycle_get(PG_GETARG_DATUM(0));
	int from = rt_lifecycle_state_required(lifecycle, PG_GETARG_DATUM(1));
	int to = from;

	if (lifecycle->states[from].phase != RT_SUCCEEDED)
		to = rt_lifecycle_next(lifecycle, from, RT_SUCCEEDED);
	if (to < 0)
		PG_RETURN_NULL();
	PG_RETURN_DATUM(CStringGetTextDatum(lifecycle->states[to].name));
}
