-- Callbacks of automation servers: authenticated by a signature or a shared secret, and applied to their runs.

CREATE FUNCTION run_tracker.callback(json) RETURNS jsonb
LANGUAGE c SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'run_tracker_callback';
COMMENT ON FUNCTION run_tracker.callback(json) IS
'Takes what an automation server tells of a run: the body of the request, with credentials from its headers as PostgREST shows them in request.headers. x-signature-256 is the HMAC-SHA-256 of the body, hexadecimal, with or without "sha256="; with x-signature-timestamp (seconds since 1970), that of <timestamp>.<body>; without a signature, x-spar-auth is a shared secret. The payload is {"runId", "status", "results", "reflections", "plan", "stepResults", "metrics", "error", "progress", "currentStep", "attempt", "usage": {"model", "provider", "input_tokens", "output_tokens", "total_tokens", "cost"}}. Returns {"runId", "outcome", "status", "reason"}: applied; duplicate, which changes nothing; or rejected, and kept with its payload in callbacks. RT008 for bad credentials, 54000 beyond run_tracker.max_payload.';

CREATE FUNCTION run_tracker.callback_signed(payload json, signature text DEFAULT NULL, signed_at text DEFAULT NULL)
RETURNS jsonb
LANGUAGE c SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'run_tracker_callback_signed';
COMMENT ON FUNCTION run_tracker.callback_signed(json, text, text) IS
'The same as callback(), with the signature, and the time that it includes, as arguments; what is null is read from the headers.';

CREATE FUNCTION run_tracker.callback_secret(payload json, secret text DEFAULT NULL) RETURNS jsonb
LANGUAGE c SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'run_tracker_callback_secret';
COMMENT ON FUNCTION run_tracker.callback_secret(json, text) IS
'The same as callback(), for callers that can only send a shared secret: as the argument or, if it is null, in the header x-spar-auth.';

CREATE FUNCTION run_tracker.create_callback_key(name text, method text DEFAULT 'hmac', secret text DEFAULT NULL,
    for_kind text DEFAULT NULL, require_timestamp boolean DEFAULT false)
RETURNS TABLE (key_id uuid, secret text)
LANGUAGE c SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'run_tracker_create_callback_key';
COMMENT ON FUNCTION run_tracker.create_callback_key(text, text, text, text, boolean) IS
'Makes a key for callbacks and returns its secret, which is not shown again: with method hmac, callbacks are signed with it; with method secret, they show it, and only a hash is kept. Without one, 32 random bytes are made, hexadecimal; the characters, not the bytes, are the key. With for_kind, it is good for runs of that kind only; with require_timestamp, for callbacks only that are signed with their time. 22023 for a secret of less than 16 bytes, 42710 if there is a key of that name. For the owner of the tables.';

CREATE FUNCTION run_tracker.rotate_callback_key(name text, overlap interval DEFAULT '1 day')
RETURNS TABLE (key_id uuid, secret text)
LANGUAGE c SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'run_tracker_rotate_callback_key';
COMMENT ON FUNCTION run_tracker.rotate_callback_key(text, interval) IS
'Makes another key of that name, with a new secret, and returns it. Until overlap is over, those that there are work, too. Keys that have ended are deleted. P0002 if there is no key of that name, 22023 for a negative interval. For the owner of the tables.';

CREATE FUNCTION run_tracker.drop_callback_key(key_id uuid) RETURNS boolean
LANGUAGE c SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'run_tracker_drop_callback_key';
COMMENT ON FUNCTION run_tracker.drop_callback_key(uuid) IS
'Deletes a key: callbacks with it are refused from then on. True if there was one. For the owner of the tables.';

CREATE FUNCTION run_tracker.wait_for_writers(run_id uuid, ending boolean) RETURNS void
LANGUAGE c SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'run_tracker_wait_for_writers';
COMMENT ON FUNCTION run_tracker.wait_for_writers(uuid, boolean) IS
'Internal: waits for those who are changing the tasks of a run, before it is locked.';

