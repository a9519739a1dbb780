"""What the tests of everything between spotd and Alpaca have in common.

A real simulator, real sockets, our own parts unchanged. Whoever waits here waits for a condition,
at most ``PATIENCE_S``.
"""

import asyncio
import gc
import os
import socket
import stat
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, Self

import msgspec
import pytest
from pydantic import SecretStr
from websockets.utils import accept_key

from spotd.alpaca.stream import AlpacaStream, Timeouts
from spotd.core.leadership import MARGIN_SHARE
from spotd.core.messages import Message, Quote
from spotd.core.subscriptions import Request
from spotd.daemon.intake import Intake
from spotd.daemon.shared import Shared
from spotd.daemon.stream import Pace, StreamLoop
from spotd.settings import Settings
from spotd.simulator import Simulator

PATIENCE_S = 10.0
KEY, SECRET = "demo-key", "demo-secret"
# For what never comes: short, as nothing else is awaited meanwhile.
IMPATIENT = Timeouts(connect_s=0.3, answer_s=0.2, close_s=0.2)
# No pause between tries that a test would have to sit out.
BRISK = Pace(
    first_s=0.01, most_s=0.05, jitter_s=0.01, connection_limit_s=0.1, rate_limit_s=0.1, steady_s=60
)


@pytest.fixture(autouse=True)
async def nothing_unheard() -> AsyncIterator[None]:
    """Whatever asyncio would log, such as an exception that nobody looked at, fails the test."""
    heard: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: heard.append(context))
    yield
    gc.collect(1)
    assert not heard


async def until(condition: Callable[[], object], what: str = "") -> None:
    """Return once ``condition()`` is true. AssertionError when it does not become so in time."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, what or "waited in vain"
        await asyncio.sleep(0.002)


def settings_for(sim: Simulator, **changes: Any) -> Settings:
    """Settings of a daemon that uses this simulator."""
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
    """What ``on_data`` is given, kept."""

    def __init__(self) -> None:
        self.messages: list[Message] = []

    def __call__(self, messages: list[Any]) -> None:
        self.messages += messages

    @property
    def quotes(self) -> list[Quote]:
        """The quotes among them."""
        return [message for message in self.messages if isinstance(message, Quote)]


def stream_to(
    endpoint: str,
    listener: Callable[[list[Any]], None] | None = None,
    *,
    timeouts: Timeouts | None = None,
    key: str = KEY,
    secret: str = SECRET,
) -> AlpacaStream:
    """A stream that is not yet open."""
    return AlpacaStream(
        endpoint=endpoint,
        api_key=SecretStr(key),
        secret_key=SecretStr(secret),
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
    """An open stream, subscribed to the quotes of some symbols, closed afterwards."""
    stream = stream_to(sim.stream_url("iex"), listener, timeouts=timeouts)
    await stream.open()
    try:
        if symbols:
            await stream.request(Request("subscribe", symbols))
        yield stream
    finally:
        await stream.close()


def sockets_to(port: int) -> int:
    """How many sockets of this process are connected to a port."""
    found = 0
    for name in os.listdir("/dev/fd"):  # noqa: PTH208 - not files
        with suppress(OSError):  # closed meanwhile, or not connected
            if stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                with socket.socket(fileno=os.dup(int(name))) as copy:
                    found += copy.getpeername()[1:2] == (port,)
    return found


def frame(payload: bytes, *, opcode: int = 2, fin: bool = True) -> bytes:
    """A frame as a server writes it (RFC 6455, section 5.2)."""
    first = (0x80 if fin else 0) | opcode
    size = len(payload)
    if size < 126:
        return struct.pack(">BB", first, size) + payload
    if size < 65_536:
        return struct.pack(">BBH", first, 126, size) + payload
    return struct.pack(">BBQ", first, 127, size) + payload


def packed(*messages: Mapping[str, Any]) -> bytes:
    """Messages as one msgpack payload; times as msgspec writes them."""
    return msgspec.msgpack.encode(messages)


@asynccontextmanager
async def peer(
    behave: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
    **listening: Any,
) -> AsyncIterator[int]:
    """A TCP server that does with each connection what the test says; gives its port."""
    writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            await behave(reader, writer)

    server = await asyncio.start_server(serve, "127.0.0.1", 0, **listening)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for writer in writers:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()


def resolve(monkeypatch: pytest.MonkeyPatch, addresses: list[tuple[str, int]]) -> None:
    """Have every name mean these addresses."""

    async def getaddrinfo(*_: object, **__: object) -> list[tuple[object, ...]]:
        return [
            (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", one) for one in addresses
        ]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)


async def upgrade(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Accept a websocket, as a peer that then says what the test says."""
    writer.write(accepted(await reader.readuntil(b"\r\n\r\n")))
    await writer.drain()


