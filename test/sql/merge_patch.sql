--
-- JSON Merge Patch (RFC 7396): merge_patch() and the aggregate merge_patches().
--
\getenv abs_srcdir PG_ABS_SRCDIR
\set common :abs_srcdir '/sql/common.psql'
\i :common

-- the test cases of RFC 7396, appendix A, in its order
CREATE TEMP TABLE cases (n int GENERATED ALWAYS AS IDENTITY, original jsonb, patch jsonb, expected jsonb);
INSERT INTO cases (original, patch, expected) VALUES
    ('{"a":"b"}', '{"a":"c"}', '{"a":"c"}'),
    ('{"a":"b"}', '{"b":"c"}', '{"a":"b", "b":"c"}'),
    ('{"a":"b"}', '{"a":null}', '{}'),
    ('{"a":"b", "b":"c"}', '{"a":null}', '{"b":"c"}'),
    ('{"a":["b"]}', '{"a":"c"}', '{"a":"c"}'),
    ('{"a":"c"}', '{"a":["b"]}', '{"a":["b"]}'),
    ('{"a": {"b": "c"}}', '{"a": {"b": "d", "c": null}}', '{"a": {"b": "d"}}'),
    ('{"a": [{"b":"c"}]}', '{"a": [1]}', '{"a": [1]}'),
    ('["a","b"]', '["c","d"]', '["c","d"]'),
    ('{"a":"b"}', '["c"]', '["c"]'),
    ('{"a":"foo"}', 'null', 'null'),
    ('{"a":"foo"}', '"bar"', '"bar"'),
    ('{"e":null}', '{"a":1}', '{"e":null, "a":1}'),
    ('[1,2]', '{"a":"b", "c":null}', '{"a":"b"}'),
    ('{}', '{"a":{"bb":{"ccc":null}}}', '{"a":{"bb":{}}}');
SELECT n, run_tracker.merge_patch(original, patch), run_tracker.merge_patch(original, patch) = expected AS as_expected FROM cases ORDER BY n;
-- the example of section 3
SELECT jsonb_pretty(run_tracker.merge_patch(
    '{"title": "Goodbye!", "author": {"givenName": "John", "familyName": "Doe"}, "tags": ["example", "sample"], "content": "This will be unchanged"}',
    '{"title": "Hello!", "phoneNumber": "+01-123-456-7890", "author": {"familyName": null}, "tags": ["example"]}'));

-- a target that is null is none; a patch that is null changes nothing
SELECT run_tracker.merge_patch(NULL, '{"a": {"b": null, "c": [null, {"d": null}]}}');
SELECT run_tracker.merge_patch(NULL, '5');
SELECT run_tracker.merge_patch('{"a": 1}', NULL);
SELECT run_tracker.merge_patch(NULL, NULL);
SELECT run_tracker.merge_patch('{}', '{}'), run_tracker.merge_patch('7', '{}'), run_tracker.merge_patch('{"a": 1}', '[]'), run_tracker.merge_patch('true', 'false');
-- kinds of values, long ones, keys that are empty, strange, or many
SELECT run_tracker.merge_patch('{"": 1, "keep": -1.50, "gone": {"x": 1}}', '{"": {"": ""}, "😀": "\u00fc\n", "big": 123456789012345678901234567890.0123, "yes": true, "gone": null, "no": false}');
SELECT length(run_tracker.merge_patch(jsonb_build_object('a', repeat('x', 100000)), jsonb_build_object('b', repeat('y', 100000)))::text);
SELECT run_tracker.merge_patch(t, p) = r AS many_keys
FROM (SELECT jsonb_object_agg(k, '{"old": true}'::jsonb) AS t,
             jsonb_object_agg(k, CASE k % 3 WHEN 1 THEN '{"new": true, "old": null}' ELSE 'null'::jsonb END) FILTER (WHERE k % 3 <> 2) AS p,
             jsonb_object_agg(k, CASE k % 3 WHEN 1 THEN '{"new": true}' ELSE '{"old": true}'::jsonb END) FILTER (WHERE k % 3 <> 0) AS r
      FROM generate_series(1, 20000) k) v;
-- a patch again and again gives the same
SELECT bool_and(run_tracker.merge_patch(run_tracker.merge_patch(original, patch), patch) = run_tracker.merge_patch(original, patch)) AS idempotent FROM cases;

-- many patches, one after another
SELECT run_tracker.merge_patches(p ORDER BY n) FROM (VALUES (1, '{"a": 1, "b": {"c": 2}}'::jsonb), (2, '{"b": {"c": null, "d": [1, null]}}'), (3, NULL), (4, '{"a": null}')) v (n, p);
SELECT run_tracker.merge_patches(p ORDER BY n DESC) FROM (VALUES (1, '{"a": 1, "b": {"c": 2}}'::jsonb), (2, '{"b": {"c": null, "d": [1, null]}}'), (4, '{"a": null}')) v (n, p);
SELECT run_tracker.merge_patches(p ORDER BY n) FROM (VALUES (1, '{"a": {"b": 1}}'::jsonb), (2, '"text"'), (3, '{"c": {"d": null}}'), (4, '{"c": {"d": {"e": 1}}}'), (5, '{"c": [3]}'), (6, '{"c": {"f": 1}}')) v (n, p);
SELECT run_tracker.merge_patches('{}'::jsonb) FROM generate_series(1, 3);
SELECT run_tracker.merge_patches(NULL::jsonb) FROM generate_series(1, 3);
SELECT run_tracker.merge_patches('{}'::jsonb) WHERE false;
-- as a window function, it has a result for each row
SELECT n, run_tracker.merge_patches(p) OVER (ORDER BY n) FROM (VALUES (1, '{"a": 1, "b": {"c": 2}}'::jsonb), (2, '{"b": {"c": null, "d": 1}}'), (3, '{"a": null}'), (4, '{"b": {"e": {"f": 0}}}')) v (n, p);

