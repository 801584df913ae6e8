/*-------------------------------------------------------------------------
 *
 * notes.c
 *		What a transaction notes for the worker and for those who listen: deadlines,
 *		and the runs it has changed.  They learn of it when the transaction has
 *		committed, and never of what was rolled back.
 *
 * Runs are kept in the order in which they were noted, each with the subtransaction
 * that was current.  All that a subtransaction and its children noted stands at the
 * end for as long as it lasts, so its abort cuts the end off.  A deadline that is
 * rolled back only causes a look that finds nothing.
 *
 * Whoever runs COMMIT PREPARED did not note anything itself: then the worker looks,
 * and listeners are told to read everything again.
 *
 * Memory: an array and a hash table in TopMemoryContext, both bounded by
 * run_tracker.notify_queue_size.
 *
 *-------------------------------------------------------------------------
 */
#include "notes.h"

#include "access/xact.h"
#include "catalog/pg_database.h"
#include "commands/dbcommands.h"
#include "commands/defrem.h"
#include "commands/extension.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "tcop/utility.h"
#include "utils/acl.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"

#include "shared.h"

PG_FUNCTION_INFO_V1(run_tracker_wake_worker);

/* a larger hash table is thrown away rather than emptied */
#define SMALL_TABLE 1024

static struct
{
	TimestampTz deadline; /* earliest; DT_NOEND: none */
	bool check;
	RtFoldWhen statistics;		   /* are to be folded */
	bool databases;				   /* have come or gone */
	bool resync;				   /* too many runs to note them one by one */
	SubTransactionId resync_subid; /* in which there were */
	int nruns;
	int size;
	pg_uuid_t *runs;
	SubTransactionId *subids; /* of each run */
	HTAB *noted;			  /* the same runs */
} notes = {.deadline = DT_NOEND};

static ProcessUtility_hook_type prev_ProcessUtility = NULL;

/* ----------------------------------------------------------------
 * Noting
 * ----------------------------------------------------------------
 */

/* An open run times out at this moment, if nothing happens. */
void
rt_note_deadline(TimestampTz deadline)
{
	if (rt_shared_available())
		notes.deadline = Min(notes.deadline, deadline);
}

/* Anything may have changed. */
void
rt_note_check(void)
{
	notes.check = true;
}

/* There is something to be added to the statistics. */
void
rt_note_statistics(RtFoldWhen when)
{
	notes.statistics = Max(notes.statistics, when);
}

static void
make_room(void)
{
	if (notes.noted == NULL)
	{
		HASHCTL ctl = {0};

		ctl.keysize = sizeof(pg_uuid_t);
		ctl.entrysize = sizeof(pg_uuid_t);
		ctl.hcxt = TopMemoryContext;
		notes.noted =
			hash_create("run_tracker notes", 64, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	}
	if (notes.nruns == notes.size)
	{
		int size = notes.size == 0 ? 64 : notes.size * 2;

		if (notes.runs == NULL)
		{
			notes.runs = MemoryContextAlloc(TopMemoryContext, sizeof(pg_uuid_t) * size);
			notes.subids = MemoryContextAlloc(TopMemoryContext, sizeof(SubTransactionId) * size);
		}
		else
		{
			notes.runs = repalloc(notes.runs, sizeof(pg_uuid_t) * size);
			notes.subids = repalloc(notes.subids, sizeof(SubTransactionId) * size);
		}
		notes.size = size;
	}
}

/* A run has changed in a way that listeners want to know of. */
void
rt_note_run(const pg_uuid_t *run_id)
{
	bool found;

	if (rt_notify_mode == RT_NOTIFY_OFF ||
		(rt_notify_mode == RT_NOTIFY_WORKER && !rt_shared_available()) || notes.resync)
		return;
	if (notes.nruns > 0 && memcmp(&notes.runs[notes.nruns - 1], run_id, UUID_LEN) == 0)
		return;
	make_room();
	(void) hash_search(notes.noted, run_id, HASH_FIND, &found);
	if (found)
		return;
	if (notes.nruns >= rt_notify_queue_size)
	{
		notes.resync = true;
		notes.resync_subid = GetCurrentSubTransactionId();
		return;
	}
	(void) hash_search(notes.noted, run_id, HASH_ENTER, &found);
	notes.runs[notes.nruns] = *run_id;
	notes.subids[notes.nruns] = GetCurrentSubTransactionId();
	notes.nruns++;
}

/* ----------------------------------------------------------------
 * The end of a transaction
 * ----------------------------------------------------------------
 */

static void
forget_runs(void)
{
	if (notes.noted != NULL && hash_get_num_entries(notes.noted) > SMALL_TABLE)
	{
		hash_destroy(notes.noted);
		notes.noted = NULL;
	}
	else
	{
		for (int i = 0; i < notes.nruns; i++)
			(void) hash_search(notes.noted, &notes.runs[i], HASH_REMOVE, NULL);
	}
	notes.nruns = 0;
	notes.resync = false;
}

static void
forget_all(void)
{
	forget_runs();
	notes.deadline = DT_NOEND;
	notes.check = false;
	notes.statistics = RT_FOLD_NOT;
	notes.databases = false;
}

static void
tell(bool prepared)
{
	if (rt_shared_available() &&
		(notes.deadline != DT_NOEND || notes.check || notes.statistics != RT_FOLD_NOT ||
		 notes.nruns > 0 || notes.resync))
		rt_shared_tell(notes.deadline, notes.check, notes.statistics, notes.runs,
					   prepared ? 0 : notes.nruns, prepared ? false : notes.resync);
	if (notes.databases)
		rt_shared_databases_changed();
	forget_all();
}

/*
 * Before the commit, listeners are told if that is wanted then.  After it, nothing here may
 * fail.
 */
static void
at_xact_end(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
			if (rt_notify_mode == RT_NOTIFY_COMMIT)
			{
				if (notes.resync)
					rt_notify_resync();
				else if (notes.nruns > 0)
					(void) rt_notify_runs(notes.runs, notes.nruns);
				forget_runs();
			}
			break;
		case XACT_EVENT_COMMIT:
			tell(false);
			break;
		case XACT_EVENT_PREPARE:
			tell(true);
			break;
		case XACT_EVENT_ABORT:
			forget_all();
			break;
		default:
			break;
	}
}

