"""Talks Prometheus. Must not decide anything.

The counters of the hot path are plain numbers in the parts that count, read at each scrape. As a
consequence, a quote costs no lock and no look-up of labels. Only events that happen once per frame
or per call are counted here.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter as Tally
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from math import nan
from typing import Any, TypeVar

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

PROMETHEUS_TEXT = "text/plain; version=0.0.4; charset=utf-8"  # the type of what ``text`` returns
Labelled = TypeVar("Labelled", CounterMetricFamily, GaugeMetricFamily)

_MARKETS = ("closed", "extended", "open")
_BREAKER_STATES = ("closed", "half_open", "open")  # by number
BREAKER_NAME = "spot_price_stream"
_LATENCY_BUCKETS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
_SIZE_BUCKETS = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0, 4000.0)
_LAG_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 900.0)


@dataclass(slots=True)
class Numbers:
    """All numbers of a scrape that are not histograms, at one moment."""

    quotes_received: int = 0
    trades_received: int = 0
    trades_cancelled: int = 0
    trades_corrected: int = 0
    quotes_conflated: int = 0
    quotes_dropped: dict[str, int] = field(default_factory=dict)
    messages_ignored: dict[str, int] = field(default_factory=dict)
    doubtful_leases: dict[str, int] = field(default_factory=dict)
    stream_connected: bool = False
    symbols: dict[str, int] = field(default_factory=dict)
    breaker: str = "closed"
    lag_s: float | None = None
    leader: bool = False
    ready: bool = False
    market: str | None = None


class Distribution:
    """A histogram for one thread: a bisection and two additions per observation, no lock."""

    __slots__ = ("_bounds", "_counts", "_help", "_name", "_sum")

    def __init__(self, name: str, meaning: str, bounds: tuple[float, ...]) -> None:
        self._name = name
        self._help = meaning
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Add one value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def family(self) -> HistogramMetricFamily:
        """Return the histogram for Prometheus, with the number of values up to each bound."""
        bounds = [*map(str, self._bounds), "+Inf"]
        buckets = list(zip(bounds, accumulate(self._counts), strict=True))
        return HistogramMetricFamily(self._name, self._help, buckets=buckets, sum_value=self._sum)


class Scraped(Collector):
    """Numbers of one process, with those of the process itself, as the text of a scrape."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)  # CPU, memory, open files
        self._registry.register(self)

    def text(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self._registry)

    def describe(self) -> Iterable[Metric]:
        """Return nothing, since the names are known only in ``collect``."""
        return ()


