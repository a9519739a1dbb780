"""Plays recorded Alpaca messages with the distances of the recording, their times shifted to now.

Reads a file of JSON lines, each a message or an array of messages, plain or `.gz`, one line at a
time, so that the size of the file does not matter. A malformed line is counted and does not end the
replay. `Stage` is the part of the simulator that a replay needs.
"""

import asyncio
import gzip
import math
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, cast

import msgspec

from spotd.simulator.clock import Clock
from spotd.simulator.messages import CHANNEL_OF
from spotd.simulator.wire import Message, nanoseconds

TICK_S = 0.005
"""Messages that are due within a tick are sent together."""
_BACKLOG_BYTES = 4 << 20
_UNPACED_BATCH = 500


class NothingToPlayError(ValueError):
    """The file holds no message that can be played."""


class Stage(Protocol):
    """Where a replay plays."""

    def play(self, messages: list[Message]) -> None:
        """Send messages to the sessions that are subscribed to them."""

    def wanted(self, symbols: frozenset[str]) -> bool:
        """Return whether a session is subscribed to any of the symbols."""

    def wake_up(self) -> None:
        """Make all waiters check their conditions again."""

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait for a condition that a client may make true."""

    async def drained(self, most_bytes: int) -> None:
        """Wait until no session has more than this many bytes waiting for it."""


@dataclass
class Replay:
    """A recording to play, and the progress of playing it."""

    path: Path | str
    speed: float = 1.0
    """2 plays twice as fast; 0 or infinity plays as fast as the clients read."""
    loop: bool = False
    await_subscriber: bool = True
    """Begin when the first session subscribes to one of the recorded symbols, not at once."""

    total: int = field(default=0, init=False)
    """Messages in the file; known after it was scanned."""
    sent: int = field(default=0, init=False)
    """Messages played, over all rounds."""
    rounds: int = field(default=0, init=False)
    """How many times it was played to the end."""
    malformed: int = field(default=0, init=False)
    """Malformed lines, and malformed messages in a line; known after the file was scanned."""
    first_malformed: str = field(default="", init=False)
    """The line of the first of them, and what is wrong with it."""
    symbols: frozenset[str] = field(default=frozenset(), init=False)
    scanned: bool = field(default=False, init=False)
    begun: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self.path = Path(self.path)
        if math.isnan(self.speed) or self.speed < 0:
            raise ValueError(f"the speed of a replay is 0 or more, not {self.speed}")

    def check(self) -> None:
        """Raise `OSError` unless the file can be opened."""
        with cast(Path, self.path).open("rb"):
            pass

    async def run(self, stage: Stage, clock: Clock) -> None:
        """Play the file once, or again and again until cancelled.

        Raise `NothingToPlayError` if it holds no message that can be played.
        """
        await asyncio.to_thread(self.scan)
        self.scanned = True
        stage.wake_up()
        if not self.total:
            why = f"malformed: {self.first_malformed}" if self.malformed else "no data message"
            raise NothingToPlayError(f"there is nothing to play in {self.path}: {why}")
        if self.await_subscriber:
            await stage.until(lambda: stage.wanted(self.symbols))
        self.begun = True
        play = self._paced if 0 < self.speed < math.inf else self._unpaced
        while True:
            await play(stage, clock)
            self.rounds += 1
            stage.wake_up()
            if not self.loop:
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
        """Yield each line's number with a message, or with what is wrong; skip control messages."""
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

    async def _paced(self, stage: Stage, clock: Clock) -> None:
        """Play each message at its recorded distance from the first, never earlier."""
        begin_s, begin_ns = clock.monotonic_s(), clock.wall_ns()
        first_ns: int | None = None
        due: list[Message] = []
        tick_ends_s = 0.0  # since the beginning; messages due until then are sent then
        for message in self._messages():
            if first_ns is None:
                first_ns, tick_ends_s = message["t"], TICK_S
            offset_ns = message["t"] - first_ns
            if self.speed != 1:
                offset_ns = int(offset_ns / self.speed)
            if offset_ns / 1e9 > tick_ends_s:
                await clock.sleep(begin_s + tick_ends_s - clock.monotonic_s())
                self._play(stage, due)
                due = []
                tick_ends_s = max(clock.monotonic_s() - begin_s, offset_ns / 1e9 + TICK_S)
            message["t"] = begin_ns + offset_ns
            due.append(message)
        await clock.sleep(begin_s + tick_ends_s - clock.monotonic_s())
        self._play(stage, due)

    async def _unpaced(self, stage: Stage, clock: Clock) -> None:
        """Play as fast as the clients read, each message with the time of its sending."""
        batch: list[Message] = []
        for message in self._messages():
            message["t"] = clock.wall_ns()
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
            stage.play(messages)
            self.sent += len(messages)


def _messages(line: bytes) -> Iterator[Message | str]:
    """Yield the data messages of a line with parsed times, or what is wrong with them."""
    try:
        decoded = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError) as problem:
        yield f"not JSON: {problem}"
        return
    for each in decoded if isinstance(decoded, list) else [decoded]:
        if not isinstance(each, dict) or not isinstance(each.get("T"), str):
            yield "not a message with a type T"
        elif each["T"] in CHANNEL_OF:
            yield _with_time(each)


def _with_time(message: Message) -> Message | str:
    if not isinstance(message.get("S"), str):
        return "a message without a symbol S"
    moment = message.get("t")
    if not isinstance(moment, str):
        return "a message without a time t"
    try:
        message["t"] = nanoseconds(moment)
    except ValueError as problem:
        return str(problem)
    return {"T": message.pop("T"), "S": message.pop("S")} | message
