"""The tables of metrics in the documents, made from what a scrape says of itself.

python -m tests.kit.metrics_table    # prints those of docs/metrics.md
"""

from __future__ import annotations

import sys

from prometheus_client.parser import text_string_to_metric_families

from spotd.ops.metrics import Metrics, Numbers
from spotd.relay.metrics import Numbers as RelayNumbers
from spotd.relay.metrics import RelayMetrics

# One of each label, so that a scrape shows it.
_DAEMON = Numbers(
    quotes_dropped={"x": 1},
    messages_ignored={"x": 1},
    doubtful_leases={"x": 1},
    symbols={"x": 1},
)


def daemon_text() -> str:
    """Return a scrape of a daemon in which every metric has a sample."""
    metrics = Metrics()
    metrics.numbers_from(lambda: _DAEMON)
    metrics.reconnects["x"] += 1
    return metrics.text().decode()


def relay_text() -> str:
    """Return a scrape of a relay in which every metric has a sample."""
    metrics = RelayMetrics()
    metrics.numbers_from(lambda: RelayNumbers(clients={"x": 1}))
    metrics.refused["x"] += 1
    metrics.closed[4000] += 1
    return metrics.text().decode()


def metrics_rows(scrape: str) -> list[str]:
    """Return a row for each metric of ours in a scrape: name, type, labels, meaning."""
    rows = []
    for family in text_string_to_metric_families(scrape):
        if not family.name.startswith("spotd_"):
            continue
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        name = family.name + ("_total" if family.type == "counter" else "")
        shown = ", ".join(f"`{label}`" for label in sorted(labels))
        rows.append(f"| `{name}` | {family.type} | {shown} | {family.documentation} |")
    return sorted(rows)


if __name__ == "__main__":
    sys.stdout.write("\n".join([*metrics_rows(daemon_text()), "", *metrics_rows(relay_text()), ""]))
