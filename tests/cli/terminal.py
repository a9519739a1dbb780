"""The outcome of a call of the command, and names that the tests here share."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from tests.kit.ports import free_port
from tests.kit.publisher import AT, KEYS, publish, state_of, status_of, update_of
from tests.kit.waiting import until_sync

__all__ = [
    "AT", "KEYS", "Outcome", "free_port", "publish", "state_of", "status_of", "until", "update_of",
]  # fmt: skip


class Outcome(NamedTuple):
    """Exit code and what was written where."""

    code: int
    out: str
    err: str


def until(condition: Callable[[], object]) -> None:
    """Wait for a condition."""
    until_sync(condition, "the condition")
