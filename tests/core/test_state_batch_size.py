"""How many states one call writes."""

from __future__ import annotations

import pytest

from spotd.core.state_batch_size import SMALL, StateBatchSize

LARGE = 500


@pytest.mark.parametrize(
    ("answers_s", "expected"),
    [
        ([], SMALL),
        ([0.001], SMALL),
        ([0.03], SMALL),
        ([0.031], LARGE),
        ([0.2, 0.2], LARGE),
        ([0.2, 0.001], SMALL),
    ],
)
def test_the_last_answer_tells_how_far_redis_is(answers_s: list[float], expected: int) -> None:
    """A call to a distant Redis is large, and one to a near Redis leaves room for prices."""
    size = StateBatchSize(LARGE)
    for seconds in answers_s:
        size.answered(seconds)
    assert size.limit(stopping=False) == expected
    assert size.limit(stopping=True) == LARGE
