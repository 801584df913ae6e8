--
-- Totals: whatever changes tasks, messages or logs, in whatever kind of statement, the totals of the runs are what
-- their rows add up to when the statement is over.  Below, "wrong" is the number of totals that check_totals()
-- reports; it must stay 0, while the numbers before it say what the totals should be.
--
\getenv abs_srcdir PG_ABS_SRCDIR
\set common :abs_srcdir '/sql/common.psql'
\i :common

CREATE ROLE regress_totals_client;
SELECT run_tracker.grant_client('regress_totals_client');

\set totals 'SELECT name, task_count AS done, failed_task_count AS failed, open_task_count AS open, input_tokens AS input, output_tokens AS output, total_tokens AS total, total_cost AS cost, message_count AS messages, error_count AS errors, (SELECT count(*) FROM run_tracker.check_totals()) AS wrong FROM run_tracker.run_summary ORDER BY name;'

-- runs A and B, tasks 1 to 9
INSERT INTO run_tracker.runs (run_id, name, user_id) VALUES
    ('70000000-0000-0000-0000-00000000000a', 'A', 'alice'),
    ('70000000-0000-0000-0000-00000000000b', 'B', 'alice');
\set a '''70000000-0000-0000-0000-00000000000a'''
\set b '''70000000-0000-0000-0000-00000000000b'''
\set t1 '''71000000-0000-0000-0000-000000000001'''
\set t2 '''71000000-0000-0000-0000-000000000002'''
\set t3 '''71000000-0000-0000-0000-000000000003'''
\set t4 '''71000000-0000-0000-0000-000000000004'''
\set t5 '''71000000-0000-0000-0000-000000000005'''
\set t6 '''71000000-0000-0000-0000-000000000006'''
\set t7 '''71000000-0000-0000-0000-000000000007'''
\set t8 '''71000000-0000-0000-0000-000000000008'''
\set t9 '''71000000-0000-0000-0000-000000000009'''

-- a new run has its row at once
SELECT name, slot, task_count, total_cost FROM run_tracker.run_totals JOIN run_tracker.runs USING (run_id) ORDER BY name;
:totals

-- INSERT: open tasks are counted as open, and their tokens not at all
INSERT INTO run_tracker.tasks (run_id, task_id, input_tokens, output_tokens, cost)
SELECT :a, ('71000000-0000-0000-0000-00000000000' || n)::uuid, 10, 5, 0.25 FROM generate_series(1, 4) n;
:totals

-- UPDATE: one task succeeds, one fails, one is cancelled: all three have cost money
UPDATE run_tracker.tasks SET status = 'completed' WHERE task_id = :t1;
UPDATE run_tracker.tasks SET status = 'failed' WHERE task_id = :t2;
UPDATE run_tracker.tasks SET status = 'cancelled' WHERE task_id = :t3;
:totals

-- one that times out counts as failed
UPDATE run_tracker.tasks SET status = 'timeout' WHERE task_id = :t4;
:totals

-- an UPDATE that changes nothing
UPDATE run_tracker.tasks SET status = status;
UPDATE run_tracker.tasks SET status = status, input_tokens = input_tokens, cost = cost WHERE run_id = :a;
:totals

-- the columns that are computed cannot be used to cheat: the assignments are ignored
UPDATE run_tracker.tasks SET phase = 'succeeded', finished_at = NULL, attempt = 9 WHERE run_id = :a;
SELECT DISTINCT attempt, finished_at IS NULL AS unfinished FROM run_tracker.tasks WHERE run_id = :a;
:totals

-- a correction of a finished task, in all columns that are added up; the total tokens follow
UPDATE run_tracker.tasks SET input_tokens = 1000, output_tokens = NULL, cost = 1.125 WHERE task_id = :t1;
:totals
UPDATE run_tracker.tasks SET total_tokens = 77 WHERE task_id = :t1;
:totals
UPDATE run_tracker.tasks SET input_tokens = NULL, total_tokens = NULL, cost = NULL WHERE task_id = :t1;
:totals

-- a correction of an open task counts once it is finished
BEGIN;
INSERT INTO run_tracker.tasks (run_id, task_id) VALUES (:a, :t5);
UPDATE run_tracker.tasks SET input_tokens = 100, cost = 3 WHERE task_id = :t5;
:totals
UPDATE run_tracker.tasks SET status = 'completed', input_tokens = 200 WHERE task_id = :t5;
:totals
ROLLBACK;
:totals

