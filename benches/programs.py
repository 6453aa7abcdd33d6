"""What each program costs a run, by the kernel's own statistics, less what an empty program costs."""

import contextlib
import os
import re
import subprocess
import time

from measure import LOAD, Daemon, Load

STATISTICS = "/proc/sys/kernel/bpf_stats_enabled"


@contextlib.contextmanager
def statistics():
    """The kernel measures every run of every BPF program meanwhile."""
    with open(STATISTICS) as file:
        before = file.read()
    try:
        with open(STATISTICS, "w") as file:
            file.write("1")
        yield
    finally:
        with open(STATISTICS, "w") as file:
            file.write(before)


@contextlib.contextmanager
def empty():
    process = subprocess.Popen([LOAD, "empty"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"ready\n"
    try:
        yield process.pid
    finally:
        process.stdin.close()
        process.wait()
        process.stdout.close()


def programs(pid):
    """Name, runs and nanoseconds of each program that a process holds."""
    found = {}
    for fd in os.listdir(f"/proc/{pid}/fdinfo"):
        try:
            with open(f"/proc/{pid}/fdinfo/{fd}") as file:
                info = dict(re.findall(r"^(\w+):\s+(\d+)$", file.read(), re.M))
        except OSError:
            continue  # closed meanwhile
        if "run_cnt" in info and "prog_id" in info and "link_id" not in info:
            name = subprocess.check_output(["bpftool", "prog", "show", "id", info["prog_id"]], text=True)
            found[re.search(r" name (\w+)", name)[1]] = int(info["run_cnt"]), int(info["run_time_ns"])
    return found


def work(kind, *words, milliseconds=1000):
    with Load(kind, *words) as load:
        load.work(milliseconds)


def measure(stimuli, modules):
    """Rows of program, runs, nanoseconds of a run less those of an empty one; after all stimuli have been given."""
    with statistics(), empty() as nothing, Daemon(EBPF_SIDECAR_COLLECTOR_MODULES=modules) as daemon:
        for stimulus in stimuli:
            stimulus()
        daemon.scrape()
        time.sleep(0.1)
        (runs, ns), = programs(nothing).values()
        floor = ns / runs
        rows = [(name, runs, ns / runs - floor) for name, (runs, ns) in sorted(programs(daemon.pid).items()) if runs]
        return floor, rows
