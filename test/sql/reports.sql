--
-- Reports: what is shown of a run, and of many; that nothing a client writes becomes markup; who may see what.
-- Pages are long, so this looks at what they contain.
--
\getenv abs_srcdir PG_ABS_SRCDIR
\set common :abs_srcdir '/sql/common.psql'
\i :common

CREATE ROLE regress_reports_reader;
CREATE ROLE regress_reports_service;
SELECT run_tracker.grant_reader('regress_reports_reader'), run_tracker.grant_service('regress_reports_service') \g /dev/null

CREATE FUNCTION pg_temp.run(n int) RETURNS uuid LANGUAGE sql IMMUTABLE AS
$$ SELECT ('018f0000-0000-7000-8002-' || lpad(n::text, 12, '0'))::uuid $$;
CREATE FUNCTION pg_temp.task(n int) RETURNS uuid LANGUAGE sql IMMUTABLE AS
$$ SELECT (lpad(n::text, 8, '0') || '-0000-7000-8002-000000000000')::uuid $$;
CREATE FUNCTION pg_temp.at(seconds numeric) RETURNS timestamptz LANGUAGE sql IMMUTABLE AS
$$ SELECT timestamptz '2026-01-01 00:00:00+00' + seconds * interval '1 second' $$;
CREATE FUNCTION pg_temp.count(page text, needle text) RETURNS integer LANGUAGE sql IMMUTABLE AS
$$ SELECT (length(page) - length(replace(page, needle, ''))) / length(needle) $$;
-- as XML, too; a server without libxml has no say
CREATE FUNCTION pg_temp.well_formed(page text) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    RETURN xml_is_well_formed_document(page);
EXCEPTION WHEN feature_not_supported THEN
    RETURN true;
END
$$;
-- the page without its style sheet, and what it has of elements, of attributes, and of classes
CREATE FUNCTION pg_temp.body(page text) RETURNS text LANGUAGE sql IMMUTABLE AS
$$ SELECT regexp_replace(page, '<style>.*</style>', '') $$;
CREATE FUNCTION pg_temp.elements(page text) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT string_agg(DISTINCT lower(m[1]), ' ' ORDER BY lower(m[1])) FROM regexp_matches(pg_temp.body(page), '<([^/[:space:]>][^[:space:]>]*)', 'g') m
$$;
CREATE FUNCTION pg_temp.attributes(page text) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT string_agg(DISTINCT a[1], ' ' ORDER BY a[1])
    FROM regexp_matches(pg_temp.body(page), '<[^/>][^>]*>', 'g') m, regexp_matches(m[1], '[[:space:]]([^[:space:]=>"]+)="[^"]*"', 'g') a
$$;

--
-- A run with everything
--
INSERT INTO run_tracker.runs (run_id, user_id, kind, name, status, created_at, started_at, finished_at, inputs, result, error, error_detail, session_id)
VALUES (pg_temp.run(1), 'alice', 'support', 'Which policy?', 'failed', pg_temp.at(0), pg_temp.at(0.5), pg_temp.at(184.5), '{"order": 4711}', '["done"]',
        'it broke', E'line 1\nline 2', 's-1');
INSERT INTO run_tracker.tasks (run_id, task_id, parent_task_id, name, operation, provider, model, status, request, response, result, error, error_detail,
        input_tokens, output_tokens, cache_read_input_tokens, reasoning_output_tokens, cost, time_to_first_token_ms, created_at, started_at, finished_at) VALUES
    (pg_temp.run(1), pg_temp.task(1), NULL, 'answer', 'chat', 'openai', 'gpt-4o', 'completed', '{"prompt": "?"}', 'An answer.', '{"a": 1}', NULL, NULL,
     1234567, 1200, 1000, 200, 0.0125, 843, pg_temp.at(1), pg_temp.at(1), pg_temp.at(2.2)),
    (pg_temp.run(1), pg_temp.task(2), pg_temp.task(1), NULL, 'embeddings', NULL, 'small', 'failed', NULL, NULL, NULL, 'overloaded', 'stack', 5, 0, NULL, NULL,
     0.00000076, NULL, pg_temp.at(3), pg_temp.at(3), pg_temp.at(3.25));
