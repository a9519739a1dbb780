"""What rows have in common: how long to measure, a setup to measure in, and bursts of quotes.

A burst is sent as fast as a client reads. It is over when a marked quote that was sent behind it
was published, and the windows of the throttle that it opened have ended.
"""

from __future__ import annotations

import itertools
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from tests.bench import frames
from tests.bench.orders import Process
from tests.bench.setup import NO_SETTINGS, PRESENT, Program, Setup, cpu_ns, with_mark
from tests.bench.source import MARK

_T = TypeVar("_T")

WINDOWS_S = 0.25  # the throttle's window, and a little
_FIRST_QUOTES = 4_000
_POOL_QUOTES = 100_000
_PER_SYMBOL = 40
BEFORE = "before"  # what the program is called that the present one is compared with
MARKET = 11_500  # symbols in the whole market
SOME = 500


@dataclass(frozen=True, slots=True)
class Plan:
    """How often, and how long, in seconds."""

    rounds: int
    burst_s: float = 1.5
    out_s: float = 10.0
    limit_s: float = 60.0
    latency_s: float = 6.0
    idle_s: float = 60.0
    pace_s: float = 6.0
    day_s: float = 600.0
    uneven_s: float = 30.0
    memory_s: float = 120.0
    rates: tuple[int, ...] = (500, 5_000, 25_000, 100_000, 400_000)
    counts: tuple[int, ...] = (100, 500, 2_500, MARKET)

    @classmethod
    def quick(cls, rounds: int) -> Plan:
        """Return a plan that shows that all works, and is too short for figures that count."""
        return cls(
            rounds,
            burst_s=0.4,
            out_s=3.0,
            limit_s=6.0,
            latency_s=1.5,
            idle_s=3.0,
            pace_s=2.0,
            day_s=6.0,
            uneven_s=4.0,
            memory_s=8.0,
            rates=(500, 100_000),
            counts=(100, MARKET),
        )


@dataclass(slots=True)
class Contender:
    """A client of the source, and the quotes it gets in a burst."""

    name: str
    process: Process
    pool: str
    quotes: int = _FIRST_QUOTES
    least: int = _FIRST_QUOTES  # so that the first update of every symbol does not weigh much
    silent: bool = False  # its throttle keeps back the marks too


@dataclass(frozen=True, slots=True)
class Burst:
    """What a burst cost."""

    quotes: int
    cpu_us: float  # per quote
    seconds: float  # until the mark was published
    updates: int  # published meanwhile, by all on this server


