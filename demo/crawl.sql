-- A run with 800 open tasks, whose ids crawl_task.sql can compute: 100 for each of 8 clients.
SELECT run_tracker.create_run(:'run', kind => 'batch', name => 'crawl 800 pages') \g /dev/null
SELECT run_tracker.start_run(:'run') \g /dev/null
INSERT INTO run_tracker.tasks (run_id, task_id, name)
SELECT :'run', md5(format('%s/%s', client, n))::uuid, format('page %s/%s', client, n)
FROM generate_series(0, 7) client, generate_series(1, 100) n;
