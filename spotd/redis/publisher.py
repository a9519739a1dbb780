"""The connection that publishes: a batch goes out in the turn in which it is begun.

Decides nothing. redis-py opens the connection and logs in, as for every other one. From then on
this module writes the packed command to its transport and parses the answer, without a task, a
future or a time limit of its own for each call: at everyday paces those cost several times what
publishing costs.

One call is under way at a time. Its end is told by a callback, whichever it is: an answer, an
error, a connection that is lost or cannot be opened, or a limit that has passed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import hiredis

from spotd.errors import NotLeaderError, RedisUnavailableError
from spotd.keys import Keys
from spotd.redis.calls import Outcome
from spotd.redis.clients import is_cluster
from spotd.redis.errors import LoginRefusedError, RefusedError, translated
from spotd.redis.scripts import PUBLISH, digest_of

Ended = Callable[[Exception | None], None]

_ELSEWHERE = ("MOVED ", "CLUSTERDOWN ")
_RARE_S = 0.1  # between two calls


class _Call:
    """One call: its arguments, what is called at its end, and when it was sent."""

    __slots__ = ("arguments", "began_at", "ended", "has_script", "sent_at")

    def __init__(self, arguments: tuple[str, int, int, bytes], ended: Ended, now: float) -> None:
        self.arguments = arguments  # token, highest seq, a seq that is too high, lines
        self.ended = ended
        self.began_at = now
        self.sent_at: float | None = None  # monotonic seconds; None until there is a connection
        self.has_script = False  # the script itself is sent, not its digest


class Publisher:
    """Publishes batches, one at a time. Opens its connection at the first one, and after a loss.

    ``client`` is redis-py's, which knows how to reach the server. ``limited`` limits the opening of
    a connection, and translates its errors. ``limit_s`` returns how long an answer may take, in
    seconds, and ``until_ms`` until when, by the server's clock, a call that is sent now may be
    carried out, 0 without a limit. ``outcome`` is told how each call ended.
    """

    def __init__(
        self,
        client: Any,
        keys: Keys,
        *,
        limited: Callable[[], AbstractAsyncContextManager[object]],
        outcome: Callable[[Outcome], None],
        limit_s: Callable[[], float],
        until_ms: Callable[[], int],
    ) -> None:
        self._client = client
        self._keys = (keys.leader, keys.last, keys.seq)
        self._prefix = keys.channel_prefix
        # The command up to what differs from call to call, and the token that it carries.
        self._head, self._head_token = b"", ""
        self._limited = limited
        self._outcome = outcome
        self._limit_s = limit_s
        self._until_ms = until_ms
        self._connection: _Connection | None = None
        self._opening: asyncio.Task[None] | None = None
        self._asking: asyncio.Task[None] | None = None
        self._call: _Call | None = None
        # One timer for the oldest unanswered call. It outlives calls: setting one for each would
        # cost more than a call that is answered needs. Where calls are rare, it would wake the
        # process for nothing, which costs more still.
        self._guard: asyncio.TimerHandle | None = None
        self._former_sent_at = 0.0

    def begin(
        self, token: str, lines: bytes, highest_seq: int, too_high: int, ended: Ended
    ) -> None:
        """Publish and store updates. ``lines`` is the JSON of each, followed by a line feed.

        ``ended`` is called once, in a later turn: with None when they were published, with
        NotLeaderError when nothing was, because the key is not ours or ``highest_seq`` is not above
        what was published before, and with RedisUnavailableError when nobody knows.
        """
        if self._call is not None:
            raise AssertionError("a call is under way")
        self._call = _Call((token, highest_seq, too_high, lines), ended, time.monotonic())
        if self._connection is not None:
            self._send(self._connection)
        elif self._opening is None:
            self._opening = asyncio.create_task(self._open(), name="open to publish")

    async def close(self) -> None:
        """Close the connection, also one that is being opened."""
        tasks = [task for task in (self._opening, self._asking) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._guard is not None:
            self._guard.cancel()
        self._drop()

    # The connection

    async def _open(self) -> None:
        try:
            async with self._limited():
                opened = _Connection(self, await _connected(self._client, self._keys[0]))
        except RedisUnavailableError as error:
            self._opening = None
            self._end(error)
            return
        self._opening = None
        self._connection = opened
        if self._call is not None:
            self._send(opened)

    def _send(self, connection: _Connection) -> None:
        call = self._call
        if call is None:
            raise AssertionError("nothing is to be sent")
        call.sent_at = time.monotonic()
        connection.write(self._packed(call))
        if self._guard is None:
            self._set_guard(call.sent_at)

    def _packed(self, call: _Call) -> bytes:
        """Return the command as the server reads it."""
        token, highest_seq, too_high, lines = call.arguments
        if call.has_script:
            command = ("EVAL", PUBLISH, *self._arguments(call))
            return hiredis.pack_command(command)  # type: ignore[arg-type, no-any-return]
        if token != self._head_token:
            words = ("EVALSHA", digest_of(PUBLISH), "3", *self._keys, token, self._prefix)
            self._head = b"*%d\r\n%b" % (len(words) + 4, b"".join(map(_bulk, words)))
            self._head_token = token
        highest, bound = b"%d" % highest_seq, b"%d" % too_high
        until = b"%d" % self._until_ms()
        return b"%b$%d\r\n%b\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n" % (
            self._head,
            len(highest), highest, len(bound), bound, len(lines), lines, len(until), until,
        )  # fmt: skip

    def _arguments(self, call: _Call) -> tuple[str | int | bytes, ...]:
        """Return what follows the script: the number of keys, the keys, and the rest."""
        token, highest_seq, too_high, lines = call.arguments
        return (3, *self._keys, token, self._prefix, highest_seq, too_high, lines, self._until_ms())

    def _set_guard(self, sent_at: float) -> None:
        loop = asyncio.get_running_loop()
        self._guard = loop.call_at(sent_at + self._limit_s(), self._check)

    def _check(self) -> None:
        self._guard = None
        call = self._call
        if call is None or call.sent_at is None:
            return
        if time.monotonic() < call.sent_at + self._limit_s():
            self._set_guard(call.sent_at)
        else:
            self._drop()  # the call may still arrive, and its answer must belong to no later one
            self._fail(TimeoutError())

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.drop()

    def lost(self, connection: _Connection, error: Exception | None) -> None:
        """Take in that a connection was closed. Only the present one matters."""
        if connection is self._connection:
            self._connection = None
            self._fail(error or ConnectionError("the connection was closed"))

    # The end of a call

    def answered(self, answer: object) -> None:
        """Take in an answer."""
        call = self._call
        if call is None:
            return
        if isinstance(answer, hiredis.ReplyError):
            self._refused(call, str(answer))
            return
        self._call = None
        sent_at = call.sent_at or call.began_at
        if self._guard is not None and sent_at - self._former_sent_at > _RARE_S:
            self._guard.cancel()
            self._guard = None
        self._former_sent_at = sent_at
        self._outcome(Outcome(sent_at, time.monotonic(), None))
        call.ended(None if answer else NotLeaderError("the leader key does not hold our token"))

    def _refused(self, call: _Call, words: str) -> None:
        if words.startswith("NOSCRIPT") and not call.has_script and self._connection is not None:
            # The server is new to us, or was restarted. EVAL leaves the script with it.
            call.has_script = True
            self._send(self._connection)
            return
        if words.startswith("ASK "):
            self._asking = asyncio.create_task(self._ask_elsewhere(call), name="publish elsewhere")
            return
        self._fail(self._connection.error(words) if self._connection else ConnectionError(words))
        if words.startswith(_ELSEWHERE):
            self._drop()  # the slot moved: the next call asks the cluster where it is

    async def _ask_elsewhere(self, call: _Call) -> None:
        """Make a call by the client of the cluster, which knows how to, while the slot moves."""
        try:
            async with self._limited():
                answer = await self._client.execute_command("EVAL", PUBLISH, *self._arguments(call))
        except RedisUnavailableError as error:
            if call is self._call:
                self._end(error)
            return
        if call is self._call:
            self.answered(answer)

    def _fail(self, error: BaseException) -> None:
        """End the call that is under way, if any, with an error of spotd's own."""
        try:
            # The script replaces the other keys where they are of the wrong type.
            with translated(self._client, self._keys[0]):
                raise error
        except RedisUnavailableError as own:
            self._end(own)

    def _end(self, error: RedisUnavailableError) -> None:
        call, self._call = self._call, None
        if call is not None:
            refused = isinstance(error, RefusedError | LoginRefusedError)
            self._outcome(Outcome(call.began_at, time.monotonic(), str(error), refused))
            call.ended(error)


