-- Chat runs and their tasks, under the names of their tables.

CREATE FUNCTION run_tracker.compat_ai_runs_relations()
RETURNS TABLE (relation text, base text, filter text, keys text[], repeatable boolean, before_insert text,
               after_insert text, before_update text, after_update text, description text)
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $relations$
    VALUES
    ('ai_runs', 'runs', 'r.lifecycle = ''conversation''', '{id}'::text[], false,
     $$        new.messages := COALESCE(new.messages, '[]');$$,
     $$            PERFORM run_tracker.write_messages(result.id, '[]', new.messages);$$,
     $$        IF new.messages IS NULL THEN
            RAISE EXCEPTION 'column "messages" of view "%" must not be null', TG_TABLE_NAME
                USING ERRCODE = 'not_null_violation', COLUMN = 'messages', TABLE = TG_TABLE_NAME, SCHEMA = TG_TABLE_SCHEMA;
        END IF;$$,
     $$        -- it may be deleted meanwhile: then there is nothing to update
        PERFORM FROM run_tracker.runs r WHERE r.run_id = old.id FOR KEY SHARE;
        IF NOT FOUND THEN
            RETURN NULL;
        END IF;
        PERFORM run_tracker.write_messages(old.id, old.messages, new.messages);$$,
     'Conversations: runs of lifecycle conversation. messages || array appends at the same cost in WAL however long the conversation is; any other array edits it.'),
    ('ai_tasks', 'tasks',
     -- not a join: the newest tasks of a user are found without looking at all conversations
     '(SELECT c.lifecycle = ''conversation'' FROM run_tracker.runs c WHERE c.run_id = r.run_id)',
     '{task_id}', false, NULL, NULL,
     format($piece$        IF new.response_text IS DISTINCT FROM old.response_text AND old.status = 'streaming' AND old.response_text <> '' THEN
            IF new.status = 'streaming' AND new.run_id = old.run_id AND starts_with(new.response_text, old.response_text) THEN
                -- the accumulated text: only what has arrived since is written
                PERFORM run_tracker.append_response(old.task_id, substr(new.response_text, length(old.response_text) + 1));
                IF (SELECT %1$s FROM run_tracker.tasks r WHERE r.task_id = old.task_id) IS DISTINCT FROM new.response_text THEN
                    RAISE EXCEPTION 'could not update view "%%" due to concurrent update', TG_TABLE_NAME
                        USING ERRCODE = 'serialization_failure', TABLE = TG_TABLE_NAME, SCHEMA = TG_TABLE_SCHEMA,
                              HINT = 'Repeat the statement.';
                END IF;
                old.response_text := new.response_text;
            ELSE
                -- back to its beginning: pieces are forgotten only when that changes
                UPDATE run_tracker.tasks r SET response = NULL
                WHERE r.task_id = old.task_id AND r.response = new.response_text AND %1$s = old.response_text;
                IF FOUND THEN
                    old.response_text := NULL;
                END IF;
            END IF;
        END IF;$piece$, run_tracker.compat_response()),
     NULL, 'Tasks of conversations. Saving the accumulated text of a streamed answer writes only what has arrived since.')
$relations$;
COMMENT ON FUNCTION run_tracker.compat_ai_runs_relations() IS 'Internal: see compat_relations().';

