--
-- Views of applications: INSERT ... ON CONFLICT, and UPDATE and DELETE that lock the row. Races are in test/specs:
-- upsert_same_id, view_update_recheck.
--
\getenv abs_srcdir PG_ABS_SRCDIR
\set common :abs_srcdir '/sql/common.psql'
\i :common

SET client_min_messages = warning;
CREATE ROLE regress_views_client;
CREATE ROLE regress_views_reader;
CREATE ROLE regress_views_service;
SELECT run_tracker.grant_client('regress_views_client');
SELECT run_tracker.grant_reader('regress_views_reader');
SELECT run_tracker.grant_service('regress_views_service');
CREATE SCHEMA regress_views;
GRANT USAGE, CREATE ON SCHEMA regress_views TO regress_views_client, regress_views_reader, regress_views_service;
SELECT run_tracker.create_compat('spar', 'regress_views') IS NOT NULL AS created;

-- a view made by hand: a key of two columns with names of their own
CREATE VIEW regress_views."Tasks" WITH (security_invoker) AS
SELECT r.run_id AS "Run", r.task_id AS task, r.name, r.model,
       (SELECT count(*) FROM run_tracker.messages m WHERE m.run_id = r.run_id AND m.task_id = r.task_id) AS messages
FROM run_tracker.tasks r
WHERE EXISTS (SELECT FROM run_tracker.runs p WHERE p.run_id = r.run_id AND p.lifecycle = 'spar');
CREATE FUNCTION regress_views.write_task() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        INSERT INTO run_tracker.tasks (run_id, task_id, name, model) VALUES (new."Run", new.task, new.name, new.model)
        ON CONFLICT DO NOTHING;
        IF NOT FOUND THEN
            RETURN run_tracker.resolve_conflict(TG_RELID, new);
        END IF;
    ELSE
        UPDATE run_tracker.tasks SET name = new.name, model = new.model WHERE run_id = old."Run" AND task_id = old.task;
    END IF;
    new.messages := 0;
    RETURN new;
END
$$;
CREATE TRIGGER write INSTEAD OF INSERT OR UPDATE ON regress_views."Tasks"
    FOR EACH ROW EXECUTE FUNCTION regress_views.write_task();
CREATE TRIGGER remove INSTEAD OF DELETE ON regress_views."Tasks"
    FOR EACH ROW EXECUTE FUNCTION run_tracker.compat_delete('tasks', 'run_id', 'Run', 'task_id', 'task');
GRANT ALL ON regress_views."Tasks" TO PUBLIC;

\set one '''a0000000-0000-0000-0000-000000000001'''
\set two '''a0000000-0000-0000-0000-000000000002'''
\set alice '''{"sub": "0a000000-0000-0000-0000-000000000000"}'''
\set bob '''{"sub": "0b000000-0000-0000-0000-000000000000"}'''

--
-- A session that has not loaded the library gets PostgreSQL's own answer
--
\c -
\i :common
SET search_path = regress_views, public;
CALL pg_temp.try($$ INSERT INTO spar_runs (run_id) VALUES (NULL) ON CONFLICT (run_id) DO NOTHING $$);
LOAD 'run_tracker';
SET ROLE regress_views_client;
SET request.jwt.claims = :alice;

--
-- DO NOTHING
--
INSERT INTO spar_runs (run_id, goal) VALUES (:one, 'first') ON CONFLICT (run_id) DO NOTHING RETURNING run_id, goal;
INSERT INTO spar_runs (run_id, goal) VALUES (:one, 'second') ON CONFLICT (run_id) DO NOTHING RETURNING run_id, goal;
INSERT INTO spar_runs (run_id, goal) VALUES (:one, 'second'), (:two, 'third'), (:two, 'fourth') ON CONFLICT DO NOTHING
RETURNING run_id, goal;
SELECT run_id, goal FROM spar_runs ORDER BY run_id;
INSERT INTO "Tasks" VALUES (:one, :two, 'task');
INSERT INTO "Tasks" VALUES (:one, :two, 'again') ON CONFLICT (task, "Run") DO NOTHING RETURNING name;
-- without it: an error; SPAR's own INSERT is repeatable
CALL pg_temp.try(format('INSERT INTO "Tasks" VALUES (%L, %L)', :one, :two));
INSERT INTO spar_runs (run_id, goal) VALUES (:one, 'second') RETURNING run_id, goal;

