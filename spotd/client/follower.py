"""Follower: tells a listener prices and states of symbols that come and go.

Wires ``Subscription`` and ``Leases``. Must not talk to Redis itself.
"""

from __future__ import annotations

import asyncio
import logging
from types import TracebackType
from typing import Self

from spotd.client.joins import Reader
from spotd.client.leases import Leases
from spotd.client.listener import FollowerListener
from spotd.client.subscription import Subscription
from spotd.client.symbols import symbols_of
from spotd.models import DaemonStatus

log = logging.getLogger("spotd.client")


class Follower:
    """What ``SpotClient.follow`` returns: a set of symbols that a listener is told about.

    It works from ``async with`` on, and joins by itself, also for the first time: where Redis is
    away, the listener is told so. After its end, or the client's, its calls raise RuntimeError.
    """

    def __init__(
        self, subscription: Subscription, listener: FollowerListener, leases: Leases | None
    ) -> None:
        self._subscription = subscription
        ended = None if leases is None else leases.restore
        self._reader = Reader(listener, self._fail, events=True, ended=ended)
        self._leases = leases
        self._symbols: set[str] = set()
        self._open = False
        self._ended = False
        self._defect: BaseException | None = None
        self._closing = asyncio.Lock()

    async def __aenter__(self) -> Self:
        """Begin to tell the listener."""
        if self._open or self._ended:
            raise RuntimeError("the follower was opened before, or its client is closed")
        self._open = True
        self._subscription.attach(self._reader)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()
        if self._defect is not None and error is None:
            raise self._defect

    async def aclose(self) -> None:
        """Tell the listener nothing more, and remove the leases. May be called twice."""
        self._open, self._ended = False, True
        self._release()
        async with self._closing:
            await self._subscription.detach(self._reader)
            if self._leases is not None:
                await self._leases.settle()

    @property
    def connected(self) -> bool:
        """Return whether the connection to Redis is there and joined."""
        return self._open and self._reader.connected is True

    @property
    def status(self) -> DaemonStatus | None:
        """Return the newest status that was heard; None: no daemon runs, or none was heard yet."""
        return self._reader.daemon

    @property
    def symbols(self) -> frozenset[str]:
        """Return the symbols that are followed."""
        return frozenset(self._symbols)

    def add(self, *symbols: str) -> None:
        """Follow symbols, each once however often it is added. It returns at once.

        Raises ValueError with malformed symbols, and follows none then.
        """
        self._check_open()
        new = [symbol for symbol in symbols_of(symbols) if symbol not in self._symbols]
        if not new:
            return
        self._symbols.update(new)
        if self._leases is not None:
            self._leases.hold(new)
        self._subscription.add(self._reader, new)

    def remove(self, *symbols: str) -> None:
        """Follow symbols no longer, and end their demand. It returns at once.

        The listener is not told anything more of them. Raises ValueError with malformed symbols.
        """
        self._check_open()
        gone = [symbol for symbol in symbols_of(symbols) if symbol in self._symbols]
        if not gone:
            return
        self._symbols.difference_update(gone)
        self._subscription.remove(self._reader, gone)
        if self._leases is not None:
            self._leases.release(gone)

    async def confirm(self, *symbols: str) -> None:
        """Wait until the demand of followed symbols is written to Redis.

        Without demand there is nothing to wait for. Raises RedisUnavailableError where the
        demand could not be written now; it is written later, while the symbols are followed.
        Raises ValueError with malformed symbols, and with those that are not followed.
        """
        self._check_open()
        wanted = symbols_of(symbols)
        others = [symbol for symbol in wanted if symbol not in self._symbols]
        if others:
            raise ValueError(f"not followed: {', '.join(others)}")
        if self._leases is not None:
            await self._leases.confirm(wanted)

    def _check_open(self) -> None:
        if self._defect is not None:
            raise RuntimeError("the follower was ended by a defect") from self._defect
        if not self._open:
            raise RuntimeError("the follower is not open")

    def _fail(self, defect: BaseException) -> None:
        log.error("a follower was ended by a defect", exc_info=defect)
        self._defect = defect
        self._release()
        if self._reader.connected is not False:
            self._reader.connected = False
            self._reader.listener.connection(False, "ended by a defect")

    def _release(self) -> None:
        symbols, self._symbols = self._symbols, set()
        if self._leases is not None:
            self._leases.release(symbols)
