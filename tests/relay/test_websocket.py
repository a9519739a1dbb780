"""What a websocket client sees, over a real connection."""

from __future__ import annotations

import asyncio
import socket
from base64 import urlsafe_b64encode
from contextlib import suppress
from typing import Any

import aiohttp
import pytest
from websockets.frames import Frame, Opcode
from websockets.protocol import CLIENT, Protocol

from spotd.relay.close_codes import (
    INVALID_TEXT,
    NOT_READING,
    PROTOCOL_ERROR,
    TOO_LARGE,
    TOO_MANY_MESSAGES,
)
from spotd.relay.hub import LINGER_S
from spotd.relay.slots import Client
from tests.kit.waiting import GUARD_S, until
from tests.relay.conftest import NewSetup, Setup
from tests.relay.examples import WEBSOCKET_REQUEST

SUBSCRIBE = b'{"action":"subscribe","symbols":["SPY"]}'


class RawClient:
    """A client that sends and reads bytes when the test says so, and not before."""

    def __init__(self, port: int) -> None:
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        self.socket.setblocking(False)
        self._port = port
        self._protocol = Protocol(CLIENT)
        self._head = b""

    async def connect(self, behind: bytes = b"") -> None:
        """Send the handshake, and these bytes in the same packet."""
        loop = asyncio.get_running_loop()
        await loop.sock_connect(self.socket, ("127.0.0.1", self._port))
        await loop.sock_sendall(self.socket, WEBSOCKET_REQUEST + behind)

    async def send(self, *frames: Frame) -> None:
        """Send frames."""
        data = b"".join(frame.serialize(mask=True) for frame in frames)
        await asyncio.get_running_loop().sock_sendall(self.socket, data)

    async def read(self) -> list[bytes]:
        """Return the payloads of the frames that come next, [] at the end of the connection."""
        async with asyncio.timeout(GUARD_S):
            while True:
                data = await asyncio.get_running_loop().sock_recv(self.socket, 65_536)
                if not data:
                    return []
                if not self._head.endswith(b"\r\n\r\n"):
                    self._head += data
                    self._head, end, data = self._head.partition(b"\r\n\r\n")
                    self._head += end
                self._protocol.receive_data(data)
                if found := self._protocol.events_received():
                    return [bytes(frame.data) for frame in found if isinstance(frame, Frame)]

    async def read_until(self, part: bytes) -> list[bytes]:
        """Return payloads up to those that hold this part."""
        found: list[bytes] = []
        while not found or part not in found[-1]:
            new = await self.read()
            assert new, f"the connection ended before {part!r}"
            found += new
        return found


async def test_hello_comes_first_then_what_is_known_then_every_change(setup: Setup) -> None:
    """Nothing of a symbol that was given up comes."""
    setup.source.price("SPY", 1)
    async with setup.websocket("spy") as client:
        assert client.hello["type"] == "hello"
        assert client.hello["daemon"]["state"] == "streaming"
        assert await client.price("SPY", 1) == [("SPY", 1)]
        setup.source.state("SPY", "halted")
        assert (await client.next())["state"] == "halted"
        setup.source.price("SPY", 2)
        assert await client.price("SPY", 2) == [("SPY", 2)]
        await client.say(action="unsubscribe", symbols=["SPY"])
        await client.synced()
        setup.source.price("SPY", 3)
        await client.say(action="subscribe", symbols=["QQQ"])
        await client.synced()
        setup.source.price("QQQ", 4)
        assert await client.price("QQQ", 4) == [("QQQ", 4)]


async def test_many_clients_are_one_demand(setup: Setup) -> None:
    """The source follows a symbol from its first client to a moment after its last."""
    async with setup.websocket("SPY") as one:
        await one.synced()
        async with setup.websocket("SPY", "QQQ") as other:
            await other.synced()
            assert setup.source.followed == {"SPY", "QQQ"}
        await until(lambda: setup.source.followed == {"SPY"}, "the demand for QQQ to end")
    await until(lambda: not setup.source.followed, "the demand for SPY to end")


