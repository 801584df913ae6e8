--
-- What the views of SPARK add to its life on tables (spark_views.sql): quotas and limits, plans, and what is refused.
--
\getenv abs_srcdir PG_ABS_SRCDIR
\set common :abs_srcdir '/sql/common.psql'
\i :common
CALL pg_temp.forget();
-- what other tests have left behind in the files must not change plans
VACUUM FULL run_tracker.runs, run_tracker.sessions, run_tracker.usage_records, run_tracker.artifacts;

CREATE SCHEMA regress_spark;
GRANT USAGE ON SCHEMA regress_spark TO PUBLIC;
CREATE ROLE regress_spark_client;
CREATE ROLE regress_spark_reader;
CREATE ROLE regress_spark_service;
CREATE ROLE regress_spark_stranger;
SELECT run_tracker.grant_client('regress_spark_client');
SELECT run_tracker.grant_reader('regress_spark_reader');
SELECT run_tracker.grant_service('regress_spark_service');
SELECT unnest(run_tracker.create_compat('spark', 'regress_spark'));
SET search_path = regress_spark;
\set alice 'a0000000-0000-4000-8000-00000000000a'
\set bob 'b0000000-0000-4000-8000-00000000000b'
\set as_alice 'SET ROLE regress_spark_client; SET request.jwt.claims = ''{"sub": "a0000000-0000-4000-8000-00000000000a"}'';'
\set as_bob 'SET ROLE regress_spark_client; SET request.jwt.claims = ''{"sub": "b0000000-0000-4000-8000-00000000000b"}'';'
\set as_carol 'SET ROLE regress_spark_client; SET request.jwt.claims = ''{"sub": "c0000000-0000-4000-8000-00000000000c"}'';'
\set as_service 'SET ROLE regress_spark_service; RESET request.jwt.claims;'
\set as_owner 'RESET ROLE; RESET request.jwt.claims;'

--
-- Profiles
--
-- what an application sends when a user signs up names what the user gets anyway
:as_alice
INSERT INTO spark_user_profiles (user_id, tier, permissions, quotas)
VALUES (:'alice', 'free', ARRAY['spark:read', 'spark:generate'], '{"monthlyTokens": 100000, "dailyRequests": 100, "concurrentSessions": 1}')
ON CONFLICT (user_id) DO NOTHING RETURNING user_id, tier, permissions, quotas, created_at = updated_at AS same;
INSERT INTO spark_user_profiles (user_id, tier, permissions, quotas) VALUES (:'alice', 'free', '{spark:read}', '{"monthlyTokens": 1}')
ON CONFLICT (user_id) DO NOTHING RETURNING tier;
SELECT overrides FROM run_tracker.accounts;
-- less is no harm
:as_bob
INSERT INTO spark_user_profiles (user_id, permissions, quotas) VALUES (:'bob', '{spark:read}', '{"dailyRequests": 5.0}') RETURNING tier, permissions, quotas;
SELECT overrides FROM run_tracker.accounts;
SELECT quota, "limit" FROM run_tracker.quotas() WHERE quota <> 'monthly_cost';
-- but more is
:as_carol
SELECT format('CALL pg_temp.try(%L)', format('INSERT INTO spark_user_profiles (user_id, %s) VALUES (%L, %L)', c, 'c0000000-0000-4000-8000-00000000000c', v))
FROM (VALUES ('tier', 'pro'), ('permissions', '{spark:read,spark:admin}'), ('permissions', '{null}'), ('quotas', '{"monthlyTokens": 100001}'),
    ('quotas', '{"dailyRequests": null}'), ('quotas', '{"concurrentSessions": 1e3}'), ('quotas', '{"rateLimits": {"*": null}}'), ('quotas', '{"monthlyTokens": "1"}'),
    ('quotas', '{"monthly_tokens": 1}'), ('quotas', '[]'), ('quotas', '5')) AS x (c, v) \gexec
