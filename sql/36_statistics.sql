-- Sums over many runs.

-- Histograms of milliseconds, that can be added up.

CREATE FUNCTION run_tracker.histogram_bucket(ms bigint) RETURNS integer
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
AS 'MODULE_PATHNAME', 'run_tracker_histogram_bucket';
COMMENT ON FUNCTION run_tracker.histogram_bucket(bigint) IS
'The bucket of a histogram that a number of milliseconds falls into: up to 100 ms each has its own; above, 90 for each decade, with 1, 2 and 5 times a power of ten as bounds, at most 4 % wide.';

CREATE FUNCTION run_tracker.histogram_bound(bucket integer) RETURNS bigint
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
AS 'MODULE_PATHNAME', 'run_tracker_histogram_bound';
COMMENT ON FUNCTION run_tracker.histogram_bound(integer) IS
'The largest number of milliseconds in a bucket of a histogram. 22023 if there is no such bucket.';

CREATE FUNCTION run_tracker.histogram_quantile(histogram bigint[], fraction double precision) RETURNS bigint
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
AS 'MODULE_PATHNAME', 'run_tracker_histogram_quantile';
COMMENT ON FUNCTION run_tracker.histogram_quantile(bigint[], double precision) IS
'The value in milliseconds that this part of all values of a histogram does not exceed (nearest rank; 0 the smallest, 0.5 the median, 1 the largest): exact up to 100 ms, else within 2 %. Null if the histogram is empty. 22023 for a fraction outside of 0 to 1, or an array that is no histogram.';

CREATE FUNCTION run_tracker.histogram_count(histogram bigint[], up_to_ms bigint DEFAULT NULL) RETURNS bigint
LANGUAGE c IMMUTABLE PARALLEL SAFE
AS 'MODULE_PATHNAME', 'run_tracker_histogram_count';
COMMENT ON FUNCTION run_tracker.histogram_count(bigint[], bigint) IS
'How many values of a histogram are at most up_to_ms (all if null): exact where that is 1, 2 or 5 times a power of ten. 22023 for an array that is no histogram.';

CREATE FUNCTION run_tracker.histogram_accumulate(state internal, histogram bigint[]) RETURNS internal
LANGUAGE c IMMUTABLE PARALLEL SAFE
AS 'MODULE_PATHNAME', 'run_tracker_histogram_accumulate';
COMMENT ON FUNCTION run_tracker.histogram_accumulate(internal, bigint[]) IS
'Internal: state transition of merge_histograms().';

CREATE FUNCTION run_tracker.histogram_result(state internal) RETURNS bigint[]
LANGUAGE c IMMUTABLE PARALLEL SAFE
AS 'MODULE_PATHNAME', 'run_tracker_histogram_result';
COMMENT ON FUNCTION run_tracker.histogram_result(internal) IS 'Internal: final function of merge_histograms().';

CREATE AGGREGATE run_tracker.merge_histograms(bigint[]) (
    SFUNC = run_tracker.histogram_accumulate, STYPE = internal, SSPACE = 512,
    FINALFUNC = run_tracker.histogram_result, PARALLEL = safe);
COMMENT ON AGGREGATE run_tracker.merge_histograms(bigint[]) IS
'The sum of histograms, such as those of run_tracker.stat_totals. 22023 for an array that is no histogram.';

CREATE FUNCTION run_tracker.fold_statistics(max_deltas integer DEFAULT 100000) RETURNS bigint
LANGUAGE c SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'run_tracker_fold_statistics';
COMMENT ON FUNCTION run_tracker.fold_statistics(integer) IS
'Folds rows of stat_deltas, at most so many, into stat_totals, and returns how many. What the background worker does: only needed where the library is not preloaded. Statistics are the same before and after, and faster to read. 22023 for max_deltas below 1; for services (42501), in READ COMMITTED (25001).';

-- What statistics are made of: what has been folded, and what has not.

CREATE FUNCTION run_tracker.stat_rows(grain text, period text, of_user text DEFAULT NULL,
    since timestamptz DEFAULT NULL, by_user boolean DEFAULT false)
RETURNS TABLE (user_id text, period_at timestamptz, kind text, workflow_id text, mode text, provider text, model text,
    operation text, phase text, created_count bigint, finished_count bigint, task_count bigint, failed_task_count bigint,
    input_tokens bigint, output_tokens bigint, total_tokens bigint, cost numeric, duration_ms bigint, durations bigint[],
    first_token_ms bigint, first_tokens bigint[])
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    every_user boolean := of_user IS NULL AND NOT by_user AND run_tracker.is_service();
    the_user text := CASE WHEN every_user THEN '' ELSE of_user END;
    -- the tasks of a user are not summed up by the hour
    from_hour timestamptz := date_trunc(CASE WHEN grain = 'model' AND NOT every_user THEN 'day' ELSE 'hour' END, since, 'UTC');
    -- (a moment that is no moment, and the ends of time, are borders of their own)
    from_day timestamptz := CASE WHEN from_hour > '4000-01-01 BC' AND from_hour < '290000-01-01'
        THEN date_trunc('day', from_hour - interval '1 microsecond', 'UTC') + interval '24 hours' ELSE from_hour END;
    condition text;
