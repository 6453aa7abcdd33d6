"""How things are measured: the daemon and the loads as processes, their clocks and memory, and statistics."""

import http.client
import os
import random
import re
import subprocess
import sys
import time

DAEMON = "target/release/ebpf-sidecar"
LOAD = "target/benches/load"
PORT = 8080
HOLDER = 8000  # connections of one process: two descriptors each, below the usual limit


def progress(text):
    print(f"# {text}", file=sys.stderr, flush=True)


def cpu_ns(pid):
    """CPU time of a process: all of its threads, also those that have ended, to the nanosecond."""
    return time.clock_gettime_ns((~pid << 3) | 2)


class Company:
    """Another daemon of this kind would spoil the figures: its programs run for our connections too, and
    the sockets have storage anyway. We wait for it to go, but not for ever."""

    ours = set()
    patience = 180
    noticed = False

    @classmethod
    def present(cls):
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{pid}/comm") as file:
                    if file.read().strip() == os.path.basename(DAEMON) and int(pid) not in cls.ours:
                        return True
            except OSError:
                pass  # it has just ended
        return False

    @classmethod
    def wait(cls):
        while cls.present():
            if cls.patience <= 0:
                cls.noticed = True
                return
            time.sleep(0.5)
            cls.patience -= 0.5


class Daemon:
    """The release build, as it is shipped. It may collect for each scrape, however soon after the last."""

    def __init__(self, **settings):
        Company.wait()
        environment = {"PATH": os.environ["PATH"], "EBPF_SIDECAR_COLLECTOR_FRESHNESS": "1us", **settings}
        self.started = time.monotonic()
        self.process = subprocess.Popen([DAEMON], env=environment, stderr=subprocess.DEVNULL)
        self.pid = self.process.pid
        Company.ours.add(self.pid)
        while True:
            try:
                self.connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=30)
                self.connection.connect()
                break
            except ConnectionRefusedError:
                if self.process.poll() is not None:
                    sys.exit(f"the daemon ended with {self.process.returncode}; is port {PORT} in use?")
                time.sleep(0.0005)
        self.scrape()
        self.ready = time.monotonic() - self.started

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.connection.close()
        Company.noticed |= Company.present()
        self.process.terminate()
        self.process.wait()
        Company.ours.remove(self.pid)

    def scrape(self):
        """One scrape as Prometheus makes it, over a connection that is kept."""
        return self.get("/metrics", {"Accept-Encoding": "gzip"})

    def get(self, path, headers={}):
        self.connection.request("GET", path, headers=headers)
        answer = self.connection.getresponse()
        page = answer.read()
        assert answer.status == 200, answer.status
        return page

    def value(self, family, **labels):
        """The sum of the samples that have these labels."""
        self.connection.request("GET", "/metrics")
        total = 0
        for line in self.connection.getresponse().read().decode().splitlines():
            if re.match(rf"{family}[{{ ]", line) and all(f'{k}="{v}"' in line for k, v in labels.items()):
                total += float(line.rsplit(" ", 1)[1])
        return total

    def cpu_ns(self):
        return cpu_ns(self.pid)

    def resident(self):
        """MiB: all, anonymous, and of files (the program and the maps that it has mapped)."""
        with open(f"/proc/{self.pid}/status") as file:
            sizes = dict(re.findall(r"(VmRSS|RssAnon|RssFile):\s+(\d+) kB", file.read()))
        return [int(sizes[name]) / 1024 for name in ("VmRSS", "RssAnon", "RssFile")]

    def map_bytes(self):
        """Kernel memory of all maps, as their descriptors tell."""
        maps = {}
        for fd in os.listdir(f"/proc/{self.pid}/fdinfo"):
            with open(f"/proc/{self.pid}/fdinfo/{fd}") as file:
                info = dict(line.split(":", 1) for line in file if ":" in line)
            if "map_id" in info and "memlock" in info:  # a link to an iterator names its map, too
                maps[info["map_id"]] = int(info["memlock"])
        return sum(maps.values())


class Load:
    """A load of load.c, pinned to the last CPU, working when told to."""

    def __init__(self, kind, *words):
        cpu = max(os.sched_getaffinity(0))
        self.process = subprocess.Popen([LOAD, kind, str(cpu), *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait()

    def work(self, milliseconds):
        """Operations done, and CPU nanoseconds for each."""
        self.process.stdin.write(f"{milliseconds}\n".encode())
        self.process.stdin.flush()
        operations, cpu = map(int, self.process.stdout.readline().split())
        return operations, cpu / operations


class Holders:
    """Live connections with both ends on this host: two sockets each."""

    def __init__(self, connections):
        self.processes = []
        for port in range(20000, 20000 + -(-connections // HOLDER)):
            count = min(HOLDER, connections - (port - 20000) * HOLDER)
            words = [LOAD, "hold", str(count), str(port)]
            self.processes.append(subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE))
        for process in self.processes:
            assert process.stdout.readline() == b"ready\n"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.wait()
            process.stdin.close()
            process.stdout.close()


def command_cpu_ns(words):
    """CPU time of a command, its start included; its output goes nowhere."""
    out = [(os.POSIX_SPAWN_OPEN, 1, "/dev/null", os.O_WRONLY, 0)]
    child = os.posix_spawnp(words[0], words, os.environ, file_actions=out)
    _, status, usage = os.wait4(child, 0)
    assert status == 0, words
    return (usage.ru_utime + usage.ru_stime) * 1e9


def unreclaimable():
    """Bytes of kernel memory that cannot be given back."""
    with open("/proc/sys/vm/drop_caches", "w") as file:
        file.write("2")  # inodes and dentries come and go
    with open("/proc/meminfo") as file:
        return int(re.search(r"SUnreclaim:\s+(\d+)", file.read())[1]) * 1024


def quantile(values, q):
    values = sorted(values)
    at = q * (len(values) - 1)
    low = int(at)
    high = min(low + 1, len(values) - 1)
    return values[low] + (values[high] - values[low]) * (at - low)


def median(values):
    return quantile(values, 0.5)


def median_interval(values):
    """95 % interval of the median, by bootstrap; always the same for the same values."""
    dice = random.Random(1)
    medians = [median(dice.choices(values, k=len(values))) for _ in range(1000)]
    return quantile(medians, 0.025), quantile(medians, 0.975)
