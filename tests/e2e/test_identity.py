"""Whose traffic it is, with the runtimes themselves: containers that they run are named in everything that is shown."""

import json
import os
import socket
import threading
import time

from metrics import Metrics
from runtimes import IMAGE, Containerd, Docker, Podman, says
from tools import until

OPENED = "sidecar_connections_opened_total"
SENT = "sidecar_connection_bytes_sent_total"
LOOKUPS = "sidecar_identity_lookups_total"


def settings(cri="off", docker="off", podman="off", **others):
    return {"identity.cri_socket": cri, "identity.docker_socket": docker, "identity.podman_storage": podman} | others


def client(daemon, port, **labels):
    """Who has sent what to a port: the labels that name a client, and its bytes."""
    samples = daemon.metrics(dst_port=port, role="client").samples(SENT, **labels)
    names = ("container", "pod", "namespace", "service")
    return sorted((tuple(found.get(name, "") for name in names), int(value)) for found, value in samples)


def shows(daemon, port, expected):
    """Bytes that clients have sent to the port, by who they are."""
    deadline = time.monotonic() + 20
    while (found := client(daemon, port)) != sorted(expected) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert found == sorted(expected)


def state(daemon):
    [helper] = daemon.get("/api/v1/modules").json()["helpers"]
    assert helper["name"] == "identity"
    return helper


def slowest(daemon, times=10):
    """The longest that a page takes."""
    def once():
        before = time.monotonic()
        daemon.page()
        return time.monotonic() - before

    return max(once() for _ in range(times))


def test_pods_of_containerd(sidecar, runtime, server, api, connect, tmp_path):
    containerd = runtime(Containerd)
    pod = containerd.pod("shop-0", "prod")
    # One container is older than the daemon, and one is not.
    old = containerd.container(pod, "old", says(server, "old", after=3))
    log = tmp_path / "events"
    events = {"events.enabled": "true", "events.output": log}
    daemon = sidecar(settings(cri=containerd.socket, **events))
    # The log does not wait for the name of a container that has just come.
    new = containerd.container(pod, "new", says(server, "me-too", after=3))
    shows(daemon, server, [(("old", "shop-0", "prod", ""), 4), (("new", "shop-0", "prod", ""), 7)])
    assert old != new
    assert (state(daemon)["status"], state(daemon)["reason"]) == ("running", "")

    # JSON and gRPC say the same.
    stats = json.loads(daemon.get("/api/v1/stats").content)
    family = next(one for one in stats["modules"]["tcp"]["metrics"] if one["name"] == SENT)
    wanted = {"container": "new", "pod": "shop-0", "namespace": "prod", "dst_port": str(server)}
    assert [one["value"] for one in family["samples"] if wanted.items() <= one["labels"].items()] == [7]
    stub, messages = api.Stub(connect(daemon)), api.messages
    request = messages.GetMetricsRequest(filter=messages.MetricFilter(name_prefix=SENT, labels=wanted))
    (family,) = stub.GetMetrics(request, timeout=20).snapshot.families
    assert [sample.integer for sample in family.samples] == [7]

    # So does the log, of both ends of what was said.
    def closed():
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        found = [line for line in lines if line["type"] == "CLOSE" and line["dst_port"] == server and "container" in line]
        return len(found) == 2 and found

    names = {"pod_name": "shop-0", "pod_namespace": "prod"}
    wanted = [{"container_id": old, "container_name": "old", **names}, {"container_id": new, "container_name": "new", **names}]
    found = [line["container"] for line in until(closed)]
    assert sorted(found, key=str) == sorted(wanted, key=str)


def test_open_connections_of_a_container(sidecar, runtime):
    containerd = runtime(Containerd)
    daemon = sidecar(settings(cri=containerd.socket))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        id = containerd.container(containerd.pod("shop-0", "prod"), "web", says(port, "hello"))
        with listener.accept()[0] as connection:
            assert connection.recv(100) == b"hello\n"

            def mine():
                rows = daemon.get("/api/v1/connections?container=web&limit=1000").json()["connections"]
                return [row for row in rows if row["dst_port"] == port]

            (row,) = until(mine)
            names = {"container_id": id, "container_name": "web", "pod_name": "shop-0", "pod_namespace": "prod"}
            assert (row["role"], row["bytes_sent"], row["container"]) == ("client", 6, names)


