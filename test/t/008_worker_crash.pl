# Processes are killed, and the server goes down in the middle of work: is it all there afterwards, and do runs still
# time out?
use strict;
use warnings;

use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

use RunTracker;

# Lateness that is accepted of a machine that is busy with other things, in seconds.
my $late = 5;
my $clients = 6;

my $node = new_worker_server('crash', conf => <<'CONF');
restart_after_crash = on
run_tracker.batch_timeout = '10 min'
CONF
$node->safe_psql('postgres', <<'SQL');
CREATE EXTENSION run_tracker;
CREATE SCHEMA load;
-- While there is a row in it, the worker sleeps in the middle of its transaction.
CREATE TABLE load.slow (i int);
CREATE FUNCTION load.slow() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN IF EXISTS (SELECT FROM load.slow) THEN PERFORM pg_sleep(600); END IF; RETURN NEW; END $$;
CREATE TRIGGER slow BEFORE UPDATE ON run_tracker.runs FOR EACH ROW WHEN (NEW.status = 'timeout') EXECUTE FUNCTION load.slow();

-- Something that a worker of the application does with a run that it has claimed. Others may have been faster.
CREATE FUNCTION load.work(me text) RETURNS void LANGUAGE plpgsql AS
$$
DECLARE
    run record;
BEGIN
    SELECT o.run_id, o.attempt INTO run FROM run_tracker.open_runs o WHERE o.worker = me AND o.phase = 'active' ORDER BY random() LIMIT 1;
    IF FOUND THEN
        CASE floor(random() * 6)::int
        WHEN 0 THEN PERFORM run_tracker.heartbeat_run(run.run_id, run.attempt);
        WHEN 1 THEN PERFORM run_tracker.complete_run(run.run_id, attempt => run.attempt);
        WHEN 2 THEN PERFORM run_tracker.update_progress(run.run_id, floor(random() * 100)::int, attempt => run.attempt);
        WHEN 3 THEN PERFORM run_tracker.create_task(run.run_id, gen_random_uuid());
        ELSE
            PERFORM run_tracker.complete_task(t.task_id, 'r', input_tokens => 3, cost => 0.5)
            FROM (SELECT task_id FROM run_tracker.tasks WHERE run_id = run.run_id AND finished_at IS NULL LIMIT 1) t;
        END CASE;
    END IF;
EXCEPTION
    WHEN SQLSTATE 'RT001' OR SQLSTATE 'RT003' OR no_data_found OR object_not_in_prerequisite_state THEN
END
$$;
SQL

sub launcher
{
	return $node->safe_psql('postgres', q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'run_tracker launcher'});
}

# Waits until everything that may time out has done so.
sub all_time_out
{
	my ($name, $condition) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	ok($node->poll_query_until('postgres', "SELECT count(*) = 0 FROM run_tracker.runs WHERE phase = 'active' AND ($condition)"), $name);
	is( $node->safe_psql('postgres',
			"SELECT count(*) FROM (SELECT run_id FROM run_tracker.transitions JOIN run_tracker.runs USING (run_id) WHERE to_status = 'timeout' AND ($condition) GROUP BY run_id HAVING count(*) > 1) s"),
		'0', 'each once');
	return;
}

# ---- processes are killed ----

for my $victim (qw(worker launcher backend))
{
	my $log_end = -s $node->logfile;
	my $old_launcher = launcher();
	my $client = connection($node, 'postgres');
	my $pid;

	$node->safe_psql('postgres', start_runs(3, '3 s', kind => $victim));
	if ($victim eq 'worker')
	{
		$node->safe_psql('postgres', 'INSERT INTO load.slow VALUES (1);' . start_runs(3, '200 ms', kind => $victim));
		my $asleep = q{backend_type = 'run_tracker worker' AND wait_event = 'PgSleep'};
		$node->poll_query_until('postgres', "SELECT count(*) = 1 FROM pg_stat_activity WHERE $asleep") or die 'no worker';
		$pid = $node->safe_psql('postgres', "DELETE FROM load.slow; SELECT pid FROM pg_stat_activity WHERE $asleep");
	}
	elsif ($victim eq 'launcher')
	{
		$pid = $old_launcher;
	}
	else
	{
		$pid = $client->query('SELECT pg_backend_pid();');
		$client->query('BEGIN;' . start_runs(3, '200 ms', kind => 'never'));
	}
	# due while the server is not there, or just before
	$node->safe_psql('postgres', start_runs(3, '20 ms', kind => $victim));
	is(kill('KILL', $pid), 1, "kill -9 of a $victim");
	ok(eventually(sub { log_lines($node, $log_end, qr/all server processes terminated; reinitializing/) }), 'has the server start anew');
	eval { $client->close };
	ok($node->poll_query_until('postgres', 'SELECT 1', '1'), 'which is there again');
	$node->safe_psql('postgres', start_runs(3, '100 ms', kind => $victim));
	all_time_out('all runs time out', "kind = '$victim'");
	is( $node->safe_psql('postgres', "SELECT count(*) FROM run_tracker.runs WHERE kind IN ('never', '$victim') AND phase = 'timed_out'"),
		$victim eq 'worker' ? 12 : 9, 'all that were committed');
	my $lateness = $node->safe_psql('postgres', lateness("kind = '$victim'"));
	cmp_ok($lateness, '<', $late, 'not much later than they should');
	note("lateness: at most $lateness s");
	ok(eventually(sub { my $pid = launcher(); $pid ne '' && $pid ne $old_launcher }), 'there is a new launcher');
	is(scalar(log_lines($node, $log_end, qr/reinitializing/)), 1, 'the server has started anew once');
	is(join("\n", grep { !/process \(PID $pid\) was terminated by signal 9|"run_tracker \w+" \(PID $pid\) was terminated by signal 9/ }
				log_errors($node, $log_end, '57P01', '57P02', '57P03')), '', 'and nothing else has gone wrong');
	invariants_hold($node, 'postgres', 'totals and open set are true');
}

