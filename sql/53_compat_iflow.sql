-- iFlow: jobs that turn documents into integration flows, under the names of their tables.

CREATE FUNCTION run_tracker.compat_iflow_relations()
RETURNS TABLE (relation text, base text, filter text, keys text[], repeatable boolean, before_insert text,
               after_insert text, before_update text, after_update text, description text)
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT v.relation, v.base,
           CASE v.base WHEN 'runs' THEN 'r.lifecycle = ''iflow'''
                ELSE concat_ws(' AND ', CASE v.base WHEN 'artifacts' THEN 'r.kind = ''component''' END,
                    'EXISTS (SELECT FROM run_tracker.runs j WHERE j.run_id = r.run_id AND j.lifecycle = ''iflow'')') END,
           ARRAY[v.key], false,
           -- whether there is a run at all that the caller may write to, the table says
           CASE WHEN v.base <> 'runs' THEN
$piece$        IF EXISTS (SELECT FROM run_tracker.runs j WHERE j.run_id = new.job_id AND j.lifecycle <> 'iflow') THEN
            RAISE EXCEPTION 'job does not exist'
                USING ERRCODE = 'foreign_key_violation', TABLE = TG_TABLE_NAME, SCHEMA = TG_TABLE_SCHEMA, COLUMN = 'job_id',
                      DETAIL = format('Run %s is no job.', new.job_id);
        END IF;$piece$ END,
           NULL, NULL, NULL, v.description
    FROM (VALUES
        ('iflow_jobs', 'runs', 'job_id', 'Generation jobs: runs of lifecycle iflow.'),
        ('iflow_components', 'artifacts', 'component_id', 'Components of generated flows: artifacts of kind component.'),
        ('rag_retrievals', 'retrievals', 'retrieval_id', 'What jobs looked up, and what they found.'),
        ('iflow_generation_logs', 'logs', 'log_id', 'Step logs of jobs.')) AS v (relation, base, key, description)
$$;
COMMENT ON FUNCTION run_tracker.compat_iflow_relations() IS 'Internal: see compat_relations().';

