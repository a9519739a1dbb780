"""The other calls of the client, its errors, and how light it is."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import fakeredis
import pytest
from redis.asyncio import Redis

import spotd
from spotd.client import Event, Spot, SpotClient, symbols_of
from spotd.errors import RedisUnavailableError, SettingsError
from spotd.redis.errors import WrongTypeError
from tests.kit.ports import free_port
from tests.kit.publisher import KEYS, Publisher, gap_of, state_of, status_of, update_of
from tests.kit.servers import Server
from tests.kit.waiting import until

STATUS = status_of()


@pytest.fixture
async def fake() -> AsyncIterator[Redis]:
    """Yield a server in this process."""
    async with fakeredis.FakeAsyncRedis() as redis:
        yield redis


@pytest.fixture
async def spot(fake: Redis) -> AsyncIterator[SpotClient]:
    """Yield a client of the server in this process."""
    async with SpotClient(redis=fake, owner="me") as client:
        yield client


class TestReading:
    async def test_latest(self, spot: SpotClient, fake: Redis) -> None:
        """The last known price of each named symbol, in their order; None where there is none."""
        await fake.hset(KEYS.last, mapping={"SPY": update_of("SPY", 1).to_json(), "BAD": b"{"})
        assert await spot.latest("qqq", "SPY", "BAD") == {
            "QQQ": None,
            "SPY": update_of("SPY", 1),
            "BAD": None,
        }
        assert spot.malformed == 1

    async def test_latest_of_all(self, spot: SpotClient, fake: Redis) -> None:
        """Naming no symbol asks for all there are."""
        await fake.hset(KEYS.last, "SPY", update_of("SPY", 1).to_json())
        assert await spot.latest() == {"SPY": update_of("SPY", 1)}

    async def test_status(self, spot: SpotClient, fake: Redis) -> None:
        """Without a daemon the status is None, and so is a status that cannot be read."""
        assert await spot.status() is None
        await fake.set(KEYS.status, STATUS.to_json())
        assert await spot.status() == STATUS
        await fake.set(KEYS.status, b"[]")
        assert await spot.status() is None
        assert spot.malformed == 1

    async def test_states(self, spot: SpotClient, fake: Redis) -> None:
        """States come by symbol or by entry as written; unreadable ones are left out."""
        await fake.hset(
            KEYS.states,
            mapping={"SPY": state_of("SPY").to_json(), "b!": state_of("b!").to_json(), "X": b""},
        )
        assert await spot.states() == {"SPY": state_of("SPY"), "b!": state_of("b!")}
        assert spot.malformed == 1

    async def test_desired(self, spot: SpotClient, fake: Redis) -> None:
        """The demand is the set and the live leases together, with malformed entries as written."""
        await fake.sadd(KEYS.symbols, "spy ", "b!", "IBM@me", b"\xff", "*")
        await fake.zadd(KEYS.leases, {"QQQ@me": time.time() + 60, "IWM@me": time.time() - 1})
        assert await spot.desired() == {"SPY", "b!", "IBM@me", "\\xff", "*", "QQQ"}


class TestDemand:
    async def test_add_and_remove(self, spot: SpotClient, fake: Redis) -> None:
        """Plain demand is set and ended, whichever way it was written."""
        assert await spot.add("spy", "QQQ", "*") == ["SPY", "QQQ", "*"]
        assert await spot.add("spy", "SPY") == []
        assert await fake.smembers(KEYS.symbols) == {b"SPY", b"QQQ", b"*"}
        await fake.sadd(KEYS.symbols, "spy ")
        assert await spot.remove("Spy", "*", "IWM") == ["*", "SPY"]
        assert await fake.smembers(KEYS.symbols) == {b"QQQ"}

    async def test_wakes(self, spot: SpotClient, fake: Redis) -> None:
        """Only a change wakes the daemon up."""
        async with fake.pubsub(ignore_subscribe_messages=True) as pubsub:
            await pubsub.subscribe(KEYS.wake)
            await pubsub.get_message(timeout=1)
            await spot.remove("SPY")
            await spot.add()
            await spot.add("SPY")
            message = await pubsub.get_message(timeout=5)
            assert message is not None
            assert message["data"] == spot.owner.encode()
            assert await pubsub.get_message(timeout=0) is None

    async def test_without_the_right_to_wake(
        self, own_server: Server, caplog: pytest.LogCaptureFixture
    ) -> None:
        """The daemon finds changes by itself, so a client that may not wake it goes on."""
        with own_server.client() as admin:
            rules: list[str] = ["on", ">pw", "~*", "&*", "+@all", "-publish"]
            setuser: Any = admin.execute_command
            setuser("ACL", "SETUSER", "poor", *rules)
            address = f"redis://poor:pw@127.0.0.1:{own_server.port}/0"
            async with SpotClient(address, owner="me") as spot:
                assert await spot.add("SPY") == ["SPY"]
                assert await spot.remove("SPY") == ["SPY"]
                async with spot.want("QQQ"):
                    assert admin.zrange(KEYS.leases, 0, -1) == [f"QQQ@{spot.owner}"]
                assert admin.zcard(KEYS.leases) == 0
        [said] = [record for record in caplog.records if "not waking" in record.message]
        assert "'publish'" in said.message

    async def test_malformed(self, spot: SpotClient, fake: Redis) -> None:
        """A malformed symbol changes nothing; one that is stored so can be removed."""
        with pytest.raises(ValueError, match=r"'b!'"):
            await spot.add("SPY", "b!")
        with pytest.raises(ValueError, match=r"'b!'"):
            await spot.remove("b!")
        assert not await fake.exists(KEYS.symbols)
        await fake.sadd(KEYS.symbols, "b!")
        await spot.remove("b!")
        assert not await fake.exists(KEYS.symbols)

    @pytest.mark.parametrize(
        ("entries", "symbols"),
        [(["spy", " SPY\n"], ["SPY"]), (["brk.b", "A"], ["BRK.B", "A"]), ([], [])],
    )
    def test_symbols_of(self, entries: list[str], symbols: list[str]) -> None:
        """Entries are trimmed and upper-cased, and each symbol is returned once."""
        assert symbols_of(entries) == symbols


class TestEvents:
    async def test_present_then_changes(self, url: str, daemon: Publisher) -> None:
        """The states as they are come first, then every change and every gap.

        A type that is not known is ignored, and junk is counted.
        """
        await daemon.write_status(STATUS)
        await daemon.redis.hset(KEYS.states, "SPY", state_of("SPY").to_json())
        async with SpotClient(url) as spot, aclosing(spot.events()) as events:
            seen: list[Event] = [await anext(events), await anext(events)]
            assert seen == [STATUS, state_of("SPY")]
            await daemon.redis.publish(KEYS.events, b'{"type":"other"}')
            await daemon.redis.publish(KEYS.events, b'{"type":"daemon"}')
            await daemon.announce_gap(gap_of())
            assert await anext(events) == gap_of()
            await daemon.announce("SPY", "ended")
            assert await anext(events) == state_of("SPY", "ended")
            assert spot.malformed == 1

    async def test_empty_entry(self, url: str, daemon: Publisher) -> None:
        """The state of a refused empty entry does not take the place of the daemon's."""
        await daemon.write_status(STATUS)
        await daemon.redis.hset(KEYS.states, "", state_of("", "refused").to_json())
        async with SpotClient(url) as spot, aclosing(spot.events()) as events:
            assert [await anext(events), await anext(events)] == [STATUS, state_of("", "refused")]
            assert spot.conflated == 0

    async def test_no_daemon(self, url: str, daemon: Publisher) -> None:
        """Without a daemon the first event is the first change."""
        async with SpotClient(url) as spot, aclosing(spot.events()) as events:
            taking = asyncio.ensure_future(anext(events))
            await until(lambda: daemon.subscribers(KEYS.events), "a subscriber")
            await daemon.announce("SPY", "live")
            assert await taking == state_of("SPY")


