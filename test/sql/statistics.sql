--
-- Statistics: whatever happens to runs and tasks, in whatever kind of statement, the statistics are what the ledger adds up
-- to, in every state of folding; and deletion does not change them.  pg_temp.verify() folds what there is, step by step,
-- and says "ok", or what differs.
--
\getenv abs_srcdir PG_ABS_SRCDIR
\set common :abs_srcdir '/sql/common.psql'
\i :common
SET TimeZone = 'UTC';
SET jit = off;

CREATE ROLE regress_statistics_client;
CREATE ROLE regress_statistics_reader;
CREATE ROLE regress_statistics_service;
CREATE ROLE regress_statistics_owner;
SELECT run_tracker.grant_client('regress_statistics_client'), run_tracker.grant_reader('regress_statistics_reader'),
       run_tracker.grant_service('regress_statistics_service') \g /dev/null
SELECT run_tracker.fold_statistics() \g /dev/null
TRUNCATE run_tracker.stat_deltas, run_tracker.stat_totals;

--
-- Histograms
--
-- every bucket contains its bound, and the next millisecond is in the next one; bounds ascend; none is more than 4 % wide
SELECT count(*) AS buckets, min(b) AS first, max(b) AS last, max(run_tracker.histogram_bound(b)) AS longest,
       bool_and(run_tracker.histogram_bucket(run_tracker.histogram_bound(b)) = b) AS inverse,
       bool_and(b = 1000 OR run_tracker.histogram_bucket(run_tracker.histogram_bound(b) + 1) = b + 1) AS gapless,
       bool_and(b = 0 OR run_tracker.histogram_bound(b) > run_tracker.histogram_bound(b - 1)) AS ascending,
       bool_and(b <= 100 OR run_tracker.histogram_bound(b) - run_tracker.histogram_bound(b - 1) - 1 <= 0.04 * run_tracker.histogram_bound(b - 1)) AS narrow
FROM generate_series(0, 1000) b;
SELECT b, run_tracker.histogram_bound(b) FROM unnest('{0,1,99,100,101,102,124,125,126,164,165,166,189,190,191,192,1000}'::int[]) b;
SELECT ms, run_tracker.histogram_bucket(ms) AS bucket
FROM unnest('{-9223372036854775808,-1,0,1,100,101,104,105,999,1000,1001,999999999999,1000000000000,1000000000001,9223372036854775807}'::bigint[]) ms;
-- 1, 2 and 5 times a power of ten are bounds
SELECT bool_and(run_tracker.histogram_bound(run_tracker.histogram_bucket(v)) = v) AS exact FROM (
    SELECT f * 10::numeric ^ p AS v FROM unnest('{1,2,5}'::int[]) f, generate_series(0, 11) p) s (n), LATERAL (SELECT n::bigint) l (v);
CALL pg_temp.try('SELECT run_tracker.histogram_bound(-1)');
CALL pg_temp.try('SELECT run_tracker.histogram_bound(1001)');
SELECT run_tracker.histogram_bound(NULL) IS NULL AS no_bound, run_tracker.histogram_bucket(NULL) IS NULL AS no_bucket;

-- of one value, of all magnitudes, every quantile is within 2 %; exact up to 100 ms
CREATE FUNCTION pg_temp.histogram(VARIADIC ms bigint[]) RETURNS bigint[] LANGUAGE sql AS $$
    SELECT array_agg(v.x ORDER BY s.b, v.n)
    FROM (SELECT run_tracker.histogram_bucket(m) AS b, count(*) AS c FROM unnest(ms) m GROUP BY 1) s,
         LATERAL (VALUES (1, s.b::bigint), (2, s.c)) v (n, x)
$$;
SELECT count(*), count(DISTINCT v) AS values, bool_and(abs(q - v) <= CASE WHEN v <= 100 THEN 0 ELSE 0.02 * v END) AS near
FROM (SELECT DISTINCT (1.01 ^ n)::bigint + k AS v FROM generate_series(0, 2777) n, generate_series(-1, 1) k) s,
     LATERAL (SELECT run_tracker.histogram_quantile(pg_temp.histogram(v), f) AS q FROM unnest('{0,0.5,1}'::float8[]) f) l
WHERE v BETWEEN 0 AND 1000000000000;
-- of many values: the nearest rank, as percentile_disc() has it
WITH h AS (SELECT k, array_agg(v) AS v FROM (
    SELECT k, CASE k WHEN 1 THEN n WHEN 2 THEN n * n WHEN 3 THEN (1.01 ^ n)::bigint WHEN 4 THEN n % 3 ELSE 5000 - n END::bigint AS v
    FROM generate_series(1, 5) k, generate_series(1, 1000) n) s GROUP BY k)
SELECT k, bool_and(abs(q - d) <= CASE WHEN d <= 100 THEN 0 ELSE 0.02 * d END) AS near
FROM h, generate_series(0, 100) p, LATERAL (
    SELECT run_tracker.histogram_quantile(pg_temp.histogram(VARIADIC h.v), p / 100.0) AS q,
           (SELECT percentile_disc(p / 100.0) WITHIN GROUP (ORDER BY x) FROM unnest(h.v) x) AS d) l
GROUP BY k ORDER BY k;
-- counts up to a bound are exact there
WITH h AS (SELECT array_agg((1.01 ^ n)::bigint) AS v FROM generate_series(1, 2700) n)
SELECT count(*), bool_and(run_tracker.histogram_count(pg_temp.histogram(VARIADIC h.v), b::bigint) = (SELECT count(*) FROM unnest(h.v) x WHERE x <= b)) AS exact
FROM h, unnest('{1,2,5}'::int[]) f, generate_series(0, 11) p, LATERAL (SELECT f * 10::numeric ^ p) l (b);
SELECT run_tracker.histogram_count('{0,2,3,5,1000,1}') AS all, run_tracker.histogram_count('{0,2,3,5,1000,1}', 0) AS zero,
       run_tracker.histogram_count('{0,2,3,5,1000,1}', -1) AS below, run_tracker.histogram_count('{0,2,3,5,1000,1}', 2) AS between,
       run_tracker.histogram_count('{0,2,3,5,1000,1}', 9223372036854775807) AS above, run_tracker.histogram_count(NULL) AS "null",
       run_tracker.histogram_count(NULL, 5) AS null_up_to, run_tracker.histogram_count('{}') AS empty;
-- empty: null; of counts that are negative, nothing is taken for a value
SELECT run_tracker.histogram_quantile(NULL, 0.5) AS "null", run_tracker.histogram_quantile('{}', 0.5) AS empty, run_tracker.histogram_quantile('{5,0}', 0.5) AS zero,
       run_tracker.histogram_quantile('{5,-3}', 0.5) AS negative, run_tracker.histogram_quantile('{5,-3,7,1}', 0) AS rest, run_tracker.histogram_quantile('{5,1}', NULL) AS no_fraction;
SELECT run_tracker.histogram_quantile('{1,9223372036854775807,5,1}', 0.5) AS half, run_tracker.histogram_count('{1,9223372036854775807,5,1}') AS "all";
-- sums: of nothing, of nulls, of what cancels out; what would leave the range stays in it
SELECT run_tracker.merge_histograms(h) FROM (VALUES ('{}'::bigint[])) v (h) WHERE false;
SELECT run_tracker.merge_histograms(h) FROM (VALUES (NULL::bigint[]), (NULL)) v (h);
SELECT run_tracker.merge_histograms(h) FROM (VALUES ('{1,2,7,1}'::bigint[]), (NULL), ('{}'), ('{0,1,7,5,1000,1}'), ('[5:6]={7,-2}')) v (h);
SELECT run_tracker.merge_histograms(h) FROM (VALUES ('{1,2,7,1}'::bigint[]), ('{1,-2,7,-1}')) v (h);
SELECT run_tracker.merge_histograms(h) FROM (VALUES ('{1,2,7,1}'::bigint[]), ('{1,-3}')) v (h);
SELECT run_tracker.merge_histograms(h) FROM (VALUES ('{1,9223372036854775807,7,-9223372036854775808}'::bigint[]), ('{1,5,7,-5}')) v (h);
SELECT n % 2 AS grouped, run_tracker.merge_histograms(ARRAY[n % 3, n]) FROM generate_series(1, 12) n GROUP BY 1 ORDER BY 1;
-- the order of rows does not matter, nor does merging sums
SELECT run_tracker.merge_histograms(h ORDER BY n) = run_tracker.merge_histograms(h ORDER BY n DESC) AS order_does_not_matter,
       run_tracker.merge_histograms(h) = (SELECT run_tracker.merge_histograms(s) FROM (
           SELECT run_tracker.merge_histograms(pg_temp.histogram(n * n)) AS s FROM generate_series(1, 300) n GROUP BY n % 7) g) AS nor_do_parts
