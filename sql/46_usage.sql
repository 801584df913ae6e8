-- Usage: what users spend, and what they have reserved for calls that are under way.

CREATE FUNCTION run_tracker.usage_records_before() RETURNS trigger
LANGUAGE c
AS 'MODULE_PATHNAME', 'run_tracker_usage_records_before';
COMMENT ON FUNCTION run_tracker.usage_records_before() IS
'Trigger of run_tracker.usage_records: fills in user, id and time, and checks numbers and sizes.';

CREATE FUNCTION run_tracker.usage_records_after() RETURNS trigger
LANGUAGE c
AS 'MODULE_PATHNAME', 'run_tracker_usage_records_after';
COMMENT ON FUNCTION run_tracker.usage_records_after() IS
'Trigger of run_tracker.usage_records: counts what was recorded, or the difference that a correction makes.';

CREATE FUNCTION run_tracker.record_usage(user_id text DEFAULT NULL, tokens bigint DEFAULT NULL, cost numeric DEFAULT 0,
    requests integer DEFAULT 1, input_tokens bigint DEFAULT NULL, output_tokens bigint DEFAULT NULL,
    provider text DEFAULT NULL, model text DEFAULT NULL, endpoint text DEFAULT NULL, session_id uuid DEFAULT NULL,
    run_id uuid DEFAULT NULL, metadata jsonb DEFAULT NULL, usage_id uuid DEFAULT NULL)
RETURNS uuid
LANGUAGE c SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'run_tracker_record_usage';
COMMENT ON FUNCTION run_tracker.record_usage(text, bigint, numeric, integer, bigint, bigint, text, text, text, uuid, uuid,
    jsonb, uuid) IS
'Records what a call outside of any task has used, and returns the id of the entry: tokens (the sum of input and output tokens unless given), cost, and requests, which is 0 where log_request() has counted the request. Tasks are counted when they finish: do not record them. With a usage_id it can be repeated: an entry of that id of the same user is returned as it is, one of somebody else is 23505. 42501 for another user unless called by a service, 22023 without a user, 23514 for numbers that are negative or too large.';

CREATE FUNCTION run_tracker.log_request(session_id uuid DEFAULT NULL, endpoint text DEFAULT NULL,
    metadata jsonb DEFAULT NULL, user_id text DEFAULT NULL, request_id uuid DEFAULT NULL)
RETURNS uuid
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    the_user text := user_id;
    the_id uuid := COALESCE(request_id, run_tracker.uuidv7());
BEGIN
    PERFORM run_tracker.require_tables();
    IF session_id IS NOT NULL THEN
        SELECT s.user_id INTO the_user FROM run_tracker.sessions s WHERE s.session_id = log_request.session_id;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'session not found'
                USING ERRCODE = 'no_data_found', DETAIL = format('There is no session %s that you may see.', session_id);
        ELSIF the_user <> user_id THEN
            RAISE EXCEPTION 'session is another user''s'
                USING ERRCODE = 'invalid_parameter_value', DETAIL = format('Session %s is not one of user "%s".', session_id, user_id);
        END IF;
    END IF;
    the_user := COALESCE(the_user, run_tracker.current_user_id());
    IF the_user IS NULL OR octet_length(the_user) NOT BETWEEN 1 AND 512 THEN
        RAISE EXCEPTION 'argument "user_id" must name a user'
            USING ERRCODE = 'invalid_parameter_value', HINT = 'A user id has 1 to 512 bytes; it may be left out where there is a current user.';
    ELSIF NOT run_tracker.is_service() AND the_user IS DISTINCT FROM run_tracker.current_user_id() THEN
        RAISE EXCEPTION 'only services may act for other users'
            USING ERRCODE = 'insufficient_privilege', DETAIL = format('The user is "%s".', the_user);
    END IF;
    INSERT INTO run_tracker.usage_records (usage_id, user_id, source, session_id, endpoint, metadata, total_tokens)
    VALUES (the_id, the_user, 'request', log_request.session_id, log_request.endpoint, log_request.metadata, 0)
    ON CONFLICT ON CONSTRAINT usage_records_pkey DO NOTHING;
    IF NOT FOUND AND NOT EXISTS (SELECT FROM run_tracker.usage_records u WHERE u.usage_id = the_id AND u.user_id = the_user) THEN
        RAISE EXCEPTION 'request id is taken'
            USING ERRCODE = 'unique_violation', DETAIL = format('There is another entry %s.', the_id);
    END IF;
    RETURN the_id;