INSERT INTO run_tracker.messages (run_id, role, name, content, parts, task_id, created_at) VALUES
    (pg_temp.run(1), 'system', NULL, 'Be brief.', NULL, NULL, pg_temp.at(0.1)), (pg_temp.run(1), 'user', 'alice', 'Which policy?', NULL, NULL, pg_temp.at(0.2)),
    (pg_temp.run(1), 'assistant', NULL, 'An answer.', NULL, pg_temp.task(1), pg_temp.at(2.3)), (pg_temp.run(1), 'tool', 'lookup', '{}', NULL, NULL, pg_temp.at(2)),
    (pg_temp.run(1), 'user', NULL, NULL, '[{"type": "text", "text": "a part"}, "a string", {"type": "image", "url": "u"}, 5, null]', NULL, pg_temp.at(3));
INSERT INTO run_tracker.retrievals (run_id, retrieval_id, task_id, retrieval_type, query, location, duration_ms, results, created_at) VALUES
    (pg_temp.run(1), pg_temp.task(3), pg_temp.task(1), 'vector_search', 'refunds', 'docs', 150,
     '[{"title": "a title", "score": 0.934}, {"name": "a name", "similarity": "0.5"}, {"id": "an id", "score": 12}, {"document": "a document", "score": "high"},
       "a string", 17, true, null, [1, 2], {"document": {"title": "a nested title"}}, {"anything": 1}, {"title": "a snippet", "content": "its text"},
       {"title": "huge", "score": 1e300}, {"title": "negative", "score": -1}]', pg_temp.at(2)),
    (pg_temp.run(1), pg_temp.task(4), NULL, 'graph_query', NULL, NULL, NULL, NULL, pg_temp.at(3));
INSERT INTO run_tracker.artifacts (run_id, artifact_id, kind, type, name, source, similarity, source_document_name, content, content_type, url, ordinal) VALUES
    (pg_temp.run(1), pg_temp.task(5), 'document', 'letter', 'letter.md', 'rag', 0.934, 'Refunds', 'Dear customer', 'text/markdown', NULL, 1),
    (pg_temp.run(1), pg_temp.task(6), 'file', NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'https://example.org/a?b=1&c=2', 2);
INSERT INTO run_tracker.logs (run_id, level, message, category, step_name, details, created_at) VALUES
    (pg_temp.run(1), 'INFO', 'begun', 'c', 's', NULL, pg_temp.at(0.5)), (pg_temp.run(1), 'ERROR', 'it broke', NULL, NULL, '{"code": 5}', pg_temp.at(3.3));
