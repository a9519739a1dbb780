"""How sessions live and end: pings, slow clients, close codes, resets."""

import asyncio
import socket

import pytest
from websockets.asyncio.client import connect

from spotd.simulator import Limits, Simulator
from spotd.simulator.session import Ending
from tests.kit.waiting import GUARD_S, until
from tests.simulator.dialogue import dial, exchange, refusal

SPY = {"T": "q", "S": "SPY"}


async def test_client_pings_are_answered_unless_told_not_to(sim: Simulator) -> None:
    """They are answered while the stream is mute, a known state of Alpaca's stream."""
    sim.faults.mute = True
    async with dial(sim) as talk:
        async with asyncio.timeout(GUARD_S):
            await (await talk.ws.ping(b"hello"))
        assert sim.received.of("ping")[0].data == b"hello"
        sim.faults.ignore_pings = True
        waiting = asyncio.ensure_future(await talk.ws.ping(b"again"))
        await until(lambda: sim.received.of("ping")[1:], "the ping")
        assert (await talk.subscribe(quotes=["SPY"]))["quotes"] == ["SPY"]
        assert not waiting.done()


async def test_the_server_pings_and_records_the_pongs() -> None:
    """It pings again and again; a client that answers is not cut."""
    limits = Limits(ping_period_s=0.01)
    async with Simulator(limits=limits) as sim, dial(sim) as talk:
        await until(lambda: len(sim.received.of("pong")) >= 5, "pongs")
        assert (await talk.subscribe(quotes=["SPY"]))["quotes"] == ["SPY"]


async def test_a_client_that_answers_no_ping_is_cut() -> None:
    """A close frame with 1011 comes, and then the connection ends."""
    limits = Limits(ping_period_s=0.05, ping_timeout_s=0.2, close_timeout_s=0.1)
    async with Simulator(limits=limits) as sim:
        reader, writer = await handshake(sim)
        async with asyncio.timeout(GUARD_S):
            assert b"\x88\x02\x03\xf3" in await reader.read()
        await until(lambda: not sim.sessions, "the session to end")
        writer.close()
        await writer.wait_closed()


async def test_pings_can_be_off_and_come_back() -> None:
    """With period 0 there are none; a new period also applies to live sessions."""
    async with Simulator(limits=Limits(ping_period_s=0)) as sim, dial(sim):
        await exchange(sim)
        assert not sim.received.of("pong")
        sim.limits.ping_period_s = 0.01
        await until(lambda: sim.received.of("pong"), "a pong")


@pytest.mark.parametrize("code", [1000, 1001, 1011])
async def test_sessions_can_be_closed_with_a_code(sim: Simulator, code: int) -> None:
    """The client receives the code, and its answer is recorded."""
    async with dial(sim) as talk:
        await sim.drop_sessions("close", code)
        await sim.drop_sessions("close", 4000)  # they are closing already, so nothing more happens
        assert await talk.hear_end() == code
        await until(lambda: not sim.sessions, "the session to end")
        assert sim.received.of("close")[-1].data == code


@pytest.mark.parametrize("how", ["abort", "eof"])
async def test_sessions_can_vanish(sim: Simulator, how: Ending) -> None:
    """They end by a reset or an end of file, without a close frame."""
    reader, writer = await handshake(sim)
    await reader.readuntil(b"connected")
    await sim.drop_sessions(how)
    async with asyncio.timeout(GUARD_S):
        if how == "abort":
            with pytest.raises(ConnectionResetError):
                await reader.read()
        else:
            assert b"\x88" not in await reader.read()
    await until(lambda: not sim.sessions, "the session to end")
    assert sim.received.of("close")[-1].data is None
    writer.close()


async def test_a_client_that_answers_no_close_frame_is_cut() -> None:
    """The session ends without the answer."""
    async with Simulator(limits=Limits(close_timeout_s=0.05)) as sim, stalled(sim):
        await sim.drop_sessions("close")
        await until(lambda: not sim.sessions, "the session to end")


async def test_slow_clients_are_told_and_cut() -> None:
    """A client that does not read fills its buffer; it is then cut once."""
    limits = Limits(out_buffer_bytes=100_000, close_timeout_s=0.2)
    async with Simulator(limits=limits) as sim, stalled(sim):
        for _ in range(10_000):
            await sim.send([SPY] * 500)
            if sim.stats.slow_clients:
                break
        assert sim.stats.slow_clients == 1
        await until(lambda: not sim.sessions, "the session to end")


@pytest.mark.parametrize("silent", [False, True])
async def test_407_may_or_may_not_arrive(sim: Simulator, silent: bool) -> None:
    """Alpaca does not promise that it arrives before the close frame."""
    sim.faults.slow_client_silent = silent
    async with dial(sim) as talk:
        await sim.cut_slow_clients()
        if not silent:
            assert await talk.hear_one() == refusal(407, "slow client")
        assert await talk.hear_end() == 1008


async def test_what_is_written_can_be_waited_for(sim: Simulator) -> None:
    """`drained` returns when all frames are written, or when a stalled client is gone."""
    async with dial(sim) as talk:
        await talk.subscribe(quotes=["SPY"])
        await sim.send([SPY] * 100)
        await sim.drained()
        assert sim.stats.quotes_sent == 100
        assert len(await talk.hear()) == 100
    async with stalled(sim):
        while not sim.sessions[-1].queued_bytes:
            await sim.send([SPY] * 1000)
        draining = asyncio.create_task(sim.drained())
        await exchange(sim)
        assert not draining.done()
        await sim.drop_sessions("abort")
        await sim.send([SPY])
        await draining


