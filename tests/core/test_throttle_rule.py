"""The throttle rule of the wire contract, proved on arbitrary scripts, and the proof itself tested.

A script is what may happen to a publish loop: quotes and trades, timers that fire early, late or
hours later, batches of any size, Redis that answers late or not at all, symbols that leave and
return. It is played on the real PriceCache and Conflator and compared, step by step, with ``Rule``:
an independent model that knows the four sentences and no queue. Conflators and price caches that
are broken on purpose must fail the same proof.

Times are whole seconds, so that nothing is proved about rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from math import inf
from typing import NamedTuple

import pytest
from hypothesis import Phase as HypothesisPhase
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from spotd.core.conflate import Batch, Conflator, Phase, Slot
from spotd.core.messages import Quote, Trade
from spotd.core.prices import PriceCache
from tests.kit.properties import at_least

SYMBOLS = ("A", "B", "C", "D")
EPOCH = datetime(2026, 1, 20, tzinfo=UTC)
EVERYTHING = 500

MakeConflator = Callable[[float], Conflator]
MakePrices = Callable[[Conflator, Callable[[str], bool]], PriceCache]
Price = tuple[float, float | None]  # the bid, and the last sale


# What may happen


class Quoted(NamedTuple):
    """Alpaca sends a quote; every quote of a script has another price."""

    symbol: str


class Traded(NamedTuple):
    """Alpaca sends a trade that sets the last sale."""

    symbol: str


class Pass(NamedTuple):
    """Time passes, and the timer does not fire."""

    seconds: int


class Take(NamedTuple):
    """The publish loop takes at most ``limit`` updates, in time or too early."""

    limit: int


class Answer(NamedTuple):
    """Redis answers the batch in flight, or the call fails and nobody knows."""

    delivered: bool


class Desire(NamedTuple):
    """The demand changes; what is not desired any more is dropped."""

    symbols: frozenset[str]


class Republish(NamedTuple):
    """Redis came back, perhaps empty."""


class Forget(NamedTuple):
    """The leadership was lost: another daemon publishes newer prices."""


Step = Quoted | Traded | Pass | Take | Answer | Desire | Republish | Forget

_symbols = st.sampled_from(SYMBOLS)
_steps: SearchStrategy[Step] = st.one_of(
    st.builds(Quoted, _symbols),
    st.builds(Quoted, _symbols),
    st.builds(Quoted, _symbols),
    st.builds(Quoted, _symbols),
    st.builds(Traded, _symbols),
    st.builds(Pass, st.sampled_from((1, 2, 5, 9, 10, 11, 13, 3_600, 86_400))),
    st.builds(Take, st.sampled_from((1, 2, 3, EVERYTHING))),
    st.just(Take(1)),
    st.builds(Answer, st.booleans()),
    st.one_of(
        st.builds(Desire, st.sampled_from([frozenset(s) for s in ("ABCD", "", "AB", "BCD", "A")])),
        st.just(Desire(frozenset(SYMBOLS))),
        st.sampled_from((Republish(), Forget())),
    ),
)
SCRIPTS = st.lists(_steps, min_size=10, max_size=60)
WINDOWS = st.sampled_from((0, 1, 10, 10, 10))


# What the contract says about it


@dataclass
class Line:
    """What the rule knows of one symbol."""

    price: Price | None = None
    owed: bool = False  # the newest price was not emitted yet
    in_flight: bool = False
    answered_at: float = -inf
    due_since: int | None = None  # the number of the take that found it due first
    go_before: int = 0  # how many updates may still go out before it, itself included

    def drop(self) -> None:
        """Forget its price, but not the time of its last update."""
        self.price, self.owed, self.due_since = None, False, None


class Rule:
    """The four sentences, for every symbol by itself."""

    def __init__(self, window_s: float) -> None:
        self.window_s = window_s
        self.lines = {symbol: Line() for symbol in SYMBOLS}
        self.takes = 0

    def due(self, now: float) -> set[str]:
        """Return the symbols that have something to emit, and whose window is over."""
        return {symbol for symbol in self._owed() if self._quiet_from(symbol) <= now}

    def taken(self, now: float, limit: int, emitted: Sequence[tuple[str, Price]]) -> None:
        """Judge the updates that were emitted at ``now``."""
        due = self.due(now)
        names = [symbol for symbol, _ in emitted]
        assert len(set(names)) == len(names), "one update of a symbol per batch"
        for symbol, price in emitted:
            line = self.lines[symbol]
            assert not line.in_flight, "one update of a symbol in flight"
            assert now >= self._quiet_from(symbol), "at most one update in any window"
            assert line.owed, "nothing goes out that did not change"
            assert price == line.price, "the newest goes out"
        assert len(names) == min(limit, len(due)), "at once, and when the window ends"
        self.takes += 1
        for line in (self.lines[symbol] for symbol in due):
            if line.due_since is None:
                line.due_since, line.go_before = self.takes, len(due)
        youngest = max((self.lines[symbol].due_since or 0 for symbol in names), default=0)
        for line in (self.lines[symbol] for symbol in due.difference(names)):
            line.go_before -= limit
            assert line.go_before > 0, "no symbol waits longer than those before it need"
            assert youngest <= (line.due_since or 0), "longest waiting first"
        for symbol in names:
            line = self.lines[symbol]
            line.owed, line.in_flight, line.due_since = False, True, None

    def answered(self, now: float, names: Sequence[str], *, delivered: bool) -> None:
        """Note that a batch was answered, or that nobody knows whether it arrived."""
        for symbol in names:
            line = self.lines[symbol]
            line.in_flight, line.answered_at = False, now
            if not delivered and line.price is not None:
                line.owed = True

    def timer(self, now: float, next_at: float | None) -> None:
        """Judge the time at which the loop is told to take again."""
        at = inf if next_at is None else next_at
        for symbol in self._owed():
            assert at <= max(now, self._quiet_from(symbol)), "the timer is not late"

    def _owed(self) -> set[str]:
        return {s for s, line in self.lines.items() if line.owed and not line.in_flight}

    def _quiet_from(self, symbol: str) -> float:
        return self.lines[symbol].answered_at + self.window_s


class Published(NamedTuple):
    """One update, as Redis may have seen it: somewhere between the two times."""

    symbol: str
    price: Price
    taken_at: float
    answered_at: float


# The two of them, side by side


class Rehearsal:
    """Plays a script like the publish loop does, one batch in flight, and asks the rule."""

    def __init__(self, conflator: Conflator, prices: MakePrices, window_s: float) -> None:
        self.conflator = conflator
        self.desired = frozenset(SYMBOLS)
        self.prices = prices(conflator, lambda symbol: symbol in self.desired)
        self.rule = Rule(window_s)
        self.now = 0.0
        self.flight = Batch()
        self.taken_at = 0.0
        self.published: list[Published] = []
        self._made_up = 0

    def play(self, script: Sequence[Step]) -> None:
        """Play the script, then silence, with a loop that takes exactly when it is told to."""
        for step in script:
            self.step(step)
            self.rule.timer(self.now, self.conflator.next_at())
        self.answer(delivered=True)
        self.silence()
        self.nothing_is_missing()
        self.never_closer_than_the_window()

    def step(self, step: Step) -> None:
        """Play one step of the script."""
        lines = self.rule.lines
        match step:
            case Quoted(symbol):
                self.quote(symbol)
            case Traded(symbol):
                self.trade(symbol)
            case Pass(seconds):
                self.now += seconds
            case Take(limit):
                self.answer(delivered=True)
                self.take(limit)
            case Answer(delivered):
                self.answer(delivered=delivered)
            case Desire(symbols):
                gone, self.desired = self.desired - symbols, symbols
                self.prices.drop(gone)
                for symbol in gone:
                    lines[symbol].drop()
            case Republish():
                self.prices.republish(self.now)
                for line in lines.values():
                    line.owed = line.price is not None
            case Forget():
                self.prices.forget()
                for line in lines.values():
                    line.drop()

    def quote(self, symbol: str) -> None:
        self._made_up += 1
        bid = float(self._made_up)
        self.prices.receive([Quote(symbol, bid, bid + 1, EPOCH)], self.now)
        line = self.rule.lines[symbol]
        if symbol in self.desired:
            slot = self.prices.slots[symbol]
            line.price, line.owed = (bid, slot.last_price), True

    def trade(self, symbol: str) -> None:
        self._made_up += 1
        last = float(self._made_up)
        self.prices.receive([Trade(symbol, last, EPOCH)], self.now)
        line = self.rule.lines[symbol]
        if line.price is not None:
            line.price, line.owed = (line.price[0], last), True

    def take(self, limit: int) -> None:
        emitted = []
        self.conflator.end_windows(self.now)
        is_ready = bool(self.conflator.ready)
        self.flight = self.conflator.take(self.now, limit)
        assert is_ready == bool(self.flight), "a call is begun where something goes out"
        self.taken_at = self.now
        for slot in self.flight:
            assert slot.quoted_at is not None, "nothing goes out without a price"
            emitted.append((slot.symbol, (slot.bid, slot.last_price)))
        self.rule.taken(self.now, limit, emitted)
        self.published += [Published(*update, self.now, inf) for update in emitted]
        if len(emitted) < limit:
            at = self.conflator.next_at()
            assert at is None or at > self.now, "a loop that has taken all does not spin"

    def answer(self, *, delivered: bool) -> None:
        names = [slot.symbol for slot in self.flight]
        self.conflator.settle(self.flight, self.now, delivered=delivered)
        self.rule.answered(self.now, names, delivered=delivered)
        self.flight = Batch()
        self.published = [
            update._replace(answered_at=self.now) if update.answered_at == inf else update
            for update in self.published
        ]

    def silence(self) -> None:
        """Let the loop go on without new prices until it has nothing to wait for."""
        for _ in range(10 * len(SYMBOLS)):
            at = self.conflator.next_at()
            if at is None:
                return
            self.now = max(self.now, at)
            self.take(limit=2)
            self.answer(delivered=True)
        raise AssertionError("the loop never comes to rest")

    def nothing_is_missing(self) -> None:
        newest = {update.symbol: update.price for update in self.published}
        for symbol, line in self.rule.lines.items():
            if line.price is not None:
                assert newest[symbol] == line.price, "the last value before a silence arrives"

    def never_closer_than_the_window(self) -> None:
        """Judge the time from the latest moment of an update to the earliest of the next."""
        answered_at: dict[str, float] = {}
        for update in self.published:
            before = answered_at.get(update.symbol, -inf)
            assert update.taken_at - before >= self.rule.window_s, "never closer than the window"
            answered_at[update.symbol] = update.answered_at


# A loop that is always in time, compared with arithmetic

OFFERS = st.lists(
    st.tuples(st.sampled_from((0, 0, 1, 2, 5, 9, 10, 11, 25)), _symbols), min_size=5, max_size=40
)


def alone(offers: Sequence[tuple[float, float]], window_s: float) -> list[tuple[float, float]]:
    """Return when which value of one symbol goes out, as if there were no other symbol."""
    out: list[tuple[float, float]] = []
    waiting: float | None = None
    quiet_from = -inf
    for at, value in offers:
        if waiting is not None and quiet_from <= at:
            out.append((quiet_from, waiting))
            quiet_from, waiting = quiet_from + window_s, None
        waiting = value
        if quiet_from <= at:
            out.append((at, waiting))
            quiet_from, waiting = at + window_s, None
    if waiting is not None:
        out.append((quiet_from, waiting))
    return out


def in_time(
    conflator: Conflator, offers: Sequence[tuple[float, str]]
) -> dict[str, list[tuple[float, float]]]:
    """Return what goes out when the loop wakes up at every offer and at every ``next_at``."""
    slots = {symbol: Slot(symbol) for symbol in SYMBOLS}
    out: dict[str, list[tuple[float, float]]] = {symbol: [] for symbol in SYMBOLS}

    def take_all(now: float) -> None:
        taken = conflator.take(now, EVERYTHING)
        for slot in taken:
            out[slot.symbol].append((now, slot.bid))
        conflator.settle(taken, now, delivered=True)

    def sleep_until(now: float) -> None:
        for _ in range(10 * len(SYMBOLS)):
            at = conflator.next_at()
            if at is None or at > now:
                return
            assert at > -inf, "the loop took everything a moment ago"
            take_all(at)
        raise AssertionError("the loop spins")

    for count, (at, symbol) in enumerate(offers):
        sleep_until(at)
        slots[symbol].bid = float(count)
        conflator.offer(slots[symbol], at)
        take_all(at)
    sleep_until(inf)
    return out


# The proof


def prove(
    conflator: MakeConflator,
    prices: MakePrices = PriceCache,
    *,
    examples: int,
    phases: Sequence[HypothesisPhase] = tuple(HypothesisPhase),
    derandomize: bool = False,
) -> None:
    """Raise AssertionError where a script shows that the rule does not hold."""
    with_settings = settings(
        max_examples=examples,
        phases=phases,
        derandomize=derandomize,
        database=None,
        deadline=None,
        report_multiple_bugs=False,
    )

    @with_settings
    @given(WINDOWS, SCRIPTS)
    def any_script_keeps_the_rule(window_s: int, script: list[Step]) -> None:
        machine = conflator(window_s)
        Rehearsal(machine, prices, window_s).play(script)

    @with_settings
    @given(WINDOWS, OFFERS)
    def every_symbol_goes_out_as_if_it_were_alone(
        window_s: int, offers: list[tuple[int, str]]
    ) -> None:
        now = 0.0
        absolute = [(now := now + gap, symbol) for gap, symbol in offers]
        went_out = in_time(conflator(window_s), absolute)
        for symbol in SYMBOLS:
            own = [(at, float(n)) for n, (at, name) in enumerate(absolute) if name == symbol]
            assert went_out[symbol] == alone(own, window_s)

    any_script_keeps_the_rule()
    every_symbol_goes_out_as_if_it_were_alone()


def test_no_script_breaks_the_four_sentences() -> None:
    """At most one per window, the first at once, the newest at its end, nobody delays another."""
    prove(Conflator, examples=at_least(200))


# And the proof is worth something: conflators with one thing wrong


class WindowOpensAtTake(Conflator):
    """Measures from when an update was emitted, not from Redis' answer."""

    taken_at = 0.0

    def take(self, now: float, limit: int) -> Batch:
        self.taken_at = now
        return super().take(now, limit)

    def settle(self, taken: Batch, now: float, *, delivered: bool) -> None:
        super().settle(taken, self.taken_at, delivered=delivered)


