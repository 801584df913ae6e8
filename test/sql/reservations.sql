--
-- Reservations: what calls that are under way have set aside of a quota, and how that ends. (Who wins when several ask at
-- the same time: the specs.)
--
\getenv abs_srcdir PG_ABS_SRCDIR
\set common :abs_srcdir '/sql/common.psql'
\i :common

CREATE ROLE regress_reservations_client;
CREATE ROLE regress_reservations_service;
SELECT run_tracker.grant_client('regress_reservations_client');
SELECT run_tracker.grant_service('regress_reservations_service');
-- other tests have left their own
DELETE FROM run_tracker.runs;
DELETE FROM run_tracker.usage_records;
TRUNCATE run_tracker.stat_deltas, run_tracker.stat_totals, run_tracker.reservations;
-- errors name the end of the window, which is another one every day
CREATE PROCEDURE pg_temp.reserve(arguments text) LANGUAGE plpgsql AS $$
DECLARE
    message text; detail text; hint text;
BEGIN
    EXECUTE 'SELECT run_tracker.reserve_usage(' || arguments || ')';
    RAISE INFO 'ok';
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
    RAISE INFO '%: %', SQLSTATE, message USING
        DETAIL = regexp_replace(detail, 'reset at: .*', CASE WHEN substring(detail, 'reset at: (.*)\.')::timestamptz = (SELECT day_ends_at FROM run_tracker.usage_sums('a'))
                                                              AND message LIKE '%daily%' THEN 'reset at: tomorrow'
                                                             WHEN substring(detail, 'reset at: (.*)\.')::timestamptz = (SELECT month_ends_at FROM run_tracker.usage_sums('a'))
                                                              AND message LIKE '%monthly%' THEN 'reset at: next month' ELSE 'reset at: wrong' END), HINT = hint;
END
$$;
\set sums 'SELECT monthly_tokens AS tokens, monthly_cost AS cost, daily_requests AS requests, reserved_tokens AS r_tokens, reserved_cost AS r_cost, reserved_requests AS r_requests FROM run_tracker.usage_sums(''alice'');'
INSERT INTO run_tracker.tiers (name, monthly_tokens, daily_requests, monthly_cost) VALUES ('small', 100, 10, 1.5);
SELECT run_tracker.ensure_account('alice', 'small');

--
-- Reserve, settle, release
--
SELECT run_tracker.reserve_usage('alice', 60, 0.75) AS r1 \gset
SELECT user_id, state, tokens, cost, requests, task_id, expires_at - created_at AS ttl, ended_at, reservation_id = :'r1' AS same, substr(reservation_id::text, 15, 1) AS version
FROM run_tracker.reservations;
:sums
CALL pg_temp.reserve($$'alice', 41$$);
CALL pg_temp.reserve($$'alice', 40, 0.750000000000000000000000000001$$);
CALL pg_temp.reserve($$'alice', 40, 0.75, requests => 10$$);
-- what is asked for is checked, not what is overdrawn already; nothing asked for is always granted
CALL pg_temp.reserve($$'alice', 0, 0, requests => 0$$);
SELECT run_tracker.reserve_usage('alice', 40, 0.75, requests => 9) AS r2 \gset
:sums
CALL pg_temp.reserve($$'alice', 1, requests => 0$$);
CALL pg_temp.reserve($$'alice'$$);
CALL pg_temp.reserve($$'alice', cost => 1e-40, requests => 0$$);
CALL pg_temp.reserve($$'alice', requests => 0$$);
-- other users have quotas of their own
CALL pg_temp.reserve($$'bob', 100000, 1000000000000, requests => 100$$);
CALL pg_temp.reserve($$'bob', 1$$);
-- what was really used; more than reserved, too
SELECT run_tracker.settle_usage(:'r1', 90, 0.5, 2, NULL, NULL, 'p', 'm', 'function:f', '00000000-0000-0000-0000-0000000000aa', '00000000-0000-0000-0000-0000000000bb', '{"a": 1}') AS first,
       run_tracker.settle_usage(:'r1', 1000) AS again, run_tracker.release_usage(:'r1') AS released;
