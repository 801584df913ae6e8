-- Runs.

CREATE FUNCTION run_tracker.runs_before() RETURNS trigger
LANGUAGE c
AS 'MODULE_PATHNAME', 'run_tracker_runs_before';
COMMENT ON FUNCTION run_tracker.runs_before() IS
'Trigger of run_tracker.runs: checks every change of status against the lifecycle (RT001, RT002) and computes phase, attempt, timestamps and durations.';

CREATE FUNCTION run_tracker.runs_after() RETURNS trigger
LANGUAGE c
AS 'MODULE_PATHNAME', 'run_tracker_runs_after';
COMMENT ON FUNCTION run_tracker.runs_after() IS
'Trigger of run_tracker.runs: keeps totals, open set and history, and ends the open tasks of runs that end.';

CREATE FUNCTION run_tracker.create_run(
    run_id uuid DEFAULT NULL, kind text DEFAULT NULL, name text DEFAULT NULL, lifecycle text DEFAULT NULL,
    inputs jsonb DEFAULT NULL, settings jsonb DEFAULT NULL, variables jsonb DEFAULT NULL, plan jsonb DEFAULT NULL,
    metadata jsonb DEFAULT NULL, user_id text DEFAULT NULL, workflow_id text DEFAULT NULL,
    session_id text DEFAULT NULL, subject_id text DEFAULT NULL, parent_run_id uuid DEFAULT NULL,
    priority integer DEFAULT NULL, scheduled_at timestamptz DEFAULT NULL, max_attempts integer DEFAULT NULL,
    timeout interval DEFAULT NULL, max_duration interval DEFAULT NULL,
    retry_base interval DEFAULT NULL, retry_cap interval DEFAULT NULL)
RETURNS uuid
LANGUAGE c SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'run_tracker_create_run';
COMMENT ON FUNCTION run_tracker.create_run(uuid, text, text, text, jsonb, jsonb, jsonb, jsonb, jsonb, text, text, text,
    text, uuid, integer, timestamptz, integer, interval, interval, interval, interval) IS
'Creates a run in the initial status of its lifecycle (default "run") and returns its id. With the id of a run that is the caller''s own, returns it and changes nothing, so that a request can be repeated; 23505 if it is somebody else''s. Arguments are the columns of run_tracker.runs.';

CREATE FUNCTION run_tracker.start_run(run_id uuid, worker text DEFAULT NULL, attempt integer DEFAULT NULL)
RETURNS boolean
LANGUAGE c SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'run_tracker_start_run';
COMMENT ON FUNCTION run_tracker.start_run(uuid, text, integer) IS
'Moves a run to the first active status that may follow. True if it was moved, false if it is active already. RT001 if it cannot, RT003 if attempt is given and not the current one, P0002 if there is no such run.';

CREATE FUNCTION run_tracker.complete_run(run_id uuid, result jsonb DEFAULT NULL, reflections jsonb DEFAULT NULL,
    metrics jsonb DEFAULT NULL, attempt integer DEFAULT NULL)
RETURNS boolean
LANGUAGE c SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'run_tracker_complete_run';
COMMENT ON FUNCTION run_tracker.complete_run(uuid, jsonb, jsonb, jsonb, integer) IS
'Ends a run as succeeded; arguments that are null keep what is there. Open tasks are cancelled. True if it was moved, false if it has succeeded already. RT001, RT003, P0002 as start_run().';

CREATE FUNCTION run_tracker.fail_run(run_id uuid, error text DEFAULT NULL, error_detail text DEFAULT NULL,
    attempt integer DEFAULT NULL, retry boolean DEFAULT false)
RETURNS boolean
LANGUAGE c SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'run_tracker_fail_run';
COMMENT ON FUNCTION run_tracker.fail_run(uuid, text, text, integer, boolean) IS
'Ends a run as failed, with an error and, for instance, a stack trace as its detail. Open tasks are cancelled. With retry, and as long as attempt is below max_attempts, it goes on to the queue at once, to be claimed again after a delay that doubles with each attempt (retry_base, retry_cap); why it failed is in the history. True if it was moved, false if it has failed already. RT001, RT003, P0002 as start_run().';

CREATE FUNCTION run_tracker.cancel_run(run_id uuid, reason text DEFAULT NULL, attempt integer DEFAULT NULL)
RETURNS boolean
LANGUAGE c SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'run_tracker_cancel_run';
COMMENT ON FUNCTION run_tracker.cancel_run(uuid, text, integer) IS
'Ends a run as cancelled; the reason is kept as its error. Open tasks are cancelled. True if it was moved, false if it is cancelled already. RT001, RT003, P0002 as start_run().';

