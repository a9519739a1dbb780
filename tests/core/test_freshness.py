"""When a silent stream is mute: tables of what stream and REST know, under a manual clock."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from math import inf, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spotd.core.freshness import MUTE_SLACK, Judgement, Silence
from spotd.core.messages import Quote

NOON = datetime(2026, 1, 5, 17, 0, tzinfo=UTC)
NOTHING = Judgement(mute=(), unpriced=False)


def at(seconds: float) -> datetime:
    """So many seconds after noon."""
    return NOON + timedelta(seconds=seconds)


def quote(seconds: float, bid: float = 10.0, ask: float = 10.1, symbol: str = "SPY") -> Quote:
    """A quote so many seconds after noon, two-sided unless said otherwise."""
    return Quote(symbol, bid, ask, at(seconds))


def silent(silence_s: float = 30.0) -> Silence:
    """Silent since 100.0."""
    silence = Silence(silence_s)
    silence.opened(100.0)
    return silence


# When to ask


def test_before_the_first_session_nothing_was_heard() -> None:
    """The caller asks only while a session is open, and opening one begins its silence."""
    silence = Silence()
    assert silence.check_at == -inf
    silence.opened(100.0)
    assert (silence.check_at, silence.due(100.0)) == (130.0, False)


def test_rest_is_asked_after_the_silence() -> None:
    """Not before its end, and at its end."""
    silence = silent()
    assert not silence.due(129.9)
    assert silence.due(130.0)


def test_data_puts_it_off() -> None:
    """REST is asked only after as much silence behind the newest data."""
    silence = silent()
    silence.data_at = 125.0
    assert (silence.check_at, silence.due(154.9), silence.due(155.0)) == (155.0, False, True)


def test_rest_that_could_not_be_asked_is_asked_again_after_as_long() -> None:
    """A failure says nothing of the stream, and the time of its data stays what it was."""
    silence = silent()
    silence.could_not_ask(140.0)
    assert (silence.check_at, silence.data_at) == (170.0, 100.0)


def test_an_answer_is_followed_by_another_silence() -> None:
    """A closed market is asked about again and again, at the same pace."""
    silence = silent()
    assert silence.judge({"SPY": at(0)}, {"SPY": quote(0)}, 131.0, asked_at=130.0) == NOTHING
    assert (silence.check_at, silence.data_at) == (161.0, 100.0)


# Which symbols


CHOICES = {
    "none": ([], 4, []),
    "fewer than fit": ([("A", 1), ("B", None)], 4, ["A", "B"]),
    "those that moved last": ([("A", 1), ("B", 3), ("C", 2)], 2, ["B", "C"]),
    "in the order given where they moved together": ([("B", 1), ("A", 1), ("C", 1)], 2, ["B", "A"]),
    "a quarter for those without a price": (
        [("A", 1), ("U", None), ("B", 2), ("V", None), ("C", 3), ("D", 4), ("E", 5)],
        4,
        ["E", "D", "C", "U"],
    ),
    "what the others leave free": (
        [("U", None), ("V", None), ("W", None), ("X", None), ("A", 1)],
        4,
        ["A", "U", "V", "W"],
    ),
    "no more for those without a price than there are": (
        [("U", None), *[(f"S{n}", n) for n in range(9)]],
        8,
        ["S8", "S7", "S6", "S5", "S4", "S3", "S2", "U"],
    ),
}


@pytest.mark.parametrize(("prices", "most", "chosen"), CHOICES.values(), ids=CHOICES.keys())
def test_which_symbols_are_asked_about(
    prices: list[tuple[str, float | None]], most: int, chosen: list[str]
) -> None:
    """Those that moved last, and some of those without a price."""
    times = [(symbol, None if s is None else at(s)) for symbol, s in prices]
    assert Silence.choose([(symbol, time, time) for symbol, time in times], most) == chosen


def test_a_trade_moves_a_price_too() -> None:
    """The time that the price reflects decides, not that of its quote."""
    prices = [("A", at(5), at(5)), ("B", at(1), at(9))]
    assert Silence.choose(prices, 1) == ["B"]


@given(
    st.lists(st.none() | st.integers(0, 50), max_size=40),
    st.integers(1, 20),
)
def test_the_choice_uses_all_its_room(seconds: list[int | None], most: int) -> None:
    """As many as fit, none twice, and no symbol left out moved later than one that is in."""
    prices = {f"S{n}": s for n, s in enumerate(seconds)}
    times = [(symbol, None if s is None else at(s)) for symbol, s in prices.items()]
    chosen = Silence.choose([(symbol, time, time) for symbol, time in times], most)
    assert len(chosen) == len(set(chosen)) == min(most, len(prices))
    priced = [s for symbol in chosen if (s := prices[symbol]) is not None]
    assert priced == sorted(priced, reverse=True)
    left_out = [s for symbol, s in prices.items() if s is not None and symbol not in chosen]
    assert not left_out or max(left_out) <= min(priced, default=50)
    unpriced = len(chosen) - len(priced)
    if left_out:
        assert unpriced <= most // 4


# What the answer means


SLACK_S = MUTE_SLACK.total_seconds()
ANSWERS: dict[str, tuple[float | None, Quote | None, bool, bool]] = {
    # the stream's quote, REST's quote; mute, unpriced
    "the same quote": (0, quote(0), False, False),
    "REST is a moment ahead": (0, quote(SLACK_S), False, False),
    "REST is ahead": (0, quote(SLACK_S + 0.001), True, False),
    "REST is behind": (60, quote(0), False, False),
    "REST knows nothing": (0, None, False, False),
    "a bid alone proves nothing": (0, quote(60, ask=0.0), False, False),
    "an ask alone proves nothing": (0, quote(60, bid=0.0), False, False),
    "what is no number proves nothing": (0, quote(60, bid=nan), False, False),
    "what is not finite proves nothing": (0, quote(60, ask=inf), False, False),
    "no price yet, and REST has one": (None, quote(60), False, True),
    "no price yet, and REST has none": (None, None, False, True),
}


@pytest.mark.parametrize(("stream", "rest", "mute", "unpriced"), ANSWERS.values(), ids=ANSWERS)
def test_what_rest_says_of_one_symbol(
    stream: float | None, rest: Quote | None, mute: bool, unpriced: bool
) -> None:
    """Only a two-sided quote that is newer by more than the slack shows a mute stream."""
    asked = {"SPY": None if stream is None else at(stream)}
    judgement = silent().judge(asked, {"SPY": rest}, 131.0, asked_at=130.0)
    assert judgement == Judgement(mute=("SPY",) if mute else (), unpriced=unpriced)


def test_each_symbol_is_judged_by_itself() -> None:
    """The mute ones are named in the order asked, and one that REST left out proves nothing."""
    asked = {"A": at(0), "B": None, "C": at(0), "D": at(0), "E": at(60)}
    found = {"E": quote(60), "D": quote(60), "B": quote(60), "A": quote(60)}
    judgement = silent().judge(asked, found, 131.0, asked_at=130.0)
    assert judgement == Judgement(mute=("A", "D"), unpriced=True)


@pytest.mark.parametrize("heard_at", [130.0, 130.5, 131.0])
@pytest.mark.parametrize("how", ["heard", "opened"])
def test_an_answer_is_void_when_the_stream_spoke_meanwhile(how: str, heard_at: float) -> None:
    """An answer is void too when another session was opened: it is about an earlier stream."""
    silence = silent()
    if how == "opened":
        silence.opened(heard_at)
    else:
        silence.data_at = heard_at
    asked = {"SPY": at(0), "NEW": None}
    assert silence.judge(asked, {"SPY": quote(60)}, 131.0, asked_at=130.0) == NOTHING
    assert silence.check_at == heard_at + 30.0


@given(
    st.lists(
        st.tuples(st.sampled_from(("heard", "opened", "answered", "failed")), st.floats(0.1, 50)),
        max_size=30,
    )
)
def test_rest_is_never_asked_sooner_than_after_the_silence(
    events: list[tuple[str, float]],
) -> None:
    """Neither after data, nor after a session was opened, nor after REST was asked."""
    silence, now = silent(), 100.0
    for what, later_s in events:
        now += later_s
        if what == "heard":
            silence.data_at = now
        elif what == "opened":
            silence.opened(now)
        elif what == "failed":
            silence.could_not_ask(now)
        else:
            silence.judge({}, {}, now, asked_at=now - 0.05)
        assert silence.check_at == pytest.approx(now + 30.0)
        assert not silence.due(now + 29.9)
        assert silence.due(now + 30.1)
