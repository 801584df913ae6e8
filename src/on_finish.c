/*-------------------------------------------------------------------------
 *
 * on_finish.c
 *		Registration of functions that are called when a run finishes.
 *
 * finish_handlers says as whom a function runs: nobody has the privilege to write there, and
 * what is written here is the current role.
 *
 * Locking protocol: on_finish() and drop_on_finish() take a lock of their own, which nobody
 * else needs.
 *
 * Memory: everything lives in the caller's context.
 *
 *-------------------------------------------------------------------------
 */
#include "run_tracker.h"

#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/varlena.h"

#include "calls.h"
#include "finish.h"
#include "identity.h"
#include "writer.h"

PG_FUNCTION_INFO_V1(run_tracker_on_finish);
PG_FUNCTION_INFO_V1(run_tracker_drop_on_finish);

/* The search_path in force, with temporary objects last. */
static char *
current_search_path(void)
{
	char *raw = pstrdup(namespace_search_path);
	StringInfoData path;
	List *names;
	ListCell *cell;

	if (!SplitIdentifierString(raw, ',', &names))
		elog(ERROR, "invalid search_path");
	initStringInfo(&path);
	foreach(cell, names)
	{
		const char *name = lfirst(cell);

		if (strcmp(name, "pg_temp") != 0)
			appendStringInfo(&path, "%s, ", quote_identifier(name));
	}
	appendStringInfoString(&path, "pg_temp");
	return path.data;
}

/* Open finish_handlers for a change that no other such change can cross. */
static Relation
open_handlers(const char *function)
{
	Oid relid = rt_table(RT_finish_handlers)->relid;

	PreventCommandIfReadOnly(function);
	PreventCommandDuringRecovery(function);
	if (!rt_identity_is_service())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("only services may have functions called when runs finish"),
				 errdetail("They get the runs of all users, and can keep them from finishing."),
				 errhint("run_tracker.grant_service(role) makes a role a service.")));
	/* the table itself is free for those who read it */
	LockDatabaseObject(RelationRelationId, relid, 0, ExclusiveLock);
	return table_open(relid, RowExclusiveLock);
}

static bool
same_word(const char *a, const char *b)
{
	return a == NULL || b == NULL ? a == b : strcmp(a, b) == 0;
}

/* Find a handler by its id or else by its pair; NULL if there is none.  row is its row then. */
static RtHandler *
find_handler(Relation rel, const pg_uuid_t *id, const char *word, const char *function,
			 Snapshot snapshot, TupleTableSlot *row)
{
	TableScanDesc scan = table_beginscan(rel, snapshot, 0, NULL);
	RtHandler *found = NULL;

	while (found == NULL && table_scan_getnextslot(scan, ForwardScanDirection, row))
	{
		found = rt_handler_decode(rel, row);
		if (id ? memcmp(id, &found->handler_id, sizeof(pg_uuid_t)) != 0 :
				 !same_word(word, found->word) || strcmp(function, found->function) != 0)
			found = NULL;
	}
	table_endscan(scan);
	return found;
}

/* Write a handler: a new row, or a change of the one that was found. */
static void
write_handler(RtHandler *handler, TupleTableSlot *old)
{
	RtWriter writer;
	const RtTable *t;

	rt_writer_open(&writer, RT_finish_handlers);
	t = writer.table;
	if (old)
		rt_writer_copy(&writer, old);
	else
	{
		rt_writer_blank(&writer);
		rt_writer_set(&writer, RT_ATT(t, finish_handlers, handler_id),
					  UUIDPGetDatum(&handler->handler_id), false);
		rt_writer_set(&writer, RT_ATT(t, finish_handlers, kind_or_lifecycle),
					  handler->word ? CStringGetTextDatum(handler->word) : (Datum) 0,
					  handler->word == NULL);
		rt_writer_set(&writer, RT_ATT(t, finish_handlers, function),
					  CStringGetTextDatum(handler->function), false);
		rt_writer_set(&writer, RT_ATT(t, finish_handlers, role), CStringGetTextDatum(handler->role),
					  false);
		rt_writer_set(&writer, RT_ATT(t, finish_handlers, created_at),
					  TimestampTzGetDatum(GetCurrentTimestamp()), false);
	}
	rt_writer_set(&writer, RT_ATT(t, finish_handlers, search_path),
				  CStringGetTextDatum(handler->search_path), false);
	rt_writer_set(&writer, RT_ATT(t, finish_handlers, on_error),
				  CStringGetTextDatum(handler->log ? "log" : "fail"), false);
	if (old)
		rt_writer_update(&writer, old);
	else
		rt_writer_insert(&writer);
	rt_writer_close(&writer);
}

