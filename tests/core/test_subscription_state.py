"""What others may know of the subscriptions: which event changes which part of the state."""

from __future__ import annotations

from spotd.core.refusals import RETRY_REFUSED_S
from spotd.core.subscription_state import SubscriptionState
from spotd.core.subscriptions import Subscriptions
from spotd.symbols import WILDCARD, Refusal


def connected(desired: str, **options: int) -> Subscriptions:
    """Return subscriptions on a new connection."""
    subs = Subscriptions(max_symbols=options.get("max_symbols"))
    subs.connected()
    subs.want(frozenset(desired))
    return subs


def acknowledge(subs: Subscriptions, listed: str) -> None:
    """Send what is due, and acknowledge this list on both channels."""
    subs.next_request(0.0)
    subs.acknowledged(listed, listed, 0.0)


def test_at_first_the_state_is_empty() -> None:
    """It says nothing but whether trades are asked for, and whether a limit is set."""
    assert Subscriptions().state() == SubscriptionState()
    assert Subscriptions(trades=False).state() == SubscriptionState(trades=False)
    assert Subscriptions(max_symbols=2).state() == SubscriptionState(limited=True)


def test_what_changes_nothing_leaves_the_same_object() -> None:
    """A repeated demand, a pending symbol, a repeated list, an error about statuses, a request."""
    subs = connected("AB")
    acknowledge(subs, "AB")
    state = subs.state()
    subs.want(frozenset("AB"))
    assert subs.state() is state
    subs.want(frozenset("ABC"))
    assert subs.state() is state
    subs.want(frozenset("AB"))
    subs.acknowledged(["B", "A"], ["A", "B"], 0.0)
    assert subs.state() is state
    subs.next_request(0.0)
    assert subs.state() is state
    subs.refused(410, "no statuses", 0.0)
    assert subs.state() is state


def test_each_change_brings_a_new_object() -> None:
    """The old one keeps what it said, its refusals included."""
    subs = connected("ABC", max_symbols=2)
    states = [subs.state()]
    acknowledge(subs, "A")
    states.append(subs.state())
    subs.disconnected()
    states.append(subs.state())
    subs.want(frozenset("D"))
    states.append(subs.state())
    limit = Refusal("symbol_limit", "SPOTD_MAX_SYMBOLS=2 is the limit")
    missing = Refusal("refused_by_alpaca", "not in the acknowledgement")
    served = frozenset("A")
    assert states == [
        SubscriptionState(limited=True, refused={"C": limit}),
        SubscriptionState(limited=True, active=served, served=served, refused={"B": missing}),
        SubscriptionState(limited=True, served=served, refused={"B": missing}),
        SubscriptionState(limited=True),
    ]


def test_the_refusals_are_the_same_object_until_they_change() -> None:
    """Another part of the state may change without them."""
    subs = connected("ABC", max_symbols=2)
    refused = subs.state().refused
    acknowledge(subs, "AB")
    assert subs.state().active == {"A", "B"}
    assert subs.state().refused is refused
    subs.disconnected()
    assert subs.state().refused is refused
    subs.want(frozenset("AC"))
    assert subs.state().refused == {}
    assert refused.keys() == {"C"}


def test_a_forgiven_symbol_is_not_refused_any_more() -> None:
    """The request that asks for it anew changes the state."""
    subs = connected("A")
    acknowledge(subs, "")
    assert subs.state().all_refused
    subs.next_request(RETRY_REFUSED_S)
    assert subs.state() == SubscriptionState()


def test_a_symbol_is_served_from_its_first_acknowledgement() -> None:
    """It stays served without a connection, as long as it is desired."""
    subs = connected("AB")
    acknowledge(subs, "A")
    assert subs.state().served == {"A"}
    subs.disconnected()
    assert subs.state().served == {"A"}
    subs.want(frozenset("B"))
    subs.want(frozenset("AB"))
    assert subs.state().served == frozenset()


def test_a_symbol_that_left_is_not_served_for_being_acknowledged() -> None:
    """Only desired symbols are served."""
    subs = connected("AB")
    subs.next_request(0.0)
    subs.want(frozenset("A"))
    subs.acknowledged("AB", "AB", 0.0)
    assert subs.state().active == {"A", "B"}
    assert subs.state().served == {"A"}


def test_a_symbol_that_comes_back_before_it_is_unsubscribed_is_served() -> None:
    """It is active all the time."""
    subs = connected("A")
    acknowledge(subs, "A")
    subs.want(frozenset())
    assert subs.state().served == frozenset()
    subs.want(frozenset("A"))
    assert subs.state().served == {"A"}


def test_the_whole_market_serves_every_desired_symbol() -> None:
    """It serves those that are desired when it is granted, and those that become so later."""
    subs = connected("A" + WILDCARD)
    acknowledge(subs, WILDCARD)
    assert subs.state().served == {"A", WILDCARD}
    subs.want(frozenset("AB" + WILDCARD))
    assert subs.state().served == {"A", "B", WILDCARD}
    subs.want(frozenset("AC"))
    assert subs.state().served == {"A", "C"}


def test_the_whole_market_lifts_every_refusal() -> None:
    """Each symbol is live as a part of it; the refusals are back when it is gone."""
    subs = connected("AB")
    acknowledge(subs, "A")
    refused = subs.state().refused
    assert refused.keys() == {"B"}
    subs.want(frozenset("AB" + WILDCARD))
    acknowledge(subs, "A" + WILDCARD)
    assert subs.state().refused == {}
    subs.disconnected()
    assert subs.state().refused == refused


def test_without_trades_names_symbols_of_the_last_request() -> None:
    """A symbol with quotes and without trades is active; its last price stays null."""
    subs = connected("AB")
    subs.next_request(0.0)
    subs.acknowledged("AB", "A", 0.0)
    assert subs.state().active == {"A", "B"}
    assert subs.state().without_trades == {"B"}


def test_trades_follow_the_connection() -> None:
    """A 410 to a request with trades turns them off until the next connection."""
    subs = connected("A")
    subs.next_request(0.0)
    subs.refused(410, "no trades", 0.0)
    assert not subs.state().trades
    subs.disconnected()
    assert not subs.state().trades
    subs.connected()
    assert subs.state().trades
