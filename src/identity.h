/*-------------------------------------------------------------------------
 *
 * identity.h
 *		Who is calling.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RT_IDENTITY_H
#define RT_IDENTITY_H

/* who causes what the background worker does; NULL in other processes */
extern const char *rt_background_actor;

extern char *rt_identity_user(void);
extern bool rt_identity_is_service(void);
extern bool rt_identity_is(Datum user_id, const char *user);
extern bool rt_identity_owns(Datum user_id);
extern char *rt_identity_actor(void);

#endif /* RT_IDENTITY_H */
