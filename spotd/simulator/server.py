"""The simulator put together: one port for stream and REST, the market, a replay, faults.

Wires the parts and owns their tasks; the parts decide.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import suppress
from ipaddress import ip_address
from typing import Self

from aiohttp import web

from spotd.simulator.changes import Changes
from spotd.simulator.clock import AlpacaClock
from spotd.simulator.connection_slots import ConnectionSlots
from spotd.simulator.delivery import Delivery
from spotd.simulator.journal import Journal, Stats
from spotd.simulator.knobs import Faults, Limits, MarketModel
from spotd.simulator.latest import LatestMessages
from spotd.simulator.market import Market
from spotd.simulator.messages import FEEDS, complete
from spotd.simulator.protocol import Rules
from spotd.simulator.replay import Replay
from spotd.simulator.rest import Rest
from spotd.simulator.session import Ending, Frame, Session
from spotd.simulator.stream import Stream
from spotd.simulator.trading import trade
from spotd.simulator.wire import Message


class Simulator:
    """An Alpaca on this machine.

    `keys` maps each key to its secret, `feeds` are the feeds that the keys are entitled to. Without
    market and replay, it sends only the messages passed to `send`. `limits` and `faults` may be
    changed at any time, and a change takes effect at once.
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
        self.replay = replay
        self.stats = Stats()
        self._changes = Changes()
        self.limits.attach(self._changes)
        self.faults.attach(self._changes)
        self.received = Journal(self._changes)
        rules = Rules(self.keys, self.feeds, self.limits, self.faults, ConnectionSlots())
        self._clock = AlpacaClock(self.faults)
        self._market = Market(market) if market else None
        latest = LatestMessages(self._market)
        self._stream = Stream(rules, self.received, self.stats, self._changes)
        self._rest = Rest(rules, latest, self.received, self.stats, self._changes, self._clock)
        self._delivery = Delivery(
            self._stream.sessions, latest, self.faults, self._changes, market.seed if market else 0
        )
        self._runner: web.AppRunner | None = None
        self._handlers: set[asyncio.Task[object]] = set()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Listen. Afterwards `port` is the port that was chosen.

        Raise `OSError` if the port is taken or the file of the replay cannot be read.
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
            market = trade(self._market, self._delivery, self.faults, self._clock)
            self._spawn(market, "simulator: market")
        if self.replay:
            self._spawn(self.replay.run(self._delivery, self._clock), "simulator: replay")

    async def stop(self) -> None:
        """Close every session with 1001, then stop. Raise what the market or the replay raised."""
        for session in self.sessions:
            session.close(1001)
        with suppress(TimeoutError):
            await self.wait_for(
                lambda: all(one.close_written for one in self.sessions),
                min(1.0, self.limits.close_timeout_s),
            )
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
        """The limits. The parts hold them, so they can be changed but not replaced."""
        return self._limits

    @property
    def faults(self) -> Faults:
        """The faults. The parts hold them, so they can be changed but not replaced."""
        return self._faults

    def stream_url(self, feed: str = "iex") -> str:
        """Return the websocket address of a feed."""
        return f"ws://{_reachable(self.host)}:{self.port}{FEEDS[feed]}"

    @property
    def data_url(self) -> str:
        """The base address of REST."""
        return f"http://{_reachable(self.host)}:{self.port}"

    @property
    def sessions(self) -> list[Session]:
        """The live sessions, oldest first."""
        return list(self._stream.sessions.values())

    async def send(self, messages: Iterable[Message], feed: str | None = None) -> None:
        """Send messages to the sessions subscribed to them, in one frame per session.

        Absent fields are filled in, `t` with the current time. From now on REST answers with these
        messages, also without a subscriber. `feed` limits them to one feed. Raise `ValueError` if a
        message has no type or its time is not a time.
        """
        now_ns = self._clock.wall_ns()
        completed = [complete(each, now_ns) for each in messages]
        self._delivery.deliver(completed, [feed] if feed else list(FEEDS))
        await asyncio.sleep(0)

    async def send_raw(
        self, data: bytes | str, *, binary: bool | None = None, framed: bool = True
    ) -> None:
        """Send any bytes to all sessions: as one frame, or without a frame around them.

        Without `binary`, bytes are sent in a binary frame and a str in a text frame.
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
            session.send_control(message)
        await asyncio.sleep(0)

    async def cut_slow_clients(self) -> None:
        """Treat every client as a slow one: send 407, then end the session."""
        for session in self.sessions:
            session.cut_slow_client()
        await asyncio.sleep(0)

    async def drop_sessions(self, how: Ending = "close", code: int = 1001) -> None:
        """End every session: `close` with a code, TCP reset (`abort`), or end of file (`eof`)."""
        for session in self.sessions:
            session.end(how, code)
        await asyncio.sleep(0)

    async def halt(self, symbol: str) -> None:
        """Halt a symbol: send its status; the market has no quotes of it until `resume`."""
        await self._status(symbol, halted=True)

    async def resume(self, symbol: str) -> None:
        """End a halt: send its status."""
        await self._status(symbol, halted=False)

    async def wait_for(self, condition: Callable[[], object], timeout_s: float = 30.0) -> None:
        """Return once `condition()` is true, checked whenever something was received or sent.

        Raise `TimeoutError` after `timeout_s`, which guards against hanging.
        """
        async with asyncio.timeout(timeout_s):
            await self._changes.until(condition)

    async def drained(self, most_bytes: int = 0) -> None:
        """Wait until no session has more than this many bytes that are not written to it yet."""
        await self._delivery.drained(most_bytes)

    async def replay_done(self) -> None:
        """Wait until the replay has ended."""
        for task in self._tasks:
            if task.get_name() == "simulator: replay":
                await asyncio.shield(task)

    async def failed(self) -> None:
        """Raise what the market or the replay raises; never return."""
        await asyncio.gather(*map(asyncio.shield, self._tasks))
        await asyncio.Event().wait()

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

    async def _status(self, symbol: str, *, halted: bool) -> None:
        market = self._market or Market(MarketModel())
        status = market.instrument(symbol).status(halted=halted, now_ns=self._clock.wall_ns())
        await self.send([status])


def _reachable(host: str) -> str:
    """Return a host as it is written in a URL; for a wildcard address, the loopback address."""
    try:
        address = ip_address(host)
    except ValueError:
        return host
    if address.is_unspecified:
        address = ip_address("127.0.0.1" if address.version == 4 else "::1")
    return str(address) if address.version == 4 else f"[{address}]"
