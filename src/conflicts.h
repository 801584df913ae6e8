/*-------------------------------------------------------------------------
 *
 * conflicts.h
 *		INSERT ... ON CONFLICT into views of applications.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RT_CONFLICTS_H
#define RT_CONFLICTS_H

extern void rt_conflicts_init(void);

#endif /* RT_CONFLICTS_H */
