/*-------------------------------------------------------------------------
 *
 * calls.h
 *		What the functions that applications call have in common.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RT_CALLS_H
#define RT_CALLS_H

#include "catalog/pg_type.h"
#include "executor/spi.h"

#include "catalog.h"
#include "lifecycles.h"

#define RT_MAX_ARGS 24

/* A query that is prepared at its first use, and kept. */
typedef struct RtPlan
{
	const char *sql;
	int nargs;
	Oid types[RT_MAX_ARGS];
	SPIPlanPtr plan;
} RtPlan;

/* A call that changes the status of a run or a task. */
typedef struct RtMoveCall
{
	RtTableId table;
	const char *word;  /* "run" or "task", for messages */
	RtPlan *find;	   /* id → lifecycle, status, attempt; locks the row */
	RtPlan *update;	   /* id, status, ... */
	RtPhase wanted[3]; /* phases to go to, in order of preference */
	int nwanted;
	bool ends;		 /* the run: wait for those who are changing its tasks */
	bool again;		 /* a retry: from finished states only */
	bool open;		 /* no retry: from open states only */
	Datum status;	 /* status to go to, instead of a phase; 0: none */
	int attempt_arg; /* argument of the call that fences */
} RtMoveCall;

extern void rt_plan_execute(RtPlan *plan, const NullableDatum *args, int expected, bool read_only);
extern void rt_call_require(FunctionCallInfo fcinfo, int arg, const char *name);
extern text *rt_call_check_name(text *value, const char *name);
extern NullableDatum rt_call_delay(FunctionCallInfo fcinfo, int arg);
extern Datum rt_call_insert(RtPlan *plan, FunctionCallInfo fcinfo, RtTableId table);
extern void rt_call_check_attempt(FunctionCallInfo fcinfo, int arg, int32 current,
								  const char *table);
extern bool rt_call_move(FunctionCallInfo fcinfo, const RtMoveCall *call,
						 const NullableDatum *extra, int nextra);

#endif /* RT_CALLS_H */
