-- Work that is handed out.

CREATE FUNCTION run_tracker.claim_runs(worker text, max_runs integer DEFAULT 1, lifecycle text DEFAULT NULL,
    kind text DEFAULT NULL)
RETURNS TABLE (run_id uuid, attempt integer, user_id text, lifecycle text, status text, kind text, name text,
    priority integer, max_attempts integer, workflow_id text, session_id text, subject_id text, parent_run_id uuid,
    inputs jsonb, settings jsonb, variables jsonb, plan jsonb, metadata jsonb, created_at timestamptz,
    scheduled_at timestamptz)
LANGUAGE c SET search_path = pg_catalog, pg_temp ROWS 10
AS 'MODULE_PATHNAME', 'run_tracker_claim_runs';
COMMENT ON FUNCTION run_tracker.claim_runs(text, integer, text, text) IS
'Hands queued runs out to a worker: highest priority first, then oldest, of one lifecycle or kind or of all, none that is scheduled for later. They move to the first active status of their lifecycle, and nobody else gets them. Never waits for other workers. Give attempt to the calls that follow; call heartbeat_run() more often than the idle timeout. 22023 for max_runs below 1 or above 10000, RT002 for an unknown lifecycle. For services.';

CREATE FUNCTION run_tracker.heartbeat_run(run_id uuid, attempt integer DEFAULT NULL) RETURNS boolean
LANGUAGE c SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'run_tracker_heartbeat_run';
COMMENT ON FUNCTION run_tracker.heartbeat_run(uuid, integer) IS
'Says that an open run is being worked on: its idle timeout begins anew. True if that was noted, false if somebody else has just noted activity or, for longer, is changing the run: then it is not timed out, and the next heartbeat counts. Writes no ledger row and no index entry. RT003 if attempt is given and not the current one: somebody else has taken over. 55000 if the run is finished, P0002 if there is no such run.';

CREATE FUNCTION run_tracker.release_run(run_id uuid, delay interval DEFAULT NULL, attempt integer DEFAULT NULL)
RETURNS boolean
LANGUAGE c SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'run_tracker_release_run';
COMMENT ON FUNCTION run_tracker.release_run(uuid, interval, integer) IS
'Gives a claimed run back to the queue, for instance when its worker shuts down; the attempt does not count as failed. delay sets scheduled_at. True if it was moved, false if it is queued already. RT001 if the lifecycle has no way back, RT003, P0002 as start_run(), 22023 for a negative delay.';
