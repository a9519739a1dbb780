"""`spotd simulate` as a user runs it: a process, its output and its exit code."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner
from websockets.asyncio.client import connect

from spotd.simulator import Faults, Limits, MarketModel, Replay, Simulator
from spotd.simulator.command import serve, simulate
from spotd.simulator.knobs import meanings
from tests.kit.waiting import GUARD_S, until

RUN = [sys.executable, "-c", "from spotd.simulator.command import simulate; simulate()"]
LINE = '{"T":"q","S":"SPY","bp":1.0,"ap":2.0,"t":"2012-06-21T13:30:00Z"}\n'


@asynccontextmanager
async def running(*flags: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, dict[str, str]]]:
    """Yield the command as a process, and the settings that it printed."""
    process = await asyncio.create_subprocess_exec(
        *RUN, *flags, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    assert process.stdout
    try:
        settings: dict[str, str] = {}
        async with asyncio.timeout(GUARD_S):
            while "ALPACA_SECRET_KEY" not in settings:
                name, _, value = (await process.stdout.readline()).decode().strip().partition("=")
                assert name, "the command ended"
                settings[name] = value
        yield process, settings
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_prints_what_a_user_needs_and_stops_when_asked(number: signal.Signals) -> None:
    """Settings are on stdout, counts on stderr; sessions are closed; the exit code is 0."""
    async with running("--key", "k", "--secret", "s") as (process, settings):
        assert settings["SPOTD_FEED"] == "iex"
        assert settings["ALPACA_API_KEY"] == "k"
        assert settings["SPOTD_DATA_URL"].startswith("http://127.0.0.1:")
        async with connect(settings["SPOTD_STREAM_URL"], proxy=None) as ws:
            await ws.recv()
            await ws.send('{"action":"auth","key":"k","secret":"s"}')
            assert "authenticated" in str(await ws.recv())
            process.send_signal(number)
            await ws.wait_closed()
            assert ws.close_code == 1001
        _, errors = await process.communicate()
        assert process.returncode == 0
        assert b"0 sessions" in errors


def test_stops_after_the_given_time(tmp_path: Path) -> None:
    """The last line is the progress; malformed lines of the replay were told before."""
    path = tmp_path / "day.jsonl"
    path.write_text(LINE + "{\n")
    result = CliRunner().invoke(simulate, ["--replay", str(path), "--at-once", "--seconds", "2"])
    assert result.exit_code == 0, result.output
    assert "1 malformed line left out; first line 2" in result.stderr
    assert "rounds done 1" in result.stderr.splitlines()[-1]


async def test_shows_its_progress(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A line comes in each period, until a failure or the end."""
    path = tmp_path / "day.jsonl"
    path.write_text(LINE)
    simulator = Simulator(replay=Replay(path, await_subscriber=False))
    serving = asyncio.create_task(serve(simulator, None, progress_s=0.01))
    lines: list[str] = []

    def shown() -> bool:
        lines.extend(capsys.readouterr().err.splitlines())
        return len(lines) >= 3

    await until(shown, "three lines")
    assert all("0 sessions" in line and "replay" in line for line in lines)
    async with connect(simulator.stream_url("iex"), proxy=None):
        lines.clear()
        await until(lambda: shown() and "1 session," in lines[-1], "one session")
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--replay", "/nowhere/day.jsonl"], "does not exist"),
        (["--nonsense"], "No such option"),
        (["--mute", "--one-sided-p", "2"], "one-sided-p"),
        (["--feed-entitlements", "iex,nyse"], "unknown feeds: nyse"),
        (["--speed", "-1"], "--speed"),
        (["--host", "256.0.0.1"], "256.0.0.1|getaddrinfo|Name or service|address"),
        (["--host", "a..b"], "idna"),
    ],
)
def test_wrong_usage_is_exit_code_2(flags: list[str], words: str) -> None:
    """The output says what is wrong, without a traceback."""
    result = CliRunner().invoke(simulate, flags)
    assert result.exit_code == 2
    assert "Traceback" not in result.output
    assert any(one in result.output for one in words.split("|"))


def test_an_empty_replay_is_exit_code_2(tmp_path: Path) -> None:
    """The output names the file, and says that there is nothing to play."""
    path = tmp_path / "day.jsonl.gz"
    path.write_bytes(b"")
    result = CliRunner().invoke(simulate, ["--replay", str(path)])
    assert result.exit_code == 2
    assert f"nothing to play in {path}" in " ".join(result.output.split())


def test_a_taken_port_is_exit_code_2() -> None:
    """The output says that the address is in use."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        result = CliRunner().invoke(simulate, ["--port", port, "--seconds", "1"])
    assert result.exit_code == 2
    assert "address already in use" in result.output


def test_every_knob_is_a_flag_with_its_meaning() -> None:
    """Every field of the three classes has a flag, and the help says what it does."""
    result = CliRunner().invoke(simulate, ["--help"], terminal_width=300)
    assert result.exit_code == 0
    known = {parameter.name for parameter in simulate.params}
    for group, knobs in (("market", MarketModel), ("limits", Limits), ("faults", Faults)):
        assert f"{group.capitalize()}:" in result.output
        for knob, meaning in meanings(knobs):
            assert f"{group}_{knob.name}" in known
            assert len(meaning) > 10
    assert len(known) > 70


async def test_flags_set_the_knobs() -> None:
    """Numbers, switches and lists reach their fields."""
    flags = (
        "--no-market --mute --bad-symbols EVIL,WORSE --auth-error 409 --dead-session-hold 3 "
        "--symbols-limit 30 --no-deflate --feed-entitlements sip --auth-delay 0.01"
    )
    async with running(*flags.split()) as (_, settings):
        assert settings["SPOTD_STREAM_URL"].endswith("/v2/sip")
        async with connect(settings["SPOTD_STREAM_URL"], proxy=None) as ws:
            assert not ws.protocol.extensions
            await ws.recv()
            await ws.send('{"action":"auth","key":"demo-key","secret":"demo-secret"}')
            assert '"code":409' in str(await ws.recv())


async def test_a_failing_part_ends_the_command(tmp_path: Path) -> None:
    """The exit code is 1, and stderr has the exception, which would tell of a defect."""
    path = tmp_path / "day.jsonl"
    path.write_text(LINE)
    async with running("--replay", str(path), "--at-once", "--loop") as (process, _):
        path.unlink()
        _, errors = await process.communicate()
        assert process.returncode == 1
        assert b"FileNotFoundError" in errors
