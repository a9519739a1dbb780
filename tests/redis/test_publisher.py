"""The connection that publishes, against a real server: one call at a time, each ended once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import hiredis
import pytest
from redis.asyncio.connection import Connection, SSLConnection, UnixDomainSocketConnection

from spotd.errors import NotLeaderError, RedisUnavailableError
from spotd.keys import Keys
from spotd.redis.errors import WrongTypeError
from spotd.redis.port import RedisPort
from spotd.redis.scripts import PUBLISH
from tests.kit.recorder import Recorder
from tests.kit.redis_port import clock_after, led, patient
from tests.kit.redis_proxy import RedisProxy
from tests.kit.servers import Server
from tests.kit.waiting import GUARD_S, until

KEYS = Keys()


def update(symbol: str, seq: int) -> bytes:
    """Return one line that a subscriber can read."""
    return b'{"symbol":"%s","seq":%d}\n' % (symbol.encode(), seq)


@pytest.fixture
async def port(server: Server) -> AsyncIterator[RedisPort]:
    """Yield a port that leads."""
    under_test = patient(server.url, KEYS)
    await under_test.lead("t", 600.0)
    yield under_test
    await under_test.close()


class Ends:
    """How calls ended, in order."""

    def __init__(self, port: RedisPort) -> None:
        self.ends: list[Exception | None] = []
        self._port = port

    def begin(self, symbol: str, seq: int, token: str = "t") -> None:
        """Begin a call."""
        self._port.begin_publishing(token, update(symbol, seq), seq, self.ends.append)

    async def next(self) -> Exception | None:
        """Wait for the end of the call that is under way."""
        ended = len(self.ends)
        await until(lambda: len(self.ends) > ended, "the end of a call")
        return self.ends[-1]


def publishing(server: Server) -> list[dict[str, Any]]:
    """Return the clients of the server whose latest command published."""
    with server.client() as client:
        return [each for each in client.client_list() if each["cmd"] in ("evalsha", "eval")]


async def test_a_call_is_sent_in_the_turn_in_which_it_is_begun(
    port: RedisPort, server: Server
) -> None:
    """Nothing is awaited once the connection is there; its end comes in a later turn."""
    ends = Ends(port)
    ends.begin("SPY", 1)
    assert ends.ends == []
    assert await ends.next() is None
    with server.client() as client:
        ends.begin("SPY", 2)
        # No other task has run: the server has it already, or gets it from the socket now.
        while client.hget(KEYS.last, "SPY") != update("SPY", 2).strip().decode():
            pass
    assert ends.ends == [None]
    assert await ends.next() is None


async def test_one_call_at_a_time(port: RedisPort) -> None:
    """A second one before the end of the first is a mistake of the caller."""
    ends = Ends(port)
    ends.begin("SPY", 1)
    with pytest.raises(AssertionError):
        ends.begin("SPY", 2)
    assert await ends.next() is None
    ends.begin("SPY", 3, token="other")
    assert isinstance(await ends.next(), NotLeaderError)


async def test_a_connection_that_was_lost_in_silence_costs_no_call(
    port: RedisPort, server: Server
) -> None:
    """Its loss was noticed between two calls, so the next one opens another."""
    ends = Ends(port)
    ends.begin("SPY", 1)
    assert await ends.next() is None
    with server.client() as client:
        client.client_kill_filter(skipme=True)
    await until(lambda: not publishing(server), "the connection to be gone")
    await asyncio.sleep(0)
    await until(lambda: _publishes(ends), "a call that succeeds")


async def _publishes(ends: Ends) -> bool:
    ends.begin("SPY", 10 + len(ends.ends))
    return await ends.next() is None


async def test_a_server_that_is_killed_ends_the_call_that_is_under_way(
    port: RedisPort, server: Server
) -> None:
    """The call fails once, and later calls succeed when the server is back."""
    ends = Ends(port)
    ends.begin("SPY", 1)
    assert await ends.next() is None
    server.freeze()
    ends.begin("SPY", 2)
    server.kill()
    assert isinstance(await ends.next(), RedisUnavailableError)
    ends.begin("SPY", 3)
    assert isinstance(await ends.next(), RedisUnavailableError)
    server.restart(lose_data=True)
    await port.lead("t", 600.0)
    ends.begin("SPY", 4)
    assert await ends.next() is None
    assert len(ends.ends) == 4


async def test_a_call_without_an_answer_is_given_up_and_never_answered(server: Server) -> None:
    """Its connection is closed: an answer that comes late belongs to no later call."""
    port = RedisPort(server.url, KEYS, call_timeout_s=0.2)
    async with Recorder(server.url) as heard:
        await led(port, "t")
        ends = Ends(port)
        await until(lambda: _publishes(ends), "a call that opens the connection")
        server.freeze()
        ends.begin("SPY", 10 + len(ends.ends))
        failed = await ends.next()
        assert isinstance(failed, RedisUnavailableError)
        assert isinstance(failed.__cause__, TimeoutError)
        server.thaw()
        await until(lambda: _publishes(ends), "a call that succeeds")
        await until(lambda: heard.seqs("SPY")[-1:] == [10 + len(ends.ends) - 1], "its update")
        seqs = heard.seqs("SPY")
        assert seqs == sorted(set(seqs))
    await port.close()


async def test_a_call_that_was_given_up_is_not_carried_out_later(server: Server) -> None:
    """A server that was frozen finds it in its socket. Its time, by the server's clock, is over."""
    port = RedisPort(server.url, KEYS, call_timeout_s=0.2)
    async with Recorder(server.url) as heard:
        clock_is_off_s = await led(port, "t")
        ends = Ends(port)
        server.freeze()
        ends.begin("SPY", 1)
        assert isinstance(await ends.next(), RedisUnavailableError)
        await until(clock_after(clock_is_off_s), "the end of its time")
        server.thaw()
        await until(lambda: _publishes(ends), "a call that succeeds")
        await until(lambda: heard.seqs("SPY")[-1:] == [10 + len(ends.ends) - 1], "its update")
        assert 1 not in heard.seqs("SPY")
    await port.close()


