/*-------------------------------------------------------------------------
 *
 * launcher.c
 *		The launcher of the background workers: one process, connected to no database,
 *		that sleeps until there is something to do in one of them.
 *
 * It starts a worker for a database whose next deadline is near, or that has runs to
 * announce, and no more than run_tracker.max_workers at a time.  Backends wake it when
 * they commit something that comes earlier (shared.c).  Once in run_tracker.max_sleep it
 * compares its list with pg_database, and has every database looked at in which the
 * extension is installed: that bounds what a clock that was set, or rows that came in
 * past the triggers, can do.
 *
 * It holds nothing that could hold up others: no database, no transaction while it
 * sleeps; and it accepts interrupts, without which DROP DATABASE would wait for it.
 *
 * Memory: one array for the life of the process; a context per turn for the rest.
 *
 *-------------------------------------------------------------------------
 */
#include "worker.h"

#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_database.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "tcop/tcopprot.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "shared.h"

/* a worker should be gone after this time, even one whose trigger does not let itself be cancelled
 */
#define OVERDUE_US (RT_LIFETIME_US + rt_batch_timeout_ms * INT64CONST(6000))

/* after a crash, or when it was terminated, the launcher comes back after so many seconds */
#define RESTART_S 5

/* when no worker could be started because max_worker_processes are running */
#define NO_SLOT_RETRY_US (1000 * INT64CONST(1000))

/* how often the same complaint is repeated in the log */
#define COMPLAIN_US (3600 * INT64CONST(1000000))

/* what became of the worker that was started for an entry, and when that was */
typedef struct Started
{
	BackgroundWorkerHandle *handle; /* NULL: there is none */
	TimestampTz at;
} Started;

static Started *started;

static TimestampTz next_rescan = 0;

/* Fill in what launcher and workers have in common. */
void
rt_worker_describe(BackgroundWorker *worker, const char *function, const char *type)
{
	memset(worker, 0, sizeof(BackgroundWorker));
	worker->bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker->bgw_start_time = BgWorkerStart_RecoveryFinished;
	strlcpy(worker->bgw_library_name, "run_tracker", sizeof(worker->bgw_library_name));
	strlcpy(worker->bgw_function_name, function, sizeof(worker->bgw_function_name));
	strlcpy(worker->bgw_type, type, sizeof(worker->bgw_type));
	strlcpy(worker->bgw_name, type, sizeof(worker->bgw_name));
}

/* Have the postmaster start the launcher.  Called while libraries are preloaded. */
void
rt_launcher_register(void)
{
	BackgroundWorker worker;

	rt_worker_describe(&worker, "run_tracker_launcher_main", "run_tracker launcher");
	worker.bgw_restart_time = RESTART_S;
	RegisterBackgroundWorker(&worker);
}

/* Milliseconds to sleep until a moment, bounded by run_tracker.max_sleep. */
long
rt_sleep_ms(TimestampTz now, TimestampTz until)
{
	long longest = rt_max_sleep_s * 1000L;

	if (until == DT_NOEND)
		return longest;
	return Min(TimestampDifferenceMilliseconds(now, until), longest);
}

/* ----------------------------------------------------------------
 * Which databases there are
 * ----------------------------------------------------------------
 */

/* The databases that one can connect to, in the current memory context. */
static List *
list_databases(void)
{
	MemoryContext context = CurrentMemoryContext;
	List *result = NIL;
	Relation rel;
	TableScanDesc scan;
	HeapTuple tuple;

	StartTransactionCommand();
	(void) GetTransactionSnapshot();
	rel = table_open(DatabaseRelationId, AccessShareLock);
	scan = table_beginscan_catalog(rel, 0, NULL);
	while (HeapTupleIsValid(tuple = heap_getnext(scan, ForwardScanDirection)))
	{
		Form_pg_database database = (Form_pg_database) GETSTRUCT(tuple);
		MemoryContext old;

		if (!database->datallowconn || database_is_invalid_form(database))
			continue;
		old = MemoryContextSwitchTo(context);
		result = lappend_oid(result, database->oid);
		MemoryContextSwitchTo(old);
	}
	table_endscan(scan);
	table_close(rel, AccessShareLock);
	CommitTransactionCommand();
	MemoryContextSwitchTo(context);
	return result;
}

/* databases without the extension, as far as is known since the last full look */
static List *empty_databases = NIL;

/*
 * Compare the entries with pg_database.  Those of databases that are gone are freed:
 * only of such as had one before the list was made, since a backend of a database that
 * is newer than the list may have made an entry meanwhile.
 */
