# Quotas under real concurrency: 64 connections that reserve, settle, release, fail and crash never exceed a cap in any
# snapshot, get exactly what there is, and are never refused what has been given back. The worker finds by itself what has
# expired; standbys show quotas; a dump carries what is reserved.
use strict;
use warnings;

use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

use RunTracker;

my $seconds = $ENV{RUN_TRACKER_STRESS_SECONDS} // 8;
my $clients = 64;

my $node = new_worker_server('reservations', conf => <<'CONF');
max_connections = 90
deadlock_timeout = 100ms
max_wal_senders = 4
restart_after_crash = on
log_statement = none
wal_level = replica
CONF
$node->safe_psql('postgres', <<'SQL');
CREATE EXTENSION run_tracker;
INSERT INTO run_tracker.tiers (name, monthly_tokens, daily_requests, monthly_cost) VALUES
    ('cap', 5000, 1000000, 50), ('count', NULL, 500, NULL), ('share', 640, NULL, 6.4);
INSERT INTO run_tracker.accounts (user_id, tier) VALUES ('cap', 'cap'), ('count', 'count'), ('share', 'share');
CREATE SCHEMA stress;
CREATE TABLE stress.done (what text);

-- A reservation, or null if there is no room.
CREATE FUNCTION stress.reserve(who text, tokens int) RETURNS uuid LANGUAGE plpgsql AS $$
BEGIN
    RETURN run_tracker.reserve_usage(who, tokens, tokens * 0.01);
EXCEPTION WHEN SQLSTATE 'RT004' THEN
    INSERT INTO stress.done VALUES ('refused');
    RETURN NULL;
END
$$;
-- A call: reserve in a transaction of its own, and let it end in some way. Now and then two in one transaction, or none.
CREATE PROCEDURE stress.call(who text) LANGUAGE plpgsql AS $$
DECLARE
    tokens int := 1 + floor(random() * 800);
    id uuid := stress.reserve(who, tokens);
    task uuid := gen_random_uuid();
    dice float := random();
BEGIN
    IF random() < 0.1 THEN
        ROLLBACK;
        INSERT INTO stress.done VALUES ('rolled back');
        id := NULL;
    END IF;
    COMMIT;
    IF random() < 0.5 THEN
        PERFORM pg_sleep(random() * 0.02);
        COMMIT;
    END IF;
    IF id IS NULL THEN
        RETURN;
    ELSIF dice < 0.6 THEN
        PERFORM run_tracker.release_usage(id);
        INSERT INTO stress.done VALUES ('released');
    ELSIF dice < 0.85 THEN
        -- mostly less than it might have been
        PERFORM run_tracker.settle_usage(id, floor(random() * LEAST(tokens, 3))::int, 0.001);
        INSERT INTO stress.done VALUES ('settled');
    ELSIF dice < 0.95 THEN
        INSERT INTO run_tracker.tasks (run_id, task_id, reservation_id) VALUES ('00000000-0000-0000-0000-000000000001', task, id);
        COMMIT;
        PERFORM run_tracker.complete_task(task, input_tokens => 1, cost => 0.01);
        INSERT INTO stress.done VALUES ('finished');
    ELSIF dice < 0.98 THEN
        PERFORM run_tracker.settle_usage(id, 1, 0.01);
        ROLLBACK;
        PERFORM run_tracker.release_usage(id);
        INSERT INTO stress.done VALUES ('settled in vain');
    ELSE
        INSERT INTO run_tracker.tasks (run_id, task_id, reservation_id) VALUES ('00000000-0000-0000-0000-000000000001', task, id);
        COMMIT;
        DELETE FROM run_tracker.tasks WHERE task_id = task;
        INSERT INTO stress.done VALUES ('deleted');
    END IF;
    COMMIT;
END
$$;
SELECT run_tracker.create_run('00000000-0000-0000-0000-000000000001', user_id => 'cap');

