"""What goes wrong with Redis becomes one of our errors, in time, and without a secret."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import pytest
import redis
from redis.exceptions import OutOfMemoryError

from spotd.errors import RedisUnavailableError
from spotd.keys import Keys
from spotd.redis.clients import connect
from spotd.redis.errors import LoginRefusedError, RefusedError, answered, translated
from spotd.redis.port import Outcome, RedisPort
from tests.kit.ports import free_port
from tests.kit.redis_port import patient, publish
from tests.kit.servers import Server
from tests.kit.waiting import GUARD_S, until
from tests.kit.websocket import tcp_server

KEYS = Keys()
SECRET = "hunter2-ä"
QUOTED = "hunter2-%C3%A4"


@pytest.fixture(scope="module")
def guarded(process: Server) -> Server:
    """Return the server, with two users: one may not publish prices, one may only read."""
    with process.client() as client:
        client.execute_command(
            "ACL", "SETUSER", "feeder", "on", f">{SECRET}", "~*", "+@all", "&spotd:*"
        )
        client.execute_command(
            "ACL", "SETUSER", "reader", "on", f">{SECRET}", "~*", "+@read", "+info", "&spotd:*"
        )
    return process


def url(server: Server, user: str, password: str = QUOTED) -> str:
    """Return the server's URL with credentials."""
    return f"redis://{user}:{password}@127.0.0.1:{server.port}/0"


async def failure(ask: Callable[[RedisPort], Awaitable[object]], port: RedisPort) -> str:
    """Return the text of one failed call's error, with its whole traceback."""
    with pytest.raises(RedisUnavailableError) as caught:
        await ask(port)
    await port.close()
    return "".join(traceback.format_exception(caught.value))


async def answers(port: RedisPort) -> bool:
    """Return whether the server answers within the limit of the port."""
    with suppress(RedisUnavailableError):
        await port.leader()
        return True
    return False


async def test_a_wrong_password_is_not_repeated(guarded: Server) -> None:
    """The error says that the password is wrong, not which one was tried."""
    port = RedisPort(url(guarded, "feeder", "wrong-pass"), KEYS)
    said = await failure(lambda port: port.lead("t", 1.0), port)
    assert "invalid username-password pair" in said
    assert "wrong-pass" not in said


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("redis://feeder:wrong-pass@127.0.0.1:{port}/0", "refuses the login: "),
        ("redis://feeder:hunter2-%C3%A4@127.0.0.1:{port}/99", "refuses the database: "),
    ],
)
async def test_redis_that_does_not_let_us_in_is_said_to_refuse(
    guarded: Server, address: str, says: str
) -> None:
    """It is not away, and no call was answered: the outcome is a failure that is a refusal."""
    outcomes: list[Outcome] = []
    port = RedisPort(address.format(port=guarded.port), KEYS, outcome=outcomes.append)
    for call in (port.leader(), port.leases()):
        with pytest.raises(LoginRefusedError, match=says):
            await call
    await port.close()
    assert [outcome.refused for outcome in outcomes] == [True, True]
    assert all(says in (outcome.failure or "") for outcome in outcomes)


async def test_the_right_password_may_hold_any_character(guarded: Server) -> None:
    """A password is percent-encoded in the URL, and logs in as it is."""
    port = patient(url(guarded, "feeder"), KEYS)
    assert (await port.lead("t", 1.0)).held != "another"  # another test may have left its key
    await port.release("t")
    await port.close()


async def test_arguments_that_a_server_repeats_are_cut() -> None:
    """A server without HELLO answers with its arguments, one of which is the password."""

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
    assert SECRET not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    "address",
    [
        "redis://u:hunter2@h/0",
        "redis+sentinel://u:hunter2@h/prices",
        "redis+sentinel://h/prices?sentinel_password=hunter2",
        "redis+cluster://u:hunter2@h",
    ],
)
async def test_a_password_in_an_answer_is_hidden(address: str) -> None:
    """The password of every kind of client is replaced, and an error that holds it not chained."""
    client = connect(address)
    with pytest.raises(RedisUnavailableError) as caught, translated(client):
        raise OSError("unknown command 'AUTH', beginning with: 'hunter2'")
    await client.aclose()
    assert "'***'" in str(caught.value)
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))
    assert answered(caught.value) is False


