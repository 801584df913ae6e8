-- Totals of runs.

CREATE FUNCTION run_tracker.before_truncate() RETURNS trigger
LANGUAGE c SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'run_tracker_before_truncate';
COMMENT ON FUNCTION run_tracker.before_truncate() IS
'Trigger of run_tracker.runs: TRUNCATE takes the runs that are open out of the statistics.';

CREATE FUNCTION run_tracker.after_truncate() RETURNS trigger
LANGUAGE c SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'run_tracker_after_truncate';
COMMENT ON FUNCTION run_tracker.after_truncate() IS
'Trigger of the tables that totals are made of, and of sessions: TRUNCATE takes their part out of all totals, and what belonged to their rows.';

-- in PL/pgSQL, to look for the tables first; its results cannot be named like its argument
CREATE FUNCTION run_tracker.compare_totals(of_run uuid)
RETURNS TABLE (run_id uuid, total text, expected numeric, actual numeric)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
BEGIN
    PERFORM run_tracker.require_tables();
    RETURN QUERY
    WITH actual AS (
        SELECT t.run_id,
               sum(t.task_count) AS task_count, sum(t.failed_task_count) AS failed_task_count,
               sum(t.open_task_count) AS open_task_count, sum(t.input_tokens) AS input_tokens,
               sum(t.output_tokens) AS output_tokens, sum(t.total_tokens) AS total_tokens,
               sum(t.total_cost) AS total_cost, sum(t.message_count) AS message_count,
               sum(t.error_count) AS error_count, sum(t.retrieval_count) AS retrieval_count,
               sum(t.artifact_count) AS artifact_count
        FROM run_tracker.run_totals t
        WHERE of_run IS NULL OR t.run_id = of_run
        GROUP BY t.run_id
    ), task_sums AS (
        SELECT t.run_id,
               count(*) FILTER (WHERE t.phase = 'succeeded') AS task_count,
               count(*) FILTER (WHERE t.phase IN ('failed', 'timed_out')) AS failed_task_count,
               count(*) FILTER (WHERE t.phase IN ('queued', 'active', 'waiting')) AS open_task_count,
               sum(t.input_tokens) FILTER (WHERE t.finished_at IS NOT NULL) AS input_tokens,
               sum(t.output_tokens) FILTER (WHERE t.finished_at IS NOT NULL) AS output_tokens,
               sum(t.total_tokens) FILTER (WHERE t.finished_at IS NOT NULL) AS total_tokens,
               sum(t.cost) FILTER (WHERE t.finished_at IS NOT NULL) AS total_cost
        FROM run_tracker.tasks t
        WHERE of_run IS NULL OR t.run_id = of_run
        GROUP BY t.run_id
    ), message_sums AS (
        SELECT m.run_id, count(*) AS message_count
        FROM run_tracker.messages m
        WHERE of_run IS NULL OR m.run_id = of_run
        GROUP BY m.run_id
    ), log_sums AS (
        SELECT l.run_id, count(*) AS error_count
        FROM run_tracker.logs l
        WHERE (of_run IS NULL OR l.run_id = of_run) AND l.level IN ('ERROR', 'CRITICAL')
        GROUP BY l.run_id
    ), retrieval_sums AS (
        SELECT t.run_id, count(*) AS retrieval_count
        FROM run_tracker.retrievals t
        WHERE of_run IS NULL OR t.run_id = of_run
        GROUP BY t.run_id
    ), artifact_sums AS (
        SELECT t.run_id, count(*) AS artifact_count
        FROM run_tracker.artifacts t
        WHERE of_run IS NULL OR t.run_id = of_run
        GROUP BY t.run_id
    )
    SELECT run_id, v.total, COALESCE(v.expected, 0), COALESCE(v.actual, 0)
    FROM actual a
         FULL JOIN task_sums t USING (run_id)
         FULL JOIN message_sums m USING (run_id)
         FULL JOIN log_sums l USING (run_id)
         FULL JOIN retrieval_sums e USING (run_id)
         FULL JOIN artifact_sums f USING (run_id)
         CROSS JOIN LATERAL (VALUES
             ('task_count', t.task_count::numeric, a.task_count),
             ('failed_task_count', t.failed_task_count, a.failed_task_count),
             ('open_task_count', t.open_task_count, a.open_task_count),
             ('input_tokens', t.input_tokens, a.input_tokens),
             ('output_tokens', t.output_tokens, a.output_tokens),
             ('total_tokens', t.total_tokens, a.total_tokens),
             ('total_cost', t.total_cost, a.total_cost),
             ('message_count', m.message_count, a.message_count),
             ('error_count', l.error_count, a.error_count),
             ('retrieval_count', e.retrieval_count, a.retrieval_count),
             ('artifact_count', f.artifact_count, a.artifact_count)) AS v (total, expected, actual)
    WHERE COALESCE(v.expected, 0) <> COALESCE(v.actual, 0);
