"""All that the daemon says to Redis: demand in; updates, states, status and leadership out.

Decides nothing. A leader writes by scripts alone, each of which first checks that the leader key
still holds our token. As a consequence, a daemon that froze and woke up can write nothing.

One server, Sentinel and Cluster differ only in how the client is built. In a cluster the scripts
need their keys in one slot: ``SPOTD_KEY_PREFIX={spotd}:``.
"""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from typing import Any

import redis.exceptions

from spotd.core.leadership import Held, LeaderKeyAnswer
from spotd.errors import NotLeaderError
from spotd.keys import Keys
from spotd.redis.calls import CALL_TIMEOUT_S, Outcome, ignore
from spotd.redis.clients import check_listed, pubsub_of
from spotd.redis.demand import MAX_FIELDS_PER_CALL, SCAN_ABOVE, DemandCalls
from spotd.redis.errors import RefusedError, WrongTypeError, translated
from spotd.redis.publisher import Ended, Publisher
from spotd.redis.rights import DENIED, Right, as_arguments
from spotd.redis.scripts import (
    ANNOUNCE,
    DROP_FIELDS,
    LEAD,
    RELEASE,
    WRITE_STATES,
    WRITE_STATUS,
)
from spotd.redis.tries import TRY_S

__all__ = ["MAX_FIELDS_PER_CALL", "SCAN_ABOVE", "Outcome", "RedisPort"]

# A seq is microseconds since 1970, or a little more. One that is further ahead is no seq of ours.
SEQ_AHEAD_S = 366 * 86_400
_SEQ_AHEAD_US = SEQ_AHEAD_S * 1_000_000
ANY_TIME = 1e12  # unix seconds that never pass
# What the script for the leader key answers, by its number.
_HELD: tuple[Held, ...] = ("another", "renewed", "acquired", "free")
# After this silence a ping tries the connection of ``wakes``, and has as long to be answered.
WAKE_SILENCE_S = 10.0


