# Conversations through the views of an application. Read by bench/run.
# shellcheck shell=bash

conversation_of() # kind relation messages
{
	local what name result
	# nothing is left for the worker to write meanwhile
	psql -c "CALL bench.converse('$2', $3)" -c 'SELECT run_tracker.fold_statistics()' -c 'VACUUM (ANALYZE)' -c CHECKPOINT >/dev/null
	for what in append name; do
		name="messages = messages || \$2"
		[ "$what" = append ] || name="name = 'name ' || \$3"
		result=$(psql -c "CALL bench.repeat_on('$2', '${name//\'/\'\'}', 20)")
		record "conversation_${what}_$3" "$1" "${result%|*}"
		record "conversation_${what}_wal_$3" "$1" "${result#*|}"
	done
}

conversation()
{
	local i n
	server run_tracker
	for ((i = 0; i < RT_REPEAT; i++)); do
		for n in $RT_CONVERSATIONS; do
			conversation_of tracker compat.ai_runs "$n"
			conversation_of baseline baseline.ai_runs "$n"
		done
	done
	psql -c "CALL bench.converse('compat.ai_runs', 10)" -c CHECKPOINT
	record conversation_stream tracker "$(psql -c "CALL bench.stream_through('compat.ai_tasks')")"
	psql -c "CALL bench.converse('baseline.ai_runs', 10)" -c CHECKPOINT
	record conversation_stream baseline "$(psql -c "CALL bench.stream_through('baseline.ai_tasks')")"
}

conversation_table()
{
	local n
	for n in $RT_CONVERSATIONS; do
		line "conversation_append_$n" tracker "messages = messages || 1 kB through a view, to $n messages" ms ""
		line "conversation_append_$n" baseline "  the same on a table that holds the array" ms "" tracker
		line "conversation_append_wal_$n" tracker "  its WAL through the view" bytes "any length"
		line "conversation_append_wal_$n" baseline "  its WAL on the table" bytes "" tracker
		line "conversation_name_$n" tracker "  another name, through the view" ms ""
		line "conversation_name_$n" baseline "  another name, on the table" ms "" tracker
	done
	line conversation_stream tracker "an answer of 32 kB is saved 64 times through a view, WAL" bytes "<= 98304"
	line conversation_stream baseline "  the same on a table" bytes "" tracker
}
