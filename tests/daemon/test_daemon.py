"""The process around a daemon, and what is left of one that has stopped."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.daemon.rig import NewRig
from tests.kit.waiting import GUARD_S, until

# The daemon holds the main thread. Another thread waits until it handles signals and stops it.
_PROGRAM = f"""
import atexit, gc, os, signal, sys, threading, time
from spotd.daemon.process import run_daemon
from spotd.settings import Settings

def look():
    end = time.monotonic() + {GUARD_S}
    while signal.getsignal(signal.SIGTERM) is signal.SIG_DFL and time.monotonic() < end:
        time.sleep(0.01)
    print(gc.isenabled(), gc.get_freeze_count() > 10 * len(gc.get_objects()), flush=True)
    os.kill(os.getpid(), signal.SIGTERM)

threading.Thread(target=look).start()
if "busy" in sys.argv:
    threading.Thread(target=time.sleep, args=({GUARD_S},), daemon=True).start()
atexit.register(print, "the interpreter ended")
raise SystemExit(run_daemon(Settings(_env_file=None)))
"""


def run_program(*args: str) -> subprocess.CompletedProcess[str]:
    """Run a daemon in a process of its own until it is stopped."""
    env = os.environ | {
        "ALPACA_API_KEY": "key",
        "ALPACA_SECRET_KEY": "secret",
        "SPOTD_HTTP_PORT": "0",
        "SPOTD_REDIS_URL": "redis://127.0.0.1:1/0",  # nobody listens there
    }
    return subprocess.run(
        [sys.executable, "-c", _PROGRAM, *args],
        check=False,
        env=env,
        capture_output=True,
        text=True,
        timeout=2 * GUARD_S,
    )


def test_what_was_imported_is_never_searched_for_garbage() -> None:
    """Such a search takes tens of milliseconds. What arises later is collected as usual."""
    done = run_program()

    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[:2] == ["True", "True"]


def test_a_busy_thread_is_left_as_it_is() -> None:
    """The interpreter does not end under a thread, which may abort the process; no line is lost."""
    done = run_program("busy")

    assert done.returncode == 0, done.stderr
    assert "the interpreter ended" not in done.stdout
    assert '"stopped"' in done.stderr


async def test_a_daemon_that_has_stopped_holds_nothing(rig: NewRig) -> None:
    """Its key is free and its session is closed with a close frame, so another starts at once."""
    async with rig() as first:
        await first.want("SPY")
        assert await first.stop() == 0
        assert await first.values.token() is None
        [closed] = await until(lambda: first.sim.received.of("close"), "the end of the session")
        assert closed.data == 1000
    async with rig() as second:
        await until(lambda: second.active == {"SPY"}, "the second daemon's session")
