-- The life of iFlow jobs: the statements of an application that has iflow_jobs, iflow_components, rag_retrievals and iflow_generation_logs in its search_path.

--
-- Users upload documents
--
:as_alice
PREPARE create_job (uuid, varchar, varchar, varchar, bigint, jsonb) AS
INSERT INTO iflow_jobs (job_id, user_id, status, progress, current_step, platform, llm_provider, source_file_name, source_file_size, metadata)
VALUES ($1, auth.uid(), 'pending', 0, 'upload', $2, $3, $4, $5, $6)
RETURNING job_id, user_id, status, progress, current_step, platform, llm_provider, source_file_name, source_file_size, metadata, started_at, completed_at, duration_seconds;
EXECUTE create_job('10000000-0000-4000-8000-000000000001', 'mulesoft', 'anthropic', 'flow.xml', 123456, '{"ip": "10.0.0.1"}');
EXECUTE create_job('10000000-0000-4000-8000-000000000002', 'boomi', 'openai', 'Übersicht 日本語 ''; DROP TABLE iflow_jobs; --.docx', 10737418240, '{}');
INSERT INTO iflow_jobs (job_id, platform) VALUES ('10000000-0000-4000-8000-000000000003', 'mulesoft') RETURNING user_id, status, progress;
PREPARE rest_insert (json) AS
WITH pgrst_source AS (
    INSERT INTO "iflow_jobs"("job_id", "platform", "source_file_name", "user_id")
    SELECT pgrst_body."job_id", pgrst_body."platform", pgrst_body."source_file_name", pgrst_body."user_id"
    FROM (SELECT $1 AS json_data) pgrst_payload,
        LATERAL (SELECT "job_id", "platform", "source_file_name", "user_id" FROM json_to_recordset(pgrst_payload.json_data)
            AS _("job_id" uuid, "platform" text, "source_file_name" text, "user_id" uuid)) pgrst_body
    RETURNING "iflow_jobs"."job_id", "iflow_jobs"."status", "iflow_jobs"."source_file_name")
SELECT pg_catalog.count(_postgrest_t) AS page_total, coalesce(json_agg(_postgrest_t), '[]') AS body
FROM (SELECT "pgrst_source".* FROM "pgrst_source") _postgrest_t;
EXECUTE rest_insert('[{"job_id": "10000000-0000-4000-8000-000000000004", "platform": "sap", "source_file_name": "a.zip", "user_id": "a0000000-0000-4000-8000-000000000001"},
    {"job_id": "10000000-0000-4000-8000-000000000005", "platform": "sap", "source_file_name": "b.zip", "user_id": "a0000000-0000-4000-8000-000000000001"}]');
:as_bob
INSERT INTO iflow_jobs (job_id, user_id, platform, iflow_name) VALUES ('20000000-0000-4000-8000-000000000001', :'bob', 'mulesoft', 'Of Bob') RETURNING status, iflow_name;

--
-- The server works on a job; the UI looks every two seconds
--
:as_service
PREPARE progress (uuid, varchar, integer, varchar) AS
UPDATE iflow_jobs SET status = $2, progress = $3, current_step = $4 WHERE job_id = $1 RETURNING status, progress, current_step, started_at IS NOT NULL AS started, completed_at;
UPDATE iflow_jobs SET status = 'processing', progress = 10, current_step = 'upload', started_at = now(), source_file_url = 's3://in/flow.xml' WHERE job_id = '10000000-0000-4000-8000-000000000001'
RETURNING status, progress, current_step, source_file_name, source_file_url;
INSERT INTO iflow_generation_logs (job_id, log_level, log_message, log_category, step_name, details) VALUES
    ('10000000-0000-4000-8000-000000000001', 'INFO', 'File received', 'upload', 'upload', '{"bytes": 123456}'),
    ('10000000-0000-4000-8000-000000000001', 'DEBUG', 'Parser chosen', 'parse', 'parse', NULL)
