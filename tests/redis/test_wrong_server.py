"""One address that leads to another server one day, while connections to the old one stay open."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, closing
from typing import Any, cast

import pytest

from spotd.errors import RedisUnavailableError
from spotd.keys import Keys
from spotd.redis.port import Outcome, RedisPort
from tests.kit.redis_port import lead_and_publish, patient
from tests.kit.redis_proxy import RedisProxy
from tests.kit.servers import Server
from tests.kit.waiting import until
from tests.kit.websocket import tcp_server

KEYS = Keys()


def says_read_only(old: Server, new: Server) -> None:
    """Make it a replica."""
    with old.client() as client:
        client.replicaof("127.0.0.1", str(new.port))


def says_master_down(old: Server, new: Server) -> None:
    """Make it a replica that has not heard of its master, and does not answer before that."""
    with old.client() as client:
        client.config_set("replica-serve-stale-data", "no")
        client.replicaof("127.0.0.1", "1")


def loads(old: Server, new: Server) -> None:
    """Make it a replica that loads, for longer than the test takes, what its master has."""
    with new.client() as client:
        client.mset({f"filler:{n}": "x" * 1000 for n in range(1000)})
    with old.client() as client:
        client.config_set("key-load-delay", 1_000_000)
        client.config_set("loading-process-events-interval-bytes", 1024)
        client.replicaof("127.0.0.1", str(new.port))


async def works(port: RedisPort) -> bool:
    """Return whether the port may write now."""
    try:
        await lead_and_publish(port)
    except RedisUnavailableError:
        return False
    return True


@pytest.mark.parametrize("demote", [says_read_only, says_master_down, loads])
async def test_a_server_that_takes_no_writes_is_left(
    servers: tuple[Server, Server], address: RedisProxy, demote: Any
) -> None:
    """Its answer closes all connections, that for wakes too, and the address is asked again."""
    old, new = servers
    port = patient(address.url, KEYS)
    async with aclosing(cast("AsyncGenerator[None, None]", port.wakes())) as wakes:
        await anext(wakes)
        assert await works(port)
        address.lead_to(new)
        assert await works(port)  # nothing says that the old server is the wrong one
        with new.client() as client:
            assert client.hget(KEYS.last, "SPY") is None
        demote(old, new)

        async def refuses() -> bool:
            return not await works(port)

        await until(refuses, "the old server to refuse")
        await until(lambda: works(port), "the new server to be found")
        with pytest.raises(RedisUnavailableError):
            await anext(wakes)
    with new.client() as client:
        assert client.hget(KEYS.last, "SPY") == '{"symbol":"SPY"}'
    await port.close()


async def test_a_wrong_server_is_found_again_and_again_until_the_address_leads_elsewhere(
    servers: tuple[Server, Server], address: RedisProxy
) -> None:
    """Where the address goes on to lead to a replica, calls fail, and each failure is reported."""
    old, new = servers
    outcomes: list[Outcome] = []
    port = patient(address.url, KEYS, outcome=outcomes.append)
    assert await works(port)
    says_read_only(old, new)

    async def refused() -> bool:
        await works(port)
        return sum(each.failure is not None for each in outcomes) > 20

    await until(refused, "many refusals")
    assert all("read only replica" in (each.failure or "read only replica") for each in outcomes)
    address.lead_to(new)
    await until(lambda: works(port), "the new server to be found")
    await port.close()


async def test_a_script_of_an_older_server_is_understood() -> None:
    """Before Redis 7 a script's error holds the code of the failed command in its middle."""
    clients: set[asyncio.StreamWriter] = set()  # that asked something

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer):
            while await reader.read(4096):
                clients.add(writer)
                writer.write(
                    b"-ERR Error running script (call to f_x): @user_script:9: @user_script: 9: "
                    b"-READONLY You can't write against a read only replica. \r\n"
                )

    async with tcp_server(serve) as number:
        port = patient(f"redis://127.0.0.1:{number}", KEYS)
        for _ in range(2):
            assert not await works(port)
        await port.close()
    assert len(clients) == 2
