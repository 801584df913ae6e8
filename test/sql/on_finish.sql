--
-- Functions of the user's that are called when a run finishes: when, with whose rights, and what their errors do.
--
\getenv abs_srcdir PG_ABS_SRCDIR
\set common :abs_srcdir '/sql/common.psql'
\i :common
SET client_min_messages = warning;

CREATE ROLE regress_finish_app;
CREATE ROLE regress_finish_other;
CREATE ROLE regress_finish_group;
CREATE ROLE regress_finish_client;
SELECT run_tracker.grant_service('regress_finish_app');
SELECT run_tracker.grant_service('regress_finish_other');
SELECT run_tracker.grant_client('regress_finish_client');
CREATE SCHEMA regress_finish AUTHORIZATION regress_finish_app;
CREATE SCHEMA regress_finish_open;
GRANT ALL ON SCHEMA regress_finish_open TO PUBLIC;

--
-- The application row gets the analysis in the transaction that completes the run
--
SET ROLE regress_finish_app;
SET search_path = regress_finish, pg_temp, public;
CREATE TABLE journal_entries (entry_id text PRIMARY KEY, ai_analysis jsonb, analysed_for text);
INSERT INTO journal_entries VALUES ('entry-1'), ('entry-2'), ('entry-3');
CREATE TABLE calls (n serial, what text, run_id uuid, status text, who text, sub text);
-- unqualified on purpose: the search_path is that of the registration
CREATE FUNCTION write_analysis(run jsonb) RETURNS void LANGUAGE sql AS $$
    UPDATE journal_entries SET ai_analysis = run -> 'result', analysed_for = run_tracker.current_user_id()
    WHERE entry_id = run ->> 'subject_id' AND run ->> 'phase' = 'succeeded'
$$;
REVOKE ALL ON FUNCTION write_analysis(jsonb) FROM PUBLIC;
-- STABLE, so that it would see what was there before, if nobody cared
CREATE FUNCTION status_of(run uuid) RETURNS text LANGUAGE sql STABLE AS
$$ SELECT status FROM run_tracker.runs WHERE run_id = run $$;
CREATE FUNCTION note(run uuid) RETURNS integer LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO calls (what, run_id, status, who, sub)
    VALUES ('note', run, status_of(run), current_user, run_tracker.current_user_id());
    RETURN 1;
