/*-------------------------------------------------------------------------
 *
 * transitions.c
 *		The history of status changes.
 *
 * Written by the statement triggers of runs and tasks; nobody has privileges to write
 * there.
 *
 *-------------------------------------------------------------------------
 */
#include "run_tracker.h"

#include "utils/builtins.h"
#include "utils/snapmgr.h"

#include "identity.h"
#include "runs.h"
#include "sequence.h"
#include "writer.h"

/* When the last transition of the run itself happened; fallback if there was none. */
static TimestampTz
last_transition(RtWriter *writer, Datum run_id, TimestampTz fallback)
{
	const RtTable *t = writer->table;
	Snapshot snapshot = rt_latest_snapshot();
	RtProbe probe;
	TimestampTz result = fallback;

	rt_probe_begin(&probe, writer->rel, run_id, snapshot);
	while (rt_probe_next(&probe, BackwardScanDirection))
	{
		bool isnull;

		(void) slot_getattr(probe.slot, RT_ATT(t, transitions, task_id), &isnull);
		if (isnull)
		{
			result = DatumGetTimestampTz(
				slot_getattr(probe.slot, RT_ATT(t, transitions, occurred_at), &isnull));
			break;
		}
	}
	rt_probe_end(&probe);
	UnregisterSnapshot(snapshot);
	return result;
}

/* Append transitions to the history. */
void
rt_transitions_write(const RtTransition *transitions, int n)
{
	RtWriter writer;
	Datum actor;
	TimestampTz now = GetCurrentTimestamp();

	if (n == 0)
		return;

	actor = CStringGetTextDatum(rt_identity_actor());

	rt_writer_open(&writer, RT_transitions);
	for (int i = 0; i < n; i++)
	{
		const RtTransition *transition = &transitions[i];
		const RtTable *t = writer.table;
		Datum run_id = UUIDPGetDatum(&transition->run_id);
		TimestampTz since = transition->since;

		if (transition->task_id == NULL)
			since = last_transition(&writer, run_id, since);

		rt_writer_blank(&writer);
		rt_writer_set(&writer, RT_ATT(t, transitions, run_id), run_id, false);
		rt_writer_set(&writer, RT_ATT(t, transitions, user_id), transition->user_id, false);
		rt_writer_set(&writer, RT_ATT(t, transitions, task_id), UUIDPGetDatum(transition->task_id),
					  transition->task_id == NULL);
		rt_writer_set(&writer, RT_ATT(t, transitions, from_status), transition->from, false);
		rt_writer_set(&writer, RT_ATT(t, transitions, to_status), transition->to, false);
		rt_writer_set(&writer, RT_ATT(t, transitions, attempt), Int32GetDatum(transition->attempt),
					  false);
		rt_writer_set(&writer, RT_ATT(t, transitions, actor), actor, false);
		rt_writer_set(&writer, RT_ATT(t, transitions, reason), transition->reason,
					  transition->reason == (Datum) 0);
		rt_writer_set(&writer, RT_ATT(t, transitions, state_ms),
					  Int64GetDatum(rt_elapsed_ms(since, now)), false);
		rt_writer_set(&writer, RT_ATT(t, transitions, occurred_at), TimestampTzGetDatum(now),
					  false);
		rt_writer_set(&writer, RT_ATT(t, transitions, seq),
					  Int64GetDatum(
						  rt_sequence_next(writer.rel, RT_ATT(t, transitions, seq), run_id)),
					  false);
		rt_writer_insert(&writer);
	}
	rt_sequence_release();
	rt_writer_close(&writer);
}
