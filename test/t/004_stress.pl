# Everything at once, from many connections, on a few hot runs and many others: do the invariants hold afterwards, and
# after a crash in the middle? Conflicts (40001) and deadlocks (40P01) between transactions of several steps may
# happen, and are retried by the client; nothing else may.
use strict;
use warnings;

use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use RunTracker;

my $seconds = $ENV{RUN_TRACKER_STRESS_SECONDS} // 20;
my $clients = 16;

my $node = new_server('stress', conf => <<'CONF');
deadlock_timeout = 100ms
max_connections = 60
CONF
$node->safe_psql('postgres', <<'SQL');
CREATE EXTENSION run_tracker;
CREATE SCHEMA stress;
CREATE TABLE stress.done (op text, outcome text);
-- Every piece of a response, and where it ends; a task that is deleted and made again is another one.
CREATE TABLE stress.piece (task_id uuid, created_at timestamptz, attempt int, end_offset bigint, content text);
CREATE INDEX ON stress.piece (task_id);

-- Runs 1 to 5 are hot.
CREATE FUNCTION stress.run(n int) RETURNS uuid LANGUAGE sql IMMUTABLE AS
$$ SELECT ('00000000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid $$;
CREATE FUNCTION stress.random_run() RETURNS uuid LANGUAGE sql VOLATILE AS
$$ SELECT stress.run(CASE WHEN random() < 0.6 THEN 1 + floor(random() * 5)::int ELSE 6 + floor(random() * 300)::int END) $$;
CREATE FUNCTION stress.random_task(run uuid) RETURNS uuid LANGUAGE sql VOLATILE AS
$$ SELECT task_id FROM run_tracker.tasks WHERE run_id = run AND task_id >= gen_random_uuid() ORDER BY task_id LIMIT 1 $$;

-- One operation. What an application would do wrong now and then is not an error here, but whatever else happens is.
CREATE FUNCTION stress.step(op text) RETURNS void LANGUAGE plpgsql VOLATILE AS
$$
DECLARE
    run uuid := stress.random_run();
    other uuid := stress.random_run();
    task uuid := stress.random_task(run);
    outcome text := 'done';
    token text;
    length bigint;
BEGIN
    IF op = 'any' THEN
        op := (ARRAY['create_run', 'start_run', 'complete_run', 'fail_run', 'cancel_run', 'retry_run', 'retry_run', 'retry_run', 'pause_run',
            'update_progress', 'create_task', 'create_task', 'create_task', 'create_task', 'start_task', 'start_task', 'complete_task', 'complete_task', 'complete_task',
            'complete_task', 'fail_task', 'cancel_task', 'retry_task', 'correct_task', 'correct_tasks', 'reopen_tasks', 'move_task', 'move_tasks', 'delete_task',
            'delete_tasks', 'delete_run', 'upsert_task', 'merge_task', 'insert_tasks', 'finish_tasks', 'add_message', 'add_message', 'add_messages',
            'delete_messages', 'add_log', 'add_log', 'delete_logs', 'change_log', 'new_run_with_tasks', 'end_runs', 'rename_run',
            'append', 'append', 'append', 'append', 'append_many', 'log_retrieval', 'add_artifact', 'delete_artifacts'])[1 + floor(random() * 54)::int];
    END IF;
    BEGIN
        CASE op
        WHEN 'create_run' THEN PERFORM run_tracker.create_run(run, user_id => 'u' || right(run::text, 1));
        WHEN 'start_run' THEN PERFORM run_tracker.start_run(run, 'w');
        WHEN 'complete_run' THEN PERFORM run_tracker.complete_run(run, '{}');
        WHEN 'fail_run' THEN PERFORM run_tracker.fail_run(run, 'e');
        WHEN 'cancel_run' THEN PERFORM run_tracker.cancel_run(run, 'r');
        WHEN 'retry_run' THEN PERFORM run_tracker.retry_run(run);
        WHEN 'pause_run' THEN PERFORM run_tracker.transition_run(run, 'paused');
        WHEN 'update_progress' THEN PERFORM run_tracker.update_progress(run, floor(random() * 100)::int, 's');
        WHEN 'create_task' THEN PERFORM run_tracker.create_task(run, gen_random_uuid());
        WHEN 'start_task' THEN PERFORM run_tracker.start_task(task);
        WHEN 'complete_task' THEN
            PERFORM run_tracker.complete_task(task, 'r', input_tokens => floor(random() * 100)::int, output_tokens => 3, cost => random()::numeric);
        WHEN 'fail_task' THEN PERFORM run_tracker.fail_task(task, 'e', cost => 0.01);
        WHEN 'cancel_task' THEN PERFORM run_tracker.cancel_task(task);
        WHEN 'retry_task' THEN PERFORM run_tracker.start_task(task, 'running');
        WHEN 'correct_task' THEN UPDATE run_tracker.tasks SET input_tokens = floor(random() * 100)::int, cost = random()::numeric WHERE task_id = task;
        WHEN 'correct_tasks' THEN UPDATE run_tracker.tasks SET cost = COALESCE(cost, 0) + 1 WHERE run_id = run AND random() < 0.3;
        WHEN 'reopen_tasks' THEN UPDATE run_tracker.tasks SET status = 'pending' WHERE run_id = run AND phase = 'failed' AND random() < 0.3;
        WHEN 'move_task' THEN UPDATE run_tracker.tasks SET run_id = other, user_id = r.user_id FROM run_tracker.runs r WHERE task_id = task AND r.run_id = other;
        WHEN 'move_tasks' THEN
            UPDATE run_tracker.tasks t SET run_id = other, user_id = r.user_id FROM run_tracker.runs r WHERE t.run_id = run AND random() < 0.1 AND r.run_id = other;
        WHEN 'delete_task' THEN DELETE FROM run_tracker.tasks WHERE task_id = task;
        WHEN 'delete_tasks' THEN DELETE FROM run_tracker.tasks WHERE run_id IN (run, other) AND random() < 0.2;
        WHEN 'delete_run' THEN DELETE FROM run_tracker.runs WHERE run_id = run;
        WHEN 'upsert_task' THEN
            INSERT INTO run_tracker.tasks (run_id, task_id, status, input_tokens)
            VALUES (run, COALESCE(task, gen_random_uuid()), 'completed', 5)
            ON CONFLICT (task_id) DO UPDATE SET input_tokens = 6, status = 'completed';
        WHEN 'merge_task' THEN
            MERGE INTO run_tracker.tasks t USING (VALUES (run, task), (run, gen_random_uuid())) v (run_id, task_id) ON t.task_id = v.task_id AND t.run_id = v.run_id
            WHEN MATCHED AND t.phase = 'succeeded' THEN DELETE
            WHEN MATCHED THEN UPDATE SET cost = 2
            WHEN NOT MATCHED AND v.task_id IS NOT NULL THEN INSERT (run_id, task_id) VALUES (v.run_id, v.task_id);
        WHEN 'insert_tasks' THEN
            INSERT INTO run_tracker.tasks (run_id, task_id, status, cost)
            SELECT CASE WHEN i % 2 = 0 THEN run ELSE other END, gen_random_uuid(), CASE WHEN i < 5 THEN 'completed' END, i FROM generate_series(1, 6) i;
        WHEN 'finish_tasks' THEN
            UPDATE run_tracker.tasks SET status = 'completed', output_tokens = 1 WHERE run_id IN (run, other) AND phase IN ('queued', 'active');
        WHEN 'add_message' THEN PERFORM run_tracker.add_message(run, 'user', 'hello ' || random());
        WHEN 'add_messages' THEN
            INSERT INTO run_tracker.messages (run_id, role, content) SELECT CASE WHEN i % 2 = 0 THEN run ELSE other END, 'user', 'x' FROM generate_series(1, 4) i;
        WHEN 'delete_messages' THEN DELETE FROM run_tracker.messages WHERE run_id = run AND random() < 0.3;
        WHEN 'add_log' THEN PERFORM run_tracker.add_log(run, 'line', CASE WHEN random() < 0.5 THEN 'ERROR' ELSE 'INFO' END);
        WHEN 'delete_logs' THEN DELETE FROM run_tracker.logs WHERE run_id IN (run, other) AND random() < 0.3;
        WHEN 'change_log' THEN UPDATE run_tracker.logs SET level = CASE level WHEN 'INFO' THEN 'CRITICAL' ELSE 'INFO' END WHERE run_id = run AND random() < 0.3;
        WHEN 'append', 'append_many' THEN
            FOR i IN 1 .. CASE op WHEN 'append' THEN 1 ELSE 5 END LOOP
                token := '<' || substr(md5(random()::text), 1, 8) || repeat('東', floor(random() * 20)::int) || '>';
                length := run_tracker.append_response(task, token);
                INSERT INTO stress.piece SELECT task_id, created_at, attempt, length, token FROM run_tracker.tasks WHERE task_id = task;
            END LOOP;
        WHEN 'log_retrieval' THEN PERFORM run_tracker.log_retrieval(run, 'x', results => '[1]');
        WHEN 'add_artifact' THEN PERFORM run_tracker.add_artifact(run, 'x', content => 'y');
        WHEN 'delete_artifacts' THEN DELETE FROM run_tracker.artifacts WHERE run_id IN (run, other) AND random() < 0.3;
        WHEN 'new_run_with_tasks' THEN
            WITH r AS (INSERT INTO run_tracker.runs (run_id, user_id) VALUES (gen_random_uuid(), 'u') RETURNING run_id),
                 m AS (INSERT INTO run_tracker.messages (run_id, role, content) SELECT run_id, 'user', 'x' FROM r)
            INSERT INTO run_tracker.tasks (run_id, task_id, status) SELECT run_id, gen_random_uuid(), s FROM r, unnest('{pending,completed,failed}'::text[]) s;
        WHEN 'end_runs' THEN
            UPDATE run_tracker.runs SET status = 'completed' WHERE run_id IN (run, other) AND phase IN ('queued', 'active', 'waiting');
        WHEN 'rename_run' THEN UPDATE run_tracker.runs SET name = 'n' || random(), worker = 'w', priority = floor(random() * 3)::int WHERE run_id = run;
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
-- Every response consists of its pieces, all of them, in the order in which they were committed; complete_task() may bring
-- another one, "r".
CREATE VIEW stress.wrong_response AS
SELECT format('%s %s: %s', t.task_id, t.status, problem) AS what
FROM run_tracker.tasks t, LATERAL (SELECT run_tracker.task_response(t.task_id) AS whole) r,
     LATERAL (
        SELECT format('%L is not at the end of %L', p.content, left(whole, p.end_offset::int)) AS problem
        FROM stress.piece p
        WHERE (p.task_id, p.created_at, p.attempt) = (t.task_id, t.created_at, t.attempt)
          AND right(left(whole, p.end_offset::int), length(p.content)) IS DISTINCT FROM p.content
        UNION ALL
        SELECT format('%s characters instead of %s', length(whole), sum(length(p.content)))
        FROM stress.piece p WHERE (p.task_id, p.created_at, p.attempt) = (t.task_id, t.created_at, t.attempt)
        HAVING COALESCE(sum(length(p.content)), 0) <> COALESCE(length(whole), 0)) w
WHERE whole IS DISTINCT FROM 'r';
-- What somebody sees who looks in the middle of it.
CREATE FUNCTION stress.look() RETURNS void LANGUAGE plpgsql VOLATILE AS
$$
DECLARE
    violation text;
BEGIN
    SELECT to_jsonb(c)::text INTO violation FROM run_tracker.check_totals() c LIMIT 1;
    IF FOUND THEN
        RAISE 'a snapshot shows wrong totals: %', violation;
    END IF;
    SELECT what INTO violation FROM stress.wrong_response LIMIT 1;
    IF FOUND THEN
        RAISE 'a snapshot shows a wrong response: %', violation;
    END IF;
END
$$;
SELECT run_tracker.create_run(stress.run(n), user_id => 'u' || right(stress.run(n)::text, 1)) FROM generate_series(1, 250) n;
SQL

# Each script names itself, so that the log says whose conflict it was.
my %scripts = (
	'single@8' => "SELECT stress.step('any');",
	'hot@4' => "SELECT stress.step('complete_task');\nSELECT stress.step('create_task');\nSELECT stress.step('add_message');",
	'transaction@3' => "BEGIN;\nSELECT stress.step('any');\nSELECT stress.step('any');\nSELECT stress.step('any');\nEND;",
	'repeatable@3' =>
	  "BEGIN ISOLATION LEVEL REPEATABLE READ;\nSELECT stress.step('any');\nSELECT stress.step('any');\nEND;",
	'serializable@1' => "BEGIN ISOLATION LEVEL SERIALIZABLE;\nSELECT stress.step('any');\nEND;",
	'stream@2' => "SELECT stress.step('append');\nBEGIN;\nSELECT stress.step('append_many');\nSELECT stress.step('any');\nEND;",
	'rollback@2' => "BEGIN;\nSELECT stress.step('any');\nSELECT stress.step('any');\nROLLBACK;",
	'savepoint@3' => "BEGIN;\nSELECT stress.step('any');\nSAVEPOINT a;\nSELECT stress.step('any');\nROLLBACK TO a;\n"
	  . "SELECT stress.step('any');\nSAVEPOINT b;\nSELECT stress.step('any');\nRELEASE b;\nEND;",
	'read_only@1' =>
	  "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;\nSELECT stress.look();\nEND;");
my @files;
for my $script (sort keys %scripts)
{
	my ($name, $weight) = split /@/, $script;
	my $file = $node->basedir . "/$name.sql";
	append_to_file($file, "SET application_name = 'stress-$name';\n$scripts{$script}\n");
	push @files, '-f', "$file\@$weight";
}

sub pgbench
{
	my ($time) = @_;
	return ('pgbench', '-n', '-c', $clients, '-j', 2, '-T', $time, '--max-tries=1000', '--random-seed=1', @files,
		'-h', $node->host, '-p', $node->port, 'postgres');
}

my ($ok, $out, $err) = run_cmd($node, [ pgbench($seconds) ]);
ok($ok, "pgbench with $clients clients for $seconds seconds");
$err =~ s/^pgbench: setting random seed to 1\n//;
is($err, '', 'reports no error');
ok($out =~ /number of failed transactions: 0 /, 'every transaction succeeded in the end') or diag($out);

my @unexpected = log_errors($node, 0, '40001', '40P01', '57014');
is(scalar(@unexpected), 0, 'only conflicts and deadlocks are in the log');
diag(join "\n", map { substr($_, 0, 500) } @unexpected > 10 ? @unexpected[ 0 .. 9 ] : @unexpected) if @unexpected;
invariants_hold($node, 'postgres', 'totals and open set are true');
# and invariants_hold() has found no piece of a response that nothing will put together
sub responses_are_whole
{
	my ($name) = @_;
	my @wrong = split /\n/, $node->safe_psql('postgres', 'SELECT * FROM stress.wrong_response');
	is(scalar(@wrong), 0, $name);
	diag(join "\n", @wrong > 10 ? @wrong[ 0 .. 9 ] : @wrong) if @wrong;
	return;
}
responses_are_whole('responses are whole');

# Has it really done everything?
my @ops = map { /'([a-z_]+)'/g } $node->safe_psql('postgres', q{SELECT prosrc FROM pg_proc WHERE proname = 'step'}) =~ /^\s+WHEN ('[a-z_', ]+') THEN/mg;
my %done = map { split /\|/ } split /\n/, $node->safe_psql('postgres', q{SELECT op, count(*) FILTER (WHERE outcome = 'done') FROM stress.done GROUP BY 1});
is(join(' ', grep { !$done{$_} } @ops), '', 'every operation succeeded at least once');
my ($transactions) = $out =~ /number of transactions actually processed: (\d+)/;
note("$transactions transactions; operations: ", join ', ', map { "$_ $done{$_}" } sort keys %done);
my %conflicts;
my $log = slurp_file($node->logfile);
$conflicts{"$2 in $1"}++ while $log =~ / (stress-\w+) (40001|40P01) ERROR:/g;
note('conflicts: ', join ', ', map { "$conflicts{$_} $_" } sort keys %conflicts);
is(join(' ', grep { /stress-read_only/ } keys %conflicts), '', 'readers never have to retry');

# A repair that finds nothing to do does nothing, and the most crowded run has slots for the writers that met there.
is($node->safe_psql('postgres', 'SELECT run_tracker.rebuild_totals()'), '0', 'rebuild_totals() finds nothing');
ok($node->safe_psql('postgres', 'SELECT max(n) FROM (SELECT count(*) AS n FROM run_tracker.run_totals GROUP BY run_id) s') <= 60,
	'no run has more slots than there can be connections');

# One transaction ends a run and adds a message to it, another one adds a message in between: it has to wait for the
# first, but must not hold anything meanwhile that the first still needs.
my $add = "run_tracker.add_message(stress.run(300), 'user', 'm')";
my $wait_for = sub {
	my ($condition) = @_;
	return "DO \$\$ BEGIN FOR i IN 1 .. 2000 LOOP EXIT WHEN EXISTS (SELECT FROM pg_locks WHERE $condition); PERFORM pg_sleep(0.01); END LOOP; END \$\$;\n";
};
$node->safe_psql('postgres', q{DELETE FROM run_tracker.runs WHERE run_id = stress.run(300); SELECT run_tracker.create_run(stress.run(300), user_id => 'u')});
my @psql = ('psql', '-XqAt', '-v', 'ON_ERROR_STOP=1', '-h', $node->host, '-p', $node->port, 'postgres');
my $first_script = "BEGIN; SELECT run_tracker.complete_run(stress.run(300)); SELECT pg_advisory_xact_lock(1);\n"
  . $wait_for->('NOT granted')
  . "SELECT $add; COMMIT;\n";
append_to_file($node->basedir . '/first.sql', $first_script);
my $first = IPC::Run::start([ @psql, '-f', $node->basedir . '/first.sql' ], '>', \my $first_out, '2>', \my $first_err);
($ok, undef, $err) = run_cmd($node, [@psql], $wait_for->(q{locktype = 'advisory' AND granted}) . "SELECT $add;\n");
IPC::Run::finish($first);
is($first_err . $err, '', 'adding a message while another transaction ends the run and adds one: no deadlock');

# A run that somebody is changing gets a child; then the change is committed. The run cannot be deleted before the child
# is committed, too: what holds the run must hold its new version. (Prepared transactions, so that one session can do it.)
for my $child (
	q{add_log(stress.run(301), 'line', 'ERROR')},
	q{add_message(stress.run(301), 'assistant', 'hello')},
	q{create_task(stress.run(301), gen_random_uuid())},
	q{start_task((SELECT task_id FROM run_tracker.tasks WHERE run_id = stress.run(301) AND status = 'failed'), 'running')})
{
	(undef, $out, $err) = run_cmd($node, [@psql], <<SQL);
DELETE FROM run_tracker.runs WHERE run_id = stress.run(301);
SELECT run_tracker.create_run(stress.run(301), user_id => 'u') IS NULL;
INSERT INTO run_tracker.tasks (run_id, task_id, status) VALUES (stress.run(301), gen_random_uuid(), 'failed');
BEGIN;
UPDATE run_tracker.runs SET worker = 'w' WHERE run_id = stress.run(301);
PREPARE TRANSACTION 'change';
BEGIN;
SELECT run_tracker.$child IS NULL;
PREPARE TRANSACTION 'child';
COMMIT PREPARED 'change';
SET lock_timeout = '100ms';
\\set ON_ERROR_STOP 0
\\set VERBOSITY sqlstate
SELECT run_tracker.complete_run(stress.run(301));
DELETE FROM run_tracker.runs WHERE run_id = stress.run(301);
COMMIT PREPARED 'child';
SQL
	is("$out$err", "f\nf\nERROR:  55P03\nERROR:  55P03\n", "$child holds the run, also its newest version");
	invariants_hold($node, 'postgres', 'and leaves nothing behind');
}
$node->safe_psql('postgres', 'DELETE FROM run_tracker.runs WHERE run_id = stress.run(301)');

# The server crashes while all this is going on.
my $log_end = -s $node->logfile;
my $before = $node->safe_psql('postgres', 'SELECT count(*) FROM stress.done');
my $pgbench = IPC::Run::start([ pgbench(60) ], '>', \my $bench_out, '2>', \my $bench_err);
$node->poll_query_until('postgres', "SELECT count(*) > $before + 2000 FROM stress.done") or die 'pgbench does not work';
$node->stop('immediate');
IPC::Run::finish($pgbench);
$node->start;
invariants_hold($node, 'postgres', 'totals and open set are true after a crash');
responses_are_whole('and responses whole');
is($node->safe_psql('postgres', 'SELECT run_tracker.create_run() IS NOT NULL'), 't', 'and work goes on');
is(join("\n", grep { !/57P0[123]|08006/ } log_errors($node, $log_end, '40001', '40P01', '57014')), '', 'no other error in the log');

($ok, $out, $err) = run_cmd($node, [ pgbench(3) ]);
ok($ok && $out =~ /number of failed transactions: 0 /, 'from many connections, too') or diag($out, $err);
invariants_hold($node, 'postgres', 'and all stays true');
responses_are_whole('and whole');

$node->stop;
done_testing();
