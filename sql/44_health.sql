-- Is everything all right, and how much is going on: for people, probes and Prometheus.

CREATE FUNCTION run_tracker.health() RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET row_security = on
AS $$
DECLARE
    tables CONSTANT text[] := '{runs,tasks,response_chunks,messages,logs,retrievals,artifacts,transitions,run_totals,
        open_runs,stat_deltas,stat_totals,lifecycles,installation}';
    triggers CONSTANT text[] := '{zz_run_tracker_before,run_tracker_insert,run_tracker_update,run_tracker_delete,
        run_tracker_truncate}';
    -- how much is looked at: it has to cost the same on a ledger of any size
    max_open CONSTANT integer := 10000;
    max_own CONSTANT integer := 1000;
    max_heads CONSTANT integer := 100;
    max_stuck CONSTANT integer := 100;
    max_overdue CONSTANT integer := 10000;
    max_deltas CONSTANT integer := 20000;
    stuck_after CONSTANT interval := '5 minutes';
    sample_runs CONSTANT integer := 20;
    sample_rows CONSTANT integer := 200;
    -- from when on it is a problem
    overdue_ms CONSTANT bigint := 60 * 1000;
    overdue_without_worker_ms CONSTANT bigint := 5 * 60 * 1000;
    many_deltas CONSTANT integer := 10000;
    old_seconds CONSTANT integer := 60 * 60;
    old_transactions CONSTANT integer := 10 * 1000 * 1000;

    moment CONSTANT timestamptz := clock_timestamp();
    -- the library makes this setting when it is preloaded; loading it takes away what somebody else made
    version CONSTANT text := run_tracker.tracker_version();
    preloaded CONSTANT boolean := current_setting('run_tracker.max_databases', true) IS NOT NULL;
    standby CONSTANT boolean := pg_is_in_recovery();
    missing text[];
    readable text[];
    service boolean := (SELECT r.rolsuper FROM pg_roles r WHERE r.rolname = CURRENT_USER);
    tables_version text;
    defects record;
    worker record;
    worker_json jsonb;
    part record;
    open_json jsonb;
    open_count bigint := 0;
    available_count bigint := 0;
    stuck_count bigint;
    old_runs uuid[] := '{}';
    complete boolean;
    oldest_deadline timestamptz;
    oldest_queued_at timestamptz;
    overdue_count bigint := 0;
    overdue_for bigint;
    overdue_json jsonb;
    backlog_json jsonb;
    notifications_json jsonb;
    totals record;
    totals_json jsonb;
    deltas bigint;
    statistics_json jsonb;
    horizon record;
    horizon_json jsonb;
    problems jsonb := '[]';
