/*-------------------------------------------------------------------------
 *
 * timeouts.h
 *		Ending the runs whose time is up.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RT_TIMEOUTS_H
#define RT_TIMEOUTS_H

#include "run_tracker.h"

/* One pass over what is due: what is asked for, and what it did. */
typedef struct RtPass
{
	TimestampTz now; /* deadlines up to here have passed */
	int max_runs;	 /* to be ended */
	bool background; /* called by the worker: errors of single runs are kept below */

	int64 timed_out;
	int64 requeued;
	int64 rearmed;
	bool more;			 /* max_runs was reached */
	bool busy;			 /* runs were left to those who are changing them */
	int64 failed;		 /* runs put off because of an error */
	char *error;		 /* the first of these errors, palloc'd, or NULL */
	TimestampTz next_at; /* the earliest deadline after now; DT_NOEND: none */
} RtPass;

extern void rt_timeouts_pass(RtPass *pass);

#endif /* RT_TIMEOUTS_H */
