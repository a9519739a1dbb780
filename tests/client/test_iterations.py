"""What a consumer can ask of ``updates`` and ``wait_live``, and what it is told, never silence."""

from __future__ import annotations

import asyncio
import gc
import sys
from contextlib import aclosing, suppress
from typing import Any

import pytest
from redis.asyncio import Connection, ConnectionPool, Redis

from spotd.client import SpotClient, symbols_of
from spotd.errors import RedisUnavailableError, SpotdError, SymbolRefusedError
from spotd.models import SpotPriceUpdate, SymbolState
from tests.client.told import Told
from tests.kit.publisher import KEYS, Publisher, state_of, status_of, update_of
from tests.kit.servers import Server
from tests.kit.waiting import until

WARN_AFTER_S = 0.05


def told(item: SpotPriceUpdate | SymbolState) -> tuple[str, object]:
    """Return symbol and seq of a price, symbol and state of a state."""
    if isinstance(item, SymbolState):
        return item.symbol, item.state if item.code in (None, item.reason) else item.code
    return item.symbol, item.seq


class TestTimeout:
    async def test_it_raises_and_goes_on(self, url: str, daemon: Publisher) -> None:
        """A step without a price raises TimeoutError, the next ones go on, the lease stays."""
        async with SpotClient(url) as spot:
            updates = spot.updates("SPY", timeout=0.02)
            for _ in range(3):
                with pytest.raises(TimeoutError):
                    await anext(updates)

            async def leased() -> bool:
                return set(await daemon.leases()) == {f"SPY@{spot.owner}"}

            await until(leased, "the lease")
            await daemon.publish("SPY", 1)
            found = None
            while found is None:
                with suppress(TimeoutError):
                    found = await anext(updates)
            assert found.seq == 1

    async def test_wait_for(self, url: str, daemon: Publisher) -> None:
        """``asyncio.wait_for`` around a step does not end the iteration."""
        async with SpotClient(url) as spot, aclosing(spot.updates("SPY")) as updates:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(updates), 0.01)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(updates), 0.1)
            await daemon.publish("SPY", 1)
            assert (await anext(updates)).seq == 1

    async def test_events(self, url: str, daemon: Publisher) -> None:
        """Events have the same."""
        async with SpotClient(url) as spot, spot.events(timeout=0.02) as events:
            with pytest.raises(TimeoutError):
                await anext(events)
            await daemon.announce("SPY", "live")
            found = None
            while found is None:
                with suppress(TimeoutError):
                    found = await anext(events)
            assert found == state_of("SPY")

    @pytest.mark.parametrize("wrong", [0.0, -1.0])
    async def test_wrong(self, wrong: float) -> None:
        """A time that could never work is refused."""
        async with SpotClient() as spot:
            with pytest.raises(ValueError, match="timeout must be greater than 0"):
                spot.updates("SPY", timeout=wrong)
            with pytest.raises(ValueError, match="max_hz must be greater than 0"):
                spot.updates("SPY", max_hz=wrong)


