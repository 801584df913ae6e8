# Statistics on a real server: what many clients do at once, the worker folds meanwhile, and every snapshot shows what the
# ledger adds up to; the worker folds by itself, and sleeps; it goes on when it fails, is killed, or the server is; dumps
# and logical replication.
use strict;
use warnings;

use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use RunTracker;

my $seconds = $ENV{RUN_TRACKER_STRESS_SECONDS} // 15;

my $node = new_worker_server('statistics', conf => <<'CONF');
run_tracker.fold_interval = '100 ms'
autovacuum = on
deadlock_timeout = 100ms
restart_after_crash = on

CONF

# What statistics should be, from the ledger, and where they are not. Nothing that has finished is deleted here.
my $check = <<'SQL';
CREATE EXTENSION run_tracker;
CREATE SCHEMA stress;
-- A kind may change while a task of its run finishes in another transaction: that task may count for the old one. Else all is exact.
CREATE FUNCTION stress.wrong(tasks_of_kinds boolean) RETURNS SETOF text LANGUAGE plpgsql VOLATILE SET jit = off AS
$$
BEGIN
    RETURN QUERY
    WITH ledger AS (
        SELECT 'user' AS what, r.user_id AS name, r.run_id, r.phase, r.attempt, r.finished_at, r.duration_ms, r.settings FROM run_tracker.runs r
        UNION ALL SELECT 'kind', COALESCE(r.kind, ''), r.run_id, r.phase, r.attempt, r.finished_at, r.duration_ms, r.settings FROM run_tracker.runs r
        UNION ALL SELECT 'workflow', r.workflow_id, r.run_id, r.phase, r.attempt, r.finished_at, r.duration_ms, r.settings FROM run_tracker.runs r WHERE r.workflow_id <> ''
    ), runs AS (
        SELECT what, name, count(*) AS total, count(*) FILTER (WHERE finished_at IS NULL) AS open, count(*) FILTER (WHERE phase = 'succeeded') AS successful,
               count(*) FILTER (WHERE phase = 'failed') AS failed, count(*) FILTER (WHERE phase = 'cancelled') AS cancelled, count(*) FILTER (WHERE phase = 'timed_out') AS timed_out,
               sum(attempt - 1)::bigint AS retried, round(avg(duration_ms) FILTER (WHERE phase = 'succeeded'), 2) AS average_ms,
               percentile_disc(0.5) WITHIN GROUP (ORDER BY duration_ms) FILTER (WHERE phase = 'succeeded') AS p50_ms, count(settings ->> 'mode') AS modes
        FROM ledger GROUP BY 1, 2
    ), tasks AS (
        SELECT l.what, l.name, count(*) FILTER (WHERE t.phase = 'succeeded') AS task_count, count(*) FILTER (WHERE t.phase IN ('failed', 'timed_out')) AS failed_task_count,
               COALESCE(sum(t.input_tokens), 0)::bigint AS input_tokens, COALESCE(sum(t.total_tokens), 0)::bigint AS total_tokens, COALESCE(sum(t.cost), 0) AS total_cost
        FROM ledger l JOIN run_tracker.tasks t USING (run_id) WHERE t.finished_at IS NOT NULL GROUP BY 1, 2
    ), expected AS (
        SELECT what, name, to_jsonb(r) - '{what,name}'::text[] || COALESCE(to_jsonb(t) - '{what,name}'::text[], '{"task_count": 0, "failed_task_count": 0, "input_tokens": 0, "total_tokens": 0, "total_cost": 0}') AS value
        FROM runs r LEFT JOIN tasks t USING (what, name)
        UNION ALL
        SELECT 'model', COALESCE(t.model, ''), jsonb_build_object('task_count', count(*) FILTER (WHERE t.phase = 'succeeded'), 'total_tokens', COALESCE(sum(t.total_tokens) FILTER (WHERE t.finished_at IS NOT NULL), 0),
               'total_cost', COALESCE(sum(t.cost) FILTER (WHERE t.finished_at IS NOT NULL), 0), 'retried', sum(t.attempt - 1), 'first_token_average_ms', round(avg(t.time_to_first_token_ms) FILTER (WHERE t.finished_at IS NOT NULL), 2))
        FROM run_tracker.tasks t GROUP BY 2 HAVING bool_or(t.finished_at IS NOT NULL OR t.attempt > 1)
        UNION ALL
        SELECT 'hour', date_trunc('hour', r.created_at, 'UTC')::text, jsonb_build_object('created', count(*)) FROM run_tracker.runs r GROUP BY 2
    ), actual AS (
        SELECT 'user' AS what, user_id AS name, to_jsonb(s) AS value FROM run_tracker.user_stats() s
        UNION ALL SELECT 'kind', kind, to_jsonb(s) FROM run_tracker.kind_stats() s
        UNION ALL SELECT 'workflow', workflow_id, to_jsonb(s) FROM run_tracker.workflow_stats() s
        UNION ALL SELECT 'model', model, to_jsonb(s) FROM run_tracker.model_stats() s
        UNION ALL SELECT 'hour', period_at::text, to_jsonb(s) FROM run_tracker.trend_stats('hour') s WHERE created > 0
    )
    SELECT format('%s %s %s: %s instead of %s', what, name, key, a.value -> key, e.value -> key)
    FROM expected e FULL JOIN actual a USING (what, name), LATERAL jsonb_object_keys(COALESCE(e.value, '{"total": null}')) key
    WHERE (key <> 'modes' AND (a.value -> key) IS DISTINCT FROM (e.value -> key)
           OR key = 'modes' AND (SELECT COALESCE(sum(v::bigint), 0) FROM jsonb_each_text(a.value -> 'modes') m (k, v)) <> (e.value ->> key)::bigint)
      AND NOT (key = 'p50_ms' AND jsonb_typeof(a.value -> key) = 'number' AND abs((a.value ->> key)::bigint - (e.value ->> key)::bigint) <= 0.02 * (e.value ->> key)::bigint)
      -- retries stay with the kind that the run had then
      AND NOT (what = 'kind' AND key = 'retried')
      AND (tasks_of_kinds OR what <> 'kind' OR key !~ 'task|tokens|cost')
    ORDER BY 1 LIMIT 10;