CREATE FUNCTION run_tracker.callback_field(data jsonb, names text[], types text[]) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    field text;
    value jsonb;
BEGIN
    FOREACH field IN ARRAY COALESCE(names, '{}') LOOP
        value := data -> field;
        IF value <> 'null' THEN
            IF types <> '{}' AND jsonb_typeof(value) <> ALL (types) THEN
                RAISE EXCEPTION 'field "%" must be of type %', field, array_to_string(types, ' or ')
                    USING ERRCODE = 'invalid_parameter_value';
            END IF;
            RETURN value;
        END IF;
    END LOOP;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION run_tracker.callback_field(jsonb, text[], text[]) IS
'Internal: the first field of a payload, of several names, that is there and not null; 22023 if it is not of one of the JSON types.';

CREATE FUNCTION run_tracker.parse_callback(data jsonb,
    OUT status text, OUT attempt integer, OUT changes jsonb, OUT usage jsonb)
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    error jsonb := run_tracker.callback_field(data, '{error}', '{string,object}');
    given jsonb := run_tracker.callback_field(data, '{usage}', '{object}');
    percent numeric := run_tracker.callback_field(data, '{progress}', '{number}')::numeric;
    input numeric;
    output numeric;
    total numeric;
    cost numeric;
    highest CONSTANT numeric := 1000000000000000;
