/*-------------------------------------------------------------------------
 *
 * worker.c
 *		The worker of one database: ends the runs whose time is up, announces those that
 *		have changed, and folds statistics.
 *
 * It is started when there is something to do, stays for a moment in case more
 * comes, and is gone before it could hold up DROP DATABASE.  It works in bounded
 * transactions, as the owner of the tables, under settings of its own; between
 * them it holds nothing.
 *
 * An error ends it.  The launcher starts another one after a while, which grows with
 * the number of failures in a row; worker_status shows the error, the log shows it
 * once in ten minutes.
 *
 * Memory: transactions bring their own; the set of runs to announce is allocated once.
 *
 *-------------------------------------------------------------------------
 */
#include "worker.h"

#include "access/table.h"
#include "access/xact.h"
#include "commands/dbcommands.h"
#include "commands/extension.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timeout.h"

#include "attempt.h"
#include "catalog.h"
#include "identity.h"
#include "notes.h"
#include "shared.h"
#include "stats.h"
#include "timeouts.h"
#include "writer.h"

/* time between two passes: deadlines close together are met together */
#define MIN_NAP_US (10 * INT64CONST(1000))

/* runs that others are changing are looked at again after this time, doubled up to that */
#define BUSY_RETRY_US	  (100 * INT64CONST(1000))
#define BUSY_RETRY_MAX_US (5000 * INT64CONST(1000))

/* deltas of statistics that are folded in one transaction */
#define FOLD_BATCH 20000

/* the same for the log */
#define LOG_INTERVAL_US (600 * INT64CONST(1000000))

/* our own */
static int entry;
static RtDatabase *db;
static char database_name[NAMEDATALEN] = "?";
static pg_uuid_t *runs;
static bool more; /* the last pass has left something for the next */

/* Settings that the database or a role may have, and that must not apply here. */
static void
set_options(void)
{
	static const char *const options[][2] =
	{ {"role", "none"},
	  {"search_path", "pg_catalog, pg_temp"},
	  {"statement_timeout", "0"},
	  {"lock_timeout", "500ms"},
	  /* whoever we are in a deadlock with does not notice before us */
	  {"deadlock_timeout", "10ms"},
	  {"idle_in_transaction_session_timeout", "0"},
#if PG_VERSION_NUM >= 170000
	  {"transaction_timeout", "0"},
#endif
	  {"default_transaction_isolation", "read committed"},
	  {"default_transaction_read_only", "off"},
	  {"default_transaction_deferrable", "off"},
	  {"session_replication_role", "origin"},
	  {"row_security", "on"},
	  {"exit_on_error", "off"},
	  {"check_function_bodies", "off"},
	  /* what is lost in a crash happens again */
	  {"synchronous_commit", "off"} };

	for (int i = 0; i < lengthof(options); i++)
		SetConfigOption(options[i][0], options[i][1], PGC_SUSET, PGC_S_OVERRIDE);
}

/* ----------------------------------------------------------------
 * Transactions
 * ----------------------------------------------------------------
 */

static void
begin_transaction(const char *activity)
{
	pgstat_report_activity(STATE_RUNNING, activity);
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
}

static void
end_transaction(void)
{
	if (ActiveSnapshotSet())
		PopActiveSnapshot();
	CommitTransactionCommand();
	pgstat_report_stat(true);
	pgstat_report_activity(STATE_IDLE, NULL);
}

static void
set_state(RtDatabaseState state)
{
	if (rt_shared_lock(entry, MyDatabaseId, LW_EXCLUSIVE))
	{
		db->state = state;
		rt_shared_unlock(entry);
	}
}

/*
 * Is it time to log an error?  Not the first in a row, which may be over when the next attempt
 * is made: somebody has just dropped a table, or held a lock.  The caller holds the entry's lock.
 */
static bool
may_log(bool again)
{
	TimestampTz now = GetCurrentTimestamp();
	bool log = again && (db->last_logged_at == DT_NOBEGIN || now < db->last_logged_at ||
						 now - db->last_logged_at >= LOG_INTERVAL_US);

	if (log)
		db->last_logged_at = now;
	return log;
}

