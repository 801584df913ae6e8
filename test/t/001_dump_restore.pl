# Does a dump bring everything back, in every mode of pg_dump and pg_restore? The tables are the user's: not only the
# rows and what the extension put around them have to survive, but also what the user did to them.
use strict;
use warnings;

use File::Path qw(rmtree);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use RunTracker;

my $node = new_server('dump');
my $dir = $node->basedir;
fill_database($node, 'source');
fill_database($node, 'owned', set_owner => 1);
invariants_hold($node, 'source', 'the source is sound');

my %fingerprint = map { $_ => fingerprint($node, $_) } qw(source owned);
ok($fingerprint{source} =~ m/^rows\|run_tracker\.tasks\|\d{4}\|/m, 'the description of a database covers rows');
ok($fingerprint{source} =~ m/^rows\|run_tracker\.transitions\|\d{3,}\|/m, 'also those that triggers write');
is( $node->safe_psql('source', q{SELECT string_agg(DISTINCT phase, ' ' ORDER BY phase) FROM run_tracker.runs}),
	'active cancelled failed queued succeeded timed_out waiting',
	'runs of all phases');
is( $node->safe_psql('source', q{SELECT count(DISTINCT slot) > 2 FROM run_tracker.run_totals}),
	't', 'several slots of totals');
ok($fingerprint{source} !~ m/relation\|run_tracker\.runs\|r\|app_tables\|/, 'tables belong to whoever installed them');
ok($fingerprint{owned} =~ m/relation\|run_tracker\.runs\|r\|app_tables\|/, 'or to the role of set_owner()');

sub dump_of
{
	my ($db, @options) = @_;
	my ($ok, $out, $err) = run_cmd($node, [ 'pg_dump', @options, '-d', $db ]);
	is($err, '', "pg_dump @options of $db says nothing") unless $ok && $err eq '';
	return $out;
}

# Dumps can only be compared without the random key that they are guarded with. Rows have no order: they come as they
# lie in the table.
sub comparable
{
	my ($dump) = @_;
	$dump =~ s/^\\(un)?restrict .*\n//mg;
	$dump =~ s/^(COPY [^\n]* FROM stdin;\n)(.*?)^(?=\\\.$)/$1 . join('', sort split m{(?<=\n)}, $2)/gmse;
	return $dump;
}

my %reference = map { $_ => comparable(dump_of($_)) } qw(source owned);

