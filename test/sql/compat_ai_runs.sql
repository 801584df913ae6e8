--
-- What the views of chat runs add to their life on tables (ai_runs_views.sql): streamed answers, totals whatever happens to
-- tasks, computed columns, what is refused, and plans. What becomes of messages is in conversation.sql.
--
\getenv abs_srcdir PG_ABS_SRCDIR
\set common :abs_srcdir '/sql/common.psql'
\i :common
CALL pg_temp.forget();

CREATE SCHEMA regress_chat;
GRANT USAGE ON SCHEMA regress_chat TO PUBLIC;
CREATE ROLE regress_chat_client;
CREATE ROLE regress_chat_reader;
CREATE ROLE regress_chat_service;
CREATE ROLE regress_chat_stranger;
SELECT run_tracker.grant_client('regress_chat_client');
SELECT run_tracker.grant_reader('regress_chat_reader');
SELECT run_tracker.grant_service('regress_chat_service');
SELECT unnest(run_tracker.create_compat('ai_runs', 'regress_chat'));
SET search_path = regress_chat;
\set alice 'a0000000-0000-4000-8000-00000000000a'
\set as_alice 'SET ROLE regress_chat_client; SET request.jwt.claims = ''{"sub": "a0000000-0000-4000-8000-00000000000a"}'';'
\set as_service 'SET ROLE regress_chat_service; RESET request.jwt.claims;'
\set run '''10000000-0000-4000-8000-00000000000a'''
\set other '''10000000-0000-4000-8000-00000000000b'''
\set task '''1a000000-0000-4000-8000-00000000000a'''

--
-- Created, and returned at once
--
:as_alice
INSERT INTO ai_runs (id, messages, created_at, updated_at, message_count, task_count, total_tokens, total_cost, last_message_at)
VALUES (:run, '[{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Who are you?", "x": 1.50}]', '2001-01-01', '2001-01-01', 7, 7, 7, 7, '2001-01-01')
RETURNING user_id = :'alice' AS own, name, messages, settings, variable_values, message_count, task_count, total_tokens, total_cost,
    created_at > '2026-01-01' AS created, updated_at >= created_at AS updated, last_message_at >= created_at AS active;
INSERT INTO ai_runs DEFAULT VALUES RETURNING name, messages, message_count, last_message_at;
INSERT INTO ai_runs (id, name, messages) VALUES (:other, 'Other', NULL) RETURNING name, messages;
SELECT lifecycle, status, phase, name FROM run_tracker.runs ORDER BY created_at;
DELETE FROM ai_runs WHERE name IS NULL;
:as_service
INSERT INTO ai_runs (id, user_id, name, messages, created_at, updated_at) VALUES ('10000000-0000-4000-8000-00000000000c', :'alice', 'Old', '[{"role": "user", "content": "x", "timestamp": "2001-01-02T00:00:00Z"}]', '2001-01-01', '2001-01-03')
RETURNING created_at = '2001-01-01' AS created, updated_at = '2001-01-03' AS updated, last_message_at = '2001-01-02 00:00Z' AS active;
DELETE FROM ai_runs WHERE name = 'Old' RETURNING message_count;
-- what is no uuid of a user is nobody in this view
SELECT run_tracker.create_run(user_id => 'carol', lifecycle => 'conversation') IS NOT NULL AS created;
SELECT count(*) AS of_carol FROM ai_runs WHERE user_id IS NULL;
:as_alice

--
-- A streamed answer: what is saved is the accumulated text, what is written is what has arrived since
--
INSERT INTO ai_tasks (task_id, run_id, total_time, created_at, completed_at) VALUES (:task, :run, 7, '2001-01-01', '2001-01-01')
RETURNING status, total_time, created_at > '2026-01-01' AS created, completed_at;
CREATE FUNCTION pg_temp.save(statement text) RETURNS TABLE (status text, text text, response text, pieces text) LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('UPDATE ai_tasks SET %s WHERE task_id = ''1a000000-0000-4000-8000-00000000000a'' RETURNING status, response_text', statement) INTO status, text;
    IF text IS DISTINCT FROM (SELECT t.response_text FROM ai_tasks t WHERE task_id = '1a000000-0000-4000-8000-00000000000a') THEN
        RAISE 'not what was returned: %', text;
    END IF;
    response := (SELECT t.response FROM run_tracker.tasks t WHERE t.task_id = '1a000000-0000-4000-8000-00000000000a');
    pieces := (SELECT string_agg(c.content, '|' ORDER BY c.start_offset) FROM run_tracker.response_chunks c);
    RETURN NEXT;
