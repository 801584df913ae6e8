--
-- Usage: what finished tasks and recorded calls count for their user, on which day, and that it is the same in the single
-- entries, in the sums of quotas, before and after a fold.
--
\getenv abs_srcdir PG_ABS_SRCDIR
\set common :abs_srcdir '/sql/common.psql'
\i :common

CREATE ROLE regress_usage_client;
CREATE ROLE regress_usage_service;
SELECT run_tracker.grant_client('regress_usage_client');
SELECT run_tracker.grant_service('regress_usage_service');
-- other tests have left their own
DELETE FROM run_tracker.runs;
DELETE FROM run_tracker.usage_records;
TRUNCATE run_tracker.stat_deltas, run_tracker.stat_totals;

-- What has been counted, day by day and month by month, folded or not; and what the entries add up to.
CREATE VIEW regress_counted AS
SELECT user_id, period, at::date AS at, sum(requests) AS requests, sum(tokens) AS tokens, sum(cost) AS cost
FROM (SELECT user_id, p.period, date_trunc(p.period, usage_on::timestamp) AS at, finished_count AS requests, total_tokens AS tokens, cost
      FROM run_tracker.stat_deltas, unnest('{day,month}'::text[]) p (period) WHERE usage_on IS NOT NULL
      UNION ALL
      SELECT user_id, period, period_at AT TIME ZONE 'UTC', finished_count, total_tokens, cost FROM run_tracker.stat_totals WHERE grain = 'usage') c
GROUP BY 1, 2, 3;
CREATE VIEW regress_entries AS
SELECT user_id, p.period, date_trunc(p.period, used_at AT TIME ZONE current_setting('run_tracker.time_zone'))::date AS at,
       sum(requests) AS requests, sum(total_tokens) AS tokens, sum(cost) AS cost
FROM run_tracker.usage, unnest('{day,month}'::text[]) p (period) GROUP BY 1, 2, 3;
CREATE VIEW regress_wrong AS
SELECT user_id, period, at, c AS counted, e AS entries
FROM regress_counted c FULL JOIN regress_entries e USING (user_id, period, at)
WHERE (COALESCE(c.requests, 0), COALESCE(c.tokens, 0), COALESCE(c.cost, 0)) <> (COALESCE(e.requests, 0), COALESCE(e.tokens, 0), COALESCE(e.cost, 0))
UNION ALL
SELECT user_id, 'now', s.day, NULL, NULL
FROM (SELECT DISTINCT user_id FROM regress_entries WHERE user_id <> '') u, LATERAL run_tracker.usage_sums(u.user_id) s
WHERE (s.monthly_tokens, s.monthly_cost, s.daily_requests) <> (
    COALESCE((SELECT tokens FROM regress_entries e WHERE (e.user_id, e.period, e.at) = (u.user_id, 'month', s.month)), 0),
    COALESCE((SELECT cost FROM regress_entries e WHERE (e.user_id, e.period, e.at) = (u.user_id, 'month', s.month)), 0),
    COALESCE((SELECT requests FROM regress_entries e WHERE (e.user_id, e.period, e.at) = (u.user_id, 'day', s.day)), 0));
-- Whatever is wrong, and the sums of all time.
\set check 'SELECT * FROM regress_wrong; SELECT user_id, sum(requests) AS requests, sum(tokens) AS tokens, sum(cost) AS cost FROM regress_counted WHERE period = ''day'' GROUP BY 1 ORDER BY 1;'

\set run '''e0000000-0000-0000-0000-000000000001'''
\set t1 '''e1000000-0000-0000-0000-000000000001'''
\set t2 '''e1000000-0000-0000-0000-000000000002'''
SELECT run_tracker.create_run(:run, user_id => 'alice') \g /dev/null
SELECT run_tracker.start_run(:run) \g /dev/null

