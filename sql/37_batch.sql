-- Many at once: one statement each, so that the triggers do their bookkeeping once.

CREATE FUNCTION run_tracker.task_target(lifecycle text, status text) RETURNS text
LANGUAGE c STABLE STRICT SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'run_tracker_task_target';
COMMENT ON FUNCTION run_tracker.task_target(text, text) IS
'What complete_tasks() asks: the status that complete_task() takes a task of that lifecycle and status to; the same if it has succeeded, null if there is no way. RT002 for an unknown lifecycle or status.';

CREATE FUNCTION run_tracker.check_batch(items jsonb, argument text, function text, left_out text DEFAULT '')
RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    types jsonb;
    keys text;
    parsed text;
    bad record;
    below integer := 0;
    above integer;
    middle integer;
BEGIN
    -- what a function for one takes is what an element may have
    SELECT jsonb_object_agg(a.name, t.typname), string_agg(a.name, ', ' ORDER BY a.n),
           string_agg(format('%I %s', a.name, a.type::regtype), ', ') FILTER (WHERE t.typname NOT IN ('text', 'jsonb'))
    INTO types, keys, parsed
    FROM pg_proc p, ROWS FROM (unnest(p.proargnames), unnest(p.proargtypes::oid[])) WITH ORDINALITY a (name, type, n)
         JOIN pg_type t ON t.oid = a.type
    WHERE p.pronamespace = 'run_tracker'::regnamespace AND p.proname = function AND a.name <> left_out;

    IF jsonb_typeof(items) IS DISTINCT FROM 'array' THEN
        RAISE EXCEPTION 'argument "%" must be a JSON array', argument
            USING ERRCODE = 'invalid_parameter_value', HINT = format('It has an object for each, whose keys are %s.', keys);
    END IF;

    SELECT e.n - 1 AS index, k.key, types ->> k.key AS type,
           left(COALESCE(k.value, e.value)::text, 100) AS found INTO bad
    FROM jsonb_array_elements(items) WITH ORDINALITY e (value, n)
         LEFT JOIN LATERAL jsonb_each(CASE jsonb_typeof(e.value) WHEN 'object' THEN e.value END) k ON true
    WHERE jsonb_typeof(e.value) <> 'object'
       OR k.key IS NOT NULL AND CASE
              WHEN types ->> k.key IS NULL THEN true
              WHEN types ->> k.key = 'jsonb' OR jsonb_typeof(k.value) = 'null' THEN false
              WHEN types ->> k.key IN ('int4', 'int8', 'numeric') THEN jsonb_typeof(k.value) <> 'number'
              ELSE jsonb_typeof(k.value) <> 'string' END
    ORDER BY e.n, k.key LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'invalid element of argument "%"', argument
            USING ERRCODE = 'invalid_parameter_value',
                  DETAIL = CASE WHEN bad.key IS NULL
                                THEN format('%s[%s] is %s, it must be an object.', argument, bad.index, bad.found)
                                WHEN bad.type IS NULL
                                THEN format('%s[%s] has the unknown key "%s".', argument, bad.index, left(bad.key, 100))
                                ELSE format('%s[%s]: "%s" is %s, it must be a JSON %s.', argument, bad.index, bad.key, bad.found,
                                            CASE WHEN bad.type IN ('int4', 'int8', 'numeric') THEN 'number'
                                                 ELSE 'string' END) END,
                  HINT = format('Keys are %s.', keys);
    END IF;

    above := jsonb_array_length(items);
    BEGIN
        EXECUTE format('SELECT count(x) FROM jsonb_to_recordset($1) AS x (%s)', parsed) USING items;
    EXCEPTION WHEN data_exception THEN
        -- it is in one of two halves
        WHILE above - below > 1 LOOP
            middle := (below + above) / 2;
            BEGIN
                EXECUTE format('SELECT count(x) FROM jsonb_to_recordset($1) AS x (%s)', parsed)
                    USING jsonb_path_query_array(items, '$[$a to $b]', jsonb_build_object('a', below, 'b', middle - 1));
                below := middle;
            EXCEPTION WHEN data_exception THEN
                above := middle;
            END;
        END LOOP;
        BEGIN
            EXECUTE format('SELECT count(x) FROM jsonb_to_record($1) AS x (%s)', parsed) USING items -> below;
        EXCEPTION WHEN data_exception THEN
            RAISE EXCEPTION 'invalid element of argument "%"', argument
                USING ERRCODE = 'invalid_parameter_value',
                      DETAIL = format('%s[%s]: %s.', argument, below, left(SQLERRM, 200)),
                      HINT = format('Keys are %s.', keys);
        END;
    END;