static void
rescan(bool check)
{
	List *before = NIL;
	List *databases;
	ListCell *lc;

	for (int i = 0; i < rt_max_databases; i++)
	{
		RtDatabaseState state;
		MemoryContext old;
		Oid oid;

		if (!rt_shared_lock(i, InvalidOid, LW_SHARED))
			continue;
		oid = rt_shared_database(i)->oid;
		state = rt_shared_database(i)->state;
		rt_shared_unlock(i);
		before = lappend_oid(before, oid);
		old = MemoryContextSwitchTo(TopMemoryContext);
		if (state == RT_DB_NOT_INSTALLED)
			empty_databases = list_append_unique_oid(empty_databases, oid);
		else
			empty_databases = list_delete_oid(empty_databases, oid);
		MemoryContextSwitchTo(old);
	}
	if (check)
	{
		list_free(empty_databases);
		empty_databases = NIL;
	}
	databases = list_databases();
	foreach(lc, before)
	{
		if (!list_member_oid(databases, lfirst_oid(lc)))
			rt_shared_forget(lfirst_oid(lc));
	}
	foreach(lc, databases)
	{
		/* an entry is for those that may need it */
		bool create = !list_member_oid(empty_databases, lfirst_oid(lc));
		int i = rt_shared_find(lfirst_oid(lc), create);

		if (i >= 0 && check && rt_shared_lock(i, InvalidOid, LW_EXCLUSIVE))
		{
			RtDatabase *db = rt_shared_database(i);

			db->check = db->check || db->state != RT_DB_NOT_INSTALLED;
			rt_shared_unlock(i);
		}
	}
}

/* ----------------------------------------------------------------
 * Starting workers
 * ----------------------------------------------------------------
 */

/*
 * Is a worker that was started for an entry still there, or about to come?  One that does
 * not want to go is told to.
 */
static bool
is_running(int i, TimestampTz now)
{
	pid_t pid;

	if (started[i].handle == NULL)
		return false;
	if (GetBackgroundWorkerPid(started[i].handle, &pid) != BGWH_STOPPED)
	{
		if (now - started[i].at > OVERDUE_US)
			TerminateBackgroundWorker(started[i].handle);
		return true;
	}
	pfree(started[i].handle);
	started[i].handle = NULL;
	return false;
}

/* When a worker has to be started for an entry; DT_NOEND: not at all, as things are. */
static TimestampTz
due_at(const RtDatabase *db, TimestampTz now)
{
	TimestampTz due = DT_NOEND;

	if (db->check)
		due = DT_NOBEGIN;
	else if (db->state != RT_DB_DISABLED && db->state != RT_DB_INCOMPLETE)
	{
		due = Min(rt_shared_announcement_due(db, now), rt_shared_fold_due(db, now));
		if (TIMESTAMP_NOT_FINITE(db->next_at))
			due = Min(due, db->next_at);
		else
			due = Min(due, db->next_at - RT_START_LEAD_US);
	}
	/* a clock that was set back must not keep us away */
	if (due == DT_NOEND || db->retry_at > now + RT_RETRY_MAX_US)
		return due;
	return Max(due, db->retry_at);
}

/* Start a worker; false if there is no room for one. */
static bool
start_worker(int i, Oid dboid, TimestampTz now)
{
	BackgroundWorker worker;
	MemoryContext old;
	bool registered;

	rt_worker_describe(&worker, "run_tracker_worker_main", "run_tracker worker");
	worker.bgw_restart_time = BGW_NEVER_RESTART;
	worker.bgw_notify_pid = MyProcPid;
	worker.bgw_main_arg = ObjectIdGetDatum(dboid);
	snprintf(worker.bgw_name, sizeof(worker.bgw_name), "run_tracker worker for database %u", dboid);

	/* it may die before it has connected: not again at once then */
	if (rt_shared_lock(i, dboid, LW_EXCLUSIVE))
	{
		RtDatabase *db = rt_shared_database(i);
		int64 delay = RT_RETRY_US << Min(db->starts, 10);

		db->guard_at = now + Min(delay, RT_RETRY_MAX_US);
		db->retry_at = db->guard_at;
		db->starts++;
		rt_shared_unlock(i);
	}
	old = MemoryContextSwitchTo(TopMemoryContext);
	registered = RegisterDynamicBackgroundWorker(&worker, &started[i].handle);
	MemoryContextSwitchTo(old);
	started[i].at = now;
	if (!registered)
	{
		started[i].handle = NULL;
		if (rt_shared_lock(i, dboid, LW_EXCLUSIVE))
		{
			rt_shared_database(i)->retry_at = now + NO_SLOT_RETRY_US;
			rt_shared_database(i)->starts = 0;
			rt_shared_unlock(i);
		}
	}
	return registered;
}

