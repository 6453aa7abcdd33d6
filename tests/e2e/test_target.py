"""Filters as people ask for them: by flag, variable and file; and by the names that runtimes give their containers."""

import json
import subprocess

import pytest

from daemon import command, variable
from runtimes import Containerd, says
from test_identity import client, settings, shows

OPENED = "sidecar_connections_opened_total"


def connect_as(name, port, times=1):
    """A process of that name connects, says 5 bytes and hears the end."""
    script = "import ctypes, socket, sys\n" \
        "ctypes.CDLL(None).prctl(15, sys.argv[1].encode(), 0, 0, 0)\n" \
        "for _ in range(int(sys.argv[3])):\n" \
        "    with socket.create_connection(('127.0.0.1', int(sys.argv[2]))) as s:\n" \
        "        s.sendall(b'hello'); s.shutdown(socket.SHUT_WR); s.recv(1)\n"
    subprocess.run(["python3", "-c", script, name, str(port), str(times)], check=True, timeout=20)


def opened(daemon, port):
    samples = daemon.metrics(dst_port=port).samples(OPENED)
    return sorted((found["comm"], found["role"], int(value)) for found, value in samples)


@pytest.mark.parametrize("origin", ["flag", "variable", "file"])
def test_whoever_says_what_to_watch(sidecar, server, tmp_path, origin):
    file = tmp_path / "config.yaml"
    file.write_text(f"target: {{comms: [tgt-in, tgt-too], ports: [{server}]}}\n")
    flags = {"flag": ["--comm", "tgt-in,tgt-too", "--ports", server], "file": ["--config", file]}.get(origin, [])
    wanted = {"target.comms": "tgt-in,tgt-too", "target.ports": server} if origin == "variable" else {}
    daemon = sidecar(wanted, flags=[str(flag) for flag in flags])
    connect_as("tgt-in", server, 2)
    connect_as("tgt-out", server, 3)
    connect_as("tgt-too", server, 4)
    assert opened(daemon, server) == [("tgt-in", "client", 2), ("tgt-too", "client", 4)]
    # The daemon's own pages come by another port.
    assert opened(daemon, daemon.http_port) == []
    log = [json.loads(line) for line in daemon.log.read_text().splitlines()]
    said = [line["fields"]["only"] for line in log if line["fields"].get("message") == "watching"]
    assert said == [f"comms tgt-in, tgt-too; ports {server}"]


def test_what_is_watched_is_told():
    asked = ["--pid", "7,8", "--container", "web", "--namespace", "shop", "--cgroup", "/"]
    report = json.loads(command("check", "--output", "json", *asked).stdout)
    assert report["watching"] == "pids 7, 8; cgroup / and below; containers web; namespaces shop"
    assert json.loads(command("check", "--output", "json").stdout)["watching"] == "everything"
    printed = command("config", *asked).stdout
    assert "pids: [7, 8]" in printed and "# --pid" in printed


@pytest.mark.parametrize(
    "key, flag, value, allowed",
    [
        ("target.pids", "--pid", "0", "1 to 4194304"),
        ("target.ports", "--ports", "70000", "0 to 65535"),
        ("target.cgroup", "--cgroup", "/no/such/cgroup", "there is no such cgroup"),
        ("target.cgroup", "--cgroup", "/sys/fs/cgroup/../cgroup", "a path without"),
    ],
)
def test_what_cannot_be_watched(key, flag, value, allowed):
    for origin, ended in ((flag, command(flag, value)), (variable(key), command(settings={key: value}))):
        assert ended.returncode == 2
        (line,) = ended.stderr.splitlines()
        for part in (key, value, origin, allowed):
            assert part in line


def test_a_container_and_the_one_that_takes_its_place(sidecar, server, runtime):
    containerd = runtime(Containerd)
    daemon = sidecar(settings(cri=containerd.socket, **{"target.containers": "web"}))
    pod = containerd.pod("shop-0", "prod")
    web = containerd.container(pod, "web", ["/bin/sh", "-c", f"echo first | nc 127.0.0.1 {server}; sleep 0.2"])
    containerd.container(pod, "sidekick", says(server, "nothing"))
    connect_as("tgt-host", server)
    shows(daemon, server, [(("web", "shop-0", "prod", ""), 6)])
    containerd.remove(web)
    containerd.container(pod, "web", says(server, "second"))
    shows(daemon, server, [(("web", "shop-0", "prod", ""), 13)])
    connect_as("tgt-host", server)
    assert client(daemon, server) == [(("web", "shop-0", "prod", ""), 13)]
    assert all(dict(labels).get("container") == "web" for labels, _ in daemon.metrics().samples(OPENED))
    listed = daemon.get("/api/v1/connections").json()["connections"]
    assert all(one["container"]["container_name"] == "web" for one in listed)


def test_a_namespace(sidecar, server, runtime):
    containerd = runtime(Containerd)
    pods = [containerd.pod(f"{namespace}-0", namespace) for namespace in ("prod", "test", "dev")]
    daemon = sidecar(settings(cri=containerd.socket, **{"target.namespaces": "prod,dev"}))
    for number, pod in enumerate(pods):
        containerd.container(pod, f"c{number}", says(server, "x" * number))
    expected = [(("c0", "prod-0", "prod", ""), 1), (("c2", "dev-0", "dev", ""), 3)]
    shows(daemon, server, expected)
    connect_as("tgt-host", server)
    assert client(daemon, server) == sorted(expected)
