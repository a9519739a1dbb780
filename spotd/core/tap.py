"""Decides which frames are kept for a recorder that reads more slowly than frames come.

Also the form in which they go from the daemon to the recorder: records of a kind, a time and a
payload. This form is private to spotd. Must not know what a frame says.
"""

from __future__ import annotations

from collections import deque
from enum import IntEnum
from struct import Struct
from typing import NamedTuple

import msgspec

MAX_RECORD_BYTES = 64 << 20
_HEADER = Struct(">BQI")  # kind, unix time in nanoseconds, length of the payload
_OBJECT_BYTES = 64  # what a record that waits costs beside its payload


class Kind(IntEnum):
    """What a record holds."""

    FRAME = 0  # the payload of a frame, as it came
    NOTE = 1  # what spotd says itself, as a JSON object


class Record(NamedTuple):
    """A frame or a note, and when it was taken in."""

    kind: Kind
    unix_ns: int
    payload: bytes


class FrameQueue:
    """The newest records that were not read yet, at most ``limit_bytes`` of them.

    A frame without room is lost as a whole. From then on frames are lost until half of the room is
    free, so that a recording has few gaps and not many small ones. A note tells each gap.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._records: deque[bytes] = deque()
        self._gap_frames = self._gap_bytes = 0
        self.held_bytes = 0
        self.lost_frames = 0  # over all gaps

    def put(self, payload: bytes, unix_ns: int) -> None:
        """Keep a frame, or count it as lost."""
        if self._gap_frames and self.held_bytes <= self._limit_bytes // 2:
            self._end_gap(unix_ns)
        size_bytes = len(payload) + _OBJECT_BYTES
        if self._gap_frames or self.held_bytes + size_bytes > self._limit_bytes:
            self.lost_frames += 1
            self._gap_frames += 1
            self._gap_bytes += len(payload)
        else:
            self._add(Kind.FRAME, payload, unix_ns)

    def note(self, unix_ns: int, **what: object) -> None:
        """Keep a note, behind what is kept already. Notes are few, so there is always room."""
        if self._gap_frames:
            self._end_gap(unix_ns)
        self._add(Kind.NOTE, msgspec.json.encode(what), unix_ns)

    def take(self, most_bytes: int, unix_ns: int) -> bytes:
        """Return the oldest records and forget them: ``most_bytes``, or one record that is longer.

        Return nothing where there are none.
        """
        if self._gap_frames and not self._records:
            self._end_gap(unix_ns)
        taken: list[bytes] = []
        while self._records and (not taken or len(self._records[0]) <= most_bytes):
            taken.append(self._records.popleft())
            most_bytes -= len(taken[-1])
            self.held_bytes -= len(taken[-1]) - _HEADER.size + _OBJECT_BYTES
        return b"".join(taken)

    def _end_gap(self, unix_ns: int) -> None:
        lost = {"lost_frames": self._gap_frames, "lost_bytes": self._gap_bytes}
        self._gap_frames = self._gap_bytes = 0
        self._add(Kind.NOTE, msgspec.json.encode(lost), unix_ns)

    def _add(self, kind: Kind, payload: bytes, unix_ns: int) -> None:
        self._records.append(_HEADER.pack(kind, unix_ns, len(payload)) + payload)
        self.held_bytes += len(payload) + _OBJECT_BYTES


class RecordReader:
    """Takes records out of bytes that come in pieces of any length."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[Record]:
        """Return the records that are complete now. Raise ValueError where it is none of ours."""
        data = self._rest + data
        begin, records = 0, []
        while len(data) - begin >= _HEADER.size:
            kind, unix_ns, length = _HEADER.unpack_from(data, begin)
            if kind not in Kind.__members__.values() or length > MAX_RECORD_BYTES:
                raise ValueError("these are no records of a spotd daemon")
            end = begin + _HEADER.size + length
            if end > len(data):
                break
            records.append(Record(Kind(kind), unix_ns, data[begin + _HEADER.size : end]))
            begin = end
        self._rest = data[begin:]
        return records
