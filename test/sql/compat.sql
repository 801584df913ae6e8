--
-- create_compat() and drop_compat() themselves: arguments, names that are taken, owners, and what is left behind.
--
\getenv abs_srcdir PG_ABS_SRCDIR
\set common :abs_srcdir '/sql/common.psql'
\i :common
CALL pg_temp.forget();

CREATE SCHEMA regress_compat;
CREATE SCHEMA "Regress 'My' ""App""";
CREATE ROLE regress_compat_client;
CREATE ROLE regress_compat_service;
CREATE ROLE regress_compat_stranger;
SELECT run_tracker.grant_client('regress_compat_client');
SELECT run_tracker.grant_service('regress_compat_service');
GRANT USAGE, CREATE ON SCHEMA regress_compat TO PUBLIC;
GRANT USAGE ON SCHEMA "Regress 'My' ""App""" TO PUBLIC;
-- everything that may come and go: relations, functions, indexes, statistics and policies
CREATE FUNCTION pg_temp.objects() RETURNS SETOF text LANGUAGE sql AS $$
    SELECT format('%s %s', CASE c.relkind WHEN 'v' THEN 'view' WHEN 'i' THEN 'index' ELSE 'relation' END, c.relname) FROM pg_class c
    WHERE c.relnamespace::regnamespace::text ~* '^"?(regress|run_tracker)' AND c.relkind <> 'c'
    UNION ALL SELECT format('function %s', p.proname) FROM pg_proc p WHERE p.pronamespace::regnamespace::text ~* '^"?regress'
    UNION ALL SELECT format('statistics %s', s.stxname) FROM pg_statistic_ext s
    UNION ALL SELECT format('policy %s of %s', p.polname, p.polrelid::regclass) FROM pg_policy p
$$;
CREATE TEMP TABLE before AS SELECT o FROM pg_temp.objects() o;
GRANT SELECT ON before TO PUBLIC;

--
-- Arguments
--
CALL pg_temp.try($$SELECT run_tracker.create_compat(NULL, 'regress_compat')$$);
CALL pg_temp.try($$SELECT run_tracker.create_compat('', 'regress_compat')$$);
CALL pg_temp.try($$SELECT run_tracker.create_compat('Spar', 'regress_compat')$$);
CALL pg_temp.try($$SELECT run_tracker.create_compat('spar''; DROP TABLE x; --', 'regress_compat')$$);
CALL pg_temp.try($$SELECT run_tracker.create_compat('spar', NULL)$$);
CALL pg_temp.try($$SELECT run_tracker.create_compat('spar', 'no_such_schema')$$);
CALL pg_temp.try($$SELECT run_tracker.create_compat('spar', 0)$$);
CALL pg_temp.try($$SELECT run_tracker.create_compat('spar', 4294967295)$$);
CALL pg_temp.try($$SELECT run_tracker.create_compat('spar', 'run_tracker')$$);
CALL pg_temp.try($$SELECT run_tracker.create_compat('spar', 'pg_catalog')$$);
CALL pg_temp.try($$SELECT run_tracker.create_compat('spar', 'information_schema')$$);
SELECT count(*) FROM (SELECT run_tracker.create_compat('spar', pg_my_temp_schema()::regnamespace) WHERE false) s;
CALL pg_temp.try($$SELECT run_tracker.create_compat('spar', 'regress_compat', '[]')$$);
CALL pg_temp.try($$SELECT run_tracker.create_compat('spar', 'regress_compat', '{"run_id": "text"}')$$);
CALL pg_temp.try($$SELECT run_tracker.create_compat('spar', 'regress_compat', '{"user_id": "varchar"}')$$);
CALL pg_temp.try($$SELECT run_tracker.create_compat('spar', 'regress_compat', '{"user_id": null}')$$);
CALL pg_temp.try($$SELECT run_tracker.create_compat('spar', 'regress_compat', '{"user_id": ["uuid"]}')$$);
CALL pg_temp.try($$SELECT run_tracker.create_compat('iflow', 'regress_compat', public_rows => true)$$);
CALL pg_temp.try($$SELECT run_tracker.drop_compat(NULL, 'regress_compat')$$);
CALL pg_temp.try($$SELECT run_tracker.drop_compat('x', 'regress_compat')$$);
CALL pg_temp.try($$SELECT run_tracker.drop_compat('spar', NULL)$$);
CALL pg_temp.try($$SELECT run_tracker.drop_compat('spar', 'run_tracker')$$);
-- nothing to drop
SELECT run_tracker.drop_compat('spar', 'regress_compat');
CREATE SCHEMA "$body$ regress";
CALL pg_temp.try($_$SELECT run_tracker.create_compat('spar', '"$body$ regress"')$_$);
DROP SCHEMA "$body$ regress";
-- nothing is made where something is refused
SELECT o FROM pg_temp.objects() o EXCEPT SELECT o FROM before;

