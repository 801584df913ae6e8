-- Artifacts: what runs made.

CREATE FUNCTION run_tracker.artifacts_before() RETURNS trigger
LANGUAGE c
AS 'MODULE_PATHNAME', 'run_tracker_artifacts_before';
COMMENT ON FUNCTION run_tracker.artifacts_before() IS
'Trigger of run_tracker.artifacts: fills in owner, id, size and times, and checks values and sizes.';

CREATE FUNCTION run_tracker.artifacts_after() RETURNS trigger
LANGUAGE c
AS 'MODULE_PATHNAME', 'run_tracker_artifacts_after';
COMMENT ON FUNCTION run_tracker.artifacts_after() IS
'Trigger of run_tracker.artifacts: counts artifacts in the totals of the runs.';

CREATE FUNCTION run_tracker.add_artifact(run_id uuid, kind text, name text DEFAULT NULL, type text DEFAULT NULL,
    content text DEFAULT NULL, content_type text DEFAULT NULL, url text DEFAULT NULL, size_bytes bigint DEFAULT NULL,
    ordinal integer DEFAULT NULL, source text DEFAULT NULL, similarity numeric DEFAULT NULL,
    source_document_id text DEFAULT NULL, source_document_name text DEFAULT NULL, chunk_type text DEFAULT NULL,
    retrieval_id uuid DEFAULT NULL, configuration jsonb DEFAULT NULL, task_id uuid DEFAULT NULL,
    artifact_id uuid DEFAULT NULL, metadata jsonb DEFAULT NULL)
RETURNS uuid
LANGUAGE c SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'run_tracker_add_artifact';
COMMENT ON FUNCTION run_tracker.add_artifact(uuid, text, text, text, text, text, text, bigint, integer, text, numeric,
    text, text, text, uuid, jsonb, uuid, uuid, jsonb) IS
'Records something that a run made, and returns its id: its text, or the url where it is; size_bytes is the size of the text unless given. With source_document_id, retrieval_id and similarity it names the retrieved document that it came from. P0002 if there is no such run, 22023 or 23514 for bad arguments, 23505 if the id is taken.';

CREATE FUNCTION run_tracker.install_artifacts() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET client_min_messages = warning
AS $install$
BEGIN
    IF to_regclass('run_tracker.artifacts') IS NULL THEN
        CREATE TABLE run_tracker.artifacts (
            run_id uuid NOT NULL,
            artifact_id uuid NOT NULL,
            user_id text NOT NULL,
            session_id uuid,
            task_id uuid,
            retrieval_id uuid,
            kind text NOT NULL,
            type text,
            name text,
            ordinal integer,
            source text,
            similarity numeric,
            source_document_id text,
            source_document_name text,
            chunk_type text,
            configuration jsonb,
            content text,
            content_type text,
            url text,
            size_bytes bigint,
            metadata jsonb,
            created_at timestamptz NOT NULL,
            updated_at timestamptz NOT NULL,
            CONSTRAINT artifacts_pkey PRIMARY KEY (run_id, artifact_id),
            CONSTRAINT artifacts_run_id_user_id_fkey FOREIGN KEY (run_id, user_id)
                REFERENCES run_tracker.runs (run_id, user_id) ON DELETE CASCADE,
            CONSTRAINT artifacts_size_check CHECK (size_bytes >= 0)
        );
        ALTER TABLE run_tracker.artifacts ENABLE ROW LEVEL SECURITY;
        PERFORM run_tracker.revoke_all('run_tracker.artifacts');

        COMMENT ON TABLE run_tracker.artifacts IS 'What runs made: components, scripts, files, documents, ...';
        COMMENT ON COLUMN run_tracker.artifacts.run_id IS 'Run that made it.';
        COMMENT ON COLUMN run_tracker.artifacts.artifact_id IS 'Id, a UUID of version 7 unless the client supplies one.';
        COMMENT ON COLUMN run_tracker.artifacts.user_id IS 'Owner of the run; filled in.';
        COMMENT ON COLUMN run_tracker.artifacts.session_id IS 'Session that it was made in; not checked.';
        COMMENT ON COLUMN run_tracker.artifacts.task_id IS 'Task that made it; not checked.';
        COMMENT ON COLUMN run_tracker.artifacts.retrieval_id IS
        'Retrieval (run_tracker.retrievals) that found what it came from; not checked.';
        COMMENT ON COLUMN run_tracker.artifacts.kind IS 'component, script, file, prefab, material, document, ...';
        COMMENT ON COLUMN run_tracker.artifacts.type IS 'Type within its kind.';
        COMMENT ON COLUMN run_tracker.artifacts.name IS 'Name.';
        COMMENT ON COLUMN run_tracker.artifacts.ordinal IS 'Place among the artifacts of the run.';
        COMMENT ON COLUMN run_tracker.artifacts.source IS 'Where it comes from: template, rag, authoritative, user_specified, ...';
        COMMENT ON COLUMN run_tracker.artifacts.similarity IS
        'Similarity to what was looked for, of the document that it came from; as large as the client''s scale has it, never NaN or infinite.';
        COMMENT ON COLUMN run_tracker.artifacts.source_document_id IS 'Retrieved document that it came from.';
        COMMENT ON COLUMN run_tracker.artifacts.source_document_name IS 'Name of that document.';
        COMMENT ON COLUMN run_tracker.artifacts.chunk_type IS 'Kind of chunk of that document.';
        COMMENT ON COLUMN run_tracker.artifacts.configuration IS 'Configuration, a JSON object.';
        COMMENT ON COLUMN run_tracker.artifacts.content IS 'The thing itself, if it is text and not elsewhere.';
        COMMENT ON COLUMN run_tracker.artifacts.content_type IS 'Media type (RFC 6838).';
        COMMENT ON COLUMN run_tracker.artifacts.url IS 'Where the thing is, if it is elsewhere.';
        COMMENT ON COLUMN run_tracker.artifacts.size_bytes IS 'Size in bytes; that of content unless given.';
        COMMENT ON COLUMN run_tracker.artifacts.metadata IS 'Anything else, a JSON object.';
        COMMENT ON COLUMN run_tracker.artifacts.created_at IS 'When it was recorded (wall clock); filled in.';
        COMMENT ON COLUMN run_tracker.artifacts.updated_at IS 'When the row was last changed; filled in.';
    END IF;

    ALTER TABLE run_tracker.artifacts ALTER COLUMN artifact_id SET DEFAULT run_tracker.uuidv7();
    PERFORM run_tracker.install_triggers('run_tracker.artifacts');
    PERFORM run_tracker.install_policy('run_tracker.artifacts');
END
$install$;
COMMENT ON FUNCTION run_tracker.install_artifacts() IS 'Internal: the part of install() for artifacts.';
