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
import logging
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from typing import NoReturn

import msgspec
import picows
from alpaca.common.utils import get_default_user_agent
from alpaca.data.live import StockDataStream
from pydantic import SecretStr

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

CONNECT_TIMEOUT_S = 10.0
ANSWER_TIMEOUT_S = 10.0
CLOSE_TIMEOUT_S = 1.0
PING_IDLE_S = 10.0
PONG_TIMEOUT_S = 10.0
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

# picows reports through logging what this adapter reports through errors.
logging.getLogger("picows").setLevel(logging.CRITICAL)


class FrameDecoder:
    """Frames in, messages out; what cannot be read is counted and costs nothing else."""

    def __init__(self) -> None:
        self.malformed: Counter[str] = Counter()  # frames and messages, by what is wrong

    def decode(self, payload: bytes | memoryview) -> list[_WireMessage]:
        """The messages of one frame, in order, without those that are malformed or unknown."""
        try:
            return _decode(payload)
        except msgspec.MsgspecError:
            return list(self._salvage(bytes(payload)))

    def _salvage(self, payload: bytes) -> Iterator[_WireMessage]:
        """One by one, since one message of the frame is not what we expect."""
        try:
            parts = _decode_raw(payload)
        except msgspec.MsgspecError:
            self.malformed["frame"] += 1
            return
        for part in parts:
            try:
                yield _decode_one(part)
            except msgspec.MsgspecError:
                self.malformed[self._kind(part)] += 1

    @staticmethod
    def _kind(part: msgspec.Raw) -> str:
        try:
            tag = msgspec.msgpack.decode(_decode_tag(part)["T"], type=str)
        except (msgspec.MsgspecError, KeyError):
            return "message"
        return {"q": "quote", "t": "trade"}.get(tag, "unknown_type")


class _Listener(picows.WSListener):
    """One connection's frames, handed to the stream."""

    def __init__(self, stream: AlpacaStream) -> None:
        super().__init__()
        self._receive = stream._receive  # two halves of one adapter
        self._ended = stream._ended_by_peer
        self._parts: list[bytes] = []

    def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        """A frame came in; its memory is valid only until this returns."""
        kind = frame.msg_type
        if kind is picows.WSMsgType.BINARY and frame.fin:
            self._receive(frame.get_payload_as_memoryview())
        elif kind is picows.WSMsgType.CLOSE:
            if not transport.is_close_frame_sent:
                code = frame.get_close_code()
                echoed = picows.WSCloseCode.OK if code is picows.WSCloseCode.NO_INFO else code
                transport.send_close(echoed)
            transport.disconnect()
        elif kind in (
            picows.WSMsgType.TEXT,
            picows.WSMsgType.BINARY,
            picows.WSMsgType.CONTINUATION,
        ):
            self._parts.append(frame.get_payload_as_bytes())
            if sum(map(len, self._parts)) > MAX_FRAME_BYTES:
                raise picows.WSProtocolError(picows.WSCloseCode.MESSAGE_TOO_BIG, "too big")
            if frame.fin:
                message = b"".join(self._parts)
                self._parts.clear()
                self._receive(message)

    def on_ws_disconnected(self, transport: picows.WSTransport) -> None:
        """The socket is gone, whoever closed it."""
        self._ended(transport)


