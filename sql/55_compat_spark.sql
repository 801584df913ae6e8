-- SPARK: limits around calls of language models, and what sessions make, under the names of its tables.

CREATE FUNCTION run_tracker.compat_spark_relations()
RETURNS TABLE (relation text, base text, filter text, keys text[], repeatable boolean, before_insert text,
               after_insert text, before_update text, after_update text, description text)
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT v.relation, v.base, v.filter, v.keys, false,
           NULLIF(concat_ws(E'\n', v.required,
               CASE WHEN v.of_session THEN
$piece$        IF new.session_id IS NOT NULL THEN
            DECLARE
                owner constant text := (SELECT s.user_id FROM run_tracker.sessions s WHERE s.session_id = new.session_id);
            BEGIN
                IF owner IS NULL OR owner <> new.user_id::text THEN
                    RAISE EXCEPTION 'session not found'
                        USING ERRCODE = 'no_data_found', TABLE = TG_TABLE_NAME, SCHEMA = TG_TABLE_SCHEMA, COLUMN = 'session_id',
                              DETAIL = format('There is no session %s%s that you may see.', new.session_id,
                                              CASE WHEN owner <> new.user_id::text THEN ' of this user' END);
                END IF;
                new.user_id := owner;
            END;
        END IF;$piece$ END,
               -- what belongs to no run belongs to that of the session, which has its id
               CASE WHEN v.base = 'artifacts' THEN
$piece$        IF new.run_id IS NULL AND new.session_id IS NULL THEN
            RAISE EXCEPTION 'null value in column "session_id" of view "%"', TG_TABLE_NAME
                USING ERRCODE = 'not_null_violation', TABLE = TG_TABLE_NAME, SCHEMA = TG_TABLE_SCHEMA, COLUMN = 'session_id',
                      HINT = 'Name the session, or the run.';
        ELSIF new.run_id IS NULL THEN
            new.run_id := new.session_id;
            IF NOT EXISTS (SELECT FROM run_tracker.runs s WHERE s.run_id = new.session_id) THEN
                INSERT INTO run_tracker.runs (run_id, user_id, lifecycle, kind, session_id)
                VALUES (new.session_id, new.user_id::text, 'session', 'session', new.session_id::text)
                ON CONFLICT DO NOTHING;
            END IF;
        END IF;$piece$ END), ''),
           NULL,
           -- there is nothing to write, but the session is touched
           CASE v.base WHEN 'sessions' THEN
$piece$        UPDATE run_tracker.sessions s SET metadata = s.metadata WHERE s.session_id = old.session_id;$piece$ END,
           NULL, v.description
    FROM (VALUES
        -- for import_table(): the view is among the extras
        ('spark_user_profiles', 'accounts', NULL, '{user_id}'::text[], false, NULL, NULL),
        ('spark_sessions', 'sessions', 'r.closed_at IS NULL', '{session_id}'::text[], false, NULL,
         'Sessions that are not closed. INSERT opens one if the user may have one more (RT004); any UPDATE keeps it active, which it is for run_tracker.session_timeout; DELETE removes it with its deltas.'),
        ('spark_token_usage', 'usage_records', 'r.source IN (''call'', ''reservation'')', '{id}', false,
$piece$        IF new.tokens_used IS NULL THEN
            RAISE EXCEPTION 'null value in column "tokens_used" of view "%"', TG_TABLE_NAME
                USING ERRCODE = 'not_null_violation', TABLE = TG_TABLE_NAME, SCHEMA = TG_TABLE_SCHEMA, COLUMN = 'tokens_used';
        END IF;$piece$,
         'Tokens that were used, an entry per call. They have been paid: INSERT never refuses them for a quota, spark_quotas() says beforehand what is left.'),
        ('spark_requests', 'usage_records', 'r.source = ''request''', '{id}', true,
$piece$        IF new.endpoint IS NULL THEN
            RAISE EXCEPTION 'null value in column "endpoint" of view "%"', TG_TABLE_NAME
                USING ERRCODE = 'not_null_violation', TABLE = TG_TABLE_NAME, SCHEMA = TG_TABLE_SCHEMA, COLUMN = 'endpoint';
        END IF;$piece$,
         'Requests, which count for the daily quota.'),
        ('spark_deltas', 'session_deltas', NULL, '{session_id,version}', false, NULL,
         'Changes of the state of sessions, JSON merge patches. INSERT touches the session, and is refused (RT007) if the version is not the next one. They never change, and go with their session.'),
        ('spark_generated_scripts', 'artifacts', 'r.kind = ''script''', '{id}', true, NULL, 'Scripts: artifacts of kind script.'),
        ('spark_files', 'artifacts', 'r.kind = ''file''', '{id}', true, NULL, 'Files: artifacts of kind file.'),
        ('spark_unity_prefabs', 'artifacts', 'r.kind = ''prefab''', '{id}', true, NULL, 'Prefabs: artifacts of kind prefab.'),
        ('spark_unity_materials', 'artifacts', 'r.kind = ''material''', '{id}', true, NULL, 'Materials: artifacts of kind material.'),
        ('spark_build_jobs', 'runs', 'r.lifecycle = ''build''', '{job_id}', true, NULL,
         'Build jobs: runs of lifecycle build. Workers take them with UPDATE ... FOR UPDATE SKIP LOCKED, or claim_runs().'))
        AS v (relation, base, filter, keys, of_session, required, description)
