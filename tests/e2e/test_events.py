"""The connection log and StreamEvents, against what those who made the connections say of them."""

import json
import os
import signal
import subprocess
import threading
import time
from collections import Counter
from datetime import datetime
from pathlib import Path

import grpc
import pytest

import network
from daemon import command
from metrics import finished
from test_storm import STORM
from tools import free_port, inside, run, until

TYPES = ("CONNECT", "ACCEPT", "CLOSE", "CONNECT_FAILED")
EACH = 4  # events of a connection with both ends on this host
MIB = 1 << 20


def events(text):
    """Those of whole lines."""
    return [json.loads(line) for line in text.splitlines()]


def of_port(found, port):
    return [event for event in found if event["dst_port"] == port]


def counted(daemon):
    """How many events there were, and how many were lost; nothing is known as long as nobody has listened."""
    metrics = daemon.metrics()
    return [int(metrics.sum(f"sidecar_events_{what}total")) for what in ("", "lost_")]


def gaps(found):
    numbers = [event["sequence"] for event in found]
    assert all(a < b for a, b in zip(numbers, numbers[1:])), "they go backwards"
    return sum(b - a - 1 for a, b in zip(numbers, numbers[1:]))


def only(port):
    """Nobody else's connections, nor those that ask for the metrics."""
    return {"target.ports": port}


def storm(port, connections, namespace, pairs=2):
    return json.loads(run(STORM, pairs, port, connections, namespace=namespace, timeout=120))


@pytest.fixture
def log(tmp_path):
    return tmp_path / "events"


@pytest.fixture
def nginx(start, namespace, tmp_path):
    """Writes down each connection: its port, and the bytes that came and went."""
    port = free_port()
    (tmp_path / "page").write_bytes(b"x" * 3000)
    tmp_path.chmod(0o755)
    config = tmp_path / "nginx.conf"
    config.write_text(f"""
        daemon off; worker_processes 2; pid {tmp_path}/nginx.pid; error_log stderr; user root;
        events {{ worker_connections 4000; }}
        http {{
            log_format ends '$remote_port $request_length $bytes_sent';
            access_log {tmp_path}/access ends buffer=64k flush=1s;
            server {{ listen 127.0.0.1:{port}; root {tmp_path}; }}
        }}
    """)
    server = start("nginx", "-c", config, namespace=namespace, listens=port)

    def connections():
        """Ends the server."""
        server.terminate()
        server.wait(10)
        return [tuple(map(int, line.split())) for line in (tmp_path / "access").read_text().splitlines()]

    yield port, connections
    server.terminate()
    server.wait(10)


def test_every_connection_of_a_load_generator(sidecar, namespace, nginx, log):
    """At the highest rate that two cores can produce, with default settings."""
    port, written_down = nginx
    daemon = sidecar({"events.enabled": "true", "events.output": log})
    report = run("ab", "-n", 20_000, "-c", 50, f"http://127.0.0.1:{port}/page", namespace=namespace, timeout=120)
    assert "Complete requests:      20000" in report and "Failed requests:        0" in report
    # It opens some more than it needs, and closes them unused.
    opened = network.kernel_counter(namespace, "ActiveOpens")
    assert 20_000 <= opened == network.kernel_counter(namespace, "PassiveOpens") <= 20_050
    until(lambda: len(of_port(events(log.read_text()), port)) >= EACH * opened, interval=0.5)
    found = events(log.read_text())
    served = written_down()
    assert len(served) == 20_000

    produced, lost = counted(daemon)
    assert lost == 0
    assert gaps(found) == 0 and found[0]["sequence"] == 1 and produced >= len(found)
    ours = of_port(found, port)
    assert Counter((event["type"], event["role"]) for event in ours) == {
        ("CONNECT", "client"): opened, ("ACCEPT", "server"): opened,
        ("CLOSE", "client"): opened, ("CLOSE", "server"): opened,
    }
    used = Counter(served)
    ports = Counter(event["src_port"] for event in ours if event["type"] == "CONNECT")
    assert ports == Counter(event["src_port"] for event in ours if event["type"] == "ACCEPT")
    assert ports >= Counter(port for port, _, _ in served)
    for role, near, far in [("server", "bytes_received", "bytes_sent"), ("client", "bytes_sent", "bytes_received")]:
        closed = [event for event in ours if event["type"] == "CLOSE" and event["role"] == role]
        assert Counter(event["src_port"] for event in closed) == ports
        moved = [(event["src_port"], event[near], event[far]) for event in closed if event[near] or event[far]]
        assert Counter(moved) == used
        assert {event["process"] for event in closed} == {"ab" if role == "client" else "nginx"}
    requests, replies = (sum(row[index] for row in served) for index in (1, 2))
    daemon.shows(finished(requests, replies, opened), role="client", dst_port=port)
    daemon.shows(finished(replies, requests, opened), role="server", dst_port=port)