class TrailingEdgeDropped(Conflator):
    """Drops a price that came in during a window."""

    def end_windows(self, now: float) -> None:
        for batch in self.windows:
            for slot in batch:
                slot.changed = slot.changed and batch.end > now
        super().end_windows(now)


class TrailingEdgeIsTheOldest(Conflator):
    """Publishes at the end of a window the first price in it, not the newest."""

    def __init__(self, window_s: float) -> None:
        super().__init__(window_s)
        self.first: dict[str, float] = {}

    def take(self, now: float, limit: int) -> Batch:
        taken = super().take(now, limit)
        for slot in taken:
            slot.bid = self.first.pop(slot.symbol, slot.bid)
        return taken

    def offer(self, slot: Slot, now: float) -> None:
        if slot.phase is Phase.HELD:
            self.first.setdefault(slot.symbol, slot.bid)
        super().offer(slot, now)


class LeadingEdgeDelayed(Conflator):
    """Lets a first update wait until the second take."""

    def __init__(self, window_s: float) -> None:
        super().__init__(window_s)
        self.seen: set[str] = set()

    def take(self, now: float, limit: int) -> Batch:
        self.end_windows(now)
        fresh = [slot for slot in self.ready if slot.symbol not in self.seen]
        self.seen = {slot.symbol for slot in self.ready}
        for slot in fresh:
            self.ready.remove(slot)
        taken = super().take(now, limit)
        self.ready.extend(fresh)
        return taken


