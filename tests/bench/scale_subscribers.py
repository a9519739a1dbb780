"""Many subscriber connections in one process, which count what they hear.

    python -m tests.bench.scale_subscribers PORT

Orders (see ``orders``): ``connect``, which may come more than once, and ``count``.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import hiredis

from tests.bench.orders import Json, serve
from tests.kit.waiting import until


class _Subscriber(asyncio.Protocol):
    """One connection."""

    def __init__(self) -> None:
        self.heard = 0
        self.subscribed = 0
        self._parser = hiredis.Reader()

    def data_received(self, data: bytes) -> None:
        """Count messages."""
        self._parser.feed(data)
        while (message := self._parser.gets()) is not False:
            if message[0] in (b"message", b"pmessage"):
                self.heard += 1
            else:
                self.subscribed += 1


class Subscribers:
    """All connections to one server."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._all: list[_Subscriber] = []
        self._transports: list[Any] = []
        self._wanted = 0  # subscriptions

    async def connect(self, command: str, channels: list[list[str]]) -> Json:
        """Open a connection for each list of channels, and wait until all are subscribed."""
        loop = asyncio.get_running_loop()
        for names in channels:
            transport, subscriber = await loop.create_connection(
                _Subscriber, "127.0.0.1", self._port
            )
            transport.write(hiredis.pack_command((command, *names)))  # type: ignore[arg-type]
            self._all.append(subscriber)
            self._transports.append(transport)
            self._wanted += len(names)
        await until(self._subscribed, "all subscriptions")
        return {}

    def _subscribed(self) -> bool:
        return sum(subscriber.subscribed for subscriber in self._all) == self._wanted

    async def count(self) -> Json:
        """Return how many messages all of them heard."""
        return {"count": sum(subscriber.heard for subscriber in self._all)}


if __name__ == "__main__":
    subscribers = Subscribers(int(sys.argv[1]))
    asyncio.run(serve({"connect": subscribers.connect, "count": subscribers.count}))