async def test_the_time_of_a_call_is_not_longer_by_the_opening_of_a_connection(
    server: Server,
) -> None:
    """Redis' clock is told by its answer about the leader key, which was asked once connected."""
    async with RedisProxy.to(server) as network, Recorder(server.url) as heard:
        url = f"redis://127.0.0.1:{network.port}/1"
        port = RedisPort(url, KEYS, call_timeout_s=0.2, connect_timeout_s=GUARD_S)
        network.hold("SELECT")
        leading = asyncio.create_task(led(port, "t"))
        await until(lambda: network.held, "a connection that logs in")
        await until(clock_after(1.0), "a while")
        released_at = time.monotonic()
        network.release()
        await leading
        clock_is_off_s = time.monotonic() - released_at
        ends = Ends(port)
        await until(lambda: _publishes(ends), "a call that opens the connection")
        server.freeze()
        given_up = 10 + len(ends.ends)
        ends.begin("SPY", given_up)
        assert isinstance(await ends.next(), RedisUnavailableError)
        await until(clock_after(clock_is_off_s), "the end of its time")
        server.thaw()
        await until(lambda: _publishes(ends), "a call that succeeds")
        await until(lambda: heard.seqs("SPY")[-1:] == [10 + len(ends.ends) - 1], "its update")
        assert given_up not in heard.seqs("SPY")
    await port.close()


@pytest.mark.parametrize(("until_ms", "published"), [(0, 1), (1, 0), (2**53, 1)])
def test_the_time_of_a_call_is_told_by_the_clock_of_the_server(
    server: Server, until_ms: int, published: int
) -> None:
    """After it nothing is published nor stored. Without one, a call may be carried out any time."""
    with server.client() as client:
        client.set(KEYS.leader, "t")
        arguments = (KEYS.leader, KEYS.last, KEYS.seq, "t", "spot:", 1, 10**15, update("SPY", 1))
        assert client.eval(PUBLISH, 3, *arguments, until_ms) == published
        assert client.exists(KEYS.last) == published


async def test_a_leader_key_of_the_wrong_type_is_named(port: RedisPort, server: Server) -> None:
    """The error names the key that has to be deleted: the others are replaced by the script."""
    calls = Ends(port)
    with server.client() as db:
        for key in (KEYS.leader, KEYS.last, KEYS.seq):
            db.delete(key)
            db.rpush(key, "x")
    calls.begin("SPY", 1)
    with pytest.raises(WrongTypeError, match=f"{KEYS.leader} is of the wrong type"):
        raise await calls.next() or AssertionError("it was published")


async def test_the_protocol_may_be_chosen_in_the_url(server: Server) -> None:
    """With RESP3 answers look different, and mean the same."""
    port = patient(f"{server.url}?protocol=3", KEYS)
    await port.lead("t", 600.0)
    ends = Ends(port)
    for seq in (1, 2, 3):
        ends.begin("SPY", seq)
        assert await ends.next() is None
    await port.close()


def test_what_is_used_of_redis_py_is_there() -> None:
    """The publisher takes over a connection by these names; another redis-py may lack them."""
    kinds: tuple[Any, ...] = (Connection, SSLConnection, UnixDomainSocketConnection)
    for kind in kinds:
        made = kind()
        assert made._reader is made._writer is None
        error = made._parser.parse_error("READONLY You can't write against a read only replica.")
        assert type(error).__name__ == "ReadOnlyError"
    command: Any = ("EVALSHA", 3, b"x")
    assert hiredis.pack_command(command) == b"*3\r\n$7\r\nEVALSHA\r\n$1\r\n3\r\n$1\r\nx\r\n"
