"""spotd.js and the page's modules, tested by Node; the types of spotd.js, by TypeScript."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

_JS = Path(__file__).parent / "js"
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
