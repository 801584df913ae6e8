/*-------------------------------------------------------------------------
 *
 * callbacks.h
 *		Keys of callbacks, as the callbacks see them.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RT_CALLBACKS_H
#define RT_CALLBACKS_H

#include "run_tracker.h"

#define RT_SHA256_LENGTH 32

/* What a callback shows to be believed; NULL: nothing. */
typedef struct RtCredentials
{
	const char *payload; /* the bytes that were signed, in UTF-8 */
	size_t length;
	const char *signature; /* HMAC-SHA-256, hexadecimal, with or without "sha256=" */
	const char *signed_at; /* seconds since 1970, part of what was signed */
	const char *secret;
} RtCredentials;

/* The key that fits; all palloc'd. */
typedef struct RtCallbackKey
{
	pg_uuid_t key_id;
	char *name;
	char *for_kind; /* NULL: for runs of any kind */
} RtCallbackKey;

extern bool rt_callback_verify(const RtCredentials *given, RtCallbackKey *key);
extern void rt_callback_digest(const void *data, size_t length, uint8 *digest);

#endif /* RT_CALLBACKS_H */
