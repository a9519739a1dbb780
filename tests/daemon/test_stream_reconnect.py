"""When the stream is tried again: backoff, breaker, connection limit, leadership, the end."""

import asyncio
import time
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
import structlog.testing
from spotd.daemon.intake import Intake

from spotd.core.messages import Message, Quote
from spotd.daemon.daemon import Daemon
from spotd.daemon.stream import Pace
from spotd.errors import AlpacaRefusedError
from spotd.simulator import Faults, Limits, Simulator
from tests.daemon.streamkit import (
    BRISK,
    IMPATIENT,
    Bench,
    answering,
    peer,
    settings_for,
    sockets_to,
    stream_to,
    until,
)
from tests.kit.servers import Server

# Growing visibly, and without chance.
GROWING = Pace(first_s=0.05, most_s=0.4, jitter_s=0.0, rate_limit_s=0.0)


def pauses(sim: Simulator) -> list[float]:
    """Seconds from each try to the next."""
    return [later.at - one.at for one, later in pairwise(sim.received.of("connect"))]


# How long until the next try


@pytest.mark.parametrize(("failures", "least_s"), [(0, 1), (1, 1), (2, 2), (3, 4), (5, 16)])
def test_backoff_doubles(failures: int, least_s: float) -> None:
    """From the first pause on, with some chance on top so that daemons do not march in step."""
    pace = Pace(first_s=1.0, most_s=30.0, jitter_s=0.5)
    drawn = [pace.backoff_s(failures) for _ in range(50)]
    assert all(least_s <= pause <= least_s + 0.5 for pause in drawn)
    assert len(set(drawn)) > 10


@pytest.mark.parametrize("failures", [7, 100, 10**9])
def test_backoff_has_a_longest_pause(failures: int) -> None:
    """However long Alpaca is away, it is tried twice a minute."""
    assert 30.0 <= Pace().backoff_s(failures) <= 31.0


async def test_tries_come_ever_more_slowly() -> None:
    """Each failure in a row doubles the pause, up to the longest."""
    async with (
        Simulator(faults=Faults(handshake_status=503)) as sim,
        Bench(sim, pace=GROWING, breaker_failures=100) as bench,
    ):
        await until(lambda: bench.tries >= 6)
        for pause, least in zip(pauses(sim), (0.05, 0.1, 0.2, 0.4, 0.4), strict=False):
            assert least <= pause < least + 2.0
        assert bench.shared.metrics.reconnects["http_503"] >= 5


async def test_a_connection_alone_resets_nothing() -> None:
    """Greeted and authenticated, but no answer to any request: that is a failure like others."""
    async with (
        Simulator(faults=Faults(ack_silent=True)) as sim,
        Bench(sim, pace=GROWING, timeouts=IMPATIENT, breaker_failures=3) as bench,
    ):
        bench.want("SPY")
        await until(lambda: bench.shared.breaker.state == "open")
        assert bench.shared.breaker.failures == 3
        assert bench.tries == 3
        least_s = (IMPATIENT.answer_s + 0.05, IMPATIENT.answer_s + 0.1)
        assert all(pause >= least for pause, least in zip(pauses(sim), least_s, strict=True))


async def test_a_server_that_takes_us_in_and_throws_us_out() -> None:
    """Flapping: every session is acknowledged, and yet the pauses grow."""
    async with Simulator() as sim, Bench(sim, pace=GROWING) as bench:
        bench.want("SPY")
        for number in range(1, 7):
            await until(lambda number=number: bench.tries == number)  # type: ignore[misc]
            await bench.settled("SPY")
            await sim.drop_sessions("close", 1011)
            await until(lambda: not sim.sessions)
        for pause, least in zip(pauses(sim), (0.05, 0.1, 0.2, 0.4, 0.4), strict=True):
            assert pause >= least
        assert bench.shared.breaker.state == "closed"
        assert bench.shared.breaker.failures <= 1


async def test_a_session_that_lasted_ends_the_row() -> None:
    """After one, the next failure is a first one again."""
    lasting = Pace(first_s=0.05, most_s=30.0, jitter_s=0.0, steady_s=0.0)
    async with Simulator() as sim, Bench(sim, pace=lasting) as bench:
        bench.want("SPY")
        for number in range(1, 9):
            await until(lambda number=number: bench.tries == number)  # type: ignore[misc]
            await bench.settled("SPY")
            await sim.drop_sessions("close", 1011)
            await until(lambda: not sim.sessions)
        assert max(pauses(sim)) < 3.0  # the seventh in a row would be 3.2


