-- Each client completes its own tasks, one after the other: client c of -D per_client=… begins with c * per_client.
\set n :client_id * :per_client + :k
\set k :k + 1
UPDATE run_tracker.tasks
SET status = 'completed', response = 'the answer', input_tokens = 900, output_tokens = 100, cost = 0.0042
WHERE task_id = md5('t' || :n)::uuid;
