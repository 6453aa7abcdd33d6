"""What each program costs a run, by the kernel's own statistics, less what an empty program costs."""

import contextlib
import os
import random
import re
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

from measure import LOAD, Daemon, Load, progress

sys.path.append("tests/e2e")
import network  # noqa: E402

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


def connections(_file):
    with Load("crr") as load:
        load.work(2000)


def losses(_file):
    """64 MiB over a link that loses 3 % of the segments, each way."""
    with network.pair() as (a, b, ip, _):
        listener = network.within(b, lambda: socket.create_server((ip, 0)))
        client = network.within(a, lambda: socket.create_connection(listener.getsockname()))
        server, _ = listener.accept()
        for namespace in (a, b):
            network.lose(namespace, percent=3)
        sender = threading.Thread(target=client.sendall, args=(bytes(64 << 20),))
        sender.start()
        left = 64 << 20
        while left:
            left -= len(server.recv(1 << 20))
        sender.join()


def half_open(_file):
    """SYN-ACKs that never arrive are sent again."""
    with network.pair() as (a, b, ip, _):
        listener = network.within(b, lambda: socket.create_server((ip, 6001), backlog=500))
        rule = "table inet t { chain c { type filter hook input priority 0; tcp sport 6001 drop; }; }\n"
        network.run("nft", "-f", "-", namespace=a, stdin=rule)
        clients = [network.within(a, lambda: socket.socket()) for _ in range(200)]
        for client in clients:
            client.setblocking(False)
            client.connect_ex((ip, 6001))
        time.sleep(8)
        for client in (*clients, listener):
            client.close()


def refusals(_file):
    """A reset for each SYN."""
    for _ in range(3000):
        with socket.socket() as client:
            client.connect_ex(("127.0.0.1", 9))


def unwanted(_file):
    with Load("refused") as load:
        load.work(1000)


def advice(file):
    with Load("fadvise", file) as load:
        load.work(1000)


def churn(file):
    with Load("churn", file) as load:
        load.work(2000)


def writes(file):
    for _ in range(20):
        with open(file, "r+b") as target:
            target.write(bytes(16 << 20))
            os.fsync(target.fileno())
            os.posix_fadvise(target.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def random_reads(file):
    with open(file, "rb") as target:
        os.posix_fadvise(target.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        os.posix_fadvise(target.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        for page in random.sample(range(4096), 4096):
            os.pread(target.fileno(), 1, page * 4096)


def pressure(file):
    """A process that reads four times what its cgroup may hold."""
    version1 = Path("/sys/fs/cgroup/memory")
    parent, limit = (version1, "memory.limit_in_bytes") if version1.is_dir() else (Path("/sys/fs/cgroup"), "memory.max")
    cgroup = parent / f"sidecar-bench-{os.getpid()}"
    cgroup.mkdir()
    try:
        (cgroup / limit).write_text(str(4 << 20))
        child = os.fork()
        if not child:
            (cgroup / "cgroup.procs").write_text("0")
            with open(file, "rb", buffering=0) as source:
                os.posix_fadvise(source.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                for _ in range(20):
                    source.seek(0)
                    while source.read(1 << 16):
                        pass
            os._exit(0)
        os.waitpid(child, 0)
    finally:
        cgroup.rmdir()


STIMULI = (connections, losses, half_open, refusals, unwanted, advice, churn, writes, random_reads, pressure)


def measure(file, settings):
    """Nanoseconds of an empty program, and for each of ours the runs, and the nanoseconds of one beyond those."""
    with statistics(), empty() as nothing, Daemon(**settings) as daemon:
        for stimulus in STIMULI:
            progress(f"programs: {stimulus.__name__}")
            stimulus(file)
        daemon.scrape()
        ((runs, ns),) = programs(nothing).values()
        floor = ns / runs
        found = sorted(programs(daemon.pid).items())
        return floor, [(name, runs, ns / runs - floor) for name, (runs, ns) in found if runs]
