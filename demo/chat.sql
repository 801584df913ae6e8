-- A conversation of two turns. Every statement is a transaction of its own, as from a web server.
\pset tuples_only on
\pset format unaligned

SELECT run_tracker.create_run(:'run', kind => 'chat', lifecycle => 'conversation', settings => '{"temperature": 0.2}')
\g /dev/null
-- the name of the run will be made from the first message

-- turn 1: the task, the question, the answer piece by piece
SELECT run_tracker.create_task(:'run', name => 'answer', operation => 'chat', provider => 'anthropic', model => 'model-1')
       AS task \gset
SELECT run_tracker.add_message(:'run', 'user', 'What is the capital of France, and why?', task_id => :'task') \g /dev/null
\echo 'question  What is the capital of France, and why?'
SELECT pg_sleep(0.12) \g /dev/null
SELECT run_tracker.append_response(:'task', 'Paris,') \g /dev/null
\echo 'streamed  ' `"$RT_BINDIR/psql" -XAt -c "SELECT status || ': ' || run_tracker.task_response(task_id) FROM run_tracker.tasks WHERE status = 'streaming'"`
SELECT pg_sleep(0.05) \g /dev/null
SELECT run_tracker.append_response(:'task', ' since Clovis made it') \g /dev/null
\echo 'streamed  ' `"$RT_BINDIR/psql" -XAt -c "SELECT status || ': ' || run_tracker.task_response(task_id) FROM run_tracker.tasks WHERE status = 'streaming'"`
SELECT pg_sleep(0.05) \g /dev/null
SELECT run_tracker.append_response(:'task', ' his seat in 508.') \g /dev/null
SELECT run_tracker.complete_task(:'task', input_tokens => 18, output_tokens => 13, cost => 0.000249,
                                 finish_reason => 'stop') \g /dev/null
SELECT run_tracker.add_message(:'run', 'assistant', response, task_id => task_id)
FROM run_tracker.tasks WHERE task_id = :'task' \g /dev/null
SELECT 'answered  ' || status || ': ' || response || E'\n          first token after ' || time_to_first_token_ms || ' ms, '
       || total_tokens || ' tokens, ' || cost || ' $'
FROM run_tracker.tasks WHERE task_id = :'task';

-- turn 2
SELECT run_tracker.create_task(:'run', name => 'answer', operation => 'chat', provider => 'anthropic', model => 'model-1')
       AS task \gset
SELECT run_tracker.add_message(:'run', 'user', 'And before that?', task_id => :'task') \g /dev/null
SELECT run_tracker.start_task(:'task', 'streaming') \g /dev/null
\echo 'question  And before that?'
SELECT pg_sleep(0.08) \g /dev/null
UPDATE run_tracker.tasks SET response = 'Lutetia, ' WHERE task_id = :'task';
\echo 'streamed  ' `"$RT_BINDIR/psql" -XAt -c "SELECT status || ': ' || run_tracker.task_response(task_id) FROM run_tracker.tasks WHERE status = 'streaming'"`
SELECT pg_sleep(0.05) \g /dev/null
SELECT run_tracker.complete_task(:'task', 'Lutetia, a town of the Parisii; Gaul was ruled from Lugdunum.',
                                 input_tokens => 47, output_tokens => 17, cost => 0.000396, finish_reason => 'stop')
\g /dev/null
SELECT run_tracker.add_message(:'run', 'assistant', response, task_id => task_id)
FROM run_tracker.tasks WHERE task_id = :'task' \g /dev/null
SELECT 'answered  ' || status || ': ' || response || E'\n          first token after ' || time_to_first_token_ms || ' ms, '
       || total_tokens || ' tokens, ' || cost || ' $'
FROM run_tracker.tasks WHERE task_id = :'task';

SELECT run_tracker.complete_run(:'run') \g /dev/null
SELECT 'closed    ' || status || ', named "' || name || '"' FROM run_tracker.runs WHERE run_id = :'run';
