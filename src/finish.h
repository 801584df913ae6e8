/*-------------------------------------------------------------------------
 *
 * finish.h
 *		Functions of the user's that are called when a run finishes.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RT_FINISH_H
#define RT_FINISH_H

#include "runs.h"

/* A row of finish_handlers, palloc'd. */
typedef struct RtHandler
{
	pg_uuid_t handler_id;
	char *word; /* kind or lifecycle; NULL: all runs */
	char *function;
	char *role;
	char *search_path;
	bool log; /* its errors are logged, instead of failing the transition */
	TimestampTz created_at;
	Oid owner; /* of the table */
} RtHandler;

extern void rt_finish_call(const RtRun *runs, int n);
extern RtHandler *rt_handler_decode(Relation rel, TupleTableSlot *row);
extern char *rt_handler_function(Oid function);
extern void rt_handler_check(Oid function, Oid role, const char *name);

#endif /* RT_FINISH_H */
