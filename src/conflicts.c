/*-------------------------------------------------------------------------
 *
 * conflicts.c
 *		INSERT ... ON CONFLICT into views of applications.
 *
 * The trigger of a view inserts into the table with ON CONFLICT DO NOTHING, which waits
 * for others that insert the same id.  If nothing was inserted, it asks resolve_conflict()
 * what the statement that fired it wants: an error, nothing, or an update.  The executor
 * does not tell a trigger; so a hook puts a frame around each ModifyTable node that inserts
 * into a view, and the innermost one is the one that fires the triggers.  The planner has
 * prepared DO UPDATE for the node as for a table (views.c), so its expressions and its
 * WHERE are evaluated by the executor's own means; the update itself goes through the view,
 * with its trigger and the caller's privileges.
 *
 * Locking protocol: DO UPDATE reads the row FOR NO KEY UPDATE, so under READ COMMITTED it
 * sees what others have just committed; DO NOTHING and errors lock nothing.
 *
 * Memory: frames are on the C stack, and go away with errors; plans are kept for the
 * session, since one may be executing when another is asked for.
 *
 *-------------------------------------------------------------------------
 */
#include "run_tracker.h"

#include "access/htup_details.h"
#include "access/relation.h"
#include "catalog/namespace.h"
#include "catalog/pg_class_d.h"
#include "common/hashfn.h"
#include "executor/executor.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "calls.h"
#include "conflicts.h"
#include "views.h"

PG_FUNCTION_INFO_V1(run_tracker_resolve_conflict);

/* An INSERT into a view that is under way. */
typedef struct InsertFrame
{
	ModifyTableState *state;
	int depth;		   /* of triggers, outside of those that this INSERT fires */
	Oid user;		   /* whose expressions these are */
	char *search_path; /* that they are evaluated with, if there are any */
	bool resolving;
	struct InsertFrame *outer;
} InsertFrame;

/* A query on a view that is prepared at its first use, and kept. */
typedef struct ViewPlanKey
{
	Oid relid;
	uint32 hash; /* of the text */
} ViewPlanKey;

typedef struct ViewPlan
{
	ViewPlanKey key;
	char *sql;
	SPIPlanPtr plan;
} ViewPlan;

/* What resolve_conflict() works on. */
typedef struct Conflict
{
	Relation rel;
	RtView view;
	const char *name; /* of the view, as SQL */
	Datum keys[RT_VIEW_MAX_KEYS];
	char *key_columns;
	char *condition; /* t.column = $1 AND ... */
} Conflict;

static ExecutorStart_hook_type prev_ExecutorStart = NULL;
static ExecProcNodeMtd exec_modify_table = NULL;
static InsertFrame *innermost = NULL;
static HTAB *view_plans = NULL;

static int
trigger_depth(void)
{
	return DatumGetInt32(DirectFunctionCall1(pg_trigger_depth, (Datum) 0));
}

/* Execute a ModifyTable node that inserts into a view. */
static TupleTableSlot *
exec_insert(PlanState *node)
{
	InsertFrame frame = {.state = castNode(ModifyTableState, node), .outer = innermost};
	TupleTableSlot *result;

	frame.depth = trigger_depth();
	frame.user = GetUserId();
	if (frame.state->resultRelInfo->ri_onConflict)
		frame.search_path = pstrdup(namespace_search_path);
	PG_TRY();
	{
		innermost = &frame;
		result = exec_modify_table(node);
	}
	PG_FINALLY();
	{
		innermost = frame.outer;
	}
	PG_END_TRY();
	if (frame.search_path)
		pfree(frame.search_path);
	return result;
}

/* Put frames around a node, if it inserts into a view. */
static void
watch_node(PlanState *node)
{
	ModifyTableState *state = (ModifyTableState *) node;

	if (node == NULL || !IsA(node, ModifyTableState) ||
		(state->operation != CMD_INSERT && state->operation != CMD_MERGE) ||
		state->resultRelInfo->ri_RelationDesc->rd_rel->relkind != RELKIND_VIEW)
		return;
	if (exec_modify_table == NULL)
		exec_modify_table = node->ExecProcNodeReal;
	/* another library may have put itself there for this statement; then conflicts are errors */
	if (node->ExecProcNodeReal == exec_modify_table)
		ExecSetExecProcNode(node, exec_insert);
}

/* Hook of the start of the executor. */
static void
start_executor(QueryDesc *query, int eflags)
{
	if (prev_ExecutorStart)
		prev_ExecutorStart(query, eflags);
	else
		standard_ExecutorStart(query, eflags);

	if (query->operation == CMD_INSERT || query->operation == CMD_MERGE)
		watch_node(query->planstate);
	if (query->plannedstmt->hasModifyingCTE)
	{
		ListCell *cell;

		foreach(cell, query->estate->es_auxmodifytables)
			watch_node(lfirst(cell));
	}
}

