# Limits around calls, and callbacks, through a connection pooler in transaction mode: many clients share few connections,
# every transaction may come on another one, and nothing of one client is left behind for the next.
use strict;
use warnings;

use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use RunTracker;

my ($pgbouncer) = grep { -x } map { "$_/pgbouncer" } split(/:/, $ENV{PATH}), '/usr/sbin', '/usr/local/lib/run_tracker-test';
plan skip_all => 'there is no pgbouncer' unless $pgbouncer;

my $node = new_worker_server('pooled', conf => "deadlock_timeout = 100ms\n");

$node->safe_psql('postgres', <<'SQL');
CREATE EXTENSION run_tracker;
CREATE ROLE app LOGIN;
CREATE ROLE backend LOGIN;
CREATE ROLE automation LOGIN;
SELECT run_tracker.grant_client('app'), run_tracker.grant_service('backend'), run_tracker.grant_callback('automation');
UPDATE run_tracker.tiers SET rate_limits = '{"*": {"limit": 100, "window": "1 day"}}', monthly_tokens = 100, daily_requests = 1000000,
    concurrent_sessions = 3 WHERE name = 'free';
-- what clients got, in tables that they may write
CREATE SCHEMA pooled;
GRANT USAGE ON SCHEMA pooled TO app, backend;
CREATE TABLE pooled.results (what text, ok boolean, id uuid);
GRANT ALL ON pooled.results TO app, backend;
CREATE TABLE pooled.journal (entry_id text PRIMARY KEY, ai_analysis jsonb);
INSERT INTO pooled.journal VALUES ('entry 1'), ('entry 2');
CREATE FUNCTION pooled.call(what text, statement text) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    id uuid;
BEGIN
    EXECUTE statement INTO id;
    INSERT INTO pooled.results VALUES (what, true, id);
    RETURN true;
EXCEPTION WHEN SQLSTATE 'RT004' OR SQLSTATE 'RT005' OR SQLSTATE 'RT006' OR SQLSTATE 'RT007' THEN
    INSERT INTO pooled.results VALUES (what, false, NULL);
    RETURN false;
END $$;
CREATE FUNCTION pooled.write_back(run_id uuid) RETURNS void LANGUAGE sql AS
$$ UPDATE pooled.journal j SET ai_analysis = r.result FROM run_tracker.runs r WHERE r.run_id = $1 AND j.entry_id = r.subject_id $$;
SQL

# ---- The pooler: four connections to the server for each user ----

my $dir = PostgreSQL::Test::Utils::tempdir;
my $port = PostgreSQL::Test::Cluster::get_free_port();
my ($host, $server_port) = ($node->host, $node->port);
open(my $ini, '>', "$dir/pgbouncer.ini") or die;
print $ini <<INI;
[databases]
postgres = host=$host port=$server_port dbname=postgres
[pgbouncer]
listen_addr =
listen_port = $port
unix_socket_dir = $dir
auth_type = any
auth_file = $dir/users.txt
pool_mode = transaction
default_pool_size = 4
max_client_conn = 300
server_reset_query_always = 0
ignore_startup_parameters = extra_float_digits,options
logfile = $dir/pgbouncer.log
pidfile = $dir/pgbouncer.pid
INI
close $ini;
# with auth_type = any, everybody is who the database entry says: so each role gets an entry of its own
open($ini, '<', "$dir/pgbouncer.ini") or die;
my $text = do { local $/; <$ini> };
close $ini;
$text =~ s/^postgres = .*$/join "\n", map { "$_ = host=$host port=$server_port dbname=postgres user=$_" } qw(app backend automation)/me;
open($ini, '>', "$dir/pgbouncer.ini") or die;
print $ini $text;
close $ini;
open(my $users, '>', "$dir/users.txt") or die;
print $users qq("$_" ""\n) for qw(app backend automation);
close $users;

# it logs to its file; nobody would read a pipe
my $pooler = IPC::Run::start([ $pgbouncer, '-q', "$dir/pgbouncer.ini" ], '<', \undef, '>', '/dev/null', '2>', '/dev/null');
END { $pooler->kill_kill if $pooler }

# Runs statements as a role, through the pooler; returns what psql prints, with its errors.
sub pooled
{
	my ($role, $sql) = @_;
	my ($out, $err) = ('', '');

	IPC::Run::run([ 'psql', '-XqAt', '-v', 'VERBOSITY=verbose', '-h', $dir, '-p', $port, '-U', $role, '-d', $role ], '<', \$sql, '>', \$out, '2>', \$err);
	chomp $out;
	return $err eq '' ? $out : "$out$err";
}

