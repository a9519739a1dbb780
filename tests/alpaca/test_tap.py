"""What comes from Alpaca is given to a tap, as it came, while there is one."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from websockets.frames import Opcode

from spotd.core.messages import Cancel
from spotd.errors import StreamError
from tests.kit.stream import (
    Listener,
    nothing_unheard,  # noqa: F401 - a fixture for every test
    stream_to,
    why_ended,
)
from tests.kit.waiting import until
from tests.kit.websocket import ServerEnd, frame, packed, websocket_server

QUOTE: dict[str, Any] = {"T": "x", "S": "SPY"}
AUTHENTICATED = packed({"T": "success", "msg": "authenticated"})
CONNECTED = packed({"T": "success", "msg": "connected"})


class Taken:
    """A tap that keeps what it is given."""

    def __init__(self) -> None:
        self.frames: list[bytes] = []
        self.ends: list[str] = []

    def frame(self, payload: bytes) -> None:
        self.frames.append(payload)

    def ended(self, why: StreamError) -> None:
        self.ends.append(why.reason)


async def test_every_frame_of_messages_is_given_as_it_came() -> None:
    """Whole or in fragments, malformed, unknown, or text; but no ping and no close frame."""
    malformed = msgspec.msgpack.encode([{"T": "q", "S": "SPY"}, {"T": "new"}])
    whole = packed(QUOTE)
    is_open = asyncio.Event()

    async def behave(server: ServerEnd) -> None:
        await server.welcome()
        await is_open.wait()
        server.write(frame(whole) + frame(b"ping", Opcode.PING))
        server.write(frame(whole[:5], fin=False) + frame(whole[5:], Opcode.CONT))
        server.write(frame(malformed) + frame(b"\xc1") + frame(b'["text"]', Opcode.TEXT))
        server.write(frame(b"\x03\xe9bye", Opcode.CLOSE))
        await server.gone()

    tap = Taken()
    async with websocket_server(behave) as port:
        stream = stream_to(f"ws://127.0.0.1:{port}/")
        stream.give_to(tap)
        await stream.open()
        is_open.set()
        await why_ended(stream)
        await stream.close()
    assert tap.frames == [
        CONNECTED, AUTHENTICATED, whole, whole, malformed, b"\xc1", b'["text"]',
    ]  # fmt: skip
    assert tap.ends == ["close_1001"]


async def test_a_tap_may_come_and_go_within_a_session() -> None:
    """It gets what comes between, and each later session until it goes. Data is not disturbed."""
    say = asyncio.Queue[str]()

    async def behave(server: ServerEnd) -> None:
        await server.welcome()
        while symbol := await say.get():
            server.say({"T": "x", "S": symbol})
        server.leave()

    listener, tap = Listener(), Taken()

    async def heard(*symbols: str) -> None:
        for symbol in symbols:
            say.put_nowait(symbol)
            await until(lambda: listener.messages[-1:] == [Cancel(symbol)], symbol)  # noqa: B023

    async with websocket_server(behave) as port:
        stream = stream_to(f"ws://127.0.0.1:{port}/", listener)
        await stream.open()
        await heard("BEFORE")
        stream.give_to(tap)
        await heard("A", "B")
        say.put_nowait("")
        await why_ended(stream)
        await stream.close()
        await stream.open()
        await heard("C")
        stream.give_to(None)
        await heard("BEHIND")
        say.put_nowait("")
        await why_ended(stream)
        await stream.close()
    about = [packed({"T": "x", "S": symbol}) for symbol in ("A", "B", "C")]
    assert tap.frames == [*about[:2], CONNECTED, AUTHENTICATED, about[2]]
    assert tap.ends == ["lost"]
