# Where there is less room than the worker would like: more databases than it may have processes or entries for; and
# a standby, on which it may not work at all.
use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time sleep);

use RunTracker;

my @databases = map { "d$_" } 1 .. 20;
my @no_process = ('run_tracker could not start a background worker', 'Increase max_worker_processes.');
my @no_entry = ('run_tracker does not serve all databases', 'Increase run_tracker.max_databases and restart the server.');

my $setup = <<'SQL';
CREATE EXTENSION run_tracker;
-- A run that is due at once.
CREATE FUNCTION due() RETURNS uuid LANGUAGE plpgsql AS
$$
DECLARE
    run uuid := run_tracker.create_run(max_duration => '1 millisecond');
BEGIN
    PERFORM run_tracker.start_run(run);
    RETURN run;
END
$$;
SQL

# Changes settings and restarts the server. Returns the position in the log.
sub configure
{
	my ($node, $conf) = @_;
	my $position = -s $node->logfile;

	$node->append_conf('postgresql.conf', $conf);
	$node->restart;
	return $position;
}

# How many complaints of that kind are in the log, and do they come with that advice?
sub complaints
{
	my ($node, $position, $message, $hint) = @_;
	my $warnings = log_lines($node, $position, qr/WARNING:  \Q$message\E/);
	my $hints = log_lines($node, $position, qr/HINT:  \Q$hint\E/);

	return $warnings == $hints ? $warnings : "$warnings, but $hints hints";
}

sub due_in
{
	my ($node, @in) = @_;

	$node->safe_psql($_, 'SELECT due()') for @in;
	return;
}

# Waits until no run is open in any of the databases. Returns those where some are.
sub still_open
{
	my ($node, @in) = @_;

	return grep { !$node->poll_query_until($_, q{SELECT NOT EXISTS (SELECT FROM run_tracker.open_runs WHERE phase = 'active')}) } @in;
}

sub open_in
{
	my ($node, @in) = @_;

	return scalar grep { $node->safe_psql($_, q{SELECT EXISTS (SELECT FROM run_tracker.open_runs WHERE phase = 'active')}) eq 't' } @in;
}

