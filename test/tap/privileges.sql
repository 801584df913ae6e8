-- What a user with a SQL role of his own, who is not nice, can do: nothing to others, and nothing to what is computed.
-- The lists of privileges are in api.sql; this is what they come to.

\set ON_ERROR_STOP on
\set alice_run '\'00000000-0000-0000-0000-00000000000a\''
\set alice_run2 '\'00000000-0000-0000-0000-0000000000aa\''
\set alice_task '\'00000000-0000-0000-0000-0000000000a1\''
\set bob_run '\'00000000-0000-0000-0000-00000000000b\''
\set bob_ended '\'00000000-0000-0000-0000-0000000000bb\''
\set bob_task '\'00000000-0000-0000-0000-0000000000b1\''
\set alice_session '\'00000000-0000-0000-0000-0000000000ac\''
\set bob_session '\'00000000-0000-0000-0000-0000000000bc\''
\set absent '\'00000000-0000-0000-0000-00000000000f\''

BEGIN;
SELECT no_plan();
SET LOCAL client_min_messages = warning;

CREATE ROLE tap_reader;
CREATE ROLE tap_client;
CREATE ROLE tap_service;
CREATE ROLE tap_nobody;
CREATE ROLE tap_owner;
SELECT run_tracker.grant_reader('tap_reader') \g /dev/null
SELECT run_tracker.grant_client('tap_client') \g /dev/null
SELECT run_tracker.grant_service('tap_service') \g /dev/null
-- for an error in the middle of bookkeeping, below
ALTER TABLE run_tracker.run_totals ADD CONSTRAINT tap_limit CHECK (input_tokens <= 999999999999);
-- a place where the client may create things
CREATE SCHEMA hostile AUTHORIZATION tap_client;

-- The error that a statement ends with, in full and without the ids of the rows that it names; null if it succeeds.
-- Whatever it did is undone.
CREATE FUNCTION pg_temp.error_of(statement text) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
    message text; detail text; hint text;
BEGIN
    BEGIN
        EXECUTE statement;
        RAISE EXCEPTION USING ERRCODE = 'TAP00';
    EXCEPTION
        WHEN SQLSTATE 'TAP00' THEN
            RETURN NULL;
        WHEN OTHERS THEN
            GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
            RETURN regexp_replace(concat_ws(' | ', SQLSTATE, message, NULLIF(detail, ''), NULLIF(hint, '')),
                                  '[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}', '<id>', 'g');
    END;
END
$$;
-- The number of rows that a statement changes; they stay as they were.
CREATE FUNCTION pg_temp.rows_of(statement text) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    n bigint;
BEGIN
    BEGIN
        EXECUTE statement;
        GET DIAGNOSTICS n = ROW_COUNT;
        RAISE EXCEPTION USING ERRCODE = 'TAP00';
    EXCEPTION
        WHEN SQLSTATE 'TAP00' THEN
            RETURN n;
    END;
END
$$;
CREATE FUNCTION pg_temp.act_as(role text, sub text) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('request.jwt.claims', jsonb_build_object('sub', sub)::text, true);
    PERFORM set_config('role', role, true);
END
$$;

-- Two users, each with a run, a task whose response is arriving, a message, a line of log, a retrieval and an artifact; Bob has a run that has ended, too.
SELECT pg_temp.act_as('tap_client', 'bob') \g /dev/null
SELECT run_tracker.create_run(:bob_run, name => 'secret of bob'),
       run_tracker.create_task(:bob_run, :bob_task, name => 'secret of bob'),
       run_tracker.add_message(:bob_run, 'user', 'secret of bob'), run_tracker.add_log(:bob_run, 'secret of bob', 'ERROR'),
       run_tracker.log_retrieval(:bob_run, 'hybrid', 'secret of bob'), run_tracker.add_artifact(:bob_run, 'file', 'secret of bob'),
       run_tracker.create_run(:bob_ended, name => 'secret of bob') \g /dev/null
SELECT run_tracker.append_response(:bob_task, 'secret of bob'), run_tracker.append_response(:bob_task, 'secret of bob') \g /dev/null
SELECT run_tracker.complete_run(:bob_ended) \g /dev/null
SELECT run_tracker.open_session(session_id => :bob_session) \g /dev/null
SELECT run_tracker.append_delta(:bob_session, 0, jsonb_build_object('secret', 'of bob', 'long', repeat('x', 10000))) \g /dev/null
SELECT pg_temp.act_as('tap_client', 'alice') \g /dev/null
SELECT run_tracker.create_run(:alice_run, name => 'mine'), run_tracker.create_run(:alice_run2, name => 'mine'),
       run_tracker.create_task(:alice_run, :alice_task, name => 'mine'),
       run_tracker.add_message(:alice_run, 'user', 'mine'), run_tracker.add_log(:alice_run, 'mine', 'ERROR'),
       run_tracker.log_retrieval(:alice_run, 'hybrid', 'mine'), run_tracker.add_artifact(:alice_run, 'file', 'mine') \g /dev/null
SELECT run_tracker.append_response(:alice_task, 'mine'), run_tracker.append_response(:alice_task, 'mine') \g /dev/null
SELECT run_tracker.start_run(:alice_run) \g /dev/null
SELECT run_tracker.open_session(session_id => :alice_session) \g /dev/null
SELECT run_tracker.append_delta(:alice_session, 0, jsonb_build_object('mine', repeat('x', 10000))) \g /dev/null
RESET role;
-- she may have more than one
UPDATE run_tracker.tiers SET concurrent_sessions = NULL WHERE name = 'free';

---------------------------------------------------------------------------------------------------------------------
-- Computed columns

-- The columns that a client may write, by INSERT and by UPDATE; all others of a table are computed.
CREATE TEMP TABLE writable (relation text, inserted text[], updated text[]);
INSERT INTO writable VALUES
('runs',
 '{run_id,user_id,lifecycle,status,kind,name,workflow_id,session_id,subject_id,parent_run_id,priority,scheduled_at,inputs,
   settings,variables,plan,result,reflections,metrics,metadata,progress,current_step,error,error_detail,max_attempts,
   timeout,max_duration,retry_base,retry_cap,worker}',
 '{status,kind,name,workflow_id,session_id,subject_id,parent_run_id,priority,scheduled_at,inputs,settings,variables,plan,
   result,reflections,metrics,metadata,progress,current_step,error,error_detail,max_attempts,timeout,max_duration,
   retry_base,retry_cap,worker}'),