CALL pg_temp.try($$INSERT INTO spark_user_profiles (user_id) VALUES ('b0000000-0000-4000-8000-00000000000b') ON CONFLICT (user_id) DO UPDATE SET tier = 'free'$$);
CALL pg_temp.try($$INSERT INTO spark_user_profiles (user_id) VALUES ('d0000000-0000-4000-8000-00000000000d')$$);
CALL pg_temp.try($$UPDATE spark_user_profiles SET quotas = '{}'$$);
CALL pg_temp.try($$DELETE FROM spark_user_profiles$$);
CALL pg_temp.try($$INSERT INTO run_tracker.accounts (user_id, overrides) VALUES ('c0000000-0000-4000-8000-00000000000c', '{}')$$);
INSERT INTO spark_user_profiles (quotas) VALUES ('{"monthlyCost": 5}') RETURNING user_id, quotas;
-- a profile that ensure_account() made; and users whose id is no uuid have none
:as_service
SELECT run_tracker.ensure_account('d0000000-0000-4000-8000-00000000000d'), run_tracker.ensure_account('erin'), run_tracker.ensure_account('D0000000-0000-4000-8000-00000000000D');
SELECT user_id, tier, permissions, quotas FROM spark_user_profiles ORDER BY user_id;
SELECT user_id, user_uuid FROM run_tracker.accounts ORDER BY user_id COLLATE "C";
-- services give more; tier and quotas are the same limits as those of the account
INSERT INTO run_tracker.tiers (name, monthly_tokens, daily_requests, concurrent_sessions, monthly_cost, permissions) VALUES ('pro', 1000000, NULL, 5, 99.5, '{spark:read,spark:build}');
UPDATE spark_user_profiles SET tier = 'pro' WHERE user_id = :'alice' RETURNING tier, permissions, quotas;
UPDATE spark_user_profiles SET quotas = quotas || '{"concurrentSessions": 3, "rateLimits": {"generate": {"limit": 2, "window": "1 hour"}}}' WHERE user_id = :'alice' RETURNING quotas;
SELECT overrides FROM run_tracker.accounts WHERE user_id = :'alice';
UPDATE run_tracker.accounts SET overrides = overrides || '{"monthly_tokens": 7}' WHERE user_id = :'alice' RETURNING quotas;
UPDATE spark_user_profiles SET quotas = '{"concurrentSessions": 5}' WHERE user_id = :'alice' RETURNING quotas;
SELECT overrides FROM run_tracker.accounts WHERE user_id = :'alice';
UPDATE run_tracker.tiers SET monthly_tokens = 2000000, name = 'plus' WHERE name = 'pro';
SELECT tier, quotas FROM spark_user_profiles WHERE user_id = :'alice';
UPDATE spark_user_profiles SET quotas = NULL, user_id = gen_random_uuid(), created_at = '2001-01-01', updated_at = '2001-01-01' WHERE user_id = :'alice'
RETURNING user_id, quotas, created_at > '2026-01-01' AS created, updated_at > '2026-01-01' AS updated;
INSERT INTO spark_user_profiles (user_id, tier) VALUES (:'alice', 'free'), ('f0000000-0000-4000-8000-00000000000f', 'plus')
ON CONFLICT (user_id) DO UPDATE SET tier = EXCLUDED.tier, updated_at = now() RETURNING user_id, tier, permissions, quotas;
CALL pg_temp.try($$UPDATE spark_user_profiles SET quotas = '{"tokens": 1}'$$);
CALL pg_temp.try($$UPDATE spark_user_profiles SET quotas = '{"monthlyTokens": -1}'$$);
CALL pg_temp.try($$UPDATE spark_user_profiles SET tier = 'gold'$$);
DELETE FROM spark_user_profiles WHERE user_id = 'f0000000-0000-4000-8000-00000000000f' RETURNING tier;

--
-- Sessions
--
:as_alice
INSERT INTO spark_sessions (session_id, tier, created_at, updated_at) VALUES ('10000000-0000-4000-8000-00000000000a', 'pro', '2001-01-01', '2001-01-01')
RETURNING user_id, tier, created_at > '2026-01-01' AS created, updated_at > '2026-01-01' AS updated;
CALL pg_temp.try($$INSERT INTO spark_sessions DEFAULT VALUES$$);
CALL pg_temp.try($$INSERT INTO spark_sessions (session_id) VALUES ('10000000-0000-4000-8000-00000000000a')$$);
UPDATE spark_sessions SET tier = 'pro', created_at = now(), updated_at = '2001-01-01' RETURNING tier, updated_at > created_at AS touched;
CALL pg_temp.try($$UPDATE spark_sessions SET session_id = gen_random_uuid()$$);
:as_service
INSERT INTO spark_sessions (session_id, user_id, tier, created_at, updated_at) VALUES ('10000000-0000-4000-8000-00000000000b', :'alice', 'old', '2001-01-01', '2001-01-02')
RETURNING tier, created_at = '2001-01-01' AS created, updated_at = '2001-01-02' AS updated;
-- an old one cannot come back while there is another
:as_alice
CALL pg_temp.try($$UPDATE spark_sessions SET updated_at = now() WHERE session_id = '10000000-0000-4000-8000-00000000000b'$$);
-- what is closed is gone
SELECT run_tracker.close_session('10000000-0000-4000-8000-00000000000b');
SELECT session_id FROM spark_sessions;
DELETE FROM spark_sessions WHERE session_id = '10000000-0000-4000-8000-00000000000b';