async def test_too_many_handshakes_are_spaced() -> None:
    """HTTP 429 without a word about when: longer than another failure."""
    pace = Pace(first_s=0.01, most_s=0.01, jitter_s=0.0, rate_limit_s=0.4)
    async with (
        Simulator(faults=Faults(handshake_status=429)) as sim,
        Bench(sim, pace=pace) as bench,
    ):
        await until(lambda: "429" in (bench.shared.facts.stream_waiting or ""))
        await until(lambda: bench.tries == 2)
        assert pauses(sim)[0] >= 0.4


@pytest.mark.parametrize(("asked_s", "least_s"), [(1, 1.0), (86_400, 0.3)])
async def test_a_server_that_says_when(asked_s: int, least_s: float) -> None:
    """Retry-After is kept to, but not for a day."""
    pace = Pace(
        first_s=0.01,
        most_s=0.01,
        jitter_s=0.0,
        rate_limit_s=0.0,
        server_asks_most_s=2.0 if asked_s == 1 else 0.3,
    )
    response = f"HTTP/1.1 503 Busy\r\nRetry-After: {asked_s}\r\n\r\n".encode()
    tries: list[float] = []
    answer = answering(response)

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tries.append(time.monotonic())
        await answer(reader, writer)

    async with (
        Simulator() as sim,
        peer(behave) as port,
        Bench(sim, pace=pace, stream_url=f"ws://127.0.0.1:{port}/"),
    ):
        await until(lambda: len(tries) == 2)
        assert tries[1] - tries[0] >= least_s


# The circuit breaker


async def test_the_breaker_opens_tries_once_and_closes() -> None:
    """Five failures open it, for as long as it recovers; one try then decides."""
    async with (
        Simulator(faults=Faults(handshake_status=502)) as sim,
        Bench(sim, breaker_failures=5, breaker_recovery_s=0.5) as bench,
    ):
        breaker = bench.shared.breaker
        bench.want("SPY")
        await until(lambda: breaker.state == "open")
        assert bench.tries == 5
        assert bench.shared.facts.stream_waiting is not None
        assert "spot_price_stream is open" in bench.shared.facts.stream_waiting
        await until(lambda: bench.tries == 6 and breaker.state == "open")  # failed again
        sim.faults.handshake_status, sim.faults.handshake_hang = 0, True
        await until(lambda: bench.tries == 7)
        assert breaker.state == "half_open"
        assert all(pause >= 0.5 for pause in pauses(sim)[4:])
        assert max(pauses(sim)[:4]) < 0.5
        sim.faults.handshake_hang = False
        await bench.settled("SPY")
        assert (breaker.state, breaker.failures) == ("closed", 0)
        assert bench.shared.facts.stream_waiting is None


async def test_a_half_open_try_that_is_not_acknowledged_opens_it_anew() -> None:
    """Also when it got as far as the subscription."""
    faults = Faults(handshake_status=502)
    async with Simulator(faults=faults) as sim:
        bench = Bench(sim, timeouts=IMPATIENT, breaker_failures=1, breaker_recovery_s=0.3)
        async with bench:
            bench.want("SPY")
            await until(lambda: bench.shared.breaker.state == "open")
            sim.faults.handshake_status, sim.faults.ack_silent = 0, True
            await until(lambda: bench.shared.metrics.reconnects["acknowledgement_timeout"] == 1)
            assert bench.shared.breaker.state == "open"


# Another session holds the account


async def test_the_connection_limit_is_waited_for() -> None:
    """A dead session holds its seat for a while: slow tries, and none counts as a failure."""
    async with Simulator(limits=Limits(dead_session_hold_s=1.0)) as sim:
        dead = stream_to(sim.stream_url())
        await dead.open()
        transport = dead._live_session().transport
        assert transport is not None
        transport.disconnect(graceful=False)
        async with Bench(sim, breaker_failures=1) as bench:
            bench.want("SPY")
            await bench.settled("SPY")
            assert bench.shared.metrics.reconnects["connection_limit"] >= 3
            assert bench.shared.metrics.reconnects.keys() == {"connection_limit"}
            assert (bench.shared.breaker.state, bench.shared.breaker.failures) == ("closed", 0)
            assert all(pause >= 0.08 for pause in pauses(sim)[1:])  # 0.1 s, give or take a fifth
        await dead.close()


def test_a_taken_seat_is_tried_ever_more_slowly() -> None:
    """A session that just died may be gone in a moment; one that lives may stay for hours."""
    for refusals, pause_s in ((1, 2.0), (2, 4.0), (3, 10.0), (4, 10.0), (1_000, 10.0)):
        drawn = [Pace().seat_s(refusals) for _ in range(50)]
        assert all(pause_s * 0.8 <= drawn_s <= pause_s * 1.2 for drawn_s in drawn)
        assert len(set(drawn)) > 10


