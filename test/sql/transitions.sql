--
-- Transitions: the history of every status change of a run, who made it, why, and how long the run was in the status
-- before; of tasks, too, if run_tracker.task_transitions is on.
--
\getenv abs_srcdir PG_ABS_SRCDIR
\set common :abs_srcdir '/sql/common.psql'
\i :common

CREATE ROLE regress_transitions_client;
CREATE ROLE regress_transitions_service;
SELECT run_tracker.grant_client('regress_transitions_client');
SELECT run_tracker.grant_service('regress_transitions_service');
\set run '''90000000-0000-0000-0000-000000000001'''
\set show 'SELECT t.seq, k.name AS task, t.user_id, t.from_status, t.to_status, t.attempt, t.actor, t.reason FROM run_tracker.transitions t LEFT JOIN run_tracker.tasks k USING (run_id, task_id) WHERE t.run_id = ''90000000-0000-0000-0000-000000000001'' ORDER BY t.seq;'

SET ROLE regress_transitions_client;
SET request.jwt.claims = '{"sub": "alice"}';
-- creation is no transition
SELECT run_tracker.create_run(:run);
:show
SELECT run_tracker.start_run(:run);
SELECT run_tracker.fail_run(:run, 'broken');
SELECT run_tracker.retry_run(:run);
-- nor is what changes nothing
SELECT run_tracker.retry_run(:run);
UPDATE run_tracker.runs SET priority = 1, status = status WHERE run_id = :run;
:show
-- a service: the actor is the role, where there is no user
RESET request.jwt.claims;
SET ROLE regress_transitions_service;
UPDATE run_tracker.runs SET status = 'cancelled', error = 'by hand' WHERE run_id = :run;
RESET ROLE;
:show

-- the times: state_ms is the time in the status before, in order
INSERT INTO run_tracker.runs (run_id, user_id) VALUES ('90000000-0000-0000-0000-000000000002', 'bob');
SELECT count(pg_sleep(0.02));
SELECT run_tracker.start_run('90000000-0000-0000-0000-000000000002');
SELECT count(pg_sleep(0.03));
SELECT run_tracker.complete_run('90000000-0000-0000-0000-000000000002');
SELECT to_status, state_ms >= CASE to_status WHEN 'running' THEN 20 ELSE 30 END AS long_enough,
       occurred_at > lag(occurred_at, 1, '2020-01-01') OVER (ORDER BY seq) AS in_order,
       state_ms <= 1 + 1000 * extract(epoch FROM occurred_at - lag(occurred_at, 1, r.created_at) OVER (ORDER BY seq)) AS not_longer
FROM run_tracker.transitions JOIN run_tracker.runs r USING (run_id) WHERE run_id = '90000000-0000-0000-0000-000000000002' ORDER BY seq;

-- what is rolled back has not happened; a statement over many runs makes one row for each
BEGIN;
UPDATE run_tracker.runs SET status = 'pending';
SELECT count(*) FROM run_tracker.transitions WHERE to_status = 'pending';
ROLLBACK;
SELECT count(*) FROM run_tracker.transitions WHERE to_status = 'pending';
-- a run that is inserted finished has no history
INSERT INTO run_tracker.runs (run_id, user_id, status) VALUES ('90000000-0000-0000-0000-000000000003', 'bob', 'completed');
SELECT count(*) FROM run_tracker.transitions WHERE run_id = '90000000-0000-0000-0000-000000000003';
-- two changes in one transaction are two
BEGIN;
SELECT run_tracker.retry_run('90000000-0000-0000-0000-000000000003');
SELECT run_tracker.fail_run('90000000-0000-0000-0000-000000000003', 'x');
COMMIT;
SELECT seq, from_status, to_status, reason FROM run_tracker.transitions WHERE run_id = '90000000-0000-0000-0000-000000000003' ORDER BY seq;

-- tasks: only when asked for
DELETE FROM run_tracker.runs;
INSERT INTO run_tracker.runs (run_id, user_id) VALUES (:run, 'alice');
INSERT INTO run_tracker.tasks (run_id, name) VALUES (:run, 'one'), (:run, 'two'), (:run, 'three');
UPDATE run_tracker.tasks SET status = 'running' WHERE name = 'one';
:show
SET run_tracker.task_transitions = on;
SET request.jwt.claims = '{"sub": "alice"}';
UPDATE run_tracker.tasks SET status = 'failed', error = 'broken' WHERE name = 'one';
UPDATE run_tracker.tasks SET status = status, cost = 1;
UPDATE run_tracker.tasks SET status = 'pending' WHERE name = 'one';
:show
-- the tasks that end with their run, too: by the same actor, be it a user …
BEGIN;
SELECT run_tracker.complete_run(:run);
SELECT t.to_status, k.name AS task, t.actor, t.reason FROM run_tracker.transitions t LEFT JOIN run_tracker.tasks k USING (run_id, task_id)
WHERE to_status IN ('completed', 'cancelled') ORDER BY k.name;
ROLLBACK;
-- … or a role
RESET request.jwt.claims;
SET ROLE regress_transitions_service;
SELECT run_tracker.complete_run(:run);
SELECT t.to_status, k.name AS task, t.actor FROM run_tracker.transitions t LEFT JOIN run_tracker.tasks k USING (run_id, task_id)
WHERE to_status IN ('completed', 'cancelled') ORDER BY k.name;
RESET ROLE;
RESET run_tracker.task_transitions;

-- nobody writes history but the triggers
SET ROLE regress_transitions_service;
CALL pg_temp.try($$UPDATE run_tracker.transitions SET actor = 'x'$$);
CALL pg_temp.try($$DELETE FROM run_tracker.transitions$$);
CALL pg_temp.try($$INSERT INTO run_tracker.transitions SELECT * FROM run_tracker.transitions$$);
RESET ROLE;

DELETE FROM run_tracker.runs;
SELECT count(*) FROM run_tracker.transitions;
DROP OWNED BY regress_transitions_client, regress_transitions_service;
DROP ROLE regress_transitions_client, regress_transitions_service;