-- for the owner of the tables
SET ROLE regress_compat_stranger;
CALL pg_temp.try($$SELECT run_tracker.create_compat('spar', 'regress_compat')$$);
SET ROLE regress_compat_client;
CALL pg_temp.try($$SELECT run_tracker.create_compat('spar', 'regress_compat')$$);
CALL pg_temp.try($$SELECT run_tracker.drop_compat('spar', 'regress_compat')$$);
SET ROLE regress_compat_service;
CALL pg_temp.try($$SELECT run_tracker.create_compat('spar', 'regress_compat')$$);
CALL pg_temp.try($$SELECT run_tracker.drop_compat('spar', 'regress_compat')$$);
CALL pg_temp.try($$SELECT run_tracker.compat_public_rows('workflow', true)$$);
RESET ROLE;
BEGIN READ ONLY;
CALL pg_temp.try($$SELECT run_tracker.create_compat('spar', 'regress_compat')$$);
ROLLBACK;

--
-- Names that are taken, by whatever it is
--
CREATE TABLE regress_compat.spar_runs (mine int);
CALL pg_temp.try($$SELECT run_tracker.create_compat('spar', 'regress_compat')$$);
ALTER TABLE regress_compat.spar_runs RENAME TO spar_runs_old;
CREATE VIEW regress_compat.spar_runs AS SELECT 1 AS mine;
CALL pg_temp.try($$SELECT run_tracker.create_compat('spar', 'regress_compat')$$);
-- the comment of another application's, and that of this one on what is a stranger's
COMMENT ON VIEW regress_compat.spar_runs IS 'x (create_compat: iflow)';
CALL pg_temp.try($$SELECT run_tracker.create_compat('spar', 'regress_compat')$$);
DROP VIEW regress_compat.spar_runs;
SET ROLE regress_compat_stranger;
CREATE VIEW regress_compat.spar_runs AS SELECT 1 AS mine;
COMMENT ON VIEW regress_compat.spar_runs IS 'x (create_compat: spar)';
CREATE FUNCTION regress_compat.cleanup_spar_runs(older_than interval DEFAULT '30 days') RETURNS bigint LANGUAGE sql RETURN 1;
COMMENT ON FUNCTION regress_compat.cleanup_spar_runs IS 'x (create_compat: spar)';
RESET ROLE;
CALL pg_temp.try($$SELECT run_tracker.create_compat('spar', 'regress_compat')$$);
SELECT run_tracker.drop_compat('spar', 'regress_compat');
DROP VIEW regress_compat.spar_runs;
CALL pg_temp.try($$SELECT run_tracker.create_compat('spar', 'regress_compat')$$);
DROP FUNCTION regress_compat.cleanup_spar_runs;
CREATE SEQUENCE regress_compat.spar_runs;
CALL pg_temp.try($$SELECT run_tracker.create_compat('spar', 'regress_compat')$$);
DROP SEQUENCE regress_compat.spar_runs;
CREATE FUNCTION regress_compat.spar_runs_write(int) RETURNS int LANGUAGE sql RETURN 1;
CALL pg_temp.try($$SELECT run_tracker.create_compat('spar', 'regress_compat')$$);
DROP FUNCTION regress_compat.spar_runs_write;
SELECT o FROM pg_temp.objects() o EXCEPT SELECT o FROM before;
-- one's own function of the same name and other arguments
SELECT count(*) FROM run_tracker.create_compat('spar', 'regress_compat');
CREATE FUNCTION regress_compat.spar_user_stats(int) RETURNS int LANGUAGE sql RETURN 1;
CALL pg_temp.try($$SELECT run_tracker.create_compat('spar', 'regress_compat')$$);
DROP FUNCTION regress_compat.spar_user_stats(int);
SELECT cardinality(run_tracker.drop_compat('spar', 'regress_compat'));
DROP TABLE regress_compat.spar_runs_old;