--
-- Tasks
--
SELECT run_tracker.create_task(:run, :t1, operation => 'chat', provider => 'openai', model => 'gpt', metadata => '{"a": 1}') \g /dev/null
UPDATE run_tracker.tasks SET input_tokens = 1, cost = 1 WHERE task_id = :t1;
SELECT run_tracker.start_task(:t1);
-- nothing yet
:check
SELECT run_tracker.complete_task(:t1, 'text', 10, 5, 0.25);
:check
SELECT user_id, source, requests, input_tokens, output_tokens, total_tokens, cost, provider, model, endpoint, run_id, task_id, session_id, reservation_id, usage_id, metadata
FROM run_tracker.usage \gx
SELECT usage_at = finished_at AS same, used_at = usage_at AS shown FROM run_tracker.tasks JOIN run_tracker.usage USING (task_id);
-- repeated, or changed without a difference
SELECT run_tracker.complete_task(:t1, 'text', 10, 5, 0.25) AS again;
UPDATE run_tracker.tasks SET status = status, cost = cost;
UPDATE run_tracker.tasks SET name = 'x', usage_at = NULL;
UPDATE run_tracker.tasks SET usage_at = '2001-01-01' RETURNING usage_at = finished_at AS kept;
:check
-- corrections count the difference, and may be larger or smaller
UPDATE run_tracker.tasks SET input_tokens = 100, cost = 0.125;
:check
UPDATE run_tracker.tasks SET total_tokens = NULL, cost = NULL;
:check
UPDATE run_tracker.tasks SET total_tokens = 7, cost = 2;
-- a service may correct when it finished; the day that it counts for stays
UPDATE run_tracker.tasks SET finished_at = '2020-01-01' RETURNING usage_at > '2021-01-01' AS kept;
:check
-- before and after a fold, and one of corrections
SELECT run_tracker.fold_statistics() >= 0 AS folded;
:check
UPDATE run_tracker.tasks SET total_tokens = 9;
:check
SELECT run_tracker.fold_statistics() >= 0 AS folded;
:check
-- savepoints
BEGIN;
SAVEPOINT s;
UPDATE run_tracker.tasks SET total_tokens = 1000;
:check
ROLLBACK TO s;
:check
COMMIT;

-- a task that is retried keeps what it has used, and its next end counts again
UPDATE run_tracker.tasks SET status = 'failed', input_tokens = 100 WHERE task_id = :t1;
SELECT run_tracker.create_task(:run, :t2, provider => 'p', operation => 'embed') \g /dev/null
SELECT run_tracker.fail_task(:t2, 'broken', input_tokens => 3, cost => 0.5);
SELECT used_at AS t2_at FROM run_tracker.usage WHERE task_id = :t2 \gset
SELECT run_tracker.start_task(:t2) AS retried;
:check
SELECT source, requests, input_tokens, output_tokens, total_tokens, cost, provider, endpoint, run_id, task_id, usage_id IS NOT NULL AS usage_id, used_at = :'t2_at' AS same_time, metadata
FROM run_tracker.usage WHERE task_id = :t2;
SELECT attempt, total_tokens, cost, usage_at FROM run_tracker.tasks WHERE task_id = :t2;
SELECT run_tracker.complete_task(:t2, input_tokens => 4);
:check
-- retried and corrected at once; and one without tokens and cost
UPDATE run_tracker.tasks SET status = 'failed', cost = 1 WHERE task_id = :t2;
CALL pg_temp.try($$UPDATE run_tracker.tasks SET status = 'pending', input_tokens = 1000, cost = 5 WHERE task_id = 'e1000000-0000-0000-0000-000000000002'$$);
:check
SELECT run_tracker.cancel_task(:t2);
UPDATE run_tracker.tasks SET input_tokens = NULL, total_tokens = NULL, cost = NULL WHERE task_id = :t2;
:check
SELECT run_tracker.start_task(:t2, 'pending') AS retried;
SELECT source, requests, total_tokens, cost FROM run_tracker.usage WHERE task_id = :t2 ORDER BY used_at;
:check
-- a late result counts the difference, on the day of the end
INSERT INTO run_tracker.runs (run_id, user_id, lifecycle) VALUES ('e0000000-0000-0000-0000-000000000002', 'late', 'spar');
INSERT INTO run_tracker.tasks (run_id, task_id) VALUES ('e0000000-0000-0000-0000-000000000002', 'e1000000-0000-0000-0000-000000000003');
UPDATE run_tracker.tasks SET status = 'timeout', cost = 1 WHERE task_id = 'e1000000-0000-0000-0000-000000000003';
SELECT usage_at AS at FROM run_tracker.tasks WHERE task_id = 'e1000000-0000-0000-0000-000000000003' \gset
SELECT run_tracker.complete_task('e1000000-0000-0000-0000-000000000003', 'late', 5, 5, 3);
SELECT usage_at = :'at' AS same_time, status FROM run_tracker.tasks WHERE task_id = 'e1000000-0000-0000-0000-000000000003';
:check
-- the end of a run closes its tasks; each is a request
INSERT INTO run_tracker.tasks (run_id, input_tokens) SELECT 'e0000000-0000-0000-0000-000000000002', i FROM generate_series(1, 10) i;
UPDATE run_tracker.runs SET status = 'failed' WHERE user_id = 'late';
:check

