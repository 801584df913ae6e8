# Runs every SQL statement of the README, and then of the guides, in order, as a new user would:
# in one session of a superuser each.  A block after <!-- expect XXXXX --> must fail with that
# SQLSTATE, every other statement must succeed.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('readme');
chomp(my $libraries = `pg_config --pkglibdir`);
my $has_cron = -e "$libraries/pg_cron.so";
$node->init;
$node->append_conf('postgresql.conf', $has_cron ?
	"shared_preload_libraries = 'run_tracker, pg_cron'\ncron.database_name = 'postgres'\n" :
	"shared_preload_libraries = 'run_tracker'\n");
$node->start;

# Runs the statements of a file: one script; psql says after each statement which SQLSTATE it had.
sub run_file
{
	my ($file, $database) = @_;
	my $text = slurp_file($file);
	my @expected;
	my $script = '';

	while ($text =~ /(?:<!-- expect (\w{5}) -->\s*)?```sql\n(.*?)```/sg)
	{
		my ($state, $block) = ($1 // '00000', $2);

		next if $block =~ /pg_cron/ && !$has_cron;

		# psql knows an error of each statement, so look after each
		for my $statement (split /(?<=;)[^\n]*\n(?=\S|$)/, $block . "\n")
		{
			next unless $statement =~ /\S/;
			$script .= "$statement\n\\echo SQLSTATE :SQLSTATE\n";
			push @expected, [ $state, $statement ];
		}
	}
	cmp_ok(scalar @expected, '>', 20, "$file has statements");

	my ($rc, $out, $err) = $node->psql($database, $script, on_error_stop => 0);
	my @states = $out =~ /^SQLSTATE (\w+)$/mg;
	is(scalar @states, scalar @expected, 'all statements were run');
	for my $i (0 .. $#expected)
	{
		my ($state, $statement) = @{ $expected[$i] };
		$statement =~ s/\s+/ /g;
		is($states[$i], $state, substr($statement, 0, 100)) or diag($err);
	}
	return $out;
}

my $out = run_file('README.md', 'postgres');
like($out, qr/What is a ledger\?.*\|active\|1\|20\|0\.00023\|2\|/, 'the run was summed up');
is($node->safe_psql('postgres', 'SELECT count(*) FROM run_tracker.check_totals()'),
	'0', 'totals are right');

$node->safe_psql('postgres', 'CREATE DATABASE guides');
$node->safe_psql('guides', 'CREATE EXTENSION run_tracker');
my @guides = sort glob 'docs/*.md';
isnt(scalar @guides, 0, 'there are guides');
for my $guide (@guides)
{
	run_file($guide, 'guides');
}

$node->stop;
done_testing();