def test_fields_are_those_that_were_promised(sidecar, start, namespace, log):
    daemon = sidecar({"events.enabled": "true", "events.output": log, "node.name": "node-1"})
    port = free_port()
    began = time.time()
    storm(port, 3, namespace, pairs=1)
    refused = subprocess.run(inside(namespace, ["curl", "-s", "http://127.0.0.1:1/"]))
    assert refused.returncode == 7
    found = until(lambda: (seen := events(log.read_text())) and seen[-1]["type"] == "CONNECT_FAILED" and seen)
    inode = os.stat(f"/run/netns/{namespace}").st_ino
    known = {
        "sequence": int, "timestamp": str, "node": str, "type": str, "protocol": str, "role": str, "src_ip": str,
        "src_port": int, "dst_ip": str, "dst_port": int, "pid": int, "process": str, "netns": int,
    }
    ending = {"reason": str, "duration_seconds": float, "retransmits": int}
    traffic = {name: int for name in ("bytes_sent", "bytes_received", "packets_sent", "packets_received", "rtt_us")}
    fields = {"CONNECT": known, "ACCEPT": known, "CLOSE": known | ending | traffic, "CONNECT_FAILED": known | ending}
    ours = [event for event in found if event["netns"] == inode]
    assert {event["type"] for event in ours} == set(TYPES)
    for event in ours:
        who = {name: event.pop(name) for name in ("container", "service") if name in event}
        assert {name: type(value) for name, value in event.items()} == fields[event["type"]], (event, who)
        assert (event["node"], event["protocol"], event["dst_ip"]) == ("node-1", "TCP", "127.0.0.1")
        assert began <= datetime.fromisoformat(event["timestamp"]).timestamp() <= time.time()
        assert len(event["timestamp"]) == len("2025-11-06T10:30:45.123456789Z")
    # As the storm ends them, one after another.
    ends = [(event["role"], event["reason"]) for event in of_port(ours, port) if event["type"] == "CLOSE"]
    assert sorted(ends) == sorted([
        ("server", "fin"), ("client", "peer_fin"), ("client", "aborted"), ("server", "reset"), ("client", "fin"),
        ("server", "peer_fin"),
    ])
    assert ours[-1]["reason"] == "refused" and ours[-1]["process"] == "curl"
    assert daemon.metrics().sum("sidecar_events_total", type="CONNECT_FAILED") >= 1


def test_a_stream_says_the_same_as_the_log(sidecar, api, connect, namespace, log):
    daemon = sidecar({"events.enabled": "true", "events.output": log, "node.name": "node-1"})
    port, messages = free_port(), api.messages
    kinds = [messages.EVENT_TYPE_CLOSE, messages.EVENT_TYPE_CONNECT]
    filter = messages.EventFilter(dst_ports=[port], types=kinds)
    stream = api.Stub(connect(daemon)).StreamEvents(messages.StreamEventsRequest(filter=filter), timeout=60)
    stream.initial_metadata()  # from here on
    storm(port, 1000, namespace)
    streamed = []
    while len(streamed) < 3000:
        message = next(stream)
        assert message.lost == 0
        streamed += message.events
    until(lambda: len(of_port(events(log.read_text()), port)) == EACH * 1000)
    logged = [event for event in of_port(events(log.read_text()), port) if event["type"] != "ACCEPT"]
    assert len(streamed) == len(logged) == 3000
    for message, line in zip(streamed, logged):
        seconds, _, fraction = line.pop("timestamp").removesuffix("Z").partition(".")
        whole = int(datetime.fromisoformat(seconds + "+00:00").timestamp())
        assert message.timestamp_unix_nano == whole * 10**9 + int(fraction)
        assert messages.EventType.Name(message.type) == f"EVENT_TYPE_{line.pop('type')}"
        assert {name: getattr(message, name) for name in line} == line


