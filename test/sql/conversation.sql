--
-- A conversation as one JSON array, as applications keep it that have it in a column: read, appended to and edited through
-- a view. What was written is read back bit by bit; what does not change is not written.
--
\getenv abs_srcdir PG_ABS_SRCDIR
\set common :abs_srcdir '/sql/common.psql'
\i :common

CREATE ROLE regress_conversation_client;
CREATE ROLE regress_conversation_service;
CREATE ROLE regress_conversation_reader;
SELECT run_tracker.grant_client('regress_conversation_client');
SELECT run_tracker.grant_service('regress_conversation_service');
SELECT run_tracker.grant_reader('regress_conversation_reader');
CREATE SCHEMA regress_conversation;
GRANT USAGE ON SCHEMA regress_conversation TO PUBLIC;
SELECT format('CREATE VIEW regress_conversation.chats WITH (security_invoker) AS
               SELECT r.run_id AS id, r.name, m.messages FROM run_tracker.runs r, LATERAL (SELECT (%s) AS messages OFFSET 0) m',
              run_tracker.conversation_query()) \gexec
CREATE FUNCTION regress_conversation.write() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        INSERT INTO run_tracker.runs (run_id, lifecycle) VALUES (new.id, 'conversation');
    END IF;
    PERFORM run_tracker.write_messages(new.id, COALESCE(old.messages, '[]'), new.messages);
    RETURN new;
END
$$;
CREATE TRIGGER write INSTEAD OF INSERT OR UPDATE ON regress_conversation.chats FOR EACH ROW EXECUTE FUNCTION regress_conversation.write();
GRANT SELECT, INSERT, UPDATE ON regress_conversation.chats TO PUBLIC;
SET search_path = regress_conversation;
SET request.jwt.claims = '{"sub": "alice"}';
SET ROLE regress_conversation_client;
\set chat '''c0000000-0000-0000-0000-000000000001'''

--
-- Whatever an element is: it is read as it was written
--
\set elements '[{"role": "user", "content": "Hello,\\n  world", "timestamp": "2024-05-06T07:08:09.123Z", "taskId": "aaaaaaaa-0000-0000-0000-000000000001", "metadata": {"tokens": 1.00, "cost": 0.10, "timeToFirstToken": null}}, {"role": "assistant", "content": null, "tool_calls": [{"id": 1}]}, {"role": "assistant"}, {"role": "assistant", "content": ""}, {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "é"}]}, {"role": "user", "content": [], "parts": [1]}, {"role": "user", "parts": [null, {"a": null}], "content": "both"}, {"role": "user", "parts": []}, {"role": "user", "parts": {"a": null}, "content": {"a": null}}, {"role": "user", "content": 5.0}, {"role": "user", "content": false, "name": ""}, {"role": "tool", "content": "x", "name": "draw", "taskId": "AAAAAAAA-0000-0000-0000-000000000001"}, {"role": "tool", "taskId": "task 7", "name": 7, "timestamp": 1714979289, "metadata": null}, {"role": "tool", "taskId": null, "name": null, "timestamp": null, "metadata": {}}, {"role": "tool", "metadata": [1], "run_tracker": {"role": "other"}}, {"role": "tool", "metadata": {"run_tracker": {"role": "other"}}}, {"role": "tool", "content": "x", "timestamp": "yesterday", "metadata": "none", "": [[]], "seq": 1}]'
INSERT INTO chats (id, messages) VALUES (:chat, :'elements');
SELECT messages = :'elements'::jsonb AS same, messages::text = :'elements'::jsonb::text AS same_text,
       run_tracker.run_messages(id) = messages AS run_messages, name FROM chats;
SELECT e.i, m.value AS read, e.value AS written
FROM jsonb_array_elements(:'elements') WITH ORDINALITY e(value, i),
     jsonb_array_elements((SELECT messages FROM chats)) WITH ORDINALITY m(value, i) WHERE e.i = m.i AND e.value::text <> m.value::text;
