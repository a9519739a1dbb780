"""Holds one connection to Alpaca's stream: frames that come in, answers awaited, how it ended.

picows calls back for each frame, so a frame is decoded and handed on before the next one is parsed,
without a queue. Must not decide what an answer means, nor when to connect.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec
import picows

from spotd.alpaca.frames import UNREADABLE, FrameDecoder, decode, error_in_text, is_frame
from spotd.core.messages import Acknowledgement, Control, Error, Message, Quote, Success
from spotd.errors import StreamError
from spotd.redaction import Redactor

MAX_FRAME_BYTES = 16 * 1024 * 1024

_encode = msgspec.msgpack.Encoder().encode
_SLOW_CLIENT = 407
_CONTROLS = frozenset((Success, Error, Acknowledgement))
_MAX_CHARS = 200  # of Alpaca's own words in an error
_BINARY = picows.WSMsgType.BINARY
_CLOSE = picows.WSMsgType.CLOSE
_CONTINUATION = picows.WSMsgType.CONTINUATION
_DATA = (picows.WSMsgType.TEXT, _BINARY, _CONTINUATION)


class Session(picows.WSListener):
    """The state of one connection.

    Each connection has its own, so an event of a connection that was cut off cannot be taken for
    one of its successor. ``on_data`` gets the messages of each data frame, in order, in the loop's
    thread; ``redactor`` cuts secrets out of Alpaca's words.
    """

    # Attributes that are read for every frame are found faster without a dictionary.
    __slots__ = (
        "_answers",
        "_decoder",
        "_expecting",
        "_in_handshake",
        "_on_data",
        "_parts",
        "_parts_bytes",
        "_redactor",
        "closing",
        "end",
        "take_frame",
        "transport",
    )

    def __init__(
        self,
        decoder: FrameDecoder,
        on_data: Callable[[list[Message]], None],
        redactor: Redactor,
    ) -> None:
        super().__init__()
        self.transport: picows.WSTransport | None = None
        self.end: asyncio.Future[StreamError] = asyncio.get_running_loop().create_future()
        self.closing = False  # True: no message is handed on any more
        # Gets each frame of messages as it came, malformed ones too, while somebody records.
        self.take_frame: Callable[[bytes], None] | None = None
        self._decoder = decoder
        self._on_data = on_data
        self._redactor = redactor
        self._answers: asyncio.Queue[Control | StreamError] = asyncio.Queue()
        self._in_handshake = True  # then every control message is an answer
        self._expecting = False  # True: the next acknowledgement or error is an answer
        self._parts: list[bytes] = []  # of a message in fragments
        self._parts_bytes = 0

    # What we say

    def send(self, message: dict[str, object]) -> None:
        """Send a message whose answer is awaited. Raise StreamError when the session is over."""
        if self.end.done():
            raise self.end.result()
        if self.transport is None:
            raise AssertionError("nothing can be sent before the handshake")
        self._expecting = True
        self.transport.send(_BINARY, _encode(message))

    async def answer(self, what: str, timeout_s: float) -> Control:
        """Return the next answer. Raise StreamError when none comes, or the session is over."""
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
        """End the handshake: from now on only requests have answers."""
        self._in_handshake = self._expecting = False
        while not self._answers.empty():
            left = self._answers.get_nowait()
            if not isinstance(left, StreamError):
                self._control(left)

    # What picows calls

    def on_ws_connected(self, transport: picows.WSTransport) -> None:
        """Take the connection: its upgrade is done."""
        self.transport = transport

    def is_user_specific_pong(self, frame: picows.WSFrame) -> bool:  # noqa: ARG002 - picows' own
        """Count any frame as the answer to a ping. picows calls this while a ping awaits one."""
        if self.transport is None:
            raise AssertionError("no ping goes out before the handshake")
        self.transport.notify_user_specific_pong_received()
        return False  # True would keep the frame from ``on_ws_frame``

    def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        """Take in a frame; its memory is valid only until this returns."""
        try:
            # A whole frame that decodes as a list of messages is taken for data. The type of the
            # frame is read only where it does not decode: picows makes an enum of the type, which
            # costs a third of decoding a quote.
            if frame.fin and not frame.rsv1 and not self._parts:
                payload = frame.get_payload_as_bytes()
                try:
                    messages = decode(payload)
                except UNREADABLE:
                    self._look_closer(transport, frame)
                else:
                    if self.take_frame is not None:
                        self.take_frame(payload)
                    if messages and type(messages[0]) is Quote and not self.closing:
                        self._on_data(messages)  # nearly every frame comes here
                    else:
                        self._hand_on(messages)
            else:
                self._look_closer(transport, frame)
        except Exception as error:
            # picows ends the connection, but still delivers the frames that it read before.
            self.closing = True
            self.finish(_why_failed(error))
            raise

    def on_ws_disconnected(self, transport: picows.WSTransport) -> None:
        """End the session: the socket is closed, by either side."""
        self.finish(_why_lost(transport))

    # Inside

    def _look_closer(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        """Take in a frame that is not simply a whole message of data."""
        if frame.rsv1:
            raise _broken("a frame is marked as compressed, which was not offered")
        kind = frame.msg_type
        if kind is _CLOSE:
            self._closed_by_peer(transport, frame)
        elif kind in _DATA:
            self._gather(frame, begins=kind is not _CONTINUATION)

    def _closed_by_peer(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        if transport.is_close_frame_sent:
            self.finish(_why_lost(transport))  # this frame only answers ours
        else:
            code = frame.get_close_code()
            without_code = code is picows.WSCloseCode.NO_INFO
            transport.send_close(picows.WSCloseCode.OK if without_code else code)
            text = f"the stream was closed with code {code.value}"
            if reason := frame.get_close_reason():
                text += f" ({self.words(reason)})"
            self.finish(StreamError(text, reason=f"close_{code.value}"))
        transport.disconnect()

    def _gather(self, frame: picows.WSFrame, *, begins: bool) -> None:
        """Put a message together that comes in fragments, is malformed, or is a text."""
        if self.closing:
            return
        if begins and self._parts:
            raise _broken("a message begins inside another")
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
            if self.take_frame is not None:
                self.take_frame(message)
            messages = self._decoder.decode(message)
            if self._in_handshake and not messages and not is_frame(message):
                # Without this, a greeting in text would be no greeting, and never told.
                messages = error_in_text(message)
                if not messages:
                    self.finish(self._not_understood(message))
            self._hand_on(messages)

    def _hand_on(self, messages: list[Message]) -> None:
        if not messages or self.closing:
            return
        # Alpaca sends a control message alone in its frame (its documentation). As a consequence,
        # the first message tells whether there are any.
        # It is an answer to us, and no data: a mute stream acknowledges each change of the demand.
        if type(messages[0]) in _CONTROLS:
            for message in messages:
                if isinstance(message, Success | Error | Acknowledgement):
                    self._control(message)
            messages = [message for message in messages if type(message) not in _CONTROLS]
        if messages:
            self._on_data(messages)

    def _control(self, message: Control) -> None:
        if isinstance(message, Error):
            message = Error(message.code, self.words(message.msg))
        if self._in_handshake:
            self._answers.put_nowait(message)
        elif self._expecting and not isinstance(message, Success) and not _is_slow_client(message):
            # A request has one answer. A message behind it must not answer the next request.
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

    def _not_understood(self, message: bytes) -> StreamError:
        """Return why a session cannot begin with this message."""
        try:
            words = message.decode()
        except UnicodeDecodeError:
            return StreamError("the stream does not begin with MessagePack", reason="protocol")
        return StreamError(
            f"the stream begins with text instead of MessagePack ({self.words(words)})",
            reason="text",
        )

    def words(self, words: str) -> str:
        """Return Alpaca's words fit for logs, Redis and HTTP: short, on one line, without keys."""
        return self._redactor.words(words, _MAX_CHARS)

    def finish(self, why: StreamError) -> None:
        """End the session; only the first reason counts."""
        if not self.end.done():
            self.end.set_result(why)
            self._answers.put_nowait(why)