('tasks',
 '{run_id,task_id,user_id,parent_task_id,lifecycle,status,service,name,operation,provider,model,response_model,request,
   response,result,input_tokens,output_tokens,total_tokens,cache_read_input_tokens,cache_creation_input_tokens,
   reasoning_output_tokens,cost,cost_source,finish_reason,response_id,error,error_detail,time_to_first_token_ms,metadata,reservation_id}',
 '{run_id,parent_task_id,status,service,name,operation,provider,model,response_model,request,response,result,input_tokens,
   output_tokens,total_tokens,cache_read_input_tokens,cache_creation_input_tokens,reasoning_output_tokens,cost,cost_source,
   finish_reason,response_id,error,error_detail,time_to_first_token_ms,metadata,reservation_id}'),
('messages', '{run_id,user_id,task_id,role,name,content,parts,metadata}', '{task_id,role,name,content,parts,metadata}'),
('logs', '{run_id,log_id,user_id,task_id,level,message,category,step_name,details}', '{}'),
('retrievals', '{run_id,retrieval_id,user_id,task_id,retrieval_type,query,context,results_count,results,location,component_type,
   duration_ms,metadata}', '{task_id,retrieval_type,query,context,results_count,results,location,component_type,duration_ms,metadata}'),
('artifacts',
 '{run_id,artifact_id,user_id,session_id,task_id,retrieval_id,kind,type,name,ordinal,source,similarity,source_document_id,
   source_document_name,chunk_type,configuration,content,content_type,url,size_bytes,metadata}',
 '{task_id,retrieval_id,kind,type,name,ordinal,source,similarity,source_document_id,source_document_name,chunk_type,
   configuration,content,content_type,url,size_bytes,metadata}'),
('response_chunks', '{}', '{}'),
('stat_deltas', '{}', '{}'),
('stat_totals', '{}', '{}'),
('transitions', '{}', '{}'),
('run_totals', '{}', '{}'),
('open_runs', '{}', '{}'),
('lifecycles', '{}', '{}'),
('breakers', '{}', '{}'),
('finish_handlers', '{}', '{}'),
('callback_keys', '{}', '{}'),
('callbacks', '{}', '{}'),
('tiers', '{}', '{}'),
('accounts', '{user_id,user_uuid,tier,permissions,quotas}', '{}'),
('usage_records', '{usage_id,user_id,source,run_id,task_id,session_id,reservation_id,endpoint,provider,model,requests,input_tokens,
   output_tokens,total_tokens,cost,metadata}', '{}'),
('reservations', '{}', '{}'),
('sessions', '{session_id,user_id,metadata}', '{metadata,closed_at}'),
('session_deltas', '{session_id,version,user_id,delta}', '{}'),
('session_snapshots', '{}', '{}'),
('installation', '{}', '{}');
CREATE TEMP TABLE columns AS
SELECT a.attname::text COLLATE "default" AS name, w.*
FROM writable w
     JOIN pg_attribute a ON a.attrelid = format('run_tracker.%I', w.relation)::regclass
WHERE a.attnum > 0 AND NOT a.attisdropped;
GRANT SELECT ON writable, columns TO PUBLIC;

SELECT pg_temp.act_as('tap_client', 'alice') \g /dev/null
SELECT throws_ok(format('UPDATE run_tracker.%I SET %I = %2$I', relation, name), '42501', NULL,
                 format('a client cannot update %s.%s', relation, name))
FROM columns WHERE name <> ALL (updated) ORDER BY relation, name;
SELECT throws_ok(format('INSERT INTO run_tracker.%I (%I) VALUES (NULL)', relation, name), '42501', NULL,
                 format('a client cannot insert %s.%s', relation, name))
FROM columns WHERE name <> ALL (inserted) ORDER BY relation, name;
SELECT lives_ok(format('UPDATE run_tracker.%I SET %I = %2$I', relation, name),
                format('a client can update %s.%s', relation, name))
FROM columns WHERE name = ANY (updated) ORDER BY relation, name;
-- All of them at once: those that cannot be null have a value, the others are null.
SELECT is(pg_temp.error_of(format('INSERT INTO run_tracker.%I (%s) %s', relation,
                                  array_to_string(inserted, ', '), given)), NULL, 'a client can insert the others of ' || relation)
FROM (SELECT w.relation, w.inserted,
             -- one row with all columns: those that must have a value, and nulls
             format('SELECT %s', (SELECT string_agg(format('%s AS %I', CASE i
                        WHEN 'run_id' THEN CASE w.relation WHEN 'runs' THEN 'gen_random_uuid()'
                                                           ELSE format('%L::uuid', :alice_run) END
                        WHEN 'session_id' THEN CASE w.relation WHEN 'session_deltas' THEN format('%L::uuid', :alice_session)
                                                               ELSE 'NULL::uuid' END
                        WHEN 'delta' THEN '''{}''::jsonb'
                        WHEN 'task_id' THEN 'gen_random_uuid()' WHEN 'user_id' THEN '''alice''::text'
                        WHEN 'retrieval_type' THEN '''hybrid''' WHEN 'kind' THEN '''file''' WHEN 'role' THEN '''user''' WHEN 'content' THEN '''text''' WHEN 'message' THEN '''text'''
                        ELSE format('NULL::%s', format_type(a.atttypid, NULL)) END, i), ', ' ORDER BY n)
                        FROM unnest(w.inserted) WITH ORDINALITY AS u (i, n)
                             JOIN pg_attribute a ON a.attrelid = format('run_tracker.%I', w.relation)::regclass
                                                AND a.attname = i)) AS given
      FROM writable w WHERE w.inserted <> '{}') AS w;

-- A run that is born finished, running, or at its tenth attempt, would be one that nobody ran.
SELECT throws_ok($$INSERT INTO run_tracker.runs (status) VALUES ('completed')$$, '42501', NULL, 'no finished run');
SELECT throws_ok($$INSERT INTO run_tracker.runs (status) VALUES ('running')$$, '42501', NULL, 'no running run');
SELECT throws_ok(format($$INSERT INTO run_tracker.tasks (run_id, status) VALUES (%L, 'failed')$$, :alice_run),
                 '42501', NULL, 'no finished task');
SELECT throws_ok($$INSERT INTO run_tracker.runs (lifecycle, status) VALUES ('conversation', 'completed')$$, '42501', NULL,
                 'no finished conversation');
SELECT lives_ok($$INSERT INTO run_tracker.runs (lifecycle, status) VALUES ('conversation', 'active')$$,
                'the initial status may be given');
