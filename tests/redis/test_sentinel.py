"""The master that Sentinels name: found while some hang, left when another one is named."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import hiredis
import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from spotd.client import SpotClient
from spotd.errors import RedisUnavailableError
from spotd.keys import Keys
from spotd.redis.clients import connect, master_of
from spotd.redis.dial import Address
from spotd.redis.port import Outcome, RedisPort
from spotd.redis.sentinel import SentinelMaster, announced
from tests.kit.redis_port import patient
from tests.kit.servers import SentinelServers, Server
from tests.kit.waiting import GUARD_S, until, until_sync
from tests.kit.websocket import tcp_server

KEYS = Keys()


@pytest.mark.parametrize(
    ("channel", "said", "named"),
    [
        ("+switch-master", "prices 10.0.0.1 6379 10.0.0.2 6380", ("10.0.0.2", 6380)),
        ("+switch-master", "other 10.0.0.1 6379 10.0.0.2 6380", None),
        ("+switch-master", "prices", None),
        (
            "+promoted-slave",
            "slave 10.0.0.2:6380 10.0.0.2 6380 @ prices 10.0.0.1 6379",
            ("10.0.0.2", 6380),
        ),
        ("+promoted-slave", "slave 10.0.0.2:6380 10.0.0.2 6380 @ other 10.0.0.1 6379", None),
        ("+sdown", "slave 10.0.0.2:6380 10.0.0.2 6380 @ prices 10.0.0.1 6379", None),
    ],
)
def test_what_a_sentinel_announces(channel: str, said: str, named: tuple[str, int] | None) -> None:
    """Of all its events, those count that name a new master of our service."""
    assert announced(channel.encode(), said.encode(), "prices") == named


class Sentinels:
    """A master with its replica, and three Sentinels in the order of the URL."""

    def __init__(self, directory: Path, stack: ExitStack, down_after_ms: int) -> None:
        servers = SentinelServers(directory, down_after_ms=down_after_ms)
        self.servers, self._down_after_ms = stack.enter_context(servers), down_after_ms
        self.master, self.replica = self.servers.master, self.servers.replica
        self.first, self.third = (
            stack.enter_context(self._sentinel(directory / name)) for name in ("first", "third")
        )
        self.all = (self.first, self.servers.sentinel, self.third)

    @property
    def url(self) -> str:
        """The URL that names all of them."""
        return (
            "redis+sentinel://"
            + ",".join(f"127.0.0.1:{each.port}" for each in self.all)
            + f"/{self.servers.service}/0"
        )

    async def know_each_other(self) -> None:
        """Wait until each Sentinel knows the other two, and the replica."""

        def known() -> bool:
            for each in self.all:
                with each.client() as client:
                    others = client.execute_command("SENTINEL SENTINELS", self.servers.service)
                    replicas = client.execute_command("SENTINEL REPLICAS", self.servers.service)
                if (len(others), len(replicas)) != (2, 1):
                    return False
            return True

        await until(known, "the Sentinels to know each other")

    def fail_over(self) -> None:
        """Have one of those that work make the replica the master."""
        until_sync(self.servers.fail_over, "a replica that can be promoted")

    def _sentinel(self, directory: Path) -> Server:
        service = self.servers.service
        return Server(
            directory,
            "--sentinel",
            config=(
                f"sentinel monitor {service} 127.0.0.1 {self.master.port} 2\n"
                f"sentinel down-after-milliseconds {service} {self._down_after_ms}\n"
                f"sentinel failover-timeout {service} 3000\n"
            ),
        )


class Announcer:
    """A Sentinel that names and announces what the test says."""

    def __init__(self, port: int) -> None:
        self.names = port  # the master, by its port
        self.port = 0
        self.asked = 0
        self.listeners: list[asyncio.StreamWriter] = []

    @classmethod
    @asynccontextmanager
    async def naming(cls, port: int) -> AsyncIterator[Announcer]:
        """Listen on a free port."""
        announcer = cls(port)
        async with tcp_server(announcer.serve) as announcer.port:
            yield announcer

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer what is asked over one connection."""
        parser = hiredis.Reader()
        while data := await reader.read(1 << 16):
            parser.feed(data)
            while (command := parser.gets()) is not False:
                match command:
                    case [b"SUBSCRIBE", *channels]:
                        told = [[b"subscribe", each, n] for n, each in enumerate(channels, 1)]
                        self.listeners.append(writer)
                    case [b"SENTINEL", *_]:
                        self.asked += 1
                        told = [[b"127.0.0.1", b"%d" % self.names]]
                    case _:
                        raise AssertionError(f"what is {command}?")
                writer.write(b"".join(map(_packed, told)))

    def announce(self, port: int) -> None:
        """Say that another server is the master now, and name it from now on."""
        said = b"prices 127.0.0.1 %d 127.0.0.1 %d" % (self.names, port)
        self.names = port
        for listener in self.listeners:
            listener.write(_packed([b"message", b"+switch-master", said]))


