"""Writes the files of a recording. Must not know what its lines say.

Lines are gathered and written as pieces. Of a ``.gz``, each piece is a whole gzip member, so a file
can be read to its end at any moment, also after ``kill -9`` or on a full disk.
"""

from __future__ import annotations

import gzip
import os
import re
import sys
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import BinaryIO, Protocol

from spotd.core.recording import Bounds, step_before
from spotd.errors import SpotdError

_PIECE_BYTES = 256 << 10
_LEVEL = 6
_NAME_STEP = timedelta(seconds=1)


class Full(Exception):  # noqa: N818 - no error: the bound was asked for
    """The recording has reached its bound."""


class Output(Protocol):
    """Where lines go."""

    written_bytes: int

    def write(self, lines: bytes) -> None:
        """Take lines. Raise SpotdError where they cannot be written, Full at the bound."""

    def flush(self) -> None:
        """Write what was gathered. Raise like ``write``."""

    def close(self) -> None:
        """Write what was gathered, and end the file. Raise like ``write``."""


class Pipe:
    """Standard output, as plain lines. Python's own buffer is left alone."""

    def __init__(self) -> None:
        """Begin. Raise SpotdError where standard output was closed from the start."""
        if sys.stdout is None:
            raise SpotdError("cannot write the recording: standard output is closed")
        self._file: BinaryIO = open(os.dup(sys.stdout.fileno()), "wb", buffering=0)  # noqa: SIM115, PTH123 - closed by ``close``
        self.written_bytes = 0

    def write(self, lines: bytes) -> None:
        """Write lines at once."""
        try:
            _write_all(self._file, lines)
        except BrokenPipeError:
            raise  # the reader has read enough
        except OSError as error:
            raise SpotdError(f"cannot write the recording: {error.strerror}") from error
        self.written_bytes += len(lines)

    def flush(self) -> None:
        """Do nothing: nothing is held back."""

    def close(self) -> None:
        """Close it."""
        self._file.close()


class Files:
    """One file, or the newest files of a recording that goes on.

    Files that rotate are named by the second of their beginning: ``spy.jsonl.gz`` becomes
    ``spy-20260120T051200Z.jsonl.gz``. Those that an earlier run left count as well.
    """

    def __init__(self, path: Path, bounds: Bounds) -> None:
        """Begin. Raise SpotdError where the file exists, or cannot be written."""
        self._path = path
        self._bounds = bounds
        self._gathered: list[bytes] = []
        self._gathered_bytes = 0
        self._older = self._left_by_earlier_runs() if bounds.rotates else []
        self.written_bytes = 0  # over all files of this run
        self._named = datetime.min.replace(tzinfo=UTC)
        self._begin()

    def write(self, lines: bytes) -> None:
        """Gather lines, and write them once they are a piece."""
        self._gathered.append(lines)
        self._gathered_bytes += len(lines)
        if self._gathered_bytes >= _PIECE_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write what was gathered as one piece."""
        if not self._gathered:
            return
        piece = b"".join(self._gathered)
        self._gathered.clear()
        self._gathered_bytes = 0
        if self._path.suffix == ".gz":
            piece = gzip.compress(piece, _LEVEL)
        sizes = [*(size for _, size in self._older), self._size]
        step = step_before(self._bounds, sizes, len(piece), time.monotonic() - self._began_s)
        if step.ends:
            raise Full
        if step.new_file:
            former, older = self._file, (self._present, self._size)
            self._begin()
            former.close()  # not before: where no file can begin, the end of this one is written
            self._older.append(older)
        for path, _ in self._older[: step.delete]:
            path.unlink(missing_ok=True)
        del self._older[: step.delete]
        self._append(piece)

    def close(self) -> None:
        """Write what was gathered, and close the file."""
        try:
            self.flush()
        finally:
            self._file.close()

    def _begin(self) -> None:
        path = self._path
        if self._bounds.rotates:
            name, dot, rest = path.name.partition(".")
            # Each name is later than the one before, also where the clock was set back.
            self._named = max(datetime.now(UTC), self._named + _NAME_STEP)
            path = path.with_name(f"{name}-{self._named:%Y%m%dT%H%M%SZ}{dot}{rest}")
        try:
            self._file: BinaryIO = path.open("xb", buffering=0)
        except FileExistsError as error:
            raise SpotdError(f"{path} exists already: name another file") from error
        except OSError as error:
            raise SpotdError(f"cannot write {path}: {error.strerror}") from error
        self._present, self._size, self._began_s = path, 0, time.monotonic()

    def _append(self, piece: bytes) -> None:
        """Write a whole piece, or none of it."""
        try:
            _write_all(self._file, piece)
        except OSError as error:
            with suppress(OSError):
                self._file.truncate(self._size)
                self._file.seek(self._size)  # what is written next, if there is room, goes there
            raise SpotdError(
                f"cannot write {self._present}: {error.strerror}; what was written before is whole"
            ) from error
        self._size += len(piece)
        self.written_bytes += len(piece)

    def _left_by_earlier_runs(self) -> list[tuple[Path, int]]:
        name, dot, rest = self._path.name.partition(".")
        form = re.compile(rf"{re.escape(name)}-\d{{8}}T\d{{6}}Z{re.escape(dot + rest)}")
        folder = self._path.parent
        if not folder.is_dir():
            return []
        found = sorted(path for path in folder.iterdir() if form.fullmatch(path.name))
        return [(path, path.stat().st_size) for path in found]


def _write_all(file: BinaryIO, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[file.write(left) :]