BEGIN
    PERFORM run_tracker.require_tables();
    IF (grain IN ('kind', 'model') AND period IN ('all', 'day', 'hour')
        OR grain IN ('user', 'workflow') AND period = 'all' AND since IS NULL) IS NOT TRUE THEN
        RAISE EXCEPTION 'there are no such statistics'
            USING ERRCODE = 'invalid_parameter_value',
                  DETAIL = format('The grain is %L, the period %L%s.', left(grain, 100), left(period, 100),
                                  CASE WHEN since IS NOT NULL THEN ', with since' ELSE '' END),
                  HINT = 'The grains kind and model have periods all, day and hour; user and workflow have all, without since.';
    END IF;
    -- of a time range: whole days, and the hours before the first of them
    condition := CASE
        WHEN since IS NULL THEN 't.period = $3'
        WHEN period <> 'all' THEN 't.period = $3 AND t.period_at >= $5'
        ELSE '(t.period = ''day'' AND t.period_at >= $6 OR t.period = ''hour'' AND t.period_at >= $5 AND t.period_at < $6)'
    END;
    -- in the order in which whoever changes tables locks them
    RETURN QUERY
        SELECT CASE WHEN every_user THEN '' ELSE d.user_id END,
               CASE period WHEN 'all' THEN '-infinity' WHEN 'day' THEN date_trunc('day', d.period_at, 'UTC')
                           ELSE d.period_at END,
               CASE grain WHEN 'kind' THEN d.kind ELSE '' END, CASE grain WHEN 'workflow' THEN d.workflow_id ELSE '' END,
               CASE WHEN period = 'all' AND since IS NULL THEN d.mode ELSE '' END, n.provider, n.model, n.operation, n.phase, d.created_count, n.finished_count,
               CASE WHEN n.by_run AND d.phase = 'succeeded' THEN d.finished_count ELSE 0 END,
               CASE WHEN n.by_run AND d.phase IN ('failed', 'timed_out') THEN d.finished_count ELSE 0 END,
               d.input_tokens, d.output_tokens, d.total_tokens, d.cost,
               CASE WHEN n.by_run THEN 0 ELSE d.duration_ms END, CASE WHEN n.by_run THEN NULL ELSE d.durations END,
               CASE WHEN n.by_run THEN 0 ELSE d.first_token_ms END, CASE WHEN n.by_run THEN NULL ELSE d.first_tokens END
        FROM run_tracker.stat_deltas d
             -- of kinds and workflows, what is about tasks has no phase of its own
             CROSS JOIN LATERAL (SELECT d.source = 'task' AND grain <> 'model') AS b (by_run)
             CROSS JOIN LATERAL (
                 SELECT b.by_run, CASE WHEN b.by_run THEN '' ELSE d.provider END, CASE WHEN b.by_run THEN '' ELSE d.model END,
                        CASE WHEN b.by_run THEN '' ELSE d.operation END,
                        CASE WHEN b.by_run AND d.phase <> 'retried' THEN '' ELSE d.phase END,
                        CASE WHEN b.by_run THEN 0 ELSE d.finished_count END
             ) AS n (by_run, provider, model, operation, phase, finished_count)
        WHERE d.source <> 'usage' AND (of_user IS NULL OR d.user_id = of_user)
          AND (from_hour IS NULL OR d.period_at >= CASE period WHEN 'day' THEN date_trunc('day', from_hour, 'UTC')
                                                               ELSE from_hour END)
          AND CASE grain WHEN 'model' THEN d.source = 'task' WHEN 'workflow' THEN d.workflow_id <> '' ELSE true END;
    RETURN QUERY EXECUTE '
        SELECT t.user_id, t.period_at, t.kind, t.workflow_id, t.mode, t.provider, t.model, t.operation, t.phase,
               t.created_count, t.finished_count, t.task_count, t.failed_task_count, t.input_tokens, t.output_tokens,
               t.total_tokens, t.cost, t.duration_ms, t.durations, t.first_token_ms, t.first_tokens
        FROM run_tracker.stat_totals t
        WHERE t.grain = $1 AND t.all_users = $2 AND ' || condition
        || CASE WHEN the_user IS NOT NULL THEN ' AND t.user_id = $4' ELSE '' END
        USING grain, every_user, period, the_user,
              CASE period WHEN 'day' THEN date_trunc('day', from_hour, 'UTC') ELSE from_hour END, from_day;
