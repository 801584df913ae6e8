# Random sequences of operations: after each of them the totals are what the rows add up to, every task has the response
# that was assigned and appended to it, and usage is what has finished or was recorded, whatever was rolled back in between. The sequences are the same in every run; RUN_TRACKER_SEED adds another one.
use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use RunTracker;

my @seeds = (1 .. 10);
push @seeds, $ENV{RUN_TRACKER_SEED} if defined $ENV{RUN_TRACKER_SEED};
my $steps = 300;
my $runs = 6;

my $node = new_server('property');
$node->safe_psql('postgres', 'CREATE EXTENSION run_tracker');
# What the response of each task has to be, kept by triggers and a function of the test's own: a statement assigns a
# response, a retry begins without one, pieces are appended.
$node->safe_psql('postgres', <<'SQL');
CREATE TABLE model (task_id uuid PRIMARY KEY, response text, assigned boolean);
CREATE FUNCTION model_before() RETURNS trigger LANGUAGE plpgsql SET search_path = public AS $$
BEGIN
    UPDATE model SET assigned = NEW.response IS DISTINCT FROM OLD.response,
                     response = CASE WHEN NEW.response IS DISTINCT FROM OLD.response THEN NEW.response ELSE response END
    WHERE task_id = OLD.task_id;
    RETURN NEW;
END
$$;
CREATE FUNCTION model_after() RETURNS trigger LANGUAGE plpgsql SET search_path = public AS $$
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        DELETE FROM model;
    ELSIF TG_OP = 'DELETE' THEN
        DELETE FROM model WHERE task_id = OLD.task_id;
    ELSIF TG_OP = 'INSERT' THEN
        INSERT INTO model VALUES (NEW.task_id, NEW.response);
    ELSE
        UPDATE model SET task_id = NEW.task_id, response = CASE WHEN NEW.attempt = OLD.attempt OR assigned THEN response END
        WHERE task_id = OLD.task_id;
    END IF;
    RETURN NULL;
END
$$;
-- the first of the triggers sees what the statement assigns
CREATE TRIGGER a_model BEFORE UPDATE ON run_tracker.tasks FOR EACH ROW EXECUTE FUNCTION model_before();
CREATE TRIGGER model AFTER INSERT OR UPDATE OR DELETE ON run_tracker.tasks FOR EACH ROW EXECUTE FUNCTION model_after();
-- What users have used: tasks when they end and are corrected then, entries when they are written and corrected. What is deleted
-- counts, but is no entry any more.
ALTER TABLE model ADD COLUMN counts boolean NOT NULL DEFAULT false;
CREATE TABLE model_usage (user_id text, deleted boolean, requests bigint, tokens numeric, cost numeric, PRIMARY KEY (user_id, deleted));
CREATE FUNCTION model_count(who text, gone boolean, n bigint, tokens bigint, cost numeric, sign int) RETURNS void LANGUAGE sql SET search_path = public AS $$
    INSERT INTO model_usage VALUES (who, gone, sign * n, sign * COALESCE(tokens, 0), sign * COALESCE(cost, 0))
    ON CONFLICT (user_id, deleted) DO UPDATE SET requests = model_usage.requests + excluded.requests, tokens = model_usage.tokens + excluded.tokens, cost = model_usage.cost + excluded.cost
$$;
CREATE FUNCTION model_task_usage() RETURNS trigger LANGUAGE plpgsql SET search_path = public AS $$
DECLARE
    counted boolean := (SELECT counts FROM model WHERE task_id = OLD.task_id);
    counts_now boolean;
BEGIN
    IF TG_OP = 'DELETE' THEN
        IF counted THEN
            PERFORM model_count(OLD.user_id, true, 1, OLD.total_tokens, OLD.cost, 1);
        END IF;
        RETURN NULL;
    END IF;
    counts_now := NEW.finished_at IS NOT NULL AND (counted OR OLD.finished_at IS NULL);
    -- what is retried stays counted
    IF counted AND counts_now THEN
        PERFORM model_count(OLD.user_id, false, 1, OLD.total_tokens, OLD.cost, -1);
    END IF;
    IF counts_now THEN
        PERFORM model_count(NEW.user_id, false, 1, NEW.total_tokens, NEW.cost, 1);
    END IF;
    UPDATE model SET counts = counts_now WHERE task_id = OLD.task_id;
    RETURN NULL;