def accepted(head: bytes) -> bytes:
    """The answer to a request for an upgrade."""
    [key] = [
        line.partition(b":")[2].strip().decode()
        for line in head.split(b"\r\n")
        if line.lower().startswith(b"sec-websocket-key")
    ]
    return (
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Accept: {accept_key(key)}\r\n\r\n"
    ).encode()


async def hear(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """The next frame of a client, its opcode and its unmasked payload."""
    first, second = await reader.readexactly(2)
    size = second & 0x7F
    if size == 126:
        [size] = struct.unpack(">H", await reader.readexactly(2))
    mask = await reader.readexactly(4)
    masked = await reader.readexactly(size)
    return first & 0x0F, bytes(byte ^ mask[at % 4] for at, byte in enumerate(masked))


async def welcome(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Upgrade, greet and authenticate, as Alpaca would."""
    await upgrade(reader, writer)
    writer.write(frame(packed({"T": "success", "msg": "connected"})))
    await hear(reader)
    writer.write(frame(packed({"T": "success", "msg": "authenticated"})))


def answering(response: bytes) -> Callable[..., Awaitable[None]]:
    """A peer that reads a request's head, writes these bytes and hangs up."""

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(response)
        await writer.drain()
        writer.close()

    return behave


class Bench:
    """A stream loop at work against a simulator, with a lease that the test grants and takes."""

    def __init__(
        self,
        sim: Simulator,
        *,
        pace: Pace = BRISK,
        timeouts: Timeouts | None = None,
        intake: type[Intake] = Intake,
        **settings: Any,
    ) -> None:
        self.sim = sim
        self.settings = settings_for(sim, **settings)
        self.shared = Shared(self.settings)
        self.intake = intake(self.shared)
        key, secret = self.settings.credentials()
        self.stream = AlpacaStream(
            endpoint=self.settings.stream_endpoint,
            api_key=key,
            secret_key=secret,
            on_data=self.intake,
            timeouts=timeouts,
        )
        self.loop = StreamLoop(self.shared, self.stream, pace)
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self.lead()
        self._task = asyncio.create_task(self.loop.run(), name="stream")
        return self

    async def __aexit__(self, *_: object) -> None:
        self.running.cancel()
        await asyncio.wait((self.running,))

    @property
    def running(self) -> asyncio.Task[None]:
        """The loop at work."""
        assert self._task is not None
        return self._task

    # The lease

    def lead(self, for_s: float = 3600.0) -> None:
        """Be the leader for so long."""
        lease = self.shared.lease
        lease.refused()
        lease.granted(time.monotonic() + for_s - lease.ttl_s * (1 - MARGIN_SHARE))
        self.shared.bells.stream.ring()

    def step_down(self) -> None:
        """Lead no more."""
        self.shared.lease.refused()

    # The demand

    def want(self, *symbols: str) -> None:
        """Have these symbols desired, and no others."""
        desired = frozenset(symbols)
        self.shared.market.keep(desired)
        self.shared.subscriptions.want(desired)
        self.shared.facts.desired = len(desired)
        self.shared.bells.stream.ring()

    async def settled(self, *symbols: str) -> None:
        """Wait until exactly these symbols are active and nothing is left to ask for."""
        subs = self.shared.subscriptions
        wanted = frozenset(symbols)
        await until(
            lambda: subs.active == wanted and subs.awaiting is None and self.asked_statuses(),
            f"active: {sorted(subs.active)[:20]}",
        )

    def asked_statuses(self) -> bool:
        """Whether statuses were asked for on this connection, which comes last."""
        return not self.shared.subscriptions.active or any(
            "statuses" in one for one in self.sim.received.messages("subscribe")
        )

    # What came of it

    @property
    def requests(self) -> list[dict[str, Any]]:
        """Every subscribe and unsubscribe the simulator got, without those for statuses."""
        return [
            one
            for one in self.sim.received.messages()
            if one.get("action") in ("subscribe", "unsubscribe") and "statuses" not in one
        ]

    @property
    def tries(self) -> int:
        """How often the simulator was called upon."""
        return self.sim.stats.connections

    async def failed(self) -> BaseException:
        """Wait until the loop ends by itself; what it ends with."""
        await asyncio.wait((self.running,), timeout=PATIENCE_S)
        failure = self.running.exception()
        assert failure is not None
        return failure
