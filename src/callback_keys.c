/*-------------------------------------------------------------------------
 *
 * callback_keys.c
 *		Keys that callbacks are signed with, or secrets that they show.
 *
 * Of shared secrets only a salted hash is kept.  What signatures are made with has to be kept as
 * it is: nobody but the owner of the tables may read it.
 *
 * Whoever calls back without a key learns nothing: neither which part of the credentials was
 * wrong, nor, from the time that it takes, whether there are keys at all or how much of one was
 * right.  All keys of the method are compared, to the last byte, whatever the result.
 *
 * Locking protocol: what changes keys takes a lock of its own, which nobody else needs.
 * Verification reads what is committed, past privileges, and locks nothing.
 *
 * Memory: what verification reads lives in a context of its own, which goes with it.
 *
 *-------------------------------------------------------------------------
 */
#include "run_tracker.h"

#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_class.h"
#include "common/cryptohash.h"
#include "common/hmac.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "callbacks.h"
#include "calls.h"
#include "writer.h"

PG_FUNCTION_INFO_V1(run_tracker_create_callback_key);
PG_FUNCTION_INFO_V1(run_tracker_rotate_callback_key);
PG_FUNCTION_INFO_V1(run_tracker_drop_callback_key);

#define SALT_LENGTH		  16
#define MIN_SECRET_LENGTH 16
#define MAX_SECRET_LENGTH 1024

/* a number of seconds with more digits is none that is near to now */
#define MAX_TIME_DIGITS 12

/* ----------------------------------------------------------------
 * Hashes
 * ----------------------------------------------------------------
 */

/* SHA-256 of two pieces one after the other. */
static void
hash_pieces(const void *a, size_t a_length, const void *b, size_t b_length, uint8 *digest)
{
	pg_cryptohash_ctx *ctx = pg_cryptohash_create(PG_SHA256);

	if (ctx == NULL || pg_cryptohash_init(ctx) < 0 || pg_cryptohash_update(ctx, a, a_length) < 0 ||
		pg_cryptohash_update(ctx, b, b_length) < 0 ||
		pg_cryptohash_final(ctx, digest, RT_SHA256_LENGTH) < 0)
		elog(ERROR, "could not compute SHA-256");
	pg_cryptohash_free(ctx);
}

/* SHA-256. */
void
rt_callback_digest(const void *data, size_t length, uint8 *digest)
{
	hash_pieces(data, length, NULL, 0, digest);
}

/* The HMAC-SHA-256 of a callback under a key. */
static void
sign(const RtCredentials *given, const void *key, size_t key_length, uint8 *mac)
{
	pg_hmac_ctx *ctx = pg_hmac_create(PG_SHA256);

	if (ctx == NULL || pg_hmac_init(ctx, key, key_length) < 0 ||
		(given->signed_at &&
		 (pg_hmac_update(ctx, (const uint8 *) given->signed_at, strlen(given->signed_at)) < 0 ||
		  pg_hmac_update(ctx, (const uint8 *) ".", 1) < 0)) ||
		pg_hmac_update(ctx, (const uint8 *) given->payload, given->length) < 0 ||
		pg_hmac_final(ctx, mac, RT_SHA256_LENGTH) < 0)
		elog(ERROR, "could not compute HMAC-SHA-256");
	pg_hmac_free(ctx);
}

/* Are two hashes the same?  In the same time, whatever they are. */
static bool
same_hash(const uint8 *a, const uint8 *b)
{
	volatile uint8 difference = 0;

	for (int i = 0; i < RT_SHA256_LENGTH; i++)
		difference |= a[i] ^ b[i];
	return difference == 0;
}

/* ----------------------------------------------------------------
 * Verification
 * ----------------------------------------------------------------
 */

/* Read a signature; false, and zeros, if it is none. */
static bool
read_signature(const char *signature, uint8 *mac)
{
	static const char prefix[] = "sha256=";
	const size_t length = (size_t) RT_SHA256_LENGTH * 2;
	const char *digits = signature;

	memset(mac, 0, RT_SHA256_LENGTH);
	if (pg_strncasecmp(digits, prefix, strlen(prefix)) == 0)
		digits += strlen(prefix);
	if (strlen(digits) != length || strspn(digits, "0123456789abcdefABCDEF") != length)
		return false;
	(void) hex_decode(digits, length, (char *) mac);
	return true;
}

