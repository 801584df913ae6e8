/*-------------------------------------------------------------------------
 *
 * run_calls.c
 *		The functions that applications call to create and move runs.
 *
 * Calls that move a run first wait for whoever is changing its tasks, and calls that
 * end it lock it FOR UPDATE at once, which waits for whoever inserts children: both while
 * they hold nothing yet themselves.
 *
 *-------------------------------------------------------------------------
 */
#include "run_tracker.h"

#include "utils/builtins.h"
#include "utils/fmgrprotos.h"

#include "calls.h"
#include "claims.h"
#include "identity.h"
#include "runs.h"

PG_FUNCTION_INFO_V1(run_tracker_create_run);
PG_FUNCTION_INFO_V1(run_tracker_start_run);
PG_FUNCTION_INFO_V1(run_tracker_complete_run);
PG_FUNCTION_INFO_V1(run_tracker_fail_run);
PG_FUNCTION_INFO_V1(run_tracker_cancel_run);
PG_FUNCTION_INFO_V1(run_tracker_retry_run);
PG_FUNCTION_INFO_V1(run_tracker_transition_run);
PG_FUNCTION_INFO_V1(run_tracker_update_progress);

#define FIND_RUN                                                                                   \
	"SELECT lifecycle, status, attempt, phase, progress, current_step "                            \
	"FROM run_tracker.runs WHERE run_id = $1 FOR "

static RtPlan find_run = {FIND_RUN "NO KEY UPDATE", 1, {UUIDOID}};
static RtPlan find_ending_run = {FIND_RUN "UPDATE", 1, {UUIDOID}};

/*
 * create_run(run_id, kind, name, lifecycle, inputs, settings, variables, plan, metadata,
 * user_id, workflow_id, session_id, subject_id, parent_run_id, priority, scheduled_at,
 * max_attempts, timeout, max_duration, retry_base, retry_cap) → run_id
 */
Datum
run_tracker_create_run(PG_FUNCTION_ARGS)
{
	static RtPlan plan =
		{"INSERT INTO run_tracker.runs (run_id, kind, name, lifecycle, inputs, settings, variables, "
		 "plan, metadata, user_id, workflow_id, session_id, subject_id, parent_run_id, priority, "
		 "scheduled_at, max_attempts, timeout, max_duration, retry_base, retry_cap) "
		 "VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, "
		 "$19, $20, $21) ON CONFLICT (run_id) DO NOTHING RETURNING run_id",
		 21,
		 {UUIDOID,	TEXTOID,		TEXTOID, TEXTOID,	  JSONBOID,	   JSONBOID,	JSONBOID,
		  JSONBOID, JSONBOID,		TEXTOID, TEXTOID,	  TEXTOID,	   TEXTOID,		UUIDOID,
		  INT4OID,	TIMESTAMPTZOID, INT4OID, INTERVALOID, INTERVALOID, INTERVALOID, INTERVALOID}};
	RtRunInfo run;
	Datum result = (Datum) 0;
	bool isnull;

	(void) rt_table(RT_runs);
	SPI_connect();
	rt_plan_execute(&plan, fcinfo->args, SPI_OK_INSERT_RETURNING, false);
	if (SPI_processed == 1)
	{
		result = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
		result = SPI_datumTransfer(result, false, UUID_LEN);
	}
	SPI_finish();
	if (result != (Datum) 0)
		return result;

	/* a repeated request, or somebody else's run */
	if (PG_ARGISNULL(0) || !rt_run_lookup(PG_GETARG_UUID_P(0), &run) ||
		!rt_identity_owns(run.user_id))
		ereport(ERROR, (errcode(ERRCODE_UNIQUE_VIOLATION), errmsg("run exists already"),
						PG_ARGISNULL(0) ?
							0 :
							errdetail("Run %s is not yours.", rt_uuid_string(PG_GETARG_DATUM(0))),
						errhint("Create the run with another id.")));
	PG_RETURN_DATUM(PG_GETARG_DATUM(0));
}

/* start_run(run_id, worker, attempt) → changed */
Datum
run_tracker_start_run(PG_FUNCTION_ARGS)
{
	static RtPlan update = {"UPDATE run_tracker.runs SET status = $2, "
							"worker = COALESCE($3, worker) WHERE run_id = $1",
							3,
							{UUIDOID, TEXTOID, TEXTOID}};
	RtMoveCall call = {.table = RT_runs,
					   .word = "run",
					   .find = &find_run,
					   .update = &update,
					   .wanted = {RT_ACTIVE},
					   .nwanted = 1,
					   .attempt_arg = 2};

	PG_RETURN_BOOL(rt_call_move(fcinfo, &call, &fcinfo->args[1], 1));
}

