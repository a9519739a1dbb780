"""A relay under random clients and faults: ``python -m tests.bench.relay_soak --minutes 10``.

Clients connect, subscribe, stall, abort and leave at random, Redis is killed and started again,
with and without its data. At the end every client that stayed must hold the final value of each of
its symbols, no demand may be left behind, and the relay must not have grown. Exit code 1 otherwise.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import socket
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
from redis.asyncio import Redis
from redis.exceptions import RedisError
from websockets.frames import Frame, Opcode

from spotd.keys import Keys
from spotd.models import spot_price, utc
from tests.bench.relay import relay
from tests.bench.relay_clients import symbols
from tests.bench.setup import rss_mb
from tests.kit.publisher import status_of
from tests.kit.servers import Server
from tests.kit.waiting import cancelled, until
from tests.relay.examples import WEBSOCKET_REQUEST

SYMBOLS = symbols(60)
STEADY = 20  # clients that stay, and are checked
WILD = 60  # clients that come and go, at a time
_PUBLISH_EVERY_S = 0.1
_SETTLE_S = 60.0
_GROWTH = 1.15  # of memory, from the end of the first third to the end


class Publisher:
    """A daemon's part. ``newest`` is the seq of each symbol's newest value."""

    def __init__(self, url: str) -> None:
        self.newest: dict[str, int] = {}
        self._redis = Redis.from_url(url)
        self._keys = Keys()

    async def publish(self, names: list[str]) -> None:
        """Publish a new value of each symbol. Raises what redis-py raises."""
        pipeline = self._redis.pipeline(transaction=False)
        pipeline.set(self._keys.status, status_of().to_json(), ex=15)
        for symbol in names:
            seq = time.monotonic_ns() // 1000
            raw = spot_price(symbol, 400, 400.02, None, utc(time.time()), seq).to_json()
            pipeline.hset(self._keys.last, symbol, raw)
            pipeline.publish(self._keys.channel(symbol), raw)
            self.newest[symbol] = seq
        await pipeline.execute()

    async def run(self, rng: random.Random) -> None:
        """Publish some symbols again and again; all of them when Redis is back, as spotd does."""
        names = SYMBOLS
        while True:
            try:
                await self.publish(names)
                names = rng.sample(SYMBOLS, 20)
            except (RedisError, OSError):
                names = SYMBOLS
            await asyncio.sleep(_PUBLISH_EVERY_S)

    async def leases(self) -> int:
        """Return how many leases there are."""
        return int(await self._redis.zcard(self._keys.leases))

    async def aclose(self) -> None:
        """Close the connection."""
        await self._redis.aclose()


class Steady:
    """A client that stays, and connects again when it must."""

    def __init__(self, wanted: list[str]) -> None:
        self.wanted = wanted
        self.held: dict[str, int] = {}
        self.backwards = 0

    async def run(self, http: aiohttp.ClientSession) -> None:
        """Keep the newest value of each symbol."""
        while True:
            with suppress(aiohttp.ClientError, OSError):
                async with http.ws_connect("/ws") as connection:
                    await connection.send_json({"action": "subscribe", "symbols": self.wanted})
                    async for message in connection:
                        self._take(json.loads(message.data))
            await asyncio.sleep(0.2)

    def _take(self, message: dict[str, Any]) -> None:
        if message["type"] == "spot_price_update":
            update = message["update"]
            self.backwards += update["seq"] < self.held.get(update["symbol"], 0)
            self.held[update["symbol"]] = update["seq"]

    def is_behind(self, newest: dict[str, int]) -> bool:
        """Return whether it lacks any final value."""
        return any(self.held.get(symbol) != newest[symbol] for symbol in self.wanted)


async def come_and_go(http: aiohttp.ClientSession, rng: random.Random) -> None:
    """Subscribe, change one's mind a few times, and leave."""
    async with http.ws_connect("/ws") as connection:
        for _ in range(rng.randrange(1, 6)):
            action = rng.choice(["subscribe", "subscribe", "unsubscribe", "ping", "nonsense"])
            more: dict[str, Any] = {"max_hz": rng.choice([1, 5])} if rng.random() < 0.3 else {}
            wanted = rng.sample(SYMBOLS, rng.randrange(1, 20))
            batch = rng.random() < 0.5
            await connection.send_json(
                {"action": action, "symbols": wanted, "batch": batch, **more}
            )
            with suppress(TimeoutError):
                async with asyncio.timeout(rng.uniform(0.1, 3)):
                    while not connection.closed:
                        await connection.receive()


async def listen(http: aiohttp.ClientSession, rng: random.Random) -> None:
    """Read an event stream for a while, and drop it."""
    wanted = ",".join(rng.sample(SYMBOLS, 5))
    async with http.get(f"/sse?symbols={wanted}") as response:
        with suppress(TimeoutError):
            async with asyncio.timeout(rng.uniform(0.1, 5)):
                while await response.content.readany():
                    pass


async def ask(http: aiohttp.ClientSession, rng: random.Random) -> None:
    """Ask over HTTP."""
    wanted = rng.sample(SYMBOLS, 2)
    await http.post("/api/positions/subscribe-spot-prices", json={"symbols": wanted})
    await http.get(f"/api/spot-prices?symbols={','.join(wanted)}")


