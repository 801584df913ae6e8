/* complain if this script is sourced in psql, rather than via CREATE EXTENSION */
\echo Use "CREATE EXTENSION run_tracker" to load this file. \quit

-- The schema belongs to the user, like the tables.  When a dump is restored, it is there before the extension, and
-- the tables come later: then only the functions are created.  A schema of anybody else's is refused.
DO $$
DECLARE
    owner pg_catalog.oid;
BEGIN
    SELECT n.nspowner INTO owner FROM pg_catalog.pg_namespace n WHERE n.nspname = 'run_tracker';
    IF NOT FOUND THEN
        PERFORM pg_catalog.set_config('run_tracker_install.fresh', 'on', true);
        CREATE SCHEMA run_tracker;
    ELSE
        PERFORM pg_catalog.set_config('run_tracker_install.fresh', 'off', true);
        IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles r
                       WHERE r.oid = owner AND (r.rolsuper OR r.rolname = CURRENT_USER)) THEN
            RAISE EXCEPTION 'schema "run_tracker" exists and belongs to role "%"', pg_catalog.pg_get_userbyid(owner)
                USING ERRCODE = 'insufficient_privilege',
                      HINT = 'Drop or rename the schema, or make it your own with ALTER SCHEMA run_tracker OWNER TO.';
        END IF;
    END IF;
END
$$;
