"""The figures: what is measured, what it may be, and how it was. One function each; the docstring is the method."""

import os
import re
import subprocess
import sys
import time

import programs
from measure import (DAEMON, LOAD, Company, Daemon, Holders, Load, command_cpu_ns, median, median_interval, progress,
                     quantile, unreclaimable)

MIB = 1 << 20
ROWS = []
QUICK = False


def row(what, target, measured, method, met=None):
    """`met` is None where there is no target."""
    if Company.noticed:
        measured += " (disturbed: another daemon ran)"
    ROWS.append((what, target, measured, {True: "yes", False: "**no**", None: ""}[met], method))
    progress(f"{what}: {measured}")


def spread(values, form="{:.1f}"):
    return " / ".join(form.format(quantile(values, q)) for q in (0.25, 0.5, 0.75))


def paired(kind, rounds, milliseconds, *words, **settings):
    """The same load with the daemon and without, off-on-on-off, so that drift hits both alike. Returns the costs of an
    operation with and without as pairs, pairs without and without as the control, and what the programs themselves
    report: runs and nanoseconds for each operation."""
    pairs, control, last_off = [], [], None
    operations, runs, run_ns = 0, 0, 0
    on_since_scrape = 0
    with Load(kind, *words) as load:
        load.work(1000)
        for number in range(rounds // 2):
            off = [load.work(milliseconds)[1]]
            if last_off:
                control.append((last_off, off[0]))
            on = []
            with Daemon(**settings) as daemon:
                before = own_cost(daemon)
                for _ in range(2):
                    done, cost = load.work(milliseconds)
                    on.append(cost)
                    operations += done
                    on_since_scrape += milliseconds
                    if on_since_scrape >= 5000:
                        daemon.scrape()
                        on_since_scrape = 0
                runs += own_cost(daemon)[0] - before[0]
                run_ns += own_cost(daemon)[1] - before[1]
            off.append(load.work(milliseconds)[1])
            last_off = off[1]
            pairs += [(on[0], off[0]), (on[1], off[1])]
            if number % 10 == 9:
                progress(f"{kind}: {2 * number + 2} of {rounds} rounds")
    return pairs, control, runs / operations, run_ns / operations


def own_cost(daemon):
    """Runs and nanoseconds of the programs that run when something happens."""
    asked = ("tcp_pass", "tcp_walk")
    runs, seconds = (daemon.value(f"sidecar_bpf_{what}_total") for what in ("runs", "run_seconds"))
    runs -= sum(daemon.value("sidecar_bpf_runs_total", program=program) for program in asked)
    seconds -= sum(daemon.value("sidecar_bpf_run_seconds_total", program=program) for program in asked)
    return runs, seconds * 1e9


def added(what, target, kind, *words, met=lambda cost: None, **settings):
    """CPU, paired"""
    pairs, control, runs, run_ns = paired(kind, 16 if QUICK else 60, 300, *words, **settings)
    costs = [on - off for on, off in pairs]
    low, high = median_interval(costs)
    none = [a - b for a, b in control]
    none_low, none_high = median_interval(none)
    base = median([off for _, off in pairs])
    row(what, target, f"{median(costs):.0f} ns (95 %: {low:.0f} to {high:.0f}), of {base:.0f}; without - without: "
        f"{median(none):.0f} ns ({none_low:.0f} to {none_high:.0f}); {runs:.1f} runs with {run_ns:.0f} ns in them",
        added.__doc__, met(median(costs)))


def file_to_read(mib=16):
    """On a disk file system, in the page cache."""
    path = f"target/benches/file-{mib}"
    with open(path, "wb") as file:
        file.write(bytes(mib * MIB))
        os.fsync(file.fileno())
    return path


def others():
    """CPU, paired"""
    named = {"EBPF_SIDECAR_COLLECTOR_MODULES": "tcp,retransmit,fadvise,page-cache,reclaim,drops"}
    path = file_to_read()
    added("4 KiB read from the page cache: added", "none", "pread", path)
    added("- with collector.page-cache.lookups", "", "pread", path, EBPF_SIDECAR_COLLECTOR_PAGE_CACHE_LOOKUPS="true")
    added("1 MiB evicted and read again: added", "", "churn", file_to_read(1))
    added("a datagram that nobody wants (one packet dropped): added", "", "refused")
    added("a system call (getppid): added", "none", "getppid")
    added("- with fadvise named, where only the tracepoint is to be had", "", "getppid", **named)
    added("a call of posix_fadvise, with fadvise named: added", "", "fadvise", path, **named)


def each():
    """kernel.bpf_stats_enabled"""
    settings = {
        "EBPF_SIDECAR_COLLECTOR_MODULES": "tcp,retransmit,fadvise,page-cache,reclaim,drops",
        "EBPF_SIDECAR_COLLECTOR_PAGE_CACHE_LOOKUPS": "true",
        "EBPF_SIDECAR_COLLECTOR_MAX_CPU_PERCENT": "0",
    }
    floor, rows = programs.measure(file_to_read(), settings)
    row("an empty program: a run", "", f"{floor:.0f} ns", each.__doc__)
    for name, runs, ns in rows:
        row(f"- beyond that, `{name}`", "", f"{ns:.0f} ns ({runs} runs)", each.__doc__)


def filtered():
    """CPU of both ends, paired"""
    added("connect, 64 bytes and back, close: added", "", "crr")
    added("- of a port that is not watched", "", "crr", EBPF_SIDECAR_TARGET_PORTS="1")
    added("- of processes that are not watched, by name", "", "crr", EBPF_SIDECAR_TARGET_COMMS="nobody")
    added("- by container", "", "crr", EBPF_SIDECAR_TARGET_CONTAINERS="0123456789ab")


def quartile_ratio(pairs):
    return quantile([a for a, _ in pairs], 0.25) / quantile([b for _, b in pairs], 0.25)


def rr():
    """CPU of both ends, paired"""
    pairs, control, _, _ = paired("rr", 16 if QUICK else 120, 300)
    ratios = [on / off for on, off in pairs]
    low, high = median_interval(ratios)
    none = [a / b for a, b in control]
    none_low, none_high = median_interval(none)
    method = rr.__doc__
    base = median([off for _, off in pairs])
    row("64-byte request/response, CPU with / without", "<= 1.01, not to be told from the control",
        f"{median(ratios):.3f} (95 %: {low:.3f} to {high:.3f}), of {base / 1000:.1f} us", method,
        median(ratios) <= 1.01 and low <= none_high)
    row("- the same, ratio of 25th percentiles", "<= 1.01", f"{quartile_ratio(pairs):.3f}", method,
        quartile_ratio(pairs) <= 1.01)
    row("- control: without / without", "", f"{median(none):.3f} (95 %: {none_low:.3f} to {none_high:.3f})", method)


def crr():
    """CPU of both ends, paired"""
    pairs, control, runs, run_ns = paired("crr", 16 if QUICK else 120, 300)
    added = [(on - off) / 1000 for on, off in pairs]
    low, high = median_interval(added)
    base = median([off for _, off in pairs]) / 1000
    row("connect, 64 bytes and back, close: CPU added for each connection", "<= 2 us, both ends local",
        f"{median(added):.2f} us (95 %: {low:.2f} to {high:.2f}), of {base:.1f} us", crr.__doc__, median(added) <= 2)
    low, high = median_interval([(a - b) / 1000 for a, b in control])
    row("- control: without - without", "",
        f"{median([(a - b) / 1000 for a, b in control]):.2f} us (95 %: {low:.2f} to {high:.2f})", crr.__doc__)
    row("- of it in the programs", "", f"{run_ns / 1000:.2f} us in {runs:.1f} runs", "every 17th run, timed")


def events():
    """as crr, with the connection log in a file"""
    path = os.path.abspath("target/benches/events")
    settings = {"EBPF_SIDECAR_EVENTS_ENABLED": "true", "EBPF_SIDECAR_EVENTS_OUTPUT": path,
                "EBPF_SIDECAR_EVENTS_MAX_FILES": "0"}
    pairs, _, _, _ = paired("crr", 16 if QUICK else 60, 300, **settings)
    added = [(on - off) / 1000 for on, off in pairs]
    low, high = median_interval(added)
    row("the same with the connection log: CPU added for each connection", "",
        f"{median(added):.2f} us (95 %: {low:.2f} to {high:.2f}), of {median([off for _, off in pairs]) / 1000:.1f} us",
        events.__doc__)
    with Load("crr") as load, Daemon(**settings) as daemon:
        load.work(1000)
        time.sleep(0.5)
        before, number = daemon.cpu_ns(), daemon.value("sidecar_events_total")
        load.work(5000)
        time.sleep(0.5)
        number, cost = daemon.value("sidecar_events_total") - number, daemon.cpu_ns() - before
        lost = daemon.value("sidecar_events_lost_total")
        total, anonymous, of_files = daemon.resident()
    os.remove(path)
    row("- CPU of the daemon for each event", "", f"{cost / number / 1000:.2f} us, at {number / 5.5:,.0f} a second",
        "CPU clock of the daemon")
    row("- lost of those", "0", f"{lost:.0f} of {number:.0f}", "sidecar_events_lost_total", lost == 0)
    row("- resident memory", "", f"{total:.1f} MiB ({anonymous:.1f} anonymous, {of_files:.1f} of files: the ring is "
        "mapped twice)", "/proc/PID/status")


def scrape():
    """CPU clock of the daemon, interleaved"""
    count = 10 if QUICK else 40
    for connections in (0, 20_000, 50_000):
        with Daemon() as daemon, Holders(connections):
            settle(daemon)
            wall, ours, theirs = [], [], []
            for _ in range(count):
                Company.wait()
                before, start = daemon.cpu_ns(), time.monotonic()
                daemon.scrape()
                wall.append((time.monotonic() - start) * 1e3)
                time.sleep(0.02)  # what it tidies up after the answer belongs to the scrape
                ours.append((daemon.cpu_ns() - before) / 1e6)
                if connections:
                    theirs.append(command_cpu_ns(["ss", "-tinH"]) / 1e6)
                else:
                    time.sleep(0.1)
        name = f"{connections:,} connections ({2 * connections:,} sockets)" if connections else "idle"
        target = {0: 2, 20_000: 20}.get(connections)
        row(f"scrape, {name}: wall", f"<= {target} ms" if target else "",
            f"{median(wall):.2f} ms (p95 {quantile(wall, 0.95):.2f})", "keep-alive client, gzip, no cache",
            median(wall) <= target if target else None)
        row(f"scrape, {name}: CPU", "", f"{spread(ours, '{:.2f}')} ms", scrape.__doc__)
        if connections:
            ratios = [a / b for a, b in zip(ours, theirs)]
            big = connections == 50_000
            row(f"scrape, {name}: CPU against `ss -tinH`", "<= 0.10" if big else "",
                f"{spread(ratios, '{:.3f}')}, of {median(theirs):.0f} ms", scrape.__doc__,
                median(ratios) <= 0.1 if big else None)


def listing():
    """CPU clock of the daemon"""
    with Daemon() as daemon, Holders(20_000):
        settle(daemon)
        wall, ours = [], []
        for _ in range(10 if QUICK else 40):
            Company.wait()
            before, start = daemon.cpu_ns(), time.monotonic()
            daemon.get("/api/v1/connections?limit=50")
            wall.append((time.monotonic() - start) * 1e3)
            ours.append((daemon.cpu_ns() - before) / 1e6)
            time.sleep(0.1)
    row("list of the 50 largest of 20,000 connections (40,000 sockets): wall", "",
        f"{median(wall):.1f} ms (p95 {quantile(wall, 0.95):.1f})", "keep-alive client, no gzip")
    row("- CPU", "", f"{spread(ours, '{:.1f}')} ms", listing.__doc__)


def settle(daemon):
    """Lets it look for the owners of new connections, which is not a matter of each scrape."""
    daemon.scrape()
    time.sleep(1.5)
    daemon.scrape()


def rss():
    """/proc/PID/status after 50 scrapes"""
    for connections, target in ((0, 8), (20_000, 12), (100_000, 24)):
        with Daemon() as daemon, Holders(connections):
            for _ in range(50):
                daemon.scrape()
            total, anonymous, of_files = daemon.resident()
        row(f"resident memory, {connections:,} connections", f"<= {target} MiB",
            f"{total:.1f} MiB ({anonymous:.1f} anonymous, {of_files:.1f} of files)", rss.__doc__, total <= target)


def kernel():
    """SUnreclaim with less without, alternating"""
    connections = 20_000

    def held():
        Company.wait()
        time.sleep(0.5)
        before = unreclaimable()
        with Holders(connections):
            time.sleep(0.5)
            return unreclaimable() - before

    extra = []
    held()  # whatever grows once
    for number in range(1 if QUICK else 5):
        with_it = without = None
        for arm in (True, False) if number % 2 else (False, True):
            if arm:
                with Daemon():
                    with_it = held()
            else:
                without = held()
        extra.append((with_it - without) / (2 * connections))
    row("kernel memory for each live socket", "<= 450 B",
        f"{median(extra):.0f} B ({min(extra):.0f} to {max(extra):.0f})", kernel.__doc__, median(extra) <= 450)
    with Daemon() as daemon:
        maps = daemon.map_bytes() / MIB
    row("kernel memory of the maps", "<= 12 MiB", f"{maps:.1f} MiB", "memlock in /proc/PID/fdinfo", maps <= 12)


def start():
    """exec to first good page"""
    times = []
    for _ in range(5 if QUICK else 25):
        with Daemon() as daemon:
            times.append(daemon.ready * 1e3)
        time.sleep(0.1)
    row("start to first good scrape", "<= 100 ms",
        f"{median(times):.0f} ms ({min(times):.0f} to {max(times):.0f})", start.__doc__, median(times) <= 100)


def cpu():
    """CPU clock, scraped each 5 s"""
    seconds = 10 if QUICK else 60
    for connections, target in ((0, 0.1), (20_000, 0.5)):
        with Daemon() as daemon, Holders(connections):
            settle(daemon)
            passes = -daemon.value("sidecar_bpf_run_seconds_total", program="tcp_pass")
            before, begin = daemon.cpu_ns(), time.monotonic()
            for _ in range(seconds // 5):
                time.sleep(5)
                daemon.scrape()
            elapsed = time.monotonic() - begin
            share = (daemon.cpu_ns() - before) / 1e7 / elapsed
            passes += daemon.value("sidecar_bpf_run_seconds_total", program="tcp_pass")
        row(f"CPU, {connections:,} connections", f"<= {target} %",
            f"{share:.2f} % (of it {passes * 100 / elapsed:.2f} in the pass program)", cpu.__doc__, share <= target)


def encode():
    """thread CPU, text format"""
    found = subprocess.run([os.environ["ENCODE"]], stdout=subprocess.PIPE, text=True, check=True).stdout
    least, middle, most = map(float, re.search(r"^text +([\d.]+) +([\d.]+) +([\d.]+)", found, re.M).groups())
    row("encoding 100,000 series", "<= 15 ms", f"{middle:.1f} ms ({least:.1f} to {most:.1f})", encode.__doc__,
        middle <= 15)


def binary():
    """size of the stripped release"""
    size = os.path.getsize(DAEMON) / 1e6
    row("release binary", "<= 6 MB", f"{size:.2f} MB", binary.__doc__, size <= 6)


def cpus():
    """emulated machines, medians"""
    # Time is of no use there: what is counted instead is instructions. CPUs work one at a time, so none waits for another.
    here = os.getcwd()
    kernel = subprocess.check_output(["tests/vm/fetch", "6.12"], text=True).strip()
    files = [f"{here}/{file}" for file in (DAEMON, LOAD, "benches/cpus.sh")]
    for count in (1, 2, 4, 8, 16):
        command = ["tests/vm/boot", kernel, *files, "--", "sh", files[2], *files[:2]]
        machine = {"VM_CPUS": str(count), "VM_CLOCK": "instructions"}
        told = subprocess.check_output(command, text=True, env={**os.environ, **machine})
        costs = {"with": [], "without": []}
        for line in map(str.split, told.splitlines()):
            if line[0] in costs:
                costs[line[0]].append(int(line[2]) / int(line[1]))
            elif line[0] == "pass":
                sockets, passes, before, after = map(float, line[1:])
        without, added = quantile(costs["without"], 0.5), quantile(costs["with"], 0.5) - quantile(costs["without"], 0.5)
        on = f"{count} CPUs" if count > 1 else "1 CPU"
        row(f"{on}: connect, 64 bytes and back, close: added", "", f"{added:,.0f} instructions, to {without:,.0f}",
            cpus.__doc__)
        row(f"{on}: a pass over {sockets:,.0f} sockets, for each", "",
            f"{(after - before) * 1e9 / passes / sockets:,.0f} instructions", "emulated machines")


FIGURES = (rr, crr, filtered, events, scrape, listing, rss, kernel, start, cpu, encode, binary, others, each)
USUAL = [figure.__name__ for figure in FIGURES]
ALL = {figure.__name__: figure for figure in (*FIGURES, cpus)}


def host():
    with open("/proc/cpuinfo") as file:
        model = re.search(r"model name\s*:\s*(.*)", file.read())
    cpus = len(os.sched_getaffinity(0))
    return f"Kernel {os.uname().release}, {cpus} x {model[1] if model else os.uname().machine}, {time.strftime('%Y-%m-%d', time.gmtime())}"


def main():
    global QUICK
    names = sys.argv[1:]
    QUICK = "quick" in names
    names = [name for name in names if name != "quick"] or USUAL
    for name in names:
        if name not in ALL:
            sys.exit(f"no figure {name}; there are {' '.join(ALL)}")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    # Connections that have ended leave nothing behind, which would slow down those that come later.
    with open("/proc/sys/net/ipv4/tcp_max_tw_buckets", "w") as file:
        file.write("0")

    begin = time.monotonic()
    for name in names:
        progress(f"{name} ({time.monotonic() - begin:.0f} s since the start)")
        Company.noticed = False
        ALL[name]()
    print(f"{host()}{', quick: rough figures' if QUICK else ''}\n")
    print("| what | target | measured | met | method |\n|---|---|---|---|---|")
    for fields in ROWS:
        print(f"| {' | '.join(fields)} |")
    print("\nThree values in a row are quartiles. `benches/run.sh FIGURE` measures one of "
          f"{', '.join(ALL)} alone.")


if __name__ == "__main__":
    main()
