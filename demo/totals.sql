-- The sums over tasks are written out here, so that the comparison does not depend on the functions that it is about.
CREATE TEMP VIEW comparison AS
SELECT r.name,
       sums.tasks AS "tasks: counted", s.task_count AS "kept",
       sums.tokens AS "tokens: summed up", s.total_tokens AS "kept ",
       sums.cost AS "cost: summed up", s.total_cost AS "kept  ",
       slots.n AS slots,
       (sums.tasks, sums.tokens, sums.cost) = (s.task_count, s.total_tokens, s.total_cost) AS equal
FROM run_tracker.runs r
     JOIN run_tracker.run_summary s USING (run_id)
     CROSS JOIN LATERAL (
         SELECT count(*) FILTER (WHERE t.status = 'completed') AS tasks,
                COALESCE(sum(t.total_tokens) FILTER (WHERE t.finished_at IS NOT NULL), 0) AS tokens,
                COALESCE(sum(t.cost) FILTER (WHERE t.finished_at IS NOT NULL), 0) AS cost
         FROM run_tracker.tasks t WHERE t.run_id = r.run_id) AS sums
     CROSS JOIN LATERAL (SELECT count(*) AS n FROM run_tracker.run_totals t WHERE t.run_id = r.run_id) AS slots
ORDER BY r.created_at;
SELECT * FROM comparison;
SELECT count(*) AS "rows of check_totals(), over all runs" FROM run_tracker.check_totals();

-- The demo fails if they differ.
DO $$
BEGIN
    IF (SELECT count(*) FROM comparison) <> 3 THEN
        RAISE EXCEPTION 'there should be three runs';
    END IF;
    IF EXISTS (SELECT FROM comparison WHERE NOT COALESCE(equal, false)) OR EXISTS (SELECT FROM run_tracker.check_totals()) THEN
        RAISE EXCEPTION 'totals differ from the sums over tasks';
    END IF;
    IF (SELECT count(*) FROM run_tracker.tasks WHERE status = 'completed') <> 2 + 1 + 800 THEN
        RAISE EXCEPTION 'not all tasks are completed';
    END IF;
END
$$;
