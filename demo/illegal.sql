\echo alice=> UPDATE run_tracker.runs SET status = '\'processing\'' WHERE run_id = :'run';
UPDATE run_tracker.runs SET status = 'processing' WHERE run_id = :'run';
\echo SQLSTATE :LAST_ERROR_SQLSTATE
