"""What is left of a server's log lines where a token stood in them."""

from __future__ import annotations

import logging

import pytest

from spotd.relay.tokens_in_logs import TokensHidden, hidden_in_server_logs

SERVER_LOG = "uvicorn.access"


def line_of(message: str, *args: object) -> str:
    """Return a line as a handler behind the filter sees it."""
    record = logging.LogRecord("server", logging.INFO, "", 0, message, args, None)
    assert TokensHidden(["sesame-1"]).filter(record)
    return record.getMessage()


@pytest.mark.parametrize(
    ("written", "left"),
    [
        ("/sse?token=x+y%20z&symbols=SPY", "/sse?token=***&symbols=SPY"),
        ("/sse?symbols=SPY&%74oken=other HTTP/1.1", "/sse?symbols=SPY&%74oken=*** HTTP/1.1"),
        ("{'query_string': b'token=other'}", "{'query_string': b'token=***'}"),
        ("Authorization: Bearer sesame-1", "Authorization: Bearer ***"),
        ("spotd.v1, bearer.c2VzYW1lLTE", "spotd.v1, bearer.***"),
        ("/ws?tokens=3&symbols=SPY", "/ws?tokens=3&symbols=SPY"),
    ],
)
def test_tokens_are_hidden_and_nothing_else(written: str, left: str) -> None:
    """In the message and in what it is formatted with, one by one or by name."""
    assert line_of(written) == left
    assert line_of('%s - "%s" %d', "127.0.0.1", written, 200) == f'127.0.0.1 - "{left}" 200'
    assert line_of("%(line)s %(status)d", {"line": written, "status": 200}) == f"{left} 200"


def test_the_filter_is_gone_with_the_application() -> None:
    """The logs are the server's."""
    log = logging.getLogger(SERVER_LOG)
    before = list(log.filters)
    with hidden_in_server_logs(["sesame-1"]):
        assert len(log.filters) == len(before) + 1
    assert log.filters == before
