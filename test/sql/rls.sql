--
-- Row level security and privileges: what users, services, readers and strangers can do to whose rows; and what a
-- hostile user with an SQL role of his own tries in vain.
--
\getenv abs_srcdir PG_ABS_SRCDIR
\set common :abs_srcdir '/sql/common.psql'
\i :common

CREATE ROLE regress_rls_client;
CREATE ROLE regress_rls_service;
CREATE ROLE regress_rls_reader;
CREATE ROLE regress_rls_anonymous;
SELECT run_tracker.grant_client('regress_rls_client');
SELECT run_tracker.grant_service('regress_rls_service');
SELECT run_tracker.grant_reader('regress_rls_reader');

-- every table has row level security; nobody gets anything without a grant
SELECT relname FROM pg_class WHERE relnamespace = 'run_tracker'::regnamespace AND relkind = 'r' AND NOT relrowsecurity;
SELECT count(*) AS public FROM pg_class, aclexplode(relacl) a WHERE relnamespace = 'run_tracker'::regnamespace AND a.grantee = 0;
SELECT count(*) AS public FROM pg_proc, aclexplode(COALESCE(proacl, acldefault('f', proowner))) a
WHERE pronamespace = 'run_tracker'::regnamespace AND a.grantee = 0;

-- statistics outlive the runs of other tests
TRUNCATE run_tracker.stat_deltas, run_tracker.stat_totals;
-- alice and bob have a run each, with a task whose response is arriving, a message, a log, a retrieval, an artifact and a transition; one run
-- is nobody's
INSERT INTO run_tracker.runs (run_id, user_id, name) VALUES
    ('a0000000-0000-0000-0000-000000000001', 'alice', 'of alice'), ('b0000000-0000-0000-0000-000000000001', 'bob', 'of bob'),
    ('00000000-0000-0000-0000-000000000001', '', 'of nobody');
INSERT INTO run_tracker.tasks (run_id, task_id, name) VALUES
    ('a0000000-0000-0000-0000-000000000001', 'a0000000-0000-0000-0000-000000000002', 'of alice'),
    ('b0000000-0000-0000-0000-000000000001', 'b0000000-0000-0000-0000-000000000002', 'of bob');
INSERT INTO run_tracker.messages (run_id, role, content) SELECT run_id, 'user', name FROM run_tracker.runs;
INSERT INTO run_tracker.logs (run_id, level, message) SELECT run_id, 'ERROR', name FROM run_tracker.runs;
INSERT INTO run_tracker.retrievals (run_id, retrieval_type, query) SELECT run_id, 'hybrid', name FROM run_tracker.runs;
INSERT INTO run_tracker.artifacts (run_id, kind, content) SELECT run_id, 'file', name FROM run_tracker.runs;
UPDATE run_tracker.runs SET status = 'running';
SELECT run_tracker.append_response(task_id, name || ', '), run_tracker.append_response(task_id, name) FROM run_tracker.tasks ORDER BY task_id;
\set a '''a0000000-0000-0000-0000-000000000001'''
\set b '''b0000000-0000-0000-0000-000000000001'''
CREATE TABLE regress_rls_before AS SELECT to_jsonb(r) AS row FROM run_tracker.runs r WHERE user_id <> 'alice'
    UNION ALL SELECT to_jsonb(t) FROM run_tracker.tasks t WHERE user_id <> 'alice'
    UNION ALL SELECT to_jsonb(m) FROM run_tracker.messages m WHERE user_id <> 'alice'
    UNION ALL SELECT to_jsonb(l) FROM run_tracker.logs l WHERE user_id <> 'alice'
    UNION ALL SELECT to_jsonb(t) FROM run_tracker.transitions t WHERE user_id <> 'alice'
    UNION ALL SELECT to_jsonb(t) FROM run_tracker.run_totals t WHERE user_id <> 'alice'
    UNION ALL SELECT to_jsonb(o) FROM run_tracker.open_runs o WHERE user_id <> 'alice'
    UNION ALL SELECT to_jsonb(c) FROM run_tracker.response_chunks c WHERE user_id <> 'alice'
    UNION ALL SELECT to_jsonb(r) FROM run_tracker.retrievals r WHERE user_id <> 'alice'
    UNION ALL SELECT to_jsonb(a) FROM run_tracker.artifacts a WHERE user_id <> 'alice';

