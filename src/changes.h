/*-------------------------------------------------------------------------
 *
 * changes.h
 *		The rows that a statement has written, one after another.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RT_CHANGES_H
#define RT_CHANGES_H

#include "commands/trigger.h"
#include "executor/tuptable.h"

/* A change of a row: old is NULL for an INSERT, new for a DELETE. */
typedef struct RtChanges
{
	TupleTableSlot *old;
	TupleTableSlot *new;

	/* private */
	TriggerData *trigdata;
	TupleTableSlot *slots[2];
} RtChanges;

extern void rt_changes_begin(RtChanges *changes, TriggerData *trigdata);
extern bool rt_changes_next(RtChanges *changes);
extern void rt_changes_end(RtChanges *changes);
extern bool rt_changes_differ(const RtChanges *changes, AttrNumber att);

#endif /* RT_CHANGES_H */
