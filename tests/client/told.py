"""A listener of a follower that keeps what it is told."""

from __future__ import annotations

from typing import Any

from spotd.models import DaemonStatus, Gap, SpotPriceUpdate, SymbolState
from tests.kit.waiting import until


class Told:
    """A listener that keeps what it is told, in order."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def price(self, update: SpotPriceUpdate, raw: bytes) -> None:
        """Keep the symbol and the seq."""
        assert raw == update.to_json()
        self.calls.append((update.symbol, update.seq))

    def state(self, state: SymbolState, raw: bytes) -> None:
        """Keep the symbol and the state."""
        assert raw == state.to_json()
        self.calls.append((state.symbol, state.state))

    def ended(self, symbol: str) -> None:
        """Keep the symbol."""
        self.calls.append((symbol, "ended"))

    def status(self, status: DaemonStatus | None, raw: bytes) -> None:
        """Keep the daemon's state."""
        assert raw == (b"" if status is None else status.to_json())
        self.calls.append(("daemon", None if status is None else status.state))

    def gap(self, gap: Gap, raw: bytes) -> None:
        """Keep the code."""
        assert raw == gap.to_json()
        self.calls.append(("gap", gap.code))

    def connection(self, connected: bool, why: str) -> None:
        """Keep whether it is there."""
        assert why
        self.calls.append(("connection", connected))

    async def until(self, *call: Any) -> list[tuple[Any, ...]]:
        """Wait until this was told; return and forget all that was told."""
        await until(lambda: call in self.calls, f"{call}")
        calls, self.calls = self.calls, []
        return calls