/* Keep an error for worker_status.  The caller holds the entry's lock. */
static void
keep_error(const char *message)
{
	int len = pg_mbcliplen(message, strlen(message), RT_MAX_ERROR_LENGTH - 1);

	db->last_error_at = GetCurrentTimestamp();
	memcpy(db->last_error, message, len);
	db->last_error[len] = '\0';
}

static void
complain(const char *message)
{
	ereport(WARNING, (errmsg("run_tracker could not do its work in database \"%s\": %s",
							 database_name, message),
					  errhint("run_tracker.worker_status shows errors that are not logged.")));
}

/* An error has ended a transaction: note it, and when to try again. */
static void
fail(void)
{
	MemoryContext context = MemoryContextSwitchTo(TopMemoryContext);
	ErrorData *error;
	bool log = false;

	more = false;
	HOLD_INTERRUPTS();
	disable_all_timeouts(false);
	QueryCancelPending = false;
	error = CopyErrorData();
	FlushErrorState();
	AbortCurrentTransaction();
	if (rt_shared_lock(entry, MyDatabaseId, LW_EXCLUSIVE))
	{
		(void) rt_shared_give_back(db, "");
		keep_error(error->message);
		log = may_log(db->failures > 1);
		rt_shared_unlock(entry);
	}
	if (log)
		complain(error->message);
	RESUME_INTERRUPTS();
	MemoryContextSwitchTo(context);
}

/* ----------------------------------------------------------------
 * What there is to do
 * ----------------------------------------------------------------
 */

/* Is there anything for us in this database?  In a transaction. */
static bool
is_installed(void)
{
	char *name = get_database_name(MyDatabaseId);

	if (name)
		strlcpy(database_name, name, NAMEDATALEN);
	return OidIsValid(get_extension_oid("run_tracker", true)) && rt_tables_exist();
}

/*
 * Lock the tables, and see whether runs can be ended here.  What is seen then stays so until
 * the end of the transaction: dropping the extension or its triggers takes a lock on the
 * tables.  Busy if somebody has them now, whom we must not meet half-way.
 */
static bool
prepare(bool *busy)
{
	RtDatabaseState state = RT_DB_INSTALLED;

	*busy = is_installed() && rt_enabled && !rt_tables_lock();
	if (*busy)
		return true;
	if (!is_installed())
		state = RT_DB_NOT_INSTALLED;
	else if (!rt_enabled)
		state = RT_DB_DISABLED;
	else if (!rt_triggers_work())
		state = RT_DB_INCOMPLETE;
	set_state(state);
	return state == RT_DB_INSTALLED;
}

/* Is a pass due?  If so, from now on only what comes later counts. */
static bool
take_pass(TimestampTz now)
{
	bool due = false;

	if (rt_shared_lock(entry, MyDatabaseId, LW_EXCLUSIVE))
	{
		due = db->check || db->next_at <= now;
		if (due)
		{
			if (db->check)
				db->fold_at = Min(db->fold_at, now);
			db->check = false;
			db->next_at = DT_NOEND;
			db->passing = true;
		}
		rt_shared_unlock(entry);
	}
	return due;
}

/* Publish what a pass did, and when the next one is due. */
static void
publish(const RtPass *pass)
{
	TimestampTz now = GetCurrentTimestamp();
	bool progress = pass->timed_out + pass->requeued + pass->rearmed + pass->failed > 0;
	bool log = false;

	if (!rt_shared_lock(entry, MyDatabaseId, LW_EXCLUSIVE))
		return;
	db->passing = false;
	db->next_at = Min(db->next_at, pass->next_at);
	more = pass->more && progress;
	if (more)
		db->next_at = Min(db->next_at, now);
	if (pass->busy)
	{
		int64 delay = BUSY_RETRY_US << Min(db->busy, 10);

		db->next_at = Min(db->next_at, now + Min(delay, BUSY_RETRY_MAX_US));
		db->busy++;
	}
	else
		db->busy = 0;
	db->passes++;
	db->timed_out += pass->timed_out;
	db->requeued += pass->requeued;
	db->rearmed += pass->rearmed;
	db->last_pass_at = pass->now;
	db->failures = 0;
	if (pass->error)
	{
		keep_error(pass->error);
		db->errors += Max(pass->failed, 1);
		log = may_log(true);
	}
	rt_shared_unlock(entry);
	if (log)
		complain(pass->error);
}

