"""Every panel of the dashboard shows something while a daemon and a relay run."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from spotd.simulator import MarketModel
from tests.e2e.setup import Setup
from tests.kit.processes import Command
from tests.kit.prometheus import Prometheus

DASHBOARD = Path(__file__).resolve().parents[2] / "deploy" / "grafana" / "spotd.json"
_VARIABLES = {"$job": ".*", "$relay": ".*", "$__rate_interval": "20s"}


def panels() -> Iterator[dict[str, Any]]:
    """Yield every panel that shows data."""
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        if panel["type"] != "row":
            yield panel


def expressions() -> list[tuple[str, str]]:
    """Return the expressions of all panels, each with the panel's title."""
    found = []
    for panel in panels():
        for target in panel["targets"]:
            expression = target["expr"]
            for name, value in _VARIABLES.items():
                expression = expression.replace(name, value)
            found.append((panel["title"], expression))
    return found


@asynccontextmanager
async def relay_of(setup: Setup) -> AsyncIterator[Command]:
    """Run a relay with one client that reads, one that was refused, and one that was closed."""
    relay = await setup.relay()
    await relay.get("/nowhere")

    async def read(socket: aiohttp.ClientWebSocketResponse) -> None:
        async for _ in socket:
            pass

    url = f"ws://127.0.0.1:{relay.http_port}/ws"
    async with aiohttp.ClientSession() as session, session.ws_connect(url) as socket:
        async with session.ws_connect(url) as too_large:
            await too_large.send_str("x" * 1_000_000)
            await read(too_large)
        await socket.send_json({"action": "subscribe", "symbols": ["SPY"]})
        reading = asyncio.create_task(read(socket))
        yield relay
        reading.cancel()
        with suppress(asyncio.CancelledError):
            await reading


@pytest.mark.long  # `.ci/run` has a step for it
async def test_every_panel_shows_something(tmp_path: Path) -> None:
    """Each expression of each panel has a result, in a Prometheus that scrapes both."""
    market = MarketModel(quotes_per_s=100.0)
    async with Setup(tmp_path, market=market) as setup:
        daemon = await setup.daemon()
        await setup.streaming("SPY")
        await setup.sim.drop_sessions()  # a lost stream has its panel, too
        await setup.until(lambda: setup.values.live("SPY"), "live again")
        jobs = {"spotd": [daemon.http_port]}
        async with relay_of(setup) as relay:
            jobs["spotd-relay"] = [relay.http_port]
            async with Prometheus(tmp_path / "prometheus", jobs) as prometheus:
                for title, expression in expressions():

                    async def shows(expression: str = expression) -> bool:
                        return bool(await prometheus.query(expression))

                    await setup.until(shows, f"{title}: {expression}")


def test_panels_are_apart() -> None:
    """No two panels lie over each other or have one number."""
    taken: set[tuple[int, int]] = set()
    for panel in panels():
        place = panel["gridPos"]
        cells = {
            (place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])
        }
        assert place["x"] + place["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells
    numbers = [panel["id"] for panel in json.loads(DASHBOARD.read_text())["panels"]]
    assert len(set(numbers)) == len(numbers)
