-- What has to happen from time to time.

CREATE FUNCTION run_tracker.purge_before(older_than interval, max_rows integer, argument text) RETURNS timestamptz
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF older_than IS NULL OR older_than < interval '0' THEN
        RAISE EXCEPTION 'argument "older_than" must be an interval that is not negative'
            USING ERRCODE = 'invalid_parameter_value';
    ELSIF max_rows IS NULL OR max_rows < 1 THEN
        RAISE EXCEPTION 'argument "%" must be at least 1', argument USING ERRCODE = 'invalid_parameter_value';
    END IF;
    RETURN clock_timestamp() - older_than;
END
$$;
COMMENT ON FUNCTION run_tracker.purge_before(interval, integer, text) IS
'What purge_runs() and its like begin with: looks at their arguments (22023), and returns the moment before which they delete. The argument is the name of max_rows in messages.';

CREATE FUNCTION run_tracker.purge_runs(older_than interval DEFAULT '30 days', max_runs integer DEFAULT 10000,
    phases text[] DEFAULT '{succeeded,failed,cancelled,timed_out}')
RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    before timestamptz;
    deleted bigint;
BEGIN
    PERFORM run_tracker.require_tables();
    before := run_tracker.purge_before(older_than, max_runs, 'max_runs');
    IF phases IS NULL OR NOT phases <@ '{succeeded,failed,cancelled,timed_out}' OR array_position(phases, NULL) > 0 THEN
        RAISE EXCEPTION 'argument "phases" must name finished phases'
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Those are succeeded, failed, cancelled and timed_out.';
    END IF;
    -- a run finishes after it was created, and the index is on that
    DELETE FROM run_tracker.runs r
    WHERE r.run_id = ANY (ARRAY(
        SELECT o.run_id FROM run_tracker.runs o
        WHERE o.created_at < before AND o.finished_at < before AND o.phase = ANY (phases)
        ORDER BY o.created_at LIMIT max_runs FOR UPDATE SKIP LOCKED));
    GET DIAGNOSTICS deleted = ROW_COUNT;
    RETURN deleted;
END
$$;
COMMENT ON FUNCTION run_tracker.purge_runs(interval, integer, text[]) IS
'Deletes runs that finished longer ago than that, oldest first and at most max_runs, with all that belongs to them, and returns how many. Open runs are never deleted. 22023 for a negative interval, max_runs below 1, or phases that are not finished. For services.';

CREATE FUNCTION run_tracker.has_cron() RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    -- what is called "cron" may be anybody's
    SELECT EXISTS (SELECT FROM pg_extension e
                        JOIN pg_depend d ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid AND d.deptype = 'e'
                        JOIN pg_class c ON d.classid = 'pg_class'::regclass AND d.objid = c.oid
                        JOIN pg_namespace n ON n.oid = c.relnamespace
                   WHERE e.extname = 'pg_cron' AND n.nspname = 'cron' AND c.relname = 'job')
$$;
COMMENT ON FUNCTION run_tracker.has_cron() IS 'Is pg_cron installed in this database?';

CREATE FUNCTION run_tracker.unschedule_maintenance() RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    removed bigint := 0;
BEGIN
    IF run_tracker.has_cron() THEN
        EXECUTE 'SELECT count(cron.unschedule(j.jobid)) FROM cron.job j
                 WHERE j.jobname IN (''run_tracker_expire'', ''run_tracker_fold'', ''run_tracker_purge'')
                   AND j.database = current_database() AND j.username = current_user'
            INTO removed;
    END IF;
    RETURN removed;
END
$$;
COMMENT ON FUNCTION run_tracker.unschedule_maintenance() IS
'Removes the jobs of schedule_maintenance() that the caller has scheduled, and returns how many there were.';

CREATE FUNCTION run_tracker.schedule_maintenance(older_than interval DEFAULT '30 days',
    purge_schedule text DEFAULT '*/10 * * * *', expire_schedule text DEFAULT '* * * * *')
RETURNS TABLE (jobname text, schedule text, command text)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM run_tracker.require_tables();
    IF older_than IS NULL OR older_than < interval '0' THEN
        RAISE EXCEPTION 'argument "older_than" must be an interval that is not negative'
            USING ERRCODE = 'invalid_parameter_value';
    ELSIF purge_schedule IS NULL OR expire_schedule IS NULL THEN
        RAISE EXCEPTION 'a schedule must not be null'
            USING ERRCODE = 'invalid_parameter_value', HINT = 'A schedule looks like */10 * * * *.';
    ELSIF NOT run_tracker.has_cron() THEN
        RAISE EXCEPTION 'extension "pg_cron" is not installed in database "%"', current_database()
            USING ERRCODE = 'object_not_in_prerequisite_state',
                  HINT = 'Have it preloaded with cron.database_name set to this database, and CREATE EXTENSION pg_cron; or, '
                         'in the database that it is installed in, call cron.schedule_in_database() for '
                         'SELECT run_tracker.purge_runs(), run_tracker.purge_usage(), run_tracker.purge_sessions(), run_tracker.purge_callbacks() and, where run_tracker is not preloaded, SELECT '
                         'run_tracker.expire_runs() and SELECT run_tracker.fold_statistics().';
    END IF;
    PERFORM run_tracker.unschedule_maintenance();
    FOR jobname, schedule, command IN
        SELECT 'run_tracker_purge', purge_schedule,
               format('SELECT run_tracker.purge_runs(%1$L), run_tracker.purge_usage(%1$L), run_tracker.purge_sessions(%1$L), run_tracker.purge_callbacks(%1$L)', older_than)
        UNION ALL
        -- where the library is preloaded, its own worker ends runs and folds statistics
        SELECT 'run_tracker_expire', expire_schedule, 'SELECT run_tracker.expire_runs(10000)'
        WHERE current_setting('run_tracker.max_databases', true) IS NULL
        UNION ALL
        SELECT 'run_tracker_fold', expire_schedule, 'SELECT run_tracker.fold_statistics()'
        WHERE current_setting('run_tracker.max_databases', true) IS NULL
    LOOP
        EXECUTE 'SELECT cron.schedule($1, $2, $3)' USING jobname, schedule, command;
        RETURN NEXT;
    END LOOP;
END
$$;
COMMENT ON FUNCTION run_tracker.schedule_maintenance(interval, text, text) IS
'Registers jobs with pg_cron that run as the caller: every ten minutes, purge_runs() deletes runs that finished longer ago than older_than, purge_usage(), purge_sessions() and purge_callbacks() what is older than that; and, only where run_tracker is not preloaded, expire_runs() ends runs whose time is up and fold_statistics() folds statistics, both by expire_schedule, every minute. Returns the jobs. Repeating it replaces them. 55000, with what to do, if pg_cron is not installed in this database. For services.';
