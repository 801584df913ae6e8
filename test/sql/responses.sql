--
-- Responses that arrive in pieces: readable at any moment, whole at the end whoever ends the task, and gone with it.
--
\getenv abs_srcdir PG_ABS_SRCDIR
\set common :abs_srcdir '/sql/common.psql'
\i :common

\set run '''60000000-0000-0000-0000-000000000001'''
\set run2 '''60000000-0000-0000-0000-000000000002'''
\set t1 '''61000000-0000-0000-0000-000000000001'''
\set t2 '''61000000-0000-0000-0000-000000000002'''
\set t3 '''61000000-0000-0000-0000-000000000003'''
-- what a task is and has: its column, its pieces, and both together
\set show 'SELECT t.status, t.attempt, t.response, run_tracker.task_response(t.task_id), (SELECT string_agg(c.content, \'|\' ORDER BY c.start_offset) FROM run_tracker.response_chunks c WHERE (c.run_id, c.task_id, c.user_id) = (t.run_id, t.task_id, t.user_id)) AS pieces FROM run_tracker.tasks t ORDER BY t.task_id;'
-- pieces that nothing will fold: none, ever
CREATE TEMP VIEW stray AS
SELECT c.task_id, c.content, t.status FROM run_tracker.response_chunks c LEFT JOIN run_tracker.tasks t ON (t.run_id, t.task_id, t.user_id) = (c.run_id, c.task_id, c.user_id)
WHERE t.task_id IS NULL OR t.phase NOT IN ('queued', 'active', 'waiting') OR t.response IS NULL;
-- a task that is streaming three pieces
CREATE FUNCTION pg_temp.stream(task uuid, run uuid DEFAULT '60000000-0000-0000-0000-000000000001') RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM run_tracker.tasks t WHERE t.task_id = task;
    PERFORM run_tracker.create_task(run, task);
    PERFORM run_tracker.append_response(task, 'one '), run_tracker.append_response(task, 'two '), run_tracker.append_response(task, 'three');
    RETURN run_tracker.task_response(task);
END
$$;
SELECT run_tracker.create_run(:run, user_id => 'alice');
SELECT run_tracker.create_run(:run2, user_id => 'bob');

-- the first piece starts the task and is the first token; what has arrived is readable at any moment
SELECT run_tracker.create_task(:run, :t1);
SELECT run_tracker.task_response(:t1);
SELECT * FROM run_tracker.read_response(:t1);
SELECT run_tracker.append_response(:t1, 'Hel');
:show
SELECT started_at IS NOT NULL AS started, time_to_first_token_ms IS NOT NULL AS first_token FROM run_tracker.tasks;
SELECT run_tracker.append_response(:t1, 'lo');
SELECT run_tracker.append_response(:t1, '');
SELECT run_tracker.append_response(:t1, ', world', attempt => 1);
:show
SELECT run_id, user_id, task_id, start_offset, end_bytes, content, created_at > now() - interval '1 hour' AS recent FROM run_tracker.response_chunks ORDER BY start_offset;
SELECT open_task_count, task_count FROM run_tracker.run_summary WHERE run_id = :run;
SELECT run_tracker.complete_task(:t1, output_tokens => 3);
:show
SELECT * FROM run_tracker.read_response(:t1, 5);
-- only once; also if it is the only piece
CALL pg_temp.try($$SELECT run_tracker.append_response('61000000-0000-0000-0000-000000000001', 'more')$$);
:show
SELECT run_tracker.create_task(:run, :t2);
SELECT run_tracker.append_response(:t2, 'x');
SELECT run_tracker.complete_task(:t2);
:show
DELETE FROM run_tracker.tasks;