RETURNING log_id IS NOT NULL AS has_id, user_id, log_level, log_message, log_category, step_name, details;
EXECUTE progress('10000000-0000-4000-8000-000000000001', 'processing', 30, 'parse');
EXECUTE progress('10000000-0000-4000-8000-000000000001', 'analyzing', 40, 'analyze');
EXECUTE progress('10000000-0000-4000-8000-000000000001', 'analyzing', 40, 'analyze');
:as_alice
SELECT job_id, status, progress, current_step, error_message FROM iflow_jobs WHERE job_id = '10000000-0000-4000-8000-000000000001' AND user_id = auth.uid();
:as_service
UPDATE iflow_jobs SET status = 'documentation_ready', progress = 60, generated_documentation = '# Flow
Gets orders & sends them <on>.', documentation_html = '<h1>Flow</h1>' WHERE job_id = '10000000-0000-4000-8000-000000000001' RETURNING status, progress, generated_documentation, documentation_html;
EXECUTE progress('10000000-0000-4000-8000-000000000001', 'generating', 70, 'generate');
INSERT INTO rag_retrievals (retrieval_id, job_id, retrieval_type, search_query, context, results_count, results, retrieval_location, component_type_searched, retrieval_time_ms) VALUES
    ('1c000000-0000-4000-8000-000000000001', '10000000-0000-4000-8000-000000000001', 'vector_search', 'http listener', 'generate', 2, '[{"doc": "d1", "score": 0.91}, {"doc": "d2", "score": 0.8}]',
     'generator', 'HTTPS', 42)
RETURNING user_id, retrieval_type, search_query, context, results_count, results, retrieval_location, component_type_searched, retrieval_time_ms;
UPDATE iflow_jobs SET rag_retrievals_count = rag_retrievals_count + 1 WHERE job_id = '10000000-0000-4000-8000-000000000001';
INSERT INTO rag_retrievals (retrieval_id, job_id, user_id, retrieval_type, search_query, results_count, results) VALUES
    ('1c000000-0000-4000-8000-000000000002', '10000000-0000-4000-8000-000000000001', :'alice', 'graph_query', 'MATCH (n) RETURN n', 0, '[]');
UPDATE iflow_jobs SET rag_retrievals_count = rag_retrievals_count + 1 WHERE job_id = '10000000-0000-4000-8000-000000000001';
INSERT INTO iflow_components (component_id, job_id, component_type, component_name, component_order, source, rag_similarity_score, rag_document_id, rag_document_name, rag_chunk_type, configuration, xml_content) VALUES
    ('1b000000-0000-4000-8000-000000000001', '10000000-0000-4000-8000-000000000001', 'HTTPS', 'Listener', 1, 'rag', 0.9125, 'd1', 'Adapters.pdf', 'xml', '{"path": "/orders"}', '<a>1</a>'),
    ('1b000000-0000-4000-8000-000000000002', '10000000-0000-4000-8000-000000000001', 'Mapping', 'Map "日本"', 2, 'template', NULL, NULL, NULL, NULL, '{}', '<b/>')
RETURNING component_id, user_id, component_type, component_name, component_order, source, rag_similarity_score, rag_document_id, rag_document_name, rag_chunk_type, configuration, xml_content;
UPDATE iflow_components SET xml_content = '<a>2</a>', configuration = configuration || '{"auth": "basic"}' WHERE component_id = '1b000000-0000-4000-8000-000000000001'
RETURNING component_name, configuration, xml_content;
UPDATE iflow_jobs SET progress = 90, current_step = 'package', iflow_name = 'Orders', iflow_description = 'Gets orders', generation_method = 'hybrid', total_components = 2,
    components_json = '[{"type": "HTTPS"}, {"type": "Mapping"}]', rag_sources_used = '["d1", "d2"]', metadata = coalesce(metadata, '{}') || '{"version": 2}'
WHERE job_id = '10000000-0000-4000-8000-000000000001' RETURNING status, progress, current_step, metadata;
-- the caller goes on where a log is refused
BEGIN;
SELECT pg_temp.try($$INSERT INTO iflow_generation_logs (job_id, log_level, log_message) VALUES ('10000000-0000-4000-8000-000000000001', 'LOUD', 'x')$$) AS log;
UPDATE iflow_jobs SET status = 'completed', progress = 100, current_step = 'completed', iflow_zip_url = 's3://out/flow.zip', iflow_xml_url = 's3://out/flow.xml', completed_at = now(),
    duration_seconds = 4711.5
