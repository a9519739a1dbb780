"""What to ask Alpaca for, against a small Alpaca that answers as the documentation says."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import ceil, log2
from typing import Literal, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from spotd.core.subscriptions import (
    RETRY_REFUSED_S,
    Request,
    Subscriptions,
    UnexpectedAnswerError,
)
from spotd.symbols import WILDCARD

INVALID_SYNTAX = (400, "invalid syntax")
OVER_LIMIT = (405, "symbol limit exceeded")
NO_SUCH_CHANNEL = (410, "invalid subscribe action for this feed")


@dataclass
class Plan:
    """What the account may have, and what Alpaca accepts."""

    cap: int | None = None
    counts: Literal["symbols", "entries"] = "symbols"  # or quotes plus trades
    trades: bool = True
    statuses: Literal["free", "counted", "refused"] = "free"
    ill_formed: frozenset[str] = frozenset()
    unlisted: frozenset[str] = frozenset()  # silently left out of the acknowledgement
    star: tuple[int, str] | None = None  # how `*` is refused, if it is
    counts_first: bool = False  # the cap is looked at before the symbols' form

    def room_for(self, trades_wanted: bool) -> int | None:
        """How many symbols fit."""
        if self.cap is None:
            return None
        both = self.counts == "entries" and trades_wanted and self.trades
        return self.cap // 2 if both else self.cap


@dataclass
class Alpaca:
    """One connection's server side: additive, atomic, always answering with the whole list."""

    plan: Plan
    quotes: set[str] = field(default_factory=set)
    trades: set[str] = field(default_factory=set)
    statuses: set[str] = field(default_factory=set)

    def answer(self, request: Request) -> tuple[int, str] | None:
        """The error, or None for an acknowledgement."""
        plan = self.plan
        if request.statuses:
            return self._answer_statuses(request)
        if request.trades and not plan.trades:
            return NO_SUCH_CHANNEL
        if request.action == "unsubscribe":
            self.quotes -= set(request.symbols)
            if request.trades:
                self.trades -= set(request.symbols)
            return None
        if WILDCARD in request.symbols:
            if plan.star is None:
                self.quotes.add(WILDCARD)
                self.trades.update(request.symbols if request.trades else ())
            return plan.star
        ill_formed = not plan.ill_formed.isdisjoint(request.symbols)
        if ill_formed and not plan.counts_first:
            return INVALID_SYNTAX
        quotes = self.quotes.union(request.symbols)
        trades = self.trades.union(request.symbols) if request.trades else self.trades
        if self._too_many(quotes, trades, self.statuses):
            return OVER_LIMIT
        if ill_formed:
            return INVALID_SYNTAX
        self.quotes = quotes - plan.unlisted
        self.trades = trades - plan.unlisted
        return None

    def _answer_statuses(self, request: Request) -> tuple[int, str] | None:
        if self.plan.statuses == "refused":
            return NO_SUCH_CHANNEL
        statuses = {WILDCARD} if request.action == "subscribe" else set[str]()
        if self._too_many(self.quotes, self.trades, statuses):
            return OVER_LIMIT
        self.statuses = statuses
        return None

    def _too_many(self, quotes: set[str], trades: set[str], statuses: set[str]) -> bool:
        if self.plan.cap is None:
            return False
        used = len(quotes | trades)
        if self.plan.counts == "entries":
            used = len(quotes) + len(trades)
        if self.plan.statuses == "counted":
            used += len(statuses)
        return used > self.plan.cap


