/*-------------------------------------------------------------------------
 *
 * responses.h
 *		Responses that arrive in pieces, as the triggers of tasks see them.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RT_RESPONSES_H
#define RT_RESPONSES_H

#include "changes.h"
#include "row.h"

extern void rt_response_complete(RtRow *row);

/* Responses whose pieces are to be deleted; NULL if there are none. */
typedef struct RtResponses RtResponses;

extern void rt_responses_note(RtResponses **responses, const RtChanges *changes, const RtTable *t);
extern void rt_responses_forget(const RtResponses *responses);

#endif /* RT_RESPONSES_H */