END
$$;
CREATE FUNCTION model_truncate_usage() RETURNS trigger LANGUAGE plpgsql SET search_path = public AS $$
BEGIN
    PERFORM model_count(t.user_id, true, 1, t.total_tokens, t.cost, 1) FROM run_tracker.tasks t JOIN model USING (task_id) WHERE counts;
    RETURN NULL;
END
$$;
CREATE FUNCTION model_record() RETURNS trigger LANGUAGE plpgsql SET search_path = public AS $$
BEGIN
    IF TG_OP = 'UPDATE' THEN
        PERFORM model_count(OLD.user_id, false, OLD.requests, OLD.total_tokens, OLD.cost, -1);
    END IF;
    IF TG_OP = 'DELETE' THEN
        PERFORM model_count(OLD.user_id, true, OLD.requests, OLD.total_tokens, OLD.cost, 1);
    -- what a task has used before it was retried has been counted
    ELSIF TG_OP = 'UPDATE' OR NEW.source <> 'retry' THEN
        PERFORM model_count(NEW.user_id, false, NEW.requests, NEW.total_tokens, NEW.cost, 1);
    END IF;
    RETURN NULL;
END
$$;
-- before the trigger that follows the id of a task
CREATE TRIGGER a_model_usage AFTER UPDATE OR DELETE ON run_tracker.tasks FOR EACH ROW EXECUTE FUNCTION model_task_usage();
CREATE TRIGGER a_model_truncate BEFORE TRUNCATE ON run_tracker.tasks FOR EACH STATEMENT EXECUTE FUNCTION model_truncate_usage();
CREATE TRIGGER model AFTER INSERT OR UPDATE OR DELETE ON run_tracker.usage_records FOR EACH ROW EXECUTE FUNCTION model_record();
INSERT INTO run_tracker.tiers (name) VALUES ('endless');
INSERT INTO run_tracker.accounts (user_id, tier) VALUES ('u0', 'endless'), ('u1', 'endless');
-- The three of them: what is counted, folded or not; the single entries; and the model.
CREATE VIEW counted AS
SELECT user_id, sum(requests) AS requests, sum(tokens) AS tokens, sum(cost) AS cost
FROM (SELECT user_id, finished_count AS requests, total_tokens AS tokens, cost FROM run_tracker.stat_deltas WHERE usage_on IS NOT NULL
      UNION ALL SELECT user_id, finished_count, total_tokens, cost FROM run_tracker.stat_totals WHERE grain = 'usage' AND period = 'day') c GROUP BY 1;
CREATE VIEW entries AS SELECT user_id, sum(requests) AS requests, sum(total_tokens) AS tokens, sum(cost) AS cost FROM run_tracker.usage GROUP BY 1;
CREATE TRIGGER model_truncate AFTER TRUNCATE ON run_tracker.tasks FOR EACH STATEMENT EXECUTE FUNCTION model_after();
CREATE FUNCTION append(task uuid, VARIADIC pieces text[]) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    whole text;
    piece text;
BEGIN
    FOREACH piece IN ARRAY pieces LOOP
        whole := (SELECT response FROM model WHERE task_id = task) || piece;
        IF run_tracker.append_response(task, piece) <> length(COALESCE(whole, piece)) THEN
            RAISE 'append_response() returned a wrong length' USING ERRCODE = 'assert_failure';
        END IF;
        UPDATE model SET response = COALESCE(whole, NULLIF(piece, '')) WHERE task_id = task;
    END LOOP;