class LastComeFirstServed(Conflator):
    """Serves the ready ones like a stack."""

    def offer(self, slot: Slot, now: float) -> None:
        super().offer(slot, now)
        if self.ready and self.ready[-1] is slot:
            self.ready.rotate(1)


class ByName(Conflator):
    """Serves the ready ones in the order of their names."""

    def take(self, now: float, limit: int) -> Batch:
        self.end_windows(now)
        ready = sorted(self.ready, key=lambda slot: slot.symbol)
        self.ready.clear()
        self.ready.extend(ready)
        return super().take(now, limit)


class BackOfTheQueueAtEveryOffer(Conflator):
    """Moves a symbol that changes while it waits to the end of the queue."""

    def offer(self, slot: Slot, now: float) -> None:
        if slot in self.ready:
            self.ready.remove(slot)
            self.ready.append(slot)
        super().offer(slot, now)


class WindowFromTheLastOffer(Conflator):
    """Debounces: every offer inside a window makes it longer."""

    def offer(self, slot: Slot, now: float) -> None:
        for batch in self.windows:
            if slot in batch:
                batch.remove(slot)
                slot.batch = Batch([slot])
                slot.batch.end = now + self.window_s
                self.windows.append(slot.batch)
                break
        super().offer(slot, now)


class NotDeliveredIsLost(Conflator):
    """Believes that Redis always got it."""

    def settle(self, taken: Batch, now: float, *, delivered: bool) -> None:
        super().settle(taken, now, delivered=True)