END
$$;
SELECT * FROM pg_temp.save($$status = 'streaming', response_text = '', time_to_first_token = 7$$);
SELECT * FROM pg_temp.save($$response_text = 'Ich '$$);
SELECT * FROM pg_temp.save($$response_text = 'Ich bin '$$);
SELECT * FROM pg_temp.save($$response_text = 'Ich bin ä', status = 'streaming', updated_at = now()$$);
SELECT * FROM pg_temp.save($$response_text = 'Ich bin ä', status = 'streaming', updated_at = now()$$);
SELECT * FROM pg_temp.save($$response_text = response_text || '日本', model = 'm2'$$);
SELECT task_id = :task AS same, run_tracker.task_response(task_id) = response_text AS task_response, model, updated_at >= created_at AS updated FROM ai_tasks;
-- not what it was and more: written as a whole
SELECT * FROM pg_temp.save($$response_text = 'Du'$$);
SELECT * FROM pg_temp.save($$response_text = 'Du bist'$$);
SELECT * FROM pg_temp.save($$response_text = 'Du'$$);
SELECT * FROM pg_temp.save($$response_text = 'Du bist'$$);
SELECT * FROM pg_temp.save($$response_text = ''$$);
SELECT * FROM pg_temp.save($$response_text = 'Er'$$);
SELECT * FROM pg_temp.save($$response_text = 'Er ist'$$);
SELECT * FROM pg_temp.save($$response_text = NULL$$);
SELECT * FROM pg_temp.save($$response_text = 'Sie'$$);
SELECT * FROM pg_temp.save($$response_text = 'Sie ist'$$);
-- the end says nothing of the text; or the same; or more; or less, as its beginning is
BEGIN;
SELECT * FROM pg_temp.save($$status = 'completed'$$);
ROLLBACK;
BEGIN;
SELECT * FROM pg_temp.save($$status = 'completed', response_text = 'Sie ist'$$);
ROLLBACK;
BEGIN;
SELECT * FROM pg_temp.save($$status = 'completed', response_text = 'Sie ist da'$$);
-- and after the end
SELECT * FROM pg_temp.save($$response_text = 'Sie ist da!'$$);
-- a save that comes late does not open it again
SAVEPOINT s;
SELECT * FROM pg_temp.save($$status = 'streaming', response_text = 'Sie'$$);
ROLLBACK TO s;
-- tried again: the old answer is gone
SELECT * FROM pg_temp.save($$status = 'pending'$$);
SELECT * FROM pg_temp.save($$status = 'streaming'$$);
SELECT * FROM pg_temp.save($$response_text = 'A'$$);
SELECT * FROM pg_temp.save($$response_text = 'AB'$$);
ROLLBACK;
BEGIN;
SELECT * FROM pg_temp.save($$status = 'failed', response_text = 'Sie', error_message = 'connection lost'$$);
ROLLBACK;
-- moved to another run while it streams
BEGIN;
SELECT * FROM pg_temp.save($$run_id = '10000000-0000-4000-8000-00000000000b', response_text = 'Sie ist noch'$$);
SELECT * FROM pg_temp.save($$response_text = 'Sie ist noch da'$$);
SELECT run_id FROM run_tracker.response_chunks;
ROLLBACK;
-- saved in a transaction that is rolled back to a savepoint
BEGIN;
SAVEPOINT s;
SELECT * FROM pg_temp.save($$response_text = 'Sie ist fort'$$);
ROLLBACK TO s;
SELECT * FROM pg_temp.save($$response_text = 'Sie ist da'$$);
COMMIT;
-- words of the core
RESET ROLE;
UPDATE run_tracker.tasks SET status = 'completed' WHERE task_id = :task;
:as_alice
SELECT run_tracker.create_task(:other, '1a000000-0000-4000-8000-00000000000b') AS b, run_tracker.start_task('1a000000-0000-4000-8000-00000000000b', 'running') AS started,
       run_tracker.create_task(:other, '1a000000-0000-4000-8000-00000000000c') AS c, run_tracker.cancel_task('1a000000-0000-4000-8000-00000000000c') AS cancelled \gset
SELECT task_id, status FROM ai_tasks ORDER BY task_id;
UPDATE ai_tasks SET response_text = 'x' WHERE run_id = :other AND status = 'streaming';
UPDATE ai_tasks SET response_text = 'xy', status = 'streaming' WHERE run_id = :other AND status = 'streaming' RETURNING status, response_text;
SELECT status FROM run_tracker.tasks WHERE run_id = :other ORDER BY task_id;
UPDATE ai_tasks SET status = 'completed' WHERE run_id = :other AND status = 'streaming' RETURNING status, response_text;
WITH gone AS (DELETE FROM ai_tasks WHERE run_id = :other RETURNING status) SELECT * FROM gone ORDER BY status;

