-- Is everything all right, and how much is going on: for people, probes and Prometheus.

CREATE FUNCTION run_tracker.describe_open_runs(max_runs integer, OUT queued bigint, OUT active bigint, OUT waiting bigint,
    OUT available bigint, OUT oldest_queued_at timestamptz, OUT overdue bigint, OUT oldest_deadline timestamptz,
    OUT stuck bigint, OUT complete boolean)
RETURNS record
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    -- of a user, who has no index on the open set: so many of his newest runs
    max_own CONSTANT integer := 1000;
    max_heads CONSTANT integer := 100;
    max_stuck CONSTANT integer := 100;
    stuck_after CONSTANT interval := '5 minutes';
    moment CONSTANT timestamptz := clock_timestamp();
    service CONSTANT boolean := run_tracker.is_service();
    own_runs uuid[];
    part record;
BEGIN
    IF NOT service THEN
        own_runs := ARRAY(SELECT r.run_id
                          FROM (SELECT r.run_id, r.phase FROM run_tracker.runs r
                                ORDER BY r.created_at DESC, r.run_id DESC LIMIT max_own) r
                          WHERE r.phase IN ('queued', 'active', 'waiting'));
    END IF;
    queued := 0; active := 0; waiting := 0; available := 0; overdue := 0;
    FOR part IN
        SELECT o.phase, count(*) AS runs,
               count(*) FILTER (WHERE o.available_at <= moment) AS available, min(o.available_at) AS oldest_at,
               count(*) FILTER (WHERE o.deadline_at <= moment) AS overdue, min(o.deadline_at) AS deadline_at
        FROM ((SELECT o.phase, o.available_at, o.deadline_at
               FROM run_tracker.open_runs o WHERE service LIMIT max_runs)
              UNION ALL
              SELECT o.phase, o.available_at, o.deadline_at
              FROM run_tracker.open_runs o WHERE NOT service AND o.run_id = ANY (own_runs)) o
        GROUP BY o.phase
    LOOP
        CASE part.phase
            WHEN 'queued' THEN
                queued := part.runs;
                available := part.available;
                oldest_queued_at := part.oldest_at;
            WHEN 'active' THEN
                active := part.runs;
            ELSE
                waiting := part.runs;
        END CASE;
        overdue := overdue + part.overdue;
        oldest_deadline := LEAST(oldest_deadline, part.deadline_at);
    END LOOP;

    -- of these, those that stuck_runs() shows
    SELECT count(*) INTO stuck
    FROM (SELECT o.run_id
          FROM ((SELECT o.run_id, o.phase, o.available_at
                 FROM run_tracker.open_runs o WHERE service LIMIT max_runs)
                UNION ALL
                SELECT o.run_id, o.phase, o.available_at
                FROM run_tracker.open_runs o WHERE NOT service AND o.run_id = ANY (own_runs)) o
          WHERE o.available_at < moment - stuck_after AND o.phase <> 'waiting'
          LIMIT max_stuck) s
         LEFT JOIN LATERAL (SELECT h.occurred_at FROM run_tracker.transitions h
                            WHERE h.run_id = s.run_id AND h.task_id IS NULL
                            ORDER BY h.seq DESC LIMIT 1) h ON true
    WHERE h.occurred_at IS NULL OR h.occurred_at < moment - stuck_after;

    -- some never come
    oldest_deadline := NULLIF(oldest_deadline, 'infinity');
    oldest_queued_at := NULLIF(oldest_queued_at, 'infinity');
    IF NOT service THEN
        SELECT count(*) < max_own INTO complete FROM (SELECT FROM run_tracker.runs LIMIT max_own) r;
        RETURN;
    END IF;
    complete := queued + active + waiting < max_runs;
    -- the rest is not among the first rows perhaps, but in indexes
    SELECT o.deadline_at INTO oldest_deadline FROM run_tracker.open_runs o
    WHERE o.deadline_at < 'infinity' ORDER BY o.deadline_at LIMIT 1;
    SELECT count(*) INTO overdue
    FROM (SELECT FROM run_tracker.open_runs o WHERE o.deadline_at <= moment LIMIT max_runs) o;
    -- the first of each lifecycle and priority, from one to the next
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
    SELECT min(h.available_at) INTO oldest_queued_at
    FROM (SELECT heads.available_at FROM heads LIMIT max_heads) h WHERE h.available_at < 'infinity';
