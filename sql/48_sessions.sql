-- Sessions, and their versioned state.

CREATE FUNCTION run_tracker.sessions_before() RETURNS trigger
LANGUAGE c
AS 'MODULE_PATHNAME', 'run_tracker_sessions_before';
COMMENT ON FUNCTION run_tracker.sessions_before() IS
'Trigger of run_tracker.sessions: fills in owner, tier and times, and refuses more active sessions than the user may have (RT004).';

CREATE FUNCTION run_tracker.sessions_after() RETURNS trigger
LANGUAGE c
AS 'MODULE_PATHNAME', 'run_tracker_sessions_after';
COMMENT ON FUNCTION run_tracker.sessions_after() IS
'Trigger of run_tracker.sessions: deletes the deltas and snapshots of sessions that are deleted.';

CREATE FUNCTION run_tracker.session_deltas_before() RETURNS trigger
LANGUAGE c
AS 'MODULE_PATHNAME', 'run_tracker_session_deltas_before';
COMMENT ON FUNCTION run_tracker.session_deltas_before() IS
'Trigger of run_tracker.session_deltas: makes each delta the next version of its session, or refuses it (RT007).';

CREATE FUNCTION run_tracker.merge_patch(target jsonb, patch jsonb) RETURNS jsonb
LANGUAGE c IMMUTABLE PARALLEL SAFE
AS 'MODULE_PATHNAME', 'run_tracker_merge_patch';
COMMENT ON FUNCTION run_tracker.merge_patch(jsonb, jsonb) IS
'Applies a JSON merge patch (RFC 7396): members of the patch replace those of the target, objects are merged, and a member that is null removes the one of that name. A target that is null is none; a patch that is null changes nothing.';

CREATE FUNCTION run_tracker.merge_patches_add(state internal, patch jsonb) RETURNS internal
LANGUAGE c IMMUTABLE PARALLEL SAFE
AS 'MODULE_PATHNAME', 'run_tracker_merge_patches_add';
COMMENT ON FUNCTION run_tracker.merge_patches_add(internal, jsonb) IS
'Internal: state transition of merge_patches().';

CREATE FUNCTION run_tracker.merge_patches_result(state internal) RETURNS jsonb
LANGUAGE c IMMUTABLE PARALLEL SAFE
AS 'MODULE_PATHNAME', 'run_tracker_merge_patches_result';
COMMENT ON FUNCTION run_tracker.merge_patches_result(internal) IS 'Internal: final function of merge_patches().';

CREATE AGGREGATE run_tracker.merge_patches(jsonb) (
    SFUNC = run_tracker.merge_patches_add, STYPE = internal, SSPACE = 4096,
    FINALFUNC = run_tracker.merge_patches_result, PARALLEL = safe);
COMMENT ON AGGREGATE run_tracker.merge_patches(jsonb) IS
'What JSON merge patches (RFC 7396) make together, one after another; give an ORDER BY. Each costs what it says itself, however large the result is. Nulls change nothing.';

CREATE FUNCTION run_tracker.open_session(user_id text DEFAULT NULL, session_id uuid DEFAULT NULL,
    metadata jsonb DEFAULT NULL)
RETURNS uuid
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    whose text := COALESCE($1, run_tracker.current_user_id());
    opened uuid;
BEGIN
    PERFORM run_tracker.require_tables();
    -- twice: another request with the same id may be faster
    FOR attempt IN 1 .. 2 LOOP
        IF $2 IS NOT NULL THEN
            UPDATE run_tracker.sessions s SET metadata = s.metadata
            WHERE s.session_id = $2 AND s.user_id = whose AND s.closed_at IS NULL
            RETURNING s.session_id INTO opened;
            EXIT WHEN FOUND;
        END IF;
        INSERT INTO run_tracker.sessions (session_id, user_id, metadata)
        VALUES (COALESCE($2, run_tracker.uuidv7()), whose, $3)
        ON CONFLICT (session_id) DO NOTHING RETURNING session_id INTO opened;
        EXIT WHEN FOUND;
    END LOOP;
    IF opened IS NULL THEN
        RAISE EXCEPTION 'session cannot be opened'
            USING ERRCODE = 'unique_violation', DETAIL = format('The id %s is taken.', $2),
                  HINT = 'Open a session with another id, or without one.';
    END IF;
    RETURN opened;
END
$$;
COMMENT ON FUNCTION run_tracker.open_session(text, uuid, jsonb) IS
'Opens a session and returns its id. With the id of a session that is the user''s own and open, touches and returns that, so that a request can be repeated; 23505 if it is closed, or somebody else''s. RT004 if the user has as many active sessions as he may have; 42501 for another user, unless for services.';

