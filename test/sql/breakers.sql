--
-- Circuit breakers: closed, open, half open. Their state is shared by all connections, and is no part of any transaction.
--
\getenv abs_srcdir PG_ABS_SRCDIR
\set common :abs_srcdir '/sql/common.psql'
\i :common

-- what the view shows, without what depends on the time
CREATE VIEW pg_temp.breakers AS
SELECT name, state, failures, calls, opened_at BETWEEN clock_timestamp() - interval '1 hour' AND clock_timestamp() AS opened,
       next_probe_at > clock_timestamp() AS waiting, last_error, last_error_at <= clock_timestamp() AS dated
FROM run_tracker.circuit_breakers WHERE name ~ '^b ' ORDER BY name;

-- without settings: 5 failures within a minute open it, whatever succeeds in between
SELECT run_tracker.breaker_allow('b default');
SELECT * FROM pg_temp.breakers;
SELECT i, run_tracker.breaker_record('b default', i % 2 = 0, 'error ' || i) FROM generate_series(1, 8) i;
SELECT run_tracker.breaker_allow('b default'), run_tracker.breaker_allow_or_fail('b default');
SELECT * FROM pg_temp.breakers;
SELECT run_tracker.breaker_record('b default', false, 'error 9');
SELECT run_tracker.breaker_allow('b default');
SELECT * FROM pg_temp.breakers;
SELECT name, failure_threshold, failure_rate, minimum_calls, "window", reset_after,
       abs(extract(epoch FROM next_probe_at - opened_at) - 60) < 1 AS after_a_minute
