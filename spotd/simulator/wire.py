"""Encodes and decodes Alpaca's JSON and msgpack, and its times with nanoseconds.

Inside the simulator a message is a dict whose times are integers, nanoseconds since 1970. This
module does not decide what is sent.
"""

import re
from datetime import UTC, datetime
from functools import lru_cache
from struct import Struct
from typing import Any, Literal, TypeAlias

import msgspec

Message: TypeAlias = dict[str, Any]
Encoding: TypeAlias = Literal["json", "msgpack"]

_TIMES = ("t", "r")  # the time of the event, and the time at which the server received it
_WHEN = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?([Zz]|[+-]\d\d:\d\d)", re.ASCII
)
_short = Struct(">I").pack
_long = Struct(">Q").pack
_msgpack = msgspec.msgpack.Encoder()
_json = msgspec.json.Encoder()


class WireError(ValueError):
    """Bytes that cannot be decoded in the encoding of their connection."""


def encode(messages: list[Message], encoding: Encoding) -> bytes:
    """Return the payload of a frame: an array of maps, in the order of their keys."""
    if encoding == "msgpack":
        return _msgpack.encode([_with_times(each, _extension) for each in messages])
    return _json.encode([_with_times(each, rfc3339) for each in messages])


def decode(data: bytes | str, encoding: Encoding) -> Any:
    """Return what a client sent. Raise `WireError` if it cannot be decoded."""
    try:
        if encoding == "msgpack":
            return msgspec.msgpack.decode(data.encode() if isinstance(data, str) else data)
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as problem:
        raise WireError(str(problem)) from problem


def _with_times(message: Message, write: Any) -> Message:
    moment = message.get("t")
    if type(moment) is not int and "r" not in message:
        return message
    copy = message.copy()
    for name in _TIMES:
        if type(message.get(name)) is int:
            copy[name] = write(message[name])
    return copy


def _extension(moment_ns: int) -> msgspec.msgpack.Ext:
    """Return the msgpack timestamp: 4 bytes for whole seconds, else 30 bits ns and 34 bits s."""
    seconds, ns = divmod(moment_ns, 1_000_000_000)
    return msgspec.msgpack.Ext(-1, _long(ns << 34 | seconds) if ns else _short(seconds))


def rfc3339(moment_ns: int) -> str:
    """Return UTC with up to nine decimals, without trailing zeros: `2021-02-22T15:51:44.208Z`."""
    seconds, ns = divmod(moment_ns, 1_000_000_000)
    return f"{_second(seconds)}.{ns:09d}".rstrip("0") + "Z" if ns else _second(seconds) + "Z"


@lru_cache(maxsize=4096)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def nanoseconds(moment: int | datetime | str) -> int:
    """Return a time given as nanoseconds, aware datetime or RFC 3339 text in nanoseconds.

    Raise `ValueError` if a text is not RFC 3339 or a datetime has no time zone.
    """
    if isinstance(moment, int):
        return moment
    if isinstance(moment, datetime):
        if moment.tzinfo is None:
            raise ValueError(f"a time without a time zone: {moment}")
        whole = int(moment.replace(microsecond=0).timestamp())
        return whole * 1_000_000_000 + moment.microsecond * 1_000
    parts = _WHEN.fullmatch(moment)
    if parts is None:
        raise ValueError(f"not a time in RFC 3339: {moment!r}")
    day, clock, fraction, zone = parts.groups()
    return _seconds_of(day, clock, zone) * 1_000_000_000 + int((fraction or "0").ljust(9, "0"))


@lru_cache(maxsize=4096)
def _seconds_of(day: str, clock: str, zone: str) -> int:
    return int(datetime.fromisoformat(f"{day}T{clock}{zone.upper()}").timestamp())