--
-- Who sees what
--
CREATE FUNCTION pg_temp.visible() RETURNS TABLE (relation text, rows bigint, users text) LANGUAGE plpgsql AS $$
BEGIN
    FOREACH relation IN ARRAY ARRAY['runs', 'tasks', 'response_chunks', 'messages', 'logs', 'retrievals', 'artifacts', 'transitions', 'run_totals', 'open_runs',
        'stat_deltas', 'run_summary', 'active_runs'] LOOP
        BEGIN
            EXECUTE format('SELECT count(*), string_agg(DISTINCT user_id, '','' ORDER BY user_id) FROM run_tracker.%I', relation)
                INTO rows, users;
        EXCEPTION WHEN insufficient_privilege THEN
            rows := NULL;
            users := SQLERRM;
        END;
        RETURN NEXT;
    END LOOP;
END
$$;
SET request.jwt.claims = '{"sub": "alice"}';
SET ROLE regress_rls_client;
SELECT * FROM pg_temp.visible();
SET request.jwt.claims = '{"sub": "bob"}';
SELECT * FROM pg_temp.visible();
SET ROLE regress_rls_reader;
SELECT * FROM pg_temp.visible();
SET request.jwt.claims = '{"sub": "carol"}';
SELECT * FROM pg_temp.visible() WHERE rows <> 0;
SET request.jwt.claims = '';
SELECT * FROM pg_temp.visible() WHERE rows <> 0;
SET ROLE regress_rls_service;
SELECT * FROM pg_temp.visible();
SET request.jwt.claims = '{"sub": "alice"}';
SELECT * FROM pg_temp.visible();
SET ROLE regress_rls_anonymous;
SELECT * FROM pg_temp.visible();
RESET ROLE;
-- with identity = role, the role is the user
SET run_tracker.identity = 'role';
SET ROLE regress_rls_client;
SELECT * FROM pg_temp.visible() WHERE rows <> 0;
SELECT count(run_tracker.create_run(name => 'mine'));
SELECT user_id FROM run_tracker.runs;
RESET ROLE;
RESET run_tracker.identity;
DELETE FROM run_tracker.runs WHERE name = 'mine';

--
-- What alice can do to her own rows …
--
SET ROLE regress_rls_client;
INSERT INTO run_tracker.runs (run_id, name) VALUES ('a0000000-0000-0000-0000-000000000009', 'second')
RETURNING user_id, status, attempt;
INSERT INTO run_tracker.tasks (run_id, name) VALUES ('a0000000-0000-0000-0000-000000000009', 'second') RETURNING user_id, status;
UPDATE run_tracker.tasks SET run_id = :a WHERE name = 'second' RETURNING run_id;
UPDATE run_tracker.runs SET priority = 5, metadata = '{"a": 1}' WHERE name = 'second' RETURNING priority;
UPDATE run_tracker.messages SET content = 'edited' WHERE run_id = :a RETURNING seq, content;
SELECT run_tracker.complete_run('a0000000-0000-0000-0000-000000000009');
SELECT run_tracker.run_messages(:a) -> 0 ->> 'content';
UPDATE run_tracker.artifacts SET content = 'edited' WHERE run_id = :a RETURNING content, size_bytes;
UPDATE run_tracker.retrievals SET results = '[1, 2]' WHERE run_id = :a RETURNING results_count;
SELECT run_tracker.append_response('a0000000-0000-0000-0000-000000000002', '!');
SELECT run_tracker.task_response('a0000000-0000-0000-0000-000000000002');

