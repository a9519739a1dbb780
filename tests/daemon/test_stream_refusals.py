"""What Alpaca refuses and what the feed does not offer: how it is asked for, and what is told.

Which request follows from which answer is proved in tests/core. Here the requests are those that
the simulator received.
"""

from __future__ import annotations

import msgspec
import pytest
import structlog.testing

from spotd.models import SymbolState, SymbolStateName, utc
from spotd.simulator import Simulator
from tests.daemon.rig import NewRig, Rig, logged, quote, trade
from tests.kit.asked import STATUSES, asked, asked_symbols, many, subscribe, unsubscribe
from tests.kit.values import Json
from tests.kit.waiting import until
from tests.kit.websocket import ServerEnd, websocket_server


async def refused(daemon: Rig) -> dict[str, Json]:
    """Return the states of the refused symbols, as consumers read them."""
    states = await daemon.values.states()
    return {name: state for name, state in states.items() if state["state"] == "refused"}


async def told_refused(daemon: Rig, *symbols: str) -> dict[str, Json]:
    """Wait until exactly these symbols are told to be refused. Return their states."""

    async def all_told() -> dict[str, Json] | None:
        found = await refused(daemon)
        return found if found.keys() == set(symbols) else None

    return await until(all_told, f"{symbols[:20]} to be refused") or {}


# What Alpaca refuses


async def test_what_an_acknowledgement_lacks_is_refused(rig: NewRig, sim: Simulator) -> None:
    """The symbol is told to be refused, with its reason, and is not asked for again."""
    sim.faults.ack_omits = {"QQQ"}
    async with rig() as daemon:
        await daemon.values.want("SPY", "QQQ", "IWM")
        states = await told_refused(daemon, "QQQ")
        assert states["QQQ"]["reason"] == "refused_by_alpaca"
        assert "acknowledgement" in states["QQQ"]["detail"]
        await until(lambda: daemon.values.live("SPY", "IWM"), "the others to be live")
        await daemon.want("DIA")
        assert asked_symbols(sim) == [subscribe("IWM", "QQQ", "SPY"), subscribe("DIA")]


async def test_an_ill_formed_symbol_is_found_and_the_others_are_live(
    rig: NewRig, sim: Simulator
) -> None:
    """400 refuses a whole request, so its halves are asked for, down to the culprit."""
    sim.faults.bad_symbols = {"C"}
    async with rig() as daemon:
        await daemon.values.want("A", "B", "C", "D")
        states = await told_refused(daemon, "C")
        assert "400" in states["C"]["detail"]
        await until(lambda: daemon.values.live("A", "B", "D"), "the others to be live")
        assert asked_symbols(sim) == [
            subscribe("A", "B", "C", "D"),
            subscribe("A", "B"),
            subscribe("C", "D"),
            subscribe("C"),
            subscribe("D"),
        ]
        assert sim.stats.connections == 1


@pytest.mark.parametrize(("count", "limit"), [("symbols", 37), ("entries", 18)])
async def test_a_symbol_limit_is_learned_and_shown(
    rig: NewRig, sim: Simulator, count: str, limit: int
) -> None:
    """As many symbols as the plan allows are live, and the others say what the limit is."""
    symbols = many(60)
    sim.limits.symbols, sim.limits.count = 37, count
    with structlog.testing.capture_logs() as lines:
        async with rig() as daemon:
            await daemon.values.want(*symbols)
            states = await told_refused(daemon, *symbols[limit:])
            assert {state["reason"] for state in states.values()} == {"symbol_limit"}
            assert all(str(limit) in state["detail"] for state in states.values())
            await until(lambda: daemon.values.live(*symbols[:limit]), "the others to be live")
            assert sim.sessions[0].quotes == set(symbols[:limit])
            assert daemon.status["symbols"]["refused"] == 60 - limit
            assert sim.stats.connections == 1
    told = logged(lines, "symbol limit of the plan reached")
    assert [line["symbols"] for line in told] == [limit]


async def test_statuses_are_given_back_for_a_symbol(rig: NewRig, sim: Simulator) -> None:
    """Before a limit is believed, their entry is freed, and the symbol is asked for again."""
    sim.limits.symbols, sim.limits.count = 2, "symbols"
    async with rig() as daemon:
        await daemon.want("A", "B")
        await until(lambda: sim.sessions[0].statuses == {"*"}, "the statuses")
        await daemon.values.want("C")
        await told_refused(daemon, "C")
        assert asked(sim) == [
            subscribe("A", "B"),
            STATUSES,
            subscribe("C"),
            {"action": "unsubscribe", "statuses": ["*"]},
            subscribe("C"),
        ]
        assert sim.sessions[0].statuses == set()