-- re-opening takes the task out again, and clears what the call of the last attempt cost
UPDATE run_tracker.tasks SET status = 'pending' WHERE task_id = :t2;
SELECT status, attempt, input_tokens, total_tokens, cost FROM run_tracker.tasks WHERE task_id = :t2;
:totals
-- … and a late result counts
UPDATE run_tracker.tasks SET status = 'completed' WHERE task_id = :t4;
UPDATE run_tracker.tasks SET status = 'completed', input_tokens = 1, output_tokens = 2, cost = 0.5
WHERE task_id = :t2;
:totals

-- moving a finished task, an open task, and both together with a change of status
INSERT INTO run_tracker.tasks (run_id, task_id) VALUES (:a, :t6), (:a, :t7);
UPDATE run_tracker.tasks SET run_id = :b WHERE task_id IN (:t2, :t6);
:totals
UPDATE run_tracker.tasks SET run_id = :b, status = 'completed', cost = 8 WHERE task_id = :t7;
:totals
-- two runs that exchange tasks
UPDATE run_tracker.tasks SET run_id = CASE run_id WHEN :a THEN :b::uuid ELSE :a::uuid END;
:totals
UPDATE run_tracker.tasks SET run_id = CASE run_id WHEN :a THEN :b::uuid ELSE :a::uuid END;
-- to a run that does not exist, or that is another user's: nothing changes
CALL pg_temp.try($$UPDATE run_tracker.tasks SET run_id = '70000000-0000-0000-0000-0000000000ff'$$);
INSERT INTO run_tracker.runs (run_id, name, user_id) VALUES ('70000000-0000-0000-0000-00000000000c', 'C', 'bob');
CALL pg_temp.try($$UPDATE run_tracker.tasks SET run_id = '70000000-0000-0000-0000-00000000000c'$$);
:totals
DELETE FROM run_tracker.runs WHERE name = 'C';

-- DELETE: of an open task, of a finished one, of all
BEGIN;
DELETE FROM run_tracker.tasks WHERE task_id = :t6;
DELETE FROM run_tracker.tasks WHERE task_id = :t3;
:totals
DELETE FROM run_tracker.tasks;
:totals
ROLLBACK;

-- messages and logs
INSERT INTO run_tracker.messages (run_id, role, content)
SELECT :a, 'user', 'message ' || n FROM generate_series(1, 3) n;
INSERT INTO run_tracker.logs (run_id, level, message) VALUES
    (:a, 'DEBUG', 'd'), (:a, 'INFO', 'i'), (:a, 'WARNING', 'w'), (:a, 'ERROR', 'e'), (:a, 'CRITICAL', 'c');
:totals
UPDATE run_tracker.messages SET content = 'changed' WHERE run_id = :a;
UPDATE run_tracker.messages SET run_id = :b WHERE run_id = :a AND seq = 2;
UPDATE run_tracker.logs SET level = 'ERROR' WHERE run_id = :a AND level = 'INFO';
UPDATE run_tracker.logs SET level = 'INFO' WHERE run_id = :a AND level = 'CRITICAL';
UPDATE run_tracker.logs SET run_id = :b WHERE run_id = :a AND level = 'ERROR' AND message = 'e';
:totals
DELETE FROM run_tracker.messages WHERE run_id = :a AND seq = 1;
DELETE FROM run_tracker.logs WHERE level = 'ERROR' AND run_id = :a;
:totals

-- COPY
COPY run_tracker.tasks (run_id, status, input_tokens, cost, finished_at) FROM stdin;
70000000-0000-0000-0000-00000000000a	completed	100	2	2020-01-01 00:00:00+00
70000000-0000-0000-0000-00000000000b	failed	200	\N	2020-01-01 00:00:00+00
70000000-0000-0000-0000-00000000000b	pending	400	16	\N
\.
COPY run_tracker.messages (run_id, role, content) FROM stdin;
70000000-0000-0000-0000-00000000000a	user	copied
70000000-0000-0000-0000-00000000000a	assistant	copied
\.
COPY run_tracker.logs (run_id, level, message) FROM stdin;
70000000-0000-0000-0000-00000000000b	ERROR	copied
\.
:totals
-- a COPY that fails halfway
COPY run_tracker.tasks (run_id, status, input_tokens) FROM stdin;
70000000-0000-0000-0000-00000000000a	completed	100
70000000-0000-0000-0000-00000000000a	completed	-1
\.
:totals