END
$$;
COMMENT ON FUNCTION run_tracker.describe_open_runs(integer) IS
'What health() and metrics say about open runs, at a bounded cost: of services, counts of the first max_runs rows of open_runs (complete is false if there may be more), of others counts among their 1000 newest runs; stuck counts those that stuck_runs() shows, 100 at most.';

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
    max_deltas CONSTANT integer := 100000;
    sample_runs CONSTANT integer := 20;
    sample_rows CONSTANT integer := 200;
    -- from when on it is a problem
    late_ms CONSTANT bigint := 60 * 1000;
    late_without_worker_ms CONSTANT bigint := 5 * 60 * 1000;
    error_age CONSTANT interval := '5 minutes';
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
    open_set record;
    open_json jsonb;
    oldest_deadline timestamptz;
    overdue_ms bigint;
    overdue_json jsonb;
    backlog_json jsonb;
    notifications_json jsonb;
    totals record;
    totals_json jsonb;
    folded bigint;
    -- somebody may fold once a minute; a worker folds after run_tracker.fold_interval, and may be given very much
    many_deltas integer := CASE WHEN standby THEN max_deltas WHEN preloaded THEN 1000 ELSE 10000 END;
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
    IF problems <> '[]' THEN
        -- they may not be what is expected below
        readable := '{}';
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
            AND c.relname IN ('runs', 'tasks', 'messages', 'logs', 'retrievals', 'artifacts')
          UNION ALL
          SELECT c.oid, c.relname, 'run_tracker_before_truncate' FROM pg_class c
          WHERE c.relnamespace = 'run_tracker'::regnamespace AND c.relname = 'runs') e
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
        folded := worker.folded;
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
                'hint', 'Set run_tracker.enabled to on for it, and call run_tracker.wake_worker().');
        ELSIF worker.last_error_at > moment - error_age THEN
            problems := problems || jsonb_build_object('severity', 'warning', 'code', 'worker_errors',
                'message', format('the background worker has had an error: %s', worker.last_error),
                'hint', 'It does what it can, and tries the rest again.');
        ELSE
            many_deltas := max_deltas;
        END IF;
        IF worker.pending_notifications >= current_setting('run_tracker.notify_queue_size', true)::integer * 0.9 THEN
            problems := problems || jsonb_build_object('severity', 'warning', 'code', 'notifications_pending',
                'message', format('%s changes of runs wait to be announced', worker.pending_notifications),
                'hint', 'If there is no more room, listeners are told to read everything again: increase '
                        'run_tracker.notify_queue_size.');
        END IF;
    END IF;

    -- runs that are open

    IF readable @> '{runs,open_runs,transitions}' THEN
        SELECT o.* INTO open_set FROM run_tracker.describe_open_runs(max_open) o;
        oldest_deadline := open_set.oldest_deadline;
        overdue_ms := GREATEST(0, floor(1000 * extract(epoch FROM moment - oldest_deadline)))::bigint;
        open_json := jsonb_build_object('queued', open_set.queued, 'active', open_set.active,
            'waiting', open_set.waiting, 'stuck', open_set.stuck, 'complete', open_set.complete);
        backlog_json := jsonb_build_object('available', open_set.available,
            'oldest_queued_at', open_set.oldest_queued_at,
            'oldest_ms', GREATEST(0, floor(1000 * extract(epoch FROM moment - open_set.oldest_queued_at)))::bigint);
        overdue_json := jsonb_build_object('count', open_set.overdue, 'oldest_ms', COALESCE(overdue_ms, 0));
        IF overdue_ms > (CASE WHEN preloaded THEN late_ms ELSE late_without_worker_ms END) THEN
            problems := problems || jsonb_build_object('severity', 'error', 'code', 'deadline_overdue',
                'message', format('a deadline has been overdue for %s seconds', overdue_ms / 1000),
                'hint', CASE WHEN preloaded THEN 'See what the background worker does in run_tracker.worker_status.'
                             ELSE 'Preload run_tracker, or call run_tracker.expire_runs() from time to time.' END);
        ELSIF overdue_ms > 0 AND NOT preloaded THEN
            problems := problems || jsonb_build_object('severity', 'warning', 'code', 'no_worker',
                'message', 'deadlines are overdue, and run_tracker is not preloaded',
                'hint', 'Add run_tracker to shared_preload_libraries and restart the server, or see '
                        'run_tracker.schedule_maintenance().');
        END IF;
    END IF;

    -- Totals of the newest runs, as check_totals() compares them; what belongs to a run may be much, then it is left out.
    -- (In the order of the key: a limit alone makes reading a whole table look cheap where few runs have most of it.)

    IF readable @> '{runs,tasks,messages,logs,retrievals,artifacts,run_totals}' THEN
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
                       FROM run_tracker.tasks k WHERE k.run_id = r.run_id
                       ORDER BY k.run_id, k.task_id LIMIT sample_rows) k) t
             CROSS JOIN LATERAL (
                 SELECT count(*) AS n
                 FROM (SELECT FROM run_tracker.messages k WHERE k.run_id = r.run_id
                       ORDER BY k.run_id, k.seq LIMIT sample_rows) k) m
             CROSS JOIN LATERAL (
                 SELECT count(*) AS n, count(*) FILTER (WHERE k.level IN ('ERROR', 'CRITICAL')) AS errors
                 FROM (SELECT k.level FROM run_tracker.logs k WHERE k.run_id = r.run_id
                       ORDER BY k.run_id, k.seq LIMIT sample_rows) k) l
             CROSS JOIN LATERAL (
                 SELECT count(*) AS n
                 FROM (SELECT FROM run_tracker.retrievals k WHERE k.run_id = r.run_id
                       ORDER BY k.run_id, k.retrieval_id LIMIT sample_rows) k) e
             CROSS JOIN LATERAL (
                 SELECT count(*) AS n
                 FROM (SELECT FROM run_tracker.artifacts k WHERE k.run_id = r.run_id
                       ORDER BY k.run_id, k.artifact_id LIMIT sample_rows) k) a
        WHERE GREATEST(t.n, m.n, l.n, e.n, a.n) < sample_rows;
        totals_json := jsonb_build_object('checked', totals.checked, 'wrong', totals.wrong);
        IF totals.wrong > 0 THEN
            problems := problems || jsonb_build_object('severity', 'error', 'code', 'totals_wrong',
                'message', format('the totals of %s of the newest %s runs are wrong', totals.wrong, totals.checked),
                'hint', 'See run_tracker.check_totals(), and call run_tracker.rebuild_totals().');
        END IF;
    END IF;

    -- statistics that are not folded: exact all the same, but whoever reads them adds up all of that

    IF service AND 'stat_deltas' = ANY (readable) THEN
        SELECT count(*) INTO deltas FROM (SELECT FROM run_tracker.stat_deltas LIMIT max_deltas + 1) d;
        statistics_json := jsonb_build_object('pending_deltas', LEAST(deltas, max_deltas), 'complete', deltas <= max_deltas,
            'folded', folded);
        IF deltas > many_deltas THEN
            problems := problems || jsonb_build_object('severity', 'warning', 'code', 'statistics_not_folded',
                'message', format('statistics are not folded: %s%s rows wait in stat_deltas',
                                  CASE WHEN deltas > max_deltas THEN 'more than ' END, LEAST(deltas, max_deltas)),
                'hint', CASE WHEN preloaded
                        THEN 'They are exact, but slower to read. See what the background worker does in '
                             'run_tracker.worker_status.'
                        ELSE 'They are exact, but slower to read. Preload run_tracker, or call '
                             'run_tracker.fold_statistics() from time to time.' END);
        END IF;
    END IF;

    -- who keeps VACUUM from removing dead rows in this database, the open set's among them

    IF service OR pg_has_role('pg_read_all_stats', 'USAGE') THEN
        BEGIN
            SELECT h.* INTO horizon
            FROM (SELECT CASE WHEN COALESCE(a.datid, 0) = 0 THEN 'standby' ELSE 'transaction' END AS what,
                         GREATEST(age(a.backend_xid), age(a.backend_xmin)) AS transactions,
                         extract(epoch FROM moment - a.xact_start) AS seconds,
                         a.pid, NULL AS name, a.application_name AS application, a.state
                  FROM pg_stat_activity a
                  WHERE (a.datname = current_database() OR COALESCE(a.datid, 0) = 0)
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
                                          COALESCE(round(horizon.seconds) || ' seconds',
                                                   horizon.transactions || ' transactions')),
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
COMMENT ON FUNCTION run_tracker.health() IS
'Is everything all right? status is healthy; degraded, if problems has warnings only; or unhealthy, if it has errors: tables or triggers missing, totals wrong, the background worker failing or not running, a deadline overdue by more than a minute (5 minutes where run_tracker is not preloaded). Warnings: deadlines are overdue and there is no worker, it is switched off or has had an error in the last 5 minutes, statistics are not folded, announcements pile up, a transaction has been holding back VACUUM for an hour. Each problem has severity, code, message and hint. The rest is what that is judged by: open_runs, backlog (queued runs that could be claimed, the oldest of them), overdue, totals of the 20 newest runs compared with their rows, and so on. Counts stop at 10000 open runs and 100000 deltas (complete is false then), so that it takes milliseconds on a ledger of any size. Of users, their own runs; what only services may see is null, and so are the seconds of others'' transactions unless the caller may read pg_stat_activity (pg_read_all_stats). Also on a standby.';

