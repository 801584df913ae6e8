-- Who is calling.

CREATE FUNCTION run_tracker.tracker_version() RETURNS text
LANGUAGE c STABLE PARALLEL SAFE
AS 'MODULE_PATHNAME', 'run_tracker_tracker_version';
COMMENT ON FUNCTION run_tracker.tracker_version() IS
'Version of the installed library. The version of the tables is in run_tracker.installation.';

CREATE FUNCTION run_tracker.current_user_id() RETURNS text
LANGUAGE c STABLE PARALLEL SAFE
AS 'MODULE_PATHNAME', 'run_tracker_current_user_id';
COMMENT ON FUNCTION run_tracker.current_user_id() IS
'The user on whose behalf the caller acts: claim "sub" of request.jwt.claims (or request.jwt.claim.sub), or, with run_tracker.identity = role, the name of the current role. Null if there is none, never the empty string; malformed claims are no identity. Any SQL user can set request.jwt.claims: it is an identity only behind a gateway that sets it.';

CREATE FUNCTION run_tracker.is_service() RETURNS boolean
LANGUAGE c STABLE PARALLEL SAFE
AS 'MODULE_PATHNAME', 'run_tracker_is_service';
COMMENT ON FUNCTION run_tracker.is_service() IS
'True if the caller may act for every user: a superuser, the owner of the tables, or a role that grant_service() was called for.';

CREATE FUNCTION run_tracker.uuidv7() RETURNS uuid
LANGUAGE c VOLATILE PARALLEL SAFE
AS 'MODULE_PATHNAME', 'run_tracker_uuidv7';
COMMENT ON FUNCTION run_tracker.uuidv7() IS
'A new UUID of version 7 (RFC 9562): time-ordered, the default of run and task ids.';