-- MERGE: all three actions in one statement
DELETE FROM run_tracker.tasks WHERE task_id NOT IN (:t1, :t2, :t3, :t4);
:totals
MERGE INTO run_tracker.tasks t
USING (VALUES (:t1::uuid, 'delete'), (:t2, 'move'), (:t3, 'correct'), (:t8, 'insert')) v (task_id, what)
ON t.task_id = v.task_id
WHEN MATCHED AND what = 'delete' THEN DELETE
WHEN MATCHED AND what = 'move' THEN UPDATE SET run_id = :a
WHEN MATCHED THEN UPDATE SET cost = 100
WHEN NOT MATCHED THEN INSERT (run_id, task_id, status, output_tokens) VALUES (:b, v.task_id, 'completed', 9);
:totals

-- INSERT … ON CONFLICT: both ways in one statement
INSERT INTO run_tracker.tasks (run_id, task_id, status, output_tokens, cost)
VALUES (:b, :t8, 'completed', 90, 1), (:a, :t9, 'completed', 1, 1)
ON CONFLICT (task_id) DO UPDATE SET output_tokens = EXCLUDED.output_tokens, cost = EXCLUDED.cost;
:totals
INSERT INTO run_tracker.tasks (run_id, task_id, status, output_tokens, cost)
VALUES (:b, :t8, 'completed', 90, 1) ON CONFLICT DO NOTHING;
INSERT INTO run_tracker.runs (run_id, name, user_id, priority) VALUES (:a, 'A', 'alice', 1)
ON CONFLICT (run_id) DO UPDATE SET priority = EXCLUDED.priority;
:totals

-- CTEs that write: a run with tasks and messages in one statement; several changes of one table
WITH r AS (
    INSERT INTO run_tracker.runs (run_id, name, user_id)
    VALUES ('70000000-0000-0000-0000-00000000000c', 'C', 'alice') RETURNING run_id
), t AS (
    INSERT INTO run_tracker.tasks (run_id, status, cost) SELECT run_id, 'completed', 4 FROM r
)
INSERT INTO run_tracker.messages (run_id, role, content) SELECT run_id, 'user', 'hello' FROM r;
:totals
WITH u AS (
    UPDATE run_tracker.tasks SET cost = cost + 1 WHERE run_id = :a RETURNING cost
), d AS (
    DELETE FROM run_tracker.tasks WHERE run_id = '70000000-0000-0000-0000-00000000000c'
), i AS (
    INSERT INTO run_tracker.tasks (run_id, status, cost) VALUES (:b, 'failed', 32), (:b, 'running', 1)
)
SELECT count(*) FROM u;
:totals

-- savepoints: what is rolled back is not counted, what came before and after is
BEGIN;
UPDATE run_tracker.tasks SET cost = 1 WHERE run_id = :a;
SAVEPOINT s;
UPDATE run_tracker.tasks SET cost = 1000 WHERE run_id = :a;
INSERT INTO run_tracker.messages (run_id, role, content) VALUES (:a, 'user', 'lost');
:totals
ROLLBACK TO s;
:totals
SAVEPOINT s2;
UPDATE run_tracker.tasks SET cost = 2 WHERE run_id = :a;
RELEASE s2;
UPDATE run_tracker.tasks SET cost = 3 WHERE run_id = :a;
DO $$
BEGIN
    UPDATE run_tracker.tasks SET cost = 9999;
    RAISE division_by_zero;
EXCEPTION WHEN division_by_zero THEN
    UPDATE run_tracker.tasks SET cost = 4 WHERE cost = 3;
END
$$;
COMMIT;
:totals
-- a run that is created inside a savepoint that is rolled back, and again
BEGIN;
SAVEPOINT s;
INSERT INTO run_tracker.runs (run_id, name, user_id) VALUES ('70000000-0000-0000-0000-00000000000d', 'D', 'alice');
INSERT INTO run_tracker.tasks (run_id, status, cost) VALUES ('70000000-0000-0000-0000-00000000000d', 'completed', 7);
ROLLBACK TO s;
INSERT INTO run_tracker.runs (run_id, name, user_id) VALUES ('70000000-0000-0000-0000-00000000000d', 'D', 'alice');
INSERT INTO run_tracker.tasks (run_id, status, cost) VALUES ('70000000-0000-0000-0000-00000000000d', 'completed', 5);
COMMIT;
:totals