--
-- Rate limits
--
:as_service
UPDATE spark_user_profiles SET quotas = '{"rateLimits": {"generate": {"limit": 3, "window": "1 hour"}, "free": null}}' WHERE user_id = :'alice';
:as_alice
INSERT INTO spark_rate_limits (endpoint, "current", "limit") VALUES ('generate', 1, 1000) RETURNING user_id, endpoint, "current", "limit", reset_at > now() + interval '59 minutes' AS later;
UPDATE spark_rate_limits SET "current" = "current" + 1, "limit" = 1000, reset_at = 'infinity' WHERE endpoint = 'generate' RETURNING "current", "limit", reset_at < now() + interval '62 minutes' AS soon;
UPDATE spark_rate_limits SET "limit" = 0 WHERE endpoint = 'generate' RETURNING "current", "limit";
INSERT INTO spark_rate_limits (user_id, endpoint, "current", "limit", reset_at) VALUES (:'alice', 'generate', 1, 60, now()) ON CONFLICT (user_id, endpoint) DO UPDATE SET "current" = spark_rate_limits."current" + 1
RETURNING "current";
CREATE PROCEDURE pg_temp.exceed(statement text) LANGUAGE plpgsql AS $$
DECLARE
    detail text;
BEGIN
    EXECUTE statement;
EXCEPTION WHEN SQLSTATE 'RT005' THEN
    GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL;
    RAISE INFO 'RT005: %', SQLERRM USING DETAIL = regexp_replace(detail, '[0-9]{6,}', 'N');
END
$$;
CALL pg_temp.exceed($$UPDATE spark_rate_limits SET "current" = "current" + 1 WHERE endpoint = 'generate'$$);
CALL pg_temp.exceed($$INSERT INTO spark_rate_limits (endpoint, "current") VALUES ('generate', 1)$$);
INSERT INTO spark_rate_limits (endpoint) VALUES ('generate') RETURNING "current";
INSERT INTO spark_rate_limits (endpoint, "current") VALUES ('free', 5) RETURNING "current", "limit", reset_at;
SELECT user_id, endpoint, "current", "limit" FROM spark_rate_limits;
CALL pg_temp.try($$UPDATE spark_rate_limits SET "current" = 0$$);
CALL pg_temp.try($$UPDATE spark_rate_limits SET endpoint = 'other'$$);
CALL pg_temp.try($$DELETE FROM spark_rate_limits$$);
CALL pg_temp.try($$INSERT INTO spark_rate_limits (endpoint, "current") VALUES ('generate', -1)$$);
CALL pg_temp.try($$INSERT INTO spark_rate_limits (endpoint, "current") VALUES ('generate', 1e10)$$);
CALL pg_temp.try($$INSERT INTO spark_rate_limits (endpoint, "current") VALUES (NULL, 1)$$);
CALL pg_temp.try($$INSERT INTO spark_rate_limits (user_id, endpoint, "current") VALUES ('b0000000-0000-4000-8000-00000000000b', 'generate', 1)$$);
SELECT 1 AS locked FROM spark_rate_limits FOR UPDATE;
:as_bob
SELECT count(*) FROM spark_rate_limits;
UPDATE spark_rate_limits SET "current" = 0 WHERE user_id = :'alice';
:as_service
UPDATE spark_rate_limits SET "current" = 1 WHERE user_id = :'alice' AND endpoint = 'generate' RETURNING "current";
UPDATE spark_rate_limits SET "current" = 0 WHERE user_id = :'alice' AND endpoint = 'generate' RETURNING "current";
SELECT count(*) FROM spark_rate_limits WHERE user_id = :'alice';
INSERT INTO spark_rate_limits (user_id, endpoint, "current") VALUES (:'alice', 'generate', 2) RETURNING user_id, "current", "limit";
DELETE FROM spark_rate_limits WHERE user_id = :'alice' RETURNING endpoint, "current";
SELECT count(*) FROM spark_rate_limits WHERE user_id = :'alice';