-- an empty piece begins nothing
SELECT run_tracker.create_task(:run, :t1);
SELECT run_tracker.append_response(:t1, '');
:show
SELECT run_tracker.start_task(:t1);
SELECT run_tracker.append_response(:t1, '');
-- a task that runs goes on to streaming; a time to the first token of the client's own stays
UPDATE run_tracker.tasks SET time_to_first_token_ms = 77;
SELECT run_tracker.append_response(:t1, 'a');
SELECT run_tracker.append_response(:t1, 'b');
SELECT status, time_to_first_token_ms FROM run_tracker.tasks;
DELETE FROM run_tracker.tasks;
-- it is measured from the start, and noted once
SELECT run_tracker.create_task(:run, :t1);
SELECT run_tracker.start_task(:t1);
SELECT count(pg_sleep(0.02));
SELECT run_tracker.append_response(:t1, 'a');
SELECT time_to_first_token_ms AS first FROM run_tracker.tasks \gset
SELECT :first >= 20 AS measured, count(pg_sleep(0.01));
SELECT run_tracker.append_response(:t1, 'b');
UPDATE run_tracker.tasks SET response = 'c';
SELECT run_tracker.complete_task(:t1);
SELECT time_to_first_token_ms = :first AS once, duration_ms > time_to_first_token_ms AS before_the_end FROM run_tracker.tasks;
DELETE FROM run_tracker.tasks;
-- … or, if the first piece is what starts the task, from its creation, or from the moment when it was queued again
SELECT run_tracker.create_task(:run, :t1);
SELECT count(pg_sleep(0.02));
SELECT run_tracker.append_response(:t1, 'a');
SELECT status, time_to_first_token_ms >= 20 AS measured FROM run_tracker.tasks;
SELECT run_tracker.fail_task(:t1);
SELECT count(pg_sleep(0.05));
UPDATE run_tracker.tasks SET status = 'pending';
SELECT count(pg_sleep(0.02));
SELECT run_tracker.append_response(:t1, 'a');
SELECT status, attempt, time_to_first_token_ms BETWEEN 20 AND 69 AS measured FROM run_tracker.tasks;
DELETE FROM run_tracker.tasks;
-- an empty response is none
SELECT run_tracker.create_task(:run, :t1);
UPDATE run_tracker.tasks SET response = '';
SELECT run_tracker.append_response(:t1, '');
SELECT status, time_to_first_token_ms FROM run_tracker.tasks;
SELECT run_tracker.append_response(:t1, 'a');
SELECT status, response, time_to_first_token_ms IS NOT NULL AS first_token FROM run_tracker.tasks;
DELETE FROM run_tracker.tasks;
SELECT run_tracker.create_task(:run, :t1);
SELECT run_tracker.start_task(:t1);
UPDATE run_tracker.tasks SET response = '';
SELECT time_to_first_token_ms FROM run_tracker.tasks;
UPDATE run_tracker.tasks SET response = 'a';
SELECT time_to_first_token_ms IS NOT NULL AS first_token FROM run_tracker.tasks;
DELETE FROM run_tracker.tasks;

-- lifecycles without streaming: the first piece starts a task that is queued, and leaves others where they are
SELECT run_tracker.define_lifecycle('regress_plain', '{"initial": "new", "states": {
    "new":  {"phase": "queued", "next": ["busy", "done"]},
    "busy": {"phase": "active", "next": ["asking", "new", "done", "lost"]},
    "asking": {"phase": "waiting", "next": ["busy", "done"]},
    "done": {"phase": "succeeded"}, "lost": {"phase": "failed", "next": ["new"]}}}');
SELECT run_tracker.define_lifecycle('regress_late', '{"initial": "new", "states": {
    "new":  {"phase": "queued", "next": ["done"]}, "done": {"phase": "succeeded"}}}');
-- a state of that name that means something else
SELECT run_tracker.define_lifecycle('regress_named', '{"initial": "new", "states": {
    "new":  {"phase": "queued", "next": ["streaming", "busy"]}, "busy": {"phase": "active", "next": ["streaming"]}, "streaming": {"phase": "succeeded"}}}');
SELECT run_tracker.create_task(:run, :t1, lifecycle => 'regress_plain');
SELECT run_tracker.create_task(:run, :t2, lifecycle => 'regress_late');
SELECT run_tracker.create_task(:run, :t3, lifecycle => 'regress_named');
SELECT run_tracker.append_response(:t1, 'a'), run_tracker.append_response(:t2, 'a'), run_tracker.append_response(:t3, 'a');
SELECT run_tracker.append_response(:t1, 'b'), run_tracker.append_response(:t2, 'b'), run_tracker.append_response(:t3, 'b');
:show
-- pieces stay while the task goes from one open status to another
SELECT run_tracker.start_task(:t1, 'asking');
SELECT run_tracker.append_response(:t1, 'c');
UPDATE run_tracker.tasks SET status = 'busy' WHERE task_id = :t1;
UPDATE run_tracker.tasks SET status = 'new' WHERE task_id = :t1;
:show
UPDATE run_tracker.tasks SET status = CASE task_id WHEN :t3 THEN 'streaming' ELSE 'done' END;
:show
DELETE FROM run_tracker.tasks;

-- characters, not bytes: pieces may end between any two of them, also within what looks like one
SELECT run_tracker.create_task(:run, :t1);
SELECT run_tracker.append_response(:t1, 'é€'), run_tracker.append_response(:t1, '😀東'), run_tracker.append_response(:t1, E'e'), run_tracker.append_response(:t1, E'\u0301\U0001F468\u200D'),
    run_tracker.append_response(:t1, E'\U0001F469\n\t"\\');
