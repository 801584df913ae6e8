--
-- Many at once: create_runs(), create_tasks() and complete_tasks() do what the functions for one do, with one statement, or nothing.
--
\getenv abs_srcdir PG_ABS_SRCDIR
\set common :abs_srcdir '/sql/common.psql'
\i :common

CREATE ROLE regress_batch_client;
CREATE ROLE regress_batch_reader;
CREATE ROLE regress_batch_service;
SELECT run_tracker.grant_client('regress_batch_client'), run_tracker.grant_reader('regress_batch_reader'), run_tracker.grant_service('regress_batch_service') \g /dev/null
\set a '''018f0000-0000-7000-8000-00000000000a'''
\set b '''018f0000-0000-7000-8000-00000000000b'''

-- What statements fire on runs and tasks, to count them.
CREATE TABLE regress_batch_fired (relation text, event text);
GRANT INSERT ON regress_batch_fired TO PUBLIC;
CREATE FUNCTION regress_batch_fire() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.regress_batch_fired VALUES (TG_TABLE_NAME, TG_OP); RETURN NULL; END $$;
CREATE TRIGGER regress_batch_fire AFTER INSERT OR UPDATE ON run_tracker.runs FOR EACH STATEMENT EXECUTE FUNCTION regress_batch_fire();
CREATE TRIGGER regress_batch_fire AFTER INSERT OR UPDATE ON run_tracker.tasks FOR EACH STATEMENT EXECUTE FUNCTION regress_batch_fire();

--
-- create_runs
--
SET request.jwt.claims = '{"sub": "alice"}';
SET ROLE regress_batch_client;
-- every argument of create_run()
SELECT * FROM run_tracker.create_runs('[{"run_id": "018f0000-0000-7000-8000-00000000000a", "kind": "build", "name": "täst 😀", "lifecycle": "spar", "inputs": [1, "x"], "settings": {"s": null}, "variables": {"v": 1}, "plan": "p",
    "metadata": {"m": {}}, "user_id": "alice", "workflow_id": "w", "session_id": "s", "subject_id": "o", "parent_run_id": "018f0000-0000-7000-8000-00000000000b", "priority": 7, "scheduled_at": "2100-01-01 00:00:00Z",
    "max_attempts": 3, "timeout": "30 minutes", "max_duration": "2 hours", "retry_base": "00:00:05", "retry_cap": "1 minute"}]');
SELECT run_tracker.create_run('018f0000-0000-7000-8000-00000000000b', 'build', 'täst 😀', 'spar', '[1, "x"]', '{"s": null}', '{"v": 1}', '"p"', '{"m": {}}', 'alice', 'w', 's', 'o', '018f0000-0000-7000-8000-00000000000b', 7,
    '2100-01-01 00:00:00Z', 3, '30 minutes', '2 hours', '00:00:05', '1 minute');
SELECT count(*) AS of_create_run, count(*) FILTER (WHERE a.value <> '""' AND a.value <> 'null') AS given, count(*) FILTER (WHERE a.value <> b.value) AS different
FROM (SELECT to_jsonb(r) AS a FROM run_tracker.runs r WHERE run_id = :a) x, (SELECT to_jsonb(r) AS b FROM run_tracker.runs r WHERE run_id = :b) y, LATERAL jsonb_each(x.a) a JOIN LATERAL jsonb_each(y.b) b USING (key)
WHERE a.key = ANY (ARRAY(SELECT unnest(proargnames) FROM pg_proc WHERE oid = 'run_tracker.create_run'::regproc)) AND a.key <> 'run_id';
-- in the order of the array; ids that are there already, or occur again, are one run, which stays as it is; null is not given
CREATE TEMP TABLE returned AS SELECT * FROM run_tracker.create_runs('[{"run_id": "018f0000-0000-7000-8000-000000000003", "name": "three"}, {"run_id": "018F0000-0000-7000-8000-00000000000A", "name": "changed"},
    {"run_id": "018f0000-0000-7000-8000-000000000001", "name": "one", "priority": null, "inputs": null}, {"run_id": "018f0000-0000-7000-8000-000000000003", "name": "again"}]') WITH ORDINALITY c (run_id, n);
