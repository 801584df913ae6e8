# Functions that are called when a run finishes, where no client is there to see it: called by the background worker,
# with errors that only the log shows; and whether they are still called after a dump, and after DROP EXTENSION.
use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use RunTracker;

my $node = new_worker_server('on_finish');
$node->safe_psql('postgres', 'CREATE ROLE app LOGIN; CREATE ROLE owner; CREATE ROLE client LOGIN; CREATE DATABASE a');
$node->safe_psql('a', <<'SQL');
CREATE EXTENSION run_tracker;
SELECT run_tracker.set_owner('owner'), run_tracker.grant_service('app'), run_tracker.grant_client('client');
CREATE SCHEMA app AUTHORIZATION app;
SQL
$node->safe_psql('a', <<'SQL', extra_params => [ '-U', 'app' ]);
SET search_path = app;
CREATE TABLE seen (name text, status text, who text);
CREATE FUNCTION note(run jsonb) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO seen VALUES (run ->> 'name', run ->> 'status', current_user);
    IF run ->> 'name' = 'bad' THEN
        RAISE EXCEPTION 'this one is bad' USING DETAIL = 'what it says is not for everybody';
    END IF;
END
$$;
SELECT run_tracker.on_finish('strict', 'note(jsonb)'), run_tracker.on_finish('lenient', 'note(jsonb)', 'log');
SQL

sub seen
{
	return $node->safe_psql('a', 'SELECT name, status, who FROM app.seen ORDER BY name');
}

# ---- the worker calls them, as the role that registered them ----

my $from = -s $node->logfile;
my $observer = connection($node, 'a');
$observer->query("SELECT run_tracker.start_run(run_tracker.create_run(kind => kind, name => name, timeout => '1 second'))"
	  . " FROM (VALUES ('strict', 'first'), ('strict', 'bad'), ('strict', 'second'), ('lenient', 'third')) v (kind, name);");
ok(eventually(sub { $observer->query('SELECT count(*) FROM app.seen;') eq '3' }), 'the worker calls the functions of the runs whose time is up');
is(seen(), "first|timeout|app\nsecond|timeout|app\nthird|timeout|app", 'as the role that registered them');
is($observer->query("SELECT status FROM run_tracker.runs WHERE name = 'bad';"), 'running',
	'a run whose function fails keeps itself from ending, and no other');
ok(eventually(sub { log_lines($node, $from, qr/this one is bad/) }), 'the log says why');
$from = -s $node->logfile;
$observer->query("UPDATE run_tracker.runs SET kind = 'lenient' WHERE name = 'bad';");

# ---- errors that are only logged ----

my (undef, $out, $err) = run_cmd($node, [ 'psql', '-XqAt', '-U', 'client', '-d', 'a' ], <<'SQL');
SET request.jwt.claims = '{"sub": "alice"}';
SET client_min_messages = log;
SELECT run_tracker.complete_run(run_tracker.create_run(kind => 'lenient', name => 'bad'));
SQL
like($out, qr/^t$/m, 'the run finishes');
unlike("$out$err", qr/is bad|everybody/, 'and the client hears nothing of the error');
my ($line) = log_lines($node, $from, qr/run_tracker\.on_finish function app\.note\(jsonb\) failed for run/);
like($line, qr/this one is bad/, 'but the log does');
is(scalar(log_lines($node, $from, qr/what it says is not for everybody/)), 1, 'with its detail');

# ---- they survive ----

my $dump = $PostgreSQL::Test::Utils::tmp_check . '/on_finish.sql';
command_ok([ 'pg_dump', '-f', $dump, $node->connstr('a') ], 'pg_dump');
$node->safe_psql('postgres', 'CREATE DATABASE b');
command_ok([ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-f', $dump, $node->connstr('b') ], 'restore');
for my $db (qw(a b))
{
	if ($db eq 'a')
	{
		$node->safe_psql($db, 'DROP EXTENSION run_tracker CASCADE; CREATE EXTENSION run_tracker; SELECT run_tracker.install();'
			  . " SELECT run_tracker.grant_service('app'), run_tracker.grant_client('client'), run_tracker.set_owner('owner')");
	}
	is( $node->safe_psql($db, 'SELECT kind_or_lifecycle, function, role, on_error, search_path FROM run_tracker.finish_handlers ORDER BY 1 DESC'),
		"strict|app.note(jsonb)|app|fail|app, pg_temp\nlenient|app.note(jsonb)|app|log|app, pg_temp",
		$db eq 'a' ? 'functions are still registered after DROP EXTENSION' : 'and after pg_dump and restore');
	is($node->safe_psql($db, q{SELECT relowner::regrole = current_user::regrole FROM pg_class WHERE oid = 'run_tracker.finish_handlers'::regclass}),
		't', 'in a table of the superuser');
	is( $node->safe_psql($db, <<'SQL', extra_params => [ '-U', 'client' ]), 't', 'and called');
SET request.jwt.claims = '{"sub": "alice"}';
SELECT run_tracker.complete_run(run_tracker.create_run(kind => 'strict', name => 'later'));
SQL
	is($node->safe_psql($db, q{SELECT status, who FROM app.seen WHERE name = 'later'}), 'completed|app', 'with the same rights');
}

done_testing();
