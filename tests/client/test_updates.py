"""Prices: joining without a gap, staying joined, never going back, never queueing."""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing
from typing import Any

import pytest
from redis.asyncio import Connection, ConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from spotd.client import SpotClient
from tests.kit.publisher import KEYS, Publisher, update_of
from tests.kit.servers import Server
from tests.kit.waiting import GUARD_S, until


async def subscribed(daemon: Publisher) -> None:
    """Wait until somebody listens to SPY."""
    await until(lambda: daemon.subscribers(KEYS.channel("SPY")), "a subscriber")


def connecting_by(kind: type[Connection], url: str) -> Redis:
    """Return a client whose connections are of a kind of the test's own."""
    return Redis.from_pool(ConnectionPool.from_url(url, connection_class=kind, protocol=2))


class TestJoin:
    async def test_last_value_first(self, url: str, daemon: Publisher) -> None:
        """The stored value comes first, then what is newer; an equal or lower seq is dropped."""
        await daemon.publish("SPY", 10)
        async with SpotClient(url) as spot, aclosing(spot.updates("spy ")) as updates:
            assert await anext(updates) == update_of("SPY", 10)
            await daemon.publish("SPY", 9, 10, 11)
            assert (await anext(updates)).seq == 11

    async def test_published_while_joining(self, url: str, daemon: Publisher) -> None:
        """What is published between SUBSCRIBE and HMGET arrives, and arrives once."""

        class Late(Redis):
            async def execute_command(self, *args: Any, **options: Any) -> Any:
                if args[0] == "HMGET":
                    await daemon.publish("SPY", 5)
                return await super().execute_command(*args, **options)  # type: ignore[no-untyped-call]

        async with (
            Late.from_url(url) as redis,
            SpotClient(redis=redis) as spot,
            aclosing(spot.updates("SPY")) as updates,
        ):
            assert (await anext(updates)).seq == 5
            await daemon.publish("SPY", 6)
            assert (await anext(updates)).seq == 6

    async def test_no_gap(self, url: str, daemon: Publisher) -> None:
        """Whenever a program joins, the value published at that moment reaches it."""
        async with SpotClient(url) as spot:
            for seq in range(1, 101):
                async with aclosing(spot.updates("SPY")) as updates:
                    joining = asyncio.ensure_future(anext(updates))
                    for _ in range(seq % 12):
                        await asyncio.sleep(0)
                    await daemon.publish("SPY", seq)
                    async with asyncio.timeout(GUARD_S):
                        update = await joining
                        while update.seq < seq:
                            update = await anext(updates)

    async def test_many_symbols(self, url: str, daemon: Publisher) -> None:
        """Hundreds of symbols are one subscription, each with its last value."""
        symbols = [f"{a}{b}" for a in "ABCDEFGHIJKLMNOPQRST" for b in "ABCDEFGHIJKLMNOPQRST"]
        for symbol in symbols:
            await daemon.publish(symbol, 1)
        async with SpotClient(url) as spot, aclosing(spot.updates(*symbols)) as updates:
            assert {(await anext(updates)).symbol for _ in symbols} == set(symbols)

    @pytest.mark.parametrize("entries", [("SP-Y", "spy"), ("",), ("*",), ("ſpy",), ("A" * 9,)])
    async def test_malformed_symbols(self, entries: tuple[str, ...]) -> None:
        """A malformed symbol is named at once, before anything is sent."""
        async with SpotClient() as spot:
            with pytest.raises(ValueError, match=r"not a symbol: '") as raised:
                spot.updates(*entries)
        assert repr(entries[0]) in str(raised.value)
        assert "'spy'" not in str(raised.value)

    async def test_no_symbols(self) -> None:
        """An iteration over no symbols is an error, instead of an endless wait."""
        async with SpotClient() as spot:
            with pytest.raises(ValueError, match="at least one symbol"):
                spot.updates()

    async def test_message_among_confirmations(self, url: str, daemon: Publisher) -> None:
        """A message for one symbol, while others are not yet confirmed, is not lost."""

        class Slow(Connection):
            async def send_command(self, *args: Any, **options: Any) -> None:
                if args[0] != "SUBSCRIBE":
                    await super().send_command(*args, **options)
                    return
                await super().send_command(*args[:2], **options)
                await daemon.redis.publish(args[1], update_of("SPY", 7).to_json())
                await super().send_command(args[0], *args[2:], **options)

        async with (
            connecting_by(Slow, url) as redis,
            SpotClient(redis=redis) as spot,
            aclosing(spot.updates("SPY", "QQQ")) as updates,
        ):
            assert (await anext(updates)).seq == 7


