-- What the measurements of the background worker, of claims and of heartbeats need.

-- Finished runs, as facts, until there are so many; and open ones whose deadlines are far.
CREATE PROCEDURE bench.add_finished(runs bigint)
LANGUAGE plpgsql AS $$
DECLARE
    missing bigint := runs - (SELECT count(*) FROM run_tracker.runs WHERE phase = 'succeeded');
BEGIN
    FOR start IN 0 .. missing - 1 BY 100000 LOOP
        INSERT INTO run_tracker.runs (user_id, status, created_at, started_at, finished_at)
        SELECT 'user ' || n % 100, 'completed', moment, moment, moment + interval '10 s'
        FROM generate_series(start, least(start + 100000, missing) - 1) n,
             LATERAL (SELECT clock_timestamp() - interval '30 days' + n * interval '1 ms' AS moment) m;
        COMMIT;
    END LOOP;
END
$$;

CREATE PROCEDURE bench.add_open(runs bigint)
LANGUAGE plpgsql AS $$
BEGIN
    FOR start IN 0 .. runs - 1 BY 100000 LOOP
        INSERT INTO run_tracker.runs (user_id, status, timeout)
        SELECT 'user ' || n % 100, 'running', interval '1 day'
        FROM generate_series(start, least(start + 100000, runs) - 1) n;
        COMMIT;
    END LOOP;
END
$$;

-- Runs that nobody works on, and when each of them is due.
CREATE TABLE bench.due (run_id uuid PRIMARY KEY, due_at timestamptz);

-- They come due after lead, spread evenly over span.
CREATE PROCEDURE bench.add_due(runs bigint, lead interval, span interval)
LANGUAGE plpgsql AS $$
BEGIN
    TRUNCATE bench.due;
    WITH inserted AS (
        INSERT INTO run_tracker.runs (user_id, status, timeout)
        SELECT 'user ' || n % 100, 'running', lead + span * (n::float8 / runs) FROM generate_series(1, runs) n
        RETURNING run_id)
    INSERT INTO bench.due (run_id) SELECT run_id FROM inserted;
    UPDATE bench.due d SET due_at = o.deadline_at FROM run_tracker.open_runs o WHERE o.run_id = d.run_id;
    ANALYZE bench.due;
    IF (SELECT min(due_at) FROM bench.due) < clock_timestamp() + lead / 10 THEN
        RAISE EXCEPTION 'adding runs took longer than the time until they are due';
    END IF;
END
$$;

-- How late they were ended, in ms; and how late everyone could see it.
CREATE FUNCTION bench.lateness(OUT p50 float8, OUT p99 float8, OUT worst float8, OUT visible_p99 float8,
    OUT visible_worst float8)
LANGUAGE plpgsql AS $$
DECLARE
    ended bigint;
    early bigint;
BEGIN
    SELECT count(*), count(*) FILTER (WHERE l.late < 0),
           percentile_cont(0.5) WITHIN GROUP (ORDER BY l.late), percentile_cont(0.99) WITHIN GROUP (ORDER BY l.late),
           max(l.late), percentile_cont(0.99) WITHIN GROUP (ORDER BY l.visible), max(l.visible)
    INTO ended, early, p50, p99, worst, visible_p99, visible_worst
    FROM bench.due d JOIN run_tracker.transitions t ON t.run_id = d.run_id AND t.actor = 'run_tracker',
         LATERAL (SELECT extract(epoch FROM t.occurred_at - d.due_at) * 1000 AS late,
                         extract(epoch FROM pg_xact_commit_timestamp(t.xmin) - d.due_at) * 1000 AS visible) l;
    IF ended <> (SELECT count(*) FROM bench.due) OR early > 0 THEN
        RAISE EXCEPTION '% of % runs were ended by the worker, % of them too early', ended,
                        (SELECT count(*) FROM bench.due), early;
    END IF;
END
$$;

-- Fill the queue up. What is claimed does not time out while something is measured.
CREATE PROCEDURE bench.fill_queue(runs bigint)
LANGUAGE plpgsql AS $$
DECLARE
    missing bigint := runs - (SELECT count(*) FROM run_tracker.open_runs WHERE phase = 'queued');
BEGIN
    FOR start IN 0 .. missing - 1 BY 100000 LOOP
        INSERT INTO run_tracker.runs (user_id, kind, priority, timeout, inputs)
        SELECT 'user ' || n % 100, 'kind ' || n % 3, n % 5, interval '1 day', '{"question": "How are you?"}'
        FROM generate_series(start, least(start + 100000, missing) - 1) n;
        COMMIT;
    END LOOP;
END
$$;

-- Clients that work in rounds: all of them wait until all have arrived and the queue is full again. What a backend does
-- only once is done in round 0.
CREATE UNLOGGED TABLE bench.arrived (round integer, at timestamptz DEFAULT clock_timestamp());
CREATE TABLE bench.rounds (round integer, seconds float8);

CREATE PROCEDURE bench.direct(clients bigint, rounds integer, queue bigint)
LANGUAGE plpgsql AS $$
DECLARE
    began timestamptz;
    give_up timestamptz := clock_timestamp() + interval '10 min';
BEGIN
    FOR r IN 0 .. rounds LOOP
        PERFORM pg_advisory_lock(r);
    END LOOP;
    TRUNCATE bench.arrived, bench.rounds;
    COMMIT;
    FOR r IN 0 .. rounds + 1 LOOP
        WHILE (SELECT count(*) FROM bench.arrived WHERE round = r) < clients LOOP
            IF clock_timestamp() > give_up THEN
                RAISE EXCEPTION 'not all clients have arrived at round %', r;
            END IF;
            -- no snapshot is kept that would keep dead rows
            COMMIT;
            PERFORM pg_sleep(0.005);
        END LOOP;
        INSERT INTO bench.rounds
        SELECT r - 1, extract(epoch FROM max(at) - began) FROM bench.arrived WHERE round = r AND r > 1 HAVING count(*) > 0;
        COMMIT;
        IF r <= rounds THEN
            CALL bench.fill_queue(queue);
            began := clock_timestamp();
            PERFORM pg_advisory_unlock(r);
            COMMIT;
        END IF;
    END LOOP;
END
$$;
