"""States, status and events as other programs read them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from string import ascii_uppercase
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from spotd.daemon.shared import Shared

from spotd.core.demand import MAX_REFUSED_SHOWN
from spotd.core.messages import Quote
from spotd.daemon import intake
from spotd.daemon import states as report
from spotd.settings import Settings
from tests.daemon.conftest import NewRig
from tests.daemon.rig import Ear, Rig, eventually
from tests.kit.servers import Server

STATUS_FIELDS = {
    "type", "state", "reason", "instance", "version", "feed", "since", "at", "symbols",
    "last_message_at", "lag_ms", "breaker", "quotes_received", "updates_published", "reconnects",
}  # fmt: skip


async def says(daemon: Rig, state: str) -> dict[str, object]:
    """Wait until ``spotd:status`` is in this state; gives it."""

    async def said() -> bool:
        return (await daemon.status() or {}).get("state") == state

    await eventually(said, f"the status {state}")
    status = await daemon.status()
    assert status is not None
    return status


async def test_the_status_has_every_field(rig: NewRig) -> None:
    """Of the contract, with types that JSON readers expect."""
    async with rig() as daemon:
        status = await says(daemon, "idle")
        assert status.keys() >= STATUS_FIELDS
        assert status["type"] == "daemon"
        assert status["last_message_at"] is None
        assert status["lag_ms"] is None
        await daemon.want("SPY")
        await says(daemon, "streaming")
        daemon.quote("SPY", 1)
        live = daemon.report.status()
        assert live.quotes_received == 1
        assert live.lag_ms is not None
        assert live.last_message_at is not None
        assert str((await says(daemon, "streaming"))["at"]).endswith("Z")


async def test_a_change_is_announced_once(rig: NewRig, server: Server) -> None:
    """Every change of a symbol and of the daemon goes to the events, in order, and no more."""
    async with Ear(server.url, "spotd:events") as ear, rig() as daemon:
        await says(daemon, "idle")
        await daemon.redis.sadd("spotd:symbols", "b-d")
        await daemon.want("SPY")

        def states() -> list[tuple[str, str]]:
            return [(event["symbol"], event["state"]) for event in ear.events("symbol")]

        await eventually(lambda: ("SPY", "live") in states(), "SPY")
        await eventually(lambda: ("b-d", "refused") in states(), "the refused")
        assert len(states()) == len(set(states()))
        daemon.shared.facts.stream_open = False
        daemon.shared.bells.report.ring()
        await eventually(lambda: states()[-1] == ("SPY", "stale"), "stale")
        daemon.shared.facts.stream_open = True
        daemon.shared.bells.report.ring()
        await eventually(lambda: states()[-1] == ("SPY", "live"), "live again")

        def daemons() -> list[str]:
            return [event["state"] for event in ear.events("daemon")]

        await eventually(lambda: daemons()[-1] == "streaming", "the daemon to stream again")
        assert daemons()[0] == "idle"
        for event in ear.events("symbol"):
            assert event.keys() >= {"type", "symbol", "state", "reason", "since"}


async def test_the_status_is_refreshed_before_it_lapses(
    rig: NewRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when nothing changes, and then it is not announced."""
    assert report.STATUS_EVERY_S < 5.0
    assert report.STATUS_TTL_S <= 15.0
    monkeypatch.setattr(report, "STATUS_EVERY_S", 0.1)
    async with rig() as daemon:
        first = await says(daemon, "idle")
        async with Ear(daemon.settings.redis_url.get_secret_value(), "spotd:events") as ear:
            ttl_ms = await daemon.redis.pttl("spotd:status")
            assert 0 < ttl_ms <= 15_000

            async def refreshed() -> bool:
                status = await daemon.status()
                return status is not None and str(status["at"]) > str(first["at"])

            await eventually(refreshed, "a refresh", 2.0)
            await daemon.want("SPY")
            await eventually(lambda: ear.events("daemon"), "an announcement")
            assert "idle" not in [event["state"] for event in ear.events("daemon")]


async def test_what_a_predecessor_left_is_removed(rig: NewRig, server: Server) -> None:
    """States and prices that nobody wants any more go when a term begins."""
    with server.client() as client:
        client.hset("spotd:states", mapping={"OLD": "{}", "SPY": "{}", "g-one": "{}"})
        client.hset("spotd:last", mapping={"OLD": "{}", "SPY": '{"bid_price":1}'})
        client.sadd("spotd:symbols", "SPY")
    async with rig() as daemon:

        async def clean() -> bool:
            return (
                await daemon.redis.hkeys("spotd:states") == ["SPY"]
                and await daemon.redis.hkeys("spotd:last") == ["SPY"]
                and await daemon.state("SPY") == "live"
            )

        await eventually(clean, "what is old to go")
        assert await daemon.bid("SPY") == 1  # a price that is still wanted is no leftover


