--
-- Limits: sizes and values that make no sense are refused, with an error that says why, before anything is written;
-- by whatever path they come.
--
\getenv abs_srcdir PG_ABS_SRCDIR
\set common :abs_srcdir '/sql/common.psql'
\i :common

INSERT INTO run_tracker.runs (run_id, user_id, name) VALUES ('60000000-0000-0000-0000-000000000001', 'alice', 'limits');
\set run '''60000000-0000-0000-0000-000000000001'''
INSERT INTO run_tracker.tasks (run_id, task_id, name)
VALUES (:run, '60000000-0000-0000-0000-000000000002', 'limits');
\set task '''60000000-0000-0000-0000-000000000002'''

--
-- Sizes
--
SHOW run_tracker.max_payload;
CALL pg_temp.try($$SET run_tracker.max_payload = 0$$);
CALL pg_temp.try($$SET run_tracker.max_payload = '2GB'$$);
SET run_tracker.max_payload = '10kB';

-- 10 kB are allowed, one byte more is not; whether it compresses well or not at all
CREATE FUNCTION pg_temp.random_text(n integer) RETURNS text LANGUAGE sql AS $$
    SELECT left(string_agg(md5(i::text), ''), n) FROM generate_series(1, n / 32 + 1) i
$$;
SELECT run_tracker.add_message(:run, 'user', repeat('a', 10 * 1024));
SELECT run_tracker.add_message(:run, 'user', pg_temp.random_text(10 * 1024));
CALL pg_temp.try(format('SELECT run_tracker.add_message(%L, %L, %L)', :run, 'user', repeat('a', 10 * 1024 + 1)));
CALL pg_temp.try(format('SELECT run_tracker.add_message(%L, %L, %L)', :run, 'user', pg_temp.random_text(10 * 1024 + 1)));
-- bytes, not characters
CALL pg_temp.try(format('SELECT run_tracker.add_message(%L, %L, %L)', :run, 'user', repeat('é', 6 * 1024)));
-- text and json of every table
CALL pg_temp.try(format('UPDATE run_tracker.runs SET error_detail = %L', repeat('a', 20000)));
CALL pg_temp.try(format('SELECT run_tracker.create_run(kind => %L)', repeat('a', 20000)));
CALL pg_temp.try(format('SELECT run_tracker.create_run(inputs => %L)', to_jsonb(repeat('a', 20000))));
CALL pg_temp.try(format('SELECT run_tracker.create_run(user_id => %L)', repeat('a', 20000)));
CALL pg_temp.try(format('SELECT run_tracker.create_task(%L, request => %L)', :run, jsonb_build_object('a', repeat('a', 20000))));
CALL pg_temp.try(format('SELECT run_tracker.complete_task(%L, %L)', :task, repeat('a', 20000)));
CALL pg_temp.try(format('SELECT run_tracker.add_log(%L, %L)', :run, repeat('a', 20000)));
CALL pg_temp.try(format('SELECT run_tracker.add_message(%L, %L, parts => %L)', :run, 'user', jsonb_build_array(repeat('a', 20000))));
CALL pg_temp.try(format('SELECT run_tracker.add_message(%L, %L, %L)', :run, repeat('a', 20000), 'x'));
-- values that another table keeps compressed, or outside of the row, compressed or not
CREATE TABLE regress_limits (storage text, content text);
ALTER TABLE regress_limits ALTER COLUMN content SET STORAGE EXTENDED;
INSERT INTO regress_limits VALUES ('compressed', repeat('a', 100000)), ('compressed, outside', pg_temp.random_text(100000));
ALTER TABLE regress_limits ALTER COLUMN content SET STORAGE EXTERNAL;
INSERT INTO regress_limits VALUES ('outside', repeat('a', 100000));
DO $$
DECLARE
    kind text;
BEGIN
    FOR kind IN SELECT storage FROM regress_limits LOOP
        RAISE INFO '%', kind;
        CALL pg_temp.try(format('INSERT INTO run_tracker.messages (run_id, role, content) '
            'SELECT %L, %L, content FROM regress_limits WHERE storage = %L',
            '60000000-0000-0000-0000-000000000001', 'user', kind));
        CALL pg_temp.try(format('UPDATE run_tracker.runs SET result = to_jsonb(content) '
            'FROM regress_limits WHERE storage = %L', kind));
    END LOOP;
