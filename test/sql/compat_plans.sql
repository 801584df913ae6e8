--
-- What applications ask for through their views is found by indexes, with default settings of the planner and a history of
-- 50,000 runs: as users, whose rows row level security picks out, and as services.
--
\getenv abs_srcdir PG_ABS_SRCDIR
\set common :abs_srcdir '/sql/common.psql'
\i :common
CALL pg_temp.forget();

CREATE SCHEMA regress_plans;
GRANT USAGE ON SCHEMA regress_plans TO PUBLIC;
CREATE ROLE regress_plans_client;
CREATE ROLE regress_plans_service;
SELECT run_tracker.grant_client('regress_plans_client');
SELECT run_tracker.grant_service('regress_plans_service');
SELECT count(run_tracker.create_compat(a, 'regress_plans')) FROM unnest('{spar,iflow,ai_runs,spark,workflow}'::text[]) a;
SET search_path = regress_plans;

-- 20 users, 4 applications, the last 100 days: 125 runs of each application a day, of which the 25 latest are under way
INSERT INTO run_tracker.runs (run_id, user_id, lifecycle, status, kind, workflow_id, session_id, subject_id, settings, created_at, finished_at)
SELECT ('00000000-0000-4000-8000-' || lpad(g.n::text, 12, '0'))::uuid, 'a0000000-0000-4000-8000-' || lpad((g.n / 4 % 20)::text, 12, '0'), a.lifecycle,
       CASE WHEN g.n > 49900 THEN a.open WHEN g.n % 10 = 0 THEN a.failed ELSE 'completed' END, 'kind ' || g.n % 7,
       CASE a.lifecycle WHEN 'workflow' THEN 'wf-' || g.n / 4 % 499 END, CASE a.lifecycle WHEN 'workflow' THEN 'session-' || g.n / 40 END,
       CASE a.lifecycle WHEN 'spar' THEN 'e0000000-0000-4000-8000-' || lpad((g.n / 8)::text, 12, '0') END,
       jsonb_build_object('visual_streaming_enabled', g.n % 100 = 3), t.at, CASE WHEN g.n <= 49900 THEN t.at END
FROM generate_series(1, 50000) AS g (n),
     LATERAL (VALUES (now() - interval '100 days' * (1 - g.n / 50000.0))) AS t (at),
     (VALUES (0, 'spar', 'processing', 'failed'), (1, 'iflow', 'generating', 'failed'), (2, 'conversation', 'active', 'failed'), (3, 'workflow', 'running', 'failed'))
         AS a (n, lifecycle, open, failed)
WHERE g.n % 4 = a.n;
INSERT INTO run_tracker.tasks (run_id, task_id, status, created_at, finished_at)
SELECT run_id, run_id, 'completed', created_at, created_at FROM run_tracker.runs WHERE lifecycle = 'conversation';
INSERT INTO run_tracker.artifacts (run_id, artifact_id, kind, created_at) SELECT run_id, run_id, 'component', created_at FROM run_tracker.runs WHERE lifecycle = 'iflow' ORDER BY created_at DESC LIMIT 5000;
INSERT INTO run_tracker.retrievals (run_id, retrieval_id, retrieval_type, created_at) SELECT run_id, run_id, 'hybrid', created_at FROM run_tracker.runs WHERE lifecycle = 'iflow' ORDER BY created_at DESC LIMIT 5000;
INSERT INTO run_tracker.logs (run_id, log_id, level, message, created_at) SELECT run_id, run_id, 'ERROR', 'x', created_at FROM run_tracker.runs WHERE lifecycle = 'iflow' ORDER BY created_at DESC LIMIT 5000;
INSERT INTO run_tracker.sessions (session_id, user_id, created_at, updated_at, closed_at)
SELECT run_id, user_id, created_at, created_at, CASE WHEN created_at < now() - interval '10 days' THEN created_at END FROM run_tracker.runs WHERE lifecycle = 'workflow' ORDER BY created_at DESC LIMIT 5000;
INSERT INTO run_tracker.usage_records (usage_id, user_id, source, session_id, endpoint, requests, total_tokens, used_at)
SELECT gen_random_uuid(), user_id, CASE n WHEN 2 THEN 'request' ELSE 'call' END, CASE n WHEN 2 THEN session_id::uuid END, 'chat', n / 2, 1, created_at
FROM (SELECT user_id, created_at, session_id FROM run_tracker.sessions) s, generate_series(1, 2) n;
INSERT INTO run_tracker.runs (lifecycle, user_id, session_id, status, created_at, finished_at)
SELECT 'build', user_id, session_id, CASE WHEN created_at < now() - interval '1 day' THEN 'completed' ELSE 'queued' END, created_at, CASE WHEN created_at < now() - interval '1 day' THEN created_at END FROM run_tracker.sessions;
ANALYZE run_tracker.sessions, run_tracker.usage_records;
ANALYZE run_tracker.runs, run_tracker.tasks, run_tracker.artifacts, run_tracker.retrievals, run_tracker.logs, run_tracker.open_runs;

