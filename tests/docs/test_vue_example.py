"""The Vue front end of docs/examples/vue: its types, its tests and its build, with npm's packages.

It takes a minute and a package registry, so it runs only when asked for.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.kit.npm import UNREACHABLE, asked_for

CHECKOUT = Path(__file__).parents[2]
EXAMPLE = Path("docs/examples/vue")
SPOTD_JS = Path("spotd/relay/static")
MADE = shutil.ignore_patterns("node_modules", "dist")
EXACT = re.compile(r"\d+\.\d+\.\d+")


def test_versions_are_pinned() -> None:
    """Each package has one exact version, and no lock file names a registry's host."""
    package = json.loads((CHECKOUT / EXAMPLE / "package.json").read_text())

    versions = package["dependencies"] | package["devDependencies"]
    loose = [name for name, version in versions.items() if not EXACT.fullmatch(version)]
    assert loose == []
    assert not (CHECKOUT / EXAMPLE / "package-lock.json").exists()


@asked_for
@pytest.mark.skipif(shutil.which("npm") is None, reason="needs Node.js 20.19 or newer (node, npm)")
@pytest.mark.timeout(900)
def test_example_holds(tmp_path: Path) -> None:
    """Its types fit spotd.d.ts, its tests pass, and its build takes spotd.js from the relay."""
    for folder in (EXAMPLE, SPOTD_JS):
        shutil.copytree(CHECKOUT / folder, tmp_path / folder, ignore=MADE)
    copy = tmp_path / EXAMPLE
    installed = _run(copy, "npm", "install", "--no-audit", "--no-fund")
    if installed.returncode != 0 and UNREACHABLE.search(installed.stderr):
        pytest.skip("npm does not reach its registry")
    _succeeded(installed)

    _succeeded(_run(copy, "npm", "run", "check"))
    _succeeded(_run(copy, "npm", "test"))
    _succeeded(_run(copy, "npm", "run", "build"))

    built = "".join(file.read_text() for file in copy.glob("dist/assets/*.js"))
    assert re.findall(r"""from\s*["']([^"']+)["']""", built) == ["/spotd.js"]


def _run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=600, check=False
    )


def _succeeded(done: subprocess.CompletedProcess[str]) -> None:
    said = f"{done.args}\n{done.stdout[-6_000:]}{done.stderr[-2_000:]}"
    assert done.returncode == 0, said
