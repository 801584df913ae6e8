/*-------------------------------------------------------------------------
 *
 * artifacts.c
 *		What runs made.
 *
 *-------------------------------------------------------------------------
 */
#include "run_tracker.h"

#include "access/detoast.h"
#include "utils/builtins.h"
#include "utils/numeric.h"

#include "calls.h"
#include "runs.h"
#include "totals.h"

PG_FUNCTION_INFO_V1(run_tracker_artifacts_before);
PG_FUNCTION_INFO_V1(run_tracker_artifacts_after);
PG_FUNCTION_INFO_V1(run_tracker_add_artifact);

static void
check_values(const RtRow *row)
{
	const RtTable *t = row->table;
	AttrNumber kind = RT_ATT(t, artifacts, kind);
	AttrNumber similarity = RT_ATT(t, artifacts, similarity);
	AttrNumber size = RT_ATT(t, artifacts, size_bytes);

	rt_row_require(row, kind);
	if (VARSIZE_ANY_EXHDR(DatumGetTextPP(rt_row_get(row, kind))) == 0)
		rt_row_violation(row, kind, "An artifact needs a kind, such as component or file.");
	if (!rt_row_isnull(row, similarity))
	{
		Numeric value = DatumGetNumeric(rt_row_get(row, similarity));

		if (numeric_is_nan(value) || numeric_is_inf(value))
			rt_row_violation(row, similarity, "The similarity must be a finite number.");
	}
	if (!rt_row_isnull(row, size) && DatumGetInt64(rt_row_get(row, size)) < 0)
		rt_row_violation(row, size,
						 psprintf("The value is %lld, it must not be negative.",
								  (long long) DatumGetInt64(rt_row_get(row, size))));
	rt_row_check_json(row, RT_ATT(t, artifacts, configuration), false);
	rt_row_check_json(row, RT_ATT(t, artifacts, metadata), false);
	rt_row_check_size(row);
}

static int64
content_size(Datum content)
{
	return (int64) toast_raw_datum_size(content) - VARHDRSZ;
}

/* The size is that of the content, and follows it, unless the client says otherwise. */
static void
set_size(RtRow *row)
{
	const RtTable *t = row->table;
	AttrNumber content = RT_ATT(t, artifacts, content);
	AttrNumber size = RT_ATT(t, artifacts, size_bytes);
	bool derived = rt_row_isnull(row, size);

	if (!derived && row->old && rt_row_differs(row, content) && !rt_row_differs(row, size))
		derived = !row->old_nulls[content - 1] && DatumGetInt64(row->old_values[size - 1]) ==
													  content_size(row->old_values[content - 1]);
	if (!derived)
		return;
	if (rt_row_isnull(row, content))
		rt_row_set_null(row, size);
	else
		rt_row_set(row, size, Int64GetDatum(content_size(rt_row_get(row, content))));
}

/* BEFORE INSERT OR UPDATE FOR EACH ROW on artifacts: owner, id, size, sound values. */
Datum
run_tracker_artifacts_before(PG_FUNCTION_ARGS)
{
	const RtTable *t = rt_trigger_check(fcinfo, RT_artifacts, RT_BEFORE_ROW, "artifacts_before");
	TriggerData *trigdata = (TriggerData *) fcinfo->context;
	AttrNumber updated_at = RT_ATT(t, artifacts, updated_at);
	Datum now = TimestampTzGetDatum(GetCurrentTimestamp());
	RtRow row;

	rt_row_begin(&row, trigdata, t);
	check_values(&row);
	set_size(&row);
	if (TRIGGER_FIRED_BY_INSERT(trigdata->tg_event))
	{
		rt_run_adopt(&row, RT_ATT(t, artifacts, run_id), RT_ATT(t, artifacts, user_id));
		rt_row_default_id(&row, RT_ATT(t, artifacts, artifact_id));
		rt_row_default(&row, RT_ATT(t, artifacts, created_at), now);
		rt_row_default(&row, updated_at, now);
	}
	else
	{
		rt_row_keep(&row, updated_at);
		if (!rt_row_unchanged(&row))
			rt_row_set(&row, updated_at, now);
	}
	return rt_row_end(&row);
}

static void
artifact_contribution(RtDelta *delta, TupleTableSlot *row, const RtTable *t, int sign)
{
	rt_delta_count(delta, RT_COUNT_ARTIFACTS, sign);
}

/* AFTER INSERT, UPDATE or DELETE FOR EACH STATEMENT on artifacts: artifact_count. */
Datum
run_tracker_artifacts_after(PG_FUNCTION_ARGS)
{
	const RtTable *t =
		rt_trigger_check(fcinfo, RT_artifacts, RT_AFTER_STATEMENT, "artifacts_after");

	rt_fold_statement((TriggerData *) fcinfo->context, t, RT_ATT(t, artifacts, run_id),
					  artifact_contribution);
	return PointerGetDatum(NULL);
}

/*
 * add_artifact(run_id, kind, name, type, content, content_type, url, size_bytes, ordinal,
 * source, similarity, source_document_id, source_document_name, chunk_type, retrieval_id,
 * configuration, task_id, artifact_id, metadata) → artifact_id
 */
Datum
run_tracker_add_artifact(PG_FUNCTION_ARGS)
{
	static RtPlan plan =
		{"INSERT INTO run_tracker.artifacts (run_id, kind, name, type, content, content_type, url, "
		 "size_bytes, ordinal, source, similarity, source_document_id, source_document_name, "
		 "chunk_type, retrieval_id, configuration, task_id, artifact_id, metadata) "
		 "VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, "
		 "$19) RETURNING artifact_id",
		 19,
		 {UUIDOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, INT8OID, INT4OID, TEXTOID,
		  NUMERICOID, TEXTOID, TEXTOID, TEXTOID, UUIDOID, JSONBOID, UUIDOID, UUIDOID, JSONBOID}};

	rt_call_require(fcinfo, 0, "run_id");
	rt_call_require(fcinfo, 1, "kind");
	rt_run_require(PG_GETARG_DATUM(0));
	return rt_call_insert(&plan, fcinfo, RT_artifacts);
}
