--
-- What the view of workflow executions adds to its life on a table (workflow_views.sql): functions, computed columns, what
-- is refused, and rows that everybody may read.
--
\getenv abs_srcdir PG_ABS_SRCDIR
\set common :abs_srcdir '/sql/common.psql'
\i :common
CALL pg_temp.forget();

CREATE SCHEMA regress_workflow;
GRANT USAGE ON SCHEMA regress_workflow TO PUBLIC;
CREATE ROLE regress_workflow_client;
CREATE ROLE regress_workflow_reader;
CREATE ROLE regress_workflow_service;
CREATE ROLE regress_workflow_stranger;
SELECT run_tracker.grant_client('regress_workflow_client');
SELECT run_tracker.grant_reader('regress_workflow_reader');
SELECT run_tracker.grant_service('regress_workflow_service');
SELECT unnest(run_tracker.create_compat('workflow', 'regress_workflow'));
SET search_path = regress_workflow;
\set alice 'a0000000-0000-4000-8000-00000000000a'
\set bob 'b0000000-0000-4000-8000-00000000000b'
\set as_alice 'SET ROLE regress_workflow_client; SET request.jwt.claims = ''{"sub": "a0000000-0000-4000-8000-00000000000a"}'';'
\set as_reader 'SET ROLE regress_workflow_reader; SET request.jwt.claims = ''{"sub": "a0000000-0000-4000-8000-00000000000a"}'';'
\set as_service 'SET ROLE regress_workflow_service; RESET request.jwt.claims;'
\set x1 '''10000000-0000-4000-8000-000000000001'''
\set x2 '''10000000-0000-4000-8000-000000000002'''
\set x3 '''10000000-0000-4000-8000-000000000003'''

-- every column is there, with its type, and says what it is
SELECT a.attname, format_type(a.atttypid, a.atttypmod) AS type, col_description(a.attrelid, a.attnum) AS description
FROM pg_attribute a WHERE a.attrelid = 'workflow_executions'::regclass ORDER BY a.attnum;

-- where the columns are that runs have not
:as_alice
INSERT INTO workflow_executions (execution_id, workflow_id, mode, visual_enabled, visual_streaming_enabled, visual_quality, logs, visual_events_captured, visual_stream_duration)
VALUES (:x1, 'wf', 'local-run', true, false, 'high', '["l"]', 3, 1.5) RETURNING status, inputs;
SELECT settings, metrics, inputs FROM run_tracker.runs WHERE run_id = :x1;
UPDATE workflow_executions SET visual_quality = NULL, logs = NULL WHERE execution_id = :x1;
SELECT settings, metrics, metadata FROM run_tracker.runs WHERE run_id = :x1;
-- defaults
INSERT INTO workflow_executions (execution_id, workflow_id) VALUES (:x2, 'wf')
RETURNING user_id, status, mode, visual_enabled, visual_streaming_enabled, visual_quality, inputs, result, logs, visual_events_captured, visual_stream_duration, metadata;
SELECT settings, metrics FROM run_tracker.runs WHERE run_id = :x2;
-- the largest values; what others write there and is none is shown as none
UPDATE workflow_executions SET visual_events_captured = 2147483647, visual_stream_duration = 9999999.9994 WHERE execution_id = :x2
RETURNING visual_events_captured, visual_stream_duration;
CALL pg_temp.try($$UPDATE workflow_executions SET visual_events_captured = 2147483648$$);
CALL pg_temp.try($$UPDATE workflow_executions SET visual_stream_duration = 9999999.9995$$);
INSERT INTO workflow_executions (workflow_id, session_id) SELECT 'others', n FROM generate_series(1, 4) n;
UPDATE run_tracker.runs r SET settings = '{"mode": 1, "visual_enabled": "yes", "visual_streaming_enabled": "true"}', metrics = m.metrics
FROM (VALUES ('1', '{"visual_events_captured": 2147483648, "visual_stream_duration": 9999999.9995}'::jsonb),
             ('2', '{"visual_events_captured": "12", "visual_stream_duration": "x"}'),
             ('3', '{"visual_events_captured": [1], "visual_stream_duration": -0.5, "logs": null}'),
             ('4', '{"visual_events_captured": 1e40, "visual_stream_duration": 1e-40}')) AS m (id, metrics)
