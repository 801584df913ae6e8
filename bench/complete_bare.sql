-- Each client completes its own tasks, one after the other: client c of -D per_client=… begins with c * per_client.
\set n :client_id * :per_client + :k
\set k :k + 1
UPDATE bare.tasks
SET status = 'completed', response = 'the answer', input_tokens = 900, output_tokens = 100, cost = 0.0042,
    total_tokens = 1000, phase = 'succeeded', finished_at = clock_timestamp(), updated_at = clock_timestamp(),
    duration_ms = extract(epoch FROM clock_timestamp() - started_at) * 1000
WHERE task_id = md5('t' || :n)::uuid;
