--
-- Runs whose time is up: which deadline a run has and what moves it, how a run ends, which ones go back to the queue,
-- that no error of one run keeps others alive; and who is stuck.  The argument "now" of expire_runs() is the clock.
--
\getenv abs_srcdir PG_ABS_SRCDIR
\set common :abs_srcdir '/sql/common.psql'
\i :common

CREATE ROLE regress_timeouts_client;
CREATE ROLE regress_timeouts_reader;
CREATE ROLE regress_timeouts_service;
CREATE ROLE regress_timeouts_owner;
SELECT run_tracker.grant_client('regress_timeouts_client'), run_tracker.grant_reader('regress_timeouts_reader'),
       run_tracker.grant_service('regress_timeouts_service') \g /dev/null

\set a '''d0000000-0000-0000-0000-00000000000a'''
\set b '''d0000000-0000-0000-0000-00000000000b'''
\set c '''d0000000-0000-0000-0000-00000000000c'''
\set task '''d1000000-0000-0000-0000-000000000001'''

CREATE FUNCTION pg_temp.id(run_name text) RETURNS uuid LANGUAGE sql AS $$
    SELECT run_id FROM run_tracker.runs WHERE name = run_name
$$;
CREATE FUNCTION pg_temp.deadline(run_name text) RETURNS timestamptz LANGUAGE sql AS $$
    SELECT deadline_at FROM run_tracker.open_runs WHERE run_id = pg_temp.id(run_name)
$$;
-- When the run was last active, as views show it, and in full.
CREATE FUNCTION pg_temp.last_activity(run_name text) RETURNS timestamptz LANGUAGE sql AS $$
    SELECT GREATEST(r.updated_at, o.last_activity_at, (SELECT max(t.last_activity_at) FROM run_tracker.run_totals t WHERE t.run_id = r.run_id))
    FROM run_tracker.runs r LEFT JOIN run_tracker.open_runs o USING (run_id) WHERE r.name = run_name
$$;
CREATE FUNCTION pg_temp.exact_activity(run_name text) RETURNS timestamptz LANGUAGE sql AS $$
    SELECT GREATEST(pg_temp.last_activity(run_name),
                    (SELECT max(t.updated_at) FROM run_tracker.tasks t WHERE t.run_id = pg_temp.id(run_name)),
                    (SELECT max(l.created_at) FROM run_tracker.logs l WHERE l.run_id = pg_temp.id(run_name)))
$$;
\set show 'SELECT name, status, phase, attempt, error, regexp_replace(error_detail, '' at .*'', '' at …'') AS error_detail, worker, finished_at IS NOT NULL AS finished, (SELECT count(*) FROM run_tracker.open_runs o WHERE o.run_id = r.run_id) AS open, (SELECT count(*) FROM run_tracker.check_totals()) AS wrong FROM run_tracker.runs r ORDER BY name;'

-- nothing is due where nothing is
SELECT run_tracker.expire_runs(now => '2100-01-01');

--
-- The idle timeout
--
-- of each open status of the built-in lifecycles
INSERT INTO run_tracker.runs (lifecycle, status, user_id)
SELECT l.name, s.key, 'alice' FROM run_tracker.lifecycles l, jsonb_each(l.definition -> 'states') s WHERE s.value ->> 'phase' IN ('queued', 'active', 'waiting');
SELECT r.lifecycle, r.status, r.phase, o.deadline_at - o.last_activity_at AS timeout FROM run_tracker.runs r JOIN run_tracker.open_runs o USING (run_id)
ORDER BY 1, 3 DESC, 2;
DELETE FROM run_tracker.runs;
-- of a run, which replaces that of the status, and of a status, which replaces that of the lifecycle, even by none
SELECT run_tracker.define_lifecycle('régression', '{"initial": "wartet", "timeout": "60 seconds", "states": {
    "wartet": {"phase": "queued", "timeout": "20 hours", "next": ["läuft", "eilt", "ruht", "hängt"]},
    "läuft":  {"phase": "active", "next": ["eilt", "ruht", "hängt", "fertig", "verloren"]},
    "eilt":   {"phase": "active", "timeout": "2.5 seconds", "next": ["läuft", "ruht", "fertig"]},
    "ruht":   {"phase": "active", "timeout": null, "next": ["läuft", "eilt", "fertig"]},
    "hängt":  {"phase": "waiting", "next": ["läuft", "fertig"]},
    "fertig": {"phase": "succeeded", "next": ["verloren"]}, "verloren": {"phase": "failed"}}}');
INSERT INTO run_tracker.runs (lifecycle, status, user_id, timeout)
SELECT 'régression', s, 'alice', t FROM unnest('{wartet,läuft,eilt,ruht,hängt}'::text[]) s, unnest('{NULL,30 seconds}'::interval[]) t;
SELECT r.status, r.phase, r.timeout AS own, o.deadline_at - o.last_activity_at AS timeout FROM run_tracker.runs r JOIN run_tracker.open_runs o USING (run_id)
ORDER BY 1, 3 DESC;
DELETE FROM run_tracker.runs;
-- the deadline moves with the status, and with the timeout
SELECT run_tracker.create_run(:a, name => 'A', lifecycle => 'régression', user_id => 'alice') \g /dev/null
CREATE FUNCTION pg_temp.timeout_after(statement text) RETURNS interval LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE statement;
    RETURN (SELECT deadline_at - last_activity_at FROM run_tracker.open_runs WHERE run_id = pg_temp.id('A'));
END
$$;
SELECT statement, pg_temp.timeout_after('UPDATE run_tracker.runs SET ' || statement) AS timeout FROM (VALUES
    (1, $$status = 'läuft'$$), (2, $$status = 'eilt'$$), (3, $$status = 'ruht'$$), (4, $$status = 'läuft', timeout = '50 hours'$$), (5, $$status = 'hängt'$$),
    (6, $$status = 'läuft'$$), (7, $$timeout = '1 microsecond'$$), (8, $$timeout = NULL$$)) v (n, statement) ORDER BY n;

-- one microsecond before the deadline it lives; then it ends, and the error says which timeout it was, of what, after how long
SELECT pg_temp.deadline('A') AS deadline, pg_temp.last_activity('A') AS last \gset
SELECT run_tracker.expire_runs(now => :'deadline'::timestamptz - interval '1 microsecond') AS before;
:show
SELECT run_tracker.expire_runs(now => :'deadline') AS at_deadline, run_tracker.expire_runs(now => :'deadline') AS again;
:show
SELECT error_detail LIKE '% at ' || :'last'::timestamptz || '.' AS says_when, duration_ms BETWEEN 0 AND 60000 AS duration FROM run_tracker.runs;
SELECT from_status, to_status, attempt, actor = CURRENT_USER AS actor, reason FROM run_tracker.transitions ORDER BY seq DESC LIMIT 1;
DELETE FROM run_tracker.runs;

