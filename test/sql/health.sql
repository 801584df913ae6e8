--
-- health() says what is wrong and never fails; metrics and openmetrics() count, whatever clients call their runs.
-- The library is not preloaded here.
--
\getenv abs_srcdir PG_ABS_SRCDIR
\set common :abs_srcdir '/sql/common.psql'
\i :common

CREATE ROLE regress_health_client;
CREATE ROLE regress_health_reader;
CREATE ROLE regress_health_service;
CREATE ROLE regress_health_probe;
CREATE DATABASE regress_health TEMPLATE template0;
\c regress_health
\i :common
CREATE EXTENSION run_tracker;
SELECT run_tracker.grant_client('regress_health_client'), run_tracker.grant_reader('regress_health_reader'),
       run_tracker.grant_service('regress_health_service') \g /dev/null
SELECT run_tracker.grant_reader('regress_health_probe') \g /dev/null
REVOKE SELECT ON ALL TABLES IN SCHEMA run_tracker FROM regress_health_probe;

-- what matters; numbers in messages depend on the time
\set health 'SELECT h ->> ''status'' AS status, (SELECT string_agg(format(E''%s %s: %s\\n    %s'', p ->> ''severity'', p ->> ''code'', regexp_replace(p ->> ''message'', ''for \\d+ seconds'', ''for … seconds''), p ->> ''hint''), E''\\n'') FROM jsonb_array_elements(h -> ''problems'') p) AS problems FROM run_tracker.health() h;'
\set open 'SELECT h -> ''open_runs'' AS open_runs, h -> ''backlog'' -> ''available'' AS available, (h -> ''backlog'' ->> ''oldest_ms'')::bigint / 100000 AS oldest, h -> ''overdue'' -> ''count'' AS overdue, h -> ''totals'' AS totals FROM run_tracker.health() h;'

--
-- Nothing there, nothing wrong
--
SELECT k.key, CASE WHEN k.key = 'timestamp' THEN '…' ELSE k.value::text END AS value
FROM jsonb_each(run_tracker.health() - 'horizon') k ORDER BY k.key COLLATE "C";
SELECT run_tracker.health() ? 'horizon' AS has_horizon,
       abs(extract(epoch FROM clock_timestamp() - (run_tracker.health() ->> 'timestamp')::timestamptz)) < 60 AS is_now,
       run_tracker.health() ->> 'version' = run_tracker.tracker_version() AS version,
       run_tracker.health() ->> 'tables_version' = run_tracker.tracker_version() AS tables_version;
BEGIN READ ONLY;
:health
ROLLBACK;

--
-- Open runs
--
INSERT INTO run_tracker.runs (run_id, user_id, status, kind, created_at, scheduled_at, started_at, timeout)
VALUES ('018f0000-0000-7000-8000-000000000001', 'alice', 'pending', 'a', now() - interval '1 minute', NULL, NULL, NULL),
       ('018f0000-0000-7000-8000-000000000002', 'alice', 'pending', 'a', now(), now() + interval '1 hour', NULL, NULL),
       ('018f0000-0000-7000-8000-000000000003', 'alice', 'running', 'a', now(), NULL, now(), '1 hour'),
       ('018f0000-0000-7000-8000-000000000004', 'bob', 'paused', 'b', now(), NULL, NULL, NULL),
       ('018f0000-0000-7000-8000-000000000005', 'bob', 'pending', 'b', now() - interval '10 minutes', NULL, NULL, NULL),
       ('018f0000-0000-7000-8000-000000000006', '', 'completed', 'b', now(), NULL, NULL, NULL);