--
-- Requests and tokens
--
:as_alice
INSERT INTO spark_requests (id, session_id, endpoint, created_at) VALUES ('2a000000-0000-4000-8000-00000000000a', '10000000-0000-4000-8000-00000000000a', 'function:x', '2001-01-01')
RETURNING user_id = :'alice' AS own, created_at > '2026-01-01' AS created;
INSERT INTO spark_token_usage (id, tokens_used, created_at) VALUES ('2b000000-0000-4000-8000-00000000000a', 99999, '2001-01-01') RETURNING user_id = :'alice' AS own, created_at > '2026-01-01' AS created;
-- what was used is recorded whatever the quota says
INSERT INTO spark_token_usage (tokens_used) VALUES (2) RETURNING tokens_used;
-- what a task had used before it was retried is that task's
RESET ROLE;
INSERT INTO run_tracker.usage_records (user_id, source, requests, total_tokens) VALUES (:'alice', 'retry', 0, 0), (:'alice', 'reservation', 0, 0);
:as_alice
SELECT tokens_used FROM spark_token_usage ORDER BY tokens_used;
RESET ROLE;
DELETE FROM run_tracker.usage_records WHERE source IN ('retry', 'reservation');
:as_alice
SELECT jsonb_pretty(spark_quotas());
SELECT source, requests, total_tokens, endpoint FROM run_tracker.usage_records ORDER BY total_tokens;
SELECT run_tracker.log_request('10000000-0000-4000-8000-00000000000a', 'function:y') IS NOT NULL AS logged, run_tracker.record_usage(tokens => 1) IS NOT NULL AS recorded;
SELECT (SELECT count(*) FROM spark_requests) AS requests, (SELECT count(*) FROM spark_token_usage) AS usages;
CALL pg_temp.try($$UPDATE spark_token_usage SET tokens_used = 0$$);
CALL pg_temp.try($$UPDATE spark_requests SET endpoint = 'x'$$);
CALL pg_temp.try($$UPDATE spark_requests SET session_id = NULL$$);
CALL pg_temp.try($$INSERT INTO spark_requests (session_id, endpoint) VALUES ('10000000-0000-4000-8000-00000000ffff', 'x')$$);
CALL pg_temp.try($$INSERT INTO spark_requests (endpoint) VALUES (NULL)$$);
CALL pg_temp.try($$INSERT INTO spark_token_usage DEFAULT VALUES$$);
CALL pg_temp.try($$SELECT spark_quotas('b0000000-0000-4000-8000-00000000000b')$$);
:as_bob
CALL pg_temp.try($$INSERT INTO spark_requests (session_id, endpoint) VALUES ('10000000-0000-4000-8000-00000000000a', 'x')$$);
CALL pg_temp.try($$INSERT INTO spark_requests (id, endpoint) VALUES ('2a000000-0000-4000-8000-00000000000a', 'x')$$);
SELECT (SELECT count(*) FROM spark_requests) AS requests, (SELECT count(*) FROM spark_token_usage) AS usages;
:as_service
INSERT INTO spark_requests (session_id, endpoint, created_at) VALUES ('10000000-0000-4000-8000-00000000000a', 'x', '2026-01-01') RETURNING user_id = :'alice' AS of_session, created_at = '2026-01-01' AS created;
CALL pg_temp.try($$INSERT INTO spark_requests (session_id, user_id, endpoint) VALUES ('10000000-0000-4000-8000-00000000000a', 'b0000000-0000-4000-8000-00000000000b', 'x')$$);
-- a correction counts
UPDATE spark_token_usage SET tokens_used = 9 WHERE id = '2b000000-0000-4000-8000-00000000000a' RETURNING tokens_used;
SELECT spark_quotas(:'alice') -> 'monthlyTokens' AS tokens, spark_quotas('a0000000-0000-4000-8000-0000000000ff') -> 'dailyRequests' AS of_nobody;
-- what is deleted has been used all the same
:as_alice
DELETE FROM spark_token_usage WHERE tokens_used = 9;
SELECT spark_quotas() -> 'monthlyTokens' AS tokens;

--
-- Deltas
--
INSERT INTO spark_deltas (session_id, version, delta, created_at) VALUES ('10000000-0000-4000-8000-00000000000a', 1, '{"a": {"b": 1}}', '2001-01-01') RETURNING user_id = :'alice' AS own, version, created_at > '2026-01-01' AS created;
INSERT INTO spark_deltas (session_id, delta) VALUES ('10000000-0000-4000-8000-00000000000a', '{"a": {"c": 2}}') RETURNING version;
CALL pg_temp.try($$INSERT INTO spark_deltas (session_id, version, delta) VALUES ('10000000-0000-4000-8000-00000000000a', 2, '{}')$$);
CALL pg_temp.try($$INSERT INTO spark_deltas (session_id, version, delta) VALUES ('10000000-0000-4000-8000-00000000000a', 4, '{}')$$);
CALL pg_temp.try($$INSERT INTO spark_deltas (session_id, version, delta) VALUES ('10000000-0000-4000-8000-00000000000a', 2, '{}') ON CONFLICT (session_id, version) DO NOTHING$$);
CALL pg_temp.try($$INSERT INTO spark_deltas (session_id, version, delta) VALUES ('10000000-0000-4000-8000-00000000000a', 3, '[]')$$);
SELECT run_tracker.session_state('10000000-0000-4000-8000-00000000000a');
UPDATE spark_deltas SET created_at = now() WHERE version = 1 RETURNING version;
CALL pg_temp.try($$UPDATE spark_deltas SET delta = '{}'$$);
CALL pg_temp.try($$DELETE FROM spark_deltas$$);
:as_service
INSERT INTO spark_deltas (session_id, version, delta) VALUES ('10000000-0000-4000-8000-00000000000a', 3, '{"d": 3}') RETURNING user_id = :'alice' AS of_session, version;
CALL pg_temp.try($$DELETE FROM spark_deltas$$);
:as_bob
CALL pg_temp.try($$INSERT INTO spark_deltas (session_id, version, delta) VALUES ('10000000-0000-4000-8000-00000000000a', 4, '{}')$$);

