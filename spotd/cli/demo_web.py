"""The web tier of ``spotd demo --web``, in the demo's own process.

Talks to nobody itself: it starts the relay with the demo's settings, and stops it in order.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from spotd.errors import SettingsError
from spotd.relay.server import run_relay
from spotd.relay.settings import RelaySettings


@asynccontextmanager
async def web_tier(redis_url: str, ended: Callable[[], None]) -> AsyncIterator[str]:
    """Run a relay, and yield its address. It stops behind the block.

    It takes its default port, or a free one if another program has that. ``ended`` is called when
    it ends, also when it ends by itself. Raises SpotdError where it does not start, and behind the
    block what ended it.
    """
    stop_asked = asyncio.Event()
    try:
        address, running = await _started(_settings(redis_url), stop_asked)
    except SettingsError:  # the port is taken
        address, running = await _started(_settings(redis_url, relay_port=0), stop_asked)
    running.add_done_callback(lambda _: ended())
    try:
        yield address
    finally:
        stop_asked.set()
        await running


async def _started(
    settings: RelaySettings, stop_asked: asyncio.Event
) -> tuple[str, asyncio.Task[None]]:
    """Start a relay. Return its address and its task. Raises what keeps it from starting."""
    address: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    relay = run_relay(settings, stop_asked, address.set_result, simulated=True)
    running = asyncio.create_task(relay, name="relay")
    await asyncio.wait((running, address), return_when=asyncio.FIRST_COMPLETED)
    if not address.done():
        await running
    return address.result(), running


def _settings(redis_url: str, **own: object) -> RelaySettings:
    """Return the default settings. The environment is not read: it is meant for a real relay."""
    defaults = {name: field.default for name, field in RelaySettings.model_fields.items()}
    given: dict[str, Any] = defaults | {"redis_url": redis_url} | own
    return RelaySettings(**given, _env_file=None)  # type: ignore[call-arg]
