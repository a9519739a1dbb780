"""Listens to the daemon's own channels, and publishes what they tell as one value.

A message on ``spotd:wake`` makes the demand be read. ``leaders:spot:`` tells who leads. Must not
decide what that means: ``core.channels`` does.
"""

from __future__ import annotations

import asyncio
import time

import structlog

from spotd.core.channels import ChannelMonitor, Channels
from spotd.core.leadership import Leadership
from spotd.core.redis_health import RedisHealth
from spotd.daemon.value import Value, WakeUp
from spotd.errors import RedisUnavailableError
from spotd.redis.errors import RefusedError
from spotd.redis.port import RedisPort

_RETRY_S = 1.0

log = structlog.get_logger("spotd.channels")


class ChannelLoop:
    """The one loop that listens. ``wake_up`` is that of the loop that reads the demand."""

    def __init__(
        self,
        port: RedisPort,
        monitor: ChannelMonitor,
        *,
        channels: Value[Channels],
        leadership: Value[Leadership],
        health: Value[RedisHealth],
        wake_up: WakeUp,
    ) -> None:
        self._port = port
        self._monitor = monitor
        self._channels = channels
        self._leadership = leadership
        self._health = health
        self._wake_up = wake_up

    async def run(self) -> None:
        """Listen, and try again where that fails. Meanwhile the demand is read by itself."""
        while True:
            try:
                async for _ in self._port.wakes(self._announced):
                    self._set(self._monitor.listening())
                    self._wake_up.set()
            except RedisUnavailableError as error:
                refused = isinstance(error, RefusedError)
                away = self._health.get().away is not None
                now = time.monotonic()
                self._set(self._monitor.failed(now, str(error), refused=refused, away=away))
                await asyncio.sleep(_RETRY_S)

    def _announced(self, token: str) -> None:
        now = time.monotonic()
        leadership = self._leadership.get()
        term = leadership.term if leadership.may_publish(now) else None
        self._set(self._monitor.announced(token, now, term=term))

    def _set(self, channels: Channels) -> None:
        before = self._channels.get()
        if not self._channels.set(channels):
            return
        if channels.unheard is not None and before.unheard is None:
            log.error("cannot listen to the wake channel", why=channels.unheard)
        elif before.unheard is not None and channels.unheard is None:
            log.info("listening to the wake channel again")
        if channels.other_leader is not None and before.other_leader is None:
            log.error(
                "another daemon publishes on the same channels, from another database of this "
                "Redis or with another key prefix: give each its own SPOTD_KEY_PREFIX and "
                "SPOTD_CHANNEL_PREFIX",
                token=channels.other_leader,
            )
        elif before.other_leader is not None and channels.other_leader is None:
            log.info("no other daemon publishes on the same channels any more")
