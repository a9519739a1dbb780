"""Takes in the frames of the stream: synchronous, the hot path. Once per frame, not per quote."""

from __future__ import annotations

import time
from collections.abc import Sequence

from spotd.core.messages import Message, Quote, Trade
from spotd.daemon.shared import Shared

_LAG_EVERY_S = 0.001  # a thousand samples a second tell as much as one of every frame


class Intake:
    """What ``AlpacaStream`` calls for every data frame."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._receive = shared.market.receive
        self._lag_seen_at = 0.0

    def __call__(self, messages: Sequence[Message]) -> None:
        """Hand the frame to the market rules, note the time, wake the publisher."""
        shared = self._shared
        conflator = shared.conflator
        # The frame's one timestamp.
        now = shared.data_at = conflator.now = time.monotonic()
        self._receive(messages)
        if now - self._lag_seen_at >= _LAG_EVERY_S:
            self._lag_seen_at = now
            self._see_lag(messages[-1])
        if shared.market.halts_changed:
            shared.market.halts_changed = False
            shared.subscriptions.version += 1
            shared.bells.report.ring()
        if conflator.ready and not shared.bells.publish.rung:
            shared.bells.publish.ring()

    def primed(self) -> None:
        """Snapshots were taken in."""
        if self._shared.conflator.ready:
            self._shared.bells.publish.ring()

    def _see_lag(self, newest: Message) -> None:
        if isinstance(newest, Quote | Trade):
            shared = self._shared
            shared.last_message_unix_s = received = time.time()
            shared.lag_s = lag_s = received - newest.at.timestamp()
            shared.metrics.feed_lag.observe(max(0.0, lag_s))
