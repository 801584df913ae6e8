--
-- Timelines: states, tasks with their subtasks, retrievals; what bars look like; circles; who may see them.
--
\getenv abs_srcdir PG_ABS_SRCDIR
\set common :abs_srcdir '/sql/common.psql'
\i :common

CREATE ROLE regress_timeline_reader;
SELECT run_tracker.grant_reader('regress_timeline_reader') \g /dev/null

CREATE FUNCTION pg_temp.run(n int) RETURNS uuid LANGUAGE sql IMMUTABLE AS
$$ SELECT ('018f0000-0000-7000-8000-' || lpad(n::text, 12, '0'))::uuid $$;
CREATE FUNCTION pg_temp.task(n int) RETURNS uuid LANGUAGE sql IMMUTABLE AS
$$ SELECT (lpad(n::text, 8, '0') || '-0000-7000-8001-000000000000')::uuid $$;
CREATE FUNCTION pg_temp.at(seconds numeric) RETURNS timestamptz LANGUAGE sql IMMUTABLE AS
$$ SELECT timestamptz '2026-01-01 00:00:00+00' + seconds * interval '1 second' $$;
-- bars end with a mark, so that the spaces before it are seen
CREATE FUNCTION pg_temp.bars(run_id uuid, width integer DEFAULT 40)
RETURNS TABLE (step text, kind text, status text, start_ms bigint, end_ms bigint, duration_ms bigint, bar text)
LANGUAGE sql AS $$ SELECT t.step, t.kind, t.status, t.start_ms, t.end_ms, t.duration_ms, t.bar || '|' FROM run_tracker.timeline($1, $2) t $$;

--
-- A run that failed, was tried again, and made it
--
INSERT INTO run_tracker.runs (run_id, user_id, status, attempt, created_at, started_at, finished_at)
VALUES (pg_temp.run(1), 'alice', 'completed', 2, pg_temp.at(0), pg_temp.at(4), pg_temp.at(10));
INSERT INTO run_tracker.transitions (run_id, seq, user_id, task_id, from_status, to_status, attempt, state_ms, occurred_at) VALUES
    (pg_temp.run(1), 1, 'alice', NULL, 'pending', 'running', 1, 1000, pg_temp.at(1)),
    (pg_temp.run(1), 2, 'alice', pg_temp.task(1), 'pending', 'running', 1, 500, pg_temp.at(1.5)),
    (pg_temp.run(1), 3, 'alice', NULL, 'running', 'failed', 1, 2000, pg_temp.at(3)),
    (pg_temp.run(1), 4, 'alice', NULL, 'failed', 'pending', 2, 500, pg_temp.at(3.5)),
    (pg_temp.run(1), 5, 'alice', NULL, 'pending', 'running', 2, 500, pg_temp.at(4)),
    (pg_temp.run(1), 6, 'alice', NULL, 'running', 'completed', 2, 6000, pg_temp.at(10));
INSERT INTO run_tracker.tasks (run_id, task_id, parent_task_id, name, service, operation, model, status, created_at, started_at, finished_at) VALUES
    -- what a task is called: its name, else operation and model, else the service, else the beginning of its id
    (pg_temp.run(1), pg_temp.task(1), NULL, 'first', 's', 'chat', 'm', 'failed', pg_temp.at(1), pg_temp.at(1.5), pg_temp.at(2.9999)),
    (pg_temp.run(1), pg_temp.task(2), NULL, 'second', NULL, NULL, NULL, 'completed', pg_temp.at(4), pg_temp.at(4.1), pg_temp.at(9.8)),
    (pg_temp.run(1), pg_temp.task(3), pg_temp.task(2), NULL, 's', 'chat', 'gpt-4o', 'completed', pg_temp.at(5), pg_temp.at(5), pg_temp.at(7)),
    (pg_temp.run(1), pg_temp.task(4), pg_temp.task(3), ' ', 's', NULL, 'gpt-4o', 'completed', pg_temp.at(5.5), NULL, pg_temp.at(5.6)),
    (pg_temp.run(1), pg_temp.task(5), pg_temp.task(3), NULL, 's', '', NULL, 'cancelled', pg_temp.at(6), NULL, pg_temp.at(6)),
    (pg_temp.run(1), pg_temp.task(6), pg_temp.task(2), NULL, NULL, NULL, NULL, 'completed', pg_temp.at(4.5), pg_temp.at(4.5), pg_temp.at(4.7));
