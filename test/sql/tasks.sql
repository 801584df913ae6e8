--
-- Tasks: model calls and other steps, with tokens, cost and times; their lifecycle, retries and late results.
--
\getenv abs_srcdir PG_ABS_SRCDIR
\set common :abs_srcdir '/sql/common.psql'
\i :common

\set run '''30000000-0000-0000-0000-000000000001'''
\set t1 '''31000000-0000-0000-0000-000000000001'''
\set t2 '''31000000-0000-0000-0000-000000000002'''
\set show 'SELECT status, phase, attempt, response, input_tokens, output_tokens, total_tokens, cost, error, started_at IS NOT NULL AS started, finished_at IS NOT NULL AS finished FROM run_tracker.tasks ORDER BY task_id;'
SELECT run_tracker.create_run(:run, user_id => 'alice');

-- all arguments end up in their columns; the user is that of the run
SELECT run_tracker.create_task(:run, :t1, 'name', 'service', 'chat', 'openai', 'gpt', '{"r": 1}', :t2, 'task', '{"m": 1}');
SELECT run_id, user_id, name, service, operation, provider, model, request, parent_task_id, lifecycle, status, phase, attempt, metadata
FROM run_tracker.tasks \gx
SELECT substr(run_tracker.create_task(:run)::text, 15, 1) AS version;
DELETE FROM run_tracker.tasks WHERE name IS NULL;

-- what cannot be
CALL pg_temp.try($$SELECT run_tracker.create_task(NULL)$$);
CALL pg_temp.try($$SELECT run_tracker.create_task('30000000-0000-0000-0000-0000000000ff')$$);
CALL pg_temp.try($$SELECT run_tracker.create_task('30000000-0000-0000-0000-000000000001', '31000000-0000-0000-0000-000000000001')$$);
CALL pg_temp.try($$SELECT run_tracker.create_task('30000000-0000-0000-0000-000000000001', lifecycle => 'no such')$$);
CALL pg_temp.try($$INSERT INTO run_tracker.tasks (task_id) VALUES ('31000000-0000-0000-0000-000000000009')$$);
CALL pg_temp.try($$INSERT INTO run_tracker.tasks (run_id) VALUES ('30000000-0000-0000-0000-0000000000ff')$$);
CALL pg_temp.try($$INSERT INTO run_tracker.tasks (run_id, user_id) VALUES ('30000000-0000-0000-0000-000000000001', 'bob')$$);
CALL pg_temp.try($$INSERT INTO run_tracker.tasks (run_id, status) VALUES ('30000000-0000-0000-0000-000000000001', 'done')$$);
CALL pg_temp.try($$UPDATE run_tracker.tasks SET user_id = 'bob'$$);
CALL pg_temp.try($$UPDATE run_tracker.tasks SET lifecycle = 'spar'$$);

-- the way through
SELECT run_tracker.start_task(:t1, 'streaming') AS first, run_tracker.start_task(:t1, 'streaming') AS again, run_tracker.start_task(:t1) AS active;
SELECT status FROM run_tracker.tasks;
-- the first text gives the time to the first token
SELECT count(pg_sleep(0.01));
UPDATE run_tracker.tasks SET response = 'Hel';
UPDATE run_tracker.tasks SET response = 'Hello' RETURNING time_to_first_token_ms >= 10 AS measured, status;
SELECT run_tracker.complete_task(:t1, 'Hello world', 100, 20, 0.0125, result => '{"a": 1}', cache_read_input_tokens => 60,
    cache_creation_input_tokens => 40, reasoning_output_tokens => 5, response_model => 'gpt-1', finish_reason => 'stop',
    response_id => 'id', cost_source => 'provider', attempt => 1) AS first,
    run_tracker.complete_task(:t1, 'other', 1, 1, 1) AS again;
:show
SELECT cache_read_input_tokens, cache_creation_input_tokens, reasoning_output_tokens, response_model, finish_reason, response_id, cost_source,
       result, time_to_first_token_ms >= 10 AS measured, duration_ms >= time_to_first_token_ms AS duration FROM run_tracker.tasks \gx
-- a time that the client has measured itself wins, and so does a total
SELECT run_tracker.create_task(:run, :t2);
SELECT run_tracker.complete_task(:t2, 'x', 1, 2, time_to_first_token_ms => 77, total_tokens => 10);
SELECT time_to_first_token_ms, total_tokens, status, started_at FROM run_tracker.tasks WHERE task_id = :t2;
-- corrections: the sum follows, a total of the client's own stays
UPDATE run_tracker.tasks SET output_tokens = 50 RETURNING task_id = :t1 AS summed, total_tokens;

