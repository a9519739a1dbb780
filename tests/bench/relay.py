"""Load on one relay: ``python -m tests.bench.relay``. Prints a table, one row per scenario.

The relay has one core for itself; Redis, the publisher and the clients have the others. Latency is
publication to receipt in the client: Redis, the relay, the kernel, and the client's own loop.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import json
import os
import sys
import tempfile
import time
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.bench.orders import ROOT
from tests.bench.relay_clients import symbols
from tests.bench.setup import cpu_ns, rss_mb
from tests.kit.ports import free_port
from tests.kit.processes import environment
from tests.kit.servers import Server

# On a machine that others use too: `BENCH_FIRST="chrt -r 1"` gives the measured programs the CPU
# whenever they want it. As root.
FIRST = os.environ.get("BENCH_FIRST", "").split()
_LIMIT_S = 120.0
_WARM_UP_S = 4.0
_FILL_S = 20.0  # until the kernel's buffers of clients that never read are full
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


async def start(*args: str, core: int | None, env: dict[str, str] | None = None) -> Process:
    """Start a Python program on one core, or on any."""
    pinned = () if core is None else ("taskset", "-c", str(core))
    settings = environment(PYTHONPATH=str(ROOT), **(env or {}))
    return await asyncio.create_subprocess_exec(
        *(*FIRST, *pinned, sys.executable, *args),
        stdin=PIPE,
        stdout=PIPE,
        env=settings,
    )


async def ask(process: Process, line: str) -> dict[str, Any]:
    """Send a command and return the answer."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{line}\n".encode())
    async with asyncio.timeout(_LIMIT_S):
        raw = await process.stdout.readline()
    return dict(json.loads(raw))


async def end(process: Process) -> None:
    """End a process that we started."""
    if process.returncode is None:
        process.terminate()
    await process.wait()


def command_of(edge: str, port: int) -> tuple[str, ...]:
    """Return the arguments of Python that serve the web tier: the command, or FastAPI's router."""
    if edge == "aiohttp":
        return ("-m", "spotd", "relay")
    return (
        *("-m", "uvicorn", "tests.bench.fastapi_app:app", "--port", str(port)),
        *("--log-level", "warning", "--ws-per-message-deflate", "false"),
    )


@asynccontextmanager
async def relay(
    url: str, core: int | None, edge: str = "aiohttp"
) -> AsyncIterator[tuple[Process, int]]:
    """Run a relay on a core of its own. Yield its process and port."""
    port = free_port()
    env = {"SPOTD_REDIS_URL": url, "SPOTD_RELAY_PORT": str(port)}
    process = await start(*command_of(edge, port), core=core, env=env)
    try:
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.05)
            else:
                writer.close()
                break
        yield process, port
    finally:
        await end(process)


def sockets_mb() -> float:
    """Return the kernel's memory for all TCP buffers of this machine, both ends."""
    for line in Path("/proc/net/sockstat").read_text().splitlines():
        if line.startswith("TCP:"):
            return int(line.split()[-1]) * _PAGE_BYTES / 1e6
    return 0.0


def share_of_core(pid: int) -> Callable[[], float]:
    """From now on: how much of a core a process uses, when asked."""
    cpu, begun = cpu_ns(pid), time.monotonic_ns()
    return lambda: (cpu_ns(pid) - cpu) / (time.monotonic_ns() - begun)


async def load(
    args: argparse.Namespace, clients: int, *, stalled: int = 0, batch: bool
) -> dict[str, Any]:
    """Measure one scenario."""
    with tempfile.TemporaryDirectory() as home, Server(Path(home)) as server:
        async with relay(server.url, args.relay_core, args.edge) as (process, port):
            os.sched_setaffinity(server.pid, {args.other_core})
            if FIRST:
                os.sched_setscheduler(server.pid, os.SCHED_RR, os.sched_param(1))
            publisher = await start(
                "-m", "tests.bench.relay_publisher", "--redis", server.url, core=args.other_core
            )
            many = await start(
                *("-m", "tests.bench.relay_clients", "--url", f"ws://127.0.0.1:{port}/ws"),
                *("--clients", str(clients), "--stalled", str(stalled)),
                *(["--batch"] if batch else []),
                core=args.other_core,
            )
            try:
                connected = await ask(many, "connect")
                await asyncio.sleep(_FILL_S if stalled else _WARM_UP_S)
                await ask(many, "reset")
                share = share_of_core(process.pid)
                await asyncio.sleep(args.seconds)
                used = share()
                memory = {"rss_mb": rss_mb(process.pid), "tcp_mb": sockets_mb()}
                newest = await ask(publisher, "")
                await asyncio.sleep(1.0)  # what is on its way arrives
                found = await ask(many, f"stop {json.dumps(newest)}")
            finally:
                await end(publisher)
                await end(many)
    found["updates_per_s"] = found.pop("updates") / args.seconds
    return {**connected, **found, "relay_cpu": used, **memory}


