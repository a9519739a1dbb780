"""redis-py's connections, opened and dropped by a ``Master``.

Overrides ``_connect`` of redis-py, which its pool and pub/sub call too. The tests against real
servers pin that. Must not know what is sent.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import redis.exceptions
from redis.asyncio.connection import Connection, SSLConnection, UnixDomainSocketConnection

from spotd.redis.dial import Address, AllFailedError
from spotd.redis.master import Master
from spotd.redis.tries import TRY_S


class Progress(NamedTuple):
    """Told by a connection that is opened for the call that is made in the present context.

    ``opening``: connecting begins, which has limits of its own. ``ready``: it has logged in, and
    the call begins. ``answered``: to connect took this many seconds.
    """

    opening: Callable[[], None]
    ready: Callable[[], None]
    answered: Callable[[float], None]


progress: ContextVar[Progress | None] = ContextVar("progress", default=None)

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]

_PING = b"*1\r\n$4\r\nPING\r\n"
_LOGS_IN_WITH = ("username", "password", "credential_provider", "db")
_FILES = ("ca_certs", "certfile", "keyfile")
# What a server says to a new connection before it closes it.
_TURNED_AWAY = (b"-ERR max number of clients", b"-DENIED ")


class _OfMaster:
    """What the connections have in common. ``master`` finds the server, else host and port do."""

    def __init__(self, *, master: Master | None = None, **options: Any) -> None:
        super().__init__(**options)
        itself: Any = self
        itself.driver_info = None  # otherwise redis-py tells the server its name: two round trips
        self.master = master

    async def _connect(self) -> None:
        itself: Any = self
        told = self._told()
        if told is not None:
            told.opening()
        master = self.master or Master(
            itself.host, itself.port, try_s=itself.socket_connect_timeout or TRY_S
        )
        master.check_open()
        try:
            streams = await master.open(self._open, _close)
        except AllFailedError as error:
            raise _as_one(error, master) from error
        try:
            master.check_open()
        except redis.exceptions.ConnectionError:
            _close(streams)  # it was not there when its pool was closed
            raise
        itself._reader, itself._writer = streams
        master.add(self)
        self._set_options(streams[1])

    def _told(self) -> Progress | None:
        """Return whom to tell of the progress, if this connection will say that it is ready."""
        itself: Any = self
        return progress.get() if itself.redis_connect_func is log_in else None

    async def _open(self, address: Address) -> Streams:
        raise NotImplementedError

    def _set_options(self, writer: asyncio.StreamWriter) -> None:
        pass

    async def can_read(self) -> bool:
        """Return whether the connection must not be used again. redis-py's pool asks this.

        Raises redis-py's ConnectionError where the reason is known.
        """
        return await self._is_closed() or await self._has_said(super().can_read)  # type: ignore[misc]

    async def can_read_destructive(self) -> bool:
        """Return the same, asked by the name that redis-py 7 uses."""
        can_read = super().can_read_destructive  # type: ignore[misc]
        return await self._is_closed() or await self._has_said(can_read)

    async def _is_closed(self) -> bool:
        # The end of an aborted connection is noticed only in a later turn of the loop.
        itself: Any = self
        if itself._writer is None or not itself._writer.transport.is_closing():
            return False
        try:
            async with asyncio.timeout(TRY_S):
                await itself._writer.wait_closed()
        except OSError as why:  # such as an alert of TLS
            raise redis.exceptions.ConnectionError(str(why) or type(why).__name__) from why
        return True

    async def _has_said(self, can_read: Callable[[], Awaitable[bool]]) -> bool:
        """Return whether something came that nobody asked for. Raises where it is an error."""
        if not await can_read():
            return False
        itself: Any = self
        said = None
        with suppress(TimeoutError):
            async with asyncio.timeout(0):  # only what is here already
                said = await itself._parser.read_response()
        if isinstance(said, redis.exceptions.ResponseError):
            raise redis.exceptions.ConnectionError(str(said))  # it is no answer to a command
        return True

    async def send_packed_command(self, *args: Any, **options: Any) -> None:
        """Send a command. redis-py calls this.

        redis-py limits it by ``asyncio.wait_for``. In Python 3.11 that returns, and swallows a
        cancellation, where both come in the same turn of the event loop (cpython issue 86296). As a
        consequence, a task that is cancelled once would go on. The cancellation is raised here, and
        the connection is closed: the next call would take the answer to this one for its own.
        """
        task = asyncio.current_task()
        before = 0 if task is None else task.cancelling()
        await super().send_packed_command(*args, **options)  # type: ignore[misc]
        if task is not None and task.cancelling() > before:
            await self.disconnect(nowait=True)
            raise asyncio.CancelledError

    async def disconnect(self, *args: Any, **options: Any) -> None:
        """Close the connection. redis-py calls this, with why.

        A server that hangs is not waited for: TLS would wait for its answer, and what is still to
        be sent for room. All calls that matter have their answers by now.
        """
        self.drop()
        await super().disconnect(*args, **options)  # type: ignore[misc]

    def drop(self) -> None:
        """Close the connection at once. redis-py notices at its next use, or while it reads."""
        itself: Any = self
        if itself._writer is not None:
            itself._writer.transport.abort()


class _OverTcp(_OfMaster):
    async def _open(self, address: Address) -> Streams:
        itself: Any = self
        loop = asyncio.get_running_loop()
        began_at = loop.time()
        try:
            reader, writer = await asyncio.open_connection(
                address.host, address.port, **self._tls(address)
            )
        except TimeoutError:
            raise
        except OSError as error:
            itself.host, itself.port = address.name, address.port
            raise redis.exceptions.ConnectionError(itself._error_message(error)) from error
        try:
            # Before a server is relied on, it has to answer. Where nothing is to be said before the
            # first call, and no other address is there, that call finds out.
            if not address.is_sure or any(getattr(self, name) for name in _LOGS_IN_WITH):
                writer.write(_PING)
                line = await reader.readline()
                if not line:
                    raise redis.exceptions.ConnectionError(f"{address.host} closed the connection")
                if line.startswith(_TURNED_AWAY):
                    said = itself._parser.parse_error(line[1:].decode("utf-8", "replace").strip())
                    raise redis.exceptions.ConnectionError(str(said))
        except BaseException:
            writer.transport.abort()
            raise
        itself.host, itself.port = address.name, address.port
        told = self._told()
        if told is not None:
            told.answered(loop.time() - began_at)
        return reader, writer

    def _tls(self, address: Address) -> dict[str, Any]:  # noqa: ARG002 - TLS needs it
        return {}

    def _set_options(self, writer: asyncio.StreamWriter) -> None:
        itself: Any = self
        sock = writer.transport.get_extra_info("socket")
        if sock is None or sock.fileno() < 0:
            return  # it is closed already, and whoever uses it next is told why
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if itself.socket_keepalive:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for option, value in itself.socket_keepalive_options.items():
                sock.setsockopt(socket.SOL_TCP, option, value)


class TcpConnection(_OverTcp, Connection):
    """A connection of ``redis://``."""


