"""When a daemon published is read from its counter."""

from __future__ import annotations

from typing import Any, cast

from tests.soak.processes import Process


def test_a_number_that_rises_tells_when_it_published() -> None:
    """The first number after a freeze is older: the answer to a call came when it was frozen."""
    process = Process("a1", cast("Any", None), acts_since=100.0)
    process.see_published(5, 101.0)
    assert process.published_at < 100.0
    process.see_published(6, 102.0)
    assert process.published_at == 102.0
    process.see_published(6, 103.0)
    assert process.published_at == 102.0
    process.acts_since = 110.0
    process.see_published(7, 110.1)
    assert process.published_at == 102.0
    process.see_published(8, 110.3)
    assert process.published_at == 110.3
