"""What a Redis that is there may do wrong: what it cuts, refuses, forgets or loads anew."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import TypeAlias

import pytest
import redis
import structlog.testing

from spotd.keys import Keys
from spotd.redis.calls import CALL_TIMEOUT_S
from spotd.simulator import Simulator
from tests.daemon.rig import NewRig, Rig, logged, quote
from tests.kit.idle_proxy import IdleProxy
from tests.kit.recorder import Recorder
from tests.kit.servers import Server
from tests.kit.waiting import until, until_sync

KEYS = Keys()
Fault: TypeAlias = Callable[[Server], AbstractContextManager[None]]


async def refuses_to_work(daemon: Rig, *words: str) -> None:
    """Wait until the daemon says that it is not ready, for a reason with these words."""

    def said() -> bool:
        reasons = " ".join(daemon.daemon.not_ready())
        return all(word in reasons for word in words) and not daemon.works()

    await until(said, f"not ready: {words}")


# Writes that are refused


@contextmanager
def snapshot_that_fails(server: Server) -> Iterator[None]:
    """Have the server refuse writes, since it cannot store its data (``MISCONF``)."""
    in_the_way = server.directory / "dump.rdb"  # a snapshot cannot take the name of a folder
    in_the_way.mkdir()
    with server.client() as client:
        client.config_set("save", "3600 1")
        client.bgsave()
        until_sync(
            lambda: client.info("persistence")["rdb_last_bgsave_status"] == "err", "the failure"
        )
        yield
        in_the_way.rmdir()
        client.bgsave()
        until_sync(
            lambda: client.info("persistence")["rdb_last_bgsave_status"] == "ok", "the success"
        )


@contextmanager
def full_disk(server: Server) -> Iterator[None]:
    """Have the server's appends fail, as on a disk that is full."""
    _, most = resource.prlimit(server.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (1, most))
    yield
    resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (most, most))


@contextmanager
def no_memory(server: Server) -> Iterator[None]:
    """Have the server refuse what would take memory (``OOM``)."""
    with server.client() as client:
        client.config_set("maxmemory", 1)
        try:
            yield
        finally:
            client.config_set("maxmemory", 0)


@pytest.fixture
def appending(tmp_path: Path) -> Iterator[Server]:
    """Yield a server that writes each change to its disk, and survives that it cannot."""
    binary = Server(tmp_path).binary
    survives = tmp_path / "survives"
    survives.write_text(f"#!/bin/sh\ntrap '' XFSZ\nexec {binary} \"$@\"\n")
    survives.chmod(0o755)
    options = ("--appendonly", "yes", "--appendfsync", "everysec")
    with Server(tmp_path / "server", *options, binary=str(survives)) as own:
        yield own


@pytest.mark.parametrize(
    ("fault", "word"),
    [(snapshot_that_fails, "MISCONF"), (full_disk, "MISCONF"), (no_memory, "maxmemory")],
    ids=["snapshot that fails", "full disk", "no memory"],
)
async def test_a_redis_that_refuses_writes(
    appending: Server, sim: Simulator, fault: Fault, word: str
) -> None:
    """It is said with Redis' own word, nothing is published, and then the newest price is.

    The stream stays open, and what a consumer reads is the price before, until that.
    """
    async with Rig(appending.url, sim) as daemon, Recorder(appending.url) as heard:
        await daemon.want("SPY")
        await daemon.quote("SPY", 1)
        await until(lambda: daemon.values.has("SPY", 1), "the first price")
        with fault(appending):
            # A disk that is full is noticed at the first change that does not fit.
            await daemon.quote("SPY", 2)
            await refuses_to_work(daemon, word)
            stored = await daemon.values.bid("SPY")
            await daemon.quote("SPY", 3)
            await daemon.quote("SPY", 4)
            assert stored in (1, 2)
            assert await daemon.values.has("SPY", stored)
        await until(lambda: daemon.values.has("SPY", 4), "the newest price")
        await until(daemon.works, "calm")
        await until(lambda: heard.bids("SPY")[-1:] == [4], "it to be heard")
        assert 3 not in heard.bids("SPY")
    assert len(sim.received.of("connect")) == 1


