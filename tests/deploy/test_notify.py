"""The daemon keeps its side of the unit: it tells systemd that it is ready, alive and stopping."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit.processes import environment
from tests.kit.waiting import GUARD_S

WATCHDOG_S = 1.0  # its signs of life come twice as often


class Manager:
    """The end of the notify socket that systemd has."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))

    def hears(self, wanted: str, guard_s: float = GUARD_S) -> bool:
        """Wait for one assignment, and return whether it came."""
        until = time.monotonic() + guard_s
        while (left := until - time.monotonic()) > 0:
            self._socket.settimeout(left)
            try:
                said = self._socket.recv(4096).decode().splitlines()
            except TimeoutError:
                break
            if wanted in said:
                return True
        return False

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    """A listening end of the notify socket."""
    manager = Manager(tmp_path / "notify")
    yield manager
    manager.close()


@pytest.fixture
def daemon(tmp_path: Path, manager: Manager) -> Iterator[subprocess.Popen[bytes]]:
    """Run spotd as the unit does, without Redis and without Alpaca."""
    stderr = (tmp_path / "stderr").open("wb")
    process = subprocess.Popen(
        [sys.executable, "-m", "spotd", "run"],
        cwd=tmp_path,
        stderr=stderr,
        env=environment(
            PYTHONFAULTHANDLER="1",  # as in the unit
            NOTIFY_SOCKET=str(manager.path),
            WATCHDOG_USEC=str(int(WATCHDOG_S * 1_000_000)),
            ALPACA_API_KEY="key",
            ALPACA_SECRET_KEY="secret",
            SPOTD_REDIS_URL="redis://127.0.0.1:1/0",
            SPOTD_STREAM_URL="ws://127.0.0.1:1/v2/iex",
            SPOTD_DATA_URL="http://127.0.0.1:1",
            SPOTD_HTTP_PORT="0",
        ),
    )
    yield process
    process.kill()
    process.wait()
    stderr.close()


def test_unit_notifications(daemon: subprocess.Popen[bytes], manager: Manager) -> None:
    """Ready without Redis or Alpaca, then signs of life again and again, then stopping."""
    assert manager.hears("READY=1")
    for _ in range(3):
        assert manager.hears("WATCHDOG=1")

    daemon.send_signal(signal.SIGTERM)

    assert manager.hears("STOPPING=1")
    assert daemon.wait(timeout=GUARD_S) == 0


def test_unit_watchdog(daemon: subprocess.Popen[bytes], manager: Manager, tmp_path: Path) -> None:
    """A daemon that stands still sends no sign of life; ended for it, it leaves a traceback."""
    assert manager.hears("WATCHDOG=1")
    daemon.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, daemon.pid, os.WSTOPPED)

    # Signs of life that were sent before it stood still may wait in the socket.
    while manager.hears("WATCHDOG=1", guard_s=WATCHDOG_S):
        pass
    daemon.send_signal(signal.SIGABRT)
    daemon.send_signal(signal.SIGCONT)

    assert daemon.wait(timeout=GUARD_S) == -signal.SIGABRT
    assert "Fatal Python error: Aborted" in (tmp_path / "stderr").read_text()
