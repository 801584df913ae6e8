# The works that need the library to be preloaded: read by bench/run.
# shellcheck shell=bash

# Restarts the server if it does not run with these libraries already. With commit_timestamp, it also keeps when
# transactions were committed.
server() # libraries [commit_timestamp]
{
	local data log owner=()
	if [ "$*" = "${running_server:-}" ]; then
		return
	fi
	running_server="$*"
	# an empty list would have one library without a name
	if [ -n "$1" ]; then
		psql -d postgres -c "ALTER SYSTEM SET shared_preload_libraries = '$1'"
	else
		psql -d postgres -c 'ALTER SYSTEM RESET shared_preload_libraries'
	fi
	psql -d postgres -c "ALTER SYSTEM SET track_commit_timestamp = $([ -n "${2:-}" ] && echo on || echo off)"
	data=$(psql -d postgres -c 'SHOW data_directory')
	log=$(readlink "/proc/$(head -n 1 "$data/postmaster.pid")/fd/2")
	if [ "$(id -u)" = 0 ]; then
		owner=(runuser -u "$(stat -c %U "$data")" --)
	fi
	# not pg_ctlcluster, which takes all clusters of this name for one
	(cd / && "${owner[@]}" "$RT_BINDIR/pg_ctl" -s -w -m fast -D "$data" -l "$log" restart)
	[ "$(psql -d postgres -c 'SHOW shared_preload_libraries')" = "$1" ] ||
		{ echo "bench: settings did not arrive" >&2; exit 1; }
}

# Waits until a query says t, for two minutes unless told otherwise.
wait_for() # query [seconds]
{
	local i
	for ((i = 0; i < ${2:-120} * 10; i++)); do
		if [ "$(psql -c "$1")" = t ]; then
			return
		fi
		sleep 0.1
	done
	echo "bench: waited in vain for: $1" >&2
	exit 1
}

no_worker_errors()
{
	local errors
	errors=$(psql -c "SELECT last_error FROM run_tracker.worker_status WHERE errors > 0")
	[ -z "$errors" ] || { echo "bench: the worker had errors: $errors" >&2; exit 1; }
}

# ---- Timeouts ----

lateness() # work span
{
	local values names=(p50 p99 max visible_p99 visible_max) i
	psql -c 'VACUUM (ANALYZE) run_tracker.runs, run_tracker.open_runs, run_tracker.run_totals'
	psql -c "CALL bench.add_due($RT_DUE, '$RT_LEAD', '$2')"
	sleep "$(psql -c 'SELECT greatest(extract(epoch FROM max(due_at) - clock_timestamp()), 0) FROM bench.due')"
	wait_for 'SELECT NOT EXISTS (SELECT FROM run_tracker.open_runs o JOIN bench.due d ON d.run_id = o.run_id)'
	IFS='|' read -ra values <<<"$(psql -c 'SELECT * FROM bench.lateness()')"
	for i in "${!names[@]}"; do
		record "$1" "${names[i]}" "${values[i]}"
	done
}

timeouts()
{
	local finished i
	server run_tracker commit_timestamp
	psql -c 'TRUNCATE run_tracker.runs CASCADE' -c "CALL bench.add_open($RT_OPEN)" 2>/dev/null
	for finished in $RT_FINISHED; do
		psql -c "CALL bench.add_finished($finished)" -c 'VACUUM (ANALYZE)' -c CHECKPOINT
		for ((i = 0; i < RT_REPEAT; i++)); do
			lateness "timeouts_$finished" "$RT_SPAN"
			lateness "timeouts_at_once_$finished" 0
		done
	done
	no_worker_errors
	psql -c 'TRUNCATE run_tracker.runs CASCADE' 2>/dev/null
}

