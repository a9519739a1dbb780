"""Networks that swallow packets, and slow ones: calls are given up, and work again."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import ExitStack, suppress
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import redis

from spotd.client import SpotClient
from spotd.errors import RedisUnavailableError
from spotd.keys import Keys
from spotd.redis.port import SCAN_ABOVE, RedisPort
from tests.kit.redis_port import led, patient, publish
from tests.kit.redis_proxy import RedisProxy
from tests.kit.servers import Server, make_certificates, redis_server
from tests.kit.waiting import GUARD_S, until

KEYS = Keys()
PASSWORD = "hunter2-hunter2"
LINE = b'{"symbol":"SPY"}\n'


@pytest.fixture(scope="module")
def server(process: Server) -> Server:
    """Return the server, with a user who has a password."""
    with process.client() as client:
        client.execute_command("ACL", "SETUSER", "u", "on", f">{PASSWORD}", "~*", "&*", "+@all")
    return process


@pytest.fixture
async def network(server: Server, db: redis.Redis) -> AsyncIterator[RedisProxy]:
    """Yield the network between client and server."""
    async with RedisProxy.to(server) as way:
        yield way


async def test_a_call_into_the_void_is_given_up(network: RedisProxy) -> None:
    """It fails while nothing passes, so that the next call carries the newest values out."""
    port = RedisPort(f"redis://u:{PASSWORD}@127.0.0.1:{network.port}/1", KEYS)
    fresh = RedisPort(f"redis://127.0.0.1:{network.port}/0", KEYS)
    await led(port, "t")
    network.swallows = True
    for each in (port, port, fresh):
        with pytest.raises(RedisUnavailableError):
            await publish(each, "t", LINE, 1)
    sent, network.swallowed = network.passed, 0
    given_up = asyncio.create_task(publish(fresh, "t", LINE, 1))
    await until(lambda: network.swallowed > 0, "the call to be sent")
    network.swallows = False
    with pytest.raises(RedisUnavailableError):
        await given_up
    assert network.passed == sent  # it was not sent again
    seqs = count(2)

    async def works() -> bool:
        with suppress(RedisUnavailableError):  # on a busy machine an answer takes longer
            await publish(port, "t", LINE, next(seqs))
            return True
        return False

    await until(works, "a call that succeeds")
    await port.close()
    await fresh.close()


async def test_a_slow_server_still_works(network: RedisProxy, server: Server) -> None:
    """To log in may take nearly one limit, and the call that follows has another for itself."""
    network.delay_s = 0.6
    url, seqs = f"redis://u:{PASSWORD}@127.0.0.1:{network.port}/1", count(1)

    async def works() -> bool:
        with server.client() as client:
            client.script_flush()
        port = RedisPort(url, KEYS, call_timeout_s=2.0)
        try:
            # Two answers while logging in, and two to each call, which sends the missing script.
            await port.lead("t", 60.0)
            await publish(port, "t", LINE, next(seqs))
            assert (await port.leases()).live == []
        except RedisUnavailableError:  # on a busy machine an answer takes longer
            return False
        finally:
            await port.close()
        return True

    await until(works, "a login and calls that take longer than one limit together")


async def test_the_largest_demand_fits_into_the_limit(network: RedisProxy, server: Server) -> None:
    """As many entries as are read at once come within one call's limit from a slow server."""
    with server.client() as client:
        client.sadd(KEYS.symbols, *(f"S{n}" for n in range(SCAN_ABOVE)))
    network.delay_s = 0.1

    async def entries() -> int:
        """Return how many came; none where the machine was busy."""
        port = RedisPort(f"redis://u:{PASSWORD}@127.0.0.1:{network.port}/0", KEYS)
        try:
            return len([entry async for some in port.demand_set() for entry in some])
        except RedisUnavailableError:
            return 0
        finally:
            await port.close()

    assert await until(entries, "the demand") == SCAN_ABOVE


async def test_connecting_costs_no_round_trip_of_its_own(network: RedisProxy) -> None:
    """Without credentials and database there is nothing to say before the call."""
    port = patient(f"redis://127.0.0.1:{network.port}/0", KEYS)
    await port.leader()
    assert network.passed == 1
    await port.close()


# Real limits of time against a real delay, so a busy machine needs several tries. Quick: the slow
# server above.
@pytest.mark.long
@pytest.mark.parametrize("scheme", ["redis", "rediss"])
async def test_a_round_trip_of_600_ms_works(tmp_path: Path, scheme: str) -> None:
    """Daemon and client connect, with TLS too, and no call is given up."""
    tls = make_certificates(tmp_path) if scheme == "rediss" else None
    if tls is not None and redis_server() is None:
        pytest.skip("redis-server is not installed")
    options = "" if tls is None else f"?ssl_ca_certs={tls[0]}"
    binary = None if tls is None else redis_server()
    with Server(tmp_path / "server", binary=binary, tls=tls) as server:
        async with RedisProxy.to(server) as way:
            way.delay_s = 0.6
            url = f"{scheme}://127.0.0.1:{way.port}/0{options}"
            seqs = count(1)

            async def works() -> bool:
                failures: list[str | None] = []
                port = RedisPort(url, KEYS, outcome=lambda told: failures.append(told.failure))
                with suppress(RedisUnavailableError):
                    await port.lead("t", 60.0)
                    await publish(port, "t", LINE, next(seqs))
                    await port.leases()
                    assert [entry async for some in port.demand_set() for entry in some] == []
                    assert (await port.lead("t", 60.0)).held == "renewed"
                await port.close()
                return set(failures) == {None}

            await until(works, "every call to be answered")
            async with SpotClient(url) as spot:
                assert await spot.status() is None