/* End the runs whose time is up; false if there is nothing for us in this database. */
static bool
time_out(TimestampTz now)
{
	RtPass pass = {.now = now, .max_runs = rt_batch_size, .background = true, .next_at = DT_NOEND};
	bool installed;

	more = false;
	begin_transaction("timing out runs");
	installed = prepare(&pass.busy);
	if (installed && !pass.busy)
	{
		Relation rel = table_open(rt_table(RT_runs)->relid, AccessShareLock);
		RtOwnerSwitch save;

		rt_owner_enter(&save, rel);
		rt_timeouts_pass(&pass);
		rt_owner_leave(&save);
		table_close(rel, NoLock);
		if (pass.error)
			pass.error = MemoryContextStrdup(TopMemoryContext, pass.error);
	}
	end_transaction();
	if (installed)
		publish(&pass);
	else if (rt_shared_lock(entry, MyDatabaseId, LW_EXCLUSIVE))
	{
		db->passing = false;
		rt_shared_unlock(entry);
	}
	if (pass.error)
		pfree(pass.error);
	return installed;
}

/* Announce the runs that have changed; false as above. */
static bool
announce(TimestampTz now)
{
	bool installed;
	bool resync = false;
	int sent = 0;
	int n = 0;

	begin_transaction("announcing runs");
	enable_timeout_after(STATEMENT_TIMEOUT, rt_batch_timeout_ms);
	installed = is_installed();
	if (rt_shared_lock(entry, MyDatabaseId, LW_EXCLUSIVE))
	{
		n = rt_shared_take_runs(entry, runs, &resync);
		db->announcing = true;
		db->announce_at = now + rt_notify_interval_ms * INT64CONST(1000);
		rt_shared_unlock(entry);
	}
	if (installed)
	{
		if (resync)
			rt_notify_resync();
		else
			sent = rt_notify_runs(runs, n);
	}
	disable_timeout(STATEMENT_TIMEOUT, false);
	QueryCancelPending = false;
	end_transaction();
	if (rt_shared_lock(entry, MyDatabaseId, LW_EXCLUSIVE))
	{
		db->failures = 0;
		db->announcing = false;
		db->notifications += sent;
		db->resyncs += resync ? 1 : 0;
		rt_shared_unlock(entry);
	}
	return installed;
}

/* Are statistics to be folded?  If so, from now on only what comes later counts. */
static bool
take_fold(TimestampTz now)
{
	bool due = false;

	if (rt_shared_lock(entry, MyDatabaseId, LW_EXCLUSIVE))
	{
		due = rt_shared_fold_due(db, now) <= now;
		if (due)
		{
			db->fold_at = DT_NOEND;
			db->folding = true;
		}
		rt_shared_unlock(entry);
	}
	return due;
}

/* What a transaction has folded. */
typedef struct Folded
{
	int64 deltas; /* -1: somebody else is at it */
	bool more;
} Folded;

/* Stops well before the time limit, which would undo it. */
static void
fold_step(void *arg, void *unused)
{
	Folded *folded = arg;
	TimestampTz until = GetCurrentTimestamp() + rt_batch_timeout_ms * INT64CONST(250);

	folded->deltas = rt_stats_fold(FOLD_BATCH, until, false, &folded->more);
}

/* Fold statistics as the owner of the tables; an error is returned, and has undone it. */
static ErrorData *
fold_as_owner(Folded *folded)
{
	Relation rel = table_open(rt_table(RT_runs)->relid, AccessShareLock);
	RtOwnerSwitch save;
	ErrorData *error;

	rt_owner_enter(&save, rel);
	error = rt_attempt(fold_step, folded, NULL, rt_batch_timeout_ms);
	rt_owner_leave(&save);
	table_close(rel, NoLock);
	return error;
}

