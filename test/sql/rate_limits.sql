--
-- Rate limits: what users may call within a sliding window. Counts are shared by all connections, and are no part of
-- any transaction.
--
\getenv abs_srcdir PG_ABS_SRCDIR
\set common :abs_srcdir '/sql/common.psql'
\i :common

INSERT INTO run_tracker.tiers (name, rate_limits) VALUES
('regress_rate', '{"*": {"limit": 3, "window": "1 day"}, "generate": {"limit": 10, "window": 86400}, "search": null,
                   "none": {"limit": 0, "window": "1 day"}, "fast": {"limit": 2, "window": "100 ms"},
                   "slow": {"limit": 2, "window": "1 hour"}}'),
('regress_unlimited', '{}');
SELECT run_tracker.ensure_account('rate alice', 'regress_rate'), run_tracker.ensure_account('rate bob', 'regress_rate');

-- the row, without what depends on the time: reset_at and reset_ms must say the same
CREATE FUNCTION pg_temp.consume(endpoint text, cost integer DEFAULT 1, user_id text DEFAULT 'rate alice',
    OUT allowed boolean, OUT current bigint, OUT "limit" bigint, OUT remaining bigint, OUT resets text)
LANGUAGE sql AS $$
    SELECT c.allowed, c.current, c."limit", c.remaining,
           CASE WHEN c.reset_at IS NULL AND c.reset_ms IS NULL THEN NULL
                WHEN abs(extract(epoch FROM c.reset_at - clock_timestamp()) * 1000 - c.reset_ms) > 60000 THEN 'unclear'
                WHEN c.reset_ms = 0 THEN 'now'
                WHEN c.reset_ms BETWEEN 86340000 AND 87840001 THEN 'in a day, and at most 1/60 of one'
                ELSE c.reset_ms::text END
    FROM run_tracker.consume_rate_limit(endpoint, cost, user_id) c
$$;

-- up to the limit and not further; a call that is refused uses nothing
SELECT * FROM pg_temp.consume('chat');
SELECT * FROM pg_temp.consume('chat', 3);
SELECT * FROM pg_temp.consume('chat', 2);
SELECT * FROM pg_temp.consume('chat');
-- a cost of 0 only looks
SELECT * FROM pg_temp.consume('chat', 0);
SELECT * FROM pg_temp.consume('unused', 0);
SELECT * FROM pg_temp.consume('unused', 0);
-- more than the limit is never allowed
SELECT * FROM pg_temp.consume('chat', 4);
SELECT * FROM pg_temp.consume('unused', 2147483647);
SELECT * FROM pg_temp.consume('none');
SELECT * FROM pg_temp.consume('none', 0);
-- each endpoint and each user has a count of its own
SELECT * FROM pg_temp.consume('Chat');
SELECT * FROM pg_temp.consume('chat', user_id => 'rate bob');
SELECT * FROM pg_temp.consume('generate', 10);
SELECT * FROM pg_temp.consume('generate');
SELECT * FROM pg_temp.consume('*');
-- no limit: nothing is counted
SELECT * FROM pg_temp.consume('search', 1000000);
SELECT * FROM pg_temp.consume('search', 0);
SELECT * FROM run_tracker.rate_limits WHERE endpoint = 'search';
-- or an error
SELECT allowed, current, remaining FROM run_tracker.consume_rate_limit_or_fail('Chat', 2, 'rate alice');
CREATE FUNCTION pg_temp.fail(endpoint text, cost integer DEFAULT 1) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    message text; detail text; hint text;
BEGIN
    PERFORM run_tracker.consume_rate_limit_or_fail(endpoint, cost, 'rate alice');
    RETURN 'ok';
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
    RETURN concat_ws(' | ', SQLSTATE, message, regexp_replace(detail, 'in 8[67]\d{6} ms', 'in a day', 'g'), hint);
END
$$;
SELECT pg_temp.fail('Chat');
SELECT pg_temp.fail('Chat', 0);
SELECT pg_temp.fail('Chat', 4);
SELECT pg_temp.fail('none');
SELECT pg_temp.fail('search');

-- what is in use
SELECT user_id, endpoint, current, "limit", remaining, reset_at > clock_timestamp() + interval '23 hours' AS later, "window"
FROM run_tracker.rate_limits WHERE user_id ~ '^rate ' ORDER BY user_id, endpoint;

