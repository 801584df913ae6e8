/*-------------------------------------------------------------------------
 *
 * lifecycles.c
 *		State machines: validated when they are defined (lifecycle_compile.c),
 *		kept as bit masks when they are used.
 *
 * A definition is a row of run_tracker.lifecycles.  A BEFORE ROW trigger validates
 * it whoever writes it; a statement trigger invalidates the relcache entry of the
 * table, which tells all backends at commit (and this one at once) that their
 * compiled definitions may be stale.
 *
 * Memory: each compiled lifecycle has a context of its own under CacheMemoryContext.
 * It is freed when the lifecycle is compiled again, so a pointer is good until the
 * next call of rt_lifecycle_get(), and no longer.
 *
 *-------------------------------------------------------------------------
 */
#include "run_tracker.h"

#include "access/table.h"
#include "access/tableam.h"
#include "common/hashfn.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "catalog.h"
#include "lifecycles.h"
#include "writer.h"

PG_FUNCTION_INFO_V1(run_tracker_lifecycles_before);
PG_FUNCTION_INFO_V1(run_tracker_lifecycles_after);
PG_FUNCTION_INFO_V1(run_tracker_define_lifecycle);
PG_FUNCTION_INFO_V1(run_tracker_drop_lifecycle);
PG_FUNCTION_INFO_V1(run_tracker_lifecycle_diagram);

typedef struct CacheEntry
{
	char name[NAMEDATALEN]; /* key */
	uint64 generation;
	MemoryContext context;
	RtLifecycle *lifecycle;
} CacheEntry;

static HTAB *cache = NULL;

/* ----------------------------------------------------------------
 * Looking lifecycles up
 * ----------------------------------------------------------------
 */

/* Read the definition of a lifecycle as it stands now; NULL if there is none. */
static Jsonb *
read_definition(const char *name)
{
	const RtTable *table = rt_table(RT_lifecycles);
	Relation rel = table_open(table->relid, AccessShareLock);
	Snapshot snapshot = rt_latest_snapshot();
	TableScanDesc scan = table_beginscan(rel, snapshot, 0, NULL);
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	Jsonb *definition = NULL;

	/* a handful of rows, read once per backend: no index is worth its code */
	table = rt_table(RT_lifecycles);
	while (definition == NULL && table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		bool isnull;
		Datum value = slot_getattr(slot, RT_ATT(table, lifecycles, name), &isnull);

		if (strcmp(TextDatumGetCString(value), name) == 0)
			definition = DatumGetJsonbPCopy(
				slot_getattr(slot, RT_ATT(table, lifecycles, definition), &isnull));
	}
	ExecDropSingleTupleTableSlot(slot);
	table_endscan(scan);
	UnregisterSnapshot(snapshot);
	table_close(rel, AccessShareLock);
	return definition;
}

/* Find a lifecycle by name; NULL if there is none.  See "Memory" above. */
const RtLifecycle *
rt_lifecycle_find(const char *name, int len)
{
	static CacheEntry *last = NULL;
	char key[NAMEDATALEN] = {0};
	uint64 generation = rt_lifecycle_generation();
	CacheEntry *entry;

	if (last && last->lifecycle && last->generation == generation &&
		last->lifecycle->name_len == len && memcmp(last->lifecycle->name, name, len) == 0)
		return last->lifecycle;

	if (len == 0 || len >= NAMEDATALEN)
		return NULL;
	memcpy(key, name, len);

	if (cache == NULL)
	{
		HASHCTL ctl = {0};

		ctl.keysize = NAMEDATALEN;
		ctl.entrysize = sizeof(CacheEntry);
		cache = hash_create("run_tracker lifecycles", 16, &ctl, HASH_ELEM | HASH_STRINGS);
	}

	entry = hash_search(cache, key, HASH_FIND, NULL);
	if (entry == NULL || entry->lifecycle == NULL || entry->generation != generation)
	{
		Jsonb *definition;
		MemoryContext context;
		MemoryContext oldcontext;
		RtLifecycle *lifecycle;

		if (entry)
		{
			entry->lifecycle = NULL;
			if (entry->context)
				MemoryContextDelete(entry->context);
			entry->context = NULL;
		}

		definition = read_definition(key);
		if (definition == NULL)
			return NULL;

		context = AllocSetContextCreate(CurrentMemoryContext, "run_tracker lifecycle",
										ALLOCSET_SMALL_SIZES);
		oldcontext = MemoryContextSwitchTo(context);
		lifecycle = rt_lifecycle_compile(key, definition);
		MemoryContextSwitchTo(oldcontext);

		/* names that are not known leave no entry: anyone can make them up */
		entry = hash_search(cache, key, HASH_ENTER, NULL);
		MemoryContextSetParent(context, CacheMemoryContext);
		/* if a change was announced meanwhile, the next caller compiles again */
		entry->context = context;
		entry->lifecycle = lifecycle;
		entry->generation = generation;
	}
	last = entry;
	return entry->lifecycle;
}

