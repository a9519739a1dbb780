"""``spotd record``: files that are whole at any moment, bounds, failures, and both ends."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
import resource
import shutil
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest

from spotd.cli.record import Recording, address_of
from spotd.cli.recording import Files, Full
from spotd.core.recording import Bounds, Lines
from spotd.core.states import StreamState
from spotd.daemon.tap import Taps
from spotd.daemon.value import Value
from spotd.errors import SpotdError
from spotd.ops.http import HttpServer
from spotd.settings import Settings
from tests.cli.conftest import Call
from tests.kit.ports import free_port
from tests.kit.processes import Command
from tests.kit.stream import stream_to
from tests.kit.waiting import until
from tests.ops.test_http import Pages

MB = 1_000_000


def quotes(*symbols: str) -> bytes:
    """Return the payload of a frame with a quote of each symbol."""
    at = msgspec.msgpack.Ext(-1, (1_768_885_920).to_bytes(4))
    return msgspec.msgpack.encode(
        [{"T": "q", "S": symbol, "bp": 1.0, "ap": 2.0, "t": at} for symbol in symbols]
    )


def read(path: Path) -> list[Any]:
    """Return the lines of a file so far."""
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return [json.loads(line) for line in data.splitlines()]


def symbols_in(lines: list[Any]) -> list[str]:
    """Return the symbols of the messages of these lines, in order."""
    return [each["S"] for line in lines if isinstance(line, list) for each in line[1:]]


class Beside:
    """A daemon's tap and HTTP server, and the commands that record from it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.port = free_port()
        self.commands: list[Command] = []
        self.taps: Taps
        self.server: HttpServer

    async def start(self, name: str = "host-1") -> None:
        """Start the server, as a daemon of this name."""
        self.taps = Taps(
            stream_to("ws://127.0.0.1:1/"),
            stream=Value(StreamState()),
            secrets=[],
            about={"instance": name, "version": "1", "feed": "iex"},
        )
        self.server = HttpServer(Pages(), self.taps)
        await self.server.start("127.0.0.1", self.port)

    async def record(self, *args: str, begun: bool = True) -> Command:
        """Start to record, and wait until it has begun."""
        home = self.home / f"record{len(self.commands)}"
        env = {"SPOTD_HTTP_PORT": str(self.port)}
        command = await Command.start("record", *args, home=home, env=env)
        self.commands.append(command)
        if begun:
            await until(lambda: "recording from" in command.stderr, "the recording to begin")
        return command

    async def send(self, *symbols: str, shown: Path) -> None:
        """Send a frame, and wait until it is in a file."""
        self.taps.frame(quotes(*symbols))
        await until(
            lambda: shown.exists() and symbols_in(read(shown))[-len(symbols) :] == list(symbols),
            f"{symbols} in {shown}",
        )


@pytest.fixture
async def beside(tmp_path: Path) -> AsyncIterator[Beside]:
    """Yield a daemon's tap."""
    made = Beside(tmp_path)
    await made.start()
    yield made
    for command in made.commands:
        await command.kill()
    await made.server.stop()


# The command


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_recording_that_is_stopped(beside: Beside, number: signal.Signals) -> None:
    """The file is whole gzip with all that came, and the exit code is 0."""
    path = beside.home / "a.jsonl.gz"
    command = await beside.record("--symbols", "spy, IBM", str(path))
    await beside.send("SPY", shown=path)
    beside.taps.frame(quotes("QQQ", "SPY"))
    beside.taps.frame(quotes("QQQ"))
    await beside.send("SPY", "SPY", shown=path)
    assert await command.stop(number) == 0
    begins, *frames, ends = read(path)
    assert (begins["recording"], begins["instance"]) == ("begins", "host-1")
    assert begins["symbols"] == ["IBM", "SPY"]
    assert symbols_in(frames) == ["SPY"] * 4
    assert (ends["recording"], ends["lost_frames"]) == ("ends", 0)
    assert "its stream is not open now" in command.stderr
    last = command.stderr.splitlines()[-1]
    assert "4 quotes, 0 trades" in last
    assert "nothing lost, nothing of IBM" in last


