"""Prometheus itself: it scrapes, and answers the queries that dashboards are made of."""

import json
import socket
from contextlib import contextmanager

import pytest
import requests

import network
from daemon import PORT_LABEL
from tools import free_port, until


@pytest.fixture
def prometheus(start, tmp_path):
    """Scrapes a daemon every second; returns what asks it."""

    def scrape(daemon):
        port = free_port()
        config = tmp_path / "prometheus.yml"
        job = {"job_name": "sidecar", "scrape_interval": "1s", "static_configs": [{"targets": [daemon.http]}]}
        config.write_text(json.dumps({"scrape_configs": [job]}))
        storage, address = f"--storage.tsdb.path={tmp_path}/data", f"--web.listen-address=127.0.0.1:{port}"
        start("prometheus", f"--config.file={config}", storage, address, listens=port)
        until(lambda: requests.get(f"http://127.0.0.1:{port}/-/ready", timeout=20).ok)

        def ask(query):
            answer = requests.get(f"http://127.0.0.1:{port}/api/v1/query", {"query": query}, timeout=20)
            answer.raise_for_status()
            return [(found["metric"], float(found["value"][1])) for found in answer.json()["data"]["result"]]

        until(lambda: ask("up == 1"))
        return ask

    return scrape


@contextmanager
def load(start, client, server, ip):
    """iperf3 for as long as the body lasts."""
    port = free_port()
    start("iperf3", "-s", "-1", "-p", port, namespace=server, listens=port)
    iperf = start("iperf3", "-c", ip, "-p", port, "-t", 60, "-b", "20M", namespace=client)
    yield port
    assert iperf.poll() is None, "the load ended before the test did"


def test_it_scrapes_without_a_complaint(sidecar, prometheus):
    ask = prometheus(sidecar())
    until(lambda: ask("count_over_time(up[30s]) >= 3"))
    assert ask("min_over_time(up[30s]) < 1") == []
    assert all(value > 100 for _, value in ask("scrape_samples_scraped"))
    # It knows the types: a counter that were none would be in no such list.
    assert ask("sidecar_module_status{module='tcp', status='running'} == 1")


def test_rates_of_bytes_and_retransmits(sidecar, start, prometheus, pair):
    ask = prometheus(sidecar())
    client, server, ip, _ = pair
    with load(start, client, server, ip) as port:
        # 20 Mbit/s is what iperf3 was told to send.
        rate = f'rate(sidecar_connection_bytes_sent_total{{dst_ip="{ip}", dst_port="{port}", role="client"}}[5s])'
        labels, value = until(lambda: ask(f"{rate} > 2e6"))[0]
        assert labels["comm"] == "iperf3"
        assert value < 3.5e6

        retransmits = f'rate(sidecar_connection_retransmits_total{{dst_port="{port}"}}[5s]) > 10'
        assert ask(retransmits) == []
        network.lose(server, percent=10)
        (found,) = until(lambda: ask(retransmits))
        assert found[0]["role"] == "client"
        assert found[0]["dst_ip"] == ip


def test_connections_by_port(sidecar, start, prometheus, namespace):
    ask = prometheus(sidecar(PORT_LABEL))
    ports = [str(free_port()) for _ in range(2)]
    sockets = []
    for port, count in zip(ports, (3, 7)):
        address = ("127.0.0.1", int(port))
        sockets.append(network.within(namespace, lambda: socket.create_server(address)))
        sockets += [network.within(namespace, lambda: socket.create_connection(address)) for _ in range(count)]
    query = "count by (dst_port) (sidecar_connection_duration_seconds)"

    def found():
        return {labels["dst_port"]: value for labels, value in ask(query) if labels["dst_port"] in ports}

    # Client and server are both on this machine: each connection is there twice.
    until(lambda: found() == dict(zip(ports, (6, 14))))
    for one in sockets:
        one.close()
    until(lambda: found() == {})
