-- Reports: pages of HTML for people.
--
-- Markup is written so that it is well-formed XML, too, and in ASCII, whatever the encoding of the server is.  Everything
-- that comes from a table goes through html_escape(): names of functions say which ones do it, and return HTML.

CREATE FUNCTION run_tracker.html_escape(value text) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
    -- HTML and XML have no place for control characters; beyond ASCII, other encodings have letters there
    SELECT replace(replace(replace(replace(replace(regexp_replace(value,
               CASE WHEN getdatabaseencoding() = 'UTF8'
                    THEN E'[\\x01-\\x08\\x0b\\x0c\\x0e-\\x1f\\x7f-\\x9f\\ufdd0-\\ufdef\\ufffe\\uffff]'
                    ELSE E'[\\x01-\\x08\\x0b\\x0c\\x0e-\\x1f\\x7f]' END, '', 'g'),
               '&', '&amp;'), '<', '&lt;'), '>', '&gt;'), '"', '&quot;'), '''', '&#39;')
$$;
COMMENT ON FUNCTION run_tracker.html_escape(text) IS
'A text as it can stand in HTML and XML, between tags and in quoted attributes: & < > " and '' are escaped, control characters that have no place there are dropped.';

CREATE FUNCTION run_tracker.html_number(value numeric, unit text DEFAULT NULL) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE
        WHEN value IS NULL THEN '&#8211;'
        WHEN value IN ('NaN', 'Infinity', '-Infinity') OR abs(value) >= 1e21 THEN
            CASE WHEN abs(value) < 'Infinity' THEN btrim(to_char(value, '9.99EEEE')) ELSE '&#8211;' END
        WHEN unit = 'ms' THEN CASE
            WHEN value < 0 THEN '-' || run_tracker.html_number(-value, unit)
            WHEN value < 999.5 THEN to_char(value, 'FM990') || ' ms'
            WHEN value < 59950 THEN to_char(value / 1000, 'FM90.0') || ' s'
            WHEN value < 3599500 THEN format('%s min %s s', div(round(value / 1000), 60), round(value / 1000) % 60)
            WHEN value < 172770000 THEN format('%s h %s min', div(round(value / 60000), 60), round(value / 60000) % 60)
            ELSE format('%s d %s h', to_char(div(round(value / 3600000), 24), 'FM999,999,999,999,999,990'),
                        round(value / 3600000) % 24) END
        WHEN unit = 'cost' THEN CASE
            WHEN value >= 100 OR value = 0 THEN to_char(value, 'FM999,999,999,999,999,999,990.00')
            WHEN value >= 1 THEN to_char(value, 'FM90.00##')
            WHEN value >= 0.0001 THEN to_char(value, 'FM0.00####')
            WHEN value >= 0.00000000001 THEN trim_scale(round(value, 12))::text
            ELSE '&lt; 0.00000000001' END
        WHEN unit = 'bytes' THEN CASE
            WHEN value < 1000 THEN to_char(value, 'FM990') || ' B'
            WHEN value < 999500 THEN to_char(value / 1000, 'FM990.0') || ' kB'
            WHEN value < 999500000 THEN to_char(value / 1000000, 'FM990.0') || ' MB'
            ELSE to_char(value / 1000000000, 'FM999,999,999,990.0') || ' GB' END
        WHEN unit = '%' THEN to_char(value, 'FM990.0#') || ' %'
        WHEN unit = 'score' THEN to_char(value, 'FM999,999,999,999,999,999,990.000')
        ELSE to_char(value, 'FM999,999,999,999,999,999,990') END
$$;
COMMENT ON FUNCTION run_tracker.html_number(numeric, text) IS
'What reports use: a number with separators; unit is ms (1.2 s, 3 min 4 s), cost, bytes, %, score or null for a count.';

CREATE FUNCTION run_tracker.html_text(value text, max_length integer DEFAULT 20000) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT run_tracker.html_escape(left(value, max_length))
           || CASE WHEN length(value) > max_length
                   THEN format('<span class="cut">&#8230; %s more characters</span>',
                               run_tracker.html_number(length(value) - max_length)) ELSE '' END
$$;
COMMENT ON FUNCTION run_tracker.html_text(text, integer) IS
'What reports use: a text, escaped; of a long one the beginning, and how much is left out.';

CREATE FUNCTION run_tracker.html_time(moment timestamptz) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE WHEN isfinite(moment)
                THEN format('<time datetime="%sZ">%s UTC</time>', to_char(moment AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS'),
                            to_char(moment AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS')) ELSE '&#8211;' END
$$;
COMMENT ON FUNCTION run_tracker.html_time(timestamptz) IS 'What reports use: a time, in UTC.';

CREATE FUNCTION run_tracker.html_phase(phase text) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE WHEN phase IN ('queued', 'active', 'waiting', 'succeeded', 'failed', 'cancelled', 'timed_out')
                THEN 'p-' || phase ELSE 'p-none' END
$$;
COMMENT ON FUNCTION run_tracker.html_phase(text) IS 'What reports use: the class that gives a phase its colour.';

CREATE FUNCTION run_tracker.html_badge(status text, phase text) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT format('<span class="badge %s">%s</span>', run_tracker.html_phase(phase), run_tracker.html_text(status, 60))
$$;
COMMENT ON FUNCTION run_tracker.html_badge(text, text) IS 'What reports use: a status in the colour of its phase.';

CREATE FUNCTION run_tracker.html_fact(label text, value text, note text DEFAULT NULL) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT format('<div><dt>%s</dt><dd>%s%s</dd></div>', label, value, '<small>' || note || '</small>')
    WHERE value <> ''
$$;
COMMENT ON FUNCTION run_tracker.html_fact(text, text, text) IS
'What reports use: an item of a list of facts, or null if there is no value. Arguments are HTML.';

CREATE FUNCTION run_tracker.html_details(label text, value text, max_length integer DEFAULT 20000, opened boolean DEFAULT false)
RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT format('<details%s><summary>%s</summary><pre dir="auto">%s</pre></details>',
                  CASE WHEN opened THEN ' open="open"' ELSE '' END, label, run_tracker.html_text(value, max_length))
    WHERE value <> ''
$$;
COMMENT ON FUNCTION run_tracker.html_details(text, text, integer, boolean) IS
'What reports use: a text to fold out, escaped, or null if there is none. The label is HTML.';

CREATE FUNCTION run_tracker.html_json(label text, value jsonb, max_length integer DEFAULT 20000, opened boolean DEFAULT false)
RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE
        WHEN value IS NULL THEN NULL
        -- as it is stored: what is too long to be shown is not even read
        WHEN pg_column_size(value) > 50 * max_length::bigint THEN
            format('<p class="cut">%s: %s, too long for this page</p>', label,
                   run_tracker.html_number(pg_column_size(value), 'bytes'))
        WHEN value IN ('null', '{}', '[]') THEN NULL
        ELSE run_tracker.html_details(label, CASE jsonb_typeof(value) WHEN 'string' THEN value #>> '{}'
                                                  ELSE jsonb_pretty(value) END, max_length, opened) END
$$;
COMMENT ON FUNCTION run_tracker.html_json(text, jsonb, integer, boolean) IS
'What reports use: JSON to fold out, escaped, or null if there is none. The label is HTML.';

CREATE FUNCTION run_tracker.html_style() RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $function$ SELECT $css$
:root { color-scheme: light dark;
  --page: #f4f5f7; --card: #ffffff; --soft: #f7f8fa; --line: #e3e6eb; --text: #1b2130; --muted: #5d6678; --accent: #2b5fc7;
  --queued: #8b95a7; --active: #2f6fdd; --waiting: #c98a10; --succeeded: #23955c; --failed: #d0433b; --cancelled: #a3a9b5;
  --timed-out: #d9722a; --retrieval: #7c5cd0;
  --on-queued: #4c5567; --on-active: #1d4fae; --on-waiting: #7d5300; --on-succeeded: #146b40; --on-failed: #a52822;
  --on-cancelled: #555d6c; --on-timed-out: #96480e; --tint: 14%; --bubble: #e6eefb; }
@media screen and (prefers-color-scheme: dark) { :root {
  --page: #0f1218; --card: #171b23; --soft: #1d222c; --line: #2b313d; --text: #e5e8ee; --muted: #99a3b5; --accent: #7da7f5;
  --queued: #7c879b; --active: #5b93f5; --waiting: #d9a132; --succeeded: #3fb679; --failed: #ec6a61; --cancelled: #6d7686;
  --timed-out: #ea8c4a; --retrieval: #a58bf0;
  --on-queued: #b9c2d2; --on-active: #9cc0ff; --on-waiting: #f0c56b; --on-succeeded: #7fdcab; --on-failed: #ff9e97;
  --on-cancelled: #b4bcca; --on-timed-out: #ffb482; --tint: 20%; --bubble: #1c2a42; } }
.p-queued { --c: var(--queued); --t: var(--on-queued); } .p-active { --c: var(--active); --t: var(--on-active); }
.p-waiting { --c: var(--waiting); --t: var(--on-waiting); } .p-succeeded { --c: var(--succeeded); --t: var(--on-succeeded); }
.p-failed { --c: var(--failed); --t: var(--on-failed); } .p-cancelled { --c: var(--cancelled); --t: var(--on-cancelled); }
.p-timed_out { --c: var(--timed-out); --t: var(--on-timed-out); } .p-none { --c: var(--queued); --t: var(--on-queued); }
.p-retrieval { --c: var(--retrieval); --t: var(--retrieval); } .p-created { --c: var(--muted); --t: var(--muted); }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; text-size-adjust: 100%; }
body { margin: 0; background: var(--page); color: var(--text); line-height: 1.5; font-size: 15px;
  font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "DejaVu Sans", sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 28px 24px 40px; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0; font-weight: 650; letter-spacing: -0.01em; overflow-wrap: anywhere; }
h2 { font-size: 1.05rem; margin: 0 0 14px; font-weight: 650; }
h2 small { font-weight: 400; color: var(--muted); font-size: 0.85rem; margin-inline-start: 6px; }
h3 { font-size: 0.95rem; margin: 0; font-weight: 600; overflow-wrap: anywhere; }
p { margin: 0; } small { font-size: 0.8rem; }
a { color: var(--accent); overflow-wrap: anywhere; }
time { white-space: nowrap; }
pre, code, .mono { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; font-size: 0.8rem; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; margin: 0; }
.sr { position: absolute; width: 1px; height: 1px; margin: -1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
.muted, .cut, .none { color: var(--muted); } .cut { font-style: italic; font-size: 0.85rem; } .none { padding: 6px 0; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 20px 22px; margin: 0 0 18px; }
.eyebrow { color: var(--muted); font-size: 0.85rem; margin-bottom: 4px; overflow-wrap: anywhere; }
.title { display: flex; flex-wrap: wrap; align-items: center; gap: 8px 14px; }
.badge { display: inline-block; max-width: 100%; border-radius: 999px; padding: 1px 10px; font-size: 0.8rem; font-weight: 600;
  line-height: 1.5; overflow-wrap: anywhere; color: var(--t); background: color-mix(in srgb, var(--c) var(--tint), transparent); }
.badge::before { content: ""; display: inline-block; width: 7px; height: 7px; border-radius: 50%; background: var(--c);
  margin-inline-end: 6px; vertical-align: 1px; }
.facts { display: grid; grid-template-columns: repeat(auto-fill, minmax(210px, 1fr)); gap: 12px 24px; margin: 18px 0 0; }
.facts dt, .tiles dt { color: var(--muted); font-size: 0.8rem; } .facts dd { margin: 0; overflow-wrap: anywhere; }
.facts dd small { display: block; color: var(--muted); }
.progress { height: 6px; border-radius: 3px; background: var(--line); margin-top: 16px; overflow: hidden; }
.progress span { display: block; height: 100%; background: var(--c); }
.alert { margin-top: 18px; padding: 12px 16px; border-radius: 8px; border-inline-start: 4px solid var(--c);
  background: color-mix(in srgb, var(--c) 9%, transparent); overflow-wrap: anywhere; }
.alert p { white-space: pre-wrap; } .alert strong { color: var(--t); }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(118px, 1fr)); gap: 12px; margin: 0 0 18px; }
.tiles div { background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 12px 16px 14px; min-width: 0; }
.tiles dd { margin: 2px 0 0; font-size: 1.3rem; font-weight: 650; line-height: 1.3; font-variant-numeric: tabular-nums;
  overflow-wrap: anywhere; }
.tiles dd small { display: block; font-size: 0.8rem; font-weight: 400; color: var(--muted); line-height: 1.35; }
table { width: 100%; border-collapse: collapse; }
th { text-align: start; font-weight: 600; } thead th { color: var(--muted); font-size: 0.8rem; font-weight: 500; }
th, td { padding: 8px 10px; vertical-align: top; border-bottom: 1px solid var(--line); overflow-wrap: anywhere; }
tr:last-child > td, tr:last-child > th { border-bottom: 0; }
th:first-child, td:first-child { padding-inline-start: 0; } th:last-child, td:last-child { padding-inline-end: 0; }
tbody th small, td small { display: block; font-weight: 400; color: var(--muted); }
.num { text-align: end; font-variant-numeric: tabular-nums; white-space: nowrap; }
tr.with > td, tr.with > th { border-bottom: 0; padding-bottom: 2px; } tr.more > td { padding-top: 0; }
.error { color: var(--on-failed); white-space: pre-wrap; font-size: 0.88rem; margin: 2px 0; }
details { margin-top: 4px; } summary { cursor: pointer; color: var(--muted); font-size: 0.85rem; width: fit-content; }
summary:hover { color: var(--text); }
details pre { background: var(--soft); border: 1px solid var(--line); border-radius: 8px; padding: 10px 12px; margin: 6px 0;
  max-height: 480px; overflow: auto; }
svg { display: block; } svg text { font-size: 11px; fill: var(--muted); font-family: inherit; font-variant-numeric: tabular-nums; }
.flow { table-layout: fixed; } .flow th, .flow td { padding-top: 4px; padding-bottom: 4px; border-bottom: 0; vertical-align: middle; }
.flow th:first-child { width: 34%; } .flow .num { width: 96px; font-size: 0.88rem; color: var(--muted); }
.flow tbody th { font-weight: 400; font-size: 0.9rem; line-height: 1.35; }
.flow tbody tr.state th { font-weight: 600; } .flow tbody tr.retrieval th { color: var(--retrieval); }
.flow tbody + tbody td, .flow tbody + tbody th { border: 0; }
.flow tbody + tbody tr:first-child > * { border-top: 1px solid var(--line); padding-top: 8px; }
.flow tbody:not(:last-child) tr:last-child > * { padding-bottom: 8px; }
.flow .bars { padding-inline: 0; background: var(--grid); } .flow thead .bars { background: none; }
.flow svg { width: 100%; height: 18px; overflow: visible; }
.bar { fill: var(--c); } .state .bar { fill-opacity: 0.6; }
.legend { display: flex; flex-wrap: wrap; gap: 4px 16px; list-style: none; margin: 14px 0 0; padding: 0; font-size: 0.8rem;
  color: var(--muted); }
.legend li::before { content: ""; display: inline-block; width: 10px; height: 10px; border-radius: 3px; background: var(--c);
  margin-inline-end: 6px; vertical-align: -1px; }
.talk { list-style: none; margin: 0; padding: 0; display: flex; flex-direction: column; gap: 12px; align-items: flex-start; }
.talk li { max-width: min(720px, 88%); border: 1px solid var(--line); border-radius: 14px; border-start-start-radius: 4px;
  padding: 9px 14px 11px; background: var(--soft); min-width: 0; }
.talk .m-user { align-self: flex-end; background: var(--bubble); border-color: transparent; border-radius: 14px;
  border-start-end-radius: 4px; }
.talk .m-system { align-self: center; background: none; border-style: dashed; border-radius: 14px; font-size: 0.9rem;
  color: var(--muted); }
.talk .m-tool { background: none; } .talk .m-tool .said { font-family: ui-monospace, "DejaVu Sans Mono", monospace; font-size: 0.8rem; }
.who { font-size: 0.8rem; color: var(--muted); display: flex; flex-wrap: wrap; gap: 0 8px; } .who strong { color: var(--text); }
.said { white-space: pre-wrap; overflow-wrap: anywhere; } .said + .said { margin-top: 6px; }
.meta { font-size: 0.8rem; color: var(--muted); overflow-wrap: anywhere; } .said + .meta { margin-top: 4px; }
.found { border-top: 1px solid var(--line); padding: 14px 0 4px; } .found:first-of-type { border-top: 0; padding-top: 0; }
.found ol { list-style: none; margin: 8px 0 0; padding: 0; }
.found li { display: grid; grid-template-columns: 2ch minmax(0, 1fr) 132px; gap: 0 12px; padding: 5px 0; align-items: baseline; }
.found li > span:first-child { color: var(--muted); font-size: 0.85rem; text-align: end; }
.found .what { overflow-wrap: anywhere; } .found .what small { display: block; color: var(--muted); white-space: pre-wrap; }
.score { display: flex; align-items: center; gap: 8px; font-variant-numeric: tabular-nums; font-size: 0.85rem;
  justify-content: flex-end; overflow-wrap: anywhere; }
.meter { flex: 1; height: 6px; min-width: 30px; border-radius: 3px; background: var(--line); overflow: hidden; }
.meter span { display: block; height: 100%; background: var(--c); border-radius: 3px; }
.level { font-size: 0.75rem; font-weight: 600; letter-spacing: 0.02em; color: var(--t); }
.message { white-space: pre-wrap; }
.pair { display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 18px; } .pair .card { min-width: 0; }
.chart { position: relative; } .chart > svg { width: 100%; height: 230px; padding: 10px 4px 24px 52px; overflow: visible; }
.chart .grid { stroke: var(--line); stroke-width: 1; } .chart .area { fill: var(--c); }
.chart .curve { fill: none; stroke: var(--c); stroke-width: 2; vector-effect: non-scaling-stroke; stroke-linejoin: round; }
.chart .hit { fill: transparent; } .chart .hit:hover { fill: var(--text); fill-opacity: 0.06; }
.chart .none { position: absolute; inset: 0 0 24px 52px; display: flex; align-items: center; justify-content: center; }
footer { color: var(--muted); font-size: 0.8rem; text-align: center; margin-top: 26px; }
@media (max-width: 900px) { .pair { grid-template-columns: minmax(0, 1fr); gap: 0; } }
@media (max-width: 640px) {
  main { padding: 14px 12px 28px; } .card { padding: 16px; border-radius: 10px; margin-bottom: 12px; } h1 { font-size: 1.3rem; }
  .tiles { grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 10px; margin-bottom: 12px; } .tiles div { padding: 10px 14px 12px; }
  .facts { grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 10px 16px; } .facts .wide { grid-column: 1 / -1; }
  .flow tr { display: grid; grid-template-columns: minmax(0, 1fr) auto; } .flow th:first-child { width: auto; }
  .flow .num { width: auto; grid-column: 2; grid-row: 1; padding-inline-end: 0; } .flow .bars { grid-column: 1 / -1; grid-row: 2; }
  .flow tbody th, .flow tbody .num { padding-bottom: 0; } .flow thead tr > :first-child, .flow thead .num { display: none; }
  .stack thead { position: absolute; clip-path: inset(50%); width: 1px; height: 1px; overflow: hidden; }
  .stack tr { display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 4px 12px; padding: 10px 0;
    border-bottom: 1px solid var(--line); } .stack tr:last-child { border-bottom: 0; }
  .stack tr.with { border-bottom: 0; padding-bottom: 2px; } .stack tr.more { padding-top: 0; }
  .stack th, .stack td, .stack tr.with > td, .stack tr.with > th { border: 0; padding: 0; text-align: start; white-space: normal; }
  .stack tbody th, .stack tr.more td, .stack .wide { grid-column: 1 / -1; }
  .stack td[data-label]::before { content: attr(data-label); display: block; color: var(--muted); font-size: 0.75rem; }
  .talk li { max-width: 94%; } .found li { grid-template-columns: 2ch minmax(0, 1fr); } .found .score { grid-column: 2; }
  .chart > svg { height: 200px; } }
@media print {
  :root { --page: #ffffff; } body { font-size: 12px; } main { max-width: none; padding: 0; }
  .card, .tiles div { border-color: #cccccc; } .card { padding: 12px 14px; }
  tr, .talk li, .found li, .tiles div, .chart { break-inside: avoid; } h2, h3 { break-after: avoid; }
  details pre { max-height: none; } details::details-content { content-visibility: visible; display: block; }
  * { -webkit-print-color-adjust: exact; print-color-adjust: exact; } }
$css$ $function$;
COMMENT ON FUNCTION run_tracker.html_style() IS 'What reports use: their style sheet.';

CREATE FUNCTION run_tracker.html_page(title text, body text) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $function$
    SELECT format($page$<!DOCTYPE html>
<html xmlns="http://www.w3.org/1999/xhtml" lang="en" xml:lang="en">
<head>
<meta charset="utf-8" />
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:" />
<meta name="viewport" content="width=device-width, initial-scale=1" />
<meta name="color-scheme" content="light dark" />
<meta name="referrer" content="no-referrer" />
<meta name="robots" content="noindex" />
<title>%s</title>
<style>%s</style>
</head>
<body>
<main>
%s
<footer>run_tracker %s &#183; %s</footer>
</main>
</body>
</html>
$page$, run_tracker.html_text(title, 200), run_tracker.html_style(), body, run_tracker.tracker_version(),
        run_tracker.html_time(clock_timestamp()))
$function$;
COMMENT ON FUNCTION run_tracker.html_page(text, text) IS
'What reports use: a page without scripts and without anything from elsewhere. The title is text, the body is HTML.';