WHERE job_id = '10000000-0000-4000-8000-000000000001'
RETURNING status, progress, current_step, iflow_zip_url, iflow_xml_url, completed_at >= started_at AS completed, duration_seconds BETWEEN 0 AND 600 AS measured;
INSERT INTO iflow_generation_logs (job_id, log_level, log_message, step_name) VALUES ('10000000-0000-4000-8000-000000000001', 'INFO', 'Done', 'completed');
COMMIT;
SELECT status, progress, current_step, platform, llm_provider, source_file_name, source_file_size, source_file_url, generated_documentation, documentation_html, iflow_name, iflow_description,
    generation_method, iflow_zip_url, iflow_xml_url, total_components, components_json, rag_retrievals_count, rag_sources_used, error_message, error_stack, metadata
FROM iflow_jobs WHERE job_id = '10000000-0000-4000-8000-000000000001';

-- statements that change nothing, as ORMs send them
UPDATE iflow_jobs SET status = status, progress = progress, current_step = current_step WHERE job_id = '10000000-0000-4000-8000-000000000001' RETURNING status, progress;
SELECT created_at, started_at, completed_at, duration_seconds, generated_documentation FROM iflow_jobs WHERE job_id = '10000000-0000-4000-8000-000000000001' \gset job_
UPDATE iflow_jobs SET user_id = 'a0000000-0000-4000-8000-000000000001', status = 'completed', progress = 100, current_step = 'completed', platform = 'mulesoft', llm_provider = 'anthropic',
    source_file_name = 'flow.xml', source_file_size = 123456, source_file_url = 's3://in/flow.xml', generated_documentation = :'job_generated_documentation', documentation_html = '<h1>Flow</h1>',
    iflow_name = 'Orders v2', iflow_description = 'Gets orders', generation_method = 'hybrid', iflow_zip_url = 's3://out/flow.zip', iflow_xml_url = 's3://out/flow.xml', total_components = 2,
    components_json = '[{"type": "HTTPS"}, {"type": "Mapping"}]', rag_retrievals_count = 2, rag_sources_used = '["d1", "d2"]', created_at = :'job_created_at', started_at = :'job_started_at',
    completed_at = :'job_completed_at', duration_seconds = :job_duration_seconds, error_message = NULL, error_stack = NULL, metadata = '{"ip": "10.0.0.1", "version": 2}'
WHERE iflow_jobs.job_id = '10000000-0000-4000-8000-000000000001' RETURNING iflow_name;
SELECT status, iflow_name, total_components, rag_retrievals_count, created_at = :'job_created_at' AS created, started_at = :'job_started_at' AS started, completed_at = :'job_completed_at' AS completed,
    duration_seconds = :job_duration_seconds AS measured, metadata
FROM iflow_jobs WHERE job_id = '10000000-0000-4000-8000-000000000001';

--
-- Failure; and the job is tried again under its id
--
EXECUTE progress('10000000-0000-4000-8000-000000000002', 'processing', 30, 'parse');
INSERT INTO iflow_generation_logs (job_id, log_level, log_message, log_category, step_name, details) VALUES
    ('10000000-0000-4000-8000-000000000002', 'WARNING', 'Slow', 'parse', 'parse', NULL),
    ('10000000-0000-4000-8000-000000000002', 'ERROR', 'Cannot parse ''); DROP TABLE iflow_jobs; --', 'parse', 'parse', '{"line": 3}'),
    ('10000000-0000-4000-8000-000000000002', 'CRITICAL', 'Giving up', 'parse', 'parse', NULL);
