"""Decides what the facts mean: the daemon's state, each symbol's verdict, what readiness lacks.

Everything that spotd says of itself is derived from one ``Facts``. Each value in it has one owner,
and nothing else goes in. ``Verdicts`` brings the verdicts of a whole market up to date by the
difference of two ``Facts``. ``StateWrites`` decides which of them are written to Redis next.

Must not write anything, and must not read a clock.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from heapq import nsmallest
from itertools import chain, islice
from typing import Literal, NamedTuple

from spotd.core.demand import MAX_REFUSED_SHOWN, Demand
from spotd.core.leadership import Leadership
from spotd.core.redis_health import RedisHealth
from spotd.core.subscription_state import SubscriptionState
from spotd.models import BreakerStateName, DaemonStateName, SymbolCounts, SymbolStateName
from spotd.symbols import WILDCARD, Refusal

Phase = Literal["closed", "connecting", "open", "waiting"]


@dataclass(frozen=True, slots=True)
class StreamState:
    """The stream. ``reason`` is the sentence that says why it is ``waiting``.

    ``closed``: we have no right to a stream, or need none yet. ``open``: it is authenticated.
    ``waiting``: it is down and the next try is timed.
    """

    phase: Phase = "closed"
    reason: str | None = None
    subscriptions: SubscriptionState = field(default_factory=SubscriptionState)
    breaker: BreakerStateName = "closed"


@dataclass(frozen=True, slots=True)
class Facts:
    """All that is known at one moment."""

    leadership: Leadership = field(default_factory=Leadership)
    redis: RedisHealth = field(default_factory=RedisHealth)
    demand: Demand = field(default_factory=Demand)
    stream: StreamState = field(default_factory=StreamState)
    halted: frozenset[str] = frozenset()
    stopping: bool = False


def daemon_state(facts: Facts, now: float) -> tuple[DaemonStateName, str | None]:  # noqa: PLR0911
    """Return the daemon's state, and the sentence that explains it.

    Source: the wire contract, section 4. The state is none of ``starting`` and ``standby`` exactly
    while we may publish, and ``streaming`` only while we are subscribed and Redis answers.
    """
    leadership, redis, demand, stream = facts.leadership, facts.redis, facts.demand, facts.stream
    if facts.stopping:
        return "stopping", None
    if not leadership.may_publish(now):
        if not leadership.started:
            return "starting", redis.away
        if leadership.another:
            return "standby", redis.away or "another daemon is the leader"
        return "standby", redis.away or "the leader key lapsed before it was renewed"
    if redis.away is not None:
        return "waiting", redis.away
    if not demand.symbols:
        if demand.term != leadership.term:
            return "connecting", "reading the demand"
        if demand.unreadable is not None:
            return "connecting", demand.unreadable
        return "idle", None
    if stream.phase == "waiting":
        return "waiting", stream.reason
    if stream.phase != "open":
        return "connecting", None
    if stream.subscriptions.active:
        return "streaming", demand.unreadable
    if stream.subscriptions.all_refused:
        return "streaming", "every desired symbol is refused"
    return "connecting", "subscribing"


def not_ready_because(facts: Facts, now: float) -> list[str]:
    """Return the reasons against being ready; none means ready.

    Ready is a leader with a working stream or nothing desired, or a standby whose requests for
    the leader key are answered.
    """
    if facts.stopping:
        return ["stopping"]
    reasons = []
    if facts.redis.away is not None:
        reasons.append(f"redis: {facts.redis.away}")
    if not facts.leadership.may_publish(now):
        if not facts.leadership.started:
            reasons.append("leadership: Redis has not said yet who leads")
        elif not facts.leadership.answered:
            reasons.append("leadership: the last request for the leader key failed")
        return reasons
    stream = facts.stream
    if not facts.demand.symbols:
        if facts.demand.term != facts.leadership.term:
            reasons.append("demand: not read yet")
        elif facts.demand.unreadable is not None:
            reasons.append(f"demand: {facts.demand.unreadable}")
    elif stream.phase == "waiting":
        reasons.append(f"stream: {stream.reason}")
    elif stream.phase != "open":
        reasons.append("stream: connecting")
    elif not stream.subscriptions.active and not stream.subscriptions.all_refused:
        reasons.append("stream: no symbol is acknowledged yet")
    return reasons


class Verdict(NamedTuple):
    """The state of one symbol or refused entry, without its time."""

    state: SymbolStateName
    reason: str | None = None
    detail: str | None = None


_LIVE = Verdict("live")
_HALTED = Verdict("halted")
_PENDING = Verdict("pending")
_STALE = Verdict("stale", "the stream is interrupted or mute")


def verdict_of(symbol: str, facts: Facts) -> Verdict:
    """Return the verdict on a desired symbol that is not refused."""
    subscriptions = facts.stream.subscriptions
    if symbol in subscriptions.active or WILDCARD in subscriptions.active:
        return _HALTED if symbol in facts.halted else _LIVE
    return _STALE if symbol in subscriptions.served else _PENDING


def shown_refusals(
    refused: Mapping[str, Refusal], entries: Mapping[str, Refusal]
) -> dict[str, Refusal]:
    """Return the refusals that are shown, at most 1,000.

    Symbols come before entries that name none, and each of both in sorted order.
    """
    symbols: Iterable[str] = refused
    if len(refused) > MAX_REFUSED_SHOWN:
        symbols = nsmallest(MAX_REFUSED_SHOWN, refused)
    shown = {symbol: refused[symbol] for symbol in symbols}
    for entry in sorted(entries):
        if len(shown) >= MAX_REFUSED_SHOWN:
            break
        shown.setdefault(entry, entries[entry])
    return shown


class Verdicts:
    """The verdict on every desired symbol and on refused entries, each with its time.

    ``since_unix_s`` is when each name got its present state.
    """

    def __init__(self) -> None:
        self.verdicts: dict[str, Verdict] = {}
        self.since_unix_s: dict[str, float] = {}
        self.counts = SymbolCounts()
        self._facts = Facts()
        self._shown: dict[str, Refusal] = {}
        self._tally: Counter[SymbolStateName] = Counter()

    def update(self, facts: Facts, unix_s: float) -> list[str]:
        """Take in the facts as they are at ``unix_s``. Return the names that got another verdict.

        A name without a verdict has none any more.
        """
        before, self._facts = self._facts, facts
        changed = [
            name
            for name in self._concerned(before, facts)
            if self._set(name, self._verdict_on(name), unix_s)
        ]
        tally = self._tally
        self.counts = SymbolCounts(
            desired=len(facts.demand.symbols),
            refused=len(facts.stream.subscriptions.refused) + facts.demand.refused_count,
            live=tally["live"],
            pending=tally["pending"],
            stale=tally["stale"],
            halted=tally["halted"],
        )
        return changed

    def _concerned(self, before: Facts, after: Facts) -> set[str]:
        """Return every name whose verdict may differ. The same object as before costs nothing.

        ``_verdict_on`` looks a name up in the parts that are compared here, and asks whether ``*``
        is active. As a consequence, any other name keeps its verdict.
        """
        old, new = before.stream.subscriptions, after.stream.subscriptions
        names = _differing(before.demand.symbols, after.demand.symbols)
        names |= _differing(before.halted, after.halted)
        if old is not new:
            names |= _differing(old.active, new.active)
            names |= _differing(old.served, new.served)
            if old.refused is not new.refused:
                names |= old.refused.keys() ^ new.refused.keys()
            if WILDCARD in old.active or WILDCARD in new.active:
                names |= after.demand.symbols
        if old.refused is not new.refused or before.demand.refused is not after.demand.refused:
            shown, self._shown = self._shown, shown_refusals(new.refused, after.demand.refused)
            names |= {
                name
                for name in shown.keys() | self._shown.keys()
                if shown.get(name) != self._shown.get(name)
            }
        return names

    def _verdict_on(self, name: str) -> Verdict | None:
        facts = self._facts
        if (refusal := self._shown.get(name)) is not None:
            return Verdict("refused", refusal.reason, refusal.detail)
        if name in facts.demand.symbols and name not in facts.stream.subscriptions.refused:
            return verdict_of(name, facts)
        return None

    def _set(self, name: str, verdict: Verdict | None, unix_s: float) -> bool:
        before = self.verdicts.get(name)
        if before == verdict:
            return False
        if before is not None:
            self._tally[before.state] -= 1
        if verdict is None:
            del self.verdicts[name], self.since_unix_s[name]
            return True
        if before is None or before.state != verdict.state:
            self.since_unix_s[name] = unix_s
        self.verdicts[name] = verdict
        self._tally[verdict.state] += 1
        return True


def _differing(before: frozenset[str], after: frozenset[str]) -> set[str]:
    return set() if before is after else set(before ^ after)


class StateBatch(NamedTuple):
    """States to write in one call, and names whose states end."""

    states: dict[str, Verdict]
    ended: list[str]


class StateWrites:
    """Which states Redis holds, and which are to be written next.

    States that end go first and refused ones last, so that Redis never shows more refused entries
    than we do. Within each of these, names go in the order in which they changed.
    """

    def __init__(self) -> None:
        # What each name holds in Redis, None where only Redis knows.
        self._written: dict[str, Verdict | None] = {}
        self._ended: dict[str, None] = {}
        self._others: dict[str, None] = {}
        self._refused: dict[str, None] = {}

    def __bool__(self) -> bool:
        """Return whether anything is to be written."""
        return bool(self._ended or self._others or self._refused)

    def changed(self, names: Iterable[str], verdicts: Mapping[str, Verdict]) -> None:
        """Note names that got another verdict. A state that Redis holds already is not written."""
        for name in names:
            self._forget(name)
            verdict = verdicts.get(name)
            if verdict is None:
                if name in self._written:
                    self._ended[name] = None
            elif verdict != self._written.get(name):
                (self._refused if verdict.state == "refused" else self._others)[name] = None

    def start_afresh(self, stored: Iterable[str], verdicts: Mapping[str, Verdict]) -> None:
        """Plan to write everything anew. ``stored`` are the names of which Redis holds a state."""
        self._written = dict.fromkeys(stored)
        self._ended, self._others, self._refused = {}, {}, {}
        self.changed(self._written.keys() | verdicts.keys(), verdicts)

    def next_batch(self, count: int, verdicts: Mapping[str, Verdict]) -> StateBatch:
        """Return at most ``count`` of what is to be written, as the verdicts are now."""
        batch = StateBatch({}, [])
        for name in islice(chain(self._ended, self._others, self._refused), count):
            verdict = verdicts.get(name)
            if verdict is None:
                batch.ended.append(name)
            else:
                batch.states[name] = verdict
        return batch

    def wrote(self, batch: StateBatch, verdicts: Mapping[str, Verdict]) -> None:
        """Take in that Redis took a batch. A state that changed meanwhile is still to write."""
        self._written |= batch.states
        for name in batch.ended:
            self._written.pop(name, None)
        self.changed(chain(batch.states, batch.ended), verdicts)

    def _forget(self, name: str) -> None:
        for names in (self._ended, self._others, self._refused):
            names.pop(name, None)
