/*-------------------------------------------------------------------------
 *
 * callbacks.c
 *		What an automation server tells of a run: callback(), callback_signed() and
 *		callback_secret().
 *
 * The role that calls them needs no other privilege than to do so: the credentials are what
 * counts.  Until they are verified nothing is written, and nothing is read but the keys.  Then
 * the owner of the tables does the rest, as for all that nobody is there for: restricted, and
 * with a search_path that nobody else has a say in.
 *
 * Locking protocol: that of complete_run(), see run_calls.c: apply_callback() waits for those who
 * change tasks of the run, then locks the run.
 *
 *-------------------------------------------------------------------------
 */
#include "run_tracker.h"

#include "access/table.h"
#include "access/xact.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/guc.h"

#include "callbacks.h"
#include "calls.h"
#include "identity.h"
#include "runs.h"
#include "writer.h"

PG_FUNCTION_INFO_V1(run_tracker_callback);
PG_FUNCTION_INFO_V1(run_tracker_callback_signed);
PG_FUNCTION_INFO_V1(run_tracker_callback_secret);
PG_FUNCTION_INFO_V1(run_tracker_wait_for_writers);

/* A header of the request, as PostgREST shows it; NULL if there is none. */
static char *
header(const char *name)
{
	const char *headers = GetConfigOption("request.headers", true, false);

	return headers && headers[0] != '\0' ? rt_identity_field(headers, name) : NULL;
}

/* An argument or else a header; NULL if there is neither. */
static char *
argument_or_header(FunctionCallInfo fcinfo, int arg, const char *name)
{
	return PG_ARGISNULL(arg) ? header(name) : text_to_cstring(PG_GETARG_TEXT_PP(arg));
}

/* Have the payload applied by apply_callback(), as the owner; the result is palloc'd. */
static Datum
apply(Datum payload, const RtCallbackKey *key, const uint8 *digest)
{
	static RtPlan plan = {"SELECT run_tracker.apply_callback($1, $2, $3, $4)",
						  4,
						  {JSONOID, BYTEAOID, UUIDOID, TEXTOID}};
	NullableDatum args[4] = {{0}};
	const char *actor = rt_background_actor;
	Relation runs = table_open(rt_table(RT_runs)->relid, AccessShareLock);
	bytea *bytes = palloc(VARHDRSZ + RT_SHA256_LENGTH);
	RtOwnerSwitch save;
	Datum result;
	bool isnull;

	SET_VARSIZE(bytes, VARHDRSZ + RT_SHA256_LENGTH);
	memcpy(VARDATA(bytes), digest, RT_SHA256_LENGTH);
	args[0].value = payload;
	args[1].value = PointerGetDatum(bytes);
	args[2].value = UUIDPGetDatum(&key->key_id);
	args[3].isnull = key->for_kind == NULL;
	if (key->for_kind)
		args[3].value = CStringGetTextDatum(key->for_kind);

	SPI_connect();
	rt_owner_enter(&save, runs);
	rt_background_actor = psprintf("callback %s", key->name);
	PG_TRY();
	{
		rt_plan_execute(&plan, args, SPI_OK_SELECT, false);
	}
	PG_FINALLY();
	{
		rt_background_actor = actor;
	}
	PG_END_TRY();
	rt_owner_leave(&save);
	result = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
	result = SPI_datumTransfer(result, false, -1);
	SPI_finish();
	table_close(runs, NoLock);
	return result;
}

/* Take a callback with its credentials, the payload of which is not filled in. */
static Datum
take(FunctionCallInfo fcinfo, const char *function, RtCredentials *given)
{
	text *payload;
	uint8 digest[RT_SHA256_LENGTH];
	RtCallbackKey key;

	PreventCommandIfReadOnly(function);
	PreventCommandDuringRecovery(function);
	rt_call_require(fcinfo, 0, "payload");
	payload = PG_GETARG_TEXT_PP(0);
	if (VARSIZE_ANY_EXHDR(payload) > (int64) rt_max_payload_kb * 1024)
		ereport(ERROR, (errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED), errmsg("payload is too large"),
						errdetail("It has %zu bytes, at most %lld are allowed.",
								  (size_t) VARSIZE_ANY_EXHDR(payload),
								  (long long) rt_max_payload_kb * 1024)));
	/* what was sent, and signed, is UTF-8 */
	given->payload = pg_server_to_any(VARDATA_ANY(payload), VARSIZE_ANY_EXHDR(payload), PG_UTF8);
	given->length = given->payload == VARDATA_ANY(payload) ? VARSIZE_ANY_EXHDR(payload) :
															 strlen(given->payload);
	if (!rt_callback_verify(given, &key))
		ereport(ERROR, (errcode(ERRCODE_RT_BAD_SIGNATURE), errmsg("bad signature or secret")));
	rt_triggers_require();
	rt_callback_digest(given->payload, given->length, digest);
	return apply(PointerGetDatum(payload), &key, digest);
}

/* callback(json): credentials are in the headers of the request */
Datum
run_tracker_callback(PG_FUNCTION_ARGS)
{
	RtCredentials given = {.signature = header("x-signature-256")};

	if (given.signature)
		given.signed_at = header("x-signature-timestamp");
	else
		given.secret = header("x-spar-auth");
	return take(fcinfo, "callback()", &given);
}

/* callback_signed(payload, signature, signed_at) */
Datum
run_tracker_callback_signed(PG_FUNCTION_ARGS)
{
	RtCredentials given = {.signature = argument_or_header(fcinfo, 1, "x-signature-256"),
						   .signed_at = argument_or_header(fcinfo, 2, "x-signature-timestamp")};

	/* none is a bad one */
	if (given.signature == NULL)
		given.signature = "";
	return take(fcinfo, "callback_signed()", &given);
}

/* callback_secret(payload, secret) */
Datum
run_tracker_callback_secret(PG_FUNCTION_ARGS)
{
	RtCredentials given = {.secret = argument_or_header(fcinfo, 1, "x-spar-auth")};

	return take(fcinfo, "callback_secret()", &given);
}

/* wait_for_writers(run_id, ending): for those who change tasks of a run, before it is locked */
Datum
run_tracker_wait_for_writers(PG_FUNCTION_ARGS)
{
	rt_call_require(fcinfo, 0, "run_id");
	rt_call_require(fcinfo, 1, "ending");
	rt_tasks_wait_for_writers(PG_GETARG_UUID_P(0), PG_GETARG_BOOL(1));
	PG_RETURN_VOID();
}