/* Is a time, in seconds since 1970, near enough to now? */
static bool
is_recent(const char *signed_at)
{
	TimestampTz now = GetCurrentTimestamp();
	int64 unix_now =
		now / USECS_PER_SEC + (int64) (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * SECS_PER_DAY;
	int64 difference;

	if (signed_at[0] == '\0' || strlen(signed_at) > MAX_TIME_DIGITS ||
		strspn(signed_at, "0123456789") != strlen(signed_at))
		return false;
	difference = unix_now - strtoll(signed_at, NULL, 10);
	return difference <= rt_callback_tolerance_s && difference >= -rt_callback_tolerance_s;
}

static bytea *
bytea_value(TupleTableSlot *row, AttrNumber att)
{
	bool isnull;
	Datum value = slot_getattr(row, att, &isnull);

	return isnull ? NULL : DatumGetByteaPCopy(value);
}

static bool
is_method(TupleTableSlot *row, const char *method)
{
	bool isnull;

	return strcmp(TextDatumGetCString(
					  slot_getattr(row, RT_ATT(rt_table(RT_callback_keys), callback_keys, method),
								   &isnull)),
				  method) == 0;
}

/* Does a key fit?  mac is what was read of the signature. */
static bool
key_fits(const RtCredentials *given, const uint8 *mac, TupleTableSlot *row)
{
	const RtTable *t = rt_table(RT_callback_keys);
	uint8 computed[RT_SHA256_LENGTH];

	if (given->signature)
	{
		bytea *key = bytea_value(row, RT_ATT(t, callback_keys, hmac_secret));

		if (key == NULL)
			return false;
		sign(given, VARDATA(key), VARSIZE(key) - VARHDRSZ, computed);
		return same_hash(computed, mac);
	}
	else
	{
		bytea *salt = bytea_value(row, RT_ATT(t, callback_keys, salt));
		bytea *hash = bytea_value(row, RT_ATT(t, callback_keys, hash));

		if (salt == NULL || hash == NULL || VARSIZE(hash) - VARHDRSZ != RT_SHA256_LENGTH)
			return false;
		hash_pieces(VARDATA(salt), VARSIZE(salt) - VARHDRSZ, given->secret, strlen(given->secret),
					computed);
		return same_hash(computed, (uint8 *) VARDATA(hash));
	}
}

/* May a key be used now? */
static bool
key_is_valid(const RtCredentials *given, TupleTableSlot *row)
{
	const RtTable *t = rt_table(RT_callback_keys);
	bool isnull;
	TimestampTz until =
		DatumGetTimestampTz(slot_getattr(row, RT_ATT(t, callback_keys, expires_at), &isnull));

	if (!isnull && until <= GetCurrentTimestamp())
		return false;
	return given->signed_at ||
		   !DatumGetBool(slot_getattr(row, RT_ATT(t, callback_keys, require_timestamp), &isnull));
}

static void
copy_key(RtCallbackKey *key, TupleTableSlot *row, MemoryContext context)
{
	const RtTable *t = rt_table(RT_callback_keys);
	MemoryContext old = MemoryContextSwitchTo(context);
	bool isnull;
	Datum value;

	key->key_id = *DatumGetUUIDP(slot_getattr(row, RT_ATT(t, callback_keys, key_id), &isnull));
	key->name = TextDatumGetCString(slot_getattr(row, RT_ATT(t, callback_keys, name), &isnull));
	value = slot_getattr(row, RT_ATT(t, callback_keys, for_kind), &isnull);
	key->for_kind = isnull ? NULL : TextDatumGetCString(value);
	MemoryContextSwitchTo(old);
}

/* Find the key that fits the credentials of a callback; false if there is none. */
bool
rt_callback_verify(const RtCredentials *given, RtCallbackKey *key)
{
	Relation rel = table_open(rt_table(RT_callback_keys)->relid, AccessShareLock);
	MemoryContext context =
		AllocSetContextCreate(CurrentMemoryContext, "run_tracker keys", ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	RtCredentials nothing = *given;
	Snapshot snapshot = rt_latest_snapshot();
	TableScanDesc scan = table_beginscan(rel, snapshot, 0, NULL);
	TupleTableSlot *row = table_slot_create(rel, NULL);
	uint8 mac[RT_SHA256_LENGTH] = {0};
	uint8 ignored[RT_SHA256_LENGTH] = {0};
	bool good = given->signature ? read_signature(given->signature, mac) : given->secret != NULL;
	bool found = false;
	int compared = 0;

	if (given->signed_at && !is_recent(given->signed_at))
		good = false;
	if (given->signature == NULL && given->secret == NULL)
		nothing.secret = "";
	while (table_scan_getnextslot(scan, ForwardScanDirection, row))
	{
		if (!is_method(row, nothing.signature ? "hmac" : "secret"))
			continue;
		compared++;
		if (key_fits(&nothing, mac, row) && key_is_valid(given, row) && good && !found)
		{
			copy_key(key, row, old);
			found = true;
		}
	}
	/* without keys it takes as long */
	if (compared == 0 && nothing.signature)
		sign(given, ignored, sizeof(ignored), ignored);
	else if (compared == 0)
		hash_pieces(ignored, SALT_LENGTH, nothing.secret, strlen(nothing.secret), ignored);

	ExecDropSingleTupleTableSlot(row);
	table_endscan(scan);
	UnregisterSnapshot(snapshot);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
	table_close(rel, AccessShareLock);
	return found;
}

/* ----------------------------------------------------------------
 * Changes of keys
 * ----------------------------------------------------------------
 */

/* Open the table of keys for a change that no other such change can cross. */
static Relation
open_keys(const char *function)
{
	Oid relid = rt_table(RT_callback_keys)->relid;

	PreventCommandIfReadOnly(function);
	PreventCommandDuringRecovery(function);
	if (!rt_is_owner(relid, GetUserId()))
		aclcheck_error(ACLCHECK_NOT_OWNER, OBJECT_TABLE, rt_table_name(RT_callback_keys));
	LockDatabaseObject(RelationRelationId, relid, 0, ExclusiveLock);
	return table_open(relid, RowExclusiveLock);
}

static void
random_bytes(void *bytes, size_t length)
{
	if (!pg_strong_random(bytes, length))
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR), errmsg("could not generate random bytes")));
}

