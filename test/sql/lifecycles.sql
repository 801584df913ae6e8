--
-- Lifecycles: the built-in ones are what the documentation says, a malformed definition is refused with a message
-- that says what is wrong where, what rows use cannot be taken away, and a change takes effect at once.
--
\getenv abs_srcdir PG_ABS_SRCDIR
\set common :abs_srcdir '/sql/common.psql'
\i :common

CREATE ROLE regress_lifecycles_client;
CREATE ROLE regress_lifecycles_service;
SELECT run_tracker.grant_client('regress_lifecycles_client');
SELECT run_tracker.grant_service('regress_lifecycles_service');

-- the built-in lifecycles
\t on
\pset format unaligned
SELECT name FROM run_tracker.lifecycles ORDER BY name;
SELECT run_tracker.lifecycle_diagram('run');
SELECT run_tracker.lifecycle_diagram('task');
SELECT run_tracker.lifecycle_diagram('spar');
SELECT run_tracker.lifecycle_diagram('iflow');
SELECT run_tracker.lifecycle_diagram('workflow');
SELECT run_tracker.lifecycle_diagram('build');
SELECT run_tracker.lifecycle_diagram('conversation');
-- their timeouts
SELECT name, definition -> 'timeout' AS timeout, (SELECT jsonb_object_agg(s.key, s.value -> 'timeout')
    FROM jsonb_each(definition -> 'states') s WHERE s.value ? 'timeout') AS of_states
FROM run_tracker.lifecycles ORDER BY name;

-- a diagram of names that would break it
SELECT run_tracker.define_lifecycle('regress "odd"', '{"initial": "a \"b\" --> c", "states": {
    "a \"b\" --> c": {"phase": "queued", "next": ["línea\nnueva"]}, "línea\nnueva": {"phase": "succeeded"}}}');
SELECT run_tracker.lifecycle_diagram('regress "odd"');
SELECT run_tracker.drop_lifecycle('regress "odd"');
\t off
\pset format aligned

-- what there is not
CALL pg_temp.try($$SELECT run_tracker.lifecycle_diagram('no such')$$);
CALL pg_temp.try($$SELECT run_tracker.lifecycle_diagram('')$$);
CALL pg_temp.try(format('SELECT run_tracker.lifecycle_diagram(%L)', repeat('x', 100)));
SELECT run_tracker.lifecycle_diagram(NULL) IS NULL AS null_for_null;
SELECT run_tracker.drop_lifecycle('no such');
CALL pg_temp.try($$INSERT INTO run_tracker.runs (lifecycle) VALUES ('no such')$$);
CALL pg_temp.try($$INSERT INTO run_tracker.runs (status) VALUES ('no such')$$);

--
-- Malformed definitions
--
DO $$
DECLARE
    ok jsonb := '{"initial": "a", "states": {"a": {"phase": "queued", "next": ["b"]}, "b": {"phase": "succeeded"}}}';
    definition jsonb;