END
$$;
CREATE FUNCTION note(run jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO calls (what, run_id, status) VALUES ('row', (run ->> 'run_id')::uuid, run ->> 'status');
    RETURN run;
END
$$;
SELECT run_tracker.on_finish('spar', 'write_analysis(jsonb)') AS handler \gset
RESET search_path;
SELECT kind_or_lifecycle, function, role, search_path, on_error FROM run_tracker.finish_handlers;
RESET ROLE;

\set e1 '\'f1000000-0000-0000-0000-000000000001\''
\set e2 '\'f1000000-0000-0000-0000-000000000002\''
\set e3 '\'f1000000-0000-0000-0000-000000000003\''
SET ROLE regress_finish_client;
SET request.jwt.claims = '{"sub": "alice"}';
CALL pg_temp.try('TABLE regress_finish.journal_entries');
SELECT run_tracker.create_run(:e1, lifecycle => 'spar', subject_id => 'entry-1', timeout => '1 hour') \g /dev/null
SELECT run_tracker.create_run(:e2, lifecycle => 'spar', subject_id => 'entry-2', timeout => '1 hour') \g /dev/null
BEGIN;
SELECT run_tracker.complete_run(:e1, '{"quality_score": 7}');
ROLLBACK;
RESET ROLE;
SELECT r.status, j.* FROM run_tracker.runs r JOIN regress_finish.journal_entries j ON j.entry_id = r.subject_id WHERE run_id = :e1;
SET ROLE regress_finish_client;
SELECT run_tracker.complete_run(:e1, '{"quality_score": 8}');
-- by plain SQL, too
UPDATE run_tracker.runs SET status = 'completed', result = '{"quality_score": 9}' WHERE run_id = :e2;
RESET ROLE;
SELECT * FROM regress_finish.journal_entries ORDER BY 1;

-- a result that arrives after the timeout
SET ROLE regress_finish_client;
SELECT run_tracker.create_run(:e3, lifecycle => 'spar', subject_id => 'entry-3', timeout => '1 hour') \g /dev/null
SELECT run_tracker.transition_run(:e3, 'timeout');
SELECT run_tracker.complete_run(:e3, '{"quality_score": 3}');
RESET ROLE;
SELECT * FROM regress_finish.journal_entries WHERE entry_id = 'entry-3';

--
-- When, and in which order
--
SET ROLE regress_finish_app;
SET search_path = regress_finish;
SELECT run_tracker.on_finish('greeting', 'regress_finish.note(uuid)') AS note \gset
SELECT run_tracker.on_finish(NULL, 'regress_finish.note(jsonb)') \g /dev/null
-- the same again
SELECT run_tracker.on_finish('greeting', 'regress_finish.note(uuid)', 'log') = :'note' AS same;
SELECT kind_or_lifecycle, function, on_error FROM run_tracker.finish_handlers ORDER BY created_at;
RESET search_path;
RESET ROLE;
SET ROLE regress_finish_client;
INSERT INTO run_tracker.runs (run_id, kind) SELECT format('f2000000-0000-0000-0000-00000000000%s', i)::uuid, CASE WHEN i < 3 THEN 'greeting' END
FROM generate_series(1, 3) i;
-- no run finishes
UPDATE run_tracker.runs SET status = 'running' WHERE run_id::text LIKE 'f2%';
UPDATE run_tracker.runs SET status = 'paused' WHERE run_id::text LIKE 'f2%';
UPDATE run_tracker.runs SET progress = 50 WHERE run_id::text LIKE 'f2%';
RESET ROLE;
SELECT count(*) FROM regress_finish.calls;
SET ROLE regress_finish_client;
UPDATE run_tracker.runs SET status = 'failed' WHERE run_id::text LIKE 'f2%';
-- they have finished already
UPDATE run_tracker.runs SET name = 'x', status = status WHERE run_id::text LIKE 'f2%';
SELECT run_tracker.retry_run('f2000000-0000-0000-0000-000000000001');
SELECT run_tracker.cancel_run('f2000000-0000-0000-0000-000000000001');
RESET ROLE;
-- INSERT states facts
INSERT INTO run_tracker.runs (user_id, kind, status) VALUES ('alice', 'greeting', 'completed');
SELECT * FROM regress_finish.calls ORDER BY n;
DELETE FROM regress_finish.calls;
SELECT run_tracker.drop_on_finish(kind_or_lifecycle => NULL, function => 'regress_finish.note(jsonb)');
SELECT run_tracker.drop_on_finish(kind_or_lifecycle => NULL, function => 'regress_finish.note(jsonb)');
SELECT run_tracker.drop_on_finish(:'note'), run_tracker.drop_on_finish(:'note');

--
-- Errors
--
SET ROLE regress_finish_app;
CREATE FUNCTION regress_finish.fail(run uuid) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO regress_finish.calls (what, run_id) VALUES ('fail', run);
    RAISE EXCEPTION 'no analysis of %', run USING ERRCODE = 'AN001', DETAIL = 'the detail';
END
$$;
SELECT run_tracker.on_finish('fragile', 'regress_finish.fail(uuid)') AS fail \gset
RESET ROLE;
\set f '\'f3000000-0000-0000-0000-000000000001\''
SET ROLE regress_finish_client;
SELECT run_tracker.create_run(:f, kind => 'fragile') \g /dev/null
\set VERBOSITY default
\set SHOW_CONTEXT errors
SELECT run_tracker.complete_run(:f);
\set SHOW_CONTEXT never
SELECT status FROM run_tracker.runs WHERE run_id = :f;
RESET ROLE;
SET ROLE regress_finish_app;
SELECT run_tracker.on_finish('fragile', 'regress_finish.fail(uuid)', 'log') = :'fail' AS same;
RESET ROLE;
SET ROLE regress_finish_client;
SET client_min_messages = debug1;
SELECT run_tracker.complete_run(:f);
SET client_min_messages = warning;
SELECT status FROM run_tracker.runs WHERE run_id = :f;
RESET ROLE;
-- what it had done is undone
SELECT count(*) FROM regress_finish.calls;
-- a cancelled statement is not the function's fault: it is not swallowed
SET ROLE regress_finish_app;
CREATE FUNCTION regress_finish.slow(run uuid) RETURNS void LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(600); END $$;
SELECT run_tracker.on_finish('slow', 'regress_finish.slow(uuid)', 'log') \g /dev/null
RESET ROLE;
SET ROLE regress_finish_client;
INSERT INTO run_tracker.runs (run_id, kind) VALUES ('f3000000-0000-0000-0000-000000000002', 'slow');
SET statement_timeout = 100;
SELECT run_tracker.complete_run('f3000000-0000-0000-0000-000000000002');
RESET statement_timeout;
SELECT status FROM run_tracker.runs WHERE run_id = 'f3000000-0000-0000-0000-000000000002';
RESET ROLE;
SELECT run_tracker.drop_on_finish(handler_id) FROM run_tracker.finish_handlers WHERE kind_or_lifecycle = 'slow';

-- runs whose time is up: the function that fails for one of them does not keep the others
SET ROLE regress_finish_app;
CREATE FUNCTION regress_finish.fail_second(run uuid) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF run = 'f4000000-0000-0000-0000-000000000002' THEN
        RAISE EXCEPTION 'not this one';
    END IF;
END
$$;
SELECT run_tracker.on_finish('late', 'regress_finish.fail_second(uuid)') \g /dev/null
RESET ROLE;
INSERT INTO run_tracker.runs (run_id, user_id, kind, status, timeout)
SELECT format('f4000000-0000-0000-0000-00000000000%s', i)::uuid, 'alice', 'late', 'running', '1 minute' FROM generate_series(1, 3) i;
SELECT run_tracker.expire_runs(now => clock_timestamp() + interval '10 minutes') > 1 AS expired;
SELECT run_id, status FROM run_tracker.runs WHERE kind = 'late' ORDER BY run_id;
SELECT run_tracker.drop_on_finish(handler_id) FROM run_tracker.finish_handlers WHERE kind_or_lifecycle = 'late';
SELECT run_tracker.expire_runs(now => clock_timestamp() + interval '20 minutes') > 0 AS expired;

--
-- Functions that finish other runs
--
SET ROLE regress_finish_app;
CREATE FUNCTION regress_finish.finish_children(run uuid) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO regress_finish.calls (what, run_id) VALUES ('children', run);
    UPDATE run_tracker.runs SET status = 'cancelled' WHERE parent_run_id = run;
END
$$;
CREATE FUNCTION regress_finish.have_children(run jsonb) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM run_tracker.complete_run(run_tracker.create_run(kind => 'endless', user_id => run ->> 'user_id'));
END
$$;
SELECT run_tracker.on_finish('family', 'regress_finish.finish_children(uuid)') \g /dev/null
SELECT run_tracker.on_finish('endless', 'regress_finish.have_children(jsonb)') \g /dev/null
RESET ROLE;
SET ROLE regress_finish_client;
INSERT INTO run_tracker.runs (run_id, kind, parent_run_id) VALUES
    ('f5000000-0000-0000-0000-000000000001', 'family', NULL),
    ('f5000000-0000-0000-0000-000000000002', 'family', 'f5000000-0000-0000-0000-000000000001'),
    ('f5000000-0000-0000-0000-000000000003', 'family', 'f5000000-0000-0000-0000-000000000002'),
    ('f5000000-0000-0000-0000-000000000004', 'endless', NULL);
SELECT run_tracker.complete_run('f5000000-0000-0000-0000-000000000001');
SELECT run_id, status FROM run_tracker.runs WHERE kind = 'family' ORDER BY run_id;
RESET ROLE;
SELECT what, run_id FROM regress_finish.calls ORDER BY n;
DELETE FROM regress_finish.calls;
SET ROLE regress_finish_client;
RESET ROLE;
SET max_stack_depth = '600kB';
SET ROLE regress_finish_client;
CALL pg_temp.try($$SELECT run_tracker.complete_run('f5000000-0000-0000-0000-000000000004')$$);
RESET ROLE;
RESET max_stack_depth;
SELECT DISTINCT status FROM run_tracker.runs WHERE kind = 'endless';

--
-- What cannot be registered
--
SET ROLE regress_finish_app;
CREATE FUNCTION regress_finish.wrong(run text) RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION regress_finish.wrong(run uuid, more integer DEFAULT 1) RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION regress_finish.wrong(VARIADIC runs uuid[]) RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION regress_finish.many(run uuid) RETURNS SETOF integer LANGUAGE sql AS 'SELECT 1';
CREATE PROCEDURE regress_finish.proc(run uuid) LANGUAGE sql AS '';
CREATE FUNCTION regress_finish.last(uuid, uuid) RETURNS uuid LANGUAGE sql AS 'SELECT $2';
CREATE AGGREGATE regress_finish.agg(uuid) (SFUNC = regress_finish.last, STYPE = uuid);
CALL pg_temp.try($$SELECT run_tracker.on_finish('x', 'regress_finish.wrong(text)')$$);
CALL pg_temp.try($$SELECT run_tracker.on_finish('x', 'regress_finish.wrong(uuid, integer)')$$);
CALL pg_temp.try($$SELECT run_tracker.on_finish('x', 'regress_finish.wrong(uuid[])')$$);
CALL pg_temp.try($$SELECT run_tracker.on_finish('x', 'regress_finish.many(uuid)')$$);
CALL pg_temp.try($$SELECT run_tracker.on_finish('x', 'regress_finish.proc(uuid)')$$);
CALL pg_temp.try($$SELECT run_tracker.on_finish('x', 'regress_finish.agg(uuid)')$$);
CALL pg_temp.try($$SELECT run_tracker.on_finish('x', 0)$$);
CALL pg_temp.try($$SELECT run_tracker.on_finish('x', NULL)$$);
CALL pg_temp.try($$SELECT run_tracker.on_finish('', 'regress_finish.note(uuid)')$$);
CALL pg_temp.try($$SELECT run_tracker.on_finish('x', 'regress_finish.note(uuid)', 'ignore')$$);
CALL pg_temp.try($$SELECT run_tracker.on_finish('x', 'regress_finish.note(uuid)', NULL)$$);
CALL pg_temp.try($$SELECT run_tracker.drop_on_finish()$$);
BEGIN READ ONLY;
SELECT run_tracker.on_finish('x', 'regress_finish.note(uuid)');
ROLLBACK;
-- functions of others: only what the caller may execute, and nobody but its like can replace
GRANT USAGE ON SCHEMA regress_finish TO regress_finish_other, regress_finish_group;
RESET ROLE;
SET ROLE regress_finish_other;
CALL pg_temp.try($$SELECT run_tracker.on_finish('x', 'regress_finish.note(uuid)')$$);
CALL pg_temp.try($$SELECT run_tracker.on_finish('spar', 'regress_finish.write_analysis(jsonb)')$$);
CALL pg_temp.try(format('SELECT run_tracker.drop_on_finish(%L)', :'handler'));
RESET ROLE;
CALL pg_temp.try($$SELECT run_tracker.on_finish('x', 'regress_finish.note(uuid)')$$);
GRANT regress_finish_app TO regress_finish_other;
SET ROLE regress_finish_other;
CALL pg_temp.try($$SELECT run_tracker.on_finish('x', 'regress_finish.note(uuid)')$$);
\set VERBOSITY terse
CALL pg_temp.try($$SELECT run_tracker.on_finish('spar', 'regress_finish.write_analysis(jsonb)')$$);
\set VERBOSITY default
RESET ROLE;
SELECT run_tracker.drop_on_finish(NULL, 'x', 'regress_finish.note(uuid)');
REVOKE regress_finish_app FROM regress_finish_other;
-- clients
SET ROLE regress_finish_client;
CALL pg_temp.try($$SELECT run_tracker.on_finish('x', 'pg_catalog.jsonb_typeof(jsonb)')$$);
CALL pg_temp.try($$SELECT run_tracker.drop_on_finish()$$);
CALL pg_temp.try('TABLE run_tracker.finish_handlers');
RESET ROLE;
GRANT EXECUTE ON FUNCTION run_tracker.on_finish(text, regprocedure, text), run_tracker.drop_on_finish(uuid, text, regprocedure) TO regress_finish_client;
SET ROLE regress_finish_client;
CALL pg_temp.try($$SELECT run_tracker.on_finish('x', 'pg_catalog.jsonb_typeof(jsonb)')$$);
CALL pg_temp.try($$SELECT run_tracker.drop_on_finish()$$);
RESET ROLE;
REVOKE EXECUTE ON FUNCTION run_tracker.on_finish(text, regprocedure, text), run_tracker.drop_on_finish(uuid, text, regprocedure) FROM regress_finish_client;
-- services read, but do not write
SET ROLE regress_finish_app;
CALL pg_temp.try($$UPDATE run_tracker.finish_handlers SET role = 'postgres'$$);
CALL pg_temp.try($$DELETE FROM run_tracker.finish_handlers$$);
SELECT count(*) > 0 AS readable FROM run_tracker.finish_handlers;
RESET ROLE;

--
-- Whose rights it has: a client who wants them, or who wants it to do something else
--
SET ROLE regress_finish_app;
SET search_path = regress_finish_open, regress_finish;
CREATE FUNCTION regress_finish.see(run uuid) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO calls (what, run_id, who, status, sub)
    VALUES (CASE WHEN '2026-02-01'::date = make_date(2026, 2, 1) AND '01/02/2026'::date = make_date(2026, 1, 2) THEN 'same' ELSE 'other' END
                || CASE WHEN '2026-02-01 00:30+01'::timestamptz::date = make_date(2026, 1, 31) THEN ' day' ELSE ' other day' END
                || CASE WHEN (NULL = NULL) IS NULL THEN ' null' ELSE ' equal' END,
            run, current_user, current_setting('search_path'), current_setting('row_security'));
    PERFORM set_config('search_path', 'regress_finish_open', false), set_config('regress_finish.left', 'behind', false);
END
$$;
SELECT run_tracker.on_finish('see', 'regress_finish.see(uuid)') \g /dev/null
RESET search_path;
RESET ROLE;
SET ROLE regress_finish_client;
CREATE TEMP TABLE calls (what text, run_id uuid, who text, status text, sub text);
CREATE TEMP TABLE journal_entries (entry_id text, ai_analysis jsonb, analysed_for text);
CREATE FUNCTION pg_temp.mine() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'I am %', current_user; END $$;
CREATE TRIGGER mine BEFORE INSERT ON pg_temp.calls FOR EACH ROW EXECUTE FUNCTION pg_temp.mine();
INSERT INTO run_tracker.runs (run_id, kind) VALUES ('f6000000-0000-0000-0000-000000000001', 'see');
SET search_path = pg_temp, public;
SET DateStyle = 'German, DMY';
SET TimeZone = 'Asia/Tokyo';
SET transform_null_equals = on;
SELECT run_tracker.complete_run('f6000000-0000-0000-0000-000000000001');
SHOW search_path;
SHOW TimeZone;
SELECT current_user, current_setting('regress_finish.left', true) AS left_behind;
RESET search_path;
RESET DateStyle;
RESET TimeZone;
RESET transform_null_equals;
DROP TABLE pg_temp.calls, pg_temp.journal_entries;
RESET ROLE;
SELECT what, run_id, who, status, sub FROM regress_finish.calls;
DELETE FROM regress_finish.calls;

-- nothing is put off until the caller is back; and there is no way to be somebody else
SET ROLE regress_finish_app;
CREATE FUNCTION regress_finish.later() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'I am %', current_user; END $$;
CREATE TABLE regress_finish.deferred (i integer);
CREATE CONSTRAINT TRIGGER later AFTER INSERT ON regress_finish.deferred DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION regress_finish.later();
CREATE FUNCTION regress_finish.attempt(run jsonb) RETURNS void LANGUAGE plpgsql AS $$ BEGIN EXECUTE run ->> 'name'; END $$;
SELECT run_tracker.on_finish('attempt', 'regress_finish.attempt(jsonb)') \g /dev/null
RESET ROLE;
CREATE PROCEDURE pg_temp.attempt(statement text) LANGUAGE plpgsql AS $$
BEGIN
    CALL pg_temp.try(format('SELECT run_tracker.complete_run(run_tracker.create_run(kind => ''attempt'', name => %L, user_id => ''alice''))', statement));
END
$$;
CALL pg_temp.attempt('INSERT INTO regress_finish.deferred VALUES (1)');
CALL pg_temp.attempt('CREATE TEMP TABLE t ()');
CALL pg_temp.attempt('SET ROLE postgres');
CALL pg_temp.attempt('RESET ROLE');
CALL pg_temp.attempt('SET SESSION AUTHORIZATION DEFAULT');
CALL pg_temp.attempt('ALTER ROLE regress_finish_app SUPERUSER');
CALL pg_temp.attempt('UPDATE run_tracker.finish_handlers SET role = session_user');
CALL pg_temp.attempt('SELECT 1');
-- policies that a table forces on its owner hold, also when the tracker was at work
SET ROLE regress_finish_app;
CREATE TABLE regress_finish.forced (i integer);
INSERT INTO regress_finish.forced VALUES (1);
ALTER TABLE regress_finish.forced ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE FUNCTION regress_finish.see_forced(run uuid) RETURNS void LANGUAGE sql AS
$$ INSERT INTO regress_finish.calls (what) SELECT 'forced ' || count(*) FROM regress_finish.forced $$;
SELECT run_tracker.on_finish('forced', 'regress_finish.see_forced(uuid)') \g /dev/null
RESET ROLE;
INSERT INTO run_tracker.runs (user_id, kind, status, timeout) VALUES ('alice', 'forced', 'running', '1 minute');
SELECT run_tracker.expire_runs(now => clock_timestamp() + interval '2 minutes') > 0 AS expired;
SET row_security = off;
SELECT run_tracker.complete_run(run_tracker.create_run(kind => 'forced'));
RESET row_security;
SELECT what FROM regress_finish.calls;

-- another function under the same name
CREATE FUNCTION regress_finish_open.swapped(run uuid) RETURNS void LANGUAGE sql AS '';
ALTER FUNCTION regress_finish_open.swapped(uuid) OWNER TO regress_finish_app;
SET ROLE regress_finish_app;
SELECT run_tracker.on_finish('swapped', 'regress_finish_open.swapped(uuid)') AS swapped \gset
DROP FUNCTION regress_finish_open.swapped(uuid);
RESET ROLE;
CREATE PROCEDURE pg_temp.finish(kind text) LANGUAGE plpgsql AS $$
BEGIN
    CALL pg_temp.try(format('SELECT run_tracker.complete_run(run_tracker.create_run(kind => %L))', kind));
END
$$;
\set VERBOSITY terse
SET ROLE regress_finish_client;
CALL pg_temp.finish('swapped');
CREATE FUNCTION regress_finish_open.swapped(run uuid) RETURNS void LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'I am %', current_user; END $$;
GRANT EXECUTE ON FUNCTION regress_finish_open.swapped(uuid) TO regress_finish_app;
\set VERBOSITY default
CALL pg_temp.finish('swapped');
DROP FUNCTION regress_finish_open.swapped(uuid);
RESET ROLE;
-- the same for what a superuser has registered: there, being a member of every role does not count
CREATE FUNCTION regress_finish_open.swapped(run uuid) RETURNS void LANGUAGE sql AS '';
SELECT run_tracker.drop_on_finish(:'swapped');
SELECT run_tracker.on_finish('swapped', 'regress_finish_open.swapped(uuid)') \g /dev/null
SET ROLE regress_finish_client;
CALL pg_temp.finish('swapped');
RESET ROLE;
ALTER FUNCTION regress_finish_open.swapped(uuid) OWNER TO regress_finish_app;
UPDATE run_tracker.finish_handlers SET role = 'regress_finish_super' WHERE kind_or_lifecycle = 'swapped';
CREATE ROLE regress_finish_super SUPERUSER;
SET ROLE regress_finish_client;
CALL pg_temp.finish('swapped');
RESET ROLE;
-- a function that the role may no longer execute, of a group that it has left, or that became another kind of function
DELETE FROM run_tracker.finish_handlers WHERE kind_or_lifecycle = 'swapped';
ALTER FUNCTION regress_finish_open.swapped(uuid) OWNER TO regress_finish_group;
GRANT regress_finish_group TO regress_finish_app;
SET ROLE regress_finish_app;
SELECT run_tracker.on_finish('swapped', 'regress_finish_open.swapped(uuid)') \g /dev/null
RESET ROLE;
CALL pg_temp.finish('swapped');
REVOKE regress_finish_group FROM regress_finish_app;
CALL pg_temp.finish('swapped');
ALTER FUNCTION regress_finish_open.swapped(uuid) OWNER TO CURRENT_USER;
CALL pg_temp.finish('swapped');
REVOKE ALL ON FUNCTION regress_finish_open.swapped(uuid) FROM PUBLIC;
CALL pg_temp.finish('swapped');
DROP FUNCTION regress_finish_open.swapped(uuid);
CREATE FUNCTION regress_finish_open.swapped(uuid) RETURNS SETOF integer LANGUAGE sql AS 'SELECT 1';
CALL pg_temp.finish('swapped');
DROP FUNCTION regress_finish_open.swapped(uuid);
DELETE FROM run_tracker.finish_handlers WHERE kind_or_lifecycle = 'swapped';

-- a role that is no service any more, or is gone
CREATE ROLE regress_finish_gone;
SELECT run_tracker.grant_service('regress_finish_gone');
SET ROLE regress_finish_gone;
SELECT run_tracker.on_finish('gone', 'pg_catalog.jsonb_typeof(jsonb)') \g /dev/null
RESET ROLE;
CALL pg_temp.finish('gone');
REVOKE UPDATE ON run_tracker.runs FROM regress_finish_gone;
\set VERBOSITY terse
CALL pg_temp.finish('gone');
DROP OWNED BY regress_finish_gone;
DROP ROLE regress_finish_gone;
CALL pg_temp.finish('gone');
\set VERBOSITY default
SELECT run_tracker.drop_on_finish(kind_or_lifecycle => 'gone', function => 'pg_catalog.jsonb_typeof(jsonb)');

--
-- The owner of the tables, who is no superuser, does not become one
--
CREATE ROLE regress_finish_owner;
BEGIN;
SELECT run_tracker.set_owner('regress_finish_owner');
SELECT relname, r.rolsuper FROM pg_class c JOIN pg_roles r ON r.oid = c.relowner
WHERE c.oid IN ('run_tracker.runs'::regclass, 'run_tracker.finish_handlers'::regclass) ORDER BY 1;
SELECT run_tracker.install() = run_tracker.tracker_version() AS installed;
SELECT relname, r.rolsuper FROM pg_class c JOIN pg_roles r ON r.oid = c.relowner
WHERE c.oid IN ('run_tracker.runs'::regclass, 'run_tracker.finish_handlers'::regclass) ORDER BY 1;
-- it registers what it may do itself, and can remove what others have registered
SET ROLE regress_finish_owner;
CALL pg_temp.try('TABLE run_tracker.finish_handlers');
CALL pg_temp.try($$UPDATE run_tracker.finish_handlers SET role = session_user$$);
CALL pg_temp.try($$CREATE TRIGGER t BEFORE INSERT ON run_tracker.finish_handlers FOR EACH ROW EXECUTE FUNCTION regress_finish.later()$$);
SELECT run_tracker.on_finish('owned', 'pg_catalog.jsonb_typeof(jsonb)') \g /dev/null
SELECT run_tracker.drop_on_finish(:'handler');
RESET ROLE;
CALL pg_temp.finish('owned');
-- types of its own that come with code, in the row that a function of a superuser's gets
GRANT CREATE ON SCHEMA regress_finish_open TO regress_finish_owner;
SET ROLE regress_finish_owner;
CREATE TYPE regress_finish_open.word AS ENUM ('a');
CREATE FUNCTION regress_finish_open.spy(w regress_finish_open.word) RETURNS json LANGUAGE plpgsql AS
$$ BEGIN RETURN to_json((SELECT 'superuser: ' || rolsuper FROM pg_roles WHERE rolname = current_user)); END $$;
CREATE CAST (regress_finish_open.word AS json) WITH FUNCTION regress_finish_open.spy(regress_finish_open.word);
ALTER TABLE run_tracker.runs ADD COLUMN word regress_finish_open.word DEFAULT 'a';
RESET ROLE;
CREATE FUNCTION regress_finish_open.show(run jsonb) RETURNS void LANGUAGE plpgsql AS
$$ BEGIN INSERT INTO regress_finish.calls (what) VALUES (run ->> 'word'); END $$;
SELECT run_tracker.on_finish('show', 'regress_finish_open.show(jsonb)') \g /dev/null
DELETE FROM regress_finish.calls;
CALL pg_temp.finish('show');
SELECT what FROM regress_finish.calls;
ROLLBACK;
-- a table of handlers that belongs to anybody else gives nobody's rights but his own
BEGIN;
SET ROLE regress_finish_app;
SELECT run_tracker.on_finish('owned', 'regress_finish.note(uuid)') \g /dev/null
RESET ROLE;
ALTER TABLE run_tracker.finish_handlers OWNER TO regress_finish_owner;
\set VERBOSITY terse
CALL pg_temp.finish('owned');
CALL pg_temp.try('SELECT run_tracker.install()');
ALTER TABLE run_tracker.finish_handlers OWNER TO regress_finish_app;
\set VERBOSITY default
CALL pg_temp.finish('owned');
ROLLBACK;
-- nor does the owner get it by handing it over
BEGIN;
SELECT run_tracker.set_owner('regress_finish_owner');
DROP TABLE run_tracker.finish_handlers;
SELECT run_tracker.install() = run_tracker.tracker_version() AS installed;
SELECT r.rolsuper FROM pg_class c JOIN pg_roles r ON r.oid = c.relowner WHERE c.oid = 'run_tracker.finish_handlers'::regclass;
ROLLBACK;

SELECT run_tracker.drop_on_finish(handler_id) FROM run_tracker.finish_handlers;
DELETE FROM run_tracker.runs;
RESET request.jwt.claims;
DROP SCHEMA regress_finish, regress_finish_open CASCADE;
DROP OWNED BY regress_finish_app, regress_finish_other, regress_finish_group, regress_finish_client, regress_finish_owner, regress_finish_super;
DROP ROLE regress_finish_app, regress_finish_other, regress_finish_group, regress_finish_client, regress_finish_owner, regress_finish_super;