--
-- What sessions make
--
:as_alice
INSERT INTO spark_files (id, session_id, name, content) VALUES ('3c000000-0000-4000-8000-00000000000a', '10000000-0000-4000-8000-00000000000a', 'a', 'é') RETURNING run_id, user_id = :'alice' AS own, size_bytes;
INSERT INTO spark_unity_prefabs (session_id, name) VALUES ('10000000-0000-4000-8000-00000000000a', 'b'), ('10000000-0000-4000-8000-00000000000a', 'c');
-- the run of the session waits, and nothing ends it
SELECT r.run_id, r.lifecycle, r.kind, r.status, r.phase, r.session_id, o.deadline_at, t.artifact_count
FROM run_tracker.runs r JOIN run_tracker.open_runs o USING (run_id) JOIN run_tracker.run_totals t ON t.run_id = r.run_id;
-- a run of one's own
SELECT run_tracker.create_run('10000000-0000-4000-8000-0000000000aa');
INSERT INTO spark_generated_scripts (run_id, name) VALUES ('10000000-0000-4000-8000-0000000000aa', 'd') RETURNING run_id, session_id;
INSERT INTO spark_generated_scripts (run_id, session_id, name) VALUES ('10000000-0000-4000-8000-0000000000aa', '10000000-0000-4000-8000-00000000000a', 'e') RETURNING run_id, session_id;
CALL pg_temp.try($$INSERT INTO spark_files (name) VALUES ('x')$$);
CALL pg_temp.try($$INSERT INTO spark_files (id, session_id) VALUES ('3c000000-0000-4000-8000-00000000000a', '10000000-0000-4000-8000-00000000000a')$$);
CALL pg_temp.try($$INSERT INTO spark_files (id, run_id) VALUES ('3c000000-0000-4000-8000-00000000000a', '10000000-0000-4000-8000-0000000000aa')$$);
CALL pg_temp.try($$INSERT INTO spark_unity_materials (id, session_id) VALUES ('3c000000-0000-4000-8000-00000000000a', '10000000-0000-4000-8000-00000000000a')$$);
CALL pg_temp.try($$INSERT INTO spark_files (run_id) VALUES ('10000000-0000-4000-8000-00000000ffff')$$);
CALL pg_temp.try($$INSERT INTO spark_files (session_id) VALUES ('10000000-0000-4000-8000-00000000ffff')$$);
CALL pg_temp.try($$UPDATE spark_files SET run_id = NULL$$);
UPDATE spark_files SET content = 'ééé', created_at = '2001-01-01' RETURNING content, size_bytes, created_at > '2026-01-01' AS created;
SELECT (SELECT array_agg(name ORDER BY name) FROM spark_generated_scripts) AS scripts, (SELECT array_agg(name) FROM spark_files) AS files,
    (SELECT array_agg(name ORDER BY name) FROM spark_unity_prefabs) AS prefabs, (SELECT count(*) FROM spark_unity_materials) AS materials;
:as_bob
CALL pg_temp.try($$INSERT INTO spark_files (session_id) VALUES ('10000000-0000-4000-8000-00000000000a')$$);
CALL pg_temp.try($$INSERT INTO spark_files (run_id) VALUES ('10000000-0000-4000-8000-00000000000a')$$);
-- who takes the id of a session for a run gets nothing by it but an error for its user
SELECT run_tracker.create_run('10000000-0000-4000-8000-00000000000c');
:as_service
INSERT INTO spark_sessions (session_id, user_id, updated_at) VALUES ('10000000-0000-4000-8000-00000000000c', :'alice', '2026-01-01');
:as_alice
CALL pg_temp.try($$INSERT INTO spark_files (session_id) VALUES ('10000000-0000-4000-8000-00000000000c')$$);
:as_service
DELETE FROM spark_sessions WHERE session_id = '10000000-0000-4000-8000-00000000000c';
DELETE FROM run_tracker.runs WHERE run_id = '10000000-0000-4000-8000-00000000000c';
INSERT INTO spark_unity_materials (session_id, name, created_at) VALUES ('10000000-0000-4000-8000-00000000000a', 'f', '2001-01-01') RETURNING user_id = :'alice' AS of_session, created_at = '2001-01-01' AS created;

