-- Copying the rows of tables that applications had of their own.

CREATE FUNCTION run_tracker.import_cast(name text, from_type oid, to_type text) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE
        WHEN from_type IS NULL THEN format('CAST(NULL AS %s)', to_type)
        WHEN from_type = t AND strpos(to_type, '(') = 0 THEN format('s.%I', name)
        WHEN to_type = 'jsonb' AND f.typcategory <> 'S' AND f.oid <> 'json'::regtype THEN format('to_jsonb(s.%I)', name)
        WHEN f.oid = t OR to_type = 'text' OR EXISTS (SELECT FROM pg_cast c WHERE c.castsource = f.oid AND c.casttarget = t)
            THEN format('CAST(s.%I AS %s)', name, to_type)
        -- what is written in the same way
        ELSE format('CAST(CAST(s.%I AS text) AS %s)', name, to_type)
    END
    FROM to_regtype(to_type) t
         LEFT JOIN (pg_type d JOIN pg_type f ON f.oid = COALESCE(NULLIF(d.typbasetype, 0), d.oid)) ON d.oid = from_type
$$;
COMMENT ON FUNCTION run_tracker.import_cast(text, oid, text) IS
'Internal: the expression over s that makes of a column of an old table what the view of the application has there; null if there is no such column.';

CREATE FUNCTION run_tracker.import_id_types() RETURNS jsonb
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$ SELECT jsonb_object_agg(d.id, 'text') FROM run_tracker.compat_id_types() d $$;
COMMENT ON FUNCTION run_tracker.import_id_types() IS
'Internal: ids that come from the application are text in our tables, whatever they are in the source.';

CREATE FUNCTION run_tracker.import_columns(application text, source regclass, relation text)
RETURNS TABLE (n bigint, name text, found boolean, reads text, who text, is_key boolean)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT c.n, c.name, a.attname IS NOT NULL, run_tracker.import_cast(c.name, a.atttypid, c.type), c.who, c.name = ANY (r.keys)
    FROM run_tracker.compat_relations($1) r
         JOIN run_tracker.compat_columns($1, run_tracker.import_id_types()) c ON c.relation = r.relation
         LEFT JOIN pg_attribute a ON a.attrelid = $2 AND a.attname = c.name AND a.attnum > 0 AND NOT a.attisdropped
    WHERE r.relation = $3 AND c.name IS NOT NULL
$$;
COMMENT ON FUNCTION run_tracker.import_columns(text, regclass, text) IS
'Internal: the columns of a view of an application, and the expression over a row s of an old table that they come from.';