UPDATE iflow_jobs SET status = 'failed', progress = 0, error_message = 'Cannot parse', error_stack = E'Traceback\n  line 3', completed_at = now() WHERE job_id = '10000000-0000-4000-8000-000000000002'
RETURNING status, progress, error_message, error_stack, completed_at IS NOT NULL AS ended, duration_seconds >= 0 AS measured;
UPDATE iflow_jobs SET status = 'pending', progress = 0, current_step = 'upload', error_message = NULL, error_stack = NULL, started_at = NULL, completed_at = NULL, duration_seconds = NULL
WHERE job_id = '10000000-0000-4000-8000-000000000002' AND status = 'failed' RETURNING status, progress, error_message, error_stack, completed_at, duration_seconds, source_file_name, source_file_size;
EXECUTE progress('10000000-0000-4000-8000-000000000002', 'generating', 80, 'generate');
UPDATE iflow_jobs SET status = 'completed', progress = 100, current_step = 'completed', generation_method = 'template' WHERE job_id = '10000000-0000-4000-8000-000000000002' RETURNING status, error_message;
-- a job fails before it begins
UPDATE iflow_jobs SET status = 'failed', progress = 0, error_message = 'Virus' WHERE job_id = '10000000-0000-4000-8000-000000000003' RETURNING status, progress, error_message;

--
-- What the UI reads: views, and the documents that the server makes of the tables
--
:as_alice
SELECT job_id, user_id = auth.uid() AS own, status, progress, current_step, platform, iflow_name, generation_method, duration_seconds >= 0 AS measured, component_count, retrieval_count, error_count
FROM iflow_jobs_summary WHERE user_id = auth.uid() ORDER BY job_id;
SELECT job_id, status, platform, llm_provider, source_file_name, total_components, component_count, retrieval_count, error_count FROM recent_jobs_with_details
WHERE status IN ('completed', 'failed') ORDER BY job_id;
SELECT jsonb_pretty(jsonb_build_object('success', true, 'jobs', jsonb_agg(to_jsonb(j) - 'created_at' - 'completed_at' ORDER BY j.job_id))) FROM (
    SELECT job_id, status, progress, platform, iflow_name, created_at, completed_at FROM iflow_jobs WHERE platform = 'mulesoft' ORDER BY created_at DESC LIMIT 50) j;
SELECT jsonb_pretty(jsonb_build_object('components', (SELECT jsonb_agg(jsonb_build_object('name', component_name, 'source', source) ORDER BY component_order) FROM iflow_components WHERE job_id = j.job_id),
    'retrievals', (SELECT jsonb_agg(jsonb_build_object('type', retrieval_type, 'count', results_count) ORDER BY retrieval_id) FROM rag_retrievals WHERE job_id = j.job_id),
    'statistics', jsonb_build_object('total_components', (SELECT count(*) FROM iflow_components WHERE job_id = j.job_id),
        'total_retrievals', (SELECT count(*) FROM rag_retrievals WHERE job_id = j.job_id),
        'error_count', (SELECT count(*) FROM iflow_generation_logs WHERE job_id = j.job_id AND log_level IN ('ERROR', 'CRITICAL')),
        'rag_components', (SELECT count(*) FROM iflow_components WHERE job_id = j.job_id AND source = 'rag'),
        'template_components', (SELECT count(*) FROM iflow_components WHERE job_id = j.job_id AND source = 'template'))))
FROM iflow_jobs j WHERE job_id = '10000000-0000-4000-8000-000000000001';
SELECT log_level, log_message, log_category, step_name, details FROM iflow_generation_logs WHERE job_id = '10000000-0000-4000-8000-000000000001' AND log_level = 'INFO' ORDER BY created_at;
SELECT log_level, count(*) FROM iflow_generation_logs WHERE job_id = '10000000-0000-4000-8000-000000000002' GROUP BY log_level ORDER BY log_level;
SELECT job_id FROM iflow_jobs WHERE source_file_name LIKE 'Übersicht%' AND source_file_size > 2147483647;
SELECT job_id FROM iflow_jobs WHERE metadata @> '{"version": 2}' AND components_json @> '[{"type": "HTTPS"}]';
SELECT platform, count(*), count(*) FILTER (WHERE status = 'completed') AS completed FROM iflow_jobs GROUP BY platform ORDER BY platform;