--
-- DO UPDATE: all that a table could do
--
INSERT INTO spar_runs (run_id, goal, inputs) VALUES (:one, 'new', '{"a": 1}')
ON CONFLICT (run_id) DO UPDATE SET run_id = excluded.run_id, goal = excluded.goal, inputs = excluded.inputs
RETURNING run_id, goal, inputs, status;
INSERT INTO spar_runs AS t (run_id, goal, inputs) VALUES (:one, 'newer', '{"b": 2}')
ON CONFLICT (run_id) DO UPDATE SET goal = t.goal || '/' || excluded.goal, inputs = t.inputs || excluded.inputs
WHERE t.goal <> 'x' AND EXISTS (SELECT FROM spar_runs s WHERE s.run_id <> t.run_id)
RETURNING goal, inputs;
INSERT INTO spar_runs AS t (run_id, goal) VALUES (:one, 'x') ON CONFLICT (run_id) DO UPDATE SET goal = 'x'
WHERE t.goal = excluded.goal RETURNING goal;
INSERT INTO spar_runs (run_id, settings) VALUES (:one, '{}')
ON CONFLICT (run_id) DO UPDATE SET (goal, settings, inputs) = (SELECT 'row', excluded.settings, '{}'::jsonb), plan = DEFAULT
RETURNING goal, settings, inputs, plan;
INSERT INTO spar_runs (run_id, status) SELECT id, 'processing' FROM (VALUES (:one::uuid), (:two)) v (id)
ON CONFLICT (run_id) DO UPDATE SET status = excluded.status RETURNING right(run_id::text, 1) AS run, status;
INSERT INTO "Tasks" VALUES (:one, :two, 'task 2', 'model') ON CONFLICT ("Run", task)
DO UPDATE SET name = excluded.name, model = "Tasks".name RETURNING *;
-- a key twice in one statement is updated twice
INSERT INTO "Tasks" VALUES (:one, :two, 'task 3'), (:one, :two, 'task 4') ON CONFLICT (task, "Run")
DO UPDATE SET name = excluded.name, model = "Tasks".name RETURNING name, model;

-- several in one statement, each with its own action
WITH a AS (INSERT INTO spar_runs (run_id) VALUES (:one) ON CONFLICT (run_id) DO UPDATE SET goal = 'a' RETURNING run_id, goal),
     b AS (INSERT INTO spar_runs (run_id) SELECT run_id FROM a ON CONFLICT (run_id) DO NOTHING RETURNING goal),
     c AS (INSERT INTO spar_runs (run_id) SELECT run_id FROM a RETURNING goal)
INSERT INTO spar_runs AS t (run_id) SELECT run_id FROM a UNION ALL SELECT NULL FROM b
ON CONFLICT (run_id) DO UPDATE SET goal = t.goal || (SELECT '+' || goal FROM c) RETURNING goal;

-- prepared, with custom and generic plans
PREPARE upsert (uuid, text) AS
INSERT INTO spar_runs (run_id, goal) VALUES ($1, $2) ON CONFLICT (run_id) DO UPDATE SET goal = excluded.goal RETURNING goal;
SET plan_cache_mode = force_generic_plan;
EXECUTE upsert(:one, 'prepared 1');
EXECUTE upsert(:one, 'prepared 2');
RESET plan_cache_mode;
EXECUTE upsert(:one, 'prepared 3');
EXPLAIN (COSTS OFF) EXECUTE upsert(:one, 'prepared 4');

-- names in expressions mean what they meant in the statement, whatever path the trigger's function has
CREATE FUNCTION regress_views.shout(text) RETURNS text LANGUAGE plpgsql STABLE AS $$ BEGIN RETURN loud($1); END $$;
CREATE FUNCTION regress_views.loud(text) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT upper($1) $$;
INSERT INTO spar_runs (run_id) VALUES (:one) ON CONFLICT (run_id) DO UPDATE SET goal = shout('shouted') RETURNING goal;

