"""What to ask Alpaca for, as dialogues with a small Alpaca."""

from __future__ import annotations

from typing import Literal

import pytest

from spotd.core.refusals import RETRY_REFUSED_S
from spotd.core.subscriptions import Request, Subscriptions, UnexpectedAnswerError
from spotd.symbols import WILDCARD
from tests.core.alpaca_model import INVALID_SYNTAX, NO_SUCH_CHANNEL, OVER_LIMIT, Plan, Talk


def test_what_is_desired_becomes_active() -> None:
    """New symbols are asked for by name, on both channels, and statuses follow."""
    talk = Talk(Plan())
    talk.want("SPY", "AAPL")
    assert talk.said == [
        Request("subscribe", ("AAPL", "SPY"), trades=True),
        Request("subscribe", statuses=True),
    ]
    assert talk.subs.active == {"AAPL", "SPY"}
    assert not talk.subs.state().refused


def test_only_the_difference_is_asked_for() -> None:
    """A symbol that leaves is unsubscribed before a new one is subscribed."""
    talk = Talk(Plan())
    talk.want("A", "B")
    del talk.said[:]
    talk.want("B", "C")
    assert talk.said == [
        Request("unsubscribe", ("A",), trades=True),
        Request("subscribe", ("C",), trades=True),
    ]


def test_a_renewed_symbol_is_asked_for_again() -> None:
    """Where Alpaca seems to have lost a symbol, it is unsubscribed and subscribed."""
    talk = Talk(Plan(cap=2))
    talk.want("A", "B", "C")
    del talk.said[:]
    talk.renew(frozenset("B"))
    assert talk.said[:2] == [
        Request("unsubscribe", ("B",), trades=True),
        Request("subscribe", ("B",), trades=True),
    ]
    assert talk.subs.active == {"A", "B"}


def test_without_trades_only_quotes_are_asked_for() -> None:
    """Where trades are not wanted, no request names them."""
    talk = Talk(Plan(), trades=False)
    talk.want("A")
    talk.want("B")
    assert not talk.subs.trades
    assert [request.trades for request in talk.said] == [False] * len(talk.said)


def test_a_demand_that_grows_while_it_is_asked_for_stays_in_order() -> None:
    """The first come are asked for first, and by name what came together."""
    talk = Talk(Plan(), batch=2)
    talk.desire(frozenset("DEFG"))
    for desired in ("BDEFG", "ABCDEFG", "ABCEFG"):
        request = talk.subs.next_request(talk.now)
        assert request is not None
        talk.exchange(request, meanwhile=frozenset(desired))
    talk.talk()
    assert [(r.action, "".join(r.symbols)) for r in talk.said if not r.statuses] == [
        ("subscribe", "DE"),
        ("subscribe", "FG"),
        ("subscribe", "BA"),
        ("unsubscribe", "D"),
        ("subscribe", "C"),
    ]


def test_a_symbol_let_in_front_does_not_wait_behind_many_others() -> None:
    """It waits only for symbols that were active before a connection was lost."""
    talk = Talk(Plan(), batch=2)
    talk.want("S", "T", "U")
    talk.reconnect()
    talk.desire("ABCDESTU")
    talk.talk(at_most=1)
    talk.desire("ABCDESTUWXY", first="WXY")
    talk.desire("ABCDESTUVWX", first="VW")
    talk.talk()
    said = ["".join(request.symbols) for request in talk.said if request.symbols]
    assert said == ["ST", "U", "ST", "UW", "XV", "AB", "CD", "E"]


def test_a_known_limit_is_told() -> None:
    """It makes no difference whether the limit is set or learned."""
    assert Subscriptions(max_symbols=3).state().limited
    talk = Talk(Plan(cap=2))
    assert not talk.subs.state().limited
    talk.want("A", "B", "C")
    assert talk.subs.state().limited