END
$$;
COMMENT ON FUNCTION run_tracker.log_request(uuid, text, jsonb, text, uuid) IS
'Logs a request of a session to an endpoint (for function calls: function:NAME), and returns its id: an entry of usage that counts as one request, without tokens. A session that is given must be one that the caller sees (P0002), and its user is that of the request. Otherwise as record_usage(). It refuses nothing because of a quota: reserve_usage() does.';

CREATE FUNCTION run_tracker.reserve_usage(user_id text DEFAULT NULL, tokens bigint DEFAULT 0, cost numeric DEFAULT 0,
    ttl interval DEFAULT '10 minutes', requests integer DEFAULT 1)
RETURNS uuid
LANGUAGE c SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'run_tracker_reserve_usage';
COMMENT ON FUNCTION run_tracker.reserve_usage(text, bigint, numeric, interval, integer) IS
'Reserves tokens, cost and requests of a user''s quotas for a call, and returns the id of the reservation: give it to the task, which settles it when it finishes, or call settle_usage() or release_usage(). It ends by itself after ttl. RT004 if what is used, reserved and asked for exceeds a quota: exact, however many ask at the same time. Reservations of one user wait for each other until the end of the transaction: let it be a short one. 42501 for another user unless called by a service, 22023 for bad arguments.';

CREATE FUNCTION run_tracker.settle_usage(reservation_id uuid, tokens bigint DEFAULT NULL, cost numeric DEFAULT NULL,
    requests integer DEFAULT NULL, input_tokens bigint DEFAULT NULL, output_tokens bigint DEFAULT NULL,
    provider text DEFAULT NULL, model text DEFAULT NULL, endpoint text DEFAULT NULL, session_id uuid DEFAULT NULL,
    run_id uuid DEFAULT NULL, metadata jsonb DEFAULT NULL)
RETURNS boolean
LANGUAGE c SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'run_tracker_settle_usage';
COMMENT ON FUNCTION run_tracker.settle_usage(uuid, bigint, numeric, integer, bigint, bigint, text, text, text, uuid, uuid,
    jsonb) IS
'Ends a reservation with what the call really used: it is recorded as usage (tokens, cost and requests that are not given count as reserved), and what was reserved is free again, both at once. True if it did; false if it was settled before. One that has expired is settled all the same: what was spent counts. P0002 if there is no such reservation of the caller''s, 55000 if it was released.';

CREATE FUNCTION run_tracker.release_usage(reservation_id uuid) RETURNS boolean
LANGUAGE c SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'run_tracker_release_usage';
COMMENT ON FUNCTION run_tracker.release_usage(uuid) IS
'Ends a reservation of a call that was not made: nothing is recorded. True if it did; false if it had ended before. P0002 if there is no such reservation of the caller''s.';

CREATE FUNCTION run_tracker.purge_usage(older_than interval DEFAULT '90 days', max_rows integer DEFAULT 10000)
RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    before timestamptz;
    deleted bigint;
    forgotten bigint;
