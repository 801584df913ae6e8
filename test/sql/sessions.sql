--
-- Sessions: how many may be active, what touches them, their versioned state, and what other users cannot do to them.
--
\getenv abs_srcdir PG_ABS_SRCDIR
\set common :abs_srcdir '/sql/common.psql'
\i :common

CREATE ROLE regress_sessions_client;
CREATE ROLE regress_sessions_service;
CREATE ROLE regress_sessions_reader;
SELECT run_tracker.grant_client('regress_sessions_client'), run_tracker.grant_service('regress_sessions_service'), run_tracker.grant_reader('regress_sessions_reader');
\set s1 '''50000000-0000-0000-0000-000000000001'''
\set s2 '''50000000-0000-0000-0000-000000000002'''
\set s3 '''50000000-0000-0000-0000-000000000003'''
\set old '''50000000-0000-0000-0000-00000000000d'''
\set as_alice 'SET ROLE regress_sessions_client; SET request.jwt.claims = \'{"sub": "alice"}\';'
\set as_bob 'SET ROLE regress_sessions_client; SET request.jwt.claims = \'{"sub": "bob"}\';'
\set as_reader 'SET ROLE regress_sessions_reader; SET request.jwt.claims = \'{"sub": "alice"}\';'
\set as_service 'SET ROLE regress_sessions_service; RESET request.jwt.claims;'
\set as_owner 'RESET ROLE; RESET request.jwt.claims;'
\set show 'SELECT right(session_id::text, 2) AS id, user_id, tier, version, metadata, closed_at IS NOT NULL AS closed, updated_at > now() - interval \'1 minute\' AS touched FROM run_tracker.sessions ORDER BY session_id;'

-- a session is opened, touched, and closed for good
:as_alice
SELECT run_tracker.open_session(session_id => :s1, metadata => '{"app": "editor"}');
:show
SELECT snapshot_after, created_at > now() - interval '1 minute' AS created, updated_at >= created_at AS updated, active_hour_at = date_trunc('hour', updated_at, 'UTC') AS hour FROM run_tracker.sessions;
SELECT run_tracker.touch_session(:s1), run_tracker.touch_session(:s1);
SELECT run_tracker.close_session(:s1);
SELECT run_tracker.close_session(:s1);
:show
CALL pg_temp.try($$SELECT run_tracker.touch_session('50000000-0000-0000-0000-000000000001')$$);
CALL pg_temp.try($$SELECT run_tracker.open_session(session_id => '50000000-0000-0000-0000-000000000001')$$);
CALL pg_temp.try($$UPDATE run_tracker.sessions SET closed_at = NULL$$);
-- what is said about it may still be corrected, which changes nothing else
SELECT closed_at, updated_at FROM run_tracker.sessions \gset
UPDATE run_tracker.sessions SET metadata = '{"app": "viewer"}', closed_at = '2000-01-01';
SELECT metadata, closed_at = :'closed_at' AS same, updated_at = :'updated_at' AS same FROM run_tracker.sessions;
-- arguments
CALL pg_temp.try($$SELECT run_tracker.touch_session(NULL)$$);
CALL pg_temp.try($$SELECT run_tracker.close_session(NULL)$$);
CALL pg_temp.try($$SELECT * FROM run_tracker.read_session(NULL)$$);
CALL pg_temp.try($$SELECT run_tracker.close_session('50000000-0000-0000-0000-00000000ffff')$$);
CALL pg_temp.try($$SELECT run_tracker.touch_session('50000000-0000-0000-0000-00000000ffff')$$);
CALL pg_temp.try($$SELECT run_tracker.open_session(metadata => '[]')$$);
CALL pg_temp.try($$SELECT run_tracker.open_session('')$$);
CALL pg_temp.try($$SELECT run_tracker.open_session('bob')$$);
CALL pg_temp.try($$INSERT INTO run_tracker.sessions (user_id) VALUES ('bob')$$);
RESET request.jwt.claims;
CALL pg_temp.try($$SELECT run_tracker.open_session()$$);
:as_owner
CALL pg_temp.try($$SELECT run_tracker.open_session()$$);
CALL pg_temp.try($$SELECT run_tracker.open_session(repeat('x', 513))$$);
CALL pg_temp.try($$INSERT INTO run_tracker.sessions (user_id) VALUES ('')$$);

