/*-------------------------------------------------------------------------
 *
 * run_tracker.c
 *		Entry point of the library, and the few helpers that all parts share.
 *
 *-------------------------------------------------------------------------
 */
#include "run_tracker.h"

#include "miscadmin.h"
#include "utils/builtins.h"

#include "catalog.h"
#include "conflicts.h"
#include "notes.h"
#include "sequence.h"
#include "shared.h"
#include "totals.h"
#include "views.h"
#include "worker.h"

RT_MODULE_MAGIC;

PG_FUNCTION_INFO_V1(run_tracker_tracker_version);

const char *const rt_phase_names[RT_NPHASES] = {"queued", "active",	   "waiting",  "succeeded",
												"failed", "cancelled", "timed_out"};

void _PG_init(void);

/* Called once per backend, when the library is loaded. */
void
_PG_init(void)
{
	rt_guc_init();
	rt_catalog_init();
	rt_totals_init();
	rt_sequence_init();
	rt_notes_init();
	rt_views_init();
	rt_conflicts_init();

	/* nothing may connect to a database while pg_upgrade works on it */
	if (process_shared_preload_libraries_in_progress && !IsBinaryUpgrade)
	{
		rt_shared_init();
		rt_launcher_register();
	}
}

/* tracker_version() → the version of the library, to compare with that of the tables. */
Datum
run_tracker_tracker_version(PG_FUNCTION_ARGS)
{
	PG_RETURN_TEXT_P(cstring_to_text(RT_VERSION));
}

/* The phase that a column "phase" holds; its CHECK leaves no other word. */
RtPhase
rt_phase_decode(Datum phase)
{
	text *t = DatumGetTextPP(phase);

	for (int i = 0; i < RT_NPHASES; i++)
	{
		/* all phases differ in their first letter */
		if (VARSIZE_ANY_EXHDR(t) > 0 && VARDATA_ANY(t)[0] == rt_phase_names[i][0])
			return (RtPhase) i;
	}
	elog(ERROR, "unexpected phase \"%s\"", text_to_cstring(t));
	return RT_QUEUED; /* keep compiler quiet */
}

/* A phase as the text that the tables hold, palloc'd. */
Datum
rt_phase_datum(RtPhase phase)
{
	return CStringGetTextDatum(rt_phase_names[phase]);
}

/* Milliseconds from one moment to another; 0 when clocks went backwards or a moment is infinite. */
int64
rt_elapsed_ms(TimestampTz from, TimestampTz to)
{
	if (TIMESTAMP_NOT_FINITE(from) || TIMESTAMP_NOT_FINITE(to) || to <= from)
		return 0;
	/* the whole range of timestamps is longer than that of intervals */
	return ((uint64) to - (uint64) from) / 1000;
}

/* A uuid as a C string, palloc'd, for messages. */
char *
rt_uuid_string(Datum uuid)
{
	return DatumGetCString(DirectFunctionCall1(uuid_out, uuid));
}
