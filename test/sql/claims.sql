--
-- Work that is handed out: who gets which run in which order, that a claim is kept alive by heartbeats and given back
-- by its worker, that a failed run comes back with backoff, and that nobody touches runs that are not his to touch.
--
\getenv abs_srcdir PG_ABS_SRCDIR
\set common :abs_srcdir '/sql/common.psql'
\i :common

CREATE ROLE regress_claims_client;
CREATE ROLE regress_claims_reader;
CREATE ROLE regress_claims_service;
CREATE ROLE regress_claims_owner;
SELECT run_tracker.grant_client('regress_claims_client'), run_tracker.grant_reader('regress_claims_reader'),
       run_tracker.grant_service('regress_claims_service') \g /dev/null

\set a '''e0000000-0000-0000-0000-00000000000a'''
\set b '''e0000000-0000-0000-0000-00000000000b'''
\set c '''e0000000-0000-0000-0000-00000000000c'''

-- The names of the runs that a claim hands out, in its order; nothing of the claim remains.
CREATE FUNCTION pg_temp.preview(max_runs integer, lifecycle text DEFAULT NULL, kind text DEFAULT NULL) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
    names text;
BEGIN
    SELECT string_agg(c.name, ' ' ORDER BY c.ordinality) INTO names
    FROM run_tracker.claim_runs('preview', max_runs, lifecycle, kind) WITH ORDINALITY c;
    RAISE EXCEPTION USING ERRCODE = 'ZZ000';
EXCEPTION WHEN SQLSTATE 'ZZ000' THEN
    RETURN names;
END
$$;
-- A run that was created this many seconds after the beginning of 2020; the id follows from the name.
CREATE FUNCTION pg_temp.add(name text, seconds integer, priority integer DEFAULT 0, lifecycle text DEFAULT 'run', kind text DEFAULT NULL,
    status text DEFAULT NULL, user_id text DEFAULT 'alice') RETURNS void LANGUAGE sql AS $$
    INSERT INTO run_tracker.runs (run_id, name, created_at, priority, lifecycle, kind, status, user_id)
    VALUES (md5(name)::uuid, name, timestamptz '2020-01-01 00:00:00Z' + seconds * interval '1 second', priority, lifecycle, kind, status, user_id)
$$;

--
-- The order: highest priority, then oldest; what is scheduled for later does not take part
--
SELECT pg_temp.add(name, seconds, priority) FROM (VALUES
    ('old', 10, 0), ('older', 5, 0), ('young', 20, 0), ('high', 30, 7), ('higher', 40, 2147483647), ('low', 1, -3),
    ('lowest', 2, -2147483648), ('also high', 25, 7)) v (name, seconds, priority) \g /dev/null
SELECT pg_temp.preview(100) AS all;
SELECT pg_temp.preview(1) AS one, pg_temp.preview(2) AS two, pg_temp.preview(3) AS three, pg_temp.preview(8) AS eight;
SELECT pg_temp.preview(10000) = pg_temp.preview(8) AS as_many_as_there_are;
-- those for later come last, or not at all, whatever their priority; the time of those that are due is when they were due
INSERT INTO run_tracker.runs (name, priority, scheduled_at, created_at) VALUES
    ('in an hour', 8, now() + interval '1 hour', '2020-01-01 00:00:00Z'), ('some day', 0, 'infinity', '2020-01-01 00:00:00Z'),
    ('in an hour', 2147483647, now() + interval '1 hour', '2020-01-01 00:00:00Z'),
    ('at 7', 0, '2020-01-01 00:00:07Z', '2020-01-01 00:00:00Z'), ('always', 0, '-infinity', '2020-01-01 00:00:00Z'),
    ('at 26', 7, '2020-01-01 00:00:26Z', '2020-01-01 00:00:59Z');
SELECT pg_temp.preview(100) AS all;
-- a change of priority or schedule takes effect at once, in the same transaction, too
BEGIN;
UPDATE run_tracker.runs SET priority = 100 WHERE name = 'low';
UPDATE run_tracker.runs SET scheduled_at = '2020-01-01 00:00:03Z' WHERE name = 'some day';
UPDATE run_tracker.runs SET scheduled_at = now() + interval '1 minute' WHERE name = 'older';
SELECT pg_temp.preview(100) AS all;
ROLLBACK;
-- runs of the same moment come in the order of their ids
BEGIN;
DELETE FROM run_tracker.runs;
INSERT INTO run_tracker.runs (run_id, name, created_at)
SELECT ('e0000000-0000-0000-0000-00000000010' || n)::uuid, n, '2020-01-01' FROM generate_series(0, 9) n ORDER BY n % 4, n;
SELECT pg_temp.preview(100) AS all;
ROLLBACK;

-- a claim moves them, and the next one gets the next
SELECT ordinality AS n, name, priority, status, attempt, max_attempts FROM run_tracker.claim_runs('w1', 3) WITH ORDINALITY;
SELECT name, status, phase, worker, attempt, started_at IS NOT NULL AS started FROM run_tracker.runs WHERE worker = 'w1' ORDER BY priority DESC, name;
SELECT name FROM run_tracker.claim_runs('w2');
SELECT count(*), string_agg(name, ' ' ORDER BY ordinality) AS names FROM run_tracker.claim_runs('w3', 10000) WITH ORDINALITY;
SELECT count(*) FROM run_tracker.claim_runs('w4', 10000);
-- open_runs says who has them; a claim is one transition
SELECT o.phase, o.worker, count(*), bool_and(o.deadline_at IS NOT NULL) AS deadline FROM run_tracker.open_runs o GROUP BY 1, 2 ORDER BY 1, 2;
SELECT from_status, to_status, attempt, count(*) FROM run_tracker.transitions GROUP BY 1, 2, 3;
-- what is active, waiting or finished is never handed out, nor is what was rolled back a claim
UPDATE run_tracker.runs SET status = 'paused' WHERE name = 'old';
UPDATE run_tracker.runs SET status = 'completed' WHERE name = 'older';
UPDATE run_tracker.runs SET status = 'cancelled' WHERE name = 'low';
UPDATE run_tracker.runs SET status = 'timeout' WHERE name = 'high';
SELECT pg_temp.preview(100) AS all;
BEGIN;
UPDATE run_tracker.runs SET status = 'pending' WHERE name = 'older';
SELECT name, attempt FROM run_tracker.claim_runs('w5', 9);
SAVEPOINT s;
UPDATE run_tracker.runs SET status = 'pending' WHERE name IN ('low', 'high');
SELECT name, attempt FROM run_tracker.claim_runs('w5', 9);
ROLLBACK TO s;
SELECT pg_temp.preview(100) AS all;
ROLLBACK;
SELECT name, status, attempt, worker FROM run_tracker.runs WHERE name IN ('older', 'low', 'high') ORDER BY name;
SELECT count(*) AS wrong FROM run_tracker.runs r FULL JOIN run_tracker.open_runs o USING (run_id)
WHERE (r.finished_at IS NULL) IS DISTINCT FROM (o.run_id IS NOT NULL)
   OR o.run_id IS NOT NULL AND (r.phase, r.worker, r.attempt) IS DISTINCT FROM (o.phase, o.worker, o.attempt);
