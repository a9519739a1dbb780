"""Free ports are apart, also those of other runs on this machine."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.kit.ports import free_port

ROOT = Path(__file__).parents[2]
# A whole round through the ports of its worker, which is that of this process.
ROUND = "from tests.kit.ports import free_port; print(*(free_port() for _ in range(1_500)))"


def test_another_run_does_not_return_the_same_port() -> None:
    """As long as this process may use a port, although nobody listens on it yet."""
    port = free_port()
    run = subprocess.run(
        [sys.executable, "-c", ROUND], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert port not in {int(other) for other in run.stdout.split()}
