"""What goes wrong with Redis becomes one of our errors, in time, and without a secret."""

from __future__ import annotations

import asyncio
import time
import traceback
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from spotd.errors import RedisUnavailableError, SettingsError
from spotd.keys import Keys
from spotd.redis.addresses import connect
from spotd.redis.errors import RefusedError
from spotd.redis.port import RedisPort
from tests.kit.servers import Server, free_port

KEYS = Keys()
SECRET = "hunter2-ä"
QUOTED = "hunter2-%C3%A4"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with users: one may do all but publish prices, one may do nothing."""
    with Server(tmp_path_factory.mktemp("guarded")) as running:
        with running.client() as client:
            client.execute_command(
                "ACL", "SETUSER", "feeder", "on", f">{SECRET}", "~*", "+@all", "&spotd:*"
            )
            client.execute_command(
                "ACL", "SETUSER", "reader", "on", f">{SECRET}", "~*", "+@read", "+info", "&spotd:*"
            )
        yield running


def url(server: Server, user: str, password: str = QUOTED) -> str:
    """The server's URL with credentials."""
    return f"redis://{user}:{password}@127.0.0.1:{server.port}/0"


async def failure(ask: Callable[[RedisPort], Awaitable[object]], port: RedisPort) -> str:
    """What one failed call says, its whole traceback included."""
    with pytest.raises(RedisUnavailableError) as caught:
        await ask(port)
    await port.close()
    return "".join(traceback.format_exception(caught.value))


async def test_a_wrong_password_is_not_repeated(guarded: Server) -> None:
    """The error says that the password is wrong, not which one was tried."""
    port = RedisPort(url(guarded, "feeder", "wrong-pass"), KEYS)
    said = await failure(lambda port: port.lead("t", 1.0), port)
    assert "invalid username-password pair" in said
    assert "wrong-pass" not in said


async def test_the_right_password_may_hold_any_character(guarded: Server) -> None:
    """It is percent-encoded in the URL."""
    port = RedisPort(url(guarded, "feeder"), KEYS)
    assert (await port.lead("t", 1.0)).granted
    await port.release("t")
    await port.close()


async def test_arguments_that_a_server_repeats_are_cut() -> None:
    """A server that knows no HELLO answers with its arguments, and the password is one of them."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readline():
            said = f"-ERR unknown command 'HELLO', with args beginning with: '3' '{SECRET}'\r\n"
            writer.write(said.encode())
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as old:
        host, number = old.sockets[0].getsockname()
        port = RedisPort(f"redis://u:{QUOTED}@{host}:{number}/0", KEYS)
        with pytest.raises(RedisUnavailableError) as caught:
            await port.leader()
        await port.close()
    assert "unknown command" in str(caught.value)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "address", ["redis://u:hunter2@127.0.0.1:{port}/0", "redis://u:hunter2@no.such.invalid:1/0"]
)
async def test_nobody_there_is_unavailable(address: str) -> None:
    """A refused connection, or a name that is none."""
    said = await failure(
        lambda port: port.leader(), RedisPort(address.format(port=free_port()), KEYS)
    )
    assert "hunter2" not in said


async def test_a_missing_socket_is_unavailable(tmp_path: Path) -> None:
    """The same for ``unix://``."""
    await failure(lambda port: port.leader(), RedisPort(f"unix://{tmp_path}/none.sock", KEYS))


async def test_a_server_that_hangs_is_waited_for_within_the_limit(
    guarded: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Connected before or not: a call fails in time, and works again when the server does."""
    monkeypatch.setattr("spotd.redis.port.CALL_TIMEOUT_S", 0.2)
    connected, new = (RedisPort(url(guarded, "feeder"), KEYS) for _ in range(2))
    await connected.leader()
    guarded.freeze()
    try:
        for port in (connected, new):
            started = time.monotonic()
            with pytest.raises(RedisUnavailableError, match="TimeoutError"):
                await port.lead("t", 1.0)
            assert time.monotonic() - started < 0.5
    finally:
        guarded.thaw()
    for port in (connected, new):
        await port.leader()
        await port.close()


async def test_what_is_not_permitted_is_refused(guarded: Server) -> None:
    """A user that may not use a channel or a command: said once and for all."""
    feeder = RedisPort(url(guarded, "feeder"), KEYS)
    await feeder.lead("t", 5.0)
    with pytest.raises(RefusedError, match="permission"):
        await feeder.publish("t", b'{"symbol":"SPY"}\n', 1)
    await feeder.release("t")
    await feeder.close()
    reader = RedisPort(url(guarded, "reader"), KEYS)
    assert [entry async for some in reader.demand_set() for entry in some] == []
    with pytest.raises(RefusedError, match="permission"):
        await reader.live_leases(0.0)
    await reader.close()


async def test_a_server_without_memory_publishes_nothing_and_grants_no_lease(
    tmp_path: Path,
) -> None:
    """All or nothing: what cannot be kept is not published, and no lease is renewed."""
    with Server(tmp_path) as full, full.client() as client, client.pubsub() as listening:
        listening.subscribe("spot:SPY")
        port = RedisPort(full.url, KEYS)
        await port.lead("t", 60.0)
        client.config_set("maxmemory", 1)
        with pytest.raises(RedisUnavailableError, match="maxmemory"):
            await port.publish("t", b'{"symbol":"SPY"}\n', 1)
        with pytest.raises(RedisUnavailableError, match="maxmemory"):
            await port.lead("t", 60.0)
        client.config_set("maxmemory", 0)
        await port.publish("t", b'{"symbol":"SPY"}\n', 1)
        listening.get_message(timeout=5)  # subscribed
        heard = listening.get_message(timeout=5)
        assert heard is not None
        assert heard["data"] == '{"symbol":"SPY"}'
        await port.close()


async def test_other_answers_are_unavailable_too(guarded: Server) -> None:
    """Such as a server that is no master any more."""
    with guarded.client() as client:
        client.replicaof("127.0.0.1", str(free_port()))
        try:
            port = RedisPort(url(guarded, "feeder"), KEYS)
            said = await failure(lambda port: port.lead("t", 1.0), port)
        finally:
            client.replicaof("NO", "ONE")
    assert "read only replica" in said


@pytest.mark.parametrize(
    "wrong",
    [
        "http://u:hunter2@host/0",
        "redis://u:hunter2@host:port/0",
        "redis+sentinel://u:hunter2@host:1",
        "redis+sentinel://u:hunter2@host:1/prices/first",
        "redis+sentinel://u:hunter2@/prices",
        "redis+sentinel://u:hunter2@host:1/prices?nonsense=1",
        "redis+sentinel://u:hunter2@host:1/prices?socket_timeout=1",
        "redis://u:hunter2@host:1/0?nonsense=1",
        "redis+sentinel://u:hunter2@host:1/prices?sentinel_nonsense=1",
        "redis+cluster://u:hunter2@host:1,",
    ],
)
def test_a_url_that_is_none_is_a_wrong_setting(wrong: str) -> None:
    """Named by its variable, and without what it holds."""
    with pytest.raises(SettingsError, match="SPOTD_REDIS_URL") as caught:
        connect(wrong)
    said = "".join(traceback.format_exception(caught.value))
    assert "hunter2" not in said.replace(f'connect("{wrong}")', "")
    assert caught.value.exit_code == 2