:sums
SELECT source, total_tokens, input_tokens, cost, requests, provider, model, endpoint, session_id, run_id, task_id, reservation_id = :'r1' AS same, metadata FROM run_tracker.usage WHERE user_id = 'alice' \gx
SELECT state, task_id, ended_at >= created_at AS ended FROM run_tracker.reservations WHERE reservation_id = :'r1';
CALL pg_temp.reserve($$'alice', 1$$);
SELECT run_tracker.release_usage(:'r2') AS first, run_tracker.release_usage(:'r2') AS again;
SELECT state FROM run_tracker.reservations WHERE reservation_id = :'r2';
CALL pg_temp.try(format('SELECT run_tracker.settle_usage(%L)', regexp_replace(:'r2', '.*', 'e0000000-0000-0000-0000-00000000000e')));
\set VERBOSITY terse
SELECT run_tracker.settle_usage(:'r2');
\set VERBOSITY default
:sums
-- exactly what is left
CALL pg_temp.reserve($$'alice', 11$$);
SELECT run_tracker.reserve_usage('alice', 10, 1.0, requests => 8) AS r3 \gset
CALL pg_temp.reserve($$'alice', 1, requests => 0$$);
-- numbers that are not given are as reserved; input and output tokens are a sum
SELECT run_tracker.settle_usage(:'r3');
:sums
SELECT total_tokens, cost, requests FROM run_tracker.usage WHERE reservation_id = :'r3';
SELECT run_tracker.reserve_usage('carol', 10, 1.0) AS r4, run_tracker.reserve_usage('carol', 10, 1.0) AS r5, run_tracker.reserve_usage('carol', 10, 1.0) AS r6 \gset
SELECT run_tracker.settle_usage(:'r4', input_tokens => 3, output_tokens => 4, cost => 0), run_tracker.settle_usage(:'r5', output_tokens => 4, requests => 0), run_tracker.settle_usage(:'r6', 0, 0, 0);
SELECT input_tokens, output_tokens, total_tokens, cost, requests FROM run_tracker.usage_records WHERE user_id = 'carol' ORDER BY reservation_id;
-- an error leaves the reservation as it was
SELECT run_tracker.reserve_usage('carol', 10) AS r7 \gset
\set VERBOSITY terse
SELECT run_tracker.settle_usage(:'r7', -1);
SELECT run_tracker.settle_usage(:'r7', cost => 'NaN');
SELECT run_tracker.settle_usage(:'r7', requests => -1);
SELECT run_tracker.settle_usage(:'r7', metadata => '[]');
\set VERBOSITY default
SELECT state FROM run_tracker.reservations WHERE reservation_id = :'r7';

-- quotas() shows it all
SELECT quota, used, reserved, "limit", remaining, CASE WHEN quota LIKE 'monthly%' THEN reset_at = month_ends_at WHEN quota LIKE 'daily%' THEN reset_at = day_ends_at ELSE reset_at IS NULL END AS reset
FROM run_tracker.quotas('alice'), run_tracker.usage_sums('alice');
SELECT quota, used, reserved, "limit", remaining FROM run_tracker.quotas('carol');
SELECT quota, used, reserved, "limit", remaining FROM run_tracker.quotas('regress nobody knows');
UPDATE run_tracker.accounts SET overrides = '{"monthly_tokens": 50, "daily_requests": null}';
SELECT quota, used, reserved, "limit", remaining FROM run_tracker.quotas('alice');
UPDATE run_tracker.accounts SET overrides = NULL;
CALL pg_temp.try($$SELECT * FROM run_tracker.quotas()$$);
CALL pg_temp.try($$SELECT * FROM run_tracker.quotas('')$$);

