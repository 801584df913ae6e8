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
#define ERRCODE_RT_QUOTA_EXCEEDED	  MAKE_SQLSTATE('R', 'T', '0', '0', '4')
#define ERRCODE_RT_RATE_LIMIT		  MAKE_SQLSTATE('R', 'T', '0', '0', '5')
#define ERRCODE_RT_CIRCUIT_OPEN		  MAKE_SQLSTATE('R', 'T', '0', '0', '6')
#define ERRCODE_RT_VERSION_CONFLICT	  MAKE_SQLSTATE('R', 'T', '0', '0', '7')
#define ERRCODE_RT_BAD_SIGNATURE	  MAKE_SQLSTATE('R', 'T', '0', '0', '8')

#endif /* RT_ERRORS_H */
