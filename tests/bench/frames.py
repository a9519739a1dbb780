"""Quotes as Alpaca's stream sends them, encoded beforehand. Decides nothing, sends nothing.

A whole websocket frame, header included, is made once and sent many times; only the 8 bytes of
each quote's time are written anew where lag is measured. So a source costs far less than what it
is to measure.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import msgpack

_ALPHABET = 26
_LENGTH = 4  # of a symbol
_STEP = 7_919  # has no divisor in common with 26: every name is met once
_TIME_BYTES = 8
_BINARY = 0x82
_FIRST_S = 1_760_000_000  # the exchange time of quotes that are not stamped
_CENTS = 100


def symbols(count: int, *, first_letter: str = "") -> list[str]:
    """``count`` distinct symbols of five letters at most; a first letter sets a group apart."""
    space = _ALPHABET**_LENGTH
    if count > space:
        raise ValueError(f"at most {space} symbols")
    return [first_letter + _name(i * _STEP % space) for i in range(count)]


def _name(number: int) -> str:
    letters = []
    for _ in range(_LENGTH):
        number, letter = divmod(number, _ALPHABET)
        letters.append(chr(ord("A") + letter))
    return "".join(letters)


def quote(symbol: str, bid: float, ask: float, at_ns: int) -> bytes:
    """One quote in msgpack, its keys in Alpaca's order; its last 8 bytes are the time."""
    packed: bytes = msgpack.packb(
        {
            "T": "q",
            "S": symbol,
            "bx": "V",
            "bp": bid,
            "bs": 100,
            "ax": "V",
            "ap": ask,
            "as": 200,
            "c": ["R"],
            "z": "C",
            # never a whole second, which would be encoded in 4 bytes
            "t": msgpack.Timestamp.from_unix_nano(at_ns | 1),
        }
    )
    return packed


def time_bytes(unix_ns: int) -> bytes:
    """A time as the last 8 bytes of a quote: 30 bits of nanoseconds, 34 bits of seconds."""
    seconds, nanoseconds = divmod(unix_ns, 1_000_000_000)
    return struct.pack(">Q", nanoseconds << 34 | seconds)


def message(quotes: Sequence[bytes]) -> bytes:
    """The payload of one frame: an array of quotes."""
    packer = msgpack.Packer()
    return bytes(packer.pack_array_header(len(quotes))) + b"".join(quotes)


def framed(payload: bytes) -> bytes:
    """A whole binary frame as a server sends it, header included."""
    if len(payload) < 126:
        return struct.pack(">BB", _BINARY, len(payload)) + payload
    if len(payload) < 65_536:
        return struct.pack(">BBH", _BINARY, 126, len(payload)) + payload
    return struct.pack(">BBQ", _BINARY, 127, len(payload)) + payload


def messages(
    names: Sequence[str], *, quotes: int, per_frame: int, seed: int = 1
) -> Iterator[list[bytes]]:
    """``quotes`` quotes in groups of a frame: every symbol once, shuffled, then all again."""
    rng = random.Random(seed)
    cents = {name: rng.randrange(500, 90_000) for name in names}
    order = list(names)
    gathered: list[bytes] = []
    at_ns = _FIRST_S * 1_000_000_000
    made = 0
    while made < quotes:
        rng.shuffle(order)
        for name in order[: quotes - made]:
            bid = cents[name] = max(100, cents[name] + rng.randrange(-2, 3))
            at_ns += 12_345
            spread = rng.randrange(1, 5)
            gathered.append(quote(name, bid / _CENTS, (bid + spread) / _CENTS, at_ns))
            if len(gathered) == per_frame:
                yield gathered
                gathered = []
        made += min(len(order), quotes - made)
    if gathered:
        yield gathered


@dataclass(slots=True)
class Pool:
    """Frames one behind another, and where in them the times are.

    Frame ``i`` is ``data[bounds[i]:bounds[i + 1]]``; the times of its quotes begin at
    ``times[i * per_frame : (i + 1) * per_frame]``.
    """

    data: bytearray
    bounds: list[int]
    times: list[int]
    per_frame: int

    @property
    def frames(self) -> int:
        """How many frames there are, each of ``per_frame`` quotes."""
        return len(self.bounds) - 1

    def stamp(self, first: int, end: int, unix_ns: int) -> None:
        """Write this time into the quotes of frames ``first`` to ``end`` (not included)."""
        data, now = self.data, time_bytes(unix_ns)
        for place in self.times[first * self.per_frame : end * self.per_frame]:
            data[place : place + _TIME_BYTES] = now


def pool(names: Sequence[str], *, quotes: int, per_frame: int, seed: int = 1) -> Pool:
    """Frames of ``per_frame`` quotes each, about ``quotes`` in all."""
    whole = max(1, quotes // per_frame) * per_frame
    data, bounds, times = bytearray(), [0], []
    for group in messages(names, quotes=whole, per_frame=per_frame, seed=seed):
        frame = framed(message(group))
        place = len(data) + len(frame) - sum(map(len, group))
        for one in group:
            place += len(one)
            times.append(place - _TIME_BYTES)
        data += frame
        bounds.append(len(data))
    return Pool(data, bounds, times, per_frame)
