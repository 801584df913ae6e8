--
-- Installing: the extension owns code, the user owns tables.  install() can be repeated, a schema of somebody else's
-- is refused, and dropping the extension loses no row: everything is back after CREATE EXTENSION and install().
--
\getenv abs_srcdir PG_ABS_SRCDIR
\set common :abs_srcdir '/sql/common.psql'
\i :common

-- The catalogs as a text, to see whether anything has changed.
\set shape 'SELECT md5(string_agg(line, E''\\n'' ORDER BY line)) FROM (SELECT format(''%s %s %s %s %s'', c.relname, c.relkind, c.relacl, c.relowner, obj_description(c.oid)) AS line FROM pg_class c WHERE c.relnamespace = ''run_tracker''::regnamespace UNION ALL SELECT format(''%s %s %s %s %s'', a.attrelid::regclass, a.attname, a.atttypid, a.attacl, pg_get_expr(d.adbin, d.adrelid)) FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum JOIN pg_class c ON c.oid = a.attrelid WHERE c.relnamespace = ''run_tracker''::regnamespace UNION ALL SELECT pg_get_triggerdef(t.oid) FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid WHERE c.relnamespace = ''run_tracker''::regnamespace AND NOT t.tgisinternal UNION ALL SELECT pg_get_constraintdef(c.oid) FROM pg_constraint c WHERE c.connamespace = ''run_tracker''::regnamespace UNION ALL SELECT format(''%s %s %s %s %s'', polrelid::regclass, polname, polcmd, pg_get_expr(polqual, polrelid), obj_description(oid)) FROM pg_policy UNION ALL SELECT pg_get_viewdef(c.oid) FROM pg_class c WHERE c.relkind = ''v'' AND c.relnamespace = ''run_tracker''::regnamespace) s'

CREATE DATABASE regress_install TEMPLATE template0;
\c regress_install
\i :common
CREATE EXTENSION run_tracker;

-- members of the extension are functions, and nothing else
SELECT DISTINCT i.type FROM pg_depend d, pg_extension e, pg_identify_object(d.classid, d.objid, d.objsubid) i
WHERE d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid AND d.deptype = 'e' AND e.extname = 'run_tracker';
SELECT relname, relkind FROM pg_class WHERE relnamespace = 'run_tracker'::regnamespace AND relkind NOT IN ('i', 'S')
ORDER BY relname;
SELECT version = run_tracker.tracker_version() AS current FROM run_tracker.installation;
SELECT nspacl FROM pg_namespace WHERE nspname = 'run_tracker';

--
-- install() again: nothing changes, not even what the user has added or changed
--
CREATE TABLE run_tracker.own (id integer);
ALTER TABLE run_tracker.runs ADD COLUMN own_column text DEFAULT 'own';
CREATE INDEX own_index ON run_tracker.runs (own_column);
CREATE POLICY own_policy ON run_tracker.runs FOR SELECT USING (false);
SELECT run_tracker.define_lifecycle('run', '{"initial": "go", "states": {"go": {"phase": "active", "next": ["end"]}, "end": {"phase": "succeeded"}}}');
:shape \gset before_
SELECT run_tracker.install();
:shape \gset after_
SELECT :'before_md5' = :'after_md5' AS unchanged;
SELECT run_tracker.lifecycle_diagram('run') ~ 'go' AS lifecycle_kept;
-- what is missing comes back
DROP TRIGGER run_tracker_update ON run_tracker.tasks;
DROP TRIGGER zz_run_tracker_before ON run_tracker.artifacts;
DROP TRIGGER run_tracker_truncate ON run_tracker.retrievals;
DROP POLICY own_rows ON run_tracker.logs;
DROP POLICY own_rows ON run_tracker.response_chunks;
DROP VIEW run_tracker.recent_runs, run_tracker.run_summary, run_tracker.active_runs;
DROP INDEX run_tracker.open_runs_queue_idx, run_tracker.open_runs_kind_queue_idx, run_tracker.open_runs_deadline_at_idx;
ALTER TABLE run_tracker.runs ALTER COLUMN run_id DROP DEFAULT;
ALTER TABLE run_tracker.artifacts ALTER COLUMN artifact_id DROP DEFAULT;
ALTER TABLE run_tracker.retrievals ALTER COLUMN retrieval_id DROP DEFAULT;
SELECT run_tracker.install();
:shape \gset after_
SELECT :'before_md5' = :'after_md5' AS unchanged;