# One transaction of a user, with the claims of a gateway.
sub as_user
{
	my ($user, $sql) = @_;

	return pooled('app', qq(BEGIN;\nSELECT set_config('request.jwt.claims', '{"sub": "$user"}', true) \\g /dev/null\n$sql;\nCOMMIT;));
}

# Many clients at once, each with its own connection to the pooler.
sub crowd
{
	my ($role, $clients, $each, $sql) = @_;
	my $script = "$dir/crowd.sql";
	my ($out, $err) = ('', '');

	open(my $file, '>', $script) or die;
	print $file $sql;
	close $file;
	my $ok = IPC::Run::run([ 'pgbench', '-n', '-c', $clients, '-j', 4, '-t', $each, '-h', $dir, '-p', $port, '-U', $role, '-f', $script, $role ],
		'<', \undef, '>', \$out, '2>', \$err);
	diag($out, $err) unless $ok;
	return $ok;
}

sub count_of
{
	my ($what) = @_;

	return $node->safe_psql('postgres', "SELECT count(*) FILTER (WHERE ok) || ' ' || count(*) FILTER (WHERE NOT ok) FROM pooled.results WHERE what = '$what'");
}

eventually(sub { pooled('app', 'SELECT 1') eq '1' }, 60);
is(pooled('app', 'SELECT current_user'), 'app', 'the pooler is there');

# ---- Identity: of the transaction, and of nobody after it ----

is(as_user('alice', 'SELECT run_tracker.current_user_id()'), 'alice', 'a transaction has the identity that it sets');
my $left = 0;
$left += pooled('app', 'SELECT run_tracker.current_user_id() IS NOT NULL') eq 't' for 1 .. 8;
is($left, 0, 'and leaves it to nobody');

# ---- Rate limits ----

ok(crowd('backend', 64, 4, "INSERT INTO pooled.results SELECT 'rate', allowed FROM run_tracker.consume_rate_limit('generate', 1, 'crowd');\n"), '64 clients consume');
is(count_of('rate'), '100 156', 'exactly as many are allowed as the limit has');
like(as_user('bob', q(SELECT run_tracker.consume_rate_limit_or_fail('x', 100)) . qq(;\nSELECT run_tracker.consume_rate_limit_or_fail('x'))), qr/RT005/, 'a user who is over the limit');
is(as_user('carol', q(SELECT allowed, current FROM run_tracker.consume_rate_limit('x'))), 't|1', 'and one who is not');

# ---- Reservations: made in one transaction, settled in another ----

ok(crowd('backend', 32, 4, "SELECT pooled.call('reserve', \$\$SELECT run_tracker.reserve_usage('crowd', 1)\$\$);\n"), '32 clients reserve');
is(count_of('reserve'), '100 28', 'exactly as much is reserved as the quota has');
$node->safe_psql('postgres', "CREATE TABLE pooled.todo AS SELECT id, row_number() OVER () AS n FROM pooled.results WHERE what = 'reserve' AND ok; GRANT ALL ON pooled.todo TO backend");
ok(crowd('backend', 20, 5, <<'SQL'), 'other clients settle half of them, and release the others');
DELETE FROM pooled.todo WHERE n = (SELECT n FROM pooled.todo ORDER BY n LIMIT 1 FOR UPDATE SKIP LOCKED)
    RETURNING CASE WHEN n % 2 = 0 THEN run_tracker.settle_usage(id, 1) ELSE run_tracker.release_usage(id) END;
SQL
is(pooled('backend', "SELECT used, reserved, remaining FROM run_tracker.quotas('crowd') WHERE quota = 'monthly_tokens'"), '50|0|50', 'and the quota says so');
is(pooled('backend', "SELECT run_tracker.reserve_usage('crowd', 50) IS NOT NULL"), 't', 'what was released can be reserved again');

# ---- Sessions and their state ----

ok(crowd('backend', 16, 2, "SELECT pooled.call('session', \$\$SELECT run_tracker.open_session('crowd')\$\$);\n"), '16 clients open sessions');
is(count_of('session'), '3 29', 'exactly as many as the quota has');
my $session = as_user('alice', 'SELECT run_tracker.open_session()');
is(as_user('alice', "SELECT run_tracker.append_delta('$session', 0, '{\"a\": 1}')"), '1', 'a change of state');
like(as_user('alice', "SELECT run_tracker.append_delta('$session', 0, '{\"a\": 2}')"), qr/RT007/, 'a conflict');
like(as_user('bob', "SELECT run_tracker.session_state('$session')"), qr/P0002/, 'somebody else does not see it');
$node->safe_psql('postgres', "CREATE TABLE pooled.shared AS SELECT run_tracker.open_session('other') AS id; GRANT SELECT ON pooled.shared TO backend");
ok(crowd('backend', 16, 8, "SELECT run_tracker.append_delta(id, NULL, jsonb_build_object('k' || :client_id, 1)) FROM pooled.shared;\n"), '16 clients change one session');
is(pooled('backend', 'SELECT count(*) FROM pooled.shared, jsonb_object_keys(run_tracker.session_state(id))'), '16', 'and none is lost');
is(as_user('alice', "SELECT run_tracker.touch_session('$session'), run_tracker.close_session('$session')"), 't|t', 'touched and closed by other connections');
is(as_user('alice', "SELECT run_tracker.log_request('$session', 'function:f') IS NOT NULL"), 't', 'a request is logged');

