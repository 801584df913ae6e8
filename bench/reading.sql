-- Streams, and a long history to read. Every statement commits: WAL and pages are as an application leaves them.

-- Text that does not compress much.
CREATE FUNCTION bench.text(n integer) RETURNS text LANGUAGE sql AS $$
    SELECT string_agg(md5(random()::text), '') FROM generate_series(1, n / 32)
$$;

-- An answer of 32 kB, saved 64 times while it arrives.
CREATE PROCEDURE bench.stream(kind text, n bigint) LANGUAGE plpgsql AS $$
DECLARE
    task uuid := bench.task_id(n);
    answer text := '';
    piece text;
BEGIN
    FOR i IN 1..64 LOOP
        piece := bench.text(512);
        answer := answer || piece;
        CASE kind
        WHEN 'tracker' THEN
            PERFORM run_tracker.append_response(task, piece);
        WHEN 'bare' THEN
            UPDATE bare.tasks SET response = answer WHERE task_id = task;
        WHEN 'baseline' THEN
            UPDATE baseline.ai_tasks SET response_text = answer, status = 'streaming' WHERE task_id = task;
        END CASE;
        COMMIT;
    END LOOP;
    CASE kind
    WHEN 'tracker' THEN
        PERFORM run_tracker.complete_task(task);
        ASSERT (SELECT response FROM run_tracker.tasks WHERE task_id = task) = answer;
    WHEN 'bare' THEN
        UPDATE bare.tasks SET status = 'completed' WHERE task_id = task;
    WHEN 'baseline' THEN
        UPDATE baseline.ai_tasks SET status = 'completed' WHERE task_id = task;
    END CASE;
    COMMIT;
END
$$;

-- Finished runs of 1,000 users over the last 30 days, oldest first, with five tasks each; and a few rows around some of them.
CREATE PROCEDURE bench.add_history(runs integer) LANGUAGE plpgsql AS $$
DECLARE
    batch integer := 20000;
    days interval := interval '30 days';
BEGIN
    FOR i IN 0..(runs - 1) / batch LOOP
        WITH new AS (
            INSERT INTO run_tracker.runs (user_id, kind, workflow_id, status, settings, created_at, started_at, finished_at)
            SELECT 'user-' || (random() * 999)::integer, 'kind-' || n % 5,
                   'workflow-' || n % 20, (ARRAY['completed', 'completed', 'completed', 'failed'])[1 + (random() * 3)::integer],
                   jsonb_build_object('mode', (ARRAY['cloud-run', 'local-run'])[1 + n % 2]), t.at, t.at,
                   t.at + random() * random() * interval '1 minute'
            FROM generate_series(i * batch, LEAST((i + 1) * batch, runs) - 1) n
                 CROSS JOIN LATERAL (SELECT now() - days + days * (n::float8 / runs) AS at) t
            RETURNING run_id, user_id, finished_at, started_at)
        INSERT INTO run_tracker.tasks (run_id, status, operation, provider, model, input_tokens, output_tokens, cost,
            time_to_first_token_ms, created_at, started_at, finished_at)
        SELECT new.run_id, 'completed', 'chat', 'provider-' || k % 2, 'model-' || k % 4, 100 + k, 50 + k, 0.001 * k, 100 * k,
               new.started_at, new.started_at, new.finished_at
        FROM new, generate_series(1, 5) k;
        COMMIT;
    END LOOP;
    -- some with everything around them, and some that are open
    INSERT INTO run_tracker.messages (run_id, role, content)
    SELECT r.run_id, (ARRAY['user', 'assistant'])[1 + n % 2], bench.text(512)
    FROM (SELECT run_id FROM run_tracker.runs ORDER BY created_at DESC LIMIT 100) r, generate_series(1, 20) n;
    INSERT INTO run_tracker.retrievals (run_id, retrieval_type, query, results)
    SELECT r.run_id, 'vector_search', 'q', '[{"id": 1, "score": 0.5}]'
    FROM (SELECT run_id FROM run_tracker.runs ORDER BY created_at DESC LIMIT 100) r, generate_series(1, 3) n;
    INSERT INTO run_tracker.artifacts (run_id, kind, name, content)
    SELECT r.run_id, 'component', 'c' || n, bench.text(256)
    FROM (SELECT run_id FROM run_tracker.runs ORDER BY created_at DESC LIMIT 100) r, generate_series(1, 5) n;
    INSERT INTO run_tracker.logs (run_id, level, message)
    SELECT r.run_id, (ARRAY['INFO', 'ERROR'])[1 + n % 2], 'line ' || n
    FROM (SELECT run_id FROM run_tracker.runs ORDER BY created_at DESC LIMIT 100) r, generate_series(1, 10) n;
    INSERT INTO run_tracker.runs (user_id, kind) SELECT 'user-' || n % 1000, 'kind-' || n % 5 FROM generate_series(1, 2000) n;
    UPDATE run_tracker.runs SET status = 'running' WHERE status = 'pending' AND abs(hashtext(run_id::text)) % 2 = 0;
    COMMIT;
END
$$;

-- The median time of a query, in ms, with all its rows read; planning included, since applications pay for that, too.
CREATE FUNCTION bench.time(query text, n integer) RETURNS numeric LANGUAGE plpgsql AS $$
DECLARE
    began timestamptz;
    times float8[];
    ignored bigint;
BEGIN
    FOR i IN 0..n LOOP
        began := clock_timestamp();
        EXECUTE format('SELECT sum(length(q::text)) FROM (%s) q', query) INTO ignored;
        -- the first one warms up
        IF i > 0 THEN
            times := times || 1000 * extract(epoch FROM clock_timestamp() - began)::float8;
        END IF;
    END LOOP;
    RETURN (SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY t) FROM unnest(times) t)::numeric;
END
$$;