SELECT throws_ok(format($$MERGE INTO run_tracker.runs r USING (VALUES (%L::uuid)) v (run_id) ON v.run_id = r.run_id
                          WHEN MATCHED THEN UPDATE SET phase = 'succeeded'$$, :alice_run), '42501', NULL,
                 'MERGE writes no computed column either');
SELECT throws_ok(format($$INSERT INTO run_tracker.runs (run_id) VALUES (%L)
                          ON CONFLICT (run_id) DO UPDATE SET attempt = 7$$, :alice_run), '42501', NULL,
                 'nor does ON CONFLICT DO UPDATE');

---------------------------------------------------------------------------------------------------------------------
-- What a client cannot do to the tables, and to the rules

SELECT throws_ok(statement, '42501', NULL, 'a client cannot: ' || statement)
FROM (VALUES
    ('DELETE FROM run_tracker.runs'),
    ('DELETE FROM run_tracker.tasks'),
    ('DELETE FROM run_tracker.messages'),
    ('DELETE FROM run_tracker.logs'),
    ('UPDATE run_tracker.logs SET message = message'),
    ('DELETE FROM run_tracker.retrievals'),
    ('UPDATE run_tracker.retrievals SET created_at = created_at'),
    ('DELETE FROM run_tracker.artifacts'),
    ('INSERT INTO run_tracker.response_chunks SELECT * FROM run_tracker.response_chunks'),
    ('DELETE FROM run_tracker.response_chunks'),
    ('SELECT 1 FROM run_tracker.response_chunks FOR UPDATE'),
    ('DELETE FROM run_tracker.sessions'),
    ('DELETE FROM run_tracker.session_deltas'),
    ('DELETE FROM run_tracker.session_snapshots'),
    ('TRUNCATE run_tracker.sessions'),
    ('LOCK TABLE run_tracker.sessions IN EXCLUSIVE MODE'),
    ('SELECT 1 FROM run_tracker.session_deltas FOR UPDATE'),
    ('SET run_tracker.session_timeout = ''1s'''),
    ('SELECT run_tracker.open_session(''bob'')'),
    ('SELECT run_tracker.purge_sessions()'),
    ('SELECT run_tracker.install_sessions()'),
    ('DELETE FROM run_tracker.stat_deltas'),
    ('DELETE FROM run_tracker.stat_totals'),
    ('DELETE FROM run_tracker.transitions'),
    ('DELETE FROM run_tracker.run_totals'),
    ('DELETE FROM run_tracker.open_runs'),
    ('TRUNCATE run_tracker.runs CASCADE'),
    ('TRUNCATE run_tracker.messages'),
    ('LOCK TABLE run_tracker.runs IN EXCLUSIVE MODE'),
    ('LOCK TABLE run_tracker.tasks IN ACCESS EXCLUSIVE MODE'),
    ('LOCK TABLE run_tracker.run_totals IN SHARE MODE'),
    ('LOCK TABLE run_tracker.response_chunks IN SHARE MODE'),
    ('LOCK TABLE run_tracker.artifacts IN EXCLUSIVE MODE'),
    ('ALTER TABLE run_tracker.runs DISABLE TRIGGER ALL'),
    ('ALTER TABLE run_tracker.runs DISABLE ROW LEVEL SECURITY'),
    ('DROP TABLE run_tracker.logs'),
    ('CREATE POLICY p ON run_tracker.runs USING (true)'),
    ('CREATE RULE r AS ON INSERT TO run_tracker.runs DO ALSO NOTHING'),
    ('CREATE INDEX ON run_tracker.runs (name)'),
    ('CREATE TABLE run_tracker.mine ()'),
    ('CREATE FUNCTION run_tracker.mine() RETURNS int LANGUAGE sql AS ''SELECT 1'''),
    ('CREATE TABLE hostile.child (run_id uuid REFERENCES run_tracker.runs)'),
    ('SET session_replication_role = replica'),
    ('SET run_tracker.identity = role'),
    ('SET run_tracker.max_payload = ''1GB'''),
    ('SET run_tracker.task_transitions = on'),
    ('SELECT run_tracker.define_lifecycle(''run'', ''{}'')'),
    ('SELECT run_tracker.drop_lifecycle(''run'')'),
    ('INSERT INTO run_tracker.lifecycles VALUES (''x'', ''{}'')'),
    ('SELECT run_tracker.rebuild_totals()'),
    ('SELECT run_tracker.rebuild_open_runs()'),
    ('SELECT * FROM run_tracker.claim_runs(''x'')'),
    ('SELECT run_tracker.expire_runs()'),
    ('SELECT run_tracker.purge_runs()'),
    ('SELECT run_tracker.fold_statistics()'),
    ('SELECT run_tracker.schedule_maintenance()'),
    ('SELECT run_tracker.unschedule_maintenance()'),
    ('SELECT run_tracker.wake_worker()'),
    ('SELECT run_tracker.on_finish(''run'', ''pg_catalog.jsonb_typeof(jsonb)'')'),
    ('SELECT run_tracker.drop_on_finish()'),
    ('SELECT run_tracker.import_table(''spar'', ''run_tracker.runs'', ''spar_runs'')'),
    ('INSERT INTO run_tracker.finish_handlers (role) VALUES (''postgres'')'),
    ('TABLE run_tracker.finish_handlers'),
    ('TABLE run_tracker.callback_keys'),
    ('SELECT run_tracker.callback(''{}'')'),
    ('SELECT run_tracker.callback_signed(''{}'', ''x'')'),
    ('SELECT run_tracker.callback_secret(''{}'', ''x'')'),
    ('SELECT run_tracker.create_callback_key(''mine'')'),
    ('SELECT run_tracker.rotate_callback_key(''mine'')'),
    ('SELECT run_tracker.drop_callback_key(gen_random_uuid())'),
    ('SELECT run_tracker.apply_callback(''{}'', '''', gen_random_uuid(), NULL)'),
    ('SELECT run_tracker.write_callback(gen_random_uuid(), ''{}'', NULL, ''{}'', NULL, '''')'),
    ('SELECT run_tracker.wait_for_writers(gen_random_uuid(), true)'),
    ('SELECT run_tracker.purge_callbacks()'),
    ('SELECT run_tracker.grant_callback(''tap_nobody'')'),
    ('SELECT run_tracker.install_callbacks()'),
    ('SET run_tracker.callback_tolerance = 86400'),
    ('SELECT run_tracker.install_on_finish()'),
    ('SELECT * FROM run_tracker.consume_rate_limit(''x'', 1, ''bob'')'),
    ('SELECT * FROM run_tracker.consume_rate_limit_or_fail(''x'', 0, ''bob'')'),
    ('SELECT run_tracker.reset_rate_limit(''alice'')'),
    ('SELECT run_tracker.breaker_allow(''x'')'),
    ('SELECT run_tracker.breaker_allow_or_fail(''x'')'),
    ('SELECT run_tracker.breaker_record(''x'', false)'),
    ('SELECT run_tracker.reset_breaker(''x'')'),
    ('SELECT run_tracker.install_breakers()'),
    ('SELECT * FROM run_tracker.worker_state()'),
    ('SELECT * FROM run_tracker.worker_status'),
    ('SET run_tracker.enabled = off'),
    ('SET run_tracker.notify = commit'),
    ('SELECT run_tracker.install()'),
    ('SELECT run_tracker.install_runs()'),
    ('SELECT run_tracker.set_owner(''tap_client'')'),
    ('SELECT run_tracker.grant_client(''tap_client'')'),
    ('SELECT run_tracker.grant_reader(''tap_nobody'')'),
    ('SELECT run_tracker.grant_service(''tap_client'')'),
    ('SELECT run_tracker.grant_functions(''tap_client'', ''{install}'')'),
    ('SELECT run_tracker.revoke_all(''run_tracker.runs'')'),
    ('SELECT run_tracker.has_policy(''run_tracker.runs'', ''own_rows'')'),
    ('SELECT run_tracker.install_policy(''run_tracker.runs'')'),
    ('SELECT run_tracker.install_triggers(''run_tracker.runs'')'),
    ('SELECT run_tracker.install_responses()'),
    ('SELECT run_tracker.functions_for(''service'')')) AS v (statement);