class TestMessages:
    @pytest.mark.parametrize(
        "junk",
        [
            b"",
            b"null",
            b"\xff",
            b'{"symbol":"\xff"}',
            b'{"x":' + b"[" * 100_000,
            b'{"symbol":"SPY","seq":1}',
            update_of("QQQ", 99).to_json(),
            update_of("SPY", 99).to_json().replace(b"00Z", b"00"),
        ],
    )
    async def test_malformed(self, url: str, daemon: Publisher, junk: bytes) -> None:
        """A message that is not an update of the symbol is counted, and the next one arrives."""
        await daemon.redis.hset(KEYS.last, "SPY", junk)
        async with SpotClient(url) as spot, aclosing(spot.updates("SPY")) as updates:
            joining = asyncio.ensure_future(anext(updates))
            await subscribed(daemon)
            await until(lambda: spot.malformed == 1, "the stored value to be counted")
            await daemon.redis.publish(KEYS.channel("SPY"), junk)
            await daemon.publish("SPY", 1)
            assert (await joining).seq == 1
            assert spot.malformed == 2

    async def test_slow_consumer(self, url: str, daemon: Publisher) -> None:
        """A consumer that took nothing finds the newest value of each symbol, and nothing else."""
        async with SpotClient(url) as spot, aclosing(spot.updates("SPY", "QQQ")) as updates:
            await daemon.publish("SPY", 1)
            assert (await anext(updates)).seq == 1
            for start in range(2, 2002, 500):
                await daemon.publish("SPY", *range(start, start + 500))
                await daemon.publish("QQQ", *range(start, start + 500))
            await until(lambda: spot.conflated == 2 * 2000 - 2, "all messages to be read")
            assert [(u.symbol, u.seq) for u in [await anext(updates), await anext(updates)]] == [
                ("SPY", 2001),
                ("QQQ", 2001),
            ]

    async def test_busy_channel_yields(self, url: str, daemon: Publisher) -> None:
        """A channel that never pauses does not keep its consumer from running."""
        async with SpotClient(url) as spot, aclosing(spot.updates("SPY")) as updates:
            await daemon.publish("SPY", 1)
            await anext(updates)
            await daemon.publish("SPY", *range(2, 5002))
            taken = 0
            while (await anext(updates)).seq < 5001:
                taken += 1
            assert taken > 10

    @pytest.mark.parametrize("waits", [True, False])
    async def test_defect(self, url: str, daemon: Publisher, *, waits: bool) -> None:
        """A defect in the reader ends the iteration and its leases, also between two steps."""

        class Broken(Connection):
            async def read_response(self, *args: Any, **options: Any) -> Any:
                reply = await super().read_response(*args, **options)
                return {} if isinstance(reply, list) and reply[0] == b"message" else reply

        await daemon.publish("SPY", 1)
        async with connecting_by(Broken, url) as redis, SpotClient(redis=redis) as spot:
            updates = spot.updates("SPY")
            assert (await anext(updates)).seq == 1
            taking = asyncio.ensure_future(anext(updates)) if waits else None
            await daemon.redis.publish(KEYS.channel("SPY"), b"")

            async def ended() -> bool:
                return not await daemon.subscribers(KEYS.channel("SPY"))

            await until(ended, "the end of the subscription")
            with pytest.raises(KeyError):
                await (taking or anext(updates))
            assert await daemon.leases() == {}
            assert await anext(updates, None) is None


async def lose_a_message(daemon: Publisher) -> None:
    """Close the connections of all subscribers, and store a price that none of them receives."""
    async with daemon.redis.pipeline(transaction=True) as batch:
        batch.client_kill_filter(_type="pubsub")
        batch.hset(KEYS.last, "SPY", update_of("SPY", 2).to_json())
        await batch.execute()


