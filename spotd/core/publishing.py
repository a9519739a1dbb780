"""Decides when the next call to Redis begins, how many updates it carries, and their seq.

Must not know what is in an update, and must not call Redis.

The publisher is always in one of four situations: it is idle; updates that are ready gather; a call
is under way; or the end of a throttle window is awaited. One call is under way at a time, so a slow
server is never asked for more, and what arrives meanwhile waits in the conflator as one newest
price per symbol. ``next_call_at`` decides in the other three.
"""

from __future__ import annotations

FEWEST = 50
MOST = 4_000
FIRST = 500

GATHER_S = 0.005  # of the 50 ms that the end of a window may be late
ENOUGH = 100  # updates in a call: from here on the cost of the call itself does not matter
# Source: the wire contract, section 2. Under load, a first update after a quiet window may gather.
EDGES_GATHER_S = 0.002
GATHER_ABOVE_PER_S = 1_500.0
GATHER_UNTIL_PER_S = 1_000.0
_PACE_OVER_S = 0.05

_NEAR_WORK_S = 0.004  # a call may hold a server this long, however short the way to it is …
_MOST_WORK_S = 0.1  # … and no longer than this, however long the way is
_DOUBLED_UNTIL_S = 0.3  # a call of twice the work must be answered before it is given up
_MEASURE_AFTER = 64  # full calls
_INFINITY = float("inf")


def next_call_at(
    *,
    ready: int = 0,
    ready_at: float = 0.0,
    edge_at: float | None = None,
    window_at: float | None = None,
    together: int = 0,
    gathers: bool = False,
) -> float | None:
    """Return when the next call begins, in monotonic seconds, where none is under way.

    None: not before something changes. ``ready``: the number of updates that may go out now, of
    which the longest waiting is due since ``ready_at``, and the longest waiting *edge*, that is the
    first update after a quiet window, since ``edge_at``. ``window_at``: when the next window with
    news ends, and ``together``: how many updates it may hold. ``gathers``: edges may gather.
    """
    if ready >= ENOUGH:
        return ready_at
    if ready:
        # Small batches whose windows end shortly after one another share a call, and an edge takes
        # along what waits.
        at = ready_at + GATHER_S
        if edge_at is None:
            return at
        return min(at, edge_at + EDGES_GATHER_S if gathers else edge_at)
    if window_at is None or together >= ENOUGH:
        return window_at
    return window_at + GATHER_S


class Gathering:
    """Decides from the pace of updates whether edges gather, so that they share a call.

    At an everyday pace each edge goes out at once: nothing would share its call. At a high pace the
    calls cost more than the updates, and a reader cannot tell 2 ms. The pace is taken over at least
    ``_PACE_OVER_S``, and the two limits are apart, so gathering does not swing.
    """

    def __init__(self) -> None:
        self._on = False
        self._since = -_INFINITY
        self._updates = 0

    def published(self, updates: int, now: float) -> None:
        """Take in that a call with ``updates`` updates begins."""
        self._updates += updates
        took_s = now - self._since
        if took_s >= _PACE_OVER_S:
            pace = self._updates / took_s
            self._on = pace > (GATHER_UNTIL_PER_S if self._on else GATHER_ABOVE_PER_S)
            self._since, self._updates = now, 0

    def gathers(self, now: float) -> bool:
        """Return whether edges gather at ``now``: not after a silence, whatever was before."""
        return self._on and now - self._since < 2 * _PACE_OVER_S


class Succession:
    """Decides when the first call of a reign may begin.

    A reign begins where another daemon may have published until now, so that daemon's throttle
    windows may be open, and nobody knows of which symbols. As a consequence, the first call waits
    for as long as a window lasts. Windows of an own earlier term are known to the conflator.
    """

    def __init__(self, window_s: float) -> None:
        self._window_s = window_s
        self._reign = 0
        self._first_call_at = -_INFINITY

    def first_call_at(self, reign: int, now: float) -> float:
        """Return when we, who lead at ``now`` in this reign, may first call; monotonic seconds."""
        if reign != self._reign:
            self._reign = reign
            self._first_call_at = now + self._window_s
        return self._first_call_at


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