-- the error in each lifecycle: what has no status for timeouts fails
INSERT INTO run_tracker.runs (name, lifecycle, status, user_id, timeout)
SELECT l.name || ' ' || s.key, l.name, s.key, 'alice', CASE WHEN s.key = 'analyzing' THEN interval '25 hours 1.5 seconds' END
FROM run_tracker.lifecycles l, jsonb_each(l.definition -> 'states') s
WHERE s.value ->> 'phase' IN ('queued', 'active') AND l.name IN ('run', 'spar', 'iflow', 'workflow', 'build');
SELECT run_tracker.expire_runs(now => deadline_at) FROM run_tracker.open_runs WHERE deadline_at IS NOT NULL ORDER BY deadline_at \g /dev/null
:show
DELETE FROM run_tracker.runs;

--
-- The maximum duration
--
INSERT INTO run_tracker.runs (name, status, user_id, max_duration, timeout) VALUES
    ('A', 'running', 'alice', '5 seconds', '1 hour'), ('B', 'running', 'alice', '1 hour', '5 seconds'), ('C', 'running', 'alice', '5 seconds', NULL),
    ('D', 'pending', 'alice', '5 seconds', NULL);
UPDATE run_tracker.runs SET status = 'paused' WHERE name = 'C';
SELECT r.name, o.deadline_at = r.started_at + interval '5 seconds' AS after_start, o.deadline_at = o.last_activity_at + interval '5 seconds' AS idle, o.deadline_at IS NULL AS never
FROM run_tracker.runs r JOIN run_tracker.open_runs o USING (run_id) ORDER BY r.name;
-- it counts from the start, whatever happens: even the last moment's activity does not help
SELECT count(run_tracker.add_message(run_id, 'user', 'alive')) FROM run_tracker.runs WHERE name IN ('A', 'C');
SELECT pg_temp.deadline('A') AS deadline \gset
SELECT run_tracker.expire_runs(now => :'deadline'::timestamptz - interval '1 microsecond') AS before, run_tracker.expire_runs(now => :'deadline') AS at_deadline;
:show
SELECT error_detail LIKE '%began at ' || started_at || '.' AS says_when FROM run_tracker.runs WHERE name = 'A';
-- activity cannot move a deadline beyond it: B is re-armed up to the hour
UPDATE run_tracker.runs SET timeout = '59 minutes', max_duration = '60 minutes' WHERE name = 'B';
SELECT pg_temp.deadline('B') = pg_temp.last_activity('B') + interval '59 minutes' AS idle;
UPDATE run_tracker.runs SET timeout = '61 minutes' WHERE name = 'B';
SELECT pg_temp.deadline('B') = started_at + interval '60 minutes' AS capped FROM run_tracker.runs WHERE name = 'B';
SELECT count(run_tracker.add_message(pg_temp.id('B'), 'user', 'alive')), run_tracker.expire_runs(now => pg_temp.deadline('B'));
:show
-- what waits for a human is not hurried, and begins to be when it goes on; a new attempt has its time for itself
UPDATE run_tracker.runs SET status = 'running' WHERE name = 'C';
SELECT pg_temp.deadline('C') = started_at + interval '5 seconds' AS capped FROM run_tracker.runs WHERE name = 'C';
UPDATE run_tracker.runs SET status = 'pending' WHERE name IN ('A', 'C');
SELECT name, pg_temp.deadline(name) AS deadline FROM run_tracker.runs WHERE status = 'pending' ORDER BY name;
UPDATE run_tracker.runs SET status = 'running' WHERE name IN ('A', 'C', 'D');
SELECT name, attempt, pg_temp.deadline(name) = started_at + interval '5 seconds' AS capped, started_at > :'deadline'::timestamptz - interval '5 seconds' AS anew
FROM run_tracker.runs WHERE status = 'running' ORDER BY name;
DELETE FROM run_tracker.runs;
-- a lifecycle that knows neither timeouts nor a status for them
SELECT run_tracker.create_run(name => 'A', lifecycle => 'conversation', user_id => 'alice', max_duration => '26 hours') \g /dev/null
SELECT run_tracker.expire_runs(now => pg_temp.deadline('A'));
:show
DELETE FROM run_tracker.runs;

--
-- What waits has no deadline, and what is scheduled has none before its time
--
INSERT INTO run_tracker.runs (name, lifecycle, status, user_id, timeout, max_duration, scheduled_at) VALUES
    ('paused', 'run', 'paused', 'alice', '1 second', '1 second', NULL), ('documentation', 'iflow', 'documentation_ready', 'alice', '1 second', '1 second', NULL),
    ('scheduled', 'spar', 'pending', 'alice', NULL, NULL, '2099-01-01 00:00:00Z'), ('was scheduled', 'spar', 'pending', 'alice', NULL, NULL, '2020-01-01 00:00:00Z'),
    ('never', 'spar', 'pending', 'alice', NULL, NULL, 'infinity');
SELECT name, pg_temp.deadline(name) AT TIME ZONE 'UTC' AS deadline FROM run_tracker.runs WHERE name <> 'was scheduled' ORDER BY name;
SELECT run_tracker.expire_runs(now => '2099-01-01 00:00:59.999999Z');
SELECT run_tracker.expire_runs(now => '2099-01-01 00:01:00Z');
SELECT name, status, regexp_replace(error, '\d{3,}\.\d+', 'N') AS error FROM run_tracker.runs ORDER BY name;
SELECT error_detail = format('The idle timeout is @ 1 min; the last activity was at %s.', scheduled_at) AS since_scheduled FROM run_tracker.runs WHERE name = 'scheduled';
DELETE FROM run_tracker.runs;

--
-- Activity
--
-- Whatever happens to a run, or to what belongs to it, moves its deadline, but not before that comes up.  What a statement
-- does to the deadline of run A, when that comes up; then everything is undone.
SELECT run_tracker.create_run(:a, name => 'A', user_id => 'alice'), run_tracker.create_run(:b, name => 'B', user_id => 'alice'),
       run_tracker.create_task(:a, :task, 'first'), run_tracker.add_message(:a, 'user', 'first'), run_tracker.add_log(:a, 'first') \g /dev/null
CREATE FUNCTION pg_temp.effect(statement text, idle interval) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    before timestamptz;
    ended bigint;
BEGIN
    UPDATE run_tracker.runs SET status = 'running' WHERE name = 'A';
    -- it has been idle for a while
    SET LOCAL session_replication_role = replica;
    UPDATE run_tracker.open_runs SET last_activity_at = last_activity_at - idle, deadline_at = deadline_at - idle;
    UPDATE run_tracker.runs SET updated_at = updated_at - idle;
    UPDATE run_tracker.run_totals SET last_activity_at = last_activity_at - idle;
    UPDATE run_tracker.tasks SET updated_at = updated_at - idle;
    UPDATE run_tracker.logs SET created_at = created_at - idle;
    SET LOCAL session_replication_role = origin;
    before := pg_temp.deadline('A');
    EXECUTE statement;
    IF pg_temp.deadline('A') <> before THEN
        RAISE EXCEPTION USING ERRCODE = 'ZZ000', MESSAGE = 'moved at once';
    END IF;
    ended := run_tracker.expire_runs(now => before);
    RAISE EXCEPTION USING ERRCODE = 'ZZ000', MESSAGE =
        CASE WHEN ended = 1 THEN 'none: ' || (SELECT status FROM run_tracker.runs WHERE name = 'A')
             WHEN pg_temp.deadline('A') > before AND pg_temp.deadline('A') = pg_temp.last_activity('A') + interval '60 seconds' THEN 'alive'
             ELSE 'unknown' END;
