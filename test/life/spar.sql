-- The life of SPAR runs: the statements of an application that has a table or view spar_runs in its search_path.

-- the table of the application that the runs are about
CREATE TABLE journal_entries (id uuid PRIMARY KEY, user_id uuid NOT NULL, entry text, analysis jsonb);
GRANT SELECT, UPDATE ON journal_entries TO regress_life_user, regress_life_service;
INSERT INTO journal_entries (id, user_id, entry) VALUES
    ('e0000000-0000-4000-8000-000000000001', :'alice', 'Today we read Goethe'),
    ('e0000000-0000-4000-8000-000000000002', :'alice', 'Äpfel & 日本語'),
    ('e0000000-0000-4000-8000-000000000003', :'bob', 'Maths');

--
-- A user creates runs, with ids of his own: as supabase-js has PostgREST do it, as drivers do, and with as little as possible
--
:as_alice
PREPARE rest_insert (json) AS
WITH pgrst_source AS (
    INSERT INTO "spar_runs"("goal", "inputs", "journal_entry_id", "run_id", "settings", "status", "user_id")
    SELECT pgrst_body."goal", pgrst_body."inputs", pgrst_body."journal_entry_id", pgrst_body."run_id", pgrst_body."settings", pgrst_body."status", pgrst_body."user_id"
    FROM (SELECT $1 AS json_data) pgrst_payload,
        LATERAL (SELECT "goal", "inputs", "journal_entry_id", "run_id", "settings", "status", "user_id" FROM json_to_record(pgrst_payload.json_data)
            AS _("goal" text, "inputs" jsonb, "journal_entry_id" uuid, "run_id" uuid, "settings" jsonb, "status" text, "user_id" uuid)) pgrst_body
    RETURNING "spar_runs"."run_id", "spar_runs"."status", "spar_runs"."goal", "spar_runs"."inputs")
SELECT pg_catalog.count(_postgrest_t) AS page_total, coalesce(json_agg(_postgrest_t), '[]') AS body
FROM (SELECT "pgrst_source".* FROM "pgrst_source") _postgrest_t;
EXECUTE rest_insert('{"run_id": "10000000-0000-4000-8000-000000000001", "user_id": "a0000000-0000-4000-8000-000000000001",
    "journal_entry_id": "e0000000-0000-4000-8000-000000000001", "status": "pending", "goal": "edu_context",
    "inputs": {"entry": "Today we read Goethe", "language": "de"}, "settings": {"model": "m1"}}');
PREPARE driver_insert (uuid, uuid, uuid, varchar, jsonb) AS
INSERT INTO spar_runs (run_id, user_id, journal_entry_id, goal, inputs, status, created_at, updated_at)
VALUES ($1, $2, $3, $4, $5, 'pending', now(), now()) RETURNING run_id, user_id, journal_entry_id, status, goal, inputs;
EXECUTE driver_insert('10000000-0000-4000-8000-000000000002', :'alice', 'e0000000-0000-4000-8000-000000000002', 'edu_context',
    '{"entry": "Äpfel & 日本語 😀", "quote": "''); DROP TABLE journal_entries; --"}');
INSERT INTO spar_runs (user_id, goal) VALUES (auth.uid(), 'summary') RETURNING run_id IS NOT NULL AS has_id, status, user_id = auth.uid() AS own;
INSERT INTO spar_runs (run_id, user_id, goal, inputs) VALUES
    ('10000000-0000-4000-8000-000000000003', auth.uid(), 'planning', '{"batch": 1}'),
    ('10000000-0000-4000-8000-000000000004', auth.uid(), 'planning', '{"batch": 2}')
RETURNING run_id, status, started_at, completed_at, processing_duration_ms, quality_score;
:as_bob
INSERT INTO spar_runs (run_id, user_id, journal_entry_id, goal)
VALUES ('20000000-0000-4000-8000-000000000001', :'bob', 'e0000000-0000-4000-8000-000000000003', 'edu_context') RETURNING status;