SELECT n, run_id, name, priority, inputs FROM returned JOIN run_tracker.runs USING (run_id) ORDER BY n;
-- ids are made where there are none
CREATE TEMP TABLE made AS SELECT * FROM run_tracker.create_runs('[{"name": "m1"}, {"run_id": null, "name": "m2"}, {"name": "m3"}]') WITH ORDINALITY c (run_id, n);
SELECT name, user_id, status, (SELECT count(*) FROM run_tracker.open_runs o WHERE o.run_id = r.run_id) AS open, inputs FROM made JOIN run_tracker.runs r USING (run_id) ORDER BY n;
SELECT count(*) FROM run_tracker.create_runs('[]');
SELECT count(*) FROM run_tracker.create_runs('[{}]');
RESET ROLE;
SELECT relation, event, count(*) FROM regress_batch_fired GROUP BY 1, 2;
TRUNCATE regress_batch_fired;

-- somebody else's run is refused as by create_run(), and then nothing of the array is there; nor can one have runs for others
SET request.jwt.claims = '{"sub": "bob"}';
SET ROLE regress_batch_client;
CALL pg_temp.try($$SELECT run_tracker.create_runs('[{"name": "of bob"}, {"run_id": "018f0000-0000-7000-8000-000000000001"}, {"run_id": "018f0000-0000-7000-8000-00000000000a"}]')$$);
CALL pg_temp.try($$SELECT run_tracker.create_run('018f0000-0000-7000-8000-000000000001')$$);
CALL pg_temp.try($$SELECT run_tracker.create_runs('[{"name": "of bob"}, {"user_id": "alice"}]')$$);
CALL pg_temp.try($$SELECT run_tracker.create_runs('[{"name": "of bob"}, {"lifecycle": "none"}]')$$);
CALL pg_temp.try($$SELECT run_tracker.create_runs('[{"name": "of bob"}, {"settings": [1]}]')$$);
CALL pg_temp.try($$SELECT run_tracker.create_runs('[{"name": "of bob"}, {"max_attempts": 0}]')$$);
SELECT count(*) FROM run_tracker.runs;
SET request.jwt.claims = '';
CALL pg_temp.try($$SELECT run_tracker.create_runs('[{"name": "of nobody"}]')$$);
RESET ROLE;
-- services create for anybody, and see what is there
SET ROLE regress_batch_service;
CREATE TEMP TABLE served AS SELECT * FROM run_tracker.create_runs('[{"user_id": "carol", "name": "of carol"}, {"user_id": "dave", "name": "of dave"}, {"run_id": "018f0000-0000-7000-8000-000000000001", "user_id": "bob"}]') WITH ORDINALITY c (run_id, n);
SELECT user_id, name FROM served JOIN run_tracker.runs USING (run_id) ORDER BY n;
RESET ROLE;
-- readers and strangers do not
SET ROLE regress_batch_reader;
CALL pg_temp.try($$SELECT run_tracker.create_runs('[{}]')$$);
CALL pg_temp.try($$SELECT run_tracker.create_tasks('018f0000-0000-7000-8000-000000000001', '[{}]')$$);
CALL pg_temp.try($$SELECT run_tracker.complete_tasks('[]')$$);
RESET ROLE;