BEGIN
    PERFORM run_tracker.require_tables();
    before := run_tracker.purge_before(older_than, max_rows, 'max_rows');
    IF NOT run_tracker.is_service() THEN
        RAISE EXCEPTION 'only services may delete usage' USING ERRCODE = 'insufficient_privilege';
    END IF;
    -- first what lock_tables() locks first
    forgotten := run_tracker.forget_reservations(before, max_rows);
    DELETE FROM run_tracker.usage_records u
    WHERE u.usage_id = ANY (ARRAY(
        SELECT o.usage_id FROM run_tracker.usage_records o WHERE o.used_at < before
        ORDER BY o.used_at LIMIT max_rows FOR UPDATE SKIP LOCKED));
    GET DIAGNOSTICS deleted = ROW_COUNT;
    RETURN deleted + forgotten;
END
$$;
COMMENT ON FUNCTION run_tracker.purge_usage(interval, integer) IS
'Deletes entries of usage_records, and reservations that have ended, that are older than that, at most max_rows of each, and returns how many. Sums and quotas stay as they are. 22023 for a negative interval or max_rows below 1; for services.';

CREATE FUNCTION run_tracker.forget_reservations(before timestamptz, max_rows integer) RETURNS bigint
LANGUAGE c SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'run_tracker_forget_reservations';
COMMENT ON FUNCTION run_tracker.forget_reservations(timestamptz, integer) IS
'What purge_usage() runs: deletes reservations that ended before that. For services.';

