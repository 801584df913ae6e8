-- The interface: functions, privileges, policies, comments and indexes, as the catalogs show them. The lists here are
-- meant to be a nuisance: whoever changes what users rely on has to change them, too.

\set ON_ERROR_STOP on
BEGIN;
SELECT no_plan();

-- Everything of ours, by name. (What pgTAP or a test creates is in other schemas.) A regnamespace constant in a view
-- would make it depend on the schema, which is dropped below.
CREATE TEMP VIEW our_functions AS
SELECT p.*, p.oid::regprocedure::text AS signature,
       -- a question mark stands for DEFAULT NULL
       format('%s(%s) %s', p.proname,
              regexp_replace(pg_get_function_arguments(p.oid), ' DEFAULT NULL::[a-z ]+', '?', 'g'),
              pg_get_function_result(p.oid)) AS described
FROM pg_proc p
WHERE p.pronamespace = (SELECT oid FROM pg_namespace WHERE nspname = 'run_tracker');

CREATE TEMP VIEW our_relations AS
SELECT c.*, c.oid::regclass::text AS fullname
FROM pg_class c
WHERE c.relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = 'run_tracker');

---------------------------------------------------------------------------------------------------------------------
-- Functions

CREATE TEMP VIEW internal_functions AS
SELECT p.*
FROM our_functions p
WHERE p.prorettype = 'trigger'::regtype OR obj_description(p.oid, 'pg_proc') LIKE 'Internal: %';

