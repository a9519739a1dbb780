"""Data over a socket: which session receives it, in which frames."""

from spotd.simulator import Simulator
from tests.kit.waiting import until
from tests.simulator.dialogue import dial


async def test_one_frame_holds_what_a_session_subscribed_to(sim: Simulator) -> None:
    """A batch is one frame per session, in its order, without what it did not subscribe to."""
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
    await until(lambda: sim.stats.messages_sent == 13, "13 messages")
    assert (sim.stats.quotes_sent, sim.stats.trades_sent, sim.stats.frames_sent) == (3, 1, 12)


async def test_sessions_that_are_not_subscribed_receive_nothing(sim: Simulator) -> None:
    """A session without authentication or subscription, or on another feed, receives nothing."""
    async with dial(sim) as idle, dial(sim, feed="sip") as other, dial(sim, login=False) as late:
        await late.greet()
        await other.subscribe(quotes=["SPY"])
        await sim.send([{"T": "q", "S": "SPY"}], feed="iex")
        await sim.send([{"T": "q", "S": "QQQ"}])
        assert (await late.login())["code"] == 406
        assert (await idle.subscribe(quotes=["SPY"]))["T"] == "subscription"
        assert (await other.subscribe(quotes=["SPY"]))["T"] == "subscription"


async def test_sessions_with_the_same_subscriptions_receive_the_same_bytes(sim: Simulator) -> None:
    """Sessions with the same subscriptions receive the same frame."""
    sim.limits.connections = 2
    async with dial(sim) as one, dial(sim) as two:
        await one.subscribe(quotes=["SPY"])
        await two.subscribe(quotes=["SPY"])
        await sim.send([{"T": "q", "S": "SPY"}])
        assert await one.hear_raw() == await two.hear_raw()


async def test_unsubscribed_symbols_are_not_sent(sim: Simulator) -> None:
    """After the ack no more of their data comes."""
    async with dial(sim) as talk:
        await talk.subscribe(quotes=["SPY", "QQQ"])
        await talk.unsubscribe(quotes=["SPY"])
        await sim.send([{"T": "q", "S": "SPY"}, {"T": "q", "S": "QQQ"}])
        assert (await talk.hear_one())["S"] == "QQQ"


async def test_data_may_come_late_after_an_unsubscribe(sim: Simulator) -> None:
    """It comes until the time of the fault is over."""
    async with dial(sim) as talk:
        for late_data_s in (600.0, 0.01):
            sim.faults.late_data_s = late_data_s
            await talk.subscribe(quotes=["SPY"])
            assert (await talk.unsubscribe(quotes=["SPY"]))["quotes"] == []
            if late_data_s > 1:
                await sim.send([{"T": "q", "S": "SPY"}])
                assert (await talk.hear_one())["S"] == "SPY"
        late = sim.sessions[0].conversation.late
        await until(lambda: not late["quotes"], "the end of late data")
        await sim.send([{"T": "q", "S": "SPY"}])
        assert (await talk.subscribe(trades=["QQQ"]))["T"] == "subscription"


async def test_raw_frames_go_to_every_session(sim: Simulator) -> None:
    """They are text or binary as said; any bytes may go without a frame around them."""
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
        await until(lambda: not sim.sessions, "the session to end")
        assert sim.received.of("close")[0].data == 1002


async def test_halts_and_resumptions_are_in_the_codes_of_the_tape(sim: Simulator) -> None:
    """CTA tapes have 2 and 3, UTP tapes H and T."""
    async with dial(sim) as talk:
        await talk.subscribe(statuses=["*"])
        for symbol, halted, resumed in (("BAC", "2", "3"), ("AAPL", "H", "T")):
            await sim.halt(symbol)
            status = await talk.hear_one()
            assert (status["T"], status["S"], status["sc"]) == ("s", symbol, halted)
            await sim.resume(symbol)
            assert (await talk.hear_one())["sc"] == resumed
