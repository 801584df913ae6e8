/*-------------------------------------------------------------------------
 *
 * changes.c
 *		The rows that a statement has written, one after another: its transition tables.
 *
 * For an UPDATE, both tables got their rows in the same order, so that an old row and the
 * new one that replaced it come together.
 *
 * The tuplestores are shared by all triggers of the statement: each is read with a read
 * pointer of our own, and never freed.  They may be on disk: whatever needs the rows should
 * look at them in one turn.
 *
 *-------------------------------------------------------------------------
 */
#include "run_tracker.h"

#include "executor/executor.h"
#include "miscadmin.h"
#include "utils/datum.h"
#include "utils/rel.h"
#include "utils/tuplestore.h"

#include "changes.h"

/* Prepare to read one of the tables from its beginning; NULL if the statement has none. */
static TupleTableSlot *
begin_table(Tuplestorestate *rows, TupleDesc desc)
{
	if (rows == NULL)
		return NULL;
	tuplestore_select_read_pointer(rows, tuplestore_alloc_read_pointer(rows, EXEC_FLAG_REWIND));
	tuplestore_rescan(rows);
	return MakeSingleTupleTableSlot(desc, &TTSOpsMinimalTuple);
}

/* Begin to read the changes of a statement, in its AFTER trigger; others must not read meanwhile.
 */
void
rt_changes_begin(RtChanges *changes, TriggerData *trigdata)
{
	TupleDesc desc = RelationGetDescr(trigdata->tg_relation);

	changes->trigdata = trigdata;
	changes->old = NULL;
	changes->new = NULL;
	changes->slots[0] = begin_table(trigdata->tg_oldtable, desc);
	changes->slots[1] = begin_table(trigdata->tg_newtable, desc);
}

/* The next change; false at the end.  Its rows stay until the next call. */
bool
rt_changes_next(RtChanges *changes)
{
	CHECK_FOR_INTERRUPTS();
	changes->old = changes->slots[0];
	changes->new = changes->slots[1];
	if (changes->old &&
		!tuplestore_gettupleslot(changes->trigdata->tg_oldtable, true, false, changes->old))
		changes->old = NULL;
	if (changes->new &&
		!tuplestore_gettupleslot(changes->trigdata->tg_newtable, true, false, changes->new))
		changes->new = NULL;
	if (changes->slots[0] && changes->slots[1] && (changes->old == NULL) != (changes->new == NULL))
		elog(ERROR, "old and new rows of \"%s\" do not match",
			 RelationGetRelationName(changes->trigdata->tg_relation));
	return changes->old || changes->new;
}

/* Free what belongs to the reading. */
void
rt_changes_end(RtChanges *changes)
{
	for (int i = 0; i < 2; i++)
		if (changes->slots[i])
			ExecDropSingleTupleTableSlot(changes->slots[i]);
}

/* Is a column of variable length different in the new row from what it was in the old one? */
bool
rt_changes_differ(const RtChanges *changes, AttrNumber att)
{
	bool nulls[2];
	Datum values[2];

	values[0] = slot_getattr(changes->old, att, &nulls[0]);
	values[1] = slot_getattr(changes->new, att, &nulls[1]);
	if (nulls[0] || nulls[1])
		return nulls[0] != nulls[1];
	/* what is stored in the same place need not be fetched from there */
	if (VARSIZE_ANY(DatumGetPointer(values[0])) == VARSIZE_ANY(DatumGetPointer(values[1])) &&
		memcmp(DatumGetPointer(values[0]), DatumGetPointer(values[1]),
			   VARSIZE_ANY(DatumGetPointer(values[0]))) == 0)
		return false;
	return !datum_image_eq(values[0], values[1], false, -1);
}
