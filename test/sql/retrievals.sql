--
-- Retrievals: what runs looked up and what they found; counted in the totals of their runs.
--
\getenv abs_srcdir PG_ABS_SRCDIR
\set common :abs_srcdir '/sql/common.psql'
\i :common

\set run '''62000000-0000-0000-0000-000000000001'''
\set run2 '''62000000-0000-0000-0000-000000000002'''
\set bob '''62000000-0000-0000-0000-00000000000b'''
\set r1 '''63000000-0000-0000-0000-000000000001'''
\set counts 'SELECT right(run_id::text, 1) AS run, retrieval_count, (SELECT count(*) FROM run_tracker.check_totals()) AS wrong FROM run_tracker.run_summary ORDER BY run_id;'
SELECT run_tracker.create_run(:run, user_id => 'alice'), run_tracker.create_run(:run2, user_id => 'alice'), run_tracker.create_run(:bob, user_id => 'bob');
:counts

-- all arguments end up in their columns; the user is that of the run
SELECT run_tracker.log_retrieval(:run, 'vector_search', 'how to jump?', '[{"id": "doc-1", "title": "Jumping", "score": 0.9}, {"id": "doc-2", "score": 0.7}]', 17, 'a platformer',
    'docs-index', 'script', 125, '61000000-0000-0000-0000-000000000001', :r1, '{"k": 2}');
SELECT run_id, retrieval_id, user_id, task_id, retrieval_type, query, context, results_count, results, location, component_type, duration_ms, metadata,
       created_at > now() - interval '1 hour' AS recent FROM run_tracker.retrievals \gx
-- what is not given is derived, or null
SELECT substr(run_tracker.log_retrieval(:run, 'hybrid')::text, 15, 1) AS version;
SELECT run_tracker.log_retrieval(:run, 'graph_query', results => '["a", {"b": 1}, null]') <> :r1 AS another;
SELECT run_tracker.log_retrieval(run_id => :run, retrieval_type => 'pattern_search', results => '[]', query => '') <> :r1 AS another;
SELECT retrieval_type, query, results_count, results, context, location, component_type, duration_ms, task_id, metadata FROM run_tracker.retrievals WHERE retrieval_id <> :r1 ORDER BY retrieval_id;
:counts
-- plain SQL; the id is made by the database or the client
INSERT INTO run_tracker.retrievals (run_id, retrieval_type, results) VALUES (:run2, 'x', '[1, 2]'), (:run2, 'x', NULL)
RETURNING user_id, substr(retrieval_id::text, 15, 1) AS version, results_count, created_at IS NOT NULL AS dated;
INSERT INTO run_tracker.retrievals (run_id, retrieval_id, retrieval_type, results, results_count) VALUES (:run2, NULL, 'x', '[1, 2]', 0) RETURNING retrieval_id IS NOT NULL AS id, results_count;
-- the same id in another run is another retrieval
INSERT INTO run_tracker.retrievals (run_id, retrieval_id, retrieval_type, duration_ms) VALUES (:bob, :r1, 'x', 0) RETURNING user_id, duration_ms;
:counts

