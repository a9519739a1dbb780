"""How a new session follows a failed one: what is asked for anew, breaker, connection limit.

How long the pauses are is proved in tests/core/test_pacing.py. Here a pause of an hour is one that
the daemon never gets past, and all others are too short to notice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import structlog.testing
from websockets.frames import Opcode

from spotd.core.pacing import Pauses
from spotd.simulator import Simulator
from tests.daemon.rig import BRISK, NewRig, Rig, logged, quote
from tests.kit.stream import (
    IMPATIENT,
    stream_to,
)
from tests.kit.waiting import until
from tests.kit.websocket import (
    ServerEnd,
    answering,
    frame,
    framed,
    tcp_server,
    websocket_server,
)

HOUR_S = 3600.0
# An hour, without chance, after every failure.
SLOW = Pauses(first_s=HOUR_S, most_s=HOUR_S, jitter_s=0.0)


def subscribed(sim: Simulator, session: int) -> list[list[str]]:
    """Return the symbols of each subscribe of one session, in order."""
    return [
        record.data["quotes"]
        for record in sim.received.of("message", session)
        if record.data["action"] == "subscribe" and "quotes" in record.data
    ]


# The end of a session


async def _refuse_next_request(sim: Simulator, daemon: Rig) -> None:
    sim.faults.subscribe_error = 500
    await daemon.values.want("D")
    await until(lambda: sim.stats.refused[500], "the refusal")
    sim.faults.subscribe_error = 0


_ENDINGS: dict[str, Callable[[Simulator, Rig], Awaitable[None]]] = {
    "close_1001": lambda sim, _: sim.drop_sessions("close", 1001),
    "close_1008": lambda sim, _: sim.drop_sessions("close", 1008),
    "close_1009": lambda sim, _: sim.drop_sessions("close", 1009),
    "close_1011": lambda sim, _: sim.drop_sessions("close", 1011),
    "lost": lambda sim, _: sim.drop_sessions("abort"),
    "code_407": lambda sim, _: sim.cut_slow_clients(),
    "code_500": _refuse_next_request,
}


@pytest.mark.parametrize("reason", _ENDINGS)
async def test_after_any_end_everything_is_asked_for_anew(
    rig: NewRig, sim: Simulator, reason: str
) -> None:
    """Meanwhile every symbol is stale; the end is counted by its reason."""

    async def told(state: str) -> bool:
        return [await daemon.values.state(symbol) for symbol in "ABC"] == [state] * 3

    async with rig() as daemon:
        await daemon.want("A", "B", "C")
        await until(lambda: told("live"), "all to be live")
        sim.faults.handshake_hang = True
        await _ENDINGS[reason](sim, daemon)
        await until(lambda: told("stale"), "all to be stale")
        assert not daemon.active
        await daemon.values.unwant("D")
        await until(lambda: daemon.daemon.demand.get().symbols == set("ABC"), "the demand")
        sim.faults.handshake_hang = False
        await until(lambda: told("live"), "all to be live again")
        assert subscribed(sim, 2) == [["A", "B", "C"]]
        assert daemon.daemon.metrics.reconnects == {reason: 1}
        assert daemon.status["reconnects"] == 1


async def test_a_pause_until_a_time_is_honoured(rig: NewRig) -> None:
    """The server names a time, by its own clock; the status says why it is waited."""
    asked = 0
    busy = answering(
        b"HTTP/1.1 429 Too Many Requests\r\nDate: Wed, 21 Oct 2026 07:28:00 GMT\r\n"
        b"Retry-After: Wed, 21 Oct 2026 08:28:00 GMT\r\n\r\n"
    )

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        asked += 1
        await busy(reader, writer)

    with structlog.testing.capture_logs() as lines:
        async with tcp_server(serve) as port, rig(stream_url=f"ws://127.0.0.1:{port}") as daemon:
            await daemon.values.want("SPY")
            await until(lambda: daemon.waits("HTTP 429"), "the pause")
    assert asked == 1
    [down] = logged(lines, "stream is down")
    assert down["retry_in_s"] == 300.0  # a longer one is cut to this


async def test_a_greeting_in_text_is_the_reason(rig: NewRig) -> None:
    """Whatever stands between Alpaca and us may have something to say."""

    async def behave(alpaca: ServerEnd) -> None:
        await alpaca.upgrade(frame(b"this proxy is for members", Opcode.TEXT))
        await alpaca.gone()

    async with (
        websocket_server(behave) as port,
        rig(stream_url=f"ws://127.0.0.1:{port}", pauses=SLOW) as daemon,
    ):
        await daemon.values.want("SPY")
        await until(lambda: daemon.waits("text", "this proxy is for members"), "the reason")


async def test_a_new_session_asks_for_the_demand_of_now(rig: NewRig, sim: Simulator) -> None:
    """What left meanwhile is not asked for, what came is, and all in one request."""
    async with rig() as daemon:
        await daemon.want("A", "B")
        sim.faults.handshake_hang = True
        await sim.drop_sessions("close", 1012)
        await until(lambda: sim.stats.connections == 2, "the next try")
        await daemon.values.unwant("A")
        await daemon.values.want("C")
        await until(lambda: daemon.daemon.demand.get().symbols == {"B", "C"}, "the new demand")
        sim.faults.handshake_hang = False
        await until(lambda: daemon.active == {"B", "C"}, "the new demand to be active")
        assert subscribed(sim, 2) == [["B", "C"]]


async def test_a_price_outlives_its_session(rig: NewRig, sim: Simulator) -> None:
    """It stays published, and the first quote of the next session replaces it."""
    async with rig() as daemon:
        await daemon.want("SPY")
        await daemon.quote("SPY", 1.0)
        await until(lambda: daemon.values.has("SPY", 1.0), "the price")
        await sim.drop_sessions("abort")
        await until(lambda: sim.stats.connections == 2 and daemon.active, "the next session")
        assert await daemon.values.has("SPY", 1.0)
        await daemon.quote("SPY", 2.0)
        await until(lambda: daemon.values.has("SPY", 2.0), "the next price")


async def test_a_defect_ends_the_session_and_is_logged_with_its_cause(
    rig: NewRig, sim: Simulator
) -> None:
    """The daemon goes on; other ends are logged without a traceback."""
    with structlog.testing.capture_logs() as lines:
        async with rig() as daemon:
            await daemon.want("SPY")
            slots: dict[str, Any] = daemon.daemon.prices.cache.slots
            slots["SPY"] = SimpleNamespace(changed=False)  # it cannot take in a quote
            sim.faults.handshake_hang = True  # a session that began with this slot would fail too
            await sim.send([quote("SPY", 1.0)])
            reconnects = daemon.daemon.metrics.reconnects
            await until(lambda: reconnects["defect"] == 1, "the defect")
            del slots["SPY"]
            sim.faults.handshake_hang = False
            await until(lambda: daemon.active, "the next session")
            await sim.drop_sessions("close", 1012)
            await until(lambda: reconnects["close_1012"] == 1, "the end")
            await until(lambda: daemon.active, "the session after it")
            await daemon.quote("SPY", 2.0)
            await until(lambda: daemon.values.bid("SPY"), "the price")
    defect, closed = logged(lines, "stream is down")
    assert isinstance(defect["exc_info"], AttributeError)
    assert closed["exc_info"] is None


# The next try


async def test_a_refused_handshake_is_followed_by_a_pause(rig: NewRig, sim: Simulator) -> None:
    """The state says why, and no symbol is live."""
    sim.faults.handshake_status = 503
    with structlog.testing.capture_logs() as lines:
        async with rig(pauses=SLOW) as daemon:
            await daemon.values.want("SPY")
            await until(lambda: daemon.waits("503"), "waiting")
            status = daemon.status
            assert status["code"] == "backoff"
            assert daemon.daemon.not_ready() == [f"backoff: {status['reason']}"]
            await until(lambda: _is(daemon, "SPY", "pending"), "pending")
            assert sim.stats.connections == 1
    [down] = logged(lines, "stream is down")
    assert (down["reason"], down["retry_in_s"], down["failures"]) == ("http_503", HOUR_S, 1)


async def _is(daemon: Rig, symbol: str, state: str) -> bool:
    return await daemon.values.state(symbol) == state


@pytest.mark.parametrize(
    ("response", "pause_s"),
    [
        (b"HTTP/1.1 429 Too Many\r\n\r\n", 1_000.0),
        (b"HTTP/1.1 429 Too Many\r\nRetry-After: 1500\r\n\r\n", 1_500.0),
        (b"HTTP/1.1 503 Busy\r\nRetry-After: 1500\r\n\r\n", 1_500.0),
        (b"HTTP/1.1 503 Busy\r\nRetry-After: 86400\r\n\r\n", 2_000.0),
    ],
)
async def test_what_the_server_asks_for_reaches_the_pacing(
    rig: NewRig, response: bytes, pause_s: float
) -> None:
    """HTTP 429 and Retry-After lengthen the pause."""
    pauses = Pauses(first_s=0.0, jitter_s=0.0, rate_limit_s=1_000.0, server_asks_most_s=2_000.0)
    with structlog.testing.capture_logs() as lines:
        async with (
            tcp_server(answering(response)) as port,
            rig(pauses=pauses, stream_url=f"ws://127.0.0.1:{port}/") as daemon,
        ):
            await daemon.values.want("SPY")
            await until(daemon.waits, "waiting")
    [down] = logged(lines, "stream is down")
    assert down["retry_in_s"] == pause_s


# The circuit breaker


async def test_the_breaker_opens_tries_once_and_closes(rig: NewRig, sim: Simulator) -> None:
    """Its state is shown; an acknowledgement closes it, and the log says that it is over."""
    sim.faults.handshake_status = 502
    with structlog.testing.capture_logs() as lines:
        async with rig(breaker_failures=3, breaker_recovery_s=0.3) as daemon:
            await daemon.values.want("SPY")
            await until(lambda: daemon.status["breaker"] == "open", "an open breaker")
            assert daemon.waits("502", "spot_price_stream is open")
            sim.faults.handshake_hang, sim.faults.handshake_status = True, 0
            await until(lambda: daemon.status["breaker"] == "half_open", "a try")
            sim.faults.handshake_hang = False
            await until(lambda: daemon.active, "the session")
            assert daemon.status["breaker"] == "closed"
            assert daemon.status["state"] == "streaming"
    down = [line["breaker_state"] for line in logged(lines, "stream is down")]
    assert down[:3] == ["closed", "closed", "open"]
    assert len(logged(lines, "stream works again")) == 1


async def test_a_session_without_an_acknowledgement_does_not_close_the_breaker(
    rig: NewRig, sim: Simulator
) -> None:
    """One failure opens it anew; a closed breaker would stay closed after a single one."""
    sim.faults.handshake_status, sim.faults.ack_silent = 502, True
    with structlog.testing.capture_logs() as lines:
        async with rig(timeouts=IMPATIENT, breaker_failures=2, breaker_recovery_s=0.1) as daemon:
            await daemon.values.want("SPY")
            await until(lambda: daemon.status["breaker"] == "open", "an open breaker")
            sim.faults.handshake_status = 0
            reconnects = daemon.daemon.metrics.reconnects
            await until(lambda: reconnects["acknowledgement_timeout"], "the failure")
            sim.faults.ack_silent = False
            await until(lambda: daemon.active, "the session")
            assert daemon.status["breaker"] == "closed"
    failures = [(line["reason"], line["breaker_state"]) for line in logged(lines, "stream is down")]
    assert failures[0] == ("http_502", "closed")
    assert ("acknowledgement_timeout", "open") in failures
    assert ("acknowledgement_timeout", "closed") not in failures


# Another session holds the account's connection


async def test_the_connection_limit_is_waited_for(rig: NewRig, sim: Simulator) -> None:
    """406 is told, is no failure, and ends with the other session."""
    other = stream_to(sim.stream_url())
    await other.open()
    async with rig(breaker_failures=1) as daemon:
        await daemon.values.want("SPY")
        await until(lambda: daemon.waits("406"), "waiting")
        await other.close()
        await until(lambda: daemon.active, "the session")
        assert daemon.daemon.metrics.reconnects.keys() == {"connection_limit"}
        assert daemon.status["breaker"] == "closed"


async def test_the_last_failure_is_told_while_the_stream_is_opened(
    rig: NewRig, sim: Simulator
) -> None:
    """An operator reads it at any moment of an outage, and no more after a session."""
    sim.faults.handshake_status = 503
    async with rig() as daemon:
        await daemon.values.want("SPY")
        await until(lambda: daemon.waits("503"), "a failed try")
        sim.faults.handshake_hang = True
        await until(
            lambda: (
                daemon.status["state"] == "connecting"
                and "the last one failed: " in daemon.status["reason"]
                and "503" in daemon.status["reason"]
            ),
            "the reason",
        )
        sim.faults.handshake_hang = False
        sim.faults.handshake_status = 0
        await until(lambda: daemon.active, "the session")
        await until(lambda: daemon.status["reason"] is None, "no reason")


async def test_a_session_ends_the_row_of_406(rig: NewRig) -> None:
    """The next 406 is a first one, although no request was acknowledged between."""
    tries = 0

    async def behave(alpaca: ServerEnd) -> None:
        nonlocal tries
        tries += 1
        if tries in (1, 3):
            await alpaca.upgrade(framed({"T": "success", "msg": "connected"}))
            await alpaca.read()
            alpaca.say({"T": "error", "code": 406, "msg": "connection limit exceeded"})
            await alpaca.gone()
        else:
            await alpaca.welcome()
            if tries == 4:
                await alpaca.gone()
            alpaca.leave()

    # The second 406 in a row would be followed by an hour.
    pauses = replace(BRISK, limit_first_s=(0.01, HOUR_S), connection_limit_s=HOUR_S)
    async with (
        websocket_server(behave) as port,
        rig(pauses=pauses, stream_url=f"ws://127.0.0.1:{port}/") as daemon,
    ):
        await until(lambda: daemon.daemon.stream.get().phase == "open" and tries == 4, "the fourth")
        assert daemon.daemon.metrics.reconnects == {"connection_limit": 2, "lost": 1}
