"""Talks to systemd's notification socket (sd_notify(3)). Does nothing where there is none."""

from __future__ import annotations

import os
import socket


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
