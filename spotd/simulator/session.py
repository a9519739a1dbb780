"""One websocket session: the frames that wait to be written, and the ways in which it ends.

Talks to the socket. `protocol` decides what is answered, `delivery` which data is sent.
"""

import asyncio
import socket
import struct
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from aiohttp import WSMsgType, web

from spotd.simulator.changes import Changes
from spotd.simulator.journal import Stats
from spotd.simulator.knobs import Faults, Limits
from spotd.simulator.messages import error
from spotd.simulator.protocol import Conversation
from spotd.simulator.wire import Encoding, Message, encode

Ending: TypeAlias = Literal["close", "abort", "eof"]

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
_DRIP_S = 0.02


@dataclass(frozen=True, slots=True)
class Frame:
    """A payload ready to be written. Sessions with the same subscriptions share it."""

    payload: bytes
    text: bool
    quotes: int = 0
    trades: int = 0
    messages: int = 0
    """Data messages in it; 0 for control messages and garbage."""
    closing: bool = False
    """A close frame, after which nothing is written."""


class Session:
    """A live session. Senders queue frames without waiting; one task writes them."""

    def __init__(
        self,
        ws: web.WebSocketResponse,
        transport: asyncio.Transport,
        conversation: Conversation,
        encoding: Encoding,
        *,
        faults: Faults,
        limits: Limits,
        stats: Stats,
        changes: Changes,
    ) -> None:
        self.id = conversation.session
        self.ws = ws
        self.conversation = conversation
        self.encoding = encoding
        self.received_at = time.monotonic()
        """When the client last sent anything."""
        self.data_messages = 0
        self.closing = False
        """No more frames are queued; those that wait are still written."""
        self.close_written = False
        """The close frame is written, or never will be."""
        self._transport = transport
        self._faults, self._limits = faults, limits
        self._stats, self._changes = stats, changes
        self._outbox: deque[Frame] = deque()
        self._waiting_bytes = 0
        self._queued = asyncio.Event()
        self._timers: list[asyncio.TimerHandle] = []
        self._backlog: deque[tuple[float, Frame]] = deque()  # with the loop's time when each is due

    @property
    def feed(self) -> str:
        """The feed of its endpoint."""
        return self.conversation.feed

    @property
    def authenticated(self) -> bool:
        """Whether the client is authenticated and may subscribe."""
        return self.conversation.authenticated

    @property
    def quotes(self) -> set[str]:
        """Symbols whose quotes it receives."""
        return self.conversation.channels["quotes"]

    @property
    def trades(self) -> set[str]:
        """Symbols whose trades it receives."""
        return self.conversation.channels["trades"]

    @property
    def statuses(self) -> set[str]:
        """Symbols whose halts and resumptions it receives; may hold `*`."""
        return self.conversation.channels["statuses"]

    @property
    def queued_bytes(self) -> int:
        """Bytes of the frames that are not written to the connection yet."""
        return self._waiting_bytes

    @property
    def waiting_bytes(self) -> int:
        """Bytes that wait for the client, without those that the operating system holds."""
        return self._waiting_bytes + self._transport.get_write_buffer_size()

    def send_control(self, *messages: Message) -> None:
        """Send control messages, each alone in its frame as Alpaca does."""
        text = self.encoding == "json"
        for message in messages:
            self.offer(Frame(encode([message], self.encoding), text))

    def offer(self, frame: Frame) -> None:
        """Queue a frame. Cut a client for which more bytes wait than the limit allows."""
        if self.closing:
            return
        self._outbox.append(frame)
        self._waiting_bytes += len(frame.payload)
        self._queued.set()
        if self.waiting_bytes > self._limits.out_buffer_bytes:
            self.cut_slow_client()

    def offer_late(self, frame: Frame, delay_s: float) -> None:
        """Queue a frame after `delay_s`, and after all that is delayed already."""
        if not (delay_s or self._backlog):
            self.offer(frame)
            return
        loop = asyncio.get_running_loop()
        due = loop.time() + delay_s
        if self._backlog:
            due = max(due, self._backlog[-1][0])
        self._backlog.append((due, frame))
        if len(self._backlog) == 1:
            loop.call_at(due, self._offer_due)

    def _offer_due(self) -> None:
        loop = asyncio.get_running_loop()
        while self._backlog and self._backlog[0][0] <= loop.time():
            self.offer(self._backlog.popleft()[1])
        if self._backlog:
            loop.call_at(self._backlog[0][0], self._offer_due)

    def cut_slow_client(self) -> None:
        """Drop the queued frames, send 407 unless a fault says otherwise, and end the session."""
        self._stats.slow_clients += 1
        self._outbox.clear()
        if not self._faults.slow_client_silent:
            self._outbox.append(Frame(encode([error(407)], self.encoding), self.encoding == "json"))
        self._waiting_bytes = sum(len(frame.payload) for frame in self._outbox)
        self.close(1008)

    def close(self, code: int = 1000) -> None:
        """Write the queued frames, then a close frame. Cut the connection if no answer comes."""
        if self.closing:
            return
        if code == 1006:
            self.end("abort")
            return
        self.closing = True
        self._outbox.append(Frame(struct.pack(">H", code), text=False, closing=True))
        self._queued.set()
        self.after(self._limits.close_timeout_s, self._transport.abort)

    def answer_close(self, code: int) -> None:
        """Drop the queued frames and answer the close frame of the client."""
        if not self.closing:
            self._outbox.clear()
            self.close(code)

    def end(self, how: Ending, code: int = 1001) -> None:
        """End the session: by a close frame, a TCP reset (`abort`) or an end of file (`eof`)."""
        if how == "close":
            self.close(code)
            return
        self.closing = True
        self._outbox.clear()
        if how == "abort":
            raw: socket.socket | None = self._transport.get_extra_info("socket")
            if raw is not None:
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self._transport.abort()

    def after(self, delay_s: float, act: Callable[[], object]) -> None:
        """Call `act` after a delay, unless the session is over by then."""
        loop = asyncio.get_running_loop()
        self._timers.append(loop.call_later(delay_s, act))

    def release(self) -> None:
        """Cancel the timers of a session that is over, and drop its queued frames."""
        self.closing = True
        for timer in self._timers:
            timer.cancel()
        self._backlog.clear()
        self._outbox.clear()
        self._waiting_bytes = 0

    async def write(self) -> None:
        """Write the queued frames in order, until cancelled or until the connection is gone."""
        try:
            while True:
                while not self._outbox:
                    self._queued.clear()
                    await self._queued.wait()
                await self._changes.until(lambda: not self._faults.half_open)
                if self._outbox:  # empty if the session was cut meanwhile
                    await self._write(self._outbox.popleft())
        finally:  # the connection is gone: a close frame can no longer be written
            self._close_is_written()

    async def _write(self, frame: Frame) -> None:
        if frame.closing:
            await self.ws.send_frame(frame.payload, WSMsgType.CLOSE)
            self._close_is_written()
            return
        if self._faults.drip_bytes_per_s:
            await self._drip(frame)
        else:
            kind = WSMsgType.TEXT if frame.text else WSMsgType.BINARY
            await self.ws.send_frame(frame.payload, kind)
        self._count(frame)

    def _close_is_written(self) -> None:
        self.close_written = True
        self._changes.wake_up()

    def _count(self, frame: Frame) -> None:
        self._waiting_bytes = max(0, self._waiting_bytes - len(frame.payload))
        stats = self._stats
        stats.frames_sent += 1
        stats.quotes_sent += frame.quotes
        stats.trades_sent += frame.trades
        stats.messages_sent += frame.messages
        self.data_messages += frame.messages
        limit = self._faults.close_after_messages
        if limit and self.data_messages >= limit:
            self._outbox.clear()
            self.close(self._faults.close_code)
        self._changes.wake_up()

    async def _drip(self, frame: Frame) -> None:
        """Write one uncompressed frame, piece by piece."""
        data = memoryview(_header(frame) + frame.payload)
        while data:
            bytes_per_s = self._faults.drip_bytes_per_s
            piece = max(1, int(bytes_per_s * _DRIP_S)) if bytes_per_s else len(data)
            self._transport.write(data[:piece])
            data = data[piece:]
            await asyncio.sleep(max(_DRIP_S, 1 / bytes_per_s) if bytes_per_s else 0)

    def write_raw(self, data: bytes) -> None:
        """Write bytes to the connection without a frame around them."""
        self._transport.write(data)


def _header(frame: Frame) -> bytes:
    """Return the header of a final, uncompressed frame of a server (RFC 6455, section 5.2)."""
    first = 0x80 | (WSMsgType.TEXT if frame.text else WSMsgType.BINARY)
    size = len(frame.payload)
    if size < 126:
        return struct.pack(">BB", first, size)
    if size < 65_536:
        return struct.pack(">BBH", first, 126, size)
    return struct.pack(">BBQ", first, 127, size)