-- … and to those of bob: there is nothing to see, to change or to attach to, and no error tells his run from none
UPDATE run_tracker.runs SET name = 'stolen' WHERE run_id = :b;
UPDATE run_tracker.tasks SET name = 'stolen' WHERE run_id = :b;
UPDATE run_tracker.messages SET content = 'stolen' WHERE run_id = :b;
UPDATE run_tracker.artifacts SET content = 'stolen' WHERE run_id = :b;
UPDATE run_tracker.retrievals SET query = 'stolen' WHERE run_id = :b;
SELECT count(*) FROM run_tracker.run_logs(:b);
SELECT count(*) FROM run_tracker.check_totals(:b);
-- each statement with bob's ids, and with ids that do not exist: the same message, but for the id
DO $$
DECLARE
    statement text;
    said text[];
    message text;
    detail text;
    hint text;
    digit text;
BEGIN
    FOREACH statement IN ARRAY ARRAY[
        'SELECT run_tracker.start_run(''RUN'')', 'SELECT run_tracker.complete_run(''RUN'')',
        'SELECT run_tracker.fail_run(''RUN'', ''x'')', 'SELECT run_tracker.cancel_run(''RUN'')',
        'SELECT run_tracker.retry_run(''RUN'')', 'SELECT run_tracker.transition_run(''RUN'', ''completed'')',
        'SELECT run_tracker.update_progress(''RUN'', 1)', 'SELECT run_tracker.start_run(''RUN'', attempt => 7)',
        'SELECT run_tracker.heartbeat_run(''RUN'')', 'SELECT run_tracker.heartbeat_run(''RUN'', 7)',
        'SELECT run_tracker.release_run(''RUN'')', 'SELECT run_tracker.release_run(''RUN'', ''1 second'', 7)',
        'SELECT run_tracker.fail_run(''RUN'', retry => true)',
        'SELECT run_tracker.create_task(''RUN'')', 'SELECT run_tracker.add_message(''RUN'', ''user'', ''x'')',
        'SELECT run_tracker.run_messages(''RUN'')', 'SELECT run_tracker.add_log(''RUN'', ''x'')',
        'SELECT run_tracker.start_task(''TASK'')', 'SELECT run_tracker.complete_task(''TASK'')',
        'SELECT run_tracker.fail_task(''TASK'')', 'SELECT run_tracker.cancel_task(''TASK'')',
        'SELECT run_tracker.start_task(''TASK'', attempt => 7)',
        'SELECT run_tracker.append_response(''TASK'', ''x'')', 'SELECT run_tracker.append_response(''TASK'', '''', 7)',
        'SELECT run_tracker.task_response(''TASK'')', 'SELECT run_tracker.read_response(''TASK'', 3)',
        'SELECT run_tracker.log_retrieval(''RUN'', ''x'')', 'SELECT run_tracker.add_artifact(''RUN'', ''x'')',
        'INSERT INTO run_tracker.retrievals (run_id, retrieval_type) VALUES (''RUN'', ''x'')',
        'INSERT INTO run_tracker.retrievals (run_id, user_id, retrieval_type) VALUES (''RUN'', ''bob'', ''x'')',
        'INSERT INTO run_tracker.artifacts (run_id, kind) VALUES (''RUN'', ''x'')',
        'INSERT INTO run_tracker.artifacts (run_id, user_id, kind) VALUES (''RUN'', ''alice'', ''x'')',
        'INSERT INTO run_tracker.tasks (run_id) VALUES (''RUN'')',
        'INSERT INTO run_tracker.tasks (run_id, user_id) VALUES (''RUN'', ''alice'')',
        'INSERT INTO run_tracker.tasks (run_id, user_id) VALUES (''RUN'', ''bob'')',
        'INSERT INTO run_tracker.messages (run_id, role, content) VALUES (''RUN'', ''user'', ''x'')',
        'INSERT INTO run_tracker.messages (run_id, user_id, role, content) VALUES (''RUN'', ''bob'', ''user'', ''x'')',
        'INSERT INTO run_tracker.logs (run_id, message) VALUES (''RUN'', ''x'')',
        'INSERT INTO run_tracker.logs (run_id, user_id, message) VALUES (''RUN'', ''alice'', ''x'')',
        'UPDATE run_tracker.tasks SET run_id = ''RUN'''
    ] LOOP
        said := '{}';
        FOREACH digit IN ARRAY ARRAY['b', 'c'] LOOP
            BEGIN
                EXECUTE replace(replace(statement, 'RUN', digit || '0000000-0000-0000-0000-000000000001'),
                                'TASK', digit || '0000000-0000-0000-0000-000000000002');
                said := said || 'ok'::text;
            EXCEPTION WHEN OTHERS THEN
                GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
                message := SQLSTATE || ': ' || concat_ws(' | ', SQLERRM, NULLIF(detail, ''), NULLIF(hint, ''));
                said := said || replace(message, digit || '0000000-', '…');
            END;
        END LOOP;
        RAISE INFO '% → %', statement, CASE WHEN said[1] = said[2] THEN said[1] ELSE 'DIFFERS: ' || said::text END;
    END LOOP;