WHERE r.session_id = m.id;
SELECT session_id, mode, visual_enabled, visual_streaming_enabled, visual_events_captured, visual_stream_duration, logs
FROM workflow_executions WHERE workflow_id = 'others' ORDER BY session_id;
UPDATE workflow_executions SET visual_stream_duration = 2, visual_enabled = true WHERE session_id = '2'
RETURNING visual_stream_duration, visual_enabled, visual_events_captured;
SELECT settings, metrics FROM run_tracker.runs WHERE session_id = '2';

-- what the database computes is not to be assigned by clients, and by services only when they insert
INSERT INTO workflow_executions (execution_id, workflow_id, status, result, error, created_at, completed_at, updated_at, execution_time_seconds)
VALUES (:x3, 'wf-finished', 'failed', '[{"step_id": "s1", "content": null}]', 'step 2', '2001-01-01', '2001-01-01', '2001-01-01', 7)
RETURNING status, result, error, created_at > '2026-01-01' AS created, completed_at >= created_at AS completed, updated_at > '2026-01-01' AS updated,
    execution_time_seconds < 7 AS measured;
SELECT from_status, to_status FROM run_tracker.transitions WHERE run_id = :x3 ORDER BY seq;
UPDATE workflow_executions SET error = 'step 2: timeout', result = '[]', execution_time_seconds = 7, completed_at = '2001-01-01' WHERE execution_id = :x3
RETURNING status, error, result, execution_time_seconds < 7 AS measured, completed_at >= created_at AS completed;
CALL pg_temp.try($$UPDATE workflow_executions SET status = 'cancelled' WHERE execution_id = '10000000-0000-4000-8000-000000000003'$$);
-- another attempt begins without the outcome of the first
UPDATE workflow_executions SET status = 'running' WHERE execution_id = :x3 RETURNING status, error, result, completed_at, execution_time_seconds;
UPDATE workflow_executions SET status = 'cancelled' WHERE execution_id = :x3 RETURNING status, completed_at IS NOT NULL AS completed, execution_time_seconds >= 0 AS measured;
:as_service
-- seconds have milliseconds, exactly; a view can be read whatever there is below it
INSERT INTO workflow_executions (workflow_id, user_id, status, created_at, completed_at, execution_time_seconds) VALUES
    ('wf-times', :'alice', 'completed', '2001-01-01 00:00:00', '2001-01-01 00:00:01.2344', NULL),
    ('wf-times', :'alice', 'completed', '2001-01-01 00:00:01', '2001-01-01 00:00:02', 0.001),
    ('wf-times', :'alice', 'failed', '2001-01-01 00:00:02', NULL, 9999999.999),
    ('wf-times', :'alice', 'completed', '2001-01-01 00:00:03', '2011-01-01', NULL);
SELECT status, execution_time_seconds, completed_at IS NOT NULL AS completed FROM workflow_executions WHERE workflow_id = 'wf-times' ORDER BY created_at;
SELECT duration_ms FROM run_tracker.runs WHERE workflow_id = 'wf-times' ORDER BY created_at;
INSERT INTO workflow_executions (execution_id, workflow_id, user_id, created_at) VALUES ('10000000-0000-4000-8000-000000000004', 'wf-times', :'alice', now() - interval '1 hour');
UPDATE workflow_executions SET status = 'completed' WHERE execution_id = '10000000-0000-4000-8000-000000000004'
RETURNING execution_time_seconds BETWEEN 3600 AND 4000 AS since_created;
UPDATE workflow_executions SET completed_at = '2001-01-01', execution_time_seconds = 1 WHERE execution_id = '10000000-0000-4000-8000-000000000004'
RETURNING execution_time_seconds > 3599 AS measured;
CALL pg_temp.try($$INSERT INTO workflow_executions (workflow_id, user_id, status, execution_time_seconds) VALUES ('wf', 'a0000000-0000-4000-8000-00000000000a', 'completed', -1)$$);
CALL pg_temp.try($$INSERT INTO workflow_executions (workflow_id, user_id, status, execution_time_seconds) VALUES ('wf', 'a0000000-0000-4000-8000-00000000000a', 'completed', 1e7)$$);