END
$$;
COMMENT ON FUNCTION run_tracker.compare_totals(uuid) IS 'What check_totals() runs: the same with an argument of another name.';

CREATE FUNCTION run_tracker.check_totals(run_id uuid DEFAULT NULL)
RETURNS TABLE (run_id uuid, total text, expected numeric, actual numeric)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$ SELECT * FROM run_tracker.compare_totals($1) $$;
COMMENT ON FUNCTION run_tracker.check_totals(uuid) IS
'The totals that are not what the rows they are made of add up to, of one run or of all that the caller can see: always none, in any snapshot. A row here means that somebody wrote to run_totals, or switched triggers off; see rebuild_totals().';

CREATE FUNCTION run_tracker.rebuild_totals(run_id uuid DEFAULT NULL) RETURNS bigint
LANGUAGE c SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'run_tracker_rebuild_totals';
COMMENT ON FUNCTION run_tracker.rebuild_totals(uuid) IS
'Puts right the totals that check_totals() reports, of one run or of all, and returns the number of runs that were wrong. Writers are not held up. For services (42501), in READ COMMITTED (25001).';

CREATE FUNCTION run_tracker.install_totals() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET client_min_messages = warning
AS $install$
BEGIN
    IF to_regclass('run_tracker.run_totals') IS NULL THEN
        CREATE TABLE run_tracker.run_totals (
            run_id uuid NOT NULL,
            slot integer NOT NULL,
            user_id text NOT NULL,
            task_count bigint NOT NULL,
            failed_task_count bigint NOT NULL,
            open_task_count bigint NOT NULL,
            input_tokens bigint NOT NULL,
            output_tokens bigint NOT NULL,
            total_tokens bigint NOT NULL,
            total_cost numeric NOT NULL,
            message_count bigint NOT NULL,
            error_count bigint NOT NULL,
            retrieval_count bigint NOT NULL,
            artifact_count bigint NOT NULL,
            last_message_at timestamptz,
            last_activity_at timestamptz NOT NULL,
            updated_at timestamptz NOT NULL,
            CONSTRAINT run_totals_pkey PRIMARY KEY (run_id, slot)
        ) WITH (fillfactor = 60, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);
        ALTER TABLE run_tracker.run_totals ENABLE ROW LEVEL SECURITY;
        PERFORM run_tracker.revoke_all('run_tracker.run_totals');

        COMMENT ON TABLE run_tracker.run_totals IS
        'Totals of runs, exact in every snapshot: the sum of the slots of a run. Written by triggers only; run_summary has them summed up.';
        COMMENT ON COLUMN run_tracker.run_totals.run_id IS 'Run.';
        COMMENT ON COLUMN run_tracker.run_totals.slot IS
        '0, and further numbers where several writers met: nobody waits for the row of another.';
        COMMENT ON COLUMN run_tracker.run_totals.user_id IS 'Owner of the run.';
        COMMENT ON COLUMN run_tracker.run_totals.task_count IS 'Tasks that succeeded.';
        COMMENT ON COLUMN run_tracker.run_totals.failed_task_count IS 'Tasks that failed or timed out.';
        COMMENT ON COLUMN run_tracker.run_totals.open_task_count IS 'Tasks that are not finished.';
        COMMENT ON COLUMN run_tracker.run_totals.input_tokens IS 'Input tokens of finished tasks, whatever their outcome.';
        COMMENT ON COLUMN run_tracker.run_totals.output_tokens IS 'Output tokens of finished tasks.';
        COMMENT ON COLUMN run_tracker.run_totals.total_tokens IS 'Total tokens of finished tasks.';
        COMMENT ON COLUMN run_tracker.run_totals.total_cost IS 'Cost of finished tasks: a failed call costs money, too.';
        COMMENT ON COLUMN run_tracker.run_totals.message_count IS 'Messages.';
        COMMENT ON COLUMN run_tracker.run_totals.error_count IS 'Log lines of level ERROR or CRITICAL.';
        COMMENT ON COLUMN run_tracker.run_totals.retrieval_count IS 'Retrievals.';
        COMMENT ON COLUMN run_tracker.run_totals.artifact_count IS 'Artifacts.';
        COMMENT ON COLUMN run_tracker.run_totals.last_message_at IS
        'When the last message was added, or the last task responded; does not go back.';
        COMMENT ON COLUMN run_tracker.run_totals.last_activity_at IS 'When the slot was last written to.';
        COMMENT ON COLUMN run_tracker.run_totals.updated_at IS 'When the slot was last written to.';
    END IF;
    PERFORM run_tracker.install_policy('run_tracker.run_totals');
END
$install$;
COMMENT ON FUNCTION run_tracker.install_totals() IS 'Internal: the part of install() for totals.';
