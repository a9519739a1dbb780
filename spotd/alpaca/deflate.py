"""permessage-deflate (RFC 7692), for a client that inflates: offer, answer, messages.

picows hands on the handshake's headers and each frame's compressed bit; the rest is here. What we
send stays uncompressed, which the RFC allows (section 6): a few requests a day. Must not decide
whether compression is offered.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable

import picows

from spotd.errors import StreamError

HEADER = "Sec-WebSocket-Extensions"
OFFER = "permessage-deflate; client_max_window_bits"  # what alpaca-py offers by itself

_NAME = "permessage-deflate"
_TAIL = b"\x00\x00\xff\xff"  # what the sender leaves out at the end of each message
_WINDOW_BITS = frozenset(str(bits) for bits in range(8, 16))
_NO_VALUE: frozenset[str | None] = frozenset((None,))
_PARAMETERS: dict[str, frozenset[str] | frozenset[str | None]] = {
    "server_no_context_takeover": _NO_VALUE,
    "client_no_context_takeover": _NO_VALUE,
    "server_max_window_bits": _WINDOW_BITS,
    "client_max_window_bits": _WINDOW_BITS,
}


class Inflater:
    """Compressed messages in, payloads out, of one connection, in order.

    One window serves every parameter that a server may answer with: the largest inflates what was
    made with a smaller one, and a sender that starts each message afresh does not refer to what the
    window still holds.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._begin()

    def _begin(self) -> None:
        self._stream = zlib.decompressobj(-zlib.MAX_WBITS)
        self._decompress: Callable[[bytes, int], bytes] = self._stream.decompress

    def message(self, payload: bytes) -> bytes:
        """One whole message. Raises picows.WSProtocolError; then the window is of no more use."""
        try:
            # One byte beyond the limit tells that there is more, without inflating all of it.
            inflated = self._decompress(payload + _TAIL, self._most_bytes + 1)
        except zlib.error as error:
            raise _corrupt() from error
        if len(inflated) > self._most_bytes:
            raise picows.WSProtocolError(
                picows.WSCloseCode.MESSAGE_TOO_BIG, "a compressed message is too big"
            )
        if self._stream.eof:
            # A sender that cannot flush ends a message by ending the stream, and says so with one
            # more byte (section 7.2.3.4). Anything else behind the end would be lost.
            if self._stream.unused_data != b"\x00" + _TAIL:
                raise _corrupt()
            self._begin()
        return inflated


def _corrupt() -> picows.WSProtocolError:
    return picows.WSProtocolError(
        picows.WSCloseCode.INVALID_TEXT, "a compressed message is corrupt"
    )


def agreed(answers: Iterable[str], *, offered: bool) -> bool:
    """Whether the server compresses, by the extension headers of its answer.

    Raises StreamError for what was not offered, and for parameters that section 7.1 does not allow.
    """
    extensions = [one.strip() for answer in answers for one in answer.split(",") if one.strip()]
    if not extensions:
        return False
    name, *parameters = (part.strip() for part in extensions[0].split(";"))
    if not offered or len(extensions) > 1 or name.lower() != _NAME:
        raise _not_offered(", ".join(extensions))
    seen = set()
    for parameter in parameters:
        key, equals, value = (part.strip() for part in parameter.partition("="))
        allowed = _PARAMETERS.get(key.lower())
        if (
            allowed is None
            or (value.strip('"') if equals else None) not in allowed
            or key.lower() in seen
        ):
            raise _not_offered(extensions[0])
        seen.add(key.lower())
    return True


def _not_offered(words: str) -> StreamError:
    shown = "".join(c if c.isprintable() else " " for c in words[:100])
    return StreamError(
        f"the websocket was accepted with an extension that was not offered ({shown})",
        reason="extension",
    )
