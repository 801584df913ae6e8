/*-------------------------------------------------------------------------
 *
 * usage.h
 *		What users have used of their quotas: windows, sums, reservations.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RT_USAGE_H
#define RT_USAGE_H

#include "utils/date.h"
#include "utils/snapshot.h"

#include "changes.h"
#include "catalog.h"
#include "writer.h"

/* The day and the month, in run_tracker.time_zone, of a moment. */
typedef struct RtWindows
{
	DateADT day;
	DateADT month; /* its first day */
	DateADT next_month;
	TimestampTz day_ends_at;
	TimestampTz month_ends_at;
} RtWindows;

/* What a user has used, and has reserved; costs are numeric. */
typedef struct RtUsage
{
	RtWindows windows;
	int64 month_tokens;
	int64 day_requests;
	Datum month_cost;
	int64 reserved_tokens;
	int64 reserved_requests;
	Datum reserved_cost;
	int64 deltas; /* that were not folded */
} RtUsage;

/* ---- usage.c ---- */

extern DateADT rt_usage_day(TimestampTz moment);
extern void rt_usage_windows(TimestampTz moment, RtWindows *windows);
extern void rt_usage_read(Datum user_id, Snapshot snapshot, RtUsage *usage);

/* What the tasks that a statement retries have used before. */
typedef struct RtRetries
{
	bool open;
	RtWriter writer;
} RtRetries;

extern void rt_retries_note(RtRetries *retries, const RtChanges *changes, const RtTable *t);
extern void rt_retries_end(RtRetries *retries);

/* ---- reservations.c ---- */

/* The reservations that the tasks of a statement settle or release. */
typedef struct RtSettlements RtSettlements;

extern void rt_reservation_check(Datum reservation_id, Datum user_id);
extern void rt_settlements_note(RtSettlements **settlements, const RtChanges *changes,
								const RtTable *t);
extern void rt_settlements_apply(RtSettlements *settlements);
extern void rt_reservations_expire(TimestampTz now, int max);
extern TimestampTz rt_reservations_next(void);

#endif /* RT_USAGE_H */
