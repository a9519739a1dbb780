"""States, status and events as other programs read them: what Redis holds at each change.

What the states are, and in which order they are written, is proved in tests/core/test_states.py.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise, product
from string import ascii_uppercase
from typing import Any

import aiohttp
import structlog
from prometheus_client.parser import text_string_to_metric_families

from spotd.core.demand import MAX_REFUSED_SHOWN, Demand
from spotd.core.freshness import Silence
from spotd.core.lag import SAMPLE_EVERY_S
from spotd.core.messages import Quote
from spotd.daemon.prices import Prices
from spotd.daemon.states import STATUS_EVERY_S, STATUS_TTL_S
from spotd.daemon.value import Value
from spotd.models import DaemonStatus
from spotd.ops.metrics import Metrics
from spotd.simulator import Simulator
from tests.daemon.rig import NewRig, Rig, logged, quote
from tests.kit.ports import free_port
from tests.kit.recorder import Recorder
from tests.kit.redis_proxy import RedisProxy
from tests.kit.servers import Server
from tests.kit.values import Values
from tests.kit.waiting import GUARD_S, until

ANOTHER = "other:1"
PATIENT = {"prices_wait_s": GUARD_S}  # states wait for prices however long these take


async def says(daemon: Rig, state: str, **fields: object) -> dict[str, Any]:
    """Wait until ``spotd:status`` has this state and these fields, and return it."""
    wanted = {"state": state} | fields

    async def said() -> dict[str, Any] | None:
        status = await daemon.values.status()
        return status if status and wanted.items() <= status.items() else None

    found: dict[str, Any] = await until(said, f"the status {wanted}")
    return found


def holds(values: Values, **states: str) -> Callable[[], Awaitable[bool]]:
    """Return a condition: ``spotd:states`` holds these states, and no others."""

    async def check() -> bool:
        found = await values.states()
        return {name: state.get("state") for name, state in found.items()} == states

    return check


class TestChanges:
    """What is written and announced at a change."""

    async def test_the_status_has_every_field_of_the_contract(self, rig: NewRig) -> None:
        """The status has every field before any price came, and then the newest's time and lag."""
        async with rig() as daemon:
            idle = await says(daemon, "idle")
            assert idle.keys() == {"type", *DaemonStatus.__struct_fields__}
            assert idle["type"] == "daemon"
            assert idle["symbols"].keys() >= {"desired", "live", "stale", "refused"}
            assert (idle["last_message_at"], idle["lag_ms"]) == (None, None)
            await daemon.want("SPY")
            await daemon.quote("SPY", 1.0)
            status = await says(daemon, "streaming")
            assert str(status["at"]).endswith("Z")
            assert daemon.status["quotes_received"] == 1
            assert daemon.status["last_message_at"].endswith("Z")
            assert daemon.status["lag_ms"] is not None

    async def test_a_change_is_announced_once_and_redis_holds_the_last(
        self, rig: NewRig, sim: Simulator, server: Server
    ) -> None:
        """Live, halted, stale and back: each is one event, and its time is that of the change."""
        async with Recorder(server.url) as recorder, rig() as daemon:
            await daemon.values.want("SPY", "b-d", wake=False)
            await daemon.want("QQQ")

            def announced(*states: str) -> Callable[[], bool]:
                return lambda: tuple(s for s in recorder.states("SPY") if s != "pending") == states

            await until(announced("live"), "live")
            await until(lambda: sim.sessions[0].statuses == {"*"}, "the statuses")
            await sim.halt("SPY")
            await until(announced("live", "halted"), "the halt")
            await sim.resume("SPY")
            await until(announced("live", "halted", "live"), "the end of the halt")
            sim.faults.handshake_hang = True  # until the test has seen that SPY is stale
            await sim.drop_sessions("abort")
            await until(announced("live", "halted", "live", "stale"), "stale")
            sim.faults.handshake_hang = False
            await until(announced("live", "halted", "live", "stale", "live"), "live again")
            await until(lambda: recorder.daemon_states()[-1] == "streaming", "streaming again")

            assert "halted" not in recorder.states("QQQ")
            assert recorder.states("b-d") == ["refused"]
            events = recorder.events("symbol")
            for event in events:
                assert event.keys() - {"detail"} == {
                    "type", "symbol", "state", "reason", "code", "since",
                }  # fmt: skip
                assert (event["reason"] is None) == (event["code"] is None)
            newest = {event["symbol"]: event for event in events}
            assert await daemon.values.states() == newest
            told = [
                (event["state"], event["reason"], *event["symbols"].values(), event["reconnects"])
                for event in recorder.events("daemon")
            ]
            assert all(one != next_ for one, next_ in pairwise(told))
            assert told[-1][0] == "streaming"

    async def test_a_symbol_without_a_quote_waits_for_its_first(self, rig: NewRig) -> None:
        """It is live with a reason and its code, and without them from its first quote on."""
        async with rig() as daemon:
            await daemon.want("SPY", "QQQ")

            async def said(symbol: str) -> tuple[Any, ...]:
                state = (await daemon.values.states()).get(symbol, {})
                return state.get("state"), state.get("reason"), state.get("code")

            async def wait_for(symbol: str, *expected: str | None) -> None:
                async def agrees() -> bool:
                    return await said(symbol) == expected

                await until(agrees, f"{symbol} to be {expected}")

            await wait_for("SPY", "live", "waiting for its first quote", "no_quote_yet")
            since = (await daemon.values.states())["SPY"]["since"]
            await daemon.quote("SPY", 10)
            await wait_for("SPY", "live", None, None)
            assert (await daemon.values.states())["SPY"]["since"] == since
            await wait_for("QQQ", "live", "waiting for its first quote", "no_quote_yet")

    async def test_a_symbol_that_is_not_wanted_any_more_has_no_state(self, rig: NewRig) -> None:
        """A symbol or refused entry that is not wanted any more has no state."""
        async with rig() as daemon:
            await daemon.want("SPY", "QQQ")
            await daemon.values.want("b-d")
            await until(holds(daemon.values, SPY="live", QQQ="live", **{"b-d": "refused"}), "all")
            await daemon.values.unwant("QQQ", "b-d")
            await until(holds(daemon.values, SPY="live"), "the others to go")

    async def test_many_symbols_never_show_too_many_refused(
        self, rig: NewRig, server: Server
    ) -> None:
        """Too many refused are never shown, also while refused and live symbols change places."""
        names = ["".join(letters) for letters in product(ascii_uppercase, repeat=3)][:2200]
        early, late = names[:1100], names[1100:]
        async with Recorder(server.url) as recorder, rig(max_symbols=1100) as daemon:
            await daemon.want(*late)
            await daemon.values.want(*early)

            def live_with_others_refused(
                live: list[str], others: int
            ) -> Callable[[], Awaitable[bool]]:
                async def check() -> bool:
                    states = await daemon.values.states()
                    return await daemon.values.live(*live) and len(states) == len(live) + others

                return check

            await until(live_with_others_refused(late, MAX_REFUSED_SHOWN), "the first ones")
            await daemon.values.unwant(*late)
            await until(live_with_others_refused(early, 0), "the others to become live")
            await daemon.values.want(*late)
            await until(live_with_others_refused(early, MAX_REFUSED_SHOWN), "the states of all")
        refused: set[str] = set()
        for event in recorder.events("symbol"):
            if event["state"] == "refused":
                refused.add(event["symbol"])
                assert len(refused) <= MAX_REFUSED_SHOWN
            else:
                refused.discard(event["symbol"])


