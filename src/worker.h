/*-------------------------------------------------------------------------
 *
 * worker.h
 *		The background worker: a launcher, and a short-lived process per database.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RT_WORKER_H
#define RT_WORKER_H

#include "run_tracker.h"

#include "postmaster/bgworker.h"

/* a worker is started this much before a deadline, since starting takes a while */
#define RT_START_LEAD_US (25 * INT64CONST(1000))

/* and stays for what comes within this time, up to that much in all */
#define RT_LINGER_US   (500 * INT64CONST(1000))
#define RT_LIFETIME_US (2000 * INT64CONST(1000))

extern void rt_launcher_register(void);
extern void rt_worker_describe(BackgroundWorker *worker, const char *function, const char *type);
extern long rt_sleep_ms(TimestampTz now, TimestampTz until);

extern PGDLLEXPORT void run_tracker_launcher_main(Datum arg);
extern PGDLLEXPORT void run_tracker_worker_main(Datum arg);

#endif /* RT_WORKER_H */