CREATE FUNCTION run_tracker.touch_session(session_id uuid) RETURNS boolean
LANGUAGE c SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'run_tracker_touch_session';
COMMENT ON FUNCTION run_tracker.touch_session(uuid) IS
'Keeps a session active, or makes it active again; returns true. RT004 if it was not active, and the user has as many active sessions as he may have; 55000 if it is closed, P0002 if there is no such session.';

CREATE FUNCTION run_tracker.close_session(session_id uuid) RETURNS boolean
LANGUAGE c SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'run_tracker_close_session';
COMMENT ON FUNCTION run_tracker.close_session(uuid) IS
'Closes a session for good; its state stays readable. True if it was open, false if it is closed already. P0002 if there is no such session.';

CREATE FUNCTION run_tracker.append_delta(session_id uuid, base_version bigint, delta jsonb) RETURNS bigint
LANGUAGE c SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'run_tracker_append_delta';
COMMENT ON FUNCTION run_tracker.append_delta(uuid, bigint, jsonb) IS
'Changes the state of a session by a JSON merge patch (an object, RFC 7396), and returns the new version; this touches the session. base_version is the version that the caller has seen (0: none): RT007, with the current version in the detail, if there is a newer one; null appends in any case. 55000 if the session is closed, RT004 as touch_session(), P0002 if there is no such session, 23514 if the delta is no object, 54000 if delta or state are larger than run_tracker.max_payload.';

CREATE FUNCTION run_tracker.session_state(session_id uuid, at_version bigint DEFAULT NULL) RETURNS jsonb
LANGUAGE c STABLE SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'run_tracker_session_state';
COMMENT ON FUNCTION run_tracker.session_state(uuid, bigint) IS
'The state of a session, {} before its first delta: now, which is cheap however many deltas there are, or at an earlier version. P0002 if there is no such session, 22023 if it has no such version.';

CREATE FUNCTION run_tracker.read_session(session_id uuid) RETURNS TABLE (version bigint, state jsonb)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
BEGIN
    PERFORM run_tracker.require_tables();
    state := run_tracker.session_state($1);
    SELECT s.version INTO version FROM run_tracker.sessions s WHERE s.session_id = $1;
    RETURN NEXT;
END
$$;
COMMENT ON FUNCTION run_tracker.read_session(uuid) IS
'The version of a session and the state that it has at that version, to append a delta to. P0002 if there is no such session.';

CREATE FUNCTION run_tracker.purge_sessions(older_than interval DEFAULT '30 days', max_sessions integer DEFAULT 10000)
RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    before timestamptz;
    expired timestamptz;
    deleted bigint;
BEGIN
    PERFORM run_tracker.require_tables();
    -- the library, which knows the setting, is loaded by now
    expired := clock_timestamp() - current_setting('run_tracker.session_timeout')::interval;
    before := run_tracker.purge_before(older_than, max_sessions, 'max_sessions');
    -- a session is touched after it was created, and the index is on that
    DELETE FROM run_tracker.sessions s
    WHERE s.session_id = ANY (ARRAY(
        SELECT o.session_id FROM run_tracker.sessions o
        WHERE o.created_at < before AND o.updated_at < before AND (o.closed_at IS NOT NULL OR o.updated_at < expired)
        ORDER BY o.created_at LIMIT max_sessions FOR UPDATE SKIP LOCKED));
    GET DIAGNOSTICS deleted = ROW_COUNT;
    RETURN deleted;
END
$$;
COMMENT ON FUNCTION run_tracker.purge_sessions(interval, integer) IS
'Deletes sessions that were closed, or last touched, longer ago than that, oldest first and at most max_sessions, with their deltas, and returns how many. Active sessions are never deleted. 22023 for a negative interval, or max_sessions below 1. For services.';

CREATE FUNCTION run_tracker.install_sessions() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET client_min_messages = warning
AS $install$
DECLARE
    complete boolean := EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = to_regclass('run_tracker.sessions')
                                                           AND t.tgname = 'run_tracker_delete');