/* A new secret: 32 random bytes, hexadecimal. */
static char *
random_secret(void)
{
	char bytes[RT_SHA256_LENGTH];
	char *secret = palloc(2 * sizeof(bytes) + 1);

	random_bytes(bytes, sizeof(bytes));
	(void) hex_encode(bytes, sizeof(bytes), secret);
	secret[2 * sizeof(bytes)] = '\0';
	return secret;
}

static Datum
bytea_datum(const void *data, size_t length)
{
	bytea *result = palloc(length + VARHDRSZ);

	SET_VARSIZE(result, length + VARHDRSZ);
	memcpy(VARDATA(result), data, length);
	return PointerGetDatum(result);
}

/* Write a key, and return it with its secret as the only row of the result. */
static void
write_key(FunctionCallInfo fcinfo, const char *name, bool hmac, const char *secret, Datum for_kind,
		  bool require_timestamp)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	uint8 salt[SALT_LENGTH];
	uint8 hash[RT_SHA256_LENGTH];
	pg_uuid_t key_id;
	RtWriter writer;
	const RtTable *t;
	Datum values[2];
	bool nulls[2] = {0};

	rt_uuid_generate(&key_id);
	random_bytes(salt, sizeof(salt));
	hash_pieces(salt, sizeof(salt), secret, strlen(secret), hash);
	rt_writer_open(&writer, RT_callback_keys);
	t = writer.table;
	rt_writer_blank(&writer);
	rt_writer_set(&writer, RT_ATT(t, callback_keys, key_id), UUIDPGetDatum(&key_id), false);
	rt_writer_set(&writer, RT_ATT(t, callback_keys, name), CStringGetTextDatum(name), false);
	rt_writer_set(&writer, RT_ATT(t, callback_keys, method),
				  CStringGetTextDatum(hmac ? "hmac" : "secret"), false);
	rt_writer_set(&writer, RT_ATT(t, callback_keys, hash), bytea_datum(hash, sizeof(hash)), hmac);
	rt_writer_set(&writer, RT_ATT(t, callback_keys, salt), bytea_datum(salt, sizeof(salt)), hmac);
	rt_writer_set(&writer, RT_ATT(t, callback_keys, hmac_secret),
				  bytea_datum(secret, strlen(secret)), !hmac);
	rt_writer_set(&writer, RT_ATT(t, callback_keys, for_kind), for_kind, for_kind == (Datum) 0);
	rt_writer_set(&writer, RT_ATT(t, callback_keys, require_timestamp),
				  BoolGetDatum(require_timestamp), false);
	rt_writer_set(&writer, RT_ATT(t, callback_keys, created_at),
				  TimestampTzGetDatum(GetCurrentTimestamp()), false);
	rt_writer_set(&writer, RT_ATT(t, callback_keys, expires_at), (Datum) 0, true);
	rt_writer_insert(&writer);
	rt_writer_close(&writer);

	InitMaterializedSRF(fcinfo, 0);
	values[0] = UUIDPGetDatum(&key_id);
	values[1] = CStringGetTextDatum(secret);
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

