-- The order in which the runs were started, as their priorities; and who did how many.
SELECT string_agg(priority::text, ' ' ORDER BY started_at) AS "priorities in the order of their start"
FROM run_tracker.runs WHERE kind = 'email';
SELECT worker, count(*) AS runs, min(priority) AS "lowest priority", max(priority) AS "highest"
FROM run_tracker.runs WHERE kind = 'email' GROUP BY worker ORDER BY worker;

-- The demo fails if a run was lost, done twice, or taken long before one that is more urgent.
DO $$
BEGIN
    IF (SELECT count(*) FROM run_tracker.runs WHERE kind = 'email' AND status = 'completed') <> 30 THEN
        RAISE EXCEPTION 'not all runs were completed';
    END IF;
    IF EXISTS (SELECT FROM run_tracker.transitions t JOIN run_tracker.runs r USING (run_id)
               WHERE r.kind = 'email' GROUP BY t.run_id HAVING count(*) <> 2) THEN
        RAISE EXCEPTION 'a run was claimed twice';
    END IF;
    -- three claims may overlap
    IF EXISTS (SELECT FROM (SELECT priority, row_number() OVER (ORDER BY started_at) AS nth FROM run_tracker.runs
                            WHERE kind = 'email') r
               WHERE nth NOT BETWEEN (2 - priority) * 10 + 1 - 3 AND (2 - priority) * 10 + 10 + 3) THEN
        RAISE EXCEPTION 'runs were not claimed by priority';
    END IF;
END
$$;
