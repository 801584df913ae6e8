/*-------------------------------------------------------------------------
 *
 * merge_patch.h
 *		JSON Merge Patch (RFC 7396).
 *
 *-------------------------------------------------------------------------
 */
#ifndef RT_MERGE_PATCH_H
#define RT_MERGE_PATCH_H

#include "utils/jsonb.h"

/* A JSON value that patches are merged into, one after another. */
typedef struct RtPatched RtPatched;

extern RtPatched *rt_patched_begin(const Jsonb *target);
extern void rt_patched_merge(RtPatched *patched, Jsonb *patch);
extern Jsonb *rt_patched_result(RtPatched *patched);

#endif /* RT_MERGE_PATCH_H */
