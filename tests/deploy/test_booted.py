"""The units under a systemd that booted for real: started, restarted, killed, hung, and stopped.

Alpaca is the simulator, Redis is a real server; both are the test's own. The units are unchanged.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from spotd.keys import Keys
from tests.e2e.setup import KEY, SECRET, Setup, quote
from tests.kit.booted import BootedSystemd, CannotBootError
from tests.kit.ports import free_port
from tests.kit.values import Values
from tests.kit.waiting import until

UNITS = Path(__file__).resolve().parents[2] / "deploy" / "systemd"
DAEMON, RELAY = "spotd@sip", "spotd-relay"
TOKEN = "a-token-of-enough-letters"
WATCHDOG_GUARD_S = 300.0  # WatchdogSec is 15 s
ENVIRON = "tr '\\0' '\\n' </proc/{pid}/environ"

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]


class Machine:
    """A booted systemd with the units of daemon and relay, between the simulator and a server."""

    def __init__(self, setup: Setup, systemd: BootedSystemd, relay_port: int) -> None:
        self.setup = setup
        self.systemd = systemd
        self.values = Values(setup.server.url, Keys("spotd-sip:", "spot-sip:"))
        self._relay_url = f"http://127.0.0.1:{relay_port}"
        self._bid = 100.0

    async def systemctl(self, *args: str) -> str:
        """Run systemctl while the simulator goes on."""
        return await asyncio.to_thread(self.systemd.systemctl, *args)

    async def show(self, unit: str, name: str) -> str:
        """Return one property of a unit."""
        return (await asyncio.to_thread(self.systemd.show, unit))[name]

    async def journal(self, unit: str) -> str:
        """Return what a unit, and systemd about it, has logged."""
        return await asyncio.to_thread(self.systemd.journal, unit)

    async def run(self, script: str) -> str:
        """Return what a shell prints in the machine."""
        return (await asyncio.to_thread(self.systemd.run, "sh", "-c", script)).stdout

    async def until(self, unit: str, name: str, value: str, guard_s: float = 60.0) -> None:
        """Wait until a property of a unit has this value."""

        async def has() -> bool:
            return await self.show(unit, name) == value

        what = f"{name}={value} of {unit}"
        try:
            await until(has, what, guard_s=guard_s)
        except AssertionError as error:
            error.add_note(await self.journal(unit))
            raise

    async def prices_flow(self) -> None:
        """Check that a new price of Alpaca arrives in Redis, and at a client of the relay."""
        await self.values.want("SPY")
        await until(lambda: self.values.live("SPY"), "SPY live", guard_s=WATCHDOG_GUARD_S)
        self._bid += 1.0
        await self.setup.sim.send([quote("SPY", self._bid, self._bid + 0.02)])

        async def stored() -> bool:
            return await self.values.bid("SPY") == self._bid

        async def shown() -> bool:
            headers = {"Authorization": f"Bearer {TOKEN}"}
            url = f"{self._relay_url}/api/spot-prices?symbols=SPY"
            try:
                async with (
                    aiohttp.ClientSession(headers=headers) as session,
                    session.get(url) as answer,
                ):
                    price: Any = (await answer.json())["prices"]["SPY"]
                    return price is not None and price["bid_price"] == self._bid
            except aiohttp.ClientError:
                return False

        await until(stored, "the price in Redis")
        await until(shown, "the price of the relay")


@pytest.fixture
async def machine(tmp_path: Path) -> AsyncIterator[Machine]:
    """Yield a machine with nothing started; skip the test where none can be booted."""
    relay_port = free_port()
    async with Setup(tmp_path) as setup:
        files = {
            "spotd/sip.env": f"""
SPOTD_HTTP_PORT={free_port()}
SPOTD_REDIS_URL={setup.server.url}
SPOTD_STREAM_URL={setup.sim.stream_url("sip")}
SPOTD_DATA_URL={setup.sim.data_url}
""",
            "spotd/relay.env": f"""
