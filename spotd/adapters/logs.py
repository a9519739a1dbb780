"""Talks to stderr: structlog, readable on a terminal, one JSON object a line otherwise.

A known secret, and any password in a URL, is cut out of every line that is written, also out of
tracebacks and of what libraries log.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Iterable
from typing import Literal, TextIO
from urllib.parse import quote

import structlog
from structlog.typing import EventDict, Processor

REDACTED = "***"
_MIN_SECRET_CHARS = 4  # shorter ones would cut holes into ordinary words


# Passwords that nobody told us of: in a URL's authority, or in its query. Every part is bounded,
# and none can be begun anew at each character: a long line costs its length, no more.
_IN_AUTHORITY = re.compile(r"""(://[^\s/@:"']{0,256}:)[^\s/"']{1,512}(@)""")
_IN_QUERY = re.compile(
    r"""([?&](?:\w{1,40}_)?(?:password|secret|token|key)=)[^&\s"']+""", re.IGNORECASE
)
_MAX_LINE_CHARS = 16_384
_TAIL_CHARS = 4_096  # of these: a JSON line tells its event and level at its end
_MAX_URL_PART = 800  # what may be left of a password in a URL whose end was cut off


class _Redacting:
    """A stream that writes lines without the secrets, and without the middle of very long ones."""

    def __init__(self, stream: TextIO, secrets: Iterable[str], *, as_json: bool = False) -> None:
        self._stream = stream
        self._as_json = as_json
        spellings = {
            spelling
            for secret in secrets
            if len(secret) >= _MIN_SECRET_CHARS
            for spelling in _spellings(secret)
        }
        longest_first = sorted(spellings, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, longest_first))) if spellings else None
        self._half_a_secret = max([_MAX_URL_PART, *map(len, longest_first)])

    def write(self, text: str) -> int:
        """Write the text without the secrets."""
        if len(text) <= _MAX_LINE_CHARS:
            return self._stream.write(self._redacted(text))
        # What the cut left of a secret is no longer known as one, so it goes as well.
        head = self._redacted(text[: _MAX_LINE_CHARS - _TAIL_CHARS])[: -self._half_a_secret]
        tail = self._redacted(text[-_TAIL_CHARS:])[self._half_a_secret :].rstrip()
        text = f"{head} […] {tail}"
        if self._as_json:
            line = {"event": "a line that was too long", "level": "warning", "line": text}
            text = json.dumps(line)
        return self._stream.write(f"{text}\n")

    def _redacted(self, text: str) -> str:
        if self._known is not None:
            text = self._known.sub(REDACTED, text)
        if "://" in text:
            text = _IN_AUTHORITY.sub(rf"\1{REDACTED}\2", text)
        if "=" in text:
            text = _IN_QUERY.sub(rf"\1{REDACTED}", text)
        return text

    def flush(self) -> None:
        """Flush the stream behind."""
        self._stream.flush()


def _spellings(secret: str) -> set[str]:
    """A secret as it is, and as JSON, repr and URLs write it, also one within the other."""
    found = {secret, quote(secret, safe="")}
    for _ in range(2):
        found |= {
            escaped
            for text in found
            for escaped in (
                json.dumps(text)[1:-1],
                json.dumps(text, ensure_ascii=False)[1:-1],
                repr(text)[1:-1],
            )
        }
    return found


def configure(
    level: str,
    form: Literal["auto", "json", "console"],
    *,
    secrets: Iterable[str] = (),
    stream: TextIO | None = None,
) -> None:
    """Set logging up for this process, ours and that of libraries."""
    target = sys.stderr if stream is None else stream
    console = form == "console" or (form == "auto" and target.isatty())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: Processor
    if console:
        renderer = structlog.dev.ConsoleRenderer(
            colors=target.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
        tail: list[Processor] = [renderer]
    else:
        tail = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    redacting = _Redacting(target, secrets, as_json=not console)
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
    # Libraries speak up only when something is wrong.
    root.setLevel(max(logging.WARNING, logging.getLevelName(level.upper())))
    logging.getLogger("spotd").setLevel(level.upper())


def _name_library(_: object, __: str, event: EventDict) -> EventDict:
    """Say which library a foreign line comes from."""
    event["library"] = event["_record"].name
    return event
