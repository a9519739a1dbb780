"""Everything under test, put together: servers, a simulated Alpaca, two daemons, a relay.

Starts and ends processes; what is right or wrong is not decided here.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Self

from spotd.settings import Settings
from spotd.simulator import Limits, Simulator
from tests.soak.plan import Topology
from tests.soak.processes import Process, http_port
from tests.soak.rule_table import Times
from tests.soak.topologies import Servers

KEY, SECRET = "PKSOAKTESTKEY0000001", "soakTestSecretDoNotPrint000000000000001"
THROTTLE_S = 0.2


def limits() -> Limits:
    """Return Alpaca's limits, with the time that it holds a dead session cut from 90 s."""
    return Limits(
        dead_session_hold_s=4.0, ping_period_s=2.0, ping_timeout_s=6.0, close_timeout_s=0.5
    )


class Testbed:
    """What runs. ``slots`` are the two present daemons by their place, ``a`` and ``b``."""

    def __init__(self, home: Path, topology: Topology, ttl_s: float = 5.0) -> None:
        self.home = home
        self.servers = Servers(topology, home / "servers")
        # It listens on all loopback addresses, so that the Host header tells the daemons apart.
        self.sim = Simulator("0.0.0.0", keys={KEY: SECRET}, limits=limits())  # noqa: S104
        self.times = Times(ttl_s, Settings.model_fields["keep_stream_s"].default)
        self.slots: dict[str, Process] = {}
        self.ended: list[Process] = []
        self.relay: Process
        self.begun_at = time.monotonic()
        self.timeline: deque[tuple[float, str]] = deque(maxlen=2_000)
        home.mkdir(parents=True, exist_ok=True)
        self._timeline_file = (home / "timeline.txt").open("w")
        self._number: Counter[str] = Counter()
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Start everything."""
        self._stack.callback(self._timeline_file.close)
        self.servers.__enter__()
        self._stack.callback(self.servers.__exit__)
        await self._stack.enter_async_context(self.sim)
        self._stack.push_async_callback(self._kill_all)
        for place in "ab":
            await self.start_daemon(place)
        env = {
            "SPOTD_REDIS_URL": self.servers.url,
            "SPOTD_KEY_PREFIX": self.servers.keys.key_prefix,
            "SPOTD_RELAY_PORT": http_port(),
            "SPOTD_LOG_FORMAT": "json",
        }
        self.relay = await Process.start("relay", "relay", home=self.home / "relay", env=env)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Kill everything."""
        await self._stack.aclose()

    @property
    def daemons(self) -> list[Process]:
        """The two present daemons."""
        return list(self.slots.values())

    def say(self, what: str) -> None:
        """Note on the timeline that something happened."""
        at_s = time.monotonic() - self.begun_at
        self.timeline.append((at_s, what))
        self._timeline_file.write(f"{at_s:8.2f} {what}\n")
        self._timeline_file.flush()

    def recent(self, seconds: float = 25.0) -> str:
        """Return what happened in the last seconds."""
        since = time.monotonic() - self.begun_at - seconds
        return "\n".join(f"{at:8.2f} {what}" for at, what in self.timeline if at >= since)

    async def start_daemon(self, place: str) -> None:
        """Start a daemon in a place, in which the one before has ended."""
        if place in self.slots and self.slots[place].running:
            raise AssertionError(f"{self.slots[place].name} still runs")
        self._number[place] += 1
        name = f"{place}{self._number[place]}"
        host = f"127.0.{1 + self._number.total() // 250}.{1 + self._number.total() % 250}"
        env = {
            "ALPACA_API_KEY": KEY,
            "ALPACA_SECRET_KEY": SECRET,
            "SPOTD_STREAM_URL": self.sim.stream_url("iex").replace("127.0.0.1", host),
            "SPOTD_DATA_URL": self.sim.data_url,
            "SPOTD_REDIS_URL": self.servers.url,
            "SPOTD_KEY_PREFIX": self.servers.keys.key_prefix,
            "SPOTD_LEADER_TTL_S": f"{self.times.ttl_s:g}",
            "SPOTD_BREAKER_RECOVERY_S": "5",
            "SPOTD_HTTP_PORT": http_port(),
            "SPOTD_LOG_FORMAT": "json",
        }
        daemon = await Process.start(name, "run", home=self.home / name, env=env, host=host)
        if (before := self.slots.get(place)) is not None:
            self.ended.append(before)
        self.slots[place] = daemon

    async def _kill_all(self) -> None:
        processes = [*self.daemons, *self.ended]
        if hasattr(self, "relay"):
            processes.append(self.relay)
        await asyncio.gather(*(process.kill() for process in processes))
