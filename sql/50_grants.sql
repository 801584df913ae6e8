-- Who may do what.

CREATE FUNCTION run_tracker.grant_functions(role regrole, functions text[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    function regprocedure;
BEGIN
    IF role IS NULL OR NOT EXISTS (SELECT FROM pg_roles r WHERE r.oid = role) THEN
        RAISE EXCEPTION 'argument "role" must name a role' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    EXECUTE format('GRANT USAGE ON SCHEMA run_tracker TO %s', role);
    FOR function IN
        SELECT p.oid FROM pg_proc p
        WHERE p.pronamespace = 'run_tracker'::regnamespace AND p.proname = ANY (functions)
    LOOP
        EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO %s', function, role);
    END LOOP;
END
$$;
COMMENT ON FUNCTION run_tracker.grant_functions(regrole, text[]) IS
'Internal: lets a role use the schema and call functions of these names.';

CREATE FUNCTION run_tracker.functions_for(whom text) RETURNS text[]
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT '{tracker_version,current_user_id,is_service,lifecycle_diagram,run_messages,run_logs,log_level_rank,
             check_totals,require_tables,read_logs,compare_totals,stuck_runs,task_response,read_response,
             read_response_from,histogram_bucket,histogram_bound,histogram_quantile,histogram_count,merge_histograms,
             stat_rows,summarize_runs,summarize_trend,user_stats,workflow_stats,kind_stats,model_stats,trend_stats,list_runs,
             find_runs,run_conditions,run_details,compare_runs,compare_run_values,export_runs,timeline,run_timeline,report_html,dashboard_html,
             health,describe_open_runs,histogram_metrics,read_metrics,openmetrics,quotas,read_quotas,usage_sums,
             rate_limit_state,breaker_state,read_breakers,purge_before}'::text[]
        || '{html_escape,html_style,html_page,html_text,html_number,html_time,html_phase,html_badge,html_line,html_cell,html_meter,
             html_tick,html_fact,html_details,html_json,html_section,html_more,html_chart,report_timeline,report_messages,
             report_tasks,report_retrievals,report_artifacts,report_logs}'::text[]
        || '{merge_patch,merge_patches,session_state,read_session}'::text[]
        || CASE WHEN whom IN ('client', 'service', 'owner') THEN
            '{uuidv7,create_run,start_run,complete_run,fail_run,cancel_run,retry_run,transition_run,update_progress,
              create_task,start_task,complete_task,fail_task,cancel_task,append_response,add_message,write_messages,add_log,
              log_retrieval,add_artifact,heartbeat_run,release_run,create_runs,create_tasks,complete_tasks,check_batch,
              task_target,ensure_account,record_usage,log_request,reserve_usage,settle_usage,release_usage,
              open_session,touch_session,close_session,append_delta,consume_rate_limit,consume_rate_limit_or_fail,
              set_keys,resolve_conflict}'::text[]
           ELSE '{}' END
        || CASE WHEN whom IN ('service', 'owner') THEN
            '{define_lifecycle,drop_lifecycle,rebuild_totals,claim_runs,expire_runs,purge_runs,schedule_maintenance,
              unschedule_maintenance,has_cron,wake_worker,worker_state,fold_statistics,purge_usage,forget_reservations,
              purge_sessions,reset_rate_limit,breaker_allow,breaker_allow_or_fail,breaker_record,reset_breaker,
              on_finish,drop_on_finish,purge_callbacks,import_table}'::text[]
           ELSE '{}' END
        || CASE WHEN whom = 'owner' THEN
            '{create_callback_key,rotate_callback_key,drop_callback_key,apply_callback,parse_callback,check_callback,
              write_callback,callback_field,wait_for_writers}'::text[] ||
            '{has_policy,revoke_all,create_compat,drop_compat,compat_grant,compat_check,compat_columns,compat_delete,compat_extras,compat_id,compat_id_types,
              compat_indexes,compat_is_unique,compat_key,compat_list,compat_mark,compat_objects,compat_public_rows,compat_relations,
              import_cast,import_columns,import_id_types,import_targets,import_before,import_after,import_statements,
              compat_require_free,compat_require_application,compat_trigger,compat_types,compat_view,compat_writes,
              compat_spar_relations,compat_spar_columns,compat_spar_extras,
              compat_ai_runs_relations,compat_ai_runs_columns,compat_ai_runs_extras,compat_response,compat_total,
              conversation_query,
              compat_iflow_relations,compat_iflow_columns,compat_iflow_extras,
              compat_workflow_relations,compat_workflow_columns,compat_workflow_extras,
              compat_spark_relations,compat_spark_columns,compat_spark_extras}'::text[]
           ELSE '{}' END
