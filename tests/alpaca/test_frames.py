"""Frames are decoded into messages; what is malformed costs nothing else."""

from datetime import UTC, datetime, timedelta
from typing import Any

import msgpack
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spotd.alpaca.frames import FrameDecoder
from spotd.core.messages import (
    Acknowledgement,
    Cancel,
    Correction,
    Error,
    Quote,
    Success,
    Trade,
    TradingStatus,
)
from spotd.simulator.messages import complete
from spotd.simulator.wire import encode

# Alpaca's own bytes for [{"T":"q","S":"AAPL",…,"t":1629736707.572049123}].
_REFERENCE = bytes.fromhex(
    "918ba154a171a153a44141504ca26278a156a26270cb406593d70a3d70a4a2627364a26178a156a26170cb40659666"
    "66666666a26173ccc8a16391a152a17aa143a174d7ff88631b8c6123cf03"
)
_AT = datetime(2026, 1, 20, 15, 0, tzinfo=UTC)
_AT_NS = int(_AT.timestamp()) * 1_000_000_000


def _quote(**changes: Any) -> dict[str, Any]:
    return complete({"T": "q", "S": "SPY", "bp": 1.5, "ap": 1.75, "t": _AT_NS} | changes, 0)


def _frame(*messages: dict[str, Any]) -> bytes:
    return encode(list(messages), "msgpack")


_GOOD = Quote("SPY", 1.5, 1.75, _AT)


def test_alpacas_reference_bytes() -> None:
    """A captured frame is read, its nanoseconds rounded to microseconds."""
    [quote] = FrameDecoder().decode(_REFERENCE)
    at = datetime(2021, 8, 23, 16, 38, 27, 572_049, tzinfo=UTC)
    assert quote == Quote("AAPL", 172.62, 172.7, at)


@pytest.mark.parametrize(
    ("nanoseconds", "microseconds"),
    [(0, 0), (1, 0), (999, 1), (1_000, 1), (572_049_123, 572_049), (999_999_999, 1_000_000)],
)
def test_times_are_of_the_nearest_microsecond(nanoseconds: int, microseconds: int) -> None:
    """Times are rounded in both forms of a timestamp, also into the next second."""
    [quote] = FrameDecoder().decode(_frame(_quote(t=_AT_NS + nanoseconds)))
    assert isinstance(quote, Quote)
    assert quote.at == _AT + timedelta(microseconds=microseconds)


def test_prices_may_be_integers() -> None:
    """A price without cents may be encoded as an integer."""
    [quote] = FrameDecoder().decode(_frame(_quote(bp=100, ap=0)))
    assert isinstance(quote, Quote)
    assert (quote.bid, quote.ask) == (100.0, 0.0)
    assert isinstance(quote.bid, float)


@pytest.mark.parametrize("key", ["r", "zz", ""])
@pytest.mark.parametrize("value", [None, 1, [{"a": [1]}], b"\x00", "text"])
def test_unknown_keys_are_ignored(key: str, value: object) -> None:
    """Keys that are not known are skipped: Alpaca adds them without notice, such as ``r``."""
    message = _quote() | {key: value}
    decoder = FrameDecoder()
    assert decoder.decode(_frame(message)) == [_GOOD]
    assert not decoder.malformed


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("t", Trade),
        ("s", TradingStatus),
        ("c", Correction),
        ("x", Cancel),
    ],
)
def test_the_other_messages_that_are_read(kind: str, expected: type) -> None:
    """Trades, statuses, corrections and cancels are read as the simulator writes them."""
    [message] = FrameDecoder().decode(_frame(complete({"T": kind, "S": "SPY"}, _AT_NS)))
    assert type(message) is expected


def test_control_messages() -> None:
    """Greetings, errors and acknowledgements are read; an acknowledgement may lack channels."""
    decoder = FrameDecoder()
    assert decoder.decode(_frame({"T": "success", "msg": "connected"})) == [Success("connected")]
    assert decoder.decode(_frame({"T": "error", "code": 405, "msg": "no"})) == [Error(405, "no")]
    assert decoder.decode(_frame({"T": "subscription", "quotes": ["A"], "bars": []})) == [
        Acknowledgement(["A"])
    ]


@pytest.mark.parametrize("kind", ["b", "u", "d", "l", "i", "zz"])
def test_other_types_are_counted_and_skipped(kind: str) -> None:
    """A message of a type that is not known costs nothing else in its frame."""
    decoder = FrameDecoder()
    other = complete({"T": kind, "S": "SPY"}, _AT_NS)
    assert decoder.decode(_frame(_quote(), other, _quote())) == [_GOOD, _GOOD]
    assert decoder.malformed == {"unknown_type": 1}


