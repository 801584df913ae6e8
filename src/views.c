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
 * statement, and never looks again when somebody else has changed the row meanwhile.  For an
 * UPDATE or DELETE of one row the planner hook adds what FOR NO KEY UPDATE or FOR UPDATE
 * would: the row of the table is locked before the trigger sees it, and the conditions are
 * checked against what it has become.  Not for statements that do not give the key: a lock
 * passes over rows that a trigger of the same statement has changed since it began, and rows
 * would be locked whose other conditions are not met.  There the triggers of the view find
 * out and raise 40001.
 *
 * A conversation that a statement neither shows nor looks at is not read for it: appending to
 * it costs the same however long it is.
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
#include "catalog/pg_type_d.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/clauses.h"
#include "optimizer/optimizer.h"
#include "optimizer/planner.h"
#include "parser/parsetree.h"
#include "rewrite/rowsecurity.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/array.h"
#include "utils/lsyscache.h"
#include "utils/rls.h"
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
		int n = 0;

		if (trigger->tgfoid != function || !TRIGGER_FOR_DELETE(trigger->tgtype) ||
			trigger->tgnargs % 2 == 0)
			continue;
		/* what is marked with + is no part of the key */
		while (2 * n + 2 < trigger->tgnargs && trigger->tgargs[2 * n + 1][0] != '+')
			n++;
		if (n < 1 || n > RT_VIEW_MAX_KEYS)
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

/* The index of the entry of the range table that rows of the target view are read from, or 0. */
static Index
find_source(const Query *query)
{
	ListCell *entry_cell;
	ListCell *from_cell;

	/* the rewriter has added the row of the view for the trigger */
	foreach(entry_cell, query->targetList)
	{
		TargetEntry *entry = lfirst_node(TargetEntry, entry_cell);
		Var *var = (Var *) entry->expr;

		if (!entry->resjunk || !IsA(var, Var) || var->varattno != InvalidAttrNumber ||
			strcmp(entry->resname, "wholerow") != 0)
			continue;
		foreach(from_cell, query->jointree->fromlist)
		{
			RangeTblRef *ref = lfirst(from_cell);

			if (IsA(ref, RangeTblRef) && ref->rtindex == var->varno)
				return ref->rtindex;
		}
	}
	return 0;
}

static Node *
strip_relabel(Node *node)
{
	while (node && IsA(node, RelabelType))
		node = (Node *) ((RelabelType *) node)->arg;
	return node;
}

/* Is that a value that the planner can push down to the table, the same for all rows? */
static bool
is_constant(Node *node)
{
	if (contain_vars_of_level(node, 0) || contain_volatile_functions(node))
		return false;
	if (IsA(node, SubLink))
		return ((SubLink *) node)->subLinkType == EXPR_SUBLINK;
	return !contain_subplans(node);
}

/* Do conditions say that a column equals some constant? */
static bool
pin_column(Node *quals, Index source, AttrNumber att)
{
	if (quals == NULL)
		return false;
	if (is_andclause(quals))
	{
		ListCell *cell;

		foreach(cell, ((BoolExpr *) quals)->args)
			if (pin_column(lfirst(cell), source, att))
				return true;
	}
	else if (is_opclause(quals) && list_length(((OpExpr *) quals)->args) == 2)
	{
		OpExpr *op = (OpExpr *) quals;

		for (int i = 0; i < 2; i++)
		{
			Node *side = strip_relabel(list_nth(op->args, i));
			Node *other = strip_relabel(list_nth(op->args, 1 - i));

			if (IsA(side, Var) && ((Var *) side)->varno == source &&
				((Var *) side)->varattno == att && ((Var *) side)->varlevelsup == 0 &&
				op_mergejoinable(op->opno, exprType(linitial(op->args))) && is_constant(other))
				return true;
		}
	}
	return false;
}

/* Is it a sub-select that reads no table itself: one row for each row of the table next to it? */
static bool
is_computed(const RangeTblEntry *rte)
{
	return rte->rtekind == RTE_SUBQUERY && rte->lateral &&
		   rte->subquery->commandType == CMD_SELECT && rte->subquery->setOperations == NULL &&
		   !rte->subquery->hasTargetSRFs && rte->subquery->jointree->fromlist == NIL &&
		   rte->subquery->jointree->quals == NULL;
}

