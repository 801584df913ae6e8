/*-------------------------------------------------------------------------
 *
 * retrievals.c
 *		What runs looked up, and what they found.
 *
 *-------------------------------------------------------------------------
 */
#include "run_tracker.h"

#include "utils/builtins.h"
#include "utils/jsonb.h"

#include "calls.h"
#include "runs.h"
#include "totals.h"

PG_FUNCTION_INFO_V1(run_tracker_retrievals_before);
PG_FUNCTION_INFO_V1(run_tracker_retrievals_after);
PG_FUNCTION_INFO_V1(run_tracker_log_retrieval);

static void
check_not_negative(const RtRow *row, AttrNumber att, int64 value)
{
	if (value < 0)
		rt_row_violation(row, att,
						 psprintf("The value is %lld, it must not be negative.",
								  (long long) value));
}

static int32
count_results(Datum results, bool isnull)
{
	return isnull ? 0 : JB_ROOT_COUNT(DatumGetJsonbP(results));
}

/* The number of results follows results, unless the client says otherwise. */
static void
set_results_count(RtRow *row)
{
	const RtTable *t = row->table;
	AttrNumber results = RT_ATT(t, retrievals, results);
	AttrNumber count = RT_ATT(t, retrievals, results_count);
	bool derived = rt_row_isnull(row, count);

	if (!derived && row->old && rt_row_differs(row, results) && !rt_row_differs(row, count))
		derived = DatumGetInt32(row->old_values[count - 1]) ==
				  count_results(row->old_values[results - 1], row->old_nulls[results - 1]);
	if (derived)
		rt_row_set(row, count,
				   Int32GetDatum(
					   count_results(rt_row_get(row, results), rt_row_isnull(row, results))));
}

/* BEFORE INSERT OR UPDATE FOR EACH ROW on retrievals: owner, id, sound values. */
Datum
run_tracker_retrievals_before(PG_FUNCTION_ARGS)
{
	const RtTable *t = rt_trigger_check(fcinfo, RT_retrievals, RT_BEFORE_ROW, "retrievals_before");
	TriggerData *trigdata = (TriggerData *) fcinfo->context;
	AttrNumber type = RT_ATT(t, retrievals, retrieval_type);
	AttrNumber count = RT_ATT(t, retrievals, results_count);
	AttrNumber duration = RT_ATT(t, retrievals, duration_ms);
	RtRow row;

	rt_row_begin(&row, trigdata, t);
	rt_row_require(&row, type);
	if (VARSIZE_ANY_EXHDR(DatumGetTextPP(rt_row_get(&row, type))) == 0)
		rt_row_violation(&row, type, "A retrieval needs a type, such as vector_search.");
	rt_row_check_json(&row, RT_ATT(t, retrievals, results), true);
	rt_row_check_json(&row, RT_ATT(t, retrievals, metadata), false);
	rt_row_check_size(&row);
	set_results_count(&row);
	check_not_negative(&row, count, DatumGetInt32(rt_row_get(&row, count)));
	if (!rt_row_isnull(&row, duration))
		check_not_negative(&row, duration, DatumGetInt64(rt_row_get(&row, duration)));

	if (TRIGGER_FIRED_BY_INSERT(trigdata->tg_event))
	{
		rt_run_adopt(&row, RT_ATT(t, retrievals, run_id), RT_ATT(t, retrievals, user_id));
		rt_row_default_id(&row, RT_ATT(t, retrievals, retrieval_id));
		rt_row_default(&row, RT_ATT(t, retrievals, created_at),
					   TimestampTzGetDatum(GetCurrentTimestamp()));
	}
	return rt_row_end(&row);
}

static void
retrieval_contribution(RtDelta *delta, TupleTableSlot *row, const RtTable *t, int sign)
{
	rt_delta_count(delta, RT_COUNT_RETRIEVALS, sign);
}

/* AFTER INSERT, UPDATE or DELETE FOR EACH STATEMENT on retrievals: retrieval_count. */
Datum
run_tracker_retrievals_after(PG_FUNCTION_ARGS)
{
	const RtTable *t =
		rt_trigger_check(fcinfo, RT_retrievals, RT_AFTER_STATEMENT, "retrievals_after");

	rt_fold_statement((TriggerData *) fcinfo->context, t, RT_ATT(t, retrievals, run_id),
					  retrieval_contribution);
	return PointerGetDatum(NULL);
}

/*
 * log_retrieval(run_id, retrieval_type, query, results, results_count, context, location,
 * component_type, duration_ms, task_id, retrieval_id, metadata) → retrieval_id
 */
Datum
run_tracker_log_retrieval(PG_FUNCTION_ARGS)
{
	static RtPlan plan =
		{"INSERT INTO run_tracker.retrievals (run_id, retrieval_type, query, results, results_count, "
		 "context, location, component_type, duration_ms, task_id, retrieval_id, metadata) "
		 "VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) RETURNING retrieval_id",
		 12,
		 {UUIDOID, TEXTOID, TEXTOID, JSONBOID, INT4OID, TEXTOID, TEXTOID, TEXTOID, INT8OID, UUIDOID,
		  UUIDOID, JSONBOID}};

	rt_call_require(fcinfo, 0, "run_id");
	rt_call_require(fcinfo, 1, "retrieval_type");
	rt_run_require(PG_GETARG_DATUM(0));
	return rt_call_insert(&plan, fcinfo, RT_retrievals);
}
