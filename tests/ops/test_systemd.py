"""What systemd hears, over real datagram sockets."""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import pairwise
from math import inf
from pathlib import Path

import pytest

from spotd.ops import systemd
from tests.kit.waiting import GUARD_S


@contextmanager
def manager(address: str) -> Iterator[socket.socket]:
    """Listen at an address as systemd does, an abstract one where it begins with ``@``."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind("\0" + address[1:] if address.startswith("@") else address)
        listening.settimeout(GUARD_S)
        yield listening


@pytest.fixture(params=["path", "abstract"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return an address of either kind."""
    return str(tmp_path / "notify") if request.param == "path" else f"@spotd-{uuid.uuid4().hex}"


def test_a_message_arrives(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each message arrives as it was given, in one datagram."""
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    with manager(address) as listening:
        systemd.notify("READY=1")
        systemd.notify("STATUS=größer\nWATCHDOG=1")
        assert listening.recv(1_000) == b"READY=1"
        assert listening.recv(1_000).decode() == "STATUS=größer\nWATCHDOG=1"


def test_without_a_manager_nothing_happens(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the variable, or with a manager that is gone, there is no error."""
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    systemd.notify("READY=1")
    monkeypatch.setenv("NOTIFY_SOCKET", "")
    systemd.notify("READY=1")
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    systemd.notify("READY=1")


def test_a_manager_that_does_not_read_holds_nobody(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A message is dropped where the queue of the manager is full."""
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    with manager(address):
        for _ in range(2_000):
            systemd.notify("WATCHDOG=1")


@pytest.mark.parametrize(
    ("microseconds", "pid", "seconds"),
    [
        ("30000000", None, 30.0),
        pytest.param("500000", str(os.getpid()), 0.5, id="ours"),
        ("30000000", "1", None),
        ("30000000", "", 30.0),
        (None, None, None),
        ("", None, None),
        ("0", None, None),
        ("soon", None, None),
    ],
)
def test_the_watchdog_is_ours_or_none(
    microseconds: str | None,
    pid: str | None,
    seconds: float | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The watchdog's time is in seconds, and counts only where it is meant for this process."""
    for name, value in (("WATCHDOG_USEC", microseconds), ("WATCHDOG_PID", pid)):
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    assert systemd.watchdog_s() == seconds


@pytest.mark.parametrize("timeout_s", [0.5, 15.0, 3_600.0])
def test_the_watchdog_hears_more_often_than_twice_in_its_timeout(
    timeout_s: float, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Called as often as it asks, it sends a sign of life at once and then well within the half."""
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    watchdog = systemd.Watchdog(timeout_s)
    told_at = []
    with manager(address) as listening:
        listening.setblocking(False)
        for call in range(40):
            now = 1_000.0 + call * watchdog.call_every_s
            watchdog.alive(now)
            with suppress(BlockingIOError):
                assert listening.recv(1_000) == b"WATCHDOG=1"
                told_at.append(now)

    pauses = [after - before for before, after in pairwise(told_at)]
    assert told_at[0] == 1_000.0
    assert len(pauses) > 10
    assert timeout_s / 3 <= min(pauses)
    assert max(pauses) < timeout_s / 2


def test_no_watchdog_is_told_nothing(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where systemd set no timeout, nothing is sent, and nobody need call."""
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    watchdog = systemd.Watchdog(None)
    with manager(address) as listening:
        listening.setblocking(False)
        watchdog.alive(1_000.0)
        with pytest.raises(BlockingIOError):
            listening.recv(1_000)

    assert watchdog.call_every_s == inf
