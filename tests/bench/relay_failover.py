"""How long clients are away when one of two relays is killed.

``python -m tests.bench.relay_failover`` prints a table, one row per round.

nginx with the configuration that spotd ships stands before both. The clients are connections of
spotd.js in one Node.js process. A client is back when all its symbols are live again, which
spotd.js says once the other relay has told each of them.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from pathlib import Path
from statistics import median, quantiles
from typing import NamedTuple

from tests.bench.relay import ask, end, relay, start
from tests.bench.relay_clients import symbols
from tests.kit.nginx import NGINX, Nginx
from tests.kit.servers import Server
from tests.kit.spot_clients import SpotClients, node_command
from tests.kit.waiting import until

TARGET_S = 3.0
_STEADY_S = 6.0  # spotd.js counts a connection as good after 5 s
_ARRIVE_S = 1.0  # what is on its way arrives


class Round(NamedTuple):
    """What one kill did. ``away_s`` has the seconds of each client that lost its connection."""

    away_s: list[float]
    tries: int  # of all clients together that failed after the kill
    values: int  # that the clients hold at the end, each client's of its own
    values_behind: int  # of these, older than the newest that was published


async def measure(args: argparse.Namespace) -> Round:
    """Run everything anew, kill one relay, and return what the clients noticed."""
    names = symbols(args.symbols)
    with tempfile.TemporaryDirectory() as home, Server(Path(home) / "server") as server:
        publisher = await start(
            *("-m", "tests.bench.relay_publisher", "--redis", server.url),
            *("--symbols", str(args.symbols), "--per-s", str(args.per_s)),
            core=None,
        )
        try:
            async with (
                relay(server.url, None) as (killed, killed_port),
                relay(server.url, None) as (_, left_port),
            ):
                with Nginx(Path(home) / "nginx", (killed_port, left_port)) as nginx:
                    async with SpotClients.running(
                        nginx.url, args.clients, names, args.each
                    ) as clients:
                        await until(lambda: all(clients.live()), "all clients are live")
                        await asyncio.sleep(_STEADY_S)
                        killed_at_s = time.monotonic()
                        killed.kill()
                        await killed.wait()
                        await asyncio.sleep(_STEADY_S)
                        await until(lambda: all(clients.live()), "all clients are live again")
                        newest = await ask(publisher, "")
                        await asyncio.sleep(_ARRIVE_S)
                        return await _judged(clients, killed_at_s, newest)
        finally:
            await end(publisher)


async def _judged(clients: SpotClients, killed_at_s: float, newest: dict[str, int]) -> Round:
    codes = clients.codes(killed_at_s)
    away_s = [
        next(c.at_s for c in reversed(changes) if c.state is None and c.live) - killed_at_s
        for changes, lost in zip(clients.changes, codes, strict=True)
        if lost
    ]
    held = [
        seq == newest[symbol]
        for prices in await clients.prices()
        for symbol, (seq, _) in prices.items()
    ]
    return Round(
        away_s=away_s,
        tries=sum(max(0, len(lost) - 1) for lost in codes),
        values=len(held),
        values_behind=held.count(False),
    )


async def run(args: argparse.Namespace) -> None:
    """Measure all rounds and print them."""
    print(
        f"{args.clients} clients with {args.each} of {args.symbols} symbols each, "
        f"{args.per_s:g} updates/s per symbol; target: back within {TARGET_S:g} s\n"
    )
    print("| round | lost | back: median | p95 | last | failed tries | values | behind |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for number in range(1, args.rounds + 1):
        found = await measure(args)
        away_s = sorted(found.away_s)
        p95_s = quantiles(away_s, n=20)[-1]
        print(
            f"| {number} | {len(away_s)} | {median(away_s):.2f} s | {p95_s:.2f} s "
            f"| {away_s[-1]:.2f} s | {found.tries} | {found.values} | {found.values_behind} |",
            flush=True,
        )


def main() -> None:
    """Parse arguments and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--symbols", type=int, default=500)
    parser.add_argument("--each", type=int, default=10)
    parser.add_argument("--per-s", type=float, default=5.0)
    args = parser.parse_args()
    if NGINX is None or node_command() is None:
        parser.error("needs nginx, and Node.js 20 or newer (apt-get install nginx nodejs)")
    asyncio.run(run(args))


if __name__ == "__main__":
    main()
