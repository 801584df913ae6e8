-- What only works on views where the library is loaded: ON CONFLICT, and locks on rows. After spark.sql.

:as_alice
INSERT INTO spark_sessions (session_id, tier) VALUES ('10000000-0000-4000-8000-000000000002', 'free') ON CONFLICT (session_id) DO UPDATE SET updated_at = now()
RETURNING session_id, updated_at >= created_at AS touched;
INSERT INTO spark_generated_scripts (id, session_id, name, content) VALUES ('3c000000-0000-4000-8000-000000000001', '10000000-0000-4000-8000-000000000002', 'Rock.cs', 'class Rock {}')
ON CONFLICT (id) DO UPDATE SET content = EXCLUDED.content RETURNING name, content;
INSERT INTO spark_generated_scripts (id, session_id, name, content) VALUES ('3c000000-0000-4000-8000-000000000001', '10000000-0000-4000-8000-000000000002', 'x', 'class Stone {}')
ON CONFLICT (id) DO UPDATE SET content = EXCLUDED.content RETURNING name, content;
INSERT INTO spark_build_jobs (job_id, session_id, priority) VALUES ('3d000000-0000-4000-8000-000000000001', '10000000-0000-4000-8000-000000000002', 2), ('3d000000-0000-4000-8000-000000000002', NULL, 9)
ON CONFLICT (job_id) DO NOTHING RETURNING job_id, status;
INSERT INTO spark_build_jobs (job_id, priority) VALUES ('3d000000-0000-4000-8000-000000000001', 7) ON CONFLICT (job_id) DO NOTHING RETURNING job_id, status;
INSERT INTO spark_token_usage (id, tokens_used) VALUES ('3b000000-0000-4000-8000-000000000001', 10) ON CONFLICT (id) DO NOTHING RETURNING tokens_used;
INSERT INTO spark_token_usage (id, tokens_used) VALUES ('3b000000-0000-4000-8000-000000000001', 10) ON CONFLICT (id) DO NOTHING RETURNING tokens_used;
:as_bob
SELECT pg_temp.try($$INSERT INTO spark_generated_scripts (id, content) VALUES ('3c000000-0000-4000-8000-000000000001', 'stolen')
    ON CONFLICT (id) DO UPDATE SET content = EXCLUDED.content$$) AS stolen;
-- workers that take jobs at the same time
:as_service
PREPARE take_locked (varchar) AS
UPDATE spark_build_jobs SET status = 'building', worker_id = $1, attempts = attempts + 1, started_at = now()
WHERE job_id = (SELECT job_id FROM spark_build_jobs WHERE status = 'queued' ORDER BY priority DESC, created_at LIMIT 1 FOR UPDATE SKIP LOCKED)
RETURNING job_id, status, worker_id, attempts;
EXECUTE take_locked('worker-1');
EXECUTE take_locked('worker-1');
EXECUTE take_locked('worker-1');
-- a rate limit, counted in one statement
:as_alice
PREPARE count_call (varchar) AS
INSERT INTO spark_rate_limits AS r (user_id, endpoint, "current", "limit", reset_at) VALUES (auth.uid(), $1, 1, 60, now() + interval '1 minute')
ON CONFLICT (user_id, endpoint) DO UPDATE SET "current" = r."current" + 1 RETURNING endpoint, "current", "limit", reset_at > now() AS later;
EXECUTE count_call('generate');
EXECUTE count_call('generate');
EXECUTE count_call('function:makeScript');
SELECT endpoint, "current", "limit", reset_at > now() AS later FROM spark_rate_limits WHERE user_id = auth.uid() ORDER BY endpoint;
:as_bob
SELECT count(*) FROM spark_rate_limits;
RESET ROLE;
