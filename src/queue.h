/*-------------------------------------------------------------------------
 *
 * queue.h
 *		Finding the runs to be claimed.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RT_QUEUE_H
#define RT_QUEUE_H

#include "runs.h"

/* a claim passes over so many runs that cannot be updated */
#define RT_MAX_FAILED 20

/* What is asked for, and the runs that were locked for it, in the order of their claim. */
typedef struct RtClaim
{
	Datum kind; /* 0: any */
	TimestampTz now;
	bool service;	  /* the runs of all users */
	const char *user; /* else of this one; NULL: of nobody */
	int wanted;
	Datum *run_ids;	 /* room for wanted */
	Datum *statuses; /* that they go to */
	int n;
	pg_uuid_t failed[RT_MAX_FAILED]; /* not these, which had an error */
	int nfailed;
} RtClaim;

extern void rt_queue_lock(RtClaim *claim, Datum lifecycle);

#endif /* RT_QUEUE_H */