--
-- Build jobs
--
:as_alice
INSERT INTO spark_build_jobs (job_id, session_id, priority) VALUES ('4d000000-0000-4000-8000-00000000000a', '10000000-0000-4000-8000-00000000000a', NULL), ('4d000000-0000-4000-8000-00000000000b', NULL, 5),
    ('4d000000-0000-4000-8000-00000000000c', NULL, 9) RETURNING status, priority, attempts, max_attempts, worker_id;
CALL pg_temp.try($$INSERT INTO spark_build_jobs (session_id) VALUES ('10000000-0000-4000-8000-00000000ffff')$$);
UPDATE spark_build_jobs SET attempts = 7, started_at = now() WHERE priority = 9 RETURNING attempts, started_at;
CALL pg_temp.try($$UPDATE spark_build_jobs SET status = 'completed' WHERE priority = 9$$);
:as_service
PREPARE take (text) AS
UPDATE spark_build_jobs SET status = 'building', worker_id = $1, attempts = attempts + 1, started_at = now()
WHERE job_id = (SELECT job_id FROM spark_build_jobs WHERE status = 'queued' ORDER BY priority DESC, created_at LIMIT 1 FOR UPDATE SKIP LOCKED)
RETURNING job_id, status, worker_id, attempts, started_at IS NOT NULL AS started;
EXECUTE take('w1');
SELECT run_id, attempt, priority FROM run_tracker.claim_runs('w2', 1, 'build');
EXECUTE take('w3');
EXECUTE take('w3');
SELECT right(job_id::text, 1) AS job, status, worker_id, attempts FROM spark_build_jobs ORDER BY job_id;
-- a worker that gives one back, and one that has lost it
SELECT run_tracker.release_run('4d000000-0000-4000-8000-00000000000b');
SELECT status, worker_id, attempts FROM spark_build_jobs WHERE job_id = '4d000000-0000-4000-8000-00000000000b';
UPDATE spark_build_jobs SET status = 'failed', error_message = 'x' WHERE job_id = '4d000000-0000-4000-8000-00000000000c' RETURNING status, attempts;
UPDATE spark_build_jobs SET status = 'queued' WHERE job_id = '4d000000-0000-4000-8000-00000000000c' RETURNING status, attempts, worker_id, error_message, started_at;
EXECUTE take('w4');
SELECT right(run_id::text, 1) AS job FROM run_tracker.claim_runs('w5', 10, 'build');
CALL pg_temp.try($$UPDATE spark_build_jobs SET status = 'done'$$);
-- a job that is only touched stays alive, and is not written
RESET ROLE;
UPDATE run_tracker.open_runs SET last_activity_at = now() - interval '9 minutes' WHERE run_id = '4d000000-0000-4000-8000-00000000000c';
SELECT updated_at AS written FROM spark_build_jobs WHERE worker_id = 'w4' \gset
:as_service
UPDATE spark_build_jobs SET status = status WHERE worker_id = 'w4';
SELECT last_activity_at > now() - interval '8 minutes' AS alive FROM run_tracker.open_runs WHERE run_id = '4d000000-0000-4000-8000-00000000000c';
UPDATE spark_build_jobs SET updated_at = now() WHERE worker_id = 'w4' RETURNING updated_at = :'written' AS unchanged;
SELECT last_activity_at > now() - interval '8 minutes' AS alive FROM run_tracker.open_runs WHERE run_id = '4d000000-0000-4000-8000-00000000000c';
UPDATE spark_build_jobs SET status = 'completed', result = '{"url": "x"}' WHERE worker_id = 'w4' RETURNING status, result, completed_at >= started_at AS ended, attempts;
UPDATE spark_build_jobs SET updated_at = now() WHERE worker_id = 'w4' RETURNING status;
-- nobody else's
:as_bob
UPDATE spark_build_jobs SET worker_id = 'mallory';
SELECT job_id FROM spark_build_jobs FOR UPDATE SKIP LOCKED;
:as_service

--
-- Breakers, health, metrics
--
SELECT run_tracker.breaker_record('regress spark', false, 'down') FROM generate_series(1, 5);
SELECT name, state, failure_count, opened_at IS NOT NULL AS opened, next_attempt_at > now() AS later, last_error FROM spark_circuit_breakers WHERE name = 'regress spark';
SELECT spark_health() ->> 'status' IN ('healthy', 'unhealthy') AS status, spark_health() -> 'circuit_breakers' ->> 'regress spark' AS breaker,
    spark_health() ->> 'database' = current_database() AS database, (spark_health() ->> 'timestamp')::timestamptz >= now() AS moment;
