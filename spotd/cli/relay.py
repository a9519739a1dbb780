"""``spotd relay``: reads the settings and runs the web tier. Talks to nothing itself."""

from __future__ import annotations

import asyncio

import click

from spotd.ops.stop_signals import stop_on_signals


@click.command()
def relay() -> None:
    """Serve prices to browsers until SIGTERM or SIGINT: websocket, events, HTTP and a page.

    Reads SPOTD_RELAY_HOST, SPOTD_RELAY_PORT, SPOTD_RELAY_TOKEN and the other SPOTD_RELAY_*
    settings, and SPOTD_REDIS_URL. It needs no Alpaca keys.
    """
    from spotd.relay.settings import RelaySettings  # noqa: PLC0415 - `--help` needs none of this

    settings = RelaySettings.load()

    from spotd.ops.hang import ended_when_hung  # noqa: PLC0415 - as below
    from spotd.relay.server import (  # noqa: PLC0415 - wrong settings are told before
        configure_logs,
        run_relay,
    )

    configure_logs(settings)

    async def serve() -> None:
        stop_asked = asyncio.Event()
        stop_on_signals(asyncio.get_running_loop(), stop_asked.set)
        async with ended_when_hung():
            await run_relay(settings, stop_asked)

    asyncio.run(serve())
