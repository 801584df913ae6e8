-- Runs whose time is up.

CREATE FUNCTION run_tracker.expire_runs(max_runs integer DEFAULT 1000, now timestamptz DEFAULT NULL) RETURNS bigint
LANGUAGE c SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'run_tracker_expire_runs';
COMMENT ON FUNCTION run_tracker.expire_runs(integer, timestamptz) IS
'Ends the open runs whose deadline is not after now (default: the wall clock), at most max_runs of them, and returns how many that were. A run that was active since has its deadline moved instead; one with attempts left goes back to the queue with backoff; one that somebody is changing is left for the next call. What the background worker does: only needed where the library is not preloaded. A run that cannot be ended because of a trigger gives a warning. 22023 for max_runs below 1, 42501 unless called by a service.';

CREATE FUNCTION run_tracker.stuck_runs(older_than interval DEFAULT '5 minutes')
RETURNS TABLE (run_id uuid, user_id text, lifecycle text, kind text, name text, status text, phase text,
    attempt integer, worker text, since timestamptz, stuck_duration interval, last_activity_at timestamptz,
    deadline_at timestamptz)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    moment timestamptz := clock_timestamp();
BEGIN
    PERFORM run_tracker.require_tables();
    IF older_than IS NULL OR older_than < interval '0' THEN
        RAISE EXCEPTION 'argument "older_than" must be an interval that is not negative'
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    RETURN QUERY
        SELECT r.run_id, r.user_id, r.lifecycle, r.kind, r.name, r.status, r.phase, r.attempt, r.worker, s.since,
               moment - s.since, GREATEST(o.last_activity_at, t.last_activity_at, r.updated_at), o.deadline_at
        FROM run_tracker.open_runs o
             JOIN run_tracker.runs r ON r.run_id = o.run_id
             LEFT JOIN LATERAL (SELECT max(n.last_activity_at) AS last_activity_at
                                FROM run_tracker.run_totals n WHERE n.run_id = o.run_id) t ON true
             LEFT JOIN LATERAL (SELECT h.occurred_at FROM run_tracker.transitions h
                                WHERE h.run_id = o.run_id AND h.task_id IS NULL
                                ORDER BY h.seq DESC LIMIT 1) h ON true
             CROSS JOIN LATERAL (SELECT CASE WHEN o.phase = 'queued'
                                             THEN GREATEST(COALESCE(h.occurred_at, r.created_at), o.available_at)
                                             ELSE COALESCE(h.occurred_at, r.started_at, r.created_at) END AS since) s
        WHERE o.phase IN ('queued', 'active') AND s.since < moment - older_than
        ORDER BY s.since, r.run_id;
END
$$;
COMMENT ON FUNCTION run_tracker.stuck_runs(interval) IS
'The queued and active runs whose status has not changed for longer than that, longest first; stuck_duration says how long. What waits for a human or another system is not among them, nor what is scheduled for later. 22023 for a negative interval.';
