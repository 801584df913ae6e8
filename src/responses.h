/*-------------------------------------------------------------------------
 *
 * responses.h
 *		Responses that arrive in pieces, as the triggers of tasks see them.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RT_RESPONSES_H
#define RT_RESPONSES_H

#include "row.h"

extern void rt_response_complete(RtRow *row);
extern void rt_responses_forget(TriggerData *trigdata, const RtTable *tasks);

#endif /* RT_RESPONSES_H */