END
$$;
DROP TABLE regress_limits;
-- nothing of all that is there
SELECT count(*) AS messages, max(octet_length(content)) FROM run_tracker.messages;
SELECT count(*) AS runs, count(result) AS results, count(error_detail) AS details FROM run_tracker.runs;
SELECT count(*) AS tasks FROM run_tracker.tasks;
SELECT count(*) AS wrong FROM run_tracker.check_totals();

-- what is there already does not stand in the way when the limit is lowered, unless it is written again
SET run_tracker.max_payload = '100kB';
UPDATE run_tracker.runs SET inputs = to_jsonb(pg_temp.random_text(50000)), plan = to_jsonb(repeat('a', 50000)) WHERE run_id = :run;
UPDATE run_tracker.tasks SET request = to_jsonb(pg_temp.random_text(50000)) WHERE task_id = :task;
SET run_tracker.max_payload = '10kB';
SELECT run_tracker.start_run(:run);
SELECT run_tracker.start_task(:task);
UPDATE run_tracker.runs SET priority = 3, error = 'small' WHERE run_id = :run RETURNING status, priority, error;
CALL pg_temp.try($$UPDATE run_tracker.runs SET inputs = to_jsonb(pg_temp.random_text(49999))$$);
RESET run_tracker.max_payload;

--
-- Tokens and cost
--
DO $$
DECLARE
    assignment text;
BEGIN
    FOREACH assignment IN ARRAY ARRAY[
        'input_tokens = -1', 'output_tokens = -1', 'total_tokens = -1', 'cache_read_input_tokens = -1',
        'cache_creation_input_tokens = -1', 'reasoning_output_tokens = -1', 'time_to_first_token_ms = -1',
        'input_tokens = 10, cache_read_input_tokens = 11', 'input_tokens = 10, cache_creation_input_tokens = 11',
        'input_tokens = 10, cache_read_input_tokens = 5, cache_creation_input_tokens = 6',
        'input_tokens = 1, cache_read_input_tokens = 9223372036854775807, cache_creation_input_tokens = 9223372036854775807',
        'output_tokens = 10, reasoning_output_tokens = 11',
        'cost = -0.000001', 'cost = ''NaN''', 'cost = ''Infinity''', 'cost = ''-Infinity''',
        'input_tokens = 9223372036854775807, output_tokens = 1',
        'metadata = ''[]''', 'metadata = ''"a"''', 'metadata = ''null'''
    ] LOOP
        RAISE INFO '%', assignment;
        CALL pg_temp.try('UPDATE run_tracker.tasks SET ' || assignment);
    END LOOP;
END
$$;
-- by the functions, and in a new row
CALL pg_temp.try($$SELECT run_tracker.complete_task('60000000-0000-0000-0000-000000000002', input_tokens => -5)$$);
CALL pg_temp.try($$SELECT run_tracker.complete_task('60000000-0000-0000-0000-000000000002', cost => 'NaN')$$);
CALL pg_temp.try($$SELECT run_tracker.fail_task('60000000-0000-0000-0000-000000000002', cost => 'Infinity')$$);
CALL pg_temp.try($$SELECT run_tracker.create_task('60000000-0000-0000-0000-000000000001', metadata => '[1]')$$);
CALL pg_temp.try($$INSERT INTO run_tracker.tasks (run_id, cost) VALUES ('60000000-0000-0000-0000-000000000001', 'NaN')$$);
SELECT status, input_tokens, total_tokens, cost, metadata FROM run_tracker.tasks;
-- the bounds themselves are fine
UPDATE run_tracker.tasks SET input_tokens = 10, cache_read_input_tokens = 4, cache_creation_input_tokens = 6,
    output_tokens = 7, reasoning_output_tokens = 7, cost = 0, time_to_first_token_ms = 0, metadata = '{}'
RETURNING total_tokens;
UPDATE run_tracker.tasks SET cost = 123456789012.123456789 RETURNING cost;
-- the constraints hold without the triggers, too
ALTER TABLE run_tracker.tasks DISABLE TRIGGER USER;
DO $$
DECLARE
    assignment text;
    name text;
BEGIN
    FOREACH assignment IN ARRAY ARRAY['cost = ''NaN''', 'cost = ''Infinity''', 'cost = -1', 'total_tokens = -1', 'input_tokens = 9',
        'output_tokens = 6', 'phase = ''done'''] LOOP
        BEGIN
            EXECUTE 'UPDATE run_tracker.tasks SET ' || assignment;
            RAISE INFO '%: accepted', assignment;
        EXCEPTION WHEN check_violation THEN
            GET STACKED DIAGNOSTICS name = CONSTRAINT_NAME;
            RAISE INFO '%: %', assignment, name;
        END;
    END LOOP;
