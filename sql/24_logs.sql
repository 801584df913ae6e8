-- Step logs of runs.

CREATE FUNCTION run_tracker.logs_before() RETURNS trigger
LANGUAGE c
AS 'MODULE_PATHNAME', 'run_tracker_logs_before';
COMMENT ON FUNCTION run_tracker.logs_before() IS
'Trigger of run_tracker.logs: fills in owner, number, level and time, and checks level and sizes.';

CREATE FUNCTION run_tracker.logs_after() RETURNS trigger
LANGUAGE c
AS 'MODULE_PATHNAME', 'run_tracker_logs_after';
COMMENT ON FUNCTION run_tracker.logs_after() IS
'Trigger of run_tracker.logs: counts errors in the totals of the runs.';

CREATE FUNCTION run_tracker.log_level_rank(level text) RETURNS integer
LANGUAGE c IMMUTABLE PARALLEL SAFE
AS 'MODULE_PATHNAME', 'run_tracker_log_level_rank';
COMMENT ON FUNCTION run_tracker.log_level_rank(text) IS
'Rank of a log level: DEBUG 0, INFO 1, WARNING 2, ERROR 3, CRITICAL 4. 22023 for another word.';

CREATE FUNCTION run_tracker.add_log(run_id uuid, message text, level text DEFAULT 'INFO', category text DEFAULT NULL,
    step_name text DEFAULT NULL, details jsonb DEFAULT NULL, task_id uuid DEFAULT NULL)
RETURNS bigint
LANGUAGE c SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'run_tracker_add_log';
COMMENT ON FUNCTION run_tracker.add_log(uuid, text, text, text, text, jsonb, uuid) IS
'Appends a line to the log of a run and returns its number there. Levels are DEBUG, INFO, WARNING, ERROR and CRITICAL, else 22023; P0002 if there is no such run.';

-- in PL/pgSQL, to look at the arguments and for the tables first; its results cannot be named like its arguments
CREATE FUNCTION run_tracker.read_logs(of_run uuid, minimum text, of_category text)
RETURNS TABLE (seq bigint, level text, message text, category text, step_name text, details jsonb, task_id uuid,
               created_at timestamptz)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    min_rank integer := run_tracker.log_level_rank(COALESCE(minimum, 'DEBUG'));
BEGIN
    PERFORM run_tracker.require_tables();
    RETURN QUERY
    SELECT l.seq, l.level, l.message, l.category, l.step_name, l.details, l.task_id, l.created_at
    FROM run_tracker.logs l
    WHERE l.run_id = of_run
      AND run_tracker.log_level_rank(l.level) >= min_rank
      AND (of_category IS NULL OR l.category = of_category)
    ORDER BY l.seq;
END
$$;
COMMENT ON FUNCTION run_tracker.read_logs(uuid, text, text) IS 'What run_logs() runs: the same with arguments of other names.';

CREATE FUNCTION run_tracker.run_logs(run_id uuid, min_level text DEFAULT 'DEBUG', category text DEFAULT NULL)
RETURNS TABLE (seq bigint, level text, message text, category text, step_name text, details jsonb, task_id uuid,
               created_at timestamptz)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$ SELECT * FROM run_tracker.read_logs($1, $2, $3) $$;
COMMENT ON FUNCTION run_tracker.run_logs(uuid, text, text) IS
'The log of a run in the order in which it was written: lines of at least min_level (22023 if there is no such level), of one category if given. No rows for a run that the caller cannot see.';

CREATE FUNCTION run_tracker.install_logs() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET client_min_messages = warning
AS $install$
BEGIN
    IF to_regclass('run_tracker.logs') IS NULL THEN
        CREATE TABLE run_tracker.logs (
            run_id uuid NOT NULL,
            seq bigint NOT NULL,
            log_id uuid NOT NULL,
            user_id text NOT NULL,
            task_id uuid,
            level text NOT NULL,
            message text NOT NULL,
            category text,
            step_name text,
            details jsonb,
            created_at timestamptz NOT NULL,
            CONSTRAINT logs_pkey PRIMARY KEY (run_id, seq),
            CONSTRAINT logs_run_id_user_id_fkey FOREIGN KEY (run_id, user_id)
                REFERENCES run_tracker.runs (run_id, user_id) ON DELETE CASCADE,
            CONSTRAINT logs_level_check CHECK (level IN ('DEBUG', 'INFO', 'WARNING', 'ERROR', 'CRITICAL'))
        );
        ALTER TABLE run_tracker.logs ENABLE ROW LEVEL SECURITY;
        PERFORM run_tracker.revoke_all('run_tracker.logs');

        COMMENT ON TABLE run_tracker.logs IS 'Step logs of runs.';
        COMMENT ON COLUMN run_tracker.logs.run_id IS 'Run that the line belongs to.';
        COMMENT ON COLUMN run_tracker.logs.seq IS 'Number within the run, ascending; filled in.';
        COMMENT ON COLUMN run_tracker.logs.log_id IS
        'Id of the entry, if the writer gives it one; filled in, and not checked to be unique.';
        COMMENT ON COLUMN run_tracker.logs.user_id IS 'Owner of the run; filled in.';
        COMMENT ON COLUMN run_tracker.logs.task_id IS 'Task that the line is about; not checked.';
        COMMENT ON COLUMN run_tracker.logs.level IS 'DEBUG, INFO (the default), WARNING, ERROR or CRITICAL.';
        COMMENT ON COLUMN run_tracker.logs.message IS 'What happened.';
        COMMENT ON COLUMN run_tracker.logs.category IS 'Grouping word of the application.';
        COMMENT ON COLUMN run_tracker.logs.step_name IS 'Step in which it happened.';
        COMMENT ON COLUMN run_tracker.logs.details IS 'Anything else.';
        COMMENT ON COLUMN run_tracker.logs.created_at IS 'When the line was written (wall clock); filled in.';
    END IF;

    PERFORM run_tracker.install_triggers('run_tracker.logs');
    PERFORM run_tracker.install_policy('run_tracker.logs');
END
$install$;
COMMENT ON FUNCTION run_tracker.install_logs() IS 'Internal: the part of install() for logs.';
