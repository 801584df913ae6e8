/*-------------------------------------------------------------------------
 *
 * queue.c
 *		Finding the runs to be claimed.
 *
 * An index of open_runs is read directly rather than through a query, so that no plan can
 * go wrong when the queue is long: for each priority, from the highest, what may be
 * claimed by now, oldest first.  What is scheduled for later is not even looked at,
 * however much there is of it.
 *
 * Locking protocol: nothing is waited for.  The row in open_runs and that in runs are
 * locked if nobody else has them, or has changed them since the claim began; else the
 * next run is taken.  Whoever waits for nothing cannot be part of a deadlock, so the
 * order is free.
 *
 * Memory: the caller's context; a claim needs little.
 *
 *-------------------------------------------------------------------------
 */
#include "run_tracker.h"

#include "access/genam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/fmgroids.h"
#include "utils/snapmgr.h"

#include "identity.h"
#include "lifecycles.h"
#include "open_runs.h"
#include "queue.h"
#include "writer.h"

/* The queue of a lifecycle, or of one kind of run in it. */
typedef struct Queue
{
	Datum lifecycle;
	IndexScanDesc scan;
	bool bounded;		 /* the scan ends with the lifecycle (and kind) */
	TupleTableSlot *row; /* the next that may be claimed, if has_row */
	bool has_row;
	int32 priority; /* of that row */
	TimestampTz available_at;
} Queue;

typedef struct Search
{
	RtClaim *claim;
	Relation open_runs;
	Relation runs;
	Relation index;
	Snapshot snapshot;
	Queue *queues;
	int nqueues;
} Search;

/* The collation that the index compares a text column by. */
#define index_collation(index, n) ((index)->rd_indcollation[(n) -1])

/* Begin to read the index at a lifecycle (and kind), and a condition on the next columns. */
static IndexScanDesc
begin_scan(const Search *search, Datum lifecycle, const ScanKeyData *more, int nmore)
{
	ScanKeyData keys[4];
	int n = 0;
	IndexScanDesc scan;

	ScanKeyEntryInitialize(&keys[n++], 0, 1, BTEqualStrategyNumber, InvalidOid,
						   index_collation(search->index, 1), F_TEXTEQ, lifecycle);
	if (search->claim->kind != (Datum) 0)
		ScanKeyEntryInitialize(&keys[n++], 0, 2, BTEqualStrategyNumber, InvalidOid,
							   index_collation(search->index, 2), F_TEXTEQ, search->claim->kind);
	for (int i = 0; i < nmore; i++)
	{
		keys[n] = more[i];
		keys[n].sk_attno = n + 1;
		n++;
	}
	scan = rt_index_beginscan(search->open_runs, search->index, search->snapshot, n);
	index_rescan(scan, keys, n, NULL, 0);
	return scan;
}

/* From the row that a queue has come to, go on to the next that may be claimed by now. */
static void
settle(const Search *search, Queue *queue, bool found)
{
	const RtTable *t = rt_table(RT_open_runs);

	for (;;)
	{
		TupleTableSlot *row = queue->row;
		ScanKeyData key;
		bool isnull;

		queue->has_row =
			found && (queue->bounded ||
					  datum_image_eq(slot_getattr(row, RT_ATT(t, open_runs, lifecycle), &isnull),
									 queue->lifecycle, false, -1));
		if (!queue->has_row)
			return;
		queue->priority = DatumGetInt32(slot_getattr(row, RT_ATT(t, open_runs, priority), &isnull));
		queue->available_at =
			DatumGetTimestampTz(slot_getattr(row, RT_ATT(t, open_runs, available_at), &isnull));
		if (queue->available_at <= search->claim->now)
			return;
		/* all that follows of this priority is for later */
		index_endscan(queue->scan);
		ScanKeyInit(&key, 1, BTLessStrategyNumber, F_INT4LT, Int32GetDatum(queue->priority));
		queue->scan = begin_scan(search, queue->lifecycle, &key, 1);
		queue->bounded = true;
		found = index_getnext_slot(queue->scan, ForwardScanDirection, row);
	}
}

static void
next_row(const Search *search, Queue *queue)
{
	settle(search, queue, index_getnext_slot(queue->scan, ForwardScanDirection, queue->row));
}

static Queue *
add_queue(Search *search, Datum lifecycle, IndexScanDesc scan, TupleTableSlot *row, bool bounded)
{
	Queue *queue;

	search->queues = search->queues ?
						 repalloc(search->queues, sizeof(Queue) * (search->nqueues + 1)) :
						 palloc(sizeof(Queue));
	queue = &search->queues[search->nqueues++];
	queue->lifecycle = lifecycle;
	queue->scan = scan;
	queue->row = row;
	queue->bounded = bounded;
	return queue;
}

/* Begin to read the queue of a lifecycle. */
static void
add_queue_of(Search *search, Datum lifecycle)
{
	next_row(search, add_queue(search, lifecycle, begin_scan(search, lifecycle, NULL, 0),
							   table_slot_create(search->open_runs, NULL), true));
}

/*
 * Find the lifecycles that have queued runs: the index is ordered by them.  The scan that
 * finds one goes on as that of its queue: going through what was claimed since the last
 * vacuum is the most expensive part of a claim, and is not done twice.
 */
