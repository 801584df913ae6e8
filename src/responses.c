/*-------------------------------------------------------------------------
 *
 * responses.c
 *		Responses that arrive in pieces.
 *
 * The first piece is written to tasks.response.  What follows is appended to
 * response_chunks, so that a piece costs the same however long the response is.  When
 * the task finishes, whoever finishes it, its BEFORE trigger puts the pieces into
 * tasks.response, unless the statement assigns a response of its own; the AFTER
 * trigger deletes them.  So a task has pieces only while it is open, and has a
 * response then.
 *
 * Locking protocol: who appends holds FOR NO KEY UPDATE on the row of the task, like
 * those who finish it.  So pieces come one after another, and none comes too late.
 *
 *-------------------------------------------------------------------------
 */
#include "run_tracker.h"

#include "access/detoast.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "executor/executor.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/snapmgr.h"

#include "calls.h"
#include "notes.h"
#include "open_runs.h"
#include "responses.h"
#include "writer.h"

PG_FUNCTION_INFO_V1(run_tracker_append_response);

/* ----------------------------------------------------------------
 * What the triggers of tasks do
 * ----------------------------------------------------------------
 */

/* The response and its pieces as one text; (Datum) 0 if there are no pieces. */
static Datum
join_response(Datum run_id, Datum task_id, Datum response)
{
	Relation rel = table_open(rt_table(RT_response_chunks)->relid, AccessShareLock);
	const RtTable *t = rt_table(RT_response_chunks);
	Snapshot snapshot;
	StringInfoData buf;
	RtProbe probe;
	bool found = false;

	/* many applications never append */
	if (RelationGetNumberOfBlocks(rel) == 0)
	{
		table_close(rel, NoLock);
		return (Datum) 0;
	}
	/* we hold the task: what is committed now is all there will be */
	snapshot = rt_latest_snapshot();
	rt_probe_begin_child(&probe, rel, run_id, task_id, snapshot);
	while (rt_probe_next(&probe, ForwardScanDirection))
	{
		bool isnull;
		text *piece;

		CHECK_FOR_INTERRUPTS();
		rt_row_require_visible(rel, probe.slot);
		if (!found)
		{
			text *begin = DatumGetTextPP(response);

			initStringInfo(&buf);
			appendBinaryStringInfo(&buf, VARDATA_ANY(begin), VARSIZE_ANY_EXHDR(begin));
			found = true;
		}
		piece =
			DatumGetTextPP(slot_getattr(probe.slot, RT_ATT(t, response_chunks, content), &isnull));
		appendBinaryStringInfo(&buf, VARDATA_ANY(piece), VARSIZE_ANY_EXHDR(piece));
	}
	rt_probe_end(&probe);
	UnregisterSnapshot(snapshot);
	table_close(rel, NoLock);
	return found ? PointerGetDatum(cstring_to_text_with_len(buf.data, buf.len)) : (Datum) 0;
}

/*
 * Put the pieces of a response together: in the BEFORE trigger, when an UPDATE finishes an
 * open task, or changes what its pieces are found by, and does not assign a response itself.
 */
void
rt_response_complete(RtRow *row)
{
	const RtTable *t = row->table;
	AttrNumber response = RT_ATT(t, tasks, response);
	AttrNumber run_id = RT_ATT(t, tasks, run_id);
	AttrNumber task_id = RT_ATT(t, tasks, task_id);
	AttrNumber phase = RT_ATT(t, tasks, phase);
	Datum whole;

	if (row->old_nulls[response - 1] ||
		!RT_PHASE_IS_OPEN(rt_phase_decode(row->old_values[phase - 1])) ||
		(RT_PHASE_IS_OPEN(rt_phase_decode(rt_row_get(row, phase))) &&
		 !rt_row_differs(row, run_id) && !rt_row_differs(row, task_id)) ||
		rt_row_differs(row, response))
		return;
	whole = join_response(row->old_values[run_id - 1], row->old_values[task_id - 1],
						  rt_row_get(row, response));
	if (whole != (Datum) 0)
		rt_row_set(row, response, whole);
}

typedef struct ResponseId
{
	pg_uuid_t run_id;
	pg_uuid_t task_id;
} ResponseId;

struct RtResponses
{
	int n;
	int size;
	ResponseId ids[FLEXIBLE_ARRAY_MEMBER];
};

