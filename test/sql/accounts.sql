--
-- Accounts and tiers: what they may say, who may say it, and what follows from it.
--
\getenv abs_srcdir PG_ABS_SRCDIR
\set common :abs_srcdir '/sql/common.psql'
\i :common

CREATE ROLE regress_accounts_client;
CREATE ROLE regress_accounts_reader;
CREATE ROLE regress_accounts_service;
SELECT run_tracker.grant_client('regress_accounts_client');
SELECT run_tracker.grant_reader('regress_accounts_reader');
SELECT run_tracker.grant_service('regress_accounts_service');
CREATE FUNCTION pg_temp.limits(of_user text) RETURNS TABLE (tier text, tokens bigint, cost numeric, requests bigint, sessions bigint)
LANGUAGE sql AS $$
    SELECT tier, monthly_tokens_limit, monthly_cost_limit, daily_requests_limit, concurrent_sessions_limit FROM run_tracker.usage_sums(of_user)
$$;

-- there is a tier
SELECT * FROM run_tracker.tiers;
-- users without an account have its limits
SELECT * FROM pg_temp.limits('regress nobody knows');

--
-- ensure_account()
--
SELECT run_tracker.ensure_account('alice') AS first, run_tracker.ensure_account('alice') AS again;
SELECT user_id, tier, permissions, overrides, metadata, created_at = updated_at AS same FROM run_tracker.accounts;
INSERT INTO run_tracker.tiers (name, monthly_tokens, daily_requests, concurrent_sessions, monthly_cost) VALUES ('pro', 1000000, 1000, 5, 99.90);
-- an account that exists stays as it is
SELECT run_tracker.ensure_account('alice', 'pro') AS first, run_tracker.ensure_account('bob', 'pro') AS bob, run_tracker.ensure_account('bob', 'free') AS again,
       run_tracker.ensure_account('carol', 'free') AS carol;
SELECT user_id, tier FROM run_tracker.accounts ORDER BY user_id;
CALL pg_temp.try($$SELECT run_tracker.ensure_account('dave', 'gold')$$);
CALL pg_temp.try($$SELECT run_tracker.ensure_account('dave', '')$$);
CALL pg_temp.try($$SELECT run_tracker.ensure_account()$$);
CALL pg_temp.try($$SELECT run_tracker.ensure_account(NULL, NULL)$$);
CALL pg_temp.try($$SELECT run_tracker.ensure_account('')$$);
CALL pg_temp.try(format('SELECT run_tracker.ensure_account(%L)', repeat('é', 257)));
SELECT run_tracker.ensure_account(repeat('é', 256));
DELETE FROM run_tracker.accounts WHERE length(user_id) = 256;
START TRANSACTION READ ONLY;
SELECT run_tracker.ensure_account('alice') AS there_is_one;
SELECT run_tracker.ensure_account('dave');
ROLLBACK;
-- plain SQL makes the same
SET request.jwt.claims = '{"sub": "erin"}';
INSERT INTO run_tracker.accounts DEFAULT VALUES RETURNING user_id, tier, permissions, created_at = updated_at AS same;
SELECT run_tracker.ensure_account() AS again;
RESET request.jwt.claims;
CALL pg_temp.try($$INSERT INTO run_tracker.accounts DEFAULT VALUES$$);
CALL pg_temp.try($$INSERT INTO run_tracker.accounts (user_id) VALUES ('')$$);
CALL pg_temp.try(format('INSERT INTO run_tracker.accounts (user_id) VALUES (%L)', repeat('a', 513)));
CALL pg_temp.try($$INSERT INTO run_tracker.accounts (user_id) VALUES ('erin')$$);
CALL pg_temp.try($$INSERT INTO run_tracker.accounts (user_id, tier) VALUES ('frank', 'gold')$$);
\set VERBOSITY terse
INSERT INTO run_tracker.accounts (user_id, permissions) VALUES ('frank', '{a,null}');
\set VERBOSITY default
CALL pg_temp.try($$INSERT INTO run_tracker.accounts (user_id, metadata) VALUES ('frank', '[]')$$);
-- what is computed stays; a change that changes nothing is none
UPDATE run_tracker.accounts SET user_id = 'x', created_at = '2001-01-01', updated_at = '2001-01-01', permissions = '{spark:read}' WHERE user_id = 'erin'
RETURNING user_id, created_at > '2002-01-01' AS created, updated_at > created_at AS updated, permissions;
SELECT updated_at AS before FROM run_tracker.accounts WHERE user_id = 'erin' \gset
UPDATE run_tracker.accounts SET tier = 'free' WHERE user_id = 'erin' RETURNING updated_at = :'before' AS untouched;
-- a restored one keeps its age
INSERT INTO run_tracker.accounts (user_id, created_at) VALUES ('frank', '2020-01-01 00:00+00') RETURNING created_at = '2020-01-01 00:00+00' AS kept, updated_at = created_at AS same;