SPOTD_RELAY_PORT={relay_port}
SPOTD_REDIS_URL={setup.server.url}
SPOTD_KEY_PREFIX=spotd-sip:
SPOTD_CHANNEL_PREFIX=spot-sip:
""",
            "spotd/credentials/sip/alpaca_api_key": KEY,
            "spotd/credentials/sip/alpaca_secret_key": SECRET,
            "spotd/credentials/spotd_relay_token": TOKEN,
        }
        booted = BootedSystemd(tmp_path / "machine", sorted(UNITS.glob("*.service")), files)
        try:
            systemd = await asyncio.to_thread(booted.__enter__)
        except CannotBootError as error:
            pytest.skip(f"no systemd can be booted here: {error}")
        try:
            machine = Machine(setup, systemd, relay_port)
            yield machine
            await machine.values.aclose()
        finally:
            await asyncio.to_thread(booted.__exit__)


async def test_started_restarted_and_stopped(machine: Machine) -> None:
    """Started as the README says, both are active and publish; so they do after a restart.

    The sandbox is on, the secrets are in no environment, and a stop ends with success.
    """
    await machine.systemctl("start", DAEMON, RELAY)  # returns once both said READY=1
    for unit in (DAEMON, RELAY):
        assert await machine.show(unit, "SubState") == "running"
        pid = await machine.show(unit, "MainPID")
        told = (await machine.run(f"cat /proc/{pid}/status")).split("\n")
        sandbox = dict(line.split(":\t", 1) for line in told if ":\t" in line)
        assert sandbox["Uid"].split()[0] != "0"
        assert (sandbox["CapEff"], sandbox["NoNewPrivs"], sandbox["Seccomp"]) == (
            "0" * 16,
            "1",
            "2",
        )
        environ = await machine.run(ENVIRON.format(pid=pid))
        assert "CREDENTIALS_DIRECTORY=" in environ
        assert not any(secret in environ for secret in (KEY, SECRET, TOKEN))
    pid = await machine.show(RELAY, "MainPID")
    limits = await machine.run(f"grep 'open files' /proc/{pid}/limits")
    assert limits.split()[3:5] == ["16384", "16384"]
    assert "may open" not in await machine.journal(RELAY)
    await machine.prices_flow()
    await machine.until(DAEMON, "StatusText", "streaming")
    await machine.until(RELAY, "StatusText", "ready")

    await machine.systemctl("restart", DAEMON, RELAY)
    await machine.prices_flow()

    await machine.systemctl("stop", DAEMON, RELAY)
    for unit in (DAEMON, RELAY):
        assert await machine.show(unit, "ActiveState") == "inactive"
        assert await machine.show(unit, "Result") == "success"
        assert await machine.show(unit, "NRestarts") == "0"
    assert await machine.values.token() is None
    assert await machine.values.status() is None


async def test_killed_and_hung(machine: Machine) -> None:
    """Killed by force, both are started again; hung, the watchdog ends them, and so again."""
    await machine.systemctl("start", DAEMON, RELAY)
    await machine.prices_flow()

    for unit in (DAEMON, RELAY):
        await machine.systemctl("kill", "--signal=SIGKILL", unit)
    for unit in (DAEMON, RELAY):
        await machine.until(unit, "NRestarts", "1")
        await machine.until(unit, "SubState", "running")
    await machine.prices_flow()

    for unit in (DAEMON, RELAY):
        await machine.systemctl("kill", "--signal=SIGSTOP", unit)
    for unit in (DAEMON, RELAY):
        await machine.until(unit, "NRestarts", "2", guard_s=WATCHDOG_GUARD_S)
        await machine.until(unit, "SubState", "running")
        journal = await machine.journal(unit)
        assert "Watchdog timeout" in journal
        assert "Fatal Python error: Aborted" in journal
    await machine.prices_flow()


async def test_what_needs_a_person_stays_down(machine: Machine) -> None:
    """With wrong settings, or keys that Alpaca refuses, a unit fails once and is left so."""
    spotd = machine.systemd.etc / "spotd"
    good = (spotd / "sip.env").read_text()
    (spotd / "sip.env").write_text("SPOTD_FEDE=iex\n")
    (spotd / "relay.env").write_text("SPOTD_RELAY_PROT=1\n")
    for unit in (DAEMON, RELAY):
        await machine.run(f"systemctl start {unit}")
        await machine.until(unit, "SubState", "failed")
        assert await machine.show(unit, "ExecMainStatus") == "2"

    (spotd / "sip.env").write_text(good)
    (spotd / "credentials/sip/alpaca_api_key").write_text("PKWRONG")
    await machine.run(f"systemctl start {DAEMON}")
    await machine.values.want("SPY")
    await machine.until(DAEMON, "SubState", "failed")
    assert await machine.show(DAEMON, "ExecMainStatus") == "3"
    assert await machine.show(DAEMON, "NRestarts") == await machine.show(RELAY, "NRestarts") == "0"

    # Mended by a person, it works.
    (spotd / "credentials/sip/alpaca_api_key").write_text(KEY)
    await machine.systemctl("start", DAEMON)
    await until(lambda: machine.values.live("SPY"), "SPY live")