END
$$;
COMMENT ON FUNCTION run_tracker.check_batch(jsonb, text, text, text) IS
'What create_runs(), create_tasks() and complete_tasks() ask first: 22023 unless an argument is a JSON array of objects whose keys and values are arguments of that function, without left_out. Elements are counted from 0.';

CREATE FUNCTION run_tracker.create_runs(runs jsonb) RETURNS SETOF uuid
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    ids uuid[];
    inserted bigint;
    taken uuid;
BEGIN
    PERFORM run_tracker.require_tables();
    PERFORM run_tracker.check_batch($1, 'runs', 'create_run');
    ids := ARRAY(SELECT COALESCE((e.value ->> 'run_id')::uuid, run_tracker.uuidv7())
                 FROM jsonb_array_elements($1) WITH ORDINALITY e (value, n) ORDER BY e.n);

    INSERT INTO run_tracker.runs (run_id, kind, name, lifecycle, inputs, settings, variables, plan, metadata, user_id,
        workflow_id, session_id, subject_id, parent_run_id, priority, scheduled_at, max_attempts, timeout, max_duration,
        retry_base, retry_cap)
    SELECT g.unnest, g.kind, g.name, g.lifecycle, g.inputs, g.settings, g.variables, g.plan, g.metadata, g.user_id,
           g.workflow_id, g.session_id, g.subject_id, g.parent_run_id, g.priority, g.scheduled_at, g.max_attempts,
           g.timeout, g.max_duration, g.retry_base, g.retry_cap
    FROM ROWS FROM (
             jsonb_to_recordset($1) AS (kind text, name text, lifecycle text, inputs jsonb, settings jsonb,
                 variables jsonb, plan jsonb, metadata jsonb, user_id text, workflow_id text, session_id text,
                 subject_id text, parent_run_id uuid, priority integer, scheduled_at timestamptz, max_attempts integer,
                 timeout interval, max_duration interval, retry_base interval, retry_cap interval),
             unnest(ids)) WITH ORDINALITY AS g
    ORDER BY g.ordinality
    ON CONFLICT (run_id) DO NOTHING;
    GET DIAGNOSTICS inserted = ROW_COUNT;

    -- repeated requests, or somebody else's runs
    IF inserted < cardinality(ids) THEN
        SELECT i.id INTO taken
        FROM unnest(ids) WITH ORDINALITY i (id, n)
        WHERE NOT EXISTS (SELECT FROM run_tracker.runs r
                          WHERE r.run_id = i.id
                            AND (r.user_id = (SELECT run_tracker.current_user_id()) OR (SELECT run_tracker.is_service())))
        ORDER BY i.n LIMIT 1;
        IF FOUND THEN
            RAISE EXCEPTION 'run exists already'
                USING ERRCODE = 'unique_violation', DETAIL = format('Run %s is not yours.', taken),
                      HINT = 'Create the run with another id.';
        END IF;
    END IF;
    RETURN QUERY SELECT unnest(ids);
END
$$;
COMMENT ON FUNCTION run_tracker.create_runs(jsonb) IS
'Creates many runs with one statement, and returns their ids in the order of the array: of objects whose keys are the arguments of create_run(), each created as that function would. An id that occurs again, in the array or in the ledger, is one run, which stays as it is. 23505 if one is somebody else''s, 22023 for anything but such an array; then nothing is created.';