--
-- Tiers
--
CALL pg_temp.try($$INSERT INTO run_tracker.tiers (name) VALUES (NULL)$$);
CALL pg_temp.try(format('INSERT INTO run_tracker.tiers (name) VALUES (%L)', repeat('a', 513)));
CALL pg_temp.try($$INSERT INTO run_tracker.tiers (name) VALUES ('')$$);
CALL pg_temp.try($$UPDATE run_tracker.tiers SET name = '' WHERE name = 'pro'$$);
CALL pg_temp.try($$INSERT INTO run_tracker.tiers (name) VALUES ('pro')$$);
SELECT format('CALL pg_temp.try(%L)', format('INSERT INTO run_tracker.tiers (name, %s) VALUES (%L, %s)', c, 't', v))
FROM unnest('{monthly_tokens,daily_requests,concurrent_sessions,monthly_cost}'::text[]) c, unnest('{-1,1000000000000001}'::text[]) v \gexec
CALL pg_temp.try($$INSERT INTO run_tracker.tiers (name, monthly_cost) VALUES ('t', 'NaN')$$);
CALL pg_temp.try($$INSERT INTO run_tracker.tiers (name, monthly_cost) VALUES ('t', 'Infinity')$$);
CALL pg_temp.try($$INSERT INTO run_tracker.tiers (name, rate_limits) VALUES ('t', NULL)$$);
INSERT INTO run_tracker.tiers VALUES ('most', 1000000000000000, 1000000000000000, 1000000000000000, 1000000000000000), ('none', 0, 0, 0, 0), ('all', NULL, NULL, NULL, NULL);
-- what rate limits may be
SELECT format('CALL pg_temp.try(%L)', format('UPDATE run_tracker.tiers SET rate_limits = %L WHERE name = %L', v, 'none'))
FROM unnest(ARRAY['{}', '{"*": null}', '{"*": {"limit": 60, "window": "1 minute"}}', '{"a": {"limit": 0, "window": 0.001}, "b": {"limit": 1e15, "window": "366 days"}}',
    '{"a": {"limit": 1, "window": "1 month", "burst": 7}}', '{"a": {"limit": 1.0, "window": "1 ms"}}',
    '[]', '1', '"x"', 'null', '{"a": 1}', '{"a": "60/min"}', '{"a": []}', '{"a": [1]}', '{"a": {}}', '{"a": {"limit": 1}}', '{"a": {"window": 1}}', '{"a": {"limit": null, "window": 1}}',
    '{"a": {"limit": -1, "window": 1}}', '{"a": {"limit": 1.5, "window": 1}}', '{"a": {"limit": 1e16, "window": 1}}', '{"a": {"limit": "1", "window": 1}}',
    '{"a": {"limit": 1, "window": 0}}', '{"a": {"limit": 1, "window": -1}}', '{"a": {"limit": 1, "window": 0.0009}}', '{"a": {"limit": 1, "window": 1e300}}', '{"a": {"limit": 1, "window": 1e1000}}',
    '{"a": {"limit": 1, "window": "367 days"}}', '{"a": {"limit": 1, "window": "soon"}}', '{"a": {"limit": 1, "window": "-1 second"}}', '{"a": {"limit": 1, "window": "-02:00 1 day"}}', '{"a": {"limit": 1, "window": true}}',
    '{"a": {"limit": 1, "window": {}}}', '{"a": {"limit": 1, "window": null}}', '{"": {"limit": 1, "window": 1}}', '{"": null}', format('{"%s": null}', repeat('é', 256)), format('{"%s": null}', repeat('é', 257))]) v \gexec
SELECT length(k) AS long FROM run_tracker.tiers, jsonb_object_keys(rate_limits) k WHERE name = 'none';

