"""Talks to Alpaca's stock stream: connect, authenticate, send requests, decode frames.

``AlpacaStream`` is alpaca-py's ``StockDataStream``, driven from outside instead of by its own
``_run_forever``: upstream retries wrong keys for ever, only logs what Alpaca refuses, hangs when
no greeting comes, spins while nothing is subscribed, and deadlocks when it is subscribed from
its own loop. Endpoint and keys are upstream's; the socket, the handshake and the receiving are
replaced. This is the only file that uses alpaca-py's private names (a test pins them).

Frames arrive as a callback of picows, not through a queue: a frame is decoded where it lies in
the receive buffer and handed on before the next one is looked at. Must not decide what a message
means, nor when to connect.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import socket
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NoReturn

import msgspec
import picows
from alpaca.common.utils import get_default_user_agent
from alpaca.data.live import StockDataStream
from picows.url import WSParsedURL
from pydantic import SecretStr

from spotd.adapters.alpaca_deflate import HEADER, OFFER, Inflater, agreed
from spotd.core.messages import (
    Acknowledgement,
    Cancel,
    Control,
    Correction,
    Error,
    Message,
    Quote,
    Success,
    Trade,
    TradingStatus,
)
from spotd.core.subscriptions import Request
from spotd.errors import (
    AlpacaRefusedError,
    ConnectionLimitError,
    RequestRefusedError,
    StreamError,
)

MAX_FRAME_BYTES = 16 * 1024 * 1024

_FATAL = {
    402: "Alpaca refused the keys (402 auth failed): check ALPACA_API_KEY and ALPACA_SECRET_KEY",
    409: "the plan of these keys does not include this feed (409 insufficient subscription): "
    "choose another SPOTD_FEED or upgrade the plan",
}
_WireMessage = (
    Quote | Trade | TradingStatus | Correction | Cancel | Success | Error | Acknowledgement
)
_decode = msgspec.msgpack.Decoder(list[_WireMessage]).decode
_decode_one = msgspec.msgpack.Decoder(_WireMessage).decode
_decode_raw = msgspec.msgpack.Decoder(list[msgspec.Raw]).decode
_decode_tag = msgspec.msgpack.Decoder(dict[str, msgspec.Raw]).decode
_encode = msgspec.msgpack.Encoder().encode
# What decoding raises: text that is not UTF-8 and nesting without end are not msgspec's own errors.
_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)

_CONTROLS = frozenset((Success, Error, Acknowledgement))
_MAX_WORDS = 200
_MIN_SECRET_CHARS = 4  # shorter ones would cut holes into ordinary words
_STATUS_LINE = re.compile(rb"HTTP/\d\.\d (\d{3})\b")
_BINARY = picows.WSMsgType.BINARY
_CLOSE = picows.WSMsgType.CLOSE
_PARTIAL = (picows.WSMsgType.TEXT, picows.WSMsgType.BINARY, picows.WSMsgType.CONTINUATION)

# picows reports through logging what this adapter reports through errors.
logging.getLogger("picows").setLevel(logging.CRITICAL)


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long Alpaca may take, in seconds."""

    connect_s: float = 10.0  # name look-up, TCP, TLS and the websocket's handshake together
    answer_s: float = 10.0  # the greeting, the authentication, an acknowledgement
    close_s: float = 1.0  # the answer to our close frame
    # Pings go out also while data comes in: the server wants to hear from its clients at least
    # every 20 s. Whatever comes in after a ping counts as its answer.
    ping_s: float = 10.0
    pong_s: float = 5.0