@pytest.mark.parametrize(
    ("address", "place"),
    [
        ("redis://u:hunter2@h:1/3", "h:1/3"),
        ("unix:///run/redis.sock?db=1", "/run/redis.sock/1"),
        ("redis+sentinel://a,b/prices/2", "prices/2"),
        ("redis+cluster://u:hunter2@h:2,h:1", "the cluster of h:1"),
    ],
)
async def test_an_error_says_where_redis_is(address: str, place: str) -> None:
    """It names the server, the socket, the service behind Sentinel or a node of the cluster."""
    client = connect(address)
    with pytest.raises(RedisUnavailableError) as caught, translated(client):
        raise TimeoutError
    await client.aclose()
    assert str(caught.value) == f"Redis at {place}: no answer in time"


@pytest.mark.parametrize(
    "address", ["redis://u:hunter2@127.0.0.1:{port}/0", "redis://u:hunter2@no.such.invalid:1/0"]
)
async def test_nobody_there_is_unavailable(address: str) -> None:
    """A refused connection, or a host name that does not exist."""
    said = await failure(
        lambda port: port.leader(), RedisPort(address.format(port=free_port()), KEYS)
    )
    assert "hunter2" not in said


@pytest.mark.parametrize("place", ["127.0.0.1:{}/0", "127.0.0.1:{}/1", "localhost:{}/0"])
async def test_a_server_that_has_no_room_for_us_says_so(
    process: Server, db: redis.Redis, place: str
) -> None:
    """It says it and closes the connection, whether we log in first, ask first or publish first."""
    before = str(db.config_get("maxclients")["maxclients"])
    db.config_set("maxclients", 1)
    try:
        for ask in (
            lambda port: port.leader(),
            lambda port: publish(port, "t", b'{"symbol":"SPY"}\n', 1),
        ):
            port = patient(f"redis://{place.format(process.port)}", KEYS)
            assert "max number of clients reached" in await failure(ask, port)
    finally:
        db.config_set("maxclients", before)


@pytest.mark.parametrize("database", [0, 1])
async def test_a_server_in_protected_mode_says_so(database: int) -> None:
    """It serves its own machine alone. That is no answer to a command: another try may be heard."""

    async def turn_away(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"-DENIED Redis is running in protected mode because no password is set.\r\n")
        await writer.drain()
        writer.close()

    async with tcp_server(turn_away) as number:
        port = RedisPort(f"redis://127.0.0.1:{number}/{database}", KEYS)
        with pytest.raises(RedisUnavailableError, match="DENIED Redis is running in") as caught:
            await port.leader()
        await port.close()
    assert not answered(caught.value)


async def test_a_missing_socket_is_unavailable(tmp_path: Path) -> None:
    """A path of ``unix://`` at which nobody listens is unavailable."""
    await failure(lambda port: port.leader(), RedisPort(f"unix://{tmp_path}/none.sock", KEYS))


async def test_a_call_to_a_server_that_hangs_is_given_up(guarded: Server) -> None:
    """Connected before or not: the call fails while the server hangs, and works again after it."""
    connected, new = (RedisPort(url(guarded, "feeder"), KEYS, call_timeout_s=0.2) for _ in range(2))
    await until(lambda: answers(connected), "a connection")
    guarded.freeze()
    try:
        for port, why in ((connected, "no answer in time"), (new, "no connection to 127")):
            with pytest.raises(RedisUnavailableError, match=why):
                await port.lead("t", 1.0)
    finally:
        guarded.thaw()
    for port in (connected, new):
        await until(lambda port=port: answers(port), "an answer")  # type: ignore[misc]
        await port.close()


async def test_what_is_not_permitted_is_refused(guarded: Server) -> None:
    """A user who may not use a channel or a command gets an error of its own class."""
    feeder = patient(url(guarded, "feeder"), KEYS)
    await feeder.lead("t", 600.0)
    with pytest.raises(RefusedError, match="permission"):
        await publish(feeder, "t", b'{"symbol":"SPY"}\n', 1)
    await feeder.release("t")
    await feeder.close()
    reader = patient(url(guarded, "reader"), KEYS)
    assert [entry async for some in reader.demand_set() for entry in some] == []
    with pytest.raises(RefusedError, match="permission"):
        await reader.leases()
    await reader.close()