DELETE FROM run_tracker.runs;

--
-- Everything that a worker wants to know comes with the claim
--
SELECT run_tracker.create_run(:a, 'kind', 'name', 'spar', '{"i": 1}', '{"s": 1}', '{"v": 1}', '{"p": 1}', '{"m": 1}', 'alice', 'workflow',
    'session', 'subject', :b, 7, '2020-01-01 00:00:00Z', 3) \g /dev/null
SELECT run_id, attempt, user_id, lifecycle, status, kind, name, priority, max_attempts, workflow_id, session_id, subject_id, parent_run_id,
       inputs, settings, variables, plan, metadata, created_at > '2020-01-01' AS created, scheduled_at AT TIME ZONE 'UTC' AS scheduled_at
FROM run_tracker.claim_runs('Ψ “worker” 1') \gx
SELECT status, worker FROM run_tracker.runs;
DELETE FROM run_tracker.runs;

--
-- Lifecycles and kinds
--
-- the first active status that may follow; a lifecycle that begins active is never in the queue
SELECT pg_temp.add(l, 0, 0, l) FROM unnest('{run,build,spar,iflow,workflow,conversation}'::text[]) l \g /dev/null
SELECT name, status, attempt FROM run_tracker.claim_runs('w', 10) ORDER BY name;
SELECT name, status, worker FROM run_tracker.runs WHERE worker IS NULL ORDER BY name;
DELETE FROM run_tracker.runs;
-- the first in the order of "next", whatever else there is; what no active status may follow is passed over
SELECT run_tracker.define_lifecycle('regress review', '{"initial": "draft", "states": {
    "draft":   {"phase": "queued", "next": ["parked", "ready", "dropped"]},
    "parked":  {"phase": "waiting", "next": ["ready"]},
    "ready":   {"phase": "queued", "next": ["parked", "zealous", "active", "dropped"]},
    "active":  {"phase": "active", "next": ["published", "ready"]},
    "zealous": {"phase": "active", "next": ["published", "ready"]},
    "published": {"phase": "succeeded"}, "dropped": {"phase": "cancelled"}}}');
SELECT pg_temp.add(format('draft %s', n), n, 5, 'regress review') FROM generate_series(1, 20) n \g /dev/null
SELECT pg_temp.add('ready', 0, 0, 'regress review', status => 'ready'), pg_temp.add('parked', 0, 9, 'regress review', status => 'parked'),
       pg_temp.add('ready, too', 0, 5, 'regress review', status => 'ready') \g /dev/null
SELECT name, status FROM run_tracker.claim_runs('w', 2, 'regress review');
SELECT count(*) FROM run_tracker.claim_runs('w', 10);
UPDATE run_tracker.runs SET status = 'ready' WHERE name = 'draft 7';
SELECT name, status FROM run_tracker.claim_runs('w', 10);
SELECT status, count(*), count(worker) AS workers FROM run_tracker.runs GROUP BY status ORDER BY status;
DELETE FROM run_tracker.runs;

-- several lifecycles are one queue, unless one is asked for; so are kinds
SELECT run_tracker.define_lifecycle('régression №1', '{"initial": "warten", "states": {"warten": {"phase": "queued", "next": ["läuft"]},
    "läuft": {"phase": "active", "next": ["fertig"]}, "fertig": {"phase": "succeeded"}}}');
SELECT pg_temp.add(name, seconds, priority, lifecycle, kind) FROM (VALUES
    ('run 1', 1, 0, 'run', 'a'), ('spar 2', 2, 0, 'spar', 'b'), ('build 3', 3, 0, 'build', 'a'), ('run 4', 4, 0, 'run', 'b'),
    ('spar 5', 5, 0, 'spar', 'b'), ('régression 6', 6, 0, 'régression №1', 'ü ✓'), ('run 7', 7, 5, 'run', NULL), ('build 8', 8, 5, 'build', ''),
    ('spar 9', 9, 5, 'spar', 'a'), ('run 10', 10, -1, 'run', 'ü ✓')) v (name, seconds, priority, lifecycle, kind) \g /dev/null
SELECT pg_temp.preview(100) AS all;
SELECT pg_temp.preview(4) AS four, pg_temp.preview(5) AS five;
SELECT pg_temp.preview(100, 'run') AS run, pg_temp.preview(100, 'spar') AS spar, pg_temp.preview(100, 'régression №1') AS "régression",
       pg_temp.preview(100, 'workflow') AS workflow;
SELECT pg_temp.preview(100, kind => 'a') AS a, pg_temp.preview(100, kind => 'b') AS b, pg_temp.preview(100, kind => 'ü ✓') AS "ü ✓",
       pg_temp.preview(100, kind => '') AS empty, pg_temp.preview(100, kind => 'A') AS upper, pg_temp.preview(100, kind => repeat('x', 5000)) AS long;
SELECT pg_temp.preview(100, 'run', 'a') AS run_a, pg_temp.preview(100, 'run', 'b') AS run_b, pg_temp.preview(2, 'spar', 'b') AS spar_b,
       pg_temp.preview(1, 'spar', 'b') AS one, pg_temp.preview(100, 'build', 'ü ✓') AS none;
SELECT pg_temp.preview(2, kind => 'a') AS two_a;
-- a change of kind takes effect at once
BEGIN;
UPDATE run_tracker.runs SET kind = 'a' WHERE name = 'run 7';
UPDATE run_tracker.runs SET kind = NULL WHERE name = 'run 1';
SELECT pg_temp.preview(100, kind => 'a') AS a;
ROLLBACK;