SELECT set_eq(
    'SELECT described FROM our_functions WHERE oid NOT IN (SELECT oid FROM internal_functions)',
    $$VALUES
    -- identity
    ('tracker_version() text'),
    ('current_user_id() text'),
    ('is_service() boolean'),
    ('uuidv7() uuid'),
    -- lifecycles
    ('define_lifecycle(name text, definition jsonb) void'),
    ('drop_lifecycle(name text) boolean'),
    ('lifecycle_diagram(name text) text'),
    -- runs
    ('create_run(run_id uuid?, kind text?, name text?, lifecycle text?, inputs jsonb?, settings jsonb?, '
     'variables jsonb?, plan jsonb?, metadata jsonb?, user_id text?, workflow_id text?, session_id text?, '
     'subject_id text?, parent_run_id uuid?, priority integer?, scheduled_at timestamp with time zone?, '
     'max_attempts integer?, timeout interval?, max_duration interval?, retry_base interval?, retry_cap interval?) uuid'),
    ('start_run(run_id uuid, worker text?, attempt integer?) boolean'),
    ('complete_run(run_id uuid, result jsonb?, reflections jsonb?, metrics jsonb?, attempt integer?) boolean'),
    ('fail_run(run_id uuid, error text?, error_detail text?, attempt integer?, retry boolean DEFAULT false) boolean'),
    ('cancel_run(run_id uuid, reason text?, attempt integer?) boolean'),
    ('retry_run(run_id uuid, delay interval?, attempt integer?) boolean'),
    ('transition_run(run_id uuid, status text, result jsonb?, error text?, error_detail text?, attempt integer?) boolean'),
    ('update_progress(run_id uuid, progress integer?, current_step text?, attempt integer?) boolean'),
    -- tasks
    ('create_task(run_id uuid, task_id uuid?, name text?, service text?, operation text?, provider text?, model text?, '
     'request jsonb?, parent_task_id uuid?, lifecycle text?, metadata jsonb?, reservation_id uuid?) uuid'),
    ('start_task(task_id uuid, status text?, attempt integer?) boolean'),
    ('complete_task(task_id uuid, response text?, input_tokens bigint?, output_tokens bigint?, cost numeric?, '
     'time_to_first_token_ms bigint?, result jsonb?, total_tokens bigint?, cache_read_input_tokens bigint?, '
     'cache_creation_input_tokens bigint?, reasoning_output_tokens bigint?, response_model text?, finish_reason text?, '
     'response_id text?, cost_source text?, attempt integer?) boolean'),
    ('fail_task(task_id uuid, error text?, error_detail text?, input_tokens bigint?, output_tokens bigint?, '
     'cost numeric?, attempt integer?) boolean'),
    ('cancel_task(task_id uuid, reason text?, attempt integer?) boolean'),
    -- messages and logs
    ('add_message(run_id uuid, role text, content text?, task_id uuid?, parts jsonb?, name text?, metadata jsonb?) bigint'),
    ('run_messages(run_id uuid) jsonb'),
    ('write_messages(run_id uuid, old jsonb, new jsonb) bigint'),
    ('add_log(run_id uuid, message text, level text DEFAULT ''INFO''::text, category text?, step_name text?, '
     'details jsonb?, task_id uuid?) bigint'),
    ('run_logs(run_id uuid, min_level text DEFAULT ''DEBUG''::text, category text?) TABLE(seq bigint, level text, '
     'message text, category text, step_name text, details jsonb, task_id uuid, created_at timestamp with time zone)'),
    ('log_level_rank(level text) integer'),
    ('read_logs(of_run uuid, minimum text, of_category text) TABLE(seq bigint, level text, '
     'message text, category text, step_name text, details jsonb, task_id uuid, created_at timestamp with time zone)'),
    -- retrievals and artifacts
    ('log_retrieval(run_id uuid, retrieval_type text, query text?, results jsonb?, results_count integer?, '
     'context text?, location text?, component_type text?, duration_ms bigint?, task_id uuid?, retrieval_id '
     'uuid?, metadata jsonb?) uuid'),
    ('add_artifact(run_id uuid, kind text, name text?, type text?, content text?, content_type text?, url '
     'text?, size_bytes bigint?, ordinal integer?, source text?, similarity numeric?, source_document_id text?, '
     'source_document_name text?, chunk_type text?, retrieval_id uuid?, configuration jsonb?, task_id uuid?, '
     'artifact_id uuid?, metadata jsonb?) uuid'),
    -- responses that arrive in pieces
    ('append_response(task_id uuid, delta text, attempt integer?) bigint'),
    ('task_response(task_id uuid) text'),
    ('read_response(task_id uuid, after bigint DEFAULT 0) TABLE(content text, next_offset bigint, status text, '
     'finished boolean)'),
    ('read_response_from(of_task uuid, from_offset bigint) TABLE(content text, next_offset bigint, status text, '
     'finished boolean)'),
    -- many runs or tasks with one statement
    ('create_runs(runs jsonb) SETOF uuid'),
    ('create_tasks(run_id uuid, tasks jsonb) SETOF uuid'),
    ('complete_tasks(tasks jsonb) bigint'),
    ('check_batch(items jsonb, argument text, function text, left_out text DEFAULT ''''::text) void'),
    ('task_target(lifecycle text, status text) text'),
    -- lists and details
    ('list_runs(status text?, phase text?, kind text?, workflow_id text?, user_id text?, subject_id text?, '
     'session_id text?, parent_run_id uuid?, lifecycle text?, created_after timestamp with time zone?, '
     'created_before timestamp with time zone?, name text?, metrics jsonb?, metadata jsonb?, settings jsonb?, '
     'order_by text DEFAULT ''created_at''::text, descending boolean DEFAULT true, page integer?, page_size '
     'integer DEFAULT 50, with_total boolean DEFAULT false, before text?, filter jsonb?) TABLE(run_id uuid, '
     'user_id text, lifecycle text, status text, phase text, kind text, name text, workflow_id text, session_id '
     'text, subject_id text, parent_run_id uuid, priority integer, progress smallint, current_step text, error '
     'text, attempt integer, created_at timestamp with time zone, started_at timestamp with time zone, '
     'finished_at timestamp with time zone, updated_at timestamp with time zone, duration_ms bigint, elapsed_ms '
     'bigint, task_count bigint, failed_task_count bigint, open_task_count bigint, input_tokens bigint, '
     'output_tokens bigint, total_tokens bigint, total_cost numeric, message_count bigint, error_count bigint, '
     'retrieval_count bigint, artifact_count bigint, last_message_at timestamp with time zone, last_activity_at '
     'timestamp with time zone, metrics jsonb, metadata jsonb, settings jsonb, row_cursor text, total_count '
     'bigint)'),
    ('find_runs(given jsonb, more jsonb, sort_column text, downwards boolean, page_number integer, '
     'rows_per_page integer, count_all boolean, after_row text) TABLE(run_id uuid, user_id text, lifecycle '
     'text, status text, phase text, kind text, name text, workflow_id text, session_id text, subject_id text, '
     'parent_run_id uuid, priority integer, progress smallint, current_step text, error text, attempt integer, '
     'created_at timestamp with time zone, started_at timestamp with time zone, finished_at timestamp with time '
     'zone, updated_at timestamp with time zone, duration_ms bigint, elapsed_ms bigint, task_count bigint, '
     'failed_task_count bigint, open_task_count bigint, input_tokens bigint, output_tokens bigint, total_tokens '
     'bigint, total_cost numeric, message_count bigint, error_count bigint, retrieval_count bigint, '
     'artifact_count bigint, last_message_at timestamp with time zone, last_activity_at timestamp with time '
     'zone, metrics jsonb, metadata jsonb, settings jsonb, row_cursor text, total_count bigint)'),
    ('run_conditions(filter jsonb) text'),
    ('export_runs(filter jsonb DEFAULT ''{}''::jsonb) SETOF jsonb'),
    ('run_details(run_id uuid) jsonb'),
    ('compare_runs(a uuid, b uuid) TABLE(item text, a jsonb, b jsonb, difference numeric, ratio numeric)'),
    ('compare_run_values(first_run uuid, second_run uuid) TABLE(item text, a jsonb, b jsonb, difference '
     'numeric, ratio numeric)'),
    -- statistics
    ('user_stats(user_id text?, since timestamp with time zone?) TABLE(user_id text, total bigint, open bigint, '
     'finished bigint, successful bigint, failed bigint, cancelled bigint, timed_out bigint, retried bigint, '
     'success_rate numeric, average_ms numeric, min_ms bigint, p50_ms bigint, p95_ms bigint, p99_ms bigint, '
     'max_ms bigint, modes jsonb, task_count bigint, failed_task_count bigint, input_tokens bigint, '
     'output_tokens bigint, total_tokens bigint, total_cost numeric)'),
    ('workflow_stats(workflow_id text?, user_id text?) TABLE(workflow_id text, total bigint, open bigint, '
     'finished bigint, successful bigint, failed bigint, cancelled bigint, timed_out bigint, retried bigint, '
     'success_rate numeric, average_ms numeric, min_ms bigint, p50_ms bigint, p95_ms bigint, p99_ms bigint, '
     'max_ms bigint, modes jsonb, task_count bigint, failed_task_count bigint, input_tokens bigint, '
     'output_tokens bigint, total_tokens bigint, total_cost numeric)'),
    ('kind_stats(kind text?, user_id text?, since timestamp with time zone?) TABLE(kind text, total bigint, '
     'open bigint, finished bigint, successful bigint, failed bigint, cancelled bigint, timed_out bigint, '
     'retried bigint, success_rate numeric, average_ms numeric, min_ms bigint, p50_ms bigint, p95_ms bigint, '
     'p99_ms bigint, max_ms bigint, modes jsonb, task_count bigint, failed_task_count bigint, input_tokens '
     'bigint, output_tokens bigint, total_tokens bigint, total_cost numeric)'),
    ('model_stats(model text?, user_id text?, since timestamp with time zone?) TABLE(provider text, model text, '
     'operation text, task_count bigint, failed_task_count bigint, cancelled_task_count bigint, retried bigint, '
     'input_tokens bigint, output_tokens bigint, total_tokens bigint, total_cost numeric, average_ms numeric, '
     'p50_ms bigint, p95_ms bigint, p99_ms bigint, first_token_average_ms numeric, first_token_p50_ms bigint, '
     'first_token_p95_ms bigint, first_token_p99_ms bigint)'),
    ('trend_stats(unit text DEFAULT ''day''::text, since timestamp with time zone?, user_id text?, kind text?) '
     'TABLE(period_at timestamp with time zone, created bigint, finished bigint, successful bigint, failed '
     'bigint, cancelled bigint, timed_out bigint, retried bigint, success_rate numeric, average_ms numeric, '
     'p50_ms bigint, p95_ms bigint, p99_ms bigint, task_count bigint, total_tokens bigint, total_cost numeric)'),
    ('stat_rows(grain text, period text, of_user text?, since timestamp with time zone?, by_user boolean '
     'DEFAULT false) TABLE(user_id text, period_at timestamp with time zone, kind text, workflow_id text, mode '
     'text, provider text, model text, operation text, phase text, created_count bigint, finished_count bigint, '
     'task_count bigint, failed_task_count bigint, input_tokens bigint, output_tokens bigint, total_tokens '
     'bigint, cost numeric, duration_ms bigint, durations bigint[], first_token_ms bigint, first_tokens '
     'bigint[])'),
    ('summarize_runs(of_grain text, of_user text, since timestamp with time zone, by_user boolean) TABLE(name '
     'text, total bigint, open bigint, finished bigint, successful bigint, failed bigint, cancelled bigint, '
     'timed_out bigint, retried bigint, success_rate numeric, average_ms numeric, min_ms bigint, p50_ms bigint, '
     'p95_ms bigint, p99_ms bigint, max_ms bigint, modes jsonb, task_count bigint, failed_task_count bigint, '
     'input_tokens bigint, output_tokens bigint, total_tokens bigint, total_cost numeric)'),
    ('summarize_trend(of_unit text, since timestamp with time zone, of_user text, of_kind text) TABLE(period_at '
     'timestamp with time zone, created bigint, finished bigint, successful bigint, failed bigint, cancelled '
     'bigint, timed_out bigint, retried bigint, success_rate numeric, average_ms numeric, p50_ms bigint, p95_ms '
     'bigint, p99_ms bigint, task_count bigint, total_tokens bigint, total_cost numeric)'),
    ('fold_statistics(max_deltas integer DEFAULT 100000) bigint'),
    ('histogram_bucket(ms bigint) integer'),
    ('histogram_bound(bucket integer) bigint'),
    ('histogram_quantile(histogram bigint[], fraction double precision) bigint'),
    ('histogram_count(histogram bigint[], up_to_ms bigint?) bigint'),
    ('merge_histograms(bigint[]) bigint[]'),
    -- reports
    ('timeline(run_id uuid, width integer DEFAULT 40) TABLE(step text, kind text, status text, start_ms bigint, '
     'end_ms bigint, duration_ms bigint, bar text)'),
    ('run_timeline(of_run uuid, bar_width integer, max_rows bigint?) TABLE(kind text, id uuid, level integer, '
     'label text, status text, phase text, start_ms bigint, end_ms bigint, duration_ms bigint, open boolean, '
     'axis_start_ms bigint, axis_end_ms bigint, bar text)'),
    ('report_html(run_id uuid) text'),
    ('dashboard_html(since timestamp with time zone?) text'),
    ('report_timeline(of_run uuid, max_rows integer) text'),
    ('report_messages(of_run uuid, max_rows integer) text'),
    ('report_tasks(of_run uuid, max_rows integer) text'),
    ('report_retrievals(of_run uuid, max_rows integer) text'),
    ('report_artifacts(of_run uuid, max_rows integer) text'),
    ('report_logs(of_run uuid, created_at timestamp with time zone, max_rows integer) text'),
    ('html_escape(value text) text'),
    ('html_number(value numeric, unit text?) text'),
    ('html_text(value text, max_length integer DEFAULT 20000) text'),
    ('html_time(moment timestamp with time zone) text'),
    ('html_phase(phase text) text'),
    ('html_badge(status text, phase text) text'),
    ('html_line(VARIADIC items text[]) text'),
    ('html_cell(label text, value numeric, unit text?, note text?) text'),
    ('html_meter(percent numeric) text'),
    ('html_tick(span numeric, unit text?) numeric'),
    ('html_fact(label text, value text, note text?, class text?) text'),
    ('html_details(label text, value text, max_length integer DEFAULT 20000, opened boolean DEFAULT false) text'),
    ('html_json(label text, value jsonb, max_length integer DEFAULT 20000, opened boolean DEFAULT false) text'),
    ('html_section(title text, body text, note text?) text'),
    ('html_more(total bigint, shown bigint, what text) text'),
    ('html_style() text'),
    ('html_page(title text, body text) text'),
    ('html_chart(label text, periods timestamp with time zone[], names text[], classes text[], curves '
     'boolean[], numbers numeric[], unit text?) text'),
    -- health and metrics
    ('health() jsonb'),
    ('describe_open_runs(max_runs integer, OUT queued bigint, OUT active bigint, OUT waiting bigint, OUT '
     'available bigint, OUT oldest_queued_at timestamp with time zone, OUT overdue bigint, OUT oldest_deadline '
     'timestamp with time zone, OUT stuck bigint, OUT complete boolean) record'),
    ('openmetrics() text'),
    ('read_metrics() TABLE(name text, labels jsonb, value numeric)'),
    ('histogram_metrics(histogram bigint[], sum_ms numeric) TABLE(n bigint, suffix text, labels jsonb, value '
     'numeric)'),
    -- totals
    ('compare_totals(of_run uuid) TABLE(run_id uuid, total text, expected numeric, actual numeric)'),
    ('require_tables() void'),
    ('check_totals(run_id uuid?) TABLE(run_id uuid, total text, expected numeric, actual numeric)'),
    ('rebuild_totals(run_id uuid?) bigint'),
    -- work that is handed out, and runs whose time is up
    ('claim_runs(worker text, max_runs integer DEFAULT 1, lifecycle text?, kind text?) TABLE(run_id uuid, '
     'attempt integer, user_id text, lifecycle text, status text, kind text, name text, priority integer, '
     'max_attempts integer, workflow_id text, session_id text, subject_id text, parent_run_id uuid, inputs jsonb, '
     'settings jsonb, variables jsonb, plan jsonb, metadata jsonb, created_at timestamp with time zone, '
     'scheduled_at timestamp with time zone)'),
    ('heartbeat_run(run_id uuid, attempt integer?) boolean'),
    ('release_run(run_id uuid, delay interval?, attempt integer?) boolean'),
    ('expire_runs(max_runs integer DEFAULT 1000, now timestamp with time zone?) bigint'),
    ('stuck_runs(older_than interval DEFAULT ''00:05:00''::interval) TABLE(run_id uuid, user_id text, lifecycle text, '
     'kind text, name text, status text, phase text, attempt integer, worker text, since timestamp with time zone, '
     'stuck_duration interval, last_activity_at timestamp with time zone, deadline_at timestamp with time zone)'),
    -- the background worker
    ('worker_state(OUT database text, OUT state text, OUT pid integer, OUT launcher_pid integer, '
     'OUT last_pass_at timestamp with time zone, OUT next_deadline_at timestamp with time zone, '
     'OUT retry_at timestamp with time zone, OUT passes bigint, OUT timed_out bigint, OUT requeued bigint, '
     'OUT rearmed bigint, OUT pending_notifications integer, OUT notifications bigint, OUT resyncs bigint, '
     'OUT folded bigint, OUT errors bigint, OUT failures integer, OUT last_error text, OUT last_error_at timestamp with time zone) SETOF record'),
    ('wake_worker() boolean'),
    -- accounts, usage and quotas
    ('ensure_account(user_id text?, tier text?) boolean'),
    ('quotas(user_id text?) TABLE(quota text, used numeric, reserved numeric, "limit" numeric, remaining numeric, reset_at timestamp with time zone)'),
    ('read_quotas(of_user text) TABLE(quota text, used numeric, reserved numeric, "limit" numeric, remaining numeric, '
     'reset_at timestamp with time zone)'),
    ('usage_sums(user_id text?, OUT tier text, OUT day date, OUT month date, OUT day_ends_at timestamp with time zone, '
     'OUT month_ends_at timestamp with time zone, OUT monthly_tokens bigint, OUT monthly_cost numeric, OUT daily_requests bigint, '
     'OUT reserved_tokens bigint, OUT reserved_cost numeric, OUT reserved_requests bigint, OUT monthly_tokens_limit bigint, '
     'OUT monthly_cost_limit numeric, OUT daily_requests_limit bigint, OUT concurrent_sessions_limit bigint) record'),
    ('record_usage(user_id text?, tokens bigint?, cost numeric DEFAULT 0, requests integer DEFAULT 1, input_tokens bigint?, '
     'output_tokens bigint?, provider text?, model text?, endpoint text?, session_id uuid?, run_id uuid?, metadata jsonb?, '
     'usage_id uuid?) uuid'),
    ('log_request(session_id uuid?, endpoint text?, metadata jsonb?, user_id text?, request_id uuid?) uuid'),
    ('reserve_usage(user_id text?, tokens bigint DEFAULT 0, cost numeric DEFAULT 0, ttl interval DEFAULT ''00:10:00''::interval, '
     'requests integer DEFAULT 1) uuid'),
    ('settle_usage(reservation_id uuid, tokens bigint?, cost numeric?, requests integer?, input_tokens bigint?, output_tokens '
     'bigint?, provider text?, model text?, endpoint text?, session_id uuid?, run_id uuid?, metadata jsonb?) boolean'),
    ('release_usage(reservation_id uuid) boolean'),
    ('purge_usage(older_than interval DEFAULT ''90 days''::interval, max_rows integer DEFAULT 10000) bigint'),
    ('purge_before(older_than interval, max_rows integer, argument text) timestamp with time zone'),
    ('forget_reservations(before timestamp with time zone, max_rows integer) bigint'),
    -- sessions
    ('open_session(user_id text?, session_id uuid?, metadata jsonb?) uuid'),
    ('touch_session(session_id uuid) boolean'),
    ('close_session(session_id uuid) boolean'),
    ('append_delta(session_id uuid, base_version bigint, delta jsonb) bigint'),
    ('session_state(session_id uuid, at_version bigint?) jsonb'),
    ('read_session(session_id uuid) TABLE(version bigint, state jsonb)'),
    ('purge_sessions(older_than interval DEFAULT ''30 days''::interval, max_sessions integer DEFAULT 10000) bigint'),
    ('merge_patch(target jsonb, patch jsonb) jsonb'),
    ('merge_patches(jsonb) jsonb'),
    -- what has to happen from time to time
    ('purge_runs(older_than interval DEFAULT ''30 days''::interval, max_runs integer DEFAULT 10000, '
     'phases text[] DEFAULT ''{succeeded,failed,cancelled,timed_out}''::text[]) bigint'),
    ('schedule_maintenance(older_than interval DEFAULT ''30 days''::interval, '
     'purge_schedule text DEFAULT ''*/10 * * * *''::text, expire_schedule text DEFAULT ''* * * * *''::text) '
     'TABLE(jobname text, schedule text, command text)'),
    ('unschedule_maintenance() bigint'),
    ('has_cron() boolean'),
    -- views of applications
    ('create_compat(application text, schema regnamespace, id_types jsonb DEFAULT ''{}''::jsonb, public_rows boolean DEFAULT false) text[]'),
    ('drop_compat(application text, schema regnamespace) text[]'),
    ('set_keys(base jsonb, old jsonb, new jsonb) jsonb'),
    ('import_table(application text, source regclass, relation text?) TABLE(copied bigint, present bigint, refused bigint, refusals jsonb, '
     'ignored_columns text[])'),
    ('resolve_conflict(view regclass, new record, repeatable boolean DEFAULT false) record'),
    -- rate limits and circuit breakers
    ('consume_rate_limit(endpoint text, cost integer DEFAULT 1, user_id text?) TABLE(allowed boolean, current bigint, '
     '"limit" bigint, remaining bigint, reset_at timestamp with time zone, reset_ms bigint)'),
    ('consume_rate_limit_or_fail(endpoint text, cost integer DEFAULT 1, user_id text?) TABLE(allowed boolean, current bigint, '
     '"limit" bigint, remaining bigint, reset_at timestamp with time zone, reset_ms bigint)'),
    ('reset_rate_limit(user_id text, endpoint text?) bigint'),
    ('rate_limit_state(OUT user_id text, OUT endpoint text, OUT current bigint, OUT "limit" bigint, OUT remaining bigint, '
     'OUT reset_at timestamp with time zone, OUT "window" interval) SETOF record'),
    ('breaker_allow(name text) boolean'),
    ('breaker_allow_or_fail(name text) boolean'),
    ('breaker_record(name text, ok boolean, error text?) text'),
    ('reset_breaker(name text) boolean'),
    ('breaker_state(OUT name text, OUT state text, OUT failures bigint, OUT calls bigint, OUT opened_at timestamp with time zone, '
     'OUT since interval, OUT last_error text, OUT last_error_at timestamp with time zone) SETOF record'),
    ('read_breakers() TABLE(name text, state text, failures bigint, calls bigint, failure_threshold integer, failure_rate '
     'numeric, minimum_calls integer, "window" interval, reset_after interval, opened_at timestamp with time zone, '
     'next_probe_at timestamp with time zone, last_error text, last_error_at timestamp with time zone)'),
    -- administration
    -- functions that are called when a run finishes
    ('on_finish(kind_or_lifecycle text, function regprocedure, on_error text DEFAULT ''fail''::text) uuid'),
    ('drop_on_finish(handler_id uuid?, kind_or_lifecycle text?, function regprocedure?) boolean'),
    -- callbacks
    ('callback(json) jsonb'),
    ('callback_signed(payload json, signature text?, signed_at text?) jsonb'),
    ('callback_secret(payload json, secret text?) jsonb'),
    ('create_callback_key(name text, method text DEFAULT ''hmac''::text, secret text?, for_kind text?, '
     'require_timestamp boolean DEFAULT false) TABLE(key_id uuid, secret text)'),
    ('rotate_callback_key(name text, overlap interval DEFAULT ''1 day''::interval) TABLE(key_id uuid, secret text)'),
    ('drop_callback_key(key_id uuid) boolean'),
    ('purge_callbacks(older_than interval DEFAULT ''30 days''::interval, max_callbacks integer DEFAULT 10000) bigint'),
    ('grant_callback(role regrole) void'),
    ('install() text'),
    ('set_owner(role regrole) void'),
    ('grant_reader(role regrole) void'),
    ('grant_client(role regrole) void'),
    ('grant_service(role regrole) void')$$,
    'public functions have these names, arguments and results');

SELECT set_eq(
    $$SELECT proname::text FROM our_functions WHERE provolatile = 's'$$,
    $$SELECT unnest('{tracker_version,current_user_id,is_service,has_policy,check_callback,require_tables,lifecycle_diagram,run_messages,
                     run_logs,read_logs,check_totals,compare_totals,stuck_runs,has_cron,task_response,read_response,
                     read_response_from,stat_rows,summarize_runs,user_stats,workflow_stats,kind_stats,model_stats,
                     summarize_trend,trend_stats,task_target,check_batch,run_conditions,find_runs,list_runs,export_runs,
                     run_details,compare_run_values,compare_runs,run_timeline,timeline,report_html,dashboard_html,report_timeline,
                     report_messages,report_tasks,report_retrievals,report_artifacts,report_logs,html_page,describe_open_runs,
                     health,read_metrics,openmetrics,quotas,read_quotas,usage_sums,
                     session_state,read_session,compat_objects,import_cast,import_columns,import_targets,import_before,import_statements}'::text[])$$,
    'these functions only read');
SELECT set_eq(
    $$SELECT proname::text FROM our_functions WHERE provolatile = 'i'$$,
    $$SELECT unnest('{log_level_rank,functions_for,own_tables,own_views,callback_field,parse_callback,histogram_bucket,histogram_bound,histogram_quantile,histogram_count,
                     histogram_accumulate,histogram_result,merge_histograms,histogram_metrics,html_escape,html_number,
                     html_text,html_time,html_phase,html_badge,html_line,html_cell,html_meter,html_tick,html_fact,html_details,
                     html_json,html_section,html_more,html_style,html_chart,
                     merge_patch,merge_patches_add,merge_patches_result,merge_patches,own_views,own_tables,
                     set_keys,compat_id,compat_id_types,compat_key,compat_mark,
                     compat_spar_relations,compat_spar_columns,compat_spar_extras,
                     compat_iflow_relations,compat_iflow_columns,compat_iflow_extras,
                     compat_workflow_relations,compat_workflow_columns,compat_workflow_extras,
                     compat_spark_relations,compat_spark_columns,compat_spark_extras,
                     import_id_types,import_after,conversation_query,compat_response,compat_total,compat_ai_runs_relations,compat_ai_runs_columns,compat_ai_runs_extras}'::text[])$$,
    'these functions look at their arguments only; all others are volatile');

SELECT set_eq(
    $$SELECT proname::text FROM our_functions WHERE proparallel = 's'$$,
    ARRAY['tracker_version', 'current_user_id', 'is_service', 'log_level_rank', 'uuidv7', 'histogram_bucket', 'histogram_bound',
          'histogram_quantile', 'histogram_count', 'histogram_accumulate', 'histogram_result', 'merge_histograms',
          'merge_patch', 'merge_patches_add', 'merge_patches_result', 'merge_patches', 'conversation_query', 'set_keys'],
    'parallel workers may call these functions');

SELECT is_empty(
    'SELECT signature FROM our_functions WHERE prosecdef',
    'no function is SECURITY DEFINER');
SELECT is_empty(
    'SELECT signature FROM our_functions WHERE proleakproof',
    'no function claims to be leakproof');
SELECT is_empty(
    $$SELECT signature FROM our_functions WHERE proname IN (
          SELECT proname FROM our_functions GROUP BY proname HAVING count(*) > 1)$$,
    'no function is overloaded: named arguments are never ambiguous');

-- Those that set none run no SQL by a search path: they are on the way of every row, where setting one costs time.
SELECT set_eq(
    $$SELECT proname::text FROM our_functions
      WHERE NOT COALESCE(proconfig @> '{"search_path=pg_catalog, pg_temp"}', false)$$,
    ARRAY['tracker_version', 'current_user_id', 'is_service', 'uuidv7', 'log_level_rank',
          'lifecycles_after', 'runs_before', 'runs_after', 'tasks_before', 'tasks_after', 'messages_before',
          'messages_after', 'logs_before', 'logs_after', 'retrievals_before', 'retrievals_after', 'artifacts_before',
          'artifacts_after', 'compat_delete', 'require_tables', 'histogram_bucket', 'histogram_bound', 'histogram_quantile', 'histogram_count',
          'histogram_accumulate', 'histogram_result', 'merge_histograms',
          -- this one registers the search path of its caller
          'on_finish',
          'tiers_before', 'accounts_before', 'usage_records_before', 'usage_records_after',
          'sessions_before', 'sessions_after', 'session_deltas_before',
          'merge_patch', 'merge_patches_add', 'merge_patches_result', 'merge_patches'],
    'all other functions have the search path pg_catalog, pg_temp');
SELECT is_empty(
    $$SELECT p.signature FROM our_functions p JOIN pg_language l ON l.oid = p.prolang
      WHERE l.lanname IN ('sql', 'plpgsql') AND NOT COALESCE(p.proconfig @> '{"search_path=pg_catalog, pg_temp"}', false)$$,
    'every function in SQL or PL/pgSQL has that search path');

SELECT is_empty(
    'SELECT signature FROM our_functions WHERE proowner <> (SELECT oid FROM pg_roles WHERE rolname = CURRENT_USER)',
    'functions belong to whoever created the extension');

-- Nothing may depend on our types, or DROP EXTENSION … CASCADE would take columns and rows with it.
SELECT is_empty(
    $$SELECT p.signature FROM our_functions p, unnest(p.prorettype || COALESCE(p.proallargtypes, p.proargtypes::oid[])) t
      WHERE t IN (SELECT oid FROM pg_type WHERE typnamespace = 'run_tracker'::regnamespace)$$,
    'no function has an argument or a result of a type that is ours');
SELECT is_empty(
    $$SELECT p.signature, pg_describe_object(d.refclassid, d.refobjid, d.refobjsubid)
      FROM our_functions p JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid
      WHERE d.refclassid = 'pg_class'::regclass$$,
    'no function depends on a table');
SELECT is_empty(
    $$SELECT typname::text FROM pg_type
      WHERE typnamespace = 'run_tracker'::regnamespace AND typrelid = 0 AND typelem = 0$$,
    'there are no enums, domains and other types');

---------------------------------------------------------------------------------------------------------------------
-- Tables, columns, views

SELECT set_eq(
    $$SELECT format('%s %s', CASE relkind WHEN 'r' THEN 'table' WHEN 'v' THEN 'view' WHEN 'S' THEN 'sequence'
                                          ELSE 'kind ' || relkind::text END, relname)
      FROM our_relations WHERE relkind <> 'i'$$,
    ARRAY['table runs', 'table tasks', 'table response_chunks', 'table messages', 'table logs', 'table retrievals',
          'table artifacts', 'table transitions', 'table run_totals', 'table open_runs', 'table stat_deltas',
          'table stat_totals', 'table lifecycles', 'table installation', 'view run_summary', 'view active_runs',
          'view recent_runs', 'view metrics', 'view worker_status',
          'table finish_handlers', 'table callback_keys', 'table callbacks',
          'table breakers', 'view rate_limits', 'view circuit_breakers',
          'table tiers', 'table accounts', 'table usage_records', 'table reservations', 'view usage',
          'table sessions', 'table session_deltas', 'table session_snapshots', 'view active_sessions'],
    'there are these tables and views');

-- The columns that clients read and write, in no order: a dump of an older version has another one.
CREATE TEMP VIEW our_columns AS
SELECT c.relname::text AS relation, a.attname::text AS attname, format_type(a.atttypid, a.atttypmod) AS type,
       a.attnotnull, c.relkind, c.oid AS relid, a.attnum
FROM our_relations c JOIN pg_attribute a ON a.attrelid = c.oid
WHERE c.relkind IN ('r', 'v') AND a.attnum > 0 AND NOT a.attisdropped;

SELECT set_eq(
    $$SELECT relation || '.' || attname FROM our_columns WHERE relkind = 'r' AND type = 'timestamp with time zone'$$,
    $$SELECT relation || '.' || attname FROM our_columns WHERE relkind = 'r' AND attname ~ '_at$'$$,
    'what is called …_at is a timestamp with time zone, and nothing else is');
SELECT set_eq(
    $$SELECT relation || '.' || attname FROM our_columns WHERE attname ~ '_ms$'$$,
    $$SELECT relation || '.' || attname FROM our_columns WHERE attname ~ '_ms$' AND type = 'bigint'$$,
    'milliseconds are bigint');
SELECT set_eq(
    $$SELECT relation || '.' || attname FROM our_columns WHERE type = 'numeric'$$,
    $$SELECT relation || '.' || attname FROM our_columns WHERE attname ~ '(^|_)cost$'
      UNION ALL VALUES ('artifacts.similarity'), ('metrics.value'),
                       ('breakers.failure_rate'), ('circuit_breakers.failure_rate')$$,
    'money is numeric');
SELECT is_empty(
    $$SELECT relation || '.' || attname FROM our_columns WHERE type IN ('real', 'double precision', 'money', 'json')
      -- what was signed is kept byte for byte
      AND (relation, attname) <> ('callbacks', 'payload')$$,
    'nothing is a float or json without b');
SELECT set_eq(
    $$SELECT relation FROM our_columns WHERE attname = 'user_id' AND type = 'text' AND (attnotnull OR relkind = 'v')$$,
    $$SELECT relname::text FROM our_relations
      WHERE relkind IN ('r', 'v') AND relname NOT IN ('lifecycles', 'installation', 'worker_status', 'metrics',
                                                      'finish_handlers', 'callback_keys',
                                                      'breakers', 'circuit_breakers',
 'tiers')$$,
    'whatever has rows of users has user_id text NOT NULL');

SELECT is_empty(
    $$SELECT relname::text FROM our_relations WHERE relkind = 'v' AND NOT 'security_invoker=true' = ANY (reloptions)
      UNION SELECT relname FROM our_relations WHERE relkind = 'v' AND reloptions IS NULL$$,
    'views are security_invoker');
SELECT is_empty(
    $$SELECT relname::text FROM our_relations WHERE relkind IN ('r', 'p') AND relpersistence <> 'p'$$,
    'no table is unlogged');

---------------------------------------------------------------------------------------------------------------------
-- Comments

SELECT is_empty(
    $$SELECT signature FROM our_functions WHERE COALESCE(obj_description(oid, 'pg_proc'), '') = ''$$,
    'every function has a comment');
SELECT is_empty(
    $$SELECT relname::text FROM our_relations
      WHERE relkind IN ('r', 'v', 'S') AND COALESCE(obj_description(oid, 'pg_class'), '') = ''$$,
    'every table and view has a comment');
SELECT is_empty(
    $$SELECT relation || '.' || attname FROM our_columns
      WHERE relkind = 'r' AND COALESCE(col_description(relid, attnum), '') = ''$$,
    'every column of a table has a comment');
SELECT is_empty(
    $$SELECT format('%s on %s', p.polname, c.relname) FROM our_relations c JOIN pg_policy p ON p.polrelid = c.oid
      WHERE COALESCE(obj_description(p.oid, 'pg_policy'), '') = ''$$,
    'every policy has a comment');
SELECT is_empty(
    $$SELECT 1 WHERE COALESCE(obj_description((SELECT oid FROM pg_extension WHERE extname = 'run_tracker'),
                                              'pg_extension'), '') = ''$$,
    'the extension has a comment');

---------------------------------------------------------------------------------------------------------------------
-- Row level security

SELECT is_empty(
    $$SELECT relname::text FROM our_relations WHERE relkind IN ('r', 'p') AND NOT relrowsecurity$$,
    'row level security is enabled on every table');
SELECT set_eq(
    $$SELECT c.relname || ' ' || p.polname || ' ' || p.polcmd::text || CASE WHEN p.polpermissive THEN '' ELSE ' restrictive' END
             || ' ' || p.polroles::text || ' ' || pg_get_expr(p.polqual, p.polrelid)
             || COALESCE(' check ' || pg_get_expr(p.polwithcheck, p.polrelid), '')
      FROM our_relations c JOIN pg_policy p ON p.polrelid = c.oid$$,
    $$SELECT relation || ' own_rows * {0} (user_id = ( SELECT run_tracker.current_user_id() AS current_user_id))'
      FROM our_columns WHERE attname = 'user_id' AND relkind = 'r'
      UNION ALL VALUES ('lifecycles readable r {0} true'), ('installation readable r {0} true'),
                       ('breakers readable r {0} true'), ('tiers readable r {0} true')$$,
    'one policy for all tables that have rows of users; the others can only be read');

---------------------------------------------------------------------------------------------------------------------
-- Keys and indexes

SELECT set_eq(
    $$SELECT c.relname::text FROM our_relations c
      WHERE c.relkind = 'r' AND NOT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary)$$,
    ARRAY['stat_deltas'],
    'every table has a primary key but for the one that is appended to by everybody, and emptied');
SELECT set_eq(
    $$SELECT relname || ' ' || relreplident::text FROM our_relations WHERE relkind = 'r' AND relreplident <> 'd'$$,
    ARRAY['stat_deltas f'],
    'logical replication can tell its rows apart all the same');
SELECT set_eq(
    $$SELECT pg_get_indexdef(indexrelid) FROM pg_index WHERE indrelid = 'run_tracker.stat_deltas'::regclass$$,
    ARRAY['CREATE INDEX stat_deltas_usage_idx ON run_tracker.stat_deltas USING btree (user_id) WHERE (usage_on IS NOT NULL)'],
    'and no index slows down who appends, but for the one that checks of quotas read usage by');
SELECT is_empty(
    $$SELECT c.relation FROM our_columns c
      WHERE c.attname = 'run_id' AND c.relkind = 'r' AND c.relation NOT IN ('usage_records', 'callbacks') AND NOT EXISTS (
          SELECT FROM pg_index i WHERE i.indrelid = c.relid AND i.indisprimary AND i.indkey[0] = c.attnum)$$,
    'primary keys of what belongs to a run begin with run_id');
SELECT set_eq(
    $$SELECT c.relname || ' ' || pg_get_constraintdef(k.oid)
      FROM our_relations c JOIN pg_constraint k ON k.conrelid = c.oid
      WHERE k.contype = 'u'
        AND NOT (SELECT a.attnum FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'run_id') = k.conkey[1]$$,
    ARRAY['tasks UNIQUE (task_id)'],
    'no other unique constraint spans runs than that of task ids');
SELECT is_empty(
    $$SELECT indexrelid::regclass::text FROM pg_index i JOIN our_relations c ON c.oid = i.indrelid
      WHERE i.indisunique
        AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = i.indexrelid AND k.contype IN ('p', 'u'))$$,
    'nor does a unique index without a constraint');
SELECT set_eq(
    $$SELECT c.relname || ' ' || pg_get_constraintdef(k.oid)
      FROM our_relations c JOIN pg_constraint k ON k.conrelid = c.oid WHERE k.contype = 'f'$$,
    $$SELECT t || ' FOREIGN KEY (run_id, user_id) REFERENCES run_tracker.runs(run_id, user_id) ON DELETE CASCADE'
      FROM unnest('{tasks,messages,logs,retrievals,artifacts}'::text[]) t
      UNION ALL VALUES ('accounts FOREIGN KEY (tier) REFERENCES run_tracker.tiers(name) ON UPDATE CASCADE')$$,
    'children point to their run and its owner, and to nothing else');
SELECT is_empty(
    $$SELECT c.relname || '.' || k.conname
      FROM our_relations c JOIN pg_constraint k ON k.conrelid = c.oid
      WHERE k.contype = 'f' AND NOT EXISTS (
          SELECT FROM pg_index i
          WHERE i.indrelid = c.oid AND i.indkey[0] = k.conkey[1] AND i.indpred IS NULL AND i.indisvalid)$$,
    'every foreign key has an index that begins like it: deleting a run scans no table');
SELECT is_empty(
    $$SELECT c.relname || '.' || k.conname FROM our_relations c JOIN pg_constraint k ON k.conrelid = c.oid
      WHERE NOT k.convalidated OR k.condeferrable$$,
    'constraints are valid and checked at once');

-- Columns that an index uses in any way: as key, included, in an expression, in its predicate.
CREATE TEMP VIEW indexed_columns AS
SELECT DISTINCT c.relname::text AS relation, a.attname::text AS attname
FROM our_relations c
     JOIN pg_index i ON i.indrelid = c.oid
     JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
WHERE a.attnum = ANY (i.indkey)
   OR EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = i.indexrelid
                AND d.refclassid = 'pg_class'::regclass AND d.refobjid = c.oid AND d.refobjsubid = a.attnum);

SELECT set_eq(
    $$SELECT relation || '.' || attname FROM indexed_columns WHERE relation <> 'open_runs'$$,
    ARRAY['runs.run_id', 'runs.user_id', 'runs.created_at', 'runs.workflow_id', 'runs.session_id', 'runs.subject_id',
          'runs.parent_run_id', 'tasks.run_id', 'tasks.task_id', 'tasks.user_id', 'tasks.created_at',
          'response_chunks.run_id', 'response_chunks.task_id', 'response_chunks.start_offset',
          'messages.run_id', 'messages.seq', 'logs.run_id', 'logs.seq', 'retrievals.run_id', 'retrievals.retrieval_id',
          'artifacts.run_id', 'artifacts.artifact_id', 'transitions.run_id', 'transitions.seq',
          'run_totals.run_id', 'run_totals.slot', 'stat_totals.grain', 'stat_totals.period', 'stat_totals.all_users',
          'stat_totals.user_id', 'stat_totals.period_at', 'stat_totals.kind', 'stat_totals.workflow_id', 'stat_totals.mode',
          'stat_totals.provider', 'stat_totals.model', 'stat_totals.operation', 'stat_totals.phase',
          'lifecycles.name', 'installation.singleton',
          'finish_handlers.handler_id', 'finish_handlers.kind_or_lifecycle', 'finish_handlers.function',
          'callback_keys.key_id', 'callbacks.callback_id', 'callbacks.run_id', 'callbacks.digest', 'callbacks.user_id',
          'callbacks.received_at',
          'breakers.name',
 'tiers.name', 'accounts.user_id', 'accounts.user_uuid', 'accounts.tier',
          'usage_records.usage_id', 'usage_records.user_id', 'usage_records.used_at',
          'reservations.reservation_id', 'reservations.user_id', 'reservations.state', 'reservations.expires_at', 'reservations.ended_at',
          'stat_deltas.user_id', 'stat_deltas.usage_on',
          -- active_hour_at changes at most once an hour
          'sessions.session_id', 'sessions.user_id', 'sessions.created_at', 'sessions.closed_at', 'sessions.active_hour_at',
          'session_deltas.session_id', 'session_deltas.version', 'session_snapshots.session_id'],
    'no index of the ledger or the totals is on a column that changes while a row is open');
SELECT set_eq(
    $$SELECT attname FROM indexed_columns WHERE relation = 'open_runs'$$,
    ARRAY['run_id', 'user_id', 'deadline_at', 'lifecycle', 'kind', 'priority', 'available_at', 'phase'],
    'a mark of activity changes no index: what claims and passes look for is indexed, last_activity_at and worker are not');
SELECT is_empty(
    $$SELECT c.relname || '.' || a.attname FROM our_relations c JOIN pg_index i ON i.indexrelid = c.oid
          JOIN pg_attribute a ON a.attrelid = c.oid
      WHERE NOT i.indisvalid OR NOT i.indisready$$,
    'all indexes are valid');

-- The proof: the life of a run and of its tasks writes no index entry.
SELECT set_config('request.jwt.claims', '{"sub": "hot"}', true) \g /dev/null
INSERT INTO run_tracker.runs (run_id, user_id, priority) VALUES ('00000000-0000-0000-0000-0000000000a1', 'hot', 0);
SELECT run_tracker.start_run('00000000-0000-0000-0000-0000000000a1', 'worker 1') \g /dev/null
SELECT run_tracker.create_task('00000000-0000-0000-0000-0000000000a1', task_id => '00000000-0000-0000-0000-0000000000b1')
\g /dev/null
SELECT run_tracker.start_task('00000000-0000-0000-0000-0000000000b1', 'streaming') \g /dev/null
UPDATE run_tracker.tasks SET response = 'hel' WHERE task_id = '00000000-0000-0000-0000-0000000000b1';
UPDATE run_tracker.tasks SET response = 'hello' WHERE task_id = '00000000-0000-0000-0000-0000000000b1';
SELECT run_tracker.append_response('00000000-0000-0000-0000-0000000000b1', ' world') \g /dev/null
SELECT run_tracker.complete_task('00000000-0000-0000-0000-0000000000b1', input_tokens => 1, output_tokens => 1, cost => 1)
\g /dev/null
SELECT run_tracker.update_progress('00000000-0000-0000-0000-0000000000a1', 50, 'half') \g /dev/null
SELECT run_tracker.add_message('00000000-0000-0000-0000-0000000000a1', 'user', 'hello') \g /dev/null
SELECT run_tracker.log_retrieval('00000000-0000-0000-0000-0000000000a1', 'hybrid') \g /dev/null
SELECT run_tracker.add_artifact('00000000-0000-0000-0000-0000000000a1', 'file', artifact_id => '00000000-0000-0000-0000-0000000000c1')
\g /dev/null
UPDATE run_tracker.artifacts SET content = 'hello' WHERE artifact_id = '00000000-0000-0000-0000-0000000000c1';
SELECT run_tracker.complete_run('00000000-0000-0000-0000-0000000000a1', '{}', '{}', '{}') \g /dev/null
SELECT set_eq(
    $$SELECT relname::text, n_tup_upd > 0 AS updated, n_tup_upd - n_tup_hot_upd AS cold FROM pg_stat_xact_user_tables
      WHERE schemaname = 'run_tracker' AND relname IN ('runs', 'tasks', 'artifacts', 'run_totals')$$,
    $$VALUES ('run_totals', true, 0::bigint), ('runs', true, 0), ('tasks', true, 0), ('artifacts', true, 0)$$,
    'all updates in the life of a run are HOT');
DELETE FROM run_tracker.runs WHERE run_id = '00000000-0000-0000-0000-0000000000a1';

---------------------------------------------------------------------------------------------------------------------
-- The extension owns code, the user owns data

SELECT is_empty(
    $$SELECT pg_describe_object(d.classid, d.objid, d.objsubid)
      FROM pg_depend d JOIN pg_extension e ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid
      WHERE e.extname = 'run_tracker' AND d.deptype = 'e' AND d.classid <> 'pg_proc'::regclass
        -- show what the server does, hold nothing
        AND NOT (d.classid = 'pg_class'::regclass AND d.objid::regclass IN (
                 'run_tracker.worker_status', 'run_tracker.metrics', 'run_tracker.rate_limits', 'run_tracker.circuit_breakers'))
        -- their types and their rules
        AND NOT (d.classid = 'pg_type'::regclass)$$,
    'the members of the extension are functions, and four views that hold no data');
SELECT is_empty(
    $$SELECT signature FROM our_functions WHERE NOT EXISTS (
          SELECT FROM pg_depend d JOIN pg_extension e ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid
          WHERE e.extname = 'run_tracker' AND d.deptype = 'e'
            AND d.classid = 'pg_proc'::regclass AND d.objid = our_functions.oid)$$,
    'every function is a member');
SELECT set_eq(
    $$SELECT extrelocatable, extconfig, extnamespace::regnamespace::text FROM pg_extension WHERE extname = 'run_tracker'$$,
    $$VALUES (false, NULL::oid[], 'pg_catalog')$$,
    'it is not relocatable, dumps no table of its own, and its schema cannot be taken by others');
SELECT set_eq(
    $$SELECT superuser, trusted FROM pg_available_extension_versions WHERE name = 'run_tracker' AND installed$$,
    $$VALUES (true, false)$$,
    'only superusers create it');
SELECT set_eq(
    'SELECT version FROM run_tracker.installation', 'SELECT run_tracker.tracker_version()',
    'the version of the tables is that of the library');

---------------------------------------------------------------------------------------------------------------------
-- Privileges

-- Who has which privileges on what, of all that can have any: relations, columns, functions, the schema, types, default
-- privileges of the schema. Owners are left out.
CREATE TEMP VIEW all_privileges AS
SELECT COALESCE(r.rolname, 'PUBLIC')::text AS grantee, g.object, g.privilege
       || CASE WHEN g.columns IS NULL THEN '' ELSE ' (' || g.columns || ')' END
       || CASE WHEN g.grantable THEN ' WITH GRANT OPTION' ELSE '' END AS privilege
FROM (
    SELECT a.grantee, CASE c.relkind WHEN 'v' THEN 'view ' WHEN 'S' THEN 'sequence ' ELSE 'table ' END || c.relname,
           a.privilege_type, NULL::text, a.is_grantable
    FROM our_relations c, aclexplode(c.relacl) a WHERE a.grantee <> c.relowner
    UNION ALL
    SELECT a.grantee, 'table ' || c.relname, a.privilege_type,
           string_agg(t.attname::text, ', ' ORDER BY t.attname::text COLLATE "C"), a.is_grantable
    FROM our_relations c JOIN pg_attribute t ON t.attrelid = c.oid, aclexplode(t.attacl) a WHERE a.grantee <> c.relowner
    GROUP BY a.grantee, c.relname, a.privilege_type, a.is_grantable
    UNION ALL
    SELECT a.grantee, 'function ' || p.proname, a.privilege_type, NULL, a.is_grantable
    FROM our_functions p, aclexplode(COALESCE(p.proacl, acldefault('f', p.proowner))) a WHERE a.grantee <> p.proowner
    UNION ALL
    SELECT a.grantee, 'schema', a.privilege_type, NULL, a.is_grantable
    FROM pg_namespace n, aclexplode(n.nspacl) a WHERE n.nspname = 'run_tracker' AND a.grantee <> n.nspowner
    UNION ALL
    -- row types and their arrays can have no privileges of their own
    SELECT a.grantee, 'type ' || t.typname, a.privilege_type, NULL, a.is_grantable
    FROM pg_type t, aclexplode(t.typacl) a
    WHERE t.typnamespace = (SELECT oid FROM pg_namespace WHERE nspname = 'run_tracker') AND a.grantee <> t.typowner
    UNION ALL
    SELECT a.grantee, 'default ' || d.defaclobjtype::text, a.privilege_type, NULL, a.is_grantable
    FROM pg_default_acl d, aclexplode(d.defaclacl) a
    WHERE d.defaclnamespace = (SELECT oid FROM pg_namespace WHERE nspname = 'run_tracker') AND a.grantee <> d.defaclrole
    ) AS g (grantee, object, privilege, columns, grantable)
     LEFT JOIN pg_roles r ON r.oid = g.grantee;

-- pgTAP's has_*_privilege would be one assertion for each of a thousand combinations; a list says the same at a glance.
SELECT is_empty(
    'SELECT * FROM all_privileges',
    'after CREATE EXTENSION nobody but the owner has a privilege on anything');
SELECT is_empty(
    $$SELECT signature FROM our_functions WHERE has_function_privilege('public', oid, 'EXECUTE')$$,
    'no function is executable by PUBLIC');

CREATE ROLE tap_reader;
CREATE ROLE tap_client;
CREATE ROLE tap_service;
SELECT run_tracker.grant_reader('tap_reader') \g /dev/null
SELECT run_tracker.grant_client('tap_client') \g /dev/null
SELECT run_tracker.grant_service('tap_service') \g /dev/null

CREATE TEMP TABLE reader_privileges AS
SELECT 'function ' || f AS object, 'EXECUTE' AS privilege
FROM unnest('{tracker_version,current_user_id,is_service,lifecycle_diagram,run_messages,run_logs,log_level_rank,
              check_totals,require_tables,read_logs,compare_totals,stuck_runs,task_response,read_response,read_response_from,
              histogram_bucket,histogram_bound,histogram_quantile,histogram_count,merge_histograms,stat_rows,summarize_runs,
              user_stats,workflow_stats,kind_stats,model_stats,trend_stats,summarize_trend,list_runs,find_runs,run_conditions,
              run_details,compare_runs,compare_run_values,export_runs,timeline,run_timeline,report_html,dashboard_html,
              report_timeline,report_messages,report_tasks,report_retrievals,report_artifacts,report_logs,html_escape,
              html_number,html_text,html_time,html_phase,html_badge,html_line,html_cell,html_meter,html_tick,html_fact,
              html_details,html_json,html_section,html_more,html_style,html_page,html_chart,health,describe_open_runs,read_metrics,histogram_metrics,openmetrics,
              rate_limit_state,breaker_state,read_breakers,purge_before,
              merge_patch,merge_patches,session_state,read_session,
              quotas,read_quotas,usage_sums}'::text[]) f
UNION ALL
SELECT t, 'SELECT'
FROM unnest('{table runs,table tasks,table response_chunks,table messages,table logs,table retrievals,table artifacts,
              table transitions,table run_totals,table open_runs,table stat_deltas,table stat_totals,table lifecycles,table callbacks,
              table installation,view run_summary,view active_runs,view recent_runs,view metrics,
              table breakers,view rate_limits,view circuit_breakers,
              table sessions,table session_deltas,table session_snapshots,view active_sessions,
              table tiers,table accounts,table usage_records,table reservations,view usage}'::text[]) t
UNION ALL VALUES ('schema', 'USAGE');

SELECT set_eq(
    $$SELECT object, privilege FROM all_privileges WHERE grantee = 'tap_reader'$$,
    'SELECT * FROM reader_privileges',
    'privileges of grant_reader()');

CREATE TEMP TABLE client_privileges AS
SELECT * FROM reader_privileges
UNION ALL
SELECT 'function ' || f, 'EXECUTE'
FROM unnest('{uuidv7,create_run,start_run,complete_run,fail_run,cancel_run,retry_run,transition_run,update_progress,
              create_task,start_task,complete_task,fail_task,cancel_task,append_response,add_message,write_messages,add_log,
              log_retrieval,add_artifact,heartbeat_run,release_run,create_runs,create_tasks,complete_tasks,check_batch,
              task_target,consume_rate_limit,consume_rate_limit_or_fail,resolve_conflict,set_keys,
              open_session,touch_session,close_session,append_delta,
ensure_account,record_usage,log_request,reserve_usage,settle_usage,release_usage}'::text[]) f
UNION ALL VALUES
('table runs', 'INSERT (current_step, error, error_detail, inputs, kind, lifecycle, max_attempts, max_duration, metadata, '
               'metrics, name, parent_run_id, plan, priority, progress, reflections, result, retry_base, retry_cap, '
               'run_id, scheduled_at, session_id, settings, status, subject_id, timeout, user_id, variables, worker, workflow_id)'),
('table runs', 'UPDATE (current_step, error, error_detail, inputs, kind, max_attempts, max_duration, metadata, '
               'metrics, name, parent_run_id, plan, priority, progress, reflections, result, retry_base, retry_cap, '
               'scheduled_at, session_id, settings, status, subject_id, timeout, variables, worker, workflow_id)'),
('table tasks', 'INSERT (cache_creation_input_tokens, cache_read_input_tokens, cost, cost_source, error, error_detail, '
                'finish_reason, input_tokens, lifecycle, metadata, model, name, operation, output_tokens, parent_task_id, '
                'provider, reasoning_output_tokens, request, reservation_id, response, response_id, response_model, result, run_id, '
                'service, status, task_id, time_to_first_token_ms, total_tokens, user_id)'),
('table tasks', 'UPDATE (cache_creation_input_tokens, cache_read_input_tokens, cost, cost_source, error, error_detail, '
                'finish_reason, input_tokens, metadata, model, name, operation, output_tokens, parent_task_id, '
                'provider, reasoning_output_tokens, request, reservation_id, response, response_id, response_model, result, run_id, '
                'service, status, time_to_first_token_ms, total_tokens)'),
('table messages', 'INSERT (content, metadata, name, parts, role, run_id, task_id, user_id)'),
('table messages', 'UPDATE (content, metadata, name, parts, role, task_id)'),
('table logs', 'INSERT (category, details, level, log_id, message, run_id, step_name, task_id, user_id)'),
('table retrievals', 'INSERT (component_type, context, duration_ms, location, metadata, query, results, results_count, '
                     'retrieval_id, retrieval_type, run_id, task_id, user_id)'),
('table retrievals', 'UPDATE (component_type, context, duration_ms, location, metadata, query, results, results_count, '
    'retrieval_type, task_id)'),
('table artifacts', 'INSERT (artifact_id, chunk_type, configuration, content, content_type, kind, metadata, name, ordinal, '
                    'retrieval_id, run_id, session_id, similarity, size_bytes, source, source_document_id, '
                    'source_document_name, task_id, type, url, user_id)'),
('table artifacts', 'UPDATE (chunk_type, configuration, content, content_type, kind, metadata, name, ordinal, '
                    'retrieval_id, similarity, size_bytes, source, source_document_id, source_document_name, '
                    'task_id, type, url)'),
('table accounts', 'INSERT (permissions, quotas, tier, user_id, user_uuid)'),
('table sessions', 'INSERT (metadata, session_id, user_id)'),
('table sessions', 'UPDATE (closed_at, metadata)'),
('table session_deltas', 'INSERT (delta, session_id, user_id, version)'),
('table usage_records', 'INSERT (cost, endpoint, input_tokens, metadata, model, output_tokens, provider, requests, reservation_id, '
                        'run_id, session_id, source, task_id, total_tokens, usage_id, user_id)');

SELECT set_eq(
    $$SELECT object, privilege FROM all_privileges WHERE grantee = 'tap_client'$$,
    'SELECT * FROM client_privileges',
    'privileges of grant_client()');

SELECT set_eq(
    $$SELECT object, privilege FROM all_privileges WHERE grantee = 'tap_service'$$,
    $$SELECT object, replace(privilege, 'INSERT (delta, session_id', 'INSERT (created_at, delta, session_id') FROM client_privileges
      UNION ALL SELECT 'function ' || f, 'EXECUTE'
                FROM unnest('{define_lifecycle,drop_lifecycle,rebuild_totals,claim_runs,expire_runs,purge_runs,
                              schedule_maintenance,unschedule_maintenance,has_cron,wake_worker,worker_state,
                              fold_statistics,purge_sessions,purge_callbacks,purge_usage,forget_reservations,on_finish,drop_on_finish,
                              reset_rate_limit,breaker_allow,breaker_allow_or_fail,breaker_record,reset_breaker,import_table}'::text[]) f
      UNION ALL VALUES ('view worker_status', 'SELECT'), ('table finish_handlers', 'SELECT')
      UNION     SELECT 'table ' || t, p
                FROM unnest('{runs,tasks,messages,logs,retrievals,artifacts,lifecycles,breakers,tiers,accounts,usage_records,sessions,callbacks}'::text[]) t,
                     unnest('{INSERT,UPDATE,DELETE}'::text[]) p$$,
    'privileges of grant_service()');

CREATE ROLE tap_callback;
SELECT run_tracker.grant_callback('tap_callback') \g /dev/null
SELECT set_eq(
    $$SELECT object, privilege FROM all_privileges WHERE grantee = 'tap_callback'$$,
    $$VALUES ('schema', 'USAGE'), ('function callback', 'EXECUTE'), ('function callback_signed', 'EXECUTE'),
             ('function callback_secret', 'EXECUTE')$$,
    'privileges of grant_callback(): three functions, and no table');

SELECT is_empty(
    $$SELECT * FROM all_privileges WHERE grantee NOT IN ('tap_reader', 'tap_client', 'tap_service', 'tap_callback')$$,
    'nobody else got anything');
SELECT is_empty(
    $$SELECT * FROM all_privileges WHERE privilege LIKE '%GRANT OPTION'$$,
    'nobody may hand privileges on');
SELECT is_empty(
    $$SELECT * FROM all_privileges
      WHERE object ~ '^table (response_chunks|run_totals|open_runs|transitions|stat_deltas|stat_totals|finish_handlers|reservations|session_snapshots)$'
        AND privilege <> 'SELECT'$$,
    'bookkeeping can only be read, even by services');
SELECT is_empty(
    $$SELECT grantee, object FROM all_privileges JOIN internal_functions ON object = 'function ' || proname$$,
    'nobody but the owner may call trigger functions and internal ones');
-- the same again from the other side: whatever the list above says, a client must not have these
SELECT is_empty(
    $$SELECT relation || '.' || attname, p FROM our_columns, unnest('{INSERT,UPDATE,REFERENCES}'::text[]) p
      WHERE has_column_privilege('tap_client', relid, attnum::smallint, p)
        AND (attname IN ('phase', 'attempt', 'state_ms', 'seq', 'slot')
             OR attname = 'duration_ms' AND relation <> 'retrievals'
             OR attname ~ '_at$' AND attname <> 'scheduled_at'
                 -- assigning anything to it closes the session now
                 AND (relation, attname, p) <> ('sessions', 'closed_at', 'UPDATE')
             OR relation IN ('response_chunks', 'run_totals', 'open_runs', 'transitions', 'stat_deltas', 'stat_totals',
                             'lifecycles', 'installation', 'reservations', 'tiers', 'finish_handlers', 'breakers', 'session_snapshots',
                             'callback_keys', 'callbacks')
              OR relation = 'accounts'
                 -- what they give themselves is at most what the tier "free" has
                 AND (p <> 'INSERT' OR attname NOT IN ('user_id', 'user_uuid', 'tier', 'permissions', 'quotas'))
              OR relation = 'usage_records' AND p = 'UPDATE'
             OR relkind = 'v'
             OR p = 'UPDATE' AND attname IN ('user_id', 'lifecycle')
             OR p = 'REFERENCES')$$,
    'clients write nothing that is computed');
SELECT is_empty(
    $$SELECT r, c.relname::text, p FROM our_relations c, unnest('{tap_reader,tap_client,tap_service}'::text[]) r,
             unnest('{TRUNCATE,TRIGGER,REFERENCES}'::text[]) p
      WHERE c.relkind IN ('r', 'v') AND has_table_privilege(r, c.oid, p)$$,
    'nobody may truncate tables, attach triggers to them, or refer to them by foreign keys');
SELECT is_empty(
    $$SELECT r FROM unnest('{tap_reader,tap_client,tap_service}'::text[]) r
      WHERE has_schema_privilege(r, 'run_tracker', 'CREATE')$$,
    'nobody may create anything in the schema');

-- Policies of services: on the tables with rows of users, and lifecycles; for the role alone.
SELECT set_eq(
    $$SELECT c.relname || ' ' || p.polcmd::text || ' ' || p.polpermissive::text || ' ' || p.polroles::regrole[]::text || ' '
             || pg_get_expr(p.polqual, p.polrelid)
      FROM our_relations c JOIN pg_policy p ON p.polrelid = c.oid WHERE p.polname = 'service_rows'$$,
    $$SELECT t || ' * true {tap_service} true'
      FROM unnest('{runs,tasks,response_chunks,messages,logs,retrievals,artifacts,transitions,run_totals,open_runs,
                     stat_deltas,stat_totals,lifecycles,
                     finish_handlers,callbacks,
                     breakers,
tiers,accounts,usage_records,reservations,
sessions,session_deltas,session_snapshots}'::text[]) t$$,
    'policies of grant_service()');
SELECT is_empty(
    $$SELECT c.relname::text FROM our_relations c JOIN pg_policy p ON p.polrelid = c.oid
      WHERE COALESCE(obj_description(p.oid, 'pg_policy'), '') = ''$$,
    'they have comments, too');

-- Repeating a grant changes nothing; a second service does not take the policy from the first.
CREATE TEMP TABLE before AS SELECT * FROM all_privileges;
SELECT run_tracker.grant_reader('tap_reader'), run_tracker.grant_client('tap_client'),
       run_tracker.grant_service('tap_service') \g /dev/null
SELECT set_eq('SELECT * FROM all_privileges', 'SELECT * FROM before', 'a repeated grant changes nothing');
CREATE ROLE "tap ""second; service'";
SELECT lives_ok(
    $$SELECT run_tracker.grant_service('"tap ""second; service''"')$$,
    'a role may have a name that needs quotes');
SELECT set_eq(
    $$SELECT r::regrole::text FROM our_relations c JOIN pg_policy p ON p.polrelid = c.oid, unnest(p.polroles) r
      WHERE p.polname = 'service_rows' AND c.relname = 'runs'$$,
    ARRAY['tap_service', '"tap ""second; service''"'],
    'the policy of services is for both services then');

---------------------------------------------------------------------------------------------------------------------
-- The same in a database whose default privileges give everything away

SET LOCAL client_min_messages = warning;
SELECT lives_ok($$DROP EXTENSION run_tracker CASCADE; DROP SCHEMA run_tracker CASCADE$$, 'everything can be dropped');
CREATE ROLE tap_hostile;
ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO tap_hostile WITH GRANT OPTION;
ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO PUBLIC;
ALTER DEFAULT PRIVILEGES GRANT ALL ON SEQUENCES TO tap_hostile, PUBLIC;
ALTER DEFAULT PRIVILEGES GRANT ALL ON FUNCTIONS TO tap_hostile WITH GRANT OPTION;
ALTER DEFAULT PRIVILEGES GRANT ALL ON SCHEMAS TO tap_hostile, PUBLIC;
ALTER DEFAULT PRIVILEGES GRANT ALL ON TYPES TO tap_hostile;
SELECT lives_ok('CREATE EXTENSION run_tracker', 'hostile default privileges do not stop CREATE EXTENSION');
SELECT is_empty(
    'SELECT * FROM all_privileges',
    'with hostile default privileges, too, nobody but the owner has a privilege on anything');
SELECT is_empty(
    $$SELECT signature FROM our_functions WHERE has_function_privilege('tap_hostile', oid, 'EXECUTE')$$,
    'the hostile role may call nothing');
-- What install() creates anew later must not fall for them either.
DROP VIEW run_tracker.recent_runs, run_tracker.run_summary, run_tracker.active_runs, run_tracker.usage, run_tracker.active_sessions;
DROP TABLE run_tracker.open_runs, run_tracker.logs, run_tracker.response_chunks, run_tracker.retrievals,
           run_tracker.artifacts, run_tracker.stat_deltas, run_tracker.stat_totals, run_tracker.installation,
           run_tracker.accounts, run_tracker.tiers, run_tracker.usage_records, run_tracker.reservations,
           run_tracker.sessions, run_tracker.session_deltas, run_tracker.session_snapshots;
SELECT run_tracker.install() \g /dev/null
SELECT is_empty('SELECT * FROM all_privileges', 'nor after install() has put back tables that were missing');

SELECT * FROM finish();
ROLLBACK;