SELECT start_offset, end_bytes, length(content), octet_length(content) FROM run_tracker.response_chunks ORDER BY start_offset;
SELECT n, content, next_offset FROM generate_series(0, 12) n, run_tracker.read_response(:t1, n);
SELECT run_tracker.complete_task(:t1);
SELECT response = E'é€😀東e\u0301\U0001F468\u200D\U0001F469\n\t"\\' AS whole, length(response), octet_length(response) FROM run_tracker.tasks;
DELETE FROM run_tracker.tasks;

-- read_response() goes on from any offset: within the column, at the edges and in the middle of pieces, at the end, beyond
SELECT pg_temp.stream(:t1);
SELECT n AS after, r.* FROM unnest('{0,2,4,5,8,9,12,13,14,1000000000000}'::bigint[]) n, run_tracker.read_response(:t1, n) r ORDER BY n;
-- each reader gets all of it
WITH RECURSIVE reader AS (
    SELECT substr(content, 1, 3) AS got, length(substr(content, 1, 3))::bigint AS after, 1 AS n FROM run_tracker.read_response(:t1)
    UNION ALL
    SELECT r.got || substr(c.content, 1, 3), r.after + length(substr(c.content, 1, 3)), n + 1
    FROM reader r, run_tracker.read_response(:t1, r.after) c WHERE c.content <> ''
)
SELECT * FROM reader ORDER BY n;
SELECT run_tracker.fail_task(:t1);
SELECT n AS after, r.* FROM unnest('{0,5,13,14,1000000000000}'::bigint[]) n, run_tracker.read_response(:t1, n) r ORDER BY n;
CALL pg_temp.try($$SELECT run_tracker.read_response('61000000-0000-0000-0000-000000000001', -1)$$);
CALL pg_temp.try($$SELECT run_tracker.read_response('61000000-0000-0000-0000-000000000001', NULL)$$);
CALL pg_temp.try($$SELECT run_tracker.read_response('61000000-0000-0000-0000-0000000000ff')$$);
CALL pg_temp.try($$SELECT run_tracker.read_response(NULL)$$);
CALL pg_temp.try($$SELECT run_tracker.task_response('61000000-0000-0000-0000-0000000000ff')$$);
CALL pg_temp.try($$SELECT run_tracker.task_response(NULL)$$);

-- what cannot be
CALL pg_temp.try($$SELECT run_tracker.append_response(NULL, 'x')$$);
CALL pg_temp.try($$SELECT run_tracker.append_response('61000000-0000-0000-0000-000000000001', NULL)$$);
CALL pg_temp.try($$SELECT run_tracker.append_response('61000000-0000-0000-0000-0000000000ff', 'x')$$);
SELECT pg_temp.stream(:t1);
CALL pg_temp.try($$SELECT run_tracker.append_response('61000000-0000-0000-0000-000000000001', 'x', 2)$$);
CALL pg_temp.try($$SELECT run_tracker.append_response('61000000-0000-0000-0000-000000000001', '', 0)$$);
BEGIN READ ONLY;
CALL pg_temp.try($$SELECT run_tracker.append_response('61000000-0000-0000-0000-000000000001', 'x')$$);
ROLLBACK;

-- however the task ends, what has arrived is its response
SELECT run_tracker.fail_task(:t1, 'cut off');
:show
SELECT pg_temp.stream(:t1);
SELECT run_tracker.cancel_task(:t1);
:show
SELECT pg_temp.stream(:t1);
UPDATE run_tracker.tasks SET status = 'timeout';
:show
SELECT pg_temp.stream(:t1);
UPDATE run_tracker.tasks SET status = 'completed', input_tokens = 3, response = response RETURNING response;
-- … unless the end brings a response of its own
SELECT pg_temp.stream(:t1);
SELECT run_tracker.complete_task(:t1, 'all of it');
:show
SELECT pg_temp.stream(:t1);
UPDATE run_tracker.tasks SET status = 'failed', response = NULL;
:show
SELECT * FROM stray;
-- a late result replaces what had arrived, or leaves it
SELECT pg_temp.stream(:t1);
UPDATE run_tracker.tasks SET status = 'timeout';
SELECT run_tracker.complete_task(:t1);
:show
SELECT pg_temp.stream(:t1);
UPDATE run_tracker.tasks SET status = 'timeout';
SELECT run_tracker.complete_task(:t1, 'late');
:show