async def test_a_standby_of_a_redis_that_refuses_writes_does_not_say_that_it_is_back(
    rig: NewRig, server: Server
) -> None:
    """Its requests that take no key are answered, and those that would take it are refused."""
    with no_memory(server), structlog.testing.capture_logs() as lines:
        async with rig(leads=False) as daemon:
            await until(lambda: daemon.daemon.metrics.redis_errors >= 3, "three refused requests")
            assert not logged(lines, "redis is back")
            assert daemon.status["code"] == "redis_away"


# Connections that are cut or held up


async def test_connections_that_are_cut_again_and_again(
    rig: NewRig, server: Server, sim: Simulator
) -> None:
    """``CLIENT KILL`` of all connections, ten times: prices and demand go on, over one stream."""
    async with rig() as daemon:
        await daemon.want("SPY")
        with server.client() as admin:
            for bid in range(1, 11):
                for kind in ("normal", "pubsub"):
                    admin.client_kill_filter(_type=kind, skipme=True)
                await daemon.quote("SPY", bid)
                await until(lambda bid=bid: daemon.values.has("SPY", bid), f"price {bid}")  # type: ignore[misc]
        await until(daemon.works, "calm")
        await daemon.want("QQQ")
    assert len(sim.received.of("connect")) == 1


async def test_a_server_that_pauses_its_clients(
    rig: NewRig, server: Server, sim: Simulator
) -> None:
    """``CLIENT PAUSE`` is an outage that ends by itself: the newest price goes out after it."""
    async with rig(redis_call_s=CALL_TIMEOUT_S) as daemon:
        await daemon.want("SPY")
        with server.client() as admin:
            admin.client_pause(3_000)
        await daemon.quote("SPY", 1)
        await refuses_to_work(daemon, "redis_away")
        await daemon.quote("SPY", 2)
        await until(lambda: daemon.values.has("SPY", 2), "the newest price")
        await until(daemon.works, "calm")
    assert len(sim.received.of("connect")) == 1


async def test_a_proxy_that_cuts_idle_connections(server: Server, sim: Simulator) -> None:
    """Prices, demand and wakes go on over a Redis whose idle connections are cut."""
    async with IdleProxy.to(server.port, idle_s=0.2) as proxy:
        url = f"redis://127.0.0.1:{proxy.port}/0"
        async with Rig(url, sim) as daemon:
            await daemon.want("SPY")
            for bid in (1, 2, 3):
                await until(lambda bid=bid: proxy.cuts >= 4 * bid, "idle connections are cut")  # type: ignore[misc]
                await daemon.quote("SPY", bid)
                await until(lambda bid=bid: daemon.values.has("SPY", bid), f"price {bid}")  # type: ignore[misc]
            await daemon.want("QQQ")
            await until(daemon.works, "calm")
    assert len(sim.received.of("connect")) == 1


# Data that is lost, old, or not there yet


async def test_a_server_that_is_loading(tmp_path: Path, sim: Simulator) -> None:
    """It answers ``LOADING``: that is said, the stream is kept, and the newest price goes out."""
    options = (
        *("--enable-debug-command", "local", "--key-load-delay", "20000"),
        *("--loading-process-events-interval-bytes", "1024"),
    )
    with Server(tmp_path / "server", *options) as server, server.client() as admin:
        async with Rig(server.url, sim) as daemon:
            await daemon.want("SPY")
            await daemon.quote("SPY", 1)
            await until(lambda: daemon.values.has("SPY", 1), "the first price")
            for number in range(150):  # 3 s of loading
                admin.set(f"ballast:{number}", os.urandom(1_024))
            reload = partial(admin.execute_command, "DEBUG", "RELOAD")
            loading = asyncio.create_task(asyncio.to_thread(reload), name="loading")
            await refuses_to_work(daemon, "is loading")
            await daemon.quote("SPY", 2)
            await loading
            await until(lambda: daemon.values.has("SPY", 2), "the newest price")
            await until(daemon.works, "calm")
    assert len(sim.received.of("connect")) == 1


