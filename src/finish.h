/*-------------------------------------------------------------------------
 *
 * finish.h
 *		Functions of the user's that are called when a run finishes.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RT_FINISH_H
#define RT_FINISH_H

#include "runs.h"

extern void rt_finish_call(const RtRun *runs, int n);

#endif /* RT_FINISH_H */