/* The only table that a query selects from, if its rows are rows of that table. */
static Index
only_table(const Query *query)
{
	Index result = 0;
	ListCell *cell;

	if (query->commandType != CMD_SELECT || query->setOperations || query->groupClause ||
		query->groupingSets || query->havingQual || query->hasAggs || query->hasWindowFuncs ||
		query->hasTargetSRFs || query->distinctClause || query->limitCount || query->limitOffset ||
		query->rowMarks || query->cteList)
		return 0;
	foreach(cell, query->jointree->fromlist)
	{
		RangeTblRef *ref = lfirst(cell);
		RangeTblEntry *rte;

		if (!IsA(ref, RangeTblRef))
			return 0;
		rte = rt_fetch(ref->rtindex, query->rtable);
		if (is_computed(rte))
			continue;
		if (result != 0 || rte->rtekind != RTE_RELATION || rte->tablesample ||
			(rte->relkind != RELKIND_RELATION && rte->relkind != RELKIND_PARTITIONED_TABLE))
			return 0;
		result = ref->rtindex;
	}
	return result;
}

/* Does an expression use columns of a table, outside of sub-selects? */
static bool
uses_row(Node *node, Index *rti)
{
	if (node == NULL || IsA(node, SubLink))
		return false;
	if (IsA(node, Var))
		return ((Var *) node)->varno == *rti && ((Var *) node)->varlevelsup == 0;
	return expression_tree_walker(node, uses_row, rti);
}

/*
 * Is anything written that the row of the table says?  What is read from other tables
 * is written there: who appends to a conversation does not wait for others who do.
 */
static bool
writes_row(const Query *query, const Query *view, Index rti)
{
	ListCell *cell;

	if (query->commandType != CMD_UPDATE)
		return true;
	foreach(cell, query->targetList)
	{
		TargetEntry *entry = lfirst_node(TargetEntry, cell);

		if (!entry->resjunk &&
			uses_row((Node *) list_nth_node(TargetEntry, view->targetList, entry->resno - 1)->expr,
					 &rti))
			return true;
	}
	return false;
}

/* Do policies let the role see no other rows than FOR UPDATE would, so that it can lock all it
 * sees? */
static bool
may_lock_visible_rows(Oid relid, Oid role)
{
	Relation rel;
	ListCell *cell;
	bool more = false; /* rows that can only be read */
	bool less = false; /* rows that cannot be changed */
	bool all = false;

	if (check_enable_rls(relid, role, true) != RLS_ENABLED)
		return true;
	rel = relation_open(relid, NoLock);
	foreach(cell, rel->rd_rsdesc->policies)
	{
		RowSecurityPolicy *policy = lfirst(cell);
		Oid *roles = (Oid *) ARR_DATA_PTR(policy->roles);
		bool applies = false;

		for (int i = 0; i < ARR_DIMS(policy->roles)[0]; i++)
			applies = applies || roles[i] == ACL_ID_PUBLIC || has_privs_of_role(role, roles[i]);
		if (!applies)
			continue;
		if (policy->permissive && policy->polcmd == ACL_SELECT_CHR)
			more = true;
		else if (!policy->permissive && policy->polcmd == ACL_UPDATE_CHR)
			less = true;
		else if (policy->permissive &&
				 (policy->polcmd == '*' || policy->polcmd == ACL_UPDATE_CHR) && policy->qual &&
				 IsA(policy->qual, Const) && DatumGetBool(((Const *) policy->qual)->constvalue))
			all = true;
	}
	relation_close(rel, NoLock);
	return (all || !more) && !less;
}

/* Whoever could not write to a row of the table cannot lock it either. */
static bool
may_lock(const Query *query, RangeTblEntry *rte, CmdType command)
{
	Oid relid = rte->relid;
	AclMode privilege =
		command == CMD_UPDATE ? ACL_UPDATE : ACL_INSERT; /* as compat_delete() has it */
	Oid role;

#if PG_VERSION_NUM >= 160000
	role = getRTEPermissionInfo(query->rteperminfos, rte)->checkAsUser;
#else
	role = rte->checkAsUser;
#endif
	if (!OidIsValid(role))
		role = GetUserId();
	if (pg_class_aclcheck(relid, role, privilege) != ACLCHECK_OK &&
		pg_attribute_aclcheck_all(relid, role, privilege, ACLMASK_ANY) != ACLCHECK_OK &&
		(command != CMD_DELETE || pg_class_aclcheck(relid, role, ACL_DELETE) != ACLCHECK_OK))
		return false;
	return may_lock_visible_rows(relid, role);
}

/* Do conditions give the whole key of a view? */
static bool
pins_key(Node *quals, Index source, const RtView *view)
{
	for (int k = 0; k < view->nkeys; k++)
		if (!pin_column(quals, source, view->keys[k]))
			return false;
	return true;
}

