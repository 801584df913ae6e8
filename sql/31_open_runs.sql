-- The open set.

CREATE FUNCTION run_tracker.rebuild_open_runs() RETURNS bigint
LANGUAGE c SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'run_tracker_rebuild_open_runs';
COMMENT ON FUNCTION run_tracker.rebuild_open_runs() IS
'Internal: makes open_runs what runs says, after triggers were gone, and returns the number of rows put right.';

CREATE FUNCTION run_tracker.install_open_runs() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET client_min_messages = warning
AS $install$
BEGIN
    IF to_regclass('run_tracker.open_runs') IS NULL THEN
        CREATE TABLE run_tracker.open_runs (
            run_id uuid NOT NULL,
            user_id text NOT NULL,
            lifecycle text NOT NULL,
            kind text,
            phase text NOT NULL,
            priority integer NOT NULL,
            available_at timestamptz NOT NULL,
            deadline_at timestamptz,
            last_activity_at timestamptz NOT NULL,
            worker text,
            attempt integer NOT NULL,
            CONSTRAINT open_runs_pkey PRIMARY KEY (run_id)
        ) WITH (fillfactor = 60, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_cost_delay = 0,
                autovacuum_analyze_scale_factor = 0.02);
        ALTER TABLE run_tracker.open_runs ENABLE ROW LEVEL SECURITY;
        PERFORM run_tracker.revoke_all('run_tracker.open_runs');

        COMMENT ON TABLE run_tracker.open_runs IS
        'The runs that are not finished: what workers claim from. Derived from runs; written by triggers only.';
        COMMENT ON COLUMN run_tracker.open_runs.run_id IS 'Run.';
        COMMENT ON COLUMN run_tracker.open_runs.user_id IS 'Owner of the run.';
        COMMENT ON COLUMN run_tracker.open_runs.lifecycle IS 'Lifecycle of the run.';
        COMMENT ON COLUMN run_tracker.open_runs.kind IS 'Kind of the run.';
        COMMENT ON COLUMN run_tracker.open_runs.phase IS 'queued, active or waiting.';
        COMMENT ON COLUMN run_tracker.open_runs.priority IS 'Higher is claimed first.';
        COMMENT ON COLUMN run_tracker.open_runs.available_at IS 'Not to be claimed before.';
        COMMENT ON COLUMN run_tracker.open_runs.deadline_at IS
        'When the run times out if nothing happens; null if never. Activity after it was set is in last_activity_at.';
        COMMENT ON COLUMN run_tracker.open_runs.last_activity_at IS
        'Last activity of the run, noted a few times per timeout.';
        COMMENT ON COLUMN run_tracker.open_runs.worker IS 'Who works on the run.';
        COMMENT ON COLUMN run_tracker.open_runs.attempt IS 'Attempt that the run is at.';
    END IF;
    -- last_activity_at is in no index: a mark of activity is a HOT update; workers find these by name
    CREATE INDEX IF NOT EXISTS open_runs_deadline_at_idx ON run_tracker.open_runs (deadline_at)
        WHERE deadline_at IS NOT NULL;
    CREATE INDEX IF NOT EXISTS open_runs_queue_idx ON run_tracker.open_runs
        (lifecycle, priority DESC, available_at, run_id) WHERE phase = 'queued';
    CREATE INDEX IF NOT EXISTS open_runs_kind_queue_idx ON run_tracker.open_runs
        (lifecycle, kind, priority DESC, available_at, run_id) WHERE phase = 'queued' AND kind IS NOT NULL;
    -- for those who look at what is under way, however many are queued
    CREATE INDEX IF NOT EXISTS open_runs_active_idx ON run_tracker.open_runs (user_id)
        WHERE phase IN ('active', 'waiting');
    PERFORM run_tracker.install_policy('run_tracker.open_runs');
END
$install$;
COMMENT ON FUNCTION run_tracker.install_open_runs() IS 'Internal: the part of install() for open_runs.';
