/*-------------------------------------------------------------------------
 *
 * compat_delete.c
 *		DELETE on the views that create_compat() makes.
 *
 * Clients have no DELETE privilege on the tables, since LOCK TABLE comes with it.
 * Through a view of an application they may delete rows of their own: the trigger
 * runs the DELETE as the owner of the table, with their user id among the conditions.
 * Names of tables and columns come from the arguments of the trigger, which only the
 * owner of the tables can create; they are taken for names, never for expressions.
 *
 * Memory: prepared queries are kept for the session, one for each view.
 *
 *-------------------------------------------------------------------------
 */
#include "run_tracker.h"

#include "access/table.h"
#include "catalog/namespace.h"
#include "catalog/pg_class_d.h"
#include "catalog/pg_type_d.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"

#include "catalog.h"
#include "identity.h"
#include "writer.h"

#define MAX_KEYS 3

PG_FUNCTION_INFO_V1(run_tracker_compat_delete);

typedef struct PreparedDelete
{
	char *sql;
	SPIPlanPtr plan;
} PreparedDelete;

static List *prepared = NIL;

/* The plan of a query, prepared at its first use.  Must be called within SPI. */
static SPIPlanPtr
prepare(const char *sql, int nargs, Oid *types)
{
	MemoryContext old_context;
	PreparedDelete *entry;
	SPIPlanPtr plan;
	ListCell *cell;

	foreach(cell, prepared)
	{
		entry = lfirst(cell);
		if (strcmp(entry->sql, sql) == 0)
			return entry->plan;
	}
	plan = SPI_prepare(sql, nargs, types);
	if (plan == NULL || SPI_keepplan(plan) != 0)
		elog(ERROR, "could not prepare \"%s\"", sql);
	old_context = MemoryContextSwitchTo(TopMemoryContext);
	entry = palloc(sizeof(PreparedDelete));
	entry->sql = pstrdup(sql);
	entry->plan = plan;
	prepared = lappend(prepared, entry);
	MemoryContextSwitchTo(old_context);
	return plan;
}

/* Whoever may insert rows into a table may delete rows of the user's there. */
static void
check_privilege(Relation rel)
{
	Oid role = GetUserId();

	if (pg_class_aclcheck(RelationGetRelid(rel), role, ACL_DELETE) != ACLCHECK_OK &&
		pg_class_aclcheck(RelationGetRelid(rel), role, ACL_INSERT) != ACLCHECK_OK &&
		pg_attribute_aclcheck_all(RelationGetRelid(rel), role, ACL_INSERT, ACLMASK_ANY) !=
			ACLCHECK_OK)
		aclcheck_error(ACLCHECK_NO_PRIV, OBJECT_TABLE, RelationGetRelationName(rel));
}

/* INSTEAD OF DELETE FOR EACH ROW (table, column, column of the view, ...) */
Datum
run_tracker_compat_delete(PG_FUNCTION_ARGS)
{
	TriggerData *trigdata = (TriggerData *) fcinfo->context;
	const char *user = rt_identity_user();
	bool service = rt_identity_is_service();
	Trigger *trigger;
	Relation rel;
	TupleDesc desc;
	RtOwnerSwitch save;
	StringInfoData sql;
	Oid types[MAX_KEYS + 1];
	Datum values[MAX_KEYS + 1];
	Oid relid;
	int nkeys;
	int result;

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_INSTEAD(trigdata->tg_event) ||
		!TRIGGER_FIRED_BY_DELETE(trigdata->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg(
					 "function \"compat_delete\" must be called by a trigger INSTEAD OF DELETE")));
	trigger = trigdata->tg_trigger;
	nkeys = trigger->tgnargs / 2;
	if (trigger->tgnargs % 2 == 0 || nkeys < 1 || nkeys > MAX_KEYS)
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("trigger \"%s\" has the wrong number of arguments", trigger->tgname)));

	relid = get_relname_relid(trigger->tgargs[0], get_namespace_oid(RT_SCHEMA, false));
	if (!OidIsValid(relid))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("relation \"" RT_SCHEMA ".%s\" does not exist", trigger->tgargs[0])));
	/* what is no table has no rows to delete: another trigger does what there is to do */
	if (get_rel_relkind(relid) == RELKIND_VIEW)
		return PointerGetDatum(trigdata->tg_trigtuple);
	if (strcmp(trigger->tgargs[0], "session_deltas") == 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("deltas cannot be deleted"), errhint("They go with their session.")));
	rel = table_open(relid, RowExclusiveLock);
	check_privilege(rel);
	desc = RelationGetDescr(trigdata->tg_relation);
	initStringInfo(&sql);
	appendStringInfo(&sql, "DELETE FROM " RT_SCHEMA ".%s r WHERE ",
					 quote_identifier(trigger->tgargs[0]));
	for (int i = 0; i < nkeys; i++)
	{
		int att = SPI_fnumber(desc, trigger->tgargs[2 * i + 2]);
		bool isnull = true;

		if (att > 0)
		{
			types[i] = SPI_gettypeid(desc, att);
			values[i] = heap_getattr(trigdata->tg_trigtuple, att, desc, &isnull);
		}
		if (isnull)
			ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
							errmsg("column \"%s\" of view \"%s\" does not say which row it is",
								   trigger->tgargs[2 * i + 2],
								   RelationGetRelationName(trigdata->tg_relation))));
		appendStringInfo(&sql, "r.%s = $%d AND ", quote_identifier(trigger->tgargs[2 * i + 1]),
						 i + 1);
	}
	/* nobody's rows are for services */
	appendStringInfo(&sql, "($%d IS NULL OR r.user_id = $%d)", nkeys + 1, nkeys + 1);
	types[nkeys] = TEXTOID;
	values[nkeys] = CStringGetTextDatum(user ? user : "");

	if (!service && user == NULL)
		result = 0;
	else
	{
		char nulls[MAX_KEYS + 2] = "    ";

		if (service)
			nulls[nkeys] = 'n';
		SPI_connect();
		rt_owner_enter(&save, rel);
		if (SPI_execute_plan(prepare(sql.data, nkeys + 1, types), values, nulls, false, 0) < 0)
			elog(ERROR, "could not run \"%s\"", sql.data);
		result = SPI_processed;
		rt_owner_leave(&save);
		SPI_finish();
	}
	table_close(rel, NoLock);
	return PointerGetDatum(result > 0 ? trigdata->tg_trigtuple : NULL);
}
