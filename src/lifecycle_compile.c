/*-------------------------------------------------------------------------
 *
 * lifecycle_compile.c
 *		From the JSON definition of a state machine to its compiled form.
 *
 * What is wrong with a definition is said with the place where it is wrong.
 *
 * Memory: the compiled lifecycle, and what compiling leaves behind, lives in the
 * caller's memory context.
 *
 *-------------------------------------------------------------------------
 */
#include "run_tracker.h"

#include "utils/datetime.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"
#include "utils/numeric.h"

#include "lifecycles.h"

/* What the compiler is looking at, for its messages. */
typedef struct Place
{
	const char *lifecycle;
	const char *state; /* or NULL */
} Place;

/* Refuse a definition: say what is wrong where. */
#define malformed(place, ...)                                                                      \
	ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),                                      \
					errmsg("invalid definition of lifecycle \"%s\"", (place)->lifecycle),          \
					errdetail(__VA_ARGS__),                                                        \
					errhint("A definition looks like {\"initial\": \"pending\", \"timeout\": "     \
							"\"60 seconds\", \"states\": {\"pending\": {\"phase\": \"queued\", "   \
							"\"next\": [\"done\"]}, \"done\": {\"phase\": \"succeeded\"}}}.")))

static char *
value_string(const JsonbValue *value)
{
	return pnstrdup(value->val.string.val, value->val.string.len);
}

/* The number of a state; -1 if there is none of that name. */
int
rt_lifecycle_find_state(const RtLifecycle *lifecycle, const char *name, int len)
{
	for (int i = 0; i < lifecycle->nstates; i++)
		if (lifecycle->states[i].name_len == len &&
			memcmp(lifecycle->states[i].name, name, len) == 0)
			return i;
	return -1;
}

/* Read an interval without raising an error; false if it is none. */
static bool
parse_interval(char *text, Interval *result)
{
	char buffer[MAXDATELEN + MAXDATEFIELDS];
	char *fields[MAXDATEFIELDS];
	int types[MAXDATEFIELDS];
	int nfields;
	int type;
	struct pg_itm_in parsed = {0};

	if (strlen(text) > MAXDATELEN ||
		ParseDateTime(text, buffer, sizeof(buffer), fields, types, MAXDATEFIELDS, &nfields) != 0)
		return false;
	if (DecodeInterval(fields, types, nfields, INTERVAL_FULL_RANGE, &type, &parsed) != 0 &&
		DecodeISO8601Interval(text, &type, &parsed) != 0)
		return false;
	return type == DTK_DELTA && itmin2interval(&parsed, result) == 0;
}

/* Read a positive interval, which key names; of what, for messages. */
static void
compile_interval(Place *place, const JsonbValue *value, const char *key, const char *of,
				 Interval *result)
{
	Interval zero = {0};

	if (value->type != jbvString)
		malformed(place, "\"%s\" of %s must be an interval in a string%s.", key, of,
				  strcmp(key, "timeout") == 0 ? ", or null" : "");
	if (!parse_interval(value_string(value), result))
		malformed(place, "\"%s\" of %s is \"%s\", which is no interval.", key, of,
				  value_string(value));
	if (DatumGetBool(
			DirectFunctionCall2(interval_le, IntervalPGetDatum(result), IntervalPGetDatum(&zero))))
		malformed(place, "\"%s\" of %s must be positive.", key, of);
}

/* Read a timeout; false for null. */
static bool
compile_timeout(Place *place, const JsonbValue *value, Interval *timeout)
{
	if (value->type == jbvNull)
		return false;
	compile_interval(place, value, "timeout",
					 place->state ? psprintf("state \"%s\"", place->state) : "the lifecycle",
					 timeout);
	return true;
}

