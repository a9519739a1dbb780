"""How much of a core the page at ``/`` takes in headless Chromium, all its processes together.

    python -m tests.bench.page [--rows 60] [--rate 5] [--seconds 20] [--warm-up 8]

CPU time is the scheduler's count, of every process of this browser. The relay is
``tests/relay/fake_relay.py``, in this process, whose time is not counted. Each symbol changes
``--rate`` times a second; what changes within 40 ms comes in one message, as from the real relay.
Needs Debian's chromium and the package playwright.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import random
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from playwright.async_api import async_playwright

from tests.bench.setup import cpu_ns
from tests.kit.browser import ARGUMENTS, CHROMIUM
from tests.relay.fake_relay import FakeRelay

_TICK_S = 0.04
_STATUS_EVERY_S = 5.0
TARGET = 45.0  # percent of one core
# Counts what changes in the cells of prices: a page that draws nothing is cheap.
_COUNT_DRAWN = """() => {
    window.drawn = 0;
    const observer = new MutationObserver((changes) => { window.drawn += changes.length; });
    for (const cell of document.querySelectorAll("td.price"))
        observer.observe(cell, {characterData: true, subtree: true});
    return 0;
}"""


def browser_processes(profile: str) -> set[int]:
    """Return the process ids of the browser with this profile, and of all its descendants."""
    parents: dict[int, int] = {}
    found: set[int] = set()
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with suppress(OSError):
                # The name in the second field may hold spaces and brackets.
                stat = (folder / "stat").read_text().rpartition(")")[2].split()
                parents[int(folder.name)] = int(stat[1])
                if profile in (folder / "cmdline").read_text():
                    found.add(int(folder.name))
    while True:
        more = {pid for pid, parent in parents.items() if parent in found} - found
        if not more:
            return found
        found |= more


def browser_cpu_ns(profile: str) -> int:
    """Return the CPU time of the browser with this profile so far."""
    total = 0
    for pid in browser_processes(profile):
        with suppress(OSError):  # it has just ended
            total += cpu_ns(pid)
    return total


async def feed(relay: FakeRelay, symbols: list[str], rate: float) -> None:
    """Tell prices until cancelled: each symbol ``rate`` times a second, spread over the time."""
    chance = random.Random(7)
    mids = {symbol: chance.uniform(20, 600) for symbol in symbols}
    due = itertools.cycle(symbols)
    start, told, status_at = time.monotonic(), 0, 0.0
    while True:
        now = time.monotonic()
        if now >= status_at:
            status_at = now + _STATUS_EVERY_S
            await relay.tell_status()
        wanted = int((now - start) * rate * len(symbols))
        quotes = {}
        for _ in range(min(wanted - told, len(symbols))):
            symbol = next(due)
            mids[symbol] *= 1 + chance.gauss(0, 0.0002)
            quotes[symbol] = (round(mids[symbol] - 0.01, 2), round(mids[symbol] + 0.01, 2))
        told = wanted
        await relay.prices(quotes)
        await asyncio.sleep(_TICK_S)


async def measure(rows: int, rate: float, seconds: float, warm_up: float) -> tuple[float, float]:
    """Return the percentage of one core, and how often a second each price was drawn."""
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    symbols = [f"{a}{b}X" for a in letters[:3] for b in letters][:rows]
    relay = FakeRelay()
    await relay.start()
    for symbol in symbols:
        await relay.state(symbol, "live")
    with tempfile.TemporaryDirectory() as profile:
        async with async_playwright() as playwright:
            browser = await playwright.chromium.launch_persistent_context(
                profile,
                executable_path=CHROMIUM,
                args=ARGUMENTS,
                viewport={"width": 1280, "height": 2400},  # all rows are seen
            )
            page = browser.pages[0]
            await page.goto(f"{relay.url}?symbols={','.join(symbols)}")
            feeding = asyncio.create_task(feed(relay, symbols, rate), name="feed")
            await asyncio.sleep(warm_up)
            drawn_before = await page.evaluate(_COUNT_DRAWN)
            before, start = browser_cpu_ns(profile), time.monotonic()
            await asyncio.sleep(seconds)
            used_ns, passed_s = browser_cpu_ns(profile) - before, time.monotonic() - start
            drawn = await page.evaluate("window.drawn") - drawn_before
            feeding.cancel()
            await browser.close()
    await relay.stop()
    return used_ns / passed_s / 1e7, drawn / passed_s / rows


def main() -> None:
    """Measure, and print one line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, default=60)
    parser.add_argument("--rate", type=float, default=5.0)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--warm-up", type=float, default=8.0)
    asked = parser.parse_args()
    percent, drawn = asyncio.run(measure(asked.rows, asked.rate, asked.seconds, asked.warm_up))
    print(
        f"page: {asked.rows} rows at {asked.rate:g} updates/s: {percent:.0f} % of a core "
        f"(target: under {TARGET:g} %), each price drawn {drawn:.1f} times a second"
    )


if __name__ == "__main__":
    main()
