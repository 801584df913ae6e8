/*-------------------------------------------------------------------------
 *
 * conversation.c
 *		A conversation as one JSON array: reading it, and writing it back.
 *
 * Applications that kept a conversation in one column read the array and assign a
 * longer one.  elements.c says how an element is kept as a row of messages.
 *
 * Locking protocol: appending takes no lock but those of INSERT, so nobody waits.
 * An edit holds FOR NO KEY UPDATE on the row of the run, which edits of one run wait for,
 * and appends do not; then it reads the conversation anew, and writes rows only in
 * the version that it has read.  What is appended meanwhile stays, behind the rest.
 *
 *-------------------------------------------------------------------------
 */
#include "run_tracker.h"

#include "access/table.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"

#include "calls.h"
#include "conversation.h"
#include "elements.h"
#include "runs.h"
#include "writer.h"

PG_FUNCTION_INFO_V1(run_tracker_conversation_query);
PG_FUNCTION_INFO_V1(run_tracker_write_messages);

/* ----------------------------------------------------------------
 * Reading
 * ----------------------------------------------------------------
 */

/*
 * A row of messages m as an element of the array.  One that was written as an element says what
 * it said then: its columns, and over them what no column says.  Of another one, all is
 * said, and the numbers of the task.
 */
#define ELEMENT                                                                                    \
	"CASE WHEN jsonb_typeof(m.metadata -> '" RT_ELEMENT_KEY "') = 'object' THEN "                  \
	"CASE WHEN m.content <> '' THEN jsonb_build_object('role', m.role, 'content', m.content) "     \
	"WHEN m.content IS NULL THEN jsonb_build_object('role', m.role, 'content', m.parts) "          \
	"ELSE jsonb_build_object('role', m.role) END "                                                 \
	"|| CASE WHEN m.task_id IS NULL THEN '{}' ELSE jsonb_build_object('taskId', m.task_id) END "   \
	"|| CASE WHEN m.name IS NULL THEN '{}' ELSE jsonb_build_object('name', m.name) END "           \
	"|| CASE WHEN m.parts IS NULL OR m.content IS NULL THEN '{}' "                                 \
	"ELSE jsonb_build_object('parts', m.parts) END "                                               \
	"|| CASE WHEN m.metadata - '" RT_ELEMENT_KEY "' = '{}' THEN '{}' "                             \
	"ELSE jsonb_build_object('metadata', m.metadata - '" RT_ELEMENT_KEY "') END "                  \
	"|| (m.metadata -> '" RT_ELEMENT_KEY "') "                                                     \
	"ELSE jsonb_build_object("                                                                     \
	"'role', m.role, 'content', m.content, 'timestamp', m.created_at, 'taskId', m.task_id, "       \
	"'metadata', COALESCE(m.metadata, '{}') || CASE WHEN m.role = 'assistant' THEN COALESCE(("     \
	"SELECT jsonb_strip_nulls(jsonb_build_object('tokens', t.total_tokens, 'cost', t.cost, "       \
	"'timeToFirstToken', t.time_to_first_token_ms, 'totalTime', t.duration_ms)) "                  \
	"FROM run_tracker.tasks t WHERE t.run_id = m.run_id AND t.task_id = m.task_id), '{}') "        \
	"ELSE '{}' END) "                                                                              \
	"|| CASE WHEN m.name IS NULL THEN '{}' ELSE jsonb_build_object('name', m.name) END "           \
	"|| CASE WHEN m.parts IS NULL THEN '{}' ELSE jsonb_build_object('parts', m.parts) END END"

/* the conversation as a scalar sub-select, after the expression for the id of the run and ")" */
#define CONVERSATION(run_id)                                                                       \
	"SELECT COALESCE(jsonb_agg(" ELEMENT "), '[]') FROM (SELECT * FROM run_tracker.messages n "    \
	"WHERE n.run_id = " run_id " ORDER BY n.seq) m"

/* conversation_query() → the query that gives the messages of r.run_id */
Datum
run_tracker_conversation_query(PG_FUNCTION_ARGS)
{
	PG_RETURN_TEXT_P(cstring_to_text(CONVERSATION("r.run_id")));
}

