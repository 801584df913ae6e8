# What the tests that start servers share: a server, a database full of all kinds of data, a description of everything
# in it that a dump has to bring back, and the invariants of the bookkeeping.
package RunTracker;

use strict;
use warnings;

use Exporter 'import';
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

our @EXPORT = qw(new_server run_cmd same invariants_hold fill_database fingerprint works log_errors connection listener);

# A new server, started. Options: conf => lines for postgresql.conf, start => 0.
sub new_server
{
	my ($name, %options) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);

	$node->init(extra => [ '--locale=C', '--encoding=UTF8' ]);
	$node->append_conf('postgresql.conf', <<'CONF');
wal_level = logical
max_prepared_transactions = 4
max_connections = 50
autovacuum_naptime = 1s
log_autovacuum_min_duration = -1
log_line_prefix = '%m [%p] %a %e '
CONF
	$node->append_conf('postgresql.conf', $options{conf}) if $options{conf};
	$node->start if $options{start} // 1;
	return $node;
}

# Runs a program against a server. In list context: whether it succeeded, its output, its error output.
sub run_cmd
{
	my ($node, $command, $input) = @_;
	my ($out, $err) = ('', '');

	local %ENV = %ENV;
	$ENV{PGHOST} = $node->host;
	$ENV{PGPORT} = $node->port;
	my $ok = IPC::Run::run($command, '<', \($input // ''), '>', \$out, '2>', \$err);
	return wantarray ? ($ok, $out, $err) : $ok;
}

# Are two long texts the same? Shows the lines that differ, not the texts.
sub same
{
	my ($got, $expected, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	return pass($name) if $got eq $expected && $got ne '';
	my %got = map { $_ => 1 } split /\n/, $got;
	my %expected = map { $_ => 1 } split /\n/, $expected;
	my @differences = (
		(map { "- $_" } grep { !$got{$_} } split /\n/, $expected),
		(map { "+ $_" } grep { !$expected{$_} } split /\n/, $got));
	fail($name);
	push @differences, 'only the order of lines differs' unless @differences;
	diag(join "\n", (map { substr($_, 0, 500) } @differences > 20 ? @differences[ 0 .. 19 ] : @differences));
	return 0;
}

# What must hold at any moment, in any snapshot. The totals are computed here in another way than in check_totals(),
# which is compared with it. Returns one row for each violation.
our $INVARIANTS = <<'SQL';
WITH total AS (
    SELECT run_id, sum(task_count) AS c1, sum(failed_task_count) AS c2, sum(open_task_count) AS c3,
           sum(input_tokens) AS c4, sum(output_tokens) AS c5, sum(total_tokens) AS c6, sum(total_cost) AS c7,
           sum(message_count) AS c8, sum(error_count) AS c9, sum(retrieval_count) AS c10, sum(artifact_count) AS c11
    FROM run_tracker.run_totals GROUP BY run_id
), truth AS (
    SELECT r.run_id, t.*, m.*, l.*, e.*, a.*
    FROM run_tracker.runs r,
         LATERAL (SELECT COALESCE(sum((t.phase = 'succeeded')::int), 0) AS c1,
                         COALESCE(sum((t.phase = ANY ('{failed,timed_out}'))::int), 0) AS c2,
                         COALESCE(sum((t.finished_at IS NULL)::int), 0) AS c3,
                         COALESCE(sum(CASE WHEN t.finished_at IS NOT NULL THEN t.input_tokens END), 0) AS c4,
                         COALESCE(sum(CASE WHEN t.finished_at IS NOT NULL THEN t.output_tokens END), 0) AS c5,
                         COALESCE(sum(CASE WHEN t.finished_at IS NOT NULL THEN t.total_tokens END), 0) AS c6,
                         COALESCE(sum(CASE WHEN t.finished_at IS NOT NULL THEN t.cost END), 0) AS c7
                  FROM run_tracker.tasks t WHERE t.run_id = r.run_id) t,
         LATERAL (SELECT count(*) AS c8 FROM run_tracker.messages m WHERE m.run_id = r.run_id) m,
         LATERAL (SELECT count(*) AS c9 FROM run_tracker.logs l
                  WHERE l.run_id = r.run_id AND l.level = ANY ('{ERROR,CRITICAL}')) l,
         LATERAL (SELECT count(*) AS c10 FROM run_tracker.retrievals e WHERE e.run_id = r.run_id) e,
         LATERAL (SELECT count(*) AS c11 FROM run_tracker.artifacts a WHERE a.run_id = r.run_id) a
), history AS (
    SELECT run_id, seq, from_status, to_status, attempt,
           lag(to_status) OVER w AS previous, lead(seq) OVER w IS NULL AS is_last
    FROM run_tracker.transitions WHERE task_id IS NULL WINDOW w AS (PARTITION BY run_id ORDER BY seq)
), open_run AS (
    SELECT run_id, user_id, lifecycle, kind, phase, priority, worker, attempt FROM run_tracker.open_runs
), expected_open_run AS (
    SELECT run_id, user_id, lifecycle, kind, phase, priority, worker, attempt FROM run_tracker.runs
    WHERE finished_at IS NULL
)
SELECT format('totals of %s: %s instead of %s', run_id, to_jsonb(a), to_jsonb(b))
FROM total a FULL JOIN truth b USING (run_id)
-- totals that are all zero may be missing, but those of a run that is gone may not be there
WHERE b.run_id IS NULL
   OR (COALESCE(a.c1, 0), COALESCE(a.c2, 0), COALESCE(a.c3, 0), COALESCE(a.c4, 0), COALESCE(a.c5, 0), COALESCE(a.c6, 0),
       COALESCE(a.c7, 0), COALESCE(a.c8, 0), COALESCE(a.c9, 0), COALESCE(a.c10, 0), COALESCE(a.c11, 0))
      <> (b.c1, b.c2, b.c3, b.c4, b.c5, b.c6, b.c7, b.c8, b.c9, b.c10, b.c11)
UNION ALL
SELECT 'check_totals() says ' || to_jsonb(c)::text FROM run_tracker.check_totals() c
UNION ALL
SELECT DISTINCT format('%s of run %s, which is gone', c.what, c.run_id)
FROM (SELECT 'tasks' AS what, run_id FROM run_tracker.tasks
      UNION ALL SELECT 'messages', run_id FROM run_tracker.messages
      UNION ALL SELECT 'logs', run_id FROM run_tracker.logs
      UNION ALL SELECT 'retrievals', run_id FROM run_tracker.retrievals
      UNION ALL SELECT 'artifacts', run_id FROM run_tracker.artifacts
      UNION ALL SELECT 'transitions', run_id FROM run_tracker.transitions) c
WHERE NOT EXISTS (SELECT FROM run_tracker.runs r WHERE r.run_id = c.run_id)
UNION ALL
-- pieces of a response are there only while it arrives, one after another
SELECT format('piece of task %s at %s: the task is %s', c.task_id, c.start_offset, COALESCE(t.status, 'gone'))
FROM run_tracker.response_chunks c LEFT JOIN run_tracker.tasks t ON (t.run_id, t.task_id, t.user_id) = (c.run_id, c.task_id, c.user_id)
WHERE t.task_id IS NULL OR t.finished_at IS NOT NULL OR t.response IS NULL
UNION ALL
SELECT format('piece of task %s at %s instead of %s, %s bytes instead of %s', task_id, start_offset, expected, end_bytes, bytes)
FROM (SELECT c.task_id, c.start_offset, c.end_bytes,
             length(t.response) + sum(length(c.content)) OVER w - length(c.content) AS expected,
             octet_length(t.response) + sum(octet_length(c.content)) OVER w AS bytes
      FROM run_tracker.response_chunks c JOIN run_tracker.tasks t USING (run_id, task_id)
      WINDOW w AS (PARTITION BY c.task_id ORDER BY c.start_offset)) p
WHERE (start_offset, end_bytes) <> (expected, bytes)
UNION ALL
SELECT 'open task ' || t.task_id || ' in finished run ' || t.run_id
FROM run_tracker.tasks t JOIN run_tracker.runs r USING (run_id)
WHERE t.finished_at IS NULL AND r.finished_at IS NOT NULL
UNION ALL
(SELECT 'only in open_runs: ' || o::text FROM open_run o EXCEPT ALL SELECT 'only in open_runs: ' || e::text FROM expected_open_run e)
UNION ALL
(SELECT 'not in open_runs: ' || e::text FROM expected_open_run e EXCEPT ALL SELECT 'not in open_runs: ' || o::text FROM open_run o)
UNION ALL
SELECT 'history of ' || run_id || ' has a gap before ' || seq FROM history WHERE previous <> from_status
UNION ALL
SELECT 'history of ' || run_id || ' ends with ' || h.to_status || ' ' || h.attempt || ', the run has ' || r.status || ' ' || r.attempt
FROM history h JOIN run_tracker.runs r USING (run_id)
WHERE h.is_last AND (h.to_status, h.attempt) <> (r.status, r.attempt)
UNION ALL
SELECT format('session %s: version %s, %s deltas', s.session_id, s.version, count(d.version))
FROM run_tracker.sessions s LEFT JOIN run_tracker.session_deltas d USING (session_id, user_id)
GROUP BY s.session_id
HAVING s.version <> count(d.version)
    OR run_tracker.session_state(s.session_id) <> COALESCE(run_tracker.merge_patches(d.delta ORDER BY d.version), '{}')
UNION ALL
SELECT format('%s of session %s, which is gone', c.what, c.session_id)
FROM (SELECT 'deltas' AS what, session_id FROM run_tracker.session_deltas
      UNION SELECT 'snapshot', session_id FROM run_tracker.session_snapshots) c
WHERE NOT EXISTS (SELECT FROM run_tracker.sessions s WHERE s.session_id = c.session_id)
UNION ALL
SELECT 'task ' || t.task_id || ' belongs to ' || t.user_id FROM run_tracker.tasks t JOIN run_tracker.runs r USING (run_id)
WHERE t.user_id <> r.user_id
SQL

sub invariants_hold
{
	my ($node, $db, $name, %options) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	my @broken = split /\n/, $node->safe_psql($db, $INVARIANTS);
	# what was done without triggers is not in the history
	@broken = grep { !/^history of / } @broken if $options{without_history};
	is(scalar(@broken), 0, $name);
	diag(join "\n", @broken > 10 ? @broken[ 0 .. 9 ] : @broken) if @broken;
	return !@broken;
}

# Lines of the server's log from a position on with ERROR, FATAL or PANIC, except those with the given SQLSTATEs.
# Needs log_line_prefix = '%m [%p] %a %e ' or the like, with the SQLSTATE before the severity.
sub log_errors
{
	my ($node, $from, @allowed) = @_;
	my $log = substr(slurp_file($node->logfile), $from);
	my $allowed = join '|', @allowed, 'none';

	return grep { /\b(ERROR|FATAL|PANIC|TRAP):|terminated by signal/ && !/ ($allowed) (ERROR|FATAL):/ } split /\n/, $log;
}

# A database with everything that a dump can lose: runs in all states, with all kinds of children and values, several
# slots of totals, and what a user adds to tables that are his. Roles app_* are created in the server if need be.
sub fill_database
{
	my ($node, $db, %options) = @_;

	$node->safe_psql('postgres', <<'SQL');
DO $$
DECLARE
    role text;
BEGIN
    FOREACH role IN ARRAY '{app_client,app_reader,app_service,app_auditor,app_tables}'::text[] LOOP
        IF to_regrole(role) IS NULL THEN
            EXECUTE format('CREATE ROLE %I', role);
        END IF;
    END LOOP;
END
$$;
SQL
	$node->safe_psql('postgres', "CREATE DATABASE \"$db\" TEMPLATE template0");
	$node->safe_psql($db, 'CREATE EXTENSION run_tracker');
	add_user_objects($node, $db);
	$node->safe_psql($db, q{SELECT run_tracker.set_owner('app_tables')}) if $options{set_owner};
	$node->safe_psql($db, <<'SQL');
SELECT run_tracker.define_lifecycle('app', '{"initial": "new", "timeout": "5 minutes", "states": {
    "new":    {"phase": "queued", "next": ["asking", "done", "broken"]},
    "asking": {"phase": "waiting", "next": ["done", "broken", "new"]},
    "done":   {"phase": "succeeded"},
    "broken": {"phase": "failed", "next": ["new", "done"]}}}');

CREATE FUNCTION pg_temp.id(kind int, n int) RETURNS uuid LANGUAGE sql IMMUTABLE AS
$$ SELECT ('00000000-0000-7000-800' || kind || '-' || lpad(to_hex(n), 12, '0'))::uuid $$;

-- Children before their parents, too.
INSERT INTO run_tracker.runs (run_id, user_id, lifecycle, kind, name, parent_run_id, priority, scheduled_at, inputs,
    settings, variables, plan, metadata, max_attempts, timeout, max_duration, worker, workflow_id, session_id, subject_id)
SELECT pg_temp.id(0, n), CASE WHEN n % 17 = 0 THEN '' ELSE 'user ' || n % 5 END,
       CASE n % 9 WHEN 7 THEN 'app' WHEN 8 THEN 'conversation' ELSE 'run' END,
       CASE WHEN n % 3 = 0 THEN E'kind\t' || n % 7 END,
       CASE WHEN n % 4 = 0 THEN E'it''s "run" \\ ' || n || E'\nsecond line, Ünïcødé, \\N, ' || repeat('x', n) END,
       CASE WHEN n % 6 = 0 THEN pg_temp.id(0, 1 + (n * 7) % 300) END, n % 4,
       CASE WHEN n % 8 = 0 THEN timestamptz '2031-02-03 04:05:06.789012+00' + n * interval '1 hour' END,
       jsonb_build_object('n', n, 'text', E'a\\b"c'), CASE WHEN n % 2 = 0 THEN '{"temperature": 0.70}'::jsonb END, '{}', '[1, null]',
       '{"a": {"b": [1e100]}}', 1 + n % 3, CASE WHEN n % 5 = 0 THEN interval '1 month 2 days 3.000004 s' END,
       CASE WHEN n % 10 = 0 THEN interval '1 day' END, CASE WHEN n % 3 = 1 THEN 'worker ' || n % 4 END,
       'workflow', 'session', 'subject ' || n
FROM generate_series(300, 1, -1) n;

INSERT INTO run_tracker.tasks (run_id, task_id, name, request, operation, provider, model, metadata, parent_task_id)
SELECT pg_temp.id(0, 1 + n % 300), pg_temp.id(1, n), 'task ' || n, '{"prompt": "?"}', 'chat', 'acme', 'm' || n % 3, '{}',
       CASE WHEN n % 5 = 0 THEN pg_temp.id(1, n - 1) END
FROM generate_series(1, 2000) n;

INSERT INTO run_tracker.messages (run_id, role, content, parts, name)
SELECT pg_temp.id(0, 1 + n % 200), CASE WHEN n % 3 = 0 THEN 'assistant' ELSE 'user' END,
       CASE WHEN n % 7 > 0 THEN E'  message\n' || n END, CASE WHEN n % 7 = 0 THEN '[{"type": "image"}]'::jsonb END,
       CASE WHEN n % 11 = 0 THEN 'tool' END
FROM generate_series(1, 700) n;
INSERT INTO run_tracker.logs (run_id, level, message, details)
SELECT pg_temp.id(0, 1 + n % 150), (ARRAY['DEBUG', 'INFO', 'WARNING', 'ERROR', 'CRITICAL'])[1 + n % 5],
       'line ' || n, '"text"' FROM generate_series(1, 500) n;

INSERT INTO run_tracker.retrievals (run_id, retrieval_id, retrieval_type, query, results, duration_ms, task_id, metadata)
SELECT pg_temp.id(0, 1 + n % 120), pg_temp.id(6, n), 'hybrid', E'what?\t' || n, '[{"id": "doc", "score": 0.50}]', n, pg_temp.id(1, n), '{}'
FROM generate_series(1, 240) n;
INSERT INTO run_tracker.artifacts (run_id, artifact_id, kind, name, ordinal, similarity, configuration, content, retrieval_id)
SELECT pg_temp.id(0, 1 + n % 120), pg_temp.id(7, n), 'file', 'artifact ' || n, n, 0.10 * n, '{"a": [null]}', repeat(E'line\n', n * 20), pg_temp.id(6, n)
FROM generate_series(1, 240) n;

SET run_tracker.task_transitions = on;
UPDATE run_tracker.tasks SET status = 'running' WHERE name ~ '[2468]$';
UPDATE run_tracker.tasks
SET status = CASE WHEN name ~ '[12]$' THEN 'failed' WHEN name ~ '3$' THEN 'cancelled' WHEN name ~ '4$' THEN 'timeout' ELSE 'completed' END,
    response = repeat(name || E'\t', 50), input_tokens = length(name) * 1000, output_tokens = 77, reasoning_output_tokens = 7,
    cost = 0.0000000000000000012345 * length(name) + 1.500, error = CASE WHEN name ~ '[1234]$' THEN 'no' END, result = '[{}]'
WHERE name ~ '[12345]$';
UPDATE run_tracker.tasks SET status = 'pending' WHERE name ~ '21$';
-- a huge value, out of line
UPDATE run_tracker.tasks SET result = (SELECT jsonb_agg(md5(i::text)) FROM generate_series(1, 3000) i) WHERE name = 'task 7';

UPDATE run_tracker.runs SET status = 'running' WHERE lifecycle = 'run' AND right(run_id::text, 1) IN ('1', '2', '3', '4', '5', '9');
UPDATE run_tracker.runs SET status = 'paused' WHERE lifecycle = 'run' AND right(run_id::text, 1) = '2';
UPDATE run_tracker.runs SET status = 'completed', result = '{"answer": 42}', progress = 100, reflections = '["fine"]', metrics = '{"m": 1.10}'
WHERE lifecycle IN ('run', 'conversation') AND right(run_id::text, 1) IN ('3', 'a');
UPDATE run_tracker.runs SET status = 'failed', error = 'broken', error_detail = E'stack\ntrace' WHERE lifecycle = 'run' AND right(run_id::text, 1) IN ('4', '8', 'b');
UPDATE run_tracker.runs SET status = 'cancelled' WHERE lifecycle = 'run' AND right(run_id::text, 1) IN ('5', 'c');
UPDATE run_tracker.runs SET status = 'timeout' WHERE lifecycle = 'run' AND right(run_id::text, 1) IN ('9', 'd');
UPDATE run_tracker.runs SET status = 'pending' WHERE lifecycle = 'run' AND right(run_id::text, 2) IN ('08', '1c', '4d');
UPDATE run_tracker.runs SET status = 'asking' WHERE lifecycle = 'app' AND right(run_id::text, 1) IN ('1', '2', '3');
UPDATE run_tracker.runs SET status = 'done' WHERE lifecycle = 'app' AND right(run_id::text, 1) IN ('3', '4');
DELETE FROM run_tracker.runs WHERE right(run_id::text, 2) = '7b';
DELETE FROM run_tracker.retrievals WHERE right(query, 1) = '3';
DELETE FROM run_tracker.artifacts WHERE ordinal % 7 = 0;
DELETE FROM run_tracker.messages WHERE seq = 2 AND right(run_id::text, 1) = '6';
-- responses that are arriving
SELECT count(run_tracker.append_response(task_id, piece || name || E'\n')) FROM run_tracker.tasks, unnest(ARRAY['É', E'\\N', E'\t']) piece
WHERE name ~ '[68]$' AND phase = 'active';
UPDATE run_tracker.tasks SET status = 'completed' WHERE name ~ '88$' AND phase = 'active';
-- finished long ago, as a fact
INSERT INTO run_tracker.runs (run_id, user_id, status, created_at, started_at, finished_at, attempt)
VALUES (pg_temp.id(2, 1), 'user 1', 'completed', '2001-01-01', '2001-01-01 00:00:01.5', '2001-01-02', 3);
INSERT INTO run_tracker.tasks (run_id, task_id, status, input_tokens, cost, finished_at, created_at)
VALUES (pg_temp.id(2, 1), pg_temp.id(3, 1), 'completed', 999999999999, 1e11, '2001-01-02', '2001-01-01');

INSERT INTO app.item (run_id, note) SELECT run_id, left(name, 10) FROM run_tracker.runs WHERE kind IS NOT NULL;
DELETE FROM app.item WHERE id % 3 = 0;
SELECT setval('app.item_id_seq', 5000, false);

-- sessions: with and without a snapshot of their state, without state, and closed
SELECT count(run_tracker.open_session('user ' || n, pg_temp.id(6, n), jsonb_build_object('n', n))) FROM generate_series(1, 4) n;
SELECT count(run_tracker.append_delta(pg_temp.id(6, n % 2 + 1), NULL, jsonb_build_object('k' || n % 7, repeat(E'É\\N', n), 'gone', NULLIF(n % 5, 1))))
FROM generate_series(1, 120) n;
SELECT run_tracker.append_delta(pg_temp.id(6, 3), 0, '{"a": {"b": [null]}}');
SELECT run_tracker.close_session(pg_temp.id(6, 2));

-- somebody else is writing to a run: that makes a slot
INSERT INTO run_tracker.runs (run_id, user_id) VALUES (pg_temp.id(4, 1), 'user 2');
INSERT INTO run_tracker.tasks (run_id, task_id) SELECT pg_temp.id(4, 1), pg_temp.id(5, n) FROM generate_series(1, 5) n;
BEGIN;
SELECT run_tracker.complete_task(pg_temp.id(5, 1), input_tokens => 10, cost => 1);
PREPARE TRANSACTION 'a';
BEGIN;
SELECT run_tracker.complete_task(pg_temp.id(5, 2), input_tokens => 20, cost => 2);
PREPARE TRANSACTION 'b';
SELECT run_tracker.complete_task(pg_temp.id(5, 3), input_tokens => 40, cost => 4);
COMMIT PREPARED 'a';
COMMIT PREPARED 'b';

-- accounts, what they have used, and what is reserved for calls that are under way
INSERT INTO run_tracker.tiers (name, monthly_tokens, monthly_cost) VALUES (E'tier\t"é"', 1000000000000000, 1000000.50);
SELECT run_tracker.ensure_account('user 2', E'tier\t"é"'), run_tracker.ensure_account('user 3');
UPDATE run_tracker.accounts SET overrides = '{"monthly_tokens": null, "daily_requests": null, "rate_limits": {"a": {"limit": 1, "window": "1 s"}}}', permissions = '{a,"b c"}', metadata = '{}' WHERE user_id = 'user 3';
INSERT INTO run_tracker.breakers (name, failure_threshold, failure_rate, "window", reset_after) VALUES (E'breaker\t"é"', NULL, 0.070, '1 month 2 days', '0.001 s');
SELECT count(run_tracker.record_usage('user ' || n % 5, n, n * 0.01, metadata => '{"n": 1.0}', usage_id => pg_temp.id(7, n))) FROM generate_series(1, 100) n;
SELECT count(run_tracker.log_request(pg_temp.id(6, 1), 'function:f')) FROM generate_series(1, 3);
SELECT run_tracker.settle_usage(run_tracker.reserve_usage('user 3', 10, ttl => '30 days'), 7), run_tracker.release_usage(run_tracker.reserve_usage('user 3', 20));
UPDATE run_tracker.tasks SET reservation_id = run_tracker.reserve_usage('user 2', 300, 1.5, '30 days') WHERE task_id = pg_temp.id(5, 4);
SELECT run_tracker.fail_task(pg_temp.id(5, 5), input_tokens => 500, cost => 3), run_tracker.start_task(pg_temp.id(5, 5), 'pending');

-- what is called when a run finishes, who may call back, and a callback that nobody was there for
SELECT run_tracker.on_finish(NULL, 'pg_catalog.jsonb_typeof(jsonb)', 'log');
SELECT FROM run_tracker.create_callback_key('signed', secret => 'sixteen bytes ..');
SELECT FROM run_tracker.create_callback_key('shared', 'secret', 'sixteen bytes ..', 'kind');
SELECT run_tracker.callback_secret('{"runId":  "00000000-0000-0000-0000-000000000000", "status": "é"}', 'sixteen bytes ..');

SQL
	add_grants($node, $db);
	return;
}

# What users do to tables that are theirs; also for a database into which only data will be restored.
sub add_user_objects
{
	my ($node, $db) = @_;

	$node->safe_psql($db, <<'SQL');
CREATE SCHEMA app;
CREATE TABLE app.item (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    run_id uuid REFERENCES run_tracker.runs ON DELETE SET NULL,
    note text);
CREATE TABLE app.change (id bigserial PRIMARY KEY, run_id uuid, status text);
CREATE FUNCTION app.note_change() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
$$ BEGIN INSERT INTO app.change (run_id, status) VALUES (NEW.run_id, NEW.status); RETURN NULL; END $$;

ALTER TABLE run_tracker.runs ADD COLUMN team text DEFAULT 'blue', ADD COLUMN ticket bigint GENERATED BY DEFAULT AS IDENTITY,
    ADD COLUMN title text GENERATED ALWAYS AS (left(name, 5)) STORED, ADD COLUMN gone int;
ALTER TABLE run_tracker.runs DROP COLUMN gone;
ALTER TABLE run_tracker.runs ADD CONSTRAINT app_team CHECK (team <> '');
COMMENT ON COLUMN run_tracker.runs.team IS 'Who''s it?';
CREATE INDEX app_team ON run_tracker.runs (team, created_at) WHERE team IS NOT NULL;
CREATE INDEX app_inputs ON run_tracker.runs USING gin (inputs);
CREATE POLICY app_auditors ON run_tracker.runs FOR SELECT TO app_auditor, app_reader USING (team = 'blue');
COMMENT ON POLICY app_auditors ON run_tracker.runs IS 'Auditors';
CREATE TRIGGER app_change AFTER UPDATE OF status ON run_tracker.runs FOR EACH ROW
    WHEN (OLD.status IS DISTINCT FROM NEW.status) EXECUTE FUNCTION app.note_change();
ALTER TABLE run_tracker.runs ENABLE ALWAYS TRIGGER app_change;
ALTER TABLE run_tracker.tasks REPLICA IDENTITY FULL;
ALTER TABLE run_tracker.messages SET (fillfactor = 90);
ALTER TABLE run_tracker.messages ALTER COLUMN content SET STORAGE EXTERNAL;
ALTER TABLE run_tracker.logs FORCE ROW LEVEL SECURITY;
CREATE STATISTICS run_tracker.app_statistics ON kind, status FROM run_tracker.runs;
CREATE VIEW app.spending AS SELECT user_id, sum(total_cost) AS cost FROM run_tracker.run_summary GROUP BY user_id;
CREATE PUBLICATION app_publication FOR TABLE run_tracker.runs, run_tracker.tasks, run_tracker.run_totals, app.item;
SQL
	return;
}

# Privileges are no data either.
sub add_grants
{
	my ($node, $db) = @_;

	$node->safe_psql($db, <<'SQL');
SELECT run_tracker.grant_client('app_client');
SELECT run_tracker.grant_reader('app_reader');
SELECT run_tracker.grant_service('app_service');
GRANT USAGE ON SCHEMA run_tracker TO app_auditor;
GRANT SELECT (run_id, team), REFERENCES ON run_tracker.runs TO app_auditor WITH GRANT OPTION;
GRANT EXECUTE ON FUNCTION run_tracker.uuidv7() TO PUBLIC;
SQL
	return;
}

# Everything in the schemas run_tracker and app that a dump has to bring back, as text.
our $FINGERPRINT = <<'SQL';
SET TimeZone = 'UTC';
SET search_path = pg_catalog;
CREATE FUNCTION pg_temp.acl(acl aclitem[], kind "char", owner oid) RETURNS text LANGUAGE sql AS
$$ SELECT string_agg(format('%s=%s%s/%s', CASE grantee WHEN 0 THEN 'PUBLIC' ELSE grantee::regrole::text END, privilege_type,
                            CASE WHEN is_grantable THEN '*' END, grantor::regrole), ' ' ORDER BY grantee::regrole::text COLLATE "C", privilege_type, grantor)
   FROM aclexplode(COALESCE(acl, acldefault(kind, owner))) $$;
CREATE TEMP VIEW ours AS SELECT oid, nspname FROM pg_namespace WHERE nspname IN ('run_tracker', 'app');

SELECT 'schema', nspname, nspowner::regrole, pg_temp.acl(nspacl, 'n', nspowner) FROM pg_namespace WHERE nspname IN ('run_tracker', 'app') ORDER BY 2;
SELECT 'relation', c.oid::regclass, relkind, relowner::regrole, relrowsecurity, relforcerowsecurity, relreplident, reloptions,
       obj_description(c.oid, 'pg_class'), pg_temp.acl(relacl, CASE relkind WHEN 'S' THEN 's'::"char" ELSE 'r' END, relowner)
FROM pg_class c, ours n WHERE n.oid = relnamespace AND relkind <> 'i' ORDER BY c.oid::regclass::text;
SELECT 'column', attrelid::regclass, row_number() OVER (PARTITION BY attrelid ORDER BY attnum), attname, format_type(atttypid, atttypmod),
       attnotnull, attidentity, attgenerated, attstorage, pg_get_expr(adbin, adrelid), col_description(attrelid, attnum), pg_temp.acl(attacl, 'c', relowner)
FROM pg_attribute JOIN pg_class c ON c.oid = attrelid JOIN ours n ON n.oid = relnamespace LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
WHERE attnum > 0 AND NOT attisdropped AND relkind IN ('r', 'v') ORDER BY attrelid::regclass::text, attnum;
SELECT 'constraint', conrelid::regclass, conname, convalidated, pg_get_constraintdef(c.oid), obj_description(c.oid, 'pg_constraint')
FROM pg_constraint c, ours n WHERE n.oid = connamespace ORDER BY conrelid::regclass::text, conname;
SELECT 'index', indexdef FROM pg_indexes WHERE schemaname IN (SELECT nspname FROM ours) ORDER BY indexdef;
SELECT 'statistics', pg_get_statisticsobjdef(s.oid) FROM pg_statistic_ext s, ours n WHERE n.oid = stxnamespace ORDER BY 2;
SELECT 'trigger', tgenabled, pg_get_triggerdef(t.oid) FROM pg_trigger t, pg_class c, ours n
WHERE c.oid = tgrelid AND n.oid = relnamespace AND NOT tgisinternal ORDER BY 3;
SELECT 'foreign key trigger', tgrelid::regclass, tgenabled, count(*) FROM pg_trigger t, pg_class c, ours n
WHERE c.oid = tgrelid AND n.oid = relnamespace AND tgisinternal GROUP BY 2, 3 ORDER BY tgrelid::regclass::text, 3;
SELECT 'policy', polrelid::regclass, polname, polcmd, polpermissive, (SELECT string_agg(CASE r WHEN 0 THEN 'PUBLIC' ELSE r::regrole::text END, ',' ORDER BY r::regrole::text) FROM unnest(polroles) r),
       pg_get_expr(polqual, polrelid), pg_get_expr(polwithcheck, polrelid), obj_description(p.oid, 'pg_policy')
FROM pg_policy p ORDER BY polrelid::regclass::text, polname;
SELECT 'view', c.oid::regclass, pg_get_viewdef(c.oid) FROM pg_class c, ours n WHERE n.oid = relnamespace AND relkind = 'v' ORDER BY c.oid::regclass::text;
SELECT 'publication', p.* FROM pg_publication_tables p ORDER BY 2, 3, 4;
SELECT 'function', p.oid::regprocedure, proowner::regrole, prosecdef, proconfig, provolatile, proparallel, obj_description(p.oid, 'pg_proc'),
       pg_temp.acl(proacl, 'f', proowner) FROM pg_proc p, ours n WHERE n.oid = pronamespace ORDER BY p.oid::regprocedure::text;
SELECT 'extension', extname, extversion, extnamespace::regnamespace, extowner::regrole FROM pg_extension ORDER BY 2;
SELECT 'member', i.* FROM pg_depend d, pg_extension e, pg_identify_object(classid, objid, objsubid) i
WHERE extname = 'run_tracker' AND refclassid = 'pg_extension'::regclass AND refobjid = e.oid AND deptype = 'e' ORDER BY i.identity;
SELECT format('SELECT ''sequence'', %L, last_value, is_called FROM %s', c.oid::regclass, c.oid::regclass)
FROM pg_class c, ours n WHERE n.oid = relnamespace AND relkind = 'S' ORDER BY 1 \gexec
SELECT format('SELECT ''rows'', %L, count(*), md5(string_agg(t::text, E''\n'' ORDER BY t::text COLLATE "C")) FROM %s t', c.oid::regclass, c.oid::regclass)
FROM pg_class c, ours n WHERE n.oid = relnamespace AND relkind = 'r' ORDER BY 1 \gexec
SQL

sub fingerprint
{
	my ($node, $db) = @_;

	return $node->safe_psql($db, $FINGERPRINT);
}

# Is the tracker at work in a database made by fill_database()? Changes it.
sub works
{
	my ($node, $db, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	my ($ok, $out, $err) = run_cmd($node, [ 'psql', '-XqAt', '-v', 'ON_ERROR_STOP=1', '-d', $db ], <<'SQL');
\set run '00000000-0000-7000-8004-000000000001'
\set task '00000000-0000-7000-8005-000000000004'
\set VERBOSITY sqlstate
SELECT task_count, open_task_count, input_tokens, total_cost FROM run_tracker.run_summary WHERE run_id = :'run';
SELECT run_tracker.append_response(:'task', 'r'), run_tracker.append_response(:'task', 's');
SELECT run_tracker.complete_task(:'task', input_tokens => 80, cost => 8);
SELECT response FROM run_tracker.tasks WHERE task_id = :'task';
SELECT run_tracker.log_retrieval(:'run', 'hybrid') IS NULL, run_tracker.add_artifact(:'run', 'file', content => 'abc') IS NULL;
SELECT task_count, open_task_count, input_tokens, total_cost FROM run_tracker.run_summary WHERE run_id = :'run';
SELECT run_tracker.add_message(:'run', 'user', 'm'), run_tracker.add_log(:'run', 'm', 'ERROR');
SELECT run_tracker.complete_run(:'run');
SELECT status, open_task_count, message_count, error_count, retrieval_count, artifact_count, name FROM run_tracker.run_summary WHERE run_id = :'run';
SELECT count(*), min(from_status), max(to_status) FROM run_tracker.transitions WHERE run_id = :'run' AND task_id IS NULL;
SELECT count(*) FROM run_tracker.open_runs WHERE run_id = :'run';
SELECT count(*) FROM app.change WHERE run_id = :'run';
SELECT run_tracker.append_delta('00000000-0000-7000-8006-000000000001', 60, '{"restored": true}');
SELECT state, tokens, task_id = :'task' FROM run_tracker.reservations WHERE user_id = 'user 2';
SELECT reserved, "limit" FROM run_tracker.quotas('user 2') WHERE quota = 'monthly_cost';
SELECT run_tracker.settle_usage(run_tracker.reserve_usage('user 3', 50), 8);
UPDATE run_tracker.usage_records SET total_tokens = 9 WHERE usage_id = '00000000-0000-7000-8007-000000000064';
INSERT INTO run_tracker.runs (user_id) VALUES ('new') RETURNING team, ticket > 300, status;
INSERT INTO app.item (note) VALUES ('new') RETURNING id;
\set ON_ERROR_STOP 0
UPDATE run_tracker.runs SET status = 'running' WHERE run_id = :'run';
SET ROLE app_reader;
SELECT count(*) FROM run_tracker.runs WHERE team = 'blue';
RESET ROLE;
SET request.jwt.claims = '{"sub": "user 2"}';
SET ROLE app_client;
SELECT count(*), count(DISTINCT user_id) FROM run_tracker.tasks WHERE run_id = :'run';
UPDATE run_tracker.run_totals SET task_count = 0;
SQL
	is("$out$err", <<'EXPECTED', $name);
3|2|70|7
1|2
t
rs
f|f
4|1|150|15
1|1
t
completed|0|1|1|1|1|m
1|pending|completed
0
1
61
settled|300|t
0|1000000.50
t
blue|t|pending
5000
302
5|1
ERROR:  RT001
ERROR:  42501
EXPECTED
	return;
}

# ---- The background worker ----

use Time::HiRes;

push @EXPORT, qw(new_worker_server eventually state_of start_runs lateness log_lines process_counters);

# A server with the library preloaded. Nothing but a commit or a deadline wakes the worker; the log says which kind of
# process wrote a line. Options as for new_server().
sub new_worker_server
{
	my ($name, %options) = @_;

	return new_server($name, %options, conf => <<CONF . ($options{conf} // ''));
shared_preload_libraries = 'run_tracker'
run_tracker.max_sleep = '1 h'
autovacuum = off
log_line_prefix = '%m [%p] %b %e '
CONF
}

# Calls the code until it returns something true, for so many seconds at most. Returns what it returned last.
sub eventually
{
	my ($code, $seconds) = @_;
	my $give_up = Time::HiRes::time() + ($seconds // 120);

	while (1)
	{
		my $result = $code->();
		return $result if $result || Time::HiRes::time() > $give_up;
		Time::HiRes::sleep(0.05);
	}
}

# Columns of run_tracker.worker_status for a database, as psql prints them. Asks a connection to any database that has
# the extension, so that looking at a database does not need a connection to it.
sub state_of
{
	my ($observer, $db, $columns) = @_;

	return $observer->query("SELECT $columns FROM run_tracker.worker_status WHERE database = '$db';");
}

# SQL that creates and starts so many runs with an idle timeout. Options: kind, and more arguments of create_run().
sub start_runs
{
	my ($n, $timeout, %options) = @_;
	my $kind = $options{kind} // 'k';
	my $more = $options{more} ? ", $options{more}" : '';

	return "SELECT count(run_tracker.start_run(run_tracker.create_run(kind => '$kind', timeout => '$timeout'$more), 'w'))"
	  . " FROM generate_series(1, $n);";
}

# SQL for the largest lateness, in seconds, of timeouts of runs that have seen no activity.
sub lateness
{
	my ($condition) = @_;

	return 'SELECT round(max(extract(epoch FROM finished_at - started_at - timeout)), 3)'
	  . " FROM run_tracker.runs WHERE phase = 'timed_out' AND ($condition);";
}

# Lines of the server's log from a position on that match; by default those of the launcher and the workers, and what
# the postmaster says of them.
sub log_lines
{
	my ($node, $from, $pattern) = @_;

	$pattern //= qr/\] run_tracker (launcher|worker) |background worker "run_tracker/;
	return grep { /$pattern/ } split /\n/, substr(slurp_file($node->logfile), $from);
}

# How often a process has gone to sleep, and its CPU time in ticks; nothing where the system does not tell.
sub process_counters
{
	my ($pid) = @_;

	return unless -r "/proc/$pid/status" && -r "/proc/$pid/stat";
	my ($switches) = slurp_file("/proc/$pid/status") =~ /^voluntary_ctxt_switches:\s+(\d+)/m;
	# the name of the process is in parentheses; times of user and system are columns 14 and 15
	my @stat = split / /, slurp_file("/proc/$pid/stat") =~ s/^.*\) //sr;
	return ($switches, $stat[11] + $stat[12]);
}

# ---- Connections that stay, and what they hear ----

# A psql that stays connected. Options: user => role, env => { PGOPTIONS => ... }.
sub connection
{
	my ($node, $db, %options) = @_;

	return RunTracker::Connection->new($node, $db, %options);
}

# One that listens to announcements of runs.
sub listener
{
	my ($node, $db) = @_;
	my $self = RunTracker::Connection->new($node, $db);

	$self->query('LISTEN run_tracker;');
	return $self;
}

package RunTracker::Connection;

use JSON::PP;
use Time::HiRes;

sub new
{
	my ($class, $node, $db, %options) = @_;
	my $self = bless { in => '', out => '', err => '', marks => 0, seen => [], raw => [] }, $class;

	local %ENV = (%ENV, %{ $options{env} // {} });
	$self->{timer} = IPC::Run::timeout(180);
	$self->{psql} = IPC::Run::start(
		[ 'psql', '-XqAt', '-h', $node->host, '-p', $node->port, '-d', $db, $options{user} ? ('-U', $options{user}) : () ],
		'<', \$self->{in}, '>', \$self->{out}, '2>', \$self->{err}, $self->{timer});
	$self->query('SELECT 1;');
	return $self;
}

# Runs statements, each with its semicolon. Returns what they printed, in list context what they complained of, too.
# Dies if that takes three minutes.
sub query
{
	my ($self, $sql) = @_;
	my $mark = 'mark ' . ++$self->{marks};

	$self->{timer}->start(180);
	$self->{in} .= "$sql\n\\echo $mark\n\\warn $mark\n";
	$self->{psql}->pump until $self->{out} =~ /^\Q$mark\E\n/m && $self->{err} =~ /^\Q$mark\E\n/m;
	my ($out, $err) = ($self->{out}, $self->{err});
	$self->{out} = $self->{err} = '';
	s/^\Q$mark\E\n//m for $out, $err;
	while ($out =~ s/^Asynchronous notification "run_tracker"(?: with payload "(.*)")? received from server process with PID \d+\.\n//m)
	{
		push @{ $self->{raw} }, $1 // '';
		push @{ $self->{seen} }, JSON::PP->new->utf8->decode($1 // 'null');
	}
	chomp $out;
	return wantarray ? ($out, $err) : $out;
}

# Sends statements without waiting for them. What they print is part of what the next query() returns.
sub send
{
	my ($self, $sql) = @_;

	$self->{in} .= "$sql\n";
	$self->{psql}->pump_nb while $self->{in} ne '';
	return;
}

# What has been heard since the last call, as hashes; the payloads themselves with raw().
sub heard
{
	my ($self) = @_;

	$self->query('SELECT 1;');
	$self->{raw_heard} = $self->{raw};
	$self->{raw} = [];
	return splice @{ $self->{seen} };
}

# The payloads that the last heard() was about.
sub raw
{
	return @{ $_[0]->{raw_heard} };
}

# Waits for an announcement for which the code, given it as $_, returns true. Returns it, and keeps all for heard().
sub wait_for
{
	my ($self, $code, $seconds) = @_;
	my $give_up = Time::HiRes::time() + ($seconds // 60);
	my $looked = 0;

	while (1)
	{
		$self->query('SELECT 1;');
		for (@{ $self->{seen} }[ $looked .. $#{ $self->{seen} } ])
		{
			return $_ if $code->();
		}
		$looked = @{ $self->{seen} };
		return if Time::HiRes::time() > $give_up;
		Time::HiRes::sleep(0.05);
	}
}

sub close
{
	my ($self) = @_;

	$self->{timer}->start(180);
	$self->{in} .= "\\q\n";
	$self->{psql}->finish;
	return;
}

package RunTracker;

1;