/* UPDATE or DELETE of a row of a view of an application: lock the row of its table. */
static void
add_row_lock(Query *query, Index source, const RtView *description)
{
	RangeTblEntry *rte = rt_fetch(source, query->rtable);
	Query *view = rte->subquery;
	RowMarkClause *mark;
	Index rti;
	Oid table;

	/* security_barrier may keep the condition above the lock */
	if (rte->security_barrier)
		return;
	rti = only_table(view);
	if (rti == 0 || !writes_row(query, view, rti) ||
		!pins_key(query->jointree->quals, source, description))
		return;
	rte = rt_fetch(rti, view->rtable);
	table = get_relname_relid(description->table, get_namespace_oid(RT_SCHEMA, false));
	if (!OidIsValid(table) || rte->relid != table || !may_lock(view, rte, query->commandType))
		return;

	/* what the parser does for FOR UPDATE; executions of a kept plan take the lock that it names */
	LockRelationOid(table, RowShareLock);
	rte->rellockmode = RowShareLock;
	mark = makeNode(RowMarkClause);
	mark->rti = rti;
	mark->strength = query->commandType == CMD_UPDATE ? LCS_FORNOKEYUPDATE : LCS_FORUPDATE;
	mark->waitPolicy = LockWaitBlock;
	mark->pushedDown = true;
	view->rowMarks = list_make1(mark);
	view->hasForUpdate = true;
}

/* References to a column of a range table entry. */
typedef struct References
{
	Index rti;
	AttrNumber att;
	Index level;
	int count;
} References;

/* Count them, those to the whole row included. */
static bool
count_references(Node *node, References *refs)
{
	bool result;

	if (node == NULL)
		return false;
	if (IsA(node, Var))
	{
		Var *var = (Var *) node;

		if (var->varno == refs->rti && var->varlevelsup == refs->level &&
			(var->varattno == refs->att || var->varattno == InvalidAttrNumber))
			refs->count++;
		return false;
	}
	if (!IsA(node, Query))
		return expression_tree_walker(node, count_references, refs);
	refs->level++;
	result = query_tree_walker((Query *) node, count_references, refs, 0);
	refs->level--;
	return result;
}

/*
 * Does an UPDATE or DELETE use an array for nothing but to pass it to the trigger, as it is
 * or with something appended by ||?
 */
static bool
only_appends(const Query *query, Index source, AttrNumber att)
{
	References all = {source, att, 0, 0};
	References returned = {query->resultRelation, att, 0, 0};
	int expected = 1; /* the whole row, for OLD */
	ListCell *cell;

	foreach(cell, query->targetList)
	{
		TargetEntry *entry = lfirst_node(TargetEntry, cell);
		Node *expr = (Node *) entry->expr;

		if (entry->resjunk || entry->resno != att)
			continue;
		for (;;)
		{
			if (IsA(expr, OpExpr) && get_opcode(((OpExpr *) expr)->opno) == F_JSONB_CONCAT)
				expr = linitial(((OpExpr *) expr)->args);
			else if (IsA(expr, CoalesceExpr)) /* it is never null */
				expr = linitial(((CoalesceExpr *) expr)->args);
			else
				break;
		}
		if (!IsA(expr, Var))
			return false;
		expected = 2;
	}
	(void) query_tree_walker((Query *) query, count_references, &all, 0);
	(void) expression_tree_walker((Node *) query->returningList, count_references, &returned);
	return all.count == expected && returned.count == 0;
}

/*
 * Let an empty array stand for one that is only appended to: the trigger writes what comes
 * after what was there, and that is the same then.
 */
static void
skip_arrays(Query *query, Index source)
{
	RangeTblEntry *rte = rt_fetch(source, query->rtable);
	ListCell *cell;

	foreach(cell, rte->subquery->targetList)
	{
		TargetEntry *entry = lfirst_node(TargetEntry, cell);
		Var *var = (Var *) entry->expr;
		RangeTblEntry *computed;

		if (entry->resjunk || !IsA(var, Var) || var->varlevelsup > 0 || var->vartype != JSONBOID)
			continue;
		computed = rt_fetch(var->varno, rte->subquery->rtable);
		if (is_computed(computed) && only_appends(query, source, entry->resno))
			list_nth_node(TargetEntry, computed->subquery->targetList, var->varattno - 1)->expr =
				(Expr *) makeConst(JSONBOID, -1, InvalidOid, -1,
								   DirectFunctionCall1(jsonb_in, CStringGetDatum("[]")), false,
								   false);
	}
}

/* UPDATE or DELETE of a view, if it is one of an application. */
static void
prepare_change(Query *query, RangeTblEntry *target)
{
	Index source = find_source(query);
	Relation rel;
	RtView view;

	if (source == 0 || rt_fetch(source, query->rtable)->rtekind != RTE_SUBQUERY)
		return;
	rel = relation_open(target->relid, NoLock);
	if (rt_view_describe(&view, rel))
	{
		add_row_lock(query, source, &view);
		skip_arrays(query, source);
	}
	relation_close(rel, NoLock);
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
				prepare_change(query, target);
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