/* The conversation of a run, as the caller sees it, in the memory of the caller of SPI. */
Datum
rt_conversation_read(const NullableDatum *run_id)
{
	static RtPlan plan = {CONVERSATION("$1"), 1, {UUIDOID}};
	Datum result;
	bool isnull;

	SPI_connect();
	rt_plan_execute(&plan, run_id, SPI_OK_SELECT, true);
	result = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
	result = SPI_datumTransfer(result, false, -1);
	SPI_finish();
	return result;
}

/* ----------------------------------------------------------------
 * Writing
 * ----------------------------------------------------------------
 */

/* An array of elements, with access to each. */
typedef struct Elements
{
	int n;
	JsonbValue *values;
} Elements;

/* Find the elements of an argument; 22023 unless it is an array. */
static Elements
elements_of(FunctionCallInfo fcinfo, int arg)
{
	Jsonb *array = PG_GETARG_JSONB_P(arg);
	Elements result = {0, NULL};
	JsonbIterator *it;

	if (!JB_ROOT_IS_ARRAY(array) || JB_ROOT_IS_SCALAR(array))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("conversation must be a JSON array"),
						errdetail("It is a JSON %s.",
								  TextDatumGetCString(
									  DirectFunctionCall1(jsonb_typeof, JsonbPGetDatum(array)))),
						errhint("Each message is an object with a role and a content.")));
	result.values =
		palloc_extended(sizeof(JsonbValue) * (JB_ROOT_COUNT(array) + 1), MCXT_ALLOC_HUGE);
	it = JsonbIteratorInit(&array->root);
	(void) JsonbIteratorNext(&it, &result.values[0], true);
	while (JsonbIteratorNext(&it, &result.values[result.n], true) == WJB_ELEM)
		result.n++;
	return result;
}

/* Are two elements the same, bit by bit?  What only looks equal, as 1 and 1.0, is not. */
static bool
same_element(const JsonbValue *a, const JsonbValue *b)
{
	return a->type == jbvBinary && b->type == jbvBinary && a->val.binary.len == b->val.binary.len &&
		   memcmp(a->val.binary.data, b->val.binary.data, a->val.binary.len) == 0;
}

/* Append elements from one on; returns how many. */
static int64
append_elements(Datum run_id, const Elements *new, int from)
{
#define APPEND_COLUMNS "task_id, role, name, content, parts, metadata"
#define APPEND_TYPES                                                                               \
	UUIDOID, UUIDARRAYOID, TEXTARRAYOID, TEXTARRAYOID, TEXTARRAYOID, JSONBARRAYOID, JSONBARRAYOID
	static RtPlan append = {"INSERT INTO run_tracker.messages (run_id, " APPEND_COLUMNS ") "
							"SELECT $1, e.* FROM unnest($2, $3, $4, $5, $6, $7) e",
							7,
							{APPEND_TYPES}};
	static RtPlan append_with_time = {"INSERT INTO run_tracker.messages (run_id, " APPEND_COLUMNS
									  ", created_at) "
									  "SELECT $1, e.* FROM unnest($2, $3, $4, $5, $6, $7, $8) e",
									  8,
									  {APPEND_TYPES, TIMESTAMPTZARRAYOID}};
	const RtTable *t = rt_table(RT_messages);
	bool with_time = pg_class_aclcheck(t->relid, GetUserId(), ACL_INSERT) == ACLCHECK_OK ||
					 pg_attribute_aclcheck(t->relid, RT_ATT(t, messages, created_at), GetUserId(),
										   ACL_INSERT) == ACLCHECK_OK;
	NullableDatum args[1 + RT_ELEMENT_NCOLUMNS] = {{run_id, false}};
	RtElementRows rows;

	if (from >= new->n)
		return 0;
	rt_elements_begin(&rows, new->n - from);
	for (int i = from; i < new->n; i++)
		rt_elements_add(&rows, &new->values[i], i);
	for (int i = 0; i < RT_ELEMENT_NCOLUMNS; i++)
		args[1 + i] = rt_elements_column(&rows, i);
	rt_plan_execute(with_time ? &append_with_time : &append, args, SPI_OK_INSERT, false);
	if (SPI_processed != rows.n)
		ereport(ERROR, (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE), errmsg("messages were not added"),
						errhint("A policy or a trigger may have suppressed it.")));
	return rows.n;
}

static void
conflict(Datum run_id)
{
	ereport(ERROR, (errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
					errmsg("conversation was changed by somebody else"),
					errdetail("The messages of run %s are not those any more that were read.",
							  rt_uuid_string(run_id)),
					errhint("Read them again, and repeat the change.")));
}

