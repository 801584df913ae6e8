# Maintenance by pg_cron, where run_tracker is not preloaded and where it is; and what works without either.
use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time sleep);

use RunTracker;

my ($ok, $out, $err);

# psql as a role. Returns its output, and errors as SQLSTATEs.
sub as_user
{
	my ($node, $user, $db, $sql) = @_;
	my (undef, $out, $err) = run_cmd($node, [ 'psql', '-XqAt', '-v', 'VERBOSITY=sqlstate', '-U', $user, '-d', $db ], $sql);

	# as the library is loaded, the server warns of settings that it does not know
	$err =~ s/^WARNING:  42602\n//mg;
	return "$out$err";
}

# what the job of the given age runs
my ($purge_30, $purge_90) = map { my $age = "'$_ days'"; 'SELECT ' . join ', ', map { "run_tracker.$_($age)" } qw(purge_runs purge_usage purge_sessions purge_callbacks) } 30, 90;

my $setup = <<'SQL';
CREATE EXTENSION run_tracker;
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

# ---- without preload and without pg_cron ----

my $node = new_server('plain');
$node->safe_psql('postgres', 'CREATE ROLE service LOGIN; CREATE ROLE client LOGIN; CREATE ROLE other LOGIN; CREATE DATABASE app');
$node->safe_psql('app', $setup . q{SELECT run_tracker.grant_service('service'), run_tracker.grant_service('other'), run_tracker.grant_client('client')});

is($node->safe_psql('app', 'SELECT count(*) FROM run_tracker.worker_status'), '0', 'without preload, worker_status is empty');
is(as_user($node, 'service', 'app', 'SELECT run_tracker.wake_worker()'), "f\n", 'there is no worker to wake');
my $run = $node->safe_psql('app', 'SELECT due()');
sleep(0.1);
is($node->safe_psql('app', "SELECT status FROM run_tracker.runs WHERE run_id = '$run'"), 'running', 'and a run does not end by itself');
is(as_user($node, 'service', 'app', 'SELECT run_tracker.expire_runs(); SELECT run_tracker.expire_runs();'), "1\n0\n", 'but by expire_runs()');
is(as_user($node, 'service', 'app', "SELECT status, phase, error ~ '^maximum duration' FROM run_tracker.runs WHERE run_id = '$run'"), "timeout|timed_out|t\n", 'as the worker would do it');
is( as_user(
		$node, 'service', 'app', <<'SQL'), "1|running\nw\nt\nt\n2|running\n1\n2|timeout\n1\nERROR:  RT003\n", 'claims, heartbeats, attempts and retries');
SELECT run_tracker.create_run(kind => 'claim', max_attempts => 2, timeout => '1 minute', retry_base => '1 millisecond', retry_cap => '1 millisecond') AS run \gset
SELECT attempt, status FROM run_tracker.claim_runs('w', kind => 'claim');
SELECT worker FROM run_tracker.open_runs WHERE run_id = :'run';
SELECT pg_sleep(0.02) AS slept \gset
SELECT run_tracker.heartbeat_run(:'run', attempt => 1);
SELECT run_tracker.heartbeat_run(:'run', attempt => 2);
SELECT run_tracker.expire_runs(now => clock_timestamp() + interval '2 minutes') = 1;
-- the backoff of the retry was counted from the moment that was given
UPDATE run_tracker.runs SET scheduled_at = NULL WHERE run_id = :'run';
SELECT attempt, status FROM run_tracker.claim_runs('w', kind => 'claim');
SELECT run_tracker.expire_runs(now => clock_timestamp() + interval '2 minutes');
SELECT attempt, status FROM run_tracker.runs WHERE run_id = :'run';
SELECT run_tracker.purge_runs(older_than => '0', max_runs => 1);
SQL
invariants_hold($node, 'app', 'totals and open set are true');

# ---- no pg_cron ----

# Whether it could be installed or not makes no difference, nor does something of that name.
for my $what ('without pg_cron', 'with a schema that is called like it')
{
	(undef, undef, $err) = $node->psql('app', 'SELECT * FROM run_tracker.schedule_maintenance()', extra_params => [ '-v', 'VERBOSITY=verbose' ]);
	like($err, qr/ERROR:  55000: /, "$what: schedule_maintenance() is refused");
	like($err, qr/extension "pg_cron" is not installed in database "app"/, 'for the right reason');
	like($err, qr/HINT:  .*cron\.database_name.*CREATE EXTENSION pg_cron.*run_tracker\.purge_runs\(\).*run_tracker\.expire_runs\(\).*run_tracker\.fold_statistics\(\)/, 'with what to do');
	is($node->safe_psql('app', 'SELECT run_tracker.unschedule_maintenance()'), '0', 'unschedule_maintenance() has nothing to do');
	is(as_user($node, 'service', 'app', 'SELECT run_tracker.unschedule_maintenance(); SELECT run_tracker.schedule_maintenance();'), "0\nERROR:  55000\n", 'a service is told the same');
	$node->safe_psql('app', q{CREATE SCHEMA IF NOT EXISTS cron; CREATE TABLE IF NOT EXISTS cron.job (jobid bigint, jobname text, database text, username text);
		INSERT INTO cron.job VALUES (1, 'run_tracker_purge', 'app', current_user)});
}
$node->safe_psql('app', 'DROP SCHEMA cron CASCADE');
is(as_user($node, 'client', 'app', 'SELECT * FROM run_tracker.schedule_maintenance()'), "ERROR:  42501\n", 'it is not for clients');
is(as_user($node, 'service', 'app', q{SELECT * FROM run_tracker.schedule_maintenance('-1 day')}), "ERROR:  22023\n", 'nor for the future');
is(as_user($node, 'service', 'app', 'SELECT * FROM run_tracker.schedule_maintenance(purge_schedule => NULL)'), "ERROR:  22023\n", 'and wants a schedule');