--
-- Missing tables: an error that tells the way out
--
BEGIN;
SET LOCAL client_min_messages = warning;
DROP TABLE run_tracker.runs, run_tracker.tasks, run_tracker.response_chunks, run_tracker.messages, run_tracker.logs, run_tracker.retrievals,
    run_tracker.artifacts, run_tracker.transitions, run_tracker.run_totals, run_tracker.open_runs, run_tracker.stat_deltas,
    run_tracker.stat_totals, run_tracker.lifecycles, run_tracker.installation CASCADE;
CALL pg_temp.try('SELECT run_tracker.create_run()');
CALL pg_temp.try('SELECT run_tracker.start_run(run_tracker.uuidv7())');
CALL pg_temp.try('SELECT run_tracker.complete_run(run_tracker.uuidv7())');
CALL pg_temp.try('SELECT run_tracker.update_progress(run_tracker.uuidv7(), 1)');
CALL pg_temp.try('SELECT run_tracker.create_task(run_tracker.uuidv7())');
CALL pg_temp.try('SELECT run_tracker.complete_task(run_tracker.uuidv7())');
CALL pg_temp.try($$SELECT run_tracker.add_message(run_tracker.uuidv7(), 'user', 'x')$$);
CALL pg_temp.try('SELECT run_tracker.run_messages(run_tracker.uuidv7())');
CALL pg_temp.try($$SELECT run_tracker.add_log(run_tracker.uuidv7(), 'x')$$);
CALL pg_temp.try($$SELECT run_tracker.append_response(run_tracker.uuidv7(), 'x')$$);
CALL pg_temp.try('SELECT run_tracker.task_response(run_tracker.uuidv7())');
CALL pg_temp.try('SELECT run_tracker.read_response(run_tracker.uuidv7())');
CALL pg_temp.try($$SELECT run_tracker.log_retrieval(run_tracker.uuidv7(), 'x')$$);
CALL pg_temp.try($$SELECT run_tracker.add_artifact(run_tracker.uuidv7(), 'x')$$);
CALL pg_temp.try($$SELECT run_tracker.lifecycle_diagram('run')$$);
CALL pg_temp.try($$SELECT run_tracker.define_lifecycle('x', '{}')$$);
CALL pg_temp.try($$SELECT run_tracker.drop_lifecycle('x')$$);
CALL pg_temp.try('SELECT run_tracker.rebuild_totals()');
CALL pg_temp.try($$SELECT run_tracker.claim_runs('worker')$$);
CALL pg_temp.try('SELECT run_tracker.heartbeat_run(run_tracker.uuidv7())');
CALL pg_temp.try('SELECT run_tracker.release_run(run_tracker.uuidv7())');
CALL pg_temp.try('SELECT run_tracker.expire_runs()');
CALL pg_temp.try('SELECT run_tracker.stuck_runs()');
CALL pg_temp.try('SELECT run_tracker.purge_runs()');
CALL pg_temp.try('SELECT run_tracker.schedule_maintenance()');
-- the same session finds the new tables
SELECT run_tracker.install();
SELECT count(run_tracker.create_run(user_id => 'alice')) FROM generate_series(1, 2);
ROLLBACK;
-- … and after the rollback the old ones
SELECT count(*) FROM run_tracker.runs;
INSERT INTO run_tracker.runs (lifecycle, user_id, name) VALUES ('spar', 'alice', 'old table') RETURNING own_column, status;
-- one missing table is enough
BEGIN;
INSERT INTO run_tracker.tasks (run_id, task_id) SELECT run_id, '11000000-0000-0000-0000-000000000001' FROM run_tracker.runs;
SELECT run_tracker.append_response('11000000-0000-0000-0000-000000000001', 'x');
DROP TABLE run_tracker.response_chunks;
CALL pg_temp.try($$SELECT run_tracker.append_response('11000000-0000-0000-0000-000000000001', 'x')$$);
CALL pg_temp.try($$SELECT run_tracker.task_response('11000000-0000-0000-0000-000000000001')$$);
SELECT run_tracker.install();
SELECT run_tracker.append_response('11000000-0000-0000-0000-000000000001', 'x');
ROLLBACK;
-- functions in SQL find no tables either
BEGIN;
DROP TABLE run_tracker.logs CASCADE;
DO $$
BEGIN
    PERFORM * FROM run_tracker.run_logs(run_tracker.uuidv7());