def test_a_container_that_lives_for_an_instant(sidecar, runtime, server):
    containerd = runtime(Containerd)
    daemon = sidecar(settings(cri=containerd.socket))
    pod = containerd.pod("job-0", "batch")
    container = containerd.container(pod, "once", ["/bin/sh", "-c", f"echo gone | nc 127.0.0.1 {server}; sleep 0.2"])
    shows(daemon, server, [(("once", "job-0", "batch", ""), 5)])
    # Neither its end nor that nobody knows it any more takes its name away.
    containerd.remove(container)
    assert client(daemon, server) == [(("once", "job-0", "batch", ""), 5)]


def test_events_have_the_name_from_the_first_one_on(sidecar, runtime, server, tmp_path):
    containerd, log = runtime(Containerd), tmp_path / "events"
    daemon = sidecar(settings(cri=containerd.socket) | {"events.enabled": "true", "events.output": log})
    pod = containerd.pod("job-0", "batch")
    id = containerd.container(pod, "once", ["/bin/sh", "-c", f"echo gone | nc 127.0.0.1 {server}"])

    def told():
        found = [json.loads(line) for line in log.read_text().splitlines()]
        return [event for event in found if event["dst_port"] == server and event["role"] == "client"]

    connect, close = until(lambda: len(told()) == 2 and told())
    container = {"container_id": id, "container_name": "once", "pod_name": "job-0", "pod_namespace": "batch"}
    assert (connect["type"], connect["container"], connect["process"]) == ("CONNECT", container, "nc")
    assert (close["type"], close["container"], close["bytes_sent"]) == ("CLOSE", container, 5)
    assert daemon.metrics().sum("sidecar_events_lost_total") == 0


def test_restarts_of_a_container_and_of_its_runtime_are_followed(sidecar, runtime, server):
    containerd = runtime(Containerd)
    daemon = sidecar(settings(cri=containerd.socket))
    pod = containerd.pod("shop-0", "prod")
    web = ("web", "shop-0", "prod", "")
    first = containerd.container(pod, "web", says(server, "one"))
    shows(daemon, server, [(web, 4)])
    containerd.remove(first)
    second = containerd.container(pod, "web", says(server, "two", then=8), attempt=1)
    assert first != second
    shows(daemon, server, [(web, 8)])

    containerd.kill()
    # What runs goes on, and so does its name. Nobody waits for the runtime.
    assert slowest(daemon) < 0.5
    assert client(daemon, server) == [(web, 8)]
    containerd.start()
    containerd.container(pod, "web", says(server, "three"), attempt=2)
    containerd.container(pod, "side", says(server, "four"))
    shows(daemon, server, [(web, 14), (("side", "shop-0", "prod", ""), 5)])
    assert state(daemon)["status"] == "running"


def test_containers_of_containerd_without_kubernetes(sidecar, runtime, server):
    containerd = runtime(Containerd)
    daemon = sidecar(settings(cri=containerd.socket))
    containerd.ctr("default", "run", "-d", "--net-host", IMAGE, "redis", *says(server, "plain"))
    labels = ["--label", "io.kubernetes.pod.name=web-0", "--label", "io.kubernetes.pod.namespace=prod"]
    labels += ["--label", "io.kubernetes.container.name=web"]
    containerd.ctr("default", "run", "-d", "--net-host", *labels, IMAGE, "x", *says(server, "labelled"))
    shows(daemon, server, [(("redis", "", "", ""), 6), (("web", "web-0", "prod", ""), 9)])


