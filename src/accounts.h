/*-------------------------------------------------------------------------
 *
 * accounts.h
 *		Accounts, their tiers, and what these allow.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RT_ACCOUNTS_H
#define RT_ACCOUNTS_H

#include "fmgr.h"
#include "utils/jsonb.h"

/* What a user may do. */
typedef struct RtLimits
{
	const char *tier;
	int64 monthly_tokens; /* these: -1 is no limit */
	int64 daily_requests;
	int64 concurrent_sessions;
	Datum monthly_cost;	   /* numeric; 0: no limit */
	Jsonb *rate_limits;	   /* of the tier, or NULL */
	Jsonb *rate_overrides; /* of the account, or NULL */
} RtLimits;

/* How often something may be done. */
typedef struct RtRate
{
	int64 limit;
	int64 window_us;
} RtRate;

extern void rt_limits_read(Datum user_id, RtLimits *limits);
extern bool rt_limits_rate(const RtLimits *limits, const char *endpoint, int len, RtRate *rate,
						   bool *shared);
extern void rt_limits_lock(Datum user_id);
extern Datum rt_limits_user(FunctionCallInfo fcinfo, int arg);

#endif /* RT_ACCOUNTS_H */
