/*-------------------------------------------------------------------------
 *
 * shared.c
 *		What backends, the launcher and its workers know of each database, in shared
 *		memory; and how they wake each other.
 *
 * There is an entry for each database in which something was tracked, or which the
 * launcher has found: when its next deadline is, and which runs have changed since
 * they were last announced.  The latter is a set, so a run that changes a thousand
 * times takes one place.  When the set is full, the loss is noted instead.
 *
 * Backends write here only after their transaction has committed and is visible
 * (rt_shared_tell()).  A worker first sets next_at to infinity, then takes its snapshot
 * and works, and at last lowers next_at to what it saw: whatever its snapshot missed
 * was committed later, and has lowered next_at after the worker raised it.
 *
 * Locking protocol: lock 0 protects which database has which entry, and the launcher's
 * place; lock i + 1 all else of entry i.  Whoever holds both took lock 0 first.  The
 * number of an entry may be kept, but whose it is must be asked again under its lock; one
 * that a worker is attached to does not change hands.  Nothing that can fail happens under
 * these locks.
 *
 * Everything else works without this: when the library was not preloaded,
 * rt_shared_available() is false, and nothing here may be called.
 *
 *-------------------------------------------------------------------------
 */
#include "shared.h"

#include <signal.h>

#include "common/hashfn.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "storage/shmem.h"

#include "limit_state.h"

#define TRANCHE "run_tracker"

/* how long a worker that was stopped for DROP DATABASE and the like stays away */
#define STOPPED_US INT64CONST(1000000)

typedef struct Shared
{
	int launcher_procno; /* -1: none */
	int launcher_pid;
	bool rescan;	/* databases have come or gone */
	bool exhausted; /* a database found no free entry */
	RtDatabase databases[FLEXIBLE_ARRAY_MEMBER];
} Shared;

static Shared *shared = NULL;
static LWLockPadded *locks;
static pg_uuid_t *all_runs; /* of each database: the pending runs */
static int32 *all_links;	/* for each of them the next in its bucket; -1: none */
static int32 *all_buckets;	/* first run of each bucket; -1: none */
static int own_entry = -1;	/* of MyDatabaseId */

static shmem_request_hook_type prev_shmem_request_hook = NULL;
static shmem_startup_hook_type prev_shmem_startup_hook = NULL;

#define N_BUCKETS ((Size) rt_notify_queue_size * 2)

/* ----------------------------------------------------------------
 * Setting up
 * ----------------------------------------------------------------
 */

static Size
header_size(void)
{
	return MAXALIGN(
		add_size(offsetof(Shared, databases), mul_size(rt_max_databases, sizeof(RtDatabase))));
}

static Size
sets_size(void)
{
	return mul_size(rt_max_databases,
					add_size(mul_size(rt_notify_queue_size, sizeof(pg_uuid_t) + sizeof(int32)),
							 mul_size(N_BUCKETS, sizeof(int32))));
}

static void
shmem_request(void)
{
	if (prev_shmem_request_hook)
		prev_shmem_request_hook();
	RequestAddinShmemSpace(add_size(add_size(header_size(), sets_size()), rt_limit_shmem_size()));
	RequestNamedLWLockTranche(TRANCHE, rt_max_databases + 1);
}

/* Forget which runs of a database are pending. */
static void
clear_runs(int i)
{
	shared->databases[i].npending = 0;
	memset(all_buckets + i * N_BUCKETS, 0xff, N_BUCKETS * sizeof(int32));
}

static void
clear_entry(int i)
{
	RtDatabase *db = &shared->databases[i];

	memset(db, 0, sizeof(RtDatabase));
	db->next_at = DT_NOEND;
	db->announce_at = DT_NOBEGIN;
	db->fold_at = DT_NOEND;
	db->retry_at = DT_NOBEGIN;
	db->guard_at = DT_NOBEGIN;
	db->worker_procno = -1;
	db->last_pass_at = DT_NOBEGIN;
	db->last_error_at = DT_NOBEGIN;
	db->last_logged_at = DT_NOBEGIN;
	clear_runs(i);
}

static void
shmem_startup(void)
{
	bool found;

	if (prev_shmem_startup_hook)
		prev_shmem_startup_hook();

	/* again after a crash */
	shared = NULL;
	own_entry = -1;

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	shared = ShmemInitStruct("run_tracker", add_size(header_size(), sets_size()), &found);
	locks = GetNamedLWLockTranche(TRANCHE);
	all_runs = (pg_uuid_t *) ((char *) shared + header_size());
	all_links = (int32 *) (all_runs + (Size) rt_max_databases * rt_notify_queue_size);
	all_buckets = all_links + (Size) rt_max_databases * rt_notify_queue_size;
	if (!found)
	{
		shared->launcher_procno = -1;
		shared->launcher_pid = 0;
		shared->rescan = false;
		shared->exhausted = false;
		for (int i = 0; i < rt_max_databases; i++)
			clear_entry(i);
	}
	LWLockRelease(AddinShmemInitLock);
}