class Talk:
    """One account talking with Alpaca, over any number of connections."""

    def __init__(
        self,
        plan: Plan,
        *,
        trades: bool = True,
        max_symbols: int | None = None,
        batch: int = 500,
    ) -> None:
        self.subs = Subscriptions(trades=trades, max_symbols=max_symbols, batch=batch)
        self.trades = trades
        self.max_symbols = max_symbols
        self.batch = batch
        self.plan = plan
        self.now = 0.0
        self.said: list[Request] = []
        self.probes = 0
        self.standing: dict[str, bool] = {}  # of the desired ones: active or not
        self.reconnect()

    def reconnect(self) -> None:
        """A new connection: Alpaca remembers nothing."""
        self.alpaca = Alpaca(self.plan)
        self.probes = 0
        self.subs.connected()

    def want(self, *symbols: str) -> None:
        """A new demand, and the talk it takes."""
        self.subs.want(frozenset(symbols))
        self.talk()

    def talk(self, at_most: int | None = None) -> int:
        """Requests and answers until nothing is left to ask, or ``at_most`` of them."""
        patience = self.enough() if at_most is None else at_most
        for count in range(patience):
            request = self.subs.next_request(self.now)
            if request is None:
                return count
            self.exchange(request)
        if at_most is None:
            raise AssertionError(f"more than {patience} requests: {self.said[-5:]}")
        return patience

    def enough(self) -> int:
        """A bound on the requests of one talk: nobody asks for ever, or symbol by symbol."""
        subs = self.subs
        symbols = len(subs.desired | subs.active)
        rounds = ceil(log2(symbols + 2)) + 1
        culprits = len(self.plan.ill_formed & subs.desired)
        batches = ceil(symbols / self.batch)
        return 8 + 2 * batches + (2 * culprits + 3) * 2 * rounds

    def exchange(self, request: Request, meanwhile: frozenset[str] | None = None) -> None:
        """One request, its answer, and what must be true of both.

        ``meanwhile`` the demand may change.
        """
        subs, alpaca = self.subs, self.alpaca
        assert subs.awaiting is request
        assert subs.next_request(self.now) is None, "one request at a time"
        assert len(request.symbols) <= self.batch
        assert len(set(request.symbols)) == len(request.symbols)
        assert request.statuses or request.symbols, "no empty request"
        live = subs.active
        assert live == alpaca.quotes
        if request.action == "subscribe":
            assert live.isdisjoint(request.symbols), "what is live is not asked for again"
        elif WILDCARD not in live:
            assert subs.desired.isdisjoint(request.symbols), "what is desired is not dropped"
        self.said.append(request)
        held_by_statuses = bool(alpaca.statuses)  # a 405 may be about those
        probe = self._is_probe(request)
        if meanwhile is not None:
            subs.want(meanwhile, first=frozenset(sorted(meanwhile)[1::3]))
        error = alpaca.answer(request)
        if error is None:
            new = subs.acknowledged(sorted(alpaca.quotes), sorted(alpaca.trades), self.now)
            assert new == alpaca.quotes - live
        else:
            self.probes += probe and error == OVER_LIMIT and not held_by_statuses
            assert subs.rejected(*error, self.now)
            assert subs.active == live, "an error takes nothing away"
        if self.max_symbols is not None:
            assert len(subs.active - {WILDCARD}) <= self.max_symbols
        assert subs.active == alpaca.quotes
        self.compare_touched()

    def compare_touched(self) -> None:
        """Whose standing is another one since the last time, and by no refusal, was named."""
        before, self.standing = self.standing, {s: s in self.subs.active for s in self.subs.desired}
        touched = self.subs.touched()
        if touched is not None:
            for symbol in before.keys() | self.standing.keys():
                same = before.get(symbol) == self.standing.get(symbol)
                assert same or symbol in touched

    def _is_probe(self, request: Request) -> bool:
        """Whether it asks for more than the limit that is known."""
        if self.subs.learned_limit is None or request.statuses or WILDCARD in request.symbols:
            return False
        return len(self.subs.active) + len(request.symbols) > self.subs.learned_limit

    def refused(self, reason: str) -> set[str]:
        """Symbols refused for a reason."""
        return {s for s, refusal in self.subs.refusals().items() if refusal.reason == reason}

    def settled(self) -> None:
        """What must be true when nothing is left to ask."""
        subs, plan = self.subs, self.plan
        refusals = subs.refusals()
        good = subs.desired - plan.ill_formed - plan.unlisted - {WILDCARD}
        if WILDCARD in subs.desired and plan.star is None:
            assert subs.active == {WILDCARD}
            assert refusals == {}
            return
        rooms = [
            room for room in (plan.room_for(self.trades), self.max_symbols) if room is not None
        ]
        room = min(rooms, default=len(good) + 1)
        assert subs.active <= good
        assert len(subs.active) == min(room, len(good)), "all the room is used"
        assert refusals.keys() == subs.desired - subs.active, "every other one has a reason"
        assert self.refused("refused_by_alpaca").isdisjoint(good), "the culprits alone"
        if len(good) < room:
            assert not self.refused("symbol_limit")
        with_trades = subs.active if self.trades and plan.trades else frozenset[str]()
        assert self.alpaca.trades == with_trades
        assert self.probes <= 1, "more than the limit is refused once per connection"


