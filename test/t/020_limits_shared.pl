# Rate limits and circuit breakers are shared by all connections of a server, whether the library is preloaded or not:
# exact under concurrency, whatever becomes of transactions and connections; empty after a crash; bounded in memory; and
# there on a standby, too.
use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time sleep);

use RunTracker;

my $setup = <<'SQL';
CREATE EXTENSION run_tracker;
INSERT INTO run_tracker.tiers (name, rate_limits) VALUES
('exact', '{"*": {"limit": 1000, "window": "1 day"}, "often": {"limit": 100000, "window": "1 day"}}'), ('short', '{"*": {"limit": 1, "window": "100 ms"}}');
INSERT INTO run_tracker.accounts (user_id, tier) SELECT 'exact ' || i, 'exact' FROM generate_series(0, 8) i;
INSERT INTO run_tracker.accounts (user_id, tier) SELECT 'short ' || i, 'short' FROM generate_series(1, 5000) i;
INSERT INTO run_tracker.breakers (name, failure_threshold, "window", reset_after) VALUES
('many', 1000, '1 day', '1 day'), ('probe', 1, '1 day', '5 seconds');
-- what is counted here is not rolled back, either
CREATE SEQUENCE passed;
CREATE TABLE batches (allowed bigint);
SQL

sub sql
{
	my ($node, $query, $db) = @_;

	return $node->safe_psql($db // 'postgres', $query);
}

# The number of times that a query returned a row, of so many clients and calls each.
sub passed
{
	my ($node, $clients, $calls, $script) = @_;
	my $file = $node->basedir . '/script.sql';

	open my $handle, '>', $file or die $!;
	print $handle $script;
	close $handle;
	sql($node, q{SELECT setval('passed', 1, false)});
	my ($ok, $out, $err) = run_cmd($node, [ 'pgbench', '-n', '-c', $clients, '-j', 4, '-t', $calls, '-f', $file, 'postgres' ]);
	ok($ok, "$clients clients have made their calls") or diag($out, $err);
	return sql($node, q{SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM passed});
}

sub used
{
	my ($node, $user) = @_;

	return sql($node, "SELECT COALESCE(sum(current), 0) FROM run_tracker.rate_limits WHERE user_id = '$user'");
}

# The SQLSTATE and the hint of the error that a query ends with.
sub error_of
{
	my ($node, $query) = @_;
	my (undef, undef, $err) = run_cmd($node, [ 'psql', '-XqAt', '-v', 'VERBOSITY=verbose', '-d', 'postgres', '-c', $query ]);

	return join ' ', $err =~ /ERROR:  (\w{5}):/, $err =~ /HINT:  (.*)/;
}

sub test_server
{
	my ($name, $conf) = @_;
	my $node = new_server($name, conf => "${conf}max_connections = 100\nrestart_after_crash = on\nmax_wal_senders = 4\nlog_statement = none\n");

	sql($node, $setup);

	# ---- many at once ----

	# all of them are new, so that they also create the shared state at once
	my $call = q{SELECT nextval('passed') FROM run_tracker.consume_rate_limit('x', 1, 'exact 0') c WHERE c.allowed};
	is(passed($node, 64, 40, "$call;"), 1000, "$name: of 2560 calls 1000 are allowed");
	is(used($node, 'exact 0'), 1000, 'and counted');
	sql($node, q{SELECT run_tracker.reset_rate_limit('exact 0')});
	is(passed($node, 64, 40, "BEGIN;\n$call;\nROLLBACK;"), 1000, 'so they are in transactions that are rolled back');
	# accounts have two unique keys, and ON CONFLICT looks at one: nobody fails on the other
	passed($node, 16, 250, q{INSERT INTO run_tracker.accounts (user_uuid) SELECT md5((extract(epoch FROM clock_timestamp()) * 500)::bigint::text)::uuid
		ON CONFLICT (user_uuid) DO NOTHING;});
	# as fast as they can, so that they often meet
	passed($node, 8, 1, q{INSERT INTO batches SELECT count(*) FILTER (WHERE c.allowed)
		FROM generate_series(1, 20000) i, LATERAL (SELECT * FROM run_tracker.consume_rate_limit('often', i / i, 'exact 0')) c;} =~ s/\s+/ /gr);
	is(sql($node, 'SELECT count(*), sum(allowed) FROM batches'), '8|100000', 'of 160000 calls 100000 are allowed');
	sql($node, q{SELECT run_tracker.reset_rate_limit('exact 0')});
	is(passed($node, 64, 20, q{SELECT nextval('passed') FROM run_tracker.consume_rate_limit('x', 3, 'exact 0') c WHERE c.allowed;}), 333, 'calls that cost 3');
	is(passed($node, 64, 160, "\\set user :client_id % 8 + 1\n" . $call =~ s/'exact 0'/'exact ' || :user/r . ';'), 8000, 'users do not get in the way of each other');
	is(sql($node, q{SELECT min(current), max(current), count(*) FROM run_tracker.rate_limits WHERE user_id ~ 'exact [1-8]'}), '1000|1000|8', 'each has a count');

	is(passed($node, 64, 20, q{SELECT nextval('passed') WHERE run_tracker.breaker_record('many', false) = 'closed';}), 999, 'a breaker opens with the last failure that is needed');
	is(sql($node, q{SELECT state, failures FROM run_tracker.circuit_breakers WHERE name = 'many'}), 'open|1000', 'and counts no further');
	sql($node, q{SELECT run_tracker.breaker_record('probe', false)});
	is(passed($node, 64, 5, q{SELECT nextval('passed') WHERE run_tracker.breaker_allow('probe');}), 0, 'nobody may call');
	ok($node->poll_query_until('postgres', q{SELECT next_probe_at < clock_timestamp() - interval '1 ms' FROM run_tracker.circuit_breakers WHERE name = 'probe'}), 'it is time for a probe');
	is(passed($node, 64, 5, q{SELECT nextval('passed') WHERE run_tracker.breaker_allow('probe');}), 1, 'which one may make');
	is(sql($node, q{SELECT run_tracker.breaker_record('probe', true)}), 'closed', 'its result closes it');
	is(passed($node, 16, 5, q{SELECT nextval('passed') WHERE run_tracker.breaker_allow('probe');}), 80, 'for all');

	# ---- databases ----

	sql($node, 'CREATE DATABASE other');
	sql($node, $setup, 'other');
	is(sql($node, q{SELECT current FROM run_tracker.consume_rate_limit('x', 1, 'exact 1')}, 'other'), '1', 'another database has counts of its own');
	is(sql($node, q{SELECT run_tracker.breaker_allow('many')}, 'other'), 't', 'and breakers');
	is(sql($node, q{SELECT user_id FROM run_tracker.rate_limits}, 'other'), 'exact 1', 'and sees no others');
	is(used($node, 'exact 1'), 1000, 'nor do others see those');

	# ---- connections that end ----

	sql($node, q{SELECT run_tracker.reset_rate_limit('exact 0')});
	my $file = $node->basedir . '/calls.sql';
	append_to_file($file, "$call;");
	my ($out, $err) = ('', '');
	for my $i (1 .. 5)
	{
		my $pgbench = IPC::Run::start(
			[ 'pgbench', '-n', '-c', 16, '-T', 60, '-h', $node->host, '-p', $node->port, '-f', $file, 'postgres' ], '>', \$out, '2>', \$err);
		$node->poll_query_until('postgres', "SELECT count(*) = 16 FROM pg_stat_activity WHERE query ~ 'consume_rate_limit' AND pid <> pg_backend_pid()");
		sql($node, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query ~ 'consume_rate_limit' AND pid <> pg_backend_pid()");
		$pgbench->finish;
	}
	sql($node, q{SELECT run_tracker.reset_rate_limit('exact 0')});
	is(passed($node, 16, 100, "$call;"), 1000, 'those that are terminated leave nothing locked');

	# ---- a crash ----

	my $victim = connection($node, 'postgres');
	$victim->query(q{SELECT run_tracker.consume_rate_limit('x', 1, 'exact 0');});
	kill 'KILL', scalar $victim->query('SELECT pg_backend_pid();');
	eval { $victim->close };
	ok($node->poll_query_until('postgres', 'SELECT true'), 'the server restarts after a crash');
	is(sql($node, 'SELECT count(*) FROM run_tracker.rate_limits'), '0', 'counts are empty then');
	is(sql($node, q{SELECT string_agg(DISTINCT state, '') FROM run_tracker.circuit_breakers}), 'closed', 'breakers closed');
	is(passed($node, 64, 40, "$call;"), 1000, 'and limits hold');
	$node->restart;
	is(used($node, 'exact 0'), 0, 'so it is after a restart');
	is(passed($node, 64, 40, "$call;"), 1000, 'and limits hold');
	return $node;
}

my $plain = test_server('plain', '');
my $node = test_server('preloaded', "shared_preload_libraries = 'run_tracker'\n");

# ---- memory ----

for my $server ($plain, $node)
{
	my $name = $server->name;

	$server->append_conf('postgresql.conf', 'run_tracker.limit_memory = 1MB');
	$server->restart;
	my $fill = q{SELECT count(*) FROM generate_series(%d, %d) i, LATERAL (SELECT * FROM run_tracker.consume_rate_limit('x', 1, 'stranger ' || i)) c};
	sql($server, sprintf($fill, 1, 500));
	is(error_of($server, sprintf($fill, 1, 20000)), '53400 Increase run_tracker.limit_memory, or make the windows of rate limits shorter.', "$name: memory is bounded");
	my $known = sql($server, 'SELECT count(*) FROM run_tracker.rate_limits');
	cmp_ok($known, '>', 1000, 'more than 1000 counts fit into 1 MB');
	is(sql($server, q{SELECT current FROM run_tracker.consume_rate_limit('x', 1, 'stranger 1')}), '3', 'those that have a count go on');
	like(error_of($server, q{SELECT run_tracker.consume_rate_limit('x', 1, 'exact 0')}), qr/^53400/, 'others cannot');
	is(sql($server, q{SELECT run_tracker.breaker_allow('many')}), 't', 'closed breakers need no memory');
	is(sql($server, 'SELECT count(*) FROM run_tracker.rate_limits'), $known, 'nothing was lost');

	$server->append_conf('postgresql.conf', 'run_tracker.limit_memory = 4MB');
	$server->reload;
	ok($server->poll_query_until('postgres', q{SELECT current_setting('run_tracker.limit_memory') = '4MB' FROM run_tracker.tracker_version()}), 'the setting is increased');
	is(sql($server, q{SELECT current FROM run_tracker.consume_rate_limit('x', 1, 'exact 0')}), '1', 'then others can');
	sql($server, sprintf($fill, 10001, 11000));

	# What has run empty makes room: many times as many users as there is room for, one after another.
	$server->append_conf('postgresql.conf', 'run_tracker.limit_memory = 1MB');
	$server->restart;
	sql($server, <<'SQL');
DO $$
DECLARE
    until timestamptz := clock_timestamp() + interval '2 minutes';
BEGIN
    FOR i IN 1 .. 5000 LOOP
        LOOP
            BEGIN
                PERFORM run_tracker.consume_rate_limit_or_fail('x', 1, 'short ' || i);
                EXIT;
            EXCEPTION WHEN configuration_limit_exceeded THEN
                IF clock_timestamp() > until THEN
                    RAISE;
                END IF;
            END;
        END LOOP;
    END LOOP;
END
$$
SQL
	pass('windows that have run empty make room');
	# One user cannot take it all.
	$server->append_conf('postgresql.conf', 'run_tracker.limit_memory = 2MB');
	$server->restart;
	is(sql($server, q{SELECT count(*) FILTER (WHERE allowed) FROM generate_series(1, 5000) i,
			LATERAL (SELECT * FROM run_tracker.consume_rate_limit('endpoint ' || i, 1, 'exact 1')) c}),
		'2000', 'of 5000 endpoints 1000 have a count each, and the others share one');
	is(sql($server, 'SELECT count(*), max(current) FROM run_tracker.rate_limits'), '1001|1000', 'that is a limit, too');
	is(sql($server, q{SELECT current FROM run_tracker.consume_rate_limit('x', 1, 'exact 2')}), '1', 'and there is room for others');
}
$plain->stop;

# ---- a standby ----

$node->append_conf('postgresql.conf', "run_tracker.limit_memory = 64MB\nhot_standby_feedback = on\n");
$node->restart;
sql($node, q{SELECT run_tracker.consume_rate_limit('x', 1000, 'exact 0')});
sql($node, q{SELECT run_tracker.breaker_record('probe', false)});
$node->backup('base');
for my $preload ("shared_preload_libraries = ''", '')
{
	my $standby = PostgreSQL::Test::Cluster->new($preload ? 'plain_standby' : 'standby');

	$standby->init_from_backup($node, 'base', has_streaming => 1);
	$standby->append_conf('postgresql.conf', $preload);
	$standby->start;
	$node->wait_for_catchup($standby);
	my $name = $standby->name;

	is(sql($standby, q{SELECT allowed, current FROM run_tracker.consume_rate_limit('x', 600, 'exact 0')}), 't|600', "$name: a standby has counts of its own");
	is(sql($standby, q{SELECT allowed, current FROM run_tracker.consume_rate_limit('x', 600, 'exact 0')}), 'f|600', 'and the limits of the primary');
	is(sql($standby, q{SELECT run_tracker.breaker_allow('probe')}), 't', 'and breakers');
	is(sql($standby, q{SELECT run_tracker.breaker_record('probe', false, 'no')}), 'open', 'with their settings');
	is(sql($standby, q{SELECT name, state, last_error FROM run_tracker.circuit_breakers WHERE state <> 'closed'}), 'probe|open|no', 'that one can look at');
	sql($node, q{UPDATE run_tracker.accounts SET overrides = '{"rate_limits": {"x": {"limit": 2000, "window": "1 day"}}}' WHERE user_id = 'exact 0'});
	$node->wait_for_catchup($standby);
	is(sql($standby, q{SELECT allowed, current FROM run_tracker.consume_rate_limit('x', 600, 'exact 0')}), 't|1200', 'limits follow the primary');
	sql($node, q{UPDATE run_tracker.accounts SET overrides = NULL WHERE user_id = 'exact 0'});
	if (!$preload)
	{
		$node->stop;
		$standby->promote;
		is(sql($standby, q{SELECT current FROM run_tracker.consume_rate_limit('x', 0, 'exact 0')}), '1200', 'after its promotion it goes on with what it counted');
	}
	$standby->stop;
	is(join("\n", log_errors($standby, 0, '08006', '57P01')), '', 'there are no errors in its log');
}
done_testing();
