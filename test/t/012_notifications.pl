# Who listens learns of every change that was committed, of nothing else, and of a thousand changes in a handful of
# notifications: with the worker announcing them, with the commits doing that, and with neither.
use strict;
use warnings;

use IPC::Run;
use JSON::PP;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time sleep);

use RunTracker;

my $keys = 'attempt current_step phase progress run_id status';
my $resync = '{"resync": true}';
my $marks = 0;

# Ids that tell what they are for.
sub id
{
	my ($n) = @_;
	return sprintf '00000000-0000-7000-8000-%012d', $n;
}

# Announcements in short, "12 running" for run 12.
sub short
{
	return map { $_->{resync} ? 'resync' : ($_->{run_id} =~ /-0*(\d+)$/)[0] . ' ' . $_->{status} } @_;
}

# All that is announced of what was committed before now: it comes before a run that is committed now.
sub heard_until_now
{
	my ($listener, $node, $db) = @_;
	my $found;

	# the mark must not be the one run too many in the queue
	$node->poll_query_until($db, 'SELECT pending_notifications = 0 FROM run_tracker.worker_status WHERE database = current_database()')
	  or die 'nothing is announced any more';
	# a mark can be lost in a resync
	for (1 .. 20)
	{
		my $mark = id(900_000_000 + ++$marks);

		$node->safe_psql($db, "SET run_tracker.notify = 'worker'; INSERT INTO run_tracker.runs (run_id, user_id) VALUES ('$mark', 'mark')");
		last if $found = $listener->wait_for(sub { ($_->{run_id} // '') eq $mark }, 3);
	}
	die 'nothing is announced any more' unless $found;
	return grep { ($_->{run_id} // '') !~ /-0009\d+$/ } $listener->heard;
}

sub status
{
	my ($node, $db, $column) = @_;
	return $node->safe_psql($db, "SELECT $column FROM run_tracker.worker_status WHERE database = current_database()");
}

my $node = new_server('announcing', conf => "shared_preload_libraries = 'run_tracker'\n");
for my $db (qw(db modes))
{
	$node->safe_psql('postgres', "CREATE DATABASE $db");
	$node->safe_psql($db, 'CREATE EXTENSION run_tracker');
}
my $listener = listener($node, 'db');
my $session = connection($node, 'db');
my ($run, $other, @heard, $out, $err);

# ---- announced by the worker ----

$run = id(1);
$session->query("SELECT run_tracker.create_run('$run', timeout => '1 hour');");
my $announced = $listener->wait_for(sub { 1 });
is_deeply(
	$announced,
	{ run_id => $run, status => 'pending', phase => 'queued', progress => undef, current_step => undef, attempt => 1 },
	'a new run is announced');
$session->query("SELECT run_tracker.start_run('$run');");
ok($listener->wait_for(sub { $_->{status} eq 'running' && $_->{phase} eq 'active' }), 'its start is announced');
$session->query("SELECT run_tracker.update_progress('$run', 40, 'thinking');");
ok($listener->wait_for(sub { ($_->{progress} // -1) eq '40' && $_->{current_step} eq 'thinking' }), 'and its progress');
$session->query("SELECT run_tracker.fail_run('$run', 'broken'); SELECT run_tracker.retry_run('$run');");
ok($listener->wait_for(sub { $_->{attempt} == 2 && $_->{status} eq 'pending' && !defined $_->{progress} }), 'and its next attempt');
heard_until_now($listener, $node, 'db');
like(
	join("\n", $listener->raw),
	qr/^\{"run_id": "$run", "status": "running", "phase": "active", "progress": 40, "current_step": "thinking", "attempt": 1\}$/m,
	'the payload is as documented');

$run = id(2);
$session->query("SELECT run_tracker.create_run('$run', max_duration => '500 milliseconds'); SELECT run_tracker.start_run('$run');");
ok($listener->wait_for(sub { $_->{run_id} eq $run && $_->{status} eq 'timeout' && $_->{phase} eq 'timed_out' }), 'a run that times out is announced');

# ---- a thousand changes are a handful of announcements ----

$run = id(3);
$session->query("SELECT run_tracker.create_run('$run', timeout => '1 hour'); SELECT run_tracker.start_run('$run');");
heard_until_now($listener, $node, 'db');
my $started = time();
$session->query(join "\n", map { "SELECT run_tracker.update_progress('$run', $_ / 10, 'step $_');" } 1 .. 1000);
my $seconds = time() - $started;
ok($listener->wait_for(sub { ($_->{current_step} // '') eq 'step 1000' && $_->{progress} == 100 }), 'of 1000 changes the last is announced');
@heard = heard_until_now($listener, $node, 'db');
# one per 200 ms, and a few more for workers that take turns; at most 20 where it took three seconds
my $limit = 5 + $seconds / 0.2;
cmp_ok(scalar(@heard), '<=', $limit, sprintf('%d announcements of 1000 changes in %.1f s', scalar(@heard), $seconds));
cmp_ok(scalar(@heard), '>=', 2, 'the first does not wait for the last');
is($heard[-1]{current_step}, 'step 1000', 'the last one has the final state');
my @steps = map { $_->{current_step} =~ /(\d+)/ } @heard;
is_deeply(\@steps, [ sort { $a <=> $b } @steps ], 'none goes back in time');

# A longer interval, for workers that live shorter than that, too.
$node->append_conf('postgresql.conf', "run_tracker.notify_interval = 5s\n");
$node->reload;
ok($node->poll_query_until('db', q{SELECT current_setting('run_tracker.notify_interval') = '5s'}), 'run_tracker.notify_interval is changed');
heard_until_now($listener, $node, 'db');
$started = time();
my $changes = 0;
while (time() < $started + 4)
{
	$session->query("SELECT run_tracker.update_progress('$run', 1, 'change " . ++$changes . "');");
	sleep(0.05);
}
@heard = $listener->heard;
# the first one may come at once, the second one 5 s after the one before
cmp_ok(scalar(@heard), '<=', 2, "with an interval of 5 s, a run that changes $changes times in 4 s is announced twice at most");
ok($listener->wait_for(sub { ($_->{current_step} // '') eq "change $changes" }), 'the last change is announced all the same');
# what follows has no time to lose
$node->append_conf('postgresql.conf', "run_tracker.notify_interval = 20ms\n");
$node->reload;
ok($node->poll_query_until('db', q{SELECT current_setting('run_tracker.notify_interval') = '20ms'}), 'and is changed again');
heard_until_now($listener, $node, 'db');

# ---- what is announced, and what is not ----

# Runs 11 to 19 are there, the tests below do something with them.
$node->safe_psql('db', <<'SQL');
CREATE FUNCTION run(n int) RETURNS uuid LANGUAGE sql IMMUTABLE AS $$ SELECT ('00000000-0000-7000-8000-' || lpad(n::text, 12, '0'))::uuid $$;
CREATE FUNCTION progress(n int) RETURNS void LANGUAGE sql AS $$ SELECT run_tracker.update_progress(run(n), floor(random() * 100)::int, random()::text) $$;
CREATE TABLE parent (id int PRIMARY KEY);
CREATE TABLE child (id int REFERENCES parent DEFERRABLE INITIALLY DEFERRED);
INSERT INTO run_tracker.runs (run_id, user_id) SELECT run(n), 'u' FROM generate_series(11, 19) n;
INSERT INTO run_tracker.tasks (run_id, task_id) SELECT run(n), run(n * 100) FROM generate_series(11, 19) n;
INSERT INTO run_tracker.runs (run_id, user_id, status) VALUES (run(20), 'u', 'completed');
SQL
heard_until_now($listener, $node, 'db');

my @cases = (
	# nothing that was rolled back
	[ 'a transaction that is rolled back', 'BEGIN; SELECT progress(11); SELECT run_tracker.create_run(run(31)); ROLLBACK;', '' ],
	[ 'one that failed', 'BEGIN; SELECT progress(11); SELECT 1/0; COMMIT;', '' ],
	[ 'one that fails as it commits', 'BEGIN; SELECT progress(11); INSERT INTO child VALUES (1); COMMIT;', '' ],
	[ 'a savepoint that is rolled back', 'BEGIN; SELECT progress(11); SAVEPOINT a; SELECT progress(12); ROLLBACK TO a; COMMIT;', '11' ],
	[ 'what comes after it', 'BEGIN; SAVEPOINT a; SELECT progress(11); ROLLBACK TO a; SELECT progress(12); RELEASE a; COMMIT;', '12' ],
	[ 'the same run before it', 'BEGIN; SELECT progress(11); SAVEPOINT a; SELECT progress(11); ROLLBACK TO a; COMMIT;', '11' ],
	[ 'the same run in it and after it', 'BEGIN; SAVEPOINT a; SELECT progress(11); ROLLBACK TO a; SELECT progress(11); COMMIT;', '11' ],
	[
		'a savepoint that is released within one that is rolled back',
		'BEGIN; SELECT progress(11); SAVEPOINT a; SAVEPOINT b; SELECT progress(12); RELEASE b; SELECT progress(13); ROLLBACK TO a; COMMIT;', '11'
	],
	[
		'one that is rolled back within one that is released',
		'BEGIN; SAVEPOINT a; SELECT progress(11); SAVEPOINT b; SELECT progress(12); ROLLBACK TO b; SELECT progress(13); RELEASE a; COMMIT;', '11 13'
	],
	[
		'a block that catches its error',
		'DO $$ BEGIN PERFORM progress(11); BEGIN PERFORM progress(12); PERFORM 1/0; EXCEPTION WHEN OTHERS THEN PERFORM progress(13); END; END $$;', '11 13'
	],
	[
		'blocks that commit',
		'DO $$ BEGIN PERFORM progress(11); COMMIT; PERFORM progress(12); ROLLBACK; PERFORM progress(13); END $$;', '11 13'
	],
	[ 'a serializable transaction', 'BEGIN ISOLATION LEVEL SERIALIZABLE; SELECT progress(11); SELECT progress(12); COMMIT;', '11 12' ],
	[
		'the next transaction of the session',
		'BEGIN; SELECT progress(11); ROLLBACK; BEGIN; SAVEPOINT a; SELECT progress(12); ROLLBACK; SELECT progress(13);', '13'
	],

	# activity
	[ 'a task', 'SELECT run_tracker.create_task(run(11), run(1199));', '11' ],
	[ 'the start of a task', 'SELECT run_tracker.start_task(run(1100));', '11' ],
	[ 'the end of a task', 'SELECT run_tracker.complete_task(run(1100), cost => 1);', '11' ],
	[ 'tasks of several runs', q{UPDATE run_tracker.tasks SET status = 'failed' WHERE task_id IN (run(1200), run(1300));}, '12 13' ],
	[ 'a message', q{SELECT run_tracker.add_message(run(12), 'user', 'hello');}, '12' ],
	[ 'a log line', q{SELECT run_tracker.add_log(run(13), 'line');}, '13' ],
	[ 'log lines of several runs', q{INSERT INTO run_tracker.logs (run_id, message) SELECT run(n), 'x' FROM generate_series(14, 16) n, generate_series(1, 5);}, '14 15 16' ],
	[ 'a claim', q{BEGIN; SELECT run_tracker.create_run(run(32), kind => 'claim', timeout => '1 hour'); SELECT attempt FROM run_tracker.claim_runs('w', kind => 'claim'); COMMIT;}, '32' ],
	[ 'a finished run', 'SELECT run_tracker.complete_run(run(17));', '17' ],
	[ 'a run that loses its name', q{UPDATE run_tracker.runs SET name = 'n' WHERE run_id = run(18);}, '18' ],

	# no changes
	[ 'an update that changes nothing', 'SELECT run_tracker.complete_run(run(17)); UPDATE run_tracker.runs SET priority = priority WHERE run_id = run(18);', '' ],
	[ 'a heartbeat', 'SELECT run_tracker.heartbeat_run(run(18));', '' ],
	[ 'a run that is inserted as finished', q{INSERT INTO run_tracker.runs (run_id, user_id, status) VALUES (run(33), 'u', 'completed');}, '' ],
	[
		'a task that is inserted as finished',
		q{INSERT INTO run_tracker.tasks (run_id, task_id, status, cost) VALUES (run(20), run(2000), 'completed', 1), (run(18), run(1899), 'failed', 1);}, ''
	],
	[ 'a run that is deleted', 'DELETE FROM run_tracker.runs WHERE run_id = run(16);', '' ],
	[ 'a run that came and went', 'BEGIN; SELECT run_tracker.create_run(run(34)); DELETE FROM run_tracker.runs WHERE run_id = run(34); COMMIT;', '' ],
);

# In which runs are announced, each at least once; in the second mode exactly once, in the order of the changes.
for my $mode (qw(worker commit))
{
	# the same runs again
	if ($mode eq 'commit')
	{
		$node->safe_psql(
			'db', q{DELETE FROM run_tracker.runs WHERE user_id <> 'mark' AND run_id <> run(20); DELETE FROM run_tracker.tasks;
			INSERT INTO run_tracker.runs (run_id, user_id) SELECT run(n), 'u' FROM generate_series(11, 19) n;
			INSERT INTO run_tracker.tasks (run_id, task_id) SELECT run(n), run(n * 100) FROM generate_series(11, 19) n});
		heard_until_now($listener, $node, 'db');
		$session->query(q{SET run_tracker.notify = 'commit';});
	}
	for my $case (@cases)
	{
		my ($name, $sql, $expected) = @$case;

		$session->query($sql);
		my @runs = map { s/ .*//r } short(heard_until_now($listener, $node, 'db'));
		if ($mode eq 'worker')
		{
			my %once = map { $_ => 1 } @runs;
			@runs = sort { $a <=> $b } keys %once;
		}
		is("@runs", $expected, "$mode: $name");
	}
}
$session->query('RESET run_tracker.notify;');

# ---- payloads ----

# No text makes a payload that is too long or no JSON; a long one is cut off between characters.
my %texts = (
	quotes => '"quoted" \'and\' "}, {"resync": true}',
	backslashes => 'C:\\new\\table\\u0041\\"\\',
	lines => "one\ntwo\r\n\tthree\b\f",
	control => join('', map { chr } 1 .. 31) . "\x7f",
	'long control' => "\x01" x 8000,
	'long quotes' => '"' x 8000,
	'long text' => 'x' x 8000,
	'long unicode' => "\x{1f600}" x 1600,
	'shifted by one' => 'x' . "\x{1f600}" x 1600,
	'shifted by two' => 'xx' . "\x{1f600}" x 1600,
	'shifted by three' => 'xxx' . "\x{4e2d}\x{e9}" x 1600,
	separators => "\x{2028}\x{2029}\x{feff}",
	empty => '');
for my $name (sort keys %texts)
{
	my $text = $texts{$name};

	$run = id(1000 + ++$marks);
	heard_until_now($listener, $node, 'db');
	utf8::encode(my $bytes = $text);
	my $hex = unpack 'H*', $bytes;
	$session->query("SELECT run_tracker.create_run('$run', name => 'secret'); "
		  . "UPDATE run_tracker.runs SET current_step = convert_from('\\x$hex', 'UTF8'), inputs = '\"secret\"', error = 'secret' WHERE run_id = '$run';");
	@heard = heard_until_now($listener, $node, 'db');
	my ($payload) = grep { /$run/ } reverse $listener->raw;
	my $step = $heard[-1]{current_step} // 'nothing';

	is(join(' ', sort keys %{ $heard[-1] }), $keys, "$name: all keys are there");
	ok($step eq substr($text, 0, length $step) && (length($text) > 200 ? length($step) >= 60 : $step eq $text), "$name: the text is there, or its beginning");
	ok(defined $payload && length($payload) < 8000 && $payload !~ /secret/, "$name: the payload is short, and has nothing else");
}
$node->safe_psql('db', <<'SQL');
SELECT run_tracker.define_lifecycle('hostile', jsonb_build_object('initial', 'a"b\', 'states', jsonb_build_object(
    'a"b\', '{"phase": "active", "next": ["done"]}'::jsonb, 'done', '{"phase": "succeeded"}'::jsonb)));
SELECT run_tracker.create_run(run(40), lifecycle => 'hostile');
SQL
is_deeply([ short(heard_until_now($listener, $node, 'db')) ], ['40 a"b\\'], 'a status of any characters');

# ---- who announces ----

my $modes = listener($node, 'modes');
my $runs_in_modes = 0;

# Sets run_tracker.notify for the database, and waits until no worker is left that began with another setting.
sub set_mode
{
	my ($server, $mode) = @_;

	$server->safe_psql('modes', "ALTER DATABASE modes SET run_tracker.notify = $mode");
	$server->poll_query_until('modes', q{SELECT NOT EXISTS (SELECT FROM run_tracker.worker_status WHERE database = 'modes' AND pid IS NOT NULL)})
	  or die 'the worker does not end';
	return;
}

# A transaction of several steps in a new session. Returns the number of its run.
sub steps_in_modes
{
	my ($server) = @_;
	my $n = ++$runs_in_modes;

	$server->safe_psql('modes', 'BEGIN; SELECT run_tracker.create_run(\'' . id($n) . "', timeout => \'1 hour\'); SELECT run_tracker.start_run('" . id($n) . "');"
		  . join('', map { "SELECT run_tracker.update_progress('" . id($n) . "', $_);" } 1 .. 20) . ' COMMIT;');
	return $n;
}

set_mode($node, 'off');
steps_in_modes($node);
$node->safe_psql('modes', "SELECT run_tracker.create_run('" . id(500) . "', max_duration => '100 milliseconds'); SELECT run_tracker.start_run('" . id(500) . "')");
ok($node->poll_query_until('modes', "SELECT phase = 'timed_out' FROM run_tracker.runs WHERE run_id = '" . id(500) . "'"), 'off: a run times out');
is_deeply([ heard_until_now($modes, $node, 'modes') ], [], 'off: nothing is announced, neither by sessions nor by the worker');
is($node->safe_psql('modes', q{SET run_tracker.notify = 'off'; SELECT pending_notifications FROM run_tracker.worker_status WHERE database = 'modes'}), '0', 'nor kept for later');

set_mode($node, 'commit');
my $count = status($node, 'modes', 'notifications');
my $n = steps_in_modes($node);
ok($modes->wait_for(sub { $_->{run_id} eq id($n) }), 'commit: a run is announced');
@heard = $modes->heard;
is_deeply([ map { [ short($_), $_->{progress} ] } @heard ], [ [ "$n running", 20 ] ], 'once in a transaction, with its state at the end');
is(status($node, 'modes', 'notifications'), $count, 'not by the worker');
$node->safe_psql('modes', "SELECT run_tracker.create_run('" . id(501) . "', max_duration => '100 milliseconds'); SELECT run_tracker.start_run('" . id(501) . "')");
ok($modes->wait_for(sub { $_->{run_id} eq id(501) && $_->{status} eq 'timeout' }), 'commit: what the worker times out is announced');
is_deeply([ short($modes->heard) ], [ '501 pending', '501 running', '501 timeout' ], 'once for each transaction');

set_mode($node, 'worker');
$count = status($node, 'modes', 'notifications');
$n = steps_in_modes($node);
ok($modes->wait_for(sub { $_->{run_id} eq id($n) && $_->{progress} == 20 }), 'worker: a run is announced');
ok($node->poll_query_until('modes', "SELECT notifications > $count FROM run_tracker.worker_status WHERE database = 'modes'"), 'by the worker, which counts it');

# Runs that are gone with their tables before they are announced.
for my $mode (qw(worker commit))
{
	$node->safe_psql('postgres', 'CREATE DATABASE gone');
	$node->safe_psql('gone', 'CREATE EXTENSION run_tracker');
	my ($rc) = $node->psql('gone', "SET run_tracker.notify = '$mode'; BEGIN; SELECT run_tracker.create_run(); DROP EXTENSION run_tracker CASCADE; DROP SCHEMA run_tracker CASCADE; COMMIT");
	is($rc, 0, "$mode: a transaction that drops what it has tracked commits");
	ok( $node->poll_query_until('db', q{SELECT pending_notifications = 0 AND errors = 0 AND pid IS NULL FROM run_tracker.worker_status WHERE database = 'gone'}),
		"$mode: and nobody misses it");
	$node->safe_psql('postgres', 'DROP DATABASE gone');
}

# ---- prepared transactions ----

for my $mode (qw(worker commit))
{
	my $sessions = connection($node, 'db', env => { PGOPTIONS => "-c run_tracker.notify=$mode" });

	heard_until_now($listener, $node, 'db');
	my $resyncs = status($node, 'db', 'resyncs');
	(undef, $err) = $sessions->query("BEGIN; SELECT progress(18); SELECT run_tracker.create_run(run(" . ($mode eq 'worker' ? 51 : 52) . ")); PREPARE TRANSACTION 'a';");
	is($err, '', "$mode: a transaction that has changed runs can be prepared");
	(undef, $err) = $sessions->query("BEGIN; SELECT progress(19); PREPARE TRANSACTION 'b';");
	is($err, '', "$mode: so can another one");
	is_deeply([ heard_until_now($listener, $node, 'db') ], [], "$mode: PREPARE TRANSACTION announces nothing");
	(undef, $err) = $sessions->query("ROLLBACK PREPARED 'b';");
	is($err, '', "$mode: it can be rolled back");
	is_deeply([ heard_until_now($listener, $node, 'db') ], [], "$mode: which announces nothing");
	$sessions->query("COMMIT PREPARED 'a';");
	ok($listener->wait_for(sub { $_->{resync} }), "$mode: after COMMIT PREPARED listeners are told to read everything again");
	is_deeply([ short(heard_until_now($listener, $node, 'db')) ], ['resync'], 'once');
	is(($listener->raw)[0], $resync, 'the payload is as documented');
	cmp_ok(status($node, 'db', 'resyncs') - $resyncs, '==', $mode eq 'worker' ? 1 : 0, "$mode: the worker counts what it has announced");

	# by a session that has not touched runs
	$sessions->query("BEGIN; SELECT progress(18); PREPARE TRANSACTION 'a';");
	connection($node, 'db', env => { PGOPTIONS => "-c run_tracker.notify=$mode" })->query("COMMIT PREPARED 'a';");
	ok($listener->wait_for(sub { $_->{resync} }), "$mode: also by another session");
	heard_until_now($listener, $node, 'db');
	$sessions->close;
}

# ---- workers that are terminated while they announce ----

# The listener keeps a picture of the runs, as an application would.
$node->safe_psql('db', "SELECT run_tracker.create_run(run(n)) FROM generate_series(101, 130) n");
heard_until_now($listener, $node, 'db');
my %picture;
my $reader = connection($node, 'db');
my $truth = q{SELECT run_id, progress, current_step FROM run_tracker.runs WHERE run_id BETWEEN run(101) AND run(130) ORDER BY 1;};

sub look
{
	for my $news ($listener->heard)
	{
		if ($news->{resync})
		{
			%picture = map { (split /\|/)[0] => $_ } split /\n/, $reader->query($truth);
		}
		else
		{
			$picture{ $news->{run_id} } = join '|', map { $news->{$_} // '' } qw(run_id progress current_step);
		}
	}
	return join "\n", map { $picture{$_} } sort keys %picture;
}

my $changes_sql = $node->basedir . '/changes.sql';
append_to_file($changes_sql, "\\set n random(101, 130)\n\\set p random(0, 100)\n\\set s random(1, 1000000)\nSELECT run_tracker.update_progress(run(:n), :p, 'step ' || :s);\n");
my $kill_sql = $node->basedir . '/kill.sql';
append_to_file($kill_sql, <<'SQL');
CREATE TEMP TABLE killed (pid int);
DO $$
DECLARE
    stop timestamptz := clock_timestamp() + interval '6 seconds';
BEGIN
    WHILE clock_timestamp() < stop LOOP
        WITH worker AS MATERIALIZED (SELECT pid FROM run_tracker.worker_status WHERE database = 'db' AND pid IS NOT NULL)
        INSERT INTO killed SELECT pid FROM worker WHERE pg_terminate_backend(pid);
        PERFORM pg_sleep(random() * 0.2);
    END LOOP;
END
$$;
SELECT count(DISTINCT pid) FROM killed;
SQL
%picture = map { (split /\|/)[0] => $_ } split /\n/, $reader->query($truth);
my $log_position = -s $node->logfile;
my ($pgbench_out, $killer_out) = ('', '');
my @server = ('-h', $node->host, '-p', $node->port);
my $pgbench = IPC::Run::start([ 'pgbench', '-n', '-c', '4', '-T', '6', '-f', $changes_sql, @server, 'db' ], '>', \$pgbench_out, '2>&1');
my $killer = IPC::Run::start([ 'psql', '-XqAt', '-f', $kill_sql, @server, 'db' ], '>', \$killer_out, '2>&1');
my $give_up = time() + 60;
until ($pgbench_out =~ /^tps/m && $killer_out =~ /^\d+$/m || time() > $give_up)
{
	$_->pump_nb for grep { $_->pumpable } $pgbench, $killer;
	look();
	sleep(0.02);
}
$pgbench->finish;
$killer->finish;
my $final = $reader->query($truth);
eventually(sub { look() eq $final });
same(look(), $final, 'a listener that reads everything again when it is told to knows the final state of all runs');
my ($killed) = $killer_out =~ /^(\d+)$/;
cmp_ok($killed // 0, '>=', 3, 'although ' . ($killed // 'no') . ' workers were terminated') or diag($killer_out);
like($pgbench_out, qr/number of failed transactions: 0 /, 'which no client has noticed');
is(join("\n", log_errors($node, $log_position, '57P01')), '', 'nor the log');

# The same in slow motion: somebody locks the table before the worker can read what it has to announce.
for my $how ('terminated', 'given up by itself')
{
	my $locker = connection($node, 'db');
	my $step = "changed before a worker was $how";
	my $errors = status($node, 'db', 'errors');

	heard_until_now($listener, $node, 'db');
	$session->query("BEGIN; SELECT run_tracker.update_progress(run(101), 50, '$step');");
	$locker->send('BEGIN; LOCK TABLE run_tracker.runs IN ACCESS EXCLUSIVE MODE;');
	ok(eventually(sub { $reader->query(q{SELECT count(*) FROM pg_locks WHERE relation = 'run_tracker.runs'::regclass AND mode = 'AccessExclusiveLock';}) }),
		"$how: somebody is about to lock the table");
	$session->query('COMMIT;');
	if ($how eq 'terminated')
	{
		ok( eventually(
				sub {
					$reader->query(q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'run_tracker worker' AND wait_event_type = 'Lock';});
				}),
			'a worker that waits for it is terminated');
	}
	ok(eventually(sub { status($node, 'db', 'errors') > $errors }), 'worker_status counts an error');
	$locker->query('ROLLBACK;');
	ok($listener->wait_for(sub { $_->{resync} || ($_->{current_step} // '') eq $step }, 120), 'what it had to announce is announced later');
	$locker->close;
}
invariants_hold($node, 'db', 'totals and open set are true');
$_->close for $listener, $reader, $session, $modes;
is(join("\n", grep { /PANIC|TRAP|signal/ } log_errors($node, 0)), '', 'the server never crashed');
$node->stop;

# ---- more than fits ----

my $small = new_server('small', conf => "shared_preload_libraries = 'run_tracker'\nrun_tracker.notify_queue_size = 16\nrun_tracker.notify_interval = 400ms\n");
$small->safe_psql('postgres', <<'SQL');
CREATE EXTENSION run_tracker;
CREATE FUNCTION run(n int) RETURNS uuid LANGUAGE sql IMMUTABLE AS $$ SELECT ('00000000-0000-7000-8000-' || lpad(n::text, 12, '0'))::uuid $$;
INSERT INTO run_tracker.runs (run_id, user_id, status, finished_at, created_at) SELECT run(n), 'u', 'completed', now(), now() FROM generate_series(1, 300) n;
SQL
$listener = listener($small, 'postgres');
$session = connection($small, 'postgres');
heard_until_now($listener, $small, 'postgres');

for my $mode (qw(worker commit))
{
	$session->query("SET run_tracker.notify = '$mode';");
	my @of_queue = 1 .. 16;

	$session->query("UPDATE run_tracker.runs SET name = '16 $mode' WHERE run_id BETWEEN run(1) AND run(16);");
	@heard = short(heard_until_now($listener, $small, 'postgres'));
	is(join(' ', sort { $a <=> $b } map { s/ .*//r } @heard), "@of_queue", "$mode: as many runs as run_tracker.notify_queue_size are announced one by one");
	$session->query("BEGIN; UPDATE run_tracker.runs SET name = 'again $mode' WHERE run_id BETWEEN run(1) AND run(16);"
		  . "UPDATE run_tracker.runs SET name = 'again and again $mode' WHERE run_id BETWEEN run(1) AND run(16); COMMIT;");
	@heard = short(heard_until_now($listener, $small, 'postgres'));
	is(join(' ', sort { $a <=> $b } map { s/ .*//r } @heard), "@of_queue", "$mode: also if they change twice");

	my $resyncs = status($small, 'postgres', 'resyncs');
	$session->query("UPDATE run_tracker.runs SET name = 'many $mode';");
	ok($listener->wait_for(sub { $_->{resync} }), "$mode: for more there is a resync");
	is(join("\n", grep { $_ ne 'resync' } short(heard_until_now($listener, $small, 'postgres'))), '', "$mode: instead of some of them");
	ok(scalar(grep { $_ eq $resync } $listener->raw), "$mode: with the payload that is documented");
	cmp_ok(status($small, 'postgres', 'resyncs') - $resyncs, '==', $mode eq 'worker' ? 1 : 0, "$mode: the worker counts what it has announced");

	$session->query("BEGIN; SAVEPOINT a; UPDATE run_tracker.runs SET name = 'never $mode'; ROLLBACK TO a; UPDATE run_tracker.runs SET name = 'one $mode' WHERE run_id = run(7); COMMIT;");
	is_deeply([ short(heard_until_now($listener, $small, 'postgres')) ], ['7 completed'], "$mode: nothing remains of many that were rolled back to a savepoint");
	$session->query("BEGIN; UPDATE run_tracker.runs SET name = 'never $mode'; ROLLBACK; UPDATE run_tracker.runs SET name = 'two $mode' WHERE run_id = run(8);");
	is_deeply([ short(heard_until_now($listener, $small, 'postgres')) ], ['8 completed'], "$mode: nor of a transaction");
}
$session->query('RESET run_tracker.notify;');

# Many transactions, faster than the worker announces.
$session->query(join "\n", map { "UPDATE run_tracker.runs SET name = 'single' WHERE run_id = run($_);" } 1 .. 300);
ok($listener->wait_for(sub { $_->{resync} }), 'many small transactions in one interval: a resync');
heard_until_now($listener, $small, 'postgres');
$session->query("UPDATE run_tracker.runs SET name = 'last' WHERE run_id = run(9);");
is_deeply([ short(heard_until_now($listener, $small, 'postgres')) ], ['9 completed'], 'after it, runs are announced one by one again');
cmp_ok(status($small, 'postgres', 'pending_notifications'), '<=', 16, 'no more is kept than there is room for');
$_->close for $listener, $session;
$small->stop;

# ---- without the worker ----

$node->adjust_conf('postgresql.conf', 'shared_preload_libraries', "''");
$node->start;
$modes = listener($node, 'modes');
steps_in_modes($node);
$node->safe_psql('modes', q{NOTIFY run_tracker, '{"mark": true}'});
ok($modes->wait_for(sub { $_->{mark} }), 'without the worker: a listener listens');
is(scalar(grep { !$_->{mark} } $modes->heard), 0, 'notify = worker: nothing is announced');
is($node->safe_psql('modes', 'SELECT count(*) FROM run_tracker.worker_status'), '0', 'there is no worker');

set_mode($node, 'commit');
$n = steps_in_modes($node);
ok($modes->wait_for(sub { ($_->{run_id} // '') eq id($n) }), 'notify = commit: a run is announced');
is_deeply([ map { [ short($_), $_->{progress} ] } $modes->heard ], [ [ "$n running", 20 ] ], 'once, with its state at the end');
$node->safe_psql('modes', "SELECT run_tracker.update_progress('" . id($n) . "', $_)") for 21 .. 23;
ok($modes->wait_for(sub { ($_->{progress} // 0) == 23 }), 'its changes are announced');
is(scalar(@heard = $modes->heard), 3, 'once for each transaction');
$node->safe_psql('modes', "SELECT run_tracker.create_run('" . id(502) . "', timeout => '1 minute'); SELECT run_tracker.start_run('" . id(502) . "')");
$node->safe_psql('modes', q{SELECT run_tracker.expire_runs(now => clock_timestamp() + interval '2 minutes')});
ok($modes->wait_for(sub { ($_->{run_id} // '') eq id(502) && $_->{status} eq 'timeout' }), 'and what expire_runs() ends');
$modes->heard;
$session = connection($node, 'modes');
(undef, $err) = $session->query("BEGIN; SELECT run_tracker.update_progress('" . id($n) . "', 24); PREPARE TRANSACTION 'a'; COMMIT PREPARED 'a';");
is($err, '', 'a transaction can be prepared');
ok($modes->wait_for(sub { $_->{resync} }), 'COMMIT PREPARED announces a resync');

set_mode($node, 'off');
$modes->heard;
steps_in_modes($node);
$node->safe_psql('modes', q{NOTIFY run_tracker, '{"mark": true}'});
ok($modes->wait_for(sub { $_->{mark} }), 'notify = off: a listener listens');
is(scalar(grep { !$_->{mark} } $modes->heard), 0, 'nothing is announced');
$_->close for $modes, $session;
invariants_hold($node, 'modes', 'totals and open set are true');
$node->stop;
done_testing();