async def test_with_the_whole_market_wanted_every_price_may_stay(
    rig: NewRig, server: Server
) -> None:
    """Nothing says that a symbol is not traded any more."""
    with server.client() as client:
        client.hset("spotd:last", mapping={"OLD": "{}"})
        client.hset("spotd:states", mapping={"OLD": "{}"})
        client.sadd("spotd:symbols", "*")
    async with rig(allow_wildcard=True) as daemon:

        async def clean() -> bool:
            return await daemon.redis.hkeys("spotd:states") == ["*"]

        await eventually(clean, "old states to go")
        assert await daemon.redis.hkeys("spotd:last") == ["OLD"]


async def test_the_last_words_say_that_nothing_is_live(rig: NewRig) -> None:
    """A daemon that stops leaves no symbol that looks live."""
    async with rig() as daemon:
        await daemon.want("SPY")
        await says(daemon, "streaming")
        daemon.shared.facts.stopping = True
        daemon.shared.facts.stream_open = False
        await daemon.report.last_words()
        assert await daemon.state("SPY") == "stale"
        assert (await daemon.status() or {})["state"] == "stopping"
        assert daemon.report.not_ready() == ["stopping"]


async def test_many_states_go_in_few_calls_and_never_show_too_many_refused(
    rig: NewRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when all that were refused become live, and the live ones refused; and at the end."""
    names = [f"{a}{b}{c}" for a in "ABCDE" for b in ascii_uppercase for c in ascii_uppercase][:2000]
    daemon = rig(acknowledge=False, leader_ttl_s=30, max_symbols=1_000)
    shared = daemon.shared
    refused: set[str] = set()
    most = calls = 0
    write_states = daemon.port.write_states

    async def noting(token: str, changed: Mapping[str, bytes], removed: Sequence[str]) -> None:
        nonlocal calls, most
        calls += 1
        await write_states(token, changed, removed)
        refused.difference_update(changed, removed)
        refused.update(name for name, raw in changed.items() if b'"refused"' in raw)
        most = max(most, len(refused))

    monkeypatch.setattr(daemon.port, "write_states", noting)
    async with daemon:
        await daemon.want(*names)
        shared.facts.stream_open = True
        shared.subscriptions.connected()
        for active, others in ((names[:1000], names[1000:]), (names[1000:], names[:1000])):
            shared.subscriptions.acknowledged(active, [], time.monotonic())
            shared.bells.report.ring()

            async def told(others: Sequence[str] = others) -> bool:
                states = await daemon.states()
                return {n for n, state in states.items() if state["state"] == "refused"} == set(
                    others
                )

            await eventually(told, "the refused")
        assert most == MAX_REFUSED_SHOWN
        calls = 0
        shared.facts.stopping = True
        shared.facts.stream_open = False
        await daemon.report.last_words()
        assert calls <= 3
        assert await daemon.state(names[-1]) == "stale"


async def test_a_report_that_is_refused_ends_the_term(rig: NewRig, server: Server) -> None:
    """The report loop learns that another leads before the leader loop looks again."""
    async with rig(leader_ttl_s=60) as daemon:
        await daemon.want("SPY")
        await says(daemon, "streaming")
        with server.client() as client:
            client.set("spotd:leader", "other")
        daemon.shared.bells.report.ring()
        await eventually(lambda: not daemon.shared.facts.leader, "stepping down", 2.0)
        assert daemon.report.status().state == "standby"


async def test_a_drop_that_is_refused_ends_the_term(rig: NewRig, server: Server) -> None:
    """And the fields are dropped by whoever leads next, also when it is the same daemon."""
    async with rig(leader_ttl_s=60) as daemon:
        await daemon.want("SPY", "QQQ")
        daemon.quote("QQQ", 1)

        async def dropped() -> bool:
            return await daemon.last("QQQ") is None

        async def kept() -> bool:
            return not await dropped()

        await eventually(kept, "a price")
        with server.client() as client:
            client.set("spotd:leader", "other", px=400)
            client.srem("spotd:symbols", "QQQ")
        daemon.shared.to_drop.add("QQQ")
        daemon.shared.bells.publish.ring()
        await eventually(lambda: not daemon.shared.facts.leader, "stepping down", 2.0)
        assert not await dropped()
        await daemon.leads()
        await eventually(dropped, "the field to go", 3.0)


async def test_a_drop_that_could_not_be_written_is_tried_again(rig: NewRig, server: Server) -> None:
    """Also when Redis was away for that very call."""
    async with rig(leader_ttl_s=30) as daemon:
        await daemon.want("SPY", "QQQ")
        server.kill()
        daemon.shared.to_drop.add("QQQ")
        daemon.shared.bells.publish.ring()
        await eventually(lambda: daemon.shared.facts.redis_error, "the failure")
        server.start()
        with server.client() as client:
            client.sadd("spotd:symbols", "SPY")
            client.hset("spotd:last", "QQQ", "{}")

        async def dropped() -> bool:
            return await daemon.last("QQQ") is None

        await eventually(dropped, "the field to go")
        await eventually(lambda: daemon.shared.facts.redis_error is None, "calm", 3.0)


async def test_the_numbers_follow_what_happened(rig: NewRig) -> None:
    """Counters and gauges of a scrape, after a little of everything."""
    async with rig(throttle_ms=60_000) as daemon:
        await daemon.redis.sadd("spotd:symbols", "b-d")
        await daemon.want("SPY")
        await says(daemon, "streaming")
        daemon.quote("SPY", 1)
        await eventually(lambda: daemon.shared.metrics.updates_published == 1, "an update")
        daemon.quote("SPY", 2)
        daemon.quote("SPY", 3)
        daemon.quote("SPY", 0)
        daemon.quote("SPY", float("inf"))
        daemon.quote("NONE", 1)
        text = daemon.shared.metrics.text().decode()
        found = {
            (sample.name, *sorted(sample.labels.values())): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }
        assert found["spotd_quotes_received_total",] == 6
        assert found["spotd_updates_published_total",] == 1
        assert found["spotd_quotes_conflated_total",] == 1
        assert found["spotd_quotes_dropped_total", "one_sided"] == 1
        assert found["spotd_quotes_dropped_total", "not_finite"] == 1
        assert found["spotd_quotes_dropped_total", "not_desired"] == 1
        assert found["spotd_symbols", "live"] == 1
        assert found["spotd_symbols", "refused"] == 1
        assert found["spotd_leader",] == 1
        assert found["spotd_stream_connected",] == 1
        assert found["spotd_publish_latency_seconds_count",] == 1
        assert found["spotd_publish_latency_seconds_sum",] < 1
        assert found["spotd_feed_lag_seconds_count",] >= 1


def test_the_lag_is_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of every frame that comes a millisecond or more after the last one counted, and no other."""
    now = 100.0
    clock = SimpleNamespace(monotonic=lambda: now, time=time.time)
    monkeypatch.setattr(intake, "time", clock)
    settings: dict[str, Any] = {"http_port": 0}
    shared = Shared(Settings(**settings))
    take_in = intake.Intake(shared)

    def counted() -> float:
        samples = shared.metrics.feed_lag.family().samples
        [count] = [sample.value for sample in samples if sample.name.endswith("_count")]
        return count

    frame = [Quote("SPY", 1.0, 2.0, datetime.now(UTC) - timedelta(seconds=1))]
    for number in range(1, 6):
        take_in(frame)
        take_in(frame)  # at the same moment
        assert counted() == number
        now += 0.002
    assert shared.lag_s is not None
    assert 1.0 <= shared.lag_s < 2.0


async def test_the_status_of_a_standby_is_not_written(rig: NewRig) -> None:
    """``spotd:status`` tells of the leader."""
    async with rig(instance="a") as first:
        await says(first, "idle")
        async with rig(instance="b") as second:
            await eventually(lambda: second.shared.facts.lease_works, "a look")
            second.shared.bells.report.ring()
            looked_at = time.monotonic()
            while time.monotonic() < looked_at + 0.2:
                status = await first.status()
                assert status is not None
                assert status["instance"] == "a"
                await asyncio.sleep(0.02)


async def test_a_standby_tells_since_when(rig: NewRig, server: Server) -> None:
    """Its state is timed when it begins, not when somebody looks."""
    async with rig() as leader:
        await eventually(leader.shared.leads, "the leader", 3.0)
        async with rig() as standby:
            await eventually(lambda: standby.shared.facts.started, "the standby", 3.0)
            began = time.time()
            await asyncio.sleep(0.3)  # time has to pass for a wrong answer to differ
            status = standby.report.status()
            assert status.state == "standby"
            assert status.since.timestamp() < began + 0.2
