-- The life of chat runs and their tasks: the statements of an application that has ai_runs and ai_tasks in its search_path.

--
-- A run is created, and returned at once; in the ways in which clients do it
--
:as_alice
INSERT INTO ai_runs (id, user_id, name, messages, settings, variable_values, message_count, task_count, total_tokens, total_cost) VALUES
    ('10000000-0000-4000-8000-000000000001', auth.uid(), 'Trip to Rome', '[]', '{"model": "m1"}', '{"city": "Rome"}', 0, 0, 0, 0)
RETURNING id, user_id, name, messages, settings, variable_values, message_count, task_count, total_tokens, total_cost, last_message_at;
INSERT INTO ai_runs (id) VALUES ('10000000-0000-4000-8000-000000000002')
RETURNING id, user_id, name, messages, settings, variable_values, message_count, task_count, total_tokens, total_cost, last_message_at;
PREPARE rest_insert (json) AS
WITH pgrst_source AS (
    INSERT INTO "ai_runs"("id", "messages", "name", "settings", "user_id")
    SELECT pgrst_body."id", pgrst_body."messages", pgrst_body."name", pgrst_body."settings", pgrst_body."user_id"
    FROM (SELECT $1 AS json_data) pgrst_payload,
        LATERAL (SELECT "id", "messages", "name", "settings", "user_id" FROM json_to_record(pgrst_payload.json_data)
            AS _("id" uuid, "messages" jsonb, "name" text, "settings" jsonb, "user_id" uuid)) pgrst_body
    RETURNING "ai_runs"."id", "ai_runs"."name", "ai_runs"."message_count", "ai_runs"."task_count", "ai_runs"."total_cost")
SELECT pg_catalog.count(_postgrest_t) AS page_total, coalesce(json_agg(_postgrest_t), '[]') AS body
FROM (SELECT "pgrst_source".* FROM "pgrst_source") _postgrest_t;
EXECUTE rest_insert('{"id": "10000000-0000-4000-8000-000000000003", "user_id": "a0000000-0000-4000-8000-000000000001", "name": null, "settings": {},
    "messages": [{"role": "user", "content": "What is 2 + 2?", "timestamp": "2026-01-05T10:00:00.000Z"}]}');
INSERT INTO ai_runs (name) VALUES ('unused') RETURNING id IS NOT NULL AS has_id, user_id = auth.uid() AS own, message_count;
:as_bob
INSERT INTO ai_runs (id, user_id, name) VALUES ('20000000-0000-4000-8000-000000000001', :'bob', 'Of Bob') RETURNING name, message_count;
INSERT INTO ai_tasks (task_id, run_id, user_id, service, task_name) VALUES ('2a000000-0000-4000-8000-000000000001', '20000000-0000-4000-8000-000000000001', :'bob', 'chat', 'of bob')
RETURNING status;

--
-- A task: created with an id of the client's, its user message, the streamed answer, the end; the totals of the run follow in the same transaction
--
:as_alice
PREPARE create_task (uuid, uuid, varchar, varchar, varchar, jsonb) AS
INSERT INTO ai_tasks (task_id, run_id, user_id, service, task_name, model, status, request_data, created_at, updated_at)
VALUES ($1, $2, auth.uid(), $3, $4, $5, 'pending', $6, now(), now())
RETURNING task_id, run_id, user_id = auth.uid() AS own, service, task_name, model, status, request_data, response_text, tokens_total, cost, completed_at;
EXECUTE create_task('1a000000-0000-4000-8000-000000000001', '10000000-0000-4000-8000-000000000002', 'chat', 'answer', 'm1', '{"prompt": "Wie geht es? 日本語 😀", "n": 1}');
PREPARE append (jsonb, uuid) AS
UPDATE ai_runs SET messages = messages || $1, message_count = message_count + 1, last_message_at = now(), updated_at = now() WHERE id = $2 AND user_id = auth.uid()
RETURNING name, message_count, last_message_at IS NOT NULL AS active;
EXECUTE append('[{"role": "user", "content": "Wie geht es? 日本語 😀", "timestamp": "2026-01-05T10:00:00.000Z", "taskId": "1a000000-0000-4000-8000-000000000001"}]',
    '10000000-0000-4000-8000-000000000002');