class Bench:
    """One run: the plan, where files go, and progress on stderr."""

    def __init__(self, plan: Plan, home: Path, against: Path | None = None) -> None:
        """``against``: the executable of another ``spotd``, measured in the same rounds."""
        self.plan = plan
        self.programs = [PRESENT]
        if against is not None:
            self.programs.append(Program(BEFORE, against))
        self._home = home
        self._marks = itertools.count(1)
        self._row = ""

    def begin(self, row: str) -> None:
        """Begin a row."""
        self._row = row

    def say(self, text: str) -> None:
        """Print a line of progress."""
        print(f"[{self._row}] {text}", file=sys.stderr, flush=True)

    @contextmanager
    def setup(self) -> Iterator[Setup]:
        """Yield a new setup that ends with the block."""
        home = self._home / f"{self._row}-{time.monotonic_ns()}"
        home.mkdir()
        with Setup(home) as setup:
            yield setup

    # Contenders

    def spotd(
        self,
        setup: Setup,
        symbols: int,
        *,
        program: Program = PRESENT,
        name: str = "",
        settings: Mapping[str, str] = NO_SETTINGS,
    ) -> Contender:
        """Return a daemon that is ready, with this number of symbols."""
        name = name or program.name
        names = with_mark(frames.symbols(symbols))
        process = setup.daemon(name, names, settings, program=program)
        return Contender(name, process, f"{symbols}", least=_PER_SYMBOL * symbols)

    def daemons(self, setup: Setup, symbols: int, *, suffix: str = "") -> list[Contender]:
        """Return a daemon of each program, ready, with this number of symbols."""
        return [
            self.spotd(setup, symbols, program=program, name=program.name + suffix)
            for program in self.programs
        ]

    def baselines(self, setup: Setup, symbols: int, *, suffix: str = "") -> list[Contender]:
        """Return both baselines, subscribed to this number of symbols."""
        found = []
        for module in ("naive", "careful"):
            name = module + suffix
            found.append(Contender(name, setup.baseline(module, name, symbols), f"{symbols}"))
        return found

    @staticmethod
    def floor(setup: Setup, symbols: int) -> Contender:
        """Return what only decodes and stores."""
        name = f"floor{symbols}"
        process = setup.floor(name, symbols)
        return Contender(name, process, f"{symbols}", least=_PER_SYMBOL * symbols, silent=True)

    @staticmethod
    def floor_publish(setup: Setup, symbols: int) -> Contender:
        """Return what only decodes, and publishes each quote with a call of its own."""
        process = setup.baseline("floor_publish", "floor", symbols)
        return Contender("floor", process, f"{symbols}")

    @staticmethod
    def pool(setup: Setup, symbols: int, per_frame: int) -> str:
        """Have the source encode quotes of ``symbols`` symbols. Return the pool's name."""
        name = f"{symbols}"
        setup.source.ask(
            "pool",
            name=name,
            symbols=symbols,
            quotes=max(_POOL_QUOTES, 4 * symbols),
            per_frame=per_frame,
        )
        return name

    # Bursts

    def burst(self, setup: Setup, contender: Contender) -> Burst:
        """Send a burst, and wait until it was taken in and published. Return what it cost."""
        number, name = next(self._marks), contender.name
        pid = contender.process.pid
        updates, cpu, began = _published(setup), cpu_ns(pid), time.monotonic()
        sent = setup.source.ask("burst", client=name, pool=contender.pool, quotes=contender.quotes)
        if contender.silent:
            setup.source.ask("ping", client=name)
        else:
            setup.source.ask("mark", client=name, number=number)
            self._await_mark(setup, contender, number)
        seconds = time.monotonic() - began
        time.sleep(WINDOWS_S)
        quotes = int(sent["quotes"])
        cpu_us = (cpu_ns(pid) - cpu) / quotes / 1_000
        return Burst(quotes, cpu_us, seconds, _published(setup) - updates)

    @staticmethod
    def _await_mark(setup: Setup, contender: Contender, number: int) -> None:
        def marked() -> bool:
            last = setup.redis.hget(f"{contender.name}d:last", MARK)
            return last is not None and json.loads(str(last))["bid_price"] == number

        setup.wait(marked, f"{contender.name} to take a burst in", contender.process)

    def calibrate(self, setup: Setup, contender: Contender) -> None:
        """Find how many quotes make a burst of the planned length; this warms up, too."""
        fastest = 0.0
        for _ in range(4):
            took = self.burst(setup, contender)
            fastest = max(fastest, took.quotes / took.seconds)
            at_most = 20 * took.quotes
            contender.quotes = min(max(contender.least, int(fastest * self.plan.burst_s)), at_most)
            if took.quotes >= contender.least and took.seconds > self.plan.burst_s / 2:
                break

    def paired(self, setup: Setup, contenders: Sequence[Contender]) -> dict[str, list[Burst]]:
        """Send each a burst in turn, in every round. Return the bursts of each."""
        for contender in contenders:
            self.calibrate(setup, contender)
        bursts: dict[str, list[Burst]] = {contender.name: [] for contender in contenders}
        for number in range(self.plan.rounds):
            for contender in _alternating(contenders, number):
                bursts[contender.name].append(self.burst(setup, contender))
            costs = (f"{name} {found[-1].cpu_us:.3g} µs" for name, found in bursts.items())
            self.say(f"round {number + 1}: CPU per quote: {', '.join(costs)}")
        return bursts

    def each_round(self, measure: Callable[[], dict[str, float]]) -> dict[str, list[float]]:
        """Measure in every round. Return the values of each figure."""
        return self.each_in_turn({"": measure})[""]

    def each_in_turn(
        self, measures: Mapping[str, Callable[[], dict[str, float]]]
    ) -> dict[str, dict[str, list[float]]]:
        """Measure each in turn, in every round. Return the values of each."""
        values: dict[str, dict[str, list[float]]] = {key: {} for key in measures}
        for number in range(self.plan.rounds):
            for key, measure in _alternating(measures.items(), number):
                found = measure()
                for name, value in found.items():
                    values[key].setdefault(name, []).append(value)
                shown = ", ".join(f"{name} {value:.4g}" for name, value in found.items())
                self.say(f"round {number + 1}: {f'{key}: ' if key else ''}{shown}")
        return values


def _alternating(them: Iterable[_T], number: int) -> list[_T]:
    """Return them in order, and backwards in every other round, so that no place is favoured."""
    return list(them)[:: -1 if number % 2 else 1]


def costs_us(bursts: Sequence[Burst]) -> list[float]:
    """Return the CPU time per quote of each burst, in microseconds."""
    return [burst.cpu_us for burst in bursts]


def _published(setup: Setup) -> int:
    stats = setup.redis.info("commandstats")
    return int(stats.get("cmdstat_publish", {}).get("calls", 0))