-- and has its place in the columns; what they do not say is in metadata
SELECT seq, role, name, content, parts, task_id, metadata FROM run_tracker.messages WHERE run_id = :chat ORDER BY seq;
-- written back one by one, in any order, onto any other: still the same
DO $$
DECLARE
    elements jsonb := (SELECT messages FROM chats);
    written jsonb;
BEGIN
    FOR shift IN 0 .. jsonb_array_length(elements) - 1 LOOP
        SELECT jsonb_agg(elements -> ((i + shift) % jsonb_array_length(elements)) ORDER BY i) INTO written
        FROM generate_series(0, jsonb_array_length(elements) - 1) i;
        UPDATE chats SET messages = written;
        IF written::text <> (SELECT messages::text FROM chats) THEN
            RAISE 'shift %: %', shift, (SELECT messages FROM chats);
        END IF;
    END LOOP;
    UPDATE chats SET messages = elements;
END
$$;
SELECT messages::text = :'elements'::jsonb::text AS same_text FROM chats;
SELECT message_count, (SELECT count(*) FROM run_tracker.check_totals()) AS problems FROM run_tracker.run_summary WHERE run_id = :chat;

--
-- Appending and editing: what stays the same is not written
--
RESET ROLE;
CREATE TABLE regress_conversation.written (n bigint GENERATED ALWAYS AS IDENTITY, op text, seq bigint, content text);
CREATE FUNCTION regress_conversation.note() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO regress_conversation.written (op, seq, content) VALUES (TG_OP, COALESCE(new.seq, old.seq), COALESCE(new.content, old.content));
    RETURN COALESCE(new, old);
END
$$;
CREATE TRIGGER note AFTER INSERT OR UPDATE OR DELETE ON run_tracker.messages FOR EACH ROW EXECUTE FUNCTION regress_conversation.note();
GRANT SELECT, INSERT, TRUNCATE ON regress_conversation.written TO PUBLIC;
SET ROLE regress_conversation_client;
CREATE FUNCTION pg_temp.element(content text) RETURNS jsonb LANGUAGE sql AS $$ SELECT jsonb_build_object('role', 'user', 'content', content) $$;
CREATE FUNCTION pg_temp.elements(VARIADIC contents text[]) RETURNS jsonb LANGUAGE sql AS $$
    SELECT COALESCE(jsonb_agg(pg_temp.element(c) ORDER BY i), '[]') FROM unnest(contents) WITH ORDINALITY c(c, i) WHERE c <> '' $$;
\set chat '''c0000000-0000-0000-0000-000000000002'''
INSERT INTO chats (id, messages) VALUES (:chat, '[]');
CREATE PROCEDURE pg_temp.write(VARIADIC contents text[]) LANGUAGE plpgsql AS $$
DECLARE
    chat uuid := 'c0000000-0000-0000-0000-000000000002';
    what text;
BEGIN
    TRUNCATE written;
    UPDATE chats SET messages = pg_temp.elements(VARIADIC contents) WHERE id = chat;
    SELECT string_agg(concat_ws(' ', lower(w.op), w.seq, w.content), ', ' ORDER BY n) INTO what FROM written w;
    RAISE INFO '%: % (%)', (SELECT string_agg(m ->> 'content', '') FROM chats, jsonb_array_elements(messages) m WHERE id = chat), what,
        (SELECT message_count FROM run_tracker.run_summary WHERE run_id = chat);
