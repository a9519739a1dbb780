"""What a person asks is read from real servers, and nothing is changed."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import redis

from spotd.errors import RedisUnavailableError
from spotd.keys import Keys
from spotd.redis.errors import WrongTypeError
from spotd.redis.observer import Observer
from tests.kit.publisher import KEYS, state_of, status_of
from tests.kit.servers import ClusterServers, Server
from tests.kit.waiting import GUARD_S, until

IN_ONE_SLOT = Keys(key_prefix="{spotd}:")


@pytest.fixture
async def observer(process: Server, db: redis.Redis) -> Any:
    """Yield the observer under test."""
    under_test = Observer(process.url, KEYS)
    yield under_test
    await under_test.close()


async def test_an_empty_server(observer: Observer) -> None:
    """There is no status, no state and no demand."""
    assert await observer.status() is None
    assert await observer.states() == {}
    assert await observer.states("SPY") == {}
    seen = await observer.demand()
    assert (seen.entries, seen.leases) == ([], [])


async def test_status_and_states(observer: Observer, db: redis.Redis) -> None:
    """Both are read as the daemon wrote them. What cannot be read is left out."""
    db.set(KEYS.status, status_of().to_json())
    for state in (state_of("SPY"), state_of("sp-y", "refused", "invalid_symbol")):
        db.hset(KEYS.states, state.symbol, state.to_json())
    db.hset(KEYS.states, "QQQ", "{")
    assert await observer.status() == status_of()
    assert set(await observer.states()) == {"SPY", "sp-y"}
    assert await observer.states("SPY", "QQQ", "IWM") == {"SPY": state_of("SPY")}
    db.set(KEYS.status, "{")
    assert await observer.status() is None


async def test_what_a_daemon_would_replace_counts_as_absent(
    observer: Observer, db: redis.Redis
) -> None:
    """Status and states of the wrong type are none, and nobody leads by such a leader key."""
    db.hset(KEYS.status, "a", "b")
    db.set(KEYS.states, "x")
    db.hset(KEYS.leader, "a", "b")
    assert await observer.status() is None
    assert await observer.states() == {}
    assert await observer.states("SPY") == {}
    assert await observer.led() is False


async def test_the_demand_is_left_as_it_is(observer: Observer, db: redis.Redis) -> None:
    """Lapsed leases are returned, and none is removed: that is the daemon's part."""
    db.sadd(KEYS.symbols, "SPY")
    db.zadd(KEYS.leases, {"QQQ@a": 1.5, "IWM@b": "inf"})
    seen = await observer.demand()
    assert seen.entries == [b"SPY"]
    assert seen.leases == [(b"QQQ@a", 1.5), (b"IWM@b", float("inf"))]
    assert seen.unix_s > 1.7e9
    assert db.zcard(KEYS.leases) == 2
    db.delete(KEYS.leases)
    db.set(KEYS.leases, "x")
    with pytest.raises(WrongTypeError, match=KEYS.leases):
        await observer.demand()


async def test_subscribers(observer: Observer, process: Server) -> None:
    """Plain subscribers of a channel are counted, pattern subscribers are not."""
    client: Any
    with process.client() as client, ExitStack() as open_until_here:
        for _ in range(2):
            pubsub = open_until_here.enter_context(client.pubsub())
            pubsub.subscribe(KEYS.channel("SPY"))
            pubsub.psubscribe(KEYS.channel("*"))
            assert pubsub.get_message(timeout=GUARD_S)
            assert pubsub.get_message(timeout=GUARD_S)
        assert await observer.subscribers("SPY", "QQQ") == {"SPY": 2, "QQQ": 0}


async def test_what_the_server_says_of_itself(observer: Observer, db: redis.Redis) -> None:
    """INFO and CONFIG are text; other databases are asked whether they hold a demand."""
    assert (await observer.info())["role"] == "master"
    assert await observer.config("save") == {"save": ""}
    assert await observer.demand_elsewhere() == []
    with redis.Redis(port=db.get_connection_kwargs()["port"], db=2) as other:
        other.set("unrelated", "1")
        assert await observer.demand_elsewhere() == []
        other.zadd(KEYS.leases, {"SPY@a": 1})
        assert await observer.demand_elsewhere() == [2]


async def test_what_may_not_be_asked_is_none(process: Server, db: Any) -> None:
    """A server that says no is no failure; one that is away is."""
    rules = ("reset", "on", ">pw", "~*", "&*", "+@all", "-info", "-config", "-pubsub")
    db.execute_command("ACL", "SETUSER", "poor", *rules)
    observer = Observer(f"redis://poor:pw@127.0.0.1:{process.port}/0", KEYS)
    try:
        assert await observer.info() == {}
        assert await observer.config("save") is None
        assert await observer.subscribers("SPY") is None
        assert await observer.demand_elsewhere() is None
    finally:
        await observer.close()
        db.acl_deluser("poor")


async def test_a_server_that_is_away(tmp_path: Path) -> None:
    """Nothing that it might have said is made up."""
    with Server(tmp_path) as server:
        observer = Observer(server.url, KEYS)
        assert await observer.status() is None
    for call in (observer.status, observer.info, observer.demand_elsewhere, observer.demand):
        with pytest.raises(RedisUnavailableError):
            await call()
    await observer.close()


async def test_a_cluster(tmp_path: Path) -> None:
    """Keys are read from their node, subscribers counted on all nodes, and databases are one."""
    client: Any
    with ClusterServers(tmp_path) as cluster, ExitStack() as open_until_here:
        observer = Observer(cluster.url, IN_ONE_SLOT)
        holder = cluster.owner(IN_ONE_SLOT.symbols)
        with holder.client() as client:
            client.sadd(IN_ONE_SLOT.symbols, "SPY")
        for node in cluster.nodes:
            client = open_until_here.enter_context(node.client())
            pubsub = open_until_here.enter_context(client.pubsub())
            pubsub.subscribe(IN_ONE_SLOT.channel("SPY"))
            assert pubsub.get_message(timeout=GUARD_S)
        assert (await observer.demand()).entries == [b"SPY"]

        async def counted() -> bool:
            # A node that does not answer at once is left out.
            return await observer.subscribers("SPY") == {"SPY": len(cluster.nodes)}

        await until(counted, "the subscribers of all nodes")
        assert (await observer.info())["cluster_enabled"] == "1"
        assert await observer.config("save") == {"save": ""}
        assert await observer.demand_elsewhere() == []
        await observer.close()
