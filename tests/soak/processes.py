"""The daemons and the relay as processes: started, frozen, stopped, replaced, and measured."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from tests.kit.ports import free_port
from tests.kit.processes import Command, environment

ROOT = Path(__file__).parents[2]
STOP_S = 5.0  # the contract's limit of an orderly stop
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_DEFECTS = ("Traceback", "this is a defect", "a loop ended", "never retrieved", "never awaited")


@dataclass(slots=True)
class Size:
    """What a process uses. ``tasks`` is -1 where it does not tell."""

    at: float
    rss_bytes: int
    descriptors: int
    threads: int
    tasks: int


@dataclass(slots=True)
class Process:
    """One process of spotd. ``host`` is the loopback address under which it calls Alpaca."""

    name: str
    command: Command
    host: str = ""
    started_at: float = field(default_factory=time.monotonic)
    acts_since: float = field(default_factory=time.monotonic)
    instance: str = ""
    frozen: bool = False
    stopping: bool = False
    ended_by_us: bool = False
    key_seen_at: float = float("-inf")
    attempted: int = 0
    attempted_at: float = float("-inf")
    published: int = 0
    published_at: float = float("-inf")
    published_read_at: float = float("-inf")
    sizes: list[Size] = field(default_factory=list)
    read_to: int = 0
    """How much of its log was searched for defects."""

    @classmethod
    async def start(
        cls, name: str, *args: str, home: Path, env: dict[str, str], host: str = ""
    ) -> Process:
        """Start ``spotd ARGS`` with these settings and no others."""
        port = env.get("SPOTD_HTTP_PORT") or env.get("SPOTD_RELAY_PORT") or "0"
        with _opened(home, "stdout") as out, _opened(home, "stderr") as err:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tests.soak.counted", *args),
                cwd=home,
                env=environment(**env, PYTHONPATH=str(ROOT)),
                stdout=out,
                stderr=err,
            )
        return cls(name, Command(process, home, int(port)), host)

    @property
    def pid(self) -> int:
        """The id of the process."""
        return self.command.process.pid

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self.command.running

    def see_published(self, number: int, now: float) -> None:
        """Take in how many updates it has published.

        After a freeze it counts the call whose answer came when it was frozen: that one is older.
        """
        if number > self.published and self.published_read_at > self.acts_since:
            self.published_at = now
        self.published, self.published_read_at = number, now

    def freeze(self) -> None:
        """Stop it with SIGSTOP."""
        if self.running:
            self.frozen = True
            self.command.send(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        if self.running:
            self.command.send(signal.SIGCONT)
        self.frozen = False
        self.acts_since = time.monotonic()

    async def kill(self) -> None:
        """End it as ``kill -9`` does."""
        self.ended_by_us = True
        await self.command.kill()

    async def stop(self) -> tuple[int | None, float]:
        """Ask it to stop. Return its exit code and how long it took, None if it had to be killed.

        The seconds are those of the wall clock.
        """
        self.stopping = self.ended_by_us = True
        begun = time.monotonic()
        if self.running:
            self.command.send(signal.SIGTERM)
        try:
            async with asyncio.timeout(3 * STOP_S):
                await self.command.process.wait()
        except TimeoutError:
            await self.command.kill()
            return None, time.monotonic() - begun
        return self.command.process.returncode, time.monotonic() - begun

    def defects(self) -> list[str]:
        """Return the lines of its log, since the last call, that tell of a defect."""
        with (self.command.home / "stderr").open("rb") as log:
            log.seek(self.read_to)
            new = log.read()
        complete = new.rpartition(b"\n")[0]
        self.read_to += len(complete) + bool(complete)
        lines = complete.decode("utf-8", "replace").splitlines()
        return [line for line in lines if any(word in line for word in _DEFECTS)]

    def log_tail(self, lines: int = 14) -> str:
        """Return the last lines of its log."""
        return "\n".join(self.command.stderr.splitlines()[-lines:])

    def measure(self) -> None:
        """Add a measurement of its size; the number of tasks is that told to the one before."""
        # At its end the interpreter gives the signal that the measurement sends its default back.
        if not self.running or self.frozen or self.stopping:
            return
        proc = Path(f"/proc/{self.pid}")
        with suppress(OSError, ValueError):
            tasks = self.command.home / "tasks"
            self.sizes.append(
                Size(
                    at=time.monotonic(),
                    rss_bytes=int((proc / "statm").read_text().split()[1]) * _PAGE_BYTES,
                    descriptors=sum(1 for _ in (proc / "fd").iterdir()),
                    threads=sum(1 for _ in (proc / "task").iterdir()),
                    tasks=int(tasks.read_text()) if tasks.exists() else -1,
                )
            )
            # Before it is told what to do, SIGUSR1 would end it.
            if self.instance:
                self.command.send(signal.SIGUSR1)


def _opened(home: Path, name: str) -> BinaryIO:
    home.mkdir(parents=True, exist_ok=True)
    return (home / name).open("wb")


def waited_for_cpu_s(pid: int) -> float:
    """Return for how long a process was ready to run and got no CPU, in seconds."""
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9
    except (OSError, IndexError):
        return 0.0


def http_port() -> str:
    """Return a free port as a setting."""
    return str(free_port())