EXCEPTION WHEN OTHERS THEN
    RAISE INFO '%', SQLSTATE;
END
$$;
DO $$
BEGIN
    PERFORM * FROM run_tracker.check_totals();
EXCEPTION WHEN OTHERS THEN
    RAISE INFO '%', SQLSTATE;
END
$$;
ROLLBACK;
-- a column that is missing
BEGIN;
ALTER TABLE run_tracker.tasks RENAME COLUMN cost TO price;
CALL pg_temp.try('SELECT run_tracker.create_task(run_id) FROM run_tracker.runs');
ROLLBACK;

--
-- DROP EXTENSION
--
DELETE FROM run_tracker.runs;
INSERT INTO run_tracker.runs (run_id, lifecycle, user_id, name, kind) VALUES
    ('10000000-0000-0000-0000-000000000001', 'spar', 'alice', 'one', 'k'), ('10000000-0000-0000-0000-000000000002', 'spar', 'bob', 'two', 'k'),
    ('10000000-0000-0000-0000-000000000003', 'spar', 'bob', 'three', 'k');
INSERT INTO run_tracker.tasks (run_id, task_id, status, input_tokens, cost) VALUES
    ('10000000-0000-0000-0000-000000000001', '11000000-0000-0000-0000-000000000001', 'completed', 10, 1),
    ('10000000-0000-0000-0000-000000000002', '11000000-0000-0000-0000-000000000002', 'running', 20, 2),
    ('10000000-0000-0000-0000-000000000002', '11000000-0000-0000-0000-000000000005', 'running', 40, 4),
    ('10000000-0000-0000-0000-000000000002', '11000000-0000-0000-0000-000000000006', 'running', 80, 8),
    ('10000000-0000-0000-0000-000000000003', '11000000-0000-0000-0000-000000000007', 'running', 160, 16),
    ('10000000-0000-0000-0000-000000000001', '11000000-0000-0000-0000-000000000008', 'running', 320, 32);
-- five responses are arriving
SELECT count(run_tracker.append_response(task_id, piece)) FROM run_tracker.tasks, unnest('{one,two,three}'::text[]) piece WHERE status <> 'completed';
SELECT run_tracker.log_retrieval('10000000-0000-0000-0000-000000000001', 'hybrid', retrieval_id => '12000000-0000-0000-0000-000000000001') AS retrieval,
       run_tracker.add_artifact('10000000-0000-0000-0000-000000000001', 'file', artifact_id => '13000000-0000-0000-0000-000000000001') AS artifact;
SELECT run_tracker.add_message('10000000-0000-0000-0000-000000000001', 'user', 'hello') AS message,
       run_tracker.add_log('10000000-0000-0000-0000-000000000001', 'bad', 'ERROR') AS log,
       run_tracker.start_run('10000000-0000-0000-0000-000000000001') AS started;
CREATE TABLE before AS SELECT 'run' AS what, to_jsonb(r) AS row FROM run_tracker.runs r
    UNION ALL SELECT 'task', to_jsonb(t) FROM run_tracker.tasks t UNION ALL SELECT 'message', to_jsonb(m) FROM run_tracker.messages m
    UNION ALL SELECT 'log', to_jsonb(l) FROM run_tracker.logs l UNION ALL SELECT 'transition', to_jsonb(t) FROM run_tracker.transitions t
    UNION ALL SELECT 'total', to_jsonb(t) FROM run_tracker.run_totals t UNION ALL SELECT 'open', to_jsonb(o) FROM run_tracker.open_runs o
    UNION ALL SELECT 'lifecycle', to_jsonb(l) FROM run_tracker.lifecycles l
    UNION ALL SELECT 'piece', to_jsonb(c) FROM run_tracker.response_chunks c UNION ALL SELECT 'retrieval', to_jsonb(r) FROM run_tracker.retrievals r
    UNION ALL SELECT 'artifact', to_jsonb(a) FROM run_tracker.artifacts a UNION ALL SELECT 'delta', to_jsonb(d) FROM run_tracker.stat_deltas d
    UNION ALL SELECT 'statistic', to_jsonb(t) FROM run_tracker.stat_totals t;
