--
-- Runs: from their creation to their end and back, by the functions and by plain SQL; what the lifecycle forbids,
-- repeated calls, fencing of earlier attempts, and the columns that the database computes.
--
\getenv abs_srcdir PG_ABS_SRCDIR
\set common :abs_srcdir '/sql/common.psql'
\i :common

\set a '''40000000-0000-0000-0000-00000000000a'''
\set show 'SELECT status, phase, attempt, started_at IS NOT NULL AS started, finished_at IS NOT NULL AS finished, duration_ms IS NOT NULL AS duration, result, error, progress, worker FROM run_tracker.runs WHERE run_id = ''40000000-0000-0000-0000-00000000000a'';'

-- defaults: the id is a UUID of version 7, later ones are greater
SELECT run_tracker.create_run() AS first \gset
SELECT run_tracker.create_run() AS second \gset
SELECT substr(:'first', 15, 1) AS version, :'first'::uuid < :'second'::uuid AS ordered,
       abs(extract(epoch FROM now()) * 1000 - ('x0000' || left(replace(:'first', '-', ''), 12))::bit(64)::bigint) < 600000 AS has_time;
SELECT user_id, lifecycle, status, phase, kind, name, priority, attempt, max_attempts, created_at = updated_at AS new, started_at, finished_at
FROM run_tracker.runs WHERE run_id = :'first';
SELECT count(DISTINCT id) = 10000 AS unique, bool_and(id > before) AS ordered FROM (
    SELECT id, lag(id) OVER (ORDER BY n) AS before FROM (SELECT n, run_tracker.uuidv7() AS id FROM generate_series(1, 10000) n) u) s;

-- all arguments end up in their columns
SELECT run_tracker.create_run(:a, 'kind', 'name', 'spar', '{"i": 1}', '{"s": 1}', '{"v": 1}', '{"p": 1}', '{"m": 1}', 'alice', 'workflow',
    'session', 'subject', :'first', 7, '2030-01-01 00:00:00Z', 3, '1 minute', '1 hour');
SELECT kind, name, lifecycle, inputs, settings, variables, plan, metadata, user_id, workflow_id, session_id, subject_id,
       parent_run_id = :'first' AS parent, priority, scheduled_at AT TIME ZONE 'UTC' AS scheduled_at, max_attempts, timeout, max_duration
FROM run_tracker.runs WHERE run_id = :a \gx
-- a repeated request returns the run and changes nothing
SELECT run_tracker.create_run(:a, 'other', user_id => 'bob', inputs => '[]') = :a AS same;
SELECT kind, user_id, inputs FROM run_tracker.runs WHERE run_id = :a;

-- the way through: every call says whether it changed anything
SELECT run_tracker.start_run(:a, 'worker 1') AS first, run_tracker.start_run(:a, 'worker 2') AS again;
:show
SELECT run_tracker.update_progress(:a, 10, 'parse') AS first, run_tracker.update_progress(:a, 10, 'parse') AS again,
       run_tracker.update_progress(:a, 20) AS more, run_tracker.update_progress(:a, current_step => 'parse') AS same_step,
       run_tracker.update_progress(:a) AS nothing;
SELECT progress, current_step FROM run_tracker.runs WHERE run_id = :a;
SELECT run_tracker.fail_run(:a, 'broken', 'at line 1') AS first, run_tracker.fail_run(:a, 'other') AS again;
:show
CALL pg_temp.try($$SELECT run_tracker.update_progress('40000000-0000-0000-0000-00000000000a', 30)$$);
CALL pg_temp.try($$SELECT run_tracker.start_run('40000000-0000-0000-0000-00000000000a')$$);
-- retry: a new attempt without what the last one left
SELECT run_tracker.retry_run(:a) AS first, run_tracker.retry_run(:a) AS again;
:show
-- writers of the attempt before are fenced off, by every call
DO $$
DECLARE
    call text;