-- the same as a definition of RFC 7396 in SQL, for documents made at random
CREATE FUNCTION pg_temp.reference(target jsonb, patch jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    member record;
BEGIN
    IF jsonb_typeof(patch) <> 'object' THEN
        RETURN patch;
    END IF;
    IF target IS NULL OR jsonb_typeof(target) <> 'object' THEN
        target := '{}';
    END IF;
    FOR member IN SELECT key, value FROM jsonb_each(patch) LOOP
        IF member.value = 'null' THEN
            target := target - member.key;
        ELSE
            target := target || jsonb_build_object(member.key, pg_temp.reference(target -> member.key, member.value));
        END IF;
    END LOOP;
    RETURN target;
END
$$;
CREATE FUNCTION pg_temp.document(depth int) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    kind float := random();
    result jsonb := '{}';
BEGIN
    IF depth = 0 OR kind < 0.2 THEN
        RETURN (ARRAY['null', '1', '2.50', '"text"', 'true', '[]', '[{"a": null}, 2]', '{}']::jsonb[])[1 + floor(8 * random())];
    END IF;
    FOR i IN 1 .. floor(5 * random()) LOOP
        result := result || jsonb_build_object(chr(97 + floor(5 * random())::int), pg_temp.document(depth - 1));
    END LOOP;
    RETURN result;
END
$$;
SELECT setseed(0.5);
CREATE TEMP TABLE documents AS SELECT n, pg_temp.document(5) AS target, pg_temp.document(5) AS patch FROM generate_series(1, 2000) n;
SELECT count(*) AS different FROM documents WHERE run_tracker.merge_patch(target, patch) IS DISTINCT FROM pg_temp.reference(target, patch);
SELECT count(DISTINCT run_tracker.merge_patch(target, patch)) > 500 AS various FROM documents;
DO $$
DECLARE
    expected jsonb;
    p jsonb;
BEGIN
    FOR p IN SELECT patch FROM documents ORDER BY n LOOP
        expected := pg_temp.reference(expected, p);
    END LOOP;
    ASSERT expected = (SELECT run_tracker.merge_patches(patch ORDER BY n) FROM documents);
END
$$;

-- nested as deep as jsonb may be, and no deeper
CREATE FUNCTION pg_temp.nested(n int, leaf text) RETURNS jsonb LANGUAGE sql AS $$ SELECT (repeat('{"a":', n) || leaf || repeat('}', n))::jsonb $$;
SELECT run_tracker.merge_patch(pg_temp.nested(5000, '1'), pg_temp.nested(5000, '{"b": 2}')) = pg_temp.nested(5000, '{"b": 2}') AS replaced,
       run_tracker.merge_patch(pg_temp.nested(5000, '1'), pg_temp.nested(5000, 'null')) = pg_temp.nested(4999, '{}') AS removed,
       run_tracker.merge_patch(pg_temp.nested(5000, '1'), '{"a": null}') AS all_gone;
SELECT run_tracker.merge_patches(p) = pg_temp.nested(5000, '2') AS replaced FROM (VALUES (pg_temp.nested(5000, '{"b": 1}')), ('{"a": 1}'), (pg_temp.nested(5000, '2'))) v (p);
DO $$ BEGIN PERFORM run_tracker.merge_patch('{}', pg_temp.nested(1000000, '1')); EXCEPTION WHEN statement_too_complex THEN RAISE INFO 'too deep for jsonb'; END $$;

-- a patch costs what it says, not what there is: 20,000 of them on a large object
SELECT count(*) FROM (
    SELECT run_tracker.merge_patches(p ORDER BY n) AS result
    FROM (SELECT 0, jsonb_object_agg('key' || k, repeat('x', 100)) FROM generate_series(1, 20000) k
          UNION ALL SELECT n, jsonb_build_object('key' || n, n, 'new' || n, jsonb_build_object('a', n)) FROM generate_series(1, 20000) n) v (n, p)) v,
    LATERAL jsonb_object_keys(v.result);

-- anybody who may read can use them
CREATE ROLE regress_merge_patch;
SELECT run_tracker.grant_reader('regress_merge_patch');
SET ROLE regress_merge_patch;
SELECT run_tracker.merge_patch('{}', '{"a": 1}');
SELECT run_tracker.merge_patches('{"a": 1}'::jsonb);
RESET ROLE;
DROP OWNED BY regress_merge_patch;
DROP ROLE regress_merge_patch;