FROM run_tracker.circuit_breakers WHERE name = 'b default';
CREATE FUNCTION pg_temp.fail(name text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    message text; detail text; hint text;
BEGIN
    RETURN run_tracker.breaker_allow_or_fail(name);
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
    RETURN concat_ws(' | ', SQLSTATE, message, regexp_replace(detail, 'in \d+ ms', 'in N ms', 'g'), hint);
END
$$;
SELECT pg_temp.fail('b default');
-- what comes late neither closes it nor keeps it open for longer, but its error is worth knowing
SELECT opened_at AS opened FROM run_tracker.circuit_breakers WHERE name = 'b default' \gset
SELECT run_tracker.breaker_record('b default', true), run_tracker.breaker_record('b default', false, 'late');
SELECT opened_at = :'opened' AS unchanged FROM run_tracker.circuit_breakers WHERE name = 'b default';
SELECT * FROM pg_temp.breakers;
-- others have nothing to do with it
SELECT run_tracker.breaker_allow('b Default');
SELECT run_tracker.reset_breaker('b default'), run_tracker.reset_breaker('b default'), run_tracker.breaker_allow('b default');
SELECT * FROM pg_temp.breakers;

-- with settings
INSERT INTO run_tracker.breakers (name) VALUES ('b defaults');
INSERT INTO run_tracker.breakers (name, failure_threshold, failure_rate, minimum_calls, "window", reset_after) VALUES
('b number', 2, NULL, 1, '1 day', '1 day'), ('b rate', NULL, 0.07, 100, '1 day', '1 day'), ('b half', NULL, 0.5, 3, '1 day', '1 day'),
('b either', 3, 1, 2, '1 day', '1 day'), ('b never', NULL, NULL, 1, '1 day', '1 day'), ('b fast', 1, NULL, 1, '1 day', '100 ms'),
('b short', 2, NULL, 1, '100 ms', '1 day');
SELECT * FROM run_tracker.circuit_breakers WHERE name ~ '^b ' ORDER BY name;
-- a number of failures
SELECT run_tracker.breaker_record('b number', false), run_tracker.breaker_record('b number', true), run_tracker.breaker_record('b number', false);
-- a part of the calls, exactly, and not before there are enough of them; the last one may be one that succeeded
SELECT i, run_tracker.breaker_record('b rate', i > 6) AS state FROM generate_series(1, 105) i ORDER BY state DESC, i LIMIT 1;
SELECT run_tracker.breaker_record('b rate', false) AS "7 of 106", failures, calls FROM run_tracker.circuit_breakers WHERE name = 'b rate';
SELECT run_tracker.reset_breaker('b rate');
SELECT run_tracker.breaker_record('b rate', i > 7) AS state, count(*), max(i) FROM generate_series(1, 100) i GROUP BY 1 ORDER BY 1;
SELECT run_tracker.breaker_record('b half', false), run_tracker.breaker_record('b half', false), run_tracker.breaker_record('b half', true);
-- one or the other
SELECT run_tracker.breaker_record('b either', false), run_tracker.breaker_record('b either', false);
SELECT run_tracker.reset_breaker('b either');
SELECT run_tracker.breaker_record('b either', true), run_tracker.breaker_record('b either', false), run_tracker.breaker_record('b either', false),
       run_tracker.breaker_record('b either', false);
-- neither
SELECT run_tracker.breaker_record('b never', false) AS state, count(*) FROM generate_series(1, 1000) GROUP BY 1;
SELECT * FROM pg_temp.breakers;
-- settings that change take effect at once; those of a row that is gone are the defaults
UPDATE run_tracker.breakers SET failure_threshold = 3 WHERE name = 'b never';
SELECT run_tracker.breaker_record('b never', true);
SELECT run_tracker.breaker_allow('b number');
UPDATE run_tracker.breakers SET reset_after = '1 ms' WHERE name = 'b number';
SELECT pg_sleep(0.002) IS NOT NULL AS waited, run_tracker.breaker_allow('b number');
DELETE FROM run_tracker.breakers WHERE name = 'b number';
SELECT run_tracker.breaker_allow('b number');
SELECT state, failure_threshold, reset_after FROM run_tracker.circuit_breakers WHERE name = 'b number';

-- time passes: one probe, and nobody else until its result is there
CREATE FUNCTION pg_temp.wait_for_probe(breaker text) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    began timestamptz := (SELECT opened_at FROM run_tracker.circuit_breakers WHERE name = breaker);
BEGIN
    WHILE NOT run_tracker.breaker_allow(breaker) LOOP
        IF clock_timestamp() > began + interval '1 minute' THEN
            RAISE 'no probe';
        END IF;
    END LOOP;
    -- opened_at is taken a moment after the time that counts
    RETURN clock_timestamp() > began + interval '99 ms';
END
$$;
SELECT run_tracker.breaker_record('b fast', false, 'first');
SELECT run_tracker.breaker_allow('b fast');
SELECT pg_temp.wait_for_probe('b fast');
UPDATE run_tracker.breakers SET reset_after = '1 day' WHERE name = 'b fast';
SELECT run_tracker.breaker_allow('b fast'), run_tracker.breaker_allow('b fast');
SELECT pg_temp.fail('b fast');
SELECT name, state, next_probe_at > clock_timestamp() + interval '23 hours' AS waiting FROM run_tracker.circuit_breakers WHERE name = 'b fast';
-- a failure opens it again
SELECT run_tracker.breaker_record('b fast', false, 'probe');
SELECT * FROM pg_temp.breakers WHERE name = 'b fast';
UPDATE run_tracker.breakers SET reset_after = '100 ms' WHERE name = 'b fast';
SELECT pg_temp.wait_for_probe('b fast');
-- success closes it, and what was counted before is forgotten
SELECT run_tracker.breaker_record('b fast', true), run_tracker.breaker_allow('b fast'), run_tracker.breaker_allow('b fast');
SELECT * FROM pg_temp.breakers WHERE name = 'b fast';
-- a probe that is never heard of is given up
SELECT run_tracker.breaker_record('b fast', false);
SELECT pg_temp.wait_for_probe('b fast');
SELECT pg_temp.wait_for_probe('b fast');
SELECT run_tracker.breaker_record('b fast', true), run_tracker.breaker_record('b fast', true);
-- failures that are further apart than the window do not count together
DO $$
DECLARE
    until timestamptz := clock_timestamp() + interval '1 minute';
BEGIN
    PERFORM run_tracker.breaker_record('b short', false, 'first');
    WHILE (SELECT failures > 0 FROM run_tracker.circuit_breakers WHERE name = 'b short') LOOP
        IF clock_timestamp() > until THEN
            RAISE 'still there';
        END IF;
    END LOOP;
    RAISE INFO '%', run_tracker.breaker_record('b short', false, 'second');
END
$$;

-- it is no part of a transaction
BEGIN;
SELECT run_tracker.breaker_record('b gone', false, 'rolled back') FROM generate_series(1, 5);
ROLLBACK;
SELECT * FROM pg_temp.breakers WHERE name = 'b gone';
BEGIN READ ONLY;
SELECT run_tracker.breaker_allow('b gone'), run_tracker.breaker_record('b gone', true), run_tracker.reset_breaker('b gone');
ROLLBACK;
SELECT run_tracker.breaker_allow('b gone');

-- of an error 256 bytes are kept, in whole characters
SELECT run_tracker.breaker_record('b long', false, 'x' || repeat('é', 1000));
SELECT octet_length(last_error), right(last_error, 1) FROM run_tracker.circuit_breakers WHERE name = 'b long';
SELECT run_tracker.breaker_record('b long', false, 'short');
SELECT last_error FROM run_tracker.circuit_breakers WHERE name = 'b long';
SELECT run_tracker.breaker_record('b long', true, 'no error');
SELECT last_error FROM run_tracker.circuit_breakers WHERE name = 'b long';
SELECT run_tracker.breaker_record('b long', false);
SELECT last_error, last_error_at IS NOT NULL AS dated FROM run_tracker.circuit_breakers WHERE name = 'b long';
-- names of 512 bytes
SELECT run_tracker.breaker_record(repeat('é', 256), false), run_tracker.breaker_allow(repeat('é', 256)), run_tracker.reset_breaker(repeat('é', 256));
-- a rate limit of that name is something else
SELECT run_tracker.reset_rate_limit('b long');

-- what cannot be
CALL pg_temp.try($$SELECT run_tracker.breaker_allow(NULL)$$);
CALL pg_temp.try($$SELECT run_tracker.breaker_allow('')$$);
CALL pg_temp.try($$SELECT run_tracker.breaker_allow(repeat('x', 513))$$);
CALL pg_temp.try($$SELECT run_tracker.breaker_allow_or_fail(NULL)$$);
CALL pg_temp.try($$SELECT run_tracker.breaker_record(NULL, true)$$);
CALL pg_temp.try($$SELECT run_tracker.breaker_record('', true)$$);
CALL pg_temp.try($$SELECT run_tracker.breaker_record('b long', NULL)$$);
CALL pg_temp.try($$SELECT run_tracker.reset_breaker(NULL)$$);
CALL pg_temp.try($$INSERT INTO run_tracker.breakers (name) VALUES ('')$$);
CALL pg_temp.try($$INSERT INTO run_tracker.breakers (name) VALUES (repeat('é', 257))$$);
CALL pg_temp.try($$INSERT INTO run_tracker.breakers (name, failure_threshold) VALUES ('b bad', 0)$$);
CALL pg_temp.try($$INSERT INTO run_tracker.breakers (name, failure_rate) VALUES ('b bad', 0)$$);
CALL pg_temp.try($$INSERT INTO run_tracker.breakers (name, failure_rate) VALUES ('b bad', 1.01)$$);
CALL pg_temp.try($$INSERT INTO run_tracker.breakers (name, failure_rate) VALUES ('b bad', 'NaN')$$);
CALL pg_temp.try($$INSERT INTO run_tracker.breakers (name, minimum_calls) VALUES ('b bad', 0)$$);
CALL pg_temp.try($$INSERT INTO run_tracker.breakers (name, "window") VALUES ('b bad', '0')$$);
CALL pg_temp.try($$INSERT INTO run_tracker.breakers (name, "window") VALUES ('b bad', '2 years')$$);
CALL pg_temp.try($$INSERT INTO run_tracker.breakers (name, reset_after) VALUES ('b bad', '-1 second')$$);

--
-- Who may do what
--
CREATE ROLE regress_breakers_client;
CREATE ROLE regress_breakers_service;
SELECT run_tracker.grant_client('regress_breakers_client'), run_tracker.grant_service('regress_breakers_service');
-- clients only look, and not at errors
SET ROLE regress_breakers_client;
CALL pg_temp.try($$SELECT run_tracker.breaker_allow('b long')$$);
CALL pg_temp.try($$SELECT run_tracker.breaker_allow_or_fail('b long')$$);
CALL pg_temp.try($$SELECT run_tracker.breaker_record('b long', true)$$);
CALL pg_temp.try($$SELECT run_tracker.reset_breaker('b long')$$);
CALL pg_temp.try($$INSERT INTO run_tracker.breakers (name) VALUES ('b bad')$$);
CALL pg_temp.try($$UPDATE run_tracker.breakers SET reset_after = '1 ms'$$);
CALL pg_temp.try($$DELETE FROM run_tracker.breakers$$);
SELECT name, state, failures, calls, last_error, last_error_at IS NOT NULL AS dated FROM run_tracker.circuit_breakers WHERE name IN ('b gone', 'b long', 'b either', 'b never')
ORDER BY name;
SELECT name, failure_threshold FROM run_tracker.breakers WHERE name = 'b half';
-- services do all of it
SET ROLE regress_breakers_service;
INSERT INTO run_tracker.breakers (name, failure_threshold) VALUES ('b service', 1);
SELECT run_tracker.breaker_allow('b service'), run_tracker.breaker_allow_or_fail('b service'), run_tracker.breaker_record('b service', false, 'seen by services');
SELECT name, state, last_error FROM run_tracker.circuit_breakers WHERE name = 'b service';
SELECT run_tracker.reset_breaker('b service');
UPDATE run_tracker.breakers SET "window" = '1 hour' WHERE name = 'b service' RETURNING "window";
DELETE FROM run_tracker.breakers WHERE name = 'b service';
RESET ROLE;
-- the owner may let others
GRANT EXECUTE ON FUNCTION run_tracker.breaker_allow(text) TO regress_breakers_client;
SET ROLE regress_breakers_client;
SELECT run_tracker.breaker_allow('b gone');
RESET ROLE;

-- without the table there are no settings; install() brings it back
BEGIN;
DROP TABLE run_tracker.breakers;
CALL pg_temp.try($$SELECT run_tracker.breaker_record('b gone', true)$$);
CALL pg_temp.try($$SELECT * FROM run_tracker.circuit_breakers$$);
SELECT run_tracker.install();
SELECT run_tracker.breaker_record('b gone', true), count(*) FROM run_tracker.breakers;
ROLLBACK;

SELECT count(run_tracker.reset_breaker(name)) > 0 AS reset FROM run_tracker.circuit_breakers WHERE name ~ '^b ';
DELETE FROM run_tracker.breakers WHERE name ~ '^b ';
SELECT * FROM pg_temp.breakers;
DROP OWNED BY regress_breakers_client, regress_breakers_service;
DROP ROLE regress_breakers_client, regress_breakers_service;
