-- Accounts: what users may do, and what they have used.

CREATE FUNCTION run_tracker.tiers_before() RETURNS trigger
LANGUAGE c
AS 'MODULE_PATHNAME', 'run_tracker_tiers_before';
COMMENT ON FUNCTION run_tracker.tiers_before() IS 'Trigger of run_tracker.tiers: checks the limits.';

CREATE FUNCTION run_tracker.accounts_before() RETURNS trigger
LANGUAGE c
AS 'MODULE_PATHNAME', 'run_tracker_accounts_before';
COMMENT ON FUNCTION run_tracker.accounts_before() IS
'Trigger of run_tracker.accounts: fills in user and times, and checks what the account overrides.';

CREATE FUNCTION run_tracker.ensure_account(user_id text DEFAULT NULL, tier text DEFAULT NULL) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    the_user text := COALESCE(user_id, run_tracker.current_user_id());
    known boolean;
BEGIN
    PERFORM run_tracker.require_tables();
    IF the_user IS NULL OR octet_length(the_user) NOT BETWEEN 1 AND 512 THEN
        RAISE EXCEPTION 'argument "user_id" must name a user'
            USING ERRCODE = 'invalid_parameter_value', HINT = 'A user id has 1 to 512 bytes; it may be left out where there is a current user.';
    ELSIF NOT run_tracker.is_service() AND the_user IS DISTINCT FROM run_tracker.current_user_id() THEN
        RAISE EXCEPTION 'only services may act for other users'
            USING ERRCODE = 'insufficient_privilege', DETAIL = format('The user is "%s".', the_user);
    END IF;
    SELECT true INTO known FROM run_tracker.accounts a WHERE a.user_id = the_user;
    IF known THEN
        RETURN false;
    ELSIF tier IS NULL THEN
        INSERT INTO run_tracker.accounts (user_id) VALUES (the_user) ON CONFLICT DO NOTHING;
        RETURN FOUND;
    ELSIF NOT EXISTS (SELECT FROM run_tracker.tiers t WHERE t.name = ensure_account.tier) THEN
        RAISE EXCEPTION 'tier does not exist'
            USING ERRCODE = 'foreign_key_violation', DETAIL = format('The tier is "%s".', left(tier, 100)),
                  HINT = 'Tiers are rows of run_tracker.tiers.';
    ELSIF NOT run_tracker.is_service() AND tier <> 'free' THEN
        RAISE EXCEPTION 'only services may give an account another tier than "free"'
            USING ERRCODE = 'insufficient_privilege', DETAIL = format('The tier is "%s".', tier);
    END IF;
    IF tier = 'free' THEN
        -- who may not choose has no privilege to
        INSERT INTO run_tracker.accounts (user_id) VALUES (the_user) ON CONFLICT DO NOTHING;
    ELSE
        INSERT INTO run_tracker.accounts (user_id, tier) VALUES (the_user, ensure_account.tier) ON CONFLICT DO NOTHING;
    END IF;
    RETURN FOUND;
END
$$;
COMMENT ON FUNCTION run_tracker.ensure_account(text, text) IS
'Makes an account for a user (by default the caller) unless there is one, and returns whether it did: an account that exists stays as it is, whatever its tier. The tier is "free" unless a service says otherwise; services change it with UPDATE run_tracker.accounts. 23503 if there is no such tier, 42501 for another user or tier unless called by a service, 22023 without a user.';

CREATE FUNCTION run_tracker.usage_sums(user_id text DEFAULT NULL, OUT tier text, OUT day date, OUT month date,
    OUT day_ends_at timestamptz, OUT month_ends_at timestamptz,
    OUT monthly_tokens bigint, OUT monthly_cost numeric, OUT daily_requests bigint,
    OUT reserved_tokens bigint, OUT reserved_cost numeric, OUT reserved_requests bigint,
    OUT monthly_tokens_limit bigint, OUT monthly_cost_limit numeric, OUT daily_requests_limit bigint,
    OUT concurrent_sessions_limit bigint)