CREATE FUNCTION run_tracker.create_tasks(run_id uuid, tasks jsonb) RETURNS SETOF uuid
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    ids uuid[];
BEGIN
    PERFORM run_tracker.require_tables();
    IF $1 IS NULL THEN
        RAISE EXCEPTION 'argument "run_id" must not be null' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    PERFORM run_tracker.check_batch($2, 'tasks', 'create_task', 'run_id');
    IF NOT EXISTS (SELECT FROM run_tracker.runs r WHERE r.run_id = $1) THEN
        RAISE EXCEPTION 'run not found'
            USING ERRCODE = 'no_data_found', DETAIL = format('There is no run %s that you may see.', $1);
    END IF;
    ids := ARRAY(SELECT COALESCE((e.value ->> 'task_id')::uuid, run_tracker.uuidv7())
                 FROM jsonb_array_elements($2) WITH ORDINALITY e (value, n) ORDER BY e.n);

    INSERT INTO run_tracker.tasks (run_id, task_id, name, service, operation, provider, model, request, parent_task_id,
        lifecycle, metadata, reservation_id)
    SELECT $1, g.unnest, g.name, g.service, g.operation, g.provider, g.model, g.request, g.parent_task_id, g.lifecycle,
           g.metadata, g.reservation_id
    FROM ROWS FROM (
             jsonb_to_recordset($2) AS (name text, service text, operation text, provider text, model text,
                 request jsonb, parent_task_id uuid, lifecycle text, metadata jsonb, reservation_id uuid),
             unnest(ids)) WITH ORDINALITY AS g
    ORDER BY g.ordinality;
    RETURN QUERY SELECT unnest(ids);
END
$$;
COMMENT ON FUNCTION run_tracker.create_tasks(uuid, jsonb) IS
'Creates many tasks of a run with one statement, and returns their ids in the order of the array: of objects whose keys are the arguments of create_task() without run_id. P0002 if there is no such run, 23505 if a task id is taken, 55000 if the run is finished, 22023 for anything but such an array; then nothing is created.';

CREATE FUNCTION run_tracker.complete_tasks(tasks jsonb) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    ids uuid[];
    bad record;
    message text;
    reason text;
    advice text;
    completed bigint;