END
$$;
COMMENT ON FUNCTION run_tracker.stat_rows(text, text, text, timestamptz, boolean) IS
'The rows that statistics add up, of run_tracker.stat_totals and of what is not folded yet: by grain (kind, user, workflow or model) and period (all, day or hour; of users and workflows only all), of one user, or of those that the caller sees: for services the sum over all users, unless by_user. since, rounded down to the hour (for days, and for models of a user: to the day), leaves out what was before.';

CREATE FUNCTION run_tracker.summarize_runs(of_grain text, of_user text, since timestamptz, by_user boolean)
RETURNS TABLE (name text, total bigint, open bigint, finished bigint, successful bigint, failed bigint,
    cancelled bigint, timed_out bigint, retried bigint, success_rate numeric, average_ms numeric, min_ms bigint,
    p50_ms bigint, p95_ms bigint, p99_ms bigint, max_ms bigint, modes jsonb, task_count bigint, failed_task_count bigint,
    input_tokens bigint, output_tokens bigint, total_tokens bigint, total_cost numeric)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    WITH found AS MATERIALIZED (
        SELECT CASE WHEN by_user THEN r.user_id WHEN of_grain = 'workflow' THEN r.workflow_id ELSE r.kind END AS name,
               r.mode, r.phase, r.created_count AS created, r.finished_count AS finished, r.task_count AS tasks,
               r.failed_task_count AS failed_tasks, r.input_tokens, r.output_tokens, r.total_tokens, r.cost, r.duration_ms,
               r.durations
        FROM run_tracker.stat_rows(CASE WHEN by_user AND since IS NULL THEN 'user' ELSE of_grain END, 'all', of_user, since,
                                   by_user) r
    ), by_mode AS (
        -- as many as anybody reads: clients can make up any number of them
        SELECT m.name, jsonb_object_agg(m.mode, m.created ORDER BY m.mode) AS modes
        FROM (SELECT f.name, f.mode, sum(f.created) AS created,
                     row_number() OVER (PARTITION BY f.name ORDER BY sum(f.created) DESC, f.mode) AS place
              FROM found f WHERE f.mode <> '' GROUP BY 1, 2) m
        WHERE m.created <> 0 AND m.place <= 100
        GROUP BY m.name
    ), sums AS (
        SELECT f.name, sum(f.created)::bigint AS created,
               COALESCE(sum(f.finished) FILTER (WHERE f.phase NOT IN ('', 'retried')), 0)::bigint AS finished,
               COALESCE(sum(f.finished) FILTER (WHERE f.phase = 'succeeded'), 0)::bigint AS succeeded,
               COALESCE(sum(f.finished) FILTER (WHERE f.phase = 'failed'), 0)::bigint AS failed,
               COALESCE(sum(f.finished) FILTER (WHERE f.phase = 'cancelled'), 0)::bigint AS cancelled,
               COALESCE(sum(f.finished) FILTER (WHERE f.phase = 'timed_out'), 0)::bigint AS timed_out,
               COALESCE(sum(f.finished) FILTER (WHERE f.phase = 'retried'), 0)::bigint AS retried,
               sum(f.duration_ms) FILTER (WHERE f.phase = 'succeeded') AS duration_ms,
               run_tracker.merge_histograms(f.durations) FILTER (WHERE f.phase = 'succeeded') AS durations,
               COALESCE(sum(f.tasks) FILTER (WHERE f.phase <> 'retried'), 0)::bigint AS tasks,
               COALESCE(sum(f.failed_tasks) FILTER (WHERE f.phase <> 'retried'), 0)::bigint AS failed_tasks,
               LEAST(COALESCE(sum(f.input_tokens) FILTER (WHERE f.phase <> 'retried'), 0), 9223372036854775807)::bigint AS input_tokens,
               LEAST(COALESCE(sum(f.output_tokens) FILTER (WHERE f.phase <> 'retried'), 0), 9223372036854775807)::bigint AS output_tokens,
               LEAST(COALESCE(sum(f.total_tokens) FILTER (WHERE f.phase <> 'retried'), 0), 9223372036854775807)::bigint AS total_tokens,
               COALESCE(sum(f.cost) FILTER (WHERE f.phase <> 'retried'), 0) AS cost
        FROM found f GROUP BY f.name
    )
    SELECT s.name, s.created, CASE WHEN since IS NULL THEN s.created - s.finished END, s.finished, s.succeeded, s.failed,
           s.cancelled, s.timed_out, s.retried, round(100.0 * s.succeeded / NULLIF(s.finished, 0), 2),
           round(s.duration_ms / NULLIF(s.succeeded, 0), 2), run_tracker.histogram_quantile(s.durations, 0),
           run_tracker.histogram_quantile(s.durations, 0.5), run_tracker.histogram_quantile(s.durations, 0.95),
           run_tracker.histogram_quantile(s.durations, 0.99), run_tracker.histogram_quantile(s.durations, 1),
           CASE WHEN since IS NULL THEN COALESCE(m.modes, '{}') END, s.tasks, s.failed_tasks, s.input_tokens, s.output_tokens, s.total_tokens, s.cost
    FROM sums s LEFT JOIN by_mode m USING (name)
    WHERE s.created <> 0 OR s.finished <> 0 OR s.retried <> 0 OR s.tasks <> 0 OR s.failed_tasks <> 0 OR s.cost <> 0
    ORDER BY s.created DESC, s.name;
