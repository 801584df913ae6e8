/*-------------------------------------------------------------------------
 *
 * claims.h
 *		Work that is handed out, and tried again.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RT_CLAIMS_H
#define RT_CLAIMS_H

#include "run_tracker.h"

#include "runs.h"

extern TimestampTz rt_retry_at(const RtRun *run, TimestampTz now);

#endif /* RT_CLAIMS_H */
