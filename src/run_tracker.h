/*-------------------------------------------------------------------------
 *
 * run_tracker.h
 *		What every part of run_tracker needs: version, phases, settings.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RUN_TRACKER_H
#define RUN_TRACKER_H

#include "postgres.h"

#include "fmgr.h"
#include "pgtime.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "compat.h"
#include "errors.h"

#define RT_VERSION "1.0"
#define RT_SCHEMA  "run_tracker"

/*
 * No user id is longer than that, in bytes; nor any other name that state is kept by.  OpenID
 * Connect allows 255 characters.
 */
#define RT_MAX_NAME_BYTES 512

/*
 * What a status means to the tracker.  Everything generic looks at phases
 * only.  The last four are finished.
 */
typedef enum RtPhase
{
	RT_QUEUED,
	RT_ACTIVE,
	RT_WAITING,
	RT_SUCCEEDED,
	RT_FAILED,
	RT_CANCELLED,
	RT_TIMED_OUT
} RtPhase;

#define RT_NPHASES				(RT_TIMED_OUT + 1)
#define RT_PHASE_IS_OPEN(phase) ((phase) <= RT_WAITING)

/* settings (guc.c) */
typedef enum RtIdentity
{
	RT_IDENTITY_JWT,
	RT_IDENTITY_ROLE
} RtIdentity;

typedef enum RtNotify
{
	RT_NOTIFY_OFF,
	RT_NOTIFY_WORKER,
	RT_NOTIFY_COMMIT
} RtNotify;

/* when statistics are to be folded */
typedef enum RtFoldWhen
{
	RT_FOLD_NOT,
	RT_FOLD_LATER, /* after run_tracker.fold_interval */
	RT_FOLD_SOON   /* somebody reads too many of what is not folded */
} RtFoldWhen;

extern int rt_identity_mode;
extern int rt_max_payload_kb;
extern bool rt_task_transitions;
extern bool rt_enabled;
extern int rt_notify_mode;
extern int rt_notify_interval_ms;
extern int rt_notify_queue_size;
extern int rt_max_databases;
extern int rt_max_workers;
extern int rt_max_sleep_s;
extern int rt_batch_size;
extern int rt_batch_timeout_ms;
extern int rt_fold_interval_ms;
extern int rt_callback_tolerance_s;
extern int rt_session_timeout_s;
extern int rt_limit_memory_kb;
extern pg_tz *rt_time_zone;

extern void rt_guc_init(void);

/* run_tracker.c */
extern const char *const rt_phase_names[RT_NPHASES];
extern RtPhase rt_phase_decode(Datum phase);
extern Datum rt_phase_datum(RtPhase phase);

/* milliseconds from one moment to another, never negative */
extern int64 rt_elapsed_ms(TimestampTz from, TimestampTz to);

/* uuid.c */
extern void rt_uuid_generate(pg_uuid_t *uuid);

/* A uuid as a C string, palloc'd, for messages. */
extern char *rt_uuid_string(Datum uuid);

#endif /* RUN_TRACKER_H */
