"""What a recording holds: lines of frames, and the decision when files begin, end and go."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import msgpack
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spotd.core.recording import Bounds, Lines, Step, rfc3339, step_before
from spotd.core.tap import Kind, Record

AT_NS = 1_768_885_920_123_456_789
AT = "2026-01-20T05:12:00.123456789Z"


def quote(symbol: str, at_ns: int = AT_NS) -> dict[str, Any]:
    """Return a quote as Alpaca sends it."""
    at = msgpack.Timestamp.from_unix_nano(at_ns)
    return {"T": "q", "S": symbol, "bx": "V", "bp": 421.35, "bs": 100, "ap": 422, "t": at}


def frame(*messages: Any) -> Record:
    """Return the record of a frame that came at ``AT_NS``."""
    return Record(Kind.FRAME, AT_NS, msgpack.packb(messages))


def lines_of(lines: Lines, *records: Record) -> list[Any]:
    """Return the decoded lines of records, without those that make none."""
    return [json.loads(line) for record in records if (line := lines.of(record))]


def test_a_line_holds_the_messages_of_a_frame_as_they_came() -> None:
    """Fields and their order are Alpaca's, times keep their nanoseconds, integers stay integers."""
    line = Lines().of(frame(quote("SPY"), quote("QQQ", 1_768_885_920 * 10**9)))
    expected = (
        f'[{{"T":"spotd","received":"{AT}"}},'
        f'{{"T":"q","S":"SPY","bx":"V","bp":421.35,"bs":100,"ap":422,"t":"{AT}"}},'
        '{"T":"q","S":"QQQ","bx":"V","bp":421.35,"bs":100,"ap":422,"t":"2026-01-20T05:12:00Z"}]\n'
    )
    assert line.decode() == expected


def test_only_the_symbols_that_are_asked_for() -> None:
    """Messages of others are left out, those without a symbol stay, and acknowledgements shrink."""
    lines = Lines(["SPY", "IBM"])
    acknowledgement = {"T": "subscription", "quotes": ["QQQ", "SPY"], "statuses": ["*"]}
    found = lines_of(
        lines,
        frame({"T": "success", "msg": "authenticated"}),
        frame(acknowledgement),
        frame(quote("QQQ"), quote("SPY"), quote("QQQ")),
        frame(quote("QQQ")),
        frame({"T": "s", "S": "SPY", "sc": "H"}, {"T": "x", "S": "QQQ"}),
        frame({"T": "error", "code": 405, "msg": "symbol limit exceeded"}),
    )
    assert [[(each["T"], each.get("S")) for each in line[1:]] for line in found] == [
        [("success", None)],
        [("subscription", None)],
        [("q", "SPY")],
        [("s", "SPY")],
        [("error", None)],
    ]
    assert found[1][1] == {"T": "subscription", "quotes": ["SPY"], "statuses": ["*"]}
    assert lines.kinds == {"success": 1, "subscription": 1, "q": 1, "s": 1, "error": 1}
    assert lines.seen == {"SPY"}


def test_everything_without_symbols() -> None:
    """Without a list of symbols nothing is left out."""
    acknowledgement = {"T": "subscription", "quotes": ["QQQ"]}
    found = lines_of(Lines(), frame(acknowledgement), frame(quote("QQQ")), frame({"T": "new"}))
    assert [line[1]["T"] for line in found] == ["subscription", "q", "new"]
    assert found[0][1] == acknowledgement


def test_notes_are_lines_of_their_own() -> None:
    """They say when, and the first one which symbols; frames that were lost are counted."""
    lines = Lines(["SPY"])
    begins = Record(Kind.NOTE, AT_NS, b'{"recording":"begins"}')
    lost = Record(Kind.NOTE, AT_NS, b'{"lost_frames":3,"lost_bytes":9}')
    assert lines_of(lines, begins, lost) == [
        {"T": "spotd", "at": AT, "recording": "begins", "symbols": ["SPY"]},
        {"T": "spotd", "at": AT, "lost_frames": 3, "lost_bytes": 9},
    ]
    assert lines.lost_frames == 3
    assert lines_of(Lines(), begins) == [{"T": "spotd", "at": AT, "recording": "begins"}]


@pytest.mark.parametrize("symbols", [[], ["SPY"]])
def test_malformed_messages_are_kept(symbols: list[str]) -> None:
    """A recording is for the minute in which something went wrong."""
    strange = [{"T": "q", "S": "SPY", "bp": "high"}, 5, {"T": 7, "S": 8, "b": b"\x00"}, {}]
    found = lines_of(Lines(symbols), frame(*strange), frame({"T": "q", "S": "SPY", "bp": b"x"}))
    assert found[0][1:] == [strange[0], 5, {"T": 7, "S": 8, "b": "AA=="}, {}]
    assert found[1][1]["bp"] == "eA=="