async def test_half_open_reads_and_writes_nothing_until_it_ends(sim: Simulator) -> None:
    """As with a dead peer, no ack, pong or data comes; all of it comes afterwards."""
    async with dial(sim) as talk:
        await talk.subscribe(quotes=["SPY"])
        sim.faults.half_open = True
        pong = asyncio.ensure_future(await talk.ws.ping())
        await talk.say({"action": "subscribe", "quotes": ["QQQ"]})
        await sim.send([SPY])
        await exchange(sim)
        assert not pong.done()
        assert not sim.received.messages("subscribe")[1:]
        sim.faults.half_open = False
        assert (await talk.hear_one())["T"] == "q"
        assert (await talk.hear_one())["quotes"] == ["QQQ", "SPY"]


async def test_a_half_open_session_is_not_freed_by_its_client(sim: Simulator) -> None:
    """Since its close frame is not read, it keeps its connection slot."""
    async with dial(sim, close_timeout=0.01):
        sim.faults.half_open = True
    await exchange(sim)
    assert len(sim.sessions) == 1
    sim.faults.half_open = False
    await until(lambda: not sim.sessions, "the session to end")


async def test_flapping_ends_sessions_after_some_data(sim: Simulator) -> None:
    """Each session receives some data messages, then the close code of the fault."""
    sim.faults.close_after_messages = 2
    for code in (1001, 1006):
        sim.faults.close_code = code
        async with dial(sim) as talk:
            await talk.subscribe(quotes=["SPY"])
            for _ in range(3):
                await sim.send([SPY])
            assert await talk.hear_end() == code
        await until(lambda: not sim.sessions, "the session to end")
    assert sim.stats.messages_sent == 4


async def test_frames_may_drip(sim: Simulator) -> None:
    """A frame that is written in small pieces arrives whole; the speed may change in between."""
    async with dial(sim) as talk:
        symbols = [a + b for a in "ABCDEFGHIJKLM" for b in "ABCDEFGHIJKLM"]
        await talk.subscribe(quotes=symbols)
        for number in (1, 2, len(symbols)):
            sim.faults.drip_bytes_per_s = 20_000 if number < 100 else 2_000
            await sim.send([{"T": "q", "S": one} for one in symbols[:number]])
            if number > 100:
                await until(lambda: sim.stats.frames_sent >= 5, "the frames before it")
                sim.faults.drip_bytes_per_s = 0
            assert len(await talk.hear()) == number
        sim.faults.drip_bytes_per_s = 10_000_000
        await sim.send([{"T": "q", "S": one} for one in symbols * 10])
        assert len(await talk.hear()) == 10 * len(symbols)


async def test_stopping_closes_sessions_with_1001() -> None:
    """It is the code of a server that goes away."""
    sim = Simulator()
    await sim.start()
    async with dial(sim) as talk:
        await sim.stop()
        assert await talk.hear_end() == 1001


async def test_stopping_does_not_wait_for_hanging_clients() -> None:
    """Hanging handshakes and half-open sessions are cut."""
    sim = Simulator(limits=Limits(close_timeout_s=0.05))
    await sim.start()
    async with dial(sim, close_timeout=0.01):
        sim.faults.half_open = True
        sim.faults.handshake_hang = True
        hanging = asyncio.create_task(connect(sim.stream_url("sip"), proxy=None).__aenter__())
        await until(lambda: sim.received.of("connect")[1:], "the handshake")
        async with asyncio.timeout(GUARD_S):
            await sim.stop()
        with pytest.raises(Exception, match=r"connection|response|EOF"):
            await hanging


async def test_a_taken_port_is_an_error() -> None:
    """The simulator that could not start can be stopped."""
    async with Simulator() as sim:
        other = Simulator(port=sim.port)
        with pytest.raises(OSError, match="address already in use"):
            await other.start()
        await other.stop()


async def test_unknown_feeds_and_knobs_are_errors(sim: Simulator) -> None:
    """A misspelt name is an error, not ignored."""
    with pytest.raises(ValueError, match="unknown feeds: nyse"):
        Simulator(feeds=["iex", "nyse"])
    with pytest.raises(AttributeError, match="no knob 'mutee'"):
        sim.faults.mutee = True


async def test_waiting_has_a_limit(sim: Simulator) -> None:
    """A condition that does not become true is a TimeoutError."""
    with pytest.raises(TimeoutError):
        await sim.wait_for(lambda: sim.sessions, timeout_s=0.01)
    async with dial(sim):
        await sim.wait_for(lambda: sim.sessions)


async def handshake(sim: Simulator) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Return a bare connection after its handshake; it answers nothing by itself."""
    reader, writer = await asyncio.open_connection("127.0.0.1", sim.port)
    writer.write(
        b"GET /v2/iex HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
        b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    return reader, writer


class stalled:  # noqa: N801 - used as a function
    """A subscribed client with small buffers that stops reading and does not close."""

    def __init__(self, sim: Simulator) -> None:
        self.sim = sim

    async def __aenter__(self) -> None:
        raw = socket.create_connection(("127.0.0.1", self.sim.port))
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.ws = await connect(self.sim.stream_url(), sock=raw, compression=None, proxy=None)
        for message in (
            '{"action":"auth","key":"demo-key","secret":"demo-secret"}',
            '{"action":"subscribe","quotes":["SPY"]}',
        ):
            await self.ws.recv()
            await self.ws.send(message)
        await self.ws.recv()
        self.ws.transport.pause_reading()

    async def __aexit__(self, *_exc: object) -> None:
        self.ws.transport.abort()
        await self.ws.wait_closed()