-- REPEATABLE READ: a transaction sees its own changes, many statements on one run use one row
BEGIN ISOLATION LEVEL REPEATABLE READ;
INSERT INTO run_tracker.tasks (run_id, status, cost)
SELECT '70000000-0000-0000-0000-00000000000d', 'completed', 1 FROM generate_series(1, 3);
UPDATE run_tracker.tasks SET cost = 2 WHERE run_id = '70000000-0000-0000-0000-00000000000d';
:totals
COMMIT;
SELECT count(*) FROM run_tracker.run_totals WHERE run_id = '70000000-0000-0000-0000-00000000000d';

-- a trigger of the user's that writes to the same tables
CREATE FUNCTION pg_temp.echo_task() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO run_tracker.tasks (run_id, status, cost, name) VALUES (NEW.run_id, 'failed', 0.5, 'echo');
    RETURN NEW;
END
$$;
CREATE TRIGGER echo AFTER INSERT ON run_tracker.tasks FOR EACH ROW WHEN (NEW.name IS NULL)
    EXECUTE FUNCTION pg_temp.echo_task();
INSERT INTO run_tracker.tasks (run_id, status, cost)
SELECT '70000000-0000-0000-0000-00000000000d', 'completed', 10 FROM generate_series(1, 2);
:totals
DROP TRIGGER echo ON run_tracker.tasks;

-- a user's column, before and behind a dropped one, shifts nothing
ALTER TABLE run_tracker.run_totals ADD COLUMN gone integer DEFAULT 1;
ALTER TABLE run_tracker.run_totals DROP COLUMN gone;
ALTER TABLE run_tracker.tasks ADD COLUMN gone integer DEFAULT 1;
ALTER TABLE run_tracker.tasks ADD COLUMN kept text DEFAULT 'kept';
ALTER TABLE run_tracker.tasks DROP COLUMN gone;
INSERT INTO run_tracker.tasks (run_id, status, cost) VALUES ('70000000-0000-0000-0000-00000000000d', 'completed', 100);
UPDATE run_tracker.tasks SET kept = 'changed' WHERE run_id = '70000000-0000-0000-0000-00000000000d';
:totals
ALTER TABLE run_tracker.tasks DROP COLUMN kept;

-- DELETE of runs cascades to their rows and their totals, and brings no totals back
DELETE FROM run_tracker.runs WHERE name IN ('C', 'D');
SELECT count(*) FROM run_tracker.run_totals
WHERE run_id NOT IN (SELECT run_id FROM run_tracker.runs);
SELECT count(*) FROM run_tracker.tasks WHERE run_id NOT IN (SELECT run_id FROM run_tracker.runs);
:totals
-- … also when rows of the run are written by the statement that deletes it
INSERT INTO run_tracker.runs (run_id, name, user_id) VALUES ('70000000-0000-0000-0000-00000000000c', 'C', 'alice');
INSERT INTO run_tracker.tasks (run_id, status, cost) VALUES ('70000000-0000-0000-0000-00000000000c', 'completed', 7);
WITH u AS (UPDATE run_tracker.tasks SET cost = 8 WHERE run_id = '70000000-0000-0000-0000-00000000000c')
DELETE FROM run_tracker.runs WHERE name = 'C';
SELECT count(*) FROM run_tracker.run_totals WHERE run_id = '70000000-0000-0000-0000-00000000000c';
SELECT count(*) FROM run_tracker.check_totals();

-- sums beyond bigint are refused, and nothing is written
CALL pg_temp.try(format('INSERT INTO run_tracker.tasks (run_id, status, input_tokens) SELECT %L, %L, 5000000000000000000 FROM generate_series(1, 2)',
    :a, 'completed'));
CALL pg_temp.try(format('INSERT INTO run_tracker.tasks (run_id, status, input_tokens) VALUES (%L, %L, 9223372036854775807)',
    :a, 'completed'));
CALL pg_temp.try(format('UPDATE run_tracker.tasks SET input_tokens = 9223372036854775807 WHERE run_id = %L', :b));
SELECT count(*) FROM run_tracker.tasks WHERE input_tokens > 1000;
SELECT count(*) FROM run_tracker.check_totals();

