# The views of applications are the user's: they come back from a dump, outlive the extension, and can be made by an
# owner of the tables who is no superuser.
use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use RunTracker;

my $node = new_server('compat');
my $dir = $node->basedir;
my @applications = qw(spar iflow ai_runs spark workflow);

# What create_compat() makes, with everything that can be said about it.
my $DESCRIPTION = <<'SQL';
SET search_path = pg_catalog;
SELECT 'view', c.oid::regclass::text, c.relowner::regrole, c.relacl, c.reloptions, obj_description(c.oid, 'pg_class'), pg_get_viewdef(c.oid)
FROM pg_class c WHERE c.relnamespace = '"My App"'::regnamespace AND c.relkind = 'v'
UNION ALL
SELECT 'column', a.attrelid::regclass::text, NULL, NULL, ARRAY[a.attname], col_description(a.attrelid, a.attnum), format_type(a.atttypid, a.atttypmod)
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 WHERE c.relnamespace = '"My App"'::regnamespace AND c.relkind = 'v'
UNION ALL
SELECT 'trigger', t.tgrelid::regclass::text, NULL, NULL, ARRAY[t.tgname], t.tgenabled::text, pg_get_triggerdef(t.oid)
FROM pg_class c JOIN pg_trigger t ON t.tgrelid = c.oid WHERE c.relnamespace = '"My App"'::regnamespace
UNION ALL
SELECT 'function', p.oid::regprocedure::text, p.proowner::regrole, COALESCE(p.proacl, acldefault('f', p.proowner)), p.proconfig, obj_description(p.oid, 'pg_proc'), pg_get_functiondef(p.oid)
FROM pg_proc p WHERE p.pronamespace = '"My App"'::regnamespace
UNION ALL
SELECT 'index', i.indexrelid::regclass::text, NULL, NULL, NULL, NULL, pg_get_indexdef(i.indexrelid)
FROM pg_index i WHERE i.indrelid::regclass::text LIKE 'run_tracker.%'
UNION ALL
SELECT 'statistics', NULL, s.stxowner::regrole, NULL, NULL, NULL, pg_get_statisticsobjdef(s.oid) FROM pg_statistic_ext s
UNION ALL
SELECT 'policy', p.polrelid::regclass::text, NULL, NULL, NULL, obj_description(p.oid, 'pg_policy'), pg_get_expr(p.polqual, p.polrelid) FROM pg_policy p
WHERE p.polname = 'public_rows'
ORDER BY 1, 2, 5, 7
SQL

# Rows come and go through the views; what they show does not change.
my $WORK = <<'SQL';
SET search_path = "My App";
SET request.jwt.claims = '{"sub": "a0000000-0000-4000-8000-000000000001"}';
SET ROLE compat_client;
BEGIN;
INSERT INTO spar_runs (goal) VALUES ('g') RETURNING status, user_id;
UPDATE spar_runs SET status = 'processing' RETURNING status;
INSERT INTO iflow_jobs (job_id, platform) VALUES ('20000000-0000-4000-8000-000000000001', 'p') RETURNING status, progress;
INSERT INTO iflow_components (job_id, component_name) VALUES ('20000000-0000-4000-8000-000000000001', 'c') RETURNING component_name;
SELECT iflow_job_details('20000000-0000-4000-8000-000000000001') #> '{statistics,total_components}';
INSERT INTO ai_runs (name, messages) VALUES ('n', '[{"role": "user", "content": "c"}]') RETURNING message_count;
INSERT INTO spark_build_jobs (priority) VALUES (3) RETURNING status;
INSERT INTO workflow_executions (workflow_id) VALUES ('w') RETURNING mode;
SELECT workflow_id, status FROM workflow_history();
DELETE FROM workflow_executions RETURNING workflow_id;
ROLLBACK;
SELECT count(*) FROM spar_runs;
SELECT workflow_id, user_id, status FROM workflow_executions;
SELECT workflow_id FROM active_workflow_executions();
UPDATE workflow_executions SET error = 'stolen' RETURNING 1;
SQL

sub work
{
	my ($db) = @_;
	my ($ok, $out, $err) = run_cmd($node, [ 'psql', '-XqAt', '-v', 'ON_ERROR_STOP=1', '-d', $db ], $WORK);
	return "$out$err";
}

sub dump_of
{
	my ($db) = @_;
	my (undef, $out, $err) = run_cmd($node, [ 'pg_dump', '-d', $db ]);
	is($err, '', "pg_dump of $db says nothing");
	$out =~ s/^\\(un)?restrict .*\n//mg;
	return $out;
}

$node->safe_psql('postgres', 'CREATE ROLE compat_client; CREATE ROLE compat_owner; CREATE DATABASE source TEMPLATE template0; CREATE DATABASE owned TEMPLATE template0');
my ($ok, $out, $err);
for my $db (qw(source owned))
{
	$node->safe_psql($db, q{CREATE EXTENSION run_tracker; CREATE SCHEMA "My App"; GRANT USAGE ON SCHEMA "My App" TO PUBLIC;
		SELECT run_tracker.grant_client('compat_client')});
}

# An owner who is no superuser can make everything but indexes, and is told which.
$node->safe_psql('owned', q{SELECT run_tracker.set_owner('compat_owner'); GRANT CREATE ON SCHEMA "My App" TO compat_owner});
($ok, undef, $err) = run_cmd($node, [ 'psql', '-XqAt', '-v', 'ON_ERROR_STOP=1', '-d', 'owned' ],
	'SET ROLE compat_owner; ' . join '', map { qq{SELECT run_tracker.create_compat('$_', '"My App"') IS NULL;} } @applications);
