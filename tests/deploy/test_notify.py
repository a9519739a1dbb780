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

WATCHDOG_S = 1.5
START_S = 30.0
STOP_S = 5.0


class Manager:
    """The manager's end of the notify socket."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))

    def hears(self, wanted: str, within_s: float) -> bool:
        """Wait for one assignment; whether it came in time."""
        until = time.monotonic() + within_s
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
    """A manager that listens."""
    manager = Manager(tmp_path / "notify")
    yield manager
    manager.close()


@pytest.fixture
def daemon(tmp_path: Path, manager: Manager) -> Iterator[subprocess.Popen[bytes]]:
    """`spotd run` as the unit starts it, with neither Redis nor Alpaca to be reached."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("SPOTD_", "ALPACA_", "APCA_", "REDIS_"))
    }
    stderr = (tmp_path / "stderr").open("wb")
    process = subprocess.Popen(
        [sys.executable, "-m", "spotd", "run"],
        cwd=tmp_path,
        stderr=stderr,
        env={
            **inherited,
            "PYTHONFAULTHANDLER": "1",  # as in the unit
            "NOTIFY_SOCKET": str(manager.path),
            "WATCHDOG_USEC": str(int(WATCHDOG_S * 1_000_000)),
            "ALPACA_API_KEY": "key",
            "ALPACA_SECRET_KEY": "secret",
            "SPOTD_REDIS_URL": "redis://127.0.0.1:1/0",
            "SPOTD_STREAM_URL": "ws://127.0.0.1:1/v2/iex",
            "SPOTD_DATA_URL": "http://127.0.0.1:1",
            "SPOTD_HTTP_PORT": "0",
        },
    )
    yield process
    process.kill()
    process.wait()
    stderr.close()


def test_unit_notifications(daemon: subprocess.Popen[bytes], manager: Manager) -> None:
    """Ready without Redis or Alpaca, then a sign of life in every watchdog time, then stopping."""
    assert manager.hears("READY=1", within_s=START_S)
    for _ in range(4):
        assert manager.hears("WATCHDOG=1", within_s=WATCHDOG_S)

    asked = time.monotonic()
    daemon.send_signal(signal.SIGTERM)

    assert manager.hears("STOPPING=1", within_s=STOP_S)
    assert daemon.wait(timeout=STOP_S) == 0
    assert time.monotonic() - asked < STOP_S


def test_unit_watchdog(daemon: subprocess.Popen[bytes], manager: Manager, tmp_path: Path) -> None:
    """A daemon that stands still gives no sign of life; ended for it, it leaves a traceback."""
    assert manager.hears("WATCHDOG=1", within_s=START_S)
    daemon.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, daemon.pid, os.WSTOPPED)

    # What was sent before it stood still may wait in the socket.
    assert not all(manager.hears("WATCHDOG=1", within_s=WATCHDOG_S) for _ in range(4))
    daemon.send_signal(signal.SIGABRT)
    daemon.send_signal(signal.SIGCONT)

    assert daemon.wait(timeout=STOP_S) == -signal.SIGABRT
    assert "Fatal Python error: Aborted" in (tmp_path / "stderr").read_text()