# Dialogue


def test_what_is_desired_becomes_active() -> None:
    """New symbols are asked for in sorted order, on both channels, and statuses follow."""
    talk = Talk(Plan())
    talk.want("SPY", "AAPL")
    assert talk.said == [
        Request("subscribe", ("AAPL", "SPY"), trades=True),
        Request("subscribe", statuses=True),
    ]
    assert talk.subs.active == {"AAPL", "SPY"}
    assert not talk.subs.refusals()


def test_only_the_difference_is_asked_for() -> None:
    """A symbol that leaves is unsubscribed before a new one is subscribed; the rest is left."""
    talk = Talk(Plan())
    talk.want("A", "B")
    del talk.said[:]
    talk.want("B", "C")
    assert talk.said == [
        Request("unsubscribe", ("A",), trades=True),
        Request("subscribe", ("C",), trades=True),
    ]


def test_without_trades_only_quotes_are_asked_for() -> None:
    """Where trades are not wanted, no request names them."""
    talk = Talk(Plan(), trades=False)
    talk.want("A")
    talk.want("B")
    assert not talk.subs.trades
    assert [request.trades for request in talk.said] == [False] * len(talk.said)


def test_who_is_touched_is_said_once() -> None:
    """After a new connection it may be anybody; then those whose standing changed."""
    subs = Subscriptions()
    subs.connected()
    assert subs.touched() is None
    subs.want(frozenset("ABC"))
    assert subs.touched() == frozenset("ABC")
    assert subs.touched() == frozenset()
    subs.next_request(0.0)
    subs.acknowledged("AB", "AB", 0.0)
    assert subs.touched() == frozenset("ABC")
    subs.want(frozenset("AC"))
    assert subs.touched() == frozenset("B")


def test_a_demand_that_grows_while_it_is_asked_for_stays_in_order() -> None:
    """As if it had been there as a whole: the first claim is by name, whatever came when."""
    talk = Talk(Plan(), batch=2)
    talk.subs.want(frozenset("DEFG"))
    for desired in ("BDEFG", "ABCDEFG", "ABCEFG"):
        request = talk.subs.next_request(talk.now)
        assert request is not None
        talk.exchange(request, meanwhile=frozenset(desired))
    talk.talk()
    assert [(r.action, "".join(r.symbols)) for r in talk.said if not r.statuses] == [
        ("subscribe", "DE"),
        ("subscribe", "BF"),
        ("subscribe", "AC"),
        ("unsubscribe", "D"),
        ("subscribe", "G"),
    ]


def test_who_is_let_in_front_does_not_wait_behind_a_long_row() -> None:
    """Except behind those that were active before a connection was lost."""
    talk = Talk(Plan(), batch=2)
    subs = talk.subs
    talk.want("S", "T", "U")
    talk.reconnect()
    subs.want(frozenset("ABCDESTU"))
    talk.talk(at_most=1)
    subs.want(frozenset("ABCDESTUWXY"), first=frozenset("WXY"))
    subs.want(frozenset("ABCDESTUVWX"), first=frozenset("VW"))
    talk.talk()
    said = ["".join(request.symbols) for request in talk.said if request.symbols]
    assert said == ["ST", "U", "ST", "UV", "WX", "AB", "CD", "E"]


def test_that_a_limit_is_known_is_told() -> None:
    """Set or learned: who waits in front then decides who gets room at all."""
    assert Subscriptions(max_symbols=3).limited
    talk = Talk(Plan(cap=2))
    assert not talk.subs.limited
    talk.want("A", "B", "C")
    assert talk.subs.limited


def test_a_demand_that_did_not_change_is_no_news() -> None:
    """The version rises only when there is something to report."""
    subs = Subscriptions()
    subs.want(frozenset({"A"}))
    version = subs.version
    subs.want(frozenset({"A"}))
    assert subs.version == version


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
    assert talk.subs.refusals() == {"C": ("refused_by_alpaca", "invalid syntax (400)")}
    assert talk.subs.active == {"A", "B", "D"}