-- an error in an expression, caught; then it works
DO $$
BEGIN
    INSERT INTO spar_runs AS t (run_id, goal) VALUES ('a0000000-0000-0000-0000-000000000001', '0')
    ON CONFLICT (run_id) DO UPDATE SET goal = 1 / excluded.goal::int;
EXCEPTION WHEN division_by_zero THEN
    INSERT INTO spar_runs AS t (run_id, goal) VALUES ('a0000000-0000-0000-0000-000000000001', '2')
    ON CONFLICT (run_id) DO UPDATE SET goal = 1 / excluded.goal::int;
END
$$;
SELECT goal FROM spar_runs WHERE run_id = :one;

-- rules and privileges are those of an UPDATE of the view
CALL pg_temp.try(format('INSERT INTO spar_runs (run_id) VALUES (%L) ON CONFLICT (run_id) DO UPDATE SET run_id = %L', :one, :two));
CALL pg_temp.try(format('INSERT INTO spar_runs (run_id) VALUES (%L) ON CONFLICT (run_id) DO UPDATE SET status = ''sleeping''', :one));
SELECT goal, status FROM spar_runs WHERE run_id = :one;

--
-- What it is not for: PostgreSQL's errors
--
CALL pg_temp.try($$ INSERT INTO spar_runs (goal) VALUES ('x') ON CONFLICT (goal) DO NOTHING $$);
CALL pg_temp.try($$ INSERT INTO spar_runs (goal) VALUES ('x') ON CONFLICT (run_id, goal) DO NOTHING $$);
CALL pg_temp.try($$ INSERT INTO spar_runs (goal) VALUES ('x') ON CONFLICT ((run_id::text)) DO NOTHING $$);
CALL pg_temp.try($$ INSERT INTO spar_runs (goal) VALUES ('x') ON CONFLICT (run_id) WHERE goal = 'x' DO NOTHING $$);
CALL pg_temp.try($$ INSERT INTO spar_runs (goal) VALUES ('x') ON CONFLICT (run_id uuid_ops) DO NOTHING $$);
CALL pg_temp.try($$ INSERT INTO spar_runs (goal) VALUES ('x') ON CONFLICT ON CONSTRAINT spar_runs_pkey DO NOTHING $$);
CALL pg_temp.try($$ INSERT INTO "Tasks" (task) VALUES (NULL) ON CONFLICT (task) DO NOTHING $$);
CREATE TEMP VIEW other AS SELECT 1 AS id;
CREATE TRIGGER write INSTEAD OF INSERT ON other FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger();
CALL pg_temp.try($$ INSERT INTO other VALUES (1) ON CONFLICT (id) DO NOTHING $$);

--
-- Rows of others
--
SET request.jwt.claims = :bob;
CALL pg_temp.try(format('INSERT INTO spar_runs (run_id) VALUES (%L)', :one));
CALL pg_temp.try(format('INSERT INTO spar_runs (run_id) VALUES (%L) ON CONFLICT DO NOTHING', :one));
CALL pg_temp.try(format('INSERT INTO spar_runs (run_id) VALUES (%L) ON CONFLICT (run_id) DO NOTHING', :one));
CALL pg_temp.try(format('INSERT INTO spar_runs (run_id) VALUES (%L) ON CONFLICT (run_id) DO UPDATE SET goal = ''bob''', :one));
SET ROLE regress_views_service;
INSERT INTO spar_runs AS t (run_id, goal) VALUES (:one, 'service') ON CONFLICT (run_id) DO UPDATE SET goal = excluded.goal
RETURNING user_id, goal;
SET ROLE regress_views_reader;
SET request.jwt.claims = :alice;
CALL pg_temp.try(format('INSERT INTO spar_runs (run_id) VALUES (%L) ON CONFLICT (run_id) DO UPDATE SET goal = ''reader''', :one));
CALL pg_temp.try(format('SELECT run_tracker.resolve_conflict(''spar_runs'', s) FROM spar_runs s', :one));

