"""What is not whole after the faults of a round is named."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.soak.load import ALWAYS
from tests.soak.moment import Moment
from tests.soak.soak import lacking
from tests.soak.test_rules import DOWN, LEADER, NOW, REDIS, STANDBY, WELL

LIVE = dict.fromkeys(ALWAYS, "live")
WHOLE = replace(WELL, redis=replace(REDIS, states=LIVE), behind={ALWAYS[0]: NOW - 0.1})


def test_what_works_lacks_nothing() -> None:
    """A leader that streams, a standby that is ready, and every symbol live and new."""
    assert not lacking(WHOLE, NOW - 1)


@pytest.mark.parametrize(
    ("lack", "moment"),
    [
        ("a leader", replace(WHOLE, redis=None)),
        ("a leader", replace(WHOLE, redis=replace(REDIS, states=LIVE, token=None))),
        ("a1 is waiting", replace(WHOLE, daemons=(DOWN, STANDBY))),
        ("b1 is not ready", replace(WHOLE, daemons=(LEADER, replace(STANDBY, said=None)))),
        ("the relay is not ready", replace(WHOLE, relay_ready=False)),
        ("not live", replace(WHOLE, redis=replace(REDIS, states=LIVE | {ALWAYS[3]: "stale"}))),
        ("old", replace(WHOLE, behind={ALWAYS[5]: NOW - 0.7})),
    ],
)
def test_what_lacks_is_named(lack: str, moment: Moment) -> None:
    """Without one of them, nothing is whole."""
    assert lack in lacking(moment, NOW - 1)


def test_a_moment_of_before_tells_nothing() -> None:
    """What was read before the end of the faults does not count."""
    assert lacking(WHOLE, NOW)