def test_a_refused_symbol_is_tried_again_after_an_hour() -> None:
    """It may have been listed since; before that it is left in peace."""
    talk = Talk(Plan(ill_formed=frozenset({"A"})))
    talk.want("A")
    talk.plan.ill_formed = frozenset()
    talk.now = RETRY_REFUSED_S - 1
    assert talk.talk() == 0
    talk.now = RETRY_REFUSED_S
    talk.talk()
    assert talk.subs.active == {"A"}


def test_a_refused_symbol_is_forgiven_when_it_leaves_the_demand() -> None:
    """Whoever asks for it anew gets a new answer."""
    talk = Talk(Plan(ill_formed=frozenset({"A"})))
    talk.want("A")
    talk.want()
    assert not talk.subs.refusals()
    talk.plan.ill_formed = frozenset()
    talk.want("A")
    assert talk.subs.active == {"A"}


def test_it_is_known_when_every_desired_symbol_is_refused() -> None:
    """Nobody waits for an answer then; without a demand nobody is refused."""
    talk = Talk(Plan(ill_formed=frozenset({"A", "B"})))
    assert not talk.subs.all_refused()
    talk.want("A", "B")
    assert talk.subs.all_refused()
    talk.subs.want(frozenset({"A", "C"}))
    assert not talk.subs.all_refused()
    talk.talk()
    assert not talk.subs.all_refused()


