/*-------------------------------------------------------------------------
 *
 * views.c
 *		What PostgreSQL does for tables when it plans, for the views of applications.
 *
 * Such a view is known by its trigger INSTEAD OF DELETE, which executes compat_delete():
 * its arguments name the table and the key.  A view has no index, so PostgreSQL refuses
 * ON CONFLICT with a conflict target; the planner hook takes a target away that is the
 * key.  The plan keeps the rest, and conflicts.c does what it says when the trigger of the
 * view asks for it.
 *
 * Locking protocol: PostgreSQL reads a view with triggers under the snapshot of the
 * statement, and never looks again when somebody else has changed the row meanwhile.  The
 * planner hook adds what FOR NO KEY UPDATE would: rows of the table are locked before the
 * trigger sees them, and the conditions of the statement are checked against what they have
 * become.  Only where all conditions can be pushed down to the table, so that no row is
 * locked that does not meet them: not if other tables, sub-selects or volatile functions
 * take part.
 *
 * Memory: what the hook adds lives with the query.
 *
 *-------------------------------------------------------------------------
 */
#include "run_tracker.h"

#include "access/relation.h"
#include "catalog/namespace.h"
#include "catalog/pg_class_d.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_trigger.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "optimizer/clauses.h"
#include "optimizer/optimizer.h"
#include "optimizer/planner.h"
#include "parser/parsetree.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

#include "views.h"

static planner_hook_type prev_planner = NULL;

/* The function that triggers INSTEAD OF DELETE of our views execute, or InvalidOid. */
static Oid
delete_function(void)
{
	Oid schema = get_namespace_oid(RT_SCHEMA, true);

	if (!OidIsValid(schema))
		return InvalidOid;
	return GetSysCacheOid3(PROCNAMEARGSNSP, Anum_pg_proc_oid, CStringGetDatum("compat_delete"),
						   PointerGetDatum(buildoidvector(NULL, 0)), ObjectIdGetDatum(schema));
}

/* Is that a view of an application?  view->table lives as long as the relation is open. */
bool
rt_view_describe(RtView *view, Relation rel)
{
	TriggerDesc *triggers = rel->trigdesc;
	Oid function;

	if (rel->rd_rel->relkind != RELKIND_VIEW || triggers == NULL ||
		!triggers->trig_insert_instead_row || !triggers->trig_delete_instead_row)
		return false;
	function = delete_function();
	if (!OidIsValid(function))
		return false;
	for (int i = 0; i < triggers->numtriggers; i++)
	{
		Trigger *trigger = &triggers->triggers[i];
		int n = trigger->tgnargs / 2;

		if (trigger->tgfoid != function || !TRIGGER_FOR_DELETE(trigger->tgtype) ||
			trigger->tgnargs % 2 == 0 || n < 1 || n > RT_VIEW_MAX_KEYS)
			continue;
		view->table = trigger->tgargs[0];
		view->nkeys = n;
		for (int k = 0; k < n; k++)
		{
			/* table, column of the table, column of the view, ... */
			view->keys[k] = get_attnum(RelationGetRelid(rel), trigger->tgargs[2 * k + 2]);
			if (view->keys[k] <= 0)
				return false;
		}
		return true;
	}
	return false;
}

/* Is the conflict target of an INSERT the key of the view, in any order, and nothing else? */
static bool
target_is_key(const OnConflictExpr *conflict, int target, const RtView *view)
{
	Bitmapset *wanted = NULL;
	Bitmapset *named = NULL;
	ListCell *cell;

	if (conflict->arbiterWhere != NULL || OidIsValid(conflict->constraint))
		return false;
	for (int k = 0; k < view->nkeys; k++)
		wanted = bms_add_member(wanted, view->keys[k]);
	foreach(cell, conflict->arbiterElems)
	{
		InferenceElem *elem = lfirst_node(InferenceElem, cell);
		Var *var = (Var *) elem->expr;

		if (!IsA(var, Var) || var->varno != target || var->varattno <= 0 ||
			OidIsValid(elem->infercollid) || OidIsValid(elem->inferopclass))
			return false;
		named = bms_add_member(named, var->varattno);
	}
	return bms_equal(wanted, named);
}

/* INSERT ... ON CONFLICT (key) into a view of an application: the planner shall look for no index.
 */
static void
accept_conflict_target(Query *query, RangeTblEntry *target)
{
	Relation rel;
	RtView view;

	if (query->onConflict == NULL || query->onConflict->arbiterElems == NIL)
		return;
	rel = relation_open(target->relid, NoLock);
	if (rt_view_describe(&view, rel) &&
		target_is_key(query->onConflict, query->resultRelation, &view))
		query->onConflict->arbiterElems = NIL;
	relation_close(rel, NoLock);
}

/* The entry of the range table that rows of the target view are read from, if nothing else is read.
 */
static RangeTblEntry *
only_source(const Query *query)
{
	RangeTblRef *ref;
	ListCell *cell;

	if (list_length(query->jointree->fromlist) != 1)
		return NULL;
	ref = linitial(query->jointree->fromlist);
	if (!IsA(ref, RangeTblRef))
		return NULL;
	/* the rewriter has added the row of the view for the trigger */
	foreach(cell, query->targetList)
	{
		TargetEntry *entry = lfirst_node(TargetEntry, cell);
		Var *var = (Var *) entry->expr;

		if (entry->resjunk && IsA(var, Var) && var->varno == ref->rtindex &&
			var->varattno == InvalidAttrNumber && strcmp(entry->resname, "wholerow") == 0)
			return rt_fetch(ref->rtindex, query->rtable);
	}
	return NULL;
}

