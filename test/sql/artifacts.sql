--
-- Artifacts: what runs made; counted in the totals of their runs.
--
\getenv abs_srcdir PG_ABS_SRCDIR
\set common :abs_srcdir '/sql/common.psql'
\i :common

\set run '''64000000-0000-0000-0000-000000000001'''
\set run2 '''64000000-0000-0000-0000-000000000002'''
\set bob '''64000000-0000-0000-0000-00000000000b'''
\set a1 '''65000000-0000-0000-0000-000000000001'''
\set a2 '''65000000-0000-0000-0000-000000000002'''
\set counts 'SELECT right(run_id::text, 1) AS run, artifact_count, (SELECT count(*) FROM run_tracker.check_totals()) AS wrong FROM run_tracker.run_summary ORDER BY run_id;'
SELECT run_tracker.create_run(:run, user_id => 'alice'), run_tracker.create_run(:run2, user_id => 'alice'), run_tracker.create_run(:bob, user_id => 'bob');
:counts

-- all arguments end up in their columns; the user is that of the run
SELECT run_tracker.add_artifact(:run, 'script', 'Jump.cs', 'MonoBehaviour', 'class Jump {}', 'text/x-csharp', 'https://example.org/Jump.cs', 4711, 3, 'rag', 0.875,
    'doc-1', 'Jumping', 'code', '63000000-0000-0000-0000-000000000001', '{"speed": 5}', '61000000-0000-0000-0000-000000000001', :a1, '{"m": 1}');
SELECT run_id, artifact_id, user_id, task_id, retrieval_id, kind, type, name, ordinal, source, similarity, source_document_id, source_document_name, chunk_type,
       configuration, content, content_type, url, size_bytes, metadata, created_at > now() - interval '1 hour' AS recent, updated_at = created_at AS unchanged FROM run_tracker.artifacts \gx
-- what is not given is derived, or null
SELECT substr(run_tracker.add_artifact(:run, 'file')::text, 15, 1) AS version;
SELECT run_tracker.add_artifact(:run, 'file', content => 'é€😀') <> :a1 AS another;
SELECT run_tracker.add_artifact(run_id => :run, kind => 'file', content => '') <> :a1 AS another;
SELECT run_tracker.add_artifact(run_id => :run, kind => 'file', url => 'https://example.org/large', size_bytes => 9223372036854775807) <> :a1 AS another;
SELECT kind, content, url, size_bytes, type, name, ordinal, source, similarity, configuration, metadata, task_id, retrieval_id FROM run_tracker.artifacts WHERE artifact_id <> :a1 ORDER BY artifact_id;
:counts
-- plain SQL; the id is made by the database or the client
INSERT INTO run_tracker.artifacts (run_id, kind, content) VALUES (:run2, 'x', '12345'), (:run2, 'x', NULL)
RETURNING user_id, substr(artifact_id::text, 15, 1) AS version, size_bytes, created_at = updated_at AS dated;
-- the same id in another run is another artifact
INSERT INTO run_tracker.artifacts (run_id, artifact_id, kind, ordinal, similarity) VALUES (:bob, :a1, 'x', -1, -1e30) RETURNING user_id, ordinal, similarity;
:counts

