/*-------------------------------------------------------------------------
 *
 * finish.c
 *		Functions of the user's that are called when a run finishes, in the transaction that
 *		finishes it.  on_finish.c registers them.
 *
 * A function runs with the rights of the role that registered it, whoever finishes the run.
 * What keeps others from using that:
 *	- finish_handlers is written by on_finish() only, with the current role.  It stays with
 *	  the superuser who created it.  If it belongs to anybody else, only that role's rows count.
 *	- The role is restricted as in REFRESH MATERIALIZED VIEW: nothing that it does is put off
 *	  until the caller is back, and it cannot become another role.
 *	- The search_path is that of the registration, temporary tables last, and settings that
 *	  change what SQL means have fixed values: the caller's reach no further.
 *	- The function is looked up by name for each call.  It must belong to its role, one that this
 *	  role is a member of, or a superuser: only they, and other members of that one, can put another
 *	  one in its place.  What runs as a superuser must belong to one.
 *
 * Locking protocol: calls read what is committed, and lock nothing.
 *
 * Memory: what a call leaves behind is freed after each.
 *
 *-------------------------------------------------------------------------
 */
#include "run_tracker.h"

#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/objectaccess.h"
#include "catalog/pg_proc.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/regproc.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "attempt.h"
#include "finish.h"
#include "identity.h"
#include "totals.h"
#include "writer.h"

/* A call of a handler for a run. */
typedef struct Call
{
	const RtHandler *handler;
	const pg_uuid_t *run_id;
} Call;

/* ----------------------------------------------------------------
 * Handlers
 * ----------------------------------------------------------------
 */

static char *
text_value(TupleTableSlot *row, AttrNumber att)
{
	bool isnull;
	Datum value = slot_getattr(row, att, &isnull);

	return isnull ? NULL : TextDatumGetCString(value);
}

/* A row of finish_handlers as a RtHandler. */
RtHandler *
rt_handler_decode(Relation rel, TupleTableSlot *row)
{
	const RtTable *t = rt_table(RT_finish_handlers);
	RtHandler *handler = palloc(sizeof(RtHandler));
	bool isnull;

	handler->handler_id =
		*DatumGetUUIDP(slot_getattr(row, RT_ATT(t, finish_handlers, handler_id), &isnull));
	handler->word = text_value(row, RT_ATT(t, finish_handlers, kind_or_lifecycle));
	handler->function = text_value(row, RT_ATT(t, finish_handlers, function));
	handler->role = text_value(row, RT_ATT(t, finish_handlers, role));
	handler->search_path = text_value(row, RT_ATT(t, finish_handlers, search_path));
	handler->log = strcmp(text_value(row, RT_ATT(t, finish_handlers, on_error)), "log") == 0;
	handler->created_at =
		DatumGetTimestampTz(slot_getattr(row, RT_ATT(t, finish_handlers, created_at), &isnull));
	handler->owner = rel->rd_rel->relowner;
	return handler;
}

static int
compare_handlers(const ListCell *a, const ListCell *b)
{
	const RtHandler *x = lfirst(a);
	const RtHandler *y = lfirst(b);

	if (x->created_at != y->created_at)
		return x->created_at < y->created_at ? -1 : 1;
	return rt_uuid_compare(&x->handler_id, &y->handler_id);
}

/* All handlers, in the order in which they were registered. */
static List *
read_handlers(void)
{
	Relation rel = table_open(rt_table(RT_finish_handlers)->relid, AccessShareLock);
	List *handlers = NIL;

	/* most databases have none */
	if (RelationGetNumberOfBlocks(rel) > 0)
	{
		Snapshot snapshot = rt_latest_snapshot();
		TableScanDesc scan = table_beginscan(rel, snapshot, 0, NULL);
		TupleTableSlot *row = table_slot_create(rel, NULL);

		while (table_scan_getnextslot(scan, ForwardScanDirection, row))
			handlers = lappend(handlers, rt_handler_decode(rel, row));
		ExecDropSingleTupleTableSlot(row);
		table_endscan(scan);
		UnregisterSnapshot(snapshot);
		list_sort(handlers, compare_handlers);
	}
	table_close(rel, NoLock);
	return handlers;
}