BEGIN
    status := run_tracker.callback_field(data, '{status}', '{string}') #>> '{}';
    attempt := run_tracker.callback_field(data, '{attempt}', '{number}')::integer;
    IF round(percent) NOT BETWEEN 0 AND 100 THEN
        RAISE EXCEPTION 'field "progress" must be 0 to 100' USING ERRCODE = 'numeric_value_out_of_range';
    END IF;
    -- what is not there leaves what the run has
    changes := COALESCE((
        SELECT jsonb_object_agg(c.name, c.value) FROM (VALUES
            ('result', run_tracker.callback_field(data, '{results,result}', '{}')),
            ('reflections', run_tracker.callback_field(data, '{reflections}', '{}')),
            ('plan', run_tracker.callback_field(data, '{plan}', '{}')),
            ('step_results', run_tracker.callback_field(data, '{stepResults,step_results}', '{}')),
            ('metrics', run_tracker.callback_field(data, '{metrics}', '{object}')),
            ('error', CASE jsonb_typeof(error) WHEN 'object' THEN COALESCE(run_tracker.callback_field(error, '{message}', '{string}'),
                                                                           to_jsonb(error::text))
                                               ELSE error END),
            ('error_detail', CASE jsonb_typeof(error) WHEN 'object' THEN to_jsonb(
                run_tracker.callback_field(error, '{detail,stack}', '{}') #>> '{}') END),
            ('progress', to_jsonb(round(percent)::smallint)),
            ('current_step', run_tracker.callback_field(data, '{currentStep,current_step}', '{string}'))) AS c (name, value)
        WHERE c.value IS NOT NULL), '{}');
    IF given IS NULL THEN
        RETURN;
    END IF;
    input := round(run_tracker.callback_field(given, '{input_tokens,inputTokens,prompt_tokens}', '{number}')::numeric);
    output := round(run_tracker.callback_field(given, '{output_tokens,outputTokens,completion_tokens}', '{number}')::numeric);
    total := round(run_tracker.callback_field(given, '{total_tokens,totalTokens}', '{number}')::numeric);
    cost := run_tracker.callback_field(given, '{cost}', '{number}')::numeric;
    IF LEAST(input, output, total, cost) < 0 OR GREATEST(input, output, total, cost) > highest THEN
        RAISE EXCEPTION 'a number of "usage" is negative or too large' USING ERRCODE = 'numeric_value_out_of_range';
    END IF;
    usage := jsonb_build_object('input_tokens', input, 'output_tokens', output, 'total_tokens', total, 'cost', cost,
        'model', run_tracker.callback_field(given, '{model}', '{string}') #>> '{}',
        'provider', run_tracker.callback_field(given, '{provider}', '{string}') #>> '{}');
END
$$;
COMMENT ON FUNCTION run_tracker.parse_callback(jsonb) IS
'Internal: what the payload of a callback says, in our words; an error of class 22 if it makes no sense.';

CREATE FUNCTION run_tracker.check_callback(run jsonb, status text, attempt integer, changes jsonb, usage jsonb,
    OUT outcome text, OUT reason text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    states jsonb := (SELECT l.definition -> 'states' FROM run_tracker.lifecycles l WHERE l.name = run ->> 'lifecycle');
    finished boolean := run ->> 'phase' NOT IN ('queued', 'active', 'waiting');
    current text := run ->> 'status';
    known jsonb := run || jsonb_build_object('step_results', run #> '{metadata,step_results}');
    anything_new boolean := EXISTS (SELECT FROM jsonb_each(changes) c WHERE c.value IS DISTINCT FROM known -> c.key);
BEGIN
    outcome := 'rejected';
    IF attempt <> (run ->> 'attempt')::integer THEN
        reason := format('RT003: stale attempt: the run is at attempt %s', run ->> 'attempt');
    ELSIF status IS NOT NULL AND NOT states ? status THEN
        reason := format('RT002: lifecycle "%s" has no status "%s"', run ->> 'lifecycle', status);
    ELSIF status <> current AND (finished AND states #>> ARRAY[status, 'phase'] IN ('queued', 'active', 'waiting')
                                 OR NOT COALESCE(states #> ARRAY[current, 'next'] ? status, false)) THEN
        -- a retry is for the application to decide, not for a message that comes late
        reason := format('RT001: invalid transition from "%s" to "%s"', current, status);
    ELSIF status <> current THEN
        outcome := 'applied';
    ELSIF finished AND anything_new THEN
        reason := format('55000: run is finished with status "%s"', current);
    ELSIF anything_new OR usage IS NOT NULL THEN
        outcome := 'applied';
    ELSE
        outcome := 'duplicate';
        reason := 'nothing new';
    END IF;
END
$$;
COMMENT ON FUNCTION run_tracker.check_callback(jsonb, text, integer, jsonb, jsonb) IS
'Internal: what is to be done with a callback to a run, and why it is not applied.';

CREATE FUNCTION run_tracker.write_callback(the_run uuid, run jsonb, new_status text, changes jsonb, usage jsonb, digest bytea)
RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    result text := run ->> 'status';
BEGIN
    IF changes <> '{}' OR new_status <> result THEN
        UPDATE run_tracker.runs r
        SET status = COALESCE(new_status, r.status),
            result = COALESCE(changes -> 'result', r.result),
            reflections = COALESCE(changes -> 'reflections', r.reflections),
            plan = COALESCE(changes -> 'plan', r.plan),
            metrics = COALESCE(changes -> 'metrics', r.metrics),
            error = COALESCE(changes ->> 'error', r.error),
            error_detail = COALESCE(changes ->> 'error_detail', r.error_detail),
            progress = COALESCE((changes ->> 'progress')::smallint, r.progress),
            current_step = COALESCE(changes ->> 'current_step', r.current_step),
            metadata = CASE WHEN changes ? 'step_results'
                            THEN COALESCE(r.metadata, '{}') || jsonb_build_object('step_results', changes -> 'step_results')
                            ELSE r.metadata END
        WHERE r.run_id = the_run
        RETURNING r.status INTO result;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'run was not updated'
                USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'A trigger may have suppressed the update.';
        END IF;
    END IF;
    -- nobody has no account
    IF usage IS NOT NULL AND run ->> 'user_id' <> '' THEN
        -- the id says what it is for: it is recorded once, whoever else is at it
        PERFORM run_tracker.record_usage(
            user_id => run ->> 'user_id', run_id => the_run, input_tokens => (usage ->> 'input_tokens')::bigint,
            output_tokens => (usage ->> 'output_tokens')::bigint, tokens => (usage ->> 'total_tokens')::bigint,
            cost => COALESCE((usage ->> 'cost')::numeric, 0), provider => usage ->> 'provider', model => usage ->> 'model',
            usage_id => encode(substr(sha256(uuid_send(the_run) || int4send((run ->> 'attempt')::integer) || digest), 1, 16), 'hex')::uuid);
    END IF;
    RETURN result;
END
$$;
COMMENT ON FUNCTION run_tracker.write_callback(uuid, jsonb, text, jsonb, jsonb, bytea) IS
'Internal: writes what a callback says to its run, and to the usage of its user; returns the status.';

CREATE FUNCTION run_tracker.apply_callback(body json, body_digest bytea, by_key uuid, only_kind text) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    data jsonb;
    the_run uuid;
    new_status text;
    for_attempt integer;
    changes jsonb;
    used jsonb;
    run jsonb;
    outcome text := 'rejected';
    reason text;
    current text;
    error_table text;
    error_context text;
BEGIN
    PERFORM run_tracker.require_tables();
    BEGIN
        data := body;
        IF jsonb_typeof(data) <> 'object' THEN
            RAISE EXCEPTION 'payload must be a JSON object' USING ERRCODE = 'invalid_parameter_value';
        END IF;
        the_run := (run_tracker.callback_field(data, '{runId,run_id}', '{string}') #>> '{}')::uuid;
        IF the_run IS NULL THEN
            RAISE EXCEPTION 'field "runId" is missing' USING ERRCODE = 'invalid_parameter_value';
        END IF;
        SELECT p.status, p.attempt, p.changes, p.usage INTO new_status, for_attempt, changes, used
        FROM run_tracker.parse_callback(data) p;
    EXCEPTION WHEN data_exception OR program_limit_exceeded THEN
        reason := SQLSTATE || ': ' || SQLERRM;
    END;

    -- as complete_run() does it: who ends the run waits for those who insert children
    IF reason IS NULL AND new_status IS NOT NULL THEN
        PERFORM run_tracker.wait_for_writers(the_run, true);
        SELECT to_jsonb(r) INTO run FROM run_tracker.runs r WHERE r.run_id = the_run FOR UPDATE;
    ELSE
        SELECT to_jsonb(r) INTO run FROM run_tracker.runs r WHERE r.run_id = the_run FOR NO KEY UPDATE;
    END IF;
    IF run ->> 'kind' IS DISTINCT FROM COALESCE(only_kind, run ->> 'kind') THEN
        run := NULL;
    END IF;
    current := run ->> 'status';

    IF reason IS NOT NULL THEN
        NULL;
    ELSIF run IS NULL THEN
        reason := 'P0002: run not found';
    ELSIF EXISTS (SELECT FROM run_tracker.callbacks c
                  WHERE c.run_id = the_run AND c.digest = body_digest AND c.outcome = 'applied'
                    AND c.attempt = (run ->> 'attempt')::integer) THEN
        outcome := 'duplicate';
        reason := 'applied already';
    ELSE
        SELECT c.outcome, c.reason INTO outcome, reason
        FROM run_tracker.check_callback(run, new_status, for_attempt, changes, used) c;
    END IF;

    IF outcome = 'applied' THEN
        BEGIN
            current := run_tracker.write_callback(the_run, run, new_status, changes, used, body_digest);
        EXCEPTION WHEN check_violation OR program_limit_exceeded THEN
            GET STACKED DIAGNOSTICS error_table = TABLE_NAME, error_context = PG_EXCEPTION_CONTEXT;
            -- what the tables do not accept is the fault of the payload; what else is called has faults of its own, and the
            -- sender tries again
            IF error_table NOT IN ('runs', 'usage_records') OR error_context LIKE '%run_tracker.on_finish function%' THEN
                RAISE;
            END IF;
            outcome := 'rejected';
            reason := SQLSTATE || ': ' || SQLERRM;
        END;
    END IF;

    INSERT INTO run_tracker.callbacks (callback_id, run_id, user_id, attempt, key_id, outcome, reason, status, payload, digest, received_at)
    VALUES (run_tracker.uuidv7(), the_run, COALESCE(run ->> 'user_id', ''), (run ->> 'attempt')::integer, by_key, outcome, reason,
            new_status,
            -- one payload is kept once
            CASE WHEN outcome <> 'duplicate' AND NOT EXISTS (
                SELECT FROM run_tracker.callbacks c
                WHERE c.run_id IS NOT DISTINCT FROM the_run AND c.digest = body_digest AND c.payload IS NOT NULL) THEN body END,
            body_digest, clock_timestamp());
    RETURN jsonb_build_object('runId', the_run, 'outcome', outcome, 'status', current, 'reason', reason);
END
$$;
COMMENT ON FUNCTION run_tracker.apply_callback(json, bytea, uuid, text) IS
'Internal: what callback() does, as the owner of the tables, once it has verified the credentials.';

CREATE FUNCTION run_tracker.purge_callbacks(older_than interval DEFAULT '30 days', max_callbacks integer DEFAULT 10000)
RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    before timestamptz;
    deleted bigint;
BEGIN
    PERFORM run_tracker.require_tables();
    before := run_tracker.purge_before(older_than, max_callbacks, 'max_callbacks');
    DELETE FROM run_tracker.callbacks c
    WHERE c.callback_id = ANY (ARRAY(
        SELECT o.callback_id FROM run_tracker.callbacks o WHERE o.received_at < before
        ORDER BY o.received_at LIMIT max_callbacks FOR UPDATE SKIP LOCKED));
    GET DIAGNOSTICS deleted = ROW_COUNT;
    RETURN deleted;
END
$$;
COMMENT ON FUNCTION run_tracker.purge_callbacks(interval, integer) IS
'Deletes callbacks that were received longer ago than that, oldest first and at most max_callbacks, and returns how many. A callback that is repeated later than that is no duplicate any more. 22023 for a negative interval or max_callbacks below 1. For services.';

CREATE FUNCTION run_tracker.install_callbacks() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET client_min_messages = warning
AS $install$
BEGIN
    IF to_regclass('run_tracker.callback_keys') IS NULL THEN
        CREATE TABLE run_tracker.callback_keys (
            key_id uuid NOT NULL,
            name text NOT NULL,
            method text NOT NULL,
            hash bytea,
            salt bytea,
            hmac_secret bytea,
            for_kind text,
            require_timestamp boolean NOT NULL,
            created_at timestamptz NOT NULL,
            expires_at timestamptz,
            CONSTRAINT callback_keys_pkey PRIMARY KEY (key_id),
            CONSTRAINT callback_keys_method_check CHECK (method IN ('hmac', 'secret'))
        );
        -- no policy: nobody but the owner sees anything
        ALTER TABLE run_tracker.callback_keys ENABLE ROW LEVEL SECURITY;
        PERFORM run_tracker.revoke_all('run_tracker.callback_keys');

        COMMENT ON TABLE run_tracker.callback_keys IS
        'Keys that callbacks are signed with, or whose secret they show. For the owner only: it holds secrets.';
        COMMENT ON COLUMN run_tracker.callback_keys.key_id IS 'Id.';
        COMMENT ON COLUMN run_tracker.callback_keys.name IS
        'Who calls back with it; appears in transitions. During a rotation, there are several keys of a name.';
        COMMENT ON COLUMN run_tracker.callback_keys.method IS 'hmac: callbacks are signed with it; secret: they show it.';
        COMMENT ON COLUMN run_tracker.callback_keys.hash IS 'SHA-256 of salt and secret (method secret).';
        COMMENT ON COLUMN run_tracker.callback_keys.salt IS 'Random bytes (method secret).';
        COMMENT ON COLUMN run_tracker.callback_keys.hmac_secret IS 'Secret that callbacks are signed with (method hmac).';
        COMMENT ON COLUMN run_tracker.callback_keys.for_kind IS 'Kind of the runs that it is good for; null for all.';
        COMMENT ON COLUMN run_tracker.callback_keys.require_timestamp IS 'Whether callbacks must be signed with their time.';
        COMMENT ON COLUMN run_tracker.callback_keys.created_at IS 'When it was made.';
        COMMENT ON COLUMN run_tracker.callback_keys.expires_at IS 'When it ends, or has ended, by a rotation; null if it does not.';
    END IF;
    IF to_regclass('run_tracker.callbacks') IS NULL THEN
        -- run_id is what the payload claims, so there is no foreign key
        CREATE TABLE run_tracker.callbacks (
            callback_id uuid NOT NULL,
            run_id uuid,
            user_id text NOT NULL,
            attempt integer,
            key_id uuid NOT NULL,
            outcome text NOT NULL,
            reason text,
            status text,
            payload json,
            digest bytea NOT NULL,
            received_at timestamptz NOT NULL,
            CONSTRAINT callbacks_pkey PRIMARY KEY (callback_id),
            CONSTRAINT callbacks_outcome_check CHECK (outcome IN ('applied', 'duplicate', 'rejected'))
        );
        CREATE INDEX callbacks_run_id_idx ON run_tracker.callbacks (run_id, digest);
        CREATE INDEX callbacks_user_id_idx ON run_tracker.callbacks (user_id, received_at DESC);
        CREATE INDEX callbacks_received_at_idx ON run_tracker.callbacks (received_at);
        ALTER TABLE run_tracker.callbacks ENABLE ROW LEVEL SECURITY;
        PERFORM run_tracker.revoke_all('run_tracker.callbacks');

        COMMENT ON TABLE run_tracker.callbacks IS
        'Callbacks with good credentials, and what became of them. Those that were not applied are kept for whoever has to look into it.';
        COMMENT ON COLUMN run_tracker.callbacks.callback_id IS 'Id, a UUID of version 7.';
        COMMENT ON COLUMN run_tracker.callbacks.run_id IS 'Run that the payload names, whether there is one or not; null if it names none.';
        COMMENT ON COLUMN run_tracker.callbacks.user_id IS 'Owner of the run; the empty string if there is no such run.';
        COMMENT ON COLUMN run_tracker.callbacks.attempt IS 'Attempt that the run was at.';
        COMMENT ON COLUMN run_tracker.callbacks.key_id IS 'Key that fitted.';
        COMMENT ON COLUMN run_tracker.callbacks.outcome IS
        'applied; duplicate: it said nothing new; rejected: its run does not exist, was finished, or did not accept it.';
        COMMENT ON COLUMN run_tracker.callbacks.reason IS 'Why it was not applied, after an SQLSTATE if it was rejected.';
        COMMENT ON COLUMN run_tracker.callbacks.status IS 'Status that the payload asks for.';
        COMMENT ON COLUMN run_tracker.callbacks.payload IS
        'Payload, byte for byte; null for a duplicate, and if another row of the run has the same.';
        COMMENT ON COLUMN run_tracker.callbacks.digest IS 'SHA-256 of the payload.';
        COMMENT ON COLUMN run_tracker.callbacks.received_at IS 'When it arrived (wall clock).';
    END IF;
    PERFORM run_tracker.install_policy('run_tracker.callbacks');
END
$install$;
COMMENT ON FUNCTION run_tracker.install_callbacks() IS 'Internal: the part of install() for callbacks.';
