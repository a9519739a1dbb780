"""Bytes from outside as an attacker, a defect or bad luck makes them: near to valid, and far."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
from hypothesis import strategies as st

_TEXT = st.text(max_size=12) | st.sampled_from(("SPY", "q", "t", "T", "S", "*", "\r\n", "\x00", ""))
_NUMBERS = (
    st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.sampled_from((0, -0.0, 1e308, -1e308, float("inf"), float("nan"), 5e-324))
)
_LEAVES = st.none() | st.booleans() | _NUMBERS | _TEXT | st.binary(max_size=12)
_JSON_LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | _TEXT
)
_FIELDS = ("T", "S", "bp", "ap", "p", "t", "c", "z", "sc", "i", "x", "code", "msg", "quotes")
_KINDS = st.sampled_from(("q", "t", "s", "c", "x", "success", "error", "subscription", "b", ""))
_TIMES = st.builds(
    msgspec.msgpack.Ext, st.integers(-128, 127), st.binary(max_size=13)
) | st.datetimes(timezones=st.none() | st.just(UTC))
_AT = datetime(2026, 1, 20, 15, 0, 0, 123_456, tzinfo=UTC)


def values(leaves: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Return anything that is made of these leaves, a few levels deep."""
    return st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_TEXT, inner, max_size=4),
        max_leaves=8,
    )


JSON = values(_JSON_LEAVES)


def _nearly_a_message(parts: tuple[str, dict[str, Any]]) -> dict[str, Any]:
    kind, fields = parts
    return {"T": kind, "S": "SPY", "bp": 1.0, "ap": 2.0, "p": 1.5, "t": _AT, **fields}


MESSAGES = st.tuples(
    _KINDS, st.dictionaries(st.sampled_from(_FIELDS), values(_LEAVES) | _TIMES, max_size=5)
).map(_nearly_a_message)


def _cut(parts: tuple[bytes, int, bytes, int]) -> bytes:
    whole, at, other, end = parts
    at %= len(whole) + 1
    return (whole[:at] + other + whole[at:])[: len(whole) + end]


def damaged(whole: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """Return these bytes with others put in between, or with an end that is missing."""
    return st.tuples(whole, st.integers(0, 10_000), st.binary(max_size=4), st.integers(-20, 4)).map(
        _cut
    )


def _packed(value: Any) -> bytes:
    return msgspec.msgpack.encode(value, enc_hook=str)


_FRAMES = st.lists(MESSAGES | values(_LEAVES), max_size=4).map(_packed)
FRAMES = st.binary(max_size=64) | _FRAMES | damaged(_FRAMES)

ENTRIES = st.one_of(
    st.binary(max_size=80),
    st.from_regex(rb"\s?[A-Za-z]{1,9}(\.[A-Za-z]{1,5})?\s?", fullmatch=True),
    st.sampled_from((b"*", b"", b"@", b"SPY\r\nPUBLISH", b'SPY"}', b"SPY\x00", b"\xff" * 70)),
)
MEMBERS = st.tuples(ENTRIES, st.sampled_from((b"@", b"@@", b"")), st.binary(max_size=20)).map(
    b"".join
)

_ACTION = st.fixed_dictionaries(
    {"action": st.sampled_from(("subscribe", "unsubscribe", "ping", "", "SUBSCRIBE")) | JSON},
    optional={"symbols": JSON | st.lists(_TEXT), "batch": JSON, "max_hz": JSON},
)
_ACTIONS = (_ACTION | JSON).map(msgspec.json.encode)
ACTIONS = st.binary(max_size=64) | _ACTIONS | damaged(_ACTIONS)
