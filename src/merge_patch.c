/*-------------------------------------------------------------------------
 *
 * merge_patch.c
 *		JSON Merge Patch (RFC 7396).
 *
 * jsonb cannot be changed in place: with each patch, the whole value would be written
 * anew.  So patches are merged into a tree, in which an object is a hash table of its
 * members, but only once something was merged into it; until then, it is a piece of jsonb,
 * as arrays are.  A patch then costs what it says itself, however large the rest is.
 *
 * Keys are hashed with a seed, since they come from users: nobody can know which of them
 * collide.
 *
 * Memory: a tree copies what it needs of a patch into the context in which it was begun, and
 * frees what is replaced: it never has more than the value that it stands for.
 *
 *-------------------------------------------------------------------------
 */
#include "run_tracker.h"

#include "common/hashfn.h"
#include "miscadmin.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"

#include "merge_patch.h"

PG_FUNCTION_INFO_V1(run_tracker_merge_patch);
PG_FUNCTION_INFO_V1(run_tracker_merge_patches_add);
PG_FUNCTION_INFO_V1(run_tracker_merge_patches_result);

typedef struct Key
{
	const char *data;
	int len;
} Key;

struct members_hash;

typedef struct Piece
{
	struct members_hash *members; /* an object that has been merged into, or NULL: */
	JsonbValue value;			  /* anything else; what it points to is the piece's own */
} Piece;

typedef struct Member
{
	Key key;
	uint32 hash;
	char status;
	Piece piece;
} Member;

static uint64 seed;

#define SH_PREFIX			 members
#define SH_ELEMENT_TYPE		 Member
#define SH_KEY_TYPE			 Key
#define SH_KEY				 key
#define SH_HASH_KEY(tb, key) hash_key(key)
#define SH_EQUAL(tb, a, b)	 ((a).len == (b).len && memcmp((a).data, (b).data, (a).len) == 0)
#define SH_STORE_HASH
#define SH_GET_HASH(tb, member) ((member)->hash)
#define SH_SCOPE				static inline
#define SH_DECLARE
#define SH_DEFINE

static inline uint32
hash_key(Key key)
{
	return (uint32) hash_bytes_extended((const unsigned char *) key.data, key.len, seed);
}

#include "lib/simplehash.h"

/* The objects that one is in, from the outermost to the innermost. */
typedef struct Level
{
	Piece *object;
	members_iterator it;  /* through its members */
	JsonbIterator *patch; /* or through what is merged into it */
} Level;

typedef struct Path
{
	Level *levels;
	int depth;
	int size;
} Path;

struct RtPatched
{
	MemoryContext context;
	Piece root;
};

/* ----------------------------------------------------------------
 * Nodes
 * ----------------------------------------------------------------
 */

static void *
copy_bytes(MemoryContext context, const void *data, Size len)
{
	return memcpy(MemoryContextAllocHuge(context, Max(len, 1)), data, len);
}

/* Make a piece without value of its own stand for a scalar or a piece of jsonb, which is copied. */
static void
fill_piece(MemoryContext context, Piece *piece, const JsonbValue *value)
{
	piece->members = NULL;
	piece->value = *value;
	if (value->type == jbvString)
		piece->value.val.string.val =
			copy_bytes(context, value->val.string.val, value->val.string.len);
	else if (value->type == jbvNumeric)
		piece->value.val.numeric =
			copy_bytes(context, value->val.numeric, VARSIZE_ANY(value->val.numeric));
	else if (value->type == jbvBinary)
		piece->value.val.binary.data =
			copy_bytes(context, value->val.binary.data, value->val.binary.len);
}

/* Step into an object.  Not by recursion: values may be nested as deep as jsonb may be. */
static Level *
step_into(Path *path, Piece *object)
{
	Level *level;

	if (path->depth == path->size)
	{
		path->size = Max(path->size * 2, 8);
		path->levels = path->levels ? repalloc_huge(path->levels, path->size * sizeof(Level)) :
									  palloc(path->size * sizeof(Level));
	}
	level = &path->levels[path->depth++];
	level->object = object;
	return level;
}

static void
empty_value(JsonbValue *value)
{
	if (value->type == jbvString)
		pfree(value->val.string.val);
	else if (value->type == jbvNumeric)
		pfree(value->val.numeric);
	else if (value->type == jbvBinary)
		pfree(value->val.binary.data);
	value->type = jbvNull;
}