async def test_max_symbols_is_never_exceeded(rig: NewRig, sim: Simulator) -> None:
    """SPOTD_MAX_SYMBOLS holds although Alpaca refuses nothing; freed room is used."""
    async with rig(max_symbols=3) as daemon:
        await daemon.values.want("A", "B", "C", "D", "E")
        await told_refused(daemon, "D", "E")
        await daemon.values.unwant("C")
        await told_refused(daemon, "E")
        await until(lambda: daemon.active == {"A", "B", "D"}, "the room to be used")
        assert asked_symbols(sim) == [
            subscribe("A", "B", "C"), unsubscribe("C"), subscribe("D"),
        ]  # fmt: skip


@pytest.mark.parametrize("limit", ["setting", "plan"])
async def test_what_is_live_keeps_its_room_over_a_restart(
    rig: NewRig, sim: Simulator, limit: str
) -> None:
    """A new daemon gives the room to what its predecessor had live, then to the set.

    The detail of a refusal names the limit.
    """
    settings = {"max_symbols": 2} if limit == "setting" else {}
    sim.limits.symbols, sim.limits.count = (None if settings else 2), "symbols"
    detail = (
        "SPOTD_MAX_SYMBOLS=2 is the limit" if settings else ("the limit of the Alpaca plan is 2")
    )
    async with rig(**settings) as daemon:
        await daemon.values.lease("Y@a", for_s=600)
        await daemon.want("Z")
        await until(lambda: daemon.active == {"Y", "Z"}, "the first come to be live")
        await daemon.values.lease("B@a", for_s=600)
        await daemon.values.want("C")
        states = await told_refused(daemon, "B", "C")
        assert {state["detail"] for state in states.values()} == {detail}
        await until(lambda: daemon.values.live("Y", "Z"), "their states")
    async with rig(**settings) as daemon:
        await daemon.values.lease("A@a", for_s=600)
        await told_refused(daemon, "A", "B", "C")
        await until(lambda: daemon.active == {"Y", "Z"}, "the same symbols to be live")
        await daemon.values.unwant("Z")
        await told_refused(daemon, "A", "B")
        await until(lambda: daemon.active == {"C", "Y"}, "the set to come before leases")


async def test_what_another_daemon_had_live_keeps_its_room(rig: NewRig) -> None:
    """After a term of another daemon, its states say what is live, not this one's past."""
    async with rig(max_symbols=1) as daemon:
        await daemon.want("A")
        await until(lambda: daemon.values.live("A"), "A to be live")
        await daemon.values.want("B")
        await told_refused(daemon, "B")
        await daemon.lose_leadership()
        left: dict[str, SymbolStateName] = {"A": "pending", "B": "live"}
        states = {
            symbol: SymbolState(symbol=symbol, state=state, reason=None, since=utc(0.0)).to_json()
            for symbol, state in left.items()
        }
        await daemon.values.redis.hset(daemon.values.keys.states, mapping=states)
        await daemon.values.redis.set(daemon.values.keys.seq, "1 other:1")
        await daemon.lead_again()
        await told_refused(daemon, "A")
        await until(lambda: daemon.active == {"B"}, "B to be live")


async def test_the_whole_market_is_refused_beside_a_limit(rig: NewRig, sim: Simulator) -> None:
    """`*` would bring more than SPOTD_MAX_SYMBOLS, so it is not asked for."""
    async with rig(max_symbols=2, allow_wildcard=True) as daemon:
        await daemon.values.want("*", "SPY")
        states = await told_refused(daemon, "*")
        assert states["*"]["reason"] == "symbol_limit"
        assert "SPOTD_MAX_SYMBOLS=2" in states["*"]["detail"]
        await until(lambda: daemon.values.live("SPY"), "SPY to be live")
        assert asked_symbols(sim) == [subscribe("SPY")]


async def test_a_stream_of_which_everything_is_refused_is_at_work(
    rig: NewRig, sim: Simulator
) -> None:
    """Nothing is left to ask for, also on the next session, so no answer is waited for."""

    def all_refused() -> bool:
        status = daemon.status
        return (status["state"], status["reason"]) == (
            "streaming", "every desired symbol is refused",
        )  # fmt: skip

    sim.limits.symbols = 0
    async with rig() as daemon:
        await daemon.values.want("A", "B")
        await until(all_refused, "both to be refused")
        await sim.drop_sessions("close", 1012)
        await until(lambda: sim.stats.connections == 2 and all_refused(), "both, once more")
        assert not daemon.daemon.not_ready()
        sim.limits.symbols = None
        await sim.drop_sessions("close", 1012)
        await until(lambda: daemon.values.live("A", "B"), "both to be live")
        assert daemon.status["reason"] is None


# What the feed does not offer


