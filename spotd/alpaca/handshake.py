"""Opens the WebSocket: name look-up, TCP, TLS, upgrade. Translates each of their failures.

Must not speak Alpaca's protocol, nor try again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import socket
import ssl
from dataclasses import dataclass
from email.parser import HeaderParser
from typing import Any

import picows
from alpaca.common.utils import get_default_user_agent
from picows.url import WSParsedURL

from spotd.alpaca.retry_after import retry_after_s
from spotd.alpaca.session import MAX_FRAME_BYTES, Session
from spotd.errors import StreamError

_READ_BYTES = 128 * 1024  # about a thousand quotes: a millisecond of decoding or less
_WAIT = ("Retry-After", "Date")
_STATUS_LINE = re.compile(rb"HTTP/\d\.\d (\d{3})\b")

# picows would log, as errors, the failures that this module raises.
logging.getLogger("picows").setLevel(logging.CRITICAL)


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long Alpaca may take, in seconds."""

    connect_s: float = 10.0  # name look-up, TCP, TLS and upgrade together
    answer_s: float = 10.0  # the greeting, the authentication, an acknowledgement
    close_s: float = 1.0  # the answer to our close frame
    # A ping goes out even while data comes in, because the server wants a sign of life from its
    # clients at least every 20 s. Any frame that comes in after a ping counts as its answer.
    ping_s: float = 10.0
    pong_s: float = 5.0


async def connect(session: Session, endpoint: str, timeouts: Timeouts) -> None:
    """Connect a session to Alpaca. Raise StreamError, and leave no socket behind then.

    No extension is offered: with compression, a quote costs 1.5 to 2.1 times the CPU time.
    """
    deadline = asyncio.get_running_loop().time() + timeouts.connect_s
    dialled: list[socket.socket] = []

    async def dial_once(url: WSParsedURL) -> socket.socket:
        dialled.append(await dial(url.host, url.port, deadline))
        return dialled[0]

    def upgraded(
        _: picows.WSUpgradeRequest, response: picows.WSUpgradeResponse
    ) -> picows.WSListener:
        # picows calls this before it parses a frame. As a consequence, no frame of an extension
        # is taken in, not even one that came in the packet of the response.
        answered = ", ".join(response.headers.getall("Sec-WebSocket-Extensions", []))
        if answered.strip(" ,"):
            # None was offered (RFC 6455, 4.1).
            raise StreamError(
                "the websocket was accepted with an extension that was not offered "
                f"({session.words(answered)})",
                reason="extension",
            )
        return session

    try:
        async with asyncio.timeout_at(deadline):
            _, listener = await picows.ws_connect(
                upgraded,
                endpoint,
                extra_headers={
                    "Content-Type": "application/msgpack",
                    "User-Agent": get_default_user_agent(),
                },
                websocket_handshake_timeout=None,  # the deadline covers it
                enable_auto_ping=True,
                auto_ping_idle_timeout=timeouts.ping_s,
                auto_ping_reply_timeout=timeouts.pong_s,
                auto_ping_strategy=picows.WSAutoPingStrategy.PING_PERIODICALLY,
                max_frame_size=MAX_FRAME_BYTES,
                max_redirects=0,
                socket_factory=dial_once,
                # aiofastnet is another transport and a dependency. It makes a frame no cheaper
                # without TLS, and 3 % cheaper with TLS.
                use_aiofastnet=False,
            )
    except BaseException as error:
        # picows leaves the socket of an abandoned upgrade open. Once it is shut down here, asyncio
        # reads its end and closes it.
        for dead in dialled:
            with contextlib.suppress(OSError):
                dead.shutdown(socket.SHUT_RDWR)
        if isinstance(error, picows.WSHandshakeError):
            raise _refused_upgrade(error) from error
        if isinstance(error, picows.WSError | OSError | UnicodeError):
            raise _no_connection(error, session, timeouts.connect_s) from error
        raise
    if listener is None:  # picows returns None when the peer left before it answered
        raise StreamError("Alpaca closed the connection unanswered", reason="connect")


class _BoundedSocket(socket.socket):
    """Reads a bounded amount at a time.

    picows doubles its buffer whenever a read fills it. When data comes in faster than it is
    decoded, one read would fetch all that the system holds, up to tens of megabytes, and no other
    task would run until it is decoded.
    """

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
        return super().recv_into(buffer, nbytes or min(len(buffer), _READ_BYTES), flags)


async def dial(host: str, port: int, deadline: float) -> socket.socket:
    """Return a socket, with bounded reads, connected to the first address of a host that accepts.

    ``deadline`` is in the loop's time. Each address gets an equal share of the time left, so that
    an address that swallows packets leaves time for the others. Raise OSError (TimeoutError
    included), and UnicodeError for a text that cannot be a host name.
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
    raise AssertionError("getaddrinfo raises when it finds no address")


def _refused_upgrade(error: picows.WSHandshakeError) -> StreamError:
    """Return the error for a response that is not 101, or is no response of HTTP."""
    response = getattr(error, "response", None)
    if response is not None:
        status = int(response.status)
        wait, date = (response.headers.get(name, "") for name in _WAIT)
    elif line := _STATUS_LINE.match(error.raw_header or b""):
        # It is one that picows does not know, such as a proxy's 520.
        status = int(line[1])
        rest = (error.raw_header or b"").partition(b"\n")[2].decode("latin-1")
        wait, date = (HeaderParser().parsestr(rest).get(name, "") for name in _WAIT)
    else:
        return StreamError("the websocket handshake failed", reason="handshake")
    return StreamError(
        f"Alpaca refused the websocket with HTTP {status}",
        reason=f"http_{status}",
        after_s=retry_after_s(wait, date),
    )


def _no_connection(error: BaseException, session: Session, timeout_s: float) -> StreamError:
    if isinstance(error, TimeoutError):
        return StreamError(
            f"no connection to Alpaca within {timeout_s:g} s", reason="connect_timeout"
        )
    if isinstance(error, socket.gaierror | UnicodeError):
        return StreamError("the host name of the stream is unknown", reason="dns")
    words = str(error)
    if isinstance(error, OSError) and error.errno and not isinstance(error, ssl.SSLError):
        # asyncio's words name the address, which may be that of a proxy. Browsers see them.
        words = os.strerror(error.errno)
    return StreamError(f"no connection to Alpaca: {session.words(words)}", reason="connect")
