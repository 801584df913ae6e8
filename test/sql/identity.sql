--
-- Identity: current_user_id() is the subject that the gateway has put into the claims, or nothing: malformed claims
-- are never an error, and nobody but a superuser chooses where the identity comes from.
--
\getenv abs_srcdir PG_ABS_SRCDIR
\set common :abs_srcdir '/sql/common.psql'
\i :common

\set password ''
\getenv password PGPASSWORD
CREATE ROLE regress_identity_client LOGIN PASSWORD :'password';
CREATE ROLE regress_identity_service;
CREATE ROLE regress_identity_nobody;
SELECT run_tracker.grant_client('regress_identity_client');
SELECT run_tracker.grant_service('regress_identity_service');

-- no claims at all
SELECT run_tracker.current_user_id();

-- claims of all kinds: some have a subject, the others none; none is an error
CREATE TEMP TABLE claims (id integer GENERATED ALWAYS AS IDENTITY, claims text);
INSERT INTO claims (claims) VALUES
    ('{"sub": "alice"}'), ('{"role": "x", "sub": "alice", "exp": 1}'), ('{"sub":"b8d5c1ee-0000-4000-8000-000000000000"}'),
    (' {"sub" : "alice"} '), ('{"sub": " alice "}'), ('{"sub": "0"}'), ('{"sub": "null"}'),
    ('{"sub": "auth0|5f7c8ec7c33c6c004bbafe82"}'),
    -- other characters, escaped ones too, in value and key
    ('{"sub": "Zoë 東京 🚀"}'), ('{"sub": "Zo\u00eb \ud83d\ude80"}'), ('{"\u0073ub": "alice"}'), ('{"sub": "a\"b\\c\nd"}'),
    -- nothing there
    (''), (' '), ('{}'), ('{"role": "x"}'), ('{"SUB": "alice"}'), ('{"sub ": "alice"}'),
    -- no string
    ('{"sub": null}'), ('{"sub": ""}'), ('{"sub": 5}'), ('{"sub": true}'), ('{"sub": {}}'), ('{"sub": []}'),
    -- no object
    ('null'), ('[1]'), ('"x"'), ('"sub"'), ('5'), ('["sub", "alice"]'), ('[{"sub": "alice"}]'),
    -- another object's
    ('{"a": {"sub": "mallory"}}'), ('{"sub": {"sub": "mallory"}}'), ('{"sub": ["mallory"]}'),
    ('{"sub": {"x": {}}, "a": "mallory"}'), ('{"a": [{"sub": "mallory"}], "sub": "alice"}'),
    ('{"sub": "alice", "a": {"sub": "mallory"}}'), ('{"sub": "alice", "a": ["mallory"]}'),
    -- twice: the last one counts, as everywhere in PostgreSQL
    ('{"sub": "mallory", "sub": "alice"}'), ('{"sub": "alice", "sub": null}'), ('{"sub": "alice", "sub": 5}'),
    ('{"sub": "alice", "sub": ""}'), ('{"sub": "alice", "sub": {"sub": "mallory"}}'),
    -- malformed
    ('{bad'), ('{"sub": "alice"'), ('{"sub": "alice"} x'), ('{"sub": "alice",}'), ('{sub: "alice"}'), ('{''sub'': ''alice''}'),
    ('{"sub": "ali'), ('alice'), ('{"sub": "a\u0000b"}'), ('{"sub": "\ud83d"}'), ('{"sub": "\u12"}'), ('{"sub": "\q"}'),
    ('{"sub": "alice"}{"sub": "mallory"}'), ('{"sub" "alice"}'), ('{"a" {"sub": "alice"}}'), ('}'), ('{"sub": "a	b"}'),
    ('{"sub": "alice", "a": nul}'), ('{"sub": "alice", "a": 01}');
