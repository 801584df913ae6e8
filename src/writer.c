/*-------------------------------------------------------------------------
 *
 * writer.c
 *		Writing rows of the bookkeeping tables without planning a query.
 *
 * Bookkeeping rows are found by primary key and written one at a time, in the
 * middle of somebody's statement.  The executor's routines for logical
 * replication do exactly that, and keep everything that the owner may have added
 * to these tables working: triggers, constraints, indexes, generated columns.
 * An SPI query would do the same several times slower.
 *
 * Whoever caused the write has no privileges on these tables, and needs none: nothing is
 * checked here.  Triggers and index expressions that the owner has added run with the
 * rights of whoever caused the write, as triggers do, and so cannot be turned against the
 * owner; but not with those of a superuser, who becomes the owner meanwhile.
 *
 * These tables have no foreign key to runs: checking it would wait for whoever is about
 * to end the run, while the writer holds rows that the end of the run waits for.  The
 * trigger on runs deletes their rows.
 *
 * Memory: all of a writer lives in the context that was current when it was
 * opened, and goes with rt_writer_close().
 *
 *-------------------------------------------------------------------------
 */
#include "run_tracker.h"

#include "access/table.h"
#include "access/tableam.h"
#include "access/sysattr.h"
#include "access/xact.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/parsenodes.h"
#include "rewrite/rewriteHandler.h"
#include "utils/guc.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"

#include "writer.h"

PG_FUNCTION_INFO_V1(run_tracker_as_owner);

/*
 * Become the owner of a table.  SECURITY_NOFORCE_RLS because FORCE ROW LEVEL SECURITY
 * would hide rows even from the owner, silently.  SECURITY_RESTRICTED_OPERATION
 * because nothing that runs as the owner may be put off until the caller is back.
 */
void
rt_owner_enter(RtOwnerSwitch *save, Relation rel)
{
	GetUserIdAndSecContext(&save->userid, &save->sec_context);
	SetUserIdAndSecContext(rel->rd_rel->relowner, save->sec_context | SECURITY_LOCAL_USERID_CHANGE |
													  SECURITY_NOFORCE_RLS |
													  SECURITY_RESTRICTED_OPERATION);
	save->guc_level = NewGUCNestLevel();
	(void) set_config_option("search_path", "pg_catalog, pg_temp", PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
}

/* Become who one was before rt_owner_enter(), with the settings of then. */
void
rt_owner_leave(const RtOwnerSwitch *save)
{
	AtEOXact_GUC(false, save->guc_level);
	SetUserIdAndSecContext(save->userid, save->sec_context);
}

/* Build what the executor's routines want to have around a table. */
static EState *
make_estate(Relation rel, ResultRelInfo **rri)
{
	EState *estate = CreateExecutorState();
	RangeTblEntry *rte = makeNode(RangeTblEntry);
	Bitmapset *updated = NULL;
	Bitmapset *keys = RelationGetIndexAttrBitmap(rel, INDEX_ATTR_BITMAP_KEY);
#if PG_VERSION_NUM >= 160000
	List *perminfos = NIL;
	RTEPermissionInfo *perminfo;
#endif

	/*
	 * Triggers on columns, and generated columns, want to know what an update sets.  Not
	 * keys: an update of those would take a stronger lock.
	 */
	for (int i = 1; i <= RelationGetDescr(rel)->natts; i++)
		if (!bms_is_member(i - FirstLowInvalidHeapAttributeNumber, keys))
			updated = bms_add_member(updated, i - FirstLowInvalidHeapAttributeNumber);

	rte->rtekind = RTE_RELATION;
	rte->relid = RelationGetRelid(rel);
	rte->relkind = rel->rd_rel->relkind;
	rte->rellockmode = RowExclusiveLock;

#if PG_VERSION_NUM >= 180000
	perminfo = addRTEPermissionInfo(&perminfos, rte);
	perminfo->updatedCols = updated;
	ExecInitRangeTable(estate, list_make1(rte), perminfos, bms_make_singleton(1));
#elif PG_VERSION_NUM >= 160000
	perminfo = addRTEPermissionInfo(&perminfos, rte);
	perminfo->updatedCols = updated;
	ExecInitRangeTable(estate, list_make1(rte), perminfos);
#else
	rte->updatedCols = updated;
	ExecInitRangeTable(estate, list_make1(rte));
#endif

	*rri = makeNode(ResultRelInfo);
	InitResultRelInfo(*rri, rel, 1, NULL, 0);
	return estate;
}

/*
 * Open a table for writing.  The caller has an active snapshot,
 * and calls rt_writer_close().
 */
void
rt_writer_open(RtWriter *writer, RtTableId id)
{
	writer->table = rt_table(id);
	writer->rel = table_open(writer->table->relid, RowExclusiveLock);
	/* locking may have accepted invalidations */
	writer->table = rt_table(id);

	writer->estate = make_estate(writer->rel, &writer->rri);
	ExecOpenIndices(writer->rri, false);
	/* triggers that are fired for it find it here */
	writer->estate->es_opened_result_relations = list_make1(writer->rri);
	writer->slot = MakeSingleTupleTableSlot(RelationGetDescr(writer->rel), &TTSOpsVirtual);

	writer->as_owner = superuser() && !superuser_arg(writer->rel->rd_rel->relowner);
	if (writer->as_owner)
		rt_owner_enter(&writer->save, writer->rel);
	AfterTriggerBeginQuery();
}

/*
 * Fire the triggers that the writes queued, if any, and make the writes visible to what
 * follows in this transaction.
 */
void
rt_writer_close(RtWriter *writer)
{
	/* as ExecutorFinish does: triggers must see the rows */
	AfterTriggerEndQuery(writer->estate);
	if (writer->as_owner)
		rt_owner_leave(&writer->save);

	ExecCloseResultRelations(writer->estate);
	ExecDropSingleTupleTableSlot(writer->slot);
	ExecResetTupleTable(writer->estate->es_tupleTable, false);
	FreeExecutorState(writer->estate);
	table_close(writer->rel, NoLock);
	CommandCounterIncrement();
}

/* Start a row with all columns null, or their defaults: the owner may have added some. */
void
rt_writer_blank(RtWriter *writer)
{
	TupleDesc desc = RelationGetDescr(writer->rel);

	ExecClearTuple(writer->slot);
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);
		Expr *expr = NULL;

		if (att->atthasdef && !att->attgenerated && !att->attisdropped)
			expr = (Expr *) build_column_default(writer->rel, i + 1);
		writer->slot->tts_values[i] = (Datum) 0;
		writer->slot->tts_isnull[i] = true;
		if (expr)
			writer->slot->tts_values[i] =
				ExecEvalExprSwitchContext(ExecPrepareExpr(expr, writer->estate),
										  GetPerTupleExprContext(writer->estate),
										  &writer->slot->tts_isnull[i]);
	}
}