static ResponseId
response_id(TupleTableSlot *row, const RtTable *t)
{
	ResponseId id;
	bool isnull;

	id.run_id = *DatumGetUUIDP(slot_getattr(row, RT_ATT(t, tasks, run_id), &isnull));
	id.task_id = *DatumGetUUIDP(slot_getattr(row, RT_ATT(t, tasks, task_id), &isnull));
	return id;
}

/* Does a task have its pieces after an UPDATE as it had them before? */
static bool
keeps_pieces(const RtChanges *changes, const RtTable *t, const ResponseId *id)
{
	ResponseId new_id;

	if (!rt_task_is_open(changes->new, t))
		return false;
	new_id = response_id(changes->new, t);
	if (memcmp(id, &new_id, sizeof(ResponseId)) != 0)
		return false;
	return !rt_changes_differ(changes, RT_ATT(t, tasks, response));
}

/*
 * Note a change of a task in the AFTER trigger: responses that are complete, replaced or gone
 * have no pieces any more.
 */
void
rt_responses_note(RtResponses **responses, const RtChanges *changes, const RtTable *t)
{
	RtResponses *r = *responses;
	ResponseId id;
	bool isnull;

	/* only an open task with a response can have pieces */
	if (changes->old == NULL || !rt_task_is_open(changes->old, t))
		return;
	(void) slot_getattr(changes->old, RT_ATT(t, tasks, response), &isnull);
	if (isnull)
		return;
	id = response_id(changes->old, t);
	if (changes->new &&keeps_pieces(changes, t, &id))
		return;
	if (r == NULL || r->n == r->size)
	{
		int size = r ? r->size * 2 : 16;
		Size bytes = offsetof(RtResponses, ids) + sizeof(ResponseId) * size;

		r = r ? repalloc_huge(r, bytes) : palloc0(bytes);
		r->size = size;
		*responses = r;
	}
	r->ids[r->n++] = id;
}

/* Delete the pieces of a response. */
static void
delete_pieces(RtWriter *writer, const ResponseId *id, Snapshot snapshot)
{
	RtProbe probe;

	rt_probe_begin_child(&probe, writer->rel, UUIDPGetDatum(&id->run_id),
						 UUIDPGetDatum(&id->task_id), snapshot);
	while (rt_probe_next(&probe, ForwardScanDirection))
	{
		CHECK_FOR_INTERRUPTS();
		rt_row_require_visible(writer->rel, probe.slot);
		rt_writer_delete(writer, probe.slot);
	}
	rt_probe_end(&probe);
}

/* Delete the pieces of the responses that were noted.  The caller holds the rows of the tasks. */
void
rt_responses_forget(const RtResponses *responses)
{
	RtWriter writer;
	Snapshot snapshot;

	if (responses == NULL)
		return;
	rt_writer_open(&writer, RT_response_chunks);
	if (RelationGetNumberOfBlocks(writer.rel) > 0)
	{
		snapshot = rt_latest_snapshot();
		for (int i = 0; i < responses->n; i++)
			delete_pieces(&writer, &responses->ids[i], snapshot);
		UnregisterSnapshot(snapshot);
	}
	rt_writer_close(&writer);
}

/* ----------------------------------------------------------------
 * append_response()
 * ----------------------------------------------------------------
 */

/* The task that is appended to, locked. */
typedef struct Target
{
	pg_uuid_t run_id;
	Datum user_id; /* in SPI's memory */
	Datum status;  /* to go to; 0: it stays */
	bool begun;	   /* it has a response that is not empty */
} Target;

/* The status that the first piece takes a task to: streaming, or else from the queue. */
static Datum
status_of_stream(const RtLifecycle *lifecycle, int from)
{
	int to = rt_lifecycle_find_state(lifecycle, "streaming", strlen("streaming"));

	if (to < 0 || !rt_lifecycle_allows(lifecycle, from, to) ||
		lifecycle->states[to].phase != RT_ACTIVE)
		to = lifecycle->states[from].phase == RT_QUEUED ?
				 rt_lifecycle_next(lifecycle, from, RT_ACTIVE) :
				 -1;
	return to < 0 ? (Datum) 0 : CStringGetTextDatum(lifecycle->states[to].name);
}

