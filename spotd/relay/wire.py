"""Decides how a message looks on each kind of connection. Must not know what messages say.

Frames of a server are not masked (RFC 6455, section 5.1), so that one frame serves every client.
"""

from __future__ import annotations

from enum import IntEnum
from struct import Struct

_MEDIUM = Struct("!BBH").pack  # RFC 6455, section 5.2: 126 says that 2 bytes of length follow
_LONG = Struct("!BBQ").pack  # 127 says that 8 bytes of length follow
_FINAL_TEXT = 0x81  # FIN and the opcode of text

PING_FRAME = b"\x89\x00"
COMMENT = b": still here\n\n"


class Wire(IntEnum):
    """The kind of a connection."""

    MESSAGES = 0  # JSON as it is, for an edge that makes its own frames
    WEBSOCKET = 1
    EVENTS = 2  # server-sent events


def text_frame(payload: bytes) -> bytes:
    """Return one final, unmasked text frame. ``payload`` is UTF-8."""
    length = len(payload)
    if length < 126:
        return bytes((_FINAL_TEXT, length)) + payload
    if length < 65_536:
        return _MEDIUM(_FINAL_TEXT, 126, length) + payload
    return _LONG(_FINAL_TEXT, 127, length) + payload


def event(kind: str, payload: bytes) -> bytes:
    """Return one server-sent event. ``payload`` has no line break."""
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), payload)


def encoded(wire: Wire, kind: str, message: bytes) -> bytes:
    """Return a message, of a ``type``, as it is sent on a connection of this kind."""
    if wire is Wire.WEBSOCKET:
        return text_frame(message)
    if wire is Wire.EVENTS:
        return event(kind, message)
    return message