class TestEnd:
    async def test_collected(self, url: str, daemon: Publisher) -> None:
        """An iterator that nobody holds any more ends its leases, without an error."""
        await daemon.publish("SPY", 1)
        async with SpotClient(url) as spot:
            updates = spot.updates("SPY")
            await anext(updates)
            assert await daemon.leases()
            del updates
            gc.collect()

            async def no_leases() -> bool:
                return not await daemon.leases()

            await until(no_leases, "the leases to end")

    async def test_two_tasks_begin_it(self, url: str, daemon: Publisher) -> None:
        """Each price goes to one of them, and the client's end leaves no task."""
        async with SpotClient(url) as spot:
            updates = spot.updates("SPY", "QQQ")
            taking = [asyncio.ensure_future(anext(updates)) for _ in range(2)]
            await until(lambda: daemon.subscribers(KEYS.channel("SPY")), "a subscriber")
            await daemon.publish("SPY", 1)
            await daemon.publish("QQQ", 1)
            assert {update.symbol for update in await asyncio.gather(*taking)} == {"SPY", "QQQ"}
        assert len(asyncio.all_tasks()) == 1

    async def test_async_with(self, url: str, daemon: Publisher) -> None:
        """``async with`` ends it at once, and a step after it is the end."""
        await daemon.publish("SPY", 1)
        async with SpotClient(url) as spot:
            async with spot.updates("SPY") as updates:
                await anext(updates)
            assert await daemon.leases() == {}
            assert await anext(updates, None) is None

    async def test_never_begun(self, url: str, daemon: Publisher) -> None:
        """An iterator that nobody starts demands nothing, and has nothing to end."""
        async with SpotClient(url) as spot:
            updates = spot.updates("SPY")
            assert await daemon.leases() == {}
        with pytest.raises(RuntimeError, match="the client is closed"):
            await anext(updates)

    async def test_closed_is_closed(self, url: str) -> None:
        """After ``aclose`` each call raises RuntimeError."""
        spot = SpotClient(url)
        await spot.aclose()
        for call in (spot.updates, spot.want):
            with pytest.raises(RuntimeError, match="the client is closed"):
                call("SPY")
        for ask in (spot.latest, spot.add, spot.remove, spot.wait_live, spot.frame):
            with pytest.raises(RuntimeError, match="the client is closed"):
                await ask("SPY")
        for plain in (spot.status, spot.states, spot.desired):
            with pytest.raises(RuntimeError, match="the client is closed"):
                await plain()
        with pytest.raises(RuntimeError, match="the client is closed"):
            spot.events()
        with pytest.raises(RuntimeError, match="the client is closed"):
            spot.follow(Told())


class TestSkipped:
    async def test_slow_consumer(self, url: str, daemon: Publisher) -> None:
        """Each iteration counts what its consumer did not see."""
        async with SpotClient(url) as spot:
            slow, quick = spot.updates("SPY"), spot.updates("SPY")
            await daemon.publish("SPY", 1)
            assert (await anext(slow)).seq == (await anext(quick)).seq == 1
            await daemon.publish("SPY", 2, 3, 4)
            while (await anext(quick)).seq < 4:
                pass
            await until(lambda: slow.skipped == 2, "the slow one's to be replaced")
            assert (await anext(slow)).seq == 4

    async def test_max_hz(self, url: str, daemon: Publisher) -> None:
        """Within a window a newer price waits; the newest is told when the window ends."""
        async with SpotClient(url) as spot, spot.updates("SPY", max_hz=5) as updates:
            await daemon.publish("SPY", 1)
            assert (await anext(updates)).seq == 1
            await daemon.publish("SPY", 2, 3, 4)
            assert (await anext(updates)).seq == 4
            assert updates.skipped == 2