--
-- Bad arguments, and what must not be written
--
CALL pg_temp.try($$SELECT run_tracker.claim_runs(NULL)$$);
CALL pg_temp.try($$SELECT run_tracker.claim_runs('w', NULL)$$);
CALL pg_temp.try($$SELECT run_tracker.claim_runs('w', 0)$$);
CALL pg_temp.try($$SELECT run_tracker.claim_runs('w', -1)$$);
CALL pg_temp.try($$SELECT run_tracker.claim_runs('w', 10001)$$);
CALL pg_temp.try($$SELECT run_tracker.claim_runs('w', 2147483647)$$);
CALL pg_temp.try($$SELECT run_tracker.claim_runs('w', -2147483648)$$);
CALL pg_temp.try($$SELECT run_tracker.claim_runs('w', 1, 'no such')$$);
CALL pg_temp.try($$SELECT run_tracker.claim_runs('w', 1, '')$$);
CALL pg_temp.try($$SELECT run_tracker.claim_runs('w', 1, 'RUN')$$);
CALL pg_temp.try($$SELECT run_tracker.claim_runs('w', 1, 'régression')$$);
-- a transaction that may not write
BEGIN READ ONLY;
CALL pg_temp.try($$SELECT run_tracker.claim_runs('w')$$);
ROLLBACK;
-- limits that are beyond all time must not keep others from their work: they are refused, or mean never
DO $$
BEGIN
    PERFORM run_tracker.create_run(name => 'ages', user_id => 'mallory', priority => 100, max_duration => '178000000 years');
EXCEPTION WHEN check_violation OR invalid_parameter_value OR datetime_field_overflow THEN
    NULL;
END
$$;
DO $$
BEGIN
    PERFORM run_tracker.create_run(name => 'ages', user_id => 'mallory', priority => 100, timeout => '178000000 years');
EXCEPTION WHEN check_violation OR invalid_parameter_value OR datetime_field_overflow THEN
    NULL;
END
$$;
SELECT replace(pg_temp.preview(100), 'ages ', '') AS others;
DELETE FROM run_tracker.runs WHERE name = 'ages';
-- a name that is too long for any column
SET run_tracker.max_payload = '10kB';
CALL pg_temp.try($$SELECT run_tracker.claim_runs(repeat('w', 20000))$$);
RESET run_tracker.max_payload;

-- A trigger of the user's that lets some runs not go, loudly or silently: the others are handed out, as many as were asked for.
UPDATE run_tracker.runs SET session_id = 'stays' WHERE name IN ('run 7', 'spar 2');
CREATE FUNCTION regress_claims_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.session_id = 'stays' AND NEW.worker LIKE 'loud%' THEN
        RAISE EXCEPTION 'not this one' USING ERRCODE = COALESCE(substring(NEW.worker FROM ' (.*)'), 'ZZ001');
    END IF;
    RETURN CASE WHEN NEW.session_id = 'stays' THEN NULL ELSE NEW END;
END
$$;
CREATE TRIGGER refuse BEFORE UPDATE ON run_tracker.runs FOR EACH ROW EXECUTE FUNCTION regress_claims_refuse();
CREATE PROCEDURE pg_temp.claim(worker text, max_runs integer, lifecycle text DEFAULT NULL) LANGUAGE plpgsql AS $$
DECLARE
    names text;
BEGIN
    SELECT string_agg(c.name, ', ' ORDER BY c.ordinality) INTO names
    FROM run_tracker.claim_runs(worker, max_runs, lifecycle) WITH ORDINALITY c;
    RAISE INFO '% gets %', worker, names;
EXCEPTION WHEN OTHERS THEN
    RAISE INFO '% gets %: %', worker, SQLSTATE, SQLERRM;
END
$$;
BEGIN;
CALL pg_temp.claim('loud', 1);
CALL pg_temp.claim('silent', 3);
CALL pg_temp.claim('loud', 100);
-- of those that are left, none can be claimed: an error
CALL pg_temp.claim('loud', 100);
CALL pg_temp.claim('silent', 1, 'run');
CALL pg_temp.claim('loud', 1, 'build');
SELECT name, status, worker FROM run_tracker.runs WHERE worker IS NULL ORDER BY name;
SELECT count(*) AS transitions, count(DISTINCT run_id) AS runs FROM run_tracker.transitions;
ROLLBACK;
-- an error that says nothing of the run is one of the claim
CALL pg_temp.claim('loud 40001', 3);
CALL pg_temp.claim('loud 55P03', 3);
CALL pg_temp.claim('loud 42501', 3);
CALL pg_temp.claim('loud 54000', 3);
SELECT count(worker) AS claimed FROM run_tracker.runs;
-- whoever has too many of them is to know
BEGIN;
INSERT INTO run_tracker.runs (name, user_id, priority, session_id) SELECT 'stays', 'alice', 9, 'stays' FROM generate_series(1, 18);
SET LOCAL client_min_messages = error;
SELECT string_agg(name, ' ' ORDER BY ordinality) AS with_20 FROM run_tracker.claim_runs('loud', 4) WITH ORDINALITY;
ROLLBACK;
BEGIN;
INSERT INTO run_tracker.runs (name, user_id, priority, session_id) SELECT 'stays', 'alice', 9, 'stays' FROM generate_series(1, 21);
SET LOCAL client_min_messages = error;
SELECT string_agg(name, ' ' ORDER BY ordinality) AS with_23 FROM run_tracker.claim_runs('loud', 4) WITH ORDINALITY;
ROLLBACK;
DROP TRIGGER refuse ON run_tracker.runs;
DROP FUNCTION regress_claims_refuse;
-- nothing of all that is left
SELECT count(*) AS pending FROM run_tracker.runs WHERE worker IS NULL;
SELECT pg_temp.preview(100) AS all;

-- indexes that are missing, or others of their name: an error that says what to do, and install() does it
BEGIN;
DROP INDEX run_tracker.open_runs_queue_idx;
CALL pg_temp.try($$SELECT run_tracker.claim_runs('w')$$);
CALL pg_temp.try($$SELECT run_tracker.claim_runs('w', kind => 'a')$$);
CREATE INDEX open_runs_queue_idx ON run_tracker.open_runs (lifecycle, available_at);
CALL pg_temp.try($$SELECT run_tracker.claim_runs('w')$$);
DROP INDEX run_tracker.open_runs_queue_idx, run_tracker.open_runs_kind_queue_idx;
CALL pg_temp.try($$SELECT run_tracker.claim_runs('w', kind => 'a')$$);
SELECT run_tracker.install();
SELECT pg_temp.preview(100) AS all, pg_temp.preview(100, kind => 'b') AS b;
ROLLBACK;
-- a transaction that sees nothing new claims what it sees
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT string_agg(name, ' ' ORDER BY ordinality) AS names FROM run_tracker.claim_runs('w', 2) WITH ORDINALITY;
SELECT string_agg(name, ' ' ORDER BY ordinality) AS names FROM run_tracker.claim_runs('w', 100, kind => 'a') WITH ORDINALITY;
SELECT pg_temp.preview(100) AS others;
ROLLBACK;
DELETE FROM run_tracker.runs;