class TestOrder:
    """No price follows the word that it is suspect, or that there is none any more."""

    async def test_stale_is_told_after_the_last_price(
        self, rig: NewRig, sim: Simulator, server: Server
    ) -> None:
        """A price that waits for the end of its window goes out before the symbol is stale."""
        async with Recorder(server.url) as recorder, rig(throttle_ms=300, timing=PATIENT) as daemon:
            await daemon.want("SPY", "QQQ")
            await until(holds(daemon.values, SPY="live", QQQ="live"), "live")
            sim.faults.handshake_hang = True
            await daemon.send(quote("SPY", 10))
            await until(lambda: recorder.bids("SPY") == [10], "the first price")
            await daemon.send(quote("SPY", 11))
            await sim.drop_sessions("abort")
            await until(lambda: recorder.states("SPY")[-1:] == ["stale"], "stale")
            assert recorder.bids("SPY") == [10, 11]
            sim.faults.handshake_hang = False

    async def test_the_last_price_may_be_under_way(
        self, rig: NewRig, sim: Simulator, server: Server
    ) -> None:
        """While Redis has not answered the call that publishes it, nobody is told."""
        async with (
            Recorder(server.url) as recorder,
            RedisProxy.to(server) as way,
            Rig(way.url, sim, timing=PATIENT) as daemon,
        ):
            await daemon.want("SPY", "QQQ")
            await until(holds(daemon.values, SPY="live", QQQ="live"), "live")
            sim.faults.handshake_hang = True
            way.hold("spot:")
            await daemon.send(quote("SPY", 10))
            await until(lambda: way.held, "the call to be under way")
            await sim.drop_sessions("abort")
            await until(lambda: recorder.states("QQQ")[-1:] == ["stale"], "the other one")
            await until(lambda: recorder.daemon_states()[-1:] != ["streaming"], "the status")
            assert recorder.states("SPY")[-1:] == ["live"]
            way.release()
            await until(lambda: recorder.states("SPY")[-1:] == ["stale"], "stale")
            assert recorder.bids("SPY") == [10]
            sim.faults.handshake_hang = False

    async def test_an_end_is_told_when_the_price_is_gone(self, rig: NewRig, server: Server) -> None:
        """Whoever hears that a symbol ended finds neither its price nor its state."""
        async with Recorder(server.url) as recorder, rig() as daemon:
            await daemon.want("SPY", "QQQ")
            await daemon.values.want("b-d")
            await daemon.quote("QQQ", 10)
            await until(lambda: recorder.bids("QQQ") == [10], "a price")
            await until(holds(daemon.values, SPY="live", QQQ="live", **{"b-d": "refused"}), "all")
            await daemon.values.unwant("QQQ", "b-d")
            await until(lambda: recorder.states("QQQ")[-1:] == ["ended"], "the end")
            assert await daemon.values.last("QQQ") is None
            assert "QQQ" not in await daemon.values.states()
            await until(lambda: recorder.states("b-d")[-1:] == ["ended"], "the end of the entry")
            assert "b-d" not in await daemon.values.states()
            assert "ended" not in recorder.states("SPY")


