"""All processes of a measurement, and what the operating system says about them.

A data source, a real server, and any number of daemons, baselines and readers, on loopback only.
Each client of the source has a name: its path on the source, the prefix of its channels, and,
with a ``d``, of its keys. Whatever happens, all of them are killed in the end.
"""

from __future__ import annotations

import os
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Self, TypeVar

import redis

from tests.bench.orders import ROOT, Process, Worker
from tests.bench.source import MARK
from tests.kit.ports import free_port
from tests.kit.processes import environment
from tests.kit.servers import Server
from tests.kit.waiting import GUARD_S, until_sync

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_CPUCLOCK_SCHED = 2
NO_SETTINGS: Mapping[str, str] = MappingProxyType({})

_P = TypeVar("_P", bound=Process)


def cpu_ns(pid: int) -> int:
    """Return the CPU time of a process so far: user and system, all threads, ended ones too.

    It is the scheduler's own count, by the clock of clock_getcpuclockid(3). /proc/PID/stat rounds
    it to ticks, and /proc/PID/task/*/schedstat leaves out the threads that have ended.
    """
    return time.clock_gettime_ns(~pid << 3 | _CPUCLOCK_SCHED)


def rss_mb(pid: int) -> float:
    """Return the resident memory of a process, in megabytes of 1,000,000 bytes."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * _PAGE_BYTES / 1e6


@dataclass(frozen=True, slots=True)
class Program:
    """A ``spotd`` that is measured: the name of its figures, and its executable."""

    name: str
    spotd: Path

    @property
    def python(self) -> Path:
        """The interpreter of its virtual environment."""
        return self.spotd.parent / "python"

    def env(self) -> dict[str, str]:
        """Return its environment, without settings.

        The present program imports this tree, another one its own.
        """
        env = environment()
        env.pop("PYTHONPATH", None)
        return env | {"PYTHONPATH": str(ROOT)} if self == PRESENT else env


PRESENT = Program("spotd", Path(sys.executable).parent / "spotd")


class Setup:
    """What a row measures in. Use as a context manager."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self._stack = ExitStack()
        self._demanded: dict[str, int] = {}

    def __enter__(self) -> Self:
        """Start the server and the source."""
        with self._stack:
            self.server = self._stack.enter_context(Server(self.home / "server"))
            self.redis: redis.Redis = self._stack.enter_context(self.server.client())
            self.source = self._kept(Worker("source", "source", home=self.home))
            ports = self.source.ask("ports")
            self._stream_url = f"ws://127.0.0.1:{ports['stream']}"
            self._rest_url = f"http://127.0.0.1:{ports['rest']}"
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        """Kill everything."""
        self._stack.close()

    # Processes

    def reader(self, name: str = "reader") -> Worker:
        """Return a subscriber that notes lags."""
        return self._kept(Worker(name, "reader", str(self.server.port), home=self.home))

    def daemon(
        self,
        name: str,
        names: list[str],
        settings: Mapping[str, str] = NO_SETTINGS,
        *,
        program: Program | None = None,
        ready: bool = True,
    ) -> Process:
        """Start ``spotd run`` with a demand. ``ready`` waits until all symbols have a price."""
        self.demand(name, names)
        program = program or PRESENT
        port = free_port()
        env = program.env() | {
            "ALPACA_API_KEY": "key",
            "ALPACA_SECRET_KEY": "secret",
            "SPOTD_STREAM_URL": self.stream_url(name),
            "SPOTD_DATA_URL": self._rest_url,
            "SPOTD_REDIS_URL": self.server.url,
            "SPOTD_KEY_PREFIX": f"{name}d:",
            "SPOTD_CHANNEL_PREFIX": f"{name}:",
            "SPOTD_HTTP_PORT": str(port),
            "SPOTD_LOG_FORMAT": "json",
            **settings,
        }
        process = Process(name, [str(program.spotd), "run"], home=self.home, env=env, cwd=self.home)
        self._kept(process)
        if ready:
            self.wait(lambda: _is_ready(port), f"{name} to be ready", process)
            self.settled(name, process)
        return process

    def baseline(self, module: str, name: str, symbols: int) -> Process:
        """Start a baseline, and wait until it is subscribed to ``symbols`` symbols."""
        command = [sys.executable, "-m", f"tests.bench.{module}", self.stream_url(name)]
        command += [self.server.url, name, str(symbols)]
        process = self._kept(Process(name, command, home=self.home))
        self.wait(lambda: self.subscribed(name) > symbols, f"{name} to subscribe", process)
        return process

    def floor(self, name: str, symbols: int) -> Process:
        """Start the floor, and wait until it is subscribed to ``symbols`` symbols."""
        command = [sys.executable, "-m", "tests.bench.floor", self.stream_url(name), str(symbols)]
        process = self._kept(Process(name, command, home=self.home))
        self.wait(lambda: self.subscribed(name) == symbols, f"{name} to subscribe", process)
        return process

    def stream_url(self, name: str) -> str:
        """Return where a client of this name connects."""
        return f"{self._stream_url}/{name}"

    def cores(self, daemon: Process, reader: Process) -> Callable[[], dict[str, float]]:
        """From now on: how much of a core each process uses, when asked."""
        pids = {
            "cores": daemon.pid,
            "source cores": self.source.pid,
            "server cores": self.server.pid,
            "reader cores": reader.pid,
        }
        before, began = {name: cpu_ns(pid) for name, pid in pids.items()}, time.monotonic_ns()

        def used() -> dict[str, float]:
            took_ns = time.monotonic_ns() - began
            return {name: (cpu_ns(pid) - before[name]) / took_ns for name, pid in pids.items()}

        return used

    # Demand, and what became of it

    def demand(self, name: str, names: list[str]) -> None:
        """Ask for symbols as a service does, and wake the daemon."""
        if names:
            self.redis.sadd(f"{name}d:symbols", *names)
        self._demanded[name] = int(self.redis.scard(f"{name}d:symbols"))
        self.redis.publish(f"{name}d:wake", "look")

    def drop(self, name: str, names: list[str]) -> None:
        """End the demand for symbols."""
        self.redis.srem(f"{name}d:symbols", *names)
        self._demanded[name] = int(self.redis.scard(f"{name}d:symbols"))
        self.redis.publish(f"{name}d:wake", "look")

    def subscribed(self, name: str) -> int:
        """Return how many symbols the source acknowledged to a client."""
        return int(self.source.ask("state", client=name)["quotes"])

    def settled(self, name: str, process: Process, guard_s: float = GUARD_S) -> None:
        """Wait until exactly what is demanded is subscribed, and has its first price."""
        wanted = self._demanded[name]
        self.wait(lambda: self.subscribed(name) == wanted, f"{name} to subscribe", process, guard_s)
        self.wait(
            lambda: self.redis.hlen(f"{name}d:last") == wanted,
            f"the first prices of {name}",
            process,
            guard_s,
        )

    @staticmethod
    def wait(
        condition: Callable[[], object],
        what: str,
        process: Process,
        guard_s: float = GUARD_S,
    ) -> None:
        """Wait for a condition as long as a process lives."""

        def check() -> object:
            process.check()
            return condition()

        until_sync(check, f"{what}\n{process.tail()}", guard_s=guard_s)

    def _kept(self, process: _P) -> _P:
        self._stack.callback(process.kill)
        return process


def with_mark(names: list[str]) -> list[str]:
    """Return these symbols and that of the source's marks."""
    return [*names, MARK]


def _is_ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False
