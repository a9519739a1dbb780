"""Decides which symbols may be published now. Must not know prices' meaning, nor read a clock.

There is one slot per symbol, and the newest price in it wins. The throttle rule of the wire
contract has four sentences. At most one update of a symbol goes out in any window. The first
update after a quiet window goes out at once. The newest of the others goes out when the window
ends. No symbol delays another.

A window opens when Redis has *answered* (``settle``), not when an update was emitted. As a
consequence, two updates of a symbol are never closer than the window, however long a call took.
The slots of a batch share one window, since they are answered together. All windows have the same
length, so they end in the order in which they opened: a FIFO of batches is enough. Whoever offers a
price first ends the windows that are over. As a consequence, a timer is needed only for a window
in which something changed, and a quiet market needs none. While Redis is away nothing settles, so
each symbol that changed stays ready, once, with its newest price. Memory is bounded by the number
of symbols.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from datetime import datetime
from enum import IntEnum
from operator import attrgetter

from spotd.core.last_sales import LastSales


class Phase(IntEnum):
    """Where a slot stands between quiet and published."""

    QUIET = 0  # nothing to publish, and no window is open
    READY = 1  # changed, and may go out
    HELD = 2  # emitted: Redis has not answered yet, or answered less than a window ago


# Looking up a member of an enumeration takes many steps, and every update needs these.
_QUIET, _READY, _HELD = Phase.QUIET, Phase.READY, Phase.HELD
_INFINITY = float("inf")
_CHANGED = attrgetter("changed")


class Slot(LastSales):
    """The newest price of one symbol, and whether it changed since it was last emitted."""

    # The slot holds the numbers, not the message that brought them. Replacing a message would free
    # five objects that left the processor's cache long ago. With thousands of symbols, that would
    # double the cost of a quote.
    __slots__ = (
        "ahead_until",
        "ask",
        "batch",
        "bid",
        "changed",
        "due_at",
        "fresh_quote",
        "phase",
        "quoted_at",
        "symbol",
    )

    def __init__(self, symbol: str) -> None:
        super().__init__()
        self.symbol = symbol
        self.bid = 0.0
        self.ask = 0.0
        self.quoted_at: datetime | None = None  # exchange time; None before a two-sided quote
        self.changed = False
        self.fresh_quote = False  # its quote came from the stream and is not published yet
        # Its quote came from a snapshot, and the stream may be behind it until then, in monotonic
        # seconds. While that is so, ``fresh_quote`` is false.
        self.ahead_until = 0.0
        self.phase = _QUIET
        self.due_at = 0.0  # monotonic seconds: since when it has been ready
        self.batch: Batch | None = None  # in which it was last emitted

    def clear(self) -> None:
        """Forget the price. An open window stays open: a symbol that returns is throttled."""
        self.forget_sales()
        self.quoted_at = None
        self.bid = self.ask = 0.0
        self.changed = self.fresh_quote = False
        self.ahead_until = 0.0


class Batch(list[Slot]):
    """The slots that were emitted together, and the window that their answer opens.

    ``end`` is when the window ends, in monotonic seconds; infinity until Redis has answered.
    ``changed`` says that a slot of it may have changed since.
    """

    __slots__ = ("changed", "end")

    def __init__(self, slots: Iterable[Slot] = ()) -> None:
        super().__init__(slots)
        self.end = _INFINITY
        self.changed = False


class Conflator:
    """Holds the order of the slots that are ready and of the windows that are open.

    Its fields are to be read; only this class changes them. ``now`` is monotonic seconds.
    """

    def __init__(self, window_s: float) -> None:
        self.window_s = window_s  # 0 turns the throttle off
        self.ready: deque[Slot] = deque()  # longest waiting first
        self.windows: deque[Batch] = deque()  # open ones, in the order of their ends
        self._windows_with_news = 0  # the number of those in which a slot may have changed
        # The oldest leading edge in ``ready``: since when it has waited; None without one.
        self.edge_at: float | None = None
        # Since ``next_at`` or ``take`` was last called, ``next_at`` may have become earlier.
        self.sooner = False

    def offer(self, slot: Slot, now: float) -> None:
        """Note that a slot holds something new since ``now``.

        The caller counts the price that was replaced, and has ended the windows that are over.
        """
        if slot.phase is _READY and not slot.changed:
            # The slot was cleared while it waited: what it holds now has not waited yet.
            self.ready.remove(slot)
            slot.phase = _QUIET
        # A held slot becomes ready when its window ends, since it has changed. A ready slot is in
        # the deque already: only quiet slots are appended here, and only held ones when windows
        # end. As a consequence, no slot is in the deque twice.
        slot.changed = True
        if slot.phase is _QUIET:
            slot.phase = _READY
            slot.due_at = now
            self.ready.append(slot)
            if self.edge_at is None:
                self.edge_at = now
            self.sooner = True
        elif (batch := slot.batch) is not None and not batch.changed:
            batch.changed = self.sooner = True
            self._windows_with_news += batch.end < _INFINITY

    def take(self, now: float, limit: int) -> Batch:
        """Emit and return at most ``limit`` changed slots that are ready, longest waiting first.

        They are in flight until the caller hands them to ``settle``. ``now`` may jump ahead.
        """
        self.end_windows(now)
        self.sooner = False
        ready = self.ready
        taken = Batch()
        while ready and len(taken) < limit:
            slot = ready.popleft()
            if slot.changed:
                slot.phase = _HELD
                slot.changed = slot.fresh_quote = False
                slot.batch = taken
                taken.append(slot)
            else:  # it was cleared while it waited
                slot.phase = _QUIET
        # Whatever is left has waited: it goes out with the next batch, which nothing delays.
        self.edge_at = ready[0].due_at if ready else None
        return taken

    def settle(self, taken: Batch, now: float, *, delivered: bool) -> None:
        """Open the window of the slots that ``take`` emitted: their call ended at ``now``.

        ``delivered`` is false where nobody knows whether Redis published them. Then they count as
        published, so that their window opens, and as changed, so that their newest price goes out
        again.
        """
        if not delivered:
            for slot in taken:
                if slot.quoted_at is not None:  # None: it was cleared meanwhile
                    slot.changed = taken.changed = True
                    slot.fresh_quote = now >= slot.ahead_until
        if taken:
            # All windows are equally long, and ``now`` never falls from one answer to the next. As
            # a consequence, ``windows`` stays in the order of their ends.
            taken.end = now + self.window_s
            self.windows.append(taken)
            self._windows_with_news += taken.changed
        self.end_windows(now)

    def next_at(self) -> float | None:
        """Return when ``take`` may next emit something, in monotonic seconds.

        Minus infinity means at once. None means not before the next ``offer`` or ``settle``.
        """
        self.sooner = False
        if self.ready:
            return -_INFINITY
        batch = self._next_changed()
        return None if batch is None else batch.end

    def next_together(self) -> int:
        """Return the number of slots in the next window that has news."""
        batch = self._next_changed()
        return 0 if batch is None else len(batch)

    def _next_changed(self) -> Batch | None:
        # There are no more open windows than calls in one window's time: a few hundred.
        if not self._windows_with_news:
            return None
        return next(filter(_CHANGED, self.windows), None)

    def end_all_windows(self) -> None:
        """Give up the throttle before a stop: what does not go out now is lost."""
        self.end_windows(_INFINITY)

    def end_windows(self, now: float) -> None:
        """End the windows that are over at ``now``, as ``take`` and ``settle`` do by themselves.

        Afterwards the first slot in ``ready`` has changed: ``take`` emits it.
        """
        windows = self.windows
        while windows and windows[0].end <= now:
            batch = windows.popleft()
            self._windows_with_news -= batch.changed
            for slot in batch:
                slot.batch = None
                if slot.changed:
                    slot.phase = _READY
                    slot.due_at = batch.end
                    self.ready.append(slot)
                else:
                    slot.phase = _QUIET
        ready = self.ready
        while ready and not ready[0].changed:
            # It was cleared while it waited. If it stayed first, a caller would begin a call for
            # it, emit nothing, and not hear of the windows behind it.
            ready.popleft().phase = _QUIET
            if not ready:
                self.edge_at = None
