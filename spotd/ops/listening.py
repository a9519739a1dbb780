"""What spotd's HTTP servers do alike while they listen. Must not decide how many may connect."""

from __future__ import annotations

import asyncio
import errno
import logging
import time
from typing import Any

_NO_RESOURCES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_COMPLAIN_EVERY_S = 60.0


class Refused(asyncio.Protocol):
    """A connection beyond a limit."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Close the connection."""
        transport.close()


class AcceptErrors:
    """Logs at most once a minute that a process has no descriptors left for connections.

    asyncio reports it at each try to accept one, thousands of times a second. From ``begin`` to
    ``end``, this is the exception handler of the event loop. It passes on all other errors.
    """

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._former: Any = None
        self._complained_at = float("-inf")

    def begin(self) -> None:
        """Hear the errors of the running event loop."""
        loop = asyncio.get_running_loop()
        self._former = loop.get_exception_handler()
        loop.set_exception_handler(self._handle)

    def end(self) -> None:
        """Give the event loop its former handler."""
        asyncio.get_running_loop().set_exception_handler(self._former)

    def _handle(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if "socket" in context and isinstance(error, OSError) and error.errno in _NO_RESOURCES:
            if time.monotonic() - self._complained_at >= _COMPLAIN_EVERY_S:
                self._complained_at = time.monotonic()
                self._log.warning("no HTTP connection can be accepted: %s", error.strerror)
        elif self._former is None:
            loop.default_exception_handler(context)
        else:
            self._former(loop, context)