-- … and that it is his
SELECT (SELECT count(*) FROM iflow_jobs WHERE user_id <> auth.uid()) AS jobs, (SELECT count(*) FROM iflow_jobs_summary WHERE iflow_name = 'Of Bob') AS summary,
    (SELECT count(*) FROM recent_jobs_with_details WHERE iflow_name = 'Of Bob') AS recent;
UPDATE iflow_jobs SET iflow_name = 'stolen' WHERE job_id = '20000000-0000-4000-8000-000000000001' RETURNING job_id;
DELETE FROM iflow_jobs WHERE job_id = '20000000-0000-4000-8000-000000000001' RETURNING job_id;
:as_bob
SELECT (SELECT count(*) FROM iflow_jobs) AS jobs, (SELECT count(*) FROM iflow_components) AS components, (SELECT count(*) FROM rag_retrievals) AS retrievals,
    (SELECT count(*) FROM iflow_generation_logs) AS logs, (SELECT count(*) FROM iflow_jobs_summary) AS summary, (SELECT count(*) FROM recent_jobs_with_details) AS recent;
UPDATE iflow_components SET xml_content = 'stolen' WHERE component_id = '1b000000-0000-4000-8000-000000000001' RETURNING component_id;
DELETE FROM iflow_components WHERE component_id = '1b000000-0000-4000-8000-000000000001' RETURNING component_id;
DELETE FROM rag_retrievals RETURNING retrieval_id;
:as_nobody
SELECT (SELECT count(*) FROM iflow_jobs) AS jobs, (SELECT count(*) FROM iflow_components) AS components, (SELECT count(*) FROM rag_retrievals) AS retrievals,
    (SELECT count(*) FROM iflow_generation_logs) AS logs, (SELECT count(*) FROM iflow_jobs_summary) AS summary, (SELECT count(*) FROM recent_jobs_with_details) AS recent;

--
-- What is refused
--
:as_alice
SELECT pg_temp.code($$INSERT INTO iflow_jobs (job_id) VALUES ('10000000-0000-4000-8000-00000000000')$$) AS not_an_id,
    pg_temp.code($$INSERT INTO iflow_jobs (job_id) VALUES ('20000000-0000-4000-8000-000000000001')$$) AS id_of_bob,
    pg_temp.code($$UPDATE iflow_jobs SET progress = 'half' WHERE job_id = '10000000-0000-4000-8000-000000000004'$$) AS no_number,
    pg_temp.code($$INSERT INTO iflow_generation_logs (job_id, log_message, details) VALUES ('10000000-0000-4000-8000-000000000001', 'x', '{')$$) AS not_json;
SELECT pg_temp.try($$INSERT INTO iflow_jobs (status) VALUES ('done')$$) AS unknown_status,
    pg_temp.try($$UPDATE iflow_jobs SET status = 'done' WHERE job_id = '10000000-0000-4000-8000-000000000004'$$) AS to_unknown_status,
    pg_temp.try($$UPDATE iflow_jobs SET progress = 101 WHERE job_id = '10000000-0000-4000-8000-000000000004'$$) AS progress,
    pg_temp.try($$UPDATE iflow_jobs SET progress = -1 WHERE job_id = '10000000-0000-4000-8000-000000000004'$$) AS negative,
    pg_temp.try($$INSERT INTO iflow_jobs (user_id) VALUES ('b0000000-0000-4000-8000-000000000001')$$) AS for_bob,
    pg_temp.try($$UPDATE iflow_jobs SET user_id = 'b0000000-0000-4000-8000-000000000001' WHERE job_id = '10000000-0000-4000-8000-000000000004'$$) AS to_bob;
