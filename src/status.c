/*-------------------------------------------------------------------------
 *
 * status.c
 *		What a change of status means for a row of runs or tasks.
 *
 * INSERT states facts: a service may insert a row that is finished already, with
 * its timestamps.  UPDATE makes events: the lifecycle must allow the transition,
 * and phase, attempt, timestamps and durations follow from it; what a statement
 * assigns to them is ignored.  Times are those of the wall clock: a run that lives
 * in one long transaction has a duration, too.
 *
 *-------------------------------------------------------------------------
 */
#include "run_tracker.h"

#include "utils/builtins.h"

#include "row.h"

/* Refuse a moment that is none: durations could not be computed. */
static void
check_moment(const RtRow *row, AttrNumber att)
{
	if (!rt_row_isnull(row, att) && TIMESTAMP_NOT_FINITE(DatumGetTimestampTz(rt_row_get(row, att))))
		rt_row_violation(row, att, "It must be a finite timestamp.");
}

/* Set the columns that are derived from the timestamps of a finished row. */
static void
set_duration(RtRow *row, const RtStatusColumns *c)
{
	AttrNumber from = rt_row_isnull(row, c->started_at) ? c->created_at : c->started_at;

	rt_row_set(row, c->duration_ms,
			   Int64GetDatum(rt_elapsed_ms(DatumGetTimestampTz(rt_row_get(row, from)),
										   DatumGetTimestampTz(rt_row_get(row, c->finished_at)))));
}

/*
 * Fill in a new row.  Returns its phase.  Only services may insert another status
 * than the initial one, and values of the columns that the tracker computes.
 */
RtPhase
rt_status_insert(RtRow *row, const RtStatusColumns *c, const char *default_lifecycle, bool service)
{
	const RtLifecycle *lifecycle;
	Datum now = TimestampTzGetDatum(GetCurrentTimestamp());
	RtPhase phase;
	int state;

	if (rt_row_isnull(row, c->lifecycle))
		rt_row_set(row, c->lifecycle, CStringGetTextDatum(default_lifecycle));
	lifecycle = rt_lifecycle_get(rt_row_get(row, c->lifecycle));

	if (rt_row_isnull(row, c->status))
	{
		state = lifecycle->initial;
		rt_row_set(row, c->status, CStringGetTextDatum(lifecycle->states[state].name));
	}
	else
		state = rt_lifecycle_state_required(lifecycle, rt_row_get(row, c->status));
	phase = lifecycle->states[state].phase;

	if (!service)
	{
		if (state != lifecycle->initial)
			ereport(ERROR,
					(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
					 errmsg("a new row must have the initial status"),
					 errdetail("Status \"%s\" is not the initial status \"%s\" of lifecycle "
							   "\"%s\".",
							   lifecycle->states[state].name,
							   lifecycle->states[lifecycle->initial].name, lifecycle->name),
					 errhint("Insert the row without a status, then update it. Services may insert "
							 "any status."),
					 errtablecol(row->rel, c->status)));
		rt_row_set_null(row, c->attempt);
		rt_row_set_null(row, c->created_at);
		rt_row_set_null(row, c->started_at);
		rt_row_set_null(row, c->finished_at);
		rt_row_set_null(row, c->updated_at);
	}
	check_moment(row, c->created_at);
	check_moment(row, c->started_at);
	check_moment(row, c->finished_at);
	check_moment(row, c->updated_at);

	rt_row_set(row, c->phase, rt_phase_datum(phase));
	rt_row_default(row, c->attempt, Int32GetDatum(1));
	if (DatumGetInt32(rt_row_get(row, c->attempt)) < 1)
		rt_row_violation(row, c->attempt, "Attempts are counted from 1.");
	rt_row_default(row, c->created_at, now);
	rt_row_default(row, c->updated_at, now);
	if (phase == RT_ACTIVE)
		rt_row_default(row, c->started_at, now);
	if (RT_PHASE_IS_OPEN(phase))
	{
		rt_row_set_null(row, c->finished_at);
		rt_row_set_null(row, c->duration_ms);
	}
	else
	{
		rt_row_default(row, c->finished_at, now);
		if (rt_row_isnull(row, c->duration_ms) || !service)
			set_duration(row, c);
		else if (DatumGetInt64(rt_row_get(row, c->duration_ms)) < 0)
			rt_row_violation(row, c->duration_ms, "A duration cannot be negative.");
	}
	return phase;
}