SELECT run_tracker.report_html(pg_temp.run(1)) AS page \gset
SELECT left(:'page', 15) AS begins, right(:'page', 8) AS ends, pg_temp.well_formed(:'page');
SELECT pg_temp.elements(:'page');
SELECT pg_temp.attributes(:'page');
-- no scripts, nothing from elsewhere, and it says so
SELECT pg_temp.count(:'page', $$<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:" />$$) AS policy,
       :'page' ~* '<script|<link|<iframe|<object|@import|url\(| src=|javascript:|[[:space:]]on[a-z]+=' AS active;
SELECT m[1] FROM regexp_matches(:'page', '<(?:html|meta (?:charset|name="viewport"|name="color-scheme"))[^>]*>|<title>[^<]*</title>', 'g') WITH ORDINALITY m (m, n)
WHERE n <= 5 ORDER BY n;
-- headings are in order, table headers have a scope, pictures have a name
SELECT m[1] AS level, m[2] AS heading FROM regexp_matches(:'page', '<h([1-6])[^>]*?>(.*?)</h', 'g') WITH ORDINALITY m (m, n) ORDER BY n;
SELECT pg_temp.count(:'page', '<th ') > 0 AND NOT :'page' ~ '<th (?!scope=)' AND NOT :'page' ~ '<th>' AS scopes,
       pg_temp.count(:'page', '<svg ') AS pictures, pg_temp.count(:'page', 'role="img" aria-label="') AS named;
-- the facts and totals
SELECT m[1] AS fact, regexp_replace(m[2], '<[^>]*>', ' ', 'g') AS value
FROM regexp_matches(:'page', '<dt>(.*?)</dt><dd>(.*?)</dd>', 'g') WITH ORDINALITY m (m, n) ORDER BY n;
-- the timeline: what, where, how long
SELECT m[1] AS class, m[2] AS step, m[3] AS title, m[4] AS shape, regexp_replace(m[5], '</?td[^>]*>', '', 'g') AS duration
FROM regexp_matches(:'page', '<tr class="([a-z]+?)"><th scope="row"[^>]*?>([^<]*?)</th><td class="bars">.*?<title>(.*?)</title>(.*?)</svg></td>(.*?)</tr>', 'g')
     WITH ORDINALITY m (m, n) ORDER BY n;
SELECT m[1] AS at, m[2] AS tick FROM regexp_matches(:'page', '<text x="([^"]*?)"[^>]*?>(.*?)</text>', 'g') m;
-- the tasks
SELECT regexp_replace(m[1], '<[^>]*?>', '|', 'g') AS task FROM regexp_matches(:'page', '<tr class="with">(.*?)</tr>', 'g') WITH ORDINALITY m (m, n) ORDER BY n;
SELECT pg_temp.count(:'page', '<details') AS details, pg_temp.count(:'page', '<summary>Request</summary>') AS requests,
       pg_temp.count(:'page', '<pre dir="auto">An answer.</pre>') AS responses, pg_temp.count(:'page', '<p class="error p-failed">overloaded</p>') AS errors;
-- the conversation
SELECT m[1] AS class, regexp_replace(m[2], '(<[^>]*>)+', '|', 'g') AS message
FROM regexp_matches(:'page', '<li class="(m-[a-z]+?)">(.*?)</li>', 'g') WITH ORDINALITY m (m, n) ORDER BY n;
-- what was found, and how well
SELECT m[1] AS rank, left(regexp_replace(m[2], '(<[^>]*>)+', '|', 'g'), 60) AS found, regexp_replace(m[3], '.*>(?=.)', '') AS score, m[3] ~ 'class="meter"' AS bar
FROM regexp_matches(:'page', '<li><span>([0-9]+?)</span><span class="what" dir="auto">(.*?)</span><span class="score(.*?)</span></li>', 'g') WITH ORDINALITY m (m, n) ORDER BY n;
SELECT m[1] FROM regexp_matches(:'page', '<a [^>]*>[^<]*</a>', 'g') m;

-- a run with nothing: no empty sections
INSERT INTO run_tracker.runs (run_id, user_id) VALUES (pg_temp.run(2), 'alice');
SELECT run_tracker.report_html(pg_temp.run(2)) AS page \gset
SELECT pg_temp.well_formed(:'page'), m[1] AS heading FROM regexp_matches(:'page', '<h[1-6][^>]*?>(.*?)</h', 'g') WITH ORDINALITY m (m, n) ORDER BY n;
-- one that is under way
SELECT run_tracker.update_progress(pg_temp.run(2), 40, 'gene<rate>') \g /dev/null
SELECT run_tracker.create_task(pg_temp.run(2), pg_temp.task(21), name => 'streams') \g /dev/null
SELECT run_tracker.append_response(pg_temp.task(21), 'Once upon '), run_tracker.append_response(pg_temp.task(21), 'a time') \g /dev/null
SELECT run_tracker.report_html(pg_temp.run(2)) AS page \gset
SELECT pg_temp.well_formed(:'page'), pg_temp.count(:'page', 'width: 40%') AS progress, pg_temp.count(:'page', '40 % &#183; gene&lt;rate&gt;') AS step,
       pg_temp.count(:'page', '>Once upon a time<') AS response, pg_temp.count(:'page', 'so far') AS so_far;

--
-- Hostile values, everywhere
--
\set h '(E\'<script>alert("1")</script>\\\'"&amp;<img src=x onerror=alert(1)>--></title></style></svg>\\x01\\x08\\x1b\\x7f\\u0085\\ufffe]]><b a=\\\'\'::text)'
\set s '\'<script>"&amp;\''
SELECT run_tracker.define_lifecycle(:s, jsonb_build_object('initial', :s, 'states', jsonb_build_object(
    :s, '{"phase": "active", "next": ["end</a>"]}'::jsonb, 'end</a>', '{"phase": "failed"}'::jsonb)));
INSERT INTO run_tracker.runs (run_id, user_id, lifecycle, kind, name, workflow_id, session_id, subject_id, worker, current_step, progress, inputs, settings,
        variables, plan, result, reflections, metrics, metadata)
SELECT pg_temp.run(3), :h, :s, :h, :h, :h, :h, :h, :h, :h, 50, j, o, o, j, j, j, o, o
FROM (SELECT to_jsonb(:h) AS j, jsonb_build_object(:h, :h) AS o) v;
INSERT INTO run_tracker.tasks (run_id, task_id, name, service, operation, provider, model, response_model, request, response, result, finish_reason, error,
        error_detail, metadata, lifecycle)
SELECT pg_temp.run(3), pg_temp.task(30 + n), CASE WHEN n = 1 THEN :h END, :h, :h, :h, :h, :h, jsonb_build_object(:h, :h), :h, to_jsonb(:h), :h, :h, :h,
       jsonb_build_object(:h, :h), :s FROM generate_series(1, 2) n;
INSERT INTO run_tracker.messages (run_id, role, name, content, parts, metadata, task_id)
SELECT pg_temp.run(3), r.role, :h, :h, jsonb_build_array(:h, jsonb_build_object('type', :h, 'text', :h), jsonb_build_object('text', :h), jsonb_build_object(:h, :h)),
       jsonb_build_object(:h, :h), pg_temp.task(31) FROM (VALUES (:h), ('user'), ('assistant')) r (role);
INSERT INTO run_tracker.retrievals (run_id, retrieval_type, query, context, location, component_type, results, metadata)
SELECT pg_temp.run(3), :h, :h, :h, :h, :h, jsonb_build_array(:h, jsonb_build_object('title', :h, 'score', :h, 'content', :h), jsonb_build_object(:h, :h),
       jsonb_build_object('name', jsonb_build_object(:h, :h), 'similarity', jsonb_build_array(:h))), jsonb_build_object(:h, :h);
INSERT INTO run_tracker.artifacts (run_id, kind, type, name, source, source_document_id, source_document_name, chunk_type, configuration, content, content_type, url, metadata)
SELECT pg_temp.run(3), :h, :h, CASE WHEN u.n > 1 THEN :h END, :h, :h, :h, :h, jsonb_build_object(:h, :h), :h, :h, u.url || :h, jsonb_build_object(:h, :h)
FROM (VALUES (1, 'javascript:alert(1)'), (2, 'https://example.org/'), (3, 'data:text/html,'), (4, ' javascript:'), (5, E'java\tscript:'), (6, 'httpsx://'),
             (7, E'\x01https://'), (8, 'HTTP://example.org/'), (9, '//example.org/'), (10, E'x\nhttps://example.org/')) u (n, url);
INSERT INTO run_tracker.logs (run_id, level, message, category, step_name, details)
SELECT pg_temp.run(3), 'ERROR', :h, :h, :h, jsonb_build_object(:h, :h);
SELECT run_tracker.report_html(pg_temp.run(3)) AS page \gset
SELECT pg_temp.well_formed(:'page'), pg_temp.elements(:'page') AS elements;
SELECT pg_temp.attributes(:'page') AS attributes;
SELECT pg_temp.count(:'page', '<script') AS scripts, pg_temp.count(:'page', '<img') AS images, pg_temp.count(:'page', '</style>') AS styles,
       pg_temp.count(:'page', '<title>') = pg_temp.count(:'page', '</title>') AS titles, pg_temp.count(:'page', '&lt;script&gt;') > 80 AS shown,
       pg_temp.count(:'page', '&amp;amp;') > 80 AS escaped_once, :'page' ~ '[\x01-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufffe\uffff]' AS control;
-- only these are links
SELECT DISTINCT m[1] AS begins FROM regexp_matches(:'page', 'href="(.{20})', 'g') m ORDER BY 1;
-- as it failed
UPDATE run_tracker.tasks SET status = 'end</a>', error = :h WHERE run_id = pg_temp.run(3);
SELECT run_tracker.fail_run(pg_temp.run(3), :h, :h);
SELECT run_tracker.report_html(pg_temp.run(3)) AS page \gset
SELECT pg_temp.well_formed(:'page'), pg_temp.count(:'page', '<script') AS scripts, pg_temp.count(:'page', 'class="alert p-failed"') AS alerts;

-- what is escaped, and what is dropped
SELECT run_tracker.html_escape(E'& < > " \' &amp; ä € \t\n'), run_tracker.html_escape('') = '' AS empty, run_tracker.html_escape(NULL);
SELECT string_agg(to_hex(c), ' ' ORDER BY c) AS dropped FROM generate_series(1, 66000) c
WHERE c NOT BETWEEN 55296 AND 57343 AND run_tracker.html_escape(chr(c)) = '' AND c NOT BETWEEN 64976 AND 65007;
-- numbers
SELECT unit, string_agg(run_tracker.html_number(n, unit), ' | ' ORDER BY i) FROM (VALUES
    (1, 'ms', 0), (2, 'ms', 999.4), (3, 'ms', 1200), (4, 'ms', 59949), (5, 'ms', 59951), (6, 'ms', 184000), (7, 'ms', 3599501), (8, 'ms', 100000000), (9, 'ms', 1e12), (10, 'ms', -1500),
    (1, 'cost', 0), (2, 'cost', 0.00012), (3, 'cost', 0.054171), (4, 'cost', 1.5), (5, 'cost', 1234.567), (6, 'cost', 7.6e-7), (7, 'cost', 1e-30), (8, 'cost', 1e30),
    (1, 'bytes', 72), (2, 'bytes', 12345), (3, 'bytes', 16000000), (4, 'bytes', 9223372036854775807), (1, 'percent', 82.953), (2, 'percent', 100), (1, 'score', 0.93449),
    (1, NULL, 1234), (2, NULL, 1234567890), (3, NULL, 1e100), (4, NULL, 'NaN'), (5, NULL, '-Infinity'), (6, NULL, NULL), (1, 'short', 99999999), (2, 'short', 123456789012),
    (1, 'tick', 5000), (2, 'tick', 60000), (3, 'tick', 90000), (4, 'tick', 86400000 * 30.0)) v (i, unit, n)
GROUP BY unit ORDER BY unit;
SELECT string_agg(run_tracker.html_tick(n, u)::text, ' ' ORDER BY n) FROM unnest('{0.1,1,5,6,11,26,99,1000,4e6,1e40}'::numeric[]) n, (VALUES (NULL)) u (u);
SELECT string_agg(run_tracker.html_tick(n, 'ms')::text, ' ' ORDER BY n) FROM unnest('{1,18420,51000,76000,400000,3e6,1e8,1e10,1e13,1e16}'::numeric[]) n;

--
-- Long texts are cut, long lists, too
--
INSERT INTO run_tracker.runs (run_id, user_id, name, inputs) VALUES
    (pg_temp.run(4), 'alice', repeat('long ', 1000), (repeat('[', 2000) || repeat(']', 2000))::jsonb);
INSERT INTO run_tracker.messages (run_id, role, content) SELECT pg_temp.run(4), 'user', CASE WHEN n = 310 THEN repeat('ä', 30000) ELSE 'message ' || n END FROM generate_series(1, 310) n;
INSERT INTO run_tracker.tasks (run_id, name, request, response) SELECT pg_temp.run(4), 'task ' || n, jsonb_build_object('p', repeat('x', 8000)), repeat('y', 30000) FROM generate_series(1, 320) n;
INSERT INTO run_tracker.retrievals (run_id, retrieval_type, results, created_at)
SELECT pg_temp.run(4), 'retrieval ' || n, (SELECT jsonb_agg(i) FROM generate_series(1, 25) i), now() FROM generate_series(1, 330) n;
INSERT INTO run_tracker.artifacts (run_id, kind) SELECT pg_temp.run(4), 'artifact ' || n FROM generate_series(1, 340) n;
INSERT INTO run_tracker.logs (run_id, message) SELECT pg_temp.run(4), 'line ' || n FROM generate_series(1, 350) n;
SELECT run_tracker.report_html(pg_temp.run(4)) AS page \gset
SELECT pg_temp.well_formed(:'page'), length(:'page') BETWEEN 2000000 AND 6000000 AS bounded, pg_temp.count(:'page', repeat('y', 20000)) BETWEEN 20 AND 60 AS whole;
SELECT m[1], count(*) FROM regexp_matches(:'page', '<p class="cut">(.*?)</p>', 'g') m WHERE m[1] NOT LIKE '%more results%' GROUP BY 1 ORDER BY 1;
SELECT m[1], count(*) > 0 AS some FROM regexp_matches(:'page', '<span class="cut">&#8230; (.*?)</span>', 'g') m GROUP BY 1 ORDER BY 1;
SELECT pg_temp.count(:'page', '>message 10<') AS too_early, pg_temp.count(:'page', '>message 11<') AS first, pg_temp.count(:'page', '5 more results are') AS hits;
SELECT length(m[1]) FROM regexp_matches(:'page', '<title>(long [^<]*)</title>') m;

--
-- Bad input
--
CALL pg_temp.try($$SELECT run_tracker.report_html(pg_temp.run(0))$$);
CALL pg_temp.try($$SELECT run_tracker.report_html(NULL)$$);
CALL pg_temp.try($$SELECT regexp_replace(run_tracker.dashboard_html('2999-01-01 00:00:00+00'), '.', 'x', 'g')$$);
CALL pg_temp.try($$SELECT run_tracker.dashboard_html('infinity')$$);
SELECT pg_temp.well_formed(run_tracker.dashboard_html(now())), pg_temp.well_formed(run_tracker.dashboard_html('-infinity')),
       pg_temp.well_formed(run_tracker.dashboard_html('4713-01-01 BC')), pg_temp.well_formed(run_tracker.dashboard_html(NULL));

--
-- The dashboard.  Statistics outlive runs, so users of other tests may still be in them: this is about users of its own.
--
SET ROLE regress_reports_reader;
SET request.jwt.claims = '{"sub": "regress_reports_nobody"}';
SELECT run_tracker.dashboard_html() AS page \gset
SELECT pg_temp.well_formed(:'page'), pg_temp.elements(:'page'), pg_temp.count(:'page', 'Nothing yet') AS empty_charts;
SELECT m[1] AS fact, regexp_replace(m[2], '<[^>]*?>', ' ', 'g') AS value FROM regexp_matches(:'page', '<dt>(.*?)</dt><dd>(.*?)</dd>', 'g') WITH ORDINALITY m (m, n) ORDER BY n;
SELECT m[1] AS level, m[2] AS heading FROM regexp_matches(:'page', '<h([1-6])[^>]*?>(.*?)</h', 'g') WITH ORDINALITY m (m, n) ORDER BY n;
SELECT m[1] AS instead FROM regexp_matches(:'page', '<p class="none">(.*?)</p>', 'g') WITH ORDINALITY m (m, n) ORDER BY n;
RESET ROLE;
INSERT INTO run_tracker.runs (user_id, kind, name, status, created_at, started_at, finished_at, error)
SELECT u, k || ' of ' || u, 'run of ' || u, s, t, t, t + d * interval '1 s', CASE WHEN s <> 'completed' THEN 'error of ' || u END
FROM unnest('{regress_reports_a,regress_reports_b}'::text[]) u,
     (VALUES ('fast', 'completed', 1.2), ('fast', 'completed', 1.2), ('slow', 'completed', 50), ('slow', 'failed', 1), ('never', 'timeout', 60), ('never', 'cancelled', 1)) v (k, s, d),
     (SELECT date_trunc('hour', now()) - interval '5 hours' AS t) w;
INSERT INTO run_tracker.runs (run_id, user_id, status) VALUES (pg_temp.run(5), 'regress_reports_a', 'pending'), (pg_temp.run(6), 'regress_reports_a', 'running'), (pg_temp.run(7), 'regress_reports_b', 'paused');
INSERT INTO run_tracker.tasks (run_id, name, operation, provider, model, status, input_tokens, output_tokens, cost, time_to_first_token_ms, created_at, started_at, finished_at)
SELECT r.run_id, 't', 'chat', 'provider of ' || r.user_id, m.model || ' of ' || r.user_id, m.status, m.tokens, 10, m.cost, 100, t, t, t + interval '2 s'
FROM run_tracker.runs r, (VALUES ('cheap', 'completed', 1000, 0.01), ('dear', 'completed', 2000, 0.25), ('dear', 'failed', 0, 0)) m (model, status, tokens, cost),
     (SELECT date_trunc('hour', now()) - interval '5 hours' AS t) w
WHERE r.run_id IN (pg_temp.run(6), pg_temp.run(7));
SET ROLE regress_reports_reader;
SET request.jwt.claims = '{"sub": "regress_reports_a"}';
SELECT run_tracker.dashboard_html() AS page \gset
SELECT pg_temp.well_formed(:'page'), pg_temp.count(:'page', 'regress_reports_b') AS of_others, pg_temp.count(:'page', 'Nothing yet') AS empty_charts;
SELECT m[1] AS fact, regexp_replace(m[2], '<[^>]*?>', ' ', 'g') AS value FROM regexp_matches(:'page', '<dt>(.*?)</dt><dd>(.*?)</dd>', 'g') WITH ORDINALITY m (m, n) ORDER BY n;
SELECT regexp_replace(regexp_replace(regexp_replace(m[1], '<time.*?</time>', '…'), '"mono">[^<]*', '">…'), '(<[^>]*>)+', '|', 'g') AS row
FROM regexp_matches(:'page', '<tr>(<th scope="row">.*?)</tr>', 'g') WITH ORDINALITY m (m, n) ORDER BY n;
-- bars stand on each other; curves of one hour are spots
SELECT m[1] AS bar, m[2] AS height FROM regexp_matches(:'page', '<rect class="area ([^"]*)" x="[^"]*" y="[^"]*" width="[^"]*" height="([^"]*)"', 'g') m;
SELECT m[1] AS spot, m[2] AS y FROM regexp_matches(:'page', '<circle class="spot ([^"]*)" cx="[^"]*" cy="([^"]*)"', 'g') m;
SELECT regexp_replace(m[1], '.*: ', '') AS title, count(*) BETWEEN 1 AND 2 AS once FROM regexp_matches(:'page', '<title>(.{4}-.*?)</title>', 'g') m
WHERE m[1] !~ 'succeeded 0.*created 0|&#8211;' GROUP BY 1 ORDER BY 1;
-- by day, and over longer than there can be columns
SELECT pg_temp.well_formed(p), pg_temp.count(p, '>per day<') AS days, pg_temp.count(p, 'class="hit"') AS columns, pg_temp.count(p, 'Charts show the last year.') AS note
FROM run_tracker.dashboard_html(now() - interval '10 days') p UNION ALL
SELECT pg_temp.well_formed(p), pg_temp.count(p, '>per day<'), pg_temp.count(p, 'class="hit"'), pg_temp.count(p, 'Charts show the last year.') FROM run_tracker.dashboard_html('2001-01-01') p;
SELECT m[1] AS title FROM run_tracker.dashboard_html('2001-01-01 03:30:00+02') p, regexp_matches(p, '<title>(Runs.*?)</title>') m;
SELECT m[1] AS title FROM run_tracker.dashboard_html('-infinity') p, regexp_matches(p, '<h1>(.*?)</h1>') m;
RESET ROLE;

-- hostile words
INSERT INTO run_tracker.runs (run_id, user_id, kind, name, status, created_at, finished_at, error, workflow_id)
SELECT pg_temp.run(8), :h, :h, :h, 'failed', now() - interval '2 hours', now() - interval '1 hour', :h, :h;
INSERT INTO run_tracker.runs (user_id, kind, status, created_at, finished_at) SELECT :h, :h, 'completed', now() - interval '2 hours', now() - interval '1 hour';
INSERT INTO run_tracker.tasks (run_id, operation, provider, model, status, cost) SELECT pg_temp.run(8), :h, :h, :h, 'completed', 5;
SELECT set_config('request.jwt.claims', jsonb_build_object('sub', :h)::text, false) \g /dev/null
SET ROLE regress_reports_reader;
SELECT run_tracker.dashboard_html() AS page \gset
SELECT pg_temp.well_formed(:'page'), pg_temp.elements(:'page');
SELECT pg_temp.attributes(:'page') AS attributes;
SELECT pg_temp.count(:'page', '<script') AS scripts, pg_temp.count(:'page', '<img') AS images, pg_temp.count(:'page', '&lt;script&gt;') AS shown,
       :'page' ~ '[\x01-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufffe\uffff]' AS control;

--
-- Privileges
--
SET request.jwt.claims = '{"sub": "alice"}';
SELECT length(run_tracker.report_html(pg_temp.run(1))) > 10000 AS own;
CALL pg_temp.try($$SELECT run_tracker.report_html(pg_temp.run(7))$$);
SET request.jwt.claims = '{"sub": "regress_reports_b"}';
CALL pg_temp.try($$SELECT run_tracker.report_html(pg_temp.run(1))$$);
SELECT length(run_tracker.report_html(pg_temp.run(7))) > 10000 AS own;
-- sections by themselves show nothing of a run that is somebody else's
SELECT run_tracker.report_messages(pg_temp.run(1), 10), run_tracker.report_retrievals(pg_temp.run(1), 10),
       run_tracker.report_artifacts(pg_temp.run(1), 10), run_tracker.report_logs(pg_temp.run(1), now(), 10);
CALL pg_temp.try($$SELECT run_tracker.report_tasks(pg_temp.run(1), 10)$$);
CALL pg_temp.try($$SELECT run_tracker.report_timeline(pg_temp.run(1), 10)$$);
SET request.jwt.claims = '';
CALL pg_temp.try($$SELECT run_tracker.report_html(pg_temp.run(1))$$);
SELECT pg_temp.count(run_tracker.dashboard_html(), 'regress_reports') AS of_others;
SET ROLE regress_reports_service;
SELECT pg_temp.count(run_tracker.report_html(pg_temp.run(1)), 'Which policy?') > 0 AS of_alice, pg_temp.count(p, 'error of regress_reports_a') > 0 AS a,
       pg_temp.count(p, 'error of regress_reports_b') > 0 AS b FROM run_tracker.dashboard_html() p;
RESET ROLE;
CREATE ROLE regress_reports_nobody;
GRANT USAGE ON SCHEMA run_tracker TO regress_reports_nobody;
SET ROLE regress_reports_nobody;
CALL pg_temp.try($$SELECT run_tracker.report_html(pg_temp.run(1))$$);
CALL pg_temp.try($$SELECT run_tracker.dashboard_html()$$);
RESET ROLE;

DELETE FROM run_tracker.runs;
SELECT run_tracker.drop_lifecycle(name) FROM run_tracker.lifecycles WHERE name = :s;
DROP OWNED BY regress_reports_reader, regress_reports_service, regress_reports_nobody;
DROP ROLE regress_reports_reader, regress_reports_service, regress_reports_nobody;
