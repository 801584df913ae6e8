/*-------------------------------------------------------------------------
 *
 * lifecycles.c
 *		State machines: validated when they are defined, compiled to bit masks
 *		when they are used.
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
PG_FUNCTION_INFO_V1(run_tracker_closing_status);

typedef struct CacheEntry
{
	char name[NAMEDATALEN]; /* key */
	uint64 generation;
	MemoryContext context;
	RtLifecycle *lifecycle;
} CacheEntry;

static HTAB *cache = NULL;

/* ----------------------------------------------------------------
 * Compiling a definition
 * ----------------------------------------------------------------
 */

/* What the compiler is looking at, for its messages. */
typedef struct Place
{
	const char *lifecycle;
	const char *state; /* or NULL */
} Place;

/* Refuse a definition: say what is wrong where. */
#define malformed(place, ...)                                                                      \
	ereport(ERROR,                                                                                 \
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),                                             \
			 errmsg("invalid definition of lifecycle \"%s\"", (place)->lifecycle),                 \
			 errdetail(__VA_ARGS__),                                                               \
			 errhint("A definition looks like {\"initial\": \"pending\", \"timeout\": "            \
					 "\"60 seconds\", \"states\": {\"pending\": {\"phase\": \"queued\", "          \
					 "\"next\": [\"done\"]}, \"done\": {\"phase\": \"succeeded\"}}}.")))

static char *
value_string(const JsonbValue *value)
{
	return pnstrdup(value->val.string.val, value->val.string.len);
}

static int
find_state(const RtLifecycle *lifecycle, const char *name, int len)
{
	for (int i = 0; i < lifecycle->nstates; i++)
		if (lifecycle->states[i].name_len == len &&
			memcmp(lifecycle->states[i].name, name, len) == 0)
			return i;
	return -1;
}

static void
timeout_context(void *arg)
{
	Place *place = arg;

	if (place->state)
		errcontext("\"timeout\" of state \"%s\" of lifecycle \"%s\"",
				   place->state,
				   place->lifecycle);
	else
		errcontext("\"timeout\" of lifecycle \"%s\"", place->lifecycle);
}

/* Read a timeout; false for null. */
static bool
compile_timeout(Place *place, const JsonbValue *value, Interval *timeout)
{
	ErrorContextCallback callback;
	Interval *parsed;
	Interval zero = {0};

	if (value->type == jbvNull)
		return false;
	if (value->type != jbvString)
		malformed(place,
				  "\"timeout\" of %s must be an interval in a string, or null.",
				  place->state ? psprintf("state \"%s\"", place->state) : "the lifecycle");

	callback.callback = timeout_context;
	callback.arg = place;
	callback.previous = error_context_stack;
	error_context_stack = &callback;
	parsed = DatumGetIntervalP(DirectFunctionCall3(interval_in,
												   CStringGetDatum(value_string(value)),
												   ObjectIdGetDatum(InvalidOid),
												   Int32GetDatum(-1)));
	error_context_stack = callback.previous;

	if (DatumGetBool(
			DirectFunctionCall2(interval_le, IntervalPGetDatum(parsed), IntervalPGetDatum(&zero))))
		malformed(place,
				  "\"timeout\" of %s must be positive.",
				  place->state ? psprintf("state \"%s\"", place->state) : "the lifecycle");
	*timeout = *parsed;
	return true;
}

/* First pass: the names of the states, so that "next" can refer to them. */
static void
compile_names(Place *place, RtLifecycle *lifecycle, JsonbContainer *states)
{
	JsonbIterator *it = JsonbIteratorInit(states);
	JsonbValue value;
	JsonbIteratorToken token;

	if (JsonContainerSize(states) == 0)
		malformed(place, "\"states\" is empty.");
	if (JsonContainerSize(states) > RT_MAX_STATES)
		malformed(place,
				  "\"states\" has %d states, at most %d are possible.",
				  (int) JsonContainerSize(states),
				  RT_MAX_STATES);

	lifecycle->states = palloc0(sizeof(RtState) * JsonContainerSize(states));
	while ((token = JsonbIteratorNext(&it, &value, true)) != WJB_DONE)
	{
		RtState *state;

		if (token != WJB_KEY)
			continue;
		state = &lifecycle->states[lifecycle->nstates++];
		state->name = value_string(&value);
		state->name_len = value.val.string.len;
		if (state->name_len == 0 || state->name_len >= NAMEDATALEN)
			malformed(place,
					  "State \"%s\" must have a name of 1 to %d bytes.",
					  state->name,
					  NAMEDATALEN - 1);
	}
}