CREATE FUNCTION run_tracker.histogram_metrics(histogram bigint[], sum_ms numeric)
RETURNS TABLE (n bigint, suffix text, labels jsonb, value numeric)
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT b.n, '_bucket', jsonb_build_object('le', b.le), COALESCE(run_tracker.histogram_count($1, b.up_to_ms), 0)::numeric
    FROM unnest('{0.1,0.5,1.0,2.0,5.0,10.0,+Inf}'::text[], ARRAY[100, 500, 1000, 2000, 5000, 10000, NULL]::bigint[])
         WITH ORDINALITY AS b (le, up_to_ms, n)
    UNION ALL
    SELECT 8, '_sum', '{}', COALESCE($2, 0) / 1000
    UNION ALL
    SELECT 9, '_count', '{}', COALESCE(run_tracker.histogram_count($1), 0)
$$;
COMMENT ON FUNCTION run_tracker.histogram_metrics(bigint[], numeric) IS
'A histogram of milliseconds as Prometheus has them, in seconds: what is appended to its name, the label, the value.';

-- in PL/pgSQL, to look for the tables first
CREATE FUNCTION run_tracker.read_metrics()
RETURNS TABLE (name text, labels jsonb, value numeric)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    max_open CONSTANT integer := 100000;
    max_deltas CONSTANT integer := 100000;
    -- kinds and models are words of clients: no more series than that, however many there are
    max_labels CONSTANT integer := 100;
    moment CONSTANT timestamptz := clock_timestamp();
    version CONSTANT text := run_tracker.tracker_version();
    open_set record;
    worker record;
