--
-- What people read: list_runs() with its filters, orders and pages, run_details(), compare_runs(), export_runs(), and
-- recent_runs; what hostile arguments do there, who sees whose rows, and that nothing scans the ledger.
--
\getenv abs_srcdir PG_ABS_SRCDIR
\set common :abs_srcdir '/sql/common.psql'
\i :common

CREATE ROLE regress_reading_reader;
CREATE ROLE regress_reading_service;
SELECT run_tracker.grant_reader('regress_reading_reader'), run_tracker.grant_service('regress_reading_service') \g /dev/null

-- a dozen runs with ties and nulls in every column that they can be sorted by
INSERT INTO run_tracker.runs (run_id, user_id, lifecycle, status, kind, name, workflow_id, session_id, subject_id, parent_run_id,
    priority, progress, created_at, started_at, finished_at, updated_at, duration_ms, settings, metrics, metadata)
SELECT format('018f0000-0000-7000-8000-0000000000%s', lpad(i::text, 2, '0'))::uuid, CASE WHEN i % 3 = 0 THEN 'bob' ELSE 'alice' END,
       CASE WHEN i % 4 = 0 THEN 'spar' ELSE 'run' END, CASE WHEN i IN (5, 10) THEN 'running' WHEN i % 4 = 1 THEN 'failed' ELSE 'completed' END,
       CASE WHEN i % 2 = 0 THEN 'chat' ELSE 'build' END, CASE WHEN i % 5 > 0 THEN 'Run ' || chr(64 + i % 5) END,
       CASE WHEN i > 3 THEN 'w' || i % 2 END, CASE WHEN i > 6 THEN 's' || i % 2 END, CASE WHEN i < 6 THEN 'row ' || i % 2 END,
       CASE WHEN i > 8 THEN '018f0000-0000-7000-8000-000000000001'::uuid END, i % 3, NULLIF(10 * (i % 4), 0), t, CASE WHEN i % 6 > 0 THEN t END,
       t + interval '1 minute', t, CASE WHEN i IN (5, 10) THEN NULL ELSE 1000 * (i % 4) END,
       jsonb_build_object('mode', CASE WHEN i % 2 = 0 THEN 'cloud' ELSE 'local' END, 'n', i), jsonb_build_object('score', i % 3),
       CASE WHEN i % 2 = 0 THEN jsonb_build_object('tags', jsonb_build_array('a', i)) END
FROM generate_series(1, 12) i, LATERAL (SELECT '2030-01-01 00:00:00Z'::timestamptz + i / 2 * interval '1 hour' AS t) t;
INSERT INTO run_tracker.tasks (run_id, task_id, status, model, response_model, input_tokens, output_tokens, cost, response, created_at, finished_at)
SELECT run_id, ('018f0001-0000-7000-8000-000000000' || right(run_id::text, 2) || n)::uuid, 'completed', 'm' || n, NULL, 10 * n, n, 0.25 * n, 'text ' || n, created_at, created_at
FROM run_tracker.runs, generate_series(1, 2) n WHERE right(run_id::text, 2)::integer % 4 >= n;
\set one '''018f0000-0000-7000-8000-000000000001'''
\set two '''018f0000-0000-7000-8000-000000000002'''
\set three '''018f0000-0000-7000-8000-000000000003'''
\set five '''018f0000-0000-7000-8000-000000000005'''

-- the last two digits of the ids, in the order of the list
CREATE FUNCTION pg_temp.ids(uuid[]) RETURNS text LANGUAGE sql AS $$ SELECT string_agg(right(i::text, 2), ' ' ORDER BY n) FROM unnest($1) WITH ORDINALITY u (i, n) $$;

--
-- Lists
--
SELECT run_id, user_id, lifecycle, status, phase, kind, name, workflow_id, session_id, subject_id, parent_run_id, priority, progress, attempt,
       created_at AT TIME ZONE 'UTC' AS created_at, duration_ms, elapsed_ms, task_count, input_tokens, output_tokens, total_tokens, total_cost, metrics, metadata, settings, total_count
FROM run_tracker.list_runs(page_size => 2, page => 2, with_total => true) \gx
SELECT count(*), count(total_count) AS totals, pg_temp.ids(array_agg(run_id)) FROM run_tracker.list_runs();
-- the columns of run_summary come first
SELECT count(*) FILTER (WHERE s.attname IS DISTINCT FROM l.name OR s.atttypid <> l.type) AS different
FROM (SELECT a.n, a.name, a.type FROM pg_proc p, unnest(p.proargnames, p.proallargtypes, p.proargmodes) WITH ORDINALITY a (name, type, mode, n)
      WHERE p.oid = 'run_tracker.list_runs'::regproc AND a.mode = 't') l
     LEFT JOIN pg_attribute s ON s.attrelid = 'run_tracker.run_summary'::regclass AND s.attnum = l.n - 22
WHERE s.attnum IS NOT NULL OR l.name NOT IN ('metrics', 'metadata', 'settings', 'row_cursor', 'total_count');