/* A key of a name, whose next one is about to be made. */
typedef struct OldKey
{
	bool found; /* one that is valid without end */
	bool hmac;
	Datum for_kind; /* 0: any */
	bool require_timestamp;
} OldKey;

/*
 * Find the key of a name that is valid without end.  Those that have ended are deleted; with
 * an end, the others end then at the latest.
 */
static void
end_keys(Relation rel, const char *name, const TimestampTz *end, OldKey *key)
{
	const RtTable *t = rt_table(RT_callback_keys);
	Snapshot snapshot = rt_latest_snapshot();
	TableScanDesc scan = table_beginscan(rel, snapshot, 0, NULL);
	TupleTableSlot *row = table_slot_create(rel, NULL);
	TimestampTz now = GetCurrentTimestamp();
	RtWriter writer;

	rt_writer_open(&writer, RT_callback_keys);
	while (table_scan_getnextslot(scan, ForwardScanDirection, row))
	{
		bool isnull;
		bool endless;
		TimestampTz until;

		if (strcmp(TextDatumGetCString(slot_getattr(row, RT_ATT(t, callback_keys, name), &isnull)),
				   name) != 0)
			continue;
		until =
			DatumGetTimestampTz(slot_getattr(row, RT_ATT(t, callback_keys, expires_at), &endless));
		if (endless)
		{
			Datum kind = slot_getattr(row, RT_ATT(t, callback_keys, for_kind), &isnull);

			key->found = true;
			key->for_kind = isnull ? (Datum) 0 : PointerGetDatum(DatumGetTextPCopy(kind));
			key->hmac = is_method(row, "hmac");
			key->require_timestamp = DatumGetBool(
				slot_getattr(row, RT_ATT(t, callback_keys, require_timestamp), &isnull));
		}
		if (!endless && until <= now)
			rt_writer_delete(&writer, row);
		else if (end && (endless || until > *end))
		{
			rt_writer_copy(&writer, row);
			rt_writer_set(&writer, RT_ATT(t, callback_keys, expires_at), TimestampTzGetDatum(*end),
						  false);
			rt_writer_update(&writer, row);
		}
	}
	rt_writer_close(&writer);
	ExecDropSingleTupleTableSlot(row);
	table_endscan(scan);
	UnregisterSnapshot(snapshot);
}

/* The secret of a new key, which is made if none is given. */
static char *
secret_argument(FunctionCallInfo fcinfo, int arg)
{
	char *secret = PG_ARGISNULL(arg) ? random_secret() : text_to_cstring(PG_GETARG_TEXT_PP(arg));

	if (strlen(secret) < MIN_SECRET_LENGTH || strlen(secret) > MAX_SECRET_LENGTH)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("argument \"secret\" must have %d to %d bytes", MIN_SECRET_LENGTH,
							   MAX_SECRET_LENGTH),
						errhint("Without one, a good secret is made.")));
	return secret;
}