/* The INSERT that fired the trigger that asks, or NULL. */
static InsertFrame *
find_frame(Oid relid)
{
	if (innermost == NULL || innermost->depth + 1 != trigger_depth() ||
		RelationGetRelid(innermost->state->resultRelInfo->ri_RelationDesc) != relid)
		return NULL;
	return innermost;
}

/* Columns may have been renamed since. */
static bool
takes_types(SPIPlanPtr plan, int nargs, const Oid *types)
{
	for (int i = 0; i < nargs; i++)
		if (SPI_getargtypeid(plan, i) != types[i])
			return false;
	return true;
}

/* The plan of a query on the view.  The caller is connected to SPI. */
static SPIPlanPtr
prepare(Oid relid, const char *sql, int nargs, Oid *types)
{
	ViewPlanKey key = {relid, DatumGetUInt32(hash_any((const unsigned char *) sql, strlen(sql)))};
	ViewPlan *entry;
	SPIPlanPtr plan;
	bool found;

	if (view_plans == NULL)
	{
		HASHCTL ctl = {.keysize = sizeof(ViewPlanKey), .entrysize = sizeof(ViewPlan)};

		view_plans = hash_create("run_tracker queries on views", 32, &ctl, HASH_ELEM | HASH_BLOBS);
	}
	entry = hash_search(view_plans, &key, HASH_FIND, NULL);
	if (entry && strcmp(entry->sql, sql) == 0 && takes_types(entry->plan, nargs, types))
		return entry->plan;
	plan = SPI_prepare(sql, nargs, types);
	if (plan == NULL)
		elog(ERROR, "could not prepare \"%s\": %s", sql, SPI_result_code_string(SPI_result));
	if (entry == NULL)
	{
		char *copy = MemoryContextStrdup(TopMemoryContext, sql);

		SPI_keepplan(plan);
		entry = hash_search(view_plans, &key, HASH_ENTER, &found);
		entry->sql = copy;
		entry->plan = plan;
	}
	return plan;
}

/* Run a query whose first parameters are the key.  The caller is connected to SPI. */
static void
run(const Conflict *c, const char *sql, int nmore, const AttrNumber *more, TupleTableSlot *slot,
	int expected)
{
	TupleDesc desc = RelationGetDescr(c->rel);
	int nargs = c->view.nkeys + nmore;
	Oid *types = palloc(nargs * sizeof(Oid));
	Datum *values = palloc(nargs * sizeof(Datum));
	char *nulls = palloc(nargs);

	for (int i = 0; i < nargs; i++)
	{
		bool is_key = i < c->view.nkeys;
		AttrNumber att = is_key ? c->view.keys[i] : more[i - c->view.nkeys];
		bool isnull = false;

		types[i] = TupleDescAttr(desc, att - 1)->atttypid;
		values[i] = is_key ? c->keys[i] : slot_getattr(slot, att, &isnull);
		nulls[i] = isnull ? 'n' : ' ';
	}
	if (SPI_execute_plan(prepare(RelationGetRelid(c->rel), sql, nargs, types), values, nulls, false,
						 0) != expected)
		elog(ERROR, "unexpected result of \"%s\"", sql);
}

/* Does the row that a query has returned look like the view? */
static HeapTuple
returned_row(const Conflict *c)
{
	if (SPI_processed == 0)
		return NULL;
	if (SPI_processed > 1)
		ereport(ERROR, (errcode(ERRCODE_CARDINALITY_VIOLATION),
						errmsg("view \"%s\" shows more than one row with the same key",
							   RelationGetRelationName(c->rel))));
	if (SPI_tuptable->tupdesc->natts != RelationGetDescr(c->rel)->natts)
		elog(ERROR, "unexpected rows of view \"%s\"", RelationGetRelationName(c->rel));
	return SPI_tuptable->vals[0];
}

/* The result of the call: a row of the view, in the memory of the caller of SPI_connect(). */
static Datum
view_row(const Conflict *c, HeapTuple row)
{
	return HeapTupleHeaderGetDatum(SPI_returntuple(row, RelationGetDescr(c->rel)));
}

