-- What the parts of install() share.

CREATE FUNCTION run_tracker.require_tables() RETURNS void
LANGUAGE c STABLE
AS 'MODULE_PATHNAME', 'run_tracker_require_tables';
COMMENT ON FUNCTION run_tracker.require_tables() IS
'Raises 55000, with a hint at install(), if a table of run_tracker is missing.';

CREATE FUNCTION run_tracker.revoke_all(relation regclass) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    grantee text;
BEGIN
    -- what ALTER DEFAULT PRIVILEGES may have granted on a new table, sequence or view
    FOR grantee IN
        SELECT DISTINCT CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END
        FROM pg_class c, aclexplode(c.relacl) a
        WHERE c.oid = relation AND a.grantee <> c.relowner
    LOOP
        EXECUTE format('REVOKE ALL ON TABLE %s FROM %s', relation, grantee);
    END LOOP;
END
$$;
COMMENT ON FUNCTION run_tracker.revoke_all(regclass) IS
'Internal: revokes all privileges on a relation from everyone but its owner.';

CREATE FUNCTION run_tracker.as_owner(relation regclass, query text) RETURNS bigint
LANGUAGE c SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'run_tracker_as_owner';
COMMENT ON FUNCTION run_tracker.as_owner(regclass, text) IS
'Internal: runs a query as the owner of a table, restricted, and returns the number of rows: triggers of the owner''s do not get the rights of whoever calls install().';

CREATE FUNCTION run_tracker.own_tables() RETURNS text[]
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT '{runs,tasks,response_chunks,messages,logs,retrievals,artifacts,transitions,run_totals,open_runs,reservations,
             usage_records,stat_deltas,stat_totals,lifecycles,accounts,tiers,sessions,session_deltas,session_snapshots,
             breakers,finish_handlers,callback_keys,callbacks}'::text[]
$$;
COMMENT ON FUNCTION run_tracker.own_tables() IS
'Internal: the tables that install() makes, in the order in which they are locked.';

CREATE FUNCTION run_tracker.own_views() RETURNS text[]
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$ SELECT '{run_summary,active_runs,recent_runs,usage,active_sessions}'::text[] $$;
COMMENT ON FUNCTION run_tracker.own_views() IS 'Internal: the views that install() makes.';

CREATE FUNCTION run_tracker.lock_tables() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    tab regclass;
BEGIN
    -- Whoever changes tables locks them before anything else.  A weaker lock first, and then a change of pg_class, would
    -- deadlock with an autovacuum that holds the table and waits for that change.
    FOR tab IN
        SELECT to_regclass('run_tracker.' || t.name)
        FROM unnest(run_tracker.own_tables()) WITH ORDINALITY AS t (name, n)
        ORDER BY t.n
    LOOP
        IF tab IS NOT NULL THEN
            EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', tab);
        END IF;
    END LOOP;
END
$$;
COMMENT ON FUNCTION run_tracker.lock_tables() IS
'Internal: keeps everyone else away from the tables until the end of the transaction.';

CREATE FUNCTION run_tracker.has_policy(relation regclass, policy text) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$ SELECT EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = relation AND p.polname = policy) $$;
COMMENT ON FUNCTION run_tracker.has_policy(regclass, text) IS 'Internal: does a table have a policy of that name?';

CREATE FUNCTION run_tracker.install_policy(relation regclass) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT run_tracker.has_policy(relation, 'own_rows') THEN
        EXECUTE format('CREATE POLICY own_rows ON %s USING (user_id = (SELECT run_tracker.current_user_id()))', relation);
        EXECUTE format('COMMENT ON POLICY own_rows ON %s IS %L', relation,
                       'Users see and write their own rows; what they may write, grants say.');
    END IF;
END
$$;
COMMENT ON FUNCTION run_tracker.install_policy(regclass) IS
'Internal: creates the policy that all tables with rows of users have.';

CREATE FUNCTION run_tracker.install_triggers(relation regclass) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    name text := (SELECT c.relname FROM pg_class c WHERE c.oid = relation);
    event text;
BEGIN
    IF name IS NULL THEN
        RETURN;
    END IF;
    EXECUTE format('CREATE OR REPLACE TRIGGER zz_run_tracker_before BEFORE INSERT OR UPDATE ON %s
                    FOR EACH ROW EXECUTE FUNCTION run_tracker.%I()', relation, name || '_before');
    FOREACH event IN ARRAY '{insert,update,delete}'::text[] LOOP
        EXECUTE format('CREATE OR REPLACE TRIGGER %I AFTER %s ON %s REFERENCING %s %s
                        FOR EACH STATEMENT EXECUTE FUNCTION run_tracker.%I()',
                       'run_tracker_' || event, event, relation,
                       CASE WHEN event <> 'insert' THEN 'OLD TABLE AS old_rows' END,
                       CASE WHEN event <> 'delete' THEN 'NEW TABLE AS new_rows' END, name || '_after');
    END LOOP;
    EXECUTE format('CREATE OR REPLACE TRIGGER run_tracker_truncate AFTER TRUNCATE ON %s
                    FOR EACH STATEMENT EXECUTE FUNCTION run_tracker.after_truncate()', relation);
END
$$;
COMMENT ON FUNCTION run_tracker.install_triggers(regclass) IS
'Internal: creates the triggers that all tables have whose rows are counted in totals.';