async def test_a_client_may_have_batches(setup: Setup) -> None:
    """All prices of a tick in one message."""
    for symbol, seq in (("SPY", 1), ("QQQ", 2)):
        setup.source.price(symbol, seq)
    async with setup.websocket() as client:
        await client.say(action="subscribe", symbols=["SPY", "QQQ"], batch=True)
        batch = await client.next()
        assert batch["type"] == "spot_price_update_batch"
        assert [update["seq"] for update in batch["updates"]] == [1, 2]


async def test_a_wrong_message_is_explained_and_closes_nothing(setup: Setup) -> None:
    """Neither text that is no JSON, nor bytes, nor a malformed symbol."""
    async with setup.websocket() as client:
        await client.connection.send_str("what?")
        await client.connection.send_bytes(b"what?")
        await client.say(action="subscribe", symbols=["SPY", "9"])
        errors = await client.synced()
        assert [error["code"] for error in errors] == ["not_json", "not_text", "invalid_symbol"]
        setup.source.price("SPY", 1)
        assert await client.price("SPY", 1)


async def test_a_message_may_come_in_pieces(setup: Setup) -> None:
    """With a ping between them, which is answered."""
    client = RawClient(setup.server.port)
    await client.connect()
    await client.send(
        Frame(Opcode.TEXT, SUBSCRIBE[:9], fin=False),
        Frame(Opcode.PING, b"there?"),
        Frame(Opcode.CONT, SUBSCRIBE[9:]),
    )
    assert b"there?" in await client.read_until(b"there?")
    await until(lambda: "SPY" in setup.source.followed, "the message to be understood")
    client.socket.close()


async def test_what_comes_in_the_packet_of_the_handshake_is_not_lost(setup: Setup) -> None:
    """A client in a hurry subscribes before it has read the answer."""
    setup.source.price("SPY", 1)
    client = RawClient(setup.server.port)
    await client.connect(behind=Frame(Opcode.TEXT, SUBSCRIBE).serialize(mask=True))
    assert b'"hello"' in (await client.read_until(b'"seq":1'))[0]
    client.socket.close()


async def test_too_large_a_message_ends_the_connection(setup: Setup) -> None:
    """1009, before its bytes are read."""
    async with setup.websocket() as client:
        await client.connection.send_str("x" * 70_000)
        assert await client.closed() == TOO_LARGE.code


async def test_too_many_messages_end_the_connection(setup: Setup) -> None:
    """4101, after an error that says so."""
    async with setup.websocket() as client:
        for _ in range(100):
            await client.say(action="ping")
        while (message := await client.next())["type"] == "pong":
            pass
        assert message["code"] == "too_many_messages"
        assert await client.closed() == TOO_MANY_MESSAGES.code


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (Frame(Opcode.TEXT, b"\xff\xfe"), INVALID_TEXT.code),
        (Frame(Opcode.CONT, b"of nothing"), PROTOCOL_ERROR.code),
    ],
)
async def test_a_client_that_breaks_the_rules_of_websockets_is_told(
    setup: Setup, frame: Frame, code: int
) -> None:
    """With the codes of RFC 6455, and the relay counts it."""
    client = RawClient(setup.server.port)
    await client.connect()
    await client.send(frame)
    frames = await client.read_until(code.to_bytes(2, "big"))
    assert frames[-1][:2] == code.to_bytes(2, "big")
    await until(lambda: setup.relay.hub.clients == 0, "the relay to forget the client")
    assert setup.relay.metrics.closed[code] == 1
    client.socket.close()


async def test_a_client_that_does_not_read_gets_the_newest_price_later(setup: Setup) -> None:
    """Others are served meanwhile; what it missed is never sent."""
    stalled = RawClient(setup.server.port)
    await stalled.connect()
    await stalled.send(Frame(Opcode.TEXT, SUBSCRIBE))
    async with setup.websocket("SPY") as other:
        await until(lambda: setup.relay.hub.clients == 2, "both clients")
        await other.synced()
        skipped = setup.relay.hub.counts.skipped
        seq = 0
        # Until the buffers between the relay and the client are full.
        while setup.relay.hub.counts.skipped < skipped + 20:
            seq += 1
            setup.source.price("SPY", seq)
            await other.price("SPY", seq)
        received = await stalled.read_until(f'"seq":{seq}}}'.encode())
    prices = [frame for frame in received if b"spot_price_update" in frame]
    assert len(prices) < seq
    stalled.socket.close()