class TestLoss:
    """Redis may lose the states alone, so that no call fails."""

    async def test_states_that_were_deleted_are_written_anew(
        self, rig: NewRig, server: Server
    ) -> None:
        """Whoever deletes or evicts them: all are there again, and so is each price."""
        async with rig(status_every_s=0.05) as daemon:
            await daemon.want("SPY", "QQQ")
            await daemon.quote("SPY", 10)
            await until(holds(daemon.values, SPY="live", QQQ="live"), "live")
            await until(lambda: daemon.values.last("SPY"), "the price")
            keys = daemon.values.keys
            await daemon.values.redis.delete(keys.states, keys.last)
            await until(holds(daemon.values, SPY="live", QQQ="live"), "the states")
            await until(lambda: daemon.values.last("SPY"), "the price again")
            await daemon.values.redis.hdel(keys.states, "QQQ")
            await until(holds(daemon.values, SPY="live", QQQ="live"), "the one that was lost")


class TestStatus:
    """The status lapses by itself where no daemon renews it."""

    async def test_it_is_renewed_before_it_lapses_and_not_announced_for_it(
        self, rig: NewRig, server: Server
    ) -> None:
        """The contract grants 15 s to live, and a renewal every 5 s. Two renewals may fail."""
        assert STATUS_EVERY_S <= 5.0
        assert 3 * STATUS_EVERY_S < STATUS_TTL_S == 10.0
        async with rig(status_every_s=0.05) as daemon:
            first = await says(daemon, "idle")
            assert 0 < await daemon.values.redis.pttl("spotd:status") <= 10_000
            async with Recorder(server.url) as recorder:
                await daemon.values.redis.delete("spotd:status")
                renewed = await says(daemon, "idle")
                assert renewed["at"] > first["at"]
                assert renewed["since"] == first["since"]
                await daemon.want("SPY")
                await until(recorder.daemon_states, "an announcement")
                assert "idle" not in recorder.daemon_states()

    async def test_a_standby_writes_nothing(self, rig: NewRig, server: Server) -> None:
        """``spotd:status``, states and events tell of the leader."""
        async with (
            Values(server.url, decode_responses=True) as values,
            Recorder(server.url) as recorder,
        ):
            await values.redis.set("spotd:leader", ANOTHER, ex=600)
            await values.redis.set("spotd:status", '{"instance":"other"}')
            await values.redis.hset("spotd:states", "OLD", '{"state":"live"}')
            async with rig(leads=False) as standby:
                await until(lambda: standby.status["state"] == "standby", "the standby")
                await standby.values.want("SPY")
                assert await standby.stop() == 0
            assert await values.status() == {"instance": "other"}
            assert await values.token() == ANOTHER
            await until(holds(values, OLD="live"), "the states of the other")
            assert not recorder.by_channel["spotd:events"]

    async def test_a_state_is_timed_when_it_begins(self, rig: NewRig, server: Server) -> None:
        """A state is timed when it begins, and not when somebody asks for it."""
        with server.client() as client, structlog.testing.capture_logs() as lines:
            client.set("spotd:leader", ANOTHER, ex=600)
            async with rig(leads=False) as standby:

                def logged_states() -> list[str]:
                    return [line["state"] for line in logged(lines, "state")]

                await until(lambda: "standby" in logged_states(), "the standby")
                now = datetime.now(UTC)
                assert standby.status["state"] == "standby"
                assert datetime.fromisoformat(standby.status["since"]) <= now


