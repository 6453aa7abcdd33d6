"""Bytes to the last one, against what applications say of themselves: over IPv4 and IPv6, within a namespace and across
two, seen from both ends."""

import re
import socket

import pytest

from daemon import PORT_LABEL
from metrics import finished
from network import within
from tools import free_port, run, run_json

# iperf3 names each data connection by sending this many bytes over it first, and does not count them.
COOKIE = 37


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
def test_iperf3(sidecar, start, place, reverse):
    daemon, port = sidecar(PORT_LABEL), free_port()
    start("iperf3", "-s", "-1", "-p", port, namespace=place.server, listens=port)
    # When the test is over, which it says on another connection, its receiver closes without reading on. At a moderate
    # rate and without Nagle's algorithm (-N) everything has been sent and has arrived by then, though perhaps not all
    # been read: nobody's count is of bytes that were thrown away on their way.
    client = ["iperf3", "-J", "-N", "-c", place.ip, "-p", port, "-n", "2M", "-l", "4K", "-b", "16M"]
    report = run_json(*client, *["-R"] * reverse, namespace=place.client)
    (stream,) = report["start"]["connected"]
    written = report["end"]["sum_sent"]["bytes"]
    assert written >= 2 * 1024 * 1024
    to_server, to_client = (COOKIE, written) if reverse else (written + COOKIE, 0)
    connection = {"dst_ip": place.ip, "dst_port": port, "src_port": stream["local_port"], "comm": "iperf3"}
    daemon.shows(finished(sent=to_server, received=to_client), role="client", **connection)
    daemon.shows(finished(sent=to_client, received=to_server), role="server", **connection)
    # What iperf3 received is what it has read when its test ended: of the last blocks it may not know.
    assert 0 <= written - report["end"]["sum_received"]["bytes"] <= 64 * 1024


@pytest.fixture
def nginx(start, place, tmp_path):
    """A server of files whose names are their sizes."""
    sizes = [0, 1, 1000, 65_537, 30_000_001]
    for size in sizes:
        (tmp_path / str(size)).write_bytes(b"x" * size)
    tmp_path.chmod(0o755)
    port = free_port()
    config = tmp_path / "nginx.conf"
    config.write_text(f"""
        daemon off; worker_processes 2; pid {tmp_path}/nginx.pid; error_log stderr; user root;
        events {{}}
        http {{
            access_log off;
            client_body_temp_path {tmp_path}/body; proxy_temp_path {tmp_path}/proxy; fastcgi_temp_path {tmp_path}/fcgi;
            uwsgi_temp_path {tmp_path}/uwsgi; scgi_temp_path {tmp_path}/scgi;
            server {{ listen {place.url_host}:{port}; root {tmp_path}; }}
        }}
    """)
    server = start("nginx", "-c", config, namespace=place.server, listens=port)
    yield port, sizes
    # Its workers go with the master only if that may say goodbye.
    server.terminate()
    server.wait(10)


@pytest.mark.parametrize("keep_alive", [True, False], ids=["keep-alive", "one-by-one"])
def test_nginx_and_curl(sidecar, place, nginx, keep_alive):
    daemon, (port, sizes) = sidecar(), nginx
    counts = '%{size_request} %{size_header} %{size_download}\\n'
    urls = [f"http://{place.url_host}:{port}/{size}" for size in sizes]
    connections = [urls] if keep_alive else [[url] for url in urls]
    sent = received = 0
    for urls in connections:
        curl = ["curl", "-sS", "-g", "--no-buffer", "-w", counts]
        each = [word for url in urls for word in (url, "-o", "/dev/null")]
        for line in run(*curl, *each, namespace=place.client).splitlines():
            request, header, body = map(int, line.split())
            sent += request
            received += header + body
    assert received > sum(sizes), "the bodies, and headers too"
    labels = {"dst_ip": place.ip, "dst_port": port}
    daemon.shows(finished(sent, received, len(connections)), role="client", comm="curl", **labels)
    daemon.shows(finished(received, sent, len(connections)), role="server", comm="nginx", **labels)


def test_redis(sidecar, start, place, tmp_path):
    daemon, port = sidecar(), free_port()
    options = ["--port", port, "--bind", place.ip, "--save", "", "--protected-mode", "no", "--dir", tmp_path]
    start("redis-server", *options, namespace=place.server, listens=port)
    benchmark = ["redis-benchmark", "-h", place.ip, "-p", port, "-n", 20_000, "-c", 20, "-P", 4, "-d", 300, "-q"]
    run(*benchmark, "-t", "set,get", namespace=place.client)

    # The server's own count of what it read and wrote. It knows of this question, and not yet of its answer.
    with within(place.client, lambda: socket.create_connection((place.ip, port))) as connection:
        connection.sendall(b"INFO stats\r\n")
        answer = b""
        while not answer.endswith(b"\r\n\r\n"):
            answer += connection.recv(65536)
    stats = dict(re.findall(r"^(\w+):(\d+)\r$", answer.decode(), re.MULTILINE))
    to_server, to_client = int(stats["total_net_input_bytes"]), int(stats["total_net_output_bytes"]) + len(answer)
    assert to_server > 20_000 * 300
    connections = int(stats["total_connections_received"])
    labels = {"dst_ip": place.ip, "dst_port": port}
    daemon.shows(finished(to_server, to_client, connections), role="client", **labels)
    daemon.shows(finished(to_client, to_server, connections), role="server", comm="redis-server", **labels)