LANGUAGE c STABLE SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'run_tracker_usage_sums';
COMMENT ON FUNCTION run_tracker.usage_sums(text) IS
'What quotas() is made of: what a user (by default the caller) has used in this month and day of the time zone run_tracker.time_zone, and has reserved, with the limits; a null limit is none. 42501 for another user unless called by a service, 22023 without a user.';

CREATE FUNCTION run_tracker.read_quotas(of_user text)
RETURNS TABLE (quota text, used numeric, reserved numeric, "limit" numeric, remaining numeric, reset_at timestamptz)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    s record;
    sessions bigint;
BEGIN
    PERFORM run_tracker.require_tables();
    SELECT u.* INTO s FROM run_tracker.usage_sums(of_user) u;
    SELECT count(*) INTO sessions FROM run_tracker.active_sessions a
    WHERE a.user_id = COALESCE(of_user, run_tracker.current_user_id());
    RETURN QUERY
    SELECT q.quota, q.used, q.reserved, q."limit", CASE WHEN q."limit" IS NOT NULL THEN GREATEST(q."limit" - q.used - q.reserved, 0) END, q.reset_at
    FROM (VALUES ('monthly_tokens', s.monthly_tokens::numeric, s.reserved_tokens::numeric, s.monthly_tokens_limit::numeric, s.month_ends_at),
                 ('monthly_cost', s.monthly_cost, s.reserved_cost, s.monthly_cost_limit, s.month_ends_at),
                 ('daily_requests', s.daily_requests::numeric, s.reserved_requests::numeric, s.daily_requests_limit::numeric, s.day_ends_at),
                 ('concurrent_sessions', sessions::numeric, 0::numeric, s.concurrent_sessions_limit::numeric, NULL))
         AS q (quota, used, reserved, "limit", reset_at);
END
$$;
COMMENT ON FUNCTION run_tracker.read_quotas(text) IS 'What quotas() runs: the same with an argument of another name.';

CREATE FUNCTION run_tracker.quotas(user_id text DEFAULT NULL)
RETURNS TABLE (quota text, used numeric, reserved numeric, "limit" numeric, remaining numeric, reset_at timestamptz)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$ SELECT * FROM run_tracker.read_quotas($1) $$;
COMMENT ON FUNCTION run_tracker.quotas(text) IS
'The quotas of a user, by default the caller, a row each: monthly_tokens, monthly_cost, daily_requests and concurrent_sessions, with what is used, reserved by calls that are under way, allowed (null: no limit), left, and when it begins anew: months and days are those of run_tracker.time_zone. Exact in every snapshot, of a few rows however long the history is. 42501 for another user unless called by a service, 22023 without a user.';

