/*-------------------------------------------------------------------------
 *
 * totals.c
 *		The totals of runs, exact in every snapshot and never waited for.
 *
 * run_totals holds one row per run and, where writers met, a few more: "slots",
 * whose sum is the run's total.  A delta goes to any slot of its run.
 *
 * Locking protocol: a writer takes the first slot row that it can lock at once
 * (FOR NO KEY UPDATE, skipping locked rows), else inserts a slot of its own.  So
 * writers of one run never wait for each other, and folds of several runs cannot
 * deadlock.  Under REPEATABLE READ and SERIALIZABLE, a slot that was changed after
 * the transaction's snapshot is skipped, too: taking it would make other
 * transactions' changes visible in ours, taking another one needs no retry.
 *
 * A new slot's number is that of the backend, plus a multiple of the highest
 * possible backend number if a row with that number exists already: no two
 * backends can choose the same.  Hence the insertion never waits either.  There is
 * no foreign key to runs, which would wait for whoever is about to finish the run:
 * the trigger on runs deletes the slots with their run.
 *
 * The place of the slot row last written is remembered for each run until the
 * transaction ends: thousands of single-row completions within one transaction
 * would otherwise walk over all versions of the row that they left behind.
 *
 * Memory: the remembered places live in TopTransactionContext; the end of the
 * transaction and the abort of any subtransaction forget all of them.
 *
 *-------------------------------------------------------------------------
 */
#include "run_tracker.h"

#include "access/tableam.h"
#include "access/table.h"
#include "access/xact.h"
#include "common/int.h"
#include "miscadmin.h"
#include "storage/proc.h"
#include "utils/fmgrprotos.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "runs.h"
#include "totals.h"
#include "writer.h"

/* more remembered places than this are not worth their memory */
#define RT_MAX_PLACES 16384

typedef struct RtPlace
{
	pg_uuid_t run_id; /* key */
	ItemPointerData tid;
} RtPlace;

static HTAB *places = NULL;
static uint64 places_generation; /* of run_totals, when they were remembered */

/* column of run_totals for each RtCounter */
static const int counter_columns[RT_NCOUNTERS] = {
	RT_run_totals_task_count,	  RT_run_totals_failed_task_count, RT_run_totals_open_task_count,
	RT_run_totals_input_tokens,	  RT_run_totals_output_tokens,	   RT_run_totals_total_tokens,
	RT_run_totals_message_count,  RT_run_totals_error_count,	   RT_run_totals_retrieval_count,
	RT_run_totals_artifact_count,
};

static void
forget_at_xact_end(XactEvent event, void *arg)
{
	/* the memory goes with the transaction */
	if (event == XACT_EVENT_ABORT || event == XACT_EVENT_COMMIT || event == XACT_EVENT_PREPARE)
		places = NULL;
}

static void
forget_at_subxact_end(SubXactEvent event, SubTransactionId sub, SubTransactionId parent, void *arg)
{
	/* the rows there may be versions that were rolled back */
	if (event == SUBXACT_EVENT_ABORT_SUB && places)
	{
		hash_destroy(places);
		places = NULL;
	}
}

/* Register the callbacks; once per backend. */
void
rt_totals_init(void)
{
	RegisterXactCallback(forget_at_xact_end, NULL);
	RegisterSubXactCallback(forget_at_subxact_end, NULL);
}

