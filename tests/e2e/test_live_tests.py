"""The tests of `tests/live` can pass and can fail: the simulator stands for Alpaca.

They are run as an operator runs them, with keys and the addresses of the simulator in the
environment.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from asyncio.subprocess import PIPE, STDOUT
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import pytest

from spotd.simulator import Limits, MarketModel, Simulator
from tests.e2e.setup import KEY, SECRET, quote, trade
from tests.kit.processes import environment
from tests.live.test_alpaca import FEW, MADE_UP

ROOT = Path(__file__).resolve().parents[2]
QUIET = FEW[1]
LIVE = "tests/live/test_alpaca.py"
OUTCOMES = ("failure", "error", "skipped")

pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]


class Run(NamedTuple):
    """What one run of the tests led to: each test's outcome, and all that was written."""

    outcomes: dict[str, str]
    output: str


@pytest.fixture
async def alpaca() -> AsyncIterator[Simulator]:
    """Yield an Alpaca with the free plan's limit, and a market that never closes."""
    limits = Limits(symbols=30)
    market = MarketModel(seed=7, quotes_per_s=200.0)
    async with Simulator(keys={KEY: SECRET}, limits=limits, market=market) as simulator:
        # A quiet symbol: what REST has of it is older than any test.
        simulator.faults.mute_symbols = {QUIET}
        hour_ago_ns = time.time_ns() - 3_600 * 10**9
        await simulator.send(
            [
                quote(QUIET, 190.0, 190.1, t=hour_ago_ns),
                trade(QUIET, 190.05, t=hour_ago_ns),
            ]
        )
        yield simulator


async def run_live(home: Path, settings: dict[str, str], *args: str, guard_s: float = 30.0) -> Run:
    """Run pytest as it is documented, with these variables. Return what it led to."""
    results = home / "results.xml"
    command = [sys.executable, "-m", "pytest", "-m", "live", "-n", "0", f"--junitxml={results}"]
    inherited = {k: v for k, v in environment(**settings).items() if not k.startswith("PYTEST_")}
    process = await asyncio.create_subprocess_exec(
        *command, "-rA", "--showlocals", *(args or ("tests/live",)),
        cwd=ROOT,
        env={**inherited, "TEST_SPOTD_LIVE_GUARD_S": str(guard_s)},
        stdout=PIPE,
        stderr=STDOUT,
    )  # fmt: skip
    written, _ = await process.communicate()
    output = written.decode()
    outcomes = {
        str(case.get("name")): next((each.tag for each in case if each.tag in OUTCOMES), "passed")
        for case in ElementTree.parse(results).iter("testcase")  # noqa: S314 - pytest wrote it
    }
    assert outcomes, output
    return Run(outcomes, output)


def account(alpaca: Simulator) -> dict[str, str]:
    """Return the variables that an operator sets, and those that lead to the simulator."""
    return {
        "ALPACA_API_KEY": KEY,
        "ALPACA_SECRET_KEY": SECRET,
        "SPOTD_STREAM_URL": alpaca.stream_url("iex"),
        "SPOTD_DATA_URL": alpaca.data_url,
    }


async def test_they_pass(alpaca: Simulator, tmp_path: Path) -> None:
    """Each passes against an Alpaca that works; both feeds are used, and REST is only read."""
    run = await run_live(tmp_path, account(alpaca))

    assert set(run.outcomes.values()) == {"passed"}, run.output
    assert next(iter(run.outcomes)) == "test_fakepaca_arrives"
    asked = {record.data.partition("?")[0] for record in alpaca.received.of("rest")}
    assert asked == {"/v2/stocks/snapshots"}
    assert alpaca.stats.refused[406] >= 2
    assert alpaca.stats.refused[405] >= 1
    assert alpaca.stats.refused[402] == 1


def _mute(alpaca: Simulator) -> None:
    alpaca.faults.mute = True