class Metrics(Scraped):
    """The counters of the loops."""

    def __init__(self) -> None:
        super().__init__()
        self.updates_published = 0
        self.edges_gather = False
        self.reconnects: Tally[str] = Tally()
        self.redis_errors = 0
        self.snapshots_failed = 0
        self.publish_latency = Distribution(
            "spotd_publish_latency_seconds",
            "Per call: oldest update of it became due (for a leading edge: its frame was "
            "received) to Redis replied",
            _LATENCY_BUCKETS,
        )
        self.feed_lag = Distribution(
            "spotd_feed_lag_seconds",
            "Exchange time of a frame's last quote or trade to received; one sample each 20 ms",
            _LAG_BUCKETS,
        )
        self.updates_per_call = Distribution(
            "spotd_updates_per_call", "Updates that one call to Redis carried", _SIZE_BUCKETS
        )
        self.loop_lag = Distribution(
            "spotd_loop_lag_seconds", "How late the event loop runs a timer", _LATENCY_BUCKETS
        )
        self._read: Callable[[], Numbers] = Numbers

    @property
    def reconnects_total(self) -> int:
        """The number of streams that were lost or could not be opened."""
        return sum(self.reconnects.values())

    def numbers_from(self, read: Callable[[], Numbers]) -> None:
        """Call ``read`` for the numbers at every scrape."""
        self._read = read

    def collect(self) -> Iterable[Metric]:
        """Yield all numbers as of now."""
        numbers = self._read()
        for distribution in (
            self.publish_latency, self.updates_per_call, self.feed_lag, self.loop_lag,
        ):  # fmt: skip
            yield distribution.family()
        for name, meaning, value in self._counters(numbers):
            yield CounterMetricFamily(name, meaning, value=value)
        for name, meaning, value in self._gauges(numbers):
            yield GaugeMetricFamily(name, meaning, value=value)
        for name, meaning, label, counts in self._labelled_counters(numbers):
            yield labelled(CounterMetricFamily(name, meaning, labels=[label]), counts)
        for name, meaning, label, counts in self._labelled_gauges(numbers):
            yield labelled(GaugeMetricFamily(name, meaning, labels=[label]), counts)

    def _counters(self, numbers: Numbers) -> tuple[tuple[str, str, float], ...]:
        return (
            ("spotd_quotes_received", "Quotes decoded", numbers.quotes_received),
            ("spotd_trades_received", "Trades decoded", numbers.trades_received),
            ("spotd_trades_cancelled", "Cancellations decoded", numbers.trades_cancelled),
            ("spotd_trades_corrected", "Corrections decoded", numbers.trades_corrected),
            (
                "spotd_quotes_conflated",
                "Quotes that replaced one not yet published",
                numbers.quotes_conflated,
            ),
            ("spotd_updates_published", "Updates that Redis took", self.updates_published),
            ("spotd_redis_errors", "Failed calls to Redis", self.redis_errors),
            ("spotd_snapshots_failed", "Failed REST requests", self.snapshots_failed),
        )

    def _gauges(self, numbers: Numbers) -> tuple[tuple[str, str, float], ...]:
        return (
            (
                "spotd_conflation_ratio",
                "Quotes received for each update published, since the start",
                numbers.quotes_received / max(1, self.updates_published),
            ),
            (
                "spotd_edges_gather",
                "1: so many updates go out that first ones gather for up to 2 ms",
                self.edges_gather,
            ),
            ("spotd_stream_connected", "1: authenticated", numbers.stream_connected),
            (
                "spotd_lag_seconds",
                (
                    "Median of the last seconds, exchange time of a quote to received; "
                    "NaN without quotes"
                ),
                nan if numbers.lag_s is None else numbers.lag_s,
            ),
            ("spotd_leader", "1: the leader", numbers.leader),
            ("spotd_ready", "1: ready, as /readyz says", numbers.ready),
        )

    def _labelled_counters(
        self, numbers: Numbers
    ) -> tuple[tuple[str, str, str, Mapping[str, int]], ...]:
        return (
            ("spotd_quotes_dropped", "Quotes not used", "reason", numbers.quotes_dropped),
            ("spotd_messages_ignored", "Other messages", "kind", numbers.messages_ignored),
            (
                "spotd_doubtful_leases",
                "Leases that had lapsed before they came, or that lapse more than a year ahead",
                "kind",
                numbers.doubtful_leases,
            ),
            ("spotd_reconnects", "Streams lost or not opened", "reason", self.reconnects),
        )

    @staticmethod
    def _labelled_gauges(
        numbers: Numbers,
    ) -> tuple[tuple[str, str, str, Mapping[str, int]], ...]:
        return (
            ("spotd_symbols", "Desired symbols", "state", numbers.symbols),
            (
                "spotd_market",
                "1: the state of the feed's market now; all 0 where no calendar is known",
                "state",
                {state: numbers.market == state for state in _MARKETS},
            ),
            (
                "spotd_breaker_state",
                "0 closed, 1 half open, 2 open",
                "name",
                {BREAKER_NAME: _BREAKER_STATES.index(numbers.breaker)},
            ),
        )


def labelled(family: Labelled, values: Mapping[Any, int]) -> Labelled:
    """Return a family of one label with these values, given by the values of the label."""
    for label, value in sorted(values.items()):
        family.add_metric([str(label)], value)
    return family