BEGIN
    PERFORM run_tracker.require_tables();
    RETURN QUERY VALUES
        ('run_tracker_info', jsonb_build_object('database', current_database(), 'version', version), 1::numeric);

    -- what is open

    SELECT o.* INTO open_set FROM run_tracker.describe_open_runs(max_open) o;
    RETURN QUERY VALUES
        ('run_tracker_open_runs', '{"phase": "queued"}'::jsonb, open_set.queued::numeric),
        ('run_tracker_open_runs', '{"phase": "active"}', open_set.active),
        ('run_tracker_open_runs', '{"phase": "waiting"}', open_set.waiting),
        ('run_tracker_available_runs', '{}', open_set.available),
        ('run_tracker_oldest_available_seconds', '{}',
            COALESCE(GREATEST(0, extract(epoch FROM moment - open_set.oldest_queued_at)), 0)),
        ('run_tracker_overdue_runs', '{}', open_set.overdue),
        ('run_tracker_deadline_overdue_seconds', '{}',
            COALESCE(GREATEST(0, extract(epoch FROM moment - open_set.oldest_deadline)), 0));

    -- runs by kind

    RETURN QUERY
    WITH sums AS MATERIALIZED (
        SELECT r.kind, r.phase, sum(r.created_count) AS created, sum(r.finished_count) AS finished,
               sum(r.duration_ms) AS duration_ms, run_tracker.merge_histograms(r.durations) AS durations
        FROM run_tracker.stat_rows('kind', 'all') r
        GROUP BY r.kind, r.phase
    ), kinds AS (
        -- by order of magnitude: seldom does one overtake another and leave "other"
        SELECT k.kind, CASE WHEN row_number() OVER (ORDER BY floor(ln(GREATEST(k.weight, 1)::float8) / ln(2::float8)) DESC,
                                                    k.kind COLLATE "C") <= max_labels
                            THEN k.kind ELSE 'other' END AS label
        FROM (SELECT s.kind, sum(s.created + s.finished) AS weight FROM sums s GROUP BY s.kind) k
    ), phases AS MATERIALIZED (
        SELECT k.label, s.phase, sum(s.created) AS created, sum(s.finished) AS finished,
               sum(s.duration_ms) AS duration_ms, run_tracker.merge_histograms(s.durations) AS durations
        FROM sums s JOIN kinds k USING (kind)
        GROUP BY k.label, s.phase
    ), by_kind AS MATERIALIZED (
        SELECT p.label, jsonb_build_object('kind', p.label) AS labels, sum(p.created) AS created,
               sum(p.finished) AS finished, COALESCE(sum(p.finished) FILTER (WHERE p.phase = 'retried'), 0) AS retried,
               sum(p.duration_ms) AS duration_ms, run_tracker.merge_histograms(p.durations) AS durations
        FROM phases p GROUP BY p.label
    )
    SELECT v.name, v.labels, v.value
    FROM (SELECT 1 AS part, 'run_tracker_runs_created_total' AS name, NULL AS label, 0 AS n, '{}'::jsonb AS labels,
                 COALESCE(sum(b.created), 0) AS value
          FROM by_kind b
          UNION ALL
          SELECT 2, 'run_tracker_runs', b.label, o.n, b.labels || jsonb_build_object('phase', o.phase),
                 CASE o.phase WHEN 'open' THEN b.created - b.finished + b.retried ELSE COALESCE(p.finished, 0) END
          FROM by_kind b
               CROSS JOIN unnest('{open,succeeded,failed,cancelled,timed_out}'::text[]) WITH ORDINALITY AS o (phase, n)
               LEFT JOIN phases p ON p.label = b.label AND p.phase = o.phase
          UNION ALL
          SELECT 3, 'run_tracker_runs_finished_total', b.label, 0, b.labels, b.finished FROM by_kind b
          UNION ALL
          SELECT 4, 'run_tracker_runs_retried_total', b.label, 0, b.labels, b.retried FROM by_kind b
          UNION ALL
          SELECT 5, 'run_tracker_run_duration_seconds' || h.suffix, b.label, h.n, b.labels || h.labels, h.value
          FROM by_kind b CROSS JOIN LATERAL run_tracker.histogram_metrics(b.durations, b.duration_ms) h) v
    ORDER BY v.part, v.label COLLATE "C", v.n;

    -- tasks by model; retried ones count each time, as they are paid

    RETURN QUERY
    WITH sums AS MATERIALIZED (
        SELECT r.provider, r.model, r.operation, r.phase, sum(r.finished_count) AS finished,
               sum(r.input_tokens) AS input_tokens, sum(r.output_tokens) AS output_tokens, sum(r.cost) AS cost,
               sum(r.duration_ms) AS duration_ms, run_tracker.merge_histograms(r.durations) AS durations,
               sum(r.first_token_ms) AS first_token_ms, run_tracker.merge_histograms(r.first_tokens) AS first_tokens
        FROM run_tracker.stat_rows('model', 'all') r
        GROUP BY r.provider, r.model, r.operation, r.phase
    ), operations AS (
        SELECT o.provider, o.model, o.operation,
               CASE WHEN o.rank <= max_labels
                    THEN jsonb_build_object('provider', o.provider, 'model', o.model, 'operation', o.operation)
                    ELSE '{"provider": "other", "model": "other", "operation": "other"}' END AS labels
        FROM (SELECT s.provider, s.model, s.operation,
                     row_number() OVER (ORDER BY floor(ln(GREATEST(sum(s.finished), 1)::float8) / ln(2::float8)) DESC,
                                        s.provider COLLATE "C", s.model COLLATE "C", s.operation COLLATE "C") AS rank
              FROM sums s GROUP BY s.provider, s.model, s.operation) o
    ), models AS (
        SELECT m.provider, m.model,
               CASE WHEN m.rank <= max_labels THEN jsonb_build_object('provider', m.provider, 'model', m.model)
                    ELSE '{"provider": "other", "model": "other"}' END AS labels
        FROM (SELECT s.provider, s.model,
                     row_number() OVER (ORDER BY floor(ln(GREATEST(sum(s.finished), 1)::float8) / ln(2::float8)) DESC,
                                        s.provider COLLATE "C", s.model COLLATE "C") AS rank
              FROM sums s GROUP BY s.provider, s.model) m
    ), phases AS MATERIALIZED (
        SELECT o.labels, s.phase, sum(s.finished) AS finished
        FROM sums s JOIN operations o USING (provider, model, operation)
        GROUP BY o.labels, s.phase
    ), by_operation AS MATERIALIZED (
        SELECT p.labels, sum(p.finished) AS finished FROM phases p GROUP BY p.labels
    ), by_model AS MATERIALIZED (
        SELECT m.labels, sum(s.input_tokens) AS input_tokens, sum(s.output_tokens) AS output_tokens, sum(s.cost) AS cost,
               sum(s.duration_ms) AS duration_ms, run_tracker.merge_histograms(s.durations) AS durations,
               sum(s.first_token_ms) AS first_token_ms, run_tracker.merge_histograms(s.first_tokens) AS first_tokens
        FROM sums s JOIN models m USING (provider, model)
        GROUP BY m.labels
    )
    SELECT v.name, v.labels, v.value
    FROM (SELECT 1 AS part, 'run_tracker_tasks' AS name, b.labels AS sort, o.n,
                 b.labels || jsonb_build_object('phase', o.phase) AS labels,
                 COALESCE(p.finished, 0) AS value
          FROM by_operation b
               CROSS JOIN unnest('{succeeded,failed,cancelled,timed_out}'::text[]) WITH ORDINALITY AS o (phase, n)
               LEFT JOIN phases p ON p.labels = b.labels AND p.phase = o.phase
          UNION ALL
          SELECT 2, 'run_tracker_tasks_finished_total', b.labels, 0, b.labels, b.finished FROM by_operation b
          UNION ALL
          SELECT 3, 'run_tracker_tokens_total', b.labels, t.n, b.labels || jsonb_build_object('type', t.type), t.value
          FROM by_model b
               CROSS JOIN LATERAL (VALUES (1, 'input', b.input_tokens), (2, 'output', b.output_tokens)) AS t (n, type, value)
          UNION ALL
          SELECT 4, 'run_tracker_cost_total', b.labels, 0, b.labels, b.cost FROM by_model b
          UNION ALL
          SELECT 5, 'run_tracker_task_duration_seconds' || h.suffix, b.labels, h.n, b.labels || h.labels, h.value
          FROM by_model b CROSS JOIN LATERAL run_tracker.histogram_metrics(b.durations, b.duration_ms) h
          UNION ALL
          SELECT 6, 'run_tracker_time_to_first_token_seconds' || h.suffix, b.labels, h.n, b.labels || h.labels, h.value
          FROM by_model b CROSS JOIN LATERAL run_tracker.histogram_metrics(b.first_tokens, b.first_token_ms) h) v
    ORDER BY v.part, v.sort ->> 'provider' COLLATE "C", v.sort ->> 'model' COLLATE "C",
             v.sort ->> 'operation' COLLATE "C", v.n;

    -- what waits to be done by the worker, and what it has done since the server was started

    IF run_tracker.is_service() THEN
        RETURN QUERY
        SELECT 'run_tracker_pending_statistics_deltas', '{}'::jsonb, count(*)::numeric
        FROM (SELECT FROM run_tracker.stat_deltas LIMIT max_deltas) d;
    END IF;
    IF has_function_privilege('run_tracker.worker_state()', 'EXECUTE') THEN
        FOR worker IN SELECT s.* FROM run_tracker.worker_state() s WHERE s.database = current_database() LOOP
            RETURN QUERY
            SELECT 'run_tracker_' || v.name, '{}'::jsonb, v.value
            FROM (VALUES
                ('worker_running', (worker.launcher_pid IS NOT NULL)::integer::numeric),
                ('worker_failures', worker.failures),
                ('worker_passes_total', worker.passes),
                ('worker_runs_timed_out_total', worker.timed_out),
                ('worker_runs_requeued_total', worker.requeued),
                ('worker_deadlines_rearmed_total', worker.rearmed),
                ('worker_deltas_folded_total', worker.folded),
                ('worker_errors_total', worker.errors),
                ('notifications_total', worker.notifications),
                ('notification_resyncs_total', worker.resyncs),
                ('pending_notifications', worker.pending_notifications),
                ('notification_queue_size', current_setting('run_tracker.notify_queue_size', true)::numeric)
            ) AS v (name, value);
        END LOOP;
    END IF;