/* 42501 unless the caller may write responses: pieces are written past privileges. */
static void
check_privilege(void)
{
	const RtTable *t = rt_table(RT_tasks);

	if (pg_class_aclcheck(t->relid, GetUserId(), ACL_UPDATE) != ACLCHECK_OK &&
		pg_attribute_aclcheck(t->relid, RT_ATT(t, tasks, response), GetUserId(), ACL_UPDATE) !=
			ACLCHECK_OK)
		aclcheck_error(ACLCHECK_NO_PRIV, OBJECT_TABLE, rt_table_name(RT_tasks));
}

/* Find and lock the task; P0002 if the caller may not change it, 55000 if it is finished. */
static void
find_target(FunctionCallInfo fcinfo, Target *target)
{
	static RtPlan find = {"SELECT lifecycle, status, attempt, run_id, user_id, "
						  "COALESCE(response <> '', false) FROM run_tracker.tasks "
						  "WHERE task_id = $1 FOR NO KEY UPDATE",
						  1,
						  {UUIDOID}};
	const RtLifecycle *lifecycle;
	HeapTuple tuple;
	TupleDesc desc;
	bool isnull;
	int state;

	rt_plan_execute(&find, fcinfo->args, SPI_OK_SELECT, false);
	if (SPI_processed == 0)
		ereport(ERROR, (errcode(ERRCODE_NO_DATA_FOUND), errmsg("task not found"),
						errdetail("There is no task %s that you may change.",
								  rt_uuid_string(PG_GETARG_DATUM(0)))));
	tuple = SPI_tuptable->vals[0];
	desc = SPI_tuptable->tupdesc;
	lifecycle = rt_lifecycle_get(SPI_getbinval(tuple, desc, 1, &isnull));
	state = rt_lifecycle_state_required(lifecycle, SPI_getbinval(tuple, desc, 2, &isnull));
	rt_call_check_attempt(fcinfo, 2, DatumGetInt32(SPI_getbinval(tuple, desc, 3, &isnull)), "task");
	if (!RT_PHASE_IS_OPEN(lifecycle->states[state].phase))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE), errmsg("task is finished"),
				 errdetail("Task %s has status \"%s\" and takes no more of a response.",
						   rt_uuid_string(PG_GETARG_DATUM(0)), lifecycle->states[state].name),
				 errhint("What had arrived by then is in tasks.response.")));
	target->run_id = *DatumGetUUIDP(SPI_getbinval(tuple, desc, 4, &isnull));
	target->user_id = SPI_getbinval(tuple, desc, 5, &isnull);
	target->begun = DatumGetBool(SPI_getbinval(tuple, desc, 6, &isnull));
	if (!target->begun || lifecycle->states[state].phase == RT_QUEUED)
		target->status = status_of_stream(lifecycle, state);
}

/* Where the response ends so far, in characters and bytes: after its last piece. */
static void
find_end(FunctionCallInfo fcinfo, Relation rel, const Target *target, int64 *length, int64 *bytes)
{
	static RtPlan measure = {"SELECT pg_catalog.length(response)::pg_catalog.int8, "
							 "pg_catalog.octet_length(response)::pg_catalog.int8 "
							 "FROM run_tracker.tasks WHERE task_id = $1",
							 1,
							 {UUIDOID}};
	const RtTable *t = rt_table(RT_response_chunks);
	Snapshot snapshot = rt_latest_snapshot();
	RtProbe probe;
	bool isnull;
	bool found;

	rt_probe_begin_child(&probe, rel, UUIDPGetDatum(&target->run_id), PG_GETARG_DATUM(0), snapshot);
	found = rt_probe_next(&probe, BackwardScanDirection);
	if (found)
	{
		text *piece =
			DatumGetTextPP(slot_getattr(probe.slot, RT_ATT(t, response_chunks, content), &isnull));

		rt_row_require_visible(rel, probe.slot);
		*length = DatumGetInt64(
					  slot_getattr(probe.slot, RT_ATT(t, response_chunks, start_offset), &isnull)) +
				  pg_mbstrlen_with_len(VARDATA_ANY(piece), VARSIZE_ANY_EXHDR(piece));
		*bytes =
			DatumGetInt64(slot_getattr(probe.slot, RT_ATT(t, response_chunks, end_bytes), &isnull));
	}
	rt_probe_end(&probe);
	UnregisterSnapshot(snapshot);
	if (found)
		return;
	rt_plan_execute(&measure, fcinfo->args, SPI_OK_SELECT, false);
	if (SPI_processed != 1)
		elog(ERROR, "task is gone");
	*length =
		DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	*bytes = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 2, &isnull));
}

