"""Talks to Alpaca's stock stream: connects, authenticates, sends requests, hands messages on.

``AlpacaStream`` is alpaca-py's ``StockDataStream``, driven by spotd's loop instead of by its own
``_run_forever``, which retries wrong keys without end, only logs what Alpaca refuses, hangs when no
greeting comes, spins while nothing is subscribed, and deadlocks when it is subscribed from its own
loop. Endpoint and keys are kept where upstream keeps them. The socket, the handshake and the
receiving are replaced. The private names of alpaca-py that this uses are pinned by a test.

Must not decide what a message means, nor when to connect.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import NoReturn, Protocol

import picows
from alpaca.data.live import StockDataStream
from pydantic import SecretStr

from spotd.alpaca.frames import FrameDecoder
from spotd.alpaca.handshake import Timeouts, connect
from spotd.alpaca.session import Session
from spotd.core.messages import Acknowledgement, Error, Message, Success
from spotd.core.subscriptions import Request
from spotd.errors import (
    AlpacaRefusedError,
    ConnectionLimitError,
    RequestRefusedError,
    StreamError,
)
from spotd.redaction import Redactor

_FATAL = {
    402: "Alpaca refused the keys (402 auth failed): check ALPACA_API_KEY and ALPACA_SECRET_KEY",
    409: "the plan of these keys does not include this feed (409 insufficient subscription): "
    "choose another SPOTD_FEED or upgrade the plan",
}


class Tap(Protocol):
    """Takes what comes from Alpaca. Its methods must neither block nor raise."""

    def frame(self, payload: bytes) -> None:
        """Take the payload of a frame as it came, before its messages are handed on."""

    def ended(self, why: StreamError) -> None:
        """Take in that a session is over."""


class AlpacaStream(StockDataStream):  # type: ignore[misc]  # alpaca-py is not typed
    """One session with Alpaca at a time: ``open``, ``request`` …, ``ended``, ``close``.

    ``on_data`` gets the messages of each frame, in order, in the loop's thread. It must neither
    block nor raise, and must ignore control messages, which it gets too. ``redactor`` cuts secrets
    out of Alpaca's words; without one the two keys are cut out.
    """

    def __init__(
        self,
        *,
        endpoint: str,
        api_key: SecretStr,
        secret_key: SecretStr,
        on_data: Callable[[list[Message]], None],
        redactor: Redactor | None = None,
        timeouts: Timeouts | None = None,
    ) -> None:
        super().__init__(
            api_key.get_secret_value(),
            secret_key.get_secret_value(),
            raw_data=True,
            url_override=endpoint,
        )
        self.decoder = FrameDecoder()
        keys = (api_key.get_secret_value(), secret_key.get_secret_value())
        self._redactor = Redactor(keys) if redactor is None else redactor
        self._on_data = on_data
        self._timeouts = Timeouts() if timeouts is None else timeouts
        self._session: Session | None = None
        self._tap: Tap | None = None

    @property
    def endpoint(self) -> str:
        """The complete address of the stream."""
        return str(self._endpoint)

    async def open(self) -> None:
        """Connect and authenticate.

        Raise AlpacaRefusedError (402, 409), ConnectionLimitError (406), StreamError.
        """
        try:
            await self._start_ws()
        except BaseException:
            await self.close()
            raise

    async def request(self, request: Request) -> Acknowledgement:
        """Send one request and return its acknowledgement.

        Make one request at a time, since an answer does not name its request. Raise
        RequestRefusedError for an error answer, and StreamError when no answer came: the session
        cannot be used any more then and is to be closed.
        """
        message: dict[str, object] = {"action": request.action}
        if request.statuses:
            message["statuses"] = ["*"]
        else:
            message["quotes"] = request.symbols
            if request.trades:
                message["trades"] = request.symbols
        session = self._live_session()
        session.send(message)
        answer = await session.answer("acknowledgement", self._timeouts.answer_s)
        if isinstance(answer, Error):
            raise RequestRefusedError(answer.msg, reason=f"code_{answer.code}", code=answer.code)
        if not isinstance(answer, Acknowledgement):
            raise AssertionError(f"{answer} does not answer a request")
        return answer

    async def ended(self) -> StreamError:
        """Wait until the session is over. Return why."""
        if self._session is None:
            return StreamError("not connected", reason="closed")
        return await asyncio.shield(self._session.end)

    def give_to(self, tap: Tap | None) -> None:
        """Give ``tap`` what comes from now on, also in later sessions. None: give it to nobody."""
        self._tap = tap
        if self._session is not None:
            self._session.take_frame = None if tap is None else tap.frame

    def give_up(self, why: StreamError) -> None:
        """End the session for a reason found elsewhere, such as silence. Then call ``close``."""
        if self._session is not None:
            self._session.finish(why)

    async def close(self) -> None:
        """End the session with a close frame; cut the connection of a peer that does not answer.

        From now on no message is handed on.
        """
        session, self._session = self._session, None
        if session is None:
            return
        session.closing = True
        session.finish(StreamError("the stream is closed", reason="closed"))
        if self._tap is not None:
            self._tap.ended(session.end.result())
        transport = session.transport
        if transport is None:
            return
        try:
            if not (transport.is_disconnected or transport.is_close_frame_sent):
                transport.send_close(picows.WSCloseCode.OK)
            # picows raises again what ended the session, which ``ended`` has already told.
            with contextlib.suppress(Exception):
                async with asyncio.timeout(self._timeouts.close_s):
                    await transport.wait_disconnected()
        finally:
            transport.disconnect(graceful=False)

    # Methods of StockDataStream that are replaced

    async def _connect(self) -> None:
        """Open the socket and wait for the greeting."""
        session = self._session = Session(self.decoder, self._on_data, self._redactor)
        self.give_to(self._tap)
        await connect(session, self._endpoint, self._timeouts)
        greeting = await session.answer("greeting", self._timeouts.answer_s)
        if isinstance(greeting, Error):
            _raise_error(greeting)
        if not isinstance(greeting, Success):
            raise StreamError("no greeting from Alpaca", reason="protocol")

    async def _auth(self) -> None:
        """Authenticate."""
        session = self._live_session()
        session.send({"action": "auth", "key": self._api_key, "secret": self._secret_key})
        while True:
            answer = await session.answer("authentication", self._timeouts.answer_s)
            if isinstance(answer, Error):
                _raise_error(answer)
            if not isinstance(answer, Success):
                raise StreamError("unexpected answer to authentication", reason="protocol")
            if answer.msg == "authenticated":
                break
        session.authenticated()

    async def _start_ws(self) -> None:
        """Connect, then authenticate."""
        await self._connect()
        await self._auth()

    def run(self) -> NoReturn:
        """Refuse to run: upstream's own loop retries, subscribes and spins by itself."""
        raise RuntimeError("AlpacaStream is driven by spotd's own loop")

    async def _run_forever(self) -> NoReturn:
        """Refuse to run, like ``run``."""
        self.run()

    def _subscribe(self, *_: object) -> NoReturn:
        """Refuse: upstream's subscribe deadlocks in its own loop. ``request`` replaces it."""
        raise RuntimeError("use AlpacaStream.request")

    _unsubscribe = _subscribe

    # The session

    def _live_session(self) -> Session:
        if self._session is None:
            raise StreamError("the stream is closed", reason="closed")
        return self._session


def _raise_error(error: Error) -> NoReturn:
    """Raise the error that came in place of the greeting or of "authenticated"."""
    if error.code in _FATAL:
        raise AlpacaRefusedError(_FATAL[error.code])
    if error.code == 406:
        raise ConnectionLimitError(
            "another session holds the account's connection (406 connection limit exceeded)",
            reason="connection_limit",
            code=406,
        )
    raise StreamError(
        f"Alpaca refused the session: {error.msg} ({error.code})",
        reason=f"code_{error.code}",
        code=error.code,
    )
