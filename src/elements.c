/*-------------------------------------------------------------------------
 *
 * elements.c
 *		Elements of a conversation that was kept as a JSON array, as rows of messages.
 *
 * What an application wrote as an element, it shall read back, whatever it is.  So what
 * columns cannot say as it was written is in the key RT_ELEMENT_KEY of the metadata of the
 * row: other keys of the element, values of other types, a timestamp in its own format.  That
 * key tells such rows from those that add_message() made, too.  A content that is
 * an array is in parts; no content is an empty one, and an empty one is in the key.
 *
 * Memory: everything is allocated in the current context.
 *
 *-------------------------------------------------------------------------
 */
#include "run_tracker.h"

#include "miscadmin.h"
#include "pgtime.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"

#include "elements.h"
#include "row.h"

static const Oid column_types[RT_ELEMENT_NCOLUMNS] = {UUIDOID,	TEXTOID,  TEXTOID,		 TEXTOID,
													  JSONBOID, JSONBOID, TIMESTAMPTZOID};

/* Begin rows for so many elements. */
void
rt_elements_begin(RtElementRows *rows, int size)
{
	rows->n = 0;
	for (int i = 0; i < RT_ELEMENT_NCOLUMNS; i++)
	{
		rows->values[i] = palloc_extended(sizeof(Datum) * Max(size, 1), MCXT_ALLOC_HUGE);
		rows->nulls[i] = palloc_extended(sizeof(bool) * Max(size, 1), MCXT_ALLOC_HUGE);
	}
}

/* Set a column of the row that is being added. */
static void
set(RtElementRows *rows, RtElementColumn column, Datum value)
{
	rows->values[column][rows->n] = value;
	rows->nulls[column][rows->n] = false;
}

/* A column of all rows as an argument for a query. */
NullableDatum
rt_elements_column(const RtElementRows *rows, RtElementColumn column)
{
	int dims[1] = {rows->n};
	int lbs[1] = {1};
	int16 len;
	bool byval;
	char align;
	NullableDatum result = {0, false};

	get_typlenbyvalalign(column_types[column], &len, &byval, &align);
	result.value =
		PointerGetDatum(construct_md_array(rows->values[column], rows->nulls[column], 1, dims, lbs,
										   column_types[column], len, byval, align));
	return result;
}

static bool
key_is(const JsonbValue *key, const char *name)
{
	return key->val.string.len == (int) strlen(name) &&
		   memcmp(key->val.string.val, name, key->val.string.len) == 0;
}

static Datum
string_datum(const JsonbValue *value)
{
	return PointerGetDatum(cstring_to_text_with_len(value->val.string.val, value->val.string.len));
}

/* A value inside of a document as a document of its own. */
static Datum
value_datum(JsonbValue *value)
{
	return JsonbPGetDatum(JsonbValueToJsonb(value));
}

static bool
is_container(const JsonbValue *value, bool array)
{
	return value->type == jbvBinary && (array ? JsonContainerIsArray(value->val.binary.data) :
												JsonContainerIsObject(value->val.binary.data));
}

/* The number in the next len characters, which must be digits; -1 if they are not. */
static int
digits(const char **s, const char *end, int len)
{
	int result = 0;

	if (end - *s < len)
		return -1;
	for (int i = 0; i < len; i++, (*s)++)
	{
		if (**s < '0' || **s > '9')
			return -1;
		result = result * 10 + (**s - '0');
	}
	return result;
}

static bool
skip(const char **s, const char *end, char c)
{
	if (*s == end || **s != c)
		return false;
	(*s)++;
	return true;
}

/* Z, +hh, +hhmm or +hh:mm as seconds west; without one, the time zone of the session. */
static bool
parse_zone(const char **s, const char *end, struct pg_tm *tm, int *zone)
{
	int sign;
	int hours;
	int minutes = 0;

	if (*s == end)
	{
		*zone = DetermineTimeZoneOffset(tm, session_timezone);
		return true;
	}
	*zone = 0;
	if (skip(s, end, 'Z') || skip(s, end, 'z'))
		return *s == end;
	sign = skip(s, end, '+') ? -1 : skip(s, end, '-') ? 1 : 0;
	hours = digits(s, end, 2);
	if (*s != end)
	{
		(void) skip(s, end, ':');
		minutes = digits(s, end, 2);
	}
	*zone = sign * (hours * SECS_PER_HOUR + minutes * SECS_PER_MINUTE);
	return sign != 0 && *s == end && hours >= 0 && hours < 16 && minutes >= 0 && minutes < 60;
}

