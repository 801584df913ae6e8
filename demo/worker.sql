-- A worker: claims a run, works on it for a moment, completes it, until the queue is empty.
SELECT set_config('demo.worker', :'worker', false) \g /dev/null
DO $$
DECLARE
    claimed record;
BEGIN
    LOOP
        SELECT * INTO claimed FROM run_tracker.claim_runs(current_setting('demo.worker'), kind => 'email');
        EXIT WHEN NOT FOUND;
        COMMIT;
        PERFORM pg_sleep(0.02);
        PERFORM run_tracker.complete_run(claimed.run_id, attempt => claimed.attempt);
        COMMIT;
    END LOOP;
END
$$;