/* Second pass: one state. */
static void
compile_state(Place *place, RtLifecycle *lifecycle, RtState *state, const JsonbValue *definition)
{
	JsonbIterator *it;
	JsonbValue value;
	JsonbIteratorToken token;
	bool has_phase = false;

	place->state = state->name;
	if (definition->type != jbvBinary || !JsonContainerIsObject(definition->val.binary.data))
		malformed(place, "State \"%s\" must be an object.", state->name);

	it = JsonbIteratorInit(definition->val.binary.data);
	while ((token = JsonbIteratorNext(&it, &value, true)) != WJB_DONE)
	{
		char *key;

		if (token != WJB_KEY)
			continue;
		key = value_string(&value);
		(void) JsonbIteratorNext(&it, &value, true);

		if (strcmp(key, "phase") == 0)
		{
			int phase;

			if (value.type != jbvString)
				malformed(place, "\"phase\" of state \"%s\" must be a string.", state->name);
			for (phase = 0; phase < RT_NPHASES; phase++)
				if (strcmp(value_string(&value), rt_phase_names[phase]) == 0)
					break;
			if (phase == RT_NPHASES)
				malformed(place,
						  "\"phase\" of state \"%s\" is \"%s\", it must be one of queued, active, "
						  "waiting, succeeded, failed, cancelled, timed_out.",
						  state->name,
						  value_string(&value));
			state->phase = (RtPhase) phase;
			has_phase = true;
		}
		else if (strcmp(key, "next") == 0)
		{
			JsonbIterator *next_it;
			JsonbValue next;

			if (value.type != jbvBinary || !JsonContainerIsArray(value.val.binary.data))
				malformed(place, "\"next\" of state \"%s\" must be an array.", state->name);
			next_it = JsonbIteratorInit(value.val.binary.data);
			while ((token = JsonbIteratorNext(&next_it, &next, true)) != WJB_DONE)
			{
				int to;

				if (token != WJB_ELEM)
					continue;
				if (next.type != jbvString)
					malformed(place,
							  "\"next\" of state \"%s\" must hold names of states only.",
							  state->name);
				to = find_state(lifecycle, next.val.string.val, next.val.string.len);
				if (to < 0)
					malformed(place,
							  "\"next\" of state \"%s\" names \"%s\", which is no state.",
							  state->name,
							  value_string(&next));
				if (&lifecycle->states[to] == state)
					malformed(place,
							  "\"next\" of state \"%s\" names the state itself.",
							  state->name);
				if (state->next & (UINT64CONST(1) << to))
					malformed(place,
							  "\"next\" of state \"%s\" names \"%s\" twice.",
							  state->name,
							  value_string(&next));
				state->next |= UINT64CONST(1) << to;
				state->next_order[state->nnext++] = (uint8) to;
			}
		}
		else if (strcmp(key, "timeout") == 0)
			state->has_timeout = compile_timeout(place, &value, &state->timeout);
		else
			malformed(place, "State \"%s\" has an unknown key \"%s\".", state->name, key);
	}
	if (!has_phase)
		malformed(place, "State \"%s\" has no \"phase\".", state->name);
	place->state = NULL;
}

/* The states that can be reached from the initial one, or that can reach a finished one. */
static uint64
closure(const RtLifecycle *lifecycle, uint64 states, bool backwards)
{
	uint64 before;

	do
	{
		before = states;
		for (int i = 0; i < lifecycle->nstates; i++)
		{
			if (backwards)
			{
				if (lifecycle->states[i].next & states)
					states |= UINT64CONST(1) << i;
			}
			else if (states & (UINT64CONST(1) << i))
				states |= lifecycle->states[i].next;
		}
	} while (states != before);
	return states;
}