def _packed(answer: list[bytes | int]) -> bytes:
    parts = [b":%d" % each if isinstance(each, int) else b"$%d\r\n%b" % (len(each), each)
             for each in answer]  # fmt: skip
    return b"*%d\r\n%b\r\n" % (len(parts), b"\r\n".join(parts))


OLD, NEW = 1, 2  # ports, to which only the test connects


@pytest.fixture
async def told() -> AsyncIterator[tuple[Announcer, Announcer, SentinelMaster]]:
    """Yield two Sentinels and what listens to both. The first one has announced the new master."""
    async with Announcer.naming(OLD) as first, Announcer.naming(OLD) as second:
        client = connect(f"redis+sentinel://127.0.0.1:{first.port},127.0.0.1:{second.port}/prices")
        master = master_of(client)
        assert isinstance(master, SentinelMaster)
        assert await master.open(_port_of, print) == OLD
        await until(lambda: first.listeners and second.listeners, "both to be listened to")
        heard: list[str] = []
        master.on_drop(heard.append)
        first.announce(NEW)
        await until(lambda: any("the Sentinels name" in why for why in heard), "the announcement")
        yield first, second, master
        await client.aclose()


async def _port_of(address: Address) -> int:
    return address.port


async def test_a_sentinel_that_was_told_of_no_switch_yet_is_not_believed(
    told: tuple[Announcer, Announcer, SentinelMaster],
) -> None:
    """The announced master is slow to connect to: nobody goes back to the former one meanwhile."""
    _, second, master = told
    connects = asyncio.Event()

    async def connection(address: Address) -> int:
        if address.port == NEW:
            await connects.wait()
        return address.port

    asked = second.asked
    opening = asyncio.create_task(master.open(connection, print))
    await until(lambda: second.asked > asked, "the other Sentinel to be asked")
    connects.set()
    assert await opening == NEW


async def test_an_announced_master_that_is_gone_does_not_hide_the_former_one(
    told: tuple[Announcer, Announcer, SentinelMaster],
) -> None:
    """Where no way leads to the announced one, the Sentinels are believed at the next try."""
    first, _, master = told
    first.names = OLD

    async def connection(address: Address) -> int:
        if address.port == NEW:
            raise ConnectionRefusedError("refused")
        return address.port

    with pytest.raises(RedisConnectionError, match="still names the former master"):
        await master.open(connection, print)
    assert await master.open(connection, print) == OLD
    # What is announced later counts, also where it is the same.
    drops = master.drops
    first.announce(NEW)
    await until(lambda: master.drops > drops, "the announcement to be heard")


@pytest.fixture
def down_after_ms() -> int:
    """Return how long a server may be silent. None is taken for dead because it paused."""
    return 60_000


@pytest.fixture
async def sentinels(tmp_path: Path, down_after_ms: int) -> AsyncIterator[Sentinels]:
    """Yield three Sentinels that know each other."""
    with ExitStack() as stack:
        running = Sentinels(tmp_path, stack, down_after_ms)
        await running.know_each_other()
        yield running


async def works(port: RedisPort) -> bool:
    """Return whether the port may write now."""
    try:
        return (await port.lead("t", 60.0)).held != "another"
    except RedisUnavailableError:
        return False