def test_an_ill_formed_symbol_is_found_by_halving() -> None:
    """A 400 for a whole request ends with the culprit refused, and all others live."""
    talk = Talk(Plan(ill_formed=frozenset({"C"})))
    talk.want("A", "B", "C", "D")
    assert [request.symbols for request in talk.said if request.symbols] == [
        ("A", "B", "C", "D"),
        ("A", "B"),
        ("C", "D"),
        ("C",),
        ("D",),
    ]
    assert talk.subs.state().refused == {"C": ("refused_by_alpaca", "invalid syntax (400)")}
    assert talk.subs.active == {"A", "B", "D"}


def test_a_refused_symbol_is_tried_again_after_an_hour() -> None:
    """It may have been listed since. Before that it is not asked for."""
    talk = Talk(Plan(ill_formed=frozenset({"A"})))
    talk.want("A")
    talk.plan.ill_formed = frozenset()
    talk.now = RETRY_REFUSED_S - 1
    assert talk.talk() == 0
    talk.now = RETRY_REFUSED_S
    talk.talk()
    assert talk.subs.active == {"A"}


def test_a_refused_symbol_is_forgiven_when_it_leaves_the_demand() -> None:
    """When it comes back, it is asked for anew."""
    talk = Talk(Plan(ill_formed=frozenset({"A"})))
    talk.want("A")
    talk.want()
    assert not talk.subs.state().refused
    talk.plan.ill_formed = frozenset()
    talk.want("A")
    assert talk.subs.active == {"A"}


def test_it_is_known_when_every_desired_symbol_is_refused() -> None:
    """No answer is awaited then. Without a desired symbol none is refused."""
    talk = Talk(Plan(ill_formed=frozenset({"A", "B"})))
    assert not talk.subs.state().all_refused
    talk.want("A", "B")
    assert talk.subs.state().all_refused
    talk.desire(frozenset({"A", "C"}))
    assert not talk.subs.state().all_refused
    talk.talk()
    assert not talk.subs.state().all_refused


def test_an_acknowledged_symbol_is_not_refused_any_more() -> None:
    """An acknowledgement is believed, also for a symbol that Alpaca refused before."""
    talk = Talk(Plan(unlisted=frozenset("A")))
    talk.want("A")
    assert talk.refused("refused_by_alpaca") == {"A"}
    talk.subs.acknowledged("A", "A", talk.now)
    assert not talk.subs.state().refused
    assert talk.subs.state().active == {"A"}


@pytest.mark.parametrize(
    ("code", "symbols", "sentence"),
    [
        (400, "A", "A refused: no (400)"),
        (400, "AB", "2 symbols refused together (400): looking for the ill-formed one"),
        (405, "AB", "symbol limit exceeded with 2 symbols"),
        (410, "ABCDEF", "A, B, C, D, E refused: no (410)"),
        (412, WILDCARD, "* refused: no (412)"),
    ],
)
def test_an_error_becomes_a_sentence_for_the_log(code: int, symbols: str, sentence: str) -> None:
    """The sentence names at most five symbols."""
    subs = Subscriptions(trades=False)
    subs.connected()
    subs.want(frozenset(symbols))
    subs.next_request(0.0)
    assert subs.refused(code, "no", 0.0) == sentence


def test_a_symbol_missing_in_the_acknowledgement_is_refused() -> None:
    """Alpaca may leave a symbol out without an error."""
    talk = Talk(Plan(unlisted=frozenset({"NOPE"})))
    talk.want("A", "NOPE")
    assert talk.subs.state().refused == {
        "NOPE": ("refused_by_alpaca", "not in the acknowledgement"),
    }


def test_trades_missing_in_the_acknowledgement_are_known() -> None:
    """A symbol with quotes and without trades is live; its last price stays null."""
    subs = Subscriptions()
    subs.connected()
    subs.want(frozenset({"A", "B"}))
    subs.next_request(0.0)
    subs.acknowledged(["A", "B"], ["A"], 0.0)
    assert subs.active == {"A", "B"}
    assert subs.state().without_trades == {"B"}


