/*-------------------------------------------------------------------------
 *
 * guc.c
 *		The settings of run_tracker.
 *
 *-------------------------------------------------------------------------
 */
#include "run_tracker.h"

#include <limits.h>

#include "miscadmin.h"
#include "utils/guc.h"

int rt_identity_mode = RT_IDENTITY_JWT;
int rt_max_payload_kb = 16 * 1024;
bool rt_task_transitions = false;
bool rt_enabled = true;
int rt_notify_mode = RT_NOTIFY_WORKER;
int rt_notify_interval_ms = 200;
int rt_notify_queue_size = 2048;
int rt_max_databases = 64;
int rt_max_workers = 4;
int rt_max_sleep_s = 300;
int rt_batch_size = 500;
int rt_batch_timeout_ms = 5000;
int rt_fold_interval_ms = 10000;
int rt_callback_tolerance_s = 300;
int rt_session_timeout_s = 3600;
int rt_limit_memory_kb = 64 * 1024;
char *rt_time_zone_name;
pg_tz *rt_time_zone;

static const struct config_enum_entry identity_options[] = {
	{"jwt", RT_IDENTITY_JWT, false},
	{"role", RT_IDENTITY_ROLE, false},
	{NULL, 0, false},
};

static const struct config_enum_entry notify_options[] = {
	{"off", RT_NOTIFY_OFF, false},
	{"worker", RT_NOTIFY_WORKER, false},
	{"commit", RT_NOTIFY_COMMIT, false},
	{NULL, 0, false},
};

/* The settings of the background worker.  Some size shared memory, and can only be set there. */
static void
define_worker_settings(void)
{
	DefineCustomBoolVariable("run_tracker.enabled",
							 "Lets the background worker work in a database.",
							 "Switch it off with ALTER DATABASE where runs are replicated from "
							 "elsewhere.",
							 &rt_enabled, true, PGC_SUSET, 0, NULL, NULL, NULL);

	DefineCustomEnumVariable("run_tracker.notify",
							 "Who announces changes of runs on the channel \"run_tracker\".",
							 "\"worker\" leaves it to the background worker, which announces each "
							 "run at most once per run_tracker.notify_interval; \"commit\" announces "
							 "each run once per transaction, as part of its commit.",
							 &rt_notify_mode, RT_NOTIFY_WORKER, notify_options, PGC_SUSET, 0, NULL,
							 NULL, NULL);

	DefineCustomIntVariable("run_tracker.notify_interval",
							"Shortest time between two announcements by the background worker.",
							"Changes of a run within this time are announced together.",
							&rt_notify_interval_ms, 200, 10, 60 * 1000, PGC_SIGHUP, GUC_UNIT_MS,
							NULL, NULL, NULL);

	DefineCustomIntVariable("run_tracker.max_workers",
							"Databases that background workers may work in at the same time.",
							"Each takes one of max_worker_processes while it works, and so does the "
							"launcher.",
							&rt_max_workers, 4, 1, 64, PGC_SIGHUP, 0, NULL, NULL, NULL);

	DefineCustomIntVariable("run_tracker.max_sleep",
							"Longest time for which the background worker sleeps.",
							"It wakes up at the next deadline by itself; this bounds what a step of "
							"the clock, or rows that came in past the triggers, can cause.",
							&rt_max_sleep_s, 300, 1, 24 * 60 * 60, PGC_SIGHUP, GUC_UNIT_S, NULL,
							NULL, NULL);

	DefineCustomIntVariable("run_tracker.batch_size",
							"Runs that the background worker times out in one transaction.", NULL,
							&rt_batch_size, 500, 1, 100000, PGC_SIGHUP, 0, NULL, NULL, NULL);

	DefineCustomIntVariable("run_tracker.batch_timeout",
							"Longest time that one transaction of the background worker may take.",
							"It is cancelled then, and tried again later.", &rt_batch_timeout_ms,
							5000, 100, 10 * 60 * 1000, PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);

	DefineCustomIntVariable("run_tracker.fold_interval",
							"Time after which the background worker folds what was added to "
							"statistics.",
							"Statistics are exact at any time; the more is not folded, the slower "
							"they are read.",
							&rt_fold_interval_ms, 10 * 1000, 100, 60 * 60 * 1000, PGC_SIGHUP,
							GUC_UNIT_MS, NULL, NULL, NULL);

	if (!process_shared_preload_libraries_in_progress)
		return;

	DefineCustomIntVariable("run_tracker.max_databases",
							"Databases that the background worker can serve.",
							"Each takes some shared memory, see run_tracker.notify_queue_size.",
							&rt_max_databases, 64, 1, 10000, PGC_POSTMASTER, 0, NULL, NULL, NULL);

	DefineCustomIntVariable("run_tracker.notify_queue_size",
							"Runs per database that can wait for their announcement.",
							"If more are changed within run_tracker.notify_interval, listeners are "
							"told to read everything again. Each takes 28 bytes of shared memory.",
							&rt_notify_queue_size, 2048, 16, 1024 * 1024, PGC_POSTMASTER, 0, NULL,
							NULL, NULL);
}

