"""Every call to Redis has one outcome: an answer or a failure, with its times."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest
import redis

from spotd.errors import NotLeaderError, RedisUnavailableError
from spotd.keys import Keys
from spotd.redis.errors import RefusedError, WrongTypeError
from spotd.redis.port import SCAN_ABOVE, Outcome, RedisPort
from tests.kit.ports import free_port
from tests.kit.redis_port import led, patient, publish
from tests.kit.servers import Server
from tests.kit.waiting import until

KEYS = Keys()
LINE = b'{"symbol":"SPY"}\n'


@pytest.fixture
def outcomes() -> list[Outcome]:
    """Return the list of the outcomes that are reported."""
    return []


@pytest.fixture
async def port(
    process: Server, db: redis.Redis, outcomes: list[Outcome]
) -> AsyncIterator[RedisPort]:
    """Yield the port under test."""
    under_test = patient(process.url, KEYS, outcome=outcomes.append)
    yield under_test
    await under_test.close()


def failures(outcomes: list[Outcome]) -> list[str | None]:
    """Return the failure of each outcome, in order."""
    return [outcome.failure for outcome in outcomes]


async def test_an_answer_has_its_times(port: RedisPort, outcomes: list[Outcome]) -> None:
    """It was sent after the call began, and came before the call returned."""
    before = time.monotonic()
    await port.lead("t", 5.0)
    [outcome] = outcomes
    assert outcome.failure is None
    assert before <= outcome.sent_at <= outcome.at <= time.monotonic()


async def test_each_method_reports_once(port: RedisPort, outcomes: list[Outcome]) -> None:
    """A script that the server did not know is one call."""
    with suppress(NotLeaderError):
        await port.lead("t", 5.0)
    for call in (
        publish(port, "t", LINE, 1),
        port.write_states("t", {}, {}),
        port.write_status("t", b"{}", 5.0, announce=False),
        port.announce("t", b"{}"),
        port.drop_last("t", ["SPY"]),
        port.last_fields(),
        port.last_prices(),
        port.state_fields(),
        port.leader(),
        port.release("t"),
        port.not_in_set([b"SPY"]),
        port.not_leased([b"SPY"], 0.0),
        port.subscribed_channels(),
    ):
        outcomes.clear()
        await call
        assert failures(outcomes) == [None]


async def test_each_slice_of_the_demand_reports(
    port: RedisPort, db: redis.Redis, outcomes: list[Outcome]
) -> None:
    """Every slice is a call of its own."""
    db.sadd(KEYS.symbols, *(f"S{n}" for n in range(SCAN_ABOVE + 1)))
    slices = [some async for some in port.demand_set()]
    assert failures(outcomes) == [None] * (1 + len(slices))


async def test_that_another_leads_is_an_answer(port: RedisPort, outcomes: list[Outcome]) -> None:
    """Redis works: it only holds another's token."""
    with pytest.raises(NotLeaderError):
        await publish(port, "t", LINE, 1)
    assert failures(outcomes) == [None]


async def test_a_wrong_type_in_what_is_read_is_an_answer(
    port: RedisPort, db: redis.Redis, outcomes: list[Outcome]
) -> None:
    """It concerns one key, and the demand loop logs it."""
    for key in (KEYS.symbols, KEYS.leases, KEYS.last, KEYS.states):
        db.set(key, "x")
    assert await port.last_prices() == await port.states() == []
    assert await port.last_fields() == await port.state_fields() == set()
    with pytest.raises(WrongTypeError):
        await anext(aiter(port.demand_set()))
    for call in (
        port.leases(),
        port.not_in_set([b"A"]),
        port.not_leased([b"A"], 0.0),
    ):
        with pytest.raises(WrongTypeError):
            await call
    assert failures(outcomes) == [None] * 8


