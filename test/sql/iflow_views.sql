\set ECHO none
-- The life of iflow on the views that create_compat() makes: it prints what it prints on a table.
\getenv abs_srcdir PG_ABS_SRCDIR
\set application iflow
\set file :abs_srcdir '/life/on_views.psql'
\i :file
\set ECHO none