/* Start a row as a copy of another; the values stay in the other's memory. */
void
rt_writer_copy(RtWriter *writer, TupleTableSlot *row)
{
	int natts = RelationGetDescr(writer->rel)->natts;

	ExecClearTuple(writer->slot);
	slot_getallattrs(row);
	memcpy(writer->slot->tts_values, row->tts_values, natts * sizeof(Datum));
	memcpy(writer->slot->tts_isnull, row->tts_isnull, natts * sizeof(bool));
}

/* Set a column of the row begun. */
void
rt_writer_set(RtWriter *writer, AttrNumber att, Datum value, bool isnull)
{
	writer->slot->tts_values[att - 1] = isnull ? (Datum) 0 : value;
	writer->slot->tts_isnull[att - 1] = isnull;
}

/* Insert the row begun; its place is in writer->slot->tts_tid then. */
void
rt_writer_insert(RtWriter *writer)
{
	ExecStoreVirtualTuple(writer->slot);
	writer->estate->es_output_cid = GetCurrentCommandId(true);
	writer->estate->es_snapshot = GetActiveSnapshot();
	ExecSimpleRelationInsert(writer->rri, writer->estate, writer->slot);
	ResetPerTupleExprContext(writer->estate);
}

/* Write the row begun over another, which the caller has locked. */
void
rt_writer_update(RtWriter *writer, TupleTableSlot *old)
{
	EPQState epqstate;

	ExecStoreVirtualTuple(writer->slot);
	rt_EvalPlanQualInit(&epqstate, writer->estate);
	writer->estate->es_output_cid = GetCurrentCommandId(true);
	writer->estate->es_snapshot = GetActiveSnapshot();
	ExecSimpleRelationUpdate(writer->rri, writer->estate, &epqstate, old, writer->slot);
	EvalPlanQualEnd(&epqstate);
	ResetPerTupleExprContext(writer->estate);
}

/* Delete a row, which the caller has locked. */
void
rt_writer_delete(RtWriter *writer, TupleTableSlot *old)
{
	EPQState epqstate;

	rt_EvalPlanQualInit(&epqstate, writer->estate);
	writer->estate->es_output_cid = GetCurrentCommandId(true);
	writer->estate->es_snapshot = GetActiveSnapshot();
	ExecSimpleRelationDelete(writer->rri, writer->estate, &epqstate, old);
	EvalPlanQualEnd(&epqstate);
}