SELECT run_tracker.reset_breaker('regress spark');
SELECT labels ->> 'le' AS le FROM spark_metrics WHERE name = 'run_tracker_run_duration_seconds_bucket' GROUP BY 1 ORDER BY min((labels ->> 'le')::float8);
SELECT count(*) > 0 AS some FROM spark_metrics WHERE name = 'run_tracker_open_runs';
:as_alice
SELECT name, state, last_error FROM spark_circuit_breakers WHERE name = 'regress spark';
SELECT spark_health() ->> 'status' IN ('healthy', 'unhealthy') AS status;
CALL pg_temp.try($$DELETE FROM spark_circuit_breakers$$);
CALL pg_temp.try($$UPDATE spark_metrics SET value = 0$$);

--
-- Others
--
SET ROLE regress_spark_reader;
SET request.jwt.claims = '{"sub": "a0000000-0000-4000-8000-00000000000a"}';
SELECT (SELECT count(*) FROM spark_user_profiles) AS profiles, (SELECT count(*) FROM spark_sessions) AS sessions, (SELECT count(*) FROM spark_deltas) AS deltas, (SELECT count(*) FROM spark_files) AS files;
CALL pg_temp.try($$INSERT INTO spark_sessions DEFAULT VALUES$$);
CALL pg_temp.try($$UPDATE spark_sessions SET updated_at = now()$$);
CALL pg_temp.try($$INSERT INTO spark_rate_limits (endpoint, "current") VALUES ('generate', 1)$$);
CALL pg_temp.try($$INSERT INTO spark_user_profiles DEFAULT VALUES$$);
SET ROLE regress_spark_stranger;
SELECT format('CALL pg_temp.try(%L)', 'SELECT FROM ' || c.relname) FROM pg_class c WHERE c.relnamespace = 'regress_spark'::regnamespace AND c.relkind = 'v' ORDER BY c.relname \gexec
CALL pg_temp.try('SELECT spark_health()');
CALL pg_temp.try('SELECT spark_quotas()');

--
-- Plans: what applications ask for is found by indexes, as a user and as a service
--
:as_owner
CREATE FUNCTION pg_temp.scans(query text) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
    line text;
BEGIN
    FOR line IN EXECUTE 'EXPLAIN (COSTS OFF) ' || query LOOP
        -- which of the indexes on runs that would do, and whether it sorts the few rows, is the planner's choice
        IF line ~ 'Scan|LockRows' AND line !~ 'Function Scan' THEN
            RETURN NEXT regexp_replace(regexp_replace(line, '^ *(-> *)?', ''), 'using (?!runs_build)\w+ on runs r', 'on runs r');
        END IF;
    END LOOP;
END
$$;
INSERT INTO run_tracker.sessions (user_id, updated_at) SELECT gen_random_uuid(), '2026-01-01' FROM generate_series(1, 200);
INSERT INTO run_tracker.usage_records (user_id, session_id, source, total_tokens) SELECT s.user_id, s.session_id, x, 0 FROM run_tracker.sessions s, unnest('{call,request}'::text[]) x;
INSERT INTO run_tracker.runs (user_id, session_id, lifecycle) SELECT s.user_id, s.session_id, 'build' FROM run_tracker.sessions s;
INSERT INTO run_tracker.artifacts (run_id, session_id, kind) SELECT r.run_id, r.session_id::uuid, 'file' FROM run_tracker.runs r WHERE r.lifecycle = 'build';
ANALYZE run_tracker.sessions, run_tracker.usage_records, run_tracker.runs, run_tracker.artifacts;
SET enable_seqscan = off;
SET enable_bitmapscan = off;
CREATE TEMP TABLE queries (n, query) AS VALUES
    (1, 'SELECT * FROM spark_user_profiles WHERE user_id = ''a0000000-0000-4000-8000-00000000000a'''),
    (2, 'SELECT * FROM spark_sessions WHERE session_id = ''10000000-0000-4000-8000-00000000000a'''),
    (3, 'SELECT * FROM spark_sessions WHERE user_id = ''a0000000-0000-4000-8000-00000000000a'' ORDER BY created_at DESC LIMIT 5'),
    (4, 'SELECT * FROM spark_requests WHERE user_id = ''a0000000-0000-4000-8000-00000000000a'' ORDER BY created_at DESC LIMIT 5'),
    (5, 'SELECT * FROM spark_requests WHERE session_id = ''10000000-0000-4000-8000-00000000000a'' ORDER BY created_at DESC LIMIT 5'),
    (6, 'SELECT sum(tokens_used) FROM spark_token_usage WHERE user_id = ''a0000000-0000-4000-8000-00000000000a'' AND created_at >= date_trunc(''month'', now())'),
    (7, 'SELECT * FROM spark_deltas WHERE session_id = ''10000000-0000-4000-8000-00000000000a'' ORDER BY version DESC LIMIT 1'),
    (8, 'SELECT * FROM spark_files WHERE id = ''3c000000-0000-4000-8000-00000000000a'''),
    (9, 'SELECT * FROM spark_files WHERE session_id = ''10000000-0000-4000-8000-00000000000a'' ORDER BY created_at DESC LIMIT 5'),
    (10, 'SELECT * FROM spark_build_jobs WHERE job_id = ''4d000000-0000-4000-8000-00000000000a'''),
    (11, 'SELECT * FROM spark_build_jobs WHERE user_id = ''a0000000-0000-4000-8000-00000000000a'' ORDER BY created_at DESC LIMIT 5'),
    (12, 'SELECT * FROM spark_build_jobs WHERE session_id = ''10000000-0000-4000-8000-00000000000a'' ORDER BY created_at DESC LIMIT 5'),
    (13, 'SELECT job_id FROM spark_build_jobs WHERE status = ''queued'' ORDER BY priority DESC, created_at LIMIT 1 FOR UPDATE SKIP LOCKED');