END
$$;
COMMENT ON FUNCTION run_tracker.summarize_runs(text, text, timestamptz, boolean) IS
'What user_stats(), kind_stats() and workflow_stats() run: sums by kind, workflow or user.';

CREATE FUNCTION run_tracker.user_stats(user_id text DEFAULT NULL, since timestamptz DEFAULT NULL)
RETURNS TABLE (user_id text, total bigint, open bigint, finished bigint, successful bigint, failed bigint,
    cancelled bigint, timed_out bigint, retried bigint, success_rate numeric, average_ms numeric, min_ms bigint,
    p50_ms bigint, p95_ms bigint, p99_ms bigint, max_ms bigint, modes jsonb, task_count bigint, failed_task_count bigint,
    input_tokens bigint, output_tokens bigint, total_tokens bigint, total_cost numeric)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$ SELECT * FROM run_tracker.summarize_runs('kind', $1, $2, true) $$;
COMMENT ON FUNCTION run_tracker.user_stats(text, timestamptz) IS
'Runs of a user, or of each one that the caller sees: how many were created, are open, finished, and how; success_rate is the percentage of finished runs that succeeded; durations are those of runs that succeeded, in ms: the average is exact, the others within 2 %; modes are runs by settings ->> ''mode'', of more than 100 the most frequent; tasks, tokens and cost are those of finished tasks. Exact in every snapshot, and not changed when old runs are deleted. since counts what was created and finished since then, rounded down to the hour (open and modes are null then).';

CREATE FUNCTION run_tracker.workflow_stats(workflow_id text DEFAULT NULL, user_id text DEFAULT NULL)
RETURNS TABLE (workflow_id text, total bigint, open bigint, finished bigint, successful bigint, failed bigint,
    cancelled bigint, timed_out bigint, retried bigint, success_rate numeric, average_ms numeric, min_ms bigint,
    p50_ms bigint, p95_ms bigint, p99_ms bigint, max_ms bigint, modes jsonb, task_count bigint, failed_task_count bigint,
    input_tokens bigint, output_tokens bigint, total_tokens bigint, total_cost numeric)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$ SELECT * FROM run_tracker.summarize_runs('workflow', $2, NULL, false) s WHERE $1 IS NULL OR s.name = $1 $$;
COMMENT ON FUNCTION run_tracker.workflow_stats(text, text) IS
'Runs of each workflow, or of one, that the caller sees: columns as in user_stats().';

CREATE FUNCTION run_tracker.kind_stats(kind text DEFAULT NULL, user_id text DEFAULT NULL, since timestamptz DEFAULT NULL)
RETURNS TABLE (kind text, total bigint, open bigint, finished bigint, successful bigint, failed bigint,
    cancelled bigint, timed_out bigint, retried bigint, success_rate numeric, average_ms numeric, min_ms bigint,
    p50_ms bigint, p95_ms bigint, p99_ms bigint, max_ms bigint, modes jsonb, task_count bigint, failed_task_count bigint,
    input_tokens bigint, output_tokens bigint, total_tokens bigint, total_cost numeric)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$ SELECT * FROM run_tracker.summarize_runs('kind', $2, $3, false) s WHERE $1 IS NULL OR s.name = $1 $$;
COMMENT ON FUNCTION run_tracker.kind_stats(text, text, timestamptz) IS
'Runs of each kind, or of one, that the caller sees: columns as in user_stats(); the kind of runs that have none is the empty string.';

CREATE FUNCTION run_tracker.model_stats(model text DEFAULT NULL, user_id text DEFAULT NULL,
    since timestamptz DEFAULT NULL)
