"""``spotd record``: what comes from Alpaca, taken beside the running daemon.

Talks to the daemon's HTTP server and to files. Needs neither Redis nor Alpaca's keys.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import os
import sys
import time
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from pathlib import Path

import aiohttp
import click

from spotd.cli.options import POSITIVE, listed, load_settings, symbols_meant, until_stopped
from spotd.cli.recording import Files, Full, Output, Pipe
from spotd.cli.text import printable
from spotd.core.recording import Bounds, Lines
from spotd.core.tap import Kind, Record, RecordReader
from spotd.errors import SettingsError, SpotdError
from spotd.settings import Settings

_FLUSH_S = 1.0
_RETRY_S = 1.0
_PROGRESS_S = 5.0  # on a terminal
_QUIET_PROGRESS_S = 60.0  # in a log
_MB = 1_000_000
_NAMES = {"q": "quotes", "t": "trades", "s": "statuses", "c": "corrections", "x": "cancels"}


@click.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--symbols", metavar="SPY,QQQ", help="Only these symbols.")
@click.option("--minutes", type=POSITIVE, help="End after this many minutes.")
@click.option(
    "--rotate-mb",
    type=POSITIVE,
    help="Begin a new file before one is larger than this.",
)
@click.option(
    "--rotate-minutes",
    type=POSITIVE,
    help="Begin a new file after this many minutes.",
)
@click.option(
    "--files",
    type=click.IntRange(1),
    default=24,
    show_default=True,
    help="Of files that rotate, keep this many: the newest.",
)
@click.option(
    "--max-mb",
    type=POSITIVE,
    default=1000.0,
    show_default=True,
    help="The bound of all files together. One file ends there; of several, the oldest is deleted.",
)
@click.option("--url", help="The daemon's HTTP address, if the settings here are not the daemon's.")
def record(
    file: Path,
    symbols: str | None,
    minutes: float | None,
    rotate_mb: float | None,
    rotate_minutes: float | None,
    files: int,
    max_mb: float,
    url: str | None,
) -> None:
    """Record what comes from Alpaca into FILE, until stopped.

    The daemon on this machine goes on undisturbed. Lines are Alpaca's messages as JSON, which
    `spotd simulate --replay FILE` plays. A name that ends in .gz is compressed, and - is standard
    output. The command demands no symbol: it records what is streamed.
    """
    wanted = symbols_meant(listed([symbols])) if symbols else []
    bounds = Bounds(
        total_bytes=int(max_mb * _MB),
        file_bytes=None if rotate_mb is None else int(rotate_mb * _MB),
        file_s=None if rotate_minutes is None else 60 * rotate_minutes,
        files=files,
    )
    if url is not None and not url.startswith(("http://", "https://")):
        raise click.BadParameter("it has to begin with http://", param_hint="'--url'")
    piped = str(file) == "-"
    if piped and bounds.rotates:
        raise click.UsageError("standard output does not rotate")
    tap = f"{address_of(load_settings()) if url is None else url.rstrip('/')}/tap"
    recording = Recording(tap, Lines(wanted), None if piped else (file, bounds))
    until_stopped(lambda: recording.run(None if minutes is None else 60 * minutes))


def address_of(settings: Settings) -> str:
    """Return the address of the daemon's HTTP server. Raise SettingsError where it has none."""
    host, port = settings.http_host, settings.http_port
    if not port:
        raise SettingsError("SPOTD_HTTP_PORT is 0: a daemon without HTTP cannot be recorded")
    with suppress(ValueError):
        ip = ipaddress.ip_address(host)
        if ip.is_unspecified:
            host = "127.0.0.1" if ip.version == 4 else "::1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _in_words(error: Exception) -> str:
    """Return the system's words for a connection that was refused, else those of the error."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    number = error.errno if isinstance(error, aiohttp.ClientConnectorError) else None
    if number is not None and number > 0:  # those of the resolver are below
        return os.strerror(number)
    return str(error) or type(error).__name__


class _AwayError(SpotdError):
    """No daemon answers, or none that can be recorded."""


class Recording:
    """One run of the command. ``file``: its path and bounds; None: standard output.

    A daemon that begins no answer for ``answer_limit_s`` is away.
    """

    def __init__(
        self,
        tap: str,
        lines: Lines,
        file: tuple[Path, Bounds] | None,
        *,
        answer_limit_s: float = 10.0,
    ) -> None:
        self._tap = tap
        self._lines = lines
        self._file = file
        self._answer_limit_s = answer_limit_s
        self._output: Output | None = None
        self._is_away = False

    async def run(self, seconds: float | None) -> None:
        """Record until cancelled, until a time is over, or until the bound. Say how it went."""
        tick = asyncio.create_task(self._tick(), name="record: flush")
        read = asyncio.create_task(self._read(), name="record: read")
        try:
            done, _ = await asyncio.wait(
                {tick, read}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED
            )
            for task in done:
                task.result()
        except Full:
            say("the recording has reached --max-mb and ends")
        finally:
            for task in (tick, read):
                task.cancel()
            await asyncio.gather(tick, read, return_exceptions=True)
            self._end()

    def _end(self) -> None:
        """End the file, and say what is in it."""
        if self._output is None:
            return
        lost = self._lines.lost_frames
        with suppress(Full):
            self._write(self._lines.note(time.time_ns(), recording="ends", lost_frames=lost))
            self._output.close()
        say(self._progress())

    async def _read(self) -> None:
        """Read from the daemon. When it goes away, wait until it is back."""
        while True:
            why = "the daemon has ended"
            reader = RecordReader()
            try:
                async with aclosing(self._received()) as received:
                    async for data in received:
                        self._take(reader, data)
            except _AwayError as error:
                if self._output is None:
                    raise
                why = str(error)
            if self._output is None:
                raise _AwayError(f"{self._tap} ended before a recording began: is it spotd's?")
            if not self._is_away:
                self._is_away = True
                self._write(self._lines.note(time.time_ns(), daemon="away", why=why))
                say(f"{why}; waiting until it is back")
            await asyncio.sleep(_RETRY_S)

    async def _received(self) -> AsyncGenerator[bytes, None]:
        """Yield what the daemon sends, until it ends. Raise _AwayError."""
        # A name other than localhost is refused, whatever it leads to.
        headers = {"Host": "localhost"}
        try:
            async with (
                asyncio.timeout(self._answer_limit_s) as limit,
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None)) as http,
                http.get(self._tap, headers=headers, allow_redirects=False) as answer,
            ):
                if answer.status != 200:
                    said = (await answer.content.read(200)).decode("utf-8", "replace").strip()
                    raise _AwayError(f"{self._tap} answers {answer.status}: {printable(said)}")
                limit.reschedule(None)  # a quiet stream is no failure
                async for data in answer.content.iter_any():
                    yield data
        except (aiohttp.ClientError, OSError, ValueError) as error:
            why = printable(_in_words(error))
            raise _AwayError(
                f"no daemon can be recorded at {self._tap} ({why}): does it run on this machine, "
                "with this SPOTD_HTTP_PORT?"
            ) from error

    def _take(self, reader: RecordReader, data: bytes) -> None:
        try:
            records = reader.feed(data)
        except ValueError as error:
            raise _AwayError(f"{self._tap}: {error}") from error
        for record in records:
            if record.kind is Kind.NOTE:
                self._heard(record)
            self._write(self._lines.of(record))

    def _heard(self, record: Record) -> None:
        """Take in a note. The first one begins the file: a daemon has answered."""
        note = json.loads(record.payload)
        if note.get("recording") != "begins":
            return
        if self._output is None:
            self._output = Pipe() if self._file is None else Files(*self._file)
        self._is_away = False
        say(f"recording from {printable(note['instance'])}; Ctrl-C ends it")
        if note["stream"] != "open":
            say("its stream is not open now: nothing comes until it is")

    def _write(self, lines: bytes) -> None:
        if self._output is not None and lines:
            self._output.write(lines)

    async def _tick(self) -> None:
        """Write what was gathered, every second, and say how it goes."""
        every_s = _PROGRESS_S if sys.stderr.isatty() else _QUIET_PROGRESS_S
        said_s = time.monotonic()
        while True:
            await asyncio.sleep(_FLUSH_S)
            if self._output is None:
                continue
            self._output.flush()
            if time.monotonic() - said_s >= every_s:
                said_s = time.monotonic()
                say(self._progress())

    def _progress(self) -> str:
        """Return what was recorded so far, in one line."""
        kinds = Counter({_NAMES.get(kind, "other"): 0 for kind in "qt"})
        for kind, number in self._lines.kinds.items():
            kinds[_NAMES.get(kind, "other")] += number
        parts = [time.strftime("%H:%M:%S"), *(f"{n:,} {name}" for name, n in kinds.items())]
        if self._output is not None:
            parts.append(f"{self._output.written_bytes / _MB:,.2f} MB")
        lost = self._lines.lost_frames
        parts.append(f"{lost:,} frames lost" if lost else "nothing lost")
        missing = sorted(self._lines.symbols - self._lines.seen)
        if missing:
            more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
            parts.append(f"nothing of {' '.join(missing[:5])}{more}")
        return ", ".join(parts)


def say(text: str) -> None:
    """Tell the operator. Standard output may be the recording."""
    click.echo(text, err=True)
