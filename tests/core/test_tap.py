"""What is kept for a recorder that reads slowly, and the form in which it goes out."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spotd.core.tap import MAX_RECORD_BYTES, FrameQueue, Kind, Record, RecordReader

ROOM_BYTES = 1_000
FRAME = b"x" * 136  # with what it costs beside its payload, five of them fill the room


def read(data: bytes) -> list[Record]:
    """Return the records of these bytes."""
    return RecordReader().feed(data)


def said(record: Record) -> dict[str, Any]:
    """Return what a note says."""
    assert record.kind is Kind.NOTE
    found: dict[str, Any] = json.loads(record.payload)
    return found


def test_frames_come_out_as_they_went_in() -> None:
    """Frames and notes keep their order, times and bytes; what was taken is forgotten."""
    queue = FrameQueue(ROOM_BYTES)
    queue.put(b"one", 1)
    queue.note(2, recording="begins")
    queue.put(b"", 3)
    assert read(queue.take(10_000, 4)) == [
        (Kind.FRAME, 1, b"one"),
        (Kind.NOTE, 2, b'{"recording":"begins"}'),
        (Kind.FRAME, 3, b""),
    ]
    assert queue.take(10_000, 5) == b""
    assert queue.held_bytes == 0


def test_as_much_is_taken_as_is_asked_for() -> None:
    """A record is never cut: one that is longer than what is asked for is taken alone."""
    queue = FrameQueue(ROOM_BYTES)
    for n in range(4):
        queue.put(FRAME, n)
    assert [len(read(queue.take(most, 9))) for most in (1, 299, 298)] == [1, 2, 1]


def test_a_frame_without_room_is_lost_whole_until_half_of_it_is_free() -> None:
    """A note tells how much was lost, at the place where it was lost."""
    queue = FrameQueue(ROOM_BYTES)
    for n in range(7):
        queue.put(FRAME, n)
    assert (queue.lost_frames, queue.held_bytes) == (2, ROOM_BYTES)
    first = read(queue.take(298, 8))
    queue.put(FRAME, 9)  # there is room for it, but less than half is free
    assert queue.lost_frames == 3
    first += read(queue.take(149, 10))
    queue.put(FRAME, 11)
    rest = read(queue.take(10_000, 12))
    assert [record.unix_ns for record in first] == [0, 1, 2]
    assert [record.unix_ns for record in rest] == [3, 4, 11, 11]
    assert said(rest[2]) == {"lost_frames": 3, "lost_bytes": 3 * len(FRAME)}
    assert queue.lost_frames == 3


def test_a_loss_is_told_although_no_frame_follows() -> None:
    """The note comes behind the last frame that was kept, before any other note."""
    queue = FrameQueue(ROOM_BYTES)
    for n in range(6):
        queue.put(FRAME, n)
    assert len(read(queue.take(10_000, 7))) == 5
    (note,) = read(queue.take(10_000, 8))
    assert said(note)["lost_frames"] == 1
    assert note.unix_ns == 8

    for n in range(6):
        queue.put(FRAME, n)
    queue.note(9, session="ended")
    *_, lost, ended = read(queue.take(10_000, 10))
    assert said(lost)["lost_frames"] == 1
    assert said(ended) == {"session": "ended"}


def test_a_frame_larger_than_the_room_is_lost() -> None:
    """Those before and behind it are kept."""
    queue = FrameQueue(ROOM_BYTES)
    queue.put(b"before", 1)
    queue.put(b"x" * ROOM_BYTES, 2)
    queue.put(b"behind", 3)
    before, lost, behind = read(queue.take(10_000, 4))
    assert (before.payload, behind.payload) == (b"before", b"behind")
    assert said(lost) == {"lost_frames": 1, "lost_bytes": ROOM_BYTES}


@given(st.lists(st.one_of(st.binary(max_size=400), st.integers(1, 2_000)), max_size=60))
def test_memory_is_bounded_and_every_frame_is_read_or_counted(steps: list[bytes | int]) -> None:
    """This holds for any order of frames that come (bytes) and of reads (how much)."""
    queue, reader = FrameQueue(ROOM_BYTES), RecordReader()
    sent, records = [], []
    for now, step in enumerate(steps):
        if isinstance(step, bytes):
            queue.put(step, now)
            sent.append(step)
        else:
            records += reader.feed(queue.take(step, now))
        assert queue.held_bytes <= ROOM_BYTES + 200  # a note
    while data := queue.take(100, len(steps)):
        records += reader.feed(data)
    kept = [record.payload for record in records if record.kind is Kind.FRAME]
    told = sum(said(record)["lost_frames"] for record in records if record.kind is Kind.NOTE)
    assert told == queue.lost_frames == len(sent) - len(kept)
    left = iter(sent)
    assert all(frame in left for frame in kept)  # in order
    assert queue.held_bytes == 0


@given(st.lists(st.binary(max_size=50), max_size=20), st.lists(st.integers(1, 40), max_size=50))
def test_records_come_in_pieces_of_any_length(frames: list[bytes], cuts: list[int]) -> None:
    """However the bytes are cut, the records are the same."""
    queue, reader = FrameQueue(1 << 20), RecordReader()
    for now, payload in enumerate(frames):
        queue.put(payload, now)
    data, found = queue.take(1 << 20, 0), []
    for cut in (*cuts, len(data) + 1):
        found += reader.feed(data[:cut])
        data = data[cut:]
    assert found == [(Kind.FRAME, now, payload) for now, payload in enumerate(frames)]


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 200 OK\r\n\r\n",
        bytes([7]) + bytes(12),
        bytes([0]) + bytes(8) + (MAX_RECORD_BYTES + 1).to_bytes(4),
    ],
)
def test_other_bytes_are_no_records(data: bytes) -> None:
    """What another program sends is an error, not an endless record."""
    with pytest.raises(ValueError, match="no records"):
        read(data)
