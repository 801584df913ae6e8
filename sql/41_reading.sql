-- What people read: lists and exports of runs, one run with all that belongs to it, and two runs side by side.

CREATE FUNCTION run_tracker.run_conditions(filter jsonb) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    words CONSTANT text[] := '{status,phase,kind,workflow_id,user_id,subject_id,session_id,lifecycle}';
    open_phases CONSTANT text[] := '{queued,active,waiting}';
    phases CONSTANT text[] := open_phases || '{succeeded,failed,cancelled,timed_out}'::text[];
    conditions text[] := '{}';
    only_open boolean := false;
    after timestamptz;
    before timestamptz;
    item record;
    wanted text;
    given text[];
    condition text;
BEGIN
    IF jsonb_typeof(filter) IS DISTINCT FROM 'object' THEN
        RAISE EXCEPTION 'a filter must be a JSON object'
            USING ERRCODE = 'invalid_parameter_value',
                  HINT = 'It looks like {"status": ["failed", "timeout"], "kind": "chat", "created_after": "2030-01-01"}.';
    END IF;

    -- what the policy says, if it is all that lets the caller see runs: the planner then knows how many a user has
    IF row_security_active('run_tracker.runs') AND NOT EXISTS (
        SELECT FROM pg_policy p
        WHERE p.polrelid = 'run_tracker.runs'::regclass AND p.polpermissive AND p.polcmd IN ('*', 'r')
          AND (0 = ANY (p.polroles) OR EXISTS (SELECT FROM unnest(p.polroles) r WHERE pg_has_role(r, 'USAGE')))
          AND (p.polname <> 'own_rows' OR pg_get_expr(p.polqual, p.polrelid)
                   <> '(user_id = ( SELECT run_tracker.current_user_id() AS current_user_id))'))
    THEN
        conditions := conditions || format('r.user_id = %L', run_tracker.current_user_id());
    END IF;

    FOR item IN
        SELECT f.key, f.value, jsonb_typeof(f.value) AS type FROM jsonb_each(filter) f
        WHERE jsonb_typeof(f.value) <> 'null' ORDER BY f.key
    LOOP
        wanted := CASE WHEN item.key = ANY (words || 'name'::text) THEN 'a string, or an array of strings'
                       WHEN item.key = 'parent_run_id' THEN 'a UUID, or an array of UUIDs'
                       WHEN item.key IN ('created_after', 'created_before') THEN 'a string that is a timestamp'
                       WHEN item.key IN ('metrics', 'metadata', 'settings') THEN 'an object' END;
        IF wanted IS NULL THEN
            RAISE EXCEPTION 'unknown filter'
                USING ERRCODE = 'invalid_parameter_value', DETAIL = format('There is no filter "%s".', left(item.key, 100)),
                      HINT = format('Filters are %s, name, parent_run_id, created_after, created_before, metrics, metadata, settings.',
                                    array_to_string(words, ', '));
        END IF;

        condition := NULL;
        given := CASE WHEN item.type = 'string' THEN ARRAY[item.value #>> '{}']
                      WHEN item.type = 'array' AND item.key NOT LIKE 'created%'
                           AND NOT jsonb_path_exists(item.value, 'strict $[*] ? (@.type() != "string")')
                      THEN ARRAY(SELECT jsonb_array_elements_text(item.value)) END;
        IF item.key IN ('metrics', 'metadata', 'settings') THEN
            IF item.type = 'object' THEN
                condition := format('r.%I @> %L::jsonb', item.key, item.value);
            END IF;
        ELSIF given IS NULL THEN
            NULL;
        ELSIF item.key = 'name' THEN
            SELECT format('(%s)', COALESCE(string_agg(format('r.name ILIKE %L ESCAPE ''!''', '%'
                        || replace(replace(replace(g, '!', '!!'), '%', '!%'), '_', '!_') || '%'), ' OR '), 'false'))
            INTO condition FROM unnest(given) g;
        ELSIF item.key = ANY (words) THEN
            condition := CASE WHEN cardinality(given) = 1 THEN format('r.%I = %L', item.key, given[1])
                              ELSE format('r.%I = ANY (%L::text[])', item.key, given) END;
        ELSE
            BEGIN
                CASE item.key
                    WHEN 'parent_run_id' THEN
                        condition := format('r.parent_run_id = ANY (%L::uuid[])', given::uuid[]);
                    WHEN 'created_after' THEN
                        after := given[1]::timestamptz;
                        -- as JSON has it, which no setting changes
                        condition := format('r.created_at >= %L::timestamptz', to_jsonb(after) #>> '{}');
                    WHEN 'created_before' THEN
                        before := given[1]::timestamptz;
                        condition := format('r.created_at < %L::timestamptz', to_jsonb(before) #>> '{}');
                END CASE;
            EXCEPTION WHEN data_exception THEN
                NULL;
            END;
        END IF;
        IF condition IS NULL THEN
            RAISE EXCEPTION 'invalid value of filter "%"', item.key
                USING ERRCODE = 'invalid_parameter_value', DETAIL = format('It is %s.', left(item.value::text, 100)),
                      HINT = format('It must be %s.', wanted);
        END IF;
        conditions := conditions || condition;

        IF item.key = 'phase' AND NOT given <@ phases THEN
            RAISE EXCEPTION 'unknown phase'
                USING ERRCODE = 'invalid_parameter_value',
                      DETAIL = (SELECT format('There is no phase "%s".', left(g, 100))
                                FROM unnest(given) g WHERE g <> ALL (phases) LIMIT 1),
                      HINT = format('Phases are %s.', array_to_string(phases, ', '));
        END IF;
        only_open := only_open
            OR item.key = 'phase' AND given <@ open_phases
            OR item.key = 'status' AND NOT EXISTS (
                SELECT FROM run_tracker.lifecycles l, unnest(given) g
                WHERE l.definition #>> ARRAY['states', g, 'phase'] <> ALL (open_phases));
    END LOOP;

    IF after >= before THEN
        RAISE EXCEPTION 'created_after must be before created_before'
            USING ERRCODE = 'invalid_parameter_value', DETAIL = format('%s is not before %s.', after, before),
                  HINT = 'Runs are listed that were created at created_after or later, and before created_before.';
    END IF;
    -- those that are open are few: there is no need to look for them in all of history
    IF only_open THEN
        conditions := conditions || 'r.run_id IN (SELECT o.run_id FROM run_tracker.open_runs o)'::text;
    END IF;
    RETURN COALESCE(NULLIF(array_to_string(conditions, ' AND '), ''), 'true');
END
$$;
COMMENT ON FUNCTION run_tracker.run_conditions(jsonb) IS
'What list_runs() and export_runs() make of a filter: a condition on run_tracker.runs AS r. 22023 if it is no filter.';

-- in PL/pgSQL, to make the query of what is given only; its results cannot be named like the arguments of list_runs()
CREATE FUNCTION run_tracker.find_runs(given jsonb, more jsonb, sort_column text, downwards boolean, page_number integer,
    rows_per_page integer, count_all boolean, after_row text)
RETURNS TABLE (run_id uuid, user_id text, lifecycle text, status text, phase text, kind text, name text,
    workflow_id text, session_id text, subject_id text, parent_run_id uuid, priority integer, progress smallint,
    current_step text, error text, attempt integer, created_at timestamptz, started_at timestamptz,
    finished_at timestamptz, updated_at timestamptz, duration_ms bigint, elapsed_ms bigint, task_count bigint,
    failed_task_count bigint, open_task_count bigint, input_tokens bigint, output_tokens bigint, total_tokens bigint,
    total_cost numeric, message_count bigint, error_count bigint, retrieval_count bigint, artifact_count bigint,
    last_message_at timestamptz, last_activity_at timestamptz, metrics jsonb, metadata jsonb, settings jsonb,
    row_cursor text, total_count bigint)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
-- a page is no work for a compiler; and what is known of the open set may be old: nested loops over it forgive that
SET jit = off SET enable_mergejoin = off
AS $$
DECLARE
    -- the columns to sort by, their types, and whether they can be null
    sortable CONSTANT jsonb := '{"created_at": ["timestamptz", false], "updated_at": ["timestamptz", false],
        "started_at": ["timestamptz", true], "finished_at": ["timestamptz", true], "duration_ms": ["bigint", true],
        "priority": ["integer", false], "name": ["text", true], "progress": ["smallint", true],
        "total_tokens": ["numeric", false], "total_cost": ["numeric", false], "task_count": ["numeric", false]}';
    -- what takes more bytes is for run_details()
    max_stored CONSTANT integer := 10000;
    sort jsonb := sortable -> sort_column;
    nullable boolean := (sort ->> 1)::boolean;
    onwards text := CASE WHEN downwards THEN '<' ELSE '>' END;
    direction text := CASE WHEN downwards THEN ' DESC' ELSE ' ASC' END;
    ordering text := format('key%s%s, run_id%1$s', direction, CASE WHEN nullable THEN ' NULLS LAST' END);
    sort_key text;
    conditions text;
    place jsonb;
    last_key text;
    last_id uuid;
    beyond text := 'true';
    total bigint;
BEGIN
    PERFORM run_tracker.require_tables();
    IF sort IS NULL THEN
        RAISE EXCEPTION 'unknown sort column'
            USING ERRCODE = 'invalid_parameter_value',
                  DETAIL = format('Runs cannot be sorted by "%s".', left(sort_column, 100)),
                  HINT = format('Sort columns are %s.', (SELECT string_agg(k, ', ' ORDER BY k) FROM jsonb_object_keys(sortable) k));
    ELSIF page_number < 1 THEN
        RAISE EXCEPTION 'argument "page" must be at least 1'
            USING ERRCODE = 'invalid_parameter_value', DETAIL = format('It is %s.', page_number), HINT = 'Pages are counted from 1.';
    ELSIF rows_per_page IS NULL OR rows_per_page NOT BETWEEN 1 AND 1000 THEN
        RAISE EXCEPTION 'argument "page_size" must be 1 to 1000'
            USING ERRCODE = 'invalid_parameter_value', DETAIL = format('It is %s.', rows_per_page),
                  HINT = 'For all runs at once there is run_tracker.export_runs().';
    ELSIF page_number IS NOT NULL AND after_row IS NOT NULL THEN
        RAISE EXCEPTION 'arguments "page" and "before" cannot be given together'
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Give the number of a page, or where the page before ended.';
    END IF;
    conditions := concat_ws(' AND ', run_tracker.run_conditions(given),
                            CASE WHEN more IS NOT NULL THEN run_tracker.run_conditions(more) END);
    sort_key := CASE WHEN sort_column IN ('total_tokens', 'total_cost', 'task_count')
                     THEN format('(SELECT COALESCE(sum(t.%I), 0) FROM run_tracker.run_totals t WHERE t.run_id = r.run_id)',
                                 sort_column)
                     ELSE format('r.%I', sort_column) END;

    IF after_row IS NOT NULL THEN
        BEGIN
            place := convert_from(decode(after_row, 'hex'), getdatabaseencoding())::jsonb;
            last_key := place ->> 2;
            last_id := (place ->> 3)::uuid;
            EXECUTE format('SELECT %L::%s', last_key, sort ->> 0);
        EXCEPTION WHEN data_exception OR program_limit_exceeded THEN
            last_id := NULL;
        END;
        IF last_id IS NULL OR last_key IS NULL AND NOT nullable
           OR place -> 0 IS DISTINCT FROM to_jsonb(sort_column) OR place -> 1 IS DISTINCT FROM to_jsonb(downwards) THEN
            RAISE EXCEPTION 'invalid value of argument "before"'
                USING ERRCODE = 'invalid_parameter_value',
                      HINT = 'It is the row_cursor of the last row of a page, which was listed in the same order.';
        END IF;
        beyond := CASE WHEN last_key IS NULL THEN format('key IS NULL AND run_id %s %L', onwards, last_id)
                       ELSE format('((key, run_id) %s (%L::%s, %L::uuid)%s)', onwards, last_key, sort ->> 0, last_id,
                                   CASE WHEN nullable THEN ' OR key IS NULL' END) END;
    END IF;

    IF count_all THEN
        EXECUTE format('SELECT count(*) FROM run_tracker.runs r WHERE %s', conditions) INTO total;
    END IF;
    -- the page comes from runs alone; totals are looked up for its rows only
    RETURN QUERY EXECUTE format($query$
        SELECT s.run_id, s.user_id, s.lifecycle, s.status, s.phase, s.kind, s.name, s.workflow_id, s.session_id,
               s.subject_id, s.parent_run_id, s.priority, s.progress, s.current_step, left(s.error, 2000), s.attempt, s.created_at,
               s.started_at, s.finished_at, s.updated_at, s.duration_ms, s.elapsed_ms, s.task_count,
               s.failed_task_count, s.open_task_count, s.input_tokens, s.output_tokens, s.total_tokens, s.total_cost,
               s.message_count, s.error_count, s.retrieval_count, s.artifact_count, s.last_message_at,
               s.last_activity_at, CASE WHEN pg_column_size(p.metrics) <= $4 THEN p.metrics END,
               CASE WHEN pg_column_size(p.metadata) <= $4 THEN p.metadata END,
               CASE WHEN pg_column_size(p.settings) <= $4 THEN p.settings END,
               encode(convert_to(jsonb_build_array($1, $2, p.key, p.run_id)::text, getdatabaseencoding()), 'hex'), $3
        FROM (SELECT run_id, key, metrics, metadata, settings
              FROM (SELECT r.run_id, %s AS key, r.metrics, r.metadata, r.settings
                    FROM run_tracker.runs r WHERE %s) q
              WHERE %s
              ORDER BY %s LIMIT %s OFFSET %s) p
             CROSS JOIN LATERAL (SELECT * FROM run_tracker.run_summary v WHERE v.run_id = p.run_id OFFSET 0) s
        ORDER BY p.%s
        $query$, sort_key, conditions, beyond, ordering, rows_per_page,
            COALESCE(page_number - 1, 0)::bigint * rows_per_page, replace(ordering, ', ', ', p.'))
        USING sort_column, downwards, total, max_stored;
END
$$;
COMMENT ON FUNCTION run_tracker.find_runs(jsonb, jsonb, text, boolean, integer, integer, boolean, text) IS
'What list_runs() runs: two filters that must both hold, and the other arguments under other names.';

CREATE FUNCTION run_tracker.list_runs(status text DEFAULT NULL, phase text DEFAULT NULL, kind text DEFAULT NULL,
    workflow_id text DEFAULT NULL, user_id text DEFAULT NULL, subject_id text DEFAULT NULL, session_id text DEFAULT NULL,
    parent_run_id uuid DEFAULT NULL, lifecycle text DEFAULT NULL, created_after timestamptz DEFAULT NULL,
    created_before timestamptz DEFAULT NULL, name text DEFAULT NULL, metrics jsonb DEFAULT NULL,
    metadata jsonb DEFAULT NULL, settings jsonb DEFAULT NULL, order_by text DEFAULT 'created_at',
    descending boolean DEFAULT true, page integer DEFAULT NULL, page_size integer DEFAULT 50,
    with_total boolean DEFAULT false, before text DEFAULT NULL, filter jsonb DEFAULT NULL)
RETURNS TABLE (run_id uuid, user_id text, lifecycle text, status text, phase text, kind text, name text,
    workflow_id text, session_id text, subject_id text, parent_run_id uuid, priority integer, progress smallint,
    current_step text, error text, attempt integer, created_at timestamptz, started_at timestamptz,
    finished_at timestamptz, updated_at timestamptz, duration_ms bigint, elapsed_ms bigint, task_count bigint,
    failed_task_count bigint, open_task_count bigint, input_tokens bigint, output_tokens bigint, total_tokens bigint,
    total_cost numeric, message_count bigint, error_count bigint, retrieval_count bigint, artifact_count bigint,
    last_message_at timestamptz, last_activity_at timestamptz, metrics jsonb, metadata jsonb, settings jsonb,
    row_cursor text, total_count bigint)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT * FROM run_tracker.find_runs(
        jsonb_build_object('status', $1, 'phase', $2, 'kind', $3, 'workflow_id', $4, 'user_id', $5, 'subject_id', $6,
            'session_id', $7, 'parent_run_id', $8, 'lifecycle', $9, 'created_after', $10, 'created_before', $11,
            'name', $12, 'metrics', $13, 'metadata', $14, 'settings', $15),
        $22, COALESCE($16, 'created_at'), COALESCE($17, true), $18, COALESCE($19, 50), COALESCE($20, false), $21)
$$;
COMMENT ON FUNCTION run_tracker.list_runs(text, text, text, text, text, text, text, uuid, text, timestamptz, timestamptz,
    text, jsonb, jsonb, jsonb, text, boolean, integer, integer, boolean, text, jsonb) IS
'A page of the runs that the caller may see: run_summary, with metrics, metadata and settings. created_after is inclusive, created_before exclusive; name is a part of the name in any case; metrics, metadata and settings are contained (@>). filter has the same conditions as one JSON object, whose strings may also be arrays of what is accepted; null is no condition. Sorted by created_at, updated_at, started_at, finished_at, duration_ms, priority, name, progress, total_tokens, total_cost or task_count, nulls last; only created_at needs not look at all runs that match. Pages are numbered from 1; or give the row_cursor of the last row of a page as before, to go on there at the same cost however far that is. total_count is how many match, null unless with_total. An error is cut off after 2000 characters, and metrics, metadata and settings that are stored in more than 10000 bytes are null: run_details() has them. 22023 for what is none of this, and page_size above 1000.';

CREATE FUNCTION run_tracker.export_runs(filter jsonb DEFAULT '{}') RETURNS SETOF jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET jit = off SET enable_mergejoin = off
AS $$
BEGIN
    PERFORM run_tracker.require_tables();
    RETURN QUERY EXECUTE format($query$
        SELECT to_jsonb(e)
        FROM (SELECT s.*, r.inputs, r.settings, r.variables, r.plan, r.result, r.reflections, r.metrics, r.metadata,
                     r.error_detail
              FROM run_tracker.runs r
                   CROSS JOIN LATERAL (SELECT * FROM run_tracker.run_summary v WHERE v.run_id = r.run_id OFFSET 0) s
              WHERE %s
              ORDER BY r.created_at, r.run_id) e
        $query$, run_tracker.run_conditions(COALESCE(filter, '{}')));
END
$$;
COMMENT ON FUNCTION run_tracker.export_runs(jsonb) IS
'All runs that the caller may see and a filter of list_runs() lets through, oldest first, one JSON object each: the columns of run_summary, and inputs, settings, variables, plan, result, reflections, metrics, metadata and error_detail. For COPY. 22023 if it is no filter.';

CREATE FUNCTION run_tracker.run_details(run_id uuid) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    run jsonb;
    sources jsonb;
BEGIN
    PERFORM run_tracker.require_tables();
    IF $1 IS NULL THEN
        RAISE EXCEPTION 'argument "run_id" must not be null' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    SELECT to_jsonb(r) || to_jsonb(s) INTO run
    FROM run_tracker.runs r JOIN run_tracker.run_summary s ON s.run_id = r.run_id WHERE r.run_id = $1;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'run not found'
            USING ERRCODE = 'no_data_found', DETAIL = format('There is no run %s that you may see.', $1);
    END IF;
    SELECT COALESCE(jsonb_object_agg(c.source, c.n), '{}') INTO sources
    FROM (SELECT COALESCE(a.source, '') AS source, count(*) AS n FROM run_tracker.artifacts a WHERE a.run_id = $1 GROUP BY 1) c;

    RETURN jsonb_build_object(
        'run', run,
        'tasks', (SELECT COALESCE(jsonb_agg(
                             to_jsonb(t) || CASE WHEN t.finished_at IS NOT NULL OR t.response IS NULL THEN '{}'
                                                 ELSE jsonb_build_object('response', run_tracker.task_response(t.task_id)) END
                             ORDER BY t.created_at, t.task_id), '[]')
                  FROM run_tracker.tasks t WHERE t.run_id = $1),
        'messages', run_tracker.run_messages($1),
        'artifacts', (SELECT COALESCE(jsonb_agg(to_jsonb(a) ORDER BY a.ordinal, a.created_at, a.artifact_id), '[]')
                      FROM run_tracker.artifacts a WHERE a.run_id = $1),
        'retrievals', (SELECT COALESCE(jsonb_agg(to_jsonb(e) ORDER BY e.created_at, e.retrieval_id), '[]')
                       FROM run_tracker.retrievals e WHERE e.run_id = $1),
        'error_logs', (SELECT COALESCE(jsonb_agg(to_jsonb(l) ORDER BY l.seq), '[]')
                       FROM run_tracker.logs l WHERE l.run_id = $1 AND l.level IN ('ERROR', 'CRITICAL')),
        'transitions', (SELECT COALESCE(jsonb_agg(to_jsonb(h) ORDER BY h.seq), '[]')
                        FROM run_tracker.transitions h WHERE h.run_id = $1),
        'statistics', (SELECT jsonb_object_agg(k, run -> k)
                       FROM unnest('{task_count,failed_task_count,open_task_count,message_count,error_count,
                           retrieval_count,artifact_count,input_tokens,output_tokens,total_tokens,total_cost,
                           duration_ms}'::text[]) k)
                      || jsonb_build_object('artifacts_by_source', sources));
END
$$;
COMMENT ON FUNCTION run_tracker.run_details(uuid) IS
'A run with all that belongs to it: {run, tasks, messages, artifacts, retrievals, error_logs, transitions, statistics}. run has the columns of runs and run_summary, tasks have what has arrived of their responses, messages are those of run_messages(), error_logs the lines of level ERROR and CRITICAL; statistics has the totals, and artifacts_by_source, "" for none. P0002 if there is no such run.';

-- in PL/pgSQL, to look for the runs first; its results cannot be named like its arguments
CREATE FUNCTION run_tracker.compare_run_values(first_run uuid, second_run uuid)
RETURNS TABLE (item text, a jsonb, b jsonb, difference numeric, ratio numeric)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    missing uuid;
BEGIN
    PERFORM run_tracker.require_tables();
    IF first_run IS NULL OR second_run IS NULL THEN
        RAISE EXCEPTION 'argument "%" must not be null', CASE WHEN first_run IS NULL THEN 'a' ELSE 'b' END
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    SELECT g.id INTO missing FROM unnest(ARRAY[first_run, second_run]) WITH ORDINALITY g (id, n)
    WHERE NOT EXISTS (SELECT FROM run_tracker.runs r WHERE r.run_id = g.id) ORDER BY g.n LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'run not found'
            USING ERRCODE = 'no_data_found', DETAIL = format('There is no run %s that you may see.', missing);
    END IF;

    RETURN QUERY
    WITH facts AS MATERIALIZED (
        SELECT s.run_id, c.n AS part, c.name AS item, NULLIF(to_jsonb(s) -> c.name, 'null') AS value
        FROM unnest(ARRAY[first_run, second_run]) g (id)
             CROSS JOIN LATERAL (SELECT * FROM run_tracker.run_summary v WHERE v.run_id = g.id OFFSET 0) s
             CROSS JOIN unnest('{kind,lifecycle,status,phase,name,workflow_id,error,attempt,duration_ms,task_count,
                 failed_task_count,open_task_count,input_tokens,output_tokens,total_tokens,total_cost,message_count,
                 error_count,retrieval_count,artifact_count}'::text[]) WITH ORDINALITY c (name, n)
        UNION ALL
        SELECT t.run_id, 100, 'models',
               jsonb_agg(DISTINCT COALESCE(t.model, t.response_model) COLLATE "C") FILTER (WHERE COALESCE(t.model, t.response_model) <> '')
        FROM run_tracker.tasks t WHERE t.run_id IN (first_run, second_run) GROUP BY t.run_id
        UNION ALL
        SELECT h.run_id, 101, 'state_ms.' || h.from_status, to_jsonb(sum(h.state_ms))
        FROM run_tracker.transitions h
        WHERE h.run_id IN (first_run, second_run) AND h.task_id IS NULL GROUP BY h.run_id, h.from_status
        UNION ALL
        SELECT r.run_id, 200 + d.n, concat_ws('.', d.name, k.key), k.value
        FROM run_tracker.runs r
             CROSS JOIN LATERAL unnest('{settings,variables,metrics,inputs}'::text[],
                 ARRAY[r.settings, r.variables, r.metrics, r.inputs]) WITH ORDINALITY d (name, document, n)
             CROSS JOIN LATERAL (
                 SELECT e.key, e.value
                 FROM jsonb_each(CASE jsonb_typeof(d.document) WHEN 'object' THEN d.document END) e
                 UNION ALL
                 SELECT NULL, d.document WHERE jsonb_typeof(d.document) <> 'object') k
        WHERE r.run_id IN (first_run, second_run)
    )
    SELECT item, x.value, y.value, v.y - v.x, round(v.y / NULLIF(v.x, 0), 4)
    FROM (SELECT * FROM facts WHERE run_id = first_run) x
         FULL JOIN (SELECT * FROM facts WHERE run_id = second_run) y USING (part, item)
         -- numbers of JSON can be longer than numeric can compute with
         CROSS JOIN LATERAL (SELECT CASE WHEN jsonb_typeof(x.value) = 'number' AND abs(x.value::numeric) < 1e100
                                         THEN x.value::numeric END,
                                    CASE WHEN jsonb_typeof(y.value) = 'number' AND abs(y.value::numeric) < 1e100
                                         THEN y.value::numeric END) v (x, y)
    ORDER BY part, item COLLATE "C";
END
$$;
COMMENT ON FUNCTION run_tracker.compare_run_values(uuid, uuid) IS
'What compare_runs() runs: the same with arguments of other names.';

CREATE FUNCTION run_tracker.compare_runs(a uuid, b uuid)
RETURNS TABLE (item text, a jsonb, b jsonb, difference numeric, ratio numeric)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$ SELECT * FROM run_tracker.compare_run_values($1, $2) $$;
COMMENT ON FUNCTION run_tracker.compare_runs(uuid, uuid) IS
'Two runs side by side, an item a row: kind, status, duration_ms, totals, the models used, state_ms.STATUS (time spent in each status that was left), and the keys of settings, variables, metrics and inputs, such as settings.mode; null is none. difference is b - a and ratio b / a (4 decimals) where both are numbers. P0002 if one of the runs is not there.';