class TestTerm:
    """A new term, or a Redis that may have lost its data, is written anew."""

    async def test_what_a_predecessor_left_is_removed(self, rig: NewRig, server: Server) -> None:
        """States and prices that nobody wants go. A price that is wanted stays."""
        with server.client() as client:
            client.hset("spotd:states", mapping={"OLD": "{}", "SPY": "{}", "g-one": "{}"})
            client.hset("spotd:last", mapping={"OLD": "{}", "SPY": '{"bid_price":1}'})
            client.sadd("spotd:symbols", "SPY")
        async with rig() as daemon:
            await until(holds(daemon.values, SPY="live"), "the states")
            await until(lambda: daemon.values.forgotten("OLD"), "the old price to go")
            assert await daemon.values.bid("SPY") == 1

    async def test_with_the_whole_market_wanted_every_price_may_stay(
        self, rig: NewRig, server: Server
    ) -> None:
        """Nothing says that a symbol is not traded any more."""
        with server.client() as client:
            client.hset("spotd:last", mapping={"OLD": "{}"})
            client.hset("spotd:states", mapping={"OLD": "{}"})
            client.sadd("spotd:symbols", "*")
        async with rig(allow_wildcard=True) as daemon:
            await until(holds(daemon.values, **{"*": "live"}), "the states")
            await daemon.quote("SPY", 1.0)  # prices are dropped before others are published
            await until(lambda: daemon.values.bid("SPY"), "a price")
            assert await daemon.values.redis.hexists("spotd:last", "OLD")

    async def test_states_of_a_demand_that_is_not_read_yet_are_not_written(
        self, rig: NewRig, server: Server
    ) -> None:
        """They would be wrong: meanwhile what a predecessor wrote stands."""
        with server.client() as client:
            client.hset("spotd:states", mapping={"SPY": '{"state":"live"}', "OLD": "{}"})
            client.sadd("spotd:symbols", "SPY")
            client.acl_setuser("default", enabled=True, commands=["-hvals"])
            async with rig(leads=False) as daemon:
                await says(daemon, "connecting", reason="reading the demand")
                assert await daemon.values.redis.hkeys("spotd:states") == ["SPY", "OLD"]
                client.acl_setuser("default", enabled=True, commands=["+@all"])
                await until(holds(daemon.values, SPY="live"), "the states")

    async def test_a_redis_that_lost_its_data_is_written_anew(
        self, rig: NewRig, server: Server
    ) -> None:
        """States and status of all that did not change are back, and announced again."""
        async with rig() as daemon:
            await daemon.want("SPY", "QQQ")
            await until(holds(daemon.values, SPY="live", QQQ="live"), "the states")
            async with Recorder(server.url) as recorder:
                async with daemon.values.redis.pipeline(transaction=True) as both:
                    both.flushall().sadd("spotd:symbols", "SPY", "QQQ")
                    await both.execute()
                await says(daemon, "streaming")
                await until(holds(daemon.values, SPY="live", QQQ="live"), "the states again")
                await until(lambda: recorder.states("QQQ") == ["live"], "the announcement")
                assert recorder.states("SPY") == ["live"]
                await until(lambda: "streaming" in recorder.daemon_states(), "the status")

    async def test_a_server_that_comes_back_empty_is_written_anew(
        self, rig: NewRig, server: Server
    ) -> None:
        """A server that comes back empty is written anew once its symbols are demanded again."""
        async with rig() as daemon:
            await daemon.want("SPY")
            await until(holds(daemon.values, SPY="live"), "the state")
            server.kill()
            await until(lambda: daemon.status["state"] == "waiting", "the failure")
            assert daemon.daemon.not_ready()
            server.start()
            await daemon.values.redis.connection_pool.disconnect()  # of connections to the former
            await daemon.values.want("SPY", wake=False)
            await until(holds(daemon.values, SPY="live"), "the state again")
            await says(daemon, "streaming")
            assert daemon.daemon.not_ready() == []

    async def test_a_write_that_is_refused_ends_the_term(self, rig: NewRig, sim: Simulator) -> None:
        """The loop that asks for the key finds out at once, not at the next renewal."""
        async with rig(leader_ttl_s=300.0) as daemon:
            await daemon.want("SPY")
            await until(lambda: daemon.values.live("SPY"), "live")
            await says(daemon, "streaming")
            await until(lambda: sim.sessions[0].statuses == {"*"}, "the statuses")
            await daemon.values.redis.set("spotd:leader", ANOTHER, ex=600)
            await sim.halt("SPY")
            await until(lambda: daemon.status["state"] == "standby", "the standby")
            assert await daemon.values.state("SPY") == "live"
            await daemon.values.redis.delete("spotd:leader")
            await until(lambda: daemon.values.live("SPY"), "live")
            await says(daemon, "streaming")