INSERT INTO run_tracker.retrievals (run_id, retrieval_id, task_id, retrieval_type, query, duration_ms, results, created_at) VALUES
    (pg_temp.run(1), pg_temp.task(101), pg_temp.task(6), 'vector_search', 'refunds', 150, '[1]', pg_temp.at(4.65)),
    (pg_temp.run(1), pg_temp.task(102), NULL, 'graph_query', NULL, NULL, '[1, 2]', pg_temp.at(2)),
    -- its task is not there; it began before the run
    (pg_temp.run(1), pg_temp.task(103), pg_temp.task(99), 'hybrid', '', 5000, NULL, pg_temp.at(0.5));
SELECT * FROM pg_temp.bars(pg_temp.run(1));
SELECT step, bar FROM pg_temp.bars(pg_temp.run(1), 10);
SELECT DISTINCT length(bar) FROM run_tracker.timeline(pg_temp.run(1), 200);
SELECT DISTINCT length(bar) FROM run_tracker.timeline(pg_temp.run(1));
SELECT kind, end_ms - start_ms = duration_ms AS consistent, count(*) FROM run_tracker.timeline(pg_temp.run(1)) GROUP BY 1, 2 ORDER BY 1, 2;

--
-- States that are known from the run alone
--
INSERT INTO run_tracker.runs (run_id, user_id, status, created_at, started_at, finished_at) VALUES
    (pg_temp.run(2), 'alice', 'completed', pg_temp.at(0), pg_temp.at(1), pg_temp.at(5)),
    (pg_temp.run(3), 'alice', 'cancelled', pg_temp.at(0), NULL, pg_temp.at(5)),
    (pg_temp.run(4), 'alice', 'completed', pg_temp.at(0), pg_temp.at(0), pg_temp.at(0));
SELECT r.n, b.* FROM generate_series(2, 4) r (n), pg_temp.bars(pg_temp.run(r.n), 10) b;
-- inserted as finished, then tried again
SELECT run_tracker.retry_run(pg_temp.run(2));
SELECT step, kind, status, start_ms = 0 AS first, duration_ms >= 0 AS lasted FROM pg_temp.bars(pg_temp.run(2));
-- times of a service that are further apart than an interval can be
INSERT INTO run_tracker.runs (run_id, user_id, status, created_at, finished_at) VALUES
    (pg_temp.run(5), 'alice', 'completed', '4713-01-01 BC', '0001-01-01');
INSERT INTO run_tracker.tasks (run_id, task_id, name, status, created_at, started_at, finished_at) VALUES
    (pg_temp.run(5), pg_temp.task(51), 'ever', 'completed', '4713-01-01 BC', '4713-01-01 BC', '294276-01-01');
INSERT INTO run_tracker.retrievals (run_id, retrieval_id, retrieval_type, duration_ms, created_at) VALUES
    (pg_temp.run(5), pg_temp.task(151), 'early', 5000, '4713-01-01 BC');
SELECT step, start_ms, bar FROM pg_temp.bars(pg_temp.run(5), 80);
-- what began before the run was created
INSERT INTO run_tracker.runs (run_id, user_id, status, created_at, finished_at) VALUES
    (pg_temp.run(6), 'alice', 'completed', pg_temp.at(10), pg_temp.at(20));
INSERT INTO run_tracker.tasks (run_id, task_id, name, status, created_at, started_at, finished_at) VALUES
    (pg_temp.run(6), pg_temp.task(61), 'before', 'completed', pg_temp.at(0), pg_temp.at(0), pg_temp.at(12));
