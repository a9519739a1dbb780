"""Which reason is given for a stream that failed."""

from __future__ import annotations

import pytest

from spotd.core.interruptions import why_stale, why_waiting
from spotd.models import BreakerStateName
from spotd.reasons import Code


@pytest.mark.parametrize(
    ("label", "breaker", "waiting", "stale"),
    [
        ("close_1001", "closed", "backoff", "interrupted"),
        ("http_429", "half_open", "backoff", "interrupted"),
        ("close_1001", "open", "breaker_open", "interrupted"),
        ("connection_limit", "closed", "connection_limit", "interrupted"),
        ("connection_limit", "open", "breaker_open", "interrupted"),
        ("mute", "closed", "mute", "mute"),
        ("mute", "open", "breaker_open", "mute"),
        ("lagging", "closed", "lagging", "lagging"),
    ],
)
def test_what_is_said_of_a_failed_session(
    label: str, breaker: BreakerStateName, waiting: Code, stale: Code
) -> None:
    """The daemon says why the next try is timed, and symbols why their prices are suspect."""
    said = why_waiting(label, "some words", breaker)
    assert said.code == waiting
    assert said.text.startswith("some words")
    assert why_stale(label, "some words").code == stale
