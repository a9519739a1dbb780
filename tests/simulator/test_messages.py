"""Messages and their bytes: absent fields, times, and frames exactly as Alpaca sends them."""

import json
from datetime import UTC, datetime
from typing import Any

import msgpack
import pytest

from spotd.simulator.messages import complete
from spotd.simulator.wire import encode

NOW_NS = 1_768_885_920_000_000_000
REFERENCE = bytes.fromhex(
    "918ba154a171a153a44141504ca26278a156a26270cb406593d70a3d70a4a2627364a26178a156a26170cb40659666"
    "66666666a26173ccc8a16391a152a17aa143a174d7ff88631b8c6123cf03"
)
QUOTE = {
    "T": "q", "S": "AAPL", "bx": "V", "bp": 172.62, "bs": 100, "ax": "V", "ap": 172.7, "as": 200,
    "c": ["R"], "z": "C", "t": 1629736707572049123,
}  # fmt: skip


def test_msgpack_is_alpacas_byte_for_byte() -> None:
    """The reference frame has key order, float prices and the timestamp with nanoseconds."""
    assert encode([QUOTE], "msgpack") == REFERENCE


def test_whole_seconds_are_the_short_timestamp() -> None:
    """A time without nanoseconds is `d6 ff` and four bytes."""
    message = QUOTE | {"t": 1629736707000000000}
    assert encode([message], "msgpack")[-6:] == b"\xd6\xff\x61\x23\xcf\x03"


@pytest.mark.parametrize(
    ("when", "text"),
    [
        (1629736707572049123, "2021-08-23T16:38:27.572049123Z"),
        (1614009104208000000, "2021-02-22T15:51:44.208Z"),
        (1614021300000000000, "2021-02-22T19:15:00Z"),
        (datetime(2021, 2, 22, 19, 15, 0, 250, UTC), "2021-02-22T19:15:00.00025Z"),
        ("2021-02-22T14:15:00.5-05:00", "2021-02-22T19:15:00.5Z"),
        ("2021-02-22T19:15:00Z", "2021-02-22T19:15:00Z"),
    ],
)
def test_json_times_have_no_trailing_zeros(when: object, text: str) -> None:
    """They have up to nine decimals; tests may give nanoseconds, a datetime or text."""
    message = complete({"T": "t", "S": "AAPL", "t": when, "r": when}, NOW_NS)
    [decoded] = json.loads(encode([message], "json"))
    assert decoded["t"] == decoded["r"] == text


@pytest.mark.parametrize(
    "message",
    [
        {"T": "q", "S": "A", "t": "yesterday"},
        {"T": "q", "S": "A", "t": datetime(2021, 2, 22)},  # noqa: DTZ001 - the point of it
        {"S": "A"},
    ],
)
def test_what_cannot_be_sent_is_a_value_error(message: dict[str, Any]) -> None:
    """A mistake of a test is not sent."""
    with pytest.raises(ValueError, match=r"time|type"):
        complete(message, NOW_NS)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"bp": 10.0}, {"bp": 10.0, "ap": 10.02}),
        ({"ap": 10.0}, {"bp": 9.98, "ap": 10.0}),
        ({"bp": None}, {"bp": None, "ap": None}),
        ({"ap": None}, {"bp": None, "ap": None}),
        ({"bp": 11, "ap": 10}, {"bp": 11, "ap": 10, "bs": 100, "c": ["R"]}),
        ({"r": 5}, {"r": 5}),
        ({"t": None}, {"t": None}),
    ],
)
def test_absent_fields_are_filled_in(given: dict[str, Any], expected: dict[str, Any]) -> None:
    """What is given stays, None too; an absent `t` is the current time; integers stay integers."""
    [message] = msgpack.unpackb(
        encode([complete({"S": "A", "T": "q"} | given, NOW_NS)], "msgpack"), timestamp=2
    )
    expected = {"t": NOW_NS} | expected
    assert {name: message[name] for name in expected} == expected
    assert type(message["bp"]) is type(expected.get("bp", 1.0))
    assert list(message)[:2] == ["T", "S"]


def test_an_unknown_type_is_taken_as_it_is() -> None:
    """Only `T` is put first."""
    assert list(complete({"x": 1, "T": "newer"}, NOW_NS).items()) == [("T", "newer"), ("x", 1)]
