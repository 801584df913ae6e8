--
-- Null arguments: every function is called with all arguments null, and with each single one null.  The server stays
-- up, and no call ends in an internal error.  The calls are generated, so that new functions take part by themselves.
--
\getenv abs_srcdir PG_ABS_SRCDIR
\set common :abs_srcdir '/sql/common.psql'
\i :common

CREATE ROLE regress_nullcalls;
INSERT INTO run_tracker.runs (run_id, user_id) VALUES ('c0000000-0000-0000-0000-000000000001', 'alice');
INSERT INTO run_tracker.tasks (run_id, task_id)
VALUES ('c0000000-0000-0000-0000-000000000001', 'c0000000-0000-0000-0000-000000000002');
SELECT pg_backend_pid() AS pid, pg_postmaster_start_time() AS started \gset

-- A value with which a call gets as far as possible, as an SQL expression.
CREATE FUNCTION pg_temp.plausible(type regtype, name text) RETURNS text LANGUAGE sql AS $$
    SELECT CASE
        WHEN name IN ('task_id', 'parent_task_id') THEN quote_literal('c0000000-0000-0000-0000-000000000002')
        WHEN type = 'uuid'::regtype THEN quote_literal('c0000000-0000-0000-0000-000000000001')
        WHEN name LIKE '%lifecycle' OR name = 'name' AND type = 'text'::regtype THEN quote_literal('run')
        WHEN name = 'status' THEN quote_literal('running')
        WHEN name LIKE '%level' THEN quote_literal('ERROR')
        WHEN name = 'role' AND type = 'text'::regtype THEN quote_literal('user')
        WHEN name = 'parts' THEN quote_literal('[]')
        WHEN name = 'definition' THEN (SELECT quote_literal(definition) FROM run_tracker.lifecycles WHERE lifecycles.name = 'run')
        WHEN type = 'regrole'::regtype THEN quote_literal('regress_nullcalls')
        WHEN type = 'regclass'::regtype THEN quote_literal('run_tracker.runs')
        WHEN type IN ('json'::regtype, 'jsonb'::regtype) THEN quote_literal('{"a": 1}')
        WHEN type::text LIKE '%[]' THEN quote_literal('{}')
        WHEN type IN ('timestamptz'::regtype, 'timestamp'::regtype, 'date'::regtype) THEN quote_literal('2030-01-01')
        WHEN type = 'interval'::regtype THEN quote_literal('1 hour')
        WHEN type = 'boolean'::regtype THEN quote_literal('true')
        ELSE quote_literal('1')
    END || '::' || type
$$;

-- All calls of a function, one a row: all null, then each argument null in turn.
CREATE FUNCTION pg_temp.calls(function regprocedure) RETURNS SETOF text LANGUAGE sql AS $$
    WITH arguments AS (
        SELECT a.n, t.type::regtype AS type, p.proargnames[a.n] AS name
        FROM pg_proc p, generate_series(1, p.pronargs) a (n), LATERAL (SELECT p.proargtypes[a.n - 1]) t (type)
        WHERE p.oid = function
    )
    SELECT format('%s(%s)', function::regproc, string_agg(
        CASE WHEN null_at.n IN (0, a.n) THEN 'NULL::' || a.type ELSE pg_temp.plausible(a.type, a.name) END, ', ' ORDER BY a.n))
    FROM arguments a, (SELECT 0 UNION ALL SELECT n FROM arguments) null_at (n)
    GROUP BY null_at.n
$$;

-- Calls it inside a block that is undone: the next call finds everything as it was.
CREATE FUNCTION pg_temp.undone(call text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    n bigint;
BEGIN
    EXECUTE 'SELECT count(*) FROM ' || call INTO n;
    RAISE EXCEPTION 'undo' USING ERRCODE = 'ZZ000';
EXCEPTION
    WHEN SQLSTATE 'ZZ000' THEN
        RETURN 'ok';
    WHEN OTHERS THEN
        RETURN SQLSTATE || ' ' || SQLERRM;
END
$$;

SET client_min_messages = warning;
CREATE TEMP TABLE results AS
SELECT p.oid::regprocedure AS function, c AS call, pg_temp.undone(c) AS result
FROM pg_proc p, LATERAL pg_temp.calls(p.oid) c
WHERE p.pronamespace = 'run_tracker'::regnamespace AND p.prorettype <> 'trigger'::regtype AND p.pronargs > 0;
RESET client_min_messages;

-- every function with arguments took part, with one call more than it has arguments
SELECT count(DISTINCT function) > 30 AS many,
       count(*) = (SELECT sum(pronargs + 1) FROM pg_proc WHERE pronamespace = 'run_tracker'::regnamespace
                   AND prorettype <> 'trigger'::regtype AND pronargs > 0) AS all_calls,
       count(*) FILTER (WHERE result = 'ok') > 30 AS some_succeed
FROM results;
-- no internal errors, nor others that speak of a bug: none of these rows
SELECT call, result FROM results WHERE result ~ '^(XX|57|58|08|26|22004|42[0-4P])' AND function::text !~ 'revoke_all|install_policy|install_triggers';

-- trigger functions refuse to be called as functions
DO $$
DECLARE
    function regproc;
BEGIN
    FOR function IN
        SELECT oid FROM pg_proc WHERE pronamespace = 'run_tracker'::regnamespace AND prorettype = 'trigger'::regtype
    LOOP
        BEGIN
            EXECUTE format('SELECT %s() IS NULL', function);
            RAISE INFO '% can be called', function;
        EXCEPTION WHEN trigger_protocol_violated OR feature_not_supported THEN
            NULL;
        END;
    END LOOP;
END
$$;

SELECT pg_backend_pid() = :pid AS same_session, pg_postmaster_start_time() = :'started' AS same_server;
DELETE FROM run_tracker.runs;
DROP OWNED BY regress_nullcalls;
DROP ROLE regress_nullcalls;
