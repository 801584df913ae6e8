-- Rate limits: how often users may call what. The limits themselves are in tiers and accounts.

CREATE FUNCTION run_tracker.consume_rate_limit(endpoint text, cost integer DEFAULT 1, user_id text DEFAULT NULL)
RETURNS TABLE (allowed boolean, current bigint, "limit" bigint, remaining bigint, reset_at timestamptz, reset_ms bigint)
LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 1 SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'run_tracker_consume_rate_limit';
COMMENT ON FUNCTION run_tracker.consume_rate_limit(text, integer, text) IS
'Counts a call of an endpoint, if the rate limit of the user (default: the caller) allows it, and says so in one row: allowed; current, what was used within the window, with this call if it is allowed; limit; remaining; and reset_at with reset_ms, the milliseconds until then: for an allowed call when current will be back at 0, for a refused one when it will be allowed, null if never because it costs more than the limit. A sliding window: in any time as long as the window there are never more calls than the limit, and what was used comes back at most 1/60 of the window late. A refused call uses nothing. A cost of 0 only looks, and says what a cost of 1 would get. Where no limit is set the call is allowed, the rest is null, and nothing is counted. What is counted is shared by all connections at once, is not undone by ROLLBACK, and waits for no transaction; it works in read-only transactions and on standbys, each server for itself, and begins at 0 with the server: after a crash, a restart or a failover at most one more limit is let through. Of the endpoints that fall under "*", a user''s first 1000 within their window have a count each, further ones share one. 22023 for a bad argument, 42501 for another user unless called by a service, 53400 if run_tracker.limit_memory is used up.';

CREATE FUNCTION run_tracker.consume_rate_limit_or_fail(endpoint text, cost integer DEFAULT 1, user_id text DEFAULT NULL)
RETURNS TABLE (allowed boolean, current bigint, "limit" bigint, remaining bigint, reset_at timestamptz, reset_ms bigint)
LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 1 SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'run_tracker_consume_rate_limit_or_fail';
COMMENT ON FUNCTION run_tracker.consume_rate_limit_or_fail(text, integer, text) IS
'The same as consume_rate_limit(), but a refused call is an error: RT005, whose detail says endpoint, current, limit and the milliseconds until it will be allowed.';

CREATE FUNCTION run_tracker.reset_rate_limit(user_id text, endpoint text DEFAULT NULL) RETURNS bigint
LANGUAGE c VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'run_tracker_reset_rate_limit';
COMMENT ON FUNCTION run_tracker.reset_rate_limit(text, text) IS
'Forgets what a user has used of an endpoint (default: of all), at once and whatever becomes of the transaction, and returns how many counts that were. For services. 22023 for a bad argument.';

CREATE FUNCTION run_tracker.rate_limit_state(OUT user_id text, OUT endpoint text, OUT current bigint, OUT "limit" bigint,
    OUT remaining bigint, OUT reset_at timestamptz, OUT "window" interval)
RETURNS SETOF record
LANGUAGE c VOLATILE ROWS 100 SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'run_tracker_rate_limit_state';
COMMENT ON FUNCTION run_tracker.rate_limit_state() IS 'What the view run_tracker.rate_limits shows.';

-- A view of the extension's, not of the user's: it shows what is in memory, and holds nothing that could be lost.
CREATE VIEW run_tracker.rate_limits WITH (security_invoker = true) AS
SELECT s.user_id, s.endpoint, s.current, s."limit", s.remaining, s.reset_at, s."window"
FROM run_tracker.rate_limit_state() s;
DO $$ BEGIN PERFORM run_tracker.revoke_all('run_tracker.rate_limits'); END $$;

COMMENT ON VIEW run_tracker.rate_limits IS
'What users have used of their rate limits: of all users for services, their own for others. No row where nothing was used within the window.';
COMMENT ON COLUMN run_tracker.rate_limits.user_id IS 'User.';
COMMENT ON COLUMN run_tracker.rate_limits.endpoint IS
'Endpoint; * is what endpoints share that a user has no counts left for, see consume_rate_limit().';
COMMENT ON COLUMN run_tracker.rate_limits.current IS 'What was used within the window.';
COMMENT ON COLUMN run_tracker.rate_limits."limit" IS 'How much may be used within the window, as of the last call.';
COMMENT ON COLUMN run_tracker.rate_limits.remaining IS 'What is left of that.';
COMMENT ON COLUMN run_tracker.rate_limits.reset_at IS 'When current will be back at 0, if there are no further calls.';
COMMENT ON COLUMN run_tracker.rate_limits."window" IS 'Length of the window, as of the last call.';