class TestStates:
    async def test_beside_the_prices(self, url: str, daemon: Publisher) -> None:
        """States of the symbols come as they change, and not those of others."""
        await daemon.write_status(status_of())
        await daemon.publish("SPY", 1)
        await daemon.announce("SPY", "live")
        async with SpotClient(url) as spot, spot.updates("SPY", with_states=True) as items:
            assert [told(await anext(items)), told(await anext(items))] == [
                ("SPY", 1),
                ("SPY", "live"),
            ]
            await daemon.announce("QQQ", "refused")
            await daemon.announce("SPY", "halted")
            assert told(await anext(items)) == ("SPY", "halted")
            await daemon.redis.publish(KEYS.events, state_of("SPY", "ended").to_json())
            assert told(await anext(items)) == ("SPY", "ended")
            await daemon.announce("SPY", "refused")
            assert told(await anext(items)) == ("SPY", "refused")

    async def test_stale_comes_after_the_price_that_it_calls_suspect(
        self, url: str, daemon: Publisher
    ) -> None:
        """Whenever a program joins: the last price before ``stale`` is never told after it."""
        await daemon.write_status(status_of())
        async with SpotClient(url) as spot:
            for seq in range(1, 101):
                await daemon.announce("SPY", "live")
                async with spot.updates("SPY", with_states=True) as items:
                    joining = asyncio.ensure_future(anext(items))
                    for _ in range(seq % 25):
                        await asyncio.sleep(0)
                    await daemon.publish("SPY", seq)
                    await daemon.announce("SPY", "stale")
                    seen = [told(await joining)]
                    while seen[-1] != ("SPY", "stale"):
                        seen.append(told(await anext(items)))
                    assert ("SPY", seq) in seen

    async def test_a_price_that_is_on_its_way_comes_before_a_stored_state(
        self, url: str, daemon: Publisher
    ) -> None:
        """Where messages arrive later than the answer with the stored state, that one waits."""
        await daemon.write_status(status_of())
        await daemon.announce("SPY", "live")

        class Late(Redis):
            async def execute_command(self, *args: Any, **options: Any) -> Any:
                if args[:2] == ("HMGET", KEYS.states):
                    await daemon.publish("SPY", 5)
                    await daemon.announce("SPY", "stale")
                return await super().execute_command(*args, **options)  # type: ignore[no-untyped-call]

        class Slow(Connection):
            async def read_response(self, *args: Any, **options: Any) -> Any:
                reply = await super().read_response(*args, **options)
                for _ in range(50 if options.get("push_request") else 0):
                    await asyncio.sleep(0)
                return reply

        pool = ConnectionPool.from_url(url, connection_class=Slow, protocol=2)
        async with (
            Late.from_pool(pool) as redis,
            SpotClient(redis=redis) as spot,
            spot.updates("SPY", with_states=True) as items,
        ):
            assert [told(await anext(items)), told(await anext(items))] == [
                ("SPY", 5),
                ("SPY", "stale"),
            ]

    async def test_the_daemon_ends(self, url: str, daemon: Publisher) -> None:
        """Without a status no state counts: each symbol is stale, until a daemon is there again."""
        await daemon.write_status(status_of())
        await daemon.announce("SPY", "live")
        async with (
            # As often, what is stored is read. A server may stand still for a second.
            SpotClient(url, heartbeat_s=1.5) as spot,
            spot.updates("SPY", with_states=True) as items,
        ):
            assert told(await anext(items)) == ("SPY", "live")
            await daemon.redis.delete(KEYS.status)
            stale = await anext(items)
            assert isinstance(stale, SymbolState)
            assert (stale.state, stale.code) == ("stale", "no_daemon")
            await daemon.write_status(status_of())
            assert told(await anext(items)) == ("SPY", "live")

    async def test_no_daemon_at_the_start(self, url: str, daemon: Publisher) -> None:
        """States that a killed daemon left behind do not count."""
        await daemon.announce("SPY", "live")
        async with SpotClient(url) as spot, spot.updates("SPY", with_states=True) as items:
            assert told(await anext(items)) == ("SPY", "no_daemon")

    async def test_redis_goes_and_returns(self, own_server: Server) -> None:
        """While Redis is away each symbol is stale, and what is stored afterwards is told anew."""
        async with SpotClient(own_server.url) as spot:
            items = spot.updates("SPY", with_states=True)
            async with Publisher(own_server.url) as daemon:
                await daemon.write_status(status_of())
                await daemon.announce("SPY", "live")
                assert told(await anext(items)) == ("SPY", "live")
            own_server.kill()
            assert told(await anext(items)) == ("SPY", "redis_away")
            own_server.start()
            assert told(await anext(items)) == ("SPY", "no_daemon")
            async with Publisher(own_server.url) as daemon:
                await daemon.announce("SPY", "live")
                await daemon.write_status(status_of())
                await daemon.redis.publish(KEYS.events, status_of().to_json())
                assert told(await anext(items)) == ("SPY", "live")