/* What a table says. */
static void
raise_duplicate(const Conflict *c)
{
	StringInfoData values;

	initStringInfo(&values);
	for (int k = 0; c->condition && k < c->view.nkeys; k++)
	{
		Oid output;
		bool varlena;

		getTypeOutputInfo(TupleDescAttr(RelationGetDescr(c->rel), c->view.keys[k] - 1)->atttypid,
						  &output, &varlena);
		appendStringInfo(&values, "%s%s", k > 0 ? ", " : "",
						 OidOutputFunctionCall(output, c->keys[k]));
	}
	ereport(ERROR, (errcode(ERRCODE_UNIQUE_VIOLATION),
					errmsg("duplicate key value violates unique constraint \"%s_pkey\"",
						   RelationGetRelationName(c->rel)),
					c->condition ?
						errdetail("Key (%s)=(%s) already exists.", c->key_columns, values.data) :
						0,
					err_generic_string(PG_DIAG_SCHEMA_NAME,
									   get_namespace_name(RelationGetNamespace(c->rel))),
					err_generic_string(PG_DIAG_TABLE_NAME, RelationGetRelationName(c->rel))));
}

/* Evaluate DO UPDATE as ExecOnConflictUpdate() does; NULL if its WHERE is not met. */
static TupleTableSlot *
evaluate_update(const Conflict *c, InsertFrame *frame, HeapTuple existing, HeapTupleHeader proposed)
{
	TupleDesc desc = RelationGetDescr(c->rel);
	OnConflictSetState *update = frame->state->resultRelInfo->ri_onConflict;
	ExprContext *econtext = frame->state->ps.ps_ExprContext;
	TupleTableSlot *excluded = MakeSingleTupleTableSlot(desc, &TTSOpsVirtual);
	HeapTupleData tuple = {.t_len = HeapTupleHeaderGetDatumLength(proposed), .t_data = proposed};
	TupleTableSlot *result = NULL;
	int nest_level = 0;

	ItemPointerSetInvalid(&tuple.t_self);
	heap_deform_tuple(&tuple, desc, excluded->tts_values, excluded->tts_isnull);
	ExecStoreVirtualTuple(excluded);
	ExecClearTuple(update->oc_Existing);
	heap_deform_tuple(existing, SPI_tuptable->tupdesc, update->oc_Existing->tts_values,
					  update->oc_Existing->tts_isnull);
	ExecStoreVirtualTuple(update->oc_Existing);

	/* the snapshot and the path of the statement, not those of the trigger's function */
	if (strcmp(namespace_search_path, frame->search_path) != 0)
	{
		nest_level = NewGUCNestLevel();
		(void) set_config_option("search_path", frame->search_path, PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_SAVE, true, 0, false);
	}
	PushActiveSnapshot(frame->state->ps.state->es_snapshot);
	ResetExprContext(econtext);
	econtext->ecxt_scantuple = update->oc_Existing;
	econtext->ecxt_innertuple = excluded;
	econtext->ecxt_outertuple = NULL;
	if (ExecQual(update->oc_WhereClause, econtext))
		result = ExecProject(update->oc_ProjInfo);
	PopActiveSnapshot();
	if (nest_level > 0)
		AtEOXact_GUC(true, nest_level);
	econtext->ecxt_scantuple = NULL;
	econtext->ecxt_innertuple = NULL;
	ExecClearTuple(update->oc_Existing);
	ExecDropSingleTupleTableSlot(excluded);
	return result;
}

/* DO UPDATE of the row that is there.  Returns the new row, or NULL. */
static HeapTuple
update_existing(const Conflict *c, InsertFrame *frame, HeapTuple existing, HeapTupleHeader proposed)
{
	ModifyTable *plan = (ModifyTable *) frame->state->ps.plan;
	TupleTableSlot *slot = evaluate_update(c, frame, existing, proposed);
	int ncolumns = list_length(plan->onConflictCols);
	AttrNumber *columns = palloc(ncolumns * sizeof(AttrNumber));
	StringInfoData sql;
	ListCell *cell;
	int i = 0;

	if (slot == NULL)
		return NULL;
	initStringInfo(&sql);
	appendStringInfo(&sql, "UPDATE %s t SET ", c->name);
	foreach(cell, plan->onConflictCols)
	{
		Form_pg_attribute att = TupleDescAttr(RelationGetDescr(c->rel), lfirst_int(cell) - 1);

		appendStringInfo(&sql, "%s%s = $%d", i > 0 ? ", " : "",
						 quote_identifier(NameStr(att->attname)), c->view.nkeys + i + 1);
		columns[i++] = att->attnum;
	}
	appendStringInfo(&sql, " WHERE %s RETURNING t.*", c->condition);
	run(c, sql.data, ncolumns, columns, slot, SPI_OK_UPDATE_RETURNING);
	ExecClearTuple(slot);
	return returned_row(c);
}

/* The key of a row that was to be inserted; false if part of it is null, so that it conflicts with
 * none. */
