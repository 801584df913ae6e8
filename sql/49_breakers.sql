-- Circuit breakers: calls that are known to fail are not made.

CREATE FUNCTION run_tracker.breaker_allow(name text) RETURNS boolean
LANGUAGE c VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'run_tracker_breaker_allow';
COMMENT ON FUNCTION run_tracker.breaker_allow(text) IS
'May a call be made that this breaker protects? True while it is closed; false while it is open; when it has been open for reset_after, true for one caller, the probe, and false for all others until breaker_record() has told what came of it, or reset_after has passed again. Whoever gets true makes the call and then calls breaker_record(), from this or another connection. All connections share the state at once, ROLLBACK does not undo it; it begins with closed breakers after a crash, a restart or a failover, and works in read-only transactions and on standbys, each server for itself. For services. 22023 for a bad name.';

CREATE FUNCTION run_tracker.breaker_allow_or_fail(name text) RETURNS boolean
LANGUAGE c VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'run_tracker_breaker_allow_or_fail';
COMMENT ON FUNCTION run_tracker.breaker_allow_or_fail(text) IS
'The same as breaker_allow(), but no is an error: RT006, whose detail says the milliseconds until the next probe. For services.';

CREATE FUNCTION run_tracker.breaker_record(name text, ok boolean, error text DEFAULT NULL) RETURNS text
LANGUAGE c VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'run_tracker_breaker_record';
COMMENT ON FUNCTION run_tracker.breaker_record(text, boolean, text) IS
'Records whether a call succeeded that this breaker protects, at once and whatever becomes of the transaction, and returns the state then: closed, open or half_open. While it is closed each result counts; while it is open none does, since it is that of a call from before; while it is half open the first one closes it (with nothing in its window) or opens it again for reset_after. Of the error 256 bytes are kept. For services. 22023 for a bad argument, 53400 if run_tracker.limit_memory is used up.';

CREATE FUNCTION run_tracker.reset_breaker(name text) RETURNS boolean
LANGUAGE c VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'run_tracker_reset_breaker';
COMMENT ON FUNCTION run_tracker.reset_breaker(text) IS
'Closes a breaker and forgets what it has counted, at once and whatever becomes of the transaction; false if there was nothing to forget. Its settings stay. For services. 22023 for a bad name.';

CREATE FUNCTION run_tracker.breaker_state(OUT name text, OUT state text, OUT failures bigint, OUT calls bigint,
    OUT opened_at timestamptz, OUT since interval, OUT last_error text, OUT last_error_at timestamptz)
RETURNS SETOF record
LANGUAGE c VOLATILE ROWS 20 SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'run_tracker_breaker_state';
COMMENT ON FUNCTION run_tracker.breaker_state() IS
'State of the breakers of this database that are not closed, or have counted calls; for how long they have been open, or waiting for the probe. For run_tracker.circuit_breakers.';

CREATE FUNCTION run_tracker.read_breakers()
RETURNS TABLE (name text, state text, failures bigint, calls bigint, failure_threshold integer, failure_rate numeric,
    minimum_calls integer, "window" interval, reset_after interval, opened_at timestamptz, next_probe_at timestamptz,
    last_error text, last_error_at timestamptz)
LANGUAGE plpgsql VOLATILE ROWS 20 SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM run_tracker.require_tables();
    RETURN QUERY
        SELECT COALESCE(s.name, b.name), COALESCE(s.state, 'closed'), COALESCE(s.failures, 0), COALESCE(s.calls, 0),
               v.failure_threshold, v.failure_rate, v.minimum_calls, v."window", v.reset_after, s.opened_at,
               clock_timestamp() + (v.reset_after - s.since), s.last_error, s.last_error_at
        FROM run_tracker.breaker_state() s
             FULL JOIN run_tracker.breakers b ON b.name = s.name
             -- what breakers without a row have
             CROSS JOIN LATERAL (
                 SELECT b.failure_threshold, b.failure_rate, b.minimum_calls, b."window", b.reset_after
                 WHERE b.name IS NOT NULL
                 UNION ALL
                 SELECT 5, NULL, 10, interval '60 seconds', interval '60 seconds'
                 WHERE b.name IS NULL) v
        ORDER BY 1;
END
$$;
COMMENT ON FUNCTION run_tracker.read_breakers() IS
'What the view run_tracker.circuit_breakers shows. 55000 if tables are missing.';

-- A view of the extension's, not of the user's: it shows what is in memory, and holds nothing that could be lost.
CREATE VIEW run_tracker.circuit_breakers WITH (security_invoker = true) AS
SELECT s.name, s.state, s.failures, s.calls, s.failure_threshold, s.failure_rate, s.minimum_calls, s."window",
       s.reset_after, s.opened_at, s.next_probe_at, s.last_error, s.last_error_at