END
$$;
CALL pg_temp.write('a', 'b', 'c');
CALL pg_temp.write('a', 'b', 'c');
CALL pg_temp.write('a', 'b', 'c', 'd', 'e');
CALL pg_temp.write('a', 'B', 'c', 'd', 'e');
CALL pg_temp.write('a', 'B', 'd', 'e');
CALL pg_temp.write('B', 'd', 'e');
CALL pg_temp.write('B', 'd');
CALL pg_temp.write('b', 'x', 'd');
CALL pg_temp.write('b', 'x', 'd', 'b', 'x', 'd');
CALL pg_temp.write('b', 'x', 'd');
CALL pg_temp.write('z', 'd');
CALL pg_temp.write('');
CALL pg_temp.write('1', '2');
-- from SQL
SELECT run_tracker.write_messages(:chat, pg_temp.elements('1', '2'), pg_temp.elements('1', '3', '4')) AS written;
SELECT run_tracker.write_messages(:chat, pg_temp.elements('1', '3', '4'), pg_temp.elements('1', '3', '4')) AS written;
-- only the beginning was read: the rest stays
SELECT run_tracker.write_messages(:chat, pg_temp.elements('1', '3'), pg_temp.elements('0')) AS written;
SELECT jsonb_path_query_array(messages, '$[*].content') FROM chats WHERE id = :chat;
-- a number that looks different is different
UPDATE chats SET messages = '[{"role": "x", "n": 1.0}]' WHERE id = :chat;
UPDATE chats SET messages = '[{"role": "x", "n": 1.00}]' WHERE id = :chat;
SELECT messages FROM chats WHERE id = :chat;
-- several rows in one statement
UPDATE chats SET messages = messages || pg_temp.element('both');
SELECT id, messages -> -1 AS last, jsonb_array_length(messages) AS n FROM chats ORDER BY id;
-- 300 elements at once, and many kB
UPDATE chats SET messages = messages || (SELECT jsonb_agg(pg_temp.element(i || repeat('x', i * 30)) ORDER BY i) FROM generate_series(1, 300) i) WHERE id = :chat;
UPDATE chats SET messages = messages - 150 - 2 WHERE id = :chat;
SELECT jsonb_array_length(messages) AS n, string_agg(substr(m ->> 'content', 1, 4), ' ') FILTER (WHERE i < 6 OR i > 298) AS some
FROM chats, jsonb_array_elements(messages) WITH ORDINALITY m(m, i) WHERE id = :chat GROUP BY 1;
SELECT count(*) FROM run_tracker.check_totals();

--
-- Messages of add_message(): in the shape of run_messages(), with the numbers of the task
--
\set chat '''c0000000-0000-0000-0000-000000000003'''
INSERT INTO chats (id, messages) VALUES (:chat, '[{"role": "user", "content": "written"}]');
SELECT run_tracker.create_task(:chat, 'c1000000-0000-0000-0000-000000000003') \gset
SELECT run_tracker.add_message(:chat, 'assistant', 'added', 'c1000000-0000-0000-0000-000000000003', metadata => '{"own": 1}'),
       run_tracker.complete_task('c1000000-0000-0000-0000-000000000003', 'x', 3, 4, 0.5, 6);
