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
#include "catalog/pg_type_d.h"
#include "executor/tuptable.h"
#include "utils/rel.h"
#include "utils/snapshot.h"

/* clang-format off */

/* The columns that C code reads or writes, table by table: type, and whether null is impossible. */
#define RT_COLUMNS_runs(X) \
	X(runs, run_id, UUIDOID, true) \
	X(runs, user_id, TEXTOID, true) \
	X(runs, lifecycle, TEXTOID, true) \
	X(runs, status, TEXTOID, true) \
	X(runs, phase, TEXTOID, true) \
	X(runs, kind, TEXTOID, false) \
	X(runs, name, TEXTOID, false) \
	X(runs, workflow_id, TEXTOID, false) \
	X(runs, session_id, TEXTOID, false) \
	X(runs, subject_id, TEXTOID, false) \
	X(runs, priority, INT4OID, true) \
	X(runs, scheduled_at, TIMESTAMPTZOID, false) \
	X(runs, progress, INT2OID, false) \
	X(runs, current_step, TEXTOID, false) \
	X(runs, result, JSONBOID, false) \
	X(runs, reflections, JSONBOID, false) \
	X(runs, error, TEXTOID, false) \
	X(runs, error_detail, TEXTOID, false) \
	X(runs, attempt, INT4OID, true) \
	X(runs, max_attempts, INT4OID, true) \
	X(runs, timeout, INTERVALOID, false) \
	X(runs, max_duration, INTERVALOID, false) \
	X(runs, retry_base, INTERVALOID, false) \
	X(runs, retry_cap, INTERVALOID, false) \
	X(runs, worker, TEXTOID, false) \
	X(runs, created_at, TIMESTAMPTZOID, true) \
	X(runs, started_at, TIMESTAMPTZOID, false) \
	X(runs, finished_at, TIMESTAMPTZOID, false) \
	X(runs, updated_at, TIMESTAMPTZOID, true) \
	X(runs, duration_ms, INT8OID, false) \
	X(runs, settings, JSONBOID, false) \
	X(runs, variables, JSONBOID, false) \
	X(runs, metrics, JSONBOID, false) \
	X(runs, metadata, JSONBOID, false)

#define RT_COLUMNS_tasks(X) \
	X(tasks, run_id, UUIDOID, true) \
	X(tasks, task_id, UUIDOID, true) \
	X(tasks, user_id, TEXTOID, true) \
	X(tasks, lifecycle, TEXTOID, true) \
	X(tasks, status, TEXTOID, true) \
	X(tasks, phase, TEXTOID, true) \
	X(tasks, service, TEXTOID, false) \
	X(tasks, name, TEXTOID, false) \
	X(tasks, operation, TEXTOID, false) \
	X(tasks, provider, TEXTOID, false) \
	X(tasks, model, TEXTOID, false) \
	X(tasks, response_model, TEXTOID, false) \
	X(tasks, response, TEXTOID, false) \
	X(tasks, result, JSONBOID, false) \
	X(tasks, input_tokens, INT8OID, false) \
	X(tasks, output_tokens, INT8OID, false) \
	X(tasks, total_tokens, INT8OID, false) \
	X(tasks, cache_read_input_tokens, INT8OID, false) \
	X(tasks, cache_creation_input_tokens, INT8OID, false) \
	X(tasks, reasoning_output_tokens, INT8OID, false) \
	X(tasks, cost, NUMERICOID, false) \
	X(tasks, cost_source, TEXTOID, false) \
	X(tasks, finish_reason, TEXTOID, false) \
	X(tasks, response_id, TEXTOID, false) \
	X(tasks, error, TEXTOID, false) \
	X(tasks, error_detail, TEXTOID, false) \
	X(tasks, attempt, INT4OID, true) \
	X(tasks, time_to_first_token_ms, INT8OID, false) \
	X(tasks, duration_ms, INT8OID, false) \
	X(tasks, created_at, TIMESTAMPTZOID, true) \
	X(tasks, started_at, TIMESTAMPTZOID, false) \
	X(tasks, finished_at, TIMESTAMPTZOID, false) \
	X(tasks, updated_at, TIMESTAMPTZOID, true) \
	X(tasks, usage_at, TIMESTAMPTZOID, false) \
	X(tasks, reservation_id, UUIDOID, false) \
	X(tasks, metadata, JSONBOID, false)