BEGIN
    CALL pg_temp.try(format('SELECT run_tracker.define_lifecycle(%L, %L)', 'regress', ok));
    FOREACH definition IN ARRAY ARRAY[
        -- the whole
        'null', '"a"', '[]', '[{"initial": "a"}]', '{}',
        ok - 'initial', ok - 'states', ok || '{"color": "red"}',
        ok || '{"initial": 1}', ok || '{"initial": "z"}', ok || '{"initial": ""}',
        -- timeouts
        ok || '{"timeout": 60}', ok || '{"timeout": "-1 second"}', ok || '{"timeout": "0"}',
        ok || '{"timeout": ["1 s"]}', ok || '{"timeout": "1 minute"}',
        jsonb_set(ok, '{states,a,timeout}', '"1 minute"'),
        jsonb_set(ok, '{states,a,timeout}', 'true'), jsonb_set(ok, '{states,a,timeout}', '"-1 second"'),
        jsonb_set(ok, '{states,b,timeout}', '"1 minute"'),
        '{"initial": "a", "states": {"a": {"phase": "waiting", "timeout": "1 min", "next": ["b"]}, "b": {"phase": "failed"}}}',
        -- states
        ok || '{"states": []}', ok || '{"states": {}}', ok || '{"states": "a"}', ok || '{"states": null}',
        jsonb_set(ok, '{states,a}', '"queued"'), jsonb_set(ok, '{states,a}', '[]'), jsonb_set(ok, '{states,a}', 'null'),
        jsonb_set(ok, '{states,a}', '{"next": ["b"]}'), jsonb_set(ok, '{states,a,phase}', '"done"'),
        jsonb_set(ok, '{states,a,phase}', '7'), jsonb_set(ok, '{states,a,color}', '"red"'),
        jsonb_set(ok, '{states}', '{"": {"phase": "queued"}}'),
        jsonb_set(ok, '{states}', jsonb_build_object(repeat('s', 64), '{"phase": "queued"}'::jsonb)),
        -- next
        jsonb_set(ok, '{states,a,next}', '"b"'), jsonb_set(ok, '{states,a,next}', '{"b": 1}'),
        jsonb_set(ok, '{states,a,next}', '[1]'), jsonb_set(ok, '{states,a,next}', '[null]'),
        jsonb_set(ok, '{states,a,next}', '[["b"]]'), jsonb_set(ok, '{states,a,next}', '["z"]'),
        jsonb_set(ok, '{states,a,next}', '["a", "b"]'), jsonb_set(ok, '{states,a,next}', '["b", "b"]'),
        -- the machine as a whole
        ok || '{"initial": "b"}',
        jsonb_set(ok, '{states,b,phase}', '"active"'),
        jsonb_set(ok, '{states,c}', '{"phase": "failed"}'),
        jsonb_set(ok, '{states,a,next}', '[]'),
        jsonb_set(jsonb_set(ok, '{states,c}', '{"phase": "active"}'), '{states,a,next}', '["b", "c"]'),
        jsonb_set(jsonb_set(jsonb_set(ok, '{states,c}', '{"phase": "active", "next": ["d"]}'),
                            '{states,d}', '{"phase": "active", "next": ["c"]}'), '{states,a,next}', '["b", "c"]')
    ] LOOP
        RAISE INFO '% ', left(definition::text, 150);
        BEGIN
            PERFORM run_tracker.define_lifecycle('regress', definition);
            RAISE INFO '  accepted';
        EXCEPTION WHEN OTHERS THEN
            DECLARE
                detail text;
            BEGIN
                GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL;
                RAISE INFO '  %: % %', SQLSTATE, SQLERRM, detail;
            END;
        END;
    END LOOP;
END
$$;
-- an interval that is none
DO $$
BEGIN
    PERFORM run_tracker.define_lifecycle('regress', '{"initial": "a", "timeout": "soon",
        "states": {"a": {"phase": "queued", "next": ["b"]}, "b": {"phase": "failed"}}}');
EXCEPTION WHEN OTHERS THEN
    RAISE INFO '%: %', SQLSTATE, SQLERRM;
END
$$;
DO $$
BEGIN
    PERFORM run_tracker.define_lifecycle('regress', '{"initial": "a",
        "states": {"a": {"phase": "queued", "next": ["b"], "timeout": "later"}, "b": {"phase": "failed"}}}');
EXCEPTION WHEN OTHERS THEN
    RAISE INFO '%: %', SQLSTATE, SQLERRM;
END
$$;

-- the definition is still the one that was sound, and so is that of a direct INSERT or UPDATE
SELECT definition FROM run_tracker.lifecycles WHERE name = 'regress';
CALL pg_temp.try($$UPDATE run_tracker.lifecycles SET definition = '{}' WHERE name = 'regress'$$);
CALL pg_temp.try($$INSERT INTO run_tracker.lifecycles VALUES ('regress 2', '{}')$$);
CALL pg_temp.try($$UPDATE run_tracker.lifecycles SET definition = NULL WHERE name = 'regress'$$);
CALL pg_temp.try($$UPDATE run_tracker.lifecycles SET name = '' WHERE name = 'regress'$$);
CALL pg_temp.try(format('SELECT run_tracker.define_lifecycle(%L, definition) FROM run_tracker.lifecycles WHERE name = ''run''', repeat('n', 64)));
CALL pg_temp.try($$SELECT run_tracker.define_lifecycle(NULL, '{}')$$);
CALL pg_temp.try($$SELECT run_tracker.define_lifecycle('regress', NULL)$$);
CALL pg_temp.try($$SELECT run_tracker.drop_lifecycle(NULL)$$);

-- 64 states are possible, each of them usable; 65 are not
SELECT run_tracker.define_lifecycle('regress 64', jsonb_build_object('initial', 's1', 'states',
    (SELECT jsonb_object_agg('s' || n, CASE n WHEN 64 THEN '{"phase": "succeeded"}'
        ELSE jsonb_build_object('phase', 'active', 'next', jsonb_build_array('s' || n + 1)) END) FROM generate_series(1, 64) n)));
INSERT INTO run_tracker.runs (lifecycle, name, user_id) VALUES ('regress 64', 'regress 64', 'alice');
DO $$
BEGIN
    FOR n IN 2 .. 64 LOOP
        UPDATE run_tracker.runs SET status = 's' || n WHERE name = 'regress 64';
    END LOOP;