sub psql_restore
{
	my ($db, $sql, @options) = @_;
	my $file = "$dir/dump.sql";
	unlink $file;
	append_to_file($file, $sql);
	my ($ok, undef, $err) = run_cmd($node, [ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', @options, '-f', $file, '-d', $db ]);
	return $ok ? $err : "failed: $err";
}

sub archive_restore
{
	my ($db, $archive, @options) = @_;
	my ($ok, $out, $err) = run_cmd($node, [ 'pg_restore', @options, '-d', $db, $archive ]);
	return $ok ? "$out$err" : "failed: $out$err";
}

# Makes a database, lets restore fill it, and compares it with the one that was dumped.
sub check
{
	my ($name, $source, $restore, %options) = @_;
	my $db = 'restored';

	$node->safe_psql('postgres', "CREATE DATABASE $db TEMPLATE template0");
	is($restore->($db), '', "$name: no error and no warning");
	same(fingerprint($node, $db), $fingerprint{$source}, "$name: everything is there");
	invariants_hold($node, $db, "$name: totals and open set are true");
	same(comparable(dump_of($db)), $reference{$source}, "$name: a second dump is identical");
	works($node, $db, "$name: the tracker is at work");
	invariants_hold($node, $db, "$name: and keeps totals and open set true");
	$node->safe_psql('postgres', "DROP DATABASE $db");
	return;
}

for my $source (qw(source owned))
{
	check(
		"$source, plain SQL in one transaction",
		$source, sub { psql_restore($_[0], dump_of($source), '-1') });
	check(
		"$source, plain SQL statement by statement",
		$source, sub { psql_restore($_[0], dump_of($source)) });

	run_cmd($node, [ 'pg_dump', '-Fc', '-f', "$dir/$source.dump", $source ]) or die 'pg_dump';
	check(
		"$source, custom format in one transaction",
		$source, sub { archive_restore($_[0], "$dir/$source.dump", '-e', '-1') });
	# What goes wrong with parallel jobs goes wrong at random.
	check(
		"$source, custom format with 4 jobs, $_",
		$source, sub { archive_restore($_[0], "$dir/$source.dump", '-e', '-j4') })
	  for 1 .. ($source eq 'source' ? 5 : 2);

	check(
		"$source, clean over what is there",
		$source,
		sub {
			my ($db) = @_;
			psql_restore($db, dump_of($source), '-1') . psql_restore($db, dump_of($source, '--clean', '--if-exists'), '-1');
		});
}

check('--inserts', 'source', sub { psql_restore($_[0], dump_of('source', '--inserts'), '-1') });
check('--rows-per-insert', 'source', sub { psql_restore($_[0], dump_of('source', '--rows-per-insert=7'), '-1') });
check('--column-inserts', 'source', sub { psql_restore($_[0], dump_of('source', '--column-inserts'), '-1') });
check('--enable-row-security', 'source', sub { psql_restore($_[0], dump_of('source', '--enable-row-security'), '-1') });
check('--enable-row-security --inserts',
	'source', sub { psql_restore($_[0], dump_of('source', '--enable-row-security', '--inserts'), '-1') });
check('pg_restore --enable-row-security', 'source', sub {
		archive_restore($_[0], "$dir/source.dump", '-e', '--enable-row-security') });
check('--clean from an archive',
	'source',
	sub {
		my ($db) = @_;
		archive_restore($db, "$dir/source.dump", '-e')
		  . archive_restore($db, "$dir/source.dump", '-e', '--clean', '--if-exists');
	});
run_cmd($node, [ 'pg_dump', '-Fd', '-j4', '-f', "$dir/directory", 'source' ]) or die 'pg_dump';
check('directory format', 'source', sub { archive_restore($_[0], "$dir/directory", '-e', '-j4') });
rmtree("$dir/directory");

# --disable-triggers enables all triggers afterwards, but as ordinary ones.
sub always
{
	my ($db) = @_;
	$node->safe_psql($db, 'ALTER TABLE run_tracker.runs ENABLE ALWAYS TRIGGER app_change');
	return '';
}

check('sections one by one',
	'source',
	sub {
		my ($db) = @_;
		return join '', map { archive_restore($db, "$dir/source.dump", '-e', "--section=$_") } qw(pre-data data post-data);
	});
check('schema, then data without triggers',
	'source',
	sub {
		my ($db) = @_;
		psql_restore($db, dump_of('source', '--schema-only'), '-1')
		  . psql_restore($db, dump_of('source', '--data-only', '--disable-triggers'), '-1')
		  . always($db);
	});
check('schema, then data without triggers from an archive, 4 jobs',
	'source',
	sub {
		my ($db) = @_;
		archive_restore($db, "$dir/source.dump", '-e', '--schema-only')
		  . archive_restore($db, "$dir/source.dump", '-e', '-j4', '--data-only', '--disable-triggers')
		  . always($db);
	});

# A database in which the extension was created holds the built-in lifecycles, the tier "free" and the version already.
check('data without triggers into a new installation',
	'source',
	sub {
		my ($db) = @_;
		$node->safe_psql($db, 'CREATE EXTENSION run_tracker');
		RunTracker::add_user_objects($node, $db);
		$node->safe_psql($db, q{TRUNCATE run_tracker.lifecycles, run_tracker.installation, run_tracker.tiers, run_tracker.accounts});
		my $err = psql_restore($db, dump_of('source', '--data-only', '--disable-triggers'), '-1');
		RunTracker::add_grants($node, $db);
		return $err . always($db);
	});

# The rows alone, with all triggers on, where rows with foreign keys come in the right order: the tracker must not
# count twice what the dump says already, so it refuses, and nothing is half restored.
$node->safe_psql('postgres', 'CREATE DATABASE restored TEMPLATE template0');
is(psql_restore('restored', dump_of('source', '--schema-only'), '-1'), '', 'schema only');
is($node->safe_psql('restored', 'SELECT count(*) FROM run_tracker.runs'), '0', 'holds no run');
isnt(psql_restore('restored', dump_of('source', '--data-only'), '-1'), '', 'data with triggers on is refused');
is($node->safe_psql('restored', 'SELECT (SELECT count(*) FROM run_tracker.runs) + (SELECT count(*) FROM run_tracker.run_totals)'),
	'0', 'as a whole');
$node->safe_psql('postgres', 'DROP DATABASE restored');

$node->stop;
done_testing();