-- What a snapshot shows: sums of the tables themselves, and what a check counts.
CREATE VIEW stress.seen AS
SELECT u.user_id, s.monthly_tokens + s.reserved_tokens AS tokens, s.monthly_cost + s.reserved_cost AS cost, s.daily_requests + s.reserved_requests AS requests,
       s.monthly_tokens_limit AS max_tokens, s.monthly_cost_limit AS max_cost, s.daily_requests_limit AS max_requests,
       s.monthly_tokens AS used, COALESCE(e.tokens, 0) AS entries, s.reserved_tokens AS reserved, COALESCE(r.tokens, 0) AS held
FROM run_tracker.accounts u, LATERAL run_tracker.usage_sums(u.user_id) s,
     LATERAL (SELECT sum(total_tokens) AS tokens FROM run_tracker.usage e WHERE e.user_id = u.user_id) e,
     LATERAL (SELECT sum(tokens) AS tokens FROM run_tracker.reservations r WHERE r.user_id = u.user_id AND r.state = 'held' AND r.expires_at > clock_timestamp()) r;
-- Whatever is wrong in the snapshot.
CREATE VIEW stress.wrong AS
SELECT to_jsonb(s) AS what FROM stress.seen s
WHERE tokens > max_tokens OR cost > max_cost OR requests > max_requests OR used <> entries OR reserved <> held;
SQL

sub file
{
	my ($name, $sql) = @_;
	my $file = $node->basedir . "/$name.sql";
	append_to_file($file, $sql);
	return $file;
}

sub pgbench
{
	my (@arguments) = @_;
	return ('pgbench', '-n', '-c', $clients, '-j', 2, '--random-seed=1', @arguments, '-h', $node->host, '-p', $node->port, 'postgres');
}

# Looks, again and again, while the program runs; returns how often it did, the most that it has seen, and what was wrong.
sub watch
{
	my ($program) = @_;
	my $observer = connection($node, 'postgres');
	my ($looks, $most, @wrong) = (0, 0);

	while ($program->pumpable)
	{
		my ($tokens, @found) = split /\n/, $observer->query('BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SELECT max(tokens) FROM stress.seen; SELECT what FROM stress.wrong; COMMIT;');
		$most = $tokens if $tokens > $most;
		push @wrong, @found;
		$looks++;
		$program->pump_nb;
		sleep 0.02;
	}
	$observer->close;
	return ($looks, $most, @wrong);
}

sub none_wrong
{
	my ($name, @wrong) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	push @wrong, split /\n/, $node->safe_psql('postgres', 'SELECT what FROM stress.wrong');
	is(scalar(@wrong), 0, $name);
	diag(join "\n", @wrong > 5 ? @wrong[ 0 .. 4 ] : @wrong) if @wrong;
	return;
}

# ---- never more than the cap, in any snapshot ----

my $call = file('call', "CALL stress.call('cap');\n");
my $program = IPC::Run::start([ pgbench('-T', $seconds, '-f', $call) ], '>', \my $out, '2>', \my $err);
my ($looks, $most, @wrong) = watch($program);
ok($program->finish, "$clients clients reserve, settle and release for $seconds seconds");
none_wrong("in none of $looks snapshots there is more than the cap, or a sum that is not that of its entries", @wrong);
cmp_ok($most, '>', 4000, "they came close to it: $most of 5000");
my %done = map { split /\|/ } split /\n/, $node->safe_psql('postgres', 'SELECT what, count(*) FROM stress.done GROUP BY 1');
is(join(' ', grep { !$done{$_} } 'refused', 'rolled back', 'released', 'settled', 'finished', 'settled in vain', 'deleted'), '', 'everything has happened');
note(join ', ', map { "$done{$_} $_" } sort keys %done);
is($node->safe_psql('postgres', q{SELECT count(*) FROM run_tracker.reservations WHERE state = 'held'}), '0', 'nothing is left behind');
is(join("\n", log_errors($node, 0)), '', 'no error and no deadlock in the log');