class TestWaitLive:
    async def test_all_are_live(self, url: str, daemon: Publisher) -> None:
        """It returns the states when the last one is live; a halted one is not."""
        await daemon.write_status(status_of())
        await daemon.announce("SPY", "live")
        await daemon.announce("QQQ", "halted")
        async with SpotClient(url) as spot:
            waiting = asyncio.ensure_future(spot.wait_live("SPY", "QQQ"))
            await until(lambda: daemon.subscribers(KEYS.events), "a subscriber")
            await daemon.announce("QQQ", "live")
            assert await waiting == {"SPY": state_of("SPY"), "QQQ": state_of("QQQ")}
            assert await daemon.leases() == {}

    async def test_refused(self, url: str, daemon: Publisher) -> None:
        """A refused one is told at once, with its reason."""
        await daemon.write_status(status_of())
        await daemon.redis.hset(
            KEYS.states, "SPY", state_of("SPY", "refused", "symbol_limit").to_json()
        )
        async with SpotClient(url) as spot:
            with pytest.raises(SymbolRefusedError, match="SPY is refused: symbol_limit: more"):
                await spot.wait_live("SPY")

    async def test_timeout(self, url: str, daemon: Publisher) -> None:
        """The error says why each of the others is not live."""
        await daemon.announce("SPY", "live")
        async with SpotClient(url) as spot:
            with pytest.raises(TimeoutError, match=r"after 0\.05 s: no daemon runs"):
                await spot.wait_live("SPY", timeout=0.05)
            await daemon.write_status(status_of())
            # Within this time, the state of SPY is read.
            with pytest.raises(TimeoutError, match="after 3 s: QQQ: nobody demands it, or"):
                await spot.wait_live("SPY", "QQQ", timeout=3.0)

    async def test_redis_away(self, own_server: Server) -> None:
        """Where Redis is away it raises."""
        own_server.kill()
        async with SpotClient(own_server.url) as spot:
            with pytest.raises(RedisUnavailableError):
                await spot.wait_live("SPY")

    async def test_the_client_is_closed(self, url: str, daemon: Publisher) -> None:
        """Closing the client meanwhile is an error of the call."""
        spot = SpotClient(url)
        waiting = asyncio.ensure_future(spot.wait_live("SPY"))
        await until(lambda: daemon.subscribers(KEYS.events), "a subscriber")
        await spot.aclose()
        with pytest.raises(RuntimeError, match="the client is closed"):
            await waiting