END
$$;
COMMENT ON FUNCTION run_tracker.read_metrics() IS
'What the view run_tracker.metrics shows. 55000 if tables are missing.';

-- A view of the extension's, as it depends on a function: one of the user's would get lost with DROP EXTENSION.
CREATE VIEW run_tracker.metrics WITH (security_invoker = true) AS
SELECT m.name, m.labels, m.value FROM run_tracker.read_metrics() m;
DO $$ BEGIN PERFORM run_tracker.revoke_all('run_tracker.metrics'); END $$;

COMMENT ON VIEW run_tracker.metrics IS
'Metrics with the names and labels of Prometheus; openmetrics() writes them as text. Of services all runs, of others their own, and nothing about the worker. Counters (names that end in _total, histograms) do not go down when runs are retried, or deleted after they finished, or end another way after all; they do when an open run is deleted, tokens or cost of a finished task are corrected downwards, a finished run is given another kind, or one that had ended within 10 seconds ends another way later (only in its buckets). Of more than 100 kinds (providers and models, operations) those with most runs are shown, by order of magnitude, and the others summed up as "other", which goes down when one of them grows out of it.';
COMMENT ON COLUMN run_tracker.metrics.name IS 'Name of the metric.';
COMMENT ON COLUMN run_tracker.metrics.labels IS 'Labels, an object of strings.';
COMMENT ON COLUMN run_tracker.metrics.value IS 'Value, in the unit that the name tells.';

