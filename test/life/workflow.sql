-- The life of workflow executions: the statements of an application that has workflow_executions in its search_path.

--
-- An execution is created when it starts
--
:as_alice
PREPARE create_execution (uuid, varchar, varchar, boolean, boolean, varchar, varchar, jsonb) AS
INSERT INTO workflow_executions (execution_id, workflow_id, user_id, status, mode, visual_enabled, visual_streaming_enabled, visual_quality, session_id, inputs, visual_events_captured, created_at, updated_at)
VALUES ($1, $2, auth.uid(), 'running', $3, $4, $5, $6, $7, $8, 0, now(), now())
RETURNING execution_id, workflow_id, user_id, status, mode, visual_enabled, visual_streaming_enabled, visual_quality, session_id, inputs, result, error, logs, execution_time_seconds,
    visual_events_captured, visual_stream_duration, completed_at, metadata;
EXECUTE create_execution('10000000-0000-4000-8000-000000000001', 'wf-1', 'cloud-run', true, true, 'high', 'session-1', '{"url": "https://example.org/?a=1&b=2", "text": "Grüße 日本語 😀"}');
EXECUTE create_execution('10000000-0000-4000-8000-000000000002', 'wf-1', 'local-run', false, false, NULL, NULL, '{}');
INSERT INTO workflow_executions (execution_id, workflow_id) VALUES ('10000000-0000-4000-8000-000000000003', 'wf-1') RETURNING user_id, status, mode, visual_enabled, visual_streaming_enabled, visual_events_captured;
INSERT INTO workflow_executions (execution_id, workflow_id, mode, session_id) VALUES
    ('10000000-0000-4000-8000-000000000004', 'wf-1', 'local-run', 'session-1'),
    ('10000000-0000-4000-8000-000000000005', 'wf ''); DROP TABLE workflow_executions; --', 'cloud-run', repeat('日', 255))
RETURNING workflow_id, status, mode, char_length(session_id);
PREPARE rest_insert (json) AS
WITH pgrst_source AS (
    INSERT INTO "workflow_executions"("execution_id", "inputs", "mode", "visual_streaming_enabled", "workflow_id")
    SELECT pgrst_body."execution_id", pgrst_body."inputs", pgrst_body."mode", pgrst_body."visual_streaming_enabled", pgrst_body."workflow_id"
    FROM (SELECT $1 AS json_data) pgrst_payload,
        LATERAL (SELECT "execution_id", "inputs", "mode", "visual_streaming_enabled", "workflow_id" FROM json_to_record(pgrst_payload.json_data)
            AS _("execution_id" uuid, "inputs" jsonb, "mode" text, "visual_streaming_enabled" boolean, "workflow_id" text)) pgrst_body
    RETURNING "workflow_executions"."execution_id", "workflow_executions"."status", "workflow_executions"."user_id")
SELECT pg_catalog.count(_postgrest_t) AS page_total, coalesce(json_agg(_postgrest_t), '[]') AS body
FROM (SELECT "pgrst_source".* FROM "pgrst_source") _postgrest_t;
EXECUTE rest_insert('{"execution_id": "10000000-0000-4000-8000-000000000006", "workflow_id": "wf-2", "mode": "cloud-run", "visual_streaming_enabled": true, "inputs": {"n": 1}}');
:as_bob
INSERT INTO workflow_executions (execution_id, workflow_id, user_id, session_id) VALUES ('20000000-0000-4000-8000-000000000001', 'wf-1', :'bob', 'session-b') RETURNING status;

--
-- Success, failure, cancellation, and another attempt
--
:as_alice
UPDATE workflow_executions SET visual_events_captured = visual_events_captured + 10, logs = coalesce(logs, '[]') || '[{"level": "info", "message": "step 1"}]'
WHERE execution_id = '10000000-0000-4000-8000-000000000001' RETURNING visual_events_captured, logs;
UPDATE workflow_executions SET visual_events_captured = visual_events_captured + 5, logs = coalesce(logs, '[]') || '[{"level": "info", "message": "step 2"}]', updated_at = now()
WHERE execution_id = '10000000-0000-4000-8000-000000000001' AND status = 'running' RETURNING visual_events_captured, logs, status;
UPDATE workflow_executions SET status = 'completed', result = '[{"step_id": "s1", "content": "Fertig 日本語"}, {"step_id": "s2", "content": {"n": 2}}]', execution_time_seconds = 12.345, visual_stream_duration = 7.5,
    completed_at = now(), updated_at = now()
