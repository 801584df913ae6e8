--
-- Copying the tables that applications had of their own.
--
\getenv abs_srcdir PG_ABS_SRCDIR
\set common :abs_srcdir '/sql/common.psql'
\i :common
CALL pg_temp.forget();
\set ECHO none
SET client_min_messages = warning;
ALTER PROCEDURE pg_temp.try RENAME TO run;
\set file :abs_srcdir '/fixtures/auth.sql'
\i :file
\set file :abs_srcdir '/fixtures/spar.sql'
\i :file
\unset schema
\set file :abs_srcdir '/fixtures/iflow.sql'
\i :file
\unset schema
\set file :abs_srcdir '/fixtures/ai_runs.sql'
\i :file
\unset schema
\set file :abs_srcdir '/fixtures/spark.sql'
\i :file
\unset schema
\set file :abs_srcdir '/fixtures/workflow.sql'
\i :file
RESET search_path;
SELECT run_tracker.grant_client('regress_life_user') IS NULL AS granted,
       run_tracker.grant_service('regress_life_service') IS NULL AS granted_service \gset
-- users of other tests have the same names
DELETE FROM run_tracker.runs;
DELETE FROM run_tracker.usage_records;
DELETE FROM run_tracker.stat_deltas;
DELETE FROM run_tracker.stat_totals;
-- the columns of a view that do not show what the old table has
CREATE FUNCTION pg_temp.differences(application text)
RETURNS TABLE (relation text, name text, rows bigint, old_value text, new_value text)
LANGUAGE plpgsql
AS $$
#variable_conflict use_column
DECLARE
    col record;
    same_key text;
BEGIN
    FOR col IN
        SELECT c.*, r.keys FROM run_tracker.compat_relations(application) r
             JOIN run_tracker.compat_columns(application, run_tracker.compat_types(application, '{}')) c ON c.relation = r.relation
        WHERE c.name IS NOT NULL
    LOOP
        same_key := (SELECT string_agg(format('o.%I = n.%1$I', k), ' AND ') FROM unnest(col.keys) k);
        RETURN QUERY EXECUTE format(
            'SELECT %1$L, %2$L, count(*), min(left(o.%2$I::text, 60)), min(left(n.%2$I::text, 60))
             FROM old_%3$s.%1$I o LEFT JOIN regress_new.%1$I n ON %4$s WHERE o.%2$I::%5$s IS DISTINCT FROM n.%2$I HAVING count(*) > 0',
            col.relation, col.name, application, same_key, col.type);
    END LOOP;
END
$$;
\set ECHO all
CREATE SCHEMA regress_new;

-- SPAR: everything that a row can say, as little as possible, and each status
SET timezone = 'UTC';
INSERT INTO old_spar.spar_runs (run_id, user_id, journal_entry_id, status, goal, inputs, settings, plan, step_results, reflections,
    quality_score, competencies, recommendations, insights, error_message, processing_duration_ms, created_at, started_at, completed_at, updated_at)
VALUES ('10000000-0000-4000-8000-000000000001', :'alice', 'e0000000-0000-4000-8000-000000000001', 'completed', 'summary', '{"entry": "Äpfel 日本語 😀", "n": 1.0}',
    '{"model": "m1"}', '["analyse", null]', '[{"ok": true}]', '{"depth": 2}', 0.8750, '["reading"]', '[]', '{"mood": "calm"}', 'a warning', 1234,
    '2024-01-01 10:00:00.123456+00', '2024-01-01 10:00:01+00', '2024-01-01 10:00:02+00', '2024-01-03+00');
INSERT INTO old_spar.spar_runs (run_id, user_id, status, goal, error_message, created_at, completed_at, updated_at, processing_duration_ms) VALUES
    ('10000000-0000-4000-8000-000000000002', :'bob', 'failed', 'summary', 'no', '2024-01-02', '2024-01-02 00:00:10', '2024-01-02 00:00:10', 10000),
    ('10000000-0000-4000-8000-000000000003', :'bob', 'timeout', 'summary', NULL, '2024-01-02', '2024-01-02 00:01', '2024-01-02 00:01', 60000);
