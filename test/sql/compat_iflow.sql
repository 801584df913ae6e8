--
-- What the views of iFlow jobs add to their life on tables (iflow_views.sql): the documents for a UI, where things are
-- kept, what counts, plans, and what is refused.
--
\getenv abs_srcdir PG_ABS_SRCDIR
\set common :abs_srcdir '/sql/common.psql'
\i :common
CALL pg_temp.forget();

CREATE SCHEMA regress_iflow;
GRANT USAGE ON SCHEMA regress_iflow TO PUBLIC;
CREATE ROLE regress_iflow_client;
CREATE ROLE regress_iflow_reader;
CREATE ROLE regress_iflow_service;
SELECT run_tracker.grant_client('regress_iflow_client');
SELECT run_tracker.grant_reader('regress_iflow_reader');
SELECT run_tracker.grant_service('regress_iflow_service');
SELECT unnest(run_tracker.create_compat('iflow', 'regress_iflow'));
SET search_path = regress_iflow;
\set alice 'a0000000-0000-4000-8000-00000000000a'
\set bob 'b0000000-0000-4000-8000-00000000000b'
\set as_alice 'SET ROLE regress_iflow_client; SET request.jwt.claims = ''{"sub": "a0000000-0000-4000-8000-00000000000a"}'';'
\set as_bob 'SET ROLE regress_iflow_client; SET request.jwt.claims = ''{"sub": "b0000000-0000-4000-8000-00000000000b"}'';'
\set as_service 'SET ROLE regress_iflow_service; RESET request.jwt.claims;'
\set one '10000000-0000-4000-8000-000000000001'
\set two '10000000-0000-4000-8000-000000000002'
\set of_bob '20000000-0000-4000-8000-000000000001'
-- times and made up ids of a document
CREATE FUNCTION pg_temp.tidy(document jsonb) RETURNS text LANGUAGE sql AS $$
    SELECT regexp_replace(regexp_replace(jsonb_pretty(document), '"2[0-9]{3}-[-0-9T:.+]+"', '"a time"', 'g'),
                          '"0[0-9a-f]{7}-[0-9a-f-]{27}"', '"an id"', 'g')
$$;
SET TimeZone = 'UTC';

--
-- Where things are kept: what is written at the same time is in one column, what a retry clears is in "result"
--
:as_alice
INSERT INTO iflow_jobs (job_id, platform, llm_provider, source_file_name, source_file_size, source_file_url, iflow_name, metadata)
VALUES (:'one', 'mulesoft', 'anthropic', 'a.xml', 7, 's3://a.xml', 'Orders', '{"ip": "::1"}') RETURNING metadata, total_components, rag_retrievals_count, progress;
INSERT INTO iflow_jobs (job_id, platform) VALUES (:'two', 'sap') RETURNING metadata, current_step;
UPDATE iflow_jobs SET status = 'generating', progress = 80, generated_documentation = 'doc', documentation_html = '<p>', iflow_description = 'd', generation_method = 'rag',
    iflow_zip_url = 'z', iflow_xml_url = 'x', components_json = '[1]', rag_sources_used = '["s"]', total_components = 3, rag_retrievals_count = 4
WHERE job_id = :'one' RETURNING total_components, rag_retrievals_count;
SELECT kind, name, inputs, settings, plan, result, metrics, metadata FROM run_tracker.runs WHERE run_id = :'one';
UPDATE iflow_jobs SET status = 'failed', error_message = 'e', error_stack = 's' WHERE job_id = :'one' RETURNING progress;
UPDATE iflow_jobs SET status = 'pending', source_file_url = NULL WHERE job_id = :'one'
RETURNING status, progress, source_file_url, generated_documentation, documentation_html, iflow_description, generation_method, iflow_zip_url, components_json, total_components, error_message, error_stack;
-- only a service says when something was; a job may last longer than the type of duration_seconds can say
UPDATE iflow_jobs SET created_at = '2001-01-01', duration_seconds = 7 WHERE job_id = :'one' RETURNING created_at > '2002-01-01' AS created, duration_seconds;
:as_service
INSERT INTO iflow_jobs (job_id, user_id, status, progress, created_at, started_at, completed_at, duration_seconds) VALUES
    ('10000000-0000-4000-8000-000000000003', :'alice', 'completed', 100, '2001-01-01', '2001-01-02', '2001-01-02 00:00:02', 1.2345),
    ('10000000-0000-4000-8000-000000000004', :'alice', 'completed', 100, '2001-01-01', '2001-01-01', '2021-01-01', NULL)
RETURNING created_at, started_at, completed_at, duration_seconds;