--
-- Heartbeats
--
SELECT run_tracker.create_run(:a, name => 'A', user_id => 'alice', lifecycle => 'run'), run_tracker.create_run(:b, name => 'B', user_id => 'bob') \g /dev/null
-- A mark that is less than 10 ms old is good enough: waits for that time, and says what the heartbeat does then.
CREATE FUNCTION pg_temp.heartbeat(id uuid, attempt integer DEFAULT NULL) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    since timestamptz := clock_timestamp();
BEGIN
    WHILE clock_timestamp() < since + interval '12 ms' LOOP
        PERFORM pg_sleep(0.001);
    END LOOP;
    RETURN run_tracker.heartbeat_run(id, attempt);
END
$$;
-- whatever the phase, as long as it is open
SELECT pg_temp.heartbeat(:a) AS queued;
SELECT name FROM run_tracker.claim_runs('w');
SELECT last_activity_at AS mark, deadline_at AS deadline FROM run_tracker.open_runs WHERE run_id = :a \gset
SELECT pg_temp.heartbeat(:a) AS active, pg_temp.heartbeat(:a, 1) AS with_attempt;
SELECT last_activity_at > :'mark' AS later, deadline_at = :'deadline' AS same_deadline FROM run_tracker.open_runs WHERE run_id = :a;
-- two at once are one; within 100 tries, the machine lets two calls follow each other in less than 10 ms
DO $$
DECLARE
    first boolean;
    second boolean;
BEGIN
    FOR i IN 1..100 LOOP
        first := pg_temp.heartbeat('e0000000-0000-0000-0000-00000000000a');
        second := run_tracker.heartbeat_run('e0000000-0000-0000-0000-00000000000a');
        EXIT WHEN NOT second;
    END LOOP;
    RAISE INFO 'first %, second %', first, second;
END
$$;
UPDATE run_tracker.runs SET status = 'paused' WHERE run_id = :a;
SELECT pg_temp.heartbeat(:a) AS waiting;
UPDATE run_tracker.runs SET status = 'running' WHERE run_id = :a;
CALL pg_temp.try($$SELECT run_tracker.heartbeat_run(NULL)$$);
CALL pg_temp.try($$SELECT run_tracker.heartbeat_run(NULL, 1)$$);
CALL pg_temp.try($$SELECT run_tracker.heartbeat_run('e0000000-0000-0000-0000-0000000000ff')$$);
CALL pg_temp.try($$SELECT run_tracker.heartbeat_run('e0000000-0000-0000-0000-0000000000ff', 1)$$);
CALL pg_temp.try($$SELECT run_tracker.heartbeat_run('e0000000-0000-0000-0000-00000000000a', 2)$$);
CALL pg_temp.try($$SELECT run_tracker.heartbeat_run('e0000000-0000-0000-0000-00000000000a', 0)$$);
CALL pg_temp.try($$SELECT run_tracker.heartbeat_run('e0000000-0000-0000-0000-00000000000a', -2147483648)$$);
SELECT run_tracker.fail_run(:a) AS failed;
CALL pg_temp.try($$SELECT run_tracker.heartbeat_run('e0000000-0000-0000-0000-00000000000a')$$);
CALL pg_temp.try($$SELECT run_tracker.heartbeat_run('e0000000-0000-0000-0000-00000000000a', 1)$$);
CALL pg_temp.try($$SELECT run_tracker.heartbeat_run('e0000000-0000-0000-0000-00000000000a', 2)$$);
SELECT run_tracker.retry_run(:a) AS retried, run_tracker.start_run(:a, 'w2') AS started;
CALL pg_temp.try($$SELECT run_tracker.heartbeat_run('e0000000-0000-0000-0000-00000000000a', 1)$$);
SELECT pg_temp.heartbeat(:a, 2) AS current;

-- a transaction that may not write
BEGIN READ ONLY;
CALL pg_temp.try($$SELECT pg_temp.heartbeat('e0000000-0000-0000-0000-00000000000a')$$);
ROLLBACK;

-- a heartbeat writes no ledger row, no total and no index entry: 100 of them, each a transaction, are 100 HOT updates
SELECT pg_stat_force_next_flush();
CREATE TEMP TABLE written AS
SELECT c.oid, c.relname, pg_stat_get_tuples_inserted(c.oid) AS ins, pg_stat_get_tuples_updated(c.oid) AS upd,
       pg_stat_get_tuples_hot_updated(c.oid) AS hot, pg_stat_get_tuples_deleted(c.oid) AS del
FROM pg_class c WHERE c.relnamespace = 'run_tracker'::regnamespace AND c.relkind = 'r';
SELECT to_jsonb(r) AS row FROM run_tracker.runs r WHERE run_id = :a \gset
DO $$
BEGIN
    FOR i IN 1..100 LOOP
        IF NOT pg_temp.heartbeat('e0000000-0000-0000-0000-00000000000a', 2) THEN
            RAISE INFO 'heartbeat % was not noted', i;
        END IF;
        COMMIT;
    END LOOP;
END
$$;
SELECT pg_stat_force_next_flush();
SELECT w.relname, pg_stat_get_tuples_inserted(w.oid) - ins AS inserted, pg_stat_get_tuples_updated(w.oid) - upd AS updated,
       pg_stat_get_tuples_hot_updated(w.oid) - hot AS hot_updated, pg_stat_get_tuples_deleted(w.oid) - del AS deleted
FROM written w WHERE (pg_stat_get_tuples_inserted(w.oid), pg_stat_get_tuples_updated(w.oid), pg_stat_get_tuples_deleted(w.oid)) <> (ins, upd, del);
SELECT to_jsonb(r) = :'row'::jsonb AS same_run FROM run_tracker.runs r WHERE run_id = :a;
DROP TABLE written;