EXCEPTION WHEN SQLSTATE 'ZZ000' THEN
    RETURN SQLERRM;
END
$$;
SELECT statement, pg_temp.effect(replace(replace(statement, 'RUN', 'd0000000-0000-0000-0000-00000000000a'), 'TASK', 'd1000000-0000-0000-0000-000000000001'), '20 seconds')
FROM unnest(ARRAY[
    -- tasks
    'SELECT run_tracker.create_task(''RUN'')',
    'INSERT INTO run_tracker.tasks (run_id, status) VALUES (''RUN'', ''completed'')',
    'SELECT run_tracker.start_task(''TASK'')',
    'UPDATE run_tracker.tasks SET response = ''so far'' WHERE task_id = ''TASK''',
    'UPDATE run_tracker.tasks SET metadata = ''{}'' WHERE task_id = ''TASK''',
    'SELECT run_tracker.complete_task(''TASK'', input_tokens => 1)',
    'SELECT run_tracker.fail_task(''TASK'')',
    'SELECT run_tracker.cancel_task(''TASK'')',
    -- messages and logs
    'SELECT run_tracker.add_message(''RUN'', ''user'', ''x'')',
    'SELECT run_tracker.add_log(''RUN'', ''x'', ''ERROR'')',
    'SELECT run_tracker.add_log(''RUN'', ''x'', ''DEBUG'')',
    -- the run itself
    'SELECT run_tracker.update_progress(''RUN'', 10)',
    'SELECT run_tracker.update_progress(''RUN'', current_step => ''parse'')',
    'UPDATE run_tracker.runs SET metadata = ''{"a": 1}'' WHERE run_id = ''RUN''',
    'SELECT run_tracker.heartbeat_run(''RUN'')',
    'SELECT run_tracker.heartbeat_run(''RUN'', 1)',
    -- what the open set shows is written there at once
    'UPDATE run_tracker.runs SET priority = 7 WHERE run_id = ''RUN''',
    'SELECT run_tracker.transition_run(''RUN'', ''paused''), run_tracker.start_run(''RUN'')',
    -- no activity of this run
    'SELECT 1',
    'SELECT run_tracker.start_run(''RUN'')',
    'SELECT run_tracker.run_messages(''RUN'')',
    'SELECT * FROM run_tracker.run_summary',
    'SELECT run_tracker.add_log(run_id, ''x'') FROM run_tracker.runs WHERE name = ''B''']) WITH ORDINALITY AS s (statement, n) ORDER BY n;

-- Marks in the open set come a few times per timeout.  What has just happened is seen all the same, since it leaves its time
-- elsewhere, and a heartbeat is always noted.
SELECT statement, pg_temp.effect('SELECT pg_sleep(0.012); ' || replace(replace(statement, 'RUN', 'd0000000-0000-0000-0000-00000000000a'), 'TASK', 'd1000000-0000-0000-0000-000000000001'), '0')
FROM unnest(ARRAY['SELECT run_tracker.create_task(''RUN'')', 'SELECT run_tracker.start_task(''TASK'')', 'UPDATE run_tracker.tasks SET response = ''x''',
    'SELECT run_tracker.complete_task(''TASK'')', 'SELECT run_tracker.add_message(''RUN'', ''user'', ''x'')', 'SELECT run_tracker.add_log(''RUN'', ''x'')',
    'SELECT run_tracker.update_progress(''RUN'', 10)', 'UPDATE run_tracker.runs SET metadata = ''{}'' WHERE run_id = ''RUN''',
    'SELECT run_tracker.heartbeat_run(''RUN'')']) WITH ORDINALITY AS s (statement, n) ORDER BY n;
UPDATE run_tracker.runs SET status = 'running', timeout = '24 hours' WHERE name = 'A';
SELECT deadline_at AS deadline, last_activity_at AS mark FROM run_tracker.open_runs WHERE run_id = :a \gset
SELECT count(run_tracker.add_message(:a, 'user', 'x')) FROM generate_series(1, 20);
SELECT deadline_at = :'deadline' AS same_deadline, pg_temp.last_activity('A') > :'mark' AS active FROM run_tracker.open_runs WHERE run_id = :a;
SELECT run_tracker.expire_runs(now => :'deadline');
SELECT deadline_at > :'deadline' AS moved, deadline_at = pg_temp.last_activity('A') + interval '24 hours' AS exact FROM run_tracker.open_runs WHERE run_id = :a;
-- the run ends a day after that activity
SELECT run_tracker.expire_runs(now => pg_temp.deadline('A') - interval '1 microsecond') AS before, run_tracker.expire_runs(now => pg_temp.deadline('A')) AS at_deadline;
SELECT name, status, error FROM run_tracker.runs ORDER BY name;
DELETE FROM run_tracker.runs;
-- the pass goes by the lifecycle as it is then
SELECT run_tracker.create_run(:a, name => 'A', lifecycle => 'régression', user_id => 'alice'), run_tracker.start_run(:a) \g /dev/null
SELECT pg_temp.deadline('A') AS deadline \gset
SELECT run_tracker.define_lifecycle('régression', (SELECT definition || '{"timeout": "90 seconds"}' FROM run_tracker.lifecycles WHERE name = 'régression'));
SELECT run_tracker.expire_runs(now => :'deadline') AS before, run_tracker.expire_runs(now => :'deadline'::timestamptz + interval '30 seconds') AS at_deadline;
SELECT status, error FROM run_tracker.runs;
SELECT run_tracker.define_lifecycle('régression', (SELECT definition || '{"timeout": "60 seconds"}' FROM run_tracker.lifecycles WHERE name = 'régression'));
DELETE FROM run_tracker.runs;
-- what the transaction has changed itself does not stand in its way
BEGIN;
SELECT run_tracker.create_run(:a, name => 'A', user_id => 'alice'), run_tracker.create_task(:a, :task), run_tracker.start_run(:a) \g /dev/null
UPDATE run_tracker.runs SET kind = 'k';
UPDATE run_tracker.tasks SET response = 'x';
SELECT pg_sleep(0.012) \g /dev/null
SELECT run_tracker.heartbeat_run(:a), (SELECT count(*) FROM run_tracker.runs r JOIN run_tracker.open_runs o USING (run_id) JOIN run_tracker.tasks t USING (run_id)) AS rows;
SELECT run_tracker.expire_runs(now => pg_temp.last_activity('A') + interval '60 seconds');
SELECT r.status, t.status AS task FROM run_tracker.runs r JOIN run_tracker.tasks t USING (run_id);
ROLLBACK;
-- runs that were active do not keep one pass from those that were not, however few are to be ended
INSERT INTO run_tracker.runs (name, status, user_id) SELECT 'active', 'running', 'alice' FROM generate_series(1, 100);
INSERT INTO run_tracker.runs (name, status, user_id) VALUES ('idle', 'running', 'alice');
SELECT count(run_tracker.add_message(run_id, 'user', 'x')) FROM run_tracker.runs WHERE name = 'active';
SELECT run_tracker.expire_runs(1, pg_temp.deadline('idle'));
SELECT name, status, count(*) FROM run_tracker.runs GROUP BY 1, 2 ORDER BY 1, 2;
DELETE FROM run_tracker.runs;