# ---- exactly what there is ----

my $grab = file('grab', "SELECT stress.reserve('count', 0);\n");
my ($ok) = run_cmd($node, [ pgbench('-t', 20, '-f', $grab) ]);
ok($ok, "$clients clients ask 20 times for one request each");
is($node->safe_psql('postgres', q{SELECT count(*), sum(requests) FROM run_tracker.reservations WHERE user_id = 'count'}), '500|500', 'and get all 500 that there are, and no more');
is($node->safe_psql('postgres', q{SELECT count(run_tracker.release_usage(reservation_id)) FROM run_tracker.reservations WHERE user_id = 'count'}), '500', 'they are released');
($ok) = run_cmd($node, [ pgbench('-t', 20, '-f', $grab) ]);
is($node->safe_psql('postgres', q{SELECT count(*) FROM run_tracker.reservations WHERE user_id = 'count' AND state = 'held'}), '500', 'and all 500 can be had again');

# ---- no refusal of what has been given back ----

# each client never has more than its share: 10 of 640
$node->safe_psql('postgres', <<'SQL');
CREATE PROCEDURE stress.share() LANGUAGE plpgsql AS $$
DECLARE
    id uuid := run_tracker.reserve_usage('share', 10, 0.1, requests => 0);
BEGIN
    COMMIT;
    IF random() < 0.5 THEN
        PERFORM run_tracker.release_usage(id);
    ELSE
        PERFORM run_tracker.settle_usage(id, 0, 0, 0);
    END IF;
    COMMIT;
END
$$;
SQL
my $share = file('share', "CALL stress.share();\n");
$program = IPC::Run::start([ pgbench('-T', $seconds / 2, '-f', $share) ], '>', \$out, '2>', \$err);
($looks, $most, @wrong) = watch($program);
ok($program->finish, "$clients clients with a share each are never refused it") or diag($err);
is(join("\n", log_errors($node, 0)), '', 'no error in the log');
none_wrong("in none of $looks snapshots there is more than the cap", @wrong);

# ---- a crash in between ----

my $kept = $node->safe_psql('postgres', q{SELECT run_tracker.reserve_usage('kept', 1, 0, requests => 0)});
$program = IPC::Run::start([ pgbench('-T', 60, '-f', $call) ], '>', \$out, '2>', \$err);
my $victim = eventually(sub {
	$node->safe_psql('postgres', q{SELECT pid FROM pg_stat_activity WHERE query ~ 'stress.call' AND state = 'active' AND pid <> pg_backend_pid()
		AND (SELECT count(*) > 10 FROM run_tracker.reservations WHERE state = 'held') LIMIT 1});
});
kill 'KILL', $victim;
$program->finish;
ok(eventually(sub { $node->psql('postgres', 'SELECT 1') == 0 }), 'the server is there again after a backend was killed');
none_wrong('there is not more than the cap, and sums are those of their entries');
is($node->safe_psql('postgres', "SELECT state FROM run_tracker.reservations WHERE reservation_id = '$kept'"), 'held', 'what was under way is still reserved');
$program = IPC::Run::start([ pgbench('-T', 2, '-f', $call) ], '>', \$out, '2>', \$err);
($looks, $most, @wrong) = watch($program);
ok($program->finish, 'and it goes on');
none_wrong('with never more than the cap', @wrong);
$node->safe_psql('postgres', q{SELECT count(run_tracker.release_usage(reservation_id)) FROM run_tracker.reservations WHERE state = 'held'});
is($node->safe_psql('postgres', q{SELECT tokens = used, reserved FROM stress.seen WHERE user_id = 'cap'}), 't|0', 'all is released');
like($node->safe_psql('postgres', q{SELECT run_tracker.reserve_usage('cap', 5000 - used::int, 0) FROM stress.seen WHERE user_id = 'cap'}), qr/^[0-9a-f-]{36}$/, 'exactly the rest can be had');

# ---- the worker finds what has expired ----