async def test_a_feed_without_trades_streams_quotes(rig: NewRig, sim: Simulator) -> None:
    """After a 410 quotes are asked for alone, also those of symbols that come and leave later."""
    sim.faults.unavailable_channels = {"trades"}
    async with rig() as daemon:
        await daemon.want_only("SPY")
        await daemon.want_only("QQQ")
        assert asked_symbols(sim) == [
            subscribe("SPY"),
            {"action": "subscribe", "quotes": ["SPY"]},
            {"action": "unsubscribe", "quotes": ["SPY"]},
            {"action": "subscribe", "quotes": ["QQQ"]},
        ]
        assert sim.stats.connections == 1


async def test_without_trades_a_last_price_is_forgotten(rig: NewRig, sim: Simulator) -> None:
    """It would not change any more, so null is published in its place; the quote stays."""

    async def last_price() -> object:
        last = await daemon.values.last("SPY")
        return "no update" if last is None else last["last_price"]

    async def is_null() -> bool:
        return await last_price() is None

    async def is_known() -> bool:
        return await last_price() == 1.5

    async with rig() as daemon:
        await daemon.want("SPY")
        await daemon.send(quote("SPY", 1.0), trade("SPY", 1.5))
        await until(is_known, "the last price")
        sim.faults.unavailable_channels = {"trades"}
        await sim.drop_sessions("close", 1012)
        await until(is_null, "the last price to be forgotten")
        assert await daemon.values.bid("SPY") == 1.0


async def test_trades_that_are_not_acknowledged_are_told_once(rig: NewRig) -> None:
    """The log says for each request how many symbols have no last price; quotes go on."""
    answered: list[Json] = []

    async def behave(alpaca: ServerEnd) -> None:
        await alpaca.welcome()
        ack: Json = {"T": "subscription", "quotes": [], "trades": [], "statuses": []}
        while True:
            request = msgspec.msgpack.decode((await alpaca.read()).data)
            ack["quotes"] += request.get("quotes", [])
            ack["statuses"] += request.get("statuses", [])
            alpaca.say(ack)
            answered.append(request)

    with structlog.testing.capture_logs() as lines:
        async with (
            websocket_server(behave) as port,
            rig(stream_url=f"ws://127.0.0.1:{port}/") as daemon,
        ):
            await daemon.want("A", "B")
            await until(lambda: STATUSES in answered, "the statuses")
            await daemon.want("C")
    assert answered == [subscribe("A", "B"), STATUSES, subscribe("C")]
    told = logged(lines, "trades were not acknowledged")
    assert [line["symbols"] for line in told] == [2, 1]


async def test_a_feed_without_statuses_streams_all_the_same(rig: NewRig, sim: Simulator) -> None:
    """Halts are not shown then, and the statuses are not asked for again; nothing else is lost."""
    sim.faults.unavailable_channels = {"statuses"}
    async with rig() as daemon:
        await daemon.want("SPY")
        await until(lambda: sim.stats.refused[410], "the refusal")
        await daemon.want("QQQ")
        await daemon.want_only()
        assert asked(sim) == [
            subscribe("SPY"), STATUSES, subscribe("QQQ"), unsubscribe("QQQ", "SPY"),
        ]  # fmt: skip
        assert sim.stats.connections == 1


# Answers that do not fit


async def test_an_unsubscribe_that_is_not_carried_out_ends_the_session(rig: NewRig) -> None:
    """The symbol is still in the acknowledgement, so only a new session is sure to be without."""
    heard: list[list[Json]] = []

    async def behave(alpaca: ServerEnd) -> None:
        await alpaca.welcome()
        heard.append([])
        subscribed: set[str] = set()
        while True:
            request = msgspec.msgpack.decode((await alpaca.read()).data)
            subscribed.update(request.get("quotes", []))
            if "statuses" not in request:
                heard[-1].append(request)
            listed = sorted(subscribed)
            alpaca.say({"T": "subscription", "quotes": listed, "trades": listed})

    async with (
        websocket_server(behave) as port,
        rig(stream_url=f"ws://127.0.0.1:{port}/") as daemon,
    ):
        await daemon.want("A", "B")
        await daemon.want_only("A")
        assert heard == [[subscribe("A", "B"), unsubscribe("B")], [subscribe("A")]]
        assert daemon.daemon.metrics.reconnects == {"protocol": 1}


async def test_an_unsubscribe_that_is_refused_ends_the_session(rig: NewRig, sim: Simulator) -> None:
    """It would be refused again, without end; a new session knows nothing of the symbol."""
    async with rig() as daemon:
        await daemon.want("A", "B")
        sim.faults.unavailable_channels = {"trades"}
        await daemon.want_only("A")
        assert asked_symbols(sim).count(unsubscribe("B")) == 1
        assert daemon.daemon.metrics.reconnects == {"code_410": 1}
        assert sim.stats.connections == 2
