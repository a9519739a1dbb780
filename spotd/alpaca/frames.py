"""Decodes frames of Alpaca's stream into messages. Must not decide what a message means."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import msgspec

from spotd.core.messages import Error, Message

decode = msgspec.msgpack.Decoder(list[Message]).decode
_decode_one = msgspec.msgpack.Decoder(Message).decode
_decode_raw = msgspec.msgpack.Decoder(list[msgspec.Raw]).decode
_decode_tag = msgspec.msgpack.Decoder(dict[str, msgspec.Raw]).decode
_decode_json = msgspec.json.Decoder(list[Message]).decode
# What decoding raises. msgspec has no error of its own for bad UTF-8 and for nesting too deep.
UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


def is_frame(payload: bytes) -> bool:
    """Return whether these are the bytes of a frame, whatever its messages are."""
    try:
        _decode_raw(payload)
    except UNREADABLE:
        return False
    return True


def error_in_text(payload: bytes) -> list[Message]:
    """Return the error that a server sent as JSON text, or nothing."""
    try:
        messages = _decode_json(payload)
    except UNREADABLE:
        return []
    return messages[:1] if messages and isinstance(messages[0], Error) else []


class FrameDecoder:
    """Decodes frames. A message that cannot be decoded is counted, and costs no other message."""

    def __init__(self) -> None:
        self.malformed: Counter[str] = Counter()  # by kind: frame, message, quote, trade, …

    def decode(self, payload: bytes) -> list[Message]:
        """Return the messages of a frame, in order, without those that are malformed or unknown."""
        try:
            return decode(payload)
        except UNREADABLE:
            return list(self._salvage(payload))

    def _salvage(self, payload: bytes) -> Iterator[Message]:
        """Yield the messages that can be decoded, of a frame with one that cannot."""
        try:
            parts = _decode_raw(payload)
        except UNREADABLE:
            self.malformed["frame"] += 1
            return
        for part in parts:
            try:
                yield _decode_one(part)
            except UNREADABLE:
                self.malformed[self._kind(part)] += 1

    @staticmethod
    def _kind(part: msgspec.Raw) -> str:
        try:
            tag = msgspec.msgpack.decode(_decode_tag(part)["T"], type=str)
        except (*UNREADABLE, KeyError):
            return "message"
        return {"q": "quote", "t": "trade"}.get(tag, "unknown_type")
