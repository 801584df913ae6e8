-- Each client completes its own tasks, one after the other: client c of -D per_client=… begins with c * per_client.
\set n :client_id * :per_client + :k
\set k :k + 1
UPDATE baseline.ai_tasks
SET status = 'completed', response_text = 'the answer', tokens_input = 900, tokens_output = 100, cost = 0.0042,
    tokens_total = 1000, completed_at = clock_timestamp(),
    total_time = extract(epoch FROM clock_timestamp() - created_at) * 1000
WHERE task_id = md5('t' || :n)::uuid;