/* The only table that a query selects from, if its rows are rows of that table. */
static Index
only_table(const Query *query)
{
	RangeTblRef *ref;
	RangeTblEntry *rte;

	if (query->commandType != CMD_SELECT || query->setOperations || query->groupClause ||
		query->groupingSets || query->havingQual || query->hasAggs || query->hasWindowFuncs ||
		query->hasTargetSRFs || query->distinctClause || query->limitCount || query->limitOffset ||
		query->rowMarks || query->cteList || list_length(query->jointree->fromlist) != 1)
		return 0;
	ref = linitial(query->jointree->fromlist);
	if (!IsA(ref, RangeTblRef))
		return 0;
	rte = rt_fetch(ref->rtindex, query->rtable);
	if (rte->rtekind != RTE_RELATION || rte->tablesample ||
		(rte->relkind != RELKIND_RELATION && rte->relkind != RELKIND_PARTITIONED_TABLE))
		return 0;
	return ref->rtindex;
}

/* Whoever could not write to the table cannot lock its rows either. */
static bool
may_lock(const Query *query, RangeTblEntry *rte, CmdType command)
{
	Oid relid = rte->relid;
	Oid role;

#if PG_VERSION_NUM >= 160000
	role = getRTEPermissionInfo(query->rteperminfos, rte)->checkAsUser;
#else
	role = rte->checkAsUser;
#endif
	if (!OidIsValid(role))
		role = GetUserId();
	if (command == CMD_UPDATE)
		return pg_class_aclcheck(relid, role, ACL_UPDATE) == ACLCHECK_OK ||
			   pg_attribute_aclcheck_all(relid, role, ACL_UPDATE, ACLMASK_ANY) == ACLCHECK_OK;
	/* as compat_delete() has it */
	return pg_class_aclcheck(relid, role, ACL_DELETE) == ACLCHECK_OK ||
		   pg_class_aclcheck(relid, role, ACL_INSERT) == ACLCHECK_OK ||
		   pg_attribute_aclcheck_all(relid, role, ACL_INSERT, ACLMASK_ANY) == ACLCHECK_OK;
}

/* UPDATE or DELETE of a view of an application: lock the rows of its table. */
static void
add_row_locks(Query *query, RangeTblEntry *target)
{
	RangeTblEntry *source = only_source(query);
	Node *quals = query->jointree->quals;
	RangeTblEntry *rte;
	RowMarkClause *mark;
	Relation rel;
	RtView view;
	Index rti;
	bool ours;

	/* security_barrier keeps conditions above the locks, as sub-selects and volatile functions do
	 */
	if (source == NULL || source->rtekind != RTE_SUBQUERY || source->security_barrier ||
		contain_subplans(quals) || contain_volatile_functions(quals))
		return;
	rti = only_table(source->subquery);
	if (rti == 0)
		return;
	rte = rt_fetch(rti, source->subquery->rtable);

	rel = relation_open(target->relid, NoLock);
	ours = rt_view_describe(&view, rel) &&
		   rte->relid == get_relname_relid(view.table, get_namespace_oid(RT_SCHEMA, false));
	relation_close(rel, NoLock);
	if (!ours || !may_lock(source->subquery, rte, query->commandType))
		return;

	/* what the parser does for FOR UPDATE; executions of a kept plan take the lock that it names */
	LockRelationOid(rte->relid, RowShareLock);
	rte->rellockmode = RowShareLock;
	mark = makeNode(RowMarkClause);
	mark->rti = rti;
	mark->strength = query->commandType == CMD_UPDATE ? LCS_FORNOKEYUPDATE : LCS_FORUPDATE;
	mark->waitPolicy = LockWaitBlock;
	mark->pushedDown = true;
	source->subquery->rowMarks = list_make1(mark);
	source->subquery->hasForUpdate = true;
}

/* What a query and those in its WITH need before they are planned. */
static void
prepare_query(Query *query)
{
	ListCell *cell;

	if (query->commandType != CMD_SELECT && query->resultRelation > 0)
	{
		RangeTblEntry *target = rt_fetch(query->resultRelation, query->rtable);

		if (target->relkind == RELKIND_VIEW)
		{
			if (query->commandType == CMD_INSERT)
				accept_conflict_target(query, target);
			else if (query->commandType == CMD_UPDATE || query->commandType == CMD_DELETE)
				add_row_locks(query, target);
		}
	}
	if (query->hasModifyingCTE)
		foreach(cell, query->cteList)
			prepare_query(castNode(Query, lfirst_node(CommonTableExpr, cell)->ctequery));
}

/* Hook of the planner, which may scribble on the query that it is given. */
static PlannedStmt *
plan_query(Query *parse, const char *query_string, int cursorOptions, ParamListInfo boundParams)
{
	if (parse->commandType != CMD_SELECT || parse->hasModifyingCTE)
		prepare_query(parse);
	if (prev_planner)
		return prev_planner(parse, query_string, cursorOptions, boundParams);
	return standard_planner(parse, query_string, cursorOptions, boundParams);
}

/* Register the hook; once per backend. */
void
rt_views_init(void)
{
	prev_planner = planner_hook;
	planner_hook = plan_query;
}