/* on_finish(kind_or_lifecycle, function, on_error) → handler_id */
Datum
run_tracker_on_finish(PG_FUNCTION_ARGS)
{
	RtHandler new = {.role = GetUserNameFromId(GetUserId(), false)};
	Snapshot snapshot;
	TupleTableSlot *row;
	RtHandler *old;
	char *on_error;
	pg_uuid_t *result = palloc(sizeof(pg_uuid_t));
	Relation rel = open_handlers("on_finish()");

	rt_call_require(fcinfo, 1, "function");
	rt_call_require(fcinfo, 2, "on_error");
	on_error = text_to_cstring(PG_GETARG_TEXT_PP(2));
	new.log = strcmp(on_error, "log") == 0;
	if (!new.log && strcmp(on_error, "fail") != 0)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("argument \"on_error\" must be \"fail\" or \"log\""),
						errdetail("It is \"%s\".", on_error)));
	if (!PG_ARGISNULL(0))
		new.word = text_to_cstring(PG_GETARG_TEXT_PP(0));
	if (new.word &&new.word[0] == '\0')
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("argument \"kind_or_lifecycle\" must not be empty"),
						errhint("Null stands for all runs.")));
	new.function = rt_handler_function(PG_GETARG_OID(1));
	rt_handler_check(PG_GETARG_OID(1), GetUserId(), new.function);
	new.search_path = current_search_path();

	snapshot = rt_latest_snapshot();
	row = table_slot_create(rel, NULL);
	old = find_handler(rel, NULL, new.word, new.function, snapshot, row);
	if (old && strcmp(old->role, new.role) != 0)
		ereport(ERROR, (errcode(ERRCODE_DUPLICATE_OBJECT),
						errmsg("function %s is registered already", new.function),
						errdetail("Role \"%s\" registered it.", old->role),
						errhint("Run SELECT run_tracker.drop_on_finish('%s') first.",
								rt_uuid_string(UUIDPGetDatum(&old->handler_id)))));
	if (old)
		new.handler_id = old->handler_id;
	else
		rt_uuid_generate(&new.handler_id);
	write_handler(&new, old ? row : NULL);
	ExecDropSingleTupleTableSlot(row);
	UnregisterSnapshot(snapshot);
	table_close(rel, NoLock);
	*result = new.handler_id;
	PG_RETURN_UUID_P(result);
}

/* drop_on_finish(handler_id, kind_or_lifecycle, function) → was there such a handler? */
Datum
run_tracker_drop_on_finish(PG_FUNCTION_ARGS)
{
	pg_uuid_t *id = PG_ARGISNULL(0) ? NULL : PG_GETARG_UUID_P(0);
	char *word = PG_ARGISNULL(1) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(1));
	Relation rel = open_handlers("drop_on_finish()");
	char *function = NULL;
	Snapshot snapshot;
	TupleTableSlot *row;
	RtHandler *handler;

	if (id == NULL)
	{
		rt_call_require(fcinfo, 2, "function");
		function = rt_handler_function(PG_GETARG_OID(2));
	}
	snapshot = rt_latest_snapshot();
	row = table_slot_create(rel, NULL);
	handler = find_handler(rel, id, word, function, snapshot, row);
	if (handler)
	{
		Oid role = get_role_oid(handler->role, true);
		RtWriter writer;

		if (!(OidIsValid(role) && has_privs_of_role(GetUserId(), role)) &&
			!rt_is_owner(rt_table(RT_runs)->relid, GetUserId()))
			ereport(ERROR,
					(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
					 errmsg("function %s was registered by somebody else", handler->function),
					 errdetail("Role \"%s\" registered it.", handler->role),
					 errhint("That role, the owner of the tables, or a superuser can remove it.")));
		rt_writer_open(&writer, RT_finish_handlers);
		rt_writer_delete(&writer, row);
		rt_writer_close(&writer);
	}
	ExecDropSingleTupleTableSlot(row);
	UnregisterSnapshot(snapshot);
	table_close(rel, NoLock);
	PG_RETURN_BOOL(handler != NULL);
}