class Addresses:
    """A host name with two addresses: at the first one nothing is answered."""

    def __init__(self, port: int) -> None:
        self._port = port

    def look_up(self, host: str, *_: Any, **__: Any) -> list[Any]:
        """Answer in the place of the system's resolver."""
        assert host == "two.test"
        return [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, self._port))
            for address in ("127.0.0.2", "127.0.0.1")
        ]


@pytest.mark.parametrize("accepts", [True, False])
@pytest.mark.parametrize("user", ["", f"u:{PASSWORD}@"])
async def test_an_address_that_swallows_packets_does_not_hold_up_the_next(
    server: Server, monkeypatch: pytest.MonkeyPatch, accepts: bool, user: str
) -> None:
    """A host name may lead to several addresses, and the first one that answers is used."""
    monkeypatch.setattr(socket, "getaddrinfo", Addresses(server.port).look_up)
    with ExitStack() as stack:
        swallowing = stack.enter_context(socket.socket())
        swallowing.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        swallowing.bind(("127.0.0.2", server.port))
        swallowing.listen(100 if accepts else 0)
        for _ in range(0 if accepts else 4):  # where the queue is full, the kernel answers nothing
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            with suppress(BlockingIOError):
                filler.connect(("127.0.0.2", server.port))
        url = f"redis://{user}two.test:{server.port}/0"
        port = RedisPort(url, KEYS, call_timeout_s=GUARD_S)
        for _ in range(2):
            assert (await port.lead("swallow", 60.0)).held != "another"
        await port.release("swallow")
        await port.close()
        async with SpotClient(url) as spot:
            assert await spot.status() is None


async def test_the_options_of_the_url_count(server: Server) -> None:
    """How long a try to connect and an answer may take is what the URL says."""
    address = f"redis://127.0.0.1:{server.port}/0"
    connecting = RedisPort(f"{address}?socket_connect_timeout=0.15&db=1", KEYS)
    answering = RedisPort(f"{address}?socket_timeout=0.2", KEYS, call_timeout_s=1000.0)

    async def connected() -> bool:
        with suppress(RedisUnavailableError):  # on a busy machine an answer takes longer
            await answering.leader()
            return True
        return False

    await until(connected, "a connection")
    server.freeze()
    try:
        with pytest.raises(RedisUnavailableError, match=r"no connection to .* within 0\.15 s"):
            await connecting.leader()
        with pytest.raises(RedisUnavailableError, match="no answer in time"):
            await answering.leader()
    finally:
        server.thaw()
    await connecting.close()
    await answering.close()


@pytest.mark.parametrize("option", ["ssl_ca_certs", "ssl_certfile", "ssl_keyfile"])
@pytest.mark.parametrize("scheme", ["rediss", "rediss+sentinel"])
async def test_a_file_of_the_url_that_is_missing_is_named(
    tmp_path: Path, option: str, scheme: str
) -> None:
    """The error says which option of the URL names which file, and why it cannot be read."""
    missing = tmp_path / "missing.pem"
    options = {"ssl_certfile": str(tmp_path / "cert.pem"), option: str(missing)}
    (tmp_path / "cert.pem").write_text("no certificate")
    query = "&".join(f"{name}={value}" for name, value in options.items())
    path = "/prices" if scheme.endswith("sentinel") else "/0"
    port = RedisPort(f"{scheme}://u:{PASSWORD}@127.0.0.1:1{path}?{query}", KEYS)
    with pytest.raises(RedisUnavailableError) as caught:
        await port.leader()
    await port.close()
    assert f"{option} {missing}"[:100] in str(caught.value)
    assert PASSWORD not in str(caught.value)


async def test_a_resolver_that_hangs(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call whose host name nobody answers for is given up, and a later one works."""
    resolve, hangs = asyncio.get_running_loop().getaddrinfo, True

    async def getaddrinfo(*named: Any, **options: Any) -> Any:
        if hangs:
            await asyncio.get_running_loop().create_future()
        return await resolve(*named, **options)

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
    port = RedisPort(f"redis://localhost:{server.port}/0", KEYS, call_timeout_s=GUARD_S)
    with pytest.raises(RedisUnavailableError):
        await port.leader()
    hangs = False
    assert await port.leader() is None
    await port.close()