-- it is no part of a transaction
BEGIN;
SELECT * FROM pg_temp.consume('chat', 2, 'rate bob');
ROLLBACK;
SELECT * FROM pg_temp.consume('chat', 0, 'rate bob');
BEGIN READ ONLY;
SELECT * FROM pg_temp.consume('Chat', 1, 'rate bob');
SAVEPOINT a;
SELECT * FROM pg_temp.consume('Chat', 1, 'rate bob');
ROLLBACK TO SAVEPOINT a;
SELECT * FROM pg_temp.consume('Chat', 1, 'rate bob');
COMMIT;
SELECT * FROM pg_temp.consume('Chat', 1, 'rate bob');
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT count(*) FROM run_tracker.lifecycles WHERE name = 'run';
SELECT * FROM pg_temp.consume('serial', 1, 'rate bob');
ROLLBACK;
-- rows of a query are calls, too
SELECT count(*) FILTER (WHERE c.allowed) AS allowed, count(*) FILTER (WHERE NOT c.allowed) AS refused
FROM generate_series(1, 100) i, LATERAL (SELECT * FROM run_tracker.consume_rate_limit('rows' || (i - i), 1, 'rate bob')) c;
SELECT (run_tracker.consume_rate_limit('list', 1, 'rate bob')).allowed;

-- the limits change: what was used stays used
UPDATE run_tracker.accounts SET overrides = '{"rate_limits": {"*": {"limit": 5, "window": "1 day"}}}' WHERE user_id = 'rate alice';
SELECT * FROM pg_temp.consume('chat');
SELECT * FROM pg_temp.consume('generate');
UPDATE run_tracker.accounts SET overrides = '{"rate_limits": {"chat": {"limit": 2, "window": "1 day"}}}' WHERE user_id = 'rate alice';
SELECT * FROM pg_temp.consume('chat');
SELECT * FROM pg_temp.consume('chat', 0);
UPDATE run_tracker.accounts SET overrides = '{"rate_limits": {"chat": null}}' WHERE user_id = 'rate alice';
SELECT * FROM pg_temp.consume('chat');
UPDATE run_tracker.accounts SET overrides = NULL WHERE user_id = 'rate alice';
SELECT * FROM pg_temp.consume('chat', 0);
-- in the transaction that changes them, and after its rollback
BEGIN;
UPDATE run_tracker.accounts SET tier = 'regress_unlimited' WHERE user_id = 'rate alice';
SELECT * FROM pg_temp.consume('chat');
ROLLBACK;
SELECT * FROM pg_temp.consume('chat', 0);
-- another window: longer, shorter, longer
SELECT c.allowed, c.current, c.reset_ms BETWEEN 3600000 AND 3660001 AS in_an_hour FROM run_tracker.consume_rate_limit('slow', 2, 'rate alice') c;
UPDATE run_tracker.accounts SET overrides = '{"rate_limits": {"slow": {"limit": 2, "window": "1 day"}}}' WHERE user_id = 'rate alice';
SELECT * FROM pg_temp.consume('slow');
UPDATE run_tracker.accounts SET overrides = '{"rate_limits": {"slow": {"limit": 2, "window": "10 minutes"}}}' WHERE user_id = 'rate alice';
SELECT c.allowed, c.current, c.reset_ms BETWEEN 1 AND 611000 AS soon FROM run_tracker.consume_rate_limit('slow', 1, 'rate alice') c;
SELECT current, "limit", "window" FROM run_tracker.rate_limits WHERE user_id = 'rate alice' AND endpoint = 'slow';
UPDATE run_tracker.accounts SET overrides = '{"rate_limits": {"slow": {"limit": 2, "window": "366 days"}}}' WHERE user_id = 'rate alice';
SELECT c.allowed, c.current, c.reset_ms > 31536000000 AS late FROM run_tracker.consume_rate_limit('slow', 1, 'rate alice') c;
UPDATE run_tracker.accounts SET overrides = NULL WHERE user_id = 'rate alice';

-- time passes: in no window of that length are there more than the limit; and what was used comes back, when it was said to
DO $$
DECLARE
    began timestamptz[] := '{}';
    ended timestamptz[] := '{}';
    before timestamptz;
    call record;
    until timestamptz := clock_timestamp() + interval '1 minute';
BEGIN
    WHILE cardinality(began) < 12 LOOP
        before := clock_timestamp();
        SELECT * INTO call FROM run_tracker.consume_rate_limit('fast', 1, 'rate alice');
        IF call.allowed THEN
            began := began || before;
            ended := ended || clock_timestamp();
        ELSIF cardinality(began) % 4 = 0 THEN
            PERFORM pg_sleep(call.reset_ms / 1000.0);
            before := clock_timestamp();
            SELECT * INTO call FROM run_tracker.consume_rate_limit('fast', 1, 'rate alice');
            IF NOT call.allowed THEN
                RAISE 'refused when it should have been allowed: %', call;
            END IF;
            began := began || before;
            ended := ended || clock_timestamp();
        END IF;
        IF clock_timestamp() > until THEN
            RAISE 'only % calls', cardinality(began);
        END IF;
    END LOOP;
    FOR i IN 3 .. cardinality(began) LOOP
        IF ended[i] - began[i - 2] < interval '100 ms' THEN
            RAISE 'three calls from % to %', began[i - 2], ended[i];
        END IF;
    END LOOP;