class TestErrors:
    async def test_no_server(self) -> None:
        """Where nobody listens, calls and the first join raise an error that names the place."""
        port = free_port()
        async with SpotClient(f"redis://:hunter2@127.0.0.1:{port}/3") as spot:
            with pytest.raises(RedisUnavailableError, match=f"127.0.0.1:{port}/3") as raised:
                await spot.latest("SPY")
            assert "hunter2" not in str(raised.value)
            with pytest.raises(RedisUnavailableError):
                await anext(spot.updates("SPY"))
            with pytest.raises(RedisUnavailableError):
                await anext(spot.events())

    async def test_wrong_password(self, own_server: Server) -> None:
        """A refused password is an error of ours, which does not hold it."""
        async with SpotClient(f"redis://:hunter2@127.0.0.1:{own_server.port}") as spot:
            with pytest.raises(RedisUnavailableError) as raised:
                await spot.status()
            assert "hunter2" not in str(raised.value)
            assert "hunter2" not in repr(spot)

    async def test_wrong_type(self, spot: SpotClient, fake: Redis) -> None:
        """A key of another type is named."""
        await fake.set(KEYS.symbols, "SPY")
        with pytest.raises(WrongTypeError, match=f"{KEYS.symbols} is of the wrong type"):
            await spot.desired()

    async def test_restarted_server(self, own_server: Server) -> None:
        """A call after a restart works, although the pooled connection died."""
        async with SpotClient(own_server.url) as spot:
            assert await spot.status() is None
            own_server.restart()
            assert await spot.status() is None

    @pytest.mark.parametrize(
        ("url", "words"),
        [
            ("http://:hunter2@h", "the Redis address must start with"),
            ("redis://:hunter2@h:hunter2/0", "the Redis address is not a valid URL"),
            ("redis+sentinel://:hunter2@h", "the Redis address names no service"),
        ],
    )
    def test_wrong_address(self, url: str, words: str) -> None:
        """A wrong address is refused in words, without its password."""
        with pytest.raises(SettingsError, match=words) as raised:
            SpotClient(url)
        assert "hunter2" not in str(raised.value)

    async def test_unix_socket(self, own_server: Server) -> None:
        """A socket's path works as an address, and errors name it."""
        async with SpotClient(f"unix://{own_server.socket_path}") as spot:
            assert await spot.status() is None
            assert str(own_server.socket_path) in repr(spot)


def test_light() -> None:
    """A consuming program loads Redis and msgspec, and none of the daemon's weight."""
    script = (
        "import sys, spotd.client, spotd; spotd.SpotClient\n"
        "heavy = {'alpaca', 'pandas', 'pydantic', 'structlog', 'aiohttp', 'rich', 'click'}\n"
        "ours = {'spotd.core', 'spotd.alpaca', 'spotd.daemon', 'spotd.ops', 'spotd.settings'}\n"
        "print(sorted((heavy | ours) & set(sys.modules)))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    assert ran.stdout.strip() == "[]"
    assert spotd.SpotClient is SpotClient
    assert spotd.Spot is Spot
    assert spotd.Event == Event
