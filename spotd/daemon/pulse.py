"""Tells systemd's watchdog that the event loop turns, and measures how late it runs timers."""

from __future__ import annotations

import asyncio

from spotd.daemon.value import beat_before
from spotd.ops import systemd
from spotd.ops.metrics import Metrics

# A loop that is held up for long is found by some pulse, and each one wakes an idle daemon.
_EVERY_S = 0.5


async def pulse(metrics: Metrics) -> None:
    """Tell and measure, without end."""
    watchdog = systemd.Watchdog(systemd.watchdog_s())
    every_s = min(_EVERY_S, watchdog.call_every_s)
    loop = asyncio.get_running_loop()
    while True:
        due = beat_before(loop.time() + every_s)
        await asyncio.sleep(due - loop.time())
        now = loop.time()
        metrics.loop_lag.observe(max(0.0, now - due))
        watchdog.alive(now)
