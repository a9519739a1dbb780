"""What ``spotd check`` asks Redis: all that the daemon will need.

Talks to Redis by the daemon's own adapters. What the answers mean, ``core.redis_fitness`` decides.
Must leave nothing in Redis. Lapsed leases are removed, as by the daemon.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, cast

from spotd.cli.text import printable
from spotd.core.redis_fitness import (
    Finding,
    memory,
    output_buffers,
    persistence,
    role,
    version,
)
from spotd.errors import SettingsError, SpotdError
from spotd.keys import Keys
from spotd.redis.addresses import without_secrets
from spotd.redis.clients import COMMAND_TIMEOUT_S, connect
from spotd.redis.errors import RefusedError, WrongTypeError, answered, translated
from spotd.redis.observer import Observer
from spotd.redis.port import RedisPort
from spotd.redis.rights import as_text, rights_of_daemon
from spotd.settings import Settings

_LIMIT_S = 10.0
_CONFIG = ("client-output-buffer-limit", "save", "stop-writes-on-bgsave-error")
_GRANT = "Redis is up: grant what is missing, as deploy/redis/users.acl does"
_DELETE = "another program wrote that key: end it, and delete the key"


class RedisCheck:
    """The findings on one Redis, by name. ``ahead_s``: by how much our clock is ahead of its."""

    def __init__(self, settings: Settings) -> None:
        self.findings: dict[str, Finding] = {}
        self.ahead_s: float | None = None
        self._settings = settings
        self._url = settings.redis_url.get_secret_value()
        self._keys: Keys = settings.keys
        self._place = without_secrets(self._url)

    async def run(self) -> None:
        """Ask. Where Redis does not answer, there is a finding that says so, and no other."""
        try:
            async with asyncio.timeout(_LIMIT_S):
                await self._run()
        except SettingsError as error:
            self.findings["redis"] = Finding("failure", str(error), exit_code=error.exit_code)
        except (SpotdError, TimeoutError) as error:
            told = str(error) or f"{self._place}: no answer"
            self.findings["redis"] = Finding(
                "failure",
                told,
                "Redis is up: correct the user, password or database in SPOTD_REDIS_URL, or what "
                "Redis complains of"
                if answered(error)
                else "start Redis there, or correct SPOTD_REDIS_URL",
            )

    async def _run(self) -> None:
        # A pause that the daemon would bridge by its next call is no failure here.
        port = RedisPort(self._url, self._keys, call_timeout_s=COMMAND_TIMEOUT_S)
        observer = Observer(self._url, self._keys)
        found = self.findings
        try:
            found["rights"] = await self._rights(port)
            self.ahead_s = await _ahead_s(observer)
            info, config = await observer.info(), await observer.config(*_CONFIG)
            found["version"], found["role"] = version(info), role(info)
            found["leader"] = await self._leader(port, observer)
            told = f"{self._place} answers"
            if all(found[name].level != "failure" for name in ("role", "rights", "leader")):
                await self._try_calls(port)
                found["demand"] = await _demand(port)
                told += "; scripts and pub/sub work"
            found["redis"] = Finding("ok", told)
            found["buffers"] = output_buffers((config or {}).get(_CONFIG[0]))
            found["persistence"] = persistence(info, config)
            found["memory"] = memory(info)
            found["databases"] = await self._databases(port, observer)
        finally:
            await observer.close()
            await port.close()

    async def _rights(self, port: RedisPort) -> Finding:
        settings = self._settings
        rights = rights_of_daemon(
            self._keys, subscribers_are_demand=settings.subscribers_are_demand
        )
        try:
            denied = await port.denied(rights)
        except RefusedError as error:  # the right to ask for all the others
            return Finding("failure", str(error), _GRANT)
        if denied:
            return Finding("failure", f"the user has no permission for {as_text(denied)}", _GRANT)
        return Finding("ok", "every command and channel of the daemon is permitted")

    async def _try_calls(self, port: RedisPort) -> None:
        """Make each kind of call that the daemon makes. Raises RedisUnavailableError."""
        await port.release(f"check-{secrets.token_hex(8)}")  # a script: this token leads nothing
        other = connect(self._url)
        try:
            async with aclosing(cast("AsyncGenerator[None, None]", port.wakes())) as wakes:
                await anext(wakes)
                with translated(other):
                    await other.publish(self._keys.wake, "check")
                await anext(wakes)
        finally:
            await other.aclose()

    async def _databases(self, port: RedisPort, observer: Observer) -> Finding:
        for database, leader in await port.leaders_elsewhere():
            return Finding(
                "failure",
                f"{printable(leader)} leads in database {database} with the same key prefix, and "
                "pub/sub knows no databases",
                "give each daemon its own SPOTD_KEY_PREFIX and SPOTD_CHANNEL_PREFIX",
            )
        demand = await observer.demand_elsewhere()
        if demand is None:
            return Finding(
                "unknown",
                "whether another database holds the same names",
                f"SELECT each, then EXISTS {self._keys.symbols} {self._keys.leader}",
            )
        if demand:
            numbers = ", ".join(map(str, demand))
            return Finding(
                "warning",
                f"a demand of the same names stands in database {numbers}, which this daemon does "
                "not read",
                "have services use the database of SPOTD_REDIS_URL, or delete it there",
            )
        return Finding("ok", "no other database holds the same names")

    async def _leader(self, port: RedisPort, observer: Observer) -> Finding:
        try:
            token = await port.leader()
            status = None if token is None else await observer.status()
        except WrongTypeError as error:
            return Finding("failure", f"no daemon can lead: {error}", _DELETE)
        except RefusedError as error:  # the finding on rights says what to do
            return Finding("unknown", f"who leads: {error}")
        if token is None:
            return Finding("ok", "no daemon leads")
        instance = token.rpartition(":")[0] or token
        leader = printable(instance)
        if status is None or status.instance != instance:  # one that led before wrote it
            return Finding("ok", f"led by {leader}")
        if status.feed != self._settings.feed:
            return Finding(
                "warning",
                f"led by {leader}, whose feed is {printable(status.feed)}",
                "give the daemons of each feed their own SPOTD_KEY_PREFIX and SPOTD_CHANNEL_PREFIX",
            )
        return Finding("ok", f"led by {leader} ({status.state})")


async def _demand(port: RedisPort) -> Finding:
    """Read each source of the demand as the daemon does, of a large set the first slice."""
    unreadable: list[str] = []
    try:
        async with aclosing(cast("AsyncGenerator[Any, None]", port.demand_set())) as slices:
            await anext(slices)
    except WrongTypeError as error:
        unreadable.append(str(error))
    try:
        await port.leases()
    except WrongTypeError as error:
        unreadable.append(str(error))
    if unreadable:
        return Finding("failure", f"it cannot be read: {'; '.join(unreadable)}", _DELETE)
    return Finding("ok", "set and leases can be read")


async def _ahead_s(observer: Observer) -> float | None:
    before = time.time()
    try:
        unix_s = await observer.unix_s()
    except RefusedError:  # the finding on the rights says so
        return None
    return (before + time.time()) / 2 - unix_s
