"""A TCP proxy that cuts connections on which nothing passes, as load balancers and NATs do."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Self

from tests.kit.websocket import tcp_server


class IdleProxy:
    """Carry bytes both ways. ``port`` is its own; ``cuts`` are the connections it cut up to now."""

    def __init__(self, target_port: int, idle_s: float) -> None:
        self.port = 0
        self.connections = 0
        self.cuts = 0
        self._target_port = target_port
        self._idle_s = idle_s

    @classmethod
    @asynccontextmanager
    async def to(cls, target_port: int, *, idle_s: float) -> AsyncIterator[Self]:
        """Listen on a free port, and cut each connection that was idle for ``idle_s``."""
        proxy = cls(target_port, idle_s)
        async with tcp_server(proxy.carry) as proxy.port:
            yield proxy

    async def carry(self, client: asyncio.StreamReader, answers: asyncio.StreamWriter) -> None:
        """Serve one connection of the client until either side ends it, or it is idle."""
        self.connections += 1
        server, requests = await asyncio.open_connection("127.0.0.1", self._target_port)
        passed_at = time.monotonic()

        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            nonlocal passed_at
            while data := await source.read(1 << 16):
                passed_at = time.monotonic()
                sink.write(data)
                await sink.drain()

        pumps = [
            asyncio.create_task(pump(client, requests), name="requests"),
            asyncio.create_task(pump(server, answers), name="answers"),
        ]
        try:
            while (left_s := passed_at + self._idle_s - time.monotonic()) > 0:
                ended, _ = await asyncio.wait(
                    pumps, timeout=left_s, return_when=asyncio.FIRST_COMPLETED
                )
                if ended:
                    return
            self.cuts += 1
        finally:
            for task in pumps:
                task.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            for writer in (requests, answers):
                writer.transport.abort()
