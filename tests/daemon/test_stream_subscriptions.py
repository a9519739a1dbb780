"""What the daemon asks Alpaca for, in which order, and what it says of the answers.

Which request follows from which answer is proved in tests/core. Here the requests are those that
the simulator received.
"""

from __future__ import annotations

from itertools import product
from string import ascii_uppercase
from typing import Any

import msgspec
import pytest
import structlog.testing

from spotd.simulator import Simulator
from spotd.symbols import WILDCARD
from tests.daemon.rig import NewRig, Rig, logged, quote, trade
from tests.kit.values import Json
from tests.kit.waiting import until
from tests.kit.websocket import ServerEnd, websocket_server

STATUSES = {"action": "subscribe", "statuses": ["*"]}


def many(count: int) -> list[str]:
    """Return symbols in alphabetical order."""
    return ["".join(letters) for letters in product(ascii_uppercase, repeat=3)][:count]


def subscribe(*symbols: str) -> Json:
    """Return the message that subscribes quotes and trades."""
    return {"action": "subscribe", "quotes": list(symbols), "trades": list(symbols)}


def unsubscribe(*symbols: str) -> Json:
    """Return the message that unsubscribes quotes and trades."""
    return {"action": "unsubscribe", "quotes": list(symbols), "trades": list(symbols)}


def asked(sim: Simulator) -> list[Json]:
    """Return every message of every session after its authentication, in order."""
    return [one for one in sim.received.messages() if one["action"] != "auth"]


def asked_symbols(sim: Simulator) -> list[Json]:
    """Return the messages about symbols, without those about statuses."""
    return [one for one in asked(sim) if "statuses" not in one]


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


# What is asked for


async def test_only_differences_are_sent(rig: NewRig, sim: Simulator) -> None:
    """A change of the demand is one message for what left and one for what came."""
    async with rig() as daemon:
        await daemon.want_only("SPY", "QQQ")
        await daemon.want_only("SPY", "QQQ", "IWM")
        await daemon.want_only("IWM", "BRK.B")
        await daemon.want_only("BRK.B", "IWM")  # the same demand, written anew
        await daemon.want_only()
        assert asked_symbols(sim) == [
            subscribe("QQQ", "SPY"),
            subscribe("IWM"),
            unsubscribe("QQQ", "SPY"),
            subscribe("BRK.B"),
            unsubscribe("BRK.B", "IWM"),
        ]
        assert sim.sessions[0].quotes == sim.sessions[0].trades == set()
        assert sim.stats.connections == 1


async def test_a_message_holds_at_most_500_symbols(rig: NewRig, sim: Simulator) -> None:
    """1,200 symbols are three messages, and so is the removal of all but one; statuses follow."""
    symbols = many(1_200)
    async with rig() as daemon:
        await daemon.want_only(*symbols)
        await until(lambda: STATUSES in asked(sim), "the statuses")
        await daemon.want_only(symbols[7])
        assert asked(sim)[:4] == [
            subscribe(*symbols[:500]),
            subscribe(*symbols[500:1_000]),
            subscribe(*symbols[1_000:]),
            STATUSES,
        ]
        assert [len(one["quotes"]) for one in asked(sim)[4:]] == [500, 500, 199]
        assert sim.sessions[0].quotes == {symbols[7]}


async def test_statuses_are_asked_for_once(rig: NewRig, sim: Simulator) -> None:
    """One entry is for all symbols, so a symbol that comes later needs no other."""
    async with rig() as daemon:
        await daemon.want("SPY")
        await until(lambda: sim.sessions[0].statuses == {"*"}, "the statuses")
        await daemon.want("QQQ")
        await daemon.want_only()
        assert asked(sim) == [
            subscribe("SPY"), STATUSES, subscribe("QQQ"), unsubscribe("QQQ", "SPY"),
        ]  # fmt: skip


async def test_without_trades_none_are_asked_for(rig: NewRig, sim: Simulator) -> None:
    """SPOTD_TRADES=false."""
    async with rig(trades=False) as daemon:
        await daemon.want_only("SPY")
        await daemon.want_only()
        assert asked_symbols(sim) == [
            {"action": "subscribe", "quotes": ["SPY"]},
            {"action": "unsubscribe", "quotes": ["SPY"]},
        ]


