"""The websocket side: handshake, greeting, the client's messages, pings, timers, the end.

Talks; what is answered is decided in `protocol`.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from itertools import count
from typing import Any

from aiohttp import WebSocketError, WSMessage, WSMsgType, web

from spotd.simulator.bell import Bell
from spotd.simulator.journal import Journal, Record, Stats
from spotd.simulator.messages import error, success
from spotd.simulator.protocol import Answer, Conversation, Rules
from spotd.simulator.session import Session
from spotd.simulator.wire import Encoding, WireError, decode

_KEY, _SECRET = "APCA-API-KEY-ID", "APCA-API-SECRET-KEY"


class Stream:
    """Serves every feed's endpoint; `sessions` are the live ones by their id."""

    def __init__(self, rules: Rules, journal: Journal, stats: Stats, bell: Bell) -> None:
        self.rules = rules
        self.sessions: dict[int, Session] = {}
        self._journal, self._stats, self._bell = journal, stats, bell
        self._ids = count(1)

    async def serve(self, request: web.Request, feed: str) -> web.StreamResponse:
        """One connection, from its handshake to its end."""
        number = next(self._ids)
        self._stats.connections += 1
        headers = dict(request.headers)
        self._journal.add(Record("connect", number, request.path, headers=headers))
        refused = await self._refuse_handshake()
        if refused is not None:
            self._stats.handshakes_refused += 1
            return refused
        limits = self.rules.limits
        ws = web.WebSocketResponse(
            timeout=limits.close_timeout_s,
            autoping=False,
            autoclose=False,
            compress=limits.deflate,
            max_msg_size=limits.max_message_bytes,
        )
        await ws.prepare(request)
        transport = request.transport
        if transport is None:  # gone while the handshake was held up
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
            bell=self._bell,
        )
        await self._attend(session, headers)
        transport.close()
        return ws

    async def _refuse_handshake(self) -> web.Response | None:
        faults = self.rules.faults
        await self._bell.until(lambda: not faults.handshake_hang)
        if faults.handshake_delay_s:
            await asyncio.sleep(faults.handshake_delay_s)
        if not faults.handshake_status:
            return None
        return web.Response(status=faults.handshake_status, text="the simulator was told to refuse")

    async def _attend(self, session: Session, headers: Mapping[str, str]) -> None:
        """Keep the session's tasks for as long as it lives; leave its seat as Alpaca would."""
        self.sessions[session.id] = session
        faults = self.rules.faults
        works = {
            "writes": session.write(),
            "pings": self._ping(session),
            "ages": self._again_and_again(
                lambda: faults.close_every_s, lambda: session.close(faults.close_code)
            ),
            "errs": self._again_and_again(
                lambda: faults.error_every_s, lambda: self._disturb(session)
            ),
        }
        tasks = [
            asyncio.create_task(work, name=f"simulator session {session.id}: {name}")
            for name, work in works.items()
        ]
        code: int | None = None
        try:
            await self._greet(session, headers)
            code = await self._listen(session)
        finally:
            for task in tasks:
                task.cancel()
            ends = await asyncio.gather(*tasks, return_exceptions=True)
            self._leave(session, code)
        for end in ends:
            if isinstance(end, Exception) and not isinstance(end, ConnectionError):
                raise end

    def _leave(self, session: Session, code: int | None) -> None:
        hold_s = self.rules.limits.dead_session_hold_s
        vanished = code is None and not session.closing
        if vanished and hold_s > 0:
            self.rules.seats.hold(session.id, time.monotonic() + hold_s)
        else:
            self.rules.seats.free(session.id)
        session.release()
        del self.sessions[session.id]
        self._journal.add(Record("close", session.id, code))

    async def _greet(self, session: Session, headers: Mapping[str, str]) -> None:
        faults, limits = self.rules.faults, self.rules.limits
        session.after(limits.auth_timeout_s, lambda: self._expect_auth(session))
        if faults.greeting_delay_s:
            await asyncio.sleep(faults.greeting_delay_s)
        if faults.greeting_error:
            session.tell(error(faults.greeting_error))
            return
        if not faults.no_greeting:
            session.tell(success("connected"))
        if limits.header_auth and _KEY in headers:
            self._give(
                session,
                session.conversation.authenticate(
                    headers[_KEY], headers.get(_SECRET, ""), time.monotonic()
                ),
            )

    def _expect_auth(self, session: Session) -> None:
        if not session.authenticated:
            self._give(session, Answer([error(404)], close=True, refused=404))

    async def _again_and_again(
        self, period_s: Callable[[], float], act: Callable[[], object]
    ) -> None:
        """Act once per period while there is one; a new period begins when its knob is turned."""
        turned = self.rules.faults.turned
        while True:
            await turned.until(lambda: period_s() > 0)
            before_s = period_s()
            try:
                async with asyncio.timeout(before_s):
                    await turned.until(partial(_differs, period_s, before_s))
            except TimeoutError:
                act()

    def _disturb(self, session: Session) -> None:
        code = self.rules.faults.error_code
        session.tell(error(code))
        if code == 407:
            session.close(1008)

    async def _listen(self, session: Session) -> int | None:
        """Everything the client says, until the end: its close code, None when it vanished."""
        while True:
            message = await session.ws.receive()
            await self._bell.until(lambda: not self.rules.faults.half_open)
            session.heard_at = time.monotonic()
            match message.type:
                case WSMsgType.TEXT | WSMsgType.BINARY:
                    await self._hear(session, message)
                case WSMsgType.PING:
                    self._journal.add(Record("ping", session.id, message.data))
                    if not self.rules.faults.ignore_pings:
                        with suppress(ConnectionError):
                            await session.ws.pong(message.data)
                case WSMsgType.PONG:
                    self._journal.add(Record("pong", session.id, message.data))
                case WSMsgType.CLOSE:
                    session.answer_close(message.data or 1000)
                    await self._say_goodbye(session)
                    return int(message.data or 1005)
                case _:  # vanished, or cut by aiohttp for what it sent
                    cut = isinstance(message.data, WebSocketError)
                    return int(message.data.code) if cut else None

    async def _say_goodbye(self, session: Session) -> None:
        """The close frame gets its answer before the connection goes."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self.rules.limits.close_timeout_s):
                await self._bell.until(lambda: session.farewell)

    async def _hear(self, session: Session, message: WSMessage) -> None:
        binary = message.type is WSMsgType.BINARY
        encoding: Encoding = "msgpack" if binary else "json"
        try:
            if encoding != session.encoding:
                raise WireError(f"a {encoding} frame on a {session.encoding} connection")
            decoded: Any = decode(message.data, encoding)
        except WireError:
            self._journal.add(Record("message", session.id, message.data))
            self._give(session, Answer([error(400)], refused=400))
            return
        answer = session.conversation.receive(decoded, time.monotonic())
        self._journal.add(Record("message", session.id, decoded))
        action = decoded.get("action") if isinstance(decoded, dict) else None
        if await self._held_back(action):
            return
        if action == "unsubscribe" and not answer.refused and self.rules.faults.late_data_s:
            session.after(self.rules.faults.late_data_s, session.conversation.forget_late)
        self._give(session, answer)

    async def _held_back(self, action: object) -> bool:
        """Wait as the faults say; true when there is to be no answer at all."""
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

    def _give(self, session: Session, answer: Answer) -> None:
        if answer.refused:
            self._stats.refused[answer.refused] += 1
        session.tell(*answer.messages)
        if answer.close:
            session.close(1000)
        self._bell.ring()

    async def _ping(self, session: Session) -> None:
        """Ping now and then; cut a client that has not been heard for too long."""
        limits = self.rules.limits
        while True:
            await self._bell.until(lambda: limits.ping_period_s > 0)
            patience_s = session.heard_at + limits.ping_timeout_s - time.monotonic()
            await asyncio.sleep(min(limits.ping_period_s, max(0.005, patience_s)))
            await self._bell.until(lambda: not self.rules.faults.half_open)
            if time.monotonic() - session.heard_at >= limits.ping_timeout_s:
                session.close(1011)
                return
            with suppress(ConnectionError):
                await session.ws.ping()


def _differs(now: Callable[[], float], before: float) -> bool:
    return now() != before