@pytest.mark.parametrize(
    "payload",
    [b'[{"T":"error","msg":"text"}]', b"\xc1\xff\xff", msgpack.packb({"T": "q"}), b"\x91" * 90_000],
)
@pytest.mark.parametrize("symbols", [[], ["SPY"]])
def test_a_frame_that_is_no_list_is_shown(payload: bytes, symbols: list[str]) -> None:
    """The beginning of its bytes is in a note, which a replay leaves out."""
    (note,) = lines_of(Lines(symbols), Record(Kind.FRAME, AT_NS, payload))
    assert note["T"] == "spotd"
    assert note["bytes"] == len(payload)
    shown = payload[:500].decode("utf-8", "backslashreplace")
    assert note["unreadable"] == shown


@pytest.mark.parametrize(
    ("extension", "text"),
    [
        (msgpack.Timestamp(1, 0), "1970-01-01T00:00:01Z"),
        (msgpack.Timestamp(1, 500_000_000), "1970-01-01T00:00:01.5Z"),
        (msgpack.Timestamp(-1, 5), "1969-12-31T23:59:59.000000005Z"),
        (msgpack.Timestamp(2**60, 5), f"extension -1: {5:08x}{2**60:016x}"),
        (msgspec.msgpack.Ext(-1, b"abc"), "extension -1: 616263"),
        (msgspec.msgpack.Ext(9, b"abc"), "extension 9: 616263"),
    ],
)
def test_each_form_of_a_time(extension: Any, text: str) -> None:
    """MessagePack has three lengths of a time. What is none of them is shown as it is."""
    if isinstance(extension, msgpack.Timestamp):
        extension = msgspec.msgpack.Ext(-1, extension.to_bytes())
    payload = msgspec.msgpack.encode([{"T": "q", "t": extension}])
    ((_, message),) = lines_of(Lines(), Record(Kind.FRAME, AT_NS, payload))
    assert message["t"] == text


def test_times_are_written_as_alpaca_writes_them() -> None:
    """Zeros at the end are left out."""
    assert rfc3339(AT_NS) == AT
    assert rfc3339(AT_NS - 789) == "2026-01-20T05:12:00.123456Z"
    assert rfc3339(0) == "1970-01-01T00:00:00Z"


# Files

ONE = Bounds(total_bytes=1_000)
BY_SIZE = Bounds(total_bytes=1_000, file_bytes=300, files=3)
BY_TIME = Bounds(total_bytes=1_000, file_s=60, files=3)


@pytest.mark.parametrize(
    ("bounds", "sizes", "piece", "age_s", "step"),
    [
        (ONE, [0], 1_000, 0.0, Step()),
        (ONE, [900], 100, 9e9, Step()),
        (ONE, [900], 101, 0.0, Step(ends=True)),
        (BY_SIZE, [200], 100, 5.0, Step()),
        (BY_SIZE, [200], 101, 5.0, Step(new_file=True)),
        # Two files of one second would have the same name.
        (BY_SIZE, [200], 101, 0.9, Step()),
        # A piece that is larger than a file has a file of its own.
        (BY_SIZE, [0], 999, 5.0, Step()),
        (BY_SIZE, [300, 300, 300], 100, 5.0, Step(new_file=True, delete=1)),
        (BY_SIZE, [300, 300, 100], 100, 5.0, Step()),
        # Files of an earlier run with other bounds.
        (BY_SIZE, [300, 300, 300, 300, 0], 100, 0.0, Step(delete=2)),
        (BY_SIZE, [900, 100, 0], 100, 0.0, Step(delete=1)),
        (BY_TIME, [200], 100, 59.9, Step()),
        (BY_TIME, [200], 100, 60.0, Step(new_file=True)),
        (BY_TIME, [0], 100, 60.0, Step()),
        # Without a bound of its own, a file is at most half of all.
        (BY_TIME, [450], 100, 10.0, Step(new_file=True)),
        (BY_TIME, [500, 450], 100, 10.0, Step(new_file=True, delete=1)),
    ],
)
def test_what_is_done_before_a_piece_is_written(
    bounds: Bounds, sizes: Sequence[int], piece: int, age_s: float, step: Step
) -> None:
    """One file ends at its bound; several go on, and the oldest make room."""
    assert step_before(bounds, sizes, piece, age_s) == step


@given(
    st.lists(st.tuples(st.integers(1, 300), st.sampled_from([1.0, 30.0, 70.0])), max_size=50),
    st.sampled_from([BY_SIZE, BY_TIME, Bounds(total_bytes=1_000, file_bytes=5_000, files=1)]),
)
def test_files_never_exceed_their_bounds(pieces: list[tuple[int, float]], bounds: Bounds) -> None:
    """Neither their number nor their bytes, whatever is written and however fast."""
    sizes, age_s = [0], 0.0
    for piece, passed_s in pieces:
        age_s += passed_s
        step = step_before(bounds, sizes, piece, age_s)
        assert not step.ends
        if step.new_file:
            sizes.append(0)
            age_s = 0.0
        assert step.delete < len(sizes)
        del sizes[: step.delete]
        sizes[-1] += piece
        assert len(sizes) <= bounds.files
        assert sum(sizes) <= bounds.total_bytes
