-- Each client makes so many :calls in each round, of :batch runs; see bench.direct().
\set round :k / :calls
\if :k % :calls = 0
INSERT INTO bench.arrived VALUES (:round);
\endif
\if :round <= :rounds
\if :k % :calls = 0
SELECT pg_advisory_lock_shared(:round);
\endif
SELECT count(*) FROM run_tracker.claim_runs('client ' || :client_id, :batch);
\endif
\set k :k + 1
