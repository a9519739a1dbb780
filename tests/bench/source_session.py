"""Alpaca's side of one stream connection, as far as a measurement needs it. Sends no data itself.

Greeting, authentication with any keys, additive subscriptions acknowledged with the whole list, and
fragmented messages.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any, cast

import msgpack
import picows

_CHANNELS = (
    "trades",
    "quotes",
    "bars",
    "updatedBars",
    "dailyBars",
    "statuses",
    "lulds",
    "corrections",
    "cancelErrors",
)
_PARTS = (picows.WSMsgType.TEXT, picows.WSMsgType.BINARY, picows.WSMsgType.CONTINUATION)


class Session(picows.WSListener):
    """One client, known by the last part of the path it connected to."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.subscribed: dict[str, dict[str, None]] = {channel: {} for channel in _CHANNELS}
        self.first_subscribe_at: float | None = None  # monotonic seconds
        self.acknowledged_at = 0.0
        self.open = False
        self._transport: picows.WSTransport | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        self._answered = asyncio.Event()  # our ping
        self._parts: list[bytes] = []

    # For who sends data

    async def write(self, frames: memoryview) -> None:
        """Send whole frames, and wait until the client took them in, but for the system's part."""
        if self._transport is None or not self.open:
            raise ConnectionError(f"{self.name} is not connected")
        self._transport.underlying_transport.write(frames)
        if not self._writable.is_set():
            async with asyncio.timeout(60):
                await self._writable.wait()

    async def ping(self) -> None:
        """Wait for the answer to a ping, which comes after all that was sent before."""
        if self._transport is None:
            raise ConnectionError(f"{self.name} is not connected")
        self._answered.clear()
        self._transport.send_ping()
        async with asyncio.timeout(60):
            await self._answered.wait()

    # What picows calls

    def on_ws_connected(self, transport: picows.WSTransport) -> None:
        """Greet."""
        self._transport = transport
        self.open = True
        # Nothing is kept in this process: what the system does not take at once pauses the source.
        transport.underlying_transport.set_write_buffer_limits(high=0)
        self._say({"T": "success", "msg": "connected"})

    def on_ws_disconnected(self, transport: picows.WSTransport) -> None:
        """The client is gone."""
        self.open = False
        self._writable.set()

    def pause_writing(self) -> None:
        """The client does not read as fast as we send."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """It has caught up."""
        self._writable.set()

    def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        """Put fragments together; answer a close frame; note a pong."""
        if frame.msg_type is picows.WSMsgType.CLOSE:
            transport.send_close(picows.WSCloseCode.OK)
            transport.disconnect()
        elif frame.msg_type is picows.WSMsgType.PONG:
            self._answered.set()
        elif frame.msg_type in _PARTS:
            self._parts.append(frame.get_payload_as_bytes())
            if frame.fin:
                message = b"".join(self._parts)
                self._parts.clear()
                self._hear(cast(dict[str, Any], msgpack.unpackb(message)))

    # The protocol

    def _hear(self, message: dict[str, Any]) -> None:
        action = message["action"]
        if action == "auth":
            self._say({"T": "success", "msg": "authenticated"})
            return
        if action == "subscribe" and self.first_subscribe_at is None:
            self.first_subscribe_at = time.monotonic()
        for channel, held in self.subscribed.items():
            names = message.get(channel, ())
            if action == "subscribe":
                held.update(dict.fromkeys(names))
            else:
                for name in names:
                    held.pop(name, None)
        for mirror in ("corrections", "cancelErrors"):
            self.subscribed[mirror] = self.subscribed["trades"]
        self._say(
            {"T": "subscription", **{name: list(held) for name, held in self.subscribed.items()}}
        )
        self.acknowledged_at = time.monotonic()

    def _say(self, message: dict[str, Any]) -> None:
        if self._transport is not None:
            self._transport.send(picows.WSMsgType.BINARY, msgpack.packb([message]))