/* Read what a lifecycle says of retries; null is nothing. */
static void
compile_retry(Place *place, RtLifecycle *lifecycle, const JsonbValue *definition)
{
	JsonbIterator *it;
	JsonbValue value;
	JsonbIteratorToken token;

	if (definition->type == jbvNull)
		return;
	if (definition->type != jbvBinary || !JsonContainerIsObject(definition->val.binary.data))
		malformed(place, "\"retry\" must be an object.");
	it = JsonbIteratorInit(definition->val.binary.data);
	while ((token = JsonbIteratorNext(&it, &value, true)) != WJB_DONE)
	{
		char *key;

		if (token != WJB_KEY)
			continue;
		key = value_string(&value);
		(void) JsonbIteratorNext(&it, &value, true);
		if (strcmp(key, "max_attempts") == 0)
		{
			bool error = value.type != jbvNumeric;

			if (!error)
				lifecycle->max_attempts = numeric_int4_opt_error(value.val.numeric, &error);
			/* no fraction may have been rounded off */
			if (error || lifecycle->max_attempts < 1 ||
				!DatumGetBool(DirectFunctionCall2(numeric_eq, NumericGetDatum(value.val.numeric),
												  NumericGetDatum(
													  int64_to_numeric(lifecycle->max_attempts)))))
				malformed(place, "\"max_attempts\" of \"retry\" must be a whole number from 1.");
		}
		else if (strcmp(key, "base") == 0)
		{
			compile_interval(place, &value, key, "\"retry\"", &lifecycle->retry_base);
			lifecycle->has_retry_base = true;
		}
		else if (strcmp(key, "cap") == 0)
		{
			compile_interval(place, &value, key, "\"retry\"", &lifecycle->retry_cap);
			lifecycle->has_retry_cap = true;
		}
		else
			malformed(place, "\"retry\" has an unknown key \"%s\".", key);
	}
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
		malformed(place, "\"states\" has %d states, at most %d are possible.",
				  (int) JsonContainerSize(states), RT_MAX_STATES);

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
			malformed(place, "State \"%s\" must have a name of 1 to %d bytes.", state->name,
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
						  state->name, value_string(&value));
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
					malformed(place, "\"next\" of state \"%s\" must hold names of states only.",
							  state->name);
				to = rt_lifecycle_find_state(lifecycle, next.val.string.val, next.val.string.len);
				if (to < 0)
					malformed(place, "\"next\" of state \"%s\" names \"%s\", which is no state.",
							  state->name, value_string(&next));
				if (&lifecycle->states[to] == state)
					malformed(place, "\"next\" of state \"%s\" names the state itself.",
							  state->name);
				if (state->next & (UINT64CONST(1) << to))
					malformed(place, "\"next\" of state \"%s\" names \"%s\" twice.", state->name,
							  value_string(&next));
				state->next |= UINT64CONST(1) << to;
				state->next_order[state->nnext++] = (uint8) to;
			}
		}
		else if (strcmp(key, "timeout") == 0)
		{
			state->has_timeout = compile_timeout(place, &value, &state->timeout);
			state->never = !state->has_timeout;
		}
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
		malformed(place, "The initial state \"%s\" is finished (%s).",
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
			malformed(place, "State \"%s\" is finished and cannot have a \"timeout\".",
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
			malformed(place, "State \"%s\" cannot be reached from the initial state \"%s\".",
					  state->name, lifecycle->states[lifecycle->initial].name);
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
RtLifecycle *
rt_lifecycle_compile(const char *name, Jsonb *definition)
{
	Place place = {name, NULL};
	RtLifecycle *lifecycle = palloc0(sizeof(RtLifecycle));
	JsonbValue states = {.type = jbvNull};
	JsonbValue initial = {.type = jbvNull};
	JsonbValue timeout_value = {.type = jbvNull};
	JsonbValue retry = {.type = jbvNull};
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
		else if (strcmp(key, "retry") == 0)
			retry = value;
		else
			malformed(&place, "Unknown key \"%s\".", key);
	}

	if (states.type != jbvBinary || !JsonContainerIsObject(states.val.binary.data))
		malformed(&place, "\"states\" must be there, and be an object.");
	if (initial.type != jbvString)
		malformed(&place, "\"initial\" must be there, and name a state.");

	compile_names(&place, lifecycle, states.val.binary.data);
	lifecycle->initial =
		rt_lifecycle_find_state(lifecycle, initial.val.string.val, initial.val.string.len);
	if (lifecycle->initial < 0)
		malformed(&place, "\"initial\" names \"%s\", which is no state.", value_string(&initial));
	has_timeout = compile_timeout(&place, &timeout_value, &timeout);
	lifecycle->max_attempts = 1;
	compile_retry(&place, lifecycle, &retry);

	for (int i = 0; i < lifecycle->nstates; i++)
	{
		RtState *state = &lifecycle->states[i];
		JsonbValue *definition_value;
		JsonbValue own;

		definition_value = getKeyJsonValueFromContainer(states.val.binary.data, state->name,
														state->name_len, NULL);
		compile_state(&place, lifecycle, state, definition_value);
		if (state->phase == RT_TIMED_OUT || state->phase == RT_FAILED ||
			state->phase == RT_CANCELLED)
			lifecycle->can_time_out = true;

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
