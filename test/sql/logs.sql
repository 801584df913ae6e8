--
-- Logs: lines of a run, with levels; read back in order, filtered by level and category.
--
\getenv abs_srcdir PG_ABS_SRCDIR
\set common :abs_srcdir '/sql/common.psql'
\i :common

\set run '''80000000-0000-0000-0000-000000000001'''
SELECT run_tracker.create_run(:run, user_id => 'alice');
SELECT run_tracker.create_run('80000000-0000-0000-0000-000000000002', user_id => 'bob');

SELECT run_tracker.add_log(:run, 'plain');
SELECT run_tracker.add_log(:run, 'all', 'ERROR', 'category', 'step', '{"d": [1]}', '81000000-0000-0000-0000-000000000001');
SELECT run_tracker.add_log(:run, 'no level', NULL, 'category');
INSERT INTO run_tracker.logs (run_id, level, message) VALUES (:run, 'DEBUG', 'd'), (:run, 'WARNING', 'w'), (:run, 'CRITICAL', 'c');
INSERT INTO run_tracker.logs (run_id, message) VALUES (:run, 'default') RETURNING seq, user_id, level, created_at IS NOT NULL AS dated;
SELECT run_tracker.add_log('80000000-0000-0000-0000-000000000002', 'of bob') AS first_of_bob;

SELECT seq, level, message, category, step_name, details, task_id FROM run_tracker.run_logs(:run);
SELECT array_agg(message) AS warnings FROM run_tracker.run_logs(:run, 'WARNING');
SELECT array_agg(message) AS critical FROM run_tracker.run_logs(:run, 'CRITICAL');
SELECT count(*) AS all_levels FROM run_tracker.run_logs(:run, NULL);
SELECT array_agg(message) AS category FROM run_tracker.run_logs(:run, category => 'category');
SELECT array_agg(message) AS both FROM run_tracker.run_logs(:run, 'ERROR', 'category');
SELECT count(*) AS of_no_run FROM run_tracker.run_logs('80000000-0000-0000-0000-0000000000ff');
SELECT count(*) AS of_null FROM run_tracker.run_logs(NULL);
SELECT run_id = :run AS of_alice, error_count FROM run_tracker.run_summary ORDER BY run_id;

SELECT level, run_tracker.log_level_rank(level) FROM unnest('{DEBUG,INFO,WARNING,ERROR,CRITICAL,NULL}'::text[]) level;
CALL pg_temp.try($$SELECT run_tracker.log_level_rank('debug')$$);

-- what cannot be
CALL pg_temp.try($$SELECT run_tracker.add_log('80000000-0000-0000-0000-0000000000ff', 'x')$$);
CALL pg_temp.try($$SELECT run_tracker.add_log(NULL, 'x')$$);
CALL pg_temp.try($$SELECT run_tracker.add_log('80000000-0000-0000-0000-000000000001', NULL)$$);
CALL pg_temp.try($$SELECT run_tracker.add_log('80000000-0000-0000-0000-000000000001', 'x', 'NOTICE')$$);
CALL pg_temp.try($$SELECT count(*) FROM run_tracker.run_logs('80000000-0000-0000-0000-000000000001', 'NOTICE')$$);
CALL pg_temp.try($$INSERT INTO run_tracker.logs (run_id, message, level) VALUES ('80000000-0000-0000-0000-000000000001', 'x', 'NOTICE')$$);
CALL pg_temp.try($$INSERT INTO run_tracker.logs (run_id) VALUES ('80000000-0000-0000-0000-000000000001')$$);
CALL pg_temp.try($$INSERT INTO run_tracker.logs (run_id, message) VALUES ('80000000-0000-0000-0000-0000000000ff', 'x')$$);
CALL pg_temp.try($$INSERT INTO run_tracker.logs (message) VALUES ('x')$$);

-- a log line that fails can be ignored with a savepoint: the caller's work goes on
BEGIN;
SELECT run_tracker.start_run(:run);
SAVEPOINT log;
SELECT run_tracker.add_log(:run, 'x', 'NOTICE');
ROLLBACK TO log;
SELECT run_tracker.add_log(:run, 'in the same transaction') > 7 AS written;
COMMIT;
SELECT status FROM run_tracker.runs WHERE run_id = :run;

-- logging to a finished run is fine
SELECT run_tracker.complete_run(:run);
SELECT run_tracker.add_log(:run, 'after the end', 'CRITICAL') > 7 AS written;
SELECT error_count FROM run_tracker.run_summary WHERE run_id = :run;

-- clients append to their own logs, and change nothing there
CREATE ROLE regress_logs_client;
SELECT run_tracker.grant_client('regress_logs_client');
SET ROLE regress_logs_client;
SET request.jwt.claims = '{"sub": "bob"}';
SELECT run_tracker.add_log('80000000-0000-0000-0000-000000000002', 'own');
SELECT count(*) FROM run_tracker.run_logs('80000000-0000-0000-0000-000000000002');
SELECT count(*) FROM run_tracker.run_logs(:run);
CALL pg_temp.try($$SELECT run_tracker.add_log('80000000-0000-0000-0000-000000000001', 'x')$$);
CALL pg_temp.try($$UPDATE run_tracker.logs SET message = 'x'$$);
CALL pg_temp.try($$DELETE FROM run_tracker.logs$$);
CALL pg_temp.try($$INSERT INTO run_tracker.logs (run_id, seq, message) VALUES ('80000000-0000-0000-0000-000000000002', 1000000, 'x')$$);
RESET ROLE;
RESET request.jwt.claims;

SELECT count(*) AS wrong FROM run_tracker.check_totals();
DELETE FROM run_tracker.runs;
SELECT count(*) FROM run_tracker.logs;
DROP OWNED BY regress_logs_client;
DROP ROLE regress_logs_client;