-- what is inserted as finished is a fact, whatever happens to it then; but not a retry of it
INSERT INTO run_tracker.runs (run_id, user_id, status) VALUES ('e0000000-0000-0000-0000-000000000003', 'fact', 'completed');
INSERT INTO run_tracker.tasks (run_id, task_id, status, total_tokens, cost)
VALUES ('e0000000-0000-0000-0000-000000000003', 'e1000000-0000-0000-0000-000000000004', 'failed', 10, 1), ('e0000000-0000-0000-0000-000000000003', gen_random_uuid(), 'completed', 10, 1);
UPDATE run_tracker.tasks SET total_tokens = 20 WHERE user_id = 'fact';
UPDATE run_tracker.tasks SET status = 'completed' WHERE task_id = 'e1000000-0000-0000-0000-000000000004';
SELECT count(*) AS entries FROM run_tracker.usage WHERE user_id = 'fact';
:check
UPDATE run_tracker.runs SET status = 'pending' WHERE user_id = 'fact';
UPDATE run_tracker.tasks SET status = 'failed' WHERE task_id = 'e1000000-0000-0000-0000-000000000004';
UPDATE run_tracker.tasks SET status = 'pending' WHERE task_id = 'e1000000-0000-0000-0000-000000000004';
SELECT count(*) AS entries FROM run_tracker.usage WHERE user_id = 'fact';
SELECT run_tracker.complete_task('e1000000-0000-0000-0000-000000000004', input_tokens => 1);
:check
-- a fact that was usage where it came from is so here; an open task has not been used
INSERT INTO run_tracker.runs (run_id, user_id) VALUES ('e0000000-0000-0000-0000-000000000004', 'restored');
INSERT INTO run_tracker.tasks (run_id, status, total_tokens, usage_at) VALUES
    ('e0000000-0000-0000-0000-000000000004', 'completed', 10, '2024-02-29 12:00+00'), ('e0000000-0000-0000-0000-000000000004', 'running', 10, '2024-02-29 12:00+00');
:check
-- the owner of the setting may load rows without triggers: they count nothing, and the rest goes on
SET session_replication_role = replica;
INSERT INTO run_tracker.tasks (run_id, task_id, user_id, lifecycle, status, phase, attempt, created_at, updated_at, usage_at, total_tokens)
SELECT run_id, 'e1000000-0000-0000-0000-000000000005', user_id, 'task', 'pending', 'queued', 1, now(), now(), NULL, NULL FROM run_tracker.runs WHERE user_id = 'restored';
RESET session_replication_role;
SELECT run_tracker.complete_task('e1000000-0000-0000-0000-000000000005', input_tokens => 30);
:check

-- what nobody owns is nobody's usage
INSERT INTO run_tracker.runs (run_id, user_id) VALUES ('e0000000-0000-0000-0000-000000000005', '');
INSERT INTO run_tracker.tasks (run_id, task_id) VALUES ('e0000000-0000-0000-0000-000000000005', 'e1000000-0000-0000-0000-000000000006');
SELECT run_tracker.fail_task('e1000000-0000-0000-0000-000000000006', cost => 2), run_tracker.start_task('e1000000-0000-0000-0000-000000000006', 'pending') AS retried;
SELECT run_tracker.fail_task('e1000000-0000-0000-0000-000000000006', cost => 1);
SELECT user_id, source, cost FROM run_tracker.usage WHERE user_id = '' ORDER BY cost;
CALL pg_temp.try($$SELECT run_tracker.usage_sums('')$$);
-- and of users with the longest names
INSERT INTO run_tracker.runs (run_id, user_id) VALUES ('e0000000-0000-0000-0000-000000000006', repeat('é', 256));
INSERT INTO run_tracker.tasks (run_id, task_id) VALUES ('e0000000-0000-0000-0000-000000000006', 'e1000000-0000-0000-0000-000000000007');
SELECT run_tracker.fail_task('e1000000-0000-0000-0000-000000000007', input_tokens => 2), run_tracker.start_task('e1000000-0000-0000-0000-000000000007', 'pending') AS retried;
SELECT monthly_tokens, daily_requests FROM run_tracker.usage_sums(repeat('é', 256));
CALL pg_temp.try(format('SELECT run_tracker.usage_sums(%L)', repeat('é', 257)));
SELECT count(*) AS wrong FROM regress_wrong;
SELECT run_tracker.fold_statistics() >= 0 AS folded;
SELECT monthly_tokens, daily_requests FROM run_tracker.usage_sums(repeat('é', 256));
SELECT count(*) AS wrong FROM regress_wrong;
-- a user whose name begins like that of another one is another one
SELECT daily_requests FROM run_tracker.usage_sums(repeat('é', 255));
DELETE FROM run_tracker.runs WHERE user_id = '' OR length(user_id) > 200;
DELETE FROM run_tracker.usage_records WHERE user_id = '' OR length(user_id) > 200;

