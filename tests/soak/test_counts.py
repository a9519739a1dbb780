"""What a daemon counts is compared with what happened."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.soak.counts import Counts, wrong_counts

BEFORE = Counts(("host-1", 7, 1), 100, 10, 50, quotes_sent=900, trades_sent=90, heard=300)
AFTER = Counts(("host-1", 7, 1), 160, 14, 75, quotes_sent=960, trades_sent=94, heard=325)


def test_what_is_counted_truly_is_right() -> None:
    """Since then, it counted what was sent to it and what its channels brought."""
    assert not list(wrong_counts(BEFORE, AFTER))


@pytest.mark.parametrize(
    ("counter", "lie"),
    [
        ("spotd_quotes_received_total", replace(AFTER, quotes=161)),
        ("spotd_trades_received_total", replace(AFTER, trades=13)),
        ("spotd_updates_published_total", replace(AFTER, published=76)),
        ("spotd_updates_published_total", replace(AFTER, heard=326)),
    ],
)
def test_one_too_many_or_too_few_is_found(counter: str, lie: Counts) -> None:
    """A counter that is wrong by one is named."""
    assert [found for found, *_ in wrong_counts(BEFORE, lie)] == [counter]


def test_what_another_counted_is_not_compared() -> None:
    """A new process, session or connection of the checker begins anew."""
    for told in (("host-2", 7, 1), ("host-1", 8, 1), ("host-1", 7, 2)):
        assert not list(wrong_counts(BEFORE, replace(AFTER, told=told, quotes=0)))
