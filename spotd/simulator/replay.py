"""Plays recorded Alpaca messages at their own pace, their times shifted to now.

Reads a file of JSON lines, each a message or an array of them, plain or `.gz`, one line at a time,
so that its size does not matter. A line that is none is counted and never ends the replay.
"""

import asyncio
import gzip
import math
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, cast

import msgspec

from spotd.simulator.messages import CHANNEL_OF
from spotd.simulator.wire import Message, nanoseconds

_BACKLOG_BYTES = 4 << 20
_UNPACED_BATCH = 500


class Stage(Protocol):
    """Where a replay plays."""

    def play(self, messages: list[Message], per_frame: int) -> None:
        """Send messages to whoever is subscribed."""

    def wanted(self, symbols: frozenset[str]) -> bool:
        """Whether a session is subscribed to any of the symbols."""

    def ring(self) -> None:
        """Make whoever waits look again: the replay got further."""

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait for a condition that a client's doing may change."""

    async def drained(self, most_bytes: int) -> None:
        """Wait until no session has more than this waiting for it."""


@dataclass
class Replay:
    """A recording to play; also its own progress. Times in nanoseconds, durations in seconds."""

    path: Path | str
    speed: float = 1.0
    """2 plays twice as fast; 0 or infinity as fast as the clients read."""
    loop: bool = False
    await_subscriber: bool = True
    """Begin when the first session subscribes to one of its symbols, not at once."""
    per_frame: int = 250
    """Most messages in one frame; those due together share one."""
    tick_s: float = 0.005
    """What falls due within a tick goes out together."""

    total: int = field(default=0, init=False)
    """Messages in the file; known once it was scanned."""
    sent: int = field(default=0, init=False)
    """Messages played, over all rounds."""
    rounds: int = field(default=0, init=False)
    """Times it was played to the end."""
    malformed: int = field(default=0, init=False)
    """Lines, or messages in a line, that were none; counted while the file is scanned."""
    first_malformed: str = field(default="", init=False)
    """Where the first of them is, and what is wrong with it."""
    symbols: frozenset[str] = field(default=frozenset(), init=False)
    scanned: bool = field(default=False, init=False)
    begun: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self.path = Path(self.path)
        if math.isnan(self.speed) or self.speed < 0:
            raise ValueError(f"a replay's speed is 0 or more, not {self.speed}")

    @property
    def paced(self) -> bool:
        """Whether it keeps a pace at all."""
        return 0 < self.speed < math.inf

    def check(self) -> None:
        """Raise `OSError` unless the file can be opened."""
        with cast(Path, self.path).open("rb"):
            pass

    async def run(self, stage: Stage) -> None:
        """Play it, once or for ever."""
        await asyncio.to_thread(self.scan)
        self.scanned = True
        stage.ring()
        if self.await_subscriber:
            await stage.until(lambda: stage.wanted(self.symbols))
        self.begun = True
        while True:
            await (self._paced(stage) if self.paced else self._unpaced(stage))
            self.rounds += 1
            stage.ring()
            if not self.loop or not self.total:
                return

    def scan(self) -> None:
        """Read the file once, for its symbols, its length and its malformed lines."""
        symbols = set()
        total = malformed = 0
        first = ""
        for number, message in self._read():
            if isinstance(message, dict):
                total += 1
                symbols.add(message["S"])
            else:
                malformed += 1
                first = first or f"line {number}: {message}"
        self.total, self.malformed, self.first_malformed = total, malformed, first
        self.symbols = frozenset(symbols)

    def _read(self) -> Iterator[tuple[int, Message | str]]:
        """Number of line and message, or what is wrong with it; control messages are left out."""
        path = cast(Path, self.path)
        number = 0
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            try:
                for number, line in enumerate(file, 1):
                    if line.strip():
                        for message in _messages(line):
                            yield number, message
            except (EOFError, zlib.error, gzip.BadGzipFile) as problem:
                yield number + 1, f"the file is damaged from here on: {problem}"

    def _messages(self) -> Iterator[Message]:
        for _, message in self._read():
            if isinstance(message, dict):
                yield message

    async def _paced(self, stage: Stage) -> None:
        begin_s, begin_ns = time.monotonic(), time.time_ns()
        first_ns: int | None = None
        due: list[Message] = []
        window_s = 0.0  # what is due until then goes out then, in one frame
        for message in self._messages():
            if first_ns is None:
                first_ns, window_s = message["t"], self.tick_s
            offset_ns = message["t"] - first_ns
            if self.speed != 1:
                offset_ns = int(offset_ns / self.speed)
            if offset_ns / 1e9 > window_s:
                await asyncio.sleep(begin_s + window_s - time.monotonic())
                self._play(stage, due)
                due = []
                window_s = max(time.monotonic() - begin_s, offset_ns / 1e9 + self.tick_s)
            message["t"] = begin_ns + offset_ns
            due.append(message)
        await asyncio.sleep(begin_s + window_s - time.monotonic())
        self._play(stage, due)

    async def _unpaced(self, stage: Stage) -> None:
        batch: list[Message] = []
        for message in self._messages():
            message["t"] = time.time_ns()
            batch.append(message)
            if len(batch) >= _UNPACED_BATCH:
                self._play(stage, batch)
                batch = []
                await asyncio.sleep(0)
                await stage.drained(_BACKLOG_BYTES)
        self._play(stage, batch)
        await stage.drained(_BACKLOG_BYTES)

    def _play(self, stage: Stage, messages: list[Message]) -> None:
        if messages:
            stage.play(messages, self.per_frame)
            self.sent += len(messages)


def _messages(line: bytes) -> Iterator[Message | str]:
    """The data messages of a line, times parsed; a sentence in place of each that is none."""
    try:
        decoded = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError) as problem:
        yield f"not JSON: {problem}"
        return
    for each in decoded if isinstance(decoded, list) else [decoded]:
        if not isinstance(each, dict) or not isinstance(each.get("T"), str):
            yield "no message with a type T"
        elif each["T"] in CHANNEL_OF:
            yield _with_time(each)


def _with_time(message: Message) -> Message | str:
    if not isinstance(message.get("S"), str):
        return "a message without its symbol S"
    moment = message.get("t")
    if not isinstance(moment, str):
        return "a message without its time t"
    try:
        message["t"] = nanoseconds(moment)
    except ValueError as problem:
        return str(problem)
    return {"T": message.pop("T"), "S": message.pop("S")} | message