CREATE FUNCTION run_tracker.import_targets(application text, relation text)
RETURNS TABLE (name text, writes text, is_written boolean, is_key boolean, is_fixed boolean)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT a.attname::text,
           CASE WHEN w.inserts IS NULL THEN format('CAST(NULL AS %s)', format_type(a.atttypid, a.atttypmod))
                -- nobody is a user, too
                WHEN r.base = 'runs' AND a.attname = 'user_id' THEN format('COALESCE(%s, '''')', w.inserts)
                -- what belongs to no run belongs to that of its session
                WHEN $1 = 'spark' AND r.base = 'artifacts' AND a.attname = 'run_id' THEN 'COALESCE(new.run_id, new.session_id)'
                ELSE w.inserts END,
           w.inserts IS NOT NULL, COALESCE(k.is_key, false), k.is_fixed OR w.inserts IS NOT NULL AND a.attname = 'run_id'
    FROM run_tracker.compat_relations($1) r
         JOIN pg_attribute a ON a.attrelid = format('run_tracker.%I', r.base)::regclass AND a.attnum > 0 AND NOT a.attisdropped
         LEFT JOIN run_tracker.compat_writes($1, run_tracker.import_id_types(), $2,
            '{key,client,large,status,service,fact,hint,constant}') w ON w.target = a.attname
         LEFT JOIN (SELECT c.relation, c.target, bool_or(c.name = ANY (v.keys)) AS is_key, bool_or(c.who = 'key') AS is_fixed
                    FROM run_tracker.compat_columns($1, run_tracker.import_id_types()) c
                         JOIN run_tracker.compat_relations($1) v ON v.relation = c.relation
                    WHERE c.key IS NULL GROUP BY 1, 2) k
         ON k.relation = r.relation AND k.target = a.attname
    WHERE r.relation = $2
    ORDER BY a.attnum
$$;
COMMENT ON FUNCTION run_tracker.import_targets(text, text) IS
'Internal: the columns of the table behind a view of an application, what an import puts into them: an expression over a row new of the view, and whether they are (part of) the key or do not change either.';

CREATE FUNCTION run_tracker.import_before(application text, relation text) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT 'INSERT INTO run_tracker.runs (run_id, user_id, lifecycle, kind, session_id, created_at, updated_at)
        SELECT s.session_id, s.user_id, ''session'', ''session'', s.session_id::text, s.created_at, s.updated_at
        FROM run_tracker.sessions s
        WHERE EXISTS (SELECT FROM @piece@ WHERE new.session_id = s.session_id AND new.run_id IS NULL
                                                AND (new.user_id IS NULL OR new.user_id = s.user_id))
          AND NOT EXISTS (SELECT FROM run_tracker.runs r WHERE r.run_id = s.session_id)
        ON CONFLICT DO NOTHING'
    FROM run_tracker.compat_relations($1) r
    WHERE $1 = 'spark' AND r.relation = $2 AND r.base = 'artifacts'
$$;
COMMENT ON FUNCTION run_tracker.import_before(text, text) IS
'Internal: what import_table() does before it inserts rows: what belongs to no run belongs to that of its session, which has its id.';

CREATE FUNCTION run_tracker.import_after(application text, relation text) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT 'SELECT run_tracker.write_messages(m.id, ''[]'', m.messages)
        FROM (SELECT DISTINCT ON (new.id) new.id, new.messages FROM @piece@ JOIN unnest($3) k ON k = new.id
              WHERE new.messages <> ''[]'' ORDER BY new.id) m'
    WHERE relation = 'ai_runs'
$$;
COMMENT ON FUNCTION run_tracker.import_after(text, text) IS
'Internal: what import_table() does with the rows of the piece that it has inserted, whose ids are $3: what columns say that are not those of one table.';

CREATE FUNCTION run_tracker.import_statements(application text, source regclass, relation text)
RETURNS TABLE (base regclass, ignored text[], read text, before text, write text, missing text, keys text, after text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $function$
#variable_conflict use_variable
DECLARE
    kind "char" := (SELECT c.relkind FROM pg_class c WHERE c.oid = source);
    name text := COALESCE(relation, (SELECT c.relname FROM pg_class c WHERE c.oid = source));
    v record;
    c record;
    t record;
    piece text;
    made text;
    fits text;
BEGIN
    PERFORM run_tracker.compat_require_application(application);
    IF kind IS NULL THEN
        RAISE EXCEPTION 'argument "source" must name a table' USING ERRCODE = 'invalid_parameter_value';
    ELSIF kind NOT IN ('r', 'p', 'm', 'f', 'v') THEN
        RAISE EXCEPTION '"%" is not a table', source
            USING ERRCODE = 'wrong_object_type', HINT = 'The source is a table, partitioned table, foreign table, view or materialized view.';
    END IF;
    SELECT * INTO v FROM run_tracker.compat_relations(application) m WHERE m.relation = name;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'application "%" has no table "%"', application, left(name, 100)
            USING ERRCODE = 'invalid_parameter_value',
                  HINT = format('Argument "relation" says which one the source is: %s.',
                                (SELECT string_agg(m.relation, ', ') FROM run_tracker.compat_relations(application) m));
    END IF;

    SELECT string_agg(format('s.%I', i.name), ', ' ORDER BY i.n) FILTER (WHERE i.found AND i.who <> 'computed') AS source_columns,
           string_agg(format('%s AS %I', i.reads, i.name), ', ' ORDER BY i.n) FILTER (WHERE i.who <> 'computed') AS view_columns,
           string_agg(format('new.%I IS NOT NULL', i.name), ' AND ' ORDER BY i.n) FILTER (WHERE i.is_key) AS has_key,
           string_agg(format('%L, s.%I', i.name, i.name), ', ' ORDER BY i.n) FILTER (WHERE i.is_key) AS key_json,
           string_agg(format('"%s"', i.name), ', ' ORDER BY i.n) FILTER (WHERE i.is_key AND NOT i.found) AS lost_keys
    INTO STRICT c FROM run_tracker.import_columns(application, source, v.relation) i;
    IF c.lost_keys IS NOT NULL THEN
        RAISE EXCEPTION 'table "%" has no column %', source, c.lost_keys
            USING ERRCODE = 'invalid_parameter_value', DETAIL = 'Without the key of its rows an import could not be repeated.';
    END IF;
    SELECT string_agg(format('%s AS %I', i.writes, i.name), ', ') AS made,
           string_agg(format('%I', i.name), ', ') FILTER (WHERE i.is_written) AS targets,
           string_agg(format('m.%I', i.name), ', ') FILTER (WHERE i.is_written) AS values,
           string_agg(format('r.%I = m.%1$I', i.name), ' AND ') FILTER (WHERE i.is_key) AS same_key,
           -- the primary key of what belongs to a run begins with that
           string_agg(format('r.%I = m.%1$I', i.name), ' AND ') FILTER (WHERE i.is_key OR i.is_fixed AND i.name = 'run_id') AS same_place,
           string_agg(format('(m.%I IS NULL OR r.%1$I = m.%1$I)', i.name), ' AND ') FILTER (WHERE i.is_fixed AND NOT i.is_key) AS same_fixed,
           string_agg(format('r.%I', i.name), ', ') FILTER (WHERE i.is_key) AS key, bool_or(i.name = 'run_id') AS of_run
    INTO STRICT t FROM run_tracker.import_targets(application, v.relation) i;

    base := format('run_tracker.%I', v.base)::regclass;
    ignored := ARRAY(SELECT a.attname::text FROM pg_attribute a
                     WHERE a.attrelid = source AND a.attnum > 0 AND NOT a.attisdropped
                       AND a.attname NOT IN (SELECT i.name FROM run_tracker.import_columns(application, source, v.relation) i)
                     ORDER BY a.attnum);
    piece := format('(SELECT %s FROM (SELECT * FROM imported OFFSET $1 LIMIT $2) s) new', c.view_columns);
    before := replace(run_tracker.import_before(application, v.relation), '@piece@', piece);
    after := replace(run_tracker.import_after(application, v.relation), '@piece@', piece);
    made := format('%s, LATERAL (SELECT %s) m', piece, t.made);
    -- rows that would not be seen in the view; what triggers fill in is not known yet
    fits := format('(SELECT (%s) IS NOT FALSE FROM (SELECT m.*) r)', COALESCE(v.filter, 'true'));

    read := format('SELECT %s FROM %s s%s', c.source_columns, source,
                   -- these are numbered as they come
                   CASE v.base WHEN 'logs' THEN ' ORDER BY s.job_id, s.created_at' WHEN 'session_deltas' THEN ' ORDER BY s.session_id, s.version' END);
    write := format($query$INSERT INTO run_tracker.%1$I AS r (%2$s)
        SELECT %3$s FROM %4$s
        WHERE %5$s AND %6$s AND NOT EXISTS (SELECT FROM run_tracker.%1$I r WHERE %7$s)
        ON CONFLICT DO NOTHING%8$s$query$,
        v.base, t.targets, t.values, made, c.has_key, fits, t.same_place, ' RETURNING ' || CASE WHEN after IS NOT NULL THEN t.key END);
    missing := format($query$SELECT (SELECT jsonb_build_object(%1$s) FROM (SELECT new.*) s), p.*
        FROM %2$s,
             LATERAL (SELECT '23502', 'row has no key', NULL WHERE NOT (%3$s)
                      UNION ALL
                      SELECT '23505', 'key is taken', 'The row with this key belongs to another user or run, or is something else.'
                      FROM run_tracker.%4$I r WHERE %5$s
                      UNION ALL
                      SELECT '23503', 'run does not exist', %6$s WHERE NOT %7$s
                      UNION ALL
                      SELECT '55000', 'row was not inserted', 'A trigger may have suppressed it.'
                      LIMIT 1) p
        WHERE NOT EXISTS (SELECT FROM run_tracker.%4$I r WHERE %8$s)$query$,
        c.key_json, made, c.has_key, v.base, t.same_key,
        CASE WHEN v.base = 'runs' OR NOT t.of_run THEN 'NULL'
             ELSE format('format(''There is no run %%s of application "%s".'', m.run_id)', application) END,
        -- a session may have been closed since
        fits, concat_ws(' AND ', t.same_key, t.same_fixed, CASE WHEN v.base <> 'sessions' THEN v.filter END));
    keys := format('SELECT jsonb_build_object(%s) FROM (SELECT * FROM imported OFFSET $1 LIMIT $2) s', c.key_json);
    RETURN NEXT;
END
$function$;
COMMENT ON FUNCTION run_tracker.import_statements(text, regclass, text) IS
'Internal: how import_table() copies an old table: what reads its rows, which come in pieces, and statements that find a piece as relation "imported", of which they take $2 rows from number $1 on: what is done before, what inserts, what tells of rows that are not there then, of their keys, and what is done with those that were inserted. Columns of the source that are missing are null.';

CREATE FUNCTION run_tracker.import_table(application text, source regclass, relation text DEFAULT NULL)
RETURNS TABLE (copied bigint, present bigint, refused bigint, refusals jsonb, ignored_columns text[])
LANGUAGE c SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'run_tracker_import_table';
COMMENT ON FUNCTION run_tracker.import_table(text, regclass, text) IS
'Copies the rows of a table that an application (spar, iflow, ai_runs, spark or workflow) had of its own into the tracker, with their ids, timestamps and states; relation says which table of the application it is, by default its name does. Columns are found by their names; those that are missing are null, others are ignored, and so are totals, which are computed. Can be repeated: rows that are there are left alone. Returns how many rows were copied, were present, and were refused; of up to 1,000 of the latter key, SQLSTATE, message and detail; and the names of columns that no view of the application has. 22023 for bad arguments, 42809 if the source is no table. The source is read with the rights of the caller: what its owner has put into a view, a policy or a cast runs with them, as in any query. For services.';