--
-- What cannot be
--
CALL pg_temp.try($$SELECT run_tracker.reserve_usage()$$);
CALL pg_temp.try($$SELECT run_tracker.reserve_usage('')$$);
CALL pg_temp.try(format('SELECT run_tracker.reserve_usage(%L)', repeat('a', 513)));
CALL pg_temp.try($$SELECT run_tracker.reserve_usage('alice', -1)$$);
CALL pg_temp.try($$SELECT run_tracker.reserve_usage('alice', 1000000000001)$$);
CALL pg_temp.try($$SELECT run_tracker.reserve_usage('alice', cost => -1)$$);
CALL pg_temp.try($$SELECT run_tracker.reserve_usage('alice', cost => 'NaN')$$);
CALL pg_temp.try($$SELECT run_tracker.reserve_usage('alice', cost => 'Infinity')$$);
CALL pg_temp.try($$SELECT run_tracker.reserve_usage('alice', cost => '-Infinity')$$);
CALL pg_temp.try($$SELECT run_tracker.reserve_usage('alice', cost => 1000000000001)$$);
CALL pg_temp.try($$SELECT run_tracker.reserve_usage('alice', cost => 1e-41)$$);
CALL pg_temp.try($$SELECT run_tracker.reserve_usage('alice', requests => -1)$$);
CALL pg_temp.try($$SELECT run_tracker.reserve_usage('alice', requests => 1000001)$$);
CALL pg_temp.try($$SELECT run_tracker.reserve_usage('alice', ttl => '0')$$);
CALL pg_temp.try($$SELECT run_tracker.reserve_usage('alice', ttl => '-1 second')$$);
CALL pg_temp.try($$SELECT run_tracker.reserve_usage('alice', ttl => '30 days 1 microsecond')$$);
CALL pg_temp.try($$SELECT run_tracker.reserve_usage('alice', ttl => '100000000 years')$$);
CALL pg_temp.try($$SELECT run_tracker.reserve_usage('alice', ttl => NULL)$$);
CALL pg_temp.try($$SELECT run_tracker.settle_usage(NULL)$$);
CALL pg_temp.try($$SELECT run_tracker.settle_usage('00000000-0000-0000-0000-00000000000e')$$);
CALL pg_temp.try($$SELECT run_tracker.release_usage(NULL)$$);
CALL pg_temp.try($$SELECT run_tracker.release_usage('00000000-0000-0000-0000-00000000000e')$$);
-- nulls are as good as nothing said
SELECT run_tracker.reserve_usage('carol', NULL, NULL, '30 days', NULL) AS r8 \gset
SELECT tokens, cost, requests, expires_at - created_at = interval '30 days' AS ttl FROM run_tracker.reservations WHERE reservation_id = :'r8';
START TRANSACTION READ ONLY;
SELECT run_tracker.reserve_usage('carol');
ROLLBACK;
START TRANSACTION READ ONLY;
SELECT run_tracker.settle_usage(:'r8');
ROLLBACK;
START TRANSACTION READ ONLY;
SELECT run_tracker.release_usage(:'r8');
ROLLBACK;
START TRANSACTION READ ONLY;
SELECT reserved_tokens, reserved_requests FROM run_tracker.usage_sums('carol');
ROLLBACK;