-- PostgreSQL looks for these before it looks at privileges
SELECT throws_ok('ALTER EXTENSION run_tracker UPDATE', '42501', NULL, 'a client cannot update the extension');
SELECT throws_ok('DROP EXTENSION run_tracker CASCADE', '42501', NULL, 'a client cannot drop the extension');

-- With FORCE ROW LEVEL SECURITY missing, row_security = off is an error instead of a way round.
SET LOCAL row_security = off;
SELECT throws_ok('SELECT count(*) FROM run_tracker.runs', '42501', NULL, 'row_security = off shows nothing');
SET LOCAL row_security = on;

---------------------------------------------------------------------------------------------------------------------
-- Trigger functions

SELECT throws_ok(format('SELECT run_tracker.%I()', f), '42501', NULL, format('a client cannot call %s()', f))
FROM unnest('{runs_before,runs_after,tasks_before,tasks_after,messages_before,messages_after,logs_before,logs_after,
              retrievals_before,retrievals_after,artifacts_before,artifacts_after,lifecycles_before,lifecycles_after,after_truncate,
              sessions_before,sessions_after,session_deltas_before}'::text[]) f;
CREATE TABLE hostile.tasks (LIKE run_tracker.tasks);
SELECT throws_ok(format('CREATE TRIGGER t BEFORE INSERT ON hostile.tasks FOR EACH ROW EXECUTE FUNCTION run_tracker.%I()', f),
                 '42501', NULL, format('a client cannot attach %s() to a table of his', f))
FROM unnest('{runs_before,runs_after,tasks_before,tasks_after,messages_before,messages_after,logs_before,logs_after,
              retrievals_before,retrievals_after,artifacts_before,artifacts_after,lifecycles_before,lifecycles_after,after_truncate,
              sessions_before,sessions_after,session_deltas_before}'::text[]) f;
SELECT throws_ok($$CREATE TRIGGER t BEFORE INSERT ON run_tracker.tasks FOR EACH ROW
                   EXECUTE FUNCTION run_tracker.tasks_before()$$, '42501', NULL, 'nor to a table of ours');
SELECT pg_temp.act_as('tap_service', 'service') \g /dev/null
SELECT throws_ok(format('SELECT run_tracker.%I()', f), '42501', NULL, format('a service cannot call %s()', f))
FROM unnest('{runs_before,runs_after,tasks_before,tasks_after,messages_before,messages_after,logs_before,logs_after,
              retrievals_before,retrievals_after,artifacts_before,artifacts_after,lifecycles_before,lifecycles_after,after_truncate,
              sessions_before,sessions_after,session_deltas_before}'::text[]) f;

-- Attached to other tables by somebody who may, they refuse to run: the table's rows are none that they know.
RESET role;
CREATE FUNCTION pg_temp.misuse(f text) RETURNS text
LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE 'CREATE TABLE hostile.victim AS SELECT * FROM run_tracker.tasks WITH NO DATA';
    EXECUTE format('CREATE TRIGGER t %s INSERT ON hostile.victim FOR EACH %s EXECUTE FUNCTION run_tracker.%I()',
                   CASE WHEN f LIKE '%before' THEN 'BEFORE' ELSE 'AFTER' END,
                   CASE WHEN f LIKE '%before' THEN 'ROW' ELSE 'STATEMENT' END, f);
    RETURN left(pg_temp.error_of('INSERT INTO hostile.victim DEFAULT VALUES'), 5);
END
$$;
DO $$
DECLARE
    f text;
BEGIN
    CREATE TEMP TABLE misuse (f text, error text);
    FOREACH f IN ARRAY '{runs_before,runs_after,tasks_before,tasks_after,messages_before,messages_after,logs_before,
                         logs_after,retrievals_before,retrievals_after,artifacts_before,artifacts_after,lifecycles_before,lifecycles_after,after_truncate,
              sessions_before,sessions_after,session_deltas_before}'::text[]
    LOOP
        INSERT INTO misuse VALUES (f, pg_temp.misuse(f));
        DROP TABLE hostile.victim;
    END LOOP;
END
$$;
SELECT is(error, '39P01', format('%s() refuses to be a trigger of a table that is not ours', f)) FROM misuse;
SELECT throws_ok(format('SELECT run_tracker.%I()', f), '39P01', NULL, format('%s() is for triggers only', f))
FROM misuse;

---------------------------------------------------------------------------------------------------------------------
-- Other people's rows

SELECT pg_temp.act_as('tap_client', 'alice') \g /dev/null
SELECT is_empty(format($$SELECT 1 FROM run_tracker.%I WHERE user_id <> 'alice'$$, t), 'alice sees nobody else''s ' || t)
FROM unnest('{runs,tasks,response_chunks,messages,logs,retrievals,artifacts,transitions,run_totals,open_runs,stat_deltas,
              sessions,session_deltas,session_snapshots,active_sessions,
              run_summary,active_runs,recent_runs}'::text[]) t;
