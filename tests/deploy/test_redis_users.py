"""``deploy/redis/users.acl``: each user's rights are enough for what it is for, and the least."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, cast

import pytest
from pydantic import SecretStr
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, NoPermissionError
from redis.retry import Retry

from spotd.client import SpotClient
from spotd.errors import RedisUnavailableError
from spotd.keys import Keys
from spotd.redis.demand import DemandRead, SameDemand
from spotd.redis.port import SCAN_ABOVE, RedisPort
from spotd.redis.rights import DENIED, as_arguments, rights_of_daemon
from spotd.simulator import Simulator
from tests.client.told import Told
from tests.daemon.rig import KEY, SECRET, Rig, quote
from tests.kit.acl import USERS, rules_of
from tests.kit.publisher import status_of, update_of
from tests.kit.redis_port import patient, publish
from tests.kit.servers import ClusterServers, Server, redis_server
from tests.kit.waiting import until
from tests.relay.test_whole import relay

KEYS = Keys()
DAEMON, RELAY, CONSUMER = "spotd-daemon", "spotd-relay", "spotd-consumer"
PASSWORD = "secret"
NO_RETRY = Retry(NoBackoff(), 0)


def is_grant(rule: str) -> bool:
    """Return whether a rule allows something."""
    return rule[0] in "+~%&("


@pytest.fixture(
    scope="module",
    params=[
        None,
        pytest.param(
            redis_server(),
            marks=pytest.mark.skipif(redis_server() is None, reason="redis-server is missing"),
        ),
    ],
    ids=["valkey", "redis"],
)
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """Yield a server on which the default user may still do everything."""
    with Server(tmp_path_factory.mktemp("users"), binary=request.param) as running:
        yield running


@pytest.fixture
def admin(server: Server) -> Iterator[Any]:
    """Yield a client that may do everything, of an empty server."""
    with server.client() as client:
        client.flushall()
        client.script_flush()
        yield client


def grant(admin: Any, user: str, rules: list[str]) -> None:
    """Give a user these rules alone."""
    admin.execute_command("ACL", "SETUSER", user, "reset", f">{PASSWORD}", *rules)
    admin.execute_command("ACL", "LOG", "RESET")


def denied(admin: Any) -> list[str]:
    """Return what Redis denied since the last grant."""
    return [f"{entry['reason']} {entry['object']}" for entry in admin.acl_log()]


def url_of(server: Server, user: str) -> str:
    """Return the URL with which a user logs in."""
    return f"redis://{user}:{PASSWORD}@127.0.0.1:{server.port}/0"


# What each of them does


@asynccontextmanager
async def port_of(url: str) -> AsyncIterator[RedisPort]:
    """Yield the daemon's port."""
    port = patient(url, KEYS, wake_silence_s=0.01)
    yield port
    await port.close()


@asynccontextmanager
async def client_of(url: str) -> AsyncIterator[SpotClient]:
    """Yield a client that pings a silent server soon."""
    async with SpotClient(url, owner="me", heartbeat_s=0.05) as spot:
        yield spot


async def lead_and_publish(port: RedisPort, admin: Any) -> None:
    """Make every call of the daemon, over data of every shape that makes it call another."""
    admin.set(KEYS.leader, "t")
    for count in (1, SCAN_ABOVE + 1):
        names = [f"S{number}" for number in range(count)]
        admin.sadd(KEYS.symbols, *names)
        admin.zadd(KEYS.leases, {f"{name}@me": 4e9 for name in names})
        async for _ in port.demand_set():
            pass
        await port.leases()
        read = await port.demand()
        assert isinstance(read, DemandRead)
        if read.digest:  # without the right to DUMP there is none
            assert isinstance(await port.demand(read.digest), SameDemand)
    await port.not_in_set([b"SPY"])
    await port.not_leased([b"SPY@me"], 1.0)
    await port.lead("t", 60.0)
    await port.lead("another", 60.0)
    for garbage in (False, True):
        for key in (KEYS.last, KEYS.states) if garbage else ():
            admin.set(key, "no hash")
        await publish(port, "t", b'{"symbol":"SPY"}\n', 1 + garbage)
        await port.write_states("t", {"SPY": b"{}"}, {"QQQ": b"{}"})
    await port.write_status("t", b"{}", 5.0, announce=True)
    await port.drop_last("t", ["SPY"])
    for read_all in (port.last_fields, port.last_prices, port.state_fields, port.states):
        await read_all()
    await port.leader()
    async with asyncio.TaskGroup() as group:
        heard = asyncio.Event()
        group.create_task(wake_after_a_ping(admin, heard))
        while not heard.is_set():
            with suppress(RedisUnavailableError):  # the answer to a ping may come too late
                await hear_a_wake(port)
                heard.set()
    await port.release("t")


def calls_of(admin: Any, command: str) -> int:
    """Return how often a command was called."""
    return int(admin.info("commandstats").get(f"cmdstat_{command}", {}).get("calls", 0))


