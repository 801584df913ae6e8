-- What a call costs in any case.
\set n random(1, :users)
SELECT 'user-' || :n;