class TestStop:
    """The last words."""

    async def test_they_say_that_nothing_is_live(self, rig: NewRig, server: Server) -> None:
        """States are stale, refusals stay; the status goes with the leader key, and is told."""
        async with Recorder(server.url) as recorder, rig() as daemon:
            await daemon.values.want("b-d")
            await daemon.want("SPY", "QQQ")
            everything = {"SPY": "live", "QQQ": "live", "b-d": "refused"}
            await until(holds(daemon.values, **everything), "the states")
            await says(daemon, "streaming")
            assert await daemon.stop() == 0
            assert daemon.daemon.not_ready() == ["stopping: the daemon was asked to stop"]
            assert daemon.status["state"] == "stopping"
            left = {"SPY": "stale", "QQQ": "stale", "b-d": "refused"}
            assert await holds(daemon.values, **left)()
            assert await daemon.values.status() is None
            assert await daemon.values.token() is None
            await until(lambda: recorder.daemon_states()[-1] == "stopping", "the last event")
            assert recorder.states("SPY")[-2:] == ["live", "stale"]

    async def test_a_whole_market_is_stale_too(self, rig: NewRig) -> None:
        """A whole market is told as stale in the time that a stop has."""
        names = ["".join(letters) for letters in product(ascii_uppercase, repeat=3)][:2000]
        async with rig() as daemon:
            await daemon.want(*names)
            await until(holds(daemon.values, **dict.fromkeys(names, "live")), "all to be live")
            assert await daemon.stop() == 0
            assert await holds(daemon.values, **dict.fromkeys(names, "stale"))()