def _is_slow_client(message: Control) -> bool:
    """Return whether Alpaca says that we read too slowly: this answers no request.

    Source: Alpaca's documentation, 407 slow client. Alpaca closes the connection behind it.
    """
    return isinstance(message, Error) and message.code == _SLOW_CLIENT


def _why_lost(transport: picows.WSTransport) -> StreamError:
    """Return why a connection ended to which Alpaca sent no close frame first."""
    # close_handshake is None where no close frame was sent or received, against its annotation.
    sent = getattr(transport.close_handshake, "sent", None)
    if sent is None:
        return StreamError("the connection was lost", reason="lost")
    if sent.code is picows.WSCloseCode.GOING_AWAY:
        return StreamError("Alpaca did not answer a ping in time", reason="ping_timeout")
    return StreamError(
        f"the stream broke the rules of websockets (closed by us with {sent.code.value})",
        reason=f"sent_{sent.code.value}",
    )


def _why_failed(error: Exception) -> StreamError:
    """Return why a frame could not be taken in."""
    if isinstance(error, picows.WSProtocolError):
        return StreamError(
            f"the stream broke the rules of websockets: {error.args[1]}",
            reason=f"sent_{error.code.value}",
        )
    why = StreamError(
        f"a frame could not be taken in ({type(error).__name__}): this is a defect",
        reason="defect",
    )
    why.__cause__ = error  # picows does not tell it to anybody
    return why


def _broken(words: str) -> picows.WSProtocolError:
    return picows.WSProtocolError(picows.WSCloseCode.PROTOCOL_ERROR, words)
