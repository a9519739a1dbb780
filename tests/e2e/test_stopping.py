"""SIGTERM and SIGINT end the daemon with 0, in whatever state it is.

A stop that hangs fails these tests by their guard; how long one takes is not asserted here.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from itertools import islice, product
from string import ascii_uppercase
from typing import TypeAlias, get_args

import pytest

from spotd.models import DaemonStateName
from tests.e2e.setup import KEY, Setup, quote, trade
from tests.kit.ports import free_port
from tests.kit.processes import Command

SIGNALS = pytest.mark.parametrize(
    "number",
    [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.long)],
    ids=lambda n: n.name,
)
TTL = {"SPOTD_LEADER_TTL_S": "1"}
Scene: TypeAlias = Callable[[Setup], Awaitable[Command]]


async def _started(setup: Setup, state: str, **settings: str) -> Command:
    """Return a daemon that wants SPY, once it says that it is in this state."""
    await setup.values.want("SPY")
    daemon = await setup.start(**settings)
    await setup.until(partial(daemon.says, state), state)
    return daemon


async def idle(setup: Setup) -> Command:
    """Return a leader for which nothing is desired."""
    return await setup.daemon()


async def streaming(setup: Setup) -> Command:
    """Return a daemon that is connected and subscribed."""
    daemon = await setup.daemon(**TTL)
    await setup.streaming("SPY")
    return daemon


async def handshake_hangs(setup: Setup) -> Command:
    """Return a daemon that connects, and whose upgrade is never answered."""
    setup.sim.faults.handshake_hang = True
    return await _started(setup, "connecting")


async def never_greeted(setup: Setup) -> Command:
    """Return a daemon that connects: its socket is open, and no greeting comes."""
    setup.sim.faults.no_greeting = True
    daemon = await _started(setup, "connecting")
    await setup.until(lambda: setup.sim.sessions, "a session without a greeting")
    return daemon


async def never_authenticated(setup: Setup) -> Command:
    """Return a daemon that connects, and whose keys are never answered."""
    setup.sim.faults.auth_silent = True
    daemon = await _started(setup, "connecting")
    await setup.until(lambda: setup.sim.received.messages("auth"), "the keys were sent")
    return daemon


async def never_acknowledged(setup: Setup) -> Command:
    """Return a daemon that connects, and whose subscription is never acknowledged."""
    setup.sim.faults.ack_silent = True
    daemon = await _started(setup, "connecting")
    await setup.until(lambda: setup.asked("subscribe", "SPY"), "the subscription was sent")
    return daemon


async def connection_refused(setup: Setup) -> Command:
    """Return a daemon that waits, since nobody listens at Alpaca's address."""
    url = f"ws://127.0.0.1:{free_port()}/v2/iex"
    return await _started(setup, "waiting", SPOTD_STREAM_URL=url)


async def connection_limit(setup: Setup) -> Command:
    """Return a daemon that waits, since another session holds the account."""
    setup.sim.faults.auth_error = 406
    return await _started(setup, "waiting")


async def breaker_open(setup: Setup) -> Command:
    """Return a daemon that waits, since its breaker is open."""
    setup.sim.faults.handshake_status = 502
    daemon = await _started(setup, "waiting", SPOTD_BREAKER_FAILURES="1")
    assert '"breaker":"open"' in (await daemon.get("/status"))[1]
    return daemon


async def redis_killed(setup: Setup) -> Command:
    """Return a daemon whose Redis went away while it streamed."""
    daemon = await streaming(setup)
    setup.server.kill()
    await setup.until(lambda: daemon.unready("redis"), "the loss is known")
    return daemon


async def redis_hangs(setup: Setup) -> Command:
    """Return a daemon whose Redis went silent while it streamed, with a value pending."""
    daemon = await streaming(setup)
    setup.server.freeze()
    await setup.sim.send([quote("SPY", 10, 11)])
    await setup.until(lambda: daemon.unready("redis"), "the loss is known")
    return daemon


async def redis_hangs_unnoticed(setup: Setup) -> Command:
    """Return a daemon whose Redis went silent a moment ago, with a call under way."""
    daemon = await streaming(setup)
    setup.server.freeze()
    await setup.sim.send([quote("SPY", 10, 11)])
    return daemon


