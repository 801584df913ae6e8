-- Conversations and streamed answers through the views of an application, and on the tables that it had.
CREATE SCHEMA compat;
SELECT run_tracker.create_compat('ai_runs', 'compat') \g /dev/null

-- A message of about 1 kB, which does not compress, as applications write it.
CREATE FUNCTION bench.element(n bigint) RETURNS jsonb
LANGUAGE sql AS $$
    SELECT jsonb_build_object('role', CASE WHEN n % 2 = 0 THEN 'assistant' ELSE 'user' END,
                              'content', (SELECT string_agg(md5(n || '/' || i), '') FROM generate_series(1, 28) i),
                              'timestamp', '2026-01-05T10:00:00.000Z', 'taskId', bench.task_id(n),
                              'metadata', '{"tokens": 150, "cost": 0.0025, "timeToFirstToken": 350, "totalTime": 2400}'::jsonb)
$$;

-- One conversation of so many messages, and 1,000 short ones.
CREATE PROCEDURE bench.converse(relation regclass, messages bigint)
LANGUAGE plpgsql SET client_min_messages = warning AS $$
BEGIN
    TRUNCATE run_tracker.runs CASCADE;
    TRUNCATE baseline.ai_runs CASCADE;
    EXECUTE format('INSERT INTO %s (id, user_id, name, messages)
                    SELECT bench.run_id(n), ''a0000000-0000-4000-8000-000000000001'', ''chat'',
                           (SELECT jsonb_agg(bench.element(i) ORDER BY i) FROM generate_series(1, CASE n WHEN 0 THEN $1 ELSE 2 END) i)
                    FROM generate_series(0, 1000) n', relation) USING messages;
END
$$;

-- Median time in ms and bytes of WAL of a statement on the long conversation, each time in a transaction of its own.
CREATE PROCEDURE bench.repeat_on(relation regclass, what text, times integer, INOUT ms numeric DEFAULT NULL, INOUT bytes numeric DEFAULT NULL)
LANGUAGE plpgsql AS $$
DECLARE
    statement text := format('UPDATE %s SET %s WHERE id = $1', relation, what);
    taken double precision[] := '{}';
    since timestamptz;
    lsn pg_lsn;
    element jsonb := jsonb_build_array(bench.element(0));
BEGIN
    -- plans and caches
    FOR i IN 1 .. 2 LOOP
        EXECUTE statement USING bench.run_id(0), element, i;
        COMMIT;
    END LOOP;
    lsn := pg_current_wal_insert_lsn();
    FOR i IN 3 .. times + 2 LOOP
        since := clock_timestamp();
        EXECUTE statement USING bench.run_id(0), element, i;
        COMMIT;
        taken := taken || extract(epoch FROM clock_timestamp() - since)::double precision * 1000;
    END LOOP;
    bytes := round((pg_current_wal_insert_lsn() - lsn) / times);
    SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY t) INTO ms FROM unnest(taken) t;
END
$$;

-- The accumulated text of an answer of 32 kB is saved 64 times; bytes of WAL.
CREATE PROCEDURE bench.stream_through(tasks regclass, INOUT bytes numeric DEFAULT NULL)
LANGUAGE plpgsql AS $$
DECLARE
    answer text := (SELECT string_agg(md5(i::text), '') FROM generate_series(1, 1024) i);
    lsn pg_lsn;
BEGIN
    EXECUTE format('INSERT INTO %s (task_id, run_id, user_id, status) VALUES ($1, $2, ''a0000000-0000-4000-8000-000000000001'', ''streaming'')', tasks)
        USING bench.task_id(0), bench.run_id(0);
    COMMIT;
    lsn := pg_current_wal_insert_lsn();
    FOR i IN 1 .. 64 LOOP
        EXECUTE format('UPDATE %s SET response_text = $2, status = ''streaming'', updated_at = now() WHERE task_id = $1', tasks)
            USING bench.task_id(0), left(answer, i * 512);
        COMMIT;
    END LOOP;
    bytes := pg_current_wal_insert_lsn() - lsn;
END
$$;