#define RT_COLUMNS_messages(X) \
	X(messages, run_id, UUIDOID, true) \
	X(messages, seq, INT8OID, true) \
	X(messages, user_id, TEXTOID, true) \
	X(messages, role, TEXTOID, true) \
	X(messages, name, TEXTOID, false) \
	X(messages, content, TEXTOID, false) \
	X(messages, parts, JSONBOID, false) \
	X(messages, metadata, JSONBOID, false) \
	X(messages, created_at, TIMESTAMPTZOID, true)

#define RT_COLUMNS_logs(X) \
	X(logs, run_id, UUIDOID, true) \
	X(logs, seq, INT8OID, true) \
	X(logs, log_id, UUIDOID, true) \
	X(logs, user_id, TEXTOID, true) \
	X(logs, level, TEXTOID, true) \
	X(logs, message, TEXTOID, true) \
	X(logs, created_at, TIMESTAMPTZOID, true)

#define RT_COLUMNS_response_chunks(X) \
	X(response_chunks, run_id, UUIDOID, true) \
	X(response_chunks, task_id, UUIDOID, true) \
	X(response_chunks, user_id, TEXTOID, true) \
	X(response_chunks, start_offset, INT8OID, true) \
	X(response_chunks, end_bytes, INT8OID, true) \
	X(response_chunks, content, TEXTOID, true) \
	X(response_chunks, created_at, TIMESTAMPTZOID, true)

#define RT_COLUMNS_retrievals(X) \
	X(retrievals, run_id, UUIDOID, true) \
	X(retrievals, retrieval_id, UUIDOID, true) \
	X(retrievals, user_id, TEXTOID, true) \
	X(retrievals, retrieval_type, TEXTOID, true) \
	X(retrievals, results_count, INT4OID, true) \
	X(retrievals, results, JSONBOID, false) \
	X(retrievals, duration_ms, INT8OID, false) \
	X(retrievals, metadata, JSONBOID, false) \
	X(retrievals, created_at, TIMESTAMPTZOID, true)

#define RT_COLUMNS_artifacts(X) \
	X(artifacts, run_id, UUIDOID, true) \
	X(artifacts, artifact_id, UUIDOID, true) \
	X(artifacts, user_id, TEXTOID, true) \
	X(artifacts, kind, TEXTOID, true) \
	X(artifacts, similarity, NUMERICOID, false) \
	X(artifacts, configuration, JSONBOID, false) \
	X(artifacts, content, TEXTOID, false) \
	X(artifacts, size_bytes, INT8OID, false) \
	X(artifacts, metadata, JSONBOID, false) \
	X(artifacts, created_at, TIMESTAMPTZOID, true) \
	X(artifacts, updated_at, TIMESTAMPTZOID, true)

#define RT_COLUMNS_transitions(X) \
	X(transitions, run_id, UUIDOID, true) \
	X(transitions, seq, INT8OID, true) \
	X(transitions, user_id, TEXTOID, true) \
	X(transitions, task_id, UUIDOID, false) \
	X(transitions, from_status, TEXTOID, true) \
	X(transitions, to_status, TEXTOID, true) \
	X(transitions, attempt, INT4OID, true) \
	X(transitions, actor, TEXTOID, false) \
	X(transitions, reason, TEXTOID, false) \
	X(transitions, state_ms, INT8OID, true) \
	X(transitions, occurred_at, TIMESTAMPTZOID, true)

#define RT_COLUMNS_run_totals(X) \
	X(run_totals, run_id, UUIDOID, true) \
	X(run_totals, slot, INT4OID, true) \
	X(run_totals, user_id, TEXTOID, true) \
	X(run_totals, task_count, INT8OID, true) \
	X(run_totals, failed_task_count, INT8OID, true) \
	X(run_totals, open_task_count, INT8OID, true) \
	X(run_totals, input_tokens, INT8OID, true) \
	X(run_totals, output_tokens, INT8OID, true) \
	X(run_totals, total_tokens, INT8OID, true) \
	X(run_totals, total_cost, NUMERICOID, true) \
	X(run_totals, message_count, INT8OID, true) \
	X(run_totals, error_count, INT8OID, true) \
	X(run_totals, retrieval_count, INT8OID, true) \
	X(run_totals, artifact_count, INT8OID, true) \
	X(run_totals, last_message_at, TIMESTAMPTZOID, false) \
	X(run_totals, last_activity_at, TIMESTAMPTZOID, true) \
	X(run_totals, updated_at, TIMESTAMPTZOID, true)