RETURNS TABLE (provider text, model text, operation text, task_count bigint, failed_task_count bigint,
    cancelled_task_count bigint, retried bigint, input_tokens bigint, output_tokens bigint, total_tokens bigint,
    total_cost numeric, average_ms numeric, p50_ms bigint, p95_ms bigint, p99_ms bigint, first_token_average_ms numeric,
    first_token_p50_ms bigint, first_token_p95_ms bigint, first_token_p99_ms bigint)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT s.provider, s.model, s.operation, s.succeeded, s.failed, s.cancelled, s.retried, s.input_tokens,
           s.output_tokens, s.total_tokens, s.cost, round(s.duration_ms / NULLIF(s.succeeded, 0), 2),
           run_tracker.histogram_quantile(s.durations, 0.5), run_tracker.histogram_quantile(s.durations, 0.95),
           run_tracker.histogram_quantile(s.durations, 0.99),
           round(s.first_token_ms / NULLIF(run_tracker.histogram_count(s.first_tokens), 0), 2),
           run_tracker.histogram_quantile(s.first_tokens, 0.5), run_tracker.histogram_quantile(s.first_tokens, 0.95),
           run_tracker.histogram_quantile(s.first_tokens, 0.99)
    FROM (SELECT r.provider, r.model, r.operation,
                 COALESCE(sum(r.finished_count) FILTER (WHERE r.phase = 'succeeded'), 0)::bigint AS succeeded,
                 COALESCE(sum(r.finished_count) FILTER (WHERE r.phase IN ('failed', 'timed_out')), 0)::bigint AS failed,
                 COALESCE(sum(r.finished_count) FILTER (WHERE r.phase = 'cancelled'), 0)::bigint AS cancelled,
                 COALESCE(sum(r.finished_count) FILTER (WHERE r.phase = 'retried'), 0)::bigint AS retried,
                 LEAST(COALESCE(sum(r.input_tokens) FILTER (WHERE r.phase <> 'retried'), 0), 9223372036854775807)::bigint AS input_tokens,
                 LEAST(COALESCE(sum(r.output_tokens) FILTER (WHERE r.phase <> 'retried'), 0), 9223372036854775807)::bigint AS output_tokens,
                 LEAST(COALESCE(sum(r.total_tokens) FILTER (WHERE r.phase <> 'retried'), 0), 9223372036854775807)::bigint AS total_tokens,
                 COALESCE(sum(r.cost) FILTER (WHERE r.phase <> 'retried'), 0) AS cost,
                 sum(r.duration_ms) FILTER (WHERE r.phase = 'succeeded') AS duration_ms,
                 run_tracker.merge_histograms(r.durations) FILTER (WHERE r.phase = 'succeeded') AS durations,
                 sum(r.first_token_ms) FILTER (WHERE r.phase <> 'retried') AS first_token_ms,
                 run_tracker.merge_histograms(r.first_tokens) FILTER (WHERE r.phase <> 'retried') AS first_tokens
          FROM run_tracker.stat_rows('model', 'all', $2, $3) r
          WHERE $1 IS NULL OR r.model = $1
          GROUP BY 1, 2, 3) s
    WHERE s.succeeded <> 0 OR s.failed <> 0 OR s.cancelled <> 0 OR s.retried <> 0 OR s.total_tokens <> 0 OR s.cost <> 0
    ORDER BY s.cost DESC, s.succeeded DESC, s.provider, s.model, s.operation
$$;
COMMENT ON FUNCTION run_tracker.model_stats(text, text, timestamptz) IS
'Finished tasks by provider, model and operation, or of one model, that the caller sees: how many succeeded, failed (or timed out), were cancelled; tokens and cost of all of them; durations of those that succeeded, and times to the first token, in ms: averages exact, the others within 2 %. Empty strings stand for what was not said. since is rounded down to the hour, for the tasks of a user to the day (UTC).';

CREATE FUNCTION run_tracker.summarize_trend(of_unit text, since timestamptz, of_user text, of_kind text)
RETURNS TABLE (period_at timestamptz, created bigint, finished bigint, successful bigint, failed bigint,
    cancelled bigint, timed_out bigint, retried bigint, success_rate numeric, average_ms numeric, p50_ms bigint,
    p95_ms bigint, p99_ms bigint, task_count bigint, total_tokens bigint, total_cost numeric)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
