"""A stream loop at work against a simulator, and what its tests have in common.

Real sockets, our own parts unchanged. Whoever waits here waits for a condition, at most
``PATIENCE_S``.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Any, Self

from spotd.daemon.intake import Intake
from spotd.daemon.shared import Shared

from spotd.alpaca.handshake import Timeouts
from spotd.alpaca.stream import AlpacaStream
from spotd.core.leadership import MARGIN_SHARE
from spotd.daemon.stream import Pace, StreamLoop
from spotd.simulator import Simulator
from tests.kit import waiting
from tests.kit.stream import IMPATIENT, settings_for, sockets_to, stream_to
from tests.kit.websocket import answering, websocket_server
from tests.kit.websocket import tcp_server as peer

__all__ = [
    "BRISK",
    "IMPATIENT",
    "Bench",
    "answering",
    "peer",
    "settings_for",
    "sockets_to",
    "stream_to",
    "until",
    "websocket_server",
]

PATIENCE_S = 10.0
# No pause between tries that a test would have to sit out.
BRISK = Pace(
    first_s=0.01, most_s=0.05, jitter_s=0.01, connection_limit_s=0.1, rate_limit_s=0.1, steady_s=60
)


async def until(condition: Callable[[], object], what: str = "") -> None:
    """Wait until ``condition()`` is true."""
    await waiting.until(condition, what or "a condition")


class Bench:
    """A stream loop at work against a simulator, with a lease that the test grants and takes."""

    def __init__(
        self,
        sim: Simulator,
        *,
        pace: Pace = BRISK,
        timeouts: Timeouts | None = None,
        intake: type[Intake] = Intake,
        **settings: Any,
    ) -> None:
        self.sim = sim
        self.settings = settings_for(sim, **settings)
        self.shared = Shared(self.settings)
        self.intake = intake(self.shared)
        key, secret = self.settings.credentials()
        self.stream = AlpacaStream(
            endpoint=self.settings.stream_endpoint,
            api_key=key,
            secret_key=secret,
            on_data=self.intake,
            timeouts=timeouts,
        )
        self.loop = StreamLoop(self.shared, self.stream, pace)
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self.lead()
        self._task = asyncio.create_task(self.loop.run(), name="stream")
        return self

    async def __aexit__(self, *_: object) -> None:
        self.running.cancel()
        await asyncio.wait((self.running,))

    @property
    def running(self) -> asyncio.Task[None]:
        """The loop at work."""
        assert self._task is not None
        return self._task

    # The lease

    def lead(self, for_s: float = 3600.0) -> None:
        """Be the leader for so long."""
        lease = self.shared.lease
        lease.refused()
        lease.granted(time.monotonic() + for_s - lease.ttl_s * (1 - MARGIN_SHARE))
        self.shared.bells.stream.ring()

    def step_down(self) -> None:
        """Lead no more."""
        self.shared.lease.refused()

    # The demand

    def want(self, *symbols: str) -> None:
        """Have these symbols desired, and no others."""
        desired = frozenset(symbols)
        self.shared.market.keep(desired)
        self.shared.subscriptions.want(desired)
        self.shared.facts.desired = len(desired)
        self.shared.bells.stream.ring()

    async def settled(self, *symbols: str) -> None:
        """Wait until exactly these symbols are active and nothing is left to ask for."""
        subs = self.shared.subscriptions
        wanted = frozenset(symbols)
        await until(
            lambda: subs.active == wanted and subs.awaiting is None and self.asked_statuses(),
            f"active: {sorted(subs.active)[:20]}",
        )

    def asked_statuses(self) -> bool:
        """Whether statuses were asked for on this connection, which comes last."""
        return not self.shared.subscriptions.active or any(
            "statuses" in one for one in self.sim.received.messages("subscribe")
        )

    # What came of it

    @property
    def requests(self) -> list[dict[str, Any]]:
        """Every subscribe and unsubscribe the simulator got, without those for statuses."""
        return [
            one
            for one in self.sim.received.messages()
            if one.get("action") in ("subscribe", "unsubscribe") and "statuses" not in one
        ]

    @property
    def tries(self) -> int:
        """How often the simulator was called upon."""
        return self.sim.stats.connections

    async def failed(self) -> BaseException:
        """Wait until the loop ends by itself; what it ends with."""
        await asyncio.wait((self.running,), timeout=PATIENCE_S)
        failure = self.running.exception()
        assert failure is not None
        return failure