timeouts_table()
{
	local finished first=${RT_FINISHED%% *}
	for finished in $RT_FINISHED; do
		line "timeouts_$finished" p50 "$RT_DUE runs due over $RT_SPAN, $RT_OPEN open, $finished finished: p50 late" ms "" \
			p50 "timeouts_$first"
		line "timeouts_$finished" p99 "  p99" ms "" p99 "timeouts_$first"
		line "timeouts_$finished" max "  last" ms "< 1000 ms" max "timeouts_$first"
		line "timeouts_$finished" visible_p99 "  p99, until it is committed" ms "" visible_p99 "timeouts_$first"
		line "timeouts_$finished" visible_max "  last, until it is committed" ms "" visible_max "timeouts_$first"
		line "timeouts_at_once_$finished" p50 "the same all due at the same moment: p50 late" ms "" \
			p50 "timeouts_at_once_$first"
		line "timeouts_at_once_$finished" visible_max "  last, until it is committed" ms "< 1000 ms" \
			visible_max "timeouts_at_once_$first"
	done
}

# ---- Idle ----

# The clock ticks and nanoseconds that a process has used, those of its children that have ended, and how often it slept.
# (A worker lives for a moment only: it counts among the children of the postmaster.)
cpu() # pid
{
	local stat
	stat=$(cat "/proc/$1/stat")
	# what follows the name, which may have blanks
	read -ra stat <<<"${stat##*) }"
	echo "$((stat[11] + stat[12])) $(cut -d ' ' -f 1 "/proc/$1/schedstat")" \
		"$((stat[13] + stat[14])) $(sed -n 's/^voluntary_ctxt_switches:\s*//p' "/proc/$1/status")"
}

idle()
{
	local postmaster launcher before after passes
	server run_tracker
	psql -c 'TRUNCATE run_tracker.runs CASCADE' -c "CALL bench.add_open($RT_OPEN)" -c 'VACUUM (ANALYZE)' \
		-c CHECKPOINT 2>/dev/null
	wait_for "SELECT pid IS NULL AND state = 'sleeping' FROM run_tracker.worker_status WHERE database = current_database()"
	launcher=$(psql -c 'SELECT max(launcher_pid) FROM run_tracker.worker_status')
	postmaster=$(head -n 1 "$(psql -c 'SHOW data_directory')/postmaster.pid")
	passes=$(psql -c 'SELECT sum(passes) FROM run_tracker.worker_status')
	# our own backends are children, too
	sleep 2
	read -ra before <<<"$(cpu "$launcher") $(cpu "$postmaster")"
	sleep 10
	read -ra after <<<"$(cpu "$launcher") $(cpu "$postmaster")"
	record idle launcher_ticks $((after[0] - before[0]))
	record idle launcher_us $(((after[1] - before[1]) / 1000))
	record idle launcher_switches $((after[3] - before[3]))
	record idle worker_ticks $((after[6] - before[6]))
	record idle passes $(($(psql -c 'SELECT sum(passes) FROM run_tracker.worker_status') - passes))
	no_worker_errors
}

idle_table()
{
	line idle launcher_ticks "$RT_OPEN open runs, 10 s of idleness: launcher, CPU time" ticks "0 ticks"
	line idle launcher_us "  the same, finer" us ""
	line idle launcher_switches "  how often it slept" times ""
	line idle worker_ticks "  workers and all other children that ended, CPU time" ticks "0 ticks"
	line idle passes "  passes of workers" times "0 times"
}

# ---- Claims ----

# Claims of RT_CLAIMED runs in each round, from a queue that is full at its beginning.
claims_from() # work queue clients batch
{
	local work=$1 queue=$2 clients=$3 batch=$4 calls=$((RT_CLAIMED / $3 / $4)) log="$RT_TMP/pgbench" before after seconds
	before=$(psql -c "SELECT count(*) FROM run_tracker.open_runs WHERE phase = 'active'")
	psql -c "CALL bench.direct($clients, $RT_ROUNDS, $queue)" &
	wait_for "SELECT count(*) > $RT_ROUNDS FROM pg_locks
		WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
	"$RT_BINDIR/pgbench" -n -M prepared -c "$clients" -j "$((clients < 4 ? clients : 4))" \
		-t "$((calls * (RT_ROUNDS + 1) + 1))" -D k=0 -D calls="$calls" -D rounds="$RT_ROUNDS" -D batch="$batch" \
		-f bench/claim.sql "$PGDATABASE" >"$log" 2>&1 ||
		{ cat "$log" >&2; exit 1; }
	wait $!
	after=$(psql -c "SELECT count(*) FROM run_tracker.open_runs WHERE phase = 'active'")
	[ $((after - before)) = $((RT_CLAIMED * (RT_ROUNDS + 1))) ] ||
		{ echo "bench: $((after - before)) runs were claimed instead of $((RT_CLAIMED * (RT_ROUNDS + 1)))" >&2; exit 1; }
	for seconds in $(psql -c 'SELECT seconds FROM bench.rounds'); do
		record "$work" "$queue" "$(awk -v n="$RT_CLAIMED" -v s="$seconds" 'BEGIN { print n / s }')"
	done
}