class TestReconnect:
    async def test_server_restart(
        self, own_server: Server, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A restarted server is joined again with its leases, and no older value is delivered."""
        caplog.set_level(logging.INFO, "spotd.client")
        url = own_server.url
        async with SpotClient(url) as spot, aclosing(spot.updates("SPY")) as updates:
            async with Publisher(url) as daemon:
                await daemon.publish("SPY", 100)
                assert (await anext(updates)).seq == 100
            taking = asyncio.ensure_future(anext(updates))
            own_server.kill()
            await until(lambda: "lost" in caplog.text, "the loss to be logged")
            own_server.start()
            async with Publisher(url) as daemon:
                await until(lambda: spot.reconnects == 1, "the client to join again")
                assert f"SPY@{spot.owner}" in await daemon.leases()
                await daemon.publish("SPY", 99, 100, 101)
                assert (await taking).seq == 101
        told = [record.levelname for record in caplog.records if record.name == "spotd.client"]
        assert told == ["WARNING", "INFO"]

    async def test_killed_connection(self, url: str, daemon: Publisher) -> None:
        """What was published while the connection was gone is fetched after it."""
        async with SpotClient(url) as spot, aclosing(spot.updates("SPY")) as updates:
            await daemon.publish("SPY", 1)
            assert (await anext(updates)).seq == 1
            await lose_a_message(daemon)
            assert (await anext(updates)).seq == 2
            assert spot.reconnects == 1

    async def test_unseen_resubscription(self, url: str, daemon: Publisher) -> None:
        """A reconnection by redis-py itself counts as a loss, because it fetches nothing."""
        async with (
            Redis.from_url(url, retry=Retry(NoBackoff(), 3)) as redis,  # reconnects by itself
            SpotClient(redis=redis) as spot,
            aclosing(spot.updates("SPY")) as updates,
        ):
            await daemon.publish("SPY", 1)
            assert (await anext(updates)).seq == 1
            await lose_a_message(daemon)
            assert (await anext(updates)).seq == 2
            assert spot.reconnects == 1

    async def test_healthy_silence(self, url: str, daemon: Publisher) -> None:
        """A PING tries a quiet connection, and its answer keeps the connection."""
        async with (
            SpotClient(url, heartbeat_s=1.5) as spot,  # a server may stand still for a second
            aclosing(spot.updates("SPY")) as updates,
        ):
            await daemon.publish("SPY", 1)
            await anext(updates)

            async def pings() -> int:
                return int((await daemon.redis.info("commandstats"))["cmdstat_ping"]["calls"])

            async def asked_twice() -> bool:
                return await pings() >= before + 2

            await daemon.redis.ping()
            before = await pings()
            # The second one is sent only where the first one was answered.
            await until(asked_twice, "two pings")
            assert spot.reconnects == 0

    async def test_dead_silence(self, own_server: Server, caplog: pytest.LogCaptureFixture) -> None:
        """A server that does not even answer PING is left, and joined again when it answers."""
        async with (
            Publisher(own_server.url) as daemon,
            SpotClient(own_server.url, heartbeat_s=1.5) as spot,
            aclosing(spot.updates("SPY")) as updates,
        ):
            await daemon.publish("SPY", 1)
            assert (await anext(updates)).seq == 1
            taking = asyncio.ensure_future(anext(updates))
            own_server.freeze()
            await until(lambda: "no answer to PING" in caplog.text, "the client to give up")
            own_server.thaw()
            await until(lambda: spot.reconnects >= 1, "the client to join again")
            await daemon.publish("SPY", 2)
            assert (await taking).seq == 2


class TestClosing:
    async def test_closed_by_another_task(self, url: str, daemon: Publisher) -> None:
        """Closing the client ends an iteration that waits, without an error."""
        spot = SpotClient(url)

        async def consume() -> list[int]:
            return [update.seq async for update in spot.updates("SPY")]

        await daemon.publish("SPY", 1)
        consuming = asyncio.create_task(consume())
        await until(daemon.leases, "a lease")
        await spot.aclose()
        assert await consuming in ([1], [])
        assert await daemon.leases() == {}
        await spot.aclose()

    async def test_closed_while_joining(self, own_server: Server) -> None:
        """Closing the client ends an iteration that has not joined yet, without an error."""
        spot = SpotClient(own_server.url)
        own_server.freeze()
        taking = asyncio.ensure_future(anext(spot.updates("SPY", demand=False), None))
        for _ in range(10):  # until it waits for the join
            await asyncio.sleep(0)
        await spot.aclose()
        assert await taking is None
        own_server.thaw()

    async def test_no_tasks_left(self, url: str, daemon: Publisher) -> None:
        """Once the client is closed, none of its tasks runs and no subscription stays."""
        await daemon.publish("SPY", 1)
        async with SpotClient(url) as spot:
            async for _ in spot.updates("SPY"):
                break
        await until(lambda: len(asyncio.all_tasks()) == 1, "all tasks to end")

        async def nobody_listens() -> bool:
            return not await daemon.subscribers(KEYS.channel("SPY"))

        await until(nobody_listens, "the subscription to end")