async def test_after_a_session_a_taken_seat_is_tried_soon_again() -> None:
    """A session that opened ends the row of refusals; nothing else does."""
    pace = Pace(
        first_s=0.01, most_s=0.01, jitter_s=0.0, seat_first_s=(0.05, 0.1), connection_limit_s=0.6
    )
    async with Simulator() as sim:
        other = stream_to(sim.stream_url())
        await other.open()
        async with Bench(sim, pace=pace) as bench:
            refused = bench.shared.metrics.reconnects
            bench.want("SPY")
            await until(lambda: refused["connection_limit"] == 4)
            await other.close()
            await bench.settled("SPY")
            ours = pauses(sim)[1:]
            for pause, least in zip(ours, (0.04, 0.08, 0.48, 0.48), strict=True):
                assert pause >= least
            sim.limits.connections = 0
            await sim.drop_sessions("close", 1012)
            await until(lambda: refused["connection_limit"] == 6)
            # one pause after the loss, then the row anew
            assert pauses(sim)[-1] < 0.48


async def test_why_it_waits_is_told() -> None:
    """The status names the connection limit while it lasts."""
    async with Simulator() as sim:
        other = stream_to(sim.stream_url())
        await other.open()
        async with Bench(sim) as bench:
            await until(lambda: "406" in (bench.shared.facts.stream_waiting or ""))
            await other.close()
            bench.want("SPY")
            await bench.settled("SPY")


# After a loss


@pytest.mark.parametrize(("how", "reason"), [("close", "close_1011"), ("abort", "lost")])
async def test_everything_is_asked_for_anew(how: Any, reason: str) -> None:
    """A new session begins with all symbols, and meanwhile none is live."""
    async with Simulator() as sim, Bench(sim) as bench:
        shared = bench.shared
        bench.want("A", "B", "C")
        await bench.settled("A", "B", "C")
        bench.want("A", "C", "D")
        await bench.settled("A", "C", "D")
        shared.to_prime.clear()
        sim.received.clear()
        sim.faults.handshake_hang = True
        await sim.drop_sessions(how, 1011)
        await until(lambda: not shared.subscriptions.active)
        assert not shared.facts.stream_open
        sim.faults.handshake_hang = False
        await bench.settled("A", "C", "D")
        assert [one["quotes"] for one in bench.requests] == [["A", "C", "D"]]
        assert shared.to_prime == {"A", "C", "D"}
        assert shared.metrics.reconnects == {reason: 1}
        assert shared.facts.stream_open


async def test_a_demand_that_changed_meanwhile_is_what_is_asked_for() -> None:
    """The new session never hears of what nobody wants any more."""
    async with Simulator() as sim, Bench(sim) as bench:
        bench.want("A", "B")
        await bench.settled("A", "B")
        sim.faults.handshake_hang = True
        await sim.drop_sessions("close", 1012)
        await until(lambda: bench.tries == 2)
        sim.received.clear()
        bench.want("B", "C")
        sim.faults.handshake_hang = False
        await bench.settled("B", "C")
        assert [one["quotes"] for one in bench.requests] == [["B", "C"]]


async def test_prices_go_on_after_a_loss() -> None:
    """What the market holds survives the session, and quotes of the next one replace it."""
    async with Simulator() as sim, Bench(sim) as bench:
        bench.want("SPY")
        await bench.settled("SPY")
        slot = bench.shared.market.slots["SPY"]
        await sim.send([{"T": "q", "S": "SPY", "bp": 1.0}])
        await until(lambda: slot.quote is not None and slot.quote.bid == 1.0)
        await sim.drop_sessions("abort")
        await until(lambda: bench.tries == 2)
        await bench.settled("SPY")
        assert slot.quote is not None
        await sim.send([{"T": "q", "S": "SPY", "bp": 2.0}])
        await until(lambda: slot.quote is not None and slot.quote.bid == 2.0)


class _Defective(Intake):
    """An intake with a bug in it."""

    def __call__(self, messages: Sequence[Message]) -> None:
        if isinstance(messages[-1], Quote):
            raise ZeroDivisionError("a bug")
        super().__call__(messages)


async def test_a_defect_is_logged_with_its_traceback_and_tried_again() -> None:
    """One that taking data in raises: the log has where, and the daemon lives."""
    with structlog.testing.capture_logs() as logs:
        async with Simulator() as sim, Bench(sim, intake=_Defective) as bench:
            bench.want("SPY")
            await bench.settled("SPY")
            await sim.send([{"T": "q", "S": "SPY"}])
            await until(lambda: bench.shared.metrics.reconnects["defect"] == 1)
            await bench.settled("SPY")
    [line] = [line for line in logs if line.get("reason") == "defect"]
    assert isinstance(line["exc_info"], ZeroDivisionError)


# Leadership


