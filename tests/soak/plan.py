"""Decides which faults happen when, from a seed alone. Talks to nothing.

A round is some faults, which may overlap where they concern different *targets*, and after them a
time without faults in which everything must recover. Every second round has one fault, so that
the recovery from each kind can be told apart. Each kind comes once before any comes again.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import inf
from types import MappingProxyType
from typing import Literal, NamedTuple, TypeAlias

from tests.soak.contradictions import Window

Topology = Literal["server", "sentinel", "cluster"]
Target = Literal["redis", "stream", "daemon"]
Truth = Literal["prices", "answers", "connection"]
TOPOLOGIES: tuple[Topology, ...] = ("server", "sentinel", "cluster")

_MOST_FAULTS = 4  # of one round
_APART_S = 1.0  # between two faults of one target, at least
_SPREAD_S = 6.0  # the faults of a round begin within this time


class Kind(NamedTuple):
    """What a fault concerns, and how long it lasts, in seconds."""

    target: Target
    shortest_s: float = 0.0
    longest_s: float = 0.0
    hides: Mapping[Truth, float] = MappingProxyType({})
    """What does not reach spotd meanwhile (prices, Alpaca's answers, the end of a connection), and
    how long spotd may take to notice that, in seconds: silence is no sign."""


_Kinds: TypeAlias = dict[str, Kind]
Hidden: TypeAlias = Mapping[Truth, tuple[Window, ...]]

# A ping that is not answered ends a session after 10 + 5 s. REST is asked about a mute stream
# after 10 s of silence, as while the market is open (``counted``). Another 10 s are the grace for
# its prices, and 5 s are for the call to REST. A slow stream is no fault while it delivers.
#
# While it is half-open, the simulator reads nothing. So it counts a session that spotd gave up, and
# what spotd then says of it (stale, not connected) is true.
_FREEZE: Mapping[Truth, float] = {"prices": 15.0, "answers": 15.0, "connection": inf}
_MUTE: Mapping[Truth, float] = {"prices": 25.0}
_SLOW: Mapping[Truth, float] = {"prices": 10.0, "answers": 10.0}
# A text frame cannot be read. What it held is lost, until the next quote of the symbol.
_DAMAGE: Mapping[Truth, float] = {"prices": inf}

KINDS: _Kinds = {
    "redis_kill": Kind("redis", 0.1, 8.0),
    "redis_freeze": Kind("redis", 0.5, 12.0),
    "redis_flushall": Kind("redis"),
    "redis_script_flush": Kind("redis"),
    "redis_client_kill": Kind("redis"),
    "redis_client_pause": Kind("redis", 0.3, 3.0),
    "redis_failover": Kind("redis"),
    "stream_cut": Kind("stream"),
    "stream_freeze": Kind("stream", 3.0, 25.0, _FREEZE),
    "stream_mute": Kind("stream", 2.0, 50.0, _MUTE),
    "stream_406": Kind("stream", 1.0, 8.0),
    "stream_429": Kind("stream", 1.0, 4.0),
    "stream_503": Kind("stream", 1.0, 6.0),
    "stream_slow": Kind("stream", 2.0, 6.0, _SLOW),
    "stream_damage": Kind("stream", 2.0, 6.0, _DAMAGE),
    "rest_fails": Kind("stream", 2.0, 8.0),
    "leader_freeze": Kind("daemon", 0.5, 12.0),
    "leader_kill": Kind("daemon", 0.0, 4.0),
    "leader_stop": Kind("daemon", 0.0, 4.0),
    "standby_freeze": Kind("daemon", 0.5, 12.0),
    "standby_kill": Kind("daemon", 0.0, 4.0),
    "standby_stop": Kind("daemon", 0.0, 4.0),
}


@dataclass(frozen=True, slots=True)
class Planned:
    """One fault: when it begins, in seconds from the round's begin, and how long it lasts.

    ``choice`` is a number in [0, 1) for what else the fault chooses.
    """

    at_s: float
    kind: str
    lasts_s: float
    choice: float

    def __str__(self) -> str:
        """Return kind and duration."""
        return f"{self.kind} {self.lasts_s:.1f} s" if self.lasts_s else self.kind


@dataclass(slots=True)
class Hiding:
    """A fault that may hide something from spotd, in monotonic seconds; it ends when it is over."""

    kind: str
    begins: float
    ends: float = inf


def hidden(faults: Iterable[Hiding], opened: Iterable[float]) -> Hidden:
    """Return when faults hid something from spotd. ``opened``: when its sessions were opened.

    A session that is opened during such a fault has the whole time to notice it.
    """
    sessions = tuple(opened)
    windows: dict[Truth, list[Window]] = defaultdict(list)
    for fault in faults:
        starts = [fault.begins, *(at for at in sessions if fault.begins < at < fault.ends)]
        for truth, seconds in KINDS[fault.kind].hides.items():
            windows[truth] += [Window(at, min(at + seconds, fault.ends)) for at in starts]
    return {truth: tuple(each) for truth, each in windows.items()}


def kinds_of(topology: Topology) -> list[str]:
    """Return the kinds of faults that a topology can have, in the order of the table."""
    return [kind for kind in KINDS if kind != "redis_failover" or topology != "server"]


def rounds(seed: int, topology: Topology, only: tuple[str, ...] = ()) -> Iterator[list[Planned]]:
    """Yield the faults of each round, endlessly. ``only``: no other kinds than these."""
    rng = random.Random(f"{seed}/{topology}")
    kinds = _endlessly([kind for kind in kinds_of(topology) if not only or kind in only], rng)
    single = False
    while True:
        single = not single
        number = 1 if single else rng.randint(2, _MOST_FAULTS)
        yield _spread([next(kinds) for _ in range(number)], rng)


def _endlessly(kinds: list[str], rng: random.Random) -> Iterator[str]:
    while True:
        rng.shuffle(kinds)
        yield from kinds


def _spread(kinds: list[str], rng: random.Random) -> list[Planned]:
    free_at_s: dict[Target, float] = {}
    planned = []
    for kind in kinds:
        target, shortest_s, longest_s, *_ = KINDS[kind]
        lasts_s = _skewed(rng, shortest_s, longest_s)
        at_s = max(rng.uniform(0.0, _SPREAD_S), free_at_s.get(target, 0.0))
        free_at_s[target] = at_s + lasts_s + _APART_S
        planned.append(Planned(at_s, kind, lasts_s, rng.random()))
    return sorted(planned, key=lambda each: each.at_s)


def _skewed(rng: random.Random, shortest_s: float, longest_s: float) -> float:
    """Return a duration, short ones more often: half of them are in the first quarter."""
    return shortest_s + (longest_s - shortest_s) * rng.random() ** 2
