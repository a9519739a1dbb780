"""Every error with its place in the tree and its exit code."""

from __future__ import annotations

import inspect
import re

import pytest

from spotd import errors
from spotd.errors import (
    AlpacaRefusedError,
    ConnectionLimitError,
    NotLeaderError,
    RedisUnavailableError,
    RequestRefusedError,
    SettingsError,
    SnapshotError,
    SpotdError,
    StreamError,
    SymbolRefusedError,
)

TREE: list[tuple[type[SpotdError], type[Exception], int]] = [
    (SpotdError, Exception, 1),
    (SettingsError, SpotdError, 2),
    (AlpacaRefusedError, SpotdError, 3),
    (StreamError, SpotdError, 1),
    (ConnectionLimitError, StreamError, 1),
    (RequestRefusedError, StreamError, 1),
    (SnapshotError, SpotdError, 1),
    (SymbolRefusedError, SpotdError, 1),
    (RedisUnavailableError, SpotdError, 1),
    (NotLeaderError, RedisUnavailableError, 1),
]


@pytest.mark.parametrize(("error", "parent", "exit_code"), TREE)
def test_the_tree(error: type[SpotdError], parent: type[Exception], exit_code: int) -> None:
    """Each error has its parent and exit code: 1 a defect, 2 settings, 3 refused by Alpaca."""
    assert error.__bases__ == (parent,)
    assert error.exit_code == exit_code


def test_the_table_and_the_docstring_have_every_error() -> None:
    """The table above and the docstring of the module list every error with its exit code."""
    defined = {
        value
        for _, value in inspect.getmembers(errors, inspect.isclass)
        if issubclass(value, Exception)
    }
    assert defined == {error for error, _, _ in TREE}
    printed = re.findall(r"^\W*(\w+Error) +(\d) ", errors.__doc__ or "", re.MULTILINE)
    assert printed == [(error.__name__, str(code)) for error, _, code in TREE]


@pytest.mark.parametrize("error", [StreamError, ConnectionLimitError, RequestRefusedError])
def test_a_stream_error_carries_the_facts_for_the_next_try(error: type[StreamError]) -> None:
    """A stream error has a label for metrics, Alpaca's code, and the pause the server asked for."""
    bare = error("the server closed", reason="closed")
    assert (str(bare), bare.reason, bare.code, bare.after_s) == (
        "the server closed",
        "closed",
        None,
        None,
    )
    full = error("too many", reason="http_429", code=429, after_s=7.0)
    assert (full.reason, full.code, full.after_s) == ("http_429", 429, 7.0)
