"""Connects to whichever address answers first, of a host name that has several, or of
several servers.

Runs the tries as ``Tries`` decides. Must not know what is tried, or what is said over a connection.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import NamedTuple, TypeVar

from redis.exceptions import RedisClusterException, RedisError

from spotd.redis.tries import TRY_S, Tries

T = TypeVar("T")


class Address(NamedTuple):
    """Where to connect. ``host`` is a number, ``name`` is the host as it was named, for TLS.

    ``is_sure``: no other address is tried, so nobody asks whether the server answers.
    """

    host: str
    port: int
    name: str
    is_sure: bool = True


Connect = Callable[[Address], Awaitable[T]]
Discard = Callable[[T], None]


class AllFailedError(OSError):
    """Every try failed. ``failures`` are their errors, one per address, in order."""

    def __init__(self, failures: Sequence[Exception]) -> None:
        super().__init__(*dict.fromkeys(str(failure) for failure in failures))
        self.failures = failures

    @property
    def telling(self) -> Exception:
        """Return the first error that is no timeout, else the first one."""
        told = (each for each in self.failures if not isinstance(each, TimeoutError))
        return next(told, self.failures[0])


async def race(
    tries: Sequence[Callable[[], Awaitable[T]]],
    discard: Callable[[T], None],
    *,
    try_s: float = TRY_S,
) -> T:
    """Return the result of the try that succeeds first. ``discard`` gets any other result.

    Raises AllFailedError. What a try raises that is no error of a network or of Redis is raised as
    it is.
    """
    running: dict[asyncio.Task[T], int] = {}
    try:
        winner = await _first(tries, running, try_s)
    except BaseException:
        await _end(running, discard)
        raise
    del running[winner]
    try:
        await _end(running, discard)
    except BaseException:
        discard(winner.result())  # the caller was cancelled, so nobody receives it
        raise
    return winner.result()


async def _first(
    tries: Sequence[Callable[[], Awaitable[T]]], running: dict[asyncio.Task[T], int], try_s: float
) -> asyncio.Task[T]:
    """Return the try that succeeds first. ``running`` then holds all that have not failed."""
    loop = asyncio.get_running_loop()
    plan = Tries(len(tries), loop.time(), try_s=try_s)
    failures: dict[int, Exception] = {}
    while True:
        now = loop.time()
        number = plan.begin(now, idle=not running)
        if number is not None:
            limited = _limited(tries[number], plan.left_s(now))
            running[asyncio.create_task(limited, name=f"try-{number}")] = number
            continue
        if not running:
            # A process that was frozen meanwhile has not tried all of them.
            raise AllFailedError([failures.get(n) or TimeoutError() for n in range(len(tries))])
        done, _ = await asyncio.wait(
            running, timeout=plan.wait_s(now), return_when=asyncio.FIRST_COMPLETED
        )
        for task in done:
            failure = task.exception()
            if failure is None:
                return task
            number = running.pop(task)
            if not isinstance(failure, OSError | RedisError | RedisClusterException):
                raise failure
            plan.failed(number)
            failures[number] = failure


async def _limited(attempt: Callable[[], Awaitable[T]], limit_s: float) -> T:
    async with asyncio.timeout(limit_s):
        return await attempt()


async def _end(tasks: dict[asyncio.Task[T], int], discard: Callable[[T], None]) -> None:
    for task in tasks:
        task.add_done_callback(lambda ended: _drop(ended, discard))
        task.cancel()
    if tasks:
        with suppress(TimeoutError):
            # A name look-up in a thread cannot be stopped, but its task ends at once.
            await asyncio.wait(tasks, timeout=1.0)


def _drop(ended: asyncio.Task[T], discard: Callable[[T], None]) -> None:
    if not ended.cancelled() and ended.exception() is None:
        discard(ended.result())


async def first_answer(tries: Sequence[Callable[[], Awaitable[T]]]) -> T:
    """Return the result of the try that succeeds first, where nothing needs to be discarded.

    Raises what the first try raised that is no timeout where all fail, else TimeoutError.
    """
    try:
        return await race(tries, _ignore)
    except AllFailedError as error:
        raise error.telling from None


def _ignore(_: object) -> None:
    pass


async def dial(
    host: str, port: int, connect: Connect[T], discard: Discard[T], *, try_s: float = TRY_S
) -> T:
    """Connect to the address of ``host`` that answers first. Raises OSError."""
    addresses = await _resolve(host, port, try_s)
    tries = [lambda address=address: connect(address) for address in addresses]
    return await race(tries, discard, try_s=try_s)


async def _resolve(host: str, port: int, limit_s: float) -> list[Address]:
    """Return all addresses of a host name, in the order of the system's resolver."""
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        pass
    else:
        return [Address(host, port, host)]
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(limit_s):
            found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError as error:
        raise OSError(f"{host} is no host name") from error
    except TimeoutError:
        raise TimeoutError(f"no answer to the look-up of {host} in {limit_s:g} s") from None
    hosts = list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))
    return [Address(each, port, host, is_sure=len(hosts) == 1) for each in hosts]
