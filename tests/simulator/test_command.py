"""`simulate` as a user runs it: a process, its output and its exit code."""

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

from spotd.simulator import Faults, Limits, MarketModel, Simulator
from spotd.simulator import command as command_module
from spotd.simulator.command import simulate
from spotd.simulator.knobs import meanings

RUN = [sys.executable, "-c", "from spotd.simulator.command import simulate; simulate()"]
LINE = '{"T":"q","S":"SPY","bp":1.0,"ap":2.0,"t":"2012-06-21T13:30:00Z"}\n'


@asynccontextmanager
async def running(*flags: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, dict[str, str]]]:
    """The command as a process, and the settings it printed."""
    process = await asyncio.create_subprocess_exec(
        *RUN, *flags, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    assert process.stdout
    try:
        settings: dict[str, str] = {}
        async with asyncio.timeout(30):
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
    """The settings for spotd on stdout, the count on stderr, sessions closed, exit code 0."""
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


def test_stops_after_the_given_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a line of progress, and a word about malformed lines."""
    monkeypatch.setattr(command_module, "_PROGRESS_S", 0.05)
    path = tmp_path / "day.jsonl"
    path.write_text(LINE + "{\n")
    result = CliRunner().invoke(simulate, ["--replay", str(path), "--at-once", "--seconds", "0.3"])
    assert result.exit_code == 0, result.output
    assert "1 malformed lines left out, first line 2" in result.stderr
    assert "replay" in result.stderr


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--replay", "/nowhere/day.jsonl"], "does not exist"),
        (["--nonsense"], "No such option"),
        (["--mute", "--one-sided-p", "2"], "one-sided-p"),
        (["--feed-entitlements", "iex,nyse"], "unknown feeds: nyse"),
        (["--speed", "-1"], "--speed"),
        (["--host", "256.0.0.1"], "256.0.0.1|getaddrinfo|Name or service|address"),
    ],
)
def test_wrong_usage_is_exit_code_2(flags: list[str], words: str) -> None:
    """With a sentence that says what is wrong, and no traceback."""
    result = CliRunner().invoke(simulate, flags)
    assert result.exit_code == 2
    assert "Traceback" not in result.output
    assert any(one in result.output for one in words.split("|"))


def test_a_taken_port_is_exit_code_2() -> None:
    """Said in a sentence."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        result = CliRunner().invoke(simulate, ["--port", port, "--seconds", "1"])
    assert result.exit_code == 2
    assert "address already in use" in result.output


def test_every_knob_is_a_flag_with_its_meaning() -> None:
    """Every field of the three classes has a flag, and help says what it does."""
    result = CliRunner().invoke(simulate, ["--help"], terminal_width=300)
    assert result.exit_code == 0
    known = {parameter.name for parameter in simulate.params}
    for group, knobs in (("market", MarketModel), ("limits", Limits), ("faults", Faults)):
        assert f"{group.capitalize()}:" in result.output
        for knob, meaning in meanings(knobs):
            assert f"{group}_{knob.name}" in known
            assert len(meaning) > 10
    assert len(known) > 80


async def test_flags_turn_the_knobs() -> None:
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


def test_a_failing_part_is_not_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A defect ends the command with its own exception."""
    path = tmp_path / "day.jsonl"
    path.write_text(LINE)

    def fail(*_args: object) -> None:
        raise ArithmeticError("a defect")

    monkeypatch.setattr(Simulator, "play", fail)
    result = CliRunner().invoke(simulate, ["--replay", str(path), "--at-once"])
    assert isinstance(result.exception, ArithmeticError)