# A worker that is only told to go leaves what it was doing to the next one.
{
	my $log_end = -s $node->logfile;
	my $asleep = q{backend_type = 'run_tracker worker' AND wait_event = 'PgSleep'};
	$node->safe_psql('postgres', 'INSERT INTO load.slow VALUES (1);' . start_runs(3, '100 ms', kind => 'terminated'));
	$node->poll_query_until('postgres', "SELECT count(*) = 1 FROM pg_stat_activity WHERE $asleep") or die 'no worker';
	is($node->safe_psql('postgres', "DELETE FROM load.slow; SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE $asleep"),
		't', 'pg_terminate_backend() of a worker');
	all_time_out('all runs time out', q{kind = 'terminated'});
	is(scalar(log_lines($node, $log_end, qr/FATAL: /)), 1, 'the log tells of that one');
	is(join("\n", log_errors($node, $log_end, '57P01')), '', 'and of nothing else');
}

# ---- the server goes down under load ----

# Clients that write down what they have seen committed: psql prints a result when the command is complete.
my @witnesses;
for my $w (1 .. 3)
{
	my $script = $node->basedir . "/witness$w.sql";
	my $sql = '';
	for my $n (1 .. 4000)
	{
		# a third of the runs is forgotten by those who claimed them
		my $forgotten = $n % 3 == 0;
		my $timeout = $forgotten ? '1 s' : '1 h';
		$sql .= <<SQL;
SELECT 'created', run_tracker.create_run(kind => 'witness $w', timeout => '$timeout'), '$n';
SELECT run_id AS run, attempt FROM run_tracker.claim_runs('witness $w', 1, kind => 'witness $w') \\gset
\\echo claimed|:run|:attempt
SELECT run_tracker.create_task(:'run') AS task \\gset
\\echo task|:run|:task
SELECT 'answer', :'run', :'task' WHERE run_tracker.complete_task(:'task', 'r', input_tokens => $n);
SELECT 'alive', :'run', run_tracker.heartbeat_run(:'run', :attempt);
SQL
		$sql .= "SELECT 'completed', :'run', run_tracker.complete_run(:'run', attempt => :attempt);\n" unless $forgotten;
	}
	append_to_file($script, $sql);
	push @witnesses, { name => "witness $w", script => $script, out => $node->basedir . "/witness$w.out" };
}

my @files;
for (
	[ create => q{SELECT run_tracker.create_run(kind => 'load', timeout => '1 s');}, 2 ],
	[ claim => q{SELECT count(*) FROM run_tracker.claim_runs('worker :client_id', 2, kind => 'load');}, 2 ],
	[ work => q{SELECT load.work('worker :client_id');}, 8 ])
{
	my ($name, $sql, $weight) = @$_;
	append_to_file($node->basedir . "/$name.sql", "$sql\n");
	push @files, '-f', $node->basedir . "/$name.sql\@$weight";
}
my $log_end = -s $node->logfile;
my $pgbench = IPC::Run::start(
	[ 'pgbench', '-n', '-c', $clients, '-j', 2, '-T', 120, @files, '-h', $node->host, '-p', $node->port, 'postgres' ],
	'>', \my $out, '2>', \my $err);
$_->{psql} = IPC::Run::start(
	[ 'psql', '-XqAt', '-v', 'ON_ERROR_STOP=1', '-h', $node->host, '-p', $node->port, '-f', $_->{script}, 'postgres' ],
	'>', $_->{out}, '2>', $node->basedir . '/witness.err')
  for @witnesses;
ok( $node->poll_query_until('postgres', <<'SQL'),
SELECT count(*) FILTER (WHERE phase = 'timed_out' AND kind = 'load') > 100 AND count(*) FILTER (WHERE phase = 'succeeded' AND kind = 'load') > 100
   AND count(*) FILTER (WHERE phase = 'timed_out' AND kind ~ 'witness') > 50 AND count(*) FILTER (WHERE phase = 'active') > 50
FROM run_tracker.runs
SQL
	'under load, runs are claimed, completed, and forgotten and timed out');