-- the documentation is not written again with each step: progress makes no new value of it
:as_alice
UPDATE iflow_jobs SET generated_documentation = (SELECT string_agg(md5(i::text), ' ') FROM generate_series(1, 20000) i) WHERE job_id = :'two' RETURNING length(generated_documentation);
RESET ROLE;
SELECT 'pg_toast.' || t.relname AS toast FROM pg_class c JOIN pg_class t ON t.oid = c.reltoastrelid WHERE c.oid = 'run_tracker.runs'::regclass \gset
SELECT array_agg(DISTINCT chunk_id ORDER BY chunk_id) AS values FROM :toast \gset before_
:as_alice
UPDATE iflow_jobs SET status = 'processing', progress = 10, current_step = 'parse' WHERE job_id = :'two';
UPDATE iflow_jobs SET progress = 20, current_step = 'analyze', generated_documentation = generated_documentation WHERE job_id = :'two' RETURNING length(generated_documentation);
UPDATE iflow_jobs SET progress = 30, iflow_zip_url = 'z', rag_retrievals_count = 7, source_file_size = 8 WHERE job_id = :'two' RETURNING length(generated_documentation), rag_retrievals_count;
RESET ROLE;
SELECT array_agg(DISTINCT chunk_id ORDER BY chunk_id) = :'before_values'::oid[] AS same_values FROM :toast;
:as_alice
UPDATE iflow_jobs SET documentation_html = 'h' WHERE job_id = :'two' RETURNING length(generated_documentation), documentation_html;
UPDATE iflow_jobs SET generated_documentation = NULL WHERE job_id = :'two';
RESET ROLE;
SELECT plan FROM run_tracker.runs WHERE run_id = :'two';

--
-- What belongs to a job has its owner; rows count, or else what the application says
--
:as_bob
INSERT INTO iflow_jobs (job_id, platform, iflow_name) VALUES (:'of_bob', 'mulesoft', 'Of Bob');
:as_service
INSERT INTO iflow_components (component_id, job_id, component_type, component_name, component_order, source) VALUES
    ('1b000000-0000-4000-8000-000000000001', :'one', 'HTTPS', 'Listener', 2, 'rag'),
    ('1b000000-0000-4000-8000-000000000002', :'one', 'Mapping', 'Map', 1, 'template'),
    ('1b000000-0000-4000-8000-000000000003', :'of_bob', 'Mapping', 'Map', 1, 'template') RETURNING user_id, configuration;
INSERT INTO rag_retrievals (retrieval_id, job_id, user_id, retrieval_type, results) VALUES
    ('1c000000-0000-4000-8000-000000000001', :'one', :'alice', 'hybrid', '[1, 2]') RETURNING user_id, results_count;
INSERT INTO iflow_generation_logs (job_id, log_level, log_message, log_category, step_name, details) VALUES
    (:'one', 'INFO', 'begin', 'c', 's', NULL), (:'one', 'ERROR', 'bad', NULL, 's', '{"line": 3}'), (:'one', 'CRITICAL', 'worse', NULL, NULL, NULL), (:'one', 'DEBUG', 'end', NULL, NULL, NULL);
INSERT INTO iflow_generation_logs (log_id, job_id, log_message) VALUES ('1d000000-0000-4000-8000-000000000001', :'of_bob', 'default') RETURNING user_id, log_level;
SELECT job_id, total_components, rag_retrievals_count FROM iflow_jobs ORDER BY job_id;
UPDATE iflow_jobs SET total_components = total_components + 1 WHERE job_id = :'one' RETURNING total_components;
SELECT job_id, iflow_name, component_count, retrieval_count, error_count FROM iflow_jobs_summary ORDER BY job_id;
SELECT job_id, component_count, retrieval_count, error_count FROM recent_jobs_with_details;
-- artifacts, retrievals and logs of other runs are not of jobs
INSERT INTO run_tracker.runs (run_id, user_id) VALUES ('30000000-0000-4000-8000-000000000001', :'alice');
INSERT INTO run_tracker.artifacts (run_id, kind) VALUES ('30000000-0000-4000-8000-000000000001', 'component'), (:'one', 'file');
INSERT INTO run_tracker.retrievals (run_id, retrieval_type) VALUES ('30000000-0000-4000-8000-000000000001', 'hybrid');
INSERT INTO run_tracker.logs (run_id, message) VALUES ('30000000-0000-4000-8000-000000000001', 'x');
SELECT (SELECT count(*) FROM iflow_jobs WHERE job_id = '30000000-0000-4000-8000-000000000001') AS jobs, (SELECT count(*) FROM iflow_components) AS components,
    (SELECT count(*) FROM rag_retrievals) AS retrievals, (SELECT count(*) FROM iflow_generation_logs) AS logs;