WHERE execution_id = '10000000-0000-4000-8000-000000000001'
RETURNING status, result, error, visual_stream_duration, completed_at >= created_at AS completed, execution_time_seconds >= 0 AS measured;
UPDATE workflow_executions SET status = 'failed', error = 'step "s1": no answer', logs = '[{"level": "error", "message": "no answer"}]', execution_time_seconds = 0.5, completed_at = now()
WHERE execution_id = '10000000-0000-4000-8000-000000000002' RETURNING status, error, logs, result, completed_at IS NOT NULL AS ended;
UPDATE workflow_executions SET status = 'cancelled', completed_at = now() WHERE execution_id = '10000000-0000-4000-8000-000000000003' AND status = 'running' RETURNING status, completed_at IS NOT NULL AS ended;
UPDATE workflow_executions SET status = 'cancelled', completed_at = now() WHERE execution_id = '10000000-0000-4000-8000-000000000003' AND status = 'running' RETURNING status;
UPDATE workflow_executions SET status = 'running', error = NULL, logs = NULL, completed_at = NULL, execution_time_seconds = NULL WHERE execution_id = '10000000-0000-4000-8000-000000000002' AND status = 'failed'
RETURNING status, error, logs, completed_at, execution_time_seconds, inputs;
UPDATE workflow_executions SET status = 'completed', result = '[]' WHERE execution_id = '10000000-0000-4000-8000-000000000002' RETURNING status, error, result;
-- tags of the user's
UPDATE workflow_executions SET metadata = coalesce(metadata, '{}') || '{"starred": true}' WHERE execution_id = '10000000-0000-4000-8000-000000000001' RETURNING metadata, status;
-- many rows in one statement
WITH changed AS (
    UPDATE workflow_executions w SET metadata = v.metadata, visual_quality = v.quality
    FROM (VALUES ('10000000-0000-4000-8000-000000000004'::uuid, '{"tag": "a"}'::jsonb, 'low'), ('10000000-0000-4000-8000-000000000005', '{"tag": "b"}', NULL)) AS v (id, metadata, quality)
    WHERE w.execution_id = v.id RETURNING w.execution_id, w.metadata, w.visual_quality)
SELECT * FROM changed ORDER BY execution_id;

-- statements that change nothing, as ORMs send them
UPDATE workflow_executions SET status = status, updated_at = now() WHERE execution_id = '10000000-0000-4000-8000-000000000001' RETURNING status, visual_stream_duration;
SELECT created_at, completed_at, updated_at, execution_time_seconds FROM workflow_executions WHERE execution_id = '10000000-0000-4000-8000-000000000001' \gset before_
UPDATE workflow_executions SET workflow_id = 'wf-1', user_id = 'a0000000-0000-4000-8000-000000000001', status = 'completed', mode = 'cloud-run', visual_enabled = true, visual_streaming_enabled = true,
    visual_quality = 'low', session_id = 'session-1', inputs = '{"url": "https://example.org/?a=1&b=2", "text": "Grüße 日本語 😀"}',
    result = '[{"step_id": "s1", "content": "Fertig 日本語"}, {"step_id": "s2", "content": {"n": 2}}]', error = NULL,
    logs = '[{"level": "info", "message": "step 1"}, {"level": "info", "message": "step 2"}]', execution_time_seconds = :before_execution_time_seconds, visual_events_captured = 15,
    visual_stream_duration = 7.500, created_at = :'before_created_at', completed_at = :'before_completed_at', updated_at = :'before_updated_at', metadata = '{"starred": true}'
WHERE workflow_executions.execution_id = '10000000-0000-4000-8000-000000000001' AND workflow_executions.updated_at = :'before_updated_at' RETURNING visual_quality;
SELECT status, visual_quality, visual_events_captured, visual_stream_duration, result -> 0 ->> 'content' AS content, execution_time_seconds = :before_execution_time_seconds AS measured,
    created_at = :'before_created_at' AS created, completed_at = :'before_completed_at' AS completed
FROM workflow_executions WHERE execution_id = '10000000-0000-4000-8000-000000000001';
UPDATE workflow_executions SET visual_stream_duration = 1234567.8916 WHERE execution_id = '10000000-0000-4000-8000-000000000001' RETURNING visual_stream_duration, pg_typeof(visual_stream_duration);

