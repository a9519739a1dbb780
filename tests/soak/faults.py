"""Carries out the planned faults, each with its end. Talks to servers, simulator and processes.

Which server or daemon a fault hits is found out when it begins: the one that leads, or not.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterable

from spotd.simulator import Faults
from tests.soak.contradictions import Violation
from tests.soak.plan import KINDS, Hidden, Hiding, Planned, Target, hidden
from tests.soak.processes import STOP_S, Process
from tests.soak.testbed import Testbed

_FAIL_OVER_S = 6.0  # a fail-over that has not begun by then was refused
_OWNER_EVERY_S = 0.2
_LINGERS_S = 2.0  # after the end of a fault, until the next quote of each symbol is everywhere
_KEPT_S = 180.0  # windows of faults that are over

Leader = Callable[[], Process | None]


class Injector:
    """The faults of one soak. ``leader`` returns the daemon whose token the key held last."""

    def __init__(self, bed: Testbed, leader: Leader) -> None:
        self.counts: Counter[str] = Counter()
        self.violations: list[Violation] = []
        self.redis_hit_at = float("-inf")
        self._bed, self._leader = bed, leader
        self._under_way: dict[int, Planned] = {}
        self._ended_at = time.monotonic()
        self._hiding: list[Hiding] = []
        self._locks: defaultdict[Target, asyncio.Lock] = defaultdict(asyncio.Lock)

    @property
    def calm_since(self) -> float | None:
        """Since when there has been no fault, in monotonic seconds; None: there is one."""
        return None if self._under_way else self._ended_at

    def hidden(self, opened: Iterable[float]) -> Hidden:
        """Return when faults hid something from spotd. ``opened``: when its sessions were."""
        return hidden(self._hiding, opened)

    async def round(self, planned: list[Planned]) -> None:
        """Carry out the faults of one round, and return when all are over."""
        await asyncio.gather(*(self._carry_out(each) for each in planned))

    async def _carry_out(self, planned: Planned) -> None:
        await asyncio.sleep(planned.at_s)
        # What a fault takes beside its duration is not planned: a stop takes up to 5 s.
        async with self._locks[KINDS[planned.kind].target]:
            await self._act(planned)

    async def _act(self, planned: Planned) -> None:
        bed = self._bed
        self.counts[planned.kind] += 1
        self._under_way[id(planned)] = planned
        target = planned.kind.partition("_")[0]
        act: Awaitable[None]
        if target == "redis":
            act = self._redis(planned)
        elif target in ("stream", "rest"):
            act = self._stream(planned)
        else:
            act = self._daemon(planned)
        bed.say(f"fault: {planned}")
        now = time.monotonic()
        hiding = Hiding(planned.kind, now)
        self._hiding = [*(each for each in self._hiding if each.ends > now - _KEPT_S), hiding]
        try:
            await act
        finally:
            now = time.monotonic()
            del self._under_way[id(planned)]
            self._ended_at = now
            hiding.ends = now + _LINGERS_S
            bed.say(f"over: {planned}")

    # Redis

    async def _redis(self, planned: Planned) -> None:
        servers = self._bed.servers
        owner = await asyncio.to_thread(servers.owner)
        match planned.kind:
            case "redis_kill":
                await asyncio.to_thread(servers.kill, owner)
                await asyncio.sleep(planned.lasts_s)
                lose = planned.choice < 0.5 and servers.topology == "server"
                await asyncio.to_thread(servers.start, owner, lose_data=lose)
            case "redis_freeze":
                servers.freeze(owner)
                try:
                    await asyncio.sleep(planned.lasts_s)
                finally:
                    servers.thaw(owner)
            case "redis_flushall":
                await asyncio.to_thread(servers.command, "FLUSHALL")
            case "redis_script_flush":
                await asyncio.to_thread(servers.command, "SCRIPT", "FLUSH")
            case "redis_client_kill":
                kind = "normal" if planned.choice < 0.7 else "pubsub"
                await asyncio.to_thread(
                    servers.command, *("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")
                )
            case "redis_client_pause":
                milliseconds = int(planned.lasts_s * 1000)
                mode = "ALL" if planned.choice < 0.5 else "WRITE"
                await asyncio.to_thread(servers.command, "CLIENT", "PAUSE", milliseconds, mode)
                await asyncio.sleep(planned.lasts_s)
            case "redis_failover":
                await asyncio.to_thread(servers.fail_over)
                # It goes on for a second or more, and the old master takes writes until then.
                ends = time.monotonic() + _FAIL_OVER_S
                while time.monotonic() < ends:
                    if await asyncio.to_thread(servers.owner) is not owner:
                        break
                    await asyncio.sleep(_OWNER_EVERY_S)
            case _:
                raise AssertionError(planned.kind)

    # Alpaca

    async def _stream(self, planned: Planned) -> None:
        sim, choice = self._bed.sim, planned.choice
        match planned.kind:
            case "stream_cut":
                await self._cut(choice)
            case "stream_freeze":
                await self._while(planned, half_open=True)
            case "stream_mute":
                await self._while(planned, mute=True)
            case "stream_429":
                await self._cut(choice)
                await self._while(planned, handshake_status=429)
            case "stream_503":
                await self._cut(choice)
                await self._while(planned, handshake_status=503)
            case "stream_406":
                sim.limits.connections = 0
                await self._cut(choice)
                await asyncio.sleep(planned.lasts_s)
                sim.limits.connections = 1
            case "stream_slow":
                await self._while(planned, drip_bytes_per_s=3_000)
            case "stream_damage":
                await self._while(
                    planned, garbage_p=0.2, unknown_type_p=0.2, malformed_p=0.2, text_frame_p=0.2
                )
            case "rest_fails":
                status = (429, 500, 403)[int(choice * 3)]
                await self._while(planned, rest_status=status)
            case _:
                raise AssertionError(planned.kind)

    async def _cut(self, choice: float) -> None:
        """End the sessions in one of the ways in which sessions end."""
        sim = self._bed.sim
        match int(choice * 6):
            case 0:
                await sim.drop_sessions("abort")
            case 1:
                await sim.drop_sessions("eof")
            case 2:
                await sim.cut_slow_clients()
            case number:
                await sim.drop_sessions("close", (1001, 1008, 1011)[number - 3])

    async def _while(self, planned: Planned, **knobs: float) -> None:
        """Turn knobs of the faults for as long as the fault lasts."""
        faults, usual = self._bed.sim.faults, Faults()
        for name, value in knobs.items():
            setattr(faults, name, value)
        try:
            await asyncio.sleep(planned.lasts_s)
        finally:
            for name in knobs:
                setattr(faults, name, getattr(usual, name))

    # Daemons

    async def _daemon(self, planned: Planned) -> None:
        bed = self._bed
        leads = self._leader() or bed.daemons[0]
        wanted, _, deed = planned.kind.partition("_")
        place = next(p for p, d in bed.slots.items() if (d is leads) == (wanted == "leader"))
        daemon = bed.slots[place]
        bed.say(f"{planned.kind} hits {daemon.name}")
        if deed == "freeze":
            daemon.freeze()
            try:
                await asyncio.sleep(planned.lasts_s)
            finally:
                daemon.thaw()
            return
        if deed == "kill":
            await daemon.kill()
        else:
            await self._stop(daemon)
        await asyncio.sleep(planned.lasts_s)
        await bed.start_daemon(place)

    async def _stop(self, daemon: Process) -> None:
        code, took_s = await daemon.stop()
        # Without a line in its log, the interpreter was still starting: nothing was begun.
        unbegun = code == -signal.SIGTERM and not daemon.log_tail()
        if (code != 0 and not unbegun) or took_s > STOP_S:
            self.violations.append(
                Violation(
                    time.monotonic() - self._bed.begun_at,
                    "SIGTERM ends it within 5 s, code 0",
                    daemon.name,
                    f"{'killed' if code is None else f'code {code}'} after {took_s:.2f} s",
                    "the contract, section 7",
                    context=daemon.log_tail(),
                )
            )