--
-- Documents for a UI
--
:as_alice
SELECT pg_temp.tidy(iflow_job_list(page_size => 2));
SELECT pg_temp.tidy(iflow_job_list('completed', page => 2, page_size => 1));
SELECT iflow_job_list(platform => 'mulesoft') #> '{jobs,0,iflow_name}' AS name, jsonb_array_length(iflow_job_list(platform => 'mulesoft') -> 'jobs') AS jobs,
    iflow_job_list(user_id => :'bob') AS of_bob, iflow_job_list(page => 99) AS none, iflow_job_list('no status') AS no_status, iflow_job_list(page => -1, page_size => -1) AS no_page;
SELECT pg_temp.tidy(iflow_job_details(:'one'));
SELECT iflow_job_details(:'two') - 'job' AS little, iflow_job_details(:'of_bob') AS of_bob, iflow_job_details(gen_random_uuid()) AS none, iflow_job_details(NULL) AS unknown;
SELECT pg_temp.tidy(iflow_job_logs(:'one'));
SELECT jsonb_path_query_array(iflow_job_logs(:'one', 'ERROR'), '$.logs[*].log_message') AS errors, iflow_job_logs(:'two') AS none, iflow_job_logs(:'one', 'WARNING') AS no_warning,
    iflow_job_logs(:'one', 'loud') AS loud, iflow_job_logs(:'of_bob') AS of_bob, iflow_job_logs('30000000-0000-4000-8000-000000000001') AS no_job;
:as_service
SELECT jsonb_array_length(iflow_job_list() -> 'jobs') AS jobs, jsonb_array_length(iflow_job_list(user_id => :'bob') -> 'jobs') AS of_bob;

--
-- What is refused
--
:as_alice
-- a job that is not there, is bob's, or is no job: as for a foreign key
DO $$
DECLARE
    statement text;
    job text;
BEGIN
    FOREACH statement IN ARRAY ARRAY['iflow_components (job_id) VALUES (%L)', 'rag_retrievals (job_id, retrieval_type) VALUES (%L, ''hybrid'')',
        'iflow_generation_logs (job_id, log_message) VALUES (%L, ''x'')', 'iflow_generation_logs (job_id, user_id, log_message) VALUES (%L, ''b0000000-0000-4000-8000-00000000000b'', ''x'')'] LOOP
        FOREACH job IN ARRAY ARRAY['20000000-0000-4000-8000-000000000001', '20000000-0000-4000-8000-000000000009', '30000000-0000-4000-8000-000000000001', NULL] LOOP
            CALL pg_temp.try('INSERT INTO ' || format(statement, job));
        END LOOP;
    END LOOP;
END
$$;
-- an id that is there already, in whichever job
CALL pg_temp.try($$INSERT INTO iflow_components (component_id, job_id) VALUES ('1b000000-0000-4000-8000-000000000001', '10000000-0000-4000-8000-000000000001')$$);
CALL pg_temp.try($$INSERT INTO iflow_components (component_id, job_id) VALUES ('1b000000-0000-4000-8000-000000000001', '10000000-0000-4000-8000-000000000002')$$);
CALL pg_temp.try($$INSERT INTO iflow_jobs (job_id) VALUES ('20000000-0000-4000-8000-000000000001')$$);
CALL pg_temp.try($$INSERT INTO iflow_jobs (job_id) VALUES ('30000000-0000-4000-8000-000000000001')$$);
INSERT INTO iflow_components (component_id, job_id, component_name) VALUES ('1b000000-0000-4000-8000-000000000001', :'two', 'other')
ON CONFLICT (component_id) DO UPDATE SET component_name = 'Receiver' RETURNING job_id, component_name;
-- ids of others' rows say nothing: they are taken in their jobs only
INSERT INTO iflow_components (component_id, job_id) VALUES ('1b000000-0000-4000-8000-000000000003', :'two') RETURNING component_order;
UPDATE iflow_components SET component_name = 'mine' WHERE component_id = '1b000000-0000-4000-8000-000000000003';
DELETE FROM iflow_components WHERE component_id = '1b000000-0000-4000-8000-000000000003' RETURNING component_name;
:as_service
SELECT job_id, component_name FROM iflow_components WHERE component_id = '1b000000-0000-4000-8000-000000000003';
:as_alice
-- ids are unique within a job: what somebody has made in another one, past the view, does not change with it
RESET ROLE;
INSERT INTO run_tracker.artifacts (run_id, artifact_id, kind, name) VALUES (:'two', '1b000000-0000-4000-8000-000000000002', 'component', 'twin');
:as_alice
UPDATE iflow_components SET component_order = 9 WHERE job_id = :'two' AND component_id = '1b000000-0000-4000-8000-000000000002' RETURNING component_name;
UPDATE iflow_components SET component_type = 'T' WHERE component_id = '1b000000-0000-4000-8000-000000000002' RETURNING component_name, component_order, component_type;

