"""Talks to systemd: that the relay's loop turns, and its status. Must not decide either."""

from __future__ import annotations

import asyncio
from typing import NoReturn

from spotd.ops import systemd
from spotd.relay.relay import Relay

_CHECK_EVERY_S = 1.0


async def tell_systemd(relay: Relay) -> NoReturn:
    """Tell the watchdog that the loop turns, and the relay's status at every change."""
    watchdog = systemd.Watchdog(systemd.watchdog_s())
    every_s = min(_CHECK_EVERY_S, watchdog.call_every_s)
    loop = asyncio.get_running_loop()
    told = ""
    while True:
        watchdog.alive(loop.time())
        status = "; ".join(relay.not_ready()) or "ready"
        if status != told:
            systemd.notify(f"STATUS={status}")
            told = status
        await asyncio.sleep(every_s)
