"""Retransmissions on a link that loses segments, against the kernel's count and the application's."""

import json

import pytest

import network
from daemon import PORT_LABEL
from metrics import ACTIVE, RETRANSMITS
from tools import free_port, until


@pytest.mark.parametrize("family", ["v4", "v6"])
def test_retransmits_are_those_of_the_kernel_and_of_iperf3(sidecar, start, pair, tmp_path, family):
    daemon, port = sidecar(PORT_LABEL), free_port()
    client, server, *addresses = pair
    ip = addresses[family == "v6"]
    start("iperf3", "-s", "-1", "-p", port, namespace=server, listens=port)
    report = open(tmp_path / "report.json", "w+")
    both_ways = ["iperf3", "-J", "--bidir", "-c", ip, "-p", port, "-t", 12, "-b", "50M"]
    iperf = start(*both_ways, namespace=client, stdout=report)

    def total(family, role, **labels):
        return daemon.metrics(role=role, dst_ip=ip, dst_port=port, **labels).sum(family)

    # One connection for control and one for each direction.
    until(lambda: total(ACTIVE, "client") == 3)
    for namespace in (client, server):
        network.lose(namespace, percent=4)
    # iperf3 asks TCP_INFO for the last time when its test ends, and its connections live a little longer. The link is
    # good again before, so that nothing has to be sent twice in that last moment, which only we would count.
    until(lambda: total(RETRANSMITS, "client") >= 30 and total(RETRANSMITS, "server") >= 30, timeout=9)
    for namespace in (client, server):
        network.lose_nothing(namespace)
    assert iperf.wait(30) == 0

    # There are no other connections in these namespaces: RetransSegs is of these three.
    for namespace, role in [(client, "client"), (server, "server")]:
        assert total(RETRANSMITS, role) == network.kernel_counter(namespace, "RetransSegs"), role

    report.seek(0)
    report = json.load(report)
    ports = {connection["socket"]: connection["local_port"] for connection in report["start"]["connected"]}
    senders = [stream["sender"] for stream in report["end"]["streams"]]
    assert sorted(sender["sender"] for sender in senders) == [False, True], "the client sends on one, the server on one"
    for sender in senders:
        role = "client" if sender["sender"] else "server"
        ours = total(RETRANSMITS, role, src_port=ports[sender["socket"]])
        # total_retrans of TCP_INFO, as ours: what belongs to this socket since it exists.
        assert ours == sender["retransmits"] > 0, role