class AlpacaStream(StockDataStream):  # type: ignore[misc]  # alpaca-py is not typed
    """One session with Alpaca at a time: ``open``, ``request`` …, ``ended``, ``close``.

    ``on_data`` gets the messages of each data frame, in order, in the loop's thread, and must
    neither block nor raise. It may hold control messages, which it has to ignore.
    """

    def __init__(
        self,
        *,
        endpoint: str,
        api_key: SecretStr,
        secret_key: SecretStr,
        on_data: Callable[[list[_WireMessage]], None],
    ) -> None:
        super().__init__(
            api_key.get_secret_value(),
            secret_key.get_secret_value(),
            raw_data=True,
            url_override=endpoint,
        )
        self.decoder = FrameDecoder()
        self._on_data = on_data
        self._controls: asyncio.Queue[Control | StreamError] = asyncio.Queue()
        self._transport: picows.WSTransport | None = None
        self._expecting = False
        self._end: asyncio.Future[StreamError] | None = None

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
        """Send one request and await its answer.

        Raises RequestRefusedError for an error answer, StreamError when none comes.
        """
        message: dict[str, object] = {"action": request.action}
        if request.statuses:
            message["statuses"] = ["*"]
        else:
            message["quotes"] = request.symbols
            if request.trades:
                message["trades"] = request.symbols
        self._expecting = True
        try:
            self._send(message)
            while True:
                answer = await self._answer("acknowledgement", ANSWER_TIMEOUT_S)
                if isinstance(answer, Acknowledgement):
                    return answer
                if isinstance(answer, Error):
                    raise RequestRefusedError(
                        answer.msg, reason=f"code_{answer.code}", code=answer.code
                    )
        finally:
            self._expecting = False

    async def ended(self) -> StreamError:
        """Wait until the session is over. Gives why; it may be raised."""
        if self._end is None:
            return StreamError("not connected", reason="closed")
        return await asyncio.shield(self._end)

    def give_up(self, why: StreamError) -> None:
        """Have ``ended`` say that the session is over, for a reason found elsewhere."""
        self._finish(why)

    async def close(self) -> None:
        """End the session with a close frame; a peer that does not answer is cut off."""
        transport, self._transport = self._transport, None
        if transport is None:
            return
        if not transport.is_disconnected:
            if not transport.is_close_frame_sent:
                transport.send_close(picows.WSCloseCode.OK)
            try:
                async with asyncio.timeout(CLOSE_TIMEOUT_S):
                    await self.ended()
            except TimeoutError:
                pass
            finally:
                transport.disconnect(graceful=False)

    # Hooks of StockDataStream

    async def _connect(self) -> None:
        """Open the socket and wait for the greeting."""
        self._controls = asyncio.Queue()
        self._end = asyncio.get_running_loop().create_future()
        self._expecting = True
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                self._transport, _ = await picows.ws_connect(
                    lambda: _Listener(self),
                    self._endpoint,
                    extra_headers={
                        "Content-Type": "application/msgpack",
                        "User-Agent": get_default_user_agent(),
                    },
                    websocket_handshake_timeout=CONNECT_TIMEOUT_S,
                    enable_auto_ping=True,
                    auto_ping_idle_timeout=PING_IDLE_S,
                    auto_ping_reply_timeout=PONG_TIMEOUT_S,
                    max_frame_size=MAX_FRAME_BYTES,
                    max_redirects=0,
                    use_aiofastnet=False,
                )
        except picows.WSHandshakeError as error:
            raise _refused_handshake(error) from error
        except (picows.WSError, OSError, TimeoutError) as error:
            raise _no_connection(error) from error
        greeting = await self._answer("greeting", ANSWER_TIMEOUT_S)
        if isinstance(greeting, Error):
            _raise_error(greeting)
        if not isinstance(greeting, Success):
            raise StreamError("no greeting from Alpaca", reason="protocol")

    async def _auth(self) -> None:
        """Authenticate."""
        self._send({"action": "auth", "key": self._api_key, "secret": self._secret_key})
        while True:
            answer = await self._answer("authentication", ANSWER_TIMEOUT_S)
            if isinstance(answer, Error):
                _raise_error(answer)
            if isinstance(answer, Success):
                if answer.msg == "authenticated":
                    break
            else:
                raise StreamError("unexpected answer to authentication", reason="protocol")
        self._expecting = False

    async def _start_ws(self) -> None:
        """Connect, then authenticate."""
        await self._connect()
        await self._auth()

    async def _run_forever(self) -> NoReturn:
        """Not used: upstream's own loop would retry, subscribe and spin behind our back."""
        raise RuntimeError("AlpacaStream is driven by spotd's own loop")

    def _subscribe(self, *_: object) -> NoReturn:
        """Not used: upstream's subscribe deadlocks in its own loop. ``request`` replaces it."""
        raise RuntimeError("use AlpacaStream.request")

    _unsubscribe = _subscribe

    # The session

    def _send(self, message: dict[str, object]) -> None:
        if self._transport is None or self._transport.is_disconnected:
            raise StreamError("the stream is closed", reason="closed")
        self._transport.send(picows.WSMsgType.BINARY, _encode(message))

    async def _answer(self, what: str, timeout_s: float) -> Control:
        try:
            async with asyncio.timeout(timeout_s):
                answer = await self._controls.get()
        except TimeoutError:
            raise StreamError(
                f"no {what} from Alpaca within {timeout_s:g} s", reason=f"{what}_timeout"
            ) from None
        if isinstance(answer, StreamError):
            raise answer
        return answer

    def _receive(self, payload: bytes | memoryview) -> None:
        messages = self.decoder.decode(payload)
        if not messages:
            return
        # Control messages come alone (Alpaca's documentation), so one look is enough.
        if isinstance(messages[0], Success | Error | Acknowledgement):
            for message in messages:
                if isinstance(message, Success | Error | Acknowledgement):
                    self._control(message)
        self._on_data(messages)

    def _control(self, message: Control) -> None:
        if self._expecting:
            self._controls.put_nowait(message)
        elif isinstance(message, Error):
            self._finish(
                StreamError(
                    f"Alpaca ended the stream: {message.msg} ({message.code})",
                    reason=f"code_{message.code}",
                    code=message.code,
                )
            )

    def _ended_by_peer(self, transport: picows.WSTransport) -> None:
        # None where there was no close frame at all, whatever picows' annotations say
        received = getattr(transport.close_handshake, "recv", None)
        if received is None:
            self._finish(StreamError("the connection was lost", reason="lost"))
            return
        text = f"the stream was closed with code {received.code.value}"
        if received.reason:
            text += f" ({received.reason[:100]})"
        self._finish(StreamError(text, reason=f"close_{received.code.value}"))

    def _finish(self, why: StreamError) -> None:
        if self._end is not None and not self._end.done():
            self._end.set_result(why)
            self._controls.put_nowait(why)


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
    if response is None:
        return StreamError("the websocket handshake failed", reason="handshake")
    status = int(response.status)
    wait = response.headers.get("Retry-After", "")
    return StreamError(
        f"Alpaca refused the websocket with HTTP {status}",
        reason=f"http_{status}",
        after_s=float(wait) if wait.isdecimal() else None,
    )


def _no_connection(error: BaseException) -> StreamError:
    if isinstance(error, TimeoutError):
        return StreamError(
            f"no connection to Alpaca within {CONNECT_TIMEOUT_S:g} s", reason="connect_timeout"
        )
    if isinstance(error, socket.gaierror):
        return StreamError("the host name of the stream is unknown", reason="dns")
    return StreamError(f"no connection to Alpaca: {error}"[:200], reason="connect")


__all__ = ["AlpacaStream", "FrameDecoder", "Message"]