/* The lifecycle of a row; RT002 if there is none of that name. */
const RtLifecycle *
rt_lifecycle_get(Datum name)
{
	text *t = DatumGetTextPP(name);
	const RtLifecycle *lifecycle = rt_lifecycle_find(VARDATA_ANY(t), VARSIZE_ANY_EXHDR(t));

	if (lifecycle == NULL)
		ereport(ERROR, (errcode(ERRCODE_RT_UNKNOWN_STATUS), errmsg("unknown lifecycle"),
						errdetail("There is no lifecycle \"%s\".", text_to_cstring(t)),
						errhint("Lifecycles are listed in run_tracker.lifecycles, and made with "
								"run_tracker.define_lifecycle().")));
	return lifecycle;
}

/* The number of a state; -1 if there is none of that name. */
int
rt_lifecycle_state(const RtLifecycle *lifecycle, Datum status)
{
	text *t = DatumGetTextPP(status);

	return rt_lifecycle_find_state(lifecycle, VARDATA_ANY(t), VARSIZE_ANY_EXHDR(t));
}

/* The names of the states that may follow a state, or of all (from < 0), for messages. */
static char *
list_states(const RtLifecycle *lifecycle, int from)
{
	int n = from < 0 ? lifecycle->nstates : lifecycle->states[from].nnext;
	StringInfoData buf;

	initStringInfo(&buf);
	for (int i = 0; i < n; i++)
	{
		int state = from < 0 ? i : lifecycle->states[from].next_order[i];

		appendStringInfo(&buf, "%s%s", i > 0 ? ", " : "", lifecycle->states[state].name);
	}
	return n > 0 ? buf.data : pstrdup("none");
}

/* The number of a state; RT002 if there is none of that name. */
int
rt_lifecycle_state_required(const RtLifecycle *lifecycle, Datum status)
{
	int state = rt_lifecycle_state(lifecycle, status);

	if (state < 0)
		ereport(ERROR, (errcode(ERRCODE_RT_UNKNOWN_STATUS), errmsg("unknown status"),
						errdetail("Lifecycle \"%s\" has no status \"%s\".", lifecycle->name,
								  TextDatumGetCString(status)),
						errhint("It has: %s.", list_states(lifecycle, -1))));
	return state;
}

/* May one state follow another? */
bool
rt_lifecycle_allows(const RtLifecycle *lifecycle, int from, int to)
{
	return (lifecycle->states[from].next & (UINT64CONST(1) << to)) != 0;
}

/* The first state of a phase; -1 if the lifecycle has none. */
int
rt_lifecycle_first(const RtLifecycle *lifecycle, RtPhase phase)
{
	for (int i = 0; i < lifecycle->nstates; i++)
		if (lifecycle->states[i].phase == phase)
			return i;
	return -1;
}

/* The first state of a phase that may follow; -1 if there is none. */
int
rt_lifecycle_next(const RtLifecycle *lifecycle, int from, RtPhase phase)
{
	const RtState *state = &lifecycle->states[from];

	for (int i = 0; i < state->nnext; i++)
		if (lifecycle->states[state->next_order[i]].phase == phase)
			return state->next_order[i];
	return -1;
}

/*
 * The state in which the tracker itself ends an open row, because its time is up
 * (timed_out) or its run has ended (cancelled): of that phase, else a failed one,
 * else any finished one.  States that may follow are preferred, but there is always
 * an answer, since every lifecycle has a finished state.
 */
