#!/usr/bin/env bash
# What the daemon costs, beside what it may cost. benches/run.sh measures everything and writes benches/results.md;
# `benches/run.sh rr start` measures these alone, `benches/run.sh quick` everything with fewer repetitions (rough).
# The figures: rr crr filtered events scrape listing rss kernel start cpu encode binary others each; and cpus, which is
# measured only where it is named: what more CPUs change, in virtual machines of 1 to 16.
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/need build bench
if [[ " $* " == *" cpus "* ]]; then
	scripts/need vm
	tests/vm/fetch 6.12 >/dev/null # below there is no network
fi
cargo build --quiet --release
mkdir -p target/benches
gcc -O2 -Wall -Wextra -Werror -o target/benches/load benches/load.c
encode=$(cargo bench --quiet --no-run --bench encode --message-format=json-render-diagnostics |
	sed -nE 's/.*"kind":\["bench"\].*"executable":"([^"]+)".*/\1/p')

# A network namespace of its own: nobody else's connections count, and the ports and settings in it are ours.
measure() {
	scripts/as-root env PYTHONDONTWRITEBYTECODE=1 PATH="$PATH:/usr/sbin:/sbin" ENCODE="$encode" \
		unshare --net --mount python3 benches/figures.py "$@"
}
if (($#)); then
	measure "$@"
else
	measure | tee target/benches/results.md
	cp target/benches/results.md benches/results.md
fi
