# What people read: streams while they arrive, and a long history. Read by bench/run.
# shellcheck shell=bash

# Bytes of WAL for streaming one answer. Another one comes first: what the first change of a page after a checkpoint
# adds is not the stream's.
stream() # kind
{
	local before after
	fill "$1" 1 2
	psql -c "CALL bench.stream('$1', 1)"
	before=$(psql -c 'SELECT pg_current_wal_insert_lsn()')
	psql -c "CALL bench.stream('$1', 0)"
	after=$(psql -c "SELECT pg_current_wal_insert_lsn() - '$before'")
	record stream "$1" "$after"
}

# name|role|target|query
reading_queries()
{
	cat <<'TXT'
list|client|< 5 ms|SELECT * FROM run_tracker.list_runs()
list_total|client|< 5 ms|SELECT * FROM run_tracker.list_runs(page => 3, with_total => true)
list_filter|client|< 5 ms|SELECT * FROM run_tracker.list_runs(status => 'failed', kind => 'kind-1')
list_sorted|client|< 5 ms|SELECT * FROM run_tracker.list_runs(order_by => 'duration_ms')
details|client|< 5 ms|SELECT run_tracker.run_details(run_id) FROM bench.newest
timeline|client|< 5 ms|SELECT t.* FROM bench.newest, run_tracker.timeline(run_id) t
recent|client|< 5 ms|SELECT * FROM run_tracker.recent_runs
active|client|< 5 ms|SELECT * FROM run_tracker.active_runs
user_stats|client|< 5 ms|SELECT * FROM run_tracker.user_stats()
kind_stats|client|< 5 ms|SELECT * FROM run_tracker.kind_stats(since => now() - interval '7 days')
workflow_stats|client|< 5 ms|SELECT * FROM run_tracker.workflow_stats('workflow-7')
model_stats|client|< 5 ms|SELECT * FROM run_tracker.model_stats()
trend|client|< 5 ms|SELECT * FROM run_tracker.trend_stats()
report|client||SELECT run_tracker.report_html(run_id) FROM bench.newest
list_all|service|< 50 ms|SELECT * FROM run_tracker.list_runs()
active_all|service|< 50 ms|SELECT * FROM run_tracker.active_runs
kind_stats_all|service|< 50 ms|SELECT * FROM run_tracker.kind_stats()
workflow_stats_all|service|< 50 ms|SELECT * FROM run_tracker.workflow_stats()
model_stats_all|service|< 50 ms|SELECT * FROM run_tracker.model_stats()
trend_all|service|< 50 ms|SELECT * FROM run_tracker.trend_stats('hour')
dashboard|service|< 50 ms|SELECT run_tracker.dashboard_html()
health|service|< 50 ms|SELECT run_tracker.health()
metrics|service|< 50 ms|SELECT run_tracker.openmetrics()
user_stats_all|service||SELECT * FROM run_tracker.user_stats()
TXT
}

reading()
{
	local name role target query options
	server run_tracker
	psql -c 'TRUNCATE run_tracker.runs CASCADE' -c 'TRUNCATE run_tracker.stat_deltas, run_tracker.stat_totals' 2>/dev/null
	psql -c "CALL bench.add_history($RT_HISTORY)"
	wait_for 'SELECT NOT EXISTS (SELECT FROM run_tracker.stat_deltas)' 3600
	psql -c 'VACUUM (ANALYZE)' -c CHECKPOINT
	# of a user with many runs, the newest one that has everything
	psql -c "CREATE TABLE bench.newest AS SELECT run_id, user_id FROM run_tracker.run_summary WHERE artifact_count > 0
	         ORDER BY created_at DESC LIMIT 1" \
		-c 'CREATE ROLE bench_client' -c "SELECT run_tracker.grant_client('bench_client')" -c 'CREATE ROLE bench_service' \
		-c "SELECT run_tracker.grant_service('bench_service')" -c 'GRANT USAGE ON SCHEMA bench TO bench_client, bench_service' \
		-c 'GRANT SELECT ON bench.newest TO bench_client, bench_service' >/dev/null
	options="-c request.jwt.claims={\"sub\":\"$(psql -c 'SELECT user_id FROM bench.newest')\"}"
	while IFS='|' read -r name role target query; do
		record "reading_$name" "$role" "$(PGOPTIONS="$options -c role=bench_$role" psql -c "SELECT bench.time(\$q\$$query\$q\$, 21)" </dev/null)"
	done < <(reading_queries)
	no_worker_errors
	psql -c 'DROP TABLE bench.newest' -c 'DROP OWNED BY bench_client, bench_service' -c 'DROP ROLE bench_client, bench_service'
}

reading_table()
{
	local name role target query
	echo "$RT_HISTORY runs of 1,000 users, five tasks each; as a user, under row level security, and as a service, over all users:"
	while IFS='|' read -r name role target query; do
		line "reading_$name" "$role" "  $role: $(cut -c 1-66 <<<"${query#SELECT }")" ms "$target"
	done < <(reading_queries)
}