CREATE FUNCTION run_tracker.compat_iflow_columns()
RETURNS TABLE (relation text, name text, type text, reads text, target text, writes text, who text, description text)
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
    -- A column of the table holds what is written at the same time: the progress of a job with a long documentation
    -- writes neither that nor its results again.  What a retry keeps is not in "result".
    SELECT 'iflow_jobs', c.* FROM (VALUES
        (NULL, 'text', NULL, 'lifecycle', '''iflow''', 'constant', NULL),
        ('job_id', 'uuid', NULL, 'run_id', NULL, 'key', 'Id; made up if not given.'),
        ('user_id', '@user_id', NULL, 'user_id', NULL, 'key', 'Owner; null if there is none.'),
        ('status', 'text', NULL, 'status', NULL, 'status',
         'pending, processing, analyzing, documentation_ready, generating, completed or failed.'),
        ('progress', 'integer', 'CASE WHEN r.phase = ''failed'' THEN 0 ELSE COALESCE(r.progress, 0) END', 'progress',
         'new.progress::smallint', 'client', 'Percent, 0 to 100; 0 on failure.'),
        ('current_step', 'text', NULL, 'current_step', NULL, 'client', 'upload, parse, analyze, generate, package, completed.'),
        ('platform', 'text', NULL, 'kind', NULL, 'client', 'Platform of the source, such as mulesoft.'),
        ('llm_provider', 'text', NULL, 'settings.llm_provider', NULL, 'client', 'Provider of the language model.'),
        ('source_file_name', 'text', NULL, 'inputs.source_file_name', NULL, 'client', 'Name of the source document.'),
        ('source_file_size', 'bigint', NULL, 'inputs.source_file_size', NULL, 'client', 'Its size in bytes.'),
        ('source_file_url', 'text', NULL, 'inputs.source_file_url', NULL, 'client', 'Where it is.'),
        ('generated_documentation', 'text', NULL, 'plan.generated_documentation', NULL, 'large',
         'Documentation of the source, which the flow is generated from.'),
        ('documentation_html', 'text', NULL, 'plan.documentation_html', NULL, 'large', 'The same as HTML.'),
        ('iflow_name', 'text', NULL, 'name', NULL, 'client', 'Name of the flow.'),
        ('iflow_description', 'text', NULL, 'settings.iflow_description', NULL, 'client', 'What the flow does.'),
        ('generation_method', 'text', NULL, 'settings.generation_method', NULL, 'client', 'template, rag or hybrid.'),
        ('iflow_zip_url', 'text', NULL, 'result.iflow_zip_url', NULL, 'client', 'Where the package is. Cleared by a retry.'),
        ('iflow_xml_url', 'text', NULL, 'result.iflow_xml_url', NULL, 'client', 'Where the flow is. Cleared by a retry.'),
        ('total_components', 'integer',
         'COALESCE(NULLIF((SELECT count(*) FROM run_tracker.artifacts a WHERE a.run_id = r.run_id AND a.kind = ''component''), 0), '
         || run_tracker.compat_key('metrics', 'total_components', 'integer') || ', 0)',
         'metrics.total_components', NULL, 'hint', 'Number of components: of rows if there are any, else what was assigned.'),
        ('components_json', 'jsonb', NULL, 'result.components_json', NULL, 'client', 'Components as JSON. Cleared by a retry.'),
        ('rag_retrievals_count', 'integer',
         'COALESCE(NULLIF((SELECT sum(t.retrieval_count) FROM run_tracker.run_totals t WHERE t.run_id = r.run_id), 0), '
         || run_tracker.compat_key('metrics', 'rag_retrievals_count', 'integer') || ', 0)',
         'metrics.rag_retrievals_count', NULL, 'hint', 'Number of retrievals: of rows if there are any, else what was assigned.'),
        ('rag_sources_used', 'jsonb', NULL, 'result.rag_sources_used', NULL, 'client', 'Documents that were used. Cleared by a retry.'),
        ('created_at', 'timestamptz', NULL, 'created_at', NULL, 'fact', 'When the job was created; filled in.'),
        ('started_at', 'timestamptz', NULL, 'started_at', NULL, 'fact', 'When work on it began; filled in.'),
        ('completed_at', 'timestamptz', NULL, 'finished_at', NULL, 'fact', 'When it was completed or failed; filled in.'),
        -- a job may wait for ever with its documentation ready: longer than the type can say
        ('duration_seconds', 'numeric(10,3)', 'CASE WHEN r.duration_ms < 10000000000 THEN r.duration_ms / 1000.0 WHEN r.duration_ms > 0 THEN 9999999.999 END', 'duration_ms',
         'round(new.duration_seconds * 1000)::bigint', 'fact', 'Seconds from started_at (else created_at) to completed_at; computed.'),
        ('error_message', 'text', NULL, 'error', NULL, 'client', 'Why the job failed. Cleared by a retry.'),
        ('error_stack', 'text', NULL, 'error_detail', NULL, 'client', 'Where in the code. Cleared by a retry.'),
        ('metadata', 'jsonb', 'COALESCE(r.metadata, ''{}'')', 'metadata', NULL, 'client', 'Anything else, a JSON object.'))
        AS c (name, type, reads, target, writes, who, description)
    UNION ALL
    SELECT 'iflow_components', c.* FROM (VALUES
        (NULL, 'text', NULL, 'kind', '''component''', 'constant', NULL),
        ('component_id', 'uuid', NULL, 'artifact_id', NULL, 'key', 'Id; made up if not given.'),
        ('job_id', 'uuid', NULL, 'run_id', NULL, 'key', 'Job that generated the component.'),
        ('user_id', '@user_id', NULL, 'user_id', NULL, 'key', 'Owner of the job; filled in.'),
        ('component_type', 'text', NULL, 'type', NULL, 'client', 'Type, such as HTTPS.'),
        ('component_name', 'text', NULL, 'name', NULL, 'client', 'Name.'),
        ('component_order', 'integer', NULL, 'ordinal', NULL, 'client', 'Place in the flow.'),
        ('source', 'text', NULL, 'source', NULL, 'client', 'template, rag, authoritative or user_specified.'),
        ('rag_similarity_score', 'numeric', NULL, 'similarity', NULL, 'client', 'Similarity of the document that it came from.'),
        ('rag_document_id', 'text', NULL, 'source_document_id', NULL, 'client', 'Document that it came from.'),
        ('rag_document_name', 'text', NULL, 'source_document_name', NULL, 'client', 'Name of that document.'),
        ('rag_chunk_type', 'text', NULL, 'chunk_type', NULL, 'client', 'Kind of chunk of that document.'),
        ('configuration', 'jsonb', NULL, 'configuration', NULL, 'client', 'Configuration, a JSON object.'),
        ('xml_content', 'text', NULL, 'content', NULL, 'client', 'The component itself.'),
        ('created_at', 'timestamptz', NULL, 'created_at', NULL, 'fact', 'When it was recorded; filled in.'))
        AS c (name, type, reads, target, writes, who, description)
    UNION ALL
    SELECT 'rag_retrievals', c.* FROM (VALUES
        ('retrieval_id', 'uuid', NULL, 'retrieval_id', NULL, 'key', 'Id; made up if not given.'),
        ('job_id', 'uuid', NULL, 'run_id', NULL, 'key', 'Job that asked.'),
        ('user_id', '@user_id', NULL, 'user_id', NULL, 'key', 'Owner of the job; filled in.'),
        ('retrieval_type', 'text', NULL, 'retrieval_type', NULL, 'client', 'vector_search, pattern_search, graph_query or hybrid.'),
        ('search_query', 'text', NULL, 'query', NULL, 'client', 'What was looked for.'),
        ('context', 'text', NULL, 'context', NULL, 'client', 'What it was looked for.'),
        ('results_count', 'integer', NULL, 'results_count', NULL, 'client', 'How much was found; the length of results unless given.'),
        ('results', 'jsonb', NULL, 'results', NULL, 'client', 'What was found, a JSON array.'),
        ('retrieval_location', 'text', NULL, 'location', NULL, 'client', 'Where it was looked for.'),
        ('component_type_searched', 'text', NULL, 'component_type', NULL, 'client', 'Type of component that it was looked for.'),
        ('retrieval_time_ms', 'bigint', NULL, 'duration_ms', NULL, 'client', 'Milliseconds that it took.'),
        ('created_at', 'timestamptz', NULL, 'created_at', NULL, 'fact', 'When it was recorded; filled in.'))
        AS c (name, type, reads, target, writes, who, description)
    UNION ALL
    SELECT 'iflow_generation_logs', c.* FROM (VALUES
        ('log_id', 'uuid', NULL, 'log_id', NULL, 'key', 'Id; made up if not given.'),
        ('job_id', 'uuid', NULL, 'run_id', NULL, 'key', 'Job that the entry is about.'),
        ('user_id', '@user_id', NULL, 'user_id', NULL, 'key', 'Owner of the job; filled in.'),
        ('log_level', 'text', NULL, 'level', NULL, 'client', 'DEBUG, INFO (the default), WARNING, ERROR or CRITICAL.'),
        ('log_message', 'text', NULL, 'message', NULL, 'client', 'What happened.'),
        ('log_category', 'text', NULL, 'category', NULL, 'client', 'Grouping word.'),
        ('step_name', 'text', NULL, 'step_name', NULL, 'client', 'Step in which it happened.'),
        ('details', 'jsonb', NULL, 'details', NULL, 'client', 'Anything else.'),
        ('created_at', 'timestamptz', NULL, 'created_at', NULL, 'fact', 'When it was written; filled in.'))
        AS c (name, type, reads, target, writes, who, description)