async def standby(setup: Setup) -> Command:
    """Return a daemon beside which another daemon leads."""
    await setup.daemon("leader")
    daemon = await setup.daemon("standby")
    assert await daemon.state() == "standby"
    return daemon


async def starting_without_redis(setup: Setup) -> Command:
    """Return a daemon that starts while nobody listens at Redis' address."""
    url = f"redis://127.0.0.1:{free_port()}/0"
    daemon = await setup.start(SPOTD_REDIS_URL=url)
    await setup.until(lambda: daemon.unready("redis"), "the lack is known")
    assert await daemon.state() == "starting"
    return daemon


async def starting_with_a_hanging_redis(setup: Setup) -> Command:
    """Return a daemon that starts while Redis accepts and never answers."""
    setup.server.freeze()
    daemon = await setup.start()
    await setup.until(partial(daemon.says, "starting"), "starting")
    return daemon


async def subscribing_5000(setup: Setup) -> Command:
    """Return a daemon that subscribes 5,000 symbols, each batch of which is acknowledged late."""
    setup.sim.faults.ack_delay_s = 0.3
    await setup.values.want(*_symbols(5_000))
    daemon = await setup.start()
    await setup.until(lambda: len(setup.sim.received.messages("subscribe")) >= 3, "three batches")
    return daemon


async def rest_hangs(setup: Setup) -> Command:
    """Return a daemon whose requests for first prices REST never answers."""
    setup.sim.faults.rest_hang = True
    daemon = await setup.daemon()
    await setup.streaming(*_symbols(350))
    await setup.until(lambda: len(setup.sim.received.of("rest")) >= 4, "four requests hang")
    return daemon


async def alpaca_is_a_dead_peer(setup: Setup) -> Command:
    """Return a daemon whose stream is open while Alpaca neither reads nor writes any more."""
    daemon = await streaming(setup)
    setup.sim.faults.half_open = True
    return daemon


async def stream_kept_beyond_the_term(setup: Setup) -> Command:
    """Return a daemon whose leader key may have lapsed, since Redis went silent."""
    daemon = await streaming(setup)
    setup.server.freeze()
    await setup.until(partial(daemon.says, "standby"), "the end of its term")
    return daemon


# A scene for each state of the status. ``stopping`` is that of a second signal.
BY_STATE: dict[DaemonStateName, Scene] = {
    "starting": starting_without_redis,
    "standby": standby,
    "idle": idle,
    "connecting": handshake_hangs,
    "streaming": streaming,
    "waiting": connection_refused,
}
SCENES: list[Scene] = [
    idle, streaming, handshake_hangs, connection_refused, redis_killed,
    redis_hangs_unnoticed, standby, starting_without_redis, starting_with_a_hanging_redis,
    rest_hangs, alpaca_is_a_dead_peer, stream_kept_beyond_the_term,
]  # fmt: skip
# Quick, without a process: tests/daemon/test_stream_end.py stops in each of these phases and waits.
OTHER_SCENES: list[Scene] = [
    never_greeted, never_authenticated, never_acknowledged, connection_limit, breaker_open,
    redis_hangs, subscribing_5000,
]  # fmt: skip


async def _stops(setup: Setup, scene: Scene, number: signal.Signals) -> None:
    daemon = await scene(setup)

    assert await daemon.stop(number) == 0, daemon.tail()

    assert "Traceback" not in daemon.output
    assert KEY not in daemon.output
    redis_is_there = "redis" not in scene.__name__ and scene is not stream_kept_beyond_the_term
    if redis_is_there and scene is not standby:
        assert await setup.redis.exists("spotd:leader", "spotd:status") == 0


@pytest.mark.parametrize(
    "scene",
    [*SCENES, *(pytest.param(scene, marks=pytest.mark.long) for scene in OTHER_SCENES)],
    ids=lambda scene: scene.__name__,
)
async def test_it_stops_in_every_state(setup: Setup, scene: Scene) -> None:
    """A stop has exit code 0, no traceback, and frees the leader key unless Redis is away."""
    await _stops(setup, scene, signal.SIGTERM)


@pytest.mark.parametrize("state", get_args(DaemonStateName))
def test_each_state_is_stopped_in(state: DaemonStateName) -> None:
    """No state of the status lacks a scene above; ``stopping`` is the second signal's."""
    if state != "stopping":
        assert BY_STATE[state] in SCENES


