-- Installing the tables, which belong to the user.

CREATE FUNCTION run_tracker.set_owner(role regrole) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    rel record;
BEGIN
    IF role IS NULL OR NOT EXISTS (SELECT FROM pg_roles r WHERE r.oid = role) THEN
        RAISE EXCEPTION 'argument "role" must name a role' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF (SELECT r.rolsuper FROM pg_roles r WHERE r.oid = role) THEN
        RAISE EXCEPTION 'role "%" is a superuser', role
            USING ERRCODE = 'invalid_parameter_value',
                  HINT = 'Create a role for the tables: CREATE ROLE run_tracker_owner NOLOGIN.';
    END IF;
    PERFORM run_tracker.lock_tables();
    -- foreign keys and triggers act as the owner, who must be able to look into the schema
    EXECUTE format('GRANT USAGE ON SCHEMA run_tracker TO %s', role);
    PERFORM run_tracker.grant_functions(role, run_tracker.functions_for('owner'));
    FOR rel IN
        SELECT c.oid::regclass AS name, c.relkind FROM pg_class c
        WHERE c.relnamespace = 'run_tracker'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm')
          -- what belongs to the extension stays with it
          AND NOT EXISTS (SELECT FROM pg_depend d
                          WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
          -- and so does what says as whom functions run
          AND c.relname <> 'finish_handlers'
    LOOP
        EXECUTE format('ALTER %s %s OWNER TO %s',
                       CASE rel.relkind WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW' ELSE 'TABLE' END,
                       rel.name, role);
    END LOOP;
    -- sequences of identity columns went with their tables
    FOR rel IN
        SELECT c.oid::regclass AS name FROM pg_class c
        WHERE c.relnamespace = 'run_tracker'::regnamespace AND c.relkind = 'S' AND c.relowner <> role
    LOOP
        EXECUTE format('ALTER SEQUENCE %s OWNER TO %s', rel.name, role);
    END LOOP;
END
$$;
COMMENT ON FUNCTION run_tracker.set_owner(regrole) IS
'Hands tables, sequences and views (not the schema) to a role that is no superuser: foreign keys, TRUNCATE and install() act as their owner. 22023 for a superuser. For the owner of the extension.';

CREATE FUNCTION run_tracker.install() RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET client_min_messages = warning
AS $install$
DECLARE
    owner oid := (SELECT c.relowner FROM pg_class c WHERE c.oid = to_regclass('run_tracker.runs'));
    complete boolean := to_regclass('run_tracker.run_totals') IS NOT NULL
                        AND to_regclass('run_tracker.open_runs') IS NOT NULL
                        AND (SELECT count(*) = 31 FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
                         WHERE c.relnamespace = 'run_tracker'::regnamespace AND NOT t.tgisinternal
                           AND c.relname IN ('runs', 'tasks', 'messages', 'logs', 'retrievals', 'artifacts')
                           AND t.tgname IN ('zz_run_tracker_before', 'run_tracker_insert', 'run_tracker_update',
                                            'run_tracker_delete', 'run_tracker_truncate', 'run_tracker_before_truncate'));
    no_statistics boolean := to_regclass('run_tracker.stat_totals') IS NULL;
    rel record;
BEGIN
    SELECT c.oid::regclass AS name, c.relowner::regrole AS owner INTO rel
    FROM pg_class c JOIN pg_roles r ON r.oid = c.relowner
    WHERE c.relnamespace = 'run_tracker'::regnamespace
      AND c.relname = ANY (run_tracker.own_tables() || run_tracker.own_views() || 'installation'::text)
      AND NOT r.rolsuper AND r.rolname <> CURRENT_USER
      -- whoever writes finish_handlers says as whom functions run
      AND (c.relowner IS DISTINCT FROM owner OR c.relname = 'finish_handlers')
    LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'relation "%" belongs to role "%"', rel.name, rel.owner
            USING ERRCODE = 'insufficient_privilege', HINT = CASE rel.name::text WHEN 'run_tracker.finish_handlers'
                                THEN 'Rename or drop it, or look at its rows and hand it to a superuser.'
                                ELSE 'Rename or drop it, or hand it to the owner of run_tracker.runs.' END;
    END IF;
    PERFORM run_tracker.lock_tables();
    PERFORM run_tracker.install_lifecycles();
    PERFORM run_tracker.install_runs();
    PERFORM run_tracker.install_tasks();
    PERFORM run_tracker.install_responses();
    PERFORM run_tracker.install_messages();
    PERFORM run_tracker.install_logs();
    PERFORM run_tracker.install_retrievals();
    PERFORM run_tracker.install_artifacts();
    PERFORM run_tracker.install_transitions();
    PERFORM run_tracker.install_totals();
    PERFORM run_tracker.install_open_runs();
    PERFORM run_tracker.install_statistics();
    PERFORM run_tracker.install_on_finish();
    PERFORM run_tracker.install_callbacks();
    PERFORM run_tracker.install_accounts();
    PERFORM run_tracker.install_usage();
    PERFORM run_tracker.install_sessions();
    PERFORM run_tracker.install_breakers();
    PERFORM run_tracker.install_views();

    IF to_regclass('run_tracker.installation') IS NULL THEN
        CREATE TABLE run_tracker.installation (
            version text NOT NULL,
            installed_at timestamptz NOT NULL,
            singleton boolean NOT NULL DEFAULT true,
            CONSTRAINT installation_pkey PRIMARY KEY (singleton),
            CONSTRAINT installation_singleton_check CHECK (singleton)
        );
        ALTER TABLE run_tracker.installation ENABLE ROW LEVEL SECURITY;
        PERFORM run_tracker.revoke_all('run_tracker.installation');
        COMMENT ON TABLE run_tracker.installation IS
        'Version of the tables, one row, to compare with tracker_version().';
        COMMENT ON COLUMN run_tracker.installation.version IS 'Version that install() has brought the tables to.';
        COMMENT ON COLUMN run_tracker.installation.installed_at IS 'When install() did that.';
        COMMENT ON COLUMN run_tracker.installation.singleton IS 'Always true: there is one row.';
    END IF;
    IF NOT run_tracker.has_policy('run_tracker.installation', 'readable') THEN
        CREATE POLICY readable ON run_tracker.installation FOR SELECT USING (true);
        COMMENT ON POLICY readable ON run_tracker.installation IS 'The version is no secret.';
    END IF;
    PERFORM run_tracker.as_owner('run_tracker.installation', format(
        'INSERT INTO run_tracker.installation (version, installed_at) VALUES (%1$L, clock_timestamp())
         ON CONFLICT (singleton) DO UPDATE SET version = EXCLUDED.version, installed_at = EXCLUDED.installed_at
         WHERE run_tracker.installation.version <> EXCLUDED.version', run_tracker.tracker_version()));

    -- what is new belongs to whom the rest belongs
    IF owner IS NOT NULL THEN
        FOR rel IN
            SELECT c.oid::regclass AS name, c.relkind FROM pg_class c
            WHERE c.relnamespace = 'run_tracker'::regnamespace AND c.relkind IN ('r', 'v') AND c.relowner <> owner
              AND c.relname = ANY (run_tracker.own_tables() || run_tracker.own_views() || 'installation'::text)
              AND c.relname <> 'finish_handlers'
        LOOP
            EXECUTE format('ALTER %s %s OWNER TO %s', CASE rel.relkind WHEN 'v' THEN 'VIEW' ELSE 'TABLE' END,
                           rel.name, owner::regrole);
        END LOOP;
    END IF;

    IF owner IS NOT NULL AND no_statistics THEN
        PERFORM run_tracker.as_owner('run_tracker.stat_deltas', 'DELETE FROM run_tracker.stat_deltas');
        PERFORM run_tracker.count_history();
    END IF;

    -- what was written while there were no triggers is not in the totals, and what was deleted left its history behind
    IF owner IS NOT NULL AND NOT complete THEN
        PERFORM run_tracker.as_owner('run_tracker.transitions',
            'DELETE FROM run_tracker.transitions t
             WHERE NOT EXISTS (SELECT FROM run_tracker.runs r WHERE r.run_id = t.run_id)');
        -- pieces that do not continue the response that their task has now
        PERFORM run_tracker.as_owner('run_tracker.response_chunks',
            'DELETE FROM run_tracker.response_chunks c USING run_tracker.tasks t
             WHERE t.run_id = c.run_id AND t.task_id = c.task_id
               AND length(t.response) IS DISTINCT FROM (
                   SELECT min(p.start_offset) FROM run_tracker.response_chunks p
                   WHERE p.run_id = c.run_id AND p.task_id = c.task_id)');
        PERFORM run_tracker.as_owner('run_tracker.tasks',
            'UPDATE run_tracker.tasks t SET response = t.response || c.rest
             FROM (SELECT p.run_id, p.task_id, string_agg(p.content, '''' ORDER BY p.start_offset) AS rest
                   FROM run_tracker.response_chunks p GROUP BY p.run_id, p.task_id) c
             WHERE t.run_id = c.run_id AND t.task_id = c.task_id
               AND t.phase NOT IN (''queued'', ''active'', ''waiting'')');
        PERFORM run_tracker.as_owner('run_tracker.response_chunks',
            'DELETE FROM run_tracker.response_chunks c
             WHERE NOT EXISTS (SELECT FROM run_tracker.tasks t
                               WHERE t.run_id = c.run_id AND t.task_id = c.task_id
                                 AND t.phase IN (''queued'', ''active'', ''waiting''))');
        PERFORM run_tracker.as_owner('run_tracker.open_runs',
            'DELETE FROM run_tracker.open_runs o
             WHERE NOT EXISTS (SELECT FROM run_tracker.runs r
                               WHERE r.run_id = o.run_id AND r.phase IN (''queued'', ''active'', ''waiting''))');
        PERFORM run_tracker.rebuild_open_runs();
        PERFORM run_tracker.rebuild_totals();
    END IF;
    -- runs may have come in while there were no triggers
    PERFORM run_tracker.wake_worker();
    RETURN run_tracker.tracker_version();
END
$install$;
COMMENT ON FUNCTION run_tracker.install() IS
'Creates what is missing of tables, indexes, triggers, policies, views and built-in lifecycles, and returns the version. CREATE EXTENSION has done it; call it after DROP EXTENSION ... CASCADE and CREATE EXTENSION, or after a dump of an older version was restored: totals are put right then. Can be repeated. For the owner of the tables.';

-- Functions are for those that grant_*() names.  Default privileges of the database may have granted more.
DO $$
DECLARE
    f record;
BEGIN
    FOR f IN
        SELECT DISTINCT p.oid::pg_catalog.regprocedure AS name,
               CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::pg_catalog.regrole::text END AS grantee
        FROM pg_catalog.pg_proc p,
             pg_catalog.aclexplode(COALESCE(p.proacl, pg_catalog.acldefault('f', p.proowner))) a
        WHERE p.pronamespace OPERATOR(pg_catalog.=) 'run_tracker'::pg_catalog.regnamespace
          AND a.grantee OPERATOR(pg_catalog.<>) p.proowner
          AND EXISTS (SELECT FROM pg_catalog.pg_depend d, pg_catalog.pg_extension e
                      WHERE d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_proc'::pg_catalog.regclass
                        AND d.objid OPERATOR(pg_catalog.=) p.oid AND d.deptype OPERATOR(pg_catalog.=) 'e'
                        AND d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_extension'::pg_catalog.regclass
                        AND d.refobjid OPERATOR(pg_catalog.=) e.oid
                        AND e.extname OPERATOR(pg_catalog.=) 'run_tracker')
    LOOP
        EXECUTE pg_catalog.format('REVOKE ALL ON FUNCTION %s FROM %s', f.name, f.grantee);
    END LOOP;
END
$$;

-- A new schema gets its tables; then tables and schema leave the extension, so that they are the user's.
DO $$
DECLARE
    o record;
BEGIN
    IF pg_catalog.current_setting('run_tracker_install.fresh') OPERATOR(pg_catalog.<>) 'on' THEN
        RETURN;
    END IF;
    FOR o IN
        SELECT CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::pg_catalog.regrole::text END AS grantee
        FROM pg_catalog.pg_namespace n, pg_catalog.aclexplode(n.nspacl) a
        WHERE n.nspname OPERATOR(pg_catalog.=) 'run_tracker' AND a.grantee OPERATOR(pg_catalog.<>) n.nspowner
    LOOP
        EXECUTE pg_catalog.format('REVOKE ALL ON SCHEMA run_tracker FROM %s', o.grantee);
    END LOOP;
    PERFORM run_tracker.install();
    FOR o IN
        SELECT i.type, i.identity
        FROM pg_catalog.pg_extension e
             JOIN pg_catalog.pg_depend d
                 ON d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_extension'::pg_catalog.regclass
                AND d.refobjid OPERATOR(pg_catalog.=) e.oid AND d.deptype OPERATOR(pg_catalog.=) 'e',
             pg_catalog.pg_identify_object(d.classid, d.objid, d.objsubid) i
        WHERE e.extname OPERATOR(pg_catalog.=) 'run_tracker'
          AND i.type OPERATOR(pg_catalog.=) ANY ('{table,sequence,view,schema}'::pg_catalog.text[])
          AND i.identity OPERATOR(pg_catalog.<>) ALL ('{run_tracker.worker_status,run_tracker.metrics,
              run_tracker.rate_limits,run_tracker.circuit_breakers}'::pg_catalog.text[])
    LOOP
        EXECUTE pg_catalog.format('ALTER EXTENSION run_tracker DROP %s %s', o.type, o.identity);
    END LOOP;
END
$$;

-- The worker learns of the extension as soon as it is there.
DO $$ BEGIN PERFORM run_tracker.wake_worker(); END $$;