-- What is read, and by which conditions of an index; and what is sorted before the first rows are returned. Whether an
-- index is asked row by row or for many rows at once depends on the sample of ANALYZE.
CREATE FUNCTION pg_temp.plan(query text) RETURNS SETOF text
LANGUAGE plpgsql
AS $$
DECLARE
    line text;
BEGIN
    RETURN NEXT query;
    FOR line IN EXECUTE 'EXPLAIN (COSTS OFF) ' || query LOOP
        line := regexp_replace(line, '^ *(->  )?', '');
        line := regexp_replace(line, 'Bitmap Index Scan on', 'Index Scan using');
        line := regexp_replace(line, '^(Index (Only )?Scan) (Backward )?using (\w+)( on .*)?', 'Index Scan using \4');
        line := regexp_replace(line, 'CASE WHEN \((\w+\.)?(\w+) ~ ''[^'']*''::text\) THEN \(?(\w+\.)?\w+\)?::(\w+) ELSE NULL::\w+ END', '\2::\4', 'g');
        line := regexp_replace(line, '\$[0-9]+|\(?InitPlan [0-9]+\)?\.col1', '(SELECT current_user_id())', 'g');
        line := regexp_replace(line, '''@ ([0-9]+ \w+)''', '''\1''', 'g');
        IF line ~ '^(Index Scan|Seq Scan|Index Cond)' OR line ~ 'Sort$' AND query ~ 'LIMIT' THEN
            RETURN NEXT '    ' || line;
        END IF;
    END LOOP;
END
$$;
CREATE FUNCTION pg_temp.plans() RETURNS SETOF text
LANGUAGE plpgsql
AS $$
DECLARE
    query text;
    id text := quote_literal('00000000-0000-4000-8000-000000040000');
    user_id text := quote_literal('a0000000-0000-4000-8000-000000000007');