--
-- What belongs to a run that times out
--
SELECT run_tracker.define_lifecycle('regress call', '{"initial": "calling", "states": {"calling": {"phase": "active", "next": ["answered", "lost"]},
    "answered": {"phase": "succeeded"}, "lost": {"phase": "failed"}}}');
SELECT run_tracker.create_run(:a, name => 'A', user_id => 'alice'), run_tracker.start_run(:a, 'w') \g /dev/null
INSERT INTO run_tracker.tasks (run_id, name, lifecycle, status, response, error, input_tokens, cost) VALUES
    (:a, '1 pending', 'task', 'pending', NULL, NULL, NULL, NULL), (:a, '2 running', 'task', 'running', NULL, 'its own', 10, 0.5),
    (:a, '3 streaming', 'task', 'streaming', 'the answer so f', NULL, 20, 1.5), (:a, '4 completed', 'task', 'completed', 'an answer', NULL, 40, 2),
    (:a, '5 failed', 'task', 'failed', NULL, 'broken', NULL, NULL), (:a, '6 calling', 'regress call', 'calling', 'hel', NULL, NULL, NULL);
SELECT run_tracker.add_message(:a, 'user', 'hello') AS message;
SELECT run_tracker.expire_runs(now => pg_temp.last_activity('A') + interval '60 seconds');
:show
SELECT name, status, phase, response, error, finished_at IS NOT NULL AS finished, input_tokens FROM run_tracker.tasks ORDER BY name;
SELECT task_count, failed_task_count, open_task_count, input_tokens, total_cost, message_count FROM run_tracker.run_summary;
-- the worker comes too late with them, and with more
CALL pg_temp.try($$SELECT run_tracker.create_task('d0000000-0000-0000-0000-00000000000a', 'd1000000-0000-0000-0000-000000000001')$$);
CALL pg_temp.try($$SELECT run_tracker.heartbeat_run('d0000000-0000-0000-0000-00000000000a', 1)$$);
CALL pg_temp.try($$SELECT run_tracker.update_progress('d0000000-0000-0000-0000-00000000000a', 99)$$);
-- a late answer is kept where the lifecycle of the task has a place for it
SELECT count(run_tracker.complete_task(task_id, 'the answer so far was wrong', 25, 5)) FROM run_tracker.tasks WHERE name = '3 streaming';
SELECT status, response, error, input_tokens FROM run_tracker.tasks WHERE name = '3 streaming';
-- and so is a late result of the run
SELECT run_tracker.complete_run(:a, '"late"', attempt => 1) AS completed;
:show
SELECT result FROM run_tracker.runs;
SELECT from_status, to_status, attempt, reason FROM run_tracker.transitions ORDER BY seq;
DELETE FROM run_tracker.runs;
-- where the lifecycle has none, a late result is refused, and changes nothing
SELECT run_tracker.create_run(:a, name => 'A', lifecycle => 'régression', user_id => 'alice'), run_tracker.start_run(:a, 'w') \g /dev/null
SELECT run_tracker.expire_runs(now => pg_temp.deadline('A'));
CALL pg_temp.try($$SELECT run_tracker.complete_run('d0000000-0000-0000-0000-00000000000a', '"late"')$$);
CALL pg_temp.try($$UPDATE run_tracker.runs SET status = 'fertig', result = '"late"'$$);
:show
DELETE FROM run_tracker.runs;

--
-- A status from which no end is listed that would do
--
-- "eilt" leads to success only: time ends it all the same, as failed, but nobody else can do that
SELECT run_tracker.create_run(:a, name => 'A', lifecycle => 'régression', user_id => 'alice') \g /dev/null
UPDATE run_tracker.runs SET status = 'eilt';
CALL pg_temp.try($$UPDATE run_tracker.runs SET status = 'verloren'$$);
CALL pg_temp.try($$SELECT run_tracker.fail_run('d0000000-0000-0000-0000-00000000000a')$$);
SELECT run_tracker.expire_runs(now => pg_temp.deadline('A'));
:show
SELECT from_status, to_status FROM run_tracker.transitions ORDER BY seq;
DELETE FROM run_tracker.runs;
-- nor can a client while the tracker does it: a trigger that runs meanwhile gets no further than others
CREATE FUNCTION regress_timeouts_meddle() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.name = 'A' AND NEW.status = 'verloren' THEN
        UPDATE run_tracker.runs SET status = 'verloren' WHERE name = 'B';
    END IF;
    RETURN NEW;
EXCEPTION WHEN OTHERS THEN
    RAISE INFO '%: %', SQLSTATE, SQLERRM;
    RETURN NEW;
END
$$;
CREATE TRIGGER meddle BEFORE UPDATE ON run_tracker.runs FOR EACH ROW EXECUTE FUNCTION regress_timeouts_meddle();
INSERT INTO run_tracker.runs (name, lifecycle, status, user_id, timeout) VALUES ('A', 'régression', 'eilt', 'alice', NULL), ('B', 'régression', 'eilt', 'alice', '1 hour');
SELECT run_tracker.expire_runs(now => pg_temp.deadline('A'));
SELECT name, status FROM run_tracker.runs ORDER BY name;
DROP TRIGGER meddle ON run_tracker.runs;
DROP FUNCTION regress_timeouts_meddle;
DELETE FROM run_tracker.runs;
-- without any failure, a run is cancelled
SELECT run_tracker.define_lifecycle('regress mild', '{"initial": "going", "states": {"going": {"phase": "active", "next": ["gone"]}, "gone": {"phase": "succeeded", "next": ["away"]}, "away": {"phase": "cancelled"}}}');
SELECT run_tracker.create_run(name => 'A', lifecycle => 'regress mild', user_id => 'alice', max_duration => '1 second') \g /dev/null
SELECT run_tracker.expire_runs(now => pg_temp.deadline('A'));
:show
DELETE FROM run_tracker.runs;