class FrameDecoder:
    """Frames in, messages out; what cannot be read is counted and costs nothing else."""

    def __init__(self) -> None:
        self.malformed: Counter[str] = Counter()  # frames and messages, by what is wrong

    def decode(self, payload: bytes | memoryview) -> list[_WireMessage]:
        """The messages of one frame, in order, without those that are malformed or unknown."""
        try:
            return _decode(payload)
        except _UNREADABLE:
            return list(self._salvage(bytes(payload)))

    def _salvage(self, payload: bytes) -> Iterator[_WireMessage]:
        """One by one, since one message of the frame is not what we expect."""
        try:
            parts = _decode_raw(payload)
        except _UNREADABLE:
            self.malformed["frame"] += 1
            return
        for part in parts:
            try:
                yield _decode_one(part)
            except _UNREADABLE:
                self.malformed[self._kind(part)] += 1

    @staticmethod
    def _kind(part: msgspec.Raw) -> str:
        try:
            tag = msgspec.msgpack.decode(_decode_tag(part)["T"], type=str)
        except (*_UNREADABLE, KeyError):
            return "message"
        return {"q": "quote", "t": "trade"}.get(tag, "unknown_type")


def _clean(words: str, secrets: Iterable[str]) -> str:
    """Alpaca's words, fit for logs, Redis and HTTP: short, on one line, without our keys."""
    for secret in secrets:
        if len(secret) >= _MIN_SECRET_CHARS:
            words = words.replace(secret, "***")
    words = "".join(c if c.isprintable() else " " for c in words[: 2 * _MAX_WORDS])
    return words[:_MAX_WORDS]