-- each condition
SELECT c AS condition, pg_temp.ids((SELECT array_agg(run_id) FROM run_tracker.list_runs(filter => c)))
FROM (VALUES ('{}'::jsonb), ('{"status": "failed"}'), ('{"status": ["failed", "running"]}'), ('{"status": []}'), ('{"status": null}'), ('{"status": "none"}'),
    ('{"status": "running"}'), ('{"status": ["running", "pending"]}'), ('{"phase": "active"}'), ('{"phase": ["active", "failed"]}'), ('{"phase": "succeeded"}'),
    ('{"phase": "queued"}'), ('{"phase": []}'), ('{"kind": "chat"}'), ('{"workflow_id": "w1"}'), ('{"workflow_id": ["w0", "w1"]}'), ('{"user_id": "bob"}'), ('{"user_id": ""}'),
    ('{"session_id": "s0"}'), ('{"subject_id": "row 1"}'), ('{"lifecycle": "spar"}'), ('{"parent_run_id": "018f0000-0000-7000-8000-000000000001"}'),
    ('{"parent_run_id": ["018F0000-0000-7000-8000-000000000001", "{018f0000-0000-7000-8000-000000000002}"]}'),
    ('{"created_after": "2030-01-01 03:00:00Z"}'), ('{"created_before": "2030-01-01 03:00:00Z"}'), ('{"created_after": "2030-01-01T04:00:00+01:00", "created_before": "2030-01-01 03:00:00.000001Z"}'),
    ('{"created_after": "-infinity", "created_before": "infinity"}'), ('{"name": "RUN"}'), ('{"name": ["n a", "N B"]}'), ('{"name": ""}'), ('{"name": []}'), ('{"name": "%"}'), ('{"name": "_"}'),
    ('{"metrics": {"score": 2}}'), ('{"metadata": {"tags": ["a"]}}'), ('{"metadata": {"tags": [4]}}'), ('{"settings": {"mode": "cloud", "n": 2}}'), ('{"settings": {}}'),
    ('{"status": "completed", "kind": "chat", "user_id": ["alice", "bob"], "settings": {"mode": "cloud"}, "name": "run", "created_after": "2030-01-01 02:00:00Z"}')) v (c);
-- the same as arguments, and both: then both must hold
SELECT pg_temp.ids((SELECT array_agg(run_id) FROM run_tracker.list_runs('failed', 'failed', 'build', 'w1', 'bob', NULL, 's1', :one, 'run', '2030-01-01Z', '2031-01-01', 'r', '{"score": 0}', NULL, '{"mode": "local"}'))) AS all_of_them,
       pg_temp.ids((SELECT array_agg(run_id) FROM run_tracker.list_runs(subject_id => 'row 0', metadata => '{"tags": ["a"]}'))) AS others,
       pg_temp.ids((SELECT array_agg(run_id) FROM run_tracker.list_runs(kind => 'chat', filter => '{"kind": ["chat", "build"], "phase": "succeeded"}'))) AS both,
       pg_temp.ids((SELECT array_agg(run_id) FROM run_tracker.list_runs(kind => 'chat', filter => '{"kind": "build"}'))) AS neither;
-- null arguments are not given
SELECT count(*) FROM run_tracker.list_runs(order_by => NULL, descending => NULL, page => NULL, page_size => NULL, with_total => NULL, before => NULL, filter => NULL);

-- in every order, by pages and by row_cursor: each run once, nulls last
CREATE FUNCTION pg_temp.walk(sort text, down boolean, size integer, filter jsonb DEFAULT NULL) RETURNS uuid[] LANGUAGE plpgsql AS $$
DECLARE
    walked uuid[] := '{}';
    page uuid[];
    place text;
BEGIN
    LOOP
        SELECT array_agg(l.run_id), (array_agg(l.row_cursor))[count(*)] INTO page, place
        FROM run_tracker.list_runs(order_by => sort, descending => down, page_size => size, before => place, filter => walk.filter) l;
        EXIT WHEN page IS NULL OR cardinality(walked) > 1000;
        walked := walked || page;
    END LOOP;
    RETURN walked;
END
$$;
CREATE FUNCTION pg_temp.leaf(sort text, down boolean, size integer) RETURNS uuid[] LANGUAGE sql AS $$
    SELECT array_agg(l.run_id ORDER BY p, l.n)
    FROM generate_series(1, 12) p, LATERAL (SELECT run_id, row_number() OVER () AS n FROM run_tracker.list_runs(order_by => sort, descending => down, page => p, page_size => size)) l
$$;
CREATE FUNCTION pg_temp.sorted(sort text, down boolean) RETURNS uuid[] LANGUAGE plpgsql AS $$
DECLARE
    result uuid[];
BEGIN
    EXECUTE format('SELECT array_agg(run_id ORDER BY %1$I %2$s NULLS LAST, run_id %2$s) FROM run_tracker.run_summary', sort, CASE WHEN down THEN 'DESC' ELSE 'ASC' END) INTO result;
    RETURN result;
END
$$;
SELECT sort, down, pg_temp.ids(pg_temp.sorted(sort, down)) AS order, pg_temp.walk(sort, down, 1) = pg_temp.sorted(sort, down) AS by_one, pg_temp.walk(sort, down, 5) = pg_temp.sorted(sort, down) AS by_five,
       pg_temp.walk(sort, down, 12) = pg_temp.sorted(sort, down) AS by_all, pg_temp.leaf(sort, down, 1) = pg_temp.sorted(sort, down) AS pages_of_one, pg_temp.leaf(sort, down, 7) = pg_temp.sorted(sort, down) AS pages_of_seven
FROM unnest('{created_at,updated_at,started_at,finished_at,duration_ms,priority,name,progress,total_tokens,total_cost,task_count}'::text[]) sort, unnest('{t,f}'::boolean[]) down;
-- with a filter, and under settings that say times and numbers differently
SET datestyle = 'SQL, DMY';
SET timezone = 'Asia/Kathmandu';
SELECT pg_temp.ids(pg_temp.walk('created_at', true, 2, '{"user_id": "alice"}')) AS created_at, pg_temp.ids(pg_temp.walk('finished_at', false, 2, '{"kind": "chat"}')) AS finished_at,
       pg_temp.ids((SELECT array_agg(run_id) FROM run_tracker.list_runs(created_after => '02/01/2030', filter => '{"created_before": "03/02/2030"}'))) AS none,
       pg_temp.ids((SELECT array_agg(run_id) FROM run_tracker.list_runs(created_after => '2030-01-01 06:00:00Z'))) AS last;
RESET timezone;
RESET datestyle;
-- the total is that of the filter; beyond the end there is no row to say it
SELECT pg_temp.ids(array_agg(run_id)), min(total_count) AS total FROM run_tracker.list_runs(kind => 'chat', page => 2, page_size => 4, with_total => true);
SELECT pg_temp.ids(array_agg(n.run_id)), min(n.total_count) AS total
FROM (SELECT row_cursor FROM run_tracker.list_runs(kind => 'chat', page_size => 4) LIMIT 1 OFFSET 3) p, LATERAL run_tracker.list_runs(kind => 'chat', before => p.row_cursor, with_total => true) n;
SELECT count(*) FROM run_tracker.list_runs(page => 2147483647, page_size => 1000, with_total => true);