--
-- Giving a run back
--
SELECT run_tracker.release_run(:a) AS released, run_tracker.release_run(:a) AS again;
SELECT status, phase, attempt, worker, started_at, scheduled_at FROM run_tracker.runs WHERE run_id = :a;
SELECT phase, worker, attempt, deadline_at FROM run_tracker.open_runs WHERE run_id = :a;
-- with a delay: not handed out before; releasing it again does not change the time
SELECT run_tracker.start_run(:a, 'w3'), run_tracker.release_run(:a, '1 hour', 2) AS released, run_tracker.release_run(:a, '2 hours') AS again;
SELECT attempt, worker, scheduled_at - updated_at BETWEEN interval '1 hour' - interval '1 minute' AND '1 hour' AS in_an_hour FROM run_tracker.runs WHERE run_id = :a;
SELECT pg_temp.preview(10) AS all;
-- without a delay, the time of before remains, which has passed
UPDATE run_tracker.runs SET scheduled_at = '2020-01-01 00:00:00Z' WHERE run_id = :a;
SELECT name, attempt FROM run_tracker.claim_runs('w4');
SELECT run_tracker.release_run(:a, '0') AS released, scheduled_at > '2020-01-01' AS now FROM run_tracker.runs WHERE run_id = :a;
SELECT run_tracker.start_run(:a, 'w5') AS started;
-- the history says so; nothing has failed
SELECT from_status, to_status, attempt, reason FROM run_tracker.transitions WHERE run_id = :a ORDER BY seq DESC LIMIT 3;
-- open tasks go on: they are not the worker's
SELECT run_tracker.create_task(:a, :a, 'kept') \g /dev/null
SELECT run_tracker.release_run(:a) AS released, run_tracker.start_run(:a, 'w6') AS started;
SELECT name, status FROM run_tracker.tasks WHERE run_id = :a;
CALL pg_temp.try($$SELECT run_tracker.release_run(NULL)$$);
CALL pg_temp.try($$SELECT run_tracker.release_run('e0000000-0000-0000-0000-0000000000ff')$$);
CALL pg_temp.try($$SELECT run_tracker.release_run('e0000000-0000-0000-0000-00000000000a', '-1 second')$$);
CALL pg_temp.try($$SELECT run_tracker.release_run('e0000000-0000-0000-0000-00000000000a', '178000000 years')$$);
CALL pg_temp.try($$SELECT run_tracker.release_run('e0000000-0000-0000-0000-00000000000a', NULL, 1)$$);
CALL pg_temp.try($$SELECT run_tracker.release_run('e0000000-0000-0000-0000-00000000000a', '1 second', 3)$$);
UPDATE run_tracker.runs SET status = 'paused' WHERE run_id = :a;
CALL pg_temp.try($$SELECT run_tracker.release_run('e0000000-0000-0000-0000-00000000000a')$$);
SELECT status, attempt, worker FROM run_tracker.runs WHERE run_id = :a;
-- a lifecycle without a way back
SELECT run_tracker.create_run(:c, name => 'C', lifecycle => 'spar', user_id => 'alice'), run_tracker.start_run(:c, 'w7') \g /dev/null
CALL pg_temp.try($$SELECT run_tracker.release_run('e0000000-0000-0000-0000-00000000000c')$$);
SELECT status, attempt, worker FROM run_tracker.runs WHERE run_id = :c;
-- what is finished is not given back: a worker that shuts down must not start anew what it has completed
-- (what the statement does is undone)
CREATE FUNCTION pg_temp.refused(statement text) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE statement;
    RAISE EXCEPTION USING ERRCODE = 'ZZ000';
EXCEPTION
    WHEN SQLSTATE 'ZZ000' THEN
        RETURN false;
    WHEN SQLSTATE 'RT001' OR object_not_in_prerequisite_state THEN
        RETURN true;
END
$$;
SELECT run_tracker.start_run(:a, 'w8') AS started, run_tracker.complete_run(:a, '"done"') AS completed;
SELECT pg_temp.refused($$SELECT run_tracker.release_run('e0000000-0000-0000-0000-00000000000a')$$) AS completed,
       pg_temp.refused($$SELECT run_tracker.release_run('e0000000-0000-0000-0000-00000000000a', '1 second', 2)$$) AS completed_attempt;
UPDATE run_tracker.runs SET status = 'pending' WHERE run_id = :a;
UPDATE run_tracker.runs SET status = 'timeout' WHERE run_id = :a;
SELECT pg_temp.refused($$SELECT run_tracker.release_run('e0000000-0000-0000-0000-00000000000a', NULL, 3)$$) AS timed_out;
SELECT run_tracker.retry_run(:a) AS retried, run_tracker.cancel_run(:a) AS cancelled;
SELECT pg_temp.refused($$SELECT run_tracker.release_run('e0000000-0000-0000-0000-00000000000a')$$) AS cancelled;
SELECT status, attempt FROM run_tracker.runs WHERE run_id = :a;
-- a retry clears the worker, too, and so does a plain UPDATE to the queue; one that names a worker sets it
SELECT run_tracker.fail_run(:b) AS failed, run_tracker.retry_run(:b) AS retried;
UPDATE run_tracker.runs SET worker = 'mine' WHERE run_id = :b RETURNING status, worker;
UPDATE run_tracker.runs SET status = 'running' WHERE run_id = :b RETURNING status, worker;
UPDATE run_tracker.runs SET status = 'pending' WHERE run_id = :b RETURNING status, worker;
UPDATE run_tracker.runs SET status = 'running', worker = 'w9' WHERE run_id = :b RETURNING status, worker;
SELECT run_tracker.fail_run(:b) AS failed;
UPDATE run_tracker.runs SET status = 'pending' WHERE run_id = :b RETURNING status, worker, attempt;
SELECT worker, attempt FROM run_tracker.open_runs WHERE run_id = :b;
DELETE FROM run_tracker.runs;

