"""A row about ``spotd watch``: what its screen costs, on a terminal on which all rows are seen."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import sys
import termios
import threading
import time
from contextlib import suppress

from spotd.keys import Keys
from tests.bench import frames
from tests.bench.bench import Bench
from tests.bench.orders import Process
from tests.bench.results import Row
from tests.bench.setup import PRESENT, Setup, cpu_ns
from tests.kit.publisher import state_of, status_of

_SYMBOLS = 60
_RATE = 5
_MOST = 6.0  # percent of a core
_SETTLE_S = 3.0
_SIZE = (100, _SYMBOLS + 4)


def watch(bench: Bench) -> Row:
    """Measure the CPU time of the screen, and how much it sends to the terminal."""
    row = Row(
        "watch",
        f"`spotd watch` of {_SYMBOLS} symbols with {_RATE} updates/s each, on a terminal of "
        f"{_SIZE[0]} × {_SIZE[1]}",
        f"under {_MOST:g} % of a core",
    )
    with bench.setup() as setup:
        names, keys = frames.symbols(_SYMBOLS), Keys()
        setup.redis.set(keys.status, status_of().to_json())
        setup.redis.hset(keys.states, mapping={n: state_of(n).to_json() for n in names})
        command = [sys.executable, "-m", "tests.bench.watch_publisher", setup.server.url]
        publisher = Process("publisher", [*command, f"{_SYMBOLS}", f"{_RATE}"], home=setup.home)
        terminal = _Terminal(setup, names)
        try:
            terminal.await_output(setup)
            time.sleep(_SETTLE_S)
            values = bench.each_round(lambda: terminal.measured(bench.plan.idle_s))
        finally:
            terminal.close()
            publisher.kill()
    row.reached = row.add("watch", "%", values["cpu"]).median < _MOST
    row.add("sent to the terminal", "kB/s", values["kb_per_s"])
    return row


class _Terminal:
    """``spotd watch`` on a terminal whose output is read and counted."""

    def __init__(self, setup: Setup, names: list[str]) -> None:
        self._ours, theirs = pty.openpty()
        width, height = _SIZE
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))
        env = PRESENT.env() | {"SPOTD_REDIS_URL": setup.server.url, "TERM": "xterm-256color"}
        # The terminal is a process's own: its log would be none.
        path = os.ttyname(theirs)
        shell = f'exec "$0" watch {" ".join(names)} <{path} >{path}'
        self._process = Process(
            "watch", ["sh", "-c", shell, str(PRESENT.spotd)], home=setup.home, env=env
        )
        self._theirs = theirs  # held open: the terminal lives as long as we read it
        self._bytes = 0
        threading.Thread(target=self._read, name="terminal", daemon=True).start()

    def await_output(self, setup: Setup) -> None:
        """Wait for the first prices."""
        setup.wait(lambda: self._bytes > 5_000, "the first screen", self._process)

    def measured(self, seconds: float) -> dict[str, float]:
        """Return the share of a core in percent, and the output, over some seconds."""
        self._process.check()
        cpu, sent, began = cpu_ns(self._process.pid), self._bytes, time.monotonic_ns()
        time.sleep(seconds)
        took_ns = time.monotonic_ns() - began
        return {
            "cpu": 100 * (cpu_ns(self._process.pid) - cpu) / took_ns,
            "kb_per_s": (self._bytes - sent) / 1_000 / (took_ns / 1e9),
        }

    def close(self) -> None:
        """End it."""
        self._process.kill()
        os.close(self._theirs)

    def _read(self) -> None:
        with suppress(OSError):
            while data := os.read(self._ours, 65_536):
                self._bytes += len(data)
        os.close(self._ours)