# ---- Circuit breakers ----

pooled('backend', "INSERT INTO run_tracker.breakers (name, reset_after) VALUES ('model', '5 s')");
pooled('backend', "SELECT run_tracker.breaker_record('model', false, 'down')") for 1 .. 5;
is(pooled('backend', "SELECT state FROM run_tracker.circuit_breakers WHERE name = 'model'"), 'open', 'failures of several connections open a breaker');
eventually(sub { pooled('backend', "SELECT next_probe_at < clock_timestamp() FROM run_tracker.circuit_breakers WHERE name = 'model'") eq 't' }, 60);
ok(crowd('backend', 32, 2, "INSERT INTO pooled.results SELECT 'probe', run_tracker.breaker_allow('model');\n"), '32 clients ask');
is(count_of('probe'), '1 63', 'one of them probes');
is(pooled('backend', "SELECT run_tracker.breaker_record('model', true)"), 'closed', 'another connection records that it went well');

# ---- Tasks with a reservation, callbacks, write-back ----

pooled('backend', "SELECT run_tracker.create_run(run_id => '018f0000-0000-7000-8000-00000000000$_', user_id => 'alice', kind => 'edu_context', lifecycle => 'spar', subject_id => 'entry $_')") for 1, 2;
$node->safe_psql('postgres', "SELECT run_tracker.on_finish('edu_context', 'pooled.write_back(uuid)')");
my $secret = $node->safe_psql('postgres', "SELECT secret FROM run_tracker.create_callback_key('automation', 'secret')");
my $reservation = as_user('alice', 'SELECT run_tracker.reserve_usage(tokens => 60)');
as_user('alice', "SELECT run_tracker.create_task('018f0000-0000-7000-8000-000000000001', '018f0000-0000-7000-8000-0000000000aa', reservation_id => '$reservation')");
is(as_user('alice', "SELECT run_tracker.complete_task('018f0000-0000-7000-8000-0000000000aa', input_tokens => 40, output_tokens => 2)"), 't', 'a task finishes');
is(as_user('alice', "SELECT used, reserved FROM run_tracker.quotas() WHERE quota = 'monthly_tokens'"), '42|0', 'and settles its reservation');

my $payload = '{"runId": "018f0000-0000-7000-8000-000000000001", "status": "completed", "results": {"insight": "calm"}}';
like(pooled('automation', "SELECT run_tracker.callback_secret('$payload', 'wrong')"), qr/RT008/, 'a wrong secret');
is(pooled('automation', "SELECT run_tracker.callback_secret('$payload', '$secret') ->> 'outcome'"), 'applied', 'the right one');
is(pooled('automation', "SELECT run_tracker.callback_secret('$payload', '$secret') ->> 'outcome'"), 'duplicate', 'and again');
$payload =~ s/1", "status/2", "status/;
is(pooled('automation', "BEGIN; SELECT set_config('request.headers', '{\"x-spar-auth\": \"$secret\"}', true) \\g /dev/null\nSELECT run_tracker.callback('$payload') ->> 'outcome'; COMMIT;"), 'applied',
	'with the headers of a gateway');
like(pooled('automation', "SELECT run_tracker.callback('$payload')"), qr/RT008/, 'which are those of the transaction');
is($node->safe_psql('postgres', "SELECT string_agg(ai_analysis ->> 'insight', ' ') FROM pooled.journal"), 'calm calm', 'what the runs found is written back');
like(pooled('automation', 'SELECT count(*) FROM run_tracker.runs'), qr/42501/, 'and that is all that the automation may do');

# ---- Nothing is left behind ----

is($node->safe_psql('postgres', q(SELECT count(*) FROM pg_locks WHERE locktype = 'advisory')), '0', 'no lock is held');
is($node->safe_psql('postgres', q(SELECT count(*) <= 12 FROM pg_stat_activity WHERE usename IN ('app', 'backend', 'automation'))), 't', 'few connections did all that');
invariants_hold($node, 'postgres', 'after all');

$pooler->kill_kill;
undef $pooler;
done_testing();
