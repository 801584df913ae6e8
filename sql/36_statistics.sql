-- Sums over many runs.

CREATE FUNCTION run_tracker.install_statistics() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET client_min_messages = warning
AS $install$
BEGIN
    -- names are compared byte by byte, so that indexes do not depend on the collations of a system
    IF to_regclass('run_tracker.stat_deltas') IS NULL THEN
        CREATE TABLE run_tracker.stat_deltas (
            source text COLLATE "C" NOT NULL,
            user_id text COLLATE "C" NOT NULL,
            period_at timestamptz NOT NULL,
            kind text COLLATE "C" NOT NULL,
            workflow_id text COLLATE "C" NOT NULL,
            mode text COLLATE "C" NOT NULL,
            provider text COLLATE "C" NOT NULL,
            model text COLLATE "C" NOT NULL,
            operation text COLLATE "C" NOT NULL,
            phase text COLLATE "C" NOT NULL,
            created_count bigint NOT NULL,
            finished_count bigint NOT NULL,
            input_tokens bigint NOT NULL,
            output_tokens bigint NOT NULL,
            total_tokens bigint NOT NULL,
            cost numeric NOT NULL,
            duration_ms bigint NOT NULL,
            durations bigint[],
            first_token_ms bigint NOT NULL,
            first_tokens bigint[]
        ) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);
        -- no key, no index: a row is appended and taken away again; logical replication needs to find it all the same
        ALTER TABLE run_tracker.stat_deltas REPLICA IDENTITY FULL;
        ALTER TABLE run_tracker.stat_deltas ENABLE ROW LEVEL SECURITY;
        PERFORM run_tracker.revoke_all('run_tracker.stat_deltas');

        COMMENT ON TABLE run_tracker.stat_deltas IS
        'What is to be added to statistics, not folded into stat_totals yet. Written by triggers only; whoever reads statistics adds both.';
        COMMENT ON COLUMN run_tracker.stat_deltas.source IS 'run or task: what was created or finished.';
        COMMENT ON COLUMN run_tracker.stat_deltas.user_id IS 'Owner.';
        COMMENT ON COLUMN run_tracker.stat_deltas.period_at IS 'Hour (UTC) in which it was created or finished.';
        COMMENT ON COLUMN run_tracker.stat_deltas.kind IS 'Kind of the run; empty if none. Names are cut off after 200 bytes here.';
        COMMENT ON COLUMN run_tracker.stat_deltas.workflow_id IS 'Workflow of the run; empty if none.';
        COMMENT ON COLUMN run_tracker.stat_deltas.mode IS 'settings ->> ''mode'' of the run; empty if none, and for tasks.';
        COMMENT ON COLUMN run_tracker.stat_deltas.provider IS 'Provider of the task; empty if none, and for runs.';
        COMMENT ON COLUMN run_tracker.stat_deltas.model IS 'Model that the task asked for, else that which answered; empty if none, and for runs.';
        COMMENT ON COLUMN run_tracker.stat_deltas.operation IS 'Operation of the task; empty if none, and for runs.';
        COMMENT ON COLUMN run_tracker.stat_deltas.phase IS
        'Finished phase; "retried" for what had finished and was then retried; empty for what was created.';
        COMMENT ON COLUMN run_tracker.stat_deltas.created_count IS 'Runs that were created.';
        COMMENT ON COLUMN run_tracker.stat_deltas.finished_count IS 'Runs or tasks that finished.';
        COMMENT ON COLUMN run_tracker.stat_deltas.input_tokens IS 'Input tokens of tasks.';
        COMMENT ON COLUMN run_tracker.stat_deltas.output_tokens IS 'Output tokens of tasks.';
        COMMENT ON COLUMN run_tracker.stat_deltas.total_tokens IS 'Total tokens of tasks.';
        COMMENT ON COLUMN run_tracker.stat_deltas.cost IS 'Cost of tasks.';
        COMMENT ON COLUMN run_tracker.stat_deltas.duration_ms IS 'Sum of the durations of what finished, in milliseconds.';
        COMMENT ON COLUMN run_tracker.stat_deltas.durations IS
        'Histogram of them: bucket, count, bucket, count, …; see histogram_quantile().';
        COMMENT ON COLUMN run_tracker.stat_deltas.first_token_ms IS 'Sum of the times to the first token, in milliseconds.';
        COMMENT ON COLUMN run_tracker.stat_deltas.first_tokens IS 'Histogram of them.';
    END IF;
    PERFORM run_tracker.install_policy('run_tracker.stat_deltas');

    IF to_regclass('run_tracker.stat_totals') IS NULL THEN
        CREATE TABLE run_tracker.stat_totals (
            grain text COLLATE "C" NOT NULL,
            period text COLLATE "C" NOT NULL,
            all_users boolean NOT NULL,
            user_id text COLLATE "C" NOT NULL,
            period_at timestamptz NOT NULL,
            kind text COLLATE "C" NOT NULL,
            workflow_id text COLLATE "C" NOT NULL,
            mode text COLLATE "C" NOT NULL,
            provider text COLLATE "C" NOT NULL,
            model text COLLATE "C" NOT NULL,
            operation text COLLATE "C" NOT NULL,
            phase text COLLATE "C" NOT NULL,
            created_count bigint NOT NULL,
            finished_count bigint NOT NULL,
            task_count bigint NOT NULL,
            failed_task_count bigint NOT NULL,
            input_tokens bigint NOT NULL,
            output_tokens bigint NOT NULL,
            total_tokens bigint NOT NULL,
            cost numeric NOT NULL,
            duration_ms bigint NOT NULL,
            durations bigint[],
            first_token_ms bigint NOT NULL,
            first_tokens bigint[],
            CONSTRAINT stat_totals_pkey PRIMARY KEY (grain, period, all_users, user_id, period_at, kind, workflow_id,
                mode, provider, model, operation, phase)
        ) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0);
        ALTER TABLE run_tracker.stat_totals ENABLE ROW LEVEL SECURITY;
        PERFORM run_tracker.revoke_all('run_tracker.stat_totals');

        COMMENT ON TABLE run_tracker.stat_totals IS
        'Statistics of what has finished, summed up in several ways; they outlive the runs. Written by the worker, or fold_statistics().';
        COMMENT ON COLUMN run_tracker.stat_totals.grain IS
        'What the row sums up: kind (runs by kind, mode and phase), workflow (by workflow, mode and phase), model (tasks by provider, model, operation and phase).';
        COMMENT ON COLUMN run_tracker.stat_totals.period IS 'all, day or hour (UTC); of workflows only all.';
        COMMENT ON COLUMN run_tracker.stat_totals.all_users IS 'True: the sum over all users, for services.';
        COMMENT ON COLUMN run_tracker.stat_totals.user_id IS 'Owner; empty for the sum over all users, and for nobody.';
        COMMENT ON COLUMN run_tracker.stat_totals.period_at IS 'Beginning of the day or hour; -infinity for all.';
        COMMENT ON COLUMN run_tracker.stat_totals.kind IS 'Kind of the run; empty if none.';
        COMMENT ON COLUMN run_tracker.stat_totals.workflow_id IS 'Workflow of the run; empty if none.';
        COMMENT ON COLUMN run_tracker.stat_totals.mode IS 'settings ->> ''mode'' of the run; empty if none.';
        COMMENT ON COLUMN run_tracker.stat_totals.provider IS 'Provider of the task; empty if none.';
        COMMENT ON COLUMN run_tracker.stat_totals.model IS 'Model; empty if none.';
        COMMENT ON COLUMN run_tracker.stat_totals.operation IS 'Operation of the task; empty if none.';
        COMMENT ON COLUMN run_tracker.stat_totals.phase IS
        'Finished phase; "retried" for what had finished and was then retried; empty for runs that were created and, of kinds and workflows, for all that is about tasks.';
        COMMENT ON COLUMN run_tracker.stat_totals.created_count IS 'Runs that were created.';
        COMMENT ON COLUMN run_tracker.stat_totals.finished_count IS 'Runs that finished; of models: tasks that finished.';
        COMMENT ON COLUMN run_tracker.stat_totals.task_count IS 'Of kinds and workflows: tasks that succeeded.';
        COMMENT ON COLUMN run_tracker.stat_totals.failed_task_count IS 'Of kinds and workflows: tasks that failed or timed out.';
        COMMENT ON COLUMN run_tracker.stat_totals.input_tokens IS 'Input tokens of tasks.';
        COMMENT ON COLUMN run_tracker.stat_totals.output_tokens IS 'Output tokens of tasks.';
        COMMENT ON COLUMN run_tracker.stat_totals.total_tokens IS 'Total tokens of tasks.';
        COMMENT ON COLUMN run_tracker.stat_totals.cost IS 'Cost of tasks.';
        COMMENT ON COLUMN run_tracker.stat_totals.duration_ms IS
        'Sum of the durations of what finished, in milliseconds; of models, those of tasks.';
        COMMENT ON COLUMN run_tracker.stat_totals.durations IS
        'Histogram of them: bucket, count, bucket, count, …; see histogram_quantile().';
        COMMENT ON COLUMN run_tracker.stat_totals.first_token_ms IS
        'Of models: sum of the times to the first token, in milliseconds.';
        COMMENT ON COLUMN run_tracker.stat_totals.first_tokens IS 'Of models: histogram of them.';
    END IF;
    PERFORM run_tracker.install_policy('run_tracker.stat_totals');
END
$install$;
COMMENT ON FUNCTION run_tracker.install_statistics() IS 'Internal: the part of install() for statistics.';