--
-- Transactions
--
DELETE FROM run_tracker.usage_records;
TRUNCATE run_tracker.stat_deltas, run_tracker.stat_totals, run_tracker.reservations;
BEGIN;
SAVEPOINT s;
SELECT run_tracker.reserve_usage('alice', 100) IS NOT NULL AS reserved;
CALL pg_temp.reserve($$'alice', 1$$);
ROLLBACK TO s;
SELECT run_tracker.reserve_usage('alice', 100) AS r1 \gset
SAVEPOINT s;
SELECT run_tracker.settle_usage(:'r1', 30);
:sums
ROLLBACK TO s;
:sums
SELECT run_tracker.release_usage(:'r1');
:sums
ROLLBACK;
:sums
BEGIN ISOLATION LEVEL REPEATABLE READ;
:sums
SELECT run_tracker.reserve_usage('alice', 60) AS r1 \gset
CALL pg_temp.reserve($$'alice', 41$$);
SELECT run_tracker.settle_usage(:'r1', 50);
:sums
CALL pg_temp.reserve($$'alice', 51$$);
CALL pg_temp.reserve($$'alice', 50$$);
COMMIT;
BEGIN ISOLATION LEVEL SERIALIZABLE;
CALL pg_temp.reserve($$'alice', 1$$);
CALL pg_temp.reserve($$'alice', 0, 1.5$$);
COMMIT;
:sums
-- in one statement
TRUNCATE run_tracker.stat_deltas, run_tracker.stat_totals, run_tracker.reservations;
SELECT count(run_tracker.reserve_usage('alice', 10)) FROM generate_series(1, 10);
CALL pg_temp.reserve($$'alice', 10$$);
SELECT bool_and(run_tracker.settle_usage(reservation_id, 9)) FROM run_tracker.reservations;
:sums

--
-- Time
--
TRUNCATE run_tracker.stat_deltas, run_tracker.stat_totals, run_tracker.reservations;
SELECT run_tracker.reserve_usage('alice', 100, ttl => '1 second') AS r1 \gset
CALL pg_temp.reserve($$'alice', 1$$);
-- its time is up: it does not count, whether or not anybody has taken note
DO $$ BEGIN WHILE clock_timestamp() < (SELECT expires_at FROM run_tracker.reservations) LOOP PERFORM pg_sleep(0.01); END LOOP; END $$;
SELECT state FROM run_tracker.reservations;
:sums
SELECT run_tracker.reserve_usage('alice', 90) AS r2 \gset
SELECT run_tracker.expire_runs() AS runs;
SELECT state, tokens, ended_at > expires_at AS ended FROM run_tracker.reservations ORDER BY reservation_id;
-- what was spent counts, however late it is told
SELECT run_tracker.settle_usage(:'r1', 20) AS late, run_tracker.settle_usage(:'r1', 20) AS again;
:sums
SELECT state FROM run_tracker.reservations WHERE reservation_id = :'r1';
-- "now" is an argument of the pass
SELECT run_tracker.expire_runs(now => (SELECT expires_at - interval '1 microsecond' FROM run_tracker.reservations WHERE reservation_id = :'r2'));
SELECT state FROM run_tracker.reservations WHERE reservation_id = :'r2';
SELECT run_tracker.expire_runs(now => (SELECT expires_at FROM run_tracker.reservations WHERE reservation_id = :'r2'));
SELECT state FROM run_tracker.reservations WHERE reservation_id = :'r2';
SELECT run_tracker.release_usage(:'r2') AS ended_before;
-- many: at most 1000 in a pass
TRUNCATE run_tracker.reservations;
SELECT count(run_tracker.reserve_usage('dave', 0, requests => 0)) FROM generate_series(1, 1500);
SELECT run_tracker.expire_runs(now => now() + interval '1 hour');
SELECT state, count(*) FROM run_tracker.reservations GROUP BY 1 ORDER BY 1;
SELECT run_tracker.expire_runs(now => now() + interval '1 hour');
SELECT state, count(*) FROM run_tracker.reservations GROUP BY 1 ORDER BY 1;
-- old ones go, those that are held stay
SELECT run_tracker.reserve_usage('dave', requests => 0) IS NOT NULL AS held;
SELECT run_tracker.purge_usage('1 hour') AS none, run_tracker.purge_usage('0', 600) AS some, run_tracker.purge_usage('0') AS rest;
SELECT state, count(*) FROM run_tracker.reservations GROUP BY 1 ORDER BY 1;