async def called(admin: Any, command: str) -> None:
    """Wait until a command is called once more."""
    before = calls_of(admin, command)
    await until(lambda: calls_of(admin, command) > before, command)


async def wake_after_a_ping(admin: Any, heard: asyncio.Event) -> None:
    """Wait for a ping, then wake whoever listens, until that is heard."""

    def wake() -> bool:
        admin.publish(KEYS.wake, "")
        return heard.is_set()

    await called(admin, "ping")
    await until(wake, "the wake to be heard")


async def hear_a_wake(port: RedisPort) -> None:
    """Listen until somebody wakes us."""
    async with aclosing(cast("AsyncGenerator[None, None]", port.wakes())) as wakes:
        await anext(wakes)  # listening began
        await anext(wakes)


async def serve(spot: SpotClient, admin: Any) -> None:
    """Do what a relay does for a symbol, from its demand to its end."""
    told = Told()
    async with spot.follow(told) as follower:
        follower.add("SPY")
        await follower.confirm("SPY")
        await told.until("connection", True)
        assert await spot.latest("SPY") == {"SPY": None}
        await called(admin, "ping")
        await called(admin, "role")
        follower.remove("SPY")
        await until(lambda: calls_of(admin, "unsubscribe"), "the end")


async def consume(spot: SpotClient, admin: Any) -> None:
    """Make every call of a service, also of one that knows Redis alone."""
    for symbol in ("SPY", "QQQ"):
        admin.hset(KEYS.last, symbol, update_of(symbol).to_json())
    await spot.add("SPY")
    assert await spot.desired() == {"SPY"}
    await spot.remove("SPY")
    for read in (spot.latest, spot.states, spot.status):
        await read()
    await spot.latest("SPY")
    async with aclosing(spot.updates("SPY")) as updates:
        assert (await anext(updates)).seq == 1
        async with aclosing(spot.updates("QQQ")) as others:
            assert (await anext(others)).symbol == "QQQ"
        await until(lambda: calls_of(admin, "unsubscribe"), "the end")
        await called(admin, "ping")
        await called(admin, "role")
    admin.set(KEYS.status, status_of().to_json())
    async with aclosing(spot.events()) as events:
        await anext(events)


def read_by_hand(server: Server) -> None:
    """Read a price as a service does that knows Redis alone, and the leader as `spotd status`."""
    login = {"username": CONSUMER, "password": PASSWORD}
    with server.client(driver_info=None, **login) as client:
        with suppress(NoPermissionError):
            client.hget(KEYS.last, "SPY")
        with suppress(NoPermissionError):
            client.get(KEYS.leader)


Open = Callable[[str], AbstractAsyncContextManager[Any]]
Work = Callable[[Any, Any], Coroutine[Any, Any, None]]
WORK: dict[str, tuple[Open, Work]] = {
    DAEMON: (port_of, lead_and_publish),
    RELAY: (client_of, serve),
    CONSUMER: (client_of, consume),
}


async def works(server: Server, admin: Any, user: str, rules: list[str]) -> bool:
    """Return whether a user with these rules can do its work without a denial."""
    admin.flushall()
    admin.script_flush()
    admin.config_resetstat()
    grant(admin, user, rules)
    if user == CONSUMER:
        read_by_hand(server)
    opened, work = WORK[user]
    async with opened(url_of(server, user)) as tool:
        working = asyncio.create_task(work(tool, admin))
        await until(lambda: working.done() or denied(admin), "its end, or a denial")
        if not denied(admin):
            await working
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
        return not denied(admin)


@pytest.mark.parametrize("user", WORK)
async def test_enough(server: Server, admin: Any, user: str) -> None:
    """With the rights in the file the user does all its work, and Redis denies nothing."""
    assert await works(server, admin, user, rules_of(user)), denied(admin)


@pytest.mark.parametrize(
    ("user", "right"),
    [(user, right) for user in WORK for right in rules_of(user) if is_grant(right)],
)
async def test_least(server: Server, admin: Any, user: str, right: str) -> None:
    """Without any one of its rights the user cannot do its work."""
    rules = rules_of(user)
    rules.remove(right)
    assert not await works(server, admin, user, rules)


FORBIDDEN = [
    ("SET", KEYS.leader, "me"),
    ("HSET", KEYS.last, "SPY", "{}"),
    ("HSET", KEYS.states, "SPY", "{}"),
    ("SET", KEYS.status, "{}"),
    ("PUBLISH", "spot:SPY", "{}"),
    ("PUBLISH", KEYS.events, "{}"),
    ("EVAL", "return 1", "0"),
    ("PSUBSCRIBE", "*"),
]
ADMINISTRATION = [("CONFIG", "GET", "*"), ("FLUSHALL",), ("KEYS", "*"), ("GET", "another:key")]


