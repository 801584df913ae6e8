# Transactions that are prepared hold what they have changed for as long as they like, and are ended by others, perhaps
# after a restart: nobody waits for them, and no deadline is forgotten with them.
use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time sleep);

use RunTracker;

# The worker would sleep for a day, if nobody woke it.
my $node = new_server('prepared', conf => <<'CONF');
shared_preload_libraries = 'run_tracker'
run_tracker.max_sleep = 1d
max_prepared_transactions = 30
CONF

my $setup = <<'SQL';
CREATE EXTENSION run_tracker;
CREATE FUNCTION run(n int) RETURNS uuid LANGUAGE sql IMMUTABLE AS $$ SELECT ('00000000-0000-7000-8000-' || lpad(n::text, 12, '0'))::uuid $$;
CREATE FUNCTION start(n int, max_duration interval) RETURNS void LANGUAGE sql AS
$$ SELECT run_tracker.create_run(run(n), timeout => '1 day', max_duration => max_duration); SELECT run_tracker.start_run(run(n)) $$;
SQL
for my $db (qw(pass worker))
{
	$node->safe_psql('postgres', "CREATE DATABASE $db");
	$node->safe_psql($db, $setup);
}

# psql -c would put several statements into one transaction; a new session each time.
sub sql
{
	my ($db, $sql) = @_;
	my ($ok, $out, $err) = run_cmd($node, [ 'psql', '-XqAt', '-v', 'ON_ERROR_STOP=1', '-d', $db ], $sql);

	die "$err in $sql" unless $ok;
	chomp $out;
	return $out;
}

sub statuses
{
	my ($db, $from, $to) = @_;
	return sql($db, "SELECT string_agg(right(run_id::text, 3)::int || ' ' || status, ', ' ORDER BY run_id) FROM run_tracker.runs WHERE run_id BETWEEN run($from) AND run($to);");
}

# ---- one pass, at a time of our choosing ----

$node->safe_psql('postgres', 'ALTER DATABASE pass SET run_tracker.enabled = off');
ok($node->poll_query_until('pass', q{SELECT NOT EXISTS (SELECT FROM run_tracker.worker_status WHERE database = 'pass' AND pid IS NOT NULL)}),
	'the worker has left the database');

# What is prepared, and what becomes of the run, if that is committed and if it is rolled back.
my @cases = (
	[ 'nothing', '', 'timeout', 'timeout' ],
	[ 'progress', 'SELECT run_tracker.update_progress(run(:n), 50)', 'timeout', 'timeout' ],
	[ 'a heartbeat', 'SELECT run_tracker.heartbeat_run(run(:n))', 'timeout', 'timeout' ],
	[ 'a message', q{SELECT run_tracker.add_message(run(:n), 'user', 'hello')}, 'timeout', 'timeout' ],
	[ 'a log line', q{SELECT run_tracker.add_log(run(:n), 'line')}, 'timeout', 'timeout' ],
	[ 'a new task', q{SELECT run_tracker.create_task(run(:n), gen_random_uuid())}, 'timeout', 'timeout' ],
	[ 'the end of a task', q{SELECT run_tracker.complete_task(run(:n), 'answer', cost => 1)}, 'timeout', 'timeout' ],
	[ 'a task that fails', q{UPDATE run_tracker.tasks SET status = 'failed', cost = 2 WHERE task_id = run(:n)}, 'timeout', 'timeout' ],
	[ 'its end', q{SELECT run_tracker.complete_run(run(:n))}, 'completed', 'timeout' ],
	[ 'a pause', q{SELECT run_tracker.transition_run(run(:n), 'paused')}, 'paused', 'timeout' ],
	[ 'its return to the queue', 'SELECT run_tracker.release_run(run(:n))', 'pending', 'timeout' ],
	[ 'its deletion', 'DELETE FROM run_tracker.runs WHERE run_id = run(:n)', undef, 'timeout' ],
	[ 'its priority', 'UPDATE run_tracker.runs SET priority = 7 WHERE run_id = run(:n)', 'timeout', 'timeout' ],
	[ 'its timeout', q{UPDATE run_tracker.runs SET timeout = '1 year' WHERE run_id = run(:n)}, 'running', 'timeout' ],
	[ 'a lock', 'SELECT FROM run_tracker.runs WHERE run_id = run(:n) FOR UPDATE', 'timeout', 'timeout' ],
	[ 'a new run', 'SELECT run_tracker.create_run(run(:n)); SELECT run_tracker.start_run(run(:n))', 'timeout', undef ],
	[ 'a claim', "SELECT attempt FROM run_tracker.claim_runs('w', kind => 'to claim :n')", 'timeout', 'pending' ],
	[ 'its time out', q{SELECT run_tracker.expire_runs(now => clock_timestamp() + interval '1 hour')}, 'timeout', 'timeout' ]);