BEGIN
    IF to_regclass('run_tracker.sessions') IS NULL THEN
        CREATE TABLE run_tracker.sessions (
            session_id uuid NOT NULL,
            user_id text NOT NULL,
            tier text NOT NULL,
            version bigint NOT NULL,
            snapshot_after bigint NOT NULL,
            metadata jsonb,
            created_at timestamptz NOT NULL,
            updated_at timestamptz NOT NULL,
            active_hour_at timestamptz NOT NULL,
            closed_at timestamptz,
            CONSTRAINT sessions_pkey PRIMARY KEY (session_id)
        ) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.05);
        CREATE INDEX sessions_created_at_idx ON run_tracker.sessions (created_at);
        CREATE INDEX sessions_user_id_created_at_idx ON run_tracker.sessions (user_id, created_at DESC);
        -- on the hour of the last touch, so that most touches leave it alone: they stay HOT
        CREATE INDEX sessions_active_idx ON run_tracker.sessions (user_id, active_hour_at) WHERE closed_at IS NULL;
        ALTER TABLE run_tracker.sessions ENABLE ROW LEVEL SECURITY;
        PERFORM run_tracker.revoke_all('run_tracker.sessions');

        COMMENT ON TABLE run_tracker.sessions IS
        'Sessions of users. One that is not closed and was touched within run_tracker.session_timeout is active; any UPDATE touches it. Its state is what run_tracker.session_deltas make.';
        COMMENT ON COLUMN run_tracker.sessions.session_id IS 'Id, a UUID of version 7 unless the client supplies one.';
        COMMENT ON COLUMN run_tracker.sessions.user_id IS 'Owner. Never changes.';
        COMMENT ON COLUMN run_tracker.sessions.tier IS 'Tier of the user when the session was opened. Computed.';
        COMMENT ON COLUMN run_tracker.sessions.version IS 'Version of the state: the number of its deltas. Computed.';
        COMMENT ON COLUMN run_tracker.sessions.snapshot_after IS
        'Bytes of deltas after which the next snapshot of the state is taken. Computed.';
        COMMENT ON COLUMN run_tracker.sessions.metadata IS 'Anything else, a JSON object.';
        COMMENT ON COLUMN run_tracker.sessions.created_at IS 'When the session was opened (wall clock). Computed.';
        COMMENT ON COLUMN run_tracker.sessions.updated_at IS 'When it was last touched or appended to, or closed (wall clock). Computed.';
        COMMENT ON COLUMN run_tracker.sessions.active_hour_at IS 'updated_at down to the full hour (UTC), for an index that seldom changes. Computed.';
        COMMENT ON COLUMN run_tracker.sessions.closed_at IS
        'When the session was closed: assigning anything closes it now. Never changes then.';
    END IF;
    ALTER TABLE run_tracker.sessions ALTER COLUMN session_id SET DEFAULT run_tracker.uuidv7();
    CREATE OR REPLACE TRIGGER zz_run_tracker_before BEFORE INSERT OR UPDATE ON run_tracker.sessions
        FOR EACH ROW EXECUTE FUNCTION run_tracker.sessions_before();
    CREATE OR REPLACE TRIGGER run_tracker_delete AFTER DELETE ON run_tracker.sessions REFERENCING OLD TABLE AS old_rows
        FOR EACH STATEMENT EXECUTE FUNCTION run_tracker.sessions_after();
    CREATE OR REPLACE TRIGGER run_tracker_truncate AFTER TRUNCATE ON run_tracker.sessions
        FOR EACH STATEMENT EXECUTE FUNCTION run_tracker.after_truncate();
    PERFORM run_tracker.install_policy('run_tracker.sessions');

    IF to_regclass('run_tracker.session_deltas') IS NULL THEN
        -- no foreign key: the trigger holds the session, and the check would look through all versions that this
        -- transaction has made of its row
        CREATE TABLE run_tracker.session_deltas (
            session_id uuid NOT NULL,
            version bigint NOT NULL,
            user_id text NOT NULL,
            delta jsonb NOT NULL,
            created_at timestamptz NOT NULL,
            CONSTRAINT session_deltas_pkey PRIMARY KEY (session_id, version)
        );
        ALTER TABLE run_tracker.session_deltas ENABLE ROW LEVEL SECURITY;
        PERFORM run_tracker.revoke_all('run_tracker.session_deltas');

        COMMENT ON TABLE run_tracker.session_deltas IS
        'Changes of the state of sessions, JSON merge patches (RFC 7396). They never change, and go with their session.';
        COMMENT ON COLUMN run_tracker.session_deltas.session_id IS 'Session.';
        COMMENT ON COLUMN run_tracker.session_deltas.version IS
        'Version that the state has with this delta: 1, 2, 3, ... Who gives it says that the version before is the one that he has seen; the next one if null.';
        COMMENT ON COLUMN run_tracker.session_deltas.user_id IS 'Owner of the session.';
        COMMENT ON COLUMN run_tracker.session_deltas.delta IS 'The merge patch, a JSON object.';
        COMMENT ON COLUMN run_tracker.session_deltas.created_at IS 'When it was appended (wall clock). Computed.';
    END IF;
    CREATE OR REPLACE TRIGGER zz_run_tracker_before BEFORE INSERT OR UPDATE ON run_tracker.session_deltas
        FOR EACH ROW EXECUTE FUNCTION run_tracker.session_deltas_before();
    PERFORM run_tracker.install_policy('run_tracker.session_deltas');

    IF to_regclass('run_tracker.session_snapshots') IS NULL THEN
        CREATE TABLE run_tracker.session_snapshots (
            session_id uuid NOT NULL,
            user_id text NOT NULL,
            version bigint NOT NULL,
            state jsonb NOT NULL,
            updated_at timestamptz NOT NULL,
            CONSTRAINT session_snapshots_pkey PRIMARY KEY (session_id)
        ) WITH (autovacuum_vacuum_scale_factor = 0.05);
        ALTER TABLE run_tracker.session_snapshots ENABLE ROW LEVEL SECURITY;
        PERFORM run_tracker.revoke_all('run_tracker.session_snapshots');

        COMMENT ON TABLE run_tracker.session_snapshots IS
        'States of sessions at some recent version, so that session_state() reads few deltas. Written as deltas come in.';
        COMMENT ON COLUMN run_tracker.session_snapshots.session_id IS 'Session.';
        COMMENT ON COLUMN run_tracker.session_snapshots.user_id IS 'Owner of the session.';
        COMMENT ON COLUMN run_tracker.session_snapshots.version IS 'Version of the state.';
        COMMENT ON COLUMN run_tracker.session_snapshots.state IS 'The state at that version.';
        COMMENT ON COLUMN run_tracker.session_snapshots.updated_at IS 'When it was written (wall clock).';
    END IF;
    PERFORM run_tracker.install_policy('run_tracker.session_snapshots');
    -- what sessions have left behind that were deleted while there was no trigger
    IF NOT complete THEN
        PERFORM run_tracker.as_owner('run_tracker.session_deltas',
            'DELETE FROM run_tracker.session_deltas d
             WHERE NOT EXISTS (SELECT FROM run_tracker.sessions s WHERE s.session_id = d.session_id)');
        PERFORM run_tracker.as_owner('run_tracker.session_snapshots',
            'DELETE FROM run_tracker.session_snapshots p
             WHERE NOT EXISTS (SELECT FROM run_tracker.sessions s WHERE s.session_id = p.session_id)');
    END IF;

    IF to_regclass('run_tracker.active_sessions') IS NULL THEN
        CREATE VIEW run_tracker.active_sessions WITH (security_invoker = true) AS
        SELECT s.session_id, s.user_id, s.tier, s.version, s.metadata, s.created_at, s.updated_at,
               s.updated_at + t.timeout AS expires_at,
               r.run_count, r.open_run_count, l.last_run_id, l.last_run_status
        FROM (SELECT COALESCE(NULLIF(current_setting('run_tracker.session_timeout', true), ''), '1 hour')::interval) t (timeout),
             run_tracker.sessions s,
             LATERAL (
                 SELECT count(*) AS run_count,
                        count(*) FILTER (WHERE o.phase IN ('queued', 'active', 'waiting')) AS open_run_count
                 FROM run_tracker.runs o WHERE o.session_id = s.session_id::text AND o.user_id = s.user_id) r
             LEFT JOIN LATERAL (
                 SELECT o.run_id AS last_run_id, o.status AS last_run_status
                 FROM run_tracker.runs o WHERE o.session_id = s.session_id::text AND o.user_id = s.user_id
                 ORDER BY o.created_at DESC LIMIT 1) l ON true
        WHERE s.closed_at IS NULL
          AND s.active_hour_at > statement_timestamp() - t.timeout - interval '1 hour'
          AND s.updated_at > statement_timestamp() - t.timeout;
        PERFORM run_tracker.revoke_all('run_tracker.active_sessions');

        COMMENT ON VIEW run_tracker.active_sessions IS
        'Sessions that are active, until when they are if nothing happens, and the runs that name them as their session_id: how many, how many of them open, and the latest.';
    END IF;
END
$install$;
COMMENT ON FUNCTION run_tracker.install_sessions() IS 'Internal: the part of install() for sessions.';