--
-- Hostile: resolve_conflict() where no trigger asks, once more in the middle of its work, or with the rights of another
--
SET ROLE regress_views_client;
CALL pg_temp.try($$ SELECT run_tracker.resolve_conflict('spar_runs', s) FROM spar_runs s ORDER BY s.run_id LIMIT 1 $$);
SELECT r.goal FROM spar_runs s, run_tracker.resolve_conflict('spar_runs', s, true)
    AS r (run_id uuid, user_id uuid, journal_entry_id uuid, status text, goal text, inputs jsonb, settings jsonb, plan jsonb,
          step_results jsonb, reflections jsonb, quality_score numeric, competencies jsonb, recommendations jsonb, insights jsonb,
          error_message text, processing_duration_ms bigint, created_at timestamptz, started_at timestamptz,
          completed_at timestamptz, updated_at timestamptz)
WHERE s.run_id = :one;
CALL pg_temp.try($$ SELECT run_tracker.resolve_conflict('spar_runs', NULL::spar_runs, true) $$);
CALL pg_temp.try($$ SELECT run_tracker.resolve_conflict('spar_runs', ROW(NULL)::spar_runs, true) $$);
CALL pg_temp.try($$ SELECT run_tracker.resolve_conflict('spar_runs', jsonb_populate_record(NULL::spar_runs, '{}'), true) $$);
CALL pg_temp.try($$ SELECT run_tracker.resolve_conflict('spar_runs', t) FROM "Tasks" t $$);
CALL pg_temp.try($$ SELECT run_tracker.resolve_conflict('spar_runs', ROW(1, 2)) $$);
CALL pg_temp.try($$ SELECT run_tracker.resolve_conflict('other', o) FROM other o $$);
CALL pg_temp.try($$ SELECT run_tracker.resolve_conflict('pg_class', c) FROM pg_class c LIMIT 1 $$);
CALL pg_temp.try($$ SELECT run_tracker.resolve_conflict(0, ROW(1)) $$);
CREATE FUNCTION regress_views.again() RETURNS text LANGUAGE sql VOLATILE AS $$
    SELECT (run_tracker.resolve_conflict('regress_views.spar_runs', s))::text FROM regress_views.spar_runs s ORDER BY s.run_id LIMIT 1
$$;
CALL pg_temp.try(format('INSERT INTO spar_runs (run_id) VALUES (%L) ON CONFLICT (run_id) DO UPDATE SET goal = again()', :one));
CALL pg_temp.try(format('INSERT INTO spar_runs (run_id, goal) SELECT %L, again() ON CONFLICT (run_id) DO UPDATE SET goal = ''x''', :one));
-- an INSERT of another's row from within is one of its own
CREATE FUNCTION regress_views.within() RETURNS text LANGUAGE sql VOLATILE AS $$
    INSERT INTO regress_views.spar_runs (run_id, goal) SELECT s.run_id, 'inner' FROM regress_views.spar_runs s ORDER BY run_id LIMIT 1
    ON CONFLICT DO NOTHING;
    INSERT INTO regress_views.spar_runs (run_id, goal) SELECT s.run_id, 'inner' FROM regress_views.spar_runs s ORDER BY run_id LIMIT 1
    ON CONFLICT (run_id) DO UPDATE SET goal = excluded.goal || '!' RETURNING goal
$$;
INSERT INTO spar_runs (run_id) VALUES (:two) ON CONFLICT (run_id) DO UPDATE SET goal = within() RETURNING goal;
SELECT goal FROM spar_runs ORDER BY run_id;
RESET ROLE;
ALTER FUNCTION regress_views.write_task() SECURITY DEFINER;
SET ROLE regress_views_client;
CALL pg_temp.try(format('INSERT INTO "Tasks" VALUES (%L, %L) ON CONFLICT (task, "Run") DO UPDATE SET name = current_user', :one, :two));
RESET ROLE;
ALTER FUNCTION regress_views.write_task() SECURITY INVOKER;

-- COPY has no ON CONFLICT, even from within a statement that has
SET request.jwt.claims = :alice;
CALL pg_temp.try($$ COPY "Tasks" ("Run", task) FROM PROGRAM 'echo a0000000-0000-0000-0000-000000000001,a0000000-0000-0000-0000-000000000002' (FORMAT csv) $$);