-- what cannot be
CALL pg_temp.try($$SELECT run_tracker.log_retrieval(NULL, 'x')$$);
CALL pg_temp.try($$SELECT run_tracker.log_retrieval('62000000-0000-0000-0000-000000000001', NULL)$$);
CALL pg_temp.try($$SELECT run_tracker.log_retrieval('62000000-0000-0000-0000-0000000000ff', 'x')$$);
CALL pg_temp.try($$SELECT run_tracker.log_retrieval('62000000-0000-0000-0000-000000000001', '')$$);
CALL pg_temp.try($$SELECT run_tracker.log_retrieval('62000000-0000-0000-0000-000000000001', 'x', retrieval_id => '63000000-0000-0000-0000-000000000001')$$);
CALL pg_temp.try($$SELECT run_tracker.log_retrieval('62000000-0000-0000-0000-000000000001', 'x', results => '{"a": 1}')$$);
CALL pg_temp.try($$SELECT run_tracker.log_retrieval('62000000-0000-0000-0000-000000000001', 'x', results => '"a"')$$);
CALL pg_temp.try($$SELECT run_tracker.log_retrieval('62000000-0000-0000-0000-000000000001', 'x', results => 'null')$$);
CALL pg_temp.try($$SELECT run_tracker.log_retrieval('62000000-0000-0000-0000-000000000001', 'x', metadata => '[]')$$);
CALL pg_temp.try($$SELECT run_tracker.log_retrieval('62000000-0000-0000-0000-000000000001', 'x', results_count => -1)$$);
CALL pg_temp.try($$SELECT run_tracker.log_retrieval('62000000-0000-0000-0000-000000000001', 'x', duration_ms => -1)$$);
CALL pg_temp.try($$INSERT INTO run_tracker.retrievals (retrieval_type) VALUES ('x')$$);
CALL pg_temp.try($$INSERT INTO run_tracker.retrievals (run_id) VALUES ('62000000-0000-0000-0000-000000000001')$$);
CALL pg_temp.try($$INSERT INTO run_tracker.retrievals (run_id, retrieval_type) VALUES ('62000000-0000-0000-0000-0000000000ff', 'x')$$);
CALL pg_temp.try($$INSERT INTO run_tracker.retrievals (run_id, user_id, retrieval_type) VALUES ('62000000-0000-0000-0000-000000000001', 'bob', 'x')$$);
CALL pg_temp.try($$INSERT INTO run_tracker.retrievals (run_id, retrieval_id, retrieval_type) VALUES ('62000000-0000-0000-0000-000000000001', '63000000-0000-0000-0000-000000000001', 'x')$$);
CALL pg_temp.try($$UPDATE run_tracker.retrievals SET retrieval_type = ''$$);
CALL pg_temp.try($$UPDATE run_tracker.retrievals SET retrieval_type = NULL$$);
CALL pg_temp.try($$UPDATE run_tracker.retrievals SET results = '1'$$);
CALL pg_temp.try($$UPDATE run_tracker.retrievals SET results_count = -1$$);
CALL pg_temp.try($$UPDATE run_tracker.retrievals SET duration_ms = -1$$);
CALL pg_temp.try($$UPDATE run_tracker.retrievals SET user_id = 'carol'$$);
CALL pg_temp.try($$UPDATE run_tracker.retrievals SET run_id = '62000000-0000-0000-0000-0000000000ff' WHERE user_id = 'bob'$$);
CALL pg_temp.try($$UPDATE run_tracker.retrievals SET run_id = '62000000-0000-0000-0000-000000000002' WHERE user_id = 'bob'$$);
SET run_tracker.max_payload = '1kB';
CALL pg_temp.try($$SELECT run_tracker.log_retrieval('62000000-0000-0000-0000-000000000001', 'x', repeat('q', 1025))$$);
CALL pg_temp.try($$SELECT run_tracker.log_retrieval('62000000-0000-0000-0000-000000000001', 'x', results => (SELECT jsonb_agg(repeat('r', 100)) FROM generate_series(1, 11)))$$);
CALL pg_temp.try($$UPDATE run_tracker.retrievals SET context = repeat('c', 1025)$$);
CALL pg_temp.try($$SELECT run_tracker.log_retrieval('62000000-0000-0000-0000-000000000002', 'x', repeat('q', 1024))$$);
RESET run_tracker.max_payload;
-- strange text is text
SELECT run_tracker.log_retrieval(:run2, E'<b>\u202E\uFEFF', E'\x01\'; DROP TABLE runs;--', '[{"title": "<script>\ud83d\ude00", "score": "high"}, [[]], 1e400]') IS NOT NULL AS logged;
SELECT results_count, results FROM run_tracker.retrievals WHERE query ~ 'DROP';
:counts

-- the number of results follows them, unless the client says otherwise
INSERT INTO run_tracker.retrievals (run_id, retrieval_id, retrieval_type, results) VALUES (:run2, '63000000-0000-0000-0000-000000000009', 'counted', '[1, 2]') RETURNING results_count;
UPDATE run_tracker.retrievals SET results = '[1, 2, 3]' WHERE retrieval_type = 'counted' RETURNING results_count;
UPDATE run_tracker.retrievals SET query = 'q' WHERE retrieval_type = 'counted' RETURNING results_count;
UPDATE run_tracker.retrievals SET results = NULL WHERE retrieval_type = 'counted' RETURNING results_count;
UPDATE run_tracker.retrievals SET results = '[[], {}]' WHERE retrieval_type = 'counted' RETURNING results_count;
UPDATE run_tracker.retrievals SET results = '[1]', results_count = 100 WHERE retrieval_type = 'counted' RETURNING results_count;
UPDATE run_tracker.retrievals SET results = '[1, 2]' WHERE retrieval_type = 'counted' RETURNING results_count;
UPDATE run_tracker.retrievals SET results_count = NULL WHERE retrieval_type = 'counted' RETURNING results_count;
DELETE FROM run_tracker.retrievals WHERE retrieval_type = 'counted';