-- bad arguments
CALL pg_temp.try($$SELECT run_tracker.list_runs(order_by => 'user_id')$$);
CALL pg_temp.try($$SELECT run_tracker.list_runs(order_by => 'created_at; DROP TABLE run_tracker.runs')$$);
CALL pg_temp.try($$SELECT run_tracker.list_runs(page => 0)$$);
CALL pg_temp.try($$SELECT run_tracker.list_runs(page_size => 0)$$);
CALL pg_temp.try($$SELECT run_tracker.list_runs(page_size => 1001)$$);
CALL pg_temp.try($$SELECT run_tracker.list_runs(page_size => -1, page => -1)$$);
CALL pg_temp.try($$SELECT run_tracker.list_runs(created_after => '2030-01-02Z', created_before => '2030-01-01Z')$$);
CALL pg_temp.try($$SELECT run_tracker.list_runs(created_after => '2030-01-01Z', created_before => '2030-01-01Z')$$);
CALL pg_temp.try($$SELECT run_tracker.list_runs(phase => 'done')$$);
CALL pg_temp.try($$SELECT run_tracker.list_runs(page => 1, before => 'x')$$);
CALL pg_temp.try($$SELECT run_tracker.list_runs(metrics => '[1]')$$);
CALL pg_temp.try($$SELECT run_tracker.list_runs(filter => '[]')$$);
CALL pg_temp.try($$SELECT run_tracker.list_runs(filter => 'null')$$);
CALL pg_temp.try($$SELECT run_tracker.list_runs(filter => '"status"')$$);
CALL pg_temp.try($$SELECT run_tracker.list_runs(filter => '{"colour": "red"}')$$);
CALL pg_temp.try($$SELECT run_tracker.list_runs(filter => '{"status": 5}')$$);
CALL pg_temp.try($$SELECT run_tracker.list_runs(filter => '{"status": ["failed", 5]}')$$);
CALL pg_temp.try($$SELECT run_tracker.list_runs(filter => '{"status": ["failed", null]}')$$);
CALL pg_temp.try($$SELECT run_tracker.list_runs(filter => '{"status": [["failed"]]}')$$);
CALL pg_temp.try($$SELECT run_tracker.list_runs(filter => '{"name": {"a": 1}}')$$);
CALL pg_temp.try($$SELECT run_tracker.list_runs(filter => '{"phase": ["active", "done"]}')$$);
CALL pg_temp.try($$SELECT run_tracker.list_runs(filter => '{"parent_run_id": "one"}')$$);
CALL pg_temp.try($$SELECT run_tracker.list_runs(filter => '{"parent_run_id": 1}')$$);
CALL pg_temp.try($$SELECT run_tracker.list_runs(filter => '{"created_after": "soon"}')$$);
CALL pg_temp.try($$SELECT run_tracker.list_runs(filter => '{"created_after": 1893456000}')$$);
CALL pg_temp.try($$SELECT run_tracker.list_runs(filter => '{"created_before": ["2030-01-01"]}')$$);
CALL pg_temp.try($$SELECT run_tracker.list_runs(filter => '{"created_before": "2030-13-01"}')$$);
CALL pg_temp.try($$SELECT run_tracker.list_runs(filter => '{"created_before": "2030-01-01 00:00 Mars/Olympus"}')$$);
CALL pg_temp.try($$SELECT run_tracker.list_runs(filter => '{"metadata": "a"}')$$);
CALL pg_temp.try($$SELECT run_tracker.list_runs(filter => '{"settings": [1]}')$$);
CALL pg_temp.try($$SELECT run_tracker.export_runs('{"colour": "red"}')$$);
CALL pg_temp.try($$SELECT run_tracker.export_runs('[]')$$);
-- places that are none, or of another order
CREATE FUNCTION pg_temp.from_place(place text, sort text DEFAULT 'created_at', down boolean DEFAULT true) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    RETURN (SELECT count(*) || ' rows' FROM run_tracker.list_runs(order_by => sort, descending => down, before => place));
EXCEPTION WHEN OTHERS THEN
    RETURN SQLSTATE || ': ' || SQLERRM;
END
$$;
SELECT left(what, 100) AS what, pg_temp.from_place(encode(convert_to(what, 'UTF8'), 'hex'))
FROM (VALUES ('["created_at", true, "2030-01-01T03:00:00+00:00", "018f0000-0000-7000-8000-000000000007"]'), ('["created_at", true, "2030-01-01T03:00:00+00:00", "018f0000-0000-7000-8000-000000000007", "more"]'),
    ('["created_at", false, "2030-01-01T03:00:00+00:00", "018f0000-0000-7000-8000-000000000007"]'), ('["name", true, "2030-01-01T03:00:00+00:00", "018f0000-0000-7000-8000-000000000007"]'),
    ('["created_at", true, null, "018f0000-0000-7000-8000-000000000007"]'), ('["created_at", true, "then", "018f0000-0000-7000-8000-000000000007"]'), ('["created_at", true, "2030-01-01T03:00:00+00:00", "seven"]'),
    ('["created_at", true, "2030-01-01T03:00:00+00:00", null]'), ('["created_at", true, {"a": 1}, ["b"]]'), ('["created_at", "true", "2030-01-01T03:00:00+00:00", "018f0000-0000-7000-8000-000000000007"]'),
    ('{"0": "created_at"}'), ('[]'), ('"created_at"'), ('["created_at"'), (''), (repeat('[', 100000))) v (what);
SELECT what, pg_temp.from_place(what) FROM (VALUES ('x'), ('0'), ('fffe'), ('00'), ('5b')) v (what);
SELECT pg_temp.from_place(row_cursor) AS same, pg_temp.from_place(row_cursor, down => false) AS other_direction, pg_temp.from_place(row_cursor, 'name') AS other_column FROM run_tracker.list_runs(page_size => 1);

