/*-------------------------------------------------------------------------
 *
 * row.c
 *		The row that a BEFORE ROW trigger looks at and changes.
 *
 * The row is taken apart once, changed in place and, only if it was changed, put
 * together again.  Memory: the per-tuple context of the executor.
 *
 *-------------------------------------------------------------------------
 */
#include "run_tracker.h"

#include "access/detoast.h"
#include "access/htup_details.h"
#include "utils/datum.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"

#include "row.h"

/* Take apart the row, or rows, that a trigger was called for. */
void
rt_row_begin(RtRow *row, TriggerData *trigdata, const RtTable *table)
{
	TupleDesc desc = RelationGetDescr(trigdata->tg_relation);
	bool update = TRIGGER_FIRED_BY_UPDATE(trigdata->tg_event);

	row->rel = trigdata->tg_relation;
	row->table = table;
	row->tuple = update ? trigdata->tg_newtuple : trigdata->tg_trigtuple;
	row->old = update ? trigdata->tg_trigtuple : NULL;
	row->changed = false;
	row->values = palloc(desc->natts * sizeof(Datum));
	row->nulls = palloc(desc->natts * sizeof(bool));
	heap_deform_tuple(row->tuple, desc, row->values, row->nulls);
	if (update)
	{
		row->old_values = palloc(desc->natts * sizeof(Datum));
		row->old_nulls = palloc(desc->natts * sizeof(bool));
		heap_deform_tuple(row->old, desc, row->old_values, row->old_nulls);
	}
}

/* The result of the trigger: the row as it is now. */
Datum
rt_row_end(RtRow *row)
{
	HeapTuple tuple;

	if (!row->changed)
		return PointerGetDatum(row->tuple);

	tuple = heap_form_tuple(RelationGetDescr(row->rel), row->values, row->nulls);
	tuple->t_data->t_ctid = row->tuple->t_data->t_ctid;
	tuple->t_self = row->tuple->t_self;
	tuple->t_tableOid = row->tuple->t_tableOid;
	return PointerGetDatum(tuple);
}

/* Set a column. */
void
rt_row_set(RtRow *row, AttrNumber att, Datum value)
{
	row->values[att - 1] = value;
	row->nulls[att - 1] = false;
	row->changed = true;
}

/* Set a column to null. */
void
rt_row_set_null(RtRow *row, AttrNumber att)
{
	if (!row->nulls[att - 1])
	{
		row->values[att - 1] = (Datum) 0;
		row->nulls[att - 1] = true;
		row->changed = true;
	}
}

/* Set a column if it is null. */
void
rt_row_default(RtRow *row, AttrNumber att, Datum value)
{
	if (row->nulls[att - 1])
		rt_row_set(row, att, value);
}

/* Set a uuid column to a new id if it is null. */
void
rt_row_default_id(RtRow *row, AttrNumber att)
{
	pg_uuid_t *id;

	if (!row->nulls[att - 1])
		return;
	id = palloc(sizeof(pg_uuid_t));
	rt_uuid_generate(id);
	rt_row_set(row, att, UUIDPGetDatum(id));
}

/* Is a column different from what it was? */
bool
rt_row_differs(const RtRow *row, AttrNumber att)
{
	Form_pg_attribute attr = TupleDescAttr(RelationGetDescr(row->rel), att - 1);

	if (row->nulls[att - 1] != row->old_nulls[att - 1])
		return true;
	if (row->nulls[att - 1])
		return false;
	return !datum_image_eq(row->values[att - 1], row->old_values[att - 1], attr->attbyval,
						   attr->attlen);
}

/*
 * Keep a column as it was: what the tracker computes is not for others to write.
 * Silently, since applications that maintain such columns themselves may go on.
 */
void
rt_row_keep(RtRow *row, AttrNumber att)
{
	if (rt_row_differs(row, att))
	{
		row->values[att - 1] = row->old_values[att - 1];
		row->nulls[att - 1] = row->old_nulls[att - 1];
		row->changed = true;
	}
}

/* 55000 if a column is to be changed that never changes. */
void
rt_row_check_same(const RtRow *row, AttrNumber att)
{
	if (rt_row_differs(row, att))
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("column \"%s\" of table \"%s\" cannot be changed",
							   NameStr(TupleDescAttr(RelationGetDescr(row->rel), att - 1)->attname),
							   RelationGetRelationName(row->rel)),
						errtablecol(row->rel, att)));
}

/* Does the UPDATE change nothing at all? */
bool
rt_row_unchanged(const RtRow *row)
{
	HeapTupleHeader new = row->tuple->t_data;
	HeapTupleHeader old = row->old->t_data;

	if (row->changed || row->tuple->t_len != row->old->t_len || new->t_hoff != old->t_hoff)
		return false;
	if (HeapTupleHeaderGetNatts(new) != HeapTupleHeaderGetNatts(old))
		return false;
	if ((new->t_infomask &HEAP_HASNULL) != (old->t_infomask & HEAP_HASNULL))
		return false;
	return memcmp((char *) new + SizeofHeapTupleHeader, (char *) old + SizeofHeapTupleHeader,
				  row->tuple->t_len - SizeofHeapTupleHeader) == 0;
}

