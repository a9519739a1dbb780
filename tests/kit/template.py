"""A process that has imported what spotd imports of others, and becomes spotd by a fork.

To import Alpaca's client and pandas takes a second of CPU. A process that is forked from here
skips that second. It runs the installed command, imports spotd itself, and has its own arguments,
directory, environment and output, as if it had been started. The system says one thing else of it:
``/proc/PID/cmdline`` is that of this template.

``start`` is for tests. As a program (``python -m tests.kit.template FD``) this is the template. It
must not import spotd, which reads the environment.
"""

from __future__ import annotations

import asyncio
import atexit
import gc
import json
import os
import runpy
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import NoReturn, Protocol

AVAILABLE = sys.platform == "linux"  # its forks are safe, and a socket keeps messages apart

_IMPORTED = (
    "aiohttp.web",
    "alpaca.data.historical",
    "alpaca.data.live",
    "click",
    "exchange_calendars",
    "msgspec",
    "picows",
    "prometheus_client",
    "pydantic_settings",
    "redis.asyncio",
    "structlog",
    "tenacity",
)
_REQUEST_BYTES = 1 << 17
_CHECK_EVERY_S = 0.005


class Running(Protocol):
    """A process, as ``asyncio.subprocess`` has it."""

    @property
    def pid(self) -> int:
        """Its id."""

    @property
    def returncode(self) -> int | None:
        """Its exit code, or the number of the signal that ended it, negative; None before."""

    async def wait(self) -> int:
        """Return ``returncode`` once it has ended."""

    def send_signal(self, signal: int, /) -> None:
        """Send it a signal, unless it has ended."""

    def kill(self) -> None:
        """End it at once."""


class Forked:
    """A process that was forked from the template. Its end is told by ``status``."""

    def __init__(self, pid: int, status: socket.socket) -> None:
        self.pid = pid
        self._status = status
        self._returncode: int | None = None

    @property
    def returncode(self) -> int | None:
        """Its exit code, or the number of the signal that ended it, negative; None before."""
        if self._returncode is None:
            try:
                told = self._status.recv(64)
            except BlockingIOError:
                return None
            self._status.close()
            assert told, "the template has ended"
            self._returncode = int(told)
        return self._returncode

    async def wait(self) -> int:
        """Return ``returncode`` once it has ended."""
        while (code := self.returncode) is None:  # noqa: ASYNC110 - the template alone is told
            await asyncio.sleep(_CHECK_EVERY_S)
        return code

    def send_signal(self, signal: int, /) -> None:
        """Send it a signal. Raise ProcessLookupError if it has ended."""
        if self.returncode is not None:
            raise ProcessLookupError
        os.kill(self.pid, signal)

    def kill(self) -> None:
        """End it at once. Raise ProcessLookupError if it has ended."""
        self.send_signal(signal.SIGKILL)


async def start(
    program: Path, *args: str, cwd: Path, env: Mapping[str, str], stdout: int, stderr: int
) -> Forked:
    """Run a program of Python in a process forked from the template."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    request = {"argv": [str(program), *args], "cwd": str(cwd), "env": dict(env)}
    with theirs:
        fds = [theirs.fileno(), stdout, stderr]
        socket.send_fds(_template(), [json.dumps(request).encode()], fds)
    told = await asyncio.get_running_loop().sock_recv(ours, 64)
    assert told, "the template has ended"
    return Forked(int(told), ours)


@cache
def _template() -> socket.socket:
    """Start the template of this process. It ends when this process does."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        template = subprocess.Popen(
            [sys.executable, "-m", "tests.kit.template", str(theirs.fileno())],
            cwd=Path(__file__).parents[2],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )

    def end() -> None:
        ours.close()
        template.wait()

    atexit.register(end)
    return ours


def _serve(orders: socket.socket) -> list[str]:
    """Fork a process for each order, and tell its end. Return in each fork: its arguments."""
    selector = selectors.DefaultSelector()
    selector.register(orders, selectors.EVENT_READ)
    running: dict[int, tuple[int, socket.socket]] = {}  # pidfd -> id and where to tell
    while True:
        for key, _ in selector.select():
            if key.fileobj is not orders:
                pid, status = running.pop(key.fd)
                selector.unregister(key.fd)
                os.close(key.fd)
                _, ended = os.waitpid(pid, 0)
                _tell(status, os.waitstatus_to_exitcode(ended))
                status.close()
                continue
            order, fds, _, _ = socket.recv_fds(orders, _REQUEST_BYTES, 3)
            if not order:
                _end([pid for pid, _ in running.values()])
            request = json.loads(order)
            status = socket.socket(fileno=fds[0])
            pid = os.fork()
            if not pid:
                selector.close()
                for pidfd, (_, other) in running.items():
                    os.close(pidfd)
                    other.close()
                status.close()
                orders.close()
                return _become(request["argv"], request["cwd"], request["env"], fds[1:])
            for fd in fds[1:]:
                os.close(fd)
            _tell(status, pid)
            pidfd = os.pidfd_open(pid)
            selector.register(pidfd, selectors.EVENT_READ)
            running[pidfd] = pid, status


def _tell(status: socket.socket, number: int) -> None:
    """Send a number to a test, which may have ended without waiting for it."""
    with suppress(OSError):
        status.send(str(number).encode())


def _end(pids: list[int]) -> NoReturn:
    """End, and all that were forked."""
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    os._exit(0)  # it has nothing to write or to close


def _become(argv: list[str], cwd: str, env: dict[str, str], output: list[int]) -> list[str]:
    """Take directory, environment and output of an order. Return its arguments."""
    for fd, number in zip(output, (1, 2), strict=True):
        os.dup2(fd, number)
        os.close(fd)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    time.tzset()
    return argv


if __name__ == "__main__":
    for name in _IMPORTED:
        import_module(name)
    gc.freeze()  # what was imported is never garbage
    sys.argv = _serve(socket.socket(fileno=int(sys.argv[1])))
    # The first entry is the template's directory; that of a script is where it lies.
    sys.path[0] = str(Path(sys.argv[0]).parent)
    runpy.run_path(sys.argv[0], run_name="__main__")