END
$$;
-- an empty window is no row
DO $$
DECLARE
    until timestamptz := clock_timestamp() + interval '1 minute';
BEGIN
    WHILE EXISTS (SELECT FROM run_tracker.rate_limits WHERE endpoint = 'fast') LOOP
        IF clock_timestamp() > until THEN
            RAISE 'still there';
        END IF;
    END LOOP;
END
$$;

-- forget
SELECT run_tracker.reset_rate_limit('rate bob', 'chat'), run_tracker.reset_rate_limit('rate bob', 'chat');
SELECT * FROM pg_temp.consume('chat', 3, 'rate bob');
SELECT endpoint FROM run_tracker.rate_limits WHERE user_id = 'rate bob' ORDER BY endpoint;
SELECT run_tracker.reset_rate_limit('rate bob');
SELECT endpoint FROM run_tracker.rate_limits WHERE user_id = 'rate bob' ORDER BY endpoint;
SELECT run_tracker.reset_rate_limit('rate bob');
SELECT count(*) > 0 AS others_stay FROM run_tracker.rate_limits WHERE user_id = 'rate alice';

-- 1000 endpoints have a count each, the others share one; those that have a limit of their own keep theirs
SELECT count(*) FILTER (WHERE c.allowed), min(c.current), max(c.current)
FROM generate_series(1, 1000) i, LATERAL (SELECT * FROM run_tracker.consume_rate_limit('e' || i, 1, 'rate bob')) c;
SELECT * FROM pg_temp.consume('another', 1, 'rate bob');
SELECT * FROM pg_temp.consume('one more', 2, 'rate bob');
SELECT * FROM pg_temp.consume('yet one', 1, 'rate bob');
SELECT * FROM pg_temp.consume('e1000', 1, 'rate bob');
SELECT * FROM pg_temp.consume('generate', 1, 'rate bob');
SELECT count(*), max(current) FILTER (WHERE endpoint = '*') AS shared FROM run_tracker.rate_limits WHERE user_id = 'rate bob';
-- which does not concern anybody else
SELECT * FROM pg_temp.consume('for alice');
SELECT run_tracker.reset_rate_limit('rate bob');

-- names: up to 512 bytes, whatever they are
SELECT c.allowed, c.current FROM run_tracker.consume_rate_limit(repeat('é', 256), 1, 'rate bob') c;
SELECT c.allowed, c.current FROM run_tracker.consume_rate_limit(E'a\nb"\\', 1, 'rate bob') c;
SELECT c.allowed, c.current FROM run_tracker.consume_rate_limit(' ', 1, 'rate bob') c;
SELECT c.allowed, c.current FROM run_tracker.consume_rate_limit('x', 1, repeat('u', 512)) c;
SELECT length(endpoint), left(endpoint, 3) FROM run_tracker.rate_limits WHERE user_id = 'rate bob' ORDER BY 1;
-- where a name ends matters
SELECT c.current FROM run_tracker.consume_rate_limit('cd', 1, 'rate bobab') c;
SELECT c.current FROM run_tracker.consume_rate_limit('abcd', 1, 'rate bob') c;
SELECT run_tracker.reset_rate_limit('rate bob'), run_tracker.reset_rate_limit('rate bobab'), run_tracker.reset_rate_limit(repeat('u', 512));

-- what cannot be
CALL pg_temp.try($$SELECT run_tracker.consume_rate_limit(NULL, 1, 'rate bob')$$);
CALL pg_temp.try($$SELECT run_tracker.consume_rate_limit('', 1, 'rate bob')$$);
CALL pg_temp.try($$SELECT run_tracker.consume_rate_limit(repeat('é', 256) || 'x', 1, 'rate bob')$$);
CALL pg_temp.try($$SELECT run_tracker.consume_rate_limit('x', NULL, 'rate bob')$$);
CALL pg_temp.try($$SELECT run_tracker.consume_rate_limit('x', -1, 'rate bob')$$);
CALL pg_temp.try($$SELECT run_tracker.consume_rate_limit('x', -2147483648, 'rate bob')$$);
CALL pg_temp.try($$SELECT run_tracker.consume_rate_limit('x', 1, '')$$);
CALL pg_temp.try($$SELECT run_tracker.consume_rate_limit('x', 1, repeat('u', 513))$$);
CALL pg_temp.try($$SELECT run_tracker.consume_rate_limit('x')$$);
CALL pg_temp.try($$SELECT run_tracker.consume_rate_limit_or_fail('', 1, 'rate bob')$$);
CALL pg_temp.try($$SELECT run_tracker.reset_rate_limit(NULL)$$);
CALL pg_temp.try($$SELECT run_tracker.reset_rate_limit('')$$);
CALL pg_temp.try($$SELECT run_tracker.reset_rate_limit('rate bob', '')$$);
SELECT count(*) FROM run_tracker.rate_limits WHERE user_id = 'rate bob';