async def stall(port: int, rng: random.Random) -> None:
    """Subscribe, read nothing, and reset the connection."""
    loop = asyncio.get_running_loop()
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.setblocking(False)
        await loop.sock_connect(client, ("127.0.0.1", port))
        await loop.sock_sendall(client, WEBSOCKET_REQUEST[: rng.randrange(1, 400)])
        if rng.random() < 0.8:
            message = json.dumps({"action": "subscribe", "symbols": SYMBOLS}).encode()
            await loop.sock_sendall(client, Frame(Opcode.TEXT, message).serialize(mask=True))
        await asyncio.sleep(rng.uniform(0, 20))


async def wild(deeds: list[Callable[[], Awaitable[None]]], rng: random.Random) -> None:
    """Do random deeds, one after the other. What the relay refuses is no failure."""
    while True:
        with suppress(aiohttp.ClientError, OSError, RuntimeError):
            await rng.choice(deeds)()
        await asyncio.sleep(rng.uniform(0, 0.5))


async def break_redis(server: Server, rng: random.Random) -> None:
    """Kill the server now and then, and start it again a little later."""
    while True:
        await asyncio.sleep(rng.uniform(15, 45))
        server.kill()
        await asyncio.sleep(rng.uniform(0, 3))
        await asyncio.to_thread(server.restart, lose_data=rng.random() < 0.5)


async def soak(minutes: float, seed: int) -> list[str]:
    """Run everything. Return what went wrong."""
    rng = random.Random(seed)
    wrong = []
    with tempfile.TemporaryDirectory() as home, Server(Path(home)) as server:
        async with relay(server.url, core=None) as (process, port):
            publisher = Publisher(server.url)
            steady = [Steady(rng.sample(SYMBOLS, 10)) for _ in range(STEADY)]
            connector = aiohttp.TCPConnector(limit=0)
            async with aiohttp.ClientSession(
                f"http://127.0.0.1:{port}", connector=connector
            ) as http:
                publishing = asyncio.create_task(publisher.run(rng))
                staying = [asyncio.create_task(client.run(http)) for client in steady]
                deeds: list[Callable[[], Awaitable[None]]] = [
                    lambda: come_and_go(http, rng),
                    lambda: come_and_go(http, rng),
                    lambda: listen(http, rng),
                    lambda: ask(http, rng),
                    lambda: stall(port, rng),
                ]
                chaos = [asyncio.create_task(wild(deeds, rng)) for _ in range(WILD)]
                chaos.append(asyncio.create_task(break_redis(server, rng)))
                await asyncio.sleep(minutes * 20)
                early = rss_mb(process.pid)
                await asyncio.sleep(minutes * 40)
                late = rss_mb(process.pid)
                print(f"relay: {early:.1f} MB after a third, {late:.1f} MB at the end")
                if late > early * _GROWTH:
                    wrong.append(f"the relay grew from {early:.1f} to {late:.1f} MB")
                await cancelled(*chaos)
                wrong += [f"a deed failed: {task!r}" for task in chaos if not task.cancelled()]
                await cancelled(publishing)
                if not await asyncio.to_thread(server_answers, server):
                    await asyncio.to_thread(server.restart)
                wrong += await settle(publisher, steady)
                await cancelled(*staying)
            try:
                # What a POST demanded lapses after a minute.
                await until(
                    lambda: none_left(publisher), "all demand to end", guard_s=60 + _SETTLE_S
                )
            except AssertionError as error:
                wrong.append(f"{error}: {await publisher.leases()} leases are left")
            if process.returncode is not None:
                wrong.append(f"the relay ended with {process.returncode}")
            await publisher.aclose()
    return wrong


def server_answers(server: Server) -> bool:
    """Return whether the server runs: chaos may have ended while it was killed."""
    with suppress(RedisError, OSError), server.client() as client:
        return bool(client.ping())
    return False


async def settle(publisher: Publisher, steady: list[Steady]) -> list[str]:
    """Publish a final value of every symbol. Return who lacks one."""
    await publisher.publish(SYMBOLS)
    with suppress(AssertionError):
        await until(
            lambda: not any(client.is_behind(publisher.newest) for client in steady),
            "the final values",
            guard_s=_SETTLE_S,
        )
    behind = sum(client.is_behind(publisher.newest) for client in steady)
    backwards = sum(client.backwards for client in steady)
    wrong = [f"{behind} of {len(steady)} clients lack a final value"] if behind else []
    return wrong + ([f"{backwards} values were older than the one before"] if backwards else [])


async def none_left(publisher: Publisher) -> bool:
    """Return whether there is no lease."""
    return await publisher.leases() == 0


def main() -> None:
    """Parse arguments, run, and say what went wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(3)))
    args = parser.parse_args()
    print(f"{args.minutes:g} minutes, seed {args.seed}", flush=True)
    wrong = asyncio.run(soak(args.minutes, args.seed))
    print("\n".join(wrong) or "nothing went wrong")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
