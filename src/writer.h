/*-------------------------------------------------------------------------
 *
 * writer.h
 *		Writing rows of the bookkeeping tables.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RT_WRITER_H
#define RT_WRITER_H

#include "executor/executor.h"
#include "nodes/execnodes.h"

#include "catalog.h"

/* State of the user switch that bookkeeping does (identity.c is about callers). */
typedef struct RtOwnerSwitch
{
	Oid userid;
	int sec_context;
	int guc_level;
} RtOwnerSwitch;

typedef struct RtWriter
{
	const RtTable *table;
	Relation rel;
	EState *estate;
	ResultRelInfo *rri;
	TupleTableSlot *slot; /* the row to be written */
	bool as_owner;
	RtOwnerSwitch save; /* if as_owner */
} RtWriter;

extern void rt_writer_open(RtWriter *writer, RtTableId id);
extern void rt_writer_close(RtWriter *writer);
extern void rt_writer_blank(RtWriter *writer);
extern void rt_writer_copy(RtWriter *writer, TupleTableSlot *row);
extern void rt_writer_set(RtWriter *writer, AttrNumber att, Datum value, bool isnull);
extern void rt_writer_insert(RtWriter *writer);
extern void rt_writer_update(RtWriter *writer, TupleTableSlot *old);
extern void rt_writer_delete(RtWriter *writer, TupleTableSlot *old);
extern void rt_writer_delete_runs(RtTableId id, const pg_uuid_t *run_ids, int n);
extern bool rt_row_lock(Relation rel, TupleTableSlot *slot, Snapshot snapshot, LockTupleMode mode,
						bool wait);
extern void rt_row_require_visible(Relation rel, TupleTableSlot *slot);
extern Snapshot rt_latest_snapshot(void);
extern Snapshot rt_current_snapshot(void);
extern void rt_owner_enter(RtOwnerSwitch *save, Relation rel);
extern void rt_owner_leave(const RtOwnerSwitch *save);

#endif /* RT_WRITER_H */
