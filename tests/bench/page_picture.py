"""Make the picture of the page that the README shows.

    python -m tests.bench.page_picture docs/page.png

The prices are made up. It takes a minute, since the page draws the last minute of each symbol.
Needs Debian's chromium and fonts-inter, and the package playwright.
"""

from __future__ import annotations

import asyncio
import random
import sys
import time
from pathlib import Path

from spotd.models import rfc3339, utc
from tests.kit.browser import chromium
from tests.relay.fake_relay import FakeRelay

_MIDS = {
    "SPY": 602.31,
    "QQQ": 518.77,
    "AAPL": 243.12,
    "MSFT": 431.55,
    "NVDA": 138.42,
    "AMZN": 226.9,
    "META": 611.2,
    "TSLA": 402.88,
    "GOOGL": 196.3,
    "BRK.B": 459.1,
    "JPM": 243.7,
}
_DRIFTS = {"SPY": 0.00004, "NVDA": 0.00006, "AAPL": -0.00005}
_SIZE = {"width": 1180, "height": 672}
_STEPS, _STEP_S, _STATUS_EVERY = 260, 0.25, 8


async def picture() -> bytes:
    """Let the page run, and return what it shows, as PNG."""
    chance = random.Random(4)
    mids = dict(_MIDS)
    relay = FakeRelay()
    await relay.start()

    async def walk(steps: int) -> None:
        for step in range(steps):
            if step % _STATUS_EVERY == 0:
                await relay.tell_status()
            moved = [symbol for symbol in mids if chance.random() < 0.6]
            for symbol in moved:
                mids[symbol] *= 1 + chance.gauss(_DRIFTS.get(symbol, 0), 0.00018)
            await relay.prices(
                {s: (round(mids[s] - 0.01, 2), round(mids[s] + 0.02, 2)) for s in moved}
            )
            await asyncio.sleep(_STEP_S)

    async with chromium() as browser:
        context = await browser.new_context(viewport=_SIZE, device_scale_factor=1.25)  # type: ignore[arg-type]
        page = await context.new_page()
        for symbol in mids:
            await relay.state(symbol, "live")
        await page.goto(f"{relay.url}?symbols={','.join([*mids, 'XOM'])}")
        await page.get_by_text("Connected").wait_for()
        detail = "The plan allows 30 symbols"
        await relay.state("XOM", "refused", reason="symbol_limit", detail=detail)
        await walk(_STEPS - 60)
        since = rfc3339(utc(time.time() - 1))
        await relay.state("TSLA", "halted", reason="volatility pause", since=since)
        del mids["TSLA"]
        await walk(50)
        await relay.state("META", "stale", code="lagging", reason="prices arrive 12 s late")
        del mids["META"]
        await walk(14)
        shot = await page.screenshot()
    await relay.stop()
    return shot


if __name__ == "__main__":
    Path(sys.argv[1]).write_bytes(asyncio.run(picture()))