--
-- Overrides
--
SELECT format('CALL pg_temp.try(%L)', format('UPDATE run_tracker.accounts SET overrides = %L WHERE user_id = %L', v, 'alice'))
FROM unnest(ARRAY['{}', '{"monthly_tokens": 5, "daily_requests": 0, "concurrent_sessions": null, "monthly_cost": 0.5, "rate_limits": {"a": null}}', '{"rate_limits": null}', '{"rate_limits": {}}',
    '[]', '1', 'null', '{"tokens": 1}', '{"": 1}', '{"monthly_tokens": "5"}', '{"monthly_tokens": -5}', '{"monthly_tokens": 1.5}', '{"monthly_tokens": 1e16}', '{"monthly_tokens": {}}', '{"monthly_tokens": []}',
    '{"daily_requests": true}', '{"concurrent_sessions": [1]}', '{"monthly_cost": -1}', '{"monthly_cost": "1"}', '{"monthly_cost": 1e16}', '{"monthly_cost": {"a": 1}}',
    '{"rate_limits": 1}', '{"rate_limits": []}', '{"rate_limits": "x"}', '{"rate_limits": {"a": {"limit": 1}}}', '{"rate_limits": {"a": 1}}', '{"monthly_tokens": 1, "no such": {"a": {"b": 1}}}',
    format('{"%s": 1}', repeat('é', 100)), format('{"x%s": 1}', repeat('é', 100))]) v \gexec
-- they win over the tier, one by one; null is no limit
UPDATE run_tracker.accounts SET tier = 'pro', overrides = '{"monthly_tokens": 5, "daily_requests": null, "monthly_cost": 0.5}' WHERE user_id = 'alice';
SELECT * FROM pg_temp.limits('alice');
UPDATE run_tracker.accounts SET overrides = '{"monthly_cost": null, "concurrent_sessions": 0, "daily_requests": 1.0}' WHERE user_id = 'alice';
SELECT * FROM pg_temp.limits('alice');
UPDATE run_tracker.accounts SET overrides = NULL WHERE user_id = 'alice';
SELECT * FROM pg_temp.limits('alice');
-- a tier that is changed, renamed or in use
UPDATE run_tracker.tiers SET monthly_tokens = NULL, name = 'plus' WHERE name = 'pro';
SELECT * FROM pg_temp.limits('alice');
CALL pg_temp.try($$DELETE FROM run_tracker.tiers WHERE name = 'plus'$$);
-- also in REPEATABLE READ, limits are those of now
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT * FROM pg_temp.limits('bob');
UPDATE run_tracker.tiers SET daily_requests = 7 WHERE name = 'plus';
SELECT * FROM pg_temp.limits('bob');
ROLLBACK;

