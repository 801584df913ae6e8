/*-------------------------------------------------------------------------
 *
 * conversation.h
 *		A conversation as one JSON array.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RT_CONVERSATION_H
#define RT_CONVERSATION_H

#include "postgres.h"

extern Datum rt_conversation_read(const NullableDatum *run_id);

#endif /* RT_CONVERSATION_H */