async def test_a_client_that_asks_and_does_not_read_is_given_up(new_setup: NewSetup) -> None:
    """Its answers do not fill the relay's memory."""
    async with new_setup() as setup:
        client = RawClient(setup.server.port)
        await client.connect()
        await until(lambda: setup.relay.hub.clients == 1, "the client")
        # Each is answered by an error that quotes its entries.
        entries = b",".join(b'"%d"' % number for number in range(5_000))
        nonsense = Frame(Opcode.TEXT, b'{"action":"subscribe","symbols":[%b]}' % entries)
        with suppress(ConnectionError):
            async with asyncio.timeout(GUARD_S):
                while setup.relay.hub.clients:
                    await client.send(nonsense)
        await until(lambda: setup.relay.hub.clients == 0, "the relay to forget the client")
        assert setup.relay.metrics.closed[NOT_READING.code] == 1
        client.socket.close()


async def test_clients_are_pinged_and_given_up_without_an_answer(setup: Setup) -> None:
    """A client that reads, and answers no ping, is let go after a minute; others stay."""
    client = RawClient(setup.server.port)
    await client.connect()
    await client.read()
    async with setup.websocket() as other:
        setup.clock.ahead_s += 20
        assert await client.read() == [b""]
        for _ in range(3):
            setup.clock.ahead_s += 20
            await other.synced()
        await until(lambda: setup.relay.hub.clients == 1, "the silent client to be given up")
        await other.synced()
    assert setup.relay.metrics.closed[NOT_READING.code] == 1
    client.socket.close()


async def test_a_client_that_vanishes_is_forgotten(setup: Setup) -> None:
    """Without a close frame, and by the end of its sending half."""
    reset, half_closed = RawClient(setup.server.port), RawClient(setup.server.port)
    for client in (reset, half_closed):
        await client.connect()
        await client.read()
    reset.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    reset.socket.close()
    half_closed.socket.shutdown(socket.SHUT_WR)
    await until(lambda: setup.relay.hub.clients == 0, "the relay to forget both")
    half_closed.socket.close()