/* Refuse values larger than run_tracker.max_payload; what stays may be larger. */
void
rt_row_check_size(const RtRow *row)
{
	TupleDesc desc = RelationGetDescr(row->rel);
	int64 limit = (int64) rt_max_payload_kb * 1024;

	/* a small tuple with nothing stored outside cannot hold large values, even compressed */
	if (!HeapTupleHasExternal(row->tuple) && row->tuple->t_len * INT64CONST(256) < limit)
		return;

	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute attr = TupleDescAttr(desc, i);
		int64 size;

		if (attr->attlen != -1 || attr->attisdropped || row->nulls[i])
			continue;
		size = (int64) toast_raw_datum_size(row->values[i]) - VARHDRSZ;
		if (size > limit && (row->old == NULL || rt_row_differs(row, i + 1)))
			ereport(ERROR, (errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
							errmsg("payload of column \"%s\" is too large", NameStr(attr->attname)),
							errdetail("The value has %lld bytes, at most %lld are allowed.",
									  (long long) size, (long long) limit),
							errhint("Store large values elsewhere and keep their address, or raise "
									"run_tracker.max_payload."),
							errtablecol(row->rel, i + 1)));
	}
}

/* Refuse names that are no names; what stays may be longer. */
void
rt_row_check_names(const RtRow *row, const AttrNumber *atts, int n)
{
	for (int i = 0; i < n; i++)
	{
		Size size;

		if (row->nulls[atts[i] - 1])
			continue;
		size = toast_raw_datum_size(row->values[atts[i] - 1]) - VARHDRSZ;
		if (size > RT_MAX_NAME_SIZE && (row->old == NULL || rt_row_differs(row, atts[i])))
			ereport(ERROR,
					(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
					 errmsg("value of column \"%s\" is too long",
							NameStr(
								TupleDescAttr(RelationGetDescr(row->rel), atts[i] - 1)->attname)),
					 errdetail("The value has %zu bytes, at most %d are allowed.", size,
							   RT_MAX_NAME_SIZE),
					 errhint(
						 "Long texts belong into messages, or into columns like inputs, request or "
						 "metadata."),
					 errtablecol(row->rel, atts[i])));
	}
}

/* 23514 unless a text, which is not null, can be what state is kept by. */
void
rt_row_check_key(const RtRow *row, AttrNumber att)
{
	Size size = toast_raw_datum_size(rt_row_get(row, att)) - VARHDRSZ;

	if (size == 0 || size > RT_MAX_NAME_BYTES)
		rt_row_violation(row, att,
						 psprintf("It has %zu bytes, 1 to %d are possible.", size,
								  RT_MAX_NAME_BYTES));
}

/* A number of tokens or milliseconds; 0 for null, 23514 if it is negative or too large. */
int64
rt_row_amount(const RtRow *row, AttrNumber att)
{
	int64 value;

	if (rt_row_isnull(row, att))
		return 0;
	value = DatumGetInt64(rt_row_get(row, att));
	if (value > RT_MAX_AMOUNT)
		rt_row_violation(row, att,
						 psprintf("The value is %lld, at most %lld is possible.", (long long) value,
								  (long long) RT_MAX_AMOUNT));
	if (value < 0)
		rt_row_violation(row, att,
						 psprintf("The value is %lld, it must not be negative.",
								  (long long) value));
	return value;
}

/* every sum has as many digits as the longest cost */
#define MAX_SCALE 40

/* 23514 for a new cost that is none. */
void
rt_row_check_cost(const RtRow *row, AttrNumber att)
{
	Datum value;

	if (rt_row_isnull(row, att) || (row->old && !rt_row_differs(row, att)))
		return;
	value = rt_row_get(row, att);
	/* NaN is greater than every number */
	if (DatumGetBool(DirectFunctionCall2(numeric_lt, value,
										 DirectFunctionCall1(int8_numeric, Int64GetDatum(0)))) ||
		DatumGetBool(
			DirectFunctionCall2(numeric_gt, value,
								DirectFunctionCall1(int8_numeric, Int64GetDatum(RT_MAX_AMOUNT)))))
		rt_row_violation(row, att,
						 psprintf("The cost is %s, it must be a number from 0 to %lld.",
								  DatumGetCString(DirectFunctionCall1(numeric_out, value)),
								  (long long) RT_MAX_AMOUNT));
	if (DatumGetInt32(DirectFunctionCall1(numeric_scale, value)) > MAX_SCALE)
		rt_row_violation(row, att,
						 psprintf("The cost has more than %d digits after the decimal point.",
								  MAX_SCALE));
}

/* Refuse a null where a value is needed. */
void
rt_row_require(const RtRow *row, AttrNumber att)
{
	if (row->nulls[att - 1])
		ereport(ERROR, (errcode(ERRCODE_NOT_NULL_VIOLATION),
						errmsg("column \"%s\" of table \"%s\" must not be null",
							   NameStr(TupleDescAttr(RelationGetDescr(row->rel), att - 1)->attname),
							   RelationGetRelationName(row->rel)),
						errtablecol(row->rel, att)));
}

/* Refuse JSON of another type than "object" or "array" in a column; null is no value. */
void
rt_row_check_json(const RtRow *row, AttrNumber att, bool array)
{
	Jsonb *json;

	if (rt_row_isnull(row, att) || (row->old && !rt_row_differs(row, att)))
		return;
	json = DatumGetJsonbP(rt_row_get(row, att));
	if (array ? (JB_ROOT_IS_ARRAY(json) && !JB_ROOT_IS_SCALAR(json)) : JB_ROOT_IS_OBJECT(json))
		return;
	rt_row_violation(row, att, psprintf("It must be a JSON %s.", array ? "array" : "object"));
}

/* Refuse a value of a column, as a CHECK constraint would, but saying what is wrong. */
void
rt_row_violation(const RtRow *row, AttrNumber att, const char *detail)
{
	ereport(ERROR, (errcode(ERRCODE_CHECK_VIOLATION),
					errmsg("invalid value of column \"%s\" of table \"%s\"",
						   NameStr(TupleDescAttr(RelationGetDescr(row->rel), att - 1)->attname),
						   RelationGetRelationName(row->rel)),
					errdetail("%s", detail), errtablecol(row->rel, att)));
}
