"""Subscribing: additive, atomic, acknowledged with the whole state."""

import pytest
from websockets.asyncio.client import connect

from spotd.simulator import Limits, Simulator
from tests.simulator.dialogue import NOTHING, Message, dial, refusal

SYNTAX = refusal(400, "invalid syntax")
LIMIT = refusal(405, "symbol limit exceeded")
FEED = refusal(410, "invalid subscribe action for this feed")


async def test_subscriptions_add_up_and_acks_tell_all(sim: Simulator) -> None:
    """Each ack is the state of all channels in Alpaca's order; corrections follow trades."""
    async with dial(sim) as talk:
        ack = await talk.subscribe(quotes=["SPY"], trades=["SPY"])
        assert ack == NOTHING | {
            name: ["SPY"] for name in ("quotes", "trades", "corrections", "cancelErrors")
        }
        assert list(ack) == list(NOTHING)
        ack = await talk.subscribe(quotes=["BRK.B"], statuses=["*"], bars=[])
        assert ack["quotes"] == ["BRK.B", "SPY"]
        assert ack["statuses"] == ["*"]
        ack = await talk.unsubscribe(quotes=["SPY", "NVDA"], trades=["SPY"])
        assert ack == NOTHING | {"quotes": ["BRK.B"], "statuses": ["*"]}
        session = sim.sessions[0]
        assert (session.quotes, session.trades, session.statuses) == ({"BRK.B"}, set(), {"*"})


async def test_imbalances_are_acknowledged_when_asked_for(sim: Simulator) -> None:
    """The key is in the ack only then."""
    async with dial(sim) as talk:
        assert "imbalances" not in await talk.subscribe(quotes=["SPY"])
        assert (await talk.subscribe(imbalances=["SPY"]))["imbalances"] == ["SPY"]


async def test_corrections_cannot_be_subscribed_to_by_themselves(sim: Simulator) -> None:
    """They are accepted in a request and follow trades all the same."""
    async with dial(sim) as talk:
        ack = await talk.subscribe(trades=["SPY"], corrections=["QQQ"])
        assert ack["corrections"] == ["SPY"]


@pytest.mark.parametrize(
    "symbol",
    [
        "spy",
        "BRK-B",
        "BRK.b",
        "UI2T",
        "",
        " SPY",
        "SPY ",
        "A.B.C",
        ".A",
        "ÄB",
        "**",
        "SPY\n",
        7,
        None,
    ],
)
async def test_a_malformed_symbol_sinks_the_whole_request(sim: Simulator, symbol: str) -> None:
    """400, nothing changed, connection open."""
    async with dial(sim) as talk:
        await talk.subscribe(quotes=["QQQ"])
        assert await talk.subscribe(quotes=["SPY", symbol]) == SYNTAX
        assert sim.sessions[0].quotes == {"QQQ"}
        assert (await talk.subscribe(quotes=["SPY"]))["quotes"] == ["QQQ", "SPY"]


async def test_reserved_symbols_are_refused_though_well_formed(sim: Simulator) -> None:
    """So that a client can be made to find the culprit among many."""
    sim.faults.bad_symbols = {"EVIL"}
    async with dial(sim) as talk:
        assert await talk.subscribe(quotes=["SPY", "EVIL"]) == SYNTAX
        assert (await talk.subscribe(quotes=["SPY"]))["quotes"] == ["SPY"]


@pytest.mark.parametrize(
    ("message", "answer"),
    [
        ({"action": "subscribe"}, SYNTAX),
        ({"action": "subscribe", "quotes": []}, SYNTAX),
        ({"action": "subscribe", "quotes": "SPY"}, SYNTAX),
        ({"action": "subscribe", "orderbooks": ["SPY"]}, FEED),
        ({"action": "unsubscribe", "orderbooks": ["SPY"]}, FEED),
        ({"action": "unsubscribe", "quotes": ["spy"]}, SYNTAX),
        ({"action": "unsubscribe"}, NOTHING | {"quotes": ["QQQ"]}),
        ({}, SYNTAX),
        ("subscribe", SYNTAX),
    ],
)
async def test_what_is_refused(sim: Simulator, message: object, answer: Message) -> None:
    """Refusals leave state and connection as they were."""
    async with dial(sim) as talk:
        await talk.subscribe(quotes=["QQQ"])
        assert await talk.ask(message) == answer
        assert sim.sessions[0].quotes == {"QQQ"}


async def test_an_empty_subscribe_may_be_acknowledged(sim: Simulator) -> None:
    """Not documented, so a knob."""
    sim.limits.empty_subscribe = True
    async with dial(sim) as talk:
        assert await talk.subscribe() == NOTHING


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
async def test_bytes_that_are_no_message_are_400(
    sim: Simulator, encoding: str, data: bytes | str
) -> None:
    """Undecodable, or in a frame of the other encoding's kind."""
    headers = {"Content-Type": f"application/{encoding}"}
    async with dial(sim, encoding="json", headers=headers, login=False) as talk:
        await talk.hear()
        await talk.ws.send(data)
        assert await talk.hear() == [SYNTAX]
        assert sim.received.of("message")[0].data == data


