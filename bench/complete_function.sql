-- Each client completes its own tasks, one after the other: client c of -D per_client=… begins with c * per_client.
\set n :client_id * :per_client + :k
\set k :k + 1
SELECT run_tracker.complete_task(md5('t' || :n)::uuid, 'the answer', input_tokens => 900, output_tokens => 100,
                                 cost => 0.0042);