--
-- History, statistics, active executions
--
SELECT execution_id, status, mode FROM workflow_executions WHERE user_id = auth.uid() AND workflow_id = 'wf-1' ORDER BY created_at DESC, execution_id DESC LIMIT 50 OFFSET 0;
SELECT execution_id, status FROM workflow_executions WHERE user_id = auth.uid() ORDER BY created_at DESC, execution_id DESC LIMIT 2 OFFSET 2;
SELECT execution_id FROM workflow_executions WHERE visual_streaming_enabled = true AND user_id = auth.uid() ORDER BY created_at DESC;
SELECT execution_id FROM workflow_executions WHERE visual_streaming_enabled AND status = 'completed' ORDER BY created_at DESC;
SELECT count(*) FROM workflow_executions WHERE workflow_id = 'wf-1' AND status = 'completed';
SELECT workflow_id, count(*) AS total, count(*) FILTER (WHERE status = 'completed') AS successful, round(100.0 * count(*) FILTER (WHERE status = 'completed') / count(*), 2) AS success_rate,
    avg(execution_time_seconds) >= 0 AS measured, count(*) FILTER (WHERE mode = 'cloud-run') AS cloud, count(*) FILTER (WHERE mode = 'local-run') AS local
FROM workflow_executions GROUP BY workflow_id ORDER BY workflow_id;
SELECT mode, count(*) FROM workflow_executions WHERE user_id = auth.uid() GROUP BY mode ORDER BY mode;
SELECT execution_id, workflow_id, mode FROM workflow_executions WHERE status = 'running' AND user_id = auth.uid() ORDER BY execution_id;
SELECT session_id, count(*), count(*) FILTER (WHERE status = 'running') AS active FROM workflow_executions WHERE session_id LIKE 'session-%' GROUP BY session_id ORDER BY session_id;
SELECT execution_id FROM workflow_executions WHERE workflow_id = 'wf ''); DROP TABLE workflow_executions; --' AND session_id = repeat('日', 255);
SELECT execution_id FROM workflow_executions WHERE inputs ->> 'text' LIKE 'Grüße%' AND result @> '[{"step_id": "s2"}]';
SELECT json_agg(w ORDER BY w.execution_id) FROM (SELECT execution_id, status, mode, inputs FROM workflow_executions WHERE workflow_id = 'wf-2') w;
COPY (SELECT execution_id, status, mode, visual_streaming_enabled, inputs FROM workflow_executions WHERE workflow_id = 'wf-1' ORDER BY execution_id) TO STDOUT (FORMAT csv, HEADER);

-- … and that they are one's own
SELECT (SELECT count(*) FROM workflow_executions WHERE user_id <> auth.uid()) AS of_others, (SELECT count(*) FROM workflow_executions WHERE session_id = 'session-b') AS of_bob;
UPDATE workflow_executions SET metadata = '"stolen"' WHERE execution_id = '20000000-0000-4000-8000-000000000001' RETURNING execution_id;
DELETE FROM workflow_executions WHERE execution_id = '20000000-0000-4000-8000-000000000001' RETURNING execution_id;
:as_bob
SELECT execution_id, status FROM workflow_executions;
:as_nobody
SELECT count(*) FROM workflow_executions;

--
-- What is refused
--
:as_alice
SELECT pg_temp.code($$INSERT INTO workflow_executions (execution_id, workflow_id) VALUES ('one', 'wf-1')$$) AS not_an_id,
    pg_temp.code($$INSERT INTO workflow_executions (execution_id, workflow_id) VALUES ('20000000-0000-4000-8000-000000000001', 'wf-1')$$) AS id_of_bob,
    pg_temp.code($$INSERT INTO workflow_executions (workflow_id, session_id) VALUES ('wf-1', repeat('x', 256))$$) AS long_session,
    pg_temp.code($$UPDATE workflow_executions SET session_id = repeat('日', 256) WHERE execution_id = '10000000-0000-4000-8000-000000000004'$$) AS to_long_session,
    pg_temp.code($$UPDATE workflow_executions SET result = 'ok' WHERE execution_id = '10000000-0000-4000-8000-000000000004'$$) AS not_json,
    pg_temp.code($$UPDATE workflow_executions SET visual_stream_duration = 12345678 WHERE execution_id = '10000000-0000-4000-8000-000000000004'$$) AS long_stream,
    pg_temp.code($$UPDATE workflow_executions SET visual_enabled = 'perhaps' WHERE execution_id = '10000000-0000-4000-8000-000000000004'$$) AS not_boolean;
