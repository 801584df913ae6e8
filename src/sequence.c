/*-------------------------------------------------------------------------
 *
 * sequence.c
 *		Numbers of messages, logs and transitions within their run.
 *
 * A sequence of the database would tell each user how much the others write.  So
 * rows are numbered per run: one more than the highest number there, counting
 * rows of transactions that have not committed yet.  An aborted
 * insertion may leave a gap; a number is given again only if its row was deleted, or
 * rolled back, at the end.
 *
 * Locking protocol: from the look at the index until the row stands in it, the
 * backend holds an advisory lock on (table, run): not on the objects themselves,
 * and only until the next row of another run, or the end of the statement
 * (rt_sequence_release()); never until the end of the transaction.  Writers of
 * one run wait for each other's statements, not for each other's transactions.
 * At most one such lock is held at a time, so they cannot deadlock among
 * themselves.  An abort releases it; it belongs to the top transaction's resource owner,
 * since statements within a statement may release it.
 *
 * Memory: one static struct.
 *
 *-------------------------------------------------------------------------
 */
#include "run_tracker.h"

#include "access/xact.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"

#include "catalog.h"
#include "sequence.h"

/* the fourth field keeps us apart from the advisory locks of users (1 and 2) */
#define RT_LOCK_CLASS 0x5254

static struct
{
	bool held;
	LOCKTAG tag;
	SubTransactionId subid; /* that took it; its abort may take the row away */
	Oid relid;
	pg_uuid_t run_id;
	int64 last; /* the number given last */
} current;

/* The lock is gone at the end of the transaction: forget it. */
static void
forget_at_xact_end(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_ABORT || event == XACT_EVENT_COMMIT || event == XACT_EVENT_PREPARE)
		current.held = false;
}

static void
release_at_subxact_end(SubXactEvent event, SubTransactionId sub, SubTransactionId parent, void *arg)
{
	if (!current.held || current.subid != sub)
		return;
	if (event == SUBXACT_EVENT_ABORT_SUB)
		rt_sequence_release();
	else if (event == SUBXACT_EVENT_COMMIT_SUB)
		current.subid = parent;
}

/* Register the callbacks; once per backend. */
void
rt_sequence_init(void)
{
	RegisterXactCallback(forget_at_xact_end, NULL);
	RegisterSubXactCallback(release_at_subxact_end, NULL);
}

/* The highest number in the index, of whatever transaction. */
static int64
highest(Relation rel, AttrNumber seq_att, Datum run_id)
{
	SnapshotData dirty;
	RtProbe probe;
	int64 seq = 0;
	bool isnull;

	InitDirtySnapshot(dirty);
	rt_probe_begin(&probe, rel, run_id, &dirty);
	if (rt_probe_next(&probe, BackwardScanDirection))
		seq = DatumGetInt64(slot_getattr(probe.slot, seq_att, &isnull));
	rt_probe_end(&probe);
	return seq;
}

/* One more than the number given last. */
static int64
following(void)
{
	if (current.last == PG_INT64_MAX)
		ereport(ERROR, (errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
						errmsg("run %s has no number left",
							   rt_uuid_string(UUIDPGetDatum(&current.run_id)))));
	return ++current.last;
}

/*
 * The next number of a run in a table.  The caller inserts the row at once, and
 * calls rt_sequence_release() when its statement is over.
 */
int64
rt_sequence_next(Relation rel, AttrNumber seq_att, Datum run_id)
{
	pg_uuid_t *uuid = DatumGetUUIDP(run_id);
	ResourceOwner owner = CurrentResourceOwner;
	uint64 hash;

	if (current.held && current.relid == RelationGetRelid(rel) &&
		memcmp(&current.run_id, uuid, sizeof(pg_uuid_t)) == 0)
		return following();

	rt_sequence_release();

	hash = DatumGetUInt64(hash_any_extended(uuid->data, UUID_LEN, RelationGetRelid(rel)));
	SET_LOCKTAG_ADVISORY(current.tag, MyDatabaseId, (uint32) (hash >> 32), (uint32) hash,
						 RT_LOCK_CLASS);
	/* it is released in another portal or subtransaction, perhaps */
	CurrentResourceOwner = TopTransactionResourceOwner;
	(void) LockAcquire(&current.tag, ExclusiveLock, false, false);
	CurrentResourceOwner = owner;
	current.held = true;
	current.subid = GetCurrentSubTransactionId();
	current.relid = RelationGetRelid(rel);
	current.run_id = *uuid;
	current.last = highest(rel, seq_att, run_id);
	return following();
}

/* Let other writers of the run take numbers; harmless when nothing is held. */
void
rt_sequence_release(void)
{
	if (current.held)
	{
		ResourceOwner owner = CurrentResourceOwner;

		current.held = false;
		CurrentResourceOwner = TopTransactionResourceOwner;
		(void) LockRelease(&current.tag, ExclusiveLock, false);
		CurrentResourceOwner = owner;
	}
}
