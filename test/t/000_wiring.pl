# Can the tests of this directory start a server that has the extension?
use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('wiring');
$node->init;
$node->start;

$node->safe_psql('postgres', 'CREATE EXTENSION run_tracker');
is($node->safe_psql('postgres', 'SELECT run_tracker.tracker_version()'),
	'1.0', 'the library answers with its version');
is( $node->safe_psql(
		'postgres',
		q{SELECT extversion FROM pg_extension WHERE extname = 'run_tracker'}),
	'1.0',
	'which is the version of the extension');

$node->stop;
done_testing();