-- the quota: one for the tier "free"
:as_alice
SELECT run_tracker.open_session(session_id => :s2);
CALL pg_temp.try($$SELECT run_tracker.open_session()$$);
CALL pg_temp.try($$INSERT INTO run_tracker.sessions (session_id) VALUES ('50000000-0000-0000-0000-000000000003')$$);
-- the request again
SELECT run_tracker.open_session('alice', :s2, '{"ignored": true}');
INSERT INTO run_tracker.sessions (session_id) VALUES (:s2) ON CONFLICT (session_id) DO NOTHING;
INSERT INTO run_tracker.sessions (session_id) VALUES (:s2) ON CONFLICT (session_id) DO UPDATE SET metadata = '{"again": true}';
:show
-- closing makes room, by whatever statement; what is assigned does not matter
UPDATE run_tracker.sessions SET closed_at = '2000-01-01' WHERE session_id = :s2;
SELECT closed_at > now() - interval '1 minute' AS now, closed_at = updated_at AS same FROM run_tracker.sessions WHERE session_id = :s2;
INSERT INTO run_tracker.sessions (session_id) VALUES (:s3);
DO $$
BEGIN
    -- so does what is rolled back
    PERFORM run_tracker.close_session('50000000-0000-0000-0000-000000000003');
    BEGIN
        PERFORM run_tracker.open_session();
        RAISE EXCEPTION 'rolled back';
    EXCEPTION WHEN raise_exception THEN
        NULL;
    END;
    PERFORM run_tracker.open_session(session_id => '50000000-0000-0000-0000-000000000004');
END
$$;
:show
-- other limits: those of the account win; null is none, and zero is zero
:as_owner
DELETE FROM run_tracker.sessions;
SELECT run_tracker.ensure_account('alice');
UPDATE run_tracker.accounts SET overrides = '{"concurrent_sessions": 2}' WHERE user_id = 'alice';
:as_alice
-- one statement that opens several
CALL pg_temp.try($$INSERT INTO run_tracker.sessions (metadata) VALUES ('{}'), ('{}'), ('{}')$$);
CALL pg_temp.try($$WITH a AS (INSERT INTO run_tracker.sessions (metadata) VALUES ('{}'), ('{}')) INSERT INTO run_tracker.sessions (metadata) VALUES ('{}')$$);
:as_owner
COPY run_tracker.sessions (session_id, user_id) FROM stdin;
50000000-0000-0000-0000-000000000001	alice
50000000-0000-0000-0000-000000000002	alice
50000000-0000-0000-0000-000000000003	alice
\.
:as_alice
SELECT count(*) FROM run_tracker.sessions;
INSERT INTO run_tracker.sessions (session_id) VALUES (:s1), (:s2);
CALL pg_temp.try($$SELECT run_tracker.open_session()$$);
SELECT quota, used, "limit", remaining FROM run_tracker.quotas() WHERE quota = 'concurrent_sessions';
:as_owner
UPDATE run_tracker.accounts SET overrides = '{"concurrent_sessions": null}' WHERE user_id = 'alice';
:as_alice
SELECT count(run_tracker.open_session()) FROM generate_series(1, 20);
:as_owner
UPDATE run_tracker.accounts SET overrides = '{"concurrent_sessions": 0}' WHERE user_id = 'alice';
:as_alice
CALL pg_temp.try($$SELECT run_tracker.open_session()$$);
-- what is active stays so
SELECT run_tracker.touch_session(:s1);
:as_owner
DELETE FROM run_tracker.sessions;
UPDATE run_tracker.accounts SET overrides = NULL WHERE user_id = 'alice';

