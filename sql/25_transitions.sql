-- The history of status changes.

CREATE FUNCTION run_tracker.install_transitions() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET client_min_messages = warning
AS $install$
BEGIN
    IF to_regclass('run_tracker.transitions') IS NULL THEN
        CREATE TABLE run_tracker.transitions (
            run_id uuid NOT NULL,
            seq bigint NOT NULL,
            user_id text NOT NULL,
            task_id uuid,
            from_status text NOT NULL,
            to_status text NOT NULL,
            attempt integer NOT NULL,
            actor text,
            reason text,
            state_ms bigint NOT NULL,
            occurred_at timestamptz NOT NULL,
            CONSTRAINT transitions_pkey PRIMARY KEY (run_id, seq)
        );
        ALTER TABLE run_tracker.transitions ENABLE ROW LEVEL SECURITY;
        PERFORM run_tracker.revoke_all('run_tracker.transitions');

        COMMENT ON TABLE run_tracker.transitions IS
        'Every change of status of every run, and of tasks if run_tracker.task_transitions is on. Written by triggers only.';
        COMMENT ON COLUMN run_tracker.transitions.run_id IS 'Run.';
        COMMENT ON COLUMN run_tracker.transitions.seq IS 'Number within the run, ascending.';
        COMMENT ON COLUMN run_tracker.transitions.user_id IS 'Owner of the run.';
        COMMENT ON COLUMN run_tracker.transitions.task_id IS 'Task, or null for the run itself.';
        COMMENT ON COLUMN run_tracker.transitions.from_status IS 'Status before.';
        COMMENT ON COLUMN run_tracker.transitions.to_status IS 'Status after.';
        COMMENT ON COLUMN run_tracker.transitions.attempt IS 'Attempt after.';
        COMMENT ON COLUMN run_tracker.transitions.actor IS 'User, or else role, that made the change.';
        COMMENT ON COLUMN run_tracker.transitions.reason IS 'Error with which the run or task ended.';
        COMMENT ON COLUMN run_tracker.transitions.state_ms IS 'Milliseconds spent in the status before.';
        COMMENT ON COLUMN run_tracker.transitions.occurred_at IS 'When it happened (wall clock).';
    END IF;
    PERFORM run_tracker.install_policy('run_tracker.transitions');
END
$install$;
COMMENT ON FUNCTION run_tracker.install_transitions() IS 'Internal: the part of install() for transitions.';
