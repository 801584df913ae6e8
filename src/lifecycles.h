/*-------------------------------------------------------------------------
 *
 * lifecycles.h
 *		State machines, compiled for quick checks.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RT_LIFECYCLES_H
#define RT_LIFECYCLES_H

#include "datatype/timestamp.h"
#include "utils/jsonb.h"

#define RT_MAX_STATES 64

typedef struct RtState
{
	char *name;
	int name_len;
	RtPhase phase;
	uint64 next; /* bit i: state i may follow */
	int nnext;
	uint8 next_order[RT_MAX_STATES]; /* the same, in the order of the definition */
	bool has_timeout;				 /* own or inherited; open states only */
	bool never;						 /* "timeout": null, also for a run with one of its own */
	Interval timeout;
} RtState;

typedef struct RtLifecycle
{
	char *name;
	int name_len;
	int nstates;
	int initial;
	bool can_time_out;	/* some state ends a run without success */
	int32 max_attempts; /* default of runs */
	bool has_retry_base;
	bool has_retry_cap;
	Interval retry_base; /* defaults of the delay before a retry */
	Interval retry_cap;
	RtState *states;
} RtLifecycle;

/* lifecycle_compile.c */
extern RtLifecycle *rt_lifecycle_compile(const char *name, Jsonb *definition);
extern int rt_lifecycle_find_state(const RtLifecycle *lifecycle, const char *name, int len);

/* lifecycles.c */
extern const RtLifecycle *rt_lifecycle_get(Datum name);
extern const RtLifecycle *rt_lifecycle_find(const char *name, int len);
extern int rt_lifecycle_state(const RtLifecycle *lifecycle, Datum status);
extern int rt_lifecycle_state_required(const RtLifecycle *lifecycle, Datum status);
extern int rt_lifecycle_first(const RtLifecycle *lifecycle, RtPhase phase);
extern int rt_lifecycle_next(const RtLifecycle *lifecycle, int from, RtPhase phase);
extern int rt_lifecycle_closing(const RtLifecycle *lifecycle, int from, RtPhase phase);
extern bool rt_lifecycle_allows(const RtLifecycle *lifecycle, int from, int to);
extern void rt_lifecycle_refuse(const RtLifecycle *lifecycle, int from, const char *to,
								const char *table);

#endif /* RT_LIFECYCLES_H */
