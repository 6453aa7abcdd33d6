"""What /metrics says, read by the parsers of the Prometheus project's own Python client."""

from prometheus_client import parser as text
from prometheus_client.openmetrics import parser as openmetrics

SENT = "sidecar_connection_bytes_sent_total"
RECEIVED = "sidecar_connection_bytes_received_total"
RETRANSMITS = "sidecar_connection_retransmits_total"
DURATION = "sidecar_connection_duration_seconds"
ACTIVE = "sidecar_active_connections"
OPENED = "sidecar_connections_opened_total"
CLOSED = "sidecar_connections_closed_total"


class Metrics:
    """Values by name and labels."""

    def __init__(self, families):
        self.types = {}
        self.values = {}
        for family in families:
            self.types[family.name] = family.type
            for sample in family.samples:
                key = (sample.name, frozenset(sample.labels.items()))
                assert key not in self.values, f"{key} is there twice"
                self.values[key] = sample.value

    @classmethod
    def from_text(cls, page):
        return cls(text.text_string_to_metric_families(page))

    @classmethod
    def from_openmetrics(cls, page):
        return cls(openmetrics.text_string_to_metric_families(page))

    def samples(self, name, **labels):
        """Labels and values of the samples that carry these labels."""
        wanted = [(label, str(value)) for label, value in labels.items()]
        for (known, found), value in self.values.items():
            if known == name and all(pair in found for pair in wanted):
                yield dict(found), value

    def sum(self, name, **labels):
        return sum(value for _, value in self.samples(name, **labels))

    def account(self):
        """What the connections did."""
        families = {"sent": SENT, "received": RECEIVED, "opened": OPENED, "closed": CLOSED, "active": ACTIVE}
        return {what: self.sum(name) for what, name in families.items()}


def finished(sent, received, connections=1):
    """The account of connections that were opened, used and closed."""
    return {"sent": sent, "received": received, "opened": connections, "closed": connections, "active": 0}