-- a plain UPDATE of the response replaces the pieces; one of other columns keeps them
SELECT pg_temp.stream(:t1);
UPDATE run_tracker.tasks SET name = 'named', metadata = '{"a": 1}', response = response;
SELECT run_tracker.start_task(:t1, 'streaming');
:show
UPDATE run_tracker.tasks SET response = 'instead: ';
:show
SELECT run_tracker.append_response(:t1, 'four'), run_tracker.append_response(:t1, ' five');
:show
UPDATE run_tracker.tasks SET response = NULL;
:show
SELECT run_tracker.append_response(:t1, 'anew'), run_tracker.append_response(:t1, '!');
:show
-- a client that saves the whole text again and again may be followed, too
UPDATE run_tracker.tasks SET response = 'a';
UPDATE run_tracker.tasks SET response = 'ab';
SELECT content, next_offset FROM run_tracker.read_response(:t1, 1);
SELECT * FROM stray;

-- a retry begins with nothing
SELECT pg_temp.stream(:t1);
SELECT run_tracker.fail_task(:t1);
SELECT run_tracker.start_task(:t1);
:show
SELECT * FROM run_tracker.read_response(:t1, 13);
SELECT run_tracker.append_response(:t1, 'second '), run_tracker.append_response(:t1, 'attempt', 2);
CALL pg_temp.try($$SELECT run_tracker.append_response('61000000-0000-0000-0000-000000000001', 'first', 1)$$);
:show
SELECT time_to_first_token_ms IS NOT NULL AS first_token FROM run_tracker.tasks;
SELECT run_tracker.complete_task(:t1);
:show
-- … or with what it assigns
SELECT pg_temp.stream(:t1);
SELECT run_tracker.fail_task(:t1);
UPDATE run_tracker.tasks SET status = 'running', response = 'kept';
SELECT run_tracker.append_response(:t1, ' and more');
:show
SELECT run_tracker.fail_task(:t1);
UPDATE run_tracker.tasks SET status = 'pending', response = 'kept';
SELECT run_tracker.append_response(:t1, '');
SELECT status FROM run_tracker.tasks;
SELECT run_tracker.append_response(:t1, ' and more');
:show

-- savepoints and rollbacks
SELECT pg_temp.stream(:t1);
BEGIN;
SELECT run_tracker.append_response(:t1, ' four');
SAVEPOINT s;
SELECT run_tracker.append_response(:t1, ' lost');
ROLLBACK TO s;
SELECT run_tracker.append_response(:t1, ' five');
SAVEPOINT s;
SELECT run_tracker.complete_task(:t1);
:show
ROLLBACK TO s;
:show
SELECT run_tracker.append_response(:t1, ' six');
COMMIT;
:show
BEGIN;
SELECT run_tracker.append_response(:t1, ' lost');
ROLLBACK;
BEGIN;
UPDATE run_tracker.tasks SET response = 'lost';
ROLLBACK;
:show
SELECT run_tracker.complete_task(:t1);
:show
-- all in one transaction, the first piece rolled back
DELETE FROM run_tracker.tasks;
BEGIN;
SELECT run_tracker.create_task(:run, :t1);
SAVEPOINT s;
SELECT run_tracker.append_response(:t1, 'lost'), run_tracker.append_response(:t1, 'lost');
ROLLBACK TO s;
SELECT run_tracker.append_response(:t1, 'kept'), run_tracker.append_response(:t1, ', too');
SELECT run_tracker.complete_task(:t1);
COMMIT;
:show
SELECT * FROM stray;

-- the run ends: so do its tasks, with what has arrived
SELECT pg_temp.stream(:t1), pg_temp.stream(:t2);
SELECT run_tracker.complete_run(:run);
:show
SELECT error FROM run_tracker.tasks;
SELECT * FROM stray;
DELETE FROM run_tracker.runs WHERE run_id = :run;
SELECT run_tracker.create_run(:run, user_id => 'alice', timeout => '1 minute');
SELECT run_tracker.start_run(:run);
SELECT pg_temp.stream(:t1), pg_temp.stream(:t2);
SELECT run_tracker.append_response(:t1, ' four');
SELECT run_tracker.expire_runs(now => clock_timestamp() + interval '1 hour');
SELECT status FROM run_tracker.runs WHERE run_id = :run;
:show
SELECT * FROM stray;
-- a piece is a sign of life, also if nothing else tells of it
DELETE FROM run_tracker.runs WHERE run_id = :run;
INSERT INTO run_tracker.runs (run_id, user_id, status, timeout, created_at, started_at, updated_at)
    VALUES (:run, 'alice', 'running', '1 hour', '2020-01-01 00:00:00+00', '2020-01-01 00:00:00+00', '2020-01-01 00:00:00+00');
INSERT INTO run_tracker.tasks (run_id, task_id, status, response, created_at, started_at, updated_at)
    VALUES (:run, :t1, 'streaming', 'old', '2020-01-01 00:00:00+00', '2020-01-01 00:00:00+00', '2020-01-01 00:00:00+00');