/* complete_run(run_id, result, reflections, metrics, attempt) → changed */
Datum
run_tracker_complete_run(PG_FUNCTION_ARGS)
{
	static RtPlan update =
		{"UPDATE run_tracker.runs SET status = $2, result = COALESCE($3, result), "
		 "reflections = COALESCE($4, reflections), metrics = COALESCE($5, metrics) "
		 "WHERE run_id = $1",
		 5,
		 {UUIDOID, TEXTOID, JSONBOID, JSONBOID, JSONBOID}};
	RtMoveCall call = {.table = RT_runs,
					   .word = "run",
					   .find = &find_ending_run,
					   .update = &update,
					   .wanted = {RT_SUCCEEDED},
					   .nwanted = 1,
					   .ends = true,
					   .attempt_arg = 4};

	PG_RETURN_BOOL(rt_call_move(fcinfo, &call, &fcinfo->args[1], 3));
}

/* Send a run that has just failed back to the queue, with backoff, if it has attempts left. */
static void
try_again(Datum run_id)
{
	static RtPlan update = {"UPDATE run_tracker.runs SET status = $2, scheduled_at = $3 "
							"WHERE run_id = $1",
							3,
							{UUIDOID, TEXTOID, TIMESTAMPTZOID}};
	NullableDatum args[3] = {{run_id, false}, {0}, {0}};
	const RtLifecycle *lifecycle;
	RtRun run;
	int to;

	if (!rt_run_fetch(DatumGetUUIDP(run_id), &run) || run.attempt >= run.max_attempts)
		return;
	lifecycle = rt_lifecycle_get(run.lifecycle);
	to =
		rt_lifecycle_next(lifecycle, rt_lifecycle_state_required(lifecycle, run.status), RT_QUEUED);
	if (to < 0)
		return;
	args[1].value = CStringGetTextDatum(lifecycle->states[to].name);
	args[2].value = TimestampTzGetDatum(rt_retry_at(&run, GetCurrentTimestamp()));
	SPI_connect();
	rt_plan_execute(&update, args, SPI_OK_UPDATE, false);
	SPI_finish();
}

/* fail_run(run_id, error, error_detail, attempt, retry) → changed */
Datum
run_tracker_fail_run(PG_FUNCTION_ARGS)
{
	static RtPlan update = {"UPDATE run_tracker.runs SET status = $2, error = COALESCE($3, error), "
							"error_detail = COALESCE($4, error_detail) WHERE run_id = $1",
							4,
							{UUIDOID, TEXTOID, TEXTOID, TEXTOID}};
	RtMoveCall call = {.table = RT_runs,
					   .word = "run",
					   .find = &find_ending_run,
					   .update = &update,
					   .wanted = {RT_FAILED},
					   .nwanted = 1,
					   .ends = true,
					   .attempt_arg = 3};
	bool changed = rt_call_move(fcinfo, &call, &fcinfo->args[1], 2);

	if (changed && !PG_ARGISNULL(4) && PG_GETARG_BOOL(4))
		try_again(PG_GETARG_DATUM(0));
	PG_RETURN_BOOL(changed);
}

/* cancel_run(run_id, reason, attempt) → changed */
Datum
run_tracker_cancel_run(PG_FUNCTION_ARGS)
{
	static RtPlan update =
		{"UPDATE run_tracker.runs SET status = $2, error = COALESCE($3, error) WHERE run_id = $1",
		 3,
		 {UUIDOID, TEXTOID, TEXTOID}};
	RtMoveCall call = {.table = RT_runs,
					   .word = "run",
					   .find = &find_ending_run,
					   .update = &update,
					   .wanted = {RT_CANCELLED},
					   .nwanted = 1,
					   .ends = true,
					   .attempt_arg = 2};

	PG_RETURN_BOOL(rt_call_move(fcinfo, &call, &fcinfo->args[1], 1));
}

/* retry_run(run_id, delay, attempt) → changed */
Datum
run_tracker_retry_run(PG_FUNCTION_ARGS)
{
	static RtPlan update = {"UPDATE run_tracker.runs SET status = $2, scheduled_at = $3 "
							"WHERE run_id = $1",
							3,
							{UUIDOID, TEXTOID, TIMESTAMPTZOID}};
	RtMoveCall call = {.table = RT_runs,
					   .word = "run",
					   .find = &find_run,
					   .update = &update,
					   .wanted = {RT_QUEUED, RT_ACTIVE, RT_WAITING},
					   .nwanted = 3,
					   .again = true,
					   .attempt_arg = 2};
	NullableDatum scheduled_at = rt_call_delay(fcinfo, 1);

	PG_RETURN_BOOL(rt_call_move(fcinfo, &call, &scheduled_at, 1));
}

