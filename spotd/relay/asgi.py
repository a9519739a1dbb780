"""Talks ASGI to clients: websockets and event streams. Decides nothing, and knows no framework.

An ASGI application cannot write to transports. So a task of its own sends what a tick hands out to
a client, and until that is sent the client is passed over. Its server pings websockets.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from contextvars import copy_context
from typing import Any, TypeAlias

from spotd.models import rfc3339, utc
from spotd.relay.close_codes import NOT_READING, STOPPING, TOO_LARGE, CloseCode
from spotd.relay.heartbeat import Beat, Heartbeat
from spotd.relay.limits import CLOSE_S
from spotd.relay.relay import Relay
from spotd.relay.session import Answer, Session, subscribe_stream
from spotd.relay.wire import COMMENT, Wire, encoded

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]


class Stream:
    """What both kinds have in common: one client that has entered the relay, until it is let go."""

    wire: Wire

    def __init__(self, relay: Relay, receive: Receive, send: Send) -> None:
        self._relay = relay
        self._receive = receive
        self._send = send
        self._heartbeat = Heartbeat(self.wire, relay.clock())
        self._outgoing = [encoded(self.wire, "hello", relay.hello())]
        self._due_since: float | None = None  # of what the hub handed out
        self._closing: CloseCode | None = None
        self._end_at: float | None = None  # by the event loop's time
        self._life: asyncio.Timeout | None = None  # while it is served
        self._sending: asyncio.Task[None] | None = None
        self._context = copy_context()  # of the request: middleware may need it to send
        self.client = relay.join(self.wire, self)

    async def run(self) -> None:
        """Serve the client until it leaves, or the relay lets it go."""
        if self._relay.stops:  # it began to while the server answered the handshake
            self.goodbye(STOPPING)
        try:
            async with asyncio.timeout_at(self._end_at) as self._life:
                self._send_soon()
                await self._receive_all()
        except TimeoutError:
            pass  # the client was let go
        finally:
            self._life = None
            self._relay.leave(self.client)
            await self._end_sending()

    # For the relay

    def serve(self, now: float, timestamp: str) -> None:
        """Hand what is due to the task that sends."""
        since = self.client.since
        parts = self._relay.hub.take(self.client, now, timestamp)
        if parts:
            self._outgoing += parts
            self._due_since = since
            self._relay.hub.block(self.client)
            self._send_soon()

    def beat(self, now: float) -> None:
        """Show an event stream that it lives, or give the client up, where it is time to."""
        if self._closing is not None:
            return
        beat = self._heartbeat.beat(now)
        if beat is Beat.PING:
            self._ping()
        elif beat is Beat.GIVE_UP:
            self._relay.metrics.closed[NOT_READING.code] += 1
            self.abort()

    def stop(self) -> None:
        """Send what is due, and say goodbye."""
        self.serve(self._relay.clock(), rfc3339(utc(time.time())))
        self.goodbye(STOPPING)

    def goodbye(self, code: CloseCode) -> None:
        """End the connection when all is sent, or after a while."""
        if self._closing is None:
            self._relay.metrics.closed[code.code] += 1
            self._closing = code
            self._relay.retire(self.client)
            self._end_in(CLOSE_S)
            self._send_soon()

    def abort(self) -> None:
        """End the connection at once. How, is up to the server."""
        self._end_in(0.0)

    # What differs

    async def _receive_all(self) -> None:
        """Take in what the client sends. Return when it has left."""
        raise NotImplementedError

    async def _deliver(self, parts: list[bytes]) -> None:
        raise NotImplementedError

    async def _say_goodbye(self, code: CloseCode) -> None:
        raise NotImplementedError

    def _ping(self) -> None:
        """Show that the stream lives."""

    # Within

    def _end_in(self, limit_s: float) -> None:
        self._end_at = asyncio.get_running_loop().time() + limit_s
        # One that has expired cannot be set again: the end is under way.
        if self._life is not None and not self._life.expired():
            self._life.reschedule(self._end_at)

    def _send_soon(self) -> None:
        """Send what waits, unless a task does that already, or the client is gone."""
        if self._life is not None and (self._sending is None or self._sending.done()):
            self._sending = asyncio.get_running_loop().create_task(
                self._send_all(), name="relay-send", context=self._context
            )

    async def _send_all(self) -> None:
        relay = self._relay
        try:
            while self._outgoing:
                parts, self._outgoing = self._outgoing, []
                since, self._due_since = self._due_since, None
                self._heartbeat.blocked(relay.clock())
                await self._deliver(parts)
                self._heartbeat.unblocked()
                relay.metrics.bytes_sent += sum(map(len, parts))
                if since is not None:
                    relay.metrics.latency.observe(relay.clock() - since)
                    relay.unblock(self.client)
            if self._closing is not None:
                await self._say_goodbye(self._closing)
                self.abort()
        except BaseException:  # the server raises it since the client has left
            self.abort()
            raise

    async def _end_sending(self) -> None:
        """Raise what was wrong with sending, unless the client has left."""
        if self._sending is not None:
            self._sending.cancel()
            await asyncio.wait((self._sending,))
            if not self._sending.cancelled():
                with suppress(OSError):
                    self._sending.result()


class WebSocket(Stream):
    """A websocket that was accepted."""

    wire = Wire.MESSAGES

    def __init__(self, relay: Relay, receive: Receive, send: Send) -> None:
        super().__init__(relay, receive, send)
        self._session = Session(relay.hub, self.client, relay.limits, relay.clock())

    async def _receive_all(self) -> None:
        while (message := await self._receive())["type"] != "websocket.disconnect":
            answer = self._answer_to(message)
            if answer is not None:
                self._relay.follow(answer.new)
                await self._reply(answer)

    def _answer_to(self, message: Message) -> Answer | None:
        now = self._relay.clock()
        if self._closing is not None:
            return None
        if (refused := self._session.admit(now)) is not None:
            return refused
        self._relay.metrics.received += 1
        text = message.get("text")
        if text is None:
            return self._session.receive_binary()
        raw = text.encode()
        if len(raw) > self._relay.limits.message_bytes:
            return Answer(close=TOO_LARGE)
        return self._session.receive_text(raw, now)

    async def _reply(self, answer: Answer) -> None:
        """Wait until the answer is sent: a client that does not read is not read either."""
        if answer.messages:
            self._outgoing += answer.messages
            self._send_soon()
        if answer.close is not None:
            self.goodbye(answer.close)
        elif self._sending is not None:
            await asyncio.wait((self._sending,))

    async def _deliver(self, parts: list[bytes]) -> None:
        for part in parts:
            await self._send({"type": "websocket.send", "text": part.decode()})

    async def _say_goodbye(self, code: CloseCode) -> None:
        await self._send({"type": "websocket.close", "code": code.code, "reason": code.reason})


class EventStream(Stream):
    """Server-sent events, behind the head of the response."""

    wire = Wire.EVENTS

    def subscribe(self, symbols: list[str], max_hz: float | None) -> None:
        """Have the client told of symbols, and at once of those without room."""
        answer = subscribe_stream(
            self._relay.hub, self.client, symbols, max_hz, self._relay.clock(), time.time()
        )
        self._outgoing += [encoded(self.wire, "symbol", message) for message in answer.messages]
        self._relay.follow(answer.new)

    async def _receive_all(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def _deliver(self, parts: list[bytes]) -> None:
        await self._send({"type": "http.response.body", "body": b"".join(parts), "more_body": True})

    async def _say_goodbye(self, code: CloseCode) -> None:  # noqa: ARG002 - it has no code
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    def _ping(self) -> None:
        self._outgoing.append(COMMENT)
        self._send_soon()