GRANT SELECT ON queries TO PUBLIC;
:as_alice
SELECT q.n, s AS plan FROM queries q, pg_temp.scans(q.query) s;
:as_service
SELECT q.n, s AS plan FROM queries q, pg_temp.scans(q.query) s;
:as_owner
RESET enable_seqscan;
RESET enable_bitmapscan;
DROP TABLE queries;

--
-- Ids of users that are no uuids; the end
--
DELETE FROM run_tracker.runs;
DELETE FROM run_tracker.sessions;
DELETE FROM run_tracker.usage_records;
DELETE FROM run_tracker.accounts;
DELETE FROM run_tracker.tiers WHERE name <> 'free';
CALL pg_temp.try($$SELECT run_tracker.create_compat('spark', 'regress_spark', '{"user_id": "bigint"}')$$);
SELECT count(*) AS dropped FROM unnest(run_tracker.drop_compat('spark', 'regress_spark'));
CALL pg_temp.try($$SELECT run_tracker.create_compat('spark', 'regress_spark', '{"user_id": "bigint"}')$$);
SELECT count(*) AS made FROM unnest(run_tracker.create_compat('spark', 'regress_spark', '{"user_id": "text"}'));
SELECT count(*) AS again FROM unnest(run_tracker.create_compat('spark', 'regress_spark', '{"user_id": "text"}'));
SET ROLE regress_spark_client;
SET request.jwt.claims = '{"sub": "alice"}';
INSERT INTO spark_user_profiles (user_id) VALUES ('alice'), ('alice') ON CONFLICT (user_id) DO NOTHING RETURNING user_id, quotas;
INSERT INTO spark_sessions (session_id) VALUES ('10000000-0000-4000-8000-00000000000a') RETURNING user_id;
INSERT INTO spark_requests (session_id, endpoint) VALUES ('10000000-0000-4000-8000-00000000000a', 'x') RETURNING user_id;
INSERT INTO spark_files (session_id, name) VALUES ('10000000-0000-4000-8000-00000000000a', 'x') RETURNING user_id;
INSERT INTO spark_rate_limits (endpoint, "current") VALUES ('regress text', 1) RETURNING user_id, "current";
SELECT user_id, "current" FROM spark_rate_limits WHERE endpoint = 'regress text';
SELECT spark_quotas('alice') -> 'dailyRequests' AS requests;
:as_owner
SELECT run_tracker.reset_rate_limit('alice');
DELETE FROM run_tracker.runs;
DELETE FROM run_tracker.sessions;
DELETE FROM run_tracker.usage_records;
DELETE FROM run_tracker.accounts;
RESET search_path;
SELECT count(*) AS dropped FROM unnest(run_tracker.drop_compat('spark', 'regress_spark'));
SELECT c.relname FROM pg_class c WHERE c.relnamespace = 'run_tracker'::regnamespace AND c.relname ~ '(_uuid_|sessions?_id_idx|_build_|artifact_id_idx|open_created)' ORDER BY 1;
CALL pg_temp.forget();
DROP SCHEMA regress_spark;
DROP OWNED BY regress_spark_client, regress_spark_reader, regress_spark_service;
DROP ROLE regress_spark_client, regress_spark_reader, regress_spark_service, regress_spark_stranger;
