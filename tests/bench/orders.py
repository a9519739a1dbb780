"""Orders to the processes of a measurement: one JSON object a line, on their stdin and stdout.

Every order has an ``id`` and is answered once, with the same ``id``; a long one is answered when
it is done, and others are taken meanwhile. A process whose stdin ends, ends too.
"""

from __future__ import annotations

import asyncio
import ctypes
import itertools
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from tests.kit.waiting import GUARD_S

Json: TypeAlias = dict[str, Any]

ROOT = Path(__file__).parents[2]
_PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """Have the kernel kill this new process when the one that started it is gone."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class Process:
    """One process of a measurement, killed in the end. What it says goes into a file."""

    def __init__(
        self,
        name: str,
        command: list[str],
        *,
        home: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path = ROOT,
        talks: bool = False,
    ) -> None:
        self.name = name
        self.log = home / f"{name}.log"
        pipe = subprocess.PIPE if talks else subprocess.DEVNULL
        with self.log.open("ab") as log:
            self.started_at = time.monotonic()
            self._popen = subprocess.Popen(
                command,
                cwd=cwd,
                env=None if env is None else dict(env),
                stdin=pipe,
                stdout=pipe if talks else log,
                stderr=log,
                preexec_fn=die_with_parent,  # noqa: PLW1509 - starts before any thread that locks
            )

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._popen.pid

    def check(self) -> None:
        """Raise RuntimeError, with the end of its log, when it has ended."""
        if self._popen.poll() is not None:
            raise RuntimeError(f"{self.name} ended ({self._popen.returncode})\n{self.tail()}")

    def tail(self) -> str:
        """Return the end of what it said."""
        return self.log.read_text("utf-8", "replace")[-3_000:]

    def stop(self, guard_s: float = 10.0) -> None:
        """Ask it to end, and kill it when it does not."""
        if self._popen.poll() is None:
            self._popen.terminate()
            try:
                self._popen.wait(guard_s)
            except subprocess.TimeoutExpired:
                self.kill()

    def kill(self) -> None:
        """End it now."""
        if self._popen.poll() is None:
            self._popen.kill()
        self._popen.wait()
        for pipe in (self._popen.stdin, self._popen.stdout):
            if pipe is not None:
                pipe.close()


class Worker(Process):
    """A Python module of the bench that takes orders."""

    def __init__(self, name: str, module: str, *args: str, home: Path) -> None:
        super().__init__(
            name, [sys.executable, "-m", f"tests.bench.{module}", *args], home=home, talks=True
        )
        self._ids = itertools.count(1)
        self._answers: dict[int, queue.SimpleQueue[Json]] = {}
        threading.Thread(target=self._listen, name=f"answers of {name}", daemon=True).start()

    def order(self, what: str, **fields: Any) -> int:
        """Give an order, do not wait, and return its id."""
        number = next(self._ids)
        self._answers[number] = queue.SimpleQueue()
        line = json.dumps({"id": number, "do": what, **fields}) + "\n"
        self._stdin.write(line.encode())
        self._stdin.flush()
        return number

    def answer(self, number: int, guard_s: float = GUARD_S) -> Json:
        """Return the answer to an order. Raises RuntimeError where it failed or none comes."""
        deadline = time.monotonic() + guard_s
        while True:
            try:
                answer = self._answers[number].get(timeout=0.2)
            except queue.Empty:
                self.check()
                if time.monotonic() > deadline:
                    raise RuntimeError(
                        f"{self.name} gave no answer in {guard_s:g} s\n{self.tail()}"
                    ) from None
            else:
                del self._answers[number]
                if "error" in answer:
                    raise RuntimeError(f"{self.name}: {answer['error']}")
                return answer

    def ask(self, what: str, **fields: Any) -> Json:
        """Give an order. Return its answer."""
        return self.answer(self.order(what, **fields))

    @property
    def _stdin(self) -> Any:
        return self._popen.stdin

    def _listen(self) -> None:
        stdout = self._popen.stdout
        if stdout is None:
            raise AssertionError("a worker has pipes")
        try:
            for line in stdout:
                answer = json.loads(line)
                self._answers[answer["id"]].put(answer)
        except ValueError:
            return  # closed under our hands


# In the process that takes the orders


def reply(number: int, **fields: Any) -> None:
    """Answer an order."""
    os.write(1, (json.dumps({"id": number, **fields}) + "\n").encode())


async def serve(handlers: Mapping[str, Callable[..., Awaitable[Json]]]) -> None:
    """Take orders until stdin ends; each is carried out in a task of its own."""
    loop = asyncio.get_running_loop()
    lines = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    tasks: set[asyncio.Task[None]] = set()

    async def carry_out(number: int, what: str, fields: Json) -> None:
        try:
            reply(number, **await handlers[what](**fields))
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told to who asked
            reply(number, error=f"{type(error).__name__}: {error}")

    while line := await lines.readline():
        order = json.loads(line)
        task = asyncio.create_task(carry_out(order.pop("id"), order.pop("do"), order))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
