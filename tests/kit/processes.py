"""The installed command as a process: started with a test's own settings, watched, ended."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from tests.kit.template import AVAILABLE, STDIN, Forked, Popen, Running, lead_session
from tests.kit.values import Json
from tests.kit.waiting import GUARD_S

SPOTD = Path(sys.executable).parent / "spotd"
_OURS = ("SPOTD_", "ALPACA_", "APCA_", "REDIS_URL")
_TAIL_CHARS = 6_000
_HTTP_LIMIT_S = 5.0

NOTHING: Mapping[str, str] = MappingProxyType({})


def environment(**settings: str) -> dict[str, str]:
    """Return this process's environment with these settings of spotd and no others."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(_OURS)}
    return {**inherited, **settings}


def popen(
    *args: str, cwd: Path | None = None, env: Mapping[str, str] = NOTHING
) -> Popen | subprocess.Popen[str]:
    """Start the installed command with its output in pipes, read as text.

    ``env`` is added to the environment of this process.
    """
    whole = {**os.environ, **env}
    if AVAILABLE:
        return Popen(SPOTD, *args, cwd=cwd, env=whole)
    return subprocess.Popen(
        [SPOTD, *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        cwd=cwd, env=whole,
    )  # fmt: skip


def popen_on(
    terminal: int,
    *args: str,
    leads: bool = True,
    cwd: Path | None = None,
    env: Mapping[str, str] = NOTHING,
) -> Popen | subprocess.Popen[bytes]:
    """Start the installed command on a terminal.

    If it ``leads``, it leads a session, which the terminal controls. ``env`` is added to the
    environment of this process.
    """
    whole = {**os.environ, "TERM": "xterm", **env}
    if AVAILABLE:
        return Popen(SPOTD, *args, cwd=cwd, env=whole, terminal=terminal, leads=leads)
    return subprocess.Popen(
        [SPOTD, *args], stdin=terminal, stdout=terminal, stderr=terminal, cwd=cwd, env=whole,
        start_new_session=leads,
        preexec_fn=partial(lead_session, STDIN) if leads else None,  # noqa: PLW1509 - no locks here
    )  # fmt: skip


def _opened(home: Path, name: str) -> BinaryIO:
    home.mkdir(parents=True, exist_ok=True)
    return (home / name).open("ab")


class Command:
    """One run of the installed command. Its output lies in ``home``."""

    def __init__(self, process: Running, home: Path, http_port: int) -> None:
        self.process = process
        self.home = home
        self.http_port = http_port

    @classmethod
    async def start(
        cls,
        *args: str,
        home: Path,
        env: Mapping[str, str],
        http_port: int = 0,
        forked: bool = AVAILABLE,
    ) -> Command:
        """Start it in a directory of its own, with these settings and no others.

        It is ``forked`` from a process that has imported what spotd imports of others, which saves
        a second of CPU, or a new process of the interpreter.
        """
        whole = environment(**env)
        with _opened(home, "stdout") as out, _opened(home, "stderr") as err:
            process: Running
            if forked:
                stdio = STDIN, out.fileno(), err.fileno()
                process = Forked(SPOTD, *args, cwd=home, env=whole, stdio=stdio)
            else:
                process = await asyncio.create_subprocess_exec(
                    str(SPOTD), *args, cwd=home, env=whole, stdout=out, stderr=err
                )
        return cls(process, home, http_port)

    @property
    def running(self) -> bool:
        """Whether it has not ended yet."""
        return self.process.returncode is None

    @property
    def stderr(self) -> str:
        """What it has written to stderr so far."""
        return (self.home / "stderr").read_text("utf-8", "replace")

    @property
    def output(self) -> str:
        """What it has written so far, to stdout and to stderr."""
        return (self.home / "stdout").read_text("utf-8", "replace") + self.stderr

    def events(self) -> list[str]:
        """Return the names of its log lines so far."""
        return [line["event"] for line in self.log()]

    def log(self) -> list[Json]:
        """Return its log lines so far that are complete."""
        lines = []
        for text in self.stderr.splitlines():
            with suppress(json.JSONDecodeError):
                lines.append(json.loads(text))
        return lines

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    async def ends(self) -> int:
        """Return its exit code once it has ended; AssertionError with its output if it hangs."""
        try:
            async with asyncio.timeout(GUARD_S):
                return await self.process.wait()
        except TimeoutError:
            raise AssertionError(f"still runs after {GUARD_S:g} s\n{self.tail()}") from None

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Ask it to stop, and return its exit code."""
        self.send(number)
        return await self.ends()

    async def kill(self) -> None:
        """End it as ``kill -9`` does, and wait until it is gone."""
        with suppress(ProcessLookupError):
            self.process.kill()
        await self.process.wait()

    def tail(self) -> str:
        """Return the end of what it wrote."""
        return f"--- {self.home.name}\n{self.output[-_TAIL_CHARS:]}"

    # HTTP

    async def get(self, path: str) -> tuple[int, str]:
        """Return status and body of one page; (0, "") while nothing listens."""
        try:
            async with (
                aiohttp.ClientSession(
                    timeout=aiohttp.ClientTimeout(total=_HTTP_LIMIT_S)
                ) as session,
                session.get(f"http://127.0.0.1:{self.http_port}{path}") as answer,
            ):
                return answer.status, await answer.text()
        except (aiohttp.ClientError, OSError):
            return 0, ""

    async def ready(self) -> bool:
        """Return whether ``/readyz`` says 200."""
        return (await self.get("/readyz"))[0] == 200

    async def unready(self, word: str = "") -> bool:
        """Return whether ``/readyz`` says 503 for a reason that holds the word."""
        status, reasons = await self.get("/readyz")
        return status == 503 and word in reasons

    async def status(self) -> Json:
        """Return what ``/status`` says; empty while nothing listens."""
        status, body = await self.get("/status")
        return dict(json.loads(body)) if status == 200 else {}

    async def state(self) -> str:
        """Return the state that ``/status`` says; empty while nothing listens."""
        return str((await self.status()).get("state", ""))

    async def says(self, *states: str) -> bool:
        """Return whether ``/status`` says one of these states."""
        return await self.state() in states

    async def metrics(self) -> dict[str, float]:
        """Return every sample of ``/metrics`` by its name, or ``name{value of its label}``."""
        _, body = await self.get("/metrics")
        samples = {}
        for family in text_string_to_metric_families(body):
            for sample in family.samples:
                label = "".join(f"{{{value}}}" for value in sample.labels.values())
                samples[sample.name + label] = float(sample.value)
        return samples

    async def leads(self) -> bool:
        """Return whether it says by its metrics that it leads."""
        return (await self.metrics()).get("spotd_leader") == 1
