/*-------------------------------------------------------------------------
 *
 * shared.h
 *		What backends, the launcher and its workers know of each database, in shared
 *		memory.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RT_SHARED_H
#define RT_SHARED_H

#include "run_tracker.h"

#include "storage/lwlock.h"

#define RT_MAX_ERROR_LENGTH 256

/* after a failure: the time until the next attempt, doubled up to that */
#define RT_RETRY_US		(1000 * INT64CONST(1000))
#define RT_RETRY_MAX_US (60 * INT64CONST(1000000))

/* What the last worker found in a database. */
typedef enum RtDatabaseState
{
	RT_DB_UNKNOWN,		 /* none has looked yet */
	RT_DB_NOT_INSTALLED, /* no extension, or no tables */
	RT_DB_INCOMPLETE,	 /* no triggers, or none that are switched on */
	RT_DB_INSTALLED,
	RT_DB_DISABLED /* run_tracker.enabled is off there */
} RtDatabaseState;

/*
 * One database.  Its oid is protected by the lock of the list, everything else by
 * the lock of the entry.
 */
typedef struct RtDatabase
{
	Oid oid; /* InvalidOid: the entry is free */
	RtDatabaseState state;

	/* what there is to do */
	TimestampTz next_at;	 /* earliest deadline that is known; DT_NOEND: none */
	bool check;				 /* look whatever next_at says */
	bool resync;			 /* announcements were lost */
	int npending;			 /* runs to be announced */
	TimestampTz announce_at; /* not before */
	TimestampTz fold_at;	 /* statistics are to be folded then; DT_NOEND: nothing to fold */
	TimestampTz retry_at;	 /* no worker before; DT_NOBEGIN: at any time */

	TimestampTz guard_at; /* retry_at as the launcher set it for the worker that it started */
	int starts;			  /* of workers that have not connected, in a row */

	/* what its worker has taken, and must not get lost with it */
	bool passing;
	bool announcing;
	bool folding;

	/* its worker */
	int worker_procno; /* -1: not attached */
	int worker_pid;

	/* what the workers have done, for worker_status */
	TimestampTz last_pass_at; /* DT_NOBEGIN: never */
	int64 passes;
	int64 timed_out;
	int64 requeued;
	int64 rearmed;
	int64 notifications;
	int64 resyncs;
	int64 folded;
	int64 errors;
	int failures; /* in a row */
	int busy;	  /* passes in a row that had to leave runs to others */
	TimestampTz last_error_at;
	TimestampTz last_logged_at;
	char last_error[RT_MAX_ERROR_LENGTH];
} RtDatabase;

extern void rt_shared_init(void);
extern bool rt_shared_available(void);

/* for backends, at the end of their transactions: must not fail */
extern void rt_shared_tell(TimestampTz deadline, bool check, RtFoldWhen statistics,
						   const pg_uuid_t *runs, int nruns, bool resync);
extern void rt_shared_stop_worker(Oid dboid);
extern void rt_shared_databases_changed(void);

/* for the launcher */
extern void rt_shared_launcher_attach(void);
extern bool rt_shared_take_rescan(void);
extern bool rt_shared_take_exhausted(void);
extern RtDatabase *rt_shared_database(int i);
extern bool rt_shared_lock(int i, Oid dboid, LWLockMode mode);
extern void rt_shared_unlock(int i);
extern int rt_shared_find(Oid dboid, bool create);
extern void rt_shared_forget(Oid dboid);
extern int rt_shared_launcher_pid(void);

/* for workers */
extern RtDatabase *rt_shared_worker_attach(Oid dboid, int *index);
extern int rt_shared_take_runs(int i, pg_uuid_t *runs, bool *resync);
extern bool rt_shared_give_back(RtDatabase *db, const char *message);
extern TimestampTz rt_shared_announcement_due(const RtDatabase *db, TimestampTz now);
extern TimestampTz rt_shared_fold_due(const RtDatabase *db, TimestampTz now);
extern void rt_shared_wake_launcher(void);

#endif /* RT_SHARED_H */