--
-- Trying again
--
SELECT run_tracker.create_run(:a, name => 'A', user_id => 'alice', max_attempts => 3, retry_base => '1 hour') \g /dev/null
\set show 'SELECT status, phase, attempt, max_attempts, error, error_detail, result, worker, scheduled_at > clock_timestamp() AS later FROM run_tracker.runs WHERE name = ''A'';'
SELECT run_tracker.start_run(:a, 'w') AS started, run_tracker.update_progress(:a, 50, 'half') AS progress, run_tracker.create_task(:a, :a, 'task') = :a AS task;
SELECT run_tracker.fail_run(:a, 'broken', 'at line 1', retry => true) AS failed;
:show
SELECT progress, current_step, started_at, finished_at, duration_ms FROM run_tracker.runs;
SELECT name, status, error FROM run_tracker.tasks;
SELECT pg_temp.preview(10) AS not_yet;
-- the history keeps what happened, the open set has the next attempt
SELECT from_status, to_status, attempt, reason FROM run_tracker.transitions ORDER BY seq;
SELECT o.phase, o.attempt, o.worker, o.available_at = r.scheduled_at AS waits FROM run_tracker.open_runs o JOIN run_tracker.runs r USING (run_id);
-- the worker of the first attempt is fenced off, whatever it wants
SELECT to_jsonb(r) AS row FROM run_tracker.runs r \gset
CALL pg_temp.try($$SELECT run_tracker.fail_run('e0000000-0000-0000-0000-00000000000a', 'late', attempt => 1, retry => true)$$);
CALL pg_temp.try($$SELECT run_tracker.complete_run('e0000000-0000-0000-0000-00000000000a', '"late"', attempt => 1)$$);
CALL pg_temp.try($$SELECT run_tracker.release_run('e0000000-0000-0000-0000-00000000000a', attempt => 1)$$);
CALL pg_temp.try($$SELECT run_tracker.heartbeat_run('e0000000-0000-0000-0000-00000000000a', 1)$$);
SELECT to_jsonb(r) = :'row'::jsonb AS unchanged FROM run_tracker.runs r;
-- a run that fails in the queue comes back, too; the last attempt is final, and so is a failure that does not ask for a retry
SELECT run_tracker.fail_run(:a, 'cannot start', attempt => 2, retry => true) AS failed;
:show
SELECT run_tracker.start_run(:a, attempt => 3) AS started, run_tracker.fail_run(:a, 'broken for good', attempt => 3, retry => true) AS failed;
:show
SELECT run_tracker.fail_run(:a, 'again', retry => true) AS again;
:show
-- with more attempts, failing what has failed already is still no retry; retry_run() is
UPDATE run_tracker.runs SET max_attempts = 9;
SELECT run_tracker.fail_run(:a, 'again', retry => true) AS again, run_tracker.retry_run(:a) AS retried, run_tracker.fail_run(:a, 'final', retry => false) AS final;
:show
SELECT run_tracker.retry_run(:a) AS retried, run_tracker.fail_run(:a, 'final', retry => NULL) AS final;
:show
DELETE FROM run_tracker.runs;
-- lifecycles without a queued status to go back to
SELECT run_tracker.create_run(name => 'A', user_id => 'alice', lifecycle => 'workflow', max_attempts => 3) AS id \gset
SELECT run_tracker.fail_run(:'id', 'broken', retry => true) AS failed;
:show
DELETE FROM run_tracker.runs;
-- one that may only go back from another status
SELECT run_tracker.define_lifecycle('regress final', '{"initial": "waiting", "states": {"waiting": {"phase": "queued", "next": ["working"]},
    "working": {"phase": "active", "next": ["broken", "late"]}, "broken": {"phase": "failed"}, "late": {"phase": "timed_out", "next": ["waiting"]}}}');
SELECT run_tracker.create_run(name => 'A', user_id => 'alice', lifecycle => 'regress final', max_attempts => 3) AS id \gset
SELECT run_tracker.start_run(:'id') AS started, run_tracker.fail_run(:'id', 'broken', retry => true) AS failed;
:show
DELETE FROM run_tracker.runs;

--
-- Backoff: base, doubled with each attempt, up to the cap, of which at most half is taken off
--
SELECT run_tracker.define_lifecycle('regress retry', '{"initial": "waiting", "retry": {"max_attempts": 2000000000, "base": "1 minute", "cap": "1 hour"},
    "states": {"waiting": {"phase": "queued", "next": ["working"]}, "working": {"phase": "active", "next": ["broken"]},
    "broken": {"phase": "failed", "next": ["waiting"]}}}');
CREATE TEMP TABLE backoff (n serial, lifecycle text, attempt integer, retry_base interval, retry_cap interval, longest interval);
INSERT INTO backoff (lifecycle, attempt, retry_base, retry_cap, longest) VALUES
    -- nobody says anything: 1 second, 5 minutes
    ('run', 1, NULL, NULL, '1 s'), ('run', 2, NULL, NULL, '2 s'), ('run', 9, NULL, NULL, '256 s'), ('run', 10, NULL, NULL, '5 min'),
    ('run', 1000000, NULL, NULL, '5 min'),
    -- the lifecycle
    ('regress retry', 1, NULL, NULL, '1 min'), ('regress retry', 3, NULL, NULL, '4 min'), ('regress retry', 7, NULL, NULL, '1 hour'),
    ('regress retry', 1999999999, NULL, NULL, '1 hour'),
    -- the run, in part or in whole
    ('regress retry', 2, '10 min', NULL, '20 min'), ('regress retry', 6, '10 min', NULL, '1 hour'), ('regress retry', 6, NULL, '2 min', '2 min'),
    ('run', 5, '1 hour', '1 day', '16 hours'), ('run', 6, '1 hour', '1 day', '24 hours'), ('run', 1, '1 hour', '1 min', '1 min'),
    ('run', 3, '1 hour', NULL, '5 min'), ('run', 2, '1 day', '1 month', '2 days'), ('run', 9, '1 day', '1 month', '30 days');
SET client_min_messages = warning;
INSERT INTO run_tracker.runs (lifecycle, status, attempt, max_attempts, retry_base, retry_cap, session_id, user_id)
SELECT lifecycle, CASE lifecycle WHEN 'run' THEN 'running' ELSE 'working' END, attempt, 2000000000, retry_base, retry_cap, n, 'alice'
FROM backoff, generate_series(1, 60);
RESET client_min_messages;
SELECT count(run_tracker.fail_run(run_id, retry => true)) FROM run_tracker.runs;
-- The delay began after the failure was written down, and before the way back was: so these bounds are exact.
SELECT b.lifecycle, b.attempt, b.retry_base, b.retry_cap, b.longest, count(*) AS runs, bool_and(r.attempt = b.attempt + 1) AS next_attempt,
       min(r.scheduled_at - t.occurred_at) >= b.longest / 2 AS at_least_half, max(r.scheduled_at - r.updated_at) <= b.longest AS at_most,
       -- of 60, some are in the first and some in the last third of what is left to chance
       min(r.scheduled_at - t.occurred_at) < b.longest * 0.67 AS some_soon, max(r.scheduled_at - t.occurred_at) > b.longest * 0.83 AS some_late
FROM backoff b JOIN run_tracker.runs r ON r.session_id = b.n::text
     JOIN run_tracker.transitions t ON t.run_id = r.run_id AND t.seq = (SELECT min(seq) FROM run_tracker.transitions x WHERE x.run_id = r.run_id)
