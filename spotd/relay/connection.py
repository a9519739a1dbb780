"""Talks to clients: websockets and event streams, each as one asyncio protocol. Decides nothing.

aiohttp reads the request. Then the connection is taken over from it (``take_over``): its handler
ends, and what is left per client is a transport and one of the classes here. Messages are encoded
once for all clients and written to the transport, at most once per client and tick.

``websockets`` parses what clients send, without I/O, and answers pings and close frames. It is not
asked for messages that the relay sends: those frames are the same for every client.
"""

from __future__ import annotations

import asyncio
import time

from aiohttp import web
from websockets.frames import Frame, Opcode
from websockets.protocol import OPEN, SEND_EOF, SERVER, Protocol

from spotd.models import rfc3339, utc
from spotd.relay.close_codes import INVALID_TEXT, NOT_READING, STOPPING, CloseCode
from spotd.relay.heartbeat import Beat, Heartbeat
from spotd.relay.limits import CLOSE_S
from spotd.relay.relay import Relay
from spotd.relay.session import Answer, Session, subscribe_stream
from spotd.relay.wire import COMMENT, PING_FRAME, Wire, encoded, text_frame

_MOST_UNREAD_BYTES = 65_536  # of answers to a client that does not read; prices never add up


class Connection(asyncio.Protocol):
    """What both kinds have in common: a transport that is written to once per tick."""

    wire: Wire

    def __init__(self, relay: Relay, transport: asyncio.Transport) -> None:
        self._relay = relay
        self._transport = transport
        self._heartbeat = Heartbeat(self.wire, relay.clock())
        self._blocked = False
        self._unread_bytes = 0  # of answers since the client stopped reading
        self.client = relay.join(self.wire, self)

    def start(self) -> None:
        """Take the transport over, and greet the client."""
        # With a limit of 0, asyncio tells at once when the socket takes no more, and when all has
        # left.
        self._transport.set_write_buffer_limits(high=0)
        self._transport.set_protocol(self)
        self._send(encoded(self.wire, "hello", self._relay.hello()))

    # For the relay

    def serve(self, now: float, timestamp: str) -> None:
        """Write what is due, in one piece."""
        waited_s = now - self.client.since
        parts = self._relay.hub.take(self.client, now, timestamp)
        if parts:
            self._send(parts[0] if len(parts) == 1 else b"".join(parts))
            self._relay.metrics.latency.observe(waited_s)

    def beat(self, now: float) -> None:
        """Ping the client, or give it up, where it is time to."""
        beat = self._heartbeat.beat(now)
        if beat is Beat.PING:
            self._ping()
        elif beat is Beat.GIVE_UP:
            self._give_up()

    def stop(self) -> None:
        """Send what is due, and say goodbye."""
        self.serve(self._relay.clock(), rfc3339(utc(time.time())))
        self.goodbye(STOPPING)

    def abort(self) -> None:
        """End the connection at once."""
        self._transport.abort()

    # What differs

    def goodbye(self, code: CloseCode) -> None:
        """End the connection when all is written. The client is told why if it can be."""
        raise NotImplementedError

    def _ping(self) -> None:
        raise NotImplementedError

    # asyncio.Protocol

    def pause_writing(self) -> None:
        """The socket takes no more: the client is passed over until all has left."""
        self._blocked = True
        self._heartbeat.blocked(self._relay.clock())
        self._relay.hub.block(self.client)

    def resume_writing(self) -> None:
        """All has left: the client gets what is newest now."""
        self._blocked = False
        self._unread_bytes = 0
        self._heartbeat.unblocked()
        self._relay.unblock(self.client)

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """Forget the client."""
        self._relay.leave(self.client)

    def _send(self, data: bytes) -> None:
        if not self._transport.is_closing():
            self._relay.metrics.bytes_sent += len(data)
            self._transport.write(data)

    def _answer(self, data: bytes) -> None:
        """Write an answer. A client that goes on asking without reading is given up."""
        if self._blocked and not self._transport.is_closing():
            self._unread_bytes += len(data)
            if self._unread_bytes > _MOST_UNREAD_BYTES:
                self._give_up()
        self._send(data)

    def _give_up(self) -> None:
        """End the connection. What would be written now waits behind what is not read."""
        self._relay.metrics.closed[NOT_READING.code] += 1
        self._transport.abort()

    def _end(self) -> None:
        """Let the client go, and the connection when the client has closed it, or after a while."""
        self._relay.retire(self.client)
        asyncio.get_running_loop().call_later(CLOSE_S, self._transport.abort)


