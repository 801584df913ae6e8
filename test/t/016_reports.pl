# Reports in a real browser: they are rendered as meant, on screens wide and narrow, light and dark; texts fit and can be
# read; and what a client has written does not become an element or a script.
use strict;
use warnings;

use Compress::Zlib qw(uncompress);
use Cwd qw(realpath);
use IPC::Run;
use JSON::PP;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use RunTracker;

my ($browser) = grep { -x } map { "$_/chromium" } split /:/, $ENV{PATH};
plan skip_all => 'chromium is not installed' unless $browser;
# a snap sees neither temporary files nor our home; where there is no snapd, it is a script that says so
plan skip_all => 'chromium is a snap' if realpath($browser) =~ /snap/ || `$browser --version 2>&1` !~ /^Chromium [0-9]/m;

my $dir = PostgreSQL::Test::Utils::tempdir;
my $number = 0;
local $ENV{HOME} = $dir;

sub write_file
{
	my ($name, $text) = @_;
	open my $file, '>:raw', "$dir/$name" or die "$dir/$name: $!";
	print $file $text;
	close $file;
	return "$dir/$name";
}

# Opens a page. Returns what the browser printed, and what it complained of.
sub browse
{
	my ($file, $width, $height, @options) = @_;
	my ($out, $err) = ('', '');

	# each time as if it were new: browsers that are still ending do not share a profile
	my $profile = "$dir/profile" . ++$number;
	IPC::Run::run(
		[ $browser, qw(--headless --no-sandbox --disable-gpu --hide-scrollbars --no-first-run --disable-dev-shm-usage
			--enable-logging=stderr), "--user-data-dir=$profile", "--window-size=$width,$height", @options, "file://$file" ],
		'<', \undef, '>', \$out, '2>', \$err, IPC::Run::timeout(120))
	  or die "chromium failed: $err";
	return ($out, join "\n", grep { /CONSOLE|Refused|Content Security Policy/ } split /\n/, $err);
}

