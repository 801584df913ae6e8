/*-------------------------------------------------------------------------
 *
 * row.h
 *		The row that a BEFORE ROW trigger looks at and changes.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RT_ROW_H
#define RT_ROW_H

#include "commands/trigger.h"

#include "catalog.h"
#include "lifecycles.h"

typedef struct RtRow
{
	Relation rel;
	const RtTable *table;
	HeapTuple tuple; /* the new row */
	HeapTuple old;	 /* the old one, or NULL for INSERT */
	Datum *values;	 /* of the new row */
	bool *nulls;
	Datum *old_values; /* of the old row, or NULL */
	bool *old_nulls;
	bool changed; /* by the trigger */
} RtRow;

/* beyond this, sums over many rows could leave the range of bigint */
#define RT_MAX_AMOUNT INT64CONST(1000000000000)

/* lists have many names: none may be as long as a payload */
#define RT_MAX_NAME_SIZE 8192

extern void rt_row_begin(RtRow *row, TriggerData *trigdata, const RtTable *table);
extern Datum rt_row_end(RtRow *row);
extern void rt_row_set(RtRow *row, AttrNumber att, Datum value);
extern void rt_row_set_null(RtRow *row, AttrNumber att);
extern void rt_row_default(RtRow *row, AttrNumber att, Datum value);
extern void rt_row_default_id(RtRow *row, AttrNumber att);
extern void rt_row_keep(RtRow *row, AttrNumber att);
extern void rt_row_check_same(const RtRow *row, AttrNumber att);
extern bool rt_row_differs(const RtRow *row, AttrNumber att);
extern bool rt_row_unchanged(const RtRow *row);
extern void rt_row_check_size(const RtRow *row);
extern void rt_row_check_names(const RtRow *row, const AttrNumber *atts, int n);
extern void rt_row_check_json(const RtRow *row, AttrNumber att, bool array);
extern void rt_row_violation(const RtRow *row, AttrNumber att, const char *detail);
extern int64 rt_row_amount(const RtRow *row, AttrNumber att);
extern void rt_row_check_cost(const RtRow *row, AttrNumber att);
extern void rt_row_check_key(const RtRow *row, AttrNumber att);
extern void rt_row_require(const RtRow *row, AttrNumber att);

#define rt_row_isnull(row, att) ((row)->nulls[(att) -1])
#define rt_row_get(row, att)	((row)->values[(att) -1])

/* The columns that runs and tasks have in common, by number. */
typedef struct RtStatusColumns
{
	AttrNumber lifecycle;
	AttrNumber status;
	AttrNumber phase;
	AttrNumber attempt;
	AttrNumber result;
	AttrNumber error;
	AttrNumber error_detail;
	AttrNumber created_at;
	AttrNumber started_at;
	AttrNumber finished_at;
	AttrNumber updated_at;
	AttrNumber duration_ms;
} RtStatusColumns;

#define RT_STATUS_COLUMNS(table, t)                                                                \
	{                                                                                              \
		RT_ATT(table, t, lifecycle), RT_ATT(table, t, status), RT_ATT(table, t, phase),            \
			RT_ATT(table, t, attempt), RT_ATT(table, t, result), RT_ATT(table, t, error),          \
			RT_ATT(table, t, error_detail), RT_ATT(table, t, created_at),                          \
			RT_ATT(table, t, started_at), RT_ATT(table, t, finished_at),                           \
			RT_ATT(table, t, updated_at), RT_ATT(table, t, duration_ms)                            \
	}

typedef enum RtMove
{
	RT_MOVE_NONE,	/* the status stays */
	RT_MOVE_OPEN,	/* from an open state to an open one */
	RT_MOVE_FINISH, /* from an open state to a finished one */
	RT_MOVE_LATE,	/* from a finished state to a finished one */
	RT_MOVE_RETRY	/* from a finished state to an open one */
} RtMove;

extern RtPhase rt_status_insert(RtRow *row, const RtStatusColumns *c, const char *default_lifecycle,
								bool service);
extern RtMove rt_status_update(RtRow *row, const RtStatusColumns *c, const char *table,
							   bool forced);

#endif /* RT_ROW_H */