-- hostile words in every argument that is text, and in every key and value of a filter: they match nothing, and do nothing
CREATE FUNCTION pg_temp.attack(standard_strings text) RETURNS TABLE (argument text, outcomes text) LANGUAGE plpgsql AS $attack$
BEGIN
    PERFORM set_config('standard_conforming_strings', standard_strings, true);
    PERFORM set_config('escape_string_warning', 'off', true);
    RETURN QUERY
        WITH words (word) AS (VALUES ($a$'; DELETE FROM run_tracker.runs; --$a$), ($a$' OR true --$a$), ($a$\' OR true --$a$), ($a$') OR ('' = '$a$), ($a$" OR true --$a$), ($a$$query$ OR true$a$),
                 ($a$%L$a$), ($a$%1$s$a$), ($a$%s %I %%$a$), ($a$\$a$), ($a$x\'$a$), (E'\u202e\U0001f600 '' OR true\n--'), ($a${"a": "\u0027 OR true"}$a$), ($a$1) OR (1=1$a$), (repeat('''', 10000)), (repeat(E'\u00e4\\', 10000)))
        SELECT a.name, string_agg(DISTINCT o.outcome, ', ' ORDER BY o.outcome)
        FROM (SELECT a.name, a.name || ' => %L' FROM pg_proc p, unnest(p.proargnames, p.proallargtypes, p.proargmodes) WITH ORDINALITY a (name, type, mode, n)
              WHERE p.oid = 'run_tracker.list_runs'::regproc AND a.mode = 'i' AND a.type = 'text'::regtype
              UNION ALL SELECT 'filter ' || k, 'filter => jsonb_build_object(' || quote_literal(k) || ', %L::text)' FROM unnest('{status,name,parent_run_id,created_after,metadata}'::text[]) k
              UNION ALL SELECT 'filter array', 'filter => jsonb_build_object(''kind'', jsonb_build_array(''chat '', %L::text))'
              UNION ALL SELECT 'filter key', 'filter => jsonb_build_object(%L::text, 1)'
              UNION ALL SELECT 'key in metadata', 'metadata => jsonb_build_object(%L::text, 1)'
              UNION ALL SELECT 'value in settings', 'settings => jsonb_build_object(''mode'', %L::text)') a (name, call),
             words w, LATERAL pg_temp.outcome(format('SELECT count(*)::text FROM run_tracker.list_runs(' || a.call || ')', w.word)) o (outcome)
        GROUP BY a.name;
END
$attack$;
CREATE FUNCTION pg_temp.outcome(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    result text;
BEGIN
    EXECUTE statement INTO result;
    RETURN result;
EXCEPTION WHEN OTHERS THEN
    RETURN SQLSTATE;
END
$$;
SELECT * FROM pg_temp.attack('on') ORDER BY argument COLLATE "C";
SELECT * FROM pg_temp.attack('off') EXCEPT SELECT * FROM pg_temp.attack('on');
RESET standard_conforming_strings;
RESET escape_string_warning;
SELECT count(*) FROM run_tracker.runs;

-- names are searched for as they are, in any case and script; long ones too
BEGIN;
UPDATE run_tracker.runs SET name = '100 % _sure_ \o/ ! äÖ 日本 😀', kind = repeat('ж', 4000) WHERE run_id = :one;
UPDATE run_tracker.runs SET name = repeat('long ', 1000) || 'end', metadata = jsonb_build_object(repeat('k', 10000), repeat('😀', 10000)) WHERE run_id = :two;
SELECT w AS word, pg_temp.ids((SELECT array_agg(run_id) FROM run_tracker.list_runs(name => w))) FROM (VALUES ('%'), ('_'), ('!'), ('\'), ('\O/ !'), ('\\'), ('100 %'), ('_SURE_'), ('%sure%'), ('ÄÖ'), ('日本'), ('😀'), ('x')) v (w);
SELECT pg_temp.ids((SELECT array_agg(run_id) FROM run_tracker.list_runs(name => repeat('LONG ', 1000)))) AS long, pg_temp.ids((SELECT array_agg(run_id) FROM run_tracker.list_runs(name => repeat('long ', 1001)))) AS longer,
       pg_temp.ids((SELECT array_agg(run_id) FROM run_tracker.list_runs(kind => repeat('ж', 4000)))) AS kind,
       pg_temp.ids((SELECT array_agg(run_id) FROM run_tracker.list_runs(filter => jsonb_build_object('metadata', jsonb_build_object(repeat('k', 10000), repeat('😀', 10000)))))) AS metadata,
       pg_temp.ids((SELECT array_agg(run_id) FROM run_tracker.list_runs(filter => jsonb_build_object('kind', (SELECT jsonb_agg('k' || i) || '["chat"]' FROM generate_series(1, 10000) i))))) AS one_of_many;
SELECT pg_temp.walk('name', down, 1) = pg_temp.sorted('name', down) AS same FROM unnest('{t,f}'::boolean[]) down;
ROLLBACK;

--
-- One run
--
INSERT INTO run_tracker.messages (run_id, role, content, task_id) VALUES (:five, 'user', 'hello ''"<b>&', NULL), (:five, 'assistant', 'text 1', '018f0001-0000-7000-8000-000000000051');
INSERT INTO run_tracker.logs (run_id, level, message) VALUES (:five, 'INFO', 'i'), (:five, 'CRITICAL', 'c'), (:five, 'ERROR', 'e'), (:five, 'WARNING', 'w');
INSERT INTO run_tracker.artifacts (run_id, artifact_id, kind, source, ordinal) VALUES
    (:five, '018f0002-0000-7000-8000-000000000001', 'component', 'rag', 2), (:five, '018f0002-0000-7000-8000-000000000002', 'component', 'template', 1),
    (:five, '018f0002-0000-7000-8000-000000000003', 'component', 'rag', NULL), (:five, '018f0002-0000-7000-8000-000000000004', 'component', NULL, NULL);
INSERT INTO run_tracker.retrievals (run_id, retrieval_id, retrieval_type, results) VALUES (:five, '018f0003-0000-7000-8000-000000000001', 'hybrid', '[{"score": 0.5}]');
SELECT run_tracker.create_task(:five, '018f0001-0000-7000-8000-000000000053', 'streams') AS streams, run_tracker.create_task(:five, '018f0001-0000-7000-8000-000000000054', 'waits') AS waits,
       run_tracker.create_task(:five, '018f0001-0000-7000-8000-000000000055', 'fails') AS fails;
SELECT run_tracker.append_response('018f0001-0000-7000-8000-000000000053', p) FROM unnest('{"once ","upon ","a 😀"}'::text[]) p;
SELECT run_tracker.fail_task('018f0001-0000-7000-8000-000000000055', 'no');
UPDATE run_tracker.runs SET status = 'paused' WHERE run_id = :five;
UPDATE run_tracker.runs SET status = 'running' WHERE run_id = :five;
CREATE TEMP TABLE d AS SELECT run_tracker.run_details(:five) AS d;
SELECT jsonb_object_agg(k, CASE jsonb_typeof(d -> k) WHEN 'array' THEN to_jsonb(jsonb_array_length(d -> k)) ELSE to_jsonb((SELECT count(*) FROM jsonb_object_keys(d -> k))) END) FROM d, jsonb_object_keys(d) k;
SELECT jsonb_pretty(d -> 'statistics') FROM d;
-- all columns, and totals
SELECT count(*) AS missing FROM d, (SELECT attrelid::regclass::text AS t, attname AS c FROM pg_attribute WHERE attnum > 0 AND NOT attisdropped
    AND attrelid = ANY ('{run_tracker.runs,run_tracker.run_summary,run_tracker.tasks,run_tracker.artifacts,run_tracker.retrievals,run_tracker.logs,run_tracker.transitions}'::regclass[])) a
WHERE NOT CASE split_part(t, '.', 2) WHEN 'runs' THEN d -> 'run' WHEN 'run_summary' THEN d -> 'run' WHEN 'logs' THEN d -> 'error_logs' -> 0 ELSE d -> split_part(t, '.', 2) -> 0 END ? c;
SELECT d #>> '{run,run_id}' AS run, d #> '{run,settings}' AS settings, d #>> '{run,status}' AS status, (d #>> '{run,elapsed_ms}')::bigint >= 0 AS elapsed, d #> '{run,duration_ms}' AS duration, d #> '{run,open_task_count}' AS open FROM d;
SELECT t ->> 'name' AS task, t ->> 'status' AS status, t ->> 'response' AS response, run_tracker.task_response((t ->> 'task_id')::uuid) IS NOT DISTINCT FROM t ->> 'response' AS same FROM d, jsonb_array_elements(d -> 'tasks') WITH ORDINALITY e (t, n) ORDER BY n;
SELECT jsonb_path_query_array(d, '$.messages[*].content') AS messages, jsonb_path_query_array(d, '$.messages[*].metadata.tokens') AS tokens, jsonb_path_query_array(d, '$.artifacts[*].ordinal') AS artifacts,
       jsonb_path_query_array(d, '$.retrievals[*].results') AS retrievals, jsonb_path_query_array(d, '$.error_logs[*].message') AS error_logs, jsonb_path_query_array(d, '$.transitions[*].to_status') AS transitions FROM d;
SELECT d -> 'messages' = run_tracker.run_messages(:five) AS same_messages FROM d;
-- a run of which there is nothing else; columns of the owner's own; responses that the client writes itself
SELECT run_tracker.create_run('018f0000-0000-7000-8000-000000000013', user_id => 'alice');
ALTER TABLE run_tracker.runs ADD COLUMN colour text DEFAULT 'red';
ALTER TABLE run_tracker.tasks ADD COLUMN shape text DEFAULT 'round';
SELECT d #> '{run,colour}' AS colour, d - 'run' AS others FROM run_tracker.run_details('018f0000-0000-7000-8000-000000000013') d;
UPDATE run_tracker.tasks SET response = 'of the client' WHERE name = 'waits';
SELECT jsonb_path_query(run_tracker.run_details(:five), '$.tasks[*] ? (@.name == "waits")') -> 'response' AS response, run_tracker.run_details(:five) #> '{tasks,0,shape}' AS shape;
ALTER TABLE run_tracker.runs DROP COLUMN colour;
ALTER TABLE run_tracker.tasks DROP COLUMN shape;
SELECT run_tracker.run_details(:five) #> '{run}' ? 'colour' AS still_there;
CALL pg_temp.try($$SELECT run_tracker.run_details('018f0000-0000-7000-8000-0000000000ff')$$);
CALL pg_temp.try($$SELECT run_tracker.run_details(NULL)$$);

--
-- Two runs
--
UPDATE run_tracker.runs SET inputs = '{"a": 1, "b": "x", "": null}', variables = '{"v": 1e131071, "w": 0}', metrics = '{"score": 0.3, "n": 1e-16000, "h": {"a": [1]}}' WHERE run_id = :one;
UPDATE run_tracker.runs SET inputs = '{"a": 2.5, "c": "<b>''😀"}', variables = '{"v": -1e131071, "w": 5}', metrics = '{"score": 0.1, "n": 2, "h": {"a": [1]}}' WHERE run_id = :two;
SELECT item, left(a::text, 30) AS a, left(b::text, 30) AS b, CASE WHEN scale(difference) < 100 THEN difference END AS difference, CASE WHEN ratio < 1e100 THEN ratio END AS ratio FROM run_tracker.compare_runs(:one, :two);
SELECT item, a, b, difference, ratio FROM run_tracker.compare_runs(:five, :three) WHERE item NOT LIKE 'state_ms.%';
SELECT item, a >= '0' AS a, b, difference, ratio FROM run_tracker.compare_runs(:five, :three) WHERE item LIKE 'state_ms.%';
-- with itself; documents that are no objects
SELECT count(*) > 20 AS all_items, count(*) FILTER (WHERE a IS DISTINCT FROM b OR difference <> 0 OR ratio <> 1) AS different FROM run_tracker.compare_runs(:one, :one);
UPDATE run_tracker.runs SET inputs = '[1, 2]' WHERE run_id = :one;
UPDATE run_tracker.runs SET inputs = '7' WHERE run_id = :two;
UPDATE run_tracker.runs SET inputs = 'null' WHERE run_id = :three;
SELECT a.* FROM run_tracker.compare_runs(:one, :two) a WHERE item ~ '^inputs' UNION ALL SELECT * FROM run_tracker.compare_runs(:three, :two) WHERE item ~ '^inputs';
CALL pg_temp.try($$SELECT run_tracker.compare_runs('018f0000-0000-7000-8000-000000000001', '018f0000-0000-7000-8000-0000000000ff')$$);
CALL pg_temp.try($$SELECT run_tracker.compare_runs('018f0000-0000-7000-8000-0000000000fe', '018f0000-0000-7000-8000-0000000000ff')$$);
CALL pg_temp.try($$SELECT run_tracker.compare_runs(NULL, '018f0000-0000-7000-8000-0000000000ff')$$);
CALL pg_temp.try($$SELECT run_tracker.compare_runs('018f0000-0000-7000-8000-000000000001', NULL)$$);

--
-- Export
--
UPDATE run_tracker.runs SET result = jsonb_build_object('text', E'line\nquote " \\ tab\t\x01\x02, 😀') WHERE run_id = :one;
SELECT pg_temp.ids(array_agg((e ->> 'run_id')::uuid)) FROM run_tracker.export_runs() e;
SELECT pg_temp.ids(array_agg((e ->> 'run_id')::uuid)) FROM run_tracker.export_runs('{"user_id": "bob", "status": ["failed", "completed"]}') e;
SELECT count(*) FROM run_tracker.export_runs(NULL);
SELECT string_agg(k, ' ' ORDER BY k COLLATE "C") FROM (SELECT e FROM run_tracker.export_runs() e LIMIT 1) e, jsonb_object_keys(e) k;
COPY (SELECT e ->> 'run_id' AS run_id, e ->> 'status' AS status, e ->> 'total_cost' AS total_cost, e #>> '{result,text}' AS text
      FROM run_tracker.export_runs('{"user_id": "alice", "created_before": "2030-01-01 03:00:00Z"}') e) TO STDOUT (FORMAT csv, HEADER);
COPY (SELECT e -> 'result' FROM run_tracker.export_runs('{"name": "run a", "user_id": "alice"}') e) TO STDOUT (FORMAT csv, QUOTE E'\x01', DELIMITER E'\x02');
-- every line is JSON again
\copy (SELECT e FROM run_tracker.export_runs() e) TO PROGRAM 'cat > "${TMPDIR:-/tmp}/regress_reading.jsonl"' (FORMAT csv, QUOTE E'\x01', DELIMITER E'\x02')
CREATE TEMP TABLE lines (line jsonb);
\copy lines FROM PROGRAM 'cat "${TMPDIR:-/tmp}/regress_reading.jsonl"; rm "${TMPDIR:-/tmp}/regress_reading.jsonl"' (FORMAT csv, QUOTE E'\x01', DELIMITER E'\x02')
SELECT count(*) AS lines, count(*) FILTER (WHERE line - '{elapsed_ms}'::text[] = e - '{elapsed_ms}'::text[]) AS same FROM lines, run_tracker.export_runs() e WHERE line -> 'run_id' = e -> 'run_id';

--
-- Who sees what
--
CREATE FUNCTION pg_temp.visible() RETURNS TABLE (listed text, total bigint, walked bigint, exported bigint, recent bigint, by_user bigint) LANGUAGE sql AS $$
    SELECT (SELECT string_agg(DISTINCT user_id, ',' ORDER BY user_id) FROM run_tracker.list_runs()), (SELECT max(total_count) FROM run_tracker.list_runs(with_total => true)),
           cardinality(pg_temp.walk('total_cost', true, 5)), (SELECT count(*) FROM run_tracker.export_runs()), (SELECT count(*) FROM run_tracker.recent_runs),
           (SELECT max(total_count) FROM run_tracker.list_runs(user_id => 'bob', with_total => true))
$$;
SELECT run_tracker.create_run('018f0000-0000-7000-8000-000000000014', user_id => 'bob'), run_tracker.create_run('018f0000-0000-7000-8000-000000000015', user_id => '');
SET ROLE regress_reading_reader;
SET request.jwt.claims = '{"sub": "alice"}';
SELECT * FROM pg_temp.visible();
SELECT jsonb_array_length(run_tracker.run_details(:five) -> 'tasks') AS tasks, (SELECT count(*) > 20 FROM run_tracker.compare_runs(:one, :two)) AS compared;
CALL pg_temp.try($$SELECT run_tracker.run_details('018f0000-0000-7000-8000-000000000003')$$);
CALL pg_temp.try($$SELECT run_tracker.compare_runs('018f0000-0000-7000-8000-000000000001', '018f0000-0000-7000-8000-000000000003')$$);
SELECT run_tracker.run_conditions('{}');
SET request.jwt.claims = '{"sub": "bob'' OR true --"}';
SELECT * FROM pg_temp.visible();
SELECT run_tracker.run_conditions('{}');
SET request.jwt.claims = '{"sub": "bob"}';
SELECT * FROM pg_temp.visible();
CALL pg_temp.try($$SELECT run_tracker.run_details('018f0000-0000-7000-8000-000000000005')$$);
RESET request.jwt.claims;
SELECT * FROM pg_temp.visible();
SET ROLE regress_reading_service;
SELECT * FROM pg_temp.visible();
SELECT run_tracker.run_conditions('{}');
SELECT jsonb_array_length(run_tracker.run_details(:five) -> 'tasks') AS tasks, (SELECT count(*) > 20 FROM run_tracker.compare_runs(:one, :three)) AS compared;
RESET ROLE;
-- policies of the owner's own are heeded, and so are changed ones
CREATE POLICY regress_reading_team ON run_tracker.runs FOR SELECT TO regress_reading_reader USING (user_id = 'bob' AND kind = 'chat');
SET request.jwt.claims = '{"sub": "alice"}';
SET ROLE regress_reading_reader;
SELECT user_id, count(*), min(total_count) AS total FROM run_tracker.list_runs(with_total => true) GROUP BY user_id ORDER BY user_id;
SELECT run_tracker.run_conditions('{}');
RESET ROLE;
DROP POLICY regress_reading_team ON run_tracker.runs;
BEGIN;
ALTER POLICY own_rows ON run_tracker.runs USING (user_id = (SELECT run_tracker.current_user_id()) OR user_id = 'bob');
SET LOCAL ROLE regress_reading_reader;
SELECT user_id, count(*) FROM run_tracker.list_runs() GROUP BY user_id ORDER BY user_id;
ROLLBACK;
-- a policy for others, or for other commands, changes nothing
CREATE POLICY regress_reading_other ON run_tracker.runs TO regress_reading_service USING (true);
CREATE POLICY regress_reading_update ON run_tracker.runs FOR UPDATE USING (true);
SET ROLE regress_reading_reader;
SELECT run_tracker.run_conditions('{}');
RESET ROLE;
DROP POLICY regress_reading_other ON run_tracker.runs;
DROP POLICY regress_reading_update ON run_tracker.runs;
RESET request.jwt.claims;

-- recent_runs: 24 hours, newest first
INSERT INTO run_tracker.runs (user_id, status, name, created_at) VALUES ('carol', 'completed', 'old', now() - interval '24 hours 1 second'), ('carol', 'completed', 'young', now() - interval '23 hours 59 minutes'),
    ('carol', 'completed', 'younger', now() - interval '1 minute');
SET ROLE regress_reading_reader;
SET request.jwt.claims = '{"sub": "carol"}';
SELECT name, status, total_tokens FROM run_tracker.recent_runs;
RESET ROLE;
RESET request.jwt.claims;
SELECT count(*) AS different FROM (SELECT attnum, attname, atttypid FROM pg_attribute WHERE attrelid = 'run_tracker.run_summary'::regclass
    EXCEPT SELECT attnum, attname, atttypid FROM pg_attribute WHERE attrelid = 'run_tracker.recent_runs'::regclass) d;
DELETE FROM run_tracker.runs;

--
-- Plans: nothing scans the ledger, however much there is
--
INSERT INTO run_tracker.runs (run_id, user_id, status, kind, name, workflow_id, session_id, subject_id, parent_run_id, created_at, finished_at, metadata)
SELECT ('018f0000-0000-7000-8000-' || lpad(i::text, 12, '0'))::uuid, 'user ' || i % 100, (ARRAY['completed', 'failed'])[1 + i % 2], 'kind ' || i % 10, 'name ' || i, 'w' || i % 100, 's' || i % 100, 'r' || i % 100,
       CASE WHEN i % 100 = 1 THEN '018f0000-0000-7000-8000-000000000001'::uuid END, t, t, jsonb_build_object('i', i)
FROM generate_series(1, 20000) i, LATERAL (SELECT '2020-01-01'::timestamptz + i * interval '1 minute' AS t) t;
INSERT INTO run_tracker.tasks (run_id, status, model, input_tokens, output_tokens, cost) SELECT run_id, 'completed', 'm', 10, 1, 0.5 FROM run_tracker.runs;
INSERT INTO run_tracker.messages (run_id, role, content) SELECT run_id, 'user', 'x' FROM run_tracker.runs WHERE run_id < '018f0000-0000-7000-8000-000000005000';
INSERT INTO run_tracker.logs (run_id, level, message) SELECT run_id, 'ERROR', 'x' FROM run_tracker.runs WHERE run_id < '018f0000-0000-7000-8000-000000005000';
INSERT INTO run_tracker.retrievals (run_id, retrieval_type) SELECT run_id, 'hybrid' FROM run_tracker.runs WHERE run_id < '018f0000-0000-7000-8000-000000005000';
INSERT INTO run_tracker.artifacts (run_id, kind) SELECT run_id, 'file' FROM run_tracker.runs WHERE run_id < '018f0000-0000-7000-8000-000000005000';
INSERT INTO run_tracker.runs (user_id, status, created_at) SELECT 'user ' || i % 100, 'running', '2020-03-01' FROM generate_series(1, 2000) i;
UPDATE run_tracker.runs SET status = 'completed' WHERE status = 'running';
INSERT INTO run_tracker.runs (user_id, status) SELECT 'user ' || i, 'running' FROM generate_series(1, 50) i;
ANALYZE run_tracker.runs, run_tracker.tasks, run_tracker.messages, run_tracker.logs, run_tracker.retrievals, run_tracker.artifacts, run_tracker.run_totals, run_tracker.open_runs, run_tracker.transitions;

-- Does the plan of a query scan the ledger?
CREATE FUNCTION pg_temp.seq_scan(query text) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    line text;
BEGIN
    FOR line IN EXECUTE 'EXPLAIN (COSTS OFF) ' || query LOOP
        IF line ~ 'Seq Scan on (runs|tasks|messages|logs|retrievals|artifacts|run_totals|transitions)\M' THEN
            RETURN true;
        END IF;
    END LOOP;
    RETURN false;
END
$$;
-- What a statement reads of the ledger: how often it scans a table, and whether it gets few rows.
CREATE FUNCTION pg_temp.reads(statement text, OUT result text, OUT scans numeric, OUT few boolean) LANGUAGE plpgsql AS $$
DECLARE
    fetched numeric;
BEGIN
    SELECT sum(seq_scan), sum(idx_tup_fetch + seq_tup_read) INTO scans, fetched FROM pg_stat_xact_user_tables
    WHERE schemaname = 'run_tracker' AND relname IN ('runs', 'tasks', 'messages', 'logs', 'retrievals', 'artifacts', 'run_totals', 'transitions', 'response_chunks');
    EXECUTE statement INTO result;
    SELECT sum(seq_scan) - scans, sum(idx_tup_fetch + seq_tup_read) - fetched < 1000 INTO scans, few FROM pg_stat_xact_user_tables
    WHERE schemaname = 'run_tracker' AND relname IN ('runs', 'tasks', 'messages', 'logs', 'retrievals', 'artifacts', 'run_totals', 'transitions', 'response_chunks');
END
$$;
SET ROLE regress_reading_reader;
SET request.jwt.claims = '{"sub": "user 1"}';
SELECT call, r.* FROM (VALUES
    ('list_runs()'), ('list_runs(descending => false)'), ('list_runs(page => 2)'), ('list_runs(before => row_cursor)'), ('list_runs(with_total => true)'), ('list_runs(status => ''failed'')'), ('list_runs(status => ''running'')'), ('list_runs(phase => ''active'')'),
    ('list_runs(kind => ''kind 1'')'), ('list_runs(workflow_id => ''w1'')'), ('list_runs(session_id => ''s1'')'), ('list_runs(subject_id => ''r1'')'), ('list_runs(parent_run_id => ''018f0000-0000-7000-8000-000000000001'')'),
    ('list_runs(name => ''name 101'')'), ('list_runs(metadata => ''{"i": 101}'')'), ('list_runs(created_after => ''2020-01-05'')'), ('list_runs(filter => ''{"kind": ["kind 1", "kind 2"], "workflow_id": ["w1", "w2"]}'')'),
    ('list_runs(order_by => ''duration_ms'')'), ('list_runs(order_by => ''total_cost'')'), ('list_runs(order_by => ''name'', descending => false)'),
    ('export_runs(''{"kind": "kind 1"}'')'), ('run_details(''018f0000-0000-7000-8000-000000000101'')'), ('compare_runs(''018f0000-0000-7000-8000-000000000101'', ''018f0000-0000-7000-8000-000000000201'')'),
    ('run_logs(''018f0000-0000-7000-8000-000000000101'')'), ('recent_runs')) v (call),
    LATERAL pg_temp.reads(CASE WHEN call LIKE '%row_cursor%' THEN 'SELECT count(n.*) FROM (SELECT row_cursor FROM run_tracker.list_runs(page_size => 1, page => 50)) c, LATERAL run_tracker.list_runs(before => row_cursor) n'
                               ELSE 'SELECT count(*) FROM run_tracker.' || call END) r;
SELECT f AS filter, o AS order, pg_temp.seq_scan(format('SELECT run_id FROM run_tracker.runs r WHERE %s ORDER BY %s LIMIT 50', run_tracker.run_conditions(f), o))
FROM (VALUES ('{}'::jsonb), ('{"status": "failed"}'), ('{"phase": "active"}'), ('{"kind": "kind 1", "name": "x"}'), ('{"workflow_id": "w1"}')) v (f), unnest('{"created_at DESC, run_id DESC","duration_ms, run_id"}'::text[]) o;
SELECT pg_temp.seq_scan('SELECT * FROM run_tracker.recent_runs') AS recent_runs, pg_temp.seq_scan('SELECT * FROM run_tracker.run_summary WHERE run_id = ''018f0000-0000-7000-8000-000000000101''') AS run_summary,
       pg_temp.seq_scan('SELECT * FROM run_tracker.active_runs') AS active_runs, pg_temp.seq_scan('SELECT * FROM run_tracker.runs') AS runs;
SET ROLE regress_reading_service;
SELECT f AS filter, pg_temp.seq_scan(format('SELECT run_id FROM run_tracker.runs r WHERE %s ORDER BY created_at DESC, run_id DESC LIMIT 50', run_tracker.run_conditions(f)))
FROM (VALUES ('{}'::jsonb), ('{"user_id": "user 1"}'), ('{"phase": ["queued", "active"]}'), ('{"status": "running"}'), ('{"workflow_id": "w1"}'), ('{"session_id": "s1"}'), ('{"subject_id": ["r1", "r2"]}')) v (f);
SELECT pg_temp.seq_scan('SELECT * FROM run_tracker.recent_runs') AS recent_runs, pg_temp.seq_scan('SELECT * FROM run_tracker.active_runs') AS active_runs;
SELECT call, r.* FROM (VALUES
    ('list_runs()'), ('list_runs(page => 2)'), ('list_runs(user_id => ''user 1'')'), ('list_runs(user_id => ''user 1'', with_total => true)'), ('list_runs(status => ''running'')'), ('list_runs(phase => ''active'', order_by => ''priority'')'),
    ('list_runs(status => ''running'', with_total => true)'), ('list_runs(workflow_id => ''w1'')'), ('list_runs(session_id => ''s1'')'), ('list_runs(subject_id => ''r1'')'), ('list_runs(created_after => ''2020-01-14 20:00:00Z'')'),
    ('export_runs(''{"user_id": "user 1"}'')'), ('export_runs(''{"phase": ["queued", "active", "waiting"]}'')'), ('run_details(''018f0000-0000-7000-8000-000000000101'')'), ('recent_runs')) v (call),
    LATERAL pg_temp.reads('SELECT count(*) FROM run_tracker.' || call) r;
RESET ROLE;
RESET request.jwt.claims;
-- what they count is not blind
SELECT scans FROM pg_temp.reads('SELECT count(*) FROM run_tracker.tasks WHERE model = ''m''');

-- an order that no index has, over all runs of everyone, is what reads them all
SELECT few FROM pg_temp.reads('SELECT count(*) FROM run_tracker.list_runs(order_by => ''duration_ms'')');

DELETE FROM run_tracker.runs;
DROP OWNED BY regress_reading_reader, regress_reading_service;
DROP ROLE regress_reading_reader, regress_reading_service;
