"""From the first moment to the last: what was there before, and what stays behind."""

import http.client
import signal
import socket
import time
from pathlib import Path

import grpc
import pytest

from kernel import left, owned
from test_storm import STORM
from tools import free_port, until

# Clients have five seconds to finish once the end was announced.
DRAIN = 5


@pytest.fixture
def load(start, namespace):
    """Connections come and go for as long as the test lasts."""
    storm = start(STORM, 2, free_port(), 10_000_000, namespace=namespace)
    yield storm
    assert storm.poll() is None, "the load ended before the test did"
    storm.terminate()
    storm.wait(10)


def attached(daemon):
    """What it has in the kernel, once all of its programs are attached."""
    ids = owned(daemon.pid)
    return len(ids["prog"]) == len(ids["link"]) > 0 and ids


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_nothing_stays_in_the_kernel(sidecar, load, how):
    for _ in range(3):
        daemon = sidecar()
        daemon.page()
        ids = until(lambda: attached(daemon))
        assert len(ids["map"]) > 10
        assert left(ids) == {kind: ids[kind] for kind in ids}
        assert daemon.stop(how) == (0 if how == signal.SIGTERM else -how)
        # The kernel frees them after a grace period.
        until(lambda: not left(ids))


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_it_stops_in_time_whoever_is_connected(sidecar, api, connect, how):
    daemon = sidecar()
    stream = api.Stub(connect(daemon)).StreamMetrics(api.messages.StreamMetricsRequest(), timeout=60)
    next(stream)
    idle = http.client.HTTPConnection(daemon.http, timeout=20)
    idle.request("GET", "/metrics")
    response = idle.getresponse()
    response.read()
    assert not response.will_close
    silent = socket.create_connection(("127.0.0.1", daemon.http_port))

    asked = time.monotonic()
    assert daemon.stop(how, timeout=DRAIN + 3) == 0
    assert time.monotonic() - asked < DRAIN + 1
    with pytest.raises(grpc.RpcError) as ended:
        next(stream)
    assert ended.value.code() == grpc.StatusCode.UNAVAILABLE
    idle.close()
    silent.close()


def test_a_connection_from_before_counts_from_now_on(sidecar, start, tmp_path):
    port = free_port()
    options = ["--port", port, "--bind", "127.0.0.1", "--save", "", "--dir", tmp_path]
    start("redis-server", *options, listens=port)
    with socket.create_connection(("127.0.0.1", port)) as connection:

        def ping(times):
            connection.sendall(b"PING\r\n" * times)
            answers = b""
            while len(answers) < times * len("+PONG\r\n"):
                answers += connection.recv(65536)

        ping(1000)
        daemon = sidecar()
        own_name = Path("/proc/self/comm").read_text().strip()
        client = {"role": "client", "comm": own_name, "dst_ip": "127.0.0.1", "dst_port": port}
        server = {"role": "server", "comm": "redis-server", "dst_ip": "127.0.0.1", "dst_port": port}
        nothing = {"sent": 0, "received": 0, "opened": 0, "closed": 0, "active": 1}
        assert daemon.account(**client) == nothing
        assert daemon.account(**server) == nothing

        ping(10)
        daemon.shows(nothing | {"sent": 60, "received": 70}, **client)
        daemon.shows(nothing | {"sent": 70, "received": 60}, **server)
    daemon.shows({"sent": 60, "received": 70, "opened": 0, "closed": 1, "active": 0}, **client)
    daemon.shows({"sent": 70, "received": 60, "opened": 0, "closed": 1, "active": 0}, **server)
    # Under no other name, role or address either.
    everything = daemon.account(dst_port=port)
    assert everything == {"sent": 130, "received": 130, "opened": 0, "closed": 2, "active": 0}
