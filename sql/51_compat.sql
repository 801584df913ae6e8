-- Views under the names that applications used for tables of their own.
--
-- A mapping, three functions per application, says what there is; create_compat() makes views and triggers of it, and
-- import_table() the INSERT that copies an old table.  What is made belongs to the user.  It is known by its comment.

CREATE FUNCTION run_tracker.compat_delete() RETURNS trigger
LANGUAGE c
AS 'MODULE_PATHNAME', 'run_tracker_compat_delete';
COMMENT ON FUNCTION run_tracker.compat_delete() IS
'Trigger INSTEAD OF DELETE of the views that create_compat() makes: deletes the row that the view shows, if it is the user''s own or a service deletes it. Arguments: table, then pairs of a column of the table and the column of the view that shows it, first those of the key, and then, marked with "+", others that tell rows with the same key from each other.';

CREATE FUNCTION run_tracker.set_keys(base jsonb, old jsonb, new jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE WHEN old = new THEN base ELSE NULLIF(
        CASE WHEN base IS NULL THEN '{}' WHEN jsonb_typeof(base) = 'object' THEN base ELSE jsonb_build_object('value', base) END
            - COALESCE((SELECT array_agg(n.key) FROM jsonb_each(new) n
                        WHERE n.value = 'null' AND old -> n.key IS DISTINCT FROM n.value), '{}')
            || COALESCE((SELECT jsonb_object_agg(n.key, n.value) FROM jsonb_each(new) n
                         WHERE n.value <> 'null' AND old -> n.key IS DISTINCT FROM n.value), '{}'), '{}') END
$$;
COMMENT ON FUNCTION run_tracker.set_keys(jsonb, jsonb, jsonb) IS
'What triggers of the views of create_compat() do to a JSON object whose keys are columns of the view: sets the keys whose value differs between old and new, and removes those that are null in new.';

CREATE FUNCTION run_tracker.compat_id(expression text, type text) RETURNS text
LANGUAGE sql IMMUTABLE STRICT SET search_path = pg_catalog, pg_temp
AS $$
    -- built-in functions only: an index on the expression of a uuid serves the views
    SELECT CASE type
        WHEN 'text' THEN format('NULLIF(%s, '''')', expression)
        WHEN 'uuid' THEN format('CASE WHEN %1$s ~ ''^[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}$'' THEN %1$s::uuid END', expression)
        WHEN 'bigint' THEN format('CASE WHEN %1$s ~ ''^-?[0-9]{1,19}$'' THEN CASE WHEN %1$s::numeric BETWEEN -9223372036854775808 AND 9223372036854775807 THEN %1$s::bigint END END', expression)
        WHEN 'integer' THEN format('CASE WHEN %1$s ~ ''^-?[0-9]{1,10}$'' THEN CASE WHEN %1$s::bigint BETWEEN -2147483648 AND 2147483647 THEN %1$s::integer END END', expression)
    END
$$;
COMMENT ON FUNCTION run_tracker.compat_id(text, text) IS
'Internal: the expression that shows a text column as an id of the application, and what is no such id as null.';

CREATE FUNCTION run_tracker.compat_key(col text, key text, type text) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
    -- other writers may have put anything there: what is not of the type is shown as null
    SELECT CASE
        WHEN key IS NULL OR col IS NULL THEN NULL
        WHEN type = 'jsonb' THEN format('NULLIF(r.%I -> %L, ''null'')', col, key)
        WHEN type = 'text' THEN format('r.%I ->> %L', col, key)
        WHEN type = 'boolean' THEN
            format('CASE r.%1$I ->> %2$L WHEN ''true'' THEN true WHEN ''false'' THEN false END', col, key)
        WHEN type = 'uuid' THEN run_tracker.compat_id(format('(r.%I ->> %L)', col, key), type)
        WHEN type = 'numeric' THEN
            format('CASE WHEN r.%1$I ->> %2$L ~ ''^-?[0-9]{1,255}([.][0-9]*)?$'' THEN (r.%1$I ->> %2$L)::numeric END', col, key)
        -- within the range of the type, also after rounding
        ELSE format('CASE WHEN r.%1$I ->> %2$L ~ ''^-?[0-9]{1,255}([.][0-9]*)?$'' THEN CASE WHEN abs((r.%1$I ->> %2$L)::numeric) < %3$s THEN (r.%1$I ->> %2$L)::numeric END END',
                    col, key, CASE type WHEN 'integer' THEN '2147483647.5' WHEN 'bigint' THEN '9223372036854775807.5'
                                        WHEN 'numeric(10,3)' THEN '9999999.9995' END)
    END
$$;
COMMENT ON FUNCTION run_tracker.compat_key(text, text, text) IS
'Internal: the expression that shows a key of a jsonb column as a column of a type.';

CREATE FUNCTION run_tracker.compat_columns(application text, id_types jsonb)
RETURNS TABLE (relation text, n bigint, name text, type text, reads text, target text, key text, writes text, who text,
               description text)
LANGUAGE plpgsql STRICT SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY EXECUTE format($query$
        SELECT c.relation, c.n, c.name, c.type,
               CASE WHEN c.id = 'user_id' OR c.id IS NOT NULL AND c.type <> 'text'
                    THEN run_tracker.compat_id(COALESCE(c.reads, 'r.' || c.target), c.type)
                    ELSE COALESCE(replace(c.reads, '@key@', COALESCE(run_tracker.compat_key(c.target, c.key, c.type), '')),
                                  run_tracker.compat_key(c.target, c.key, c.type), 'r.' || c.target) END,
               c.target, c.key,
               COALESCE(c.writes, format('new.%%I', c.name) || CASE WHEN c.id IS NOT NULL THEN '::text' ELSE '' END),
               c.who, c.description
        FROM (SELECT m.relation, m.ordinality AS n, m.name,
                     CASE WHEN m.type LIKE '@%%' THEN COALESCE($1 ->> substr(m.type, 2), d.type) ELSE m.type END AS type,
                     m.reads, split_part(m.target, '.', 1) AS target,
                     NULLIF(split_part(m.target, '.', 2), '') AS key,
                     m.writes, m.who, m.description, d.id
              FROM run_tracker.%I() WITH ORDINALITY m
                   LEFT JOIN run_tracker.compat_id_types() d ON m.type = '@' || d.id) c$query$,
        'compat_' || application || '_columns') USING id_types;
END
$$;
COMMENT ON FUNCTION run_tracker.compat_columns(text, jsonb) IS
'Internal: the columns of the views of an application: expression over r that reads it, column of the table (and key of that, if it is JSON) and expression over new that writes it, and who writes it: key (inserted, never changed), client, large (like client; not read again), status (like client, but as a transition), service, fact (inserted by services), hint (like client, but what the view shows is not only that: not checked for concurrent changes), constant (no column of the view), computed (nobody), special (pieces of code).';

CREATE FUNCTION run_tracker.compat_id_types() RETURNS TABLE (id text, type text)
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
    VALUES ('user_id', 'uuid'), ('journal_entry_id', 'uuid'), ('workflow_id', 'text'), ('session_id', 'text')
$$;
COMMENT ON FUNCTION run_tracker.compat_id_types() IS
'Internal: the ids that come from the application, text in our tables, and the types that they have in its views by default.';

CREATE FUNCTION run_tracker.compat_writes(application text, id_types jsonb, relation text, whose text[])
RETURNS TABLE (target text, inserts text, updates text)
LANGUAGE sql STRICT SET search_path = pg_catalog, pg_temp
AS $$
    SELECT c.target,
           CASE WHEN min(c.key) IS NULL THEN min(c.writes)
                ELSE format('(SELECT jsonb_object_agg(k.key, k.value) FROM (VALUES %s) AS k (key, value) WHERE k.value <> ''null'')',
                            string_agg(format('(%L, to_jsonb(%s))', c.key, c.writes), ', ' ORDER BY c.n)) END,
           CASE WHEN min(c.key) IS NULL THEN
                    min(format('CASE WHEN new.%1$I IS DISTINCT FROM old.%1$I THEN %2$s ELSE r.%3$I END',
                               COALESCE(c.name, ''), c.writes, c.target))
                ELSE format('CASE WHEN ROW(%s) IS DISTINCT FROM ROW(%s) THEN run_tracker.set_keys(r.%I, jsonb_build_object(%s), jsonb_build_object(%s)) ELSE r.%3$I END',
                            string_agg(format('new.%I', COALESCE(c.name, '')), ', ' ORDER BY c.n),
                            string_agg(format('old.%I', COALESCE(c.name, '')), ', ' ORDER BY c.n), c.target,
                            string_agg(format('%L, %s', c.key, regexp_replace(c.writes, '\mnew\.', 'old.', 'g')), ', '
                                       ORDER BY c.n),
                            string_agg(format('%L, %s', c.key, c.writes), ', ' ORDER BY c.n)) END
    FROM run_tracker.compat_columns($1, $2) c
    WHERE c.relation = $3 AND c.who = ANY ($4) AND c.target IS NOT NULL
    GROUP BY c.target
    ORDER BY min(c.n)
$$;
COMMENT ON FUNCTION run_tracker.compat_writes(text, jsonb, text, text[]) IS
'Internal: the columns of the table that some may write through a view, and what an INSERT or UPDATE there puts into them.';

CREATE FUNCTION run_tracker.compat_relations(application text)
RETURNS TABLE (relation text, base text, filter text, keys text[], repeatable boolean, before_insert text,
               after_insert text, before_update text, after_update text, description text)
LANGUAGE plpgsql STRICT SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY EXECUTE format('SELECT * FROM run_tracker.%I()', 'compat_' || application || '_relations');
END
$$;
COMMENT ON FUNCTION run_tracker.compat_relations(text) IS
'Internal: the writable views of an application: table, condition on its alias r, columns of the view that are the key, whether INSERT of a row that exists returns that instead of failing, and pieces of PL/pgSQL for its trigger.';

CREATE FUNCTION run_tracker.compat_list(application text, id_types jsonb, relation text) RETURNS text
LANGUAGE sql STRICT SET search_path = pg_catalog, pg_temp
AS $$
    SELECT string_agg(format('CAST(%s AS %s) AS %I', CASE c.who WHEN 'special' THEN format('s.%I', c.name) ELSE c.reads END,
                             c.type, c.name), E',\n       ' ORDER BY c.n)
    FROM run_tracker.compat_columns($1, $2) c
    WHERE c.relation = $3 AND c.name IS NOT NULL
$$;
COMMENT ON FUNCTION run_tracker.compat_list(text, jsonb, text) IS
'Internal: the columns of a view, as a list of expressions over r, and over s for special ones.';

CREATE FUNCTION run_tracker.compat_view(application text, id_types jsonb, relation text) RETURNS text
LANGUAGE sql STRICT SET search_path = pg_catalog, pg_temp
AS $$
    -- an UPDATE reads a special column twice, as OLD and in its expression: it is not to be computed twice
    SELECT format(E'SELECT %s\nFROM run_tracker.%I r%s%s', run_tracker.compat_list($1, $2, $3), min(v.base),
                  E',\n     LATERAL (SELECT ' || string_agg(format('%s AS %I', c.reads, c.name), ', ' ORDER BY c.n)
                                          FILTER (WHERE c.who = 'special') || ' OFFSET 0) s',
                  E'\nWHERE ' || min(v.filter))
    FROM run_tracker.compat_relations($1) v
         JOIN run_tracker.compat_columns($1, $2) c ON c.relation = v.relation
    WHERE v.relation = $3 AND c.name IS NOT NULL
$$;
COMMENT ON FUNCTION run_tracker.compat_view(text, jsonb, text) IS 'Internal: the query of a view.';

CREATE FUNCTION run_tracker.compat_is_unique(application text, id_types jsonb, relation text) RETURNS boolean
LANGUAGE sql STRICT SET search_path = pg_catalog, pg_temp
AS $$
    SELECT EXISTS (
        SELECT FROM run_tracker.compat_relations($1) v
             JOIN pg_index i ON i.indrelid = to_regclass('run_tracker.' || v.base) AND i.indisunique AND i.indpred IS NULL
        WHERE v.relation = $3
          AND (SELECT array_agg(a.attname::text ORDER BY a.attname) FROM pg_attribute a
               WHERE a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey))
            = (SELECT array_agg(c.target ORDER BY c.target::name) FROM run_tracker.compat_columns($1, $2) c
               WHERE c.relation = $3 AND c.name = ANY (v.keys)))
$$;
COMMENT ON FUNCTION run_tracker.compat_is_unique(text, jsonb, text) IS
'Internal: does the table keep the key of a view unique? Ids that clients may give to what belongs to a run are unique there only.';

CREATE FUNCTION run_tracker.compat_trigger(application text, id_types jsonb, relation text) RETURNS text
LANGUAGE plpgsql STRICT SET search_path = pg_catalog, pg_temp
AS $function$
#variable_conflict use_variable
DECLARE
    v record;
    row_read text;
    row_key text;
    same_key text;
    same_row text;
    made_row text;
    fixed text;
    fixed_names text;
    changed text;
    transition text;
    touched text;
    piece text;
    statements text[] := '{}';
    whose text[];
BEGIN
    SELECT * INTO STRICT v FROM run_tracker.compat_relations($1) m WHERE m.relation = $3;
    SELECT string_agg(CASE WHEN c.who IN ('large', 'special') THEN format('new.%1$I AS %1$I', c.name)
                      ELSE format('CAST(%s AS %s) AS %I', c.reads, c.type, c.name) END, E',\n           ' ORDER BY c.n),
           string_agg(format('r.%I AS %I', c.target, c.name), ', ' ORDER BY c.n)
               FILTER (WHERE c.name = ANY (v.keys) OR c.who = 'key' AND c.reads = 'r.' || c.target OR c.who = 'status'),
           string_agg(format('r.%I = old.%I', c.target, c.name), ' AND ' ORDER BY c.n) FILTER (WHERE c.name = ANY (v.keys)),
           -- the table need not keep the key of the view unique
           string_agg(format(CASE WHEN c.name = ANY (v.keys) THEN 'r.%I = old.%I' ELSE 'r.%I IS NOT DISTINCT FROM old.%I' END,
                             c.target, c.name), ' AND ' ORDER BY c.n)
               FILTER (WHERE c.name = ANY (v.keys) OR c.who = 'key' AND c.reads = 'r.' || c.target),
           string_agg(format('new.%1$I IS DISTINCT FROM old.%1$I', c.name), ' OR ' ORDER BY c.n) FILTER (WHERE c.who = 'key'),
           string_agg(format('"%s"', c.name), ', ' ORDER BY c.n) FILTER (WHERE c.who = 'key'),
           string_agg(format('new.%1$I IS DISTINCT FROM old.%1$I', c.name), E'\n            OR ' ORDER BY c.n)
               FILTER (WHERE c.who IN ('client', 'large', 'status', 'hint', 'service'))
    INTO row_read, row_key, same_key, same_row, fixed, fixed_names, changed
    FROM run_tracker.compat_columns($1, $2) c WHERE c.relation = $3 AND c.name IS NOT NULL;
    made_row := replace(same_row, 'old.', 'result.');

    -- for services, and for clients: an INSERT and an UPDATE
    FOREACH whose SLICE 1 IN ARRAY '{{key,client,large,hint,constant,status,service,fact},{key,client,large,hint,constant,"","",""}}'::text[] LOOP
        SELECT format(E'INSERT INTO run_tracker.%I AS r (%s)\n            SELECT %s%s\n            ON CONFLICT DO NOTHING RETURNING %s INTO result;',
                      v.base, string_agg(quote_ident(w.target), ', '), string_agg(w.inserts, E',\n                '),
                      CASE WHEN NOT run_tracker.compat_is_unique($1, $2, $3) THEN
                          format(E'\n            WHERE NOT EXISTS (SELECT FROM run_tracker.%I r WHERE %s)', v.base,
                                 replace(same_key, 'old.', 'new.')) END, row_key)
        INTO piece FROM run_tracker.compat_writes($1, $2, $3, whose) w;
        statements := statements || piece;
    END LOOP;
    FOREACH whose SLICE 1 IN ARRAY '{{client,large,status,hint,service},{client,large,status,hint,""}}'::text[] LOOP
        SELECT format(E'UPDATE run_tracker.%I AS r SET\n            %s\n        WHERE %s%s\n        RETURNING %s INTO result;', v.base,
                      COALESCE(string_agg(format('%I = %s', w.target, w.updates), E',\n            '),
                               -- nothing can be changed: a key that is what it was
                               (SELECT format('%1$I = r.%1$I', min(c.target)) FROM run_tracker.compat_columns($1, $2) c
                                WHERE c.relation = $3 AND c.name = v.keys[1])),
                      same_row,
                      (SELECT string_agg(format(E'\n          AND (new.%1$I IS NOT DISTINCT FROM old.%1$I OR CAST(%2$s AS %3$s) IS NOT DISTINCT FROM old.%1$I)',
                                                c.name, c.reads, c.type), '' ORDER BY c.n)
                       FROM run_tracker.compat_columns($1, $2) c
                       WHERE c.relation = $3 AND c.who = ANY (whose) AND c.who <> 'hint' AND c.name IS NOT NULL),
                      row_key)
        INTO piece FROM run_tracker.compat_writes($1, $2, $3, whose) w;
        -- where nobody may change anything, an UPDATE would only ask for privileges
        IF NOT EXISTS (SELECT FROM run_tracker.compat_writes($1, $2, $3, '{client,status,hint,service}')) THEN
            piece := format('SELECT %s INTO result FROM run_tracker.%I r WHERE %s;', row_key, v.base, same_row);
        END IF;
        statements := statements || piece;
    END LOOP;
    SELECT format(E'\n        IF NOT service AND new.%1$I <> result.%1$I THEN\n            UPDATE run_tracker.%2$I AS r SET %3$I = %4$s WHERE %5$s;\n        END IF;',
                  c.name, v.base, c.target, c.writes, made_row)
    INTO transition FROM run_tracker.compat_columns($1, $2) c WHERE c.relation = $3 AND c.who = 'status';
    SELECT format(E'\n            IF new.%1$I IS DISTINCT FROM old.%1$I THEN\n                -- is ignored, but says that the run is being worked on\n                PERFORM run_tracker.heartbeat_run(r.run_id) FROM run_tracker.runs r\n                WHERE %2$s AND r.finished_at IS NULL AND (service OR r.user_id = run_tracker.current_user_id());\n            END IF;',
                  c.name, same_row)
    INTO touched FROM run_tracker.compat_columns($1, $2) c WHERE c.relation = $3 AND v.base = 'runs' AND c.target = 'updated_at';

    RETURN format($trigger$
DECLARE
    service constant boolean := run_tracker.is_service();
    result record;
BEGIN
    IF TG_OP = 'INSERT' THEN%s
        IF service THEN
            %s
        ELSE
            %s
        END IF;
        IF NOT FOUND THEN
            RETURN run_tracker.resolve_conflict(TG_RELID, new, %s);
        END IF;%s%s
    ELSE
        IF %s THEN
            RAISE EXCEPTION 'a column of view "%%" cannot be changed', TG_TABLE_NAME
                USING ERRCODE = 'object_not_in_prerequisite_state', TABLE = TG_TABLE_NAME, SCHEMA = TG_TABLE_SCHEMA,
                      DETAIL = 'Columns that stay as they are: %s.';
        END IF;%s
        IF %s THEN
            %s
        ELSE%s
            -- who changes nothing waits for nobody
            SELECT %s INTO result FROM run_tracker.%I r WHERE %s;
        END IF;
        IF NOT FOUND THEN
            -- rows that one may only read are left alone
            IF EXISTS (SELECT FROM run_tracker.%I r WHERE %s FOR NO KEY UPDATE) THEN
                RAISE EXCEPTION 'could not update view "%%" due to concurrent update', TG_TABLE_NAME
                    USING ERRCODE = 'serialization_failure', TABLE = TG_TABLE_NAME, SCHEMA = TG_TABLE_SCHEMA,
                          HINT = 'Repeat the statement.';
            END IF;
            RETURN NULL;
        END IF;%s
    END IF;
    SELECT %s
    INTO result FROM run_tracker.%I r WHERE %s;
    RETURN result;
END
$trigger$,
        E'\n' || v.before_insert, statements[1], statements[2],
        -- a repeated request names the same user, or none
        CASE WHEN v.repeatable THEN format('EXISTS (SELECT FROM run_tracker.%I r WHERE %s%s)', v.base,
            replace(same_key, 'old.', 'new.'),
            (SELECT string_agg(format(' AND (new.%1$I IS NULL OR CAST(%2$s AS %3$s) = new.%1$I)', c.name, c.reads, c.type), '')
             FROM run_tracker.compat_columns($1, $2) c
             WHERE c.relation = $3 AND c.who = 'key' AND c.name <> ALL (v.keys)))
        ELSE 'false' END,
        transition, E'\n' || v.after_insert,
        fixed, fixed_names, E'\n' || v.before_update, COALESCE(changed, 'false'),
        CASE WHEN statements[3] = statements[4] THEN statements[3]
             ELSE format(E'IF service THEN\n        %s\n        ELSE\n        %s\n        END IF;', statements[3], statements[4]) END,
        touched, row_key, v.base, same_row, v.base, same_row, E'\n' || v.after_update, row_read, v.base, made_row);
END
$function$;
COMMENT ON FUNCTION run_tracker.compat_trigger(text, jsonb, text) IS
'Internal: the body of the trigger INSTEAD OF INSERT OR UPDATE of a view. A column that changes must still have the value that it was changed from: nothing that others have written meanwhile is lost.';

CREATE FUNCTION run_tracker.compat_objects(application text, schema regnamespace)
RETURNS TABLE (kind text, identity text, name text)
LANGUAGE sql STABLE STRICT SET search_path = pg_catalog, pg_temp
AS $$
    SELECT o.kind, o.identity, o.name
    FROM (SELECT 'view', c.oid::regclass::text, c.relname::text, c.relowner, obj_description(c.oid, 'pg_class')
          FROM pg_class c WHERE c.relkind = 'v' AND c.relnamespace = schema
          UNION ALL
          SELECT 'function', p.oid::regprocedure::text, p.proname::text, p.proowner, obj_description(p.oid, 'pg_proc')
          FROM pg_proc p WHERE p.pronamespace = schema) AS o (kind, identity, name, owner, description)
    WHERE right(o.description, length(run_tracker.compat_mark(application))) = run_tracker.compat_mark(application)
      -- anybody can write such a comment on what is his own
      AND o.owner IN ((SELECT c.relowner FROM pg_class c WHERE c.oid = 'run_tracker.runs'::regclass),
                      (SELECT r.oid FROM pg_roles r WHERE r.rolname = CURRENT_USER))
$$;
COMMENT ON FUNCTION run_tracker.compat_objects(text, regnamespace) IS
'Internal: what create_compat() has made for an application in a schema; known by the end of the comment.';

CREATE FUNCTION run_tracker.compat_mark(application text) RETURNS text
LANGUAGE sql IMMUTABLE STRICT SET search_path = pg_catalog, pg_temp
AS $$ SELECT format(' (create_compat: %s)', application) $$;
COMMENT ON FUNCTION run_tracker.compat_mark(text) IS 'Internal: how comments of views and functions of create_compat() end.';

CREATE FUNCTION run_tracker.compat_require_application(application text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF application IS NULL OR NOT application = ANY ('{spar,iflow,ai_runs,spark,workflow}') THEN
        RAISE EXCEPTION 'unknown application'
            USING ERRCODE = 'invalid_parameter_value', DETAIL = format('The application is %s.', quote_nullable(left(application, 100))),
                  HINT = 'Applications are spar, iflow, ai_runs, spark and workflow.';
    END IF;
END
$$;
COMMENT ON FUNCTION run_tracker.compat_require_application(text) IS 'Internal: 22023 unless it is the name of an application.';

CREATE FUNCTION run_tracker.compat_check(application text, schema regnamespace) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM run_tracker.compat_require_application(application);
    IF schema IS NULL OR NOT EXISTS (SELECT FROM pg_namespace n WHERE n.oid = schema) THEN
        RAISE EXCEPTION 'argument "schema" must name a schema' USING ERRCODE = 'invalid_parameter_value';
    ELSIF schema = 'run_tracker'::regnamespace OR schema = 'information_schema'::regnamespace OR schema::text LIKE 'pg\_%'
          -- the end of a function, and what is replaced in definitions
          OR schema::text ~ '[$](body|do)[$]|@schema(_text)?@' THEN
        RAISE EXCEPTION 'schema % is not for views of applications', schema
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Name the schema in which the application looks for its tables.';
    END IF;
END
$$;
COMMENT ON FUNCTION run_tracker.compat_check(text, regnamespace) IS 'Internal: checks the arguments of create_compat().';

CREATE FUNCTION run_tracker.compat_require_free(application text, schema regnamespace, kind text, name text) RETURNS void
LANGUAGE plpgsql STRICT SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF EXISTS (SELECT FROM pg_proc p WHERE kind = 'function' AND p.pronamespace = schema AND p.proname = name
                 AND p.oid::regprocedure::text NOT IN (SELECT o.identity FROM run_tracker.compat_objects(application, schema) o))
       OR EXISTS (SELECT FROM pg_class c WHERE kind <> 'function' AND c.relnamespace = schema AND c.relname = name
                    AND c.oid::regclass::text NOT IN (SELECT o.identity FROM run_tracker.compat_objects(application, schema) o)) THEN
        RAISE EXCEPTION '% %.% already exists', CASE kind WHEN 'view' THEN 'relation' ELSE kind END, schema, quote_ident(name)
            USING ERRCODE = CASE kind WHEN 'function' THEN 'duplicate_function' ELSE 'duplicate_table' END,
                  HINT = CASE kind WHEN 'function' THEN 'Rename it, or name another schema.'
                         ELSE 'Rename it or move it to another schema; import_table() then copies its rows.' END;
    END IF;
END
$$;
COMMENT ON FUNCTION run_tracker.compat_require_free(text, regnamespace, text, text) IS
'Internal: refuses to replace what create_compat() has not made.';

CREATE FUNCTION run_tracker.compat_grant(view regclass) RETURNS void
LANGUAGE plpgsql STRICT SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    -- ALTER DEFAULT PRIVILEGES may have granted TRIGGER: that lets a role run code with the rights of whoever writes
    PERFORM run_tracker.revoke_all(view);
    -- who may do what is decided by the tables below, where whoever uses the view needs the privileges
    EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %s TO PUBLIC', view);
END
$$;
COMMENT ON FUNCTION run_tracker.compat_grant(regclass) IS 'Internal: the privileges on a new view of an application.';

CREATE FUNCTION run_tracker.create_compat(application text, schema regnamespace, id_types jsonb DEFAULT '{}',
    public_rows boolean DEFAULT false) RETURNS text[]
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET client_min_messages = warning
AS $function$
DECLARE
    types jsonb;
    rel record;
    fun record;
    col record;
    view text;
    writer text;
    made text[] := '{}';
    missing text[] := '{}';
    is_new boolean;
BEGIN
    PERFORM run_tracker.require_tables();
    PERFORM run_tracker.compat_check(application, schema);
    types := run_tracker.compat_types(application, id_types);
    PERFORM run_tracker.compat_public_rows(application, public_rows);
    FOR rel IN SELECT * FROM run_tracker.compat_indexes(application, types) i
               WHERE NOT EXISTS (SELECT FROM pg_class c WHERE c.relnamespace = 'run_tracker'::regnamespace AND c.relname = i.name)
                 AND NOT EXISTS (SELECT FROM pg_statistic_ext s
                                 WHERE s.stxnamespace = 'run_tracker'::regnamespace AND s.stxname = i.name) LOOP
        IF has_schema_privilege('run_tracker', 'CREATE') THEN
            EXECUTE rel.definition;
        ELSE
            missing := missing || rel.name;
        END IF;
    END LOOP;
    IF missing <> '{}' THEN
        RAISE WARNING 'indexes that the views need are missing'
            USING DETAIL = format('They are %s.', array_to_string(missing, ', ')),
                  HINT = 'Only the owner of schema run_tracker can create them: have him call create_compat() with these arguments, for any schema.';
    END IF;

    FOR rel IN SELECT * FROM run_tracker.compat_relations(application) r
               -- the views of some are written by hand
               WHERE r.relation NOT IN (SELECT e.name FROM run_tracker.compat_extras(application, schema, types) e) LOOP
        view := format('%s.%I', schema, rel.relation);
        writer := format('%s.%I', schema, rel.relation || '_write');
        PERFORM run_tracker.compat_require_free(application, schema, 'view', rel.relation);
        PERFORM run_tracker.compat_require_free(application, schema, 'function', rel.relation || '_write');
        is_new := to_regclass(view) IS NULL;
        EXECUTE format(E'CREATE OR REPLACE VIEW %s WITH (security_invoker = true) AS\n%s', view,
                       run_tracker.compat_view(application, types, rel.relation));
        EXECUTE format('COMMENT ON VIEW %s IS %L', view, rel.description || run_tracker.compat_mark(application));
        FOR col IN SELECT * FROM run_tracker.compat_columns(application, types) c
                   WHERE c.relation = rel.relation AND c.name IS NOT NULL LOOP
            EXECUTE format('COMMENT ON COLUMN %s.%I IS %L', view, col.name, col.description);
        END LOOP;
        EXECUTE format('CREATE OR REPLACE FUNCTION %s() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS %L',
                       writer, run_tracker.compat_trigger(application, types, rel.relation));
        EXECUTE format('COMMENT ON FUNCTION %s() IS %L', writer,
                       format('Trigger of view %s: writes to run_tracker.%I.', view, rel.base) || run_tracker.compat_mark(application));
        EXECUTE format('CREATE OR REPLACE TRIGGER run_tracker_write INSTEAD OF INSERT OR UPDATE ON %s
                        FOR EACH ROW EXECUTE FUNCTION %s()', view, writer);
        EXECUTE format('CREATE OR REPLACE TRIGGER run_tracker_delete INSTEAD OF DELETE ON %s
                        FOR EACH ROW EXECUTE FUNCTION run_tracker.compat_delete(%s)', view,
                       (SELECT concat_ws(', ', quote_literal(rel.base),
                                         string_agg(format('%L, %L', CASE WHEN k.is_key THEN '' ELSE '+' END || c.target, c.name),
                                                    ', ' ORDER BY k.is_key DESC, c.n))
                        FROM run_tracker.compat_columns(application, types) c, LATERAL (SELECT c.name = ANY (rel.keys)) AS k (is_key)
                        WHERE c.relation = rel.relation
                          -- the table need not keep the key of the view unique
                          AND (k.is_key OR c.who = 'key' AND c.reads = 'r.' || c.target
                                           AND NOT run_tracker.compat_is_unique(application, types, rel.relation))));
        -- somebody else may have been quicker, and CREATE OR REPLACE leaves the owner as it is
        PERFORM run_tracker.compat_require_free(application, schema, 'view', rel.relation);
        PERFORM run_tracker.compat_require_free(application, schema, 'function', rel.relation || '_write');
        IF is_new THEN
            PERFORM run_tracker.compat_grant(view);
        END IF;
        made := made || view;
    END LOOP;

    FOR fun IN SELECT * FROM run_tracker.compat_extras(application, schema, types) LOOP
        PERFORM run_tracker.compat_require_free(application, schema, fun.kind, fun.name);
        is_new := NOT EXISTS (SELECT FROM run_tracker.compat_objects(application, schema) o
                              WHERE o.kind = fun.kind AND o.name = fun.name);
        EXECUTE fun.definition;
        IF fun.kind = 'function' THEN
            view := (SELECT p.oid::regprocedure::text FROM pg_proc p WHERE p.pronamespace = schema AND p.proname = fun.name);
            EXECUTE format('COMMENT ON FUNCTION %s IS %L', view, fun.description || run_tracker.compat_mark(application));
            IF is_new THEN
                EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO PUBLIC', view);
            END IF;
        ELSE
            view := format('%s.%I', schema, fun.name);
            EXECUTE format('COMMENT ON VIEW %s IS %L', view, fun.description || run_tracker.compat_mark(application));
            FOR col IN SELECT DISTINCT ON (a.attnum) a.attname AS name, c.description
                       FROM pg_attribute a JOIN run_tracker.compat_columns(application, types) c ON c.name = a.attname
                       WHERE a.attrelid = view::regclass AND a.attnum > 0 AND col_description(a.attrelid, a.attnum) IS NULL
                       ORDER BY a.attnum, c.n LOOP
                EXECUTE format('COMMENT ON COLUMN %s.%I IS %L', view, col.name, col.description);
            END LOOP;
            IF is_new THEN
                PERFORM run_tracker.compat_grant(view);
            END IF;
        END IF;
        PERFORM run_tracker.compat_require_free(application, schema, fun.kind, fun.name);
        made := made || view;
    END LOOP;
    RETURN made;
END
$function$;
COMMENT ON FUNCTION run_tracker.create_compat(text, regnamespace, jsonb, boolean) IS
'Makes the views and functions of an application (spar, iflow, ai_runs, spark or workflow) in a schema, under the names of the tables that it had, and returns their names. They belong to the caller, show everyone their own rows (security_invoker), and can be written like tables. Types of ids that come from the application are uuid for user_id and journal_entry_id, text for workflow_id and session_id, or what id_types says: uuid, text, bigint or integer. public_rows, for workflow only, lets everyone who may read runs see those without a user. Can be repeated: after an upgrade, say. Makes indexes, too, which waits for writers. 22023 for bad arguments, 42P07 or 42723 if a name is taken. For the owner of the tables.';

CREATE FUNCTION run_tracker.compat_types(application text, id_types jsonb) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    bad text;
BEGIN
    IF jsonb_typeof(COALESCE(id_types, '{}')) <> 'object' THEN
        RAISE EXCEPTION 'argument "id_types" must be a JSON object' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    SELECT t.key INTO bad FROM jsonb_each_text(id_types) t
    WHERE NOT EXISTS (SELECT FROM run_tracker.compat_id_types() d WHERE d.id = t.key)
       OR COALESCE(t.value, '') NOT IN ('uuid', 'text', 'bigint', 'integer')
    LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'argument "id_types" has a bad key or value'
            USING ERRCODE = 'invalid_parameter_value', DETAIL = format('The key is "%s".', left(bad, 100)),
                  HINT = 'Keys are user_id, journal_entry_id, workflow_id and session_id; values are uuid, text, bigint and integer.';
    END IF;
    RETURN (SELECT jsonb_object_agg(d.id, COALESCE(id_types ->> d.id, d.type)) FROM run_tracker.compat_id_types() d);
END
$$;
COMMENT ON FUNCTION run_tracker.compat_types(text, jsonb) IS
'Internal: the types of the ids that come from the application.';

CREATE FUNCTION run_tracker.compat_extras(application text, schema regnamespace, id_types jsonb)
RETURNS TABLE (kind text, name text, definition text, description text)
LANGUAGE plpgsql STRICT SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    extra record;
    id record;
    rel text;
BEGIN
    FOR extra IN EXECUTE format('SELECT * FROM run_tracker.%I()', 'compat_' || application || '_extras') LOOP
        definition := extra.definition;
        rel := substring(definition FROM '@columns of ([a-z_]+)@');
        IF rel IS NOT NULL THEN
            definition := replace(definition, format('@columns of %s@', rel), run_tracker.compat_list(application, id_types, rel));
        END IF;
        definition := replace(definition, '@read_user_id@', run_tracker.compat_id('r.user_id', id_types ->> 'user_id'));
        FOR id IN SELECT * FROM jsonb_each_text(id_types) LOOP
            definition := replace(definition, '@' || id.key || '@', id.value);
        END LOOP;
        definition := replace(replace(definition, '@schema_text@', quote_literal(schema)), '@schema@', schema::text);
        kind := extra.kind;
        name := extra.name;
        description := extra.description;
        RETURN NEXT;
    END LOOP;
END
$$;
COMMENT ON FUNCTION run_tracker.compat_extras(text, regnamespace, jsonb) IS
'Internal: functions, and views that need no trigger, of an application. In their definitions @schema@, the names of types of ids (@user_id@) and "@columns of" a view, over its table r, are replaced.';

CREATE FUNCTION run_tracker.compat_indexes(application text, id_types jsonb)
RETURNS TABLE (kind text, name text, definition text, applications text[])
LANGUAGE sql STRICT SET search_path = pg_catalog, pg_temp
AS $$
    SELECT 'INDEX', i.name, format('CREATE INDEX IF NOT EXISTS %I ON run_tracker.', i.name) || i.definition, i.applications
    FROM (VALUES
        -- a change of status makes an entry here: that is the price of finding what is stuck by the words of an application
        ('runs_open_created_at_idx', 'runs (created_at) WHERE status IN (''pending'', ''processing'', ''analyzing'',
          ''documentation_ready'', ''generating'', ''running'', ''queued'', ''building'')',
         '{spar,iflow,spark,workflow}'::text[]),
        ('runs_workflow_status_idx', 'runs (workflow_id, status, created_at DESC) WHERE workflow_id IS NOT NULL', '{workflow}'),
        ('runs_visual_idx', 'runs (user_id, created_at DESC, run_id DESC)
          WHERE COALESCE(settings ->> ''visual_streaming_enabled'' = ''true'', false)', '{workflow}'),
        ('runs_build_session_idx', 'runs ((' || run_tracker.compat_id('session_id', 'uuid')
          || '), created_at DESC) WHERE lifecycle = ''build''', '{spark}'),
        ('runs_build_queue_idx', 'runs (priority DESC, created_at) WHERE lifecycle = ''build'' AND status = ''queued''', '{spark}'),
        ('usage_records_session_id_idx', 'usage_records (session_id, used_at DESC) WHERE session_id IS NOT NULL', '{spark}'),
        ('artifacts_session_id_idx', 'artifacts (session_id, created_at DESC) WHERE session_id IS NOT NULL', '{spark}'),
        ('artifacts_artifact_id_idx', 'artifacts (artifact_id)', '{iflow,spark}'),
        ('retrievals_retrieval_id_idx', 'retrievals (retrieval_id)', '{iflow}'),
        ('logs_log_id_idx', 'logs (log_id)', '{iflow}')) AS i (name, definition, applications)
    WHERE $1 = ANY (i.applications)
    UNION ALL
    -- ids of a type that the application has chosen
    SELECT k.kind, k.name,
           CASE k.kind
               WHEN 'INDEX' THEN format('CREATE INDEX IF NOT EXISTS %I ON run_tracker.%s ((%s), %s) WHERE (%3$s) IS NOT NULL', k.name,
                                        i.tab, run_tracker.compat_id(i.col, t.type), i.more)
               -- that the id follows from what the policy compares: else a page of a user's is thought to be all that there is
               ELSE format('CREATE STATISTICS IF NOT EXISTS run_tracker.%I (dependencies) ON %s, (%s) FROM run_tracker.%s', k.name,
                           i.col, run_tracker.compat_id(i.col, t.type), i.tab) END,
           i.applications
    FROM (VALUES
        ('runs_user', 'runs', 'user_id', 'created_at DESC, run_id DESC', 'user_id', '{spar,iflow,ai_runs,spark,workflow}'::text[]),
        ('sessions_user', 'sessions', 'user_id', 'created_at DESC', 'user_id', '{spark}'),
        ('usage_records_user', 'usage_records', 'user_id', 'used_at DESC', 'user_id', '{spark}'),
        ('runs_subject', 'runs', 'subject_id', 'created_at DESC', 'journal_entry_id', '{spar}'),
        ('runs_workflow', 'runs', 'workflow_id', 'status, created_at DESC', 'workflow_id', '{workflow}'),
        ('runs_session', 'runs', 'session_id', 'created_at DESC', 'session_id', '{workflow}'),
        ('tasks_user', 'tasks', 'user_id', 'created_at DESC', 'user_id', '{ai_runs}'))
            AS i (name, tab, col, more, id, applications),
         unnest('{uuid,text,bigint,integer}'::text[]) AS t (type),
         LATERAL (VALUES ('INDEX', format('%s_%s_idx', i.name, t.type)), ('STATISTICS', format('%s_%s_stat', i.name, t.type))) AS k (kind, name)
    WHERE $1 = ANY (i.applications) AND t.type = COALESCE($2 ->> i.id, t.type) AND (i.id = 'user_id' OR t.type <> 'text' AND k.kind = 'INDEX')