--
-- Who may
--
SET ROLE regress_accounts_client;
SET request.jwt.claims = '{"sub": "gina"}';
SELECT run_tracker.ensure_account() AS first, run_tracker.ensure_account('gina', 'plus') AS again, run_tracker.ensure_account(tier => 'free') AS third;
SELECT user_id, tier FROM run_tracker.accounts;
SELECT name FROM run_tracker.tiers ORDER BY name;
CALL pg_temp.try($$SELECT run_tracker.ensure_account('alice')$$);
CALL pg_temp.try($$SELECT run_tracker.ensure_account('no such user')$$);
CALL pg_temp.try($$SELECT tier FROM run_tracker.usage_sums('alice')$$);
CALL pg_temp.try($$INSERT INTO run_tracker.accounts (user_id) VALUES ('mallory')$$);
CALL pg_temp.try($$INSERT INTO run_tracker.accounts (user_id) VALUES ('alice')$$);
CALL pg_temp.try($$INSERT INTO run_tracker.accounts (user_id, tier) VALUES ('gina', 'plus')$$);
CALL pg_temp.try($$INSERT INTO run_tracker.accounts (user_id, overrides) VALUES ('gina', '{"monthly_tokens": null}')$$);
CALL pg_temp.try($$INSERT INTO run_tracker.accounts (user_id) VALUES ('gina') ON CONFLICT (user_id) DO UPDATE SET tier = 'plus'$$);
CALL pg_temp.try($$UPDATE run_tracker.accounts SET tier = 'plus'$$);
CALL pg_temp.try($$UPDATE run_tracker.accounts SET overrides = '{"monthly_tokens": null}'$$);
CALL pg_temp.try($$UPDATE run_tracker.accounts SET permissions = '{all}'$$);
CALL pg_temp.try($$DELETE FROM run_tracker.accounts$$);
CALL pg_temp.try($$SELECT 1 FROM run_tracker.accounts FOR UPDATE$$);
CALL pg_temp.try($$INSERT INTO run_tracker.tiers (name) VALUES ('mine')$$);
CALL pg_temp.try($$UPDATE run_tracker.tiers SET monthly_tokens = NULL$$);
CALL pg_temp.try($$DELETE FROM run_tracker.tiers$$);
CALL pg_temp.try($$LOCK TABLE run_tracker.tiers IN SHARE MODE$$);
-- settings that decide what counts where
CALL pg_temp.try($$SET run_tracker.time_zone = 'Asia/Tokyo'$$);
CALL pg_temp.try($$SELECT run_tracker.install_accounts()$$);
SET request.jwt.claims = '{"sub": "henry"}';
CALL pg_temp.try($$SELECT run_tracker.ensure_account(tier => 'plus')$$);
CALL pg_temp.try($$SELECT run_tracker.ensure_account(tier => 'gold')$$);
SELECT run_tracker.ensure_account(tier => 'free');
SET request.jwt.claims = '';
CALL pg_temp.try($$SELECT run_tracker.ensure_account()$$);
CALL pg_temp.try($$SELECT run_tracker.ensure_account('henry')$$);
CALL pg_temp.try($$INSERT INTO run_tracker.accounts DEFAULT VALUES$$);
SELECT count(*) FROM run_tracker.accounts;
SET ROLE regress_accounts_reader;
SET request.jwt.claims = '{"sub": "gina"}';
SELECT user_id FROM run_tracker.accounts;
SELECT tier FROM run_tracker.usage_sums();
CALL pg_temp.try($$SELECT run_tracker.ensure_account()$$);
SET ROLE regress_accounts_service;
SELECT run_tracker.ensure_account('ivan', 'plus') AS plus, run_tracker.ensure_account() AS own;
UPDATE run_tracker.accounts SET tier = 'plus', overrides = '{"daily_requests": 3}', permissions = '{spark:generate}' WHERE user_id = 'henry';
SELECT * FROM pg_temp.limits('henry');
DELETE FROM run_tracker.accounts WHERE user_id = 'henry';
SELECT * FROM pg_temp.limits('henry');
RESET ROLE;
RESET request.jwt.claims;

-- without the tier "free" there are no limits for those without an account, and nobody gets one
BEGIN;
DELETE FROM run_tracker.accounts;
DELETE FROM run_tracker.tiers WHERE name = 'free';
SELECT * FROM pg_temp.limits('alice');
CALL pg_temp.try($$SELECT run_tracker.ensure_account('alice')$$);
-- install() puts it back, and changes none that is there
SELECT run_tracker.install() = run_tracker.tracker_version() AS installed;
SELECT * FROM pg_temp.limits('alice');
UPDATE run_tracker.tiers SET monthly_tokens = 7 WHERE name = 'free';
SELECT run_tracker.install() = run_tracker.tracker_version() AS installed;
SELECT * FROM pg_temp.limits('alice');
ROLLBACK;

--
-- The setting of the time zone
--
SHOW run_tracker.time_zone;
CALL pg_temp.try($$SET run_tracker.time_zone = 'no/such'$$);
CALL pg_temp.try($$SET run_tracker.time_zone = ''$$);
CALL pg_temp.try($$SET run_tracker.time_zone = 'right/UTC'$$);
SET run_tracker.time_zone = 'Asia/Kolkata';
SELECT day = (now() AT TIME ZONE 'Asia/Kolkata')::date AS day, month = date_trunc('month', now() AT TIME ZONE 'Asia/Kolkata')::date AS month,
       day_ends_at = (date_trunc('day', now() AT TIME ZONE 'Asia/Kolkata') + interval '1 day') AT TIME ZONE 'Asia/Kolkata' AS day_ends,
       month_ends_at = (date_trunc('month', now() AT TIME ZONE 'Asia/Kolkata') + interval '1 month') AT TIME ZONE 'Asia/Kolkata' AS month_ends
FROM run_tracker.usage_sums('alice');
RESET run_tracker.time_zone;

DELETE FROM run_tracker.accounts;
DELETE FROM run_tracker.tiers WHERE name <> 'free';
DROP OWNED BY regress_accounts_client, regress_accounts_reader, regress_accounts_service;
DROP ROLE regress_accounts_client, regress_accounts_reader, regress_accounts_service;