/* What can only be said of the machine as a whole. */
static void
check_machine(Place *place, const RtLifecycle *lifecycle)
{
	uint64 finished = 0;
	uint64 reachable;
	uint64 ending;
	bool fails = false;

	if (!RT_PHASE_IS_OPEN(lifecycle->states[lifecycle->initial].phase))
		malformed(place,
				  "The initial state \"%s\" is finished (%s).",
				  lifecycle->states[lifecycle->initial].name,
				  rt_phase_names[lifecycle->states[lifecycle->initial].phase]);

	for (int i = 0; i < lifecycle->nstates; i++)
	{
		const RtState *state = &lifecycle->states[i];

		if (!RT_PHASE_IS_OPEN(state->phase))
			finished |= UINT64CONST(1) << i;
		if (state->phase == RT_FAILED || state->phase == RT_TIMED_OUT)
			fails = true;
		if (state->has_timeout && !RT_PHASE_IS_OPEN(state->phase))
			malformed(place,
					  "State \"%s\" is finished and cannot have a \"timeout\".",
					  state->name);
		if (state->has_timeout && state->phase == RT_WAITING)
			malformed(place, "State \"%s\" is waiting and cannot have a \"timeout\".", state->name);
	}
	if (finished == 0)
		malformed(place, "No state is finished (succeeded, failed, cancelled or timed_out).");

	reachable = closure(lifecycle, UINT64CONST(1) << lifecycle->initial, false);
	ending = closure(lifecycle, finished, true);
	for (int i = 0; i < lifecycle->nstates; i++)
	{
		const RtState *state = &lifecycle->states[i];
		uint64 bit = UINT64CONST(1) << i;

		if (!(reachable & bit))
			malformed(place,
					  "State \"%s\" cannot be reached from the initial state \"%s\".",
					  state->name,
					  lifecycle->states[lifecycle->initial].name);
		if (!(ending & bit))
			malformed(place, "No way leads from state \"%s\" to a finished state.", state->name);
		if (state->has_timeout && !fails)
			malformed(place,
					  "State \"%s\" has a timeout, but there is no state of phase timed_out or "
					  "failed to go to.",
					  state->name);
	}
}

