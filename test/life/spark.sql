-- The life of SPARK sessions: the statements of an application that has the tables or views spark_* in its search_path.

--
-- A user signs up, more than once; the server gives another one his profile
--
:as_alice
INSERT INTO spark_user_profiles (user_id) VALUES (auth.uid()) ON CONFLICT (user_id) DO NOTHING RETURNING user_id, tier;
INSERT INTO spark_user_profiles (user_id) VALUES (auth.uid()) ON CONFLICT (user_id) DO NOTHING RETURNING user_id, tier;
INSERT INTO spark_user_profiles (user_id) VALUES (auth.uid()) ON CONFLICT DO NOTHING;
SELECT user_id, tier, created_at <= now() AS created FROM spark_user_profiles WHERE user_id = auth.uid();
:as_service
INSERT INTO spark_user_profiles (user_id, tier, permissions, quotas) VALUES
    (:'bob', 'free', '{spark:read,spark:generate}', '{"monthlyTokens": 100000, "dailyRequests": 100, "concurrentSessions": 1}')
ON CONFLICT (user_id) DO NOTHING RETURNING tier, permissions, quotas;
INSERT INTO spark_user_profiles (user_id, tier, permissions) VALUES (:'bob', 'free', '{}') ON CONFLICT (user_id) DO NOTHING RETURNING tier;
UPDATE spark_user_profiles SET permissions = array_append(permissions, 'spark:build'), updated_at = now() WHERE user_id = :'bob' RETURNING permissions;
UPDATE spark_user_profiles SET quotas = quotas || '{"concurrentSessions": 2}' WHERE user_id = :'bob' RETURNING quotas;
SELECT user_id FROM spark_user_profiles WHERE 'spark:build' = ANY (permissions) AND (quotas ->> 'monthlyTokens')::bigint = 100000;

--
-- Sessions, as many at a time as the quota says
--
:as_alice
INSERT INTO spark_sessions (session_id, user_id, tier, created_at, updated_at) VALUES ('10000000-0000-4000-8000-000000000001', auth.uid(), 'free', now(), now())
RETURNING session_id, user_id, tier;
SELECT pg_temp.try($$INSERT INTO spark_sessions (user_id) VALUES (auth.uid())$$) AS second_session;
UPDATE spark_sessions SET updated_at = now() WHERE session_id = '10000000-0000-4000-8000-000000000001' RETURNING session_id, updated_at >= created_at AS touched;
SELECT count(*) FROM spark_sessions WHERE user_id = auth.uid() AND updated_at > now() - interval '1 hour';
:as_bob
INSERT INTO spark_sessions (session_id) VALUES ('20000000-0000-4000-8000-000000000001'), ('20000000-0000-4000-8000-000000000002') RETURNING session_id, tier;
SELECT pg_temp.try($$INSERT INTO spark_sessions (user_id) VALUES (auth.uid())$$) AS third_session;

--
-- State of a session, in versions
--
:as_alice
INSERT INTO spark_deltas (session_id, user_id, version, delta) VALUES ('10000000-0000-4000-8000-000000000001', auth.uid(), 1, '{"scene": "forest", "trees": 3}') RETURNING version, delta;
INSERT INTO spark_deltas (session_id, version, delta) SELECT '10000000-0000-4000-8000-000000000001', coalesce(max(version), 0) + 1, '{"trees": 5, "text": "Grüße 日本語"}' FROM spark_deltas
WHERE session_id = '10000000-0000-4000-8000-000000000001' RETURNING version, user_id = auth.uid() AS own;
SELECT pg_temp.try($$INSERT INTO spark_deltas (session_id, version, delta) VALUES ('10000000-0000-4000-8000-000000000001', 2, '{"trees": 9}')$$) AS conflict;
INSERT INTO spark_deltas (session_id, version, delta) VALUES ('10000000-0000-4000-8000-000000000001', 3, '{"scene": "wood"}');
SELECT version, delta FROM spark_deltas WHERE session_id = '10000000-0000-4000-8000-000000000001' ORDER BY version;
SELECT max(version) FROM spark_deltas WHERE session_id = '10000000-0000-4000-8000-000000000001';
SELECT delta FROM spark_deltas WHERE session_id = '10000000-0000-4000-8000-000000000001' AND version > 1 ORDER BY version DESC LIMIT 1;