/* Install the hooks.  Called while shared_preload_libraries are loaded, and only then. */
void
rt_shared_init(void)
{
	prev_shmem_request_hook = shmem_request_hook;
	shmem_request_hook = shmem_request;
	prev_shmem_startup_hook = shmem_startup_hook;
	shmem_startup_hook = shmem_startup;
}

/* Was the library preloaded? */
bool
rt_shared_available(void)
{
	return shared != NULL;
}

/* ----------------------------------------------------------------
 * Entries
 * ----------------------------------------------------------------
 */

/* The entry with a number.  The caller holds its lock, unless only reading its oid is asked for. */
RtDatabase *
rt_shared_database(int i)
{
	return &shared->databases[i];
}

/*
 * Lock an entry; false, and not locked, if it is free, or (unless dboid is invalid) has become
 * that of another database.
 */
bool
rt_shared_lock(int i, Oid dboid, LWLockMode mode)
{
	Oid oid;

	LWLockAcquire(&locks[i + 1].lock, mode);
	oid = shared->databases[i].oid;
	if (OidIsValid(oid) && (!OidIsValid(dboid) || oid == dboid))
		return true;
	LWLockRelease(&locks[i + 1].lock);
	return false;
}

void
rt_shared_unlock(int i)
{
	LWLockRelease(&locks[i + 1].lock);
}

/*
 * Give an entry to a database, if it is free or that of one without the extension; false if
 * not.  Looking and taking is one step: whoever tells something there meanwhile must not be
 * overwritten.  The caller holds lock 0.
 */
static bool
take_entry(int i, Oid dboid)
{
	RtDatabase *db = &shared->databases[i];
	bool available;

	LWLockAcquire(&locks[i + 1].lock, LW_EXCLUSIVE);
	available =
		!OidIsValid(db->oid) ||
		(db->state == RT_DB_NOT_INSTALLED && db->worker_procno < 0 && !db->check &&
		 db->next_at == DT_NOEND && db->fold_at == DT_NOEND && db->npending == 0 && !db->resync);
	if (available)
	{
		clear_entry(i);
		db->oid = dboid;
		db->check = true;
	}
	LWLockRelease(&locks[i + 1].lock);
	return available;
}

/* The number of a database's entry; -1 if it has none, and none is available or wanted. */
int
rt_shared_find(Oid dboid, bool create)
{
	int free_entry = -1;
	int result = -1;

	LWLockAcquire(&locks[0].lock, create ? LW_EXCLUSIVE : LW_SHARED);
	for (int i = 0; result < 0 && i < rt_max_databases; i++)
	{
		if (shared->databases[i].oid == dboid)
			result = i;
		else if (free_entry < 0 && !OidIsValid(shared->databases[i].oid))
			free_entry = i;
	}
	if (result < 0 && create)
	{
		/* rather a free one than somebody else's */
		if (free_entry >= 0 && take_entry(free_entry, dboid))
			result = free_entry;
		for (int i = 0; result < 0 && i < rt_max_databases; i++)
			if (take_entry(i, dboid))
				result = i;
		if (result < 0)
			shared->exhausted = true;
	}
	LWLockRelease(&locks[0].lock);
	return result;
}

/* Free the entry of a database that is gone, unless its worker is still about to notice. */
void
rt_shared_forget(Oid dboid)
{
	LWLockAcquire(&locks[0].lock, LW_EXCLUSIVE);
	for (int i = 0; i < rt_max_databases; i++)
	{
		RtDatabase *db = &shared->databases[i];

		if (db->oid != dboid)
			continue;
		LWLockAcquire(&locks[i + 1].lock, LW_EXCLUSIVE);
		if (db->worker_procno < 0)
			db->oid = InvalidOid;
		LWLockRelease(&locks[i + 1].lock);
	}
	LWLockRelease(&locks[0].lock);
}

/* ----------------------------------------------------------------
 * Waking each other
 * ----------------------------------------------------------------
 */

/* A process that has ended may be woken, too: its latch stays, and is somebody else's at most. */
static void
wake(int procno)
{
	if (procno >= 0)
		SetLatch(&GetPGProcByNumber(procno)->procLatch);
}

/* Have the launcher look at what there is to do. */
void
rt_shared_wake_launcher(void)
{
	int procno;

	LWLockAcquire(&locks[0].lock, LW_SHARED);
	procno = shared->launcher_procno;
	LWLockRelease(&locks[0].lock);
	wake(procno);
}

