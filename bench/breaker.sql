-- One of :users services is asked for.
\set n random(1, :users)
SELECT run_tracker.breaker_allow('service-' || :n);
