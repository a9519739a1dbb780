"""What the stream loop asks Alpaca for, and what becomes of the answers, over a real socket."""

import string
import time
from typing import Any

import msgspec
import pytest
import structlog.testing

from spotd.daemon import stream
from spotd.simulator import Faults, Limits, Simulator
from spotd.symbols import WILDCARD
from tests.daemon.streamkit import (
    IMPATIENT,
    Bench,
    until,
    websocket_server,
)
from tests.kit.websocket import ServerEnd


def many(number: int) -> list[str]:
    """So many symbols, in alphabetical order."""
    letters = string.ascii_uppercase
    return [a + b + c for a in letters for b in letters for c in letters][:number]


def subscribe(*symbols: str) -> dict[str, Any]:
    """The message that subscribes quotes and trades."""
    return {"action": "subscribe", "quotes": list(symbols), "trades": list(symbols)}


def unsubscribe(*symbols: str) -> dict[str, Any]:
    """The message that unsubscribes quotes and trades."""
    return {"action": "unsubscribe", "quotes": list(symbols), "trades": list(symbols)}


STATUSES = {"action": "subscribe", "statuses": ["*"]}


async def test_only_differences_are_sent() -> None:
    """A change of the demand costs a message about what changed, and nothing else."""
    async with Simulator() as sim, Bench(sim) as bench:
        bench.want("SPY", "QQQ")
        await bench.settled("SPY", "QQQ")
        bench.want("SPY", "QQQ", "IWM")
        await bench.settled("SPY", "QQQ", "IWM")
        bench.want("IWM", "BRK.B")
        await bench.settled("IWM", "BRK.B")
        bench.want("BRK.B", "IWM")  # the same in other words
        bench.want()
        await bench.settled()
        assert bench.requests == [
            subscribe("QQQ", "SPY"),
            subscribe("IWM"),
            unsubscribe("QQQ", "SPY"),
            subscribe("BRK.B"),
            unsubscribe("BRK.B", "IWM"),
        ]
        assert sim.sessions[0].quotes == sim.sessions[0].trades == set()
        assert sim.stats.connections == 1


async def test_a_message_holds_at_most_500_symbols() -> None:
    """1,200 symbols are three messages, each awaited before the next; so are their removals."""
    symbols = many(1_200)
    async with Simulator() as sim, Bench(sim) as bench:
        bench.want(*symbols)
        await bench.settled(*symbols)
        assert bench.requests == [
            subscribe(*symbols[:500]),
            subscribe(*symbols[500:1_000]),
            subscribe(*symbols[1_000:]),
        ]
        bench.want(symbols[7])
        await bench.settled(symbols[7])
        assert [len(one["quotes"]) for one in bench.requests[3:]] == [500, 500, 199]
        assert sim.sessions[0].quotes == {symbols[7]}


async def test_without_trades_none_are_asked_for() -> None:
    """SPOTD_TRADES=false."""
    async with Simulator() as sim, Bench(sim, trades=False) as bench:
        bench.want("SPY")
        await bench.settled("SPY")
        bench.want()
        await bench.settled()
        assert bench.requests == [
            {"action": "subscribe", "quotes": ["SPY"]},
            {"action": "unsubscribe", "quotes": ["SPY"]},
        ]


async def test_trades_that_are_not_acknowledged_are_told_once() -> None:
    """The log says that last_price will lack; quotes go on, and no later answer repeats it."""

    async def behave(alpaca: ServerEnd) -> None:
        await alpaca.welcome()
        ack: dict[str, Any] = {"T": "subscription", "quotes": [], "trades": [], "statuses": []}
        while True:
            request = msgspec.msgpack.decode((await alpaca.read()).data)
            ack |= {name: request[name] for name in ("quotes", "statuses") if name in request}
            alpaca.say(ack)

    with structlog.testing.capture_logs() as logs:
        async with (
            Simulator() as sim,
            websocket_server(behave) as port,
            Bench(sim, timeouts=IMPATIENT, stream_url=f"ws://127.0.0.1:{port}/") as bench,
        ):
            bench.want("A", "B")
            subs = bench.shared.subscriptions
            await until(lambda: subs._statuses == "on")
            assert subs.active == {"A", "B"}
    told = [line for line in logs if line["event"] == "trades were not acknowledged"]
    assert [line["symbols"] for line in told] == [2]


