-- Workflow executions: runs with a mode, a session, and streamed pictures of what they do, under the names of their table.

CREATE FUNCTION run_tracker.compat_workflow_relations()
RETURNS TABLE (relation text, base text, filter text, keys text[], repeatable boolean, before_insert text,
               after_insert text, before_update text, after_update text, description text)
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT 'workflow_executions', 'runs', 'r.lifecycle = ''workflow''', '{execution_id}'::text[], false,
           v.valid || E'        new.mode := COALESCE(new.mode, ''cloud-run'');', NULL, v.valid, NULL,
           'Executions of workflows: runs of lifecycle workflow. A new one is running, in mode cloud-run if none is given.'
    FROM (VALUES ($valid$        IF new.workflow_id IS NULL THEN
            RAISE EXCEPTION 'null value in column "workflow_id" of view "%" violates not-null constraint', TG_TABLE_NAME
                USING ERRCODE = 'not_null_violation', COLUMN = 'workflow_id', TABLE = TG_TABLE_NAME, SCHEMA = TG_TABLE_SCHEMA;
        ELSIF length(new.session_id::text) > 255 THEN
            RAISE EXCEPTION 'value of column "session_id" of view "%" is too long', TG_TABLE_NAME
                USING ERRCODE = 'string_data_right_truncation', COLUMN = 'session_id', TABLE = TG_TABLE_NAME, SCHEMA = TG_TABLE_SCHEMA,
                      DETAIL = format('It has %s characters, at most 255 are allowed.', length(new.session_id::text));
        END IF;
$valid$)) AS v (valid)
$$;
COMMENT ON FUNCTION run_tracker.compat_workflow_relations() IS 'Internal: see compat_relations().';

CREATE FUNCTION run_tracker.compat_workflow_columns()
RETURNS TABLE (relation text, name text, type text, reads text, target text, writes text, who text, description text)
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT 'workflow_executions', c.* FROM (VALUES
        (NULL, 'text', NULL, 'lifecycle', '''workflow''', 'constant', NULL),
        -- an execution runs from the moment at which it is created
        (NULL, 'timestamptz', NULL, 'started_at', 'new.created_at', 'fact', NULL),
        ('execution_id', 'uuid', NULL, 'run_id', NULL, 'key', 'Id of the execution; made up if not given.'),
        ('workflow_id', '@workflow_id', NULL, 'workflow_id', NULL, 'client', 'Workflow that is executed.'),
        ('user_id', '@user_id', NULL, 'user_id', NULL, 'key', 'Owner; null if there is none.'),
        ('status', 'text', NULL, 'status', NULL, 'status', 'running, completed, failed or cancelled.'),
        ('mode', 'text', NULL, 'settings.mode', NULL, 'client', 'Where the execution takes place: cloud-run or local-run.'),
        ('visual_enabled', 'boolean', 'COALESCE(r.settings ->> ''visual_enabled'' = ''true'', false)', 'settings.visual_enabled', NULL,
         'client', 'Are pictures made of what the execution does?'),
        ('visual_streaming_enabled', 'boolean', 'COALESCE(r.settings ->> ''visual_streaming_enabled'' = ''true'', false)',
         'settings.visual_streaming_enabled', NULL, 'client', 'Are they streamed while it does?'),
        ('visual_quality', 'text', NULL, 'settings.visual_quality', NULL, 'client', 'Quality of the pictures.'),
        ('session_id', '@session_id', NULL, 'session_id', NULL, 'client', 'Session that the execution belongs to, at most 255 characters.'),
        ('inputs', 'jsonb', 'COALESCE(r.inputs, ''{}'')', 'inputs', NULL, 'client', 'What the workflow works on.'),
        ('result', 'jsonb', NULL, 'result', NULL, 'client', 'What came of it: an array of {step_id, content}. Cleared when the execution runs again.'),
        ('error', 'text', NULL, 'error', NULL, 'client', 'Why the execution failed. Cleared when it runs again.'),
        ('logs', 'jsonb', NULL, 'metrics.logs', NULL, 'client', 'Log of the execution, as the application has it.'),
        ('execution_time_seconds', 'numeric(10,3)', 'CASE WHEN r.duration_ms > 9999999999 THEN 9999999.999 ELSE r.duration_ms / 1000.0 END', 'duration_ms',
         '(1000 * new.execution_time_seconds)::bigint', 'fact', 'Seconds from start to end, once finished; computed.'),
        ('visual_events_captured', 'integer', 'COALESCE(@key@, 0)', 'metrics.visual_events_captured', NULL, 'client',
         'Number of pictures.'),
        ('visual_stream_duration', 'numeric(10,3)', NULL, 'metrics.visual_stream_duration', NULL, 'client',
         'Seconds for which pictures were streamed.'),
        ('created_at', 'timestamptz', NULL, 'created_at', NULL, 'fact', 'When the execution began; filled in.'),
        ('completed_at', 'timestamptz', NULL, 'finished_at', NULL, 'fact', 'When the execution ended, however; filled in.'),
        ('updated_at', 'timestamptz', NULL, 'updated_at', NULL, 'fact', 'When the row was changed last; filled in.'),
        ('metadata', 'jsonb', NULL, 'metadata', NULL, 'client', 'Anything else, a JSON object.'))
        AS c (name, type, reads, target, writes, who, description)