/* Is that the kind, or the lifecycle, of a run? */
static bool
is_word(Datum value, const char *word)
{
	return value != (Datum) 0 && strcmp(TextDatumGetCString(value), word) == 0;
}

/* Does a function take the row of a run?  Else it takes the id. */
static bool
takes_row(const char *function)
{
	static const char suffix[] = "(jsonb)";
	size_t len = strlen(function);

	return len >= strlen(suffix) && strcmp(function + len - strlen(suffix), suffix) == 0;
}

/* The name of a function as it is stored, whatever the search_path; 22023 if it cannot be called.
 */
char *
rt_handler_function(Oid function)
{
	HeapTuple tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
	Form_pg_proc proc;
	Oid type;
	char *name;

	if (!HeapTupleIsValid(tuple))
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_FUNCTION),
						errmsg("function with OID %u does not exist", function)));
	proc = (Form_pg_proc) GETSTRUCT(tuple);
	type = proc->pronargs == 1 ? proc->proargtypes.values[0] : InvalidOid;
	if (proc->prokind != PROKIND_FUNCTION || proc->proretset ||
		(type != UUIDOID && type != JSONBOID))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("function %s cannot be called when a run finishes",
							   format_procedure(function)),
						errdetail("It must have one argument, of type uuid (the id of the run) or "
								  "jsonb (its row), and return no set.")));
	name = psprintf("%s(%s)",
					quote_qualified_identifier(get_namespace_name(proc->pronamespace),
											   NameStr(proc->proname)),
					type == UUIDOID ? "uuid" : "jsonb");
	ReleaseSysCache(tuple);
	return name;
}

/* 42501 unless a role may call a function, and nobody but its like can replace the function. */
void
rt_handler_check(Oid function, Oid role, const char *name)
{
	HeapTuple tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
	Oid owner;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for function %u", function);
	owner = ((Form_pg_proc) GETSTRUCT(tuple))->proowner;
	ReleaseSysCache(tuple);
	/* a superuser has the privileges of every role, and must not run the code of any */
	if (!superuser_arg(owner) && (superuser_arg(role) || !has_privs_of_role(role, owner)))
		ereport(ERROR, (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
						errmsg("function %s belongs to somebody else", name),
						errdetail("It belongs to role \"%s\", and would run as role \"%s\".",
								  GetUserNameFromId(owner, true), GetUserNameFromId(role, true)),
						errhint("Have it registered by its owner.")));
	if (rt_proc_aclcheck(function, role) != ACLCHECK_OK)
		aclcheck_error(ACLCHECK_NO_PRIV, OBJECT_FUNCTION, name);
}

/* ----------------------------------------------------------------
 * Calls
 * ----------------------------------------------------------------
 */

