"""Decides what the facts mean: the daemon's state, each symbol's state, ready or not and why."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from spotd.core.demand import MAX_REFUSED_SHOWN
from spotd.core.symbols import WILDCARD, Refusal
from spotd.models import DaemonStateName, SymbolCounts, SymbolStateName

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


@dataclass(frozen=True, slots=True)
class Verdict:
    """The state of one symbol or refused entry, without its time."""

    state: SymbolStateName
    reason: str | None = None
    detail: str | None = None


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
    works = facts.stream_open and not facts.stream_mute
    verdicts: dict[str, Verdict] = {}
    room = MAX_REFUSED_SHOWN
    whole_market = WILDCARD in active
    for symbol in desired:
        refusal = refused.get(symbol)
        if refusal is not None:
            if room > 0:
                room -= 1
                verdicts[symbol] = Verdict("refused", refusal.reason, refusal.detail)
        elif symbol in active or whole_market:
            if not works:
                verdicts[symbol] = _STALE
            else:
                verdicts[symbol] = _HALTED if symbol in halted else _LIVE
        else:
            verdicts[symbol] = _STALE if symbol in facts.ever_active else _PENDING
    for entry, refusal in entries_refused.items():
        if room <= 0:
            break
        if entry not in verdicts:
            room -= 1
            verdicts[entry] = Verdict("refused", refusal.reason, refusal.detail)
    return verdicts


def count(verdicts: Mapping[str, Verdict], *, desired: int, refused: int) -> SymbolCounts:
    """Counts for the status; ``refused`` counts all, also those without a verdict."""
    tally = dict.fromkeys(("live", "pending", "stale", "halted"), 0)
    for verdict in verdicts.values():
        if verdict.state != "refused":
            tally[verdict.state] += 1
    return SymbolCounts(desired=desired, refused=refused, **tally)


_LIVE = Verdict("live")
_HALTED = Verdict("halted", None, None)
_PENDING = Verdict("pending")
_STALE = Verdict("stale", "the stream is interrupted or mute")