/* Delete the rows of runs that are gone from a table whose primary key begins with their id. */
void
rt_writer_delete_runs(RtTableId id, const pg_uuid_t *run_ids, int n)
{
	RtWriter writer;
	Snapshot snapshot;

	rt_writer_open(&writer, id);
	snapshot = rt_latest_snapshot();
	for (int i = 0; i < n; i++)
	{
		RtProbe probe;

		rt_probe_begin(&probe, writer.rel, UUIDPGetDatum(&run_ids[i]), snapshot);
		while (rt_probe_next(&probe, ForwardScanDirection))
		{
			if (rt_row_lock(writer.rel, probe.slot, snapshot, LockTupleExclusive, true))
				rt_writer_delete(&writer, probe.slot);
		}
		rt_probe_end(&probe);
	}
	UnregisterSnapshot(snapshot);
	rt_writer_close(&writer);
}

/*
 * Lock the row in slot, which the snapshot sees.  With wait, the newest version
 * of the row is waited for and stored in slot; false means that the row is gone.  A
 * version that somebody is just making is locked, too: a foreign key that finds us
 * holding the lock looks no further.
 * Without, false also means that somebody else holds it or has changed it since
 * the snapshot was taken.
 */
bool
rt_row_lock(Relation rel, TupleTableSlot *slot, Snapshot snapshot, LockTupleMode mode, bool wait)
{
	TM_FailureData tmfd;
	ItemPointerData tid = slot->tts_tid;
	TM_Result result;

	result = table_tuple_lock(rel, &tid, snapshot, slot, GetCurrentCommandId(false), mode,
							  wait ? LockWaitBlock : LockWaitSkip,
							  wait ? TUPLE_LOCK_FLAG_LOCK_UPDATE_IN_PROGRESS |
										 TUPLE_LOCK_FLAG_FIND_LAST_VERSION :
									 0,
							  &tmfd);
	switch (result)
	{
		case TM_Ok:
			return true;
		case TM_SelfModified:
		case TM_Updated:
		case TM_Deleted:
		case TM_WouldBlock:
			return false;
		default:
			elog(ERROR, "unexpected result %d of locking a row of \"%s\"", (int) result,
				 RelationGetRelationName(rel));
			return false; /* keep compiler quiet */
	}
}

/*
 * Under REPEATABLE READ, a row that is newer than the transaction's snapshot must not be gone
 * past where the transaction acts on what it saw before.
 */
void
rt_row_require_visible(Relation rel, TupleTableSlot *slot)
{
	if (IsolationUsesXactSnapshot() &&
		!table_tuple_satisfies_snapshot(rel, slot, GetTransactionSnapshot()))
		ereport(ERROR, (errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
						errmsg("could not serialize access due to concurrent update")));
}

/*
 * What a row must look like to be written without need: under REPEATABLE READ, a row that
 * was changed after the transaction's snapshot would be there twice for the transaction.
 * Registered: the caller unregisters it.
 */
Snapshot
rt_current_snapshot(void)
{
	return RegisterSnapshot(IsolationUsesXactSnapshot() ? GetTransactionSnapshot() :
														  GetLatestSnapshot());
}

/*
 * The newest committed state, and what this transaction did so far.  Registered:
 * the caller unregisters it.
 */
Snapshot
rt_latest_snapshot(void)
{
	return RegisterSnapshot(GetLatestSnapshot());
}

/*
 * as_owner(relation, query): run a query as the owner of a table of the extension, so that
 * triggers of that owner's do not run as the superuser who calls install().
 */
Datum
run_tracker_as_owner(PG_FUNCTION_ARGS)
{
	Relation rel;
	RtOwnerSwitch save;
	int64 n;

	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		PG_RETURN_NULL();
	rel = table_open(PG_GETARG_OID(0), AccessShareLock);
	if (!rt_is_owner(RelationGetRelid(rel), GetUserId()))
		aclcheck_error(ACLCHECK_NOT_OWNER, OBJECT_TABLE, RelationGetRelationName(rel));
	SPI_connect();
	rt_owner_enter(&save, rel);
	if (SPI_execute(TextDatumGetCString(PG_GETARG_DATUM(1)), false, 0) < 0)
		elog(ERROR, "could not run the query");
	n = SPI_processed;
	rt_owner_leave(&save);
	SPI_finish();
	table_close(rel, NoLock);
	PG_RETURN_INT64(n);
}
