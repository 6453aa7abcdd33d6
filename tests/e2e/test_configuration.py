"""Configuration through the environment alone, and what a person is told when something is wrong with it."""

import os
import re
import shutil
import socket
import tempfile

import pytest

from daemon import BINARY, command, variable

# For every key a value that is not its default, as people write it, and as it is shown.
ANOTHER = {
    "server.grpc.address": "127.0.0.3",
    "server.grpc.port": "10090",
    "server.grpc.tls.cert_file": "/c.pem",
    "server.grpc.tls.key_file": "/k.pem",
    "server.grpc.tls.client_ca_file": "/ca.pem",
    "server.http.address": "127.0.0.2",
    "server.http.port": "10080",
    "server.http.metrics_path": "/m",
    "server.http.tls.cert_file": "/hc.pem",
    "server.http.tls.key_file": "/hk.pem",
    "server.http.tls.client_ca_file": "/hca.pem",
    "server.http.auth.bearer_token_file": "/token",
    "collector.interval": "7s",
    "collector.freshness": "3s",
    "collector.modules": "tcp",
    "collector.max_cpu_percent": "3.5",
    "collector.max_cpu_window": "20s",
    "collector.tcp.hook": "tp_btf",
    "collector.tcp.labels": "pid",
    "collector.retransmit.hook": "tp_btf",
    "collector.fadvise.hook": "tracepoint",
    "collector.fadvise.read_back_window": "30s",
    "collector.page-cache.hook": "kprobe",
    "collector.page-cache.lookups": "true",
    "collector.reclaim.hook": "tp_btf",
    "collector.drops.hook": "tp_btf",
    "metrics.max_series": "77",
    "metrics.idle_ttl": "9m",
    "metrics.histogram_buckets": "0.00002",
    "identity.cri_socket": "/cri.sock",
    "identity.docker_socket": "off",
    "identity.podman_storage": "/storage",
    "identity.pod_name": "web-0",
    "identity.pod_namespace": "shop",
    "target.pids": "1, 2",
    "target.descendants": "true",
    "target.comms": "curl, wget",
    "target.ports": "80, 443",
    "target.cgroup": "/",
    "target.containers": "web",
    "target.namespaces": "shop",
    "events.enabled": "true",
    "events.output": "/var/log/connections",
    "events.max_size": "64MiB",
    "events.max_files": "3",
    "node.name": "somewhere",
    "log.level": "debug",
    "log.format": "json",
}


def effective(output):
    """Key: value and origin, from what `ebpf-sidecar config` prints."""
    sections, found = [], {}
    for line in output.splitlines():
        entry, _, origin = line.partition("  # ")
        depth = (len(entry) - len(entry.lstrip())) // 2
        name, _, value = entry.strip().partition(":")
        sections = [*sections[:depth], name]
        if origin:
            found[".".join(sections)] = (value.strip().strip("[]"), origin)
    return found


def test_every_key_has_its_variable():
    defaults = effective(command("config").stdout)
    assert ANOTHER.keys() == defaults.keys(), "a key is new: give it another value above"
    assert {origin for _, origin in defaults.values()} == {"default"}
    printed = command("config", settings=ANOTHER)
    assert printed.returncode == 0, printed.stderr
    assert effective(printed.stdout) == {key: (value, variable(key)) for key, value in ANOTHER.items()}


def test_the_daemon_does_what_the_environment_says(sidecar, tmp_path):
    token = tmp_path / "token"
    token.write_text("sesame\n")
    running = sidecar(
        {
            "server.http.address": "127.0.0.2",
            "server.grpc.address": "127.0.0.3",
            "server.http.metrics_path": "/m",
            "server.http.auth.bearer_token_file": token,
            "collector.tcp.labels": "src_port,pid",
            "node.name": "somewhere",
        }
    )
    assert (running.http.partition(":")[0], running.grpc.partition(":")[0]) == ("127.0.0.2", "127.0.0.3")
    assert running.get("/m").status_code == 401
    sesame = {"Authorization": "Bearer sesame"}
    assert running.get("/metrics", headers=sesame).status_code == 404
    page = running.get("/m", headers=sesame).text
    labels = rf'role="client",src_port="\d+",dst_ip="127.0.0.2",dst_port="{running.http_port}"'
    assert re.search(rf'sidecar_connections_opened_total{{comm="[^"]+",pid="\d+",{labels}}} 1', page)
    assert running.get("/api/v1/stats", headers=sesame).json()["node"] == "somewhere"


