\set ECHO none
-- The life of workflow executions on a table that the application wrote by hand: what a view must do as well.
\getenv abs_srcdir PG_ABS_SRCDIR
\set application workflow
\set file :abs_srcdir '/life/on_tables.psql'
\i :file
