/*-------------------------------------------------------------------------
 *
 * catalog.h
 *		Where the tables of run_tracker are: OIDs and column numbers.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RT_CATALOG_H
#define RT_CATALOG_H

#include "access/genam.h"
#include "access/relscan.h"
#include "commands/trigger.h"
#include "executor/tuptable.h"
#include "utils/rel.h"
#include "utils/snapshot.h"

/* clang-format off */

/* The columns that C code reads or writes, table by table. */
#define RT_COLUMNS_runs(X)                                                                         \
	X(runs, run_id) X(runs, user_id) X(runs, lifecycle) X(runs, status) X(runs, phase)             \
	X(runs, kind) X(runs, name) X(runs, priority) X(runs, scheduled_at) X(runs, progress)          \
	X(runs, current_step) X(runs, result) X(runs, reflections) X(runs, error)                      \
	X(runs, error_detail) X(runs, attempt) X(runs, max_attempts) X(runs, timeout)                  \
	X(runs, max_duration) X(runs, worker) X(runs, created_at) X(runs, started_at)                  \
	X(runs, finished_at) X(runs, updated_at) X(runs, duration_ms) X(runs, settings)               \
	X(runs, variables) X(runs, metrics) X(runs, metadata)

#define RT_COLUMNS_tasks(X)                                                                        \
	X(tasks, run_id) X(tasks, task_id) X(tasks, user_id) X(tasks, lifecycle) X(tasks, status)      \
	X(tasks, phase) X(tasks, response) X(tasks, result) X(tasks, input_tokens)                     \
	X(tasks, output_tokens) X(tasks, total_tokens) X(tasks, cache_read_input_tokens)               \
	X(tasks, cache_creation_input_tokens) X(tasks, reasoning_output_tokens) X(tasks, cost)         \
	X(tasks, cost_source) X(tasks, finish_reason) X(tasks, response_id) X(tasks, error)            \
	X(tasks, error_detail) X(tasks, attempt) X(tasks, time_to_first_token_ms)                      \
	X(tasks, duration_ms) X(tasks, created_at) X(tasks, started_at) X(tasks, finished_at)          \
	X(tasks, updated_at) X(tasks, metadata)

#define RT_COLUMNS_messages(X)                                                                     \
	X(messages, run_id) X(messages, seq) X(messages, user_id) X(messages, role)                    \
	X(messages, content) X(messages, parts) X(messages, metadata) X(messages, created_at)

#define RT_COLUMNS_logs(X)                                                                         \
	X(logs, run_id) X(logs, seq) X(logs, user_id) X(logs, level) X(logs, message)                  \
	X(logs, created_at)

#define RT_COLUMNS_transitions(X)                                                                  \
	X(transitions, run_id) X(transitions, seq) X(transitions, user_id) X(transitions, task_id)     \
	X(transitions, from_status) X(transitions, to_status) X(transitions, attempt)                  \
	X(transitions, actor) X(transitions, reason) X(transitions, state_ms)                          \
	X(transitions, occurred_at)

#define RT_COLUMNS_run_totals(X)                                                                   \
	X(run_totals, run_id) X(run_totals, slot) X(run_totals, user_id) X(run_totals, task_count)     \
	X(run_totals, failed_task_count) X(run_totals, open_task_count)                                \
	X(run_totals, input_tokens) X(run_totals, output_tokens) X(run_totals, total_tokens)           \
	X(run_totals, total_cost) X(run_totals, message_count) X(run_totals, error_count)              \
	X(run_totals, retrieval_count) X(run_totals, artifact_count)                                   \
	X(run_totals, last_message_at) X(run_totals, last_activity_at) X(run_totals, updated_at)

#define RT_COLUMNS_open_runs(X)                                                                    \
	X(open_runs, run_id) X(open_runs, user_id) X(open_runs, lifecycle) X(open_runs, kind)          \
	X(open_runs, phase) X(open_runs, priority) X(open_runs, available_at)                          \
	X(open_runs, deadline_at) X(open_runs, last_activity_at) X(open_runs, worker)                  \
	X(open_runs, attempt)

#define RT_COLUMNS_lifecycles(X) X(lifecycles, name) X(lifecycles, definition)

#define RT_TABLES(X)                                                                               \
	X(runs) X(tasks) X(messages) X(logs) X(transitions) X(run_totals) X(open_runs) X(lifecycles)

/* clang-format on */

#define RT_TABLE_ID(t) RT_##t,
typedef enum RtTableId
{
	RT_TABLES(RT_TABLE_ID) RT_NTABLES
} RtTableId;
#undef RT_TABLE_ID

#define RT_COLUMN_ID(t, c) RT_##t##_##c,
#define RT_COLUMN_ENUM(t)                                                                          \
	typedef enum RtColumns_##t{RT_COLUMNS_##t(RT_COLUMN_ID) RT_NCOLUMNS_##t} RtColumns_##t;
RT_TABLES(RT_COLUMN_ENUM)
#undef RT_COLUMN_ENUM
#undef RT_COLUMN_ID

#define RT_MAX_COLUMNS 32

typedef struct RtTable
{
	Oid relid;
	bool valid;
	AttrNumber att[RT_MAX_COLUMNS]; /* indexed by RT_<table>_<column> */
} RtTable;

/* att number of a column of a table: RT_ATT(table, tasks, cost) */
#define RT_ATT(table, t, c) ((table)->att[RT_##t##_##c])

extern void rt_catalog_init(void);
extern const RtTable *rt_table(RtTableId id);
extern const char *rt_table_name(RtTableId id);
extern uint64 rt_lifecycle_generation(void);

/* Kinds of trigger calls that rt_trigger_check accepts. */
#define RT_BEFORE_ROW	   (TRIGGER_EVENT_BEFORE | TRIGGER_EVENT_ROW)
#define RT_AFTER_STATEMENT 0

extern const RtTable *rt_trigger_check(FunctionCallInfo fcinfo, RtTableId id, uint32 when,
									   const char *function);

/* A scan of the rows of one run, by a primary key that begins with run_id. */
typedef struct RtProbe
{
	Relation rel;
	Relation index;
	IndexScanDesc scan;
	TupleTableSlot *slot;
} RtProbe;

extern void rt_probe_begin(RtProbe *probe, Relation rel, Datum run_id, Snapshot snapshot);
extern bool rt_probe_next(RtProbe *probe, ScanDirection direction);
extern void rt_probe_end(RtProbe *probe);

#endif /* RT_CATALOG_H */