$$;
COMMENT ON FUNCTION run_tracker.compat_spark_relations() IS 'Internal: see compat_relations().';

CREATE FUNCTION run_tracker.compat_spark_columns()
RETURNS TABLE (relation text, name text, type text, reads text, target text, writes text, who text, description text)
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT 'spark_user_profiles', c.* FROM (VALUES
        ('user_id', '@user_id', NULL, 'user_id', NULL, 'key', NULL),
        ('tier', 'text', NULL, 'tier', 'COALESCE(new.tier, ''free'')', 'fact', NULL),
        ('permissions', 'text[]', NULL, 'permissions', NULL, 'fact', NULL),
        ('quotas', 'jsonb', NULL, 'quotas', NULL, 'fact', NULL),
        ('created_at', 'timestamptz', NULL, 'created_at', NULL, 'fact', NULL),
        ('updated_at', 'timestamptz', NULL, 'updated_at', NULL, 'fact', NULL))
        AS c (name, type, reads, target, writes, who, description)
    UNION ALL
    SELECT 'spark_sessions', c.* FROM (VALUES
        ('session_id', 'uuid', NULL, 'session_id', NULL, 'key', 'Id; made up if not given.'),
        ('user_id', '@user_id', NULL, 'user_id', NULL, 'key', 'Owner.'),
        ('tier', 'text', NULL, 'tier', NULL, 'fact', 'Tier of the user when the session was opened; filled in.'),
        ('created_at', 'timestamptz', NULL, 'created_at', NULL, 'fact', 'When the session was opened; filled in.'),
        ('updated_at', 'timestamptz', NULL, 'updated_at', NULL, 'fact', 'When it was last touched; filled in.'))
        AS c (name, type, reads, target, writes, who, description)
    UNION ALL
    SELECT 'spark_token_usage', c.* FROM (VALUES
        -- the request has been counted by spark_requests
        (NULL, 'integer', NULL, 'requests', '0', 'constant', NULL),
        ('id', 'uuid', NULL, 'usage_id', NULL, 'key', 'Id; made up if not given.'),
        ('user_id', '@user_id', NULL, 'user_id', NULL, 'key', 'Who used them.'),
        ('tokens_used', 'bigint', NULL, 'total_tokens', NULL, 'client', 'Tokens; corrected by services.'),
        ('created_at', 'timestamptz', NULL, 'used_at', NULL, 'fact', 'When they were used; filled in.'))
        AS c (name, type, reads, target, writes, who, description)
    UNION ALL
    SELECT 'spark_requests', c.* FROM (VALUES
        (NULL, 'text', NULL, 'source', '''request''', 'constant', NULL),
        (NULL, 'bigint', NULL, 'total_tokens', '0', 'constant', NULL),
        ('id', 'uuid', NULL, 'usage_id', NULL, 'key', 'Id; made up if not given.'),
        ('session_id', 'uuid', NULL, 'session_id', NULL, 'key', 'Session, one of the user''s.'),
        ('user_id', '@user_id', NULL, 'user_id', NULL, 'key', 'Who made the request.'),
        ('endpoint', 'text', NULL, 'endpoint', NULL, 'client', 'What was called; function:NAME for function calls.'),
        ('metadata', 'jsonb', NULL, 'metadata', NULL, 'client', 'Anything else, a JSON object.'),
        ('created_at', 'timestamptz', NULL, 'used_at', NULL, 'fact', 'When it was made; filled in.'))
        AS c (name, type, reads, target, writes, who, description)
    UNION ALL
    SELECT 'spark_deltas', c.* FROM (VALUES
        ('session_id', 'uuid', NULL, 'session_id', NULL, 'key', 'Session.'),
        ('user_id', '@user_id', NULL, 'user_id', NULL, 'key', 'Owner of the session.'),
        ('version', 'bigint', NULL, 'version', NULL, 'key', 'Version of the state with this delta: 1, 2, 3, ...; the next one unless given.'),
        ('delta', 'jsonb', NULL, 'delta', NULL, 'key', 'The change, a JSON object.'),
        ('created_at', 'timestamptz', NULL, 'created_at', NULL, 'fact', 'When it was appended; filled in.'))
        AS c (name, type, reads, target, writes, who, description)
    UNION ALL
    SELECT v.relation, c.name, c.type, c.reads, c.target, COALESCE(c.writes, CASE WHEN c.name IS NULL THEN quote_literal(v.kind) END),
           c.who, c.description
    FROM (VALUES ('spark_generated_scripts', 'script'), ('spark_files', 'file'), ('spark_unity_prefabs', 'prefab'),
                 ('spark_unity_materials', 'material')) AS v (relation, kind)
         CROSS JOIN (VALUES
        (NULL, 'text', NULL, 'kind', NULL, 'constant', NULL),
        ('id', 'uuid', NULL, 'artifact_id', NULL, 'key', 'Id; made up if not given.'),
        ('session_id', 'uuid', NULL, 'session_id', NULL, 'key', 'Session that made it, one of the user''s.'),
        ('run_id', 'uuid', NULL, 'run_id', NULL, 'key', 'Run that made it; that of the session, which has its id, unless given.'),
        ('user_id', '@user_id', NULL, 'user_id', NULL, 'key', 'Owner.'),
        ('name', 'text', NULL, 'name', NULL, 'client', 'Name.'),
        ('type', 'text', NULL, 'type', NULL, 'client', 'Type within its kind.'),
        ('content', 'text', NULL, 'content', NULL, 'client', 'The thing itself, if it is text.'),
        ('configuration', 'jsonb', NULL, 'configuration', NULL, 'client', 'Configuration, a JSON object.'),
        ('content_type', 'text', NULL, 'content_type', NULL, 'client', 'Media type.'),
        ('url', 'text', NULL, 'url', NULL, 'client', 'Where it is, if it is elsewhere.'),
        ('size_bytes', 'bigint', NULL, 'size_bytes', NULL, 'client', 'Size in bytes; that of content unless given.'),
        ('metadata', 'jsonb', NULL, 'metadata', NULL, 'client', 'Anything else, a JSON object.'),
        ('created_at', 'timestamptz', NULL, 'created_at', NULL, 'fact', 'When it was recorded; filled in.'),
        ('updated_at', 'timestamptz', NULL, 'updated_at', NULL, 'fact', 'When it was changed last; filled in.'))
        AS c (name, type, reads, target, writes, who, description)
    UNION ALL
    SELECT 'spark_build_jobs', c.* FROM (VALUES
        (NULL, 'text', NULL, 'lifecycle', '''build''', 'constant', NULL),
        ('job_id', 'uuid', NULL, 'run_id', NULL, 'key', 'Id; made up if not given.'),
        ('session_id', 'uuid', run_tracker.compat_id('r.session_id', 'uuid'), 'session_id', 'new.session_id::text', 'client',
         'Session, one of the user''s.'),
        ('user_id', '@user_id', NULL, 'user_id', NULL, 'key', 'Owner; null if there is none.'),
        ('status', 'text', NULL, 'status', NULL, 'status', 'queued, building, completed, failed, cancelled or timeout.'),
        ('priority', 'integer', NULL, 'priority', 'COALESCE(new.priority, 0)', 'client', 'Higher is taken first.'),
        ('worker_id', 'text', NULL, 'worker', NULL, 'client', 'Who builds it.'),
        ('inputs', 'jsonb', NULL, 'inputs', NULL, 'client', 'What to build.'),
        ('result', 'jsonb', NULL, 'result', NULL, 'client', 'What was built.'),
        ('error_message', 'text', NULL, 'error', NULL, 'client', 'Why it failed.'),
        ('attempts', 'integer', 'r.attempt - CASE WHEN r.started_at IS NULL THEN 1 ELSE 0 END', 'attempt', NULL, 'computed',
         'How often it was begun; counted.'),
        ('max_attempts', 'integer', NULL, 'max_attempts', NULL, 'client', 'How often it may be begun when it times out.'),
        ('created_at', 'timestamptz', NULL, 'created_at', NULL, 'fact', 'When it was queued; filled in.'),
        ('started_at', 'timestamptz', NULL, 'started_at', NULL, 'fact', 'When it was begun; filled in.'),
        ('completed_at', 'timestamptz', NULL, 'finished_at', NULL, 'fact', 'When it ended, however; filled in.'),
        ('updated_at', 'timestamptz', NULL, 'updated_at', NULL, 'fact', 'When it was changed last; filled in.'))
        AS c (name, type, reads, target, writes, who, description)