/* Settings that any user can change, and that change what SQL means. */
static void
set_options(void)
{
	static const char *const options[][2] = {{"search_path", "pg_catalog, pg_temp"},
											 {"row_security", "on"},
											 {"DateStyle", "ISO, MDY"},
											 {"IntervalStyle", "postgres"},
											 {"bytea_output", "hex"},
											 {"extra_float_digits", "1"},
											 {"xmloption", "content"},
											 {"array_nulls", "on"},
											 {"transform_null_equals", "off"},
											 {"standard_conforming_strings", "on"}};

	(void) set_config_option("TimeZone", pg_get_timezone_name(rt_time_zone), PGC_USERSET,
							 PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	for (int i = 0; i < lengthof(options); i++)
		(void) set_config_option(options[i][0], options[i][1], PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_SAVE, true, 0, false);
}

/*
 * The row of a run as jsonb, as it is now; null if it is gone.  Types of columns that the
 * owner has added may bring their own code: it never runs as a superuser.
 */
static NullableDatum
run_as_jsonb(const pg_uuid_t *run_id)
{
	Relation rel = table_open(rt_table(RT_runs)->relid, AccessShareLock);
	bool as_owner = superuser() && !superuser_arg(rel->rd_rel->relowner);
	Snapshot snapshot = rt_latest_snapshot();
	NullableDatum result = {0, true};
	RtOwnerSwitch save;
	RtProbe probe;

	if (as_owner)
		rt_owner_enter(&save, rel);
	rt_probe_begin(&probe, rel, UUIDPGetDatum(run_id), snapshot);
	if (rt_probe_next(&probe, ForwardScanDirection))
	{
		Datum json = DirectFunctionCall1(row_to_json, ExecFetchSlotHeapTupleDatum(probe.slot));

		result.value = DirectFunctionCall1(jsonb_in, CStringGetDatum(TextDatumGetCString(json)));
		result.isnull = false;
	}
	rt_probe_end(&probe);
	if (as_owner)
		rt_owner_leave(&save);
	UnregisterSnapshot(snapshot);
	table_close(rel, NoLock);
	return result;
}

/* Become the role of a handler; the caller restores user and settings. */
static Oid
become_role(const RtHandler *handler)
{
	Oid role = get_role_oid(handler->role, true);
	Oid userid;
	int sec_context;

	if (!OidIsValid(role))
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_OBJECT),
						errmsg("role \"%s\" does not exist", handler->role),
						errdetail("It registered function %s.", handler->function),
						errhint("Run SELECT run_tracker.drop_on_finish('%s').",
								rt_uuid_string(UUIDPGetDatum(&handler->handler_id)))));
	if (!superuser_arg(handler->owner) && handler->owner != role)
		ereport(ERROR, (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
						errmsg("table %s.%s does not belong to a superuser", RT_SCHEMA,
							   rt_table_name(RT_finish_handlers)),
						errdetail("Its owner may be the one who says that a function runs as "
								  "role \"%s\".",
								  handler->role),
						errhint("Look at its rows, and hand it to a superuser.")));
	GetUserIdAndSecContext(&userid, &sec_context);
	/* policies that are forced on owners hold here, whatever the tracker was doing */
	SetUserIdAndSecContext(role, (sec_context & ~SECURITY_NOFORCE_RLS) |
									 SECURITY_LOCAL_USERID_CHANGE | SECURITY_RESTRICTED_OPERATION);
	if (!rt_identity_is_service())
		ereport(ERROR, (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
						errmsg("role \"%s\" is not a service", handler->role),
						errdetail("It registered function %s, which gets the runs of all users.",
								  handler->function),
						errhint("run_tracker.grant_service(role) makes a role a service; "
								"run_tracker.drop_on_finish(handler_id) removes the function.")));
	return role;
}

/* The function of a handler, which may be another one than that of the last call. */
static Oid
find_function(const RtHandler *handler, Oid role)
{
	LOCAL_FCINFO(call, 1);
	Oid function;

	InitFunctionCallInfoData(*call, NULL, 1, InvalidOid, NULL, NULL);
	call->args[0].value = CStringGetTextDatum(handler->function);
	call->args[0].isnull = false;
	function = DatumGetObjectId(to_regprocedure(call));
	if (call->isnull || strcmp(rt_handler_function(function), handler->function) != 0)
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_FUNCTION),
						errmsg("function %s does not exist", handler->function),
						errdetail("Role \"%s\" registered it.", handler->role),
						errhint("Run SELECT run_tracker.drop_on_finish('%s').",
								rt_uuid_string(UUIDPGetDatum(&handler->handler_id)))));
	rt_handler_check(function, role, handler->function);
	return function;
}

/* Call a function with one argument; what it returns may be null. */
static void
call_function(Oid function, NullableDatum argument)
{
	LOCAL_FCINFO(call, 1);
	FmgrInfo info;

	InvokeFunctionExecuteHook(function);
	fmgr_info(function, &info);
	InitFunctionCallInfoData(*call, &info, 1, InvalidOid, NULL, NULL);
	call->args[0] = argument;
	/* one that only reads would see what was there before the statement */
	PushActiveSnapshot(GetTransactionSnapshot());
	(void) FunctionCallInvoke(call);
	PopActiveSnapshot();
	CommandCounterIncrement();
}