/* run_tracker.time_zone must name a time zone, without leap seconds. */
static bool
check_time_zone(char **name, void **extra, GucSource source)
{
	pg_tz *tz = pg_tzset(*name);

	if (tz && pg_tz_acceptable(tz))
		return true;
	GUC_check_errdetail("There is no time zone \"%s\".", *name);
	return false;
}

/* It has been loaded for the check, so this finds it. */
static void
assign_time_zone(const char *name, void *extra)
{
	rt_time_zone = pg_tzset(name);
}

/* The settings of quotas and sessions. */
static void
define_limit_settings(void)
{
	DefineCustomStringVariable("run_tracker.time_zone",
							   "Time zone whose months and days quotas are counted by.",
							   "What has been counted stays with its day after a change.",
							   &rt_time_zone_name, "UTC", PGC_SUSET, 0, check_time_zone,
							   assign_time_zone, NULL);

	DefineCustomIntVariable("run_tracker.session_timeout",
							"Time after which a session that nobody touches is not active.", NULL,
							&rt_session_timeout_s, 3600, 1, 366 * 24 * 60 * 60, PGC_SUSET,
							GUC_UNIT_S, NULL, NULL, NULL);

	DefineCustomIntVariable("run_tracker.limit_memory",
							"Shared memory that rate limits and circuit breakers may take.",
							"A user takes about 0.7 kB per endpoint that was called within the "
							"window of its limit, a breaker 1.5 kB.",
							&rt_limit_memory_kb, 64 * 1024, 1024, MAX_KILOBYTES, PGC_SIGHUP,
							GUC_UNIT_KB, NULL, NULL, NULL);
}

/*
 * Define all settings.  The prefix is reserved last, so that a misspelt
 * setting is refused from then on.
 */
void
rt_guc_init(void)
{
	DefineCustomEnumVariable("run_tracker.identity",
							 "Where run_tracker.current_user_id() finds the user.",
							 "\"jwt\" reads the claim \"sub\" that a gateway such as PostgREST sets for "
							 "each request; \"role\" takes the name of the current role.",
							 &rt_identity_mode, RT_IDENTITY_JWT, identity_options, PGC_SUSET, 0,
							 NULL, NULL, NULL);

	DefineCustomIntVariable("run_tracker.max_payload",
							"Largest text or json value that a tracked row may hold.",
							"A row with a larger value is refused before anything is written.",
							&rt_max_payload_kb, 16 * 1024, 1, 1024 * 1024, PGC_SUSET, GUC_UNIT_KB,
							NULL, NULL, NULL);

	DefineCustomBoolVariable("run_tracker.task_transitions",
							 "Records the status changes of tasks in run_tracker.transitions, too.",
							 "Those of runs are always recorded.", &rt_task_transitions, false,
							 PGC_SUSET, 0, NULL, NULL, NULL);

	define_limit_settings();
	DefineCustomIntVariable("run_tracker.callback_tolerance",
							"How far the time of a signed callback may be from now.",
							"A callback that was signed together with a time is refused before and "
							"after.",
							&rt_callback_tolerance_s, 300, 1, 24 * 60 * 60, PGC_SUSET, GUC_UNIT_S,
							NULL, NULL, NULL);

	define_worker_settings();
	MarkGUCPrefixReserved("run_tracker");
}
