/*-------------------------------------------------------------------------
 *
 * calls.c
 *		What the functions that applications call have in common.
 *
 * They run as the caller, under row level security, with the search_path that
 * CREATE FUNCTION pins for them.  Rules are not checked here but by the triggers,
 * which hold for every client; a function only finds the row, decides whether
 * there is anything to do, and writes.
 *
 * Memory: plans are kept for the life of the backend.
 *
 *-------------------------------------------------------------------------
 */
#include "run_tracker.h"

#include "utils/builtins.h"
#include "utils/fmgrprotos.h"

#include "calls.h"
#include "runs.h"

/* Run a query with the first plan->nargs of args.  The caller is connected to SPI. */
void
rt_plan_execute(RtPlan *plan, const NullableDatum *args, int expected, bool read_only)
{
	Datum values[RT_MAX_ARGS];
	char nulls[RT_MAX_ARGS];
	int result;

	if (plan->plan == NULL)
	{
		SPIPlanPtr prepared = SPI_prepare(plan->sql, plan->nargs, plan->types);

		if (prepared == NULL)
			elog(ERROR, "could not prepare \"%s\": %s", plan->sql,
				 SPI_result_code_string(SPI_result));
		SPI_keepplan(prepared);
		plan->plan = prepared;
	}
	for (int i = 0; i < plan->nargs; i++)
	{
		values[i] = args[i].value;
		nulls[i] = args[i].isnull ? 'n' : ' ';
	}
	result = SPI_execute_plan(plan->plan, values, nulls, read_only, 0);
	if (result != expected)
		ereport(ERROR, (errcode(ERRCODE_INTERNAL_ERROR),
						errmsg("unexpected result of \"%s\": %s", plan->sql,
							   SPI_result_code_string(result)),
						errhint("A rule may have rewritten the query.")));
}

/* 22023 if an argument is null that must not be. */
void
rt_call_require(FunctionCallInfo fcinfo, int arg, const char *name)
{
	if (PG_ARGISNULL(arg))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("argument \"%s\" must not be null", name)));
}

/* An argument that state is kept by, as it is; 22023 if it is empty or too long. */
text *
rt_call_check_name(text *value, const char *name)
{
	Size size = VARSIZE_ANY_EXHDR(value);

	if (size == 0 || size > RT_MAX_NAME_BYTES)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("argument \"%s\" must have 1 to %d bytes", name, RT_MAX_NAME_BYTES),
						errdetail("It has %zu bytes.", size)));
	return value;
}

/* The moment that an argument "delay" puts off to, or null; 22023 if it is negative. */
NullableDatum
rt_call_delay(FunctionCallInfo fcinfo, int arg)
{
	NullableDatum result = {0, true};
	Interval zero = {0};

	if (PG_ARGISNULL(arg))
		return result;
	if (DatumGetBool(
			DirectFunctionCall2(interval_lt, PG_GETARG_DATUM(arg), IntervalPGetDatum(&zero))))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("argument \"delay\" must not be negative")));
	result.value =
		DirectFunctionCall2(timestamptz_pl_interval, TimestampTzGetDatum(GetCurrentTimestamp()),
							PG_GETARG_DATUM(arg));
	result.isnull = false;
	return result;
}

/* Insert a row with the arguments of the call, and return the one by-value or uuid result. */
Datum
rt_call_insert(RtPlan *plan, FunctionCallInfo fcinfo, RtTableId table)
{
	Datum result;
	bool isnull;

	(void) rt_table(table);
	SPI_connect();
	rt_plan_execute(plan, fcinfo->args, SPI_OK_INSERT_RETURNING, false);
	if (SPI_processed != 1)
		ereport(ERROR, (errcode(ERRCODE_INTERNAL_ERROR),
						errmsg("no row was inserted into table \"%s\"", rt_table_name(table)),
						errhint("A trigger may have suppressed it.")));
	result = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
	if (SPI_gettypeid(SPI_tuptable->tupdesc, 1) == UUIDOID)
		result = SPI_datumTransfer(result, false, UUID_LEN);
	SPI_finish();
	return result;
}

/* Fence off a writer of an earlier attempt: RT003. */
void
rt_call_check_attempt(FunctionCallInfo fcinfo, int arg, int32 current, const char *table)
{
	if (!PG_ARGISNULL(arg) && PG_GETARG_INT32(arg) != current)
		ereport(ERROR, (errcode(ERRCODE_RT_STALE_ATTEMPT), errmsg("stale attempt"),
						errdetail("The %s is at attempt %d, the caller works on attempt %d.", table,
								  current, PG_GETARG_INT32(arg)),
						errhint("Somebody else has taken over; stop working on it.")));
}