SELECT messages -> 0 AS first, jsonb_pretty(messages -> 1 #- '{timestamp}' #- '{metadata,totalTime}') AS second FROM chats WHERE id = :chat;
-- they stay what they are as long as they are written back as they were read
UPDATE chats SET messages = messages || '[{"role": "user", "content": "more"}]' WHERE id = :chat;
UPDATE chats SET messages = messages - 0 WHERE id = :chat;
SELECT content, metadata FROM run_tracker.messages WHERE run_id = :chat ORDER BY seq;
SELECT run_tracker.write_messages(:chat, messages, jsonb_set(messages, '{0,content}', '"edited"')) FROM chats WHERE id = :chat;
SELECT content, metadata - 'totalTime' #- '{run_tracker,timestamp}' #- '{metadata,totalTime}' AS metadata, metadata -> 'run_tracker' ? 'timestamp' AS timestamp
FROM run_tracker.messages WHERE run_id = :chat ORDER BY seq;
-- nobody can make the view fail by what he writes into metadata
SELECT run_tracker.add_message(:chat, 'user', 'x', metadata => '{"run_tracker": [1]}'), run_tracker.add_message(:chat, 'user', 'y', metadata => '{"run_tracker": {"role": [1]}}');
SELECT messages -> -2 #- '{timestamp}' AS a, messages -> -1 AS b FROM chats WHERE id = :chat;

--
-- Names: the first text of the user
--
INSERT INTO chats (id, messages) VALUES
    ('c0000000-0000-0000-0000-000000000004', '[{"role": "system", "content": "no"}, {"role": "user", "content": [{"type": "image"}, {"text": 5}, {"text": " the   part "}]}]'),
    ('c0000000-0000-0000-0000-000000000005', '[{"role": "user"}, {"role": "user", "content": ["plain"]}, {"role": "user", "content": "late"}]'),
    ('c0000000-0000-0000-0000-000000000006', '[{"role": "user", "content": [1]}]');
SELECT name FROM chats WHERE id > :chat ORDER BY id;

--
-- When a message was added: services may say
--
SELECT count(DISTINCT created_at) AS times, bool_and(created_at > now() - interval '1 hour') AS now FROM run_tracker.messages WHERE run_id = 'c0000000-0000-0000-0000-000000000001';
RESET ROLE;
SET request.jwt.claims = '';
SET ROLE regress_conversation_service;
SET timezone = 'Asia/Kolkata';
INSERT INTO chats (id, messages) SELECT 'd0000000-0000-0000-0000-000000000001', jsonb_agg(jsonb_build_object('role', 'x', 'timestamp', t) ORDER BY i)
FROM unnest(ARRAY['2024-05-06T07:08:09.123456789Z', '2024-05-06 07:08:09+02', '2024-05-06T07:08-0530', '2024-05-06t07:08:09.5-12:30', '2024-05-06T07:08:09', '2024-02-29T23:59:59z',
                  '2023-02-29T00:00:00Z', '2024-13-01T00:00:00Z', '2024-05-06', '2024-05-06T24:00:00Z', '2024-05-06T07:08:09.Z', '2024-05-06T07:08:09+1', '2024-05-06T07:08:09+02:',
                  '2024-05-06T07:08:09+99', '2024-05-06T07:08:09ZZ', '2024-05-06T07:08:', '2024-05-06T07', 'infinity', 'now', '', '0000-01-01T00:00:00Z', '20240506T070809Z']) WITH ORDINALITY t(t, i);
RESET timezone;
SELECT metadata #>> '{run_tracker,timestamp}' AS written, CASE WHEN created_at < now() - interval '1 hour' THEN created_at AT TIME ZONE 'UTC' END AS utc
FROM run_tracker.messages WHERE run_id = 'd0000000-0000-0000-0000-000000000001' ORDER BY seq;
-- and for whom
UPDATE chats SET messages = jsonb_set(messages, '{0,content}', '"by a service"') || pg_temp.element('too') WHERE id = 'c0000000-0000-0000-0000-000000000002';
SELECT user_id, content FROM run_tracker.messages WHERE run_id = 'c0000000-0000-0000-0000-000000000002' AND content LIKE '%o%';
RESET ROLE;

--
-- What is refused
--
SET request.jwt.claims = '{"sub": "alice"}';
SET ROLE regress_conversation_client;
\set chat '''c0000000-0000-0000-0000-000000000003'''
CREATE PROCEDURE pg_temp.refuse(VARIADIC messages text[]) LANGUAGE plpgsql AS $$
DECLARE
    m text;
BEGIN
    FOREACH m IN ARRAY messages LOOP
        CALL pg_temp.try(format('UPDATE chats SET messages = %L WHERE id = ''c0000000-0000-0000-0000-000000000003''', m));
        CALL pg_temp.try(format('UPDATE chats SET messages = messages || %L WHERE id = ''c0000000-0000-0000-0000-000000000003''', m));
    END LOOP;
END
$$;
CREATE TABLE pg_temp.before AS SELECT to_jsonb(m) FROM run_tracker.messages m;
CALL pg_temp.refuse(NULL, '[{"role": "user"}, 5]', '[{"role": "user"}, {"content": "x"}]', '[[]]', '[{"role": ""}]', '[{"role": null}]', '[{"role": {}}]');
CALL pg_temp.try($$UPDATE chats SET messages = '{}'$$);
CALL pg_temp.try($$UPDATE chats SET messages = '"x"'$$);
CALL pg_temp.try($$SELECT run_tracker.write_messages('c0000000-0000-0000-0000-000000000003', '5', '[]')$$);
CALL pg_temp.try($$SELECT run_tracker.write_messages(NULL, '[]', '[]')$$);
CALL pg_temp.try($$SELECT run_tracker.write_messages('c0000000-0000-0000-0000-000000000003', NULL, '[]')$$);
CALL pg_temp.try($$SELECT run_tracker.write_messages('c0000000-0000-0000-0000-000000000003', '[]', NULL)$$);
CALL pg_temp.try($$SELECT run_tracker.write_messages('c9000000-0000-0000-0000-000000000009', '[]', '[]')$$);
-- what was not read
CALL pg_temp.try($$SELECT run_tracker.write_messages('c0000000-0000-0000-0000-000000000003', '[{"role": "user"}]', '[]')$$);
CALL pg_temp.try($$SELECT run_tracker.write_messages('c0000000-0000-0000-0000-000000000006', '[{"role": "user", "content": [1]}, 1]', '[]')$$);
CALL pg_temp.try($$SELECT run_tracker.write_messages('c0000000-0000-0000-0000-000000000006', '[1]', '[2]')$$);
RESET ROLE;
SET run_tracker.max_payload = '2kB';
SET ROLE regress_conversation_client;
CALL pg_temp.try($$UPDATE chats SET messages = messages || jsonb_build_array(pg_temp.element('x'), pg_temp.element(repeat('x', 3000))) WHERE id = 'c0000000-0000-0000-0000-000000000003'$$);
CALL pg_temp.try($$UPDATE chats SET messages = jsonb_set(messages, '{1}', pg_temp.element(repeat('x', 3000))) WHERE id = 'c0000000-0000-0000-0000-000000000003'$$);
RESET ROLE;
RESET run_tracker.max_payload;
SET ROLE regress_conversation_client;
BEGIN READ ONLY;
SELECT messages -> 0 ->> 'content' FROM chats WHERE id = :chat;
CALL pg_temp.try($$UPDATE chats SET messages = messages || '[{"role": "x"}]'$$);
CALL pg_temp.try($$SELECT run_tracker.write_messages('c0000000-0000-0000-0000-000000000006', '[{"role": "user", "content": [1]}]', '[]')$$);
COMMIT;
SELECT count(*) AS changed FROM (SELECT to_jsonb(m) FROM run_tracker.messages m EXCEPT TABLE pg_temp.before) d;

--
-- Who
--
SET request.jwt.claims = '{"sub": "bob"}';
SELECT count(*) FROM chats;
UPDATE chats SET messages = '[]';
CALL pg_temp.try($$SELECT run_tracker.write_messages('c0000000-0000-0000-0000-000000000003', '[]', '[]')$$);
CALL pg_temp.try($$SELECT run_tracker.write_messages('c0000000-0000-0000-0000-000000000003', '[]', '[{"role": "x"}]')$$);
CALL pg_temp.try($$SELECT run_tracker.write_messages('c0000000-0000-0000-0000-000000000006', '[{"role": "user", "content": [1]}]', '[]')$$);
RESET ROLE;
SET request.jwt.claims = '{"sub": "alice"}';
SET ROLE regress_conversation_reader;
SELECT count(*) FROM chats;
CALL pg_temp.try($$UPDATE chats SET messages = '[]'$$);
RESET ROLE;
-- a role that may call the function has no more rights by that; deleting needs UPDATE
GRANT EXECUTE ON FUNCTION run_tracker.write_messages TO regress_conversation_reader;
SET ROLE regress_conversation_reader;
CALL pg_temp.try($$SELECT run_tracker.write_messages('c0000000-0000-0000-0000-000000000006', '[{"role": "user", "content": [1]}]', '[]')$$);
CALL pg_temp.try($$SELECT run_tracker.write_messages('c0000000-0000-0000-0000-000000000006', '[{"role": "user", "content": [1]}]', '[{"role": "x"}]')$$);
CALL pg_temp.try($$SELECT run_tracker.write_messages('c0000000-0000-0000-0000-000000000006', '[]', '[{"role": "x"}]')$$);
RESET ROLE;
GRANT UPDATE ON run_tracker.runs TO regress_conversation_reader;
SET ROLE regress_conversation_reader;
CALL pg_temp.try($$SELECT run_tracker.write_messages('c0000000-0000-0000-0000-000000000006', '[{"role": "user", "content": [1]}]', '[]')$$);
RESET ROLE;
-- nor past a policy of the owner's
CREATE POLICY regress_conversation ON run_tracker.messages AS RESTRICTIVE FOR UPDATE TO regress_conversation_client USING (content IS NOT NULL);
SET ROLE regress_conversation_client;
CALL pg_temp.try($$UPDATE chats SET messages = '[]' WHERE id = 'c0000000-0000-0000-0000-000000000006'$$);
CALL pg_temp.try($$UPDATE chats SET messages = '[{"role": "x"}]' WHERE id = 'c0000000-0000-0000-0000-000000000006'$$);
RESET ROLE;
DROP POLICY regress_conversation ON run_tracker.messages;
-- a trigger that does not want it
CREATE FUNCTION regress_conversation.refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE TRIGGER refuse BEFORE INSERT OR UPDATE OR DELETE ON run_tracker.messages FOR EACH ROW EXECUTE FUNCTION regress_conversation.refuse();
SET ROLE regress_conversation_client;
CALL pg_temp.try($$UPDATE chats SET messages = '[]' WHERE id = 'c0000000-0000-0000-0000-000000000006'$$);
CALL pg_temp.try($$UPDATE chats SET messages = '[{"role": "x"}]' WHERE id = 'c0000000-0000-0000-0000-000000000006'$$);
CALL pg_temp.try($$UPDATE chats SET messages = messages || '[{"role": "x"}]' WHERE id = 'c0000000-0000-0000-0000-000000000006'$$);
RESET ROLE;
DROP TRIGGER refuse ON run_tracker.messages;
SELECT count(*) AS changed FROM (SELECT to_jsonb(m) FROM run_tracker.messages m WHERE user_id = 'alice' EXCEPT TABLE pg_temp.before) d;

-- reading other columns does not read messages; rows can be locked
CREATE FUNCTION pg_temp.plan(query text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    plan text;
BEGIN
    EXECUTE 'EXPLAIN (FORMAT JSON) ' || query INTO plan;
    RETURN plan;
END
$$;
SELECT pg_temp.plan('SELECT name FROM chats') ~ 'messages' AS reads_messages, pg_temp.plan('SELECT messages FROM chats') ~ 'messages' AS with_messages;
BEGIN;
SELECT id FROM chats WHERE id = :chat FOR UPDATE;
SELECT jsonb_array_length(messages) FROM chats WHERE id = :chat FOR NO KEY UPDATE;
ROLLBACK;

DROP TRIGGER note ON run_tracker.messages;
DELETE FROM run_tracker.runs;
RESET search_path;
SET client_min_messages = warning;
DROP SCHEMA regress_conversation CASCADE;
DROP OWNED BY regress_conversation_client, regress_conversation_service, regress_conversation_reader;
DROP ROLE regress_conversation_client, regress_conversation_service, regress_conversation_reader;
