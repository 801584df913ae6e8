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
	bool more;		/* there are runs of this priority or a lower one */
	int32 priority; /* that is being looked at */
	IndexScanDesc scan;
	TupleTableSlot *row; /* the next that may be claimed, if has_row */
	bool has_row;
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

/* Find the highest priority of a queue, or the highest below the one that it is at. */
static void
next_priority(const Search *search, Queue *queue, bool first)
{
	const RtTable *t = rt_table(RT_open_runs);
	ScanKeyData key;
	IndexScanDesc scan;
	bool isnull;

	ScanKeyInit(&key, 1, BTLessStrategyNumber, F_INT4LT, Int32GetDatum(queue->priority));
	scan = begin_scan(search, queue->lifecycle, &key, first ? 0 : 1);
	queue->more = index_getnext_slot(scan, ForwardScanDirection, queue->row);
	if (queue->more)
		queue->priority =
			DatumGetInt32(slot_getattr(queue->row, RT_ATT(t, open_runs, priority), &isnull));
	index_endscan(scan);
}

static void
next_row(Queue *queue)
{
	queue->has_row = index_getnext_slot(queue->scan, ForwardScanDirection, queue->row);
}

/* Begin to read what a queue has at its current priority, and may be claimed by now. */
static void
begin_priority(const Search *search, Queue *queue)
{
	ScanKeyData keys[2];

	ScanKeyInit(&keys[0], 1, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(queue->priority));
	ScanKeyInit(&keys[1], 1, BTLessEqualStrategyNumber, F_TIMESTAMPTZ_LE,
				TimestampTzGetDatum(search->claim->now));
	queue->scan = begin_scan(search, queue->lifecycle, keys, 2);
	next_row(queue);
}

static void
add_queue(Search *search, Datum lifecycle)
{
	Queue *queue;

	search->queues = search->queues ?
						 repalloc(search->queues, sizeof(Queue) * (search->nqueues + 1)) :
						 palloc(sizeof(Queue));
	queue = &search->queues[search->nqueues++];
	memset(queue, 0, sizeof(Queue));
	queue->lifecycle = lifecycle;
	queue->row = table_slot_create(search->open_runs, NULL);
}

/* Find the lifecycles that have queued runs: the index is ordered by them. */
static void
find_queues(Search *search)
{
	const RtTable *t = rt_table(RT_open_runs);
	TupleTableSlot *row = table_slot_create(search->open_runs, NULL);
	Datum last = (Datum) 0;
	bool found;

	do
	{
		ScanKeyData key;
		IndexScanDesc scan =
			rt_index_beginscan(search->open_runs, search->index, search->snapshot, last ? 1 : 0);
		bool isnull;

		ScanKeyEntryInitialize(&key, 0, 1, BTGreaterStrategyNumber, InvalidOid,
							   index_collation(search->index, 1), F_TEXT_GT, last);
		index_rescan(scan, &key, last ? 1 : 0, NULL, 0);
		found = index_getnext_slot(scan, ForwardScanDirection, row);
		if (found)
		{
			last = PointerGetDatum(
				PG_DETOAST_DATUM_COPY(slot_getattr(row, RT_ATT(t, open_runs, lifecycle), &isnull)));
			add_queue(search, last);
		}
		index_endscan(scan);
	} while (found);
	ExecDropSingleTupleTableSlot(row);
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
		!rt_identity_owns(slot_getattr(row, RT_ATT(t, open_runs, user_id), &isnull)))
		return;
	/* a run that we go past must not stay locked */
	if (rt_run_is_busy(DatumGetUUIDP(slot_getattr(row, RT_ATT(t, open_runs, run_id), &isnull)),
					   false))
		return;
	rt_probe_begin(&probe, search->runs, slot_getattr(row, RT_ATT(t, open_runs, run_id), &isnull),
				   search->snapshot);
	if (rt_probe_next(&probe, ForwardScanDirection) &&
		rt_row_lock(search->runs, probe.slot, search->snapshot, LockTupleNoKeyExclusive, false) &&
		rt_row_lock(search->open_runs, row, search->snapshot, LockTupleExclusive, false))
	{
		const RtLifecycle *lifecycle;
		int to;

		rt_run_decode(&run, probe.slot, rt_table(RT_runs));
		lifecycle = rt_lifecycle_get(run.lifecycle);
		to = rt_lifecycle_next(lifecycle, rt_lifecycle_state_required(lifecycle, run.status),
							   RT_ACTIVE);
		if (run.phase == RT_QUEUED && to >= 0 && !has_failed(search, &run.run_id))
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

/* The queue whose next run has waited longest; NULL if none has one. */
static Queue *
oldest(const Search *search)
{
	AttrNumber available_at = RT_ATT(rt_table(RT_open_runs), open_runs, available_at);
	TimestampTz best_at = 0;
	Queue *best = NULL;

	for (int i = 0; i < search->nqueues; i++)
	{
		Queue *queue = &search->queues[i];
		TimestampTz at;
		bool isnull;

		if (!queue->has_row)
			continue;
		at = DatumGetTimestampTz(slot_getattr(queue->row, available_at, &isnull));
		if (best == NULL || at < best_at)
		{
			best = queue;
			best_at = at;
		}
	}
	return best;
}

/* Take runs of one priority, oldest first; then move the queues that had it to the next. */
static void
claim_priority(Search *search, int32 priority)
{
	Queue *queue;

	for (int i = 0; i < search->nqueues; i++)
	{
		queue = &search->queues[i];
		queue->scan = NULL;
		queue->has_row = false;
		if (queue->more && queue->priority == priority)
			begin_priority(search, queue);
	}
	while (search->claim->n < search->claim->wanted && (queue = oldest(search)) != NULL)
	{
		CHECK_FOR_INTERRUPTS();
		try_claim(search, queue->row);
		next_row(queue);
	}
	for (int i = 0; i < search->nqueues; i++)
	{
		queue = &search->queues[i];
		if (queue->scan == NULL)
			continue;
		index_endscan(queue->scan);
		if (search->claim->n < search->claim->wanted)
			next_priority(search, queue, false);
	}
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
		add_queue(search, lifecycle);
	else
		find_queues(search);
	for (int i = 0; i < search->nqueues; i++)
		next_priority(search, &search->queues[i], true);
	while (search->claim->n < search->claim->wanted)
	{
		bool more = false;
		int32 priority = 0;

		for (int i = 0; i < search->nqueues; i++)
		{
			const Queue *queue = &search->queues[i];

			if (queue->more && (!more || queue->priority > priority))
				priority = queue->priority;
			more = more || queue->more;
		}
		if (!more)
			break;
		claim_priority(search, priority);
	}

	for (int i = 0; i < search->nqueues; i++)
		ExecDropSingleTupleTableSlot(search->queues[i].row);
	if (search->queues)
		pfree(search->queues);
	UnregisterSnapshot(search->snapshot);
	index_close(search->index, AccessShareLock);
	table_close(search->open_runs, NoLock);
	table_close(search->runs, NoLock);
}