INSERT INTO old_spar.spar_runs (run_id, user_id, status, created_at, started_at, updated_at) VALUES
    ('10000000-0000-4000-8000-000000000004', :'bob', 'pending', '2024-01-02', NULL, '2024-01-02'),
    ('10000000-0000-4000-8000-000000000005', :'bob', 'processing', '2024-01-02', '2024-01-02', '2024-01-02');
SELECT * FROM run_tracker.import_table('spar', 'old_spar.spar_runs');
SELECT cardinality(run_tracker.create_compat('spar', 'regress_new')) > 0 AS made;
SELECT * FROM pg_temp.differences('spar');
-- facts make no events: no history, no notification of what has finished, no usage; but they are summed up
SELECT count(*) FROM run_tracker.transitions;
SELECT total, open, successful, failed, timed_out FROM run_tracker.user_stats(:'bob');
SELECT run_id, phase, deadline_at > now() AS ahead FROM run_tracker.open_runs ORDER BY run_id;
-- repeated: what is there stays, as it is by now
UPDATE regress_new.spar_runs SET status = 'completed' WHERE run_id = '10000000-0000-4000-8000-000000000005';
INSERT INTO old_spar.spar_runs (run_id, user_id) VALUES ('10000000-0000-4000-8000-000000000006', :'bob');
SELECT * FROM run_tracker.import_table('spar', 'old_spar.spar_runs');
SELECT status FROM regress_new.spar_runs WHERE run_id = '10000000-0000-4000-8000-000000000005';
-- what has long been open has its time from now on, and then times out like any other
SELECT run_tracker.expire_runs() AS expired;
SELECT run_tracker.expire_runs(now => now() + interval '2 minutes') AS expired;
SELECT run_id, status FROM regress_new.spar_runs WHERE created_at < '2025-01-01' ORDER BY run_id;

-- iFlow: a job and what belongs to it; the order of the log entries is that of their time
INSERT INTO old_iflow.iflow_jobs VALUES
    ('20000000-0000-4000-8000-000000000001', :'alice', 'completed', 100, 'completed', 'mulesoft', 'p1', 'a.xml', 4711, 'https://x/a.xml', '# Doc', '<h1>Doc</h1>',
     'Flow', 'A flow', 'rag', 'https://x/a.zip', 'https://x/a.xml', 2, '[{"a": 1}]', 1, '["doc1"]', '2024-02-01', '2024-02-01 00:00:01', '2024-02-01 00:01:01.500', 60.5,
     'a warning', 'at x', '{"k": "v"}'),
    ('20000000-0000-4000-8000-000000000002', :'bob', 'documentation_ready', 40, 'analyze', NULL, NULL, NULL, NULL, NULL, NULL, NULL,
     NULL, NULL, NULL, NULL, NULL, 0, NULL, 0, NULL, '2024-02-01', '2024-02-01 00:00:01', NULL, NULL, NULL, NULL, '{}'),
    ('20000000-0000-4000-8000-000000000003', :'bob', 'failed', 0, 'parse', NULL, NULL, NULL, NULL, NULL, NULL, NULL,
     NULL, NULL, NULL, NULL, NULL, 0, NULL, 0, NULL, '2024-02-01', NULL, '2024-02-01 00:00:01', 1, 'no', 'at y', '{}');
INSERT INTO old_iflow.iflow_components VALUES
    ('2c000000-0000-4000-8000-000000000001', '20000000-0000-4000-8000-000000000001', :'alice', 'HTTPS', 'In', 1, 'rag', 0.91, 'd1', 'Doc', 'xml', '{"path": "/"}', '<a/>', '2024-02-01'),
    ('2c000000-0000-4000-8000-000000000002', '20000000-0000-4000-8000-000000000001', :'alice', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, '2024-02-01');
INSERT INTO old_iflow.rag_retrievals VALUES
    ('2d000000-0000-4000-8000-000000000001', '20000000-0000-4000-8000-000000000001', :'alice', 'vector_search', 'https', 'for x', 2, '[{"id": 1}, {"id": 2}]', 'docs', 'HTTPS', 12, '2024-02-01');