ok($ok, 'the owner of the tables makes the views') or diag $err;
like($err, qr/WARNING:  indexes that the views need are missing\nDETAIL:  They are .*runs_user_uuid_idx.*\nHINT:  Only the owner of schema run_tracker/,
	'and is told what is missing');
is( $node->safe_psql('owned', q{SELECT DISTINCT relowner::regrole FROM pg_class WHERE relnamespace = '"My App"'::regnamespace}),
	'compat_owner', 'they are his');
$node->safe_psql('owned', 'CREATE SCHEMA other');
$node->safe_psql('owned', qq{SELECT run_tracker.create_compat('$_', 'other'); SELECT run_tracker.drop_compat('$_', 'other')})
  for @applications;
($ok, undef, $err) = run_cmd($node, [ 'psql', '-XqAt', '-v', 'ON_ERROR_STOP=1', '-d', 'owned' ],
	q{SET ROLE compat_owner; SELECT run_tracker.create_compat('workflow', '"My App"', public_rows => true) IS NULL;});
is("$ok$err", '1', 'indexes that a superuser has made for him are there') or diag $err;

for my $application (@applications)
{
	my $public = $application eq 'workflow' ? ', public_rows => true' : '';
	$node->safe_psql('source', qq{SELECT run_tracker.create_compat('$application', '"My App"'$public)});
}
my $working = work('source');
is($working, <<'EXPECTED', 'the views are at work');
pending|a0000000-0000-4000-8000-000000000001
processing
pending|0
c
1
1
queued
cloud-run
w|running
w
0
EXPECTED
is(work('owned'), $working, 'those of the owner, too');

for my $db (qw(source owned))
{
	$node->safe_psql($db, q{INSERT INTO "My App".workflow_executions (workflow_id) VALUES ('public');
		INSERT INTO "My App".spar_runs (run_id, user_id, status, created_at, completed_at, processing_duration_ms)
		VALUES ('10000000-0000-4000-8000-000000000001', 'b0000000-0000-4000-8000-000000000001', 'completed', '2001-01-01', '2001-01-02', 7)});
	my $description = $node->safe_psql($db, $DESCRIPTION);
	like($description, qr/^policy\|run_tracker\.runs\|/m, "$db: the description covers policies");
	my $shows = work($db);
	like($shows, qr/^public\|\|running\npublic\n\z/m, 'executions of nobody are seen, and not written');
	my $dump = dump_of($db);

	# a dump, in one piece and in parallel
	for my $options ([ '-1' ], ['-j4'])
	{
		run_cmd($node, [ 'pg_dump', '-Fc', '-f', "$dir/$db.dump", $db ]) or die 'pg_dump';
		$node->safe_psql('postgres', 'CREATE DATABASE restored TEMPLATE template0');
		(undef, $out, $err) = run_cmd($node, [ 'pg_restore', '-e', @$options, '-d', 'restored', "$dir/$db.dump" ]);
		is("$out$err", '', "$db: pg_restore @$options says nothing");
		same($node->safe_psql('restored', $DESCRIPTION), $description, 'everything is there');
		same(dump_of('restored'), $dump, 'a second dump is identical');
		is(work('restored'), $shows, 'the views are at work');
		is( $node->safe_psql('restored', q{SELECT cardinality(run_tracker.drop_compat('workflow', '"My App"')) > 1}),
			't', 'create_compat() knows what it has made')
		  if $db eq 'source';
		$node->safe_psql('postgres', 'DROP DATABASE restored');
	}

	# without the extension: what is left can be read
	$node->safe_psql($db, 'CREATE VIEW mine AS SELECT run_id, status FROM "My App".spar_runs');
	$node->safe_psql($db, 'DROP EXTENSION run_tracker CASCADE');
	is( $node->safe_psql($db, 'SELECT run_id, user_id, status, processing_duration_ms FROM "My App".spar_runs'),
		'10000000-0000-4000-8000-000000000001|b0000000-0000-4000-8000-000000000001|completed|7',
		"$db: the views outlive the extension");
	is($node->safe_psql($db, 'SELECT count(*) FROM mine'), '1', 'and so does what depends on them');
	is($node->safe_psql($db, q{SELECT workflow_id FROM "My App".workflow_history()}), 'public', 'functions, too');
	isnt($node->psql($db, q{INSERT INTO "My App".spar_runs (goal) VALUES ('x')}), 0, 'nothing is written past the tracker');

	# and with it again
	$node->safe_psql($db, 'CREATE EXTENSION run_tracker');
	$node->safe_psql($db, q{SELECT run_tracker.install()});
	$node->safe_psql($db, q{SELECT run_tracker.grant_client('compat_client')});
	my $owner = $db eq 'owned' ? 'SET ROLE compat_owner;' : '';
	$node->safe_psql($db, q{SELECT run_tracker.set_owner('compat_owner')}) if $owner;
	for my $application (@applications)
	{
		my $public = $application eq 'workflow' ? ', public_rows => true' : '';
		$node->safe_psql($db, qq{$owner SELECT run_tracker.create_compat('$application', '"My App"'$public)});
	}
	same($node->safe_psql($db, $DESCRIPTION), $description, "$db: create_compat() puts back what the extension took along");
	is(work($db), $shows, 'the views are at work');
	$node->safe_psql($db, 'DROP VIEW mine');
	$node->safe_psql($db, qq{$owner SELECT run_tracker.drop_compat('$_', '"My App"')}) for @applications;
	is( $node->safe_psql($db, q{SELECT (SELECT count(*) FROM pg_class WHERE relnamespace = '"My App"'::regnamespace),
			(SELECT count(*) FROM pg_proc WHERE pronamespace = '"My App"'::regnamespace), (SELECT count(*) FROM pg_policy WHERE polname = 'public_rows')}),
		'0|0|0', 'and drop_compat() drops everything');
}

$node->stop;
done_testing();
