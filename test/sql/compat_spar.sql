--
-- What the view of SPAR adds to its life on a table (spar_views.sql): functions, computed columns, and what is refused.
--
\getenv abs_srcdir PG_ABS_SRCDIR
\set common :abs_srcdir '/sql/common.psql'
\i :common
CALL pg_temp.forget();

CREATE SCHEMA regress_spar;
GRANT USAGE ON SCHEMA regress_spar TO PUBLIC;
CREATE ROLE regress_spar_client;
CREATE ROLE regress_spar_reader;
CREATE ROLE regress_spar_service;
CREATE ROLE regress_spar_stranger;
SELECT run_tracker.grant_client('regress_spar_client');
SELECT run_tracker.grant_reader('regress_spar_reader');
SELECT run_tracker.grant_service('regress_spar_service');
SELECT unnest(run_tracker.create_compat('spar', 'regress_spar'));
SET search_path = regress_spar;
\set alice 'a0000000-0000-4000-8000-00000000000a'
\set as_alice 'SET ROLE regress_spar_client; SET request.jwt.claims = ''{"sub": "a0000000-0000-4000-8000-00000000000a"}'';'
\set as_service 'SET ROLE regress_spar_service; RESET request.jwt.claims;'

-- what the database computes is not to be assigned by clients, and by services only when they insert
:as_alice
INSERT INTO spar_runs (run_id, goal, created_at, started_at, completed_at, updated_at, processing_duration_ms)
VALUES ('10000000-0000-4000-8000-00000000000a', 'edu_context', '2001-01-01', '2001-01-01', '2001-01-01', '2001-01-01', 7)
RETURNING status, created_at > '2026-01-01' AS created, started_at, completed_at, updated_at > '2026-01-01' AS updated, processing_duration_ms;
UPDATE spar_runs SET status = 'processing', created_at = '2001-01-01', processing_duration_ms = 7 WHERE run_id = '10000000-0000-4000-8000-00000000000a'
RETURNING created_at > '2026-01-01' AS created, started_at >= created_at AS started, processing_duration_ms;
:as_service
INSERT INTO spar_runs (run_id, user_id, status, created_at, started_at, completed_at, updated_at, processing_duration_ms)
VALUES ('10000000-0000-4000-8000-00000000000b', :'alice', 'completed', '2001-01-01', '2001-01-02', '2001-01-03', '2001-01-04', 7)
RETURNING created_at = '2001-01-01' AS created, started_at = '2001-01-02' AS started, completed_at = '2001-01-03' AS completed,
    updated_at = '2001-01-04' AS updated, processing_duration_ms;
UPDATE spar_runs SET completed_at = now(), processing_duration_ms = 8 WHERE run_id = '10000000-0000-4000-8000-00000000000b'
RETURNING completed_at = '2001-01-03' AS completed, processing_duration_ms;
-- a run of nobody
INSERT INTO spar_runs (run_id, goal) VALUES ('10000000-0000-4000-8000-00000000000c', 'nobody') RETURNING user_id;
SELECT user_id = '' AS nobody FROM run_tracker.runs WHERE run_id = '10000000-0000-4000-8000-00000000000c';
:as_alice
SELECT count(*) AS of_nobody FROM spar_runs WHERE user_id IS NULL;

-- the columns of a JSON column change on their own, and what others keep there stays
RESET ROLE;
UPDATE run_tracker.runs SET result = '{"tool": "x", "quality_score": "no number", "insights": null}', metadata = '{"steps": 1}'
WHERE run_id = '10000000-0000-4000-8000-00000000000a';
:as_alice
SELECT quality_score, insights, step_results FROM spar_runs WHERE run_id = '10000000-0000-4000-8000-00000000000a';
UPDATE spar_runs SET quality_score = 0.5, step_results = '[2]' WHERE run_id = '10000000-0000-4000-8000-00000000000a' RETURNING quality_score, insights, step_results;
SELECT result, metadata FROM run_tracker.runs WHERE run_id = '10000000-0000-4000-8000-00000000000a';
UPDATE spar_runs SET quality_score = NULL WHERE run_id = '10000000-0000-4000-8000-00000000000a' RETURNING quality_score;
SELECT result FROM run_tracker.runs WHERE run_id = '10000000-0000-4000-8000-00000000000a';

RESET ROLE;
UPDATE run_tracker.runs SET result = '[1]' WHERE run_id = '10000000-0000-4000-8000-00000000000a';
:as_alice
UPDATE spar_runs SET insights = '"x"' WHERE run_id = '10000000-0000-4000-8000-00000000000a' RETURNING insights;
SELECT result FROM run_tracker.runs WHERE run_id = '10000000-0000-4000-8000-00000000000a';

