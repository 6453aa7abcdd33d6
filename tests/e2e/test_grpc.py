"""gRPC as a stock Python client sees it, with nothing but the .proto file."""

import resource
import socket
import time

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from daemon import FROZEN

SERVICE = "ebpf_sidecar.v1.EBPFMetrics"
MIB = 1 << 20


def flat(snapshot):
    """Values by name and labels, as on /metrics; histograms by count and sum."""
    values = {}
    for family in snapshot.families:
        for sample in family.samples:
            labels, kind = frozenset(sample.labels.items()), sample.WhichOneof("value")
            if kind == "histogram":
                assert sum(bucket.count for bucket in sample.histogram.buckets) == sample.histogram.count
                values[family.name + "_count", labels] = sample.histogram.count
                values[family.name + "_sum", labels] = sample.histogram.sum
            else:
                values[family.name, labels] = getattr(sample, kind)
    return values


def test_every_value_is_that_of_the_page(sidecar, api, connect):
    daemon = sidecar(FROZEN)
    for _ in range(3):
        socket.create_connection(("127.0.0.1", daemon.http_port)).close()
    stub = api.Stub(connect(daemon))
    snapshot = stub.GetMetrics(api.messages.GetMetricsRequest(), timeout=20).snapshot
    page = {key: value for key, value in daemon.metrics().values.items() if not key[0].endswith("_bucket")}
    assert flat(snapshot) == page
    assert len(page) > 100
    streamed = next(stub.StreamMetrics(api.messages.StreamMetricsRequest(), timeout=20)).snapshot
    assert streamed == snapshot


def test_filters_choose(sidecar, api, connect):
    daemon = sidecar(FROZEN)
    stub = api.Stub(connect(daemon))
    everything = flat(stub.GetMetrics(api.messages.GetMetricsRequest(), timeout=20).snapshot)

    def chosen(**conditions):
        request = api.messages.GetMetricsRequest(filter=api.messages.MetricFilter(**conditions))
        return flat(stub.GetMetrics(request, timeout=20).snapshot)

    def those(condition):
        found = {key: value for key, value in everything.items() if condition(*key)}
        assert 0 < len(found) < len(everything)
        return found

    assert chosen(name_prefix="process_") == those(lambda name, _: name.startswith("process_"))
    status = {"module": "tcp", "status": "running"}
    assert chosen(labels=status) == those(lambda _, labels: labels >= status.items())
    assert chosen(modules=["self"], name_prefix="sidecar_bpf_") == those(
        lambda name, _: name.startswith("sidecar_bpf_")
    )


@pytest.mark.parametrize(
    "field, conditions",
    [
        ("filter.modules", {"modules": ["no-such-module"]}),
        ("filter.name_prefix", {"name_prefix": "not a name"}),
        ("filter.labels", {"labels": {"not-a-label": "x"}}),
    ],
)
def test_a_wrong_filter_is_named(sidecar, api, connect, field, conditions):
    stub = api.Stub(connect(sidecar()))
    wrong = api.messages.MetricFilter(**conditions)
    with pytest.raises(grpc.RpcError) as refused:
        stub.GetMetrics(api.messages.GetMetricsRequest(filter=wrong), timeout=20)
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert field in refused.value.details()
    with pytest.raises(grpc.RpcError) as refused:
        next(stub.StreamMetrics(api.messages.StreamMetricsRequest(filter=wrong), timeout=20))
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert field in refused.value.details()


@pytest.mark.parametrize("interval_ms", [1, 99, 3_600_001])
def test_a_wrong_interval_is_named(sidecar, api, connect, interval_ms):
    stub = api.Stub(connect(sidecar()))
    with pytest.raises(grpc.RpcError) as refused:
        next(stub.StreamMetrics(api.messages.StreamMetricsRequest(interval_ms=interval_ms), timeout=20))
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "interval_ms" in refused.value.details()


def test_a_stream_begins_at_once_and_keeps_its_interval(sidecar, api, connect):
    stub = api.Stub(connect(sidecar()))
    interval = 1.5  # long, against what a busy machine may be late
    asked = time.monotonic()
    stream = stub.StreamMetrics(api.messages.StreamMetricsRequest(interval_ms=int(interval * 1000)), timeout=30)
    first = next(stream)
    assert time.monotonic() - asked < 0.9 * interval, "the first message does not wait for a tick"
    messages = [first, *(next(stream) for _ in range(4))]
    stamps = [message.snapshot.timestamp_unix_nano for message in messages]
    # Ticks are counted from the start: one may be late, and the next is on time again.
    assert stamps[-1] - stamps[0] == pytest.approx(4 * interval * 1e9, abs=interval / 2 * 1e9)
    sequences = [message.snapshot.sequence for message in messages]
    assert sequences == sorted(set(sequences)), "each message has its own snapshot"
    assert [message.skipped_ticks for message in messages] == [0] * 5


