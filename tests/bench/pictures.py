"""Two pictures of a run as one SVG, written by hand: cost over symbols, latency over rate."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from tests.bench.results import Row

_WIDTH, _HEIGHT = 460, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 96, 44, 48
_LABEL = 13  # the height of one
_COLOURS = ("#0b6e4f", "#c1440e", "#8a6d00", "#3b5b92")

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class _Axis:
    """A logarithmic axis; low and high are powers of ten."""

    low: float
    high: float
    start: float
    end: float
    ticks: Sequence[float]

    @classmethod
    def between(cls, values: Sequence[float], start: float, end: float) -> _Axis:
        """Return an axis from the lowest of the values to the highest, each of them marked."""
        ticks = sorted(set(values))
        return cls(math.log10(ticks[0]), math.log10(ticks[-1]), start, end, ticks)

    @classmethod
    def decades(cls, values: Sequence[float], start: float, end: float) -> _Axis:
        """Return an axis of whole decades, each of them marked."""
        low = math.floor(math.log10(min(values)) + 1e-9)
        high = math.ceil(math.log10(max(values)) - 1e-9)
        ticks = [10.0**power for power in range(low, high + 1)]
        return cls(low, high, start, end, ticks)

    def place(self, value: float) -> float:
        share = (math.log10(value) - self.low) / max(1e-9, self.high - self.low)
        return self.start + share * (self.end - self.start)


def draw(rows: Mapping[str, Row]) -> str:
    """Return the pictures of the rows that were measured."""
    panels = []
    if "growth" in rows:
        panels.append(
            _panel(
                "CPU time of the daemon per quote",
                "symbols",
                "µs",
                _cost_lines(rows["growth"]),
            )
        )
    if "latency" in rows:
        panels.append(
            _panel(
                "Quote sent to SUBSCRIBE received",
                "quotes per second",
                "ms",
                _latency_lines(rows["latency"]),
            )
        )
    width = _WIDTH * max(1, len(panels))
    moved = [
        f'<g transform="translate({number * _WIDTH},0)">{panel}</g>'
        for number, panel in enumerate(panels)
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {_HEIGHT}" '
        f'width="{width}" height="{_HEIGHT}" font-family="sans-serif" font-size="11">'
        f'<rect width="100%" height="100%" fill="#fff"/>{"".join(moved)}</svg>\n'
    )


def _cost_lines(row: Row) -> dict[str, Points]:
    return {
        kind: [
            (float(count), statistics.median(costs)) for count, costs in row.series[kind].items()
        ]
        for kind in ("spotd", "naive", "careful", "floor")
    }


def _latency_lines(row: Row) -> dict[str, Points]:
    parts = ("p99.9", "p99", "p90", "p50")
    return {
        part: [(float(rate), statistics.median(v[part])) for rate, v in row.series.items()]
        for part in parts
    }


def _panel(title: str, x_name: str, y_name: str, lines: Mapping[str, Points]) -> str:
    xs = [x for points in lines.values() for x, _ in points]
    ys = [y for points in lines.values() for _, y in points]
    across = _Axis.between(xs, _LEFT, _WIDTH - _RIGHT)
    up = _Axis.decades(ys, _HEIGHT - _BOTTOM, _TOP)
    parts = [_text(_LEFT, 22, title, size=13)]
    parts += _grid(across, up)
    parts.append(_text((across.start + across.end) / 2, _HEIGHT - 12, x_name, anchor="middle"))
    parts.append(_text(_LEFT - 8, _TOP - 8, y_name, anchor="end"))
    placed = {
        name: [(across.place(x), up.place(y)) for x, y in points] for name, points in lines.items()
    }
    labels = _apart({name: points[-1][1] for name, points in placed.items()})
    for (name, points), colour in zip(placed.items(), _COLOURS, strict=False):
        parts.append(_curve(points, colour))
        text = f"{name} {lines[name][-1][1]:.3g} {y_name}"
        parts.append(_text(points[-1][0] + 8, labels[name] + 4, text, colour=colour))
    return "".join(parts)


def _curve(points: Points, colour: str) -> str:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    dots = (f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in points)
    line = f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>'
    return line + "".join(dots)


def _apart(places: Mapping[str, float]) -> dict[str, float]:
    """Return the same places from top to bottom, moved down where two labels would overlap."""
    found: dict[str, float] = {}
    least = -math.inf
    for name, place in sorted(places.items(), key=lambda item: item[1]):
        found[name] = max(place, least)
        least = found[name] + _LABEL
    return found


def _grid(across: _Axis, up: _Axis) -> list[str]:
    parts = []
    for tick in across.ticks:
        x = across.place(tick)
        parts.append(_line(x, up.start, x, up.end))
        parts.append(_text(x, up.start + 16, f"{tick:,.0f}", anchor="middle"))
    for tick in up.ticks:
        y = up.place(tick)
        parts.append(_line(across.start, y, across.end, y))
        parts.append(_text(across.start - 8, y + 4, f"{tick:,g}", anchor="end"))
    return parts


def _line(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="#ddd"/>'


def _text(
    x: float, y: float, text: str, *, anchor: str = "start", size: int = 11, colour: str = "#333"
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" '
        f'fill="{colour}">{escape(text)}</text>'
    )
