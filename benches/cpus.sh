#!/bin/sh
# shellcheck shell=dash
#
# benches/cpus.sh DAEMON LOAD: what `benches/run.sh cpus` has each virtual machine do. Tells for some of its CPUs and 50 ms of
# work, with the daemon and without, connections made and CPU nanoseconds used for them; then sockets, passes over them and
# seconds that these took.
set -eu
daemon=$1 load=$2
last=$(($(nproc) - 1))
rounds=3 connections=2000 passes=20
url=http://127.0.0.1:8080/metrics

ulimit -n $((2 * connections + 100))
# Connections that have ended leave nothing behind, which would slow down those that come later.
echo 0 >/proc/sys/net/ipv4/tcp_max_tw_buckets

start() {
	EBPF_SIDECAR_COLLECTOR_FRESHNESS=1us EBPF_SIDECAR_COLLECTOR_MAX_CPU_PERCENT=0 "$daemon" 2>/dev/null &
	pid=$!
	until wget -qO /dev/null $url 2>/dev/null; do sleep 0.1; done
}
stop() {
	kill $pid
	wait $pid || true
}

# One CPU after another: they share a clock.
work() {
	for cpu in $(seq 0 4 $last) $last; do
		yes 50 | head -n 4 | "$load" crr "$cpu" | sed "s/^/$1 /"
	done
}

seconds_of_passes() {
	wget -qO - $url | awk '/^sidecar_bpf_run_seconds_total.*"tcp_pass"/ { print $2 }'
}

work warm
for _ in $(seq $rounds); do
	work without
	start
	work with
	work with
	stop
	work without
done

start
tail -f /dev/null | "$load" hold $connections 20000 >/tmp/ready &
until [ -s /tmp/ready ]; do sleep 0.1; done
wget -qO /dev/null $url
sleep 1.5 # owners of new connections are not looked for at each scrape
before=$(seconds_of_passes)
for _ in $(seq $((passes - 1))); do wget -qO /dev/null $url; done
echo pass $((2 * connections)) $passes "$before" "$(seconds_of_passes)"
stop
