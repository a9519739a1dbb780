"""SIGTERM and SIGINT end the daemon with 0 within 5 s, in whatever state it is."""

from __future__ import annotations

import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from itertools import islice, product
from string import ascii_uppercase
from typing import TypeAlias

import pytest

from tests.e2e.kit import KEY, START_S, STOP_S, Command, World, free_port, quote, say

SIGNALS = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda n: n.name)
Scene: TypeAlias = Callable[[World], Awaitable[Command]]


async def _is(daemon: Command, *states: str) -> bool:
    return await daemon.state() in states


async def _started(world: World, state: str, **settings: str) -> Command:
    """A daemon that wants SPY, once it says that it is in this state."""
    await world.want("SPY")
    daemon = await world.start(**settings)
    await world.until(partial(_is, daemon, state), START_S, state)
    return daemon


async def idle(world: World) -> Command:
    """Leader, nothing desired."""
    return await world.daemon()


async def streaming(world: World) -> Command:
    """Connected and subscribed."""
    daemon = await world.daemon()
    await world.streaming("SPY")
    return daemon


async def handshake_hangs(world: World) -> Command:
    """Connecting: the upgrade is never answered."""
    world.sim.faults.handshake_hang = True
    return await _started(world, "connecting")


async def never_greeted(world: World) -> Command:
    """Connecting: the socket is open and nothing comes."""
    world.sim.faults.no_greeting = True
    daemon = await _started(world, "connecting")
    await world.until(lambda: world.sim.sessions, 3, "a session without a greeting")
    return daemon


async def never_authenticated(world: World) -> Command:
    """Connecting: the keys are never answered."""
    world.sim.faults.auth_silent = True
    daemon = await _started(world, "connecting")
    await world.until(lambda: world.sim.received.messages("auth"), 3, "the keys were sent")
    return daemon


async def never_acknowledged(world: World) -> Command:
    """Connecting: the subscription is never acknowledged."""
    world.sim.faults.ack_silent = True
    daemon = await _started(world, "connecting")
    await world.until(lambda: world.asked("subscribe", "SPY"), 3, "the subscription was sent")
    return daemon


async def connection_refused(world: World) -> Command:
    """Waiting: nobody listens at Alpaca's address."""
    url = f"ws://127.0.0.1:{free_port()}/v2/iex"
    return await _started(world, "waiting", SPOTD_STREAM_URL=url)


async def connection_limit(world: World) -> Command:
    """Waiting: another session holds the account."""
    world.sim.faults.auth_error = 406
    return await _started(world, "waiting")


async def breaker_open(world: World) -> Command:
    """Waiting: the breaker is open."""
    world.sim.faults.handshake_status = 502
    daemon = await _started(world, "waiting", SPOTD_BREAKER_FAILURES="1")
    assert '"breaker":"open"' in (await daemon.get("/status"))[1]
    return daemon


async def redis_killed(world: World) -> Command:
    """Redis went away while streaming."""
    daemon = await streaming(world)
    world.store.kill()
    await world.until(lambda: _unready(daemon, "redis"), 5, "the loss is known")
    return daemon


async def redis_hangs(world: World) -> Command:
    """Redis went silent while streaming, with a value pending."""
    daemon = await streaming(world)
    world.store.send(signal.SIGSTOP)
    await world.sim.send([quote("SPY", 10, 11)])
    await world.until(lambda: _unready(daemon, "redis"), 8, "the loss is known")
    return daemon


async def redis_hangs_unnoticed(world: World) -> Command:
    """Redis went silent a moment ago: a call is under way."""
    daemon = await streaming(world)
    world.store.send(signal.SIGSTOP)
    await world.sim.send([quote("SPY", 10, 11)])
    return daemon


async def standby(world: World) -> Command:
    """Another daemon leads."""
    await world.daemon("leader")
    daemon = await world.daemon("standby")
    assert await daemon.state() == "standby"
    return daemon


async def starting_without_redis(world: World) -> Command:
    """Starting: nobody listens at Redis' address."""
    url = f"redis://127.0.0.1:{free_port()}/0"
    daemon = await world.start(SPOTD_REDIS_URL=url)
    await world.until(lambda: _unready(daemon, "redis"), START_S, "the lack is known")
    assert await daemon.state() == "starting"
    return daemon


async def starting_with_a_hanging_redis(world: World) -> Command:
    """Starting: Redis accepts and never answers."""
    world.store.send(signal.SIGSTOP)
    daemon = await world.start()
    await world.until(partial(_is, daemon, "starting"), START_S, "starting")
    return daemon


