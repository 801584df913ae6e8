# Does the background worker do its work without anybody asking for it, in time, in every database, under whatever
# settings; and does it cost nothing while there is nothing to do?
use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

use RunTracker;

# Lateness that is accepted of a machine that is busy with other things, in seconds. It is milliseconds otherwise.
my $late = 4;

my $node = new_worker_server('worker');
my $wait_event = $node->pg_version >= 17 ? 'RunTrackerLauncherMain' : 'Extension';
$node->safe_psql('postgres', 'CREATE EXTENSION run_tracker');
for my $db (qw(a b plain))
{
	$node->safe_psql('postgres', "CREATE DATABASE $db");
	$node->safe_psql($db, 'CREATE EXTENSION run_tracker') unless $db eq 'plain';
}
# It looks at no run: it asks what the worker says.
my $observer = connection($node, 'postgres');

sub launcher
{
	my ($columns) = @_;
	return $observer->query("SELECT $columns FROM pg_stat_activity WHERE backend_type = 'run_tracker launcher';");
}

sub workers
{
	return $observer->query(q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'run_tracker worker';});
}

sub reload
{
	my (%settings) = @_;
	for my $name (sort keys %settings)
	{
		$observer->query(
			defined $settings{$name}
			? "ALTER SYSTEM SET $name = '$settings{$name}';"
			: "ALTER SYSTEM RESET $name;");
	}
	$observer->query('SELECT pg_reload_conf();');
	for my $name (sort grep { defined $settings{$_} } keys %settings)
	{
		eventually(sub { $observer->query("SHOW $name;") eq $settings{$name} }) or die "$name is not $settings{$name}";
	}
	return;
}

# ---- what there is ----

ok( eventually(sub { launcher('wait_event') eq $wait_event && workers() eq '0' }),
	'the launcher sleeps, and says so; there is no worker');
is( launcher('count(*), min(wait_event_type), count(datname), count(xact_start), count(backend_xid), count(backend_xmin)'),
	'1|Extension|0|0|0|0',
	'it is connected to no database, has no transaction, and holds nothing back');
ok( eventually(
		sub { $observer->query(q{SELECT string_agg(database, ' ' ORDER BY database) FROM run_tracker.worker_status;}) eq 'a b plain postgres template1' },
		10),
	'worker_status shows all databases that one can connect to');
is(state_of($observer, 'a', 'state, pid IS NULL, last_pass_at > now() - interval \'1 h\', next_deadline_at IS NULL, retry_at IS NULL'),
	'sleeping|t|t|t|t', 'one with the extension');
is(state_of($observer, 'a', 'passes > 0, timed_out, requeued, rearmed, pending_notifications, notifications, resyncs, errors, failures, last_error IS NULL, last_error_at IS NULL'),
	't|0|0|0|0|0|0|0|0|t|t', 'in which nothing has happened yet');
ok(eventually(sub { state_of($observer, 'plain', 'state, pid IS NULL, last_pass_at IS NULL, passes') eq 'not installed|t|t|0' }, 10), 'and one without');
is(state_of($observer, 'a', 'launcher_pid'), launcher('pid'), 'it shows the launcher');
$observer->query('CREATE ROLE monitor; GRANT pg_monitor TO monitor; CREATE ROLE service; '
	  . q{SELECT run_tracker.grant_service('monitor'), run_tracker.grant_service('service');});
is($node->safe_psql('postgres', "SET ROLE $_->[0]; SELECT count(*), max(database) FROM run_tracker.worker_status"),
	$_->[1], "$_->[0] sees $_->[1]")
  for [ 'monitor', '5|template1' ], [ 'service', '1|postgres' ];

# ---- time passes ----

for my $db (qw(a b))
{
	$node->safe_psql($db, join '', map { start_runs(20, $_ . ' ms') } 200, 600, 1000, 1400);
	$node->safe_psql($db, start_runs(3, '1 h', kind => 'duration', more => q{max_duration => '700 ms'}));
	$node->safe_psql($db, start_runs(4, '500 ms', kind => 'again', more => q{max_attempts => 2, retry_base => '1 h'}));
	$node->safe_psql($db, start_runs(5, '1 h', kind => 'patient'));
}
ok( eventually(sub { state_of($observer, 'a', 'timed_out, requeued') eq '83|4' && state_of($observer, 'b', 'timed_out, requeued') eq '83|4' }),
	'runs of two databases time out, or go back to the queue, though nobody reads them');
