"""Decides what a recording holds: the lines of a frame, and when files begin, end and go.

A line is what came in one frame: a JSON array of Alpaca's messages behind a note of spotd's own
with the time at which the frame came. ``spotd simulate --replay`` plays such lines and skips notes.
Must not read or write a file, and must not read a clock.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from struct import Struct
from typing import Any

import msgspec

from spotd.core.tap import Kind, Record

NOTE = "spotd"  # the type T of a note, which no message of Alpaca has
_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
_SHOWN_BYTES = 500  # of a frame that cannot be decoded
_TIME_EXTENSION = -1
_seconds_of = Struct(">I").unpack
_packed_of = Struct(">Q").unpack
_apart_of = Struct(">Iq").unpack

_Field = msgspec.msgpack.Ext | str | float | int | bool | list[Any] | dict[str, Any] | None
# With Ext in this union, a time stays as it came. msgspec's datetime would cut its nanoseconds.
_decode = msgspec.msgpack.Decoder(list[dict[str, _Field]]).decode
_decode_any = msgspec.msgpack.Decoder().decode
_encode = msgspec.json.Encoder().encode


class _Named(msgspec.Struct, gc=False):
    """What the filter needs of a message."""

    symbol: str | None = msgspec.field(name="S", default=None)


_names = msgspec.msgpack.Decoder(list[_Named]).decode


class Lines:
    """Makes lines of records, and counts what is in them.

    With ``symbols``, messages of other symbols are left out, also in the lists of
    acknowledgements. A message that names no symbol is kept.
    """

    def __init__(self, symbols: Iterable[str] = ()) -> None:
        self.symbols = frozenset(symbols)
        self.kinds: Counter[str] = Counter()  # messages by their type T
        self.seen: set[str] = set()  # of ``symbols``: those that a message named
        self.lost_frames = 0

    def of(self, record: Record) -> bytes:
        """Return the line of a record with its newline; nothing if all of it is left out."""
        if record.kind is Kind.NOTE:
            note = msgspec.json.decode(record.payload, type=dict[str, Any])
            self.lost_frames += note.get("lost_frames", 0)
            if self.symbols and "recording" in note:
                note["symbols"] = sorted(self.symbols)
            return self.note(record.unix_ns, **note)
        try:
            messages = self._messages(record.payload)
        except _UNREADABLE:
            return self._unreadable(record)
        if not messages:
            return b""
        received = {"T": NOTE, "received": rfc3339(record.unix_ns)}
        return _encode([received, *messages]) + b"\n"

    @staticmethod
    def note(unix_ns: int, **what: object) -> bytes:
        """Return a line that says something of the recording itself."""
        return _encode({"T": NOTE, "at": rfc3339(unix_ns), **what}) + b"\n"

    def _messages(self, payload: bytes) -> list[Any]:
        if self.symbols and not self._concerned(payload):
            return []
        try:
            messages: list[Any] = list(_decode(payload))
        except msgspec.ValidationError:
            messages = _decode_any(payload)  # something in it is no message of Alpaca's form
            if not isinstance(messages, list):
                raise
        return [self._counted(each) for each in messages if self._wanted(each)]

    def _concerned(self, payload: bytes) -> bool:
        """Return whether a frame may hold a message to keep, without decoding all of it."""
        try:
            named = _names(payload)
        except msgspec.ValidationError:
            return True
        return any(one.symbol is None or one.symbol in self.symbols for one in named)

    def _wanted(self, message: Any) -> bool:
        symbol = message.get("S") if isinstance(message, dict) else None
        return not (self.symbols and isinstance(symbol, str)) or symbol in self.symbols

    def _counted(self, message: Any) -> Any:
        if not isinstance(message, dict):
            self.kinds["?"] += 1
            return message
        self.kinds[str(message.get("T", "?"))] += 1
        if self.symbols:
            symbol = message.get("S")
            if isinstance(symbol, str):
                self.seen.add(symbol)
            elif message.get("T") == "subscription":
                return {name: self._without_others(value) for name, value in message.items()}
        for name, value in message.items():
            if type(value) is msgspec.msgpack.Ext:
                message[name] = _text_of(value)
        return message

    def _without_others(self, value: Any) -> Any:
        if not isinstance(value, list):
            return value
        return [each for each in value if each == "*" or each in self.symbols]

    def _unreadable(self, record: Record) -> bytes:
        """Return a note that shows the beginning of a frame that is not a list of messages."""
        self.kinds["?"] += 1
        shown = record.payload[:_SHOWN_BYTES].decode("utf-8", "backslashreplace")
        return self.note(record.unix_ns, unreadable=shown, bytes=len(record.payload))


def rfc3339(unix_ns: int) -> str:
    """Return a time in UTC, with nanoseconds as far as it has them, as Alpaca writes it."""
    seconds, ns = divmod(unix_ns, 1_000_000_000)
    return f"{_second(seconds)}.{ns:09d}".rstrip("0").rstrip(".") + "Z"


@lru_cache(maxsize=4096)
def _second(unix_s: int) -> str:
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _text_of(value: msgspec.msgpack.Ext) -> str:
    """Return the text of an extension type: a time in each of its three lengths, else its bytes."""
    if value.code == _TIME_EXTENSION:
        data = bytes(value.data)
        try:
            if len(data) == 4:
                return rfc3339(_seconds_of(data)[0] * 1_000_000_000)
            if len(data) == 8:
                packed = _packed_of(data)[0]
                return rfc3339((packed & (1 << 34) - 1) * 1_000_000_000 + (packed >> 34))
            if len(data) == 12:
                ns, seconds = _apart_of(data)
                return rfc3339(seconds * 1_000_000_000 + ns)
        except (ValueError, OverflowError, OSError):
            pass  # a year that no calendar has
    return f"extension {value.code}: {bytes(value.data).hex()}"


@dataclass(frozen=True, slots=True)
class Bounds:
    """How large a recording may become.

    Without ``file_bytes`` and ``file_s`` it is one file, and ends with ``total_bytes``. With one
    of them it goes on in a new file, and its oldest files make room.
    """

    total_bytes: int
    file_bytes: int | None = None
    file_s: float | None = None
    files: int = 2

    @property
    def rotates(self) -> bool:
        """Whether a new file follows one that is full."""
        return self.file_bytes is not None or self.file_s is not None


@dataclass(frozen=True, slots=True)
class Step:
    """What has to be done before the next piece is written."""

    new_file: bool = False
    delete: int = 0  # how many files, the oldest first
    ends: bool = False  # the recording is as large as it may be, and the piece is not written


def step_before(
    bounds: Bounds, sizes: Sequence[int], piece_bytes: int, present_file_s: float
) -> Step:
    """Return what has to be done before a piece is written.

    ``sizes``: of the recording's files in bytes, the oldest first, the present one last.
    ``present_file_s``: the age of the present one. A file lasts at least a second, since its name
    holds the second of its beginning.
    """
    if not bounds.rotates:
        return Step(ends=sum(sizes) + piece_bytes > bounds.total_bytes)
    limit_bytes = bounds.total_bytes // 2
    if bounds.file_bytes is not None:
        limit_bytes = min(limit_bytes, bounds.file_bytes)
    is_full = sizes[-1] + piece_bytes > limit_bytes
    is_old = bounds.file_s is not None and present_file_s >= bounds.file_s
    new_file = sizes[-1] > 0 and present_file_s >= 1 and (is_full or is_old)
    older = list(sizes if new_file else sizes[:-1])
    present_bytes = piece_bytes if new_file else sizes[-1] + piece_bytes
    delete = max(0, len(older) + 1 - bounds.files)
    while delete < len(older) and sum(older[delete:]) + present_bytes > bounds.total_bytes:
        delete += 1
    return Step(new_file=new_file, delete=delete)
