"""What is sent: who gets it, in which frames, and byte for byte as Alpaca would."""

from datetime import UTC, datetime

import msgpack
import pytest

from spotd.simulator import Simulator
from tests.simulator.dialogue import dial

REFERENCE = bytes.fromhex(
    "918ba154a171a153a44141504ca26278a156a26270cb406593d70a3d70a4a2627364a26178a156a26170cb40659666"
    "66666666a26173ccc8a16391a152a17aa143a174d7ff88631b8c6123cf03"
)
QUOTE = {
    "T": "q",
    "S": "AAPL",
    "bx": "V",
    "bp": 172.62,
    "bs": 100,
    "ax": "V",
    "ap": 172.7,
    "as": 200,
    "c": ["R"],
    "z": "C",
    "t": 1629736707572049123,
}


async def test_msgpack_is_byte_for_byte_alpacas(sim: Simulator) -> None:
    """The reference frame: key order, float prices, the timestamp extension with nanoseconds."""
    async with dial(sim) as talk:
        await talk.subscribe(quotes=["AAPL"])
        await sim.send([QUOTE])
        assert await talk.hear_raw() == REFERENCE


async def test_whole_seconds_are_the_short_timestamp(sim: Simulator) -> None:
    """`d6 ff` and four bytes when there are no nanoseconds."""
    async with dial(sim) as talk:
        await talk.subscribe(quotes=["AAPL"])
        await sim.send([QUOTE | {"t": 1629736707000000000}])
        assert (await talk.hear_raw())[-6:] == b"\xd6\xff\x61\x23\xcf\x03"


@pytest.mark.parametrize(
    ("when", "text"),
    [
        (1629736707572049123, "2021-08-23T16:38:27.572049123Z"),
        (1614009104208000000, "2021-02-22T15:51:44.208Z"),
        (1614021300000000000, "2021-02-22T19:15:00Z"),
        (datetime(2021, 2, 22, 19, 15, 0, 250, UTC), "2021-02-22T19:15:00.00025Z"),
        ("2021-02-22T14:15:00.5-05:00", "2021-02-22T19:15:00.5Z"),
        ("2021-02-22T19:15:00Z", "2021-02-22T19:15:00Z"),
    ],
)
async def test_json_times_have_their_zeros_trimmed(sim: Simulator, when: object, text: str) -> None:
    """Up to nine decimals; times may be given as nanoseconds, datetime or text."""
    async with dial(sim, encoding="json") as talk:
        await talk.subscribe(trades=["AAPL"])
        await sim.send([{"T": "t", "S": "AAPL", "t": when}])
        assert (await talk.hear_one())["t"] == text


@pytest.mark.parametrize(
    "message",
    [
        {"T": "q", "S": "A", "t": "yesterday"},
        {"T": "q", "S": "A", "t": datetime(2021, 2, 22)},  # noqa: DTZ001 - the point of it
        {"S": "A"},
    ],
)
async def test_what_cannot_be_sent_is_a_value_error(
    sim: Simulator, message: dict[str, object]
) -> None:
    """A test's own mistake is not sent."""
    with pytest.raises(ValueError, match=r"time|type"):
        await sim.send([message])


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"bp": 10.0}, {"bp": 10.0, "ap": 10.02}),
        ({"ap": 10.0}, {"bp": 9.98, "ap": 10.0}),
        ({"bp": None}, {"bp": None, "ap": None}),
        ({"ap": None}, {"bp": None, "ap": None}),
        ({"bp": 11, "ap": 10}, {"bp": 11, "ap": 10, "bs": 100, "c": ["R"]}),
        ({"r": 5}, {"r": 5}),
    ],
)
async def test_absent_fields_are_filled_in(
    sim: Simulator, given: dict[str, object], expected: dict[str, object]
) -> None:
    """What is given stays, None too; `t` becomes now; integers stay integers."""
    async with dial(sim) as talk:
        await talk.subscribe(quotes=["A"])
        await sim.send([{"T": "q", "S": "A"} | given])
        heard = await talk.hear_one()
        assert {name: heard[name] for name in expected} == expected
        assert type(heard["bp"]) is type(expected.get("bp", 1.0))
        assert heard["t"] > 1_700_000_000_000_000_000
        assert next(iter(heard)) == "T"


async def test_one_frame_holds_what_a_session_subscribed_to(sim: Simulator) -> None:
    """Symbols and channels are told apart; a batch is one frame, and order is kept."""
    sim.limits.connections = 3
    everything = [{"T": kind, "S": symbol} for symbol in ("SPY", "QQQ") for kind in "qtsblcxiud"]
    async with dial(sim) as one, dial(sim, encoding="json") as two, dial(sim) as three:
        await one.subscribe(quotes=["SPY"], trades=["QQQ"], statuses=["*"])
        await two.subscribe(quotes=["*"], bars=["SPY"], lulds=["SPY"], imbalances=["SPY"])
        await three.subscribe(updatedBars=["QQQ"], dailyBars=["QQQ"])
        await sim.send(everything)
        heard = [[one["T"] + one["S"] for one in await each.hear()] for each in (one, two, three)]
    assert heard[0] == ["qSPY", "sSPY", "tQQQ", "sQQQ", "cQQQ", "xQQQ"]
    assert heard[1] == ["qSPY", "bSPY", "lSPY", "iSPY", "qQQQ"]
    assert heard[2] == ["uQQQ", "dQQQ"]
    await sim.wait_for(lambda: sim.stats.messages_sent == 13)
    assert (sim.stats.quotes_sent, sim.stats.trades_sent, sim.stats.frames_sent) == (3, 1, 12)