-- a view that is made anew: nothing is left of the old one
SET ROLE regress_views_client;
PREPARE again AS INSERT INTO "Tasks" VALUES ('a0000000-0000-0000-0000-000000000001', 'a0000000-0000-0000-0000-000000000002')
ON CONFLICT (task, "Run") DO UPDATE SET name = 'again' RETURNING name;
EXECUTE again;
RESET ROLE;
DROP TRIGGER remove ON regress_views."Tasks";
SET ROLE regress_views_client;
CALL pg_temp.try('EXECUTE again');
EXECUTE again;
RESET ROLE;
ALTER VIEW regress_views."Tasks" RENAME COLUMN task TO "the task";
CREATE TRIGGER remove INSTEAD OF DELETE ON regress_views."Tasks"
    FOR EACH ROW EXECUTE FUNCTION run_tracker.compat_delete('tasks', 'run_id', 'Run', 'task_id', 'the task');
CREATE OR REPLACE FUNCTION regress_views.write_task() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RETURN CASE TG_OP WHEN 'INSERT' THEN run_tracker.resolve_conflict(TG_RELID, new) END;
END
$$;
SET ROLE regress_views_client;
CALL pg_temp.try('INSERT INTO "Tasks" VALUES (NULL, NULL) ON CONFLICT ("the task", "Run") DO NOTHING');
INSERT INTO "Tasks" VALUES (:one, :two) ON CONFLICT ("the task", "Run") DO NOTHING;
INSERT INTO "Tasks" VALUES (:one, :two) ON CONFLICT ("the task", "Run") DO UPDATE SET name = 'nobody writes it';

--
-- UPDATE and DELETE of one row lock it; others do not
--
-- (does it lock, and look for the key below the lock?)
CREATE FUNCTION pg_temp.locks(statement text, OUT locks boolean, OUT by_key boolean) LANGUAGE plpgsql AS $$
DECLARE
    line text;
BEGIN
    locks := false;
    by_key := false;
    FOR line IN EXECUTE 'EXPLAIN (COSTS OFF) ' || statement LOOP
        locks := locks OR line ~ 'LockRows';
        by_key := by_key OR locks AND line ~ 'run_id';
    END LOOP;