BEGIN
    SELECT COALESCE(array_agg(t.name ORDER BY t.n) FILTER (WHERE t.relation IS NULL), '{}'),
           COALESCE(array_agg(t.name) FILTER (WHERE has_table_privilege(t.relation, 'SELECT')), '{}')
    INTO missing, readable
    FROM (SELECT n.name, n.n, to_regclass('run_tracker.' || n.name) AS relation
          FROM unnest(tables) WITH ORDINALITY AS n (name, n)) t;

    -- what is installed

    IF missing <> '{}' THEN
        problems := problems || jsonb_build_object('severity', 'error', 'code', 'tables_missing',
            'message', format('tables are missing in schema "run_tracker": %s', array_to_string(missing, ', ')),
            'hint', 'Call run_tracker.install().');
    ELSE
        service := run_tracker.is_service();
        IF 'installation' = ANY (readable) THEN
            SELECT i.version INTO tables_version FROM run_tracker.installation i;
            IF tables_version IS DISTINCT FROM version THEN
                problems := problems || jsonb_build_object('severity', 'error', 'code', 'tables_outdated',
                    'message', format('the tables have version %s, the library has version %s',
                                      COALESCE(tables_version, 'unknown'), version),
                    'hint', 'Call run_tracker.install().');
            END IF;
        END IF;
    END IF;

    SELECT count(*) AS expected, count(*) FILTER (WHERE t.tgenabled IN ('O', 'A')) AS enabled,
           string_agg(format('%s of %s', e.name, e.relname), ', ' ORDER BY e.relname, e.name)
               FILTER (WHERE t.oid IS NULL) AS missing,
           string_agg(format('%s of %s', e.name, e.relname), ', ' ORDER BY e.relname, e.name)
               FILTER (WHERE t.tgenabled NOT IN ('O', 'A')) AS disabled
    INTO defects
    FROM (SELECT c.oid, c.relname, n.name
          FROM pg_class c, unnest(triggers) AS n (name)
          WHERE c.relnamespace = 'run_tracker'::regnamespace
            AND c.relname IN ('runs', 'tasks', 'messages', 'logs', 'retrievals', 'artifacts')) e
         LEFT JOIN pg_trigger t ON t.tgrelid = e.oid AND t.tgname = e.name;
    IF defects.missing IS NOT NULL THEN
        problems := problems || jsonb_build_object('severity', 'error', 'code', 'triggers_missing',
            'message', format('triggers are missing: %s', defects.missing),
            'hint', 'Call run_tracker.install(), which puts totals right, too.');
    END IF;
    IF defects.disabled IS NOT NULL THEN
        problems := problems || jsonb_build_object('severity', 'error', 'code', 'triggers_disabled',
            'message', format('triggers are disabled: %s', defects.disabled),
            'hint', 'Enable them with ALTER TABLE, then call run_tracker.rebuild_totals().');
    END IF;

    -- the background worker

    worker_json := jsonb_build_object('available', preloaded);
    IF preloaded AND NOT standby AND has_function_privilege('run_tracker.worker_state()', 'EXECUTE') THEN
        SELECT s.* INTO worker FROM run_tracker.worker_state() s WHERE s.database = current_database();
        worker_json := worker_json || jsonb_build_object(
            'state', worker.state, 'pid', worker.pid, 'launcher_pid', worker.launcher_pid,
            'last_pass_at', worker.last_pass_at, 'next_deadline_at', worker.next_deadline_at,
            'passes', worker.passes, 'timed_out', worker.timed_out, 'errors', worker.errors,
            'failures', worker.failures, 'last_error', worker.last_error, 'last_error_at', worker.last_error_at);
        notifications_json := jsonb_build_object('pending', worker.pending_notifications,
            'capacity', current_setting('run_tracker.notify_queue_size', true)::integer,
            'sent', worker.notifications, 'resyncs', worker.resyncs);
        IF worker.state IS NULL THEN
            problems := problems || jsonb_build_object('severity', 'error', 'code', 'worker_not_serving',
                'message', 'the background worker does not serve this database',
                'hint', 'Right after a start of the server it may not know of it yet. Else increase '
                        'run_tracker.max_databases and restart the server.');
        ELSIF worker.launcher_pid IS NULL THEN
            problems := problems || jsonb_build_object('severity', 'error', 'code', 'worker_not_running',
                'message', 'the background worker is not running',
                'hint', 'See the log of the server, and increase max_worker_processes if it says so.');
        ELSIF worker.failures > 0 THEN
            problems := problems || jsonb_build_object('severity', 'error', 'code', 'worker_failing',
                'message', format('the background worker has failed %s times in a row: %s', worker.failures,
                                  worker.last_error),
                'hint', 'Whatever the message says is wrong; the worker tries again by itself.');
        ELSIF worker.state = 'disabled' THEN
            problems := problems || jsonb_build_object('severity', 'warning', 'code', 'worker_disabled',
                'message', 'the background worker is switched off for this database',
                'hint', 'Set run_tracker.enabled to on.');
        END IF;
        IF worker.pending_notifications >= current_setting('run_tracker.notify_queue_size', true)::integer * 0.9 THEN
            problems := problems || jsonb_build_object('severity', 'warning', 'code', 'notifications_pending',
                'message', format('%s changes of runs wait to be announced', worker.pending_notifications),
                'hint', 'If there is no more room, listeners are told to read everything again: increase '
                        'run_tracker.notify_queue_size.');
        END IF;
    END IF;

    -- runs that are open: of a service's, the first that the table has; of a user's, those among his newest runs

    IF missing = '{}' AND readable @> '{runs,open_runs,transitions}' THEN
        open_json := '{"queued": 0, "active": 0, "waiting": 0}';
        FOR part IN
            SELECT o.phase, count(*) AS runs,
                   count(*) FILTER (WHERE o.available_at <= moment) AS available, min(o.available_at) AS oldest_at,
                   count(*) FILTER (WHERE o.deadline_at <= moment) AS overdue, min(o.deadline_at) AS deadline_at,
                   array_agg(o.run_id) FILTER (WHERE o.available_at < moment - stuck_after) AS old_runs
            FROM ((SELECT o.run_id, o.phase, o.available_at, o.deadline_at
                   FROM run_tracker.open_runs o WHERE service LIMIT max_open)
                  UNION ALL
                  SELECT o.run_id, o.phase, o.available_at, o.deadline_at
                  FROM (SELECT r.run_id, r.phase FROM run_tracker.runs r WHERE NOT service
                        ORDER BY r.created_at DESC, r.run_id DESC LIMIT max_own) r
                       JOIN run_tracker.open_runs o ON o.run_id = r.run_id
                  WHERE r.phase IN ('queued', 'active', 'waiting')) o
            GROUP BY o.phase
        LOOP
            open_json := open_json || jsonb_build_object(part.phase, part.runs);
            open_count := open_count + part.runs;
            overdue_count := overdue_count + part.overdue;
            oldest_deadline := LEAST(oldest_deadline, part.deadline_at);
            IF part.phase = 'queued' THEN
                available_count := part.available;
                oldest_queued_at := part.oldest_at;
            END IF;
            IF part.phase <> 'waiting' THEN
                old_runs := old_runs || part.old_runs[1:max_stuck];
            END IF;
        END LOOP;
        -- those that stuck_runs() shows
        SELECT count(*) INTO stuck_count
        FROM unnest(old_runs) AS s (run_id)
             LEFT JOIN LATERAL (SELECT h.occurred_at FROM run_tracker.transitions h
                                WHERE h.run_id = s.run_id AND h.task_id IS NULL
                                ORDER BY h.seq DESC LIMIT 1) h ON true
        WHERE h.occurred_at IS NULL OR h.occurred_at < moment - stuck_after;
        IF service THEN
            SELECT o.deadline_at INTO oldest_deadline FROM run_tracker.open_runs o
            WHERE o.deadline_at IS NOT NULL ORDER BY o.deadline_at LIMIT 1;
            SELECT count(*) INTO overdue_count
            FROM (SELECT FROM run_tracker.open_runs o WHERE o.deadline_at <= moment LIMIT max_overdue) o;
            -- the first of each lifecycle and priority: from one to the next by the index
            WITH RECURSIVE heads AS (
                (SELECT o.lifecycle, o.priority, o.available_at FROM run_tracker.open_runs o
                 WHERE o.phase = 'queued' ORDER BY o.lifecycle, o.priority DESC, o.available_at LIMIT 1)
                UNION ALL
                SELECT n.lifecycle, n.priority, n.available_at
                FROM heads h CROSS JOIN LATERAL (
                    (SELECT o.lifecycle, o.priority, o.available_at FROM run_tracker.open_runs o
                     WHERE o.phase = 'queued' AND o.lifecycle = h.lifecycle AND o.priority < h.priority
                     ORDER BY o.priority DESC, o.available_at LIMIT 1)
                    UNION ALL
                    (SELECT o.lifecycle, o.priority, o.available_at FROM run_tracker.open_runs o
                     WHERE o.phase = 'queued' AND o.lifecycle > h.lifecycle
                     ORDER BY o.lifecycle, o.priority DESC, o.available_at LIMIT 1)
                    LIMIT 1) n
            )
            SELECT min(h.available_at) INTO oldest_queued_at FROM (SELECT heads.available_at FROM heads LIMIT max_heads) h;
            complete := open_count < max_open;
        ELSE
            SELECT count(*) < max_own INTO complete FROM (SELECT FROM run_tracker.runs LIMIT max_own) r;
        END IF;
        open_json := open_json || jsonb_build_object('stuck', stuck_count, 'complete', complete);
        backlog_json := jsonb_build_object('available', available_count, 'oldest_queued_at', oldest_queued_at,
            'oldest_ms', GREATEST(0, floor(1000 * extract(epoch FROM moment - oldest_queued_at)))::bigint);
        overdue_for := GREATEST(0, floor(1000 * extract(epoch FROM moment - oldest_deadline)))::bigint;
        overdue_json := jsonb_build_object('count', overdue_count, 'oldest_ms', COALESCE(overdue_for, 0));
        IF overdue_for > (CASE WHEN preloaded THEN overdue_ms ELSE overdue_without_worker_ms END) THEN
            problems := problems || jsonb_build_object('severity', 'error', 'code', 'deadline_overdue',
                'message', format('a deadline has been overdue for %s seconds', overdue_for / 1000),
                'hint', CASE WHEN preloaded THEN 'See what the background worker does in run_tracker.worker_status.'
                             ELSE 'Preload run_tracker, or call run_tracker.expire_runs() from time to time.' END);
        ELSIF overdue_for > 0 AND NOT preloaded THEN
            problems := problems || jsonb_build_object('severity', 'warning', 'code', 'no_worker',
                'message', 'deadlines are overdue, and the library is not preloaded',
                'hint', 'Add run_tracker to shared_preload_libraries and restart the server, or see '
                        'run_tracker.schedule_maintenance().');
        END IF;
    END IF;

    -- totals of the newest runs, as check_totals() compares them; what belongs to a run may be much, then it is left out

    IF missing = '{}' AND readable @> '{runs,tasks,messages,logs,retrievals,artifacts,run_totals}' THEN
        SELECT count(*) AS checked,
               count(*) FILTER (WHERE (t.c1, t.c2, t.c3, t.c4, t.c5, t.c6, t.c7) IS DISTINCT FROM
                                      (s.c1, s.c2, s.c3, s.c4, s.c5, s.c6, s.c7)
                                   OR m.n <> s.messages OR l.errors <> s.errors OR e.n <> s.retrievals
                                   OR a.n <> s.artifacts) AS wrong
        INTO totals
        FROM (SELECT r.run_id FROM run_tracker.runs r ORDER BY r.created_at DESC, r.run_id DESC LIMIT sample_runs) r
             CROSS JOIN LATERAL (
                 SELECT COALESCE(sum(n.task_count), 0) AS c1, COALESCE(sum(n.failed_task_count), 0) AS c2,
                        COALESCE(sum(n.open_task_count), 0) AS c3, COALESCE(sum(n.input_tokens), 0) AS c4,
                        COALESCE(sum(n.output_tokens), 0) AS c5, COALESCE(sum(n.total_tokens), 0) AS c6,
                        COALESCE(sum(n.total_cost), 0) AS c7, COALESCE(sum(n.message_count), 0) AS messages,
                        COALESCE(sum(n.error_count), 0) AS errors, COALESCE(sum(n.retrieval_count), 0) AS retrievals,
                        COALESCE(sum(n.artifact_count), 0) AS artifacts
                 FROM run_tracker.run_totals n WHERE n.run_id = r.run_id) s
             CROSS JOIN LATERAL (
                 SELECT count(*) AS n,
                        count(*) FILTER (WHERE k.phase = 'succeeded') AS c1,
                        count(*) FILTER (WHERE k.phase IN ('failed', 'timed_out')) AS c2,
                        count(*) FILTER (WHERE k.phase IN ('queued', 'active', 'waiting')) AS c3,
                        COALESCE(sum(k.input_tokens) FILTER (WHERE k.finished_at IS NOT NULL), 0) AS c4,
                        COALESCE(sum(k.output_tokens) FILTER (WHERE k.finished_at IS NOT NULL), 0) AS c5,
                        COALESCE(sum(k.total_tokens) FILTER (WHERE k.finished_at IS NOT NULL), 0) AS c6,
                        COALESCE(sum(k.cost) FILTER (WHERE k.finished_at IS NOT NULL), 0) AS c7
                 FROM (SELECT k.phase, k.input_tokens, k.output_tokens, k.total_tokens, k.cost, k.finished_at
                       FROM run_tracker.tasks k WHERE k.run_id = r.run_id LIMIT sample_rows) k) t
             CROSS JOIN LATERAL (
                 SELECT count(*) AS n
                 FROM (SELECT FROM run_tracker.messages k WHERE k.run_id = r.run_id LIMIT sample_rows) k) m
             CROSS JOIN LATERAL (
                 SELECT count(*) AS n, count(*) FILTER (WHERE k.level IN ('ERROR', 'CRITICAL')) AS errors
                 FROM (SELECT k.level FROM run_tracker.logs k WHERE k.run_id = r.run_id LIMIT sample_rows) k) l
             CROSS JOIN LATERAL (
                 SELECT count(*) AS n
                 FROM (SELECT FROM run_tracker.retrievals k WHERE k.run_id = r.run_id LIMIT sample_rows) k) e
             CROSS JOIN LATERAL (
                 SELECT count(*) AS n
                 FROM (SELECT FROM run_tracker.artifacts k WHERE k.run_id = r.run_id LIMIT sample_rows) k) a
        WHERE GREATEST(t.n, m.n, l.n, e.n, a.n) < sample_rows;
        totals_json := jsonb_build_object('checked', totals.checked, 'wrong', totals.wrong);
        IF totals.wrong > 0 THEN
            problems := problems || jsonb_build_object('severity', 'error', 'code', 'totals_wrong',
                'message', format('the totals of %s of the newest %s runs are wrong', totals.wrong, totals.checked),
                'hint', 'See run_tracker.check_totals(), and call run_tracker.rebuild_totals().');
        END IF;
    END IF;

    -- statistics that are not folded: exact all the same, but whoever reads them adds up all of that

    IF service AND missing = '{}' AND 'stat_deltas' = ANY (readable) THEN
        SELECT count(*) INTO deltas FROM (SELECT FROM run_tracker.stat_deltas LIMIT max_deltas + 1) d;
        statistics_json := jsonb_build_object('pending_deltas', LEAST(deltas, max_deltas), 'complete', deltas <= max_deltas);
        IF deltas > many_deltas THEN
            problems := problems || jsonb_build_object('severity', 'warning', 'code', 'statistics_not_folded',
                'message', format('statistics are not folded: %s rows wait in stat_deltas',
                                  CASE WHEN deltas > max_deltas THEN format('more than %s', max_deltas)
                                       ELSE deltas::text END),
                'hint', CASE WHEN preloaded
                        THEN 'They are exact, but slower to read. See what the background worker does in run_tracker.worker_status.'
                        ELSE 'They are exact, but slower to read. Preload run_tracker, or call run_tracker.fold_statistics() from time to time.'
                        END);
        END IF;
    END IF;

    -- who keeps VACUUM from removing dead rows in this database, the open set's among them

    IF service OR pg_has_role('pg_read_all_stats', 'USAGE') THEN
        BEGIN
            SELECT h.* INTO horizon
            FROM (SELECT CASE WHEN a.backend_type = 'walsender' THEN 'standby' ELSE 'transaction' END AS what,
                         GREATEST(age(a.backend_xid), age(a.backend_xmin)) AS transactions,
                         extract(epoch FROM moment - a.xact_start) AS seconds,
                         a.pid, NULL AS name, a.application_name AS application, a.state
                  FROM pg_stat_activity a
                  WHERE (a.datname = current_database() OR a.datid IS NULL OR a.datid = 0)
                    AND (a.backend_xid IS NOT NULL OR a.backend_xmin IS NOT NULL)
                    AND a.pid <> pg_backend_pid()
                    -- VACUUM does not hold back itself
                    AND a.backend_type IS DISTINCT FROM 'autovacuum worker'
                    AND NOT EXISTS (SELECT FROM pg_stat_progress_vacuum v WHERE v.pid = a.pid)
                  UNION ALL
                  SELECT 'prepared transaction', age(p.transaction), extract(epoch FROM moment - p.prepared),
                         NULL, p.gid, NULL, NULL
                  FROM pg_prepared_xacts p
                  WHERE p.database = current_database()
                  UNION ALL
                  SELECT 'replication slot', age(s.xmin), NULL, s.active_pid, s.slot_name, NULL,
                         CASE WHEN s.active THEN 'active' ELSE 'inactive' END
                  FROM pg_replication_slots s
                  WHERE s.xmin IS NOT NULL) h
            ORDER BY h.transactions DESC, h.seconds DESC NULLS LAST LIMIT 1;
            IF FOUND THEN
                horizon_json := jsonb_strip_nulls(jsonb_build_object('holder', horizon.what,
                    'transactions', horizon.transactions, 'seconds', round(horizon.seconds),
                    'pid', horizon.pid, 'name', horizon.name, 'application', horizon.application,
                    'state', horizon.state));
                IF horizon.seconds > old_seconds OR horizon.transactions > old_transactions THEN
                    problems := problems || jsonb_build_object('severity', 'warning', 'code', 'horizon_old',
                        'message', format('a %s has been keeping VACUUM from removing dead rows for %s', horizon.what,
                                          COALESCE(round(horizon.seconds) || ' seconds', horizon.transactions || ' transactions')),
                        'hint', 'End it: queues and statistics get slower as long as it lives.');
                END IF;
            END IF;
        EXCEPTION WHEN insufficient_privilege THEN
            NULL;
        END;
    END IF;

    RETURN jsonb_build_object(
        'status', CASE WHEN problems @> '[{"severity": "error"}]' THEN 'unhealthy'
                       WHEN problems <> '[]' THEN 'degraded'
                       ELSE 'healthy' END,
        'problems', problems,
        'database', current_database(),
        'standby', standby,
        'version', version,
        'tables_version', tables_version,
        'timestamp', moment,
        'worker', worker_json,
        'open_runs', open_json,
        'backlog', backlog_json,
        'oldest_deadline', oldest_deadline,
        'overdue', overdue_json,
        'notifications', notifications_json,
        'totals', totals_json,
        'statistics', statistics_json,
        'triggers', jsonb_build_object('expected', defects.expected, 'enabled', defects.enabled),
        'horizon', horizon_json);
END
$$;