BEGIN
    FOREACH call IN ARRAY ARRAY['start_run(run, attempt => 1)', 'complete_run(run, attempt => 1)', 'fail_run(run, attempt => 1)',
        'cancel_run(run, attempt => 1)', 'retry_run(run, attempt => 1)', 'transition_run(run, ''timeout'', attempt => 1)',
        'update_progress(run, 1, attempt => 3)'] LOOP
        CALL pg_temp.try('SELECT run_tracker.' || replace(call, 'run,', '''40000000-0000-0000-0000-00000000000a'','));
    END LOOP;
END
$$;
SELECT run_tracker.start_run(:a, attempt => 2) AS started, run_tracker.complete_run(:a, '{"ok": true}', '["good"]', '{"score": 1}', 2) AS completed,
       run_tracker.complete_run(:a, '{"ok": false}') AS again;
:show
SELECT reflections, metrics, finished_at >= started_at AS in_order,
       duration_ms BETWEEN 0 AND 1 + extract(epoch FROM finished_at - started_at) * 1000 AS duration_fits
FROM run_tracker.runs WHERE run_id = :a;
-- spar ends with success: nothing follows
CALL pg_temp.try($$SELECT run_tracker.retry_run('40000000-0000-0000-0000-00000000000a')$$);
CALL pg_temp.try($$SELECT run_tracker.fail_run('40000000-0000-0000-0000-00000000000a')$$);
CALL pg_temp.try($$SELECT run_tracker.cancel_run('40000000-0000-0000-0000-00000000000a')$$);
CALL pg_temp.try($$SELECT run_tracker.transition_run('40000000-0000-0000-0000-00000000000a', 'pending')$$);
CALL pg_temp.try($$SELECT run_tracker.transition_run('40000000-0000-0000-0000-00000000000a', 'processed')$$);
CALL pg_temp.try($$SELECT run_tracker.transition_run('40000000-0000-0000-0000-00000000000a', NULL)$$);
CALL pg_temp.try($$SELECT run_tracker.complete_run(NULL)$$);
CALL pg_temp.try($$SELECT run_tracker.complete_run('40000000-0000-0000-0000-0000000000ff')$$);
-- the same holds for plain SQL, single and in bulk
CALL pg_temp.try($$UPDATE run_tracker.runs SET status = 'pending' WHERE run_id = '40000000-0000-0000-0000-00000000000a'$$);
CALL pg_temp.try($$UPDATE run_tracker.runs SET status = 'running'$$);
CALL pg_temp.try($$MERGE INTO run_tracker.runs r USING (SELECT 1) s ON r.kind = 'kind' WHEN MATCHED THEN UPDATE SET status = 'failed'$$);
CALL pg_temp.try($$INSERT INTO run_tracker.runs (run_id, user_id) VALUES ('40000000-0000-0000-0000-00000000000a', '')
    ON CONFLICT (run_id) DO UPDATE SET status = 'failed'$$);
:show
-- what never changes
CALL pg_temp.try($$UPDATE run_tracker.runs SET run_id = run_tracker.uuidv7() WHERE kind = 'kind'$$);
CALL pg_temp.try($$UPDATE run_tracker.runs SET user_id = 'bob' WHERE kind = 'kind'$$);
CALL pg_temp.try($$UPDATE run_tracker.runs SET lifecycle = 'run' WHERE kind = 'kind'$$);
CALL pg_temp.try($$UPDATE run_tracker.runs SET status = NULL WHERE kind = 'kind'$$);

-- late results and other ways: timeout → completed, pause, cancel, back to the queue
UPDATE run_tracker.runs SET status = 'timeout' WHERE run_id = :'first' RETURNING phase, attempt;
SELECT run_tracker.complete_run(:'first', '"late"');
SELECT status, attempt, result FROM run_tracker.runs WHERE run_id = :'first';
SELECT run_tracker.transition_run(:'second', 'paused') AS paused, run_tracker.start_run(:'second') AS resumed,
       run_tracker.transition_run(:'second', 'pending') AS back, run_tracker.cancel_run(:'second', 'no longer needed') AS cancelled,
       run_tracker.cancel_run(:'second', 'again') AS again;
SELECT status, phase, attempt, error, started_at IS NULL AS never_started, duration_ms IS NOT NULL AS duration
FROM run_tracker.runs WHERE run_id = :'second';
-- a retry with a delay
SELECT run_tracker.retry_run(:'second', '1 hour');
SELECT status, attempt, scheduled_at - clock_timestamp() BETWEEN '59 minutes' AND '1 hour' AS delayed, error
FROM run_tracker.runs WHERE run_id = :'second';
CALL pg_temp.try(format('SELECT run_tracker.retry_run(%L, %L)', :'second', '-1 second'));
-- a lifecycle without a queued state: retry goes to the first active one
SELECT run_tracker.create_run(lifecycle => 'workflow', user_id => 'alice') AS third \gset
SELECT status, phase, started_at IS NOT NULL AS started FROM run_tracker.runs WHERE run_id = :'third';
SELECT run_tracker.fail_run(:'third') AS failed, run_tracker.retry_run(:'third') AS retried;
SELECT status, phase, attempt, started_at IS NOT NULL AS started FROM run_tracker.runs WHERE run_id = :'third';

-- computed columns keep what the database says, whatever a statement assigns
UPDATE run_tracker.runs SET phase = 'failed', attempt = 99, created_at = '2000-01-01', started_at = NULL, finished_at = now(),
    updated_at = '2000-01-01', duration_ms = 5, priority = 1 WHERE run_id = :'third'
RETURNING phase, attempt, created_at > '2020-01-01' AS created, started_at IS NOT NULL AS started, finished_at, updated_at > '2020-01-01' AS updated, duration_ms, priority;
-- an UPDATE that changes nothing leaves updated_at alone
SELECT updated_at AS before FROM run_tracker.runs WHERE run_id = :'third' \gset
UPDATE run_tracker.runs SET status = status, priority = priority WHERE run_id = :'third' RETURNING updated_at = :'before' AS same;
UPDATE run_tracker.runs SET priority = 2 WHERE run_id = :'third' RETURNING updated_at > :'before' AS later;

-- inside one transaction, a run has a duration all the same
BEGIN;
SELECT run_tracker.create_run(lifecycle => 'workflow', user_id => 'alice') AS fourth \gset
SELECT count(pg_sleep(0.02));
SELECT run_tracker.complete_run(:'fourth');
SELECT duration_ms >= 20 AS duration, finished_at > now() AS wall_clock FROM run_tracker.runs WHERE run_id = :'fourth';
ROLLBACK;
SELECT count(*) FROM run_tracker.runs WHERE run_id = :'fourth';

-- INSERT states facts: finished runs keep their timestamps, and what is missing is filled in
INSERT INTO run_tracker.runs (status, user_id, created_at, started_at, finished_at, attempt) VALUES
    ('completed', 'alice', '2020-01-01 00:00:00Z', '2020-01-01 00:00:10Z', '2020-01-01 00:00:12.5Z', 4)
RETURNING phase, attempt, duration_ms, finished_at AT TIME ZONE 'UTC' AS finished_at;
INSERT INTO run_tracker.runs (status, user_id) VALUES ('failed', 'alice')
RETURNING phase, attempt, duration_ms, finished_at IS NOT NULL AS finished;
INSERT INTO run_tracker.runs (status, phase, user_id, finished_at, duration_ms) VALUES ('running', 'succeeded', 'alice', now(), 7)
RETURNING phase, finished_at, duration_ms, started_at IS NOT NULL AS started;
DO $$
BEGIN
    INSERT INTO run_tracker.runs (status, user_id, attempt) VALUES ('completed', 'alice', 0);
    RAISE INFO 'attempt 0 was accepted';
EXCEPTION WHEN check_violation THEN
    RAISE INFO 'attempt 0: %', SQLSTATE;
END
$$;

-- the end of a run ends its open tasks, and only those
\set fourth '40000000-0000-0000-0000-000000000004'
SELECT run_tracker.create_run(:'fourth', user_id => 'alice');
INSERT INTO run_tracker.tasks (run_id, name, status, error) VALUES (:'fourth', '1', 'pending', NULL), (:'fourth', '2', 'streaming', NULL),
    (:'fourth', '3', 'running', 'own'), (:'fourth', '4', 'completed', NULL), (:'fourth', '5', 'failed', 'own');
SELECT run_tracker.fail_run(:'fourth', 'broken');
SELECT name, status, error, finished_at IS NOT NULL AS finished FROM run_tracker.tasks WHERE run_id = :'fourth' ORDER BY name;
CALL pg_temp.try(format('SELECT run_tracker.create_task(%L)', :'fourth'));
CALL pg_temp.try(format('UPDATE run_tracker.tasks SET status = %L WHERE run_id = %L AND name = %L', 'pending', :'fourth', '5'));
SELECT run_tracker.retry_run(:'fourth');
UPDATE run_tracker.tasks SET status = 'pending' WHERE run_id = :'fourth' AND name = '5' RETURNING attempt;
UPDATE run_tracker.runs SET status = 'timeout' WHERE run_id = :'fourth';
SELECT name, status, error FROM run_tracker.tasks WHERE run_id = :'fourth' ORDER BY name;
SELECT count(*) AS wrong FROM run_tracker.check_totals();

-- run_summary
SELECT status, task_count, failed_task_count, open_task_count, elapsed_ms = duration_ms AS elapsed FROM run_tracker.run_summary WHERE run_id = :'fourth';
SELECT duration_ms, elapsed_ms >= 0 AS elapsed FROM run_tracker.run_summary WHERE run_id = :'third';

DELETE FROM run_tracker.runs;
