"""A consuming program, as small as can be: it takes updates until one of the symbol END comes.

    python -m tests.bench.consumer async|sync URL SYMBOLS

Then it prints how many it took, and how many were replaced by newer ones before.
"""

from __future__ import annotations

import asyncio
import sys

from spotd.client import Spot, SpotClient

END = "END"


async def consume(url: str, symbols: list[str]) -> None:
    """Take updates on an event loop."""
    taken = 0
    async with SpotClient(url, warn_after_s=1e6) as spot, spot.updates(*symbols, END) as updates:
        async for update in updates:
            taken += 1
            if update.symbol == END:
                break
        print(taken, updates.skipped)


def consume_without_await(url: str, symbols: list[str]) -> None:
    """Take updates in a thread."""
    taken = 0
    with Spot(url, warn_after_s=1e6) as spot, spot.updates(*symbols, END) as updates:
        for update in updates:
            taken += 1
            if update.symbol == END:
                break
        print(taken, updates.skipped)


if __name__ == "__main__":
    _, kind, address, names = sys.argv
    if kind == "async":
        asyncio.run(consume(address, names.split(",")))
    else:
        consume_without_await(address, names.split(","))