--
-- The application marks a run as processing, notes plan and steps, and completes it, with everything that it used to maintain itself
--
:as_alice
UPDATE spar_runs SET status = 'processing', started_at = now(), updated_at = now() WHERE run_id = '10000000-0000-4000-8000-000000000001'
RETURNING status, started_at >= created_at AS started, completed_at;
UPDATE spar_runs SET status = 'processing' WHERE run_id = '10000000-0000-4000-8000-000000000001' AND user_id = auth.uid() RETURNING status;
UPDATE spar_runs SET plan = '["analyse", "reflect"]', settings = settings || '{"temperature": 0.2}' WHERE run_id = '10000000-0000-4000-8000-000000000001'
RETURNING plan, settings;
UPDATE spar_runs SET step_results = coalesce(step_results, '[]') || '[{"step": "analyse", "ok": true}]' WHERE run_id = '10000000-0000-4000-8000-000000000001';
UPDATE spar_runs SET step_results = coalesce(step_results, '[]') || '[{"step": "reflect", "ok": true}]' WHERE run_id = '10000000-0000-4000-8000-000000000001';
SELECT status, plan, step_results FROM spar_runs WHERE run_id = '10000000-0000-4000-8000-000000000001';
BEGIN;
WITH done AS (
    UPDATE spar_runs SET status = 'completed', reflections = '[{"what": "clear", "depth": 2}]', quality_score = 0.875, competencies = '["reading", "writing"]',
        recommendations = '[{"title": "Faust", "weight": 0.5}]', insights = '{"mood": "curious"}', completed_at = now(), updated_at = now(), processing_duration_ms = 4711
    WHERE run_id = '10000000-0000-4000-8000-000000000001' AND status IN ('pending', 'processing')
    RETURNING journal_entry_id, insights, quality_score)
UPDATE journal_entries j SET analysis = jsonb_build_object('insights', done.insights, 'quality_score', done.quality_score)
FROM done WHERE j.id = done.journal_entry_id RETURNING j.entry, j.analysis;
COMMIT;
SELECT status, reflections, quality_score, competencies, recommendations, insights, error_message, completed_at >= started_at AS completed,
    processing_duration_ms >= 0 AS measured, inputs ->> 'language' AS language
FROM spar_runs WHERE run_id = '10000000-0000-4000-8000-000000000001';

-- statements that change nothing, as applications and ORMs send them
UPDATE spar_runs SET status = status, updated_at = now() WHERE run_id = '10000000-0000-4000-8000-000000000001' RETURNING status;
UPDATE spar_runs SET status = 'completed', completed_at = now() WHERE run_id = '10000000-0000-4000-8000-000000000001' RETURNING status, quality_score;
SELECT created_at, started_at, completed_at, updated_at, processing_duration_ms FROM spar_runs WHERE run_id = '10000000-0000-4000-8000-000000000001' \gset before_
UPDATE spar_runs SET user_id = 'a0000000-0000-4000-8000-000000000001', journal_entry_id = 'e0000000-0000-4000-8000-000000000001', status = 'completed', goal = 'edu_context',
    inputs = '{"language": "de", "entry": "Today we read Goethe"}', settings = '{"model": "m1", "temperature": 0.2}', plan = '["analyse", "reflect"]',
    step_results = '[{"step": "analyse", "ok": true}, {"step": "reflect", "ok": true}]', reflections = '[{"what": "clear", "depth": 2}]', quality_score = 0.875,
    competencies = '["reading", "writing"]', recommendations = '[{"title": "Faust", "weight": 0.5}]', insights = '{"mood": "calm"}', error_message = NULL,
    processing_duration_ms = :before_processing_duration_ms, created_at = :'before_created_at', started_at = :'before_started_at', completed_at = :'before_completed_at',
    updated_at = :'before_updated_at'
WHERE spar_runs.run_id = '10000000-0000-4000-8000-000000000001' AND updated_at = :'before_updated_at' RETURNING insights;
SELECT status, quality_score, step_results, insights, created_at = :'before_created_at' AS created, started_at = :'before_started_at' AS started,
    completed_at = :'before_completed_at' AS completed, processing_duration_ms = :before_processing_duration_ms AS measured
FROM spar_runs WHERE run_id = '10000000-0000-4000-8000-000000000001';

--
-- The callback of the automation server: it knows the id and has the result; again; too late; and in the wrong order
--
:as_service
PREPARE callback (uuid, varchar, jsonb) AS
UPDATE spar_runs SET status = $2, quality_score = ($3 ->> 'quality_score')::numeric, competencies = $3 -> 'competencies', insights = $3 -> 'insights',
    error_message = $3 ->> 'error'
WHERE run_id = $1 AND status IN ('pending', 'processing', 'timeout') RETURNING run_id, status, quality_score, insights, error_message;
UPDATE spar_runs SET status = 'processing' WHERE run_id = '10000000-0000-4000-8000-000000000002' RETURNING status;
EXECUTE callback('10000000-0000-4000-8000-000000000002', 'completed', '{"quality_score": 0.5, "competencies": ["日本語"], "insights": {"fun": true}}');
EXECUTE callback('10000000-0000-4000-8000-000000000002', 'completed', '{"quality_score": 0.1}');
EXECUTE callback('10000000-0000-4000-8000-000000000002', 'failed', '{"error": "late"}');
EXECUTE callback('99999999-0000-4000-8000-000000000001', 'completed', '{}');
-- a run that was never marked as processing
EXECUTE callback('20000000-0000-4000-8000-000000000001', 'completed', '{"quality_score": 1, "insights": ["done"]}');

