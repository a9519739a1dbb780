"""Record what a release of spotd writes to Redis, and what it publishes, as a file of fixtures.

    git worktree add ../released <commit of the release>
    python3 -m venv ../released/.venv && ../released/.venv/bin/pip install ../released
    python -m tests.compatibility.record ../released/.venv/bin/spotd tests/compatibility/0.1.json

The release runs between the present simulator and a real server, and is killed in the end, so that
its keys stay. The file holds every message in its order, the keys, and the settings it knows.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import redis.asyncio as aioredis

from spotd.simulator import Simulator
from tests.kit.ports import free_port
from tests.kit.processes import environment
from tests.kit.servers import Server
from tests.kit.values import Values
from tests.kit.waiting import until

KEY, SECRET = "demo-key", "demo-secret"
FAR_UNIX_S = 4_102_444_800  # 2100-01-01: the lease does not lapse while a fixture is recorded


async def recorded(spotd: Path, home: Path) -> dict[str, Any]:
    """Return what the release writes and publishes, from its start to its kill."""
    with Server(home / "server") as server:
        async with Simulator(keys={KEY: SECRET}) as sim, Values(server.url) as values:
            messages: list[list[str]] = []
            hearing = asyncio.create_task(_hear(server.url, messages))
            await until(lambda: values.subscribers("spotd:wake"), "the recorder listens")
            await values.want("SPY", "QQQ", "KO", "not one")
            await values.redis.zadd("spotd:leases", {"IBM@svc:host-1-ab": FAR_UNIX_S})
            process = await asyncio.create_subprocess_exec(
                *(str(spotd), "run"),
                cwd=home,
                env=environment(
                    PYTHONPATH="",  # else the release would be imported from here
                    ALPACA_API_KEY=KEY,
                    ALPACA_SECRET_KEY=SECRET,
                    SPOTD_STREAM_URL=sim.stream_url("iex"),
                    SPOTD_DATA_URL=sim.data_url,
                    SPOTD_REDIS_URL=server.url,
                    SPOTD_HTTP_PORT=str(free_port()),
                    SPOTD_SNAPSHOTS="false",
                ),
            )
            try:
                await until(lambda: values.live("SPY", "QQQ", "KO", "IBM"), "all live")
                await _say(sim, values)
            finally:
                process.kill()
                await process.wait()
            hearing.cancel()
            await asyncio.wait((hearing,))
            return {
                "version": _run(spotd, "--version").split()[-1],
                "settings": sorted(
                    set(re.findall(r"\b(?:SPOTD|ALPACA|APCA)_[A-Z_]+", _source(spotd)))
                ),
                "messages": messages,
                "keys": await _keys(values.redis),
            }


async def _say(sim: Simulator, values: Values) -> None:
    """Have the release publish prices with and without a last sale, a halt, and an interruption."""

    def quote(symbol: str, bid: float, ask: float) -> dict[str, Any]:
        return {"T": "q", "S": symbol, "bp": bid, "ap": ask}

    await sim.send([quote("QQQ", 350.125, 350.13), quote("IBM", 130.5, 130.5)])
    await sim.send([quote("SPY", 421.35, 421.39)])
    await until(lambda: values.last("SPY"), "the first price")
    await sim.send([{"T": "t", "S": "SPY", "p": 421.36, "c": ["@"], "z": "B"}])

    async def sold() -> bool:
        last = await values.last("SPY")
        return last is not None and last["last_price"] == 421.36

    await until(sold, "the last sale")
    await sim.drop_sessions("abort")
    await until(lambda: sim.stats.connections == 2, "the next session")
    await until(lambda: values.live("SPY", "QQQ", "KO", "IBM"), "all live again")
    await until(lambda: sim.sessions[0].statuses == {"*"}, "trading statuses")
    await sim.halt("KO")
    await until(lambda: _is(values, "KO", "halted"), "the halt")
    await sim.send([quote("SPY", 422.0, 422.02)])

    async def priced() -> bool:
        return await values.bid("SPY") == 422.0

    await until(priced, "a price after the interruption")
    await until(lambda: _counts_the_halt(values), "the status")


async def _is(values: Values, symbol: str, state: str) -> bool:
    return await values.state(symbol) == state


async def _counts_the_halt(values: Values) -> bool:
    status = await values.status()
    return status is not None and int(status["symbols"]["halted"]) == 1


async def _hear(url: str, messages: list[list[str]]) -> None:
    """Add each message, as channel and text, in the order in which they came."""
    async with aioredis.Redis.from_url(url, decode_responses=True) as client:
        pubsub = client.pubsub()
        await pubsub.subscribe("spotd:wake")  # so that it is known when this listens
        await pubsub.psubscribe("spot:*", "spotd:events")
        async for message in pubsub.listen():
            if message["type"] == "pmessage":
                messages.append(  # noqa: PERF401 - it is read while it grows
                    [message["channel"], message["data"]]
                )


async def _keys(client: Any) -> dict[str, Any]:
    """Return every key with its type, its value and its TTL in ms (-1: none)."""
    found: dict[str, Any] = {}
    for name in sorted([key.decode() async for key in client.scan_iter()]):
        kind = (await client.type(name)).decode()
        value: Any
        if kind == "hash":
            read = await client.hgetall(name)
            value = {k.decode(): v.decode() for k, v in sorted(read.items())}
        elif kind == "set":
            value = sorted(each.decode() for each in await client.smembers(name))
        elif kind == "zset":
            value = {
                m.decode(): score for m, score in await client.zrange(name, 0, -1, withscores=True)
            }
        else:
            value = (await client.get(name)).decode()
        found[name] = {"type": kind, "pttl": await client.pttl(name), "value": value}
    return found


def _source(spotd: Path) -> str:
    """Return the text of the module of settings that the executable imports."""
    path = _run(
        spotd.parent / "python", "-c", "import spotd.settings as m; print(m.__file__)"
    ).strip()
    return Path(path).read_text("utf-8")


def _run(*command: str | Path) -> str:
    return subprocess.run(
        command,
        check=True,
        capture_output=True,
        text=True,
        cwd=Path(command[0]).parent,
        env=environment(PYTHONPATH=""),
    ).stdout


def main() -> None:
    """Record, and write the file."""
    parser = argparse.ArgumentParser(prog="python -m tests.compatibility.record")
    parser.add_argument("spotd", type=Path, help="the executable of the release")
    parser.add_argument("file", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        found = asyncio.run(recorded(args.spotd.absolute(), Path(home)))
    args.file.write_text(json.dumps(found, indent=1, ensure_ascii=True) + "\n")
    sys.stdout.write(f"{len(found['messages'])} messages, {len(found['keys'])} keys\n")


if __name__ == "__main__":
    main()
