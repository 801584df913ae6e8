-- What only works on views where the library is loaded: ON CONFLICT, and locks on rows. After spar.sql.

-- a request that is repeated
:as_alice
INSERT INTO spar_runs (run_id, user_id, goal) VALUES ('40000000-0000-4000-8000-000000000001', auth.uid(), 'edu_context') ON CONFLICT (run_id) DO NOTHING RETURNING status;
INSERT INTO spar_runs (run_id, user_id, goal) VALUES ('40000000-0000-4000-8000-000000000001', auth.uid(), 'other') ON CONFLICT (run_id) DO NOTHING RETURNING status;
INSERT INTO spar_runs (run_id, user_id, goal) VALUES ('40000000-0000-4000-8000-000000000001', auth.uid(), 'other') ON CONFLICT DO NOTHING RETURNING status;
SELECT count(*), min(goal) FROM spar_runs WHERE run_id = '40000000-0000-4000-8000-000000000001';
-- supabase-js: upsert()
PREPARE rest_upsert (json) AS
INSERT INTO "spar_runs"("goal", "run_id", "status", "user_id")
SELECT pgrst_body."goal", pgrst_body."run_id", pgrst_body."status", pgrst_body."user_id"
FROM (SELECT $1 AS json_data) pgrst_payload,
    LATERAL (SELECT "goal", "run_id", "status", "user_id" FROM json_to_recordset(pgrst_payload.json_data)
        AS _("goal" text, "run_id" uuid, "status" text, "user_id" uuid)) pgrst_body
ON CONFLICT("run_id") DO UPDATE SET "goal" = EXCLUDED."goal", "run_id" = EXCLUDED."run_id", "status" = EXCLUDED."status", "user_id" = EXCLUDED."user_id"
RETURNING "spar_runs"."run_id", "spar_runs"."status", "spar_runs"."goal";
EXECUTE rest_upsert('[{"run_id": "40000000-0000-4000-8000-000000000001", "user_id": "a0000000-0000-4000-8000-000000000001", "status": "processing", "goal": "edu_context"},
    {"run_id": "40000000-0000-4000-8000-000000000002", "user_id": "a0000000-0000-4000-8000-000000000001", "status": "pending", "goal": "new"}]');
EXECUTE rest_upsert('[{"run_id": "40000000-0000-4000-8000-000000000001", "user_id": "a0000000-0000-4000-8000-000000000001", "status": "processing", "goal": "edu_context"}]');
INSERT INTO spar_runs AS r (run_id, user_id, status, goal) VALUES ('40000000-0000-4000-8000-000000000001', auth.uid(), 'pending', 'ignored')
ON CONFLICT (run_id) DO UPDATE SET status = 'completed', quality_score = 0.5 WHERE r.status = 'processing' RETURNING status, quality_score, goal;
INSERT INTO spar_runs AS r (run_id, user_id, status, goal) VALUES ('40000000-0000-4000-8000-000000000001', auth.uid(), 'pending', 'ignored')
ON CONFLICT (run_id) DO UPDATE SET status = 'completed', quality_score = 1 WHERE r.status = 'processing' RETURNING status, quality_score, goal;
-- the row of somebody else
SELECT pg_temp.try($$INSERT INTO spar_runs (run_id, user_id, goal) VALUES ('20000000-0000-4000-8000-000000000001', auth.uid(), 'stolen')
    ON CONFLICT (run_id) DO UPDATE SET goal = EXCLUDED.goal$$) AS stolen;
:as_service
SELECT goal, user_id FROM spar_runs WHERE run_id = '20000000-0000-4000-8000-000000000001';
-- a server that works through a queue of its own
BEGIN;
UPDATE spar_runs SET status = 'processing' WHERE run_id = (SELECT run_id FROM spar_runs WHERE status = 'pending' AND goal = 'new' ORDER BY created_at LIMIT 1 FOR UPDATE SKIP LOCKED)
RETURNING run_id, status;
SELECT status FROM spar_runs WHERE run_id = '40000000-0000-4000-8000-000000000002' FOR UPDATE;
UPDATE spar_runs SET status = 'failed', error_message = 'x' WHERE run_id = '40000000-0000-4000-8000-000000000002' RETURNING status;
COMMIT;
RESET ROLE;