static void
find_queues(Search *search)
{
	const RtTable *t = rt_table(RT_open_runs);
	Datum last = (Datum) 0;

	for (;;)
	{
		ScanKeyData key;
		TupleTableSlot *row = table_slot_create(search->open_runs, NULL);
		IndexScanDesc scan =
			rt_index_beginscan(search->open_runs, search->index, search->snapshot, last ? 1 : 0);
		bool isnull;
		bool found;

		ScanKeyEntryInitialize(&key, 0, 1, BTGreaterStrategyNumber, InvalidOid,
							   index_collation(search->index, 1), F_TEXT_GT, last);
		index_rescan(scan, &key, last ? 1 : 0, NULL, 0);
		found = index_getnext_slot(scan, ForwardScanDirection, row);
		if (found)
			last = PointerGetDatum(
				PG_DETOAST_DATUM_COPY(slot_getattr(row, RT_ATT(t, open_runs, lifecycle), &isnull)));
		if (found && search->claim->kind == (Datum) 0)
		{
			settle(search, add_queue(search, last, scan, row, false), true);
			continue;
		}
		index_endscan(scan);
		ExecDropSingleTupleTableSlot(row);
		if (!found)
			break;
		add_queue_of(search, last);
	}
}

static bool
has_failed(const Search *search, const pg_uuid_t *run_id)
{
	for (int i = 0; i < search->claim->nfailed; i++)
		if (memcmp(&search->claim->failed[i], run_id, UUID_LEN) == 0)
			return true;
	return false;
}

/* Lock a queued run, if nobody else has it. */
static void
try_claim(Search *search, TupleTableSlot *row)
{
	const RtTable *t = rt_table(RT_open_runs);
	RtProbe probe;
	RtRun run;
	bool isnull;

	if (!search->claim->service &&
		!rt_identity_is(slot_getattr(row, RT_ATT(t, open_runs, user_id), &isnull),
						search->claim->user))
		return;
	/* a run that we go past must not stay locked */
	if (rt_run_is_busy(DatumGetUUIDP(slot_getattr(row, RT_ATT(t, open_runs, run_id), &isnull)),
					   false))
		return;
	rt_probe_begin(&probe, search->runs, slot_getattr(row, RT_ATT(t, open_runs, run_id), &isnull),
				   search->snapshot);
	if (rt_probe_next(&probe, ForwardScanDirection))
	{
		const RtLifecycle *lifecycle;
		int to;

		/* looked at before it is locked: the lock fails if the row has changed since */
		rt_run_decode(&run, probe.slot, rt_table(RT_runs));
		lifecycle = rt_lifecycle_get(run.lifecycle);
		to = rt_lifecycle_next(lifecycle, rt_lifecycle_state_required(lifecycle, run.status),
							   RT_ACTIVE);
		if (run.phase == RT_QUEUED && to >= 0 && !has_failed(search, &run.run_id) &&
			rt_row_lock(search->runs, probe.slot, search->snapshot, LockTupleNoKeyExclusive,
						false) &&
			rt_row_lock(search->open_runs, row, search->snapshot, LockTupleExclusive, false))
		{
			pg_uuid_t *run_id = palloc(sizeof(pg_uuid_t));

			*run_id = run.run_id;
			search->claim->run_ids[search->claim->n] = UUIDPGetDatum(run_id);
			search->claim->statuses[search->claim->n] =
				CStringGetTextDatum(lifecycle->states[to].name);
			search->claim->n++;
		}
	}
	rt_probe_end(&probe);
}

/* The queue whose next run comes first: highest priority, then longest wait; NULL if none has one.
 */
static Queue *
next_queue(const Search *search)
{
	Queue *best = NULL;

	for (int i = 0; i < search->nqueues; i++)
	{
		Queue *queue = &search->queues[i];

		if (queue->has_row &&
			(best == NULL || queue->priority > best->priority ||
			 (queue->priority == best->priority && queue->available_at < best->available_at)))
			best = queue;
	}
	return best;
}

/* Lock the runs to be claimed, in the order of their claim. */
void
rt_queue_lock(RtClaim *claim, Datum lifecycle)
{
	Search found = {.claim = claim};
	Search *search = &found;
	const RtTable *t;
	AttrNumber keys[4];
	int nkeys = 0;

	search->runs = table_open(rt_table(RT_runs)->relid, RowExclusiveLock);
	search->open_runs = table_open(rt_table(RT_open_runs)->relid, RowExclusiveLock);
	t = rt_table(RT_open_runs);
	keys[nkeys++] = RT_ATT(t, open_runs, lifecycle);
	if (search->claim->kind != (Datum) 0)
		keys[nkeys++] = RT_ATT(t, open_runs, kind);
	keys[nkeys++] = RT_ATT(t, open_runs, priority);
	keys[nkeys++] = RT_ATT(t, open_runs, available_at);
	search->index =
		rt_index_open(search->open_runs,
					  search->claim->kind != (Datum) 0 ? RT_KIND_QUEUE_INDEX : RT_QUEUE_INDEX,
					  nkeys, keys, nkeys - 2);
	search->snapshot = rt_current_snapshot();

	if (lifecycle != (Datum) 0)
		add_queue_of(search, lifecycle);
	else
		find_queues(search);
	for (;;)
	{
		Queue *queue = next_queue(search);

		if (queue == NULL)
			break;
		CHECK_FOR_INTERRUPTS();
		try_claim(search, queue->row);
		if (claim->n == claim->wanted)
			break;
		next_row(search, queue);
	}

	for (int i = 0; i < search->nqueues; i++)
	{
		index_endscan(search->queues[i].scan);
		ExecDropSingleTupleTableSlot(search->queues[i].row);
	}
	if (search->queues)
		pfree(search->queues);
	UnregisterSnapshot(search->snapshot);
	index_close(search->index, AccessShareLock);
	table_close(search->open_runs, NoLock);
	table_close(search->runs, NoLock);
}