/* Free what a piece has; it is to be filled again, or goes away. */
static void
empty_piece(Piece *piece)
{
	Path path = {0};

	if (piece->members == NULL)
	{
		empty_value(&piece->value);
		return;
	}
	members_start_iterate(piece->members, &step_into(&path, piece)->it);
	while (path.depth > 0)
	{
		Level *level = &path.levels[path.depth - 1];
		Member *member = members_iterate(level->object->members, &level->it);

		CHECK_FOR_INTERRUPTS();
		if (member == NULL)
		{
			members_destroy(level->object->members);
			level->object->members = NULL;
			level->object->value.type = jbvNull;
			path.depth--;
			continue;
		}
		pfree((char *) member->key.data);
		if (member->piece.members)
			members_start_iterate(member->piece.members, &step_into(&path, &member->piece)->it);
		else
			empty_value(&member->piece.value);
	}
	pfree(path.levels);
}

/* The member of that name of an object, which is null if it is new. */
static Piece *
add_member(MemoryContext context, Piece *object, const JsonbValue *key)
{
	Key name = {key->val.string.val, key->val.string.len};
	bool found;
	Member *member = members_insert(object->members, name, &found);

	if (!found)
	{
		member->key.data = copy_bytes(context, name.data, name.len);
		member->piece.members = NULL;
		member->piece.value.type = jbvNull;
	}
	return &member->piece;
}

static void
remove_member(Piece *object, const JsonbValue *key)
{
	Key name = {key->val.string.val, key->val.string.len};
	Member *member = members_lookup(object->members, name);

	if (member)
	{
		char *data = (char *) member->key.data;

		empty_piece(&member->piece);
		members_delete_item(object->members, member);
		pfree(data);
	}
}

static bool
is_object(const JsonbValue *value)
{
	return value->type == jbvBinary && JsonContainerIsObject(value->val.binary.data);
}

/* Make a piece an object that can be merged into: what it is, or without members. */
static void
open_object(MemoryContext context, Piece *piece)
{
	JsonbValue old = piece->value;
	bool was_object;

	if (piece->members)
		return;
	was_object = is_object(&old);
	if (!was_object)
		empty_piece(piece);
	piece->members =
		members_create(context, was_object ? JsonContainerSize(old.val.binary.data) : 1, NULL);
	if (was_object)
	{
		JsonbIterator *it = JsonbIteratorInit(old.val.binary.data);
		JsonbValue key;
		JsonbValue value;

		(void) JsonbIteratorNext(&it, &key, true);
		while (JsonbIteratorNext(&it, &key, true) == WJB_KEY)
		{
			CHECK_FOR_INTERRUPTS();
			(void) JsonbIteratorNext(&it, &value, true);
			fill_piece(context, add_member(context, piece, &key), &value);
		}
		pfree(old.val.binary.data);
	}
}

static void
begin_merge(MemoryContext context, Path *path, Piece *piece, JsonbContainer *patch)
{
	Level *level;
	JsonbValue object;

	open_object(context, piece);
	level = step_into(path, piece);
	level->patch = JsonbIteratorInit(patch);
	(void) JsonbIteratorNext(&level->patch, &object, true);
}

/* Merge a patch that is an object into a piece, as section 2 of RFC 7396 has it. */
static void
merge_object(MemoryContext context, Piece *piece, JsonbContainer *patch)
{
	Path path = {0};

	begin_merge(context, &path, piece, patch);
	while (path.depth > 0)
	{
		Level *level = &path.levels[path.depth - 1];
		JsonbValue key;
		JsonbValue value;

		CHECK_FOR_INTERRUPTS();
		if (JsonbIteratorNext(&level->patch, &key, true) != WJB_KEY)
		{
			path.depth--;
			continue;
		}
		(void) JsonbIteratorNext(&level->patch, &value, true);
		if (value.type == jbvNull)
			remove_member(level->object, &key);
		else if (is_object(&value))
			begin_merge(context, &path, add_member(context, level->object, &key),
						value.val.binary.data);
		else
		{
			Piece *member = add_member(context, level->object, &key);

			empty_piece(member);
			fill_piece(context, member, &value);
		}
	}
	pfree(path.levels);
}

static void
begin_object(JsonbParseState **state, Path *path, Piece *object)
{
	(void) pushJsonbValue(state, WJB_BEGIN_OBJECT, NULL);
	members_start_iterate(object->members, &step_into(path, object)->it);
}