-- the size follows the content, unless the client says otherwise
SELECT run_tracker.add_artifact(:run2, 'sized', content => '123', artifact_id => :a2);
UPDATE run_tracker.artifacts SET content = '12345' WHERE artifact_id = :a2 RETURNING size_bytes, updated_at > created_at AS changed;
UPDATE run_tracker.artifacts SET content = repeat('é', 100000) WHERE artifact_id = :a2 RETURNING size_bytes;
UPDATE run_tracker.artifacts SET name = 'named' WHERE artifact_id = :a2 RETURNING size_bytes, length(content);
UPDATE run_tracker.artifacts SET content = content || '!' WHERE artifact_id = :a2 RETURNING size_bytes;
UPDATE run_tracker.artifacts SET content = NULL, url = 'u' WHERE artifact_id = :a2 RETURNING size_bytes;
UPDATE run_tracker.artifacts SET content = '1234' WHERE artifact_id = :a2 RETURNING size_bytes;
UPDATE run_tracker.artifacts SET content = '12', size_bytes = 1000 WHERE artifact_id = :a2 RETURNING size_bytes;
UPDATE run_tracker.artifacts SET content = '1' WHERE artifact_id = :a2 RETURNING size_bytes;
UPDATE run_tracker.artifacts SET content = NULL WHERE artifact_id = :a2 RETURNING size_bytes;
UPDATE run_tracker.artifacts SET content = '1', size_bytes = NULL WHERE artifact_id = :a2 RETURNING size_bytes;
UPDATE run_tracker.artifacts SET size_bytes = 77 WHERE artifact_id = :a2 RETURNING size_bytes;
UPDATE run_tracker.artifacts SET size_bytes = NULL WHERE artifact_id = :a2 RETURNING size_bytes;
-- when it was last changed is for the database to say; when it was made, a service may correct
UPDATE run_tracker.artifacts SET created_at = '2000-01-01', updated_at = '2000-01-01' WHERE artifact_id = :a2
RETURNING created_at = '2000-01-01' AS created, updated_at > '2020-01-01' AS updated;
SELECT updated_at AS before FROM run_tracker.artifacts WHERE artifact_id = :a2 \gset
UPDATE run_tracker.artifacts SET name = name, content = content WHERE artifact_id = :a2 RETURNING updated_at = :'before' AS unchanged;
DELETE FROM run_tracker.artifacts WHERE artifact_id = :a2;

