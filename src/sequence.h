/*-------------------------------------------------------------------------
 *
 * sequence.h
 *		Numbers of messages, logs and transitions within their run.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RT_SEQUENCE_H
#define RT_SEQUENCE_H

#include "utils/rel.h"

extern void rt_sequence_init(void);
extern int64 rt_sequence_next(Relation rel, AttrNumber seq_att, Datum run_id);
extern void rt_sequence_release(void);

#endif /* RT_SEQUENCE_H */
