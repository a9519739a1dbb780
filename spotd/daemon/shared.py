"""What the loops of one daemon share: the parts of core, and the bells they wake each other by.

Each field names beside it who writes it; all run in one event loop, so no lock is needed.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field

from spotd.core.breaker import Breaker
from spotd.core.conflate import Conflator
from spotd.core.demand import Demand
from spotd.core.leadership import Lease
from spotd.core.market import Market
from spotd.core.states import Facts
from spotd.core.subscriptions import Subscriptions
from spotd.ops.metrics import Metrics
from spotd.settings import Settings


class Bell:
    """Wakes one waiter; rung while nobody waits, it wakes the next one at once."""

    def __init__(self) -> None:
        self.rung = False
        self._event = asyncio.Event()

    def ring(self) -> None:
        """Wake the waiter."""
        self.rung = True
        self._event.set()

    async def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until rung, at most ``timeout_s``. Gives whether it was rung."""
        if not self.rung:
            try:
                async with asyncio.timeout(timeout_s):
                    await self._event.wait()
            except TimeoutError:
                return False
        self.rung = False
        self._event.clear()
        return True


@dataclass(slots=True)
class Bells:
    """Who is to look again."""

    leader: Bell = field(default_factory=Bell)
    demand: Bell = field(default_factory=Bell)
    stream: Bell = field(default_factory=Bell)
    prime: Bell = field(default_factory=Bell)
    publish: Bell = field(default_factory=Bell)
    report: Bell = field(default_factory=Bell)


class Shared:
    """The state of one daemon."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.bells = Bells()
        self.metrics = Metrics()
        self.facts = Facts()
        self.lease = Lease(settings.leader_ttl_s)  # leader
        self.token = ""  # leader: of the current term
        self.term = 0  # leader: rises whenever we become the leader
        self.rewrite = 0  # leader: rises when Redis may have lost what we wrote
        self.demand = Demand()  # demand
        self.demand_read_in_term = 0  # demand: the term in which it was last read
        self.conflator = Conflator(settings.throttle_s)
        self.market = Market(self.conflator)
        self.subscriptions = Subscriptions(  # stream
            trades=settings.trades, max_symbols=settings.max_symbols
        )
        self.breaker = Breaker(  # stream
            failures=settings.breaker_failures, recovery_s=settings.breaker_recovery_s
        )
        self.to_prime: set[str] = set()  # stream and demand add, prime takes
        # Demand and report add, demand takes back what came again, publish takes; leader clears.
        self.to_drop: set[str] = set()
        self.seq = 0  # publish; leader raises it to what Redis knows
        self.data_at = time.monotonic()  # intake, stream, watch: of the latest data
        self.last_message_unix_s: float | None = None  # intake
        self.malformed: Counter[str] = Counter()  # the stream's decoder
        self.lag_s: float | None = None  # intake

    def leads(self) -> bool:
        """Whether we may connect and publish at this moment."""
        return self.lease.holds(time.monotonic())

    def redis_failed(self, why: str) -> bool:
        """Count a failed call. Gives whether it is the first of a row, to be logged."""
        self.metrics.redis_errors += 1
        first = self.facts.redis_error is None
        self.facts.redis_error = why
        if first:
            self.bells.report.ring()
        return first
