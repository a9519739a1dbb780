"""What the simulator saw and did: a bounded record of everything received, and counters.

For assertions and progress lines; decides nothing.
"""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from spotd.simulator.bell import Bell

Kind: TypeAlias = Literal["connect", "message", "ping", "pong", "close", "rest"]


@dataclass(frozen=True, slots=True)
class Record:
    """One thing received; `session` is 0 where there is none."""

    kind: Kind
    session: int
    data: Any
    """The decoded message (or the raw bytes), ping or pong payload, URL of a connect or of a REST
    request, or close code: None when the client vanished without a close frame."""
    at: float = field(default_factory=time.monotonic)
    """Monotonic seconds."""
    headers: Mapping[str, str] = field(default_factory=dict)


class Journal:
    """The newest records, oldest first; waiters look again after each."""

    def __init__(self, bell: Bell, size: int = 20_000) -> None:
        self._records: deque[Record] = deque(maxlen=size)
        self._bell = bell

    def add(self, record: Record) -> None:
        """Remember something received."""
        self._records.append(record)
        self._bell.ring()

    def of(self, kind: Kind, session: int | None = None) -> list[Record]:
        """The records of one kind, of one session where it is given."""
        return [
            each
            for each in self._records
            if each.kind == kind and (session is None or each.session == session)
        ]

    def messages(self, action: str | None = None) -> list[Any]:
        """The decoded messages received, those with this `action` where it is given."""
        return [
            each.data
            for each in self.of("message")
            if action is None or (isinstance(each.data, dict) and each.data.get("action") == action)
        ]

    def clear(self) -> None:
        """Forget everything received so far."""
        self._records.clear()

    async def wait_for(self, condition: Callable[[], object], timeout_s: float) -> None:
        """Return once `condition()` is true, looked at after everything received or sent."""
        async with asyncio.timeout(timeout_s):
            await self._bell.until(condition)

    def __iter__(self) -> Iterator[Record]:
        return iter(tuple(self._records))

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> Record:
        return self._records[index]


@dataclass
class Stats:
    """Counters since the start; what is sent counts once per session, when it is written."""

    connections: int = 0
    handshakes_refused: int = 0
    quotes_sent: int = 0
    trades_sent: int = 0
    messages_sent: int = 0
    frames_sent: int = 0
    bytes_sent: int = 0
    slow_clients: int = 0
    refused: Counter[int] = field(default_factory=Counter)
    """Errors sent in answer to a client, by code."""
    rest_requests: int = 0
    rest_refused: Counter[int] = field(default_factory=Counter)
    """REST answers other than 200, by HTTP status."""