/* Parse a moment in the format of ISO 8601, which may be anything else: no error then. */
static bool
parse_timestamp(const JsonbValue *value, TimestampTz *result)
{
	const char *s = value->val.string.val;
	const char *end = s + value->val.string.len;
	struct pg_tm tm = {0};
	fsec_t fsec = 0;
	int zone;

	tm.tm_year = digits(&s, end, 4);
	if (tm.tm_year < 1 || !skip(&s, end, '-') || (tm.tm_mon = digits(&s, end, 2)) < 1 ||
		tm.tm_mon > MONTHS_PER_YEAR || !skip(&s, end, '-') ||
		(tm.tm_mday = digits(&s, end, 2)) < 1 ||
		tm.tm_mday > day_tab[isleap(tm.tm_year)][tm.tm_mon - 1] ||
		(!skip(&s, end, 'T') && !skip(&s, end, 't') && !skip(&s, end, ' ')) ||
		(tm.tm_hour = digits(&s, end, 2)) < 0 || tm.tm_hour > 23 || !skip(&s, end, ':') ||
		(tm.tm_min = digits(&s, end, 2)) < 0 || tm.tm_min > 59)
		return false;
	if (skip(&s, end, ':') && ((tm.tm_sec = digits(&s, end, 2)) < 0 || tm.tm_sec > 59))
		return false;
	if (skip(&s, end, '.'))
	{
		int unit = USECS_PER_SEC / 10;

		if (s == end || *s < '0' || *s > '9')
			return false;
		for (; s < end && *s >= '0' && *s <= '9'; s++, unit /= 10)
			fsec += (*s - '0') * unit;
	}
	return parse_zone(&s, end, &tm, &zone) && tm2timestamp(&tm, fsec, &zone, result) == 0;
}

/* A string that is a uuid; *same says whether it would be written so. */
static bool
parse_uuid(const JsonbValue *value, Datum *result, bool *same)
{
	char buf[37];

	if (value->val.string.len != 36)
		return false;
	for (int i = 0; i < 36; i++)
	{
		char c = value->val.string.val[i];

		if (i == 8 || i == 13 || i == 18 || i == 23 ? c != '-' : !isxdigit((unsigned char) c))
			return false;
		buf[i] = c;
	}
	buf[36] = '\0';
	*result = DirectFunctionCall1(uuid_in, CStringGetDatum(buf));
	*same = memcmp(rt_uuid_string(*result), buf, 36) == 0;
	return true;
}

/* Put a value into the column for its key; false if the column cannot say all of it. */
static bool
set_column(RtElementRows *rows, const JsonbValue *key, JsonbValue *value, JsonbValue *metadata)
{
	bool string = value->type == jbvString;
	Datum datum;
	bool same;

	if (key_is(key, "role"))
	{
		if (!string || value->val.string.len == 0)
			return false;
		set(rows, RT_ELEMENT_ROLE, string_datum(value));
		return true;
	}
	if (key_is(key, "name") && string && value->val.string.len <= RT_MAX_NAME_SIZE)
	{
		set(rows, RT_ELEMENT_NAME, string_datum(value));
		return true;
	}
	if (key_is(key, "parts") && is_container(value, true))
	{
		set(rows, RT_ELEMENT_PARTS, value_datum(value));
		return true;
	}
	if (key_is(key, "content") && value->type != jbvNull)
	{
		if (string)
		{
			set(rows, RT_ELEMENT_CONTENT, string_datum(value));
			return value->val.string.len > 0;
		}
		/* keys are sorted by length: parts has been here */
		if (is_container(value, true) && rows->nulls[RT_ELEMENT_PARTS][rows->n])
		{
			set(rows, RT_ELEMENT_PARTS, value_datum(value));
			rows->nulls[RT_ELEMENT_CONTENT][rows->n] = true;
			return true;
		}
		datum = value_datum(value);
		set(rows, RT_ELEMENT_CONTENT,
			CStringGetTextDatum(JsonbToCString(NULL, &DatumGetJsonbP(datum)->root,
											   VARSIZE_ANY_EXHDR(DatumGetPointer(datum)))));
		return false;
	}
	if (key_is(key, "taskId") && string && parse_uuid(value, &datum, &same))
	{
		set(rows, RT_ELEMENT_TASK_ID, datum);
		return same;
	}
	if (key_is(key, "timestamp") && string)
	{
		TimestampTz created_at;

		if (parse_timestamp(value, &created_at))
			set(rows, RT_ELEMENT_CREATED_AT, TimestampTzGetDatum(created_at));
		return false;
	}
	if (key_is(key, "metadata") && is_container(value, false) &&
		JsonContainerSize(value->val.binary.data) > 0 &&
		getKeyJsonValueFromContainer(value->val.binary.data, RT_ELEMENT_KEY, strlen(RT_ELEMENT_KEY),
									 NULL) == NULL)
	{
		*metadata = *value;
		return true;
	}
	return false;
}

