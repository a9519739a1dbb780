"""One subscribed connection to Redis: sends (UN)SUBSCRIBE, reads messages, tries a silent server.

Talks to Redis. Must not know which channels are wanted, or what the messages mean.

redis-py's ``PubSub.get_message`` is not used: it costs six times as much per message as the
``read_response`` below it, and reconnects unseen, so that messages would be missing.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, NoReturn

from redis.exceptions import ConnectionError as RedisConnectionError

from spotd.client.tasks import raise_if_cancelled
from spotd.redis.clients import check_listed, pubsub_of
from spotd.redis.errors import FAILURES

_YIELD_EVERY = 64  # messages; redis-py does not suspend while its buffer holds more
_MAX_PER_COMMAND = 1_000  # channels


class Connection:
    """One connection, from ``open`` to ``aclose``; it never connects again.

    ``message`` is called with channel and data of each message, ``confirmed`` with the channel of
    each confirmed SUBSCRIBE or UNSUBSCRIBE.
    """

    def __init__(
        self,
        redis: Any,
        message: Callable[[bytes, bytes], None],
        confirmed: Callable[[bytes], None],
    ) -> None:
        self._redis = redis
        self._message = message
        self._confirmed = confirmed
        self._pubsub: Any = None
        self._heard = 0
        self._pings = 0
        self._pongs: dict[bytes, asyncio.Future[None]] = {}

    async def open(self) -> None:
        """Connect. Raises what redis-py raises."""
        self._pubsub = await pubsub_of(self._redis)
        await self._pubsub.connect()

    async def aclose(self) -> None:
        """Close, if it is open. Raises nothing."""
        pubsub, self._pubsub = self._pubsub, None
        if pubsub is not None:
            with suppress(*FAILURES):
                await pubsub.aclose()

    async def send(self, command: str, channels: Sequence[bytes]) -> None:
        """Send a command with its channels, if there are any. Raises what redis-py raises."""
        for start in range(0, len(channels), _MAX_PER_COMMAND):
            await self._send(command, *channels[start : start + _MAX_PER_COMMAND])

    async def catch_up(self) -> None:
        """Wait until all that the server sent before this call was handed on.

        Raises what redis-py raises. Where the connection is lost meanwhile, it waits on: whoever
        reads is told.
        """
        self._pings += 1
        payload = b"spotd-%d" % self._pings
        pong = self._pongs[payload] = asyncio.get_running_loop().create_future()
        try:
            await self._send("PING", payload)
            await pong
        finally:
            del self._pongs[payload]

    async def read(self) -> NoReturn:
        """Hand on what arrives. Raises what redis-py raises."""
        # PubSub may send a PING of its own and read in its place. Here only this task reads.
        read = self._pubsub.connection.read_response
        while True:
            reply = await read(timeout=math.inf, disconnect_on_error=False, push_request=True)
            self._heard += 1
            kind = reply[0]
            if kind == b"message":
                self._message(reply[1], reply[2])
            elif kind in {b"subscribe", b"unsubscribe"}:
                self._confirmed(reply[1])
            elif self._pongs:
                # RESP2 answers with a list, RESP3 with the payload alone.
                self._answer(reply[1] if isinstance(reply, list) and reply[1:] else reply)
            if self._heard % _YIELD_EVERY == 0:
                await asyncio.sleep(0)

    async def try_silent(self, heartbeat_s: float) -> NoReturn:
        """Send a PING after each silence of ``heartbeat_s``.

        Raises redis-py's ConnectionError after as much silence again, and where the node is no part
        of its cluster any more.
        """
        heard, asked = 0, False
        while True:
            await asyncio.sleep(heartbeat_s)
            if heard != self._heard:
                heard, asked = self._heard, False
            elif asked:
                raise RedisConnectionError("no answer to PING")
            else:
                asked = True
                await check_listed(self._redis, self._pubsub)
                await self._send("PING")

    def _answer(self, payload: Any) -> None:
        pong = self._pongs.get(payload) if isinstance(payload, bytes) else None
        if pong is not None and not pong.done():
            pong.set_result(None)

    async def _send(self, *command: str | bytes) -> None:
        # check_health: it would read the answer to a PING of its own, beside the reader.
        await self._pubsub.connection.send_command(*command, check_health=False)
        raise_if_cancelled()