--
-- Failure, retry under the same id, a time-out, and the result that comes after it
--
:as_alice
WITH started AS (
    UPDATE spar_runs SET status = 'processing' WHERE goal = 'planning' AND user_id = auth.uid() AND status = 'pending' RETURNING run_id, status)
SELECT * FROM started ORDER BY run_id;
UPDATE spar_runs SET status = 'failed', error_message = 'model "m1" is overloaded', completed_at = now() WHERE run_id = '10000000-0000-4000-8000-000000000003'
RETURNING status, error_message, completed_at IS NOT NULL AS ended, processing_duration_ms >= 0 AS measured;
UPDATE spar_runs SET status = 'pending', error_message = NULL, started_at = NULL, completed_at = NULL, processing_duration_ms = NULL, updated_at = now()
WHERE run_id = '10000000-0000-4000-8000-000000000003' AND status IN ('failed', 'timeout') RETURNING run_id, status, error_message, completed_at, processing_duration_ms, inputs;
UPDATE spar_runs SET status = 'processing' WHERE run_id = '10000000-0000-4000-8000-000000000003';
UPDATE spar_runs SET status = 'completed', quality_score = 0.75 WHERE run_id = '10000000-0000-4000-8000-000000000003' RETURNING status, error_message, quality_score;
:as_service
UPDATE spar_runs SET status = 'timeout', error_message = 'no answer within 60 s', completed_at = now()
WHERE status IN ('pending', 'processing') AND run_id = '10000000-0000-4000-8000-000000000004' RETURNING run_id, status, error_message;
EXECUTE callback('10000000-0000-4000-8000-000000000004', 'completed', '{"quality_score": 0.25}');
SELECT status, quality_score, error_message FROM spar_runs WHERE run_id = '10000000-0000-4000-8000-000000000004';

--
-- Jobs of the server: history that it brings along, stuck runs, statistics, clean-up
--
INSERT INTO spar_runs (run_id, user_id, status, goal, quality_score, error_message, created_at, started_at, completed_at, processing_duration_ms) VALUES
    ('30000000-0000-4000-8000-000000000001', :'bob', 'completed', 'summary', 0.5, NULL, now() - interval '40 days', now() - interval '40 days', now() - interval '40 days' + interval '2 s', 2000),
    ('30000000-0000-4000-8000-000000000002', :'bob', 'failed', 'summary', NULL, 'x', now() - interval '35 days', now() - interval '35 days', now() - interval '35 days' + interval '4 s', 4000),
    ('30000000-0000-4000-8000-000000000003', :'bob', 'timeout', 'summary', NULL, 'x', now() - interval '3 days', now() - interval '3 days', now() - interval '3 days' + interval '60 s', 60000),
    ('30000000-0000-4000-8000-000000000004', :'bob', 'processing', 'summary', NULL, NULL, now() - interval '10 minutes', now() - interval '9 minutes', NULL, NULL);
SELECT run_id, status, created_at < now() - interval '30 days' AS old, processing_duration_ms, completed_at - started_at AS took
FROM spar_runs WHERE user_id = :'bob' AND goal = 'summary' AND status <> 'processing' ORDER BY created_at;
SELECT run_id, user_id, status, goal, now() - created_at >= interval '5 minutes' AS stuck FROM spar_runs
WHERE status IN ('pending', 'processing') AND created_at < now() - interval '5 minutes' ORDER BY created_at;
SELECT user_id, count(*) AS total_runs, count(*) FILTER (WHERE status = 'completed') AS completed_runs, count(*) FILTER (WHERE status IN ('failed', 'timeout')) AS failed_runs,
    round(100.0 * count(*) FILTER (WHERE status = 'completed') / count(*), 2) AS success_rate, avg(processing_duration_ms) >= 0 AS measured
FROM spar_runs GROUP BY user_id ORDER BY user_id;
SELECT goal, count(*), avg(processing_duration_ms)::bigint, min(processing_duration_ms), max(processing_duration_ms) FROM spar_runs
WHERE status = 'completed' AND user_id = :'bob' AND goal = 'summary' GROUP BY goal;
UPDATE spar_runs SET status = 'timeout', error_message = 'timed out' WHERE status IN ('pending', 'processing') AND created_at < now() - interval '60 seconds'
RETURNING run_id, status;
WITH deleted AS (
    DELETE FROM spar_runs WHERE status IN ('completed', 'failed', 'timeout') AND created_at < now() - interval '30 days' RETURNING run_id)