-- a session that was not touched for an hour is not active; touching it makes it active again if the quota allows that
:as_service
INSERT INTO run_tracker.sessions (session_id, user_id, tier, version, created_at, updated_at) VALUES
    (:old, 'alice', 'gone', 77, '2026-01-01', now() - interval '61 minutes');
:show
:as_alice
SELECT run_tracker.open_session(session_id => :s1);
CALL pg_temp.try($$SELECT run_tracker.touch_session('50000000-0000-0000-0000-00000000000d')$$);
CALL pg_temp.try($$SELECT run_tracker.open_session(session_id => '50000000-0000-0000-0000-00000000000d')$$);
CALL pg_temp.try($$SELECT run_tracker.append_delta('50000000-0000-0000-0000-00000000000d', 0, '{}')$$);
CALL pg_temp.try($$UPDATE run_tracker.sessions SET metadata = '{}' WHERE session_id = '50000000-0000-0000-0000-00000000000d'$$);
SELECT run_tracker.close_session(:s1), run_tracker.touch_session(:old);
:show
-- it can be closed in any case
:as_service
DELETE FROM run_tracker.sessions;
INSERT INTO run_tracker.sessions (session_id, user_id, created_at, updated_at) VALUES (:old, 'alice', '2026-01-01', now() - interval '30 minutes');
SELECT count(*) FROM run_tracker.active_sessions;
:as_owner
SET run_tracker.session_timeout = '10min';
:as_alice
SELECT count(*) FROM run_tracker.active_sessions;
SELECT run_tracker.open_session(session_id => :s2);
CALL pg_temp.try($$SELECT run_tracker.touch_session('50000000-0000-0000-0000-00000000000d')$$);
SELECT run_tracker.close_session(:old);
:as_owner
RESET run_tracker.session_timeout;
-- times that a service gives are kept, but not those to come; and no others change
:as_service
DELETE FROM run_tracker.sessions;
INSERT INTO run_tracker.sessions (session_id, user_id, created_at, updated_at, closed_at) VALUES
    (:s1, 'alice', '2026-01-01', '2026-01-02', '2026-01-02'), (:s2, 'alice', '2026-01-01', '-infinity', NULL), (:s3, 'alice', '2026-01-01', 'infinity', NULL);
SELECT right(session_id::text, 2) AS id, created_at::date, CASE WHEN session_id <> :s3 THEN updated_at END AS updated_at, updated_at <= clock_timestamp() AS past, closed_at::date FROM run_tracker.sessions ORDER BY 1;
UPDATE run_tracker.sessions SET tier = 'x', version = 7, snapshot_after = -1, created_at = now(), updated_at = '2026-01-01', active_hour_at = '2026-01-01' WHERE session_id = :s3;
SELECT tier, version, snapshot_after, created_at::date, updated_at > now() - interval '1 minute' AS touched, active_hour_at > now() - interval '2 hours' AS touched FROM run_tracker.sessions WHERE session_id = :s3;
CALL pg_temp.try($$UPDATE run_tracker.sessions SET user_id = 'bob' WHERE session_id = '50000000-0000-0000-0000-000000000003'$$);
CALL pg_temp.try($$UPDATE run_tracker.sessions SET session_id = '50000000-0000-0000-0000-000000000004' WHERE session_id = '50000000-0000-0000-0000-000000000003'$$);

