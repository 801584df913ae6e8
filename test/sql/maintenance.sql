--
-- Maintenance: purge_runs() deletes what finished long ago, with all that belongs to it, and nothing else; the jobs
-- that call it need pg_cron, which is not there.
--
\getenv abs_srcdir PG_ABS_SRCDIR
\set common :abs_srcdir '/sql/common.psql'
\i :common

CREATE ROLE regress_maintenance_client;
CREATE ROLE regress_maintenance_reader;
CREATE ROLE regress_maintenance_service;
CREATE ROLE regress_maintenance_owner;
SELECT run_tracker.grant_client('regress_maintenance_client'), run_tracker.grant_reader('regress_maintenance_reader'),
       run_tracker.grant_service('regress_maintenance_service') \g /dev/null

-- A run that was created, and finished a minute later if it is finished, this many days ago; with a task, a message, an
-- error, and a transition.
CREATE FUNCTION pg_temp.add(name text, days numeric, status text DEFAULT 'completed', user_id text DEFAULT 'alice') RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    id uuid := run_tracker.uuidv7();
BEGIN
    INSERT INTO run_tracker.runs (run_id, name, status, user_id, created_at, finished_at)
    VALUES (id, name, status, user_id, now() - days * interval '1 day' - interval '1 minute', now() - days * interval '1 day');
    INSERT INTO run_tracker.tasks (run_id, status, input_tokens) VALUES (id, 'completed', 5);
    INSERT INTO run_tracker.messages (run_id, role, content) VALUES (id, 'user', 'hello');
    INSERT INTO run_tracker.logs (run_id, level, message) VALUES (id, 'ERROR', 'broken');
    INSERT INTO run_tracker.transitions (run_id, seq, user_id, from_status, to_status, attempt, state_ms, occurred_at)
    VALUES (id, 1, user_id, 'pending', 'running', 1, 0, now());
END
$$;
-- the runs that are left, and how many rows of each table
\set left 'SELECT string_agg(name, '' '' ORDER BY created_at, name) AS runs, (SELECT count(*) FROM run_tracker.tasks) AS tasks, (SELECT count(*) FROM run_tracker.messages) AS messages, (SELECT count(*) FROM run_tracker.logs) AS logs, (SELECT count(*) FROM run_tracker.transitions) AS transitions, (SELECT count(*) FROM run_tracker.run_totals) AS totals, (SELECT count(*) FROM run_tracker.open_runs) AS open, (SELECT count(*) FROM run_tracker.check_totals()) AS wrong FROM run_tracker.runs;'

SELECT run_tracker.purge_runs();
SELECT pg_temp.add('d' || d, d) FROM unnest('{100,31,30.1,29.9,29,1}'::numeric[]) d \g /dev/null
SELECT pg_temp.add(s, 50, s) FROM unnest('{pending,running,paused,completed,failed,cancelled,timeout}'::text[]) s \g /dev/null
:left
-- by default: 30 days
SELECT run_tracker.purge_runs();
:left
SELECT run_tracker.purge_runs() AS again, run_tracker.purge_runs('29.5 days') AS days, run_tracker.purge_runs(older_than => '30 days', max_runs => 5) AS thirty;
:left
-- down to those that have just finished; what is open stays, however old it is
SELECT run_tracker.purge_runs('0');
:left
-- it goes by the end of a run, not by its beginning
UPDATE run_tracker.runs SET status = 'completed' WHERE name = 'running';
SELECT run_tracker.purge_runs('1 hour') AS hour, run_tracker.purge_runs('1 microsecond') AS at_once;
:left
-- a run that has been taken back to the queue is open again
UPDATE run_tracker.runs SET status = 'failed' WHERE name = 'pending';
SELECT run_tracker.retry_run(run_id) FROM run_tracker.runs WHERE name = 'pending';
SELECT run_tracker.purge_runs('0');
:left
DELETE FROM run_tracker.runs;