-- retrievals can be finished by who began them; what was logged was logged, but a service may mend it
UPDATE rag_retrievals SET results = '[1, 2, 3]', retrieval_time_ms = 5 WHERE job_id = :'one' RETURNING results_count, retrieval_time_ms;
CALL pg_temp.try($$UPDATE iflow_generation_logs SET log_level = 'INFO' WHERE log_level = 'ERROR'$$);
:as_service
UPDATE iflow_generation_logs SET log_level = 'INFO' WHERE log_level = 'ERROR' RETURNING log_message;
SELECT error_count FROM iflow_jobs_summary WHERE job_id = :'one';
:as_alice
CALL pg_temp.try($$UPDATE iflow_components SET job_id = '10000000-0000-4000-8000-000000000002'$$);
CALL pg_temp.try($$UPDATE iflow_jobs SET progress = 101 WHERE job_id = '10000000-0000-4000-8000-000000000001'$$);
CALL pg_temp.try($$UPDATE iflow_jobs SET progress = 40000 WHERE job_id = '10000000-0000-4000-8000-000000000001'$$);
CALL pg_temp.try($$UPDATE iflow_jobs SET metadata = '[]' WHERE job_id = '10000000-0000-4000-8000-000000000001'$$);
CALL pg_temp.try($$UPDATE iflow_jobs SET status = 'completed' WHERE job_id = '10000000-0000-4000-8000-000000000001'$$);
CALL pg_temp.try($$INSERT INTO rag_retrievals (job_id, retrieval_type, results) VALUES ('10000000-0000-4000-8000-000000000001', 'hybrid', '{}')$$);
-- a log entry that is refused does not break the caller
BEGIN;
UPDATE iflow_jobs SET current_step = 'kept' WHERE job_id = :'two';
SAVEPOINT log;
\set VERBOSITY sqlstate
INSERT INTO iflow_generation_logs (job_id, log_level, log_message) VALUES (:'two', 'LOUD', 'x');
ROLLBACK TO log;
INSERT INTO iflow_generation_logs (job_id, log_message) VALUES (:'of_bob', 'x');
ROLLBACK TO log;
\set VERBOSITY default
INSERT INTO iflow_generation_logs (job_id, log_message) VALUES (:'two', 'after');
COMMIT;
SELECT current_step, (SELECT string_agg(log_message, ', ') FROM iflow_generation_logs l WHERE l.job_id = j.job_id) AS log FROM iflow_jobs j WHERE job_id = :'two';
SET ROLE regress_iflow_reader;
SELECT (SELECT count(*) FROM iflow_jobs) AS jobs, jsonb_array_length(iflow_job_list() -> 'jobs') AS listed, (SELECT count(*) FROM iflow_jobs_summary) AS summary;
CALL pg_temp.try($$INSERT INTO iflow_generation_logs (job_id, log_message) VALUES ('10000000-0000-4000-8000-000000000001', 'x')$$);
CALL pg_temp.try($$UPDATE rag_retrievals SET context = 'x'$$);
CALL pg_temp.try($$DELETE FROM iflow_components$$);

-- with the job goes what belongs to it
:as_alice
DELETE FROM iflow_jobs WHERE job_id = :'one' RETURNING iflow_name;
RESET ROLE;
SELECT (SELECT count(*) FROM run_tracker.artifacts WHERE run_id = :'one') AS artifacts, (SELECT count(*) FROM run_tracker.retrievals WHERE run_id = :'one') AS retrievals,
    (SELECT count(*) FROM run_tracker.logs WHERE run_id = :'one') AS logs;

-- an old table brings along what is kept in a special way
CREATE TABLE old_jobs (job_id uuid PRIMARY KEY, user_id uuid, status text, progress integer, generated_documentation text, documentation_html text, iflow_zip_url text,
    total_components integer, rag_retrievals_count integer, duration_seconds numeric(10,3), created_at timestamptz, completed_at timestamptz);