@pytest.mark.parametrize(
    "asked",
    [
        WEBSOCKET_REQUEST + Frame(Opcode.TEXT, SUBSCRIBE).serialize(mask=True),
        b"GET /sse?symbols=SPY HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    ],
    ids=["websocket", "events"],
)
async def test_a_client_that_resets_while_it_is_let_in_demands_nothing(
    setup: Setup, monkeypatch: pytest.MonkeyPatch, asked: bytes
) -> None:
    """Its message was read with its request: nobody would end a demand of one that has left."""
    gone = socket.create_connection(("127.0.0.1", setup.server.port))
    gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    join = setup.relay.join

    def reset(*args: Any) -> Client:
        gone.close()
        return join(*args)

    with monkeypatch.context() as patch:
        patch.setattr(setup.relay, "join", reset)
        gone.sendall(asked)
        await until(lambda: gone.fileno() == -1, "the client to be let in")
    await until(lambda: setup.relay.hub.clients == 0, "the client to be forgotten")
    setup.clock.ahead_s += 2 * LINGER_S
    await until(lambda: setup.relay.hub.symbols == 0, "no symbol to be wanted")


async def test_no_task_is_kept_per_client(setup: Setup) -> None:
    """The connection is taken over from aiohttp, whose tasks end."""
    async with setup.websocket() as client:
        await client.synced()
        before = len(asyncio.all_tasks())
        async with setup.websocket(), setup.websocket(), setup.websocket():
            await until(lambda: len(asyncio.all_tasks()) <= before, "the handlers to end")
            assert setup.relay.hub.clients == 4


async def test_nothing_is_compressed(setup: Setup) -> None:
    """An offer of the client is not taken, since compression costs 200 kB a connection."""
    async with setup.websocket(compress=15) as client:
        assert client.connection.compress == 0


async def test_the_token_may_be_a_subprotocol_and_does_not_come_back(new_setup: NewSetup) -> None:
    """The answer is ``spotd.v1`` alone; a wrong one, or none, is 401."""
    async with new_setup(relay_token="secret") as setup:
        encoded = urlsafe_b64encode(b"secret").decode().rstrip("=")
        async with setup.websocket(protocols=["spotd.v1", f"bearer.{encoded}"]) as client:
            assert client.connection.protocol == "spotd.v1"
        for protocols in ([], ["spotd.v1"], ["spotd.v1", "bearer.d3Jvbmc"]):
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await setup.http.ws_connect("/ws", protocols=protocols)
            assert refused.value.status == 401
        async with setup.http.ws_connect("/ws?token=secret") as connection:
            assert (await connection.receive_json())["type"] == "hello"


async def test_a_page_of_another_origin_is_refused(new_setup: NewSetup) -> None:
    """403, unless the origin is allowed."""
    async with new_setup(relay_origins="https://app.example.com") as setup:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await setup.http.ws_connect("/ws", origin="https://evil.example")
        assert refused.value.status == 403
        async with setup.websocket(origin="https://app.example.com"):
            pass


async def test_a_full_relay_answers_503(new_setup: NewSetup) -> None:
    """With Retry-After, also to a page that asks why. There is room when a client has left."""
    async with new_setup(relay_max_clients=1) as setup:
        async with setup.websocket():
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await setup.http.ws_connect("/ws")
            assert refused.value.status == 503
            assert refused.value.headers is not None
            assert refused.value.headers["Retry-After"] == "5"
            probe = await setup.http.get("/api/spot-prices?symbols=")
            assert (probe.status, probe.headers["Retry-After"]) == (503, "5")
            assert setup.relay.metrics.refused == {"503": 2}
        await until(lambda: setup.relay.full() is None, "room for another")
        async with setup.websocket():
            pass


async def test_a_relay_that_stops_says_try_again(new_setup: NewSetup) -> None:
    """4000 to websockets; event streams end."""
    async with new_setup() as setup:
        events = await setup.http.get("/sse?symbols=SPY")
        async with setup.websocket("SPY") as client:
            await client.synced()
            setup.source.price("SPY", 1)
            stopping = asyncio.create_task(setup.relay.stop(GUARD_S))
            assert await client.price("SPY", 1)
            assert await client.closed() == 4000
            await stopping
            assert setup.relay.not_ready()[0].startswith("stopping:")
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await setup.http.ws_connect("/ws")
            assert refused.value.status == 503
            probe = await setup.http.get("/api/spot-prices?symbols=")
            assert (await probe.json())["message"] == "the relay stops"
        assert b'"seq":1' in await events.read()


async def test_a_relay_that_stops_does_not_wait_for_a_client_that_does_not_read(
    new_setup: NewSetup,
) -> None:
    """Its connection ends after a while all the same."""
    async with new_setup() as setup:
        client = RawClient(setup.server.port)
        await client.connect()
        await until(lambda: setup.relay.hub.clients == 1, "the client")
        await setup.relay.stop(0.01)
        await until(lambda: setup.relay.has_nobody, "the connection to end")
        client.socket.close()


async def test_clients_are_told_that_redis_is_away(setup: Setup) -> None:
    """They are told when it is back and that no daemon runs, and not where it is."""
    async with setup.websocket() as client:
        setup.relay.connection(False, "Redis at 10.1.2.3:6379/0: connection refused")
        assert setup.relay.not_ready() == [
            "redis_away: Redis at 10.1.2.3:6379/0: connection refused"
        ]
        assert await client.next() == {
            "type": "relay",
            "state": "redis_away",
            "reason": "redis_away: Redis does not answer, or answers with an error",
        }
        setup.relay.connection(True, "")
        assert (await client.next())["state"] == "ready"
        setup.relay.status(None, b"")
        told = [await client.next(), await client.next()]
        assert {message["state"] for message in told} == {"absent", "no_daemon"}
        setup.relay.ended("SPY")
        await client.say(action="subscribe", symbols=["SPY"])
        await client.synced()
        setup.relay.ended("SPY")
        assert (await client.next())["state"] == "ended"
