"""When one symbol is mute while others are not: rounds of questions, under a manual clock."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from spotd.core.freshness import MUTE_SLACK
from spotd.core.messages import Quote
from spotd.core.mute_symbols import CALL_EVERY_S, Answer, MuteSymbols, MuteSymbolTimes

NOON = datetime(2026, 1, 5, 17, 0, tzinfo=UTC)
TIMES = MuteSymbolTimes()
NOTHING = Answer((), ())


def at(seconds: float) -> datetime:
    """Return the exchange time that is this many seconds after noon."""
    return NOON + timedelta(seconds=seconds)


class Stream:
    """What the stream brought and what REST knows of each symbol, by seconds after noon."""

    def __init__(self, **quoted: float | None) -> None:
        self.quoted: dict[str, float | None] = dict(quoted)
        self.rest: dict[str, float] = {s: q for s, q in quoted.items() if q is not None}
        self.symbols = MuteSymbols(self.quoted_at)
        self.follow(*self.quoted)

    def follow(self, *active: str, served: str = "") -> None:
        """Have the stream bring these symbols, of those and others that are served."""
        self.symbols.follow(frozenset(active), {*active, *served})

    def quoted_at(self, symbol: str) -> datetime | None:
        """Return the time of the quote that we hold."""
        seconds = self.quoted.get(symbol)
        return None if seconds is None else at(seconds)

    def take(self, now: float, count: int = 100) -> list[str]:
        """Return whom to ask about, where the exchange's time is ours."""
        return self.symbols.take(count, at(now), now)

    def answer(self, *asked: str, now: float) -> Answer:
        """Have REST answer with what it knows, about what we hold."""
        held = {symbol: self.quoted_at(symbol) for symbol in asked}
        found = {s: Quote(s, 1.0, 1.1, at(self.rest[s])) for s in asked if s in self.rest}
        return self.symbols.answered(held, found, now)

    def ask(self, now: float) -> Answer:
        """Ask about all that is silent now, and have REST answer."""
        return self.answer(*self.take(now, 10_000), now=now)


# Whom to ask about


def test_only_silent_symbols_are_asked_about() -> None:
    """A symbol is silent when its newest quote is half a minute old."""
    stream = Stream(A=70.0, B=70.1, C=0.0)
    assert stream.take(100.0) == ["A", "C"]


def test_the_clock_of_the_exchange_counts() -> None:
    """With a feed that is 15 minutes late, quotes of 15 minutes ago are no silence."""
    stream = Stream(A=0.0, B=-40.0)
    assert stream.symbols.take(100, at(0.0), 900.0) == ["B"]


def test_a_round_asks_about_each_symbol_once() -> None:
    """A share of them is taken at a time, and the next round begins a minute after this one."""
    stream = Stream(**dict.fromkeys("ABCDE", 0.0))
    taken = []
    while not stream.symbols.round_over:
        assert stream.symbols.ask_at <= 100.0
        taken.append(stream.take(100.0, 2))
    assert taken == [["A", "B"], ["C", "D"], ["E"]]
    assert stream.symbols.ask_at == 160.0
    assert stream.take(160.0, 2) == ["A", "B"]


def test_a_round_goes_on_where_it_was_when_symbols_come_and_leave() -> None:
    """No symbol is asked about twice because others came."""
    stream = Stream(**dict.fromkeys("BDFH", 0.0))
    same = frozenset("BDFH")
    stream.symbols.follow(same, same)
    assert stream.take(100.0, 2) == ["B", "D"]
    stream.symbols.follow(same, same)
    stream.quoted |= dict.fromkeys("ACEG", 0.0)
    stream.follow(*"ABCEFGH")
    assert stream.take(100.0, 9) == ["E", "F", "G", "H"]
    assert stream.take(160.0, 9) == ["A", "B", "C", "E", "F", "G", "H"]


def test_a_symbol_without_a_price_is_asked_about_in_its_second_round() -> None:
    """Its first price is being fetched; where that failed, it is taken from this answer."""
    stream = Stream(NEW=None)
    assert stream.take(100.0) == []
    assert stream.take(160.0) == ["NEW"]
    stream.rest["NEW"] = 0.0
    assert stream.answer("NEW", now=160.0) == Answer(("NEW",), ())
    assert stream.answer("GONE", now=160.0) == NOTHING