FROM (SELECT n, pg_temp.histogram(n * n) AS h FROM generate_series(1, 300) n) s;
-- as a window it does not change what it has returned
SELECT run_tracker.merge_histograms(ARRAY[n, 1]) OVER (ORDER BY n ROWS 1 PRECEDING) FROM generate_series(1, 3) n;
-- what is no histogram
CREATE FUNCTION pg_temp.sqlstate_of(statement text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE statement;
    RETURN 'ok';
EXCEPTION WHEN OTHERS THEN
    RETURN SQLSTATE;
END
$$;
SELECT h AS array, pg_temp.sqlstate_of(format('SELECT run_tracker.histogram_quantile(%L, 0.5)', h)) AS quantile,
       pg_temp.sqlstate_of(format('SELECT run_tracker.histogram_count(%L)', h)) AS count,
       pg_temp.sqlstate_of(format('SELECT run_tracker.merge_histograms(h) FROM (VALUES (%L::bigint[])) v (h)', h)) AS merge
FROM (VALUES ('{1}'::bigint[]), ('{1,2,3}'), ('{-1,1}'), ('{1001,1}'), ('{7,1,7,1}'), ('{7,1,3,1}'), ('{1,NULL}'), ('{NULL,1}'),
    ('{{1,2}}'), ('{{1,2},{3,4}}'), ('{4294967297,1}')) v (h);
CALL pg_temp.try($$SELECT run_tracker.histogram_quantile('{1}', 0.5)$$);
SELECT f AS fraction, pg_temp.sqlstate_of(format('SELECT run_tracker.histogram_quantile(''{1,1}'', %L)', f)) FROM unnest('{-0.01,1.01,NaN,Infinity,-Infinity,-0,1}'::float8[]) f;
CALL pg_temp.try($$SELECT run_tracker.histogram_quantile('{1,1}', 2)$$);

--
-- What the statistics should be: the same numbers from the ledger, with percentiles by sorting
--
-- What has been deleted still counts: it is kept here.  A run that was deleted while it was open has phase null; its attempts count.
CREATE TEMP TABLE gone_runs (user_id text, kind text, workflow_id text, mode text, phase text, attempt int, created_at timestamptz, finished_at timestamptz, duration_ms bigint);
CREATE TEMP TABLE gone_tasks (user_id text, kind text, workflow_id text, provider text, model text, operation text, phase text, attempt int, finished_at timestamptz,
    input_tokens bigint, output_tokens bigint, total_tokens bigint, cost numeric, duration_ms bigint, first_token_ms bigint);
-- The first 200 bytes of a name, in whole characters.
CREATE FUNCTION pg_temp.cut_long(name text) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT left(name, (SELECT max(n) FROM generate_series(0, 200) n WHERE octet_length(left(name, n)) <= 200))
$$;
CREATE FUNCTION pg_temp.cut(name text) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN octet_length(name) > 200 THEN pg_temp.cut_long(name) ELSE COALESCE(name, '') END
$$;
CREATE TEMP VIEW ledger_runs AS
SELECT r.user_id, pg_temp.cut(r.kind) AS kind, pg_temp.cut(r.workflow_id) AS workflow_id, pg_temp.cut(CASE jsonb_typeof(r.settings -> 'mode') WHEN 'string' THEN r.settings ->> 'mode' END) AS mode,
       r.phase, r.attempt, r.created_at, r.finished_at, r.duration_ms
FROM run_tracker.runs r UNION ALL SELECT * FROM gone_runs;
CREATE TEMP VIEW ledger_tasks AS
SELECT t.user_id, pg_temp.cut(r.kind) AS kind, pg_temp.cut(r.workflow_id) AS workflow_id, pg_temp.cut(t.provider) AS provider, pg_temp.cut(COALESCE(t.model, t.response_model)) AS model,
       pg_temp.cut(t.operation) AS operation, t.phase, t.attempt, t.finished_at, t.input_tokens, t.output_tokens, t.total_tokens, t.cost, t.duration_ms, t.time_to_first_token_ms AS first_token_ms
FROM run_tracker.tasks t JOIN run_tracker.runs r USING (run_id) UNION ALL SELECT * FROM gone_tasks;
-- To be called before a deletion.
CREATE FUNCTION pg_temp.bury(run_ids uuid[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO gone_runs SELECT r.user_id, pg_temp.cut(r.kind), pg_temp.cut(r.workflow_id), pg_temp.cut(CASE jsonb_typeof(r.settings -> 'mode') WHEN 'string' THEN r.settings ->> 'mode' END),
                                 CASE WHEN r.finished_at IS NOT NULL THEN r.phase END, r.attempt, r.created_at, r.finished_at, r.duration_ms
    FROM run_tracker.runs r WHERE r.run_id = ANY (run_ids) AND (r.finished_at IS NOT NULL OR r.attempt > 1);
    PERFORM pg_temp.bury_tasks(run_ids, NULL);
END
$$;
CREATE FUNCTION pg_temp.bury_tasks(run_ids uuid[], task_ids uuid[]) RETURNS void LANGUAGE sql AS $$
    INSERT INTO gone_tasks
    SELECT t.user_id, pg_temp.cut(r.kind), pg_temp.cut(r.workflow_id), pg_temp.cut(t.provider), pg_temp.cut(COALESCE(t.model, t.response_model)), pg_temp.cut(t.operation),
           CASE WHEN t.finished_at IS NOT NULL THEN t.phase END, t.attempt, t.finished_at, t.input_tokens, t.output_tokens, t.total_tokens, t.cost, t.duration_ms, t.time_to_first_token_ms
    FROM run_tracker.tasks t JOIN run_tracker.runs r USING (run_id)
    WHERE (t.run_id = ANY (run_ids) OR t.task_id = ANY (task_ids)) AND (t.finished_at IS NOT NULL OR t.attempt > 1)
$$;

-- Runs by name, which is what name_of says: 'user', 'kind' or 'workflow'.
CREATE FUNCTION pg_temp.expected_runs(name_of text, since timestamptz)
RETURNS TABLE (name text, total bigint, open bigint, finished bigint, successful bigint, failed bigint, cancelled bigint, timed_out bigint, retried bigint,
    success_rate numeric, average_ms numeric, min_ms bigint, p50_ms bigint, p95_ms bigint, p99_ms bigint, max_ms bigint, modes jsonb, task_count bigint, failed_task_count bigint,
    input_tokens bigint, output_tokens bigint, total_tokens bigint, total_cost numeric)
LANGUAGE sql AS $$
WITH r AS (
    SELECT CASE name_of WHEN 'user' THEN user_id WHEN 'kind' THEN kind ELSE workflow_id END AS name, mode, attempt, duration_ms, phase IS NOT NULL AND COALESCE(created_at >= date_trunc('hour', since), true) AS created,
           CASE WHEN finished_at IS NOT NULL AND COALESCE(finished_at >= date_trunc('hour', since), true) THEN phase END AS outcome
    FROM ledger_runs
), t AS (
    SELECT CASE name_of WHEN 'user' THEN user_id WHEN 'kind' THEN kind ELSE workflow_id END AS name, x.*
    FROM ledger_tasks x WHERE finished_at IS NOT NULL AND COALESCE(finished_at >= date_trunc('hour', since), true)
), runs AS (
    SELECT name, count(*) FILTER (WHERE created) AS total, count(outcome) AS finished, count(*) FILTER (WHERE outcome = 'succeeded') AS successful,
           count(*) FILTER (WHERE outcome = 'failed') AS failed, count(*) FILTER (WHERE outcome = 'cancelled') AS cancelled, count(*) FILTER (WHERE outcome = 'timed_out') AS timed_out,
           sum(attempt - 1) AS retried, avg(duration_ms) FILTER (WHERE outcome = 'succeeded') AS average, min(duration_ms) FILTER (WHERE outcome = 'succeeded') AS min_ms,
           percentile_disc('{0.5,0.95,0.99}'::float8[]) WITHIN GROUP (ORDER BY duration_ms) FILTER (WHERE outcome = 'succeeded') AS p, max(duration_ms) FILTER (WHERE outcome = 'succeeded') AS max_ms
    FROM r GROUP BY name
), modes AS (
    SELECT name, jsonb_object_agg(mode, n) AS modes FROM (SELECT name, mode, count(*) AS n FROM r WHERE created AND mode <> '' GROUP BY 1, 2) m GROUP BY name
), tasks AS (
    SELECT name, count(*) FILTER (WHERE phase = 'succeeded') AS task_count, count(*) FILTER (WHERE phase IN ('failed', 'timed_out')) AS failed_task_count,
           sum(input_tokens) AS input_tokens, sum(output_tokens) AS output_tokens, sum(total_tokens) AS total_tokens, sum(cost) AS cost
    FROM t GROUP BY name
)
SELECT name, COALESCE(r.total, 0), CASE WHEN since IS NULL THEN COALESCE(r.total - r.finished, 0) END, COALESCE(r.finished, 0), COALESCE(r.successful, 0), COALESCE(r.failed, 0),
       COALESCE(r.cancelled, 0), COALESCE(r.timed_out, 0), COALESCE(r.retried, 0), round(100.0 * r.successful / NULLIF(r.finished, 0), 2), round(r.average, 2), r.min_ms, r.p[1], r.p[2], r.p[3], r.max_ms,
       CASE WHEN since IS NULL THEN COALESCE(m.modes, '{}') END, COALESCE(t.task_count, 0), COALESCE(t.failed_task_count, 0), COALESCE(t.input_tokens, 0), COALESCE(t.output_tokens, 0), COALESCE(t.total_tokens, 0), COALESCE(t.cost, 0)
FROM runs r FULL JOIN tasks t USING (name) LEFT JOIN modes m USING (name)
WHERE (name <> '' OR name_of <> 'workflow') AND (r.total > 0 OR r.finished > 0 OR r.retried > 0 OR t.name IS NOT NULL)
$$;
CREATE FUNCTION pg_temp.expected_models(since timestamptz, of_user text)
RETURNS TABLE (name text, task_count bigint, failed_task_count bigint, cancelled_task_count bigint, retried bigint, input_tokens bigint, output_tokens bigint, total_tokens bigint, total_cost numeric,
    average_ms numeric, p50_ms bigint, p95_ms bigint, p99_ms bigint, first_token_average_ms numeric, first_token_p50_ms bigint, first_token_p95_ms bigint, first_token_p99_ms bigint)
LANGUAGE sql AS $$
SELECT concat_ws('/', provider, model, operation), count(*) FILTER (WHERE outcome = 'succeeded'), count(*) FILTER (WHERE outcome IN ('failed', 'timed_out')), count(*) FILTER (WHERE outcome = 'cancelled'),
       sum(attempt - 1), COALESCE(sum(input_tokens) FILTER (WHERE outcome IS NOT NULL), 0), COALESCE(sum(output_tokens) FILTER (WHERE outcome IS NOT NULL), 0),
       COALESCE(sum(total_tokens) FILTER (WHERE outcome IS NOT NULL), 0), COALESCE(sum(cost) FILTER (WHERE outcome IS NOT NULL), 0),
       round(avg(duration_ms) FILTER (WHERE outcome = 'succeeded'), 2), percentile_disc(0.5) WITHIN GROUP (ORDER BY duration_ms) FILTER (WHERE outcome = 'succeeded'),
       percentile_disc(0.95) WITHIN GROUP (ORDER BY duration_ms) FILTER (WHERE outcome = 'succeeded'), percentile_disc(0.99) WITHIN GROUP (ORDER BY duration_ms) FILTER (WHERE outcome = 'succeeded'),
       round(avg(first_token_ms) FILTER (WHERE outcome IS NOT NULL), 2), percentile_disc(0.5) WITHIN GROUP (ORDER BY first_token_ms) FILTER (WHERE outcome IS NOT NULL),
       percentile_disc(0.95) WITHIN GROUP (ORDER BY first_token_ms) FILTER (WHERE outcome IS NOT NULL), percentile_disc(0.99) WITHIN GROUP (ORDER BY first_token_ms) FILTER (WHERE outcome IS NOT NULL)
FROM (SELECT *, CASE WHEN finished_at IS NOT NULL AND COALESCE(finished_at >= date_trunc(CASE WHEN of_user IS NULL THEN 'hour' ELSE 'day' END, since), true) THEN phase END AS outcome
      FROM ledger_tasks WHERE COALESCE(user_id = of_user, true)) t
GROUP BY 1 HAVING count(outcome) > 0 OR sum(attempt - 1) > 0
$$;
CREATE FUNCTION pg_temp.expected_trend(unit text, of_user text, of_kind text)
RETURNS TABLE (name text, created bigint, finished bigint, successful bigint, failed bigint, cancelled bigint, timed_out bigint, success_rate numeric, average_ms numeric, p50_ms bigint,
    p95_ms bigint, p99_ms bigint, task_count bigint, total_tokens bigint, total_cost numeric)
LANGUAGE sql AS $$
WITH r AS (SELECT * FROM ledger_runs WHERE COALESCE(user_id = of_user, true) AND COALESCE(kind = of_kind, true)),
created AS (SELECT date_trunc(unit, created_at) AS period_at, count(*) AS created FROM r WHERE phase IS NOT NULL GROUP BY 1),
finished AS (
    SELECT date_trunc(unit, finished_at) AS period_at, count(*) AS finished, count(*) FILTER (WHERE phase = 'succeeded') AS successful, count(*) FILTER (WHERE phase = 'failed') AS failed,
           count(*) FILTER (WHERE phase = 'cancelled') AS cancelled, count(*) FILTER (WHERE phase = 'timed_out') AS timed_out, avg(duration_ms) FILTER (WHERE phase = 'succeeded') AS average,
           percentile_disc('{0.5,0.95,0.99}'::float8[]) WITHIN GROUP (ORDER BY duration_ms) FILTER (WHERE phase = 'succeeded') AS p
    FROM r WHERE finished_at IS NOT NULL GROUP BY 1
), tasks AS (
    SELECT date_trunc(unit, finished_at) AS period_at, count(*) FILTER (WHERE phase = 'succeeded') AS task_count, sum(total_tokens) AS tokens, sum(cost) AS cost
    FROM ledger_tasks WHERE finished_at IS NOT NULL AND COALESCE(user_id = of_user, true) AND COALESCE(kind = of_kind, true) GROUP BY 1
)
SELECT period_at::text, COALESCE(created, 0), COALESCE(finished, 0), COALESCE(successful, 0), COALESCE(failed, 0), COALESCE(cancelled, 0), COALESCE(timed_out, 0),
       round(100.0 * successful / NULLIF(finished, 0), 2), round(average, 2), p[1], p[2], p[3], COALESCE(task_count, 0), COALESCE(tokens, 0), COALESCE(cost, 0)
FROM created FULL JOIN finished USING (period_at) FULL JOIN tasks USING (period_at)
$$;

-- Beginnings of time ranges: midnight, the microsecond before, and in the middle of hours and days.
CREATE FUNCTION pg_temp.borders() RETURNS SETOF timestamptz LANGUAGE sql AS
$$ SELECT unnest('{2023-03-01 00:00:00Z,2023-03-01 01:59:59.999999Z,2023-02-28 23:59:59.999999Z,2023-02-28 12:30:00Z}'::timestamptz[]) $$;


-- Does a row of a time range count more than retries?  When those were, the ledger does not say.  A row of zeros is for the comparison to find.
CREATE FUNCTION pg_temp.is_more(s jsonb) RETURNS boolean LANGUAGE sql AS $$
    SELECT (s ->> 'retried')::bigint = 0 OR EXISTS (
        SELECT FROM jsonb_each_text(s - '{retried,input_tokens,output_tokens}'::text[]) v WHERE v.key ~ '^(total|created|finished|.*_count|total_cost)$' AND v.value::numeric <> 0)
$$;
-- All statistics that there are, a row each, and what they should be: as JSON, by what they are about.
CREATE FUNCTION pg_temp.statistics() RETURNS TABLE (what text, name text, value jsonb) LANGUAGE sql AS $$
    SELECT 'user', s.user_id, to_jsonb(s) - 'user_id' FROM run_tracker.user_stats() s
    UNION ALL SELECT 'user', '*' || u, to_jsonb(s) - 'user_id' FROM (SELECT DISTINCT user_id FROM ledger_runs WHERE user_id < 'user 100') d (u), run_tracker.user_stats(u) s
    UNION ALL SELECT 'kind', s.kind, to_jsonb(s) - 'kind' FROM run_tracker.kind_stats() s
    UNION ALL SELECT 'workflow', s.workflow_id, to_jsonb(s) - 'workflow_id' FROM run_tracker.workflow_stats() s
    UNION ALL SELECT 'model', concat_ws('/', s.provider, s.model, s.operation), to_jsonb(s) - '{provider,model,operation}'::text[] FROM run_tracker.model_stats() s
    UNION ALL SELECT u, s.period_at::text, to_jsonb(s) - '{period_at,retried}'::text[] FROM unnest('{day,hour}'::text[]) u, run_tracker.trend_stats(u, '-infinity') s WHERE pg_temp.is_more(to_jsonb(s))
    UNION ALL SELECT 'kind a of day', s.period_at::text, to_jsonb(s) - '{period_at,retried}'::text[] FROM run_tracker.trend_stats('day', '-infinity', kind => 'a') s WHERE pg_temp.is_more(to_jsonb(s))
    UNION ALL SELECT 'alice''s hour', s.period_at::text, to_jsonb(s) - '{period_at,retried}'::text[] FROM run_tracker.trend_stats('hour', '-infinity', user_id => 'alice') s WHERE pg_temp.is_more(to_jsonb(s))
    UNION ALL SELECT 'user since ' || b, s.user_id, to_jsonb(s) - '{user_id,retried}'::text[] FROM pg_temp.borders() b, run_tracker.user_stats(since => b) s WHERE pg_temp.is_more(to_jsonb(s))
    UNION ALL SELECT 'kind since ' || b, s.kind, to_jsonb(s) - '{kind,retried}'::text[] FROM pg_temp.borders() b, run_tracker.kind_stats(since => b) s WHERE pg_temp.is_more(to_jsonb(s))
    UNION ALL SELECT 'model since ' || b, concat_ws('/', s.provider, s.model, s.operation), to_jsonb(s) - '{provider,model,operation,retried}'::text[] FROM pg_temp.borders() b, run_tracker.model_stats(since => b) s WHERE pg_temp.is_more(to_jsonb(s))
    UNION ALL SELECT 'alice''s model since ' || b, concat_ws('/', s.provider, s.model, s.operation), to_jsonb(s) - '{provider,model,operation,retried}'::text[] FROM pg_temp.borders() b, run_tracker.model_stats(user_id => 'alice', since => b) s WHERE pg_temp.is_more(to_jsonb(s))
$$;
CREATE FUNCTION pg_temp.expected_statistics() RETURNS TABLE (what text, name text, value jsonb) LANGUAGE sql AS $$
    SELECT what, s.name, to_jsonb(s) - 'name' FROM unnest('{user,kind,workflow}'::text[]) what, pg_temp.expected_runs(what, NULL) s
    UNION ALL SELECT 'user', '*' || s.name, to_jsonb(s) - 'name' FROM pg_temp.expected_runs('user', NULL) s WHERE s.name < 'user 100'
    UNION ALL SELECT 'model', s.name, to_jsonb(s) - 'name' FROM pg_temp.expected_models(NULL, NULL) s
    UNION ALL SELECT u, s.name, to_jsonb(s) - 'name' FROM unnest('{day,hour}'::text[]) u, pg_temp.expected_trend(u, NULL, NULL) s
    UNION ALL SELECT 'kind a of day', s.name, to_jsonb(s) - 'name' FROM pg_temp.expected_trend('day', NULL, 'a') s
    UNION ALL SELECT 'alice''s hour', s.name, to_jsonb(s) - 'name' FROM pg_temp.expected_trend('hour', 'alice', NULL) s
    UNION ALL SELECT w || ' since ' || b, s.name, to_jsonb(s) - '{name,retried}'::text[] FROM unnest('{user,kind}'::text[]) w, pg_temp.borders() b, pg_temp.expected_runs(w, b) s
              WHERE s.total + s.finished + s.task_count + s.failed_task_count + s.total_cost > 0
    UNION ALL SELECT 'model since ' || b, s.name, to_jsonb(s) - '{name,retried}'::text[] FROM pg_temp.borders() b, pg_temp.expected_models(b, NULL) s
              WHERE s.task_count + s.failed_task_count + s.cancelled_task_count > 0
    UNION ALL SELECT 'alice''s model since ' || b, s.name, to_jsonb(s) - '{name,retried}'::text[] FROM pg_temp.borders() b, pg_temp.expected_models(b, 'alice') s
              WHERE s.task_count + s.failed_task_count + s.cancelled_task_count > 0
$$;
-- Where statistics are not what they should be: the numbers, with 2 % allowed where they are from histograms.
CREATE FUNCTION pg_temp.wrong() RETURNS SETOF text LANGUAGE sql AS $$
    SELECT format('%s %L %s: %s instead of %s', what, left(name, 20), key, s.value -> key, e.value -> key)
    FROM pg_temp.statistics() s FULL JOIN pg_temp.expected_statistics() e USING (what, name),
         LATERAL jsonb_object_keys(COALESCE(s.value, e.value)) key
    WHERE (s.value -> key) IS DISTINCT FROM (e.value -> key)
      AND NOT COALESCE(key ~ '^(min|max|p\d+|first_token_p\d+)_ms$' AND jsonb_typeof(s.value -> key) = 'number' AND jsonb_typeof(e.value -> key) = 'number' AND
                       abs((s.value ->> key)::numeric - (e.value ->> key)::numeric) <= CASE WHEN (e.value ->> key)::numeric <= 100 THEN 0 ELSE 0.02 * (e.value ->> key)::numeric END, false)
    ORDER BY 1 LIMIT 10
$$;
-- Folds one delta, two, and the rest.  After each step, statistics must be the same to the last digit, and what the ledger says.
CREATE FUNCTION pg_temp.verify() RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
    before jsonb;
    after jsonb;
    step int;
    deltas bigint;
    folded bigint;
    good boolean;
BEGIN
    RETURN QUERY SELECT * FROM pg_temp.wrong();
    good := NOT FOUND;
    SELECT jsonb_agg(to_jsonb(s) ORDER BY s.what COLLATE "C", s.name COLLATE "C") INTO before FROM pg_temp.statistics() s;
    FOREACH step IN ARRAY '{1,2,1000000}'::int[] LOOP
        SELECT count(*) INTO deltas FROM run_tracker.stat_deltas;
        folded := run_tracker.fold_statistics(step);
        IF folded <> LEAST(step, deltas) OR (SELECT count(*) FROM run_tracker.stat_deltas) <> deltas - folded THEN
            RETURN NEXT format('%s of %s deltas folded by %s', folded, deltas, step);
            good := false;
        END IF;
        SELECT jsonb_agg(to_jsonb(s) ORDER BY s.what COLLATE "C", s.name COLLATE "C") INTO after FROM pg_temp.statistics() s;
        IF after IS DISTINCT FROM before THEN
            RETURN NEXT format('not the same after folding %s', step);
            good := false;
        END IF;
    END LOOP;
    IF good THEN
        RETURN NEXT 'ok';
    END IF;
END
$$;
-- That statistics are equal is worth nothing if there are none.
CREATE FUNCTION pg_temp.size() RETURNS text LANGUAGE sql AS $$
    SELECT format('%s rows of statistics, %s totals, %s deltas', (SELECT count(*) FROM pg_temp.statistics()), (SELECT count(*) FROM run_tracker.stat_totals), (SELECT count(*) FROM run_tracker.stat_deltas))
$$;
SELECT pg_temp.size(), pg_temp.verify();

--
-- INSERT states facts: runs and tasks that a service brings in with their times
--
CREATE FUNCTION pg_temp.id(n int) RETURNS uuid LANGUAGE sql IMMUTABLE AS $$ SELECT ('018f0000-0000-7000-8000-' || lpad(n::text, 12, '0'))::uuid $$;
CREATE FUNCTION pg_temp.task(n int) RETURNS uuid LANGUAGE sql IMMUTABLE AS $$ SELECT ('018f0000-0000-7000-9000-' || lpad(n::text, 12, '0'))::uuid $$;
INSERT INTO run_tracker.runs (run_id, user_id, kind, workflow_id, settings, status, created_at, started_at, finished_at, duration_ms)
SELECT pg_temp.id(n), (ARRAY['alice', 'bob', 'carol', ''])[1 + n % 4], (ARRAY['a', 'b', NULL, '', 'c'])[1 + n % 5], (ARRAY['w1', 'w2', NULL])[1 + n % 3],
       (ARRAY[NULL, '{"mode": "fast"}', '{"mode": "slow"}', '{"mode": 7}', '{"mode": ""}', '{"mode": null}', '{"mode": {"mode": "nested"}}', '{"other": "mode"}']::jsonb[])[1 + n % 8],
       (ARRAY['completed', 'completed', 'failed', 'pending', 'cancelled', 'timeout', 'running', 'completed', 'paused'])[1 + n % 9],
       -- around midnight and the borders of hours
       timestamptz '2023-02-28 12:00:00Z' + n * interval '7 minutes 30 seconds', timestamptz '2023-02-28 12:00:01Z' + n * interval '7 minutes 30 seconds',
       timestamptz '2023-02-28 12:00:01Z' + n * interval '9 minutes', ((n * 7919) % 1000) ^ 2
FROM generate_series(1, 180) n;
INSERT INTO run_tracker.tasks (run_id, task_id, status, provider, model, response_model, operation, input_tokens, output_tokens, cost, time_to_first_token_ms, created_at, started_at, finished_at, duration_ms)
SELECT r.run_id, pg_temp.task(n), CASE WHEN r.finished_at IS NULL THEN (ARRAY['completed', 'running', 'pending', 'failed'])[1 + n % 4] ELSE (ARRAY['completed', 'failed', 'cancelled', 'timeout', 'completed'])[1 + n % 5] END,
       (ARRAY['p1', 'p2', NULL])[1 + n % 3], (ARRAY['m1', 'm2', NULL, NULL])[1 + n % 4], (ARRAY['m1', 'm3', NULL])[1 + n % 3], (ARRAY['chat', NULL])[1 + n % 2],
       NULLIF(n % 100, 7), NULLIF(n % 50, 3), CASE WHEN n % 6 > 0 THEN n * 0.0001 END, CASE WHEN n % 3 > 0 THEN (n * 31) % 3000 END, r.created_at, r.created_at, r.created_at + n * interval '11 seconds', (n * 7907) % 20000
FROM generate_series(1, 400) n JOIN run_tracker.runs r ON r.run_id = pg_temp.id(1 + n % 170);
-- (18,000 runs would do no more; the numbers differ in every group)
SELECT pg_temp.size(), pg_temp.verify();
SELECT user_id, total, open, finished, successful, failed, cancelled, timed_out, success_rate, modes, task_count, total_tokens, total_cost FROM run_tracker.user_stats();
SELECT kind, total, open, finished, successful, success_rate, modes FROM run_tracker.kind_stats();
SELECT workflow_id, total, open, finished, successful, success_rate, modes FROM run_tracker.workflow_stats();
SELECT provider, model, operation, task_count, failed_task_count, cancelled_task_count, total_tokens, total_cost FROM run_tracker.model_stats();
SELECT period_at, created, finished, successful, task_count, total_tokens FROM run_tracker.trend_stats('day', '2023-02-01');
-- arguments
SELECT kind, total, finished FROM run_tracker.kind_stats('a');
SELECT kind, total, finished FROM run_tracker.kind_stats('a', 'alice');
SELECT kind, total, open, finished FROM run_tracker.kind_stats('a', 'alice', '2023-03-01');
SELECT kind, total, finished FROM run_tracker.kind_stats('nobody has this');
SELECT workflow_id, total, finished FROM run_tracker.workflow_stats('w1', 'bob');
SELECT provider, model, operation, task_count FROM run_tracker.model_stats('m1', 'bob');
SELECT user_id, total, finished FROM run_tracker.user_stats('nobody');
SELECT user_id, total, finished FROM run_tracker.user_stats('');
SELECT period_at, created, finished FROM run_tracker.trend_stats('hour', '2023-02-28 23:59:59.999999Z', 'alice', 'a');
SELECT count(*) FROM run_tracker.trend_stats();
SELECT count(*) FROM run_tracker.trend_stats('day', 'infinity');
SELECT count(*) FROM run_tracker.user_stats(since => 'infinity');
SELECT sum(total) FROM run_tracker.user_stats(since => '-infinity');
CALL pg_temp.try($$SELECT run_tracker.trend_stats('week')$$);
CALL pg_temp.try($$SELECT run_tracker.trend_stats(NULL)$$);
CALL pg_temp.try($$SELECT run_tracker.stat_rows('foo', 'all')$$);
CALL pg_temp.try($$SELECT run_tracker.stat_rows('workflow', 'day')$$);
CALL pg_temp.try($$SELECT run_tracker.stat_rows('user', 'all', since => now())$$);
CALL pg_temp.try($$SELECT run_tracker.stat_rows(NULL, NULL)$$);
-- the earliest and latest moments that there are
SELECT count(*) > 0 AS some FROM run_tracker.kind_stats(since => '4714-11-24 00:00:00Z BC');
SELECT count(*) FROM run_tracker.kind_stats(since => '294276-12-31 23:59:59Z');
SELECT count(*) > 0 AS some FROM run_tracker.trend_stats('hour', '4714-11-24 00:00:00Z BC');
-- what dates look like, and where the caller is, makes no difference
CREATE FUNCTION pg_temp.fingerprint() RETURNS text LANGUAGE sql AS $$
    SELECT md5(string_agg((s.value::text), E'\n' ORDER BY s.what COLLATE "C", s.name COLLATE "C")) FROM (
        SELECT what, name, value FROM pg_temp.statistics() WHERE what NOT IN ('day', 'hour', 'kind a of day', 'alice''s hour') AND what NOT LIKE '%since%'
        UNION ALL SELECT 'since', b.n || s.kind, to_jsonb(s) FROM pg_temp.borders() WITH ORDINALITY b (t, n), run_tracker.kind_stats(since => b.t) s
        UNION ALL SELECT 'trend', extract(epoch FROM s.period_at)::text, to_jsonb(s) - 'period_at' FROM run_tracker.trend_stats('hour', '2023-02-28 22:30:00Z') s) s
$$;
SELECT pg_temp.fingerprint() AS fingerprint \gset
CREATE FUNCTION pg_temp.fingerprint_in(zone text, style text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('TimeZone', zone, true), set_config('DateStyle', style, true);
    RETURN pg_temp.fingerprint();
END
$$;
BEGIN;
SELECT z AS timezone, d AS datestyle, pg_temp.fingerprint_in(z, d) = :'fingerprint' AS same
FROM unnest('{UTC,Asia/Shanghai,Asia/Kolkata,America/St_Johns,Pacific/Apia}'::text[]) z, unnest('{ISO,"SQL, DMY",Postgres,German}'::text[]) d;
ROLLBACK;

--
-- UPDATE makes events.  Each step is seen before, during and after folding.
--
-- transitions, by functions and by UPDATE
SELECT run_tracker.create_run(pg_temp.id(1000 + n), kind => 'a', workflow_id => 'w1', user_id => 'alice', settings => '{"mode": "fast"}', max_attempts => 3) FROM generate_series(1, 9) n \g /dev/null
SELECT run_tracker.create_task(pg_temp.id(1000 + n), pg_temp.task(1000 + n), model => 'm1', provider => 'p1') FROM generate_series(1, 9) n \g /dev/null
SELECT run_tracker.start_run(pg_temp.id(1000 + n)), run_tracker.start_task(pg_temp.task(1000 + n)) FROM generate_series(1, 9) n \g /dev/null
SELECT pg_temp.verify();
SELECT run_tracker.complete_task(pg_temp.task(1001), response => 'x', input_tokens => 10, output_tokens => 5, cost => 0.25), run_tracker.fail_task(pg_temp.task(1002)), run_tracker.cancel_task(pg_temp.task(1003)) \g /dev/null
SELECT run_tracker.complete_run(pg_temp.id(1001)), run_tracker.fail_run(pg_temp.id(1002)), run_tracker.cancel_run(pg_temp.id(1003)) \g /dev/null
UPDATE run_tracker.runs SET status = 'timeout' WHERE run_id = pg_temp.id(1004);
SELECT pg_temp.verify();
-- what changes nothing that is counted leaves no trace
UPDATE run_tracker.runs SET name = 'new', settings = settings || '{"other": 1}', kind = kind, metadata = '{}';
UPDATE run_tracker.tasks SET metadata = '{}', status = status, cost = cost;
UPDATE run_tracker.runs SET status = status, finished_at = NULL, duration_ms = 1, phase = 'queued', created_at = now() WHERE user_id = 'alice';
INSERT INTO run_tracker.messages (run_id, role, content) VALUES (pg_temp.id(1001), 'user', 'x');
SELECT count(*) AS deltas FROM run_tracker.stat_deltas;
SELECT pg_temp.verify();
-- corrections of tokens and cost, of a model that was wrong, of names that come late
UPDATE run_tracker.tasks SET input_tokens = 100, cost = 0.125 WHERE task_id = pg_temp.task(1001);
UPDATE run_tracker.tasks SET output_tokens = NULL, cost = NULL, time_to_first_token_ms = 77 WHERE task_id IN (pg_temp.task(1001), pg_temp.task(3));
UPDATE run_tracker.tasks SET model = 'm9', provider = NULL, operation = 'embeddings' WHERE task_id IN (pg_temp.task(1001), pg_temp.task(3), pg_temp.task(7));
UPDATE run_tracker.tasks SET response_model = 'answered' WHERE model IS NULL AND run_id < pg_temp.id(40);
SELECT pg_temp.verify();
-- late results: from one outcome to another, which takes place later
UPDATE run_tracker.tasks SET status = 'completed', cost = 0.5 WHERE task_id = pg_temp.task(1002);
UPDATE run_tracker.runs SET status = 'completed' WHERE run_id = pg_temp.id(1004) OR (phase = 'timed_out' AND run_id < pg_temp.id(40));
UPDATE run_tracker.tasks SET status = 'failed' WHERE phase = 'succeeded' AND run_id < pg_temp.id(10);
SELECT pg_temp.verify();
-- retries: what had finished is not gone, but counts as retried; in one transaction, too
SELECT run_tracker.retry_run(pg_temp.id(1001)), run_tracker.retry_run(pg_temp.id(1002)) \g /dev/null
UPDATE run_tracker.tasks SET status = 'running' WHERE task_id = pg_temp.task(1001);
UPDATE run_tracker.runs SET status = 'pending' WHERE phase = 'failed' AND run_id BETWEEN pg_temp.id(40) AND pg_temp.id(60);
SELECT pg_temp.verify();
BEGIN;
SELECT run_tracker.complete_run(pg_temp.id(1001)), run_tracker.retry_run(pg_temp.id(1001)), run_tracker.start_run(pg_temp.id(1001)), run_tracker.fail_run(pg_temp.id(1001), retry => true) \g /dev/null
COMMIT;
SELECT attempt, phase FROM run_tracker.runs WHERE run_id = pg_temp.id(1001);
SELECT pg_temp.verify();
SELECT retried FROM run_tracker.kind_stats('a', 'alice');
-- what was retried keeps its duration, tokens and cost, apart from the rest
SELECT phase, sum(finished_count) AS finished, sum(input_tokens) AS input, sum(cost) AS cost, run_tracker.histogram_count(run_tracker.merge_histograms(durations)) AS durations
FROM run_tracker.stat_rows('model', 'all', 'alice') WHERE model = 'm9' GROUP BY 1 ORDER BY 1;
-- claims that expire: active, timed out, queued again, in one transaction; the others time out for good
SELECT count(*) FROM run_tracker.claim_runs('worker', 5, kind => 'a');
SELECT count(*) FROM run_tracker.open_runs WHERE worker = 'worker' AND attempt < 3;
SELECT run_tracker.expire_runs(1000, now() + interval '1 year') > 10 AS many;
SELECT pg_temp.verify();
-- a task is moved to another run: of another kind and workflow; finished, open, and when it finishes
INSERT INTO run_tracker.tasks (run_id, task_id, status, cost, total_tokens, model) VALUES (pg_temp.id(1005), pg_temp.task(2001), 'completed', 1, 10, 'm1');
SELECT run_tracker.create_run(pg_temp.id(1020), kind => 'b', user_id => 'alice'), run_tracker.create_run(pg_temp.id(1021), kind => 'c', workflow_id => 'w2', user_id => 'alice'),
       run_tracker.create_task(pg_temp.id(1020), pg_temp.task(2002)), run_tracker.create_task(pg_temp.id(1020), pg_temp.task(2003)), run_tracker.create_task(pg_temp.id(1020), pg_temp.task(2004)) \g /dev/null
UPDATE run_tracker.tasks SET run_id = pg_temp.id(1021) WHERE task_id IN (pg_temp.task(2001), pg_temp.task(2002));
SELECT pg_temp.verify();
UPDATE run_tracker.tasks SET run_id = CASE run_id WHEN pg_temp.id(1021) THEN pg_temp.id(1020) ELSE pg_temp.id(1021) END, status = 'completed', cost = 3 WHERE run_id IN (pg_temp.id(1020), pg_temp.id(1021)) AND task_id <> pg_temp.task(2004);
SELECT pg_temp.verify();

-- Kind, workflow and mode of a run change: all that it and its tasks count goes with it.  While it is open, when it finishes, and after that.
UPDATE run_tracker.runs SET kind = 'renamed', workflow_id = 'w3', settings = '{"mode": "new"}' WHERE run_id IN (pg_temp.id(1020), pg_temp.id(1021));
SELECT pg_temp.verify();
UPDATE run_tracker.runs SET kind = NULL, workflow_id = 'w4', settings = '{"mode": "newer"}', status = 'completed' WHERE run_id IN (pg_temp.id(1020), pg_temp.id(1021));
SELECT pg_temp.verify();
UPDATE run_tracker.runs SET kind = 'late', workflow_id = NULL, settings = NULL WHERE run_id IN (pg_temp.id(1020), pg_temp.id(1021), pg_temp.id(8), pg_temp.id(9));
SELECT pg_temp.verify();
SELECT kind, total, open, finished, task_count, total_tokens, total_cost, modes FROM run_tracker.kind_stats('late');
-- a task that is retried, or corrected, after its run has been renamed
SELECT run_tracker.create_run(pg_temp.id(1030), kind => 'before', workflow_id => 'before', user_id => 'dave'), run_tracker.create_task(pg_temp.id(1030), pg_temp.task(2010)), run_tracker.create_task(pg_temp.id(1030), pg_temp.task(2011)),
       run_tracker.complete_task(pg_temp.task(2010), cost => 1, input_tokens => 100), run_tracker.complete_task(pg_temp.task(2011), cost => 2, input_tokens => 200) \g /dev/null
UPDATE run_tracker.runs SET kind = 'after', workflow_id = 'after' WHERE run_id = pg_temp.id(1030);
UPDATE run_tracker.tasks SET status = 'pending' WHERE task_id = pg_temp.task(2010);
UPDATE run_tracker.tasks SET input_tokens = 50 WHERE task_id = pg_temp.task(2011);
SELECT pg_temp.verify();
SELECT kind, total, task_count, total_tokens, total_cost FROM run_tracker.kind_stats(user_id => 'dave');
-- kind and task in one statement, in both orders: the task counts once
WITH t AS (UPDATE run_tracker.tasks SET status = 'completed', cost = 4 WHERE task_id = pg_temp.task(2010)) UPDATE run_tracker.runs SET kind = 'between' WHERE run_id = pg_temp.id(1030);
SELECT pg_temp.verify();
WITH r AS (UPDATE run_tracker.runs SET kind = 'again', workflow_id = NULL WHERE run_id = pg_temp.id(1030)) UPDATE run_tracker.tasks SET cost = cost * 2, status = 'failed' WHERE run_id = pg_temp.id(1030);
SELECT pg_temp.verify();
WITH r AS (UPDATE run_tracker.runs SET kind = 'ended', status = 'completed' WHERE run_id = pg_temp.id(1030)), t AS (INSERT INTO run_tracker.tasks (run_id, task_id, status, cost) VALUES (pg_temp.id(1030), pg_temp.task(2012), 'completed', 1))
DELETE FROM run_tracker.messages WHERE false;
SELECT pg_temp.verify();
SELECT kind, total, open, successful, task_count, failed_task_count, total_tokens, total_cost FROM run_tracker.kind_stats(user_id => 'dave');
-- the user of a run never changes
CALL pg_temp.try($$UPDATE run_tracker.runs SET user_id = 'bob' WHERE user_id = 'alice'$$);
CALL pg_temp.try($$UPDATE run_tracker.tasks SET user_id = 'bob' WHERE run_id = '018f0000-0000-7000-8000-000000000020'$$);
SELECT pg_temp.verify();

--
-- Kinds of statements
--
-- bulk: many rows of many groups in one statement, in an order that has nothing to do with that of the table
UPDATE run_tracker.runs r SET status = CASE WHEN extract(minute FROM r.created_at) > 30 THEN 'completed' ELSE 'failed' END
FROM (SELECT run_id FROM run_tracker.runs WHERE phase IN ('queued', 'active', 'timed_out') ORDER BY md5(run_id::text)) o WHERE r.run_id = o.run_id AND r.run_id < pg_temp.id(500);
SELECT pg_temp.verify();
UPDATE run_tracker.tasks SET input_tokens = input_tokens * 2, cost = cost * 1.5, model = CASE WHEN attempt = 1 THEN COALESCE(model, 'guessed') ELSE model END;
SELECT pg_temp.verify();
-- ON CONFLICT: rows that are new, and rows that are there
INSERT INTO run_tracker.runs (run_id, user_id, kind, settings, status)
SELECT pg_temp.id(n), 'erin', 'upsert', '{"mode": "insert"}', 'running' FROM generate_series(1100, 1104) n;
INSERT INTO run_tracker.runs (run_id, user_id, kind, settings, status)
SELECT pg_temp.id(n), 'erin', 'upsert', '{"mode": "insert"}', 'running' FROM generate_series(1102, 1107) n
ON CONFLICT (run_id) DO UPDATE SET settings = '{"mode": "update"}', status = CASE WHEN runs.run_id = pg_temp.id(1102) THEN runs.status ELSE 'completed' END WHERE runs.run_id <> pg_temp.id(1103);
INSERT INTO run_tracker.runs (run_id, user_id) SELECT pg_temp.id(n), 'erin' FROM generate_series(1102, 1108) n ON CONFLICT DO NOTHING;
SELECT pg_temp.verify();
-- MERGE with all actions
SELECT pg_temp.bury(ARRAY[pg_temp.id(1104)]);
MERGE INTO run_tracker.runs r USING (SELECT pg_temp.id(n) AS run_id, n FROM generate_series(1100, 1112) n) s ON r.run_id = s.run_id
WHEN MATCHED AND n = 1100 THEN UPDATE SET status = 'completed', kind = 'merged'
WHEN MATCHED AND n = 1101 THEN DELETE
WHEN MATCHED AND n = 1102 THEN UPDATE SET kind = 'merged'
WHEN MATCHED AND n = 1104 THEN DELETE
WHEN MATCHED AND n = 1105 THEN DO NOTHING
WHEN MATCHED THEN UPDATE SET settings = '{"mode": "merge"}'
WHEN NOT MATCHED THEN INSERT (run_id, user_id, kind, settings, status) VALUES (s.run_id, 'erin', 'merged', '{"mode": "merge"}', CASE WHEN n % 2 = 0 THEN 'completed' ELSE 'pending' END);
SELECT pg_temp.verify();
-- WITH: the same table more than once, and both tables at once
WITH a AS (UPDATE run_tracker.runs SET status = 'failed' WHERE run_id = pg_temp.id(1109)), b AS (UPDATE run_tracker.runs SET kind = 'with' WHERE run_id = pg_temp.id(1110)),
     c AS (INSERT INTO run_tracker.runs (run_id, user_id, kind) VALUES (pg_temp.id(1113), 'erin', 'with') RETURNING run_id), d AS (INSERT INTO run_tracker.runs (run_id, user_id, status) VALUES (pg_temp.id(1114), 'erin', 'completed') RETURNING run_id),
     e AS (INSERT INTO run_tracker.tasks (run_id, status, cost, model) SELECT run_id, 'completed', 2, 'with' FROM c), f AS (DELETE FROM run_tracker.runs WHERE run_id = pg_temp.id(1111))
INSERT INTO run_tracker.tasks (run_id, status, model) SELECT run_id, 'failed', 'with' FROM d;
SELECT pg_temp.verify();
-- a task that leaves a run which the same statement deletes
INSERT INTO run_tracker.tasks (run_id, task_id, status, cost) VALUES (pg_temp.id(1110), pg_temp.task(2020), 'completed', 5);
SELECT pg_temp.bury(ARRAY[pg_temp.id(1110)]);
DELETE FROM gone_tasks WHERE cost = 5;
WITH t AS (UPDATE run_tracker.tasks SET run_id = pg_temp.id(1113) WHERE task_id = pg_temp.task(2020)) DELETE FROM run_tracker.runs WHERE run_id = pg_temp.id(1110);
SELECT r.kind FROM run_tracker.tasks t JOIN run_tracker.runs r USING (run_id) WHERE task_id = pg_temp.task(2020);
SELECT pg_temp.verify();
-- COPY
COPY run_tracker.runs (run_id, user_id, kind, workflow_id, settings, status, created_at, finished_at) FROM stdin;
018f0000-0000-7000-8000-000000001120	erin	copy	w1	{"mode": "copy"}	completed	2023-03-01 00:59:59.999999Z	2023-03-01 01:00:00Z
018f0000-0000-7000-8000-000000001121	erin	\N	\N	\N	pending	2023-03-01 01:00:00Z	\N
\.
COPY run_tracker.tasks (run_id, status, model, operation, input_tokens, cost) FROM stdin;
018f0000-0000-7000-8000-000000001120	completed	m1	chat	5	0.001
018f0000-0000-7000-8000-000000001121	failed	m1	chat	7	0.002
\.
SELECT pg_temp.verify();
-- rows that a trigger of somebody else's suppresses or changes
CREATE FUNCTION regress_statistics_filter() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.kind = 'suppressed' THEN
        RETURN NULL;
    ELSIF NEW.kind = 'changed' THEN
        NEW.kind := 'changed by trigger';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER filter BEFORE INSERT OR UPDATE ON run_tracker.runs FOR EACH ROW EXECUTE FUNCTION regress_statistics_filter();
CREATE TRIGGER zzz_filter BEFORE INSERT OR UPDATE ON run_tracker.runs FOR EACH ROW EXECUTE FUNCTION regress_statistics_filter();
INSERT INTO run_tracker.runs (user_id, kind, status) SELECT 'erin', k, 'running' FROM unnest('{suppressed,changed,x,suppressed,y}'::text[]) k;
UPDATE run_tracker.runs SET kind = CASE kind WHEN 'x' THEN 'suppressed' WHEN 'y' THEN 'changed' ELSE kind END, status = 'completed' WHERE user_id = 'erin' AND kind IN ('x', 'y', 'changed by trigger');
SELECT pg_temp.verify();
SELECT kind, total, finished FROM run_tracker.kind_stats(user_id => 'erin') WHERE kind ~ '^(x|y|changed|suppressed)';
DROP TRIGGER filter ON run_tracker.runs;
DROP TRIGGER zzz_filter ON run_tracker.runs;
DROP FUNCTION regress_statistics_filter();
-- what is rolled back does not count
BEGIN;
SAVEPOINT a;
INSERT INTO run_tracker.runs (user_id, kind, status) VALUES ('erin', 'rolled back', 'completed');
UPDATE run_tracker.runs SET kind = 'rolled back' WHERE user_id = 'alice';
SELECT run_tracker.fold_statistics() > 0 AS folded;
ROLLBACK TO a;
SAVEPOINT b;
INSERT INTO run_tracker.runs (user_id, kind, status) VALUES ('erin', 'kept', 'completed');
RELEASE b;
SELECT run_tracker.fold_statistics();
INSERT INTO run_tracker.runs (user_id, kind, status) VALUES ('erin', 'kept', 'completed');
CALL pg_temp.try($$WITH r AS (INSERT INTO run_tracker.runs (user_id, kind, status) VALUES ('erin', 'rolled back', 'completed') RETURNING 1) SELECT 1 / 0 FROM r$$);
COMMIT;
SELECT pg_temp.verify();
SELECT kind, total FROM run_tracker.kind_stats() WHERE kind IN ('kept', 'rolled back');
-- a fold sees what its own transaction has added, and is undone with it
BEGIN;
INSERT INTO run_tracker.runs (user_id, kind, status) VALUES ('erin', 'own', 'completed');
SELECT run_tracker.fold_statistics() AS first, run_tracker.fold_statistics() AS second;
SELECT total FROM run_tracker.kind_stats('own');
ROLLBACK;
SELECT total FROM run_tracker.kind_stats('own');
SELECT pg_temp.verify();

--
-- Deletion does not change statistics, but a run that is deleted while it is open was never created
--
SELECT pg_temp.bury_tasks(NULL, array_agg(task_id)) FROM run_tracker.tasks WHERE run_id < pg_temp.id(20);
DELETE FROM run_tracker.tasks WHERE run_id < pg_temp.id(20);
SELECT pg_temp.verify();
SELECT pg_temp.bury(array_agg(run_id)) FROM run_tracker.runs WHERE run_id < pg_temp.id(60);
DELETE FROM run_tracker.runs WHERE run_id < pg_temp.id(60);
SELECT pg_temp.verify();
-- by purge_runs(), of finished runs only: not a single number changes
SELECT jsonb_agg(to_jsonb(s) ORDER BY s.what COLLATE "C", s.name COLLATE "C") AS before FROM pg_temp.statistics() s \gset
SELECT pg_temp.bury(array_agg(run_id)) FROM run_tracker.runs WHERE finished_at < now() - interval '100 days' AND created_at < now() - interval '100 days' \g /dev/null
SELECT run_tracker.purge_runs('100 days') > 50 AS purged, run_tracker.purge_runs('100 days') AS again;
SELECT jsonb_agg(to_jsonb(s) ORDER BY s.what COLLATE "C", s.name COLLATE "C") = :'before'::jsonb AS same FROM pg_temp.statistics() s;
SELECT pg_temp.verify();
-- a run that is created and deleted in one transaction, and one that finishes in between
BEGIN;
INSERT INTO run_tracker.runs (run_id, user_id, kind) VALUES (pg_temp.id(1200), 'frank', 'short'), (pg_temp.id(1201), 'frank', 'short');
UPDATE run_tracker.runs SET status = 'completed' WHERE run_id = pg_temp.id(1201);
DELETE FROM run_tracker.runs WHERE user_id = 'frank';
COMMIT;
SELECT total, open, finished FROM run_tracker.user_stats('frank');
INSERT INTO gone_runs SELECT 'frank', 'short', '', '', 'succeeded', 1, now(), now(), 0;
-- one statement deletes a run and what it would change
WITH d AS (DELETE FROM run_tracker.runs WHERE run_id = pg_temp.id(1121)) UPDATE run_tracker.runs SET kind = 'deleted' WHERE run_id = pg_temp.id(1121);
SELECT count(*) FROM run_tracker.runs WHERE run_id = pg_temp.id(1121);
SELECT open, total FROM run_tracker.user_stats('erin');
SELECT count(*) FILTER (WHERE finished_at IS NULL) AS open FROM run_tracker.runs WHERE user_id = 'erin';

-- TRUNCATE: as if all runs had been deleted
SELECT sum(total) AS total, sum(open) AS open, sum(finished) AS finished, sum(task_count) AS tasks, sum(total_tokens) AS tokens FROM run_tracker.user_stats() \gset before_
SELECT count(*) FILTER (WHERE finished_at IS NULL) = :before_open AS open FROM run_tracker.runs;
SET client_min_messages = warning;
TRUNCATE run_tracker.runs CASCADE;
RESET client_min_messages;
SELECT sum(total) = :before_total - :before_open AS total, sum(open) AS open, sum(finished) = :before_finished AS finished, sum(task_count) = :before_tasks AS tasks, sum(total_tokens) = :before_tokens AS tokens FROM run_tracker.user_stats();
SELECT run_tracker.fold_statistics() > 0 AS folded;
SELECT sum(total) = :before_total - :before_open AS total, sum(open) AS open, sum(finished) = :before_finished AS finished, sum(task_count) = :before_tasks AS tasks, sum(total_tokens) = :before_tokens AS tokens FROM run_tracker.user_stats();
SELECT sum(created_count) - sum(finished_count) FILTER (WHERE phase NOT IN ('', 'retried')) AS open FROM run_tracker.stat_rows('workflow', 'all');

--
-- Names and numbers of all sizes
--
TRUNCATE run_tracker.stat_deltas, run_tracker.stat_totals;
TRUNCATE gone_runs, gone_tasks;
-- names are cut off after 200 bytes, between characters; what looks like SQL, JSON or HTML is a name like others
CREATE TEMP TABLE names AS SELECT n, CASE n
    WHEN 1 THEN repeat('x', 199) || 'é' || 'rest' WHEN 2 THEN repeat('x', 198) || 'é' || 'rest' WHEN 3 THEN repeat('😀', 60) WHEN 4 THEN repeat('x', 197) || '😀' WHEN 5 THEN repeat('x', 200)
    WHEN 6 THEN repeat('x', 201) WHEN 7 THEN ''';DROP TABLE run_tracker.stat_totals;--' WHEN 8 THEN '"\n\t\\{}<script>' WHEN 9 THEN E'\x01\n\t \\' WHEN 10 THEN ' ' WHEN 11 THEN '{{1,2},NULL}' WHEN 12 THEN 'NULL' WHEN 13 THEN 'retried'
    WHEN 14 THEN 'e' || U&'\0301' WHEN 15 THEN 'é' WHEN 16 THEN 'É' WHEN 17 THEN repeat('long ', 1600) END AS name
FROM generate_series(1, 17) n;
INSERT INTO run_tracker.runs (run_id, user_id, kind, workflow_id, settings, status) SELECT pg_temp.id(n), 'alice', name, left(name, 2000), jsonb_build_object('mode', name), 'completed' FROM names;
INSERT INTO run_tracker.tasks (run_id, status, provider, model, response_model, operation) SELECT pg_temp.id(n), 'completed', name, CASE WHEN n % 2 = 0 THEN name END, name, name FROM names;
SELECT pg_temp.verify();
SELECT count(*) AS kinds, max(octet_length(kind)) AS longest, sum(total) AS runs FROM run_tracker.kind_stats();
UPDATE run_tracker.runs SET kind = kind || 'x', workflow_id = NULL, settings = '{}' WHERE run_id <> pg_temp.id(9);
UPDATE run_tracker.tasks SET model = model || 'x', provider = '';
SELECT pg_temp.verify();
-- users, too, but for the length of their ids
INSERT INTO run_tracker.runs (user_id, status) SELECT left(name, 500), 'completed' FROM names WHERE n <> 3;
INSERT INTO run_tracker.runs (user_id, status) SELECT rpad('😀', 126, 'é') || repeat('x', n), 'completed' FROM generate_series(257, 258) n;
CALL pg_temp.try($$INSERT INTO run_tracker.runs (user_id) VALUES (repeat('é', 256) || 'x')$$);
CALL pg_temp.try($$SELECT run_tracker.create_run(user_id => repeat('x', 1000000))$$);
SELECT pg_temp.verify();
SELECT count(*), max(octet_length(user_id)) AS longest FROM run_tracker.user_stats();

-- a key of the largest size
INSERT INTO run_tracker.runs (run_id, user_id, kind, workflow_id, settings, status)
SELECT pg_temp.id(50), r, left(r, 200), left(reverse(r), 200), jsonb_build_object('mode', left(r, 200)), 'completed'
FROM (SELECT left(string_agg(md5(n::text), ''), 512) AS r FROM generate_series(1, 20) n) s;
INSERT INTO run_tracker.tasks (run_id, status, provider, model, operation)
SELECT pg_temp.id(50), 'completed', left(r, 200), left(reverse(r), 200), left(md5(r) || r, 200) FROM (SELECT user_id AS r FROM run_tracker.runs WHERE run_id = pg_temp.id(50)) s;
SELECT pg_temp.verify();

-- numbers that are as large as they may be, and times that are not in the calendar
SET client_min_messages = warning;
TRUNCATE run_tracker.runs CASCADE;
TRUNCATE run_tracker.stat_deltas, run_tracker.stat_totals;
RESET client_min_messages;
INSERT INTO run_tracker.runs (run_id, user_id, kind, status, created_at, finished_at, duration_ms) VALUES
    (pg_temp.id(1), 'alice', 'a', 'completed', '4714-11-24 00:00:00Z BC', '4713-01-01 00:59:59.999999Z BC', 1000000000000),
    (pg_temp.id(2), 'alice', 'a', 'completed', '1969-12-31 23:59:59.999999Z', '1970-01-01 00:00:00Z', 999999999999),
    (pg_temp.id(3), 'alice', 'a', 'completed', '1999-12-31 23:59:59.999999Z', '1999-12-31 23:59:59.999999Z', 0),
    (pg_temp.id(4), 'alice', 'a', 'completed', '2000-01-01 00:00:00Z', '294276-12-31 23:59:59.999999Z', 500000000001);
INSERT INTO run_tracker.tasks (run_id, task_id, status, input_tokens, output_tokens, total_tokens, cost, time_to_first_token_ms, created_at, finished_at, duration_ms)
SELECT pg_temp.id(n), pg_temp.task(n), 'completed', 1000000000000, 1000000000000, 1000000000000, 999999999990.999999999999 + n, 1000000000000, created_at, finished_at, 1000000000000 - n
FROM run_tracker.runs, LATERAL CAST(substr(run_id::text, 25) AS int) n;
SELECT pg_temp.verify();
SELECT total, successful, average_ms, min_ms, p50_ms, max_ms, input_tokens, total_cost FROM run_tracker.user_stats();
SELECT task_count, total_tokens, total_cost, average_ms, p50_ms, first_token_average_ms, first_token_p99_ms FROM run_tracker.model_stats();
SELECT period_at, created, finished, total_cost FROM run_tracker.trend_stats('day', '-infinity');
-- what is longer counts as this long, in every state of folding
INSERT INTO run_tracker.runs (run_id, user_id, kind, status, created_at, finished_at, duration_ms)
SELECT pg_temp.id(n), 'bob', 'b', 'completed', '2020-01-01', '2020-01-01', 9223372036854775807 FROM generate_series(5, 7) n;
SELECT kind, total, open, finished, average_ms, min_ms, max_ms FROM run_tracker.kind_stats(user_id => 'bob');
SELECT to_jsonb(s) AS before FROM run_tracker.kind_stats('b', 'bob') s \gset
SELECT run_tracker.fold_statistics(1) \g /dev/null
SELECT to_jsonb(s) = :'before' AS same FROM run_tracker.kind_stats('b', 'bob') s;
SELECT run_tracker.fold_statistics() \g /dev/null
SELECT to_jsonb(s) = :'before' AS same FROM run_tracker.kind_stats('b', 'bob') s;
-- infinity is no moment of any day
CALL pg_temp.try($$INSERT INTO run_tracker.runs (user_id, status, created_at, finished_at) VALUES ('bob', 'completed', '-infinity', 'infinity')$$);
CALL pg_temp.try($$INSERT INTO run_tracker.tasks (run_id, status, finished_at) VALUES (pg_temp.id(5), 'completed', 'infinity')$$);
DELETE FROM run_tracker.runs;
SELECT user_id, total, open, finished FROM run_tracker.user_stats();

-- sums that no bigint holds are the largest one, in every state of folding, and stop nobody
TRUNCATE run_tracker.stat_deltas, run_tracker.stat_totals;
INSERT INTO run_tracker.stat_deltas SELECT 'task', u, '2020-01-01', NULL, 'k', 'w', '', '', 'm', '', 'succeeded', 0, 1, 9000000000000000000, 9000000000000000000, 9000000000000000000, 1, 5, '{5,1}', 5, '{5,1}'
FROM unnest('{alice,bob}'::text[]) u, generate_series(1, 3);
SELECT user_id, task_count, input_tokens, output_tokens, total_tokens, total_cost FROM run_tracker.user_stats();
SELECT kind, task_count, total_tokens FROM run_tracker.kind_stats();
SELECT run_tracker.fold_statistics(n) FROM unnest('{1,1,2,5}'::int[]) n;
SELECT user_id, task_count, input_tokens, output_tokens, total_tokens, total_cost FROM run_tracker.user_stats();
SELECT kind, task_count, total_tokens FROM run_tracker.kind_stats();
SELECT workflow_id, task_count, total_tokens FROM run_tracker.workflow_stats();
SELECT task_count, total_tokens, p50_ms FROM run_tracker.model_stats();
SELECT task_count, total_tokens FROM run_tracker.trend_stats('day', '2020-01-01');

-- 10,000 kinds of one user, in one statement, whose rows do not fit into memory
TRUNCATE run_tracker.stat_deltas, run_tracker.stat_totals;
SET work_mem = '64kB';
INSERT INTO run_tracker.runs (user_id, kind, workflow_id, settings, status) SELECT 'alice', 'kind ' || n, 'workflow ' || n, jsonb_build_object('mode', 'mode ' || n), CASE WHEN n % 2 = 0 THEN 'completed' ELSE 'running' END
FROM generate_series(1, 10000) n;
SELECT count(*), sum(total), sum(open), sum(finished) FROM run_tracker.kind_stats();
UPDATE run_tracker.runs SET status = 'failed' WHERE phase = 'active';
SELECT count(*), sum(total), sum(open), sum(finished), sum(failed) FROM run_tracker.workflow_stats();
RESET work_mem;
SELECT run_tracker.fold_statistics(10000);
SELECT count(*), sum(total), sum(open), sum(finished), sum(failed) FROM run_tracker.kind_stats();
SELECT run_tracker.fold_statistics();
SELECT count(*), sum(total), sum(open), sum(finished), sum(failed) FROM run_tracker.kind_stats();
SELECT count(*), sum(total), sum(open), sum(finished), sum(failed) FROM run_tracker.workflow_stats();
SELECT total, open, finished, success_rate FROM run_tracker.user_stats();
SELECT kind, total, modes FROM run_tracker.kind_stats('kind 77');
-- modes are bounded, whatever clients say
SELECT count(*) BETWEEN 1 AND 1000 AS bounded FROM run_tracker.user_stats() s, jsonb_object_keys(s.modes);

--
-- Privileges
--
SET client_min_messages = warning;
TRUNCATE run_tracker.runs CASCADE;
TRUNCATE run_tracker.stat_deltas, run_tracker.stat_totals;
RESET client_min_messages;
INSERT INTO run_tracker.runs (run_id, user_id, kind, workflow_id, status) SELECT pg_temp.id(n), (ARRAY['alice', 'bob', ''])[1 + n % 3], 'k', 'w', 'completed' FROM generate_series(1, 9) n;
INSERT INTO run_tracker.tasks (run_id, status, model) SELECT run_id, 'completed', 'm' FROM run_tracker.runs;
SELECT run_tracker.fold_statistics() > 0 AS folded;
INSERT INTO run_tracker.runs (run_id, user_id, kind, workflow_id, status) SELECT pg_temp.id(10 + n), (ARRAY['alice', 'bob', ''])[1 + n % 3], 'k', 'w', 'failed' FROM generate_series(1, 9) n;
INSERT INTO run_tracker.tasks (run_id, status, model) SELECT run_id, 'failed', 'm' FROM run_tracker.runs WHERE phase = 'failed';
GRANT EXECUTE ON FUNCTION pg_temp.sqlstate_of(text) TO PUBLIC;
\set own 'SELECT (SELECT string_agg(format($$%s %s/%s$$, user_id, finished, total), $$, $$ ORDER BY user_id) FROM run_tracker.user_stats()) AS users, (SELECT string_agg(finished::text, $$, $$) FROM run_tracker.kind_stats()) AS kinds, (SELECT string_agg(finished::text, $$, $$) FROM run_tracker.workflow_stats()) AS workflows, (SELECT string_agg(task_count + failed_task_count || $$$$, $$, $$) FROM run_tracker.model_stats()) AS models, (SELECT sum(finished) FROM run_tracker.trend_stats()) AS trend, (SELECT string_agg(finished::text, $$, $$) FROM run_tracker.user_stats($$bob$$)) AS bob, (SELECT sum(finished) FROM run_tracker.kind_stats(user_id => $$bob$$, since => now() - interval $$1 day$$)) AS kinds_of_bob, (SELECT string_agg(DISTINCT user_id, $$, $$) FROM run_tracker.stat_totals) AS totals_of, (SELECT bool_or(all_users) FROM run_tracker.stat_totals) AS of_all, (SELECT string_agg(DISTINCT user_id, $$, $$) FROM run_tracker.stat_deltas) AS deltas_of;'
-- a superuser, and services: everybody's, and nobody's
:own
SET ROLE regress_statistics_service;
:own
-- a service is one whatever user it says it is
SET request.jwt.claims = '{"sub": "alice"}';
:own
-- readers and clients: their own, of tables and functions; none without an identity
SET ROLE regress_statistics_reader;
:own
SET ROLE regress_statistics_client;
SET request.jwt.claims = '{"sub": "bob"}';
:own
SET request.jwt.claims = '{"sub": "mallory"}';
:own
SET request.jwt.claims = '';
:own
SELECT count(*) FROM run_tracker.stat_rows('kind', 'all', '');
SELECT count(*) FROM run_tracker.stat_rows('kind', 'all', 'alice', by_user => true);
-- nobody else writes, folds, or empties
SET request.jwt.claims = '{"sub": "alice"}';
RESET ROLE;
CREATE FUNCTION pg_temp.sqlstate_as(role text, statement text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('SET LOCAL ROLE regress_statistics_%I', role);
    EXECUTE statement;
    RESET ROLE;
    RETURN 'ok';
EXCEPTION WHEN OTHERS THEN
    RETURN SQLSTATE;
END
$$;
SELECT s AS statement, pg_temp.sqlstate_as('reader', s) AS reader, pg_temp.sqlstate_as('client', s) AS client, pg_temp.sqlstate_as('service', s) AS service FROM unnest(ARRAY[
    'INSERT INTO run_tracker.stat_deltas SELECT * FROM run_tracker.stat_deltas', 'UPDATE run_tracker.stat_deltas SET created_count = 1', 'DELETE FROM run_tracker.stat_deltas', 'TRUNCATE run_tracker.stat_deltas',
    'INSERT INTO run_tracker.stat_totals SELECT * FROM run_tracker.stat_totals', 'UPDATE run_tracker.stat_totals SET created_count = 1', 'DELETE FROM run_tracker.stat_totals', 'TRUNCATE run_tracker.stat_totals',
    'LOCK TABLE run_tracker.stat_deltas IN SHARE MODE', 'SELECT run_tracker.install_statistics()', 'SELECT run_tracker.fold_statistics(1)']) s;
-- who may call it by somebody's mistake is still no service
GRANT EXECUTE ON FUNCTION run_tracker.fold_statistics(integer) TO regress_statistics_client;
SET ROLE regress_statistics_client;
CALL pg_temp.try('SELECT run_tracker.fold_statistics()');
RESET ROLE;
REVOKE EXECUTE ON FUNCTION run_tracker.fold_statistics(integer) FROM regress_statistics_client;
-- arguments and transactions in which it cannot be done
CALL pg_temp.try('SELECT run_tracker.fold_statistics(0)');
CALL pg_temp.try('SELECT run_tracker.fold_statistics(-1)');
CALL pg_temp.try('SELECT run_tracker.fold_statistics(NULL)');
SELECT count(*) > 0 AS deltas FROM run_tracker.stat_deltas;
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT run_tracker.fold_statistics();
ROLLBACK;
\echo :LAST_ERROR_SQLSTATE
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT run_tracker.fold_statistics();
ROLLBACK;
\echo :LAST_ERROR_SQLSTATE
BEGIN READ ONLY;
SELECT run_tracker.fold_statistics();
ROLLBACK;
\echo :LAST_ERROR_SQLSTATE

--
-- The owner of the tables, who is no superuser, and what he may add to them
--
SELECT run_tracker.set_owner('regress_statistics_owner');
SET ROLE regress_statistics_owner;
SELECT run_tracker.fold_statistics(1);
SET ROLE regress_statistics_service;
SELECT run_tracker.fold_statistics(1);
RESET ROLE;
SELECT run_tracker.fold_statistics(1);
SELECT finished, successful, failed FROM run_tracker.kind_stats();
-- columns and triggers of his: they run as him, or as whoever caused the write, never as a superuser
ALTER TABLE run_tracker.stat_deltas ADD COLUMN region text NOT NULL DEFAULT 'eu', ADD COLUMN twice bigint GENERATED ALWAYS AS (finished_count * 2) STORED;
ALTER TABLE run_tracker.stat_totals ADD COLUMN region text NOT NULL DEFAULT 'eu', ADD COLUMN twice bigint GENERATED ALWAYS AS (finished_count * 2) STORED;
CREATE TABLE regress_statistics_seen (what text, who text);
GRANT INSERT ON regress_statistics_seen TO PUBLIC;
CREATE FUNCTION regress_statistics_note() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN INSERT INTO public.regress_statistics_seen VALUES (TG_TABLE_NAME || ' ' || TG_OP, CURRENT_USER); RETURN NULL; END $$;
CREATE TRIGGER note AFTER INSERT OR UPDATE OR DELETE ON run_tracker.stat_deltas FOR EACH ROW EXECUTE FUNCTION regress_statistics_note();
CREATE TRIGGER note AFTER INSERT OR UPDATE OR DELETE ON run_tracker.stat_totals FOR EACH ROW EXECUTE FUNCTION regress_statistics_note();
SET ROLE regress_statistics_client;
SET request.jwt.claims = '{"sub": "alice"}';
SELECT run_tracker.complete_run(run_tracker.create_run(kind => 'k'));
SET ROLE regress_statistics_service;
SELECT run_tracker.fold_statistics() > 0 AS folded;
RESET ROLE;
RESET request.jwt.claims;
SELECT run_tracker.complete_run(run_tracker.create_run(kind => 'k', user_id => 'alice')), run_tracker.fold_statistics() > 0 AS folded;
SELECT who, what, count(*) FROM regress_statistics_seen GROUP BY 1, 2 ORDER BY 1, 2;
SELECT DISTINCT region, twice = 2 * finished_count AS twice FROM run_tracker.stat_totals;
DROP TRIGGER note ON run_tracker.stat_deltas;
DROP TRIGGER note ON run_tracker.stat_totals;
-- one that raises an error: nothing is folded, nothing lost
CREATE FUNCTION regress_statistics_break() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'broken'; END $$;
CREATE TRIGGER break BEFORE UPDATE ON run_tracker.stat_totals FOR EACH ROW EXECUTE FUNCTION regress_statistics_break();
SELECT run_tracker.complete_run(run_tracker.create_run(kind => 'k', user_id => 'alice'));
SELECT total, open, finished FROM run_tracker.kind_stats('k', 'alice');
CALL pg_temp.try('SELECT run_tracker.fold_statistics()');
SELECT total, open, finished FROM run_tracker.kind_stats('k', 'alice');
DROP TRIGGER break ON run_tracker.stat_totals;
SELECT run_tracker.fold_statistics() > 0 AS folded;
SELECT total, open, finished FROM run_tracker.kind_stats('k', 'alice');
-- the policies hold for him who forces them on himself, and his folds see all rows all the same
ALTER TABLE run_tracker.stat_deltas FORCE ROW LEVEL SECURITY;
ALTER TABLE run_tracker.stat_totals FORCE ROW LEVEL SECURITY;
SELECT run_tracker.complete_run(run_tracker.create_run(kind => 'k', user_id => 'bob'));
SET ROLE regress_statistics_owner;
SELECT run_tracker.fold_statistics() > 0 AS folded;
RESET ROLE;
SELECT total, open, finished FROM run_tracker.kind_stats('k', 'bob');
ALTER TABLE run_tracker.stat_deltas NO FORCE ROW LEVEL SECURITY, DROP COLUMN region, DROP COLUMN twice;
ALTER TABLE run_tracker.stat_totals NO FORCE ROW LEVEL SECURITY, DROP COLUMN region, DROP COLUMN twice;
-- a key that is missing, or is another one
BEGIN;
ALTER TABLE run_tracker.stat_totals DROP CONSTRAINT stat_totals_pkey;
SELECT run_tracker.complete_run(run_tracker.create_run(kind => 'k', user_id => 'bob'));
SAVEPOINT a;
SELECT run_tracker.fold_statistics();
\echo :LAST_ERROR_SQLSTATE
ROLLBACK TO a;
ALTER TABLE run_tracker.stat_totals ADD CONSTRAINT stat_totals_pkey PRIMARY KEY (grain, period, all_users, user_id, period_at, kind, workflow_id, mode, provider, model, phase, operation);
SELECT run_tracker.fold_statistics();
\echo :LAST_ERROR_SQLSTATE
ROLLBACK TO a;
SELECT total, open, finished FROM run_tracker.kind_stats('k', 'bob');
ROLLBACK;
-- tables that are gone
BEGIN;
DROP TABLE run_tracker.stat_totals;
SAVEPOINT a;
SELECT * FROM run_tracker.user_stats();
\echo :LAST_ERROR_SQLSTATE
ROLLBACK TO a;
SELECT run_tracker.complete_run(run_tracker.create_run(kind => 'k', user_id => 'bob')), run_tracker.fold_statistics();
\echo :LAST_ERROR_SQLSTATE
ROLLBACK;

SET client_min_messages = warning;
TRUNCATE run_tracker.runs CASCADE;
TRUNCATE run_tracker.stat_deltas, run_tracker.stat_totals;
DROP TABLE regress_statistics_seen;
DROP FUNCTION regress_statistics_note(), regress_statistics_break();
DO $$ BEGIN EXECUTE format('REASSIGN OWNED BY regress_statistics_owner TO %I', CURRENT_USER); END $$;
DROP OWNED BY regress_statistics_client, regress_statistics_reader, regress_statistics_service, regress_statistics_owner;
DROP ROLE regress_statistics_client, regress_statistics_reader, regress_statistics_service, regress_statistics_owner;
