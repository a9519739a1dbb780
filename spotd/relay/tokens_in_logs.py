"""Talks to logging: hides tokens in what a server logs of requests. Must not log anything itself.

``spotd relay`` logs no requests. A server of another application does: uvicorn writes the address
of each request and of each websocket, and a token may stand in an address as ``?token=``.
"""

from __future__ import annotations

import logging
import re
from base64 import urlsafe_b64encode
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from urllib.parse import unquote

# Of uvicorn: requests, then websockets and (at the levels debug and trace) headers and scopes.
SERVER_LOGS = ("uvicorn.access", "uvicorn.error", "uvicorn.asgi")
_HIDDEN = "***"
_PARAMETER = re.compile(r"""([?&'"\s])([^?&=\s'"]{1,40})=([^&\s'"]+)""")


class TokensHidden(logging.Filter):
    """Lets every line through, without these tokens and without ``token=…`` of any address."""

    def __init__(self, tokens: Iterable[str]) -> None:
        super().__init__()
        spellings = {spelling for token in tokens for spelling in (token, _in_base64(token))}
        longest_first = sorted(spellings, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, longest_first))) if spellings else None

    def filter(self, record: logging.LogRecord) -> bool:
        """Return True, always. The record is changed where it holds a token."""
        record.msg = self._without(record.msg)
        # Each by itself: uvicorn's formatter reads them one by one.
        if isinstance(record.args, tuple):
            record.args = tuple(map(self._without, record.args))
        elif record.args:
            record.args = {name: self._without(each) for name, each in record.args.items()}
        return True

    def _without(self, value: object) -> object:
        if value is None or isinstance(value, int | float):
            return value
        text = _PARAMETER.sub(_hidden_parameter, str(value))
        return text if self._known is None else self._known.sub(_HIDDEN, text)


@contextmanager
def hidden_in_server_logs(tokens: Iterable[str]) -> Iterator[None]:
    """Hide tokens in the logs of the server that this process runs in."""
    hides = TokensHidden(tokens)
    logs = [logging.getLogger(name) for name in SERVER_LOGS]
    for log in logs:
        log.addFilter(hides)
    try:
        yield
    finally:
        for log in logs:
            log.removeFilter(hides)


def _hidden_parameter(found: re.Match[str]) -> str:
    before, name, _ = found.groups()
    return f"{before}{name}={_HIDDEN}" if unquote(name) == "token" else found[0]


def _in_base64(token: str) -> str:
    """Return a token as the subprotocol of a websocket has it."""
    return urlsafe_b64encode(token.encode()).decode().rstrip("=")
