"""One client of an ASGI server: what it is sent, and when it is let go."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any

import pytest

from spotd.relay.asgi import EventStream, Message, Stream, WebSocket
from spotd.relay.close_codes import NOT_READING, STOPPING, TOO_LARGE, TOO_MANY_MESSAGES
from spotd.relay.limits import Limits
from spotd.relay.relay import Relay
from spotd.relay.tick import LONGEST_S, SHORTEST_S
from tests.kit.waiting import GUARD_S, until
from tests.relay.conftest import Clock
from tests.relay.source import TestSource

SPY = {"action": "subscribe", "symbols": ["SPY"]}
REQUEST: ContextVar[str] = ContextVar("REQUEST", default="none")


class Server:
    """An ASGI server's part: takes what is sent to a client, unless the client does not read."""

    def __init__(self) -> None:
        self.sent: list[Message] = []
        self.requests: set[str] = set()  # REQUEST, as those who sent had it
        self.broken = False
        self.on_send: Callable[[], None] = lambda: None
        self.reads = asyncio.Event()
        self.reads.set()
        self._received: asyncio.Queue[Message] = asyncio.Queue()

    async def receive(self) -> Message:
        """Return what the client says next."""
        return await self._received.get()

    async def send(self, message: Message) -> None:
        """Take a message when the client reads."""
        self.on_send()
        self.requests.add(REQUEST.get())
        await self.reads.wait()
        if self.broken:
            raise ConnectionResetError("the client has left")
        self.sent.append(message)

    def say(self, **message: Any) -> None:
        """Have the client say something."""
        self._received.put_nowait({"type": "websocket.receive", "text": json.dumps(message)})

    def leave(self) -> None:
        """Have the client leave, of whichever kind it is."""
        self._received.put_nowait({"type": "http.disconnect"})
        self._received.put_nowait({"type": "websocket.disconnect"})

    @property
    def told(self) -> list[Any]:
        """What a websocket client was sent."""
        return [json.loads(each["text"]) for each in self.sent if "text" in each]

    @property
    def seqs(self) -> list[int]:
        """The prices among it."""
        return [each["update"]["seq"] for each in self.told if "update" in each]

    @property
    def body(self) -> bytes:
        """What an event stream was sent."""
        return b"".join(each["body"] for each in self.sent)

    @property
    def closed(self) -> list[int]:
        """The codes that it was closed with."""
        return [each["code"] for each in self.sent if each["type"] == "websocket.close"]


class Setup:
    """One relay with one client."""

    def __init__(self, kind: type[Stream], symbols: list[str], limits: Limits) -> None:
        self.clock = Clock()
        self.relay = Relay(limits, clock=self.clock, every_s=0.01)
        self.source = TestSource(self.relay)
        self.source.ready()
        self.server = Server()
        assert self.relay.enter() is None
        served = REQUEST.set("this one")
        stream = kind(self.relay, self.server.receive, self.server.send)
        if isinstance(stream, EventStream):
            stream.subscribe(symbols, None)
        self.served = asyncio.create_task(stream.run())
        REQUEST.reset(served)

    @property
    def tick_s(self) -> float:
        """How long a tick lasts, as the metrics say."""
        [tick] = [
            metric
            for metric in self.relay.metrics.collect()
            if metric.name == "spotd_relay_tick_seconds"
        ]
        return tick.samples[0].value

    async def handed_out(self, number: int) -> None:
        """Wait until the hub has handed out this number of prices."""
        await until(lambda: self.relay.hub.counts.updates == number, f"price {number}")


@asynccontextmanager
async def serving(
    kind: type[Stream], *symbols: str, limits: Limits | None = None
) -> AsyncIterator[Setup]:
    """Run a relay and one client, which has left at the end."""
    setup = Setup(kind, list(symbols), limits or Limits())
    loops = asyncio.create_task(setup.relay.run())
    try:
        yield setup
        setup.server.leave()
        async with asyncio.timeout(GUARD_S):
            await setup.served
    finally:
        loops.cancel()
        await asyncio.wait([loops])
    assert setup.relay.has_nobody
    assert setup.relay.hub.clients == 0


async def test_a_client_that_does_not_read_gets_what_is_newest_when_it_does() -> None:
    """It is passed over meanwhile: beside what was under way, it gets one price and no old ones."""
    async with serving(WebSocket) as setup:
        setup.server.say(**SPY)
        await until(lambda: "SPY" in setup.source.followed, "the subscription")
        setup.server.reads.clear()
        setup.source.price("SPY", 1)
        await setup.handed_out(1)
        for seq in (2, 3, 4):
            setup.source.price("SPY", seq)
        setup.server.reads.set()
        await until(lambda: 4 in setup.server.seqs, "the newest price")
        assert setup.server.seqs == [1, 4]


@pytest.mark.parametrize("kind", [WebSocket, EventStream])
async def test_a_client_that_reads_nothing_is_given_up(kind: type[Stream]) -> None:
    """After a minute."""
    async with serving(kind, "SPY") as setup:
        setup.server.say(**SPY)
        await until(lambda: "SPY" in setup.source.followed, "the subscription")
        setup.server.reads.clear()
        setup.source.price("SPY", 1)

        def given_up() -> bool:
            setup.clock.ahead_s += 60
            return setup.served.done()

        await until(given_up, "the client to be given up")
        assert setup.relay.metrics.closed[NOT_READING.code] == 1


