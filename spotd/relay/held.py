"""Decides when prices that ``max_hz`` holds back are due. ``now`` is monotonic seconds.

Must not know what a price is, await or read a clock.
"""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heapify, heappop, heappush
from itertools import count

from spotd.relay.slots import Entry, Pace


class Held:
    """The paces for which a newer price waits, by when it is due.

    A pace that waits no longer leaves its entry void in the heap. When more than half of the
    entries are void, they are removed. As a consequence, a client that asks for its symbols again
    and again takes no more memory than one that does not.
    """

    def __init__(self) -> None:
        self._heap: list[Entry] = []
        self._void = 0
        self._order = count()

    def __len__(self) -> int:
        """Return the number of entries, also those that are void."""
        return len(self._heap)

    @property
    def next_at(self) -> float | None:
        """When the next price is due; None: none waits. It may be too early, never too late."""
        return self._heap[0][0] if self._heap else None

    def add(self, pace: Pace) -> None:
        """Have a price wait for the time ``pace.next_at``."""
        pace.held = (pace.next_at, next(self._order), pace)
        heappush(self._heap, pace.held)

    def drop(self, pace: Pace) -> None:
        """Have no price wait any more, if one did."""
        if pace.held is None:
            return
        pace.held = None
        self._void += 1
        if self._void > len(self._heap) // 2:
            self._heap = [entry for entry in self._heap if entry[2].held is entry]
            heapify(self._heap)
            self._void = 0

    def due(self, now: float) -> Iterator[Pace]:
        """Yield the paces whose price is due now, which then wait no longer."""
        while self._heap and self._heap[0][0] <= now:
            entry = heappop(self._heap)
            pace = entry[2]
            if pace.held is entry:
                pace.held = None
                yield pace
            else:
                self._void -= 1