SELECT pg_temp.try($$INSERT INTO workflow_executions (mode) VALUES ('cloud-run')$$) AS no_workflow,
    pg_temp.try($$INSERT INTO workflow_executions (workflow_id, status) VALUES ('wf-1', 'done')$$) AS unknown_status,
    pg_temp.try($$UPDATE workflow_executions SET status = 'done' WHERE execution_id = '10000000-0000-4000-8000-000000000004'$$) AS to_unknown_status,
    pg_temp.try($$UPDATE workflow_executions SET status = NULL WHERE execution_id = '10000000-0000-4000-8000-000000000004'$$) AS to_no_status,
    pg_temp.try($$INSERT INTO workflow_executions (workflow_id, user_id) VALUES ('wf-1', 'b0000000-0000-4000-8000-000000000001')$$) AS for_bob,
    pg_temp.try($$UPDATE workflow_executions SET user_id = 'b0000000-0000-4000-8000-000000000001' WHERE execution_id = '10000000-0000-4000-8000-000000000004'$$) AS to_bob;
:as_nobody
SELECT pg_temp.try($$INSERT INTO workflow_executions (workflow_id) VALUES ('nobody')$$) AS without_a_user;

--
-- The server: history that it brings along, bulk updates, clean-up
--
:as_service
INSERT INTO workflow_executions (execution_id, workflow_id, user_id, status, mode, execution_time_seconds, created_at, completed_at)
SELECT ('30000000-0000-4000-8000-00000000000' || n)::uuid, 'wf-old', :'bob', (ARRAY['completed', 'failed', 'cancelled'])[n % 3 + 1], 'cloud-run', n + 0.125,
    now() - interval '100 days' + n * interval '1 day', now() - interval '100 days' + n * interval '1 day' + (n + 0.125) * interval '1 s'
FROM generate_series(1, 6) n;
SELECT execution_id, status, execution_time_seconds, completed_at - created_at AS took FROM workflow_executions WHERE workflow_id = 'wf-old' ORDER BY created_at DESC;
SELECT status, count(*), avg(execution_time_seconds)::numeric(10,3), sum(execution_time_seconds) FROM workflow_executions WHERE workflow_id = 'wf-old' GROUP BY status ORDER BY status;
INSERT INTO workflow_executions (execution_id, workflow_id, user_id, status, created_at) VALUES ('30000000-0000-4000-8000-000000000007', 'wf-old', :'bob', 'running', now() - interval '2 hours') RETURNING status;
SELECT execution_id, now() - created_at >= interval '2 hours' AS stuck FROM workflow_executions WHERE status = 'running' AND created_at < now() - interval '1 hour';
UPDATE workflow_executions SET status = 'failed', error = 'stuck', completed_at = now() WHERE status = 'running' AND created_at < now() - interval '1 hour' RETURNING execution_id, status, error;
WITH moved AS (UPDATE workflow_executions SET metadata = '{"archived": true}' WHERE workflow_id = 'wf-old' AND status <> 'failed' RETURNING execution_id, metadata)
SELECT count(*), count(*) FILTER (WHERE metadata @> '{"archived": true}') AS archived FROM moved;
WITH ended AS (UPDATE workflow_executions SET status = 'cancelled', error = 'maintenance' WHERE status = 'running' AND user_id = :'alice' RETURNING execution_id)
SELECT * FROM ended ORDER BY execution_id;
WITH deleted AS (DELETE FROM workflow_executions WHERE status <> 'running' AND created_at < now() - interval '90 days' RETURNING execution_id) SELECT count(*) FROM deleted;
SELECT user_id, status, count(*) FROM workflow_executions GROUP BY user_id, status ORDER BY user_id, status;
:as_alice
DELETE FROM workflow_executions WHERE execution_id = '10000000-0000-4000-8000-000000000001' RETURNING status, result -> 1 AS result;
DELETE FROM workflow_executions WHERE execution_id = ANY ('{10000000-0000-4000-8000-000000000003,20000000-0000-4000-8000-000000000001}'::uuid[]) RETURNING execution_id;
SELECT count(*) FROM workflow_executions;
RESET ROLE;
