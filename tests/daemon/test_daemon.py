"""What a process is prepared for before the daemon in it runs."""

from __future__ import annotations

import os
import subprocess
import sys

_PROGRAM = """
import gc
from spotd.daemon.daemon import Daemon, run_daemon
from spotd.settings import Settings

async def run(self):
    younger = sum(len(gc.get_objects(generation)) for generation in (0, 1, 2))
    print(gc.isenabled(), gc.get_freeze_count() > 10 * younger)
    return 0

Daemon.run = run
raise SystemExit(run_daemon(Settings(_env_file=None)))
"""


def test_what_was_imported_is_never_searched_for_garbage() -> None:
    """That takes tens of milliseconds; what arises later is collected as ever."""
    env = os.environ | {"ALPACA_API_KEY": "key", "ALPACA_SECRET_KEY": "secret"}
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM],
        check=False,
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["True", "True"]