/* Step: call a handler for a run. */
static void
call_handler(void *arg, void *unused)
{
	const Call *call = arg;
	const RtHandler *handler = call->handler;
	NullableDatum argument = {UUIDPGetDatum(call->run_id), false};
	int guc_level = NewGUCNestLevel();
	Oid userid;
	int sec_context;

	GetUserIdAndSecContext(&userid, &sec_context);
	set_options();
	if (takes_row(handler->function))
		argument = run_as_jsonb(call->run_id);
	if (!argument.isnull)
	{
		Oid role = become_role(handler);
		Oid function = find_function(handler, role);

		(void) set_config_option("search_path", handler->search_path, PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_SAVE, true, 0, false);
		call_function(function, argument);
	}
	AtEOXact_GUC(false, guc_level);
	SetUserIdAndSecContext(userid, sec_context);
}

/*
 * Errors that say nothing of the function, but that somebody or something was in the way: to
 * go on after them would lose what the function does, and the transaction can be repeated.
 */
static bool
is_circumstance(int sqlerrcode)
{
	switch (ERRCODE_TO_CATEGORY(sqlerrcode))
	{
		case ERRCODE_TRANSACTION_ROLLBACK:
		case ERRCODE_INSUFFICIENT_RESOURCES:
		case ERRCODE_OPERATOR_INTERVENTION:
		case ERRCODE_SYSTEM_ERROR:
			return true;
		default:
			return sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE ||
				   sqlerrcode == ERRCODE_STATEMENT_TOO_COMPLEX;
	}
}

static void
add_context(void *arg)
{
	const Call *call = arg;

	errcontext("run_tracker.on_finish function %s for run %s", call->handler->function,
			   rt_uuid_string(UUIDPGetDatum(call->run_id)));
}

/* Call a handler for a run, and let its errors do what it was registered for. */
static void
call_guarded(const RtHandler *handler, const pg_uuid_t *run_id)
{
	Call call = {handler, run_id};
	ErrorContextCallback context = {error_context_stack, add_context, &call};
	ErrorData *error = NULL;

	error_context_stack = &context;
	if (handler->log)
		error = rt_attempt(call_handler, &call, NULL, 0);
	else
		call_handler(&call, NULL);
	error_context_stack = context.previous;

	if (error && is_circumstance(error->sqlerrcode))
		ReThrowError(error);
	/* whoever finishes the run need not know what the function deals with */
	if (error)
		ereport(LOG_SERVER_ONLY,
				(errcode(error->sqlerrcode),
				 errmsg("run_tracker.on_finish function %s failed for run %s: %s",
						handler->function, rt_uuid_string(UUIDPGetDatum(run_id)), error->message),
				 error->detail ? errdetail_internal("%s", error->detail) : 0,
				 error->hint ? errhint("%s", error->hint) : 0,
				 error->context ? errcontext("%s", error->context) : 0));
}

/*
 * Call the functions that were registered for runs which have just finished, or have finished
 * otherwise than before.  From an AFTER trigger, when everything else is done.
 */
void
rt_finish_call(const RtRun *runs, int n)
{
	MemoryContext context;
	MemoryContext old;
	List *handlers;

	handlers = n > 0 ? read_handlers() : NIL;
	if (handlers == NIL)
		return;
	/* a function may finish other runs */
	check_stack_depth();
	context = AllocSetContextCreate(CurrentMemoryContext, "run_tracker on_finish",
									ALLOCSET_DEFAULT_SIZES);
	old = MemoryContextSwitchTo(context);
	for (int i = 0; i < n; i++)
	{
		ListCell *cell;

		CHECK_FOR_INTERRUPTS();
		foreach(cell, handlers)
		{
			const RtHandler *handler = lfirst(cell);

			if (handler->word == NULL || is_word(runs[i].kind, handler->word) ||
				is_word(runs[i].lifecycle, handler->word))
				call_guarded(handler, &runs[i].run_id);
			MemoryContextSwitchTo(context);
			MemoryContextReset(context);
		}
	}
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
}