--
-- Tasks that carry one
--
TRUNCATE run_tracker.stat_deltas, run_tracker.stat_totals, run_tracker.reservations;
CREATE FUNCTION pg_temp.id(n int) RETURNS uuid LANGUAGE sql AS $$ SELECT ('f1000000-0000-0000-0000-' || lpad(n::text, 12, '0'))::uuid $$;
\set run '''f0000000-0000-0000-0000-000000000001'''
\set states 'SELECT r.tokens, r.state, t.status, r.task_id = t.task_id AS by_task FROM run_tracker.reservations r LEFT JOIN run_tracker.tasks t USING (reservation_id) ORDER BY r.tokens;'
INSERT INTO run_tracker.runs (run_id, user_id) VALUES (:run, 'alice');
SELECT run_tracker.create_task(:run, pg_temp.id(n), 'task', reservation_id => run_tracker.reserve_usage('alice', n)) FROM generate_series(1, 6) n \g /dev/null
SELECT sum(tokens) FROM run_tracker.reservations;
:sums
SELECT run_tracker.complete_task(pg_temp.id(1), 'x', 10, 1, 0.5), run_tracker.fail_task(pg_temp.id(2), 'x', input_tokens => 5), run_tracker.cancel_task(pg_temp.id(3));
UPDATE run_tracker.tasks SET status = 'timeout' WHERE task_id = pg_temp.id(4);
DELETE FROM run_tracker.tasks WHERE task_id = pg_temp.id(5);
:states
:sums
SELECT task_id = pg_temp.id(1) AS first, total_tokens, reservation_id IS NOT NULL AS carried FROM run_tracker.usage ORDER BY used_at, total_tokens DESC LIMIT 1;
-- finished again after a retry: it is settled
SELECT run_tracker.start_task(pg_temp.id(2), 'running'), run_tracker.fail_task(pg_temp.id(2), 'x', input_tokens => 5);
:states
-- the end of the run; and its deletion
UPDATE run_tracker.runs SET status = 'completed';
:states
:sums
INSERT INTO run_tracker.runs (run_id, user_id) VALUES ('f0000000-0000-0000-0000-000000000002', 'alice');
SELECT run_tracker.create_task('f0000000-0000-0000-0000-000000000002', pg_temp.id(7), reservation_id => run_tracker.reserve_usage('alice', 7)) \g /dev/null
DELETE FROM run_tracker.runs WHERE run_id = 'f0000000-0000-0000-0000-000000000002';
SELECT state FROM run_tracker.reservations WHERE tokens = 7;
:sums
-- a run that times out
TRUNCATE run_tracker.stat_deltas, run_tracker.stat_totals, run_tracker.reservations;
INSERT INTO run_tracker.runs (run_id, user_id, timeout) VALUES ('f0000000-0000-0000-0000-000000000003', 'alice', '1 minute');
SELECT run_tracker.start_run('f0000000-0000-0000-0000-000000000003');
SELECT run_tracker.create_task('f0000000-0000-0000-0000-000000000003', pg_temp.id(8), reservation_id => run_tracker.reserve_usage('alice', 8, ttl => '1 hour')) \g /dev/null
SELECT run_tracker.create_task('f0000000-0000-0000-0000-000000000003', pg_temp.id(9), reservation_id => run_tracker.reserve_usage('alice', 9, ttl => '1 minute')) \g /dev/null
SELECT run_tracker.expire_runs(now => now() + interval '30 minutes');
:states
:sums
-- one that has expired is settled all the same, by its task or by hand; whoever is first
TRUNCATE run_tracker.stat_deltas, run_tracker.stat_totals, run_tracker.reservations;
INSERT INTO run_tracker.runs (run_id, user_id) VALUES ('f0000000-0000-0000-0000-000000000004', 'alice');
SELECT run_tracker.create_task('f0000000-0000-0000-0000-000000000004', pg_temp.id(n), reservation_id => run_tracker.reserve_usage('alice', n)) FROM generate_series(10, 13) n \g /dev/null
SELECT run_tracker.expire_runs(now => now() + interval '11 minutes');
SELECT run_tracker.complete_task(pg_temp.id(10)), run_tracker.settle_usage((SELECT reservation_id FROM run_tracker.reservations WHERE tokens = 11), 3),
       run_tracker.release_usage((SELECT reservation_id FROM run_tracker.reservations WHERE tokens = 12)) AS released;
