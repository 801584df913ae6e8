-- A worker starts a model call, saves what has arrived of the answer, and is never heard of again.
SELECT run_tracker.create_run(:'run', kind => 'summary', name => 'a stuck run', timeout => '1 second') \g /dev/null
SELECT run_tracker.start_run(:'run', worker => 'worker-7') \g /dev/null
SELECT run_tracker.create_task(:'run', name => 'summarize', model => 'model-2') AS task \gset
SELECT run_tracker.start_task(:'task', 'streaming') \g /dev/null
UPDATE run_tracker.tasks SET response = 'The first half of the ans' WHERE task_id = :'task';
