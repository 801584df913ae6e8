/*-------------------------------------------------------------------------
 *
 * messages.c
 *		Messages of conversations.
 *
 *-------------------------------------------------------------------------
 */
#include "run_tracker.h"

#include "access/detoast.h"
#include "access/table.h"
#include "access/tableam.h"
#include "executor/executor.h"
#include "executor/spi.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/snapmgr.h"

#include "calls.h"
#include "conversation.h"
#include "open_runs.h"
#include "runs.h"
#include "sequence.h"
#include "totals.h"
#include "writer.h"

PG_FUNCTION_INFO_V1(run_tracker_messages_before);
PG_FUNCTION_INFO_V1(run_tracker_messages_after);
PG_FUNCTION_INFO_V1(run_tracker_add_message);
PG_FUNCTION_INFO_V1(run_tracker_run_messages);

/* characters of the first message that make the name of a run */
#define RT_NAME_LENGTH 80

/* BEFORE INSERT OR UPDATE FOR EACH ROW on messages: owner, number, sound values. */
Datum
run_tracker_messages_before(PG_FUNCTION_ARGS)
{
	const RtTable *t = rt_trigger_check(fcinfo, RT_messages, RT_BEFORE_ROW, "messages_before");
	TriggerData *trigdata = (TriggerData *) fcinfo->context;
	AttrNumber role = RT_ATT(t, messages, role);
	AttrNumber seq = RT_ATT(t, messages, seq);
	AttrNumber names[] = {role, RT_ATT(t, messages, name)};
	RtRow row;

	rt_row_begin(&row, trigdata, t);
	rt_row_require(&row, role);
	if (VARSIZE_ANY_EXHDR(DatumGetTextPP(rt_row_get(&row, role))) == 0)
		rt_row_violation(&row, role, "A message needs a role, such as user or assistant.");
	if (rt_row_isnull(&row, RT_ATT(t, messages, content)) &&
		rt_row_isnull(&row, RT_ATT(t, messages, parts)))
		rt_row_violation(&row, RT_ATT(t, messages, content),
						 "A message needs a content, or parts.");
	rt_row_check_names(&row, names, lengthof(names));
	rt_row_check_json(&row, RT_ATT(t, messages, parts), true);
	rt_row_check_json(&row, RT_ATT(t, messages, metadata), false);
	rt_row_check_size(&row);

	if (TRIGGER_FIRED_BY_INSERT(trigdata->tg_event))
	{
		rt_run_adopt(&row, RT_ATT(t, messages, run_id), RT_ATT(t, messages, user_id));
		rt_row_default(&row, RT_ATT(t, messages, created_at),
					   TimestampTzGetDatum(GetCurrentTimestamp()));
		if (rt_row_isnull(&row, seq))
		{
			Datum run_id = rt_row_get(&row, RT_ATT(t, messages, run_id));

			/* the number is not to be waited for by all while we wait for the run */
			rt_run_hold(DatumGetUUIDP(run_id));
			rt_row_set(&row, seq, Int64GetDatum(rt_sequence_next(row.rel, seq, run_id)));
		}
	}
	return rt_row_end(&row);
}

static void
message_contribution(RtDelta *delta, TupleTableSlot *row, const RtTable *t, int sign)
{
	bool isnull;
	TimestampTz created_at =
		DatumGetTimestampTz(slot_getattr(row, RT_ATT(t, messages, created_at), &isnull));

	rt_delta_count(delta, RT_COUNT_MESSAGES, sign);
	if (sign > 0 && created_at > delta->last_message_at)
		delta->last_message_at = created_at;
}

/* The beginning of a message, on one line, as the name of its run; NULL if there is none. */
static char *
make_name(text *content)
{
	char *data = VARDATA_ANY(content);
	int len = VARSIZE_ANY_EXHDR(content);
	char *name;
	int n = 0;

	len = pg_mbcharcliplen(data, len, RT_NAME_LENGTH);
	name = palloc(len + 1);
	for (int i = 0; i < len; i++)
	{
		/* no multibyte character of a server encoding contains an ASCII byte */
		bool space = data[i] == ' ' || data[i] == '\n' || data[i] == '\r' || data[i] == '\t';

		if (space && (n == 0 || name[n - 1] == ' '))
			continue;
		name[n++] = space ? ' ' : data[i];
	}
	while (n > 0 && name[n - 1] == ' ')
		n--;
	name[n] = '\0';
	return n > 0 ? name : NULL;
}

/* The first text among the parts of a message; NULL if there is none. */
static text *
first_text(Jsonb *parts)
{
	JsonbIterator *it = JsonbIteratorInit(&parts->root);
	JsonbValue part;
	JsonbValue *found = NULL;

	(void) JsonbIteratorNext(&it, &part, true);
	while (found == NULL && JsonbIteratorNext(&it, &part, true) == WJB_ELEM)
	{
		if (part.type == jbvString)
			found = &part;
		else if (part.type == jbvBinary && JsonContainerIsObject(part.val.binary.data))
			found =
				getKeyJsonValueFromContainer(part.val.binary.data, "text", strlen("text"), NULL);
		if (found && found->type != jbvString)
			found = NULL;
	}
	return found ? cstring_to_text_with_len(found->val.string.val, found->val.string.len) : NULL;
}