/* Make jsonb of an object. */
static JsonbValue *
build_object(Piece *object)
{
	JsonbParseState *state = NULL;
	JsonbValue *result = NULL;
	Path path = {0};

	begin_object(&state, &path, object);
	while (path.depth > 0)
	{
		Level *level = &path.levels[path.depth - 1];
		Member *member = members_iterate(level->object->members, &level->it);
		JsonbValue key;

		CHECK_FOR_INTERRUPTS();
		if (member == NULL)
		{
			result = pushJsonbValue(&state, WJB_END_OBJECT, NULL);
			path.depth--;
			continue;
		}
		key.type = jbvString;
		key.val.string.val = (char *) member->key.data;
		key.val.string.len = member->key.len;
		(void) pushJsonbValue(&state, WJB_KEY, &key);
		if (member->piece.members)
			begin_object(&state, &path, &member->piece);
		else
			(void) pushJsonbValue(&state, WJB_VALUE, &member->piece.value);
	}
	pfree(path.levels);
	return result;
}

/* ----------------------------------------------------------------
 * What others use
 * ----------------------------------------------------------------
 */

/* The value of a whole jsonb, which stays where it is. */
static void
root_value(const Jsonb *jsonb, JsonbValue *value)
{
	JsonbContainer *root = (JsonbContainer *) &jsonb->root;

	if (JsonContainerIsScalar(root))
	{
		(void) JsonbExtractScalar(root, value);
		return;
	}
	value->type = jbvBinary;
	value->val.binary.data = root;
	value->val.binary.len = VARSIZE(jsonb) - VARHDRSZ;
}

/* Begin to merge patches into a value; into an empty object, as into none, if target is NULL. */
RtPatched *
rt_patched_begin(const Jsonb *target)
{
	RtPatched *patched = palloc(sizeof(RtPatched));
	JsonbValue value = {.type = jbvNull};

	while (seed == 0)
		if (!pg_strong_random(&seed, sizeof(seed)))
			ereport(ERROR,
					(errcode(ERRCODE_INTERNAL_ERROR), errmsg("could not generate random values")));
	patched->context = CurrentMemoryContext;
	if (target)
		root_value(target, &value);
	fill_piece(patched->context, &patched->root, &value);
	if (target == NULL)
		open_object(patched->context, &patched->root);
	return patched;
}

/* Merge a patch into the value. */
void
rt_patched_merge(RtPatched *patched, Jsonb *patch)
{
	JsonbValue value;

	root_value(patch, &value);
	if (is_object(&value))
		merge_object(patched->context, &patched->root, value.val.binary.data);
	else
	{
		empty_piece(&patched->root);
		fill_piece(patched->context, &patched->root, &value);
	}
}

/* The value as it is now; it can be merged into afterwards. */
Jsonb *
rt_patched_result(RtPatched *patched)
{
	return JsonbValueToJsonb(patched->root.members ? build_object(&patched->root) :
													 &patched->root.value);
}

/* merge_patch(target, patch) → jsonb; a target that is null is none, a patch that is null changes
 * nothing. */
Datum
run_tracker_merge_patch(PG_FUNCTION_ARGS)
{
	RtPatched *patched;

	if (PG_ARGISNULL(1))
	{
		if (PG_ARGISNULL(0))
			PG_RETURN_NULL();
		PG_RETURN_DATUM(PG_GETARG_DATUM(0));
	}
	patched = rt_patched_begin(PG_ARGISNULL(0) ? NULL : PG_GETARG_JSONB_P(0));
	rt_patched_merge(patched, PG_GETARG_JSONB_P(1));
	PG_RETURN_JSONB_P(rt_patched_result(patched));
}

/* State transition of merge_patches(). */
Datum
run_tracker_merge_patches_add(PG_FUNCTION_ARGS)
{
	MemoryContext context;
	MemoryContext old;
	RtPatched *patched = PG_ARGISNULL(0) ? NULL : (RtPatched *) PG_GETARG_POINTER(0);

	if (!AggCheckCallContext(fcinfo, &context))
		elog(ERROR, "merge_patches_add called in a context that is no aggregate");
	if (!PG_ARGISNULL(1))
	{
		Jsonb *patch = PG_GETARG_JSONB_P(1);

		if (patched == NULL)
		{
			old = MemoryContextSwitchTo(context);
			patched = rt_patched_begin(NULL);
			MemoryContextSwitchTo(old);
		}
		rt_patched_merge(patched, patch);
	}
	if (patched == NULL)
		PG_RETURN_NULL();
	PG_RETURN_POINTER(patched);
}

/* Final function of merge_patches(). */
Datum
run_tracker_merge_patches_result(PG_FUNCTION_ARGS)
{
	if (!AggCheckCallContext(fcinfo, NULL))
		elog(ERROR, "merge_patches_result called in a context that is no aggregate");
	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	PG_RETURN_JSONB_P(rt_patched_result((RtPatched *) PG_GETARG_POINTER(0)));
}