SELECT run_tracker.append_response(:t1, ' news');
UPDATE run_tracker.run_totals SET last_activity_at = '2020-01-01 00:00:00+00';
UPDATE run_tracker.open_runs SET last_activity_at = '2020-01-01 00:00:00+00', deadline_at = '2020-01-01 01:00:00+00' WHERE run_id = :run;
SELECT run_tracker.expire_runs();
SELECT r.status, o.deadline_at > now() AS rearmed FROM run_tracker.runs r JOIN run_tracker.open_runs o USING (run_id) WHERE run_id = :run;
UPDATE run_tracker.response_chunks SET created_at = '2020-01-01 00:00:00+00';
UPDATE run_tracker.open_runs SET last_activity_at = '2020-01-01 00:00:00+00', deadline_at = '2020-01-01 01:00:00+00' WHERE run_id = :run;
SELECT run_tracker.expire_runs();
:show

-- nothing is left of a task, or a run, that is deleted
DELETE FROM run_tracker.runs WHERE run_id = :run;
SELECT run_tracker.create_run(:run, user_id => 'alice');
SELECT pg_temp.stream(:t1), pg_temp.stream(:t2), pg_temp.stream(:t3, :run2);
DELETE FROM run_tracker.tasks WHERE task_id = :t1;
SELECT task_id, count(*) FROM run_tracker.response_chunks GROUP BY task_id ORDER BY task_id;
-- the same id again
SELECT pg_temp.stream(:t1);
DELETE FROM run_tracker.runs WHERE run_id = :run;
SELECT task_id, count(*) FROM run_tracker.response_chunks GROUP BY task_id ORDER BY task_id;
SELECT run_tracker.create_run(:run, user_id => 'alice');
SELECT pg_temp.stream(:t1);
TRUNCATE run_tracker.tasks;
SELECT count(*) FROM run_tracker.response_chunks;
SELECT pg_temp.stream(:t1);
SET client_min_messages = warning;
TRUNCATE run_tracker.runs CASCADE;
RESET client_min_messages;
SELECT count(*) FROM run_tracker.response_chunks;
SELECT run_tracker.create_run(:run, user_id => 'alice'), run_tracker.create_run(:run2, user_id => 'alice');
SELECT pg_temp.stream(:t1);
BEGIN;
DELETE FROM run_tracker.runs WHERE run_id = :run;
ROLLBACK;
:show

-- a task that moves to another run, or gets another id, takes its text along
UPDATE run_tracker.tasks SET run_id = :run2;
:show
SELECT run_tracker.append_response(:t1, ' four');
SELECT run_id FROM run_tracker.response_chunks;
UPDATE run_tracker.tasks SET task_id = :t3;
:show
SELECT run_tracker.append_response(:t3, ' five'), run_tracker.append_response(:t3, ' six');
SELECT run_tracker.complete_task(:t3);
:show
SELECT * FROM stray;
DELETE FROM run_tracker.tasks;

-- many tasks in one statement: only one in five has pieces
INSERT INTO run_tracker.tasks (run_id, name) SELECT CASE n % 2 WHEN 0 THEN :run ELSE :run2 END::uuid, n FROM generate_series(1, 500) n;
SELECT count(run_tracker.append_response(task_id, name || ':')) FROM run_tracker.tasks WHERE name::integer % 5 < 2;
SELECT count(run_tracker.append_response(task_id, name || piece)) FROM run_tracker.tasks, unnest('{a,b,c}'::text[]) piece WHERE name::integer % 5 = 0;
UPDATE run_tracker.tasks SET status = CASE WHEN name::integer % 3 = 0 THEN 'streaming' WHEN name::integer % 3 = 1 THEN 'completed' ELSE 'failed' END;
SELECT phase, count(*), count(response) AS begun, sum((SELECT count(*) FROM run_tracker.response_chunks c WHERE c.task_id = t.task_id)) AS pieces,
       bool_and(run_tracker.task_response(task_id) IS NOT DISTINCT FROM
                CASE name::integer % 5 WHEN 0 THEN format('%1$s:%1$sa%1$sb%1$sc', name) WHEN 1 THEN name || ':' END) AS whole
FROM run_tracker.tasks t GROUP BY phase ORDER BY phase;
SELECT * FROM stray;
UPDATE run_tracker.tasks SET response = 'replaced' WHERE phase = 'active' AND name::integer % 2 = 0;
DELETE FROM run_tracker.tasks WHERE name::integer % 4 = 1;
SELECT bool_and(run_tracker.task_response(task_id) IS NOT DISTINCT FROM CASE WHEN name::integer % 2 = 0 THEN 'replaced'
                WHEN name::integer % 5 = 0 THEN format('%1$s:%1$sa%1$sb%1$sc', name) WHEN name::integer % 5 = 1 THEN name || ':' END) AS whole