-- a finished run may still be told what it had found
SELECT run_tracker.complete_run(:run2);
SELECT run_tracker.log_retrieval(:run2, 'late') IS NOT NULL AS logged;
-- the count, whatever changes the rows: corrections, moves, savepoints, bulk, deletes, cascades
UPDATE run_tracker.retrievals SET results = '[1, 2, 3, 4]', results_count = NULL WHERE retrieval_id = :r1 RETURNING user_id, results_count;
UPDATE run_tracker.retrievals SET retrieval_id = '63000000-0000-0000-0000-000000000002' WHERE retrieval_id = :r1;
:counts
UPDATE run_tracker.retrievals SET run_id = :run WHERE run_id = :run2;
:counts
UPDATE run_tracker.retrievals SET run_id = :run2, user_id = 'alice' WHERE run_id = :bob;
:counts
BEGIN;
SAVEPOINT s;
SELECT count(run_tracker.log_retrieval(:run, 'x')) FROM generate_series(1, 10);
ROLLBACK TO s;
SELECT count(run_tracker.log_retrieval(:run, 'x')) FROM generate_series(1, 3);
:counts
ROLLBACK;
:counts
INSERT INTO run_tracker.retrievals (run_id, retrieval_type, results) SELECT CASE n % 2 WHEN 0 THEN :run ELSE :bob END::uuid, 'bulk', to_jsonb(ARRAY[n]) FROM generate_series(1, 1000) n;
:counts
INSERT INTO run_tracker.retrievals (run_id, retrieval_id, retrieval_type) VALUES (:run2, '63000000-0000-0000-0000-000000000002', 'x'), (:run2, '63000000-0000-0000-0000-000000000003', 'x')
ON CONFLICT (run_id, retrieval_id) DO UPDATE SET retrieval_type = 'upserted';
MERGE INTO run_tracker.retrievals r USING (VALUES (:run2::uuid, '63000000-0000-0000-0000-000000000002'::uuid), (:run2, '63000000-0000-0000-0000-000000000003'), (:run2, '63000000-0000-0000-0000-000000000004')) s (run_id, id)
    ON (r.run_id, r.retrieval_id) = (s.run_id, s.id)
WHEN MATCHED AND retrieval_type = 'upserted' THEN DELETE WHEN MATCHED THEN UPDATE SET retrieval_type = 'merged' WHEN NOT MATCHED THEN INSERT (run_id, retrieval_id, retrieval_type) VALUES (s.run_id, s.id, 'merged');
SELECT right(retrieval_id::text, 1) AS retrieval, retrieval_type FROM run_tracker.retrievals WHERE run_id = :run2 ORDER BY retrieval_id;
:counts
DELETE FROM run_tracker.retrievals WHERE retrieval_type = 'bulk' AND (results -> 0)::integer > 100;
:counts
DELETE FROM run_tracker.runs WHERE run_id = :run;
:counts
SELECT count(*) FROM run_tracker.retrievals WHERE run_id = :run;
-- what bypasses the triggers is found and repaired
ALTER TABLE run_tracker.retrievals DISABLE TRIGGER run_tracker_delete;
DELETE FROM run_tracker.retrievals WHERE run_id = :run2;
ALTER TABLE run_tracker.retrievals ENABLE TRIGGER run_tracker_delete;
SELECT right(run_id::text, 1) AS run, total, expected, actual FROM run_tracker.check_totals();
SELECT run_tracker.rebuild_totals();
:counts
TRUNCATE run_tracker.retrievals;
:counts

-- time of activity: looking something up keeps a run alive
SELECT run_tracker.create_run(:run, user_id => 'alice', timeout => '1 hour');
SELECT run_tracker.start_run(:run);
UPDATE run_tracker.open_runs SET last_activity_at = '2020-01-01 00:00:00+00', deadline_at = '2020-01-01 01:00:00+00' WHERE run_id = :run;
UPDATE run_tracker.run_totals SET last_activity_at = '2020-01-01 00:00:00+00' WHERE run_id = :run;
SELECT run_tracker.log_retrieval(:run, 'x') IS NOT NULL AS logged;
SELECT last_activity_at > now() - interval '1 hour' AS marked FROM run_tracker.open_runs WHERE run_id = :run;
UPDATE run_tracker.open_runs SET last_activity_at = '2020-01-01 00:00:00+00', deadline_at = '2020-01-01 01:00:00+00' WHERE run_id = :run;
SELECT run_tracker.expire_runs();
SELECT status FROM run_tracker.runs WHERE run_id = :run;

