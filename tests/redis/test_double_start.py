"""Daemons that are started in the same moment: Redis lets exactly one of each pair lead."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import count
from pathlib import Path

import pytest

from spotd.core.leadership import LeaderKey
from spotd.keys import Keys
from spotd.redis.port import RedisPort
from tests.kit.redis_port import patient
from tests.kit.servers import Server

PAIRS = 100
TTL_S = 60.0


@asynccontextmanager
async def candidate(url: str, keys: Keys, name: str) -> AsyncIterator[tuple[RedisPort, LeaderKey]]:
    """Yield the port of one daemon, on connections of its own, and its view of the leader key."""
    port, numbers = patient(url, keys), count()
    key = LeaderKey(
        ttl_s=TTL_S,
        new_token=lambda: f"{name}:{next(numbers)}",
        is_ours=lambda token: token.startswith(f"{name}:"),
    )
    try:
        yield port, key
    finally:
        await port.close()


async def ask(port: RedisPort, key: LeaderKey) -> None:
    """Ask for the leader key as the daemon does, until it is known who leads."""
    while not key.leadership.started:
        request = key.request(time.monotonic())
        answer = await port.lead(
            request.token, TTL_S, former=request.former, claim_unix_s=request.claim_unix_s
        )
        key.answered(request, answer, time.monotonic())


@pytest.mark.parametrize("ahead", ["first", "second"])
async def test_of_two_that_start_at_once_one_leads(tmp_path: Path, ahead: str) -> None:
    """A hundred pairs, all at once: in each one leads, the other knows it, and Redis agrees."""
    async with AsyncExitStack() as stack:
        server = stack.enter_context(Server(tmp_path))
        pairs = []
        for number in range(PAIRS):
            keys = Keys(f"{ahead}-{number}:", f"{ahead}-{number}-spot:")
            pair = [
                await stack.enter_async_context(candidate(server.url, keys, name))
                for name in ("first", "second")
            ]
            pairs.append(pair if ahead == "first" else pair[::-1])
        # Each has its connection, so that both requests of a pair leave in the same turn.
        await asyncio.gather(*(port.leader() for pair in pairs for port, _ in pair))
        await asyncio.gather(*(ask(port, key) for pair in pairs for port, key in pair))
        for pair in pairs:
            views = [key.leadership for _, key in pair]
            assert sorted(view.leads for view in views) == [False, True]
            assert [view.another for view in views] == [not view.leads for view in views]
            leader = next(view for view in views if view.leads)
            assert await pair[0][0].leader() == leader.token