class NotDeliveredGoesAtOnce(Conflator):
    """Opens no window where the answer is missing, although Redis may have published."""

    def settle(self, taken: Batch, now: float, *, delivered: bool) -> None:
        super().settle(taken, now if delivered else now - self.window_s, delivered=delivered)


class OfferInFlightIsLost(Conflator):
    """Counts a price that came in after its batch left as published."""

    def settle(self, taken: Batch, now: float, *, delivered: bool) -> None:
        for slot in taken:
            slot.changed = False
        super().settle(taken, now, delivered=delivered)


class TimerForTheLastWindow(Conflator):
    """Sleeps until all windows are over."""

    def next_at(self) -> float | None:
        at = super().next_at()
        return self.windows[-1].end if at is not None and at > -inf else at


class TimerLate(Conflator):
    """Sleeps one second too long."""

    def next_at(self) -> float | None:
        at = super().next_at()
        return None if at is None else at + 1


class TimerForgotten(Conflator):
    """Wakes only for what is ready."""

    def next_at(self) -> float | None:
        return -inf if self.ready else None


class TimerForgottenWhileHeld(Conflator):
    """Sets no timer for a price that comes in while its symbol's window is open."""

    def offer(self, slot: Slot, now: float) -> None:
        batch, slot.batch = slot.batch, None
        super().offer(slot, now)
        slot.batch = batch


