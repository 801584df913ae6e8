/*-------------------------------------------------------------------------
 *
 * catalog.c
 *		Where the tables of run_tracker are: OIDs and column numbers, and scans
 *		by primary key.
 *
 * The tables are ordinary tables of the user's: they can be dropped, created
 * again and altered while backends are running.  So nothing here is fixed: a
 * relcache callback, registered once, marks an entry invalid, and the next user
 * looks the names up again.  Columns are found by name, since dropped and added
 * columns shift numbers.
 *
 * Memory: one static array.  A pointer that rt_table() returns stays valid; its
 * contents may change when invalidations are accepted, so callers must not keep
 * column numbers across calls that can run other SQL.
 *
 *-------------------------------------------------------------------------
 */
#include "run_tracker.h"

#include "access/htup_details.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "access/tableam.h"
#include "catalog/namespace.h"
#include "catalog/pg_am_d.h"
#include "catalog/pg_class_d.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "utils/fmgroids.h"
#include "storage/lmgr.h"
#include "storage/sinval.h"
#include "utils/inval.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

#include "catalog.h"

PG_FUNCTION_INFO_V1(run_tracker_require_tables);

#define RT_NAME(t) #t,
typedef struct RtColumn
{
	const char *name;
	Oid type;
	bool notnull;
} RtColumn;

static const char *const table_names[RT_NTABLES] = {RT_TABLES(RT_NAME)};
#undef RT_NAME

#define RT_COLUMN_NAME(t, c, type, notnull) {#c, type, notnull},
#define RT_COLUMN_NAMES(t)					static const RtColumn columns_##t[] = {RT_COLUMNS_##t(RT_COLUMN_NAME)};
RT_TABLES(RT_COLUMN_NAMES)
#undef RT_COLUMN_NAMES
#undef RT_COLUMN_NAME

#define RT_COLUMN_LIST(t) {columns_##t, lengthof(columns_##t)},
static const struct
{
	const RtColumn *columns;
	int count;
} table_columns[RT_NTABLES] = {RT_TABLES(RT_COLUMN_LIST)};
#undef RT_COLUMN_LIST

StaticAssertDecl(RT_NCOLUMNS_runs <= RT_MAX_COLUMNS && RT_NCOLUMNS_tasks <= RT_MAX_COLUMNS,
				 "RT_MAX_COLUMNS is too small");

static RtTable tables[RT_NTABLES];
static uint64 lifecycle_generation = 1;

/*
 * Relcache callback: only mark what may have changed.  Nothing may be looked
 * up here.
 */
static void
invalidate(Datum arg, Oid relid)
{
	for (int i = 0; i < RT_NTABLES; i++)
	{
		if (relid == InvalidOid || relid == tables[i].relid)
		{
			tables[i].valid = false;
			tables[i].generation++;
			if (i == RT_lifecycles)
				lifecycle_generation++;
		}
	}
}

/* Register the callback; once per backend. */
void
rt_catalog_init(void)
{
	CacheRegisterRelcacheCallback(invalidate, (Datum) 0);
}

/* The name of a table, for messages. */
const char *
rt_table_name(RtTableId id)
{
	return table_names[id];
}

/*
 * A number that changes whenever the definition of a lifecycle may have
 * changed.
 */
uint64
rt_lifecycle_generation(void)
{
	AcceptInvalidationMessages();
	return lifecycle_generation;
}

/*
 * Look up a column.  It must be of the type that the C code takes it for, and never
 * null where it does not look: the owner of the table may be less than a superuser.
 */
static void
find_column(RtTable *table, RtTableId id, int column)
{
	const RtColumn *expected = &table_columns[id].columns[column];
	HeapTuple tuple = SearchSysCacheAttName(table->relid, expected->name);
	bool good = false;

	if (HeapTupleIsValid(tuple))
	{
		Form_pg_attribute att = (Form_pg_attribute) GETSTRUCT(tuple);

		table->att[column] = att->attnum;
		good = att->atttypid == expected->type && (!expected->notnull || rt_att_is_not_null(att));
		ReleaseSysCache(tuple);
	}
	if (!good)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("table %s.%s has no column \"%s\" of type %s%s", RT_SCHEMA, table_names[id],
						expected->name, format_type_be(expected->type),
						expected->notnull ? " that is not null" : ""),
				 errhint("Run SELECT run_tracker.install() to bring the tables to version %s, and "
						 "take back what was changed in them.",
						 RT_VERSION)));
}

/*
 * OID and column numbers of a table; an error with a way out when the table or
 * a column is missing.
 */
