-- Messages of conversations.

CREATE FUNCTION run_tracker.messages_before() RETURNS trigger
LANGUAGE c
AS 'MODULE_PATHNAME', 'run_tracker_messages_before';
COMMENT ON FUNCTION run_tracker.messages_before() IS
'Trigger of run_tracker.messages: fills in owner, number and time, and checks role, content and sizes.';

CREATE FUNCTION run_tracker.messages_after() RETURNS trigger
LANGUAGE c
AS 'MODULE_PATHNAME', 'run_tracker_messages_after';
COMMENT ON FUNCTION run_tracker.messages_after() IS
'Trigger of run_tracker.messages: keeps the totals of the runs, and names runs after their first message.';

CREATE FUNCTION run_tracker.add_message(run_id uuid, role text, content text DEFAULT NULL,
    task_id uuid DEFAULT NULL, parts jsonb DEFAULT NULL, name text DEFAULT NULL, metadata jsonb DEFAULT NULL)
RETURNS bigint
LANGUAGE c SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'run_tracker_add_message';
COMMENT ON FUNCTION run_tracker.add_message(uuid, text, text, uuid, jsonb, text, jsonb) IS
'Appends a message to the conversation of a run and returns its number there. It costs the same however long the conversation is. P0002 if there is no such run, 22023 or 23514 for bad arguments.';

CREATE FUNCTION run_tracker.run_messages(run_id uuid) RETURNS jsonb
LANGUAGE c STABLE SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'run_tracker_run_messages';
COMMENT ON FUNCTION run_tracker.run_messages(uuid) IS
'The conversation of a run, oldest message first: [{role, content, timestamp, taskId, metadata {tokens, cost, timeToFirstToken, totalTime, ...}}]; name and parts where a message has them. The numbers of an assistant''s message are those of its task, times in ms. P0002 if there is no such run.';

CREATE FUNCTION run_tracker.conversation_query() RETURNS text
LANGUAGE c IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'run_tracker_conversation_query';
COMMENT ON FUNCTION run_tracker.conversation_query() IS
'Internal: the query that gives the messages of run r.run_id as a JSON array, as run_messages() does, in built-in functions only: for a view.';

CREATE FUNCTION run_tracker.write_messages(run_id uuid, old jsonb, new jsonb) RETURNS bigint
LANGUAGE c SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'run_tracker_write_messages';
COMMENT ON FUNCTION run_tracker.write_messages(uuid, jsonb, jsonb) IS
'Writes a conversation that was read as an array, as run_messages() gives it, and changed: if new begins with all of old, the rest is appended, without waiting for others who append; else the messages that differ are written over, those that are missing deleted, and what others have appended meanwhile stays. Returns how many messages were added, changed and deleted. Each element is an object with a role, which is read back as it was written. 40001 if somebody else has edited the conversation since it was read, P0002 if there is no such run, 22023, 23514 or 54000 if an element can be no message; the detail says which one, counted from 0.';

CREATE FUNCTION run_tracker.install_messages() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET client_min_messages = warning
AS $install$
BEGIN
    IF to_regclass('run_tracker.messages') IS NULL THEN
        CREATE TABLE run_tracker.messages (
            run_id uuid NOT NULL,
            seq bigint NOT NULL,
            user_id text NOT NULL,
            task_id uuid,
            role text NOT NULL,
            name text,
            content text,
            parts jsonb,
            metadata jsonb,
            created_at timestamptz NOT NULL,
            CONSTRAINT messages_pkey PRIMARY KEY (run_id, seq),
            CONSTRAINT messages_run_id_user_id_fkey FOREIGN KEY (run_id, user_id)
                REFERENCES run_tracker.runs (run_id, user_id) ON DELETE CASCADE,
            CONSTRAINT messages_role_check CHECK (role <> ''),
            CONSTRAINT messages_content_check CHECK (content IS NOT NULL OR parts IS NOT NULL)
        );
        ALTER TABLE run_tracker.messages ENABLE ROW LEVEL SECURITY;
        PERFORM run_tracker.revoke_all('run_tracker.messages');

        COMMENT ON TABLE run_tracker.messages IS 'Messages of conversations, one row each.';
        COMMENT ON COLUMN run_tracker.messages.run_id IS 'Run that the message belongs to.';
        COMMENT ON COLUMN run_tracker.messages.seq IS 'Number within the run, ascending; filled in.';
        COMMENT ON COLUMN run_tracker.messages.user_id IS 'Owner of the run; filled in.';
        COMMENT ON COLUMN run_tracker.messages.task_id IS 'Task that asked for the message or made it; not checked.';
        COMMENT ON COLUMN run_tracker.messages.role IS 'Who speaks: system, user, assistant, tool, ...';
        COMMENT ON COLUMN run_tracker.messages.name IS 'Name of the speaker, such as that of a tool.';
        COMMENT ON COLUMN run_tracker.messages.content IS 'Text of the message.';
        COMMENT ON COLUMN run_tracker.messages.parts IS
        'Typed parts of a multimodal or tool message, a JSON array.';
        COMMENT ON COLUMN run_tracker.messages.metadata IS 'Anything else, a JSON object.';
        COMMENT ON COLUMN run_tracker.messages.created_at IS 'When the message was added (wall clock); filled in.';
    END IF;

    PERFORM run_tracker.install_triggers('run_tracker.messages');
    PERFORM run_tracker.install_policy('run_tracker.messages');
END
$install$;
COMMENT ON FUNCTION run_tracker.install_messages() IS 'Internal: the part of install() for messages.';