@pytest.mark.parametrize(
    ("bad", "counted"),
    [
        (_quote(bp=None), "quote"),
        (_quote(ap="1.75"), "quote"),
        (_quote() | {"t": "yesterday"}, "quote"),
        (_quote(t=None), "quote"),
        ({"T": "q", "S": "SPY", "bp": 1.5}, "quote"),
        (_quote(S=7), "quote"),
        ({"T": "t", "S": "SPY", "p": [], "t": _AT_NS}, "trade"),
        ({"S": "SPY"}, "message"),
        ({"T": None}, "message"),
        ({"T": {"T": "q"}}, "message"),
        ({}, "message"),
    ],
)
def test_one_malformed_message_costs_only_itself(bad: dict[str, Any], counted: str) -> None:
    """The messages before and after it in the frame are returned, in order."""
    decoder = FrameDecoder()
    other = _quote(S="QQQ")
    decoded = decoder.decode(_frame(_quote(), bad, other))
    assert decoded == [_GOOD, Quote("QQQ", 1.5, 1.75, _AT)]
    assert decoder.malformed == {counted: 1}


@pytest.mark.parametrize("bad", [None, 1, "text", [], True])
def test_an_element_that_is_not_a_map_costs_only_itself(bad: object) -> None:
    """An element that is not a message is counted as a malformed one."""
    decoder = FrameDecoder()
    good = msgspec.msgpack.decode(_frame(_quote()))[0]
    assert decoder.decode(msgspec.msgpack.encode([bad, good])) == [_GOOD]
    assert decoder.malformed == {"message": 1}


def test_text_that_is_not_utf8_costs_only_its_message() -> None:
    """The other quotes of the frame are returned."""
    bad = b"\x82\xa1T\xa1q\xa1S\xa2\xff\xfe"
    good = _frame(_quote())[1:]
    decoder = FrameDecoder()
    assert decoder.decode(b"\x93" + good + bad + good) == [_GOOD, _GOOD]
    assert decoder.malformed == {"quote": 1}


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xc1",
        b"not msgpack",
        b'[{"T":"success","msg":"connected"}]',  # JSON text on a msgpack connection
        msgpack.packb({"T": "q"}),  # a message outside of a list
        msgpack.packb("text"),
        msgpack.packb(None),
        b"\xdd\xff\xff\xff\xff\x01",  # a list of four billion
        b"\x91\x81\xa1T\xdb\xff\xff\xff\xff",  # a text of four gigabytes
        b"\x91" * 100_000,  # nested too deep
        b"\x90\x90",  # two values
    ],
)
def test_a_frame_of_garbage_is_counted(payload: bytes) -> None:
    """Nothing is returned or raised."""
    decoder = FrameDecoder()
    assert decoder.decode(payload) == []
    assert decoder.malformed == {"frame": 1}


def test_an_empty_list_is_nothing() -> None:
    """Nothing is returned or counted."""
    decoder = FrameDecoder()
    assert decoder.decode(msgpack.packb([])) == []
    assert not decoder.malformed


_json_like = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=8)
    | st.binary(max_size=8)
    | st.sampled_from(["q", "t", "s", "c", "x", "error", "success", "subscription"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["T", "S", "bp", "ap", "t", "p", "c", "z", "sc", "code", "msg", "quotes"]
            )
            | st.text(max_size=3),
            inner,
            max_size=8,
        )
    ),
    max_leaves=20,
)


# On a busy machine an example may take long, which says nothing about the decoder.
_unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


@_unhurried
@given(st.binary(max_size=300))
def test_no_bytes_raise(payload: bytes) -> None:
    """Any bytes are decoded into a list."""
    assert isinstance(FrameDecoder().decode(payload), list)


@_unhurried
@given(st.lists(_json_like, max_size=6), st.binary(max_size=4), st.integers(0, 400))
def test_no_almost_messages_raise(parts: list[Any], noise: bytes, at: int) -> None:
    """Well-formed msgpack of another shape, whole or with bytes overwritten, raises nothing."""
    payload = msgspec.msgpack.encode(parts)
    assert isinstance(FrameDecoder().decode(payload), list)
    damaged = bytearray(payload)
    damaged[at : at + len(noise)] = noise
    assert isinstance(FrameDecoder().decode(bytes(damaged)), list)


@_unhurried
@given(st.lists(st.sampled_from([_quote(), {"T": "zz"}, {"T": "q"}, {}]), max_size=12))
def test_every_message_is_returned_or_counted(messages: list[dict[str, Any]]) -> None:
    """A message is either returned or counted as malformed."""
    decoder = FrameDecoder()
    decoded = decoder.decode(_frame(*messages))
    assert len(decoded) + decoder.malformed.total() == len(messages)
