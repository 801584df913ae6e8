--
-- Messages: appended one by one and numbered per run, read back in the JSON shape that user interfaces expect; the
-- first message of the user names the run.
--
\getenv abs_srcdir PG_ABS_SRCDIR
\set common :abs_srcdir '/sql/common.psql'
\i :common

\set run '''50000000-0000-0000-0000-000000000001'''
\set task '''51000000-0000-0000-0000-000000000001'''
SELECT run_tracker.create_run(:run, user_id => 'alice', lifecycle => 'conversation');
SELECT run_tracker.run_messages(:run);

-- a turn of a conversation: the numbers of the answer are those of its task, unless the message has its own
SELECT run_tracker.add_message(:run, 'system', 'Be brief.') AS system;
SELECT run_tracker.create_task(:run, :task, 'answer');
SELECT run_tracker.add_message(:run, 'user', E'  Hello,\n\tworld!  ', :task) AS user;
SELECT run_tracker.complete_task(:task, 'Hi!', 10, 5, 0.25, 3);
SELECT run_tracker.add_message(:run, 'assistant', 'Hi!', :task, metadata => '{"own": true, "rating": null}') AS assistant;
SELECT run_tracker.add_message(:run, 'tool', parts => '[{"type": "image", "url": "u"}]', name => 'draw') AS tool;
SELECT jsonb_pretty(jsonb_agg(m #- '{timestamp}' #- '{metadata,totalTime}')) AS messages FROM jsonb_array_elements(run_tracker.run_messages(:run)) m;
SELECT bool_and((m ->> 'timestamp')::timestamptz > now() - interval '1 hour') AS timestamps,
       count(m -> 'metadata' -> 'totalTime') AS total_times FROM jsonb_array_elements(run_tracker.run_messages(:run)) m;
SELECT message_count, last_message_at = (SELECT max(created_at) FROM run_tracker.messages) AS last FROM run_tracker.run_summary;

-- the name of the run
SELECT name FROM run_tracker.runs;
SELECT run_tracker.add_message(:run, 'user', 'Another name?');
SELECT name FROM run_tracker.runs;
CREATE FUNCTION pg_temp.named(VARIADIC contents text[]) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    run uuid := run_tracker.create_run(user_id => 'alice');
    result text;
BEGIN
    FOR i IN 1 .. array_length(contents, 1) LOOP
        PERFORM run_tracker.add_message(run, 'user', contents[i]);
    END LOOP;
    SELECT name INTO result FROM run_tracker.runs WHERE run_id = run;
    DELETE FROM run_tracker.runs WHERE run_id = run;
    RETURN result;
END
$$;
SELECT pg_temp.named(repeat('é', 200)) = repeat('é', 80) AS characters, pg_temp.named(repeat('a ', 200)) = rtrim(repeat('a ', 40)) AS words;
SELECT pg_temp.named(E' \t\r\n ') AS blank, pg_temp.named('', 'second') AS second, pg_temp.named('東京 🚀') AS other;
-- several messages in one statement; a run that has a name; messages of others
INSERT INTO run_tracker.runs (run_id, user_id, name) VALUES ('50000000-0000-0000-0000-000000000002', 'alice', NULL), ('50000000-0000-0000-0000-000000000003', 'alice', 'own');
INSERT INTO run_tracker.messages (run_id, role, content) VALUES
    ('50000000-0000-0000-0000-000000000002', 'assistant', 'not this'), ('50000000-0000-0000-0000-000000000002', 'user', 'this'),
    ('50000000-0000-0000-0000-000000000003', 'user', 'not this'), ('50000000-0000-0000-0000-000000000002', 'user', 'nor this')
RETURNING run_id, seq;
SELECT name FROM run_tracker.runs WHERE run_id <> :run ORDER BY run_id;

-- numbers: per run, ascending; after a rollback or a delete at the end they go on
BEGIN;
SELECT run_tracker.add_message('50000000-0000-0000-0000-000000000003', 'user', 'lost');
SAVEPOINT s;
SELECT run_tracker.add_message('50000000-0000-0000-0000-000000000003', 'user', 'lost');
ROLLBACK TO s;
SELECT run_tracker.add_message('50000000-0000-0000-0000-000000000003', 'user', 'lost') > 2 AS ascending;
ROLLBACK;
SELECT run_tracker.add_message('50000000-0000-0000-0000-000000000003', 'user', 'kept') > 1 AS ascending;
SELECT array_agg(content ORDER BY seq) FROM run_tracker.messages WHERE run_id = '50000000-0000-0000-0000-000000000003';
INSERT INTO run_tracker.messages (run_id, role, content) SELECT '50000000-0000-0000-0000-000000000003', 'user', n::text FROM generate_series(1, 1000) n;
SELECT count(*), bool_and(content = (n - 2)::text) AS in_order FROM (SELECT content, row_number() OVER (ORDER BY seq) AS n FROM run_tracker.messages
    WHERE run_id = '50000000-0000-0000-0000-000000000003') s WHERE n > 2;
-- a number that a service gives itself, as a restore does
INSERT INTO run_tracker.messages (run_id, seq, role, content) VALUES ('50000000-0000-0000-0000-000000000002', 100, 'user', 'given');
SELECT run_tracker.add_message('50000000-0000-0000-0000-000000000002', 'user', 'next');
CALL pg_temp.try($$INSERT INTO run_tracker.messages (run_id, seq, role, content) VALUES ('50000000-0000-0000-0000-000000000002', 100, 'user', 'again')$$);

-- a finished run still takes messages; a run that is not there does not
SELECT run_tracker.complete_run('50000000-0000-0000-0000-000000000002');
SELECT run_tracker.add_message('50000000-0000-0000-0000-000000000002', 'user', 'after the end');
CALL pg_temp.try($$SELECT run_tracker.add_message('50000000-0000-0000-0000-0000000000ff', 'user', 'x')$$);
CALL pg_temp.try($$SELECT run_tracker.add_message(NULL, 'user', 'x')$$);
CALL pg_temp.try($$SELECT run_tracker.run_messages('50000000-0000-0000-0000-0000000000ff')$$);
CALL pg_temp.try($$SELECT run_tracker.run_messages(NULL)$$);
CALL pg_temp.try($$INSERT INTO run_tracker.messages (role, content) VALUES ('user', 'x')$$);
CALL pg_temp.try($$INSERT INTO run_tracker.messages (run_id, content) VALUES ('50000000-0000-0000-0000-000000000002', 'x')$$);
-- nor a session with another user's claims
CREATE ROLE regress_messages_client;
SELECT run_tracker.grant_client('regress_messages_client');
SET ROLE regress_messages_client;
SET request.jwt.claims = '{"sub": "bob"}';
CALL pg_temp.try($$SELECT run_tracker.run_messages('50000000-0000-0000-0000-000000000001')$$);
CALL pg_temp.try($$SELECT run_tracker.add_message('50000000-0000-0000-0000-000000000001', 'user', 'x')$$);
-- alice's client names the run without the right to do so elsewhere
SET request.jwt.claims = '{"sub": "alice"}';
SELECT run_tracker.create_run('50000000-0000-0000-0000-000000000004');
SELECT run_tracker.add_message('50000000-0000-0000-0000-000000000004', 'user', 'mine');
SELECT name FROM run_tracker.runs WHERE run_id = '50000000-0000-0000-0000-000000000004';
RESET ROLE;
RESET request.jwt.claims;

SELECT count(*) AS wrong FROM run_tracker.check_totals();
DELETE FROM run_tracker.runs;
SELECT count(*) FROM run_tracker.messages;
DROP OWNED BY regress_messages_client;
DROP ROLE regress_messages_client;