--
-- The totals of a run are those of its tasks, whatever happens to them
--
CREATE FUNCTION pg_temp.totals() RETURNS TABLE (run text, tasks integer, tokens bigint, cost numeric, wrong bigint) LANGUAGE sql AS $$
    SELECT r.name, r.task_count, r.total_tokens, r.total_cost,
           (SELECT count(*) FROM (SELECT count(*) FILTER (WHERE t.status = 'completed') AS n, COALESCE(sum(t.tokens_total), 0) AS tokens, COALESCE(sum(t.cost), 0) AS cost
                                  FROM ai_tasks t WHERE t.run_id = r.id AND t.completed_at IS NOT NULL) s
            WHERE (s.n, s.tokens, s.cost) IS DISTINCT FROM (r.task_count::bigint, r.total_tokens::numeric, r.total_cost))
    FROM ai_runs r ORDER BY r.id $$;
INSERT INTO ai_tasks (task_id, run_id, status, tokens_input, tokens_output, cost) SELECT ('1a000000-0000-4000-8000-0000000001' || n)::uuid, :run, 'completed', 100, n, 0.01 * n FROM generate_series(10, 13) n;
SELECT * FROM pg_temp.totals();
UPDATE ai_tasks SET status = status;
SELECT * FROM pg_temp.totals();
UPDATE ai_tasks SET tokens_output = tokens_output + 1000, tokens_total = tokens_total + 1000, cost = cost * 2 WHERE task_id <= '1a000000-0000-4000-8000-000000000111';
SELECT * FROM pg_temp.totals();
UPDATE ai_tasks SET run_id = :other WHERE task_id = '1a000000-0000-4000-8000-000000000112';
SELECT * FROM pg_temp.totals();
DELETE FROM ai_tasks WHERE task_id = '1a000000-0000-4000-8000-000000000110';
SELECT * FROM pg_temp.totals();
UPDATE ai_tasks SET status = 'pending' WHERE task_id = '1a000000-0000-4000-8000-000000000111' RETURNING status, tokens_total, cost, completed_at;
SELECT * FROM pg_temp.totals();
UPDATE ai_tasks SET status = 'failed', tokens_total = 5, cost = 1 WHERE task_id = '1a000000-0000-4000-8000-000000000111' RETURNING status, tokens_total, cost;
SELECT * FROM pg_temp.totals();
UPDATE ai_runs SET task_count = 99, total_tokens = 99, total_cost = 99, message_count = 99, last_message_at = NULL, created_at = NULL, updated_at = NULL
RETURNING task_count < 99 AND total_tokens <> 99 AND total_cost < 99 AND message_count < 99 AND last_message_at IS NOT NULL AND created_at IS NOT NULL AND updated_at IS NOT NULL AS computed;
UPDATE ai_tasks SET total_time = 99, completed_at = now(), created_at = now() WHERE task_id = '1a000000-0000-4000-8000-000000000113' RETURNING total_time < 99 AS measured;
SELECT * FROM run_tracker.check_totals();

