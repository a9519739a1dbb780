"""Decides when the next call to Redis begins, how many updates it carries, and their seq.

Must not know what is in an update, and must not call Redis.

The publisher is always in one of three situations: it is idle, a call is under way, or the end of
a throttle window is awaited. One call is under way at a time, so a slow server is never asked for
more, and what arrives meanwhile waits in the conflator as one newest price per symbol.
"""

from __future__ import annotations

FEWEST = 50
MOST = 4_000
FIRST = 500

GATHER_S = 0.005  # of the 50 ms that the end of a window may be late
ENOUGH = 100  # updates in a call: from here on the cost of the call itself does not matter

_NEAR_WORK_S = 0.004  # a call may hold a server this long, however short the way to it is …
_MOST_WORK_S = 0.1  # … and no longer than this, however long the way is
_DOUBLED_UNTIL_S = 0.3  # a call of twice the work must be answered before it is given up
_MEASURE_AFTER = 64  # full calls
_INFINITY = float("inf")


def wait_s(next_at: float | None, together: int, now: float) -> float | None:
    """Return how long to wait before the next call, in seconds, unless woken earlier.

    None: wait until woken. 0 or less: do not wait. ``next_at``: when updates are next ready; None
    if nothing waits. ``together``: how many windows end at that moment.
    """
    if next_at is None:
        return None
    left_s = next_at - now
    if left_s <= 0.0 or together >= ENOUGH:
        return left_s
    # Small batches whose windows end shortly after one another share a call. The first update
    # after a quiet window wakes the publisher, so it is not delayed by this.
    return left_s + GATHER_S


class BatchSize:
    """How many updates the next call carries at most: ``limit``, to be read only.

    The time of a call has two parts: the *way* there and back, and the *work*, during which the
    server serves nobody else. The work may last as long as the way: then at least half of the
    possible throughput is reached. The limits above keep a near server responsive and a distant
    one in time.

    - A full call was *quick* if its work was at most half of what is allowed: the size doubles.
    - It held the server if its work was more than twice what is allowed: the size is halved.
      Between the two lies a factor of four, so the size does not swing.
    - It was given up, perhaps because it was too large: the size is halved.

    The way is the time of a small call. Calls in quiet moments are small. Where each call is full,
    one in ``_MEASURE_AFTER`` is made small, because one size alone does not tell way from work.
    """

    def __init__(self) -> None:
        self.limit = FIRST
        self._size = FIRST  # equals ``limit``, unless the next call measures the way
        self._way_s = _INFINITY
        self._full_calls = _MEASURE_AFTER  # since the way was measured; the first one measures it

    def answered(self, updates: int, seconds: float) -> None:
        """Take in that a call with ``updates`` updates was answered after ``seconds``."""
        # No call takes less than the way. A small call that takes longer means that the way became
        # longer, or that something else delayed it: one delay must not count as a long way.
        if updates <= FEWEST:
            self._way_s = min(seconds, 2.0 * self._way_s)
            self._full_calls = 0
        self._way_s = min(seconds, self._way_s)
        if updates >= self._size:
            self._full_calls += 1
            if self._full_calls > _MEASURE_AFTER:
                self.limit = FEWEST
                return
            self._resize(seconds)
        self.limit = self._size

    def failed(self) -> None:
        """Take in that a call was given up. The next answer may come from another server."""
        self.limit = self._size = max(self._size // 2, FEWEST)
        self._way_s = _INFINITY
        self._full_calls = _MEASURE_AFTER

    def _resize(self, seconds: float) -> None:
        work_s = seconds - self._way_s
        allowed_s = min(max(self._way_s, _NEAR_WORK_S), _MOST_WORK_S)
        if work_s > 2.0 * allowed_s:
            self._size = max(self._size // 2, FEWEST)
        elif work_s <= allowed_s / 2.0 and seconds < _DOUBLED_UNTIL_S:
            self._size = min(self._size * 2, MOST)


class SeqCounter:
    """The ``seq`` of updates: strictly rising, over restarts and fail-over too.

    Source: the wire contract, section 2. A seq is microseconds since 1970. As a consequence, a
    daemon starts above a predecessor of which it does not know. Where that is not above what was
    given or is known, since the clock went back or updates are that frequent, it is one more.
    """

    def __init__(self) -> None:
        self.highest = 0  # that was given or is known; to be read only
        self.stored = 0  # that Redis has stored, as it said; to be read only

    def raise_to(self, highest: int) -> None:
        """Take in that another daemon, or a former term of ours, published up to ``highest``."""
        self.highest = max(self.highest, highest)

    def stored_up_to(self, highest: int) -> None:
        """Take in that Redis stored a batch whose highest seq is ``highest``."""
        self.stored = max(self.stored, highest)

    def told(self, stored_before: int, highest: int | None) -> bool:
        """Take in the highest seq that Redis knows. Return whether it has lost a higher one.

        ``stored_before`` is ``stored`` at the time the question was sent. A Redis that restarts
        with older data may do so between two calls, so that none fails: then this alone tells.
        """
        known = highest or 0
        self.raise_to(known)
        if known >= stored_before:
            return False
        self.stored = known  # so that the loss is told once
        return True

    def next(self, count: int, unix_us: int) -> int:
        """Return the first of ``count`` seqs, each one above the one before.

        ``count``: at least 1. ``unix_us``: microseconds since 1970.
        """
        first = max(self.highest + 1, unix_us)
        self.highest = first + count - 1
        return first
