"""When a silent stream is mute: tables of what stream and REST know, under a manual clock."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from math import inf, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spotd.core.freshness import MUTE_SLACK, Judgement, Silence, SilenceTimes
from spotd.core.messages import Quote
from spotd.models import MarketName

NOON = datetime(2026, 1, 5, 17, 0, tzinfo=UTC)
NOTHING = Judgement(suspected=(), unpriced=())
TIMES = SilenceTimes(open_s=10, extended_s=20, closed_s=300, unknown_s=30, grace_s=5)


def at(seconds: float) -> datetime:
    """Return the time that is this many seconds after noon."""
    return NOON + timedelta(seconds=seconds)


def quote(seconds: float, bid: float = 10.0, ask: float = 10.1, symbol: str = "SPY") -> Quote:
    """Return a quote of this time after noon, two-sided unless said otherwise."""
    return Quote(symbol, bid, ask, at(seconds))


def silent() -> Silence:
    """Return the silence of 30 s of a stream that is silent since 100.0."""
    silence = Silence(TIMES)
    silence.opened(100.0)
    return silence


# When to ask


def test_before_the_first_session_nothing_was_heard() -> None:
    """The caller asks only while a session is open, and opening one begins its silence."""
    silence = Silence(TIMES)
    assert silence.check_at(None) == -inf
    silence.opened(100.0)
    assert (silence.check_at(None), silence.due(None, 100.0)) == (130.0, False)


def test_rest_is_asked_after_the_silence() -> None:
    """REST is asked at the end of the silence, and not before."""
    silence = silent()
    assert not silence.due(None, 129.9)
    assert silence.due(None, 130.0)


def test_data_puts_it_off() -> None:
    """REST is asked only after as much silence behind the newest data."""
    silence = silent()
    silence.data_at = 125.0
    assert silence.check_at(None) == 155.0
    assert not silence.due(None, 154.9)
    assert silence.due(None, 155.0)


def test_rest_that_could_not_be_asked_is_asked_again_after_as_long() -> None:
    """A failure says nothing of the stream, and the time of its data stays what it was."""
    silence = silent()
    silence.could_not_ask(140.0)
    assert (silence.check_at(None), silence.data_at) == (170.0, 100.0)


def test_an_answer_is_followed_by_another_silence() -> None:
    """A closed market is asked about again and again, at the same pace."""
    silence = silent()
    assert silence.judge({"SPY": at(0)}, {"SPY": quote(0)}, 131.0, asked_at=130.0) == NOTHING
    assert (silence.check_at(None), silence.data_at) == (161.0, 100.0)


@pytest.mark.parametrize(
    ("market", "silence_s"), [("open", 10.0), ("extended", 20.0), ("closed", 300.0), (None, 30.0)]
)
def test_the_market_decides_how_long_a_silence_is(
    market: MarketName | None, silence_s: float
) -> None:
    """REST is asked soon at noon and late at night; a market that is not known is in between."""
    assert silent().check_at(market) == 100.0 + silence_s


def test_the_default_times_are_in_that_order() -> None:
    """By default too, a silence is shortest while the market is open."""
    times = SilenceTimes()
    assert times.silence_s("open") < times.silence_s("extended") < times.silence_s("closed")


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
    """The symbols that moved last are asked about, and some of those without a price."""
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
    """As many symbols as fit are chosen, none twice, and no other one moved later."""
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
    """Only a two-sided quote that is newer by more than the slack makes the stream suspected."""
    asked = {"SPY": None if stream is None else at(stream)}
    judgement = silent().judge(asked, {"SPY": rest}, 131.0, asked_at=130.0)
    assert judgement == Judgement(("SPY",) if mute else (), ("SPY",) if unpriced else ())


def test_each_symbol_is_judged_by_itself() -> None:
    """The suspected are named in the order asked, and one that REST left out proves nothing."""
    asked = {"A": at(0), "B": None, "C": at(0), "D": at(0), "E": at(60)}
    found = {"E": quote(60), "D": quote(60), "B": quote(60), "A": quote(60)}
    judgement = silent().judge(asked, found, 131.0, asked_at=130.0)
    assert judgement == Judgement(("A", "D"), ("B",))


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
    assert silence.check_at(None) == heard_at + 30.0


# The verdict


def suspected() -> Silence:
    """Return the silence of a stream that is suspected since 131.0."""
    silence = silent()
    silence.judge({"SPY": at(0)}, {"SPY": quote(60)}, 131.0, asked_at=130.0)
    return silence


def test_a_suspected_stream_that_stays_silent_is_mute() -> None:
    """The verdict falls at the end of the grace, once."""
    silence = suspected()
    judge_at = silence.judge_at
    assert judge_at == 136.0
    verdicts = [silence.judge_mute(now) for now in (135.9, 136.0, 136.0)]
    assert verdicts == [None, True, False]
    assert silence.judge_at is None
    assert silence.check_at("open") == 146.0


@pytest.mark.parametrize("how", ["heard", "opened"])
def test_a_suspicion_ends_with_the_next_data(how: str) -> None:
    """A quote on its way to both was known to REST first; a new session is another stream."""
    silence = suspected()
    if how == "opened":
        silence.opened(133.0)
    else:
        silence.data_at = 133.0
    assert silence.judge_mute(140.0) is False
    assert silence.judge_at is None
    assert silence.check_at("open") == 143.0


def test_a_silent_market_is_never_mute() -> None:
    """On a holiday, at night or in an unscheduled closure, REST knows nothing new either."""
    silence, now = silent(), 100.0
    for _ in range(100):
        now = silence.check_at("open")
        assert silence.judge({"SPY": at(0)}, {"SPY": quote(0)}, now, asked_at=now) == NOTHING
        assert silence.judge_at is None


@given(
    st.lists(
        st.tuples(st.sampled_from(("heard", "opened", "answered", "failed")), st.floats(0.1, 50)),
        max_size=30,
    )
)
def test_rest_is_never_asked_sooner_than_after_the_silence(
    events: list[tuple[str, float]],
) -> None:
    """Data, a new session and each try to ask REST begin a whole silence."""
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
        assert silence.check_at(None) == pytest.approx(now + 30.0)
        assert not silence.due(None, now + 29.9)
        assert silence.due(None, now + 30.1)