END
$$;
PREPARE change (uuid) AS UPDATE spar_runs SET goal = 'x' WHERE run_id = $1 AND status = 'processing' RETURNING goal;
SET plan_cache_mode = force_generic_plan;
SELECT v.statement, l.* FROM (VALUES
    ('UPDATE spar_runs SET goal = ''x'' WHERE run_id = ''a0000000-0000-0000-0000-000000000001'' AND status = ''pending'''),
    ('DELETE FROM spar_runs WHERE ''a0000000-0000-0000-0000-000000000001'' = run_id AND (status = ''pending'' OR goal = ''x'')'),
    ('DELETE FROM "Tasks" WHERE "Run" = ''a0000000-0000-0000-0000-000000000001'' AND "the task" = "Run" AND "the task" = ''a0000000-0000-0000-0000-000000000002'' AND messages = 0'),
    ('UPDATE spar_runs SET goal = v.goal FROM (VALUES (''x'', 1), (''y'', 2)) v (goal, n)
      WHERE run_id = (SELECT r.run_id FROM run_tracker.runs r ORDER BY r.created_at LIMIT 1) AND n = 2'),
    ('UPDATE spar_runs SET goal = ''x'' WHERE run_id = current_setting(''a.b'', true)::uuid AND goal = ''x'''),
    ('UPDATE spar_runs SET goal = ''x'' WHERE (run_id = ''a0000000-0000-0000-0000-000000000001'' AND goal = ''x'') AND random() < 0.5'),
    ('EXECUTE change(''a0000000-0000-0000-0000-000000000001'')')) v (statement), pg_temp.locks(v.statement) l;
EXECUTE change(:one);
EXECUTE change(:one);
WITH u AS (UPDATE spar_runs SET goal = 'y' WHERE run_id = :one RETURNING goal) SELECT * FROM u;
-- no key, part of it, a key that differs from row to row, or is not known before
SELECT v.statement FROM (VALUES
    ('UPDATE spar_runs SET goal = ''x'' WHERE run_id = gen_random_uuid()'),
    ('UPDATE spar_runs SET goal = ''x'' WHERE run_id IS NULL'),
    ('UPDATE spar_runs SET goal = ''x'' WHERE run_id <> gen_random_uuid()'),
    ('UPDATE spar_runs SET goal = ''x'' WHERE status = ''pending'''),
    ('UPDATE spar_runs SET goal = ''x'' WHERE run_id = user_id'),
    ('UPDATE spar_runs SET goal = ''x'' WHERE run_id = user_id OR run_id = NULL'),
    ('UPDATE spar_runs SET goal = ''x'' WHERE NOT run_id = ''a0000000-0000-0000-0000-000000000001'''),
    ('UPDATE spar_runs SET goal = ''x'' WHERE run_id IN (SELECT run_id FROM run_tracker.runs)'),
    ('UPDATE spar_runs SET goal = ''x'' WHERE run_id = (SELECT r.run_id FROM run_tracker.runs r WHERE r.status = spar_runs.status)'),
    ('UPDATE spar_runs t SET goal = ''x'' FROM run_tracker.runs r WHERE r.run_id = t.run_id'),
    ('DELETE FROM spar_runs'),
    ('DELETE FROM "Tasks" WHERE "the task" = ''a0000000-0000-0000-0000-000000000002''')) v (statement), pg_temp.locks(v.statement) l WHERE NOT l.locks;
-- who may not write locks nothing
SET ROLE regress_views_reader;
SELECT u.locks, d.locks FROM pg_temp.locks('UPDATE spar_runs SET goal = ''x'' WHERE run_id = ''a0000000-0000-0000-0000-000000000001''') u,
    pg_temp.locks('DELETE FROM spar_runs WHERE run_id = ''a0000000-0000-0000-0000-000000000001''') d;
SELECT locks FROM pg_temp.locks('EXECUTE change(''a0000000-0000-0000-0000-000000000001'')');
-- nor what policies let them see but not change; services change what they see
RESET ROLE;
CREATE POLICY regress_public ON run_tracker.runs FOR SELECT USING (user_id = '');
SET ROLE regress_views_client;
SELECT locks FROM pg_temp.locks('EXECUTE change(''a0000000-0000-0000-0000-000000000001'')');
SET ROLE regress_views_service;
SELECT locks FROM pg_temp.locks('EXECUTE change(''a0000000-0000-0000-0000-000000000001'')');
RESET ROLE;
DROP POLICY regress_public ON run_tracker.runs;
CREATE POLICY regress_frozen ON run_tracker.runs AS RESTRICTIVE FOR UPDATE TO regress_views_client USING (status <> 'completed');
SET ROLE regress_views_client;
SELECT locks FROM pg_temp.locks('EXECUTE change(''a0000000-0000-0000-0000-000000000001'')');
SET ROLE regress_views_service;
SELECT locks FROM pg_temp.locks('EXECUTE change(''a0000000-0000-0000-0000-000000000001'')');
RESET ROLE;
DROP POLICY regress_frozen ON run_tracker.runs;
SET ROLE regress_views_client;
SELECT locks FROM pg_temp.locks('EXECUTE change(''a0000000-0000-0000-0000-000000000001'')');
-- nor is a row locked that others own or conditions do not meet
SET ROLE regress_views_client;
DELETE FROM "Tasks" WHERE "Run" = :one AND "the task" = :two;
CREATE TEMP TABLE marks AS SELECT run_id, xmax AS mark FROM run_tracker.runs;
UPDATE spar_runs SET goal = 'z' WHERE run_id = :one AND status = 'completed';
SET request.jwt.claims = :bob;
UPDATE spar_runs SET goal = 'z' WHERE run_id = :one;
DELETE FROM spar_runs WHERE run_id = :two;
SET request.jwt.claims = :alice;
SELECT count(*) FROM marks JOIN run_tracker.runs r USING (run_id) WHERE marks.mark = r.xmax;
DELETE FROM spar_runs WHERE run_id = :two RETURNING right(run_id::text, 1) AS run;

RESET ROLE;
DELETE FROM run_tracker.runs WHERE lifecycle = 'spar';
SET client_min_messages = warning;
SELECT cardinality(run_tracker.drop_compat('spar', 'regress_views')) > 0 AS dropped;
DROP SCHEMA regress_views CASCADE;
DROP OWNED BY regress_views_client, regress_views_reader, regress_views_service;
DROP ROLE regress_views_client, regress_views_reader, regress_views_service;
