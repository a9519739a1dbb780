"""Talks HTTP with ``spotd record``: what came from Alpaca, as long as the recorder reads it.

Only programs of this machine are answered, wherever the server listens. Must not know what the
records say.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Mapping
from typing import Protocol

from aiohttp import web

_POLL_S = 0.02  # a task per frame would cost the daemon more than the frame
_CHUNK_BYTES = 256 << 10
_STALLED_S = 60.0
# A proxy writes one of these. What it passes on may come from anywhere.
_OF_PROXIES = ("Forwarded", "Via", "X-Forwarded-For", "X-Forwarded-Proto", "X-Real-IP")

_NOT_LOOPBACK = (
    "only over loopback: run `spotd record` where the daemon runs, and let the daemon listen on "
    "127.0.0.1 or on all addresses (SPOTD_HTTP_HOST)"
)


class Recorder(Protocol):
    """One recording under way."""

    def take(self, most_bytes: int) -> bytes:
        """Return what came and was not taken yet, and forget it; nothing if nothing came."""

    def close(self) -> None:
        """End the recording."""


class Taps(Protocol):
    """Where recordings begin."""

    def open(self) -> Recorder | None:
        """Return a new recording; None if there are too many."""


class TapPage:
    """``GET /tap``: an answer that goes on until either side leaves.

    A recorder that reads nothing for ``stalled_s`` is cut off.
    """

    def __init__(self, taps: Taps | None, *, stalled_s: float = _STALLED_S) -> None:
        self._taps = taps
        self._stalled_s = stalled_s
        self._transports: set[asyncio.Transport] = set()
        self._stopping = False

    def serves(self, transport: asyncio.Transport) -> bool:
        """Return whether a recorder reads from this connection."""
        return transport in self._transports

    def stop(self) -> None:
        """End all answers: give what is left, except to a recorder that does not read."""
        self._stopping = True
        for transport in self._transports:
            if transport.get_write_buffer_size():
                transport.abort()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answer with records as they come."""
        transport = request.transport
        if transport is None:
            raise ConnectionResetError("the recorder has left")
        if refusal := why_refused(transport, request.headers):
            return web.Response(status=403, text=f"{refusal}\n")
        recorder = None if self._taps is None else self._taps.open()
        if recorder is None:
            return web.Response(status=503, text="too many recordings are under way\n")
        self._transports.add(transport)
        try:
            return await self._records(request, transport, recorder)
        finally:
            self._transports.discard(transport)
            recorder.close()

    async def _records(
        self, request: web.Request, transport: asyncio.Transport, recorder: Recorder
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/octet-stream"})
        response.force_close()
        try:
            await response.prepare(request)
            while not transport.is_closing():
                records = recorder.take(_CHUNK_BYTES)
                if records:
                    async with asyncio.timeout(self._stalled_s):
                        await response.write(records)
                elif self._stopping:
                    await response.write_eof()
                    break
                await asyncio.sleep(0 if records else _POLL_S)
        except TimeoutError:
            transport.abort()
        except ConnectionError:
            pass  # the recorder has left
        return response


def why_refused(transport: asyncio.BaseTransport, headers: Mapping[str, str]) -> str:
    """Return why a request may not be from this machine; nothing if it is.

    A page of the Web whose name leads to this machine names itself in ``Host``.
    """
    peer = transport.get_extra_info("peername")
    if not peer or not _is_loopback(str(peer[0])):
        return _NOT_LOOPBACK
    if any(name in headers for name in _OF_PROXIES):
        return "not through a proxy"
    name = headers.get("Host", "")
    host = name.partition("]")[0][1:] if name.startswith("[") else name.partition(":")[0]
    if host != "localhost" and not _is_loopback(host):
        return "only by the name localhost"
    return ""


def _is_loopback(address: str) -> bool:
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        return ip.ipv4_mapped.is_loopback
    return ip.is_loopback