CREATE FUNCTION run_tracker.retry_run(run_id uuid, delay interval DEFAULT NULL, attempt integer DEFAULT NULL)
RETURNS boolean
LANGUAGE c SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'run_tracker_retry_run';
COMMENT ON FUNCTION run_tracker.retry_run(uuid, interval, integer) IS
'Takes a finished run back to its first queued (else active) status under the same id: attempt + 1, result and error cleared, history kept; delay sets scheduled_at. True if it was moved, false if it is queued already. RT001, RT003, P0002 as start_run(), 22023 for a negative delay.';

CREATE FUNCTION run_tracker.transition_run(run_id uuid, status text, result jsonb DEFAULT NULL,
    error text DEFAULT NULL, error_detail text DEFAULT NULL, attempt integer DEFAULT NULL)
RETURNS boolean
LANGUAGE c SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'run_tracker_transition_run';
COMMENT ON FUNCTION run_tracker.transition_run(uuid, text, jsonb, text, text, integer) IS
'Moves a run to a status of its lifecycle. True if it was moved, false if it has that status already. RT001 if the lifecycle does not allow it, RT002 for an unknown status, RT003, P0002 as start_run().';

CREATE FUNCTION run_tracker.update_progress(run_id uuid, progress integer DEFAULT NULL,
    current_step text DEFAULT NULL, attempt integer DEFAULT NULL)
RETURNS boolean
LANGUAGE c SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'run_tracker_update_progress';
COMMENT ON FUNCTION run_tracker.update_progress(uuid, integer, text, integer) IS
'Notes the progress of an open run in percent (0 to 100, else 22023) and its current step; null keeps what is there. True if anything changed. 55000 if the run is finished, RT003, P0002 as start_run().';