-- bad arguments, which say where
CALL pg_temp.try($$SELECT run_tracker.create_runs(NULL)$$);
CALL pg_temp.try($$SELECT run_tracker.create_runs('null')$$);
CALL pg_temp.try($$SELECT run_tracker.create_runs('{"name": "x"}')$$);
CALL pg_temp.try($$SELECT run_tracker.create_runs('"x"')$$);
CALL pg_temp.try($$SELECT run_tracker.create_runs('[{}, 5]')$$);
CALL pg_temp.try($$SELECT run_tracker.create_runs('[{}, null]')$$);
CALL pg_temp.try($$SELECT run_tracker.create_runs('[{}, [{}]]')$$);
CALL pg_temp.try($$SELECT run_tracker.create_runs('[{}, {}, {"name": "x", "colour": "red"}]')$$);
CALL pg_temp.try($$SELECT run_tracker.create_runs('[{"status": "completed"}]')$$);
CALL pg_temp.try($$SELECT run_tracker.create_runs('[{"name": 5}]')$$);
CALL pg_temp.try($$SELECT run_tracker.create_runs('[{"name": {"a": 1}}]')$$);
CALL pg_temp.try($$SELECT run_tracker.create_runs('[{"priority": "high"}]')$$);
CALL pg_temp.try($$SELECT run_tracker.create_runs('[{}, {"priority": 1.5}]')$$);
CALL pg_temp.try($$SELECT run_tracker.create_runs('[{}, {"priority": 12345678901}]')$$);
CALL pg_temp.try($$SELECT run_tracker.create_runs('[{}, {"run_id": "one"}]')$$);
CALL pg_temp.try($$SELECT run_tracker.create_runs('[{"scheduled_at": "soon"}]')$$);
CALL pg_temp.try($$SELECT run_tracker.create_runs('[{"scheduled_at": 0}]')$$);
CALL pg_temp.try($$SELECT run_tracker.create_runs('[{"timeout": "long"}]')$$);
CALL pg_temp.try($$SELECT run_tracker.create_runs(jsonb_build_array(jsonb_build_object(repeat('k', 10000), 1)))$$);
CALL pg_temp.try($$SELECT run_tracker.create_runs(jsonb_build_array(jsonb_build_object('run_id', repeat('x', 10000))))$$);
CALL pg_temp.try($$SELECT run_tracker.create_runs(jsonb_build_array(jsonb_build_object('''); DROP TABLE run_tracker.runs; --', 1)))$$);
SELECT count(*) FROM run_tracker.runs;
-- words that are no SQL, and long ones, are what they are
SELECT run_tracker.create_runs(jsonb_build_array(jsonb_build_object('name', $$'); DROP TABLE run_tracker.runs; --\$$, 'kind', repeat('ж', 4000), 'metadata', jsonb_build_object('k', repeat('😀', 10000))))) AS run_id \gset
SELECT name = $$'); DROP TABLE run_tracker.runs; --\$$ AS same, length(kind) AS kind, length(metadata ->> 'k') AS metadata FROM run_tracker.runs WHERE run_id = :'run_id';

--
-- create_tasks
--
TRUNCATE regress_batch_fired;
SET request.jwt.claims = '{"sub": "alice"}';
SET ROLE regress_batch_client;
SELECT * FROM run_tracker.create_tasks(:a, '[{"task_id": "018f0001-0000-7000-8000-000000000003", "name": "täst 😀", "service": "s", "operation": "chat", "provider": "p", "model": "m", "request": [{"r": 1}],
    "parent_task_id": "018f0001-0000-7000-8000-000000000001", "lifecycle": "run", "metadata": {"m": 1}}, {"task_id": "018f0001-0000-7000-8000-000000000001", "name": "one"}, {"task_id": "018f0001-0000-7000-8000-000000000002", "request": null}]');
SELECT task_id, user_id, status, name, service, operation, provider, model, request, parent_task_id, lifecycle, metadata FROM run_tracker.tasks WHERE run_id = :a ORDER BY created_at;
CREATE TEMP TABLE made_tasks AS SELECT * FROM run_tracker.create_tasks(:a, '[{"name": "m1"}, {"name": "m2"}, {}]') WITH ORDINALITY c (task_id, n);
SELECT n, name FROM made_tasks JOIN run_tracker.tasks USING (task_id) ORDER BY n;
SELECT count(*) FROM run_tracker.create_tasks(:a, '[]');
SELECT open_task_count FROM run_tracker.run_summary WHERE run_id = :a;
-- nothing is half-written
CALL pg_temp.try($$SELECT run_tracker.create_tasks('018f0000-0000-7000-8000-00000000000a', '[{}, {"task_id": "018f0001-0000-7000-8000-000000000001"}]')$$);
CALL pg_temp.try($$SELECT run_tracker.create_tasks('018f0000-0000-7000-8000-00000000000a', '[{"task_id": "018f0001-0000-7000-8000-000000000009"}, {"task_id": "018f0001-0000-7000-8000-000000000009"}]')$$);
CALL pg_temp.try($$SELECT run_tracker.create_tasks('018f0000-0000-7000-8000-00000000000a', '[{}, {"lifecycle": "none"}]')$$);
CALL pg_temp.try($$SELECT run_tracker.create_tasks('018f0000-0000-7000-8000-00000000000a', '[{}, {"run_id": "018f0000-0000-7000-8000-00000000000a"}]')$$);
CALL pg_temp.try($$SELECT run_tracker.create_tasks('018f0000-0000-7000-8000-00000000000a', '[{}, {"name": 1}]')$$);
CALL pg_temp.try($$SELECT run_tracker.create_tasks('018f0000-0000-7000-8000-00000000000a', '[{}, {"task_id": "x"}]')$$);
CALL pg_temp.try($$SELECT run_tracker.create_tasks('018f0000-0000-7000-8000-00000000000a', '{}')$$);
CALL pg_temp.try($$SELECT run_tracker.create_tasks('018f0000-0000-7000-8000-00000000000a', NULL)$$);
CALL pg_temp.try($$SELECT run_tracker.create_tasks(NULL, '[{}]')$$);
CALL pg_temp.try($$SELECT run_tracker.create_tasks('018f0000-0000-7000-8000-0000000000ff', '[{}]')$$);
SELECT open_task_count FROM run_tracker.run_summary WHERE run_id = :a;
SELECT run_tracker.fail_run(:b);
CALL pg_temp.try($$SELECT run_tracker.create_tasks('018f0000-0000-7000-8000-00000000000b', '[{}]')$$);
-- a run of somebody else's is none
SET request.jwt.claims = '{"sub": "bob"}';
CALL pg_temp.try($$SELECT run_tracker.create_tasks('018f0000-0000-7000-8000-00000000000a', '[{}]')$$);
RESET ROLE;
SELECT relation, event, count(*) FROM regress_batch_fired WHERE relation = 'tasks' GROUP BY 1, 2;

--
-- complete_tasks
--
TRUNCATE regress_batch_fired;
SET request.jwt.claims = '{"sub": "alice"}';
SET ROLE regress_batch_client;
-- every argument of complete_task(), as that does it
SELECT run_tracker.create_tasks(:a, '[{"task_id": "018f0001-0000-7000-8000-000000000011"}, {"task_id": "018f0001-0000-7000-8000-000000000012"}, {"task_id": "018f0001-0000-7000-8000-000000000013"}]') \g /dev/null
SELECT run_tracker.complete_task('018f0001-0000-7000-8000-000000000011', 'text ''"\ 😀', 100, 20, 0.125, 7, '{"r": [1]}', 130, 10, 20, 5, 'rm', 'stop', 'id', 'provider', 1);
SELECT run_tracker.complete_tasks('[{"task_id": "018f0001-0000-7000-8000-000000000012", "response": "text ''\"\\ 😀", "input_tokens": 100, "output_tokens": 20, "cost": 0.125, "time_to_first_token_ms": 7, "result": {"r": [1]}, "total_tokens": 130,
    "cache_read_input_tokens": 10, "cache_creation_input_tokens": 20, "reasoning_output_tokens": 5, "response_model": "rm", "finish_reason": "stop", "response_id": "id", "cost_source": "provider", "attempt": 1}]');
SELECT count(*) > 15 AS many, string_agg(a.key, ' ' ORDER BY a.key) FILTER (WHERE a.value <> b.value) AS different
FROM (SELECT to_jsonb(t) AS a FROM run_tracker.tasks t WHERE task_id = '018f0001-0000-7000-8000-000000000011') x, (SELECT to_jsonb(t) AS b FROM run_tracker.tasks t WHERE task_id = '018f0001-0000-7000-8000-000000000012') y,
     LATERAL jsonb_each(x.a) a JOIN LATERAL jsonb_each(y.b) b USING (key) WHERE a.key !~ '_at$|^duration_ms$' AND a.value <> 'null';
-- several, in lifecycles of their own; null and what is not given keep what is there; a stream is folded
UPDATE run_tracker.tasks SET input_tokens = 5, cost = 1 WHERE task_id = '018f0001-0000-7000-8000-000000000001';
SELECT run_tracker.append_response('018f0001-0000-7000-8000-000000000002', p) FROM unnest('{ab,cd}'::text[]) p;
SELECT run_tracker.start_task('018f0001-0000-7000-8000-000000000003');
SELECT run_tracker.complete_tasks('[{"task_id": "018f0001-0000-7000-8000-000000000003", "cost": 0.1}, {"task_id": "018f0001-0000-7000-8000-000000000012", "response": "too late", "cost": 99}, {"task_id": "018f0001-0000-7000-8000-000000000001", "output_tokens": 6, "cost": null},
    {"task_id": "018f0001-0000-7000-8000-000000000002", "attempt": 1}]') AS changed;
SELECT task_id, lifecycle, status, response, input_tokens, output_tokens, total_tokens, cost FROM run_tracker.tasks WHERE task_id <= '018f0001-0000-7000-8000-000000000012' ORDER BY task_id;
SELECT task_count, open_task_count, total_tokens, total_cost FROM run_tracker.run_summary WHERE run_id = :a;
-- again: nothing changes
SELECT run_tracker.complete_tasks('[{"task_id": "018f0001-0000-7000-8000-000000000003"}, {"task_id": "018f0001-0000-7000-8000-000000000001", "cost": 7}]') AS changed, run_tracker.complete_tasks('[]') AS none;
-- a late result is taken where the lifecycle has it, otherwise all is refused; each error names the first task in the array that it is about
SELECT run_tracker.create_tasks(:a, '[{"task_id": "018f0001-0000-7000-8000-000000000021"}, {"task_id": "018f0001-0000-7000-8000-000000000022", "lifecycle": "build"}, {"task_id": "018f0001-0000-7000-8000-000000000023"}, {"task_id": "018f0001-0000-7000-8000-000000000024"}]') \g /dev/null
SELECT run_tracker.fail_task('018f0001-0000-7000-8000-000000000021', 'late'), run_tracker.fail_task('018f0001-0000-7000-8000-000000000022', 'never');
CALL pg_temp.try($$SELECT run_tracker.complete_tasks('[{"task_id": "018f0001-0000-7000-8000-000000000023"}, {"task_id": "018f0001-0000-7000-8000-000000000022"}, {"task_id": "018f0001-0000-7000-8000-0000000000ff"}]')$$);
SELECT run_tracker.complete_tasks('[{"task_id": "018f0001-0000-7000-8000-000000000021", "response": "here it is"}]') AS changed;
SELECT run_tracker.transition_run(:a, 'processing') \g /dev/null
UPDATE run_tracker.tasks SET status = 'failed' WHERE task_id = '018f0001-0000-7000-8000-000000000024';
UPDATE run_tracker.tasks SET status = 'pending' WHERE task_id = '018f0001-0000-7000-8000-000000000024';
CALL pg_temp.try($$SELECT run_tracker.complete_tasks('[{"task_id": "018f0001-0000-7000-8000-000000000023", "attempt": 1}, {"task_id": "018f0001-0000-7000-8000-000000000024", "attempt": 1}]')$$);
CALL pg_temp.try($$SELECT run_tracker.complete_tasks('[{"task_id": "018f0001-0000-7000-8000-000000000021", "attempt": 5}]')$$);
CALL pg_temp.try($$SELECT run_tracker.complete_tasks('[{"task_id": "018f0001-0000-7000-8000-000000000023"}, {"task_id": "018f0001-0000-7000-8000-0000000000fe"}, {"task_id": "018f0001-0000-7000-8000-0000000000ff"}]')$$);
CALL pg_temp.try($$SELECT run_tracker.complete_tasks('[{"task_id": "018f0001-0000-7000-8000-000000000023"}, {"task_id": "018f0001-0000-7000-8000-000000000024", "cost": -1}]')$$);
CALL pg_temp.try($$SELECT run_tracker.complete_tasks('[{"task_id": "018f0001-0000-7000-8000-000000000023"}, {"task_id": "018f0001-0000-7000-8000-000000000024"}, {"task_id": "018F0001-0000-7000-8000-000000000023"}]')$$);
CALL pg_temp.try($$SELECT run_tracker.complete_tasks('[{"task_id": "018f0001-0000-7000-8000-000000000023"}, {"response": "x"}]')$$);
CALL pg_temp.try($$SELECT run_tracker.complete_tasks('[{"task_id": "018f0001-0000-7000-8000-000000000023"}, {"task_id": "018f0001-0000-7000-8000-000000000024", "status": "failed"}]')$$);
CALL pg_temp.try($$SELECT run_tracker.complete_tasks('[{"task_id": "018f0001-0000-7000-8000-000000000023", "cost": "0.5"}]')$$);
CALL pg_temp.try($$SELECT run_tracker.complete_tasks('[{"task_id": "018f0001-0000-7000-8000-000000000023", "input_tokens": 1.5}]')$$);
CALL pg_temp.try($$SELECT run_tracker.complete_tasks('[{"task_id": "018f0001-0000-7000-8000-000000000023", "response": 5}]')$$);
CALL pg_temp.try($$SELECT run_tracker.complete_tasks('{}')$$);
CALL pg_temp.try($$SELECT run_tracker.complete_tasks(NULL)$$);
-- tasks of somebody else's are none
SET request.jwt.claims = '{"sub": "bob"}';
CALL pg_temp.try($$SELECT run_tracker.complete_tasks('[{"task_id": "018f0001-0000-7000-8000-000000000023"}]')$$);
SET request.jwt.claims = '{"sub": "alice"}';
SELECT task_id, status, attempt FROM run_tracker.tasks WHERE task_id IN ('018f0001-0000-7000-8000-000000000023', '018f0001-0000-7000-8000-000000000024') ORDER BY task_id;
SELECT run_tracker.complete_tasks('[{"task_id": "018f0001-0000-7000-8000-000000000024", "attempt": 2}, {"task_id": "018f0001-0000-7000-8000-000000000023"}]') AS changed;
RESET ROLE;
-- a status without a way to success; a trigger that does not let one through
SELECT run_tracker.define_lifecycle('régression', '{"initial": "a", "states": {"a": {"phase": "active", "next": ["w"]}, "w": {"phase": "waiting", "next": ["x", "y"]}, "x": {"phase": "succeeded"}, "y": {"phase": "succeeded"}}}');
SELECT run_tracker.create_tasks(:a, '[{"task_id": "018f0001-0000-7000-8000-000000000031", "lifecycle": "régression"}, {"task_id": "018f0001-0000-7000-8000-000000000032"}]') \g /dev/null
CALL pg_temp.try($$SELECT run_tracker.complete_tasks('[{"task_id": "018f0001-0000-7000-8000-000000000032"}, {"task_id": "018f0001-0000-7000-8000-000000000031"}]')$$);
UPDATE run_tracker.tasks SET status = 'w' WHERE lifecycle = 'régression';
SELECT run_tracker.complete_tasks('[{"task_id": "018f0001-0000-7000-8000-000000000032"}, {"task_id": "018f0001-0000-7000-8000-000000000031"}]') AS changed;
SELECT status FROM run_tracker.tasks WHERE lifecycle = 'régression';
SELECT l, s, run_tracker.task_target(l, s) FROM (VALUES ('task', 'pending'), ('task', 'completed'), ('task', 'timeout'), ('run', 'cancelled'), ('workflow', 'failed'), ('régression', 'a'), ('régression', 'w'), ('régression', 'y'), (NULL, 'a')) v (l, s);
CALL pg_temp.try($$SELECT run_tracker.task_target('none', 'a')$$);
CALL pg_temp.try($$SELECT run_tracker.task_target('run', 'none')$$);
CREATE FUNCTION regress_batch_suppress() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
CREATE TRIGGER regress_batch_suppress BEFORE UPDATE ON run_tracker.tasks FOR EACH ROW WHEN (old.name = 'm1') EXECUTE FUNCTION regress_batch_suppress();
CALL pg_temp.try($$SELECT run_tracker.complete_tasks(jsonb_agg(jsonb_build_object('task_id', task_id))) FROM made_tasks$$);
DROP TRIGGER regress_batch_suppress ON run_tracker.tasks;
SELECT count(*) AS succeeded FROM made_tasks JOIN run_tracker.tasks USING (task_id) WHERE phase = 'succeeded';

--
-- One statement each, however many there are
--
TRUNCATE regress_batch_fired;
CREATE TEMP TABLE big AS SELECT * FROM run_tracker.create_runs((SELECT jsonb_agg(jsonb_build_object('name', 'big ' || i, 'user_id', 'erin') ORDER BY i) FROM generate_series(1, 2000) i)) WITH ORDINALITY b (run_id, n);
CREATE TEMP TABLE big_tasks AS SELECT run_tracker.create_tasks((SELECT run_id FROM big WHERE n = 1), jsonb_agg(jsonb_build_object('name', 'big ' || i) ORDER BY i)) AS task_id FROM generate_series(1, 2000) i;
SELECT run_tracker.complete_tasks(jsonb_agg(jsonb_build_object('task_id', task_id, 'input_tokens', 3, 'cost', 0.01))) AS changed FROM big_tasks;
SELECT relation, event, count(*) FROM regress_batch_fired GROUP BY 1, 2 ORDER BY 1, 2;
SELECT count(*) AS runs, count(o.run_id) AS open, count(*) FILTER (WHERE name = 'big ' || n) AS in_order FROM big JOIN run_tracker.runs USING (run_id) LEFT JOIN run_tracker.open_runs o USING (run_id);
SELECT count(*) AS created_in_order FROM (SELECT name, row_number() OVER (ORDER BY created_at, run_id) AS n FROM run_tracker.runs WHERE user_id = 'erin') r WHERE name = 'big ' || n;
SELECT task_count, input_tokens, total_cost FROM run_tracker.run_summary WHERE run_id = (SELECT run_id FROM big WHERE n = 1);
SELECT count(*) AS wrong FROM run_tracker.check_totals();

-- no transaction of its own, and no rest after ROLLBACK
BEGIN;
SELECT count(*) FROM run_tracker.create_runs('[{"user_id": "frank"}, {"user_id": "frank"}]');
ROLLBACK;
SELECT count(*) FROM run_tracker.runs WHERE user_id = 'frank';

RESET request.jwt.claims;
DELETE FROM run_tracker.runs;
SELECT run_tracker.drop_lifecycle('régression');
DROP TRIGGER regress_batch_fire ON run_tracker.runs;
DROP TRIGGER regress_batch_fire ON run_tracker.tasks;
DROP FUNCTION regress_batch_fire(), regress_batch_suppress();
DROP TABLE regress_batch_fired;
DROP OWNED BY regress_batch_client, regress_batch_reader, regress_batch_service;
DROP ROLE regress_batch_client, regress_batch_reader, regress_batch_service;