BEGIN
    FOREACH query IN ARRAY ARRAY[
        'SELECT * FROM spar_runs WHERE run_id = $id',
        'SELECT * FROM spar_runs WHERE user_id = $user ORDER BY created_at DESC LIMIT 20',
        'SELECT * FROM spar_runs ORDER BY created_at DESC LIMIT 20',
        'SELECT * FROM spar_runs WHERE journal_entry_id = ''e0000000-0000-4000-8000-000000000001'' ORDER BY created_at DESC',
        'SELECT * FROM spar_runs WHERE created_at > now() - interval ''24 hours'' ORDER BY created_at DESC',
        'SELECT * FROM spar_runs WHERE status IN (''pending'', ''processing'') AND created_at < now() - interval ''5 minutes'' ORDER BY created_at',
        'SELECT * FROM spar_runs WHERE status = ''processing'' AND created_at < now() - interval ''5 minutes''',
        'UPDATE spar_runs SET goal = ''x'' WHERE run_id = $id',
        'DELETE FROM spar_runs WHERE run_id = $id',
        'SELECT * FROM iflow_jobs WHERE job_id = $id',
        'SELECT * FROM iflow_jobs WHERE user_id = $user ORDER BY created_at DESC LIMIT 20',
        'SELECT * FROM iflow_jobs WHERE created_at > now() - interval ''24 hours'' ORDER BY created_at DESC',
        'SELECT * FROM iflow_jobs WHERE status = ''generating'' ORDER BY created_at',
        'SELECT * FROM iflow_components WHERE job_id = $id ORDER BY component_order',
        'SELECT * FROM iflow_components WHERE component_id = $id',
        'SELECT * FROM rag_retrievals WHERE job_id = $id ORDER BY created_at',
        'SELECT * FROM rag_retrievals WHERE retrieval_id = $id',
        'SELECT * FROM iflow_generation_logs WHERE job_id = $id AND log_level = ''ERROR'' ORDER BY created_at',
        'SELECT * FROM iflow_generation_logs WHERE log_id = $id',
        'UPDATE iflow_components SET xml_content = ''x'' WHERE component_id = $id',
        'SELECT * FROM iflow_jobs_summary WHERE job_id = $id',
        'SELECT id, name FROM ai_runs WHERE id = $id',
        'SELECT id, name FROM ai_runs WHERE user_id = $user ORDER BY created_at DESC LIMIT 20',
        'SELECT id, name FROM ai_runs WHERE created_at > now() - interval ''24 hours'' ORDER BY created_at DESC',
        'SELECT task_id, model FROM ai_tasks WHERE task_id = $id',
        'SELECT task_id, model FROM ai_tasks WHERE run_id = $id ORDER BY created_at',
        'SELECT task_id, model FROM ai_tasks WHERE user_id = $user ORDER BY created_at DESC LIMIT 20',
        'UPDATE ai_tasks SET status = ''failed'' WHERE task_id = $id',
        'SELECT * FROM workflow_executions WHERE execution_id = $id',
        'SELECT * FROM workflow_executions WHERE user_id = $user ORDER BY created_at DESC LIMIT 20',
        'SELECT * FROM workflow_executions WHERE workflow_id = ''wf-1'' ORDER BY created_at DESC LIMIT 50',
        'SELECT * FROM workflow_executions WHERE workflow_id = ''wf-1'' AND status = ''failed'' ORDER BY created_at DESC LIMIT 50',
        'SELECT * FROM workflow_executions WHERE user_id = $user AND visual_streaming_enabled ORDER BY created_at DESC LIMIT 50',
        'SELECT * FROM workflow_executions WHERE visual_streaming_enabled = true AND status = ''completed'' ORDER BY created_at DESC LIMIT 50',
        'SELECT * FROM workflow_executions WHERE session_id = ''session-1'' ORDER BY created_at DESC',
        'SELECT * FROM workflow_executions WHERE created_at > now() - interval ''24 hours'' ORDER BY created_at DESC',
        'SELECT * FROM workflow_executions WHERE status = ''running'' AND created_at < now() - interval ''5 minutes''',
        'SELECT count(*) FROM workflow_executions WHERE workflow_id = ''wf-1'' AND status = ''completed''',
        'SELECT * FROM spark_user_profiles WHERE user_id = $user',
        'SELECT * FROM spark_sessions WHERE session_id = $id',
        'SELECT * FROM spark_sessions WHERE user_id = $user AND updated_at > now() - interval ''1 hour''',
        'SELECT sum(tokens_used), count(*) FROM spark_token_usage WHERE user_id = $user AND created_at >= date_trunc(''month'', now())',
        'SELECT * FROM spark_requests WHERE session_id = $id ORDER BY created_at DESC',
        'SELECT * FROM spark_requests WHERE user_id = $user AND created_at > now() - interval ''24 hours''',
        'SELECT * FROM spark_deltas WHERE session_id = $id ORDER BY version',
        'SELECT * FROM spark_generated_scripts WHERE session_id = $id',
        'SELECT * FROM spark_files WHERE id = $id',
        'SELECT * FROM spark_build_jobs WHERE job_id = $id',
        'SELECT * FROM spark_build_jobs WHERE status = ''queued'' ORDER BY priority DESC, created_at LIMIT 1',
        'DELETE FROM workflow_executions WHERE status <> ''running'' AND created_at < now() - interval ''99 days'''] LOOP
        RETURN QUERY SELECT pg_temp.plan(replace(replace(query, '$id', id), '$user', user_id));
    END LOOP;
END
$$;
\pset tuples_only on
\pset format unaligned
SET request.jwt.claims = '{"sub": "a0000000-0000-4000-8000-000000000007"}';
SET ROLE regress_plans_client;
SELECT pg_temp.plans();
SET ROLE regress_plans_service;
RESET request.jwt.claims;
SELECT pg_temp.plans();
RESET ROLE;
\pset tuples_only off
\pset format aligned

RESET search_path;
-- what the planner has learned is forgotten, too
CALL pg_temp.forget();
TRUNCATE run_tracker.runs, run_tracker.tasks, run_tracker.logs, run_tracker.retrievals, run_tracker.artifacts, run_tracker.messages, run_tracker.transitions,
    run_tracker.usage_records, run_tracker.sessions, run_tracker.session_deltas, run_tracker.session_snapshots;
DELETE FROM pg_statistic s USING pg_class c WHERE c.oid = s.starelid AND c.relnamespace = 'run_tracker'::regnamespace;
SELECT count(run_tracker.drop_compat(a, 'regress_plans')) FROM unnest('{spar,iflow,ai_runs,spark,workflow}'::text[]) a;
DROP SCHEMA regress_plans;
DROP OWNED BY regress_plans_client, regress_plans_service;
DROP ROLE regress_plans_client, regress_plans_service;