END
$$;
SELECT status, phase FROM run_tracker.runs WHERE name = 'regress 64';
DELETE FROM run_tracker.runs WHERE name = 'regress 64';
CALL pg_temp.try($$SELECT run_tracker.define_lifecycle('regress 65', jsonb_build_object('initial', 's1', 'states',
    (SELECT jsonb_object_agg('s' || n, '{"phase": "succeeded"}'::jsonb) FROM generate_series(1, 65) n)))$$);
SELECT run_tracker.drop_lifecycle('regress 64');

--
-- Definitions that are in use
--
SELECT run_tracker.define_lifecycle('regress', '{"initial": "a", "timeout": "1 hour", "states": {
    "a": {"phase": "queued", "next": ["b", "x"]}, "b": {"phase": "active", "next": ["x", "y"]},
    "x": {"phase": "succeeded"}, "y": {"phase": "failed"}}}');
INSERT INTO run_tracker.runs (run_id, lifecycle, user_id)
VALUES ('20000000-0000-0000-0000-000000000001', 'regress', 'alice');
UPDATE run_tracker.runs SET status = 'b' WHERE lifecycle = 'regress';

-- it can gain states and transitions, and lose those that no row uses: effective for the next statement
CALL pg_temp.try($$UPDATE run_tracker.runs SET status = 'c' WHERE lifecycle = 'regress'$$);
SELECT run_tracker.define_lifecycle('regress', '{"initial": "a", "timeout": "1 hour", "states": {
    "a": {"phase": "queued", "next": ["b", "x"]}, "b": {"phase": "active", "next": ["c", "x"]},
    "c": {"phase": "active", "next": ["x"]}, "x": {"phase": "failed"}}}');
UPDATE run_tracker.runs SET status = 'c' WHERE lifecycle = 'regress' RETURNING status, phase;
CALL pg_temp.try($$UPDATE run_tracker.runs SET status = 'b' WHERE lifecycle = 'regress'$$);

-- it cannot lose the state that a row is in, change its phase, its name, or be dropped
CALL pg_temp.try($$SELECT run_tracker.define_lifecycle('regress', '{"initial": "a", "states": {
    "a": {"phase": "queued", "next": ["x"]}, "x": {"phase": "failed"}}}')$$);
CALL pg_temp.try($$SELECT run_tracker.define_lifecycle('regress', '{"initial": "a", "states": {
    "a": {"phase": "queued", "next": ["c"]}, "c": {"phase": "succeeded"}}}')$$);
CALL pg_temp.try($$UPDATE run_tracker.lifecycles SET name = 'regress 2' WHERE name = 'regress'$$);
CALL pg_temp.try($$SELECT run_tracker.drop_lifecycle('regress')$$);
CALL pg_temp.try($$DELETE FROM run_tracker.lifecycles WHERE name = 'regress'$$);
BEGIN;
DO $$
BEGIN
    TRUNCATE run_tracker.lifecycles;
EXCEPTION WHEN OTHERS THEN
    RAISE INFO '%: %', SQLSTATE, 'lifecycles are in use';
END
$$;
SELECT count(*) AS lifecycles FROM run_tracker.lifecycles;
ROLLBACK;
-- a task holds it as well as a run
BEGIN;
INSERT INTO run_tracker.runs (run_id, user_id) VALUES ('20000000-0000-0000-0000-000000000002', 'alice');
DELETE FROM run_tracker.runs WHERE lifecycle = 'regress';
INSERT INTO run_tracker.tasks (run_id, lifecycle) VALUES ('20000000-0000-0000-0000-000000000002', 'regress');
CALL pg_temp.try($$SELECT run_tracker.drop_lifecycle('regress')$$);
DELETE FROM run_tracker.tasks;
CALL pg_temp.try($$SELECT run_tracker.drop_lifecycle('regress')$$);
CALL pg_temp.try($$INSERT INTO run_tracker.tasks (run_id, lifecycle) VALUES ('20000000-0000-0000-0000-000000000002', 'regress')$$);
ROLLBACK;

--
-- What this session remembers of a definition follows transactions and savepoints
--
CREATE FUNCTION pg_temp.define(initial text) RETURNS void LANGUAGE sql AS $$
    SELECT run_tracker.define_lifecycle('regress cache', jsonb_build_object('initial', initial, 'states',
        jsonb_build_object(initial, '{"phase": "queued", "next": ["done"]}'::jsonb, 'done', '{"phase": "succeeded"}'::jsonb)))
