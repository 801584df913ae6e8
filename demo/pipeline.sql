-- A pipeline that fails at its first attempt.
\pset tuples_only on
\pset format unaligned

-- the id is the caller's own; asking twice makes one run
SELECT run_tracker.create_run(:'run', lifecycle => 'spar', kind => 'edu_context', name => 'journal entry 4711',
                              subject_id => 'entry-4711', max_attempts => 3, inputs => '{"language": "en"}') \g /dev/null
SELECT run_tracker.create_run(:'run', lifecycle => 'spar') \g /dev/null
SELECT run_tracker.start_run(:'run', worker => 'worker-1') \g /dev/null
SELECT run_tracker.update_progress(:'run', 10, 'analyze') \g /dev/null
SELECT run_tracker.add_log(:'run', 'analysis begins', step_name => 'analyze') \g /dev/null
SELECT run_tracker.create_task(:'run', name => 'analyze', model => 'model-2') AS task \gset
SELECT run_tracker.start_task(:'task') \g /dev/null
SELECT pg_sleep(0.04) \g /dev/null
SELECT run_tracker.fail_task(:'task', 'model overloaded', error_detail => 'HTTP 529', input_tokens => 900, cost => 0.0027)
\g /dev/null
SELECT run_tracker.add_log(:'run', 'the model is overloaded', 'ERROR', step_name => 'analyze', details => '{"http": 529}')
\g /dev/null
SELECT run_tracker.fail_run(:'run', 'model overloaded') \g /dev/null
SELECT format('attempt %s  %s: %s', attempt, status, error) FROM run_tracker.runs WHERE run_id = :'run';

SELECT run_tracker.retry_run(:'run') \g /dev/null
SELECT run_tracker.start_run(:'run', worker => 'worker-2') \g /dev/null
-- worker 1 comes back from the dead, with a result of attempt 1
\set ON_ERROR_STOP off
\set VERBOSITY terse
\echo 'worker-1 of attempt 1 tries to complete the run:'
\o /dev/null
SELECT run_tracker.complete_run(:'run', result => '{"quality_score": 0}', attempt => 1);
\o
\set late :LAST_ERROR_SQLSTATE
\set ON_ERROR_STOP on
SELECT CASE :'late' WHEN 'RT003' THEN 'SQLSTATE RT003, nothing is changed'
                    ELSE format('a late writer was not fenced off (%s)', 1 / 0) END;

SELECT run_tracker.add_log(:'run', 'second attempt', 'WARNING', step_name => 'analyze') \g /dev/null
SELECT run_tracker.create_task(:'run', name => 'analyze', model => 'model-2') AS task \gset
SELECT run_tracker.start_task(:'task') \g /dev/null
SELECT pg_sleep(0.06) \g /dev/null
SELECT run_tracker.complete_task(:'task', 'growth mindset, teamwork', input_tokens => 900, output_tokens => 120, cost => 0.0045)
\g /dev/null
SELECT run_tracker.complete_run(:'run', result => '{"quality_score": 0.92, "competencies": ["teamwork"]}',
                                reflections => '["ask for examples"]') \g /dev/null
SELECT format('attempt %s  %s: %s', attempt, status, result) FROM run_tracker.runs WHERE run_id = :'run';
