/*-------------------------------------------------------------------------
 *
 * totals.h
 *		Totals of runs: deltas, and the fold of a statement's rows into them.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RT_TOTALS_H
#define RT_TOTALS_H

#include "catalog.h"
#include "changes.h"

/* The counters of run_totals that are plain sums, in the order of RtCounter. */
typedef enum RtCounter
{
	RT_COUNT_TASKS,
	RT_COUNT_FAILED_TASKS,
	RT_COUNT_OPEN_TASKS,
	RT_COUNT_INPUT_TOKENS,
	RT_COUNT_OUTPUT_TOKENS,
	RT_COUNT_TOTAL_TOKENS,
	RT_COUNT_MESSAGES,
	RT_COUNT_ERRORS,
	RT_COUNT_RETRIEVALS,
	RT_COUNT_ARTIFACTS,
	RT_NCOUNTERS
} RtCounter;

/* What a statement changes in the totals of one run. */
typedef struct RtDelta
{
	pg_uuid_t run_id; /* key, must be first */
	int64 counts[RT_NCOUNTERS];
	Datum cost;					 /* numeric, or 0 for none */
	TimestampTz last_message_at; /* DT_NOBEGIN: no change */
} RtDelta;

extern void rt_totals_init(void);
extern void rt_totals_create(const pg_uuid_t *run_ids, const Datum *user_ids, int n);
extern void rt_totals_apply(RtDelta **deltas, int n);

/* fold.c */
typedef struct RtFold RtFold;

/* Adds what one row contributes to the totals of its run, sign times. */
typedef void (*RtContribution)(RtDelta *delta, TupleTableSlot *row, const RtTable *table, int sign);

extern RtFold *rt_fold_begin(void);
extern void rt_fold_row(RtFold *fold, TupleTableSlot *row, const RtTable *table,
						AttrNumber run_id_att, RtContribution contribution, int sign);
extern void rt_fold_change(RtFold *fold, const RtChanges *changes, const RtTable *table,
						   AttrNumber run_id_att, RtContribution contribution);
extern int rt_fold_deltas(RtFold *fold, RtDelta ***deltas);
extern void rt_fold_end(RtFold *fold);
extern void rt_fold_statement(TriggerData *trigdata, const RtTable *table, AttrNumber run_id_att,
							  RtContribution contribution);
extern void rt_delta_count(RtDelta *delta, RtCounter counter, int64 amount);
extern void rt_delta_cost(RtDelta *delta, Datum cost, int sign);
extern int rt_uuid_compare(const void *a, const void *b);

#endif /* RT_TOTALS_H */