--
-- What is refused, and how
--
CALL pg_temp.try($$INSERT INTO ai_tasks (task_name) VALUES ('without a run')$$);
CALL pg_temp.try($$INSERT INTO ai_tasks (run_id) VALUES ('19999999-0000-4000-8000-000000000001')$$);
CALL pg_temp.try($$INSERT INTO ai_tasks (run_id, task_id) VALUES ('10000000-0000-4000-8000-00000000000a', '1a000000-0000-4000-8000-00000000000a')$$);
CALL pg_temp.try($$INSERT INTO ai_tasks (run_id, status) VALUES ('10000000-0000-4000-8000-00000000000a', 'done')$$);
CALL pg_temp.try($$INSERT INTO ai_runs (id) VALUES ('10000000-0000-4000-8000-00000000000a')$$);
CALL pg_temp.try($$INSERT INTO ai_runs (user_id) VALUES ('b0000000-0000-4000-8000-00000000000b')$$);
CALL pg_temp.try($$INSERT INTO ai_runs (messages) VALUES ('[{"content": "x"}]')$$);
CALL pg_temp.try($$INSERT INTO ai_runs (settings) VALUES ('[1]')$$);
CALL pg_temp.try($$UPDATE ai_runs SET id = gen_random_uuid()$$);
CALL pg_temp.try($$UPDATE ai_runs SET messages = NULL$$);
CALL pg_temp.try($$UPDATE ai_runs SET messages = '"x"'$$);
CALL pg_temp.try($$UPDATE ai_tasks SET task_id = gen_random_uuid()$$);
CALL pg_temp.try($$UPDATE ai_tasks SET run_id = NULL$$);
CALL pg_temp.try($$UPDATE ai_tasks SET run_id = '19999999-0000-4000-8000-000000000001'$$);
CALL pg_temp.try($$UPDATE ai_tasks SET tokens_input = 2, tokens_output = -1 WHERE task_id = '1a000000-0000-4000-8000-000000000113'$$);
CALL pg_temp.try($$UPDATE ai_tasks SET cost = 'NaN' WHERE task_id = '1a000000-0000-4000-8000-000000000113'$$);
-- a run of another kind is no conversation, and its tasks are no tasks of one
SELECT run_tracker.create_run('10000000-0000-4000-8000-00000000000d') AS d, run_tracker.create_task('10000000-0000-4000-8000-00000000000d', '1a000000-0000-4000-8000-00000000000d') AS t \gset
SELECT count(*) FROM ai_runs WHERE id = '10000000-0000-4000-8000-00000000000d';
SELECT count(*) FROM ai_tasks WHERE task_id = '1a000000-0000-4000-8000-00000000000d';
CALL pg_temp.try($$INSERT INTO ai_runs (id) VALUES ('10000000-0000-4000-8000-00000000000d')$$);
SET ROLE regress_chat_reader;
SELECT name, message_count, jsonb_array_length(messages) FROM ai_runs ORDER BY id;
CALL pg_temp.try($$INSERT INTO ai_runs (name) VALUES ('x')$$);
CALL pg_temp.try($$UPDATE ai_runs SET name = 'x'$$);
CALL pg_temp.try($$UPDATE ai_runs SET messages = '[]'$$);
CALL pg_temp.try($$UPDATE ai_tasks SET cost = 1$$);
CALL pg_temp.try($$DELETE FROM ai_runs$$);
SET ROLE regress_chat_stranger;
CALL pg_temp.try($$SELECT FROM ai_runs$$);
CALL pg_temp.try($$INSERT INTO ai_runs (name) VALUES ('x')$$);

--
-- Plans: by id, by user, by run; what is not asked for is not computed
--
RESET ROLE;
SET enable_seqscan = off;
CREATE FUNCTION pg_temp.scans(query text) RETURNS TABLE (by_index text, sequential text) LANGUAGE plpgsql AS $$
DECLARE
    plan jsonb;
BEGIN
    EXECUTE 'EXPLAIN (FORMAT JSON) ' || query INTO plan;
    RETURN QUERY
    SELECT string_agg(DISTINCT COALESCE(n ->> 'Relation Name', substring(n ->> 'Index Name', '[a-z]+')), ', ') FILTER (WHERE n ->> 'Node Type' ~ 'Index|Bitmap'),
           string_agg(DISTINCT n ->> 'Relation Name', ', ') FILTER (WHERE n ->> 'Node Type' = 'Seq Scan')
    FROM jsonb_path_query(plan, '$.**') n WHERE jsonb_typeof(n) = 'object' AND n ? 'Node Type';
END
$$;
SELECT * FROM pg_temp.scans($$SELECT id, name, settings FROM ai_runs WHERE id = '20000000-0000-4000-8000-000000000001'$$);
SELECT * FROM pg_temp.scans($$SELECT id, name, message_count FROM ai_runs WHERE user_id = 'b0000000-0000-4000-8000-000000000001' ORDER BY created_at DESC LIMIT 20$$);
SELECT * FROM pg_temp.scans($$SELECT * FROM ai_runs WHERE id = '20000000-0000-4000-8000-000000000001'$$);
SELECT * FROM pg_temp.scans($$UPDATE ai_runs SET messages = messages || '[]' WHERE id = '20000000-0000-4000-8000-000000000001'$$);
SELECT * FROM pg_temp.scans($$SELECT task_id, status FROM ai_tasks WHERE task_id = '20000000-0000-4000-8000-000000000001'$$);
SELECT * FROM pg_temp.scans($$SELECT * FROM ai_tasks WHERE run_id = '20000000-0000-4000-8000-000000000001'$$);
SELECT * FROM pg_temp.scans($$SELECT task_id, status FROM ai_tasks WHERE user_id = 'b0000000-0000-4000-8000-000000000001' ORDER BY created_at DESC LIMIT 20$$);
SELECT * FROM pg_temp.scans($$DELETE FROM ai_tasks WHERE run_id = '20000000-0000-4000-8000-000000000001'$$);

