-- What only works on views where the library is loaded: ON CONFLICT, and locks on rows. After iflow.sql.

:as_alice
PREPARE rest_upsert (json) AS
INSERT INTO "iflow_jobs"("current_step", "job_id", "platform", "progress", "status")
SELECT pgrst_body."current_step", pgrst_body."job_id", pgrst_body."platform", pgrst_body."progress", pgrst_body."status"
FROM (SELECT $1 AS json_data) pgrst_payload,
    LATERAL (SELECT "current_step", "job_id", "platform", "progress", "status" FROM json_to_recordset(pgrst_payload.json_data)
        AS _("current_step" text, "job_id" uuid, "platform" text, "progress" integer, "status" text)) pgrst_body
ON CONFLICT("job_id") DO UPDATE SET "current_step" = EXCLUDED."current_step", "job_id" = EXCLUDED."job_id", "platform" = EXCLUDED."platform", "progress" = EXCLUDED."progress",
    "status" = EXCLUDED."status"
RETURNING "iflow_jobs"."job_id", "iflow_jobs"."status", "iflow_jobs"."progress", "iflow_jobs"."current_step";
EXECUTE rest_upsert('[{"job_id": "40000000-0000-4000-8000-000000000001", "platform": "sap", "status": "pending", "progress": 0}]');
EXECUTE rest_upsert('[{"job_id": "40000000-0000-4000-8000-000000000001", "platform": "sap", "status": "processing", "progress": 10, "current_step": "upload"},
    {"job_id": "40000000-0000-4000-8000-000000000002", "platform": "sap", "status": "pending", "progress": 0}]');
INSERT INTO iflow_jobs (job_id, platform) VALUES ('40000000-0000-4000-8000-000000000001', 'other') ON CONFLICT (job_id) DO NOTHING RETURNING platform;
INSERT INTO iflow_components AS c (component_id, job_id, component_type, component_name, component_order) VALUES
    ('4b000000-0000-4000-8000-000000000001', '40000000-0000-4000-8000-000000000001', 'HTTPS', 'Listener', 1)
ON CONFLICT (component_id) DO UPDATE SET component_name = EXCLUDED.component_name RETURNING component_name, component_order;
INSERT INTO iflow_components AS c (component_id, job_id, component_type, component_name, component_order) VALUES
    ('4b000000-0000-4000-8000-000000000001', '40000000-0000-4000-8000-000000000001', 'HTTPS', 'Renamed', 7)
ON CONFLICT (component_id) DO UPDATE SET component_name = EXCLUDED.component_name RETURNING component_name, component_order;
INSERT INTO rag_retrievals (retrieval_id, job_id, retrieval_type) VALUES ('4c000000-0000-4000-8000-000000000001', '40000000-0000-4000-8000-000000000001', 'hybrid')
ON CONFLICT (retrieval_id) DO NOTHING RETURNING results_count;
INSERT INTO rag_retrievals (retrieval_id, job_id, retrieval_type) VALUES ('4c000000-0000-4000-8000-000000000001', '40000000-0000-4000-8000-000000000001', 'hybrid')
ON CONFLICT (retrieval_id) DO NOTHING RETURNING results_count;
:as_bob
SELECT pg_temp.try($$INSERT INTO iflow_jobs (job_id, iflow_name) VALUES ('40000000-0000-4000-8000-000000000001', 'stolen')
    ON CONFLICT (job_id) DO UPDATE SET iflow_name = EXCLUDED.iflow_name$$) AS stolen;
-- a server that works through a queue of its own
:as_service
BEGIN;
UPDATE iflow_jobs SET status = 'processing' WHERE job_id = (SELECT job_id FROM iflow_jobs WHERE status = 'pending' AND platform = 'sap' ORDER BY job_id DESC LIMIT 1 FOR UPDATE SKIP LOCKED)
RETURNING job_id, status;
COMMIT;
SELECT job_id, status, iflow_name FROM iflow_jobs WHERE job_id::text LIKE '40000000%' ORDER BY job_id;
RESET ROLE;