@pytest.mark.parametrize("down_after_ms", [1_500])
async def test_sentinels_that_hang_are_not_waited_for(sentinels: Sentinels) -> None:
    """The first of three hangs: the others are asked before its time is over."""
    sentinels.first.freeze()
    port = RedisPort(sentinels.url, KEYS, call_timeout_s=GUARD_S)
    assert await works(port)
    async with SpotClient(sentinels.url) as spot:
        assert await spot.status() is None
    sentinels.master.kill()
    with sentinels.replica.client() as client:
        await until(lambda: client.role()[0] == "master", "the fail-over")
    await until(lambda: works(port), "the new master to be found")
    await port.close()
    sentinels.first.thaw()


async def test_an_announced_master_is_used_while_the_old_one_still_takes_writes(
    sentinels: Sentinels,
) -> None:
    """A planned fail-over: what is written after it goes to the new master, without a refusal."""
    outcomes: list[Outcome] = []
    port = patient(sentinels.url, KEYS, outcome=outcomes.append)
    assert await works(port)
    sentinels.fail_over()
    await until(lambda: any(each.failure for each in outcomes), "the announcement")
    assert await works(port)
    assert await works(port)
    with sentinels.replica.client() as new, sentinels.master.client() as old:
        assert new.role()[0] == "master"
        assert new.get(KEYS.leader) == "t"
        assert old.role()[0] == "master"  # the Sentinels have not told it yet
        old.delete(KEYS.leader)
        await works(port)
        assert old.get(KEYS.leader) is None
    why = [each.failure for each in outcomes if each.failure]
    assert f"name another master, 127.0.0.1:{sentinels.replica.port}" in why[0]
    await port.close()


async def test_a_switch_is_heard_of_by_those_that_were_away(sentinels: Sentinels) -> None:
    """Where all Sentinels were cut off during the switch, they are asked when they are back."""
    outcomes: list[Outcome] = []
    port = patient(sentinels.url, KEYS, outcome=outcomes.append)
    assert await works(port)
    for each in sentinels.all:
        with each.client() as client:
            await until(lambda: client.client_list(_type="pubsub"), "to be listened to")
    for each in (sentinels.first, sentinels.third):
        each.kill()
    sentinels.servers.sentinel.kill()
    with sentinels.replica.client() as client:
        client.replicaof("NO", "ONE")
    for each in sentinels.all:
        config = each.directory / "server.conf"
        text = config.read_text().replace(
            f"127.0.0.1 {sentinels.master.port} ", f"127.0.0.1 {sentinels.replica.port} ", 1
        )
        config.write_text(text)
        each.start()
    await until(lambda: any(each.failure for each in outcomes), "the other master")

    async def moved() -> bool:
        await works(port)
        with sentinels.replica.client() as client:
            return client.get(KEYS.leader) == "t" and bool(client.client_list(_type="normal"))

    await until(moved, "the new master")
    await port.close()


async def test_a_master_that_cannot_be_reached_is_named(sentinels: Sentinels) -> None:
    """The error says which master the Sentinels name, and what each Sentinel did."""
    sentinels.replica.kill()
    sentinels.master.kill()
    sentinels.first.kill()
    port = patient(sentinels.url, KEYS)
    with pytest.raises(RedisUnavailableError) as caught:
        await port.leader()
    assert f"Sentinel 127.0.0.1:{sentinels.first.port}: Connection refused" in str(caught.value)
    assert f"the master 127.0.0.1:{sentinels.master.port} cannot be reached" in str(caught.value)
    await port.close()


async def test_a_named_server_that_is_a_replica_is_not_used(sentinels: Sentinels) -> None:
    """A Sentinel that is wrong is asked last from then on, and its master's role is the proof."""
    with sentinels.first.client() as client:
        client.execute_command("SENTINEL", "REMOVE", sentinels.servers.service)
        client.execute_command(
            "SENTINEL", "MONITOR", sentinels.servers.service, "127.0.0.1", sentinels.replica.port, 3
        )
    port = patient(sentinels.url, KEYS)
    why = f"{sentinels.replica.port} is no master|Connection closed|names another master"
    with pytest.raises(RedisUnavailableError, match=why):  # the next Sentinel may be heard first
        await port.lead("t", 60.0)
    await until(lambda: works(port), "the master")
    with sentinels.master.client() as client:
        assert client.get(KEYS.leader) == "t"
    await port.close()