CREATE FUNCTION pg_temp.user_of(claims text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('request.jwt.claims', claims, true);
    RETURN run_tracker.current_user_id();
EXCEPTION WHEN OTHERS THEN
    RETURN 'ERROR ' || SQLSTATE || ': ' || SQLERRM;
END
$$;
SELECT claims, pg_temp.user_of(claims) FROM claims ORDER BY id;
-- where claims have a string, jsonb reads the same one out of them
CREATE FUNCTION pg_temp.jsonb_user(claims text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    RETURN CASE jsonb_typeof(claims::jsonb -> 'sub') WHEN 'string' THEN NULLIF(claims::jsonb ->> 'sub', '') END;
EXCEPTION WHEN data_exception THEN
    RETURN NULL;
END
$$;
SELECT claims, pg_temp.user_of(claims) FROM claims WHERE pg_temp.user_of(claims) IS DISTINCT FROM pg_temp.jsonb_user(claims);

-- nested deeply, and long
SELECT pg_temp.user_of(repeat('[', 16000)) IS NULL AS arrays, pg_temp.user_of('{"sub": "alice", "a": ' || repeat('[', 16000)) IS NULL AS inside;
SELECT pg_temp.user_of('{"a": ' || repeat('[', 100) || repeat(']', 100) || ', "sub": "alice"}');
SELECT pg_temp.user_of(repeat('{"sub":', 2300)) IS NULL AS objects, pg_temp.user_of(repeat('{"sub":', 1000) || '"mallory"' || repeat('}', 1000)) IS NULL AS closed;
SET max_stack_depth = '100kB';
SELECT pg_temp.user_of(repeat('[', 16000)) IS NULL AS arrays, pg_temp.user_of(repeat('{"a":', 3000) || '1' || repeat('}', 3000)) IS NULL AS closed;
RESET max_stack_depth;
SELECT length(pg_temp.user_of('{"sub": "' || repeat('a', 10000) || '"}'));
SELECT pg_temp.user_of('{"sub": "alice", "a": "' || repeat('a', 1000000) || '"}');

-- the older setting, one for each claim, counts only where there are no claims
SET request.jwt.claim.sub = 'carol';
SELECT run_tracker.current_user_id();
SELECT pg_temp.user_of(''), pg_temp.user_of('{"sub": "alice"}'), pg_temp.user_of('{}'), pg_temp.user_of('{bad');
SET request.jwt.claim.sub = '';
SELECT run_tracker.current_user_id();
SET request.jwt.claim.sub = 'Zoë "quoted" {"sub": "x"}';
SELECT run_tracker.current_user_id();
RESET request.jwt.claim.sub;

-- with identity = role, the role is the user, whatever the claims say
SET run_tracker.identity = 'role';
SET request.jwt.claims = '{"sub": "mallory"}';
SET ROLE regress_identity_client;
SELECT run_tracker.current_user_id();
RESET ROLE;
SELECT run_tracker.current_user_id() = current_user AS is_role;
RESET run_tracker.identity;
SELECT run_tracker.current_user_id();
CALL pg_temp.try($$SET run_tracker.identity = 'both'$$);

-- users cannot change the settings, nor make up new ones
SET ROLE regress_identity_client;
CALL pg_temp.try($$SET run_tracker.identity = 'role'$$);
CALL pg_temp.try($$SELECT set_config('run_tracker.identity', 'role', true)$$);
CALL pg_temp.try($$ALTER ROLE regress_identity_client SET run_tracker.identity = 'role'$$);
CALL pg_temp.try($$SET run_tracker.max_payload = '1GB'$$);
CALL pg_temp.try($$SET run_tracker.task_transitions = on$$);
CALL pg_temp.try($$SET run_tracker.no_such_setting = 1$$);
SHOW run_tracker.identity;
RESET ROLE;

-- services: superusers, the owner, roles that grant_service() was called for and their members
SELECT run_tracker.is_service();
SET ROLE regress_identity_client;
SELECT run_tracker.is_service();
SET ROLE regress_identity_service;
SELECT run_tracker.is_service();
RESET ROLE;
GRANT regress_identity_service TO regress_identity_client;
SET ROLE regress_identity_client;
SELECT run_tracker.is_service();
RESET ROLE;
REVOKE regress_identity_service FROM regress_identity_client;
SET ROLE regress_identity_nobody;
CALL pg_temp.try('SELECT run_tracker.current_user_id()');
CALL pg_temp.try('SELECT run_tracker.is_service()');
RESET ROLE;

-- no user known: a client cannot create a run, a service's belongs to nobody
RESET request.jwt.claims;
SET ROLE regress_identity_client;
CALL pg_temp.try('SELECT run_tracker.create_run()');
CALL pg_temp.try($$SELECT run_tracker.create_run(user_id => '')$$);
CALL pg_temp.try($$SELECT run_tracker.create_run(user_id => 'alice')$$);
SET request.jwt.claims = '{"sub": ""}';
CALL pg_temp.try('SELECT run_tracker.create_run()');
CALL pg_temp.try($$SELECT run_tracker.create_run(user_id => '')$$);
RESET request.jwt.claims;
SET ROLE regress_identity_service;
SELECT count(run_tracker.create_run(name => 'of nobody'));
SELECT user_id = '' AS nobody FROM run_tracker.runs WHERE name = 'of nobody';
SET ROLE regress_identity_client;
SET request.jwt.claims = '{"sub": ""}';
SELECT count(*) FROM run_tracker.runs;
RESET ROLE;
DELETE FROM run_tracker.runs;

--
-- A setting made before the library is loaded is only a placeholder: it must not count either.
--
\set superuser :USER
\set database :DBNAME
SELECT 'ALTER DATABASE ' || quote_ident(:'database') || ' SET run_tracker.identity = ''role''' AS alter_database \gset
:alter_database;
\c - regress_identity_client
SET request.jwt.claims = '{"sub": "mallory"}';
SET client_min_messages = error;
SET run_tracker.identity = 'jwt';
SELECT run_tracker.current_user_id();
RESET client_min_messages;
SHOW run_tracker.identity;
-- … nor one that comes with the connection
\setenv PGOPTIONS '-c run_tracker.identity=jwt -c client_min_messages=error'
\c
SET request.jwt.claims = '{"sub": "mallory"}';
SELECT run_tracker.current_user_id();
-- … nor one of the user's own role
\setenv PGOPTIONS ''
\c
DO $$
BEGIN
    ALTER ROLE regress_identity_client SET run_tracker.identity = 'jwt';
EXCEPTION WHEN insufficient_privilege THEN
    RAISE INFO '%', SQLSTATE;
END
$$;
\c - :superuser
SELECT 'ALTER DATABASE ' || quote_ident(:'database') || ' RESET run_tracker.identity' AS alter_database \gset
:alter_database;

DROP OWNED BY regress_identity_client, regress_identity_service, regress_identity_nobody;
DROP ROLE regress_identity_client, regress_identity_service, regress_identity_nobody;