--
-- An expired claim goes back to the queue while there are attempts left
--
INSERT INTO run_tracker.runs (run_id, name, user_id, max_attempts, retry_base, retry_cap) VALUES (:a, 'A', 'alice', 3, '10 minutes', '15 minutes');
SELECT name, attempt FROM run_tracker.claim_runs('w1');
SELECT run_tracker.create_task(:a, :task, 'call'), run_tracker.update_progress(:a, 50, 'half') \g /dev/null
UPDATE run_tracker.tasks SET status = 'streaming', response = 'so f' WHERE run_id = :a;
SELECT pg_temp.exact_activity('A') + interval '60 seconds' AS deadline \gset
SELECT run_tracker.expire_runs(now => :'deadline');
:show
SELECT progress, current_step, started_at, finished_at, duration_ms, scheduled_at - :'deadline'::timestamptz BETWEEN '5 minutes' AND '10 minutes' AS delayed FROM run_tracker.runs;
SELECT status, response, error FROM run_tracker.tasks;
SELECT from_status, to_status, attempt, reason FROM run_tracker.transitions ORDER BY seq;
SELECT o.phase, o.attempt, o.worker, o.deadline_at, o.available_at = r.scheduled_at AS waits FROM run_tracker.open_runs o JOIN run_tracker.runs r USING (run_id);
-- the worker of the expired claim is told so, and changes nothing
SELECT to_jsonb(r) AS row FROM run_tracker.runs r \gset
DO $$
DECLARE
    call text;
BEGIN
    FOREACH call IN ARRAY ARRAY['heartbeat_run(RUN, 1)', 'complete_run(RUN, ''"late"'', attempt => 1)', 'fail_run(RUN, ''late'', attempt => 1)',
        'fail_run(RUN, ''late'', attempt => 1, retry => true)', 'cancel_run(RUN, attempt => 1)', 'release_run(RUN, attempt => 1)', 'retry_run(RUN, attempt => 1)',
        'start_run(RUN, attempt => 1)', 'update_progress(RUN, 99, attempt => 1)', 'transition_run(RUN, ''completed'', attempt => 1)'] LOOP
        BEGIN
            EXECUTE 'SELECT run_tracker.' || replace(call, 'RUN', '''d0000000-0000-0000-0000-00000000000a''');
            RAISE INFO '% → ok', call;
        EXCEPTION WHEN OTHERS THEN
            RAISE INFO '% → %: %', call, SQLSTATE, SQLERRM;
        END;
    END LOOP;
END
$$;
SELECT to_jsonb(r) = :'row'::jsonb AS unchanged FROM run_tracker.runs r;
-- it is handed out when its time has come, and has a deadline again
SELECT count(*) AS too_early FROM run_tracker.claim_runs('w2');
UPDATE run_tracker.runs SET scheduled_at = '2020-01-01 00:00:00Z';
SELECT name, attempt, status FROM run_tracker.claim_runs('w2');
SELECT pg_temp.deadline('A') AS deadline \gset
SELECT run_tracker.expire_runs(now => :'deadline');
SELECT attempt, worker, scheduled_at - :'deadline'::timestamptz BETWEEN '7.5 minutes' AND '15 minutes' AS delayed FROM run_tracker.runs;
-- the last attempt is final
SELECT run_tracker.start_run(:a, 'w3', 3) AS started;
SELECT run_tracker.expire_runs(now => pg_temp.deadline('A'));
:show
SELECT from_status, to_status, attempt, reason FROM run_tracker.transitions ORDER BY seq OFFSET 3;
DELETE FROM run_tracker.runs;
-- which ones do: claims that expire for either reason, if a queued status may follow; not what has timed out in the queue
INSERT INTO run_tracker.runs (name, lifecycle, status, user_id, max_attempts, max_duration) VALUES
    ('1 idle', 'run', 'running', 'alice', 2, NULL), ('2 too long', 'run', 'running', 'alice', 2, '1 second'), ('3 exhausted', 'run', 'running', 'alice', 1, NULL),
    ('4 spar', 'spar', 'processing', 'alice', 2, NULL), ('5 in the queue', 'spar', 'pending', 'alice', 2, NULL), ('6 failed', 'iflow', 'analyzing', 'alice', 2, NULL),
    ('7 no queue', 'workflow', 'running', 'alice', 2, NULL), ('8 no way back', 'régression', 'läuft', 'alice', 2, NULL), ('9 waits', 'run', 'running', 'alice', 2, '1 second');
UPDATE run_tracker.runs SET status = 'paused' WHERE name = '9 waits';
SELECT now() + interval '1 day' AS now \gset
SELECT run_tracker.expire_runs(now => :'now');
SELECT name, status, attempt, max_attempts, regexp_replace(error, '\d+\.\d+', 'N') AS error, scheduled_at - :'now' BETWEEN '0.5 seconds' AND '1 second' AS scheduled,
       (SELECT string_agg(t.to_status, ' ' ORDER BY t.seq) FROM run_tracker.transitions t WHERE t.run_id = r.run_id) AS history
FROM run_tracker.runs r ORDER BY name;
-- a queue with a timeout begins to count when the run is due again
SELECT o.deadline_at = r.scheduled_at + interval '60 seconds' AS deadline FROM run_tracker.open_runs o JOIN run_tracker.runs r USING (run_id) WHERE r.name = '4 spar';
DELETE FROM run_tracker.runs;

--
-- How many, in which order; and bad arguments
--
INSERT INTO run_tracker.runs (name, status, user_id, timeout, max_attempts)
SELECT n, 'running', 'alice', n * interval '1 minute', 1 + n % 2 FROM generate_series(1, 9) n;
SELECT run_tracker.expire_runs(2, now() + interval '1 hour');
SELECT string_agg(name, ' ' ORDER BY name) AS running FROM run_tracker.runs WHERE status = 'running';
SELECT run_tracker.expire_runs(max_runs => 1, now => now() + interval '1 hour'), run_tracker.expire_runs(3, now() + interval '1 hour');
SELECT status, string_agg(name, ' ' ORDER BY name) AS runs FROM run_tracker.runs GROUP BY status ORDER BY status;
SELECT run_tracker.expire_runs(2147483647, now() + interval '1 hour'), run_tracker.expire_runs(2147483647, now() + interval '1 hour');
-- without now it is the wall clock, and nothing is due yet
INSERT INTO run_tracker.runs (name, status, user_id) VALUES ('later', 'running', 'alice');
SELECT run_tracker.expire_runs(), run_tracker.expire_runs(5), run_tracker.expire_runs(5, NULL), run_tracker.expire_runs(now => '2000-01-01'),
       run_tracker.expire_runs(now => '4713-01-01 BC');
