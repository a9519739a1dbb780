"""spotd.js and the page's modules, tested by Node; the types of spotd.js, by TypeScript."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import msgspec
import pytest

from spotd.models import DaemonStatus, Gap, SpotPriceUpdate, SymbolState

_JS = Path(__file__).parent / "js"
_TYPES = Path(__file__).parents[2] / "spotd/relay/static/spotd.d.ts"
_GUARD_S = 110.0


def _run(*command: str) -> None:
    done = subprocess.run(
        command, cwd=_JS, capture_output=True, text=True, timeout=_GUARD_S, check=False
    )
    assert done.returncode == 0, done.stdout[-6_000:] + done.stderr[-2_000:]


@pytest.mark.skipif(shutil.which("node") is None, reason="needs Node.js 20 (node)")
def test_javascript() -> None:
    """Every rule of tests/relay/js holds."""
    _run("node", "--test", *sorted(path.name for path in _JS.glob("*.test.mjs")))


@pytest.mark.skipif(shutil.which("tsc") is None, reason="needs TypeScript (npm i -g typescript)")
def test_types() -> None:
    """The types allow what programs write, and refuse what is wrong."""
    options = "--noEmit --strict --exactOptionalPropertyTypes --target es2022 --module nodenext"
    _run("tsc", *options.split(), "--lib", "es2022,dom,dom.iterable", "--types", "", "types.ts")


@pytest.mark.parametrize("model", [SpotPriceUpdate, SymbolState, DaemonStatus, Gap])
def test_types_have_every_field(model: type[msgspec.Struct]) -> None:
    """A message of the daemon has the same fields in TypeScript."""
    interface = rf"^export interface {model.__name__} \{{$(.*?)^\}}$"
    found = re.search(interface, _TYPES.read_text(), re.DOTALL | re.MULTILINE)
    assert found is not None
    declared = set(re.findall(r"^  readonly (\w+)\??:", found[1], re.MULTILINE))
    fields = {field.encode_name for field in msgspec.structs.fields(model)}
    assert declared - {"type"} == fields