/* Compile a definition in the current memory context; an error if it is malformed. */
static RtLifecycle *
compile(const char *name, Jsonb *definition)
{
	Place place = {name, NULL};
	RtLifecycle *lifecycle = palloc0(sizeof(RtLifecycle));
	JsonbValue states = {.type = jbvNull};
	JsonbValue initial = {.type = jbvNull};
	JsonbValue timeout_value = {.type = jbvNull};
	JsonbIterator *it;
	JsonbValue value;
	JsonbIteratorToken token;
	Interval timeout;
	bool has_timeout = false;

	lifecycle->name = pstrdup(name);
	lifecycle->name_len = strlen(name);

	if (!JB_ROOT_IS_OBJECT(definition))
		malformed(&place, "The definition must be an object.");

	it = JsonbIteratorInit(&definition->root);
	while ((token = JsonbIteratorNext(&it, &value, true)) != WJB_DONE)
	{
		char *key;

		if (token != WJB_KEY)
			continue;
		key = value_string(&value);
		(void) JsonbIteratorNext(&it, &value, true);
		if (strcmp(key, "states") == 0)
			states = value;
		else if (strcmp(key, "initial") == 0)
			initial = value;
		else if (strcmp(key, "timeout") == 0)
			timeout_value = value;
		else
			malformed(&place, "Unknown key \"%s\".", key);
	}

	if (states.type != jbvBinary || !JsonContainerIsObject(states.val.binary.data))
		malformed(&place, "\"states\" must be there, and be an object.");
	if (initial.type != jbvString)
		malformed(&place, "\"initial\" must be there, and name a state.");

	compile_names(&place, lifecycle, states.val.binary.data);
	lifecycle->initial = find_state(lifecycle, initial.val.string.val, initial.val.string.len);
	if (lifecycle->initial < 0)
		malformed(&place, "\"initial\" names \"%s\", which is no state.", value_string(&initial));
	has_timeout = compile_timeout(&place, &timeout_value, &timeout);

	for (int i = 0; i < lifecycle->nstates; i++)
	{
		RtState *state = &lifecycle->states[i];
		JsonbValue *definition_value;
		JsonbValue own;

		definition_value = getKeyJsonValueFromContainer(states.val.binary.data,
														state->name,
														state->name_len,
														NULL);
		compile_state(&place, lifecycle, state, definition_value);

		/* a timeout is inherited unless the state says otherwise, even "null" */
		if (has_timeout && (state->phase == RT_QUEUED || state->phase == RT_ACTIVE) &&
			getKeyJsonValueFromContainer(definition_value->val.binary.data, "timeout", 7, &own) ==
				NULL)
		{
			state->has_timeout = true;
			state->timeout = timeout;
		}
	}
	check_machine(&place, lifecycle);
	return lifecycle;
}

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
	bool found;

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

	entry = hash_search(cache, key, HASH_ENTER, &found);
	if (!found)
	{
		entry->context = NULL;
		entry->lifecycle = NULL;
	}
	if (entry->lifecycle == NULL || entry->generation != generation)
	{
		Jsonb *definition;
		MemoryContext context;
		MemoryContext oldcontext;
		RtLifecycle *lifecycle;

		entry->lifecycle = NULL;
		if (entry->context)
			MemoryContextDelete(entry->context);
		entry->context = NULL;

		definition = read_definition(key);
		if (definition == NULL)
			return NULL;

		context = AllocSetContextCreate(CurrentMemoryContext,
										"run_tracker lifecycle",
										ALLOCSET_SMALL_SIZES);
		oldcontext = MemoryContextSwitchTo(context);
		lifecycle = compile(key, definition);
		MemoryContextSwitchTo(oldcontext);
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
		ereport(ERROR,
				(errcode(ERRCODE_RT_UNKNOWN_STATUS),
				 errmsg("unknown lifecycle"),
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

	return find_state(lifecycle, VARDATA_ANY(t), VARSIZE_ANY_EXHDR(t));
}

/* The names of states, for messages. */
static char *
list_states(const RtLifecycle *lifecycle, uint64 states)
{
	StringInfoData buf;

	initStringInfo(&buf);
	for (int i = 0; i < lifecycle->nstates; i++)
		if (states & (UINT64CONST(1) << i))
			appendStringInfo(&buf, "%s%s", buf.len ? ", " : "", lifecycle->states[i].name);
	return buf.len ? buf.data : pstrdup("none");
}

/* The number of a state; RT002 if there is none of that name. */
int
rt_lifecycle_state_required(const RtLifecycle *lifecycle, Datum status)
{
	int state = rt_lifecycle_state(lifecycle, status);

	if (state < 0)
		ereport(ERROR,
				(errcode(ERRCODE_RT_UNKNOWN_STATUS),
				 errmsg("unknown status"),
				 errdetail("Lifecycle \"%s\" has no status \"%s\".",
						   lifecycle->name,
						   TextDatumGetCString(status)),
				 errhint("It has: %s.", list_states(lifecycle, PG_UINT64_MAX))));
	return state;
}

/* May one state follow another? */
bool
rt_lifecycle_allows(const RtLifecycle *lifecycle, int from, int to)
{
	return (lifecycle->states[from].next & (UINT64CONST(1) << to)) != 0;
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

		if (to >= 0)
			return to;
		for (to = 0; to < lifecycle->nstates; to++)
			if (lifecycle->states[to].phase == wanted[i])
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
			 errdetail("Lifecycle \"%s\" allows from \"%s\": %s.",
					   lifecycle->name,
					   state->name,
					   list_states(lifecycle, state->next)),
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

/* Is there a row with one of these states (all states if names is null)? */
static bool
state_in_use(const char *table, const char *lifecycle, ArrayType *names)
{
	Datum values[2] = {CStringGetTextDatum(lifecycle), PointerGetDatum(names)};
	Oid types[2] = {TEXTOID, TEXTARRAYOID};
	char nulls[2] = {' ', names ? ' ' : 'n'};
	char *sql = psprintf("SELECT FROM run_tracker.%s WHERE lifecycle = $1 "
						 "AND ($2 IS NULL OR status = ANY ($2)) LIMIT 1",
						 table);
	bool found;

	if (SPI_execute_with_args(sql, 2, types, values, nulls, false, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not search table %s for lifecycle \"%s\"", table, lifecycle);
	found = SPI_processed > 0;
	return found;
}

/*
 * Refuse to take away what rows use.  The locks hold off writers until the change
 * is committed; they then check against the new definition.
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
					 errmsg("lifecycle \"%s\" is in use", lifecycle),
					 errdetail("Table run_tracker.%s has rows in %s.", users[i], what)));
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
		int same = find_state(after, state->name, state->name_len);

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
		before = compile(old_name, DatumGetJsonbP(row_value(old, desc, definition_att)));
	}
	if (!TRIGGER_FIRED_BY_DELETE(trigdata->tg_event))
	{
		HeapTuple new = has_old ? trigdata->tg_newtuple : trigdata->tg_trigtuple;
		Datum name = row_value(new, desc, name_att);
		Datum definition = row_value(new, desc, definition_att);
		char *new_name;

		if (name == (Datum) 0 || definition == (Datum) 0)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("a lifecycle needs a name and a definition"),
					 errtable(rel)));
		new_name = TextDatumGetCString(name);
		if (strlen(new_name) == 0 || strlen(new_name) >= NAMEDATALEN)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("invalid name of a lifecycle"),
					 errdetail("\"%s\" must have 1 to %d bytes.", new_name, NAMEDATALEN - 1),
					 errtable(rel)));
		after = compile(new_name, DatumGetJsonbP(definition));
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
		check_unused(rel,
					 old_name,
					 lost,
					 psprintf("states that it would lose or change: %s", list));
	return PointerGetDatum(trigdata->tg_newtuple);
}

/* AFTER any change FOR EACH STATEMENT on lifecycles: tell all backends. */
Datum
run_tracker_lifecycles_after(PG_FUNCTION_ARGS)
{
	(void) rt_trigger_check(fcinfo, RT_lifecycles, RT_AFTER_STATEMENT, "lifecycles_after");
	CacheInvalidateRelcache(((TriggerData *) fcinfo->context)->tg_relation);
	return PointerGetDatum(NULL);
}

/* define_lifecycle(name, definition): create it, or change it. */
Datum
run_tracker_define_lifecycle(PG_FUNCTION_ARGS)
{
	Datum values[2];
	Oid types[2] = {TEXTOID, JSONBOID};

	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a lifecycle needs a name and a definition")));
	(void) rt_table(RT_lifecycles);
	values[0] = PG_GETARG_DATUM(0);
	values[1] = PG_GETARG_DATUM(1);
	SPI_connect();
	if (SPI_execute_with_args("INSERT INTO run_tracker.lifecycles (name, definition) "
							  "VALUES ($1, $2) ON CONFLICT (name) DO UPDATE "
							  "SET definition = EXCLUDED.definition",
							  2,
							  types,
							  values,
							  NULL,
							  false,
							  0) != SPI_OK_INSERT)
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
	if (SPI_execute_with_args("DELETE FROM run_tracker.lifecycles WHERE name = $1",
							  1,
							  types,
							  values,
							  NULL,
							  false,
							  0) != SPI_OK_DELETE)
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

/*
 * closing_status(lifecycle, status, run_phase) → the status in which an open task
 * ends when its run ends.
 */
Datum
run_tracker_closing_status(PG_FUNCTION_ARGS)
{
	const RtLifecycle *lifecycle;
	int from;
	int to;

	if (PG_ARGISNULL(0) || PG_ARGISNULL(1) || PG_ARGISNULL(2))
		PG_RETURN_NULL();
	lifecycle = rt_lifecycle_get(PG_GETARG_DATUM(0));
	from = rt_lifecycle_state_required(lifecycle, PG_GETARG_DATUM(1));
	to = rt_lifecycle_closing(lifecycle,
							  from,
							  strcmp(TextDatumGetCString(PG_GETARG_DATUM(2)), "timed_out") == 0 ?
								  RT_TIMED_OUT :
								  RT_CANCELLED);
	PG_RETURN_TEXT_P(cstring_to_text(lifecycle->states[to].name));
}
