# The worker is in many databases. Do they come, go and change their names without waiting for it; and do those where
# nothing works leave the others alone?
use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

use RunTracker;

# Lateness that is accepted of a machine that is busy with other things, in seconds.
my $late = 4;

my $node = new_worker_server('databases', conf => "run_tracker.max_workers = 8\n");
$node->safe_psql('postgres', 'CREATE EXTENSION run_tracker');
my $observer = connection($node, 'postgres');

sub new_database
{
	my ($db) = @_;
	$observer->query("CREATE DATABASE $db;");
	$node->safe_psql($db, 'CREATE EXTENSION run_tracker');
	return;
}

# Runs a command that must not wait for the worker.
sub at_once
{
	my ($command, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	my $began = time();
	my (undef, $err) = $observer->query("$command;");
	my $seconds = time() - $began;
	is($err, '', "$name succeeds");
	cmp_ok($seconds, '<', 3, "$name does not wait");
	note(sprintf '%s: %.2f s', $command, $seconds);
	return;
}

sub log_end
{
	return -s $node->logfile;
}

# Errors but those of workers that were told to go.
sub errors_since
{
	my ($from) = @_;
	return join "\n", grep { !/ run_tracker worker 57P01 FATAL: / } log_errors($node, $from);
}

# ---- databases with a busy worker ----

append_to_file($node->basedir . '/busy.sql', <<'SQL');
\set ms random(1, 2000)
SELECT run_tracker.start_run(run_tracker.create_run(timeout => format('%s ms', :ms)::interval), 'w');
SQL

# Has the worker of a database something to do all the time, for some seconds.
sub keep_busy
{
	my ($db) = @_;

	run_cmd($node, [ 'pgbench', '-n', '-c', 4, '-t', 300, '-f', $node->basedir . '/busy.sql', '-h', $node->host, '-p', $node->port, $db ])
	  or die "pgbench does not work in $db";
	# what pgbench has started may not be quite gone yet
	eventually(sub { $observer->query("SELECT count(*) FROM pg_stat_activity WHERE datname = '$db' AND backend_type = 'client backend';") eq '0' })
	  or die "somebody is connected to $db";
	eventually(sub { state_of($observer, $db, 'pid IS NOT NULL') eq 't' }, 10) or die "no worker in $db";
	return;
}

my $log_end = log_end();
for my $n (1 .. 3)
{
	new_database("busy$n");
	keep_busy("busy$n");
	at_once("ALTER DATABASE busy$n RENAME TO other$n", 'ALTER DATABASE … RENAME');
	ok(eventually(sub { state_of($observer, "other$n", 'pid IS NOT NULL') eq 't' }), 'it is busy under the new name');
	at_once("CREATE DATABASE copy$n TEMPLATE other$n", 'CREATE DATABASE … TEMPLATE');
	ok(eventually(sub { state_of($observer, "copy$n", 'state, timed_out > 0, next_deadline_at IS NULL') eq 'sleeping|t|t' }, 15),
		'the copy is served, though nobody has been there');
	is($node->safe_psql($_, q{SELECT count(*) FROM run_tracker.runs WHERE phase <> 'timed_out'}), '0', "all runs of $_ have timed out")
	  for "other$n", "copy$n";
	invariants_hold($node, "copy$n", 'totals and open set are true');
	keep_busy("other$n");
	at_once("DROP DATABASE other$n", 'DROP DATABASE');
}
ok(eventually(sub { $observer->query(q{SELECT string_agg(database, ' ' ORDER BY database) FROM run_tracker.worker_status;}) eq 'copy1 copy2 copy3 postgres template1' }, 15),
	'what is gone is not in worker_status');
cmp_ok(scalar(log_lines($node, $log_end, qr/ run_tracker worker 57P01 FATAL: /)), '<=', 9, 'a worker that had to go says so, once');
is(errors_since($log_end), '', 'there is no other error in the log');

# Runs are due in a database that one cannot connect to.
$log_end = log_end();
$node->safe_psql('copy1', start_runs(1, '1200 ms', kind => 'closed'));
eventually(sub { state_of($observer, 'copy1', 'pid IS NULL') eq 't' });
at_once('ALTER DATABASE copy1 ALLOW_CONNECTIONS false', 'ALTER DATABASE … ALLOW_CONNECTIONS');
sleep(5);
cmp_ok(scalar(log_lines($node, $log_end, qr/ FATAL: /)), '<=', 3, 'a worker that cannot connect does not try all the time');
at_once('ALTER DATABASE copy1 ALLOW_CONNECTIONS true; SELECT pg_reload_conf()', 'ALTER DATABASE … ALLOW_CONNECTIONS');
ok(eventually(sub { $node->safe_psql('copy1', q{SELECT status FROM run_tracker.runs WHERE kind = 'closed'}) eq 'timeout' }), 'they time out when it can');
$observer->query("DROP DATABASE copy$_;") for 1 .. 3;

# ---- the extension comes and goes ----

new_database('comes');
my $client = connection($node, 'comes');
$log_end = log_end();
$client->query('SET client_min_messages = warning;');
for my $n (1 .. 5)
{
	# some are due while the extension is away, others later
	my (undef, $err) = $client->query(start_runs(20, '10 ms') . start_runs(20, '100 ms') . start_runs(20, '1 s')
		  . 'DROP EXTENSION run_tracker CASCADE; SELECT pg_sleep(0.2); CREATE EXTENSION run_tracker; SELECT run_tracker.install();'
		  . start_runs(20, '10 ms'));
	is($err, '', 'DROP EXTENSION and CREATE EXTENSION with the worker around');
}
ok(eventually(sub { $client->query(q{SELECT count(*) FROM run_tracker.runs WHERE phase = 'timed_out';}) eq '400' }, 20), 'all runs time out')
  or diag($client->query('SELECT status, phase, finished_at IS NULL, timeout, count(*) FROM run_tracker.runs GROUP BY 1, 2, 3, 4;'));
# The worker looks into the database while the extension is being dropped, and waits for that.
for my $n (1 .. 5)
{
	my $seconds = 0.2 + $n / 20;
	$client->query(start_runs(1, '500 ms', kind => 'gone')
		  . "SELECT pg_sleep(0.25); BEGIN; DROP EXTENSION run_tracker CASCADE; SELECT pg_sleep($seconds); COMMIT; SELECT pg_sleep(0.2);");
	is($client->query(q{SELECT status, phase, finished_at FROM run_tracker.runs WHERE kind = 'gone';}),
		'running|active|', 'without the extension nothing times out');
	$client->query('CREATE EXTENSION run_tracker; SELECT run_tracker.install();');
	ok(eventually(sub { $client->query(q{SELECT phase FROM run_tracker.runs WHERE kind = 'gone';}) eq 'timed_out' }, 10), 'with it, it does') or last;
	$client->query(q{DELETE FROM run_tracker.runs WHERE kind = 'gone';});
}
# Without triggers, too: they are there again after install() only, or may be switched off for a while.
sub waits_for
{
	my ($before, $after, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	$client->query('BEGIN;' . start_runs(1, '300 ms', kind => 'gone') . "COMMIT; $before SELECT run_tracker.wake_worker(); SELECT pg_sleep(0.8);");
	is($client->query(q{SELECT status, phase, finished_at FROM run_tracker.runs WHERE kind = 'gone';}), 'running|active|', "$name: nothing times out");
	$client->query("$after SELECT run_tracker.wake_worker();");
	ok(eventually(sub { $client->query(q{SELECT phase FROM run_tracker.runs WHERE kind = 'gone';}) eq 'timed_out' }, 10), 'then it does');
	$client->query(q{DELETE FROM run_tracker.runs WHERE kind = 'gone';});
	return;
}
waits_for('DROP EXTENSION run_tracker CASCADE; CREATE EXTENSION run_tracker;', 'SELECT run_tracker.install();', 'before install()');
waits_for('ALTER TABLE run_tracker.runs DISABLE TRIGGER USER;', 'ALTER TABLE run_tracker.runs ENABLE TRIGGER USER;', 'triggers switched off');

invariants_hold($node, 'comes', 'totals and open set are true', without_history => 1);
$client->query('DROP EXTENSION run_tracker CASCADE; DROP SCHEMA run_tracker CASCADE;');
ok(eventually(sub { state_of($observer, 'comes', 'pid IS NULL') eq 't' }), 'the worker leaves a database without the extension');
$client->query('CREATE EXTENSION run_tracker;' . start_runs(1, '100 ms'));
ok(eventually(sub { $client->query('SELECT phase FROM run_tracker.runs;') eq 'timed_out' }), 'and comes back with it');
$client->query('BEGIN; DROP EXTENSION run_tracker CASCADE; DROP SCHEMA run_tracker CASCADE; CREATE EXTENSION run_tracker;' . start_runs(1, '100 ms', kind => 'new') . 'COMMIT;');
ok(eventually(sub { $client->query('SELECT kind, phase FROM run_tracker.runs;') eq 'new|timed_out' }), 'also within one transaction');
# It may say that it could not wait any longer for somebody who holds locks; that is not long on a machine that is busy.
is(join("\n", grep { !/ WARNING: .* due to lock timeout$| HINT: / } log_lines($node, $log_end)), '', 'the worker says nothing');
is(errors_since($log_end), '', 'there is no error in the log');
$client->close;

# ---- nothing works in a database ----

new_database('good');
$log_end = log_end();
my %bad = (
	bad_runs => q{CREATE TRIGGER refuse BEFORE UPDATE ON run_tracker.runs FOR EACH ROW WHEN (NEW.status = 'timeout') EXECUTE FUNCTION public.refuse();},
	bad_open_runs => 'CREATE TRIGGER refuse BEFORE UPDATE OR DELETE ON run_tracker.open_runs FOR EACH ROW EXECUTE FUNCTION public.refuse();',
	bad_index => 'ALTER INDEX run_tracker.open_runs_deadline_at_idx RENAME TO mine;',
	bad_type => 'ALTER TABLE run_tracker.open_runs ALTER worker TYPE varchar(10);');
for my $db (sort keys %bad)
{
	new_database($db);
	$node->safe_psql($db, q{CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'refused: %', repeat('ä', 500); END $$;}
		  . 'BEGIN;' . start_runs(5, '300 ms') . "$bad{$db} COMMIT;");
}
my $began = time();
while (time() - $began < 4.5)
{
	$node->safe_psql('good', start_runs(2, '300 ms'));
	sleep(0.5);
}
my $good = $node->safe_psql('good', 'SELECT count(*) FROM run_tracker.runs');
ok(eventually(sub { state_of($observer, 'good', 'timed_out, errors, failures') eq "$good|0|0" }), 'another database is served meanwhile');
my $lateness = $node->safe_psql('good', lateness('true'));
cmp_ok($lateness, '<', $late, 'in time');
note("lateness in another database: at most $lateness s");

# where every pass fails
for my $db (qw(bad_index bad_type))
{
	my $columns = 'state, failures >= 3, errors = failures, passes < 5, last_error IS NOT NULL, last_error_at > now() - interval \'1 min\', '
	  . q{retry_at - last_error_at BETWEEN interval '3.9 s' AND interval '61 s'};
	ok(eventually(sub { state_of($observer, $db, $columns) eq 'failing|t|t|t|t|t|t' }, 30), "$db: worker_status shows that it fails, and when it tries again")
	  or diag(state_of($observer, $db, "$columns, failures, errors, passes"));
	note("$db: ", state_of($observer, $db, 'failures, last_error'));
}
# where every run fails
for my $db (qw(bad_runs bad_open_runs))
{
	is(state_of($observer, $db, q{timed_out, failures, errors >= 5, passes < 30, last_error ~ '^run \S+: refused: '}), '0|0|t|t|t',
		"$db: worker_status shows the error, and there were few attempts")
	  or diag(state_of($observer, $db, 'state, timed_out, failures, errors, passes, last_error'));
	like(state_of($observer, $db, 'last_error'), qr/^run \S+: refused: (ä)+$/, 'which is cut off at a whole character');
}
is(state_of($observer, 'bad_runs', q{retry_at IS NULL, next_deadline_at > now() + interval '20 s'}), 't|t', 'runs that cannot be ended are put off by a minute');
is(scalar(log_lines($node, $log_end, qr/ run_tracker worker .* WARNING: .*"$_"/)), 1, "$_: the log says it once") for sort keys %bad;
is(scalar(log_lines($node, $log_end, qr/ run_tracker worker .* (WARNING|ERROR|FATAL): /)), 4, 'that is all that the log has');

$node->safe_psql('bad_open_runs', 'DROP TRIGGER refuse ON run_tracker.open_runs');
$node->safe_psql('bad_index', 'ALTER INDEX run_tracker.mine RENAME TO open_runs_deadline_at_idx');
$node->safe_psql('bad_type', 'ALTER TABLE run_tracker.open_runs ALTER worker TYPE text');
$node->safe_psql('bad_runs', q{DROP TRIGGER refuse ON run_tracker.runs; UPDATE run_tracker.open_runs SET deadline_at = now(); SELECT run_tracker.wake_worker()});
for my $db (sort keys %bad)
{
	ok(eventually(sub { state_of($observer, $db, 'timed_out, failures') eq '5|0' }, 90), "$db: it recovers by itself, once the cause is gone");
	invariants_hold($node, $db, "$db: totals and open set are true");
}
is(errors_since($log_end), '', 'there is no error in the log');
$observer->query("DROP DATABASE $_;") for sort keys %bad;

# ---- triggers that take for ever ----

$observer->query(q{ALTER SYSTEM SET run_tracker.batch_timeout = '500 ms'; SELECT pg_reload_conf();});
my %slow = (
	slow_runs => q{BEFORE UPDATE ON run_tracker.runs FOR EACH ROW WHEN (NEW.status = 'timeout')},
	slow_open_runs => 'BEFORE UPDATE ON run_tracker.open_runs FOR EACH ROW');
for my $db (sort keys %slow)
{
	new_database($db);
	$node->safe_psql($db, q{CREATE FUNCTION public.slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(60); RETURN NEW; END';}
		  # its deadline will have to be moved
		  . 'BEGIN;' . start_runs(1, '500 ms', kind => 'first') . 'SELECT pg_sleep(0.1), run_tracker.heartbeat_run(run_id) FROM run_tracker.open_runs;'
		  . "CREATE TRIGGER slow $slow{$db} EXECUTE FUNCTION public.slow(); COMMIT;");
}
$good = state_of($observer, 'good', 'timed_out') + 2;
for my $db (sort keys %slow)
{
	ok(eventually(sub { state_of($observer, $db, q{errors > 0, last_error ~ 'canceling statement'}) eq 't|t' }, 20),
		"$db: batch_timeout cancels a transaction, and worker_status shows it")
	  or diag(state_of($observer, $db, 'state, errors, last_error'));
}
$observer->query(q{ALTER SYSTEM SET run_tracker.batch_timeout = '5 min'; SELECT pg_reload_conf();});
$node->safe_psql('slow_runs', start_runs(1, '10 ms', kind => 'second'));
ok(eventually(sub { $observer->query(q{SELECT count(*) FROM pg_stat_activity WHERE datname = 'slow_runs' AND wait_event = 'PgSleep';}) eq '1' }, 30),
	'a worker is in the middle of a transaction that takes a minute');
$node->safe_psql('good', start_runs(2, '300 ms', kind => 'meanwhile'));
ok(eventually(sub { state_of($observer, 'good', 'timed_out') eq $good }, 30), 'another database is served');
cmp_ok($node->safe_psql('good', lateness("kind = 'meanwhile'")), '<', $late, 'in time');
at_once('DROP DATABASE slow_runs', 'DROP DATABASE');
at_once('DROP DATABASE slow_open_runs', 'DROP DATABASE');
is(errors_since($log_end), '', 'there is no error in the log');
invariants_hold($node, 'good', 'totals and open set are true');

# A smart shutdown waits for clients, and for nobody else.
$node->safe_psql('good', start_runs(5, '100 ms') . start_runs(5, '1 h'));
$observer->close;
my $stop = time();
$node->stop('smart');
cmp_ok(time() - $stop, '<', 5, 'a smart shutdown does not wait for the worker');
note(sprintf 'smart shutdown: %.2f s', time() - $stop);
done_testing();