--
-- Who may do what
--
CREATE ROLE regress_rate_client;
CREATE ROLE regress_rate_reader;
CREATE ROLE regress_rate_service;
SELECT run_tracker.grant_client('regress_rate_client'), run_tracker.grant_reader('regress_rate_reader'), run_tracker.grant_service('regress_rate_service');
-- clients: for themselves only, and they see only what is theirs
SET ROLE regress_rate_client;
SET request.jwt.claims = '{"sub": "rate bob"}';
SELECT c.current FROM run_tracker.consume_rate_limit('chat') c;
SELECT c.current FROM run_tracker.consume_rate_limit_or_fail('chat', user_id => 'rate bob') c;
CALL pg_temp.try($$SELECT run_tracker.consume_rate_limit('chat', 1, 'rate alice')$$);
CALL pg_temp.try($$SELECT run_tracker.consume_rate_limit('chat', 0, 'rate alice')$$);
CALL pg_temp.try($$SELECT run_tracker.reset_rate_limit('rate bob')$$);
SELECT user_id, endpoint, current FROM run_tracker.rate_limits;
SELECT user_id, endpoint, current FROM run_tracker.rate_limit_state();
-- nothing that a client can set makes a difference
SET search_path = pg_temp;
SET default_transaction_read_only = on;
SELECT c.current FROM run_tracker.consume_rate_limit('chat') c;
RESET default_transaction_read_only;
RESET search_path;
CALL pg_temp.try($$SET run_tracker.limit_memory = '1GB'$$);
SET request.jwt.claims = '';
CALL pg_temp.try($$SELECT run_tracker.consume_rate_limit('chat')$$);
SELECT count(*) FROM run_tracker.rate_limits;
SET request.jwt.claims = '{"sub": "nobody else"}';
SELECT count(*) FROM run_tracker.rate_limits;
-- readers only look
SET ROLE regress_rate_reader;
SET request.jwt.claims = '{"sub": "rate bob"}';
SELECT user_id, endpoint, current FROM run_tracker.rate_limits;
CALL pg_temp.try($$SELECT run_tracker.consume_rate_limit('chat', 0)$$);
-- services: for everybody
SET ROLE regress_rate_service;
SELECT c.current FROM run_tracker.consume_rate_limit('chat', 0, 'rate alice') c;
SELECT user_id, count(*) FROM run_tracker.rate_limits WHERE user_id ~ '^rate ' GROUP BY user_id ORDER BY user_id;
SELECT run_tracker.reset_rate_limit('rate bob');
RESET ROLE;
RESET request.jwt.claims;

-- a user without an account has the limits of tier "free"
SELECT c.allowed, c.current = 1 AS first, c."limit" = (t.rate_limits->'*'->>'limit')::bigint AS free
FROM run_tracker.consume_rate_limit('chat', 1, 'rate stranger') c, run_tracker.tiers t WHERE t.name = 'free';

-- what has been written past the trigger, and is no set of limits, is none
SET session_replication_role = replica;
UPDATE run_tracker.accounts SET overrides = '{"rate_limits": ["chat", {"limit": 0, "window": 1}]}' WHERE user_id = 'rate bob';
RESET session_replication_role;
SELECT c.allowed, c."limit" FROM run_tracker.consume_rate_limit('chat', 0, 'rate bob') c;

SELECT run_tracker.reset_rate_limit('rate alice') > 0, run_tracker.reset_rate_limit('rate stranger');
SHOW run_tracker.limit_memory;
DELETE FROM run_tracker.accounts WHERE user_id ~ '^rate ';
DELETE FROM run_tracker.tiers WHERE name ~ '^regress_';
DROP OWNED BY regress_rate_client, regress_rate_reader, regress_rate_service;
DROP ROLE regress_rate_client, regress_rate_reader, regress_rate_service;