:shape \gset before_

\set VERBOSITY terse
DROP EXTENSION run_tracker;
\echo :LAST_ERROR_SQLSTATE
SET client_min_messages = warning;
DROP EXTENSION run_tracker CASCADE;
\set VERBOSITY default
-- nothing is lost but code: no row, no column, no table
SELECT what, count(*), bool_and(row IN (SELECT to_jsonb(r) FROM run_tracker.runs r UNION ALL SELECT to_jsonb(t) FROM run_tracker.tasks t
    UNION ALL SELECT to_jsonb(m) FROM run_tracker.messages m UNION ALL SELECT to_jsonb(l) FROM run_tracker.logs l
    UNION ALL SELECT to_jsonb(t) FROM run_tracker.transitions t UNION ALL SELECT to_jsonb(t) FROM run_tracker.run_totals t
    UNION ALL SELECT to_jsonb(o) FROM run_tracker.open_runs o UNION ALL SELECT to_jsonb(l) FROM run_tracker.lifecycles l
    UNION ALL SELECT to_jsonb(c) FROM run_tracker.response_chunks c UNION ALL SELECT to_jsonb(r) FROM run_tracker.retrievals r
    UNION ALL SELECT to_jsonb(a) FROM run_tracker.artifacts a UNION ALL SELECT to_jsonb(d) FROM run_tracker.stat_deltas d
    UNION ALL SELECT to_jsonb(t) FROM run_tracker.stat_totals t)) AS kept
FROM before GROUP BY what ORDER BY what;
SELECT count(*) AS functions FROM pg_proc WHERE pronamespace = 'run_tracker'::regnamespace;
SELECT count(*) AS triggers FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
WHERE c.relnamespace = 'run_tracker'::regnamespace AND NOT t.tgisinternal;
SELECT name, task_count, total_cost, message_count, error_count, retrieval_count, artifact_count FROM run_tracker.run_summary ORDER BY name;

-- without the extension, the tables are ordinary: rows are written that nobody counts
UPDATE run_tracker.tasks SET cost = 32 WHERE task_id = '11000000-0000-0000-0000-000000000001';
UPDATE run_tracker.tasks SET status = 'completed', phase = 'succeeded', finished_at = now()
WHERE task_id = '11000000-0000-0000-0000-000000000002';
UPDATE run_tracker.tasks SET response = NULL WHERE task_id = '11000000-0000-0000-0000-000000000006';
UPDATE run_tracker.tasks SET status = 'completed', phase = 'succeeded', finished_at = now(), response = 'all of it'
WHERE task_id = '11000000-0000-0000-0000-000000000008';
INSERT INTO run_tracker.messages (run_id, seq, user_id, role, content, created_at)
VALUES ('10000000-0000-0000-0000-000000000002', 1, 'bob', 'user', 'untracked', now());
INSERT INTO run_tracker.runs (run_id, user_id, lifecycle, status, phase, priority, attempt, max_attempts, created_at, updated_at, name, kind)
VALUES ('10000000-0000-0000-0000-000000000004', 'bob', 'spar', 'pending', 'queued', 5, 1, 1, now(), now(), 'four', 'k');
INSERT INTO run_tracker.tasks (run_id, task_id, user_id, lifecycle, status, phase, attempt, created_at, updated_at)
VALUES ('10000000-0000-0000-0000-000000000004', '11000000-0000-0000-0000-000000000004', 'bob', 'task', 'pending', 'queued', 1, now(), now());
-- a run ends, another starts, a third is deleted
UPDATE run_tracker.runs SET status = 'completed', phase = 'succeeded', finished_at = now() WHERE name = 'one';
UPDATE run_tracker.runs SET status = 'processing', phase = 'active', started_at = now(), priority = 9, worker = 'w' WHERE name = 'two';
DELETE FROM run_tracker.runs WHERE name = 'three';
INSERT INTO run_tracker.retrievals (run_id, retrieval_id, user_id, retrieval_type, results_count, created_at)
VALUES ('10000000-0000-0000-0000-000000000002', '12000000-0000-0000-0000-000000000002', 'bob', 'hybrid', 0, now());
DELETE FROM run_tracker.artifacts;