UPDATE ai_tasks SET status = 'streaming', response_text = '', time_to_first_token = 350 WHERE task_id = '1a000000-0000-4000-8000-000000000001' RETURNING status, response_text, time_to_first_token;
UPDATE ai_tasks SET response_text = 'Gut' WHERE task_id = '1a000000-0000-4000-8000-000000000001' AND status = 'streaming' RETURNING response_text;
SELECT response_text FROM ai_tasks WHERE task_id = '1a000000-0000-4000-8000-000000000001';
UPDATE ai_tasks SET status = 'streaming', response_text = 'Gut, und dir', updated_at = now() WHERE task_id = '1a000000-0000-4000-8000-000000000001' RETURNING status, response_text;
SELECT status, response_text, completed_at FROM ai_tasks WHERE task_id = '1a000000-0000-4000-8000-000000000001';
SELECT task_count, total_tokens, total_cost FROM ai_runs WHERE id = '10000000-0000-4000-8000-000000000002';
BEGIN;
UPDATE ai_tasks SET status = 'completed', response_text = 'Gut, und dir?', tokens_input = 100, tokens_output = 50, tokens_total = 150, cost = 0.0025, time_to_first_token = 350,
    total_time = 2400, completed_at = now(), updated_at = now()
WHERE task_id = '1a000000-0000-4000-8000-000000000001'
RETURNING status, response_text, tokens_input, tokens_output, tokens_total, cost, time_to_first_token, total_time >= 0 AS measured, completed_at IS NOT NULL AS ended;
SELECT task_count, total_tokens, total_cost FROM ai_runs WHERE id = '10000000-0000-4000-8000-000000000002';
EXECUTE append('[{"role": "assistant", "content": "Gut, und dir?", "timestamp": "2026-01-05T10:00:02.400Z", "taskId": "1a000000-0000-4000-8000-000000000001",
    "metadata": {"tokens": 150, "cost": 0.0025, "timeToFirstToken": 350, "totalTime": 2400}}]', '10000000-0000-4000-8000-000000000002');
COMMIT;
SELECT name, message_count, task_count, total_tokens, total_cost, last_message_at >= created_at AS active FROM ai_runs WHERE id = '10000000-0000-4000-8000-000000000002';
SELECT n, m ->> 'role' AS role, m ->> 'content' AS content, m ? 'timestamp' AS has_time, m ->> 'taskId' AS task, m #>> '{metadata,tokens}' AS tokens, m #>> '{metadata,cost}' AS cost,
    m #>> '{metadata,timeToFirstToken}' AS time_to_first_token
FROM ai_runs, jsonb_array_elements(messages) WITH ORDINALITY AS e (m, n) WHERE id = '10000000-0000-4000-8000-000000000002' ORDER BY n;
SELECT jsonb_array_length(messages), messages -> -1 ->> 'content' AS last, messages @> '[{"role": "assistant"}]' AS answered FROM ai_runs WHERE id = '10000000-0000-4000-8000-000000000002';
-- a task that is over when it is first heard of
INSERT INTO ai_tasks (task_id, run_id, service, task_name, model, status, response_text, tokens_total, cost, completed_at) VALUES
    ('1a000000-0000-4000-8000-000000000002', '10000000-0000-4000-8000-000000000002', 'chat', 'title', 'm2', 'completed', 'Greeting', 30, 0.0005, now())
RETURNING status, tokens_total, cost, completed_at IS NOT NULL AS ended;
-- several at once, one of which fails
INSERT INTO ai_tasks (task_id, run_id, service, task_name) SELECT ('1a000000-0000-4000-8000-00000000010' || n)::uuid, '10000000-0000-4000-8000-000000000001', 'batch', 'part ' || n
FROM generate_series(1, 4) n;
UPDATE ai_tasks SET status = 'completed', tokens_total = 10, cost = 0.01 WHERE service = 'batch' AND task_name <> 'part 4';
UPDATE ai_tasks SET status = 'failed', error_message = 'no connection' WHERE task_id = '1a000000-0000-4000-8000-000000000104'
RETURNING status, error_message, tokens_total, cost, completed_at IS NOT NULL AS ended;
SELECT name, task_count, total_tokens, total_cost, message_count FROM ai_runs WHERE id IN ('10000000-0000-4000-8000-000000000001', '10000000-0000-4000-8000-000000000002') ORDER BY id;
-- tried again, under its id
UPDATE ai_tasks SET status = 'pending', error_message = NULL, completed_at = NULL WHERE task_id = '1a000000-0000-4000-8000-000000000104' AND status = 'failed'
RETURNING status, error_message, completed_at;
UPDATE ai_tasks SET status = 'completed', tokens_total = 5, cost = 0.001 WHERE task_id = '1a000000-0000-4000-8000-000000000104' RETURNING status, error_message;
SELECT task_count, total_tokens, total_cost FROM ai_runs WHERE id = '10000000-0000-4000-8000-000000000001';

