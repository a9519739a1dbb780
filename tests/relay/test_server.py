"""Listening: what an operator is told, and what is refused."""

from __future__ import annotations

import asyncio
import resource
import socket
from collections.abc import Callable
from contextlib import suppress

import pytest

from spotd.errors import SettingsError
from spotd.relay.relay import Relay
from spotd.relay.server import RelayServer, raise_file_limit, warnings_for
from tests.kit.waiting import GUARD_S, until
from tests.relay.conftest import NewSetup, Setup
from tests.relay.examples import settings_of
from tests.relay.source import TestSource

PLENTY = 100_000
HALF_A_LIFE_S = 15.0  # of a connection that is no stream
LIVEZ = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
UNFINISHED = (
    b"POST /api/positions/subscribe-spot-prices HTTP/1.1\r\nHost: x\r\nContent-Length: 19\r\n\r\n{"
)


def test_a_relay_on_this_machine_alone_warns_of_nothing() -> None:
    """The default."""
    assert warnings_for(settings_of(), PLENTY) == []


def test_a_relay_that_others_reach_warns() -> None:
    """Without a token, of that; with and without, of the exchanges."""
    exposed = settings_of(relay_host="::")
    [warning] = warnings_for(exposed, PLENTY)
    assert "SPOTD_RELAY_TOKEN" in warning
    assert "exchanges" in warning
    safe = settings_of(relay_host="::", relay_token="secret")
    [warning] = warnings_for(safe, PLENTY)
    assert "SPOTD_RELAY_TOKEN" not in warning
    assert "exchanges" in warning


def test_a_limit_of_files_that_is_too_low_is_told() -> None:
    """With the setting that asks for more."""
    [warning] = warnings_for(settings_of(), 1_024)
    assert "SPOTD_RELAY_MAX_CLIENTS=10000" in warning


def test_the_limit_of_files_is_raised_as_far_as_it_may_be() -> None:
    """The soft limit becomes the hard one."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(512, before[1]), before[1]))
        assert raise_file_limit() == before[1]
        assert raise_file_limit() == before[1]
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (before[1], before[1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_a_limit_of_files_that_cannot_be_raised_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on macOS, whose hard limit is infinite, and which allows less."""

    def refuse(*_: object) -> None:
        raise ValueError("current limit exceeds maximum limit")

    limits = (256, resource.RLIM_INFINITY)
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits)
    monkeypatch.setattr(resource, "setrlimit", refuse)
    assert raise_file_limit() == 256


async def test_an_address_that_cannot_be_had_is_a_setting() -> None:
    """The error names the settings."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        settings = settings_of(relay_port=taken.getsockname()[1])
        relay = Relay(settings.limits)
        with pytest.raises(SettingsError, match="SPOTD_RELAY_HOST, SPOTD_RELAY_PORT: cannot"):
            async with RelayServer(settings, relay, TestSource(relay)):
                raise AssertionError("it must not listen")


async def test_a_lack_of_descriptors_makes_one_line_and_is_over_when_there_are_some(
    setup: Setup, caplog: pytest.LogCaptureFixture
) -> None:
    """asyncio reports it at each try to accept a connection, and would fill the log."""
    clients = [socket.socket() for _ in range(20)]
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (clients[0].fileno() + 1, before[1]))
    try:
        for client in clients:
            client.connect(("127.0.0.1", setup.server.port))
            client.setblocking(False)
        await until(lambda: caplog.records, "the relay to complain")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(GUARD_S):
        for client in clients:
            await loop.sock_sendall(client, b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await loop.sock_recv(client, 100)).startswith(b"HTTP/1.1 200 ")
            client.close()
    [line] = caplog.messages
    assert line == "no HTTP connection can be accepted: Too many open files"


async def test_the_address_is_one_for_a_browser(setup: Setup, new_setup: NewSetup) -> None:
    """An IPv6 address has its brackets."""
    assert setup.server.address == f"http://127.0.0.1:{setup.server.port}/"
    if socket.has_ipv6:
        async with new_setup(relay_host="::1") as other:
            assert other.server.address == f"http://[::1]:{other.server.port}/"


@pytest.fixture
async def loop_clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Return what sets the clock of the running event loop forward: its timers are due sooner."""
    loop = asyncio.get_running_loop()
    real, ahead_s = loop.time, 0.0

    def set_forward(by_s: float) -> None:
        nonlocal ahead_s
        ahead_s += by_s

    monkeypatch.setattr(loop, "time", lambda: real() + ahead_s)
    return set_forward


async def begun_request(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Return a connection whose first request is answered, and whose second has no end yet.

    Both came in one packet. As a consequence, the relay has read the second one, and does not take
    the connection for idle.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(LIVEZ + UNFINISHED)
    assert b"Connection: close" not in await answer_to_livez(reader)
    return reader, writer


async def answer_to_livez(reader: asyncio.StreamReader) -> bytes:
    """Return the head of an answer to ``LIVEZ``."""
    async with asyncio.timeout(GUARD_S):
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 ")
        assert await reader.readexactly(2) == b"[]"
    return head


async def test_a_connection_that_is_used_for_long_ends_with_an_answer_that_says_so(
    setup: Setup, loop_clock: Callable[[float], None]
) -> None:
    """A client that keeps its connection loses no request, also one that comes meanwhile."""
    reader, writer = await begun_request(setup.server.port)
    loop_clock(HALF_A_LIFE_S)
    await asyncio.sleep(0)  # the timer runs in the turn after this one
    writer.write(b'"symbols":["SPY"]}')
    async with asyncio.timeout(GUARD_S):
        answer = await reader.read()
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"Connection: close" in answer
    assert b'"SPY"' in answer
    writer.close()


async def test_a_request_that_never_ends_is_given_up(
    setup: Setup, loop_clock: Callable[[float], None]
) -> None:
    """Without an answer: connections that are no streams have a longest life."""
    reader, writer = await begun_request(setup.server.port)

    def ended() -> bool:
        loop_clock(HALF_A_LIFE_S)
        return reader.at_eof() or reader.exception() is not None

    await until(ended, "the end of the connection")
    with suppress(ConnectionResetError):
        assert await reader.read() == b""
    writer.close()