def test_a_feed_without_trades_gives_quotes() -> None:
    """A 410 ends asking for trades on this connection, also when symbols leave."""
    talk = Talk(Plan(trades=False))
    talk.want("A", "B")
    assert talk.subs.active == {"A", "B"}
    assert not talk.subs.trades
    talk.want("B")
    assert talk.subs.active == {"B"}
    talk.reconnect()
    assert talk.subs.trades


def test_a_feed_without_quotes_refuses_every_symbol() -> None:
    """A 410 to a request without trades is about its symbols."""
    subs = Subscriptions(trades=False)
    subs.connected()
    subs.want(frozenset({"A", "B"}))
    subs.next_request(0.0)
    subs.refused(*NO_SUCH_CHANNEL, 0.0)
    assert {r.reason for r in subs.state().refused.values()} == {"refused_by_alpaca"}
    assert subs.next_request(0.0) is None


def test_the_limit_is_learned_and_filled() -> None:
    """A 405 keeps what is live; the limit is found by halving and then known exactly."""
    talk = Talk(Plan(cap=30, counts="entries"))
    talk.want(*(chr(65 + n // 5) + chr(65 + n % 5) for n in range(100)))
    assert talk.subs.state().learned_limit == 15
    assert len(talk.subs.active) == 15
    assert len(talk.refused("symbol_limit")) == 85
    assert {refusal.detail for refusal in talk.subs.state().refused.values()} == {
        "the limit of the Alpaca plan is 15"
    }


def test_a_limit_that_is_found_leaves_no_newcomer_in_front() -> None:
    """A newcomer goes in front of a long row, but it does not take the room of the first come."""
    talk = Talk(Plan(cap=3), batch=2)
    talk.desire("ABCD")
    talk.talk(at_most=1)
    talk.desire("ABCDX", first="X")
    talk.talk()
    assert talk.subs.active == {"A", "B", "C"}


def test_freed_room_is_used() -> None:
    """When a live symbol leaves, one that was refused for the limit takes its place."""
    talk = Talk(Plan(cap=2))
    talk.want("A", "B", "C")
    assert talk.refused("symbol_limit") == {"C"}
    talk.want("A", "C")
    assert talk.subs.active == {"A", "C"}


@pytest.mark.parametrize(("cap", "max_symbols"), [(2, None), (None, 2)])
def test_live_symbols_have_the_room_after_a_reconnect(
    cap: int | None, max_symbols: int | None
) -> None:
    """A symbol that was refused for the limit does not take it, also while the stream is down."""
    talk = Talk(Plan(cap=cap), max_symbols=max_symbols)
    talk.want("M", "N", "Z")
    talk.want("A", "M", "N")
    assert talk.subs.active == {"M", "N"}
    talk.subs.disconnected()
    assert talk.refused("symbol_limit") == {"A"}
    talk.reconnect()
    assert talk.refused("symbol_limit") == {"A"}
    talk.talk()
    assert talk.subs.active == {"M", "N"}


def test_a_connection_that_was_lost_at_once_costs_no_symbol_its_room() -> None:
    """A symbol that was live before it, and not asked for again on it, is live after it."""
    talk = Talk(Plan(cap=2), batch=1)
    talk.want("M", "N")
    talk.want("A", "M", "N")
    talk.reconnect()
    talk.talk(at_most=1)
    assert talk.subs.active == {"M"}
    talk.subs.disconnected()
    talk.reconnect()
    talk.talk()
    assert talk.subs.active == {"M", "N"}


def test_a_symbol_that_was_refused_for_an_hour_has_lost_its_room() -> None:
    """Another symbol is live in its place, and keeps the room by a reconnect."""
    talk = Talk(Plan(cap=2))
    talk.want("B", "M", "N")
    talk.plan.unlisted = frozenset("B")
    talk.reconnect()
    talk.talk()
    assert talk.subs.active == {"M", "N"}
    talk.plan.unlisted = frozenset()
    talk.now = RETRY_REFUSED_S
    talk.talk()
    assert talk.refused("symbol_limit") == {"B"}
    talk.reconnect()
    talk.talk()
    assert talk.subs.active == {"M", "N"}


def test_a_symbol_that_was_not_desired_meanwhile_has_lost_its_room() -> None:
    """It comes back as a new one."""
    talk = Talk(Plan(cap=2))
    talk.want("M", "N", "Z")
    talk.subs.disconnected()
    talk.desire(frozenset({"M", "Z"}))
    talk.desire(frozenset({"A", "M", "N"}))
    talk.reconnect()
    talk.talk()
    assert talk.subs.active == {"A", "M"}


def test_the_limit_is_probed_once_per_connection() -> None:
    """The plan may have grown: one symbol more is tried once after each reconnect."""
    talk = Talk(Plan(cap=2))
    talk.want("A", "B", "C", "D")
    assert talk.talk() == 0
    talk.reconnect()
    talk.talk()
    assert talk.probes == 1
    talk.plan = Plan(cap=3)
    talk.reconnect()
    talk.talk()
    assert talk.subs.active == {"A", "B", "C"}
    assert talk.subs.state().learned_limit == 3


def test_a_plan_without_a_limit_any_more_is_noticed() -> None:
    """When the probe is acknowledged, nothing is known to be too many."""
    talk = Talk(Plan(cap=2))
    talk.want("A", "B", "C", "D")
    talk.plan = Plan()
    talk.reconnect()
    talk.talk()
    assert talk.subs.active == {"A", "B", "C", "D"}
    assert talk.subs.state().learned_limit is None


def test_a_half_learned_limit_is_probed_too() -> None:
    """The number that was too many on an earlier connection may fit on this one."""
    talk = Talk(Plan(cap=1, unlisted=frozenset({"A", "B"})))
    talk.want("A", "B")
    talk.plan = Plan()
    talk.reconnect()
    talk.want("C", "D", "E")
    assert talk.subs.active == {"C", "D", "E"}


def test_a_smaller_plan_is_learned_anew() -> None:
    """A limit that shrank between two connections is found again."""
    talk = Talk(Plan(cap=8))
    talk.want(*"ABCDEFGHIJ")
    talk.plan = Plan(cap=3)
    talk.reconnect()
    talk.talk()
    assert talk.subs.active == {"A", "B", "C"}
    assert talk.subs.state().learned_limit == 3


def test_more_than_the_setting_is_never_asked_for() -> None:
    """SPOTD_MAX_SYMBOLS holds before Alpaca refuses anything, and the probe keeps to it."""
    talk = Talk(Plan(cap=3), max_symbols=2)
    talk.want("A", "B", "C")
    talk.reconnect()
    talk.talk()
    assert talk.subs.active == {"A", "B"}
    assert talk.subs.state().refused == {"C": ("symbol_limit", "SPOTD_MAX_SYMBOLS=2 is the limit")}


def test_statuses_give_way_to_quotes() -> None:
    """Where the statuses count, their entry is given back as soon as a symbol needs it."""
    talk = Talk(Plan(cap=3, statuses="counted"))
    talk.want("A", "B")
    assert talk.alpaca.statuses == {WILDCARD}
    talk.want("A", "B", "C")
    assert talk.alpaca.statuses == set()
    assert talk.subs.active == {"A", "B", "C"}


def test_statuses_that_are_refused_are_not_asked_for_again() -> None:
    """They are asked for once per connection, whatever the code of the error is."""
    talk = Talk(Plan(statuses="refused"))
    talk.want("A")
    talk.want("A", "B")
    assert [request.statuses for request in talk.said] == [False, True, False]
    talk.reconnect()
    talk.talk()
    assert talk.said[-1].statuses


def test_a_symbol_that_alpaca_adds_by_itself_is_unsubscribed() -> None:
    """An acknowledgement is believed, also without a request."""
    subs = Subscriptions()
    subs.connected()
    assert subs.acknowledged(["GHOST"], [], 0.0) == {"GHOST"}
    assert subs.next_request(0.0) == Request("unsubscribe", ("GHOST",))
    assert subs.acknowledged([], [], 0.0) == set()


def test_a_symbol_that_alpaca_drops_by_itself_is_asked_for_again() -> None:
    """An acknowledgement is believed, whatever was asked for."""
    talk = Talk(Plan())
    talk.want("A", "B")
    talk.alpaca.quotes.discard("A")
    talk.subs.acknowledged(["B"], ["B"], 0.0)
    talk.talk()
    assert talk.subs.active == {"A", "B"}


def test_a_symbol_that_left_while_its_request_was_halved_is_not_asked_for() -> None:
    """Every part is compared with the demand before it is sent."""
    talk = Talk(Plan(ill_formed=frozenset({"C"})))
    talk.desire(frozenset("ABCD"))
    talk.talk(at_most=1)
    talk.want("C")
    assert [request.symbols for request in talk.said] == [("A", "B", "C", "D"), ("C",)]


def test_an_answer_for_a_symbol_that_left_is_not_kept() -> None:
    """When the symbol comes back, it is asked for anew, here too."""
    subs = in_flight("subscribe")
    subs.want(frozenset())
    subs.refused(*INVALID_SYNTAX, 0.0)
    assert not subs.state().refused


def in_flight(action: Literal["subscribe", "unsubscribe"]) -> Subscriptions:
    """Return subscriptions with a request under way, about the quotes of one symbol."""
    subs = Subscriptions(trades=False)
    subs.connected()
    subs.want(frozenset({"A"}))
    if action == "unsubscribe":
        subs.acknowledged(["A", "B"], [], 0.0)
    request = subs.next_request(0.0)
    assert request is not None
    assert request.action == action
    return subs


@pytest.mark.parametrize("code", [400, 405, 410, 500])
def test_an_unsubscribe_cannot_be_refused(code: int) -> None:
    """An error there means that the two sides do not agree any more."""
    with pytest.raises(UnexpectedAnswerError):
        in_flight("unsubscribe").refused(code, "?", 0.0)


def test_an_unsubscribe_that_did_nothing_is_unexpected() -> None:
    """Asking again would have no end."""
    with pytest.raises(UnexpectedAnswerError):
        in_flight("unsubscribe").acknowledged(["A", "B"], [], 0.0)


@pytest.mark.parametrize("code", [401, 406, 407, 500])
def test_an_error_about_the_connection_is_unexpected(code: int) -> None:
    """Only 400, 405 and 410 say something about a request."""
    with pytest.raises(UnexpectedAnswerError):
        in_flight("subscribe").refused(code, "?", 0.0)


def test_an_error_without_a_request_is_unexpected() -> None:
    """Nothing was asked for, so the two sides do not agree."""
    with pytest.raises(UnexpectedAnswerError):
        Subscriptions().refused(*OVER_LIMIT, 0.0)


def test_a_lost_connection_takes_everything_with_it() -> None:
    """Nothing is active, no answer is awaited, and no half of an old request is tried."""
    subs = Subscriptions()
    subs.connected()
    subs.want(frozenset({"A", "B"}))
    subs.next_request(0.0)
    subs.refused(*INVALID_SYNTAX, 0.0)
    subs.disconnected()
    assert subs.active == frozenset()
    subs.connected()
    assert subs.next_request(0.0) == Request("subscribe", ("A", "B"), trades=True)


# The whole market


def test_the_wildcard_takes_the_place_of_all_symbols() -> None:
    """`*` is asked for first; then the single symbols, now superfluous, are given back."""
    talk = Talk(Plan())
    talk.want("A", "B")
    del talk.said[:]
    talk.want("A", "B", WILDCARD)
    assert talk.said == [
        Request("subscribe", (WILDCARD,), trades=True),
        Request("unsubscribe", ("A", "B"), trades=True),
    ]
    talk.want("A")
    assert talk.subs.active == {"A"}


def test_the_wildcard_needs_no_room() -> None:
    """The whole market is asked for although the limit on symbols is reached."""
    talk = Talk(Plan(), max_symbols=2)
    talk.want("A", "B", "C")
    talk.want("A", "B", "C", WILDCARD)
    assert talk.subs.active == {WILDCARD}


@pytest.mark.parametrize("error", [INVALID_SYNTAX, OVER_LIMIT, NO_SUCH_CHANNEL])
def test_a_refused_wildcard_changes_nothing_else(error: tuple[int, str]) -> None:
    """No live symbol is dropped for it, now or at the next try, and the limit stays."""
    talk = Talk(Plan(cap=2, star=error))
    talk.want("A", "B", "C")
    talk.want("A", "B", "C", WILDCARD)
    assert talk.subs.active == {"A", "B"}
    assert talk.refused("refused_by_alpaca") == {WILDCARD}
    assert talk.refused("symbol_limit") == {"C"}
    talk.now = RETRY_REFUSED_S
    talk.talk()
    assert talk.subs.active == {"A", "B"}
    assert "unsubscribe" not in {request.action for request in talk.said if request.symbols}
    assert talk.subs.state().learned_limit == 2


def test_a_refused_wildcard_costs_no_symbol_its_trades() -> None:
    """A 410 to `*` says nothing about the trades of single symbols."""
    talk = Talk(Plan(star=NO_SUCH_CHANNEL))
    talk.want("A", WILDCARD)
    assert talk.alpaca.trades == {"A"}
    assert talk.subs.trades


def test_no_symbol_is_refused_while_the_wildcard_is_asked_for() -> None:
    """Whether single symbols need room is known after the answer."""
    subs = Subscriptions(max_symbols=1)
    subs.connected()
    subs.want(frozenset({"A", "B", WILDCARD}))
    assert subs.next_request(0.0) == Request("subscribe", (WILDCARD,), trades=True)
    assert not subs.state().refused


@pytest.mark.parametrize("code", [400, 409, 411, 412, 413])
def test_a_plan_without_the_whole_market_costs_the_single_symbols_nothing(code: int) -> None:
    """Whatever the code is, the wildcard is refused alone, and the session goes on."""
    subs = Subscriptions()
    subs.connected()
    subs.want(frozenset({"A", WILDCARD}))
    assert subs.next_request(0.0) == Request("subscribe", (WILDCARD,), trades=True)
    subs.refused(code, "no", 0.0)
    assert set(subs.state().refused) == {WILDCARD}
    assert subs.next_request(0.0) == Request("subscribe", ("A",), trades=True)


def _row(talk: Talk, *symbols: str) -> list[tuple[str, bool]]:
    """Return each request that a demand brings, and whether the next one waits after it."""
    talk.desire(frozenset(symbols))
    row = []
    while (request := talk.subs.next_request(talk.now)) is not None:
        talk.exchange(request)
        row.append(("".join(request.symbols), talk.subs.gives_way(request)))
    return row


def test_a_long_row_gives_way_to_what_was_live_before() -> None:
    """A full request is followed by a pause if symbols were live when its row began."""
    talk = Talk(Plan(), batch=2)
    assert _row(talk, *"ABC") == [("AB", False), ("C", False), ("", False)]
    assert _row(talk, *"ABCDEF") == [("DE", True), ("F", False)]
    assert _row(talk, "A") == [("BC", True), ("DE", True), ("F", False)]
    talk.reconnect()
    assert not any(waits for _, waits in _row(talk, *"ABCD"))
