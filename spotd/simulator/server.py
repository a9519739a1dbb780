"""The simulator put together: one port for the stream and REST, market, replay, faults.

Wires the parts and owns their tasks; what is decided is decided in them.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import suppress
from ipaddress import ip_address
from typing import Self

from aiohttp import web

from spotd.simulator.bell import Bell
from spotd.simulator.board import Board
from spotd.simulator.delivery import Delivery
from spotd.simulator.journal import Journal, Stats
from spotd.simulator.knobs import Faults, Limits
from spotd.simulator.market import Market
from spotd.simulator.messages import FEEDS, complete
from spotd.simulator.model import MarketModel
from spotd.simulator.protocol import Rules
from spotd.simulator.replay import Replay
from spotd.simulator.rest import Rest
from spotd.simulator.seats import Seats
from spotd.simulator.session import Ending, Frame, Session
from spotd.simulator.stream import Stream
from spotd.simulator.wire import Message

_LONGEST_TICK_S = 0.25  # a market that was held up does not make up for more than this


class Simulator:
    """An Alpaca on this machine.

    `feeds` are those the keys are entitled to; `keys` maps each key to its secret. Without
    market and replay, nothing is sent but what `send` is given.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        keys: Mapping[str, str] | None = None,
        feeds: Sequence[str] = tuple(FEEDS),
        limits: Limits | None = None,
        faults: Faults | None = None,
        market: MarketModel | None = None,
        replay: Replay | None = None,
    ) -> None:
        if unknown := set(feeds) - set(FEEDS):
            raise ValueError(f"unknown feeds: {', '.join(sorted(unknown))}")
        self.host = host
        self.port = port
        self.keys = {"demo-key": "demo-secret"} if keys is None else dict(keys)
        self.feeds = tuple(feeds)
        self._limits = limits or Limits()
        self._faults = faults or Faults()
        self.model = market
        self.replay = replay
        self.stats = Stats()
        self._bell = Bell()
        self.limits.attach(self._bell)
        self.faults.attach(self._bell)
        self.received = Journal(self._bell)
        rules = Rules(self.keys, self.feeds, self.limits, self.faults, Seats())
        self._stream = Stream(rules, self.received, self.stats, self._bell)
        self._rest = Rest(rules, self._latest, self.received, self.stats, self._bell)
        self._market = Market(market) if market else None
        self._board = Board()
        self._delivery = Delivery(self.faults, market.seed if market else 0)
        self._runner: web.AppRunner | None = None
        self._handlers: set[asyncio.Task[object]] = set()
        self._tasks: list[asyncio.Task[None]] = []
        self._demands: dict[str, tuple[object, frozenset[str]]] = {}

    async def start(self) -> None:
        """Listen; afterwards `port` is the real one.

        `OSError` when the port is taken or the replay's file cannot be read.
        """
        if self.replay:
            self.replay.check()
        app = web.Application()
        self._rest.add_to(app)
        for feed, path in FEEDS.items():
            app.router.add_get(path, self._endpoint(feed))
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, self.host, self.port).start()
        except OSError:
            await self._runner.cleanup()
            raise
        self.port = self._runner.addresses[0][1]
        if self._market:
            self._spawn(self._trade(self._market), "simulator: market")
        if self.replay:
            self._spawn(self.replay.run(self), "simulator: replay")

    async def stop(self) -> None:
        """Close every session with 1001, then everything else. A part that failed raises here."""
        for session in self.sessions:
            session.close(1001)
        await self._wait_briefly(lambda: all(one.farewell for one in self.sessions))
        tasks, self._tasks = self._tasks, []
        for task in (*tasks, *self._handlers):
            task.cancel()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*self._handlers, return_exceptions=True)
        if self._runner:
            await self._runner.cleanup()
            self._runner = None
        for end in ends:
            if isinstance(end, Exception):
                raise end

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self.stop()

    @property
    def limits(self) -> Limits:
        """The limits; turn the knobs, they act at once."""
        return self._limits

    @property
    def faults(self) -> Faults:
        """The faults; turn the knobs, they act at once."""
        return self._faults

    # where it is

    def stream_url(self, feed: str = "iex") -> str:
        """The websocket address of a feed."""
        return f"ws://{_reachable(self.host)}:{self.port}{FEEDS[feed]}"

    @property
    def data_url(self) -> str:
        """The base address of REST."""
        return f"http://{_reachable(self.host)}:{self.port}"

    @property
    def sessions(self) -> list[Session]:
        """The live sessions, oldest first."""
        return list(self._stream.sessions.values())

    # what tests do

    async def send(self, messages: Iterable[Message], feed: str | None = None) -> None:
        """Send messages to all sessions subscribed to them, in one frame per session.

        Absent fields are filled in, `t` with now. They are what REST answers with from now on,
        also when nobody is subscribed. `feed` limits them to one feed.
        """
        now_ns = time.time_ns()
        completed = [complete(each, now_ns) for each in messages]
        self._publish(completed, [feed] if feed else list(FEEDS), per_frame=0)
        await asyncio.sleep(0)

    async def send_raw(
        self, data: bytes | str, *, binary: bool | None = None, framed: bool = True
    ) -> None:
        """Send anything to all sessions: as one frame, or straight onto the connection.

        `binary` says the kind of frame; absent, bytes are binary and a str is text.
        """
        payload = data.encode() if isinstance(data, str) else data
        text = isinstance(data, str) if binary is None else not binary
        for session in self.sessions:
            if framed:
                session.offer(Frame(payload, text))
            else:
                session.write_raw(payload)
        await asyncio.sleep(0)

    async def send_control(self, message: Message) -> None:
        """Send a control message, such as an error, alone in its frame, to all sessions."""
        for session in self.sessions:
            session.tell(message)
        await asyncio.sleep(0)

    async def cut_slow_clients(self) -> None:
        """Treat every client as a slow one: 407, then the end."""
        for session in self.sessions:
            session.cut_slow_client()
        await asyncio.sleep(0)

    async def drop_sessions(self, how: Ending = "close", code: int = 1001) -> None:
        """End every session: `close` with a code, TCP reset (`abort`) or an `eof` unannounced."""
        for session in self.sessions:
            session.end(how, code)
        await asyncio.sleep(0)

    async def halt(self, symbol: str) -> None:
        """Halt a symbol: a status message, and the market has no quotes of it until `resume`."""
        await self._status(symbol, halted=True)

    async def resume(self, symbol: str) -> None:
        """End a halt, with a status message."""
        await self._status(symbol, halted=False)

    async def wait_for(self, condition: Callable[[], object], timeout_s: float = 5.0) -> None:
        """Return once `condition()` is true, looked at whenever something came in or went out.

        `TimeoutError` when it does not become true in time.
        """
        await self.received.wait_for(condition, timeout_s)

    async def drained(self, most_bytes: int = 0) -> None:
        """Wait until no session has more than this many bytes not yet written to it."""
        await self._bell.until(
            lambda: all(one.queued_bytes <= most_bytes or one.closing for one in self.sessions)
        )

    async def replay_done(self) -> None:
        """Wait for the replay to end."""
        for task in self._tasks:
            if task.get_name() == "simulator: replay":
                await asyncio.shield(task)

    async def failed(self) -> None:
        """Wait for the market or the replay to fail, and raise what it failed with."""
        await asyncio.gather(*map(asyncio.shield, self._tasks))
        await asyncio.Event().wait()

    # the stage of a replay

    def play(self, messages: list[Message], per_frame: int) -> None:
        """Send messages that are complete, at most so many in a frame."""
        self._publish(messages, list(FEEDS), per_frame)

    def wanted(self, symbols: frozenset[str]) -> bool:
        """Whether any session is subscribed to one of the symbols."""
        return any(
            not self._demand(feed).isdisjoint(symbols | {"*"}) for feed in self._live_feeds()
        )

    def ring(self) -> None:
        """Make whoever waits for a condition look at it again."""
        self._bell.ring()

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait for a condition, looked at whenever something came in or went out."""
        await self._bell.until(condition)

    # inside

    def _endpoint(self, feed: str) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def serve(request: web.Request) -> web.StreamResponse:
            task: asyncio.Task[object] | None = asyncio.current_task()
            if task is not None:
                self._handlers.add(task)
                task.add_done_callback(self._handlers.discard)
            return await self._stream.serve(request, feed)

        return serve

    def _spawn(self, work: Coroutine[object, object, None], name: str) -> None:
        self._tasks.append(asyncio.create_task(work, name=name))

    def _publish(self, messages: list[Message], feeds: list[str], per_frame: int) -> None:
        self._board.remember(feeds, messages)
        sessions = [one for one in self.sessions if one.feed in feeds]
        self._delivery.deliver(sessions, messages, per_frame)

    def _latest(self, feed: str, kind: str, symbol: str) -> Message | None:
        """What REST answers: the latest that was sent; the market has an answer for any symbol."""
        known = self._board.latest(feed, kind, symbol)
        if known is not None or self._market is None:
            return known
        instrument, now_ns = self._market.instrument(symbol), time.time_ns()
        match kind:
            case "q":
                return instrument.quote(feed, now_ns, 0.0)
            case "t":
                return instrument.trade(feed, now_ns)
            case _:
                return instrument.bar(kind, now_ns)

    async def _status(self, symbol: str, *, halted: bool) -> None:
        market = self._market or Market(MarketModel())
        status = market.instrument(symbol).status(halted=halted, now_ns=time.time_ns())
        await self.send([status])

    def _live_feeds(self) -> set[str]:
        return {one.feed for one in self.sessions if one.authenticated}

    def _demand(self, feed: str) -> frozenset[str]:
        """Symbols whose prices are subscribed to on a feed; the same object until that changes."""
        routes = [one.conversation.route for one in self.sessions if one.feed == feed]
        known = self._demands.get(feed)
        if known is not None and known[0] == routes:
            return known[1]
        symbols = frozenset().union(*(route.priced for route in routes))
        self._demands[feed] = (routes, symbols)
        return symbols

    async def _trade(self, market: Market) -> None:
        """Let the market go on, tick by tick."""
        before = time.monotonic()
        while True:
            await asyncio.sleep(market.model.tick_s)
            now = time.monotonic()
            dt_s, before = min(now - before, _LONGEST_TICK_S), now
            if self.faults.market_closed:
                continue
            for feed in self._live_feeds():
                messages = market.tick(feed, self._demand(feed), dt_s, time.time_ns())
                if messages:
                    self._publish(messages, [feed], market.model.quotes_per_frame)

    async def _wait_briefly(self, condition: Callable[[], object]) -> None:
        with suppress(TimeoutError):
            await self.received.wait_for(condition, min(1.0, self.limits.close_timeout_s))


def _reachable(host: str) -> str:
    """A host as it stands in a URL; listening everywhere is named by its loopback address."""
    try:
        address = ip_address(host)
    except ValueError:
        return host
    if address.is_unspecified:
        address = ip_address("127.0.0.1" if address.version == 4 else "::1")
    return str(address) if address.version == 4 else f"[{address}]"