claims()
{
	local i config queue
	server run_tracker
	psql -d postgres -c 'CREATE DATABASE large'
	PGDATABASE=large psql -c 'CREATE EXTENSION run_tracker' -c 'CREATE SCHEMA bench' -f bench/background.sql \
		-c "CALL bench.fill_queue($RT_QUEUE)" -c 'VACUUM (ANALYZE)'
	for ((i = 0; i < RT_REPEAT; i++)); do
		for config in "1 1" "16 1" "1 50" "16 50"; do
			for queue in $(in_turn "$i" 1000 "$RT_QUEUE"); do
				if [ "$queue" = 1000 ]; then
					psql -c 'TRUNCATE run_tracker.runs CASCADE' -c "CALL bench.fill_queue($queue)" \
						-c 'VACUUM (ANALYZE)' 2>/dev/null
					claims_from "claims_${config/ /_}" "$queue" ${config}
				else
					PGDATABASE=large psql -c "CALL bench.fill_queue($queue)" -c 'VACUUM (ANALYZE)'
					PGDATABASE=large claims_from "claims_${config/ /_}" "$queue" ${config}
				fi
			done
		done
	done
	PGDATABASE=large psql -c 'VACUUM run_tracker.open_runs' \
		-c "SELECT count(*) FROM generate_series(1, $RT_WORN / 1000), LATERAL run_tracker.claim_runs('somebody', 1000)" >/dev/null
	PGDATABASE=large claims_from claims_worn "$RT_QUEUE" 1 1
	no_worker_errors
	psql -d postgres -c 'DROP DATABASE large'
}

claims_table()
{
	local config clients batch
	for config in "1 1" "16 1" "1 50" "16 50"; do
		read -r clients batch <<<"$config"
		line "claims_${clients}_$batch" 1000 "runs claimed from 1000, $clients client(s), $batch at a time" runs/s ""
		line "claims_${clients}_$batch" "$RT_QUEUE" "  from $RT_QUEUE" runs/s ">= 67 %" 1000
	done
	line claims_worn "$RT_QUEUE" "  1 client, 1 at a time, after $RT_WORN claims without vacuum" runs/s "" \
		"$RT_QUEUE" claims_1_1
}

# ---- Notifications ----

# A client that listens, and reads what it is told ten times a second.
start_listener()
{
	: >"$RT_TMP/heard"
	{
		printf 'LISTEN run_tracker;\n\\echo listening\n'
		while sleep 0.1; do
			echo 'SELECT;' || break
		done 2>/dev/null
	} | "$RT_BINDIR/psql" -XqAt >"$RT_TMP/heard" 2>&1 &
	listener=$!
	until grep -q listening "$RT_TMP/heard"; do
		kill -0 "$listener" || { echo "bench: nobody listens" >&2; exit 1; }
		sleep 0.1
	done
}

notify_with() # work runs mode [listener]
{
	local completions=$RT_NOTIFY
	if [ -n "${4:-}" ]; then
		start_listener
	fi
	if [ "$3" = commit ]; then
		# commits that notify wait for each other
		completions=$((RT_NOTIFY / 4))
	fi
	pgbench_tps "$1" tracker 16 "$completions" "$2" -c run_tracker.notify="$3"
	if [ -n "${4:-}" ]; then
		# the last one comes after run_tracker.notify_interval
		sleep 0.5
		kill "$listener"
		wait "$listener" 2>/dev/null || true
		record "$1_heard" tracker "$(grep -c 'Asynchronous notification' "$RT_TMP/heard" || true)"
	fi
}

