"""Quotes with the moments at which they are sent: a recorded day, and uneven activity.

One quote a frame, encoded beforehand. Decides nothing, sends nothing.
"""

from __future__ import annotations

import gzip
import json
import random
from datetime import datetime
from itertools import accumulate
from typing import NamedTuple

from tests.bench import frames
from tests.kit.recorded_day import DAY

_BURST_EVERY_S = 10.0
_BURST_S = 0.5  # half of all quotes come in it, at ten times the average pace
_BURST_TIMES = 10


class Schedule(NamedTuple):
    """Frames without the 8 bytes of their time, which ends them, and when each is sent.

    ``at_s`` is in seconds since the begin, and never falls.
    """

    frames: list[bytes]
    at_s: list[float]


def recorded(symbol: str, seconds: float) -> Schedule:
    """Return the quotes of the first ``seconds`` of the recording, as those of ``symbol``."""
    made = Schedule([], [])
    began: float | None = None
    with gzip.open(DAY, "rt") as lines:
        for line in lines:
            told = json.loads(line)
            if told["T"] != "q":
                continue
            unix_s = datetime.fromisoformat(told["t"]).timestamp()
            began = unix_s if began is None else began
            if unix_s - began > seconds:
                break
            _add(made, symbol, told["bp"], told["ap"], unix_s - began)
    return made


def uneven(names: list[str], rate: float, seconds: float) -> Schedule:
    """Return ``rate`` quotes a second on average, in bursts and lulls, few symbols with most."""
    rng = random.Random(2)
    weights = list(accumulate(1 / rank for rank in range(1, len(names) + 1)))
    burst = _BURST_TIMES * rate
    lull = (rate * _BURST_EVERY_S - burst * _BURST_S) / (_BURST_EVERY_S - _BURST_S)
    made = Schedule([], [])
    at_s = 0.0
    while (at_s := at_s + rng.expovariate(burst if _bursts(at_s) else lull)) < seconds:
        [name] = rng.choices(names, cum_weights=weights)
        bid = 100 + rng.randrange(-50, 50) / 100
        _add(made, name, bid, bid + 0.01, at_s)
    return made


def _bursts(at_s: float) -> bool:
    return at_s % _BURST_EVERY_S < _BURST_S


def _add(made: Schedule, symbol: str, bid: float, ask: float, at_s: float) -> None:
    frame = frames.framed(frames.message([frames.quote(symbol, bid, ask, 1)]))
    made.frames.append(frame[: -len(frames.time_bytes(1))])
    made.at_s.append(at_s)