def test_rest_that_did_not_answer_is_left_alone_for_a_minute() -> None:
    """A failure says nothing of the symbols."""
    stream = Stream(A=0.0, B=0.0)
    stream.take(100.0, 1)
    stream.symbols.could_not_ask(105.0)
    assert stream.symbols.ask_at == 165.0


# Suspicion


SLACK_S = MUTE_SLACK.total_seconds()


@pytest.mark.parametrize(
    ("rest", "suspected"), [(0.0, False), (SLACK_S, False), (SLACK_S + 0.1, True), (-60.0, False)]
)
def test_rest_that_is_ahead_makes_a_symbol_suspected(rest: float, suspected: bool) -> None:
    """REST must be ahead by more than the slack."""
    stream = Stream(A=0.0)
    stream.rest["A"] = rest
    assert stream.ask(100.0) == Answer((), ("A",) if suspected else ())
    assert stream.symbols.suspected == ({"A"} if suspected else set())
    assert stream.symbols.judge_at == (110.0 if suspected else None)


def test_a_one_sided_quote_proves_nothing() -> None:
    """The stream may have brought it, but it is never kept."""
    stream = Stream(A=0.0)
    found = {"A": Quote("A", 1.0, 0.0, at(60))}
    assert stream.symbols.answered({"A": at(0)}, found, 100.0) == NOTHING


def test_an_answer_is_void_where_the_stream_spoke_meanwhile() -> None:
    """A quote that came while REST was asked shows that the symbol is not mute."""
    stream = Stream(A=1.0)
    found = {"A": Quote("A", 1.0, 1.1, at(60))}
    assert stream.symbols.answered({"A": at(0)}, found, 100.0) == NOTHING


def test_a_suspected_symbol_that_stays_silent_is_mute() -> None:
    """The verdict falls at the end of the grace, to which the present lag is added."""
    stream = Stream(A=0.0, B=0.0)
    stream.rest["A"] = 60.0
    stream.ask(100.0)
    assert stream.symbols.judge(109.9, 0.0) == frozenset()
    assert stream.symbols.judge(110.0, 5.0) == frozenset()
    assert stream.symbols.judge(114.9, 5.0) == frozenset()
    assert stream.symbols.mute == frozenset()
    assert stream.symbols.judge(115.0, 5.0) == {"A"}
    assert stream.symbols.mute == {"A"}
    assert stream.symbols.judge_at is None


def test_a_quote_within_the_grace_ends_the_suspicion() -> None:
    """REST knew first what the stream brought a moment later: a sleepy symbol is not mute."""
    stream = Stream(A=0.0)
    stream.rest["A"] = 60.0
    stream.ask(100.0)
    stream.quoted["A"] = 60.0
    assert stream.symbols.judge(110.0, 0.0) == frozenset()
    assert stream.symbols.judge_at is None


def test_suspicions_are_judged_one_after_the_other() -> None:
    """Each has its whole grace."""
    stream = Stream(A=0.0, B=0.0)
    stream.rest |= {"A": 60.0, "B": 60.0}
    for symbol, now in (("B", 100.0), ("A", 105.0), ("B", 107.0)):
        stream.answer(symbol, now=now)
    assert stream.symbols.judge(110.0, -1.0) == {"B"}
    assert stream.symbols.judge_at == 115.0
    assert stream.symbols.judge(115.0, 0.0) == {"A"}


# Mute


def mute(*symbols: str) -> Stream:
    """Return a stream of A and B, of which these symbols are mute since 110.0."""
    stream = Stream(A=0.0, B=0.0)
    stream.rest |= dict.fromkeys(symbols, 60.0)
    stream.ask(100.0)
    assert stream.symbols.judge(110.0, 0.0) == set(symbols)
    return stream


def test_the_next_quote_ends_it() -> None:
    """Other symbols stay mute."""
    stream = mute("A", "B")
    stream.symbols.heard({"A", "OTHER"})
    assert stream.symbols.mute == {"B"}


def test_a_new_session_ends_it() -> None:
    """All is subscribed anew, and what was suspected or renewed is of the session before."""
    stream = mute("A")
    stream.rest["B"] = 70.0
    stream.answer("B", now=111.0)
    stream.symbols.opened()
    assert stream.symbols.mute == frozenset()
    assert stream.symbols.judge_at is None


def test_a_symbol_that_leaves_is_not_mute() -> None:
    """Neither is it suspected any more."""
    stream = mute("A")
    stream.rest["B"] = 70.0
    stream.answer("B", now=111.0)
    stream.follow("C")
    assert stream.symbols.mute == frozenset()
    assert stream.symbols.suspected == frozenset()
    assert stream.answer("A", now=112.0) == NOTHING