async def test_sessions_without_a_share_get_nothing(sim: Simulator) -> None:
    """Not authenticated, not subscribed, or on another feed: no frame at all."""
    async with dial(sim) as silent, dial(sim, feed="sip") as other, dial(sim, login=False) as mute:
        await mute.greet()
        await other.subscribe(quotes=["SPY"])
        await sim.send([{"T": "q", "S": "SPY"}], feed="iex")
        await sim.send([{"T": "q", "S": "QQQ"}])
        assert (await mute.login())["code"] == 406
        assert await silent.subscribe(quotes=["SPY"])
        assert await other.subscribe(quotes=["SPY"])


async def test_sessions_that_want_the_same_share_a_frame(sim: Simulator) -> None:
    """The same bytes to each."""
    sim.limits.connections = 2
    async with dial(sim) as one, dial(sim) as two:
        await one.subscribe(quotes=["SPY"])
        await two.subscribe(quotes=["SPY"])
        await sim.send([{"T": "q", "S": "SPY"}])
        assert await one.hear_raw() == await two.hear_raw()


async def test_unsubscribed_symbols_fall_silent(sim: Simulator) -> None:
    """After the ack nothing more of them comes."""
    async with dial(sim) as talk:
        await talk.subscribe(quotes=["SPY", "QQQ"])
        await talk.unsubscribe(quotes=["SPY"])
        await sim.send([{"T": "q", "S": "SPY"}, {"T": "q", "S": "QQQ"}])
        assert (await talk.hear_one())["S"] == "QQQ"


async def test_data_may_come_late_after_an_unsubscribe(sim: Simulator) -> None:
    """For a while, then no more."""
    sim.faults.late_data_s = 0.1
    async with dial(sim) as talk:
        await talk.subscribe(quotes=["SPY"])
        assert (await talk.unsubscribe(quotes=["SPY"]))["quotes"] == []
        await sim.send([{"T": "q", "S": "SPY"}])
        assert (await talk.hear_one())["S"] == "SPY"
        session = sim.sessions[0]
        while session.conversation.late["quotes"]:
            await talk.subscribe(trades=["QQQ"])
        await sim.send([{"T": "q", "S": "SPY"}])
        assert (await talk.subscribe(trades=["QQQ"]))["T"] == "subscription"


async def test_raw_frames_go_to_every_session(sim: Simulator) -> None:
    """Text or binary as given or as said, and any bytes on the bare connection."""
    async with dial(sim) as talk:
        await sim.send_raw("text")
        assert await talk.hear_raw() == "text"
        await sim.send_raw(b"\x00bytes")
        assert await talk.hear_raw() == b"\x00bytes"
        await sim.send_raw(b"text too", binary=False)
        assert await talk.hear_raw() == "text too"
        await sim.send_control({"T": "error", "code": 500, "msg": "internal error"})
        assert (await talk.hear_one())["code"] == 500
        await sim.send_raw(b"\xff\xff no frame", framed=False)
        assert await talk.hear_end() == 1006
        await sim.wait_for(lambda: not sim.sessions)
        assert sim.received.of("close")[0].data == 1002


async def test_unknown_types_follow_their_symbol(sim: Simulator) -> None:
    """A message of a new type reaches whoever is subscribed to its symbol, or all without one."""
    async with dial(sim) as talk:
        await talk.subscribe(quotes=["SPY"])
        await sim.send([{"T": "new", "S": "QQQ"}, {"T": "new", "S": "SPY"}, {"x": 1, "T": "newer"}])
        assert await talk.hear() == [{"T": "new", "S": "SPY"}, {"T": "newer", "x": 1}]


async def test_times_that_are_none_stay_none(sim: Simulator) -> None:
    """An explicit None is the way to send a malformed message."""
    async with dial(sim) as talk:
        await talk.subscribe(quotes=["SPY"])
        await sim.send([{"T": "q", "S": "SPY", "t": None}])
        raw = await talk.hear_raw()
        assert isinstance(raw, bytes)
        assert msgpack.unpackb(raw)[0]["t"] is None


async def test_halts_and_resumptions_in_the_codes_of_the_tape(sim: Simulator) -> None:
    """CTA tapes say 2 and 3, UTP tapes H and T."""
    async with dial(sim) as talk:
        await talk.subscribe(statuses=["*"])
        for symbol, halted, resumed in (("BAC", "2", "3"), ("AAPL", "H", "T")):
            await sim.halt(symbol)
            status = await talk.hear_one()
            assert (status["T"], status["S"], status["sc"]) == ("s", symbol, halted)
            await sim.resume(symbol)
            assert (await talk.hear_one())["sc"] == resumed
