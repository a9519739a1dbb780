"""One soak: rounds of faults under load, the recovery from each round, and what came of it.

After the faults of a round everything must become *whole* again. Then Alpaca sends one last quote
of each symbol and falls silent, and these final values must be everywhere.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis

from spotd.models import utc
from tests.kit.waiting import cancelled
from tests.soak.consumers import Consumer, follow_by_client, follow_by_relay
from tests.soak.contradictions import Violation
from tests.soak.counts import Counts, wrong_counts
from tests.soak.finals import not_final
from tests.soak.load import ALWAYS, Services, Source
from tests.soak.moment import Moment
from tests.soak.observer import Observer
from tests.soak.plan import KINDS, Planned, Topology, rounds
from tests.soak.prices import Prices
from tests.soak.silences import untold
from tests.soak.sizes import YOUNG_S, grown, size_of
from tests.soak.testbed import THROTTLE_S, Testbed

# After the last fault. Pauses between tries grow to 30.5 s where sessions fail in a row; Alpaca
# holds a dead session for 6 s here, and 406 is tried again after 12 s at most.
WHOLE_S = 45.0
NEVER_S = 120.0
FINAL_S = 1.0  # the contract: within 1 s
CONSUMERS_S = 2.0
GAP_S = 3.0  # a gap is told with the next status
_FINALS_TRIES = 3
_FRESH_S = 0.6
_CALM_S = 2.0  # between two rounds
_QUIET_S = 0.6  # after the last quote: throttle window 0.2 s, and all is read every 0.2 s
# Whose silences are gaps. What only comes late is none: a slow, frozen or mute stream that goes on
# before it is noticed, a daemon that froze for less than its term.
_GAPS = ("redis_kill", "redis_freeze", "stream_cut", "stream_406", "stream_429", "stream_503",
         "leader_kill", "leader_stop")  # fmt: skip


@dataclass(slots=True)
class Result:
    """What a soak found."""

    seed: int
    topology: Topology
    seconds: float = 0.0
    rounds: int = 0
    faults: dict[str, int] = field(default_factory=dict)
    violations: list[Violation] = field(default_factory=list)
    recoveries: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    """Kind of fault to the seconds from its end until everything was whole, where it was alone."""
    figures: dict[str, Any] = field(default_factory=dict)
    longest: list[tuple[str, float, float]] = field(default_factory=list)
    """Rule, the longest that was seen, the grace."""
    sizes: dict[str, str] = field(default_factory=dict)


class Soak:
    """A running soak."""

    def __init__(self, bed: Testbed, seed: int, quotes_per_s: float) -> None:
        self.bed = bed
        self.prices = Prices(THROTTLE_S)
        self.observer = Observer(bed, self.prices)
        self.source = Source(bed.sim, self.prices, seed, quotes_per_s)
        self.services = Services(bed.servers, seed)
        violated = self.observer.violated
        self.consumers = [Consumer("SpotClient", violated), Consumer("relay", violated)]
        self._finals_s: list[float] = []
        self._finals_again = 0
        self._counted = 0

    async def run(self, result: Result, ends_at: float, only: tuple[str, ...]) -> None:
        """Run rounds until ``ends_at``, in monotonic seconds, and one at least."""
        async with asyncio.TaskGroup() as loops:
            tasks = [
                loops.create_task(each)
                for each in (
                    self.observer.run(), self.observer.pulse(), self.observer.listen(),
                    self.observer.measure(), self.source.run(), self.services.run(),
                    follow_by_client(self.bed, self.consumers[0]),
                    follow_by_relay(self.bed, self.consumers[1]),
                )
            ]  # fmt: skip
            await self._whole("the start")
            for planned in rounds(result.seed, result.topology, only):
                if result.rounds and time.monotonic() >= ends_at:
                    break
                await self._round(result, planned)
            await cancelled(*tasks)
        self._tell(result)

    async def _round(self, result: Result, planned: list[Planned]) -> None:
        result.rounds += 1
        names = ", ".join(map(str, planned))
        begun_unix_s = time.time()
        self.bed.say(f"round {result.rounds}: {names}")
        await self.observer.injector.round(planned)
        took_s = await self._whole(names)
        if len(planned) == 1 and took_s is not None:
            result.recoveries[planned[0].kind].append(took_s)
            if planned[0].kind in _GAPS:
                await self._told_of_gaps(names, begun_unix_s)
        await self._finals()
        await self._calm()
        self.source.paused = self.services.paused = False

    # Recovery

    async def _whole(self, after: str) -> float | None:
        """Wait until everything is whole. Return the seconds since the last fault."""
        begun, told = time.monotonic(), False
        while lacks := lacking(self.observer.moment, begun):
            waited_s = time.monotonic() - begun
            if waited_s > WHOLE_S and not told:
                self.observer.violated("everything recovers", "all", f"after {after}", lacks)
                told = True
            if waited_s > NEVER_S:
                return None
            await asyncio.sleep(0.05)
        took_s = self.observer.moment.now - begun
        self.bed.say(f"whole after {took_s:.2f} s")
        return took_s

    async def _finals(self) -> None:
        """Let Alpaca fall silent, and check the final values.

        What a master was told just before Sentinel replaced it is lost by Redis' own design, so
        values that a later fail-over meets are checked again. Where one meets each try, since
        Sentinel replaces a master as soon as it has made it one, nothing is known of this round.
        """
        for _ in range(_FINALS_TRIES):
            await asyncio.to_thread(self.bed.servers.owner)
            moves = self.bed.servers.moves
            lacks, stored_s, took_s = await self._send_finals()
            await asyncio.to_thread(self.bed.servers.owner)
            if not lacks or moves == self.bed.servers.moves:
                break
            self._finals_again += 1
            self.bed.say(f"a fail-over met the final values: {'; '.join(lacks[:6])}")
            self.source.paused = self.services.paused = False
            await self._whole("a fail-over of Redis' own")
        else:
            self.source.paused = self.services.paused = True
            self.bed.say("the final values of this round were not checked")
            return
        self._finals_s.append(took_s)
        if lacks or took_s > CONSUMERS_S:
            self.observer.violated("the final values arrive", "all", "; ".join(lacks[:6]), "")
        elif stored_s > FINAL_S + self.observer.slack_s:
            self.observer.violated("final values within 1 s", "all", f"{stored_s:.2f} s", "")

    async def _send_finals(self) -> tuple[list[str], float, float]:
        """Return what lacks the final values in the end, and two durations in seconds.

        After the first, Redis and its channels had them; after the second, consumers too.
        """
        self.services.paused = True
        await asyncio.sleep(0.3)
        self.source.paused = True
        await self.source.send_final()
        begun, moment = time.monotonic(), self.observer.moment
        live = {s for s, state in (moment.redis.states if moment.redis else {}).items()
                if state == "live"} & set(ALWAYS)  # fmt: skip
        lacks: list[str] = []
        stored_s = 0.0
        while time.monotonic() - begun < CONSUMERS_S + self.observer.slack_s:
            lacks = await asyncio.to_thread(self._not_final, live)
            if any("holds" not in lack for lack in lacks):
                stored_s = time.monotonic() - begun
            if not lacks:
                break
            await asyncio.sleep(0.02)
        return lacks, stored_s, time.monotonic() - begun

    async def _calm(self) -> None:
        """Let prices flow for a while between two quiet moments, and compare what was counted."""
        before = await self._quiet()
        self.source.paused = False
        await asyncio.sleep(_CALM_S)
        self.source.paused = True
        after = await self._quiet()
        if before is None or after is None:
            return
        self._counted += before.told == after.told
        for counter, said, true in wrong_counts(before, after):
            self.observer.violated("counters tell what happened", counter, said, true)

    async def _quiet(self) -> Counts | None:
        """Wait until all that was sent is counted. Return what is counted then."""
        quiet_at = time.monotonic() + _QUIET_S + self.observer.slack_s
        while True:
            if self.observer.moment.now > quiet_at:
                return self.observer.counts()
            await asyncio.sleep(0.05)

    async def _told_of_gaps(self, after: str, since_unix_s: float) -> None:
        """Check that each silence since then was told as a gap."""
        silences = [each for each in self.observer.silences if each.begins >= since_unix_s]
        told_by = time.monotonic() + GAP_S
        while missing := untold(silences, self.observer.gaps.values()):
            if time.monotonic() > told_by:
                said = [f"{g['from']} to {g['to']}" for g in [*self.observer.gaps.values()][-2:]]
                true = [f"{utc(begins)} to {utc(ends)}" for begins, ends in missing]
                self.observer.violated("silences are told as gaps", after, f"{said}", f"{true}")
                return
            await asyncio.sleep(0.1)

    def _not_final(self, live: set[str]) -> list[str]:
        """Return what lacks the final value of which symbol. Blocks for some milliseconds."""
        owner, keys = self.bed.servers.owner(), self.bed.servers.keys
        try:
            with owner.client(socket_timeout=0.5) as client:
                stored: dict[str, str] = client.hgetall(keys.last)
        except (redis.RedisError, OSError) as error:
            return [f"Redis cannot be read: {error}"]
        told = {consumer.name: consumer.newest for consumer in self.consumers}
        finals = {symbol: self.prices.newest(symbol) for symbol in live}
        return not_final(finals, self.source.last_sales, stored, told)

    # The end

    def _tell(self, result: Result) -> None:
        bed, observer, prices = self.bed, self.observer, self.prices
        result.seconds = time.monotonic() - bed.begun_at
        result.faults = dict(observer.injector.counts)
        for process in (*bed.ended, *bed.daemons, bed.relay):
            for problem in grown(process.started_at, process.sizes):
                observer.violated(
                    "memory, descriptors and tasks are bounded", process.name, *problem
                )
            if process.sizes and process.sizes[-1].at - process.sizes[0].at > YOUNG_S / 2:
                result.sizes[process.name] = size_of(process.sizes)
        result.violations = observer.violations
        longest = observer.contradictions.longest_s
        result.longest = [
            (rule.name, longest.get(rule.name, 0.0), rule.grace_s) for rule in observer.rules.all()
        ]
        result.figures = {
            "quotes sent": prices.quotes,
            "updates on channels": prices.updates,
            "updates told by SpotClient": self.consumers[0].updates,
            "updates told by the relay": self.consumers[1].updates,
            "changes of the demand": self.services.changes,
            "readings": observer.reads,
            "share of the time in which a process waited for the CPU, %": round(
                100 * observer.waited_s / result.seconds
            ),
            "406 answered": bed.sim.stats.refused[406],
            "sessions opened": bed.sim.stats.connections,
            "longest without any price, s": round(
                max((ends - begins for begins, ends in observer.silences), default=0.0), 2
            ),
            "gaps told": len(observer.gaps),
            "calm times in which counters were compared": self._counted,
            "final values sent again, since a fail-over met them": self._finals_again,
            "closest updates of a symbol by seq, ms": round(prices.closest_s * 1000, 1),
            "most updates of a symbol within 1 s": prices.most_in_1_s,
            "final values after at most, s": round(max(self._finals_s, default=0.0), 2),
        }


def lacking(moment: Moment, since: float) -> str:
    """Return what is not whole, empty if nothing is; ``since``: the moment must be later."""
    redis, holder = moment.redis, moment.holder
    if moment.now <= since or redis is None or holder is None or holder.said is None:
        return "a leader"
    lacks = []
    if holder.said.state != "streaming":
        lacks.append(f"{holder.name} is {holder.said.state} ({holder.said.code})")
    lacks += [
        f"{daemon.name} is not ready: {daemon.said and daemon.said.reasons}"
        for daemon in moment.daemons
        if daemon.said is None or not daemon.said.ready
    ]
    if not moment.relay_ready:
        lacks.append("the relay is not ready")
    wrong = [s for s in ALWAYS if redis.states.get(s) != "live"]
    if wrong:
        lacks.append(f"not live: {wrong}")
    old = [s for s in ALWAYS if moment.now - moment.behind.get(s, moment.now) > _FRESH_S]
    if old:
        lacks.append(f"old: {old}")
    return "; ".join(lacks)


async def soak(
    home: Path,
    *,
    seconds: float,
    seed: int,
    topology: Topology = "server",
    quotes_per_s: float = 250.0,
    ttl_s: float = 5.0,
    only: tuple[str, ...] = (),
) -> Result:
    """Run a soak for this number of seconds. A round that has begun is finished."""
    unknown = set(only) - KINDS.keys()
    if unknown:
        raise ValueError(f"no such fault: {sorted(unknown)}")
    result = Result(seed, topology)
    async with Testbed(home, topology, ttl_s) as bed:
        await Soak(bed, seed, quotes_per_s).run(result, time.monotonic() + seconds, only)
    return result