def test_filters_that_match_nothing_are_refused(sidecar, api, connect):
    stub, messages = api.Stub(connect(sidecar())), api.messages
    for field, value in [("types", [0]), ("processes", [""]), ("dst_ports", [70_000])]:
        filter = messages.EventFilter(**{field: value})
        with pytest.raises(grpc.RpcError) as refused:
            next(stub.StreamEvents(messages.StreamEventsRequest(filter=filter), timeout=20))
        assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert refused.value.details().startswith(f"filter.{field}: ")


def test_without_tcp_there_is_nothing_to_tell(sidecar, api, connect):
    daemon = sidecar({"collector.modules": "reclaim", "events.enabled": "true"})
    assert "there is no connection log" in daemon.log.read_text()
    with pytest.raises(grpc.RpcError) as refused:
        next(api.Stub(connect(daemon)).StreamEvents(api.messages.StreamEventsRequest(), timeout=20))
    assert refused.value.code() == grpc.StatusCode.FAILED_PRECONDITION


def test_a_stalled_log_loses_events_counts_them_and_nothing_else(sidecar, namespace):
    """Nobody reads the pipe that is its stdout."""
    read, write = os.pipe()
    port = free_port()
    daemon = sidecar(only(port) | {"events.enabled": "true"}, stdout=write)
    os.close(write)
    sent = storm(port, 25_000, namespace, pairs=4)
    asked = time.monotonic()
    daemon.shows(finished(sent["clients"], sent["servers"], 25_000), role="client", dst_port=port)
    daemon.shows(finished(sent["servers"], sent["clients"], 25_000), role="server", dst_port=port)
    assert time.monotonic() - asked < 5
    assert counted(daemon)[1] > 10_000, "more than may wait"

    # A reader comes.
    received, ended = bytearray(), threading.Event()

    def drain():
        while block := os.read(read, MIB):
            received.extend(block)
        ended.set()

    threading.Thread(target=drain, daemon=True).start()

    def at_rest():
        produced, lost = counted(daemon)
        return received.count(b"\n") + lost == produced
    until(at_rest, interval=0.3)
    produced, lost = counted(daemon)
    found = events(received.decode())
    assert len(found) + lost == produced
    # What was lost last shows in the next that is not.
    storm(port, 1, namespace, pairs=1)
    until(lambda: received.count(b"\n") >= len(found) + EACH and at_rest(), interval=0.3)
    found = events(received.decode())
    assert gaps(found) == counted(daemon)[1]
    assert found[-1]["sequence"] == counted(daemon)[0]
    assert daemon.stop() == 0
    assert ended.wait(5)
    os.close(read)


def test_a_stalled_log_does_not_hold_up_the_end(sidecar, namespace):
    read, write = os.pipe()
    daemon = sidecar({"events.enabled": "true"}, stdout=write)
    storm(free_port(), 1000, namespace)
    asked = time.monotonic()
    assert daemon.stop() == 0
    assert time.monotonic() - asked < 5
    os.close(read)
    os.close(write)


def test_a_closed_pipe_is_no_reason_to_end(sidecar, namespace):
    read, write = os.pipe()
    daemon = sidecar({"events.enabled": "true"}, stdout=write)
    os.close(read)
    os.close(write)
    port = free_port()
    storm(port, 100, namespace)
    until(lambda: (count := counted(daemon)) and count[0] >= EACH * 100 and count[0] == count[1])
    assert daemon.log.read_text().count("the connection log cannot be written; events are lost") == 1


def test_a_stream_that_stalls_loses_events_and_is_told(sidecar, api, connect, namespace):
    port = free_port()
    daemon = sidecar(only(port))
    stream = api.Stub(connect(daemon)).StreamEvents(api.messages.StreamEventsRequest(), timeout=120)
    stream.initial_metadata()
    sent = storm(port, 15_000, namespace, pairs=4)
    daemon.shows(finished(sent["clients"], sent["servers"], 15_000), role="client", dst_port=port)
    until(lambda: counted(daemon)[1] > 1000, interval=0.3)
    read = lost = 0
    while read + lost < counted(daemon)[0]:
        # The next one that comes through tells what was lost last.
        if read + counted(daemon)[1] >= counted(daemon)[0]:
            storm(port, 1, namespace, pairs=1)
        message = next(stream)
        read, lost = read + len(message.events), lost + message.lost
    assert [read + lost, lost] == counted(daemon)