def test_docker(sidecar, runtime, server):
    docker = runtime(Docker)
    daemon = sidecar(settings(docker=docker.socket))
    first = docker.container("web", says(server, "one"))
    shows(daemon, server, [(("web", "", "", ""), 4)])
    # The same name for another container.
    docker.docker("rm", "-f", first)
    second = docker.container("web", says(server, "two"))
    assert first != second
    shows(daemon, server, [(("web", "", "", ""), 8)])
    # The same container once more.
    docker.docker("restart", "-t", "0", second)
    shows(daemon, server, [(("web", "", "", ""), 12)])
    docker.kill()
    assert slowest(daemon) < 0.5
    assert client(daemon, server) == [(("web", "", "", ""), 12)]


def test_podman(sidecar, runtime, server):
    podman = runtime(Podman)
    daemon = sidecar(settings(podman=podman.storage))
    podman.container("web", says(server, "hello"))
    shows(daemon, server, [(("web", "", "", ""), 6)])


def test_nobody_tells_names(sidecar, runtime, server):
    docker = runtime(Docker)
    daemon = sidecar(settings())
    id = docker.container("web", says(server, "hello"))
    shows(daemon, server, [((id, "", "", ""), 6)])
    assert list(daemon.metrics().samples(LOOKUPS)) == []


def test_our_own_pod_in_a_sidecar(sidecar, runtime, server):
    containerd = runtime(Containerd)
    pod = containerd.pod("shop-0", "prod")
    other = containerd.pod("else-0", "prod")
    names = {"identity.pod_name": "shop-0", "identity.pod_namespace": "prod"}
    # It is in the cgroup of its pod, as a container of it.
    uid = pod[1].metadata.uid
    folders = [f"{top}/kubepods/burstable/pod{uid}" for top in ("/sys/fs/cgroup/memory", "/sys/fs/cgroup/unified")]
    own = "/sys/fs/cgroup/memory/cgroup.procs"
    try:
        for folder in folders:
            with open(f"{folder}/cgroup.procs", "w") as procs:
                procs.write(str(os.getpid()))
        daemon = sidecar(settings(**names))
    finally:
        for folder in folders:
            with open(os.path.join(folder.split("/kubepods")[0], "cgroup.procs"), "w") as procs:
                procs.write(str(os.getpid()))
    near = containerd.container(pod, "near", says(server, "near"))
    far = containerd.container(other, "far", says(server, "distant"))
    shows(daemon, server, [((near, "shop-0", "prod", ""), 5), ((far, "", "", ""), 8)])
    # It is in the way of those who tidy up.
    assert daemon.stop() == 0


def test_a_runtime_that_never_answers_keeps_nobody_waiting(sidecar, server, tmp_path):
    path = str(tmp_path / "silent.sock")
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(path)
        silent.listen(64)
        daemon = sidecar(settings(cri=path, docker=path))
        assert slowest(daemon, times=50) < 0.5
        reason = until(lambda: state(daemon)["reason"])
        assert "does not answer within 2 s" in until(lambda: "cri at" in state(daemon)["reason"] and state(daemon)["reason"])
        assert state(daemon)["status"] == "degraded" and path in reason
        failed = lambda: daemon.metrics(source="cri").sum(LOOKUPS, outcome="failed")
        assert until(failed) >= 1
        assert slowest(daemon, times=50) < 0.5
    assert daemon.stop() == 0


def test_nonsense_is_an_error_and_not_a_name(sidecar, tmp_path):
    path = str(tmp_path / "wrong.sock")
    with socket.socket(socket.AF_UNIX) as wrong:
        wrong.bind(path)
        wrong.listen(64)

        def answer():
            while True:
                try:
                    with wrong.accept()[0] as connection:
                        connection.recv(4096)
                        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n[{\"Id\":1}")
                except OSError:
                    return

        threading.Thread(target=answer, daemon=True).start()
        daemon = sidecar(settings(cri=path, docker=path))
        reason = until(lambda: "docker at" in state(daemon)["reason"] and "cri at" in state(daemon)["reason"] and
                       state(daemon)["reason"])
        assert "invalid type" in reason
        assert slowest(daemon) < 0.5
        wrong.shutdown(socket.SHUT_RDWR)