async def test_a_recording_whose_minutes_are_over(beside: Beside) -> None:
    """It ends by itself, with 0."""
    command = await beside.record("--minutes", "0.001", str(beside.home / "a.jsonl"), begun=False)
    assert await command.ends() == 0


async def test_a_recording_that_is_killed(beside: Beside) -> None:
    """The file can be read to its end, without what came in the last second."""
    path = beside.home / "a.jsonl.gz"
    command = await beside.record(str(path))
    await beside.send("SPY", "QQQ", shown=path)
    await command.kill()
    assert symbols_in(read(path)) == ["SPY", "QQQ"]


async def test_standard_output(beside: Beside) -> None:
    """A dash stands for plain lines on standard output, and stderr says how it goes."""
    command = await beside.record("-")
    await beside.send("SPY", shown=command.home / "stdout")
    assert await command.stop() == 0
    assert read(command.home / "stdout")[-1]["recording"] == "ends"


async def test_a_daemon_that_is_restarted(beside: Beside) -> None:
    """The recording goes on with the next daemon, and says that one was away."""
    path = beside.home / "a.jsonl"
    command = await beside.record(str(path))
    await beside.send("SPY", shown=path)
    await beside.server.stop()
    await until(lambda: "waiting until it is back" in command.stderr, "the daemon to be missed")
    await beside.start("host-2")
    await until(lambda: "recording from host-2" in command.stderr, "the next daemon")
    await beside.send("QQQ", shown=path)
    assert await command.stop() == 0
    notes = [line for line in read(path) if isinstance(line, dict)]
    assert [note.get("instance") or note.get("daemon") for note in notes[:-1]] == [
        "host-1", "away", "host-2",
    ]  # fmt: skip
    assert symbols_in(read(path)) == ["SPY", "QQQ"]


@pytest.mark.long  # quick: tests/core, the bounded queue
async def test_what_a_slow_recorder_loses_is_told(beside: Beside) -> None:
    """Frames without room are lost; the file says where and how many, and so does stderr."""
    path = beside.home / "a.jsonl"
    command = await beside.record(str(path))
    command.send(signal.SIGSTOP)
    large = quotes(*["SPY"] * 20_000)
    for _ in range(40):
        beside.taps.frame(large)
        await asyncio.sleep(0)
    command.send(signal.SIGCONT)
    await until(lambda: path.read_bytes().count(b"lost_frames"), "a note")
    await beside.send("QQQ", shown=path)
    assert await command.stop() == 0
    lost = sum(note["lost_frames"] for note in read(path) if "lost_bytes" in note)
    kept = sum(isinstance(line, list) for line in read(path))
    assert lost
    assert kept + lost == 41
    assert f"{lost} frames lost" in command.stderr.splitlines()[-1]


@pytest.mark.long  # exotic
async def test_a_full_disk_is_an_error_of_the_recorder_alone(beside: Beside) -> None:
    """It says so and ends with 1. What was written before is whole, and the daemon goes on."""
    path = beside.home / "a.jsonl.gz"
    command = await beside.record(str(path))
    await beside.send("SPY", shown=path)
    size = path.stat().st_size
    resource.prlimit(command.process.pid, resource.RLIMIT_FSIZE, (size + 10, size + 10))
    beside.taps.frame(quotes("QQQ"))
    assert await command.ends() == 1
    assert f"cannot write {path}" in command.stderr
    assert "Traceback" not in command.stderr
    assert symbols_in(read(path)) == ["SPY"]
    await beside.record(str(beside.home / "b.jsonl"))