/* What an edit does: rows from first on are written over, then deleted. */
typedef struct Edit
{
	int first;	  /* element that differs first */
	int nwritten; /* rows that get new elements, those that are the same included */
	int ndeleted;
} Edit;

/* Compare what was read with what was assigned, from both ends: what stays is not written. */
static Edit
plan_edit(const Elements *old, const Elements *new)
{
	int common = Min(old->n, new->n);
	int tail = 0;
	Edit edit = {0};

	while (edit.first < common && same_element(&old->values[edit.first], &new->values[edit.first]))
		edit.first++;
	/* a row keeps its place: what is longer only grows at the end */
	if (new->n <= old->n)
		while (tail < common - edit.first &&
			   same_element(&old->values[old->n - 1 - tail], &new->values[new->n - 1 - tail]))
			tail++;
	edit.nwritten = common - edit.first - tail;
	edit.ndeleted = Max(old->n - new->n, 0);
	return edit;
}

/* Read the rows of a conversation, which must be what was read before; fills seq and xmin. */
static void
verify_rows(Datum run_id, const Elements *old, Datum *seq, Datum *xmin)
{
	static RtPlan read = {"SELECT m.seq, m.xmin, " ELEMENT " FROM run_tracker.messages m "
						  "WHERE m.run_id = $1 ORDER BY m.seq LIMIT $2",
						  2,
						  {UUIDOID, INT8OID}};
	NullableDatum args[] = {{run_id, false}, {Int64GetDatum(old->n), false}};

	rt_plan_execute(&read, args, SPI_OK_SELECT, false);
	if (SPI_processed < old->n)
		conflict(run_id);
	for (int i = 0; i < old->n; i++)
	{
		HeapTuple tuple = SPI_tuptable->vals[i];
		TupleDesc desc = SPI_tuptable->tupdesc;
		Jsonb *element;
		JsonbValue value = {.type = jbvBinary};
		bool isnull;

		seq[i] = SPI_getbinval(tuple, desc, 1, &isnull);
		xmin[i] = SPI_getbinval(tuple, desc, 2, &isnull);
		element = DatumGetJsonbP(SPI_getbinval(tuple, desc, 3, &isnull));
		value.val.binary.data = &element->root;
		value.val.binary.len = VARSIZE(element) - VARHDRSZ;
		if (!same_element(&value, &old->values[i]))
			conflict(run_id);
	}
	SPI_freetuptable(SPI_tuptable);
}