SELECT run_tracker.complete_task(pg_temp.id(11)), run_tracker.complete_task(pg_temp.id(12));
DELETE FROM run_tracker.tasks WHERE task_id = pg_temp.id(13);
:states
-- several tasks of one reservation; many in one statement
INSERT INTO run_tracker.tasks (run_id, task_id, reservation_id)
SELECT 'f0000000-0000-0000-0000-000000000004', pg_temp.id(20 + n), r.id FROM (SELECT run_tracker.reserve_usage('alice', 20) AS id) r, generate_series(1, 3) n;
UPDATE run_tracker.tasks SET status = 'completed' WHERE task_id IN (pg_temp.id(21), pg_temp.id(22));
SELECT state, task_id IN (pg_temp.id(21), pg_temp.id(22)) AS by_task FROM run_tracker.reservations WHERE tokens = 20;
INSERT INTO run_tracker.tiers (name) VALUES ('endless');
UPDATE run_tracker.accounts SET tier = 'endless';
INSERT INTO run_tracker.tasks (run_id, task_id, reservation_id, name)
SELECT 'f0000000-0000-0000-0000-000000000004', pg_temp.id(100 + n), run_tracker.reserve_usage('alice', 100 + n), 'many' FROM generate_series(1, 100) n;
UPDATE run_tracker.tasks SET status = 'completed', total_tokens = 1 WHERE name = 'many';
SELECT state, count(*), bool_and(t.task_id = r.task_id) AS by_task FROM run_tracker.reservations r JOIN run_tracker.tasks t USING (reservation_id) WHERE name = 'many' GROUP BY 1;
UPDATE run_tracker.accounts SET tier = 'small';
-- given later, changed, taken away
SELECT run_tracker.create_task('f0000000-0000-0000-0000-000000000004', pg_temp.id(30)) \g /dev/null
UPDATE run_tracker.tasks SET reservation_id = run_tracker.reserve_usage('carol', 30) WHERE task_id = pg_temp.id(31);
UPDATE run_tracker.tasks SET reservation_id = run_tracker.reserve_usage('alice', 0, requests => 0, ttl => '1 day') WHERE task_id = pg_temp.id(30);
UPDATE run_tracker.tasks SET reservation_id = NULL WHERE task_id = pg_temp.id(30);
SELECT run_tracker.complete_task(pg_temp.id(30));
SELECT state FROM run_tracker.reservations WHERE tokens = 0;
-- a batch
CREATE TABLE regress_reservation AS SELECT run_tracker.reserve_usage('alice', 0, requests => 0) AS id;
SELECT count(*) FROM regress_reservation r, run_tracker.create_tasks('f0000000-0000-0000-0000-000000000004', jsonb_build_array(jsonb_build_object('reservation_id', r.id, 'name', 'batch')));
UPDATE run_tracker.tasks SET status = 'completed' WHERE name = 'batch';
SELECT state FROM run_tracker.reservations, regress_reservation WHERE reservation_id = id;
DROP TABLE regress_reservation;
-- what is no reservation of the user's
CALL pg_temp.try($$SELECT run_tracker.create_task('f0000000-0000-0000-0000-000000000004', reservation_id => '00000000-0000-0000-0000-00000000000e')$$);
CALL pg_temp.try($$UPDATE run_tracker.tasks SET reservation_id = '00000000-0000-0000-0000-00000000000e' WHERE status = 'pending'$$);
CALL pg_temp.try($$INSERT INTO run_tracker.tasks (run_id, reservation_id) VALUES ('f0000000-0000-0000-0000-0000000000ff', '00000000-0000-0000-0000-00000000000e')$$);
\set VERBOSITY terse
SELECT run_tracker.create_task('f0000000-0000-0000-0000-000000000004', reservation_id => run_tracker.reserve_usage('carol', 31));
\set VERBOSITY default
-- a fact may name one that is long gone
INSERT INTO run_tracker.tasks (run_id, status, reservation_id) VALUES ('f0000000-0000-0000-0000-000000000004', 'completed', '00000000-0000-0000-0000-00000000000e');
-- a task may finish when its reservation is gone
SELECT run_tracker.create_task('f0000000-0000-0000-0000-000000000004', pg_temp.id(40), reservation_id => run_tracker.reserve_usage('alice', 0, requests => 0)) \g /dev/null
TRUNCATE run_tracker.reservations;
SELECT run_tracker.complete_task(pg_temp.id(40));