class TimerSpins(Conflator):
    """Wakes all the time while a window is open."""

    def next_at(self) -> float | None:
        return -inf if self.ready or self.windows else None


class LimitIgnored(Conflator):
    """Emits all that is ready, also where Redis is to get less."""

    def take(self, now: float, limit: int) -> Batch:
        return super().take(now, EVERYTHING)


class ChangedNotReset(Conflator):
    """Publishes the same value again and again."""

    def take(self, now: float, limit: int) -> Batch:
        taken = super().take(now, limit)
        for slot in taken:
            slot.changed = True
        return taken


class ReadyTwice(Conflator):
    """Queues a symbol again at every offer."""

    def offer(self, slot: Slot, now: float) -> None:
        if slot.phase is Phase.READY:
            self.ready.append(slot)
        super().offer(slot, now)


class ForgottenStillEmitted(Conflator):
    """Emits a slot that was cleared while it waited."""

    def take(self, now: float, limit: int) -> Batch:
        for slot in self.ready:
            slot.changed = True
        return super().take(now, limit)


class OneWindowForAll(Conflator):
    """Emits nothing while any window is open."""

    def take(self, now: float, limit: int) -> Batch:
        self.end_windows(now)
        return Batch() if self.windows else super().take(now, limit)


class OneWindowEndsPerTake(Conflator):
    """Ends only the first of the windows that are over."""

    def end_windows(self, now: float) -> None:
        later = list(self.windows)[1:]
        for window in later:
            self.windows.remove(window)
        super().end_windows(now)
        self.windows.extend(later)


