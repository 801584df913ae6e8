\set ECHO none
-- The life of SPARK sessions on tables that the application wrote by hand: what views must do as well.
\getenv abs_srcdir PG_ABS_SRCDIR
\set application spark
\set file :abs_srcdir '/life/on_tables.psql'
\i :file