UPDATE run_tracker.runs SET timeout = '1 microsecond' WHERE name = 'later';
SELECT run_tracker.expire_runs();
SELECT name, status FROM run_tracker.runs WHERE name = 'later';
CALL pg_temp.try($$SELECT run_tracker.expire_runs(NULL)$$);
CALL pg_temp.try($$SELECT run_tracker.expire_runs(0)$$);
CALL pg_temp.try($$SELECT run_tracker.expire_runs(-1)$$);
CALL pg_temp.try($$SELECT run_tracker.expire_runs(-2147483648, NULL)$$);
CALL pg_temp.try($$SELECT run_tracker.expire_runs(NULL, NULL)$$);
-- more than one batch at a time
INSERT INTO run_tracker.runs (name, status, user_id, max_attempts) SELECT 'many', 'running', 'alice', 1 + n % 2 FROM generate_series(1, 1300) n;
SELECT run_tracker.expire_runs(700, now() + interval '1 hour'), run_tracker.expire_runs(now => now() + interval '1 hour');
SELECT status, attempt, count(*) FROM run_tracker.runs WHERE name = 'many' GROUP BY 1, 2 ORDER BY 1;
SELECT count(*) AS wrong FROM run_tracker.check_totals();
DELETE FROM run_tracker.runs;
-- the ends of time: whatever is due then, no row holds a moment that nobody can read
INSERT INTO run_tracker.runs (name, status, user_id, max_attempts) VALUES ('A', 'running', 'alice', 1), ('B', 'running', 'alice', 3);
CREATE FUNCTION pg_temp.readable(moment timestamptz) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    BEGIN
        PERFORM run_tracker.expire_runs(now => moment);
    EXCEPTION WHEN invalid_parameter_value OR datetime_field_overflow THEN
        NULL;
    END;
    PERFORM to_jsonb(r), to_jsonb(o) FROM run_tracker.runs r LEFT JOIN run_tracker.open_runs o USING (run_id);
    RAISE EXCEPTION USING ERRCODE = 'ZZ000';
EXCEPTION
    WHEN SQLSTATE 'ZZ000' THEN
        RETURN true;
    WHEN datetime_field_overflow THEN
        RETURN false;
END
$$;
SELECT pg_temp.readable('-infinity') AS "-infinity", pg_temp.readable('4714-11-24 00:00:00Z BC') AS first, pg_temp.readable('294276-12-31 23:59:59.999999Z') AS last,
       pg_temp.readable('infinity') AS infinity;
CALL pg_temp.try($$SELECT run_tracker.expire_runs(now => '-infinity')$$);
CALL pg_temp.try($$SELECT run_tracker.expire_runs(now => 'infinity')$$);
CALL pg_temp.try($$SELECT run_tracker.expire_runs(now => '294276-12-31 23:59:59.999999Z')$$);
CALL pg_temp.try(format('SELECT run_tracker.expire_runs(now => %L)', now() + interval '1003 years'));
SELECT run_tracker.expire_runs(now => '4714-11-24 00:00:00Z BC') AS first;
SELECT name, status FROM run_tracker.runs ORDER BY name;
-- a transaction that may not write; others that see nothing new
BEGIN READ ONLY;
CALL pg_temp.try($$SELECT run_tracker.expire_runs(now => '2099-01-01')$$);
ROLLBACK;
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT run_tracker.expire_runs(now => now() + interval '1 hour');
SELECT name, status, attempt FROM run_tracker.runs ORDER BY name;
ROLLBACK;
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT run_tracker.expire_runs(now => now() + interval '1 hour');
SELECT name, status, attempt FROM run_tracker.runs ORDER BY name;
ROLLBACK;
SELECT name, status FROM run_tracker.runs ORDER BY name;
DELETE FROM run_tracker.runs;

--
-- Privileges: services only, for the runs of all
--
INSERT INTO run_tracker.runs (name, status, user_id) VALUES ('A', 'running', 'alice'), ('B', 'running', 'bob'), ('N', 'running', '');
SET request.jwt.claims = '{"sub": "alice"}';
SET ROLE regress_timeouts_client;
CALL pg_temp.try($$SELECT run_tracker.expire_runs()$$);
SET ROLE regress_timeouts_reader;
CALL pg_temp.try($$SELECT run_tracker.expire_runs()$$);
RESET ROLE;
-- also if somebody has given them the function
BEGIN;
GRANT EXECUTE ON FUNCTION run_tracker.expire_runs TO regress_timeouts_client;
SET LOCAL ROLE regress_timeouts_client;
CALL pg_temp.try($$SELECT run_tracker.expire_runs(now => '2099-01-01')$$);
ROLLBACK;
SELECT name, status FROM run_tracker.runs ORDER BY name;
RESET request.jwt.claims;
BEGIN;
SET LOCAL ROLE regress_timeouts_service;
SELECT run_tracker.expire_runs(now => now() + interval '1 hour');
SELECT r.name, r.status, t.actor FROM run_tracker.runs r JOIN run_tracker.transitions t USING (run_id) ORDER BY r.name;
ROLLBACK;
-- tables of a role that is no superuser: a superuser who calls it lends his rights to no trigger of that role
BEGIN;
SELECT run_tracker.set_owner('regress_timeouts_owner') \g /dev/null
CREATE TABLE regress_timeouts_seen (name text, who text, super boolean);
GRANT INSERT ON regress_timeouts_seen TO PUBLIC;
CREATE FUNCTION regress_timeouts_look() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO public.regress_timeouts_seen VALUES (NEW.name, CURRENT_USER, (SELECT rolsuper FROM pg_roles WHERE rolname = CURRENT_USER));
    RETURN NULL;
END
$$;
CREATE TRIGGER look AFTER UPDATE ON run_tracker.runs FOR EACH ROW EXECUTE FUNCTION regress_timeouts_look();
SAVEPOINT s;
SELECT run_tracker.expire_runs(now => now() + interval '1 hour');
SELECT * FROM regress_timeouts_seen ORDER BY name;
ROLLBACK TO s;
SET LOCAL ROLE regress_timeouts_owner;
SELECT run_tracker.expire_runs(1, now() + interval '1 hour');
SET LOCAL ROLE regress_timeouts_service;
SELECT run_tracker.expire_runs(1, now() + interval '1 hour');
RESET ROLE;
SELECT who, super FROM regress_timeouts_seen ORDER BY who;
SELECT CURRENT_USER = SESSION_USER AS myself_again, count(*) AS wrong FROM run_tracker.check_totals();
ROLLBACK;
DELETE FROM run_tracker.runs;

--
-- Errors of the user's triggers
--
INSERT INTO run_tracker.runs (run_id, name, status, user_id, max_attempts) VALUES
    (:a, 'A', 'running', 'alice', 1), (:b, 'B', 'running', 'alice', 1), (:c, 'C', 'running', 'alice', 2);