SELECT step, start_ms, end_ms, bar FROM pg_temp.bars(pg_temp.run(6), 20);
-- a client's word of how long a retrieval took does not stretch the axis
INSERT INTO run_tracker.retrievals (run_id, retrieval_id, retrieval_type, duration_ms, created_at) VALUES
    (pg_temp.run(6), pg_temp.task(161), 'vector_search', 9223372036854775807, pg_temp.at(15));
SELECT step, start_ms < -1e18 AS early, end_ms, duration_ms, bar FROM pg_temp.bars(pg_temp.run(6), 20);

--
-- What is open lasts until now
--
INSERT INTO run_tracker.runs (run_id, user_id) VALUES (pg_temp.run(7), 'alice');
SELECT run_tracker.start_run(pg_temp.run(7));
INSERT INTO run_tracker.tasks (run_id, task_id, name) VALUES (pg_temp.run(7), pg_temp.task(71), 'open');
SELECT step, kind, status, duration_ms BETWEEN 0 AND 60000 AS plausible, end_ms = max(end_ms) OVER () AS until_now
FROM run_tracker.timeline(pg_temp.run(7)) WHERE step <> 'pending';
SELECT run_tracker.complete_run(pg_temp.run(7));
SELECT step, kind, status FROM run_tracker.timeline(pg_temp.run(7));
-- states in the words of the lifecycle, in the order in which they were
INSERT INTO run_tracker.runs (run_id, user_id, lifecycle) VALUES (pg_temp.run(8), 'alice', 'iflow');
SELECT run_tracker.transition_run(pg_temp.run(8), s) FROM unnest('{processing,analyzing,documentation_ready,generating,failed,pending}'::text[]) s \g /dev/null
SELECT step, status FROM run_tracker.timeline(pg_temp.run(8));
SELECT bool_and(end_ms = next_ms) AS without_gaps
FROM (SELECT end_ms, lead(start_ms) OVER () AS next_ms FROM run_tracker.timeline(pg_temp.run(8))) t;

--
-- Parents are not checked: none of these is lost, none is there twice
--
INSERT INTO run_tracker.runs (run_id, user_id, status, created_at, finished_at) VALUES
    (pg_temp.run(9), 'alice', 'completed', pg_temp.at(0), pg_temp.at(10)), (pg_temp.run(10), 'bob', 'completed', pg_temp.at(0), pg_temp.at(10));
INSERT INTO run_tracker.tasks (run_id, task_id, parent_task_id, name, status, created_at, finished_at)
SELECT pg_temp.run(t.run), pg_temp.task(t.n), pg_temp.task(t.parent), t.name, 'completed', pg_temp.at(t.start), pg_temp.at(10)
FROM (VALUES (9, 901, 901, 'its own parent', 9), (9, 902, 903, 'circle, second', 3), (9, 903, 902, 'circle, first', 2),
             (9, 904, 902, 'below the circle', 1), (9, 905, 999, 'parent is missing', 4), (9, 906, 1001, 'parent is bob''s', 5),
             (9, 907, 908, 'began before its parent', 0), (9, 908, NULL, 'parent', 6), (9, 909, 907, 'grandchild', 7),
             (10, 1001, NULL, 'bob', 1)) t (run, n, parent, name, start);
INSERT INTO run_tracker.retrievals (run_id, retrieval_id, task_id, retrieval_type, created_at) VALUES
    -- ids of tasks and retrievals are different things
    (pg_temp.run(9), pg_temp.task(902), pg_temp.task(903), 'in the circle', pg_temp.at(8)),
    (pg_temp.run(9), pg_temp.task(910), pg_temp.task(910), 'its own task', pg_temp.at(8));
SELECT step, kind, start_ms FROM run_tracker.timeline(pg_temp.run(9));

-- circles, chains and trees of 10,000 tasks
INSERT INTO run_tracker.runs (run_id, user_id, status, created_at, finished_at)
SELECT pg_temp.run(n), 'alice', 'completed', pg_temp.at(0), pg_temp.at(10) FROM generate_series(11, 13) n;
INSERT INTO run_tracker.tasks (run_id, task_id, parent_task_id, name, status, created_at, finished_at)
SELECT pg_temp.run(r), pg_temp.task(r * 100000 + n),
       pg_temp.task(r * 100000 + CASE r WHEN 11 THEN 1 + n % 10000 WHEN 12 THEN n - 1 ELSE n / 7 END), 'task ' || n, 'completed',
       pg_temp.at(n / 2000.0), pg_temp.at(10)
