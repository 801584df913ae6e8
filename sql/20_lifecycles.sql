-- Lifecycles: the state machines of runs and tasks.

CREATE FUNCTION run_tracker.lifecycles_before() RETURNS trigger
LANGUAGE c SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'run_tracker_lifecycles_before';
COMMENT ON FUNCTION run_tracker.lifecycles_before() IS
'Trigger of run_tracker.lifecycles: refuses definitions that are malformed (22023) or lose what rows use (2BP01).';

CREATE FUNCTION run_tracker.lifecycles_after() RETURNS trigger
LANGUAGE c
AS 'MODULE_PATHNAME', 'run_tracker_lifecycles_after';
COMMENT ON FUNCTION run_tracker.lifecycles_after() IS
'Trigger of run_tracker.lifecycles: makes a change known to all sessions.';

CREATE FUNCTION run_tracker.define_lifecycle(name text, definition jsonb) RETURNS void
LANGUAGE c SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'run_tracker_define_lifecycle';
COMMENT ON FUNCTION run_tracker.define_lifecycle(text, jsonb) IS
'Creates a lifecycle, or changes one. The definition is {"initial": status, "timeout": interval, "states": {status: {"phase": queued|active|waiting|succeeded|failed|cancelled|timed_out, "next": [statuses], "timeout": interval or null}}}. Other sessions see it from their next statement on. 22023 if it is malformed, 2BP01 if it would lose a state that rows use. For services.';

CREATE FUNCTION run_tracker.drop_lifecycle(name text) RETURNS boolean
LANGUAGE c SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'run_tracker_drop_lifecycle';
COMMENT ON FUNCTION run_tracker.drop_lifecycle(text) IS
'Drops a lifecycle that no run and no task uses (else 2BP01). False if there is none of that name. For services.';

CREATE FUNCTION run_tracker.lifecycle_diagram(name text) RETURNS text
LANGUAGE c STABLE SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'run_tracker_lifecycle_diagram';
COMMENT ON FUNCTION run_tracker.lifecycle_diagram(text) IS
'The lifecycle as a Mermaid state diagram (stateDiagram-v2). RT002 if there is none of that name.';