/* Clear what the last attempt left, unless the statement itself sets it anew. */
static void
clear_attempt(RtRow *row, AttrNumber att)
{
	if (!rt_row_differs(row, att))
		rt_row_set_null(row, att);
}

/*
 * Check the transition that an UPDATE makes, and fill in what follows from it.  forced
 * if it is the tracker itself that ends the row: then it need not be listed.
 */
RtMove
rt_status_update(RtRow *row, const RtStatusColumns *c, const char *table, bool forced)
{
	const RtLifecycle *lifecycle;
	Datum now;
	RtPhase phase;
	RtMove move;
	int from;
	int to;

	rt_row_require(row, c->status);
	if (rt_row_differs(row, c->lifecycle))
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("the lifecycle of a %s cannot be changed", table),
						errtablecol(row->rel, c->lifecycle)));

	rt_row_keep(row, c->phase);
	rt_row_keep(row, c->attempt);
	rt_row_keep(row, c->created_at);
	rt_row_keep(row, c->started_at);
	rt_row_keep(row, c->finished_at);
	rt_row_keep(row, c->duration_ms);

	if (!rt_row_differs(row, c->status))
	{
		rt_row_keep(row, c->updated_at);
		if (!rt_row_unchanged(row))
			rt_row_set(row, c->updated_at, TimestampTzGetDatum(GetCurrentTimestamp()));
		return RT_MOVE_NONE;
	}

	lifecycle = rt_lifecycle_get(rt_row_get(row, c->lifecycle));
	from = rt_lifecycle_state_required(lifecycle, row->old_values[c->status - 1]);
	to = rt_lifecycle_state_required(lifecycle, rt_row_get(row, c->status));
	if (!rt_lifecycle_allows(lifecycle, from, to) && !forced)
		rt_lifecycle_refuse(lifecycle, from, lifecycle->states[to].name, table);

	now = TimestampTzGetDatum(GetCurrentTimestamp());
	phase = lifecycle->states[to].phase;
	rt_row_set(row, c->phase, rt_phase_datum(phase));
	rt_row_set(row, c->updated_at, now);

	if (RT_PHASE_IS_OPEN(phase))
	{
		move = RT_MOVE_OPEN;
		if (!RT_PHASE_IS_OPEN(lifecycle->states[from].phase))
		{
			int32 attempt = DatumGetInt32(rt_row_get(row, c->attempt));

			move = RT_MOVE_RETRY;
			if (attempt == PG_INT32_MAX)
				ereport(ERROR, (errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
								errmsg("attempt out of range")));
			rt_row_set(row, c->attempt, Int32GetDatum(attempt + 1));
			clear_attempt(row, c->result);
			clear_attempt(row, c->error);
			clear_attempt(row, c->error_detail);
			rt_row_set_null(row, c->started_at);
			rt_row_set_null(row, c->finished_at);
			rt_row_set_null(row, c->duration_ms);
		}
		if (phase == RT_QUEUED)
			rt_row_set_null(row, c->started_at);
		else if (phase == RT_ACTIVE)
			rt_row_default(row, c->started_at, now);
	}
	else
	{
		move = RT_PHASE_IS_OPEN(lifecycle->states[from].phase) ? RT_MOVE_FINISH : RT_MOVE_LATE;
		if (move == RT_MOVE_LATE)
		{
			/* why it ended the first time is in the history */
			clear_attempt(row, c->error);
			clear_attempt(row, c->error_detail);
		}
		rt_row_set(row, c->finished_at, now);
		set_duration(row, c);
	}
	return move;
}
