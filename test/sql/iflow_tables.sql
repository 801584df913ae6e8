\set ECHO none
-- The life of iFlow jobs on tables that the application wrote by hand: what views must do as well.
\getenv abs_srcdir PG_ABS_SRCDIR
\set application iflow
\set file :abs_srcdir '/life/on_tables.psql'
\i :file