$node->safe_psql('postgres', start_runs(50, '1 s', kind => 'overdue'));
my $overdue = time() + 1.5;
$node->stop('immediate');
IPC::Run::finish($_) for $pgbench, map { $_->{psql} } @witnesses;
sleep($overdue - time()) if time() < $overdue;
$node->start;

all_time_out('after a crash, the runs whose time has come while the server was down time out', q{kind <> 'patient' AND timeout < '1 h'});
my $lateness = $node->safe_psql('postgres',
	q{SELECT round(max(extract(epoch FROM finished_at - pg_postmaster_start_time())), 3) FROM run_tracker.runs WHERE kind = 'overdue' AND phase = 'timed_out'});
cmp_ok($lateness, '<', $late, 'soon after the start');
note("$lateness s after the start");
is($node->safe_psql('postgres', q{SELECT count(*) FROM run_tracker.runs WHERE kind = 'overdue' AND phase = 'timed_out'}), '50', 'all of them');
is($node->safe_psql('postgres', q{SELECT count(*) FROM run_tracker.runs WHERE timeout >= '1 h' AND phase = 'timed_out'}), '0', 'and no others');
invariants_hold($node, 'postgres', 'totals and open set are true');

# Is everything there that the witnesses have seen?
my @seen = map { my $name = $_->{name}; map { "$name|$_" } grep { /^\w+\|[^|]+\|[^|]+$/ } split /\n/, slurp_file($_->{out}) } @witnesses;
$node->safe_psql('postgres', 'CREATE TABLE load.seen (witness text, what text, run_id uuid, value text)');
$node->safe_psql('postgres', 'INSERT INTO load.seen VALUES ' . join ',', map { '(' . join(',', map { "'$_'" } split /\|/) . ')' } @seen);
my $seen = $node->safe_psql('postgres', q{SELECT string_agg(what || ' ' || n, ', ' ORDER BY what) FROM (SELECT what, count(*) AS n FROM load.seen GROUP BY 1) s});
note("seen: $seen");
is($node->safe_psql('postgres', q{SELECT count(DISTINCT what) || ' ' || (count(*) > 300) FROM load.seen}), '6 true', 'witnesses have seen a lot');
is($node->safe_psql('postgres', <<'SQL'), '', 'everything is there that was seen committed');
SELECT s.*, r.status, r.worker, r.attempt, t.status, t.input_tokens
FROM load.seen s
     LEFT JOIN run_tracker.runs r ON r.run_id = s.run_id
     LEFT JOIN run_tracker.tasks t ON t.run_id = s.run_id AND s.what IN ('task', 'answer') AND t.task_id::text = s.value
WHERE r.run_id IS NULL OR r.kind <> s.witness
   OR s.what = 'claimed' AND (r.worker IS DISTINCT FROM s.witness OR r.attempt::text <> s.value OR r.started_at IS NULL)
   OR s.what = 'task' AND t.task_id IS NULL
   OR s.what = 'answer' AND (t.status IS DISTINCT FROM 'completed' OR t.response IS DISTINCT FROM 'r' OR t.input_tokens IS NULL)
   OR s.what = 'completed' AND r.status <> 'completed'
ORDER BY s.run_id LIMIT 10
SQL
# Each has worked on one run after the other: of what it did last, it may not have heard.
is($node->safe_psql('postgres', <<'SQL'), '', 'and nothing that was not asked for');
SELECT r.kind, count(*) FROM run_tracker.runs r
WHERE r.kind ~ 'witness' AND NOT EXISTS (SELECT FROM load.seen s WHERE s.run_id = r.run_id AND s.what = 'created')
GROUP BY 1 HAVING count(*) > 1
SQL

# ---- the server goes down while the worker is busy ----

$node->safe_psql('postgres', q{ALTER SYSTEM SET run_tracker.batch_size = 5; SELECT pg_reload_conf();});
$node->safe_psql('postgres', start_runs(3000, '1 s', kind => 'many'));
my $times = 0;
for (1 .. 3)
{
	my ($before) = $node->safe_psql('postgres', q{SELECT count(*) FROM run_tracker.runs WHERE kind = 'many' AND phase = 'timed_out'});
	$node->poll_query_until('postgres', "SELECT count(*) > $before FROM run_tracker.runs WHERE kind = 'many' AND phase = 'timed_out'");
	$times++ if $node->safe_psql('postgres', q{SELECT count(*) FROM run_tracker.runs WHERE kind = 'many' AND phase = 'active'}) > 0;
	$node->stop('immediate');
	$node->start;
}
cmp_ok($times, '>', 0, 'the server goes down while the worker is busy');
all_time_out('what it has not ended then times out later', q{kind = 'many'});
is($node->safe_psql('postgres', q{SELECT status, count(*) FROM run_tracker.runs WHERE kind = 'many' GROUP BY 1}), 'timeout|3000', 'all of it');
invariants_hold($node, 'postgres', 'totals and open set are true');
is(join("\n", log_errors($node, $log_end, '57P01', '57P02', '57P03', '08006')), '', 'no error in the log');

$node->stop;
done_testing();
