# What a user of the database must not be able to do through settings, privileges, names and the tables' owner.
use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use RunTracker;

my $node = new_server('settings');
my ($rc, $out, $err);

# psql as a role that may connect; SQLSTATEs instead of messages. Returns output and errors.
sub as_user
{
	my ($user, $db, $sql, @options) = @_;
	my (undef, $out, $err) = run_cmd($node, [ 'psql', '-XqAt', '-v', 'VERBOSITY=sqlstate', @options, '-U', $user, '-d', $db ], $sql);
	return "$out$err";
}

$node->safe_psql('postgres', <<'SQL');
CREATE ROLE mallory LOGIN;
CREATE ROLE alice LOGIN;
CREATE ROLE service LOGIN;
CREATE ROLE tables_owner LOGIN;
CREATE DATABASE clean;
CREATE DATABASE hostile;
SQL

# ---- settings, with the library loaded when it is first called, or before ----

$node->safe_psql('clean', 'CREATE EXTENSION run_tracker');
$node->safe_psql('clean', q{SELECT run_tracker.grant_client('alice'), run_tracker.grant_service('service')});
my $fresh = $node->safe_psql('clean', q{SELECT run_tracker.create_run(user_id => 'alice')});

is(as_user('alice', 'clean', 'SELECT count(*) FROM run_tracker.runs'), "0\n", 'alice is no user yet');

for my $preloaded (0, 1)
{
	my $when = $preloaded ? 'preloaded' : 'not preloaded';
	if ($preloaded)
	{
		$node->append_conf('postgresql.conf', "shared_preload_libraries = 'run_tracker'");
		$node->restart;
	}
	for my $setting (qw(run_tracker.identity=role run_tracker.max_payload=1GB run_tracker.task_transitions=on))
	{
		my ($name, $value) = split /=/, $setting;
		my $default = $node->safe_psql('clean', "SELECT run_tracker.is_service(); SHOW $name") =~ s/^t\n//r;
		my $answer = as_user('alice', 'clean', "SET $name = '$value';\nSELECT run_tracker.tracker_version();\nSHOW $name;");
		like($answer, $preloaded ? qr/^1\.0\n\Q$default\E\nERROR:  42501$/m : qr/^1\.0\n\Q$default\E\n/, "$when: a user cannot set $name");
		{
			local $ENV{PGOPTIONS} = "-c $name=$value";
			is(as_user('alice', 'clean', "SELECT run_tracker.tracker_version();\nSHOW $name;") =~ s/^WARNING.*\n//mgr,
				"1.0\n$default\n", "$when: nor when connecting") unless $preloaded;
			unlike(as_user('alice', 'clean', "SELECT run_tracker.tracker_version();\nSHOW $name;"), qr/^\Q$value\E$/m, "$when: nor when connecting");
		}
		as_user('alice', 'clean', "ALTER ROLE alice SET $name = '$value'");
		is(as_user('alice', 'clean', "SELECT run_tracker.tracker_version();\nSHOW $name;") =~ s/^WARNING.*\n//mgr,
			"1.0\n$default\n", "$when: nor for all sessions to come");
		$node->safe_psql('clean', 'ALTER ROLE alice RESET ALL');
		$node->safe_psql('clean', "SELECT run_tracker.tracker_version(); ALTER ROLE alice SET $name = '$value'");
		is(as_user('alice', 'clean', "SELECT run_tracker.tracker_version();\nSHOW $name;"),
			"1.0\n$value\n", "$when: a superuser can");
		$node->safe_psql('clean', 'ALTER ROLE alice RESET ALL');
	}
	is( as_user('alice', 'clean', "SET run_tracker.identity = 'role';\nSELECT count(*) FROM run_tracker.runs") =~ s/^(ERROR|WARNING).*\n//mgr,
		"0\n", "$when: alice cannot make herself a user");
	like(as_user('postgres', 'clean', "SELECT run_tracker.is_service();\nSET run_tracker.idendity = 'role';"),
		qr/ERROR:  42602/, "$when: a misspelt setting is refused");
	is( as_user('postgres', 'clean', q{SELECT run_tracker.is_service(); SET run_tracker.identity = 'root'; SET run_tracker.max_payload = 0; SET run_tracker.max_payload = '2GB'}),
		"t\n" . "ERROR:  22023\n" x 3, "$when: values out of range are refused");
	invariants_hold($node, 'clean', "$when: totals are true");
}
is( as_user('postgres', 'clean', q{SELECT run_tracker.create_run('00000000-0000-7000-8000-000000000001', user_id => 'x'); DROP EXTENSION run_tracker CASCADE; CREATE EXTENSION run_tracker; SELECT run_tracker.install();}) =~ s/^NOTICE.*\n(DETAIL.*\n)?//mgr,
	"00000000-0000-7000-8000-000000000001\n1.0\n", 'preloaded: the extension comes and goes');
