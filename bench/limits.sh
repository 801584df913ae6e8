# Limits around calls: rates, reservations, circuit breakers. Read by bench/run.
# shellcheck shell=bash

limits_of() # script clients users calls
{
	psql -c 'VACUUM (ANALYZE) run_tracker.reservations, run_tracker.usage_records, run_tracker.stat_deltas, run_tracker.stat_totals' \
		-c CHECKPOINT
	"$RT_BINDIR/pgbench" -n -M prepared -c "$2" -j "$(($2 < 4 ? $2 : 4))" -t "$(($4 / $2))" -D users="$3" -f "bench/$1.sql" \
		bench >"$RT_TMP/pgbench" 2>&1 || { cat "$RT_TMP/pgbench" >&2; exit 1; }
	record "limits_$1" "$2_$3" "$(sed -n 's/^tps = \([0-9.]*\) (without initial.*/\1/p' "$RT_TMP/pgbench")"
}

limits()
{
	local i clients users script
	server run_tracker
	# none of the calls is refused
	psql -c "UPDATE run_tracker.tiers SET monthly_tokens = NULL, daily_requests = 1000000000, monthly_cost = 1000000000,
		rate_limits = '{\"*\": {\"limit\": 1000000000, \"window\": \"1 minute\"}}' WHERE name = 'free'"
	for ((i = 0; i < RT_REPEAT; i++)); do
		for clients in 1 16; do
			for users in 1 1000; do
				for script in nothing rate_limit breaker; do
					limits_of "$script" "$clients" "$users" "$RT_CALLS"
				done
				limits_of reserve "$clients" "$users" "$RT_RESERVATIONS"
			done
		done
	done
}

limits_table()
{
	local clients users whose
	for clients in 1 16; do
		for users in 1 1000; do
			whose=$([ "$users" = 1 ] && echo 'the same' || echo "$users different")
			line limits_nothing "${clients}_$users" "a query that does nothing, $clients client(s)" tps ""
			line limits_rate_limit "${clients}_$users" "  consume_rate_limit(), $whose user(s)" tps "" "${clients}_$users" limits_nothing
			line limits_breaker "${clients}_$users" "  breaker_allow(), $whose breaker(s)" tps "" "${clients}_$users" limits_nothing
			line limits_reserve "${clients}_$users" "  reserve_usage() and settle_usage(), $whose user(s)" tps ""
		done
	done
}