async def test_a_leader_without_symbols_holds_its_session(rig: NewRig, sim: Simulator) -> None:
    """It asks for nothing, and the first symbol is subscribed on the session that is open."""
    async with rig() as daemon:
        await until(lambda: daemon.daemon.stream.get().phase == "open", "the session")
        assert daemon.status["state"] == "idle"
        await daemon.want("SPY")
        assert asked(sim)[0] == subscribe("SPY")
        assert sim.stats.connections == 1


async def test_the_whole_market_is_one_entry(rig: NewRig, sim: Simulator) -> None:
    """Every symbol that comes has its price."""
    async with rig(allow_wildcard=True) as daemon:
        await daemon.values.want(WILDCARD, "SPY")
        await until(lambda: daemon.active == {WILDCARD}, "the whole market")
        assert asked_symbols(sim) == [subscribe(WILDCARD)]
        await daemon.quote("ZVZZT", 1.25)
        await until(lambda: daemon.values.bid("ZVZZT"), "the price")


async def test_what_becomes_active_is_fetched(rig: NewRig, sim: Simulator) -> None:
    """REST is asked for each symbol that is acknowledged, and for all of them after a loss."""

    def fetched() -> set[str]:
        urls = [record.data for record in sim.received.of("rest")]
        return {s for url in urls for s in url.split("symbols=")[1].split("&")[0].split("%2C")}

    async with rig(snapshots=True) as daemon:
        await daemon.want("A", "B")
        await until(lambda: fetched() == {"A", "B"}, "the first prices")
        sim.received.clear()
        await daemon.want("C")
        await until(lambda: fetched() == {"C"}, "the first price")
        await sim.drop_sessions("close", 1012)
        await until(lambda: fetched() == {"A", "B", "C"}, "all prices again")


async def test_a_long_row_leaves_room_for_what_was_live_before(
    rig: NewRig, sim: Simulator
) -> None:
    """There is a pause between its full requests. Where nothing was live before, there is none."""
    symbols = many(1_500)
    async with rig(pause_in_row_s=3600.0) as daemon:
        await daemon.want_only(*symbols)
        await until(lambda: STATUSES in asked(sim), "the statuses")
        await daemon.values.unwant(*symbols[1:])
        await until(lambda: len(daemon.active) == 1_000, "the first removals")
        # The next request would have gone out before this price came in.
        await daemon.quote(symbols[0], 1.0)
        await until(lambda: daemon.values.bid(symbols[0]), "the price")
        assert len(daemon.active) == 1_000
        assert asked(sim)[4:] == [unsubscribe(*symbols[1:501])]


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


# Halts


async def test_halts_and_resumptions_become_states(rig: NewRig, sim: Simulator) -> None:
    """Statuses of both tapes are told as states; a new session knows of no halt."""

    async def states(spy: str, qqq: str) -> bool:
        values = daemon.values
        return (await values.state("SPY"), await values.state("QQQ")) == (spy, qqq)

    async with rig() as daemon:
        await daemon.want("SPY", "QQQ")  # tapes B and C
        await until(lambda: sim.sessions[0].statuses == {"*"}, "the statuses")
        await sim.halt("SPY")
        await sim.halt("QQQ")
        await until(lambda: states("halted", "halted"), "both to be halted")
        await sim.resume("SPY")
        await until(lambda: states("live", "halted"), "one to be live")
        await sim.drop_sessions("close", 1012)
        await until(lambda: states("live", "live"), "both to be live")


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
            listed: Any = sorted(subscribed)
            alpaca.say({"T": "subscription", "quotes": listed, "trades": listed})

    async with (
        websocket_server(behave) as port,
        rig(stream_url=f"ws://127.0.0.1:{port}/") as daemon,
    ):
        await daemon.want("A", "B")
        await daemon.want_only("A")
        assert heard == [[subscribe("A", "B"), unsubscribe("B")], [subscribe("A")]]
        assert daemon.daemon.metrics.reconnects == {"protocol": 1}


async def test_an_unsubscribe_that_is_refused_ends_the_session(
    rig: NewRig, sim: Simulator
) -> None:
    """It would be refused again, without end; a new session knows nothing of the symbol."""
    async with rig() as daemon:
        await daemon.want("A", "B")
        sim.faults.unavailable_channels = {"trades"}
        await daemon.want_only("A")
        assert asked_symbols(sim).count(unsubscribe("B")) == 1
        assert daemon.daemon.metrics.reconnects == {"code_410": 1}
        assert sim.stats.connections == 2
