"""What a ``Follower`` tells, and to whom. Must not decide or talk to anything."""

from __future__ import annotations

from typing import Protocol

from spotd.models import DaemonStatus, Gap, SpotPriceUpdate, SymbolState


class FollowerListener(Protocol):
    """Is told of prices, states and the connection, on the event loop, one call after the other.

    The calls must not block, since all followers and iterations of the client wait meanwhile.
    They may add and remove symbols. One that raises is a defect, which ends them all. ``raw`` is
    the JSON as spotd wrote it.
    """

    def price(self, update: SpotPriceUpdate, raw: bytes) -> None:
        """Take the stored price of a symbol, and then every one with a higher ``seq``."""

    def state(self, state: SymbolState, raw: bytes) -> None:
        """Take the stored state of a followed symbol, and then every change of it."""

    def ended(self, symbol: str) -> None:
        """Take note that a symbol has no state any more, because nobody demands it.

        It is told at once where the daemon announces it, and otherwise within 5 s. Where a
        follower demands the symbol, its leases may be lost: they are written again.
        """

    def gap(self, gap: Gap, raw: bytes) -> None:
        """Take note that no prices came between two times. It is told once, and not stored."""

    def status(self, status: DaemonStatus | None, raw: bytes) -> None:
        """Take the daemon's status: the stored one, then every change, also of its time.

        None, with empty bytes: no daemon runs, since its status has lapsed or was deleted. A lapse
        is told at once, or within 5 s in the first 5 s after joining; a deletion within 5 s.
        """

    def connection(self, connected: bool, why: str) -> None:
        """Take note that Redis is lost, or joined (again); ``why`` is for people.

        After joining, the stored values follow, where they are newer than what was told. What was
        published while it joined may have been told before.
        """
