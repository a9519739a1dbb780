"""Every error that spotd raises, with the exit code of a process that it ends.

::

    SpotdError                     1   a defect, or a failure with no better name
    ├── SettingsError              2   wrong usage or settings
    ├── AlpacaRefusedError         3   Alpaca refused for good (wrong keys, feed not in the plan)
    ├── StreamError                1   the stream failed; another try may work
    │   ├── ConnectionLimitError   1   another session holds the account (406)
    │   └── RequestRefusedError    1   a (un)subscribe request was answered with an error code
    ├── SnapshotError              1   a REST request for latest values failed
    ├── SymbolRefusedError         1   a symbol that somebody waits for is refused
    └── RedisUnavailableError      1   Redis did not answer, or answered with an error
        └── NotLeaderError         1   the leader key does not hold our token

Foreign exceptions are translated into these where they enter (adapters, client), chained. A
message must not hold a secret; texts are built from codes, host names and Alpaca's messages.
"""

from __future__ import annotations


class SpotdError(Exception):
    """Base of the tree. A process that it ends has the exit code ``exit_code``."""

    exit_code = 1


class SettingsError(SpotdError):
    """A setting is missing, unknown or malformed; the message names the variable."""

    exit_code = 2


class AlpacaRefusedError(SpotdError):
    """Alpaca refused for good; the message says what to do (402, 409)."""

    exit_code = 3


class StreamError(SpotdError):
    """The stream failed and may be tried again.

    ``reason`` is a short label for metrics (``closed``, ``timeout``, ``code_500`` …), ``code``
    Alpaca's error code, or None. ``after_s`` is the pause that the server asked for, or None.
    """

    def __init__(
        self, message: str, *, reason: str, code: int | None = None, after_s: float | None = None
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.code = code
        self.after_s = after_s


class ConnectionLimitError(StreamError):
    """Another session holds the account's one connection (406)."""


class RequestRefusedError(StreamError):
    """A subscribe or unsubscribe request was answered with an error; the socket stays open."""


class SnapshotError(SpotdError):
    """Alpaca's REST did not return latest values; the stream is not affected.

    ``after_s`` is the pause that the server asked for, or what is left of it; None without one.
    """

    def __init__(self, message: str, *, after_s: float | None = None) -> None:
        super().__init__(message)
        self.after_s = after_s


class SymbolRefusedError(SpotdError):
    """A symbol that somebody waits for is refused; the message says why."""


class RedisUnavailableError(SpotdError):
    """Redis did not answer within its limit, or answered with an error."""


class NotLeaderError(RedisUnavailableError):
    """The leader key does not hold our token: nothing was written."""
