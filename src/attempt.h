/*-------------------------------------------------------------------------
 *
 * attempt.h
 *		A step that may fail without taking the transaction with it.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RT_ATTEMPT_H
#define RT_ATTEMPT_H

typedef void (*RtStep)(void *arg1, void *arg2);

extern ErrorData *rt_attempt(RtStep step, void *arg1, void *arg2, int limit_ms);

#endif /* RT_ATTEMPT_H */
