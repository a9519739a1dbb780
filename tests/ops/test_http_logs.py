"""What is logged of requests that are not HTTP."""

from __future__ import annotations

import asyncio
import logging

import pytest
from aiohttp import web
from aiohttp.http_exceptions import BadStatusLine

from spotd.ops.http import HttpServer
from spotd.ops.http_logs import NotHttp, http_logger
from tests.kit.waiting import GUARD_S
from tests.ops.test_http import pages, server  # noqa: F401 - fixtures


def _record(error: Exception) -> logging.LogRecord:
    return logging.LogRecord(
        "x", logging.ERROR, "", 1, "Error handling request from %s", ("1.2.3.4",),
        (type(error), error, None),
    )  # fmt: skip


def test_one_line_a_minute_without_a_traceback() -> None:
    """It names the client and the number of lines left out, and no text of the request."""
    now = 0.0
    only = NotHttp(lambda: now)
    written = []
    for now in (0.0, 1.0, 59.0, 60.0, 61.0):  # noqa: B007 - the clock reads it
        record = _record(BadStatusLine("GET /?token=secret\nx"))
        if only.filter(record):
            written.append((record.levelname, record.getMessage(), record.exc_info))
    line = "a request from 1.2.3.4 is not HTTP (BadStatusLine); {} others since the last such line"
    assert written == [
        ("WARNING", line.format(0), None),
        ("WARNING", line.format(2), None),
    ]


def test_a_defect_is_logged_whole() -> None:
    """A defect is logged each time, with its traceback."""
    only = NotHttp()
    for _ in range(2):
        record = _record(ValueError("a defect"))
        assert only.filter(record)
        assert record.exc_info is not None


def test_a_body_that_cannot_be_read_is_not_logged() -> None:
    """Such a request has an answer, and its client is at fault, so nothing is logged."""
    assert not NotHttp().filter(_record(web.RequestPayloadError("cut off")))


def test_a_logger_has_the_filter_once() -> None:
    """A logger has the filter once, however many servers use it."""
    assert http_logger("spotd.test").filters == http_logger("spotd.test").filters
    assert len(http_logger("spotd.test").filters) == 1


@pytest.mark.parametrize(
    "nonsense",
    [
        b"GET /livez HTTP/9\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nno header\r\n\r\n",
        b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\n\r\n",
        b"POST /livez HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    ],
)
async def test_malformed_requests_make_no_traceback(
    server: HttpServer,  # noqa: F811 - the fixture
    caplog: pytest.LogCaptureFixture,
    nonsense: bytes,
) -> None:
    """Whatever is sent, at most one line is written, and pages are served."""
    logger = http_logger("spotd.http")
    logger.filters = [NotHttp()]
    for _ in range(3):
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(nonsense)
        async with asyncio.timeout(GUARD_S):
            assert b" 40" in await reader.readline()
        writer.close()
    assert len(caplog.records) <= 1
    assert all(record.exc_info is None for record in caplog.records)