$node->safe_psql('clean', 'DROP EXTENSION run_tracker CASCADE');
is(as_user('postgres', 'clean', 'DROP SCHEMA run_tracker CASCADE; SELECT 1') =~ s/^NOTICE.*\n//mgr, "1\n", 'preloaded: a database without the extension works');
is(as_user('postgres', 'postgres', 'CREATE TABLE t (i int); TRUNCATE t; DROP TABLE t; SELECT 2'), "2\n", 'as does one that never had it');

# ---- default privileges ----

$node->safe_psql('clean', 'CREATE EXTENSION run_tracker');
$node->safe_psql('hostile', <<'SQL');
ALTER DEFAULT PRIVILEGES GRANT ALL ON SCHEMAS TO mallory WITH GRANT OPTION;
ALTER DEFAULT PRIVILEGES GRANT ALL ON SCHEMAS TO PUBLIC;
ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO mallory WITH GRANT OPTION;
ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO PUBLIC;
ALTER DEFAULT PRIVILEGES GRANT ALL ON SEQUENCES TO mallory WITH GRANT OPTION;
ALTER DEFAULT PRIVILEGES GRANT ALL ON SEQUENCES TO PUBLIC;
ALTER DEFAULT PRIVILEGES GRANT ALL ON FUNCTIONS TO mallory WITH GRANT OPTION;
ALTER DEFAULT PRIVILEGES GRANT ALL ON TYPES TO mallory WITH GRANT OPTION;
CREATE EXTENSION run_tracker;
SQL
my $acl = sub { join "\n", grep { !/^rows/ } split /\n/, fingerprint($node, $_[0]) };
my $expected = $acl->('clean');
ok($expected =~ /^function\|run_tracker\.create_run.*\|postgres=EXECUTE\/postgres$/m, 'functions are for nobody but the owner');
same($acl->('hostile'), $expected, 'hostile default privileges change nothing');
unlike(as_user('mallory', 'hostile', 'SELECT run_tracker.tracker_version(); SELECT 1 FROM run_tracker.runs; TRUNCATE run_tracker.runs;'),
	qr/^(?!ERROR:  42501$)/m, 'mallory may do nothing');

$node->safe_psql('hostile', 'DROP EXTENSION run_tracker CASCADE; CREATE EXTENSION run_tracker; SELECT run_tracker.install()');
same($acl->('hostile'), $expected, 'nor when the extension is created anew around the tables');
$node->safe_psql('hostile', 'DROP TABLE run_tracker.run_totals, run_tracker.tasks CASCADE; SELECT run_tracker.install()');
$node->safe_psql('hostile', 'SELECT run_tracker.install()');
same($acl->('hostile'), $expected, 'nor when tables are');
for my $db (qw(clean hostile))
{
	$node->safe_psql($db, q{SELECT run_tracker.grant_client('alice'), run_tracker.grant_reader('alice'), run_tracker.grant_service('service'), run_tracker.set_owner('tables_owner')});
}
same($acl->('hostile'), $acl->('clean'), 'nor what grant_*() and set_owner() do');

# ---- names that are taken already ----

sub refused
{
	my ($name, $prepare, $pattern) = @_;
	$node->safe_psql('postgres', 'CREATE DATABASE taken');
	$node->safe_psql('postgres', 'GRANT CREATE ON DATABASE taken TO mallory');
	$node->safe_psql('taken', $prepare);
	my (undef, undef, $err) = $node->psql('taken', '\set VERBOSITY verbose' . "\nCREATE EXTENSION run_tracker;");
	like($err, $pattern, $name);
	is($node->safe_psql('taken', q{SELECT count(*) FROM pg_extension WHERE extname = 'run_tracker'}), '0', 'and the extension is not there');
	$node->safe_psql('postgres', 'DROP DATABASE taken');
}
refused('a schema of somebody else is refused', 'SET ROLE mallory; CREATE SCHEMA run_tracker', qr/42501: schema "run_tracker" exists and belongs to role "mallory"/);
my $open_schema = 'CREATE SCHEMA run_tracker; GRANT ALL ON SCHEMA run_tracker TO mallory; SET ROLE mallory;';
refused(
	'so is a function of somebody else',
	"$open_schema CREATE FUNCTION run_tracker.is_service() RETURNS boolean LANGUAGE sql AS 'SELECT true'",
	qr/ERROR:  (42501|42723|55000|42710): /);

# A table in a schema that mallory may create in must not have its triggers fired by a superuser.
$node->safe_psql('postgres', 'CREATE DATABASE taken');
$node->safe_psql('taken', <<'SQL');
CREATE SCHEMA run_tracker;
GRANT ALL ON SCHEMA run_tracker TO mallory;
CREATE SCHEMA caught;
GRANT ALL ON SCHEMA caught TO mallory;
SET ROLE mallory;
CREATE TABLE caught.superuser (who text);
CREATE TABLE run_tracker.lifecycles (name text PRIMARY KEY, definition jsonb);
CREATE FUNCTION caught.evil() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN
    INSERT INTO caught.superuser SELECT rolname FROM pg_roles WHERE rolname = current_user AND rolsuper;
    RETURN NEW;
END $$;
CREATE TRIGGER evil BEFORE INSERT OR UPDATE ON run_tracker.lifecycles FOR EACH ROW EXECUTE FUNCTION caught.evil();
SQL
$node->psql('taken', 'CREATE EXTENSION run_tracker');
$node->psql('taken', 'SELECT run_tracker.install()');
is($node->safe_psql('taken', 'SELECT count(*) FROM caught.superuser'), '0', 'a table of somebody else that was there first gets no superuser to fire its triggers');
$node->safe_psql('postgres', 'DROP DATABASE taken');

is(as_user('mallory', 'postgres', 'CREATE EXTENSION run_tracker'), "ERROR:  42501\n", 'a user cannot create the extension');
$node->safe_psql('postgres', 'GRANT CREATE ON DATABASE postgres TO mallory');
is(as_user('mallory', 'postgres', 'CREATE EXTENSION run_tracker'), "ERROR:  42501\n", 'not even with CREATE on the database: it is not trusted');

# ---- FORCE ROW LEVEL SECURITY ----

$node->safe_psql('clean', $_)
  for map { "ALTER TABLE run_tracker.$_ FORCE ROW LEVEL SECURITY" } qw(runs tasks messages logs transitions run_totals open_runs lifecycles installation);

my $work = <<'SQL';
SELECT run_tracker.create_run(kind => 'k', user_id => :'user') AS run \gset
SELECT run_tracker.start_run(:'run');
SELECT run_tracker.create_task(:'run') AS one, run_tracker.create_task(:'run') AS two, run_tracker.create_task(:'run') AS three \gset
SELECT run_tracker.start_task(:'one'), run_tracker.complete_task(:'one', 'r', input_tokens => 10, cost => 1.5), run_tracker.fail_task(:'two');
UPDATE run_tracker.tasks SET cost = 2 WHERE task_id = :'one';
SELECT run_tracker.add_message(:'run', 'user', 'hello'), run_tracker.add_log(:'run', 'line', 'ERROR');
SELECT run_tracker.complete_run(:'run'), run_tracker.retry_run(:'run'), run_tracker.cancel_run(:'run', 'enough');
SELECT status, attempt, name, task_count, failed_task_count, open_task_count, input_tokens, total_cost, message_count, error_count
FROM run_tracker.run_summary WHERE run_id = :'run';
SELECT count(*) FROM run_tracker.transitions WHERE run_id = :'run';
SELECT status, error FROM run_tracker.tasks WHERE task_id = :'three';
SELECT count(*) FROM run_tracker.check_totals();
SQL
my $done = <<'EXPECTED';
t
t|t|t
1|1
t|t|t
cancelled|2|hello|1|1|0|10|2.0|1|1
4
cancelled|run completed
0
EXPECTED
my $claims = q{SET request.jwt.claims = '{"sub": "alice"}';} . "\n";
is(as_user('alice', 'clean', $claims . $work, '-v', 'user=alice'), $done, 'FORCE ROW LEVEL SECURITY: a client can work');
is(as_user('service', 'clean', $work, '-v', 'user=bob'), $done, 'a service can work');
is(as_user('postgres', 'clean', $work, '-v', 'user=carol'), $done, 'a superuser can work');
invariants_hold($node, 'clean', 'totals and open set are true');
is($node->safe_psql('clean', q{SELECT count(DISTINCT user_id) FROM run_tracker.transitions}), '3', 'the history is written');
is(as_user('service', 'clean', q{DELETE FROM run_tracker.tasks WHERE phase = 'failed'; SELECT sum(failed_task_count) FROM run_tracker.run_summary;}),
	"0\n", 'a service deletes tasks');
is(as_user('service', 'clean', q{DELETE FROM run_tracker.runs WHERE user_id = 'alice'; SELECT count(*) FROM run_tracker.run_totals WHERE user_id = 'alice';}),
	"0\n", 'and runs, whose totals go with them');
is($node->safe_psql('clean', q{TRUNCATE run_tracker.tasks; SELECT sum(input_tokens) + sum(task_count) FROM run_tracker.run_totals}), '0', 'TRUNCATE takes tasks out of the totals');
invariants_hold($node, 'clean', 'all stays true');

# ---- the owner of the tables is no superuser ----

$node->safe_psql('hostile', <<'SQL');
CREATE SCHEMA evil AUTHORIZATION tables_owner;
GRANT USAGE ON SCHEMA evil TO PUBLIC;
SET ROLE tables_owner;
CREATE TABLE evil.fired (what text, who text, super boolean);
GRANT INSERT ON evil.fired TO PUBLIC;
CREATE FUNCTION evil.note(what text) RETURNS void LANGUAGE plpgsql AS
$$ BEGIN
    INSERT INTO evil.fired SELECT what, current_user, rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user;
END $$;
CREATE FUNCTION evil.fire() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN
    PERFORM evil.note(TG_TABLE_NAME || ' ' || TG_NAME);
    RETURN CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
END $$;
CREATE FUNCTION evil.indexed(text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS
$$ BEGIN PERFORM evil.note('index'); RETURN $1; END $$;
CREATE FUNCTION evil.checked(text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS
$$ BEGIN PERFORM evil.note('check'); RETURN true; END $$;
DO $$
DECLARE
    tab text;
BEGIN
    FOREACH tab IN ARRAY '{run_totals,open_runs,transitions}'::text[] LOOP
        EXECUTE format('CREATE TRIGGER before_row BEFORE INSERT OR UPDATE OR DELETE ON run_tracker.%I FOR EACH ROW EXECUTE FUNCTION evil.fire()', tab);
        EXECUTE format('CREATE TRIGGER after_row AFTER INSERT OR UPDATE OR DELETE ON run_tracker.%I FOR EACH ROW EXECUTE FUNCTION evil.fire()', tab);
        EXECUTE format('ALTER TABLE run_tracker.%I ADD CHECK (evil.checked(user_id))', tab);
    END LOOP;
END
$$;
RESET ROLE;
-- the owner of the tables may not create anything in the schema
CREATE INDEX ON run_tracker.run_totals (evil.indexed(user_id));
CREATE INDEX ON run_tracker.open_runs (evil.indexed(user_id));
CREATE INDEX ON run_tracker.transitions (evil.indexed(user_id));
TRUNCATE evil.fired;
SQL
is(as_user('postgres', 'hostile', $work, '-v', 'user=carol'), $done, 'a superuser works with tables of somebody else');
is($node->safe_psql('hostile', q{SELECT count(DISTINCT what) > 6 FROM evil.fired}), 't', 'their triggers fire');
is($node->safe_psql('hostile', q{SELECT string_agg(DISTINCT what || ' as ' || who, ', ') FROM evil.fired WHERE super}), '', 'but never as the superuser');
$node->safe_psql('hostile', 'TRUNCATE evil.fired; DELETE FROM run_tracker.runs; TRUNCATE run_tracker.messages; SELECT run_tracker.rebuild_totals()');
# (AFTER triggers on rows that a foreign key's cascade deletes run as the one who deletes, in any database.)
is( $node->safe_psql('hostile', q{SELECT string_agg(DISTINCT what || ' as ' || who, ', ') FROM evil.fired WHERE super AND what <> 'transitions after_row'}),
	'', 'nor when rows are deleted and totals rebuilt');
is($node->safe_psql('hostile', q{SELECT count(*) > 0 FROM evil.fired}), 't', 'which fires them, too');

# A trigger cannot become somebody else again.
for my $escape ('SET ROLE postgres', 'SET SESSION AUTHORIZATION postgres', 'RESET ROLE', 'RESET SESSION AUTHORIZATION')
{
	$node->safe_psql('hostile', "SET ROLE tables_owner; CREATE OR REPLACE FUNCTION evil.note(what text) RETURNS void LANGUAGE plpgsql AS \$\$ BEGIN EXECUTE '$escape'; END \$\$");
	is(as_user('postgres', 'hostile', q{SELECT run_tracker.create_run(user_id => 'x'); SELECT current_user;}), "postgres\nERROR:  42501\n", "$escape in a trigger is refused");
}

# What a trigger puts off until the commit is the superuser's transaction again.
$node->safe_psql('hostile', <<'SQL');
SET ROLE tables_owner;
CREATE OR REPLACE FUNCTION evil.note(what text) RETURNS void LANGUAGE plpgsql AS
$$ BEGIN
    INSERT INTO evil.fired SELECT what, current_user, rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user;
END $$;
TRUNCATE evil.fired;
CREATE CONSTRAINT TRIGGER deferred AFTER INSERT OR UPDATE ON run_tracker.run_totals DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION evil.fire();
SQL
$node->psql('hostile', q{SELECT run_tracker.create_run(user_id => 'x')});
is($node->safe_psql('hostile', q{SELECT string_agg(DISTINCT what || ' as ' || who, ', ') FROM evil.fired WHERE super}), '', 'a deferred trigger does not run as the superuser');
$node->safe_psql('hostile', 'DROP SCHEMA evil CASCADE');

# ---- names in front of those that are meant ----

$node->safe_psql('clean', <<'SQL');
CREATE SCHEMA front AUTHORIZATION alice;
GRANT USAGE ON SCHEMA front TO PUBLIC;
SET ROLE alice;
CREATE TABLE front.called (what text, who text);
GRANT INSERT, SELECT ON front.called TO PUBLIC;
CREATE FUNCTION front.note(what text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN INSERT INTO front.called VALUES (what, current_user); END $$;
DO $do$
DECLARE
    t text;
    op text;
BEGIN
    FOREACH t IN ARRAY '{uuid,text,int8,int4,numeric,timestamptz,interval,jsonb,bool}'::text[] LOOP
        EXECUTE format('CREATE FUNCTION front.f(a %1$s, b %1$s) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN PERFORM front.note(%2$L); RETURN false; END $$', t, t || ' operator');
        FOREACH op IN ARRAY '{=,<>,<,>,<=,>=}'::text[] LOOP
            EXECUTE format('CREATE OPERATOR front.%s (LEFTARG = %s, RIGHTARG = %s, FUNCTION = front.f)', op, t, t);
        END LOOP;
    END LOOP;
END
$do$;
CREATE FUNCTION front.g(a text, b text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN PERFORM front.note('||'); RETURN 'evil'; END $$;
CREATE OPERATOR front.|| (LEFTARG = text, RIGHTARG = text, FUNCTION = front.g);
CREATE FUNCTION front.clock_timestamp() RETURNS timestamptz LANGUAGE plpgsql AS $$ BEGIN PERFORM front.note('clock_timestamp'); RETURN NULL; END $$;
CREATE FUNCTION front.floor(numeric) RETURNS numeric LANGUAGE plpgsql AS $$ BEGIN PERFORM front.note('floor'); RETURN 0; END $$;
CREATE FUNCTION front.format(text, VARIADIC text[]) RETURNS text LANGUAGE plpgsql AS $$ BEGIN PERFORM front.note('format'); RETURN 'SELECT 1'; END $$;
SQL

# Comparisons in the test's own statements are meant to be those of pg_catalog.
(my $quiet = $work) =~ s/(\w) = :'/$1 OPERATOR(pg_catalog.=) :'/g;
my $path = "CREATE TEMP TABLE runs (i int);\nCREATE TEMP TABLE run_totals (i int);\nCREATE TEMP TABLE pg_class (i int);\nSET search_path = front, pg_temp, run_tracker, pg_catalog;\n";
is(as_user('alice', 'clean', $claims . $path . $quiet, '-v', 'user=alice'), $done, 'a client works with a search_path of traps');
is(as_user('postgres', 'clean', $path . $quiet, '-v', 'user=carol'), $done, 'so does a superuser');
is( as_user('postgres', 'clean', $path . <<'SQL'), "t\nf\n0\n1\n", 'and calls what else there is');
SELECT run_tracker.lifecycle_diagram('run') IS NOT NULL;
SELECT run_tracker.drop_lifecycle('none');
SELECT run_tracker.rebuild_totals();
SELECT count(*) FROM run_tracker.define_lifecycle('new', '{"initial": "a", "states": {"a": {"phase": "active", "next": ["b"]}, "b": {"phase": "succeeded"}}}');
SQL
is(as_user('postgres', 'clean', $path . 'TRUNCATE run_tracker.tasks; UPDATE run_tracker.messages SET content = content; DELETE FROM run_tracker.logs; SELECT 1'),
	"1\n", 'and changes tables');
is(as_user('postgres', 'clean', $path . q{SELECT run_tracker.grant_client('service'), run_tracker.grant_service('alice'), run_tracker.set_owner('tables_owner'); SELECT run_tracker.install()}),
	"||\n1.0\n", 'and administers');
is($node->safe_psql('clean', q{SELECT string_agg(DISTINCT what || ' as ' || who, ', ') FROM front.called}), '', 'no trap was called');
invariants_hold($node, 'clean', 'totals and open set are true');
is( as_user('postgres', 'clean', 'SET search_path = front, pg_catalog; SELECT 1::bigint = 1::bigint; SELECT count(*) FROM front.called'),
	"f\n1\n", 'the traps do work');

is(join("\n", grep { /PANIC|TRAP|signal/ } log_errors($node, 0)), '', 'the server never crashed');
$node->stop;
done_testing();