--
-- Requests, and the tokens that they use
--
INSERT INTO spark_requests (session_id, user_id, endpoint, metadata) VALUES ('10000000-0000-4000-8000-000000000001', auth.uid(), 'generate', '{"prompt": "a tree''); DROP TABLE spark_requests; --"}')
RETURNING session_id, endpoint, metadata;
INSERT INTO spark_requests (id, session_id, endpoint) VALUES ('1a000000-0000-4000-8000-000000000001', '10000000-0000-4000-8000-000000000001', 'function:makeScript'),
    ('1a000000-0000-4000-8000-000000000002', '10000000-0000-4000-8000-000000000001', 'function:makeScript') RETURNING id, user_id = auth.uid() AS own, endpoint;
PREPARE use_tokens (uuid, integer) AS INSERT INTO spark_token_usage (user_id, tokens_used, created_at) VALUES ($1, $2, now()) RETURNING id IS NOT NULL AS has_id, user_id, tokens_used;
EXECUTE use_tokens(:'alice', 1500);
EXECUTE use_tokens(:'alice', 0);
INSERT INTO spark_token_usage (id, tokens_used) VALUES ('1b000000-0000-4000-8000-000000000001', 500) RETURNING id, user_id = auth.uid() AS own, tokens_used;
SELECT coalesce(sum(tokens_used), 0) AS used, count(*) FROM spark_token_usage WHERE user_id = auth.uid() AND created_at >= date_trunc('month', now());
SELECT count(*) FROM spark_requests WHERE user_id = auth.uid() AND created_at >= date_trunc('day', now());
SELECT endpoint, count(*) FROM spark_requests WHERE session_id = '10000000-0000-4000-8000-000000000001' GROUP BY endpoint ORDER BY endpoint;
:as_service
INSERT INTO spark_token_usage (user_id, tokens_used, created_at) VALUES (:'alice', 70000, now() - interval '40 days') RETURNING tokens_used;
:as_alice
SELECT sum(tokens_used) FILTER (WHERE created_at >= date_trunc('month', now())) AS this_month, sum(tokens_used) AS ever FROM spark_token_usage WHERE user_id = auth.uid();

--
-- What comes out
--
INSERT INTO spark_generated_scripts (id, session_id, user_id, name, type, content, content_type, size_bytes, metadata) VALUES
    ('1c000000-0000-4000-8000-000000000001', '10000000-0000-4000-8000-000000000001', auth.uid(), 'Tree.cs', 'csharp', 'class Bäume {}', 'text/plain', 15, '{"lines": 1}')
RETURNING id, session_id, user_id = auth.uid() AS own, name, type, content, content_type, size_bytes, metadata, configuration, url;
INSERT INTO spark_files (id, session_id, name, type, content_type, url, size_bytes) VALUES
    ('1c000000-0000-4000-8000-000000000002', '10000000-0000-4000-8000-000000000001', 'tree.png', 'image', 'image/png', 's3://files/tree.png', 5000000000) RETURNING name, url, size_bytes, content;
INSERT INTO spark_unity_prefabs (id, session_id, name, configuration) VALUES
    ('1c000000-0000-4000-8000-000000000003', '10000000-0000-4000-8000-000000000001', 'Tree', '{"components": ["Transform"]}'),
    ('1c000000-0000-4000-8000-000000000004', '10000000-0000-4000-8000-000000000001', 'Bush', '{}') RETURNING name, configuration;
INSERT INTO spark_unity_materials (id, session_id, name, type, configuration) VALUES
    ('1c000000-0000-4000-8000-000000000005', '10000000-0000-4000-8000-000000000001', 'Bark', 'standard', '{"color": "#663300"}') RETURNING name, type, configuration;
