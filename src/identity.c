/*-------------------------------------------------------------------------
 *
 * identity.c
 *		Who is calling: the user, and whether the caller is a service.
 *
 * With run_tracker.identity = 'jwt', the user is the claim "sub" of the JSON Web
 * Token that a gateway such as PostgREST has verified and put into a setting.  A
 * setting that any SQL user can change is an identity only behind such a gateway.
 * Malformed claims are no identity; they never raise an error that could show
 * them, so they are read with the parser that returns its errors.
 *
 *-------------------------------------------------------------------------
 */
#include "run_tracker.h"

#include "catalog/pg_class.h"
#include "common/jsonapi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"

#include "catalog.h"
#include "identity.h"

PG_FUNCTION_INFO_V1(run_tracker_current_user_id);
PG_FUNCTION_INFO_V1(run_tracker_is_service);

/* no gateway sends longer ones, and the parser recurses into nested ones */
#define RT_MAX_CLAIMS_LENGTH 16384
#define RT_MAX_CLAIMS_DEPTH	 512

typedef struct ClaimsState
{
	const char *field; /* to be found at the top level */
	int depth;
	bool is_field;	/* it is the one that is being read */
	bool is_object; /* the claims are an object */
	char *value;
} ClaimsState;

static RT_JSON_CALLBACK
claims_object_start(void *state)
{
	ClaimsState *claims = state;

	if (claims->depth++ == 0)
		claims->is_object = true;
	RT_JSON_CALLBACK_DONE;
}

static RT_JSON_CALLBACK
claims_object_end(void *state)
{
	((ClaimsState *) state)->depth--;
	RT_JSON_CALLBACK_DONE;
}

static RT_JSON_CALLBACK
claims_array_start(void *state)
{
	((ClaimsState *) state)->depth++;
	RT_JSON_CALLBACK_DONE;
}

static RT_JSON_CALLBACK
claims_array_end(void *state)
{
	((ClaimsState *) state)->depth--;
	RT_JSON_CALLBACK_DONE;
}

static RT_JSON_CALLBACK
claims_field_start(void *state, char *name, bool isnull)
{
	ClaimsState *claims = state;

	if (claims->depth == 1 && claims->is_object)
	{
		claims->is_field = strcmp(name, claims->field) == 0;
		/* of several fields of a name, the last one counts, as for jsonb */
		if (claims->is_field)
			claims->value = NULL;
	}
	RT_JSON_CALLBACK_DONE;
}

static RT_JSON_CALLBACK
claims_scalar(void *state, char *token, JsonTokenType type)
{
	ClaimsState *claims = state;

	if (claims->depth == 1 && claims->is_field && type == JSON_TOKEN_STRING && token[0] != '\0')
		claims->value = token;
	RT_JSON_CALLBACK_DONE;
}

/* Are the brackets of a JSON text nested too deeply to parse it?  Those in strings do not count. */
static bool
too_deep(const char *json)
{
	int depth = 0;
	bool in_string = false;

	for (const char *c = json; *c; c++)
	{
		if (in_string)
		{
			if (*c == '\\' && c[1] != '\0')
				c++;
			else if (*c == '"')
				in_string = false;
		}
		else if (*c == '"')
			in_string = true;
		else if (*c == '{' || *c == '[')
		{
			if (++depth > RT_MAX_CLAIMS_DEPTH)
				return true;
		}
		else if (*c == '}' || *c == ']')
			depth--;
	}
	return false;
}

/*
 * Has a JSON text escapes that the encoding of the database may not know?  The parser
 * would raise an error for them.
 */
static bool
has_foreign_escapes(const char *json)
{
	if (GetDatabaseEncoding() == PG_UTF8)
		return false;
	for (const char *c = json; (c = strstr(c, "\\u")) != NULL; c += 2)
		if (strncmp(c + 2, "00", 2) != 0 || c[4] > '7')
			return true;
	return false;
}

/*
 * A string, not empty, of a JSON object that a gateway has put into a setting, palloc'd; NULL if
 * it has no such field, or is malformed.
 */
char *
rt_identity_field(const char *claims, const char *field)
{
	ClaimsState state = {.field = field};
	JsonSemAction actions = {0};
	JsonLexContext *lexer;
	int len = strlen(claims);

	if (len > RT_MAX_CLAIMS_LENGTH || too_deep(claims) || has_foreign_escapes(claims) ||
		!pg_verify_mbstr(GetDatabaseEncoding(), claims, len, true))
		return NULL;

	actions.semstate = &state;
	actions.object_start = claims_object_start;
	actions.object_end = claims_object_end;
	actions.array_start = claims_array_start;
	actions.array_end = claims_array_end;
	actions.object_field_start = claims_field_start;
	actions.scalar = claims_scalar;

	lexer = rt_json_lexer((char *) claims, len);
	if (pg_parse_json(lexer, &actions) != JSON_SUCCESS || !state.is_object)
		return NULL;
	return state.value;
}

const char *rt_background_actor = NULL;

/* The user on whose behalf this is called, palloc'd; NULL if there is none, never ''. */
char *
rt_identity_user(void)
{
	const char *setting;

	if (rt_identity_mode == RT_IDENTITY_ROLE)
		return GetUserNameFromId(GetUserId(), false);

	setting = GetConfigOption("request.jwt.claims", true, false);
	if (setting && setting[0] != '\0')
		return rt_identity_field(setting, "sub");

	/* PostgREST before version 9 had one setting for each claim */
	setting = GetConfigOption("request.jwt.claim.sub", true, false);
	if (setting && setting[0] != '\0' && strlen(setting) <= RT_MAX_CLAIMS_LENGTH)
		return pstrdup(setting);
	return NULL;
}

/*
 * Is the caller a service?  Services are superusers, the owner of the tables, and
 * roles that may write all columns of runs, which is what grant_service() grants.
 */
bool
rt_identity_is_service(void)
{
	Oid userid = GetUserId();
	Oid runs;

	if (superuser_arg(userid))
		return true;
	runs = rt_table(RT_runs)->relid;
	return pg_class_aclcheck(runs, userid, ACL_INSERT) == ACLCHECK_OK &&
		   pg_class_aclcheck(runs, userid, ACL_UPDATE) == ACLCHECK_OK;
}

/* Is this the user, as rt_identity_user() has told?  Nobody if NULL. */
bool
rt_identity_is(Datum user_id, const char *user)
{
	text *t = DatumGetTextPP(user_id);

	return user && VARSIZE_ANY_EXHDR(t) == strlen(user) &&
		   memcmp(VARDATA_ANY(t), user, strlen(user)) == 0;
}

/* May the caller see and write rows of this user? */
bool
rt_identity_owns(Datum user_id)
{
	return rt_identity_is(user_id, rt_identity_user()) || rt_identity_is_service();
}

/* Who is recorded as the cause of a transition: the user, else the role; palloc'd. */
char *
rt_identity_actor(void)
{
	char *user;

	if (rt_background_actor)
		return pstrdup(rt_background_actor);
	user = rt_identity_user();
	return user ? user : GetUserNameFromId(GetUserId(), false);
}

/* current_user_id() → text, or null. */
Datum
run_tracker_current_user_id(PG_FUNCTION_ARGS)
{
	char *user = rt_identity_user();

	if (user == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(user));
}

/* is_service() → boolean */
Datum
run_tracker_is_service(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(rt_identity_is_service());
}