class TestNumbers:
    """HTTP and metrics say what Redis says."""

    async def test_all_three_agree(self, rig: NewRig, sim: Simulator) -> None:
        """While idle, streaming and stale: one set of facts is behind them."""
        port = free_port()

        async def page(path: str) -> Any:
            async with (
                aiohttp.ClientSession() as session,
                session.get(f"http://127.0.0.1:{port}{path}") as answer,
            ):
                is_json = answer.content_type == "application/json"
                return await (answer.json() if is_json else answer.text())

        async def check(state: str, live: int, stale: int, *, ready: bool) -> None:
            async def told() -> dict[str, Any] | None:
                status = await says(daemon, state)
                symbols = status["symbols"]
                found = (symbols["live"], symbols["stale"], status["reconnects"])
                return status if found == (live, stale, metrics.reconnects_total) else None

            stored = await until(told, state)
            http = await page("/status")
            for changing in ("at", "lag_ms", "last_message_at"):
                del stored[changing], http[changing]
            assert http == stored
            assert (await page("/readyz") == []) is ready
            found = samples(await page("/metrics"))
            assert found["spotd_symbols", "live"] == live
            assert found["spotd_symbols", "stale"] == stale
            assert found["spotd_leader",] == 1
            assert found["spotd_stream_connected",] == ready
            states = [each["state"] for each in (await daemon.values.states()).values()]
            assert (states.count("live"), states.count("stale")) == (live, stale)

        async with rig(http_port=port) as daemon:
            metrics = daemon.daemon.metrics
            await until(lambda: daemon.daemon.stream.get().phase == "open", "the stream")
            await check("idle", 0, 0, ready=True)
            await daemon.want("SPY")
            await check("streaming", 1, 0, ready=True)
            sim.faults.handshake_hang = True
            await sim.drop_sessions("abort")
            await until(lambda: metrics.reconnects_total, "the end of the session")
            await until(lambda: daemon.daemon.stream.get().phase == "connecting", "the next one")
            await check("connecting", 0, 1, ready=False)
            sim.faults.handshake_hang = False
            await check("streaming", 1, 0, ready=True)

    async def test_they_follow_what_happened(self, rig: NewRig) -> None:
        """Counters and gauges of a scrape, after a little of everything."""
        async with rig(throttle_ms=60_000) as daemon:
            await daemon.values.want("b-d")
            await daemon.want("SPY")
            await daemon.quote("SPY", 1.0)
            await until(lambda: daemon.values.bid("SPY"), "the first price")
            daemon.sim.faults.late_data_s = 60.0
            await daemon.want("OLD")
            await daemon.values.unwant("OLD")
            await until(lambda: "OLD" not in daemon.active, "the unsubscription")
            await daemon.send(
                quote("SPY", 2.0), quote("SPY", 3.0), quote("SPY", 0.0), quote("OLD", 1.0)
            )
            found = samples(daemon.daemon.metrics_text().decode())
            assert found["spotd_quotes_received_total",] == 5
            assert found["spotd_updates_published_total",] == 1
            assert found["spotd_quotes_conflated_total",] == 1
            assert found["spotd_quotes_dropped_total", "one_sided"] == 1
            assert found["spotd_quotes_dropped_total", "not_desired"] == 1
            assert found["spotd_symbols", "live"] == 1
            assert found["spotd_symbols", "refused"] == 1
            assert found["spotd_leader",] == 1
            assert found["spotd_stream_connected",] == 1
            assert found["spotd_publish_latency_seconds_count",] == 1
            assert found["spotd_feed_lag_seconds_count",] >= 1

    def test_the_lag_is_a_sample(self) -> None:
        """The lag is sampled at most once in 20 ms, and always at the first frame."""
        metrics = Metrics()
        prices = Prices(
            throttle_s=0.0, demand=Value(Demand(frozenset("*"))), silence=Silence(), metrics=metrics
        )
        frame = [Quote("SPY", 1.0, 2.0, datetime.now(UTC) - timedelta(seconds=1))]
        began = time.monotonic()
        for _ in range(2000):
            prices.receive(frame)
        most = 1 + (time.monotonic() - began) / SAMPLE_EVERY_S
        [count] = [
            sample.value
            for sample in metrics.feed_lag.family().samples
            if sample.name.endswith("_count")
        ]
        assert 1 <= count <= most
        lag_s = prices.lag.samples.median_s(time.monotonic())
        assert lag_s is not None
        assert lag_s >= 1.0


def samples(text: str) -> dict[tuple[str, ...], float]:
    """Return the samples of a scrape by name and labels."""
    return {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
