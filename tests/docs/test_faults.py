"""The table of faults: each row says what spotd does and names a test that exists, or why none."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs/faults.md").read_text()
NAMED = re.compile(r"`([\w/]+\.py)::(\w+)`")


def rows() -> list[list[str]]:
    """Return the cells of each fault."""
    between = TEXT.split("<!-- faults -->")[1].split("<!-- /faults -->")[0]
    lines = [line for line in between.splitlines() if line.startswith("| ")]
    found = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    return [cells for cells in found if cells[0] not in ("fault", "---")]


@cache
def names_in(path: str) -> frozenset[str]:
    """Return the names of the functions in a file below ``tests/``; none where there is no file."""
    file = ROOT / "tests" / path
    if not file.exists():
        return frozenset()
    nodes = ast.walk(ast.parse(file.read_text()))
    kinds = ast.FunctionDef | ast.AsyncFunctionDef
    return frozenset(node.name for node in nodes if isinstance(node, kinds))


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0][:60])
def test_each_fault_has_its_test(row: list[str]) -> None:
    """All four cells are filled, and the last one names tests, or says why there is none."""
    assert len(row) == 4
    assert all(row)
    proof = row[3]
    assert NAMED.search(proof) or re.match(r"not tested( here)?: \w", proof)
    for path, name in NAMED.findall(proof):
        assert name in names_in(path), f"{path}::{name}"


def test_every_other_name_exists() -> None:
    """The text around the table names tests that exist, and a script that is shipped."""
    around = re.sub(r"<!-- faults -->.*<!-- /faults -->", "", TEXT, flags=re.DOTALL)
    for path, name in NAMED.findall(around):
        assert name in names_in(path), f"{path}::{name}"
    for script in re.findall(r"deploy/drills/\w+\.py", around):
        assert (ROOT / script).exists()