def test_a_symbol_that_is_being_renewed_stays_mute() -> None:
    """It is not subscribed for a moment, and suspect all the time."""
    stream = mute("A")
    stream.follow("B", served="A")
    stream.follow("A", "B")
    assert stream.symbols.mute == {"A"}


def test_a_mute_symbol_takes_each_newer_price_of_rest() -> None:
    """It is asked about in every round, and needs no further proof."""
    stream = mute("A")
    stream.quoted["A"] = 60.0
    stream.rest["A"] = 61.0
    assert stream.answer("A", "B", now=160.0) == Answer(("A",), ())
    assert stream.symbols.mute == {"A"}


def test_a_mute_symbol_is_renewed_at_most_once_in_10_minutes() -> None:
    """A symbol that is not mute is not renewed at all."""
    stream = mute("A", "B")
    renews = stream.symbols.renews
    assert renews(["A", "OTHER"], 110.0) == {"A"}
    assert renews(["A", "B"], 709.9) == {"B"}
    assert renews(["A", "B"], 710.0) == {"A"}


# The promise


@settings(max_examples=5)
# It dies just too late to be silent for half a minute when its turn comes: it waits for the next.
@example(dies_s=213.7, number=0, busy=False, answers_s=1.9)
@given(
    dies_s=st.floats(0.0, 300.0),
    number=st.integers(0, 11_499),
    busy=st.booleans(),
    answers_s=st.floats(0.0, 1.9),
)
def test_a_dead_symbol_is_found_within_5_minutes(
    dies_s: float, number: int, busy: bool, answers_s: float
) -> None:
    """Of 11,500 silent symbols, any one is found, with at most 30 calls a minute."""
    names = [f"S{index:05}" for index in range(11_500)]
    dead = names[number]
    now, calls = 0.0, [0.0]
    died = at(dies_s)

    def quoted_at(symbol: str) -> datetime | None:
        if symbol == dead:
            return min(died, at(now))
        return at(-3600.0)

    symbols = MuteSymbols(quoted_at)
    symbols.follow(frozenset(names), frozenset(names))
    while True:
        now = max(calls[-1] + CALL_EVERY_S, symbols.ask_at)
        judge_at = symbols.judge_at
        if judge_at is not None and judge_at <= now:
            now = max(judge_at, calls[-1] + answers_s)
            if symbols.judge(now, 0.0):
                break
            continue
        asked = symbols.take(100, at(now), now)
        if not asked:
            continue
        calls.append(now)
        held = {symbol: quoted_at(symbol) for symbol in asked}
        # REST knows one more quote of a quiet symbol, and a new one at each moment of a busy one.
        knows = at(now) if busy else min(died + timedelta(seconds=6), at(now))
        found = {dead: Quote(dead, 1.0, 1.1, knows)} if dead in held else {}
        symbols.answered(held, found, now + answers_s)
    assert now - dies_s <= 300.0
    for first, later in zip(calls[1:], calls[31:], strict=False):
        assert later - first >= 60.0


@given(
    quotes=st.lists(st.tuples(st.floats(0.1, 60), st.floats(0, 9.0)), max_size=15),
    started=st.floats(0, 60),
)
def test_a_symbol_whose_quotes_come_within_the_grace_is_never_mute(
    quotes: list[tuple[float, float]], started: float
) -> None:
    """However rarely it is quoted, and however early REST knows: no false alarm."""
    sent_s, arrivals, now = 0.0, [(0.0, 0.0)], started
    for later_s, way_s in quotes:
        sent_s += later_s
        # The stream keeps the order of what it brings.
        arrivals.append((sent_s, max(sent_s + way_s, arrivals[-1][1])))

    def quoted_at(_: str) -> datetime | None:
        return at(max(sent for sent, arrived in arrivals if arrived <= now))

    symbols = MuteSymbols(quoted_at)
    symbols.follow(frozenset("A"), frozenset("A"))
    while now < sent_s + 100:
        now += 1.0
        assert symbols.judge(now, 0.0) == frozenset()
        if now >= symbols.ask_at and symbols.take(1, at(now), now):
            knows = Quote("A", 1.0, 1.1, at(max(sent for sent, _ in arrivals if sent <= now)))
            symbols.answered({"A": quoted_at("A")}, {"A": knows}, now)
    assert symbols.mute == frozenset()
    assert TIMES.grace_s == 10.0