--
-- All of them, in a schema whose name wants quotes, again and again
--
CREATE TEMP TABLE applications AS SELECT unnest('{spar,iflow,ai_runs,spark,workflow}'::text[]) AS a;
SELECT a, cardinality(run_tracker.create_compat(a, '"Regress ''My'' ""App"""')) > 0 AS made FROM applications;
CREATE TEMP TABLE made AS SELECT o FROM pg_temp.objects() o;
SELECT a, cardinality(run_tracker.create_compat(a, '"Regress ''My'' ""App"""')) > 0 AS made FROM applications;
SELECT o AS twice FROM pg_temp.objects() o EXCEPT SELECT o FROM made;
SELECT o AS gone FROM made EXCEPT SELECT o FROM pg_temp.objects() o;
-- everything has a comment and the owner who called, and everyone may call it
SELECT c.relname, a.attname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
WHERE c.relnamespace = '"Regress ''My'' ""App"""'::regnamespace AND c.relkind = 'v'
  AND (obj_description(c.oid, 'pg_class') IS NULL OR col_description(c.oid, a.attnum) IS NULL OR c.relowner <> CURRENT_USER::regrole
       OR NOT has_table_privilege('regress_compat_stranger', c.oid, 'SELECT') OR c.reloptions <> '{security_invoker=true}');
SELECT p.proname FROM pg_proc p WHERE p.pronamespace = '"Regress ''My'' ""App"""'::regnamespace
  AND (obj_description(p.oid, 'pg_proc') IS NULL OR p.proowner <> CURRENT_USER::regrole OR p.prosecdef OR p.proconfig IS NULL
       OR NOT has_function_privilege('regress_compat_stranger', p.oid, 'EXECUTE'));
SELECT o FROM (SELECT o FROM pg_temp.objects() o EXCEPT SELECT o FROM before) n WHERE o !~ '^(function|view)' ORDER BY 1;
SET request.jwt.claims = '{"sub": "a0000000-0000-4000-8000-000000000001"}';
SET ROLE regress_compat_client;
SET search_path = "Regress 'My' ""App""";
INSERT INTO spar_runs (run_id) VALUES ('10000000-0000-4000-8000-000000000001') RETURNING status;
UPDATE spar_runs SET status = 'processing' RETURNING status;
INSERT INTO workflow_executions (workflow_id) VALUES ('x') RETURNING status;
SELECT workflow_id FROM workflow_history();
SELECT workflow_id, total_executions FROM workflow_execution_stats('x');
INSERT INTO iflow_jobs (platform) VALUES ('x') RETURNING status;
SELECT jsonb_array_length(iflow_job_list() -> 'jobs') AS jobs;
INSERT INTO ai_runs (name) VALUES ('x') RETURNING messages;
SELECT count(*) FROM spar_user_stats(), active_workflow_executions(), workflow_sessions();
DELETE FROM spar_runs RETURNING status;
RESET search_path;
RESET ROLE;
DELETE FROM run_tracker.runs;

-- a view that the user renamed stays one of create_compat()
ALTER VIEW "Regress 'My' ""App""".spar_runs RENAME TO spar_jobs;
SELECT count(*) FROM run_tracker.create_compat('spar', '"Regress ''My'' ""App"""');
SELECT o FROM pg_temp.objects() o WHERE o ~ 'view spar_(runs|jobs)' ORDER BY 1;
-- a view of the user's that depends on one
CREATE VIEW regress_compat.mine AS SELECT status FROM "Regress 'My' ""App""".spar_jobs;
CALL pg_temp.try($_$SELECT run_tracker.drop_compat('spar', '"Regress ''My'' ""App"""')$_$);
SELECT o FROM pg_temp.objects() o WHERE o ~ 'view spar_(runs|jobs)' ORDER BY 1;
DROP VIEW regress_compat.mine;
CREATE VIEW regress_compat.mine AS SELECT * FROM "Regress 'My' ""App""".active_workflow_executions();
CALL pg_temp.try($_$SELECT run_tracker.drop_compat('workflow', '"Regress ''My'' ""App"""')$_$);
DROP VIEW regress_compat.mine;

