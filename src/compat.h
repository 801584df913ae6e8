/*-------------------------------------------------------------------------
 *
 * compat.h
 *		Differences between PostgreSQL 15, 16, 17 and 18, one entry per change.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RT_COMPAT_H
#define RT_COMPAT_H

#if PG_VERSION_NUM < 150000
#error "run_tracker requires PostgreSQL 15 or later"
#endif

/* 16: the macros for variable-length values moved out of postgres.h */
#if PG_VERSION_NUM >= 160000
#include "varatt.h"
#endif

/* 16: permissions of range table entries became nodes of their own */
#if PG_VERSION_NUM >= 160000
#include "parser/parse_relation.h"
#endif

/* 16: checks of ownership and privileges became generic */
#if PG_VERSION_NUM >= 160000
#include "catalog/pg_class_d.h"
#include "catalog/pg_database_d.h"
#include "catalog/pg_proc_d.h"
#define rt_is_owner(relid, roleid)			object_ownercheck(RelationRelationId, relid, roleid)
#define rt_is_database_owner(dboid, roleid) object_ownercheck(DatabaseRelationId, dboid, roleid)
#define rt_proc_aclcheck(proc, roleid)                                                             \
	object_aclcheck(ProcedureRelationId, proc, roleid, ACL_EXECUTE)
#else
#define rt_proc_aclcheck(proc, roleid)		pg_proc_aclcheck(proc, roleid, ACL_EXECUTE)
#define rt_is_owner(relid, roleid)			pg_class_ownercheck(relid, roleid)
#define rt_is_database_owner(dboid, roleid) pg_database_ownercheck(dboid, roleid)
#endif

/* 16: EvalPlanQualInit learnt about the result relations */
#if PG_VERSION_NUM >= 160000
#define rt_EvalPlanQualInit(epq, estate) EvalPlanQualInit(epq, estate, NULL, NIL, -1, NIL)
#else
#define rt_EvalPlanQualInit(epq, estate) EvalPlanQualInit(epq, estate, NULL, NIL, -1)
#endif

/* 17: a backend is known by its ProcNumber, counted from 0, not by its BackendId */
#if PG_VERSION_NUM >= 170000
#include "storage/procnumber.h"
#define RT_MY_BACKEND ((int) MyProcNumber + 1)
#define RT_MY_PROCNO  ((int) MyProcNumber)
#else
#include "storage/backendid.h"
#define RT_MY_BACKEND ((int) MyBackendId)
#define RT_MY_PROCNO  ((int) MyProc->pgprocno)
#endif

/* 17: the JSON lexer is a struct of the caller's and must be freed */
#if PG_VERSION_NUM >= 170000
#define rt_json_lexer(json, len)                                                                   \
	makeJsonLexContextCstringLen(NULL, json, len, GetDatabaseEncoding(), true)
#else
#define rt_json_lexer(json, len)                                                                   \
	makeJsonLexContextCstringLen(json, len, GetDatabaseEncoding(), true)
#endif

/* 16: callbacks of the JSON parser report success or failure */
#if PG_VERSION_NUM >= 160000
#define RT_JSON_CALLBACK	  JsonParseErrorType
#define RT_JSON_CALLBACK_DONE return JSON_SUCCESS
#else
#define RT_JSON_CALLBACK	  void
#define RT_JSON_CALLBACK_DONE return
#endif

/* 18: index scans can carry instrumentation */
#if PG_VERSION_NUM >= 180000
#define rt_index_beginscan(heap, index, snapshot, nkeys)                                           \
	index_beginscan(heap, index, snapshot, NULL, nkeys, 0)
#else
#define rt_index_beginscan(heap, index, snapshot, nkeys)                                           \
	index_beginscan(heap, index, snapshot, nkeys, 0)
#endif

/* 17: extensions can name what they wait for */
#if PG_VERSION_NUM >= 170000
#include "utils/wait_event.h"
#define RT_WAIT_EVENT(variable, name)                                                              \
	((variable) ? (variable) : ((variable) = WaitEventExtensionNew(name)))
#else
#include "utils/wait_event.h"
#define RT_WAIT_EVENT(variable, name) ((variable) = PG_WAIT_EXTENSION)
#endif

/* 18: attnotnull does not say any more whether nulls from before have been looked for */
#if PG_VERSION_NUM >= 180000
#include "access/htup_details.h"
#include "catalog/pg_attribute.h"
#include "catalog/pg_constraint.h"
static inline bool
rt_att_is_not_null(Form_pg_attribute att)
{
	HeapTuple tuple =
		att->attnotnull ? findNotNullConstraintAttnum(att->attrelid, att->attnum) : NULL;
	bool result = att->attnotnull;

	if (tuple)
	{
		result = ((Form_pg_constraint) GETSTRUCT(tuple))->convalidated;
		heap_freetuple(tuple);
	}
	return result;
}
#else
#define rt_att_is_not_null(att) ((att)->attnotnull)
#endif

/* 17: does this process hold that lock, or a stronger one */
#if PG_VERSION_NUM >= 170000
#define rt_lock_held(tag, mode) LockHeldByMe(tag, mode, false)
#else
#define rt_lock_held(tag, mode) LockHeldByMe(tag, mode)
#endif

/* 18: a library can say its name and version */
#if PG_VERSION_NUM >= 180000
#define RT_MODULE_MAGIC PG_MODULE_MAGIC_EXT(.name = "run_tracker", .version = RT_VERSION)
#else
#define RT_MODULE_MAGIC PG_MODULE_MAGIC
#endif

#endif /* RT_COMPAT_H */