INSERT INTO old_jobs VALUES ('40000000-0000-4000-8000-000000000001', :'alice', 'completed', 100, 'doc', '<p>', 'z', 5, 6, 7.125, '2020-01-01', '2020-01-02');
SELECT copied, refused FROM run_tracker.import_table('iflow', 'old_jobs', 'iflow_jobs');
SELECT progress, generated_documentation, documentation_html, iflow_zip_url, total_components, rag_retrievals_count, duration_seconds, completed_at
FROM iflow_jobs WHERE job_id = '40000000-0000-4000-8000-000000000001';
DROP TABLE old_jobs;

--
-- A page of the views of jobs counts for its rows only, for users and services; other plans are in compat_plans.sql
--
INSERT INTO run_tracker.runs (run_id, user_id, lifecycle, status, created_at)
SELECT ('30000000-0000-4000-8000-' || lpad(i::text, 12, '0'))::uuid, format('c0000000-0000-4000-8000-%s', lpad((i % 50)::text, 12, '0')), 'iflow',
    CASE WHEN i % 500 = 2 THEN 'processing' ELSE 'completed' END, now() - i * interval '10 minutes' FROM generate_series(2, 4001) i;
INSERT INTO run_tracker.artifacts (run_id, artifact_id, kind) SELECT run_id, gen_random_uuid(), 'component' FROM run_tracker.runs WHERE lifecycle = 'iflow';
INSERT INTO run_tracker.retrievals (run_id, retrieval_type) SELECT run_id, 'hybrid' FROM run_tracker.runs WHERE lifecycle = 'iflow';
INSERT INTO run_tracker.logs (run_id, level, message) SELECT run_id, 'ERROR', 'x' FROM run_tracker.runs, generate_series(1, 5) WHERE lifecycle = 'iflow';
ANALYZE run_tracker.runs, run_tracker.artifacts, run_tracker.retrievals, run_tracker.logs, run_tracker.run_totals;
SET enable_seqscan = off;
SET enable_bitmapscan = off;
CREATE PROCEDURE pg_temp.plans() LANGUAGE plpgsql AS $$
DECLARE
    query text;
    line text;
    nodes text[];
BEGIN
    FOREACH query IN ARRAY ARRAY[
        $q$SELECT job_id, component_count, error_count FROM iflow_jobs_summary ORDER BY created_at DESC LIMIT 7$q$,
        $q$SELECT * FROM recent_jobs_with_details ORDER BY created_at DESC LIMIT 7$q$,
        $q$SELECT * FROM recent_jobs_with_details WHERE status = 'completed' LIMIT 7$q$
    ] LOOP
        nodes := '{}';
        FOR line IN EXECUTE 'EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) ' || query LOOP
            nodes := nodes || substring(line FROM '(?:Index(?: Only)? Scan(?: Backward)? using|Seq Scan on|Bitmap Heap Scan on) \w+|Sort ') || substring(line FROM ' loops=\d+');
        END LOOP;
        RAISE INFO '%', query || E'\n    ' || (SELECT string_agg(DISTINCT n, ', ') FROM unnest(nodes) n);
    END LOOP;
END
$$;
SET ROLE regress_iflow_client;
SET request.jwt.claims = '{"sub": "c0000000-0000-4000-8000-000000000010"}';
CALL pg_temp.plans();
:as_service
CALL pg_temp.plans();
RESET enable_seqscan;
RESET enable_bitmapscan;

-- jobs that nothing happens to, as the worker ends them; those that wait for somebody are left
RESET ROLE;
RESET request.jwt.claims;
CALL pg_temp.forget();
INSERT INTO iflow_jobs (job_id, platform) VALUES ('4e000000-0000-4000-8000-00000000000a', 'stuck'), ('4e000000-0000-4000-8000-00000000000b', 'waits');
UPDATE iflow_jobs SET status = 'processing', progress = 40, current_step = 'parse';
UPDATE iflow_jobs SET status = 'documentation_ready' WHERE platform = 'waits';
SELECT run_tracker.expire_runs(now => clock_timestamp() + interval '601 seconds') AS expired;
SELECT platform, status, progress, error_message IS NOT NULL AS explained, completed_at IS NOT NULL AS completed FROM iflow_jobs ORDER BY platform;
UPDATE iflow_jobs SET status = 'pending' WHERE platform = 'stuck' RETURNING status, progress, current_step, error_message, completed_at;

RESET ROLE;
RESET TimeZone;
CALL pg_temp.forget();
RESET search_path;
SELECT unnest(run_tracker.drop_compat('iflow', 'regress_iflow')) ORDER BY 1;
DROP SCHEMA regress_iflow;
DROP OWNED BY regress_iflow_client, regress_iflow_reader, regress_iflow_service;
DROP ROLE regress_iflow_client, regress_iflow_reader, regress_iflow_service;