/* Publish what was folded, and when to go on: at once, if there is more. */
static void
publish_fold(const Folded *folded, bool busy, const char *error)
{
	TimestampTz now = GetCurrentTimestamp();
	bool log = false;

	if (!rt_shared_lock(entry, MyDatabaseId, LW_EXCLUSIVE))
		return;
	db->folding = false;
	if (error == NULL)
	{
		db->folded += Max(folded->deltas, 0);
		db->failures = 0;
	}
	if (error)
	{
		keep_error(error);
		db->errors++;
		db->fold_at = now + RT_RETRY_MAX_US;
		log = may_log(true);
	}
	else if (busy || folded->deltas < 0)
		db->fold_at =
			Min(db->fold_at, now + Min(BUSY_RETRY_MAX_US, rt_fold_interval_ms * INT64CONST(1000)));
	else if (folded->more)
		db->fold_at = now;
	rt_shared_unlock(entry);
	if (log)
		complain(error);
}

/* Fold statistics; false as above.  An error does not keep the worker from its other work. */
static bool
fold(void)
{
	bool busy = false;
	bool installed;
	Folded folded = {0};
	char *message = NULL;

	begin_transaction("folding statistics");
	installed = prepare(&busy);
	if (installed && !busy)
	{
		ErrorData *error = fold_as_owner(&folded);

		if (error)
			message = MemoryContextStrdup(TopMemoryContext, error->message);
	}
	end_transaction();
	publish_fold(&folded, busy, message);
	if (message)
		pfree(message);
	return installed;
}

/* Do what is due; false if the process should end. */
static bool
work(TimestampTz now, bool *worked)
{
	volatile bool go_on = true;
	volatile bool pending = false;

	PG_TRY();
	{
		if (take_pass(now))
		{
			*worked = true;
			go_on = time_out(now);
		}
		if (go_on && rt_shared_lock(entry, MyDatabaseId, LW_SHARED))
		{
			pending = rt_shared_announcement_due(db, now) <= now;
			rt_shared_unlock(entry);
		}
		if (pending)
		{
			*worked = true;
			go_on = announce(now);
		}
		if (go_on && take_fold(now))
		{
			*worked = true;
			go_on = fold();
		}
	}
	PG_CATCH();
	{
		fail();
		go_on = false;
	}
	PG_END_TRY();
	return go_on;
}

/* When there is something to do again; DT_NOEND: nothing is known. */
static TimestampTz
next_work(TimestampTz now)
{
	TimestampTz next = DT_NOEND;

	if (rt_shared_lock(entry, MyDatabaseId, LW_SHARED))
	{
		next = db->check ? DT_NOBEGIN : db->next_at;
		next = Min(next, rt_shared_announcement_due(db, now));
		next = Min(next, rt_shared_fold_due(db, now));
		rt_shared_unlock(entry);
	}
	return next;
}

/* Main function of a worker; its argument is the database. */
void
run_tracker_worker_main(Datum arg)
{
	static uint32 wait_event = 0;
	Oid dboid = DatumGetObjectId(arg);
	TimestampTz started = GetCurrentTimestamp();
	TimestampTz last_work = started;

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	db = rt_shared_worker_attach(dboid, &entry);
	if (db == NULL)
		proc_exit(0);
	BackgroundWorkerInitializeConnectionByOid(dboid, InvalidOid, 0);
	if (rt_shared_lock(entry, MyDatabaseId, LW_EXCLUSIVE))
	{
		/* somebody may have stopped us meanwhile */
		if (db->retry_at == db->guard_at)
			db->retry_at = DT_NOBEGIN;
		db->starts = 0;
		rt_shared_unlock(entry);
	}
	set_options();
	rt_background_actor = "run_tracker";
	runs = MemoryContextAllocHuge(TopMemoryContext, sizeof(pg_uuid_t) * rt_notify_queue_size);

	for (;;)
	{
		TimestampTz now;
		TimestampTz next;
		bool worked = false;

		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
		}
		now = GetCurrentTimestamp();
		if (!work(now, &worked))
			break;
		now = GetCurrentTimestamp();
		if (worked)
			last_work = now;
		next = next_work(now);
		if (now < started || now >= started + RT_LIFETIME_US ||
			(now >= last_work + RT_LINGER_US && next > now + RT_LINGER_US))
			break;
		if (more)
			continue;
		next = Min(next, last_work + RT_LINGER_US);
		next = Max(next, now + MIN_NAP_US);
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 rt_sleep_ms(now, next), RT_WAIT_EVENT(wait_event, "RunTrackerWorkerMain"));
	}
	proc_exit(0);
}
