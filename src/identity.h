/*-------------------------------------------------------------------------
 *
 * identity.h
 *		Who is calling.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RT_IDENTITY_H
#define RT_IDENTITY_H

/* who causes what the background worker or a callback does; NULL otherwise */
extern const char *rt_background_actor;

extern char *rt_identity_user(void);
extern bool rt_identity_is_service(void);
extern bool rt_identity_is(Datum user_id, const char *user);
extern bool rt_identity_owns(Datum user_id);
extern char *rt_identity_actor(void);
extern char *rt_identity_field(const char *claims, const char *field);

#endif /* RT_IDENTITY_H */