-- deltas: versions with conflict detection
:as_service
DELETE FROM run_tracker.sessions;
:as_alice
SELECT run_tracker.open_session(session_id => :s1);
SELECT * FROM run_tracker.read_session(:s1);
SELECT run_tracker.append_delta(:s1, 0, '{"cursor": {"x": 1, "y": 2}, "open": ["a"]}');
SELECT run_tracker.append_delta(:s1, 1, '{"cursor": {"x": null, "z": 3}}');
CALL pg_temp.try($$SELECT run_tracker.append_delta('50000000-0000-0000-0000-000000000001', 1, '{"late": true}')$$);
CALL pg_temp.try($$SELECT run_tracker.append_delta('50000000-0000-0000-0000-000000000001', 3, '{"early": true}')$$);
SELECT run_tracker.append_delta(:s1, NULL, '{"in any case": true}');
SELECT * FROM run_tracker.read_session(:s1);
SELECT v, run_tracker.session_state(:s1, v) FROM generate_series(0, 3) v;
SELECT version, user_id, delta, created_at > now() - interval '1 minute' AS now FROM run_tracker.session_deltas ORDER BY version;
-- plain statements, with several rows
INSERT INTO run_tracker.session_deltas (session_id, version, delta) VALUES (:s1, 4, '{"a": 4}'), (:s1, NULL, '{"a": 5}'), (:s1, 6, '{"a": 6, "b": {}}') RETURNING version, user_id;
CALL pg_temp.try($$INSERT INTO run_tracker.session_deltas (session_id, version, delta) VALUES ('50000000-0000-0000-0000-000000000001', 7, '{}'), ('50000000-0000-0000-0000-000000000001', 7, '{}')$$);
:as_owner
COPY run_tracker.session_deltas (session_id, delta) FROM stdin;
50000000-0000-0000-0000-000000000001	{"c": 7}
50000000-0000-0000-0000-000000000001	{"c": 8}
\.
:as_alice
INSERT INTO run_tracker.session_deltas (session_id, delta) SELECT :s1, delta FROM run_tracker.session_deltas ORDER BY version LIMIT 2;
SELECT * FROM run_tracker.read_session(:s1);
-- a session that the same statement opens
:as_service
WITH s AS (INSERT INTO run_tracker.sessions (session_id, user_id) VALUES (:s2, 'bob') RETURNING session_id)
INSERT INTO run_tracker.session_deltas (session_id, delta) SELECT s.session_id, jsonb_build_object('n', n) FROM s, generate_series(1, 3) n RETURNING version, user_id;
SELECT * FROM run_tracker.read_session(:s2);
-- refused: all of it, or nothing
:as_alice
CALL pg_temp.try($$SELECT run_tracker.append_delta(NULL, 0, '{}')$$);
CALL pg_temp.try($$SELECT run_tracker.append_delta('50000000-0000-0000-0000-000000000001', NULL, NULL)$$);
CALL pg_temp.try($$SELECT run_tracker.append_delta('50000000-0000-0000-0000-000000000001', -1, '{}')$$);
CALL pg_temp.try($$SELECT run_tracker.append_delta('50000000-0000-0000-0000-000000000001', 9223372036854775807, '{}')$$);
CALL pg_temp.try($$SELECT run_tracker.append_delta('50000000-0000-0000-0000-000000000001', NULL, '[1]')$$);
CALL pg_temp.try($$SELECT run_tracker.append_delta('50000000-0000-0000-0000-000000000001', NULL, 'null')$$);
CALL pg_temp.try($$SELECT run_tracker.append_delta('50000000-0000-0000-0000-00000000ffff', NULL, '{}')$$);
CALL pg_temp.try($$INSERT INTO run_tracker.session_deltas (delta) VALUES ('{}')$$);
CALL pg_temp.try($$INSERT INTO run_tracker.session_deltas (session_id) VALUES ('50000000-0000-0000-0000-000000000001')$$);
CALL pg_temp.try($$INSERT INTO run_tracker.session_deltas (session_id, version, delta) VALUES ('50000000-0000-0000-0000-000000000001', 0, '{}')$$);
CALL pg_temp.try($$INSERT INTO run_tracker.session_deltas (session_id, user_id, delta) VALUES ('50000000-0000-0000-0000-000000000001', 'bob', '{}')$$);
CALL pg_temp.try($$SELECT run_tracker.session_state('50000000-0000-0000-0000-00000000ffff')$$);
CALL pg_temp.try($$SELECT run_tracker.session_state(NULL)$$);
CALL pg_temp.try($$SELECT * FROM run_tracker.read_session('50000000-0000-0000-0000-00000000ffff')$$);
CALL pg_temp.try($$SELECT run_tracker.session_state('50000000-0000-0000-0000-000000000001', 11)$$);
CALL pg_temp.try($$SELECT run_tracker.session_state('50000000-0000-0000-0000-000000000001', -1)$$);
BEGIN READ ONLY;
SELECT * FROM run_tracker.read_session(:s1);
SAVEPOINT s;
SELECT run_tracker.append_delta(:s1, NULL, '{}');
ROLLBACK TO s;
SELECT run_tracker.touch_session(:s1);
ROLLBACK;
-- savepoints
BEGIN;
SELECT run_tracker.append_delta(:s1, 10, '{"kept": 1}');
SAVEPOINT s;
SELECT run_tracker.append_delta(:s1, 11, '{"kept": 2}'), run_tracker.append_delta(:s1, 12, '{"kept": 3}');
ROLLBACK TO s;
SELECT run_tracker.append_delta(:s1, 11, '{"kept": 4}');
COMMIT;
SELECT * FROM run_tracker.read_session(:s1);
-- history does not change, not even by services and owner
:as_owner
CALL pg_temp.try($$UPDATE run_tracker.session_deltas SET delta = '{}'$$);
:as_service
CALL pg_temp.try($$DELETE FROM run_tracker.session_deltas$$);
CALL pg_temp.try($$UPDATE run_tracker.session_snapshots SET state = '{}'$$);
-- nothing comes after the end, but the state can be read
:as_alice
SELECT run_tracker.close_session(:s1);
CALL pg_temp.try($$SELECT run_tracker.append_delta('50000000-0000-0000-0000-000000000001', NULL, '{}')$$);
SELECT * FROM run_tracker.read_session(:s1);