async def test_a_server_without_memory_publishes_nothing_and_renews_no_leadership(
    tmp_path: Path,
) -> None:
    """An update that cannot be stored is not published, and the leader key is not renewed."""
    with Server(tmp_path) as full, full.client() as client, client.pubsub() as listening:
        listening.subscribe("spot:SPY")
        port = patient(full.url, KEYS)
        await port.lead("t", 60.0)
        client.config_set("maxmemory", 1)
        with pytest.raises(RedisUnavailableError, match="maxmemory"):
            await publish(port, "t", b'{"symbol":"SPY"}\n', 1)
        with pytest.raises(RedisUnavailableError, match="maxmemory"):
            await port.lead("t", 60.0)
        client.config_set("maxmemory", 0)
        await publish(port, "t", b'{"symbol":"SPY"}\n', 1)
        listening.get_message(timeout=GUARD_S)  # subscribed
        heard = listening.get_message(timeout=GUARD_S)
        assert heard is not None
        assert heard["data"] == '{"symbol":"SPY"}'
        await port.close()


async def test_other_answers_are_unavailable_too(guarded: Server) -> None:
    """A server that is not a master any more refuses to write."""
    with guarded.client() as client:
        client.replicaof("127.0.0.1", str(free_port()))
        try:
            port = patient(url(guarded, "feeder"), KEYS)
            said = await failure(lambda port: port.lead("t", 1.0), port)
        finally:
            client.replicaof("NO", "ONE")
    assert "read only replica" in said


@pytest.mark.parametrize(
    ("address", "raised", "told"),
    [
        (
            "redis://h:1/0",
            "Error 111 connecting to h:1. Connect call failed ('10.0.0.1', 1).",
            "Redis at h:1/0: Connection refused",
        ),
        (
            "redis://h:1/0",
            "Error 111 connecting to ::1:1. Connect call failed ('::1', 1, 0, 0).",
            "Redis at h:1/0: ::1:1: Connection refused",
        ),
        (
            "redis://h:1/0",
            "Error -2 connecting to h:1. Name or service not known.",
            "Redis at h:1/0: Name or service not known.",
        ),
        (
            "unix:///run/redis.sock",
            "Error 2 connecting to /run/redis.sock. No such file or directory.",
            "Redis at /run/redis.sock/0: No such file or directory.",
        ),
        (
            "redis+cluster://h:1",
            "no node: Error 111 connecting to n:2. Connect call failed ('10.0.0.2', 2).",
            "Redis at the cluster of h:1: no node: n:2: Connection refused",
        ),
        ("redis://h:1/0", "Timeout reading from h:1", "Redis at h:1/0: no answer in time"),
        ("redis://h:1/0", "Timeout connecting to server", "Redis at h:1/0: no connection in time"),
    ],
)
async def test_a_failed_connection_is_told_in_words(address: str, raised: str, told: str) -> None:
    """Its words are the system's or spotd's, and no address stands there twice."""
    client = connect(address)
    with pytest.raises(RedisUnavailableError) as caught, translated(client):
        raise OSError(raised)
    await client.aclose()
    assert str(caught.value) == told


@pytest.mark.parametrize("name", [f"{'a' * 40}, ", ""], ids=["redis", "valkey 9"])
async def test_the_name_of_a_script_is_left_out(name: str) -> None:
    """An operator can do nothing with it, and it stands behind the words that count."""
    client = connect("redis://h:1/0")
    said = f"OOM command not allowed. script: {name}on @user_script:28."
    with pytest.raises(RedisUnavailableError) as caught, translated(client):
        raise OutOfMemoryError(said)
    await client.aclose()
    assert str(caught.value).endswith(": OOM command not allowed")


async def test_a_refused_connection_is_told_once_and_in_words() -> None:
    """The address stands once in the error, and the system's words instead of Python's."""
    number = free_port()
    port = RedisPort(f"redis://127.0.0.1:{number}/0", KEYS)
    with pytest.raises(RedisUnavailableError) as caught:
        await port.leader()
    await port.close()
    assert str(caught.value) == f"Redis at 127.0.0.1:{number}/0: Connection refused"
