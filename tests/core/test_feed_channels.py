"""Which channels beside quotes to ask a feed for."""

from __future__ import annotations

import pytest

from spotd.core.feed_channels import Action, FeedChannels, StatusesState


def in_state(state: StatusesState) -> FeedChannels:
    """Return channels with the statuses in this state."""
    channels = FeedChannels()
    channels.connected()
    if state in ("on", "give back"):
        channels.statuses_acknowledged("subscribe")
    if state == "give back":
        channels.give_statuses_back()
    if state == "off":
        channels.statuses_refused(410)
    return channels


@pytest.mark.parametrize(
    ("state", "idle", "busy"),
    [
        ("untried", None, "subscribe"),
        ("on", None, None),
        ("give back", "unsubscribe", "unsubscribe"),
        ("off", None, None),
    ],
)
def test_what_to_ask_about_the_statuses(
    state: StatusesState, idle: Action | None, busy: Action | None
) -> None:
    """Statuses without an active symbol are of no use."""
    assert in_state(state).statuses_action(any_active=False) == idle
    assert in_state(state).statuses_action(any_active=True) == busy


@pytest.mark.parametrize(
    ("state", "given"), [("untried", False), ("on", True), ("give back", False), ("off", False)]
)
def test_statuses_are_given_back_if_they_may_hold_room(state: StatusesState, given: bool) -> None:
    """Only statuses that are on can hold room, so only these are given back."""
    channels = in_state(state)
    before = channels.statuses_action(any_active=True)
    assert channels.give_statuses_back() == given
    after = channels.statuses_action(any_active=True)
    assert after == ("unsubscribe" if given else before)


@pytest.mark.parametrize("refused", [False, True])
def test_statuses_that_were_given_back_are_off(refused: bool) -> None:
    """They are not asked for again on this connection, whatever the answer was."""
    channels = in_state("give back")
    if refused:
        channels.statuses_refused(500)
    else:
        channels.statuses_acknowledged("unsubscribe")
    assert channels.statuses_action(any_active=True) is None
    assert not channels.give_statuses_back()


@pytest.mark.parametrize("state", ["untried", "on", "give back", "off"])
def test_each_connection_asks_for_statuses_anew(state: StatusesState) -> None:
    """Each connection may lead to another server, so all channels are asked for anew."""
    channels = in_state(state)
    channels.connected()
    assert channels.statuses_action(any_active=True) == "subscribe"


@pytest.mark.parametrize(
    ("wanted", "refused", "single", "wildcard"),
    [
        (True, [], True, True),
        (True, ["single"], False, False),
        (True, ["wildcard"], True, False),
        (True, ["wildcard", "single"], False, False),
        (False, [], False, False),
    ],
)
def test_trades_are_asked_for_until_they_are_refused(
    wanted: bool, refused: list[str], single: bool, wildcard: bool
) -> None:
    """A 410 to the whole market says nothing about the trades of single symbols."""
    channels = FeedChannels(trades=wanted)
    channels.connected()
    for kind in refused:
        assert channels.trades_refused(whole_market=kind == "wildcard")
    assert (channels.trades, channels.wildcard_trades) == (single, wildcard)
    channels.connected()
    assert (channels.trades, channels.wildcard_trades) == (wanted, wanted)


def test_trades_that_were_left_out_are_noted() -> None:
    """The next acknowledged request for trades replaces the note."""
    channels = FeedChannels()
    channels.listed(["A"])
    channels.trades_expected(frozenset("AB"))
    assert channels.without_trades == {"B"}
    channels.listed(["A", "B", "C"])
    channels.trades_expected(frozenset("C"))
    assert channels.without_trades == frozenset()


def test_trades_are_unsubscribed_where_there_are_any() -> None:
    """Trades are unsubscribed where they are active; a lost connection leaves none."""
    channels = FeedChannels()
    channels.listed(["A"])
    assert channels.any_on_trades("AB")
    assert not channels.any_on_trades("B")
    channels.disconnected()
    assert not channels.any_on_trades("AB")


def test_a_missing_channel_becomes_a_sentence_for_the_log() -> None:
    """The sentence says what users will miss."""
    channels = FeedChannels()
    assert channels.trades_refused(whole_market=True) == (
        "trades of the whole market are not available: asking for its quotes alone"
    )
    assert channels.trades_refused(whole_market=False) == (
        "trades are not available on this feed: last_price stays null"
    )
    assert channels.statuses_refused(410) == (
        "trading statuses are not available (410): halts will not be shown"
    )
