/*-------------------------------------------------------------------------
 *
 * window.h
 *		Sums over a sliding window of time.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RT_WINDOW_H
#define RT_WINDOW_H

#include "datatype/timestamp.h"

/* a window is cut into so many slices */
#define RT_WINDOW_SLICES 60

/* Windows are at least this long, and at most (200 years). */
#define RT_WINDOW_MIN_US INT64CONST(1)
#define RT_WINDOW_MAX_US (INT64CONST(200) * 366 * USECS_PER_DAY)

/* All zero: nothing was ever added. */
typedef struct RtWindow
{
	int64 slice_us; /* length of a slice */
	int64 head;		/* number of the newest slice: counted from the beginning of the clock */
	int64 sum;		/* of counts */
	int64 counts[RT_WINDOW_SLICES + 1]; /* of slice n: at n modulo their number */
} RtWindow;

extern int64 rt_window_now(void);
extern void rt_window_advance(RtWindow *window, int64 length_us, int64 now);
extern void rt_window_add(RtWindow *window, int64 count);
extern bool rt_window_idle(const RtWindow *window, int64 now);
extern int64 rt_window_free_at(const RtWindow *window, int64 amount);
extern int64 rt_interval_us(const Interval *interval);

#endif /* RT_WINDOW_H */
