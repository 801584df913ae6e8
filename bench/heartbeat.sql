-- Each client has its own runs, and a run its next heartbeat when all others have had theirs.
\set n :client_id * :per_client + :k % :per_client
\set k :k + 1
SELECT run_tracker.heartbeat_run(md5('r' || :n)::uuid, 1);