class TestWarnings:
    """After ``warn_after_s`` a symbol without a price is told in the log, with the reason."""

    @staticmethod
    async def warning(
        url: str, caplog: pytest.LogCaptureFixture, *, demand: bool = True, **prefixes: str
    ) -> str:
        """Iterate until a warning is logged, and return it."""
        async with (
            SpotClient(url, warn_after_s=WARN_AFTER_S, **prefixes) as spot,  # type: ignore[arg-type]
            spot.updates("SPY", "QQQ", demand=demand) as updates,
        ):
            taking = asyncio.ensure_future(anext(updates))
            await until(lambda: "no price after" in caplog.text, "the warning")
            taking.cancel()
            await asyncio.wait([taking])
        [record] = [r for r in caplog.records if "no price after" in r.message]
        assert record.levelname == "WARNING"
        assert record.name == "spotd.client"
        return record.message

    async def test_no_daemon(self, url: str, caplog: pytest.LogCaptureFixture) -> None:
        """No daemon runs."""
        message = await self.warning(url, caplog)
        assert message == (
            "no price after 0.05 s: no daemon runs under the key prefix 'spotd:': "
            "there is no spotd:status"
        )

    async def test_refused(
        self, url: str, daemon: Publisher, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A symbol is refused, the other is not known."""
        await daemon.write_status(status_of())
        state = state_of("SPY", "refused", "symbol_limit")
        await daemon.redis.hset(KEYS.states, "SPY", state.to_json())
        message = await self.warning(url, caplog, demand=False)
        assert "SPY: refused, symbol_limit: more words; QQQ: nobody demands it" in message

    async def test_wrong_prefix(
        self, url: str, daemon: Publisher, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A daemon listens under other prefixes than the client's."""
        await daemon.write_status(status_of())
        async with daemon.redis.pubsub(ignore_subscribe_messages=True) as pubsub:
            await pubsub.subscribe(KEYS.wake, KEYS.leaders)
            await until(lambda: daemon.subscribers(KEYS.leaders), "the daemon to listen")
            message = await self.warning(url, caplog, key_prefix="x:")
            assert "under the key prefix 'x:', but under 'spotd:'" in message
            caplog.clear()
            message = await self.warning(url, caplog, channel_prefix="y:")
            assert "nobody publishes under the channel prefix 'y:', but under 'spot:'" in message

    @pytest.mark.parametrize(
        ("left", "why"),
        [
            (False, "no daemon runs under the key prefix"),
            (True, "no leader: host-1-ab wrote the last status, streaming, at"),
        ],
    )
    async def test_stored_prices_of_a_daemon_that_is_gone(
        self, url: str, daemon: Publisher, caplog: pytest.LogCaptureFixture, *, left: bool, why: str
    ) -> None:
        """Where nothing follows the stored prices, that is told, also while its status is left."""
        if left:
            await daemon.write_status(status_of())
            await daemon.redis.delete(KEYS.leader)
        await daemon.publish("SPY", 1)
        async with (
            SpotClient(url, warn_after_s=WARN_AFTER_S) as spot,
            spot.updates("SPY") as updates,
        ):
            assert (await anext(updates)).seq == 1
            await until(lambda: "no new price after" in caplog.text, "the warning")
        assert f"no new price after 0.05 s: {why}" in caplog.text

    async def test_stored_prices_and_a_wrong_channel_prefix(
        self, url: str, daemon: Publisher, caplog: pytest.LogCaptureFixture
    ) -> None:
        """The right key prefix brings stored prices, and the wrong channel prefix is told."""
        await daemon.write_status(status_of())
        await daemon.publish("SPY", 1)
        async with daemon.redis.pubsub(ignore_subscribe_messages=True) as pubsub:
            await pubsub.subscribe(KEYS.wake, KEYS.leaders)
            await until(lambda: daemon.subscribers(KEYS.leaders), "the daemon to listen")
            async with (
                SpotClient(url, warn_after_s=WARN_AFTER_S, channel_prefix="y:") as spot,
                spot.updates("SPY") as updates,
            ):
                assert (await anext(updates)).seq == 1
                await until(lambda: "no new price after" in caplog.text, "the warning")
        assert "nobody publishes under the channel prefix 'y:', but under 'spot:'" in caplog.text

    async def test_not_where_a_daemon_runs_and_the_market_rests(
        self, url: str, daemon: Publisher, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A stored price that nothing follows is well while a daemon publishes here."""
        await daemon.write_status(status_of())
        await daemon.publish("SPY", 1)
        async with (
            SpotClient(url, warn_after_s=WARN_AFTER_S) as spot,
            spot.updates("SPY") as first,
            spot.updates("QQQ") as second,
        ):
            assert (await anext(first)).seq == 1
            taking = asyncio.ensure_future(anext(second))
            await until(lambda: "no price after" in caplog.text, "the warning of the other")
            taking.cancel()
            await asyncio.wait([taking])
        assert "no new price" not in caplog.text

    async def test_without_the_right_to_ask_who_listens(
        self, own_server: Server, caplog: pytest.LogCaptureFixture
    ) -> None:
        """It is said all the same that there is no daemon."""
        with own_server.client() as admin:
            rules = ["on", ">pw", "~*", "&*", "+@all", "-pubsub"]
            admin.execute_command("ACL", "SETUSER", "poor", *rules)
        message = await self.warning(f"redis://poor:pw@127.0.0.1:{own_server.port}/0", caplog)
        assert "no daemon runs" in message

    async def test_not_where_prices_come(
        self, url: str, daemon: Publisher, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Whoever has a price of each symbol is not warned."""
        await daemon.publish("SPY", 1)
        async with (
            SpotClient(url, warn_after_s=WARN_AFTER_S) as spot,
            spot.updates("SPY") as first,
            spot.updates("QQQ") as second,
        ):
            assert (await anext(first)).seq == 1
            taking = asyncio.ensure_future(anext(second))
            await until(lambda: "no price after" in caplog.text, "the warning of the other")
            await daemon.publish("QQQ", 1)
            await taking
        assert caplog.text.count("no price after") == 1

    async def test_redis_cannot_be_asked(
        self, own_server: Server, caplog: pytest.LogCaptureFixture
    ) -> None:
        """That the reason is not known is said, too."""
        with own_server.client() as admin:
            rules = ["on", ">pw", "~*", "&*", "+@all", "-get"]
            admin.execute_command("ACL", "SETUSER", "poor", *rules)
        message = await self.warning(f"redis://poor:pw@127.0.0.1:{own_server.port}/0", caplog)
        assert "no price after 0.05 s: Redis at" in message
        assert "refused" in message


class TestOwners:
    async def test_two_replicas_with_one_owner(self, url: str, daemon: Publisher) -> None:
        """Each has leases of its own, so one that leaves does not end the other's demand."""
        async with SpotClient(url, owner="svc") as stays, stays.want("SPY"):
            async with SpotClient(url, owner="svc") as leaves, leaves.want("SPY"):
                assert set(await daemon.leases()) == {f"SPY@{stays.owner}", f"SPY@{leaves.owner}"}
            assert set(await daemon.leases()) == {f"SPY@{stays.owner}"}
            assert stays.owner.startswith("svc:")

    async def test_a_lease_is_of_one_symbol_and_one_owner(self, url: str) -> None:
        """An owner may hold any sign, since the symbol ends at the first ``@``."""
        async with SpotClient(url, owner="a@b") as spot, spot.want("SPY"):
            assert await spot.desired() == {"SPY"}


class TestLists:
    @pytest.mark.parametrize("call", ["updates", "want", "latest", "add", "remove", "wait_live"])
    async def test_a_list_is_told_how_to_be_passed(self, url: str, call: str) -> None:
        """A list instead of symbols is a TypeError that says ``*symbols``."""
        async with SpotClient(url) as spot:
            with pytest.raises(TypeError, match=r"not a list: write \*symbols"):
                await getattr(spot, call)(["SPY"])

    def test_a_text_instead_of_a_list(self) -> None:
        """One text where a list is asked for is an error, instead of a symbol per letter."""
        with pytest.raises(TypeError, match="not one text"):
            symbols_of("SPY")


class TestFrame:
    async def test_rows_and_columns(self, url: str, daemon: Publisher) -> None:
        """A row per symbol in the order that was asked for, also without a price."""
        pandas = pytest.importorskip("pandas")
        await daemon.publish("SPY", 7)
        async with SpotClient(url) as spot:
            frame = await spot.frame("qqq", "SPY")
            assert list(frame.index) == ["QQQ", "SPY"]
            assert list(frame.columns) == [
                "bid_price", "ask_price", "mid_price", "last_price", "timestamp", "seq",
            ]  # fmt: skip
            spy, qqq = frame.loc["SPY"], frame.loc["QQQ"]
            update = update_of("SPY", 7)
            assert (spy.mid_price, spy.seq) == (update.mid_price, update.seq)
            assert spy.timestamp == update.timestamp
            assert qqq.isna().all()
            assert pandas.isna(spy.last_price)
            assert list((await spot.frame()).index) == ["SPY"]

    async def test_without_pandas(self, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where pandas is not installed, the error says what to install."""
        monkeypatch.setitem(sys.modules, "pandas", None)
        async with SpotClient(url) as spot:
            with pytest.raises(SpotdError, match="pip install pandas"):
                await spot.frame("SPY")


def test_to_dict() -> None:
    """A message as a dict has the names of its JSON, and times as datetimes."""
    update = update_of("SPY", 7)
    assert update.to_dict() == {
        "symbol": "SPY", "bid_price": 421.35, "ask_price": 421.39, "mid_price": 421.37,
        "last_price": None, "timestamp": update.timestamp, "seq": 7,
    }  # fmt: skip
    assert state_of("SPY").to_dict()["type"] == "symbol"
    assert status_of().to_dict()["type"] == "daemon"
