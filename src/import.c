/*-------------------------------------------------------------------------
 *
 * import.c
 *		Copying the rows of an old table, all that can be copied.
 *
 * The rows are read once, in pieces, and each piece is inserted by one statement in a
 * subtransaction.  A piece that fails is divided, until the rows are found that are to
 * blame.  Thus what is sound costs one statement for thousands of rows, whatever else
 * there is; and the source may be anything that can be read, with or without a key.
 *
 * The statements are made by import_statements(), which nobody need be allowed to call: the
 * owner of the tables does, and the caller runs them.  They find the piece as the relation
 * "imported" and take its part from row $1 on, $2 rows.
 *
 * Locking protocol: one import into a table at a time, under an advisory lock: imports
 * of the same rows in another order would deadlock.
 *
 * Memory: a piece is limited in rows and bytes, and kept in a tuplestore, where long
 * values of tables stay out of line.
 *
 *-------------------------------------------------------------------------
 */
#include "run_tracker.h"

#include "access/detoast.h"
#include "access/table.h"
#include "catalog/pg_type_d.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/json.h"
#include "utils/memutils.h"
#include "utils/queryenvironment.h"
#include "utils/tuplestore.h"

#include "attempt.h"
#include "calls.h"
#include "catalog.h"
#include "identity.h"
#include "writer.h"

PG_FUNCTION_INFO_V1(run_tracker_import_table);

/* what a piece has at most; it may be more bytes by one row */
#define PIECE_ROWS	8192
#define PIECE_BYTES ((Size) 16 * 1024 * 1024)

/* into how many parts one is divided that fails: the more, the fewer rows are inserted in vain */
#define PARTS 16

/* refusals that are told one by one, and bytes of what is said of each */
#define MAX_REFUSALS	  1000
#define MAX_MESSAGE_BYTES 500

/* class of the advisory lock: another one than those of sequence.c and stats_fold.c */
#define RT_LOCK_CLASS 0x5256

/* The statements, in the order in which import_statements() gives them. */
typedef enum Step
{
	READ,
	BEFORE,
	WRITE,
	MISSING,
	KEYS,
	AFTER
} Step;

#define NSTEPS (AFTER + 1)

typedef struct Import
{
	char *sql[NSTEPS]; /* BEFORE and AFTER may be NULL */
	SPIPlanPtr plans[NSTEPS];
	Portal source;
	EphemeralNamedRelationData imported;
	int64 nrows; /* of the piece */
	MemoryContext piece_context;
	int64 copied;
	int64 present;
	int64 refused;
	StringInfoData refusals;
} Import;

/* A part of the piece that is being copied. */
typedef struct Part
{
	int64 first;
	int64 n;
	int64 copied;
	int64 nmissing;
	char *(*missing)[4]; /* key, SQLSTATE, message and detail of rows that are not there */
} Part;

static Oid argument_types[] = {INT8OID, INT8OID, UUIDARRAYOID};

/*
 * A plan for small parts of the piece, of which there may be thousands.  Not for those of
 * later pieces, too: the table may have grown, and should not be read whole then.
 */
static void
prepare(Import *import, Step step)
{
	if (import->plans[step])
		return;
	import->imported.md.enrtuples = 1;
	import->plans[step] = SPI_prepare_cursor(import->sql[step], step == AFTER ? 3 : 2,
											 argument_types, CURSOR_OPT_GENERIC_PLAN);
	if (import->plans[step] == NULL)
		elog(ERROR, "could not prepare \"%s\": %s", import->sql[step],
			 SPI_result_code_string(SPI_result));
}

/* Run a statement over a part; the rows it has returned are in SPI_tuptable. */
static void
execute(Import *import, Step step, const Part *part, Datum keys)
{
	Datum values[] = {Int64GetDatum(part->first), Int64GetDatum(part->n), keys};
	MemoryContext context = CurrentMemoryContext;
	int result;

	if (import->plans[step])
		result = SPI_execute_plan(import->plans[step], values, NULL, false, 0);
	else
		result = SPI_execute_with_args(import->sql[step], step == AFTER ? 3 : 2, argument_types,
									   values, NULL, false, 0);
	MemoryContextSwitchTo(context);
	if (result < 0)
		elog(ERROR, "could not execute \"%s\": %s", import->sql[step],
			 SPI_result_code_string(result));
}

/* The first column of the rows returned, ids of what was inserted, as an array. */
static Datum
returned_keys(void)
{
	uint64 n = SPI_processed;
	Datum *keys = palloc(sizeof(Datum) * n);
	bool isnull;

	if (SPI_tuptable == NULL || SPI_gettypeid(SPI_tuptable->tupdesc, 1) != UUIDOID)
		elog(ERROR, "statement does not return ids");
	for (uint64 i = 0; i < n; i++)
		keys[i] = SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1, &isnull);
	return PointerGetDatum(construct_array(keys, n, UUIDOID, UUID_LEN, false, TYPALIGN_CHAR));
}

