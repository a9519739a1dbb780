"""A bounded record of everything that the simulator received, and its counters.

Tests assert on it and the progress line shows it; it decides nothing.
"""

import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from spotd.simulator.changes import Changes

Kind: TypeAlias = Literal["connect", "message", "ping", "pong", "close", "rest"]

_MOST_RECORDS = 20_000


@dataclass(frozen=True, slots=True)
class Record:
    """One thing that was received; `session` is 0 for a REST request."""

    kind: Kind
    session: int
    data: Any
    """The decoded message, or its bytes if they could not be decoded; the payload of a ping or
    pong; the URL of a connect or a REST request; the close code, None without a close frame."""
    at: float = field(default_factory=time.monotonic)
    """Monotonic seconds."""
    headers: Mapping[str, str] = field(default_factory=dict)


class Journal:
    """The newest records, oldest first. Each new one wakes up all waiters for conditions."""

    def __init__(self, changes: Changes) -> None:
        self._records: deque[Record] = deque(maxlen=_MOST_RECORDS)
        self._changes = changes

    def add(self, record: Record) -> None:
        """Record something that was received."""
        self._records.append(record)
        self._changes.wake_up()

    def of(self, kind: Kind, session: int | None = None) -> list[Record]:
        """Return the records of one kind, of one session if it is given."""
        return [
            each
            for each in self._records
            if each.kind == kind and (session is None or each.session == session)
        ]

    def messages(self, action: str | None = None) -> list[Any]:
        """Return the decoded messages received, those with this `action` if it is given."""
        return [
            each.data
            for each in self.of("message")
            if action is None or (isinstance(each.data, dict) and each.data.get("action") == action)
        ]

    def clear(self) -> None:
        """Forget everything received so far."""
        self._records.clear()

    def __iter__(self) -> Iterator[Record]:
        return iter(tuple(self._records))

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> Record:
        return self._records[index]


@dataclass
class Stats:
    """Counters since the start. What is sent counts once per session, when it is written."""

    connections: int = 0
    handshakes_refused: int = 0
    quotes_sent: int = 0
    trades_sent: int = 0
    messages_sent: int = 0
    frames_sent: int = 0
    slow_clients: int = 0
    refused: Counter[int] = field(default_factory=Counter)
    """Errors sent in answer to a client, by code."""
    rest_requests: int = 0
