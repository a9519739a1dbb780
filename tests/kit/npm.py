"""Scripts of Node.js that need a package of npm. They run only when asked for."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest

asked_for = pytest.mark.skipif(
    os.environ.get("TEST_SPOTD_NODE") != "1",
    reason="installs packages of npm: set TEST_SPOTD_NODE=1 to run it",
)
_INSTALL_S = 240
_RUN_S = 120
# How npm says that the registry cannot be reached.
UNREACHABLE = re.compile(r"\b(ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|E(SOCKET)?TIMEDOUT)\b")


def package(name: str) -> Path:
    """Return a folder in which a package is installed, kept between runs.

    ``name`` is that of the package with one exact version. Skip the test where there is no npm, or
    where it does not reach its registry.
    """
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("needs Node.js 20 (node, npm)")
    plain = re.sub(r"[^a-z0-9.]+", "-", name)
    kept = Path(tempfile.gettempdir()) / f"spotd-npm{plain}-{os.getuid()}"
    if not (kept / "node_modules").is_dir():
        with tempfile.TemporaryDirectory() as fresh:
            flags = ["--no-audit", "--no-fund", "--ignore-scripts", "--prefix", fresh]
            done = subprocess.run(
                ["npm", "install", *flags, name],
                capture_output=True, text=True, timeout=_INSTALL_S, check=False, cwd=fresh,
            )  # fmt: skip
            if done.returncode != 0 and UNREACHABLE.search(done.stderr):
                pytest.skip("npm does not reach its registry")
            assert done.returncode == 0, done.stderr[-2_000:]
            shutil.copytree(fresh, kept, dirs_exist_ok=True, symlinks=True)
    return kept


def node(script: Path, needs: str, told: str) -> Any:
    """Run a script that requires one package, with text on stdin. Return the JSON it prints."""
    done = subprocess.run(
        ["node", str(script)],
        input=told, capture_output=True, text=True, timeout=_RUN_S, check=False,
        env={**os.environ, "NODE_PATH": str(package(needs) / "node_modules")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2_000:]
    return json.loads(done.stdout)
