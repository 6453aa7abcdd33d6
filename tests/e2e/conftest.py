"""Fixtures: each undoes what it did."""

import socket
import subprocess
import sys
import threading
from pathlib import Path

import grpc
import pytest
from grpc_tools import protoc

import network
from daemon import Daemon
from tools import inside, run, until

PROTO = Path(__file__).parents[2] / "proto"


@pytest.fixture
def sidecar(tmp_path):
    """Starts daemons; at the end those that still run are asked to stop, and must do so with success."""
    started = []

    def start(settings=None, flags=(), **options):
        started.append(Daemon(tmp_path / f"sidecar-{len(started)}.log", settings, flags, **options))
        return started[-1]

    yield start
    try:
        for daemon in started:
            if daemon.process.poll() is None:
                assert daemon.stop() == 0, daemon.log.read_text()
    finally:
        for daemon in started:
            daemon.kill()


@pytest.fixture
def start(tmp_path):
    """Starts programs in the background, in a namespace or here, that are killed at the end."""
    started = []

    def spawn(*command, namespace=None, listens=None, **options):
        output = open(tmp_path / f"program-{len(started)}.log", "w+")
        options = {"stdout": output, "stderr": output, "stdin": subprocess.DEVNULL} | options
        process = subprocess.Popen(inside(namespace, command), **options)
        process.log = output
        started.append(process)
        if listens:
            until(lambda: run("ss", "-Hltn", f"sport = :{listens}", namespace=namespace) or ended(process))
        return process

    def ended(process):
        if process.poll() is not None:
            process.log.seek(0)
            pytest.fail(f"{process.args} ended with {process.returncode}: {process.log.read()}")

    yield spawn
    for process in started:
        process.kill()
        process.wait()
        process.log.close()


@pytest.fixture
def namespace():
    with network.namespaces(1) as (name,):
        yield name


@pytest.fixture
def pair():
    with network.pair() as found:
        yield found


@pytest.fixture(params=["loopback-v4", "loopback-v6", "veth-v4", "veth-v6"])
def place(request):
    """Within one namespace and across two, over IPv4 and IPv6."""
    where, family = request.param.split("-")
    if where == "loopback":
        with network.namespaces(1) as (name,):
            yield network.Place(name, name, {"v4": "127.0.0.1", "v6": "::1"}[family])
    else:
        with network.pair() as (client, server, v4, v6):
            yield network.Place(client, server, {"v4": v4, "v6": v6}[family])


@pytest.fixture(scope="session")
def api(tmp_path_factory):
    """The messages and the stub, as the compiler writes them."""
    out = tmp_path_factory.mktemp("proto")
    name = "ebpf_sidecar/v1/metrics.proto"
    arguments = ["protoc", f"-I{PROTO}", f"--python_out={out}", f"--grpc_python_out={out}", name]
    assert protoc.main(arguments) == 0
    sys.path.insert(0, str(out))
    from ebpf_sidecar.v1 import metrics_pb2, metrics_pb2_grpc

    class Api:
        messages, Stub = metrics_pb2, metrics_pb2_grpc.EBPFMetricsStub

    yield Api
    sys.path.remove(str(out))


@pytest.fixture
def connect():
    """Opens channels, each with a connection of its own."""
    channels = []

    def open_channel(daemon):
        options = [
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.max_receive_message_length", -1),
            # Otherwise the library itself takes in many megabytes that nobody has asked for yet.
            ("grpc.http2.bdp_probe", 0),
        ]
        channels.append(grpc.insecure_channel(daemon.grpc, options))
        return channels[-1]

    yield open_channel
    for channel in channels:
        channel.close()


@pytest.fixture
def server():
    """Listens on the loopback, and hears out whoever connects."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        def serve():
            while True:
                try:
                    connection = listener.accept()[0]
                except OSError:
                    return
                with connection:
                    while connection.recv(65536):
                        pass

        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1]
        # Wakes whoever accepts.
        listener.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def runtime():
    """Starts runtimes; at the end nothing of them is left."""
    started = []

    def start(kind):
        started.append(kind())
        return started[-1]

    yield start
    for one in started:
        one.leave()