async def k6(args: argparse.Namespace, clients: int) -> dict[str, Any]:
    """Measure with the clients of k6, which are JavaScript and need more CPU than the relay."""
    with tempfile.TemporaryDirectory() as home, Server(Path(home)) as server:
        async with relay(server.url, args.relay_core, args.edge) as (process, port):
            publisher = await start(
                "-m", "tests.bench.relay_publisher", "--redis", server.url, core=args.other_core
            )
            summary = Path(home) / "summary.json"
            offset_ms = (time.time_ns() - time.monotonic_ns()) / 1e6
            settings = {
                "URL": f"ws://127.0.0.1:{port}/ws",
                "CLIENTS": str(clients),
                "SECONDS": str(args.seconds),
                "WARM_UP_S": str(_WARM_UP_S),
                "OFFSET_MS": str(offset_ms),
                "SYMBOLS": ",".join(symbols(500)),
            }
            try:
                share = share_of_core(process.pid)
                running = await asyncio.create_subprocess_exec(
                    *(*FIRST, "taskset", "-c", str(args.other_core), args.k6, "run", "--quiet"),
                    *("--no-usage-report", "--summary-export", str(summary)),
                    str(Path(__file__).with_name("relay_k6.js")),
                    env=environment(**settings),
                    stdout=DEVNULL,
                )
                async with asyncio.timeout(_LIMIT_S + args.seconds):
                    status = await running.wait()
                used = share()
            finally:
                await end(publisher)
            metrics = json.loads(summary.read_text())["metrics"]
    return {
        "exit": status,
        "age_ms": metrics["age_ms"],
        "updates_per_s": metrics["price_updates"]["count"] / args.seconds,
        "closed_early": metrics.get("closed_early", {}).get("count", 0),
        "relay_cpu": used,
    }


async def idle(args: argparse.Namespace, clients: int) -> dict[str, Any]:
    """Measure connecting, and memory, with clients that nothing happens to."""
    with tempfile.TemporaryDirectory() as home, Server(Path(home)) as server:
        async with relay(server.url, args.relay_core, args.edge) as (process, port):
            many = await start(
                *("-m", "tests.bench.relay_clients", "--url", f"ws://127.0.0.1:{port}/ws"),
                *("--clients", str(clients)),
                core=args.other_core,
            )
            try:
                await asyncio.sleep(1.0)
                before = rss_mb(process.pid), sockets_mb()
                connected = await ask(many, "connect")
                # aiohttp's part of each connection is kept for 30 s.
                await asyncio.sleep(args.idle_s)
                after = rss_mb(process.pid), sockets_mb()
            finally:
                await end(many)
    user, kernel = ((b - a) / clients * 1000 for a, b in zip(before, after, strict=True))
    return {**connected, "rss_kb_each": user, "tcp_kb_each": kernel}


async def measure(args: argparse.Namespace) -> None:
    """Measure all scenarios and print each."""
    scenarios: dict[str, Callable[[], Awaitable[dict[str, Any]]]] = {
        "idle 2000": lambda: idle(args, 2000),
        "250 clients": lambda: load(args, 250, batch=False),
        "500 clients": lambda: load(args, 500, batch=False),
        "1000 clients": lambda: load(args, 1000, batch=False),
        "2000 clients": lambda: load(args, 2000, batch=False),
        "3000 clients": lambda: load(args, 3000, batch=False),
        "1000 clients, batches": lambda: load(args, 1000, batch=True),
        "2000 clients, batches": lambda: load(args, 2000, batch=True),
        "1000 of 2000 never read": lambda: load(args, 1000, stalled=1000, batch=False),
    }
    if args.k6:
        scenarios = {f"k6, {n} clients": functools.partial(k6, args, n) for n in (100, 250)}
    for name, scenario in scenarios.items():
        if args.only is None or args.only == name:
            found = await scenario()
            print(f"{name}: {json.dumps(found, default=str)}", flush=True)


def main() -> None:
    """Parse arguments and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--idle-s", type=float, default=35.0)
    parser.add_argument("--relay-core", type=int, default=0)
    parser.add_argument("--other-core", type=int, default=1)
    parser.add_argument("--only")
    parser.add_argument("--k6", metavar="PATH", help="the program k6: use its clients instead")
    parser.add_argument("--edge", choices=["aiohttp", "fastapi"], default="aiohttp")
    asyncio.run(measure(parser.parse_args()))


if __name__ == "__main__":
    main()