async def test_a_refusal_is_an_answer_only_where_the_demand_is_read(
    process: Server, db: redis.Redis, outcomes: list[Outcome]
) -> None:
    """The demand loop goes on without a refused source; no other call can be done without."""
    db.acl_setuser("poor", enabled=True, nopass=True, keys="*", commands=["-@all"])
    port = patient(f"redis://poor:x@127.0.0.1:{process.port}/0", KEYS, outcome=outcomes.append)
    for read in (
        port.leases(),
        port.not_in_set([b"A"]),
        port.not_leased([b"A"], 0.0),
        port.subscribed_channels(),
    ):
        with pytest.raises(RefusedError):
            await read
    assert failures(outcomes) == [None] * 4
    outcomes.clear()
    for call in (
        port.last_fields(),
        port.last_prices(),
        port.state_fields(),
        port.lead("t", 5.0),
        publish(port, "t", LINE, 1),
        port.drop_last("t", ["A"]),
    ):
        with pytest.raises(RefusedError) as caught:
            await call
        assert outcomes[-1].failure == str(caught.value)
    await port.close()
    db.acl_deluser("poor")


async def test_what_is_not_answered_is_a_failure(tmp_path: Path, outcomes: list[Outcome]) -> None:
    """Nobody there, no answer in time, an error instead of one: its text is the failure."""
    gone = patient(f"redis://127.0.0.1:{free_port()}/0", KEYS, outcome=outcomes.append)
    with Server(tmp_path) as server:
        frozen = patient(server.url, KEYS, outcome=outcomes.append, call_timeout_s=0.2)
        full = patient(server.url, KEYS, outcome=outcomes.append)
        await led(frozen, "t")
        outcomes.clear()
        server.freeze()
        try:
            for port in (gone, frozen):
                with pytest.raises(RedisUnavailableError) as caught:
                    await port.leader()
                assert outcomes[-1].failure == str(caught.value)
        finally:
            server.thaw()
        with server.client() as client:
            client.config_set("maxmemory", 1)
        with pytest.raises(RedisUnavailableError, match="maxmemory"):
            await full.lead("t", 5.0)
        assert "maxmemory" in str(outcomes[-1].failure)
        assert len(outcomes) == 3
        for port in (gone, frozen, full):
            await port.close()


@pytest.mark.usefixtures("db")  # the test before may have left a leader
async def test_a_process_that_stood_still_reads_the_answer_that_came_meanwhile(
    process: Server, outcomes: list[Outcome]
) -> None:
    """The call is answered, and nothing says that Redis is away."""
    limit_s = 2.0
    port = patient(process.url, KEYS, outcome=outcomes.append, call_timeout_s=limit_s)
    await port.leader()
    asking = asyncio.create_task(port.leader())
    await asyncio.sleep(0)  # the call is sent
    assert not asking.done()
    time.sleep(1.1 * limit_s)  # noqa: ASYNC251 - the process stands still
    await asking
    assert [outcome.failure for outcome in outcomes] == [None, None]
    await port.close()


async def test_a_cancelled_call_reports_nothing(
    process: Server, port: RedisPort, outcomes: list[Outcome]
) -> None:
    """A caller that gives up says nothing about Redis, and neither does an outer time limit."""
    await port.leader()
    outcomes.clear()
    process.freeze()
    try:
        asking = asyncio.create_task(port.leader())
        await asyncio.sleep(0)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await port.leader()
    finally:
        process.thaw()
    assert outcomes == []


async def test_listening_reports_nothing(port: RedisPort, outcomes: list[Outcome]) -> None:
    """``wakes`` has its own connection, and its loop tries again by itself."""
    heard: list[None] = []

    async def listen() -> None:
        async for _ in port.wakes():
            heard.append(None)  # noqa: PERF401 - it never ends

    listening = asyncio.create_task(listen())
    await until(lambda: heard, "listening")
    listening.cancel()
    await asyncio.gather(listening, return_exceptions=True)
    assert outcomes == []