/* Copy a part of the piece; an RtStep. */
static void
copy_part(void *arg1, void *arg2)
{
	Import *import = arg1;
	Part *part = arg2;

	if (import->sql[BEFORE])
		execute(import, BEFORE, part, 0);
	execute(import, WRITE, part, 0);
	part->copied = SPI_processed;
	if (part->copied > 0 && import->sql[AFTER])
		execute(import, AFTER, part, returned_keys());

	part->nmissing = 0;
	if (part->copied < part->n)
	{
		execute(import, MISSING, part, 0);
		part->nmissing = SPI_processed;
		part->missing = palloc(sizeof(*part->missing) * Max(part->nmissing, 1));
		for (int64 i = 0; i < part->nmissing; i++)
			for (int j = 0; j < 4; j++)
			{
				char *value = SPI_getvalue(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, j + 1);

				part->missing[i][j] = value ? pstrdup(value) : NULL;
			}
	}
}

/* Append a string as JSON, its beginning if it is long. */
static void
append_text(StringInfo json, const char *name, const char *value)
{
	if (value)
	{
		char *clipped = pnstrdup(value, pg_mbcliplen(value, strlen(value), MAX_MESSAGE_BYTES));

		appendStringInfo(json, ", \"%s\": ", name);
		escape_json(json, clipped);
		pfree(clipped);
	}
}

static void
refuse(Import *import, const char *key, const char *sqlstate, const char *message,
	   const char *detail)
{
	if (import->refused++ >= MAX_REFUSALS)
		return;
	appendStringInfo(&import->refusals, "%s{\"key\": %s", import->refused > 1 ? ", " : "", key);
	append_text(&import->refusals, "sqlstate", sqlstate);
	append_text(&import->refusals, "message", message);
	append_text(&import->refusals, "detail", detail);
	appendStringInfoChar(&import->refusals, '}');
}

/* Is an error about the circumstances, or about the import as a whole, not about a row? */
static bool
is_circumstance(int sqlerrcode)
{
	switch (ERRCODE_TO_CATEGORY(sqlerrcode))
	{
		case ERRCODE_TRANSACTION_ROLLBACK:
		case ERRCODE_INVALID_TRANSACTION_STATE:
		case ERRCODE_SYNTAX_ERROR_OR_ACCESS_RULE_VIOLATION:
		case ERRCODE_INSUFFICIENT_RESOURCES:
		case ERRCODE_OPERATOR_INTERVENTION:
		case ERRCODE_SYSTEM_ERROR:
		case ERRCODE_INTERNAL_ERROR:
			return true;
		default:
			return sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE ||
				   sqlerrcode == ERRCODE_OBJECT_IN_USE ||
				   sqlerrcode == ERRCODE_STATEMENT_TOO_COMPLEX;
	}
}

/* Copy n rows of the piece from one on, but for those that cannot be. */
static void
copy_rows(Import *import, int64 first, int64 n)
{
	Part part = {.first = first, .n = n};
	ErrorData *error;

	if (n < import->nrows)
		for (Step step = BEFORE; step < NSTEPS; step++)
			if (import->sql[step])
				prepare(import, step);
	error = rt_attempt(copy_part, import, &part, 0);
	if (error == NULL)
	{
		import->copied += part.copied;
		import->present += n - part.copied - part.nmissing;
		for (int64 i = 0; i < part.nmissing; i++)
			refuse(import, part.missing[i][0], part.missing[i][1], part.missing[i][2],
				   part.missing[i][3]);
	}
	else if (is_circumstance(error->sqlerrcode))
		ReThrowError(error);
	else if (n > 1)
	{
		int64 size = (n + PARTS - 1) / PARTS;

		FreeErrorData(error);
		for (int64 i = 0; i < n; i += size)
			copy_rows(import, first + i, Min(size, n - i));
	}
	else
	{
		execute(import, KEYS, &part, 0);
		refuse(import, SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1),
			   unpack_sql_state(error->sqlerrcode), error->message, error->detail);
	}
}

/* The bytes of a row, as they will have to be handled. */
static Size
row_size(HeapTuple row, TupleDesc desc)
{
	Size size = row->t_len;

	for (int i = 0; i < desc->natts; i++)
	{
		bool isnull;
		Datum value;

		if (TupleDescAttr(desc, i)->attlen != -1)
			continue;
		value = heap_getattr(row, i + 1, desc, &isnull);
		if (!isnull && VARATT_IS_EXTENDED(DatumGetPointer(value)))
			size += toast_raw_datum_size(value);
	}
	return size;
}

