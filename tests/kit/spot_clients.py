"""Programs that use spotd.js, many in one Node.js process: what they are told, and when."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import NamedTuple, TypeAlias

from tests.kit.waiting import GUARD_S

_SCRIPT = Path(__file__).with_suffix(".mjs")
_LINE_BYTES = 4_000_000  # the longest: all prices of all clients

Prices: TypeAlias = dict[str, tuple[int, float]]  # by symbol: seq and mid price


@cache
def node_command() -> tuple[str, ...] | None:
    """Return how to run Node.js such that programs have WebSocket; None where it cannot."""
    node = shutil.which("node")
    if node is None:
        return None
    for options in ((), ("--experimental-websocket",)):  # Node.js 20 needs it
        asked = [node, *options, "-e", "process.exit(typeof WebSocket === 'function' ? 0 : 1)"]
        if subprocess.run(asked, capture_output=True, check=False).returncode == 0:
            return (node, *options)
    return None


class Change(NamedTuple):
    """A connection's new state and its code, or None and None: all symbols are live, or not."""

    at_s: float  # monotonic
    state: str | None
    code: str | None
    live: bool


class SpotClients:
    """The clients of one process. ``changes[i]`` are those of the client i, oldest first."""

    def __init__(self, process: Process, number: int) -> None:
        self.changes: list[list[Change]] = [[] for _ in range(number)]
        self._process = process
        self._answers: asyncio.Queue[list[Prices]] = asyncio.Queue()

    @classmethod
    @asynccontextmanager
    async def running(
        cls, url: str, number: int, symbols: Sequence[str], each: int
    ) -> AsyncIterator[SpotClients]:
        """Connect this number of clients, each of which follows ``each`` of the symbols."""
        node = node_command()
        assert node is not None
        process = await asyncio.create_subprocess_exec(
            *(*node, "--no-warnings", str(_SCRIPT), url, str(number), str(each), *symbols),
            stdin=PIPE,
            stdout=PIPE,
            limit=_LINE_BYTES,
        )
        clients = cls(process, number)
        reading = asyncio.create_task(clients._read(), name="spot clients")
        try:
            yield clients
        finally:
            process.kill()
            await process.wait()
            await reading

    def live(self) -> list[bool]:
        """Return of each client whether it is connected and all its symbols are live."""
        return [bool(changes) and changes[-1].live for changes in self.changes]

    def codes(self, since_s: float = 0.0) -> list[list[str]]:
        """Return why each client was without a connection, every time since then."""
        return [
            [change.code for change in changes if change.code and change.at_s >= since_s]
            for changes in self.changes
        ]

    async def prices(self) -> list[Prices]:
        """Return what each client holds now."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"prices\n")
        async with asyncio.timeout(GUARD_S):
            return await self._answers.get()

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            told = json.loads(line)
            if "prices" in told:
                self._answers.put_nowait(
                    [{s: (seq, mid) for s, (seq, mid) in one.items()} for one in told["prices"]]
                )
                continue
            changes = self.changes[told["client"]]
            before = changes[-1].live if changes else False
            state, code = told.get("state"), told.get("code")
            changes.append(Change(told["at_s"], state, code, told.get("live", before)))
