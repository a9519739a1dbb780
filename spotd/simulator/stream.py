"""The websocket side: handshake, greeting, the client's messages, pings, timers, the end.

Talks; `protocol` decides what is answered.
"""

import asyncio
import time
from contextlib import suppress
from itertools import count
from typing import Any

from aiohttp import WebSocketError, WSMessage, WSMsgType, web

from spotd.simulator.changes import Changes
from spotd.simulator.journal import Journal, Record, Stats
from spotd.simulator.messages import error, success
from spotd.simulator.protocol import Answer, Conversation, Rules, refusal
from spotd.simulator.session import Session
from spotd.simulator.wire import Encoding, WireError, decode

LONGEST_MESSAGE_BYTES = 4 << 20
"""The longest message that a client may send; a longer one ends the session with 1009."""


class Stream:
    """Serves the endpoint of every feed. `sessions` are the live ones by their id."""

    def __init__(self, rules: Rules, journal: Journal, stats: Stats, changes: Changes) -> None:
        self.rules = rules
        self.sessions: dict[int, Session] = {}
        self._journal, self._stats, self._changes = journal, stats, changes
        self._ids = count(1)

    async def serve(self, request: web.Request, feed: str) -> web.StreamResponse:
        """Serve one connection, from its handshake to its end. Return the response."""
        number = next(self._ids)
        self._stats.connections += 1
        self._journal.add(Record("connect", number, request.path, headers=dict(request.headers)))
        refused = await self._refused_handshake()
        if refused is not None:
            self._stats.handshakes_refused += 1
            return refused
        limits = self.rules.limits
        ws = web.WebSocketResponse(
            timeout=limits.close_timeout_s,
            autoping=False,
            autoclose=False,
            compress=limits.deflate,
            max_msg_size=LONGEST_MESSAGE_BYTES,
        )
        await ws.prepare(request)
        transport = request.transport
        if transport is None:  # the client disconnected while the handshake was held back
            return ws
        content = request.headers.get("Content-Type", "")
        session = Session(
            ws,
            transport,
            Conversation(number, feed, self.rules),
            "msgpack" if content.startswith("application/msgpack") else "json",
            faults=self.rules.faults,
            limits=limits,
            stats=self._stats,
            changes=self._changes,
        )
        await self._run(session)
        transport.close()
        return ws

    async def _refused_handshake(self) -> web.Response | None:
        faults = self.rules.faults
        await self._changes.until(lambda: not faults.handshake_hang)
        if faults.handshake_delay_s:
            await asyncio.sleep(faults.handshake_delay_s)
        if not faults.handshake_status:
            return None
        return web.Response(status=faults.handshake_status, text="the simulator was told to refuse")

    async def _run(self, session: Session) -> None:
        """Read, write and ping until the session ends."""
        self.sessions[session.id] = session
        works = {"writes": session.write(), "pings": self._ping(session)}
        tasks = [
            asyncio.create_task(work, name=f"simulator session {session.id}: {name}")
            for name, work in works.items()
        ]
        code: int | None = None
        try:
            await self._greet(session)
            code = await self._read(session)
        finally:
            for task in tasks:
                task.cancel()
            ends = await asyncio.gather(*tasks, return_exceptions=True)
            self._end(session, code)
        for end in ends:
            if isinstance(end, Exception) and not isinstance(end, ConnectionError):
                raise end

    def _end(self, session: Session, code: int | None) -> None:
        """Forget a session. One that vanished keeps its connection slot for a while."""
        hold_s = self.rules.limits.dead_session_hold_s
        vanished = code is None and not session.closing
        if vanished and hold_s > 0:
            self.rules.slots.hold(session.id, time.monotonic() + hold_s)
        else:
            self.rules.slots.free(session.id)
        session.release()
        del self.sessions[session.id]
        self._journal.add(Record("close", session.id, code))

    async def _greet(self, session: Session) -> None:
        faults = self.rules.faults
        session.after(self.rules.limits.auth_timeout_s, lambda: self._expect_auth(session))
        if faults.greeting_delay_s:
            await asyncio.sleep(faults.greeting_delay_s)
        if faults.greeting_error:
            session.send_control(error(faults.greeting_error))
        elif not faults.no_greeting:
            session.send_control(success("connected"))

    def _expect_auth(self, session: Session) -> None:
        if not session.authenticated:
            self._send(session, refusal(404, close=True))

    async def _read(self, session: Session) -> int | None:
        """Read all that the client sends. Return its close code, None if it vanished."""
        while True:
            message = await session.ws.receive()
            await self._changes.until(lambda: not self.rules.faults.half_open)
            session.received_at = time.monotonic()
            match message.type:
                case WSMsgType.TEXT | WSMsgType.BINARY:
                    await self._handle(session, message)
                case WSMsgType.PING:
                    self._journal.add(Record("ping", session.id, message.data))
                    if not self.rules.faults.ignore_pings:
                        with suppress(ConnectionError):
                            await session.ws.pong(message.data)
                case WSMsgType.PONG:
                    self._journal.add(Record("pong", session.id, message.data))
                case WSMsgType.CLOSE:
                    session.answer_close(message.data or 1000)
                    await self._close_written(session)
                    return int(message.data or 1005)
                case _:  # the client vanished, or aiohttp ended the session for what it sent
                    ended = isinstance(message.data, WebSocketError)
                    return int(message.data.code) if ended else None

    async def _close_written(self, session: Session) -> None:
        """Wait until the close frame is answered, before the connection is closed."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self.rules.limits.close_timeout_s):
                await self._changes.until(lambda: session.close_written)

    async def _handle(self, session: Session, message: WSMessage) -> None:
        """Answer a message of the client, as the protocol and the faults say."""
        binary = message.type is WSMsgType.BINARY
        encoding: Encoding = "msgpack" if binary else "json"
        try:
            if encoding != session.encoding:
                raise WireError(f"a {encoding} frame on a {session.encoding} connection")
            decoded: Any = decode(message.data, encoding)
        except WireError:
            self._journal.add(Record("message", session.id, message.data))
            self._send(session, refusal(400))
            return
        answer = session.conversation.receive(decoded, time.monotonic())
        self._journal.add(Record("message", session.id, decoded))
        action = decoded.get("action") if isinstance(decoded, dict) else None
        if await self._withheld(action):
            return
        if action == "unsubscribe" and not answer.refused and self.rules.faults.late_data_s:
            session.after(self.rules.faults.late_data_s, session.conversation.forget_late)
        self._send(session, answer)

    async def _withheld(self, action: object) -> bool:
        """Wait as the faults say. Return True if there is to be no answer at all."""
        faults = self.rules.faults
        if action == "auth":
            delay_s, silent = faults.auth_delay_s, faults.auth_silent
        elif action in ("subscribe", "unsubscribe"):
            delay_s, silent = faults.ack_delay_s, faults.ack_silent
        else:
            return False
        if delay_s and not silent:
            await asyncio.sleep(delay_s)
        return silent

    def _send(self, session: Session, answer: Answer) -> None:
        if answer.refused:
            self._stats.refused[answer.refused] += 1
        session.send_control(*answer.messages)
        if answer.close:
            session.close(1000)
        self._changes.wake_up()

    async def _ping(self, session: Session) -> None:
        """Send a ping in each period. Cut a client that sent nothing for the ping timeout."""
        limits = self.rules.limits
        while True:
            await self._changes.until(lambda: limits.ping_period_s > 0)
            left_s = session.received_at + limits.ping_timeout_s - time.monotonic()
            await asyncio.sleep(min(limits.ping_period_s, max(0.005, left_s)))
            await self._changes.until(lambda: not self.rules.faults.half_open)
            if time.monotonic() - session.received_at >= limits.ping_timeout_s:
                session.close(1011)
                return
            with suppress(ConnectionError):
                await session.ws.ping()
