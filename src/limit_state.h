/*-------------------------------------------------------------------------
 *
 * limit_state.h
 *		What all connections of the server share about rate limits and circuit breakers.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RT_LIMIT_STATE_H
#define RT_LIMIT_STATE_H

#include "nodes/pg_list.h"
#include "storage/lwlock.h"
#include "utils/dsa.h"

#include "window.h"

#define RT_MAX_LIMIT_ERROR 256 /* bytes that are kept of an error */

typedef enum RtLimitKind
{
	RT_LIMIT_RATE,	 /* what a user (the owner) has used of an endpoint (the name) */
	RT_LIMIT_BREAKER /* a circuit breaker: the owner is its name */
} RtLimitKind;

#define RT_NLIMIT_KINDS (RT_LIMIT_BREAKER + 1)

typedef struct RtLimitKey
{
	RtLimitKind kind;
	const char *owner;
	Size owner_len;
	const char *name;
	Size name_len;
} RtLimitKey;

typedef struct RtRateUse
{
	RtWindow used;
	int64 limit; /* in force at the last call */
	int64 window_us;
} RtRateUse;

typedef enum RtBreakerState
{
	RT_BREAKER_CLOSED,
	RT_BREAKER_OPEN,
	RT_BREAKER_HALF_OPEN
} RtBreakerState;

typedef struct RtBreaker
{
	RtBreakerState state;
	RtWindow calls; /* those recorded while it was closed */
	RtWindow failures;
	int64 since;			   /* it opened, or let the probe through; of the monotonic clock */
	TimestampTz opened_at;	   /* 0: never */
	TimestampTz last_error_at; /* 0: never */
	char last_error[RT_MAX_LIMIT_ERROR + 1];
} RtBreaker;

/* Zero, when it is made, from the body on. */
typedef struct RtLimitEntry
{
	dsa_pointer next; /* in its bucket */
	RtLimitKind kind;
	Oid dboid;
	Size owner_len;
	Size name_len;
	union
	{
		RtRateUse rate;
		RtBreaker breaker;
	} body;
	/* owner and name follow the member of body that kind tells */
} RtLimitEntry;

extern Size rt_limit_shmem_size(void);
extern RtLimitEntry *rt_limit_enter(const RtLimitKey *key, LWLockMode mode);
extern RtLimitEntry *rt_limit_create(const RtLimitKey *key, int max_names);
extern void rt_limit_leave(void);
extern int64 rt_limit_remove(const RtLimitKey *key, bool all_names);
extern int rt_limit_partitions(const RtLimitKey *key, int *first);
extern List *rt_limit_list(RtLimitKind kind, int partition, const RtLimitKey *key);
extern const char *rt_limit_owner(const RtLimitEntry *entry);
extern const char *rt_limit_name(const RtLimitEntry *entry);

#endif /* RT_LIMIT_STATE_H */
