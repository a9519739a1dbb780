"""A process whose event loop hangs ends itself, whatever hung and whoever supervises it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.kit.processes import NOTHING, environment
from tests.kit.waiting import GUARD_S, until_sync

# It turns until SIGUSR1. Then it blocks, as a call does that never returns.
_LOOP = """
import asyncio, signal, time
from spotd.ops.hang import ended_when_hung
signal.signal(signal.SIGUSR1, lambda *_: time.sleep(1_000))
async def main():
    async with ended_when_hung(0.3):
        while True:
            await asyncio.sleep(0.01)
            print("turns", flush=True)
asyncio.run(main())
"""
_DAEMON = """
import signal, time
from spotd.daemon.process import run_daemon
from spotd.settings import Settings
signal.signal(signal.SIGUSR1, lambda *_: time.sleep(1_000))
raise SystemExit(run_daemon(Settings.load(), hang_limit_s=2.0))
"""


@contextmanager
def _python(
    home: Path, program: str, *, stderr: int | None = None, env: Mapping[str, str] = NOTHING
) -> Iterator[subprocess.Popen[bytes]]:
    with (home / "stdout").open("wb") as out, (home / "stderr").open("wb") as err:
        process = subprocess.Popen(
            [sys.executable, "-c", program],
            cwd=home,
            env=environment(**env),
            stdout=out,
            stderr=err if stderr is None else stderr,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _turns(home: Path) -> int:
    return len((home / "stdout").read_bytes().splitlines())


def test_a_loop_that_hangs_ends_the_process(tmp_path: Path) -> None:
    """The exit code is 1, and stderr shows where each thread was."""
    with _python(tmp_path, _LOOP) as process:
        until_sync(lambda: _turns(tmp_path), "a turn")
        process.send_signal(signal.SIGUSR1)
        assert process.wait(GUARD_S) == 1
    said = (tmp_path / "stderr").read_text()
    assert "the event loop hung" in said
    assert "most recent call first" in said


def _full_pipe() -> tuple[int, int]:
    """Return both ends of a pipe that takes nothing more; a write waits."""
    read, write = os.pipe()
    os.set_blocking(write, False)
    with suppress(BlockingIOError):
        while True:
            os.write(write, bytes(4_096))
    os.set_blocking(write, True)
    return read, write


def test_a_loop_that_hangs_ends_the_process_where_nobody_reads_stderr(tmp_path: Path) -> None:
    """A pipe that is full holds up the last words, but not the end."""
    unread, full = _full_pipe()
    try:
        with _python(tmp_path, _LOOP, stderr=full) as process:
            until_sync(lambda: _turns(tmp_path), "a turn")
            process.send_signal(signal.SIGUSR1)
            assert process.wait(GUARD_S) == 1
    finally:
        os.close(unread)
        os.close(full)


def test_a_pipe_with_room_for_a_part_of_the_stacks_does_not_hold_up_the_end(tmp_path: Path) -> None:
    """The stacks that do not fit are left out, and the process ends."""
    read, nearly_full = _full_pipe()
    os.read(read, 4_096)
    name = "deep" * 20
    deep = f"def {name}(n): time.sleep(1_000) if n == 0 else {name}(n - 1)\n"
    loop = deep + _LOOP.replace("time.sleep(1_000)", f"{name}(200)")
    try:
        with _python(tmp_path, loop, stderr=nearly_full) as process:
            until_sync(lambda: _turns(tmp_path), "a turn")
            process.send_signal(signal.SIGUSR1)
            assert process.wait(GUARD_S) == 1
    finally:
        os.close(read)
        os.close(nearly_full)


def test_a_process_that_was_stopped_goes_on(tmp_path: Path) -> None:
    """Time in which the process did not run is no hang, also if it is longer than the limit."""
    with _python(tmp_path, _LOOP) as process:
        until_sync(lambda: _turns(tmp_path), "a turn")
        process.send_signal(signal.SIGSTOP)
        stopped_at = time.monotonic()
        until_sync(lambda: time.monotonic() > stopped_at + 1.0, "more than the limit")
        process.send_signal(signal.SIGCONT)
        turns = _turns(tmp_path)
        until_sync(lambda: _turns(tmp_path) > turns + 50, "more turns")
        assert process.poll() is None


@pytest.mark.long  # the daemon's own pulses are half a second apart
def test_a_daemon_that_hangs_ends(tmp_path: Path) -> None:
    """Docker restarts it then, and a standby takes over, as after any other death."""
    settings = {
        "ALPACA_API_KEY": "key",
        "ALPACA_SECRET_KEY": "secret",
        "SPOTD_REDIS_URL": "redis://127.0.0.1:1/0",
        "SPOTD_STREAM_URL": "ws://127.0.0.1:1/v2/iex",
        "SPOTD_DATA_URL": "http://127.0.0.1:1",
        "SPOTD_HTTP_PORT": "0",
        "SPOTD_LOG_FORMAT": "json",
    }
    with _python(tmp_path, _DAEMON, env=settings) as process:
        stderr = tmp_path / "stderr"
        until_sync(lambda: "starting" in stderr.read_text(), "its first line")
        process.send_signal(signal.SIGUSR1)
        assert process.wait(GUARD_S) == 1
        assert "the event loop hung" in stderr.read_text()