async def test_nothing_to_record_from(beside: Beside) -> None:
    """Where no daemon answers, or it refuses, the command ends with 1 and makes no file."""
    await beside.server.stop()
    path = beside.home / "a.jsonl"
    command = await beside.record(str(path), begun=False)
    assert await command.ends() == 1
    assert f"no daemon can be recorded at http://127.0.0.1:{beside.port}" in command.stderr
    assert "(Connection refused)" in command.stderr
    assert not path.exists()
    await beside.start()
    url = f"http://localhost:{beside.port}/nothing"
    command = await beside.record("--url", url, str(path), begun=False)
    assert await command.ends() == 1
    assert f"{url}/tap answers 404" in command.stderr
    assert not path.exists()


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (
            b"Content-Length: 40\r\n\r\n" + b"<html>" * 6 + b"....",
            "no records of a spotd daemon",
        ),
        (b"Content-Length: 2\r\n\r\n{}", "ended before a recording began"),
    ],
    ids=["another_program", "an_answer_that_ends_before_it_began"],
)
async def test_what_is_no_recording(tmp_path: Path, answer: bytes, says: str) -> None:
    """It is an error. Asking again and again would say nothing."""

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n" + answer)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(behave, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        command = await Command.start("record", "--url", url, "a.jsonl", home=tmp_path, env={})
        assert await command.ends() == 1
    assert says in command.stderr


async def test_a_daemon_that_is_frozen(tmp_path: Path) -> None:
    """It takes the connection and answers nothing, which is an error and makes no file."""
    with socket.create_server(("127.0.0.1", 0)) as frozen:
        url = f"http://127.0.0.1:{frozen.getsockname()[1]}/tap"
        path = tmp_path / "a.jsonl"
        file = path, Bounds(total_bytes=MB)
        with pytest.raises(SpotdError, match=r"\(no answer in time\): does it run"):
            await Recording(url, Lines([]), file, answer_limit_s=0.01).run(None)
    assert not path.exists()


async def test_a_file_that_exists_is_not_overwritten(beside: Beside) -> None:
    """The error names the file that exists, or the folder that is missing."""
    path = beside.home / "a.jsonl"
    path.write_text("precious")
    command = await beside.record(str(path), begun=False)
    assert await command.ends() == 1
    assert "exists already" in command.stderr
    assert path.read_text() == "precious"
    command = await beside.record(str(beside.home / "none" / "a.jsonl"), begun=False)
    assert await command.ends() == 1
    assert "No such file or directory" in command.stderr


async def test_a_bound_ends_one_file(beside: Beside) -> None:
    """The recording ends with 0, below the bound, and says why."""
    path = beside.home / "a.jsonl"
    command = await beside.record("--max-mb", "0.001", str(path))
    beside.taps.frame(quotes(*["SPY"] * 100))
    assert await command.ends() == 0
    assert "has reached --max-mb" in command.stderr
    assert path.stat().st_size <= 1_000


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--symbols", "SPY,not-one", "a.jsonl"], "not a symbol: 'not-one'"),
        (["--rotate-mb", "1", "-"], "standard output does not rotate"),
        (["--minutes", "0", "a.jsonl"], "--minutes"),
        (["--url", "127.0.0.1:9810", "a.jsonl"], "--url"),
        ([], "FILE"),
    ],
)
def test_wrong_usage(spotd: Call, args: list[str], words: str) -> None:
    """The exit code is 2, and the output says what is wrong."""
    outcome = spotd("record", *args)
    assert outcome.code == 2
    assert words in outcome.err


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("127.0.0.1", "http://127.0.0.1:9810"),
        ("0.0.0.0", "http://127.0.0.1:9810"),  # noqa: S104 - nothing listens
        ("::", "http://[::1]:9810"),
        ("::1", "http://[::1]:9810"),
        ("localhost", "http://localhost:9810"),
    ],
)
def test_the_address_of_the_daemon(
    monkeypatch: pytest.MonkeyPatch, host: str, address: str
) -> None:
    """A daemon that listens on all addresses is reached over loopback."""
    monkeypatch.setenv("SPOTD_HTTP_HOST", host)
    assert address_of(Settings.load()) == address