$$;
COMMENT ON FUNCTION run_tracker.compat_iflow_columns() IS 'Internal: see compat_columns().';

CREATE FUNCTION run_tracker.compat_iflow_extras()
RETURNS TABLE (kind text, name text, definition text, description text)
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $extras$
    -- Counts are subqueries, of one job each: a page of a long history costs as much as its rows.  For the same reason
    -- recent jobs are sorted before anything is made of them.
    SELECT 'view', v.name, format($f$
CREATE OR REPLACE VIEW @schema@.%1$s WITH (security_invoker = true) AS
SELECT %2$s,
       (SELECT count(*) FROM run_tracker.artifacts a WHERE a.run_id = r.%3$s AND a.kind = 'component') AS component_count,
       (SELECT COALESCE(sum(t.retrieval_count), 0)::bigint FROM run_tracker.run_totals t WHERE t.run_id = r.%3$s) AS retrieval_count,
       (SELECT COALESCE(sum(t.error_count), 0)::bigint FROM run_tracker.run_totals t WHERE t.run_id = r.%3$s) AS error_count
FROM %4$s r;
COMMENT ON COLUMN @schema@.%1$s.component_count IS 'Number of rows in iflow_components.';
COMMENT ON COLUMN @schema@.%1$s.retrieval_count IS 'Number of rows in rag_retrievals.';
COMMENT ON COLUMN @schema@.%1$s.error_count IS 'Number of rows in iflow_generation_logs of level ERROR or CRITICAL.'$f$,
                             v.name, v.columns, v.key, v.source), v.description
    FROM (VALUES
        ('iflow_jobs_summary',
         'r.job_id, r.user_id, r.status, r.progress, r.current_step, r.platform, r.iflow_name, r.generation_method, '
         || E'r.created_at,\n       r.completed_at, r.duration_seconds', 'job_id', '@schema@.iflow_jobs',
         'Jobs, without their documents, and how many components, retrievals and errors each has.'),
        ('recent_jobs_with_details', '@columns of iflow_jobs@', 'run_id',
         $f$(SELECT j.run_id, j.user_id, j.status, j.phase, j.progress, j.current_step, j.kind, j.settings, j.inputs, j.plan, j.name,
             j.result, j.metrics, j.created_at, j.started_at, j.finished_at, j.duration_ms, j.error, j.error_detail, j.metadata
      FROM run_tracker.runs j
      WHERE j.lifecycle = 'iflow' AND j.created_at > now() - interval '7 days'
      ORDER BY j.created_at DESC)$f$,
         'Jobs of the last 7 days, newest first, and how many components, retrievals and errors each has.'))
        AS v (name, columns, key, source, description)
    UNION ALL
    VALUES
    ('function', 'iflow_job_list', $f$
CREATE OR REPLACE FUNCTION @schema@.iflow_job_list(status text DEFAULT NULL, platform text DEFAULT NULL,
    page integer DEFAULT 1, page_size integer DEFAULT 50, user_id @user_id@ DEFAULT NULL) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $body$
    SELECT jsonb_build_object('success', true, 'jobs', COALESCE(jsonb_agg(to_jsonb(p) ORDER BY p.created_at DESC, p.job_id DESC), '[]'))
    FROM (SELECT j.job_id, j.status, j.progress, j.platform, j.iflow_name, j.created_at, j.completed_at
          -- the half that is not asked for is not read
          FROM (SELECT * FROM @schema@.iflow_jobs WHERE $5 IS NULL
                UNION ALL
                SELECT * FROM @schema@.iflow_jobs u WHERE u.user_id = $5) j
          WHERE ($1 IS NULL OR j.status = $1) AND ($2 IS NULL OR j.platform = $2)
          ORDER BY j.created_at DESC, j.job_id DESC
          LIMIT GREATEST($4, 0) OFFSET (GREATEST($3, 1) - 1)::bigint * GREATEST($4, 0)) p
$body$$f$,
     'A page of jobs, newest first, as {"success", "jobs": [{"job_id", "status", "progress", "platform", "iflow_name", "created_at", "completed_at"}]}; of one status, platform and user, if given.'),
    ('function', 'iflow_job_details', $f$
CREATE OR REPLACE FUNCTION @schema@.iflow_job_details(job_id uuid) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $body$
    SELECT COALESCE(
        (SELECT jsonb_build_object(
             'success', true,
             'job', to_jsonb(j),
             'components', c.list,
             'retrievals', COALESCE((SELECT jsonb_agg(to_jsonb(r) ORDER BY r.created_at, r.retrieval_id)
                                     FROM @schema@.rag_retrievals r WHERE r.job_id = j.job_id), '[]'),
             'error_logs', COALESCE((SELECT jsonb_agg(to_jsonb(l) ORDER BY l.created_at, l.log_id)
                                     FROM @schema@.iflow_generation_logs l
                                     WHERE l.job_id = j.job_id AND l.log_level IN ('ERROR', 'CRITICAL')), '[]'),
             'statistics', jsonb_build_object(
                 'total_components', c.total,
                 'total_retrievals', s.retrieval_count,
                 'error_count', s.error_count,
                 'rag_components', c.rag,
                 'template_components', c.template))
         FROM @schema@.iflow_jobs j
              JOIN @schema@.iflow_jobs_summary s ON s.job_id = j.job_id,
              LATERAL (SELECT COALESCE(jsonb_agg(to_jsonb(c) ORDER BY c.component_order, c.created_at, c.component_id), '[]') AS list,
                              count(*) AS total, count(*) FILTER (WHERE c.source = 'rag') AS rag,
                              count(*) FILTER (WHERE c.source = 'template') AS template
                       FROM @schema@.iflow_components c WHERE c.job_id = j.job_id) c
         WHERE j.job_id = $1),
        jsonb_build_object('success', false, 'error', 'Job not found'))
$body$$f$,
     'A job with all that belongs to it, as {"success", "job", "components", "retrievals", "error_logs", "statistics": {"total_components", "total_retrievals", "error_count", "rag_components", "template_components"}}; {"success": false, "error"} if there is none that the caller may see.'),
    ('function', 'iflow_job_logs', $f$
CREATE OR REPLACE FUNCTION @schema@.iflow_job_logs(job_id uuid, level text DEFAULT NULL) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $body$
    SELECT CASE
        WHEN NOT EXISTS (SELECT FROM @schema@.iflow_jobs j WHERE j.job_id = $1) THEN
            jsonb_build_object('success', false, 'error', 'Job not found')
        WHEN $2 NOT IN ('DEBUG', 'INFO', 'WARNING', 'ERROR', 'CRITICAL') THEN
            jsonb_build_object('success', false, 'error', 'Unknown log level')
        ELSE
            jsonb_build_object('success', true, 'logs', COALESCE((
                SELECT jsonb_agg(jsonb_build_object('log_level', l.level, 'log_message', l.message, 'log_category', l.category,
                                                    'step_name', l.step_name, 'created_at', l.created_at) ORDER BY l.seq)
                FROM run_tracker.logs l WHERE l.run_id = $1 AND ($2 IS NULL OR l.level = $2)), '[]')) END
$body$$f$,
     'The log of a job in the order in which it was written, of one level if given, as {"success", "logs": [{"log_level", "log_message", "log_category", "step_name", "created_at"}]}; {"success": false, "error"} if there is no job that the caller may see, or no such level.')
$extras$;
COMMENT ON FUNCTION run_tracker.compat_iflow_extras() IS 'Internal: see compat_extras().';