/* Read the next piece; returns the number of its rows, 0 at the end. */
static int64
read_piece(Import *import, Tuplestorestate *rows)
{
	int64 n = 0;
	Size size = 0;

	while (n < PIECE_ROWS && size < PIECE_BYTES)
	{
		CHECK_FOR_INTERRUPTS();
		SPI_cursor_fetch(import->source, true, 1);
		if (SPI_processed == 0)
			break;
		size += row_size(SPI_tuptable->vals[0], SPI_tuptable->tupdesc);
		tuplestore_puttuple(rows, SPI_tuptable->vals[0]);
		SPI_freetuptable(SPI_tuptable);
		n++;
	}
	return n;
}

/* Copy the piece that has been read. */
static void
copy_piece(Import *import)
{
	MemoryContext context = MemoryContextSwitchTo(import->piece_context);

	import->imported.md.enrtuples = import->nrows;
	copy_rows(import, 0, import->nrows);
	for (Step step = BEFORE; step < NSTEPS; step++)
	{
		if (import->plans[step])
			SPI_freeplan(import->plans[step]);
		import->plans[step] = NULL;
	}
	MemoryContextSwitchTo(context);
	MemoryContextReset(import->piece_context);
}

/* Copy all rows of the source. */
static void
copy_source(Import *import)
{
	SPIPlanPtr plan = SPI_prepare(import->sql[READ], 0, NULL);

	if (plan == NULL)
		elog(ERROR, "could not prepare \"%s\": %s", import->sql[READ],
			 SPI_result_code_string(SPI_result));
	import->source = SPI_cursor_open(NULL, plan, NULL, NULL, false);
	import->imported.md.name = "imported";
	import->imported.md.reliddesc = InvalidOid;
	import->imported.md.tupdesc = CreateTupleDescCopy(import->source->tupDesc);
	import->imported.md.enrtype = ENR_NAMED_TUPLESTORE;
	if (SPI_register_relation(&import->imported) != SPI_OK_REL_REGISTER)
		elog(ERROR, "could not register the rows");
	do
	{
		Tuplestorestate *rows = tuplestore_begin_heap(false, false, work_mem);

		import->imported.reldata = rows;
		import->nrows = read_piece(import, rows);
		if (import->nrows > 0)
			copy_piece(import);
		tuplestore_end(rows);
	} while (import->nrows > 0);
	SPI_cursor_close(import->source);
}

/* Ask for the statements, as the owner of the tables; returns the table, and ignored columns. */
static Oid
make_statements(Import *import, FunctionCallInfo fcinfo, Datum *ignored)
{
	static RtPlan plan = {"SELECT * FROM run_tracker.import_statements($1, $2, $3)",
						  3,
						  {TEXTOID, REGCLASSOID, TEXTOID}};
	Relation rel = table_open(rt_table(RT_runs)->relid, AccessShareLock);
	RtOwnerSwitch save;
	HeapTuple row;
	TupleDesc desc;
	Oid target;
	bool isnull;

	rt_owner_enter(&save, rel);
	rt_plan_execute(&plan, fcinfo->args, SPI_OK_SELECT, true);
	rt_owner_leave(&save);
	table_close(rel, NoLock);
	row = SPI_tuptable->vals[0];
	desc = SPI_tuptable->tupdesc;
	target = DatumGetObjectId(SPI_getbinval(row, desc, 1, &isnull));
	*ignored = SPI_datumTransfer(SPI_getbinval(row, desc, 2, &isnull), false, -1);
	for (int i = 0; i < NSTEPS; i++)
		import->sql[i] = SPI_getvalue(row, desc, i + 3);
	return target;
}

/* import_table(application, source, relation) → copied, present, refused, refusals, ignored */
Datum
run_tracker_import_table(PG_FUNCTION_ARGS)
{
	Import import = {0};
	MemoryContext context = CurrentMemoryContext;
	TupleDesc desc;
	LOCKTAG tag;
	Datum values[5];
	bool nulls[5] = {false};
	Oid target;

	PreventCommandIfReadOnly("import_table()");
	PreventCommandDuringRecovery("import_table()");
	if (!rt_identity_is_service())
		ereport(ERROR, (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
						errmsg("only services may import tables")));
	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	import.piece_context =
		AllocSetContextCreate(context, "run_tracker import", ALLOCSET_DEFAULT_SIZES);
	initStringInfo(&import.refusals);
	appendStringInfoChar(&import.refusals, '[');

	SPI_connect();
	target = make_statements(&import, fcinfo, &values[4]);
	SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, 0, target, RT_LOCK_CLASS);
	(void) LockAcquire(&tag, ExclusiveLock, false, false);
	copy_source(&import);
	SPI_finish();
	MemoryContextSwitchTo(context);

	appendStringInfoChar(&import.refusals, ']');
	values[0] = Int64GetDatum(import.copied);
	values[1] = Int64GetDatum(import.present);
	values[2] = Int64GetDatum(import.refused);
	values[3] = DirectFunctionCall1(jsonb_in, CStringGetDatum(import.refusals.data));
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}
