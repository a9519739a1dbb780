"""The one subscription of a client: keeps a connection joined for all readers, and tells them.

Talks to Redis. ``joins`` decides what is subscribed, fetched and told. Must not know of leases,
and must not keep prices.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import NoReturn

from redis.exceptions import NoPermissionError
from tenacity import AsyncRetrying, retry_if_exception_type, wait_random_exponential

from spotd.client.calls import Calls
from spotd.client.checks import CHECK_EVERY_S, next_check_in_s
from spotd.client.connection import Connection
from spotd.client.joins import Batch, Joins, Reader
from spotd.client.role import Role
from spotd.client.tasks import raise_if_cancelled, stop, until_first_ends
from spotd.client.telling import Counts, Stored, Teller
from spotd.errors import RedisUnavailableError
from spotd.keys import Keys
from spotd.redis.clients import master_of, place_of
from spotd.redis.errors import FAILURES, answered, translated

_JOIN_LIMIT_S = 10.0
_FETCH_LIMIT_S = 10.0
_REJOIN_PAUSE_S = 0.05  # a connection that breaks at once, again and again, must not spin
_REJOIN_MAX_S = 2.0
_ROLE_EVERY_S = 0.5
_MOST_AT_ONCE = 1_000  # symbols in one request

log = logging.getLogger("spotd.client")


class _DefectError(Exception):
    """A listener raised what would look like a failure of Redis. That is the cause of this."""


@contextmanager
def _listeners() -> Iterator[None]:
    """Raise _DefectError in place of an error of a listener that ``translated`` would take."""
    try:
        yield
    except FAILURES as error:
        raise _DefectError from error


class Subscription:
    """One connection for all readers of a client; there is none while there is no reader.

    ``rejoined`` is awaited after each interruption, before stored values are fetched. After
    ``heartbeat_s`` of silence a PING is sent; after as much silence again, the connection is given
    up.
    """

    def __init__(
        self,
        call: Calls,
        keys: Keys,
        counts: Counts,
        heartbeat_s: float,
        rejoined: Callable[[], Awaitable[None]],
    ) -> None:
        self._call = call
        self._keys = keys
        self._counts = counts
        self._heartbeat_s = heartbeat_s
        self._rejoined = rejoined
        self._joins = Joins(keys)
        self._teller = Teller(self._joins, counts)
        self._wake_up = asyncio.Event()
        self._waiting: dict[Reader, asyncio.Future[None]] = {}
        self._task: asyncio.Task[NoReturn] | None = None
        self._ending: asyncio.Task[NoReturn] | None = None
        self._is_joined = False
        self._was_joined = False
        self._logged = False  # that it is away
        self._role = Role()

    # Readers

    def attach(self, reader: Reader, symbols: Sequence[str] = (), *, waits: bool = False) -> None:
        """Begin to tell a reader, and connect if need be. With ``waits``, ``joined`` follows."""
        self._joins.attach(reader, symbols)
        self._wake_up.set()
        if waits:
            self._waiting[reader] = asyncio.get_running_loop().create_future()
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="spotd-client-subscription")
            self._task.add_done_callback(self._ended)

    async def joined(self, reader: Reader) -> None:
        """Wait until a new reader was told what is stored, or is detached.

        Raises RedisUnavailableError if a try to join failed since it was attached.
        """
        # A reader that was detached before anybody waited for it has no future any more.
        waiting = self._waiting.get(reader)
        if waiting is not None:
            await asyncio.shield(waiting)  # a caller that was cancelled may wait again
            self._waiting.pop(reader, None)

    async def detach(self, reader: Reader) -> None:
        """Tell a reader nothing more, and close the connection if it was the last one."""
        self._joins.detach(reader)
        self._wake_up.set()
        waiting = self._waiting.pop(reader, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(None)
        elif waiting is not None and not waiting.cancelled():
            waiting.exception()  # marks it as seen
        task = self._task
        if task is not None and not self._joins.readers:
            self._task, self._ending = None, task
            await stop(task)

    def add(self, reader: Reader, symbols: Sequence[str]) -> None:
        """Have a reader follow symbols."""
        self._joins.add(reader, symbols)
        self._wake_up.set()

    def remove(self, reader: Reader, symbols: Sequence[str]) -> None:
        """Have a reader follow symbols no longer."""
        self._joins.remove(reader, symbols)
        self._wake_up.set()

    # The connection

    async def _run(self) -> NoReturn:
        if self._ending is not None:
            await asyncio.wait([self._ending])
        self._was_joined = self._logged = False
        while True:
            trying = AsyncRetrying(
                retry=retry_if_exception_type(RedisUnavailableError),
                wait=wait_random_exponential(multiplier=_REJOIN_PAUSE_S, max=_REJOIN_MAX_S),
            )
            await trying(self._connect)
            await asyncio.sleep(_REJOIN_PAUSE_S)

    async def _connect(self) -> None:
        """Join, and return when the connection is lost. Raises RedisUnavailableError before."""
        redis = self._call.redis
        connection = Connection(redis, self._heard, self._confirmed)
        self._joins.reconnect()
        try:
            with translated(redis):
                async with asyncio.timeout(_JOIN_LIMIT_S) as limit:
                    await connection.open()
                    raise_if_cancelled()
                    await self._use(connection, limit)
        except RedisUnavailableError as error:
            self._tell_lost(error)
            if not self._is_joined:
                raise
        finally:
            self._is_joined = False
            await connection.aclose()

    async def _use(self, connection: Connection, limit: asyncio.Timeout) -> None:
        """Read, write and try a connection until one of these fails, and raise that failure."""
        await until_first_ends(
            {
                "spotd-client-reader": connection.read(),
                "spotd-client-heartbeat": connection.try_silent(self._heartbeat_s),
                "spotd-client-joins": self._keep_joined(connection, limit),
                "spotd-client-role": self._check_role(),
            }
        )

    async def _check_role(self) -> NoReturn:
        """Drop all connections when the server was replaced by another one.

        Reads work at a server that was replaced, and a subscription stays silent there.
        """
        now, master = asyncio.get_running_loop().time, master_of(self._call.redis)
        while master is not None:
            await asyncio.sleep(_ROLE_EVERY_S)
            try:
                role = await self._call("ROLE")
            except FAILURES as error:
                if answered(error):
                    break  # a user who may not ask, or a server that does not know the command
                continue
            raise_if_cancelled()
            is_master = role[0] == b"master"
            follows = role[3:4] == [b"connected"]
            if self._role.seen(is_master=is_master, follows=follows, now=now()):
                master.drop("it has become a replica")
        await _never()

    async def _keep_joined(self, connection: Connection, limit: asyncio.Timeout) -> NoReturn:
        """Subscribe and fetch as ``joins`` says; ``limit`` ends with the first fetch."""
        now = asyncio.get_running_loop().time
        check_every_s = min(CHECK_EVERY_S, self._heartbeat_s)
        check_at = now() + check_every_s
        while True:
            raise_if_cancelled()
            self._wake_up.clear()
            commands = self._joins.commands()
            await connection.send("SUBSCRIBE", commands.subscribe)
            await connection.send("UNSUBSCRIBE", commands.unsubscribe)
            if batch := self._joins.due(_MOST_AT_ONCE):
                await self._join(connection, batch)
                limit.reschedule(None)
                continue
            with suppress(TimeoutError):
                async with asyncio.timeout_at(check_at):
                    await self._wake_up.wait()
            if now() >= check_at:
                lapses_in_ms = await self._check(connection)
                check_at = now() + next_check_in_s(check_every_s, lapses_in_ms)

    async def _check(self, connection: Connection) -> int | None:
        """Tell what has ended or changed unheard. Return in how many ms the status lapses.

        None where no reader is told of it, and where our user may not ask.
        """
        checks = self._joins.checks(_MOST_AT_ONCE)
        for check in checks:
            await self._tell_stored(check, await self._fetch(connection, check, prices=False))
        if not checks:
            return None
        try:
            async with asyncio.timeout(_FETCH_LIMIT_S):
                return int(await self._call("PTTL", self._keys.status))
        except NoPermissionError:
            return None

    async def _join(self, connection: Connection, batch: Batch) -> None:
        if not self._is_joined and self._was_joined:
            # The server may have come back empty.
            await self._rejoined()
        stored = await self._fetch(connection, batch)
        if not self._is_joined:
            self._take_note_of_join()
        for reader in batch.readers:
            if not reader.connected:
                reader.connected = True
                with _listeners():
                    reader.listener.connection(True, f"joined {place_of(self._call.redis)}")
        await self._tell_stored(batch, stored)
        for reader in self._joins.joined(batch):
            reader.joined()
            waiting = self._waiting.get(reader)
            if waiting is not None and not waiting.done():
                waiting.set_result(None)

    async def _fetch(self, connection: Connection, batch: Batch, *, prices: bool = True) -> Stored:
        """Return what is stored of a batch. Raises what redis-py raises, and TimeoutError."""
        call, keys = self._call, self._keys
        batch.begin()
        last = list(batch.by_symbol()) if prices else []
        states = list(batch.by_symbol(events=True))
        async with asyncio.timeout(_FETCH_LIMIT_S):
            stored = Stored(
                await call("GET", keys.status) if batch.readers else None,
                await call("HVALS", keys.states) if batch.everything else [],
                await call("HMGET", keys.last, *last) if last else [],
                await call("HMGET", keys.states, *states) if states else [],
            )
            if states:
                # A price that was published before one of these states may still be on its way.
                await connection.catch_up()
        return stored

    async def _tell_stored(self, batch: Batch, stored: Stored) -> None:
        with _listeners():
            for _ in self._teller.stored(batch, stored):
                await asyncio.sleep(0)

    def _heard(self, channel: bytes, raw: bytes) -> None:
        try:
            self._teller.message(channel, raw)
        except FAILURES as error:  # as ``_listeners``, which would cost time for each message
            raise _DefectError from error

    def _confirmed(self, channel: bytes) -> None:
        self._joins.confirmed(channel)
        self._wake_up.set()

    def _take_note_of_join(self) -> None:
        self._is_joined = True
        if self._was_joined:
            self._counts.reconnects += 1
        if self._logged:
            log.info("joined %s again", place_of(self._call.redis))
            self._logged = False
        self._was_joined = True

    def _tell_lost(self, error: RedisUnavailableError) -> None:
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(error)
        others = [reader for reader in self._joins.readers if reader not in self._waiting]
        if others and not self._logged:  # those that wait raise it
            what = "lost the subscription" if self._is_joined else "no subscription"
            log.warning("%s, joining again: %s", what, error)
            self._logged = True
        for reader in others:
            if reader.connected is not False:
                reader.connected = False
                reader.listener.connection(False, str(error))

    def _ended(self, task: asyncio.Task[NoReturn]) -> None:
        """Tell the readers of the defect that ended the task, if it was not cancelled."""
        error = None if task.cancelled() else task.exception()
        if isinstance(error, _DefectError):
            error = error.__cause__
        if error is None:
            return
        self._task = None
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(error)
        for reader in tuple(self._joins.readers):
            reader.failed(error)
            self._joins.detach(reader)


async def _never() -> NoReturn:
    while True:
        await asyncio.Event().wait()
