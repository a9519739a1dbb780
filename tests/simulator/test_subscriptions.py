"""Subscribing over a socket: frames and bytes, late and missing acks, the record."""

import asyncio

import pytest
from websockets.asyncio.client import connect

from spotd.simulator import Simulator
from spotd.simulator.stream import LONGEST_MESSAGE_BYTES
from tests.kit.waiting import until
from tests.simulator.dialogue import NOTHING, dial, exchange, refusal

SYNTAX = refusal(400, "invalid syntax")
SYMBOLS = [a + b + c for a in "ABCDEFGHIJ" for b in "ABCDEFGHIJ" for c in "ABCDEFGHIJ"]


async def test_a_session_shows_its_subscriptions(sim: Simulator) -> None:
    """Quotes, trades and statuses are what was acknowledged."""
    async with dial(sim) as talk:
        await talk.subscribe(quotes=["BRK.B", "SPY"], trades=["SPY"], statuses=["*"])
        session = sim.sessions[0]
        assert (session.quotes, session.trades) == ({"BRK.B", "SPY"}, {"SPY"})
        ack = await talk.unsubscribe(quotes=["SPY"], trades=["SPY"])
        assert ack == NOTHING | {"quotes": ["BRK.B"], "statuses": ["*"]}
        assert (session.quotes, session.trades, session.statuses) == ({"BRK.B"}, set(), {"*"})


@pytest.mark.parametrize(
    ("encoding", "data"),
    [
        ("json", "{not json"),
        ("json", b'{"action":"subscribe","quotes":["SPY"]}'),
        ("msgpack", b"\xc1\xc1"),
        ("msgpack", '{"action":"subscribe","quotes":["SPY"]}'),
        ("msgpack", b"\xa2\xff\xfe"),
    ],
)
async def test_bytes_that_cannot_be_decoded_are_400(
    sim: Simulator, encoding: str, data: bytes | str
) -> None:
    """Bytes that cannot be decoded are 400, as are frames of the other encoding, and recorded."""
    headers = {"Content-Type": f"application/{encoding}"}
    async with dial(sim, encoding="json", headers=headers, login=False) as talk:
        await talk.hear()
        await talk.ws.send(data)
        assert await talk.hear() == [SYNTAX]
        assert sim.received.of("message")[0].data == data


async def test_fragments_with_an_empty_last_one_are_one_message(sim: Simulator) -> None:
    """Alpaca's Python SDK sends even small messages as fragments, the last one empty."""
    async with dial(sim, encoding="json") as talk:
        text = str({"action": "subscribe", "quotes": SYMBOLS}).replace("'", '"')
        await talk.ws.send([*(text[at : at + 3000] for at in range(0, len(text), 3000)), ""])
        assert (await talk.hear_one())["quotes"] == sorted(SYMBOLS)


async def test_a_message_that_is_too_long_ends_the_session(sim: Simulator) -> None:
    """The close code is 1009, and the record holds it."""
    async with dial(sim) as talk:
        await talk.say({"action": "subscribe", "quotes": ["A" * LONGEST_MESSAGE_BYTES]})
        assert await talk.hear_end() == 1009
        await until(lambda: not sim.sessions, "the session to end")
        assert sim.received.of("close")[-1].data == 1009


async def test_acks_may_be_missing(sim: Simulator) -> None:
    """The subscribe is carried out all the same, and the next request is answered."""
    async with dial(sim) as talk:
        sim.faults.ack_silent = True
        await talk.say({"action": "subscribe", "quotes": ["A"]})
        await until(lambda: sim.sessions[0].quotes == {"A"}, "the subscription")
        await exchange(sim)
        sim.faults.ack_silent = False
        assert (await talk.subscribe(quotes=["B"]))["quotes"] == ["A", "B"]


async def test_acks_may_be_late(sim: Simulator) -> None:
    """The subscribe is carried out at once; its ack comes after the delay."""
    async with dial(sim, close_timeout=0.01) as talk:
        sim.faults.ack_delay_s = 600.0
        asking = asyncio.create_task(talk.subscribe(quotes=["A"]))
        await until(lambda: sim.sessions[0].quotes == {"A"}, "the subscription")
        await exchange(sim)
        assert not asking.done()
        asking.cancel()
    sim.limits.connections = 2
    sim.faults.ack_delay_s = 0.01
    async with dial(sim) as talk:
        assert (await talk.subscribe(quotes=["A"]))["quotes"] == ["A"]


async def test_every_message_of_the_client_is_recorded(sim: Simulator) -> None:
    """The record is in order, can be read by action, and can be cleared."""
    async with dial(sim) as talk:
        await talk.subscribe(quotes=["A"])
        assert sim.received.messages("subscribe") == [{"action": "subscribe", "quotes": ["A"]}]
        assert len(sim.received.messages()) == 2
        assert [one.kind for one in sim.received] == ["connect", "message", "message"]
        assert sim.received[-1].session == sim.sessions[0].id
        sim.received.clear()
        assert len(sim.received) == 0


async def test_a_client_without_content_type_speaks_json(sim: Simulator) -> None:
    """A client without a content type speaks JSON, as wscat does in Alpaca's documentation."""
    async with connect(sim.stream_url(), proxy=None) as ws:
        assert await ws.recv() == '[{"T":"success","msg":"connected"}]'
        await ws.send('{"action":"auth","key":"demo-key","secret":"demo-secret"}')
        assert await ws.recv() == '[{"T":"success","msg":"authenticated"}]'