@pytest.mark.parametrize(
    ("user", "command"),
    [(user, command) for user in (RELAY, CONSUMER) for command in FORBIDDEN]
    + [(user, command) for user in WORK for command in ADMINISTRATION]
    + [(DAEMON, ("SADD", KEYS.symbols, "SPY")), (RELAY, ("SADD", KEYS.symbols, "SPY"))],
)
def test_forbidden(server: Server, admin: Any, user: str, command: tuple[str, ...]) -> None:
    """Only the daemon writes and publishes prices, and none of the users is an administrator."""
    grant(admin, user, rules_of(user))
    with (
        server.client(username=user, password=PASSWORD) as client,
        pytest.raises(NoPermissionError),
    ):
        client.execute_command(*command)


def test_rights_that_are_checked(server: Server, admin: Any) -> None:
    """``spotd check`` asks for the rights that the file grants to the daemon, and no other."""
    rules = rules_of(DAEMON)
    rights = rights_of_daemon(KEYS)
    commands = {f"+{right[0].lower()}" for right in rights}
    assert commands == {rule for rule in rules if rule.startswith("+")}
    for rule in filter(is_grant, rules):
        grant(admin, DAEMON, [*(each for each in rules if each != rule), "+eval"])
        with server.client(username=DAEMON, password=PASSWORD) as client:
            found = client.eval(DENIED, 0, *as_arguments(rights))
        assert found or rule == "+eval", rule


async def test_all_together(server: Server, admin: Any) -> None:
    """Daemon, relay and consumer, each as its user: a price arrives, and Redis denies nothing."""
    for user in WORK:
        grant(admin, user, rules_of(user))
    daemon_url = SecretStr(url_of(server, DAEMON))
    async with (
        Simulator(keys={KEY: SECRET}) as sim,
        Rig(server.url, sim, redis_url=daemon_url) as rig,
        relay(server, redis_url=url_of(server, RELAY)) as http,
        SpotClient(url_of(server, CONSUMER)) as spot,
        http.ws_connect("/ws") as browser,
        aclosing(spot.updates("SPY")) as updates,
    ):
        await browser.send_json({"action": "subscribe", "symbols": ["SPY", "QQQ"]})
        await until(lambda: rig.active == {"SPY", "QQQ"}, "both to be live")
        await sim.send([quote("SPY", 421.35), quote("QQQ", 380.1)])
        assert (await anext(updates)).bid_price == 421.35
        message = await browser.receive_json()
        while message["type"] != "spot_price_update":
            message = await browser.receive_json()
    assert denied(admin) == []


async def test_in_a_cluster(cluster: ClusterServers) -> None:
    """With the prefix of a cluster and the right to ask for its slots they are enough, too."""
    keys = Keys("{spotd}:")
    for user, more in ((DAEMON, ["+cluster|slots"]), (DAEMON, []), (CONSUMER, ["+cluster|slots"])):
        for node in cluster.nodes:
            with node.client() as client:
                rules = [rule.replace("spotd:", "{spotd}:") for rule in rules_of(user)]
                grant(client, user, [*rules, *more])
        url = cluster.url.replace("://", f"://{user}:{PASSWORD}@")
        if user == CONSUMER:
            async with SpotClient(url, key_prefix="{spotd}:") as spot:
                assert await spot.add("SPY") == ["SPY"]
                assert await spot.remove("SPY") == ["SPY"]
            continue
        port = patient(url, keys)
        if more:
            await port.lead("t", 60.0)
            await publish(port, "t", b'{"symbol":"SPY"}\n', 1)
            async with aclosing(cast("AsyncGenerator[None, None]", port.wakes())) as wakes:
                await anext(wakes)
            assert await port.denied(rights_of_daemon(keys)) == []
            await port.release("t")
        else:
            with pytest.raises(RedisUnavailableError, match=r"cluster\|slots"):
                await port.leader()
        await port.close()


def test_nobody_can_log_in_before_a_password_is_set(server: Server, admin: Any) -> None:
    """The file holds no password, and none of its users does without one."""
    for user in WORK:
        assert not [rule for rule in rules_of(user) if rule == "nopass" or rule[0] in ">#"]
        admin.execute_command("ACL", "SETUSER", user, "reset", *rules_of(user))
        for password in ("", "x"):
            with (
                server.client(username=user, password=password, retry=NO_RETRY) as client,
                pytest.raises(AuthenticationError),
            ):
                client.ping()


def test_the_file_is_taken_as_it_is(tmp_path: Path) -> None:
    """A server starts with the file, and then nobody gets in without a user."""
    administrator = "user admin on >root ~* &* +@all\n"
    (tmp_path / "users.acl").write_text(administrator + USERS.read_text())
    options = ("--aclfile", str(tmp_path / "users.acl"))
    login = {"username": "admin", "password": "root"}
    with Server(tmp_path / "server", *options, login=login) as server:
        with (
            server.client(username=None, password=None, retry=NO_RETRY) as nobody,
            pytest.raises(AuthenticationError),
        ):
            nobody.ping()
        with server.client() as client:
            users: Any = client.acl_users()
        assert {DAEMON, RELAY, CONSUMER} < set(users)