#define RT_COLUMNS_open_runs(X) \
	X(open_runs, run_id, UUIDOID, true) \
	X(open_runs, user_id, TEXTOID, true) \
	X(open_runs, lifecycle, TEXTOID, true) \
	X(open_runs, kind, TEXTOID, false) \
	X(open_runs, phase, TEXTOID, true) \
	X(open_runs, priority, INT4OID, true) \
	X(open_runs, available_at, TIMESTAMPTZOID, true) \
	X(open_runs, deadline_at, TIMESTAMPTZOID, false) \
	X(open_runs, last_activity_at, TIMESTAMPTZOID, true) \
	X(open_runs, worker, TEXTOID, false) \
	X(open_runs, attempt, INT4OID, true)

/* stat_deltas and stat_totals have these columns in common */
#define RT_COLUMNS_stat_deltas(X) \
	X(stat_deltas, source, TEXTOID, true) \
	X(stat_deltas, user_id, TEXTOID, true) \
	X(stat_deltas, period_at, TIMESTAMPTZOID, true) \
	X(stat_deltas, usage_on, DATEOID, false) \
	X(stat_deltas, kind, TEXTOID, true) \
	X(stat_deltas, workflow_id, TEXTOID, true) \
	X(stat_deltas, mode, TEXTOID, true) \
	X(stat_deltas, provider, TEXTOID, true) \
	X(stat_deltas, model, TEXTOID, true) \
	X(stat_deltas, operation, TEXTOID, true) \
	X(stat_deltas, phase, TEXTOID, true) \
	X(stat_deltas, created_count, INT8OID, true) \
	X(stat_deltas, finished_count, INT8OID, true) \
	X(stat_deltas, input_tokens, INT8OID, true) \
	X(stat_deltas, output_tokens, INT8OID, true) \
	X(stat_deltas, total_tokens, INT8OID, true) \
	X(stat_deltas, cost, NUMERICOID, true) \
	X(stat_deltas, duration_ms, INT8OID, true) \
	X(stat_deltas, durations, INT8ARRAYOID, false) \
	X(stat_deltas, first_token_ms, INT8OID, true) \
	X(stat_deltas, first_tokens, INT8ARRAYOID, false)

#define RT_COLUMNS_stat_totals(X) \
	X(stat_totals, grain, TEXTOID, true) \
	X(stat_totals, period, TEXTOID, true) \
	X(stat_totals, all_users, BOOLOID, true) \
	X(stat_totals, user_id, TEXTOID, true) \
	X(stat_totals, period_at, TIMESTAMPTZOID, true) \
	X(stat_totals, kind, TEXTOID, true) \
	X(stat_totals, workflow_id, TEXTOID, true) \
	X(stat_totals, mode, TEXTOID, true) \
	X(stat_totals, provider, TEXTOID, true) \
	X(stat_totals, model, TEXTOID, true) \
	X(stat_totals, operation, TEXTOID, true) \
	X(stat_totals, phase, TEXTOID, true) \
	X(stat_totals, created_count, INT8OID, true) \
	X(stat_totals, finished_count, INT8OID, true) \
	X(stat_totals, task_count, INT8OID, true) \
	X(stat_totals, failed_task_count, INT8OID, true) \
	X(stat_totals, input_tokens, INT8OID, true) \
	X(stat_totals, output_tokens, INT8OID, true) \
	X(stat_totals, total_tokens, INT8OID, true) \
	X(stat_totals, cost, NUMERICOID, true) \
	X(stat_totals, duration_ms, INT8OID, true) \
	X(stat_totals, durations, INT8ARRAYOID, false) \
	X(stat_totals, first_token_ms, INT8OID, true) \
	X(stat_totals, first_tokens, INT8ARRAYOID, false)

#define RT_COLUMNS_finish_handlers(X) \
	X(finish_handlers, handler_id, UUIDOID, true) \
	X(finish_handlers, kind_or_lifecycle, TEXTOID, false) \
	X(finish_handlers, function, TEXTOID, true) \
	X(finish_handlers, role, TEXTOID, true) \
	X(finish_handlers, search_path, TEXTOID, true) \
	X(finish_handlers, on_error, TEXTOID, true) \
	X(finish_handlers, created_at, TIMESTAMPTZOID, true)

