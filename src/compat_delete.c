/*-------------------------------------------------------------------------
 *
 * compat_delete.c
 *		DELETE on the views that create_compat() makes.
 *
 * Clients have no DELETE privilege on the tables, since LOCK TABLE comes with it.
 * Through a view of an application they may delete rows of their own: the trigger
 * runs the DELETE as the owner of the table, with their user id among the conditions.
 * A row that others have changed since the statement began may no longer be one that it is
 * to delete: 40001, unless the statement has locked it (views.c).
 * Names of tables and columns come from the arguments of the trigger, which only the
 * owner of the tables can create; they are taken for names, never for expressions.
 *
 * Memory: prepared queries are kept for the session, one for each view.
 *
 *-------------------------------------------------------------------------
 */
#include "run_tracker.h"

#include "access/table.h"
#include "access/transam.h"
#include "access/xact.h"
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
#include "utils/snapmgr.h"

#include "catalog.h"
#include "identity.h"
#include "writer.h"

#define MAX_KEYS 4

PG_FUNCTION_INFO_V1(run_tracker_compat_delete);

typedef struct PreparedDelete
{
	char *sql;
	Oid types[MAX_KEYS + 1];
	SPIPlanPtr plan;
} PreparedDelete;

/* The condition that tells the row, and its parameters. */
typedef struct Deletion
{
	StringInfoData condition;
	int nargs;
	Oid types[MAX_KEYS + 1];
	Datum values[MAX_KEYS + 1];
	char nulls[MAX_KEYS + 1];
} Deletion;

static List *prepared = NIL;

/* The plan of a query, prepared at its first use.  Must be called within SPI. */
static SPIPlanPtr
prepare(const char *sql, int nargs, const Oid *types)
{
	MemoryContext old_context;
	PreparedDelete *entry;
	SPIPlanPtr plan;
	ListCell *cell;

	foreach(cell, prepared)
	{
		entry = lfirst(cell);
		if (strcmp(entry->sql, sql) == 0 && memcmp(entry->types, types, nargs * sizeof(Oid)) == 0)
			return entry->plan;
	}
	plan = SPI_prepare(sql, nargs, (Oid *) types);
	if (plan == NULL || SPI_keepplan(plan) != 0)
		elog(ERROR, "could not prepare \"%s\"", sql);
	old_context = MemoryContextSwitchTo(TopMemoryContext);
	entry = palloc(sizeof(PreparedDelete));
	entry->sql = pstrdup(sql);
	memcpy(entry->types, types, nargs * sizeof(Oid));
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

/* Run a query on the table that returns xmin of one row and something else, if there is one. */
static bool
run(Deletion *d, const char *sql, TransactionId *xmin, TransactionId *xmax)
{
	bool isnull;

	if (SPI_execute_plan(prepare(sql, d->nargs, d->types), d->values, d->nulls, false, 0) < 0)
		elog(ERROR, "could not run \"%s\"", sql);
	if (SPI_processed == 0)
		return false;
	*xmin = DatumGetTransactionId(
		SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	*xmax = DatumGetTransactionId(
		SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 2, &isnull));
	return true;
}

/* Delete the row, as the owner of the table. */
static bool
delete_row(Deletion *d, Relation rel, Relation view)
{
	Snapshot snapshot = GetActiveSnapshot(); /* of the statement */
	const char *table = psprintf(RT_SCHEMA ".%s r WHERE %s",
								 quote_identifier(RelationGetRelationName(rel)), d->condition.data);
	TransactionId xmin = InvalidTransactionId;
	TransactionId xmax = InvalidTransactionId;
	TransactionId unused;
	RtOwnerSwitch save;
	bool locked;
	bool found;

	SPI_connect();
	rt_owner_enter(&save, rel);
	/* a row that the statement has locked has met its conditions since (views.c) */
	locked = !IsolationUsesXactSnapshot() &&
			 run(d, psprintf("SELECT r.xmin, r.xmax FROM %s", table), &xmin, &xmax) &&
			 TransactionIdIsCurrentTransactionId(xmax);
	found = run(d, psprintf("DELETE FROM %s RETURNING r.xmin, r.xmin", table), &xmin, &unused);
	rt_owner_leave(&save);
	SPI_finish();
	if (found && !locked && !TransactionIdIsCurrentTransactionId(xmin) &&
		XidInMVCCSnapshot(xmin, snapshot))
		ereport(ERROR, (errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
						errmsg("could not delete from view \"%s\" due to concurrent update",
							   RelationGetRelationName(view)),
						errhint("Repeat the statement."), errtable(view)));
	return found;
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
	Deletion d;
	Oid relid;
	int nkeys;
	bool found;

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
	initStringInfo(&d.condition);
	for (int i = 0; i < nkeys; i++)
	{
		const char *column = trigger->tgargs[2 * i + 1];
		int att = SPI_fnumber(desc, trigger->tgargs[2 * i + 2]);
		bool is_key = column[0] != '+';
		bool isnull = true;

		if (att > 0)
		{
			d.types[i] = SPI_gettypeid(desc, att);
			d.values[i] = heap_getattr(trigdata->tg_trigtuple, att, desc, &isnull);
		}
		if (att <= 0 || (isnull && is_key))
			ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
							errmsg("column \"%s\" of view \"%s\" does not say which row it is",
								   trigger->tgargs[2 * i + 2],
								   RelationGetRelationName(trigdata->tg_relation))));
		d.nulls[i] = isnull ? 'n' : ' ';
		appendStringInfo(&d.condition, "r.%s %s $%d AND ",
						 quote_identifier(is_key ? column : column + 1),
						 isnull ? "IS NOT DISTINCT FROM" : "=", i + 1);
	}
	/* nobody's rows are for services */
	appendStringInfo(&d.condition, "($%d IS NULL OR r.user_id = $%d)", nkeys + 1, nkeys + 1);
	d.types[nkeys] = TEXTOID;
	d.values[nkeys] = CStringGetTextDatum(user ? user : "");

	d.nulls[nkeys] = service ? 'n' : ' ';
	d.nargs = nkeys + 1;
	found = (service || user != NULL) && delete_row(&d, rel, trigdata->tg_relation);
	table_close(rel, NoLock);
	return PointerGetDatum(found ? trigdata->tg_trigtuple : NULL);
}
