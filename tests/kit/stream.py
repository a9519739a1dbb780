"""A stream of Alpaca as tests open it: against a simulator or a server of their own."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import stat
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from pydantic import SecretStr

from spotd.alpaca.handshake import Timeouts
from spotd.alpaca.stream import AlpacaStream
from spotd.core.messages import Message, Quote
from spotd.core.subscriptions import Request
from spotd.errors import StreamError
from spotd.settings import Settings
from spotd.simulator import Simulator
from tests.kit.waiting import GUARD_S, until

KEY, SECRET = "demo-key", "demo-secret"
# For what never comes, where nothing has to come in time before it.
IMPATIENT = Timeouts(connect_s=0.5, answer_s=0.5, close_s=0.2)


@pytest.fixture(autouse=True)
async def nothing_unheard() -> AsyncIterator[None]:
    """Fail a test after which asyncio logs something, such as an exception nobody retrieved."""
    heard: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: heard.append(context))
    yield
    gc.collect(1)
    assert not heard


def settings_for(sim: Simulator, **changes: Any) -> Settings:
    """Return the settings of a daemon that uses this simulator."""
    values: dict[str, Any] = {
        "api_key": SecretStr(KEY),
        "secret_key": SecretStr(SECRET),
        "stream_url": sim.stream_url("iex"),
        "data_url": sim.data_url,
        "http_port": 0,
        "snapshots": False,
        "throttle_ms": 0,
    }
    return Settings(**(values | changes))


class Listener:
    """An ``on_data`` that keeps what it is given."""

    def __init__(self) -> None:
        self.messages: list[Message] = []

    def __call__(self, messages: list[Any]) -> None:
        self.messages += messages

    @property
    def quotes(self) -> list[Quote]:
        """The quotes among the messages."""
        return [message for message in self.messages if isinstance(message, Quote)]


def stream_to(
    endpoint: str,
    listener: Callable[[list[Any]], None] | None = None,
    *,
    timeouts: Timeouts | None = None,
) -> AlpacaStream:
    """Return a stream that is not yet open."""
    return AlpacaStream(
        endpoint=endpoint,
        api_key=SecretStr(KEY),
        secret_key=SecretStr(SECRET),
        on_data=Listener() if listener is None else listener,
        timeouts=timeouts,
    )


@asynccontextmanager
async def session_with(
    sim: Simulator,
    listener: Callable[[list[Any]], None] | None = None,
    *,
    timeouts: Timeouts | None = None,
    symbols: tuple[str, ...] = (),
) -> AsyncIterator[AlpacaStream]:
    """Open a stream, subscribed to the quotes of some symbols, and close it afterwards."""
    stream = stream_to(sim.stream_url("iex"), listener, timeouts=timeouts)
    await stream.open()
    try:
        if symbols:
            await stream.request(Request("subscribe", symbols))
        yield stream
    finally:
        await stream.close()


async def why_ended(stream: AlpacaStream) -> StreamError:
    """Wait until the session is over. Return why."""
    async with asyncio.timeout(GUARD_S):
        return await stream.ended()


def open_sockets() -> list[int]:
    """Return the descriptors of this process' sockets, connected or not."""
    found = []
    for name in os.listdir("/dev/fd"):  # noqa: PTH208 - not files
        with suppress(OSError):  # closed meanwhile
            if stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                found.append(int(name))
    return found


def sockets_to(port: int) -> int:
    """Return how many sockets of this process are connected to a port."""
    found = 0
    for descriptor in open_sockets():
        with suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as copy:
            found += copy.getpeername()[1:2] == (port,)
    return found


async def nothing_connected(port: int) -> None:
    """Wait until this process has no connection to a port of this machine."""
    await until(lambda: sockets_to(port) == 0, "the sockets to be closed")


def resolve(monkeypatch: pytest.MonkeyPatch, addresses: list[tuple[str, int]]) -> None:
    """Have every host name mean these addresses, in the running loop."""

    async def getaddrinfo(*_: object, **__: object) -> list[tuple[object, ...]]:
        return [
            (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", one) for one in addresses
        ]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