CREATE FUNCTION run_tracker.install_usage() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET client_min_messages = warning
AS $install$
BEGIN
    IF to_regclass('run_tracker.usage_records') IS NULL THEN
        CREATE TABLE run_tracker.usage_records (
            usage_id uuid NOT NULL,
            user_id text NOT NULL,
            source text NOT NULL DEFAULT 'call',
            run_id uuid,
            task_id uuid,
            session_id uuid,
            reservation_id uuid,
            endpoint text,
            provider text,
            model text,
            requests integer NOT NULL DEFAULT 1,
            input_tokens bigint,
            output_tokens bigint,
            total_tokens bigint NOT NULL,
            cost numeric NOT NULL DEFAULT 0,
            metadata jsonb,
            used_at timestamptz NOT NULL,
            CONSTRAINT usage_records_pkey PRIMARY KEY (usage_id),
            CONSTRAINT usage_records_source_check CHECK (source IN ('call', 'request', 'reservation', 'retry'))
        );
        ALTER TABLE run_tracker.usage_records ENABLE ROW LEVEL SECURITY;
        PERFORM run_tracker.revoke_all('run_tracker.usage_records');

        COMMENT ON TABLE run_tracker.usage_records IS
        'What was used outside of finished tasks, an entry per call: see record_usage(), settle_usage() and log_request(). With finished tasks, it makes the view run_tracker.usage.';
        COMMENT ON COLUMN run_tracker.usage_records.usage_id IS 'Id, a UUID of version 7 unless the client supplies one.';
        COMMENT ON COLUMN run_tracker.usage_records.user_id IS 'Who used it; the caller unless given.';
        COMMENT ON COLUMN run_tracker.usage_records.source IS
        'call (record_usage), request (log_request), reservation (settle_usage), or retry: what a task had used before it was retried.';
        COMMENT ON COLUMN run_tracker.usage_records.run_id IS 'Run that it was for; not checked.';
        COMMENT ON COLUMN run_tracker.usage_records.task_id IS 'Task that was retried; not checked.';
        COMMENT ON COLUMN run_tracker.usage_records.session_id IS 'Session that it was for; not checked.';
        COMMENT ON COLUMN run_tracker.usage_records.reservation_id IS 'Reservation that it settled; not checked.';
        COMMENT ON COLUMN run_tracker.usage_records.endpoint IS 'What was called; function:NAME for function calls.';
        COMMENT ON COLUMN run_tracker.usage_records.provider IS 'Provider of the model (OpenTelemetry gen_ai.provider.name).';
        COMMENT ON COLUMN run_tracker.usage_records.model IS 'Model (OpenTelemetry gen_ai.request.model).';
        COMMENT ON COLUMN run_tracker.usage_records.requests IS 'Requests that it counts as.';
        COMMENT ON COLUMN run_tracker.usage_records.input_tokens IS 'Input tokens.';
        COMMENT ON COLUMN run_tracker.usage_records.output_tokens IS 'Output tokens.';
        COMMENT ON COLUMN run_tracker.usage_records.total_tokens IS 'Tokens that count; the sum of input and output tokens unless given.';
        COMMENT ON COLUMN run_tracker.usage_records.cost IS 'Cost, in the currency of tasks.cost.';
        COMMENT ON COLUMN run_tracker.usage_records.metadata IS 'Anything else, a JSON object.';
        COMMENT ON COLUMN run_tracker.usage_records.used_at IS 'When it was used (wall clock); filled in. Its day, in run_tracker.time_zone, is the one that it counts for.';
    END IF;
    ALTER TABLE run_tracker.usage_records ALTER COLUMN usage_id SET DEFAULT run_tracker.uuidv7();
    CREATE INDEX IF NOT EXISTS usage_records_user_id_used_at_idx ON run_tracker.usage_records (user_id, used_at DESC);
    CREATE INDEX IF NOT EXISTS usage_records_used_at_idx ON run_tracker.usage_records (used_at);
    CREATE OR REPLACE TRIGGER zz_run_tracker_before BEFORE INSERT OR UPDATE ON run_tracker.usage_records
        FOR EACH ROW EXECUTE FUNCTION run_tracker.usage_records_before();
    CREATE OR REPLACE TRIGGER run_tracker_insert AFTER INSERT ON run_tracker.usage_records
        REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION run_tracker.usage_records_after();
    CREATE OR REPLACE TRIGGER run_tracker_update AFTER UPDATE ON run_tracker.usage_records
        REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
        FOR EACH STATEMENT EXECUTE FUNCTION run_tracker.usage_records_after();
    PERFORM run_tracker.install_policy('run_tracker.usage_records');

    IF to_regclass('run_tracker.reservations') IS NULL THEN
        CREATE TABLE run_tracker.reservations (
            reservation_id uuid NOT NULL,
            user_id text NOT NULL,
            state text NOT NULL,
            tokens bigint NOT NULL,
            cost numeric NOT NULL,
            requests integer NOT NULL,
            task_id uuid,
            created_at timestamptz NOT NULL,
            expires_at timestamptz NOT NULL,
            ended_at timestamptz,
            CONSTRAINT reservations_pkey PRIMARY KEY (reservation_id),
            CONSTRAINT reservations_state_check CHECK (state IN ('held', 'settled', 'released', 'expired'))
        ) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);
        ALTER TABLE run_tracker.reservations ENABLE ROW LEVEL SECURITY;
        PERFORM run_tracker.revoke_all('run_tracker.reservations');

        COMMENT ON TABLE run_tracker.reservations IS
        'What is set aside of quotas for calls that are under way. Written by reserve_usage(), settle_usage(), release_usage(), tasks that finish and the background worker only.';
        COMMENT ON COLUMN run_tracker.reservations.reservation_id IS 'Id, a UUID of version 7.';
        COMMENT ON COLUMN run_tracker.reservations.user_id IS 'Whose quotas.';
        COMMENT ON COLUMN run_tracker.reservations.state IS
        'held; settled, by settle_usage() or a task; released, by release_usage() or because its task was deleted; or expired. A reservation that is held counts until expires_at.';
        COMMENT ON COLUMN run_tracker.reservations.tokens IS 'Tokens reserved.';
        COMMENT ON COLUMN run_tracker.reservations.cost IS 'Cost reserved.';
        COMMENT ON COLUMN run_tracker.reservations.requests IS 'Requests reserved.';
        COMMENT ON COLUMN run_tracker.reservations.task_id IS 'Task that settled it.';
        COMMENT ON COLUMN run_tracker.reservations.created_at IS 'When it was made (wall clock).';
        COMMENT ON COLUMN run_tracker.reservations.expires_at IS 'Until when it counts.';
        COMMENT ON COLUMN run_tracker.reservations.ended_at IS 'When it was settled, released, or found to have expired.';
    END IF;
    CREATE INDEX IF NOT EXISTS reservations_held_idx ON run_tracker.reservations (user_id) WHERE state = 'held';
    CREATE INDEX IF NOT EXISTS reservations_expiry_idx ON run_tracker.reservations (expires_at) WHERE state = 'held';
    CREATE INDEX IF NOT EXISTS reservations_ended_idx ON run_tracker.reservations (ended_at);
    PERFORM run_tracker.install_policy('run_tracker.reservations');

    IF to_regclass('run_tracker.usage') IS NULL THEN
        CREATE VIEW run_tracker.usage WITH (security_invoker = true) AS
        SELECT t.user_id, 'task'::text AS source, t.usage_at AS used_at, 1 AS requests, t.input_tokens, t.output_tokens,
               COALESCE(t.total_tokens, 0) AS total_tokens, COALESCE(t.cost, 0) AS cost, t.provider, t.model, t.operation AS endpoint,
               t.run_id, t.task_id, NULL::uuid AS session_id, t.reservation_id, NULL::uuid AS usage_id, t.metadata
        FROM run_tracker.tasks t
        WHERE t.usage_at IS NOT NULL
        UNION ALL
        SELECT u.user_id, u.source, u.used_at, u.requests, u.input_tokens, u.output_tokens, u.total_tokens, u.cost,
               u.provider, u.model, u.endpoint, u.run_id, u.task_id, u.session_id, u.reservation_id, u.usage_id, u.metadata
        FROM run_tracker.usage_records u;
        PERFORM run_tracker.revoke_all('run_tracker.usage');
        COMMENT ON VIEW run_tracker.usage IS
        'The single entries of usage: tasks that have finished, and what was recorded. What is deleted here, still counts for quotas.';
        COMMENT ON COLUMN run_tracker.usage.user_id IS 'Who used it.';
        COMMENT ON COLUMN run_tracker.usage.source IS 'task, or see run_tracker.usage_records.';
        COMMENT ON COLUMN run_tracker.usage.used_at IS 'When; for tasks, when they finished.';
        COMMENT ON COLUMN run_tracker.usage.requests IS 'Requests that it counts as.';
        COMMENT ON COLUMN run_tracker.usage.input_tokens IS 'Input tokens.';
        COMMENT ON COLUMN run_tracker.usage.output_tokens IS 'Output tokens.';
        COMMENT ON COLUMN run_tracker.usage.total_tokens IS 'Tokens that count.';
        COMMENT ON COLUMN run_tracker.usage.cost IS 'Cost.';
        COMMENT ON COLUMN run_tracker.usage.provider IS 'Provider.';
        COMMENT ON COLUMN run_tracker.usage.model IS 'Model.';
        COMMENT ON COLUMN run_tracker.usage.endpoint IS 'What was called; for tasks, their operation.';
        COMMENT ON COLUMN run_tracker.usage.run_id IS 'Run that it was for.';
        COMMENT ON COLUMN run_tracker.usage.task_id IS 'Task.';
        COMMENT ON COLUMN run_tracker.usage.session_id IS 'Session that it was for.';
        COMMENT ON COLUMN run_tracker.usage.reservation_id IS 'Reservation that it settled.';
        COMMENT ON COLUMN run_tracker.usage.usage_id IS 'Entry of run_tracker.usage_records; null for tasks.';
        COMMENT ON COLUMN run_tracker.usage.metadata IS 'Anything else.';
    END IF;
END
$install$;
COMMENT ON FUNCTION run_tracker.install_usage() IS 'Internal: the part of install() for usage and reservations.';
