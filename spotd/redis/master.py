"""The server that takes writes, as one address names it, and all connections to it.

Whoever needs a connection opens it by ``Master.open`` and registers it by ``Master.add``. When the
server turns out to be the wrong one, ``drop`` closes all of them, and whoever used one opens
another, perhaps to another server. redis-py's pool does both (``spotd.redis.connections``); any
other connection may do the same.

Talks to Redis only in order to connect. Must not know what is sent over the connections.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar
from weakref import WeakSet

from redis.exceptions import ConnectionError as RedisConnectionError

from spotd.redis.dial import Address, Connect, Discard, dial
from spotd.redis.tries import TRY_S, Drops

T = TypeVar("T")


class Droppable(Protocol):
    """A connection that can be closed at once."""

    def drop(self) -> None:
        """Close it. What is sent or awaited over it fails with an error of the network."""


class Master:
    """One server at one address, which may be a name that leads to another server one day.

    Without ``port``, ``host`` is the path of a socket. ``try_s`` limits each try to connect, with
    TLS. ``answer_s`` is the limit of each answer that the URL asks for, if any.
    """

    def __init__(
        self, host: str, port: int, *, try_s: float = TRY_S, answer_s: float | None = None
    ) -> None:
        self.try_s = try_s
        self.answer_s = answer_s
        self.address: tuple[str, int] | None = (host, port)  # of the latest connection
        self._named = (host, port)
        self.drops = 0
        self._is_closed = False
        self._wrong = Drops()
        self._connections: WeakSet[Droppable] = WeakSet()
        self._listeners: list[Callable[[str], None]] = []

    async def open(self, connect: Connect[T], discard: Discard[T]) -> T:
        """Return a new connection, made by ``connect``; ``discard`` gets what is not needed.

        Raises OSError, and redis-py's errors.
        """
        host, port = self._named
        if not port:
            return await connect(Address(host, port, host))
        return await dial(host, port, connect, discard, try_s=self.try_s)

    def add(self, connection: Droppable) -> None:
        """Have ``drop`` close this connection too. It is forgotten when nobody holds it."""
        self._connections.add(connection)

    async def verify(self, role: Callable[[], Awaitable[str]]) -> None:
        """Take in a connection that has logged in. ``role`` asks its server for its role.

        Raises redis-py's ConnectionError where the server is known not to take writes.
        """

    def on_drop(self, listener: Callable[[str], None]) -> None:
        """Call ``listener`` after each drop, with a sentence that says why."""
        self._listeners.append(listener)

    def drop(self, why: str) -> None:
        """Close all connections now."""
        self.drops += 1
        for connection in tuple(self._connections):
            connection.drop()
        self._connections.clear()
        for listener in self._listeners:
            listener(why)

    def answered_wrong(self, why: str) -> None:
        """Take in that the server answered as one that takes no writes, and close all, if due."""
        if self._wrong.is_due(asyncio.get_running_loop().time()):
            self.drop(why)

    def check_open(self) -> None:
        """Raise redis-py's ConnectionError after ``aclose``: nobody would close a connection."""
        if self._is_closed:
            raise RedisConnectionError("the client was closed")

    async def aclose(self) -> None:
        """End what was begun here, and open nothing more.

        The connections are closed by whoever opened them, after this.
        """
        self._is_closed = True