/* Remember where the slot of a run is that this transaction has written. */
static void
remember(const pg_uuid_t *run_id, ItemPointer tid)
{
	RtPlace *place;
	bool found;

	if (places == NULL || hash_get_num_entries(places) >= RT_MAX_PLACES ||
		places_generation != rt_table(RT_run_totals)->generation)
	{
		HASHCTL ctl = {0};

		if (places)
			hash_destroy(places);
		ctl.keysize = sizeof(pg_uuid_t);
		ctl.entrysize = sizeof(RtPlace);
		ctl.hcxt = TopTransactionContext;
		places = hash_create("run_tracker places of slots", 64, &ctl,
							 HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
		places_generation = rt_table(RT_run_totals)->generation;
	}
	place = hash_search(places, run_id, HASH_ENTER, &found);
	place->tid = *tid;
}

/*
 * Fetch the slot row that this transaction has written before.  False when there
 * is none, or somebody has written over it since.
 */
static bool
fetch_remembered(RtWriter *writer, const pg_uuid_t *run_id, TupleTableSlot *row)
{
	RtPlace *place;
	Datum found_id;
	bool isnull;

	/* after a rewrite of the table, the rows are elsewhere */
	if (places == NULL || places_generation != writer->table->generation ||
		(place = hash_search(places, run_id, HASH_FIND, NULL)) == NULL)
		return false;
	if (!table_tuple_fetch_row_version(writer->rel, &place->tid, SnapshotSelf, row))
		return false;
	found_id = slot_getattr(row, RT_ATT(writer->table, run_totals, run_id), &isnull);
	return !isnull && memcmp(DatumGetUUIDP(found_id), run_id, sizeof(pg_uuid_t)) == 0;
}

/* Find a slot row of the run that can be locked at once. */
static bool
lock_free_slot(RtWriter *writer, const pg_uuid_t *run_id, Snapshot snapshot, TupleTableSlot *row)
{
	RtProbe probe;
	bool locked = false;

	rt_probe_begin(&probe, writer->rel, UUIDPGetDatum(run_id), snapshot);
	while (!locked && rt_probe_next(&probe, ForwardScanDirection))
	{
		ExecCopySlot(row, probe.slot);
		row->tts_tid = probe.slot->tts_tid;
		locked = rt_row_lock(writer->rel, row, snapshot, LockTupleNoKeyExclusive, false);
	}
	rt_probe_end(&probe);
	return locked;
}

/* A number for a new slot that no other backend can choose. */
static int32
free_slot_number(RtWriter *writer, const pg_uuid_t *run_id)
{
	SnapshotData dirty;
	RtProbe probe;
	int32 candidate = RT_MY_BACKEND;
	int stride = MaxBackends + 1;

	InitDirtySnapshot(dirty);
	rt_probe_begin(&probe, writer->rel, UUIDPGetDatum(run_id), &dirty);
	/* rows come in the order of their numbers */
	while (rt_probe_next(&probe, ForwardScanDirection))
	{
		bool isnull;
		int32 taken = DatumGetInt32(
			slot_getattr(probe.slot, RT_ATT(writer->table, run_totals, slot), &isnull));

		if (taken == candidate)
			candidate += stride;
	}
	rt_probe_end(&probe);
	return candidate;
}

/* Begin a row of zeros. */
static void
blank_slot(RtWriter *writer, const pg_uuid_t *run_id, Datum user_id, int32 number, Datum zero,
		   Datum now)
{
	const RtTable *t = writer->table;

	rt_writer_blank(writer);
	rt_writer_set(writer, RT_ATT(t, run_totals, run_id), UUIDPGetDatum(run_id), false);
	rt_writer_set(writer, RT_ATT(t, run_totals, user_id), user_id, false);
	rt_writer_set(writer, RT_ATT(t, run_totals, slot), Int32GetDatum(number), false);
	for (int i = 0; i < RT_NCOUNTERS; i++)
		rt_writer_set(writer, t->att[counter_columns[i]], Int64GetDatum(0), false);
	rt_writer_set(writer, RT_ATT(t, run_totals, total_cost), zero, false);
	rt_writer_set(writer, RT_ATT(t, run_totals, last_activity_at), now, false);
	rt_writer_set(writer, RT_ATT(t, run_totals, updated_at), now, false);
}

/* Create slot 0 of new runs, which nobody else can see yet. */
void
rt_totals_create(const pg_uuid_t *run_ids, const Datum *user_ids, int n)
{
	RtWriter writer;
	Datum zero = DirectFunctionCall1(int8_numeric, Int64GetDatum(0));
	Datum now = TimestampTzGetDatum(GetCurrentTimestamp());

	if (n == 0)
		return;
	rt_writer_open(&writer, RT_run_totals);
	for (int i = 0; i < n; i++)
	{
		blank_slot(&writer, &run_ids[i], user_ids[i], 0, zero, now);
		rt_writer_insert(&writer);
	}
	rt_writer_close(&writer);
}

/* Add a delta to the row begun in the writer. */
static void
add_delta(RtWriter *writer, RtDelta *delta, Datum now)
{
	const RtTable *t = writer->table;
	Datum *values = writer->slot->tts_values;
	bool *nulls = writer->slot->tts_isnull;
	AttrNumber att;

	for (int i = 0; i < RT_NCOUNTERS; i++)
	{
		int64 sum;

		if (delta->counts[i] == 0)
			continue;
		att = t->att[counter_columns[i]];
		if (pg_add_s64_overflow(DatumGetInt64(values[att - 1]), delta->counts[i], &sum))
			ereport(ERROR, (errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
							errmsg("totals of run %s are out of range",
								   rt_uuid_string(UUIDPGetDatum(&delta->run_id)))));
		rt_writer_set(writer, att, Int64GetDatum(sum), false);
	}

	if (delta->cost != (Datum) 0)
	{
		att = RT_ATT(t, run_totals, total_cost);
		rt_writer_set(writer, att, DirectFunctionCall2(numeric_add, values[att - 1], delta->cost),
					  false);
	}

	if (delta->last_message_at != DT_NOBEGIN)
	{
		att = RT_ATT(t, run_totals, last_message_at);
		if (nulls[att - 1] || DatumGetTimestampTz(values[att - 1]) < delta->last_message_at)
			rt_writer_set(writer, att, TimestampTzGetDatum(delta->last_message_at), false);
	}

	rt_writer_set(writer, RT_ATT(t, run_totals, last_activity_at), now, false);
	rt_writer_set(writer, RT_ATT(t, run_totals, updated_at), now, false);
}

/* Is a numeric zero? */
static bool
numeric_is_zero(Datum value)
{
	return DatumGetBool(DirectFunctionCall2(numeric_eq, value,
											DirectFunctionCall1(int8_numeric, Int64GetDatum(0))));
}

/* Does the delta change nothing? */
static bool
delta_is_zero(RtDelta *delta)
{
	for (int i = 0; i < RT_NCOUNTERS; i++)
		if (delta->counts[i] != 0)
			return false;
	if (delta->cost != (Datum) 0 && !numeric_is_zero(delta->cost))
		return false;
	return delta->last_message_at == DT_NOBEGIN;
}

/*
 * Add deltas to the totals of their runs; each run occurs once.  A run that is
 * gone has no totals, and gets none.
 */
void
rt_totals_apply(RtDelta **deltas, int n)
{
	RtWriter writer;
	TupleTableSlot *row;
	Snapshot snapshot = NULL;
	Datum now = TimestampTzGetDatum(GetCurrentTimestamp());
	int first = 0;

	while (first < n && delta_is_zero(deltas[first]))
		first++;
	if (first == n)
		return;

	rt_writer_open(&writer, RT_run_totals);
	row = table_slot_create(writer.rel, NULL);

	for (int i = first; i < n; i++)
	{
		RtDelta *delta = deltas[i];
		RtRunInfo run;

		CHECK_FOR_INTERRUPTS();
		if (delta_is_zero(delta))
			continue;

		if (!fetch_remembered(&writer, &delta->run_id, row))
		{
			if (snapshot == NULL)
				snapshot = rt_current_snapshot();
			if (!lock_free_slot(&writer, &delta->run_id, snapshot, row))
				ExecClearTuple(row);
		}

		if (!TTS_EMPTY(row))
		{
			rt_writer_copy(&writer, row);
			add_delta(&writer, delta, now);
			rt_writer_update(&writer, row);
		}
		else if (rt_run_lookup(&delta->run_id, &run))
		{
			blank_slot(&writer, &delta->run_id, run.user_id,
					   free_slot_number(&writer, &delta->run_id),
					   DirectFunctionCall1(int8_numeric, Int64GetDatum(0)), now);
			add_delta(&writer, delta, now);
			rt_writer_insert(&writer);
		}
		else
			continue;

		remember(&delta->run_id, &writer.slot->tts_tid);
	}

	if (snapshot)
		UnregisterSnapshot(snapshot);
	ExecDropSingleTupleTableSlot(row);
	rt_writer_close(&writer);
}