-- a client may begin where it likes, if the lifecycle allows it
INSERT INTO spar_runs (run_id, status) VALUES ('10000000-0000-4000-8000-00000000000d', 'completed') RETURNING status, completed_at >= created_at AS completed;
SELECT from_status, to_status FROM run_tracker.transitions WHERE run_id = '10000000-0000-4000-8000-00000000000d' ORDER BY seq;
CALL pg_temp.try($$UPDATE spar_runs SET status = 'processing' WHERE run_id = '10000000-0000-4000-8000-00000000000d'$$);
CALL pg_temp.try($$INSERT INTO spar_runs (status) VALUES ('done')$$);
SELECT count(*) FROM spar_runs;

-- what is refused
CALL pg_temp.try($$UPDATE spar_runs SET run_id = gen_random_uuid()$$);
CALL pg_temp.try($$UPDATE spar_runs SET user_id = NULL$$);
CALL pg_temp.try($$INSERT INTO spar_runs (user_id) VALUES (gen_random_uuid())$$);
:as_service
CALL pg_temp.try($$INSERT INTO spar_runs (run_id, user_id) VALUES ('10000000-0000-4000-8000-00000000000a', gen_random_uuid()) RETURNING user_id$$);
SET ROLE regress_spar_reader;
SET request.jwt.claims = '{"sub": "a0000000-0000-4000-8000-00000000000a"}';
SELECT count(*) FROM spar_runs;
CALL pg_temp.try($$INSERT INTO spar_runs (goal) VALUES ('x')$$);
CALL pg_temp.try($$UPDATE spar_runs SET goal = 'x'$$);
CALL pg_temp.try($$DELETE FROM spar_runs$$);
SET ROLE regress_spar_stranger;
CALL pg_temp.try($$SELECT FROM spar_runs$$);
CALL pg_temp.try($$INSERT INTO spar_runs (goal) VALUES ('x')$$);
CALL pg_temp.try($$DELETE FROM spar_runs$$);
CALL pg_temp.try($$CREATE TRIGGER t INSTEAD OF DELETE ON spar_runs FOR EACH ROW EXECUTE FUNCTION run_tracker.compat_delete('runs', 'run_id', 'run_id')$$);
-- a view of one's own with that trigger would delete one's own rows only, but cannot even be made
:as_alice
CREATE TEMP VIEW mine AS SELECT run_id FROM run_tracker.runs;
CALL pg_temp.try($$CREATE TRIGGER t INSTEAD OF DELETE ON mine FOR EACH ROW EXECUTE FUNCTION run_tracker.compat_delete('runs', 'run_id', 'run_id')$$);
RESET ROLE;
-- the trigger takes its arguments for names
CREATE VIEW yours AS SELECT run_id, NULL::uuid AS nothing FROM run_tracker.runs;
CREATE TRIGGER t INSTEAD OF DELETE ON yours FOR EACH ROW EXECUTE FUNCTION run_tracker.compat_delete('runs r WHERE true; --', 'run_id', 'run_id');
CALL pg_temp.try('DELETE FROM yours');
CREATE OR REPLACE TRIGGER t INSTEAD OF DELETE ON yours FOR EACH ROW EXECUTE FUNCTION run_tracker.compat_delete('runs', 'run_id = r.run_id OR run_id', 'run_id');
CALL pg_temp.try('DELETE FROM yours');
CREATE OR REPLACE TRIGGER t INSTEAD OF DELETE ON yours FOR EACH ROW EXECUTE FUNCTION run_tracker.compat_delete('runs', 'run_id', 'nothing');
CALL pg_temp.try('DELETE FROM yours');
CREATE OR REPLACE TRIGGER t INSTEAD OF DELETE ON yours FOR EACH ROW EXECUTE FUNCTION run_tracker.compat_delete('runs');
CALL pg_temp.try('DELETE FROM yours');
CREATE OR REPLACE TRIGGER t INSTEAD OF UPDATE ON yours FOR EACH ROW EXECUTE FUNCTION run_tracker.compat_delete('runs', 'run_id', 'run_id');
CALL pg_temp.try('UPDATE yours SET run_id = run_id');
DROP VIEW yours;

-- functions
:as_service
UPDATE run_tracker.runs SET status = 'failed', error = 'x' WHERE run_id = '10000000-0000-4000-8000-00000000000a';
SELECT user_id, total_runs, completed_runs, failed_runs, success_rate, avg_duration_ms >= 0 AS measured FROM spar_user_stats() ORDER BY user_id;
SELECT total_runs, success_rate FROM spar_user_stats(:'alice');
SELECT total_runs FROM spar_user_stats('b0000000-0000-4000-8000-00000000000b');
INSERT INTO spar_runs (run_id, user_id, status, goal, created_at) VALUES
    ('10000000-0000-4000-8000-00000000000e', :'alice', 'processing', 'stuck', now() - interval '6 minutes'),
    ('10000000-0000-4000-8000-00000000000f', :'alice', 'pending', 'not yet', now() - interval '4 minutes');