FROM run_tracker.tasks t WHERE phase = 'active';
SELECT run_tracker.complete_run(:run), run_tracker.complete_run(:run2);
SELECT count(*) FROM run_tracker.response_chunks;
DELETE FROM run_tracker.runs;

-- INSERT … ON CONFLICT and MERGE end a task like any other statement
SELECT run_tracker.create_run(:run, user_id => 'alice');
SELECT pg_temp.stream(:t1);
INSERT INTO run_tracker.tasks (run_id, task_id) VALUES (:run, :t1), (:run, :t2) ON CONFLICT (task_id) DO UPDATE SET status = 'completed' RETURNING task_id, response;
SELECT pg_temp.stream(:t1);
MERGE INTO run_tracker.tasks t USING (VALUES (:t1::uuid), (:t2), (:t3)) s (task_id) ON t.task_id = s.task_id
WHEN MATCHED AND t.response IS NULL THEN DELETE WHEN MATCHED THEN UPDATE SET status = 'failed'
WHEN NOT MATCHED THEN INSERT (run_id, task_id, status) VALUES (:run, s.task_id, 'running');
:show
SELECT pg_temp.stream(:t1), pg_temp.stream(:t3);
MERGE INTO run_tracker.tasks t USING (VALUES (:t1::uuid), (:t3)) s (task_id) ON t.task_id = s.task_id
WHEN MATCHED AND t.task_id = :t1 THEN DELETE WHEN MATCHED THEN UPDATE SET name = 'merged';
:show
SELECT * FROM stray;
-- two parts of one statement
SELECT pg_temp.stream(:t1);
WITH a AS (UPDATE run_tracker.tasks SET status = 'completed' WHERE task_id = :t1 RETURNING response)
UPDATE run_tracker.tasks SET status = 'failed' FROM a WHERE task_id = :t3 RETURNING a.response, tasks.response;
:show
SELECT * FROM stray;

-- triggers of the owner's: what is suppressed or put back loses nothing; what they make of the whole text stays
CREATE FUNCTION pg_temp.veto() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.status NOT IN ('completed', 'cancelled') THEN
        RETURN NEW;
    ELSIF TG_ARGV[0] = 'suppress' THEN
        RETURN NULL;
    ELSIF TG_ARGV[0] = 'put back' THEN
        RETURN OLD;
    END IF;
    NEW.response := upper(NEW.response);
    RETURN NEW;
END
$$;
SELECT pg_temp.stream(:t1);
DELETE FROM run_tracker.tasks WHERE task_id = :t3;
CREATE TRIGGER zzz BEFORE UPDATE ON run_tracker.tasks FOR EACH ROW EXECUTE FUNCTION pg_temp.veto('suppress');
UPDATE run_tracker.tasks SET status = 'completed';
CALL pg_temp.try($$SELECT run_tracker.complete_task('61000000-0000-0000-0000-000000000001')$$);
CALL pg_temp.try($$SELECT run_tracker.complete_run('60000000-0000-0000-0000-000000000001')$$);
:show
DROP TRIGGER zzz ON run_tracker.tasks;
CREATE TRIGGER aaa BEFORE UPDATE ON run_tracker.tasks FOR EACH ROW EXECUTE FUNCTION pg_temp.veto('suppress');
UPDATE run_tracker.tasks SET status = 'completed';
CREATE OR REPLACE TRIGGER aaa BEFORE UPDATE ON run_tracker.tasks FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger();
UPDATE run_tracker.tasks SET name = name;
:show
DROP TRIGGER aaa ON run_tracker.tasks;
CREATE TRIGGER zzz BEFORE UPDATE ON run_tracker.tasks FOR EACH ROW EXECUTE FUNCTION pg_temp.veto('put back');
UPDATE run_tracker.tasks SET status = 'completed';
:show
CREATE OR REPLACE TRIGGER zzz BEFORE UPDATE ON run_tracker.tasks FOR EACH ROW EXECUTE FUNCTION pg_temp.veto('upper');
SELECT run_tracker.append_response(:t1, ' four');
SELECT run_tracker.complete_task(:t1);
:show
DROP TRIGGER zzz ON run_tracker.tasks;
-- columns, indexes and triggers of the owner's in response_chunks work as in any table
ALTER TABLE run_tracker.response_chunks ADD COLUMN n integer GENERATED ALWAYS AS (length(content)) STORED, ADD COLUMN d text NOT NULL DEFAULT 'default';
ALTER TABLE run_tracker.tasks ADD COLUMN n integer GENERATED ALWAYS AS (length(response)) STORED;
CREATE UNIQUE INDEX regress_expression ON run_tracker.response_chunks (task_id, start_offset, lower(content));
SELECT pg_temp.stream(:t1);
SELECT n, d FROM run_tracker.response_chunks ORDER BY start_offset;
SELECT run_tracker.complete_task(:t1);
SELECT n FROM run_tracker.tasks WHERE task_id = :t1;
DROP INDEX run_tracker.regress_expression;
ALTER TABLE run_tracker.response_chunks DROP COLUMN n, DROP COLUMN d;
ALTER TABLE run_tracker.tasks DROP COLUMN n;
-- … but a piece that they suppress is not appended in silence
CREATE FUNCTION pg_temp.suppress() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
SELECT pg_temp.stream(:t1);
CREATE TRIGGER aaa BEFORE INSERT ON run_tracker.response_chunks FOR EACH ROW EXECUTE FUNCTION pg_temp.suppress();
CALL pg_temp.try($$SELECT run_tracker.append_response('61000000-0000-0000-0000-000000000001', ' four')$$);
DROP TRIGGER aaa ON run_tracker.response_chunks;
:show

