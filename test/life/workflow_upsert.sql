-- What only works on views where the library is loaded: ON CONFLICT, and locks on rows. After workflow.sql.

:as_alice
PREPARE rest_upsert (json) AS
INSERT INTO "workflow_executions"("execution_id", "inputs", "mode", "result", "status", "workflow_id")
SELECT pgrst_body."execution_id", pgrst_body."inputs", pgrst_body."mode", pgrst_body."result", pgrst_body."status", pgrst_body."workflow_id"
FROM (SELECT $1 AS json_data) pgrst_payload,
    LATERAL (SELECT "execution_id", "inputs", "mode", "result", "status", "workflow_id" FROM json_to_recordset(pgrst_payload.json_data)
        AS _("execution_id" uuid, "inputs" jsonb, "mode" text, "result" jsonb, "status" text, "workflow_id" text)) pgrst_body
ON CONFLICT("execution_id") DO UPDATE SET "execution_id" = EXCLUDED."execution_id", "inputs" = EXCLUDED."inputs", "mode" = EXCLUDED."mode", "result" = EXCLUDED."result",
    "status" = EXCLUDED."status", "workflow_id" = EXCLUDED."workflow_id"
RETURNING "workflow_executions"."execution_id", "workflow_executions"."status", "workflow_executions"."result";
EXECUTE rest_upsert('[{"execution_id": "40000000-0000-4000-8000-000000000001", "workflow_id": "wf-4", "mode": "cloud-run", "inputs": {"n": 1}, "status": "running"}]');
EXECUTE rest_upsert('[{"execution_id": "40000000-0000-4000-8000-000000000001", "workflow_id": "wf-4", "mode": "cloud-run", "inputs": {"n": 1}, "status": "completed", "result": [{"step_id": "s1", "content": "x"}]},
    {"execution_id": "40000000-0000-4000-8000-000000000002", "workflow_id": "wf-4", "mode": "local-run", "inputs": {}, "status": "running"}]');
INSERT INTO workflow_executions (execution_id, workflow_id) VALUES ('40000000-0000-4000-8000-000000000001', 'other') ON CONFLICT (execution_id) DO NOTHING RETURNING workflow_id;
INSERT INTO workflow_executions AS w (execution_id, workflow_id) VALUES ('40000000-0000-4000-8000-000000000002', 'other')
ON CONFLICT (execution_id) DO UPDATE SET visual_events_captured = w.visual_events_captured + 3 RETURNING workflow_id, visual_events_captured;
SELECT status FROM workflow_executions WHERE execution_id = '40000000-0000-4000-8000-000000000002' FOR UPDATE;
:as_bob
SELECT pg_temp.try($$INSERT INTO workflow_executions (execution_id, workflow_id) VALUES ('40000000-0000-4000-8000-000000000001', 'stolen')
    ON CONFLICT (execution_id) DO UPDATE SET workflow_id = EXCLUDED.workflow_id$$) AS stolen;
:as_service
SELECT execution_id, workflow_id, status FROM workflow_executions WHERE workflow_id IN ('wf-4', 'stolen', 'other') ORDER BY execution_id;
RESET ROLE;
