"""Takes in the frames of the stream: synchronous, the hot path. Once per frame, not per quote."""

from __future__ import annotations

import time
from collections.abc import Sequence

from spotd.core.messages import Message, Quote, Trade
from spotd.loops.shared import Shared


class Intake:
    """What ``AlpacaStream`` calls for every data frame."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared

    def __call__(self, messages: Sequence[Message]) -> None:
        """Hand the frame to the market rules, note the time, wake the publisher."""
        shared = self._shared
        shared.data_at = time.monotonic()  # the frame's one timestamp, but for the wall clock's
        market = shared.market
        market.receive(messages)
        newest = messages[-1]
        if type(newest) is Quote or type(newest) is Trade:
            received = time.time()
            lag_s = received - newest.at.timestamp()
            shared.lag_s = lag_s
            shared.last_message_unix_s = received
            shared.metrics.feed_lag.observe(max(0.0, lag_s))
        if market.halts_changed:
            market.halts_changed = False
            shared.subscriptions.version += 1
            shared.bells.report.ring()
        self._wake_publisher()

    def primed(self) -> None:
        """Snapshots were taken in."""
        self._wake_publisher()

    def _wake_publisher(self) -> None:
        shared = self._shared
        if len(shared.conflator):
            if shared.ready_since is None:
                shared.ready_since = time.monotonic()
            shared.bells.publish.ring()
