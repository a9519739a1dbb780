"""The command works: it measures two cheap rows, prints the table, and writes JSON and a picture.

What the figures are is for no test to judge.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import msgpack
import pytest

from tests.bench import frames, pictures
from tests.bench.orders import ROOT
from tests.bench.results import Row
from tests.bench.setup import PRESENT

_GUARD_S = 110.0


@pytest.mark.long  # `.ci/run long` measures every row
def test_measures_prints_and_writes(tmp_path: Path) -> None:
    """A quick run of two rows gives both, in the table and in the JSON, with positive figures."""
    found = tmp_path / "found.json"
    command = [sys.executable, "-m", "tests.bench", "--quick", "--rounds", "1"]
    done = subprocess.run(
        [*command, "--only", "batched,start", "--json", str(found)],
        check=False,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=_GUARD_S,
    )
    assert done.returncode == 0, done.stderr
    rows = {row["key"]: row for row in json.loads(found.read_text())["rows"]}
    assert rows.keys() == {"batched", "start"}
    for row in rows.values():
        assert row["what"] in done.stdout
        assert row["target"] in done.stderr
        assert row["reached"] in (True, False)
        assert row["figures"]
        assert all(figure["min"] > 0 for figure in row["figures"])
    assert "naive / spotd" in done.stdout


@pytest.mark.long  # for whoever compares two checkouts
def test_compares_with_another_checkout(tmp_path: Path) -> None:
    """A quick run measures another ``spotd`` too, and shows how much dearer that was."""
    found = tmp_path / "found.json"
    command = [sys.executable, "-m", "tests.bench", "--quick", "--rounds", "1", "--only", "start"]
    done = subprocess.run(
        [*command, "--against", str(PRESENT.spotd), "--json", str(found)],
        check=False,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=_GUARD_S,
    )
    assert done.returncode == 0, done.stderr
    [row] = json.loads(found.read_text())["rows"]
    figures = {figure["name"]: figure["rounds"] for figure in row["figures"]}
    both = zip(figures["before: start"], figures["start"], strict=True)
    assert figures["before / spotd"] == [before / now for before, now in both]
    assert all(figure["min"] > 0 for figure in row["figures"])
    assert row["what"] in done.stdout
    assert row["target"] in done.stderr
    assert "before / spotd" in done.stdout


def test_refuses_unknown_rows() -> None:
    """A mistyped row is a usage error, and not a run without it."""
    command = [sys.executable, "-m", "tests.bench", "--only", "batched,nonsense"]
    done = subprocess.run(
        command, check=False, cwd=ROOT, capture_output=True, text=True, timeout=_GUARD_S
    )
    assert done.returncode == 2
    assert "nonsense" in done.stderr


def test_frames_are_alpacas() -> None:
    """Frames made beforehand decode to quotes with Alpaca's keys in order, and the stamped time."""
    names = frames.symbols(7)
    pool = frames.pool(names, quotes=70, per_frame=10)
    pool.stamp(1, 2, 1_700_000_000_123_456_789)
    header = 4  # 10 quotes are longer than 125 bytes
    payload = pool.data[pool.bounds[1] + header : pool.bounds[2]]
    quotes = msgpack.unpackb(payload)
    assert len(quotes) == 10
    assert {quote["S"] for quote in quotes} <= set(names)
    for quote in quotes:
        assert list(quote) == ["T", "S", "bx", "bp", "bs", "ax", "ap", "as", "c", "z", "t"]
        assert quote["t"].to_unix_nano() == 1_700_000_000_123_456_789
        assert 0 < quote["bp"] < quote["ap"]


def test_draws_what_was_measured() -> None:
    """A picture for each of the two rows that have one, and none without them."""
    growth = Row("growth", "", "")
    growth.series = {
        k: {"100": [1.0], "11500": [2.0]} for k in ("spotd", "naive", "careful", "floor")
    }
    assert pictures.draw({"growth": growth}).count("<polyline") == 4
    assert "<polyline" not in pictures.draw({})