RESET enable_seqscan;

-- a conversation is read only by statements that show it or look at it: appending costs the same at any length
RESET ROLE;
CREATE FUNCTION pg_temp.reads_messages(query text) RETURNS boolean
LANGUAGE plpgsql
AS $$
DECLARE
    plan json;
BEGIN
    EXECUTE 'EXPLAIN (FORMAT JSON) ' || query INTO plan;
    RETURN plan::text LIKE '%"messages"%';
END
$$;
:as_alice
SELECT query, pg_temp.reads_messages(query) FROM unnest(ARRAY[
    $$UPDATE ai_runs SET messages = messages || '[]'$$,
    $$UPDATE ai_runs SET messages = messages || '[]' || '{}', settings = '{}' WHERE name = 'x' RETURNING id, message_count$$,
    $$WITH w AS (UPDATE ai_runs SET messages = messages || '[]' RETURNING 1) SELECT count(*) FROM w$$,
    $$UPDATE ai_runs SET messages = COALESCE(messages, '[]') || '[]'$$,
    $$UPDATE ai_runs SET name = 'x'$$,
    $$DELETE FROM ai_runs RETURNING name$$,
    $$UPDATE ai_runs SET messages = messages || '[]' RETURNING messages$$,
    $$UPDATE ai_runs SET messages = messages || '[]' RETURNING ai_runs$$,
    $$UPDATE ai_runs SET messages = messages || '[]' WHERE jsonb_array_length(messages) > 1$$,
    $$UPDATE ai_runs SET messages = messages || messages$$,
    $$UPDATE ai_runs SET messages = '[]' || messages$$,
    $$UPDATE ai_runs SET messages = messages - 1$$,
    $$UPDATE ai_runs SET messages = messages || '[]', message_count = jsonb_array_length(messages)$$,
    $$UPDATE ai_runs SET name = 'x' RETURNING (SELECT messages -> 0)$$,
    $$DELETE FROM ai_runs WHERE messages = '[]'$$,
    $$DELETE FROM ai_runs RETURNING *$$]) AS query;
INSERT INTO ai_runs (id, messages) VALUES ('10000000-0000-4000-8000-0000000000aa', '[{"role": "user", "content": "1"}]');
PREPARE append (jsonb) AS UPDATE ai_runs SET messages = messages || $1 WHERE id = '10000000-0000-4000-8000-0000000000aa' RETURNING message_count;
EXECUTE append('[{"role": "user", "content": "2"}, {"role": "user", "content": "3"}]');
EXECUTE append('{"role": "user", "content": "4"}');
EXECUTE append('[]');
CALL pg_temp.try($$EXECUTE append('[{"content": "5"}]')$$);
CALL pg_temp.try($$EXECUTE append(NULL)$$);
UPDATE ai_runs SET name = 'Numbers', messages = messages || '[{"role": "user", "content": "5"}]' WHERE id = '10000000-0000-4000-8000-0000000000aa' RETURNING name, messages;
SELECT jsonb_path_query_array(messages, '$[*].content') FROM ai_runs WHERE id = '10000000-0000-4000-8000-0000000000aa';
DELETE FROM ai_runs WHERE id = '10000000-0000-4000-8000-0000000000aa';

-- ids of users that are no uuids
RESET ROLE;
SELECT run_tracker.drop_compat('ai_runs', 'regress_chat');
SELECT run_tracker.create_compat('ai_runs', 'regress_chat', '{"user_id": "text"}');
:as_alice
INSERT INTO ai_runs (user_id, name) VALUES (:'alice', 'text') RETURNING pg_typeof(user_id), name;
:as_service
SELECT user_id FROM ai_runs WHERE user_id = 'carol';
INSERT INTO ai_runs (user_id, name) VALUES ('dave', 'of dave'), ('', 'of nobody') RETURNING user_id, name;

RESET ROLE;
CALL pg_temp.forget();
RESET search_path;
SET client_min_messages = warning;
SELECT run_tracker.drop_compat('ai_runs', 'regress_chat');
DROP SCHEMA regress_chat;
DROP OWNED BY regress_chat_client, regress_chat_reader, regress_chat_service;
DROP ROLE regress_chat_client, regress_chat_reader, regress_chat_service, regress_chat_stranger;
