/*-------------------------------------------------------------------------
 *
 * sessions.h
 *		Sessions, as their deltas see them.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RT_SESSIONS_H
#define RT_SESSIONS_H

#include "catalog.h"

/* bytes of deltas that are read without a snapshot, however small the state is */
#define RT_SNAPSHOT_SLACK 8192

extern void rt_session_not_found(Datum session_id);
extern void rt_session_refuse_closed(Datum session_id);
extern void rt_session_advance(RtProbe *probe, int64 version, int64 snapshot_after,
							   TimestampTz moment);

#endif /* RT_SESSIONS_H */
