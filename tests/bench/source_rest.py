"""Alpaca's REST as far as a measurement needs it: the latest quote and trade of any symbols."""

from __future__ import annotations

import asyncio
from urllib.parse import parse_qs, urlsplit

# Older than anything that the stream sends.
_AT = "2025-10-01T15:00:00.123456Z"
_TRADE = f'{{"t":"{_AT}","x":"V","p":100.01,"s":100,"c":["@"],"i":1,"z":"C"}}'
_QUOTE = (
    f'{{"t":"{_AT}","ax":"V","ap":100.02,"as":100,"bx":"V","bp":100.0,"bs":100,"c":["R"],"z":"C"}}'
)
_VALUE = f'{{"latestTrade":{_TRADE},"latestQuote":{_QUOTE}}}'


class Rest(asyncio.Protocol):
    """One connection, kept alive."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._heard = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep it for the answers."""
        if isinstance(transport, asyncio.Transport):
            self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer every whole request; none has a body."""
        self._heard += data
        while b"\r\n\r\n" in self._heard:
            head, _, self._heard = self._heard.partition(b"\r\n\r\n")
            answer = _answer(head.split(b" ", 2)[1].decode())
            if self._transport is not None:
                self._transport.write(answer)


def _answer(target: str) -> bytes:
    split = urlsplit(target)
    if split.path != "/v2/stocks/snapshots":
        return _response("404 Not Found", '{"message":"not found"}')
    names = parse_qs(split.query)["symbols"][0].split(",")
    return _response("200 OK", "{" + ",".join(f'"{name}":{_VALUE}' for name in names) + "}")


def _response(status: str, body: str) -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    return f"{head}\r\n\r\n{body}".encode()