-- at most so many, the oldest first
SELECT pg_temp.add('d' || d, d) FROM generate_series(40, 48) d \g /dev/null
SELECT run_tracker.purge_runs(max_runs => 1) AS one, run_tracker.purge_runs(max_runs => 3) AS three;
:left
SELECT run_tracker.purge_runs('43.5 days', 10) AS some, run_tracker.purge_runs(max_runs => 2147483647) AS rest;
:left
-- of some outcomes only
SELECT pg_temp.add(s, 50, s) FROM unnest('{completed,failed,cancelled,timeout}'::text[]) s \g /dev/null
SELECT run_tracker.purge_runs(phases => '{}') AS none, run_tracker.purge_runs(phases => '{timed_out}') AS timed_out,
       run_tracker.purge_runs(phases => '{failed,cancelled,failed}') AS failed_or_cancelled;
:left
SELECT run_tracker.purge_runs('30 days', 10, '{succeeded,timed_out}') AS rest;
:left
-- rolled back
SELECT pg_temp.add('kept', 50) \g /dev/null
BEGIN;
SELECT run_tracker.purge_runs();
ROLLBACK;
:left

-- statistics outlive the runs, folded or not
SELECT u.user_id, u.total, u.open, u.finished, u.successful, u.failed, u.task_count, u.total_tokens FROM run_tracker.user_stats('alice') u \gset before_
SELECT run_tracker.fold_statistics() > 0 AS folded;
SELECT pg_temp.add('folded', 50) \g /dev/null
SELECT run_tracker.fold_statistics(1000000) AS deltas;
SELECT pg_temp.add('not folded', 50) \g /dev/null
SELECT count(*) AS deltas FROM run_tracker.stat_deltas;
SELECT run_tracker.purge_runs(max_runs => 3);
SELECT u.user_id, u.total - :before_total AS total, u.finished - :before_finished AS finished,
       u.successful - :before_successful AS successful, u.failed - :before_failed AS failed,
       u.task_count - :before_task_count AS task_count, u.total_tokens - :before_total_tokens AS total_tokens,
       (SELECT count(*) FROM run_tracker.runs r WHERE r.user_id = u.user_id) AS runs
FROM run_tracker.user_stats('alice') u;
SELECT run_tracker.fold_statistics() > 0 AS folded;
SELECT u.total - :before_total AS total, u.open - :before_open AS open, u.task_count - :before_task_count AS task_count FROM run_tracker.user_stats('alice') u;
DELETE FROM run_tracker.runs;
SELECT pg_temp.add('kept', 50) \g /dev/null

-- bad arguments
CALL pg_temp.try($$SELECT run_tracker.purge_runs(NULL)$$);
CALL pg_temp.try($$SELECT run_tracker.purge_runs('-1 microsecond')$$);
CALL pg_temp.try($$SELECT run_tracker.purge_runs('1 day -25 hours')$$);
CALL pg_temp.try($$SELECT run_tracker.purge_runs('178000000 years')$$);
CALL pg_temp.try($$SELECT run_tracker.purge_runs(max_runs => NULL)$$);
CALL pg_temp.try($$SELECT run_tracker.purge_runs(max_runs => 0)$$);
CALL pg_temp.try($$SELECT run_tracker.purge_runs(max_runs => -2147483648)$$);
CALL pg_temp.try($$SELECT run_tracker.purge_runs(phases => NULL)$$);
CALL pg_temp.try($$SELECT run_tracker.purge_runs(phases => '{NULL}')$$);
CALL pg_temp.try($$SELECT run_tracker.purge_runs(phases => '{succeeded,NULL}')$$);
CALL pg_temp.try($$SELECT run_tracker.purge_runs(phases => '{succeeded,active}')$$);
CALL pg_temp.try($$SELECT run_tracker.purge_runs(phases => '{queued}')$$);
CALL pg_temp.try($$SELECT run_tracker.purge_runs(phases => '{waiting}')$$);
CALL pg_temp.try($$SELECT run_tracker.purge_runs(phases => '{completed}')$$);
CALL pg_temp.try($$SELECT run_tracker.purge_runs(phases => '{Failed}')$$);
CALL pg_temp.try($$SELECT run_tracker.purge_runs(phases => '{""}')$$);
CALL pg_temp.try($$SELECT run_tracker.purge_runs(phases => '{erledigt ✓}')$$);
BEGIN READ ONLY;
CALL pg_temp.try($$SELECT run_tracker.purge_runs()$$);
ROLLBACK;
:left

