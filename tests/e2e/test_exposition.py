"""One snapshot in every form that HTTP offers."""

import gzip
import http.client
import json
import socket
import subprocess

import pytest

from daemon import FROZEN, OPENMETRICS
from metrics import SENT, Metrics
from tools import free_port


@pytest.fixture
def frozen(sidecar):
    daemon = sidecar(FROZEN)
    # So that there is something to be shown of every kind.
    for _ in range(3):
        socket.create_connection(("127.0.0.1", daemon.http_port)).close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", free_port()))
    names = {name for name, _ in daemon.metrics().values}
    assert {SENT, "sidecar_connection_setup_seconds_count", "sidecar_connect_failures_total"} <= names
    return daemon


def test_promtool_has_nothing_to_say(frozen):
    command = ["promtool", "check", "metrics"]
    lint = subprocess.run(command, input=frozen.page(), capture_output=True, text=True, timeout=20)
    assert (lint.returncode, lint.stdout, lint.stderr) == (0, "", "")


def test_openmetrics_is_accepted_and_says_the_same(frozen):
    text, openmetrics = frozen.metrics(), Metrics.from_openmetrics(frozen.page(OPENMETRICS))
    assert openmetrics.values == text.values
    assert openmetrics.types == text.types
    assert len(text.values) > 100


def test_gzip_holds_the_same_page(frozen):
    plain = frozen.page()
    # Without a client that would unpack it silently.
    connection = http.client.HTTPConnection(frozen.http, timeout=20)
    connection.request("GET", "/metrics", headers={"Accept-Encoding": "gzip"})
    response = connection.getresponse()
    assert response.getheader("Content-Encoding") == "gzip"
    body = response.read()
    connection.close()
    assert len(body) < len(plain) / 2
    assert gzip.decompress(body).decode() == plain


def test_json_has_the_same_values(frozen):
    metrics, stats = frozen.metrics(), json.loads(frozen.get("/api/v1/stats").content)
    families = [family for module in stats["modules"].values() for family in module["metrics"]]
    assert stats["total_metrics"] == len(families)
    shown = {}
    for family in families:
        for sample in family["samples"]:
            labels = frozenset(sample["labels"].items())
            if family["type"] == "histogram":
                assert sum(bucket["count"] for bucket in sample["buckets"]) == sample["count"]
                shown[family["name"] + "_count", labels] = sample["count"]
                shown[family["name"] + "_sum", labels] = sample["sum"]
            else:
                shown[family["name"], labels] = sample["value"]
    # Buckets are coarser in text: their own test is that of the counts.
    text = {key: value for key, value in metrics.values.items() if not key[0].endswith("_bucket")}
    assert shown == text
