-- Views.

CREATE FUNCTION run_tracker.install_views() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET client_min_messages = warning
AS $install$
BEGIN
    IF to_regclass('run_tracker.run_summary') IS NULL THEN
        CREATE VIEW run_tracker.run_summary WITH (security_invoker = true) AS
        SELECT r.run_id, r.user_id, r.lifecycle, r.status, r.phase, r.kind, r.name, r.workflow_id, r.session_id,
               r.subject_id, r.parent_run_id, r.priority, r.progress, r.current_step, r.error, r.attempt,
               r.created_at, r.started_at, r.finished_at, r.updated_at, r.duration_ms,
               COALESCE(r.duration_ms, GREATEST(0, floor(1000 * extract(epoch FROM
                   clock_timestamp() - COALESCE(r.started_at, r.created_at))))::bigint) AS elapsed_ms,
               COALESCE(t.task_count, 0) AS task_count,
               COALESCE(t.failed_task_count, 0) AS failed_task_count,
               COALESCE(t.open_task_count, 0) AS open_task_count,
               COALESCE(t.input_tokens, 0) AS input_tokens,
               COALESCE(t.output_tokens, 0) AS output_tokens,
               COALESCE(t.total_tokens, 0) AS total_tokens,
               COALESCE(t.total_cost, 0) AS total_cost,
               COALESCE(t.message_count, 0) AS message_count,
               COALESCE(t.error_count, 0) AS error_count,
               COALESCE(t.retrieval_count, 0) AS retrieval_count,
               COALESCE(t.artifact_count, 0) AS artifact_count,
               t.last_message_at,
               GREATEST(r.updated_at, t.last_activity_at) AS last_activity_at
        FROM run_tracker.runs r
             LEFT JOIN LATERAL (
                 SELECT sum(s.task_count)::bigint AS task_count,
                        sum(s.failed_task_count)::bigint AS failed_task_count,
                        sum(s.open_task_count)::bigint AS open_task_count,
                        sum(s.input_tokens)::bigint AS input_tokens,
                        sum(s.output_tokens)::bigint AS output_tokens,
                        sum(s.total_tokens)::bigint AS total_tokens,
                        sum(s.total_cost) AS total_cost,
                        sum(s.message_count)::bigint AS message_count,
                        sum(s.error_count)::bigint AS error_count,
                        sum(s.retrieval_count)::bigint AS retrieval_count,
                        sum(s.artifact_count)::bigint AS artifact_count,
                        max(s.last_message_at) AS last_message_at,
                        max(s.last_activity_at) AS last_activity_at
                 FROM run_tracker.run_totals s WHERE s.run_id = r.run_id) t ON true;
        PERFORM run_tracker.revoke_all('run_tracker.run_summary');

        COMMENT ON VIEW run_tracker.run_summary IS
        'Runs with their totals; elapsed_ms is duration_ms, or the time since the start of a run that is open.';
    END IF;
    IF to_regclass('run_tracker.active_runs') IS NULL THEN
        CREATE VIEW run_tracker.active_runs WITH (security_invoker = true) AS
        SELECT r.run_id, r.user_id, r.lifecycle, r.status, r.phase, r.kind, r.name, r.workflow_id, r.session_id,
               r.subject_id, r.parent_run_id, r.priority, r.progress, r.current_step, r.worker, r.attempt,
               r.max_attempts, r.created_at, r.started_at,
               GREATEST(0, floor(1000 * extract(epoch FROM
                   clock_timestamp() - COALESCE(r.started_at, r.created_at))))::bigint AS elapsed_ms,
               GREATEST(o.last_activity_at, t.last_activity_at, r.updated_at) AS last_activity_at,
               o.deadline_at,
               COALESCE(t.task_count, 0) AS task_count,
               COALESCE(t.open_task_count, 0) AS open_task_count,
               COALESCE(t.total_tokens, 0) AS total_tokens,
               COALESCE(t.total_cost, 0) AS total_cost
        FROM run_tracker.open_runs o
             JOIN run_tracker.runs r ON r.run_id = o.run_id
             LEFT JOIN LATERAL (
                 SELECT sum(s.task_count)::bigint AS task_count,
                        sum(s.open_task_count)::bigint AS open_task_count,
                        sum(s.total_tokens)::bigint AS total_tokens,
                        sum(s.total_cost) AS total_cost,
                        max(s.last_activity_at) AS last_activity_at
                 FROM run_tracker.run_totals s WHERE s.run_id = o.run_id) t ON true
        WHERE o.phase IN ('active', 'waiting');
        PERFORM run_tracker.revoke_all('run_tracker.active_runs');

        COMMENT ON VIEW run_tracker.active_runs IS
        'Runs that are under way, active or waiting, with their session, progress and totals; deadline_at is when they time out if nothing happens. Queued runs are in open_runs.';
    END IF;
    IF to_regclass('run_tracker.recent_runs') IS NULL THEN
        CREATE VIEW run_tracker.recent_runs WITH (security_invoker = true) AS
        SELECT s.* FROM run_tracker.run_summary s
        WHERE s.created_at >= now() - interval '24 hours'
        ORDER BY s.created_at DESC, s.run_id DESC;
        PERFORM run_tracker.revoke_all('run_tracker.recent_runs');

        COMMENT ON VIEW run_tracker.recent_runs IS 'run_summary of the runs created in the last 24 hours, newest first.';
    END IF;
END
$install$;
COMMENT ON FUNCTION run_tracker.install_views() IS 'Internal: the part of install() for views.';