def _takes_any_key(alpaca: Simulator) -> None:
    alpaca.keys[MADE_UP["ALPACA_API_KEY"]] = MADE_UP["ALPACA_SECRET_KEY"]


def _connection_is_taken(alpaca: Simulator) -> None:
    alpaca.faults.auth_error = 406


def _rest_fails(alpaca: Simulator) -> None:
    alpaca.faults.rest_status = 500


def _rest_is_empty(alpaca: Simulator) -> None:
    alpaca.faults.rest_null = True


def _refuses_every_subscribe(alpaca: Simulator) -> None:
    alpaca.faults.subscribe_error = 405


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("test_fakepaca_arrives", _mute),
        ("test_wrong_keys_end_it_with_3", _takes_any_key),
        ("test_a_stop_frees_the_connection[test]", _connection_is_taken),
        ("test_check_tries_the_keys", _rest_fails),
        ("test_iex_snapshots", _rest_is_empty),
        ("test_the_plans_symbol_limit", _refuses_every_subscribe),
    ],
    ids=lambda value: value if isinstance(value, str) else value.__name__.strip("_"),
)
async def test_they_fail(
    name: str, fault: Callable[[Simulator], None], alpaca: Simulator, tmp_path: Path
) -> None:
    """Each fails where Alpaca, or the daemon, does not do what it says; no key is written."""
    fault(alpaca)

    run = await run_live(tmp_path, account(alpaca), f"{LIVE}::{name}", guard_s=5.0)

    assert set(run.outcomes.values()) == {"failure"}, run.output
    assert KEY not in run.output
    assert SECRET not in run.output


async def test_a_second_connection_that_is_granted(alpaca: Simulator, tmp_path: Path) -> None:
    """Where the account may have two connections, nothing is proven: the test is skipped."""
    alpaca.limits.connections = 2

    run = await run_live(tmp_path, account(alpaca), f"{LIVE}::test_a_second_connection_waits")

    assert set(run.outcomes.values()) == {"skipped"}, run.output


async def test_without_keys_they_are_skipped(tmp_path: Path) -> None:
    """Without keys nothing is started."""
    run = await run_live(tmp_path, {})

    assert set(run.outcomes.values()) == {"skipped"}, run.output
    assert "set ALPACA_API_KEY and ALPACA_SECRET_KEY" in run.output


@pytest.mark.parametrize("marks", [(), ("-m", "long")], ids=["plain", "long"])
def test_no_other_run_selects_them(marks: tuple[str, ...]) -> None:
    """A plain run and the long one, which CI makes, leave them out, also where keys are set."""
    found = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-n", "0", *marks, "tests/live"],
        cwd=ROOT,
        env=environment(ALPACA_API_KEY=KEY, ALPACA_SECRET_KEY=SECRET),
        capture_output=True,
        text=True,
        check=False,
    )

    assert found.returncode == pytest.ExitCode.NO_TESTS_COLLECTED, found.stdout
    assert "deselected" in found.stdout


async def test_keys_are_cut_out_of_failures(tmp_path: Path) -> None:
    """A key in a failed assertion, in a local variable or in what a test printed is not shown."""
    leaky = tmp_path / "test_leaky.py"
    leaky.write_text(
        "import os\nimport pytest\n\n\n"
        "@pytest.mark.live\n"
        "def test_leaks():\n"
        "    secret = os.environ['ALPACA_SECRET_KEY']\n"
        "    print(os.environ['ALPACA_API_KEY'])\n"
        "    assert secret == 'shown'\n"
    )
    keys = {"ALPACA_API_KEY": KEY, "ALPACA_SECRET_KEY": SECRET}

    run = await run_live(tmp_path, keys, "-p", "tests.live.conftest", str(leaky))

    assert run.outcomes == {"test_leaks": "failure"}
    assert "shown" in run.output
    assert KEY not in run.output + (tmp_path / "results.xml").read_text()
    assert SECRET not in run.output + (tmp_path / "results.xml").read_text()