my $observer = connection($node, 'postgres');
$observer->query(q{SELECT count(run_tracker.reserve_usage('late', 1, ttl => '1 second', requests => 0)) FROM generate_series(1, 2500);});
is($observer->query(q{SELECT count(*) FROM run_tracker.reservations WHERE user_id = 'late' AND state = 'held';}), '2500', 'reservations for a second');
ok( eventually(sub { $observer->query(q{SELECT count(*) FROM run_tracker.reservations WHERE user_id = 'late' AND state = 'held';}) eq '0' }, 30),
	'expire with nobody asking for it');
my $late = $observer->query(q{SELECT max(extract(epoch FROM ended_at - expires_at)) FROM run_tracker.reservations WHERE user_id = 'late';});
cmp_ok($late, '<', 4, "soon: the last one $late s late");
is($observer->query(q{SELECT min(state), max(state) FROM run_tracker.reservations WHERE user_id = 'late';}), 'expired|expired', 'as expired');
# one that somebody is settling does not keep the others, nor deadlines of runs
$observer->query(q{SELECT run_tracker.reserve_usage('slow', n, ttl => '1 second') FROM generate_series(1, 3) n;});
my $slow = connection($node, 'postgres');
$slow->query(q{BEGIN; SELECT run_tracker.settle_usage((SELECT reservation_id FROM run_tracker.reservations WHERE user_id = 'slow' AND tokens = 1), 7);});
$observer->query(start_runs(5, '1 second'));
ok( eventually(sub { $observer->query(q{SELECT count(*) FROM run_tracker.reservations WHERE user_id = 'slow' AND state = 'expired';}) eq '2' }, 30), 'the others expire');
ok( eventually(sub { $observer->query(q{SELECT count(*) FROM run_tracker.runs WHERE phase = 'timed_out';}) eq '5' }, 30), 'runs time out');
$slow->query('COMMIT;');
is($observer->query(q{SELECT state FROM run_tracker.reservations WHERE user_id = 'slow' AND tokens = 1;}), 'settled', 'it is settled');
# rolled back, it expires
$observer->query(q{SELECT run_tracker.reserve_usage('slow', 4, ttl => '1 second');});
$slow->query(q{BEGIN; SELECT run_tracker.release_usage((SELECT reservation_id FROM run_tracker.reservations WHERE user_id = 'slow' AND tokens = 4));});
sleep 1.5;
$slow->query('ROLLBACK;');
ok( eventually(sub { $observer->query(q{SELECT state FROM run_tracker.reservations WHERE user_id = 'slow' AND tokens = 4;}) eq 'expired' }, 30), 'or expires after a rollback');
is(state_of($observer, 'postgres', 'errors'), '0', 'the worker had no error');

# ---- a busy user's checks stay cheap: the worker folds for them ----

$observer->query(q{SELECT count(run_tracker.record_usage('busy', 1, requests => 0)) FROM generate_series(1, 1000);});
ok( eventually(sub {
		$observer->query(q{SELECT run_tracker.release_usage(run_tracker.reserve_usage('busy', 1, requests => 0));});
		return $observer->query(q{SELECT count(*) FROM run_tracker.stat_deltas WHERE user_id = 'busy';}) eq '0';
	}, 30), 'what was recorded is folded soon after a check');
is($observer->query(q{SELECT monthly_tokens FROM run_tracker.usage_sums('busy');}), '1000', 'and counts as before');

# ---- a standby ----