@pytest.mark.parametrize(
    ("count", "request_", "refused"),
    [
        ("entries", {"quotes": ["A", "B", "C"]}, False),
        ("entries", {"quotes": ["A", "B"], "trades": ["A", "B"]}, True),
        ("symbols", {"quotes": ["A", "B"], "trades": ["A", "B"]}, False),
        ("symbols", {"quotes": ["A", "B"], "trades": ["C", "D"]}, True),
        ("entries", {"quotes": ["A"], "bars": ["A", "B", "C", "D"]}, False),
        ("entries", {"quotes": ["*"]}, True),
        ("entries", {"bars": ["*"]}, False),
    ],
)
async def test_the_symbol_limit_rejects_whole_requests(
    count: str, request_: dict[str, list[str]], refused: bool
) -> None:
    """405 is atomic: what was subscribed before stays, nothing of the request is added."""
    async with Simulator(limits=Limits(symbols=3, count=count)) as sim, dial(sim) as talk:
        answer = await talk.subscribe(**request_)
        assert (answer == LIMIT) is refused
        if refused:
            assert sim.sessions[0].quotes == set()
            assert await talk.subscribe(quotes=["D", "E", "F"])
            assert await talk.subscribe(quotes=["G"]) == LIMIT
            assert sim.sessions[0].quotes == {"D", "E", "F"}


async def test_the_limit_changes_at_once(sim: Simulator) -> None:
    """A knob turned on a live session counts from the next request on."""
    async with dial(sim) as talk:
        await talk.subscribe(quotes=["A", "B"])
        sim.limits.symbols = 2
        assert await talk.subscribe(quotes=["C"]) == LIMIT
        sim.limits.symbols = None
        assert (await talk.subscribe(quotes=["C"]))["quotes"] == ["A", "B", "C"]


async def test_the_wildcard_can_be_forbidden(sim: Simulator) -> None:
    """A plan may not allow it."""
    async with dial(sim) as talk:
        assert (await talk.subscribe(quotes=["*"]))["quotes"] == ["*"]
        sim.limits.wildcard = False
        assert await talk.subscribe(trades=["*"]) == LIMIT


async def test_channels_can_be_unavailable(sim: Simulator) -> None:
    """410 by the feed, or by the knob; an empty list asks for nothing."""
    async with dial(sim, feed="test") as talk:
        assert await talk.subscribe(statuses=["FAKEPACA"]) == FEED
        ack = await talk.subscribe(quotes=["FAKEPACA"], statuses=[])
        assert ack == {"T": "subscription", "trades": [], "quotes": ["FAKEPACA"], "bars": []}
    sim.faults.unavailable_channels = {"statuses"}
    async with dial(sim) as talk:
        assert await talk.subscribe(statuses=["*"]) == FEED


async def test_fragments_with_an_empty_last_one_are_one_message(sim: Simulator) -> None:
    """Alpaca's Python SDK sends even tiny messages as fragments, the last one empty."""
    async with dial(sim, encoding="json") as talk:
        symbols = [a + b + c for a in "ABCDEFGHIJ" for b in "ABCDEFGHIJ" for c in "ABCDEFGHIJ"]
        text = str({"action": "subscribe", "quotes": symbols}).replace("'", '"')
        await talk.ws.send([*(text[at : at + 3000] for at in range(0, len(text), 3000)), ""])
        assert (await talk.hear_one())["quotes"] == sorted(symbols)


async def test_too_long_a_message_is_1009() -> None:
    """The longest message a client may send is a limit."""
    async with Simulator(limits=Limits(max_message_bytes=4096)) as sim, dial(sim) as talk:
        await talk.say({"action": "subscribe", "quotes": ["A" * 5000]})
        assert await talk.hear_end() == 1009
        await sim.wait_for(lambda: not sim.sessions)
        assert sim.received.of("close")[-1].data == 1009


async def test_acks_may_be_late_missing_or_untrue(sim: Simulator) -> None:
    """Late, silent, an error whatever is asked, or without some symbols."""
    async with dial(sim) as talk:
        sim.faults.ack_delay_s = 0.02
        assert await talk.subscribe(quotes=["A"])
        sim.faults.ack_silent = True
        await talk.say({"action": "subscribe", "quotes": ["B"]})
        await sim.wait_for(lambda: sim.sessions[0].quotes == {"A", "B"})
        sim.faults.ack_silent = False
        sim.faults.subscribe_error = 500
        assert (await talk.subscribe(quotes=["C"]))["code"] == 500
        sim.faults.subscribe_error = 0
        sim.faults.ack_omits = {"D"}
        assert (await talk.subscribe(quotes=["C", "D"]))["quotes"] == ["A", "B", "C"]


async def test_everything_said_is_recorded(sim: Simulator) -> None:
    """Messages in order, by action; the record can be cleared."""
    async with dial(sim) as talk:
        await talk.subscribe(quotes=["A"])
        assert sim.received.messages("subscribe") == [{"action": "subscribe", "quotes": ["A"]}]
        assert len(sim.received.messages()) == 2
        assert [one.kind for one in sim.received] == ["connect", "message", "message"]
        assert sim.received[-1].session == sim.sessions[0].id
        sim.received.clear()
        assert len(sim.received) == 0


async def test_a_plain_client_without_content_type_speaks_json(sim: Simulator) -> None:
    """As with wscat in Alpaca's documentation."""
    async with connect(sim.stream_url(), proxy=None) as ws:
        assert await ws.recv() == '[{"T":"success","msg":"connected"}]'
        await ws.send('{"action":"auth","key":"demo-key","secret":"demo-secret"}')
        assert await ws.recv() == '[{"T":"success","msg":"authenticated"}]'
