# health() and metrics on a real server: with a worker that works, is switched off, fails or cannot run; what promtool
# says of openmetrics(); statistics that nobody folds; who holds back VACUUM; a standby.
use strict;
use warnings;

use JSON::PP;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use RunTracker;

my $node = new_worker_server('metrics', conf => "run_tracker.fold_interval = '200 ms'\nrun_tracker.max_sleep = '2 s'\nmax_wal_senders = 5\n");
$node->safe_psql('postgres', 'CREATE ROLE service LOGIN; CREATE ROLE app LOGIN');

# Makes a database with the extension. Its name has what a label may have.
sub new_database
{
	my ($db) = @_;

	$node->safe_psql('postgres', 'CREATE DATABASE "' . $db =~ s/"/""/gr . '"');
	$node->safe_psql($db, q{CREATE EXTENSION run_tracker; SELECT run_tracker.grant_service('service')});
	return;
}

# health() as a hash; a role may be given.
sub health
{
	my ($server, $db, $role) = @_;
	my $set = $role ? "SET ROLE $role;" : '';

	return JSON::PP->new->utf8->decode($server->safe_psql($db, "$set SELECT run_tracker.health()"));
}

# Its status and the codes of its problems.
sub verdict
{
	my ($health) = @_;

	return join ' ', $health->{status}, map { $_->{code} } @{ $health->{problems} };
}

# Waits for a verdict, and returns what there is.
sub verdict_becomes
{
	my ($server, $db, $expected) = @_;

	eventually(sub { verdict(health($server, $db)) eq $expected }, 60);
	return verdict(health($server, $db));
}

# The value of a metric without labels.
sub metric
{
	my ($server, $db, $name) = @_;

	return $server->safe_psql($db, "SELECT m.value FROM run_tracker.metrics m WHERE m.name = 'run_tracker_$name'");
}

# Do statistics say what the runs say, in one snapshot? The runs of all users, so that there may be none at first.
my $exact = <<'SQL';
SELECT NOT EXISTS (
    (SELECT r.user_id, count(*), count(r.finished_at), count(*) FILTER (WHERE r.phase = 'succeeded'),
            count(*) FILTER (WHERE r.phase = 'failed'), COALESCE(sum(t.tasks), 0), COALESCE(sum(t.tokens), 0)
     FROM run_tracker.runs r
          LEFT JOIN (SELECT t.run_id, count(*) FILTER (WHERE t.phase = 'succeeded') AS tasks, sum(t.total_tokens) AS tokens
                     FROM run_tracker.tasks t WHERE t.finished_at IS NOT NULL GROUP BY 1) t USING (run_id)
     GROUP BY 1)
    EXCEPT
    (SELECT u.user_id, u.total, u.finished, u.successful, u.failed, u.task_count, u.total_tokens FROM run_tracker.user_stats() u))
SQL

# ---- a worker that works ----

my $db = 'app "1" \\';
new_database($db);
is(verdict_becomes($node, $db, 'healthy'), 'healthy', 'with the library preloaded, everything is all right');
my $health = health($node, $db);
is($health->{database}, $db, 'health() tells the database');
ok($health->{worker}{available} && $health->{worker}{launcher_pid} > 0 && $health->{worker}{passes} > 0, 'and that there is a worker');
is($health->{notifications}{capacity}, 2048, 'and how many announcements can wait');
is(join(' ', map { $health->{statistics}{$_} ? 1 : 0 } qw(complete pending_deltas)), '1 0', 'and that statistics are folded');
is(health($node, $db, 'service')->{worker}{state}, $health->{worker}{state}, 'a service sees it, too');
$node->safe_psql($db, q{SELECT run_tracker.grant_reader('app')});
is_deeply(health($node, $db, 'app')->{worker}, { available => JSON::PP::true }, 'a reader sees that there is one');
is($node->safe_psql($db, q{SET ROLE app; SELECT count(*) FROM run_tracker.metrics m WHERE m.name ~ 'worker|notif|deltas'}), '0', 'and none of its metrics');

# ---- promtool ----

# By whatever package or archive it came, or by test/deps.
my ($promtool) = grep { -x } map { "$_/promtool" } split(/:/, $ENV{PATH}), '/usr/local/lib/run_tracker-test';

$node->safe_psql($db, <<'SQL');
INSERT INTO run_tracker.runs (user_id, kind, status, duration_ms)
SELECT 'u' || n % 3, k, s, 100 * n
FROM unnest(ARRAY[NULL, '', 'say "hi"', E'back\\slash', E'two\nlines\n# EOF\n', E'\\n', E'"} 1\nfake_metric{x="', E'tab\there\r', E'\r\n',
                  'ünïcödé ✓ 日本語', 'other', '{}', ' ', E'\\', '"', E'\u200b', E'\x01\x7f', repeat('long ✓', 100), 'NaN', '# HELP']) WITH ORDINALITY AS t (k, n),
     unnest('{completed,failed,cancelled,timeout,pending}'::text[]) s;
INSERT INTO run_tracker.tasks (run_id, provider, model, operation, status, input_tokens, output_tokens, cost, time_to_first_token_ms)
SELECT r.run_id, r.kind, r.kind, r.kind, s, 1, 2, c, 100
FROM run_tracker.runs r, unnest('{completed,failed,cancelled,timeout}'::text[]) s, unnest('{1e-40,0.1,1e9}'::numeric[]) c WHERE r.status <> 'pending';
INSERT INTO run_tracker.runs (user_id, kind, status) SELECT 'u', 'noise ' || n, 'completed' FROM generate_series(1, 500) n;
SQL

# What promtool says, and whether it is content. It reads a file, since it may stop reading.
sub promtool_says
{
	my ($text) = @_;
	my $file = $node->basedir . '/metrics.txt';
	my ($out, $err) = ('', '');

	unlink $file;
	append_to_file($file, $text);
	my $ok = IPC::Run::run([ $promtool, 'check', 'metrics' ], '<', $file, '>', \$out, '2>', \$err);
	return ($ok ? '' : 'failed: ') . "$out$err";
}

SKIP:
{
	skip 'promtool is not installed (on Debian, it is in the package prometheus; test/deps installs it)', 5 unless $promtool;

	my $text = $node->safe_psql($db, 'SELECT run_tracker.openmetrics()') . "\n";
	is(promtool_says($text), '', 'promtool accepts openmetrics(), without a warning');
	is(promtool_says($node->safe_psql($db, 'SET ROLE app; SELECT run_tracker.openmetrics()') . "\n"), '', 'also that of a user without runs');
	like(promtool_says($text =~ s/\\"/"/r), qr/^failed: .*parsing error/, 'it would notice what is not escaped');
	like(promtool_says($text =~ s/^# HELP run_tracker_runs .*\n//mr), qr/^failed: .*no help text/, 'what is not described');
	like(promtool_says($text =~ s/_(retried)_total\b/_$1/gr), qr/^failed: .*"_total" suffix/, 'and names that are against conventions');
}
is($node->safe_psql($db, q{SELECT count(*) - count(DISTINCT (m.name, m.labels)) FROM run_tracker.metrics m}), '0', 'there are no two samples of one name and the same labels');
ok($node->poll_query_until($db, q{SELECT m.value = 0 FROM run_tracker.metrics m WHERE m.name = 'run_tracker_pending_statistics_deltas'}), 'the worker folds the statistics');
cmp_ok(metric($node, $db, 'worker_deltas_folded_total'), '>', 600, 'which its metrics tell');
is(metric($node, $db, 'worker_running'), '1', 'as they tell that it is there');

# ---- switched off, while runs come and go ----

new_database('load');
is(verdict_becomes($node, 'load', 'healthy'), 'healthy', 'all is well in another database');
$node->safe_psql('postgres', 'ALTER DATABASE load SET run_tracker.enabled = off');
is(verdict_becomes($node, 'load', 'degraded worker_disabled'), 'degraded worker_disabled', 'health() says that the worker is switched off');
my $script = $node->basedir . '/load.sql';
append_to_file($script, <<'SQL');
\set user random(1, 3)
SELECT run_tracker.create_run(kind => 'load', user_id => 'u' || :user) AS run \gset
SELECT run_tracker.create_task(':run', provider => 'p', model => 'm') AS task \gset
SELECT run_tracker.complete_task(':task', input_tokens => 2, output_tokens => :user, cost => 0.01);
SELECT run_tracker.complete_run(':run');
SQL
my ($load_out, $load_err) = ('', '');
local $ENV{PGHOST} = $node->host;
local $ENV{PGPORT} = $node->port;
my $load = IPC::Run::start([ 'pgbench', '-n', '-c', '4', '-t', '150', '-f', $script, 'load' ], '<', \undef, '>', \$load_out, '2>', \$load_err);
my ($looks, $wrong) = (0, 0);
while ($load->pumpable)
{
	$load->pump_nb;
	$looks++;
	$wrong++ if $node->safe_psql('load', $exact) ne 't';
}
$load->finish;
like($load_out, qr/processed: 600\/600/, 'load runs') or diag($load_err);
cmp_ok($looks, '>=', 3, 'while that is looked at');
is($wrong, 0, 'statistics are exact at any moment');
is($node->safe_psql('load', q{SELECT sum(u.total), sum(u.successful), sum(u.task_count) FROM run_tracker.user_stats() u}), '600|600|600', 'they know of everything in the end');
$health = health($node, 'load');
is(verdict($health), 'degraded worker_disabled statistics_not_folded', 'health() says that they are not folded');
my ($problem) = grep { $_->{code} eq 'statistics_not_folded' } @{ $health->{problems} };
like($problem->{message}, qr/^statistics are not folded: \d{4} rows wait in stat_deltas$/, 'and how much waits');
like($problem->{hint}, qr/exact.*slower.*worker_status/, 'and what that means');
my $pending = $node->safe_psql('load', 'SELECT count(*) FROM run_tracker.stat_deltas');
is($health->{statistics}{pending_deltas}, $pending, 'in numbers');
is(metric($node, 'load', 'pending_statistics_deltas'), $pending, 'as metrics do');
my $stats = q{SELECT s FROM run_tracker.user_stats() s ORDER BY s.user_id};
my $before = $node->safe_psql('load', $stats);

$node->safe_psql('postgres', 'ALTER DATABASE load RESET run_tracker.enabled');
ok($node->poll_query_until('load', 'SELECT count(*) = 0 FROM run_tracker.stat_deltas'), 'switched on again, the worker folds by itself');
is($node->safe_psql('load', $stats), $before, 'statistics are what they were');
is($node->safe_psql('load', $exact), 't', 'and exact');
is(verdict_becomes($node, 'load', 'healthy'), 'healthy', 'all is well again');
is(health($node, 'load')->{statistics}{folded}, $pending, 'it has folded what there was');

# ---- counters do not go down ----

my $counters = q{CREATE UNLOGGED TABLE counters AS SELECT m.name, m.labels, m.value FROM run_tracker.metrics m WHERE m.name ~ '_(total|bucket|sum|count)$'};
my $down = q{SELECT count(*) FROM counters c LEFT JOIN run_tracker.metrics m USING (name, labels) WHERE m.value IS NULL OR m.value < c.value};
$node->safe_psql('load', $counters);
is($node->safe_psql('load', q{SELECT count(*) > 30 FROM counters}), 't', 'there are counters');
my $retries = 0;
for my $n (1 .. 5)
{
	$node->safe_psql('load', q{INSERT INTO run_tracker.runs (user_id, kind, lifecycle) SELECT 'u4', 'retries', 'spar' FROM generate_series(1, 10)}) if $n == 1;
	$node->safe_psql('load', $_) for (
		q{SELECT run_tracker.start_run(run_id) FROM run_tracker.runs WHERE kind = 'retries'},
		q{INSERT INTO run_tracker.tasks (run_id, provider, model) SELECT run_id, 'p', 'm' FROM run_tracker.runs WHERE kind = 'retries'},
		q{UPDATE run_tracker.tasks SET status = 'completed', input_tokens = 1 WHERE status = 'pending'},
		q{SELECT run_tracker.fail_run(run_id, 'no') FROM run_tracker.runs WHERE kind = 'retries'});
	$retries += $node->safe_psql('load', $down);
	$node->safe_psql('load', "DROP TABLE counters; $counters; SELECT run_tracker.retry_run(run_id) FROM run_tracker.runs WHERE kind = 'retries'");
	$retries += $node->safe_psql('load', $down);
	$node->safe_psql('load', "DROP TABLE counters; $counters");
}
is($retries, 0, 'counters do not go down when runs are retried');
is($node->safe_psql('load', q{SELECT m.value FROM run_tracker.metrics m WHERE m.name = 'run_tracker_runs_retried_total' AND m.labels ->> 'kind' = 'retries'}), '50', 'retries are counted');
is($node->safe_psql('load', q{SELECT m.value FROM run_tracker.metrics m WHERE m.name = 'run_tracker_runs' AND m.labels = '{"kind": "retries", "phase": "open"}'}), '10', 'and what is open now');
cmp_ok($node->safe_psql('load', q{SELECT run_tracker.purge_runs('0', 1000)}), '==', 600, 'runs are purged');
is($node->safe_psql('load', $down), '0', 'counters do not go down when runs are purged');

# ---- a worker that fails ----

new_database('bad');
is(verdict_becomes($node, 'bad', 'healthy'), 'healthy', 'all is well before');
$node->safe_psql('bad', 'BEGIN;' . start_runs(1, '100 ms') . 'ALTER TABLE run_tracker.open_runs ALTER worker TYPE varchar(10); COMMIT;');
is(verdict_becomes($node, 'bad', 'unhealthy worker_failing'), 'unhealthy worker_failing', 'health() says that the worker fails');
$health = health($node, 'bad');
ok($health->{worker}{failures} > 0 && index($health->{problems}[0]{message}, $health->{worker}{last_error}) > 0, 'and why');
$node->safe_psql('bad', 'ALTER TABLE run_tracker.open_runs ALTER worker TYPE text');
is(verdict_becomes($node, 'bad', 'degraded worker_errors'), 'degraded worker_errors', 'for some minutes after it works again, health() tells of the error');

# ---- who holds back VACUUM ----

$node->safe_psql('load', q{SELECT run_tracker.grant_reader('app')});
ok(!defined health($node, 'load', 'app')->{horizon}, 'a reader is not told of the transactions of others');
$node->safe_psql('postgres', 'GRANT pg_read_all_stats TO app');
my $other = connection($node, 'load');
my $pid = $other->query(q{SET application_name = 'forgotten'; BEGIN; SELECT pg_current_xact_id() IS NOT NULL AS begun \gset
SELECT pg_backend_pid();});
$node->safe_psql('load', 'SELECT run_tracker.create_run()') for 1 .. 3;
my %expected = (holder => 'transaction', pid => $pid, application => 'forgotten', state => 'idle in transaction');
for my $role (undef, 'app', 'service')
{
	my $horizon = health($node, 'load', $role)->{horizon};
	my %got = map { $_ => $horizon->{$_} } grep { exists $horizon->{$_} } keys %expected;
	my %wanted = %expected;

	# what pg_stat_activity does not show
	delete $wanted{state} if ($role // '') eq 'service';
	is_deeply(\%got, \%wanted, ($role // 'superuser') . ': sees which transaction holds back VACUUM');
	ok($horizon->{transactions} >= 3 && exists $horizon->{seconds} == exists $wanted{state}, 'and how old it is');
}
$other->query(q{CREATE TABLE two_phases (); PREPARE TRANSACTION 'forgotten "gid"';});
is_deeply([ @{ health($node, 'load')->{horizon} }{qw(holder name)} ], [ 'prepared transaction', 'forgotten "gid"' ], 'a prepared transaction, too');
ok(!defined health($node, $db)->{horizon}, 'one of another database does not');
# an hour takes long: let it be a problem at once
$node->safe_psql('load', q{SELECT replace(pg_get_functiondef('run_tracker.health()'::regprocedure), 'old_seconds CONSTANT integer := 60 * 60', 'old_seconds CONSTANT integer := -1') AS definition \gset
BEGIN; :definition; COMMIT;});
$health = health($node, 'load');
is(verdict($health), 'degraded horizon_old', 'after an hour, it is a problem');
like($health->{problems}[0]{message}, qr/^a prepared transaction has been keeping VACUUM from removing dead rows for \d+ seconds$/, 'which says what it is');
$other->query(q{ROLLBACK PREPARED 'forgotten "gid"';});
ok(!defined health($node, 'load')->{horizon}, 'when it is gone, nobody does');
$other->close;

# ---- a standby ----

$node->backup('backup');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'backup', has_streaming => 1);
$standby->append_conf('postgresql.conf', "hot_standby_feedback = on\nwal_receiver_status_interval = 1\n");
$standby->start;
$node->safe_psql('load', 'SELECT run_tracker.create_run() FROM generate_series(1, 10)');
$node->wait_for_catchup($standby);
$health = health($standby, 'load');
is(verdict($health), 'healthy', 'a standby is healthy');
ok($health->{standby} && $health->{open_runs}{queued} == 23 && $health->{totals}{checked} == 20, 'and shows what there is');
is_deeply([ $health->{worker}, $health->{notifications} ], [ { available => JSON::PP::true }, undef ], 'its worker has nothing to do there');
is( $standby->safe_psql('load', q{SELECT m.name, m.labels, m.value FROM run_tracker.metrics m WHERE m.name ~ '_runs(_total|_finished_total)?$' ORDER BY 1, 2}),
	$node->safe_psql('load', q{SELECT m.name, m.labels, m.value FROM run_tracker.metrics m WHERE m.name ~ '_runs(_total|_finished_total)?$' ORDER BY 1, 2}),
	'metrics are those of the primary');
is(promtool_says($standby->safe_psql('load', 'SELECT run_tracker.openmetrics()') . "\n"), '', 'promtool accepts them') if $promtool;
my $reader = connection($standby, 'load');
$reader->query('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM run_tracker.runs;');
ok( eventually(
		sub {
			$node->safe_psql('load', 'SELECT run_tracker.create_run()');
			my $horizon = health($node, 'load')->{horizon};
			return $horizon && $horizon->{holder} eq 'standby' && $horizon->{transactions} > 0;
		}),
	'the primary knows that a query on the standby holds back VACUUM');
$reader->close;
$standby->stop;

# ---- a worker that cannot run ----

is(join("\n", log_errors($node, 0, '57P01', '42703', '42804', 'XX000')), '', 'there are no errors in the log');
$node->append_conf('postgresql.conf', "max_worker_processes = 1\n");
$node->restart;
is(verdict_becomes($node, $db, 'unhealthy worker_not_serving'), 'unhealthy worker_not_serving', 'without room for the worker, health() says so');
$node->safe_psql($db, q{SELECT run_tracker.create_run(kind => 'new')});
is(verdict_becomes($node, $db, 'unhealthy worker_not_running'), 'unhealthy worker_not_running', 'also when the database is known');
$node->safe_psql($db, start_runs(1, '1 hour') . q{UPDATE run_tracker.open_runs SET deadline_at = now() - interval '61 s' WHERE deadline_at IS NOT NULL});
$health = health($node, $db);
is(verdict($health), 'unhealthy worker_not_running deadline_overdue', 'runs that do not end are a problem of their own');
is($health->{overdue}{count}, 1, 'with their number');
cmp_ok(metric($node, $db, 'deadline_overdue_seconds'), '>=', 61, 'also among the metrics');
is(metric($node, $db, 'overdue_runs'), '1', 'with their number');
$node->stop;
done_testing();
