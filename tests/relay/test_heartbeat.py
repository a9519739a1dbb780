"""When a connection is pinged, and when it is given up."""

from __future__ import annotations

import pytest

from spotd.relay.heartbeat import Beat, Heartbeat
from spotd.relay.wire import Wire


@pytest.mark.parametrize(("wire", "every_s"), [(Wire.WEBSOCKET, 20), (Wire.EVENTS, 15)])
def test_a_connection_is_pinged_regularly(wire: Wire, every_s: int) -> None:
    """A websocket every 20 s; an event stream gets a comment every 15 s."""
    heart = Heartbeat(wire, 0)
    for turn in (1, 2, 3):
        heart.heard()
        assert heart.beat(turn * every_s - 0.1) is Beat.NOTHING
        assert heart.beat(turn * every_s) is Beat.PING


def test_a_websocket_that_answers_nothing_is_given_up() -> None:
    """A minute after the first ping that nothing was heard since."""
    heart = Heartbeat(Wire.WEBSOCKET, 0)
    assert [heart.beat(at) for at in (20, 40, 60, 79)] == [
        Beat.PING,
        Beat.PING,
        Beat.PING,
        Beat.NOTHING,
    ]
    assert heart.beat(80) is Beat.GIVE_UP


def test_anything_heard_starts_anew() -> None:
    """An answer to the third ping is an answer."""
    heart = Heartbeat(Wire.WEBSOCKET, 0)
    for at in (20, 40, 60):
        heart.beat(at)
    heart.heard()
    assert heart.beat(80) is Beat.PING
    assert heart.beat(139) is Beat.PING
    assert heart.beat(140) is Beat.GIVE_UP


@pytest.mark.parametrize("wire", [Wire.EVENTS, Wire.MESSAGES])
def test_what_cannot_answer_is_not_expected_to(wire: Wire) -> None:
    """An event stream gets comments however long it says nothing; a server pings by itself."""
    heart = Heartbeat(wire, 0)
    assert {heart.beat(at) for at in range(15, 600, 15)} == {Beat.PING}


@pytest.mark.parametrize("wire", [Wire.WEBSOCKET, Wire.EVENTS])
def test_a_client_that_reads_nothing_gets_no_ping_and_is_given_up(wire: Wire) -> None:
    """A minute after its connection took no more bytes."""
    heart = Heartbeat(wire, 0)
    heart.blocked(5)
    assert heart.beat(64) is Beat.NOTHING
    assert heart.beat(65) is Beat.GIVE_UP
    heart.unblocked()
    assert heart.beat(66) is Beat.PING
