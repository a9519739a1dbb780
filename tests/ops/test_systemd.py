"""What systemd hears, over real datagram sockets."""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
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
    """Either kind of address."""
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