-- clients log what their own runs looked up, and change nothing there; a client may not say when, nor for whom
CREATE ROLE regress_retrievals_client;
CREATE ROLE regress_retrievals_reader;
CREATE ROLE regress_retrievals_service;
SELECT run_tracker.grant_client('regress_retrievals_client');
SELECT run_tracker.grant_reader('regress_retrievals_reader');
SELECT run_tracker.grant_service('regress_retrievals_service');
DELETE FROM run_tracker.retrievals;
SET request.jwt.claims = '{"sub": "alice"}';
SET ROLE regress_retrievals_client;
SELECT run_tracker.log_retrieval(:run, 'own', 'mine', '[1]', retrieval_id => :r1);
INSERT INTO run_tracker.retrievals (run_id, retrieval_type, query) VALUES (:run, 'own', 'plain SQL') RETURNING user_id, query, results_count;
INSERT INTO run_tracker.retrievals (run_id, user_id, retrieval_type) VALUES (:run, 'alice', 'own') RETURNING user_id, results_count;
CALL pg_temp.try($$INSERT INTO run_tracker.retrievals (run_id, retrieval_type, created_at) VALUES ('62000000-0000-0000-0000-000000000001', 'x', '2020-01-01')$$);
CALL pg_temp.try($$UPDATE run_tracker.retrievals SET retrieval_id = run_tracker.uuidv7()$$);
CALL pg_temp.try($$UPDATE run_tracker.retrievals SET query = 'x'$$);
CALL pg_temp.try($$DELETE FROM run_tracker.retrievals$$);
CALL pg_temp.try($$TRUNCATE run_tracker.retrievals$$);
-- bob's run, and one that is not there: no difference
CALL pg_temp.try($$SELECT run_tracker.log_retrieval('62000000-0000-0000-0000-00000000000b', 'x')$$);
CALL pg_temp.try($$SELECT run_tracker.log_retrieval('62000000-0000-0000-0000-0000000000ff', 'x')$$);
CALL pg_temp.try($$INSERT INTO run_tracker.retrievals (run_id, retrieval_type) VALUES ('62000000-0000-0000-0000-00000000000b', 'x')$$);
CALL pg_temp.try($$INSERT INTO run_tracker.retrievals (run_id, user_id, retrieval_type) VALUES ('62000000-0000-0000-0000-00000000000b', 'bob', 'x')$$);
CALL pg_temp.try($$INSERT INTO run_tracker.retrievals (run_id, user_id, retrieval_type) VALUES ('62000000-0000-0000-0000-00000000000b', 'alice', 'x')$$);
CALL pg_temp.try($$INSERT INTO run_tracker.retrievals (run_id, user_id, retrieval_type) VALUES ('62000000-0000-0000-0000-0000000000ff', 'alice', 'x')$$);
CALL pg_temp.try($$INSERT INTO run_tracker.retrievals (run_id, user_id, retrieval_type) VALUES ('62000000-0000-0000-0000-000000000001', 'bob', 'x')$$);
SET request.jwt.claims = '{"sub": "bob"}';
SELECT count(*) FROM run_tracker.retrievals;
-- the id of a retrieval of alice's is free in bob's run: nothing to be learnt from it
SELECT run_tracker.log_retrieval(:bob, 'own', retrieval_id => :r1);
SET ROLE regress_retrievals_reader;
SELECT user_id, count(*) FROM run_tracker.retrievals GROUP BY user_id;
CALL pg_temp.try($$SELECT run_tracker.log_retrieval('62000000-0000-0000-0000-00000000000b', 'x')$$);
CALL pg_temp.try($$INSERT INTO run_tracker.retrievals (run_id, retrieval_type) VALUES ('62000000-0000-0000-0000-00000000000b', 'x')$$);
SET ROLE regress_retrievals_service;
SELECT user_id, count(*) FROM run_tracker.retrievals GROUP BY user_id ORDER BY user_id;
INSERT INTO run_tracker.retrievals (run_id, retrieval_type, created_at) VALUES (:bob, 'imported', '2020-01-01 00:00:00+00') RETURNING user_id, created_at = '2020-01-01 00:00:00+00' AS as_said;
UPDATE run_tracker.retrievals SET query = 'corrected' WHERE retrieval_type = 'imported' RETURNING created_at = '2020-01-01 00:00:00+00' AS as_said;
DELETE FROM run_tracker.retrievals WHERE retrieval_type = 'imported';
RESET ROLE;
RESET request.jwt.claims;
:counts

DELETE FROM run_tracker.runs;
SELECT count(*) FROM run_tracker.retrievals;
DROP OWNED BY regress_retrievals_client, regress_retrievals_reader, regress_retrievals_service;
DROP ROLE regress_retrievals_client, regress_retrievals_reader, regress_retrievals_service;