const RtTable *
rt_table(RtTableId id)
{
	RtTable *table = &tables[id];

	while (!table->valid)
	{
		uint64 invalidations = SharedInvalidMessageCounter;
		Oid nsp = get_namespace_oid(RT_SCHEMA, true);

		table->relid = OidIsValid(nsp) ? get_relname_relid(table_names[id], nsp) : InvalidOid;
		if (!OidIsValid(table->relid))
			ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
							errmsg("table %s.%s does not exist", RT_SCHEMA, table_names[id]),
							errhint("Run SELECT run_tracker.install() to create the tables.")));
		for (int i = 0; i < table_columns[id].count; i++)
			find_column(table, id, i);

		/* again, if anything was invalidated meanwhile; debug_discard_caches does not count */
		table->valid = invalidations == SharedInvalidMessageCounter;
	}

	return table;
}

/* Are all tables there?  Not whether they are as they should be. */
bool
rt_tables_exist(void)
{
	Oid nsp = get_namespace_oid(RT_SCHEMA, true);

	if (!OidIsValid(nsp))
		return false;
	for (int i = 0; i < RT_NTABLES; i++)
		if (!OidIsValid(get_relname_relid(table_names[i], nsp)))
			return false;
	return true;
}

/*
 * Lock all tables for writing until the end of the transaction, if that is possible without
 * waiting for anybody; false if not, or if one of them is gone or has just been replaced.
 */
bool
rt_tables_lock(void)
{
	Oid relids[RT_NTABLES];

	for (int i = 0; i < RT_NTABLES; i++)
	{
		relids[i] = rt_table(i)->relid;
		if (!ConditionalLockRelationOid(relids[i], RowExclusiveLock))
			return false;
	}
	if (!rt_tables_exist())
		return false;
	for (int i = 0; i < RT_NTABLES; i++)
		if (rt_table(i)->relid != relids[i])
			return false;
	return true;
}

/* Does a table have a trigger that fires for this session? */
static bool
has_trigger(const TriggerDesc *triggers, const char *name)
{
	for (int i = 0; triggers && i < triggers->numtriggers; i++)
	{
		const Trigger *trigger = &triggers->triggers[i];

		if (strcmp(trigger->tgname, name) == 0)
			return SessionReplicationRole != SESSION_REPLICATION_ROLE_REPLICA &&
				   (trigger->tgenabled == TRIGGER_FIRES_ON_ORIGIN ||
					trigger->tgenabled == TRIGGER_FIRES_ALWAYS);
	}
	return false;
}

/*
 * Are the triggers there, and switched on, without which a change of a run would be half a
 * change?  After DROP EXTENSION … CASCADE and CREATE EXTENSION they are only after install().
 */
bool
rt_triggers_work(void)
{
	static const RtTableId ids[] = {RT_runs, RT_tasks};
	bool result = true;

	for (int i = 0; i < lengthof(ids); i++)
	{
		Relation rel = table_open(rt_table(ids[i])->relid, AccessShareLock);

		result = result && has_trigger(rel->trigdesc, "zz_run_tracker_before") &&
				 has_trigger(rel->trigdesc, "run_tracker_update");
		table_close(rel, NoLock);
	}
	return result;
}

/* 55000 unless the triggers are there, and switched on. */
void
rt_triggers_require(void)
{
	if (!rt_triggers_work())
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("triggers of run_tracker are missing or switched off"),
						errhint("Run SELECT run_tracker.install(), or switch them on again.")));
}

/* require_tables(): an error with a way out if a table is missing. */
Datum
run_tracker_require_tables(PG_FUNCTION_ARGS)
{
	for (int i = 0; i < RT_NTABLES; i++)
		(void) rt_table(i);
	PG_RETURN_VOID();
}

/*
 * Check that a trigger function was called as it was meant to be: as a trigger,
 * at the right moment, and on our table.  Without the last check, anyone could
 * attach it to a table of their own.  Returns the table.
 */
const RtTable *
rt_trigger_check(FunctionCallInfo fcinfo, RtTableId id, uint32 when, const char *function)
{
	TriggerData *trigdata = (TriggerData *) fcinfo->context;
	const RtTable *table;
	Relation rel;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR, (errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
						errmsg("function \"%s\" can only be called as a trigger", function)));

	if ((trigdata->tg_event & (TRIGGER_EVENT_ROW | TRIGGER_EVENT_TIMINGMASK)) != when)
		ereport(ERROR, (errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
						errmsg("function \"%s\" was called at the wrong moment", function),
						errdetail("It must be a %s trigger.",
								  when == RT_BEFORE_ROW		  ? "BEFORE ROW" :
								  when == RT_BEFORE_STATEMENT ? "BEFORE STATEMENT" :
																"AFTER STATEMENT")));

	table = rt_table(id);
	rel = trigdata->tg_relation;
	if (RelationGetRelid(rel) != table->relid)
		ereport(ERROR, (errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
						errmsg("function \"%s\" can only be a trigger of table %s.%s", function,
							   RT_SCHEMA, table_names[id]),
						errtable(rel)));

	return table;
}

