\set ECHO queries
-- the application's own table, as it was
CREATE TABLE spar_runs (run_id uuid PRIMARY KEY, user_id text, status text, goal text, quality_score numeric,
                        created_at timestamptz, completed_at timestamptz);
INSERT INTO spar_runs VALUES
    ('55555555-5555-4555-8555-555555555501', 'alice', 'completed', 'edu_context', 7.5, '2024-05-01 10:00+00', '2024-05-01 10:00:02+00'),
    ('55555555-5555-4555-8555-555555555502', 'alice', 'lost', 'edu_context', NULL, '2024-05-01 11:00+00', NULL);
-- a view takes its place, and its rows are copied
BEGIN;
ALTER TABLE spar_runs RENAME TO spar_runs_old;
SELECT unnest(run_tracker.create_compat('spar', 'public', '{"user_id": "text"}')) AS made;
SELECT copied, refused, refusals -> 0 ->> 'message' AS why FROM run_tracker.import_table('spar', 'spar_runs_old', 'spar_runs');
COMMIT;
-- and the application goes on
INSERT INTO spar_runs (run_id, user_id, goal) VALUES ('55555555-5555-4555-8555-555555555503', 'alice', 'edu_context')
ON CONFLICT (run_id) DO NOTHING RETURNING status;
UPDATE spar_runs SET status = 'completed', quality_score = 9 WHERE run_id = '55555555-5555-4555-8555-555555555503' AND status = 'pending'
RETURNING status, processing_duration_ms >= 0 AS measured;
SELECT user_id, total_runs, completed_runs, success_rate FROM spar_user_stats('alice');
DO $$
BEGIN
    IF (SELECT sum(quality_score) FROM spar_runs WHERE run_id::text LIKE '5555%') IS DISTINCT FROM 16.5 THEN
        RAISE EXCEPTION 'the application did not find its runs';
    END IF;
END
$$;
