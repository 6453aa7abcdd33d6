"""The release build as people run it."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import requests

from metrics import Metrics
from tools import until

# Another build, such as a static one, can be tested by its path in BINARY.
BINARY = Path(os.environ.get("BINARY", Path(__file__).parents[2] / "target/release/ebpf-sidecar"))

# One collection that lasts for the whole test: everybody who asks is shown the same snapshot.
FROZEN = {"collector.freshness": "1h", "collector.interval": "1h", "metrics.idle_ttl": "1h"}

# A series for each end of each connection, with room for those that others on this machine make meanwhile.
PORT_LABEL = {"collector.tcp.labels": "src_port", "metrics.max_series": 100_000}

TEXT = "text/plain;version=0.0.4"
OPENMETRICS = "application/openmetrics-text;version=1.0.0"


def variable(key):
    return "EBPF_SIDECAR_" + key.upper().replace(".", "_").replace("-", "_")


def environment(settings):
    """Nothing of the caller's own: settings come from the environment."""
    return {"PATH": os.environ["PATH"]} | {variable(key): str(value) for key, value in settings.items()}


def command(*arguments, settings=None, env=None, prefix=(), program=BINARY):
    """Runs the program to its end."""
    env = environment(settings or {}) | (env or {})
    return subprocess.run(
        [*prefix, program, *arguments], env=env, capture_output=True, text=True, timeout=20, stdin=subprocess.DEVNULL
    )


class Daemon:
    """A running daemon on ports of the kernel's choice. Unless told otherwise it collects at every request."""

    def __init__(self, log, settings=None, flags=(), stdout=None):
        defaults = {"server.http.port": 0, "server.grpc.port": 0, "log.format": "json", "collector.freshness": "0s"}
        self.log = log
        with open(log, "w") as stderr:
            self.process = subprocess.Popen(
                [BINARY, *flags], env=environment(defaults | (settings or {})), stderr=stderr, stdin=subprocess.DEVNULL,
                stdout=stdout,
            )
        self.http, self.grpc = until(self._addresses)

    def _addresses(self):
        assert self.process.poll() is None, f"it ended with {self.process.returncode}: {self.log.read_text()}"
        for line in self.log.read_text().splitlines():
            fields = json.loads(line)
            fields |= fields.get("fields", {})
            if fields.get("message") == "serving":
                return fields["http"], fields["grpc"]

    @property
    def pid(self):
        return self.process.pid

    @property
    def http_port(self):
        return int(self.http.rpartition(":")[2])

    def get(self, path, **options):
        return requests.get(f"http://{self.http}{path}", timeout=20, **options)

    def page(self, accept=TEXT):
        response = self.get("/metrics", headers={"Accept": accept})
        assert response.status_code == 200, response.text
        return response.text

    def metrics(self, **labels):
        """The samples that carry these labels: other connections of the machine may be very many, and parsing takes
        longer than asking."""
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        lines = self.page().splitlines(keepends=True)
        return Metrics.from_text("".join(
            line for line in lines if line.startswith("#") or all(label in line for label in wanted)
        ))

    def account(self, **labels):
        return self.metrics(**labels).account()

    def shows(self, expected, **labels):
        """The connections with these labels come to this account; a close may be a moment behind its application."""
        deadline = time.monotonic() + 10
        while (found := self.account(**labels)) != expected and time.monotonic() < deadline:
            time.sleep(0.02)
        assert found == expected, f"{found} instead of {expected} for {labels}"

    def resident(self):
        """Resident memory in bytes."""
        status = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        (line,) = [line for line in status if line.startswith("VmRSS:")]
        return int(line.split()[1]) * 1024

    def stop(self, how=signal.SIGTERM, timeout=10):
        """Asks it to stop and returns its exit code."""
        self.process.send_signal(how)
        return self.process.wait(timeout)

    def kill(self):
        self.process.kill()
        self.process.wait()
