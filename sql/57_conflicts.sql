-- INSERT ... ON CONFLICT into views of applications.

CREATE FUNCTION run_tracker.resolve_conflict(view regclass, new record, repeatable boolean DEFAULT false) RETURNS record
LANGUAGE c SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'run_tracker_resolve_conflict';
COMMENT ON FUNCTION run_tracker.resolve_conflict(regclass, record, boolean) IS
'What a trigger INSTEAD OF INSERT of a view of an application returns when a row with the key of new is there already. INSERT: 23505, or the row as it is if it can be seen and repeatable is true. ON CONFLICT DO NOTHING: null. ON CONFLICT DO UPDATE: the row after an UPDATE of the view, or null if the WHERE is not met. 23505 whenever the row is somebody else''s.';
