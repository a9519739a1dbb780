"""Metrics as Prometheus parses them."""

from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families

from spotd.ops.metrics import BREAKER_NAME, Metrics, Numbers

CONTRACT = {
    "spotd_quotes_received": "counter",
    "spotd_trades_received": "counter",
    "spotd_updates_published": "counter",
    "spotd_quotes_conflated": "counter",
    "spotd_quotes_dropped": "counter",
    "spotd_stream_connected": "gauge",
    "spotd_symbols": "gauge",
    "spotd_publish_latency_seconds": "histogram",
    "spotd_feed_lag_seconds": "histogram",
    "spotd_reconnects": "counter",
    "spotd_breaker_state": "gauge",
    "spotd_leader": "gauge",
    "spotd_redis_errors": "counter",
}


def scrape(metrics: Metrics) -> dict[tuple[str, ...], float]:
    """Return every sample by its name and label values."""
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(metrics.text().decode())
        for sample in family.samples
    }


@pytest.mark.parametrize("numbers", [Numbers(), Numbers(quotes_dropped={"x": 1}, leader=True)])
def test_every_name_of_the_contract_is_there(numbers: Numbers) -> None:
    """Every name is there from the first scrape on, once, with its type and a help text."""
    metrics = Metrics()
    metrics.numbers_from(lambda: numbers)
    families = list(text_string_to_metric_families(metrics.text().decode()))
    kinds = {family.name: family.type for family in families}
    assert kinds.items() >= CONTRACT.items()
    assert len(kinds) == len(families)
    assert all(family.documentation for family in families)
    text = metrics.text().decode()
    for name, kind in CONTRACT.items():
        assert f"# TYPE {name}{'_total' if kind == 'counter' else ''} {kind}\n" in text


def test_numbers_are_read_at_every_scrape() -> None:
    """Each scrape shows the numbers as they are then."""
    metrics, numbers = Metrics(), Numbers()
    metrics.numbers_from(lambda: numbers)
    numbers.quotes_received, numbers.trades_received = 5, 6
    numbers.quotes_conflated = 7
    numbers.quotes_dropped = {"one_sided": 2, 'odd"\\\n': 3}
    numbers.messages_ignored = {"cancel": 4}
    numbers.doubtful_leases = {"far": 13}
    numbers.symbols = {"live": 8, "refused": 9}
    metrics.updates_published, metrics.redis_errors, metrics.snapshots_failed = 10, 11, 12
    metrics.reconnects["closed"] += 2
    metrics.reconnects["timeout"] += 1
    found = scrape(metrics)
    assert found["spotd_quotes_received_total",] == 5
    assert found["spotd_trades_received_total",] == 6
    assert found["spotd_quotes_conflated_total",] == 7
    assert found["spotd_quotes_dropped_total", "one_sided"] == 2
    assert found["spotd_quotes_dropped_total", 'odd"\\\n'] == 3
    assert found["spotd_messages_ignored_total", "cancel"] == 4
    assert found["spotd_doubtful_leases_total", "far"] == 13
    assert found["spotd_symbols", "live"] == 8
    assert found["spotd_symbols", "refused"] == 9
    assert found["spotd_updates_published_total",] == 10
    assert found["spotd_redis_errors_total",] == 11
    assert found["spotd_snapshots_failed_total",] == 12
    assert found["spotd_reconnects_total", "closed"] == 2
    assert metrics.reconnects_total == 3
    numbers.quotes_received = 6
    assert scrape(metrics)["spotd_quotes_received_total",] == 6


@pytest.mark.parametrize(("state", "value"), [("closed", 0), ("half_open", 1), ("open", 2)])
def test_the_breaker_is_a_number_under_its_name(state: str, value: int) -> None:
    """The breaker is 0 closed, 1 half open, 2 open, under the contract's name."""
    metrics = Metrics()
    metrics.numbers_from(lambda: Numbers(breaker=state))
    assert scrape(metrics)["spotd_breaker_state", BREAKER_NAME] == value
    assert BREAKER_NAME == "spot_price_stream"


@pytest.mark.parametrize("yes", [True, False])
def test_whether_it_leads_is_ready_and_connected(yes: bool) -> None:
    """Leadership, readiness and the connection are 1 or 0."""
    metrics = Metrics()
    metrics.numbers_from(lambda: Numbers(leader=yes, stream_connected=yes, ready=yes))
    found = scrape(metrics)
    names = ("spotd_leader", "spotd_stream_connected", "spotd_ready")
    assert [found[name,] for name in names] == [int(yes)] * 3


@pytest.mark.parametrize("market", ["closed", "extended", "open", None])
def test_the_market_is_one_of_three(market: str | None) -> None:
    """The state of the market is 1, and each other one is 0; all are 0 where nobody knows it."""
    metrics = Metrics()
    metrics.numbers_from(lambda: Numbers(market=market))
    found = scrape(metrics)
    for state in ("closed", "extended", "open"):
        assert found["spotd_market", state] == int(state == market)


def test_histograms_count_what_is_observed() -> None:
    """A histogram counts each observed value in every bucket that holds it."""
    metrics = Metrics()
    metrics.numbers_from(Numbers)
    metrics.publish_latency.observe(0.0007)
    metrics.feed_lag.observe(900.0)
    metrics.loop_lag.observe(0.3)
    found = scrape(metrics)
    for name, value in (
        ("spotd_publish_latency_seconds", 0.0007),
        ("spotd_feed_lag_seconds", 900.0),
        ("spotd_loop_lag_seconds", 0.3),
    ):
        assert found[f"{name}_sum",] == value
        bounds = [key[1] for key in found if key[0] == f"{name}_bucket"]
        assert len(bounds) > 5
        for bound in bounds:
            assert found[f"{name}_bucket", bound] == int(value <= float(bound))


def test_two_daemons_in_one_process_count_apart() -> None:
    """Two daemons in one process have a registry each."""
    one, two = Metrics(), Metrics()
    one.numbers_from(Numbers)
    two.numbers_from(Numbers)
    one.redis_errors += 1
    assert scrape(two)["spotd_redis_errors_total",] == 0