--
-- Users
--
DELETE FROM run_tracker.runs;
DELETE FROM run_tracker.usage_records;
TRUNCATE run_tracker.stat_deltas, run_tracker.stat_totals, run_tracker.reservations;
SELECT run_tracker.reserve_usage('bob', 1) AS bobs \gset
CREATE TABLE regress_bobs AS SELECT :'bobs'::uuid AS id;
GRANT SELECT ON regress_bobs TO regress_reservations_client;
SET ROLE regress_reservations_client;
SET request.jwt.claims = '{"sub": "alice"}';
SELECT run_tracker.reserve_usage(tokens => 10) AS r1, run_tracker.reserve_usage('alice', 10) AS r2 \gset
CALL pg_temp.try($$SELECT run_tracker.reserve_usage('bob', 10)$$);
CALL pg_temp.try($$SELECT run_tracker.reserve_usage('', 10)$$);
CALL pg_temp.try($$SELECT * FROM run_tracker.quotas('bob')$$);
SELECT quota, used, reserved, "limit", remaining FROM run_tracker.quotas();
SELECT user_id, tokens FROM run_tracker.reservations;
\set VERBOSITY terse
SELECT run_tracker.settle_usage(:'bobs');
SELECT run_tracker.release_usage(:'bobs');
\set VERBOSITY default
SELECT run_tracker.settle_usage(:'r1', 5), run_tracker.release_usage(:'r2');
SELECT run_tracker.create_run(:run) IS NOT NULL AS run;
SELECT run_tracker.create_task(:run, pg_temp.id(1), reservation_id => run_tracker.reserve_usage(tokens => 11)) IS NOT NULL AS task;
\set VERBOSITY terse
SELECT run_tracker.create_task(:run, reservation_id => :'bobs');
UPDATE run_tracker.tasks SET reservation_id = :'bobs';
\set VERBOSITY default
SELECT run_tracker.complete_task(pg_temp.id(1), input_tokens => 2);
SELECT state, tokens FROM run_tracker.reservations ORDER BY tokens, state;
CALL pg_temp.try($$INSERT INTO run_tracker.reservations (user_id) VALUES ('alice')$$);
CALL pg_temp.try($$UPDATE run_tracker.reservations SET tokens = 0$$);
CALL pg_temp.try($$DELETE FROM run_tracker.reservations$$);
CALL pg_temp.try($$SELECT 1 FROM run_tracker.reservations FOR UPDATE$$);
CALL pg_temp.try($$LOCK TABLE run_tracker.reservations IN ROW EXCLUSIVE MODE$$);
SELECT monthly_tokens, daily_requests, reserved_tokens FROM run_tracker.usage_sums();
SET request.jwt.claims = '';
CALL pg_temp.try($$SELECT run_tracker.reserve_usage()$$);
CALL pg_temp.try($$SELECT run_tracker.reserve_usage('alice')$$);
SET ROLE regress_reservations_service;
SELECT run_tracker.reserve_usage('alice', 12) AS r4 \gset
SELECT run_tracker.settle_usage(:'bobs', 1), run_tracker.release_usage(:'r4');
SELECT user_id, state, tokens FROM run_tracker.reservations ORDER BY user_id, tokens, state;
CALL pg_temp.try($$UPDATE run_tracker.reservations SET tokens = 0$$);
RESET ROLE;
-- the rights of the owner are enough, also where row security is forced upon him
CREATE ROLE regress_reservations_owner;
BEGIN;
SELECT run_tracker.set_owner('regress_reservations_owner');
ALTER TABLE run_tracker.reservations FORCE ROW LEVEL SECURITY;
SET LOCAL ROLE regress_reservations_owner;
SET LOCAL request.jwt.claims = '';
SELECT run_tracker.reserve_usage('alice', 13) AS r5, run_tracker.reserve_usage('alice', 14, ttl => '1 minute') AS r6 \gset
SELECT run_tracker.settle_usage(:'r5', 1);
SELECT run_tracker.expire_runs(now => now() + interval '5 minutes');
RESET ROLE;
SELECT state, tokens FROM run_tracker.reservations WHERE reservation_id IN (:'r5', :'r6') ORDER BY tokens;
ROLLBACK;
-- without its tables nothing is half done
BEGIN;
ALTER TABLE run_tracker.reservations RENAME TO gone;
CALL pg_temp.try($$SELECT run_tracker.reserve_usage('alice', 1)$$);
CALL pg_temp.try($$SELECT run_tracker.usage_sums('alice')$$);
ROLLBACK;
BEGIN;
DROP INDEX run_tracker.reservations_held_idx, run_tracker.stat_deltas_usage_idx;
CALL pg_temp.try($$SELECT run_tracker.reserve_usage('alice', 1)$$);
SELECT run_tracker.install() = run_tracker.tracker_version() AS installed;
SELECT run_tracker.reserve_usage('alice', 1) IS NOT NULL AS reserved;
ROLLBACK;
-- tables, triggers, indexes and limits come back
BEGIN;
SET LOCAL client_min_messages = warning;
DROP EXTENSION run_tracker CASCADE;
CREATE EXTENSION run_tracker;
SELECT run_tracker.install() = run_tracker.tracker_version() AS installed;
SELECT tgrelid::regclass, tgname FROM pg_trigger WHERE NOT tgisinternal AND tgrelid IN ('run_tracker.tiers'::regclass, 'run_tracker.accounts'::regclass, 'run_tracker.usage_records'::regclass) ORDER BY 1, 2;
SELECT user_id, state, tokens FROM run_tracker.reservations ORDER BY user_id, tokens, state;
SELECT run_tracker.record_usage('alice', 7) IS NOT NULL AS recorded;
SELECT monthly_tokens, daily_requests FROM run_tracker.usage_sums('alice');
CALL pg_temp.try($$UPDATE run_tracker.tiers SET monthly_tokens = -1$$);
CALL pg_temp.try($$UPDATE run_tracker.accounts SET overrides = '{"a": 1}'$$);
CALL pg_temp.try($$INSERT INTO run_tracker.usage_records (user_id, total_tokens) VALUES ('alice', -1)$$);
ROLLBACK;

DROP TABLE regress_bobs;
DELETE FROM run_tracker.runs;
DELETE FROM run_tracker.usage_records;
DELETE FROM run_tracker.accounts;
DELETE FROM run_tracker.tiers WHERE name <> 'free';
TRUNCATE run_tracker.stat_deltas, run_tracker.stat_totals, run_tracker.reservations;
DROP OWNED BY regress_reservations_client, regress_reservations_service, regress_reservations_owner;
DROP ROLE regress_reservations_client, regress_reservations_service, regress_reservations_owner;
