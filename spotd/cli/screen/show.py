"""Brings a client, the screen and the terminal together, until the user quits.

Talks to Redis by the client. Must not decide what is shown.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack, suppress

from spotd.cli.screen.controls import Action
from spotd.cli.screen.escapes import Painter
from spotd.cli.screen.keys import Keys
from spotd.cli.screen.screen import Screen
from spotd.cli.screen.terminal import Terminal, colours_wanted, glyphs, stderr_afterwards
from spotd.client import Follower, SpotClient
from spotd.models import DaemonStatus, Gap, SpotPriceUpdate, SymbolState
from spotd.symbols import is_symbol

_REFRESH_S = 0.2
_MOST_ROWS = 2_000  # of symbols that nobody named


async def show(
    spot: SpotClient,
    symbols: Sequence[str],
    *,
    everything: bool,
    hints: Sequence[str] = (),
    most_rows: int = _MOST_ROWS,
) -> None:
    """Show prices on the terminal until the user quits, or the terminal is gone.

    The named symbols are demanded by leases. With ``everything``, so are only those that are added
    by key, and what others demand is shown too, up to ``most_rows`` symbols. Raises
    what ends the client, and RedisUnavailableError before there is a screen.
    """
    screen = Screen(hints=hints, glyphs=glyphs())
    watching = _Watching(screen, most_rows)
    # A follower tells the end of a daemon, and nothing where there was none from the start.
    screen.status(await spot.status())
    async with AsyncExitStack() as stack:
        watching.wanted = await stack.enter_async_context(spot.follow(watching))
        watching.seen = await stack.enter_async_context(spot.follow(watching, demand=False))
        watching.add(symbols)
        if everything:
            watching.see(await spot.latest())
            task = asyncio.create_task(_see_everything(spot, watching), name="watch-events")
            task.add_done_callback(lambda _: watching.quit.set())
            stack.push_async_callback(_ended, task)
        stack.enter_context(stderr_afterwards())
        with Terminal(watching.pressed, watching.changed, watching.quit.set) as terminal:
            await watching.paint(terminal)


async def _see_everything(spot: SpotClient, watching: _Watching) -> None:
    """Follow each symbol that the daemon has a state of."""
    async for event in spot.events():
        if isinstance(event, SymbolState):
            watching.found(event)


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


class _Watching:
    """Is told by the client and by the terminal. ``wanted`` demands its symbols."""

    wanted: Follower
    seen: Follower

    def __init__(self, screen: Screen, most_rows: int) -> None:
        self._most_rows = most_rows
        self.quit = asyncio.Event()
        self._screen = screen
        self._painter = Painter(colours=colours_wanted())
        self._keys = Keys()
        self._removed: set[str] = set()
        self._wake_up = asyncio.Event()

    async def paint(self, terminal: Terminal) -> None:
        """Show what changed, several times a second, and at once after a key."""
        while not self.quit.is_set():
            self._wake_up.clear()
            if terminal.ready:  # otherwise it is slow: it gets the newest when it is ready
                width, height = terminal.size
                lines = self._screen.draw(width, height, time.monotonic(), time.time())
                terminal.show(self._painter.paint(lines, width, height))
            with suppress(TimeoutError):
                async with asyncio.timeout(_REFRESH_S):
                    await self._wake_up.wait()
            self.wanted.add()  # raises where a defect has ended the follower

    # The terminal tells

    def pressed(self, data: bytes) -> None:
        """Take what was typed."""
        keys = self._keys.take(data)
        for action in self._screen.press(keys, time.monotonic(), time.time()):
            self._act(action)
        self._wake_up.set()

    def changed(self) -> None:
        """Show everything anew."""
        self._painter.forget()
        self._wake_up.set()

    # The client tells

    def price(self, update: SpotPriceUpdate, raw: bytes) -> None:  # noqa: ARG002 - as told
        """Take a price."""
        self._screen.price(update, time.monotonic())

    def state(self, state: SymbolState, raw: bytes) -> None:  # noqa: ARG002 - as told
        """Take the state of a symbol."""
        self._screen.state(state, time.monotonic())

    def ended(self, symbol: str) -> None:
        """Take note that nobody demands a symbol: what others demanded leaves the screen."""
        if symbol in self.seen.symbols:
            self.seen.remove(symbol)
            self._screen.remove(symbol)

    def gap(self, gap: Gap, raw: bytes) -> None:  # noqa: ARG002 - as told
        """Take a gap."""
        self._screen.gap(gap)

    def status(self, status: DaemonStatus | None, raw: bytes) -> None:  # noqa: ARG002 - as told
        """Take the daemon's status."""
        self._screen.status(status)

    def connection(self, connected: bool, why: str) -> None:
        """Take note that Redis is lost or joined."""
        self._screen.connection(None if connected else why)

    # What follows

    def found(self, state: SymbolState) -> None:
        """Take a state of any symbol or entry that the daemon tells of."""
        symbol = state.symbol
        if state.state == "ended":
            if symbol not in self.wanted.symbols:
                self.seen.remove(*filter(is_symbol, [symbol]))
                self._screen.remove(symbol)
                self._removed.discard(symbol)  # it is new when somebody demands it again
        elif symbol in self._removed:
            return
        elif symbol not in self._screen.rows and len(self._screen.rows) >= self._most_rows:
            self._screen.left_out.add(symbol)
        else:
            self._screen.left_out.discard(symbol)
            self._screen.state(state, time.monotonic())
            if state.state != "refused" and symbol not in self.wanted.symbols:
                self.seen.add(*filter(is_symbol, [symbol]))

    def see(self, symbols: Iterable[str]) -> None:
        """Show symbols that others demand, or did."""
        found = [s for s in filter(is_symbol, symbols) if s not in self.wanted.symbols]
        new = found[: self._most_rows]
        self._screen.left_out.update(found[self._most_rows :])
        self._screen.add(new, time.monotonic())
        self.seen.add(*new)

    def add(self, symbols: Sequence[str]) -> None:
        """Demand symbols, and show them."""
        self._removed.difference_update(symbols)
        self._screen.add(symbols, time.monotonic())
        self.seen.remove(*symbols)
        self.wanted.add(*symbols)

    def _remove(self, symbols: Sequence[str]) -> None:
        self._removed.update(symbols)
        for symbol in symbols:
            self._screen.remove(symbol)
        followed = [symbol for symbol in symbols if is_symbol(symbol)]
        self.wanted.remove(*followed)
        self.seen.remove(*followed)

    def _act(self, action: Action) -> None:
        if action.what == "quit":
            self.quit.set()
        elif action.what == "add":
            self.add(action.symbols)
        elif action.what == "remove":
            self._remove(action.symbols)
        else:
            self.changed()