if (!-e $node->config_data('--pkglibdir') . '/pg_cron.so')
{
	$node->stop;
  SKIP:
	{
		skip 'pg_cron is not installed (on Debian, the package postgresql-' . $node->pg_version->major . '-cron)', 1;
	}
	done_testing();
	exit;
}

# ---- scheduled, without preload of run_tracker ----

my $conf = "cron.database_name = 'app'\ncron.use_background_workers = on\ncron.timezone = 'GMT'\n";
$node->append_conf('postgresql.conf', $conf);
# What is left of a preloaded run_tracker that is preloaded no more.
$node->append_conf('postgresql.conf', "shared_preload_libraries = 'pg_cron'\nrun_tracker.max_databases = 10\n");
$node->restart;
$node->safe_psql('app', 'CREATE EXTENSION pg_cron');
is(as_user($node, 'service', 'app', 'SELECT run_tracker.schedule_maintenance();'), "ERROR:  42501\n", 'who may not use pg_cron cannot schedule anything');
$node->safe_psql('app', 'GRANT USAGE ON SCHEMA cron TO service, other, client');

my $jobs = q{SELECT jobname, schedule, command, username, database, active FROM cron.job ORDER BY 1, 4};
is( $node->safe_psql('app', q{SET ROLE service; SELECT * FROM run_tracker.schedule_maintenance() ORDER BY 1}),
	"run_tracker_expire|* * * * *|SELECT run_tracker.expire_runs(10000)\nrun_tracker_fold|* * * * *|SELECT run_tracker.fold_statistics()\nrun_tracker_purge|*/10 * * * *|$purge_30",
	'schedule_maintenance() returns the jobs');
my $scheduled = "run_tracker_expire|* * * * *|SELECT run_tracker.expire_runs(10000)|service|app|t\nrun_tracker_fold|* * * * *|SELECT run_tracker.fold_statistics()|service|app|t\nrun_tracker_purge|*/10 * * * *|$purge_30|service|app|t";
is($node->safe_psql('app', $jobs), $scheduled, 'they are registered, for its caller');
is(as_user($node, 'service', 'app', 'SELECT count(*) FROM run_tracker.schedule_maintenance();'), "3\n", 'a session that did not know of run_tracker.max_databases schedules all again');
is($node->safe_psql('app', $jobs), $scheduled, 'which changes nothing');

# Others have their own jobs.
is(as_user($node, 'other', 'app', q{SELECT jobname FROM run_tracker.schedule_maintenance(older_than => '90 days', purge_schedule => '0 3 * * *', expire_schedule => '*/5 * * * *') ORDER BY 1;}),
	"run_tracker_expire\nrun_tracker_fold\nrun_tracker_purge\n", 'somebody else schedules, with other settings');
is( $node->safe_psql('app', q{SELECT jobname, schedule, command FROM cron.job WHERE username = 'other' ORDER BY 1}),
	"run_tracker_expire|*/5 * * * *|SELECT run_tracker.expire_runs(10000)\nrun_tracker_fold|*/5 * * * *|SELECT run_tracker.fold_statistics()\nrun_tracker_purge|0 3 * * *|$purge_90",
	'and gets these');
$node->safe_psql('app', q{SELECT cron.schedule('mine', '0 0 1 1 *', 'SELECT 1'), cron.schedule('run_tracker_purge', '0 0 1 1 *', 'SELECT 2')});
is($node->safe_psql('app', q{SELECT count(*) FROM cron.job WHERE username = 'service'}), '3', 'those of the first are there still');
is(as_user($node, 'other', 'app', 'SELECT run_tracker.unschedule_maintenance(); SELECT run_tracker.unschedule_maintenance();'), "3\n0\n", 'unschedule_maintenance() removes three jobs, once');
is( $node->safe_psql('app', $jobs),
	"mine|0 0 1 1 *|SELECT 1|postgres|app|t\n" . $scheduled =~ s/^(?=run_tracker_purge)/run_tracker_purge|0 0 1 1 *|SELECT 2|postgres|app|t\n/mr,
	'those of the caller');
is(as_user($node, 'client', 'app', 'SELECT run_tracker.unschedule_maintenance();'), "ERROR:  42501\n", 'it is not for clients');
is($node->safe_psql('app', 'SELECT run_tracker.unschedule_maintenance()'), '1', 'a superuser, who sees all jobs, removes his own');
is($node->safe_psql('app', q{SELECT string_agg(jobname || ' of ' || username, ', ' ORDER BY jobname) FROM cron.job}),
	'mine of postgres, run_tracker_expire of service, run_tracker_fold of service, run_tracker_purge of service', 'and leaves all others');
