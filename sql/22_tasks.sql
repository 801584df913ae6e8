-- Tasks: the model calls and other steps of a run.

CREATE FUNCTION run_tracker.tasks_before() RETURNS trigger
LANGUAGE c
AS 'MODULE_PATHNAME', 'run_tracker_tasks_before';
COMMENT ON FUNCTION run_tracker.tasks_before() IS
'Trigger of run_tracker.tasks: checks every change of status against the lifecycle (RT001, RT002), tokens and cost (23514), and computes phase, attempt, timestamps and durations.';

CREATE FUNCTION run_tracker.tasks_after() RETURNS trigger
LANGUAGE c
AS 'MODULE_PATHNAME', 'run_tracker_tasks_after';
COMMENT ON FUNCTION run_tracker.tasks_after() IS
'Trigger of run_tracker.tasks: folds what a statement changed into the totals of the runs, and refuses open tasks in finished runs (55000).';

CREATE FUNCTION run_tracker.create_task(
    run_id uuid, task_id uuid DEFAULT NULL, name text DEFAULT NULL, service text DEFAULT NULL,
    operation text DEFAULT NULL, provider text DEFAULT NULL, model text DEFAULT NULL, request jsonb DEFAULT NULL,
    parent_task_id uuid DEFAULT NULL, lifecycle text DEFAULT NULL, metadata jsonb DEFAULT NULL,
    reservation_id uuid DEFAULT NULL)
RETURNS uuid
LANGUAGE c SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'run_tracker_create_task';
COMMENT ON FUNCTION run_tracker.create_task(uuid, uuid, text, text, text, text, text, jsonb, uuid, text, jsonb, uuid) IS
'Creates a task of a run and returns its id. Arguments are the columns of run_tracker.tasks; operation, provider and model are OpenTelemetry''s gen_ai.operation.name, gen_ai.provider.name and gen_ai.request.model. A reservation (reserve_usage()) is settled when the task finishes, however it does. P0002 if there is no such run, 23503 no such reservation of the user''s, 23505 if the task id is taken, 55000 if the run is finished.';

CREATE FUNCTION run_tracker.start_task(task_id uuid, status text DEFAULT NULL, attempt integer DEFAULT NULL)
RETURNS boolean
LANGUAGE c SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'run_tracker_start_task';
COMMENT ON FUNCTION run_tracker.start_task(uuid, text, integer) IS
'Moves a task to the first active status that may follow, or to the one given, such as streaming. True if it was moved, false if it is there already. RT001 if it cannot, RT002 for an unknown status, RT003 if attempt is given and not the current one, P0002 if there is no such task.';

CREATE FUNCTION run_tracker.complete_task(
    task_id uuid, response text DEFAULT NULL, input_tokens bigint DEFAULT NULL, output_tokens bigint DEFAULT NULL,
    cost numeric DEFAULT NULL, time_to_first_token_ms bigint DEFAULT NULL, result jsonb DEFAULT NULL,
    total_tokens bigint DEFAULT NULL, cache_read_input_tokens bigint DEFAULT NULL,
    cache_creation_input_tokens bigint DEFAULT NULL, reasoning_output_tokens bigint DEFAULT NULL,
    response_model text DEFAULT NULL, finish_reason text DEFAULT NULL, response_id text DEFAULT NULL,
    cost_source text DEFAULT NULL, attempt integer DEFAULT NULL)
RETURNS boolean
LANGUAGE c SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'run_tracker_complete_task';
COMMENT ON FUNCTION run_tracker.complete_task(uuid, text, bigint, bigint, numeric, bigint, jsonb, bigint, bigint,
    bigint, bigint, text, text, text, text, integer) IS
'Ends a task as succeeded, with its response, tokens (OpenTelemetry gen_ai.usage.*: input includes cached, output includes reasoning), cost and time to the first token in ms; arguments that are null keep what is there. True if it was moved, false if it has succeeded already. RT001, RT003, P0002 as start_task(), 23514 for impossible numbers.';

CREATE FUNCTION run_tracker.fail_task(task_id uuid, error text DEFAULT NULL, error_detail text DEFAULT NULL,
    input_tokens bigint DEFAULT NULL, output_tokens bigint DEFAULT NULL, cost numeric DEFAULT NULL,
    attempt integer DEFAULT NULL)
RETURNS boolean
LANGUAGE c SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'run_tracker_fail_task';
COMMENT ON FUNCTION run_tracker.fail_task(uuid, text, text, bigint, bigint, numeric, integer) IS
'Ends a task as failed; what a failed call cost counts, too. True if it was moved, false if it has failed already. RT001, RT003, P0002 as start_task(), 23514 for impossible numbers.';