INSERT INTO run_tracker.tasks (run_id, name) VALUES (:a, 'of A'), (:b, 'of B'), (:c, 'of C');
SELECT now() + interval '1 hour' AS now \gset
CREATE TABLE regress_timeouts_how (how text);
INSERT INTO regress_timeouts_how VALUES ('');
CREATE FUNCTION regress_timeouts_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    how text := (SELECT h.how FROM public.regress_timeouts_how h);
BEGIN
    IF NEW.name = 'B' AND NEW.status = 'timeout' THEN
        IF how = 'null' THEN
            RETURN NULL;
        ELSIF how = 'failed' THEN
            NEW.status := 'failed';
        ELSIF how NOT IN ('', 'pending') THEN
            RAISE EXCEPTION 'B stays' USING ERRCODE = how;
        END IF;
    ELSIF NEW.name = 'C' AND NEW.status = 'pending' AND how = 'pending' THEN
        RAISE EXCEPTION 'C does not come back';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER refuse BEFORE UPDATE ON run_tracker.runs FOR EACH ROW EXECUTE FUNCTION regress_timeouts_refuse();
\set result 'SELECT r.name, r.status, r.attempt, t.status AS task, o.deadline_at - :''now''::timestamptz AS put_off, (SELECT count(*) FROM run_tracker.check_totals()) AS wrong FROM run_tracker.runs r JOIN run_tracker.tasks t USING (run_id) LEFT JOIN run_tracker.open_runs o ON o.run_id = r.run_id AND r.status = ''running'' ORDER BY r.name;'
\set due 'SELECT r.name, r.status, o.deadline_at <= :''now'' AS due FROM run_tracker.runs r LEFT JOIN run_tracker.open_runs o USING (run_id) ORDER BY r.name;'

-- one run cannot be ended: a warning, the others end, it is put off for a minute
BEGIN;
UPDATE regress_timeouts_how SET how = 'P0001';
SELECT run_tracker.expire_runs(now => :'now');
:result
-- which is not an error again before that time, nor afterwards, if the trigger is gone
SELECT run_tracker.expire_runs(now => :'now') AS again, run_tracker.expire_runs(now => :'now'::timestamptz + interval '59.999999 seconds') AS before;
SELECT run_tracker.expire_runs(now => :'now'::timestamptz + interval '1 minute') AS still;
DROP TRIGGER refuse ON run_tracker.runs;
SELECT run_tracker.expire_runs(now => :'now'::timestamptz + interval '2 minutes') AS gone;
:result
ROLLBACK;
-- a trigger that suppresses the update in silence
BEGIN;
UPDATE regress_timeouts_how SET how = 'null';
SELECT run_tracker.expire_runs(now => :'now');
:result
UPDATE regress_timeouts_how SET how = '';
SELECT run_tracker.expire_runs(now => :'now'::timestamptz + interval '1 minute');
:result
ROLLBACK;
-- one that fails when the run goes back to the queue: then it has not ended either
BEGIN;
UPDATE regress_timeouts_how SET how = 'pending';
SELECT run_tracker.expire_runs(now => :'now');
:result
ROLLBACK;
-- another way out that the trigger chooses
BEGIN;
UPDATE regress_timeouts_how SET how = 'failed';
SELECT run_tracker.expire_runs(now => :'now');
:result
ROLLBACK;
-- what says nothing of the run, such as a lock that cannot be had, is no reason to put it off, and no warning
BEGIN;
UPDATE regress_timeouts_how SET how = '55P03';
SELECT run_tracker.expire_runs(now => :'now');
:due
UPDATE regress_timeouts_how SET how = '40001';
SELECT run_tracker.expire_runs(now => :'now');
:due
ROLLBACK;
-- who cancels the call, cancels it
BEGIN;
UPDATE regress_timeouts_how SET how = '57014';
SELECT run_tracker.expire_runs(now => :'now');
ROLLBACK;
:due
-- all of them fail
BEGIN;
ALTER TABLE run_tracker.tasks ADD CONSTRAINT regress_timeouts_never CHECK (status <> 'timeout');
SELECT run_tracker.expire_runs(now => :'now');
:result
ROLLBACK;
-- a trigger on the open set, which keeps a run even from being put off
BEGIN;
CREATE FUNCTION regress_timeouts_keep() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.run_id = 'd0000000-0000-0000-0000-00000000000b' THEN
        RAISE EXCEPTION 'B stays in the open set';
    END IF;
    RETURN COALESCE(NEW, OLD);
END
$$;
CREATE TRIGGER keep BEFORE UPDATE OR DELETE ON run_tracker.open_runs FOR EACH ROW EXECUTE FUNCTION regress_timeouts_keep();
SET LOCAL client_min_messages = error;
SELECT run_tracker.expire_runs(now => :'now');
:due
ROLLBACK;
SELECT run_tracker.expire_runs(now => :'now');
:result
DROP TRIGGER refuse ON run_tracker.runs;
DROP FUNCTION regress_timeouts_refuse;
DROP TABLE regress_timeouts_how;
DELETE FROM run_tracker.runs;

--
-- Rows of the open set that should not be there, and its index
--
-- a run that was deleted past the triggers, one that ended past them, and one that is only there in the open set
INSERT INTO run_tracker.runs (name, status, user_id) VALUES ('deleted', 'running', 'alice'), ('ended', 'running', 'alice'), ('running', 'running', 'alice');
SET session_replication_role = replica;
DELETE FROM run_tracker.runs WHERE name = 'deleted';
UPDATE run_tracker.runs SET status = 'completed', phase = 'succeeded', finished_at = now() WHERE name = 'ended';
INSERT INTO run_tracker.open_runs (run_id, user_id, lifecycle, phase, priority, available_at, deadline_at, last_activity_at, attempt)
VALUES ('d0000000-0000-0000-0000-0000000000ff', 'nobody', 'no such', 'active', 0, '2020-01-01', '2020-01-01', '2020-01-01', 1);
RESET session_replication_role;
SELECT run_tracker.expire_runs(now => now() + interval '1 hour');
SELECT r.name, r.status FROM run_tracker.open_runs o LEFT JOIN run_tracker.runs r USING (run_id);
SELECT name, status FROM run_tracker.runs ORDER BY name;
DELETE FROM run_tracker.runs;
SELECT count(*) FROM run_tracker.open_runs;
DELETE FROM run_tracker.run_totals;

-- without its index there is no pass, with another one of its name neither, and install() puts it right
SELECT run_tracker.create_run(:a, name => 'A', lifecycle => 'workflow', user_id => 'alice') \g /dev/null
DROP INDEX run_tracker.open_runs_deadline_at_idx;
CALL pg_temp.try($$SELECT run_tracker.expire_runs(now => '2099-01-01')$$);
CREATE INDEX open_runs_deadline_at_idx ON run_tracker.open_runs (available_at);
CALL pg_temp.try($$SELECT run_tracker.expire_runs(now => '2099-01-01')$$);
DROP INDEX run_tracker.open_runs_deadline_at_idx;
CREATE INDEX open_runs_deadline_at_idx ON run_tracker.runs (created_at);
CALL pg_temp.try($$SELECT run_tracker.expire_runs(now => '2099-01-01')$$);
DROP INDEX run_tracker.open_runs_deadline_at_idx;
SELECT run_tracker.install();
SELECT run_tracker.expire_runs(now => '2099-01-01');
SELECT name, status FROM run_tracker.runs;
DELETE FROM run_tracker.runs;