INSERT INTO old_iflow.iflow_generation_logs VALUES
    ('2e000000-0000-4000-8000-000000000002', '20000000-0000-4000-8000-000000000001', :'alice', 'ERROR', 'second', 'c', 's', '{"n": 2}', '2024-02-01 00:00:02'),
    ('2e000000-0000-4000-8000-000000000001', '20000000-0000-4000-8000-000000000001', :'alice', 'INFO', 'first', NULL, NULL, NULL, '2024-02-01 00:00:01');
-- jobs first: what belongs to none is refused
SELECT t.name, i.* FROM unnest('{iflow_components,iflow_generation_logs}'::text[]) t (name), run_tracker.import_table('iflow', ('old_iflow.' || t.name)::regclass) i;
PREPARE import_all (text) AS
SELECT r.relation, i.* FROM (SELECT * FROM run_tracker.compat_relations($1) WITH ORDINALITY ORDER BY base <> 'runs', ordinality) r, run_tracker.import_table($1, ('old_' || $1 || '.' || r.relation)::regclass) i;
EXECUTE import_all('iflow');
EXECUTE import_all('iflow');
SELECT cardinality(run_tracker.create_compat('iflow', 'regress_new')) > 0 AS made;
SELECT * FROM pg_temp.differences('iflow');
SELECT seq, message FROM run_tracker.logs ORDER BY seq;

-- chat runs: messages are kept as they were written; totals come from the tasks, whatever the old ones said
ALTER TABLE old_ai_runs.ai_runs DISABLE TRIGGER USER;
ALTER TABLE old_ai_runs.ai_tasks DISABLE TRIGGER USER;
INSERT INTO old_ai_runs.ai_runs VALUES
    ('30000000-0000-4000-8000-000000000001', :'alice', 'Chat', '[{"role": "user", "content": "Hi", "timestamp": "2024-03-01T10:00:00.000Z", "taskId": "3a000000-0000-4000-8000-000000000001"},
      {"role": "assistant", "content": "Hello 日本語", "timestamp": "2024-03-01T10:00:05.000Z", "extra": [1], "metadata": {"tokens": 30, "cost": 0.001, "timeToFirstToken": 350, "totalTime": 4000}},
      {"role": "tool", "content": [{"type": "text"}], "timestamp": "2024-03-01T10:00:06+00:00"}]',
     '{"t": 0.1}', '{"v": 1}', 3, 1, 30, 0.001, '2024-03-01 10:00:06', '2024-03-01', '2024-03-01 10:00:06'),
    ('30000000-0000-4000-8000-000000000002', :'bob', NULL, '[]', '{}', '{}', 0, 7, 4711, 1.5, NULL, '2024-03-02', '2024-03-02');
INSERT INTO old_ai_runs.ai_tasks VALUES
    ('3a000000-0000-4000-8000-000000000001', '30000000-0000-4000-8000-000000000001', :'alice', 'openai', 'chat', 'm1', 'completed', '{"q": 1}', 'Hello 日本語', 10, 20, 30, 0.001, 350, 4000,
     NULL, '2024-03-01 10:00:01', '2024-03-01 10:00:05', '2024-03-01 10:00:05'),
    ('3a000000-0000-4000-8000-000000000002', '30000000-0000-4000-8000-000000000001', :'alice', NULL, NULL, NULL, 'failed', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
     'no', '2024-03-01 10:00:01', '2024-03-01 10:00:04', '2024-03-01 10:00:04'),
    ('3a000000-0000-4000-8000-000000000003', '30000000-0000-4000-8000-000000000001', :'alice', NULL, NULL, NULL, 'streaming', NULL, 'Hel', NULL, NULL, NULL, NULL, 10, NULL,
     NULL, '2024-03-01 10:00:01', '2024-03-01 10:00:04', NULL);
EXECUTE import_all('ai_runs');
EXECUTE import_all('ai_runs');
SELECT cardinality(run_tracker.create_compat('ai_runs', 'regress_new')) > 0 AS made;
SELECT * FROM pg_temp.differences('ai_runs');
SELECT count(*) FROM run_tracker.usage_records;

