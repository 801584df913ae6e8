# The extension owns the code, the user owns the data: does the data survive the loss of the code, and does the code
# find back to the data?
use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use RunTracker;

my $node = new_server('drop');
fill_database($node, 'db');
fill_database($node, 'owned', set_owner => 1);

# What is left without the code: all but triggers, policies, defaults and functions of the tracker.
my $survivors = qr/^(rows|sequence|schema|relation|index|statistics|publication|constraint|view\|run_tracker)\|/;

# Privileges on functions go with the functions.
sub without_function_grants
{
	return join "\n", map { /^(function\|run_tracker|relation\|run_tracker\.(?:worker_status|metrics|rate_limits|circuit_breakers)\|)/ ? s/\|[^|]*$//r : $_ } grep { !/^member\|/ } split /\n/, $_[0];
}

sub column_types
{
	my ($db) = @_;
	return $node->safe_psql($db, <<'SQL');
SELECT attrelid::regclass, attname, atttypid::regtype, attnotnull, attidentity, attgenerated, attacl
FROM pg_attribute JOIN pg_class c ON c.oid = attrelid
WHERE relnamespace = 'run_tracker'::regnamespace AND relkind IN ('r', 'v') AND attnum > 0 AND NOT attisdropped
  -- the views that are the extension's
  AND relname NOT IN ('worker_status', 'metrics', 'rate_limits', 'circuit_breakers')
ORDER BY attrelid::regclass::text, attnum
SQL
}

for my $db (qw(db owned))
{
	my $before = fingerprint($node, $db);
	my $columns = column_types($db);
	my $rows = join "\n", grep { /$survivors/ && !/worker_status|run_tracker\.(metrics|rate_limits|circuit_breakers)/ } split /\n/, $before;

	my ($rc, $out, $err) = $node->psql($db, 'DROP EXTENSION run_tracker');
	isnt($rc, 0, "$db: DROP EXTENSION is refused");
	like($err, qr/cannot drop extension run_tracker because other objects depend on it/, 'because of the tables');
	same(fingerprint($node, $db), $before, 'nothing has changed');

	$node->safe_psql($db, 'DROP EXTENSION run_tracker CASCADE');
	is($node->safe_psql($db, q{SELECT count(*) FROM pg_proc WHERE pronamespace = 'run_tracker'::regnamespace}),
		'0', "$db: DROP EXTENSION CASCADE takes all functions");
	is( $node->safe_psql(
			$db,
			q{SELECT string_agg(tgname, ' ') FROM pg_trigger WHERE NOT tgisinternal
		   AND tgrelid IN (SELECT oid FROM pg_class WHERE relnamespace = 'run_tracker'::regnamespace)}),
		'app_change',
		'and all triggers but the one of the user');
	same(column_types($db), $columns, 'no column is lost');
	same(join("\n", grep { /$survivors/ && !/worker_status|run_tracker\.(metrics|rate_limits|circuit_breakers)/ } split /\n/, fingerprint($node, $db)),
		$rows, 'no row, index, constraint, view, privilege, sequence or publication is lost');

	# A role that was granted the tables now sees nothing, rather than everything: row level security is on still.
	is($node->safe_psql($db, q{SET ROLE app_client; SELECT count(*) FROM run_tracker.tasks}),
		'0', "$db: without policies users see no rows");

	# Work goes on without the tracker.
	my $untracked = <<'SQL';
UPDATE run_tracker.tasks SET status = 'completed', phase = 'succeeded', finished_at = now(), cost = 3, input_tokens = 5, total_tokens = 5
WHERE name ~ '[67]$';
DELETE FROM run_tracker.tasks WHERE name ~ '77';
DELETE FROM run_tracker.messages WHERE seq = 1;
INSERT INTO run_tracker.logs (run_id, seq, log_id, user_id, level, message, created_at)
SELECT run_id, 1000, gen_random_uuid(), user_id, 'ERROR', 'untracked', now() FROM run_tracker.runs WHERE priority = 1;
INSERT INTO run_tracker.runs (run_id, user_id, lifecycle, status, phase, priority, attempt, max_attempts, created_at, updated_at, finished_at)
SELECT ('00000000-0000-7000-8009-00000000000' || n)::uuid, 'untracked', 'run', CASE n WHEN 1 THEN 'completed' ELSE 'pending' END,
       CASE n WHEN 1 THEN 'succeeded' ELSE 'queued' END, 0, 1, 1, now(), now(), CASE n WHEN 1 THEN now() END
FROM generate_series(1, 3) n;
INSERT INTO run_tracker.tasks (run_id, task_id, user_id, lifecycle, status, phase, attempt, created_at, updated_at)
VALUES ('00000000-0000-7000-8009-000000000002', '00000000-0000-7000-800a-000000000001', 'untracked', 'task', 'pending', 'queued', 1, now(), now());
DELETE FROM run_tracker.runs WHERE run_id::text ~ 'e$';
UPDATE run_tracker.runs SET status = 'cancelled', phase = 'cancelled', finished_at = now() WHERE run_id::text ~ '0f$' AND finished_at IS NULL;
UPDATE run_tracker.tasks t SET status = 'cancelled', phase = 'cancelled', finished_at = now()
FROM run_tracker.runs r WHERE r.run_id = t.run_id AND r.finished_at IS NOT NULL AND t.finished_at IS NULL;
INSERT INTO run_tracker.retrievals (run_id, retrieval_id, user_id, retrieval_type, results_count, created_at)
SELECT run_id, gen_random_uuid(), user_id, 'untracked', 0, now() FROM run_tracker.runs WHERE priority = 1;
DELETE FROM run_tracker.artifacts WHERE ordinal % 5 = 0;
-- a response that is replaced
UPDATE run_tracker.tasks SET response = 'untracked' WHERE name ~ '98$' AND finished_at IS NULL;
-- still open, but another worker and priority
UPDATE run_tracker.runs SET worker = 'untracked', priority = 9, attempt = attempt + 1 WHERE run_id::text ~ '1$' AND finished_at IS NULL;
SQL
	if ($db eq 'db')
	{
		$node->safe_psql($db, $untracked);
	}
	my $ledger = qr/^rows\|run_tracker\.(runs|messages|logs|retrievals|artifacts|lifecycles)\|/;
	$rows = join "\n", grep { /$ledger/ } split /\n/, fingerprint($node, $db);
	# what tasks have to be like: if they have finished meanwhile, with all that had arrived of their responses
	$node->safe_psql($db, <<'SQL');
CREATE TABLE expected_task AS
SELECT t.task_id, to_jsonb(t) - 'updated_at' || CASE WHEN t.finished_at IS NOT NULL AND c.rest IS NOT NULL
                                                     THEN jsonb_build_object('response', t.response || c.rest) ELSE '{}' END AS row
FROM run_tracker.tasks t LEFT JOIN (SELECT task_id, string_agg(content, '' ORDER BY start_offset) AS rest
                                    FROM run_tracker.response_chunks GROUP BY task_id) c USING (task_id)
SQL
	is($node->safe_psql($db, 'SELECT count(*) > 10 FROM run_tracker.response_chunks'), 't', "$db: responses are arriving");

	$node->safe_psql($db, 'CREATE EXTENSION run_tracker');
	is($node->safe_psql($db, 'SELECT run_tracker.install()'), '1.0', "$db: CREATE EXTENSION and install()");
	same(join("\n", grep { /$ledger/ } split /\n/, fingerprint($node, $db)), $rows, 'change no row');
	is( $node->safe_psql(
			$db, q{SELECT count(*) FROM expected_task e FULL JOIN run_tracker.tasks t USING (task_id) WHERE e.row IS DISTINCT FROM to_jsonb(t) - 'updated_at'}),
		'0',
		'but put the pieces of responses together where tasks have finished');
	$node->safe_psql($db, 'DROP TABLE expected_task');
	invariants_hold($node, $db, 'totals and open set are right, also after untracked writes', without_history => $db eq 'db');

	if ($db eq 'owned')
	{
		# The policy of the user is the user's; nothing else is missing.
		same( without_function_grants(fingerprint($node, $db)),
			without_function_grants($before), 'everything is as it was, but for privileges on functions');
	}
	else
	{
		my $kind = qr/^(trigger|policy|column|relation|schema|function|index|constraint|view)\|/;
		same(
			join("\n", grep { /$kind/ } split /\n/, without_function_grants(fingerprint($node, $db))),
			join("\n", grep { /$kind/ } split /\n/, without_function_grants($before)),
			'triggers, policies, defaults and all else are as they were, but for privileges on functions');
	}

	my $state = fingerprint($node, $db);
	$node->safe_psql($db, 'SELECT run_tracker.install()');
	same(fingerprint($node, $db), $state, 'a second install() changes nothing');

	# Calling functions needs the grants again.
	($rc, $out, $err) = $node->psql($db, q{SET ROLE app_client; SELECT run_tracker.current_user_id()});
	like($err, qr/permission denied/, "$db: functions have to be granted again");
	RunTracker::add_grants($node, $db);
	if ($db eq 'owned')
	{
		$node->safe_psql($db, q{SELECT run_tracker.set_owner('app_tables')});
		same(fingerprint($node, $db), $before, 'grant_*() and set_owner() bring everything back');
	}
	works($node, $db, 'the tracker is at work') if $db eq 'owned';
	invariants_hold($node, $db, 'and keeps totals and open set true', without_history => $db eq 'db');
}

# In one session, with its plans and what it knows about tables and lifecycles. psql stops at the first error.
my ($ok, $out, $err) = run_cmd($node, [ 'psql', '-XqAt', '-v', 'ON_ERROR_STOP=1', '-d', 'postgres' ], <<'SQL');
SET client_min_messages = warning;
CREATE EXTENSION run_tracker;
SELECT run_tracker.create_task(run_tracker.create_run(kind => 'k')) AS task \gset
SELECT run_tracker.complete_task(:'task', input_tokens => 5);
SELECT run_tracker.create_task(run_tracker.create_run(kind => 'k')) AS task \gset
DROP EXTENSION run_tracker CASCADE;
CREATE EXTENSION run_tracker;
SELECT run_tracker.install();
SELECT run_tracker.complete_task(:'task', input_tokens => 7);
SELECT count(*), sum(input_tokens), sum(open_task_count) FROM run_tracker.run_summary;
-- now also the tables
DROP EXTENSION run_tracker CASCADE;
DROP SCHEMA run_tracker CASCADE;
CREATE EXTENSION run_tracker;
SELECT count(*) FROM run_tracker.runs;
SELECT run_tracker.create_task(run_tracker.create_run(kind => 'k')) AS task \gset
SELECT run_tracker.complete_task(:'task', input_tokens => 11);
SELECT count(*), sum(input_tokens) FROM run_tracker.run_summary;
-- and within one transaction, rolled back
BEGIN;
DROP EXTENSION run_tracker CASCADE;
DROP SCHEMA run_tracker CASCADE;
CREATE EXTENSION run_tracker;
SELECT run_tracker.create_task(run_tracker.create_run(kind => 'k')) AS other \gset
SELECT run_tracker.complete_task(:'other', input_tokens => 13);
SELECT count(*), sum(input_tokens) FROM run_tracker.run_summary;
ROLLBACK;
SELECT run_tracker.create_task(run_tracker.create_run(kind => 'k')) AS task \gset
SELECT run_tracker.complete_task(:'task', input_tokens => 17);
SELECT count(*), sum(input_tokens) FROM run_tracker.run_summary;
SELECT count(*) FROM run_tracker.check_totals();
SQL
is("$out$err", <<'EXPECTED', 'DROP and CREATE EXTENSION in the middle of a session');
t
1.0
t
2|12|0
0
t
1|11
t
1|13
t
2|28
0
EXPECTED

# The code without its tables says what to do.
$node->safe_psql('postgres', 'DROP TABLE run_tracker.runs CASCADE');
(undef, undef, $err) = $node->psql('postgres', 'SELECT run_tracker.create_run()');
like($err, qr/table run_tracker\.runs does not exist\n.*HINT:  Run SELECT run_tracker\.install\(\)/s,
	'without a table functions point to install()');
$node->safe_psql('postgres', 'DROP SCHEMA run_tracker CASCADE');
is($node->safe_psql('postgres', q{SELECT count(*) FROM pg_extension WHERE extname = 'run_tracker'}),
	'0', 'DROP SCHEMA takes the extension along');
$node->safe_psql('postgres', 'CREATE EXTENSION run_tracker');
is($node->safe_psql('postgres', 'SELECT run_tracker.is_service()'), 't', 'and can be created again');

$node->stop;
done_testing();
