"""Talks to systemd's notification socket (sd_notify(3)). Does nothing where there is none."""

from __future__ import annotations

import os
import socket
from math import inf


def notify(message: str) -> None:
    """Send a message such as ``READY=1``. Errors are ignored: the manager may be gone."""
    path = os.environ.get("NOTIFY_SOCKET")
    if not path:
        return
    address = "\0" + path[1:] if path.startswith("@") else path
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            sock.setblocking(False)
            sock.sendto(message.encode(), address)
    except OSError:
        return


def watchdog_s() -> float | None:
    """Return the watchdog's timeout in seconds, None if systemd set none for this process."""
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    pid = os.environ.get("WATCHDOG_PID") or str(os.getpid())
    if not microseconds.isdecimal() or pid != str(os.getpid()):
        return None
    return int(microseconds) / 1_000_000 or None


class Watchdog:
    """Tells systemd's watchdog that we live: call ``alive`` each ``call_every_s`` s or sooner.

    systemd then hears of this process more often than twice in its timeout, as
    sd_watchdog_enabled(3) asks. ``timeout_s`` is that of this process; None: systemd set none, and
    nothing is sent.
    """

    def __init__(self, timeout_s: float | None) -> None:
        self._timeout_s = inf if timeout_s is None else timeout_s
        self._told_at = -inf
        self.call_every_s = self._timeout_s / 8

    def alive(self, now: float) -> None:
        """Send a sign of life where a third of the timeout has passed. ``now`` is monotonic."""
        if self._timeout_s != inf and now - self._told_at >= self._timeout_s / 3:
            notify("WATCHDOG=1")
            self._told_at = now
