"""Talks Prometheus for the web tier. Counters are plain numbers that are read at a scrape."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from spotd.ops.metrics import Distribution, Scraped, labelled

_LATENCY_BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.08, 0.1, 0.2, 0.5, 1.0, 5.0)


@dataclass(slots=True)
class Numbers:
    """What the parts of a relay know at the moment of a scrape."""

    clients: dict[str, int] = field(default_factory=dict)  # by kind of connection
    blocked: int = 0
    symbols: int = 0
    messages: int = 0
    updates: int = 0
    skipped: int = 0
    tick_s: float = 0.0
    redis_connected: bool = False
    ready: bool = False


class RelayMetrics(Scraped):
    """What the edges count."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes_sent = 0
        self.received = 0  # messages of clients
        self.refused: Tally[str] = Tally()  # connections and requests, by code
        self.closed: Tally[int] = Tally()  # connections that the relay ended, by close code
        self.latency = Distribution(
            "spotd_relay_delivery_latency_seconds",
            "Per write: the oldest message of it became known to written",
            _LATENCY_BUCKETS,
        )
        self._read: Callable[[], Numbers] = Numbers

    def numbers_from(self, read: Callable[[], Numbers]) -> None:
        """Call ``read`` for the numbers at every scrape."""
        self._read = read

    def collect(self) -> Iterable[Metric]:
        """Yield all numbers as of now."""
        numbers = self._read()
        counters: tuple[tuple[str, str, float], ...] = (
            ("spotd_relay_messages", "Messages handed to connections", numbers.messages),
            ("spotd_relay_updates", "Prices in them", numbers.updates),
            ("spotd_relay_skipped", "Prices that newer ones replaced", numbers.skipped),
            ("spotd_relay_bytes", "Bytes handed to connections", self.bytes_sent),
            ("spotd_relay_received", "Messages of clients", self.received),
        )
        gauges: tuple[tuple[str, str, float], ...] = (
            (
                "spotd_relay_clients_blocked",
                "Connections that have not taken what was sent, and get the newest later",
                numbers.blocked,
            ),
            ("spotd_relay_symbols", "Symbols that somebody wants", numbers.symbols),
            ("spotd_relay_tick_seconds", "How long a tick lasts", numbers.tick_s),
            ("spotd_relay_redis_connected", "1: Redis is joined", numbers.redis_connected),
            ("spotd_relay_ready", "1: ready, as /readyz says", numbers.ready),
        )
        yield self.latency.family()
        for name, meaning, value in counters:
            yield CounterMetricFamily(name, meaning, value=value)
        for name, meaning, value in gauges:
            yield GaugeMetricFamily(name, meaning, value=value)
        yield labelled(
            GaugeMetricFamily("spotd_relay_clients", "Connections", labels=["kind"]),
            numbers.clients,
        )
        yield labelled(
            CounterMetricFamily(
                "spotd_relay_refused", "Connections and requests refused", labels=["code"]
            ),
            self.refused,
        )
        yield labelled(
            CounterMetricFamily(
                "spotd_relay_closed", "Connections that the relay ended", labels=["code"]
            ),
            self.closed,
        )