# Everything that clients do works in a database that is not served.
sub clients_are_well
{
	my ($node, $db, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	my $listener = listener($node, $db);
	my (undef, $out, $err) = run_cmd($node, [ 'psql', '-XqAt', '-v', 'ON_ERROR_STOP=1', '-d', $db ], <<'SQL');
SET statement_timeout = '30s';
SELECT due() AS run \gset
SELECT run_tracker.create_task(:'run') AS task \gset
SELECT run_tracker.complete_task(:'task', cost => 1);
SELECT run_tracker.heartbeat_run(:'run') IS NOT NULL, run_tracker.wake_worker();
SELECT run_tracker.create_run(kind => 'for a worker') AS queued \gset
SELECT count(*) FROM run_tracker.claim_runs('w', kind => 'for a worker');
SET run_tracker.notify = 'commit';
SELECT run_tracker.complete_run(:'queued');
SELECT count(*) > 0 FROM run_tracker.worker_status;
SELECT pg_sleep(0.01);
SELECT run_tracker.expire_runs() > 0;
SQL
	is("$out$err", "t\nt|t\n1\nt\nt\n\nt\n", $name);
	ok($listener->wait_for(sub { ($_->{status} // '') eq 'completed' }), 'and is announced by commits');
	$listener->close;
	return;
}

# ---- no process for the worker ----

# The server's own launcher of logical replication takes one, and so does ours.
my $node = new_server('crowded', conf => "shared_preload_libraries = 'run_tracker'\nmax_worker_processes = 2\n");
my $position = 0;
$node->safe_psql('postgres', 'CREATE DATABASE source');
$node->safe_psql('source', $setup);
$node->safe_psql('postgres', "CREATE DATABASE $_ TEMPLATE source") for @databases;
due_in($node, @databases);
ok($node->wait_for_log(qr/$no_process[0]/), 'without room for a worker, the log says so');
clients_are_well($node, 'd1', 'clients work as ever');
is($node->safe_psql('d2', 'SELECT launcher_pid IS NOT NULL AND pid IS NULL AND passes = 0 AND failures = 0 FROM run_tracker.worker_status WHERE database = \'d2\''), 't', 'worker_status shows that nothing happens');
sleep(3);
is(open_in($node, @databases), 19, 'only what was ended by hand has ended');
is(complaints($node, $position, @no_process), 1, 'the log says it once, with what to do');

# not even for the launcher
$position = configure($node, 'max_worker_processes = 1');
is($node->safe_psql('postgres', q{SELECT count(*) FROM pg_stat_activity WHERE backend_type ~ 'run_tracker'}), '0', 'there is no room for the launcher');
due_in($node, 'd1');
is($node->safe_psql('d1', q{SELECT COALESCE(max(launcher_pid)::text, 'none') FROM run_tracker.worker_status WHERE database = 'd1'}), 'none', 'worker_status shows that it does not run');
clients_are_well($node, 'd1', 'clients work as ever');
is(join("\n", log_errors($node, 0, '57P01')), '', 'without errors');

# ---- one process for 20 databases ----

$position = configure($node, 'max_worker_processes = 3');
due_in($node, 'd1');
is(join(' ', still_open($node, @databases)), '', 'with room for one worker, the runs of all databases end');
is(complaints($node, $position, @no_process), 1, 'the log says once that there could be more');
# what the server says when it stops and starts, and that
my @lines = log_lines($node, $position, qr/^\d{4}-(?!.* LOG:  statement: )/);
cmp_ok(scalar(@lines), '<', 60, 'and nothing more than that') or diag(join "\n", @lines);
is($node->safe_psql('source', q{SELECT count(*) FROM run_tracker.worker_status WHERE database ~ '^d\d+$' AND timed_out >= 1 AND errors = 0}), '20', 'each of them was served');

# ---- processes that others use ----

$position = configure($node, "max_worker_processes = 4\nrun_tracker.max_workers = 2\n");
is(join(' ', still_open($node, @databases)), '', 'nothing is due');
ok($node->poll_query_until('source', q{SELECT bool_and(state IN ('sleeping', 'not installed')) FROM run_tracker.worker_status}), 'no worker works');
# two parallel workers that sleep until they are cancelled
$node->safe_psql('postgres', 'CREATE TABLE rows AS SELECT generate_series(1, 10000) AS n; ALTER TABLE rows SET (parallel_workers = 2)');
my $parallel = connection($node, 'postgres');
$parallel->query('SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0; SET max_parallel_workers_per_gather = 2; SET parallel_leader_participation = off;');
like($parallel->query('EXPLAIN SELECT count(*) FROM rows WHERE pg_sleep(1000) IS NULL;'), qr/Workers Planned: 2/, 'a query wants two parallel workers');
my $pid = $parallel->query('SELECT pg_backend_pid();');
$parallel->send('SELECT count(*) FROM rows WHERE pg_sleep(1000) IS NULL;');
ok($node->poll_query_until('postgres', q{SELECT count(*) = 2 FROM pg_stat_activity WHERE backend_type = 'parallel worker'}), 'and has them');
$position = -s $node->logfile;
due_in($node, @databases[ 0 .. 4 ]);
ok($node->wait_for_log(qr/$no_process[0]/, $position), 'when others use all processes, the log says so');
sleep(3);
is(open_in($node, @databases[ 0 .. 4 ]), 5, 'runs do not end');
clients_are_well($node, 'd20', 'clients work as ever');
$node->safe_psql('postgres', "SELECT pg_cancel_backend($pid)");
is(join(' ', still_open($node, @databases)), '', 'runs end when there is room again');
is(complaints($node, $position, @no_process), 1, 'the log has said it once');
$parallel->query('SELECT 1;');
$parallel->close;

# ---- run_tracker.max_workers ----

# Fewer databases will do from here on.
invariants_hold($node, 'd20', 'totals and open set are true');
$node->safe_psql('postgres', "DROP DATABASE $_") for splice @databases, 8;

# Runs become due in all databases. Returns how many workers worked at a time, at most.
sub most_workers
{
	my ($watcher) = @_;
	my $most = 0;
	my @left = @databases;

	due_in($node, @databases);
	$node->reload;
	ok( eventually(
			sub {
				my $now = $watcher->query(q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'run_tracker worker';});
				$most = $now if $now > $most;
				shift @left while @left && rand() < 0.2 && !open_in($node, $left[0]);
				return !@left;
			}),
		'the runs of all databases end');
	return $most;
}

$position = configure($node, "max_worker_processes = 12\nrun_tracker.max_workers = 1\n");
my $watcher = connection($node, 'postgres');
is(most_workers($watcher), 1, 'with run_tracker.max_workers = 1, one works at a time');
$node->append_conf('postgresql.conf', 'run_tracker.max_workers = 3');
my $most = most_workers($watcher);
cmp_ok($most, '<=', 3, 'with 3, no more than 3 do');
cmp_ok($most, '>=', 2, 'but more than one, without a restart');
is(complaints($node, $position, @no_process), 0, 'which the log says nothing of');
$watcher->close;
invariants_hold($node, 'd1', 'totals and open set are true');
is(join("\n", log_errors($node, 0, '57P01', '57014')), '', 'there are no errors in the log');
$node->stop;

# ---- run_tracker.max_databases ----

my $small = new_server('small', conf => "shared_preload_libraries = 'run_tracker'\nrun_tracker.max_databases = 3\nrun_tracker.max_sleep = 2s\n");
my @five = map { "d$_" } 1 .. 5;
$small->safe_psql('postgres', 'CREATE DATABASE d1');
$small->safe_psql('d1', $setup);
ok($small->poll_query_until('d1', q{SELECT bool_or(database = 'd1' AND state = 'sleeping') AND count(*) <= 3 FROM run_tracker.worker_status}), 'a database is served');
for my $db (@five[ 1 .. 4 ])
{
	$small->safe_psql('postgres', "CREATE DATABASE $db");
	$small->safe_psql($db, $setup);
}
ok($small->wait_for_log(qr/$no_entry[0]/), 'with more databases than run_tracker.max_databases, the log says so');
due_in($small, @five);
my @served;
ok(eventually(sub { @served = split /\n/, $small->safe_psql('d1', q{SELECT database FROM run_tracker.worker_status WHERE database ~ '^d\d$' ORDER BY 1}); @served == 3 }), 'three of five databases are served');
my %served = map { $_ => 1 } @served;
my @unserved = grep { !$served{$_} } @five;
is(join(' ', still_open($small, @served)), '', 'their runs end');
is(open_in($small, @unserved), 2, 'the others do not');
for my $db (@unserved)
{
	is($small->safe_psql($db, "SELECT count(*) FROM run_tracker.worker_status WHERE database = '$db'"), '0', "$db: is not in worker_status");
	my $listener = listener($small, $db);
	$small->safe_psql($db, q{SET run_tracker.notify = 'commit'; SELECT due()});
	ok($listener->wait_for(sub { $_->{status} eq 'running' }), 'clients work as ever, and commits announce');
	$small->safe_psql($db, 'SELECT due() FROM generate_series(1, 10)');
	cmp_ok($small->safe_psql($db, 'SELECT run_tracker.expire_runs()'), '==', 12, 'and runs can be ended');
	$small->safe_psql($db, 'SELECT due()');
	$listener->close;
}
is(complaints($small, 0, @no_entry), 1, 'the log has said it once');
is(open_in($small, @unserved), 2, 'what was left to the worker is open still');

# A place becomes free.
$small->safe_psql('postgres', "DROP DATABASE $served[0]");
ok(eventually(sub { open_in($small, @unserved) == 1 }), 'after DROP DATABASE one of the others is served');
is(complaints($small, 0, @no_entry), 1, 'the log does not say it again');
is(join("\n", log_errors($small, 0, '57P01|3D000')), '', 'there are no errors in the log');
$position = configure($small, 'run_tracker.max_databases = 10');
is(join(' ', still_open($small, grep { $_ ne $served[0] } @five)), '', 'with room for all, all are served');
is(complaints($small, $position, @no_entry), 0, 'and the log is quiet');
$small->stop;

# ---- a standby ----

my $primary = new_server('primary', conf => "shared_preload_libraries = 'run_tracker'\nmax_wal_senders = 5\n");
$primary->backup('backup');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'backup', has_streaming => 1);
$standby->start;
# What is due is left to the standby.
$primary->append_conf('postgresql.conf', 'run_tracker.enabled = off');
$primary->reload;
ok($primary->poll_query_until('postgres', q{SELECT current_setting('run_tracker.enabled') = 'off'}), 'the primary has no worker');
$primary->safe_psql('postgres', $setup);
my $due = $primary->safe_psql('postgres', 'SELECT due()');
my $fresh = $primary->safe_psql('postgres', q{SELECT run_tracker.create_run(timeout => '1 hour')});
$primary->safe_psql('postgres', "SELECT run_tracker.start_run('$fresh'); SELECT run_tracker.create_run(kind => 'queued'); SELECT run_tracker.add_message('$fresh', 'user', 'hello')");
$primary->wait_for_catchup($standby);

is($standby->safe_psql('postgres', q{SELECT count(*) FROM pg_stat_activity WHERE backend_type ~ 'run_tracker'}), '0', 'nothing runs on a standby');
like($standby->safe_psql('postgres', 'SELECT count(*), count(launcher_pid), count(pid) FROM run_tracker.worker_status'), qr/^\d+\|0\|0$/, 'worker_status says so');
is($standby->safe_psql('postgres', q{SELECT string_agg(status, ' ' ORDER BY status) FROM run_tracker.run_summary}), 'pending running running', 'runs can be read');
is( $standby->safe_psql('postgres', "SELECT jsonb_array_length(run_tracker.run_messages('$fresh')), (SELECT count(*) FROM run_tracker.stuck_runs('0')), (SELECT count(*) FROM run_tracker.check_totals())"),
	'1|3|0', 'by functions, too');
# On a standby, and in a transaction that was declared read-only, which are the same to a client.
my %calls = (
	'expire_runs' => 'SELECT run_tracker.expire_runs()',
	'expire_runs later' => q{SELECT run_tracker.expire_runs(now => clock_timestamp() + interval '1 day')},
	'claim_runs' => q{SELECT * FROM run_tracker.claim_runs('w')},
	'claim_runs of none' => q{SELECT * FROM run_tracker.claim_runs('w', kind => 'none')},
	'heartbeat_run' => "SELECT run_tracker.heartbeat_run('$fresh')",
	'release_run' => "SELECT run_tracker.release_run('$fresh')",
	'update_progress' => "SELECT run_tracker.update_progress('$fresh', 7)",
	'complete_run' => "SELECT run_tracker.complete_run('$fresh')",
	'create_run' => 'SELECT run_tracker.create_run()',
	'add_message' => "SELECT run_tracker.add_message('$fresh', 'user', 'x')",
	'purge_runs' => 'SELECT run_tracker.purge_runs()');
for my $call (sort keys %calls)
{
	for my $server ($standby, $primary)
	{
		my (undef, $out, $err) = run_cmd($server, [ 'psql', '-XqAt', '-v', 'VERBOSITY=sqlstate', '-d', 'postgres' ], "SET default_transaction_read_only = on;\n$calls{$call};");
		is("$out$err", "ERROR:  25006\n", "$call: refused " . ($server == $standby ? 'on a standby' : 'in a read-only transaction'));
	}
}
is($standby->safe_psql('postgres', q{SELECT string_agg(status, ' ' ORDER BY status) FROM run_tracker.runs}), 'pending running running', 'runs are as they were');
is(join("\n", log_errors($standby, 0, '25006')), '', 'there are no errors in the log');

$primary->stop;
$standby->promote;
ok($standby->poll_query_until('postgres', "SELECT status = 'timeout' FROM run_tracker.runs WHERE run_id = '$due'"), 'after the promotion, without a restart, what is due ends');
is( $standby->safe_psql('postgres', 'SELECT launcher_pid IS NOT NULL, timed_out, errors FROM run_tracker.worker_status WHERE database = current_database()'),
	't|1|0', 'worker_status says so');
my $listener = listener($standby, 'postgres');
$due = $standby->safe_psql('postgres', 'SELECT due()');
ok($listener->wait_for(sub { $_->{run_id} eq $due && $_->{status} eq 'timeout' }), 'and what comes now is ended and announced');
$listener->close;
invariants_hold($standby, 'postgres', 'totals and open set are true');
$standby->stop;
done_testing();