for my $end ('COMMIT', 'ROLLBACK')
{
	my $base = $end eq 'COMMIT' ? 100 : 200;

	for my $i (0 .. $#cases)
	{
		my ($name, $sql) = @{ $cases[$i] };
		my $n = $base + $i;

		if ($name eq 'a claim')
		{
			sql('pass', "SELECT run_tracker.create_run(run($n), kind => 'to claim $n');");
		}
		elsif ($name ne 'a new run')
		{
			sql('pass', "SELECT run_tracker.create_run(run($n)); SELECT run_tracker.start_run(run($n)); SELECT run_tracker.create_task(run($n), run($n)); SELECT run_tracker.start_task(run($n));");
		}
		$sql =~ s/:n/$n/g;
		# the pass that is prepared is to find this run only
		$sql = '' if $name eq 'its time out';
		sql('pass', "BEGIN; $sql; PREPARE TRANSACTION 'p$n';") if $sql;
	}

	# a pass that waited would wait for ever
	is( sql('pass', q{SET statement_timeout = '30s'; BEGIN; SELECT run_tracker.expire_runs(now => clock_timestamp() + interval '1 hour'); PREPARE TRANSACTION 'pass';}),
		'2', "$end PREPARED: a pass ends the runs that no prepared transaction holds");
	is(sql('pass', q{SET statement_timeout = '30s'; SELECT run_tracker.expire_runs(now => clock_timestamp() + interval '1 hour');}),
		'0', 'another one leaves those of the first alone, which is prepared');
	my @held = map { $base + $_ } grep { $cases[$_][1] && $cases[$_][0] ne 'a new run' && $cases[$_][0] ne 'a claim' } 0 .. $#cases;
	is( sql('pass', "SELECT count(*) FROM run_tracker.runs WHERE status = 'running' AND run_id BETWEEN run($base) AND run($base + 99);"),
		scalar(@held) + 1, 'all others are as they were');
	my ($claim) = map { $base + $_ } grep { $cases[$_][0] eq 'a claim' } 0 .. $#cases;
	is(sql('pass', "SET statement_timeout = '30s'; SELECT count(*) FROM run_tracker.claim_runs('w', 10, kind => 'to claim $claim');"), '0', 'a claim waits for nobody');
	my ($heartbeat) = map { $base + $_ } grep { $cases[$_][0] eq 'a heartbeat' } 0 .. $#cases;
	is(sql('pass', "SET statement_timeout = '30s'; SELECT run_tracker.heartbeat_run(run($heartbeat));"), 'f', 'nor does a heartbeat');
	invariants_hold($node, 'pass', 'totals and open set are true');

	sql('pass', "$end PREPARED 'pass';");
	sql('pass', "$end PREPARED 'p" . ($base + $_) . "';") for grep { $cases[$_][1] && $cases[$_][0] ne 'its time out' } 0 .. $#cases;
	sql('pass', q{SELECT run_tracker.expire_runs(now => clock_timestamp() + interval '1 hour');});
	my %status = map { split / /, $_, 2 } split /, /, statuses('pass', $base, $base + 99);
	for my $i (0 .. $#cases)
	{
		is($status{ $base + $i }, $cases[$i][ $end eq 'COMMIT' ? 2 : 3 ], "after $end PREPARED of $cases[$i][0]");
	}
	is(sql('pass', q{SELECT count(*) FROM run_tracker.tasks t JOIN run_tracker.runs r USING (run_id) WHERE r.phase = 'timed_out' AND t.finished_at IS NULL;}),
		'0', 'open tasks of what has timed out are closed');
	invariants_hold($node, 'pass', 'totals and open set are true');
}
is(sql('pass', 'SELECT count(*) FROM pg_prepared_xacts;'), '0', 'nothing is left prepared');

# ---- the worker ----

# Has it looked at all it knows, and gone to sleep?
sub asleep
{
	my ($name) = @_;

	ok( $node->poll_query_until('worker', q{SELECT state = 'sleeping' AND passes > 0 AND next_deadline_at IS NULL FROM run_tracker.worker_status WHERE database = 'worker'}),
		$name);
	return;
}

# Does a run end, without anybody waking the worker? The worker itself may not be asked: only the run is looked at.
sub ends
{
	my ($n, $name) = @_;

	ok($node->poll_query_until('worker', "SELECT status = 'timeout' FROM run_tracker.runs WHERE run_id = run($n)"), $name);
	return;
}

for my $restart (0, 1)
{
	my $when = $restart ? 'after a restart' : 'without a restart';
	my $base = 300 + 100 * $restart;
	my $at = sub { $base + $_[0] };

	# runs that are there, held longer than they may last
	sql('worker', join ' ', map { "SELECT start(@{[ $at->($_) ]}, '1 second');" } 1 .. 4);
	sql('worker', "BEGIN; SELECT run_tracker.update_progress(run(@{[ $at->(1) ]}), 1); PREPARE TRANSACTION 'progress to commit';");
	sql('worker', "BEGIN; SELECT run_tracker.update_progress(run(@{[ $at->(2) ]}), 1); PREPARE TRANSACTION 'progress to roll back';");
	sql('worker', "BEGIN; SELECT run_tracker.complete_run(run(@{[ $at->(3) ]})); PREPARE TRANSACTION 'end to roll back';");
	sql('worker', "BEGIN; SELECT run_tracker.complete_run(run(@{[ $at->(4) ]})); PREPARE TRANSACTION 'end to commit';");
	$node->restart if $restart;
	sql('worker', "SELECT start(@{[ $at->(5) ]}, '1 second');");
	ends($at->(5), "$when: runs that nobody holds end");
	is(statuses('worker', $at->(1), $at->(4)), join(', ', map { $at->($_) . ' running' } 1 .. 4), 'those that are held do not');
	sql('worker', "ROLLBACK PREPARED 'end to roll back';");
	ends($at->(3), "$when: a run ends after ROLLBACK PREPARED of its end");
	sql('worker', "ROLLBACK PREPARED 'progress to roll back';");
	ends($at->(2), 'after ROLLBACK PREPARED of something else');
	sql('worker', "COMMIT PREPARED 'progress to commit';");
	ends($at->(1), 'after COMMIT PREPARED');
	sql('worker', "COMMIT PREPARED 'end to commit';");
	is(statuses('worker', $at->(4), $at->(4)), $at->(4) . ' completed', 'and one that had been ended is as it was');

	# runs that nobody has seen yet
	sql('worker', "SELECT run_tracker.create_run(run(@{[ $at->(12) ]}), kind => 'k$base', max_duration => '1 second');");
	sql('worker', "BEGIN; SELECT start(@{[ $at->(11) ]}, '1 second'); PREPARE TRANSACTION 'new';");
	sql('worker', "BEGIN; SELECT attempt FROM run_tracker.claim_runs('w', kind => 'k$base'); PREPARE TRANSACTION 'claimed';");
	sql('worker', "BEGIN; SELECT start(@{[ $at->(13) ]}, '1 second'); PREPARE TRANSACTION 'rolled back';");
	sql('worker', "BEGIN; SELECT start(@{[ $at->(14) ]}, '1 hour'); PREPARE TRANSACTION 'later';");
	$node->restart if $restart;
	sleep(1.2);
	asleep("$when: the worker sees nothing of new runs");
	sql('worker', "COMMIT PREPARED 'new';");
	ends($at->(11), "$when: a run that was created ends after COMMIT PREPARED");
	asleep('the worker sleeps');
	sql('worker', "COMMIT PREPARED 'claimed';");
	ends($at->(12), 'so does one that was claimed');
	asleep('the worker sleeps');
	sql('worker', "ROLLBACK PREPARED 'rolled back';");
	sql('worker', "COMMIT PREPARED 'later';");
	ok( $node->poll_query_until('worker', q{SELECT next_deadline_at BETWEEN now() + interval '50 minutes' AND now() + interval '1 hour' FROM run_tracker.worker_status WHERE database = 'worker'}),
		'the worker knows of a deadline that is to come');
	is(statuses('worker', $at->(13), $at->(14)), $at->(14) . ' running', 'and only of that');
	# activity that was prepared and is committed later than the next deadline
	sql('worker', "SELECT run_tracker.complete_run(run(@{[ $at->(14) ]}));");
	invariants_hold($node, 'worker', 'totals and open set are true');
}

# ---- held for long ----

# Switches the worker off and on.
sub enable
{
	my ($on) = @_;
	my $passes = sql('worker', q{SELECT passes FROM run_tracker.worker_status WHERE database = 'worker';});

	$node->append_conf('postgresql.conf', "run_tracker.enabled = $on\n");
	$node->reload;
	return $node->poll_query_until('worker',
		'SELECT ' . ($on ? "passes > $passes" : q{state = 'disabled' AND pid IS NULL}) . q{ FROM run_tracker.worker_status WHERE database = 'worker'});
}

# More than fit in one pass, due, and in front of all others.
ok(enable(0), 'the worker is switched off');
sql('worker', <<'SQL');
INSERT INTO run_tracker.runs (run_id, user_id, max_duration) SELECT run(n), 'u', '10 milliseconds' FROM generate_series(10001, 10600) n;
UPDATE run_tracker.runs SET status = 'running' WHERE run_id BETWEEN run(10001) AND run(10600);
BEGIN;
UPDATE run_tracker.runs SET progress = 1 WHERE run_id BETWEEN run(10001) AND run(10600);
PREPARE TRANSACTION 'long';
SQL
ok(enable(1), 'and on again');
sleep(1);
my $passes = sql('worker', q{SELECT passes FROM run_tracker.worker_status WHERE database = 'worker';});
my $started = time();
sleep(6);
my $more = sql('worker', q{SELECT passes FROM run_tracker.worker_status WHERE database = 'worker';}) - $passes;
my $seconds = time() - $started;
# the time between two looks doubles up to 5 s: here 3 or 4 of them, and hundreds if it did not
cmp_ok($more, '<=', 6 + $seconds / 2, sprintf('the worker looks at them %d times in %.1f s', $more, $seconds));
cmp_ok($more, '>=', 1, 'but does look');

for my $n (601 .. 608)
{
	sql('worker', "SELECT start($n, '100 milliseconds');");
	ends($n, 'meanwhile, another run ends') if $n == 608;
	sleep(0.2);
}
is( sql('worker', q{SELECT count(*) FROM run_tracker.runs WHERE run_id BETWEEN run(601) AND run(608) AND finished_at < started_at + interval '4 seconds';}),
	'8', 'each within seconds of its time, although the worker waits longer for what is held');
is(sql('worker', q{SELECT count(*) FROM run_tracker.runs WHERE run_id BETWEEN run(10001) AND run(10600) AND status = 'running';}), '600', 'what is held does not end');
is(sql('worker', q{SELECT errors FROM run_tracker.worker_status WHERE database = 'worker';}), '0', 'that is no error');
sql('worker', "COMMIT PREPARED 'long';");
ok( $node->poll_query_until('worker', q{SELECT count(*) = 600 FROM run_tracker.runs WHERE run_id BETWEEN run(10001) AND run(10600) AND status = 'timeout'}),
	'all end when it has let go of them');
invariants_hold($node, 'worker', 'totals and open set are true');
ok($node->poll_query_until('worker', q{SELECT state = 'sleeping' AND next_deadline_at IS NULL FROM run_tracker.worker_status WHERE database = 'worker'}),
	'the worker has nothing left to do');

is(join("\n", log_errors($node, 0, '57P01')), '', 'there are no errors in the log');
$node->stop;
done_testing();