-- deletion and retention take the entries, and leave the sums
TRUNCATE run_tracker.stat_deltas, run_tracker.stat_totals;
DELETE FROM run_tracker.runs;
DELETE FROM run_tracker.usage_records;
INSERT INTO run_tracker.runs (run_id, user_id) VALUES (:run, 'alice');
INSERT INTO run_tracker.tasks (run_id, model) SELECT :run, 'm' || i % 3 FROM generate_series(1, 1000) i;
-- in one statement
UPDATE run_tracker.tasks SET status = 'completed', total_tokens = 10, cost = 0.01;
:check
UPDATE run_tracker.tasks SET total_tokens = 20 WHERE model = 'm1';
UPDATE run_tracker.tasks SET status = 'failed' WHERE model = 'm2';
UPDATE run_tracker.tasks SET status = 'pending' WHERE model = 'm2';
:check
SELECT count(*) AS entries FROM run_tracker.usage_records;
UPDATE run_tracker.runs SET status = 'completed';
:check
CREATE TABLE regress_before AS SELECT * FROM regress_counted;
DELETE FROM run_tracker.tasks WHERE model = 'm0';
SELECT run_tracker.purge_runs('0') AS purged, run_tracker.purge_usage('0', 300) AS some, run_tracker.purge_usage('0') AS rest, run_tracker.purge_usage('0') AS none;
SELECT count(*) AS entries FROM run_tracker.usage;
SELECT * FROM regress_counted EXCEPT SELECT * FROM regress_before;
SELECT run_tracker.fold_statistics() >= 0 AS folded;
SELECT * FROM regress_counted EXCEPT SELECT * FROM regress_before;
SELECT monthly_tokens, monthly_cost, daily_requests FROM run_tracker.usage_sums('alice');
INSERT INTO run_tracker.usage_records (user_id, total_tokens) VALUES ('alice', 1);
TRUNCATE run_tracker.usage_records, run_tracker.tasks;
SELECT monthly_tokens, monthly_cost, daily_requests FROM run_tracker.usage_sums('alice');
DROP TABLE regress_before;