FROM run_tracker.read_breakers() s;
DO $$ BEGIN PERFORM run_tracker.revoke_all('run_tracker.circuit_breakers'); END $$;

COMMENT ON VIEW run_tracker.circuit_breakers IS
'Circuit breakers with their settings: those that have a row in breakers, that are not closed, or that have counted calls within their window.';
COMMENT ON COLUMN run_tracker.circuit_breakers.name IS 'Name.';
COMMENT ON COLUMN run_tracker.circuit_breakers.state IS
'closed; open; or half_open, while the result of the probe is waited for.';
COMMENT ON COLUMN run_tracker.circuit_breakers.failures IS 'Calls within the window that failed. Of an open breaker, those that opened it, as long as they are in the window.';
COMMENT ON COLUMN run_tracker.circuit_breakers.calls IS 'Calls within the window.';
COMMENT ON COLUMN run_tracker.circuit_breakers.failure_threshold IS 'See breakers.';
COMMENT ON COLUMN run_tracker.circuit_breakers.failure_rate IS 'See breakers.';
COMMENT ON COLUMN run_tracker.circuit_breakers.minimum_calls IS 'See breakers.';
COMMENT ON COLUMN run_tracker.circuit_breakers."window" IS 'See breakers.';
COMMENT ON COLUMN run_tracker.circuit_breakers.reset_after IS 'See breakers.';
COMMENT ON COLUMN run_tracker.circuit_breakers.opened_at IS 'When it was last opened.';
COMMENT ON COLUMN run_tracker.circuit_breakers.next_probe_at IS
'Of one that is not closed: from when on a caller is let through; in the past if none has come.';
COMMENT ON COLUMN run_tracker.circuit_breakers.last_error IS 'Error of the last failure, 256 bytes at most; for services only.';
COMMENT ON COLUMN run_tracker.circuit_breakers.last_error_at IS 'When that was recorded.';

CREATE FUNCTION run_tracker.install_breakers() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET client_min_messages = warning
AS $install$
BEGIN
    IF to_regclass('run_tracker.breakers') IS NULL THEN
        CREATE TABLE run_tracker.breakers (
            name text NOT NULL,
            failure_threshold integer DEFAULT 5,
            failure_rate numeric,
            minimum_calls integer NOT NULL DEFAULT 10,
            "window" interval NOT NULL DEFAULT '60 seconds',
            reset_after interval NOT NULL DEFAULT '60 seconds',
            CONSTRAINT breakers_pkey PRIMARY KEY (name),
            CONSTRAINT breakers_name_check CHECK (octet_length(name) BETWEEN 1 AND 512),
            CONSTRAINT breakers_failure_threshold_check CHECK (failure_threshold >= 1),
            CONSTRAINT breakers_failure_rate_check CHECK (failure_rate > 0 AND failure_rate <= 1),
            CONSTRAINT breakers_minimum_calls_check CHECK (minimum_calls >= 1),
            CONSTRAINT breakers_window_check CHECK ("window" BETWEEN '1 millisecond' AND '1 year'),
            CONSTRAINT breakers_reset_after_check CHECK (reset_after BETWEEN '1 millisecond' AND '1 year')
        );
        ALTER TABLE run_tracker.breakers ENABLE ROW LEVEL SECURITY;
        PERFORM run_tracker.revoke_all('run_tracker.breakers');

        COMMENT ON TABLE run_tracker.breakers IS
        'Settings of circuit breakers. One without a row has the defaults; a change takes effect at once. Their state is in run_tracker.circuit_breakers.';
        COMMENT ON COLUMN run_tracker.breakers.name IS 'Name, 1 to 512 bytes.';
        COMMENT ON COLUMN run_tracker.breakers.failure_threshold IS
        'It opens when so many calls have failed within the window; null: it does not matter how many.';
        COMMENT ON COLUMN run_tracker.breakers.failure_rate IS
        'It opens as well when this part of the calls within the window have failed, above 0 and at most 1; null: it does not matter.';
        COMMENT ON COLUMN run_tracker.breakers.minimum_calls IS
        'failure_rate counts only from so many calls within the window on.';
        COMMENT ON COLUMN run_tracker.breakers."window" IS 'Length of the sliding window of time in which calls count.';
        COMMENT ON COLUMN run_tracker.breakers.reset_after IS
        'For how long it is open before a probe is let through; and how long the result of the probe is waited for.';
    END IF;
    IF NOT run_tracker.has_policy('run_tracker.breakers', 'readable') THEN
        CREATE POLICY readable ON run_tracker.breakers FOR SELECT USING (true);
        COMMENT ON POLICY readable ON run_tracker.breakers IS 'Settings are no secret.';
    END IF;
END
$install$;
COMMENT ON FUNCTION run_tracker.install_breakers() IS 'Internal: the part of install() for circuit breakers.';