END
$$;
ALTER TABLE run_tracker.tasks ENABLE TRIGGER USER;

--
-- Runs
--
DO $$
DECLARE
    assignment text;
BEGIN
    FOREACH assignment IN ARRAY ARRAY[
        'progress = -1', 'progress = 101', 'progress = 32768', 'max_attempts = 0', 'timeout = ''0''',
        'timeout = ''-1 second''', 'max_duration = ''0''', 'settings = ''[]''', 'variables = ''1''', 'metrics = ''"x"''',
        'metadata = ''null''', 'status = NULL', 'status = '''''
    ] LOOP
        RAISE INFO '%', assignment;
        CALL pg_temp.try('UPDATE run_tracker.runs SET ' || assignment);
    END LOOP;
END
$$;
CALL pg_temp.try($$SELECT run_tracker.update_progress('60000000-0000-0000-0000-000000000001', 101)$$);
CALL pg_temp.try($$SELECT run_tracker.update_progress('60000000-0000-0000-0000-000000000001', -1)$$);
CALL pg_temp.try($$SELECT run_tracker.update_progress('60000000-0000-0000-0000-000000000001', 2147483647)$$);
CALL pg_temp.try($$SELECT run_tracker.create_run(settings => '[]')$$);
CALL pg_temp.try($$SELECT run_tracker.create_run(max_attempts => 0)$$);
CALL pg_temp.try($$SELECT run_tracker.create_run(timeout => '-1 hour')$$);
CALL pg_temp.try($$SELECT run_tracker.retry_run('60000000-0000-0000-0000-000000000001', '-1 hour')$$);
-- any JSON is fine where the application decides what it means
UPDATE run_tracker.runs SET progress = 100, inputs = '[]', plan = '"x"', result = '1', reflections = 'null'
RETURNING progress, inputs, plan, result, reflections;

--
-- Messages and logs
--
CALL pg_temp.try($$SELECT run_tracker.add_message('60000000-0000-0000-0000-000000000001', '', 'x')$$);
CALL pg_temp.try($$SELECT run_tracker.add_message('60000000-0000-0000-0000-000000000001', NULL, 'x')$$);
CALL pg_temp.try($$SELECT run_tracker.add_message('60000000-0000-0000-0000-000000000001', 'user')$$);
CALL pg_temp.try($$SELECT run_tracker.add_message('60000000-0000-0000-0000-000000000001', 'user', parts => '{}')$$);
CALL pg_temp.try($$SELECT run_tracker.add_message('60000000-0000-0000-0000-000000000001', 'user', parts => '"x"')$$);
CALL pg_temp.try($$SELECT run_tracker.add_message('60000000-0000-0000-0000-000000000001', 'user', 'x', metadata => '[]')$$);
CALL pg_temp.try($$INSERT INTO run_tracker.messages (run_id, role, content) VALUES ('60000000-0000-0000-0000-000000000001', '', 'x')$$);
CALL pg_temp.try($$UPDATE run_tracker.messages SET role = ''$$);
CALL pg_temp.try($$UPDATE run_tracker.messages SET role = NULL$$);
CALL pg_temp.try($$UPDATE run_tracker.messages SET content = NULL$$);
CALL pg_temp.try($$SELECT run_tracker.add_log('60000000-0000-0000-0000-000000000001', 'x', 'WARN')$$);
CALL pg_temp.try($$SELECT run_tracker.add_log('60000000-0000-0000-0000-000000000001', 'x', 'error')$$);
CALL pg_temp.try($$SELECT run_tracker.add_log('60000000-0000-0000-0000-000000000001', 'x', '')$$);
CALL pg_temp.try($$SELECT run_tracker.add_log('60000000-0000-0000-0000-000000000001', NULL)$$);
CALL pg_temp.try($$INSERT INTO run_tracker.logs (run_id, message, level) VALUES ('60000000-0000-0000-0000-000000000001', 'x', 'FATAL')$$);
CALL pg_temp.try($$SELECT * FROM run_tracker.run_logs('60000000-0000-0000-0000-000000000001', 'FATAL')$$);
-- an empty text is a text
SELECT run_tracker.add_message(:run, 'user', '') AS message, run_tracker.add_log(:run, '') AS log;

SELECT count(*) AS wrong FROM run_tracker.check_totals();
DELETE FROM run_tracker.runs;