FROM generate_series(11, 13) r, generate_series(1, 10000) n;
SET statement_timeout = '60s';
SELECT r, count(*), count(DISTINCT t.step), max(length(step)) AS longest, max(length(step) - length(ltrim(step))) AS deepest
FROM generate_series(11, 13) r, run_tracker.timeline(pg_temp.run(r)) t GROUP BY r ORDER BY r;
RESET statement_timeout;
SELECT step FROM run_tracker.timeline(pg_temp.run(13)) LIMIT 8;
-- the longest indentation, and the first tasks only
SELECT max(level) FROM run_tracker.run_timeline(pg_temp.run(12), 40);
SELECT kind, count(*) FROM run_tracker.run_timeline(pg_temp.run(12), 40, 5) GROUP BY kind ORDER BY kind;

--
-- Names that would break lines
--
INSERT INTO run_tracker.tasks (run_id, task_id, name, status, created_at, finished_at) VALUES
    (pg_temp.run(4), pg_temp.task(401), E'two\nlines\tand \x1b[31mmore', 'completed', pg_temp.at(0), pg_temp.at(1)),
    (pg_temp.run(4), pg_temp.task(402), repeat('long ', 1000), 'completed', pg_temp.at(0), pg_temp.at(1)),
    (pg_temp.run(4), pg_temp.task(403), E'right\u202eto\u2066left', 'completed', pg_temp.at(0), pg_temp.at(1)),
    (pg_temp.run(4), pg_temp.task(404), E'\n', 'completed', pg_temp.at(0), pg_temp.at(1));
SELECT step, bar FROM pg_temp.bars(pg_temp.run(4), 10) WHERE kind = 'task';

--
-- Bad input
--
CALL pg_temp.try($$SELECT * FROM run_tracker.timeline(pg_temp.run(1), 9)$$);
CALL pg_temp.try($$SELECT * FROM run_tracker.timeline(pg_temp.run(1), 201)$$);
CALL pg_temp.try($$SELECT * FROM run_tracker.timeline(pg_temp.run(1), NULL)$$);
CALL pg_temp.try($$SELECT * FROM run_tracker.timeline(pg_temp.run(1), -2147483648)$$);
CALL pg_temp.try($$SELECT * FROM run_tracker.timeline(pg_temp.run(0))$$);
CALL pg_temp.try($$SELECT * FROM run_tracker.timeline(NULL)$$);

--
-- Privileges: a run of somebody else's is as one that is not there; tasks of others do not show
--
SET ROLE regress_timeline_reader;
SET request.jwt.claims = '{"sub": "alice"}';
SELECT count(*) FROM run_tracker.timeline(pg_temp.run(1));
CALL pg_temp.try($$SELECT * FROM run_tracker.timeline(pg_temp.run(10))$$);
SET request.jwt.claims = '{"sub": "bob"}';
CALL pg_temp.try($$SELECT * FROM run_tracker.timeline(pg_temp.run(1))$$);
SELECT step, kind FROM run_tracker.timeline(pg_temp.run(10));
SET request.jwt.claims = '';
CALL pg_temp.try($$SELECT * FROM run_tracker.timeline(pg_temp.run(10))$$);
RESET ROLE;
CREATE ROLE regress_timeline_nobody;
GRANT USAGE ON SCHEMA run_tracker TO regress_timeline_nobody;
SET ROLE regress_timeline_nobody;
CALL pg_temp.try($$SELECT * FROM run_tracker.timeline(pg_temp.run(10))$$);
RESET ROLE;

DELETE FROM run_tracker.runs;
DROP OWNED BY regress_timeline_reader, regress_timeline_nobody;
DROP ROLE regress_timeline_reader, regress_timeline_nobody;
