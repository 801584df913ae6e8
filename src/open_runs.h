/*-------------------------------------------------------------------------
 *
 * open_runs.h
 *		The open set: the runs that are not finished.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RT_OPEN_RUNS_H
#define RT_OPEN_RUNS_H

#include "runs.h"
#include "totals.h"

extern void rt_open_runs_sync(const RtRun *runs, int n);
extern void rt_open_runs_touch(RtDelta **deltas, int n);

#endif /* RT_OPEN_RUNS_H */