CREATE FUNCTION run_tracker.cancel_task(task_id uuid, reason text DEFAULT NULL, attempt integer DEFAULT NULL)
RETURNS boolean
LANGUAGE c SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'run_tracker_cancel_task';
COMMENT ON FUNCTION run_tracker.cancel_task(uuid, text, integer) IS
'Ends a task as cancelled; the reason is kept as its error. True if it was moved, false if it is cancelled already. RT001, RT003, P0002 as start_task().';

CREATE FUNCTION run_tracker.install_tasks() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET client_min_messages = warning
AS $install$
BEGIN
    IF to_regclass('run_tracker.tasks') IS NULL THEN
        CREATE TABLE run_tracker.tasks (
            run_id uuid NOT NULL,
            task_id uuid NOT NULL,
            user_id text NOT NULL,
            parent_task_id uuid,
            lifecycle text NOT NULL,
            status text NOT NULL,
            phase text NOT NULL,
            service text,
            name text,
            operation text,
            provider text,
            model text,
            response_model text,
            request jsonb,
            response text,
            result jsonb,
            input_tokens bigint,
            output_tokens bigint,
            total_tokens bigint,
            cache_read_input_tokens bigint,
            cache_creation_input_tokens bigint,
            reasoning_output_tokens bigint,
            cost numeric,
            cost_source text,
            finish_reason text,
            response_id text,
            error text,
            error_detail text,
            attempt integer NOT NULL,
            time_to_first_token_ms bigint,
            duration_ms bigint,
            created_at timestamptz NOT NULL,
            started_at timestamptz,
            finished_at timestamptz,
            updated_at timestamptz NOT NULL,
            usage_at timestamptz,
            reservation_id uuid,
            metadata jsonb,
            CONSTRAINT tasks_pkey PRIMARY KEY (run_id, task_id),
            CONSTRAINT tasks_task_id_key UNIQUE (task_id),
            CONSTRAINT tasks_run_id_user_id_fkey FOREIGN KEY (run_id, user_id)
                REFERENCES run_tracker.runs (run_id, user_id) ON DELETE CASCADE,
            CONSTRAINT tasks_phase_check CHECK (phase IN
                ('queued', 'active', 'waiting', 'succeeded', 'failed', 'cancelled', 'timed_out')),
            -- LEAST ignores nulls; the fewer nodes, the less every statement spends on reading the constraint
            CONSTRAINT tasks_tokens_check CHECK (LEAST(input_tokens, output_tokens, total_tokens,
                cache_read_input_tokens, cache_creation_input_tokens, reasoning_output_tokens,
                time_to_first_token_ms) >= 0),
            CONSTRAINT tasks_subset_tokens_check CHECK (
                COALESCE(cache_read_input_tokens, 0) + COALESCE(cache_creation_input_tokens, 0) <= input_tokens
                AND reasoning_output_tokens <= output_tokens),
            -- NaN and infinity are greater than every number
            CONSTRAINT tasks_cost_check CHECK (cost >= 0 AND cost < 'Infinity')
        ) WITH (fillfactor = 85);
        CREATE INDEX tasks_user_id_created_at_idx ON run_tracker.tasks (user_id, created_at DESC);
        ALTER TABLE run_tracker.tasks ENABLE ROW LEVEL SECURITY;
        PERFORM run_tracker.revoke_all('run_tracker.tasks');

        COMMENT ON TABLE run_tracker.tasks IS
        'Model calls and other steps of runs, with tokens and cost. The lifecycle is enforced for every client.';
        COMMENT ON COLUMN run_tracker.tasks.run_id IS 'Run that the task belongs to.';
        COMMENT ON COLUMN run_tracker.tasks.task_id IS 'Id, a UUID of version 7 unless the client supplies one.';
        COMMENT ON COLUMN run_tracker.tasks.user_id IS 'Owner of the run; filled in.';
        COMMENT ON COLUMN run_tracker.tasks.parent_task_id IS 'Task that this one is a part of; not checked.';
        COMMENT ON COLUMN run_tracker.tasks.lifecycle IS 'Name of the state machine. Never changes.';
        COMMENT ON COLUMN run_tracker.tasks.status IS 'Where the task is, in the words of its lifecycle.';
        COMMENT ON COLUMN run_tracker.tasks.phase IS
        'What the status means: queued, active, waiting, succeeded, failed, cancelled or timed_out. Computed.';
        COMMENT ON COLUMN run_tracker.tasks.service IS 'Service that does the work.';
        COMMENT ON COLUMN run_tracker.tasks.name IS 'What the task is called.';
        COMMENT ON COLUMN run_tracker.tasks.operation IS 'OpenTelemetry gen_ai.operation.name, such as chat.';
        COMMENT ON COLUMN run_tracker.tasks.provider IS 'OpenTelemetry gen_ai.provider.name.';
        COMMENT ON COLUMN run_tracker.tasks.model IS 'Model asked for: OpenTelemetry gen_ai.request.model.';
        COMMENT ON COLUMN run_tracker.tasks.response_model IS 'Model that answered: OpenTelemetry gen_ai.response.model.';
        COMMENT ON COLUMN run_tracker.tasks.request IS 'What was sent.';
        COMMENT ON COLUMN run_tracker.tasks.response IS 'Text that came back. Cleared by a retry.';
        COMMENT ON COLUMN run_tracker.tasks.result IS 'Structured outcome. Cleared by a retry.';
        COMMENT ON COLUMN run_tracker.tasks.input_tokens IS 'OpenTelemetry gen_ai.usage.input_tokens; includes cached ones.';
        COMMENT ON COLUMN run_tracker.tasks.output_tokens IS
        'OpenTelemetry gen_ai.usage.output_tokens; includes reasoning ones.';
        COMMENT ON COLUMN run_tracker.tasks.total_tokens IS 'Input and output tokens, unless the client says otherwise.';
        COMMENT ON COLUMN run_tracker.tasks.cache_read_input_tokens IS
        'Input tokens read from a cache: OpenTelemetry gen_ai.usage.cache_read.input_tokens.';
        COMMENT ON COLUMN run_tracker.tasks.cache_creation_input_tokens IS
        'Input tokens written to a cache: OpenTelemetry gen_ai.usage.cache_creation.input_tokens.';
        COMMENT ON COLUMN run_tracker.tasks.reasoning_output_tokens IS 'Output tokens spent on reasoning.';
        COMMENT ON COLUMN run_tracker.tasks.cost IS 'Money, in the currency of the application; never negative or NaN.';
        COMMENT ON COLUMN run_tracker.tasks.cost_source IS 'Where the cost comes from: provider, price list, ...';
        COMMENT ON COLUMN run_tracker.tasks.finish_reason IS 'OpenTelemetry gen_ai.response.finish_reasons.';
        COMMENT ON COLUMN run_tracker.tasks.response_id IS 'OpenTelemetry gen_ai.response.id.';
        COMMENT ON COLUMN run_tracker.tasks.error IS 'Why the task ended, if it did not succeed. Cleared by a retry.';
        COMMENT ON COLUMN run_tracker.tasks.error_detail IS 'For instance a stack trace. Cleared by a retry.';
        COMMENT ON COLUMN run_tracker.tasks.attempt IS '1, and one more with each retry. Computed.';
        COMMENT ON COLUMN run_tracker.tasks.time_to_first_token_ms IS
        'Milliseconds to the first token; computed when a response appears while the task is active, unless given.';
        COMMENT ON COLUMN run_tracker.tasks.duration_ms IS
        'Milliseconds from started_at (else created_at) to finished_at. Computed.';
        COMMENT ON COLUMN run_tracker.tasks.created_at IS 'When the task was created (wall clock). Computed.';
        COMMENT ON COLUMN run_tracker.tasks.started_at IS 'When the current attempt became active. Computed.';
        COMMENT ON COLUMN run_tracker.tasks.finished_at IS 'When the task finished. Computed.';
        COMMENT ON COLUMN run_tracker.tasks.updated_at IS 'When the row was last changed. Computed.';
        COMMENT ON COLUMN run_tracker.tasks.usage_at IS
        'When it counted as usage of its user: when it finished; null if it has not, was inserted as finished, or is nobody''s. Filled in.';
        COMMENT ON COLUMN run_tracker.tasks.reservation_id IS
        'Reservation (reserve_usage()) that it settles when it finishes.';
        COMMENT ON COLUMN run_tracker.tasks.metadata IS 'Anything else, a JSON object.';
    END IF;

    ALTER TABLE run_tracker.tasks ALTER COLUMN task_id SET DEFAULT run_tracker.uuidv7();
    PERFORM run_tracker.install_triggers('run_tracker.tasks');
    PERFORM run_tracker.install_policy('run_tracker.tasks');
END
$install$;
COMMENT ON FUNCTION run_tracker.install_tasks() IS 'Internal: the part of install() for tasks.';