CREATE FUNCTION run_tracker.install_runs() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET client_min_messages = warning
AS $install$
BEGIN
    IF to_regclass('run_tracker.runs') IS NULL THEN
        CREATE TABLE run_tracker.runs (
            run_id uuid NOT NULL,
            user_id text NOT NULL,
            lifecycle text NOT NULL,
            status text NOT NULL,
            phase text NOT NULL,
            kind text,
            name text,
            workflow_id text,
            session_id text,
            subject_id text,
            parent_run_id uuid,
            priority integer NOT NULL,
            scheduled_at timestamptz,
            inputs jsonb,
            settings jsonb,
            variables jsonb,
            plan jsonb,
            result jsonb,
            reflections jsonb,
            metrics jsonb,
            metadata jsonb,
            progress smallint,
            current_step text,
            error text,
            error_detail text,
            attempt integer NOT NULL,
            max_attempts integer NOT NULL,
            timeout interval,
            max_duration interval,
            retry_base interval,
            retry_cap interval,
            worker text,
            created_at timestamptz NOT NULL,
            started_at timestamptz,
            finished_at timestamptz,
            updated_at timestamptz NOT NULL,
            duration_ms bigint,
            CONSTRAINT runs_pkey PRIMARY KEY (run_id),
            CONSTRAINT runs_run_id_user_id_key UNIQUE (run_id, user_id),
            CONSTRAINT runs_phase_check CHECK (phase IN
                ('queued', 'active', 'waiting', 'succeeded', 'failed', 'cancelled', 'timed_out')),
            CONSTRAINT runs_progress_check CHECK (progress BETWEEN 0 AND 100)
        ) WITH (fillfactor = 85);
        -- no index on a column that changes while a run is open: its updates stay HOT
        CREATE INDEX runs_created_at_idx ON run_tracker.runs (created_at DESC, run_id DESC);
        CREATE INDEX runs_user_id_created_at_idx ON run_tracker.runs (user_id, created_at DESC, run_id DESC);
        CREATE INDEX runs_workflow_id_idx ON run_tracker.runs (workflow_id, created_at DESC)
            WHERE workflow_id IS NOT NULL;
        CREATE INDEX runs_session_id_idx ON run_tracker.runs (session_id, created_at DESC)
            WHERE session_id IS NOT NULL;
        CREATE INDEX runs_subject_id_idx ON run_tracker.runs (subject_id, created_at DESC)
            WHERE subject_id IS NOT NULL;
        CREATE INDEX runs_parent_run_id_idx ON run_tracker.runs (parent_run_id) WHERE parent_run_id IS NOT NULL;
        ALTER TABLE run_tracker.runs ENABLE ROW LEVEL SECURITY;
        PERFORM run_tracker.revoke_all('run_tracker.runs');

        COMMENT ON TABLE run_tracker.runs IS
        'One row per run of AI work: its owner, status, inputs and result. The lifecycle is enforced for every client.';
        COMMENT ON COLUMN run_tracker.runs.run_id IS 'Id, a UUID of version 7 unless the client supplies one.';
        COMMENT ON COLUMN run_tracker.runs.user_id IS
        'Subject of the identity provider; the empty string is nobody, visible to services only. Never changes.';
        COMMENT ON COLUMN run_tracker.runs.lifecycle IS 'Name of the state machine (run_tracker.lifecycles). Never changes.';
        COMMENT ON COLUMN run_tracker.runs.status IS 'Where the run is, in the words of its lifecycle.';
        COMMENT ON COLUMN run_tracker.runs.phase IS
        'What the status means: queued, active, waiting, succeeded, failed, cancelled or timed_out. Computed.';
        COMMENT ON COLUMN run_tracker.runs.kind IS 'Grouping word of the application: intent, platform, ...';
        COMMENT ON COLUMN run_tracker.runs.name IS
        'Title; made from the first message of the user if there is none.';
        COMMENT ON COLUMN run_tracker.runs.workflow_id IS 'Workflow that the run executes.';
        COMMENT ON COLUMN run_tracker.runs.session_id IS 'Session of the application that the run belongs to.';
        COMMENT ON COLUMN run_tracker.runs.subject_id IS 'Row of the application that the run is about.';
        COMMENT ON COLUMN run_tracker.runs.parent_run_id IS 'Run that caused this one; not checked.';
        COMMENT ON COLUMN run_tracker.runs.priority IS 'Higher is claimed first. Default 0.';
        COMMENT ON COLUMN run_tracker.runs.scheduled_at IS 'Not to be claimed before.';
        COMMENT ON COLUMN run_tracker.runs.inputs IS 'What the run was asked to work on.';
        COMMENT ON COLUMN run_tracker.runs.settings IS 'Settings, a JSON object.';
        COMMENT ON COLUMN run_tracker.runs.variables IS 'Values of variables, a JSON object.';
        COMMENT ON COLUMN run_tracker.runs.plan IS 'Plan that the run follows.';
        COMMENT ON COLUMN run_tracker.runs.result IS 'Outcome. Cleared by a retry.';
        COMMENT ON COLUMN run_tracker.runs.reflections IS 'What the run thought of its outcome. Cleared by a retry.';
        COMMENT ON COLUMN run_tracker.runs.metrics IS 'Measurements of the application, a JSON object.';
        COMMENT ON COLUMN run_tracker.runs.metadata IS 'Anything else, a JSON object.';
        COMMENT ON COLUMN run_tracker.runs.progress IS 'Percent, 0 to 100. Cleared by a retry.';
        COMMENT ON COLUMN run_tracker.runs.current_step IS 'Step that the run is at. Cleared by a retry.';
        COMMENT ON COLUMN run_tracker.runs.error IS 'Why the run ended, if it did not succeed. Cleared by a retry.';
        COMMENT ON COLUMN run_tracker.runs.error_detail IS 'For instance a stack trace. Cleared by a retry.';
        COMMENT ON COLUMN run_tracker.runs.attempt IS '1, and one more with each retry; fences writers of earlier ones. Computed.';
        COMMENT ON COLUMN run_tracker.runs.max_attempts IS 'Attempts after which an expired claim is not tried again. Default: that of the lifecycle, else 1.';
        COMMENT ON COLUMN run_tracker.runs.timeout IS
        'Time without activity after which the run times out, instead of that of its lifecycle.';
        COMMENT ON COLUMN run_tracker.runs.max_duration IS 'Time after its start at which the run times out in any case.';
        COMMENT ON COLUMN run_tracker.runs.retry_base IS
        'Delay before the first automatic retry, doubled for each further one, instead of that of the lifecycle (else 1 second).';
        COMMENT ON COLUMN run_tracker.runs.retry_cap IS
        'Longest delay before an automatic retry, instead of that of the lifecycle (else 5 minutes).';
        COMMENT ON COLUMN run_tracker.runs.worker IS 'Who works on the run. Cleared by a retry.';
        COMMENT ON COLUMN run_tracker.runs.created_at IS 'When the run was created (wall clock). Computed.';
        COMMENT ON COLUMN run_tracker.runs.started_at IS 'When the current attempt became active. Computed.';
        COMMENT ON COLUMN run_tracker.runs.finished_at IS 'When the run finished. Computed.';
        COMMENT ON COLUMN run_tracker.runs.updated_at IS 'When the row was last changed. Computed.';
        COMMENT ON COLUMN run_tracker.runs.duration_ms IS
        'Milliseconds from started_at (else created_at) to finished_at. Computed.';
    END IF;

    ALTER TABLE run_tracker.runs ALTER COLUMN run_id SET DEFAULT run_tracker.uuidv7();
    PERFORM run_tracker.install_triggers('run_tracker.runs');
    CREATE OR REPLACE TRIGGER run_tracker_before_truncate BEFORE TRUNCATE ON run_tracker.runs
        FOR EACH STATEMENT EXECUTE FUNCTION run_tracker.before_truncate();
    PERFORM run_tracker.install_policy('run_tracker.runs');
END
$install$;
COMMENT ON FUNCTION run_tracker.install_runs() IS 'Internal: the part of install() for runs.';