$$;
COMMENT ON FUNCTION run_tracker.compat_indexes(text, jsonb) IS
'Internal: the indexes, and statistics, that only views of applications need, and which of them do; for ids of all types if id_types is empty.';

CREATE FUNCTION run_tracker.compat_public_rows(application text, visible boolean) RETURNS void
LANGUAGE plpgsql STRICT SET search_path = pg_catalog, pg_temp SET client_min_messages = warning
AS $$
DECLARE
    tab regclass;
BEGIN
    IF visible AND application <> 'workflow' THEN
        RAISE EXCEPTION 'argument "public_rows" is for application "workflow" only' USING ERRCODE = 'invalid_parameter_value';
    ELSIF application <> 'workflow' THEN
        RETURN;
    END IF;
    -- what is under way is looked up in open_runs
    FOREACH tab IN ARRAY '{run_tracker.runs,run_tracker.open_runs}'::regclass[] LOOP
        IF visible AND NOT run_tracker.has_policy(tab, 'public_rows') THEN
            EXECUTE format('CREATE POLICY public_rows ON %s FOR SELECT USING (user_id = '''' AND lifecycle = ''workflow'')', tab);
            EXECUTE format('COMMENT ON POLICY public_rows ON %s IS %L', tab,
                           'Whoever may read runs sees workflow executions without a user: create_compat() was told so.');
        ELSIF visible IS NOT TRUE AND run_tracker.has_policy(tab, 'public_rows') THEN
            EXECUTE format('DROP POLICY public_rows ON %s', tab);
        END IF;
    END LOOP;
END
$$;
COMMENT ON FUNCTION run_tracker.compat_public_rows(text, boolean) IS
'Internal: makes or drops the policies behind public_rows of create_compat().';

CREATE FUNCTION run_tracker.drop_compat(application text, schema regnamespace) RETURNS text[]
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET client_min_messages = warning
AS $$
DECLARE
    readers text[];
    views text[];
    writers text[];
    remaining text[];
    index record;
BEGIN
    PERFORM run_tracker.compat_check(application, schema);
    -- functions that return rows of the views go before them, triggers after them
    SELECT array_agg(o.identity ORDER BY o.identity) FILTER (WHERE p.prorettype <> 'trigger'::regtype),
           array_agg(o.identity ORDER BY o.identity) FILTER (WHERE o.kind = 'view'),
           array_agg(o.identity ORDER BY o.identity) FILTER (WHERE p.prorettype = 'trigger'::regtype)
    INTO readers, views, writers
    FROM run_tracker.compat_objects(application, schema) o
         LEFT JOIN pg_proc p ON p.oid = CASE WHEN o.kind = 'function' THEN to_regprocedure(o.identity) END;
    IF readers IS NOT NULL THEN
        EXECUTE format('DROP FUNCTION %s', array_to_string(readers, ', '));
    END IF;
    IF views IS NOT NULL THEN
        EXECUTE format('DROP VIEW %s', array_to_string(views, ', '));
    END IF;
    IF writers IS NOT NULL THEN
        EXECUTE format('DROP FUNCTION %s', array_to_string(writers, ', '));
    END IF;

    -- what only these views needed
    SELECT COALESCE(array_agg(a), '{}') INTO remaining
    FROM unnest('{spar,iflow,ai_runs,spark,workflow}'::text[]) a
    WHERE EXISTS (SELECT FROM pg_namespace n, run_tracker.compat_objects(a, n.oid)
                  WHERE n.nspname !~ '^(pg_|(information_schema|run_tracker)$)');
    FOR index IN
        SELECT i.kind, i.name FROM run_tracker.compat_indexes(application, '{}') i
        WHERE NOT i.applications && remaining
          -- what a superuser has made for the owner of the tables
          AND NOT EXISTS (SELECT FROM pg_statistic_ext s WHERE s.stxnamespace = 'run_tracker'::regnamespace
                            AND s.stxname = i.name AND NOT pg_has_role(s.stxowner, 'USAGE'))
    LOOP
        EXECUTE format('DROP %s IF EXISTS run_tracker.%I', index.kind, index.name);
    END LOOP;
    IF application <> ALL (remaining) THEN
        PERFORM run_tracker.compat_public_rows(application, false);
    END IF;
    RETURN readers || views || writers;
END
$$;
COMMENT ON FUNCTION run_tracker.drop_compat(text, regnamespace) IS
'Drops what create_compat() made for an application in a schema, and returns the names: no row is lost, the tables are where they were. 2BP01 if something of the user''s depends on it. For the owner of the tables.';
