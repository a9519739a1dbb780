"""Many light websocket clients of a relay, in one process: picows does in C what costs.

Reads commands, one a line, from stdin and answers each with one line of JSON: ``connect``,
``reset``, and ``stop`` followed by ``{"SPY": seq}``, the newest value of every symbol.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import socket
import sys
import time
from array import array
from typing import Any, cast
from urllib.parse import urlsplit

from picows import WSError, WSFrame, WSListener, WSMsgType, WSTransport, ws_connect
from websockets.frames import Frame, Opcode

_SEQS = re.compile(rb'"symbol":"([A-Z]+)"[^}]*"seq":(\d+)')
_AT_ONCE = 200
_RETRY_S = 0.5


class Client(WSListener):
    """Keeps the newest value of each symbol, and how old each value was when it came.

    The ``seq`` of an update is the time of its publication, in monotonic microseconds.
    """

    def __init__(self, ages_us: array[int], subscribe: bytes) -> None:
        super().__init__()
        self.newest: dict[bytes, int] = {}
        self.transport: Any = None
        self.closed = False
        self._ages_us = ages_us
        self._subscribe = subscribe

    def on_ws_connected(self, transport: WSTransport) -> None:
        """Subscribe."""
        self.transport = transport
        transport.send(WSMsgType.TEXT, self._subscribe)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        """Note it."""
        self.closed = True

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """Take the values in a frame."""
        if frame.msg_type == WSMsgType.PING:
            transport.send_pong(frame.get_payload_as_bytes())
            return
        now_us = time.monotonic_ns() // 1000
        newest = self.newest
        for symbol, seq in _SEQS.findall(frame.get_payload_as_bytes()):
            value = int(seq)
            self._ages_us.append(now_us - value)
            newest[symbol] = value


def symbols(number: int) -> list[str]:
    """Return this number of symbols, 676 at most."""
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    return [f"X{a}{b}" for a in letters for b in letters][:number]


async def connect_all(args: argparse.Namespace, ages_us: array[int]) -> list[Client]:
    """Connect all clients, some at a time; who is refused with 503 comes again."""
    every = symbols(args.symbols)
    rng = random.Random(args.seed)
    room = asyncio.Semaphore(_AT_ONCE)

    async def one() -> Client:
        wanted = rng.sample(every, args.each)
        message = {"action": "subscribe", "symbols": wanted, "batch": args.batch}
        while True:
            try:
                async with room:
                    _, listener = await ws_connect(
                        lambda: Client(ages_us, json.dumps(message).encode()), args.url
                    )
                return cast(Client, listener)
            except WSError as error:
                if "503" not in str(error):
                    raise
                await asyncio.sleep(_RETRY_S)

    return await asyncio.gather(*(one() for _ in range(args.clients)))


async def stall_all(args: argparse.Namespace) -> list[Any]:
    """Connect clients that subscribe and then never read."""
    every = symbols(args.symbols)
    rng = random.Random(args.seed)
    parts = urlsplit(args.url)
    loop = asyncio.get_running_loop()
    found = []
    for _ in range(args.stalled):
        wanted = rng.sample(every, args.each)
        message = {"action": "subscribe", "symbols": wanted, "batch": args.batch}
        head = (
            f"GET {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        while True:
            sock = socket.socket()
            # Else this machine's kernel reads for them: megabytes each.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
            sock.setblocking(False)
            await loop.sock_connect(sock, (parts.hostname, parts.port))
            await loop.sock_sendall(sock, head.encode())
            if b" 101 " in await loop.sock_recv(sock, 64):
                break
            sock.close()
            await asyncio.sleep(_RETRY_S)
        frame = Frame(Opcode.TEXT, json.dumps(message).encode()).serialize(mask=True)
        await loop.sock_sendall(sock, frame)
        found.append(sock)
    return found


def percentiles(ages_us: array[int]) -> dict[str, float]:
    """Return percentiles in milliseconds."""
    ordered = sorted(ages_us)
    if not ordered:
        return {}
    picked = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p999": 0.999}
    found = {name: ordered[int(len(ordered) * share)] / 1000 for name, share in picked.items()}
    return {**found, "max": ordered[-1] / 1000}


async def serve(args: argparse.Namespace) -> None:
    """Do what stdin says."""
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    ages_us: array[int] = array("q")
    clients: list[Client] = []
    stalled: list[Any] = []
    while line := (await reader.readline()).decode():
        command, _, rest = line.strip().partition(" ")
        answer: dict[str, Any] = {}
        if command == "connect":
            begun = time.monotonic()
            clients = await connect_all(args, ages_us)
            stalled = await stall_all(args)
            answer = {"connected": len(clients) + len(stalled), "seconds": time.monotonic() - begun}
        elif command == "reset":
            del ages_us[:]
        elif command == "stop":
            newest = {symbol.encode(): seq for symbol, seq in json.loads(rest).items()}
            behind = sum(
                newest[symbol] != seq for client in clients for symbol, seq in client.newest.items()
            )
            held = sum(len(client.newest) for client in clients)
            answer = {
                "updates": len(ages_us),
                "values_held": held,
                "values_behind": behind,
                "lost_connections": sum(client.closed for client in clients),
                "ms": percentiles(ages_us),
            }
        print(json.dumps(answer), flush=True)


def main() -> None:
    """Parse arguments and serve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", required=True)
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--stalled", type=int, default=0)
    parser.add_argument("--symbols", type=int, default=500)
    parser.add_argument("--each", type=int, default=10)
    parser.add_argument("--batch", action="store_true")
    parser.add_argument("--seed", type=int, default=1)
    asyncio.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
