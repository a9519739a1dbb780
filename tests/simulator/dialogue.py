"""A client that sends and receives one message at a time, over a real websocket."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Literal, TypeAlias

import msgpack
from websockets.asyncio.client import ClientConnection, connect

from spotd.simulator import Simulator
from tests.kit.waiting import GUARD_S

Encoding: TypeAlias = Literal["json", "msgpack"]
Message: TypeAlias = dict[str, Any]

CONNECTED = {"T": "success", "msg": "connected"}
AUTHENTICATED = {"T": "success", "msg": "authenticated"}
NOTHING: Message = {
    "T": "subscription",
    "trades": [],
    "quotes": [],
    "bars": [],
    "updatedBars": [],
    "dailyBars": [],
    "statuses": [],
    "lulds": [],
    "corrections": [],
    "cancelErrors": [],
}


def refusal(code: int, words: str) -> Message:
    """Return an error message in Alpaca's form."""
    return {"T": "error", "code": code, "msg": words}


class Dialogue:
    """A connection on which a test says and hears one message at a time."""

    def __init__(self, ws: ClientConnection, encoding: Encoding) -> None:
        self.ws = ws
        self.encoding = encoding

    async def say(self, message: object) -> None:
        """Send a message in the connection's encoding."""
        packed = self.encoding == "msgpack"
        await self.ws.send(msgpack.packb(message) if packed else json.dumps(message))

    async def hear_raw(self) -> bytes | str:
        """Return the payload of the next frame."""
        async with asyncio.timeout(GUARD_S):
            return await self.ws.recv()

    async def hear(self) -> list[Message]:
        """Return the messages of the next frame; times are nanoseconds in msgpack, text in JSON."""
        raw = await self.hear_raw()
        if isinstance(raw, str):
            decoded: list[Message] = json.loads(raw)
            return decoded
        unpacked: list[Message] = msgpack.unpackb(raw, timestamp=2)
        return unpacked

    async def hear_one(self) -> Message:
        """Return the only message of the next frame."""
        [message] = await self.hear()
        return message

    async def ask(self, message: object) -> Message:
        """Send a message and return its answer, which is alone in its frame."""
        await self.say(message)
        return await self.hear_one()

    async def greet(self) -> None:
        """Receive the greeting."""
        assert await self.hear_one() == CONNECTED

    async def login(self, secret: str = "demo-secret") -> Message:
        """Authenticate. Return the answer."""
        return await self.ask({"action": "auth", "key": "demo-key", "secret": secret})

    async def subscribe(self, **channels: list[str]) -> Message:
        """Subscribe. Return the answer."""
        return await self.ask({"action": "subscribe", **channels})

    async def unsubscribe(self, **channels: list[str]) -> Message:
        """Unsubscribe. Return the answer."""
        return await self.ask({"action": "unsubscribe", **channels})

    async def hear_end(self) -> int:
        """Receive until the connection ends. Return its close code, 1006 without a close frame."""
        async with asyncio.timeout(GUARD_S):
            await self.ws.wait_closed()
        assert self.ws.close_code is not None
        return self.ws.close_code


@asynccontextmanager
async def dial(
    sim: Simulator,
    *,
    feed: str = "iex",
    encoding: Encoding = "msgpack",
    login: bool = True,
    headers: Mapping[str, str] | None = None,
    **options: Any,
) -> AsyncIterator[Dialogue]:
    """Connect, and authenticate unless `login` is false; close cleanly at the end."""
    content = {"Content-Type": f"application/{encoding}"} | dict(headers or {})
    options.setdefault("ping_interval", None)
    async with connect(
        sim.stream_url(feed), additional_headers=content, proxy=None, **options
    ) as ws:
        talk = Dialogue(ws, encoding)
        if login:
            await talk.greet()
            assert await talk.login() == AUTHENTICATED
        yield talk


async def exchange(sim: Simulator) -> None:
    """Have a request on another connection answered.

    The simulator runs in the loop of the test, and loopback is in order. As a consequence, it has
    then been given everything that was sent to it before.
    """
    async with asyncio.timeout(GUARD_S):
        reader, writer = await asyncio.open_connection("127.0.0.1", sim.port)
        writer.write(b"GET /nothing HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert b" 404 " in await reader.readline()
        await reader.read()
        writer.close()
        await writer.wait_closed()