$node->backup('backup');
my $standby = PostgreSQL::Test::Cluster->new('reservations_standby');
$standby->init_from_backup($node, 'backup', has_streaming => 1);
$standby->start;
$observer->query(q{SELECT run_tracker.reserve_usage('share', 17, requests => 0);});
$node->wait_for_catchup($standby);
is($standby->safe_psql('postgres', q{SELECT monthly_tokens, reserved_tokens, monthly_tokens_limit FROM run_tracker.usage_sums('share')}), '0|17|640', 'a standby knows what is used and reserved');
for my $sql (q{SELECT run_tracker.reserve_usage('share')}, q{SELECT run_tracker.settle_usage(reservation_id) FROM run_tracker.reservations LIMIT 1},
	q{SELECT run_tracker.release_usage(reservation_id) FROM run_tracker.reservations LIMIT 1}, q{SELECT run_tracker.record_usage('share')},
	q{SELECT run_tracker.ensure_account('new')}, q{SELECT run_tracker.purge_usage('0')})
{
	my (undef, undef, $error) = $standby->psql('postgres', $sql);
	like($error, qr/cannot execute .* in a read-only transaction/, "read only: $sql");
}
$standby->stop;

# ---- a dump carries what is reserved ----

$observer->query(q{UPDATE run_tracker.accounts SET overrides = '{"monthly_tokens": 700, "rate_limits": {"a": {"limit": 1, "window": "1 s"}}}' WHERE user_id = 'share';
SELECT run_tracker.reserve_usage('restored', 5, ttl => '4 seconds');
INSERT INTO run_tracker.tasks (run_id, task_id, reservation_id) VALUES ('00000000-0000-0000-0000-000000000001', '00000000-0000-0000-0000-0000000000d1', run_tracker.reserve_usage('cap', 0, requests => 0));});
my $state = q{SELECT user_id, s.* FROM (SELECT user_id FROM run_tracker.accounts UNION SELECT user_id FROM run_tracker.reservations UNION SELECT user_id FROM run_tracker.usage) u, run_tracker.usage_sums(u.user_id) s WHERE user_id <> 'restored' ORDER BY 1;
SELECT * FROM run_tracker.reservations WHERE user_id <> 'restored' ORDER BY reservation_id; SELECT * FROM run_tracker.accounts ORDER BY 1; SELECT * FROM run_tracker.tiers ORDER BY 1; SELECT * FROM run_tracker.usage ORDER BY usage_id, task_id};
for my $mode ([ 'all at once', 'pg_dump' ], [ 'data apart', 'pg_dump', '--section=data' ])
{
	my ($name, @dump) = @$mode;
	$node->safe_psql('postgres', 'DROP DATABASE IF EXISTS restored');
	$node->safe_psql('postgres', 'CREATE DATABASE restored TEMPLATE template0');
	for my $section ($name eq 'all at once' ? ('') : ('--section=pre-data', '--section=data', '--section=post-data'))
	{
		my (undef, $dump) = run_cmd($node, [ 'pg_dump', $section ? $section : (), '-d', 'postgres' ]);
		my (undef, undef, $error) = run_cmd($node, [ 'psql', '-XqAt', '-v', 'ON_ERROR_STOP=1', '-o', '/dev/null', '-d', 'restored' ], $dump);
		is($error, '', "restored $section, $name");
	}
	same($node->safe_psql('restored', $state), $node->safe_psql('postgres', $state), "accounts, usage and reservations are the same, $name");
}
my $restored = connection($node, 'restored');
# a restore does not wake it
$restored->query('SELECT run_tracker.wake_worker();');
ok( eventually(sub { $restored->query(q{SELECT state FROM run_tracker.reservations WHERE user_id = 'restored';}) eq 'expired' }, 30), 'there, too, the worker finds what has expired');
is($restored->query(q{SELECT run_tracker.complete_task('00000000-0000-0000-0000-0000000000d1', input_tokens => 1); SELECT state FROM run_tracker.reservations WHERE task_id = '00000000-0000-0000-0000-0000000000d1';}),
	"t\nsettled", 'a task settles its reservation there');

$_->close for $observer, $slow, $restored;
is(join("\n", grep { !/57P0[12]|cannot execute|terminated by signal 9|was terminated by|57P02|stress.call/ } log_errors($node, 0, '25006', '57P01', '57P02', '57P03')), '', 'no other error in the log');
$node->stop;
done_testing();
