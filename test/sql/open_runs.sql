--
-- The open set: exactly the runs that are not finished, with what claims and deadlines need; after each statement it
-- says what runs says, and activity moves a mark only.
--
\getenv abs_srcdir PG_ABS_SRCDIR
\set common :abs_srcdir '/sql/common.psql'
\i :common

\set a '''f0000000-0000-0000-0000-00000000000a'''
\set b '''f0000000-0000-0000-0000-00000000000b'''
-- deadline as the time after the last activity, in seconds; "wrong": rows that runs does not justify, or that are missing
\set open 'SELECT r.name, o.user_id, o.lifecycle, o.kind, o.phase, o.priority, o.worker, o.attempt, extract(epoch FROM date_trunc(''second'', o.deadline_at - o.last_activity_at + interval ''1 ms''))::integer AS deadline, (SELECT count(*) FROM run_tracker.runs x FULL JOIN run_tracker.open_runs y USING (run_id) WHERE (x.finished_at IS NULL) IS DISTINCT FROM (y.run_id IS NOT NULL) OR y.run_id IS NOT NULL AND (x.user_id, x.lifecycle, x.kind, x.phase, x.priority, x.worker, x.attempt, COALESCE(x.scheduled_at, x.created_at)) IS DISTINCT FROM (y.user_id, y.lifecycle, y.kind, y.phase, y.priority, y.worker, y.attempt, y.available_at)) AS wrong FROM run_tracker.open_runs o JOIN run_tracker.runs r USING (run_id) ORDER BY r.name;'

-- a new run: in "run", the queued state has no deadline; in "spar" it has the lifecycle's
INSERT INTO run_tracker.runs (run_id, user_id, name, lifecycle, kind) VALUES (:a, 'alice', 'A', 'run', 'k'), (:b, 'bob', 'B', 'spar', NULL);
INSERT INTO run_tracker.runs (user_id, name, status) VALUES ('bob', 'finished', 'completed');
:open
-- claimed, paused: a run that waits for somebody has no deadline
SELECT run_tracker.start_run(:a, 'w');
:open
UPDATE run_tracker.runs SET status = 'paused' WHERE run_id = :a;
:open
UPDATE run_tracker.runs SET status = 'running' WHERE run_id = :a;
-- its own timeout, an absolute bound, and both
UPDATE run_tracker.runs SET timeout = '10 minutes', priority = 4, kind = 'other', worker = 'v' WHERE run_id = :a;
:open
UPDATE run_tracker.runs SET max_duration = '1 second' WHERE run_id = :a;
SELECT o.deadline_at = r.started_at + interval '1 second' AS capped FROM run_tracker.open_runs o JOIN run_tracker.runs r USING (run_id) WHERE r.run_id = :a;
UPDATE run_tracker.runs SET timeout = NULL, max_duration = NULL WHERE run_id = :a;
:open
-- a run that is scheduled waits for its time
UPDATE run_tracker.runs SET scheduled_at = '2100-01-01 00:00:00Z' WHERE run_id = :b;
SELECT available_at = '2100-01-01 00:00:00Z' AS available, deadline_at = '2100-01-01 00:01:00Z' AS deadline FROM run_tracker.open_runs WHERE run_id = :b;
UPDATE run_tracker.runs SET scheduled_at = NULL WHERE run_id = :b;

-- the end, a retry, a late result
SELECT run_tracker.fail_run(:a, 'x');
:open
SELECT run_tracker.complete_run(:a);
:open
SELECT run_tracker.retry_run(:a);
:open
-- statements over many runs, and in other forms
UPDATE run_tracker.runs SET status = CASE name WHEN 'finished' THEN 'pending' ELSE 'failed' END;
:open
MERGE INTO run_tracker.runs r USING (VALUES ('A'), ('new')) v (name) ON r.name = v.name
WHEN MATCHED THEN UPDATE SET status = 'pending'
WHEN NOT MATCHED THEN INSERT (name, user_id) VALUES (v.name, 'carol');
:open
INSERT INTO run_tracker.runs (run_id, user_id) VALUES (:a, 'alice') ON CONFLICT (run_id) DO UPDATE SET priority = 9;
:open
WITH i AS (INSERT INTO run_tracker.runs (name, user_id, lifecycle) VALUES ('cte', 'carol', 'workflow'))
DELETE FROM run_tracker.runs WHERE name = 'new';
:open
-- rolled back
BEGIN;
SAVEPOINT s;
UPDATE run_tracker.runs SET status = 'completed' WHERE name IN ('A', 'cte');
DELETE FROM run_tracker.runs WHERE name = 'finished';
:open
ROLLBACK TO s;
:open
ROLLBACK;

-- activity of any kind marks the run, but at most once in a while, and does not touch the deadline
UPDATE run_tracker.runs SET status = 'running', timeout = '160 ms' WHERE run_id = :a;
CREATE FUNCTION pg_temp.marks(statement text) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    before run_tracker.open_runs;
    after run_tracker.open_runs;
BEGIN
    SELECT * INTO before FROM run_tracker.open_runs WHERE run_id = 'f0000000-0000-0000-0000-00000000000a';
    PERFORM pg_sleep(0.015);
    EXECUTE statement;
    SELECT * INTO after FROM run_tracker.open_runs WHERE run_id = 'f0000000-0000-0000-0000-00000000000a';
    IF before.deadline_at <> after.deadline_at THEN
        RAISE INFO 'the deadline was moved';
    END IF;
    RETURN after.last_activity_at > before.last_activity_at;
END
$$;
SELECT statement, pg_temp.marks(statement) FROM (VALUES
    (1, $$SELECT run_tracker.create_task('f0000000-0000-0000-0000-00000000000a', 'f1000000-0000-0000-0000-00000000000a')$$),
    (2, $$UPDATE run_tracker.tasks SET response = 'x'$$),
    (3, $$SELECT run_tracker.complete_task('f1000000-0000-0000-0000-00000000000a')$$),
    (4, $$SELECT run_tracker.add_message('f0000000-0000-0000-0000-00000000000a', 'user', 'x')$$),
    (5, $$SELECT run_tracker.add_log('f0000000-0000-0000-0000-00000000000a', 'x')$$),
    (6, $$SELECT run_tracker.update_progress('f0000000-0000-0000-0000-00000000000a', 10)$$),
    (7, $$SELECT count(*) FROM run_tracker.runs$$)) v (n, statement) ORDER BY n;
:open
-- two marks at once are one
UPDATE run_tracker.runs SET timeout = '1 hour' WHERE run_id = :a;
SELECT last_activity_at AS mark FROM run_tracker.open_runs WHERE run_id = :a \gset
SELECT count(run_tracker.add_log(:a, 'x')) FROM generate_series(1, 10);
SELECT last_activity_at = :'mark' AS unmarked FROM run_tracker.open_runs WHERE run_id = :a;

-- nobody writes here but the triggers
CREATE ROLE regress_open_runs;
SELECT run_tracker.grant_service('regress_open_runs');
SET ROLE regress_open_runs;
SELECT count(*) > 0 AS visible FROM run_tracker.open_runs;
CALL pg_temp.try($$UPDATE run_tracker.open_runs SET deadline_at = NULL$$);
CALL pg_temp.try($$DELETE FROM run_tracker.open_runs$$);
CALL pg_temp.try($$SELECT run_tracker.rebuild_open_runs()$$);
RESET ROLE;

-- deleting all runs empties it
DELETE FROM run_tracker.runs;
SELECT count(*) FROM run_tracker.open_runs;
DROP OWNED BY regress_open_runs;
DROP ROLE regress_open_runs;