--
-- stuck_runs(): what has been in its status for too long
--
SELECT clock_timestamp() AS moment \gset
INSERT INTO run_tracker.runs (name, user_id, status, worker, kind, created_at, started_at, scheduled_at) VALUES
    ('active 3 h', 'alice', 'running', 'w', 'k', :'moment'::timestamptz - interval '4 hours', :'moment'::timestamptz - interval '3 hours', NULL),
    ('active 1 min', 'alice', 'running', 'w', NULL, :'moment'::timestamptz - interval '2 hours', :'moment'::timestamptz - interval '1 minute', NULL),
    ('queued 2 h', 'bob', 'pending', NULL, NULL, :'moment'::timestamptz - interval '2 hours', NULL, NULL),
    ('queued 0', 'bob', 'pending', NULL, NULL, NULL, NULL, NULL),
    ('was scheduled 1 h ago', 'bob', 'pending', NULL, NULL, :'moment'::timestamptz - interval '5 hours', NULL, :'moment'::timestamptz - interval '1 hour'),
    ('is scheduled', 'bob', 'pending', NULL, NULL, :'moment'::timestamptz - interval '5 hours', NULL, :'moment'::timestamptz + interval '1 hour'),
    ('never', 'bob', 'pending', NULL, NULL, :'moment'::timestamptz - interval '5 hours', NULL, 'infinity'),
    ('waits', 'alice', 'paused', NULL, NULL, :'moment'::timestamptz - interval '6 hours', NULL, NULL),
    ('finished', 'alice', 'failed', NULL, NULL, :'moment'::timestamptz - interval '7 hours', NULL, NULL),
    ('moved', 'alice', 'pending', NULL, NULL, :'moment'::timestamptz - interval '8 hours', NULL, NULL);
UPDATE run_tracker.runs SET status = 'running' WHERE name = 'moved';
\set stuck 'SELECT ordinality AS n, name, user_id, lifecycle, kind, status, phase, attempt, worker, :''moment''::timestamptz - since AS stuck, stuck_duration >= :''moment''::timestamptz - since AND stuck_duration <= clock_timestamp() - since AS duration, deadline_at = pg_temp.deadline(name) AS deadline, last_activity_at = pg_temp.last_activity(name) AS last FROM run_tracker.stuck_runs'
:stuck () WITH ORDINALITY;
:stuck ('2.5 hours') WITH ORDINALITY;
SELECT string_agg(name, ', ' ORDER BY ordinality) AS all FROM run_tracker.stuck_runs('0') WITH ORDINALITY;
SELECT count(*) FROM run_tracker.stuck_runs(older_than => '100 years');
-- activity does not make it less stuck, neither does what happens to its tasks
SELECT count(run_tracker.add_log(pg_temp.id('active 3 h'), 'x')), count(run_tracker.create_task(pg_temp.id('active 3 h'), :task));
SET run_tracker.task_transitions = on;
SELECT run_tracker.start_task(:task);
RESET run_tracker.task_transitions;
:stuck ('2.5 hours') WITH ORDINALITY;
CALL pg_temp.try($$SELECT run_tracker.stuck_runs(NULL)$$);
CALL pg_temp.try($$SELECT run_tracker.stuck_runs('-1 microsecond')$$);
CALL pg_temp.try($$SELECT run_tracker.stuck_runs('1 day -25 hours')$$);
-- everybody sees his own
SET request.jwt.claims = '{"sub": "alice"}';
SET ROLE regress_timeouts_client;
SELECT name, user_id FROM run_tracker.stuck_runs();
SET ROLE regress_timeouts_reader;
SELECT name, user_id FROM run_tracker.stuck_runs();
SET request.jwt.claims = '{"sub": "carol"}';
SELECT count(*) FROM run_tracker.stuck_runs('0');
SET request.jwt.claims = '';
SELECT count(*) FROM run_tracker.stuck_runs('0');
SET ROLE regress_timeouts_service;
SELECT name, user_id FROM run_tracker.stuck_runs();

--
-- active_runs: what is under way
--
SELECT name, user_id, status, phase, worker, attempt, elapsed_ms BETWEEN 0 AND 7 * 3600000 AS elapsed, last_activity_at = pg_temp.last_activity(name) AS last,
       deadline_at = pg_temp.deadline(name) AS deadline, task_count, open_task_count, total_tokens, total_cost
FROM run_tracker.active_runs ORDER BY name;
RESET ROLE;
SELECT run_tracker.complete_task(:task, input_tokens => 3, output_tokens => 4, cost => 0.5), run_tracker.create_task(pg_temp.id('active 3 h')) IS NOT NULL AS more;
UPDATE run_tracker.runs SET session_id = 'session', progress = 30, current_step = 'step' WHERE name = 'active 3 h';
SELECT session_id, progress, current_step, max_attempts, started_at = :'moment'::timestamptz - interval '3 hours' AS started, elapsed_ms >= 3 * 3600000 AS elapsed,
       last_activity_at = pg_temp.last_activity(name) AS last, task_count, open_task_count, total_tokens, total_cost
FROM run_tracker.active_runs WHERE name = 'active 3 h';
SET request.jwt.claims = '{"sub": "bob"}';
SET ROLE regress_timeouts_client;
SELECT count(*) FROM run_tracker.active_runs;
SET request.jwt.claims = '{"sub": "alice"}';
SELECT name FROM run_tracker.active_runs ORDER BY name;
RESET ROLE;
RESET request.jwt.claims;
DELETE FROM run_tracker.runs;

--
-- The background worker is not there: nobody is woken, and there is nothing to see
--
SELECT run_tracker.wake_worker(), (SELECT count(*) FROM run_tracker.worker_status) AS worker_status, (SELECT count(*) FROM run_tracker.worker_state()) AS worker_state;
SET ROLE regress_timeouts_service;
SELECT run_tracker.wake_worker(), (SELECT count(*) FROM run_tracker.worker_status) AS worker_status;
SET ROLE regress_timeouts_client;
CALL pg_temp.try($$SELECT run_tracker.wake_worker()$$);
CALL pg_temp.try($$SELECT * FROM run_tracker.worker_state()$$);
CALL pg_temp.try($$SELECT * FROM run_tracker.worker_status$$);
SET ROLE regress_timeouts_reader;
CALL pg_temp.try($$SELECT run_tracker.wake_worker()$$);
CALL pg_temp.try($$SELECT * FROM run_tracker.worker_status$$);
RESET ROLE;

SELECT run_tracker.drop_lifecycle(name) FROM run_tracker.lifecycles WHERE name LIKE 'r_gress%';
DROP OWNED BY regress_timeouts_client, regress_timeouts_reader, regress_timeouts_service;
DROP ROLE regress_timeouts_client, regress_timeouts_reader, regress_timeouts_service, regress_timeouts_owner;
