/*-------------------------------------------------------------------------
 *
 * totals_calls.c
 *		Totals without deltas from statements: TRUNCATE, and repair.
 *
 *-------------------------------------------------------------------------
 */
#include "run_tracker.h"

#include "access/table.h"
#include "access/xact.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "tcop/utility.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/snapmgr.h"

#include "calls.h"
#include "identity.h"
#include "stats.h"
#include "totals.h"
#include "writer.h"

PG_FUNCTION_INFO_V1(run_tracker_before_truncate);
PG_FUNCTION_INFO_V1(run_tracker_after_truncate);
PG_FUNCTION_INFO_V1(run_tracker_rebuild_totals);

/* fields of the advisory lock that lets one repair at a time in: not the class of sequence.c */
#define RT_LOCK_CLASS 0x5255

/* What each table's TRUNCATE takes away. */
static const struct
{
	RtTableId table;
	const char *sql;
} truncations[] = {
	/* not TRUNCATE: the statement may name these tables, too */
	{RT_runs, "WITH t AS (DELETE FROM run_tracker.run_totals), "
			  "o AS (DELETE FROM run_tracker.open_runs), "
			  "c AS (DELETE FROM run_tracker.response_chunks) DELETE FROM run_tracker.transitions"},
	{RT_tasks,
	 "WITH c AS (DELETE FROM run_tracker.response_chunks) UPDATE run_tracker.run_totals SET task_count = 0, failed_task_count = 0, "
	 "open_task_count = 0, input_tokens = 0, output_tokens = 0, total_tokens = 0, total_cost = 0 "
	 "WHERE (task_count, failed_task_count, open_task_count, input_tokens, output_tokens, "
	 "total_tokens, total_cost) <> (0, 0, 0, 0, 0, 0, 0)"},
	{RT_sessions, "WITH d AS (DELETE FROM run_tracker.session_deltas) "
				  "DELETE FROM run_tracker.session_snapshots"},
	{RT_messages, "UPDATE run_tracker.run_totals SET message_count = 0 WHERE message_count <> 0"},
	{RT_logs, "UPDATE run_tracker.run_totals SET error_count = 0 WHERE error_count <> 0"},
	{RT_retrievals,
	 "UPDATE run_tracker.run_totals SET retrieval_count = 0 WHERE retrieval_count <> 0"},
	{RT_artifacts,
	 "UPDATE run_tracker.run_totals SET artifact_count = 0 WHERE artifact_count <> 0"},
};

/* AFTER TRUNCATE FOR EACH STATEMENT on runs, sessions and the tables that totals are made of. */
Datum
run_tracker_after_truncate(PG_FUNCTION_ARGS)
{
	TriggerData *trigdata = (TriggerData *) fcinfo->context;
	Relation totals;
	RtOwnerSwitch save;
	SPIPlanPtr plan;
	Snapshot snapshot;
	int i;

	for (i = 0; i < lengthof(truncations) - 1; i++)
		if (CALLED_AS_TRIGGER(fcinfo) &&
			RelationGetRelid(trigdata->tg_relation) == rt_table(truncations[i].table)->relid)
			break;
	(void) rt_trigger_check(fcinfo, truncations[i].table, RT_AFTER_STATEMENT, "after_truncate");
	if (!TRIGGER_FIRED_BY_TRUNCATE(trigdata->tg_event))
		ereport(ERROR, (errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
						errmsg("function \"after_truncate\" was not fired by TRUNCATE")));

	/* not open any more when it is truncated itself */
	totals = table_open(rt_table(RT_run_totals)->relid, RowExclusiveLock);
	rt_owner_enter(&save, totals);
	table_close(totals, NoLock);

	SPI_connect();
	plan = SPI_prepare(truncations[i].sql, 0, NULL);
	/* rows that are newer than the transaction's snapshot are gone, too */
	snapshot = rt_latest_snapshot();
	if (plan == NULL ||
		SPI_execute_snapshot(plan, NULL, NULL, snapshot, InvalidSnapshot, false, true, 0) < 0)
		elog(ERROR, "could not adapt the totals");
	UnregisterSnapshot(snapshot);
	SPI_finish();
	rt_owner_leave(&save);
	return PointerGetDatum(NULL);
}