CREATE EXTENSION run_tracker;
-- before install() there is nobody to put the pieces of a response together
CALL pg_temp.try($$SELECT run_tracker.append_response('11000000-0000-0000-0000-000000000005', 'x')$$);
SELECT run_tracker.install();
:shape \gset after_
SELECT :'before_md5' = :'after_md5' AS unchanged;
SELECT count(*) AS wrong FROM run_tracker.check_totals();
SELECT name, task_count, open_task_count, input_tokens, total_cost, message_count, error_count, retrieval_count, artifact_count
FROM run_tracker.run_summary ORDER BY name;
SELECT count(*) AS orphans FROM run_tracker.run_totals WHERE run_id NOT IN (SELECT run_id FROM run_tracker.runs);
-- what had arrived of the response of a task that has finished is there, and no piece that belongs to nobody
SELECT right(task_id::text, 1) AS task, phase, response, run_tracker.task_response(task_id) FROM run_tracker.tasks ORDER BY task_id;
SELECT right(task_id::text, 1) AS task, content FROM run_tracker.response_chunks ORDER BY task_id, start_offset;
-- the open set is what runs says
SELECT r.name, r.phase, o.phase AS open_phase, o.priority, o.worker FROM run_tracker.runs r
    FULL JOIN run_tracker.open_runs o USING (run_id) ORDER BY r.name;
-- and everything works again
SELECT run_tracker.append_response('11000000-0000-0000-0000-000000000005', 'four'), run_tracker.append_response('11000000-0000-0000-0000-000000000006', 'anew');
SELECT run_tracker.complete_task('11000000-0000-0000-0000-000000000004', cost => 64);
SELECT run_tracker.complete_run('10000000-0000-0000-0000-000000000002');
SELECT run_tracker.add_message('10000000-0000-0000-0000-000000000002', 'user', 'tracked');
SELECT name, status, task_count, open_task_count, total_cost, message_count FROM run_tracker.run_summary ORDER BY name;
SELECT right(task_id::text, 1) AS task, status, response FROM run_tracker.tasks WHERE run_id = '10000000-0000-0000-0000-000000000002' ORDER BY task_id;
SELECT count(*) AS pieces FROM run_tracker.response_chunks;
SELECT count(*) AS wrong FROM run_tracker.check_totals();
DROP TABLE before;