--
-- Records
--
TRUNCATE run_tracker.stat_deltas, run_tracker.stat_totals;
CREATE FUNCTION pg_temp.r(n int) RETURNS uuid LANGUAGE sql AS $$ SELECT ('e2000000-0000-0000-0000-' || lpad(n::text, 12, '0'))::uuid $$;
SELECT run_tracker.record_usage('bob', 100, 0.5, 2, 60, 30, 'p', 'm', 'function:f', pg_temp.r(7), :run, '{"a": 1}', pg_temp.r(1));
SELECT user_id, source, requests, input_tokens, output_tokens, total_tokens, cost, provider, model, endpoint, run_id, task_id, session_id, reservation_id, usage_id, metadata
FROM run_tracker.usage \gx
:check
-- again: it is there; what is somebody else's is taken
SELECT run_tracker.record_usage('bob', 7, 7, usage_id => pg_temp.r(1));
CALL pg_temp.try($$SELECT run_tracker.record_usage('carol', 7, 7, usage_id => pg_temp.r(1))$$);
:check
SELECT substr(run_tracker.record_usage('bob', input_tokens => 3, output_tokens => 4)::text, 15, 1) AS version;
SELECT run_tracker.record_usage('bob', usage_id => pg_temp.r(2)), run_tracker.record_usage('bob', NULL, NULL, NULL, usage_id => pg_temp.r(3)), run_tracker.record_usage('bob', 0, 0, 0, usage_id => pg_temp.r(4));
SELECT requests, input_tokens, total_tokens, cost FROM run_tracker.usage_records WHERE usage_id IN (pg_temp.r(2), pg_temp.r(3), pg_temp.r(4)) ORDER BY usage_id;
:check
-- what cannot be
CALL pg_temp.try($$SELECT run_tracker.record_usage()$$);
CALL pg_temp.try($$SELECT run_tracker.record_usage('')$$);
CALL pg_temp.try(format('SELECT run_tracker.record_usage(%L)', repeat('a', 513)));
CALL pg_temp.try($$SELECT run_tracker.record_usage('bob', -1)$$);
CALL pg_temp.try($$SELECT run_tracker.record_usage('bob', 1000000000001)$$);
CALL pg_temp.try($$SELECT run_tracker.record_usage('bob', input_tokens => -1)$$);
CALL pg_temp.try($$SELECT run_tracker.record_usage('bob', output_tokens => 1000000000001)$$);
CALL pg_temp.try($$SELECT run_tracker.record_usage('bob', input_tokens => 600000000000, output_tokens => 600000000000)$$);
CALL pg_temp.try($$SELECT run_tracker.record_usage('bob', cost => -0.01)$$);
CALL pg_temp.try($$SELECT run_tracker.record_usage('bob', cost => 'NaN')$$);
CALL pg_temp.try($$SELECT run_tracker.record_usage('bob', cost => 'Infinity')$$);
CALL pg_temp.try($$SELECT run_tracker.record_usage('bob', cost => 1000000000000.01)$$);
CALL pg_temp.try($$SELECT run_tracker.record_usage('bob', cost => 1e-41)$$);
CALL pg_temp.try($$SELECT run_tracker.record_usage('bob', requests => -1)$$);
CALL pg_temp.try($$SELECT run_tracker.record_usage('bob', requests => 1000001)$$);
CALL pg_temp.try($$SELECT run_tracker.record_usage('bob', metadata => '[]')$$);
CALL pg_temp.try(format('SELECT run_tracker.record_usage(%L, model => %L)', 'bob', repeat('a', 10000)));
\set VERBOSITY terse
INSERT INTO run_tracker.usage_records (user_id, source) VALUES ('bob', 'task');
\set VERBOSITY default
CALL pg_temp.try($$INSERT INTO run_tracker.usage_records (user_id, used_at) VALUES ('bob', 'infinity')$$);
CALL pg_temp.try($$INSERT INTO run_tracker.usage_records DEFAULT VALUES$$);
START TRANSACTION READ ONLY;
SELECT run_tracker.record_usage('bob', 1);
ROLLBACK;
:check
-- the largest ones
BEGIN;
SELECT run_tracker.record_usage('max', 1000000000000, 1e12 - 1e-40, 1000000, usage_id => pg_temp.r(n)) FROM generate_series(10, 12) n \g /dev/null
SELECT monthly_tokens, monthly_cost, daily_requests FROM run_tracker.usage_sums('max');
SELECT run_tracker.fold_statistics() >= 0 AS folded;
SELECT monthly_tokens, monthly_cost, daily_requests FROM run_tracker.usage_sums('max');
ROLLBACK;
-- plain SQL, and bulk; corrections count the difference; who, when and which stays
INSERT INTO run_tracker.usage_records (usage_id, user_id, input_tokens, output_tokens, cost) VALUES (pg_temp.r(20), 'dave', 1, 2, NULL) RETURNING source, requests, total_tokens, cost;
INSERT INTO run_tracker.usage_records (user_id, total_tokens, requests, source) SELECT 'dave', i, NULL, NULL FROM generate_series(1, 100) i;
:check
UPDATE run_tracker.usage_records SET total_tokens = total_tokens + 1, requests = 0, user_id = 'x', usage_id = gen_random_uuid(), used_at = '2001-01-01' WHERE user_id = 'dave' AND usage_id <> pg_temp.r(20);
UPDATE run_tracker.usage_records SET cost = 3 WHERE usage_id = pg_temp.r(20) RETURNING user_id, used_at > '2002-01-01' AS kept;
:check
CALL pg_temp.try($$UPDATE run_tracker.usage_records SET total_tokens = -1$$);
CALL pg_temp.try($$UPDATE run_tracker.usage_records SET cost = 'NaN'$$);
INSERT INTO run_tracker.usage_records (usage_id, user_id, total_tokens) VALUES (pg_temp.r(20), 'dave', 5), (pg_temp.r(21), 'dave', 6) ON CONFLICT (usage_id) DO UPDATE SET total_tokens = 50;
MERGE INTO run_tracker.usage_records u USING (VALUES (pg_temp.r(21), 1), (pg_temp.r(22), 2)) v (id, n) ON u.usage_id = v.id
    WHEN MATCHED THEN UPDATE SET total_tokens = 60 WHEN NOT MATCHED THEN INSERT (usage_id, user_id, total_tokens) VALUES (v.id, 'dave', 70);