END
$$;
-- a run id, or task id, that is taken: the error says no more than that
CALL pg_temp.try($$SELECT run_tracker.create_run('b0000000-0000-0000-0000-000000000001')$$);
CALL pg_temp.try($$INSERT INTO run_tracker.runs (run_id) VALUES ('b0000000-0000-0000-0000-000000000001')$$);
CALL pg_temp.try($$INSERT INTO run_tracker.runs (run_id) VALUES ('b0000000-0000-0000-0000-000000000001')
    ON CONFLICT (run_id) DO UPDATE SET name = 'stolen'$$);
CALL pg_temp.try($$SELECT run_tracker.create_task('a0000000-0000-0000-0000-000000000001', 'b0000000-0000-0000-0000-000000000002')$$);
CALL pg_temp.try($$INSERT INTO run_tracker.tasks (run_id, task_id) VALUES ('a0000000-0000-0000-0000-000000000001', 'b0000000-0000-0000-0000-000000000002')
    ON CONFLICT (task_id) DO UPDATE SET name = 'stolen'$$);
-- giving rows away, or taking on another name
CALL pg_temp.try($$INSERT INTO run_tracker.runs (user_id) VALUES ('bob')$$);
CALL pg_temp.try($$SELECT run_tracker.create_run(user_id => 'bob')$$);
CALL pg_temp.try($$UPDATE run_tracker.runs SET user_id = 'bob'$$);
CALL pg_temp.try($$UPDATE run_tracker.tasks SET user_id = 'bob'$$);
-- messages of a task of bob's show nothing of it
SELECT run_tracker.add_message(:a, 'assistant', 'x', task_id => 'b0000000-0000-0000-0000-000000000002') AS seq \gset
SELECT run_tracker.run_messages(:a) -> 1 -> 'metadata' AS metadata;

-- what is computed is not for clients to write
DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['phase', 'attempt', 'created_at', 'started_at', 'finished_at', 'updated_at', 'duration_ms', 'user_id', 'run_id', 'lifecycle'] LOOP
        CALL pg_temp.try(format('UPDATE run_tracker.runs SET %I = %I', name, name));
        CONTINUE WHEN name IN ('user_id', 'run_id', 'lifecycle');
        CALL pg_temp.try(format('INSERT INTO run_tracker.runs (%I) SELECT %I FROM run_tracker.runs LIMIT 1', name, name));
        CALL pg_temp.try(format('UPDATE run_tracker.tasks SET %I = %I', name, name));
        CALL pg_temp.try(format('INSERT INTO run_tracker.tasks (run_id, %I) SELECT run_id, %I FROM run_tracker.tasks LIMIT 1', name, name));
    END LOOP;
    FOREACH name IN ARRAY ARRAY['seq', 'created_at', 'run_id', 'user_id'] LOOP
        CALL pg_temp.try(format('UPDATE run_tracker.messages SET %I = %I', name, name));
    END LOOP;
    FOREACH name IN ARRAY ARRAY['run_totals', 'open_runs', 'transitions', 'response_chunks', 'stat_deltas', 'stat_totals', 'lifecycles', 'installation'] LOOP
        CALL pg_temp.try(format('INSERT INTO run_tracker.%I SELECT * FROM run_tracker.%I', name, name));
        CALL pg_temp.try(format('DELETE FROM run_tracker.%I', name));
    END LOOP;