--
-- set_owner()
--
CREATE ROLE regress_install_owner;
CREATE ROLE regress_install_client;
CREATE ROLE regress_install_super SUPERUSER;
SELECT run_tracker.grant_client('regress_install_client');
CALL pg_temp.try($$SELECT run_tracker.set_owner('regress_install_super')$$);
CALL pg_temp.try($$SELECT run_tracker.set_owner(NULL)$$);
CALL pg_temp.try($$SELECT run_tracker.set_owner('-')$$);
CALL pg_temp.try($$SELECT run_tracker.set_owner('regress_no_such_role')$$);
SELECT run_tracker.set_owner('regress_install_owner');
-- all but the views that are the extension's
SELECT relkind, relowner::regrole AS owner, count(*) > 0 AS some FROM pg_class
WHERE relnamespace = 'run_tracker'::regnamespace GROUP BY relkind, relowner ORDER BY relkind;
SELECT nspowner::regrole = current_user::regrole AS schema_stays FROM pg_namespace WHERE nspname = 'run_tracker';
-- bookkeeping works as that role: for clients, for itself, also with forced row level security
ALTER TABLE run_tracker.run_totals FORCE ROW LEVEL SECURITY;
ALTER TABLE run_tracker.open_runs FORCE ROW LEVEL SECURITY;
ALTER TABLE run_tracker.transitions FORCE ROW LEVEL SECURITY;
ALTER TABLE run_tracker.tasks FORCE ROW LEVEL SECURITY;
ALTER TABLE run_tracker.response_chunks FORCE ROW LEVEL SECURITY;
ALTER TABLE run_tracker.retrievals FORCE ROW LEVEL SECURITY;
ALTER TABLE run_tracker.artifacts FORCE ROW LEVEL SECURITY;
ALTER TABLE run_tracker.stat_deltas FORCE ROW LEVEL SECURITY;
SET ROLE regress_install_client;
SET request.jwt.claims = '{"sub": "carol"}';
SELECT run_tracker.create_run('10000000-0000-0000-0000-000000000009', lifecycle => 'spar');
SELECT run_tracker.create_task('10000000-0000-0000-0000-000000000009', '11000000-0000-0000-0000-000000000009');
SELECT run_tracker.create_task('10000000-0000-0000-0000-000000000009', '11000000-0000-0000-0000-000000000008');
SELECT run_tracker.complete_task('11000000-0000-0000-0000-000000000009', cost => 3);
SELECT run_tracker.add_message('10000000-0000-0000-0000-000000000009', 'user', 'from carol');
SELECT run_tracker.append_response('11000000-0000-0000-0000-000000000008', 'to'), run_tracker.append_response('11000000-0000-0000-0000-000000000008', ' carol');
SELECT count(*) FROM run_tracker.response_chunks;
SELECT run_tracker.log_retrieval('10000000-0000-0000-0000-000000000009', 'hybrid') IS NOT NULL AS logged,
       run_tracker.add_artifact('10000000-0000-0000-0000-000000000009', 'file') IS NOT NULL AS added;
SELECT run_tracker.complete_run('10000000-0000-0000-0000-000000000009');
SELECT name, status, task_count, open_task_count, total_cost, message_count, retrieval_count, artifact_count FROM run_tracker.run_summary;
SELECT status, error, response FROM run_tracker.tasks ORDER BY task_id;
SELECT from_status, to_status, actor FROM run_tracker.transitions;
RESET ROLE;
RESET request.jwt.claims;
ALTER TABLE run_tracker.run_totals NO FORCE ROW LEVEL SECURITY;
ALTER TABLE run_tracker.open_runs NO FORCE ROW LEVEL SECURITY;
ALTER TABLE run_tracker.transitions NO FORCE ROW LEVEL SECURITY;
ALTER TABLE run_tracker.tasks NO FORCE ROW LEVEL SECURITY;
ALTER TABLE run_tracker.response_chunks NO FORCE ROW LEVEL SECURITY;
ALTER TABLE run_tracker.retrievals NO FORCE ROW LEVEL SECURITY;
ALTER TABLE run_tracker.artifacts NO FORCE ROW LEVEL SECURITY;
ALTER TABLE run_tracker.stat_deltas NO FORCE ROW LEVEL SECURITY;
SET ROLE regress_install_owner;
SELECT run_tracker.is_service();
SELECT count(*) FROM run_tracker.check_totals();
SELECT count(run_tracker.create_run(lifecycle => 'spar', user_id => 'dave'));
DELETE FROM run_tracker.runs WHERE user_id = 'dave';
RESET ROLE;
-- what install() adds later belongs to the same role, and open runs have their deadlines back
SELECT count(run_tracker.create_run(lifecycle => 'workflow', user_id => 'alice'));
DROP VIEW run_tracker.recent_runs, run_tracker.run_summary, run_tracker.active_runs;
DROP TABLE run_tracker.open_runs, run_tracker.run_totals, run_tracker.response_chunks, run_tracker.stat_deltas;
SELECT run_tracker.install();
SELECT relname FROM pg_class WHERE relnamespace = 'run_tracker'::regnamespace AND relkind = 'v' ORDER BY relname;
SELECT count(*) AS active, count(*) FILTER (WHERE deadline_at > now()) AS with_deadline FROM run_tracker.active_runs;
SELECT DISTINCT relowner::regrole AS owner FROM pg_class WHERE relnamespace = 'run_tracker'::regnamespace AND relname NOT IN ('worker_status', 'metrics');
SELECT count(*) AS open, (SELECT count(*) FROM run_tracker.runs WHERE finished_at IS NULL) AS expected FROM run_tracker.open_runs;
SELECT count(*) AS wrong FROM run_tracker.check_totals();