CREATE FUNCTION run_tracker.openmetrics() RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET extra_float_digits = 1
AS $$
    WITH families (name, type, help) AS (VALUES
        ('run_tracker_info', 'gauge', 'Version of run_tracker.'),
        ('run_tracker_open_runs', 'gauge', 'Runs that are not finished (of the first 100000).'),
        ('run_tracker_available_runs', 'gauge', 'Queued runs that could be claimed now (of the first 100000).'),
        ('run_tracker_oldest_available_seconds', 'gauge', 'How long the oldest of them has been waiting.'),
        ('run_tracker_overdue_runs', 'gauge', 'Open runs whose deadline has passed (100000 at most).'),
        ('run_tracker_deadline_overdue_seconds', 'gauge', 'How long the earliest deadline has been overdue.'),
        ('run_tracker_runs_created_total', 'counter', 'Runs created, without those deleted while they were open.'),
        ('run_tracker_runs', 'gauge', 'Runs as things stand, deleted ones included.'),
        ('run_tracker_runs_finished_total', 'counter', 'Times that runs finished, attempts that were retried included.'),
        ('run_tracker_runs_retried_total', 'counter', 'Times that finished runs were retried.'),
        ('run_tracker_run_duration_seconds', 'histogram', 'Durations of finished runs, attempts that were retried included.'),
        ('run_tracker_tasks', 'gauge', 'Finished tasks as things stand, deleted ones included.'),
        ('run_tracker_tasks_finished_total', 'counter', 'Times that tasks finished, attempts that were retried included.'),
        ('run_tracker_tokens_total', 'counter', 'Tokens of finished tasks, attempts that were retried included.'),
        ('run_tracker_cost_total', 'counter', 'Cost of finished tasks, attempts that were retried included.'),
        ('run_tracker_task_duration_seconds', 'histogram', 'Durations of finished tasks, attempts that were retried included.'),
        ('run_tracker_time_to_first_token_seconds', 'histogram', 'Times to the first token of finished tasks.'),
        ('run_tracker_pending_statistics_deltas', 'gauge', 'Rows of statistics that are not folded yet (100000 at most).'),
        ('run_tracker_worker_running', 'gauge', 'Whether the process that starts workers is there.'),
        ('run_tracker_worker_failures', 'gauge', 'Errors in a row that ended the work of the worker.'),
        ('run_tracker_worker_passes_total', 'counter', 'Times that the worker looked for deadlines.'),
        ('run_tracker_worker_runs_timed_out_total', 'counter', 'Runs that the worker ended.'),
        ('run_tracker_worker_runs_requeued_total', 'counter', 'Runs that the worker sent back to the queue.'),
        ('run_tracker_worker_deadlines_rearmed_total', 'counter', 'Deadlines that the worker moved because of activity.'),
        ('run_tracker_worker_deltas_folded_total', 'counter', 'Rows of statistics that the worker folded.'),
        ('run_tracker_worker_errors_total', 'counter', 'Errors of the worker.'),
        ('run_tracker_notifications_total', 'counter', 'Runs that the worker announced.'),
        ('run_tracker_notification_resyncs_total', 'counter', 'Times that listeners were told to read everything again.'),
        ('run_tracker_pending_notifications', 'gauge', 'Changed runs that are not announced yet.'),
        ('run_tracker_notification_queue_size', 'gauge', 'Changed runs that can wait to be announced.')
    ), names (name, family) AS (
        SELECT f.name, f.name FROM families f
        UNION ALL
        SELECT f.name || s.suffix, f.name FROM families f, unnest('{_bucket,_sum,_count}'::text[]) AS s (suffix)
        WHERE f.type = 'histogram'
    ), samples AS (
        SELECT COALESCE(f.family, m.name) AS family, m.n, m.name
                   || CASE WHEN m.labels <> '{}' THEN '{' || (
                          SELECT string_agg(l.key || '="' || replace(replace(replace(l.value, E'\\', E'\\\\'),
                                                                     '"', E'\\"'), E'\n', E'\\n') || '"',
                                            ',' ORDER BY l.key)
                          FROM jsonb_each_text(m.labels) l) || '}' ELSE '' END
                   || ' ' || CASE WHEN m.value = 'NaN' THEN 'NaN'
                                  WHEN abs(m.value) > 1e300 THEN CASE WHEN m.value > 0 THEN '+Inf' ELSE '-Inf' END
                                  WHEN abs(m.value) < 1e-300 THEN '0'
                                  ELSE m.value::double precision::text END AS line
        FROM run_tracker.read_metrics() WITH ORDINALITY AS m (name, labels, value, n)
             LEFT JOIN names f ON f.name = m.name
    )
    SELECT COALESCE(string_agg(s.text, '' ORDER BY s.n), '') || E'# EOF\n'
    FROM (SELECT min(s.n) AS n, COALESCE(format(E'# HELP %s %s\n# TYPE %s %s\n', f.name, f.help, f.name, f.type), '')
                 || string_agg(s.line, E'\n' ORDER BY s.n) || E'\n' AS text
          FROM samples s LEFT JOIN families f ON f.name = s.family
          GROUP BY s.family, f.name, f.type, f.help) s
$$;
COMMENT ON FUNCTION run_tracker.openmetrics() IS
'The view run_tracker.metrics in the text format of Prometheus, version 0.0.4, to be served as Content-Type: text/plain; version=0.0.4; charset=utf-8 (for instance by PostgREST as /rpc/openmetrics). It ends with # EOF, and buckets are written as OpenMetrics wants them; what OpenMetrics has another way are the TYPE lines of counters, which would be without _total. Numbers are rounded to double precision. 55000 if tables are missing.';