async def subscribing_5000(world: World) -> Command:
    """In the middle of 5,000 symbols, each batch acknowledged late."""
    world.sim.faults.ack_delay_s = 0.3
    await world.want(*_symbols(5_000))
    daemon = await world.start()
    await world.until(
        lambda: len(world.sim.received.messages("subscribe")) >= 3, START_S, "three batches"
    )
    return daemon


async def rest_hangs(world: World) -> Command:
    """REST never answers the requests for first prices."""
    world.sim.faults.rest_hang = True
    daemon = await world.daemon()
    await world.streaming(*_symbols(350))
    await world.until(lambda: len(world.sim.received.of("rest")) >= 4, 3, "four requests hang")
    return daemon


async def alpaca_is_a_dead_peer(world: World) -> Command:
    """The stream is open, and Alpaca neither reads nor writes any more."""
    daemon = await streaming(world)
    world.sim.faults.half_open = True
    return daemon


SCENES: list[Scene] = [
    idle, streaming, handshake_hangs, never_greeted, never_authenticated, never_acknowledged,
    connection_refused, connection_limit, breaker_open, redis_killed, redis_hangs,
    redis_hangs_unnoticed, standby, starting_without_redis, starting_with_a_hanging_redis,
    subscribing_5000, rest_hangs, alpaca_is_a_dead_peer,
]  # fmt: skip


@SIGNALS
@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.__name__)
async def test_it_stops_in_every_state(world: World, scene: Scene, number: signal.Signals) -> None:
    """Exit code 0 within 5 s, no traceback, and the leader key is free unless Redis is away."""
    daemon = await scene(world)

    code, took = await daemon.stop(number)

    say(f"{scene.__name__} {number.name}: {code} after {took:.2f} s")
    assert code == 0, daemon.tail()
    assert took < STOP_S, daemon.tail()
    assert "Traceback" not in daemon.output
    assert KEY not in daemon.output
    if "redis" not in scene.__name__ and scene is not standby:
        assert await world.redis.exists("spotd:leader", "spotd:status") == 0


@SIGNALS
async def test_it_stops_while_it_still_loads(world: World, number: signal.Signals) -> None:
    """Asked to stop before it is at work, it ends with 0 too, and without a traceback."""
    daemon = await world.start()
    await world.until(lambda: _handles_sigterm(daemon), START_S, "signals are handled")
    assert daemon.events() == []

    code, took = await daemon.stop(number)

    assert (code, "Traceback" in daemon.output) == (0, False), daemon.tail()
    assert took < STOP_S


async def test_a_second_signal_forces(world: World) -> None:
    """Asked twice, it does not wait for anything any more, and says so."""
    daemon = await redis_hangs_unnoticed(world)
    daemon.send(signal.SIGTERM)
    await world.until(world.closes, 3, "the orderly stop has begun")

    code, took = await daemon.stop(signal.SIGTERM)

    assert code == 1
    assert took < 0.5
    assert "forced" in daemon.stderr


async def test_a_stop_leaves_the_standby_s_key_alone(world: World) -> None:
    """A standby that is stopped takes nothing from the leader."""
    leader = await world.daemon("leader")
    await world.streaming("SPY")
    standby_ = await world.daemon("standby")
    token = await world.redis.get("spotd:leader")

    assert (await standby_.stop())[0] == 0

    assert await world.redis.get("spotd:leader") == token
    assert await world.redis.exists("spotd:status")
    assert await leader.state() == "streaming"


async def test_a_server_that_never_answers_its_tcp_handshake_cannot_hold_the_stop(
    world: World,
) -> None:
    """Redis behind an address whose queue is full: neither start nor stop hangs on it."""
    async with _full_queue() as port:
        daemon = await world.start(SPOTD_REDIS_URL=f"redis://127.0.0.1:{port}/0")
        await world.until(lambda: _unready(daemon, "redis"), START_S, "the lack is known")

        code, took = await daemon.stop()

    assert code == 0
    assert took < STOP_S


@asynccontextmanager
async def _full_queue() -> AsyncIterator[int]:
    """A port where connections are neither accepted nor refused."""
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
    """Whether the process has said what to do with SIGTERM; Python itself does not."""
    with open(f"/proc/{daemon.process.pid}/status") as status:  # noqa: PTH123
        caught = next(line for line in status if line.startswith("SigCgt:"))
    return bool(int(caught.split()[1], 16) >> (signal.SIGTERM - 1) & 1)


def _symbols(number: int) -> list[str]:
    return ["".join(letters) for letters in islice(product(ascii_uppercase, repeat=4), number)]


async def _unready(daemon: Command, word: str) -> bool:
    status, reasons = await daemon.get("/readyz")
    return status == 503 and word in reasons