static bool
describe_conflict(Conflict *c, HeapTupleHeader proposed)
{
	TupleDesc desc = RelationGetDescr(c->rel);
	HeapTupleData tuple = {.t_len = HeapTupleHeaderGetDatumLength(proposed), .t_data = proposed};
	StringInfoData condition;
	StringInfoData columns;

	if (!rt_view_describe(&c->view, c->rel))
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("\"%s\" is not a view of an application", RelationGetRelationName(c->rel)),
				 errdetail("It has no trigger INSTEAD OF INSERT, or none INSTEAD OF DELETE "
						   "that executes compat_delete().")));
	if (HeapTupleHeaderGetTypeId(proposed) != desc->tdtypeid)
		ereport(ERROR, (errcode(ERRCODE_DATATYPE_MISMATCH),
						errmsg("argument \"new\" must be a row of view \"%s\"",
							   RelationGetRelationName(c->rel))));
	ItemPointerSetInvalid(&tuple.t_self);
	c->name = quote_qualified_identifier(get_namespace_name(RelationGetNamespace(c->rel)),
										 RelationGetRelationName(c->rel));
	initStringInfo(&condition);
	initStringInfo(&columns);
	for (int k = 0; k < c->view.nkeys; k++)
	{
		const char *column = NameStr(TupleDescAttr(desc, c->view.keys[k] - 1)->attname);
		bool isnull;

		c->keys[k] = heap_getattr(&tuple, c->view.keys[k], desc, &isnull);
		if (isnull)
			return false;
		appendStringInfo(&columns, "%s%s", k > 0 ? ", " : "", column);
		appendStringInfo(&condition, "%st.%s OPERATOR(pg_catalog.=) $%d", k > 0 ? " AND " : "",
						 quote_identifier(column), k + 1);
	}
	c->key_columns = columns.data;
	c->condition = condition.data;
	return true;
}

/* What becomes of the row: 0 if there is none to return. */
static Datum
resolve(const Conflict *c, InsertFrame *frame, HeapTupleHeader proposed, bool repeatable)
{
	OnConflictAction action =
		frame ? ((ModifyTable *) frame->state->ps.plan)->onConflictAction : ONCONFLICT_NONE;
	Datum result = (Datum) 0;
	HeapTuple row;

	if (action == ONCONFLICT_NONE && !repeatable)
		raise_duplicate(c);
	SPI_connect();
	run(c,
		psprintf("SELECT * FROM %s t WHERE %s%s", c->name, c->condition,
				 action == ONCONFLICT_UPDATE ? " FOR NO KEY UPDATE" : ""),
		0, NULL, NULL, SPI_OK_SELECT);
	row = returned_row(c);
	/* nobody learns more about a row of somebody else's than that it is there */
	if (row == NULL)
		raise_duplicate(c);
	if (action == ONCONFLICT_UPDATE)
		row = update_existing(c, frame, row, proposed);
	if (action != ONCONFLICT_NOTHING && row != NULL)
		result = view_row(c, row);
	SPI_finish();
	return result;
}

/* resolve_conflict(view, new, repeatable) */
Datum
run_tracker_resolve_conflict(PG_FUNCTION_ARGS)
{
	Conflict conflict = {0};
	HeapTupleHeader proposed;
	InsertFrame *frame;
	bool repeatable;
	Datum result;

	rt_call_require(fcinfo, 0, "view");
	rt_call_require(fcinfo, 1, "new");
	proposed = PG_GETARG_HEAPTUPLEHEADER(1);
	repeatable = !PG_ARGISNULL(2) && PG_GETARG_BOOL(2);
	frame = find_frame(PG_GETARG_OID(0));

	conflict.rel = try_relation_open(PG_GETARG_OID(0), AccessShareLock);
	if (conflict.rel == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE), errmsg("argument \"view\" must name a view")));
	if (!describe_conflict(&conflict, proposed))
		raise_duplicate(&conflict);
	/* expressions of one user's must not be evaluated with the rights of another */
	if (frame && (frame->user != GetUserId() || frame->resolving))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("conflicts of view \"%s\" cannot be resolved here",
						RelationGetRelationName(conflict.rel)),
				 errhint(
					 "Call resolve_conflict() once, from a trigger that is not SECURITY DEFINER.")));
	if (frame)
	{
		PG_TRY();
		{
			frame->resolving = true;
			result = resolve(&conflict, frame, proposed, repeatable);
		}
		PG_FINALLY();
		{
			frame->resolving = false;
		}
		PG_END_TRY();
	}
	else
		result = resolve(&conflict, NULL, proposed, repeatable);
	relation_close(conflict.rel, NoLock);
	if (result == (Datum) 0)
		PG_RETURN_NULL();
	return result;
}

/* Register the hook; once per backend. */
void
rt_conflicts_init(void)
{
	prev_ExecutorStart = ExecutorStart_hook;
	ExecutorStart_hook = start_executor;
}