class WindowTooShort(Conflator):
    """Opens windows that are one second short."""

    def __init__(self, window_s: float) -> None:
        super().__init__(max(0.0, window_s - 1))


class WindowTooLong(Conflator):
    """Ends a window a moment after its end."""

    def end_windows(self, now: float) -> None:
        super().end_windows(now - 1 if self.window_s else now)


class ThrottleCannotBeTurnedOff(Conflator):
    """Has a window of one second where the throttle is turned off."""

    def __init__(self, window_s: float) -> None:
        super().__init__(window_s or 1.0)


BROKEN: tuple[type[Conflator], ...] = (
    WindowOpensAtTake,
    TrailingEdgeDropped,
    TrailingEdgeIsTheOldest,
    LeadingEdgeDelayed,
    LastComeFirstServed,
    ByName,
    BackOfTheQueueAtEveryOffer,
    WindowFromTheLastOffer,
    NotDeliveredIsLost,
    NotDeliveredGoesAtOnce,
    OfferInFlightIsLost,
    TimerForTheLastWindow,
    TimerLate,
    TimerForgotten,
    TimerForgottenWhileHeld,
    TimerSpins,
    LimitIgnored,
    ChangedNotReset,
    ReadyTwice,
    ForgottenStillEmitted,
    OneWindowForAll,
    OneWindowEndsPerTake,
    WindowTooShort,
    WindowTooLong,
    ThrottleCannotBeTurnedOff,
)


class ReturnsUnthrottled(PriceCache):
    """Makes a new slot, without the open window, for a symbol that returns."""

    def drop(self, symbols: Iterable[str]) -> None:
        for symbol in symbols:
            if slot := self.slots.pop(symbol, None):
                slot.clear()


class ForgetsWindows(PriceCache):
    """Forgets the open windows together with the prices."""

    def forget(self) -> None:
        super().forget()
        self.slots.clear()


class KeepsWhatLeft(PriceCache):
    """Goes on with the prices of what is not desired any more."""

    def drop(self, symbols: Iterable[str]) -> None:
        pass


def refute(conflator: MakeConflator, prices: MakePrices = PriceCache) -> None:
    """Run the proof, always on the same scripts, and without shrinking a failure."""
    for examples in (20, 200, 5_000):  # most are found soon, by one of the two properties
        prove(
            conflator,
            prices,
            examples=examples,
            phases=(HypothesisPhase.generate,),
            derandomize=True,
        )


def test_a_script_that_few_draws_find() -> None:
    """A symbol that changes while it waits keeps its place, before one that came later."""
    waits = (Quoted("A"), Quoted("B"), Take(1))
    script: list[Step] = [*waits, Quoted("C"), Traded("B"), Take(1)]
    Rehearsal(Conflator(10), PriceCache, 10).play(script)
    with pytest.raises(AssertionError, match="waits longer than those before"):
        Rehearsal(BackOfTheQueueAtEveryOffer(10), PriceCache, 10).play(script)


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param(broken, marks=pytest.mark.long)
        if broken is BackOfTheQueueAtEveryOffer  # thousands of draws: a test above has the script
        else broken
        for broken in BROKEN
    ],
    ids=lambda broken: broken.__name__,
)
def test_a_broken_conflator_is_caught(broken: type[Conflator]) -> None:
    """The proof fails for a conflator that breaks one sentence of the rule."""
    with pytest.raises(AssertionError):
        refute(broken)


@pytest.mark.parametrize("broken", [ReturnsUnthrottled, ForgetsWindows, KeepsWhatLeft])
def test_a_price_cache_that_forgets_too_much_or_too_little_is_caught(
    broken: type[PriceCache],
) -> None:
    """The proof fails for a cache that loses an open window, or keeps a price of what left."""
    with pytest.raises(AssertionError):
        refute(Conflator, broken)