-- workflow executions
INSERT INTO old_workflow.workflow_executions VALUES
    ('40000000-0000-4000-8000-000000000001', 'wf', :'alice', 'completed', 'local-run', true, true, 'hd', 's-1', '{"i": 1}', '[{"step_id": "a", "content": "x"}]', 'a warning', '["l"]', 1.234,
     3, 0.500, '2024-04-01', '2024-04-01 00:00:02', '2024-04-02', '{"m": 1}'),
    ('40000000-0000-4000-8000-000000000002', 'wf', :'bob', 'cancelled', 'cloud-run', false, false, NULL, NULL, '{}', NULL, NULL, NULL, NULL,
     0, NULL, '2024-04-01', '2024-04-01 00:00:02', '2024-04-02', NULL),
    ('40000000-0000-4000-8000-000000000003', 'wf', :'bob', 'running', 'cloud-run', false, false, NULL, NULL, '{}', NULL, NULL, NULL, NULL,
     0, NULL, '2024-04-01', NULL, '2024-04-02', NULL);
EXECUTE import_all('workflow');
EXECUTE import_all('workflow');
SELECT cardinality(run_tracker.create_compat('workflow', 'regress_new')) > 0 AS made;
SELECT * FROM pg_temp.differences('workflow');

-- SPARK: sessions of old are not active by being copied, nor by what was appended to them; usage counts for its own day
INSERT INTO old_spark.spark_user_profiles VALUES (:'alice', 'free', '{spark:read}', '{"monthlyTokens": 5000, "dailyRequests": 7, "concurrentSessions": 1}', '2024-01-01', '2024-01-02');
ALTER TABLE old_spark.spark_sessions DISABLE TRIGGER USER;
INSERT INTO old_spark.spark_sessions VALUES
    ('60000000-0000-4000-8000-000000000001', :'alice', 'free', '2024-01-01', '2024-01-02'),
    ('60000000-0000-4000-8000-000000000002', :'alice', 'pro', '2024-01-01', '2024-01-03');
INSERT INTO old_spark.spark_deltas VALUES
    ('60000000-0000-4000-8000-000000000002', :'alice', 2, '{"a": 2}', '2024-01-01 02:00'),
    ('60000000-0000-4000-8000-000000000001', :'alice', 1, '{"b": 1}', '2024-01-01 01:00'),
    ('60000000-0000-4000-8000-000000000002', :'alice', 1, '{"a": 1, "c": 1}', '2024-01-01 01:00');
INSERT INTO old_spark.spark_token_usage VALUES ('61000000-0000-4000-8000-000000000001', :'alice', 100, '2024-01-01');
INSERT INTO old_spark.spark_requests VALUES ('62000000-0000-4000-8000-000000000001', '60000000-0000-4000-8000-000000000001', :'alice', 'function:x', '{"m": 1}', '2024-01-01');
INSERT INTO old_spark.spark_build_jobs VALUES
    ('63000000-0000-4000-8000-000000000001', '60000000-0000-4000-8000-000000000001', :'alice', 'completed', 5, 'w1', '{"i": 1}', '{"r": 1}', NULL, 1, 3,
     '2024-01-01', '2024-01-01 01:00', '2024-01-01 02:00', '2024-01-02'),
    ('63000000-0000-4000-8000-000000000002', NULL, :'alice', 'queued', 0, NULL, '{}', NULL, NULL, 0, 3, '2024-01-01', NULL, NULL, '2024-01-02');
INSERT INTO old_spark.spark_generated_scripts VALUES
    ('64000000-0000-4000-8000-000000000001', '60000000-0000-4000-8000-000000000001', NULL, :'alice', 'n', 't', 'x = 1', '{"c": 1}', 'text/x', 'https://x', 5, '{"m": 1}', '2024-01-01', '2024-01-02'),
    ('64000000-0000-4000-8000-000000000002', '60000000-0000-4000-8000-000000000001', '63000000-0000-4000-8000-000000000001', :'alice', 'n', NULL, NULL, NULL, NULL, NULL, NULL, NULL,
     '2024-01-01', '2024-01-02');
