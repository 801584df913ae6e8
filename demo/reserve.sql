-- One call: reserve what it may use, make it, and say what it has used.
SELECT run_tracker.reserve_usage('carol', tokens => 1000) AS reservation \gset
SELECT run_tracker.settle_usage(CAST(:reservation AS uuid), tokens => 1000);