GROUP BY b.n, b.lifecycle, b.attempt, b.retry_base, b.retry_cap, b.longest ORDER BY b.n;
DROP TABLE backoff;
DELETE FROM run_tracker.runs;
-- a delay of ages is one of a thousand years; one of no time at all is due at once
INSERT INTO run_tracker.runs (name, user_id, status, attempt, max_attempts, retry_base, retry_cap) VALUES
    ('ages', 'alice', 'running', 5, 6, '178000000 years', '178000000 years'), ('at once', 'alice', 'running', 1, 2, '1 microsecond', NULL),
    ('overflow', 'alice', 'running', 2147483647, 2147483647, NULL, NULL);
SELECT name, run_tracker.fail_run(run_id, retry => true) AS failed FROM run_tracker.runs ORDER BY name;
SELECT name, status, attempt, CASE WHEN scheduled_at < clock_timestamp() THEN 'now'
       WHEN scheduled_at BETWEEN now() + interval '499 years' AND now() + interval '1001 years' THEN 'ages' END AS scheduled
FROM run_tracker.runs ORDER BY name;
DELETE FROM run_tracker.runs;

--
-- Settings of retries: of a lifecycle …
--
DO $$
DECLARE
    ok jsonb := '{"initial": "a", "states": {"a": {"phase": "queued", "next": ["b"]}, "b": {"phase": "succeeded"}}}';
    retry jsonb;
    detail text;
BEGIN
    FOREACH retry IN ARRAY ARRAY['null', '{}', '{"max_attempts": 1}', '{"max_attempts": 2147483647, "base": "1 microsecond", "cap": "1000 years"}',
        '{"base": "PT5M"}', '{"cap": "1 day 2 hours"}', '{"base": "1 hour", "cap": "1 second"}',
        '[]', '"3"', '3', 'true', '[{"max_attempts": 3}]', '{"Base": "1 s"}', '{"attempts": 3}', '{"": 1}', '{"мax_attempts": 3}',
        '{"max_attempts": 0}', '{"max_attempts": -1}', '{"max_attempts": 2147483648}', '{"max_attempts": 1e100}', '{"max_attempts": 1.5}',
        '{"max_attempts": 0.5}', '{"max_attempts": "3"}', '{"max_attempts": null}', '{"max_attempts": true}', '{"max_attempts": [3]}',
        '{"max_attempts": {"n": 3}}',
        '{"base": 5}', '{"base": null}', '{"base": ""}', '{"base": "soon"}', '{"base": "0"}', '{"base": "-1 s"}', '{"base": ["1 s"]}',
        '{"base": "1 day -25 hours"}', '{"base": "1 s", "cap": "0 s"}', '{"cap": 5}', '{"cap": null}', '{"cap": "-1 month"}', '{"cap": "ⅷ s"}',
        '{"cap": {"seconds": 1}}', jsonb_build_object('cap', repeat('9', 100))]::jsonb[]
    LOOP
        BEGIN
            PERFORM run_tracker.define_lifecycle('regress settings', ok || jsonb_build_object('retry', retry));
            RAISE INFO '% → ok', retry;
        EXCEPTION WHEN OTHERS THEN
            GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL;
            RAISE INFO '% → % %', left(retry::text, 40), SQLSTATE, detail;
        END;
    END LOOP;
END
$$;
CALL pg_temp.try($$SELECT run_tracker.define_lifecycle('regress settings', '{"initial": "a", "retry": [], "states": {"a": {"phase": "queued", "next": ["b"]}, "b": {"phase": "failed"}}}')$$);
-- its number of attempts is the default for new runs
SELECT run_tracker.define_lifecycle('regress settings', '{"initial": "a", "retry": {"max_attempts": 3}, "states": {"a": {"phase": "queued", "next": ["b"]}, "b": {"phase": "failed"}}}');
SELECT run_tracker.create_run(:a, name => 'three', lifecycle => 'regress settings', user_id => 'alice'),
       run_tracker.create_run(name => 'own', lifecycle => 'regress settings', user_id => 'alice', max_attempts => 7),
       run_tracker.create_run(name => 'one', user_id => 'alice') \g /dev/null
INSERT INTO run_tracker.runs (name, lifecycle, user_id) VALUES ('three, too', 'regress settings', 'alice');
SELECT run_tracker.define_lifecycle('regress settings', '{"initial": "a", "retry": {"max_attempts": 5}, "states": {"a": {"phase": "queued", "next": ["b"]}, "b": {"phase": "failed"}}}');
INSERT INTO run_tracker.runs (name, lifecycle, user_id, max_attempts) VALUES ('five', 'regress settings', 'alice', NULL), ('two', 'regress settings', 'alice', 2);
SELECT name, max_attempts FROM run_tracker.runs ORDER BY name;

-- … and of a run
CALL pg_temp.try($$SELECT run_tracker.create_run(retry_base => '0')$$);
CALL pg_temp.try($$SELECT run_tracker.create_run(retry_cap => '-1 second')$$);
CALL pg_temp.try($$SELECT run_tracker.create_run(max_attempts => 0)$$);
CALL pg_temp.try($$INSERT INTO run_tracker.runs (user_id, retry_cap) VALUES ('alice', '0')$$);
CALL pg_temp.try($$INSERT INTO run_tracker.runs (user_id, retry_base) VALUES ('alice', '1 day -25 hours')$$);
CALL pg_temp.try($$UPDATE run_tracker.runs SET retry_base = '-1 microsecond'$$);
CALL pg_temp.try($$UPDATE run_tracker.runs SET retry_base = '1 s', retry_cap = '0 s'$$);
CALL pg_temp.try($$UPDATE run_tracker.runs SET max_attempts = -5$$);
CALL pg_temp.try($$UPDATE run_tracker.runs SET retry_base = '1 s', retry_cap = '2 s' WHERE name = 'own'$$);
CALL pg_temp.try($$UPDATE run_tracker.runs SET retry_base = NULL WHERE name = 'own'$$);
SELECT name, retry_base, retry_cap FROM run_tracker.runs WHERE name = 'own' OR retry_base IS NOT NULL OR retry_cap IS NOT NULL;
DELETE FROM run_tracker.runs;