SELECT isnt_empty(format($$SELECT 1 FROM run_tracker.%I WHERE user_id = 'alice'$$, t), 'and her own ' || t)
FROM unnest('{runs,tasks,response_chunks,messages,logs,retrievals,artifacts,transitions,run_totals,open_runs,stat_deltas,
              sessions,session_deltas,session_snapshots,active_sessions,
              run_summary,active_runs,recent_runs}'::text[]) t;

-- A function that costs nothing, and is therefore tried first, sees no row that a policy hides.
CREATE FUNCTION hostile.spy(value text) RETURNS boolean
LANGUAGE plpgsql COST 0.0000001 AS $$
BEGIN
    IF value LIKE '%bob%' THEN
        RAISE EXCEPTION 'seen: %', value;
    END IF;
    RETURN true;
END
$$;
SELECT lives_ok(format('SELECT count(*) FROM run_tracker.%I WHERE hostile.spy(%s)', t, c), 'no look behind the policy of ' || t)
FROM (VALUES ('runs', 'name'), ('tasks', 'name'), ('messages', 'content'), ('logs', 'message'), ('transitions', 'user_id'),
             ('run_totals', 'user_id'), ('open_runs', 'user_id'), ('run_summary', 'name'), ('active_runs', 'name'),
             ('recent_runs', 'name'), ('response_chunks', 'content'), ('retrievals', 'query'), ('artifacts', 'name'),
             ('sessions', 'user_id'), ('session_deltas', 'delta::text'), ('session_snapshots', 'state::text'), ('active_sessions', 'user_id'),
             ('stat_deltas', 'user_id'), ('stat_totals', 'user_id')) AS v (t, c);
SELECT lives_ok('SELECT count(*) FROM run_tracker.check_totals() WHERE hostile.spy(run_id::text)', 'nor through check_totals()');
SELECT lives_ok('SELECT count(*) FROM run_tracker.stuck_runs(''0'') WHERE hostile.spy(name)', 'nor through stuck_runs()');

-- What is planned with statistics must not show them: row counts of others would be in EXPLAIN's estimates.
RESET role;
ANALYZE run_tracker.runs, run_tracker.messages;
SELECT isnt_empty($$SELECT 1 FROM pg_stats WHERE schemaname = 'run_tracker' AND tablename = 'runs'$$, 'there are statistics');
SELECT pg_temp.act_as('tap_client', 'alice') \g /dev/null
SELECT is_empty($$SELECT 1 FROM pg_stats WHERE schemaname = 'run_tracker' AND tablename IN ('runs', 'messages')$$,
                'statistics are not for clients');

-- Changing nothing of Bob's, silently ...
SELECT is(pg_temp.rows_of(format(statement, :bob_run)), 0::bigint, 'no row: ' || format(statement, 'bob''s'))
FROM (VALUES ('UPDATE run_tracker.runs SET name = ''x'' WHERE run_id = %L'),
             ('UPDATE run_tracker.runs SET status = ''cancelled'' WHERE run_id = %L'),
             ('UPDATE run_tracker.tasks SET status = ''failed'' WHERE run_id = %L'),
             ('UPDATE run_tracker.messages SET content = ''x'' WHERE run_id = %L'),
             ('SELECT 1 FROM run_tracker.runs WHERE run_id = %L FOR UPDATE')) AS v (statement);
-- ... and with errors that are the same for a run or task that does not exist, to the letter.
SELECT unnest(ARRAY[
    is(pg_temp.error_of(format(statement, :bob_run)), pg_temp.error_of(format(statement, :absent)),
       'the same error for bob''s run and for none: ' || statement),
    alike(pg_temp.error_of(format(statement, :bob_run)), code || ' | %', 'with code ' || code)])
FROM (VALUES
    ('P0002', 'SELECT run_tracker.start_run(%L)'),
    ('P0002', 'SELECT run_tracker.complete_run(%L)'),
    ('P0002', 'SELECT run_tracker.fail_run(%L)'),
    ('P0002', 'SELECT run_tracker.cancel_run(%L)'),
    ('P0002', 'SELECT run_tracker.retry_run(%L)'),
    ('P0002', 'SELECT run_tracker.transition_run(%L, ''running'')'),
    ('P0002', 'SELECT run_tracker.update_progress(%L, 1)'),
    ('P0002', 'SELECT run_tracker.heartbeat_run(%L)'),
    ('P0002', 'SELECT run_tracker.heartbeat_run(%L, 7)'),
    ('P0002', 'SELECT run_tracker.release_run(%L)'),
    ('P0002', 'SELECT run_tracker.create_task(%L)'),
    ('P0002', 'SELECT run_tracker.add_message(%L, ''user'', ''x'')'),
    ('P0002', 'SELECT run_tracker.write_messages(%L, ''[]'', ''[{"role": "user"}]'')'),
    ('P0002', 'SELECT run_tracker.write_messages(%L, ''[{"role": "user"}]'', ''[]'')'),
    ('P0002', 'SELECT run_tracker.add_log(%L, ''x'')'),
    ('P0002', 'SELECT run_tracker.log_retrieval(%L, ''x'')'),
    ('P0002', 'SELECT run_tracker.add_artifact(%L, ''x'')'),
    ('P0002', 'SELECT run_tracker.run_messages(%L)'),
    ('23503', 'INSERT INTO run_tracker.tasks (run_id) VALUES (%L)'),
    ('23503', 'INSERT INTO run_tracker.tasks (run_id, user_id) VALUES (%L, ''alice'')'),
    ('23503', 'INSERT INTO run_tracker.tasks (run_id, user_id) VALUES (%L, ''bob'')'),
    ('23503', 'INSERT INTO run_tracker.messages (run_id, role, content) VALUES (%L, ''user'', ''x'')'),
    ('23503', 'INSERT INTO run_tracker.logs (run_id, message) VALUES (%L, ''x'')'),
    ('23503', 'INSERT INTO run_tracker.retrievals (run_id, retrieval_type) VALUES (%L, ''x'')'),
    ('23503', 'INSERT INTO run_tracker.retrievals (run_id, user_id, retrieval_type) VALUES (%L, ''bob'', ''x'')'),
    ('23503', 'INSERT INTO run_tracker.artifacts (run_id, kind) VALUES (%L, ''x'')'),
    ('23503', 'INSERT INTO run_tracker.artifacts (run_id, user_id, kind) VALUES (%L, ''alice'', ''x'')'),
    ('23503', 'UPDATE run_tracker.tasks SET run_id = %L')) AS v (code, statement);
