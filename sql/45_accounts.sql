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

CREATE FUNCTION run_tracker.accounts_quotas() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    words CONSTANT jsonb := '{"monthlyTokens": "monthly_tokens", "dailyRequests": "daily_requests",
        "concurrentSessions": "concurrent_sessions", "monthlyCost": "monthly_cost", "rateLimits": "rate_limits"}';
    tier record;
    too_much text;
BEGIN
    IF TG_OP = 'INSERT' THEN
        NEW.user_id := COALESCE(NEW.user_id, NEW.user_uuid::text, run_tracker.current_user_id());
        NEW.user_uuid := CASE WHEN NEW.user_id ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' THEN NEW.user_id::uuid END;
        NEW.tier := COALESCE(NEW.tier, 'free');
    ELSE
        NEW.user_uuid := OLD.user_uuid;
    END IF;
    SELECT t.permissions,
           jsonb_build_object('monthly_tokens', t.monthly_tokens, 'daily_requests', t.daily_requests, 'concurrent_sessions',
                              t.concurrent_sessions, 'monthly_cost', t.monthly_cost, 'rate_limits', NULL) AS limits
    INTO tier FROM run_tracker.tiers t WHERE t.name = NEW.tier;
    IF TG_OP = 'INSERT' THEN
        NEW.permissions := COALESCE(NEW.permissions, tier.permissions, '{}');
    END IF;

    -- whoever writes quotas means what they say that the tier does not
    IF NEW.quotas IS NOT NULL
       AND (TG_OP = 'INSERT' AND NEW.overrides IS NULL
            OR TG_OP = 'UPDATE' AND NEW.quotas IS DISTINCT FROM OLD.quotas AND NEW.overrides IS NOT DISTINCT FROM OLD.overrides) THEN
        IF jsonb_typeof(NEW.quotas) <> 'object' OR NEW.quotas - ARRAY(SELECT jsonb_object_keys(words)) <> '{}' THEN
            RAISE EXCEPTION 'invalid value of column "quotas" of table "accounts"'
                USING ERRCODE = 'check_violation', TABLE = TG_TABLE_NAME, SCHEMA = TG_TABLE_SCHEMA, COLUMN = 'quotas',
                      DETAIL = 'It must be a JSON object with keys monthlyTokens, dailyRequests, concurrentSessions, monthlyCost and rateLimits.';
        END IF;
        NEW.overrides := (SELECT jsonb_object_agg(w.value, NEW.quotas -> w.key) FROM jsonb_each_text(words) w
                          WHERE NEW.quotas ? w.key AND NEW.quotas -> w.key IS DISTINCT FROM tier.limits -> w.value);
    END IF;

    -- what users give themselves is at most what they get anyway
    IF TG_OP = 'INSERT' AND NOT run_tracker.is_service() THEN
        IF NEW.tier <> 'free' THEN
            too_much := format('tier "%s"', left(NEW.tier, 100));
        ELSIF NOT NEW.permissions <@ tier.permissions THEN
            too_much := format('permissions %s', left((SELECT array_agg(p) FROM unnest(NEW.permissions) p
                                                       WHERE p IS NULL OR p <> ALL (tier.permissions))::text, 100));
        ELSE
            SELECT format('quota "%s"', left(o.key, 100)) INTO too_much FROM jsonb_each(NEW.overrides) o
            WHERE o.value = 'null' OR o.key = 'rate_limits'
               OR jsonb_typeof(o.value) = 'number' AND jsonb_typeof(tier.limits -> o.key) = 'number'
                  AND o.value > tier.limits -> o.key
            LIMIT 1;
        END IF;
        IF too_much IS NOT NULL THEN
            RAISE EXCEPTION 'only services may give an account more than the tier "free" has'
                USING ERRCODE = 'insufficient_privilege', TABLE = TG_TABLE_NAME, SCHEMA = TG_TABLE_SCHEMA,
                      DETAIL = format('The account was to have %s.', too_much),
                      HINT = 'What accounts have that users make themselves is in the row "free" of run_tracker.tiers.';
        END IF;
    END IF;

    NEW.quotas := (SELECT jsonb_object_agg(w.key, COALESCE(NEW.overrides -> w.value, tier.limits -> w.value))
                   FROM jsonb_each_text(words) w
                   WHERE w.key IN ('monthlyTokens', 'dailyRequests', 'concurrentSessions')
                      OR COALESCE(NEW.overrides -> w.value, tier.limits -> w.value) <> 'null');
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION run_tracker.accounts_quotas() IS
'Trigger of run_tracker.accounts: keeps quotas and overrides, user_uuid and user_id the same, and refuses what users may not give themselves (42501).';

CREATE FUNCTION run_tracker.tiers_quotas() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF ROW(NEW.monthly_tokens, NEW.daily_requests, NEW.concurrent_sessions, NEW.monthly_cost)
       IS DISTINCT FROM ROW(OLD.monthly_tokens, OLD.daily_requests, OLD.concurrent_sessions, OLD.monthly_cost) THEN
        UPDATE run_tracker.accounts a SET quotas = NULL WHERE a.tier = NEW.name;
    END IF;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION run_tracker.tiers_quotas() IS