-- two schemas, of which one goes: what both need stays
SELECT a, cardinality(run_tracker.create_compat(a, 'regress_compat')) > 0 AS made FROM applications;
SELECT a, cardinality(run_tracker.drop_compat(a, '"Regress ''My'' ""App"""')) > 0 AS dropped FROM applications;
SELECT o FROM (SELECT o FROM pg_temp.objects() o EXCEPT SELECT o FROM before) n WHERE o !~ '^(function|view)' ORDER BY 1;
SELECT a, cardinality(run_tracker.drop_compat(a, 'regress_compat')) > 0 AS dropped FROM applications ORDER BY a DESC;
SELECT o AS left_behind FROM pg_temp.objects() o EXCEPT SELECT o FROM before;
SELECT o AS gone FROM before EXCEPT SELECT o FROM pg_temp.objects() o;

--
-- Types of ids
--
CREATE FUNCTION pg_temp.ids() RETURNS TABLE (col text, type text) LANGUAGE sql AS $$
    SELECT c.relname || '.' || a.attname, format_type(a.atttypid, a.atttypmod) FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
    WHERE c.relnamespace = 'regress_compat'::regnamespace AND a.attname IN ('user_id', 'journal_entry_id', 'workflow_id', 'session_id')
      AND c.relname IN ('spar_runs', 'workflow_executions') ORDER BY 1
$$;
SELECT count(*) FROM run_tracker.create_compat('workflow', 'regress_compat', '{"user_id": "text", "workflow_id": "uuid", "session_id": "bigint"}') w,
    run_tracker.create_compat('spar', 'regress_compat', '{"user_id": "text", "journal_entry_id": "integer"}');
SELECT * FROM pg_temp.ids();
SELECT o FROM (SELECT o FROM pg_temp.objects() o EXCEPT SELECT o FROM before) n WHERE o !~ '^(function|view)' ORDER BY 1;
INSERT INTO regress_compat.workflow_executions (workflow_id, user_id, session_id) VALUES ('10000000-0000-4000-8000-000000000001', 'alice', -12);
INSERT INTO regress_compat.spar_runs (user_id, journal_entry_id) VALUES ('alice', 123), ('', NULL), ('bob', -2147483648);
SELECT workflow_id, user_id, session_id FROM run_tracker.runs WHERE lifecycle = 'workflow';
SELECT workflow_id, user_id, session_id FROM regress_compat.workflow_executions WHERE user_id = 'alice' AND session_id = -12 AND workflow_id = '10000000-0000-4000-8000-000000000001';
SELECT workflow_id, user_id FROM regress_compat.workflow_history('10000000-0000-4000-8000-000000000001');
SELECT workflow_id, total_executions FROM regress_compat.workflow_execution_stats('10000000-0000-4000-8000-000000000001');
SELECT user_id, journal_entry_id FROM regress_compat.spar_runs ORDER BY user_id;
SELECT total_runs FROM regress_compat.spar_user_stats('alice');
-- what others have written and is no id of the application
INSERT INTO run_tracker.runs (lifecycle, user_id, subject_id, workflow_id, session_id) VALUES
    ('spar', 'carol', '12x', NULL, NULL), ('spar', 'carol', '2147483648', NULL, NULL), ('workflow', 'carol', NULL, 'x', '1e3'), ('workflow', 'carol', NULL, '', '');
