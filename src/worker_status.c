/*-------------------------------------------------------------------------
 *
 * worker_status.c
 *		What the background worker has done, for run_tracker.worker_status.
 *
 *-------------------------------------------------------------------------
 */
#include "run_tracker.h"

#include "catalog/pg_authid.h"
#include "commands/dbcommands.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"

#include "shared.h"

PG_FUNCTION_INFO_V1(run_tracker_worker_state);

#define NCOLUMNS 19

static const char *
state_name(const RtDatabase *db)
{
	if (db->worker_procno >= 0)
		return "working";
	if (db->failures > 0)
		return "failing";
	switch (db->state)
	{
		case RT_DB_UNKNOWN:
			return "unknown";
		case RT_DB_NOT_INSTALLED:
			return "not installed";
		case RT_DB_INCOMPLETE:
			return "incomplete";
		case RT_DB_DISABLED:
			return "disabled";
		case RT_DB_INSTALLED:
			break;
	}
	return "sleeping";
}

/* A moment, or null for one that is infinite. */
static void
put_time(Datum *values, bool *nulls, int column, TimestampTz moment)
{
	nulls[column] = TIMESTAMP_NOT_FINITE(moment);
	values[column] = TimestampTzGetDatum(moment);
}

/*
 * worker_state() → a row per database that the worker knows: to monitors all of them, to
 * others the current one.
 */
Datum
run_tracker_worker_state(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	bool monitor = has_privs_of_role(GetUserId(), ROLE_PG_MONITOR);
	int launcher_pid;

	InitMaterializedSRF(fcinfo, 0);
	if (!rt_shared_available())
		return (Datum) 0;
	launcher_pid = rt_shared_launcher_pid();

	for (int i = 0; i < rt_max_databases; i++)
	{
		Datum values[NCOLUMNS] = {0};
		bool nulls[NCOLUMNS] = {0};
		RtDatabase db;
		char *name;
		int c = 0;

		if (!rt_shared_lock(i, InvalidOid, LW_SHARED))
			continue;
		db = *rt_shared_database(i);
		rt_shared_unlock(i);
		if (!monitor && db.oid != MyDatabaseId)
			continue;
		name = get_database_name(db.oid);
		if (name == NULL)
			continue;

		values[c++] = CStringGetTextDatum(name);
		values[c++] = CStringGetTextDatum(state_name(&db));
		nulls[c] = db.worker_pid == 0;
		values[c++] = Int32GetDatum(db.worker_pid);
		nulls[c] = launcher_pid == 0;
		values[c++] = Int32GetDatum(launcher_pid);
		put_time(values, nulls, c++, db.last_pass_at);
		put_time(values, nulls, c++, db.next_at);
		put_time(values, nulls, c++, db.retry_at);
		values[c++] = Int64GetDatum(db.passes);
		values[c++] = Int64GetDatum(db.timed_out);
		values[c++] = Int64GetDatum(db.requeued);
		values[c++] = Int64GetDatum(db.rearmed);
		values[c++] = Int32GetDatum(db.npending);
		values[c++] = Int64GetDatum(db.notifications);
		values[c++] = Int64GetDatum(db.resyncs);
		values[c++] = Int64GetDatum(db.folded);
		values[c++] = Int64GetDatum(db.errors);
		values[c++] = Int32GetDatum(db.failures);
		nulls[c] = db.last_error[0] == '\0';
		values[c++] = CStringGetTextDatum(db.last_error);
		put_time(values, nulls, c++, db.last_error_at);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}