CREATE FUNCTION run_tracker.install_accounts() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET client_min_messages = warning
AS $install$
BEGIN
    IF to_regclass('run_tracker.tiers') IS NULL THEN
        CREATE TABLE run_tracker.tiers (
            name text NOT NULL,
            monthly_tokens bigint,
            daily_requests bigint,
            concurrent_sessions bigint,
            monthly_cost numeric,
            rate_limits jsonb NOT NULL DEFAULT '{}',
            description text,
            CONSTRAINT tiers_pkey PRIMARY KEY (name)
        );
        ALTER TABLE run_tracker.tiers ENABLE ROW LEVEL SECURITY;
        PERFORM run_tracker.revoke_all('run_tracker.tiers');

        COMMENT ON TABLE run_tracker.tiers IS
        'What the accounts of a tier may do. A null is no limit. A change is in force at once. Written by services.';
        COMMENT ON COLUMN run_tracker.tiers.name IS 'Name. Users without an account have the limits of the tier "free"; none, if somebody has deleted that.';
        COMMENT ON COLUMN run_tracker.tiers.monthly_tokens IS 'Tokens (total) per month.';
        COMMENT ON COLUMN run_tracker.tiers.daily_requests IS 'Requests per day: finished tasks, and what record_usage() and log_request() count.';
        COMMENT ON COLUMN run_tracker.tiers.concurrent_sessions IS 'Sessions that are active at a time, see open_session().';
        COMMENT ON COLUMN run_tracker.tiers.monthly_cost IS 'Cost per month, in the currency of tasks.cost.';
        COMMENT ON COLUMN run_tracker.tiers.rate_limits IS
        'Calls of consume_rate_limit() by endpoint, "*" for each of the others: {"*": {"limit": 60, "window": "1 minute"}}; the window is an interval, or a number of seconds; null is no limit.';
        COMMENT ON COLUMN run_tracker.tiers.description IS 'For people.';
    END IF;
    CREATE OR REPLACE TRIGGER zz_run_tracker_before BEFORE INSERT OR UPDATE ON run_tracker.tiers
        FOR EACH ROW EXECUTE FUNCTION run_tracker.tiers_before();
    IF NOT run_tracker.has_policy('run_tracker.tiers', 'readable') THEN
        CREATE POLICY readable ON run_tracker.tiers FOR SELECT USING (true);
        COMMENT ON POLICY readable ON run_tracker.tiers IS 'Everyone may know what the tiers are.';
    END IF;

    IF to_regclass('run_tracker.accounts') IS NULL THEN
        CREATE TABLE run_tracker.accounts (
            user_id text NOT NULL,
            tier text NOT NULL DEFAULT 'free',
            permissions text[] NOT NULL DEFAULT '{}',
            overrides jsonb,
            metadata jsonb,
            created_at timestamptz NOT NULL,
            updated_at timestamptz NOT NULL,
            CONSTRAINT accounts_pkey PRIMARY KEY (user_id),
            CONSTRAINT accounts_tier_fkey FOREIGN KEY (tier) REFERENCES run_tracker.tiers (name) ON UPDATE CASCADE,
            CONSTRAINT accounts_permissions_check CHECK (array_position(permissions, NULL) IS NULL)
        );
        ALTER TABLE run_tracker.accounts ENABLE ROW LEVEL SECURITY;
        PERFORM run_tracker.revoke_all('run_tracker.accounts');

        COMMENT ON TABLE run_tracker.accounts IS
        'Accounts of users: tier, permissions, and what deviates from the tier. Users may make their own, of the tier "free"; the rest is for services.';
        COMMENT ON COLUMN run_tracker.accounts.user_id IS 'User, as current_user_id() gives it; the caller unless given.';
        COMMENT ON COLUMN run_tracker.accounts.tier IS 'Tier (run_tracker.tiers).';
        COMMENT ON COLUMN run_tracker.accounts.permissions IS 'Words that the application knows, such as spark:generate.';
        COMMENT ON COLUMN run_tracker.accounts.overrides IS
        'Limits that win over those of the tier: an object with keys monthly_tokens, daily_requests, concurrent_sessions, monthly_cost and rate_limits; null as value is no limit.';
        COMMENT ON COLUMN run_tracker.accounts.metadata IS 'Anything else, a JSON object.';
        COMMENT ON COLUMN run_tracker.accounts.created_at IS 'When the account was made (wall clock); filled in.';
        COMMENT ON COLUMN run_tracker.accounts.updated_at IS 'When it was last changed; filled in.';
    END IF;
    CREATE INDEX IF NOT EXISTS accounts_tier_idx ON run_tracker.accounts (tier);
    CREATE OR REPLACE TRIGGER zz_run_tracker_before BEFORE INSERT OR UPDATE ON run_tracker.accounts
        FOR EACH ROW EXECUTE FUNCTION run_tracker.accounts_before();
    PERFORM run_tracker.install_policy('run_tracker.accounts');
    PERFORM run_tracker.as_owner('run_tracker.tiers', $built_in$
        INSERT INTO run_tracker.tiers (name, monthly_tokens, daily_requests, concurrent_sessions, rate_limits)
        VALUES ('free', 100000, 100, 1, '{"*": {"limit": 60, "window": "1 minute"}}')
        ON CONFLICT (name) DO NOTHING $built_in$);
END
$install$;
COMMENT ON FUNCTION run_tracker.install_accounts() IS 'Internal: the part of install() for accounts and tiers.';