class TlsConnection(_OverTcp, SSLConnection):
    """A connection of ``rediss://``."""

    def _tls(self, address: Address) -> dict[str, Any]:
        try:
            context = self.ssl_context.get()
        except OSError as error:
            raise _named(self.ssl_context, error) from error
        return {"ssl": context, "server_hostname": address.name}


class UnixConnection(_OfMaster, UnixDomainSocketConnection):
    """A connection of ``unix://``."""

    async def _open(self, address: Address) -> Streams:  # noqa: ARG002 - the path is known
        return await asyncio.open_unix_connection(self.path)


async def log_in(connection: Any) -> None:
    """Log in on a new connection. redis-py calls this once it is open.

    Raises what redis-py raises. A server that does not answer has ``TRY_S`` seconds, or as long as
    a try to connect, if that is longer.
    """
    master: Master | None = getattr(connection, "master", None)
    limit_s = max(TRY_S, connection.socket_connect_timeout or TRY_S)
    try:
        async with asyncio.timeout(limit_s):
            await connection.on_connect()
            if master is not None:
                await master.verify(partial(_role_of, connection))
    except TimeoutError:
        await connection.disconnect(nowait=True)
        raise redis.exceptions.TimeoutError("no answer in time while logging in") from None
    told = progress.get()
    if told is not None:
        told.ready()


async def _role_of(connection: Any) -> str:
    await connection.send_command("ROLE", check_health=False)
    try:
        answer = await connection.read_response()
    except redis.exceptions.ResponseError:
        return "master"  # a user may not ask, and whoever writes will be told
    return bytes(answer[0]).decode()


def _close(streams: Streams) -> None:
    streams[1].transport.abort()


def _as_one(error: AllFailedError, master: Master) -> Exception:
    """Return the error that says most, or one that says that nobody answered, and where."""
    if not isinstance(error.telling, TimeoutError):
        return error.telling
    host, port = master.address or ("", "")
    where = f"{host}:{port}" if port else host
    return redis.exceptions.TimeoutError(f"no connection to {where} within {master.try_s:g} s")


def _named(context: Any, error: OSError) -> redis.exceptions.ConnectionError:
    """Return an error that names the file of the URL that cannot be read."""
    for option in _FILES:
        name = getattr(context, option)
        try:
            if name:
                Path(name).open("rb").close()
        except OSError as unreadable:
            return redis.exceptions.ConnectionError(f"ssl_{option} {name}: {unreadable.strerror}")
    return redis.exceptions.ConnectionError(f"a file that the URL names for TLS: {error}")