-- none of this is for others
SET ROLE regress_install_client;
CALL pg_temp.try('SELECT run_tracker.install()');
CALL pg_temp.try($$SELECT run_tracker.set_owner('regress_install_client')$$);
CALL pg_temp.try($$SELECT run_tracker.grant_service('regress_install_client')$$);
CALL pg_temp.try($$SELECT run_tracker.rebuild_open_runs()$$);
CALL pg_temp.try($$SELECT run_tracker.install_runs()$$);
CALL pg_temp.try($$SELECT run_tracker.revoke_all('run_tracker.runs')$$);
RESET ROLE;

--
-- A schema that is there before the extension
--
\c postgres
DROP DATABASE regress_install WITH (FORCE);
CREATE DATABASE regress_install TEMPLATE template0;
\c regress_install
\i :common
-- of somebody else: refused, and nothing is left behind
CREATE SCHEMA run_tracker AUTHORIZATION regress_install_client;
CALL pg_temp.try('CREATE EXTENSION run_tracker');
SELECT count(*) FROM pg_proc WHERE pronamespace = 'run_tracker'::regnamespace;
-- of a superuser: only the functions, as in the middle of a restore; install() brings the rest
ALTER SCHEMA run_tracker OWNER TO regress_install_super;
CREATE EXTENSION run_tracker;
SELECT relname FROM pg_class WHERE relnamespace = 'run_tracker'::regnamespace ORDER BY relname;
CALL pg_temp.try('SELECT run_tracker.create_run()');
SELECT run_tracker.install();
SELECT count(run_tracker.create_run(user_id => 'alice'));
-- statistics whose tables are new begin with what is in the ledger
INSERT INTO run_tracker.runs (user_id, kind, status) VALUES ('alice', 'k', 'completed'), ('bob', 'k', 'failed');
INSERT INTO run_tracker.tasks (run_id, status, model, cost) SELECT run_id, 'completed', 'm', 2 FROM run_tracker.runs WHERE finished_at IS NOT NULL;
DROP TABLE run_tracker.stat_deltas, run_tracker.stat_totals;
SELECT run_tracker.install();
SELECT user_id, total, open, successful, failed, task_count, total_cost FROM run_tracker.user_stats() ORDER BY 1;
SELECT model, task_count, total_cost FROM run_tracker.model_stats();
SET client_min_messages = warning;
DROP EXTENSION run_tracker CASCADE;

--
-- Default privileges that a hostile or careless administrator of the database has set are not inherited
--
\c postgres
DROP DATABASE regress_install WITH (FORCE);
CREATE DATABASE regress_install TEMPLATE template0;
\c regress_install
\i :common
ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO PUBLIC, regress_install_client;
ALTER DEFAULT PRIVILEGES GRANT ALL ON SEQUENCES TO PUBLIC, regress_install_client;
ALTER DEFAULT PRIVILEGES GRANT ALL ON FUNCTIONS TO PUBLIC, regress_install_client;
ALTER DEFAULT PRIVILEGES GRANT ALL ON SCHEMAS TO PUBLIC, regress_install_client;
ALTER DEFAULT PRIVILEGES GRANT ALL ON TYPES TO PUBLIC, regress_install_client;
CREATE EXTENSION run_tracker;
SELECT what, name, grantee::regrole, privilege_type FROM (
    SELECT 'schema', nspname, (aclexplode(nspacl)).*, nspowner FROM pg_namespace WHERE nspname = 'run_tracker'
    UNION ALL SELECT 'relation', relname, (aclexplode(relacl)).*, relowner FROM pg_class WHERE relnamespace = 'run_tracker'::regnamespace
    UNION ALL SELECT 'function', proname, (aclexplode(COALESCE(proacl, acldefault('f', proowner)))).*, proowner FROM pg_proc
    WHERE pronamespace = 'run_tracker'::regnamespace) a (what, name, grantor, grantee, privilege_type, is_grantable, owner)
WHERE grantee <> owner;

\c postgres
DROP DATABASE regress_install WITH (FORCE);
DROP ROLE regress_install_owner, regress_install_client, regress_install_super;