notify()
{
	local i runs kind
	for ((i = 0; i < RT_REPEAT; i++)); do
		server run_tracker
		for runs in 1 1000; do
			for kind in $(in_turn "$i" off worker commit worker_heard commit_heard); do
				case $kind in
					*_heard) notify_with "notify_${runs}_$kind" "$runs" "${kind%_heard}" listener ;;
					*) notify_with "notify_${runs}_$kind" "$runs" "$kind" ;;
				esac
			done
		done
		no_worker_errors
		server ''
		notify_with notify_1_absent 1 worker
	done
}

notify_table()
{
	local runs
	for runs in 1 1000; do
		line "notify_${runs}_off" tracker "complete tasks of $runs run(s), 16 clients, no notifications" tps ""
		line "notify_${runs}_worker" tracker "  by the worker" tps ">= 95 %" tracker "notify_${runs}_off"
		line "notify_${runs}_worker_heard" tracker "  by the worker, somebody listens" tps ">= 95 %" \
			tracker "notify_${runs}_off"
		line "notify_${runs}_worker_heard_heard" tracker "    notifications of $RT_NOTIFY completions" "" ""
		line "notify_${runs}_commit" tracker "  by each commit" tps "" tracker "notify_${runs}_off"
		line "notify_${runs}_commit_heard" tracker "  by each commit, somebody listens" tps "" tracker "notify_${runs}_off"
		line "notify_${runs}_commit_heard_heard" tracker "    notifications of $((RT_NOTIFY / 4)) completions" "" ""
	done
	line notify_1_absent tracker "complete tasks of 1 run, 16 clients, not preloaded" tps "" tracker notify_1_off
}

# ---- Heartbeats ----

pgbench_heartbeats() # clients heartbeats: tps
{
	"$RT_BINDIR/pgbench" -n -M prepared -c "$1" -j "$(($1 < 4 ? $1 : 4))" -t "$(($2 / $1))" \
		-D k=0 -D per_client="$((RT_BEATING / $1))" -f bench/heartbeat.sql bench >"$RT_TMP/pgbench" 2>&1 ||
		{ cat "$RT_TMP/pgbench" >&2; exit 1; }
	sed -n 's/^tps = \([0-9.]*\) (without initial.*/\1/p' "$RT_TMP/pgbench"
}

open_run_updates() # column
{
	psql -c "SELECT $1 FROM pg_stat_user_tables WHERE relid = 'run_tracker.open_runs'::regclass"
}

heartbeats_of() # clients
{
	local tps before after hot updates
	fill tracker "$RT_BEATING" 0
	# so that neither hint bits nor images of whole pages are counted
	pgbench_heartbeats "$1" "$RT_BEATING" >/dev/null
	wait_for "SELECT n_tup_upd >= $RT_BEATING FROM pg_stat_user_tables
		WHERE relid = 'run_tracker.open_runs'::regclass"
	updates=$(open_run_updates n_tup_upd)
	hot=$(open_run_updates n_tup_hot_upd)
	before=$(psql -c 'SELECT pg_current_wal_insert_lsn()')
	tps=$(pgbench_heartbeats "$1" "$RT_HEARTBEATS")
	after=$(psql -c "SELECT (pg_current_wal_insert_lsn() - '$before') / $RT_HEARTBEATS")
	# all of them have been written: none was too soon after the one before
	wait_for "SELECT n_tup_upd = $updates + $RT_HEARTBEATS FROM pg_stat_user_tables
		WHERE relid = 'run_tracker.open_runs'::regclass"
	record heartbeats "$1" "$tps"
	record heartbeats_wal "$1" "$after"
	hot=$(($(open_run_updates n_tup_hot_upd) - hot))
	record heartbeats_hot "$1" "$(awk -v hot="$hot" -v n="$RT_HEARTBEATS" 'BEGIN { print 100 * hot / n }')"
}

heartbeats()
{
	local i clients
	server run_tracker
	for ((i = 0; i < RT_REPEAT; i++)); do
		for clients in 1 16; do
			heartbeats_of "$clients"
		done
	done
}

heartbeats_table()
{
	local clients
	for clients in 1 16; do
		line heartbeats "$clients" "heartbeats of $RT_BEATING runs in turn, $clients client(s)" tps ""
		line heartbeats_wal "$clients" "  WAL for each" bytes ""
		line heartbeats_hot "$clients" "  HOT updates" "%" "~ 100 %"
	done
}