:check
DELETE FROM run_tracker.usage_records WHERE user_id = 'dave';
SELECT tokens FROM regress_counted WHERE user_id = 'dave' AND period = 'day';
-- requests of sessions
SELECT run_tracker.open_session('erin', pg_temp.r(50)) AS session \gset
SELECT run_tracker.log_request(:'session', 'function:f', '{"a": 1}', request_id => pg_temp.r(51)) AS first, run_tracker.log_request(:'session', 'again', NULL, 'erin', pg_temp.r(51)) AS again;
SELECT run_tracker.log_request(user_id => 'erin', request_id => pg_temp.r(52)), run_tracker.log_request(NULL, 'e', NULL, 'erin', pg_temp.r(53));
SELECT usage_id, user_id, source, session_id, endpoint, requests, total_tokens, cost, metadata FROM run_tracker.usage WHERE user_id = 'erin' ORDER BY usage_id;
SELECT daily_requests FROM run_tracker.usage_sums('erin');
-- the tokens are told later: no other request
SELECT run_tracker.record_usage('erin', 7, requests => 0, session_id => :'session') IS NOT NULL AS recorded;
SELECT daily_requests, monthly_tokens FROM run_tracker.usage_sums('erin');
CALL pg_temp.try($$SELECT run_tracker.log_request()$$);
CALL pg_temp.try($$SELECT run_tracker.log_request(user_id => '')$$);
CALL pg_temp.try(format('SELECT run_tracker.log_request(user_id => %L)', repeat('a', 513)));
CALL pg_temp.try($$SELECT run_tracker.log_request('00000000-0000-0000-0000-00000000000e')$$);
CALL pg_temp.try($$SELECT run_tracker.log_request(pg_temp.r(50), user_id => 'bob')$$);
CALL pg_temp.try($$SELECT run_tracker.log_request(user_id => 'bob', request_id => pg_temp.r(51))$$);
CALL pg_temp.try($$SELECT run_tracker.log_request(user_id => 'erin', metadata => '[]')$$);
SET ROLE regress_usage_client;
SET request.jwt.claims = '{"sub": "erin"}';
SELECT run_tracker.log_request(pg_temp.r(50)) IS NOT NULL AS logged, run_tracker.log_request() IS NOT NULL AS without;
CALL pg_temp.try($$SELECT run_tracker.log_request(user_id => 'bob')$$);
SET request.jwt.claims = '{"sub": "alice"}';
CALL pg_temp.try($$SELECT run_tracker.log_request(pg_temp.r(50))$$);
CALL pg_temp.try($$SELECT run_tracker.log_request(request_id => pg_temp.r(51))$$);
RESET ROLE;
RESET request.jwt.claims;
SELECT daily_requests FROM run_tracker.usage_sums('erin');
DELETE FROM run_tracker.sessions;
CALL pg_temp.try($$SELECT run_tracker.purge_usage('-1 day')$$);
CALL pg_temp.try($$SELECT run_tracker.purge_usage(NULL)$$);
CALL pg_temp.try($$SELECT run_tracker.purge_usage('0', 0)$$);
CALL pg_temp.try($$SELECT run_tracker.purge_usage('0', NULL)$$);
CALL pg_temp.try($$SELECT run_tracker.forget_reservations(NULL, 1)$$);
CALL pg_temp.try($$SELECT run_tracker.forget_reservations(now(), NULL)$$);

--
-- Days and months of time zones
--
DELETE FROM run_tracker.usage_records;
TRUNCATE run_tracker.stat_deltas, run_tracker.stat_totals;
CREATE FUNCTION pg_temp.borders(zone text) RETURNS TABLE (used timestamptz) LANGUAGE sql AS $$
    SELECT (d::timestamp AT TIME ZONE zone) + s FROM unnest('{2024-02-29,2024-03-01,2024-12-31,2025-01-01,2025-03-09,2025-03-10,2025-11-02,2025-11-03,1999-12-31,2000-01-01}'::date[]) d,
        unnest('{-1 microsecond,0,1 microsecond,12 hours}'::interval[]) s
