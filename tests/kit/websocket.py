"""The server's end of a WebSocket that sends and reads what a test says, step by step.

``websockets`` writes and parses the bytes, without I/O of its own. Only ``gone`` answers pings and
close frames, and what is sent may break the rules.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any

import msgspec
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.server import ServerProtocol

_READ_BYTES = 65_536

Tcp = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def frame(payload: bytes, opcode: Opcode = Opcode.BINARY, *, fin: bool = True) -> bytes:
    """Return a frame as a server sends it, which is unmasked."""
    return Frame(opcode, payload, fin).serialize(mask=False)


def packed(*messages: Mapping[str, Any]) -> bytes:
    """Return messages as one msgpack payload; times as msgspec writes them."""
    return msgspec.msgpack.encode(messages)


def framed(*messages: Mapping[str, Any]) -> bytes:
    """Return messages in msgpack, each in a frame of its own."""
    return b"".join(frame(packed(message)) for message in messages)


class ServerEnd:
    """One connection of a client."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._protocol = ServerProtocol(max_size=None)
        self._events: list[Any] = []  # parsed, but not yet asked for

    async def upgrade(self, behind: bytes = b"", *, extensions: str = "") -> Request:
        """Accept the client's request and return it. ``behind`` goes out in the same packet.

        ``extensions`` is put into the response whether it was offered or not.
        """
        request: Request = await self._next()
        response = self._protocol.accept(request)
        if extensions:
            response.headers["Sec-WebSocket-Extensions"] = extensions
        self._protocol.send_response(response)
        self.write(b"".join(self._protocol.data_to_send()) + behind)
        return request

    async def welcome(self, *, extensions: str = "") -> None:
        """Upgrade, greet and authenticate, as Alpaca does."""
        await self.upgrade(framed({"T": "success", "msg": "connected"}), extensions=extensions)
        await self.read()
        self.say({"T": "success", "msg": "authenticated"})

    async def read(self) -> Frame:
        """Return the client's next frame, unmasked. Raise ConnectionError where it has left."""
        received: Frame = await self._next()
        return received

    async def gone(self) -> None:
        """Answer pings and the close frame, until the client has left."""
        while True:
            self.write(b"".join(self._protocol.data_to_send()))
            data = await self._reader.read(_READ_BYTES)
            if not data:
                return
            self._protocol.receive_data(data)

    def write(self, data: bytes) -> None:
        """Send bytes as they are, in one packet if they fit."""
        self._writer.write(data)

    def say(self, *messages: Mapping[str, Any]) -> None:
        """Send messages, each in a frame of its own, all in one packet if they fit."""
        self.write(framed(*messages))

    def leave(self) -> None:
        """Close the connection without a close frame."""
        self._writer.close()

    async def _next(self) -> Any:
        while not self._events:
            data = await self._reader.read(_READ_BYTES)
            if not data:
                raise ConnectionError("the client has left")
            self._protocol.receive_data(data)
            if self._protocol.parser_exc is not None:
                raise self._protocol.parser_exc  # the client broke the rules
            self._events += self._protocol.events_received()
        return self._events.pop(0)


@asynccontextmanager
async def tcp_server(behave: Tcp, **listening: Any) -> AsyncIterator[int]:
    """Serve each connection of a free port as the test says. Yield the port."""
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


def websocket_server(
    behave: Callable[[ServerEnd], Awaitable[None]],
) -> AbstractAsyncContextManager[int]:
    """Serve each WebSocket of a free port as the test says. Yield the port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await behave(ServerEnd(reader, writer))

    return tcp_server(serve)


def answering(response: bytes) -> Tcp:
    """Behave as a server that reads a request's head, sends these bytes and leaves."""

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(response)
        await writer.drain()
        writer.close()

    return behave