-- the state after 10,000 deltas: read from a snapshot and few deltas
:as_service
DELETE FROM run_tracker.sessions;
:as_alice
SELECT run_tracker.open_session(session_id => :s1);
DO $$
BEGIN
    FOR i IN 1 .. 10000 LOOP
        PERFORM run_tracker.append_delta('50000000-0000-0000-0000-000000000001', i - 1,
            jsonb_build_object('k' || i % 100, CASE WHEN i % 7 > 0 THEN i END, 'nested', jsonb_build_object('n' || i % 50, jsonb_build_object('v', i, 'w' || i % 3, '[null]'::jsonb))));
        IF i % 1000 = 0 THEN
            COMMIT;
        END IF;
    END LOOP;
END
$$;
SELECT version FROM run_tracker.read_session(:s1);
SELECT r.state = (SELECT run_tracker.merge_patches(d.delta ORDER BY d.version) FROM run_tracker.session_deltas d WHERE d.session_id = :s1) AS same,
       length(r.state::text) > 4000 AS large FROM run_tracker.read_session(:s1) r;
SELECT count(*) AS snapshots, min(s.version - p.version) < 200 AS few_deltas_since, bool_and(p.state = run_tracker.session_state(s.session_id, p.version)) AS same
FROM run_tracker.session_snapshots p JOIN run_tracker.sessions s USING (session_id, user_id);
SELECT count(*) FILTER (WHERE run_tracker.session_state(:s1, v) IS DISTINCT FROM (SELECT run_tracker.merge_patches(d.delta ORDER BY d.version) FROM run_tracker.session_deltas d WHERE d.session_id = :s1 AND d.version <= v)) AS different
FROM unnest('{1, 50, 5000, 9000, 9950, 9999, 10000}'::bigint[]) v;
-- older deltas are history: without them, only the states before the snapshot are gone
:as_owner
DELETE FROM run_tracker.session_deltas WHERE version <= (SELECT version FROM run_tracker.session_snapshots);
:as_alice
SELECT length(run_tracker.session_state(:s1)::text) > 4000 AS readable;
CALL pg_temp.try($$SELECT run_tracker.session_state('50000000-0000-0000-0000-000000000001', 9000)$$);
SELECT run_tracker.append_delta(:s1, 10000, '{"more": true}');

