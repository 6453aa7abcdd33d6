"""Fixtures: each undoes what it did."""

import subprocess

import pytest

import network
from daemon import Daemon
from tools import inside, run, until


@pytest.fixture
def sidecar(tmp_path):
    """Starts daemons; at the end those that still run are asked to stop, and must do so with success."""
    started = []

    def start(settings=None, flags=()):
        started.append(Daemon(tmp_path / f"sidecar-{len(started)}.log", settings, flags))
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