INSERT INTO old_spark.spark_files SELECT gen_random_uuid(), session_id, NULL, user_id FROM old_spark.spark_generated_scripts;
EXECUTE import_all('spark');
EXECUTE import_all('spark');
SELECT cardinality(run_tracker.create_compat('spark', 'regress_new')) > 0 AS made;
SELECT * FROM pg_temp.differences('spark');
SELECT session_id, run_tracker.session_state(session_id) AS state FROM run_tracker.sessions ORDER BY session_id;
SELECT count(*) AS active FROM run_tracker.active_sessions;
SELECT quota, used, "limit" FROM run_tracker.quotas(:'alice');
SELECT status, kind, count(*) FROM run_tracker.runs WHERE lifecycle = 'session' GROUP BY 1, 2;
SELECT * FROM run_tracker.check_totals();

--
-- What is refused, and why; the rest is copied
--
CREATE SCHEMA regress_odd;
GRANT USAGE ON SCHEMA regress_odd TO PUBLIC;
CREATE DOMAIN regress_odd.id AS text;
CREATE TYPE regress_odd.status AS ENUM ('pending', 'completed', 'done');
-- other types, columns missing, columns that no view has
CREATE TABLE regress_odd.spar_runs (gone integer, run_id regress_odd.id, user_id varchar(36), status regress_odd.status, inputs json, settings text, quality_score double precision,
    competencies text[], processing_duration_ms numeric, created_at timestamp, completed_at date, "select" text, note text);