UPDATE spark_generated_scripts SET content = 'class Tree {}', size_bytes = 13, updated_at = now() WHERE id = '1c000000-0000-4000-8000-000000000001' RETURNING content, size_bytes;
UPDATE spark_unity_materials SET configuration = configuration || '{"shiny": true}' WHERE session_id = '10000000-0000-4000-8000-000000000001' RETURNING configuration;
SELECT name, type FROM spark_generated_scripts WHERE session_id = '10000000-0000-4000-8000-000000000001';
SELECT (SELECT count(*) FROM spark_generated_scripts) AS scripts, (SELECT count(*) FROM spark_files) AS files, (SELECT count(*) FROM spark_unity_prefabs) AS prefabs,
    (SELECT count(*) FROM spark_unity_materials) AS materials;
DELETE FROM spark_unity_prefabs WHERE id = '1c000000-0000-4000-8000-000000000004' RETURNING name;

--
-- Builds: users queue them, workers of the server take them
--
INSERT INTO spark_build_jobs (job_id, session_id, user_id, status, priority, inputs, attempts, max_attempts) VALUES
    ('1d000000-0000-4000-8000-000000000001', '10000000-0000-4000-8000-000000000001', auth.uid(), 'queued', 1, '{"target": "web"}', 0, 3),
    ('1d000000-0000-4000-8000-000000000002', '10000000-0000-4000-8000-000000000001', auth.uid(), 'queued', 5, '{"target": "ios"}', 0, 3),
    ('1d000000-0000-4000-8000-000000000003', '10000000-0000-4000-8000-000000000001', auth.uid(), 'queued', 0, '{}', 0, 3)
RETURNING job_id, session_id, status, priority, worker_id, inputs, result, error_message, attempts, max_attempts, started_at, completed_at;
UPDATE spark_build_jobs SET status = 'cancelled' WHERE job_id = '1d000000-0000-4000-8000-000000000003' AND status = 'queued' RETURNING status, completed_at IS NOT NULL AS ended;
:as_service
PREPARE take (varchar) AS
UPDATE spark_build_jobs SET status = 'building', worker_id = $1, attempts = attempts + 1, started_at = now(), updated_at = now()
WHERE status = 'queued' AND job_id = (SELECT job_id FROM spark_build_jobs WHERE status = 'queued' ORDER BY priority DESC, created_at LIMIT 1)
RETURNING job_id, user_id, status, priority, worker_id, inputs, attempts, started_at IS NOT NULL AS started;
EXECUTE take('worker-1');
EXECUTE take('worker-2');
EXECUTE take('worker-3');
UPDATE spark_build_jobs SET status = 'completed', result = '{"url": "s3://builds/ios.zip"}', completed_at = now() WHERE job_id = '1d000000-0000-4000-8000-000000000002' AND worker_id = 'worker-1'
RETURNING status, result, attempts, completed_at >= started_at AS ended;
UPDATE spark_build_jobs SET status = 'failed', error_message = 'disk full' WHERE job_id = '1d000000-0000-4000-8000-000000000001' RETURNING status, error_message, attempts;
UPDATE spark_build_jobs SET status = 'queued', worker_id = NULL, error_message = NULL, started_at = NULL, completed_at = NULL
WHERE status = 'failed' AND attempts < max_attempts AND job_id = '1d000000-0000-4000-8000-000000000001' RETURNING status, worker_id, error_message, attempts, completed_at;
EXECUTE take('worker-2');
UPDATE spark_build_jobs SET status = status, updated_at = now() WHERE job_id = '1d000000-0000-4000-8000-000000000001' RETURNING status, attempts;
UPDATE spark_build_jobs SET status = 'completed', result = '{}' WHERE job_id = '1d000000-0000-4000-8000-000000000001' RETURNING status, error_message, attempts;
INSERT INTO spark_requests (user_id, endpoint) VALUES (:'alice', 'build') RETURNING session_id, endpoint;
-- a statement of an ORM
SELECT created_at, started_at, completed_at, updated_at FROM spark_build_jobs WHERE job_id = '1d000000-0000-4000-8000-000000000002' \gset job_
UPDATE spark_build_jobs SET session_id = '10000000-0000-4000-8000-000000000001', user_id = 'a0000000-0000-4000-8000-000000000001', status = 'completed', priority = 5, worker_id = 'worker-1',
    inputs = '{"target": "ios"}', result = '{"url": "s3://builds/ios-2.zip"}', error_message = NULL, attempts = 1, max_attempts = 3, created_at = :'job_created_at', started_at = :'job_started_at',
    completed_at = :'job_completed_at', updated_at = :'job_updated_at'
