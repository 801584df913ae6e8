/*-------------------------------------------------------------------------
 *
 * due.h
 *		One run whose deadline has passed: has its time come?
 *
 *-------------------------------------------------------------------------
 */
#ifndef RT_DUE_H
#define RT_DUE_H

#include "runs.h"
#include "timeouts.h"
#include "writer.h"

/* A run whose time is up, locked. */
typedef struct RtDue
{
	RtRun run; /* must be first: sorted by run_id */
	char *error;
	char *detail;
	const char *status;		/* to end in */
	const char *requeue_to; /* status to go on to from there; NULL: none */
} RtDue;

/* What a pass works with. */
typedef struct RtPassState
{
	RtPass *pass;
	Relation runs;
	Relation open_runs;
	Snapshot snapshot;
	RtWriter writer; /* of open_runs, if writing */
	bool writing;
	RtDue *due;
	int ndue;
	int blocked;			   /* single runs that somebody else was in the way of */
	MemoryContext context;	   /* of the pass */
	MemoryContext row_context; /* reset for each row */
} RtPassState;

extern bool rt_due_look_at(RtPassState *state, TupleTableSlot *row);

#endif /* RT_DUE_H */