def test_files_are_rotated(sidecar, namespace, log):
    port = free_port()
    settings = {"events.enabled": "true", "events.output": log, "events.max_size": "1MiB", "events.max_files": 3}
    daemon = sidecar(only(port) | settings)
    storm(port, 5000, namespace)
    until(lambda: counted(daemon)[0] == EACH * 5000 == last(log), interval=0.2)
    names = [f"{log}.{number}" for number in (3, 2, 1)] + [str(log)]
    assert sorted(map(str, log.parent.glob("events*"))) == sorted(names)
    found = [event for name in names for event in events(Path(name).read_text())]
    assert all(os.stat(name).st_size <= MIB for name in names)
    assert all(os.stat(name).st_size > MIB - 100_000 for name in names[:-1])
    assert gaps(found) == 0
    assert counted(daemon)[1] == 0


def last(log):
    """The last number in a file."""
    found = events(log.read_text())
    return found[-1]["sequence"] if found else 0


def test_a_file_that_was_moved_away_is_opened_anew(sidecar, namespace, log):
    port = free_port()
    daemon = sidecar(only(port) | {"events.enabled": "true", "events.output": log})
    away = log.with_suffix(".away")
    storm(port, 10, namespace)
    until(lambda: log.exists() and counted(daemon)[0] == last(log))
    log.rename(away)
    for _ in range(3):
        storm(port, 10, namespace)
        time.sleep(1.1)
    until(lambda: log.exists() and counted(daemon)[0] == last(log))
    found = events(away.read_text()) + events(log.read_text())
    assert gaps(found) == 0 and found[0]["sequence"] == 1
    assert counted(daemon)[1] == 0


def test_everything_is_written_before_the_end(sidecar, namespace, log):
    daemon, port = sidecar({"events.enabled": "true", "events.output": log}), free_port()
    storm(port, 2000, namespace)
    assert daemon.stop() == 0
    found = events(log.read_text())
    assert len(of_port(found, port)) == EACH * 2000
    assert gaps(found) == 0


def test_after_a_kill_no_line_is_torn_but_the_last(sidecar, start, namespace, log):
    settings = {"events.enabled": "true", "events.output": log}
    for _ in range(3):
        daemon = sidecar(settings)
        load = start(STORM, 2, free_port(), 1_000_000, namespace=namespace)
        size = log.stat().st_size
        until(lambda: log.stat().st_size > size + 2 * MIB)
        assert daemon.stop(signal.SIGKILL) == -signal.SIGKILL
        load.kill()
        load.wait()
    last_one = sidecar(settings)
    port = free_port()
    storm(port, 10, namespace)
    until(lambda: f'"dst_port":{port}' in log.read_text() and log.read_text().endswith("\n"))
    assert last_one.stop() == 0
    torn = 0
    for line in log.read_text().splitlines():
        try:
            json.loads(line)
        except ValueError:
            torn += 1
    assert torn <= 3


@pytest.fixture
def small(tmp_path):
    """A file system with room for little."""
    folder = tmp_path / "small"
    folder.mkdir()
    run("mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", folder)
    try:
        yield folder
    finally:
        run("umount", folder)


def test_a_full_disk_loses_events_until_there_is_room(small, sidecar, namespace):
    log, port = small / "events", free_port()
    daemon = sidecar(only(port) | {"events.enabled": "true", "events.output": log})
    storm(port, 3000, namespace)

    def at_rest():
        produced, lost = counted(daemon)
        return log.read_text().count("\n") + lost == produced
    until(at_rest)
    produced, lost = counted(daemon)
    assert lost > 1000
    text = log.read_text()
    assert text.endswith("\n") and len(events(text)) + lost == produced, "whole lines only"
    # Somebody clears it away.
    log.rename(small / "old")
    (small / "old").unlink()
    time.sleep(1.1)
    storm(port, 10, namespace)
    until(lambda: log.exists() and log.read_text().count("\n") == EACH * 10)
    assert counted(daemon)[1] == lost
    told = [json.loads(line)["fields"] for line in daemon.log.read_text().splitlines()]
    assert sum(fields["message"] == "the connection log cannot be written; events are lost" for fields in told) == 1
    assert {"message": "the connection log can be written again", "lost": lost} in told


def test_a_log_that_cannot_be_opened_is_a_mistake_in_the_configuration(tmp_path):
    output = tmp_path / "no" / "folder"
    ports = {"server.http.port": 0, "server.grpc.port": 0}
    ended = command(settings=ports | {"events.enabled": "true", "events.output": output})
    assert ended.returncode == 2
    assert f"events.output: cannot open {output}" in ended.stderr