$$;
COMMENT ON FUNCTION run_tracker.compat_workflow_columns() IS 'Internal: see compat_columns().';

CREATE FUNCTION run_tracker.compat_workflow_extras()
RETURNS TABLE (kind text, name text, definition text, description text)
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $extras$
    VALUES
    -- a query of its own for every set of filters: each has its index
    ('function', 'workflow_history', $f$
CREATE OR REPLACE FUNCTION @schema@.workflow_history(workflow_id @workflow_id@ DEFAULT NULL, status text DEFAULT NULL,
    visual_streaming_only boolean DEFAULT false, page integer DEFAULT 1, page_size integer DEFAULT 50, before uuid DEFAULT NULL)
RETURNS SETOF @schema@.workflow_executions
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET jit = off AS $body$
DECLARE
    history constant text := pg_typeof(NULL::@schema@.workflow_executions);
    last_created_at timestamptz;
BEGIN
    IF page IS NULL OR page < 1 THEN
        RAISE EXCEPTION 'argument "page" must be at least 1'
            USING ERRCODE = 'invalid_parameter_value', DETAIL = format('It is %s.', COALESCE(page::text, 'null')), HINT = 'Pages are counted from 1.';
    ELSIF page_size IS NULL OR page_size NOT BETWEEN 1 AND 1000 THEN
        RAISE EXCEPTION 'argument "page_size" must be 1 to 1000'
            USING ERRCODE = 'invalid_parameter_value', DETAIL = format('It is %s.', COALESCE(page_size::text, 'null'));
    ELSIF before IS NOT NULL THEN
        SELECT r.created_at INTO last_created_at FROM @schema@.workflow_executions r WHERE r.execution_id = before;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'execution does not exist'
                USING ERRCODE = 'no_data_found', DETAIL = format('There is no execution %s that you may see.', before);
        END IF;
    END IF;
    RETURN QUERY EXECUTE format('
        SELECT r.* FROM (SELECT r.execution_id, r.created_at FROM %1$s r WHERE %2$s
                         ORDER BY r.created_at DESC, r.execution_id DESC LIMIT $1 OFFSET $2) p
             JOIN %1$s r ON r.execution_id = p.execution_id
        ORDER BY p.created_at DESC, p.execution_id DESC', history,
        concat_ws(' AND ', 'true',
                  CASE WHEN workflow_id IS NOT NULL THEN format('r.workflow_id = %L', workflow_id) END,
                  CASE WHEN status IS NOT NULL THEN format('r.status = %L', status) END,
                  CASE WHEN visual_streaming_only THEN 'r.visual_streaming_enabled' END,
                  CASE WHEN before IS NOT NULL THEN '(r.created_at, r.execution_id) < ($3, $4)' END))
    USING page_size, (page - 1) * page_size::bigint, last_created_at, before;
END
$body$$f$,
     'A page of executions, newest first: of a workflow, of a status, only those whose pictures are streamed, or all that the caller may see. before, the last execution_id of the page before, instead of page finds pages of any depth at the same cost. 22023 if page is not at least 1 or page_size not 1 to 1000, P0002 if there is no execution before.'),
    ('function', 'workflow_execution_stats', $f$
CREATE OR REPLACE FUNCTION @schema@.workflow_execution_stats(workflow_id @workflow_id@ DEFAULT NULL)
RETURNS TABLE (workflow_id @workflow_id@, total_executions bigint, successful_executions bigint, failed_executions bigint,
    success_rate numeric, average_execution_time numeric, mode_usage jsonb)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $body$
    SELECT m.workflow_id, sum(m.total)::bigint, sum(m.successful)::bigint, sum(m.failed)::bigint,
           round(100 * sum(m.successful) / sum(m.total), 2), round(sum(m.seconds) / NULLIF(sum(m.successful), 0), 3),
           COALESCE(jsonb_object_agg(m.mode, m.total) FILTER (WHERE m.mode IS NOT NULL), '{}')
    FROM (SELECT r.workflow_id, r.mode, count(*) AS total, count(*) FILTER (WHERE r.status = 'completed') AS successful,
                 count(*) FILTER (WHERE r.status = 'failed') AS failed,
                 sum(r.execution_time_seconds) FILTER (WHERE r.status = 'completed') AS seconds
          -- a query for each case: one of them has an index
          FROM (SELECT w.workflow_id, w.mode, w.status, w.execution_time_seconds
                FROM @schema@.workflow_executions w WHERE w.workflow_id = $1
                UNION ALL
                SELECT w.workflow_id, w.mode, w.status, w.execution_time_seconds
                FROM @schema@.workflow_executions w WHERE $1 IS NULL) r
          GROUP BY r.workflow_id, r.mode) m
    GROUP BY m.workflow_id
    ORDER BY m.workflow_id
$body$$f$,
     'Executions of a workflow, or of each one that the caller may see: how many, how many were completed and failed, success rate in %, average seconds of completed ones, and number by mode as {mode: number}. Removed executions are not among them; run_tracker.workflow_stats() counts those, too.'),
    ('function', 'active_workflow_executions', $f$
CREATE OR REPLACE FUNCTION @schema@.active_workflow_executions() RETURNS SETOF @schema@.workflow_executions
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET enable_mergejoin = off SET enable_hashjoin = off AS $body$
    SELECT w.*
    FROM run_tracker.open_runs o JOIN @schema@.workflow_executions w ON w.execution_id = o.run_id
    WHERE o.lifecycle = 'workflow' AND o.phase IN ('active', 'waiting') AND w.status = 'running'
    ORDER BY w.created_at DESC, w.execution_id DESC
$body$$f$,
     'Executions that are running, newest first. However long the history is, it is not read.'),
    ('function', 'workflow_sessions', $f$
CREATE OR REPLACE FUNCTION @schema@.workflow_sessions(since interval DEFAULT '1 day')
RETURNS TABLE (session_id @session_id@, user_id @user_id@, executions bigint, running bigint, execution_id uuid, workflow_id @workflow_id@,
    status text, mode text, visual_enabled boolean, visual_streaming_enabled boolean, visual_quality text, created_at timestamptz)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $body$
    SELECT s.* FROM (
        SELECT DISTINCT ON (w.session_id, w.user_id) w.session_id, w.user_id,
               count(*) OVER mine AS executions, count(*) FILTER (WHERE w.status = 'running') OVER mine AS running,
               w.execution_id, w.workflow_id, w.status, w.mode, w.visual_enabled, w.visual_streaming_enabled, w.visual_quality, w.created_at
        FROM @schema@.workflow_executions w
        WHERE w.session_id IS NOT NULL AND w.created_at > now() - $1
        WINDOW mine AS (PARTITION BY w.session_id, w.user_id)
        ORDER BY w.session_id, w.user_id, w.created_at DESC, w.execution_id DESC) s
    ORDER BY s.created_at DESC, s.execution_id DESC
$body$$f$,
     'Sessions that had an execution since then, the latest first: how many executions since then, how many of them are running, and the latest one with its context.'),
    ('function', 'cleanup_workflow_executions', $f$
CREATE OR REPLACE FUNCTION @schema@.cleanup_workflow_executions(older_than interval DEFAULT '30 days') RETURNS bigint
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $body$
    WITH gone AS (
        DELETE FROM @schema@.workflow_executions w
        WHERE w.status IN ('completed', 'failed', 'cancelled') AND w.created_at < now() - $1
        RETURNING 1)
    SELECT count(*) FROM gone
$body$$f$,
     'Removes finished executions that were created before that, and returns how many: one''s own, or all if a service calls it.')
$extras$;
COMMENT ON FUNCTION run_tracker.compat_workflow_extras() IS 'Internal: see compat_extras().';