-- what cannot be
CALL pg_temp.try($$SELECT run_tracker.add_artifact(NULL, 'x')$$);
CALL pg_temp.try($$SELECT run_tracker.add_artifact('64000000-0000-0000-0000-000000000001', NULL)$$);
CALL pg_temp.try($$SELECT run_tracker.add_artifact('64000000-0000-0000-0000-0000000000ff', 'x')$$);
CALL pg_temp.try($$SELECT run_tracker.add_artifact('64000000-0000-0000-0000-000000000001', '')$$);
CALL pg_temp.try($$SELECT run_tracker.add_artifact('64000000-0000-0000-0000-000000000001', 'x', artifact_id => '65000000-0000-0000-0000-000000000001')$$);
CALL pg_temp.try($$SELECT run_tracker.add_artifact('64000000-0000-0000-0000-000000000001', 'x', configuration => '[1]')$$);
CALL pg_temp.try($$SELECT run_tracker.add_artifact('64000000-0000-0000-0000-000000000001', 'x', configuration => 'null')$$);
CALL pg_temp.try($$SELECT run_tracker.add_artifact('64000000-0000-0000-0000-000000000001', 'x', metadata => '"m"')$$);
CALL pg_temp.try($$SELECT run_tracker.add_artifact('64000000-0000-0000-0000-000000000001', 'x', size_bytes => -1)$$);
CALL pg_temp.try($$SELECT run_tracker.add_artifact('64000000-0000-0000-0000-000000000001', 'x', similarity => 'NaN')$$);
CALL pg_temp.try($$SELECT run_tracker.add_artifact('64000000-0000-0000-0000-000000000001', 'x', similarity => 'Infinity')$$);
CALL pg_temp.try($$SELECT run_tracker.add_artifact('64000000-0000-0000-0000-000000000001', 'x', similarity => '-Infinity')$$);
CALL pg_temp.try($$INSERT INTO run_tracker.artifacts (kind) VALUES ('x')$$);
CALL pg_temp.try($$INSERT INTO run_tracker.artifacts (run_id) VALUES ('64000000-0000-0000-0000-000000000001')$$);
CALL pg_temp.try($$INSERT INTO run_tracker.artifacts (run_id, kind) VALUES ('64000000-0000-0000-0000-0000000000ff', 'x')$$);
CALL pg_temp.try($$INSERT INTO run_tracker.artifacts (run_id, user_id, kind) VALUES ('64000000-0000-0000-0000-000000000001', 'bob', 'x')$$);
CALL pg_temp.try($$INSERT INTO run_tracker.artifacts (run_id, artifact_id, kind) VALUES ('64000000-0000-0000-0000-000000000001', '65000000-0000-0000-0000-000000000001', 'x')$$);
CALL pg_temp.try($$UPDATE run_tracker.artifacts SET kind = ''$$);
CALL pg_temp.try($$UPDATE run_tracker.artifacts SET kind = NULL$$);
CALL pg_temp.try($$UPDATE run_tracker.artifacts SET configuration = '1'$$);
CALL pg_temp.try($$UPDATE run_tracker.artifacts SET size_bytes = -1$$);
CALL pg_temp.try($$UPDATE run_tracker.artifacts SET similarity = 'NaN'$$);
CALL pg_temp.try($$UPDATE run_tracker.artifacts SET user_id = 'carol' WHERE user_id = 'bob'$$);
CALL pg_temp.try($$UPDATE run_tracker.artifacts SET run_id = '64000000-0000-0000-0000-0000000000ff' WHERE user_id = 'bob'$$);
CALL pg_temp.try($$UPDATE run_tracker.artifacts SET run_id = '64000000-0000-0000-0000-000000000002' WHERE user_id = 'bob'$$);
SET run_tracker.max_payload = '1kB';
CALL pg_temp.try($$SELECT run_tracker.add_artifact('64000000-0000-0000-0000-000000000001', 'x', content => repeat('c', 1025))$$);
CALL pg_temp.try($$SELECT run_tracker.add_artifact('64000000-0000-0000-0000-000000000001', 'x', name => repeat('é', 513))$$);
CALL pg_temp.try($$SELECT run_tracker.add_artifact('64000000-0000-0000-0000-000000000001', 'x', configuration => jsonb_build_object('c', repeat('c', 1025)))$$);
CALL pg_temp.try($$UPDATE run_tracker.artifacts SET content = repeat('c', 1025)$$);
CALL pg_temp.try($$SELECT run_tracker.add_artifact('64000000-0000-0000-0000-000000000002', 'x', content => repeat('c', 1024), url => repeat('u', 1024))$$);
RESET run_tracker.max_payload;
-- strange text is text, and any number a similarity
SELECT run_tracker.add_artifact(:run2, E'<b>\u202E', '''; DROP TABLE runs;--', E'\x01', E'\uFEFF<script>', similarity => 1e131071) IS NOT NULL AS added;
SELECT kind = E'<b>\u202E' AS kind, size_bytes, length(similarity::text) FROM run_tracker.artifacts WHERE name ~ 'DROP';
:counts

-- a finished run may still be given what it made
SELECT run_tracker.complete_run(:run2);
SELECT run_tracker.add_artifact(:run2, 'late') IS NOT NULL AS added;
-- the count, whatever changes the rows: corrections, moves, savepoints, bulk, deletes, cascades
UPDATE run_tracker.artifacts SET kind = 'corrected', ordinal = ordinal + 1 WHERE run_id = :run;
:counts
UPDATE run_tracker.artifacts SET artifact_id = :a2 WHERE artifact_id = :a1;
UPDATE run_tracker.artifacts SET run_id = :run WHERE run_id = :run2;
:counts
UPDATE run_tracker.artifacts SET run_id = :run2, user_id = 'alice' WHERE run_id = :bob;
:counts
BEGIN;
SAVEPOINT s;
SELECT count(run_tracker.add_artifact(:run, 'x')) FROM generate_series(1, 10);
ROLLBACK TO s;
SELECT count(run_tracker.add_artifact(:run, 'x')) FROM generate_series(1, 3);
:counts
ROLLBACK;
:counts
INSERT INTO run_tracker.artifacts (run_id, kind, ordinal) SELECT CASE n % 2 WHEN 0 THEN :run ELSE :bob END::uuid, 'bulk', n FROM generate_series(1, 1000) n;
:counts
INSERT INTO run_tracker.artifacts (run_id, artifact_id, kind) VALUES (:run2, :a2, 'x'), (:run2, '65000000-0000-0000-0000-000000000003', 'x')
ON CONFLICT (run_id, artifact_id) DO UPDATE SET kind = 'upserted';
MERGE INTO run_tracker.artifacts r USING (VALUES (:run2::uuid, :a2::uuid), (:run2, '65000000-0000-0000-0000-000000000003'), (:run2, '65000000-0000-0000-0000-000000000004')) s (run_id, id)
    ON (r.run_id, r.artifact_id) = (s.run_id, s.id)
WHEN MATCHED AND kind = 'upserted' THEN DELETE WHEN MATCHED THEN UPDATE SET kind = 'merged', content = '123' WHEN NOT MATCHED THEN INSERT (run_id, artifact_id, kind) VALUES (s.run_id, s.id, 'merged');
SELECT right(artifact_id::text, 1) AS artifact, kind, size_bytes FROM run_tracker.artifacts WHERE run_id = :run2 ORDER BY artifact_id;
:counts
DELETE FROM run_tracker.artifacts WHERE kind = 'bulk' AND ordinal > 100;
:counts
DELETE FROM run_tracker.runs WHERE run_id = :run;
:counts
SELECT count(*) FROM run_tracker.artifacts WHERE run_id = :run;
-- what bypasses the triggers is found and repaired
ALTER TABLE run_tracker.artifacts DISABLE TRIGGER USER;
DELETE FROM run_tracker.artifacts WHERE run_id = :run2;
ALTER TABLE run_tracker.artifacts ENABLE TRIGGER USER;
SELECT right(run_id::text, 1) AS run, total, expected, actual FROM run_tracker.check_totals();
SELECT run_tracker.rebuild_totals(:run2);
:counts
TRUNCATE run_tracker.artifacts;
:counts

-- making something keeps a run alive
SELECT run_tracker.create_run(:run, user_id => 'alice', timeout => '1 hour');
SELECT run_tracker.start_run(:run);
UPDATE run_tracker.open_runs SET last_activity_at = '2020-01-01 00:00:00+00', deadline_at = '2020-01-01 01:00:00+00' WHERE run_id = :run;
UPDATE run_tracker.run_totals SET last_activity_at = '2020-01-01 00:00:00+00' WHERE run_id = :run;
SELECT run_tracker.add_artifact(:run, 'x') IS NOT NULL AS added;
SELECT last_activity_at > now() - interval '1 hour' AS marked FROM run_tracker.open_runs WHERE run_id = :run;
UPDATE run_tracker.open_runs SET last_activity_at = '2020-01-01 00:00:00+00', deadline_at = '2020-01-01 01:00:00+00' WHERE run_id = :run;
SELECT run_tracker.expire_runs();
SELECT status FROM run_tracker.runs WHERE run_id = :run;

-- clients add to their own runs and correct what they added; they may not say when, nor for whom
CREATE ROLE regress_artifacts_client;
CREATE ROLE regress_artifacts_reader;
CREATE ROLE regress_artifacts_service;
SELECT run_tracker.grant_client('regress_artifacts_client');
SELECT run_tracker.grant_reader('regress_artifacts_reader');
SELECT run_tracker.grant_service('regress_artifacts_service');
DELETE FROM run_tracker.artifacts;
SELECT run_tracker.add_artifact(:bob, 'x', artifact_id => :a2);
SET request.jwt.claims = '{"sub": "alice"}';
SET ROLE regress_artifacts_client;
SELECT run_tracker.add_artifact(:run, 'own', content => 'mine', artifact_id => :a1);
INSERT INTO run_tracker.artifacts (run_id, kind, name) VALUES (:run, 'own', 'plain SQL') RETURNING user_id, name, size_bytes;
UPDATE run_tracker.artifacts SET content = 'corrected', similarity = 0.5, configuration = '{}' WHERE artifact_id = :a1 RETURNING size_bytes, updated_at > created_at AS changed;
UPDATE run_tracker.artifacts SET kind = 'all' RETURNING user_id;
CALL pg_temp.try($$INSERT INTO run_tracker.artifacts (run_id, kind, created_at) VALUES ('64000000-0000-0000-0000-000000000001', 'x', '2020-01-01')$$);
CALL pg_temp.try($$INSERT INTO run_tracker.artifacts (run_id, kind, updated_at) VALUES ('64000000-0000-0000-0000-000000000001', 'x', '2020-01-01')$$);
CALL pg_temp.try($$UPDATE run_tracker.artifacts SET run_id = '64000000-0000-0000-0000-00000000000b'$$);
CALL pg_temp.try($$UPDATE run_tracker.artifacts SET user_id = 'bob'$$);
CALL pg_temp.try($$UPDATE run_tracker.artifacts SET artifact_id = '65000000-0000-0000-0000-000000000002'$$);
CALL pg_temp.try($$DELETE FROM run_tracker.artifacts$$);
-- bob's run, and one that is not there: no difference
CALL pg_temp.try($$SELECT run_tracker.add_artifact('64000000-0000-0000-0000-00000000000b', 'x')$$);
CALL pg_temp.try($$SELECT run_tracker.add_artifact('64000000-0000-0000-0000-0000000000ff', 'x')$$);
CALL pg_temp.try($$INSERT INTO run_tracker.artifacts (run_id, kind) VALUES ('64000000-0000-0000-0000-00000000000b', 'x')$$);
CALL pg_temp.try($$INSERT INTO run_tracker.artifacts (run_id, user_id, kind) VALUES ('64000000-0000-0000-0000-00000000000b', 'bob', 'x')$$);
CALL pg_temp.try($$INSERT INTO run_tracker.artifacts (run_id, user_id, kind) VALUES ('64000000-0000-0000-0000-00000000000b', 'alice', 'x')$$);
CALL pg_temp.try($$INSERT INTO run_tracker.artifacts (run_id, user_id, kind) VALUES ('64000000-0000-0000-0000-0000000000ff', 'alice', 'x')$$);
CALL pg_temp.try($$INSERT INTO run_tracker.artifacts (run_id, artifact_id, kind) VALUES ('64000000-0000-0000-0000-00000000000b', '65000000-0000-0000-0000-000000000002', 'x') ON CONFLICT (run_id, artifact_id) DO UPDATE SET kind = 'stolen'$$);
SET request.jwt.claims = '{"sub": "bob"}';
SELECT kind FROM run_tracker.artifacts;
SET ROLE regress_artifacts_reader;
SELECT user_id, count(*) FROM run_tracker.artifacts GROUP BY user_id;
CALL pg_temp.try($$SELECT run_tracker.add_artifact('64000000-0000-0000-0000-00000000000b', 'x')$$);
CALL pg_temp.try($$UPDATE run_tracker.artifacts SET kind = 'x'$$);
SET ROLE regress_artifacts_service;
SELECT user_id, count(*) FROM run_tracker.artifacts GROUP BY user_id ORDER BY user_id;
INSERT INTO run_tracker.artifacts (run_id, kind, created_at) VALUES (:bob, 'imported', '2020-01-01 00:00:00+00') RETURNING user_id, created_at = '2020-01-01 00:00:00+00' AS as_said;
DELETE FROM run_tracker.artifacts WHERE kind = 'imported';
RESET ROLE;
RESET request.jwt.claims;
:counts

DELETE FROM run_tracker.runs;
SELECT count(*) FROM run_tracker.artifacts;
DROP OWNED BY regress_artifacts_client, regress_artifacts_reader, regress_artifacts_service;
DROP ROLE regress_artifacts_client, regress_artifacts_reader, regress_artifacts_service;