CREATE FUNCTION run_tracker.compat_response() RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT '(r.response || CASE WHEN r.finished_at IS NULL THEN COALESCE((SELECT string_agg(c.content, '''' ORDER BY c.start_offset) '
           'FROM run_tracker.response_chunks c WHERE c.run_id = r.run_id AND c.task_id = r.task_id), '''') ELSE '''' END)'
$$;
COMMENT ON FUNCTION run_tracker.compat_response() IS
'Internal: the expression that shows the response of task r as far as it has arrived, as task_response() does.';

CREATE FUNCTION run_tracker.compat_total(expression text) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$ SELECT format('(SELECT %s FROM run_tracker.run_totals t WHERE t.run_id = r.run_id)', expression) $$;
COMMENT ON FUNCTION run_tracker.compat_total(text) IS
'Internal: an aggregate over the totals of run r as an expression: readers that do not ask for it do not pay for it.';

CREATE FUNCTION run_tracker.compat_ai_runs_columns()
RETURNS TABLE (relation text, name text, type text, reads text, target text, writes text, who text, description text)
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT 'ai_runs', c.* FROM (VALUES
        (NULL, 'text', NULL, 'lifecycle', '''conversation''', 'constant', NULL),
        ('id', 'uuid', NULL, 'run_id', NULL, 'key', 'Id of the run; made up if not given.'),
        ('user_id', '@user_id', NULL, 'user_id', NULL, 'key', 'Owner; null if there is none.'),
        ('name', 'text', NULL, 'name', NULL, 'client', 'Name; made of the first message of the user if there is none.'),
        ('messages', 'jsonb', '(' || run_tracker.conversation_query() || ')', NULL, NULL, 'special',
         'The conversation: an array of objects, which are read as they were written; each has a role.'),
        ('settings', 'jsonb', 'COALESCE(r.settings, ''{}'')', 'settings', NULL, 'client', 'Settings.'),
        ('variable_values', 'jsonb', 'COALESCE(r.variables, ''{}'')', 'variables', NULL, 'client', 'Values of variables.'),
        ('message_count', 'integer', run_tracker.compat_total('COALESCE(sum(t.message_count), 0)'), NULL, NULL, 'computed',
         'Number of messages; computed.'),
        ('task_count', 'integer', run_tracker.compat_total('COALESCE(sum(t.task_count), 0)'), NULL, NULL, 'computed',
         'Number of completed tasks; computed.'),
        ('total_tokens', 'bigint', run_tracker.compat_total('COALESCE(sum(t.total_tokens), 0)'), NULL, NULL, 'computed',
         'Sum of tokens of finished tasks; computed.'),
        ('total_cost', 'numeric', run_tracker.compat_total('COALESCE(sum(t.total_cost), 0)'), NULL, NULL, 'computed',
         'Sum of costs of finished tasks; computed.'),
        ('last_message_at', 'timestamptz', run_tracker.compat_total('max(t.last_message_at)'), NULL, NULL, 'computed',
         'When a message was added last, or a task finished; computed.'),
        ('created_at', 'timestamptz', NULL, 'created_at', NULL, 'fact', 'When the run was created; filled in.'),
        ('updated_at', 'timestamptz', run_tracker.compat_total('GREATEST(r.updated_at, max(t.last_message_at))'),
         'updated_at', NULL, 'fact', 'When the run was changed, a message added or a task finished last; filled in.'))
        AS c (name, type, reads, target, writes, who, description)
    UNION ALL
    SELECT 'ai_tasks', c.* FROM (VALUES
        ('task_id', 'uuid', NULL, 'task_id', NULL, 'key', 'Id of the task; made up if not given.'),
        ('run_id', 'uuid', NULL, 'run_id', NULL, 'client', 'Run that the task belongs to; can be changed to another one of the same user.'),
        ('user_id', '@user_id', NULL, 'user_id', NULL, 'key', 'Owner of the run; filled in.'),
        ('service', 'text', NULL, 'service', NULL, 'client', 'Service that does the task.'),
        ('task_name', 'text', NULL, 'name', NULL, 'client', 'Name.'),
        ('model', 'text', NULL, 'model', NULL, 'client', 'Model.'),
        ('status', 'text', 'CASE r.status WHEN ''running'' THEN ''streaming'' WHEN ''cancelled'' THEN ''failed'' WHEN ''timeout'' THEN ''failed'' ELSE r.status END',
         'status', NULL, 'status', 'pending, streaming, completed or failed.'),
        ('request_data', 'jsonb', NULL, 'request', NULL, 'client', 'What was asked.'),
        ('response_text', 'text', run_tracker.compat_response(), 'response', NULL, 'client', 'The answer, as far as it has arrived.'),
        ('tokens_input', 'bigint', NULL, 'input_tokens', NULL, 'client', 'Tokens of the request.'),
        ('tokens_output', 'bigint', NULL, 'output_tokens', NULL, 'client', 'Tokens of the answer.'),
        ('tokens_total', 'bigint', NULL, 'total_tokens', NULL, 'client', 'Tokens in all.'),
        ('cost', 'numeric', NULL, 'cost', NULL, 'client', 'Cost.'),
        ('time_to_first_token', 'bigint', NULL, 'time_to_first_token_ms', NULL, 'client', 'Time to the first token in ms.'),
        ('total_time', 'bigint', NULL, 'duration_ms', NULL, 'fact', 'Duration in ms, once finished; computed.'),
        ('error_message', 'text', NULL, 'error', NULL, 'client', 'Why the task failed.'),
        ('created_at', 'timestamptz', NULL, 'created_at', NULL, 'fact', 'When the task was created; filled in.'),
        ('updated_at', 'timestamptz', NULL, 'updated_at', NULL, 'fact', 'When the row was changed last; filled in.'),
        ('completed_at', 'timestamptz', NULL, 'finished_at', NULL, 'fact', 'When the task finished, however; filled in.'))
        AS c (name, type, reads, target, writes, who, description)
$$;
COMMENT ON FUNCTION run_tracker.compat_ai_runs_columns() IS 'Internal: see compat_columns().';

CREATE FUNCTION run_tracker.compat_ai_runs_extras()
RETURNS TABLE (kind text, name text, definition text, description text)
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$ SELECT NULL::text, NULL::text, NULL::text, NULL::text WHERE false $$;
COMMENT ON FUNCTION run_tracker.compat_ai_runs_extras() IS 'Internal: see compat_extras().';