-- for services, the runs of all users
SELECT pg_temp.add('of bob', 50, user_id => 'bob'), pg_temp.add('of nobody', 50, user_id => '') \g /dev/null
SET request.jwt.claims = '{"sub": "alice"}';
SET ROLE regress_maintenance_client;
CALL pg_temp.try($$SELECT run_tracker.purge_runs()$$);
SET ROLE regress_maintenance_reader;
CALL pg_temp.try($$SELECT run_tracker.purge_runs()$$);
RESET ROLE;
-- being given the function is not enough
BEGIN;
GRANT EXECUTE ON FUNCTION run_tracker.purge_runs TO regress_maintenance_client, regress_maintenance_reader;
SET LOCAL ROLE regress_maintenance_client;
CALL pg_temp.try($$SELECT run_tracker.purge_runs()$$);
SET LOCAL ROLE regress_maintenance_reader;
CALL pg_temp.try($$SELECT run_tracker.purge_runs()$$);
ROLLBACK;
RESET request.jwt.claims;
SELECT count(*) FROM run_tracker.runs;
BEGIN;
SET LOCAL ROLE regress_maintenance_service;
SELECT run_tracker.purge_runs();
:left
ROLLBACK;
-- and the role that owns the tables
BEGIN;
SELECT run_tracker.set_owner('regress_maintenance_owner') \g /dev/null
SET LOCAL ROLE regress_maintenance_owner;
SELECT run_tracker.purge_runs();
:left
ROLLBACK;
SELECT run_tracker.purge_runs();
:left

--
-- Jobs of pg_cron
--
SELECT count(*) AS installed FROM pg_extension WHERE extname = 'pg_cron';
CALL pg_temp.try($$SELECT run_tracker.schedule_maintenance()$$);
CALL pg_temp.try($$SELECT run_tracker.schedule_maintenance('90 days', '0 3 * * *', '* * * * *')$$);
CALL pg_temp.try($$SELECT run_tracker.schedule_maintenance(NULL)$$);
CALL pg_temp.try($$SELECT run_tracker.schedule_maintenance('-1 day')$$);
CALL pg_temp.try($$SELECT run_tracker.schedule_maintenance(purge_schedule => NULL)$$);
CALL pg_temp.try($$SELECT run_tracker.schedule_maintenance(expire_schedule => NULL)$$);
SELECT run_tracker.unschedule_maintenance();
SET ROLE regress_maintenance_service;
CALL pg_temp.try($$SELECT run_tracker.schedule_maintenance()$$);
SELECT run_tracker.unschedule_maintenance();
SET ROLE regress_maintenance_client;
CALL pg_temp.try($$SELECT run_tracker.schedule_maintenance()$$);
CALL pg_temp.try($$SELECT run_tracker.unschedule_maintenance()$$);
SET ROLE regress_maintenance_reader;
CALL pg_temp.try($$SELECT run_tracker.schedule_maintenance()$$);
CALL pg_temp.try($$SELECT run_tracker.unschedule_maintenance()$$);
RESET ROLE;
-- a schema called cron is not pg_cron: nothing of whoever made it is run
BEGIN;
CREATE SCHEMA cron AUTHORIZATION regress_maintenance_client;
GRANT USAGE ON SCHEMA cron TO PUBLIC;
SET LOCAL ROLE regress_maintenance_client;
CREATE TABLE cron.job AS SELECT 7::bigint AS jobid, 'run_tracker_purge'::text AS jobname, current_database()::text AS database, SESSION_USER::text AS username;
CREATE FUNCTION cron.unschedule(bigint) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RAISE INFO 'code of somebody else runs'; RETURN true; END $$;
RESET ROLE;
SELECT run_tracker.unschedule_maintenance();
CALL pg_temp.try($$SELECT run_tracker.schedule_maintenance()$$);
ROLLBACK;

DROP OWNED BY regress_maintenance_client, regress_maintenance_reader, regress_maintenance_service;
DROP ROLE regress_maintenance_client, regress_maintenance_reader, regress_maintenance_service, regress_maintenance_owner;