SELECT count(*) FROM deleted;
SELECT count(*) FROM spar_runs WHERE user_id = :'bob';

--
-- What users read, and that it is theirs
--
:as_alice
SELECT run_id, goal, status FROM spar_runs WHERE user_id = auth.uid() AND created_at > now() - interval '24 hours' AND goal <> 'summary' ORDER BY created_at DESC, run_id DESC LIMIT 10;
SELECT run_id FROM spar_runs WHERE journal_entry_id = 'e0000000-0000-4000-8000-000000000002';
SELECT run_id FROM spar_runs WHERE inputs @> '{"batch": 2}';
SELECT count(*) AS of_others FROM spar_runs WHERE user_id <> auth.uid();
SELECT count(*) AS of_bob FROM spar_runs WHERE run_id = '20000000-0000-4000-8000-000000000001';
UPDATE spar_runs SET insights = '"stolen"' WHERE run_id = '20000000-0000-4000-8000-000000000001' RETURNING run_id;
DELETE FROM spar_runs WHERE run_id = '20000000-0000-4000-8000-000000000001' RETURNING run_id;
DELETE FROM spar_runs WHERE goal = 'summary' AND user_id = auth.uid() RETURNING goal, status;
-- a request of PostgREST: role and claims for one transaction
RESET ROLE;
BEGIN;
SELECT set_config('role', 'regress_life_user', true) AS role, set_config('request.jwt.claims', '{"sub": "b0000000-0000-4000-8000-000000000001"}', true) AS claims;
SELECT run_id, status, quality_score, insights FROM "spar_runs" WHERE "spar_runs"."goal" = 'edu_context' ORDER BY "spar_runs"."created_at" DESC LIMIT 1 OFFSET 0;
COMMIT;
:as_nobody
SELECT count(*) FROM spar_runs;

--
-- What is refused
--
:as_alice
SELECT pg_temp.code($$INSERT INTO spar_runs (run_id, user_id) VALUES ('not a uuid', auth.uid())$$) AS id,
    pg_temp.code($$INSERT INTO spar_runs (user_id, inputs) VALUES (auth.uid(), '{"open": ')$$) AS inputs,
    pg_temp.code($$UPDATE spar_runs SET quality_score = 'good' WHERE run_id = '10000000-0000-4000-8000-000000000001'$$) AS score,
    pg_temp.code($$INSERT INTO spar_runs (run_id, user_id) VALUES ('20000000-0000-4000-8000-000000000001', auth.uid())$$) AS id_of_bob;
SELECT pg_temp.try($$INSERT INTO spar_runs (user_id, status) VALUES (auth.uid(), 'done')$$) AS unknown_status,
    pg_temp.try($$UPDATE spar_runs SET status = 'done' WHERE run_id = '10000000-0000-4000-8000-000000000001'$$) AS to_unknown_status,
    pg_temp.try($$UPDATE spar_runs SET status = NULL WHERE run_id = '10000000-0000-4000-8000-000000000001'$$) AS to_no_status,
    pg_temp.try($$INSERT INTO spar_runs (user_id) VALUES ('b0000000-0000-4000-8000-000000000001')$$) AS for_bob,
    pg_temp.try($$UPDATE spar_runs SET user_id = 'b0000000-0000-4000-8000-000000000001' WHERE run_id = '10000000-0000-4000-8000-000000000001'$$) AS to_bob;
:as_nobody
SELECT pg_temp.try($$INSERT INTO spar_runs (goal) VALUES ('nobody')$$) AS without_a_user;
:as_service
SELECT count(*) FILTER (WHERE user_id = :'alice') AS alice, count(*) FILTER (WHERE user_id = :'bob') AS bob, count(*) FILTER (WHERE insights::text ~ 'stolen') AS stolen FROM spar_runs;
-- an error leaves a transaction that goes on
BEGIN;
UPDATE spar_runs SET insights = '{"mood": "good"}' WHERE run_id = '10000000-0000-4000-8000-000000000001';
SELECT pg_temp.try($$UPDATE spar_runs SET status = 'done', insights = '{}' WHERE run_id = '10000000-0000-4000-8000-000000000001'$$);
COMMIT;
SELECT insights FROM spar_runs WHERE run_id = '10000000-0000-4000-8000-000000000001';
BEGIN;
DELETE FROM spar_runs;
SELECT count(*) FROM spar_runs;
ROLLBACK;
SELECT count(*) FROM spar_runs;
RESET ROLE;