/* BEFORE TRUNCATE FOR EACH STATEMENT on runs: statistics. */
Datum
run_tracker_before_truncate(PG_FUNCTION_ARGS)
{
	(void) rt_trigger_check(fcinfo, RT_runs, RT_BEFORE_STATEMENT, "before_truncate");
	if (!TRIGGER_FIRED_BY_TRUNCATE(((TriggerData *) fcinfo->context)->tg_event))
		ereport(ERROR, (errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
						errmsg("function \"before_truncate\" was not fired by TRUNCATE")));
	rt_stats_truncate_runs();
	return PointerGetDatum(NULL);
}

/* The counter of a name; -1 for total_cost. */
static int
counter_of(const char *name)
{
	static const char *const names[RT_NCOUNTERS] = {"task_count",	   "failed_task_count",
													"open_task_count", "input_tokens",
													"output_tokens",   "total_tokens",
													"message_count",   "error_count",
													"retrieval_count", "artifact_count"};

	for (int i = 0; i < RT_NCOUNTERS; i++)
		if (strcmp(name, names[i]) == 0)
			return i;
	return -1;
}

/* Delete the totals of runs that are not there. */
static int64
delete_orphans(void)
{
	pg_uuid_t *run_ids;
	int n;

	if (SPI_execute("SELECT DISTINCT t.run_id FROM run_tracker.run_totals t WHERE NOT EXISTS "
					"(SELECT FROM run_tracker.runs r WHERE r.run_id = t.run_id)",
					true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read run_totals");
	n = (int) SPI_processed;
	run_ids = palloc(sizeof(pg_uuid_t) * Max(n, 1));
	for (int i = 0; i < n; i++)
	{
		bool isnull;

		run_ids[i] =
			*DatumGetUUIDP(SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1, &isnull));
	}
	if (n > 0)
		rt_writer_delete_runs(RT_run_totals, run_ids, n);
	return n;
}

/*
 * rebuild_totals(run_id) → number of runs put right
 *
 * What is wrong is the same in every snapshot, since changes of rows and of totals
 * become visible together.  So the difference seen in one snapshot is added like
 * any other delta, and writers need not be locked out; only a second repair, which
 * would add the same difference again.
 */
Datum
run_tracker_rebuild_totals(PG_FUNCTION_ARGS)
{
	static RtPlan plan = {"SELECT run_id, total, expected - actual "
						  "FROM run_tracker.check_totals($1) ORDER BY run_id",
						  1,
						  {UUIDOID}};
	RtDelta **deltas;
	LOCKTAG tag;
	int64 fixed = 0;
	int n = 0;

	PreventCommandIfReadOnly("rebuild_totals()");
	PreventCommandDuringRecovery("rebuild_totals()");
	if (!rt_identity_is_service())
		ereport(ERROR, (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
						errmsg("only services may rebuild totals")));
	if (IsolationUsesXactSnapshot())
		ereport(ERROR, (errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
						errmsg("totals can only be rebuilt in a READ COMMITTED transaction")));
	SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, 0, 0, RT_LOCK_CLASS);
	(void) LockAcquire(&tag, ExclusiveLock, false, false);

	(void) rt_table(RT_run_totals);
	SPI_connect();
	if (PG_ARGISNULL(0))
		fixed = delete_orphans();
	rt_plan_execute(&plan, fcinfo->args, SPI_OK_SELECT, false);
	deltas = palloc(sizeof(RtDelta *) * Max(SPI_processed, 1));
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		HeapTuple row = SPI_tuptable->vals[i];
		TupleDesc desc = SPI_tuptable->tupdesc;
		bool isnull;
		pg_uuid_t *run_id = DatumGetUUIDP(SPI_getbinval(row, desc, 1, &isnull));
		int counter = counter_of(SPI_getvalue(row, desc, 2));
		Datum difference = SPI_getbinval(row, desc, 3, &isnull);

		if (n == 0 || rt_uuid_compare(deltas[n - 1], run_id) != 0)
		{
			deltas[n] = palloc0(sizeof(RtDelta));
			deltas[n]->run_id = *run_id;
			deltas[n]->last_message_at = DT_NOBEGIN;
			n++;
		}
		if (counter < 0)
			deltas[n - 1]->cost = difference;
		else
			deltas[n - 1]->counts[counter] =
				DatumGetInt64(DirectFunctionCall1(numeric_int8, difference));
	}
	rt_totals_apply(deltas, n);
	SPI_finish();
	PG_RETURN_INT64(fixed + n);
}
