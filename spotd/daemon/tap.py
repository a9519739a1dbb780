"""Hands what comes from Alpaca to recorders. Without a recorder it costs nothing.

Must not wait for a recorder, nor let a secret through.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

import structlog

from spotd.alpaca.stream import AlpacaStream
from spotd.core.states import StreamState
from spotd.core.tap import FrameQueue
from spotd.daemon.value import Value
from spotd.errors import StreamError
from spotd.redaction import Mask

QUEUE_BYTES = 8 << 20  # a third of a second of all quotes of the busiest market
MOST_RECORDERS = 4

log = structlog.get_logger("spotd.tap")


class Recorder:
    """One recording under way: what it was not yet given."""

    def __init__(self, taps: Taps, queue: FrameQueue, mask: Mask) -> None:
        self._taps = taps
        self._queue = queue
        self._mask = mask

    def take(self, most_bytes: int) -> bytes:
        """Return records of ``core.tap``, without secrets, and forget them."""
        return self._mask.over(self._queue.take(most_bytes, time.time_ns()))

    def close(self) -> None:
        """End the recording."""
        self._taps.close(self._queue)


class Taps:
    """The recordings under way. ``about`` describes the daemon in each of them."""

    def __init__(
        self,
        alpaca: AlpacaStream,
        *,
        stream: Value[StreamState],
        secrets: list[str],
        about: Mapping[str, str],
        queue_bytes: int = QUEUE_BYTES,
    ) -> None:
        self._alpaca = alpaca
        self._stream = stream
        self._mask = Mask(secrets)
        self._about = about
        self._queue_bytes = queue_bytes
        self._queues: tuple[FrameQueue, ...] = ()

    def open(self) -> Recorder | None:
        """Return a new recording of what comes from now on; None if there are too many."""
        if len(self._queues) >= MOST_RECORDERS:
            return None
        queue = FrameQueue(self._queue_bytes)
        phase = self._stream.get().phase
        queue.note(time.time_ns(), recording="begins", **self._about, stream=phase)
        self._follow((*self._queues, queue))
        log.info("recording begins", recordings=len(self._queues))
        return Recorder(self, queue, self._mask)

    def close(self, queue: FrameQueue) -> None:
        """Forget a recording."""
        self._follow(tuple(other for other in self._queues if other is not queue))
        log.info("recording ended", lost_frames=queue.lost_frames, recordings=len(self._queues))

    def _follow(self, queues: tuple[FrameQueue, ...]) -> None:
        self._queues = queues
        self._alpaca.give_to(self if queues else None)

    # What the stream calls

    def frame(self, payload: bytes) -> None:
        """Keep a frame for each recording."""
        unix_ns = time.time_ns()
        for queue in self._queues:
            queue.put(payload, unix_ns)

    def ended(self, why: StreamError) -> None:
        """Note in each recording that the session is over."""
        for queue in self._queues:
            queue.note(time.time_ns(), session="ended", why=str(why), reason=why.reason)