$node->safe_psql('app', q{SELECT cron.unschedule('mine')});

# What the jobs run, run as they do: by a service that is no superuser.
$node->safe_psql('app', q{INSERT INTO run_tracker.runs (user_id, status, created_at, finished_at) SELECT 'u', 'completed', now() - n * interval '1 day', now() - n * interval '1 day' FROM generate_series(1, 60) n});
$run = $node->safe_psql('app', 'SELECT due()');
for my $job (split /\n/, $node->safe_psql('app', q{SELECT command FROM cron.job WHERE username = 'service' ORDER BY jobname}))
{
	my $deltas = $node->safe_psql('app', 'SELECT count(*) FROM run_tracker.stat_deltas');
	my $result = as_user($node, 'service', 'app', $job);

	is($result, $job =~ /expire/ ? "1\n" : $job =~ /fold/ ? "$deltas\n" : "31|0|0|0\n", "$job as the service");
	cmp_ok($deltas, '>', 0, 'it folds something') if $job =~ /fold/;
}
my $stats = q{SELECT u.user_id, u.total, u.finished, u.successful, u.timed_out FROM run_tracker.user_stats() u ORDER BY 1};
is($node->safe_psql('app', $stats), "|3|3|0|3\nu|60|60|60|0", 'statistics keep what was deleted');
is($node->safe_psql('app', 'SELECT count(*) FROM run_tracker.stat_deltas'), '0', 'and are all folded');
is($node->safe_psql('app', "SELECT status FROM run_tracker.runs WHERE run_id = '$run'"), 'timeout', 'the run that was due has ended');
is($node->safe_psql('app', q{SELECT count(*) FROM run_tracker.runs WHERE user_id = 'u' AND finished_at < now() - interval '30 days'}), '0', 'and old ones are gone');

# Now pg_cron does it, at the next minute.
$run = $node->safe_psql('app', 'SELECT due()');
my $by_cron = q{FROM cron.job_run_details WHERE command = 'SELECT run_tracker.expire_runs(10000)' AND username = 'service'};
ok(eventually(sub { $node->safe_psql('app', "SELECT EXISTS (SELECT $by_cron AND status IN ('succeeded', 'failed'))") eq 't' }, 150), 'within minutes, pg_cron runs the job');
is($node->safe_psql('app', "SELECT status $by_cron ORDER BY runid LIMIT 1"), 'succeeded', 'which succeeds');
is($node->safe_psql('app', "SELECT status FROM run_tracker.runs WHERE run_id = '$run'"), 'timeout', 'and ends the run that was due');
is($node->safe_psql('app', "SELECT actor, reason ~ '^maximum duration' FROM run_tracker.transitions WHERE run_id = '$run' AND to_status = 'timeout'"), 'service|t', 'on behalf of the service');
$by_cron =~ s/expire_runs\(10000\)/fold_statistics()/;
ok(eventually(sub { $node->safe_psql('app', "SELECT EXISTS (SELECT $by_cron AND status IN ('succeeded', 'failed'))") eq 't' }, 150), 'it runs the other one');
is($node->safe_psql('app', "SELECT status $by_cron ORDER BY runid LIMIT 1"), 'succeeded', 'which succeeds, too');
invariants_hold($node, 'app', 'totals and open set are true');

# ---- both preloaded ----

$node->append_conf('postgresql.conf', "shared_preload_libraries = 'pg_cron,run_tracker'\n");
$node->restart;
is(as_user($node, 'service', 'app', 'SELECT jobname FROM run_tracker.schedule_maintenance();'), "run_tracker_purge\n", 'where the worker is, only old runs are left to pg_cron');
is($node->safe_psql('app', $jobs), "run_tracker_purge|*/10 * * * *|$purge_30|service|app|t", 'the job for the others is gone');
$run = $node->safe_psql('app', 'SELECT due()');
ok($node->poll_query_until('app', "SELECT status = 'timeout' FROM run_tracker.runs WHERE run_id = '$run'"), 'the worker ends them');
is(as_user($node, 'service', 'app', 'SELECT run_tracker.unschedule_maintenance();'), "1\n", 'unschedule_maintenance() removes the one');
is($node->safe_psql('app', 'SELECT count(*) FROM cron.job'), '0', 'nothing is left');

# Jobs and tracker come and go without each other.
$node->safe_psql('app', 'SELECT run_tracker.schedule_maintenance(); DROP EXTENSION pg_cron');
(undef, undef, $err) = $node->psql('app', 'SELECT run_tracker.schedule_maintenance()');
like($err, qr/extension "pg_cron" is not installed/, 'without the extension pg_cron nothing can be scheduled');
is($node->safe_psql('app', 'SELECT run_tracker.unschedule_maintenance()'), '0', 'or removed');
invariants_hold($node, 'app', 'totals and open set are true');
$node->stop;
done_testing();