--
-- Privileges: claims are for services; heartbeats and giving back also for clients, each for his own runs
--
SELECT pg_temp.add(name, n, lifecycle => 'run', user_id => user_id) FROM (VALUES ('of alice', 1, 'alice'), ('of bob', 2, 'bob'), ('of nobody', 3, '')) v (name, n, user_id) \g /dev/null
UPDATE run_tracker.runs SET status = 'running', worker = 'w';
SELECT run_id AS of_alice FROM run_tracker.runs WHERE user_id = 'alice' \gset
SELECT run_id AS of_bob FROM run_tracker.runs WHERE user_id = 'bob' \gset
SELECT run_id AS of_nobody FROM run_tracker.runs WHERE user_id = '' \gset
-- What an error says, without the id of the run.
CREATE PROCEDURE pg_temp.try_of(owner text, statement text) LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE statement;
    RAISE INFO '%: ok', owner;
EXCEPTION WHEN OTHERS THEN
    RAISE INFO '%: %: %', owner, SQLSTATE, SQLERRM;
END
$$;
SET request.jwt.claims = '{"sub": "alice"}';
SET ROLE regress_claims_client;
SELECT pg_temp.heartbeat(:'of_alice', 1) AS mine;
CALL pg_temp.try_of('bob', format('SELECT run_tracker.heartbeat_run(%L)', :'of_bob'));
CALL pg_temp.try_of('bob', format('SELECT run_tracker.heartbeat_run(%L, 7)', :'of_bob'));
CALL pg_temp.try_of('bob', format('SELECT run_tracker.release_run(%L)', :'of_bob'));
CALL pg_temp.try_of('bob', format('SELECT run_tracker.release_run(%L, %L, 7)', :'of_bob', '1 second'));
CALL pg_temp.try_of('nobody', format('SELECT run_tracker.heartbeat_run(%L)', :'of_nobody'));
CALL pg_temp.try_of('nobody', format('SELECT run_tracker.release_run(%L)', :'of_nobody'));
SELECT run_tracker.release_run(:'of_alice', '0') AS mine, run_tracker.start_run(:'of_alice', attempt => 1) AS started;
-- trying again is for clients, too
UPDATE run_tracker.runs SET max_attempts = 2, retry_base = '1 microsecond' WHERE run_id = :'of_alice';
SELECT run_tracker.fail_run(:'of_alice', 'broken', attempt => 1, retry => true) AS failed;
SELECT status, attempt, worker FROM run_tracker.runs;
CALL pg_temp.try_of('bob', format('SELECT run_tracker.fail_run(%L, retry => true)', :'of_bob'));
CALL pg_temp.try($$SELECT run_tracker.claim_runs('mine')$$);
-- without an identity there is nothing that is his
SET request.jwt.claims = '';
CALL pg_temp.try_of('alice', format('SELECT run_tracker.heartbeat_run(%L)', :'of_alice'));
CALL pg_temp.try_of('nobody', format('SELECT run_tracker.heartbeat_run(%L)', :'of_nobody'));
CALL pg_temp.try_of('nobody', format('SELECT run_tracker.release_run(%L)', :'of_nobody'));
SET request.jwt.claims = '{"sub": "alice"}';
SET ROLE regress_claims_reader;
CALL pg_temp.try($$SELECT run_tracker.claim_runs('mine')$$);
CALL pg_temp.try_of('alice', format('SELECT run_tracker.heartbeat_run(%L)', :'of_alice'));
CALL pg_temp.try_of('alice', format('SELECT run_tracker.release_run(%L)', :'of_alice'));
SET request.jwt.claims = '';
SET ROLE regress_claims_service;
SELECT pg_temp.heartbeat(:'of_bob') AS of_bob, pg_temp.heartbeat(:'of_nobody', 1) AS of_nobody, run_tracker.release_run(:'of_nobody') AS released;
SELECT run_tracker.release_run(:'of_bob') AS released;
SELECT name, user_id, status FROM run_tracker.claim_runs('service', 10);
RESET ROLE;
SELECT name, worker FROM run_tracker.runs ORDER BY name;
SELECT run_tracker.release_run(run_id) FROM run_tracker.runs \g /dev/null
UPDATE run_tracker.runs SET scheduled_at = NULL;
-- a role that is given claims, but is no service, claims its own runs only
BEGIN;
GRANT EXECUTE ON FUNCTION run_tracker.claim_runs TO regress_claims_client, regress_claims_reader;
SET LOCAL request.jwt.claims = '{"sub": "bob"}';
SET LOCAL ROLE regress_claims_client;
SELECT name, user_id, status FROM run_tracker.claim_runs('bob', 10);
SET LOCAL request.jwt.claims = '{"sub": "carol"}';
SELECT count(*) FROM run_tracker.claim_runs('carol', 10);
SET LOCAL request.jwt.claims = '';
SELECT count(*) FROM run_tracker.claim_runs('nobody', 10);
SET LOCAL request.jwt.claims = '{"sub": "alice"}';
SET LOCAL ROLE regress_claims_reader;
CALL pg_temp.try($$SELECT run_tracker.claim_runs('reader')$$);
RESET ROLE;
SELECT name, status, worker FROM run_tracker.runs ORDER BY name;
ROLLBACK;
-- tables that belong to a role that is no superuser, with row level security for it, too
BEGIN;
SELECT run_tracker.set_owner('regress_claims_owner') \g /dev/null
ALTER TABLE run_tracker.open_runs FORCE ROW LEVEL SECURITY;
SET LOCAL ROLE regress_claims_service;
SELECT name, user_id, status FROM run_tracker.claim_runs('service', 10);
SELECT pg_temp.heartbeat(:'of_bob', 1) AS of_bob, run_tracker.release_run(:'of_bob', '0') AS released;
SET LOCAL ROLE regress_claims_client;
SET LOCAL request.jwt.claims = '{"sub": "alice"}';
SELECT pg_temp.heartbeat(:'of_alice', 2) AS of_alice;
CALL pg_temp.try_of('bob', format('SELECT run_tracker.heartbeat_run(%L)', :'of_bob'));
SELECT run_tracker.release_run(:'of_alice', '0') AS of_alice;
ROLLBACK;
BEGIN;
SELECT run_tracker.set_owner('regress_claims_owner') \g /dev/null
SET LOCAL ROLE regress_claims_owner;
SELECT name, user_id, status FROM run_tracker.claim_runs('owner', 10);
SELECT count(run_tracker.release_run(run_id)) FROM run_tracker.runs;
ROLLBACK;

RESET request.jwt.claims;
DELETE FROM run_tracker.runs;
SELECT run_tracker.drop_lifecycle(name) FROM run_tracker.lifecycles WHERE name LIKE 'r_gress%';
DROP OWNED BY regress_claims_client, regress_claims_reader, regress_claims_service;
DROP ROLE regress_claims_client, regress_claims_reader, regress_claims_service, regress_claims_owner;
