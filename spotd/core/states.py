"""Decides what the facts mean: the daemon's state, each symbol's state, ready or not and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import NamedTuple

from spotd.core.demand import MAX_REFUSED_SHOWN
from spotd.models import DaemonStateName, SymbolCounts, SymbolStateName
from spotd.symbols import WILDCARD, Refusal

MUTE_SLACK = timedelta(seconds=5)


@dataclass(slots=True)
class Facts:
    """What is known at one moment; the loops write it, each its own fields."""

    started: bool = False
    stopping: bool = False
    leader: bool = False
    lease_works: bool = False  # the lease was seen, ours or another's, within its TTL
    redis_error: str | None = None
    stream_open: bool = False  # connected and authenticated
    stream_mute: bool = False  # open, and silent although the market is not
    stream_waiting: str | None = None  # why the next try is timed
    desired: int = 0
    all_refused: bool = False  # nothing active, and nothing left to ask for
    ever_active: set[str] = field(default_factory=set)  # were live before, and are still desired


def daemon_state(facts: Facts, active: int) -> tuple[DaemonStateName, str | None]:
    """The state of the daemon, and the sentence that explains it."""
    state: DaemonStateName
    reason: str | None = None
    if facts.stopping:
        state = "stopping"
    elif not facts.started:
        state, reason = "starting", facts.redis_error
    elif not facts.leader:
        state = "standby"
        reason = facts.redis_error or "another daemon is the leader"
    elif facts.desired == 0:
        state = "idle"
    elif facts.stream_waiting is not None:
        state, reason = "waiting", facts.stream_waiting
    elif facts.stream_open and active:
        state = "streaming"
        if facts.stream_mute:
            reason = "the stream is open but delivers nothing, although the market moves"
    elif facts.stream_open and facts.all_refused:
        state, reason = "streaming", "every desired symbol is refused"
    elif facts.stream_open:
        state, reason = "connecting", "subscribing"
    else:
        state = "connecting"
    return state, reason


def not_ready_because(facts: Facts, active: int) -> list[str]:
    """Reasons against being ready; empty: ready.

    Ready is a leader with a working stream or nothing desired, or a standby with a working lease.
    """
    if facts.stopping:
        return ["stopping"]
    reasons = []
    if facts.redis_error is not None:
        reasons.append(f"redis: {facts.redis_error}")
    if not facts.leader:
        if not facts.lease_works:
            reasons.append("the leader lease has not been seen working")
        return reasons
    if facts.desired == 0:
        return reasons
    if facts.stream_waiting is not None:
        reasons.append(f"stream: {facts.stream_waiting}")
    elif not facts.stream_open:
        reasons.append("stream: connecting")
    elif not active and not facts.all_refused:
        reasons.append("stream: no symbol is acknowledged yet")
    elif facts.stream_mute:
        reasons.append("stream: mute")
    return reasons


def brings_too_little(*, stream_at: datetime, rest_at: datetime) -> bool:
    """Whether REST's latest quote is so much newer than the stream's that the stream is mute.

    Both come from the same feed; REST may be ahead by the moment between two looks, not more.
    """
    return rest_at - stream_at > MUTE_SLACK


class Verdict(NamedTuple):
    """The state of one symbol or refused entry, without its time."""

    state: SymbolStateName
    reason: str | None = None
    detail: str | None = None


def verdict_of(
    symbol: str, *, facts: Facts, active: frozenset[str], halted: frozenset[str]
) -> Verdict:
    """The state of a desired symbol that is not refused."""
    if symbol in active or WILDCARD in active:
        if not facts.stream_open or facts.stream_mute:
            return _STALE
        return _HALTED if symbol in halted else _LIVE
    return _STALE if symbol in facts.ever_active else _PENDING


def symbol_verdicts(
    desired: Iterable[str],
    *,
    facts: Facts,
    active: frozenset[str],
    halted: frozenset[str],
    refused: Mapping[str, Refusal],
    entries_refused: Mapping[str, Refusal],
) -> dict[str, Verdict]:
    """The state of every desired symbol and of refused entries, the latter at most 1,000.

    Valid symbols that are refused come before ill-formed entries.
    """
    verdicts: dict[str, Verdict] = {}
    room = MAX_REFUSED_SHOWN
    for symbol in desired:
        refusal = refused.get(symbol)
        if refusal is None:
            verdicts[symbol] = verdict_of(symbol, facts=facts, active=active, halted=halted)
        elif room > 0:
            room -= 1
            verdicts[symbol] = Verdict("refused", refusal.reason, refusal.detail)
    for entry, refusal in entries_refused.items():
        if room <= 0:
            break
        if entry not in verdicts:
            room -= 1
            verdicts[entry] = Verdict("refused", refusal.reason, refusal.detail)
    return verdicts


class Standings:
    """All verdicts and how many there are of each, brought up to date by what changed."""

    def __init__(self) -> None:
        self.verdicts: dict[str, Verdict] = {}
        self._tally: Counter[SymbolStateName] = Counter()

    def set(self, name: str, verdict: Verdict | None) -> bool:
        """Take over a verdict, or that there is none. Gives whether that is another one."""
        before = self.verdicts.get(name)
        if before == verdict:
            return False
        if before is not None:
            self._tally[before.state] -= 1
        if verdict is None:
            del self.verdicts[name]
        else:
            self.verdicts[name] = verdict
            self._tally[verdict.state] += 1
        return True

    def set_all(self, verdicts: Mapping[str, Verdict]) -> list[str]:
        """Take over all there are. Gives the names of those that changed, the gone ones first."""
        gone = [name for name in self.verdicts if name not in verdicts]
        for name in gone:
            self.set(name, None)
        return gone + [name for name, verdict in verdicts.items() if self.set(name, verdict)]

    def counts(self, *, desired: int, refused: int) -> SymbolCounts:
        """Counts for the status; ``refused`` counts all, also those without a verdict."""
        tally = self._tally
        return SymbolCounts(
            desired=desired,
            refused=refused,
            live=tally["live"],
            pending=tally["pending"],
            stale=tally["stale"],
            halted=tally["halted"],
        )


_LIVE = Verdict("live")
_HALTED = Verdict("halted", None, None)
_PENDING = Verdict("pending")
_STALE = Verdict("stale", "the stream is interrupted or mute")
