-- The same work three ways: "tracker" is run_tracker; "bare" are copies of its tables with all indexes and constraints
-- but no triggers, where statements set the derived columns themselves; "baseline" is baseline.sql.
CREATE SCHEMA bare;
CREATE TABLE bare.tasks (LIKE run_tracker.tasks INCLUDING ALL) WITH (fillfactor = 85);
CREATE TABLE bare.messages (LIKE run_tracker.messages INCLUDING ALL);

CREATE SCHEMA bench;

-- The n-th run, and the n-th task: known to the scripts of pgbench, and in no order.
CREATE FUNCTION bench.run_id(n bigint) RETURNS uuid
LANGUAGE sql IMMUTABLE AS $$ SELECT md5('r' || n)::uuid $$;
CREATE FUNCTION bench.task_id(n bigint) RETURNS uuid
LANGUAGE sql IMMUTABLE AS $$ SELECT md5('t' || n)::uuid $$;

-- Tables with so many runs, and so many tasks that are running. Task n belongs to run n % runs.
CREATE PROCEDURE bench.fill(kind text, runs bigint, tasks bigint)
LANGUAGE plpgsql SET client_min_messages = warning AS $$
BEGIN
    -- its triggers empty the totals and the open set
    TRUNCATE run_tracker.runs CASCADE;
    TRUNCATE bare.tasks, bare.messages, baseline.ai_runs, baseline.ai_tasks;
    CASE kind
    WHEN 'tracker' THEN
        INSERT INTO run_tracker.runs (run_id, user_id, status)
        SELECT bench.run_id(n), 'user ' || n % 100, 'running' FROM generate_series(0, runs - 1) n;
        INSERT INTO run_tracker.tasks (run_id, task_id, status, name, model, request)
        SELECT bench.run_id(n % runs), bench.task_id(n), 'running', 'answer', 'model-1', '{"temperature": 0.2}'
        FROM generate_series(0, tasks - 1) n;
    WHEN 'bare' THEN
        INSERT INTO bare.tasks (run_id, task_id, user_id, lifecycle, status, phase, attempt, created_at, started_at,
                                updated_at, name, model, request)
        SELECT bench.run_id(n % runs), bench.task_id(n), 'user ' || n % runs % 100, 'task', 'running', 'active', 1,
               clock_timestamp(), clock_timestamp(), clock_timestamp(), 'answer', 'model-1', '{"temperature": 0.2}'
        FROM generate_series(0, tasks - 1) n;
    WHEN 'baseline' THEN
        INSERT INTO baseline.ai_runs (id, user_id)
        SELECT bench.run_id(n), 'user ' || n % 100 FROM generate_series(0, runs - 1) n;
        INSERT INTO baseline.ai_tasks (run_id, task_id, user_id, status, task_name, model, request_data)
        SELECT bench.run_id(n % runs), bench.task_id(n), 'user ' || n % runs % 100, 'running', 'answer', 'model-1',
               '{"temperature": 0.2}'
        FROM generate_series(0, tasks - 1) n;
    END CASE;
END
$$;

-- All tasks in one statement.
CREATE PROCEDURE bench.complete_all(kind text)
LANGUAGE plpgsql AS $$
BEGIN
    CASE kind
    WHEN 'tracker' THEN
        UPDATE run_tracker.tasks
        SET status = 'completed', response = 'the answer', input_tokens = 900, output_tokens = 100, cost = 0.0042;
    WHEN 'bare' THEN
        UPDATE bare.tasks
        SET status = 'completed', response = 'the answer', input_tokens = 900, output_tokens = 100, cost = 0.0042,
            total_tokens = 1000, phase = 'succeeded', finished_at = clock_timestamp(), updated_at = clock_timestamp(),
            duration_ms = extract(epoch FROM clock_timestamp() - started_at) * 1000;
    WHEN 'baseline' THEN
        UPDATE baseline.ai_tasks
        SET status = 'completed', response_text = 'the answer', tokens_input = 900, tokens_output = 100, cost = 0.0042,
            tokens_total = 1000, completed_at = clock_timestamp(),
            total_time = extract(epoch FROM clock_timestamp() - created_at) * 1000;
    END CASE;
END
$$;

-- The first tasks one by one, in one transaction.
CREATE PROCEDURE bench.complete_each(kind text, tasks bigint)
LANGUAGE plpgsql AS $$
DECLARE
    id uuid;
BEGIN
    FOR n IN 0 .. tasks - 1 LOOP
        id := bench.task_id(n);
        CASE kind
        WHEN 'tracker' THEN
            UPDATE run_tracker.tasks
            SET status = 'completed', response = 'the answer', input_tokens = 900, output_tokens = 100, cost = 0.0042
            WHERE task_id = id;
        WHEN 'bare' THEN
            UPDATE bare.tasks
            SET status = 'completed', response = 'the answer', input_tokens = 900, output_tokens = 100, cost = 0.0042,
                total_tokens = 1000, phase = 'succeeded', finished_at = clock_timestamp(), updated_at = clock_timestamp(),
                duration_ms = extract(epoch FROM clock_timestamp() - started_at) * 1000
            WHERE task_id = id;
        WHEN 'baseline' THEN
            UPDATE baseline.ai_tasks
            SET status = 'completed', response_text = 'the answer', tokens_input = 900, tokens_output = 100,
                cost = 0.0042, tokens_total = 1000, completed_at = clock_timestamp(),
                total_time = extract(epoch FROM clock_timestamp() - created_at) * 1000
            WHERE task_id = id;
        END CASE;
    END LOOP;
END
$$;

-- Messages of 1 kB to run 0, each in a transaction of its own. The text does not compress, so
-- that the ratio is that of the methods.
CREATE PROCEDURE bench.append(kind text, rows bigint)
LANGUAGE plpgsql AS $$
DECLARE
    body text;
BEGIN
    FOR n IN 1 .. rows LOOP
        SELECT string_agg(md5(n || '/' || i), '') INTO body FROM generate_series(1, 32) i;
        CASE kind
        WHEN 'tracker' THEN
            INSERT INTO run_tracker.messages (run_id, role, content) VALUES (bench.run_id(0), 'user', body);
        WHEN 'bare' THEN
            INSERT INTO bare.messages (run_id, seq, user_id, role, content, created_at)
            VALUES (bench.run_id(0), n, 'user 0', 'user', body, clock_timestamp());
        WHEN 'baseline' THEN
            UPDATE baseline.ai_runs
            SET messages = messages || jsonb_build_array(jsonb_build_object('role', 'user', 'content', body,
                                                                            'timestamp', clock_timestamp())),
                message_count = message_count + 1, last_message_at = now()
            WHERE id = bench.run_id(0);
        END CASE;
        COMMIT;
    END LOOP;
END
$$;

-- Did all that was asked for happen? Measuring work that was not done would be a fine ratio.
CREATE FUNCTION bench.completed(kind text) RETURNS bigint
LANGUAGE plpgsql AS $$
BEGIN
    CASE kind
    WHEN 'tracker' THEN
        IF EXISTS (SELECT FROM run_tracker.check_totals()) THEN
            RAISE EXCEPTION 'totals are wrong';
        END IF;
        RETURN (SELECT sum(task_count) FROM run_tracker.run_totals);
    WHEN 'bare' THEN
        RETURN (SELECT count(*) FROM bare.tasks WHERE status = 'completed');
    WHEN 'baseline' THEN
        RETURN (SELECT sum(task_count) FROM baseline.ai_runs);
    END CASE;
END
$$;
