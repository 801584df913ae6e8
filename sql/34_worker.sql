-- The background worker.

CREATE FUNCTION run_tracker.worker_state(OUT database text, OUT state text, OUT pid integer, OUT launcher_pid integer,
    OUT last_pass_at timestamptz, OUT next_deadline_at timestamptz, OUT retry_at timestamptz, OUT passes bigint,
    OUT timed_out bigint, OUT requeued bigint, OUT rearmed bigint, OUT pending_notifications integer,
    OUT notifications bigint, OUT resyncs bigint, OUT folded bigint, OUT errors bigint, OUT failures integer, OUT last_error text,
    OUT last_error_at timestamptz)
RETURNS SETOF record
LANGUAGE c VOLATILE ROWS 5 SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'run_tracker_worker_state';
COMMENT ON FUNCTION run_tracker.worker_state() IS
'What the view run_tracker.worker_status shows. No row where the library is not preloaded.';

CREATE FUNCTION run_tracker.wake_worker() RETURNS boolean
LANGUAGE c SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'run_tracker_wake_worker';
COMMENT ON FUNCTION run_tracker.wake_worker() IS
'Has the background worker look at this database as soon as the transaction has committed, for instance after rows came in past the triggers. False where the library is not preloaded. For services.';

-- A view of the extension's, not of the user's: it shows what the server does, and holds nothing that could be lost.
CREATE VIEW run_tracker.worker_status WITH (security_invoker = true) AS
SELECT s.database, s.state, s.pid, s.launcher_pid, s.last_pass_at, s.next_deadline_at, s.retry_at, s.passes,
       s.timed_out, s.requeued, s.rearmed, s.pending_notifications, s.notifications, s.resyncs, s.folded, s.errors,
       s.failures, s.last_error, s.last_error_at
FROM run_tracker.worker_state() s;
DO $$ BEGIN PERFORM run_tracker.revoke_all('run_tracker.worker_status'); END $$;

COMMENT ON VIEW run_tracker.worker_status IS
'What the background worker does, a row per database: all of them for members of pg_monitor, else the current one. Empty where the library is not preloaded. Counters begin with the server.';
COMMENT ON COLUMN run_tracker.worker_status.database IS 'Database.';
COMMENT ON COLUMN run_tracker.worker_status.state IS
'working, sleeping, failing (see last_error), disabled (run_tracker.enabled is off), incomplete (triggers are missing or switched off: run_tracker.install()), not installed, or unknown (not looked at yet).';
COMMENT ON COLUMN run_tracker.worker_status.pid IS 'Process that is working in the database now.';
COMMENT ON COLUMN run_tracker.worker_status.launcher_pid IS 'Process that starts workers; null if it is not running.';
COMMENT ON COLUMN run_tracker.worker_status.last_pass_at IS 'When the worker last looked for deadlines that had passed.';
COMMENT ON COLUMN run_tracker.worker_status.next_deadline_at IS
'Until when it sleeps, as far as it knows now; runs that finish earlier are not noticed here.';
COMMENT ON COLUMN run_tracker.worker_status.retry_at IS 'After an error: when it tries again.';
COMMENT ON COLUMN run_tracker.worker_status.passes IS 'How often it looked for deadlines that had passed.';
COMMENT ON COLUMN run_tracker.worker_status.timed_out IS 'Runs that it ended.';
COMMENT ON COLUMN run_tracker.worker_status.requeued IS 'Runs that it sent back to the queue for another attempt.';
COMMENT ON COLUMN run_tracker.worker_status.rearmed IS 'Deadlines that it moved because of activity.';
COMMENT ON COLUMN run_tracker.worker_status.pending_notifications IS 'Runs that have changed and are not announced yet.';
COMMENT ON COLUMN run_tracker.worker_status.notifications IS 'Announcements of runs that it has sent.';
COMMENT ON COLUMN run_tracker.worker_status.resyncs IS
'How often it told listeners to read everything again, see run_tracker.notify_queue_size.';
COMMENT ON COLUMN run_tracker.worker_status.folded IS
'Rows of stat_deltas that it has folded into stat_totals, see run_tracker.fold_interval.';
COMMENT ON COLUMN run_tracker.worker_status.errors IS 'Errors, those of single runs included.';
COMMENT ON COLUMN run_tracker.worker_status.failures IS 'Errors in a row that ended its work; 0 after a success.';
COMMENT ON COLUMN run_tracker.worker_status.last_error IS 'Message of the last error.';
COMMENT ON COLUMN run_tracker.worker_status.last_error_at IS 'When that was.';
