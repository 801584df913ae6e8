# Does pg_upgrade take everything along, with the library preloaded in both servers? (From and to the same version:
# the machinery is the same, and there is always one at hand.)
use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use RunTracker;

# what the worker would change meanwhile is not what this is about
my $preload = "shared_preload_libraries = 'run_tracker'\nrun_tracker.fold_interval = '1 h'\n";
my $old = new_server('old', conf => $preload);
my $new = new_server('new', conf => $preload, start => 0);

fill_database($old, 'db');
fill_database($old, 'owned', set_owner => 1);
$old->safe_psql('postgres', 'CREATE EXTENSION run_tracker');
$old->safe_psql($_, 'SELECT run_tracker.fold_statistics()') for qw(db owned);
my %before = map { $_ => fingerprint($old, $_) } qw(db owned postgres);
my %dump = map { $_ => (run_cmd($old, [ 'pg_dump', '-s', $_ ]))[1] } qw(db owned);
$old->stop;

# It leaves its files in the current directory.
chdir $new->basedir or die;
my ($bindir) = run_command([ 'pg_config', '--bindir' ]);
# The sockets' path must be short.
my $sockets = PostgreSQL::Test::Utils::tempdir_short();
command_ok(
	[
		'pg_upgrade', '--no-sync', '-b', $bindir, '-B', $bindir, '-d', $old->data_dir, '-D', $new->data_dir,
		'-p', $old->port, '-P', $new->port, '-s', $sockets
	],
	'pg_upgrade');

$new->start;
for my $db (qw(db owned postgres))
{
	same(fingerprint($new, $db), $before{$db}, "$db: everything is there");
	invariants_hold($new, $db, 'totals and open set are true');
	next if $db eq 'postgres';
	my $dump = (run_cmd($new, [ 'pg_dump', '-s', $db ]))[1];
	for ($dump, $dump{$db})
	{
		s/^\\(un)?restrict .*\n//mg;
		# roles are named in the order in which pg_authid has them
		s/^(CREATE POLICY .* TO )(.*)( USING .*)$/$1 . join(', ', sort split(m{, }, $2)) . $3/mge;
	}
	same($dump, $dump{$db}, 'a dump of the schema is identical');
	works($new, $db, 'the tracker is at work');
	invariants_hold($new, $db, 'and keeps totals and open set true');
	is($new->safe_psql($db, 'SELECT run_tracker.install()'), '1.0', 'install() finds nothing to do');
}
is($new->safe_psql('postgres', 'SHOW shared_preload_libraries'), 'run_tracker', 'the library was preloaded');
is(join("\n", log_errors($new, 0, 'RT001', '42501')), '', 'no error in the log of the new server');

$new->stop;
done_testing();