static void
at_subxact_end(SubXactEvent event, SubTransactionId sub, SubTransactionId parent, void *arg)
{
	if (event != SUBXACT_EVENT_ABORT_SUB)
		return;
	/* all that was not noted any more belongs to the same subtransaction */
	if (notes.resync && notes.resync_subid >= sub)
		notes.resync = false;
	while (notes.nruns > 0 && notes.subids[notes.nruns - 1] >= sub)
		(void) hash_search(notes.noted, &notes.runs[--notes.nruns], HASH_REMOVE, NULL);
}

/* wake_worker(): have the worker look at this database once the transaction has committed. */
Datum
run_tracker_wake_worker(PG_FUNCTION_ARGS)
{
	rt_note_check();
	PG_RETURN_BOOL(rt_shared_available());
}

/* ----------------------------------------------------------------
 * Commands that matter to the worker
 * ----------------------------------------------------------------
 */

/* A worker in the database would hold up the command; only for those who may give it. */
static void
stop_worker_in(const char *name)
{
	Oid dboid;

	if (!rt_shared_available())
		return;
	dboid = get_database_oid(name, true);
	if (OidIsValid(dboid) && rt_is_database_owner(dboid, GetUserId()))
		rt_shared_stop_worker(dboid);
}

/* What is left to do after a command. */
typedef enum Aftermath
{
	NOTHING,
	PREPARED_COMMITTED,
	DATABASES_CHANGED
} Aftermath;

/* An option of a command that has a value; NULL if it is not there. */
static DefElem *
find_option(List *options, const char *name)
{
	ListCell *lc;

	foreach(lc, options)
	{
		DefElem *option = lfirst_node(DefElem, lc);

		if (strcmp(option->defname, name) == 0 && option->arg)
			return option;
	}
	return NULL;
}

static Aftermath
before_command(Node *command)
{
	switch (nodeTag(command))
	{
		case T_TransactionStmt:
			if (((TransactionStmt *) command)->kind == TRANS_STMT_COMMIT_PREPARED)
				return PREPARED_COMMITTED;
			break;
		case T_DropdbStmt:
			stop_worker_in(((DropdbStmt *) command)->dbname);
			return DATABASES_CHANGED;
		case T_CreatedbStmt:
		{
			DefElem *template = find_option(((CreatedbStmt *) command)->options, "template");

			stop_worker_in(template ? defGetString(template) : "template1");
			return DATABASES_CHANGED;
		}
		case T_AlterDatabaseStmt:
			if (find_option(((AlterDatabaseStmt *) command)->options, "tablespace"))
				stop_worker_in(((AlterDatabaseStmt *) command)->dbname);
			return DATABASES_CHANGED;
		case T_RenameStmt:
			if (((RenameStmt *) command)->renameType == OBJECT_DATABASE)
				stop_worker_in(((RenameStmt *) command)->subname);
			break;
		default:
			break;
	}
	return NOTHING;
}

static void
after_command(Aftermath aftermath)
{
	if (aftermath == DATABASES_CHANGED)
		notes.databases = rt_shared_available();
	else if (aftermath == PREPARED_COMMITTED && OidIsValid(get_extension_oid("run_tracker", true)))
	{
		rt_note_check();
		if (rt_notify_mode == RT_NOTIFY_COMMIT)
			rt_notify_resync();
		else if (rt_notify_mode == RT_NOTIFY_WORKER)
		{
			notes.resync = true;
			notes.resync_subid = InvalidSubTransactionId;
		}
	}
}

/* Hook of utility commands.  The command may be gone with its transaction when it is done. */
static void
process_utility(PlannedStmt *pstmt, const char *queryString, bool readOnlyTree,
				ProcessUtilityContext context, ParamListInfo params, QueryEnvironment *queryEnv,
				DestReceiver *dest, QueryCompletion *qc)
{
	Aftermath aftermath = before_command(pstmt->utilityStmt);

	if (prev_ProcessUtility)
		prev_ProcessUtility(pstmt, queryString, readOnlyTree, context, params, queryEnv, dest, qc);
	else
		standard_ProcessUtility(pstmt, queryString, readOnlyTree, context, params, queryEnv, dest,
								qc);
	after_command(aftermath);
}

/* Register the callbacks and the hook; once per backend. */
void
rt_notes_init(void)
{
	RegisterXactCallback(at_xact_end, NULL);
	RegisterSubXactCallback(at_subxact_end, NULL);
	prev_ProcessUtility = ProcessUtility_hook;
	ProcessUtility_hook = process_utility;
}