async def test_statuses_are_asked_for_once_all_symbols_are() -> None:
    """One entry for all symbols, after what matters more."""
    async with Simulator() as sim, Bench(sim) as bench:
        bench.want("SPY")
        await bench.settled("SPY")
        bench.want("SPY", "QQQ")
        await bench.settled("SPY", "QQQ")
        assert sim.received.messages("subscribe") == [
            subscribe("SPY"), STATUSES, subscribe("QQQ"),
        ]  # fmt: skip


async def test_what_an_acknowledgement_lacks_is_refused() -> None:
    """Asked for, not in the list, no error: refused, told why, and not asked for again."""
    async with Simulator(faults=Faults(ack_omits={"QQQ"})) as sim, Bench(sim) as bench:
        bench.want("SPY", "QQQ", "IWM")
        await bench.settled("SPY", "IWM")
        refusal = bench.shared.subscriptions.refusals()["QQQ"]
        assert refusal.reason == "refused_by_alpaca"
        assert "acknowledgement" in refusal.detail
        assert len(bench.requests) == 1


async def test_one_bad_symbol_is_found_and_the_rest_kept() -> None:
    """A 400 rejects the whole message: halving finds the culprits, in a few messages."""
    symbols = many(64)
    bad = {symbols[3], symbols[40]}
    async with Simulator(faults=Faults(bad_symbols=bad)) as sim, Bench(sim) as bench:
        bench.want(*symbols)
        await bench.settled(*(symbol for symbol in symbols if symbol not in bad))
        refusals = bench.shared.subscriptions.refusals()
        assert refusals.keys() == bad
        assert all("400" in refusal.detail for refusal in refusals.values())
        assert len(bench.requests) <= 4 * 6 + 1  # about 2 * log2(64) for each of two
        asked = len(bench.requests)
        bench.want(*symbols, "ZZZZ")
        await bench.settled(*(symbol for symbol in (*symbols, "ZZZZ") if symbol not in bad))
        assert bench.requests[asked:] == [subscribe("ZZZZ")]


async def test_a_symbol_limit_is_learned_and_filled_exactly() -> None:
    """Alpaca tells no number: as many symbols as it takes are live, and the rest is refused."""
    symbols = many(100)
    limits = Limits(symbols=37, count="symbols")
    async with Simulator(limits=limits) as sim, Bench(sim) as bench:
        bench.want(*symbols)
        await until(lambda: bench.shared.subscriptions.learned_limit == 37)
        await bench.settled(*symbols[:37])
        assert sim.sessions[0].quotes == set(symbols[:37])
        refusals = bench.shared.subscriptions.refusals()
        assert refusals.keys() == set(symbols[37:])
        assert {refusal.reason for refusal in refusals.values()} == {"symbol_limit"}
        assert "37" in refusals[symbols[50]].detail
        assert sim.stats.connections == 1


async def test_a_limit_that_counts_channels_is_learned_too() -> None:
    """Where quotes and trades count apiece, half as many symbols have room."""
    symbols = many(40)
    async with Simulator(limits=Limits(symbols=30)) as sim, Bench(sim) as bench:
        bench.want(*symbols)
        await until(lambda: bench.shared.subscriptions.learned_limit == 15)
        await bench.settled(*symbols[:15])


async def test_what_is_live_stays_live_at_the_limit_and_freed_room_is_used() -> None:
    """A symbol too many disturbs none that is there; one that leaves makes room for it."""
    symbols = many(6)
    limits = Limits(symbols=4, count="symbols")
    async with Simulator(limits=limits) as sim, Bench(sim) as bench:
        bench.want(*symbols[2:])
        await bench.settled(*symbols[2:])
        bench.want(*symbols)
        await until(lambda: bench.shared.subscriptions.learned_limit == 4)
        await bench.settled(*symbols[2:])
        assert bench.shared.subscriptions.refusals().keys() == set(symbols[:2])
        assert not any(one["action"] == "unsubscribe" for one in bench.requests)
        bench.want(*symbols[:5])  # the last one leaves
        await bench.settled(symbols[0], *symbols[2:5])
        assert sim.sessions[0].quotes == {symbols[0], *symbols[2:5]}


