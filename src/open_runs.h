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

/* indexes that workers read, by name: see sql/31_open_runs.sql */
#define RT_DEADLINE_INDEX	"open_runs_deadline_at_idx"
#define RT_QUEUE_INDEX		"open_runs_queue_idx"
#define RT_KIND_QUEUE_INDEX "open_runs_kind_queue_idx"

extern bool rt_open_run_deadline(const RtRun *run, TimestampTz last_activity, TimestampTz available,
								 TimestampTz *result, bool *by_max_duration);
extern TimestampTz rt_open_run_available(const RtRun *run);
extern bool rt_open_run_heartbeat(TupleTableSlot *row, Relation rel, Snapshot snapshot);
extern void rt_open_runs_sync(const RtRun *runs, int n);
extern void rt_open_runs_touch(RtDelta **deltas, int n);

#endif /* RT_OPEN_RUNS_H */