SELECT pg_temp.try($$INSERT INTO iflow_components (component_name) VALUES ('x')$$) AS component_of_none,
    pg_temp.try($$INSERT INTO iflow_components (job_id, component_type, component_name) VALUES ('20000000-0000-4000-8000-000000000001', 'x', 'x')$$) AS component_of_bob,
    pg_temp.try($$INSERT INTO rag_retrievals (job_id, retrieval_type) VALUES ('20000000-0000-4000-8000-000000000001', 'hybrid')$$) AS retrieval_of_bob,
    pg_temp.try($$INSERT INTO rag_retrievals (job_id) VALUES ('10000000-0000-4000-8000-000000000001')$$) AS retrieval_without_type,
    pg_temp.try($$INSERT INTO iflow_generation_logs (job_id, log_message) VALUES ('20000000-0000-4000-8000-000000000001', 'x')$$) AS log_of_bob,
    pg_temp.try($$INSERT INTO iflow_generation_logs (job_id, log_message) VALUES ('99999999-0000-4000-8000-000000000001', 'x')$$) AS log_of_unknown,
    pg_temp.try($$INSERT INTO iflow_generation_logs (job_id) VALUES ('10000000-0000-4000-8000-000000000001')$$) AS log_without_message,
    pg_temp.try($$INSERT INTO iflow_generation_logs (job_id, log_level, log_message) VALUES ('10000000-0000-4000-8000-000000000001', 'info!', 'x')$$) AS log_level;
:as_nobody
SELECT pg_temp.try($$INSERT INTO iflow_jobs (platform) VALUES ('nobody')$$) AS without_a_user;

--
-- History, statistics and clean-up of the server; a user deletes a job, with all that belongs to it
--
:as_service
INSERT INTO iflow_jobs (job_id, user_id, status, progress, platform, created_at, started_at, completed_at, duration_seconds, error_message) VALUES
    ('30000000-0000-4000-8000-000000000001', :'bob', 'completed', 100, 'sap', now() - interval '40 days', now() - interval '40 days', now() - interval '40 days' + interval '12.345 s', 12.345, NULL),
    ('30000000-0000-4000-8000-000000000002', :'bob', 'failed', 0, 'sap', now() - interval '8 days', now() - interval '8 days', now() - interval '8 days' + interval '0.5 s', 0.5, 'x')
RETURNING job_id, status, progress, duration_seconds, completed_at - started_at AS took, error_message;
INSERT INTO iflow_components (job_id, component_type, component_name, created_at) VALUES ('30000000-0000-4000-8000-000000000001', 'HTTPS', 'Old', now() - interval '40 days') RETURNING user_id, component_name;
INSERT INTO iflow_generation_logs (job_id, log_level, log_message, created_at) VALUES ('30000000-0000-4000-8000-000000000001', 'DEBUG', 'Old', now() - interval '40 days') RETURNING user_id, log_level;
SELECT job_id FROM recent_jobs_with_details WHERE user_id = :'bob' ORDER BY job_id;
SELECT platform, count(*), avg(duration_seconds)::numeric(10,3), max(duration_seconds) FROM iflow_jobs WHERE user_id = :'bob' AND completed_at IS NOT NULL GROUP BY platform;
UPDATE iflow_jobs SET metadata = coalesce(metadata, '{}') || '{"archived": true}' WHERE created_at < now() - interval '30 days' RETURNING job_id, metadata;
DELETE FROM iflow_generation_logs WHERE log_level = 'DEBUG' AND created_at < now() - interval '7 days' RETURNING log_message;
WITH deleted AS (DELETE FROM iflow_jobs WHERE status IN ('completed', 'failed') AND completed_at < now() - interval '30 days' RETURNING job_id) SELECT count(*) FROM deleted;
SELECT job_id, status FROM iflow_jobs WHERE user_id = :'bob' ORDER BY job_id;
:as_alice
DELETE FROM iflow_components WHERE component_id = '1b000000-0000-4000-8000-000000000002' RETURNING component_name;
DELETE FROM iflow_jobs WHERE job_id = '10000000-0000-4000-8000-000000000001' RETURNING iflow_name;
SELECT (SELECT count(*) FROM iflow_jobs) AS jobs, (SELECT count(*) FROM iflow_components) AS components, (SELECT count(*) FROM rag_retrievals) AS retrievals,
    (SELECT count(*) FROM iflow_generation_logs) AS logs;
RESET ROLE;