@pytest.mark.parametrize(
    "scene",
    [
        idle,
        *(
            pytest.param(scene, marks=pytest.mark.long)
            for scene in (connection_refused, never_greeted)
        ),
    ],
)
async def test_sigint_stops_as_sigterm_does(setup: Setup, scene: Scene) -> None:
    """SIGINT stops a daemon as SIGTERM does, at work, waiting and connecting."""
    await _stops(setup, scene, signal.SIGINT)


@SIGNALS
async def test_a_stop_is_orderly(setup: Setup, number: signal.Signals) -> None:
    """The pending value is published, the close frame sent, leader key and status removed."""
    daemon = await setup.daemon(SPOTD_THROTTLE_MS="30000")
    recorder = await setup.recorder()
    await setup.streaming("SPY")
    await setup.sim.send([quote("SPY", 10, 11)])
    await setup.until(lambda: recorder.of("SPY"), "the first value")
    await setup.sim.send([quote("SPY", 12, 13), trade("SPY", 12.5)])
    await setup.until(partial(_took_in, daemon), "the second came in")
    assert recorder.prices("SPY") == [(10, 11)]

    assert await daemon.stop(number) == 0

    await setup.until(lambda: len(recorder.of("SPY")) == 2, "the pending value")
    assert recorder.prices("SPY") == [(10, 11), (12, 13)]
    assert recorder.updates("SPY")[-1]["last_price"] == 12.5
    await setup.until(setup.closes, "the close frame")
    assert setup.closes() == [1000]
    assert await setup.redis.exists("spotd:leader", "spotd:status") == 0
    assert "Traceback" not in daemon.output


@SIGNALS
async def test_it_stops_while_it_still_loads(setup: Setup, number: signal.Signals) -> None:
    """A daemon that is stopped while it loads ends with 0 too, and without a traceback."""
    home = setup.home / "daemon"
    home.mkdir()
    os.mkfifo(home / ".env")  # nobody writes into it, so the loading does not end
    daemon = await setup.start()
    await setup.until(lambda: _handles_sigterm(daemon), "signals are handled")
    assert daemon.events() == []

    assert await daemon.stop(number) == 0, daemon.tail()

    assert "Traceback" not in daemon.output


async def test_a_second_signal_forces(setup: Setup) -> None:
    """A daemon that is asked twice ends without the rest of an orderly stop, and says so."""
    daemon = await redis_hangs_unnoticed(setup)
    daemon.send(signal.SIGTERM)
    await setup.until(setup.closes, "the orderly stop has begun")

    def ended() -> bool:
        daemon.send(signal.SIGTERM)  # again, since one that comes at once is the same wish
        return not daemon.running

    await setup.until(ended, "the end")
    assert await daemon.ends() == 1
    assert "forced" in daemon.stderr


@pytest.mark.long  # exotic
async def test_a_server_that_never_answers_its_tcp_handshake_cannot_hold_the_stop(
    setup: Setup,
) -> None:
    """Neither start nor stop hangs on a Redis address whose queue is full."""
    async with _full_queue() as port:
        daemon = await setup.start(SPOTD_REDIS_URL=f"redis://127.0.0.1:{port}/0")
        await setup.until(lambda: daemon.unready("redis"), "the lack is known")

        assert await daemon.stop() == 0


@asynccontextmanager
async def _full_queue() -> AsyncIterator[int]:
    """Yield a port where connections are neither accepted nor refused."""
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        port = deaf.getsockname()[1]
        waiting = [socket.socket() for _ in range(4)]
        try:
            for one in waiting:
                one.setblocking(False)
                one.connect_ex(("127.0.0.1", port))
            yield port
        finally:
            for one in waiting:
                one.close()


def _handles_sigterm(daemon: Command) -> bool:
    """Return whether the process has said what to do with SIGTERM; Python itself does not."""
    with open(f"/proc/{daemon.process.pid}/status") as status:  # noqa: PTH123
        caught = next(line for line in status if line.startswith("SigCgt:"))
    return bool(int(caught.split()[1], 16) >> (signal.SIGTERM - 1) & 1)


def _symbols(number: int) -> list[str]:
    return ["".join(letters) for letters in islice(product(ascii_uppercase, repeat=4), number)]


async def _took_in(daemon: Command) -> bool:
    numbers = await daemon.metrics()
    return (
        numbers["spotd_quotes_received_total"] == 2 and numbers["spotd_trades_received_total"] == 1
    )
