"""Daemon and relay keep their side of the units: ready, alive, their status, and stopping.

The test has the manager's end of a real notify socket.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from tests.kit.ports import free_port
from tests.kit.processes import environment
from tests.kit.waiting import GUARD_S, until_sync

WATCHDOG_S = 0.4

# The command, with a signal that makes its event loop hang as a defect would.
PROGRAM = """
import signal, sys, time
signal.signal(signal.SIGUSR1, lambda *_: time.sleep(3600))
from spotd.cli.main import main
sys.exit(main())
"""


class Manager:
    """The end of the notify socket that systemd has."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.heard: list[str] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))

    def hears(self, wanted: str, guard_s: float = GUARD_S) -> bool:
        """Wait for one assignment, and return whether it came."""
        return self.hears_one(lambda said: said == wanted, guard_s)

    def hears_one(self, wanted: Callable[[str], bool], guard_s: float = GUARD_S) -> bool:
        """Wait for an assignment that is wanted, and return whether one came."""
        until = time.monotonic() + guard_s
        while (left := until - time.monotonic()) > 0:
            if any(map(wanted, self._hear(left))):
                return True
        return False

    def hears_no_sign_of_life(self) -> bool:
        """Return once none came for a whole timeout: systemd's watchdog would act now.

        What was sent before may wait in the socket.
        """
        while self.hears("WATCHDOG=1", guard_s=WATCHDOG_S):
            pass
        return True

    def heard_so_far(self) -> list[str]:
        """Return all that was told so far, without waiting for more."""
        while self._hear(0.0):
            pass
        return self.heard

    @property
    def status(self) -> str:
        """The newest status that was told so far; empty before the first."""
        told = [said for said in self.heard_so_far() if said.startswith("STATUS=")]
        return told[-1].removeprefix("STATUS=") if told else ""

    def close(self) -> None:
        self._socket.close()

    def _hear(self, limit_s: float) -> list[str]:
        """Return the assignments of the next message; none where none comes in time."""
        self._socket.settimeout(limit_s)
        try:
            said = self._socket.recv(4096).decode().splitlines()
        except (BlockingIOError, TimeoutError):
            return []
        self.heard += said
        return said


class Service:
    """A command as its unit runs it, without Redis and without Alpaca."""

    def __init__(self, command: str, home: Path, manager: Manager, **more: str) -> None:
        self.command = command
        self.port = free_port()
        self._stderr = home / "stderr"
        with self._stderr.open("wb") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, "-c", PROGRAM, command],
                cwd=home,
                stderr=stderr,
                env=environment(
                    **{
                        "PYTHONFAULTHANDLER": "1",  # as in the unit
                        "NOTIFY_SOCKET": str(manager.path),
                        "WATCHDOG_USEC": str(int(WATCHDOG_S * 1_000_000)),
                        "ALPACA_API_KEY": "key",
                        "ALPACA_SECRET_KEY": "secret",
                        "SPOTD_REDIS_URL": "redis://127.0.0.1:1/0",
                        "SPOTD_STREAM_URL": "ws://127.0.0.1:1/v2/iex",
                        "SPOTD_DATA_URL": "http://127.0.0.1:1",
                        "SPOTD_HTTP_PORT": str(self.port),
                        "SPOTD_RELAY_PORT": str(self.port),
                        **more,
                    }
                ),
            )

    @property
    def stderr(self) -> str:
        return self._stderr.read_text()

    def get(self, path: str) -> bytes:
        """Return a page. Raise OSError where nothing listens, and where the status is no 200."""
        url = f"http://127.0.0.1:{self.port}{path}"
        with urllib.request.urlopen(url, timeout=GUARD_S) as answer:
            return bytes(answer.read())

    def told_over_http(self) -> str:
        """Return its status by `/status`, or by the relay's `/readyz`."""
        if self.command == "run":
            status = msgspec.json.decode(self.get("/status"))
            return f"{status['state']}: {status['reason']}"
        with pytest.raises(urllib.error.HTTPError) as unready:
            self.get("/readyz")
        with unready.value as answer:
            return "; ".join(msgspec.json.decode(answer.read()))

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    """Yield a listening end of the notify socket."""
    manager = Manager(tmp_path / "notify")
    yield manager
    manager.close()


@pytest.fixture(params=["run", "relay"])
def service(request: pytest.FixtureRequest, tmp_path: Path, manager: Manager) -> Iterator[Service]:
    """Yield the daemon, then the relay."""
    service = Service(request.param, tmp_path, manager)
    yield service
    service.end()


def test_unit_notifications(service: Service, manager: Manager) -> None:
    """Ready once it answers, without Redis or Alpaca, then signs of life, then stopping.

    Its status is always what it says over HTTP, too.
    """
    assert manager.hears("READY=1")
    assert service.get("/livez")
    for _ in range(3):
        assert manager.hears("WATCHDOG=1")
    until_sync(lambda: manager.status == service.told_over_http(), "its status")

    service.process.send_signal(signal.SIGTERM)

    assert manager.hears("STOPPING=1")
    assert service.process.wait(timeout=GUARD_S) == 0
    assert manager.status.startswith("stopping")
    assert manager.heard.count("READY=1") == manager.heard.count("STOPPING=1") == 1


@pytest.mark.parametrize("command", ["run", "relay"])
def test_never_ready_where_it_cannot_serve(command: str, tmp_path: Path, manager: Manager) -> None:
    """Where its port is taken, it ends with 2, as with wrong settings, and was never ready."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        service = Service(command, tmp_path, manager, SPOTD_HTTP_PORT=port, SPOTD_RELAY_PORT=port)
        assert service.process.wait(timeout=GUARD_S) == 2

    assert not {"READY=1", "WATCHDOG=1"} & set(manager.heard_so_far())


@pytest.mark.parametrize(
    "number",
    [pytest.param(signal.SIGSTOP, marks=pytest.mark.long), signal.SIGUSR1],
    ids=["stopped", "loop hangs"],
)
def test_unit_watchdog(service: Service, manager: Manager, number: signal.Signals) -> None:
    """A process that stands still, or whose loop hangs, sends no sign of life.

    Ended for it as systemd does, it leaves a traceback that shows where it hung.
    """
    assert manager.hears("WATCHDOG=1")
    service.process.send_signal(number)
    if number is signal.SIGSTOP:
        os.waitid(os.P_PID, service.process.pid, os.WSTOPPED)

    assert manager.hears_no_sign_of_life()
    service.process.send_signal(signal.SIGABRT)
    service.process.send_signal(signal.SIGCONT)

    assert service.process.wait(timeout=GUARD_S) == -signal.SIGABRT
    assert "Fatal Python error: Aborted" in service.stderr