'Trigger of run_tracker.tiers: accounts show the limits of their tier.';

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
            permissions text[] NOT NULL DEFAULT '{}',
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
        COMMENT ON COLUMN run_tracker.tiers.permissions IS
        'Permissions of new accounts of the tier, unless they are given others.';
        COMMENT ON COLUMN run_tracker.tiers.description IS 'For people.';
    END IF;
    CREATE OR REPLACE TRIGGER zz_run_tracker_before BEFORE INSERT OR UPDATE ON run_tracker.tiers
        FOR EACH ROW EXECUTE FUNCTION run_tracker.tiers_before();
    CREATE OR REPLACE TRIGGER run_tracker_quotas AFTER UPDATE ON run_tracker.tiers
        FOR EACH ROW EXECUTE FUNCTION run_tracker.tiers_quotas();
    IF NOT run_tracker.has_policy('run_tracker.tiers', 'readable') THEN
        CREATE POLICY readable ON run_tracker.tiers FOR SELECT USING (true);
        COMMENT ON POLICY readable ON run_tracker.tiers IS 'Everyone may know what the tiers are.';
    END IF;

    IF to_regclass('run_tracker.accounts') IS NULL THEN
        CREATE TABLE run_tracker.accounts (
            user_id text NOT NULL,
            user_uuid uuid,
            tier text NOT NULL DEFAULT 'free',
            permissions text[] NOT NULL,
            overrides jsonb,
            quotas jsonb NOT NULL,
            metadata jsonb,
            created_at timestamptz NOT NULL,
            updated_at timestamptz NOT NULL,
            CONSTRAINT accounts_pkey PRIMARY KEY (user_id),
            CONSTRAINT accounts_user_uuid_key UNIQUE (user_uuid),
            CONSTRAINT accounts_tier_fkey FOREIGN KEY (tier) REFERENCES run_tracker.tiers (name) ON UPDATE CASCADE,
            CONSTRAINT accounts_permissions_check CHECK (array_position(permissions, NULL) IS NULL)
        );
        ALTER TABLE run_tracker.accounts ENABLE ROW LEVEL SECURITY;
        PERFORM run_tracker.revoke_all('run_tracker.accounts');

        COMMENT ON TABLE run_tracker.accounts IS
        'Accounts of users: tier, permissions, and what deviates from the tier. Users may make their own, of the tier "free" and with no more than that has; the rest is for services.';
        COMMENT ON COLUMN run_tracker.accounts.user_id IS 'User, as current_user_id() gives it; the caller unless given.';
        COMMENT ON COLUMN run_tracker.accounts.user_uuid IS
        'The same as a uuid, if it is the text of one (lower case); filled in, and user_id from it if only this is given.';
        COMMENT ON COLUMN run_tracker.accounts.tier IS 'Tier (run_tracker.tiers).';
        COMMENT ON COLUMN run_tracker.accounts.permissions IS 'Words that the application knows, such as spark:generate; those of the tier unless given.';
        COMMENT ON COLUMN run_tracker.accounts.overrides IS
        'Limits that win over those of the tier: an object with keys monthly_tokens, daily_requests, concurrent_sessions, monthly_cost and rate_limits; null as value is no limit.';
        COMMENT ON COLUMN run_tracker.accounts.quotas IS
        'The limits that follow from tier and overrides, in the words of applications: an object with keys monthlyTokens, dailyRequests and concurrentSessions, and monthlyCost and rateLimits if there are any; null as value is no limit. Assigning an object sets overrides to what it says that the tier does not; null changes nothing.';
        COMMENT ON COLUMN run_tracker.accounts.metadata IS 'Anything else, a JSON object.';
        COMMENT ON COLUMN run_tracker.accounts.created_at IS 'When the account was made (wall clock); filled in.';
        COMMENT ON COLUMN run_tracker.accounts.updated_at IS 'When it was last changed; filled in.';
    END IF;
    CREATE INDEX IF NOT EXISTS accounts_tier_idx ON run_tracker.accounts (tier);
    CREATE OR REPLACE TRIGGER zz_run_tracker_before BEFORE INSERT OR UPDATE ON run_tracker.accounts
        FOR EACH ROW EXECUTE FUNCTION run_tracker.accounts_before();
    CREATE OR REPLACE TRIGGER zy_run_tracker_quotas BEFORE INSERT OR UPDATE ON run_tracker.accounts
        FOR EACH ROW EXECUTE FUNCTION run_tracker.accounts_quotas();
    PERFORM run_tracker.install_policy('run_tracker.accounts');
    PERFORM run_tracker.as_owner('run_tracker.tiers', $built_in$
        INSERT INTO run_tracker.tiers (name, monthly_tokens, daily_requests, concurrent_sessions, rate_limits, permissions)
        VALUES ('free', 100000, 100, 1, '{"*": {"limit": 60, "window": "1 minute"}}', '{spark:read,spark:generate}')
        ON CONFLICT (name) DO NOTHING $built_in$);
END
$install$;
COMMENT ON FUNCTION run_tracker.install_accounts() IS 'Internal: the part of install() for accounts and tiers.';
