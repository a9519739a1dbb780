"""The list of codes that stand beside every reason."""

from __future__ import annotations

import re
from typing import get_args

from spotd.models import RefusalReason
from spotd.reasons import MEANINGS, Code, Reason


def test_every_code_says_what_it_means_and_what_to_do() -> None:
    """The list of meanings is complete, sorted, and in sentences."""
    assert list(MEANINGS) == sorted(get_args(Code))
    for meaning in MEANINGS.values():
        assert re.fullmatch(r"[A-Z`].*\.", meaning.meaning)
        assert re.fullmatch(r"[A-Z`].*\.", meaning.action)


def test_a_code_is_one_word_of_lower_case() -> None:
    """Programs compare codes, and ``/readyz`` puts a colon behind them."""
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)*", code) for code in MEANINGS)


def test_the_reasons_of_refusals_are_codes() -> None:
    """The four words of a refused symbol are their own codes."""
    assert set(get_args(RefusalReason)) <= MEANINGS.keys()


def test_a_reason_is_written_with_its_code_first() -> None:
    """``/readyz`` lists reasons in this form."""
    assert str(Reason("redis_away", "no answer in time")) == "redis_away: no answer in time"