class RedisPort(DemandCalls):
    """All of the daemon's traffic with Redis, over one pool; ``wakes`` has its own connection.

    Raises SettingsError for an address or a key prefix that cannot work. Each method but
    ``wakes`` reports its calls to ``outcome``.
    """

    def __init__(
        self,
        url: str,
        keys: Keys,
        *,
        outcome: Callable[[Outcome], None] = ignore,
        call_timeout_s: float = CALL_TIMEOUT_S,
        connect_timeout_s: float = TRY_S,
        wake_silence_s: float = WAKE_SILENCE_S,
    ) -> None:
        super().__init__(
            url,
            keys,
            outcome,
            call_timeout_s=call_timeout_s,
            connect_timeout_s=connect_timeout_s,
        )
        self._wake_silence_s = wake_silence_s
        self._publisher = Publisher(
            self._client,
            keys,
            limited=self._limited,
            outcome=outcome,
            limit_s=lambda: self._limit.limit_s,
            until_ms=self._until_ms,
        )
        # Redis' unix seconds less our monotonic ones, as the last answer about the key told.
        self._redis_ahead_s: float | None = None

    async def close(self) -> None:
        """Close all connections."""
        await self._publisher.close()
        await super().close()

    async def denied(self, rights: Sequence[Right]) -> list[Right]:
        """Return those of the rights that our user does not have. Nothing is changed."""
        async with self._asking():
            places = await self._client.eval(DENIED, 0, *as_arguments(rights))
        return [rights[place - 1] for place in places]

    async def wakes(self, announced: Callable[[str], None] = lambda _: None) -> AsyncIterator[None]:
        """Yield once when listening to ``spotd:wake`` began, then at every message.

        ``announced`` is called with what is said on ``leaders:spot:``, if our user may hear it.
        Raises RedisUnavailableError when the connection is lost.
        """
        async with self._limited():
            pubsub: Any = await pubsub_of(self._client)
        listening = pinged = False
        try:
            async with self._limited():
                await pubsub.subscribe(self.keys.wake)
                await pubsub.subscribe(self.keys.leaders)
            while True:
                with translated(self._client):  # without a limit: silence is not a failure
                    try:
                        message = await pubsub.get_message(timeout=self._wake_silence_s)
                    except redis.exceptions.NoPermissionError:
                        if listening:  # then it is ``leaders`` that is denied
                            continue
                        raise
                    if message is None:
                        await check_listed(self._client, pubsub)
                        if pinged:
                            raise redis.exceptions.ConnectionError("no answer to a ping")
                        await pubsub.ping()
                pinged = message is None
                if message is None or message["type"] not in ("subscribe", "message"):
                    continue
                if message["channel"] == self.keys.wake.encode():
                    listening = True
                    yield None
                elif message["type"] == "message":
                    announced(message["data"].decode("utf-8", "replace"))
        finally:
            await pubsub.aclose()

    # Leading

    async def lead(
        self, token: str, ttl_s: float, *, former: str = "", claim_unix_s: float = ANY_TIME
    ) -> LeaderKeyAnswer:
        """Renew the leader key if it holds our token, take it if it is free. Return the answer.

        ``former``: a token that we gave up. A key that holds it may be taken, too. A free key is
        taken until ``claim_unix_s`` by Redis' clock.
        """
        keys = 2, self.keys.leader, self.keys.seq
        ttl_ms, claim_ms = round(ttl_s * 1000), round(claim_unix_s * 1000)
        arguments = *keys, token, ttl_ms, former, self.keys.leaders, claim_ms
        async with self._asking(self.keys.leader) as sent:
            held, seq, unix_ms, *another = await self._evaluate(LEAD, lambda: arguments)
        # Counted from sending: the way to Redis is not taken from the time of a call.
        self._redis_ahead_s = unix_ms / 1000 - sent.at
        highest_seq, published_by = _parse_seq(seq)
        leader = another[0].decode("utf-8", "replace") if another else None
        return LeaderKeyAnswer(_HELD[held], highest_seq, published_by, unix_ms / 1000, leader)

    async def release(self, token: str) -> bool:
        """Delete leader key and status if the key holds our token. Return whether it did."""
        return bool(await self._call(RELEASE, (self.keys.leader, self.keys.status), token))

    async def leader(self) -> str | None:
        """Return the token of the leader, None without one."""
        async with self._asking(self.keys.leader):
            held = await self._client.get(self.keys.leader)
        return None if held is None else held.decode("utf-8", "replace")

    async def leaders_elsewhere(self) -> list[tuple[int, str]]:
        """Return number and leader's token of each other database with a leader key of our name.

        It is empty where our user may not look there, and in a cluster, which has one database.
        """

        async def leader(database: Any) -> bytes | None:
            token: bytes | None = await database.get(self.keys.leader)
            return token

        try:
            async with self._asking(answer=RefusedError):
                tokens = await self._elsewhere(leader)
        except RefusedError:
            return []
        return [
            (number, token.decode("utf-8", "replace"))
            for number, token in tokens.items()
            if token is not None
        ]

    def begin_publishing(self, token: str, lines: bytes, highest_seq: int, ended: Ended) -> None:
        """Begin to publish and store updates; see ``Publisher.begin``. One call at a time."""
        # However the clock was set, a seq of our own must not count as garbage.
        too_high = max(_seq_bound(), highest_seq + _SEQ_AHEAD_US)
        self._publisher.begin(token, lines, highest_seq, too_high, ended)

    def _until_ms(self) -> int:
        """Return until when, by Redis' clock, a call that is sent now may be carried out.

        It is given up by then. 0: Redis' clock is not known. Where it was set since it was told, a
        call is refused, and the leader loop asks for the key at once, whose answer tells it.
        """
        if self._redis_ahead_s is None:
            return 0
        until = time.monotonic() + self._limit.limit_s
        return round((until + self._redis_ahead_s) * 1000)

    async def write_states(
        self, token: str, changed: Mapping[str, bytes], removed: Mapping[str, bytes]
    ) -> None:
        """Write and announce changed states, remove others and announce their end."""
        pairs = [part for pair in (*removed.items(), *changed.items()) for part in pair]
        await self._fenced(
            WRITE_STATES,
            (self.keys.leader, self.keys.states),
            token,
            self.keys.events,
            len(removed),
            *pairs,
        )

    async def write_status(
        self, token: str, json: bytes, ttl_s: float, *, announce: bool
    ) -> int | None:
        """Write the status for ``ttl_s`` seconds, and announce it where it changed.

        Return how many states are stored; None where our user may not ask for it.
        """
        answer = await self._fenced(
            WRITE_STATUS,
            (self.keys.leader, self.keys.status, self.keys.states),
            token,
            round(ttl_s * 1000),
            json,
            self.keys.events if announce else "",
        )
        return None if answer < 0 else answer - 1

    async def announce(self, token: str, json: bytes) -> None:
        """Announce what is not stored: a gap."""
        await self._fenced(ANNOUNCE, (self.keys.leader,), token, self.keys.events, json)

    async def drop_last(self, token: str, symbols: Iterable[str]) -> None:
        """Remove the last prices of 1 to ``MAX_FIELDS_PER_CALL`` symbols that nobody wants."""
        await self._fenced(DROP_FIELDS, (self.keys.leader, self.keys.last), token, *symbols)

    # What is stored

    async def last_fields(self) -> set[str]:
        """Return the symbols in ``spotd:last``."""
        return await self._fields(self.keys.last)

    async def last_prices(self) -> list[bytes]:
        """Return all JSON in ``spotd:last``, as it is stored."""
        return await self._values(self.keys.last)

    async def state_fields(self) -> set[str]:
        """Return the symbols and entries in ``spotd:states``."""
        return await self._fields(self.keys.states)

    async def states(self) -> list[bytes]:
        """Return all JSON in ``spotd:states``, as it is stored."""
        return await self._values(self.keys.states)

    async def _values(self, key: str) -> list[bytes]:
        try:
            async with self._asking(key, answer=WrongTypeError):
                return list(await self._client.hvals(key))
        except WrongTypeError:
            return []  # the next write replaces it

    async def _fields(self, key: str) -> set[str]:
        try:
            async with self._asking(key, answer=WrongTypeError):
                return {field.decode("utf-8", "replace") for field in await self._client.hkeys(key)}
        except WrongTypeError:
            return set()  # the next write replaces it

    # Scripts

    async def _fenced(self, script: str, keys: Sequence[str], *args: str | bytes | int) -> int:
        answer: int = await self._call(script, keys, *args, fenced=True)
        if not answer:
            raise NotLeaderError("the leader key does not hold our token, or the call came late")
        return answer

    async def _call(
        self, script: str, keys: Sequence[str], *args: str | bytes | int, fenced: bool = False
    ) -> Any:
        def arguments() -> Sequence[str | bytes | int]:
            until = (self._until_ms(),) if fenced else ()
            return (len(keys), *keys, args[0], *until, *args[1:])

        async with self._asking(keys[0]):
            return await self._evaluate(script, arguments)


def _seq_bound() -> int:
    """Return the lowest number that is not believed to be a seq."""
    return time.time_ns() // 1_000 + _SEQ_AHEAD_US


def _parse_seq(raw: bytes | None) -> tuple[int | None, str | None]:
    """Return seq and token as ``PUBLISH`` wrote them; None where one is missing or garbage."""
    match = re.fullmatch(rb"([0-9]{1,16})(?: (.*))?", raw or b"", re.DOTALL)
    if match is None or int(match[1]) >= _seq_bound():
        return None, None
    return int(match[1]), None if match[2] is None else match[2].decode("utf-8", "replace")