SELECT user_id, journal_entry_id FROM regress_compat.spar_runs WHERE user_id = 'carol';
SELECT user_id, workflow_id, session_id FROM regress_compat.workflow_executions WHERE user_id = 'carol';
-- another type is another view
CALL pg_temp.try($$SELECT run_tracker.create_compat('workflow', 'regress_compat')$$);
SELECT cardinality(run_tracker.drop_compat('workflow', 'regress_compat')), cardinality(run_tracker.drop_compat('spar', 'regress_compat'));
SELECT o AS left_behind FROM pg_temp.objects() o EXCEPT SELECT o FROM before;
SELECT count(*) FROM run_tracker.create_compat('workflow', 'regress_compat', '{"user_id": "bigint", "workflow_id": "integer", "session_id": "uuid"}') w,
    run_tracker.create_compat('spar', 'regress_compat', '{"user_id": "integer", "journal_entry_id": "text"}');
SELECT * FROM pg_temp.ids();
INSERT INTO regress_compat.workflow_executions (workflow_id, user_id, session_id) VALUES (7, 9223372036854775807, '10000000-0000-4000-8000-00000000000F') RETURNING workflow_id, user_id, session_id;
INSERT INTO regress_compat.workflow_executions (workflow_id, user_id) VALUES (-2147483648, -9223372036854775808) RETURNING workflow_id, user_id;
SELECT count(*) FROM regress_compat.workflow_executions WHERE user_id = 9223372036854775807;
DELETE FROM run_tracker.runs;
SELECT cardinality(run_tracker.drop_compat('workflow', 'regress_compat')), cardinality(run_tracker.drop_compat('spar', 'regress_compat'));
SELECT count(*) FROM run_tracker.create_compat('spar', 'regress_compat', NULL, NULL);
SELECT * FROM pg_temp.ids();
SELECT cardinality(run_tracker.drop_compat('spar', 'regress_compat'));

--
-- Privileges that new objects get
--
ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO regress_compat_stranger;
SELECT count(*) FROM run_tracker.create_compat('workflow', 'regress_compat');
SELECT a.grantee::regrole, string_agg(a.privilege_type, ', ' ORDER BY a.privilege_type) FROM pg_class c, aclexplode(c.relacl) a
WHERE c.oid = 'regress_compat.workflow_executions'::regclass AND a.grantee <> c.relowner GROUP BY 1 ORDER BY 1;
-- and what the owner says about them stays
REVOKE ALL ON regress_compat.workflow_executions FROM PUBLIC;
REVOKE ALL ON FUNCTION regress_compat.workflow_sessions FROM PUBLIC;
GRANT SELECT, INSERT ON regress_compat.workflow_executions TO regress_compat_client;
SELECT count(*) FROM run_tracker.create_compat('workflow', 'regress_compat');
SELECT a.grantee::regrole, string_agg(a.privilege_type, ', ' ORDER BY a.privilege_type) FROM pg_class c, aclexplode(c.relacl) a
WHERE c.oid = 'regress_compat.workflow_executions'::regclass AND a.grantee <> c.relowner GROUP BY 1 ORDER BY 1;
SELECT has_function_privilege('regress_compat_client', 'regress_compat.workflow_sessions(interval)', 'EXECUTE') AS granted_again;
SET ROLE regress_compat_client;
INSERT INTO regress_compat.workflow_executions (workflow_id) VALUES ('x') RETURNING status;
SELECT workflow_id FROM regress_compat.workflow_history();
SET ROLE regress_compat_stranger;
CALL pg_temp.try($$SELECT FROM regress_compat.workflow_executions$$);
CALL pg_temp.try($$SELECT FROM regress_compat.workflow_history()$$);
RESET ROLE;
ALTER DEFAULT PRIVILEGES GRANT EXECUTE ON FUNCTIONS TO PUBLIC;
ALTER DEFAULT PRIVILEGES REVOKE ALL ON TABLES FROM regress_compat_stranger;
SELECT cardinality(run_tracker.drop_compat('workflow', 'regress_compat'));

CALL pg_temp.forget();
DROP SCHEMA regress_compat;
DROP SCHEMA "Regress 'My' ""App""";
DROP OWNED BY regress_compat_client, regress_compat_service;
DROP ROLE regress_compat_client, regress_compat_service, regress_compat_stranger;