$$;
COMMENT ON FUNCTION run_tracker.compat_spark_columns() IS 'Internal: see compat_columns().';

CREATE FUNCTION run_tracker.compat_spark_extras()
RETURNS TABLE (kind text, name text, definition text, description text)
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $extras$
    VALUES
    -- no triggers: PostgreSQL then takes INSERT ... ON CONFLICT (user_id) for the table's
    ('view', 'spark_user_profiles', $f$
DO $do$
DECLARE
    user_column constant text := CASE '@user_id@' WHEN 'uuid' THEN 'user_uuid' WHEN 'text' THEN 'user_id' END;
BEGIN
    IF user_column IS NULL THEN
        RAISE EXCEPTION 'argument "id_types" has a bad key or value'
            USING ERRCODE = 'invalid_parameter_value', DETAIL = 'The key is "user_id".',
                  HINT = 'In application "spark", user_id is uuid or text.';
    END IF;
    EXECUTE format('CREATE OR REPLACE VIEW %s.spark_user_profiles WITH (security_invoker = true) AS
        SELECT r.%I AS user_id, r.tier, r.permissions, r.quotas, r.created_at, r.updated_at FROM run_tracker.accounts r
        WHERE r.%2$I IS NOT NULL', @schema_text@, user_column);
END
$do$;
COMMENT ON COLUMN @schema@.spark_user_profiles.user_id IS 'User.';
COMMENT ON COLUMN @schema@.spark_user_profiles.tier IS 'Tier (run_tracker.tiers); "free" unless given by a service.';
COMMENT ON COLUMN @schema@.spark_user_profiles.permissions IS
'Permissions, such as spark:generate; those of the tier unless given. Users may take fewer, and services give others.';
COMMENT ON COLUMN @schema@.spark_user_profiles.quotas IS
'Limits in force: {"monthlyTokens", "dailyRequests", "concurrentSessions"}, and "monthlyCost", "rateLimits" where there are any; those of the tier unless given. Users may take less, and services give others.';
COMMENT ON COLUMN @schema@.spark_user_profiles.created_at IS 'When the profile was made; filled in.';
COMMENT ON COLUMN @schema@.spark_user_profiles.updated_at IS 'When it was changed last; filled in.'
$f$,
     'Profiles of users: accounts, which services change. Users may make their own, with no more than the tier "free" has (42501).'),
    ('function', 'spark_rate_limits_write', $f$
CREATE OR REPLACE FUNCTION @schema@.spark_rate_limits_write() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    cost bigint;
    used record;
BEGIN
    IF TG_OP = 'DELETE' THEN
        PERFORM run_tracker.reset_rate_limit(old.user_id::text, old.endpoint);
        RETURN old;
    ELSIF TG_OP = 'INSERT' THEN
        cost := COALESCE(new."current", 0);
    ELSIF ROW(new.user_id, new.endpoint) IS DISTINCT FROM ROW(old.user_id, old.endpoint) THEN
        RAISE EXCEPTION 'a column of view "%" cannot be changed', TG_TABLE_NAME
            USING ERRCODE = 'object_not_in_prerequisite_state', TABLE = TG_TABLE_NAME, SCHEMA = TG_TABLE_SCHEMA,
                  DETAIL = 'Columns that stay as they are: "user_id", "endpoint".';
    ELSIF new."current" < old."current" THEN
        PERFORM run_tracker.reset_rate_limit(old.user_id::text, old.endpoint);
        cost := new."current";
    ELSE
        cost := new."current" - old."current";
    END IF;
    IF cost = 0 THEN
        SELECT u.* INTO used FROM run_tracker.consume_rate_limit(new.endpoint, 0, new.user_id::text) u;
    ELSE
        SELECT u.* INTO used FROM run_tracker.consume_rate_limit_or_fail(new.endpoint, cost::integer, new.user_id::text) u;
    END IF;
    new.user_id := COALESCE(new.user_id::text, run_tracker.current_user_id());
    new."current" := COALESCE(used."current", cost);
    new."limit" := used."limit";
    new.reset_at := used.reset_at;
    RETURN new;
END
$body$$f$,
     'Trigger of view spark_rate_limits: counts what is added to "current", or refuses it (RT005).'),
    ('view', 'spark_rate_limits', $f$
CREATE OR REPLACE VIEW @schema@.spark_rate_limits WITH (security_invoker = true) AS
SELECT CAST(@read_user_id@ AS @user_id@) AS user_id, r.endpoint, r."current", r."limit", r.reset_at
FROM run_tracker.rate_limit_state() r;
CREATE OR REPLACE TRIGGER run_tracker_count INSTEAD OF INSERT OR UPDATE OR DELETE ON @schema@.spark_rate_limits
    FOR EACH ROW EXECUTE FUNCTION @schema@.spark_rate_limits_write();
CREATE OR REPLACE TRIGGER run_tracker_delete INSTEAD OF DELETE ON @schema@.spark_rate_limits
    FOR EACH ROW EXECUTE FUNCTION run_tracker.compat_delete('rate_limits', 'user_id', 'user_id', 'endpoint', 'endpoint');
COMMENT ON COLUMN @schema@.spark_rate_limits.user_id IS 'User; the caller unless given.';
COMMENT ON COLUMN @schema@.spark_rate_limits.endpoint IS 'What is called.';
COMMENT ON COLUMN @schema@.spark_rate_limits."current" IS 'Calls within the window.';
COMMENT ON COLUMN @schema@.spark_rate_limits."limit" IS 'How many there may be: what tier and account say.';
COMMENT ON COLUMN @schema@.spark_rate_limits.reset_at IS 'When current will be back at 0, if there are no further calls.'
$f$,
     'What users have used of their rate limits. INSERT counts as many calls as "current" says, UPDATE as many as are added to it: RT005 with the ms until it will be allowed if they are too many. Lowering "current", and DELETE, begin anew, for services. Nothing of that is undone by ROLLBACK.'),
    ('function', 'spark_quotas', $f$
CREATE OR REPLACE FUNCTION @schema@.spark_quotas(user_id @user_id@ DEFAULT NULL) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $body$
    SELECT jsonb_object_agg(w.word, jsonb_build_object('used', q.used, 'limit', q."limit"))
    FROM run_tracker.quotas($1::text) q
         JOIN (VALUES ('monthly_tokens', 'monthlyTokens'), ('daily_requests', 'dailyRequests'),
                      ('concurrent_sessions', 'concurrentSessions'), ('monthly_cost', 'monthlyCost')) AS w (quota, word)
           ON w.quota = q.quota
$body$$f$,
     'What a user, by default the caller, has used of the quotas: {"monthlyTokens": {"used", "limit"}, "dailyRequests": ..., "concurrentSessions": ..., "monthlyCost": ...}; a null limit is none. 42501 for another user unless called by a service.'),
    ('view', 'spark_circuit_breakers', $f$
CREATE OR REPLACE VIEW @schema@.spark_circuit_breakers WITH (security_invoker = true) AS
SELECT b.name, replace(b.state, '_', '-') AS state, b.failures AS failure_count, b.opened_at,
       b.next_probe_at AS next_attempt_at, b.last_error, b.last_error_at AS last_failure_at
FROM run_tracker.circuit_breakers b;
COMMENT ON COLUMN @schema@.spark_circuit_breakers.name IS 'Name.';
COMMENT ON COLUMN @schema@.spark_circuit_breakers.state IS 'closed, open or half-open.';
COMMENT ON COLUMN @schema@.spark_circuit_breakers.failure_count IS 'Failures within the window.';
COMMENT ON COLUMN @schema@.spark_circuit_breakers.opened_at IS 'When it was last opened.';
COMMENT ON COLUMN @schema@.spark_circuit_breakers.next_attempt_at IS 'Of one that is not closed: from when on a call is let through.';
COMMENT ON COLUMN @schema@.spark_circuit_breakers.last_error IS 'Error of the last failure; for services.';
COMMENT ON COLUMN @schema@.spark_circuit_breakers.last_failure_at IS 'When that was.'
$f$,
     'Circuit breakers. Their state is changed by breaker_allow(), breaker_record() and reset_breaker().'),
    ('view', 'spark_metrics', $f$
CREATE OR REPLACE VIEW @schema@.spark_metrics WITH (security_invoker = true) AS
SELECT m.name, m.labels, m.value FROM run_tracker.metrics m;
COMMENT ON COLUMN @schema@.spark_metrics.name IS 'Name.';
COMMENT ON COLUMN @schema@.spark_metrics.labels IS 'Labels; of buckets, "le" is 0.1, 0.5, 1.0, 2.0, 5.0, 10.0 or +Inf seconds.';
COMMENT ON COLUMN @schema@.spark_metrics.value IS 'Value.'
$f$,
     'Counters and histograms of durations.'),
    ('function', 'spark_health', $f$
CREATE OR REPLACE FUNCTION @schema@.spark_health() RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $body$
    SELECT h.health || jsonb_build_object(
        'status', CASE h.health ->> 'status' WHEN 'unhealthy' THEN 'unhealthy' ELSE 'healthy' END,
        'circuit_breakers', (SELECT COALESCE(jsonb_object_agg(b.name, b.state), '{}') FROM @schema@.spark_circuit_breakers b))
    FROM run_tracker.health() AS h (health)
$body$$f$,
     'Is everything all right: {"status": "healthy" or "unhealthy", "database", "timestamp", "problems", "circuit_breakers": {name: state}, ...}; the rest is what health() says, whose "degraded" is "healthy" here.')
$extras$;
COMMENT ON FUNCTION run_tracker.compat_spark_extras() IS 'Internal: see compat_extras().';