async def test_max_symbols_is_never_exceeded() -> None:
    """SPOTD_MAX_SYMBOLS holds without Alpaca having to say anything."""
    async with Simulator() as sim, Bench(sim, max_symbols=3) as bench:
        bench.want("A", "B", "C", "D", "E")
        await bench.settled("A", "B", "C")
        assert bench.shared.subscriptions.refusals().keys() == {"D", "E"}
        assert not sim.stats.refused
        bench.want("A", "B", "D", "E")
        await bench.settled("A", "B", "D")


async def test_statuses_are_given_back_when_they_may_take_the_room() -> None:
    """Before a limit is believed, the entry for statuses is freed, and the same asked again."""
    limits = Limits(symbols=2, count="symbols")
    async with Simulator(limits=limits) as sim, Bench(sim) as bench:
        bench.want("A", "B")
        await bench.settled("A", "B")
        await until(lambda: sim.sessions[0].statuses == {"*"})
        bench.want("A", "B", "C")
        await until(lambda: bench.shared.subscriptions.learned_limit == 2)
        await bench.settled("A", "B")
        assert sim.received.messages()[1:] == [
            subscribe("A", "B"),
            STATUSES,
            subscribe("C"),
            {"action": "unsubscribe", "statuses": ["*"]},
            subscribe("C"),
        ]
        assert sim.sessions[0].statuses == set()


async def test_a_feed_without_trades_streams_quotes() -> None:
    """410 for trades: quotes alone, also for what is added and removed later."""
    faults = Faults(unavailable_channels={"trades"})
    async with Simulator(faults=faults) as sim, Bench(sim) as bench:
        bench.want("SPY")
        await bench.settled("SPY")
        bench.want("QQQ")
        await bench.settled("QQQ")
        assert bench.requests == [
            subscribe("SPY"),
            {"action": "subscribe", "quotes": ["SPY"]},
            {"action": "unsubscribe", "quotes": ["SPY"]},
            {"action": "subscribe", "quotes": ["QQQ"]},
        ]
        assert sim.stats.connections == 1


async def test_a_stream_that_has_nothing_left_to_ask_for_is_at_work() -> None:
    """Every desired symbol refused, also on the next connection: no answer is waited for."""
    async with Simulator(limits=Limits(symbols=0)) as sim, Bench(sim) as bench:
        facts = bench.shared.facts
        bench.want("A", "B")
        await until(lambda: facts.all_refused)
        assert facts.stream_open
        await sim.drop_sessions("close", 1012)
        await until(lambda: bench.tries == 2 and facts.all_refused and facts.stream_open)
        sim.limits.symbols = None
        await sim.drop_sessions("close", 1012)
        await bench.settled("A", "B")
        await until(lambda: not facts.all_refused)


async def test_a_feed_without_statuses_streams_all_the_same() -> None:
    """Halts are then not shown; nothing else is lost."""
    faults = Faults(unavailable_channels={"statuses"})
    async with Simulator(faults=faults) as sim, Bench(sim) as bench:
        bench.want("SPY")
        await bench.settled("SPY")
        bench.want("SPY", "QQQ")
        await bench.settled("SPY", "QQQ")
        assert sim.received.messages("subscribe").count(STATUSES) == 1
        assert sim.stats.connections == 1


async def test_the_whole_market() -> None:
    """``*`` is one entry, and every symbol that comes has its price."""
    async with Simulator() as sim, Bench(sim, allow_wildcard=True) as bench:
        bench.want(WILDCARD, "SPY")
        await bench.settled(WILDCARD)
        assert bench.requests == [subscribe(WILDCARD)]
        await sim.send([{"T": "q", "S": "ZVZZT", "bp": 1.25}])
        await until(lambda: "ZVZZT" in bench.shared.market.slots)


