"""Talks to the terminal: keys as they are pressed, frames as fast as it takes them, its size.

Whatever ends the block, the terminal is as it was before. Must not decide what is shown.
"""

from __future__ import annotations

import asyncio
import os
import select
import signal
import sys
import tempfile
import termios
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import IO, Self

from spotd.cli.screen.escapes import AGAIN, ENTER, LEAVE
from spotd.cli.screen.styles import ASCII, UNICODE, Glyphs

_LEAVE_S = 1.0  # a terminal that takes nothing must not hold the exit for longer
_MOST_BYTES = 4096
_MOST_KEPT_BYTES = 65_536
_STDERR = 2


def has_screen() -> bool:
    """Return whether stdout is a terminal that can show a screen."""
    if sys.stdout is None:  # it was closed from the start
        return False
    return sys.stdout.isatty() and os.environ.get("TERM", "dumb") not in ("dumb", "unknown", "")


def colours_wanted() -> bool:
    """Return whether colours may be shown (https://no-color.org)."""
    return not os.environ.get("NO_COLOR")


def glyphs() -> Glyphs:
    """Return the marks that the terminal can show: Linux' console has no others than ASCII."""
    utf_8 = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    return UNICODE if utf_8 and os.environ.get("TERM") != "linux" else ASCII


@contextmanager
def stderr_afterwards() -> Iterator[None]:
    """Keep what anything writes to stderr from the screen, and write the end of it behind it."""
    if not os.isatty(_STDERR):
        yield
        return
    with _scratch_file() as kept:
        before = os.dup(_STDERR)
        os.dup2(kept.fileno(), _STDERR)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(before, _STDERR)
            os.close(before)
            kept.seek(max(0, kept.seek(0, os.SEEK_END) - _MOST_KEPT_BYTES))
            with suppress(OSError):  # the terminal hung up
                sys.stderr.write(kept.read().decode("utf-8", "replace"))
                sys.stderr.flush()


def _scratch_file() -> IO[bytes]:
    """Return a file that goes when it is closed; in memory, where no folder can be written."""
    with suppress(OSError):
        return tempfile.TemporaryFile()
    return os.fdopen(os.memfd_create("spotd"), "w+b")


class Terminal:
    """The terminal that stdout is. Use as a context manager, on a running event loop.

    ``pressed`` is called with what was typed, ``changed`` when the terminal may show something
    else than before or has another size, ``lost`` when it is gone. They are called on the loop.
    Ctrl-C stays a signal, and Ctrl-\\ becomes SIGTERM, since by itself it would leave the terminal
    as it is. The terminal is given back while Ctrl-Z suspends the process.
    """

    def __init__(
        self,
        pressed: Callable[[bytes], None],
        changed: Callable[[], None],
        lost: Callable[[], None],
    ) -> None:
        self._pressed = pressed
        self._changed = changed
        self._lost = lost
        self._loop = asyncio.get_running_loop()
        self._fd = -1
        self._before: list[int | list[bytes | int]] = []
        self._unsent = b""
        self._taken = False

    def __enter__(self) -> Self:
        self._fd = _opened(sys.stdout.fileno())
        try:
            self._before = termios.tcgetattr(self._fd)
            self._take()
            self._loop.add_reader(self._fd, self._read)
            self._loop.add_signal_handler(signal.SIGWINCH, self._changed)
            self._loop.add_signal_handler(signal.SIGTSTP, self._suspend)
            self._loop.add_signal_handler(signal.SIGCONT, self._resume)
            self._loop.add_signal_handler(signal.SIGQUIT, signal.raise_signal, signal.SIGTERM)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number in (signal.SIGWINCH, signal.SIGTSTP, signal.SIGCONT, signal.SIGQUIT):
            self._loop.remove_signal_handler(number)
        self._loop.remove_reader(self._fd)
        self._give_back()
        os.close(self._fd)

    @property
    def size(self) -> tuple[int, int]:
        """Return columns and lines: the terminal's, or where it knows none the environment's."""
        with suppress(OSError):
            size = os.get_terminal_size(self._fd)
            if size.columns and size.lines:
                return size
        return _number("COLUMNS", 80), _number("LINES", 24)

    @property
    def ready(self) -> bool:
        """Return whether the terminal took all that was shown."""
        return not self._unsent

    def show(self, text: str) -> None:
        """Send text. What a slow terminal does not take at once is sent later."""
        waiting = bool(self._unsent)
        self._unsent += text.encode(sys.stdout.encoding or "utf-8", "replace")
        if not waiting:
            self._send()

    def _send(self) -> None:
        try:
            while self._unsent:
                self._unsent = self._unsent[os.write(self._fd, self._unsent) :]
        except BlockingIOError:
            self._loop.add_writer(self._fd, self._send)
            return
        except OSError:  # the terminal hung up
            self._unsent = b""
            self._lost()
        self._loop.remove_writer(self._fd)

    def _read(self) -> None:
        try:
            data = os.read(self._fd, _MOST_BYTES)
        except BlockingIOError:
            return
        except OSError:  # Linux' way to say that the other side is closed
            data = b""
        if data:
            self._pressed(data)
        else:
            self._loop.remove_reader(self._fd)
            self._lost()

    def _take(self) -> None:
        """Have keys told as they are pressed, and not shown; and take the screen."""
        ours = termios.tcgetattr(self._fd)
        ours[3] = _flags(ours[3]) & ~(termios.ICANON | termios.ECHO)
        # Ctrl-S must not stop the output: it is a key like any other.
        ours[0] = _flags(ours[0]) & ~termios.IXON
        termios.tcsetattr(self._fd, termios.TCSANOW, ours)
        self.show(AGAIN if self._taken else ENTER)
        self._taken = True

    def _give_back(self) -> None:
        self._taken = False
        self._loop.remove_writer(self._fd)
        # What of a frame is not sent yet is left out. A sequence that was cut is ended by CAN.
        left, self._unsent = b"\x18" if self._unsent else b"", b""
        left += LEAVE.encode()
        with suppress(OSError):
            while left and select.select((), (self._fd,), (), _LEAVE_S)[1]:
                left = left[os.write(self._fd, left) :]
        if self._before:
            with suppress(termios.error):
                termios.tcflush(self._fd, termios.TCIFLUSH)  # keys were for us, not for the shell
                termios.tcsetattr(self._fd, termios.TCSANOW, self._before)

    def _suspend(self) -> None:
        self._give_back()
        self._loop.remove_signal_handler(signal.SIGTSTP)
        # By its default. It returns when we go on, or where no shell is there to continue us.
        signal.raise_signal(signal.SIGTSTP)
        self._loop.add_signal_handler(signal.SIGTSTP, self._suspend)
        self._resume()

    def _resume(self) -> None:
        try:
            self._take()
        except termios.error:  # a terminal that hangs up continues the process, too
            self._lost()
        self._changed()


def _opened(stdout: int) -> int:
    """Return a descriptor of a terminal that never blocks.

    It is opened anew, since the shell shares the one of stdout, and must not find it changed.
    """
    flags = os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC
    with suppress(OSError):
        return os.open(os.ttyname(stdout), flags)
    with suppress(OSError):  # after `su`, the device is not ours to open
        return os.open("/dev/tty", flags)
    return os.dup(stdout)


def _flags(value: int | list[bytes | int]) -> int:
    if not isinstance(value, int):
        raise AssertionError("the flags of a terminal are numbers")
    return value


def _number(name: str, otherwise: int) -> int:
    text = os.environ.get(name, "")
    return int(text) if text.isascii() and text.isdigit() and int(text) else otherwise
