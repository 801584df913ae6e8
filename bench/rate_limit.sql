-- One of :users users calls an endpoint.
\set n random(1, :users)
SELECT allowed FROM run_tracker.consume_rate_limit('bench', 1, 'user-' || :n);