WHERE spark_build_jobs.job_id = '1d000000-0000-4000-8000-000000000002' RETURNING result;
:as_alice
SELECT job_id, status, priority, worker_id, result, attempts, error_message FROM spark_build_jobs WHERE user_id = auth.uid() AND status = 'completed' ORDER BY job_id;
SELECT status, count(*) FROM spark_build_jobs WHERE session_id = '10000000-0000-4000-8000-000000000001' GROUP BY status ORDER BY status;

--
-- Users see their own rows
--
:as_bob
SELECT (SELECT count(*) FROM spark_user_profiles) AS profiles, (SELECT count(*) FROM spark_sessions) AS sessions, (SELECT count(*) FROM spark_rate_limits) AS rate_limits,
    (SELECT count(*) FROM spark_token_usage) AS tokens, (SELECT count(*) FROM spark_requests) AS requests, (SELECT count(*) FROM spark_deltas) AS deltas,
    (SELECT count(*) FROM spark_generated_scripts) AS scripts, (SELECT count(*) FROM spark_files) AS files, (SELECT count(*) FROM spark_unity_prefabs) AS prefabs,
    (SELECT count(*) FROM spark_unity_materials) AS materials, (SELECT count(*) FROM spark_build_jobs) AS jobs;
UPDATE spark_sessions SET updated_at = now() WHERE session_id = '10000000-0000-4000-8000-000000000001' RETURNING session_id;
UPDATE spark_generated_scripts SET content = 'stolen' WHERE id = '1c000000-0000-4000-8000-000000000001' RETURNING id;
DELETE FROM spark_sessions WHERE session_id = '10000000-0000-4000-8000-000000000001' RETURNING session_id;
:as_nobody
SELECT (SELECT count(*) FROM spark_user_profiles) AS profiles, (SELECT count(*) FROM spark_sessions) AS sessions, (SELECT count(*) FROM spark_token_usage) AS tokens,
    (SELECT count(*) FROM spark_requests) AS requests, (SELECT count(*) FROM spark_deltas) AS deltas, (SELECT count(*) FROM spark_files) AS files, (SELECT count(*) FROM spark_build_jobs) AS jobs;

--
-- What is refused
--
:as_alice
SELECT pg_temp.code($$INSERT INTO spark_sessions (session_id) VALUES ('1')$$) AS not_an_id,
    pg_temp.code($$INSERT INTO spark_requests (endpoint, metadata) VALUES ('x', '{')$$) AS not_json,
    pg_temp.code($$INSERT INTO spark_token_usage (tokens_used) VALUES ('many')$$) AS not_a_number,
    pg_temp.code($$INSERT INTO spark_build_jobs (job_id) VALUES ('1d000000-0000-4000-8000-000000000001')$$) AS job_again,
    pg_temp.code($$INSERT INTO spark_token_usage (id, tokens_used) VALUES ('1b000000-0000-4000-8000-000000000001', 1)$$) AS usage_again;