END
$$;
SQL
$node->safe_psql('postgres', "CREATE VIEW violation (what) AS $RunTracker::INVARIANTS" . <<'SQL');
UNION ALL
SELECT format('response of task %s, %s: %L instead of %L', task_id, t.status, actual, m.response)
FROM run_tracker.tasks t FULL JOIN model m USING (task_id),
     LATERAL (SELECT CASE WHEN t.task_id IS NOT NULL THEN run_tracker.task_response(t.task_id) END AS actual) r
WHERE t.task_id IS NULL OR m.task_id IS NULL OR actual IS DISTINCT FROM m.response
UNION ALL
SELECT format('response of task %s from %s: %L of %L', task_id, n, r.content, m.response)
FROM run_tracker.tasks t JOIN model m USING (task_id), unnest('{0,2,7,20}'::int[]) n, LATERAL run_tracker.read_response(task_id, n) r
WHERE r.content <> COALESCE(substr(m.response, n + 1), '') OR r.next_offset <> length(COALESCE(m.response, ''))
   OR r.finished <> (t.finished_at IS NOT NULL)
UNION ALL
SELECT format('usage of %s: counted %s, entries %s and deleted %s, model %s', u.user_id, to_jsonb(c), to_jsonb(e), to_jsonb(d), to_jsonb(m))
FROM unnest('{u0,u1}'::text[]) u (user_id) LEFT JOIN counted c ON c.user_id = u.user_id LEFT JOIN entries e ON e.user_id = u.user_id
     LEFT JOIN model_usage m ON m.user_id = u.user_id AND NOT m.deleted LEFT JOIN model_usage d ON d.user_id = u.user_id AND d.deleted
WHERE (COALESCE(c.requests, 0), COALESCE(c.tokens, 0), COALESCE(c.cost, 0)) <> (COALESCE(m.requests, 0), COALESCE(m.tokens, 0), COALESCE(m.cost, 0))
   OR (COALESCE(e.requests, 0) + COALESCE(d.requests, 0), COALESCE(e.tokens, 0) + COALESCE(d.tokens, 0), COALESCE(e.cost, 0) + COALESCE(d.cost, 0))
      <> (COALESCE(m.requests, 0), COALESCE(m.tokens, 0), COALESCE(m.cost, 0))
UNION ALL
SELECT format('reserved of %s: %s instead of %s', u.user_id, s.reserved_tokens, r.tokens)
FROM unnest('{u0,u1}'::text[]) u (user_id), LATERAL run_tracker.usage_sums(u.user_id) s,
     LATERAL (SELECT COALESCE(sum(tokens), 0) AS tokens FROM run_tracker.reservations WHERE user_id = u.user_id AND state = 'held') r
WHERE s.reserved_tokens <> r.tokens
UNION ALL
SELECT format('reservation %s is %s, its task has ended', r.reservation_id, r.state)
FROM run_tracker.reservations r JOIN run_tracker.tasks t ON t.task_id = r.task_id WHERE r.state <> 'settled'
UNION ALL
SELECT format('usage_at of task %s: %s', t.task_id, t.usage_at) FROM run_tracker.tasks t JOIN model m USING (task_id)
WHERE (t.usage_at IS NOT NULL) <> m.counts
SQL

# perl's own generator differs between versions.
my $state;
sub random_below
{
	my ($n) = @_;
	$state = ($state * 1103515245 + 12345) % 2147483648;
	return int($state / 65536) % $n;
}
sub one_of { return $_[ random_below(scalar @_) ]; }

sub run_id { return sprintf "'00000000-0000-7000-8000-%012d'", 1 + random_below($runs); }
my $tasks;
sub new_task { return sprintf "'00000000-0000-7000-8001-%012d'", ++$tasks; }
sub task_id
{
	# rather the younger ones, most of which are there still
	my $back = random_below(one_of(3, 10, 40));
	return sprintf "'00000000-0000-7000-8001-%012d'", $tasks > $back ? $tasks - $back : 1;
}
sub amount { return one_of('NULL', 0, 1, 1 + random_below(1000), '999999999999'); }
sub cost { return one_of('NULL', '0', '0.000000000000000000001', random_below(100) . '.10', '123456789012345678901234567890.5'); }
sub task_status { return one_of(qw(pending running streaming completed completed failed cancelled timeout)); }
sub piece { return one_of("''", "'é'", "'two'", "'three\n'", "repeat('東', 7)", "repeat('abc', 1000)"); }
sub run_status { return one_of(qw(pending running paused completed failed cancelled timeout)); }

