/*-------------------------------------------------------------------------
 *
 * fold.c
 *		Fold the rows that a statement wrote into one delta per run.
 *
 * An AFTER STATEMENT trigger hands over the transition tables.  Old rows count
 * -1, new rows +1, each for its own run: so moves between runs, corrections and
 * no-op updates need no case of their own.
 *
 * Memory: a context under the current one, deleted by rt_fold_end().
 *
 *-------------------------------------------------------------------------
 */
#include "run_tracker.h"

#include "common/int.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "utils/fmgrprotos.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"

#include "notes.h"
#include "open_runs.h"
#include "totals.h"

struct RtFold
{
	MemoryContext context;
	HTAB *deltas;
	RtDelta *last; /* rows of one run mostly come together */
};

/* Begin a fold; the caller ends it with rt_fold_end(). */
RtFold *
rt_fold_begin(void)
{
	MemoryContext context =
		AllocSetContextCreate(CurrentMemoryContext, "run_tracker fold", ALLOCSET_SMALL_SIZES);
	RtFold *fold = MemoryContextAllocZero(context, sizeof(RtFold));
	HASHCTL ctl = {0};

	ctl.keysize = sizeof(pg_uuid_t);
	ctl.entrysize = sizeof(RtDelta);
	ctl.hcxt = context;
	fold->context = context;
	fold->deltas =
		hash_create("run_tracker deltas", 16, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	return fold;
}

/* The delta of a run, made when it is not there. */
static RtDelta *
fold_delta(RtFold *fold, const pg_uuid_t *run_id)
{
	bool found;

	if (fold->last && memcmp(&fold->last->run_id, run_id, sizeof(pg_uuid_t)) == 0)
		return fold->last;

	fold->last = hash_search(fold->deltas, run_id, HASH_ENTER, &found);
	if (!found)
	{
		memset(fold->last->counts, 0, sizeof(fold->last->counts));
		fold->last->cost = (Datum) 0;
		fold->last->last_message_at = DT_NOBEGIN;
	}
	return fold->last;
}

/* Add what a row counts, sign times; contribution says what that is. */
void
rt_fold_row(RtFold *fold, TupleTableSlot *row, const RtTable *table, AttrNumber run_id_att,
			RtContribution contribution, int sign)
{
	bool isnull;
	Datum run_id = slot_getattr(row, run_id_att, &isnull);
	MemoryContext old = MemoryContextSwitchTo(fold->context);

	contribution(fold_delta(fold, DatumGetUUIDP(run_id)), row, table, sign);
	MemoryContextSwitchTo(old);
}

/* Add a change: the old row counts -1, the new one +1. */
void
rt_fold_change(RtFold *fold, const RtChanges *changes, const RtTable *table, AttrNumber run_id_att,
			   RtContribution contribution)
{
	if (changes->old)
		rt_fold_row(fold, changes->old, table, run_id_att, contribution, -1);
	if (changes->new)
		rt_fold_row(fold, changes->new, table, run_id_att, contribution, 1);
}

/* Compare two uuids, or two pointers to structs that begin with one. */
int
rt_uuid_compare(const void *a, const void *b)
{
	return memcmp(a, b, sizeof(pg_uuid_t));
}

static int
compare_deltas(const void *a, const void *b)
{
	return rt_uuid_compare(*(RtDelta *const *) a, *(RtDelta *const *) b);
}

/* All deltas, ordered by run; they live until rt_fold_end(). */
int
rt_fold_deltas(RtFold *fold, RtDelta ***deltas)
{
	int n = 0;
	HASH_SEQ_STATUS status;
	RtDelta *delta;

	*deltas = MemoryContextAlloc(fold->context,
								 sizeof(RtDelta *) * Max(hash_get_num_entries(fold->deltas), 1));
	hash_seq_init(&status, fold->deltas);
	while ((delta = hash_seq_search(&status)) != NULL)
		(*deltas)[n++] = delta;
	qsort(*deltas, n, sizeof(RtDelta *), compare_deltas);
	return n;
}

/* Free what belongs to a fold. */
void
rt_fold_end(RtFold *fold)
{
	MemoryContextDelete(fold->context);
}

/*
 * The whole work of a statement trigger: fold its transition tables, apply the
 * deltas to the totals, and mark the runs as alive.
 */
void
rt_fold_statement(TriggerData *trigdata, const RtTable *table, AttrNumber run_id_att,
				  RtContribution contribution)
{
	RtFold *fold = rt_fold_begin();
	RtChanges changes;
	RtDelta **deltas;
	int n;

	rt_changes_begin(&changes, trigdata);
	while (rt_changes_next(&changes))
		rt_fold_change(fold, &changes, table, run_id_att, contribution);
	rt_changes_end(&changes);

	n = rt_fold_deltas(fold, &deltas);
	rt_totals_apply(deltas, n);
	if (trigdata->tg_newtable)
		rt_open_runs_touch(deltas, n);
	for (int i = 0; i < n; i++)
		rt_note_run(&deltas[i]->run_id);
	rt_fold_end(fold);
}

/* Count an amount; 22003 when the sum leaves the range of bigint. */
void
rt_delta_count(RtDelta *delta, RtCounter counter, int64 amount)
{
	if (pg_add_s64_overflow(delta->counts[counter], amount, &delta->counts[counter]))
		ereport(ERROR, (errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
						errmsg("totals of run %s are out of range",
							   rt_uuid_string(UUIDPGetDatum(&delta->run_id)))));
}

/* Add a cost, sign times. */
void
rt_delta_cost(RtDelta *delta, Datum cost, int sign)
{
	Datum sum;

	if (delta->cost == (Datum) 0)
		delta->cost = DirectFunctionCall1(int8_numeric, Int64GetDatum(0));
	sum = DirectFunctionCall2(sign > 0 ? numeric_add : numeric_sub, delta->cost, cost);
	pfree(DatumGetPointer(delta->cost));
	delta->cost = sum;
}