/* The metadata of a row: those of the element, and what no column says. */
static Datum
make_metadata(const JsonbValue *metadata, JsonbValue *extra)
{
	JsonbParseState *state = NULL;
	JsonbValue key;
	JsonbValue value;

	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	if (metadata->type == jbvBinary)
	{
		JsonbIterator *it = JsonbIteratorInit(metadata->val.binary.data);

		(void) JsonbIteratorNext(&it, &key, true);
		while (JsonbIteratorNext(&it, &key, true) == WJB_KEY)
		{
			(void) JsonbIteratorNext(&it, &value, true);
			pushJsonbValue(&state, WJB_KEY, &key);
			pushJsonbValue(&state, WJB_VALUE, &value);
		}
	}
	key.type = jbvString;
	key.val.string.val = RT_ELEMENT_KEY;
	key.val.string.len = strlen(RT_ELEMENT_KEY);
	pushJsonbValue(&state, WJB_KEY, &key);
	pushJsonbValue(&state, WJB_VALUE, extra);
	return value_datum(pushJsonbValue(&state, WJB_END_OBJECT, NULL));
}

static void
refuse_element(int sqlerrcode, int index, const char *detail, const char *hint)
{
	ereport(ERROR, (errcode(sqlerrcode), errmsg("invalid element of a conversation"),
					errdetail("Element %d of the array: %s", index, detail),
					hint ? errhint("%s", hint) : 0));
}

/* Take an element of the array apart into a row; 22023 or 54000 if it cannot be a message. */
void
rt_elements_add(RtElementRows *rows, const JsonbValue *element, int index)
{
	int64 limit = (int64) rt_max_payload_kb * 1024;
	JsonbParseState *extra = NULL;
	JsonbValue metadata = {.type = jbvNull};
	JsonbValue key;
	JsonbValue value;
	JsonbIterator *it;

	CHECK_FOR_INTERRUPTS();
	if (!is_container(element, false))
		refuse_element(ERRCODE_INVALID_PARAMETER_VALUE, index, "It must be a JSON object.", NULL);
	if (element->val.binary.len > limit)
		refuse_element(ERRCODE_PROGRAM_LIMIT_EXCEEDED, index,
					   psprintf("It has %d bytes, at most %lld are allowed.",
								element->val.binary.len, (long long) limit),
					   "Store large values elsewhere and keep their address, or raise "
					   "run_tracker.max_payload.");
	for (int i = 0; i < RT_ELEMENT_NCOLUMNS; i++)
		rows->nulls[i][rows->n] = true;
	/* stands for no content, which a message must have */
	set(rows, RT_ELEMENT_CONTENT, PointerGetDatum(cstring_to_text("")));

	it = JsonbIteratorInit(element->val.binary.data);
	(void) JsonbIteratorNext(&it, &key, true);
	pushJsonbValue(&extra, WJB_BEGIN_OBJECT, NULL);
	while (JsonbIteratorNext(&it, &key, true) == WJB_KEY)
	{
		(void) JsonbIteratorNext(&it, &value, true);
		if (set_column(rows, &key, &value, &metadata))
			continue;
		pushJsonbValue(&extra, WJB_KEY, &key);
		pushJsonbValue(&extra, WJB_VALUE, &value);
	}
	set(rows, RT_ELEMENT_METADATA,
		make_metadata(&metadata, pushJsonbValue(&extra, WJB_END_OBJECT, NULL)));
	if (rows->nulls[RT_ELEMENT_ROLE][rows->n])
		refuse_element(ERRCODE_INVALID_PARAMETER_VALUE, index,
					   "It must have a role, such as user or assistant.", NULL);
	rows->n++;
}
