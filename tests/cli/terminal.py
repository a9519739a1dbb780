"""A terminal on which a command runs, and our end of it."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.kit.processes import NOTHING, popen_on
from tests.kit.template import Popen
from tests.kit.waiting import GUARD_S


@contextmanager
def on_terminal(
    *args: str, cwd: Path | None = None, env: Mapping[str, str] = NOTHING
) -> Iterator[tuple[Popen | subprocess.Popen[bytes], int]]:
    """Yield a command on a terminal that controls it, and our end of that.

    Both end with the block. ``env`` is added to the environment of this process.
    """
    ours, theirs = pty.openpty()
    process = popen_on(theirs, *args, cwd=cwd, env=env)
    os.close(theirs)
    try:
        yield process, ours
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def hang_up(ours: int) -> None:
    """Close our end, so that the command is sent what a closed window sends."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, ours)
    os.close(nowhere)


def read_until(ours: int, wanted: bytes | re.Pattern[bytes]) -> bytes:
    """Return what the terminal was sent from now on, until this came."""
    pattern = wanted if isinstance(wanted, re.Pattern) else re.compile(re.escape(wanted))
    end, sent = time.monotonic() + GUARD_S, b""
    while not pattern.search(sent) and time.monotonic() < end:
        if select.select([ours], [], [], 0.1)[0]:
            with suppress(OSError):  # Linux' way to say that the other side is closed
                sent += os.read(ours, 65536)
    assert pattern.search(sent), sent[-500:]
    return sent