BEGIN
    PERFORM run_tracker.require_tables();
    PERFORM run_tracker.check_batch($1, 'tasks', 'complete_task');
    ids := ARRAY(SELECT (e.value ->> 'task_id')::uuid
                 FROM jsonb_array_elements($1) WITH ORDINALITY e (value, n) ORDER BY e.n);
    SELECT i.id, min(i.n) - 1 AS first, max(i.n) - 1 AS last INTO bad
    FROM unnest(ids) WITH ORDINALITY i (id, n)
    GROUP BY i.id HAVING count(*) > 1 OR i.id IS NULL
    ORDER BY 2 LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'invalid element of argument "tasks"'
            USING ERRCODE = 'invalid_parameter_value',
                  DETAIL = CASE WHEN bad.id IS NULL THEN format('tasks[%s] has no task_id.', bad.first)
                                ELSE format('Task %s is both tasks[%s] and tasks[%s].', bad.id, bad.first, bad.last) END,
                  HINT = 'Name each task once.';
    END IF;

    -- always in the same order, so that two of these cannot deadlock
    PERFORM 1 FROM run_tracker.tasks t WHERE t.task_id = ANY (ids) ORDER BY t.task_id FOR NO KEY UPDATE;
    SELECT g.task_id AS id, t.status, t.attempt, g.attempt AS given INTO bad
    FROM ROWS FROM (jsonb_to_recordset($1) AS (task_id uuid, attempt integer)) WITH ORDINALITY AS g
         LEFT JOIN run_tracker.tasks t ON t.task_id = g.task_id
    WHERE t.task_id IS NULL OR g.attempt <> t.attempt OR run_tracker.task_target(t.lifecycle, t.status) IS NULL
    ORDER BY g.ordinality LIMIT 1;
    IF NOT FOUND THEN
        NULL;
    ELSIF bad.status IS NULL THEN
        RAISE EXCEPTION 'task not found'
            USING ERRCODE = 'no_data_found', DETAIL = format('There is no task %s that you may change.', bad.id);
    ELSIF bad.given <> bad.attempt THEN
        RAISE EXCEPTION 'stale attempt'
            USING ERRCODE = 'RT003',
                  DETAIL = format('Task %s is at attempt %s, the caller works on attempt %s.', bad.id, bad.attempt, bad.given),
                  HINT = 'Somebody else has taken over; stop working on it.';
    ELSE
        BEGIN
            PERFORM run_tracker.complete_task(bad.id);
        EXCEPTION WHEN SQLSTATE 'RT001' THEN
            GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, reason = PG_EXCEPTION_DETAIL, advice = PG_EXCEPTION_HINT;
            RAISE EXCEPTION '%', message
                USING ERRCODE = 'RT001', DETAIL = format('Task %s: %s', bad.id, reason),
                      HINT = COALESCE(NULLIF(advice, ''), 'Only what its lifecycle lists may follow.');
        END;
    END IF;

    UPDATE run_tracker.tasks t
    SET status = run_tracker.task_target(t.lifecycle, t.status),
        response = COALESCE(g.response, t.response),
        result = COALESCE(g.result, t.result),
        input_tokens = COALESCE(g.input_tokens, t.input_tokens),
        output_tokens = COALESCE(g.output_tokens, t.output_tokens),
        total_tokens = COALESCE(g.total_tokens, t.total_tokens),
        cache_read_input_tokens = COALESCE(g.cache_read_input_tokens, t.cache_read_input_tokens),
        cache_creation_input_tokens = COALESCE(g.cache_creation_input_tokens, t.cache_creation_input_tokens),
        reasoning_output_tokens = COALESCE(g.reasoning_output_tokens, t.reasoning_output_tokens),
        cost = COALESCE(g.cost, t.cost),
        cost_source = COALESCE(g.cost_source, t.cost_source),
        time_to_first_token_ms = COALESCE(g.time_to_first_token_ms, t.time_to_first_token_ms),
        response_model = COALESCE(g.response_model, t.response_model),
        finish_reason = COALESCE(g.finish_reason, t.finish_reason),
        response_id = COALESCE(g.response_id, t.response_id)
    FROM jsonb_to_recordset($1) AS g (task_id uuid, response text, input_tokens bigint, output_tokens bigint,
             cost numeric, time_to_first_token_ms bigint, result jsonb, total_tokens bigint,
             cache_read_input_tokens bigint, cache_creation_input_tokens bigint, reasoning_output_tokens bigint,
             response_model text, finish_reason text, response_id text, cost_source text)
    WHERE t.task_id = g.task_id AND t.phase <> 'succeeded';
    GET DIAGNOSTICS completed = ROW_COUNT;

    IF EXISTS (SELECT FROM run_tracker.tasks t WHERE t.task_id = ANY (ids) AND t.phase <> 'succeeded') THEN
        RAISE EXCEPTION 'a task was not updated'
            USING ERRCODE = 'insufficient_privilege', HINT = 'A policy or a trigger may have suppressed the update.';
    END IF;
    RETURN completed;
END
$$;
COMMENT ON FUNCTION run_tracker.complete_tasks(jsonb) IS
'Ends many tasks as succeeded with one statement, and returns how many changed; tasks that have succeeded already do not. The array has objects whose keys are the arguments of complete_task(), each task once. P0002, naming the first, if one is not there, RT001 if one cannot succeed, RT003 for a stale attempt, 23514 for impossible numbers, 22023 for anything but such an array; then nothing is changed.';