async def test_a_server_that_comes_back_with_older_data(
    rig: NewRig, server: Server, sim: Simulator
) -> None:
    """Prices are those held here again, also where the restart was too fast for any call to fail.

    ``seq`` rises above all that was published.
    """
    async with rig(leader_ttl_s=10.0) as daemon, Recorder(server.url) as heard:
        await daemon.want("SPY", "QQQ")
        for symbol in ("SPY", "QQQ"):
            await daemon.quote(symbol, 1)
            await until(lambda symbol=symbol: daemon.values.has(symbol, 1), "an old price")  # type: ignore[misc]
        with server.client() as admin:
            admin.save()
        await daemon.quote("SPY", 2)
        await until(lambda: daemon.values.has("SPY", 2), "the price that the snapshot lacks")
        published = heard.seqs("SPY")[-1]
        server.restart()  # no call of the daemon is made meanwhile
        await until(lambda: daemon.values.has("SPY", 2), "it again")
        await until(lambda: daemon.values.has("QQQ", 1), "the price that did not change")
        last = await daemon.values.last("SPY")
        assert last is not None
        assert last["seq"] > published
        await until(daemon.works, "calm")
    assert len(sim.received.of("connect")) == 1


async def test_a_server_that_lost_scripts_and_data_again_and_again(
    rig: NewRig, server: Server, sim: Simulator
) -> None:
    """After each ``FLUSHALL`` and ``SCRIPT FLUSH`` prices, states and status are written anew."""
    async with rig() as daemon:
        await daemon.want("SPY", "QQQ")
        await daemon.quote("QQQ", 1)
        with server.client() as admin:
            for bid in range(1, 6):
                admin.script_flush()
                with admin.pipeline(transaction=True) as at_once:
                    at_once.flushall().sadd(KEYS.symbols, "SPY", "QQQ").execute()
                await daemon.quote("SPY", bid)
                await until(lambda bid=bid: daemon.values.has("SPY", bid), f"price {bid}")  # type: ignore[misc]
                await until(lambda: daemon.values.has("QQQ", 1), "the price that did not change")
                await until(lambda: daemon.values.live("SPY", "QQQ"), "the states")
                await until(daemon.values.status, "the status")
    assert len(sim.received.of("connect")) == 1


# Subscribers


async def test_subscribers_that_never_read(rig: NewRig, server: Server, sim: Simulator) -> None:
    """Redis cuts them off, and every other subscriber hears the newest price of every symbol."""
    symbols = [f"S{chr(65 + n // 26)}{chr(65 + n % 26)}" for n in range(200)]
    async with rig() as daemon, Recorder(server.url) as heard:
        await daemon.want(*symbols)
        with server.client() as admin, closing(socket.socket()) as deaf:
            admin.config_set("client-output-buffer-limit", "pubsub 64kb 0 0")
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            deaf.connect(("127.0.0.1", server.port))
            deaf.sendall(b"CLIENT SETNAME deaf\r\nPSUBSCRIBE spot:*\r\n")
            await until(lambda: _is_subscribed(admin, "deaf"), "the subscriber that never reads")
            bid = 0
            while _is_subscribed(admin, "deaf"):
                bid += 1
                assert bid < 1_000, "it is never cut off"
                await daemon.send(*(quote(symbol, bid) for symbol in symbols))
                await until(lambda bid=bid: heard.bids(symbols[-1])[-1:] == [bid], f"price {bid}")  # type: ignore[misc]
        for symbol in symbols:
            await until(lambda symbol=symbol: heard.bids(symbol)[-1:] == [bid], symbol)  # type: ignore[misc]
        assert daemon.works()


def _is_subscribed(admin: redis.Redis, name: str) -> bool:
    return any(each["name"] == name for each in admin.client_list(_type="pubsub"))


async def test_replicas_hear_every_update(rig: NewRig, server: Server, tmp_path: Path) -> None:
    """A subscriber of a replica hears each message that one of the master hears, in its order."""
    with server.client() as admin:
        admin.config_set("repl-diskless-sync-delay", 0)
    replica = Server(tmp_path / "replica", "--replicaof", "127.0.0.1", str(server.port))
    with replica, replica.client() as admin:
        await until(lambda: admin.info("replication")["master_link_status"] == "up", "the replica")
        async with rig() as daemon, Recorder(server.url) as near, Recorder(replica.url) as far:
            await daemon.want("SPY", "QQQ")
            for bid in range(1, 201):
                await daemon.send(quote("SPY", bid), quote("QQQ", bid))
            for symbol in ("SPY", "QQQ"):
                await until(lambda s=symbol: near.bids(s)[-1:] == [200], "the last at the master")  # type: ignore[misc]
                await until(lambda s=symbol: len(far.of(s)) == len(near.of(s)), "as many")  # type: ignore[misc]
                assert far.raw(symbol) == near.raw(symbol)