UPDATE run_tracker.runs SET priority = n FROM (VALUES ('018f0000-0000-7000-8000-000000000001'::uuid, 5), ('018f0000-0000-7000-8000-000000000002', 4)) AS v (id, n) WHERE run_id = id;
UPDATE run_tracker.open_runs SET available_at = r.created_at FROM run_tracker.runs r WHERE r.run_id = open_runs.run_id AND r.scheduled_at IS NULL;
:open
:health
SELECT count(*) AS stuck FROM run_tracker.stuck_runs();
-- stuck is what has not changed; the status of this one has
BEGIN;
SELECT run_tracker.start_run('018f0000-0000-7000-8000-000000000005');
:open
ROLLBACK;
-- the oldest is the oldest of all priorities and lifecycles
BEGIN;
UPDATE run_tracker.runs SET priority = -7 WHERE run_id = '018f0000-0000-7000-8000-000000000005';
INSERT INTO run_tracker.runs (user_id, lifecycle) SELECT 'carol', l FROM unnest('{spar,iflow,build}'::text[]) l, generate_series(1, 3);
UPDATE run_tracker.open_runs SET available_at = now() - interval '10 minutes' WHERE run_id = '018f0000-0000-7000-8000-000000000005';
:open
UPDATE run_tracker.open_runs SET available_at = now() - interval '20 minutes' WHERE lifecycle = 'iflow';
:open
ROLLBACK;
-- more than are counted
BEGIN;
INSERT INTO run_tracker.runs (user_id, kind) SELECT 'dave', 'many' FROM generate_series(1, 10000);
SELECT h #> '{open_runs,complete}' AS complete,
       (h #>> '{open_runs,queued}')::integer + (h #>> '{open_runs,active}')::integer + (h #>> '{open_runs,waiting}')::integer AS counted
FROM run_tracker.health() h;
SET LOCAL request.jwt.claims = '{"sub": "dave"}';
SET LOCAL ROLE regress_health_reader;
SELECT h -> 'open_runs' AS open_runs FROM run_tracker.health() h;
ROLLBACK;

--
-- Deadlines: a problem without a worker, and unless somebody ends the runs soon
--
SELECT (run_tracker.health() ->> 'oldest_deadline')::timestamptz = o.deadline_at AS oldest_deadline
FROM run_tracker.open_runs o WHERE o.deadline_at IS NOT NULL;
BEGIN;
UPDATE run_tracker.open_runs SET deadline_at = now() - interval '10 seconds' WHERE deadline_at IS NOT NULL;
:open
:health
UPDATE run_tracker.open_runs SET deadline_at = now() - interval '10 minutes' WHERE deadline_at IS NOT NULL;
:health
SELECT (h #>> '{overdue,oldest_ms}')::bigint / 10000 FROM run_tracker.health() h;
ROLLBACK;

--
-- Triggers
--
BEGIN;
DROP TRIGGER run_tracker_update ON run_tracker.tasks;
ALTER TABLE run_tracker.logs DISABLE TRIGGER zz_run_tracker_before;
ALTER TABLE run_tracker.runs ENABLE REPLICA TRIGGER run_tracker_insert;
ALTER TABLE run_tracker.runs ENABLE ALWAYS TRIGGER run_tracker_delete;
:health
SELECT run_tracker.health() -> 'triggers' AS triggers;
ROLLBACK;

--
-- Totals that are not what their rows add up to
--
INSERT INTO run_tracker.tasks (run_id, task_id, status, input_tokens, output_tokens, cost)
VALUES ('018f0000-0000-7000-8000-000000000003', '018f0000-0000-7000-8000-000000000101', 'completed', 5, 7, 0.25),
       ('018f0000-0000-7000-8000-000000000003', '018f0000-0000-7000-8000-000000000102', 'failed', 1, NULL, NULL),
       ('018f0000-0000-7000-8000-000000000003', '018f0000-0000-7000-8000-000000000103', 'pending', 1, NULL, NULL);
INSERT INTO run_tracker.messages (run_id, role, content) VALUES ('018f0000-0000-7000-8000-000000000003', 'user', 'hello');
INSERT INTO run_tracker.logs (run_id, level, message) VALUES ('018f0000-0000-7000-8000-000000000003', 'ERROR', 'no'), ('018f0000-0000-7000-8000-000000000003', 'INFO', 'yes');
SELECT run_tracker.log_retrieval('018f0000-0000-7000-8000-000000000003', 'vector_search', 'q') IS NOT NULL AS retrieval,
       run_tracker.add_artifact('018f0000-0000-7000-8000-000000000003', 'document', name => 'd') IS NOT NULL AS artifact;
:health
-- each of them is looked at
DO $$
DECLARE
    total text;
BEGIN
    FOR total IN SELECT a.attname FROM pg_attribute a WHERE a.attrelid = 'run_tracker.run_totals'::regclass AND a.attname ~ '_(count|tokens|cost)$' ORDER BY a.attnum LOOP
        EXECUTE format('UPDATE run_tracker.run_totals SET %I = %I + 1 WHERE run_id = ''018f0000-0000-7000-8000-000000000003''', total, total);
        RAISE INFO '%: %', total, run_tracker.health() -> 'totals';
        EXECUTE format('UPDATE run_tracker.run_totals SET %I = %I - 1 WHERE run_id = ''018f0000-0000-7000-8000-000000000003''', total, total);
    END LOOP;
END
$$;
BEGIN;
UPDATE run_tracker.run_totals SET total_cost = 0;
:health
-- to others, it is no problem of theirs
SET LOCAL request.jwt.claims = '{"sub": "bob"}';
SET LOCAL ROLE regress_health_reader;
:health
SET LOCAL request.jwt.claims = '{"sub": "alice"}';
:health
RESET ROLE;
SELECT run_tracker.rebuild_totals() AS rebuilt;
:health
DELETE FROM run_tracker.run_totals WHERE run_id = '018f0000-0000-7000-8000-000000000003';
:health
ROLLBACK;
-- a run that much belongs to is left out, and so are all but the newest
BEGIN;
INSERT INTO run_tracker.logs (run_id, level, message) SELECT '018f0000-0000-7000-8000-000000000003', 'INFO', 'm' FROM generate_series(1, 200);
SELECT run_tracker.health() -> 'totals' AS totals;
INSERT INTO run_tracker.runs (user_id, created_at, status) SELECT 'carol', now() + interval '1 second', 'completed' FROM generate_series(1, 30);
SELECT run_tracker.health() -> 'totals' AS totals;
ROLLBACK;

--
-- Statistics that nobody folds
--
SELECT run_tracker.fold_statistics() > 0 AS folded;
SELECT run_tracker.health() -> 'statistics' AS statistics;
BEGIN;
INSERT INTO run_tracker.runs (user_id, kind, status) SELECT 'carol', 'k' || n, 'completed' FROM generate_series(1, 5000) n;
SELECT run_tracker.health() -> 'statistics' AS statistics;
:health
INSERT INTO run_tracker.runs (user_id, kind) VALUES ('carol', 'one more');
:health
SELECT u.total, u.finished FROM run_tracker.user_stats('carol') u;
SELECT run_tracker.fold_statistics() AS folded;
SELECT u.total, u.finished FROM run_tracker.user_stats('carol') u;
:health
ROLLBACK;

--
-- Tables of another version, and no tables
--
BEGIN;
UPDATE run_tracker.installation SET version = '0.1';
:health
SELECT h -> 'open_runs' AS open_runs, h -> 'totals' AS totals, h -> 'triggers' AS triggers FROM run_tracker.health() h;
DELETE FROM run_tracker.installation;
:health
ROLLBACK;
BEGIN;
SET LOCAL client_min_messages = warning;
DROP TABLE run_tracker.artifacts, run_tracker.stat_deltas;
:health
SET LOCAL request.jwt.claims = '{"sub": "alice"}';
SET LOCAL ROLE regress_health_reader;
:health
RESET ROLE;
CALL pg_temp.try('SELECT * FROM run_tracker.metrics');
CALL pg_temp.try('SELECT run_tracker.openmetrics()');
SELECT run_tracker.install() IS NOT NULL AS installed;
:health
ROLLBACK;
BEGIN;
SET LOCAL client_min_messages = warning;
DO $$
DECLARE
    tab regclass;
BEGIN
    FOR tab IN SELECT c.oid FROM pg_class c WHERE c.relnamespace = 'run_tracker'::regnamespace AND c.relkind = 'r' LOOP
        EXECUTE format('DROP TABLE %s CASCADE', tab);
    END LOOP;
END
$$;
:health
SELECT run_tracker.health() -> 'triggers' AS triggers;
SET LOCAL ROLE regress_health_reader;
:health
SET LOCAL ROLE regress_health_service;
:health
ROLLBACK;

--
-- Who sees what
--
SET request.jwt.claims = '{"sub": "alice"}';
SET ROLE regress_health_reader;
:open
SELECT k.key, jsonb_typeof(k.value) AS type FROM jsonb_each(run_tracker.health()) k ORDER BY k.key COLLATE "C";
SET row_security = off;
:open
RESET row_security;
SET request.jwt.claims = '{"sub": "nobody"}';
:open
RESET request.jwt.claims;
:open
SET ROLE regress_health_client;
SET request.jwt.claims = '{"sub": "bob"}';
:open
SET ROLE regress_health_service;
:open
SELECT k.key, jsonb_typeof(k.value) AS type FROM jsonb_each(run_tracker.health() - 'horizon') k ORDER BY k.key COLLATE "C";
-- a probe that was given functions, and nothing to read
SET ROLE regress_health_probe;
:health
SELECT k.key, jsonb_typeof(k.value) AS type FROM jsonb_each(run_tracker.health()) k ORDER BY k.key COLLATE "C";
CALL pg_temp.try('SELECT run_tracker.openmetrics()');
CALL pg_temp.try('SELECT * FROM run_tracker.metrics');
RESET ROLE;
REVOKE EXECUTE ON FUNCTION run_tracker.health() FROM regress_health_probe;
SET ROLE regress_health_probe;
CALL pg_temp.try('SELECT run_tracker.health()');
RESET ROLE;
RESET request.jwt.claims;
-- that the library is preloaded, nobody can pretend
\c
\i :common
SET run_tracker.max_databases = 10;
SELECT run_tracker.health() -> 'worker' AS worker;
CALL pg_temp.try('SET run_tracker.max_databases = 10');

--
-- Metrics
--
DELETE FROM run_tracker.runs;
TRUNCATE run_tracker.stat_deltas, run_tracker.stat_totals;
\set text 'SELECT regexp_replace(regexp_replace(line, ''^(run_tracker_oldest_available_seconds|run_tracker_deadline_overdue_seconds) [0-9.]+$'', ''\\1 …''), ''version="[^"]*"'', ''version="…"'') AS line FROM regexp_split_to_table(run_tracker.openmetrics(), E''\\n'') WITH ORDINALITY AS t (line, n) ORDER BY n'
\pset format unaligned
:text ;
-- durations on both sides of each bound
INSERT INTO run_tracker.runs (run_id, user_id, kind, status, created_at, started_at, finished_at, duration_ms)
SELECT ('018f0000-0000-7000-8000-' || lpad(n::text, 12, '0'))::uuid, 'alice', 'lasting', CASE WHEN n <= 6 THEN 'completed' ELSE 'failed' END,
       '2024-05-01', '2024-05-01', '2024-05-01 01:00', d
FROM unnest('{0,100,101,500,501,1000,1001,2000,2001,5000,5001,10000,10001,9000000000}'::bigint[]) WITH ORDINALITY AS t (d, n);
INSERT INTO run_tracker.runs (user_id, kind) VALUES ('bob', NULL), ('bob', 'lasting');
INSERT INTO run_tracker.tasks (run_id, provider, model, operation, status, input_tokens, output_tokens, cost, time_to_first_token_ms, finished_at, duration_ms)
VALUES ('018f0000-0000-7000-8000-000000000001', 'acme', E'm"1"\\', 'chat', 'completed', 10, 20, 0.000001, 90, now(), 800),
       ('018f0000-0000-7000-8000-000000000001', 'acme', E'm"1"\\', 'chat', 'failed', 1, NULL, 0.5, NULL, now(), 30000),
       ('018f0000-0000-7000-8000-000000000001', 'acme', E'm"1"\\', E'emb\ned', 'timeout', NULL, NULL, NULL, 600, now(), 4000),
       ('018f0000-0000-7000-8000-000000000001', NULL, NULL, NULL, 'cancelled', 1000000000000, NULL, 1e-40, 0, now(), 0);
:text ;
-- words that break a text format that does not escape them
INSERT INTO run_tracker.runs (user_id, kind, status, duration_ms)
SELECT 'bob', k, 'completed', 50
FROM unnest(ARRAY['', 'say "hi"', E'back\\slash', E'two\nlines\n# EOF\n', E'\\n', E'"} 1\nfake_metric{x="', E'tab\there', 'ünïcödé ✓ 日本語',
                  'other', '{}', ' ', E'\\', '"', E'\u200b', repeat('long', 100)]) k;
SELECT t.line FROM (:text) t WHERE t.line ~ '^run_tracker_runs_finished_total|^fake';
SELECT count(*) AS lines, count(*) FILTER (WHERE t.line !~ '^# (HELP|TYPE) run_tracker_[a-z_]+ |^run_tracker_[a-z_]+(\{[a-z]+="([^"\\]|\\.)*"(,[a-z]+="([^"\\]|\\.)*")*\})? [0-9.e+-]+$') AS others
FROM regexp_split_to_table(run_tracker.openmetrics(), E'\n') AS t (line);
\pset format aligned
SELECT count(*) AS samples, count(DISTINCT (m.name, m.labels)) AS series, count(*) FILTER (WHERE m.name !~ '^run_tracker_[a-z_]+$') AS strange,
       count(*) FILTER (WHERE m.value IS NULL OR m.labels IS NULL) AS nulls
FROM run_tracker.metrics m;
SELECT m.name, m.labels, m.value FROM run_tracker.metrics m WHERE m.labels ->> 'kind' = 'lasting' AND m.name ~ '_duration_';
-- not folded, or folded: the same
CREATE TEMP TABLE before AS SELECT * FROM run_tracker.metrics;
SELECT run_tracker.fold_statistics() > 0 AS folded;
\set changed 'SELECT name, labels, b.value AS before, m.value AS after FROM before b FULL JOIN run_tracker.metrics m USING (name, labels) WHERE b.value IS DISTINCT FROM m.value AND name !~ ''_(available|overdue)_seconds$'' ORDER BY name, labels;'
:changed
-- whatever is set in the session, the text is the same
\set digest 'SELECT md5(string_agg(line, chr(10) ORDER BY n)) AS digest FROM regexp_split_to_table(run_tracker.openmetrics(), chr(10)) WITH ORDINALITY AS t (line, n) WHERE line !~ ''_(available|overdue)_seconds [0-9]'''
:digest \gset before_
SET extra_float_digits = -15;
SET standard_conforming_strings = off;
SET escape_string_warning = off;
SET bytea_output = 'escape';
SET IntervalStyle = 'iso_8601';
SET search_path = pg_temp, run_tracker;
SELECT d.digest = :'before_digest' AS same FROM (:digest) d;
RESET ALL;
SET client_min_messages = notice;

--
-- Counters do not go down
--
SELECT run_tracker.create_run('018f0000-0000-7000-8000-000000000200', kind => 'again', user_id => 'alice', lifecycle => 'spar', max_attempts => 5) \g /dev/null
SELECT run_tracker.start_run('018f0000-0000-7000-8000-000000000200') \g /dev/null
SELECT run_tracker.create_task('018f0000-0000-7000-8000-000000000200', '018f0000-0000-7000-8000-000000000201', provider => 'p', model => 'm') \g /dev/null
SELECT run_tracker.complete_task('018f0000-0000-7000-8000-000000000201', input_tokens => 3, output_tokens => 4, cost => 1) \g /dev/null
SELECT run_tracker.fail_run('018f0000-0000-7000-8000-000000000200', 'broken') \g /dev/null
CREATE TEMP TABLE counters AS SELECT m.name, m.labels, m.value FROM run_tracker.metrics m WHERE m.name ~ '_(total|bucket|sum|count)$';
-- which counters went down since the last time, how many went up (as far as that does not depend on the time it took),
-- and what has become of the run
CREATE FUNCTION pg_temp.watch(ignore text DEFAULT '-') RETURNS TABLE (down text, up bigint, runs jsonb) LANGUAGE plpgsql AS
$$
BEGIN
    SELECT string_agg(format('%s%s', name, labels), ' ') FILTER (WHERE (n.value IS NULL OR n.value < m.value) AND name !~ ignore),
           count(*) FILTER (WHERE (n.value > m.value OR m.value IS NULL) AND name !~ '_(bucket|sum)$')
    INTO down, up
    FROM counters m FULL JOIN (SELECT * FROM run_tracker.metrics x WHERE x.name ~ '_(total|bucket|sum|count)$') n USING (name, labels);
    SELECT jsonb_object_agg(m.labels ->> 'phase', m.value) INTO runs
    FROM run_tracker.metrics m WHERE m.name = 'run_tracker_runs' AND m.labels ->> 'kind' = 'again' AND m.value <> 0;
    DELETE FROM counters;
    INSERT INTO counters SELECT m.name, m.labels, m.value FROM run_tracker.metrics m WHERE m.name ~ '_(total|bucket|sum|count)$';
    RETURN NEXT;
END
$$;
\set watch 'SELECT * FROM pg_temp.watch();'
:watch
SELECT run_tracker.retry_run('018f0000-0000-7000-8000-000000000200');
:watch
SELECT run_tracker.start_run('018f0000-0000-7000-8000-000000000200');
UPDATE run_tracker.tasks SET status = 'pending' WHERE task_id = '018f0000-0000-7000-8000-000000000201';
:watch
SELECT run_tracker.complete_task('018f0000-0000-7000-8000-000000000201', input_tokens => 3, output_tokens => 4, cost => 1);
SELECT run_tracker.transition_run('018f0000-0000-7000-8000-000000000200', 'timeout');
:watch
-- a late result: the run lasted longer than it seemed
SELECT run_tracker.complete_run('018f0000-0000-7000-8000-000000000200');
SELECT * FROM pg_temp.watch('_bucket$');
SELECT run_tracker.fold_statistics() > 0 AS folded;
:watch
SELECT run_tracker.purge_runs('0') > 0 AS purged;
:watch
SELECT m.name, m.labels, m.value FROM run_tracker.metrics m WHERE m.labels ->> 'kind' = 'again' AND m.name !~ '_duration_' OR m.labels ->> 'provider' = 'p' AND m.name !~ '_seconds_' ORDER BY 1, 2;

--
-- Very many kinds and models: the largest are kept, the others summed up, nothing gets lost
--
INSERT INTO run_tracker.runs (user_id, kind, status, duration_ms)
SELECT 'carol', 'noise ' || n, 'completed', 10 FROM generate_series(1, 2000) n;
INSERT INTO run_tracker.runs (run_id, user_id, kind) VALUES ('018f0000-0000-7000-8000-000000000300', 'carol', 'noise');
INSERT INTO run_tracker.tasks (run_id, provider, model, operation, status, input_tokens)
SELECT '018f0000-0000-7000-8000-000000000300', 'p' || n % 7, 'm' || n, 'o' || n % 3, 'completed', 1 FROM generate_series(1, 500) n;
SELECT m.name, count(DISTINCT m.labels - 'phase' - 'type' - 'le') AS labels, sum(m.value) FILTER (WHERE NOT m.labels ? 'le') AS sum
FROM run_tracker.metrics m WHERE m.name ~ '^run_tracker_(runs|tasks|tokens)' GROUP BY 1 ORDER BY 1;
SELECT count(*) AS kept FROM run_tracker.metrics m
WHERE m.name = 'run_tracker_runs_finished_total' AND m.labels ->> 'kind' IN ('lasting', 'again', 'other');
SELECT max(t.n) < 5000 AS lines, max(length(t.line)) < 500 AS length FROM regexp_split_to_table(run_tracker.openmetrics(), E'\n') WITH ORDINALITY AS t (line, n);

--
-- Own runs only
--
SET request.jwt.claims = '{"sub": "alice"}';
SET ROLE regress_health_reader;
SELECT m.name, m.labels, m.value FROM run_tracker.metrics m WHERE m.name !~ '_duration_|_first_token_|_info$' AND m.labels ->> 'kind' IS DISTINCT FROM 'lasting' AND m.labels ->> 'provider' IS DISTINCT FROM 'acme';
SELECT DISTINCT m.labels ->> 'kind' AS kind FROM run_tracker.metrics m ORDER BY 1;
SET request.jwt.claims = '{"sub": "nobody"}';
SELECT m.name, m.labels, m.value FROM run_tracker.metrics m WHERE m.name !~ '_info$';
RESET request.jwt.claims;
SELECT count(*) FROM run_tracker.metrics m WHERE m.labels ?| '{kind,model}';
SET ROLE regress_health_service;
SELECT sum(m.value) FROM run_tracker.metrics m WHERE m.name = 'run_tracker_runs_finished_total';
SELECT length(run_tracker.openmetrics()) > 1000 AS text;
BEGIN READ ONLY;
SELECT length(run_tracker.openmetrics()) > 1000 AS text;
ROLLBACK;
RESET ROLE;
-- views can be granted, too, but what is behind them is looked at as the caller
GRANT SELECT ON run_tracker.metrics TO regress_health_probe;
SET ROLE regress_health_probe;
CALL pg_temp.try('SELECT * FROM run_tracker.metrics');
RESET ROLE;

--
-- Without the extension, and with it again
--
SELECT sum(m.value) AS finished FROM run_tracker.metrics m WHERE m.name = 'run_tracker_runs_finished_total' \gset before_
SET client_min_messages = warning;
DROP EXTENSION run_tracker CASCADE;
SELECT to_regclass('run_tracker.metrics') AS metrics, to_regclass('run_tracker.stat_totals') IS NOT NULL AS stat_totals;
CREATE EXTENSION run_tracker;
SELECT h ->> 'status' AS status, h #>> '{problems,0,code}' AS problem FROM run_tracker.health() h;
SELECT run_tracker.install() IS NOT NULL AS installed;
:health
SELECT sum(m.value) = :before_finished AS same FROM run_tracker.metrics m WHERE m.name = 'run_tracker_runs_finished_total';

\c postgres
DROP DATABASE regress_health WITH (FORCE);
DROP ROLE regress_health_client, regress_health_reader, regress_health_service, regress_health_probe;