#define RT_COLUMNS_callback_keys(X) \
	X(callback_keys, key_id, UUIDOID, true) \
	X(callback_keys, name, TEXTOID, true) \
	X(callback_keys, method, TEXTOID, true) \
	X(callback_keys, hash, BYTEAOID, false) \
	X(callback_keys, salt, BYTEAOID, false) \
	X(callback_keys, hmac_secret, BYTEAOID, false) \
	X(callback_keys, for_kind, TEXTOID, false) \
	X(callback_keys, require_timestamp, BOOLOID, true) \
	X(callback_keys, created_at, TIMESTAMPTZOID, true) \
	X(callback_keys, expires_at, TIMESTAMPTZOID, false)

#define RT_COLUMNS_callbacks(X) \
	X(callbacks, callback_id, UUIDOID, true)

#define RT_COLUMNS_tiers(X) \
	X(tiers, name, TEXTOID, true) \
	X(tiers, monthly_tokens, INT8OID, false) \
	X(tiers, daily_requests, INT8OID, false) \
	X(tiers, concurrent_sessions, INT8OID, false) \
	X(tiers, monthly_cost, NUMERICOID, false) \
	X(tiers, rate_limits, JSONBOID, false)

#define RT_COLUMNS_accounts(X) \
	X(accounts, user_id, TEXTOID, true) \
	X(accounts, tier, TEXTOID, true) \
	X(accounts, overrides, JSONBOID, false) \
	X(accounts, metadata, JSONBOID, false) \
	X(accounts, created_at, TIMESTAMPTZOID, true) \
	X(accounts, updated_at, TIMESTAMPTZOID, true)

#define RT_COLUMNS_usage_records(X) \
	X(usage_records, usage_id, UUIDOID, true) \
	X(usage_records, user_id, TEXTOID, true) \
	X(usage_records, source, TEXTOID, true) \
	X(usage_records, run_id, UUIDOID, false) \
	X(usage_records, task_id, UUIDOID, false) \
	X(usage_records, session_id, UUIDOID, false) \
	X(usage_records, reservation_id, UUIDOID, false) \
	X(usage_records, endpoint, TEXTOID, false) \
	X(usage_records, provider, TEXTOID, false) \
	X(usage_records, model, TEXTOID, false) \
	X(usage_records, requests, INT4OID, true) \
	X(usage_records, input_tokens, INT8OID, false) \
	X(usage_records, output_tokens, INT8OID, false) \
	X(usage_records, total_tokens, INT8OID, true) \
	X(usage_records, cost, NUMERICOID, true) \
	X(usage_records, metadata, JSONBOID, false) \
	X(usage_records, used_at, TIMESTAMPTZOID, true)

#define RT_COLUMNS_reservations(X) \
	X(reservations, reservation_id, UUIDOID, true) \
	X(reservations, user_id, TEXTOID, true) \
	X(reservations, state, TEXTOID, true) \
	X(reservations, tokens, INT8OID, true) \
	X(reservations, cost, NUMERICOID, true) \
	X(reservations, requests, INT4OID, true) \
	X(reservations, task_id, UUIDOID, false) \
	X(reservations, created_at, TIMESTAMPTZOID, true) \
	X(reservations, expires_at, TIMESTAMPTZOID, true) \
	X(reservations, ended_at, TIMESTAMPTZOID, false)

#define RT_COLUMNS_breakers(X) \
	X(breakers, name, TEXTOID, true) \
	X(breakers, failure_threshold, INT4OID, false) \
	X(breakers, failure_rate, NUMERICOID, false) \
	X(breakers, minimum_calls, INT4OID, true) \
	X(breakers, window, INTERVALOID, true) \
	X(breakers, reset_after, INTERVALOID, true)

#define RT_COLUMNS_lifecycles(X) \
	X(lifecycles, name, TEXTOID, true) \
	X(lifecycles, definition, JSONBOID, true)

#define RT_COLUMNS_sessions(X) \
	X(sessions, session_id, UUIDOID, true) \
	X(sessions, user_id, TEXTOID, true) \
	X(sessions, tier, TEXTOID, true) \
	X(sessions, version, INT8OID, true) \
	X(sessions, snapshot_after, INT8OID, true) \
	X(sessions, metadata, JSONBOID, false) \
	X(sessions, created_at, TIMESTAMPTZOID, true) \
	X(sessions, updated_at, TIMESTAMPTZOID, true) \
	X(sessions, active_hour_at, TIMESTAMPTZOID, true) \
	X(sessions, closed_at, TIMESTAMPTZOID, false)