def test_variables_of_kubernetes_services_are_not_ours(sidecar):
    # What every container of a namespace finds in its environment when there is a Service `ebpf-sidecar` with ports
    # named http and grpc, and another one named `ebpf-sidecar-server-http`.
    address = "tcp://10.0.0.1"
    injected = {
        "EBPF_SIDECAR_SERVICE_HOST": "10.0.0.1",
        "EBPF_SIDECAR_SERVICE_PORT": "8080",
        "EBPF_SIDECAR_SERVICE_PORT_HTTP": "8080",
        "EBPF_SIDECAR_SERVICE_PORT_GRPC": "9090",
        "EBPF_SIDECAR_PORT": f"{address}:8080",
        "EBPF_SIDECAR_PORT_8080_TCP": f"{address}:8080",
        "EBPF_SIDECAR_PORT_8080_TCP_PROTO": "tcp",
        "EBPF_SIDECAR_PORT_8080_TCP_PORT": "8080",
        "EBPF_SIDECAR_PORT_8080_TCP_ADDR": "10.0.0.1",
        "EBPF_SIDECAR_SERVER_HTTP_SERVICE_HOST": "10.0.0.2",
        "EBPF_SIDECAR_SERVER_HTTP_PORT": f"{address}:80",
        "KUBERNETES_SERVICE_HOST": "10.0.0.3",
    }
    printed = command("config", env=injected)
    assert (printed.returncode, printed.stderr) == (0, "")
    assert {origin for _, origin in effective(printed.stdout).values()} == {"default"}


def refusal(code, *arguments, **options):
    """The one line that the daemon ends with."""
    ended = command(*arguments, **options)
    assert ended.returncode == code, ended
    assert ended.stdout == ""
    (line,) = ended.stderr.splitlines()
    assert line.startswith("ebpf-sidecar: ")
    return line


def test_a_wrong_key():
    line = refusal(2, env={"EBPF_SIDECAR_COLLECTOR_INTERVALL": "5s"})
    assert "EBPF_SIDECAR_COLLECTOR_INTERVALL" in line
    assert re.search(r"EBPF_SIDECAR_COLLECTOR_INTERVAL\b", line), "it suggests the one that was meant"


@pytest.mark.parametrize(
    "key, value, allowed",
    [
        ("server.http.port", "70000", "0 to 65535"),
        ("collector.modules", "tpc", "tcp"),
        ("collector.interval", "1", "a time with a unit"),
        ("collector.interval", "1ms", "100ms"),
        ("collector.tcp.labels", "source", "src_ip"),
        ("metrics.max_series", "0", "1 to 1000000"),
        ("log.level", "loud", "warn"),
    ],
)
def test_a_wrong_value(key, value, allowed):
    line = refusal(2, settings={key: value})
    # The key, the value, where it was said, and what could be said instead.
    for part in (key, value, variable(key), allowed):
        assert re.search(part, line), line


def test_a_missing_file(tmp_path):
    missing = tmp_path / "missing.yaml"
    named = [refusal(2, "--config", missing), refusal(2, env={"EBPF_SIDECAR_CONFIG": str(missing)})]
    for line, origin in zip(named, ("--config", "EBPF_SIDECAR_CONFIG")):
        assert str(missing) in line
        assert origin in line
        assert "No such file" in line


def test_a_missing_certificate(tmp_path):
    missing = tmp_path / "missing.pem"
    line = refusal(2, settings={"server.http.tls.cert_file": missing, "server.http.tls.key_file": missing})
    assert str(missing) in line
    assert "server.http.tls.cert_file" in line


@pytest.mark.parametrize("server, other", [("http", "grpc"), ("grpc", "http")])
def test_a_port_in_use(server, other):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        line = refusal(1, settings={f"server.{server}.port": port, f"server.{other}.port": 0})
    assert f"127.0.0.1:{port}" in line
    assert f"server.{server}.port" in line
    assert "in use" in line


@pytest.fixture
def copy():
    """The program where everybody may start it, wherever it was built."""
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o755)
        yield shutil.copy(BINARY, directory)


NOBODY = ["--reuid=65534", "--regid=65534", "--clear-groups"]
SETTINGS = {"server.http.port": 0, "server.grpc.port": 0}


@pytest.mark.parametrize(
    "who, missing",
    [
        (NOBODY, "CAP_BPF and CAP_PERFMON"),
        (["--bounding-set=-bpf,-sys_admin"], "CAP_BPF"),
        (["--bounding-set=-perfmon,-sys_admin"], "CAP_PERFMON"),
    ],
    ids=["nobody", "root-without-bpf", "root-without-perfmon"],
)
def test_missing_privileges(copy, who, missing):
    line = refusal(3, settings=SETTINGS, prefix=["setpriv", *who], program=copy)
    assert line.startswith(f"ebpf-sidecar: missing {missing}: ")
    assert "setcap" in line, "it says how to get them"
