"""Why symbols have no price, as a sentence for a person."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from spotd.client.missing import Found, listening_patterns, reasons
from spotd.keys import Keys
from spotd.models import DaemonStatus, SymbolState
from tests.kit.publisher import KEYS, state_of, status_of

OURS = (KEYS.wake, KEYS.leaders)
OTHER = (Keys("x:", "y:").wake, Keys("x:", "y:").leaders)


def said(
    status: DaemonStatus | None,
    states: Sequence[SymbolState] = (),
    listening: Sequence[str] | None = OURS,
    *,
    led: bool | None = True,
    demanded: bool = True,
) -> str:
    """Return what is said about SPY and QQQ."""
    found = Found(status, led, {state.symbol: state for state in states}, listening)
    return "; ".join(reasons(KEYS, ["SPY", "QQQ"], found, demanded=demanded))


def test_the_patterns_match_what_daemons_listen_on() -> None:
    """Whatever their prefixes are."""
    assert listening_patterns() == ("*wake", "leaders:*")


@pytest.mark.parametrize(
    ("listening", "words"),
    [
        ((), "no daemon runs under the key prefix 'spotd:': there is no spotd:status"),
        (OTHER, "under the key prefix 'spotd:', but under 'x:': key_prefix must be the daemon's"),
        (OURS, "in this database, but one listens at this server: another database, or"),
    ],
)
def test_without_a_status(listening: Sequence[str], words: str) -> None:
    """No daemon runs, or one with another key prefix, or in another database."""
    assert words in said(None, listening=listening)


def test_a_status_that_a_killed_daemon_left() -> None:
    """Its states do not count; where our user may not read the leader key, they are told."""
    live = [state_of("SPY", "live"), state_of("QQQ", "live")]
    assert said(status_of(), live, led=False) == (
        "no leader: host-1-ab wrote the last status, streaming, at 2026-01-20T05:12:00.000000Z"
    )
    assert said(None, led=False).startswith("no daemon runs")
    assert said(status_of(), live, led=None).startswith("SPY, QQQ: live, no quote")


def test_another_channel_prefix() -> None:
    """Nobody publishes under ours; where nobody is seen to publish, nothing is claimed."""
    assert said(status_of(), listening=(KEYS.wake, OTHER[1])) == (
        "nobody publishes under the channel prefix 'spot:', but under 'y:': channel_prefix must "
        "be the daemon's SPOTD_CHANNEL_PREFIX"
    )
    assert "prefix" not in said(status_of(), listening=())
    assert "prefix" not in said(status_of(), listening=(*OURS, *OTHER))


def test_channels_that_may_not_be_asked_for() -> None:
    """Then a wrong channel prefix is told as a possibility where a live symbol has no price."""
    assert "there is no spotd:status" in said(None, listening=None)
    text = said(status_of(), [state_of("SPY", "live"), state_of("QQQ", "pending")], None)
    assert text == (
        "SPY: live, no quote with both sides has come yet; or channel_prefix is not the daemon's "
        "SPOTD_CHANNEL_PREFIX: this user of Redis may not ask which one is right; "
        "QQQ: pending, the daemon is streaming"
    )


def test_each_symbol_by_its_state() -> None:
    """Symbols with the same reason are named together."""
    both = [state_of("SPY", "refused", "symbol_limit"), state_of("QQQ", "refused", "symbol_limit")]
    assert said(status_of(), both) == "SPY, QQQ: refused, symbol_limit: more words"
    assert said(status_of(), both[:1]) == (
        "SPY: refused, symbol_limit: more words; QQQ: the daemon has not taken in the demand"
    )
    assert said(status_of(), demanded=False) == (
        "SPY, QQQ: nobody demands it, or the daemon has not taken in the demand"
    )
    two = [state_of("SPY", "live"), state_of("QQQ", "pending")]
    assert said(status_of("waiting", "no answer"), two) == (
        "SPY: live, no quote with both sides has come yet; "
        "QQQ: pending, the daemon is waiting, no answer"
    )
    assert said(status_of(), [state_of("SPY", "halted"), state_of("QQQ", "pending")]) == (
        "SPY: halted; QQQ: pending, the daemon is streaming"
    )


def test_many_symbols_are_counted() -> None:
    """A line of a log stays one that can be read."""
    names = [f"A{letter}" for letter in "ABCDEFG"]
    [text] = reasons(KEYS, names, Found(status_of(), True, {}, OURS))
    assert text.startswith("AA, AB, AC, AD, AE and 2 more: ")
