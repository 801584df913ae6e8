-- Functions of the user's that are called when a run finishes.

-- without a search_path of its own: the one in force is what is registered
CREATE FUNCTION run_tracker.on_finish(kind_or_lifecycle text, function regprocedure, on_error text DEFAULT 'fail')
RETURNS uuid
LANGUAGE c
AS 'MODULE_PATHNAME', 'run_tracker_on_finish';
COMMENT ON FUNCTION run_tracker.on_finish(text, regprocedure, text) IS
'Has a function called whenever a run of that kind or lifecycle (null: any run) finishes, or a late result replaces how it has finished, in the same transaction and after everything else. It takes the id of the run (uuid) or its row (jsonb), and what it returns is ignored. It runs with the rights of the role that calls on_finish() now, and with its search_path of now, in a security-restricted operation: no temporary tables, no SET ROLE, no deferred triggers. With on_error = fail, its error is the error of the statement that finishes the run; with log, it goes to the server log and the run finishes. Returns the id of the handler; the same one, with on_error and search_path of this call, if it is repeated. 22023 if the function has other arguments or returns a set; 42501 unless the caller may execute it and it belongs to the caller, a role that the caller is a member of, or a superuser (for superusers: to a superuser); 42710 if another role has registered the same. For services.';

CREATE FUNCTION run_tracker.drop_on_finish(handler_id uuid DEFAULT NULL, kind_or_lifecycle text DEFAULT NULL,
    function regprocedure DEFAULT NULL)
RETURNS boolean
LANGUAGE c SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'run_tracker_drop_on_finish';
COMMENT ON FUNCTION run_tracker.drop_on_finish(uuid, text, regprocedure) IS
'Takes back what on_finish() has registered, by its id or, without one, by the arguments of on_finish(). True if there was such a handler. 42501 unless the caller registered it, has the rights of the role that did, or owns the tables. For services.';

CREATE FUNCTION run_tracker.install_on_finish() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET client_min_messages = warning
AS $install$
BEGIN
    IF to_regclass('run_tracker.finish_handlers') IS NULL THEN
        -- functions and roles by name: their OIDs would not survive dump and restore
        CREATE TABLE run_tracker.finish_handlers (
            handler_id uuid NOT NULL,
            kind_or_lifecycle text,
            function text NOT NULL,
            role text NOT NULL,
            search_path text NOT NULL,
            on_error text NOT NULL,
            created_at timestamptz NOT NULL,
            CONSTRAINT finish_handlers_pkey PRIMARY KEY (handler_id),
            CONSTRAINT finish_handlers_key UNIQUE NULLS NOT DISTINCT (kind_or_lifecycle, function),
            CONSTRAINT finish_handlers_on_error_check CHECK (on_error IN ('fail', 'log'))
        );
        ALTER TABLE run_tracker.finish_handlers ENABLE ROW LEVEL SECURITY;
        PERFORM run_tracker.revoke_all('run_tracker.finish_handlers');

        COMMENT ON TABLE run_tracker.finish_handlers IS
        'Functions that are called when a run finishes. Written by on_finish() only; stays with the superuser who created it, since whoever writes here says as whom a function runs.';
        COMMENT ON COLUMN run_tracker.finish_handlers.handler_id IS 'Id.';
        COMMENT ON COLUMN run_tracker.finish_handlers.kind_or_lifecycle IS
        'Kind or lifecycle of the runs that it is called for; null for all.';
        COMMENT ON COLUMN run_tracker.finish_handlers.function IS 'Function, with its schema and the type of its argument.';
        COMMENT ON COLUMN run_tracker.finish_handlers.role IS 'Role that registered the function, and with whose rights it runs.';
        COMMENT ON COLUMN run_tracker.finish_handlers.search_path IS
        'search_path with which the function runs: that of its registration, temporary tables last.';
        COMMENT ON COLUMN run_tracker.finish_handlers.on_error IS
        'fail: an error of the function fails the transition; log: it goes to the server log.';
        COMMENT ON COLUMN run_tracker.finish_handlers.created_at IS 'When it was registered; the functions are called in this order.';
    END IF;
END
$install$;
COMMENT ON FUNCTION run_tracker.install_on_finish() IS 'Internal: the part of install() for functions that are called when a run finishes.';