/* create_callback_key(name, method, secret, for_kind, require_timestamp) → key_id, secret */
Datum
run_tracker_create_callback_key(PG_FUNCTION_ARGS)
{
	Relation rel = open_keys("create_callback_key()");
	OldKey old = {0};
	char *name;
	char *method;
	bool hmac;
	bool timestamp;

	rt_call_require(fcinfo, 0, "name");
	rt_call_require(fcinfo, 1, "method");
	rt_call_require(fcinfo, 4, "require_timestamp");
	name = text_to_cstring(rt_call_check_name(PG_GETARG_TEXT_PP(0), "name"));
	method = text_to_cstring(PG_GETARG_TEXT_PP(1));
	hmac = strcmp(method, "hmac") == 0;
	timestamp = PG_GETARG_BOOL(4);
	if (!hmac && strcmp(method, "secret") != 0)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("argument \"method\" must be \"hmac\" or \"secret\""),
						errdetail("It is \"%s\".", method)));
	if (timestamp && !hmac)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("only signed callbacks can have a time that counts"),
						errhint("Let method be \"hmac\".")));
	if (!PG_ARGISNULL(3))
		(void) rt_call_check_name(PG_GETARG_TEXT_PP(3), "for_kind");
	end_keys(rel, name, NULL, &old);
	if (old.found)
		ereport(ERROR, (errcode(ERRCODE_DUPLICATE_OBJECT),
						errmsg("callback key \"%s\" exists already", name),
						errhint("Replace it with run_tracker.rotate_callback_key(name).")));
	write_key(fcinfo, name, hmac, secret_argument(fcinfo, 2),
			  PG_ARGISNULL(3) ? (Datum) 0 : PG_GETARG_DATUM(3), timestamp);
	table_close(rel, NoLock);
	return (Datum) 0;
}

/* rotate_callback_key(name, overlap) → key_id, secret */
Datum
run_tracker_rotate_callback_key(PG_FUNCTION_ARGS)
{
	Relation rel = open_keys("rotate_callback_key()");
	OldKey old = {0};
	Interval zero = {0};
	TimestampTz end;
	char *name;

	rt_call_require(fcinfo, 0, "name");
	rt_call_require(fcinfo, 1, "overlap");
	name = text_to_cstring(rt_call_check_name(PG_GETARG_TEXT_PP(0), "name"));
	if (DatumGetBool(
			DirectFunctionCall2(interval_lt, PG_GETARG_DATUM(1), IntervalPGetDatum(&zero))))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("argument \"overlap\" must not be negative")));
	end = DatumGetTimestampTz(DirectFunctionCall2(timestamptz_pl_interval,
												  TimestampTzGetDatum(GetCurrentTimestamp()),
												  PG_GETARG_DATUM(1)));
	end_keys(rel, name, &end, &old);
	if (!old.found)
		ereport(ERROR, (errcode(ERRCODE_NO_DATA_FOUND), errmsg("callback key not found"),
						errdetail("There is no key \"%s\" that is valid without end.", name),
						errhint("Make one with run_tracker.create_callback_key(name).")));
	write_key(fcinfo, name, old.hmac, random_secret(), old.for_kind, old.require_timestamp);
	table_close(rel, NoLock);
	return (Datum) 0;
}

/* drop_callback_key(key_id) → was there such a key? */
Datum
run_tracker_drop_callback_key(PG_FUNCTION_ARGS)
{
	Relation rel = open_keys("drop_callback_key()");
	Snapshot snapshot;
	RtProbe probe;
	bool found;

	rt_call_require(fcinfo, 0, "key_id");
	snapshot = rt_latest_snapshot();
	rt_probe_begin(&probe, rel, PG_GETARG_DATUM(0), snapshot);
	found = rt_probe_next(&probe, ForwardScanDirection);
	if (found)
	{
		RtWriter writer;

		rt_writer_open(&writer, RT_callback_keys);
		rt_writer_delete(&writer, probe.slot);
		rt_writer_close(&writer);
	}
	rt_probe_end(&probe);
	UnregisterSnapshot(snapshot);
	table_close(rel, NoLock);
	PG_RETURN_BOOL(found);
}
