/*-------------------------------------------------------------------------
 *
 * errors.h
 *		SQLSTATEs of run_tracker.
 *
 * Class RT lies in the range that the SQL standard leaves to implementations.
 * Where a standard code fits, it is used instead.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RT_ERRORS_H
#define RT_ERRORS_H

#define ERRCODE_RT_INVALID_TRANSITION MAKE_SQLSTATE('R', 'T', '0', '0', '1')
#define ERRCODE_RT_UNKNOWN_STATUS	  MAKE_SQLSTATE('R', 'T', '0', '0', '2')
#define ERRCODE_RT_STALE_ATTEMPT	  MAKE_SQLSTATE('R', 'T', '0', '0', '3')

#endif /* RT_ERRORS_H */