END
$$;
SQL
$node->safe_psql('postgres', $check);
$node->safe_psql('postgres', <<'SQL');
-- Runs 1 to 5 are hot. Those above 1000 have no tasks, and are deleted while they are open.
CREATE FUNCTION stress.run(n int) RETURNS uuid LANGUAGE sql IMMUTABLE AS
$$ SELECT ('00000000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid $$;
CREATE FUNCTION stress.random_run() RETURNS uuid LANGUAGE sql VOLATILE AS
$$ SELECT stress.run(CASE WHEN random() < 0.5 THEN 1 + floor(random() * 5)::int ELSE 6 + floor(random() * 300)::int END) $$;
CREATE FUNCTION stress.random_task(run uuid) RETURNS uuid LANGUAGE sql VOLATILE AS
$$ SELECT task_id FROM run_tracker.tasks WHERE run_id = run AND task_id >= gen_random_uuid() ORDER BY task_id LIMIT 1 $$;
CREATE TABLE stress.done (op text, outcome text);
CREATE FUNCTION stress.step() RETURNS void LANGUAGE plpgsql VOLATILE AS
$$
DECLARE
    run uuid := stress.random_run();
    other uuid := stress.random_run();
    task uuid := stress.random_task(run);
    bare uuid := stress.run(1000 + floor(random() * 50)::int);
    op text := (ARRAY['create_run', 'start_run', 'complete_run', 'fail_run', 'cancel_run', 'retry_run', 'retry_run', 'create_task', 'create_task', 'create_task', 'complete_task', 'complete_task', 'complete_task',
        'fail_task', 'cancel_task', 'retry_task', 'correct_task', 'correct_tasks', 'move_task', 'change_model', 'change_kind', 'change_mode', 'insert_tasks', 'insert_runs', 'end_runs', 'upsert', 'create_bare', 'start_bare',
        'delete_bare'])[1 + floor(random() * 29)::int];
    outcome text := 'done';
BEGIN
    BEGIN
        CASE op
        WHEN 'create_run' THEN PERFORM run_tracker.create_run(run, kind => 'k' || floor(random() * 3), workflow_id => 'w' || floor(random() * 3), user_id => 'u' || right(run::text, 1));
        WHEN 'start_run' THEN PERFORM run_tracker.start_run(run, 'w');
        WHEN 'complete_run' THEN PERFORM run_tracker.complete_run(run, '{}');
        WHEN 'fail_run' THEN PERFORM run_tracker.fail_run(run, 'e');
        WHEN 'cancel_run' THEN PERFORM run_tracker.cancel_run(run, 'r');
        WHEN 'retry_run' THEN PERFORM run_tracker.retry_run(run);
        WHEN 'create_task' THEN PERFORM run_tracker.create_task(run, model => 'm' || floor(random() * 3));
        WHEN 'complete_task' THEN PERFORM run_tracker.complete_task(task, 'r', input_tokens => floor(random() * 100)::int, output_tokens => 3, cost => random()::numeric, time_to_first_token_ms => floor(random() * 1000)::int);
        WHEN 'fail_task' THEN PERFORM run_tracker.fail_task(task, 'e', cost => 0.01);
        WHEN 'cancel_task' THEN PERFORM run_tracker.cancel_task(task);
        WHEN 'retry_task' THEN PERFORM run_tracker.start_task(task);
        WHEN 'correct_task' THEN UPDATE run_tracker.tasks SET input_tokens = floor(random() * 100)::int, cost = random()::numeric WHERE task_id = task;
        WHEN 'correct_tasks' THEN UPDATE run_tracker.tasks SET cost = COALESCE(cost, 0) + 1 WHERE run_id = run AND random() < 0.3;
        WHEN 'move_task' THEN UPDATE run_tracker.tasks SET run_id = other, user_id = r.user_id FROM run_tracker.runs r WHERE task_id = task AND r.run_id = other;
        -- of one that was not retried: what was, counts for the model that it had then
        WHEN 'change_model' THEN UPDATE run_tracker.tasks SET model = 'm' || floor(random() * 3) WHERE task_id = task AND attempt = 1;
        WHEN 'change_kind' THEN UPDATE run_tracker.runs SET kind = 'k' || floor(random() * 3) WHERE run_id = run;
        WHEN 'change_mode' THEN UPDATE run_tracker.runs SET settings = jsonb_build_object('mode', 'mode ' || floor(random() * 3)) WHERE run_id IN (run, other);
        WHEN 'insert_tasks' THEN
            INSERT INTO run_tracker.tasks (run_id, status, cost, model)
            SELECT CASE WHEN i % 2 = 0 THEN run ELSE other END, CASE WHEN i < 5 THEN 'completed' END, i, 'm0' FROM generate_series(1, 6) i;
        WHEN 'insert_runs' THEN
            INSERT INTO run_tracker.runs (user_id, kind, workflow_id, status, duration_ms) SELECT 'u' || i % 3, 'k' || i % 2, 'w' || i % 2, CASE WHEN i % 3 = 0 THEN 'failed' ELSE 'completed' END, random() * 1000 * i FROM generate_series(1, 5) i;
        WHEN 'end_runs' THEN UPDATE run_tracker.runs SET status = 'completed' WHERE run_id IN (run, other) AND phase IN ('queued', 'active', 'waiting');
        WHEN 'upsert' THEN
            INSERT INTO run_tracker.runs (run_id, user_id, kind, workflow_id, status) VALUES (run, 'u' || right(run::text, 1), 'k0', 'w0', 'completed')
            ON CONFLICT (run_id) DO UPDATE SET priority = 1, status = CASE WHEN runs.phase = 'active' THEN 'failed' ELSE runs.status END;
        WHEN 'create_bare' THEN PERFORM run_tracker.create_run(bare, kind => 'bare', user_id => 'bare', settings => '{"mode": "bare"}');
        WHEN 'start_bare' THEN PERFORM run_tracker.start_run(bare);
        WHEN 'delete_bare' THEN DELETE FROM run_tracker.runs WHERE run_id = bare AND finished_at IS NULL AND attempt = 1;
        END CASE;
    EXCEPTION
        -- not found, invalid transition, duplicate, run finished or gone, no argument
        WHEN no_data_found OR SQLSTATE 'RT001' OR unique_violation OR object_not_in_prerequisite_state
            OR foreign_key_violation OR invalid_parameter_value THEN
            outcome := SQLSTATE;
    END;
    INSERT INTO stress.done VALUES (op, outcome);
END
$$;
-- What somebody sees who looks in the middle of it: what is folded, and what is not.
CREATE TABLE stress.seen (deltas bigint);
CREATE FUNCTION stress.look() RETURNS void LANGUAGE plpgsql VOLATILE AS
$$
DECLARE
    violations text := (SELECT string_agg(w, E'\n') FROM stress.wrong(false) w);
BEGIN
    IF violations IS NOT NULL THEN
        RAISE 'a snapshot shows wrong statistics: %', violations;
    END IF;
    INSERT INTO stress.seen SELECT count(*) FROM run_tracker.stat_deltas;
END
$$;
SELECT run_tracker.create_run(stress.run(n), user_id => 'u' || right(stress.run(n)::text, 1), kind => 'k' || n % 3, workflow_id => 'w' || n % 3) FROM generate_series(1, 250) n;
SQL

# ---- many clients, a worker that folds, and readers ----

my %scripts = (
	'single@8' => 'SELECT stress.step();',
	'transaction@2' => "BEGIN;\nSELECT stress.step();\nSELECT stress.step();\nSELECT stress.step();\nEND;",
	'repeatable@2' => "BEGIN ISOLATION LEVEL REPEATABLE READ;\nSELECT stress.step();\nSELECT stress.step();\nEND;",
	'savepoint@2' => "BEGIN;\nSELECT stress.step();\nSAVEPOINT a;\nSELECT stress.step();\nROLLBACK TO a;\nSELECT stress.step();\nEND;",
	'rollback@1' => "BEGIN;\nSELECT stress.step();\nSELECT stress.step();\nROLLBACK;",
	# somebody else folds, too
	'fold@1' => 'SELECT run_tracker.fold_statistics(1 + floor(random() * 20)::int);');
my @files;
for my $script (sort keys %scripts)
{
	my ($name, $weight) = split /@/, $script;
	my $file = $node->basedir . "/$name.sql";
	append_to_file($file, "$scripts{$script}\n");
	push @files, '-f', "$file\@$weight";
}
append_to_file($node->basedir . '/look.sql', "BEGIN ISOLATION LEVEL REPEATABLE READ;\nSELECT stress.look();\nEND;\n");

sub pgbench
{
	my ($clients, @options) = @_;

	return ('pgbench', '-n', '-c', $clients, '-T', $seconds, '--max-tries=1000', '--random-seed=1', @options, '-h', $node->host, '-p', $node->port, 'postgres');
}
my ($out, $err) = ('', '');
my $load = IPC::Run::start([ pgbench(8, '-j', 2, @files) ], '>', \$out, '2>', \$err);
my ($ok, $looks, $complaints) = run_cmd($node, [ pgbench(1, '-f', $node->basedir . '/look.sql') ]);
ok($ok, 'while 8 clients write and the worker folds, every snapshot shows the true statistics') or diag($complaints);
ok($load->finish, 'the writers have seen no error');
like($out, qr/number of failed transactions: 0 /, 'every transaction succeeded in the end') or diag("$out$err");
is(join("\n", log_errors($node, 0, '40001', '40P01')), '', 'nothing but conflicts and deadlocks is in the log');
my ($n, $folded, $unfolded) = split /\|/, $node->safe_psql('postgres', 'SELECT count(*), count(*) FILTER (WHERE deltas < 200), count(*) FILTER (WHERE deltas > 0) FROM stress.seen');
cmp_ok($n, '>', 5, 'often enough');
ok($folded > 0 && $unfolded > 0, 'with folds in between');
note("$n snapshots, $unfolded of them with something unfolded; ", $out =~ /(number of transactions actually processed: \d+)/);
my @ops = map { /'([a-z_]+)'/g } $node->safe_psql('postgres', q{SELECT prosrc FROM pg_proc WHERE proname = 'step'}) =~ /^\s+WHEN ('[a-z_', ]+') THEN/mg;
my %done = map { split /\|/ } split /\n/, $node->safe_psql('postgres', q{SELECT op, count(*) FILTER (WHERE outcome = 'done') FROM stress.done GROUP BY 1});
is(join(' ', grep { !$done{$_} } @ops), '', 'every operation succeeded at least once');

sub true_statistics
{
	my ($name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	is($node->safe_psql('postgres', 'SELECT * FROM stress.wrong(false)'), '', $name);
	return;
}
true_statistics('they are true when all is over');
invariants_hold($node, 'postgres', 'totals and open set are true');

# ---- the worker folds by itself, and sleeps ----

sub unfolded
{
	my ($db) = @_;

	return $node->safe_psql($db // 'postgres', 'SELECT count(*) FROM run_tracker.stat_deltas');
}

sub all_folded
{
	my ($name, $seconds) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	ok(eventually(sub { unfolded() == 0 }, $seconds), $name) or diag($node->safe_psql('postgres', 'SELECT to_jsonb(s) FROM run_tracker.worker_status s'));
	return;
}
all_folded('the worker has folded everything');
true_statistics('nothing has changed by that');

my $observer = connection($node, 'postgres');
my $count_before = state_of($observer, 'postgres', 'folded');
$observer->query(q{SELECT run_tracker.create_run(kind => 'counted', user_id => 'u1');}) for 1 .. 5;
all_folded('new deltas are folded, too');
is(state_of($observer, 'postgres', 'folded') - $count_before, 5, 'worker_status counts them');
is($observer->query(q{SELECT created_count FROM run_tracker.stat_totals WHERE grain = 'kind' AND period = 'all' AND all_users AND kind = 'counted';}), '5', 'they are in the totals');
ok(eventually(sub { state_of($observer, 'postgres', 'pid') eq '' }, 60), 'then the worker goes');
# a look that finds nothing to do would be counted here
my $before = state_of($observer, 'postgres', 'passes, folded, errors, pid');
Time::HiRes::sleep(1.5);
is(state_of($observer, 'postgres', 'passes, folded, errors, pid'), $before, 'and does not come back as long as nothing happens');

# what was rolled back wakes nobody
$observer->query(q{BEGIN; SELECT run_tracker.create_run(kind => 'rolled back', user_id => 'u1'); ROLLBACK;});
is(state_of($observer, 'postgres', 'passes, folded, errors, pid'), $before, 'nor for what is rolled back');

# a longer interval is kept, and a shorter one counts at once
my $passes = state_of($observer, 'postgres', 'passes');
$node->safe_psql('postgres', q{ALTER SYSTEM SET run_tracker.fold_interval = '1 h'; SELECT pg_reload_conf();});
# with new settings, the worker looks at everything
ok(eventually(sub { $observer->query('SHOW run_tracker.fold_interval;') eq '1h' && state_of($observer, 'postgres', "passes > $passes AND pid IS NULL") eq 't' }, 60), 'settings are changed');
$observer->query(q{SELECT run_tracker.create_run(kind => 'counted', user_id => 'u1');});
$observer->query(start_runs(1, '100 ms', kind => 'due'));
ok($node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM run_tracker.runs WHERE kind = 'due' AND phase = 'timed_out'}), 'the worker is there for a timeout');
cmp_ok(unfolded(), '>', 2, 'it does not fold before the interval is over');
true_statistics('which nobody notices');
$node->safe_psql('postgres', q{ALTER SYSTEM RESET run_tracker.fold_interval; SELECT pg_reload_conf();});
all_folded('a shorter interval takes effect');

# prepared transactions
$observer->query(q{BEGIN; SELECT run_tracker.create_run(kind => 'prepared', user_id => 'u1'); PREPARE TRANSACTION 'p';});
all_folded('what is prepared is not there');
$observer->query(q{COMMIT PREPARED 'p';});
ok(eventually(sub { $observer->query(q{SELECT count(*) FROM run_tracker.stat_totals WHERE grain = 'kind' AND period = 'all' AND all_users AND kind = 'prepared';}) eq '1' }), 'and is folded when it is committed');

# ---- it goes on when folding fails ----

$node->safe_psql('postgres', <<'SQL');
CREATE FUNCTION stress.break() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'broken totals'; END $$;
CREATE TRIGGER break BEFORE UPDATE OR INSERT ON run_tracker.stat_totals FOR EACH ROW EXECUTE FUNCTION stress.break();
SQL
$observer->query(q{SELECT run_tracker.create_run(kind => 'broken', user_id => 'u1');});
ok(eventually(sub { state_of($observer, 'postgres', 'last_error') =~ /broken totals/ }), 'an error of a fold is in worker_status');
$observer->query(start_runs(20, '200 ms', kind => 'broken'));
ok( $node->poll_query_until('postgres', q{SELECT count(*) = 20 FROM run_tracker.runs WHERE kind = 'broken' AND phase = 'timed_out'}),
	'runs time out all the same');
isnt(state_of($observer, 'postgres', 'state'), 'failing', 'the worker works');
cmp_ok(state_of($observer, 'postgres', 'errors'), '<', 5, 'it does not try again and again');
cmp_ok(unfolded(), '>', 0, 'nothing is folded');
true_statistics('and nothing is lost');
$node->safe_psql('postgres', 'DROP TRIGGER break ON run_tracker.stat_totals');
my $resumes_before = time() + 90;

# ---- meanwhile: dumps, logical replication, a server without the worker ----

# All statistics, as text.
my $all = <<'SQL';
SELECT 'user', to_jsonb(s) FROM run_tracker.user_stats() s ORDER BY s.user_id COLLATE "C";
SELECT 'kind', to_jsonb(s) FROM run_tracker.kind_stats() s ORDER BY s.kind COLLATE "C";
SELECT 'workflow', to_jsonb(s) FROM run_tracker.workflow_stats() s ORDER BY s.workflow_id COLLATE "C";
SELECT 'model', to_jsonb(s) FROM run_tracker.model_stats() s ORDER BY s.provider COLLATE "C", s.model COLLATE "C", s.operation COLLATE "C";
SELECT unit, to_jsonb(s) FROM unnest('{hour,day}'::text[]) unit, run_tracker.trend_stats(unit, '-infinity') s ORDER BY unit, s.period_at;
SQL
my $plain = new_server('plain', conf => "max_wal_senders = 10\nmax_replication_slots = 10\n");

# half of it is folded, half is not
$plain->safe_psql('postgres', 'CREATE DATABASE source');
$plain->safe_psql('source', $check);
$plain->safe_psql('source', <<'SQL');
INSERT INTO run_tracker.runs (user_id, kind, workflow_id, settings, status, created_at, finished_at, duration_ms)
SELECT 'u' || n % 3, 'k' || n % 4, 'w' || n % 2, '{"mode": "m"}', CASE WHEN n % 5 > 0 THEN 'completed' ELSE 'failed' END, timestamptz '2026-01-01' + n * interval '1 hour', timestamptz '2026-01-01' + n * interval '1 hour', n * n
FROM generate_series(1, 100) n;
INSERT INTO run_tracker.tasks (run_id, status, model, cost, input_tokens, time_to_first_token_ms) SELECT run_id, 'completed', kind, 0.25, 7, duration_ms FROM run_tracker.runs;
SELECT run_tracker.fold_statistics(200);
DELETE FROM run_tracker.runs WHERE duration_ms < 100;
SQL
my $statistics = $plain->safe_psql('source', $all);
my $deltas = $plain->safe_psql('source', 'SELECT count(*) FROM run_tracker.stat_deltas');
cmp_ok($deltas, '>', 10, 'without the worker, fold_statistics() folds as much as it was told');
$plain->safe_psql('postgres', 'CREATE DATABASE copy TEMPLATE template0');
$plain->command_ok([ 'pg_dump', '-Fc', '-f', $plain->basedir . '/dump', $plain->connstr('source') ], 'pg_dump with deltas that are not folded');
$plain->command_ok([ 'pg_restore', '-e', '-d', $plain->connstr('copy'), $plain->basedir . '/dump' ], 'pg_restore');
is($plain->safe_psql('copy', 'SELECT count(*) FROM run_tracker.stat_deltas'), $deltas, 'they come back as they were');
same($plain->safe_psql('copy', $all), $statistics, 'and statistics are the same');
is($plain->safe_psql('copy', 'SELECT run_tracker.fold_statistics()'), $deltas, 'they can be folded there');
same($plain->safe_psql('copy', $all), $statistics, 'to the same');
# into a server that has the worker
$node->safe_psql('postgres', 'CREATE DATABASE copy TEMPLATE template0');
$node->command_ok([ 'pg_restore', '-e', '-d', $node->connstr('copy'), $plain->basedir . '/dump' ], 'pg_restore where there is a worker');
# what came in past the triggers, the worker finds when it looks for the next time, or is told
$node->safe_psql('copy', 'SELECT run_tracker.wake_worker()');
ok(eventually(sub { unfolded('copy') == 0 }), 'it folds them');
same($node->safe_psql('copy', $all), $statistics, 'to the same, too');

# Logical replication: deltas are found by all their columns, the totals by their key.
$plain->safe_psql('source', 'CREATE PUBLICATION everything FOR ALL TABLES');
my $subscriber = new_server('subscriber');
$subscriber->safe_psql('postgres', "$check\nTRUNCATE run_tracker.lifecycles, run_tracker.installation, run_tracker.tiers, run_tracker.accounts");
$subscriber->safe_psql('postgres', q{CREATE SUBSCRIPTION everything CONNECTION $$} . $plain->connstr('source') . q{$$ PUBLICATION everything});
$subscriber->poll_query_until('postgres', q{SELECT count(*) > 0 AND bool_and(srsubstate = 'r') FROM pg_subscription_rel}) or die 'the subscriber does not get ready';
same($subscriber->safe_psql('postgres', $all), $statistics, 'a subscriber has the same statistics');
is($plain->safe_psql('source', 'SELECT run_tracker.fold_statistics(5)'), '5', 'folding works with a publication of all tables');
$plain->safe_psql('source', <<'SQL');
SELECT run_tracker.complete_run(run_tracker.create_run(kind => 'published', user_id => 'u1')) FROM generate_series(1, 3);
SELECT run_tracker.fold_statistics(7);
DELETE FROM run_tracker.runs WHERE kind = 'k1';
SELECT run_tracker.fold_statistics();
SELECT run_tracker.create_run(kind => 'published', user_id => 'u1');
SQL
$plain->wait_for_catchup('everything');
same($subscriber->safe_psql('postgres', $all), $plain->safe_psql('source', $all), 'they stay the same while the publisher folds');
is(join("\n", log_errors($subscriber, 0)), '', 'no error on the subscriber');
is(join("\n", log_errors($plain, 0)), '', 'nor on the publisher');
$subscriber->stop;

# DROP EXTENSION leaves them, and what comes back counts on
$plain->safe_psql('copy', q{SET client_min_messages = warning; DROP EXTENSION run_tracker CASCADE; CREATE EXTENSION run_tracker; SELECT run_tracker.install();});
same($plain->safe_psql('copy', $all), $statistics, 'DROP EXTENSION and CREATE EXTENSION change nothing');
$plain->stop;

# ---- folding has resumed by itself ----

all_folded('folding resumes by itself', $resumes_before - time());
true_statistics('with nothing lost');

# ---- the worker, and the server, go down in the middle of a fold ----

# Folding of this kind takes as long as there is something in a table.
$node->safe_psql('postgres', <<'SQL');
CREATE TABLE stress.hold ();
CREATE FUNCTION stress.slow() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN WHILE EXISTS (SELECT FROM stress.hold) LOOP PERFORM pg_sleep(0.02); END LOOP; RETURN NEW; END $$;
CREATE TRIGGER slow BEFORE INSERT OR UPDATE ON run_tracker.stat_totals FOR EACH ROW WHEN (NEW.kind = 'slow' AND NEW.period = 'day') EXECUTE FUNCTION stress.slow();
ALTER SYSTEM SET run_tracker.batch_timeout = '5 min';
SELECT pg_reload_conf();
SQL
my $in_fold = q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'run_tracker worker' AND datname = 'postgres' AND wait_event = 'PgSleep'};