-- Bob's finished run, which would refuse an open task of his own, is as absent as the others.
SELECT is(pg_temp.error_of(format(statement, :bob_ended)), pg_temp.error_of(format(statement, :absent)),
          'the same error for bob''s finished run: ' || statement)
FROM (VALUES ('SELECT run_tracker.create_task(%L)'), ('INSERT INTO run_tracker.tasks (run_id) VALUES (%L)'),
             ('UPDATE run_tracker.tasks SET run_id = %L'), ('SELECT run_tracker.start_run(%L)'),
             ('SELECT run_tracker.update_progress(%L, 1)'), ('SELECT run_tracker.heartbeat_run(%L)'),
             ('SELECT run_tracker.heartbeat_run(%L, 7)'), ('SELECT run_tracker.release_run(%L)')) AS v (statement);
SELECT unnest(ARRAY[
    is(pg_temp.error_of(format(statement, :bob_task)), pg_temp.error_of(format(statement, :absent)),
       'the same error for bob''s task and for none: ' || statement),
    alike(pg_temp.error_of(format(statement, :bob_task)), 'P0002 | %', 'with code P0002')])
FROM (VALUES ('SELECT run_tracker.start_task(%L)'), ('SELECT run_tracker.complete_task(%L)'),
             ('SELECT run_tracker.fail_task(%L)'), ('SELECT run_tracker.cancel_task(%L)'),
             ('SELECT run_tracker.append_response(%L, ''x'')'), ('SELECT run_tracker.append_response(%L, '''', 7)'),
             ('SELECT run_tracker.task_response(%L)'), ('SELECT * FROM run_tracker.read_response(%L, 3)')) AS v (statement);
SELECT unnest(ARRAY[
    is(pg_temp.error_of(format(statement, :bob_session)), pg_temp.error_of(format(statement, :absent)),
       'the same error for bob''s session and for none: ' || statement),
    alike(pg_temp.error_of(format(statement, :bob_session)), 'P0002 | %', 'with code P0002')])
FROM (VALUES ('SELECT run_tracker.touch_session(%L)'), ('SELECT run_tracker.close_session(%L)'),
             ('SELECT run_tracker.append_delta(%L, 0, ''{}'')'), ('SELECT run_tracker.append_delta(%L, NULL, ''{}'')'),
             ('SELECT run_tracker.session_state(%L)'), ('SELECT run_tracker.session_state(%L, 99)'),
             ('SELECT * FROM run_tracker.read_session(%L)'),
             ('INSERT INTO run_tracker.session_deltas (session_id, delta) VALUES (%L, ''{}'')'),
             ('INSERT INTO run_tracker.session_deltas (session_id, user_id, delta) VALUES (%L, ''bob'', ''{}'')'),
             ('INSERT INTO run_tracker.session_deltas (session_id, user_id, delta) VALUES (%L, ''alice'', ''{}'')')) AS v (statement);
SELECT is(pg_temp.rows_of(format('UPDATE run_tracker.sessions SET closed_at = now() WHERE session_id = %L', :bob_session)), 0::bigint,
          'bob''s session is not closed');
SELECT is_empty(format('SELECT * FROM run_tracker.run_logs(%L)', :bob_run), 'no logs of bob''s run');
SELECT is_empty(format('SELECT * FROM run_tracker.check_totals(%L)', :bob_run), 'no totals of bob''s run');
SELECT is_empty($$SELECT * FROM run_tracker.stuck_runs('0') WHERE user_id <> 'alice'$$, 'no stuck run of bob''s');

-- A row that claims to be somebody else's.
SELECT throws_ok($$INSERT INTO run_tracker.runs (user_id) VALUES ('bob')$$, '42501', NULL, 'alice creates no run for bob');
SELECT throws_ok($$INSERT INTO run_tracker.runs (user_id) VALUES ('')$$, '42501', NULL, 'nor for nobody');
SELECT throws_ok($$SELECT run_tracker.create_run(user_id => 'bob')$$, '42501', NULL, 'nor with create_run()');
SELECT throws_ok(format('SELECT run_tracker.create_run(%L)', :bob_run), '23505', NULL, 'nor over a run of his');
SELECT throws_ok(format('INSERT INTO run_tracker.runs (run_id, user_id) VALUES (%L, ''alice'')
                         ON CONFLICT (run_id) DO UPDATE SET name = ''x''', :bob_run), '42501', NULL,
                 'ON CONFLICT DO UPDATE does not reach his run');