-- TRUNCATE takes out what was counted, nothing else
BEGIN;
TRUNCATE run_tracker.messages;
:totals
TRUNCATE run_tracker.logs;
:totals
TRUNCATE run_tracker.tasks;
:totals
ROLLBACK;
:totals
BEGIN;
SET LOCAL client_min_messages = warning;
TRUNCATE run_tracker.runs CASCADE;
SELECT (SELECT count(*) FROM run_tracker.run_totals) AS totals, (SELECT count(*) FROM run_tracker.open_runs) AS open,
       (SELECT count(*) FROM run_tracker.tasks) AS tasks, (SELECT count(*) FROM run_tracker.transitions) AS transitions;
ROLLBACK;
:totals

-- check_totals() finds what somebody has broken, rebuild_totals() repairs it, and only that
UPDATE run_tracker.run_totals SET total_cost = total_cost + 1, task_count = task_count - 1 WHERE run_id = :a;
SELECT total, expected - actual AS missing FROM run_tracker.check_totals() ORDER BY total;
SELECT count(*) FROM run_tracker.check_totals(:b);
SELECT run_tracker.rebuild_totals(:b);
SELECT run_tracker.rebuild_totals(:a);
:totals
-- … rows that are missing, or left over
DELETE FROM run_tracker.run_totals WHERE run_id = :b;
INSERT INTO run_tracker.run_totals SELECT (jsonb_populate_record(t, '{"run_id": "70000000-0000-0000-0000-0000000000ee"}')).*
FROM run_tracker.run_totals t WHERE run_id = :a AND slot = 0;
SELECT run_tracker.rebuild_totals();
SELECT run_tracker.rebuild_totals();
:totals
-- … what was written while triggers were off
ALTER TABLE run_tracker.tasks DISABLE TRIGGER USER;
UPDATE run_tracker.tasks SET cost = 64 WHERE run_id = :b;
ALTER TABLE run_tracker.tasks ENABLE TRIGGER USER;
SELECT count(*) > 0 AS wrong FROM run_tracker.check_totals();
SELECT run_tracker.rebuild_totals(NULL);
:totals
-- a repair must see what other transactions have committed
BEGIN ISOLATION LEVEL REPEATABLE READ;
CALL pg_temp.try('SELECT run_tracker.rebuild_totals()');
ROLLBACK;

-- clients can read the totals of their runs, and neither write nor repair any
SET request.jwt.claims = '{"sub": "alice"}';
SET ROLE regress_totals_client;
SELECT count(*) > 0 AS visible FROM run_tracker.run_totals;
SELECT count(*) FROM run_tracker.check_totals();
CALL pg_temp.try('SELECT run_tracker.rebuild_totals()');
CALL pg_temp.try('INSERT INTO run_tracker.run_totals SELECT * FROM run_tracker.run_totals');
CALL pg_temp.try('UPDATE run_tracker.run_totals SET total_cost = 0');
CALL pg_temp.try('DELETE FROM run_tracker.run_totals');
CALL pg_temp.try('TRUNCATE run_tracker.run_totals');
CALL pg_temp.try('TRUNCATE run_tracker.tasks');
-- their own changes are counted nevertheless, and a foreign user's totals are not there
UPDATE run_tracker.tasks SET cost = 1;
SELECT count(*) FROM run_tracker.check_totals();
SET request.jwt.claims = '{"sub": "bob"}';
SELECT count(*) FROM run_tracker.run_totals;
SELECT count(*) FROM run_tracker.check_totals(:a);
RESET ROLE;
RESET request.jwt.claims;
:totals

-- ten thousand completions of one run, one by one, in one transaction
INSERT INTO run_tracker.runs (run_id, name, user_id) VALUES ('70000000-0000-0000-0000-00000000000e', 'E', 'alice');
INSERT INTO run_tracker.tasks (run_id, name) SELECT '70000000-0000-0000-0000-00000000000e', n FROM generate_series(1, 10000) n;
DO $$
DECLARE
    task uuid;
BEGIN
    FOR task IN SELECT task_id FROM run_tracker.tasks WHERE run_id = '70000000-0000-0000-0000-00000000000e' LOOP
        UPDATE run_tracker.tasks SET status = 'completed', cost = 0.001 WHERE task_id = task;
    END LOOP;
END
$$;
:totals

DELETE FROM run_tracker.runs;
SELECT count(*) FROM run_tracker.run_totals;
DROP OWNED BY regress_totals_client;
DROP ROLE regress_totals_client;