class WebSocket(Connection):
    """A websocket whose handshake is done."""

    wire = Wire.WEBSOCKET

    def __init__(self, relay: Relay, transport: asyncio.Transport) -> None:
        super().__init__(relay, transport)
        self._protocol = Protocol(SERVER, max_size=relay.limits.message_bytes)
        self._session = Session(relay.hub, self.client, relay.limits, relay.clock())
        self._parts: list[Frame] = []  # of a message that comes in several frames

    def data_received(self, data: bytes) -> None:
        """Take in what the client sent."""
        self._heartbeat.heard()
        self._protocol.receive_data(data)
        for frame in self._protocol.events_received():
            if isinstance(frame, Frame) and self._protocol.state is OPEN:
                self._receive(frame)
        self._flush()

    def serve(self, now: float, timestamp: str) -> None:
        """Write what is due, in one piece, unless the connection ends."""
        if self._protocol.state is OPEN:
            super().serve(now, timestamp)

    def goodbye(self, code: CloseCode) -> None:
        """Send a close frame. The client answers with its own, then the connection ends."""
        if self._protocol.state is OPEN:
            self._relay.metrics.closed[code.code] += 1
            self._protocol.send_close(code.code, code.reason)
            self._flush()
            self._end()

    def _ping(self) -> None:
        if self._protocol.state is OPEN:
            self._send(PING_FRAME)

    def _receive(self, frame: Frame) -> None:
        now = self._relay.clock()
        if (refused := self._session.admit(now)) is not None:
            self._follow(refused)
        elif frame.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
            self._parts.append(frame)
            if frame.fin:
                parts, self._parts = self._parts, []
                self._receive_message(parts, now)

    def _receive_message(self, parts: list[Frame], now: float) -> None:
        self._relay.metrics.received += 1
        if parts[0].opcode is Opcode.BINARY:
            self._follow(self._session.receive_binary())
            return
        raw = b"".join(part.data for part in parts)
        try:
            raw.decode()
        except UnicodeDecodeError:  # RFC 6455, section 8.1
            self.goodbye(INVALID_TEXT)
        else:
            self._follow(self._session.receive_text(raw, now))

    def _follow(self, answer: Answer) -> None:
        for message in answer.messages:
            self._answer(text_frame(message))
        self._relay.follow(answer.new)
        if answer.close is not None:
            self.goodbye(answer.close)

    def _flush(self) -> None:
        """Write what the protocol wants written: pongs, close frames, the end."""
        for data in self._protocol.data_to_send():
            if data == SEND_EOF:
                self._note_failure()
                self._transport.close()
                self._end()
            else:
                self._answer(data)

    def _note_failure(self) -> None:
        sent = self._protocol.close_sent
        if sent is not None and self._protocol.close_rcvd is None:
            self._relay.metrics.closed[int(sent.code)] += 1


class EventStream(Connection):
    """Server-sent events, behind the head of the response."""

    wire = Wire.EVENTS

    def subscribe(self, symbols: list[str], max_hz: float | None) -> None:
        """Have the client told of symbols, and at once of those without room."""
        answer = subscribe_stream(
            self._relay.hub, self.client, symbols, max_hz, self._relay.clock(), time.time()
        )
        for message in answer.messages:
            self._answer(encoded(self.wire, "symbol", message))
        self._relay.follow(answer.new)

    def data_received(self, data: bytes) -> None:
        """Ignore what the client sends: the response has no end."""

    def goodbye(self, code: CloseCode) -> None:
        """End the response. An EventSource connects again by itself."""
        self._relay.metrics.closed[code.code] += 1
        self._transport.close()
        self._end()

    def _ping(self) -> None:
        self._send(COMMENT)


class _Behind:
    """Receives what aiohttp has read behind the request."""

    def __init__(self) -> None:
        self.data = b""

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        """Keep it."""
        self.data += data
        return False, b""

    def feed_eof(self) -> None:
        """Nothing: the connection is not ours yet."""


def take_over(request: web.Request) -> tuple[asyncio.Transport, bytes] | None:
    """Take the connection of a request from aiohttp, and what was read behind the request.

    aiohttp then holds it for lost: its handler ends without writing, and it keeps nothing. Return
    None where the client has left.
    """
    handler = request.protocol
    transport = request.transport
    if transport is None or transport.is_closing():
        return None
    behind = _Behind()
    handler.set_parser(behind)  # type: ignore[arg-type]  # it calls nothing but the two methods
    handler.transport = None  # else it would close the transport
    handler.connection_lost(None)
    if not transport.is_reading():
        transport.resume_reading()
    return transport, behind.data