def test_a_symbol_missing_in_the_acknowledgement_is_refused() -> None:
    """Alpaca may leave a symbol out without an error."""
    talk = Talk(Plan(unlisted=frozenset({"NOPE"})))
    talk.want("A", "NOPE")
    assert talk.subs.refusals() == {
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
    assert subs.without_trades == {"B"}


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
    """A 410 that is not about trades is about the symbols of the request."""
    subs = Subscriptions(trades=False)
    subs.connected()
    subs.want(frozenset({"A", "B"}))
    subs.next_request(0.0)
    subs.rejected(*NO_SUCH_CHANNEL, 0.0)
    assert {r.reason for r in subs.refusals().values()} == {"refused_by_alpaca"}
    assert subs.next_request(0.0) is None


def test_the_limit_is_learned_and_filled() -> None:
    """A 405 keeps what is live; the limit is found by halving and then known exactly."""
    talk = Talk(Plan(cap=30, counts="entries"))
    talk.want(*(chr(65 + n // 5) + chr(65 + n % 5) for n in range(100)))
    assert talk.subs.learned_limit == 15
    assert len(talk.subs.active) == 15
    assert len(talk.refused("symbol_limit")) == 85
    assert {refusal.detail for refusal in talk.subs.refusals().values()} == {
        "15 symbols are the limit"
    }


def test_freed_room_is_used() -> None:
    """When a live symbol leaves, one that was refused for the limit takes its place."""
    talk = Talk(Plan(cap=2))
    talk.want("A", "B", "C")
    assert talk.refused("symbol_limit") == {"C"}
    talk.want("A", "C")
    assert talk.subs.active == {"A", "C"}


@pytest.mark.parametrize(("cap", "max_symbols"), [(2, None), (None, 2)])
def test_who_was_live_has_the_room_after_a_reconnect(
    cap: int | None, max_symbols: int | None
) -> None:
    """One refused before does not take its place, also while the connection is down."""
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


def test_a_connection_that_was_lost_at_once_takes_nobodys_place() -> None:
    """Who was not yet asked for again on it was live before it, and is so after it."""
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


def test_who_left_the_demand_has_no_claim_to_its_old_room() -> None:
    """It comes back as a new one."""
    talk = Talk(Plan(cap=2))
    talk.want("M", "N", "Z")
    talk.subs.disconnected()
    talk.subs.want(frozenset({"M", "Z"}))
    talk.subs.want(frozenset({"A", "M", "N"}))
    talk.reconnect()
    talk.talk()
    assert talk.subs.active == {"A", "M"}


def test_the_limit_is_probed_once_per_connection() -> None:
    """The plan may have grown: one symbol more is tried after a reconnect, and not again."""
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
    assert talk.subs.learned_limit == 3


def test_a_plan_without_a_limit_any_more_is_noticed() -> None:
    """When the probe is acknowledged, nothing is known to be too many."""
    talk = Talk(Plan(cap=2))
    talk.want("A", "B", "C", "D")
    talk.plan = Plan()
    talk.reconnect()
    talk.talk()
    assert talk.subs.active == {"A", "B", "C", "D"}
    assert talk.subs.learned_limit is None


def test_a_half_learned_limit_is_probed_too() -> None:
    """What was too many on an earlier connection need not be too many on this one."""
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
    assert talk.subs.learned_limit == 3


def test_more_than_the_setting_is_never_asked_for() -> None:
    """SPOTD_MAX_SYMBOLS holds without a word from Alpaca, and also against the probe."""
    talk = Talk(Plan(cap=3), max_symbols=2)
    talk.want("A", "B", "C")
    talk.reconnect()
    talk.talk()
    assert talk.subs.active == {"A", "B"}
    assert talk.subs.refusals() == {"C": ("symbol_limit", "2 symbols are the limit")}


def test_the_probe_stops_at_the_setting() -> None:
    """A learned limit below SPOTD_MAX_SYMBOLS is probed, one equal to it is not."""
    for max_symbols, probes in ((3, 1), (2, 0)):
        talk = Talk(Plan(cap=2))
        talk.want("A", "B", "C", "D")
        talk.subs._max_symbols = talk.max_symbols = max_symbols
        talk.reconnect()
        talk.talk()
        assert talk.probes == probes


def test_statuses_give_way_to_quotes() -> None:
    """Where the statuses count, their entry is given back as soon as a symbol needs it."""
    talk = Talk(Plan(cap=3, statuses="counted"))
    talk.want("A", "B")
    assert talk.alpaca.statuses == {WILDCARD}
    talk.want("A", "B", "C")
    assert talk.alpaca.statuses == set()
    assert talk.subs.active == {"A", "B", "C"}


def test_statuses_that_are_refused_are_not_asked_for_again() -> None:
    """Once per connection, with whatever code."""
    talk = Talk(Plan(statuses="refused"))
    talk.want("A")
    talk.want("A", "B")
    assert [request.statuses for request in talk.said] == [False, True, False]
    talk.reconnect()
    talk.talk()
    assert talk.said[-1].statuses


def test_what_alpaca_adds_by_itself_is_unsubscribed() -> None:
    """A symbol that nobody asked for, in an acknowledgement nobody waited for."""
    subs = Subscriptions()
    subs.connected()
    assert subs.acknowledged(["GHOST"], [], 0.0) == {"GHOST"}
    assert subs.next_request(0.0) == Request("unsubscribe", ("GHOST",))
    assert subs.acknowledged([], [], 0.0) == set()


def test_what_alpaca_drops_by_itself_is_asked_for_again() -> None:
    """The acknowledgement is believed, whatever was asked."""
    talk = Talk(Plan())
    talk.want("A", "B")
    talk.alpaca.quotes.discard("A")
    talk.subs.acknowledged(["B"], ["B"], 0.0)
    talk.talk()
    assert talk.subs.active == {"A", "B"}


def test_a_symbol_that_left_while_its_request_was_halved_is_not_asked_for() -> None:
    """Every part is compared with the demand before it is sent."""
    talk = Talk(Plan(ill_formed=frozenset({"C"})))
    talk.subs.want(frozenset("ABCD"))
    talk.talk(at_most=1)
    talk.want("C")
    assert [request.symbols for request in talk.said] == [("A", "B", "C", "D"), ("C",)]


def test_an_answer_for_a_symbol_that_left_is_not_kept() -> None:
    """Whoever asks for it anew gets a new answer, here too."""
    subs = in_flight("subscribe")
    subs.want(frozenset())
    subs.rejected(*INVALID_SYNTAX, 0.0)
    assert not subs.refusals()


def in_flight(action: Literal["subscribe", "unsubscribe"]) -> Subscriptions:
    """With a request under way, about the quotes of one symbol."""
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
    """An error there means that the two sides no longer agree on anything."""
    with pytest.raises(UnexpectedAnswerError):
        in_flight("unsubscribe").rejected(code, "?", 0.0)


def test_an_unsubscribe_that_did_nothing_is_unexpected() -> None:
    """Asking again would be asking for ever."""
    with pytest.raises(UnexpectedAnswerError):
        in_flight("unsubscribe").acknowledged(["A", "B"], [], 0.0)


@pytest.mark.parametrize("code", [401, 406, 407, 500])
def test_an_error_about_the_connection_is_unexpected(code: int) -> None:
    """Only 400, 405 and 410 say something about a request."""
    with pytest.raises(UnexpectedAnswerError):
        in_flight("subscribe").rejected(code, "?", 0.0)


def test_an_error_without_a_request_is_unexpected() -> None:
    """Nothing was asked, so nothing can be wrong with it."""
    with pytest.raises(UnexpectedAnswerError):
        Subscriptions().rejected(*OVER_LIMIT, 0.0)


def test_a_lost_connection_takes_everything_with_it() -> None:
    """Nothing is active, nothing awaited, and no half of an old request is tried."""
    subs = Subscriptions()
    subs.connected()
    subs.want(frozenset({"A", "B"}))
    subs.next_request(0.0)
    subs.rejected(*INVALID_SYNTAX, 0.0)
    subs.disconnected()
    assert subs.active == frozenset()
    assert subs.awaiting is None
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
    """A limit on symbols does not stand in the way of asking for the whole market."""
    talk = Talk(Plan(), max_symbols=2)
    talk.want("A", "B", "C")
    talk.want("A", "B", "C", WILDCARD)
    assert talk.subs.active == {WILDCARD}


@pytest.mark.parametrize("error", [INVALID_SYNTAX, OVER_LIMIT, NO_SUCH_CHANNEL])
def test_a_refused_wildcard_disturbs_nobody(error: tuple[int, str]) -> None:
    """No live symbol is dropped for it, now or when it is tried again; the limit is not touched."""
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
    assert talk.subs.learned_limit == 2


def test_a_refused_wildcard_costs_nobody_the_trades() -> None:
    """A 410 to `*` says nothing about the trades of single symbols."""
    talk = Talk(Plan(star=NO_SUCH_CHANNEL))
    talk.want("A", WILDCARD)
    assert talk.alpaca.trades == {"A"}
    assert talk.subs.trades


def test_nobody_is_refused_while_the_wildcard_is_asked_for() -> None:
    """Whether there is room is not known before the answer."""
    subs = Subscriptions(max_symbols=1)
    subs.connected()
    subs.want(frozenset({"A", "B", WILDCARD}))
    assert subs.next_request(0.0) == Request("subscribe", (WILDCARD,), trades=True)
    assert not subs.refusals()


# For any demand, on any plan

NAMES = tuple(chr(65 + n // 26) + chr(65 + n % 26) for n in range(60))


class Want(NamedTuple):
    """The demand becomes these."""

    symbols: frozenset[str]


class ChangeOfMind(NamedTuple):
    """The demand becomes the first, and the second while a request is under way."""

    first: frozenset[str]
    after: int
    second: frozenset[str]


class Cut(NamedTuple):
    """The connection is lost after that many more requests."""

    after: int


class NewPlan(NamedTuple):
    """The account gets another limit; the connection is made anew."""

    cap: int | None


class Hour(NamedTuple):
    """Long enough to forgive."""


Step = Want | ChangeOfMind | Cut | NewPlan | Hour

_some = st.sampled_from(NAMES)
_caps = st.one_of(st.none(), st.integers(0, 40))
_demands = st.one_of(
    st.frozensets(_some, max_size=8),
    st.frozensets(_some, min_size=10, max_size=60),
    st.just(frozenset(NAMES)),
)
_steps: SearchStrategy[Step] = st.one_of(
    st.builds(Want, _demands),
    st.builds(ChangeOfMind, _demands, st.integers(0, 12), _demands),
    st.builds(Cut, st.integers(0, 12)),
    st.builds(NewPlan, _caps),
    st.just(Hour()),
)
_plans = st.builds(
    Plan,
    cap=_caps,
    counts=st.sampled_from(("symbols", "entries")),
    trades=st.booleans(),
    statuses=st.sampled_from(("free", "counted", "refused")),
    ill_formed=st.frozensets(_some, max_size=4),
    unlisted=st.frozensets(_some, max_size=4),
    star=st.sampled_from((None, INVALID_SYNTAX, OVER_LIMIT, NO_SUCH_CHANNEL)),
    counts_first=st.booleans(),
)
_talks = st.builds(
    Talk,
    _plans,
    trades=st.booleans(),
    max_symbols=st.one_of(st.none(), st.integers(1, 40)),
    batch=st.sampled_from((1, 2, 7, 500)),
)


def follow(talk: Talk, steps: Iterable[Step]) -> None:
    """Plays the steps, each talked out, and looks at what came of it."""
    for step in steps:
        match step:
            case Want(symbols):
                talk.subs.want(symbols)
            case ChangeOfMind(first, after, second):
                talk.subs.want(first)
                talk.talk(at_most=after)
                if request := talk.subs.next_request(talk.now):
                    talk.exchange(request, meanwhile=second)
            case Cut(after):
                live = talk.subs.active
                talk.reconnect()
                talk.talk(at_most=after)
                talk.subs.disconnected()
                talk.reconnect()
                talk.talk()
                assert talk.subs.active == live, "nobody loses its place to another"
            case NewPlan(cap):
                talk.plan.cap = cap
                talk.reconnect()
            case Hour():
                talk.now += RETRY_REFUSED_S
        talk.talk()
        talk.settled()


@settings(max_examples=400, deadline=None)
@given(_talks, st.lists(_steps, min_size=2, max_size=12))
def test_any_demand_on_any_plan_is_met_as_far_as_it_can_be(
    talk: Talk, steps: Sequence[Step]
) -> None:
    """In few requests: all room used, the culprits alone refused, nobody dropped, all explained."""
    follow(talk, steps)


_demands_with_star = st.builds(
    lambda symbols, star: symbols | star,
    _demands,
    st.sampled_from((frozenset(), frozenset({WILDCARD}))),
)


@settings(max_examples=200, deadline=None)
@given(
    _talks,
    st.lists(
        st.one_of(
            st.builds(Want, _demands_with_star),
            st.builds(ChangeOfMind, _demands_with_star, st.integers(0, 12), _demands_with_star),
            st.builds(Cut, st.integers(0, 12)),
            st.just(Hour()),
        ),
        min_size=2,
        max_size=12,
    ),
)
def test_the_wildcard_comes_and_goes(talk: Talk, steps: Sequence[Step]) -> None:
    """Granted or refused, the same holds for every other symbol."""
    follow(talk, steps)


@pytest.mark.parametrize("desired", [1_000, 12_000])
@pytest.mark.parametrize(
    "plan",
    [
        Plan(),
        Plan(cap=30, counts="entries"),
        Plan(cap=30, counts="entries", counts_first=True, ill_formed=frozenset({"AAAB", "AAAC"})),
        Plan(ill_formed=frozenset({"AAAB", "AACZ"}), unlisted=frozenset({"AAAA"})),
        Plan(cap=777, statuses="counted", ill_formed=frozenset({"AAAB"})),
    ],
)
def test_a_large_demand_takes_few_requests(plan: Plan, desired: int) -> None:
    """Batches of 500, and a search that halves: never a request per symbol."""
    letters = [chr(65 + n) for n in range(26)]
    names = [f"A{a}{b}{c}" for a in letters for b in letters for c in letters][:desired]
    talk = Talk(plan)
    talk.want(*names)
    talk.settled()
    assert len(talk.said) < 2 * desired / 500 + 60


@pytest.mark.parametrize("code", [400, 409, 411, 412, 413])
def test_a_plan_without_the_whole_market_costs_the_single_symbols_nothing(code: int) -> None:
    """However Alpaca words it, a refused wildcard is refused alone, and the session goes on."""
    subs = Subscriptions()
    subs.connected()
    subs.want(frozenset({"A", WILDCARD}))
    assert subs.next_request(0.0) == Request("subscribe", (WILDCARD,), trades=True)
    subs.rejected(code, "no", 0.0)
    assert set(subs.refusals()) == {WILDCARD}
    assert subs.next_request(0.0) == Request("subscribe", ("A",), trades=True)
