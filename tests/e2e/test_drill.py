"""The drill that operators run: it ends the leader, and reports what a consumer sees."""

from __future__ import annotations

import asyncio
import re
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

import pytest

from tests.e2e.setup import Setup
from tests.kit.ports import free_port
from tests.kit.processes import Command, environment
from tests.kit.waiting import GUARD_S

DRILL = Path(__file__).parents[2] / "deploy/drills/failover.py"


async def _pair(setup: Setup) -> tuple[Command, Command]:
    setup.sim.limits.connections = 2  # of a dead session no successor must be afraid here
    first = await setup.daemon("first")
    await setup.streaming("SPY")
    return first, await setup.daemon("second")


async def _drill(setup: Setup, *arguments: str, answer: str = "") -> tuple[int, dict[str, str]]:
    """Run the drill. Return its exit code, and its report with what went to stderr as ``error``.

    Once ``answer`` stands in the report, the leader is ended here, as a person would.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(DRILL), "SPY", "--before-s", "0.5", *arguments,
        env=environment(SPOTD_REDIS_URL=setup.server.url),
        stdout=PIPE, stderr=PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stderr is not None
    said = ""
    try:
        async with asyncio.timeout(GUARD_S):
            async for line in process.stdout:
                said += line.decode()
                if answer and answer in said:
                    answer = ""
                    await setup.commands[0].kill()
            error = (await process.stderr.read()).decode()
            code = await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
        raise AssertionError(f"the drill hangs\n{said}\n{setup.logs()}") from None
    report = {line[:16].strip(): line[16:] for line in said.splitlines()}
    return code, report | {"error": error}


async def _instance(daemon: Command) -> str:
    return str((await daemon.status())["instance"])


@pytest.mark.parametrize(
    "how", ["-TERM", *(pytest.param(how, marks=pytest.mark.long) for how in ("-KILL", "-STOP"))]
)
async def test_it_ends_the_leader_and_reports(market: Setup, how: str) -> None:
    """However the leader ends: the other leads, prices go on, and pause and gap are told."""
    first, second = await _pair(market)
    leader, standby = await _instance(first), await _instance(second)

    afterwards = ("--afterwards", "kill -CONT {pid}") if how == "-STOP" else ()
    code, report = await _drill(market, "--run", f"kill {how} {{pid}}", *afterwards)

    assert code == 0, report
    # It waits where Redis answers late at this moment.
    assert re.fullmatch(f"{leader}, (streaming|waiting), 1 symbols live", report["leader"])
    assert report["leader now"] == standby
    assert re.match(r"\d+\.\d\d s \(usually", report["prices missing"])
    assert "1 symbols, leader_changed: " in report["gap event"]
    assert report["error"] == ""
    assert await second.leads()


@pytest.mark.long  # exotic
async def test_it_asks_a_person(market: Setup) -> None:
    """Without a command it says whom to end, and watches until somebody does."""
    first, second = await _pair(market)
    leader, standby = await _instance(first), await _instance(second)

    code, report = await _drill(market, answer=f"end {leader} now")

    assert code == 0, report
    assert report["leader now"] == standby


@pytest.mark.long  # exotic: what the drill does where it fails
async def test_it_fails_where_nobody_takes_over(market: Setup) -> None:
    """Without a standby the exit code is 1, and so is it without a daemon at all."""
    await market.daemon()
    await market.streaming("SPY")

    code, report = await _drill(market, "--run", "kill -9 {pid}", "--limit-s", "1")
    assert code == 1
    assert "nobody replaced" in report["error"]

    await market.redis.delete("spotd:status")
    code, report = await _drill(market)
    assert code == 1
    assert report["error"] == "no daemon runs here\n"


@pytest.mark.long  # exotic: what the drill does where it fails
async def test_it_fails_where_prices_were_missing_for_too_long(market: Setup) -> None:
    """``--at-most-s`` makes a promise of the drill that a timer can check."""
    await _pair(market)

    code, report = await _drill(market, "--run", "kill -9 {pid}", "--at-most-s", "0.01")

    assert code == 1
    assert "longer than 0.01 s" in report["error"]


async def test_it_says_what_is_wrong(market: Setup) -> None:
    """A command that fails, and a Redis that is away, are one line and an exit code."""
    await market.daemon()
    await market.streaming("SPY")

    code, report = await _drill(market, "--run", "exit 7")
    assert (code, report["error"]) == (1, "exit code 7: exit 7\n")

    market.server.port, away = free_port(), market.server.port
    code, report = await _drill(market)
    market.server.port = away
    assert code == 1
    assert report["error"].count("\n") == 1
    assert "Traceback" not in report["error"]