/* Complain in the log, but not for ever. */
static bool
may_complain(TimestampTz *last, TimestampTz now)
{
	if (*last != 0 && now - *last < COMPLAIN_US)
		return false;
	*last = now;
	return true;
}

/*
 * The entry to start a worker for: of those that are due by now, the one that has had none
 * for the longest time, so that a busy database does not keep the others waiting.  -1 if
 * none is due; next_due says when one will be.
 */
static int
choose(TimestampTz now, Oid *dboid, TimestampTz *next_due)
{
	int best = -1;

	*next_due = DT_NOEND;
	for (int i = 0; i < rt_max_databases; i++)
	{
		TimestampTz due;

		if (started[i].handle != NULL || !rt_shared_lock(i, InvalidOid, LW_SHARED))
			continue;
		due = due_at(rt_shared_database(i), now);
		if (due > now)
			*next_due = Min(*next_due, due);
		else if (best < 0 || started[i].at < started[best].at)
		{
			best = i;
			*dboid = rt_shared_database(i)->oid;
		}
		rt_shared_unlock(i);
	}
	return best;
}

/* Start workers where they are due.  Returns when to look again; the end of any worker wakes us. */
static TimestampTz
start_workers(TimestampTz now)
{
	static TimestampTz complained = 0;
	TimestampTz wakeup = next_rescan;
	TimestampTz next_due;
	int running = 0;
	Oid dboid = InvalidOid;
	int next;

	for (int i = 0; i < rt_max_databases; i++)
	{
		if (is_running(i, now))
		{
			running++;
			wakeup = Min(wakeup, now + OVERDUE_US);
		}
	}
	while ((next = choose(now, &dboid, &next_due)) >= 0)
	{
		if (running >= rt_max_workers)
			return wakeup;
		if (!start_worker(next, dboid, now))
		{
			if (may_complain(&complained, now))
				ereport(WARNING,
						(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
						 errmsg("run_tracker could not start a background worker"),
						 errdetail("All of max_worker_processes are in use; it tries again every "
								   "second."),
						 errhint("Increase max_worker_processes.")));
			return Min(wakeup, now + NO_SLOT_RETRY_US);
		}
		running++;
	}
	return Min(wakeup, next_due);
}

/* Have databases found no free entry since the last call? */
static bool
complain_of_limit(TimestampTz now)
{
	static TimestampTz complained = 0;
	bool exhausted = rt_shared_take_exhausted();

	if (exhausted && may_complain(&complained, now))
		ereport(WARNING,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("run_tracker does not serve all databases"),
				 errdetail("There are more than run_tracker.max_databases (%d).", rt_max_databases),
				 errhint("Increase run_tracker.max_databases and restart the server.")));
	return exhausted;
}

/* Main function of the launcher. */
void
run_tracker_launcher_main(Datum arg)
{
	static uint32 wait_event = 0;
	MemoryContext turn;

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnection(NULL, NULL, 0);

	started = MemoryContextAllocZero(TopMemoryContext, sizeof(Started) * rt_max_databases);
	turn = AllocSetContextCreate(TopMemoryContext, "run_tracker launcher", ALLOCSET_DEFAULT_SIZES);
	rt_shared_launcher_attach();

	for (;;)
	{
		TimestampTz now;
		TimestampTz wakeup;
		bool reload = ConfigReloadPending;
		static bool exhausted = false;

		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
		if (reload)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
		}
		MemoryContextSwitchTo(turn);
		MemoryContextReset(turn);
		now = GetCurrentTimestamp();
		/* a clock that was set back must not put off the next look */
		if (next_rescan - now > rt_max_sleep_s * INT64CONST(1000000))
			next_rescan = now;
		/* while some have no entry, one may have become free */
		if (rt_shared_take_rescan() || exhausted || reload || now >= next_rescan)
		{
			bool check = reload || now >= next_rescan;

			if (check)
				next_rescan = now + rt_max_sleep_s * INT64CONST(1000000);
			rescan(check);
		}
		exhausted = complain_of_limit(now);
		wakeup = start_workers(now);
		pgstat_report_activity(STATE_IDLE, NULL);
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 rt_sleep_ms(GetCurrentTimestamp(), wakeup),
						 RT_WAIT_EVENT(wait_event, "RunTrackerLauncherMain"));
	}
}