-- sizes
:as_owner
SET run_tracker.max_payload = '64kB';
:as_service
DELETE FROM run_tracker.sessions;
:as_alice
SELECT run_tracker.open_session(session_id => :s1);
CALL pg_temp.try($$SELECT run_tracker.append_delta('50000000-0000-0000-0000-000000000001', NULL, jsonb_build_object('a', repeat('x', 70000)))$$);
CALL pg_temp.try($$SELECT run_tracker.open_session(session_id => '50000000-0000-0000-0000-000000000002', metadata => jsonb_build_object('a', repeat('x', 70000)))$$);
SELECT run_tracker.append_delta(:s1, 0, jsonb_build_object('a', repeat('x', 40000)));
SELECT run_tracker.append_delta(:s1, 1, jsonb_build_object('b', repeat('x', 20000)));
CALL pg_temp.try($$SELECT run_tracker.append_delta('50000000-0000-0000-0000-000000000001', NULL, jsonb_build_object('c', repeat('x', 40000)))$$);
-- what makes room is let in
SELECT run_tracker.append_delta(:s1, 2, jsonb_build_object('a', NULL, 'c', repeat('y', 40000)));
SELECT version, length(state::text) FROM run_tracker.read_session(:s1);
:as_owner
RESET run_tracker.max_payload;
:as_alice
SELECT run_tracker.append_delta(:s1, 3, jsonb_build_object('c', repeat('z', 16000000)));
SELECT version, length(state::text) FROM run_tracker.read_session(:s1);
CALL pg_temp.try($$SELECT run_tracker.append_delta('50000000-0000-0000-0000-000000000001', 4, jsonb_build_object('d', repeat('z', 17000000)))$$);
SELECT run_tracker.append_delta(:s1, 4, (repeat('{"a":', 3000) || '1' || repeat('}', 3000))::jsonb);
SELECT run_tracker.append_delta(:s1, 5, '{"c": null, "a": null}');
SELECT version, length(state::text) FROM run_tracker.read_session(:s1);

