"""DRIVES. A relay for as long as an application of another framework runs. Must not know which."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import TypeAlias

from spotd.client import SpotClient
from spotd.relay.answers import Answers
from spotd.relay.exit_signals import told_of_exit
from spotd.relay.limits import GOODBYE_S
from spotd.relay.refused import RefusedError
from spotd.relay.relay import Relay
from spotd.relay.wiring import serve_until

log = logging.getLogger("spotd.relay")

Wired: TypeAlias = AbstractAsyncContextManager[tuple[Relay, SpotClient]]


@dataclass(frozen=True)
class Running:
    """What there is while the application runs."""

    relay: Relay
    answers: Answers


class Lifespan:
    """The relay of one application.

    ``wire`` makes it (``wiring.wired``). ``hide_tokens`` is entered while the application runs.
    """

    def __init__(
        self, wire: Callable[[], Wired], hide_tokens: Callable[[], AbstractContextManager[None]]
    ) -> None:
        self._wire = wire
        self._hide_tokens = hide_tokens
        self._running: Running | None = None

    @property
    def running(self) -> Running:
        """What there is while the application runs. Raises RefusedError outside of that."""
        if self._running is None:
            raise RefusedError(503, "the application does not run, or it runs no lifespan")
        return self._running

    @asynccontextmanager
    async def serve(self, _: object) -> AsyncIterator[None]:
        """Serve clients. At the end say goodbye to them, and remove the demand."""
        if self._running is not None:
            raise RuntimeError("this router serves already: call spot_prices() for each inclusion")
        stop_asked = asyncio.Event()
        async with self._wire() as (relay, spot):
            self._running = Running(relay, Answers(relay, spot))
            serving = asyncio.create_task(_serve(relay, stop_asked), name="relay-serving")
            serving.add_done_callback(_log_defect)
            try:
                with told_of_exit(stop_asked.set), self._hide_tokens():
                    yield
            finally:
                stop_asked.set()
                await asyncio.wait((serving,))
                self._running = None


async def _serve(relay: Relay, stop_asked: asyncio.Event) -> None:
    try:
        await serve_until(stop_asked, relay=relay.run())
    finally:
        # Also after a defect: clients that stayed would never get another price.
        await relay.stop(GOODBYE_S)


def _log_defect(serving: asyncio.Task[None]) -> None:
    if not serving.cancelled() and (defect := serving.exception()) is not None:
        log.error("a defect ended the relay: no prices until a restart", exc_info=defect)
