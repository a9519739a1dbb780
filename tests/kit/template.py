"""A process that has imported what spotd imports of others, and becomes spotd by a fork.

To import Alpaca's client and pandas takes a second of CPU. A process that is forked from here
skips that second. It runs the installed command, imports spotd itself, and has its own arguments,
directory, environment and output, as if it had been started. The system says one thing else of it:
``/proc/PID/cmdline`` is that of this template.

``Forked`` and ``Popen`` are for tests. As a program (``python -m tests.kit.template FD``) this is
the template. It must not import spotd, which reads the environment.
"""

from __future__ import annotations

import asyncio
import atexit
import fcntl
import gc
import json
import os
import runpy
import selectors
import signal
import socket
import subprocess
import sys
import termios
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import NoReturn, Protocol, Self, TextIO

from tests.kit.waiting import GUARD_S, until_sync

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
STDIN = 0
_ORDER_BYTES = 1 << 17
_ANSWER_BYTES = 64
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


class _Forked:
    """A process that was forked from the template. ``stdio`` are its three streams.

    With ``leads`` its standard input is a terminal, which controls the session that it leads.
    """

    def __init__(
        self,
        program: Path,
        *args: str,
        cwd: Path,
        env: Mapping[str, str],
        stdio: tuple[int, int, int],
        leads: bool = False,
    ) -> None:
        order = {"argv": [str(program), *args], "cwd": str(cwd), "env": dict(env), "leads": leads}
        self._status, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            fds = [theirs.fileno(), *stdio]
            socket.send_fds(_template(), [json.dumps(order).encode()], fds)
        told = self._status.recv(_ANSWER_BYTES)
        assert told, "the template has ended"
        self.pid = int(told)
        self._status.setblocking(False)
        self._returncode: int | None = None

    @property
    def returncode(self) -> int | None:
        """Its exit code, or the number of the signal that ended it, negative; None before."""
        if self._returncode is None:
            try:
                told = self._status.recv(_ANSWER_BYTES)
            except BlockingIOError:
                return None
            self._status.close()
            assert told, "the template has ended"
            self._returncode = int(told)
        return self._returncode

    def send_signal(self, signal: int, /) -> None:
        """Send it a signal, unless it has ended."""
        if self.returncode is None:
            with suppress(ProcessLookupError):  # it has ended, and the template is about to tell
                os.kill(self.pid, signal)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)


class Forked(_Forked):
    """A forked process for code that awaits, as ``asyncio.subprocess`` has it."""

    async def wait(self) -> int:
        """Return ``returncode`` once it has ended."""
        while (code := self.returncode) is None:  # noqa: ASYNC110 - the template alone is told
            await asyncio.sleep(_CHECK_EVERY_S)
        return code


class Popen(_Forked):
    """A forked process for code that blocks, with what tests use of ``subprocess.Popen``.

    Without ``terminal`` its output is in pipes, read as text. A terminal becomes all its streams,
    and controls the session that the process leads if it ``leads``.
    """

    def __init__(
        self,
        program: Path,
        *args: str,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        terminal: int | None = None,
        leads: bool = False,
    ) -> None:
        with ExitStack() as theirs:
            if terminal is None:
                (self.stdout, out), (self.stderr, err) = _pipe(theirs), _pipe(theirs)
                stdio = STDIN, out, err
            else:
                stdio = terminal, terminal, terminal
            super().__init__(
                program, *args, stdio=stdio, leads=leads,
                cwd=cwd or Path.cwd(), env=os.environ if env is None else env,
            )  # fmt: skip

    def __enter__(self) -> Self:
        """Do nothing."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the pipes, and wait for its end."""
        self.stdout.close()
        self.stderr.close()
        self.wait()

    def poll(self) -> int | None:
        """Return ``returncode``."""
        return self.returncode

    def wait(self, timeout: float = GUARD_S) -> int:
        """Return ``returncode`` once it has ended. ``timeout`` is in seconds."""
        until_sync(lambda: self.returncode is not None, "the end of a process", guard_s=timeout)
        assert self._returncode is not None
        return self._returncode

    def communicate(self, timeout: float = GUARD_S) -> tuple[str, str]:
        """Return the rest of its output, once it has ended. ``timeout`` is in seconds."""
        with ThreadPoolExecutor(1) as aside:
            err = aside.submit(self.stderr.read)
            told = self.stdout.read(), err.result()
        self.wait(timeout)
        return told


def _pipe(theirs: ExitStack) -> tuple[TextIO, int]:
    """Return both ends of a pipe. That of the process is closed with ``theirs``."""
    ours, end = os.pipe()
    theirs.callback(os.close, end)
    return open(ours), end  # noqa: PTH123 - the process is the context


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
            message, fds, _, _ = socket.recv_fds(orders, _ORDER_BYTES, 4)
            if not message:
                _end([pid for pid, _ in running.values()])
            order = json.loads(message)
            status = socket.socket(fileno=fds[0])
            pid = os.fork()
            if not pid:
                selector.close()
                for pidfd, (_, other) in running.items():
                    os.close(pidfd)
                    other.close()
                status.close()
                orders.close()
                _become(order["cwd"], order["env"], fds[1:], leads=order["leads"])
                return list(order["argv"])
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


def lead_session(terminal: int) -> None:
    """Have a terminal control the session that this process leads."""
    fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)
    # Where the tests run under nohup, this signal would stay ignored.
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def _become(cwd: str, env: dict[str, str], stdio: list[int], *, leads: bool) -> None:
    """Take directory, environment and streams of an order."""
    if leads:
        os.setsid()
        lead_session(stdio[0])
    for number, fd in enumerate(stdio):
        os.dup2(fd, number)
        os.close(fd)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    time.tzset()


if __name__ == "__main__":
    for name in _IMPORTED:
        import_module(name)
    gc.freeze()  # what was imported is never garbage
    sys.argv = _serve(socket.socket(fileno=int(sys.argv[1])))
    # The first entry is the template's directory; that of a script is where it lies.
    sys.path[0] = str(Path(sys.argv[0]).parent)
    runpy.run_path(sys.argv[0], run_name="__main__")