-- other users: what is not theirs is not there
:as_service
DELETE FROM run_tracker.sessions;
INSERT INTO run_tracker.sessions (session_id, user_id) VALUES (:s1, 'alice'), (:s2, 'bob');
SELECT run_tracker.append_delta(:s1, 0, jsonb_build_object('secret', 'of alice', 'long', repeat('x', 9000)));
CREATE TEMP TABLE before AS SELECT to_jsonb(s) AS session, to_jsonb(d) AS delta, to_jsonb(p) AS snapshot FROM run_tracker.sessions s JOIN run_tracker.session_deltas d USING (session_id) JOIN run_tracker.session_snapshots p USING (session_id) WHERE s.user_id = 'alice';
SELECT count(*) FROM before;
:as_bob
CALL pg_temp.try($$SELECT run_tracker.open_session(session_id => '50000000-0000-0000-0000-000000000001')$$);
SELECT run_tracker.close_session(:s2);
CALL pg_temp.try($$SELECT run_tracker.open_session(session_id => '50000000-0000-0000-0000-000000000001')$$);
CALL pg_temp.try($$SELECT run_tracker.open_session('alice', '50000000-0000-0000-0000-000000000001')$$);
CALL pg_temp.try($$SELECT run_tracker.touch_session('50000000-0000-0000-0000-000000000001')$$);
CALL pg_temp.try($$SELECT run_tracker.close_session('50000000-0000-0000-0000-000000000001')$$);
CALL pg_temp.try($$SELECT run_tracker.append_delta('50000000-0000-0000-0000-000000000001', 0, '{}')$$);
CALL pg_temp.try($$SELECT run_tracker.append_delta('50000000-0000-0000-0000-000000000001', 1, '{}')$$);
CALL pg_temp.try($$SELECT run_tracker.session_state('50000000-0000-0000-0000-000000000001')$$);
CALL pg_temp.try($$SELECT run_tracker.session_state('50000000-0000-0000-0000-000000000001', 1)$$);
CALL pg_temp.try($$INSERT INTO run_tracker.session_deltas (session_id, user_id, delta) VALUES ('50000000-0000-0000-0000-000000000001', 'alice', '{}')$$);
CALL pg_temp.try($$INSERT INTO run_tracker.session_deltas (session_id, user_id, delta) VALUES ('50000000-0000-0000-0000-000000000001', 'bob', '{}')$$);
UPDATE run_tracker.sessions SET closed_at = now() WHERE session_id = :s1;
SELECT user_id FROM run_tracker.sessions UNION ALL SELECT user_id FROM run_tracker.session_deltas UNION ALL SELECT user_id FROM run_tracker.session_snapshots UNION ALL SELECT user_id FROM run_tracker.active_sessions;
-- nor can they write what is computed, or delete anything
CALL pg_temp.try($$UPDATE run_tracker.sessions SET version = 9$$);
CALL pg_temp.try($$UPDATE run_tracker.sessions SET tier = 'pro'$$);
CALL pg_temp.try($$UPDATE run_tracker.sessions SET updated_at = '2026-01-01'$$);
CALL pg_temp.try($$UPDATE run_tracker.sessions SET active_hour_at = '2026-01-01'$$);
CALL pg_temp.try($$INSERT INTO run_tracker.sessions (updated_at) VALUES ('2026-01-01')$$);
CALL pg_temp.try($$INSERT INTO run_tracker.sessions (closed_at) VALUES ('2026-01-01')$$);
CALL pg_temp.try($$INSERT INTO run_tracker.session_deltas (session_id, delta, created_at) VALUES ('50000000-0000-0000-0000-000000000002', '{}', '2026-01-01')$$);
CALL pg_temp.try($$UPDATE run_tracker.session_deltas SET delta = '{}'$$);
CALL pg_temp.try($$DELETE FROM run_tracker.sessions$$);
CALL pg_temp.try($$DELETE FROM run_tracker.session_deltas$$);
CALL pg_temp.try($$INSERT INTO run_tracker.session_snapshots (session_id) VALUES ('50000000-0000-0000-0000-000000000002')$$);
CALL pg_temp.try($$SELECT run_tracker.purge_sessions()$$);
CALL pg_temp.try($$SET run_tracker.session_timeout = '1s'$$);
:as_owner
SELECT count(*) FROM (SELECT to_jsonb(s), to_jsonb(d), to_jsonb(p) FROM run_tracker.sessions s JOIN run_tracker.session_deltas d USING (session_id) JOIN run_tracker.session_snapshots p USING (session_id) WHERE s.user_id = 'alice' INTERSECT TABLE before) v;
-- readers read
:as_reader
SELECT state - 'long' AS state FROM run_tracker.read_session(:s1);
CALL pg_temp.try($$SELECT run_tracker.open_session()$$);
CALL pg_temp.try($$SELECT run_tracker.append_delta('50000000-0000-0000-0000-000000000001', NULL, '{}')$$);

-- active sessions with their runs
:as_alice
SELECT run_tracker.create_run('51000000-0000-0000-0000-000000000001', session_id => :s1), run_tracker.create_run('51000000-0000-0000-0000-000000000002', session_id => :s1);
SELECT run_tracker.complete_run('51000000-0000-0000-0000-000000000001');
UPDATE run_tracker.runs SET status = 'running' WHERE run_id = '51000000-0000-0000-0000-000000000002';
:as_bob
-- one that claims to belong there does not
SELECT run_tracker.create_run('51000000-0000-0000-0000-000000000003', session_id => :s1);
:as_service
SELECT right(session_id::text, 2) AS id, user_id, tier, version, expires_at - updated_at AS timeout, run_count, open_run_count, right(last_run_id::text, 2) AS last_run, last_run_status FROM run_tracker.active_sessions;
:as_alice
SELECT right(session_id::text, 2) AS id, run_count FROM run_tracker.active_sessions;