--
-- Statements that change nothing, or less than they look like
--
UPDATE ai_tasks SET status = status, tokens_total = tokens_total, updated_at = now() WHERE run_id = '10000000-0000-4000-8000-000000000002' AND status = 'completed';
UPDATE ai_runs SET name = name, messages = messages, updated_at = now() WHERE id = '10000000-0000-4000-8000-000000000002' RETURNING message_count;
SELECT created_at, updated_at, last_message_at, messages, message_count, task_count, total_tokens, total_cost FROM ai_runs WHERE id = '10000000-0000-4000-8000-000000000002' \gset run_
UPDATE ai_runs SET user_id = 'a0000000-0000-4000-8000-000000000001', name = 'Greetings', messages = :'run_messages'::jsonb, settings = '{}', variable_values = '{}',
    message_count = :run_message_count, task_count = :run_task_count, total_tokens = :run_total_tokens, total_cost = :run_total_cost, last_message_at = :'run_last_message_at',
    created_at = :'run_created_at', updated_at = :'run_updated_at'
WHERE ai_runs.id = '10000000-0000-4000-8000-000000000002' RETURNING name;
SELECT name, message_count, task_count, total_tokens, total_cost, messages = :'run_messages'::jsonb AS messages, created_at = :'run_created_at' AS created
FROM ai_runs WHERE id = '10000000-0000-4000-8000-000000000002';
SELECT created_at, updated_at, completed_at, total_time FROM ai_tasks WHERE task_id = '1a000000-0000-4000-8000-000000000001' \gset task_
UPDATE ai_tasks SET run_id = '10000000-0000-4000-8000-000000000002', user_id = 'a0000000-0000-4000-8000-000000000001', service = 'chat', task_name = 'answer to Bob', model = 'm1',
    status = 'completed', request_data = '{"n": 1, "prompt": "Wie geht es? 日本語 😀"}', response_text = 'Gut, und dir?', tokens_input = 100, tokens_output = 50, tokens_total = 150,
    cost = 0.0025, time_to_first_token = 350, total_time = :task_total_time, error_message = NULL, created_at = :'task_created_at', updated_at = :'task_updated_at',
    completed_at = :'task_completed_at'
WHERE ai_tasks.task_id = '1a000000-0000-4000-8000-000000000001' RETURNING task_name;
SELECT task_name, status, tokens_total, cost, created_at = :'task_created_at' AS created, completed_at = :'task_completed_at' AS completed
FROM ai_tasks WHERE task_id = '1a000000-0000-4000-8000-000000000001';

-- a task that is given up, found by its run
INSERT INTO ai_tasks (run_id, service, task_name) VALUES ('10000000-0000-4000-8000-000000000003', 'chat', 'never asked') RETURNING task_id IS NOT NULL AS has_id, status;
UPDATE ai_tasks t SET request_data = jsonb_build_object('run', r.name) FROM ai_runs r WHERE r.id = t.run_id AND t.task_name = 'never asked' RETURNING t.request_data, r.name;
DELETE FROM ai_tasks t USING ai_runs r WHERE r.id = t.run_id AND r.name = 'What is 2 + 2?' AND t.status = 'pending' RETURNING t.task_name, r.name;

--
-- The conversation is edited: read as a whole, changed in the client, written as a whole
--
EXECUTE append('{"role": "user", "content": "And now?", "timestamp": "2026-01-05T10:01:00.000Z"}', '10000000-0000-4000-8000-000000000003');
EXECUTE append('[{"role": "assistant", "content": "Four", "timestamp": "2026-01-05T10:01:01.000Z"}, {"role": "user", "content": "''); DROP TABLE ai_runs; --", "timestamp": "2026-01-05T10:01:02.000Z"}]',
    '10000000-0000-4000-8000-000000000003');