_STEPS = [
    ("connecting", Faults(handshake_hang=True), None),
    ("greeted", Faults(no_greeting=True), 1000),
    ("authenticating", Faults(auth_silent=True), 1000),
    ("subscribing", Faults(ack_silent=True), 1000),
    ("streaming", Faults(), 1000),
]


@pytest.mark.parametrize(("step", "faults", "code"), _STEPS, ids=[one[0] for one in _STEPS])
async def test_who_leads_no_more_leaves(step: str, faults: Faults, code: int | None) -> None:
    """At whatever step: a close frame, and no try before it leads again."""
    async with (
        Simulator(limits=Limits(dead_session_hold_s=60.0), faults=faults) as sim,
        Bench(sim) as bench,
    ):
        bench.want("SPY")
        match step:
            case "connecting":
                await until(lambda: bench.tries == 1)
            case "greeted":
                await until(lambda: sim.sessions)
            case "authenticating":
                await until(lambda: sim.received.messages("auth"))
            case "subscribing":
                await until(lambda: bench.requests)
            case _:
                await bench.settled("SPY")
        bench.step_down()
        if code is None:
            await until(lambda: sockets_to(sim.port) == 0)
            sim.faults.handshake_hang = False
        else:
            await until(lambda: sim.received.of("close"))
            assert sim.received.of("close")[0].data == code
        await until(lambda: not sim.sessions and not bench.shared.facts.stream_open)
        sim.faults.no_greeting = sim.faults.auth_silent = sim.faults.ack_silent = False
        bench.lead()
        await bench.settled("SPY")
        assert bench.tries == 2
        assert not bench.shared.metrics.reconnects  # stepping down is no failure


async def test_a_lease_that_runs_out_ends_the_session() -> None:
    """By the clock alone, although nobody says so."""
    async with Simulator() as sim, Bench(sim) as bench:
        bench.want("SPY")
        await bench.settled("SPY")
        bench.lead(for_s=0.3)
        leading_until = time.monotonic() + 0.3
        await until(lambda: sim.received.of("close"))
        assert sim.received.of("close")[0].at >= leading_until - 0.01
        assert sim.received.of("close")[0].data == 1000
        assert not bench.shared.leads()


async def test_a_standby_does_not_sit_out_a_pause() -> None:
    """Who loses the lease while waiting for the next try is a standby at once."""
    slow = Pace(first_s=60.0, most_s=60.0)
    async with (
        Simulator(faults=Faults(handshake_status=503)) as sim,
        Bench(sim, pace=slow) as bench,
    ):
        await until(lambda: bench.shared.facts.stream_waiting)
        bench.step_down()
        await until(lambda: bench.shared.facts.stream_waiting is None)
        sim.faults.handshake_status = 0
        bench.lead()
        bench.want("SPY")
        await bench.settled("SPY")
        assert bench.tries == 2


async def test_a_new_leader_minds_an_open_breaker() -> None:
    """Losing and winning the lease is no way around it; losing it again ends the wait."""
    async with (
        Simulator(faults=Faults(handshake_status=503)) as sim,
        Bench(sim, breaker_failures=1, breaker_recovery_s=600) as bench,
    ):
        await until(lambda: bench.shared.facts.stream_waiting)
        bench.step_down()
        await until(lambda: bench.shared.facts.stream_waiting is None)
        bench.lead(for_s=0.3)
        await until(lambda: not bench.shared.leads())
        bell = bench.shared.bells.stream
        bell.ring()
        await until(lambda: not bell._event.is_set())  # heard by a standby again
        assert bench.tries == 1


# The end


@pytest.mark.parametrize("code", [402, 409])
async def test_refused_for_good_ends_the_loop(code: int) -> None:
    """No try is repeated that cannot succeed."""
    async with Simulator(faults=Faults(auth_error=code)) as sim, Bench(sim) as bench:
        failure = await bench.failed()
        assert isinstance(failure, AlpacaRefusedError)
        assert bench.tries == 1


@pytest.mark.parametrize("code", [402, 409])
async def test_refused_for_good_ends_the_daemon_with_3(server: Server, code: int) -> None:
    """The exit code of the contract, so that no supervisor restarts it in vain."""
    async with Simulator(faults=Faults(auth_error=code)) as sim:
        daemon = Daemon(settings_for(sim, redis_url=server.url), pace=BRISK)
        async with asyncio.timeout(10):
            assert await daemon.run() == 3
        assert sim.stats.connections == 1


# Idling


async def test_idling_costs_nothing() -> None:
    """A leader without symbols keeps its session and no core busy, unlike upstream's spin."""
    async with Simulator() as sim, Bench(sim) as bench:
        await until(lambda: bench.shared.facts.stream_open)
        before = time.process_time()
        await asyncio.wait((bench.running,), timeout=2.0)
        assert time.process_time() - before < 0.3
        assert len(sim.sessions) == 1
        assert not bench.requests