int
rt_lifecycle_closing(const RtLifecycle *lifecycle, int from, RtPhase phase)
{
	RtPhase wanted[] = {phase, RT_FAILED, RT_CANCELLED, RT_TIMED_OUT, RT_SUCCEEDED};

	for (int i = 0; i < lengthof(wanted); i++)
	{
		int to = rt_lifecycle_next(lifecycle, from, wanted[i]);

		if (to < 0)
			to = rt_lifecycle_first(lifecycle, wanted[i]);
		if (to >= 0)
			return to;
	}
	elog(ERROR, "lifecycle \"%s\" has no finished state", lifecycle->name);
	return -1; /* keep compiler quiet */
}

/* Refuse a transition: RT001, with what would be allowed. */
void
rt_lifecycle_refuse(const RtLifecycle *lifecycle, int from, const char *to, const char *table)
{
	const RtState *state = &lifecycle->states[from];

	ereport(ERROR,
			(errcode(ERRCODE_RT_INVALID_TRANSITION),
			 errmsg("invalid transition from \"%s\" to \"%s\"", state->name, to),
			 errdetail("Lifecycle \"%s\" allows from \"%s\": %s.", lifecycle->name, state->name,
					   list_states(lifecycle, from)),
			 !RT_PHASE_IS_OPEN(state->phase) ?
				 errhint("The %s is finished; only what its lifecycle lists may follow.", table) :
				 0));
}

/* ----------------------------------------------------------------
 * Triggers and functions
 * ----------------------------------------------------------------
 */

/* Fetch a column of the trigger's row; NULL when it is null. */
static Datum
row_value(HeapTuple row, TupleDesc desc, AttrNumber att)
{
	bool isnull;
	Datum value = heap_getattr(row, att, desc, &isnull);

	return isnull ? (Datum) 0 : value;
}

/*
 * Is there a row of a lifecycle (of any if null) in one of these states (in any if null)?
 * In the newest snapshot: that of the transaction may be from before the table was locked.
 */