SELECT run_id, user_id = :'alice' AS own, status, goal, stuck_duration >= interval '6 minutes' AS long FROM spar_stuck_runs();
SELECT run_id, status, goal FROM spar_stuck_runs('1 minute');
:as_alice
SELECT user_id = :'alice' AS own, total_runs FROM spar_user_stats();
SELECT cleanup_spar_runs();
SELECT cleanup_spar_runs('-1 day');
:as_service
SELECT run_id FROM spar_runs ORDER BY run_id;

-- a callback fills in what the view shows; the entry is written when a run finishes, whoever finishes it
RESET ROLE;
CREATE TABLE entries (entry_id uuid PRIMARY KEY, analysis jsonb);
INSERT INTO entries (entry_id) VALUES ('e0000000-0000-4000-8000-000000000001'), ('e0000000-0000-4000-8000-000000000002');
CREATE FUNCTION write_entry(run jsonb) RETURNS void LANGUAGE sql AS
    $$UPDATE regress_spar.entries SET analysis = run -> 'result' WHERE entry_id::text = run ->> 'subject_id'$$;
SELECT run_tracker.on_finish('spar', 'write_entry(jsonb)') IS NOT NULL AS registered;
SELECT secret FROM run_tracker.create_callback_key('regress_spar', 'secret', 'It is a secret, do not tell it');
:as_alice
INSERT INTO spar_runs (run_id, journal_entry_id) VALUES
    ('10000000-0000-4000-8000-00000000001a', 'e0000000-0000-4000-8000-000000000001'),
    ('10000000-0000-4000-8000-00000000001b', 'e0000000-0000-4000-8000-000000000002');
UPDATE spar_runs SET status = 'completed', quality_score = 0.5 WHERE run_id = '10000000-0000-4000-8000-00000000001b' RETURNING status;
RESET ROLE;
SELECT run_tracker.callback_secret('{"runId": "10000000-0000-4000-8000-00000000001a", "status": "processing", "plan": ["p"], "stepResults": [1]}',
                                   'It is a secret, do not tell it') ->> 'outcome' AS outcome;
SELECT status, plan, step_results FROM spar_runs WHERE run_id = '10000000-0000-4000-8000-00000000001a';
SELECT run_tracker.callback_secret('{"runId": "10000000-0000-4000-8000-00000000001a", "status": "completed", "stepResults": [1, 2], "reflections": ["r"],
    "metrics": {"ms": 7}, "results": {"quality_score": 8.5, "competencies": ["c"], "recommendations": ["do"], "insights": {"calm": true}}}',
                                   'It is a secret, do not tell it') ->> 'outcome' AS outcome;
:as_alice
SELECT status, plan, step_results, reflections, quality_score, competencies, recommendations, insights, completed_at IS NOT NULL AS completed
FROM spar_runs WHERE run_id = '10000000-0000-4000-8000-00000000001a';
UPDATE spar_runs SET step_results = step_results || '[3]' WHERE run_id = '10000000-0000-4000-8000-00000000001a' RETURNING step_results;
RESET ROLE;
SELECT * FROM entries ORDER BY entry_id;
SELECT run_tracker.drop_on_finish(kind_or_lifecycle => 'spar', function => 'write_entry(jsonb)');
DELETE FROM run_tracker.callbacks;
DELETE FROM run_tracker.callback_keys WHERE name = 'regress_spar';
DROP FUNCTION write_entry(jsonb);
DROP TABLE entries;

-- what nobody calls back for times out after 60 seconds, as the worker does it
CALL pg_temp.forget();
:as_alice
INSERT INTO spar_runs (run_id) VALUES ('10000000-0000-4000-8000-00000000001c');
RESET ROLE;
SELECT run_tracker.expire_runs(now => created_at + interval '59 seconds') AS early, run_tracker.expire_runs(now => created_at + interval '61 seconds') AS late
FROM spar_runs;
:as_alice
SELECT status, error_message IS NOT NULL AS explained, processing_duration_ms >= 0 AS measured, completed_at IS NOT NULL AS completed FROM spar_runs;
UPDATE spar_runs SET status = 'pending' RETURNING run_id, status, error_message, completed_at;

RESET ROLE;
CALL pg_temp.forget();
RESET search_path;
SELECT run_tracker.drop_compat('spar', 'regress_spar');
DROP SCHEMA regress_spar;
DROP OWNED BY regress_spar_client, regress_spar_reader, regress_spar_service;
DROP ROLE regress_spar_client, regress_spar_reader, regress_spar_service, regress_spar_stranger;
