\set ECHO none
-- The life of chat runs on views of run_tracker.
\getenv abs_srcdir PG_ABS_SRCDIR
\set application ai_runs
\set file :abs_srcdir '/life/on_views.psql'
\i :file