def test_a_daemon_without_http(spotd: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the setting."""
    monkeypatch.setenv("SPOTD_HTTP_PORT", "0")
    outcome = spotd("record", "a.jsonl")
    assert outcome.code == 2
    assert "SPOTD_HTTP_PORT is 0" in outcome.err


# The files


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Let no file of this process become larger, as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_piece_that_does_not_fit_is_not_written_at_all(tmp_path: Path) -> None:
    """A part of a piece would be half a gzip member, or half a line."""
    path = tmp_path / "a.jsonl"
    files = Files(path, Bounds(total_bytes=MB))
    files.write(b'{"first":1}\n')
    files.flush()
    files.write(b'{"second":2}\n')
    with largest_file(20), pytest.raises(SpotdError, match=r"cannot write .*a\.jsonl: File too"):
        files.flush()
    files.write(b'{"third":3}\n')
    files.close()
    assert path.read_text() == '{"first":1}\n{"third":3}\n'


def test_a_large_amount_is_written_at_once(tmp_path: Path) -> None:
    """Memory is bounded, however much comes between two flushes."""
    path = tmp_path / "a.jsonl"
    files = Files(path, Bounds(total_bytes=600_000))
    line = b'"' + b"x" * 1_000 + b'"\n'
    for _ in range(600):
        files.write(line)
    assert files.written_bytes > 2 * 256 * 1024
    with pytest.raises(Full):
        files.flush()
    files.close()
    assert path.stat().st_size == files.written_bytes <= 600_000


@pytest.fixture
def names() -> Callable[[Path], list[str]]:
    """Return a function that names the files of a folder."""
    return lambda folder: sorted(path.name for path in folder.iterdir())


def test_files_that_rotate(tmp_path: Path, names: Callable[[Path], list[str]]) -> None:
    """They are named by their beginning, and files of an earlier run make room, others do not."""
    others = ["spy-notes.jsonl", "spy.jsonl", "spy-20260101T000000Z.jsonl.gz", "qqq.jsonl"]
    earlier = [f"spy-2026010{day}T000000Z.jsonl" for day in range(1, 6)]
    for name in (*others, *earlier):
        (tmp_path / name).write_bytes(b"1" * 100)
    bounds = Bounds(total_bytes=350, file_s=0.0, files=4)
    files = Files(tmp_path / "spy.jsonl", bounds)
    assert len(names(tmp_path)) == len(others) + 6
    files.write(b"2" * 99 + b"\n")
    files.close()
    [present] = set(names(tmp_path)) - {*others, *earlier}
    assert re.fullmatch(r"spy-\d{8}T\d{6}Z\.jsonl", present)
    assert names(tmp_path) == sorted([*others, *earlier[-2:], present])


async def test_a_folder_that_goes_is_an_error_of_one_line(tmp_path: Path) -> None:
    """Where no file can follow, the end of the recording says so, too."""
    folder = tmp_path / "gone"
    folder.mkdir()
    files = Files(folder / "spy.jsonl", Bounds(total_bytes=1000, file_bytes=100))
    files.write(b"1" * 99 + b"\n")
    files.flush()
    shutil.rmtree(folder)

    def follows() -> bool:
        files.write(b"2" * 99 + b"\n")
        try:
            files.flush()
        except SpotdError:
            return True
        return False

    await until(follows, "a file that cannot follow: each lasts a second")
    files.write(b"[]\n")
    with pytest.raises(SpotdError, match="cannot write"):
        files.close()


@pytest.mark.long
async def test_a_file_follows_another(beside: Beside) -> None:
    """Each of them begins at a line, and together they hold all that came."""
    command = await beside.record(
        "--rotate-minutes", "0.0001", "--files", "2", str(beside.home / "a.jsonl.gz")
    )

    def paths() -> list[Path]:
        return sorted(beside.home.glob("a-*.jsonl.gz"))

    def holding(symbol: str) -> Path | None:
        for path in paths():
            with suppress(FileNotFoundError):  # it has made room
                if symbol in symbols_in(read(path)):
                    return path
        return None

    beside.taps.frame(quotes("A"))
    first: Path = await until(lambda: holding("A"), "a file")
    beside.taps.frame(quotes("B"))
    second: Path = await until(lambda: holding("B"), "the file that follows")
    assert second > first
    beside.taps.frame(quotes("C"))
    await until(lambda: not first.exists(), "the first file to make room")
    assert await command.stop() == 0
    assert len(paths()) <= 2
    assert symbols_in([line for path in paths() for line in read(path)])[-1] == "C"
