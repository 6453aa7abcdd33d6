"""A bounded number of series, however many destinations there are."""

import socket
from collections import Counter

from metrics import CLOSED, OPENED, RECEIVED, SENT
from network import within
from tools import free_port, until

MAX_SERIES = 100
WINDOW = 1000  # connections, each to a destination of its own
REQUEST, REPLY = 10, 30
# Each connection has two ends here.
DONE = {OPENED: 2 * WINDOW, CLOSED: 2 * WINDOW, SENT: (REQUEST + REPLY) * WINDOW, RECEIVED: (REQUEST + REPLY) * WINDOW}
MIB = 1 << 20


def visit(listener, port, first):
    for number in range(first, first + WINDOW):
        address = f"127.{1 + number // 62_500}.{number // 250 % 250}.{1 + number % 250}"
        with socket.create_connection((address, port)) as client, listener.accept()[0] as server:
            client.sendall(bytes(REQUEST))
            server.recv(REQUEST, socket.MSG_WAITALL)
            server.sendall(bytes(REPLY))
            client.recv(REPLY, socket.MSG_WAITALL)


def series_by_family(metrics):
    """Of each family, those that are not `other`; of histograms their counts."""
    found = Counter()
    for name, labels in metrics.values:
        if not name.endswith("_bucket") and any(value != "other" for _, value in labels):
            found[name] += 1
    return found


def test_five_thousand_destinations(sidecar, namespace):
    daemon, port = sidecar({"metrics.max_series": MAX_SERIES}), free_port()
    listener = within(namespace, lambda: socket.create_server(("0.0.0.0", port)))

    daemon.page()

    def totals():
        # Without our own questions, which have had series of their own since the first.
        metrics = daemon.metrics()
        return {family: metrics.sum(family) - metrics.sum(family, dst_port=daemon.http_port) for family in DONE}

    def grown(before):
        return {family: value - before[family] for family, value in totals().items()}

    # The sums are over all series, and thus of all that this machine does: what others do meanwhile adds to them. They
    # are never too small, and in a window in which nobody else did anything, they are exact.
    exact, resident = 0, []
    while len(resident) < 5 or (not exact and len(resident) < 20):
        before = totals()
        within(namespace, lambda: visit(listener, port, len(resident) * WINDOW))
        until(lambda: all(grown(before)[family] >= done for family, done in DONE.items()))
        exact += grown(before) == DONE
        resident.append(daemon.resident())
    assert exact, "the sums never were what was done"
    listener.close()

    metrics = daemon.metrics()
    most = series_by_family(metrics).most_common(1)
    assert most[0][1] == MAX_SERIES, most
    (other,) = metrics.samples(SENT, dst_ip="other")
    assert set(other[0].values()) == {"other"}
    assert other[1] > 4 * WINDOW * (REQUEST + REPLY)
    assert metrics.sum("sidecar_series", family=SENT) == MAX_SERIES + 1
    assert metrics.sum("sidecar_series_folded_total", family=SENT) > 4 * 2 * WINDOW

    # Flat: two thousand destinations in, all is allocated that ever will be.
    assert max(resident[2:]) - resident[1] < MIB, [round(size / MIB, 2) for size in resident]