static bool
state_in_use(const char *table, const char *lifecycle, ArrayType *names)
{
	Datum values[2] = {lifecycle ? CStringGetTextDatum(lifecycle) : (Datum) 0,
					   PointerGetDatum(names)};
	Oid types[2] = {TEXTOID, TEXTARRAYOID};
	char nulls[2] = {lifecycle ? ' ' : 'n', names ? ' ' : 'n'};
	SPIPlanPtr plan = SPI_prepare(psprintf("SELECT FROM run_tracker.%s "
										   "WHERE ($1 IS NULL OR lifecycle = $1) "
										   "AND ($2 IS NULL OR status = ANY ($2)) LIMIT 1",
										   table),
								  2, types);
	Snapshot snapshot = rt_latest_snapshot();

	if (plan == NULL || SPI_execute_snapshot(plan, values, nulls, snapshot, InvalidSnapshot, true,
											 false, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not search table %s", table);
	UnregisterSnapshot(snapshot);
	return SPI_processed > 0;
}

/*
 * Refuse to take away what rows use: a lifecycle, or all of them if null; all states, or
 * those in names.  The locks hold off writers until the change is committed; they then
 * check against the new definition.
 */
static void
check_unused(Relation rel, const char *lifecycle, ArrayType *names, const char *what)
{
	static const char *const users[] = {"runs", "tasks"};
	RtOwnerSwitch save;

	SPI_connect();
	rt_owner_enter(&save, rel);
	if (SPI_execute("LOCK TABLE run_tracker.runs, run_tracker.tasks IN SHARE MODE", false, 0) !=
		SPI_OK_UTILITY)
		elog(ERROR, "could not lock the tables");
	for (int i = 0; i < lengthof(users); i++)
	{
		if (state_in_use(users[i], lifecycle, names))
			ereport(ERROR,
					(errcode(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST),
					 lifecycle ? errmsg("lifecycle \"%s\" is in use", lifecycle) :
								 errmsg("lifecycles are in use"),
					 errdetail("Table run_tracker.%s has rows in %s.", users[i], what),
					 errhint("Add states and transitions only, or define another lifecycle.")));
	}
	rt_owner_leave(&save);
	SPI_finish();
}

/* States of the old definition that the new one lacks, or whose phase it changes. */
static ArrayType *
lost_states(const RtLifecycle *before, const RtLifecycle *after, char **list)
{
	Datum names[RT_MAX_STATES];
	StringInfoData buf;
	int n = 0;

	initStringInfo(&buf);
	for (int i = 0; i < before->nstates; i++)
	{
		const RtState *state = &before->states[i];
		int same = rt_lifecycle_find_state(after, state->name, state->name_len);

		if (same >= 0 && after->states[same].phase == state->phase)
			continue;
		appendStringInfo(&buf, "%s\"%s\"", n ? ", " : "", state->name);
		names[n++] = CStringGetTextDatum(state->name);
	}
	*list = buf.data;
	return n == 0 ? NULL : construct_array(names, n, TEXTOID, -1, false, TYPALIGN_INT);
}

/*
 * BEFORE INSERT OR UPDATE OR DELETE FOR EACH ROW on lifecycles: the definition
 * must be sound, and must not lose what rows use.
 */
Datum
run_tracker_lifecycles_before(PG_FUNCTION_ARGS)
{
	const RtTable *table =
		rt_trigger_check(fcinfo, RT_lifecycles, RT_BEFORE_ROW, "lifecycles_before");
	TriggerData *trigdata = (TriggerData *) fcinfo->context;
	Relation rel = trigdata->tg_relation;
	TupleDesc desc = RelationGetDescr(rel);
	AttrNumber name_att = RT_ATT(table, lifecycles, name);
	AttrNumber definition_att = RT_ATT(table, lifecycles, definition);
	bool has_old = !TRIGGER_FIRED_BY_INSERT(trigdata->tg_event);
	RtLifecycle *before = NULL;
	RtLifecycle *after = NULL;
	char *old_name = NULL;
	ArrayType *lost;
	char *list;

	if (has_old)
	{
		HeapTuple old = trigdata->tg_trigtuple;

		old_name = TextDatumGetCString(row_value(old, desc, name_att));
		before =
			rt_lifecycle_compile(old_name, DatumGetJsonbP(row_value(old, desc, definition_att)));
	}
	if (!TRIGGER_FIRED_BY_DELETE(trigdata->tg_event))
	{
		HeapTuple new = has_old ? trigdata->tg_newtuple : trigdata->tg_trigtuple;
		Datum name = row_value(new, desc, name_att);
		Datum definition = row_value(new, desc, definition_att);
		char *new_name;

		if (name == (Datum) 0 || definition == (Datum) 0)
			ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
							errmsg("a lifecycle needs a name and a definition"), errtable(rel)));
		new_name = TextDatumGetCString(name);
		if (strlen(new_name) == 0 || strlen(new_name) >= NAMEDATALEN)
			ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
							errmsg("invalid name of a lifecycle"),
							errdetail("\"%s\" must have 1 to %d bytes.", new_name, NAMEDATALEN - 1),
							errtable(rel)));
		after = rt_lifecycle_compile(new_name, DatumGetJsonbP(definition));
		if (has_old && strcmp(old_name, new_name) != 0)
			check_unused(rel, old_name, NULL, "this lifecycle");
	}

	if (TRIGGER_FIRED_BY_INSERT(trigdata->tg_event))
		return PointerGetDatum(trigdata->tg_trigtuple);

	if (TRIGGER_FIRED_BY_DELETE(trigdata->tg_event))
	{
		check_unused(rel, old_name, NULL, "this lifecycle");
		return PointerGetDatum(trigdata->tg_trigtuple);
	}

	lost = lost_states(before, after, &list);
	if (lost)
		check_unused(rel, old_name, lost,
					 psprintf("states that it would lose or change: %s", list));
	return PointerGetDatum(trigdata->tg_newtuple);
}

/* AFTER any change FOR EACH STATEMENT on lifecycles: tell all backends. */
Datum
run_tracker_lifecycles_after(PG_FUNCTION_ARGS)
{
	TriggerData *trigdata = (TriggerData *) fcinfo->context;

	(void) rt_trigger_check(fcinfo, RT_lifecycles, RT_AFTER_STATEMENT, "lifecycles_after");
	if (TRIGGER_FIRED_BY_TRUNCATE(trigdata->tg_event))
		check_unused(trigdata->tg_relation, NULL, NULL, "lifecycles that would be lost");
	CacheInvalidateRelcache(trigdata->tg_relation);
	return PointerGetDatum(NULL);
}

