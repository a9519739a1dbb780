"""Logs what aiohttp says of a server: defects whole, requests that are not HTTP in one line.

aiohttp logs each such request, and each body that is not encoded as it says, with a traceback and
with its text. So anybody could fill the log, and a token in an address would be written.

Must not decide what is answered.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

_LINE_EVERY_S = 60.0


class NotHttp(logging.Filter):
    """Makes one line, at most once a minute, of requests that are not HTTP.

    ``clock`` returns monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._told_at = float("-inf")
        self._untold = 0

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the line is to be written."""
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, web.RequestPayloadError):
            return False  # the request has its answer, which metrics count
        if not isinstance(error, HttpProcessingError):
            return True
        now = self._clock()
        if now - self._told_at < _LINE_EVERY_S:
            self._untold += 1
            return False
        client = record.args[0] if isinstance(record.args, tuple) and record.args else "?"
        record.levelno, record.levelname = logging.WARNING, "WARNING"
        record.msg = "a request from %s is not HTTP (%s); %d others since the last such line"
        record.args = (client, type(error).__name__, self._untold)
        record.exc_info = record.exc_text = None
        self._told_at, self._untold = now, 0
        return True


def http_logger(name: str) -> logging.Logger:
    """Return a logger for aiohttp's server."""
    logger = logging.getLogger(name)
    if not any(isinstance(one, NotHttp) for one in logger.filters):
        logger.addFilter(NotHttp())
    return logger