/* Add a run to the set of those to be announced; false if it is full. */
static bool
add_run(int i, const pg_uuid_t *run_id)
{
	RtDatabase *db = &shared->databases[i];
	pg_uuid_t *runs = all_runs + (Size) i * rt_notify_queue_size;
	int32 *links = all_links + (Size) i * rt_notify_queue_size;
	int32 *bucket = all_buckets + i * N_BUCKETS +
					hash_bytes((const unsigned char *) run_id, UUID_LEN) % N_BUCKETS;

	for (int32 n = *bucket; n >= 0; n = links[n])
		if (memcmp(&runs[n], run_id, UUID_LEN) == 0)
			return true;
	if (db->npending >= rt_notify_queue_size)
		return false;
	runs[db->npending] = *run_id;
	links[db->npending] = *bucket;
	*bucket = db->npending++;
	return true;
}

/* Set when statistics are to be folded; is that news?  After an error it is not to be soon. */
static bool
tell_of_statistics(RtDatabase *db, bool soon)
{
	int64 interval = rt_fold_interval_ms * INT64CONST(1000);
	TimestampTz now = GetCurrentTimestamp();

	if (db->fold_at != DT_NOEND && !(soon && db->fold_at > now && db->fold_at <= now + interval))
		return false;
	db->fold_at = soon ? now : now + interval;
	return true;
}

/*
 * Tell what a transaction of this database, which is visible to others by now, has
 * changed: the earliest deadline it set (DT_NOEND: none), the runs to be announced, that
 * statistics are to be folded, or that anything may have changed.  Wakes whoever must
 * know.  Never fails.
 */
void
rt_shared_tell(TimestampTz deadline, bool check, RtFoldWhen statistics, const pg_uuid_t *runs,
			   int nruns, bool resync)
{
	RtDatabase *db;
	bool news;
	int worker;

	while (own_entry < 0 || !rt_shared_lock(own_entry, MyDatabaseId, LW_EXCLUSIVE))
	{
		own_entry = rt_shared_find(MyDatabaseId, true);
		if (own_entry < 0)
		{
			rt_shared_wake_launcher();
			return;
		}
	}
	db = &shared->databases[own_entry];

	news = check || deadline < db->next_at;
	db->check = db->check || check;
	db->next_at = Min(db->next_at, deadline);
	if ((nruns > 0 || resync) && db->npending == 0 && !db->resync)
		news = true;
	if (statistics != RT_FOLD_NOT)
		news = tell_of_statistics(db, statistics == RT_FOLD_SOON) || news;
	db->resync = db->resync || resync;
	for (int i = 0; i < nruns && !db->resync; i++)
		if (!add_run(own_entry, &runs[i]))
			db->resync = true;
	worker = db->worker_procno;
	LWLockRelease(&locks[own_entry + 1].lock);

	if (!news)
		return;
	if (worker >= 0)
		wake(worker);
	else
		rt_shared_wake_launcher();
}

/*
 * Take the runs to be announced out of the set; runs has room for rt_notify_queue_size.
 * The caller holds the entry's lock.
 */
int
rt_shared_take_runs(int i, pg_uuid_t *runs, bool *resync)
{
	RtDatabase *db = &shared->databases[i];
	int n = db->npending;

	*resync = db->resync;
	memcpy(runs, all_runs + (Size) i * rt_notify_queue_size, sizeof(pg_uuid_t) * n);
	clear_runs(i);
	db->resync = false;
	return n;
}

/*
 * When the changed runs of a database may be announced; DT_NOEND if there are none.  The
 * caller holds the entry's lock.
 */
TimestampTz
rt_shared_announcement_due(const RtDatabase *db, TimestampTz now)
{
	if (db->npending == 0 && !db->resync)
		return DT_NOEND;
	/* a clock that was set back must not keep them waiting */
	if (db->announce_at > now + rt_notify_interval_ms * INT64CONST(1000))
		return now;
	return db->announce_at;
}

/* When the statistics of a database are to be folded.  The caller holds the entry's lock. */
TimestampTz
rt_shared_fold_due(const RtDatabase *db, TimestampTz now)
{
	int64 longest = Max(rt_fold_interval_ms * INT64CONST(1000), RT_RETRY_MAX_US);

	/* a clock that was set back must not put it off */
	if (db->fold_at != DT_NOEND && db->fold_at > now + longest)
		return now;
	return db->fold_at;
}

/*
 * Databases have come or gone: have the launcher look.
 */
void
rt_shared_databases_changed(void)
{
	LWLockAcquire(&locks[0].lock, LW_EXCLUSIVE);
	shared->rescan = true;
	LWLockRelease(&locks[0].lock);
	rt_shared_wake_launcher();
}

