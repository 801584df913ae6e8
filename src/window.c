/*-------------------------------------------------------------------------
 *
 * window.c
 *		Sums over a sliding window of time.
 *
 * The window is cut into slices, and a ring holds a count for each.  A slice counts until
 * all of it lies outside of the window: nothing falls out too early, and nothing later than
 * the length of a slice.  So there is one slice more than fit into the window: the oldest is
 * partly outside, as the newest is partly in the future.
 *
 * Time is that of a monotonic clock, which is the same in all processes and begins with the
 * machine: steps of the wall clock change nothing here.
 *
 * Memory: the caller's.  Locks: the caller's; nothing here can fail.
 *
 *-------------------------------------------------------------------------
 */
#include "run_tracker.h"

#include "common/int.h"
#include "portability/instr_time.h"

#include "window.h"

#define CELL(n) ((n) % (RT_WINDOW_SLICES + 1))

/* The time on the monotonic clock, in microseconds. */
int64
rt_window_now(void)
{
	instr_time now;

	INSTR_TIME_SET_CURRENT(now);
	return (int64) INSTR_TIME_GET_MICROSEC(now);
}

/*
 * Cut a window into slices of another length.  Of a count it is only known in which slice it
 * was made: it is taken for as young as that allows.  What has fallen out already does not
 * come back when a window becomes longer.
 */
static void
rescale(RtWindow *window, int64 slice_us, int64 now)
{
	RtWindow old = *window;

	memset(window, 0, sizeof(RtWindow));
	window->slice_us = slice_us;
	window->head = now / slice_us;
	if (old.sum == 0)
		return;
	for (int64 n = Max(old.head - RT_WINDOW_SLICES, 0); n <= old.head; n++)
	{
		int64 slice = Min((n + 1) * old.slice_us - 1, now) / slice_us;

		if (slice >= window->head - RT_WINDOW_SLICES)
		{
			window->counts[CELL(slice)] += old.counts[CELL(n)];
			window->sum += old.counts[CELL(n)];
		}
	}
}

/* Drop what has fallen out of a window of this length by now. */
void
rt_window_advance(RtWindow *window, int64 length_us, int64 now)
{
	int64 slice_us = (length_us + RT_WINDOW_SLICES - 1) / RT_WINDOW_SLICES;
	int64 head = now / slice_us;

	if (window->slice_us != slice_us)
		rescale(window, slice_us, now);
	else if (head - window->head > RT_WINDOW_SLICES)
	{
		memset(window->counts, 0, sizeof(window->counts));
		window->sum = 0;
		window->head = head;
	}
	while (window->head < head)
	{
		int64 *count = &window->counts[CELL(++window->head)];

		window->sum -= *count;
		*count = 0;
	}
}

/* Count something that happens now: at the time that the window was advanced to. */
void
rt_window_add(RtWindow *window, int64 count)
{
	window->counts[CELL(window->head)] += count;
	window->sum += count;
}

/* Is there nothing in the window? */
bool
rt_window_idle(const RtWindow *window, int64 now)
{
	return window->sum == 0 || now / window->slice_us - window->head > RT_WINDOW_SLICES;
}

/*
 * When at least this amount, which is positive and not more than the sum, will have fallen
 * out.
 */
int64
rt_window_free_at(const RtWindow *window, int64 amount)
{
	int64 n = window->head - RT_WINDOW_SLICES;

	/* the clock may have begun within the window */
	for (n = Max(n, 0); n < window->head; n++)
	{
		amount -= window->counts[CELL(n)];
		if (amount <= 0)
			break;
	}
	return (n + RT_WINDOW_SLICES + 1) * window->slice_us;
}

/*
 * An interval as microseconds, of 30 days a month; the shortest or longest window if it is out
 * of their bounds.
 */
int64
rt_interval_us(const Interval *interval)
{
	int64 days = (int64) interval->month * DAYS_PER_MONTH + interval->day;
	int64 us;

	if (pg_mul_s64_overflow(days, USECS_PER_DAY, &us))
		us = days < 0 ? PG_INT64_MIN : PG_INT64_MAX;
	else if (pg_add_s64_overflow(us, interval->time, &us))
		us = interval->time < 0 ? PG_INT64_MIN : PG_INT64_MAX;
	return Max(Min(us, RT_WINDOW_MAX_US), RT_WINDOW_MIN_US);
}