CREATE FUNCTION run_tracker.install_lifecycles() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET client_min_messages = warning
AS $install$
BEGIN
    IF to_regclass('run_tracker.lifecycles') IS NULL THEN
        CREATE TABLE run_tracker.lifecycles (
            name text NOT NULL,
            definition jsonb NOT NULL,
            CONSTRAINT lifecycles_pkey PRIMARY KEY (name)
        );
        ALTER TABLE run_tracker.lifecycles ENABLE ROW LEVEL SECURITY;
        PERFORM run_tracker.revoke_all('run_tracker.lifecycles');

        COMMENT ON TABLE run_tracker.lifecycles IS
        'State machines that the status of runs and tasks follows. Everyone with a grant may read them.';
        COMMENT ON COLUMN run_tracker.lifecycles.name IS 'Name, as in runs.lifecycle and tasks.lifecycle.';
        COMMENT ON COLUMN run_tracker.lifecycles.definition IS
        'The state machine, see run_tracker.define_lifecycle().';
    END IF;

    CREATE OR REPLACE TRIGGER zz_run_tracker_before BEFORE INSERT OR UPDATE OR DELETE ON run_tracker.lifecycles
        FOR EACH ROW EXECUTE FUNCTION run_tracker.lifecycles_before();
    CREATE OR REPLACE TRIGGER run_tracker_after AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON run_tracker.lifecycles
        FOR EACH STATEMENT EXECUTE FUNCTION run_tracker.lifecycles_after();
    IF NOT run_tracker.has_policy('run_tracker.lifecycles', 'readable') THEN
        CREATE POLICY readable ON run_tracker.lifecycles FOR SELECT USING (true);
        COMMENT ON POLICY readable ON run_tracker.lifecycles IS 'Lifecycles are no secret.';
    END IF;

    PERFORM run_tracker.as_owner('run_tracker.lifecycles', $built_in$
    INSERT INTO run_tracker.lifecycles (name, definition) VALUES
    ('run', '{"initial": "pending", "timeout": "60 seconds", "states": {
        "pending":   {"phase": "queued", "timeout": null,
                      "next": ["running", "paused", "completed", "failed", "cancelled", "timeout"]},
        "running":   {"phase": "active",
                      "next": ["completed", "failed", "cancelled", "timeout", "paused", "pending"]},
        "paused":    {"phase": "waiting", "next": ["running", "completed", "failed", "cancelled"]},
        "completed": {"phase": "succeeded", "next": ["pending"]},
        "failed":    {"phase": "failed", "next": ["pending", "completed"]},
        "cancelled": {"phase": "cancelled", "next": ["pending"]},
        "timeout":   {"phase": "timed_out", "next": ["pending", "completed", "failed"]}}}'),
    ('task', '{"initial": "pending", "states": {
        "pending":   {"phase": "queued",
                      "next": ["running", "streaming", "completed", "failed", "cancelled", "timeout"]},
        "running":   {"phase": "active",
                      "next": ["streaming", "completed", "failed", "cancelled", "timeout", "pending"]},
        "streaming": {"phase": "active", "next": ["completed", "failed", "cancelled", "timeout"]},
        "completed": {"phase": "succeeded", "next": ["pending", "running", "failed"]},
        "failed":    {"phase": "failed", "next": ["pending", "running", "completed"]},
        "cancelled": {"phase": "cancelled", "next": ["pending", "completed", "failed"]},
        "timeout":   {"phase": "timed_out", "next": ["pending", "running", "completed", "failed"]}}}'),
    ('spar', '{"initial": "pending", "timeout": "60 seconds", "states": {
        "pending":    {"phase": "queued", "next": ["processing", "completed", "failed", "timeout"]},
        "processing": {"phase": "active", "next": ["completed", "failed", "timeout"]},
        "completed":  {"phase": "succeeded"},
        "failed":     {"phase": "failed", "next": ["pending"]},
        "timeout":    {"phase": "timed_out", "next": ["pending", "completed", "failed"]}}}'),
    ('iflow', '{"initial": "pending", "timeout": "10 minutes", "states": {
        "pending":             {"phase": "queued", "next": ["processing", "analyzing", "generating", "failed"]},
        "processing":          {"phase": "active",
                                "next": ["analyzing", "documentation_ready", "generating", "completed", "failed"]},
        "analyzing":           {"phase": "active",
                                "next": ["documentation_ready", "generating", "completed", "failed"]},
        "documentation_ready": {"phase": "waiting", "next": ["generating", "completed", "failed"]},
        "generating":          {"phase": "active", "next": ["completed", "failed"]},
        "completed":           {"phase": "succeeded"},
        "failed":              {"phase": "failed", "next": ["pending", "completed"]}}}'),
    ('workflow', '{"initial": "running", "timeout": "10 minutes", "states": {
        "running":   {"phase": "active", "next": ["completed", "failed", "cancelled"]},
        "completed": {"phase": "succeeded"},
        "failed":    {"phase": "failed", "next": ["running", "completed"]},
        "cancelled": {"phase": "cancelled", "next": ["running"]}}}'),
    ('build', '{"initial": "queued", "timeout": "10 minutes", "states": {
        "queued":    {"phase": "queued", "timeout": null, "next": ["building", "cancelled", "failed"]},
        "building":  {"phase": "active", "next": ["completed", "failed", "cancelled", "timeout", "queued"]},
        "completed": {"phase": "succeeded"},
        "failed":    {"phase": "failed", "next": ["queued"]},
        "cancelled": {"phase": "cancelled", "next": ["queued"]},
        "timeout":   {"phase": "timed_out", "next": ["queued", "completed", "failed"]}}}'),
    ('conversation', '{"initial": "active", "states": {
        "active":    {"phase": "active", "next": ["completed", "failed", "cancelled"]},
        "completed": {"phase": "succeeded", "next": ["active"]},
        "failed":    {"phase": "failed", "next": ["active"]},
        "cancelled": {"phase": "cancelled", "next": ["active"]}}}'),
    ('session', '{"initial": "open", "states": {
        "open":   {"phase": "waiting", "next": ["closed"]},
        "closed": {"phase": "succeeded", "next": ["open"]}}}')
    ON CONFLICT (name) DO NOTHING $built_in$);
END
$install$;
COMMENT ON FUNCTION run_tracker.install_lifecycles() IS 'Internal: the part of install() for lifecycles.';
