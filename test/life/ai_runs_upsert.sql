-- What only works on views where the library is loaded: ON CONFLICT, and locks on rows. After ai_runs.sql.

:as_alice
INSERT INTO ai_runs (id, name) VALUES ('30000000-0000-4000-8000-000000000001', 'Upserts') ON CONFLICT (id) DO NOTHING RETURNING name;
INSERT INTO ai_runs (id, name) VALUES ('30000000-0000-4000-8000-000000000001', 'again') ON CONFLICT (id) DO NOTHING RETURNING name;
INSERT INTO ai_runs (id, name, messages) VALUES ('30000000-0000-4000-8000-000000000001', 'Again', '[{"role": "user", "content": "Hi", "timestamp": "2026-01-05T10:00:00.000Z"}]')
ON CONFLICT (id) DO UPDATE SET name = EXCLUDED.name, messages = ai_runs.messages || EXCLUDED.messages, updated_at = now() RETURNING name, message_count;
-- supabase-js: upsert() of a task, from its creation to its end
PREPARE rest_upsert (json) AS
INSERT INTO "ai_tasks"("cost", "response_text", "run_id", "service", "status", "task_id", "tokens_total")
SELECT pgrst_body."cost", pgrst_body."response_text", pgrst_body."run_id", pgrst_body."service", pgrst_body."status", pgrst_body."task_id", pgrst_body."tokens_total"
FROM (SELECT $1 AS json_data) pgrst_payload,
    LATERAL (SELECT "cost", "response_text", "run_id", "service", "status", "task_id", "tokens_total" FROM json_to_recordset(pgrst_payload.json_data)
        AS _("cost" numeric, "response_text" text, "run_id" uuid, "service" text, "status" text, "task_id" uuid, "tokens_total" bigint)) pgrst_body
ON CONFLICT("task_id") DO UPDATE SET "cost" = EXCLUDED."cost", "response_text" = EXCLUDED."response_text", "run_id" = EXCLUDED."run_id", "service" = EXCLUDED."service",
    "status" = EXCLUDED."status", "task_id" = EXCLUDED."task_id", "tokens_total" = EXCLUDED."tokens_total"
RETURNING "ai_tasks"."task_id", "ai_tasks"."status", "ai_tasks"."response_text";
EXECUTE rest_upsert('[{"task_id": "3a000000-0000-4000-8000-000000000001", "run_id": "30000000-0000-4000-8000-000000000001", "service": "chat", "status": "pending"}]');
EXECUTE rest_upsert('[{"task_id": "3a000000-0000-4000-8000-000000000001", "run_id": "30000000-0000-4000-8000-000000000001", "service": "chat", "status": "streaming", "response_text": "He"}]');
EXECUTE rest_upsert('[{"task_id": "3a000000-0000-4000-8000-000000000001", "run_id": "30000000-0000-4000-8000-000000000001", "service": "chat", "status": "completed", "response_text": "Hello",
    "tokens_total": 12, "cost": 0.5}, {"task_id": "3a000000-0000-4000-8000-000000000002", "run_id": "30000000-0000-4000-8000-000000000001", "service": "title", "status": "completed", "tokens_total": 3, "cost": 0.25}]');
SELECT name, message_count, task_count, total_tokens, total_cost FROM ai_runs WHERE id = '30000000-0000-4000-8000-000000000001';
-- read, change in the client, write, while nobody else does
BEGIN;
SELECT name, message_count FROM ai_runs WHERE id = '30000000-0000-4000-8000-000000000001' FOR UPDATE;
UPDATE ai_runs SET messages = messages || '[{"role": "assistant", "content": "Hello", "timestamp": "2026-01-05T10:00:01.000Z"}]' WHERE id = '30000000-0000-4000-8000-000000000001'
RETURNING message_count;
COMMIT;
:as_bob
SELECT pg_temp.try($$INSERT INTO ai_runs (id, name) VALUES ('30000000-0000-4000-8000-000000000001', 'stolen') ON CONFLICT (id) DO UPDATE SET name = EXCLUDED.name$$) AS stolen,
    pg_temp.try($$INSERT INTO ai_tasks (task_id, run_id) VALUES ('3a000000-0000-4000-8000-000000000001', '30000000-0000-4000-8000-000000000001')
        ON CONFLICT (task_id) DO UPDATE SET task_name = 'stolen'$$) AS stolen_task;
:as_service
SELECT r.name, count(*), min(t.task_name) FROM ai_runs r JOIN ai_tasks t ON t.run_id = r.id GROUP BY r.name ORDER BY r.name;
RESET ROLE;
