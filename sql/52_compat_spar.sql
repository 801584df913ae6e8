-- SPAR: one run per journal entry, under the names of its table.

CREATE FUNCTION run_tracker.compat_spar_relations()
RETURNS TABLE (relation text, base text, filter text, keys text[], repeatable boolean, before_insert text,
               after_insert text, before_update text, after_update text, description text)
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
    VALUES ('spar_runs', 'runs', 'r.lifecycle = ''spar''', '{run_id}'::text[], true, NULL, NULL, NULL, NULL,
            'Processing requests of journal entries: runs of lifecycle spar. INSERT of a run_id that exists returns that run.')
$$;
COMMENT ON FUNCTION run_tracker.compat_spar_relations() IS 'Internal: see compat_relations().';

CREATE FUNCTION run_tracker.compat_spar_columns()
RETURNS TABLE (relation text, name text, type text, reads text, target text, writes text, who text, description text)
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT 'spar_runs', c.* FROM (VALUES
        (NULL, 'text', NULL, 'lifecycle', '''spar''', 'constant', NULL),
        ('run_id', 'uuid', NULL, 'run_id', NULL, 'key', 'Trace id; made up if not given.'),
        ('user_id', '@user_id', NULL, 'user_id', NULL, 'key', 'Owner; null if there is none.'),
        ('journal_entry_id', '@journal_entry_id', NULL, 'subject_id', NULL, 'client', 'Journal entry that the run is about.'),
        ('status', 'text', NULL, 'status', NULL, 'status', 'pending, processing, completed, failed or timeout.'),
        ('goal', 'text', NULL, 'kind', NULL, 'client', 'Intent, such as edu_context.'),
        ('inputs', 'jsonb', 'COALESCE(r.inputs, ''{}'')', 'inputs', NULL, 'client', 'What the run works on.'),
        ('settings', 'jsonb', 'COALESCE(r.settings, ''{}'')', 'settings', NULL, 'client', 'How it does.'),
        ('plan', 'jsonb', NULL, 'plan', NULL, 'client', 'Plan of the agent.'),
        ('step_results', 'jsonb', NULL, 'metadata.step_results', NULL, 'client', 'Results of its steps.'),
        ('reflections', 'jsonb', NULL, 'reflections', NULL, 'client', 'What the agent thinks of its results.'),
        ('quality_score', 'numeric', NULL, 'result.quality_score', NULL, 'client', 'Quality of the result.'),
        ('competencies', 'jsonb', NULL, 'result.competencies', NULL, 'client', 'Competencies that were found.'),
        ('recommendations', 'jsonb', NULL, 'result.recommendations', NULL, 'client', 'Recommendations.'),
        ('insights', 'jsonb', NULL, 'result.insights', NULL, 'client', 'Insights.'),
        ('error_message', 'text', NULL, 'error', NULL, 'client', 'Why the run failed.'),
        ('processing_duration_ms', 'bigint', NULL, 'duration_ms', NULL, 'fact', 'Duration in ms, once finished; computed.'),
        ('created_at', 'timestamptz', NULL, 'created_at', NULL, 'fact', 'When the run was created; filled in.'),
        ('started_at', 'timestamptz', NULL, 'started_at', NULL, 'fact', 'When processing began; filled in.'),
        ('completed_at', 'timestamptz', NULL, 'finished_at', NULL, 'fact', 'When the run finished, however; filled in.'),
        ('updated_at', 'timestamptz', NULL, 'updated_at', NULL, 'fact', 'When the row was changed last; filled in.'))
        AS c (name, type, reads, target, writes, who, description)
$$;
COMMENT ON FUNCTION run_tracker.compat_spar_columns() IS 'Internal: see compat_columns().';

CREATE FUNCTION run_tracker.compat_spar_extras()
RETURNS TABLE (kind text, name text, definition text, description text)
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $extras$
    VALUES
    ('function', 'spar_user_stats', $f$
CREATE OR REPLACE FUNCTION @schema@.spar_user_stats(user_id @user_id@ DEFAULT NULL)
RETURNS TABLE (user_id @user_id@, total_runs bigint, completed_runs bigint, failed_runs bigint, success_rate numeric, avg_duration_ms numeric)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $body$
    SELECT r.user_id, count(*), count(*) FILTER (WHERE r.status = 'completed'),
           count(*) FILTER (WHERE r.status IN ('failed', 'timeout')),
           round(100.0 * count(*) FILTER (WHERE r.status = 'completed') / count(*), 2),
           round(avg(r.processing_duration_ms) FILTER (WHERE r.status = 'completed'))
    -- the half that is not asked for is not read
    FROM (SELECT * FROM @schema@.spar_runs WHERE $1 IS NULL
          UNION ALL
          SELECT * FROM @schema@.spar_runs u WHERE u.user_id = $1) r
    GROUP BY r.user_id
$body$$f$,
     'Runs of a user (by default of everyone whose runs the caller may see): how many, how many were completed and failed or timed out, success rate in %, average duration of completed runs in ms.'),
    ('function', 'spar_stuck_runs', $f$
CREATE OR REPLACE FUNCTION @schema@.spar_stuck_runs(older_than interval DEFAULT '5 minutes')
RETURNS TABLE (run_id uuid, user_id @user_id@, status text, goal text, created_at timestamptz, stuck_duration interval)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $body$
    SELECT r.run_id, r.user_id, r.status, r.goal, r.created_at, now() - r.created_at
    FROM @schema@.spar_runs r
    WHERE r.status IN ('pending', 'processing') AND r.created_at < now() - $1
    ORDER BY r.created_at
$body$$f$,
     'Runs that are pending or processing for longer than that, oldest first.'),
    ('function', 'cleanup_spar_runs', $f$
CREATE OR REPLACE FUNCTION @schema@.cleanup_spar_runs(older_than interval DEFAULT '30 days') RETURNS bigint
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $body$
    WITH gone AS (
        DELETE FROM @schema@.spar_runs r
        WHERE r.status IN ('completed', 'failed', 'timeout') AND r.created_at < now() - $1
        RETURNING 1)
    SELECT count(*) FROM gone
$body$$f$,
     'Removes finished runs that were created before that, and returns how many: one''s own, or all if a service calls it.')
$extras$;
COMMENT ON FUNCTION run_tracker.compat_spar_extras() IS 'Internal: see compat_extras().';
