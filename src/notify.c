/*-------------------------------------------------------------------------
 *
 * notify.c
 *		Announcements of changed runs: NOTIFY run_tracker, '{"run_id": …}'.
 *
 * A payload says where the run stands now, not what happened to it, so that many
 * changes can be announced as one.  Anyone who can connect can listen, whatever
 * policies say: of what a run works on, nothing is in it but the words that the
 * application has for its status and its step.
 *
 *-------------------------------------------------------------------------
 */
#include "notes.h"

#include "access/table.h"
#include "commands/async.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/json.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "catalog.h"
#include "writer.h"

#define CHANNEL "run_tracker"

/* bytes of a text in a payload: NOTIFY takes less than 8000, and escapes may take six for one */
#define MAX_TEXT_LENGTH 256

/* Append "key": text, or null, cut off at a length that a payload can take. */
static void
append_text(StringInfo payload, const char *key, TupleTableSlot *row, AttrNumber att)
{
	bool isnull;
	Datum value = slot_getattr(row, att, &isnull);
	text *head;
	char *string;

	appendStringInfo(payload, ", \"%s\": ", key);
	if (isnull)
	{
		appendStringInfoString(payload, "null");
		return;
	}
	/* not all of it, which may be long */
	head = (text *) PG_DETOAST_DATUM_SLICE(value, 0, 2 * MAX_TEXT_LENGTH);
	string = VARDATA_ANY(head);
	string = pnstrdup(string, pg_mbcliplen(string, VARSIZE_ANY_EXHDR(head), MAX_TEXT_LENGTH));
	escape_json(payload, string);
}

static char *
make_payload(TupleTableSlot *row, const RtTable *t)
{
	StringInfoData payload;
	bool isnull;
	Datum value;

	initStringInfo(&payload);
	appendStringInfo(&payload, "{\"run_id\": \"%s\"",
					 rt_uuid_string(slot_getattr(row, RT_ATT(t, runs, run_id), &isnull)));
	append_text(&payload, "status", row, RT_ATT(t, runs, status));
	append_text(&payload, "phase", row, RT_ATT(t, runs, phase));
	value = slot_getattr(row, RT_ATT(t, runs, progress), &isnull);
	if (isnull)
		appendStringInfoString(&payload, ", \"progress\": null");
	else
		appendStringInfo(&payload, ", \"progress\": %d", DatumGetInt16(value));
	append_text(&payload, "current_step", row, RT_ATT(t, runs, current_step));
	value = slot_getattr(row, RT_ATT(t, runs, attempt), &isnull);
	appendStringInfo(&payload, ", \"attempt\": %d}", DatumGetInt32(value));
	return payload.data;
}

/*
 * Announce runs as they are now, in this transaction; those that are gone are passed over.
 * Returns the number of announcements.
 */
int
rt_notify_runs(const pg_uuid_t *runs, int n)
{
	MemoryContext context;
	Relation rel;
	Snapshot snapshot;
	int sent = 0;

	/* they may have been dropped after the change */
	if (n == 0 || !rt_tables_exist())
		return 0;
	rel = table_open(rt_table(RT_runs)->relid, AccessShareLock);
	PushActiveSnapshot(GetLatestSnapshot());
	snapshot = GetActiveSnapshot();
	context =
		AllocSetContextCreate(CurrentMemoryContext, "run_tracker payload", ALLOCSET_DEFAULT_SIZES);
	for (int i = 0; i < n; i++)
	{
		MemoryContext old = MemoryContextSwitchTo(context);
		RtProbe probe;

		CHECK_FOR_INTERRUPTS();
		rt_probe_begin(&probe, rel, UUIDPGetDatum(&runs[i]), snapshot);
		if (rt_probe_next(&probe, ForwardScanDirection))
		{
			Async_Notify(CHANNEL, make_payload(probe.slot, rt_table(RT_runs)));
			sent++;
		}
		rt_probe_end(&probe);
		MemoryContextSwitchTo(old);
		MemoryContextReset(context);
	}
	MemoryContextDelete(context);
	PopActiveSnapshot();
	table_close(rel, AccessShareLock);
	return sent;
}

/* Tell listeners, in this transaction, that they have to read everything again. */
void
rt_notify_resync(void)
{
	Async_Notify(CHANNEL, "{\"resync\": true}");
}