def test_health_and_modules(sidecar, api, connect):
    daemon = sidecar()
    channel = connect(daemon)
    stub, messages = api.Stub(channel), api.messages
    health = stub.GetHealth(messages.GetHealthRequest(), timeout=20)
    assert health.status == messages.HEALTH_HEALTHY
    assert (health.ready, health.alive) == (True, True)
    # What takes its price from everybody runs only where it was named.
    running = {name for name, status in health.modules.items() if status == messages.MODULE_STATUS_RUNNING}
    assert running >= {"tcp", "retransmit", "page-cache", "reclaim", "drops"}
    assert set(health.modules.values()) <= {messages.MODULE_STATUS_RUNNING, messages.MODULE_STATUS_DISABLED}
    assert health.timestamp == pytest.approx(time.time(), abs=5)

    modules = {module.name: module for module in stub.ListModules(messages.ListModulesRequest(), timeout=20).modules}
    assert {name: module.status for name, module in modules.items()} == dict(health.modules)
    assert all((modules[name].reason == "") == (name in running) for name in modules)
    tcp = modules["tcp"]
    assert {hook.kind for hook in tcp.hooks} == {"tp_btf", "iter"}
    assert {hook.cost for hook in tcp.hooks} == {"event"}
    assert all(program.runs > 0 for program in tcp.programs if program.name in ("tcp_pass", "tcp_walk"))
    assert all(known.bytes > 0 for known in tcp.maps if known.name not in ("sockets", "events"))

    standard = health_pb2_grpc.HealthStub(channel)
    for service in ("", SERVICE):
        answer = standard.Check(health_pb2.HealthCheckRequest(service=service), timeout=20)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    with pytest.raises(grpc.RpcError) as refused:
        standard.Check(health_pb2.HealthCheckRequest(service="no.such.Service"), timeout=20)
    assert refused.value.code() == grpc.StatusCode.NOT_FOUND


def test_reflection_lists_and_describes(sidecar, connect):
    stub = reflection_pb2_grpc.ServerReflectionStub(connect(sidecar()))
    request = reflection_pb2.ServerReflectionRequest
    listing, described = stub.ServerReflectionInfo(
        iter([request(list_services=""), request(file_containing_symbol=SERVICE)]), timeout=20
    )
    services = {service.name for service in listing.list_services_response.service}
    assert {SERVICE, "grpc.health.v1.Health"} <= services
    assert any(b"StreamMetrics" in file for file in described.file_descriptor_response.file_descriptor_proto)


@pytest.fixture
def many_connections():
    """So many that a snapshot is far larger than what the network holds of it when nobody reads."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (8192, max(8192, before[1])))
    sockets = []
    try:
        listener = socket.create_server(("127.0.0.1", 0), backlog=1000)
        sockets.append(listener)
        for _ in range(500):
            sockets += [socket.create_connection(listener.getsockname()), listener.accept()[0]]
        yield
    finally:
        for one in sockets:
            one.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_a_stalled_reader_costs_nobody_anything(sidecar, api, connect, many_connections):
    # Only so many series: the machine may have connections of its own, and the sizes compared here shall not change.
    daemon = sidecar({"collector.tcp.labels": "src_port", "metrics.max_series": 1000})
    stalled, lively = (api.Stub(connect(daemon)) for _ in range(2))
    size = stalled.GetMetrics(api.messages.GetMetricsRequest(), timeout=20).ByteSize()
    assert size > MIB / 2

    asleep = stalled.StreamMetrics(api.messages.StreamMetricsRequest(interval_ms=100), timeout=100)
    assert skipped(asleep) == 0
    # Not reading from here on. Somebody else reads on, less at a time so as to be no bottleneck itself.
    little = api.messages.MetricFilter(name_prefix="process_")
    awake = lively.StreamMetrics(api.messages.StreamMetricsRequest(filter=little, interval_ms=200), timeout=100)
    began, resident = time.monotonic(), []
    for _ in range(40):
        next(awake)
        resident.append(daemon.resident())
    assert time.monotonic() - began < 12, "forty messages at an interval of 200 ms"
    # Of sixty more messages none is kept: the one that waits and the one on its way are all it holds.
    assert resident[-1] - resident[9] < 2 * size, [round(size / MIB, 1) for size in resident]

    # Awake again, it gets those, and hears of what it missed.
    missed = [skipped(asleep) for _ in range(5)]
    assert sum(missed) >= 60, missed


def skipped(stream):
    return next(stream).skipped_ticks