/* End the worker of a database, if there is one, and keep it away for a moment. */
void
rt_shared_stop_worker(Oid dboid)
{
	int i = rt_shared_find(dboid, false);

	if (i >= 0 && rt_shared_lock(i, dboid, LW_EXCLUSIVE))
	{
		RtDatabase *db = &shared->databases[i];

		db->retry_at = Max(db->retry_at, GetCurrentTimestamp() + STOPPED_US);
		if (db->worker_procno >= 0)
			(void) kill(db->worker_pid, SIGTERM);
		rt_shared_unlock(i);
	}
}

/* ----------------------------------------------------------------
 * The launcher and its workers
 * ----------------------------------------------------------------
 */

static void
launcher_detach(int code, Datum arg)
{
	LWLockAcquire(&locks[0].lock, LW_EXCLUSIVE);
	shared->launcher_procno = -1;
	shared->launcher_pid = 0;
	LWLockRelease(&locks[0].lock);
}

/* Become the process that is woken when there is something to do. */
void
rt_shared_launcher_attach(void)
{
	before_shmem_exit(launcher_detach, (Datum) 0);
	LWLockAcquire(&locks[0].lock, LW_EXCLUSIVE);
	shared->launcher_procno = RT_MY_PROCNO;
	shared->launcher_pid = MyProcPid;
	LWLockRelease(&locks[0].lock);
}

/* The process id of the launcher; 0: it is not running. */
int
rt_shared_launcher_pid(void)
{
	int pid;

	LWLockAcquire(&locks[0].lock, LW_SHARED);
	pid = shared->launcher_pid;
	LWLockRelease(&locks[0].lock);
	return pid;
}

static bool
take_flag(bool *flag)
{
	bool result;

	LWLockAcquire(&locks[0].lock, LW_EXCLUSIVE);
	result = *flag;
	*flag = false;
	LWLockRelease(&locks[0].lock);
	return result;
}

/* Have databases come or gone since the last call? */
bool
rt_shared_take_rescan(void)
{
	return take_flag(&shared->rescan);
}

/* Has a database found no free entry since the last call? */
bool
rt_shared_take_exhausted(void)
{
	return take_flag(&shared->exhausted);
}

/*
 * A worker did not finish what it had taken: give it back, to be tried again after a while,
 * which doubles with each failure in a row.  False if it had taken nothing.  The caller
 * holds the entry's lock.
 */
bool
rt_shared_give_back(RtDatabase *db, const char *message)
{
	TimestampTz now = GetCurrentTimestamp();
	int64 delay = RT_RETRY_US << Min(db->failures, 10);

	if (!db->passing && !db->announcing && !db->folding)
		return false;
	db->check = db->check || db->passing;
	db->resync = db->resync || db->announcing;
	if (db->folding)
		db->fold_at = Min(db->fold_at, now);
	db->passing = false;
	db->announcing = false;
	db->folding = false;
	db->failures++;
	db->retry_at = now + Min(delay, RT_RETRY_MAX_US);
	db->errors++;
	db->last_error_at = now;
	strlcpy(db->last_error, message, RT_MAX_ERROR_LENGTH);
	return true;
}

/* The worker of an entry is gone: what comes now is for the launcher. */
static void
worker_detach(int code, Datum arg)
{
	int i = DatumGetInt32(arg);
	RtDatabase *db = &shared->databases[i];

	LWLockAcquire(&locks[i + 1].lock, LW_EXCLUSIVE);
	/* an entry with a worker keeps its database */
	if (db->worker_pid == MyProcPid)
	{
		(void) rt_shared_give_back(db, "a worker ended in the middle of its work, see the log");
		db->worker_procno = -1;
		db->worker_pid = 0;
	}
	LWLockRelease(&locks[i + 1].lock);
	rt_shared_wake_launcher();
}

/*
 * Become the worker of a database.  NULL if there is no entry for it any more, or
 * another worker has it.
 */
RtDatabase *
rt_shared_worker_attach(Oid dboid, int *index)
{
	int i = rt_shared_find(dboid, false);
	RtDatabase *db;
	bool busy;

	if (i < 0 || !rt_shared_lock(i, dboid, LW_EXCLUSIVE))
		return NULL;
	db = &shared->databases[i];
	busy = db->worker_procno >= 0;
	if (!busy)
	{
		db->worker_procno = RT_MY_PROCNO;
		db->worker_pid = MyProcPid;
	}
	rt_shared_unlock(i);
	if (busy)
		return NULL;
	before_shmem_exit(worker_detach, Int32GetDatum(i));
	*index = i;
	return db;
}