-- illegal transitions, for functions and plain SQL
CALL pg_temp.try($$SELECT run_tracker.cancel_task('31000000-0000-0000-0000-000000000001')$$);
CALL pg_temp.try($$SELECT run_tracker.start_task('31000000-0000-0000-0000-000000000001', 'streaming')$$);
CALL pg_temp.try($$SELECT run_tracker.start_task('31000000-0000-0000-0000-000000000001', 'no such')$$);
CALL pg_temp.try($$UPDATE run_tracker.tasks SET status = 'cancelled'$$);
CALL pg_temp.try($$UPDATE run_tracker.tasks SET status = ''$$);
CALL pg_temp.try($$SELECT run_tracker.complete_task(NULL)$$);
CALL pg_temp.try($$SELECT run_tracker.complete_task('31000000-0000-0000-0000-0000000000ff')$$);

-- a retry begins with nothing of the last call, and fences its writers off
UPDATE run_tracker.tasks SET status = 'running' WHERE task_id = :t1;
:show
SELECT time_to_first_token_ms, duration_ms, result, finish_reason, response_id, cost_source, request, model FROM run_tracker.tasks WHERE task_id = :t1;
CALL pg_temp.try($$SELECT run_tracker.complete_task('31000000-0000-0000-0000-000000000001', attempt => 1)$$);
CALL pg_temp.try($$SELECT run_tracker.fail_task('31000000-0000-0000-0000-000000000001', attempt => 1)$$);
CALL pg_temp.try($$SELECT run_tracker.cancel_task('31000000-0000-0000-0000-000000000001', attempt => 3)$$);
CALL pg_temp.try($$SELECT run_tracker.start_task('31000000-0000-0000-0000-000000000001', attempt => 1)$$);
-- … but keeps what the statement itself assigns
SELECT run_tracker.fail_task(:t1, 'broken', 'at line 1', 7, 0, 0.5, 2) AS first, run_tracker.fail_task(:t1, 'other') AS again;
:show
UPDATE run_tracker.tasks SET status = 'pending', error = 'second try', response = 'kept' WHERE task_id = :t1;
SELECT status, attempt, error, error_detail, response FROM run_tracker.tasks WHERE task_id = :t1;

-- a late result: after a timeout the answer arrives, for the same attempt
UPDATE run_tracker.tasks SET status = 'timeout' WHERE task_id = :t1;
SELECT run_tracker.complete_task(:t1, 'late', 1, 1, 1, attempt => 3);
:show
SELECT run_tracker.create_task(:run, '31000000-0000-0000-0000-000000000003');
SELECT run_tracker.cancel_task('31000000-0000-0000-0000-000000000003', 'not needed') AS first,
       run_tracker.cancel_task('31000000-0000-0000-0000-000000000003') AS again;
SELECT status, error FROM run_tracker.tasks WHERE task_id = '31000000-0000-0000-0000-000000000003';

-- computed columns keep what the database says
UPDATE run_tracker.tasks SET phase = 'active', attempt = 9, created_at = '2000-01-01', started_at = '2000-01-01', finished_at = NULL,
    duration_ms = 0, updated_at = '2000-01-01' WHERE task_id = :t1
RETURNING phase, attempt, created_at > '2020-01-01' AS created, started_at, finished_at IS NOT NULL AS finished, updated_at > '2020-01-01' AS updated;
-- … those of a finished task that a service inserts are facts
INSERT INTO run_tracker.tasks (run_id, status, started_at, finished_at, input_tokens) VALUES
    (:run, 'completed', '2020-01-01 00:00:00Z', '2020-01-01 00:01:00Z', 5) RETURNING duration_ms, total_tokens, user_id, phase;

-- a finished run takes no open task, but finished ones
SELECT run_tracker.complete_run(:run);
CALL pg_temp.try($$INSERT INTO run_tracker.tasks (run_id) VALUES ('30000000-0000-0000-0000-000000000001')$$);
CALL pg_temp.try($$UPDATE run_tracker.tasks SET status = 'running' WHERE task_id = '31000000-0000-0000-0000-000000000001'$$);
INSERT INTO run_tracker.tasks (run_id, status, cost) VALUES (:run, 'completed', 1) RETURNING phase;
UPDATE run_tracker.tasks SET cost = 2 WHERE task_id = :t1 RETURNING cost;
SELECT status, task_count, failed_task_count, open_task_count, total_cost FROM run_tracker.run_summary;
SELECT count(*) AS wrong FROM run_tracker.check_totals();

DELETE FROM run_tracker.runs;
SELECT count(*) FROM run_tracker.tasks;