/* What a message says, to make a name of; NULL if it says nothing. */
static text *
text_of(TupleTableSlot *slot, const RtTable *t)
{
	Datum content = rt_slot_value(slot, RT_ATT(t, messages, content));
	Datum parts = rt_slot_value(slot, RT_ATT(t, messages, parts));

	if (content != (Datum) 0 && toast_raw_datum_size(content) > VARHDRSZ)
		return DatumGetTextPP(content);
	return parts != (Datum) 0 ? first_text(DatumGetJsonbP(parts)) : NULL;
}

/*
 * Name a run, if it has no name.  If somebody else holds the row of the run, the next
 * message of a user gives the name: adding a message never waits for that.
 */
static void
name_run(const pg_uuid_t *run_id, const char *name)
{
	RtWriter writer;
	Snapshot snapshot = rt_current_snapshot();
	RtProbe probe;

	rt_writer_open(&writer, RT_runs);
	rt_probe_begin(&probe, writer.rel, UUIDPGetDatum(run_id), snapshot);
	if (rt_probe_next(&probe, ForwardScanDirection))
	{
		bool isnull;
		AttrNumber att = RT_ATT(writer.table, runs, name);

		(void) slot_getattr(probe.slot, att, &isnull);
		if (isnull && rt_row_lock(writer.rel, probe.slot, snapshot, LockTupleNoKeyExclusive, false))
		{
			rt_writer_copy(&writer, probe.slot);
			rt_writer_set(&writer, att, CStringGetTextDatum(name), false);
			rt_writer_update(&writer, probe.slot);
		}
	}
	rt_probe_end(&probe);
	UnregisterSnapshot(snapshot);
	rt_writer_close(&writer);
}

/* Name the runs that got the first message of their user. */
static void
name_runs(TriggerData *trigdata, const RtTable *t)
{
	RtChanges changes;
	pg_uuid_t last = {{0}};

	rt_changes_begin(&changes, trigdata);
	while (rt_changes_next(&changes))
	{
		TupleTableSlot *slot = changes.new;
		bool isnull;
		text *role = DatumGetTextPP(slot_getattr(slot, RT_ATT(t, messages, role), &isnull));
		text *content;
		pg_uuid_t run_id;
		RtRunInfo run;
		char *name;

		if (VARSIZE_ANY_EXHDR(role) != 4 || memcmp(VARDATA_ANY(role), "user", 4) != 0)
			continue;
		content = text_of(slot, t);
		if (content == NULL)
			continue;
		run_id = *DatumGetUUIDP(slot_getattr(slot, RT_ATT(t, messages, run_id), &isnull));
		if (memcmp(&last, &run_id, sizeof(pg_uuid_t)) == 0)
			continue;
		if (!rt_run_lookup(&run_id, &run) || run.named)
			last = run_id;
		else if ((name = make_name(content)) != NULL)
		{
			name_run(&run_id, name);
			last = run_id;
		}
	}
	rt_changes_end(&changes);
}

/* AFTER INSERT, UPDATE or DELETE FOR EACH STATEMENT on messages: totals, names of runs. */
Datum
run_tracker_messages_after(PG_FUNCTION_ARGS)
{
	const RtTable *t = rt_trigger_check(fcinfo, RT_messages, RT_AFTER_STATEMENT, "messages_after");
	TriggerData *trigdata = (TriggerData *) fcinfo->context;

	rt_sequence_release();
	rt_fold_statement(trigdata, t, RT_ATT(t, messages, run_id), message_contribution);
	if (TRIGGER_FIRED_BY_INSERT(trigdata->tg_event))
		name_runs(trigdata, t);
	return PointerGetDatum(NULL);
}

/* add_message(run_id, role, content, task_id, parts, name, metadata) → seq */
Datum
run_tracker_add_message(PG_FUNCTION_ARGS)
{
	static RtPlan plan =
		{"INSERT INTO run_tracker.messages (run_id, role, content, task_id, parts, name, metadata) "
		 "VALUES ($1, $2, $3, $4, $5, $6, $7) RETURNING seq",
		 7,
		 {UUIDOID, TEXTOID, TEXTOID, UUIDOID, JSONBOID, TEXTOID, JSONBOID}};

	rt_call_require(fcinfo, 0, "run_id");
	rt_call_require(fcinfo, 1, "role");
	rt_run_require(PG_GETARG_DATUM(0));
	return rt_call_insert(&plan, fcinfo, RT_messages);
}

/* run_messages(run_id) → the conversation as a JSON array, oldest message first */
Datum
run_tracker_run_messages(PG_FUNCTION_ARGS)
{
	rt_call_require(fcinfo, 0, "run_id");
	rt_run_require(PG_GETARG_DATUM(0));
	PG_RETURN_DATUM(rt_conversation_read(fcinfo->args));
}