UPDATE ai_runs SET messages = jsonb_set(messages, '{2,content}', '"Five"') WHERE id = '10000000-0000-4000-8000-000000000003' RETURNING message_count;
SELECT n, m ->> 'role' AS role, m ->> 'content' AS content FROM ai_runs, jsonb_array_elements(messages) WITH ORDINALITY AS e (m, n) WHERE id = '10000000-0000-4000-8000-000000000003' ORDER BY n;
UPDATE ai_runs SET messages = messages - -1 WHERE id = '10000000-0000-4000-8000-000000000003' RETURNING message_count, messages -> -1 ->> 'content' AS last;
UPDATE ai_runs SET messages = '[{"role": "user", "content": "Anew", "timestamp": "2026-01-05T10:02:00.000Z"}]' WHERE id = '10000000-0000-4000-8000-000000000003' RETURNING message_count, name;
SELECT name, message_count, messages #>> '{0,content}' AS first FROM ai_runs WHERE id = '10000000-0000-4000-8000-000000000003';
UPDATE ai_runs SET messages = '[]' WHERE id = '10000000-0000-4000-8000-000000000003' RETURNING message_count, messages;
UPDATE ai_runs SET settings = settings || '{"temperature": 0.5}', variable_values = '{"city": "Paris"}', name = 'Sums' WHERE id = '10000000-0000-4000-8000-000000000003'
RETURNING name, settings, variable_values, message_count, messages;

--
-- What users read
--
SELECT name, task_count FROM ai_runs WHERE user_id = auth.uid() AND task_count > 0 ORDER BY task_count DESC;
SELECT count(*), bool_and(last_message_at <= now()) AS active FROM ai_runs WHERE user_id = auth.uid() AND last_message_at > now() - interval '24 hours';
SELECT r.name, t.task_name, t.status, t.tokens_total FROM ai_runs r JOIN ai_tasks t ON t.run_id = r.id WHERE r.user_id = auth.uid() ORDER BY r.id, t.task_id;
SELECT r.total_tokens = sum(t.tokens_total) AS tokens, r.total_cost = sum(t.cost) AS cost, r.task_count = count(*) AS tasks
FROM ai_runs r JOIN ai_tasks t ON t.run_id = r.id AND t.status = 'completed' GROUP BY r.id, r.total_tokens, r.total_cost, r.task_count ORDER BY r.id;
SELECT model, count(*), sum(tokens_total) AS tokens, sum(cost) AS cost FROM ai_tasks WHERE user_id = auth.uid() AND status = 'completed' GROUP BY model ORDER BY model;
SELECT service, count(*) FILTER (WHERE status = 'completed') AS completed FROM ai_tasks WHERE created_at > now() - interval '1 day' GROUP BY service ORDER BY service;
SELECT "ai_runs"."name", COALESCE("tasks"."tasks", '[]') AS "tasks" FROM "ai_runs"
LEFT JOIN LATERAL (SELECT json_agg("t") AS "tasks" FROM (SELECT "ai_tasks"."task_name", "ai_tasks"."status", "ai_tasks"."cost" FROM "ai_tasks" WHERE "ai_tasks"."run_id" = "ai_runs"."id"
    ORDER BY "ai_tasks"."task_id") "t") AS "tasks" ON TRUE
WHERE "ai_runs"."id" IN ('10000000-0000-4000-8000-000000000002', '10000000-0000-4000-8000-000000000003') ORDER BY "ai_runs"."id";

-- … and that it is theirs
SELECT (SELECT count(*) FROM ai_runs WHERE user_id <> auth.uid()) AS runs, (SELECT count(*) FROM ai_tasks WHERE user_id <> auth.uid()) AS tasks,
    (SELECT count(*) FROM ai_tasks WHERE run_id = '20000000-0000-4000-8000-000000000001') AS of_bob;
UPDATE ai_runs SET messages = messages || '[{"role": "user", "content": "stolen"}]' WHERE id = '20000000-0000-4000-8000-000000000001' RETURNING id;
UPDATE ai_tasks SET status = 'failed' WHERE task_id = '2a000000-0000-4000-8000-000000000001' RETURNING task_id;
DELETE FROM ai_tasks WHERE task_id = '2a000000-0000-4000-8000-000000000001' RETURNING task_id;
DELETE FROM ai_runs WHERE id = '20000000-0000-4000-8000-000000000001' RETURNING id;
:as_nobody
SELECT (SELECT count(*) FROM ai_runs) AS runs, (SELECT count(*) FROM ai_tasks) AS tasks;

