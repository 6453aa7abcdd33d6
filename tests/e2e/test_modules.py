"""Modules by themselves, what they say of their price, and the governor, from outside."""

import os
import socket
from pathlib import Path

import pytest

from daemon import command
from tools import until

ALL = ["tcp", "retransmit", "fadvise", "page-cache", "reclaim", "drops"]
PREFIXES = {
    "tcp": ("sidecar_connect", "sidecar_active_connections", "sidecar_listen", "tcp_connects_by_pid"),
    "retransmit": ("sidecar_retransmit", "sidecar_resets"),
    "fadvise": ("sidecar_fadvise",),
    "page-cache": ("sidecar_page_cache",),
    "reclaim": ("sidecar_reclaim",),
    "drops": ("sidecar_drops",),
}


def modules(daemon):
    return {module["name"]: module for module in daemon.get("/api/v1/modules").json()["modules"]}


def connect_and_close():
    with socket.create_server(("127.0.0.1", 0)) as server:
        with socket.create_connection(server.getsockname()):
            server.accept()[0].close()


def advise(name, path, times):
    """From a process of that name."""
    child = os.fork()
    if not child:
        Path("/proc/self/comm").write_text(name)
        fd = os.open(path, os.O_RDONLY)
        for _ in range(times):
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_NORMAL)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.parametrize("name", ALL)
def test_each_module_runs_alone_and_shows_nothing_of_the_others(sidecar, name):
    daemon = sidecar({"collector.modules": name})
    connect_and_close()
    page = daemon.page()
    found = modules(daemon)
    assert {found[other]["status"] for other in ALL if other != name} == {"disabled"}
    assert found[name]["status"] in ("running", "degraded"), found[name]
    assert any(hook["kind"] for hook in found[name]["hooks"])
    families = {line.split()[2] for line in page.splitlines() if line.startswith("# TYPE ")}
    own = ("sidecar_module", "sidecar_hook", "sidecar_bpf", "sidecar_series", "sidecar_collection", "sidecar_build",
           "sidecar_audit", "sidecar_identity", "process_")
    strange = {family for family in families if not family.startswith(own + PREFIXES[name])}
    assert not strange


@pytest.mark.parametrize("name", ALL)
def test_each_module_can_be_left_out(sidecar, name):
    daemon = sidecar({"collector.modules": ",".join(other for other in ALL if other != name)})
    connect_and_close()
    page = daemon.page()
    found = modules(daemon)
    assert found[name]["status"] == "disabled"
    assert all(found[other]["status"] in ("running", "degraded") for other in ALL if other != name), found
    families = {line.split()[2] for line in page.splitlines() if line.startswith("# TYPE ")}
    assert not [family for family in families if family.startswith(PREFIXES[name])]


def test_memory_is_page_cache_and_reclaim(sidecar):
    found = modules(sidecar({"collector.modules": "memory"}))
    assert {name for name in ALL if found[name]["status"] != "disabled"} == {"page-cache", "reclaim"}


def test_a_price_for_everybody_is_stated_wherever_modules_are(sidecar, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(bytes(4096))
    unnamed = modules(sidecar())["fadvise"]
    if unnamed["status"] != "disabled":  # this host lets programs hang on kernel functions, which costs nobody else
        assert {hook["cost"] for hook in unnamed["hooks"]} == {"event"}
        return
    assert "name the module to accept that" in unnamed["reason"]
    named = sidecar({"collector.modules": "fadvise"})
    taxing = [hook for hook in modules(named)["fadvise"]["hooks"] if hook["cost"] == "system"]
    (price,) = {hook["tax"] for hook in taxing}
    assert "every system call" in price
    assert price in named.log.read_text()
    for output in ("human", "json"):
        assert price in command("check", "--output", output, settings={"collector.modules": "fadvise"}).stdout
    advise("e2e-advises", path, 7)
    assert named.metrics(comm="e2e-advises").sum("sidecar_fadvise_calls_total", advice="normal") == 7


def test_a_forced_way_is_taken_whatever_it_costs_and_shown(sidecar):
    hooks = modules(sidecar({"collector.fadvise.hook": "tracepoint"}))["fadvise"]["hooks"]
    kinds = {hook["name"]: (hook["kind"], hook["cost"], hook["forced"]) for hook in hooks}
    assert kinds.pop("fadvise64") == ("tracepoint", "system", True)
    assert set(kinds.values()) == {("tp_btf", "event", False)}


def test_the_governor_pauses_what_costs_too_much_and_lets_it_go_on(sidecar):
    settings = {
        "collector.modules": "drops",  # what else happens on this machine is no matter
        "collector.max_cpu_percent": 0.02,
        # Long enough for what is asked below while it is paused.
        "collector.max_cpu_window": "3s",
        "collector.interval": "200ms",
        "metrics.idle_ttl": "5m",
    }
    daemon = sidecar(settings)
    assert modules(daemon)["drops"]["status"] == "running"
    nobody = ("127.0.0.1", 9)

    def flood():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for _ in range(5000):
                sender.sendto(b"x", nobody)
        drops = modules(daemon)["drops"]
        return drops["status"] == "degraded" and drops["reason"]

    reason = until(flood)
    assert reason.startswith("paused for ") and "% of a CPU" in reason and "0.02" in reason
    assert daemon.get("/health").json()["status"] == "degraded"
    assert daemon.get("/metrics").status_code == 200
    until(lambda: modules(daemon)["drops"]["status"] == "running", timeout=30)
    assert daemon.get("/health").json()["status"] == "healthy"
    assert daemon.metrics(module="drops").sum("sidecar_module_pauses_total") >= 1
