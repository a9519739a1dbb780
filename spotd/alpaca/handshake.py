"""From an address to an upgraded websocket: look-up, TCP, TLS, handshake, and how each fails.

Must not speak Alpaca's protocol, nor try again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import socket
from dataclasses import dataclass
from typing import Any

import picows
from alpaca.common.utils import get_default_user_agent
from picows.url import WSParsedURL

from spotd.alpaca.deflate import HEADER, OFFER, Inflater, agreed
from spotd.alpaca.session import MAX_FRAME_BYTES, Session
from spotd.errors import StreamError

_READ_BYTES = 128 * 1024  # about a thousand quotes: a millisecond or less
_STATUS_LINE = re.compile(rb"HTTP/\d\.\d (\d{3})\b")

# picows reports through logging what this adapter reports through errors.
logging.getLogger("picows").setLevel(logging.CRITICAL)


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long Alpaca may take, in seconds."""

    connect_s: float = 10.0  # name look-up, TCP, TLS and the websocket's handshake together
    answer_s: float = 10.0  # the greeting, the authentication, an acknowledgement
    close_s: float = 1.0  # the answer to our close frame
    # Pings go out also while data comes in: the server wants to hear from its clients at least
    # every 20 s. Whatever comes in after a ping counts as its answer.
    ping_s: float = 10.0
    pong_s: float = 5.0


async def connect(
    session: Session, endpoint: str, *, compression: bool, timeouts: Timeouts
) -> None:
    """Give a session its connection. Raises StreamError, and then leaves no socket behind."""
    deadline = asyncio.get_running_loop().time() + timeouts.connect_s
    dialled: list[socket.socket] = []

    async def dial(url: WSParsedURL) -> socket.socket:
        dialled.append(await _dial(url.host, url.port, deadline))
        return dialled[0]

    def upgraded(
        _: picows.WSUpgradeRequest, response: picows.WSUpgradeResponse
    ) -> picows.WSListener:
        # Before any frame is looked at: the first may be in the packet of the answer.
        if agreed(response.headers.getall(HEADER, []), offered=compression):
            session.inflater = Inflater(MAX_FRAME_BYTES)
        return session

    headers = {
        "Content-Type": "application/msgpack",
        "User-Agent": get_default_user_agent(),
    }
    if compression:
        headers[HEADER] = OFFER
    try:
        async with asyncio.timeout_at(deadline):
            _, listener = await picows.ws_connect(
                upgraded,
                endpoint,
                extra_headers=headers,
                websocket_handshake_timeout=None,  # ours covers it
                enable_auto_ping=True,
                auto_ping_idle_timeout=timeouts.ping_s,
                auto_ping_reply_timeout=timeouts.pong_s,
                auto_ping_strategy=picows.WSAutoPingStrategy.PING_PERIODICALLY,
                max_frame_size=MAX_FRAME_BYTES,
                max_redirects=0,
                socket_factory=dial,
                # Another transport, and a dependency: no gain without TLS, 3 % of a frame with it.
                use_aiofastnet=False,
            )
    except BaseException as error:
        # A handshake that is given up stays open in picows; closed by us, asyncio ends it.
        for dead in dialled:
            with contextlib.suppress(OSError):
                dead.shutdown(socket.SHUT_RDWR)
        if isinstance(error, picows.WSHandshakeError):
            raise _refused_handshake(error) from error
        if isinstance(error, picows.WSError | OSError | UnicodeError):
            raise _no_connection(error, timeouts.connect_s) from error
        raise
    if listener is None:  # what picows gives when the peer left before it answered
        raise StreamError("Alpaca closed the connection unanswered", reason="connect")


class _BoundedSocket(socket.socket):
    """Hands over a bounded amount at a time.

    picows doubles its buffer whenever a read fills it. Where more comes in than is worked off, all
    that the system holds, up to tens of megabytes, would be read in one turn of the loop, and
    nothing else would get its turn until it is decoded.
    """

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
        return super().recv_into(buffer, nbytes or min(len(buffer), _READ_BYTES), flags)


async def _dial(host: str, port: int, deadline: float) -> socket.socket:
    """A connection to the first of the host's addresses that takes one.

    Each address gets an equal share of the time left: one that swallows packets costs no more.
    ``deadline`` is in the loop's time. Raises OSError; UnicodeError for what is no host name.
    """
    loop = asyncio.get_running_loop()
    addresses = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    left = len(addresses)
    for family, kind, protocol, _, address in addresses:
        connecting = _BoundedSocket(family, kind, protocol)
        connecting.setblocking(False)
        try:
            async with asyncio.timeout((deadline - loop.time()) / left):
                await loop.sock_connect(connecting, address)
        except BaseException as error:
            connecting.close()
            left -= 1
            if left == 0 or not isinstance(error, OSError):
                raise
        else:
            return connecting
    raise AssertionError("a look-up without an address is an error of its own")


def _refused_handshake(error: picows.WSHandshakeError) -> StreamError:
    """HTTP said no to the upgrade."""
    response = getattr(error, "response", None)
    wait = ""
    if response is not None:
        status = int(response.status)
        wait = response.headers.get("Retry-After", "")
    elif line := _STATUS_LINE.match(error.raw_header or b""):
        status = int(line[1])  # one that HTTP does not know, such as a proxy's 520
    else:
        return StreamError("the websocket handshake failed", reason="handshake")
    return StreamError(
        f"Alpaca refused the websocket with HTTP {status}",
        reason=f"http_{status}",
        after_s=float(wait) if wait.isdecimal() else None,
    )


def _no_connection(error: BaseException, timeout_s: float) -> StreamError:
    if isinstance(error, TimeoutError):
        return StreamError(
            f"no connection to Alpaca within {timeout_s:g} s", reason="connect_timeout"
        )
    if isinstance(error, socket.gaierror | UnicodeError):
        return StreamError("the host name of the stream is unknown", reason="dns")
    return StreamError(f"no connection to Alpaca: {error}"[:200], reason="connect")