-- run_tracker.max_payload: the whole response counts, what is there stays
SELECT pg_temp.stream(:t1);
SET run_tracker.max_payload = '1kB';
SELECT run_tracker.append_response(:t1, repeat('é', 505));
CALL pg_temp.try($$SELECT run_tracker.append_response('61000000-0000-0000-0000-000000000001', 'é')$$);
CALL pg_temp.try($$SELECT run_tracker.append_response('61000000-0000-0000-0000-000000000001', 'e')$$);
CALL pg_temp.try($$SELECT run_tracker.append_response('61000000-0000-0000-0000-000000000001', '')$$);
CALL pg_temp.try($$SELECT run_tracker.append_response('61000000-0000-0000-0000-000000000001', '!')$$);
SELECT run_tracker.create_task(:run, :t2);
CALL pg_temp.try($$SELECT run_tracker.append_response('61000000-0000-0000-0000-000000000002', repeat('e', 1025))$$);
SELECT run_tracker.append_response(:t2, repeat('e', 1024));
CALL pg_temp.try($$SELECT run_tracker.append_response('61000000-0000-0000-0000-000000000002', 'e')$$);
RESET run_tracker.max_payload;
SELECT run_tracker.append_response(:t2, repeat('东', 100000));
-- … and is no reason not to end
SET run_tracker.max_payload = '1kB';
SELECT run_tracker.complete_task(:t1), run_tracker.complete_task(:t2);
RESET run_tracker.max_payload;
SELECT length(response), octet_length(response), md5(response) FROM run_tracker.tasks ORDER BY task_id;

-- many pieces, some of them large: in the end, each is there once and in order
DELETE FROM run_tracker.tasks;
SELECT run_tracker.create_task(:run, :t1);
SELECT max(run_tracker.append_response(:t1, repeat(md5(n::text), CASE WHEN n % 100 = 0 THEN 500 ELSE 1 END))) FROM generate_series(1, 3000) n;
SELECT content = md5('3000'), next_offset FROM run_tracker.read_response(:t1, (SELECT max(start_offset) + 499 * 32 FROM run_tracker.response_chunks));
SELECT run_tracker.complete_task(:t1);
SELECT response = (SELECT string_agg(repeat(md5(n::text), CASE WHEN n % 100 = 0 THEN 500 ELSE 1 END), '' ORDER BY n) FROM generate_series(1, 3000) n) AS whole FROM run_tracker.tasks;
SELECT * FROM stray;

-- REPEATABLE READ and SERIALIZABLE: own pieces are there, and nothing is lost
SELECT pg_temp.stream(:t1);
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT run_tracker.append_response(:t1, ' four');
:show
SELECT run_tracker.append_response(:t1, ' five');
SELECT content FROM run_tracker.read_response(:t1, 13);
SELECT run_tracker.complete_task(:t1);
:show
COMMIT;
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT pg_temp.stream(:t1);
SELECT run_tracker.fail_task(:t1);
COMMIT;
:show