BEGIN
    IF of_unit IS NULL OR of_unit NOT IN ('day', 'hour') THEN
        RAISE EXCEPTION 'unknown unit of a trend'
            USING ERRCODE = 'invalid_parameter_value', DETAIL = format('The unit is %L.', of_unit),
                  HINT = 'Units are day and hour.';
    END IF;
    RETURN QUERY
    SELECT s.period_at, s.created, s.finished, s.succeeded, s.failed, s.cancelled, s.timed_out, s.retried,
           round(100.0 * s.succeeded / NULLIF(s.finished, 0), 2), round(s.duration_ms / NULLIF(s.succeeded, 0), 2),
           run_tracker.histogram_quantile(s.durations, 0.5), run_tracker.histogram_quantile(s.durations, 0.95),
           run_tracker.histogram_quantile(s.durations, 0.99), s.tasks, s.total_tokens, s.cost
    FROM (SELECT r.period_at, sum(r.created_count)::bigint AS created,
                 COALESCE(sum(r.finished_count) FILTER (WHERE r.phase <> 'retried'), 0)::bigint AS finished,
                 COALESCE(sum(r.finished_count) FILTER (WHERE r.phase = 'succeeded'), 0)::bigint AS succeeded,
                 COALESCE(sum(r.finished_count) FILTER (WHERE r.phase = 'failed'), 0)::bigint AS failed,
                 COALESCE(sum(r.finished_count) FILTER (WHERE r.phase = 'cancelled'), 0)::bigint AS cancelled,
                 COALESCE(sum(r.finished_count) FILTER (WHERE r.phase = 'timed_out'), 0)::bigint AS timed_out,
                 COALESCE(sum(r.finished_count) FILTER (WHERE r.phase = 'retried'), 0)::bigint AS retried,
                 sum(r.duration_ms) FILTER (WHERE r.phase = 'succeeded') AS duration_ms,
                 run_tracker.merge_histograms(r.durations) FILTER (WHERE r.phase = 'succeeded') AS durations,
                 COALESCE(sum(r.task_count) FILTER (WHERE r.phase <> 'retried'), 0)::bigint AS tasks,
                 LEAST(COALESCE(sum(r.total_tokens) FILTER (WHERE r.phase <> 'retried'), 0), 9223372036854775807)::bigint AS total_tokens,
                 COALESCE(sum(r.cost) FILTER (WHERE r.phase <> 'retried'), 0) AS cost
          FROM run_tracker.stat_rows('kind', of_unit, of_user, COALESCE(since,
                   clock_timestamp() - CASE of_unit WHEN 'day' THEN interval '30 days' ELSE interval '48 hours' END)) r
          WHERE of_kind IS NULL OR r.kind = of_kind
          GROUP BY 1) s
    -- what cancels out is nothing
    WHERE s.created <> 0 OR s.finished <> 0 OR s.retried <> 0 OR s.tasks <> 0 OR s.total_tokens <> 0 OR s.cost <> 0
    ORDER BY s.period_at;
END
$$;
COMMENT ON FUNCTION run_tracker.summarize_trend(text, timestamptz, text, text) IS
'What trend_stats() runs: the same with arguments of other names.';

CREATE FUNCTION run_tracker.trend_stats(unit text DEFAULT 'day', since timestamptz DEFAULT NULL,
    user_id text DEFAULT NULL, kind text DEFAULT NULL)
RETURNS TABLE (period_at timestamptz, created bigint, finished bigint, successful bigint, failed bigint,
    cancelled bigint, timed_out bigint, retried bigint, success_rate numeric, average_ms numeric, p50_ms bigint,
    p95_ms bigint, p99_ms bigint, task_count bigint, total_tokens bigint, total_cost numeric)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$ SELECT * FROM run_tracker.summarize_trend($1, $2, $3, $4) $$;
COMMENT ON FUNCTION run_tracker.trend_stats(text, timestamptz, text, text) IS
'Runs per day or hour (UTC) that the caller sees, of one user or kind if given: created in it, and finished in it, with durations and cost as in user_stats(). Periods in which nothing happened have no row. since defaults to 30 days, or 48 hours, ago. 22023 for another unit.';

CREATE FUNCTION run_tracker.count_history() RETURNS bigint
LANGUAGE c SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'run_tracker_count_history';
COMMENT ON FUNCTION run_tracker.count_history() IS
'Internal: fills statistics that are new from the ledger, and returns the number of runs and tasks.';

