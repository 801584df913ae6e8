/*-------------------------------------------------------------------------
 *
 * logs.c
 *		Step logs of runs.
 *
 *-------------------------------------------------------------------------
 */
#include "run_tracker.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/builtins.h"

#include "calls.h"
#include "row.h"
#include "runs.h"
#include "sequence.h"
#include "totals.h"

PG_FUNCTION_INFO_V1(run_tracker_logs_before);
PG_FUNCTION_INFO_V1(run_tracker_logs_after);
PG_FUNCTION_INFO_V1(run_tracker_add_log);
PG_FUNCTION_INFO_V1(run_tracker_log_level_rank);

static const char *const levels[] = {"DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"};

#define RT_LEVEL_ERROR 3

/* The rank of a level; -1 if there is none of that name. */
static int
level_rank(Datum level)
{
	char *name = TextDatumGetCString(level);

	for (int i = 0; i < lengthof(levels); i++)
		if (strcmp(name, levels[i]) == 0)
			return i;
	return -1;
}

/* log_level_rank(level) → 0 (DEBUG) to 4 (CRITICAL); 22023 for another word. */
Datum
run_tracker_log_level_rank(PG_FUNCTION_ARGS)
{
	int rank;

	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	rank = level_rank(PG_GETARG_DATUM(0));
	if (rank < 0)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("unknown log level"),
						errdetail("The level is \"%s\".", TextDatumGetCString(PG_GETARG_DATUM(0))),
						errhint("Levels are DEBUG, INFO, WARNING, ERROR and CRITICAL.")));
	PG_RETURN_INT32(rank);
}

/* BEFORE INSERT OR UPDATE FOR EACH ROW on logs: owner, number, sound values. */
Datum
run_tracker_logs_before(PG_FUNCTION_ARGS)
{
	const RtTable *t = rt_trigger_check(fcinfo, RT_logs, RT_BEFORE_ROW, "logs_before");
	TriggerData *trigdata = (TriggerData *) fcinfo->context;
	AttrNumber level = RT_ATT(t, logs, level);
	AttrNumber seq = RT_ATT(t, logs, seq);
	RtRow row;

	rt_row_begin(&row, trigdata, t);
	rt_row_require(&row, RT_ATT(t, logs, message));
	rt_row_default(&row, level, CStringGetTextDatum("INFO"));
	if (level_rank(rt_row_get(&row, level)) < 0)
		rt_row_violation(&row, level,
						 psprintf("The level is \"%s\", it must be one of DEBUG, INFO, WARNING, "
								  "ERROR, CRITICAL.",
								  TextDatumGetCString(rt_row_get(&row, level))));
	rt_row_check_size(&row);

	if (TRIGGER_FIRED_BY_INSERT(trigdata->tg_event))
	{
		rt_run_adopt(&row, RT_ATT(t, logs, run_id), RT_ATT(t, logs, user_id));
		rt_row_default_id(&row, RT_ATT(t, logs, log_id));
		rt_row_default(&row, RT_ATT(t, logs, created_at),
					   TimestampTzGetDatum(GetCurrentTimestamp()));
		if (rt_row_isnull(&row, seq))
		{
			Datum run_id = rt_row_get(&row, RT_ATT(t, logs, run_id));

			/* the number is not to be waited for by all while we wait for the run */
			rt_run_hold(DatumGetUUIDP(run_id));
			rt_row_set(&row, seq, Int64GetDatum(rt_sequence_next(row.rel, seq, run_id)));
		}
	}
	return rt_row_end(&row);
}

static void
log_contribution(RtDelta *delta, TupleTableSlot *row, const RtTable *t, int sign)
{
	bool isnull;

	if (level_rank(slot_getattr(row, RT_ATT(t, logs, level), &isnull)) >= RT_LEVEL_ERROR)
		rt_delta_count(delta, RT_COUNT_ERRORS, sign);
}

/* AFTER INSERT, UPDATE or DELETE FOR EACH STATEMENT on logs: error_count. */
Datum
run_tracker_logs_after(PG_FUNCTION_ARGS)
{
	const RtTable *t = rt_trigger_check(fcinfo, RT_logs, RT_AFTER_STATEMENT, "logs_after");

	rt_sequence_release();
	rt_fold_statement((TriggerData *) fcinfo->context, t, RT_ATT(t, logs, run_id),
					  log_contribution);
	return PointerGetDatum(NULL);
}

/* add_log(run_id, message, level, category, step_name, details, task_id) → seq */
Datum
run_tracker_add_log(PG_FUNCTION_ARGS)
{
	static RtPlan plan =
		{"INSERT INTO run_tracker.logs (run_id, message, level, category, step_name, details, "
		 "task_id) VALUES ($1, $2, $3, $4, $5, $6, $7) RETURNING seq",
		 7,
		 {UUIDOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, JSONBOID, UUIDOID}};

	rt_call_require(fcinfo, 0, "run_id");
	rt_call_require(fcinfo, 1, "message");
	if (!PG_ARGISNULL(2))
		(void) DirectFunctionCall1(run_tracker_log_level_rank, PG_GETARG_DATUM(2));
	rt_run_require(PG_GETARG_DATUM(0));
	return rt_call_insert(&plan, fcinfo, RT_logs);
}
