-- What the owner of the tables may add to them: it works, it is not run with the rights of others than the owner, and
-- what would break the library is an error, not a crash.
\set SHOW_CONTEXT never
\pset null (null)
SET client_min_messages = warning;
\set run '\'d1000000-0000-0000-0000-000000000001\''
\set task '\'d2000000-0000-0000-0000-000000000001\''
SELECT run_tracker.create_run(:run) \g /dev/null
SELECT run_tracker.create_task(:run, :task) \g /dev/null

-- columns with defaults, triggers on columns and generated columns of the bookkeeping
ALTER TABLE run_tracker.transitions ADD COLUMN region text NOT NULL DEFAULT 'eu';
ALTER TABLE run_tracker.run_totals ADD COLUMN region text NOT NULL DEFAULT 'eu',
    ADD COLUMN tokens_twice bigint GENERATED ALWAYS AS (total_tokens * 2) STORED;
CREATE TABLE regress_seen (what text, who text);
CREATE FUNCTION regress_note() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN INSERT INTO public.regress_seen VALUES (TG_TABLE_NAME, CURRENT_USER = 'regress_owner_client'); RETURN NULL; END $$;
CREATE TRIGGER note AFTER UPDATE OF total_tokens ON run_tracker.run_totals FOR EACH ROW EXECUTE FUNCTION regress_note();
SELECT run_tracker.start_run(:run);
SELECT run_tracker.complete_task(:task, input_tokens => 21);
SELECT region, to_status FROM run_tracker.transitions WHERE run_id = :run;
SELECT region, total_tokens, tokens_twice FROM run_tracker.run_totals WHERE run_id = :run;
SELECT * FROM regress_seen;
DROP TRIGGER note ON run_tracker.run_totals;
ALTER TABLE run_tracker.transitions DROP COLUMN region;
ALTER TABLE run_tracker.run_totals DROP COLUMN region, DROP COLUMN tokens_twice;

-- a trigger that does not qualify its names meets no table of the client's while the tracker acts as the owner
CREATE FUNCTION regress_audit() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN INSERT INTO regress_seen VALUES (TG_TABLE_NAME, 'unqualified'); RETURN NULL; END $$;
CREATE TRIGGER audit AFTER UPDATE ON run_tracker.tasks FOR EACH ROW WHEN (OLD.phase IS DISTINCT FROM NEW.phase)
    EXECUTE FUNCTION regress_audit();
CREATE ROLE regress_owner_client;
SELECT run_tracker.grant_client('regress_owner_client') \g /dev/null
SET ROLE regress_owner_client;
SET request.jwt.claims = '{"sub": "mallory"}';
SELECT run_tracker.create_run('d1000000-0000-0000-0000-000000000002') \g /dev/null
SELECT run_tracker.create_task('d1000000-0000-0000-0000-000000000002', 'd2000000-0000-0000-0000-000000000002') \g /dev/null
CREATE TEMP TABLE regress_seen (what text, who text);
CREATE FUNCTION pg_temp.evil() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION 'ran as superuser: %', (SELECT rolsuper FROM pg_roles WHERE rolname = CURRENT_USER); END $$;
CREATE TRIGGER evil BEFORE INSERT ON pg_temp.regress_seen FOR EACH ROW EXECUTE FUNCTION pg_temp.evil();
SELECT run_tracker.complete_run('d1000000-0000-0000-0000-000000000002');
DROP TABLE pg_temp.regress_seen;
RESET ROLE;
RESET request.jwt.claims;
DROP TRIGGER audit ON run_tracker.tasks;

-- an open task cannot slip into a run that the same statement ends
SELECT run_tracker.create_run('d1000000-0000-0000-0000-000000000003') \g /dev/null
SELECT run_tracker.create_task('d1000000-0000-0000-0000-000000000003', 'd2000000-0000-0000-0000-000000000003') \g /dev/null
SELECT run_tracker.complete_task('d2000000-0000-0000-0000-000000000003');
WITH t AS (UPDATE run_tracker.tasks SET status = 'running' WHERE task_id = 'd2000000-0000-0000-0000-000000000003')
UPDATE run_tracker.runs SET status = 'completed' WHERE run_id = 'd1000000-0000-0000-0000-000000000003';
SELECT r.phase AS run, t.phase AS task FROM run_tracker.runs r JOIN run_tracker.tasks t USING (run_id)
WHERE run_id = 'd1000000-0000-0000-0000-000000000003';

-- columns of another type (one that no view uses), and keys of another order
BEGIN;
ALTER TABLE run_tracker.runs ALTER COLUMN retry_base TYPE bigint USING 4660;
UPDATE run_tracker.runs SET priority = 1;
ROLLBACK;
BEGIN;
ALTER TABLE run_tracker.tasks ALTER COLUMN phase DROP NOT NULL;
UPDATE run_tracker.tasks SET name = 'x';
ROLLBACK;
BEGIN;
ALTER TABLE run_tracker.run_totals DROP CONSTRAINT run_totals_pkey, ADD PRIMARY KEY (slot, run_id);
SELECT run_tracker.add_message(:run, 'user', 'x');
ROLLBACK;

-- all tables at once, and the bookkeeping goes on in the same transaction
BEGIN;
SELECT run_tracker.add_log(:run, 'x', 'ERROR') FROM generate_series(1, 100) \g /dev/null
TRUNCATE run_tracker.runs, run_tracker.tasks, run_tracker.response_chunks, run_tracker.messages, run_tracker.logs, run_tracker.retrievals,
    run_tracker.artifacts, run_tracker.transitions, run_tracker.run_totals, run_tracker.open_runs, run_tracker.stat_deltas, run_tracker.stat_totals;
SELECT run_tracker.create_run(:run) \g /dev/null
SELECT run_tracker.add_log(:run, 'x', 'ERROR');
SELECT error_count FROM run_tracker.run_summary;
COMMIT;
SELECT count(*) AS wrong FROM run_tracker.check_totals();

DELETE FROM run_tracker.runs;
DROP TABLE regress_seen;
DROP FUNCTION regress_note, regress_audit;
DROP OWNED BY regress_owner_client;
DROP ROLE regress_owner_client;