/* define_lifecycle(name, definition): create it, or change it. */
Datum
run_tracker_define_lifecycle(PG_FUNCTION_ARGS)
{
	Datum values[2];
	Oid types[2] = {TEXTOID, JSONBOID};

	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("a lifecycle needs a name and a definition")));
	(void) rt_table(RT_lifecycles);
	values[0] = PG_GETARG_DATUM(0);
	values[1] = PG_GETARG_DATUM(1);
	SPI_connect();
	if (SPI_execute_with_args("INSERT INTO run_tracker.lifecycles (name, definition) "
							  "VALUES ($1, $2) ON CONFLICT (name) DO UPDATE "
							  "SET definition = EXCLUDED.definition",
							  2, types, values, NULL, false, 0) != SPI_OK_INSERT)
		elog(ERROR, "could not store the lifecycle");
	SPI_finish();
	PG_RETURN_VOID();
}

/* drop_lifecycle(name): false if there was none. */
Datum
run_tracker_drop_lifecycle(PG_FUNCTION_ARGS)
{
	Datum values[1];
	Oid types[1] = {TEXTOID};
	bool dropped;

	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("a lifecycle needs a name")));
	(void) rt_table(RT_lifecycles);
	values[0] = PG_GETARG_DATUM(0);
	SPI_connect();
	if (SPI_execute_with_args("DELETE FROM run_tracker.lifecycles WHERE name = $1", 1, types,
							  values, NULL, false, 0) != SPI_OK_DELETE)
		elog(ERROR, "could not delete the lifecycle");
	dropped = SPI_processed > 0;
	SPI_finish();
	PG_RETURN_BOOL(dropped);
}

/* A state's name as Mermaid accepts it for an identifier. */
static void
append_mermaid_id(StringInfo buf, int state)
{
	appendStringInfo(buf, "s%d", state);
}

/* lifecycle_diagram(name) → a Mermaid state diagram. */
Datum
run_tracker_lifecycle_diagram(PG_FUNCTION_ARGS)
{
	const RtLifecycle *lifecycle;
	StringInfoData buf;

	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	lifecycle = rt_lifecycle_get(PG_GETARG_DATUM(0));

	initStringInfo(&buf);
	appendStringInfoString(&buf, "stateDiagram-v2\n");
	for (int i = 0; i < lifecycle->nstates; i++)
	{
		appendStringInfoString(&buf, "    state \"");
		for (char *c = lifecycle->states[i].name; *c; c++)
		{
			/* what would end the string has an entity of its own */
			if (*c == '"')
				appendStringInfoString(&buf, "#quot;");
			else if (*c == '\n' || *c == '\r')
				appendStringInfoChar(&buf, ' ');
			else
				appendStringInfoChar(&buf, *c);
		}
		appendStringInfo(&buf, " (%s)\" as ", rt_phase_names[lifecycle->states[i].phase]);
		append_mermaid_id(&buf, i);
		appendStringInfoChar(&buf, '\n');
	}
	appendStringInfoString(&buf, "    [*] --> ");
	append_mermaid_id(&buf, lifecycle->initial);
	appendStringInfoChar(&buf, '\n');
	for (int i = 0; i < lifecycle->nstates; i++)
	{
		const RtState *state = &lifecycle->states[i];

		for (int n = 0; n < state->nnext; n++)
		{
			appendStringInfoString(&buf, "    ");
			append_mermaid_id(&buf, i);
			appendStringInfoString(&buf, " --> ");
			append_mermaid_id(&buf, state->next_order[n]);
			appendStringInfoChar(&buf, '\n');
		}
		if (!RT_PHASE_IS_OPEN(state->phase))
		{
			appendStringInfoString(&buf, "    ");
			append_mermaid_id(&buf, i);
			appendStringInfoString(&buf, " --> [*]\n");
		}
	}
	PG_RETURN_TEXT_P(cstring_to_text_with_len(buf.data, buf.len));
}