static NullableDatum
int8_array(Datum *values, int n)
{
	NullableDatum result = {0, false};

	result.value = PointerGetDatum(
		construct_array(values, n, INT8OID, sizeof(int64), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
	return result;
}

static NullableDatum
xid_array(Datum *values, int n)
{
	NullableDatum result = {0, false};

	result.value = PointerGetDatum(
		construct_array(values, n, XIDOID, sizeof(TransactionId), true, TYPALIGN_INT));
	return result;
}

/* Write new elements over rows; those that stay the same are left alone. */
static int64
overwrite_rows(Datum run_id, const Elements *old, const Elements *new, const Edit *edit,
			   const Datum *seq, const Datum *xmin)
{
	static RtPlan update =
		{"UPDATE run_tracker.messages m SET task_id = e.task_id, role = e.role, name = e.name, "
		 "content = e.content, parts = e.parts, metadata = e.metadata "
		 "FROM unnest($2, $3, $4, $5, $6, $7, $8, $9) "
		 "e(task_id, role, name, content, parts, metadata, seq, version) "
		 "WHERE m.run_id = $1 AND m.seq = e.seq AND m.xmin = e.version",
		 9,
		 {APPEND_TYPES, INT8ARRAYOID, XIDARRAYOID}};
	NullableDatum args[1 + RT_ELEMENT_NCOLUMNS + 1] = {{run_id, false}};
	Datum *row_seq = palloc(sizeof(Datum) * Max(edit->nwritten, 1));
	Datum *row_xmin = palloc(sizeof(Datum) * Max(edit->nwritten, 1));
	RtElementRows rows;

	rt_elements_begin(&rows, edit->nwritten);
	for (int i = edit->first; i < edit->first + edit->nwritten; i++)
	{
		if (same_element(&old->values[i], &new->values[i]))
			continue;
		row_seq[rows.n] = seq[i];
		row_xmin[rows.n] = xmin[i];
		rt_elements_add(&rows, &new->values[i], i);
	}
	if (rows.n == 0)
		return 0;
	/* the time is when the message was added */
	for (int i = 0; i < RT_ELEMENT_CREATED_AT; i++)
		args[1 + i] = rt_elements_column(&rows, i);
	args[1 + RT_ELEMENT_CREATED_AT] = int8_array(row_seq, rows.n);
	args[2 + RT_ELEMENT_CREATED_AT] = xid_array(row_xmin, rows.n);
	rt_plan_execute(&update, args, SPI_OK_UPDATE, false);
	if (SPI_processed != rows.n)
		conflict(run_id);
	return rows.n;
}

/*
 * Delete rows.  Who may write over all of a message may take it out of the
 * conversation, but clients have no DELETE: so the rows are locked as the caller, who must
 * have UPDATE for that, and deleted as the owner of the table, as a foreign key would do it.
 */
static int64
delete_rows(Datum run_id, Datum *seq, Datum *xmin, int n)
{
	static RtPlan lock = {"SELECT FROM run_tracker.messages m, unnest($2, $3) e(seq, version) "
						  "WHERE m.run_id = $1 AND m.seq = e.seq AND m.xmin = e.version "
						  "FOR UPDATE OF m",
						  3,
						  {UUIDOID, INT8ARRAYOID, XIDARRAYOID}};
	static RtPlan remove = {"DELETE FROM run_tracker.messages m "
							"WHERE m.run_id = $1 AND m.seq = ANY ($2)",
							2,
							{UUIDOID, INT8ARRAYOID}};
	NullableDatum args[] = {{run_id, false}, int8_array(seq, n), xid_array(xmin, n)};
	RtOwnerSwitch save;
	Relation rel;

	if (n == 0)
		return 0;
	rt_plan_execute(&lock, args, SPI_OK_SELECT, false);
	if (SPI_processed != n)
		conflict(run_id);
	rel = table_open(rt_table(RT_messages)->relid, RowExclusiveLock);
	rt_owner_enter(&save, rel);
	rt_plan_execute(&remove, args, SPI_OK_DELETE, false);
	rt_owner_leave(&save);
	table_close(rel, NoLock);
	if (SPI_processed != n)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE), errmsg("messages were not deleted"),
				 errhint("A trigger may have suppressed it.")));
	return n;
}

/* Make the rows of old be those of new; what others append meanwhile stays. */
static int64
edit_rows(Datum run_id, const Elements *old, const Elements *new, const Edit *edit)
{
	static RtPlan lock = {"SELECT FROM run_tracker.runs WHERE run_id = $1 FOR NO KEY UPDATE",
						  1,
						  {UUIDOID}};
	NullableDatum args[] = {{run_id, false}};
	Datum *seq = palloc_extended(sizeof(Datum) * old->n, MCXT_ALLOC_HUGE);
	Datum *xmin = palloc_extended(sizeof(Datum) * old->n, MCXT_ALLOC_HUGE);
	int deleted_from = edit->first + edit->nwritten;
	int64 result;

	rt_plan_execute(&lock, args, SPI_OK_SELECT, false);
	if (SPI_processed != 1)
		conflict(run_id);
	verify_rows(run_id, old, seq, xmin);
	result = overwrite_rows(run_id, old, new, edit, seq, xmin);
	result += delete_rows(run_id, &seq[deleted_from], &xmin[deleted_from], edit->ndeleted);
	return result + append_elements(run_id, new, old->n);
}

/* write_messages(run_id, old, new) → how many messages were added, changed and deleted */
Datum
run_tracker_write_messages(PG_FUNCTION_ARGS)
{
	Elements old;
	Elements new;
	Edit edit;
	int64 result;

	rt_call_require(fcinfo, 0, "run_id");
	rt_call_require(fcinfo, 1, "old");
	rt_call_require(fcinfo, 2, "new");
	old = elements_of(fcinfo, 1);
	new = elements_of(fcinfo, 2);
	rt_run_require(PG_GETARG_DATUM(0));
	edit = plan_edit(&old, &new);
	SPI_connect();
	if (edit.nwritten == 0 && edit.ndeleted == 0)
		result = append_elements(PG_GETARG_DATUM(0), &new, old.n);
	else
		result = edit_rows(PG_GETARG_DATUM(0), &old, &new, &edit);
	SPI_finish();
	PG_RETURN_INT64(result);
}