$$;
CREATE FUNCTION pg_temp.initial() RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    result text;
BEGIN
    INSERT INTO run_tracker.runs (lifecycle, user_id) VALUES ('regress cache', 'alice') RETURNING status INTO result;
    DELETE FROM run_tracker.runs WHERE lifecycle = 'regress cache';
    RETURN result;
EXCEPTION WHEN SQLSTATE 'RT002' THEN
    RETURN SQLERRM;
END
$$;
SELECT pg_temp.initial();
BEGIN;
SELECT pg_temp.define('one');
SELECT pg_temp.initial();
ROLLBACK;
SELECT pg_temp.initial();
SELECT pg_temp.define('one');
SELECT pg_temp.initial();
BEGIN;
SELECT pg_temp.define('two');
SELECT pg_temp.initial();
SAVEPOINT s;
SELECT pg_temp.define('three');
SELECT pg_temp.initial();
ROLLBACK TO s;
SELECT pg_temp.initial();
COMMIT;
SELECT pg_temp.initial();
BEGIN;
SELECT run_tracker.drop_lifecycle('regress cache');
SELECT pg_temp.initial();
ROLLBACK;
SELECT pg_temp.initial();
-- an error inside a block of PL/pgSQL
DO $$
BEGIN
    PERFORM pg_temp.define('four');
    RAISE INFO 'inside: %', pg_temp.initial();
    RAISE division_by_zero;
EXCEPTION WHEN division_by_zero THEN
    RAISE INFO 'after: %', pg_temp.initial();
END
$$;
-- the definition of one statement does not wait for the end of the transaction
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT pg_temp.define('five');
SELECT pg_temp.initial();
COMMIT;
SELECT pg_temp.initial();

--
-- Privileges: clients read, services define
--
SET ROLE regress_lifecycles_client;
SET request.jwt.claims = '{"sub": "alice"}';
SELECT count(*) > 6 AS readable FROM run_tracker.lifecycles;
SELECT left(run_tracker.lifecycle_diagram('run'), 15);
CALL pg_temp.try($$SELECT run_tracker.define_lifecycle('run', '{}')$$);
CALL pg_temp.try($$SELECT run_tracker.drop_lifecycle('regress cache')$$);
CALL pg_temp.try($$INSERT INTO run_tracker.lifecycles VALUES ('mine', '{}')$$);
CALL pg_temp.try($$UPDATE run_tracker.lifecycles SET definition = '{}'$$);
CALL pg_temp.try($$DELETE FROM run_tracker.lifecycles$$);
CALL pg_temp.try($$TRUNCATE run_tracker.lifecycles$$);
RESET ROLE;
SET ROLE regress_lifecycles_service;
SELECT run_tracker.define_lifecycle('regress service', '{"initial": "a", "states": {
    "a": {"phase": "queued", "next": ["b"]}, "b": {"phase": "cancelled"}}}');
SELECT run_tracker.drop_lifecycle('regress service');
-- a service cannot take away what a user's rows use either
CALL pg_temp.try($$SELECT run_tracker.drop_lifecycle('regress')$$);
RESET ROLE;
RESET request.jwt.claims;

-- the status in which an open task ends with its run: the way its own lifecycle lists, else one that fits
DELETE FROM run_tracker.runs;
INSERT INTO run_tracker.runs (run_id, user_id) VALUES
    ('20000000-0000-0000-0000-000000000003', 'alice'), ('20000000-0000-0000-0000-000000000004', 'alice');
INSERT INTO run_tracker.tasks (run_id, lifecycle, status)
SELECT r.run_id, l.name, s.key FROM run_tracker.runs r, run_tracker.lifecycles l, jsonb_each(l.definition -> 'states') s
WHERE l.name IN ('task', 'spar', 'iflow', 'workflow', 'conversation') AND s.value ->> 'phase' IN ('queued', 'active', 'waiting');
CREATE TEMP TABLE open_tasks AS SELECT task_id, status FROM run_tracker.tasks;
UPDATE run_tracker.runs SET status = CASE run_id WHEN '20000000-0000-0000-0000-000000000003' THEN 'failed' ELSE 'timeout' END;
SELECT t.lifecycle, o.status, r.status AS run, t.status AS closed FROM run_tracker.tasks t
    JOIN run_tracker.runs r USING (run_id) JOIN open_tasks o USING (task_id) ORDER BY 1, 2, 3;

DELETE FROM run_tracker.runs;
SELECT run_tracker.drop_lifecycle(name) FROM run_tracker.lifecycles WHERE name LIKE 'regress%';
DROP OWNED BY regress_lifecycles_client, regress_lifecycles_service;
DROP ROLE regress_lifecycles_client, regress_lifecycles_service;
SELECT count(*) AS lifecycles FROM run_tracker.lifecycles;