SELECT throws_ok(format('INSERT INTO run_tracker.tasks (run_id, task_id) VALUES (%L, %L)
                         ON CONFLICT (task_id) DO UPDATE SET name = ''x''', :alice_run, :bob_task), '42501', NULL,
                 'nor his task');
SELECT is(pg_temp.rows_of(format($$MERGE INTO run_tracker.runs r USING (VALUES (%L::uuid)) v (run_id) ON v.run_id = r.run_id
                                   WHEN MATCHED THEN UPDATE SET name = 'x' WHEN NOT MATCHED THEN DO NOTHING$$, :bob_run)),
          0::bigint, 'nor does MERGE');

-- Nobody at all: no claims, malformed ones, an empty subject.
CREATE FUNCTION pg_temp.nobody(claims text) RETURNS SETOF text
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('request.jwt.claims', claims, true);
    RETURN NEXT ok(run_tracker.current_user_id() IS NULL, format('no identity: %s', left(claims, 40)));
    RETURN NEXT is_empty('SELECT 1 FROM run_tracker.runs', 'no rows');
    RETURN NEXT throws_ok('SELECT run_tracker.create_run()', '42501', NULL, 'no run');
    RETURN NEXT throws_ok('SELECT run_tracker.create_run(user_id => '''')', '42501', NULL, 'no run of nobody');
END
$$;
SELECT pg_temp.nobody(claims)
FROM unnest(ARRAY['', '{"sub": ""}', '{"sub": null}', '{"sub": 1}', '{"sub": ["alice"]}', '{"sub": "alice"',
                  '["sub", "alice"]', '"alice"', 'alice', '{"user": {"sub": "alice"}}', repeat('[', 10000)]) claims;

-- Without a grant there is nothing at all, not even the name of the user.
SELECT pg_temp.act_as('tap_nobody', 'alice') \g /dev/null
SELECT throws_ok('SELECT * FROM run_tracker.runs', '42501', NULL, 'a role without a grant sees no table');
SELECT throws_ok('SELECT run_tracker.current_user_id()', '42501', NULL, 'and calls no function');

-- Readers write nothing.
SELECT pg_temp.act_as('tap_reader', 'alice') \g /dev/null
SELECT isnt_empty('SELECT 1 FROM run_tracker.run_summary', 'a reader reads');
SELECT throws_ok(statement, '42501', NULL, 'a reader cannot: ' || statement)
FROM (VALUES ('SELECT run_tracker.create_run()'), ('INSERT INTO run_tracker.runs DEFAULT VALUES'),
             ('UPDATE run_tracker.runs SET name = name'), ('DELETE FROM run_tracker.runs'),
             ('SELECT 1 FROM run_tracker.runs FOR UPDATE'), ('SELECT run_tracker.uuidv7()'),
             ('SELECT run_tracker.heartbeat_run(run_tracker.uuidv7())'),
             ('SELECT run_tracker.release_run(run_tracker.uuidv7())'), ('SELECT * FROM run_tracker.claim_runs(''x'')'),
             ('SELECT run_tracker.expire_runs()'), ('SELECT run_tracker.purge_runs()'),
             (format('SELECT run_tracker.append_response(%L, ''x'')', :alice_task)),
             ('SELECT run_tracker.open_session()'), (format('SELECT run_tracker.touch_session(%L)', :alice_session)),
             (format('SELECT run_tracker.close_session(%L)', :alice_session)),
             (format('SELECT run_tracker.append_delta(%L, NULL, ''{}'')', :alice_session)),
             (format('SELECT run_tracker.log_retrieval(%L, ''x'')', :alice_run)),
             (format('SELECT run_tracker.add_artifact(%L, ''x'')', :alice_run)),
             ('INSERT INTO run_tracker.artifacts (kind) VALUES (''x'')')) AS v (statement);
SELECT is(run_tracker.task_response(:alice_task), 'minemine', 'but what has arrived of a response');
SELECT is(length((SELECT state ->> 'mine' FROM run_tracker.read_session(:alice_session))), 10000, 'and the state of a session');

---------------------------------------------------------------------------------------------------------------------
-- Search paths, operators and functions of the user's own

-- Bookkeeping acts as the owner of the tables. If it can be made to use anything of the client's, that runs as the owner.
SELECT pg_temp.act_as('tap_client', 'alice') \g /dev/null
CREATE FUNCTION hostile.trap() RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    IF CURRENT_USER <> 'tap_client' THEN
        RAISE EXCEPTION 'code of the client runs as %', CURRENT_USER USING ERRCODE = 'TAP01';
    END IF;
END
$$;
CREATE FUNCTION hostile.eq(a uuid, b uuid) RETURNS boolean
LANGUAGE plpgsql AS $$ BEGIN PERFORM hostile.trap(); RETURN a OPERATOR(pg_catalog.=) b; END $$;
CREATE FUNCTION hostile.eq(a text, b text) RETURNS boolean
LANGUAGE plpgsql AS $$ BEGIN PERFORM hostile.trap(); RETURN a OPERATOR(pg_catalog.=) b; END $$;
CREATE FUNCTION hostile.concat(a text, b text) RETURNS text
LANGUAGE plpgsql AS $$ BEGIN PERFORM hostile.trap(); RETURN a OPERATOR(pg_catalog.||) b; END $$;
CREATE FUNCTION hostile.clock_timestamp() RETURNS timestamptz
LANGUAGE plpgsql AS $$ BEGIN PERFORM hostile.trap(); RETURN pg_catalog.clock_timestamp(); END $$;
CREATE OPERATOR hostile.= (LEFTARG = uuid, RIGHTARG = uuid, FUNCTION = hostile.eq);
CREATE OPERATOR hostile.= (LEFTARG = text, RIGHTARG = text, FUNCTION = hostile.eq);
CREATE OPERATOR hostile.|| (LEFTARG = text, RIGHTARG = text, FUNCTION = hostile.concat);
CREATE TEMP TABLE runs (LIKE run_tracker.runs);
CREATE TEMP TABLE run_totals (LIKE run_tracker.run_totals);

-- Prepared plans are kept: in another session, the hostile path would come first. Here, what can be is planned anew.
RESET role;
DISCARD PLANS;
SELECT pg_temp.act_as('tap_client', 'alice') \g /dev/null
CREATE FUNCTION pg_temp.life(id uuid) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    task uuid;
BEGIN
    PERFORM set_config('search_path', 'pg_temp, hostile, pg_catalog', true);
    PERFORM run_tracker.create_run(id, lifecycle => 'run');
    PERFORM run_tracker.start_run(id);
    PERFORM run_tracker.heartbeat_run(id);
    task := run_tracker.create_task(id);
    PERFORM run_tracker.start_task(task);
    UPDATE run_tracker.tasks SET response = 'x' WHERE task_id = task;
    PERFORM run_tracker.append_response(task, 'y'), run_tracker.append_response(task, 'z');
    PERFORM run_tracker.task_response(task), run_tracker.read_response(task, 1);
    PERFORM run_tracker.complete_task(task, input_tokens => 1, output_tokens => 1, cost => 1);
    task := run_tracker.create_task(id);
    PERFORM run_tracker.append_response(task, 'y'), run_tracker.append_response(task, 'z');
    PERFORM run_tracker.create_task(id);
    INSERT INTO run_tracker.tasks (run_id) VALUES (id);
    PERFORM run_tracker.add_message(id, 'user', 'x'), run_tracker.add_log(id, 'x', 'ERROR');
    PERFORM run_tracker.log_retrieval(id, 'x', results => '[1]'), run_tracker.add_artifact(id, 'x', content => 'y');
    UPDATE run_tracker.artifacts SET content = 'z' WHERE run_id = id;
    PERFORM run_tracker.run_messages(id);
    PERFORM FROM run_tracker.run_logs(id);
    PERFORM FROM run_tracker.check_totals(id);
    PERFORM FROM run_tracker.run_summary;
    PERFORM FROM run_tracker.active_runs;
    PERFORM FROM run_tracker.stuck_runs('0');
    PERFORM run_tracker.release_run(id);
    PERFORM run_tracker.start_run(id);
    UPDATE run_tracker.runs SET status = 'failed' WHERE run_id = id;
    PERFORM run_tracker.retry_run(id);
    PERFORM run_tracker.lifecycle_diagram('run');
    PERFORM run_tracker.complete_run(id);
END
$$;
SELECT is(pg_temp.error_of($$SELECT pg_temp.life('00000000-0000-0000-0000-0000000000ac')$$), NULL,
          'a whole life of a run under a hostile search path runs nothing of the client''s as the owner');
SELECT is(CURRENT_USER::text, 'tap_client', 'and ends with the role that it began with');
SET LOCAL search_path = public, pg_catalog;

-- An error in the middle of bookkeeping, while that acts as the owner, leaves the role as it was.
SELECT run_tracker.create_task(:alice_run, '00000000-0000-0000-0000-0000000000a2'),
       run_tracker.create_task(:alice_run, '00000000-0000-0000-0000-0000000000a3') \g /dev/null
SELECT lives_ok($$SELECT run_tracker.complete_task('00000000-0000-0000-0000-0000000000a2', input_tokens => 999999999999)$$,
                'totals are as high as they may be');
SELECT throws_ok($$SELECT run_tracker.complete_task('00000000-0000-0000-0000-0000000000a3', input_tokens => 1)$$, '23514', NULL,
                 'then bookkeeping fails');
SELECT is(CURRENT_USER::text, 'tap_client', 'and leaves the role as it was');
SELECT throws_ok('SELECT 1 FROM pg_authid', '42501', NULL, 'with its privileges');

---------------------------------------------------------------------------------------------------------------------
-- Services, and an owner that is no superuser

SELECT pg_temp.act_as('tap_service', '') \g /dev/null
SELECT ok(run_tracker.is_service(), 'a service is one');
SELECT set_eq('SELECT DISTINCT user_id FROM run_tracker.runs', ARRAY['alice', 'bob'], 'a service sees all runs');
SELECT lives_ok($$INSERT INTO run_tracker.runs (user_id, status, finished_at) VALUES ('carol', 'completed', now())$$,
                'a service may insert a finished run');
SELECT lives_ok($$SELECT run_tracker.create_run(user_id => '')$$, 'a service may create a run of nobody');
SELECT throws_ok($$UPDATE run_tracker.runs SET user_id = 'carol' WHERE user_id = 'bob'$$, '55000', NULL,
                 'no run changes hands, not even by a service');
SELECT throws_ok(format($$UPDATE run_tracker.runs SET status = 'running' WHERE run_id = %L$$, :bob_ended), 'RT001', NULL,
                 'lifecycles hold for services');
SELECT lives_ok(format($$UPDATE run_tracker.runs SET phase = 'failed', attempt = 7, finished_at = now(), duration_ms = 7
                         WHERE run_id = %L$$, :bob_run), 'a service may name computed columns in an UPDATE');
SELECT set_eq(format($$SELECT phase, attempt, finished_at, duration_ms FROM run_tracker.runs WHERE run_id = %L$$, :bob_run),
              $$VALUES ('queued', 1, NULL::timestamptz, NULL::bigint)$$, 'but what it says there is ignored');
SELECT throws_ok(statement, '42501', NULL, 'a service cannot: ' || statement)
FROM (VALUES ('UPDATE run_tracker.run_totals SET task_count = 7'), ('DELETE FROM run_tracker.open_runs'),
             ('DELETE FROM run_tracker.response_chunks'), ('UPDATE run_tracker.response_chunks SET content = ''x'''),
             ('INSERT INTO run_tracker.response_chunks SELECT * FROM run_tracker.response_chunks'),
             ('DELETE FROM run_tracker.stat_deltas'), ('UPDATE run_tracker.stat_totals SET created_count = 7'),
             ('INSERT INTO run_tracker.transitions SELECT * FROM run_tracker.transitions'),
             ('DELETE FROM run_tracker.transitions'), ('TRUNCATE run_tracker.logs'),
             ('UPDATE run_tracker.installation SET version = ''0'''),
             ('ALTER TABLE run_tracker.runs DISABLE TRIGGER ALL'), ('SET session_replication_role = replica'),
             ('SELECT run_tracker.install()'), ('SELECT run_tracker.grant_client(''tap_nobody'')'),
             ('SELECT run_tracker.set_owner(''tap_service'')')) AS v (statement);
SELECT lives_ok($$DELETE FROM run_tracker.runs WHERE user_id = 'carol'$$, 'a service may delete runs');

RESET role;
SELECT throws_ok($$SELECT run_tracker.grant_client(NULL)$$, '22023', NULL, 'grants are to a role');
SELECT throws_ok($$SELECT run_tracker.grant_reader('-')$$, '22023', NULL, 'not to none');
SELECT throws_ok($$SELECT run_tracker.grant_service('tap_who')$$, '42704', NULL, 'nor to one that is not there');

SELECT lives_ok($$SELECT run_tracker.set_owner('tap_owner')$$, 'tables can be handed to a role that is no superuser');
SELECT set_eq($$SELECT DISTINCT c.relowner::regrole::text FROM pg_class c
                WHERE c.relnamespace = 'run_tracker'::regnamespace AND c.relkind IN ('r', 'v', 'S')
                  AND c.relname NOT IN ('worker_status', 'metrics', 'finish_handlers',
                                        'rate_limits', 'circuit_breakers')$$,
              ARRAY['tap_owner'], 'all of them, but the views that are the extension''s, and what says as whom functions run');
SELECT set_eq($$SELECT DISTINCT p.proowner::regrole::text FROM pg_proc p WHERE p.pronamespace = 'run_tracker'::regnamespace$$,
              $$SELECT CURRENT_USER::text$$, 'and no function');
SELECT pg_temp.act_as('tap_client', 'alice') \g /dev/null
SELECT is(pg_temp.error_of($$SELECT pg_temp.life('00000000-0000-0000-0000-0000000000ad')$$), NULL,
          'then bookkeeping works, too, and runs nothing of the client''s as the owner');
SET LOCAL search_path = public, pg_catalog;
SELECT lives_ok(format('SELECT run_tracker.complete_run(%L)', :alice_run), 'a run is ended');
RESET role;
SELECT set_eq(format('SELECT status FROM run_tracker.tasks WHERE run_id = %L AND finished_at IS NULL', :alice_run),
              ARRAY[]::text[], 'with its tasks');
SELECT is(response, 'minemine', 'and what had arrived of their responses') FROM run_tracker.tasks WHERE task_id = :alice_task;
SELECT is_empty($$SELECT 1 FROM run_tracker.response_chunks c JOIN run_tracker.tasks t USING (run_id, task_id)
                  WHERE t.finished_at IS NOT NULL$$, 'no piece is left behind');
SELECT is_empty('SELECT * FROM run_tracker.check_totals()', 'and totals are exact after all that');

SELECT * FROM finish();
ROLLBACK;