END
$$;
CALL pg_temp.try($$UPDATE run_tracker.run_totals SET total_cost = 0$$);
CALL pg_temp.try($$UPDATE run_tracker.open_runs SET deadline_at = NULL$$);
CALL pg_temp.try($$UPDATE run_tracker.transitions SET actor = 'bob'$$);
CALL pg_temp.try($$UPDATE run_tracker.response_chunks SET content = 'x'$$);
CALL pg_temp.try($$UPDATE run_tracker.retrievals SET created_at = now()$$);
CALL pg_temp.try($$UPDATE run_tracker.artifacts SET created_at = now()$$);
CALL pg_temp.try($$UPDATE run_tracker.logs SET message = 'x'$$);
-- rows are for services to delete: with DELETE would come LOCK TABLE, and so a stop of everybody's work
CALL pg_temp.try($$DELETE FROM run_tracker.runs$$);
CALL pg_temp.try($$DELETE FROM run_tracker.tasks$$);
CALL pg_temp.try($$DELETE FROM run_tracker.messages$$);
CALL pg_temp.try($$DELETE FROM run_tracker.logs$$);
CALL pg_temp.try($$DELETE FROM run_tracker.retrievals$$);
CALL pg_temp.try($$DELETE FROM run_tracker.artifacts$$);
CALL pg_temp.try($$LOCK TABLE run_tracker.runs$$);
CALL pg_temp.try($$LOCK TABLE run_tracker.tasks IN ROW EXCLUSIVE MODE$$);
CALL pg_temp.try($$LOCK TABLE run_tracker.run_totals IN SHARE MODE$$);
CALL pg_temp.try($$UPDATE run_tracker.run_summary SET name = 'x'$$);
CALL pg_temp.try($$TRUNCATE run_tracker.runs CASCADE$$);
-- a run, or task, that is finished already is not for clients to create
CALL pg_temp.try($$INSERT INTO run_tracker.runs (status) VALUES ('completed')$$);
CALL pg_temp.try($$INSERT INTO run_tracker.runs (status) VALUES ('running')$$);
CALL pg_temp.try($$INSERT INTO run_tracker.tasks (run_id, status, cost) VALUES ('a0000000-0000-0000-0000-000000000001', 'completed', 1)$$);

-- looking into rows while they are filtered: the function meets no foreign row
CREATE FUNCTION pg_temp.leak(value text) RETURNS boolean LANGUAGE plpgsql COST 0.0000001 AS $$
BEGIN
    IF value ~ 'bob|nobody' THEN
        RAISE INFO 'leaked: %', value;
    END IF;
    RETURN true;
END
$$;
SELECT count(*) FROM run_tracker.runs WHERE pg_temp.leak(name);
SELECT count(*) FROM run_tracker.tasks WHERE pg_temp.leak(name);
SELECT count(*) FROM run_tracker.messages WHERE pg_temp.leak(content);
SELECT count(*) FROM run_tracker.logs WHERE pg_temp.leak(message);
SELECT count(*) FROM run_tracker.response_chunks WHERE pg_temp.leak(content);
SELECT count(*) FROM run_tracker.retrievals WHERE pg_temp.leak(query);
SELECT count(*) FROM run_tracker.artifacts WHERE pg_temp.leak(content);
SELECT count(*) FROM run_tracker.run_summary WHERE pg_temp.leak(name);
SELECT count(*) FROM pg_stats WHERE schemaname = 'run_tracker' AND tablename <> 'lifecycles';