-- a session takes with it what belongs to it; purging leaves alone what is active, or newer
:as_service
SELECT run_tracker.purge_sessions('0');
:show
CALL pg_temp.try($$SELECT run_tracker.purge_sessions('-1 day')$$);
CALL pg_temp.try($$SELECT run_tracker.purge_sessions(NULL)$$);
CALL pg_temp.try($$SELECT run_tracker.purge_sessions(max_sessions => 0)$$);
INSERT INTO run_tracker.sessions (session_id, user_id, created_at, updated_at) SELECT ('52000000-0000-0000-0000-0000000000' || 10 + n)::uuid, 'u' || n, now() - interval '40 days' + n * interval '1 hour', now() - n * interval '20 days' FROM generate_series(1, 5) n;
SELECT run_tracker.append_delta(session_id, 0, '{"a": 1}') FROM run_tracker.sessions WHERE user_id = 'u1';
SELECT run_tracker.purge_sessions(max_sessions => 1), run_tracker.purge_sessions(max_sessions => 2);
SELECT user_id FROM run_tracker.sessions ORDER BY 1;
SELECT run_tracker.purge_sessions(), run_tracker.purge_sessions();
SELECT run_tracker.close_session(:s1);
SELECT run_tracker.purge_sessions('0');
SELECT s.user_id, (SELECT count(*) FROM run_tracker.session_deltas), (SELECT count(*) FROM run_tracker.session_snapshots) FROM run_tracker.sessions s;
:as_owner
TRUNCATE run_tracker.sessions;
SELECT (SELECT count(*) FROM run_tracker.session_deltas), (SELECT count(*) FROM run_tracker.session_snapshots);

-- appending changes no index but that of deltas, and few rows are written twice
:as_service
SELECT run_tracker.open_session('alice', :s1);
:as_owner
BEGIN;
CREATE TEMP TABLE counts AS SELECT relname, n_tup_ins, n_tup_upd, n_tup_hot_upd FROM pg_stat_xact_user_tables WHERE schemaname = 'run_tracker';
SELECT count(run_tracker.append_delta(:s1, NULL, '{"a": 1}')) FROM generate_series(1, 20);
SELECT relname, s.n_tup_ins - c.n_tup_ins AS inserted, s.n_tup_upd - c.n_tup_upd AS updated, s.n_tup_hot_upd - c.n_tup_hot_upd >= s.n_tup_upd - c.n_tup_upd - 1 AS hot
FROM pg_stat_xact_user_tables s JOIN counts c USING (relname) WHERE schemaname = 'run_tracker' AND s.n_tup_ins + s.n_tup_upd > c.n_tup_ins + c.n_tup_upd ORDER BY 1;
COMMIT;
-- how many sessions are active is counted by an index, however many there have been
INSERT INTO run_tracker.sessions (user_id, created_at, updated_at) SELECT 'alice', now() - n * interval '1 day', now() - n * interval '1 day' FROM generate_series(1, 3000) n;
CALL pg_temp.try($$SELECT run_tracker.open_session('alice')$$);
-- triggers come back
DROP TRIGGER zz_run_tracker_before ON run_tracker.sessions;
DROP TRIGGER zz_run_tracker_before ON run_tracker.session_deltas;
DROP TRIGGER run_tracker_delete ON run_tracker.sessions;
CALL pg_temp.try($$SELECT run_tracker.open_session('alice', '50000000-0000-0000-0000-000000000002')$$);
CALL pg_temp.try($$SELECT run_tracker.append_delta('50000000-0000-0000-0000-000000000001', NULL, '{}')$$);
DELETE FROM run_tracker.sessions;
SELECT count(*) FROM run_tracker.session_deltas;
SELECT run_tracker.install();
SELECT run_tracker.install();
CALL pg_temp.try($$SELECT run_tracker.append_delta(run_tracker.open_session('alice'), NULL, '{}')$$);
CALL pg_temp.try($$SELECT run_tracker.open_session('alice')$$);

DELETE FROM run_tracker.sessions;
SELECT (SELECT count(*) FROM run_tracker.session_deltas), (SELECT count(*) FROM run_tracker.session_snapshots);
DELETE FROM run_tracker.runs;
DELETE FROM run_tracker.accounts;
DROP OWNED BY regress_sessions_client, regress_sessions_service, regress_sessions_reader;
DROP ROLE regress_sessions_client, regress_sessions_service, regress_sessions_reader;
