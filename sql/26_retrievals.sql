-- Retrievals: what a run looked up, and what it found.

CREATE FUNCTION run_tracker.retrievals_before() RETURNS trigger
LANGUAGE c
AS 'MODULE_PATHNAME', 'run_tracker_retrievals_before';
COMMENT ON FUNCTION run_tracker.retrievals_before() IS
'Trigger of run_tracker.retrievals: fills in owner, id, time and number of results, and checks values and sizes.';

CREATE FUNCTION run_tracker.retrievals_after() RETURNS trigger
LANGUAGE c
AS 'MODULE_PATHNAME', 'run_tracker_retrievals_after';
COMMENT ON FUNCTION run_tracker.retrievals_after() IS
'Trigger of run_tracker.retrievals: counts retrievals in the totals of the runs.';

CREATE FUNCTION run_tracker.log_retrieval(run_id uuid, retrieval_type text, query text DEFAULT NULL,
    results jsonb DEFAULT NULL, results_count integer DEFAULT NULL, context text DEFAULT NULL,
    location text DEFAULT NULL, component_type text DEFAULT NULL, duration_ms bigint DEFAULT NULL,
    task_id uuid DEFAULT NULL, retrieval_id uuid DEFAULT NULL, metadata jsonb DEFAULT NULL)
RETURNS uuid
LANGUAGE c SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'run_tracker_log_retrieval';
COMMENT ON FUNCTION run_tracker.log_retrieval(uuid, text, text, jsonb, integer, text, text, text, bigint, uuid, uuid, jsonb) IS
'Records what a run looked up, and returns the id of the retrieval. results is a JSON array, best first; results_count is its length unless given; duration_ms is how long it took. P0002 if there is no such run, 22023 or 23514 for bad arguments, 23505 if the id is taken.';

CREATE FUNCTION run_tracker.install_retrievals() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET client_min_messages = warning
AS $install$
BEGIN
    IF to_regclass('run_tracker.retrievals') IS NULL THEN
        CREATE TABLE run_tracker.retrievals (
            run_id uuid NOT NULL,
            retrieval_id uuid NOT NULL,
            user_id text NOT NULL,
            task_id uuid,
            retrieval_type text NOT NULL,
            query text,
            context text,
            results_count integer NOT NULL,
            results jsonb,
            location text,
            component_type text,
            duration_ms bigint,
            metadata jsonb,
            created_at timestamptz NOT NULL,
            CONSTRAINT retrievals_pkey PRIMARY KEY (run_id, retrieval_id),
            CONSTRAINT retrievals_run_id_user_id_fkey FOREIGN KEY (run_id, user_id)
                REFERENCES run_tracker.runs (run_id, user_id) ON DELETE CASCADE,
            CONSTRAINT retrievals_numbers_check CHECK (LEAST(results_count, duration_ms) >= 0)
        );
        ALTER TABLE run_tracker.retrievals ENABLE ROW LEVEL SECURITY;
        PERFORM run_tracker.revoke_all('run_tracker.retrievals');

        COMMENT ON TABLE run_tracker.retrievals IS 'What runs looked up (retrieval-augmented generation), and what they found.';
        COMMENT ON COLUMN run_tracker.retrievals.run_id IS 'Run that the retrieval belongs to.';
        COMMENT ON COLUMN run_tracker.retrievals.retrieval_id IS 'Id, a UUID of version 7 unless the client supplies one.';
        COMMENT ON COLUMN run_tracker.retrievals.user_id IS 'Owner of the run; filled in.';
        COMMENT ON COLUMN run_tracker.retrievals.task_id IS 'Task that asked; not checked.';
        COMMENT ON COLUMN run_tracker.retrievals.retrieval_type IS 'How: vector_search, pattern_search, graph_query, hybrid, ...';
        COMMENT ON COLUMN run_tracker.retrievals.query IS 'What was looked for.';
        COMMENT ON COLUMN run_tracker.retrievals.context IS 'What it was looked for.';
        COMMENT ON COLUMN run_tracker.retrievals.results_count IS 'How much was found; the length of results unless given.';
        COMMENT ON COLUMN run_tracker.retrievals.results IS
        'What was found, best first, a JSON array; of objects, reports show title, name or id, and score or similarity.';
        COMMENT ON COLUMN run_tracker.retrievals.location IS 'Where it was looked for: an index, a collection, a graph.';
        COMMENT ON COLUMN run_tracker.retrievals.component_type IS 'Kind of component that it was looked for.';
        COMMENT ON COLUMN run_tracker.retrievals.duration_ms IS 'Milliseconds that it took, as the client says.';
        COMMENT ON COLUMN run_tracker.retrievals.metadata IS 'Anything else, a JSON object.';
        COMMENT ON COLUMN run_tracker.retrievals.created_at IS 'When it was recorded (wall clock); filled in.';
    END IF;

    ALTER TABLE run_tracker.retrievals ALTER COLUMN retrieval_id SET DEFAULT run_tracker.uuidv7();
    PERFORM run_tracker.install_triggers('run_tracker.retrievals');
    PERFORM run_tracker.install_policy('run_tracker.retrievals');
END
$install$;
COMMENT ON FUNCTION run_tracker.install_retrievals() IS 'Internal: the part of install() for retrievals.';