SELECT pg_temp.try($$INSERT INTO spark_user_profiles (user_id, tier) VALUES ('a0000000-0000-4000-8000-000000000001', 'pro')$$) AS choose_tier,
    pg_temp.try($$UPDATE spark_user_profiles SET tier = 'pro'$$) AS change_tier,
    pg_temp.try($$UPDATE spark_user_profiles SET permissions = '{spark:admin}'$$) AS change_permissions,
    pg_temp.try($$UPDATE spark_user_profiles SET quotas = '{}'$$) AS change_quotas,
    pg_temp.try($$INSERT INTO spark_user_profiles (user_id) VALUES ('c0000000-0000-4000-8000-000000000001')$$) AS profile_of_another,
    pg_temp.try($$INSERT INTO spark_sessions (user_id) VALUES ('b0000000-0000-4000-8000-000000000001')$$) AS session_of_bob,
    pg_temp.try($$INSERT INTO spark_token_usage (user_id, tokens_used) VALUES ('b0000000-0000-4000-8000-000000000001', 1)$$) AS tokens_of_bob;
SELECT pg_temp.try($$INSERT INTO spark_token_usage (tokens_used) VALUES (-1)$$) AS negative_tokens,
    pg_temp.try($$INSERT INTO spark_token_usage (tokens_used) VALUES (NULL)$$) AS no_tokens,
    pg_temp.try($$INSERT INTO spark_requests (metadata) VALUES ('{}')$$) AS no_endpoint,
    pg_temp.try($$INSERT INTO spark_deltas (session_id, version, delta) VALUES ('20000000-0000-4000-8000-000000000001', 1, '{}')$$) AS delta_of_bob,
    pg_temp.try($$INSERT INTO spark_deltas (session_id, version, delta) VALUES ('10000000-0000-4000-8000-000000000001', 4, NULL)$$) AS no_delta,
    pg_temp.try($$INSERT INTO spark_files (session_id, name) VALUES ('20000000-0000-4000-8000-000000000001', 'x')$$) AS file_of_bob,
    pg_temp.try($$INSERT INTO spark_files (session_id, size_bytes) VALUES ('10000000-0000-4000-8000-000000000001', -1)$$) AS negative_size,
    pg_temp.try($$INSERT INTO spark_build_jobs (status) VALUES ('done')$$) AS unknown_status,
    pg_temp.try($$UPDATE spark_build_jobs SET status = 'done'$$) AS to_unknown_status;
:as_nobody
SELECT pg_temp.try($$INSERT INTO spark_sessions (tier) VALUES ('free')$$) AS without_a_user;

--
-- The end of a session; clean-up
--
:as_alice
DELETE FROM spark_sessions WHERE session_id = '10000000-0000-4000-8000-000000000001' RETURNING session_id;
SELECT count(*) FROM spark_deltas WHERE session_id = '10000000-0000-4000-8000-000000000001';
INSERT INTO spark_sessions (session_id) VALUES ('10000000-0000-4000-8000-000000000002') RETURNING session_id;
:as_service
INSERT INTO spark_sessions (session_id, user_id, tier, created_at, updated_at) VALUES ('20000000-0000-4000-8000-000000000003', :'bob', 'free', now() - interval '3 days', now() - interval '2 days')
RETURNING session_id, updated_at - created_at AS lasted;
SELECT user_id, count(*), count(*) FILTER (WHERE updated_at > now() - interval '1 hour') AS active FROM spark_sessions GROUP BY user_id ORDER BY user_id;
DELETE FROM spark_sessions WHERE updated_at < now() - interval '1 day' RETURNING session_id;
WITH deleted AS (DELETE FROM spark_token_usage WHERE created_at < now() - interval '31 days' RETURNING tokens_used) SELECT count(*), sum(tokens_used) FROM deleted;
DELETE FROM spark_requests WHERE endpoint LIKE 'function:%' RETURNING endpoint;
DELETE FROM spark_build_jobs WHERE status IN ('completed', 'failed', 'cancelled') AND user_id = :'alice' AND priority < 5;
SELECT (SELECT count(*) FROM spark_sessions) AS sessions, (SELECT sum(tokens_used) FROM spark_token_usage) AS tokens, (SELECT count(*) FROM spark_requests) AS requests,
    (SELECT count(*) FROM spark_build_jobs) AS jobs;
RESET ROLE;
