"""The outcome of a call of the command."""

from __future__ import annotations

from typing import NamedTuple


class Outcome(NamedTuple):
    """Exit code, stdout and stderr."""

    code: int
    out: str
    err: str