$$;
COMMENT ON FUNCTION run_tracker.functions_for(text) IS
'Internal: the names of the functions that a reader, client, service, or the owner of the tables may call.';

CREATE FUNCTION run_tracker.grant_reader(role regrole) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM run_tracker.grant_functions(role, run_tracker.functions_for('reader'));
    EXECUTE format('GRANT SELECT ON run_tracker.runs, run_tracker.tasks, run_tracker.response_chunks,
        run_tracker.messages, run_tracker.logs, run_tracker.retrievals, run_tracker.artifacts, run_tracker.transitions,
        run_tracker.run_totals, run_tracker.open_runs, run_tracker.stat_deltas, run_tracker.stat_totals,
        run_tracker.lifecycles, run_tracker.callbacks, run_tracker.tiers, run_tracker.accounts,
        run_tracker.usage_records, run_tracker.reservations, run_tracker.usage, run_tracker.installation, run_tracker.run_summary, run_tracker.active_runs,
        run_tracker.recent_runs, run_tracker.metrics TO %s', role);
    EXECUTE format('GRANT SELECT ON run_tracker.sessions, run_tracker.session_deltas, run_tracker.session_snapshots,
        run_tracker.active_sessions, run_tracker.breakers, run_tracker.rate_limits, run_tracker.circuit_breakers TO %s', role);
END
$$;
COMMENT ON FUNCTION run_tracker.grant_reader(regrole) IS
'Lets a role read the rows of its current_user_id(). For the owner of the extension.';

CREATE FUNCTION run_tracker.grant_client(role regrole) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM run_tracker.grant_reader(role);
    PERFORM run_tracker.grant_functions(role, run_tracker.functions_for('client'));
    -- never phase, attempt, timestamps and durations: they are computed; nor DELETE, with which LOCK TABLE comes
    EXECUTE format('GRANT INSERT (run_id, user_id, lifecycle, status, kind, name, workflow_id, session_id, subject_id,
            parent_run_id, priority, scheduled_at, inputs, settings, variables, plan, result, reflections, metrics,
            metadata, progress, current_step, error, error_detail, max_attempts, timeout, max_duration,
            retry_base, retry_cap, worker),
        UPDATE (status, kind, name, workflow_id, session_id, subject_id, parent_run_id, priority, scheduled_at, inputs,
            settings, variables, plan, result, reflections, metrics, metadata, progress, current_step, error,
            error_detail, max_attempts, timeout, max_duration, retry_base, retry_cap, worker)
        ON run_tracker.runs TO %s', role);
    EXECUTE format('GRANT INSERT (run_id, task_id, user_id, parent_task_id, lifecycle, status, service, name, operation,
            provider, model, response_model, request, response, result, input_tokens, output_tokens, total_tokens,
            cache_read_input_tokens, cache_creation_input_tokens, reasoning_output_tokens, cost, cost_source,
            finish_reason, response_id, error, error_detail, time_to_first_token_ms, metadata, reservation_id),
        UPDATE (run_id, parent_task_id, status, service, name, operation, provider, model, response_model, request,
            response, result, input_tokens, output_tokens, total_tokens, cache_read_input_tokens,
            cache_creation_input_tokens, reasoning_output_tokens, cost, cost_source, finish_reason, response_id, error,
            error_detail, time_to_first_token_ms, metadata, reservation_id)
        ON run_tracker.tasks TO %s', role);
    EXECUTE format('GRANT INSERT (run_id, user_id, task_id, role, name, content, parts, metadata),
        UPDATE (task_id, role, name, content, parts, metadata) ON run_tracker.messages TO %s', role);
    EXECUTE format('GRANT INSERT (run_id, log_id, user_id, task_id, level, message, category, step_name, details)
        ON run_tracker.logs TO %s', role);
    EXECUTE format('GRANT INSERT (run_id, retrieval_id, user_id, task_id, retrieval_type, query, context, results_count,
            results, location, component_type, duration_ms, metadata),
        UPDATE (task_id, retrieval_type, query, context, results_count, results, location, component_type, duration_ms, metadata)
        ON run_tracker.retrievals TO %s', role);
    EXECUTE format('GRANT INSERT (run_id, artifact_id, user_id, session_id, task_id, retrieval_id, kind, type, name, ordinal, source,
            similarity, source_document_id, source_document_name, chunk_type, configuration, content, content_type, url,
            size_bytes, metadata),
        UPDATE (task_id, retrieval_id, kind, type, name, ordinal, source, similarity, source_document_id,
            source_document_name, chunk_type, configuration, content, content_type, url, size_bytes, metadata)
        ON run_tracker.artifacts TO %s', role);
    EXECUTE format('GRANT INSERT (user_id, user_uuid, tier, permissions, quotas) ON run_tracker.accounts TO %s', role);
    EXECUTE format('GRANT INSERT (usage_id, user_id, source, run_id, task_id, session_id, reservation_id, endpoint, provider,
            model, requests, input_tokens, output_tokens, total_tokens, cost, metadata)
        ON run_tracker.usage_records TO %s', role);
    EXECUTE format('GRANT INSERT (session_id, user_id, metadata), UPDATE (metadata, closed_at)
        ON run_tracker.sessions TO %s', role);
    EXECUTE format('GRANT INSERT (session_id, version, user_id, delta) ON run_tracker.session_deltas TO %s', role);
END
$$;
COMMENT ON FUNCTION run_tracker.grant_client(regrole) IS
'Lets a role read, create and change the runs of its current_user_id(), and what belongs to them; not what is computed. For the owner of the extension.';

CREATE FUNCTION run_tracker.grant_service(role regrole) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    tab regclass;
    roles text;
BEGIN
    PERFORM run_tracker.lock_tables();
    PERFORM run_tracker.grant_client(role);
    PERFORM run_tracker.grant_functions(role, run_tracker.functions_for('service'));
    EXECUTE format('GRANT SELECT ON run_tracker.worker_status TO %s', role);
    EXECUTE format('GRANT INSERT (created_at) ON run_tracker.session_deltas TO %s', role);
    FOR tab IN
        SELECT c.oid FROM pg_class c
        WHERE c.relnamespace = 'run_tracker'::regnamespace AND c.relkind IN ('r', 'p')
          -- keys are for the owner only
          AND c.relname = ANY (run_tracker.own_tables()) AND c.relname <> 'callback_keys'
    LOOP
        -- bookkeeping is for triggers to write
        IF tab = ANY ('{run_tracker.response_chunks,run_tracker.transitions,run_tracker.run_totals,run_tracker.open_runs,
                        run_tracker.stat_deltas,run_tracker.stat_totals,run_tracker.reservations,
                        run_tracker.session_deltas,run_tracker.session_snapshots,run_tracker.finish_handlers}'::regclass[]) THEN
            EXECUTE format('GRANT SELECT ON %s TO %s', tab, role);
        ELSE
            EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %s TO %s', tab, role);
        END IF;
        IF run_tracker.has_policy(tab, 'service_rows') THEN
            SELECT string_agg(DISTINCT r::regrole::text, ', ') INTO roles
            FROM pg_policy p, unnest(p.polroles || role::oid) r
            WHERE p.polrelid = tab AND p.polname = 'service_rows';
            EXECUTE format('ALTER POLICY service_rows ON %s TO %s', tab, roles);
        ELSE
            EXECUTE format('CREATE POLICY service_rows ON %s TO %s USING (true)', tab, role);
            EXECUTE format('COMMENT ON POLICY service_rows ON %s IS %L', tab, 'Services see and write the rows of all users.');
        END IF;
    END LOOP;
END
$$;
COMMENT ON FUNCTION run_tracker.grant_service(regrole) IS
'Lets a role act for every user, define lifecycles, and insert runs and tasks that are finished already. For the owner of the extension.';

CREATE FUNCTION run_tracker.grant_callback(role regrole) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM run_tracker.grant_functions(role, '{callback,callback_signed,callback_secret}');
END
$$;
COMMENT ON FUNCTION run_tracker.grant_callback(regrole) IS
'Lets a role call callback(), callback_signed() and callback_secret(), and nothing else: for requests of automation servers, which nobody else has authenticated. For the owner of the extension.';
