"""Decides which faults happen when, from a seed alone. Talks to nothing.

A round is some faults, which may overlap where they concern different *targets*, and after them a
time without faults in which everything must recover. Every second round has one fault, so that
the recovery from each kind can be told apart. Each kind comes once before any comes again.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

Topology = Literal["server", "sentinel", "cluster"]
Target = Literal["redis", "stream", "daemon"]
TOPOLOGIES: tuple[Topology, ...] = ("server", "sentinel", "cluster")

_MOST_FAULTS = 4  # of one round
_APART_S = 1.0  # between two faults of one target, at least
_SPREAD_S = 6.0  # faults of a round begin within so long


class Kind(NamedTuple):
    """What a fault concerns, and how long it lasts, in seconds."""

    target: Target
    shortest_s: float = 0.0
    longest_s: float = 0.0
    hides_s: float = 0.0
    """How long spotd may take to notice it, because nothing tells it (silence is no sign)."""


_Kinds: TypeAlias = dict[str, Kind]

# A ping that is not answered ends a session after 10 + 5 s. A mute stream is found after 30 s of
# silence by asking REST, which has 10 s to answer, and after 5 minutes while the market is closed
# (the contract, section 3). A slow stream is no fault while it delivers.
_UNANSWERED_PING_S = 15.0
_MUTE_S = 320.0

KINDS: _Kinds = {
    "redis_kill": Kind("redis", 0.1, 8.0),
    "redis_freeze": Kind("redis", 0.5, 12.0),
    "redis_flushall": Kind("redis"),
    "redis_script_flush": Kind("redis"),
    "redis_client_kill": Kind("redis"),
    "redis_client_pause": Kind("redis", 0.3, 3.0),
    "redis_failover": Kind("redis"),
    "stream_cut": Kind("stream"),
    "stream_freeze": Kind("stream", 3.0, 25.0, hides_s=_UNANSWERED_PING_S),
    "stream_mute": Kind("stream", 2.0, 50.0, hides_s=_MUTE_S),
    "stream_406": Kind("stream", 1.0, 8.0),
    "stream_429": Kind("stream", 1.0, 4.0),
    "stream_503": Kind("stream", 1.0, 6.0),
    "stream_slow": Kind("stream", 2.0, 6.0, hides_s=10.0),
    "stream_damage": Kind("stream", 2.0, 6.0),
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
        target, shortest_s, longest_s, _ = KINDS[kind]
        lasts_s = _skewed(rng, shortest_s, longest_s)
        at_s = max(rng.uniform(0.0, _SPREAD_S), free_at_s.get(target, 0.0))
        free_at_s[target] = at_s + lasts_s + _APART_S
        planned.append(Planned(at_s, kind, lasts_s, rng.random()))
    return sorted(planned, key=lambda each: each.at_s)


def _skewed(rng: random.Random, shortest_s: float, longest_s: float) -> float:
    """Return a duration, short ones more often: half of them are in the first quarter."""
    return shortest_s + (longest_s - shortest_s) * rng.random() ** 2