#define RT_COLUMNS_session_deltas(X) \
	X(session_deltas, session_id, UUIDOID, true) \
	X(session_deltas, version, INT8OID, true) \
	X(session_deltas, user_id, TEXTOID, true) \
	X(session_deltas, delta, JSONBOID, true) \
	X(session_deltas, created_at, TIMESTAMPTZOID, true)

#define RT_COLUMNS_session_snapshots(X) \
	X(session_snapshots, session_id, UUIDOID, true) \
	X(session_snapshots, user_id, TEXTOID, true) \
	X(session_snapshots, version, INT8OID, true) \
	X(session_snapshots, state, JSONBOID, true) \
	X(session_snapshots, updated_at, TIMESTAMPTZOID, true)

#define RT_TABLES(X)                                                                               \
	X(runs) X(tasks) X(response_chunks) X(messages) X(logs) X(retrievals) X(artifacts)             \
		X(transitions) X(run_totals) X(open_runs) X(stat_deltas) X(stat_totals) X(lifecycles)      \
			X(tiers) X(accounts) X(usage_records) X(reservations) X(breakers)                      \
				X(sessions) X(session_deltas) X(session_snapshots) X(finish_handlers) \
				X(callback_keys) X(callbacks)

/* clang-format on */

#define RT_TABLE_ID(t) RT_##t,
typedef enum RtTableId
{
	RT_TABLES(RT_TABLE_ID) RT_NTABLES
} RtTableId;
#undef RT_TABLE_ID

#define RT_COLUMN_ID(t, c, type, notnull) RT_##t##_##c,
#define RT_COLUMN_ENUM(t)                                                                          \
	typedef enum RtColumns_##t{RT_COLUMNS_##t(RT_COLUMN_ID) RT_NCOLUMNS_##t} RtColumns_##t;
RT_TABLES(RT_COLUMN_ENUM)
#undef RT_COLUMN_ENUM
#undef RT_COLUMN_ID

#define RT_MAX_COLUMNS 40

typedef struct RtTable
{
	Oid relid;
	bool valid;
	uint64 generation;				/* changes whenever the table may have changed */
	AttrNumber att[RT_MAX_COLUMNS]; /* indexed by RT_<table>_<column> */
} RtTable;

/* att number of a column of a table: RT_ATT(table, tasks, cost) */
#define RT_ATT(table, t, c) ((table)->att[RT_##t##_##c])

/* The value of a column of a row; 0 if it is null. */
static inline Datum
rt_slot_value(TupleTableSlot *row, AttrNumber att)
{
	bool isnull;
	Datum value = slot_getattr(row, att, &isnull);

	return isnull ? (Datum) 0 : value;
}

#define rt_slot_int64(row, att) DatumGetInt64(rt_slot_value(row, att))

extern void rt_catalog_init(void);
extern const RtTable *rt_table(RtTableId id);
extern bool rt_tables_exist(void);
extern bool rt_tables_lock(void);
extern bool rt_triggers_work(void);
extern void rt_triggers_require(void);
extern const char *rt_table_name(RtTableId id);
extern uint64 rt_lifecycle_generation(void);

extern Relation rt_index_open(Relation rel, const char *name, int nkeys, const AttrNumber *keys,
							  int descending);

/* Kinds of trigger calls that rt_trigger_check accepts. */
#define RT_BEFORE_ROW		(TRIGGER_EVENT_BEFORE | TRIGGER_EVENT_ROW)
#define RT_AFTER_STATEMENT	0
#define RT_BEFORE_STATEMENT TRIGGER_EVENT_BEFORE

extern const RtTable *rt_trigger_check(FunctionCallInfo fcinfo, RtTableId id, uint32 when,
									   const char *function);

/* A scan of the rows that have a key, by a primary key that begins with it: mostly run_id. */
typedef struct RtProbe
{
	Relation rel;
	Relation index;
	IndexScanDesc scan;
	TupleTableSlot *slot;
} RtProbe;

extern void rt_probe_begin(RtProbe *probe, Relation rel, Datum run_id, Snapshot snapshot);
extern void rt_probe_begin_child(RtProbe *probe, Relation rel, Datum run_id, Datum task_id,
								 Snapshot snapshot);
extern void rt_probe_begin_name(RtProbe *probe, Relation rel, Datum name, Snapshot snapshot);
extern bool rt_probe_next(RtProbe *probe, ScanDirection direction);
extern void rt_probe_end(RtProbe *probe);

#endif /* RT_CATALOG_H */