async def test_halts_and_resumptions_become_states() -> None:
    """The status message of a symbol, for CTA and UTP alike; a new session knows of none."""
    async with Simulator() as sim, Bench(sim) as bench:
        market = bench.shared.market
        bench.want("SPY", "QQQ")  # tapes B and C
        await bench.settled("SPY", "QQQ")
        await until(lambda: sim.sessions[0].statuses == {"*"})
        before = bench.shared.subscriptions.version
        await sim.halt("SPY")
        await sim.halt("QQQ")
        await until(lambda: market.halted() == {"SPY", "QQQ"})
        assert bench.shared.subscriptions.version > before  # somebody will report it
        await sim.resume("SPY")
        await until(lambda: market.halted() == {"QQQ"})
        await sim.drop_sessions("close", 1012)
        await until(lambda: not market.halted())
        await bench.settled("SPY", "QQQ")


async def test_an_unsubscribe_that_is_not_carried_out_ends_the_session() -> None:
    """What should be gone is still in the list: only a new connection is sure."""
    async with Simulator() as sim, Bench(sim) as bench:
        bench.want("A", "B")
        await bench.settled("A", "B")
        conversation = sim.sessions[0].conversation
        conversation._unsubscribe = conversation._subscribe  # type: ignore[method-assign]
        bench.want("A")
        await until(lambda: bench.shared.metrics.reconnects["protocol"] == 1)
        await bench.settled("A")
        assert sim.stats.connections == 2


async def test_an_unsubscribe_that_is_rejected_ends_the_session() -> None:
    """Asking again would be rejected again, at wire speed: a new session knows nothing of it."""
    async with Simulator() as sim, Bench(sim) as bench:
        bench.want("A", "B")
        await bench.settled("A", "B")
        sim.faults.unavailable_channels = {"trades"}
        bench.want("A")
        await until(lambda: bench.shared.metrics.reconnects.total() == 1)
        await bench.settled("A")
        assert bench.requests.count(unsubscribe("B")) == 1
        assert sim.stats.connections == 2


async def test_an_error_that_says_nothing_about_the_request_ends_the_session() -> None:
    """500 in answer to a subscribe: a new session, and everything asked for anew."""
    async with Simulator(faults=Faults(subscribe_error=500)) as sim, Bench(sim) as bench:
        bench.want("A")
        await until(lambda: bench.shared.metrics.reconnects["code_500"] >= 1)
        sim.faults.subscribe_error = 0
        await bench.settled("A")


async def test_what_is_acknowledged_is_to_be_primed() -> None:
    """Each symbol that became active is named to the prime loop; ``*`` is no symbol."""
    async with Simulator() as sim, Bench(sim, allow_wildcard=True) as bench:
        bench.want("A", "B")
        await bench.settled("A", "B")
        assert bench.shared.to_prime == {"A", "B"}
        assert bench.shared.facts.ever_active == {"A", "B"}
        bench.shared.to_prime.clear()
        bench.want("A", "B", "C")
        await bench.settled("A", "B", "C")
        assert bench.shared.to_prime == {"C"}
        await sim.drop_sessions("close", 1012)
        await until(lambda: bench.shared.to_prime == {"A", "B", "C"})


async def test_a_long_row_lets_what_was_live_before_it_breathe(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Between full requests; right after a start or a loss nothing was, and no time is lost."""
    symbols = many(1_500)
    monkeypatch.setattr(stream, "_BREATH_S", 60.0)
    async with Simulator() as sim, Bench(sim) as bench:
        bench.want(*symbols)
        await bench.settled(*symbols)
        await sim.drop_sessions("close", 1012)
        await until(lambda: bench.tries == 2)
        await bench.settled(*symbols)
        monkeypatch.setattr(stream, "_BREATH_S", 0.3)
        began = time.monotonic()
        bench.want(*symbols[:10])
        await bench.settled(*symbols[:10])
        assert time.monotonic() - began > 0.6
