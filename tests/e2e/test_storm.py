"""Many short connections while somebody looks very often."""

import json
import threading
import time
from pathlib import Path

import pytest

import network
from metrics import finished
from tools import free_port

STORM = Path(__file__).with_name("storm.py")
CONNECTIONS = 50_000
SCRAPES_PER_SECOND = 20


class Scraper(threading.Thread):
    """Keeps every page."""

    def __init__(self, daemon):
        super().__init__()
        self.daemon_process, self.pages, self.ended = daemon, [], threading.Event()

    def run(self):
        while not self.ended.wait(max(0, self.due() - time.monotonic())):
            self.pages.append(self.daemon_process.page())

    def due(self):
        self.started = getattr(self, "started", time.monotonic())
        return self.started + len(self.pages) / SCRAPES_PER_SECOND

    def stop(self):
        """For how long it has looked."""
        self.ended.set()
        self.join()
        return time.monotonic() - self.started


def counters(page):
    """Everything on the page that may only grow, by its series: a plain split, for there is much to read."""
    kinds, values = {}, {}
    for line in page.splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            kinds[name] = kind
        elif not line.startswith("#"):
            series, value = line.rsplit(" ", 1)
            name = series.partition("{")[0]
            family = name if name in kinds else name.rpartition("_")[0]
            if kinds[family] in ("counter", "histogram"):
                values[series] = float(value)
    return values


def assert_monotonic(pages):
    highest = {}
    for number, page in enumerate(pages):
        for series, value in counters(page).items():
            assert value >= highest.get(series, 0), f"{series} went from {highest[series]} to {value} at page {number}"
            highest[series] = value
    return highest


def test_fifty_thousand_connections_while_being_scraped(sidecar, start, namespace):
    daemon, port = sidecar(), free_port()
    scraper = Scraper(daemon)
    scraper.start()
    try:
        storm = start(STORM, 4, port, CONNECTIONS, namespace=namespace)
        assert storm.wait(120) == 0
    finally:
        seconds = scraper.stop()
    storm.log.seek(0)
    sent = json.load(storm.log)

    daemon.shows(finished(sent["clients"], sent["servers"], CONNECTIONS), role="client", dst_port=port)
    daemon.shows(finished(sent["servers"], sent["clients"], CONNECTIONS), role="server", dst_port=port)
    for name in ("ActiveOpens", "PassiveOpens"):
        assert network.kernel_counter(namespace, name) == CONNECTIONS
    # A busy machine makes it less often, and the storm longer.
    assert len(scraper.pages) > min(100, 0.75 * SCRAPES_PER_SECOND * seconds)
    seen = assert_monotonic([*scraper.pages, daemon.page()])
    assert sum(series.startswith("sidecar_connection_bytes_sent_total") for series in seen) >= 8


def test_a_counter_that_goes_down_is_noticed():
    page = "# TYPE a_total counter\na_total{{b=\"c d\"}} {}\n# TYPE g gauge\ng {}\n"
    assert_monotonic([page.format(2, 2), page.format(3, 1)])
    with pytest.raises(AssertionError, match="went from 3.0 to 2.0 at page 1"):
        assert_monotonic([page.format(3, 1), page.format(2, 2)])
