-- Timelines: the steps of a run, as a waterfall.

-- in PL/pgSQL, to look at the arguments and for the tables first; its results cannot be named like its arguments
CREATE FUNCTION run_tracker.run_timeline(of_run uuid, bar_width integer, max_rows bigint DEFAULT NULL)
RETURNS TABLE (kind text, id uuid, level integer, label text, status text, phase text, start_ms bigint, end_ms bigint,
               duration_ms bigint, open boolean, axis_start_ms bigint, axis_end_ms bigint, bar text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    run record;
    origin timestamptz;
    moment timestamptz := clock_timestamp();
    -- services insert what they like; what is further apart is too long for an interval
    earliest constant timestamptz := '4000-01-01 00:00:00+00 BC';
    latest constant timestamptz := '280000-01-01 00:00:00+00';
    unicode boolean := getdatabaseencoding() = 'UTF8';
    -- what would break lines, or turn the reading direction of what follows
    unprintable text := CASE WHEN unicode THEN E'[\\s\\x01-\\x1f\\x7f-\\x9f\\u200e\\u200f\\u2028-\\u202e\\u2066-\\u2069]+'
                             ELSE E'[\\s\\x01-\\x1f\\x7f]+' END;
    ellipsis text := '...';
    -- of one eighth to eight eighths of a cell
    blocks text[] := '{#,#,#,#,#,#,#,#}';
    -- what forms trees: tasks, and retrievals below the tasks that asked for them; numbered by their start
    parents integer[];
    first_children integer[];
    siblings integer[];
    roots integer[];
    places integer[];
    depths integer[];
    n integer;
    root integer;
    node integer;
    next_node integer;
    depth integer;
    placed integer := 0;
BEGIN
    PERFORM run_tracker.require_tables();
    -- not in expressions: the planner would evaluate them in other encodings, too, where that is an error
    IF unicode THEN
        ellipsis := chr(8230);
        blocks := ARRAY(SELECT chr(9616 - i) FROM generate_series(1, 8) i ORDER BY i);
    END IF;
    IF bar_width NOT BETWEEN 10 AND 200 THEN
        RAISE EXCEPTION 'argument "width" must be between 10 and 200'
            USING ERRCODE = 'invalid_parameter_value', HINT = 'It is the number of characters of a bar.';
    END IF;
    SELECT r.status, r.phase, r.lifecycle, r.attempt, r.created_at, r.started_at, r.finished_at INTO run
    FROM run_tracker.runs r WHERE r.run_id = of_run;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'run not found'
            USING ERRCODE = 'no_data_found', DETAIL = format('There is no run %s that you may see.', COALESCE(of_run::text, 'null'));
    END IF;
    origin := LEAST(GREATEST(run.created_at, earliest), latest);
    moment := GREATEST(moment, origin);

    -- Parents are looked up by sorting: how fast a join is would depend on what the planner knows of tables that grow quickly.
    SELECT count(*), array_agg(COALESCE(NULLIF(k.parent, k.n), 0) ORDER BY k.n) INTO n, parents
    FROM (SELECT u.n, u.child, max(u.n) FILTER (WHERE NOT u.child) OVER (PARTITION BY u.id) AS parent
          FROM (SELECT v.child, CASE WHEN v.child THEN o.parent ELSE o.id END AS id, o.n, o.retrieval
                FROM (SELECT a.*, row_number() OVER (ORDER BY a.sort_at, a.retrieval, a.id)::integer AS n
                      FROM ((SELECT t.task_id AS id, t.parent_task_id AS parent, false AS retrieval,
                                    COALESCE(t.started_at, t.created_at) AS sort_at
                             FROM run_tracker.tasks t WHERE t.run_id = of_run
                             ORDER BY sort_at, t.task_id LIMIT max_rows)
                            UNION ALL
                            (SELECT e.retrieval_id, e.task_id, true,
                                    GREATEST(e.created_at, earliest)
                          - LEAST(COALESCE(e.duration_ms, 0), 86400000) * interval '1 millisecond' AS sort_at
                             FROM run_tracker.retrievals e WHERE e.run_id = of_run
                             ORDER BY sort_at, e.retrieval_id LIMIT max_rows)) a) o,
                     (VALUES (true), (false)) v (child)
                WHERE v.child OR NOT o.retrieval) u) k
    WHERE k.child;

    first_children := array_fill(0, ARRAY[n]);
    siblings := first_children;
    roots := first_children;
    places := first_children;
    depths := first_children;
    FOR i IN REVERSE n .. 1 LOOP
        IF parents[i] > 0 THEN
            siblings[i] := first_children[parents[i]];
            first_children[parents[i]] := i;
        END IF;
    END LOOP;
    -- Parents are not checked.  What no root leads to is on a circle, or below one: the earliest task of
    -- the circle becomes a root.  (depths serves to mark the way there.)
    FOR pass IN 1 .. 2 LOOP
        FOR i IN 1 .. n LOOP
            CONTINUE WHEN roots[i] > 0 OR pass = 1 AND parents[i] > 0;
            root := i;
            IF pass = 2 THEN
                WHILE depths[root] = 0 LOOP
                    depths[root] := 1;
                    root := parents[root];
                END LOOP;
                node := parents[root];
                next_node := root;
                WHILE node <> next_node LOOP
                    root := LEAST(root, node);
                    node := parents[node];
                END LOOP;
            END IF;
            node := root;
            depth := 0;
            LOOP
                placed := placed + 1;
                roots[node] := root;
                places[node] := placed;
                depths[node] := depth;
                next_node := first_children[node];
                depth := depth + 1;
                LOOP
                    WHILE next_node > 0 AND roots[next_node] > 0 LOOP
                        next_node := siblings[next_node];
                    END LOOP;
                    EXIT WHEN next_node > 0 OR node = root;
                    next_node := siblings[node];
                    node := parents[node];
                    depth := depth - 1;
                END LOOP;
                EXIT WHEN next_node = 0;
                node := next_node;
            END LOOP;
        END LOOP;
        EXIT WHEN placed = n;
    END LOOP;

    RETURN QUERY
    WITH history AS (
        SELECT h.seq, h.from_status, h.to_status, h.attempt, h.occurred_at
        FROM run_tracker.transitions h WHERE h.run_id = of_run AND h.task_id IS NULL
    ), words AS (
        SELECT s.key AS status, s.value ->> 'phase' AS phase,
               s.value ->> 'phase' IN ('succeeded', 'failed', 'cancelled', 'timed_out') AS finished
        FROM run_tracker.lifecycles l, jsonb_each(l.definition -> 'states') s WHERE l.name = run.lifecycle
    ), entered AS (
        -- the attempt is that after a transition, and a retry is one more
        (SELECT 0::bigint AS seq, h.from_status AS status, h.attempt - (f.finished AND NOT t.finished)::integer AS attempt,
                origin AS start_at
         FROM history h LEFT JOIN words f ON f.status = h.from_status LEFT JOIN words t ON t.status = h.to_status
         ORDER BY h.seq LIMIT 1)
        UNION ALL
        SELECT h.seq, h.to_status, h.attempt, h.occurred_at FROM history h
        UNION ALL
        -- it has the status that it was inserted with
        SELECT 0, run.status, run.attempt,
               CASE WHEN run.finished_at IS NULL THEN origin ELSE COALESCE(run.started_at, origin) END
        WHERE NOT EXISTS (SELECT FROM history)
    ), state AS (
        SELECT e.*, lead(e.start_at) OVER (ORDER BY e.seq) AS end_at FROM entered e
    ), node AS (
        -- the same, in the same order
        SELECT a.*, row_number() OVER (ORDER BY a.sort_at, a.kind = 'retrieval', a.id)::integer AS n
        FROM ((SELECT 'task' AS kind, t.task_id AS id,
                      COALESCE(NULLIF(btrim(left(t.name, 500)), ''),
                               NULLIF(btrim(concat_ws(' ', left(t.operation, 500), left(t.model, 500))), ''),
                               left(t.service, 500)) AS label,
                      t.status, t.phase, COALESCE(t.started_at, t.created_at) AS sort_at,
                      COALESCE(t.started_at, t.created_at) AS start_at, COALESCE(t.finished_at, moment) AS end_at,
                      NULL::bigint AS duration_ms, t.finished_at IS NULL AS open
               FROM run_tracker.tasks t WHERE t.run_id = of_run
               ORDER BY sort_at, t.task_id LIMIT max_rows)
              UNION ALL
              (SELECT 'retrieval', e.retrieval_id,
                      concat_ws(': ', left(e.retrieval_type, 500), NULLIF(btrim(left(e.query, 500)), '')),
                      e.results_count || CASE e.results_count WHEN 1 THEN ' result' ELSE ' results' END, NULL,
                      GREATEST(e.created_at, earliest)
                          - LEAST(COALESCE(e.duration_ms, 0), 86400000) * interval '1 millisecond' AS sort_at,
                      e.created_at, e.created_at, e.duration_ms, false
               FROM run_tracker.retrievals e WHERE e.run_id = of_run
               ORDER BY sort_at, e.retrieval_id LIMIT max_rows)) a
    ), step AS (
        SELECT 0 AS part, 0 AS root, s.seq AS place, 'state' AS kind, NULL::uuid AS id, 0 AS level,
               s.status || CASE WHEN s.attempt > 1 THEN format(' (attempt %s)', s.attempt) ELSE '' END AS label, s.status,
               CASE WHEN s.end_at IS NULL THEN run.phase ELSE w.phase END AS phase, s.start_at,
               -- a run has no time in the status that it finished with
               CASE WHEN s.end_at IS NOT NULL THEN s.end_at WHEN run.finished_at IS NULL THEN moment
                    WHEN s.seq = 0 THEN run.finished_at ELSE s.start_at END AS end_at,
               NULL::bigint AS duration_ms, s.end_at IS NULL AND run.finished_at IS NULL AS open
        FROM state s LEFT JOIN words w ON w.status = s.status
        UNION ALL
        -- retrievals of no task come last
        SELECT CASE WHEN o.kind = 'retrieval' AND depths[o.n] = 0 THEN 2 ELSE 1 END, roots[o.n], places[o.n], o.kind, o.id,
               depths[o.n], o.label, o.status, o.phase, o.start_at, o.end_at, o.duration_ms, o.open
        FROM node o
    ), measured AS (
        SELECT s.*, m.end_ms, m.end_ms - LEAST(COALESCE(s.duration_ms, m.length_ms), 4000000000000000000) AS start_ms,
               CASE WHEN s.kind = 'retrieval' THEN s.duration_ms ELSE m.length_ms END AS length_ms
        FROM step s,
             LATERAL (SELECT LEAST(GREATEST(s.start_at, earliest), latest) AS start_at,
                             LEAST(GREATEST(s.end_at, earliest), latest) AS end_at) f,
             LATERAL (SELECT floor(1000 * extract(epoch FROM f.start_at - origin))::bigint AS start_ms) l,
             -- of tasks as in duration_ms; states follow each other without a gap
             LATERAL (SELECT COALESCE(GREATEST(0, CASE WHEN s.kind = 'state' OR s.open
                                 THEN floor(1000 * extract(epoch FROM f.end_at - origin)) - l.start_ms
                                 ELSE floor(1000 * extract(epoch FROM f.end_at - f.start_at)) END), 0)::bigint AS length_ms) d,
             LATERAL (SELECT l.start_ms + d.length_ms AS end_ms, d.length_ms) m
    ), axis AS (
        -- not stretched by a client's word for how long a retrieval took
        SELECT LEAST(0, min(m.start_ms) FILTER (WHERE m.kind <> 'retrieval')) AS start_ms,
               GREATEST(1, max(m.end_ms)) AS end_ms
        FROM measured m
    )
    SELECT m.kind, m.id, m.level, CASE WHEN length(c.label) > 60 THEN left(c.label, 59) || ellipsis ELSE c.label END,
           m.status, m.phase, m.start_ms, m.end_ms, m.length_ms, m.open, a.start_ms, a.end_ms,
           repeat(' ', f.first) || repeat(blocks[8], b.eighths / 8) || COALESCE(blocks[NULLIF(b.eighths % 8, 0)], '')
           || repeat(' ', bar_width - f.first - b.cells)
    FROM measured m, axis a,
         LATERAL (SELECT COALESCE(NULLIF(btrim(regexp_replace(m.label, unprintable, ' ', 'g')), ''),
                                  left(m.id::text, 8), '') AS label) c,
         LATERAL (SELECT bar_width / (a.end_ms - a.start_ms)::double precision AS per_ms) p,
         LATERAL (SELECT LEAST(bar_width - 1, GREATEST(0, floor((m.start_ms - a.start_ms) * p.per_ms)))::integer AS first) f,
         -- blocks of eighths are empty on their right: a bar begins where its first cell does, and ends precisely
         LATERAL (SELECT LEAST(8 * (bar_width - f.first), GREATEST(1, round(8 * CASE
                             WHEN (m.end_ms - m.start_ms) * p.per_ms < 1 THEN (m.end_ms - m.start_ms) * p.per_ms
                             ELSE (m.end_ms - a.start_ms) * p.per_ms - f.first END)))::integer AS eighths) e,
         LATERAL (SELECT e.eighths, (e.eighths + 7) / 8 AS cells) b
    ORDER BY m.part, m.root, m.place;
END
$$;
COMMENT ON FUNCTION run_tracker.run_timeline(uuid, integer, bigint) IS
'What timeline() and report_html() run: the steps of a run with their depth and what the axis spans; of tasks and retrievals only the first max_rows each.';

CREATE FUNCTION run_tracker.timeline(run_id uuid, width integer DEFAULT 40)
RETURNS TABLE (step text, kind text, status text, start_ms bigint, end_ms bigint, duration_ms bigint, bar text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT repeat('  ', LEAST(t.level, 30)) || t.label, t.kind, t.status, t.start_ms, t.end_ms, t.duration_ms, t.bar
    FROM run_tracker.run_timeline($1, COALESCE($2, 0)) t
$$;
COMMENT ON FUNCTION run_tracker.timeline(uuid, integer) IS
'The steps of a run, to be read as a waterfall: the states that it went through, then its tasks by start, each followed by its subtasks and retrievals, indented; last the retrievals of no task. kind is state, task or retrieval. Times are milliseconds since the run was created; what is open lasts until now; duration_ms is null for a retrieval that does not say. bar has width characters (10 to 200, else 22023). P0002 if there is no such run.';