-- what is refused
:as_alice
CALL pg_temp.try($$INSERT INTO workflow_executions (mode) VALUES ('cloud-run')$$);
CALL pg_temp.try($$UPDATE workflow_executions SET workflow_id = NULL$$);
CALL pg_temp.try($$INSERT INTO workflow_executions (workflow_id, session_id) VALUES ('wf', repeat('x', 256))$$);
CALL pg_temp.try($$UPDATE workflow_executions SET session_id = repeat(U&'\65E5', 256) WHERE execution_id = '10000000-0000-4000-8000-000000000001'$$);
UPDATE workflow_executions SET session_id = repeat(U&'\65E5', 255) WHERE execution_id = :x1 RETURNING length(session_id), octet_length(session_id);
CALL pg_temp.try($$INSERT INTO workflow_executions (execution_id, workflow_id) VALUES ('10000000-0000-4000-8000-000000000001', 'wf')$$);
CALL pg_temp.try($$INSERT INTO workflow_executions (workflow_id, status) VALUES ('wf', 'done')$$);
CALL pg_temp.try($$UPDATE workflow_executions SET status = NULL$$);
CALL pg_temp.try($$UPDATE workflow_executions SET execution_id = gen_random_uuid()$$);
CALL pg_temp.try($$UPDATE workflow_executions SET user_id = NULL$$);
CALL pg_temp.try($$INSERT INTO workflow_executions (workflow_id, metadata) VALUES ('wf', '[]')$$);
CALL pg_temp.try($$INSERT INTO workflow_executions (workflow_id, inputs) VALUES ('wf', '{"a": "\u0000"}')$$);
-- sizes: of every column, also if several of them are in one of the table
RESET ROLE;
SET run_tracker.max_payload = '64kB';
:as_alice
CALL pg_temp.try($$INSERT INTO workflow_executions (workflow_id, inputs) VALUES ('wf', to_jsonb(repeat('x', 65537)))$$);
CALL pg_temp.try($$UPDATE workflow_executions SET result = to_jsonb(repeat('x', 65537)) WHERE execution_id = '10000000-0000-4000-8000-000000000001'$$);
CALL pg_temp.try($$UPDATE workflow_executions SET logs = to_jsonb(repeat('x', 65537)) WHERE execution_id = '10000000-0000-4000-8000-000000000001'$$);
CALL pg_temp.try($$UPDATE workflow_executions SET error = repeat('x', 65537) WHERE execution_id = '10000000-0000-4000-8000-000000000001'$$);
CALL pg_temp.try($$UPDATE workflow_executions SET metadata = jsonb_build_object('x', repeat('x', 65537)) WHERE execution_id = '10000000-0000-4000-8000-000000000001'$$);
CALL pg_temp.try($$UPDATE workflow_executions SET visual_quality = repeat('x', 65537) WHERE execution_id = '10000000-0000-4000-8000-000000000001'$$);
CALL pg_temp.try($$UPDATE workflow_executions SET workflow_id = repeat('x', 65537) WHERE execution_id = '10000000-0000-4000-8000-000000000001'$$);
UPDATE workflow_executions SET result = to_jsonb(repeat('x', 65000)), logs = to_jsonb(repeat('x', 65000)) WHERE execution_id = :x1
RETURNING length(result::text), length(logs::text);
RESET ROLE;
RESET run_tracker.max_payload;
:as_reader
SELECT count(*) FROM workflow_executions;
CALL pg_temp.try($$INSERT INTO workflow_executions (workflow_id) VALUES ('x')$$);
CALL pg_temp.try($$UPDATE workflow_executions SET error = 'x'$$);
CALL pg_temp.try($$DELETE FROM workflow_executions$$);
SET ROLE regress_workflow_stranger;
CALL pg_temp.try($$SELECT FROM workflow_executions$$);
CALL pg_temp.try($$INSERT INTO workflow_executions (workflow_id) VALUES ('x')$$);
CALL pg_temp.try($$SELECT FROM workflow_history()$$);
CALL pg_temp.try($$SELECT FROM active_workflow_executions()$$);
CALL pg_temp.try($$SELECT cleanup_workflow_executions()$$);

--
-- Functions
--
RESET ROLE;
DELETE FROM run_tracker.runs;
:as_service
INSERT INTO workflow_executions (execution_id, workflow_id, user_id, status, mode, visual_streaming_enabled, session_id, created_at, execution_time_seconds)
SELECT ('20000000-0000-4000-8000-0000000000' || n)::uuid, CASE WHEN n % 3 = 0 THEN $$wf '); DROP TABLE x; --$$ ELSE 'wf' END, CASE WHEN n < 90 THEN :'alice' ELSE :'bob' END::uuid,
    (ARRAY['completed', 'completed', 'failed', 'running', 'cancelled'])[n % 5 + 1], (ARRAY['cloud-run', 'local-run'])[n % 2 + 1], n % 4 = 0,
    CASE WHEN n % 7 > 0 THEN 'session-' || n % 7 END, now() - interval '1 minute' * (100 - n / 2), n / 1000.0