ALTER TABLE regress_odd.spar_runs DROP COLUMN gone;
INSERT INTO regress_odd.spar_runs VALUES
    ('50000000-0000-4000-8000-000000000001', 'user|1', 'completed', '{"a":  1}', '{"b": 2}', 0.5, '{x,y}', 12, '2024-05-01', '2024-05-02', 'x', 'x'),
    ('50000000-0000-4000-8000-000000000002', NULL, 'pending', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
    ('no uuid', 'user|1', 'completed', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
    (NULL, 'user|1', 'completed', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
    ('50000000-0000-4000-8000-000000000003', 'user|1', 'done', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
    ('50000000-0000-4000-8000-000000000004', 'user|1', 'completed', NULL, 'no JSON', NULL, NULL, NULL, NULL, NULL, NULL, NULL),
    ('50000000-0000-4000-8000-000000000005', 'user|1', 'completed', NULL, '[1]', NULL, NULL, NULL, NULL, NULL, NULL, NULL),
    ('50000000-0000-4000-8000-000000000006', repeat('x', 36), 'completed', NULL, NULL, NULL, NULL, -1, NULL, NULL, NULL, NULL),
    ('50000000-0000-4000-8000-000000000007', 'user|1', 'completed', NULL, NULL, NULL, NULL, NULL, 'infinity', NULL, NULL, NULL),
    -- somebody else's, another application's
    ('10000000-0000-4000-8000-000000000001', 'user|1', 'completed', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
    ('20000000-0000-4000-8000-000000000001', 'a0000000-0000-4000-8000-000000000001', 'completed', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
    ('50000000-0000-4000-8000-000000000008', 'user|1', 'completed', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
SELECT i.copied, i.present, i.refused, i.ignored_columns, r.value ->> 'sqlstate' AS sqlstate, r.value -> 'key' ->> 'run_id' AS run_id, r.value ->> 'message' AS message,
    r.value ->> 'detail' AS detail
FROM run_tracker.import_table('spar', 'regress_odd.spar_runs') i, jsonb_array_elements(i.refusals) WITH ORDINALITY r (value, n) ORDER BY r.n;
SELECT run_id, user_id, status, kind, inputs, settings, result, duration_ms, created_at = '2024-05-01' AS created, finished_at = '2024-05-02' AS finished
FROM run_tracker.runs WHERE run_id::text LIKE '50000000%' ORDER BY run_id;

-- children of somebody else's run, of none, of another application's
CREATE TABLE regress_odd.ai_tasks (task_id uuid, run_id uuid, user_id uuid, status text, cost numeric, tokens_total bigint, tokens_input bigint);
INSERT INTO regress_odd.ai_tasks VALUES
    ('3b000000-0000-4000-8000-000000000001', '30000000-0000-4000-8000-000000000001', NULL, 'completed', 0.5, 3, 3),
    ('3b000000-0000-4000-8000-000000000002', '30000000-0000-4000-8000-000000000001', :'bob', 'completed', NULL, NULL, NULL),
    ('3b000000-0000-4000-8000-000000000003', '30000000-0000-4000-8000-000000000009', :'bob', 'completed', NULL, NULL, NULL),
    ('3b000000-0000-4000-8000-000000000004', '10000000-0000-4000-8000-000000000002', :'bob', 'completed', NULL, NULL, NULL),
    ('3b000000-0000-4000-8000-000000000005', NULL, :'bob', 'completed', NULL, NULL, NULL),
    ('3b000000-0000-4000-8000-000000000006', '30000000-0000-4000-8000-000000000002', :'bob', 'paused', NULL, NULL, NULL),
    ('3b000000-0000-4000-8000-000000000007', '30000000-0000-4000-8000-000000000002', :'bob', 'completed', 'NaN', NULL, NULL),
    ('3b000000-0000-4000-8000-000000000008', '30000000-0000-4000-8000-000000000002', :'bob', 'completed', NULL, NULL, -1),
    -- is there, in another run
    ('3a000000-0000-4000-8000-000000000001', '30000000-0000-4000-8000-000000000002', :'bob', 'completed', NULL, NULL, NULL);
SELECT i.copied, i.present, i.refused, r.value ->> 'sqlstate' AS sqlstate, r.value -> 'key' ->> 'task_id' AS task_id, r.value ->> 'message' AS message,
    r.value ->> 'detail' AS detail
FROM run_tracker.import_table('ai_runs', 'regress_odd.ai_tasks') i, jsonb_array_elements(i.refusals) WITH ORDINALITY r (value, n) ORDER BY r.n;
SELECT user_id, task_count, total_tokens, total_cost FROM run_tracker.run_totals WHERE run_id = '30000000-0000-4000-8000-000000000001';

-- messages that are none take their run with them
CREATE TABLE regress_odd.chats (id uuid, user_id uuid, messages jsonb);
INSERT INTO regress_odd.chats VALUES
    ('31000000-0000-4000-8000-000000000001', :'bob', '[{"role": "user", "content": "Named after this"}]'),
    ('31000000-0000-4000-8000-000000000002', :'bob', '[{"content": "whose?"}]'),
    ('31000000-0000-4000-8000-000000000003', :'bob', '{"role": "user"}'),
    ('31000000-0000-4000-8000-000000000004', :'bob', NULL);
SELECT * FROM run_tracker.import_table('ai_runs', 'regress_odd.chats', 'ai_runs');
SELECT id, name, messages FROM regress_new.ai_runs WHERE id::text LIKE '31%' ORDER BY id;

-- too many to tell all
CREATE TABLE regress_odd.many AS
SELECT gen_random_uuid() AS run_id, CASE WHEN i % 10 = 0 THEN 'completed' ELSE 'none' END AS status FROM generate_series(1, 1200) i;
SELECT copied, present, refused, jsonb_array_length(refusals) AS told FROM run_tracker.import_table('spar', 'regress_odd.many', 'spar_runs');
SELECT copied, present, refused, jsonb_array_length(refusals) AS told FROM run_tracker.import_table('spar', 'regress_odd.many', 'spar_runs');
-- all or nothing, if the transaction says so
DELETE FROM run_tracker.runs WHERE lifecycle = 'spar';
BEGIN;
SELECT copied, refused FROM run_tracker.import_table('spar', 'regress_odd.many', 'spar_runs');
ROLLBACK;
SELECT count(*) FROM run_tracker.runs WHERE lifecycle = 'spar';

-- what can be read can be copied: partitions, views, a view of some rows only, which are in order of no key, twice there
CREATE TABLE regress_odd.parts (LIKE old_spar.spar_runs) PARTITION BY LIST (status);
CREATE TABLE regress_odd.parts_1 PARTITION OF regress_odd.parts FOR VALUES IN ('completed');
CREATE TABLE regress_odd.parts_2 PARTITION OF regress_odd.parts DEFAULT;
INSERT INTO regress_odd.parts SELECT * FROM old_spar.spar_runs;
CREATE VIEW regress_odd.finished AS SELECT * FROM old_spar.spar_runs WHERE completed_at IS NOT NULL UNION ALL SELECT * FROM old_spar.spar_runs WHERE status = 'failed';
CREATE MATERIALIZED VIEW regress_odd.open AS SELECT * FROM old_spar.spar_runs WHERE completed_at IS NULL;
SELECT copied, present, refused FROM run_tracker.import_table('spar', 'regress_odd.finished', 'spar_runs');
SELECT copied, present, refused FROM run_tracker.import_table('spar', 'regress_odd.open', 'spar_runs');
SELECT copied, present, refused FROM run_tracker.import_table('spar', 'regress_odd.parts', 'spar_runs');
DELETE FROM run_tracker.runs WHERE lifecycle = 'spar';
SELECT copied, present, refused FROM run_tracker.import_table('spar', 'regress_odd.parts', 'spar_runs');
DROP TABLE regress_odd.parts;

--
-- Services only, and they see of the source what its owner lets them
--
DELETE FROM run_tracker.runs WHERE lifecycle = 'spar';
:as_alice
CALL pg_temp.run($$SELECT run_tracker.import_table('spar', 'old_spar.spar_runs')$$);
:as_service
CALL pg_temp.run($$SELECT run_tracker.import_table('spar', 'regress_odd.many', 'spar_runs')$$);
SELECT copied, present, refused FROM run_tracker.import_table('spar', 'old_spar.spar_runs');
SELECT copied, present, refused FROM run_tracker.import_table('iflow', 'old_iflow.iflow_generation_logs');
RESET ROLE;
DELETE FROM run_tracker.runs WHERE lifecycle = 'spar';
DROP POLICY "Service role manages all runs" ON old_spar.spar_runs;
CREATE POLICY completed ON old_spar.spar_runs TO regress_life_service USING (status = 'completed');
:as_service
SELECT copied, present, refused FROM run_tracker.import_table('spar', 'old_spar.spar_runs');
RESET ROLE;
-- functions of the source run as the one who copies, and their errors are not those of a row
CREATE VIEW regress_odd.broken AS SELECT run_id, user_id, (1 / (CASE status WHEN 'failed' THEN 0 ELSE 1 END))::text AS goal FROM old_spar.spar_runs;
CALL pg_temp.run($$SELECT run_tracker.import_table('spar', 'regress_odd.broken', 'spar_runs')$$);
BEGIN READ ONLY;
SELECT * FROM run_tracker.import_table('spar', 'old_spar.spar_runs');
ROLLBACK;

-- bad arguments
CALL pg_temp.run($$SELECT run_tracker.import_table('other', 'old_spar.spar_runs')$$);
CALL pg_temp.run($$SELECT run_tracker.import_table(NULL, 'old_spar.spar_runs')$$);
CALL pg_temp.run($$SELECT run_tracker.import_table('spar', NULL)$$);
CALL pg_temp.run($$SELECT run_tracker.import_table('spar', 0)$$);
CALL pg_temp.run($$SELECT run_tracker.import_table('spar', 'old_spar.spar_runs_pkey')$$);
CALL pg_temp.run($$SELECT run_tracker.import_table('iflow', 'regress_odd.many')$$);
CALL pg_temp.run($$SELECT run_tracker.import_table('iflow', 'regress_odd.many', 'iflow_jobs_summary')$$);
CALL pg_temp.run($$SELECT run_tracker.import_table('ai_runs', 'regress_odd.many', 'ai_runs')$$);

\set ECHO none
CALL pg_temp.forget();
SELECT count(run_tracker.drop_compat(a, 'regress_new')) AS dropped FROM unnest('{spar,iflow,ai_runs,spark,workflow}'::text[]) a \gset
DROP SCHEMA regress_new, regress_odd, old_spar, old_iflow, old_ai_runs, old_spark, old_workflow, auth CASCADE;
DROP OWNED BY regress_life_user, regress_life_service;
DROP ROLE regress_life_user, regress_life_service;