/* The first piece is the response; the triggers note the first token.  Any piece starts the task.
 */
static void
update_task(FunctionCallInfo fcinfo, const Target *target)
{
	static RtPlan plan = {"UPDATE run_tracker.tasks SET response = COALESCE($2, response), "
						  "status = COALESCE($3, status) WHERE task_id = $1",
						  3,
						  {UUIDOID, TEXTOID, TEXTOID}};
	NullableDatum args[] = {fcinfo->args[0],
							{PG_GETARG_DATUM(1), target->begun},
							{target->status, target->status == (Datum) 0}};

	rt_plan_execute(&plan, args, SPI_OK_UPDATE, false);
	if (SPI_processed != 1)
		ereport(ERROR, (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE), errmsg("task was not updated"),
						errhint("A policy or a trigger may have suppressed the update.")));
}

/* Append a piece to a response that has begun; returns the length of the response before it. */
static int64
append_piece(FunctionCallInfo fcinfo, const Target *target, text *piece)
{
	int64 limit = (int64) rt_max_payload_kb * 1024;
	int64 length;
	int64 bytes;
	RtWriter writer;
	RtDelta alive = {.run_id = target->run_id, .last_message_at = DT_NOBEGIN};
	RtDelta *touched = &alive;

	rt_writer_open(&writer, RT_response_chunks);
	find_end(fcinfo, writer.rel, target, &length, &bytes);
	bytes += VARSIZE_ANY_EXHDR(piece);
	if (bytes > limit)
		ereport(ERROR, (errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED), errmsg("response is too large"),
						errdetail("It would have %lld bytes, at most %lld are allowed.",
								  (long long) bytes, (long long) limit),
						errhint("Store large values elsewhere and keep their address, or raise "
								"run_tracker.max_payload."),
						errtable(writer.rel)));
	if (VARSIZE_ANY_EXHDR(piece) > 0)
	{
		const RtTable *t = writer.table;

		rt_writer_blank(&writer);
		rt_writer_set(&writer, RT_ATT(t, response_chunks, run_id), UUIDPGetDatum(&target->run_id),
					  false);
		rt_writer_set(&writer, RT_ATT(t, response_chunks, task_id), PG_GETARG_DATUM(0), false);
		rt_writer_set(&writer, RT_ATT(t, response_chunks, user_id), target->user_id, false);
		rt_writer_set(&writer, RT_ATT(t, response_chunks, start_offset), Int64GetDatum(length),
					  false);
		rt_writer_set(&writer, RT_ATT(t, response_chunks, end_bytes), Int64GetDatum(bytes), false);
		rt_writer_set(&writer, RT_ATT(t, response_chunks, content), PointerGetDatum(piece), false);
		rt_writer_set(&writer, RT_ATT(t, response_chunks, created_at),
					  TimestampTzGetDatum(GetCurrentTimestamp()), false);
		rt_writer_insert(&writer);
		if (!ItemPointerIsValid(&writer.slot->tts_tid))
			ereport(ERROR, (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
							errmsg("the response was not appended to"),
							errhint("A trigger may have suppressed it."), errtable(writer.rel)));
	}
	rt_writer_close(&writer);
	rt_open_runs_touch(&touched, 1);
	rt_note_run(&target->run_id);
	return length;
}

/* append_response(task_id, delta, attempt) → length of the response in characters */
Datum
run_tracker_append_response(PG_FUNCTION_ARGS)
{
	Target target = {.status = (Datum) 0};
	text *piece;
	int64 length = 0;

	rt_call_require(fcinfo, 0, "task_id");
	rt_call_require(fcinfo, 1, "delta");
	piece = PG_GETARG_TEXT_PP(1);
	(void) rt_table(RT_response_chunks);
	check_privilege();
	/* nobody else would put the pieces together */
	rt_triggers_require();
	SPI_connect();
	find_target(fcinfo, &target);
	if (VARSIZE_ANY_EXHDR(piece) > 0 && (!target.begun || target.status != (Datum) 0))
		update_task(fcinfo, &target);
	if (target.begun)
		length = append_piece(fcinfo, &target, piece);
	SPI_finish();
	PG_RETURN_INT64(length + pg_mbstrlen_with_len(VARDATA_ANY(piece), VARSIZE_ANY_EXHDR(piece)));
}