-- trigger functions on a table of his own
CREATE TEMP TABLE own (LIKE run_tracker.runs);
DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['runs_before', 'runs_after', 'tasks_before', 'tasks_after', 'messages_before', 'messages_after',
        'logs_before', 'logs_after', 'retrievals_before', 'retrievals_after', 'artifacts_before', 'artifacts_after', 'lifecycles_before', 'lifecycles_after', 'after_truncate'] LOOP
        CALL pg_temp.try(format('CREATE TRIGGER t BEFORE INSERT ON own FOR EACH ROW EXECUTE FUNCTION run_tracker.%I()', name));
    END LOOP;
END
$$;
-- objects in the schema, or on the tables
CALL pg_temp.try('CREATE TABLE run_tracker.own (id integer)');
CALL pg_temp.try($$CREATE FUNCTION run_tracker.create_run(run_id uuid, kind unknown) RETURNS uuid LANGUAGE sql AS 'SELECT NULL::uuid'$$);
CALL pg_temp.try('CREATE INDEX ON run_tracker.runs (name)');
CALL pg_temp.try('CREATE POLICY all_rows ON run_tracker.runs USING (true)');
CALL pg_temp.try('ALTER TABLE run_tracker.runs DISABLE ROW LEVEL SECURITY');
CALL pg_temp.try('ALTER TABLE run_tracker.runs DISABLE TRIGGER ALL');
CALL pg_temp.try('CREATE TRIGGER own AFTER INSERT ON run_tracker.runs FOR EACH STATEMENT EXECUTE FUNCTION suppress_redundant_updates_trigger()');
CALL pg_temp.try('CREATE RULE own AS ON INSERT TO run_tracker.runs DO INSTEAD NOTHING');
CALL pg_temp.try('SET session_replication_role = replica');
SET row_security = off;
CALL pg_temp.try('SELECT count(*) FROM run_tracker.runs');
RESET row_security;
RESET ROLE;

-- the superuser himself cannot attach the trigger functions elsewhere
CREATE TABLE regress_rls_own (LIKE run_tracker.runs);
CREATE TRIGGER t BEFORE INSERT ON regress_rls_own FOR EACH ROW EXECUTE FUNCTION run_tracker.runs_before();
CALL pg_temp.try('INSERT INTO regress_rls_own DEFAULT VALUES');
DROP TRIGGER t ON regress_rls_own;
CREATE TRIGGER t AFTER TRUNCATE ON regress_rls_own FOR EACH STATEMENT EXECUTE FUNCTION run_tracker.after_truncate();
CALL pg_temp.try('TRUNCATE regress_rls_own');
DROP TABLE regress_rls_own;
-- … nor fire them at another moment
CREATE TRIGGER t AFTER UPDATE ON run_tracker.runs FOR EACH ROW EXECUTE FUNCTION run_tracker.runs_before();
CALL pg_temp.try($$UPDATE run_tracker.runs SET priority = 1$$);
DROP TRIGGER t ON run_tracker.runs;

--
-- Code run as the owner: operators and functions of his own, put before the built-in ones
--
CREATE SCHEMA regress_rls_evil AUTHORIZATION regress_rls_client;
SET ROLE regress_rls_client;
CREATE FUNCTION regress_rls_evil.evil() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF current_user <> 'regress_rls_client' THEN
        RAISE EXCEPTION 'hostile code ran as %', current_user;
    END IF;
END
$$;
CREATE FUNCTION regress_rls_evil.texteq(a text, b text) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    PERFORM regress_rls_evil.evil();
    RETURN a OPERATOR(pg_catalog.=) b;
END
$$;
CREATE FUNCTION regress_rls_evil.uuideq(a uuid, b uuid) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    PERFORM regress_rls_evil.evil();
    RETURN a OPERATOR(pg_catalog.=) b;
