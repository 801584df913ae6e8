-- Reports: pages of HTML for people.
--
-- The markup is well-formed XML, too, and in ASCII, whatever the encoding of the server is.  What comes from tables goes
-- through html_escape(), html_text() or a function that calls them, and nowhere else into a page.

CREATE FUNCTION run_tracker.html_escape(value text) RETURNS text
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    -- HTML and XML have no place for control characters; beyond ASCII, other encodings have letters there
    RETURN replace(replace(replace(replace(replace(regexp_replace(value,
        CASE WHEN getdatabaseencoding() = 'UTF8'
             THEN E'[\\x01-\\x08\\x0b\\x0c\\x0e-\\x1f\\x7f-\\x9f\\ufdd0-\\ufdef\\ufffe\\uffff]'
             ELSE E'[\\x01-\\x08\\x0b\\x0c\\x0e-\\x1f\\x7f]' END, '', 'g'),
        '&', '&amp;'), '<', '&lt;'), '>', '&gt;'), '"', '&quot;'), '''', '&#39;');
END
$$;
COMMENT ON FUNCTION run_tracker.html_escape(text) IS
'A text as it can stand in HTML and XML, between tags and in quoted attributes: & < > " and '' are escaped, control characters that have no place there are dropped.';

CREATE FUNCTION run_tracker.html_number(value numeric, unit text DEFAULT NULL) RETURNS text
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF value IS NULL OR value = 'NaN' OR abs(value) = 'Infinity' THEN
        RETURN '&#8211;';
    ELSIF abs(value) >= 1e21 THEN
        RETURN btrim(to_char(value, '9.99EEEE'));
    ELSIF unit = 'ms' THEN
        RETURN CASE
            WHEN value < 0 THEN '-' || run_tracker.html_number(-value, unit)
            WHEN value < 999.5 THEN to_char(value, 'FM990') || ' ms'
            WHEN value < 59950 THEN to_char(value / 1000, 'FM90.0') || ' s'
            WHEN value < 3599500 THEN format('%s min %s s', div(round(value / 1000), 60), round(value / 1000) % 60)
            WHEN value < 172770000 THEN format('%s h %s min', div(round(value / 60000), 60), round(value / 60000) % 60)
            ELSE format('%s d %s h', to_char(div(round(value / 3600000), 24), 'FM999,999,999,999,999,990'),
                        round(value / 3600000) % 24) END;
    ELSIF unit = 'tick' THEN
        RETURN regexp_replace(run_tracker.html_number(value, 'ms'), '[.]0(?= )| 0 [a-z]+$', '');
    ELSIF unit = 'cost' THEN
        RETURN CASE
            WHEN value >= 100 OR value <= 0 THEN to_char(value, 'FM999,999,999,999,999,999,990.00')
            WHEN value >= 1 THEN to_char(value, 'FM90.0099')
            WHEN value >= 0.0001 THEN to_char(value, 'FM0.009999')
            WHEN value >= 0.00000000001 THEN trim_scale(round(value, 12))::text
            ELSE '&lt; 0.00000000001' END;
    ELSIF unit = 'percent' THEN
        RETURN to_char(value, 'FM990.09') || ' %';
    ELSIF unit = 'score' THEN
        RETURN to_char(value, 'FM999,999,999,999,999,999,990.000');
    ELSIF unit = 'bytes' THEN
        RETURN CASE
            WHEN value < 1000 THEN to_char(value, 'FM990') || ' B'
            WHEN value < 999950 THEN to_char(value / 1000, 'FM990.0') || ' kB'
            WHEN value < 999950000 THEN to_char(value / 1000000, 'FM990.0') || ' MB'
            ELSE to_char(value / 1000000000, 'FM999,999,999,990.0') || ' GB' END;
    ELSIF unit = 'short' AND value >= 100000000 THEN
        RETURN CASE
            WHEN value < 999950000 THEN to_char(value / 1000000, 'FM990.0') || ' million'
            ELSE to_char(value / 1000000000, 'FM999,999,999,990.0') || ' billion' END;
    END IF;
    RETURN to_char(value, 'FM999,999,999,999,999,999,990');
END
$$;
COMMENT ON FUNCTION run_tracker.html_number(numeric, text) IS
'What reports use: a number with separators. unit is ms (1.2 s, 3 min 4 s), tick (ms without what is zero), cost, percent, score, bytes, short (millions, where there is little space), or null for a count.';

CREATE FUNCTION run_tracker.html_text(value text, max_length integer DEFAULT 20000) RETURNS text
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    shown text := left(value, max_length);
    -- in bytes, which are known without reading all of a long text
    hidden bigint := octet_length(value) - octet_length(shown);
BEGIN
    RETURN run_tracker.html_escape(shown)
           || CASE WHEN hidden > 0 THEN format('<span class="cut">&#8230; %s more</span>', run_tracker.html_number(hidden, 'bytes'))
                   ELSE '' END;
END
$$;
COMMENT ON FUNCTION run_tracker.html_text(text, integer) IS
'What reports use: a text, escaped; of a long one so many characters, and how much is left out.';

CREATE FUNCTION run_tracker.html_time(moment timestamptz) RETURNS text
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN CASE WHEN isfinite(moment) THEN
        format('<time datetime="%sZ">%s UTC</time>', to_char(moment AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS'),
               to_char(moment AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS')) ELSE '&#8211;' END;
END
$$;
COMMENT ON FUNCTION run_tracker.html_time(timestamptz) IS 'What reports use: a time, in UTC.';

CREATE FUNCTION run_tracker.html_phase(phase text) RETURNS text
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN CASE WHEN phase IN ('queued', 'active', 'waiting', 'succeeded', 'failed', 'cancelled', 'timed_out')
                THEN 'p-' || phase ELSE 'p-none' END;
END
$$;
COMMENT ON FUNCTION run_tracker.html_phase(text) IS 'What reports use: the class that gives a phase its colour.';

CREATE FUNCTION run_tracker.html_badge(status text, phase text) RETURNS text
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN format('<span class="badge %s">%s</span>', run_tracker.html_phase(phase), run_tracker.html_text(status, 60));
END
$$;
COMMENT ON FUNCTION run_tracker.html_badge(text, text) IS 'What reports use: a status in the colour of its phase.';

CREATE FUNCTION run_tracker.html_line(VARIADIC items text[]) RETURNS text
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN NULLIF((SELECT string_agg(run_tracker.html_text(i.item, 200), ' &#183; ' ORDER BY i.n)
                   FROM unnest(items) WITH ORDINALITY i (item, n) WHERE i.item <> ''), '');
END
$$;
COMMENT ON FUNCTION run_tracker.html_line(text[]) IS
'What reports use: several short texts in a line, escaped, or null if there are none.';

CREATE FUNCTION run_tracker.html_cell(label text, value numeric, unit text DEFAULT NULL, note text DEFAULT NULL) RETURNS text
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN format('<td class="num%s" data-label="%s">%s%s</td>', CASE WHEN value IS NULL THEN ' nil' ELSE '' END, label,
                  run_tracker.html_number(value, unit), '<small>' || note || '</small>');
END
$$;
COMMENT ON FUNCTION run_tracker.html_cell(text, numeric, text, text) IS
'What reports use: a cell of a table with a number. Label and note are HTML.';

CREATE FUNCTION run_tracker.html_meter(percent numeric) RETURNS text
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN CASE WHEN percent < 'Infinity' THEN
        format('<span class="meter"><span style="width: %s%%"></span></span>', LEAST(100, GREATEST(0, round(percent, 1)))) END;
END
$$;
COMMENT ON FUNCTION run_tracker.html_meter(numeric) IS 'What reports use: a bar of that length, or null if there is no number.';

CREATE FUNCTION run_tracker.html_tick(span numeric, unit text DEFAULT NULL) RETURNS numeric
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    -- from seconds on, what is round in minutes, hours, days and years
    round_ms constant numeric[] := '{15e3,30e3,60e3,120e3,300e3,600e3,900e3,1800e3,3600e3,7200e3,10800e3,21600e3,43200e3,864e5,
        1728e5,432e6,864e6,2592e6,7776e6,31536e6}';
    power numeric := 1;
    tick numeric;
BEGIN
    WHILE power <= CASE unit WHEN 'ms' THEN 1000 ELSE 1e30 END LOOP
        FOREACH tick IN ARRAY ARRAY[power, 2 * power, 5 * power] LOOP
            IF tick * 5 >= span THEN
                RETURN tick;
            END IF;
        END LOOP;
        power := power * 10;
    END LOOP;
    FOREACH tick IN ARRAY ARRAY[10000] || round_ms LOOP
        IF tick * 5 >= span THEN
            RETURN tick;
        END IF;
    END LOOP;
    RETURN ceil(span / 5);
END
$$;
COMMENT ON FUNCTION run_tracker.html_tick(numeric, text) IS
'What reports use: a round number, or length of time in ms, that spans an axis in at most five steps.';

CREATE FUNCTION run_tracker.html_fact(label text, value text, note text DEFAULT NULL, class text DEFAULT NULL) RETURNS text
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN CASE WHEN value <> '' THEN
        format('<div%s><dt>%s</dt><dd>%s%s</dd></div>', ' class="' || class || '"', label, value,
               '<small>' || NULLIF(note, '') || '</small>') END;
END
$$;
COMMENT ON FUNCTION run_tracker.html_fact(text, text, text, text) IS
'What reports use: an item of a list of facts, or null if there is no value. Arguments are HTML.';

CREATE FUNCTION run_tracker.html_details(label text, value text, max_length integer DEFAULT 20000, opened boolean DEFAULT false)
RETURNS text
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN CASE WHEN value <> '' THEN
        format('<details%s><summary>%s</summary><pre dir="auto">%s</pre></details>',
               CASE WHEN opened THEN ' open="open"' ELSE '' END, label, run_tracker.html_text(value, max_length)) END;
END
$$;
COMMENT ON FUNCTION run_tracker.html_details(text, text, integer, boolean) IS
'What reports use: a text to fold out, escaped, or null if there is none. The label is HTML.';

CREATE FUNCTION run_tracker.html_json(label text, value jsonb, max_length integer DEFAULT 20000, opened boolean DEFAULT false)
RETURNS text
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    shown text;
BEGIN
    -- its size as it is stored: what is too long to be shown is not even read
    IF pg_column_size(value) > 50 * max_length::bigint THEN
        RETURN format('<p class="cut">%s: %s, too long for this page</p>', label,
                      run_tracker.html_number(pg_column_size(value), 'bytes'));
    END IF;
    shown := CASE jsonb_typeof(value) WHEN 'string' THEN value #>> '{}' ELSE value::text END;
    IF shown IN ('null', '{}', '[]') THEN
        RETURN NULL;
    -- the margins of what is nested deeply would be longer than all the rest
    ELSIF length(shown) <= 10 * max_length AND length(shown) - length(translate(shown, '{[', '')) <= 1000
          AND jsonb_typeof(value) <> 'string' THEN
        shown := jsonb_pretty(value);
    END IF;
    RETURN run_tracker.html_details(label, shown, max_length, opened);
END
$$;
COMMENT ON FUNCTION run_tracker.html_json(text, jsonb, integer, boolean) IS
'What reports use: JSON to fold out, escaped, or null if there is none. The label is HTML.';

CREATE FUNCTION run_tracker.html_section(title text, body text, note text DEFAULT NULL) RETURNS text
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN CASE WHEN body <> '' THEN
        format(E'<section class="card"><h2>%s%s</h2>\n%s</section>', title, '<small>' || NULLIF(note, '') || '</small>', body) END;
END
$$;
COMMENT ON FUNCTION run_tracker.html_section(text, text, text) IS
'What reports use: a section, or null if there is nothing in it. Arguments are HTML.';

CREATE FUNCTION run_tracker.html_more(total bigint, shown bigint, what text) RETURNS text
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN CASE WHEN total > shown THEN
        format('<p class="cut">%s %s not shown here.</p>', run_tracker.html_number(total - shown), what) END;
END
$$;
COMMENT ON FUNCTION run_tracker.html_more(bigint, bigint, text) IS
'What reports use: how much of a list is left out, or null if nothing is.';

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
body { margin: 0; background: var(--page); color: var(--text); line-height: 1.5; font-size: 0.9375rem;
  font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "DejaVu Sans", sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 28px 24px 40px; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0; font-weight: 650; letter-spacing: -0.01em; overflow-wrap: anywhere; }
h2 { font-size: 1.05rem; margin: 0 0 14px; font-weight: 650; }
h2 small { font-weight: 400; color: var(--muted); font-size: 0.85rem; margin-inline-start: 6px; }
h3 { font-size: 0.95rem; margin: 0; font-weight: 600; overflow-wrap: anywhere; }
p { margin: 0; } small { font-size: 0.8rem; }
a { color: var(--accent); overflow-wrap: anywhere; }
.facts time { font-variant-numeric: tabular-nums; }
pre, code, .mono { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace;
  font-size: 0.8rem; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; margin: 0; }
.sr { position: absolute; width: 1px; height: 1px; margin: -1px; overflow: hidden; clip-path: inset(50%);
  white-space: nowrap; }
.muted, .cut, .none { color: var(--muted); } .cut { font-style: italic; font-size: 0.85rem; } .none { padding: 6px 0; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 20px 22px; margin: 0 0 18px; }
.eyebrow { color: var(--muted); font-size: 0.85rem; margin-bottom: 4px; overflow-wrap: anywhere; }
.title { display: flex; flex-wrap: wrap; align-items: center; gap: 8px 14px; }
.badge { display: inline-block; max-width: 100%; border-radius: 999px; padding: 1px 10px; font-size: 0.8rem;
  font-weight: 600;
  line-height: 1.5; overflow-wrap: break-word; color: var(--t);
    background: color-mix(in srgb, var(--c) var(--tint), transparent); }
.badge::before { content: ""; display: inline-block; width: 7px; height: 7px; border-radius: 50%; background: var(--c);
  margin-inline-end: 6px; vertical-align: 1px; }
.facts { display: grid; grid-template-columns: repeat(auto-fill, minmax(210px, 1fr)); gap: 12px 24px; margin: 18px 0 0; }
.facts dt, .tiles dt { color: var(--muted); font-size: 0.8rem; } .facts dd { margin: 0; overflow-wrap: anywhere; }
.facts .wide { grid-column: span 2; } .facts dd small { display: block; color: var(--muted); }
.progress { height: 6px; border-radius: 3px; background: var(--line); margin-top: 16px; overflow: hidden; }
.progress span { display: block; height: 100%; background: var(--c); }
.alert { margin-top: 18px; padding: 12px 16px; border-radius: 8px; border-inline-start: 4px solid var(--c);
  background: color-mix(in srgb, var(--c) 9%, transparent); overflow-wrap: anywhere; }
.alert p { white-space: pre-wrap; } .alert strong { color: var(--t); }
.tiles { display: grid; grid-template-columns: repeat(4, minmax(0, 1fr)); gap: 12px; margin: 0 0 18px; }
.tiles div { background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 12px 18px; min-width: 0; }
.seven { grid-template-columns: repeat(7, minmax(0, 1fr)); } .six { grid-template-columns: repeat(6, minmax(0, 1fr)); }
.seven div, .six div { padding: 12px 14px; } .six dd { font-size: 1.2rem; }
.tiles [class^="p-"] dt::before { content: ""; display: inline-block; width: 8px; height: 8px; border-radius: 50%;
  background: var(--c);
  margin-inline-end: 6px; vertical-align: 1px; }
.tiles dd { margin: 0; font-size: 1.3rem; font-weight: 650; line-height: 1.3; font-variant-numeric: tabular-nums;
  overflow-wrap: anywhere; }
.tiles dd small { display: block; font-size: 0.8rem; font-weight: 400; color: var(--muted); line-height: 1.35; }
table { width: 100%; border-collapse: collapse; }
th { text-align: start; font-weight: 600; } thead th { color: var(--muted); font-size: 0.8rem; font-weight: 500;
  white-space: nowrap; }
th, td { padding: 8px 10px; vertical-align: top; border-bottom: 1px solid var(--line); overflow-wrap: anywhere; }
tbody tr:last-child > td, tbody tr:last-child > th { border-bottom: 0; }
th:first-child, td:first-child { padding-inline-start: 0; } th:last-child, td:last-child { padding-inline-end: 0; }
td time, td .mono, th .mono { white-space: nowrap; } tbody th small, td small { display: block; font-weight: 400;
  color: var(--muted); }
.num { text-align: end; font-variant-numeric: tabular-nums; white-space: nowrap; }
tr.with > td, tr.with > th { border-bottom: 0; padding-bottom: 2px; } tr.more > td { padding-top: 0; }
.error { color: var(--t); white-space: pre-wrap; font-size: 0.88rem; margin: 2px 0; }
details { margin-top: 4px; } .folds { display: flex; flex-wrap: wrap; gap: 0 18px; }
.folds details[open], .folds .cut { flex: 1 0 100%; }
.folds details { max-width: 100%; min-width: 0; } summary { cursor: pointer; color: var(--muted); font-size: 0.85rem;
  width: fit-content; }
summary:hover { color: var(--text); }
details pre { background: var(--soft); border: 1px solid var(--line); border-radius: 8px; padding: 10px 12px; margin: 6px 0;
  max-height: 480px; overflow: auto; }
svg { display: block; } svg text { font-size: 11px; fill: var(--muted); font-family: inherit;
  font-variant-numeric: tabular-nums; }
.flow { table-layout: fixed; } .flow th, .flow td { padding-top: 4px; padding-bottom: 4px; border-bottom: 0;
  vertical-align: middle; }
.flow th:first-child { width: 34%; } .flow .num { width: 112px; white-space: normal; overflow-wrap: break-word;
  font-size: 0.85rem; color: var(--muted); } .flow thead .num { font-size: 0.8rem; }
.flow tbody th { font-weight: 400; font-size: 0.9rem; line-height: 1.35; }
.flow tbody tr.state th { font-weight: 600; } .flow tbody tr.retrieval th { color: var(--retrieval); }
.flow tbody + tbody td, .flow tbody + tbody th { border: 0; }
.flow tbody + tbody tr:first-child > * { border-top: 1px solid var(--line); padding-top: 8px; }
.flow tbody:not(:last-child) tr:last-child > * { padding-bottom: 8px; }
.flow .bars { padding-inline: 0; background: var(--grid); } .flow thead .bars { background: none; }
.flow svg { width: 100%; height: 18px; overflow: visible; }
.bar { fill: var(--c); stroke: var(--c); } .state rect.bar { opacity: 0.6; }
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
.talk .m-tool { background: none; } .talk .m-tool .said { font-family: ui-monospace, "DejaVu Sans Mono", monospace;
  font-size: 0.8rem; }
.who { font-size: 0.8rem; color: var(--muted); margin-bottom: 2px; display: flex; flex-wrap: wrap; gap: 0 8px; }
.who strong { color: var(--text); }
.said { white-space: pre-wrap; overflow-wrap: anywhere; } .said + .said { margin-top: 6px; }
.meta { font-size: 0.8rem; color: var(--muted); overflow-wrap: anywhere; } .said + .meta { margin-top: 4px; }
.found { border-top: 1px solid var(--line); padding: 14px 0 4px; } .found:first-of-type { border-top: 0; padding-top: 0; }
.found ol { list-style: none; margin: 8px 0 0; padding: 0; }
.found li { display: grid; grid-template-columns: 2ch minmax(0, 1fr) 132px; gap: 0 12px; padding: 5px 0;
  align-items: baseline; }
.found li > span:first-child { color: var(--muted); font-size: 0.85rem; text-align: end; }
.found .what { overflow-wrap: anywhere; } .found .what small { display: block; color: var(--muted); white-space: pre-wrap; }
.score { display: flex; align-items: center; gap: 8px; font-variant-numeric: tabular-nums; font-size: 0.85rem;
  justify-content: flex-end; overflow-wrap: anywhere; }
.score .meter { flex: 1; } .meter { display: block; height: 6px; min-width: 30px; border-radius: 3px;
  background: var(--line); overflow: hidden; }
.meter span { display: block; height: 100%; background: var(--c); border-radius: 3px; }
.level { font-size: 0.75rem; font-weight: 600; letter-spacing: 0.02em; color: var(--t); }
.message { white-space: pre-wrap; } .log th:first-child { width: 120px; } .log th:nth-child(2) { width: 110px; }
.pair { display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 18px; } .pair .card { min-width: 0; }
.chart { position: relative; }
.chart > svg { width: 100%; height: 240px; padding: 10px 2px 26px 62px; overflow: visible; }
.chart svg svg { overflow: visible; }
.chart .grid { stroke: var(--line); } .chart .area { fill: var(--c); }
.chart .curve { fill: none; stroke: var(--c); stroke-width: 2; vector-effect: non-scaling-stroke; stroke-linejoin: round; }
.chart .spot { fill: var(--c); stroke: var(--card); } .chart .hit { fill: transparent; }
.chart .hit:hover { fill: var(--text); fill-opacity: 0.07; }
.chart .none { position: absolute; inset: 10px 2px 26px 62px; display: flex; align-items: center; justify-content: center; }
.stack td .meter { margin-top: 5px; width: 100%; min-width: 60px; }
footer { color: var(--muted); font-size: 0.8rem; text-align: center; margin-top: 26px; }
@media (max-width: 900px) { .seven { grid-template-columns: repeat(4, minmax(0, 1fr)); }
.six { grid-template-columns: repeat(3, minmax(0, 1fr)); } .pair { grid-template-columns: minmax(0, 1fr); gap: 0; } }
@media (max-width: 640px) {
  main { padding: 14px 12px 28px; } .card { padding: 16px; border-radius: 10px; margin-bottom: 12px; }
  h1 { font-size: 1.3rem; }
  .tiles, .seven, .six { grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 10px; margin-bottom: 12px; }
  .tiles div { padding: 10px 14px 12px; }
  .facts { grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 10px 16px; } .facts .wide { grid-column: 1 / -1; }
  .flow tr { display: grid; grid-template-columns: minmax(0, 1fr) auto; } .flow th:first-child { width: auto; }
  .flow .num { width: auto; grid-column: 2; grid-row: 1; padding-inline-end: 0; } .flow .bars { grid-column: 1 / -1;
    grid-row: 2; }
  .flow tbody th, .flow tbody .num { padding-bottom: 0; } .flow .bars { padding-block: 0 6px; }
  .flow tbody .bars { background: none; } .flow tbody tr { background: var(--grid); }
  .flow tbody + tbody tr:first-child > * { border: 0; }
  .flow tbody + tbody tr:first-child { border-top: 1px solid var(--line); }
  .flow thead tr > :first-child, .flow thead .num { display: none; }
  .stack thead { position: absolute; clip-path: inset(50%); width: 1px; height: 1px; overflow: hidden; }
  td time { white-space: normal; } .stack tr { display: grid; grid-template-columns: repeat(3, minmax(0, 1fr));
    gap: 4px 12px; padding: 10px 0;
    border-bottom: 1px solid var(--line); } .stack tr:last-child { border-bottom: 0; }
  .stack tr.with { border-bottom: 0; padding-bottom: 2px; } .stack tr.more { padding-top: 0; }
  .stack th, .stack td, .stack tr.with > td, .stack tr.with > th { border: 0; padding: 0; text-align: start;
    white-space: normal; }
  .stack tbody th, .stack tr.more td, .stack .wide { grid-column: 1 / -1; }
  .stack td.nil { display: none; } .stack td[data-label]::before { content: attr(data-label); display: block;
    color: var(--muted); font-size: 0.75rem; }
  .talk li { max-width: 94%; } .found li { grid-template-columns: 2ch minmax(0, 1fr); } .found .score { grid-column: 2; }
  .chart > svg { height: 200px; } .seven div:last-child { grid-column: 1 / -1; } }
@media print {
  :root { --page: #ffffff; font-size: 13px; } main { max-width: none; padding: 0; }
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
$page$, run_tracker.html_escape(left(title, 200)), run_tracker.html_style(), body, run_tracker.tracker_version(),
        run_tracker.html_time(clock_timestamp()))
$function$;
COMMENT ON FUNCTION run_tracker.html_page(text, text) IS
'What reports use: a page without scripts and without anything from elsewhere. The title is text, the body is HTML.';

--
-- The report of a run.  Long texts are cut, and after a million characters of a section even more so.
--

CREATE FUNCTION run_tracker.report_timeline(of_run uuid, max_rows integer) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
    step record;
    html text[] := '{}';
    legend text[] := '{}';
    states integer := 0;
    steps integer := 0;
    tick_ms numeric;
    axis text;
    grid text;
    span numeric;
    first numeric;
    last numeric;
    class text;
    words text;
BEGIN
    FOR step IN SELECT * FROM run_tracker.run_timeline(of_run, NULL, max_rows) LOOP
        IF axis IS NULL THEN
            span := step.axis_end_ms - step.axis_start_ms;
            tick_ms := run_tracker.html_tick(span, 'ms');
            SELECT string_agg(format('<text x="%s%%" y="13"%s>%s</text>', p.percent,
                                     CASE WHEN p.percent > 93 THEN ' text-anchor="end"'
                                          WHEN p.percent > 3 THEN ' text-anchor="middle"' ELSE '' END,
                                     CASE t.n WHEN 0 THEN '0' ELSE run_tracker.html_number(t.n * tick_ms, 'tick') END), ''
                              ORDER BY t.n),
                   string_agg(format('linear-gradient(var(--line), var(--line)) %s%% 0 / 1px 100%% no-repeat', p.percent), ', '
                              ORDER BY t.n)
            INTO axis, grid
            FROM generate_series(ceil(step.axis_start_ms / tick_ms), floor(step.axis_end_ms / tick_ms)) t (n),
                 LATERAL (SELECT round(100 * (t.n * tick_ms - step.axis_start_ms) / span, 2) AS percent) p;
        END IF;
        IF step.kind = 'state' THEN
            states := states + 1;
            CONTINUE WHEN states > max_rows;
        ELSE
            steps := steps + 1;
            CONTINUE WHEN steps > max_rows;
            IF steps = 1 THEN
                html := html || '</tbody><tbody>'::text;
            END IF;
        END IF;
        class := CASE step.kind WHEN 'retrieval' THEN 'p-retrieval' ELSE run_tracker.html_phase(step.phase) END;
        IF NOT class = ANY (legend) THEN
            legend := legend || class;
        END IF;
        words := CASE WHEN step.kind = 'state' AND step.duration_ms = 0 AND NOT step.open
                      THEN 'at ' || run_tracker.html_number(step.start_ms, 'ms')
                      ELSE run_tracker.html_number(step.duration_ms, 'ms') || CASE WHEN step.open THEN ' &#8230;' ELSE '' END END;
        -- what is shorter than a hair still has a width
        first := round(100.0 * LEAST(span, GREATEST(0, step.start_ms - step.axis_start_ms)) / span, 3);
        last := GREATEST(first + 0.05, round(100.0 * (step.end_ms - step.axis_start_ms) / span, 3));
        html := html || format(
            E'<tr class="%s"><th scope="row"%s>%s</th><td class="bars"><svg class="%s" role="img" aria-label="%s"><title>%s</title>'
            '%s</svg></td><td class="num">%s</td></tr>\n',
            step.kind, ' style="padding-inline-start: ' || NULLIF(LEAST(step.level, 8), 0) * 16 || 'px"',
            run_tracker.html_escape(step.label), class,
            run_tracker.html_escape(concat_ws(', ', step.kind, step.status)) || ': ' || words
            || CASE WHEN words LIKE 'at %' THEN ''
                ELSE ' from ' || run_tracker.html_number(step.start_ms, 'ms') END,
            run_tracker.html_escape(concat_ws(' ', step.kind, step.label
                                              || COALESCE(', ' || NULLIF(step.status, step.label), '')))
                || ': ' || run_tracker.html_number(step.start_ms, 'ms') || ' to ' || run_tracker.html_number(step.end_ms, 'ms'),
            CASE WHEN words LIKE 'at %' THEN format('<circle class="bar" cx="%s%%" cy="9" r="4" />', first)
                 ELSE format('<rect class="bar" x="%s%%" y="4" width="%s%%" height="10" rx="2" />', first, last - first) END,
            words);
    END LOOP;
    RETURN run_tracker.html_section('Timeline', concat(
        '<table class="flow" style="--grid: ', grid, '"><caption class="sr">What the run did, and when</caption>',
        '<thead><tr><th scope="col">Step</th><th scope="col" class="bars"><svg role="img" aria-label="Time since the run was created">',
        axis, E'</svg></th><th scope="col" class="num">Duration</th></tr></thead>\n<tbody>',
        array_to_string(html, ''), '</tbody></table>',
        '<ul class="legend">',
        (SELECT string_agg(format('<li class="%s">%s</li>', l.class, replace(substr(l.class, 3), '_', ' ')), '' ORDER BY l.n)
         FROM unnest(legend) WITH ORDINALITY l (class, n)), '</ul>',
        run_tracker.html_more(states, max_rows, 'more states are'),
        run_tracker.html_more((SELECT count(*) FROM run_tracker.tasks t WHERE t.run_id = of_run)
                              + (SELECT count(*) FROM run_tracker.retrievals e WHERE e.run_id = of_run),
                              LEAST(steps, max_rows), 'more tasks and retrievals are')));
END
$function$;
COMMENT ON FUNCTION run_tracker.report_timeline(uuid, integer) IS 'What report_html() runs: the section with the timeline of a run.';

CREATE FUNCTION run_tracker.report_messages(of_run uuid, max_rows integer) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
    message record;
    part record;
    html text[] := '{}';
    piece text;
    total bigint := (SELECT sum(t.message_count) FROM run_tracker.run_totals t WHERE t.run_id = of_run);
    room integer := 1000000;
    longest integer := 20000;
BEGIN
    FOR message IN
        SELECT m.*, t.total_tokens, t.cost, t.duration_ms, t.model
        FROM (SELECT n.seq, n.role, n.name, n.content, n.parts, n.metadata, n.created_at, n.task_id
              FROM run_tracker.messages n WHERE n.run_id = of_run ORDER BY n.seq DESC LIMIT max_rows) m
             LEFT JOIN LATERAL (SELECT a.total_tokens, a.cost, a.duration_ms, a.model FROM run_tracker.tasks a
                                WHERE a.run_id = of_run AND a.task_id = m.task_id AND m.role = 'assistant' OFFSET 0) t ON true
        ORDER BY m.seq
    LOOP
        piece := format('<li class="%s"><div class="who"><strong>%s</strong>%s%s</div>',
            CASE WHEN message.role IN ('user', 'human') THEN 'm-user' WHEN message.role IN ('system', 'developer') THEN 'm-system'
                 WHEN message.role IN ('tool', 'function') THEN 'm-tool' ELSE 'm-assistant' END,
            run_tracker.html_text(message.role, 60), '<span>' || run_tracker.html_text(NULLIF(message.name, ''), 100)
            || '</span>',
            run_tracker.html_time(message.created_at));
        IF message.content <> '' THEN
            piece := piece || format('<div class="said" dir="auto">%s</div>', run_tracker.html_text(message.content, longest));
        END IF;
        IF pg_column_size(message.parts) > 50 * longest THEN
            piece := piece || run_tracker.html_json('Parts', message.parts, longest);
        ELSIF message.parts IS NOT NULL THEN
            FOR part IN
                SELECT p.value, p.value ->> 'type' AS type, COALESCE(p.value ->> 'text', p.value ->> 'content',
                           CASE jsonb_typeof(p.value) WHEN 'string' THEN p.value #>> '{}' END) AS said
                FROM jsonb_array_elements(CASE jsonb_typeof(message.parts) WHEN 'array' THEN message.parts
                                               ELSE jsonb_build_array(message.parts) END) p LIMIT 50
            LOOP
                piece := piece || CASE
                    WHEN part.said <> '' AND COALESCE(part.type, 'text') = 'text'
                    THEN format('<div class="said" dir="auto">%s</div>', run_tracker.html_text(part.said, longest))
                    ELSE COALESCE(run_tracker.html_json(COALESCE(run_tracker.html_text(NULLIF(part.type, ''), 60), 'Part'),
                                                        part.value, longest), '') END;
            END LOOP;
        END IF;
        html := html || (piece || concat('<div class="meta">' || NULLIF(concat_ws(' &#183; ',
            run_tracker.html_text(NULLIF(message.model, ''), 100),
            CASE WHEN message.total_tokens IS NOT NULL THEN run_tracker.html_number(message.total_tokens) || ' tokens' END,
            CASE WHEN message.cost IS NOT NULL THEN run_tracker.html_number(message.cost, 'cost') END,
            CASE WHEN message.duration_ms IS NOT NULL THEN run_tracker.html_number(message.duration_ms, 'ms') END), '')
            || '</div>',
            run_tracker.html_json('Metadata', message.metadata, longest), E'</li>\n'));
        room := room - length(html[cardinality(html)]);
        longest := CASE WHEN room > 0 THEN 20000 ELSE 300 END;
    END LOOP;
    RETURN run_tracker.html_section('Conversation',
        COALESCE(run_tracker.html_more(total, cardinality(html), 'earlier messages are'), '')
        || '<ol class="talk">' || NULLIF(array_to_string(html, ''), '') || '</ol>', run_tracker.html_number(total));
END
$function$;
COMMENT ON FUNCTION run_tracker.report_messages(uuid, integer) IS 'What report_html() runs: the section with the conversation of a run.';

CREATE FUNCTION run_tracker.report_tasks(of_run uuid, max_rows integer) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
    task record;
    html text[] := '{}';
    more text;
    indent text;
    total bigint := (SELECT count(*) FROM run_tracker.tasks t WHERE t.run_id = of_run);
    shown integer := 0;
    room integer := 1000000;
    longest integer := 20000;
BEGIN
    FOR task IN
        SELECT s.level, s.label, s.open, s.elapsed_ms, t.*
        FROM (SELECT l.id, l.level, l.label, l.open, l.duration_ms AS elapsed_ms, row_number() OVER () AS n
              FROM run_tracker.run_timeline(of_run, NULL, max_rows) l WHERE l.kind = 'task') s
             -- one look-up each, whatever the planner thinks of the size of the table
             CROSS JOIN LATERAL (SELECT * FROM run_tracker.tasks a WHERE a.run_id = of_run AND a.task_id = s.id OFFSET 0) t
        ORDER BY s.n
    LOOP
        indent := ' style="padding-inline-start: ' || NULLIF(LEAST(task.level, 8), 0) * 16 || 'px"';
        more := concat(format('<p class="error %s">', run_tracker.html_phase(task.phase))
                           || run_tracker.html_text(NULLIF(task.error, ''), longest) || '</p>',
            '<div class="folds">' || NULLIF(concat(run_tracker.html_details('Error detail', task.error_detail, longest),
            run_tracker.html_json('Request', task.request, longest),
            run_tracker.html_details('Response', CASE WHEN task.finished_at IS NULL THEN run_tracker.task_response(task.task_id)
                                                      ELSE task.response END, longest),
            run_tracker.html_json('Result', task.result, longest), run_tracker.html_json('Metadata', task.metadata, longest)),
            '') || '</div>');
        html := html || concat(
            format('<tr%s><th scope="row"%s>%s<small>%s</small></th><td>%s<small>%s</small></td>',
                CASE WHEN more <> '' THEN ' class="with"' ELSE '' END,
                indent, run_tracker.html_escape(task.label),
                run_tracker.html_line(task.service, task.operation, task.provider, COALESCE(task.model, task.response_model)),
                run_tracker.html_badge(task.status, task.phase),
                run_tracker.html_line(CASE WHEN task.attempt > 1 THEN 'attempt ' || task.attempt END, task.finish_reason)),
            run_tracker.html_cell('Duration', COALESCE(task.duration_ms, task.elapsed_ms), 'ms',
                                  CASE WHEN task.open THEN 'so far' END),
            run_tracker.html_cell('First token', task.time_to_first_token_ms, 'ms'),
            run_tracker.html_cell('Input', task.input_tokens, note => CASE WHEN task.cache_read_input_tokens > 0
                THEN run_tracker.html_number(task.cache_read_input_tokens) || ' cached' END),
            run_tracker.html_cell('Output', task.output_tokens, note => CASE WHEN task.reasoning_output_tokens > 0
                THEN run_tracker.html_number(task.reasoning_output_tokens) || ' reasoning' END),
            run_tracker.html_cell('Cost', task.cost, 'cost'), E'</tr>\n',
            format('<tr class="more"><td colspan="7"%s>', indent) || NULLIF(more, '') || E'</td></tr>\n');
        shown := shown + 1;
        room := room - length(more);
        longest := CASE WHEN room > 0 THEN 20000 ELSE 300 END;
    END LOOP;
    RETURN run_tracker.html_section('Tasks', '<table class="stack"><thead><tr><th scope="col">Task</th><th scope="col">Status</th>'
        '<th scope="col" class="num">Duration</th><th scope="col" class="num">First token</th><th scope="col" class="num">Input</th>'
        '<th scope="col" class="num">Output</th><th scope="col" class="num">Cost</th></tr></thead><tbody>'
        || NULLIF(array_to_string(html, ''), '') || '</tbody></table>'
        || COALESCE(run_tracker.html_more(total, shown, 'more tasks are'), ''), run_tracker.html_number(total));
END
$function$;
COMMENT ON FUNCTION run_tracker.report_tasks(uuid, integer) IS 'What report_html() runs: the section with the tasks of a run.';

CREATE FUNCTION run_tracker.report_retrievals(of_run uuid, max_rows integer) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
    retrieval record;
    hit record;
    html text[] := '{}';
    hits text;
    total bigint := (SELECT sum(t.retrieval_count) FROM run_tracker.run_totals t WHERE t.run_id = of_run);
    room integer := 1000000;
    longest integer := 20000;
    max_hits constant integer := 20;
BEGIN
    FOR retrieval IN
        SELECT e.retrieval_type, e.query, e.context, e.results_count, e.results, e.location, e.component_type, e.duration_ms
        FROM run_tracker.retrievals e WHERE e.run_id = of_run ORDER BY e.created_at, e.retrieval_id LIMIT max_rows
    LOOP
        hits := '';
        IF pg_column_size(retrieval.results) > 50 * longest THEN
            hits := run_tracker.html_json('Results', retrieval.results, longest);
        ELSIF retrieval.results IS NOT NULL THEN
            FOR hit IN
                -- clients write what they like: whatever may be a title and a score
                SELECT r.n, o.title, o.snippet, s.score,
                       CASE WHEN s.type = 'number' OR s.score ~ '^-?[0-9]{1,30}([.][0-9]{1,60})?$' THEN s.score::numeric END AS number
                FROM jsonb_array_elements(CASE jsonb_typeof(retrieval.results)
                                               WHEN 'array' THEN jsonb_path_query_array(retrieval.results, '$[0 to 19]')
                                               ELSE jsonb_build_array(retrieval.results) END) WITH ORDINALITY r (value, n),
                     LATERAL (SELECT COALESCE(NULLIF(r.value ->> 'title', ''), NULLIF(r.value ->> 'name', ''),
                                              NULLIF(r.value ->> 'document_name', ''), NULLIF(r.value #>> '{document,title}', ''),
                                              NULLIF(r.value #>> '{document,name}', ''), NULLIF(r.value ->> 'document', ''),
                                              NULLIF(r.value ->> 'id', ''), NULLIF(r.value ->> 'document_id', ''),
                                              NULLIF(r.value ->> 'url', ''), r.value #>> '{}', 'null') AS title,
                                     COALESCE(r.value ->> 'snippet', r.value ->> 'content', r.value ->> 'text',
                                              r.value ->> 'chunk') AS snippet) o,
                     LATERAL (SELECT COALESCE(r.value ->> 'score', r.value ->> 'similarity') AS score,
                                     jsonb_typeof(CASE WHEN r.value ->> 'score' IS NULL THEN r.value -> 'similarity'
                                                       ELSE r.value -> 'score' END) AS type) s
                ORDER BY r.n LIMIT max_hits
            LOOP
                hits := hits || format(E'<li><span>%s</span><span class="what" dir="auto">%s%s</span>%s</li>\n', hit.n,
                    run_tracker.html_text(hit.title, 300),
                    '<small>' || run_tracker.html_text(NULLIF(hit.snippet, ''), 300) || '</small>',
                    CASE WHEN hit.score IS NOT NULL THEN format('<span class="score p-retrieval">%s%s</span>',
                        CASE WHEN hit.number BETWEEN 0 AND 1 THEN run_tracker.html_meter(100 * hit.number) END,
                        CASE WHEN hit.number IS NULL THEN run_tracker.html_text(hit.score, 40)
                             ELSE run_tracker.html_number(hit.number, 'score') END) ELSE '<span class="score"></span>' END);
            END LOOP;
            hits := '<ol>' || hits || '</ol>' || COALESCE(run_tracker.html_more(
                CASE jsonb_typeof(retrieval.results) WHEN 'array' THEN jsonb_array_length(retrieval.results) ELSE 1 END,
                max_hits, 'more results are'), '');
        END IF;
        html := html || concat('<div class="found"><h3 dir="auto">',
            run_tracker.html_text(COALESCE(NULLIF(retrieval.query, ''), retrieval.retrieval_type), 1000), '</h3><p class="meta">',
            concat_ws(' &#183; ', run_tracker.html_line(retrieval.retrieval_type, retrieval.location, retrieval.component_type),
                run_tracker.html_number(retrieval.results_count)
                    || CASE retrieval.results_count WHEN 1 THEN ' result' ELSE ' results' END,
                CASE WHEN retrieval.duration_ms IS NOT NULL THEN run_tracker.html_number(retrieval.duration_ms, 'ms') END),
            '</p>', hits, run_tracker.html_details('Context', retrieval.context, longest), E'</div>\n');
        room := room - length(html[cardinality(html)]);
        longest := CASE WHEN room > 0 THEN 20000 ELSE 300 END;
    END LOOP;
    RETURN run_tracker.html_section('Retrievals', array_to_string(html, '')
        || COALESCE(run_tracker.html_more(total, cardinality(html), 'more retrievals are'), ''), run_tracker.html_number(total));
END
$function$;
COMMENT ON FUNCTION run_tracker.report_retrievals(uuid, integer) IS 'What report_html() runs: the section with the retrievals of a run.';

CREATE FUNCTION run_tracker.report_artifacts(of_run uuid, max_rows integer) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
    artifact record;
    html text[] := '{}';
    more text;
    total bigint := (SELECT sum(t.artifact_count) FROM run_tracker.run_totals t WHERE t.run_id = of_run);
    shown integer := 0;
    room integer := 1000000;
    longest integer := 20000;
BEGIN
    FOR artifact IN
        SELECT a.artifact_id, a.kind, a.type, a.name, a.source, a.similarity, a.source_document_id, a.source_document_name,
               a.chunk_type, a.configuration, a.content, a.content_type, a.url, a.size_bytes, a.metadata
        FROM run_tracker.artifacts a WHERE a.run_id = of_run ORDER BY a.ordinal, a.created_at, a.artifact_id LIMIT max_rows
    LOOP
        more := concat(
            -- what begins with javascript:, data: or the like stays text
            '<p class="meta">' || CASE
                WHEN artifact.url ~* '^https?://' AND length(artifact.url) <= 2000
                THEN format('<a href="%1$s" rel="noopener noreferrer nofollow">%1$s</a>', run_tracker.html_escape(artifact.url))
                ELSE run_tracker.html_text(NULLIF(artifact.url, ''), 2000) END || '</p>',
            '<div class="folds">' || NULLIF(concat(run_tracker.html_details('Content', artifact.content, longest),
            run_tracker.html_json('Configuration', artifact.configuration, longest),
            run_tracker.html_json('Metadata', artifact.metadata, longest)), '') || '</div>');
        html := html || concat(
            format('<tr%s><th scope="row">%s<small>%s</small></th>', CASE WHEN more <> '' THEN ' class="with"' ELSE '' END,
                run_tracker.html_text(COALESCE(NULLIF(artifact.name, ''), artifact.kind), 300),
                run_tracker.html_line(artifact.kind, artifact.type, artifact.content_type)),
            format('<td data-label="Source">%s<small>%s</small></td>',
                COALESCE(run_tracker.html_text(NULLIF(artifact.source, ''), 100), '&#8211;'),
                run_tracker.html_line(COALESCE(artifact.source_document_name, artifact.source_document_id), artifact.chunk_type)),
            run_tracker.html_cell('Similarity', artifact.similarity, 'score'),
            run_tracker.html_cell('Size', artifact.size_bytes, 'bytes'),
            E'</tr>\n',
            '<tr class="more"><td colspan="4">' || NULLIF(more, '') || E'</td></tr>\n');
        shown := shown + 1;
        room := room - length(more);
        longest := CASE WHEN room > 0 THEN 20000 ELSE 300 END;
    END LOOP;
    RETURN run_tracker.html_section('Artifacts', '<table class="stack"><thead><tr><th scope="col">Artifact</th><th scope="col">Source</th>'
        '<th scope="col" class="num">Similarity</th><th scope="col" class="num">Size</th></tr></thead><tbody>'
        || NULLIF(array_to_string(html, ''), '') || '</tbody></table>'
        || COALESCE(run_tracker.html_more(total, shown, 'more artifacts are'), ''), run_tracker.html_number(total));
END
$function$;
COMMENT ON FUNCTION run_tracker.report_artifacts(uuid, integer) IS 'What report_html() runs: the section with the artifacts of a run.';

CREATE FUNCTION run_tracker.report_logs(of_run uuid, created_at timestamptz, max_rows integer) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
    line record;
    html text[] := '{}';
    total bigint := (SELECT count(*) FROM run_tracker.logs l WHERE l.run_id = of_run);
    room integer := 1000000;
    longest integer := 20000;
BEGIN
    FOR line IN
        SELECT l.* FROM (SELECT n.seq, n.level, n.message, n.category, n.step_name, n.details, n.created_at
                         FROM run_tracker.logs n WHERE n.run_id = of_run ORDER BY n.seq DESC LIMIT max_rows) l
        ORDER BY l.seq
    LOOP
        html := html || format(
            E'<tr><td data-label="After">%s</td><td data-label="Level"><span class="level %s">%s</span></td><td class="wide">'
            '<div class="message" dir="auto">%s</div><small>%s</small>%s</td></tr>\n',
            -- not the difference of the times, which may be too long for an interval
            run_tracker.html_number(1000 * (extract(epoch FROM line.created_at) - extract(epoch FROM created_at)), 'ms'),
            CASE line.level WHEN 'DEBUG' THEN 'p-queued' WHEN 'INFO' THEN 'p-active' WHEN 'WARNING' THEN 'p-waiting' ELSE 'p-failed' END,
            run_tracker.html_escape(line.level), run_tracker.html_text(line.message, longest),
            run_tracker.html_line(line.step_name, line.category),
            run_tracker.html_json('Details', line.details, longest));
        room := room - length(html[cardinality(html)]);
        longest := CASE WHEN room > 0 THEN 20000 ELSE 300 END;
    END LOOP;
    RETURN run_tracker.html_section('Log', COALESCE(run_tracker.html_more(total, cardinality(html), 'earlier lines are'), '')
        || '<table class="stack log"><thead><tr><th scope="col">After</th><th scope="col">Level</th><th scope="col">Message</th></tr>'
        '</thead><tbody>' || NULLIF(array_to_string(html, ''), '') || '</tbody></table>', run_tracker.html_number(total));
END
$function$;
COMMENT ON FUNCTION run_tracker.report_logs(uuid, timestamptz, integer) IS 'What report_html() runs: the section with the log of a run.';

CREATE FUNCTION run_tracker.report_html(run_id uuid) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $function$
#variable_conflict use_column
DECLARE
    run record;
    max_rows constant integer := 300;
    title text;
BEGIN
    PERFORM run_tracker.require_tables();
    SELECT s.elapsed_ms, s.task_count, s.failed_task_count, s.open_task_count, s.input_tokens, s.output_tokens, s.total_tokens,
           s.total_cost, s.message_count, s.retrieval_count, s.artifact_count, s.error_count, r.*
    INTO run
    FROM run_tracker.runs r JOIN run_tracker.run_summary s USING (run_id) WHERE r.run_id = $1;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'run not found'
            USING ERRCODE = 'no_data_found', DETAIL = format('There is no run %s that you may see.', COALESCE($1::text, 'null'));
    END IF;
    title := COALESCE(NULLIF(btrim(left(run.name, 1000)), ''), NULLIF(btrim(left(run.kind, 1000)), ''),
                      'Run ' || left(run.run_id::text, 8));
    RETURN run_tracker.html_page(title, concat_ws(E'\n',
        format('<header class="card"><p class="eyebrow">%s</p><div class="title"><h1 dir="auto">%s</h1>%s</div>',
            concat_ws(' &#183; ', 'Run', run_tracker.html_text(NULLIF(run.kind, ''), 100)), run_tracker.html_text(title, 300),
            run_tracker.html_badge(run.status, run.phase)),
        CASE WHEN run.finished_at IS NULL AND (run.progress IS NOT NULL OR run.current_step <> '') THEN
            format('<div class="progress %s"><span style="width: %s%%"></span></div><p class="meta">%s</p>',
                run_tracker.html_phase(run.phase), COALESCE(run.progress, 0),
                concat_ws(' &#183; ', run.progress || ' %', run_tracker.html_text(NULLIF(run.current_step, ''), 200))) END,
        CASE WHEN run.error <> '' OR run.error_detail <> '' THEN
            format('<div class="alert %s"><p><strong>%s</strong></p>%s</div>', run_tracker.html_phase(
                       CASE WHEN run.phase IN ('failed', 'timed_out', 'cancelled') THEN run.phase ELSE 'waiting' END),
                COALESCE(run_tracker.html_text(NULLIF(run.error, '')), 'Error'),
                run_tracker.html_details('Detail', run.error_detail)) END,
        '<dl class="facts">',
        run_tracker.html_fact('Run', '<span class="mono">' || run.run_id || '</span>', class => 'wide'),
        run_tracker.html_fact('User', run_tracker.html_text(run.user_id, 200)),
        run_tracker.html_fact('Workflow', run_tracker.html_text(run.workflow_id, 200)),
        run_tracker.html_fact('Session', run_tracker.html_text(run.session_id, 200)),
        run_tracker.html_fact('Subject', run_tracker.html_text(run.subject_id, 200)),
        run_tracker.html_fact('Parent run', '<span class="mono">' || run.parent_run_id || '</span>', class => 'wide'),
        run_tracker.html_fact('Lifecycle', run_tracker.html_text(run.lifecycle, 100)),
        run_tracker.html_fact('Attempt', CASE WHEN run.attempt > 1 OR run.max_attempts > 1
                                              THEN format('%s of %s', run.attempt, GREATEST(run.attempt, run.max_attempts)) END),
        run_tracker.html_fact('Worker', run_tracker.html_text(run.worker, 200)),
        run_tracker.html_fact('Created', run_tracker.html_time(run.created_at)),
        run_tracker.html_fact('Started', CASE WHEN run.started_at IS NOT NULL THEN run_tracker.html_time(run.started_at) END),
        run_tracker.html_fact('Finished', CASE WHEN run.finished_at IS NOT NULL THEN run_tracker.html_time(run.finished_at) END),
        '</dl></header>',
        '<h2 class="sr">Totals</h2><dl class="tiles">',
        run_tracker.html_fact('Duration', run_tracker.html_number(run.elapsed_ms, 'ms'),
                              CASE WHEN run.finished_at IS NULL THEN 'so far' END),
        run_tracker.html_fact('Tasks', run_tracker.html_number(run.task_count),
                              concat_ws(', ', 'succeeded',
                                  CASE WHEN run.failed_task_count > 0 THEN run_tracker.html_number(run.failed_task_count)
                                  || ' failed' END,
                                  CASE WHEN run.open_task_count > 0 THEN run_tracker.html_number(run.open_task_count)
                                  || ' open' END)),
        run_tracker.html_fact('Tokens', run_tracker.html_number(run.total_tokens), format('%s in, %s out',
                              run_tracker.html_number(run.input_tokens), run_tracker.html_number(run.output_tokens))),
        run_tracker.html_fact('Cost', run_tracker.html_number(run.total_cost, 'cost')),
        run_tracker.html_fact('Messages', run_tracker.html_number(run.message_count)),
        run_tracker.html_fact('Retrievals', run_tracker.html_number(run.retrieval_count)),
        run_tracker.html_fact('Artifacts', run_tracker.html_number(run.artifact_count)),
        run_tracker.html_fact('Errors', run_tracker.html_number(run.error_count)),
        '</dl>',
        run_tracker.report_timeline($1, max_rows),
        run_tracker.report_messages($1, max_rows),
        run_tracker.report_tasks($1, max_rows),
        run_tracker.report_retrievals($1, max_rows),
        run_tracker.report_artifacts($1, max_rows),
        run_tracker.report_logs($1, run.created_at, max_rows),
        run_tracker.html_section('Data', concat(run_tracker.html_json('Inputs', run.inputs),
            run_tracker.html_json('Settings', run.settings), run_tracker.html_json('Variables', run.variables),
            run_tracker.html_json('Plan', run.plan), run_tracker.html_json('Result', run.result, opened => true),
            run_tracker.html_json('Reflections', run.reflections), run_tracker.html_json('Metrics', run.metrics),
            run_tracker.html_json('Metadata', run.metadata)))));
END
$function$;
COMMENT ON FUNCTION run_tracker.report_html(uuid) IS
'A page of HTML about a run: what it is, its totals, its timeline, conversation, tasks, retrievals with their results and scores, artifacts, log and data. It has no scripts and loads nothing; everything that comes from the tables is escaped. It is in UTF-8 (client_encoding must be, too) and its times are in UTC. Long texts are cut, and of each list at most 300 rows are shown, with a note of what is left out. P0002 if there is no such run.';

--
-- The dashboard
--

CREATE FUNCTION run_tracker.html_chart(label text, periods timestamptz[], names text[], classes text[], curves boolean[],
    numbers numeric[], unit text DEFAULT NULL) RETURNS text
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
    n integer := cardinality(periods);
    days boolean := n > 1 AND periods[2] - periods[1] > interval '1 hour';
    highest numeric;
    tick numeric;
    top numeric;
    every integer := ceil(n / 6.0);
    svg text;
BEGIN
    -- columns stand on each other, curves do not
    SELECT max(GREATEST(p.stacked, p.highest)) INTO highest
    FROM (SELECT sum(numbers[s][i]) FILTER (WHERE NOT curves[s]) AS stacked,
          max(numbers[s][i]) FILTER (WHERE curves[s]) AS highest
          FROM generate_series(1, n) i, generate_series(1, cardinality(names)) s GROUP BY i) p;
    tick := run_tracker.html_tick(COALESCE(NULLIF(highest, 0), CASE unit WHEN 'ms' THEN 1000 ELSE 5 END), unit);
    top := tick * ceil(COALESCE(NULLIF(highest, 0), 5 * tick) / tick);
    SELECT concat(
        (SELECT string_agg(format('<line class="grid" x1="0" x2="100%%" y1="%1$s%%" y2="%1$s%%" /><text x="-8" y="%1$s%%" dy="4" '
                                  'text-anchor="end">%2$s</text>', round(100 - 100 * k * tick / top, 2),
                                  CASE k WHEN 0 THEN '0' ELSE run_tracker.html_number(k * tick,
                                      CASE unit WHEN 'ms' THEN 'tick' ELSE unit END) END), '' ORDER BY k)
         FROM generate_series(0, (top / tick)::integer) k),
        (SELECT string_agg(format('<text x="%s%%" y="100%%" dy="18" text-anchor="%s">%s</text>',
                                  round(100 * (i - 0.5) / n, 2),
                                  -- there is no room beyond the first and the last column
                                  CASE WHEN i > 0.95 * n THEN 'end' WHEN i <= 0.05 * n THEN 'start' ELSE 'middle' END,
                                  to_char(p.at, CASE WHEN days OR p.hour = 0 THEN 'FMDD Mon' ELSE 'HH24:MI' END)), '' ORDER BY i)
         FROM generate_series(1, n) i, LATERAL (SELECT periods[i] AT TIME ZONE 'UTC' AS at,
                                                       extract(hour FROM periods[i] AT TIME ZONE 'UTC')::integer AS hour) p
         WHERE CASE WHEN days THEN (n - i) % every = every / 2 ELSE p.hour % CASE WHEN n <= 26 THEN 4 ELSE 12 END = 0 END),
        (SELECT string_agg(format('<rect class="area %s" x="%s%%" y="%s%%" width="%s%%" height="%s%%" />', classes[c.s],
                                  round(100.0 * (c.i - 1) / n + 12.0 / n, 3), round(100 - 100 * c.upto / top, 3),
                                  round(76.0 / n, 3),
                                  round(100 * c.number / top, 3)), '' ORDER BY c.i, c.s)
         FROM (SELECT i, s, numbers[s][i] AS number, sum(numbers[s][i]) OVER (PARTITION BY i ORDER BY s) AS upto
               FROM generate_series(1, n) i, generate_series(1, cardinality(names)) s WHERE NOT curves[s]) c
         WHERE c.number > 0),
        -- a curve ends where there is no number
        (SELECT format('<svg width="100%%" height="100%%" viewBox="0 0 %s 100" preserveAspectRatio="none">%s</svg>', n,
                       string_agg(format('<polyline class="curve %s" points="%s" />', classes[l.s], l.points),
                                  '' ORDER BY l.s, l.part))
         FROM (SELECT c.s, c.i - c.rank AS part,
                      string_agg(format('%s,%s', c.i - 0.5, round(100 - 100 * c.number / top, 3)), ' ' ORDER BY c.i) AS points
               FROM (SELECT i, s, numbers[s][i] AS number, row_number() OVER (PARTITION BY s ORDER BY i) AS rank
                     FROM generate_series(1, n) i, generate_series(1, cardinality(names)) s
                     WHERE curves[s] AND numbers[s][i] IS NOT NULL AND highest > 0) c
               GROUP BY c.s, c.i - c.rank HAVING count(*) > 1) l),
        (SELECT string_agg(format('<circle class="spot %s" cx="%s%%" cy="%s%%" r="3" />', classes[s],
                                  round(100 * (i - 0.5) / n, 3),
                                  round(100 - 100 * numbers[s][i] / top, 3)), '' ORDER BY s, i)
         FROM generate_series(1, n) i, generate_series(1, cardinality(names)) s
         WHERE curves[s] AND (unit = 'ms' AND n <= 40 OR numbers[s][i - 1] IS NULL AND numbers[s][i + 1] IS NULL)
           AND numbers[s][i] IS NOT NULL),
        (SELECT string_agg(format('<rect class="hit" x="%s%%" y="0" width="%s%%" height="100%%"><title>%s: %s</title></rect>',
                                  round(100.0 * (i - 1) / n, 3), round(100.0 / n, 3),
                                  to_char(periods[i] AT TIME ZONE 'UTC',
                                          CASE WHEN days THEN 'YYYY-MM-DD' ELSE 'YYYY-MM-DD HH24:MI' END),
                                  (SELECT string_agg(names[s] || ' ' || run_tracker.html_number(numbers[s][i], unit),
                                                     ', ' ORDER BY s)
                                   FROM generate_series(1, cardinality(names)) s)), '' ORDER BY i)
         FROM generate_series(1, n) i)) INTO svg;
    RETURN format(E'<div class="chart"><svg role="img" aria-label="%s">%s</svg>%s</div>\n<ul class="legend">%s</ul>', label, svg,
                  CASE WHEN COALESCE(highest, 0) = 0 THEN '<p class="none">Nothing yet</p>' END,
                  (SELECT string_agg(format('<li class="%s">%s</li>', classes[s], names[s]), '' ORDER BY s)
                   FROM generate_series(1, cardinality(names)) s));
END
$function$;
COMMENT ON FUNCTION run_tracker.html_chart(text, timestamptz[], text[], text[], boolean[], numeric[], text) IS
'What dashboard_html() runs: a chart of several rows of numbers over hours or days, as stacked columns or curves. Names and classes are HTML.';

CREATE FUNCTION run_tracker.dashboard_html(since timestamptz DEFAULT NULL) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
    moment timestamptz := clock_timestamp();
    -- statistics are kept by hour
    from_hour timestamptz := date_trunc('hour', COALESCE(since, moment - interval '24 hours'), 'UTC');
    by_day boolean := from_hour < moment - interval '73 hours';
    step interval := CASE WHEN by_day THEN interval '24 hours' ELSE interval '1 hour' END;
    first_period timestamptz := date_trunc(CASE WHEN by_day THEN 'day' ELSE 'hour' END,
                                           GREATEST(from_hour, moment - interval '8760 hours'), 'UTC');
    title text := CASE WHEN since IS NULL THEN 'Runs of the last 24 hours' WHEN from_hour = '-infinity' THEN 'All runs'
                       ELSE 'Runs since ' || to_char(from_hour AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI') || ' UTC' END;
    viewer text := CASE WHEN run_tracker.is_service() THEN 'all users' ELSE run_tracker.current_user_id() END;
    pending record;
    total record;
    duration record;
    trend record;
    models text;
    failures text;
    max_looked_at constant integer := 1000;
BEGIN
    PERFORM run_tracker.require_tables();
    IF since > moment THEN
        RAISE EXCEPTION 'argument "since" must not be in the future'
            USING ERRCODE = 'invalid_parameter_value', DETAIL = format('It is %s.', since);
    END IF;

    -- open runs are few; where not, looking at each of them would take too long
    IF pg_relation_size('run_tracker.open_runs') < 67108864 THEN
        SELECT count(*) AS total, count(*) FILTER (WHERE o.phase = 'queued') AS queued,
               count(*) FILTER (WHERE o.phase = 'active') AS active, count(*) FILTER (WHERE o.phase = 'waiting') AS waiting
        INTO pending FROM run_tracker.open_runs o;
    ELSE
        SELECT sum(k.open) AS total, NULL::bigint AS queued, NULL::bigint AS active, NULL::bigint AS waiting
        INTO pending FROM run_tracker.kind_stats() k;
    END IF;

    WITH stats AS MATERIALIZED (
        SELECT k.*, COALESCE(run_tracker.html_text(NULLIF(k.kind, ''), 100), '<span class="muted">no kind</span>') AS name
        FROM run_tracker.kind_stats(since => from_hour) k
    ), slow AS (
        SELECT row_number() OVER w AS n, k.*, max(k.p95_ms) OVER () AS slowest FROM stats k WHERE k.p95_ms IS NOT NULL
        WINDOW w AS (ORDER BY k.p95_ms DESC, k.kind) ORDER BY 1 LIMIT 8
    ), failing AS (
        SELECT row_number() OVER w AS n, k.* FROM stats k WHERE k.failed + k.timed_out > 0
        WINDOW w AS (ORDER BY k.success_rate, k.finished DESC, k.kind) ORDER BY 1 LIMIT 8
    )
    SELECT k.*, round(100.0 * k.successful / NULLIF(k.finished, 0), 2) AS success_rate,
           (SELECT string_agg(concat('<tr><th scope="row">', o.name, '</th>', run_tracker.html_cell('Succeeded', o.successful),
                                     run_tracker.html_cell('Median', o.p50_ms, 'ms'),
                                     run_tracker.html_cell('95 %', o.p95_ms, 'ms'),
                                     '<td class="p-active wide">',
                                     run_tracker.html_meter(100.0 * o.p95_ms / GREATEST(1, o.slowest)),
                                     '</td></tr>'), E'\n' ORDER BY o.n) FROM slow o) AS slow,
           (SELECT string_agg(concat('<tr><th scope="row">', o.name, '</th>', run_tracker.html_cell('Failed', o.failed),
                                     run_tracker.html_cell('Timed out', o.timed_out),
                                     run_tracker.html_cell('Success', o.success_rate, 'percent'),
                                     '<td class="', CASE WHEN o.success_rate < 90 THEN 'p-failed' ELSE 'p-waiting' END, ' wide">',
                                     run_tracker.html_meter(o.success_rate), '</td></tr>'),
                                     E'\n' ORDER BY o.n) FROM failing o) AS failing
    INTO total
    FROM (SELECT COALESCE(sum(k.total), 0) AS created, COALESCE(sum(k.finished), 0) AS finished,
                 COALESCE(sum(k.successful), 0) AS successful, COALESCE(sum(k.failed), 0) AS failed,
                 COALESCE(sum(k.cancelled), 0) AS cancelled, COALESCE(sum(k.timed_out), 0) AS timed_out,
                 COALESCE(sum(k.task_count), 0) AS tasks, COALESCE(sum(k.failed_task_count), 0) AS failed_tasks,
                 COALESCE(sum(k.input_tokens), 0) AS input_tokens, COALESCE(sum(k.output_tokens), 0) AS output_tokens,
                 COALESCE(sum(k.total_tokens), 0) AS tokens, COALESCE(sum(k.total_cost), 0) AS cost
          FROM stats k) k;

    SELECT run_tracker.histogram_quantile(h.durations, 0.5) AS p50_ms, run_tracker.histogram_quantile(h.durations, 0.95) AS p95_ms
    INTO duration
    FROM (SELECT run_tracker.merge_histograms(r.durations) AS durations
          FROM run_tracker.stat_rows('kind', 'all', NULL, from_hour) r WHERE r.phase = 'succeeded') h;

    SELECT array_agg(p.at ORDER BY p.at) AS periods,
           ARRAY[array_agg(COALESCE(t.successful, 0) ORDER BY p.at), array_agg(COALESCE(t.failed, 0) ORDER BY p.at),
                 array_agg(COALESCE(t.timed_out, 0) ORDER BY p.at), array_agg(COALESCE(t.cancelled, 0) ORDER BY p.at),
                 array_agg(COALESCE(t.created, 0) ORDER BY p.at)]::numeric[] AS counts,
           ARRAY[array_agg(t.p50_ms ORDER BY p.at), array_agg(t.p95_ms ORDER BY p.at)]::numeric[] AS durations
    INTO trend
    FROM generate_series(first_period, moment, step) p (at)
         LEFT JOIN run_tracker.trend_stats(CASE WHEN by_day THEN 'day' ELSE 'hour' END, first_period) t ON t.period_at = p.at;

    SELECT string_agg(concat('<tr><th scope="row">', COALESCE(run_tracker.html_text(NULLIF(m.model, ''), 100),
                                                              '<span class="muted">no model</span>'),
                             '<small>' || run_tracker.html_line(m.provider, m.operation) || '</small>', '</th>',
                             run_tracker.html_cell('Calls', m.task_count), run_tracker.html_cell('Failed', m.failed_task_count),
                             run_tracker.html_cell('Input', m.input_tokens), run_tracker.html_cell('Output', m.output_tokens),
                             run_tracker.html_cell('First token', m.first_token_p50_ms, 'ms'),
                             run_tracker.html_cell('95 %', m.p95_ms, 'ms'),
                             run_tracker.html_cell('Cost', m.total_cost, 'cost'), '<td class="p-retrieval wide">',
                             run_tracker.html_meter(100 * m.total_cost / NULLIF(m.highest, 0)), '</td></tr>'), E'\n' ORDER BY m.n)
    INTO models
    FROM (SELECT row_number() OVER () AS n, s.*, max(s.total_cost) OVER () AS highest
          FROM run_tracker.model_stats(since => from_hour) s LIMIT 10) m;

    SELECT string_agg(concat('<tr><th scope="row">', run_tracker.html_text(COALESCE(NULLIF(f.name, ''), NULLIF(f.kind, ''),
        'Run'), 120),
                             '<small class="mono">', f.run_id, '</small></th><td>', run_tracker.html_badge(f.status, f.phase),
                             '<small>', run_tracker.html_text(NULLIF(f.kind, ''), 100), '</small></td><td class="wide">',
                             run_tracker.html_text(f.error, 300), '</td><td data-label="Finished">',
                             run_tracker.html_time(f.finished_at),
                             '</td></tr>'), E'\n' ORDER BY f.finished_at DESC, f.run_id)
    INTO failures
    FROM (SELECT n.* FROM (SELECT r.run_id, r.name, r.kind, r.status, r.phase, r.error, r.finished_at
                           FROM run_tracker.runs r ORDER BY r.created_at DESC, r.run_id DESC LIMIT max_looked_at) n
          WHERE n.phase IN ('failed', 'timed_out') ORDER BY n.finished_at DESC, n.run_id LIMIT 10) f;

    RETURN run_tracker.html_page(title, concat_ws(E'\n',
        format('<header class="card"><p class="eyebrow">%s</p><h1>%s</h1></header>',
               concat_ws(' &#183; ', 'Dashboard', run_tracker.html_text(viewer, 200)), title),
        '<h2 class="sr">Totals</h2><dl class="tiles seven">',
        CASE WHEN pending.queued IS NULL THEN run_tracker.html_fact('Open now', run_tracker.html_number(pending.total),
                                                                    class => 'p-active')
             ELSE concat(run_tracker.html_fact('Queued now', run_tracker.html_number(pending.queued), class => 'p-queued'),
                         run_tracker.html_fact('Active now', run_tracker.html_number(pending.active), class => 'p-active'),
                         run_tracker.html_fact('Waiting now', run_tracker.html_number(pending.waiting),
                                               class => 'p-waiting')) END,
        run_tracker.html_fact('Succeeded', run_tracker.html_number(total.successful), class => 'p-succeeded'),
        run_tracker.html_fact('Failed', run_tracker.html_number(total.failed), class => 'p-failed'),
        run_tracker.html_fact('Timed out', run_tracker.html_number(total.timed_out), class => 'p-timed_out'),
        run_tracker.html_fact('Cancelled', run_tracker.html_number(total.cancelled), class => 'p-cancelled'),
        '</dl><dl class="tiles six">',
        run_tracker.html_fact('Created', run_tracker.html_number(total.created)),
        run_tracker.html_fact('Success', run_tracker.html_number(total.success_rate, 'percent'), 'of finished runs'),
        run_tracker.html_fact('Median duration', run_tracker.html_number(duration.p50_ms, 'ms'),
                              '95 %: ' || run_tracker.html_number(duration.p95_ms, 'ms')),
        run_tracker.html_fact('Tasks', run_tracker.html_number(total.tasks), run_tracker.html_number(total.failed_tasks)
                              || ' failed'),
        run_tracker.html_fact('Tokens', run_tracker.html_number(total.tokens, 'short'),
                              format('%s in, %s out', run_tracker.html_number(total.input_tokens, 'short'),
                                     run_tracker.html_number(total.output_tokens, 'short'))),
        run_tracker.html_fact('Cost', run_tracker.html_number(total.cost, 'cost')),
        '</dl><div class="pair">',
        run_tracker.html_section('Runs', run_tracker.html_chart(
            CASE WHEN by_day THEN 'Runs per day' ELSE 'Runs per hour' END, trend.periods,
            '{succeeded,failed,timed out,cancelled,created}', '{p-succeeded,p-failed,p-timed_out,p-cancelled,p-created}',
            '{f,f,f,f,t}', trend.counts), CASE WHEN by_day THEN 'per day' ELSE 'per hour' END),
        run_tracker.html_section('Duration', run_tracker.html_chart(
            'Durations of runs that succeeded', trend.periods, '{median,95 %}', '{p-active,p-retrieval}', '{t,t}',
            trend.durations, 'ms'),
            'of runs that succeeded'),
        '</div><div class="pair">',
        run_tracker.html_section('Slowest kinds', COALESCE('<table class="stack"><thead><tr><th scope="col">Kind</th>'
            '<th scope="col" class="num">Succeeded</th><th scope="col" class="num">Median</th><th scope="col" class="num">95 %</th>'
            '<th scope="col"><span class="sr">95 % in comparison</span></th></tr></thead><tbody>' || total.slow
            || '</tbody></table>',
            '<p class="none">No run succeeded.</p>')),
        run_tracker.html_section('Failing kinds', COALESCE('<table class="stack"><thead><tr><th scope="col">Kind</th>'
            '<th scope="col" class="num">Failed</th><th scope="col" class="num">Timed out</th><th scope="col" class="num">Success</th>'
            '<th scope="col"><span class="sr">Success rate</span></th></tr></thead><tbody>' || total.failing
            || '</tbody></table>',
            '<p class="none">No run failed.</p>')),
        '</div>',
        run_tracker.html_section('Models', COALESCE('<table class="stack"><thead><tr><th scope="col">Model</th>'
            '<th scope="col" class="num">Calls</th><th scope="col" class="num">Failed</th><th scope="col" class="num">Input</th>'
            '<th scope="col" class="num">Output</th><th scope="col" class="num">First token</th><th scope="col" class="num">95 %</th>'
            '<th scope="col" class="num">Cost</th><th scope="col"><span class="sr">Cost in comparison</span></th></tr></thead><tbody>'
            || models || '</tbody></table>', '<p class="none">No task finished.</p>'), 'by cost'),
        run_tracker.html_section('Newest failures', COALESCE('<table class="stack"><thead><tr><th scope="col">Run</th>'
            '<th scope="col">Status</th><th scope="col">Error</th><th scope="col">Finished</th></tr></thead><tbody>'
            || failures || '</tbody></table>', '<p class="none">None.</p>'),
            format('among the newest %s runs', run_tracker.html_number(max_looked_at))),
        CASE WHEN from_hour < moment - interval '8760 hours' THEN '<p class="cut">Charts show the last year.</p>' END));
END
$function$;
COMMENT ON FUNCTION run_tracker.dashboard_html(timestamptz) IS
'A page of HTML about the runs that the caller sees: how many are open now, and what was created and finished since then (rounded down to the hour; default 24 hours ago): counts, durations, success, tokens and cost, over time by hour or, beyond three days, by day (UTC), by kind and by model, from statistics; and the newest failures. It has no scripts and loads nothing; everything that comes from the tables is escaped. 22023 if since is in the future.';