# user u1 owns the runs with odd numbers
sub owner { my ($run) = @_; return $run =~ /[13579]'$/ ? "'u1'" : "'u0'"; }

my @operations = (
	[ 9, sub { my $r = run_id(); "SELECT run_tracker.create_run($r, user_id => " . owner($r) . ')' } ],
	[ 2, sub { 'SELECT run_tracker.start_run(' . run_id() . ')' } ],
	[ 1, sub { 'SELECT run_tracker.' . one_of('complete_run', 'fail_run', 'cancel_run') . '(' . run_id() . ')' } ],
	[ 3, sub { 'SELECT run_tracker.retry_run(' . run_id() . ')' } ],
	[ 2, sub { sprintf "SELECT run_tracker.transition_run(%s, '%s')", run_id(), run_status() } ],
	[ 1, sub { sprintf "UPDATE run_tracker.runs SET status = '%s' WHERE run_id IN (%s, %s)", run_status(), run_id(), run_id() } ],
	[ 1, sub { sprintf "UPDATE run_tracker.runs SET status = 'pending' WHERE finished_at IS NOT NULL" } ],
	[ 1, sub { sprintf "UPDATE run_tracker.runs SET priority = %d, worker = %s, kind = 'k' WHERE run_id = %s", random_below(3), one_of('NULL', "'w'"), run_id() } ],
	[ 1, sub { sprintf 'DELETE FROM run_tracker.runs WHERE run_id IN (%s, %s)', run_id(), run_id() } ],
	[ 12, sub { sprintf 'SELECT run_tracker.create_task(%s, %s)', run_id(), new_task() } ],
	[ 3, sub { sprintf 'SELECT run_tracker.start_task(%s)', task_id() } ],
	[ 5, sub { sprintf 'SELECT run_tracker.complete_task(%s, input_tokens => %s, output_tokens => %s, cost => %s)', task_id(), amount(), amount(), cost() } ],
	[ 2, sub { sprintf 'SELECT run_tracker.fail_task(%s, cost => %s)', task_id(), cost() } ],
	[ 1, sub { sprintf 'SELECT run_tracker.cancel_task(%s)', task_id() } ],
	[ 3, sub { sprintf "UPDATE run_tracker.tasks SET status = '%s' WHERE task_id = %s", task_status(), task_id() } ],
	[ 2, sub { sprintf "UPDATE run_tracker.tasks SET status = '%s' WHERE run_id IN (%s, %s)", task_status(), run_id(), run_id() } ],
	[ 3, sub { sprintf 'UPDATE run_tracker.tasks SET input_tokens = %s, total_tokens = %s, cost = %s WHERE task_id = %s', amount(), amount(), cost(), task_id() } ],
	[ 1, sub { sprintf 'UPDATE run_tracker.tasks SET cost = %s, output_tokens = output_tokens', cost() } ],
	[ 3, sub { my $r = run_id(); sprintf 'UPDATE run_tracker.tasks SET run_id = %s, user_id = %s WHERE task_id IN (%s, %s)', $r, owner($r), task_id(), task_id() } ],
	[ 1, sub { my $r = run_id(); sprintf "UPDATE run_tracker.tasks SET run_id = %s, user_id = %s, status = 'completed', cost = 1 WHERE run_id = %s", $r, owner($r), run_id() } ],
	[ 1, sub { sprintf 'UPDATE run_tracker.tasks SET task_id = %s WHERE task_id = %s', new_task(), task_id() } ],
	[ 2, sub { sprintf 'DELETE FROM run_tracker.tasks WHERE task_id IN (%s, %s)', task_id(), task_id() } ],
	[ 1, sub { sprintf "DELETE FROM run_tracker.tasks WHERE run_id = %s AND phase = '%s'", run_id(), one_of('succeeded', 'queued') } ],
	[ 6, sub { sprintf "INSERT INTO run_tracker.tasks (run_id, task_id, status, input_tokens, cost) VALUES (%s, %s, '%s', %s, %s), (%s, %s, DEFAULT, 5, 5)",
				run_id(), new_task(), task_status(), amount(), cost(), run_id(), new_task() } ],
	[ 2, sub { sprintf "INSERT INTO run_tracker.tasks (run_id, task_id, status, cost) VALUES (%s, %s, 'completed', 3) ON CONFLICT (task_id) DO UPDATE SET cost = excluded.cost + 1, status = '%s'",
				run_id(), task_id(), task_status() } ],
	[ 1, sub { sprintf "INSERT INTO run_tracker.tasks (run_id, task_id) VALUES (%s, %s) ON CONFLICT DO NOTHING", run_id(), task_id() } ],
	[ 2, sub { sprintf "MERGE INTO run_tracker.tasks t USING (VALUES (%s::uuid, %s::uuid), (%s, %s)) v (r, i) ON t.run_id = v.r AND t.task_id = v.i "
				. "WHEN MATCHED AND t.phase = 'failed' THEN DELETE WHEN MATCHED THEN UPDATE SET input_tokens = 8 "
				. "WHEN NOT MATCHED THEN INSERT (run_id, task_id, status, cost) VALUES (v.r, v.i, 'completed', 2)",
				run_id(), new_task(), run_id(), task_id() } ],
	[ 1, sub { my ($r, $t) = (run_id(), new_task());
			"WITH r AS (INSERT INTO run_tracker.runs (run_id, user_id) VALUES ($r, " . owner($r) . ") RETURNING run_id), "
			  . "l AS (INSERT INTO run_tracker.logs (run_id, level, message) SELECT run_id, 'ERROR', 'm' FROM r) "
			  . "INSERT INTO run_tracker.tasks (run_id, task_id, status) SELECT run_id, $t, 'failed' FROM r" } ],
	[ 1, sub { sprintf "WITH gone AS (DELETE FROM run_tracker.tasks WHERE task_id = %s RETURNING *) INSERT INTO run_tracker.tasks (run_id, task_id, status, cost) SELECT run_id, %s, 'failed', cost FROM gone",
				task_id(), new_task() } ],
	[ 12, sub { sprintf 'SELECT append(%s, %s)', task_id(), join ', ', map { piece() } 0 .. random_below(3) } ],
	[ 1, sub { sprintf 'SELECT append(task_id, %s) FROM run_tracker.tasks WHERE run_id = %s AND finished_at IS NULL', piece(), run_id() } ],
	[ 2, sub { sprintf 'UPDATE run_tracker.tasks SET response = %s WHERE task_id IN (%s, %s)', one_of('NULL', "''", piece()), task_id(), task_id() } ],
	[ 1, sub { sprintf 'UPDATE run_tracker.tasks SET name = name WHERE run_id = %s', run_id() } ],
	[ 1, sub { sprintf 'SELECT run_tracker.complete_task(%s, response => %s)', task_id(), piece() } ],
	[ 3, sub { sprintf "SELECT run_tracker.log_retrieval(%s, 'x', results => '[1]')", run_id() } ],
	[ 3, sub { sprintf "SELECT run_tracker.add_artifact(%s, 'x', content => 'y')", run_id() } ],
	[ 1, sub { my $r = run_id(); sprintf 'UPDATE run_tracker.%s SET run_id = %s, user_id = %s WHERE run_id = %s', one_of('retrievals', 'artifacts'), $r, owner($r), run_id() } ],
	[ 1, sub { sprintf 'DELETE FROM run_tracker.%s WHERE run_id = %s', one_of('retrievals', 'artifacts'), run_id() } ],
	[ 2, sub { sprintf "SELECT run_tracker.add_message(%s, '%s', 'text')", run_id(), one_of('user', 'assistant') } ],
	[ 1, sub { sprintf "INSERT INTO run_tracker.messages (run_id, role, content) SELECT %s, 'tool', i::text FROM generate_series(1, 3) i", run_id() } ],
	[ 1, sub { sprintf 'DELETE FROM run_tracker.messages WHERE run_id = %s AND seq %% 2 = 0', run_id() } ],
	[ 1, sub { my $r = run_id(); sprintf 'UPDATE run_tracker.messages SET run_id = %s, user_id = %s, seq = seq + 1000 + %d WHERE run_id = %s', $r, owner($r), random_below(100000), run_id() } ],
	[ 2, sub { sprintf "SELECT run_tracker.add_log(%s, 'line', '%s')", run_id(), one_of(qw(DEBUG ERROR CRITICAL)) } ],
	[ 1, sub { sprintf "UPDATE run_tracker.logs SET level = '%s' WHERE run_id = %s", one_of(qw(INFO ERROR CRITICAL)), run_id() } ],
	[ 1, sub { sprintf 'DELETE FROM run_tracker.logs WHERE run_id IN (%s, %s)', run_id(), run_id() } ],
	[ 3, sub { sprintf "SELECT run_tracker.record_usage('%s', %s, COALESCE(%s, 0))", one_of('u0', 'u1'), amount(), cost() } ],
	[ 1, sub { sprintf "INSERT INTO run_tracker.usage_records (user_id, total_tokens, requests) SELECT 'u' || i %% 2, i, %d FROM generate_series(1, 5) i", random_below(3) } ],
	[ 1, sub { sprintf "UPDATE run_tracker.usage_records SET total_tokens = %d, cost = COALESCE(%s, 0) WHERE user_id = '%s'", random_below(100), cost(), one_of('u0', 'u1') } ],
	[ 1, sub { sprintf "DELETE FROM run_tracker.usage_records WHERE source = '%s'", one_of('call', 'retry', 'reservation') } ],
	[ 1, sub { 'SELECT run_tracker.fold_statistics(' . one_of('', '1', '3') . ')' } ],
	[ 4, sub { my $r = run_id(); sprintf 'SELECT run_tracker.create_task(%s, %s, reservation_id => run_tracker.reserve_usage(%s, %d, 0.5))', $r, new_task(), owner($r), random_below(1000) } ],
	[ 2, sub { sprintf "SELECT run_tracker.reserve_usage('%s', %d)", one_of('u0', 'u1'), random_below(1000) } ],
	[ 2, sub { sprintf "SELECT run_tracker.%s(reservation_id) FROM run_tracker.reservations WHERE user_id = '%s' AND tokens %% 5 = %d AND state <> 'released'", one_of('settle_usage', 'release_usage'), one_of('u0', 'u1'), random_below(5) } ],
	[ 1, sub { sprintf 'UPDATE run_tracker.tasks t SET reservation_id = (SELECT r.reservation_id FROM run_tracker.reservations r WHERE r.user_id = t.user_id ORDER BY r.tokens LIMIT 1) WHERE task_id = %s', task_id() } ],
	[ 1, sub { sprintf "COPY run_tracker.tasks (run_id, task_id, status, cost) FROM PROGRAM \$\$printf '%%s\\t%%s\\tcompleted\\t7\\n' %s %s %s %s\$\$", run_id(), new_task(), run_id(), new_task() } ],
	[ 1, sub { sprintf "DO \$\$ BEGIN PERFORM run_tracker.complete_task(%s, cost => 1); UPDATE run_tracker.tasks SET cost = 2; RAISE 'no'; EXCEPTION WHEN raise_exception OR no_data_found OR SQLSTATE 'RT001' THEN UPDATE run_tracker.tasks SET cost = 4 WHERE run_id = %s; END \$\$",
				task_id(), run_id() } ]);
my @rare = (
	(sub { 'TRUNCATE run_tracker.' . one_of(qw(tasks messages logs retrievals artifacts)) }) x 4,
	sub { 'TRUNCATE run_tracker.runs CASCADE' },
	sub { 'DELETE FROM run_tracker.runs' },
	sub { 'SELECT run_tracker.rebuild_totals()' },
	sub { 'VACUUM run_tracker.run_totals' },
	sub { 'SET run_tracker.task_transitions = ' . one_of('on', 'off') });
my @bag = map { my ($weight, $operation) = @$_; ($operation) x $weight } @operations;

# (57014 is autovacuum that gives way.) What an operation may be refused with: unknown run or task, transition, run finished, duplicate, no such parent, value
# out of the range of a total, rebuilding in REPEATABLE READ, VACUUM in a transaction.
my %allowed = map { $_ => 1 } qw(P0002 RT001 55000 23505 23503 23514 22003 25001 21000);

my %refused;
for my $seed (@seeds)
{
	$state = $seed;
	$tasks = 1;
	random_below(2) for 1 .. 10;
	my @script = ('\set ON_ERROR_ROLLBACK on', '\set VERBOSITY sqlstate', '\pset format unaligned', '\pset tuples_only on', 'SET TimeZone = UTC;',
		'TRUNCATE run_tracker.runs CASCADE; TRUNCATE run_tracker.usage_records, run_tracker.reservations, run_tracker.stat_deltas, run_tracker.stat_totals, model_usage;');
	my @savepoints;
	my $in_transaction = 0;
	my $applied = 0;
	for my $step (1 .. $steps)
	{
		my $sql;
		my $dice = random_below(100);
		if (!$in_transaction && $dice < 20)
		{
			$sql = 'BEGIN ISOLATION LEVEL ' . one_of('READ COMMITTED', 'REPEATABLE READ', 'SERIALIZABLE');
			($in_transaction, @savepoints) = (1);
		}
		elsif ($in_transaction && $dice < 6)
		{
			$sql = one_of('COMMIT', 'COMMIT', 'ROLLBACK');
			($in_transaction, @savepoints) = (0);
		}
		elsif ($in_transaction && $dice < 14)
		{
			push @savepoints, "s$step";
			$sql = "SAVEPOINT s$step";
		}
		elsif (@savepoints && $dice < 20)
		{
			my $depth = random_below(scalar @savepoints);
			$sql = "ROLLBACK TO $savepoints[$depth]";
			splice @savepoints, $depth + 1;
		}
		elsif (@savepoints && $dice < 23)
		{
			$sql = 'RELEASE ' . $savepoints[-1];
			pop @savepoints;
		}
		elsif ($dice >= 98)
		{
			$sql = one_of(@rare)->();
		}
		else
		{
			$sql = one_of(@bag)->();
		}
		(my $shown = $sql) =~ s/'/''/g;
		push @script, "\\o /dev/null\n$sql;\n\\o\n\\if :ERROR\n\\echo refused :LAST_ERROR_SQLSTATE\n\\endif",
		  "SELECT 'step $step: ' || \$sql\$$shown\$sql\$ || E'\\n  ' || what FROM violation;";
	}
	push @script, 'COMMIT;' if $in_transaction;
	push @script, "SELECT 'end: ' || what FROM violation;", 'SELECT \'left: \' || count(*) FROM run_tracker.tasks;';

	my (undef, $out, $err) = run_cmd($node, [ 'psql', '-Xq', '-d', 'postgres' ], join "\n", @script);
	my @violations = grep { !/^refused |^left: / } split /\n/, $out;
	is(scalar(@violations), 0, "seed $seed: totals and open set are true after each of $steps steps");
	diag(join "\n", @violations > 8 ? @violations[ 0 .. 7 ] : @violations) if @violations;
	my @refused = $out =~ /^refused (\w+)$/mg;
	$refused{$_}++ for @refused;
	is(join(' ', grep { !$allowed{$_} } @refused), '', "seed $seed: nothing is refused without a reason");
	ok(@refused < $steps / 2, "seed $seed: most steps do something");
}
note('refused: ', join ', ', map { "$_ $refused{$_}" } sort keys %refused);

is(join("\n", log_errors($node, 0, keys %allowed, '57014')), '', 'no other error in the log of the server');

$node->stop;
done_testing();
