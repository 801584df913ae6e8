-- One of :users users reserves what a call may use, and settles what it did: two transactions, as with a call in between.
\set n random(1, :users)
SELECT run_tracker.reserve_usage('user-' || :n, 1000, 0.01) AS reservation \gset
SELECT run_tracker.settle_usage(CAST(:reservation AS uuid), 800, 0.008);
