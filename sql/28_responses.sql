-- Responses that arrive in pieces.

CREATE FUNCTION run_tracker.append_response(task_id uuid, delta text, attempt integer DEFAULT NULL) RETURNS bigint
LANGUAGE c SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'run_tracker_append_response';
COMMENT ON FUNCTION run_tracker.append_response(uuid, text, integer) IS
'Appends a piece to the response of an open task, and returns how many characters the response has then. It costs the same however long the response is. The first piece starts the task (as streaming, if its lifecycle has that status) and is the time of the first token. P0002 if there is no such task, 55000 if it is finished, RT003 if attempt is given and not the current one, 22023 for a null, 54000 beyond run_tracker.max_payload.';

CREATE FUNCTION run_tracker.task_response(task_id uuid) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    response text;
BEGIN
    PERFORM run_tracker.require_tables();
    SELECT CASE WHEN t.finished_at IS NOT NULL THEN t.response
                ELSE t.response || COALESCE(
                    (SELECT string_agg(c.content, '' ORDER BY c.start_offset) FROM run_tracker.response_chunks c
                     WHERE c.run_id = t.run_id AND c.task_id = t.task_id), '') END
    INTO response FROM run_tracker.tasks t WHERE t.task_id = $1;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'task not found'
            USING ERRCODE = 'no_data_found', DETAIL = format('There is no task %s that you may see.', $1);
    END IF;
    RETURN response;
END
$$;
COMMENT ON FUNCTION run_tracker.task_response(uuid) IS
'The response of a task as far as it has arrived, pieces appended by append_response() included; null if there is none yet. P0002 if there is no such task.';

-- in PL/pgSQL, to look at the arguments and for the tables first; its results cannot be named like its arguments
CREATE FUNCTION run_tracker.read_response_from(of_task uuid, from_offset bigint)
RETURNS TABLE (content text, next_offset bigint, status text, finished boolean)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    task record;
    first bigint;
    piece text;
BEGIN
    PERFORM run_tracker.require_tables();
    IF from_offset IS NULL OR from_offset < 0 THEN
        RAISE EXCEPTION 'argument "after" must be an offset that is not negative'
            USING ERRCODE = 'invalid_parameter_value',
                  HINT = 'It is 0, or next_offset of the last call.';
    END IF;
    SELECT t.run_id, t.status, t.finished_at IS NOT NULL AS finished INTO task
    FROM run_tracker.tasks t WHERE t.task_id = of_task;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'task not found'
            USING ERRCODE = 'no_data_found', DETAIL = format('There is no task %s that you may see.', of_task);
    END IF;
    -- from the piece that the offset is in; what came before it need not be read
    IF NOT task.finished THEN
        SELECT c.start_offset INTO first FROM run_tracker.response_chunks c
        WHERE c.run_id = task.run_id AND c.task_id = of_task AND c.start_offset <= from_offset
        ORDER BY c.start_offset DESC LIMIT 1;
    END IF;
    IF first IS NULL THEN
        first := 0;
        piece := run_tracker.task_response(of_task);
    ELSE
        SELECT string_agg(c.content, '' ORDER BY c.start_offset) INTO piece FROM run_tracker.response_chunks c
        WHERE c.run_id = task.run_id AND c.task_id = of_task AND c.start_offset >= first;
    END IF;
    content := COALESCE(substr(piece, (LEAST(from_offset - first, length(piece)) + 1)::integer), '');
    next_offset := first + COALESCE(length(piece), 0);
    status := task.status;
    finished := task.finished;
    RETURN NEXT;
END
$$;
COMMENT ON FUNCTION run_tracker.read_response_from(uuid, bigint) IS
'What read_response() runs: the same with arguments of other names.';

CREATE FUNCTION run_tracker.read_response(task_id uuid, after bigint DEFAULT 0)
RETURNS TABLE (content text, next_offset bigint, status text, finished boolean)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$ SELECT * FROM run_tracker.read_response_from($1, $2) $$;
COMMENT ON FUNCTION run_tracker.read_response(uuid, bigint) IS
'What has arrived of the response of a task after that many characters, and the offset to go on from: a reader that was cut off resumes there. Once finished is true, nothing more will come. A next_offset below after means that the response was replaced by a shorter one: read it again from 0. P0002 if there is no such task, 22023 for a negative offset.';

CREATE FUNCTION run_tracker.install_responses() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET client_min_messages = warning
AS $install$
BEGIN
    IF to_regclass('run_tracker.response_chunks') IS NULL THEN
        -- no foreign key, whose check would write to the run for every piece: the task's triggers delete these rows
        CREATE TABLE run_tracker.response_chunks (
            run_id uuid NOT NULL,
            task_id uuid NOT NULL,
            user_id text NOT NULL,
            start_offset bigint NOT NULL,
            end_bytes bigint NOT NULL,
            content text NOT NULL,
            created_at timestamptz NOT NULL,
            CONSTRAINT response_chunks_pkey PRIMARY KEY (run_id, task_id, start_offset)
        ) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);
        ALTER TABLE run_tracker.response_chunks ENABLE ROW LEVEL SECURITY;
        PERFORM run_tracker.revoke_all('run_tracker.response_chunks');

        COMMENT ON TABLE run_tracker.response_chunks IS
        'Pieces of responses that are still arriving, after what tasks.response has. Written by append_response() only; when the task finishes, they go into tasks.response.';
        COMMENT ON COLUMN run_tracker.response_chunks.run_id IS 'Run.';
        COMMENT ON COLUMN run_tracker.response_chunks.task_id IS 'Task whose response it is.';
        COMMENT ON COLUMN run_tracker.response_chunks.user_id IS 'Owner of the run.';
        COMMENT ON COLUMN run_tracker.response_chunks.start_offset IS 'Characters of the response before this piece.';
        COMMENT ON COLUMN run_tracker.response_chunks.end_bytes IS 'Bytes of the response up to the end of this piece.';
        COMMENT ON COLUMN run_tracker.response_chunks.content IS 'The piece.';
        COMMENT ON COLUMN run_tracker.response_chunks.created_at IS 'When it arrived (wall clock).';
    END IF;
    PERFORM run_tracker.install_policy('run_tracker.response_chunks');
END
$install$;
COMMENT ON FUNCTION run_tracker.install_responses() IS 'Internal: the part of install() for responses that arrive in pieces.';