class _Connection(asyncio.Protocol):
    """A connection that redis-py opened, from then on read and written here alone.

    It uses redis-py's ``_reader``, ``_writer`` and ``_parser``, which a test pins.
    """

    def __init__(self, publisher: Publisher, opened: Any) -> None:
        self._publisher = publisher
        self._parser = hiredis.Reader()
        self._as_error = opened._parser.parse_error
        # Kept, because a writer that nobody keeps closes its transport.
        self._writer, opened._reader, opened._writer = opened._writer, None, None
        self._transport: asyncio.WriteTransport = self._writer.transport
        self._transport.set_protocol(self)
        master = getattr(opened, "master", None)
        if master is not None:
            master.add(self)

    def write(self, packed: bytes) -> None:
        """Send a command."""
        self._transport.write(packed)

    def error(self, words: str) -> Exception:
        """Return an error that the server answered, as redis-py would raise it."""
        error: Exception = self._as_error(words)
        return error

    def drop(self) -> None:
        """Close the connection at once."""
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """Parse what came. The call that is under way has one answer; pushed messages are none."""
        self._parser.feed(data)
        while (answer := self._parser.gets()) is not False:
            if isinstance(answer, int | hiredis.ReplyError):
                self._publisher.answered(answer)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the publisher."""
        self._publisher.lost(self, exc)


def _bulk(word: str) -> bytes:
    """Return a word of a command as the server reads it."""
    raw = word.encode()
    return b"$%d\r\n%b\r\n" % (len(raw), raw)


async def _connected(client: Any, key: str) -> Any:
    """Return a new connection of redis-py that has logged in at the server that owns ``key``."""
    if is_cluster(client):
        await client.get(key)  # a slot that moved is followed, and known from then on
    pool = client.connection_pool
    connection = pool.make_connection()
    try:
        await pool.ensure_connection(connection)  # raises what the server says before any call
    except BaseException:
        await connection.disconnect(nowait=True)
        raise
    return connection