$$;
SET run_tracker.time_zone = 'Asia/Kolkata';
INSERT INTO run_tracker.usage_records (user_id, used_at, total_tokens) SELECT 'in', used, 1 FROM pg_temp.borders('Asia/Kolkata');
SELECT at, requests FROM regress_counted WHERE period = 'day' ORDER BY at;
SELECT at, requests FROM regress_counted WHERE period = 'month' ORDER BY at;
SELECT * FROM regress_wrong;
SELECT run_tracker.fold_statistics() >= 0 AS folded;
SELECT * FROM regress_wrong;
UPDATE run_tracker.usage_records SET total_tokens = 2;
SELECT * FROM regress_wrong;
DELETE FROM run_tracker.usage_records;
TRUNCATE run_tracker.stat_deltas, run_tracker.stat_totals;
SET run_tracker.time_zone = 'America/St_Johns';
INSERT INTO run_tracker.usage_records (user_id, used_at, total_tokens) SELECT 'ca', used, 1 FROM pg_temp.borders('America/St_Johns');
SELECT at, requests FROM regress_counted WHERE period = 'month' ORDER BY at;
SELECT * FROM regress_wrong;
SELECT run_tracker.fold_statistics() >= 0 AS folded;
SELECT * FROM regress_wrong;
DELETE FROM run_tracker.usage_records;
TRUNCATE run_tracker.stat_deltas, run_tracker.stat_totals;
-- where clocks are set back at midnight, or before it, a day begins twice; in any order
SET run_tracker.time_zone = 'America/Havana';
INSERT INTO run_tracker.usage_records (user_id, used_at, total_tokens) SELECT 'cu', t, 1 FROM generate_series('2025-10-31 12:15+00'::timestamptz, '2025-11-04 12:00+00', '30 minutes') t;
SELECT at, requests FROM regress_counted WHERE period = 'day' AND user_id = 'cu' ORDER BY at;
INSERT INTO run_tracker.usage_records (user_id, used_at, total_tokens) SELECT 'cu', t, 1 FROM generate_series('2026-03-10 12:15+00'::timestamptz, '2026-03-05 12:00+00', '-30 minutes') t;
SELECT * FROM regress_wrong;
SET run_tracker.time_zone = 'America/St_Johns';
INSERT INTO run_tracker.usage_records (user_id, used_at, total_tokens) SELECT 'ca', t, 1 FROM generate_series('2010-11-05 12:15+00'::timestamptz, '2010-11-09 12:00+00', '30 minutes') t;
SELECT user_id, period, at FROM regress_wrong WHERE user_id = 'ca';
DELETE FROM run_tracker.usage_records;
TRUNCATE run_tracker.stat_deltas, run_tracker.stat_totals;
-- today and this month begin and end there, too
SET run_tracker.time_zone = 'Pacific/Kiritimati';
INSERT INTO run_tracker.usage_records (user_id, used_at, total_tokens)
SELECT 'ki', x.at + s, 10 ^ x.n FROM run_tracker.usage_sums('ki') u,
       LATERAL (VALUES (1, u.day_ends_at), (2, u.month_ends_at), (3, u.day::timestamp AT TIME ZONE 'Pacific/Kiritimati'), (4, u.month::timestamp AT TIME ZONE 'Pacific/Kiritimati')) x (n, at),
       unnest('{-1 microsecond,0}'::interval[]) s;
SELECT * FROM regress_wrong;
SELECT run_tracker.fold_statistics() >= 0 AS folded;
SELECT * FROM regress_wrong;
-- after a change of the zone, what has been counted stays with its day; corrections go to the day that it would be now
SET run_tracker.time_zone = 'Pacific/Pago_Pago';
CREATE TABLE regress_before AS SELECT * FROM regress_counted;
SELECT run_tracker.fold_statistics() AS folded;
SELECT * FROM regress_counted EXCEPT SELECT * FROM regress_before;
UPDATE run_tracker.usage_records SET total_tokens = total_tokens + 1;
SELECT sum(c.tokens) - (SELECT sum(tokens) FROM regress_before b WHERE period = 'day') AS difference FROM regress_counted c WHERE period = 'day';
DROP TABLE regress_before;
RESET run_tracker.time_zone;
-- the first and last moments that there are
CALL pg_temp.try($$INSERT INTO run_tracker.usage_records (user_id, used_at) VALUES ('x', '4713-01-01 00:00:00+00 BC'), ('x', '294276-12-30 23:59:59+00'), ('x', '294276-12-31 23:59:59+00')$$);
SELECT run_tracker.fold_statistics() >= 0 AS folded;
SELECT at, requests FROM regress_counted WHERE user_id = 'x' ORDER BY 1;

--
-- A check reads few rows, however long the history is
--
DELETE FROM run_tracker.runs;
DELETE FROM run_tracker.usage_records;
TRUNCATE run_tracker.stat_deltas, run_tracker.stat_totals;
INSERT INTO run_tracker.usage_records (user_id, total_tokens, used_at) SELECT 'u' || i % 100, 1, now() - i / 100 * interval '1 day' FROM generate_series(1, 5000) i;
SELECT run_tracker.fold_statistics() >= 0 AS folded;
INSERT INTO run_tracker.usage_records (user_id, total_tokens) SELECT 'u1', 1;
INSERT INTO run_tracker.usage_records (user_id, total_tokens) SELECT 'u' || i, 1 FROM generate_series(200, 3000) i;
CREATE VIEW regress_reads AS
SELECT relname, COALESCE(seq_scan, 0) AS seq_scan, COALESCE(idx_scan, 0) AS idx_scan, COALESCE(idx_tup_fetch, 0) AS rows
FROM pg_stat_xact_user_tables WHERE schemaname = 'run_tracker' AND relname IN ('stat_deltas', 'stat_totals', 'reservations', 'usage_records', 'tasks');
BEGIN;
CREATE TEMP TABLE regress_before AS SELECT * FROM regress_reads;
SELECT count(*) FROM run_tracker.usage_sums('u1');
-- the delta, the month and the day
SELECT r.relname, r.seq_scan - b.seq_scan AS seq_scan, r.idx_scan - b.idx_scan AS idx_scan, r.rows - b.rows AS rows
FROM regress_reads r JOIN regress_before b USING (relname) ORDER BY 1;
DROP TABLE regress_before;
COMMIT;
SELECT * FROM regress_wrong;

