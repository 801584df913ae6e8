SELECT run_tracker.current_user_id() AS "I am",
       (SELECT count(*) FROM run_tracker.runs) AS runs,
       (SELECT count(*) FROM run_tracker.tasks) AS tasks,
       (SELECT count(*) FROM run_tracker.messages) AS messages,
       (SELECT count(*) FROM run_tracker.logs) AS logs,
       (SELECT count(*) FROM run_tracker.transitions) AS transitions,
       (SELECT count(*) FROM run_tracker.run_totals) AS totals,
       (SELECT count(*) FROM run_tracker.run_summary) AS summaries;
-- The demo fails if he does see something.
DO $$
BEGIN
    IF run_tracker.current_user_id() IS DISTINCT FROM 'bob' THEN
        RAISE EXCEPTION 'this should be bob';
    END IF;
    IF EXISTS (SELECT FROM run_tracker.runs) OR EXISTS (SELECT FROM run_tracker.tasks)
        OR EXISTS (SELECT FROM run_tracker.messages) OR EXISTS (SELECT FROM run_tracker.logs)
        OR EXISTS (SELECT FROM run_tracker.transitions) OR EXISTS (SELECT FROM run_tracker.run_totals)
        OR EXISTS (SELECT FROM run_tracker.open_runs) OR EXISTS (SELECT FROM run_tracker.run_summary) THEN
        RAISE EXCEPTION 'bob sees rows of alice';
    END IF;
END
$$;
