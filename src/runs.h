/*-------------------------------------------------------------------------
 *
 * runs.h
 *		Runs, as the other parts see them.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RT_RUNS_H
#define RT_RUNS_H

#include "row.h"

/* What children need to know of their run. */
typedef struct RtRunInfo
{
	Datum user_id; /* palloc'd text, perhaps toasted */
	RtPhase phase;
	bool named;
	Datum kind; /* 0: none */
	Datum workflow_id;
} RtRunInfo;

/* A run as the bookkeeping sees it; everything palloc'd, perhaps toasted; Datum 0 is null. */
typedef struct RtRun
{
	pg_uuid_t run_id;
	Datum user_id;
	Datum lifecycle;
	Datum status;
	RtPhase phase;
	Datum kind;
	Datum worker;
	Datum error;
	int32 priority;
	int32 attempt;
	int32 max_attempts;
	TimestampTz created_at;
	TimestampTz scheduled_at; /* DT_NOBEGIN: not scheduled */
	TimestampTz started_at;	  /* DT_NOBEGIN: not started */
	TimestampTz updated_at;
	Datum timeout;
	Datum max_duration;
	Datum retry_base;
	Datum retry_cap;
} RtRun;

extern bool rt_run_lookup(const pg_uuid_t *run_id, RtRunInfo *info);
extern bool rt_run_lookup_before(const pg_uuid_t *run_id, RtRunInfo *info);
extern bool rt_run_fetch(const pg_uuid_t *run_id, RtRun *run);
extern void rt_run_hold(const pg_uuid_t *run_id);
extern void rt_run_require(Datum run_id);
extern void rt_run_require_open(const pg_uuid_t *run_id, bool lock);
extern void rt_run_adopt(RtRow *row, AttrNumber run_id_att, AttrNumber user_id_att);
extern void rt_run_decode(RtRun *run, TupleTableSlot *row, const RtTable *table);

/* transitions.c */
typedef struct RtTransition
{
	pg_uuid_t run_id;
	Datum user_id;
	const pg_uuid_t *task_id; /* NULL: of the run itself */
	Datum from;
	Datum to;
	int32 attempt;
	Datum reason;	   /* 0: none */
	TimestampTz since; /* when the old status began; of a run, looked up */
} RtTransition;

extern void rt_transitions_write(const RtTransition *transitions, int n);

extern void rt_runs_force(const pg_uuid_t *run_ids, int n);

/* tasks.c */
extern bool rt_task_is_open(TupleTableSlot *row, const RtTable *t);

/* task_close.c */
extern bool rt_run_is_busy(const pg_uuid_t *run_id, bool tasks);
extern bool rt_tasks_lock_open(const pg_uuid_t *run_id);
extern bool rt_tasks_close_with_run(RtRow *row, const RtStatusColumns *c);
extern void rt_tasks_wait_for_writers(const pg_uuid_t *run_id, bool ending);
extern void rt_tasks_close(const RtRun *runs, int n);

#endif /* RT_RUNS_H */