# Its width, its height, and how much there is to see: the bytes that its compressed pixels take, and how many different
# ones there are.
sub png
{
	my ($file) = @_;
	my $data = slurp_file($file);
	my ($width, $height, $compressed) = (0, 0, '');

	return (0, 0, 0, 0) unless $data =~ s/^\x89PNG\r\n\x1a\n//;
	while ($data =~ s/^(.{4})(.{4})//s)
	{
		my ($length, $type) = (unpack('N', $1), $2);
		my $chunk = substr($data, 0, $length + 4, '');
		($width, $height) = unpack 'NN', $chunk if $type eq 'IHDR';
		$compressed .= substr($chunk, 0, $length) if $type eq 'IDAT';
	}
	my %bytes;
	@bytes{ unpack 'C*', uncompress($compressed) // '' } = ();
	return ($width, $height, length $compressed, scalar keys %bytes);
}

# What only a script can measure: of a page inside of another one, since it does not allow any itself. (There, it can
# also be narrower than windows can.)
my $measure = <<'HTML';
<!DOCTYPE html>
<html style="color-scheme: light dark"><body style="margin: 0">
<iframe srcdoc="PAGE" style="width: WIDTHpx; height: 900px; border: 0"></iframe>
<script>
addEventListener("load", function () {
	var w = frames[0], d = w.document;
	var ink = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
	function mix(colours) {
		ink.clearRect(0, 0, 1, 1);
		colours.forEach(function (c) { ink.fillStyle = c; ink.fillRect(0, 0, 1, 1); });
		return Array.from(ink.getImageData(0, 0, 1, 1).data).slice(0, 3);
	}
	function light(colour) {
		var l = colour.map(function (v) { v /= 255; return v > 0.03928 ? Math.pow((v + 0.055) / 1.055, 2.4) : v / 12.92; });
		return 0.2126 * l[0] + 0.7152 * l[1] + 0.0722 * l[2];
	}
	var found = { texts: 0, wide: [], cut: [], faint: [], alive: [] };
	d.querySelectorAll("details").forEach(function (e) { e.open = true; });
	d.querySelectorAll("*").forEach(function (e) {
		if (/^(script|img|iframe|object|embed|link|base|form|input|button)$/i.test(e.tagName) || Array.from(e.attributes).some(function (a) {
			return /^on/i.test(a.name) || /^(href|src|xlink:href)$/i.test(a.name) && !/^https?:\/\//i.test(a.value); }))
			found.alive.push(e.outerHTML.slice(0, 100));
	});
	d.querySelectorAll("main *").forEach(function (e) {
		var style = w.getComputedStyle(e), box = e.getBoundingClientRect();
		var name = e.tagName + "." + (e.getAttribute("class") || "") + " " + e.textContent.slice(0, 40);
		for (var p = e; p; p = p.parentElement)
			// what is for those who do not see it
			if (w.getComputedStyle(p).clipPath !== "none") return;
		if (!box.width || e.closest("svg") && e.tagName !== "text") return;
		if (box.right > w.innerWidth + 1 || box.left < -1) found.wide.push(name);
		if (!/^(auto|scroll)$/.test(style.overflowX) && e.clientWidth && e.scrollWidth > e.clientWidth + 1 && !e.querySelector("svg"))
			found.cut.push(name);
		if (!Array.from(e.childNodes).some(function (n) { return n.nodeType === 3 && n.data.trim(); })) return;
		found.texts++;
		var grounds = [];
		for (var q = e; q; q = q.parentElement) grounds.unshift(w.getComputedStyle(q).backgroundColor);
		var a = light(mix(grounds)), b = light(mix(grounds.concat(e.tagName === "text" ? style.fill : style.color)));
		var contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
		if (contrast < 4.5) found.faint.push(contrast.toFixed(2) + " " + name);
	});
	found.width = w.innerWidth;
	found.page = d.documentElement.scrollWidth;
	found.ground = mix([w.getComputedStyle(d.body).backgroundColor]);
	document.documentElement.setAttribute("data-found", JSON.stringify(found));
});
</script></body></html>
HTML

sub measure
{
	my ($page, $width, @options) = @_;
	my $outer = $measure;

	$page =~ s/&/&amp;/g;
	$page =~ s/"/&quot;/g;
	$outer =~ s/WIDTH/$width/;
	$outer =~ s/PAGE/$page/;
	my ($dom) = browse(write_file('outer.html', $outer), $width < 500 ? 500 : $width, 900, '--dump-dom', @options);
	my ($found) = $dom =~ /data-found="([^"]*)"/;
	return {} unless $found;
	$found =~ s/&quot;/"/g;
	$found =~ s/&lt;/</g;
	$found =~ s/&gt;/>/g;
	$found =~ s/&nbsp;/ /g;
	$found =~ s/&amp;/&/g;
	return JSON::PP->new->utf8->decode($found);
}

# A page as it is shown on some screens, and patterns of what it has to contain.
my %screens = (light => [ 1200, 2600 ], dark => [ 1200, 2600, '--force-dark-mode' ], narrow => [ 390, 5000 ]);

sub looks_right
{
	my ($name, $page, $screens, @contains) = @_;
	my $file = write_file("$name.html", $page);

	for my $kind (@$screens)
	{
		my @size = @{ $screens{$kind} };
		my $picture = "$dir/$name-$kind.png";

		my (undef, $complaints) = browse($file, @size, "--screenshot=$picture");
		is($complaints, '', "$name, $kind: the browser does not complain");
		my ($width, $height, $bytes, $different) = -e $picture ? png($picture) : (0, 0, 0, 0);
		is("$width x $height", "$size[0] x $size[1]", "$name, $kind: the picture has the size of the screen");
		cmp_ok($bytes, '>', 20_000, "$name, $kind: there is something to see");
		cmp_ok($different, '>', 100, "$name, $kind: in colours");

		my $found = measure($page, $size[0], @size[ 2 .. $#size ]);
		cmp_ok($found->{texts} // 0, '>', 20, "$name, $kind: there are texts");
		is_deeply([ @$found{qw(width page)} ], [ @size[ 0, 0 ] ], "$name, $kind: nothing is to be scrolled sideways");
		is_deeply($found->{alive}, [], "$name, $kind: nothing is there but text and pictures");
		is_deeply($found->{wide}, [], "$name, $kind: nothing is beyond the edges");
		is_deeply($found->{cut}, [], "$name, $kind: no text is cut off");
		is_deeply($found->{faint}, [], "$name, $kind: texts stand out from what is behind them (WCAG AA)");
		cmp_ok(($found->{ground} // [])->[0] // 128, $kind eq 'dark' ? '<' : '>', 128, "$name, $kind: the ground is as it should be");
	}

	my ($dom) = browse($file, 1200, 900, '--dump-dom');
	like($dom, $_, "$name: the browser has found $_") for @contains;
	# a script that somehow came into the page is not run
	$page =~ s/<main>/<script>document.title = 'has run'<\/script><main>/;
	my ($out, $complaints) = browse(write_file('script.html', $page), 1200, 900, '--dump-dom');
	unlike($out, qr/<title>has run/, "$name: scripts are not run");
	like($complaints, qr/Content Security Policy/, "$name: since the policy says so");
}

my $node = new_server('reports');
$node->safe_psql('postgres', 'CREATE DATABASE db');
$node->safe_psql('db', 'CREATE EXTENSION run_tracker');
sub query { return $node->safe_psql('db', $_[0]) }

looks_right('empty', query('SELECT run_tracker.dashboard_html()'), ['light'], qr/Runs of the last 24 hours/, qr/Nothing yet/);

# ---- a run, tried twice ----

my $functions = <<'SQL';
CREATE FUNCTION pg_temp.id(n int) RETURNS uuid LANGUAGE sql AS $$ SELECT ('018f0000-0000-7000-8000-' || lpad(n::text, 12, '0'))::uuid $$;
CREATE FUNCTION pg_temp.at(s numeric) RETURNS timestamptz LANGUAGE sql AS $$ SELECT timestamptz '2026-01-20 09:30:00+00' + s * interval '1 s' $$;
SQL
my $run = '018f0000-0000-7000-8000-000000000001';
query($functions . <<'SQL');
INSERT INTO run_tracker.runs (run_id, user_id, kind, name, session_id, workflow_id, subject_id, status, attempt, max_attempts, worker, created_at, started_at,
    finished_at, inputs, settings, result, metrics, error, error_detail)
VALUES (pg_temp.id(1), 'alice@example.org', 'support', 'Which refund policy applies to order 4711?', 'session-2291', 'refund-assistant', 'order-4711', 'failed',
    2, 3, 'worker-3', pg_temp.at(0), pg_temp.at(6.9), pg_temp.at(18.42), '{"order": 4711, "locale": "de-DE"}', '{"mode": "hybrid", "temperature": 0.2}',
    '{"answer": "refund within 30 days", "citations": ["refunds-eu-2026", "returns-faq"]}', '{"quality": 0.91}',
    'the letter could not be sent: connection to mail.example.org refused after three attempts', E'smtp.c:412\nmail.c:98');
INSERT INTO run_tracker.transitions (run_id, seq, user_id, from_status, to_status, attempt, state_ms, occurred_at) VALUES
    (pg_temp.id(1), 1, 'alice@example.org', 'pending', 'running', 1, 420, pg_temp.at(0.42)),
    (pg_temp.id(1), 2, 'alice@example.org', 'running', 'failed', 1, 3800, pg_temp.at(4.22)),
    (pg_temp.id(1), 3, 'alice@example.org', 'failed', 'pending', 2, 680, pg_temp.at(4.9)),
    (pg_temp.id(1), 4, 'alice@example.org', 'pending', 'running', 2, 2000, pg_temp.at(6.9)),
    (pg_temp.id(1), 5, 'alice@example.org', 'running', 'failed', 2, 11520, pg_temp.at(18.42));
INSERT INTO run_tracker.tasks (run_id, task_id, parent_task_id, name, service, operation, provider, model, status, request, response, result, input_tokens,
    output_tokens, cache_read_input_tokens, reasoning_output_tokens, cost, finish_reason, error, error_detail, time_to_first_token_ms, created_at, started_at, finished_at)
SELECT pg_temp.id(1), pg_temp.id(t.id), pg_temp.id(t.parent), t.name, t.service, t.operation, t.provider, t.model, t.status, t.request::jsonb, t.response,
       t.result::jsonb, t.input, t.output, t.cached, t.reasoning, t.cost, t.finish, t.error, t.detail, t.first, pg_temp.at(t.began), pg_temp.at(t.began), pg_temp.at(t.ended)
FROM (VALUES
    (11, NULL, 'plan', 'planner', 'chat', 'openai', 'gpt-4o-mini', 'completed', '{"messages": [{"role": "user", "content": "Plan it"}]}', 'look up, answer', NULL,
     412, 96, NULL, NULL, 0.00012, 'stop', NULL, NULL, 210, 0.45, 1.7),
    (12, NULL, 'draft answer', 'writer', 'chat', 'anthropic', 'model-large-4', 'failed', '{"max_tokens": 2000}', NULL, NULL,
     1830, 0, NULL, NULL, 0.0055, NULL, 'overloaded_error: the model is overloaded, try again later', E'Traceback\n  File "llm.py", line 112', NULL, 1.75, 4.2),
    (13, NULL, 'answer question', NULL, 'invoke_agent', NULL, NULL, 'completed', NULL, NULL, '{"steps": 4}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 6.93, 17.9),
    (14, 13, 'look up policy', 'rag', NULL, NULL, NULL, 'completed', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 6.96, 9.1),
    (15, 14, NULL, NULL, 'embeddings', 'openai', 'text-embedding-3-small', 'completed', NULL, NULL, NULL, 38, 0, NULL, NULL, 0.00000076, NULL, NULL, NULL, NULL, 6.98, 7.15),
    (16, 13, NULL, NULL, 'chat', 'anthropic', 'model-large-4', 'completed', '{"messages": [{"role": "user", "content": "Which policy?"}]}',
     E'The EU policy applies.\n\nThe last day for a refund is 5 December 2026.', '{"citations": ["refunds-eu-2026"]}', 14820, 1263, 12800, 640, 0.04821, 'stop', NULL, NULL, 843, 9.22, 15.9),
    (17, NULL, 'notify customer', 'mail', NULL, NULL, NULL, 'timeout', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'no answer', NULL, NULL, 18, 18.4)
) t (id, parent, name, service, operation, provider, model, status, request, response, result, input, output, cached, reasoning, cost, finish, error, detail, first, began, ended);
INSERT INTO run_tracker.retrievals (run_id, retrieval_id, task_id, retrieval_type, query, location, component_type, duration_ms, created_at, context, results) VALUES
    (pg_temp.id(1), pg_temp.id(21), pg_temp.id(14), 'vector_search', 'refund policy EU consumer 30 days', 'policies', 'document', 640, pg_temp.at(7.9), 'A customer in Germany.',
     '[{"title": "Refunds in the EU, 2026", "score": 0.934, "snippet": "Consumers may return goods within 30 days of delivery for a full refund of price and shipping."},
       {"name": "Returns: frequently asked questions", "similarity": 0.871}, {"document": "refunds-us-2024.md", "score": 0.612}, "refunds-legacy.txt", 17]'),
    (pg_temp.id(1), pg_temp.id(22), NULL, 'pattern_search', 'similar cases', 'tickets', NULL, 310, pg_temp.at(17.9), NULL, '[]');
INSERT INTO run_tracker.messages (run_id, role, content, task_id, name, parts, created_at) VALUES
    (pg_temp.id(1), 'system', 'You are a support agent. Cite the policy that you rely on.', NULL, NULL, NULL, pg_temp.at(0.1)),
    (pg_temp.id(1), 'user', E'Which refund policy applies to order 4711?\nThe customer says the parcel came late.', NULL, 'alice', NULL, pg_temp.at(0.2)),
    (pg_temp.id(1), 'tool', '{"order": 4711, "delivered": "2026-11-05", "country": "DE"}', NULL, 'orders.lookup', NULL, pg_temp.at(8.4)),
    (pg_temp.id(1), 'assistant', E'The EU policy applies.\n\nThe last day for a refund is 5 December 2026.', pg_temp.id(16), NULL, NULL, pg_temp.at(15.9)),
    (pg_temp.id(1), 'user', NULL, NULL, NULL, '[{"type": "text", "text": "Thank you!"}, {"type": "image", "url": "https://example.org/label.png"}]', pg_temp.at(17.2));
INSERT INTO run_tracker.artifacts (run_id, kind, type, name, ordinal, source, similarity, source_document_name, content, content_type, url) VALUES
    (pg_temp.id(1), 'document', 'letter', 'refund-letter.md', 1, 'template', NULL, NULL, E'# Your refund\n\nDear customer, …', 'text/markdown', NULL),
    (pg_temp.id(1), 'component', 'clause', 'EU clause', 2, 'rag', 0.934, 'Refunds in the EU, 2026', NULL, NULL, 'https://example.org/policies/refunds-eu-2026#clause-3');
INSERT INTO run_tracker.logs (run_id, level, message, category, step_name, details, created_at) VALUES
    (pg_temp.id(1), 'INFO', 'claimed by worker-1', 'queue', 'start', NULL, pg_temp.at(0.42)),
    (pg_temp.id(1), 'ERROR', 'model overloaded, giving up', 'llm', 'draft answer', '{"status": 529, "retry_after_ms": 2000}', pg_temp.at(4.2)),
    (pg_temp.id(1), 'WARNING', 'another worker tries again', 'queue', 'start', NULL, pg_temp.at(4.9)),
    (pg_temp.id(1), 'DEBUG', 'cache hit for the system prompt', 'llm', 'answer', NULL, pg_temp.at(9.3));
SQL
looks_right('report', query("SELECT run_tracker.report_html('$run')"), [qw(light dark narrow)],
	qr/<title>Which refund policy applies to order 4711\?<\/title>/, qr/<svg [^>]*role="img"[^>]*><title>task answer question/,
	qr/<span class="badge p-failed">failed<\/span>/, qr/<li class="m-assistant">/, qr/Refunds in the EU, 2026/,
	qr/<a href="https:\/\/example.org\/policies\/refunds-eu-2026#clause-3"/);

# ---- the same, as long and as hostile as can be ----

query($functions . <<'SQL');
INSERT INTO run_tracker.runs (run_id, user_id, kind, name, current_step, progress, inputs)
SELECT pg_temp.id(2), h, h, h || repeat('x', 500), h, 50, jsonb_build_object(h, h)
FROM (SELECT E'"''><script>document.title = "has run"</script><img src="x" onerror="document.title = \'has run\'"><a href="javascript:alert(1)">' AS h) v;
INSERT INTO run_tracker.messages (run_id, role, content, name) SELECT r.run_id, v.role, r.kind || repeat('W', 500), r.kind
FROM run_tracker.runs r, LATERAL (VALUES (r.kind), ('user'), ('tool')) v (role) WHERE r.run_id = pg_temp.id(2);
INSERT INTO run_tracker.tasks (run_id, name, service, model, response, request, error) SELECT run_id, kind || repeat('W', 500), kind, repeat('m', 200), kind, inputs, kind FROM run_tracker.runs
WHERE run_id = pg_temp.id(2);
INSERT INTO run_tracker.retrievals (run_id, retrieval_type, query, results, duration_ms) SELECT run_id, kind, kind || repeat('q', 300),
    jsonb_build_array(kind, repeat('r', 400), jsonb_build_object('title', kind, 'score', kind), jsonb_build_object('title', 'x', 'score', 1e300)), 9223372036854775807 FROM run_tracker.runs
WHERE run_id = pg_temp.id(2);
INSERT INTO run_tracker.artifacts (run_id, kind, name, url, size_bytes, similarity) SELECT run_id, kind, repeat('a', 300), u || kind, 9223372036854775807, 1e30
FROM run_tracker.runs, (VALUES ('javascript:'), ('https://example.org/')) v (u) WHERE run_id = pg_temp.id(2);
INSERT INTO run_tracker.logs (run_id, level, message, step_name) SELECT run_id, 'CRITICAL', kind || repeat('l', 500), kind FROM run_tracker.runs WHERE run_id = pg_temp.id(2);
SQL
looks_right('hostile', query("SELECT run_tracker.report_html('018f0000-0000-7000-8000-000000000002')"), [qw(light narrow)],
	qr/<title>[^<]*&lt;script&gt;/, qr/&lt;img src="x" onerror=/);

# ---- many runs ----

query(<<'SQL');
INSERT INTO run_tracker.runs (user_id, kind, name, status, created_at, started_at, finished_at, error)
SELECT 'alice', k.kind, k.kind || ' ' || n, s.status, c, c, c + k.base * (1 + n % 7) * interval '1 s',
       CASE s.status WHEN 'failed' THEN 'invalid JSON in the answer of the model: expected an object, got an array' WHEN 'timeout' THEN 'no activity for 60 seconds' END
FROM generate_series(1, 1500) n,
     LATERAL (SELECT date_trunc('hour', now()) - ((n * 7919) % 172000) * interval '1 s' AS c) t,
     LATERAL (SELECT (ARRAY['chat', 'support', 'extraction', 'mulesoft flow', 'edu_context'])[1 + n % 5] AS kind, (ARRAY[1, 4, 8, 25, 3])[1 + n % 5] AS base) k,
     LATERAL (SELECT CASE WHEN n % 11 = 0 THEN 'failed' WHEN n % 47 = 0 THEN 'timeout' WHEN n % 61 = 0 THEN 'cancelled' ELSE 'completed' END AS status) s;
INSERT INTO run_tracker.tasks (run_id, name, operation, provider, model, status, input_tokens, output_tokens, cost, time_to_first_token_ms, created_at, started_at, finished_at)
SELECT run_id, 'answer', 'chat', m.provider, m.model, CASE WHEN r.phase = 'failed' THEN 'failed' ELSE 'completed' END, 12000 + length(r.name), 900, m.price, 350, created_at, started_at, finished_at
FROM run_tracker.runs r, (VALUES ('openai', 'gpt-4o', 0.06), ('anthropic', 'model-large-4', 0.09), ('openai', 'gpt-4o-mini', 0.00013)) m (provider, model, price)
WHERE r.user_id = 'alice';
INSERT INTO run_tracker.runs (user_id, kind, status) SELECT 'alice', 'chat', (ARRAY['pending', 'running', 'paused'])[1 + n % 3] FROM generate_series(1, 20) n;
SQL
looks_right('dashboard', query('SELECT run_tracker.dashboard_html()'), [qw(light dark narrow)], qr/Runs of the last 24 hours/, qr/<polyline class="curve p-created"/,
	qr/<rect class="area p-succeeded"/, qr/mulesoft flow/, qr/model-large-4/, qr/invalid JSON in the answer/);
looks_right('days', query(q{SELECT run_tracker.dashboard_html(now() - interval '30 days')}), ['light'], qr/per day/);

$node->stop;
done_testing();