END
$$;
CREATE FUNCTION regress_rls_evil.cat(a text, b text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    PERFORM regress_rls_evil.evil();
    RETURN 'evil';
END
$$;
CREATE OPERATOR regress_rls_evil.= (LEFTARG = text, RIGHTARG = text, FUNCTION = regress_rls_evil.texteq);
CREATE OPERATOR regress_rls_evil.= (LEFTARG = uuid, RIGHTARG = uuid, FUNCTION = regress_rls_evil.uuideq);
CREATE OPERATOR regress_rls_evil.|| (LEFTARG = text, RIGHTARG = text, FUNCTION = regress_rls_evil.cat);
CREATE DOMAIN regress_rls_evil.text AS pg_catalog.text CHECK (VALUE OPERATOR(pg_catalog.~) '^evil');
CREATE DOMAIN regress_rls_evil.uuid AS pg_catalog.uuid CHECK (false);
SET search_path = regress_rls_evil, pg_temp, pg_catalog;
SELECT run_tracker.create_run('a0000000-0000-0000-0000-00000000000e', name => 'evil');
SELECT run_tracker.create_task('a0000000-0000-0000-0000-00000000000e', 'a1000000-0000-0000-0000-00000000000e');
SELECT run_tracker.create_task('a0000000-0000-0000-0000-00000000000e', 'a2000000-0000-0000-0000-00000000000e');
SELECT run_tracker.complete_task('a1000000-0000-0000-0000-00000000000e', cost => 1);
SELECT run_tracker.add_message('a0000000-0000-0000-0000-00000000000e', 'user', 'x');
SELECT run_tracker.add_log('a0000000-0000-0000-0000-00000000000e', 'x', 'ERROR');
SELECT run_tracker.append_response('a2000000-0000-0000-0000-00000000000e', 'x'), run_tracker.append_response('a2000000-0000-0000-0000-00000000000e', 'y');
SELECT run_tracker.task_response('a2000000-0000-0000-0000-00000000000e'), next_offset FROM run_tracker.read_response('a2000000-0000-0000-0000-00000000000e', 1);
SELECT run_tracker.log_retrieval('a0000000-0000-0000-0000-00000000000e', 'x', results => '[1]') IS NOT NULL AS logged,
       run_tracker.add_artifact('a0000000-0000-0000-0000-00000000000e', 'x', content => 'x') IS NOT NULL AS added;
UPDATE run_tracker.runs SET status = 'failed' WHERE run_id OPERATOR(pg_catalog.=) 'a0000000-0000-0000-0000-00000000000e';
SELECT status, error, response FROM run_tracker.tasks WHERE task_id OPERATOR(pg_catalog.=) 'a2000000-0000-0000-0000-00000000000e';
SELECT count(*) FROM run_tracker.check_totals();
SELECT count(*) FROM run_tracker.run_summary;
RESET search_path;
RESET ROLE;
SET client_min_messages = warning;
DROP SCHEMA regress_rls_evil CASCADE;
RESET client_min_messages;

-- after all that, the rows of the others are what they were, and the totals are right
SELECT count(*) AS changed FROM regress_rls_before WHERE row NOT IN (SELECT to_jsonb(r) FROM run_tracker.runs r
    UNION ALL SELECT to_jsonb(t) FROM run_tracker.tasks t UNION ALL SELECT to_jsonb(m) FROM run_tracker.messages m
    UNION ALL SELECT to_jsonb(l) FROM run_tracker.logs l UNION ALL SELECT to_jsonb(t) FROM run_tracker.transitions t
    UNION ALL SELECT to_jsonb(t) FROM run_tracker.run_totals t UNION ALL SELECT to_jsonb(o) FROM run_tracker.open_runs o
    UNION ALL SELECT to_jsonb(c) FROM run_tracker.response_chunks c UNION ALL SELECT to_jsonb(r) FROM run_tracker.retrievals r
    UNION ALL SELECT to_jsonb(a) FROM run_tracker.artifacts a);
SELECT user_id, count(*) FROM run_tracker.runs GROUP BY user_id ORDER BY user_id;
SELECT count(*) AS wrong FROM run_tracker.check_totals();

--
-- Services: the rows of all users, finished ones too, but no bookkeeping
--
RESET request.jwt.claims;
SET ROLE regress_rls_service;
SELECT run_tracker.complete_run(:b, '{"by": "service"}');
INSERT INTO run_tracker.runs (run_id, user_id, status, started_at, finished_at, attempt)
VALUES ('b0000000-0000-0000-0000-000000000009', 'bob', 'failed', '2020-01-01 00:00:00Z', '2020-01-01 00:00:01Z', 3)
RETURNING phase, duration_ms, attempt;
INSERT INTO run_tracker.tasks (run_id, status, cost) VALUES ('b0000000-0000-0000-0000-000000000009', 'completed', 5) RETURNING user_id;
CALL pg_temp.try($$UPDATE run_tracker.runs SET user_id = 'alice'$$);
CALL pg_temp.try($$UPDATE run_tracker.run_totals SET total_cost = 0$$);
CALL pg_temp.try($$DELETE FROM run_tracker.open_runs$$);
CALL pg_temp.try($$DELETE FROM run_tracker.response_chunks$$);
CALL pg_temp.try($$DELETE FROM run_tracker.stat_deltas$$);
CALL pg_temp.try($$INSERT INTO run_tracker.transitions SELECT * FROM run_tracker.transitions$$);
CALL pg_temp.try($$TRUNCATE run_tracker.runs CASCADE$$);
CALL pg_temp.try('SELECT run_tracker.install()');
CALL pg_temp.try($$SELECT run_tracker.grant_service('regress_rls_client')$$);
RESET ROLE;

-- readers read
SET request.jwt.claims = '{"sub": "alice"}';
SET ROLE regress_rls_reader;
SELECT jsonb_array_length(run_tracker.run_messages(:a)) AS messages, (SELECT count(*) FROM run_tracker.run_logs(:a)) AS logs,
       run_tracker.task_response('a0000000-0000-0000-0000-000000000002');
CALL pg_temp.try($$SELECT run_tracker.create_run()$$);
CALL pg_temp.try($$SELECT run_tracker.complete_run('a0000000-0000-0000-0000-000000000001')$$);
CALL pg_temp.try($$INSERT INTO run_tracker.runs (name) VALUES ('x')$$);
CALL pg_temp.try($$UPDATE run_tracker.runs SET name = 'x'$$);
CALL pg_temp.try($$DELETE FROM run_tracker.messages$$);
CALL pg_temp.try($$SELECT 1 FROM run_tracker.runs FOR UPDATE$$);
RESET ROLE;

-- strangers cannot even look into the schema
SET ROLE regress_rls_anonymous;
CALL pg_temp.try($$SELECT count(*) FROM run_tracker.runs$$);
CALL pg_temp.try($$SELECT run_tracker.create_run()$$);
CALL pg_temp.try($$INSERT INTO run_tracker.runs (name) VALUES ('x')$$);
RESET ROLE;

-- grants: to a role only; a second service joins the first
CALL pg_temp.try($$SELECT run_tracker.grant_client(NULL)$$);
CALL pg_temp.try($$SELECT run_tracker.grant_reader('-')$$);
CALL pg_temp.try($$SELECT run_tracker.grant_service('regress_no_such_role')$$);
CREATE ROLE "regress_rls ""odd"" role";
SELECT run_tracker.grant_service('"regress_rls ""odd"" role"');
SELECT run_tracker.grant_service('regress_rls_service');
SELECT DISTINCT polroles::regrole[] FROM pg_policy WHERE polname = 'service_rows';
SET ROLE "regress_rls ""odd"" role";
SELECT run_tracker.is_service(), (SELECT count(*) FROM run_tracker.runs) AS runs;
RESET ROLE;

RESET request.jwt.claims;
DELETE FROM run_tracker.runs;
DROP TABLE regress_rls_before, own;
DROP FUNCTION pg_temp.leak(text);
DROP OWNED BY regress_rls_client, regress_rls_service, regress_rls_reader, "regress_rls ""odd"" role";
DROP ROLE regress_rls_client, regress_rls_service, regress_rls_reader, regress_rls_anonymous, "regress_rls ""odd"" role";