CREATE FUNCTION run_tracker.install_statistics() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET client_min_messages = warning
AS $install$
BEGIN
    -- names are compared byte by byte, so that indexes do not depend on the collations of a system
    IF to_regclass('run_tracker.stat_deltas') IS NULL THEN
        CREATE TABLE run_tracker.stat_deltas (
            source text COLLATE "C" NOT NULL,
            user_id text COLLATE "C" NOT NULL,
            period_at timestamptz NOT NULL,
            usage_on date,
            kind text COLLATE "C" NOT NULL,
            workflow_id text COLLATE "C" NOT NULL,
            mode text COLLATE "C" NOT NULL,
            provider text COLLATE "C" NOT NULL,
            model text COLLATE "C" NOT NULL,
            operation text COLLATE "C" NOT NULL,
            phase text COLLATE "C" NOT NULL,
            created_count bigint NOT NULL,
            finished_count bigint NOT NULL,
            input_tokens bigint NOT NULL,
            output_tokens bigint NOT NULL,
            total_tokens bigint NOT NULL,
            cost numeric NOT NULL,
            duration_ms bigint NOT NULL,
            durations bigint[],
            first_token_ms bigint NOT NULL,
            first_tokens bigint[]
        -- not made shorter by VACUUM, for which everyone would wait: what is free is used again
        ) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0, vacuum_truncate = off);
        -- no key: a row is appended and taken away again; logical replication needs to find it all the same
        ALTER TABLE run_tracker.stat_deltas REPLICA IDENTITY FULL;
        ALTER TABLE run_tracker.stat_deltas ENABLE ROW LEVEL SECURITY;
        PERFORM run_tracker.revoke_all('run_tracker.stat_deltas');

        COMMENT ON TABLE run_tracker.stat_deltas IS
        'What is to be added to statistics, not folded into stat_totals yet. Written by triggers only; whoever reads statistics adds both.';
        COMMENT ON COLUMN run_tracker.stat_deltas.source IS
        'run or task: what was created or finished; usage: what was recorded in run_tracker.usage_records.';
        COMMENT ON COLUMN run_tracker.stat_deltas.user_id IS 'Owner.';
        COMMENT ON COLUMN run_tracker.stat_deltas.period_at IS 'Hour (UTC) in which it was created or finished.';
        COMMENT ON COLUMN run_tracker.stat_deltas.usage_on IS
        'Day, in run_tracker.time_zone, that it counts for as usage; null if it does not.';
        COMMENT ON COLUMN run_tracker.stat_deltas.kind IS 'Kind of the run; empty if none. Names are cut off after 200 bytes here.';
        COMMENT ON COLUMN run_tracker.stat_deltas.workflow_id IS 'Workflow of the run; empty if none.';
        COMMENT ON COLUMN run_tracker.stat_deltas.mode IS 'settings ->> ''mode'' of the run; empty if none, and for tasks.';
        COMMENT ON COLUMN run_tracker.stat_deltas.provider IS 'Provider of the task; empty if none, and for runs.';
        COMMENT ON COLUMN run_tracker.stat_deltas.model IS 'Model that the task asked for, else that which answered; empty if none, and for runs.';
        COMMENT ON COLUMN run_tracker.stat_deltas.operation IS 'Operation of the task; empty if none, and for runs.';
        COMMENT ON COLUMN run_tracker.stat_deltas.phase IS
        'Finished phase; "retried" for what had finished and was then retried; empty for what was created.';
        COMMENT ON COLUMN run_tracker.stat_deltas.created_count IS 'Runs that were created.';
        COMMENT ON COLUMN run_tracker.stat_deltas.finished_count IS 'Runs or tasks that finished.';
        COMMENT ON COLUMN run_tracker.stat_deltas.input_tokens IS 'Input tokens of tasks.';
        COMMENT ON COLUMN run_tracker.stat_deltas.output_tokens IS 'Output tokens of tasks.';
        COMMENT ON COLUMN run_tracker.stat_deltas.total_tokens IS 'Total tokens of tasks.';
        COMMENT ON COLUMN run_tracker.stat_deltas.cost IS 'Cost of tasks.';
        COMMENT ON COLUMN run_tracker.stat_deltas.duration_ms IS 'Sum of the durations of what finished, in milliseconds.';
        COMMENT ON COLUMN run_tracker.stat_deltas.durations IS
        'Histogram of them: bucket, count, bucket, count, ...; see histogram_quantile().';
        COMMENT ON COLUMN run_tracker.stat_deltas.first_token_ms IS 'Sum of the times to the first token, in milliseconds.';
        COMMENT ON COLUMN run_tracker.stat_deltas.first_tokens IS 'Histogram of them.';
    END IF;
    -- a check of quotas reads what is not folded yet of one user
    CREATE INDEX IF NOT EXISTS stat_deltas_usage_idx ON run_tracker.stat_deltas (user_id) WHERE usage_on IS NOT NULL;
    PERFORM run_tracker.install_policy('run_tracker.stat_deltas');

    IF to_regclass('run_tracker.stat_totals') IS NULL THEN
        CREATE TABLE run_tracker.stat_totals (
            grain text COLLATE "C" NOT NULL,
            period text COLLATE "C" NOT NULL,
            all_users boolean NOT NULL,
            user_id text COLLATE "C" NOT NULL,
            period_at timestamptz NOT NULL,
            kind text COLLATE "C" NOT NULL,
            workflow_id text COLLATE "C" NOT NULL,
            mode text COLLATE "C" NOT NULL,
            provider text COLLATE "C" NOT NULL,
            model text COLLATE "C" NOT NULL,
            operation text COLLATE "C" NOT NULL,
            phase text COLLATE "C" NOT NULL,
            created_count bigint NOT NULL,
            finished_count bigint NOT NULL,
            task_count bigint NOT NULL,
            failed_task_count bigint NOT NULL,
            input_tokens bigint NOT NULL,
            output_tokens bigint NOT NULL,
            total_tokens bigint NOT NULL,
            cost numeric NOT NULL,
            duration_ms bigint NOT NULL,
            durations bigint[],
            first_token_ms bigint NOT NULL,
            first_tokens bigint[],
            CONSTRAINT stat_totals_pkey PRIMARY KEY (grain, period, all_users, user_id, period_at, kind, workflow_id,
                mode, provider, model, operation, phase)
        ) WITH (fillfactor = 70, toast_tuple_target = 8160, autovacuum_vacuum_scale_factor = 0.05,
                autovacuum_vacuum_cost_delay = 0);
        ALTER TABLE run_tracker.stat_totals ENABLE ROW LEVEL SECURITY;
        PERFORM run_tracker.revoke_all('run_tracker.stat_totals');

        COMMENT ON TABLE run_tracker.stat_totals IS
        'Statistics of what has finished, summed up in several ways; they outlive the runs. Written by the worker, or fold_statistics().';
        COMMENT ON COLUMN run_tracker.stat_totals.grain IS
        'What the row sums up: kind (runs by kind, mode and phase), user (by mode and phase), workflow (by workflow, mode and phase), model (tasks by provider, model, operation and phase), usage (what users have used: finished_count requests).';
        COMMENT ON COLUMN run_tracker.stat_totals.period IS 'all, day or hour (UTC); of users and workflows only all, of models and a user not hour; of usage day and month, in run_tracker.time_zone.';
        COMMENT ON COLUMN run_tracker.stat_totals.all_users IS 'True: the sum over all users, for services.';
        COMMENT ON COLUMN run_tracker.stat_totals.user_id IS 'Owner; empty for the sum over all users, and for nobody.';
        COMMENT ON COLUMN run_tracker.stat_totals.period_at IS 'Beginning of the day or hour; -infinity for all; of usage, the date at midnight of UTC.';
        COMMENT ON COLUMN run_tracker.stat_totals.kind IS 'Kind of the run; empty if none.';
        COMMENT ON COLUMN run_tracker.stat_totals.workflow_id IS 'Workflow of the run; empty if none.';
        COMMENT ON COLUMN run_tracker.stat_totals.mode IS 'settings ->> ''mode'' of the run; empty if none, and for days and hours.';
        COMMENT ON COLUMN run_tracker.stat_totals.provider IS 'Provider of the task; empty if none.';
        COMMENT ON COLUMN run_tracker.stat_totals.model IS 'Model; empty if none.';
        COMMENT ON COLUMN run_tracker.stat_totals.operation IS 'Operation of the task; empty if none.';
        COMMENT ON COLUMN run_tracker.stat_totals.phase IS
        'Finished phase; "retried" for what had finished and was then retried; empty for runs that were created and, of kinds and workflows, for all that is about tasks.';
        COMMENT ON COLUMN run_tracker.stat_totals.created_count IS 'Runs that were created.';
        COMMENT ON COLUMN run_tracker.stat_totals.finished_count IS 'Runs that finished; of models: tasks that finished.';
        COMMENT ON COLUMN run_tracker.stat_totals.task_count IS 'Of kinds and workflows: tasks that succeeded.';
        COMMENT ON COLUMN run_tracker.stat_totals.failed_task_count IS 'Of kinds and workflows: tasks that failed or timed out.';
        COMMENT ON COLUMN run_tracker.stat_totals.input_tokens IS 'Input tokens of tasks.';
        COMMENT ON COLUMN run_tracker.stat_totals.output_tokens IS 'Output tokens of tasks.';
        COMMENT ON COLUMN run_tracker.stat_totals.total_tokens IS 'Total tokens of tasks.';
        COMMENT ON COLUMN run_tracker.stat_totals.cost IS 'Cost of tasks.';
        COMMENT ON COLUMN run_tracker.stat_totals.duration_ms IS
        'Sum of the durations of what finished, in milliseconds; of models, those of tasks.';
        COMMENT ON COLUMN run_tracker.stat_totals.durations IS
        'Histogram of them: bucket, count, bucket, count, ...; see histogram_quantile().';
        COMMENT ON COLUMN run_tracker.stat_totals.first_token_ms IS
        'Of models: sum of the times to the first token, in milliseconds.';
        COMMENT ON COLUMN run_tracker.stat_totals.first_tokens IS 'Of models: histogram of them.';
    END IF;
    PERFORM run_tracker.install_policy('run_tracker.stat_totals');
END
$install$;
COMMENT ON FUNCTION run_tracker.install_statistics() IS 'Internal: the part of install() for statistics.';