--
-- What is refused
--
:as_alice
SELECT pg_temp.code($$INSERT INTO ai_tasks (task_id, run_id) VALUES ('1a000000-0000-4000-8000-000000000001', '10000000-0000-4000-8000-000000000001')$$) AS task_id_again,
    pg_temp.code($$INSERT INTO ai_tasks (task_id, run_id) VALUES ('2a000000-0000-4000-8000-000000000001', '10000000-0000-4000-8000-000000000001')$$) AS task_id_of_bob,
    pg_temp.code($$INSERT INTO ai_runs (id) VALUES ('20000000-0000-4000-8000-000000000001')$$) AS id_of_bob,
    pg_temp.code($$INSERT INTO ai_runs (messages) VALUES ('[{"role"')$$) AS not_json,
    pg_temp.code($$INSERT INTO ai_tasks (run_id) VALUES ('run 1')$$) AS not_an_id;
SELECT pg_temp.try($$INSERT INTO ai_tasks (task_name) VALUES ('without a run')$$) AS no_run,
    pg_temp.try($$INSERT INTO ai_tasks (run_id) VALUES ('99999999-0000-4000-8000-000000000001')$$) AS unknown_run,
    pg_temp.try($$INSERT INTO ai_tasks (run_id) VALUES ('20000000-0000-4000-8000-000000000001')$$) AS run_of_bob,
    pg_temp.try($$INSERT INTO ai_tasks (run_id, user_id) VALUES ('20000000-0000-4000-8000-000000000001', 'b0000000-0000-4000-8000-000000000001')$$) AS as_bob,
    pg_temp.try($$INSERT INTO ai_runs (user_id) VALUES ('b0000000-0000-4000-8000-000000000001')$$) AS for_bob,
    pg_temp.try($$UPDATE ai_tasks SET run_id = '20000000-0000-4000-8000-000000000001' WHERE task_name = 'title'$$) AS to_run_of_bob;
SELECT pg_temp.try($$INSERT INTO ai_tasks (run_id, status) VALUES ('10000000-0000-4000-8000-000000000001', 'done')$$) AS unknown_status,
    pg_temp.try($$UPDATE ai_tasks SET status = 'done' WHERE task_name = 'title'$$) AS to_unknown_status,
    pg_temp.try($$UPDATE ai_tasks SET tokens_total = -1 WHERE task_name = 'title'$$) AS tokens,
    pg_temp.try($$UPDATE ai_tasks SET cost = -1 WHERE task_name = 'title'$$) AS cost,
    pg_temp.try($$UPDATE ai_runs SET messages = '{"role": "user"}' WHERE name = 'Sums'$$) AS no_array,
    pg_temp.try($$UPDATE ai_runs SET messages = NULL WHERE name = 'Sums'$$) AS no_messages;
:as_nobody
SELECT pg_temp.try($$INSERT INTO ai_runs (name) VALUES ('nobody')$$) AS without_a_user;

--
-- The end: a run goes with its tasks; the server cleans up
--
:as_alice
DELETE FROM ai_runs WHERE id = '10000000-0000-4000-8000-000000000001' RETURNING name, task_count;
SELECT count(*) FROM ai_tasks WHERE run_id = '10000000-0000-4000-8000-000000000001';
DELETE FROM ai_runs WHERE name = 'unused';
:as_service
UPDATE ai_tasks SET status = 'streaming', response_text = 'Hello' WHERE task_id = '2a000000-0000-4000-8000-000000000001' RETURNING status, user_id;
INSERT INTO ai_tasks (task_id, run_id, user_id, service, status, tokens_total, cost, created_at, completed_at) VALUES
    ('2a000000-0000-4000-8000-000000000002', '20000000-0000-4000-8000-000000000001', :'bob', 'embed', 'completed', 7, 0.07, now() - interval '90 days', now() - interval '90 days' + interval '1 s')
RETURNING status, tokens_total, completed_at - created_at AS took;
UPDATE ai_runs SET messages = messages || jsonb_build_array(jsonb_build_object('role', 'system', 'content', 'note of the server', 'timestamp', now())) WHERE user_id = :'bob'
RETURNING name, message_count, task_count, total_tokens, total_cost;
SELECT user_id, count(*) AS runs, sum(task_count) AS tasks, sum(total_tokens) AS tokens, sum(total_cost) AS cost FROM ai_runs GROUP BY user_id ORDER BY user_id;
WITH deleted AS (DELETE FROM ai_runs WHERE last_message_at < now() - interval '30 days' RETURNING id) SELECT count(*) FROM deleted;
DELETE FROM ai_runs WHERE user_id = :'bob' RETURNING name;
SELECT (SELECT count(*) FROM ai_runs) AS runs, (SELECT count(*) FROM ai_tasks) AS tasks;
RESET ROLE;