-- who may do what
CREATE ROLE regress_responses_client;
CREATE ROLE regress_responses_reader;
CREATE ROLE regress_responses_service;
SELECT run_tracker.grant_client('regress_responses_client');
SELECT run_tracker.grant_reader('regress_responses_reader');
SELECT run_tracker.grant_service('regress_responses_service');
DELETE FROM run_tracker.runs;
SELECT run_tracker.create_run(:run, user_id => 'alice'), run_tracker.create_run(:run2, user_id => 'bob');
SELECT pg_temp.stream(:t1), pg_temp.stream(:t2, :run2);
-- her own
SET request.jwt.claims = '{"sub": "alice"}';
SET ROLE regress_responses_client;
SELECT run_tracker.append_response(:t1, ' four');
SELECT count(*) FROM run_tracker.response_chunks;
SELECT run_tracker.task_response(:t1);
-- bob's, and one that is not there: no difference
CALL pg_temp.try($$SELECT run_tracker.append_response('61000000-0000-0000-0000-000000000002', 'x')$$);
CALL pg_temp.try($$SELECT run_tracker.append_response('61000000-0000-0000-0000-0000000000ff', 'x')$$);
CALL pg_temp.try($$SELECT run_tracker.append_response('61000000-0000-0000-0000-000000000002', 'x', 7)$$);
CALL pg_temp.try($$SELECT run_tracker.task_response('61000000-0000-0000-0000-000000000002')$$);
CALL pg_temp.try($$SELECT run_tracker.read_response('61000000-0000-0000-0000-000000000002')$$);
-- pieces come from append_response() only
CALL pg_temp.try($$INSERT INTO run_tracker.response_chunks SELECT * FROM run_tracker.response_chunks$$);
CALL pg_temp.try($$UPDATE run_tracker.response_chunks SET content = 'x'$$);
CALL pg_temp.try($$DELETE FROM run_tracker.response_chunks$$);
CALL pg_temp.try($$SELECT * FROM run_tracker.response_chunks FOR UPDATE$$);
SET ROLE regress_responses_service;
CALL pg_temp.try($$INSERT INTO run_tracker.response_chunks SELECT * FROM run_tracker.response_chunks$$);
CALL pg_temp.try($$UPDATE run_tracker.response_chunks SET content = 'x'$$);
CALL pg_temp.try($$DELETE FROM run_tracker.response_chunks$$);
SELECT run_tracker.append_response(:t2, ' four');
-- a reader reads
SET ROLE regress_responses_reader;
SELECT run_tracker.task_response(:t1);
SELECT content, next_offset FROM run_tracker.read_response(:t1, 13);
SELECT count(*) FROM run_tracker.response_chunks;
CALL pg_temp.try($$SELECT run_tracker.append_response('61000000-0000-0000-0000-000000000001', 'x')$$);
CALL pg_temp.try($$SELECT run_tracker.task_response('61000000-0000-0000-0000-000000000002')$$);
RESET ROLE;
-- … also with a right to call the function; so does one who may write to other columns only
CREATE ROLE regress_responses_other;
GRANT regress_responses_reader TO regress_responses_other;
GRANT EXECUTE ON FUNCTION run_tracker.append_response TO regress_responses_other;
SET ROLE regress_responses_other;
CALL pg_temp.try($$SELECT run_tracker.append_response('61000000-0000-0000-0000-000000000001', 'x')$$);
RESET ROLE;
GRANT UPDATE (metadata) ON run_tracker.tasks TO regress_responses_other;
SET ROLE regress_responses_other;
CALL pg_temp.try($$SELECT run_tracker.append_response('61000000-0000-0000-0000-000000000001', 'x')$$);
RESET ROLE;
-- a policy that forbids updates forbids pieces
CREATE POLICY regress_frozen ON run_tracker.tasks AS RESTRICTIVE FOR UPDATE USING (name IS DISTINCT FROM 'frozen');
UPDATE run_tracker.tasks SET name = 'frozen' WHERE task_id = :t1;
SET ROLE regress_responses_client;
CALL pg_temp.try($$SELECT run_tracker.append_response('61000000-0000-0000-0000-000000000001', 'x')$$);
SELECT run_tracker.task_response(:t1);
RESET ROLE;
DROP POLICY regress_frozen ON run_tracker.tasks;
-- the client of alice ends the run, her tasks have their texts; the pieces of bob are none of her business
SET ROLE regress_responses_client;
SELECT run_tracker.complete_run(:run);
SELECT count(*) FROM run_tracker.response_chunks;
RESET ROLE;
RESET request.jwt.claims;
:show
SELECT * FROM stray;

SELECT count(*) AS wrong FROM run_tracker.check_totals();
DELETE FROM run_tracker.runs;
SELECT count(*) FROM run_tracker.response_chunks;
SELECT run_tracker.drop_lifecycle('regress_plain'), run_tracker.drop_lifecycle('regress_late'), run_tracker.drop_lifecycle('regress_named');
DROP OWNED BY regress_responses_client, regress_responses_reader, regress_responses_service, regress_responses_other;
DROP ROLE regress_responses_client, regress_responses_reader, regress_responses_service, regress_responses_other;
