"""What the daemon asks Alpaca for, in which order, and what follows from the answers.

Which request follows from which answer is proved in tests/core. Here the requests are those that
the simulator received.
"""

from __future__ import annotations

from spotd.simulator import Simulator
from spotd.symbols import WILDCARD
from tests.daemon.rig import NewRig
from tests.kit.asked import STATUSES, asked, asked_symbols, many, subscribe, unsubscribe
from tests.kit.waiting import until


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
    """With SPOTD_TRADES=false no trades are asked for."""
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


async def test_a_long_row_leaves_room_for_what_was_live_before(rig: NewRig, sim: Simulator) -> None:
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
        (request,) = asked(sim)[4:]
        assert request == unsubscribe(*request["quotes"])
        assert {*request["quotes"]} == {*symbols} - daemon.active


async def test_halts_and_resumptions_become_states(rig: NewRig, sim: Simulator) -> None:
    """Statuses of both tapes are told as states."""

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