/* transition_run(run_id, status, result, error, error_detail, attempt) → changed */
Datum
run_tracker_transition_run(PG_FUNCTION_ARGS)
{
	static RtPlan update =
		{"UPDATE run_tracker.runs SET status = $2, result = COALESCE($3, result), "
		 "error = COALESCE($4, error), error_detail = COALESCE($5, error_detail) "
		 "WHERE run_id = $1",
		 5,
		 {UUIDOID, TEXTOID, JSONBOID, TEXTOID, TEXTOID}};
	RtRun run;
	RtMoveCall call = {.table = RT_runs,
					   .word = "run",
					   .find = &find_ending_run,
					   .update = &update,
					   .ends = true,
					   .attempt_arg = 5};

	rt_call_require(fcinfo, 0, "run_id");
	rt_call_require(fcinfo, 1, "status");
	call.status = PG_GETARG_DATUM(1);
	rt_run_require(PG_GETARG_DATUM(0));
	/* what does not end the run need not wait for whoever adds to it */
	if (rt_run_fetch(PG_GETARG_UUID_P(0), &run))
	{
		const RtLifecycle *lifecycle = rt_lifecycle_get(run.lifecycle);
		int state = rt_lifecycle_state(lifecycle, call.status);

		if (state >= 0 && RT_PHASE_IS_OPEN(lifecycle->states[state].phase))
		{
			call.find = &find_run;
			call.ends = false;
		}
	}
	PG_RETURN_BOOL(rt_call_move(fcinfo, &call, &fcinfo->args[2], 3));
}

/* Is an argument given, and different from what a column holds? */
static bool
argument_differs(FunctionCallInfo fcinfo, int arg, char *column)
{
	char *value;

	if (PG_ARGISNULL(arg))
		return false;
	value =
		arg == 1 ? psprintf("%d", PG_GETARG_INT32(arg)) : TextDatumGetCString(PG_GETARG_DATUM(arg));
	return column == NULL || strcmp(column, value) != 0;
}

/* update_progress(run_id, progress, current_step, attempt) → changed */
Datum
run_tracker_update_progress(PG_FUNCTION_ARGS)
{
	static RtPlan update =
		{"UPDATE run_tracker.runs SET progress = COALESCE($2::smallint, progress), "
		 "current_step = COALESCE($3, current_step) WHERE run_id = $1",
		 3,
		 {UUIDOID, INT4OID, TEXTOID}};
	HeapTuple row;
	TupleDesc desc;
	bool isnull;
	bool changed;

	rt_call_require(fcinfo, 0, "run_id");
	if (!PG_ARGISNULL(1) && (PG_GETARG_INT32(1) < 0 || PG_GETARG_INT32(1) > 100))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("argument \"progress\" is out of range"),
						errdetail("Progress is %d, it must be 0 to 100.", PG_GETARG_INT32(1))));

	(void) rt_table(RT_runs);
	SPI_connect();
	rt_plan_execute(&find_run, fcinfo->args, SPI_OK_SELECT, false);
	if (SPI_processed == 0)
		ereport(ERROR, (errcode(ERRCODE_NO_DATA_FOUND), errmsg("run not found"),
						errdetail("There is no run %s that you may change.",
								  rt_uuid_string(PG_GETARG_DATUM(0)))));
	row = SPI_tuptable->vals[0];
	desc = SPI_tuptable->tupdesc;
	rt_call_check_attempt(fcinfo, 3, DatumGetInt32(SPI_getbinval(row, desc, 3, &isnull)), "run");
	if (!RT_PHASE_IS_OPEN(rt_phase_decode(SPI_getbinval(row, desc, 4, &isnull))))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE), errmsg("run is finished"),
				 errdetail("Run %s has status \"%s\" and makes no progress any more.",
						   rt_uuid_string(PG_GETARG_DATUM(0)), SPI_getvalue(row, desc, 2))));
	changed = argument_differs(fcinfo, 1, SPI_getvalue(row, desc, 5)) ||
			  argument_differs(fcinfo, 2, SPI_getvalue(row, desc, 6));
	if (changed)
		rt_plan_execute(&update, fcinfo->args, SPI_OK_UPDATE, false);
	SPI_finish();
	PG_RETURN_BOOL(changed);
}