for my $db (qw(a b))
{
	is($node->safe_psql($db, 'SELECT kind, status, phase, count(*) FROM run_tracker.runs GROUP BY 1, 2, 3 ORDER BY 1, 2'),
		<<'RUNS' =~ s/\n\z//r, "$db: those whose time is up, and no others");
again|pending|queued|4
duration|timeout|timed_out|3
k|timeout|timed_out|80
patient|running|active|5
RUNS
	is($node->safe_psql($db, q{SELECT DISTINCT kind, regexp_replace(error, '\d+\.\d{3} s', 'N s') FROM run_tracker.runs
		WHERE error IS NOT NULL ORDER BY 1}),
		<<'ERRORS' =~ s/\n\z//r, "$db: they say why");
duration|maximum duration: not finished after N s in status "running"
k|idle timeout: no activity for N s in status "running"
ERRORS
	is($node->safe_psql($db, q{SELECT count(*) FROM run_tracker.runs WHERE finished_at < started_at + LEAST(timeout, max_duration)}),
		'0', "$db: none is early");
	my $lateness = $node->safe_psql($db, lateness("kind = 'k'"));
	cmp_ok($lateness, '<', $late, "$db: none is late");
	note("lateness in $db: at most $lateness s");
	is($node->safe_psql($db, q{SELECT DISTINCT actor FROM run_tracker.transitions WHERE to_status = 'timeout'}),
		'run_tracker', "$db: the history says who did it");
	invariants_hold($node, $db, "$db: totals and open set are true");
	like(state_of($observer, $db, q{errors, failures, next_deadline_at - now() > interval '50 min', launcher_pid > 0}),
		qr/^0\|0\|t\|t$/, "$db: it sleeps until the next deadline, which is far away");
}

# ---- activity, and commits that wake the worker ----

# A deadline of an hour from now is the next one everywhere, and it would sleep for as long by itself.
my $client = connection($node, 'a');
my $timed_out = 83;

sub times_out
{
	my ($name, $n) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	$timed_out += $n;
	ok(eventually(sub { state_of($observer, 'a', 'timed_out') eq $timed_out }, 60), $name);
	return;
}

$client->query(start_runs(1, '2 s', kind => 'active'));
my $active = $client->query(q{SELECT run_id FROM run_tracker.runs WHERE kind = 'active';});
eventually(sub { $client->query("SELECT now() > started_at + interval '1 s' FROM run_tracker.runs WHERE run_id = '$active';") eq 't' });
$client->query("SELECT run_tracker.heartbeat_run('$active');");
times_out('a run with a heartbeat times out', 1);
is( $client->query("SELECT finished_at > started_at + interval '3 s' FROM run_tracker.runs WHERE run_id = '$active';"),
	't', 'not before its timeout after the heartbeat');
is(state_of($observer, 'a', 'rearmed'), '1', 'its deadline was moved once');

eventually(sub { workers() eq '0' });
$client->query(start_runs(1, '300 ms'));
times_out('a commit with an earlier deadline wakes it', 1);

$client->query('BEGIN;' . start_runs(1, '300 ms', kind => 'slow') . ' SELECT pg_sleep(1);');
$client->query('COMMIT;');
times_out('also one that comes after the deadline', 1);

$client->query('BEGIN; SAVEPOINT s;' . start_runs(1, '300 ms') . ' RELEASE s; COMMIT;');
times_out('a deadline of a subtransaction', 1);

$client->query('BEGIN; SAVEPOINT s;' . start_runs(1, '300 ms') . ' ROLLBACK TO s; COMMIT;');
$client->query('BEGIN;' . start_runs(1, '300 ms') . ' ROLLBACK;');
$client->query(q{UPDATE run_tracker.runs SET timeout = '200 ms' WHERE run_id = (SELECT run_id FROM run_tracker.runs WHERE kind = 'patient' AND finished_at IS NULL LIMIT 1);});
times_out('a timeout that is shortened; nothing of what was rolled back', 1);

$client->query(q{UPDATE run_tracker.open_runs SET deadline_at = '2001-01-01' WHERE phase = 'active';});
is($client->query('SELECT run_tracker.wake_worker();'), 't', 'wake_worker()');
ok(eventually(sub { state_of($observer, 'a', 'rearmed') eq '5' }), 'has it find what came in past the triggers');

# A worker that waits for more to come, before it leaves.
my $run = $client->query(q{SELECT run_id FROM run_tracker.runs WHERE kind = 'patient' AND finished_at IS NULL LIMIT 1;});
ok( eventually(
		sub {
			$client->query("UPDATE run_tracker.runs SET metadata = '{}' WHERE run_id = '$run';");
			return $observer->query(q{SELECT count(*) FROM pg_stat_activity JOIN run_tracker.worker_status USING (pid)
				WHERE backend_type = 'run_tracker worker' AND datname = 'a' AND database = 'a' AND worker_status.state = 'working'
				  AND pg_stat_activity.state = 'idle' AND wait_event_type = 'Extension' AND xact_start IS NULL
				  AND backend_xid IS NULL AND backend_xmin IS NULL;}) eq '1';
		}),
	'a worker that waits has no transaction, and holds nothing back');

# ---- nothing to do ----

ok( eventually(sub { workers() eq '0' && launcher('wait_event') eq $wait_event }, 60), 'workers are gone when there is nothing to do');
SKIP:
{
	my $pid = launcher('pid');
	skip 'the system does not tell what processes do', 1 unless my @counters = process_counters($pid);
	# Anything that happens all the time happens in each of these windows. Other processes may wake all others now
	# and then.
	my @seen;
	for (1 .. 4)
	{
		my @before = process_counters($pid);
		sleep(2);
		my @after = process_counters($pid);
		push @seen, join '|', map { $after[$_] - $before[$_] } 0, 1;
		last if $seen[-1] eq '0|0';
	}
	is($seen[-1], '0|0', 'the launcher does not wake up, and uses no CPU time') or diag("@seen");
}
is(workers(), '0', 'and has started no worker');

# All that work, and the idleness, have left no trace in the log.
is(join("\n", log_lines($node, 0)), '', 'launcher and workers write nothing to the log');
is(join("\n", log_errors($node, 0)), '', 'and nobody has failed');

# ---- settings of a database ----

# Clients have other settings; the worker has those of its own.
my %hostile = (
	read_only => 'default_transaction_read_only = on',
	statement_timeout => 'statement_timeout = 1',
	lock_timeout => 'lock_timeout = 1',
	idle => 'idle_in_transaction_session_timeout = 1',
	search_path => 'search_path = evil, pg_catalog',
	replica => 'session_replication_role = replica',
	serializable => 'default_transaction_isolation = serializable',
	repeatable => q{default_transaction_isolation = 'repeatable read'},
	deferrable => 'default_transaction_deferrable = on',
	row_security => 'row_security = off',
	role => 'role = nobody',
	formats => q{datestyle = 'SQL, DMY'},
	payload => 'run_tracker.max_payload = 1',
	identity => 'run_tracker.identity = role',
	no_scans => 'enable_indexscan = off');
local $ENV{PGOPTIONS} = join ' ', map { "-c $_" } 'default_transaction_isolation=read\\ committed',
  qw(default_transaction_read_only=off statement_timeout=0 lock_timeout=0 idle_in_transaction_session_timeout=0 search_path=public
  session_replication_role=origin default_transaction_deferrable=off row_security=on role=none datestyle=ISO
  run_tracker.max_payload=1MB run_tracker.identity=jwt);

$observer->query('CREATE ROLE tables_owner; CREATE ROLE nobody;');
$node->safe_psql('postgres', 'CREATE DATABASE pattern');
$node->safe_psql('pattern', <<'SQL');
CREATE EXTENSION run_tracker;
SELECT run_tracker.set_owner('tables_owner');
-- what a search_path would find instead
CREATE SCHEMA evil;
CREATE FUNCTION evil.less(timestamptz, timestamptz) RETURNS boolean LANGUAGE sql AS 'SELECT false';
CREATE OPERATOR evil.< (FUNCTION = evil.less, LEFTARG = timestamptz, RIGHTARG = timestamptz);
CREATE FUNCTION evil.equal(uuid, uuid) RETURNS boolean LANGUAGE sql AS 'SELECT false';
CREATE OPERATOR evil.= (FUNCTION = evil.equal, LEFTARG = uuid, RIGHTARG = uuid);
GRANT USAGE ON SCHEMA evil TO PUBLIC;
DO $$
DECLARE
    t regclass;
BEGIN
    FOR t IN SELECT oid::regclass FROM pg_class WHERE relnamespace = 'run_tracker'::regnamespace AND relkind = 'r' LOOP
        EXECUTE format('ALTER TABLE %s FORCE ROW LEVEL SECURITY', t);
    END LOOP;
END
$$;
SQL
my @hostile = sort keys %hostile;
for my $db (@hostile)
{
	$observer->query("CREATE DATABASE h_$db TEMPLATE pattern; ALTER DATABASE h_$db SET $hostile{$db};");
}
# Tables of a superuser, and all settings at once; they may also belong to the role that the worker connects as.
$observer->query('CREATE DATABASE h_all;');
$node->safe_psql('h_all', 'CREATE EXTENSION run_tracker; CREATE SCHEMA evil');
$observer->query("ALTER ROLE CURRENT_USER IN DATABASE h_all SET $hostile{$_};") for grep { !/repeatable|role/ } @hostile;
push @hostile, 'all';
$node->safe_psql("h_$_", start_runs(2, '500 ms') . start_runs(1, '500 ms', more => 'max_attempts => 2')) for @hostile;
for my $db (@hostile)
{
	ok(eventually(sub { state_of($observer, "h_$db", 'timed_out, requeued') eq '2|1' }, 30),
		'runs time out with ' . ($hostile{$db} // 'many settings of a role'))
	  or diag(state_of($observer, "h_$db", 'state, passes, errors, last_error'));
}
is($node->safe_psql("h_replica", 'SELECT count(*) FROM run_tracker.transitions'), '7', 'triggers fire');
invariants_hold($node, "h_$_", "h_$_: totals and open set are true") for qw(all replica read_only);
delete $ENV{PGOPTIONS};
# Each change of settings has all databases looked at: keep that short.
$observer->query("DROP DATABASE h_$_;") for @hostile;

# ---- switched off ----

$observer->query('ALTER DATABASE a SET run_tracker.enabled = off; SELECT pg_reload_conf();');
ok(eventually(sub { state_of($observer, 'a', 'state') eq 'disabled' }), 'it can be switched off in a database');
is(state_of($observer, 'b', 'state IN (\'sleeping\', \'working\')'), 't', 'in that one only');
$node->safe_psql($_, start_runs(1, '300 ms', kind => 'switch')) for qw(a b);
ok(eventually(sub { state_of($observer, 'b', 'timed_out') eq '84' }), 'runs of another one time out');
sleep(0.5);
is($client->query(q{SELECT status, deadline_at < now() FROM run_tracker.runs JOIN run_tracker.open_runs USING (run_id) WHERE runs.kind = 'switch';}),
	'running|t', 'those in it do not');
$observer->query('ALTER DATABASE a RESET run_tracker.enabled; SELECT pg_reload_conf();');
times_out('they do when it is switched on again', 1);

reload('run_tracker.enabled' => 'off');
ok(eventually(sub { state_of($observer, $_, 'state') eq 'disabled' }), "$_: it can be switched off everywhere") for qw(a b);
$client->query(start_runs(1, '100 ms', kind => 'switch'));
sleep(0.5);
is(state_of($observer, 'a', 'timed_out'), $timed_out, 'nothing times out');
reload('run_tracker.enabled' => 'on');
times_out('until it is switched on again', 1);

# ---- settings that change ----

eventually(sub { workers() eq '0' });
reload('run_tracker.batch_size' => '1');
my $passes = state_of($observer, 'a', 'passes');
$client->query(start_runs(20, '300 ms'));
times_out('batch_size = 1: runs time out', 20);
cmp_ok(state_of($observer, 'a', 'passes') - $passes, '>=', 20, 'one by one');
reload('run_tracker.batch_size' => '1000');
$passes = state_of($observer, 'a', 'passes');
$client->query('BEGIN;' . start_runs(20, '300 ms') . ' SELECT pg_sleep(0.4); COMMIT;');
times_out('batch_size = 1000: runs time out', 20);
cmp_ok(state_of($observer, 'a', 'passes') - $passes, '<', 20, 'together');

$client->query(q{UPDATE run_tracker.open_runs SET deadline_at = '2001-01-01' WHERE phase = 'active';});
my $rearmed = state_of($observer, 'a', 'rearmed');
reload('run_tracker.max_sleep' => '1s');
$passes = state_of($observer, 'a', 'passes');
ok(eventually(sub { state_of($observer, 'a', 'passes') > $passes + 2 }), 'max_sleep = 1 s: it looks every second');
is(state_of($observer, 'a', 'rearmed') - $rearmed, 4, 'and finds what came in past the triggers');
reload('run_tracker.max_sleep' => '1h');

# A listener hears of the last change, but not of many.
my $listener = listener($node, 'a');
reload('run_tracker.notify_interval' => '3s');
eventually(sub { state_of($observer, 'a', 'pending_notifications') eq '0' && workers() eq '0' });
$listener->heard;
my $sent = state_of($observer, 'a', 'notifications');
my $began = time();
for my $n (1 .. 50)
{
	$client->query("SELECT run_tracker.update_progress('$run', $n); SELECT pg_sleep(0.05);");
}
$sent = state_of($observer, 'a', 'notifications') - $sent;
my $elapsed = time() - $began;
cmp_ok($sent, '<=', 1 + int($elapsed / 3), "notify_interval = 3 s: 50 changes within some seconds are announced once, or twice");
note(sprintf '%d announcements of 50 changes within %.1f s', $sent, $elapsed);
ok($listener->wait_for(sub { ($_->{progress} // 0) == 50 }), 'the last one is announced');
reload('run_tracker.notify_interval' => '10ms');
$sent = state_of($observer, 'a', 'notifications');
for my $n (51 .. 70)
{
	$client->query("SELECT run_tracker.update_progress('$run', $n); SELECT pg_sleep(0.05);");
}
ok($listener->wait_for(sub { ($_->{progress} // 0) == 70 }), 'notify_interval = 10 ms: the last one is announced');
cmp_ok(state_of($observer, 'a', 'notifications') - $sent, '>', 3, 'and many before it');
$listener->close;

# Workers that had to make way for CREATE and DROP DATABASE say so; nobody else says anything.
is(join("\n", grep { !/ 57P01 FATAL: |exited with exit code 1/ } log_lines($node, 0)), '', 'there is still nothing in the log');
is(join("\n", grep { !/ 57P01 FATAL: / } log_errors($node, 0)), '', 'and no error');

# ---- the launcher is ended ----

for my $how (qw(pg_terminate_backend pg_cancel_backend))
{
	my $pid = launcher('pid');
	$observer->query("SELECT $how($pid);");
	ok( eventually(sub { $observer->query("SELECT count(*) FROM pg_stat_activity WHERE pid = $pid AND wait_event = '$wait_event';") eq '0' }),
		"$how() ends the launcher")
	  if $how eq 'pg_terminate_backend';
	$client->query(start_runs(3, '100 ms'));
	times_out("runs time out after $how() of the launcher", 3);
	ok(eventually(sub { launcher('pid') ne '' && state_of($observer, 'a', 'launcher_pid') eq launcher('pid') }), 'it is there');
	isnt(launcher('pid'), $pid, 'again, in another process') if $how eq 'pg_terminate_backend';
}

# ---- shutdown ----

$client->close;
invariants_hold($node, $_, "$_: totals and open set are true") for qw(a b postgres);
my $plain = new_server('plain', conf => "autovacuum = off\n");
# Workers of two databases are in the middle of something that takes a minute.
for my $db (qw(a b))
{
	$node->safe_psql($db, q{CREATE FUNCTION public.slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(60); RETURN NEW; END';
		CREATE TRIGGER slow BEFORE UPDATE ON run_tracker.runs FOR EACH ROW WHEN (NEW.status = 'timeout') EXECUTE FUNCTION public.slow();});
	$node->safe_psql($db, start_runs(1, '100 ms'));
}
ok( eventually(sub { $observer->query(q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'run_tracker worker' AND wait_event = 'PgSleep';}) eq '2' }),
	'two workers are busy');
$observer->close;
# What has to be written to disk is no business of the worker.
$_->safe_psql('postgres', 'CHECKPOINT') for $node, $plain;
my %seconds;
for my $server ($plain, $node)
{
	my $start = time();
	$server->stop('fast');
	$seconds{ $server->name } = time() - $start;
}
note(sprintf 'fast shutdown: %.2f s without, %.2f s with the library', $seconds{plain}, $seconds{worker});
cmp_ok($seconds{worker}, '<', $seconds{plain} + 2, 'a fast shutdown takes no longer with the library');
is(join("\n", log_lines($node, 0, qr/PANIC:|TRAP:|terminated by signal|WARNING:/)), '', 'and nothing goes wrong');

done_testing();