/*
 * Open an index of ours by name; 55000 if it is missing, begins with other columns, or is
 * not descending in the one column (-1: none) where it should be.  The
 * caller closes it with index_close(index, AccessShareLock).
 */
Relation
rt_index_open(Relation rel, const char *name, int nkeys, const AttrNumber *keys, int descending)
{
	Oid relid = get_relname_relid(name, RelationGetNamespace(rel));
	Relation index = NULL;
	bool good = false;

	if (OidIsValid(relid) && get_rel_relkind(relid) == RELKIND_INDEX)
	{
		index = index_open(relid, AccessShareLock);
		good = index->rd_index->indrelid == RelationGetRelid(rel) && index->rd_index->indisvalid &&
			   index->rd_rel->relam == BTREE_AM_OID && index->rd_index->indnkeyatts >= nkeys;
		for (int i = 0; good && i < nkeys; i++)
			good = index->rd_index->indkey.values[i] == keys[i] &&
				   ((index->rd_indoption[i] & INDOPTION_DESC) != 0) == (i == descending);
	}
	if (!good)
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("index \"%s\" of table \"%s\" is missing, or not what it should be",
							   name, RelationGetRelationName(rel)),
						errhint("Drop it if it is there, and run SELECT run_tracker.install()."),
						errtable(rel)));
	return index;
}

static void
begin_probe(RtProbe *probe, Relation rel, const Datum *ids, int nids, Oid type, Snapshot snapshot)
{
	ScanKeyData keys[2];

	/* this fills in rd_pkindex */
	list_free(RelationGetIndexList(rel));
	if (!OidIsValid(rel->rd_pkindex))
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("table \"%s\" has no primary key", RelationGetRelationName(rel)),
						errtable(rel)));

	probe->rel = rel;
	probe->index = index_open(rel->rd_pkindex, AccessShareLock);
	for (int i = 0; i < nids; i++)
	{
		if (probe->index->rd_index->indnkeyatts <= i ||
			TupleDescAttr(RelationGetDescr(probe->index), i)->atttypid != type)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("primary key of table \"%s\" is not what it should be",
							RelationGetRelationName(rel)),
					 errdetail("Its column %d must be of type %s.", i + 1, format_type_be(type)),
					 errtable(rel)));
		ScanKeyEntryInitialize(&keys[i], 0, i + 1, BTEqualStrategyNumber, InvalidOid,
							   probe->index->rd_indcollation[i],
							   type == UUIDOID ? F_UUID_EQ : F_TEXTEQ, ids[i]);
	}
	probe->slot = table_slot_create(rel, NULL);
	probe->scan = rt_index_beginscan(rel, probe->index, snapshot, nids);
	index_rescan(probe->scan, keys, nids, NULL, 0);
}

/*
 * Begin to scan the rows of one run in the order of the table's primary key.
 * The caller holds a lock on rel, and ends the scan with rt_probe_end().
 */
void
rt_probe_begin(RtProbe *probe, Relation rel, Datum run_id, Snapshot snapshot)
{
	begin_probe(probe, rel, &run_id, 1, UUIDOID, snapshot);
}

/* The same for the rows of one task, in a table whose primary key begins with run_id, task_id. */
void
rt_probe_begin_child(RtProbe *probe, Relation rel, Datum run_id, Datum task_id, Snapshot snapshot)
{
	Datum ids[] = {run_id, task_id};

	begin_probe(probe, rel, ids, lengthof(ids), UUIDOID, snapshot);
}

/* The same for the rows with a name, a text that the table's primary key begins with. */
void
rt_probe_begin_name(RtProbe *probe, Relation rel, Datum name, Snapshot snapshot)
{
	begin_probe(probe, rel, &name, 1, TEXTOID, snapshot);
}

/* Store the next row in probe->slot; false at the end. */
bool
rt_probe_next(RtProbe *probe, ScanDirection direction)
{
	return index_getnext_slot(probe->scan, direction, probe->slot);
}

/* End a scan. */
void
rt_probe_end(RtProbe *probe)
{
	index_endscan(probe->scan);
	ExecDropSingleTupleTableSlot(probe->slot);
	index_close(probe->index, AccessShareLock);
}
