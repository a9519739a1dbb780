"""Talks to stderr: structlog, readable on a terminal, one JSON object a line otherwise.

Known secrets, and every password in a URL, are cut out of each line, of tracebacks and of the
lines of libraries too. A reader that stalls costs lines; it must never hold up the event loop.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import select
import sys
import threading
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from typing import Literal, Protocol, TextIO

import structlog
from structlog.typing import EventDict, Processor

from spotd.redaction import Redactor

_MAX_WAITING = 2_000  # lines
THREAD = "log"  # the name of the threads that write
AT_EXIT_S = 0.5  # for lines that are not written yet
_MAX_LINE_CHARS = 16_384
_TAIL_CHARS = 4_096  # of these, at the end, where a JSON line has its event and level
_MAX_URL_PART = 800  # the part of a password that may be left where a URL was cut


_writers: list[BackgroundWriter] = []


class _Sink(Protocol):
    """A stream that lines are written to."""

    def write(self, text: str, /) -> int:
        """Write the text. Return its length."""

    def flush(self) -> None:
        """Write what is held back."""


class BackgroundWriter:
    """Writes to a file descriptor from a thread, so that a stalled reader delays no caller.

    Lines that do not fit into the queue are counted; the count is logged when there is room again.
    The thread does not write through ``sys.stderr``: while it hung there it would hold the lock
    of that object, which the interpreter takes when it ends.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._waiting: deque[bytes] = deque()
        self._dropped = 0
        self._change = threading.Condition()
        self._writing = False
        threading.Thread(target=self._run, name=THREAD, daemon=True).start()
        _writers.append(self)
        atexit.register(self.drain, AT_EXIT_S)

    def write(self, text: str) -> int:
        """Queue the text. Return its length."""
        with self._change:
            if len(self._waiting) < _MAX_WAITING:
                self._waiting.append(text.encode("utf-8", "backslashreplace"))
                self._change.notify_all()
            else:
                self._dropped += 1
        return len(text)

    def flush(self) -> None:
        """Do nothing: the caller must not wait for the reader."""

    def drain(self, limit_s: float) -> bool:
        """Wait until all is written, at most ``limit_s`` seconds. Return whether it is."""
        with self._change:
            return self._change.wait_for(
                lambda: not self._waiting and not self._writing, timeout=limit_s
            )

    def _run(self) -> None:
        while True:
            with self._change:
                self._writing = False
                self._change.notify_all()
                self._change.wait_for(lambda: self._waiting)
                self._writing = True
                lines = [self._waiting.popleft()]
                if self._dropped and not self._waiting:
                    lines.append(self._loss())
            for line in lines:
                self._put(line)

    def _loss(self) -> bytes:
        dropped, self._dropped = self._dropped, 0
        facts = {"event": "log lines lost: nobody read them", "level": "warning", "lost": dropped}
        return json.dumps(facts).encode() + b"\n"

    def _put(self, line: bytes) -> None:
        while line:
            try:
                line = line[os.write(self._fd, line) :]
            except BlockingIOError:  # another process that shares it made it non-blocking
                with suppress(OSError, ValueError):
                    select.select([], [self._fd], [], 1.0)
            except OSError:  # the reader is gone
                return


class _Nowhere:
    """The sink of a process whose stderr was closed before it began."""

    def write(self, text: str) -> int:
        """Discard the text. Return its length."""
        return len(text)

    def flush(self) -> None:
        """Do nothing."""


class _Redacting:
    """A stream that writes lines without the secrets, and without the middle of very long ones."""

    def __init__(self, stream: _Sink, secrets: Iterable[str], *, as_json: bool = False) -> None:
        self._stream = stream
        self._as_json = as_json
        self._redacted = Redactor(secrets)
        self._half_a_secret = max(_MAX_URL_PART, self._redacted.longest_chars)

    def write(self, text: str) -> int:
        """Write the text without the secrets. Return the length of what is written."""
        if len(text) <= _MAX_LINE_CHARS:
            return self._stream.write(self._redacted(text))
        # On either side of the cut a part of a secret may be left, which the search does not find.
        # As a consequence, as many characters as the longest secret has are cut there as well.
        head = self._redacted(text[: _MAX_LINE_CHARS - _TAIL_CHARS])[: -self._half_a_secret]
        tail = self._redacted(text[-_TAIL_CHARS:])[self._half_a_secret :].rstrip()
        text = f"{head} […] {tail}"
        if self._as_json:
            line = {"event": "a line that was too long", "level": "warning", "line": text}
            text = json.dumps(line)
        return self._stream.write(f"{text}\n")

    def flush(self) -> None:
        """Flush the stream behind."""
        self._stream.flush()


def drain() -> None:
    """Wait until all lines are written, for a short while at most. For a process that ends now."""
    for writer in _writers:
        writer.drain(AT_EXIT_S)


def configure(
    level: str,
    form: Literal["auto", "json", "console"],
    *,
    secrets: Iterable[str] = (),
    stream: TextIO | None = None,
) -> None:
    """Set up logging for this process, for spotd and for libraries.

    Lines go to ``stream`` at once. Without a stream they go to stderr from a thread, since the
    reader of stderr may stall.
    """
    target: TextIO | None = sys.stderr if stream is None else stream
    terminal = target is not None and target.isatty()
    console = form == "console" or (form == "auto" and terminal)
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: Processor
    if console:
        renderer = structlog.dev.ConsoleRenderer(
            colors=terminal, exception_formatter=structlog.dev.plain_traceback
        )
        tail: list[Processor] = [renderer]
    else:
        tail = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    redacting = _Redacting(_sink(stream), secrets, as_json=not console)
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level.upper())),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(redacting)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, _name_library],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *tail],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    # Of libraries, only warnings and errors are of interest.
    root.setLevel(max(logging.WARNING, logging.getLevelName(level.upper())))
    logging.getLogger("spotd").setLevel(level.upper())


def _sink(stream: TextIO | None) -> _Sink:
    if stream is not None:
        return stream
    if sys.stderr is None:
        return _Nowhere()
    try:
        return BackgroundWriter(sys.stderr.fileno())
    except (OSError, ValueError, RuntimeError):  # it has no descriptor, or no thread starts
        return sys.stderr


def _name_library(_: object, __: str, event: EventDict) -> EventDict:
    """Return a library's line with the name of the library."""
    event["library"] = event["_record"].name
    return event