FROM generate_series(10, 99) n;
-- runs of other kinds are none
SELECT run_tracker.create_run(workflow_id => 'wf', user_id => :'alice') IS NOT NULL AS made;
:as_alice
SELECT right(execution_id::text, 2) AS n, workflow_id, status, visual_streaming_enabled, count(*) OVER () FROM workflow_history(page_size => 5);
SELECT right(execution_id::text, 2) AS n FROM workflow_history(page_size => 5, page => 2);
SELECT right(execution_id::text, 2) AS n FROM workflow_history(page_size => 5, before => '20000000-0000-4000-8000-000000000085');
SELECT count(*), min(right(execution_id::text, 2)), max(right(execution_id::text, 2)) FROM workflow_history();
SELECT count(*) FROM workflow_history(page => 2);
SELECT count(*) FROM workflow_history(page => 3);
SELECT count(*) FROM workflow_history(page => 2147483647, page_size => 1000);
SELECT count(*), array_agg(DISTINCT workflow_id) AS workflows FROM workflow_history($$wf '); DROP TABLE x; --$$);
SELECT count(*), array_agg(DISTINCT status) AS statuses, array_agg(DISTINCT visual_streaming_enabled) AS visual FROM workflow_history('wf', 'completed', true);
SELECT count(*) FROM workflow_history(NULL, NULL, NULL, page_size => 1000);
SELECT count(*) FROM workflow_history(workflow_id => $$' OR true --$$);
SELECT count(*) FROM workflow_history(status => 'no such status');
-- page by page, all of them once
WITH RECURSIVE pages AS (
    SELECT array_agg(h.execution_id) AS ids FROM workflow_history(page_size => 7) h
    UNION ALL
    SELECT (SELECT array_agg(h.execution_id) FROM workflow_history(page_size => 7, before => p.ids[cardinality(p.ids)]) h) FROM pages p WHERE p.ids IS NOT NULL)
SELECT count(*), count(DISTINCT id) FROM pages, unnest(ids) id;
CALL pg_temp.try($$SELECT workflow_history(page => 0)$$);
CALL pg_temp.try($$SELECT workflow_history(page => NULL)$$);
CALL pg_temp.try($$SELECT workflow_history(page_size => 0)$$);
CALL pg_temp.try($$SELECT workflow_history(page_size => 1001)$$);
CALL pg_temp.try($$SELECT workflow_history(before => '20000000-0000-4000-8000-000000000099')$$);
SELECT * FROM workflow_execution_stats();
SELECT * FROM workflow_execution_stats('wf');
SELECT * FROM workflow_execution_stats('no such workflow');
SELECT count(*) FILTER (WHERE status = 'completed'), round(avg(execution_time_seconds) FILTER (WHERE status = 'completed'), 3) FROM workflow_executions WHERE workflow_id = 'wf';
SELECT count(*), array_agg(DISTINCT status) AS statuses, array_agg(DISTINCT user_id) = ARRAY[:'alice'::uuid] AS own, min(right(execution_id::text, 2)) FROM active_workflow_executions();
SELECT session_id, user_id = :'alice' AS own, executions, running, right(execution_id::text, 2) AS n, workflow_id, status, mode, visual_enabled, visual_streaming_enabled, visual_quality
FROM workflow_sessions();
SELECT session_id, executions FROM workflow_sessions('58 minutes 30 seconds');
-- as REST requests do
SELECT h.execution_id FROM workflow_history(workflow_id => 'wf', page => 1, page_size => 2) h WHERE h.mode = 'local-run';
:as_service
SELECT count(*), count(DISTINCT user_id) FROM workflow_history(page_size => 1000);
SELECT workflow_id, total_executions FROM workflow_execution_stats();
SELECT count(*), count(DISTINCT user_id) FROM active_workflow_executions();
SELECT session_id, user_id = :'alice' AS of_alice, executions FROM workflow_sessions() ORDER BY 1, 2;
:as_alice
SELECT cleanup_workflow_executions(), cleanup_workflow_executions(interval '55 minutes 30 seconds');
SELECT status, count(*) FROM workflow_executions WHERE created_at < now() - interval '56 minutes' GROUP BY status;
:as_service
SELECT user_id = :'alice' AS of_alice, count(*) FROM workflow_executions GROUP BY 1 ORDER BY 1;
SELECT cleanup_workflow_executions('0');
SELECT status, count(*) FROM workflow_executions GROUP BY status;

--
-- Rows of nobody
--
RESET ROLE;
DELETE FROM run_tracker.runs;
RESET request.jwt.claims;
INSERT INTO workflow_executions (execution_id, workflow_id) VALUES (:x1, 'of nobody');
INSERT INTO workflow_executions (execution_id, workflow_id, status) VALUES (:x2, 'of nobody', 'completed');
SELECT run_tracker.create_run(lifecycle => 'run', workflow_id => 'of nobody') IS NOT NULL AS of_another_lifecycle;
INSERT INTO run_tracker.tasks (run_id, name) VALUES (:x1, 'of nobody');
INSERT INTO run_tracker.messages (run_id, role, content) VALUES (:x1, 'user', 'of nobody');
INSERT INTO run_tracker.logs (run_id, level, message) VALUES (:x1, 'INFO', 'of nobody');
INSERT INTO run_tracker.artifacts (run_id, kind, content) VALUES (:x1, 'file', 'of nobody');
INSERT INTO run_tracker.retrievals (run_id, retrieval_type, query) VALUES (:x1, 'hybrid', 'of nobody');
INSERT INTO workflow_executions (execution_id, workflow_id, user_id) VALUES (:x3, 'of bob', :'bob');
CREATE FUNCTION pg_temp.visible() RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    tab text;
    n bigint;
    seen text[] := '{}';
BEGIN
    SELECT array_agg(format('%s %s', w.workflow_id, w.status) ORDER BY w.execution_id) INTO seen FROM workflow_executions w;
    FOREACH tab IN ARRAY '{runs,open_runs,tasks,messages,logs,artifacts,retrievals,transitions,run_totals,stat_deltas,response_chunks}'::text[] LOOP
        EXECUTE format('SELECT count(*) FROM run_tracker.%I WHERE user_id = ''''', tab) INTO n;
        IF n > 0 THEN
            seen := seen || tab;
        END IF;
    END LOOP;
    RETURN array_to_string(seen, ', ');
EXCEPTION WHEN insufficient_privilege THEN
    RETURN SQLERRM;
END
$$;
CREATE FUNCTION pg_temp.policies() RETURNS TABLE (tab regclass, command "char", expression text) LANGUAGE sql AS $$
    SELECT p.polrelid::regclass, p.polcmd, pg_get_expr(p.polqual, p.polrelid) FROM pg_policy p WHERE p.polname = 'public_rows' ORDER BY 1::text
$$;
:as_alice
SELECT pg_temp.visible();
RESET ROLE;
SELECT count(*) FROM run_tracker.create_compat('workflow', 'regress_workflow', public_rows => true);
SELECT * FROM pg_temp.policies();
-- who may read runs sees them, and of what belongs to them nothing
:as_alice
SELECT pg_temp.visible();
SELECT workflow_id, status FROM workflow_history();
SELECT workflow_id FROM active_workflow_executions();
SELECT workflow_id, total_executions FROM workflow_execution_stats();
SELECT workflow_id, status FROM run_tracker.list_runs(status => 'running');
CALL pg_temp.try($$SELECT run_tracker.run_details('10000000-0000-4000-8000-000000000001')$$);
:as_reader
SELECT pg_temp.visible();
SET request.jwt.claims = '';
SELECT pg_temp.visible();
SET ROLE regress_workflow_stranger;
SELECT pg_temp.visible();
:as_service
SELECT pg_temp.visible();
-- nobody but a service can write them
:as_alice
UPDATE workflow_executions SET error = 'stolen' RETURNING workflow_id;
UPDATE workflow_executions SET status = 'cancelled' WHERE execution_id = :x1 RETURNING workflow_id;
UPDATE run_tracker.runs SET error = 'stolen' RETURNING workflow_id;
SELECT FROM run_tracker.runs WHERE run_id = :x1 FOR UPDATE;
DELETE FROM workflow_executions RETURNING workflow_id;
SELECT cleanup_workflow_executions('-1 day');
CALL pg_temp.try($$INSERT INTO workflow_executions (execution_id, workflow_id) VALUES ('10000000-0000-4000-8000-000000000001', 'stolen') RETURNING user_id$$);
INSERT INTO workflow_executions (workflow_id, user_id) VALUES ('of nobody else', NULL) RETURNING user_id = :'alice' AS own;
CALL pg_temp.try($$INSERT INTO run_tracker.runs (lifecycle, user_id) VALUES ('workflow', '')$$);
CALL pg_temp.try($$SELECT run_tracker.cancel_run('10000000-0000-4000-8000-000000000001')$$);
CALL pg_temp.try($$SELECT run_tracker.complete_run('10000000-0000-4000-8000-000000000001')$$);
CALL pg_temp.try($$SELECT run_tracker.heartbeat_run('10000000-0000-4000-8000-000000000001')$$);
CALL pg_temp.try($$SELECT run_tracker.update_progress('10000000-0000-4000-8000-000000000001', 5::smallint)$$);
CALL pg_temp.try($$SELECT run_tracker.create_run('10000000-0000-4000-8000-000000000001', lifecycle => 'workflow')$$);
CALL pg_temp.try($$SELECT run_tracker.create_task('10000000-0000-4000-8000-000000000001')$$);
CALL pg_temp.try($$SELECT run_tracker.add_message('10000000-0000-4000-8000-000000000001', 'user', 'x')$$);
CALL pg_temp.try($$SELECT run_tracker.add_log('10000000-0000-4000-8000-000000000001', 'x', 'INFO')$$);
SET request.jwt.claims = '';
UPDATE workflow_executions SET error = 'stolen' RETURNING workflow_id;
DELETE FROM workflow_executions RETURNING workflow_id;
CALL pg_temp.try($$INSERT INTO workflow_executions (workflow_id) VALUES ('x')$$);
:as_service
SELECT workflow_id, status, error FROM workflow_executions WHERE user_id IS NULL ORDER BY execution_id;
UPDATE workflow_executions SET status = 'completed' WHERE execution_id = :x1 RETURNING status;
-- said again, it stays; not said, it ends; so does it with the views
RESET ROLE;
SELECT count(*) FROM run_tracker.create_compat('workflow', 'regress_workflow', public_rows => true);
SELECT count(*) FROM pg_temp.policies();
SELECT count(*) FROM run_tracker.create_compat('workflow', 'regress_workflow');
SELECT count(*) FROM pg_temp.policies();
:as_alice
SELECT pg_temp.visible();
RESET ROLE;
CREATE SCHEMA regress_workflow2;
SELECT count(*) FROM run_tracker.create_compat('workflow', 'regress_workflow', public_rows => true);
SELECT count(*) FROM run_tracker.create_compat('workflow', 'regress_workflow2', public_rows => true);
SELECT count(*) FROM run_tracker.create_compat('spar', 'regress_workflow2');
SELECT cardinality(run_tracker.drop_compat('spar', 'regress_workflow2')), cardinality(run_tracker.drop_compat('workflow', 'regress_workflow2'));
SELECT count(*) FROM pg_temp.policies();
CALL pg_temp.try($$SELECT run_tracker.create_compat('spar', 'regress_workflow2', public_rows => true)$$);
DROP SCHEMA regress_workflow2;

-- an execution that nothing happens to, as the worker ends it
CALL pg_temp.forget();
:as_alice
INSERT INTO workflow_executions (workflow_id) VALUES ('silent');
RESET ROLE;
SELECT run_tracker.expire_runs(now => created_at + interval '599 seconds') AS early, run_tracker.expire_runs(now => created_at + interval '601 seconds') AS late
FROM workflow_executions;
:as_alice
SELECT status, error IS NOT NULL AS explained, completed_at IS NOT NULL AS completed FROM workflow_executions;
CALL pg_temp.try($$UPDATE workflow_executions SET status = 'cancelled'$$);
-- it had only taken long: the result is taken, and nothing follows it
UPDATE workflow_executions SET status = 'completed', result = '[{"step_id": "s1", "content": "late"}]' RETURNING status, result, error;
CALL pg_temp.try($$UPDATE workflow_executions SET status = 'running'$$);
RESET ROLE;

CALL pg_temp.forget();
RESET search_path;
SELECT unnest(run_tracker.drop_compat('workflow', 'regress_workflow'));
SELECT count(*) FROM pg_temp.policies();
SELECT run_tracker.drop_compat('workflow', 'regress_workflow');
DROP SCHEMA regress_workflow;
DROP OWNED BY regress_workflow_client, regress_workflow_reader, regress_workflow_service;
DROP ROLE regress_workflow_client, regress_workflow_reader, regress_workflow_service, regress_workflow_stranger;