class _Session(picows.WSListener):
    """One connection: what comes in on it, the answers awaited on it, and its end.

    Everything that belongs to one connection is here, so that the last signs of one that was cut
    off cannot be taken for those of the next.
    """

    def __init__(
        self,
        decoder: FrameDecoder,
        on_data: Callable[[list[_WireMessage]], None],
        secrets: tuple[str, ...] = (),
    ) -> None:
        super().__init__()
        self.transport: picows.WSTransport | None = None
        self.end: asyncio.Future[StreamError] = asyncio.get_running_loop().create_future()
        self.closing = False  # nothing is handed on any more
        self._decoder = decoder
        self._on_data = on_data
        self._secrets = secrets  # never repeated, whoever says them
        self._answers: asyncio.Queue[Control | StreamError] = asyncio.Queue()
        self._in_handshake = True  # every control message is an answer
        self._expecting = False  # the next one is
        self._parts: list[bytes] = []
        self._parts_bytes = 0
        self._compressed = False  # the message that they are of
        self.inflater: Inflater | None = None  # where compression was agreed on

    # What we say

    def send(self, message: dict[str, object]) -> None:
        """Send a message whose answer is awaited. Raises StreamError when the session is over."""
        if self.end.done():
            raise self.end.result()
        if self.transport is None:
            raise AssertionError("nothing can be sent before the handshake")
        self._expecting = True
        self.transport.send(_BINARY, _encode(message))

    async def answer(self, what: str, timeout_s: float) -> Control:
        """The next answer. Raises StreamError when none comes, or the session is over."""
        try:
            async with asyncio.timeout(timeout_s):
                answer = await self._answers.get()
        except TimeoutError:
            raise StreamError(
                f"no {what} from Alpaca within {timeout_s:g} s", reason=f"{what}_timeout"
            ) from None
        if isinstance(answer, StreamError):
            raise answer
        return answer

    def authenticated(self) -> None:
        """The handshake is over: from now on only requests have answers."""
        self._in_handshake = self._expecting = False
        while not self._answers.empty():
            left = self._answers.get_nowait()
            if not isinstance(left, StreamError):
                self._control(left)

    # What picows calls

    def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        """A frame came in; its memory is valid only until this returns."""
        transport.notify_user_specific_pong_received()
        kind = frame.msg_type
        if kind is _CLOSE:
            self._closed_by_peer(transport, frame)
            return
        try:
            if kind is _BINARY and frame.fin and not frame.rsv1:
                self._take_in(frame.get_payload_as_memoryview())
            elif kind in _PARTIAL:
                self._gather(frame)
            elif frame.rsv1:
                raise _broken("a control frame is marked as compressed")
        except picows.WSProtocolError as broken:
            # picows sends the close code, and goes on with the frames that it has read.
            self.closing = True
            self.finish(
                StreamError(
                    f"the stream broke the rules of websockets: {broken.args[1]}",
                    reason=f"sent_{broken.code.value}",
                )
            )
            raise
        except Exception as defect:
            # picows closes the connection, and would keep to itself why.
            error = StreamError(
                f"a frame could not be taken in ({type(defect).__name__}): this is a defect",
                reason="defect",
            )
            error.__cause__ = defect
            self.finish(error)
            raise

    def on_ws_disconnected(self, transport: picows.WSTransport) -> None:
        """The socket is gone, whoever closed it."""
        self.finish(_why_lost(transport))

    # Inside

    def _closed_by_peer(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        if transport.is_close_frame_sent:
            self.finish(_why_lost(transport))  # it only answers ours
        else:
            code = frame.get_close_code()
            none_given = code is picows.WSCloseCode.NO_INFO
            transport.send_close(picows.WSCloseCode.OK if none_given else code)
            text = f"the stream was closed with code {code.value}"
            if reason := frame.get_close_reason():
                text += f" ({_clean(reason, self._secrets)})"
            self.finish(StreamError(text, reason=f"close_{code.value}"))
        transport.disconnect()

    def _gather(self, frame: picows.WSFrame) -> None:
        """A message in fragments, a compressed one; text too, which is counted as malformed."""
        if self.closing:
            return
        if not self._parts:
            self._compressed = bool(frame.rsv1)
        elif frame.rsv1:
            raise _broken("a fragment is marked as compressed")
        if self._compressed and self.inflater is None:
            raise _broken("a message is compressed, which was not agreed on")
        part = frame.get_payload_as_bytes()
        self._parts.append(part)
        self._parts_bytes += len(part)
        if self._parts_bytes > MAX_FRAME_BYTES:
            raise picows.WSProtocolError(
                picows.WSCloseCode.MESSAGE_TOO_BIG, "a message in fragments is too big"
            )
        if frame.fin:
            message = b"".join(self._parts)
            self._parts.clear()
            self._parts_bytes = 0
            if self._compressed and self.inflater is not None:
                message = self.inflater.message(message)
            self._take_in(message)

    def _take_in(self, payload: bytes | memoryview) -> None:
        messages = self._decoder.decode(payload)
        if not messages or self.closing:
            return
        # Control messages come alone (Alpaca's documentation), so one look is enough.
        if type(messages[0]) in _CONTROLS:
            for message in messages:
                if isinstance(message, Success | Error | Acknowledgement):
                    self._control(message)
        self._on_data(messages)

    def _control(self, message: Control) -> None:
        if isinstance(message, Error):
            message = Error(message.code, _clean(message.msg, self._secrets))
        if self._in_handshake:
            self._answers.put_nowait(message)
        elif self._expecting and not isinstance(message, Success):
            # One answer to one request: what comes behind it must not answer the next.
            self._expecting = False
            self._answers.put_nowait(message)
        elif isinstance(message, Error):
            self.finish(
                StreamError(
                    f"Alpaca ended the stream: {message.msg} ({message.code})",
                    reason=f"code_{message.code}",
                    code=message.code,
                )
            )

    def finish(self, why: StreamError) -> None:
        """The session is over; the first reason stands."""
        if not self.end.done():
            self.end.set_result(why)
            self._answers.put_nowait(why)


class AlpacaStream(StockDataStream):  # type: ignore[misc]  # alpaca-py is not typed
    """One session with Alpaca at a time: ``open``, ``request`` …, ``ended``, ``close``.

    ``on_data`` gets the messages of each data frame, in order, in the loop's thread, and must
    neither block nor raise. It may hold control messages, which it has to ignore. ``compression``
    offers permessage-deflate; whether it is used is the server's choice.
    """

    def __init__(
        self,
        *,
        endpoint: str,
        api_key: SecretStr,
        secret_key: SecretStr,
        on_data: Callable[[list[_WireMessage]], None],
        compression: bool = False,
        timeouts: Timeouts | None = None,
    ) -> None:
        super().__init__(
            api_key.get_secret_value(),
            secret_key.get_secret_value(),
            raw_data=True,
            url_override=endpoint,
        )
        self.decoder = FrameDecoder()
        self._on_data = on_data
        self._compression = compression
        self._timeouts = Timeouts() if timeouts is None else timeouts
        self._session: _Session | None = None

    @property
    def endpoint(self) -> str:
        """The complete address of the stream."""
        return str(self._endpoint)

    async def open(self) -> None:
        """Connect and authenticate.

        Raises AlpacaRefusedError (402, 409), ConnectionLimitError (406), StreamError.
        """
        try:
            await self._start_ws()
        except BaseException:
            await self.close()
            raise

    async def request(self, request: Request) -> Acknowledgement:
        """Send one request and await its answer. One at a time: answers name no request.

        Raises RequestRefusedError for an error answer. After a StreamError, which tells that none
        came, the session is of no more use: close it.
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
            raise AssertionError(f"{answer} is no answer to a request")
        return answer

    async def ended(self) -> StreamError:
        """Wait until the session is over. Gives why; it may be raised."""
        if self._session is None:
            return StreamError("not connected", reason="closed")
        return await asyncio.shield(self._session.end)

    def give_up(self, why: StreamError) -> None:
        """Have ``ended`` say that the session is over, for a reason found elsewhere."""
        if self._session is not None:
            self._session.finish(why)

    async def close(self) -> None:
        """End the session with a close frame; a peer that does not answer is cut off."""
        session, self._session = self._session, None
        if session is None:
            return
        session.closing = True
        session.finish(StreamError("the stream is closed", reason="closed"))
        transport = session.transport
        if transport is None:
            return
        try:
            if not (transport.is_disconnected or transport.is_close_frame_sent):
                transport.send_close(picows.WSCloseCode.OK)
            # Whatever ended the session is known by now; picows raises it once more.
            with contextlib.suppress(Exception):
                async with asyncio.timeout(self._timeouts.close_s):
                    await transport.wait_disconnected()
        finally:
            transport.disconnect(graceful=False)

    # Hooks of StockDataStream

    async def _connect(self) -> None:
        """Open the socket and wait for the greeting."""
        session = self._session = _Session(
            self.decoder, self._on_data, (self._secret_key, self._api_key)
        )
        session.transport = await self._handshake(session)
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
        """Not used: upstream's own loop would retry, subscribe and spin behind our back."""
        raise RuntimeError("AlpacaStream is driven by spotd's own loop")

    async def _run_forever(self) -> NoReturn:
        """Not used either."""
        self.run()

    def _subscribe(self, *_: object) -> NoReturn:
        """Not used: upstream's subscribe deadlocks in its own loop. ``request`` replaces it."""
        raise RuntimeError("use AlpacaStream.request")

    _unsubscribe = _subscribe

    # The session

    def _live_session(self) -> _Session:
        if self._session is None:
            raise StreamError("the stream is closed", reason="closed")
        return self._session

    async def _handshake(self, session: _Session) -> picows.WSTransport:
        """The upgraded connection. Raises StreamError, and then leaves no socket behind."""
        timeouts = self._timeouts
        deadline = asyncio.get_running_loop().time() + timeouts.connect_s
        dialled: list[socket.socket] = []

        async def dial(url: WSParsedURL) -> socket.socket:
            dialled.append(await _dial(url.host, url.port, deadline))
            return dialled[0]

        def upgraded(
            _: picows.WSUpgradeRequest, response: picows.WSUpgradeResponse
        ) -> picows.WSListener:
            # Before any frame is looked at: the first may be in the packet of the answer.
            if agreed(response.headers.getall(HEADER, []), offered=self._compression):
                session.inflater = Inflater(MAX_FRAME_BYTES)
            return session

        headers = {
            "Content-Type": "application/msgpack",
            "User-Agent": get_default_user_agent(),
        }
        if self._compression:
            headers[HEADER] = OFFER
        try:
            async with asyncio.timeout_at(deadline):
                transport, listener = await picows.ws_connect(
                    upgraded,
                    self._endpoint,
                    extra_headers=headers,
                    websocket_handshake_timeout=None,  # ours covers it
                    enable_auto_ping=True,
                    auto_ping_idle_timeout=timeouts.ping_s,
                    auto_ping_reply_timeout=timeouts.pong_s,
                    auto_ping_strategy=picows.WSAutoPingStrategy.PING_PERIODICALLY,
                    max_frame_size=MAX_FRAME_BYTES,
                    max_redirects=0,
                    socket_factory=dial,
                    use_aiofastnet=False,
                )
        except BaseException as error:
            # A handshake that is given up stays open in picows; closed by us, asyncio ends it.
            for dead in dialled:
                with contextlib.suppress(OSError):
                    dead.shutdown(socket.SHUT_RDWR)
            if isinstance(error, picows.WSHandshakeError):
                raise _refused_handshake(error) from error
            if isinstance(error, picows.WSError | OSError | UnicodeError):
                raise _no_connection(error, timeouts.connect_s) from error
            raise
        if listener is None:  # what picows gives when the peer left before it answered
            raise StreamError("Alpaca closed the connection unanswered", reason="connect")
        return transport


async def _dial(host: str, port: int, deadline: float) -> socket.socket:
    """A connection to the first of the host's addresses that takes one.

    Each address gets an equal share of the time left: one that swallows packets costs no more.
    ``deadline`` is in the loop's time. Raises OSError; UnicodeError for what is no host name.
    """
    loop = asyncio.get_running_loop()
    addresses = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    left = len(addresses)
    for family, kind, protocol, _, address in addresses:
        connecting = socket.socket(family, kind, protocol)
        connecting.setblocking(False)
        try:
            async with asyncio.timeout((deadline - loop.time()) / left):
                await loop.sock_connect(connecting, address)
        except BaseException as error:
            connecting.close()
            left -= 1
            if left == 0 or not isinstance(error, OSError):
                raise
        else:
            return connecting
    raise AssertionError("a look-up without an address is an error of its own")


def _why_lost(transport: picows.WSTransport) -> StreamError:
    """A connection that ended without a close frame from Alpaca."""
    # None where there was no close frame at all, whatever picows' annotations say
    sent = getattr(transport.close_handshake, "sent", None)
    if sent is None:
        return StreamError("the connection was lost", reason="lost")
    if sent.code is picows.WSCloseCode.GOING_AWAY:
        return StreamError("Alpaca did not answer a ping in time", reason="ping_timeout")
    return StreamError(
        f"the stream broke the rules of websockets (closed by us with {sent.code.value})",
        reason=f"sent_{sent.code.value}",
    )


def _broken(words: str) -> picows.WSProtocolError:
    return picows.WSProtocolError(picows.WSCloseCode.PROTOCOL_ERROR, words)


def _raise_error(error: Error) -> NoReturn:
    """An error that answers the greeting or the authentication."""
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


def _refused_handshake(error: picows.WSHandshakeError) -> StreamError:
    """HTTP said no to the upgrade."""
    response = getattr(error, "response", None)
    wait = ""
    if response is not None:
        status = int(response.status)
        wait = response.headers.get("Retry-After", "")
    elif line := _STATUS_LINE.match(error.raw_header or b""):
        status = int(line[1])  # one that HTTP does not know, such as a proxy's 520
    else:
        return StreamError("the websocket handshake failed", reason="handshake")
    return StreamError(
        f"Alpaca refused the websocket with HTTP {status}",
        reason=f"http_{status}",
        after_s=float(wait) if wait.isdecimal() else None,
    )


def _no_connection(error: BaseException, timeout_s: float) -> StreamError:
    if isinstance(error, TimeoutError):
        return StreamError(
            f"no connection to Alpaca within {timeout_s:g} s", reason="connect_timeout"
        )
    if isinstance(error, socket.gaierror | UnicodeError):
        return StreamError("the host name of the stream is unknown", reason="dns")
    return StreamError(f"no connection to Alpaca: {error}"[:200], reason="connect")


__all__ = ["AlpacaStream", "FrameDecoder", "Message", "Timeouts"]