/* What a status-changing call found, in SPI's memory. */
typedef struct Found
{
	const RtLifecycle *lifecycle;
	int state;
	int32 attempt;
} Found;

/* Find and lock the row of a call; P0002 if the caller cannot see one. */
static void
find_row(FunctionCallInfo fcinfo, const RtMoveCall *call, Found *found)
{
	HeapTuple tuple;
	TupleDesc desc;
	bool isnull;

	rt_plan_execute(call->find, fcinfo->args, SPI_OK_SELECT, false);
	if (SPI_processed == 0)
		ereport(ERROR, (errcode(ERRCODE_NO_DATA_FOUND), errmsg("%s not found", call->word),
						errdetail("There is no %s %s that you may change.", call->word,
								  rt_uuid_string(PG_GETARG_DATUM(0)))));
	tuple = SPI_tuptable->vals[0];
	desc = SPI_tuptable->tupdesc;
	found->lifecycle = rt_lifecycle_get(SPI_getbinval(tuple, desc, 1, &isnull));
	found->state =
		rt_lifecycle_state_required(found->lifecycle, SPI_getbinval(tuple, desc, 2, &isnull));
	found->attempt = DatumGetInt32(SPI_getbinval(tuple, desc, 3, &isnull));
	rt_call_check_attempt(fcinfo, call->attempt_arg, found->attempt, call->word);
}

/* The state to go to; -1 if the row is where it should be already; RT001 if there is no way. */
static int
find_target(const RtMoveCall *call, const Found *found)
{
	const RtLifecycle *lifecycle = found->lifecycle;
	RtPhase phase = lifecycle->states[found->state].phase;

	if (call->status != (Datum) 0)
	{
		int to = rt_lifecycle_state_required(lifecycle, call->status);

		if (to == found->state)
			return -1;
		if (!rt_lifecycle_allows(lifecycle, found->state, to))
			rt_lifecycle_refuse(lifecycle, found->state, lifecycle->states[to].name, call->word);
		return to;
	}

	/* of several phases, the first that the lifecycle has at all is the one to be in */
	for (int i = 0; i < call->nwanted; i++)
	{
		if (phase == call->wanted[i])
			return -1;
		if (rt_lifecycle_first(lifecycle, call->wanted[i]) >= 0)
			break;
	}
	if (RT_PHASE_IS_OPEN(phase) ? !call->again : !call->open)
	{
		for (int i = 0; i < call->nwanted; i++)
		{
			int to = rt_lifecycle_next(lifecycle, found->state, call->wanted[i]);

			if (to >= 0)
				return to;
		}
	}
	for (int i = 0; i < call->nwanted; i++)
	{
		int to = rt_lifecycle_first(lifecycle, call->wanted[i]);

		if (to >= 0)
			rt_lifecycle_refuse(lifecycle, found->state, lifecycle->states[to].name, call->word);
	}
	rt_lifecycle_refuse(lifecycle, found->state, rt_phase_names[call->wanted[0]], call->word);
	return -1; /* keep compiler quiet */
}

/*
 * The whole of a call that changes a status: find the row and lock it, choose the
 * target, update.  Argument 0 of the call is the id; the update gets the id, the new
 * status, and then extra.  False if there was nothing to do.
 */
bool
rt_call_move(FunctionCallInfo fcinfo, const RtMoveCall *call, const NullableDatum *extra,
			 int nextra)
{
	NullableDatum args[RT_MAX_ARGS] = {0};
	Found found;
	int to;

	rt_call_require(fcinfo, 0, call->table == RT_runs ? "run_id" : "task_id");
	(void) rt_table(call->table);
	if (call->table == RT_runs)
	{
		/* nobody may learn about other users' runs from how long this takes */
		rt_run_require(PG_GETARG_DATUM(0));
		rt_tasks_wait_for_writers(PG_GETARG_UUID_P(0), call->ends);
	}
	SPI_connect();
	find_row(fcinfo, call, &found);
	to = find_target(call, &found);
	if (to >= 0)
	{
		args[0] = fcinfo->args[0];
		args[1].value = CStringGetTextDatum(found.lifecycle->states[to].name);
		args[1].isnull = false;
		for (int i = 0; i < nextra; i++)
			args[2 + i] = extra[i];
		rt_plan_execute(call->update, args, SPI_OK_UPDATE, false);
		if (SPI_processed != 1)
			ereport(ERROR, (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
							errmsg("%s was not updated", call->word),
							errhint("A policy or a trigger may have suppressed the update.")));
	}
	SPI_finish();
	return to >= 0;
}