# Has the worker begin a fold that does not end, and returns its process.
sub hold_fold
{
	$node->safe_psql('postgres', q{INSERT INTO stress.hold DEFAULT VALUES; SELECT run_tracker.complete_run(run_tracker.create_run(kind => 'slow', user_id => 'u' || n)) FROM generate_series(1, 9) n});
	my $pid = eventually(sub { $node->safe_psql('postgres', $in_fold) }) or die 'no fold';
	return $pid;
}

sub release_fold
{
	$node->safe_psql('postgres', 'DELETE FROM stress.hold');
	return;
}

my $pid = hold_fold();
$node->safe_psql('postgres', q{SET statement_timeout = '30 s'; SELECT run_tracker.complete_run(run_tracker.create_run(kind => 'slow', user_id => 'u1')) FROM generate_series(1, 10)});
is($node->safe_psql('postgres', $in_fold), $pid, 'clients do not wait for a fold');
true_statistics('nor do readers');
release_fold();
all_folded('it goes on');

$pid = hold_fold();
$node->safe_psql('postgres', "SELECT pg_terminate_backend($pid)");
ok(eventually(sub { !$node->safe_psql('postgres', "SELECT 1 FROM pg_stat_activity WHERE pid = $pid") }), 'a worker goes when it is told to');
true_statistics('nothing is lost or doubled');
release_fold();
all_folded('the next one folds');
true_statistics('to the same');

$pid = hold_fold();
$observer->close;
kill 'KILL', $pid;
ok(eventually(sub { slurp_file($node->logfile) =~ /all server processes terminated; reinitializing/ }), 'the server recovers from kill -9 of the worker');
ok(eventually(sub { run_cmd($node, [ 'psql', '-XqAt', '-c', 'DELETE FROM stress.hold', 'postgres' ]) }), 'and is there again');
true_statistics('nothing is lost or doubled');
all_folded('all is folded');
true_statistics('to the same');

hold_fold();
$node->stop('immediate');
$node->start;
true_statistics('after a crash of the server in the middle of a fold, nothing is lost or doubled');
release_fold();
all_folded('all is folded soon after the start');
true_statistics('to the same');
$node->safe_psql('postgres', 'DROP TRIGGER slow ON run_tracker.stat_totals');

$node->stop;
done_testing();
