--
-- Callbacks: who is believed, what they do to a run, and what is kept of those that do nothing.
--
\getenv abs_srcdir PG_ABS_SRCDIR
\set common :abs_srcdir '/sql/common.psql'
\i :common
SET client_min_messages = warning;

CREATE ROLE regress_callback_web;
CREATE ROLE regress_callback_client;
CREATE ROLE regress_callback_service;
CREATE ROLE regress_callback_owner;
SELECT run_tracker.grant_callback('regress_callback_web');
SELECT run_tracker.grant_client('regress_callback_client');
SELECT run_tracker.grant_service('regress_callback_service');

-- HMAC-SHA-256 as RFC 2104 defines it, without the code that is tested
CREATE FUNCTION pg_temp.hmac(data bytea, key bytea) RETURNS text LANGUAGE sql AS $$
    SELECT encode(sha256((SELECT string_agg(set_byte('\x00', 0, get_byte(k, i) # 92), '' ORDER BY i) FROM generate_series(0, 63) i)
        || sha256((SELECT string_agg(set_byte('\x00', 0, get_byte(k, i) # 54), '' ORDER BY i) FROM generate_series(0, 63) i) || data)), 'hex')
    FROM (SELECT (CASE WHEN length(key) > 64 THEN sha256(key) ELSE key END) || decode(repeat('00', 64), 'hex')) AS v (k)
$$;
-- test cases 1, 2 and 6 of RFC 4231
SELECT pg_temp.hmac('Hi There', decode(repeat('0b', 20), 'hex')) = 'b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7' AS case_1,
       pg_temp.hmac('what do ya want for nothing?', 'Jefe') = '5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843' AS case_2,
       pg_temp.hmac('Test Using Larger Than Block-Size Key - Hash Key First', decode(repeat('aa', 131), 'hex'))
           = '60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54' AS case_6;
CREATE FUNCTION pg_temp.sign(data text, key text) RETURNS text LANGUAGE sql AS
$$ SELECT pg_temp.hmac(convert_to(data, 'UTF8'), convert_to(key, 'UTF8')) $$;

--
-- Keys
--
\set key '\'It is a secret, do not tell it\''
SELECT key_id AS hmac_key, secret FROM run_tracker.create_callback_key('n8n', secret => :key) \gset
SELECT :'secret' = :key AS shown;
SELECT key_id AS secret_key FROM run_tracker.create_callback_key('make', 'secret', 'sixteen bytes ..') \gset
SELECT length(secret) AS generated FROM run_tracker.create_callback_key('spare', method => 'secret', for_kind => 'spare');
SELECT name, method, hash IS NOT NULL AS hash, length(salt) AS salt, convert_from(hmac_secret, 'UTF8') AS hmac_secret, for_kind,
       require_timestamp, expires_at
FROM run_tracker.callback_keys ORDER BY created_at;
SELECT hash = sha256(salt || 'sixteen bytes ..') AS salted FROM run_tracker.callback_keys WHERE name = 'make';
-- two keys are made of the same secret, and do not look like it
SELECT n, secret FROM unnest('{a,b}'::text[]) n, run_tracker.create_callback_key(n, 'secret', 'the same secret ...');
SELECT count(DISTINCT hash), count(DISTINCT salt) FROM run_tracker.callback_keys WHERE name IN ('a', 'b');
CALL pg_temp.try($$SELECT run_tracker.create_callback_key('n8n')$$);
CALL pg_temp.try($$SELECT run_tracker.create_callback_key('x', secret => 'fifteen bytes..')$$);
CALL pg_temp.try($$SELECT run_tracker.create_callback_key('x', secret => repeat('x', 1025))$$);
CALL pg_temp.try($$SELECT run_tracker.create_callback_key('x', 'md5')$$);
CALL pg_temp.try($$SELECT run_tracker.create_callback_key('x', 'secret', require_timestamp => true)$$);
CALL pg_temp.try($$SELECT run_tracker.create_callback_key('')$$);
CALL pg_temp.try($$SELECT run_tracker.create_callback_key(repeat('x', 513))$$);
CALL pg_temp.try($$SELECT run_tracker.create_callback_key(NULL)$$);
CALL pg_temp.try($$SELECT run_tracker.create_callback_key('x', NULL)$$);
CALL pg_temp.try($$SELECT run_tracker.create_callback_key('x', for_kind => '')$$);
CALL pg_temp.try($$SELECT run_tracker.rotate_callback_key('nobody')$$);
CALL pg_temp.try($$SELECT run_tracker.rotate_callback_key('n8n', '-1 day')$$);
CALL pg_temp.try($$SELECT run_tracker.rotate_callback_key('n8n', NULL)$$);
CALL pg_temp.try($$SELECT run_tracker.drop_callback_key(NULL)$$);
SELECT run_tracker.drop_callback_key(key_id) FROM run_tracker.callback_keys WHERE name IN ('a', 'b');
SELECT run_tracker.drop_callback_key('00000000-0000-0000-0000-000000000000');
BEGIN READ ONLY;
SELECT run_tracker.create_callback_key('x');
ROLLBACK;

--
-- Who is believed
--
INSERT INTO run_tracker.runs (run_id, user_id, lifecycle, kind, timeout)
SELECT format('ca110000-0000-0000-0000-0000000000%s', lpad(i::text, 2, '0'))::uuid, 'alice', 'spar', 'entry', '1 hour' FROM generate_series(1, 20) i;
CREATE FUNCTION pg_temp.kept() RETURNS TABLE (run text, user_id text, attempt integer, outcome text, reason text, status text, payload text)
LANGUAGE sql AS $$
    SELECT right(run_id::text, 2), user_id, attempt, outcome, reason, status, left(payload::text, 80) FROM run_tracker.callbacks ORDER BY callback_id
$$;
\set p1 '\'{"runId": "ca110000-0000-0000-0000-000000000001",  "status": "processing"}\''
\set s1 '\'83c0f8d3b3d74891fe4dc06b1cd092b7a1c4525d95ba067ab3eccf3ad4a5fece\''
SELECT pg_temp.sign(:p1, :key) = :s1 AS same_answer;
SET ROLE regress_callback_web;
-- wrong credentials, all with the same error
CALL pg_temp.try(format('SELECT run_tracker.callback_signed(%L, %L)', :p1, overlay(:s1 PLACING '0' FROM 1)));
CALL pg_temp.try(format('SELECT run_tracker.callback_signed(%L, %L)', :p1, overlay(:s1 PLACING '0' FROM 64)));
CALL pg_temp.try(format('SELECT run_tracker.callback_signed(%L, %L)', :p1, left(:s1, 63)));
CALL pg_temp.try(format('SELECT run_tracker.callback_signed(%L, %L)', :p1, :s1 || '0'));
CALL pg_temp.try(format('SELECT run_tracker.callback_signed(%L, %L)', :p1, 'sha1=' || :s1));
CALL pg_temp.try(format('SELECT run_tracker.callback_signed(%L, %L)', :p1, 'sha256=sha256=' || :s1));
CALL pg_temp.try(format('SELECT run_tracker.callback_signed(%L, %L)', :p1, translate(:s1, '0123456789', 'ghijklmnop')));
CALL pg_temp.try(format('SELECT run_tracker.callback_signed(%L, %L)', :p1, ''));
CALL pg_temp.try(format('SELECT run_tracker.callback_signed(%L)', :p1));
CALL pg_temp.try(format('SELECT run_tracker.callback_signed(%L, %L)', replace(:p1, '  ', ' '), :s1));
CALL pg_temp.try(format('SELECT run_tracker.callback_secret(%L, %L)', :p1, :key));
CALL pg_temp.try(format('SELECT run_tracker.callback_secret(%L, %L)', :p1, 'sixteen bytes .'));
CALL pg_temp.try(format('SELECT run_tracker.callback_secret(%L, %L)', :p1, 'sixteen bytes ...'));
CALL pg_temp.try(format('SELECT run_tracker.callback_secret(%L, %L)', :p1, ''));
CALL pg_temp.try(format('SELECT run_tracker.callback_secret(%L)', :p1));
CALL pg_temp.try(format('SELECT run_tracker.callback(%L)', :p1));
-- the payload does not count before the credentials do, nor does the run
CALL pg_temp.try($$SELECT run_tracker.callback_secret('{"runId": 7}', 'x')$$);
CALL pg_temp.try($$SELECT run_tracker.callback_secret('[]', 'x')$$);
CALL pg_temp.try($$SELECT run_tracker.callback_secret('{"runId": "00000000-0000-0000-0000-000000000000"}', 'x')$$);
CALL pg_temp.try($$SELECT run_tracker.callback_secret(NULL, 'x')$$);
-- headers that are none
SET request.headers = '{"x-signature-256": ';
CALL pg_temp.try(format('SELECT run_tracker.callback(%L)', :p1));
SET request.headers = '["x-spar-auth", "sixteen bytes .."]';
CALL pg_temp.try(format('SELECT run_tracker.callback(%L)', :p1));
SET request.headers = '{"x": {"x-spar-auth": "sixteen bytes .."}}';
CALL pg_temp.try(format('SELECT run_tracker.callback(%L)', :p1));
SET request.headers = '{"x-spar-auth": ["sixteen bytes .."]}';
CALL pg_temp.try(format('SELECT run_tracker.callback(%L)', :p1));
-- a bad signature is not made good by a good secret
SET request.headers = '{"x-signature-256": "00", "x-spar-auth": "sixteen bytes .."}';
CALL pg_temp.try(format('SELECT run_tracker.callback(%L)', :p1));
RESET request.headers;
BEGIN READ ONLY;
SELECT run_tracker.callback_signed(:p1, :s1);
ROLLBACK;
RESET ROLE;
SELECT count(*) AS stored FROM run_tracker.callbacks;
BEGIN;
DELETE FROM run_tracker.callback_keys;
CALL pg_temp.try(format('SELECT run_tracker.callback_signed(%L, %L)', :p1, :s1));
CALL pg_temp.try(format('SELECT run_tracker.callback_secret(%L, %L)', :p1, 'sixteen bytes ..'));
ROLLBACK;

-- good ones
SET ROLE regress_callback_web;
SELECT run_tracker.callback_signed(:p1, :s1);
SELECT run_tracker.callback_signed(:p1, 'sha256=' || :s1);
SELECT run_tracker.callback_signed(:p1, 'SHA256=' || upper(:s1));
SELECT run_tracker.callback_secret('{"runId": "ca110000-0000-0000-0000-000000000002", "status": "processing"}', 'sixteen bytes ..');
SELECT set_config('request.headers', format('{"host": "x", "x-signature-256": "sha256=%s", "x-spar-auth": "wrong"}', :s1), false) \g /dev/null
SELECT run_tracker.callback(:p1);
SELECT run_tracker.callback_signed(:p1);
SET request.headers = '{"x-spar-auth": "sixteen bytes .."}';
SELECT run_tracker.callback('{"run_id": "ca110000-0000-0000-0000-000000000003", "status": "processing"}');
SELECT run_tracker.callback_secret('{"run_id": "ca110000-0000-0000-0000-000000000003", "status": "processing"}');
RESET request.headers;
RESET ROLE;
SELECT * FROM pg_temp.kept();
SELECT right(run_id::text, 2) AS run, to_status, actor FROM run_tracker.transitions WHERE run_id::text LIKE 'ca11%' ORDER BY occurred_at;

-- signed with a time
SELECT key_id AS timed_key FROM run_tracker.create_callback_key('timed', secret => 'another secret of mine', require_timestamp => true) \gset
\set p4 '\'{"runId": "ca110000-0000-0000-0000-000000000004", "status": "processing"}\''
CREATE FUNCTION pg_temp.at(seconds integer) RETURNS text LANGUAGE sql AS $$ SELECT (extract(epoch FROM clock_timestamp())::bigint + seconds)::text $$;
CREATE PROCEDURE pg_temp.timed(payload text, key text, signed_at text, said text) LANGUAGE plpgsql AS $$
BEGIN
    CALL pg_temp.try(format('SELECT run_tracker.callback_signed(%L, %L, %L)', payload, pg_temp.sign(signed_at || '.' || payload, key), said));
END
$$;
DO $$
DECLARE
    payload text := '{"runId": "ca110000-0000-0000-0000-000000000004", "status": "processing"}';
    keys text[] := '{another secret of mine,"It is a secret, do not tell it"}';
    now text := pg_temp.at(0);
BEGIN
    -- without a time, where one is required; not signed with it; too old; from the future; none
    CALL pg_temp.try(format('SELECT run_tracker.callback_signed(%L, %L)', payload, pg_temp.sign(payload, keys[1])));
    CALL pg_temp.try(format('SELECT run_tracker.callback_signed(%L, %L, %L)', payload, pg_temp.sign(payload, keys[1]), now));
    CALL pg_temp.timed(payload, keys[1], pg_temp.at(-400), pg_temp.at(-400));
    CALL pg_temp.timed(payload, keys[1], pg_temp.at(400), pg_temp.at(400));
    CALL pg_temp.timed(payload, keys[1], pg_temp.at(-400), now);
    CALL pg_temp.timed(payload, keys[2], pg_temp.at(-400), pg_temp.at(-400));
    CALL pg_temp.timed(payload, keys[2], '', '');
    CALL pg_temp.timed(payload, keys[2], '-1', '-1');
    CALL pg_temp.timed(payload, keys[2], now || '.0', now || '.0');
    CALL pg_temp.timed(payload, keys[2], repeat('9', 30), repeat('9', 30));
    CALL pg_temp.timed(payload, keys[2], '0x1', '0x1');
    CALL pg_temp.timed(payload, keys[1], now, now);
    CALL pg_temp.timed(payload, keys[2], pg_temp.at(-200), pg_temp.at(-200));
    SET run_tracker.callback_tolerance = 100;
    CALL pg_temp.timed(payload, keys[2], pg_temp.at(-200), pg_temp.at(-200));
    RESET run_tracker.callback_tolerance;
    PERFORM set_config('request.headers', json_build_object('x-signature-256', pg_temp.sign(now || '.' || payload, keys[1]),
                                                             'x-signature-timestamp', now)::text, false);
    CALL pg_temp.try(format('SELECT run_tracker.callback(%L)', payload));
    CALL pg_temp.try(format('SELECT run_tracker.callback_signed(%L)', payload));
    PERFORM set_config('request.headers', json_build_object('x-signature-256', pg_temp.sign(now || '.' || payload, keys[1]))::text, false);
    CALL pg_temp.try(format('SELECT run_tracker.callback(%L)', payload));
    PERFORM set_config('request.headers', '', false);
END
$$;
SELECT count(*), outcome FROM run_tracker.callbacks WHERE run_id = 'ca110000-0000-0000-0000-000000000004' GROUP BY 2 ORDER BY 2;

-- rotation: two keys are good until the overlap is over
SELECT secret AS fresh FROM run_tracker.rotate_callback_key('make') \gset
SELECT method, for_kind, expires_at > now() + interval '23 hours' AS ends FROM run_tracker.callback_keys WHERE name = 'make' ORDER BY created_at;
\set p5 '\'{"runId": "ca110000-0000-0000-0000-000000000005", "status": "processing"}\''
SELECT run_tracker.callback_secret(:p5, 'sixteen bytes ..') ->> 'outcome' AS old, run_tracker.callback_secret(:p5, :'fresh') ->> 'outcome' AS fresh;
SELECT secret AS fresher FROM run_tracker.rotate_callback_key('make', '0') \gset
CALL pg_temp.try(format('SELECT run_tracker.callback_secret(%L, %L)', :p5, 'sixteen bytes ..'));
CALL pg_temp.try(format('SELECT run_tracker.callback_secret(%L, %L)', :p5, :'fresh'));
CALL pg_temp.try(format('SELECT run_tracker.callback_secret(%L, %L)', :p5, :'fresher'));
-- what has ended is gone with the next rotation
SELECT count(*) FROM run_tracker.callback_keys WHERE name = 'make';
SELECT count(*) FROM run_tracker.rotate_callback_key('make', '1 hour');
SELECT count(*) FROM run_tracker.callback_keys WHERE name = 'make';
SELECT count(run_tracker.drop_callback_key(key_id)) FROM run_tracker.callback_keys WHERE name = 'make';
CALL pg_temp.try(format('SELECT run_tracker.callback_secret(%L, %L)', :p5, :'fresher'));
SELECT count(*) FROM run_tracker.create_callback_key('make', 'secret', 'sixteen bytes ..');

--
-- What it does to the run
--
TRUNCATE run_tracker.callbacks;
\set p1 '\'{"runId": "ca110000-0000-0000-0000-000000000001", "status": "completed", "results": {"quality_score": 8, "text": "Ünïcødé"}, "reflections": ["good"], "plan": [1], "stepResults": [{"step": 1}], "metrics": {"ms": 7}, "progress": 100, "currentStep": "done"}\''
SET ROLE regress_callback_web;
SELECT run_tracker.callback_signed(:p1, '63455cc511f40596de3aebe8639ea115b22ecfc77e4ec1b1b1a6de58c90571be');
RESET ROLE;
SELECT status, result, reflections, plan, metadata, metrics, progress, current_step FROM run_tracker.runs WHERE run_id = 'ca110000-0000-0000-0000-000000000001';
CREATE FUNCTION pg_temp.tell(payload text) RETURNS TABLE (outcome text, status text, reason text) LANGUAGE sql AS $$
    SELECT a ->> 'outcome', a ->> 'status', a ->> 'reason' FROM run_tracker.callback_secret(payload::json, 'sixteen bytes ..') a
$$;
CREATE FUNCTION pg_temp.tell(run integer, rest text) RETURNS TABLE (outcome text, status text, reason text) LANGUAGE sql AS $$
    SELECT * FROM pg_temp.tell(format('{"runId": "ca110000-0000-0000-0000-0000000000%s"%s}', lpad(run::text, 2, '0'), rest))
$$;
-- progress, and errors of both shapes
SELECT * FROM pg_temp.tell(2, ', "progress": 40, "currentStep": "analyze"');
SELECT * FROM pg_temp.tell(2, ', "progress": 40.4, "current_step": "analyze", "unknown": [1]');
SELECT status, progress, current_step FROM run_tracker.runs WHERE run_id = 'ca110000-0000-0000-0000-000000000002';
SELECT * FROM pg_temp.tell(2, ', "status": "failed", "error": "no answer", "results": null');
SELECT * FROM pg_temp.tell(3, ', "status": "failed", "error": {"message": "no answer", "detail": "line 1", "code": 7}');
SELECT * FROM pg_temp.tell(4, ', "status": "failed", "error": {"code": 7}');
SELECT right(run_id::text, 2) AS run, status, error, error_detail, result FROM run_tracker.runs WHERE status = 'failed' AND run_id::text LIKE 'ca11%' ORDER BY run_id;
-- again: nothing new, whatever it looks like
SELECT * FROM pg_temp.tell(2, ', "status": "failed", "error": "no answer", "results": null');
SELECT * FROM pg_temp.tell(2, ', "error":   "no answer", "status": "failed"');
SELECT * FROM pg_temp.tell(2, '');
-- late, illegal, unknown
SELECT * FROM pg_temp.tell(2, ', "status": "completed"');
SELECT * FROM pg_temp.tell(2, ', "status": "failed", "error": "another error"');
SELECT * FROM pg_temp.tell(2, ', "progress": 50');
SELECT * FROM pg_temp.tell(2, ', "progress": 50');
SELECT * FROM pg_temp.tell(2, ', "status": "pending"');
SELECT * FROM pg_temp.tell(2, ', "status": "dancing"');
SELECT * FROM pg_temp.tell(6, ', "status": "processing", "attempt": 7');
SELECT * FROM pg_temp.tell('{"runId": "00000000-0000-0000-0000-000000000000", "status": "completed"}');
-- a late result that the lifecycle allows
SELECT run_tracker.transition_run('ca110000-0000-0000-0000-000000000006', 'timeout');
SELECT * FROM pg_temp.tell(6, ', "status": "processing"');
SELECT * FROM pg_temp.tell(6, ', "status": "completed", "results": "late", "attempt": 1');
-- the same message to the next attempt is another one
SELECT * FROM pg_temp.tell(7, ', "status": "failed", "error": "x"');
SELECT run_tracker.retry_run('ca110000-0000-0000-0000-000000000007');
SELECT * FROM pg_temp.tell(7, ', "status": "failed", "error": "x"');
SELECT * FROM pg_temp.tell(7, ', "status": "failed", "error": "x"');
-- what makes no sense
SELECT p.payload, t.* FROM unnest(ARRAY['[]', '7', 'null', '""', '{}', '{"runId": null}', '{"runId": 7}', '{"runId": "x"}', '{"runId": "ca110000-0000-0000-0000-000000000008\u0000"}']) p (payload), pg_temp.tell(p.payload) t;
SELECT p.rest, t.* FROM unnest(ARRAY[', "status": 7', ', "progress": 101', ', "progress": -1', ', "progress": "50"', ', "progress": 1e999',
    ', "metrics": [1]', ', "error": 7', ', "attempt": "1"', ', "attempt": 1e99', ', "currentStep": {}', ', "results": "\u0000"', ', "usage": 7', ', "usage": {"cost": -1}',
    ', "usage": {"total_tokens": 1e30}', ', "usage": {"total_tokens": 999999999999999}', ', "usage": {"total_tokens": "7"}', ', "usage": {"model": 7}',
    ', "status": "processing", "usage": {"input_tokens": -1}']) p (rest), pg_temp.tell(8, p.rest) t;
SELECT * FROM pg_temp.tell(8, format(', "currentStep": "%s"', repeat('x', 9000)));
SELECT status, result FROM run_tracker.runs WHERE run_id = 'ca110000-0000-0000-0000-000000000008';
-- constraints that the owner has added are the payload's fault, too
ALTER TABLE run_tracker.runs ADD CONSTRAINT regress_callback CHECK (result <> '"bad"');
SELECT * FROM pg_temp.tell(8, ', "status": "completed", "results": "bad"');
ALTER TABLE run_tracker.runs DROP CONSTRAINT regress_callback;
SELECT status, result FROM run_tracker.runs WHERE run_id = 'ca110000-0000-0000-0000-000000000008';
-- all that is kept
SELECT * FROM pg_temp.kept();
-- larger than payloads may be
SET run_tracker.max_payload = '1kB';
CALL pg_temp.try($$SELECT * FROM pg_temp.tell(8, format(', "results": "%s"', repeat('x', 1000)))$$);
SELECT * FROM pg_temp.tell(8, format(', "status": "completed", "results": [%s1]', repeat('1,', 400)));
RESET run_tracker.max_payload;

-- usage is recorded once, for the user of the run
SELECT * FROM pg_temp.tell(9, ', "status": "processing", "usage": {"model": "m1", "provider": "acme", "inputTokens": 10, "completion_tokens": 5, "cost": 0.0123}');
SELECT * FROM pg_temp.tell(9, ', "status": "processing", "usage": {"model": "m1", "provider": "acme", "inputTokens": 10, "completion_tokens": 5, "cost": 0.0123}');
SELECT * FROM pg_temp.tell(9, ', "status": "completed", "results": 1');
-- known only when the run is done
SELECT * FROM pg_temp.tell(9, ', "usage": {"total_tokens": 7}');
SELECT * FROM pg_temp.tell(9, ', "usage": {"total_tokens": 7}');
-- the status goes through or nothing does
SELECT * FROM pg_temp.tell(9, ', "status": "processing", "usage": {"total_tokens": 70}');
INSERT INTO run_tracker.runs (run_id, user_id, lifecycle) VALUES ('ca110000-0000-0000-0000-000000000099', '', 'spar');
SELECT * FROM pg_temp.tell(99, ', "status": "processing", "usage": {"total_tokens": 700}');
SELECT user_id, right(run_id::text, 2) AS run, provider, model, input_tokens, output_tokens, total_tokens, cost FROM run_tracker.usage_records
WHERE run_id::text LIKE 'ca11%' ORDER BY used_at;

--
-- Errors that are not the payload's: nothing is kept, so that the sender tries again
--
TRUNCATE run_tracker.callbacks;
CREATE FUNCTION regress_callback_fail(run uuid) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF run = 'ca110000-0000-0000-0000-000000000010' THEN
        RAISE EXCEPTION 'not now' USING ERRCODE = 'check_violation', SCHEMA = 'run_tracker', TABLE = 'runs';
    END IF;
END
$$;
SELECT run_tracker.on_finish('entry', 'regress_callback_fail(uuid)') AS handler \gset
CALL pg_temp.try($$SELECT * FROM pg_temp.tell(10, ', "status": "completed"')$$);
SELECT run_tracker.drop_on_finish(:'handler');
CREATE FUNCTION regress_callback_trigger() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION 'not like this' USING ERRCODE = 'check_violation'; END $$;
CREATE TRIGGER regress_callback BEFORE UPDATE ON run_tracker.runs FOR EACH ROW EXECUTE FUNCTION regress_callback_trigger();
CALL pg_temp.try($$SELECT * FROM pg_temp.tell(10, ', "status": "completed"')$$);
DROP TRIGGER regress_callback ON run_tracker.runs;
SELECT count(*) AS kept FROM run_tracker.callbacks;
SELECT * FROM pg_temp.tell(10, ', "status": "completed"');
-- nor is it the payload's fault that the triggers are off
ALTER TABLE run_tracker.runs DISABLE TRIGGER run_tracker_update;
CALL pg_temp.try($$SELECT * FROM pg_temp.tell(11, ', "status": "completed"')$$);
CALL pg_temp.try($$SELECT run_tracker.callback_secret('{}', 'wrong')$$);
ALTER TABLE run_tracker.runs ENABLE TRIGGER run_tracker_update;

--
-- Keys for one kind
--
SELECT count(*) FROM run_tracker.create_callback_key('narrow', 'secret', 'for greetings only', 'greeting');
INSERT INTO run_tracker.runs (run_id, user_id, lifecycle, kind) VALUES ('ca110000-0000-0000-0000-000000000098', 'alice', 'spar', 'greeting'),
    ('ca110000-0000-0000-0000-000000000097', 'alice', 'spar', NULL);
SELECT run_tracker.callback_secret('{"runId": "ca110000-0000-0000-0000-000000000098", "status": "completed"}', 'for greetings only');
-- the runs of others are not there
SELECT run_tracker.callback_secret('{"runId": "ca110000-0000-0000-0000-000000000012", "status": "completed"}', 'for greetings only');
SELECT run_tracker.callback_secret('{"runId": "ca110000-0000-0000-0000-000000000097", "status": "completed"}', 'for greetings only');
SELECT run_tracker.callback_secret('{"runId": "00000000-0000-0000-0000-000000000000", "status": "completed"}', 'for greetings only');
SELECT run, user_id, attempt, outcome, reason FROM pg_temp.kept();

--
-- Who sees what
--
SET ROLE regress_callback_client;
SET request.jwt.claims = '{"sub": "alice"}';
SELECT right(run_id::text, 2) AS run, outcome FROM run_tracker.callbacks ORDER BY callback_id;
SET request.jwt.claims = '{"sub": "bob"}';
SELECT count(*) FROM run_tracker.callbacks;
CALL pg_temp.try('SELECT 1 FROM run_tracker.callback_keys');
CALL pg_temp.try($$SELECT run_tracker.callback_secret('{}', 'sixteen bytes ..')$$);
CALL pg_temp.try($$SELECT run_tracker.purge_callbacks()$$);
SET ROLE regress_callback_service;
SELECT count(*) FROM run_tracker.callbacks;
CALL pg_temp.try('SELECT 1 FROM run_tracker.callback_keys');
CALL pg_temp.try($$SELECT run_tracker.create_callback_key('x')$$);
CALL pg_temp.try($$SELECT run_tracker.apply_callback('{}', '', '00000000-0000-0000-0000-000000000000', NULL)$$);
SELECT run_tracker.purge_callbacks(), run_tracker.purge_callbacks('0', 1), run_tracker.purge_callbacks('0'), run_tracker.purge_callbacks('0');
CALL pg_temp.try($$SELECT run_tracker.purge_callbacks('-1 day')$$);
CALL pg_temp.try($$SELECT run_tracker.purge_callbacks('1 day', 0)$$);
RESET ROLE;
RESET request.jwt.claims;
GRANT EXECUTE ON FUNCTION run_tracker.create_callback_key(text, text, text, text, boolean), run_tracker.rotate_callback_key(text, interval),
    run_tracker.drop_callback_key(uuid) TO regress_callback_service;
SET ROLE regress_callback_service;
CALL pg_temp.try($$SELECT run_tracker.create_callback_key('x')$$);
CALL pg_temp.try($$SELECT run_tracker.rotate_callback_key('make')$$);
CALL pg_temp.try(format('SELECT run_tracker.drop_callback_key(%L)', :'hmac_key'));
RESET ROLE;

--
-- A role that can do nothing but call back, and wants more; and an owner who is no superuser, and wants to be one
--
BEGIN;
SELECT run_tracker.set_owner('regress_callback_owner');
CREATE TABLE regress_callback_seen (what text, super text);
GRANT ALL ON regress_callback_seen TO PUBLIC;
SET ROLE regress_callback_owner;
CREATE FUNCTION pg_temp.seen() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO public.regress_callback_seen
    SELECT TG_TABLE_NAME, concat_ws(' ', current_user, rolsuper, current_setting('search_path')) FROM pg_roles WHERE rolname = current_user;
    RETURN NEW;
END
$$;
CREATE TRIGGER seen BEFORE INSERT ON run_tracker.callbacks FOR EACH ROW EXECUTE FUNCTION pg_temp.seen();
CREATE TRIGGER seen BEFORE UPDATE ON run_tracker.runs FOR EACH ROW EXECUTE FUNCTION pg_temp.seen();
CREATE TRIGGER seen BEFORE INSERT ON run_tracker.callback_keys FOR EACH ROW EXECUTE FUNCTION pg_temp.seen();
SELECT count(*) FROM run_tracker.create_callback_key('of the owner', 'secret', 'secret of the owner');
RESET ROLE;
SELECT count(*) FROM run_tracker.create_callback_key('of the superuser', 'secret', 'secret of the superuser');
SELECT run_tracker.callback_secret('{"runId": "ca110000-0000-0000-0000-000000000013", "status": "processing"}', 'secret of the owner') ->> 'outcome' AS outcome;
SELECT * FROM regress_callback_seen;
DELETE FROM regress_callback_seen;
GRANT TEMP ON DATABASE :DBNAME TO regress_callback_web;
SET ROLE regress_callback_web;
CREATE TEMP TABLE runs (run_id uuid);
CREATE TEMP TABLE callbacks (run_id uuid);
CREATE TEMP TABLE regress_callback_seen (what text, super text);
SET search_path = pg_temp, public;
SET row_security = off;
SET transform_null_equals = on;
SET request.jwt.claims = '{"sub": "mallory"}';
SELECT run_tracker.callback_secret('{"runId": "ca110000-0000-0000-0000-000000000013", "status": "completed"}', 'secret of the superuser') ->> 'outcome' AS outcome;
SELECT current_user, current_setting('search_path') AS search_path;
RESET ROLE;
RESET search_path;
SELECT * FROM public.regress_callback_seen;
SELECT to_status, actor FROM run_tracker.transitions WHERE run_id = 'ca110000-0000-0000-0000-000000000013' ORDER BY seq;
SELECT user_id, outcome FROM run_tracker.callbacks ORDER BY callback_id;
ROLLBACK;
RESET request.jwt.claims;

SET ROLE regress_callback_web;
SELECT count(*) AS functions FROM pg_proc p WHERE pronamespace = (SELECT oid FROM pg_namespace WHERE nspname = 'run_tracker')
    AND has_function_privilege(p.oid, 'EXECUTE');
SELECT count(*) AS relations FROM pg_class c, unnest('{SELECT,INSERT,UPDATE,DELETE,TRUNCATE,REFERENCES,TRIGGER}'::text[]) p
WHERE relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = 'run_tracker') AND relkind IN ('r', 'v') AND has_table_privilege(c.oid, p);
SELECT has_schema_privilege('run_tracker', 'USAGE') AS usage, has_schema_privilege('run_tracker', 'CREATE') AS create;
RESET ROLE;

DELETE FROM run_tracker.runs;
DELETE FROM run_tracker.usage_records WHERE run_id::text LIKE 'ca11%';
TRUNCATE run_tracker.callbacks, run_tracker.callback_keys;
DROP FUNCTION regress_callback_fail, regress_callback_trigger;
DROP OWNED BY regress_callback_web, regress_callback_client, regress_callback_service, regress_callback_owner;
DROP ROLE regress_callback_web, regress_callback_client, regress_callback_service, regress_callback_owner;
