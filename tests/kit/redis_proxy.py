"""A way to a server that can be slow, swallow what passes, hold commands back, and end scans early.

The parts under test stay as they are: what happens to them is what a network and a fail-over do.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Self

from tests.kit.servers import Server
from tests.kit.websocket import tcp_server

_END_OF_SCAN = b"*2\r\n$1\r\n0\r\n*0\r\n"


class RedisProxy:
    """Carry commands to a server. ``url`` is its address in place of the server's."""

    def __init__(self, server_port: int) -> None:
        self.url = ""
        self.port = 0
        # Scans end after their first part without an error, as at a server whose hash table has
        # another order than that of the server where they began.
        self.cuts_scans = False
        self.scans_cut = 0
        self.delay_s = 0.0  # of each answer
        self.swallows = False  # connections stay, and nothing passes
        self.swallowed = 0  # requests that did not pass, in pieces as they arrived
        self.passed = 0  # those that did
        self.held = 0  # commands held back up to now
        self._server_port = server_port
        self._holds: bytes | None = None
        self._released = asyncio.Event()

    def lead_to(self, server: Server) -> None:
        """Carry new connections to another server. Those that are open stay where they are."""
        self._server_port = server.port

    def hold(self, command: str) -> None:
        """Hold back every command of this name, until ``release``."""
        self._holds = command.encode()
        self._released.clear()

    def release(self) -> None:
        """Carry what was held back, and hold nothing more."""
        self._holds = None
        self._released.set()

    async def carry(self, client: asyncio.StreamReader, answers: asyncio.StreamWriter) -> None:
        """Serve one connection of the client until either side ends it."""
        server, requests = await asyncio.open_connection("127.0.0.1", self._server_port)
        back = asyncio.create_task(self._pump(server, answers), name="answers")
        try:
            # redis-py awaits each answer. As a consequence, what is read here at once holds one
            # command, behind those that open a connection. A large command takes several reads.
            while data := await client.read(1 << 20):
                if self.swallows:
                    self.swallowed += 1
                    continue
                words = data.split(b"\r\n")
                if self.cuts_scans and words[2:3] in ([b"SSCAN"], [b"ZSCAN"]) and words[6] != b"0":
                    self.scans_cut += 1
                    answers.write(_END_OF_SCAN)
                    continue
                if self._holds in words:
                    self.held += 1
                    await self._released.wait()
                self.passed += 1
                requests.write(data)
        finally:
            requests.close()
            back.cancel()
            await asyncio.gather(back, return_exceptions=True)

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        try:
            while data := await source.read(1 << 16):
                if not self.swallows:
                    loop.call_later(self.delay_s, sink.write, data)
        finally:
            loop.call_later(self.delay_s, sink.close)

    @classmethod
    @asynccontextmanager
    async def to(cls, server: Server) -> AsyncIterator[Self]:
        """Listen on a free port."""
        proxy = cls(server.port)
        async with tcp_server(proxy.carry) as proxy.port:
            proxy.url = f"redis://127.0.0.1:{proxy.port}/0"
            try:
                yield proxy
            finally:
                proxy.release()
