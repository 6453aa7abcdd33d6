"""Live connections as HTTP and gRPC list them, beside what `ss` and the programs that hold them say."""

import resource
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from google.protobuf.json_format import MessageToDict

from daemon import FROZEN
from tools import free_port, run

MANY = 10_000
PATH = "/api/v1/connections"


def listed(daemon, **parameters):
    response = daemon.get(PATH, params=parameters)
    assert response.status_code == 200, response.text
    return response.json()


@pytest.fixture
def hold():
    """Opens connections to a port of this process, each with so many bytes sent, and keeps them."""
    held = []
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 3 * MANY), max(hard, 3 * MANY)))

    def open_all(sizes):
        # Not of those that this host gives to clients, of which so many are needed.
        listener = socket.create_server(("127.0.0.1", free_port()), backlog=100)
        held.append(listener)
        for size in sizes:
            client = socket.create_connection(listener.getsockname())
            server, _ = listener.accept()
            client.sendall(bytes(size))
            assert len(server.recv(size, socket.MSG_WAITALL)) == size
            held.extend((client, server))
        return listener.getsockname()[1]

    yield open_all
    for each in held:
        each.close()
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_connection_is_shown_as_ss_shows_it(sidecar, hold):
    daemon, port = sidecar(), hold([4321])
    rows = {row["role"]: row for row in listed(daemon, dst_port=port)["connections"]}
    lines = run("ss", "-tinpOH", "dport", "=", f":{port}").splitlines()
    (shown,) = [line.split() for line in lines]
    words = dict(word.split(":", 1) for word in shown[5:] if ":" in word)
    client = rows["client"]
    assert (client["comm"], client["state"], client["retransmits"]) == ("python", "established", 0)
    assert f"pid={client['pid']}," in " ".join(shown)
    assert f"{client['src_ip']}:{client['src_port']}" == shown[3]
    assert f"{client['dst_ip']}:{client['dst_port']}" == shown[4]
    for ours, theirs in [("bytes_sent", "bytes_sent"), ("packets_sent", "segs_out"), ("cwnd", "cwnd"), ("mss", "mss")]:
        assert client[ours] == int(words[theirs]), ours
    rtt, variation = words["rtt"].split("/")
    assert (client["rtt_us"], client["rtt_variation_us"]) == (round(float(rtt) * 1e3), round(float(variation) * 1e3))
    assert client["congestion_control"] in shown
    server = rows["server"]
    assert (server["bytes_received"], server["bytes_sent"]) == (4321, 0)
    assert [server[name] for name in ("src_ip", "src_port", "dst_ip", "dst_port")] == [
        client[name] for name in ("src_ip", "src_port", "dst_ip", "dst_port")
    ]
    assert "container" not in client, "what is not known is left out"
    assert 0 < client["duration_seconds"] < 20


def test_ten_thousand_connections_are_bounded_in_time_and_memory(sidecar, hold):
    daemon = sidecar()
    sizes = [1 + number * 7919 % MANY for number in range(MANY)]
    port = hold(sizes)
    daemon.page()
    before, times = daemon.resident(), []
    for _ in range(20):
        begin = time.monotonic()
        found = listed(daemon, dst_port=port, sort="bytes_sent", limit=50)
        times.append(time.monotonic() - begin)
        assert found["total"] == 2 * MANY and found["live"] >= found["total"]
        assert [row["bytes_sent"] for row in found["connections"]] == list(range(MANY, MANY - 50, -1))
    grown = daemon.resident() - before
    print(f"{2 * MANY} sockets, limit 50: {sorted(times)[10] * 1e3:.1f} ms in the middle, {max(times) * 1e3:.1f} ms at most; "
          f"{grown / 1e6:.1f} MB more resident")
    assert max(times) < 2 and grown < 8 << 20
    # The longest list there is: a whole one, of the largest.
    found = listed(daemon, dst_port=port, role="client", limit=MANY)["connections"]
    assert [row["bytes_sent"] for row in found] == sorted(sizes, reverse=True)
    assert len({row["src_port"] for row in found}) == MANY


def test_lists_and_scrapes_at_the_same_time(sidecar, hold):
    daemon, port = sidecar(), hold([10] * 500)

    def ask(number):
        if number % 3:
            return len(listed(daemon, dst_port=port, limit=700)["connections"]) == 700
        return "sidecar_active_connections" in daemon.page()

    with ThreadPoolExecutor(12) as pool:
        assert all(pool.map(ask, range(200)))


def test_a_reader_that_stalls_delays_nobody(sidecar, hold):
    daemon, port = sidecar(), hold([10] * 5000)
    stalled = []
    for _ in range(6):
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", daemon.http_port))
        client.sendall(f"GET {PATH}?limit=10000&dst_port={port} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        stalled.append(client)
    time.sleep(0.5)
    for _ in range(10):
        begin = time.monotonic()
        daemon.page()
        assert time.monotonic() - begin < 2
    for client in stalled:
        client.close()
    assert len(listed(daemon, dst_port=port, limit=50)["connections"]) == 50


def test_grpc_lists_the_same(sidecar, hold, api, connect):
    daemon, port = sidecar(), hold([100, 300, 200])
    stub = api.Stub(connect(daemon))

    def ask(**conditions):
        return stub.ListConnections(api.messages.ListConnectionsRequest(**conditions), timeout=20)

    def still(row):
        """Without what goes on by itself."""
        return {name: value for name, value in row.items() if not name.startswith(("since_", "duration_"))}

    def plain(message):
        # 64-bit integers are text in the JSON of protobuf.
        row = MessageToDict(message, preserving_proto_field_name=True)
        return {name: int(text) if isinstance(text, str) and text.isdigit() else text for name, text in row.items()}

    time.sleep(0.3)
    found = ask(dst_port=port, sort="bytes_sent", role="client")
    assert [row.bytes_sent for row in found.connections] == [300, 200, 100]
    assert [still(plain(row)) for row in found.connections] == [
        still(row) for row in listed(daemon, dst_port=port, sort="bytes_sent", role="client")["connections"]
    ]
    assert (found.total, len(ask(dst_port=port, limit=1).connections)) == (3, 1)
    assert abs(found.timestamp_unix_nano / 1e9 - time.time()) < 60
    assert not found.connections[0].HasField("ssthresh") and found.connections[0].HasField("lost")

    for field, wrong in [("limit", 0), ("limit", 10_001), ("sort", "beauty"), ("state", "listen"), ("dst_port", 65_536)]:
        with pytest.raises(grpc.RpcError) as refused:
            ask(**{field: wrong})
        assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert refused.value.details().startswith(f"{field}: ")


def test_without_the_module_it_is_said(sidecar, api, connect):
    daemon = sidecar(FROZEN | {"collector.modules": "page-cache"})
    response = daemon.get(PATH)
    assert (response.status_code, response.json()["error"]) == (
        503, "connections are not known, as tcp is not running: not among collector.modules"
    )
    with pytest.raises(grpc.RpcError) as refused:
        api.Stub(connect(daemon)).ListConnections(api.messages.ListConnectionsRequest(), timeout=20)
    assert refused.value.code() == grpc.StatusCode.FAILED_PRECONDITION


def test_what_makes_no_sense_is_named(sidecar):
    daemon = sidecar()
    for query, name in [("limit=0", "limit"), ("colour=red", "colour"), ("pid=1&pid=1", "pid"), ("src_ip=x", "src_ip")]:
        response = daemon.get(f"{PATH}?{query}")
        assert response.status_code == 400 and response.json()["error"].startswith(f"{name}: "), response.text