--
-- Users
--
DELETE FROM run_tracker.usage_records;
TRUNCATE run_tracker.stat_deltas, run_tracker.stat_totals;
SELECT run_tracker.record_usage('bob', 5, usage_id => pg_temp.r(30));
SET ROLE regress_usage_client;
SET request.jwt.claims = '{"sub": "alice"}';
SELECT run_tracker.record_usage(tokens => 5, cost => 0.5, usage_id => pg_temp.r(31)), run_tracker.record_usage('alice', 5, usage_id => pg_temp.r(32));
CALL pg_temp.try($$SELECT run_tracker.record_usage('bob', 5)$$);
CALL pg_temp.try($$SELECT run_tracker.record_usage(usage_id => pg_temp.r(30))$$);
CALL pg_temp.try($$SELECT run_tracker.usage_sums('bob')$$);
CALL pg_temp.try($$SELECT run_tracker.purge_usage()$$);
CALL pg_temp.try($$SELECT run_tracker.forget_reservations(now(), 1)$$);
CALL pg_temp.try($$INSERT INTO run_tracker.usage_records (user_id, total_tokens) VALUES ('bob', 1)$$);
CALL pg_temp.try($$INSERT INTO run_tracker.usage_records (user_id, total_tokens) VALUES ('', 1)$$);
CALL pg_temp.try($$INSERT INTO run_tracker.usage_records (total_tokens, used_at) VALUES (1, '2001-01-01')$$);
CALL pg_temp.try($$INSERT INTO run_tracker.usage_records (total_tokens) VALUES (-1)$$);
CALL pg_temp.try($$INSERT INTO run_tracker.usage_records (usage_id, total_tokens) VALUES (pg_temp.r(31), 0) ON CONFLICT (usage_id) DO UPDATE SET total_tokens = 0$$);
CALL pg_temp.try($$UPDATE run_tracker.usage_records SET total_tokens = 0$$);
CALL pg_temp.try($$DELETE FROM run_tracker.usage_records$$);
CALL pg_temp.try($$TRUNCATE run_tracker.usage_records$$);
CALL pg_temp.try($$UPDATE run_tracker.usage SET cost = 0$$);
CALL pg_temp.try($$DELETE FROM run_tracker.stat_deltas$$);
CALL pg_temp.try($$SET run_tracker.time_zone = 'Pacific/Kiritimati'$$);
CALL pg_temp.try($$SELECT set_config('run_tracker.time_zone', 'Pacific/Kiritimati', false)$$);
SET TimeZone = 'Pacific/Kiritimati';
INSERT INTO run_tracker.usage_records (total_tokens) VALUES (7);
SELECT user_id, total_tokens FROM run_tracker.usage ORDER BY total_tokens;
SELECT monthly_tokens, monthly_cost, daily_requests, reserved_tokens FROM run_tracker.usage_sums();
SET request.jwt.claims = '';
CALL pg_temp.try($$SELECT run_tracker.record_usage()$$);
CALL pg_temp.try($$SELECT run_tracker.usage_sums()$$);
SELECT count(*) FROM run_tracker.usage;
SET ROLE regress_usage_service;
SELECT run_tracker.record_usage('carol', 5) IS NOT NULL AS recorded;
UPDATE run_tracker.usage_records SET total_tokens = 6 WHERE user_id = 'carol';
SELECT user_id, total_tokens FROM run_tracker.usage ORDER BY 1, 2;
SELECT monthly_tokens FROM run_tracker.usage_sums('carol');
RESET ROLE;
RESET request.jwt.claims;
RESET TimeZone;
SELECT * FROM regress_wrong;

-- the first and the last day there are; what is summed up per day and month can be read, and dumped
INSERT INTO run_tracker.usage_records (user_id, total_tokens, used_at) VALUES
    ('ever', 1, '4714-11-24 00:00:00Z BC'), ('ever', 2, '294276-12-31 23:59:59.999999Z');
SELECT run_tracker.fold_statistics() >= 0 AS folded;
SELECT period, period_at AT TIME ZONE 'UTC' AS period_at, total_tokens FROM run_tracker.stat_totals WHERE grain = 'usage' AND user_id = 'ever' ORDER BY 1, 3;

DROP VIEW regress_reads, regress_wrong, regress_entries, regress_counted;
DELETE FROM run_tracker.runs;
DELETE FROM run_tracker.usage_records;
TRUNCATE run_tracker.stat_deltas, run_tracker.stat_totals;
DROP OWNED BY regress_usage_client, regress_usage_service;
DROP ROLE regress_usage_client, regress_usage_service;