async def test_a_websocket_that_says_nothing_is_not_given_up() -> None:
    """Its server pings it, and keeps the answers for itself."""
    async with serving(WebSocket) as setup:
        setup.server.say(**SPY)
        await until(lambda: "SPY" in setup.source.followed, "the subscription")
        while len(setup.server.seqs) < 10:
            setup.clock.ahead_s += 60
            setup.source.price("SPY", seq := len(setup.server.seqs) + 1)
            await until(lambda: seq in setup.server.seqs, "a price")


async def test_a_comment_shows_that_an_event_stream_lives() -> None:
    """Every 15 s, so that no proxy takes it for dead."""
    async with serving(EventStream, "SPY") as setup:
        setup.clock.ahead_s += 15
        await until(
            lambda: any(each["body"][:1] == b":" for each in setup.server.sent), "a comment"
        )


async def test_symbols_without_room_are_told_as_refused() -> None:
    """The stream goes on with the others."""
    limits = Limits(total_symbols=1)
    async with serving(EventStream, "SPY", "QQQ", limits=limits) as setup:
        setup.source.price("SPY", 1)
        await until(lambda: b'"seq":1' in setup.server.body, "the price")
        head = setup.server.body.partition(b'"seq":1')[0]
        assert head.count(b'"state":"refused"') == 1


async def test_too_large_a_message_ends_the_connection() -> None:
    """1009; what comes behind it is not looked at."""
    async with serving(WebSocket) as setup:
        setup.server.say(action="x" * 70_000)
        setup.server.say(**SPY)
        await until(setup.served.done, "the end")
        assert setup.server.closed == [TOO_LARGE.code]
        assert not setup.source.followed


async def test_too_many_messages_end_the_connection() -> None:
    """4101, after an error that says so."""
    async with serving(WebSocket) as setup:
        for _ in range(100):
            setup.server.say(action="ping")
        await until(setup.served.done, "the end")
        assert setup.server.told[-1]["code"] == "too_many_messages"
        assert setup.server.closed == [TOO_MANY_MESSAGES.code]


async def test_a_relay_that_stops_sends_what_is_due_and_says_try_again() -> None:
    """4000 to websockets."""
    async with serving(WebSocket) as setup:
        setup.server.say(**SPY)
        await until(lambda: "SPY" in setup.source.followed, "the subscription")
        setup.source.price("SPY", 1)
        await setup.relay.stop(GUARD_S)
        assert setup.server.seqs == [1]
        assert setup.server.closed == [STOPPING.code]


async def test_a_client_that_was_let_in_before_the_relay_stopped_is_told_too() -> None:
    """A server takes its time for a handshake."""
    relay, server = Relay(Limits()), Server()
    assert relay.enter() is None
    await relay.stop(GUARD_S)
    async with asyncio.timeout(GUARD_S):
        await WebSocket(relay, server.receive, server.send).run()
    assert server.closed == [STOPPING.code]
    assert relay.has_nobody


async def test_event_streams_end_when_the_relay_stops() -> None:
    """With what is due. An EventSource comes again by itself."""
    async with serving(EventStream, "SPY") as setup:
        setup.source.price("SPY", 1)
        await setup.relay.stop(GUARD_S)
        assert b'"seq":1' in setup.server.body
        assert setup.server.sent[-1]["more_body"] is False


async def test_a_relay_that_stops_does_not_wait_for_a_client_that_does_not_read() -> None:
    """It is let go without a goodbye."""
    async with serving(WebSocket) as setup:
        setup.server.reads.clear()
        await setup.relay.stop(0.01)
        await until(setup.served.done, "the end")
        assert setup.server.closed == []


async def test_a_client_that_left_is_forgotten_when_the_server_says_so_to_the_sender() -> None:
    """As uvicorn does."""
    async with serving(WebSocket) as setup:
        await until(lambda: setup.server.sent, "the hello")
        setup.server.broken = True
        setup.server.say(action="ping")
        await until(setup.served.done, "the end")


async def test_whatever_is_sent_has_the_context_of_its_request() -> None:
    """Middleware that wraps ``send`` reads there whose request it is."""
    async with serving(WebSocket) as setup:
        setup.server.say(**SPY)
        await until(lambda: "SPY" in setup.source.followed, "the subscription")
        setup.source.price("SPY", 1)
        await until(lambda: 1 in setup.server.seqs, "the price")
        assert setup.server.requests == {"this one"}


async def test_a_tick_is_as_long_as_sending_needs() -> None:
    """The time of sending counts, beside the time of handing out what is due."""
    async with serving(WebSocket) as setup:
        setup.server.say(**SPY)
        await until(lambda: "SPY" in setup.source.followed, "the subscription")
        assert setup.tick_s == SHORTEST_S

        def sending_takes_long() -> None:
            setup.clock.ahead_s += 0.1

        setup.server.on_send = sending_takes_long
        setup.source.price("SPY", 1)
        await until(lambda: 1 in setup.server.seqs, "the price")
        assert setup.tick_s > LONGEST_S


async def test_what_is_wrong_with_sending_is_raised() -> None:
    """It is a defect of the server, or of what is wrapped around it."""
    setup = Setup(WebSocket, [], Limits())

    def fail() -> None:
        raise RuntimeError("a defect")

    setup.server.on_send = fail
    async with asyncio.timeout(GUARD_S):
        with pytest.raises(RuntimeError, match="a defect"):
            await setup.served
    assert setup.relay.has_nobody
