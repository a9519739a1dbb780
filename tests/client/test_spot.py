"""Spot, the synchronous twin: the same names without await, from any thread."""

from __future__ import annotations

import asyncio
import gc
import inspect
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, cast

import pytest
import redis
from redis.asyncio import Connection, ConnectionPool
from redis.asyncio import Redis as AsyncRedis

from spotd.client import Spot, SpotClient
from spotd.client.background import Background
from spotd.client.spot import SyncIteration
from spotd.errors import RedisUnavailableError, SettingsError, SymbolRefusedError
from tests.kit.ports import free_port
from tests.kit.publisher import KEYS, publish, state_of, status_of, update_of
from tests.kit.servers import SentinelServers, Server
from tests.kit.waiting import GUARD_S, until_sync


@pytest.fixture
def server(shared_server: Server, url: str) -> redis.Redis:
    """Return a blocking client of the empty server."""
    return shared_server.client()


def leases(server: redis.Redis) -> set[str]:
    """Return the members of the leases."""
    return set(map(str, server.zrange(KEYS.leases, 0, -1)))


def threads() -> list[str]:
    """Return the names of the client's threads."""
    return [each.name for each in threading.enumerate() if each.name.startswith("spotd-client")]


class TestNames:
    def test_those_of_the_asynchronous_client(self) -> None:
        """Every name is there, but ``follow``, whose listener is told on an event loop."""
        names = {name for name in dir(SpotClient) if not name.startswith("_")}
        own = {name for name in dir(Spot) if not name.startswith("_")}
        assert own - {"owner"} == names - {"aclose", "follow"} | {"close"}

    @pytest.mark.parametrize(
        "name", ["updates", "events", "want", "wait_live", "frame", "__init__"]
    )
    def test_with_their_arguments(self, name: str) -> None:
        """The same arguments with the same defaults, but ``redis``, which belongs to a loop."""
        asked, own = (inspect.signature(getattr(kind, name)) for kind in (SpotClient, Spot))
        arguments = {n: p for n, p in asked.parameters.items() if n != "redis"}
        assert dict(own.parameters) == arguments

    def test_it_is_told_apart(self) -> None:
        """Its repr says where it connects, and its owner."""
        with Spot(owner="me") as spot:
            assert repr(spot).startswith("<Spot 127.0.0.1:6379/0 owner=me:")


class TestCalls:
    def test_reading(self, url: str, server: redis.Redis) -> None:
        """Prices, states, status and demand, as they are in Redis."""
        publish(server, "SPY", 3)
        server.set(KEYS.status, status_of().to_json())
        server.hset(KEYS.states, "SPY", state_of("SPY").to_json())
        with Spot(url) as spot:
            assert spot.latest("SPY") == {"SPY": update_of("SPY", 3)}
            assert spot.status() == status_of()
            assert spot.states() == {"SPY": state_of("SPY")}
            assert spot.wait_live("SPY") == {"SPY": state_of("SPY")}
            assert list(spot.frame("SPY").index) == ["SPY"]
            assert (spot.malformed, spot.conflated, spot.reconnects) == (0, 0, 0)

    def test_demand(self, url: str, server: redis.Redis) -> None:
        """Plain demand, and that of a ``with``."""
        with Spot(url) as spot:
            assert spot.add("SPY") == ["SPY"]
            with spot.want("QQQ"):
                assert leases(server) == {f"QQQ@{spot.owner}"}
                assert spot.desired() == {"SPY", "QQQ"}
            assert leases(server) == set()
            assert spot.remove("SPY") == ["SPY"]

    def test_errors_reach_the_caller(self, url: str, server: redis.Redis) -> None:
        """Whatever a call raises on the loop, it raises here."""
        with pytest.raises(SettingsError):
            Spot("http://nowhere")
        assert threads() == []
        server.set(KEYS.status, status_of().to_json())
        server.hset(KEYS.states, "SPY", state_of("SPY", "refused", "symbol_limit").to_json())
        with Spot(url) as spot:
            with pytest.raises(ValueError, match="not a symbol"):
                spot.updates("b!")
            with pytest.raises(TypeError, match=r"\*symbols"):
                spot.latest(["SPY"])  # type: ignore[arg-type]
            with pytest.raises(ValueError, match="at least one"):
                spot.want()
            with pytest.raises(SymbolRefusedError):
                spot.wait_live("SPY")
        with Spot(f"redis://127.0.0.1:{free_port()}") as spot:
            with pytest.raises(RedisUnavailableError):
                spot.status()
            with pytest.raises(RedisUnavailableError):
                next(spot.updates("SPY"))

    def test_several_threads(self, url: str, server: redis.Redis) -> None:
        """Eight threads ask at once, and each gets the answer to its own question."""
        names = [f"A{letter}" for letter in "ABCDEFGH"]
        for name in names:
            publish(server, name, 1)
        with Spot(url) as spot, ThreadPoolExecutor(8) as pool:

            def ask(name: str) -> list[str | None]:
                return [spot.latest(name)[name].symbol for _ in range(50)]  # type: ignore[union-attr]

            assert list(pool.map(ask, names)) == [[name] * 50 for name in names]

    async def test_where_a_loop_runs_already(self, url: str, server: redis.Redis) -> None:
        """As in a notebook: the thread that calls has a running loop of its own."""
        publish(server, "SPY", 1)
        with Spot(url) as spot:
            assert asyncio.get_running_loop().is_running()
            assert next(spot.updates("SPY")).seq == 1
            assert spot.status() is None


class TestUpdates:
    def test_prices_in_a_loop(self, url: str, server: redis.Redis) -> None:
        """The stored price first, then newer ones; a lease while it runs, and none after it."""
        publish(server, "SPY", 1)
        with Spot(url) as spot:
            with spot.updates("SPY") as updates:
                seen = []
                for update in updates:
                    seen.append(update.seq)
                    if update.seq == 3:
                        break
                    assert leases(server) == {f"SPY@{spot.owner}"}
                    publish(server, "SPY", update.seq + 1)
                assert seen == [1, 2, 3]
            assert leases(server) == set()
            assert next(updates, None) is None

    def test_a_break(self, url: str, server: redis.Redis) -> None:
        """An iterator that nobody holds any more ends its leases."""
        publish(server, "SPY", 1)
        with Spot(url) as spot:
            for _ in spot.updates("SPY"):
                break
            gc.collect()
            until_sync(lambda: not leases(server), "the leases to end")

    def test_timeout(self, url: str, server: redis.Redis) -> None:
        """A step without a price raises TimeoutError, and the next one goes on."""
        with Spot(url) as spot:
            updates = spot.updates("SPY", timeout=0.05)
            for _ in range(2):
                with pytest.raises(TimeoutError):
                    next(updates)
            publish(server, "SPY", 1)
            update = None
            while update is None:
                with suppress(TimeoutError):
                    update = next(updates)
            assert update.seq == 1

    def test_slow_reader(self, url: str, server: redis.Redis) -> None:
        """The newest of each symbol, and a count of what was skipped."""
        publish(server, "SPY", 1)
        publish(server, "QQQ", 1)
        with Spot(url) as spot, closing(spot.updates("SPY", "QQQ")) as updates:
            assert {next(updates).symbol, next(updates).symbol} == {"SPY", "QQQ"}
            publish(server, "SPY", *range(2, 102))
            publish(server, "QQQ", 2)
            until_sync(lambda: updates.skipped == 99, "the older ones to be replaced")
            assert [(u.symbol, u.seq) for u in (next(updates), next(updates))] == [
                ("SPY", 101),
                ("QQQ", 2),
            ]

    def test_max_hz_and_states(self, url: str, server: redis.Redis) -> None:
        """The same choices as of the asynchronous client."""
        publish(server, "SPY", 1)
        server.set(KEYS.status, status_of().to_json())
        server.hset(KEYS.states, "SPY", state_of("SPY").to_json())
        with (
            ThreadPoolExecutor(1) as pool,
            Spot(url) as spot,
            spot.updates("SPY") as every,
            spot.updates("SPY", max_hz=0.01, with_states=True) as items,
        ):
            assert [next(items), next(items)] == [update_of("SPY", 1), state_of("SPY")]
            assert next(every).seq == 1
            taking = pool.submit(next, items)
            for seq in (2, 3):
                publish(server, "SPY", seq)
                assert next(every).seq == seq
            # Until this state comes, the window holds both prices back.
            server.publish(KEYS.events, state_of("SPY", "stale").to_json())
            assert taking.result(GUARD_S) == update_of("SPY", 3)
            assert next(items) == state_of("SPY", "stale")

    def test_events(self, url: str, server: redis.Redis) -> None:
        """Events come too."""
        server.set(KEYS.status, status_of().to_json())
        with Spot(url) as spot:
            assert next(spot.events(timeout=GUARD_S)) == status_of()

    def test_several_threads_share_an_iterator(self, url: str, server: redis.Redis) -> None:
        """Each value goes to one thread, none is lost, and all end with the client."""
        names = [f"A{a}{b}" for a in "ABCDEFGHIJ" for b in "ABCDEFGHIJ"]
        for name in names:
            publish(server, name, 1)
        spot = Spot(url)
        updates = spot.updates(*names)
        seen: list[str] = []
        saw = seen.append

        def take() -> None:
            for update in updates:
                saw(update.symbol)

        takers = [threading.Thread(target=take) for _ in range(4)]
        for taker in takers:
            taker.start()
        until_sync(lambda: len(seen) == len(names), "all prices")
        spot.close()
        for taker in takers:
            taker.join(GUARD_S)
        assert sorted(seen) == sorted(names)
        assert not any(taker.is_alive() for taker in takers)

    def test_a_defect_is_raised(self, url: str, server: redis.Redis) -> None:
        """What ends the subscription is raised by the step that waits, and ends the iteration."""

        class Broken(Connection):
            async def read_response(self, *args: Any, **options: Any) -> Any:
                reply = await super().read_response(*args, **options)
                return {} if isinstance(reply, list) and reply[0] == b"message" else reply

        publish(server, "SPY", 1)
        pool = ConnectionPool.from_url(url, connection_class=Broken, protocol=2)
        client = SpotClient(redis=AsyncRedis.from_pool(pool))
        background = Background()
        updates = SyncIteration(background, client.updates("SPY").iteration, None)
        assert next(updates).seq == 1
        publish(server, "SPY", 2)
        with pytest.raises(KeyError):
            next(updates)
        assert next(updates, None) is None
        assert leases(server) == set()
        background.call(client.aclose())
        background.call(pool.disconnect())
        background.close()


class TestEnd:
    def test_no_thread_is_left(self, url: str) -> None:
        """``close`` ends the thread, and may be called twice; then calls raise RuntimeError."""
        spot = Spot(url)
        assert threads() == ["spotd-client"]
        spot.close()
        spot.close()
        assert threads() == []
        with pytest.raises(RuntimeError, match="the client is closed"):
            spot.status()
        with pytest.raises(RuntimeError, match="the client is closed"):
            spot.updates("SPY")

    def test_collected(self, url: str) -> None:
        """A client that nobody holds any more ends its thread."""
        spot = Spot(url)
        del spot
        gc.collect()
        until_sync(lambda: not threads(), "the thread to end")

    def test_closed_while_another_thread_waits(self, url: str) -> None:
        """A thread that waits for a price gets the end, one that waits for a call an error."""
        spot = Spot(url)
        updates = spot.updates("SPY")
        with ThreadPoolExecutor(2) as pool:
            taking = pool.submit(next, updates, None)
            waiting = pool.submit(spot.wait_live, "SPY", timeout=None)
            with redis.Redis.from_url(url) as server:
                until_sync(lambda: server.pubsub_numsub(KEYS.events)[0][1], "a subscriber")
            spot.close()
            assert taking.result(GUARD_S) is None
            with pytest.raises(RuntimeError, match="the client is closed"):
                waiting.result(GUARD_S)

    def test_want_ends_after_the_client(self, url: str, server: redis.Redis) -> None:
        """A ``with`` that ends after the client has nothing more to remove."""
        spot = Spot(url)
        with spot.want("SPY"):
            spot.close()
        assert leases(server) == set()

    def test_the_end_of_a_program_removes_its_leases(self, url: str, server: redis.Redis) -> None:
        """A script that does not close anything ends, and its leases with it."""
        publish(server, "SPY", 1)
        script = (
            "import sys, spotd\n"
            "spot = spotd.Spot(sys.argv[1])\n"
            "updates = spot.updates('SPY')\n"
            "print(next(updates).symbol)\n"
        )
        ran = subprocess.run(
            [sys.executable, "-c", script, url],
            capture_output=True, text=True, check=True, timeout=GUARD_S,
        )  # fmt: skip
        assert (ran.stdout, ran.stderr) == ("SPY\n", "")
        assert leases(server) == set()


class TestBackground:
    def test_its_own_thread_may_not_wait_for_itself(self) -> None:
        """A call from the loop's thread is an error, instead of a deadlock."""
        background = Background()

        async def ask_again() -> None:
            background.call(asyncio.sleep(0))

        with pytest.raises(RuntimeError, match="called from the client's own thread"):
            background.call(ask_again())
        background.close()

    def test_a_call_that_takes_too_long_is_cancelled(self) -> None:
        """Its coroutine ends, too."""
        background, ended = Background(), threading.Event()

        async def wait() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()

        with pytest.raises(TimeoutError):
            background.call(wait(), 0.01)
        assert ended.wait(GUARD_S)
        background.close()

    def test_closed_by_its_own_thread(self) -> None:
        """The thread that is to end does not wait for itself."""
        background = Background()

        async def close() -> None:
            background.close()

        with suppress(RuntimeError):  # the call may be cancelled by that
            background.call(close())
        until_sync(lambda: not threads(), "the thread to end")
        background.begin(close)  # nothing happens any more


_FORKED = """
import os, sys
from spotd.client import Spot
spot = Spot({url!r})
updates = spot.updates("SPY", demand=False, timeout=0.01)
try:
    next(updates)
except TimeoutError:
    pass
child = os.fork()
if not child:
    for call in (spot.states, lambda: next(updates)):
        try:
            call()
        except RuntimeError as error:
            print(error, flush=True)
    del updates
    sys.exit(0)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), spot.states())
"""


def test_a_forked_process_is_refused_and_ends(url: str) -> None:
    """The loop's thread is not in it: calls raise instead of waiting, and so does the exit."""
    program = _FORKED.format(url=url)
    told = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=GUARD_S, check=True
    )
    refused = "this process was forked behind the client: make a client in this process"
    assert told.stdout.splitlines() == [refused, refused, "0 {}"]


def test_a_spot_without_descriptors_raises() -> None:
    """The caller hears why there is no loop, and does not wait for one."""
    program = (
        "import asyncio, resource\n"
        "from spotd.client import Spot\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))\n"
        "try:\n    Spot()\nexcept OSError as error:\n    print(error.errno)\n"
    )
    told = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=GUARD_S, check=True
    )
    assert told.stdout.split() == ["24"]


def test_a_collection_within_a_call_may_end_an_iteration() -> None:
    """What a call runs under its lock may hand over more, as the finalizer of an iterator does."""
    background = Background()
    background.close()

    async def nothing() -> None:
        """Do nothing."""

    class Collecting:
        """A coroutine whose closing collects garbage."""

        def close(self) -> None:
            """Do what a finalizer does."""
            background.begin(nothing)

    done = threading.Event()

    def call() -> None:
        with suppress(RuntimeError):
            background.call(cast("Any", Collecting()))
        done.set()

    threading.Thread(target=call, daemon=True).start()
    assert done.wait(GUARD_S)


def test_a_master_that_moves(tmp_path: Path) -> None:
    """After a fail-over the iterator goes on at the new master, with its lease, and calls do."""
    with SentinelServers(tmp_path) as sentinels, Spot(sentinels.url, owner="me") as spot:
        with sentinels.master.client() as master:
            publish(master, "SPY", 1)
        updates = spot.updates("SPY", timeout=GUARD_S)
        assert next(updates).seq == 1
        sentinels.master.kill()
        until_sync(lambda: spot.reconnects, "the client to join again")
        with sentinels.replica.client() as successor:
            assert leases(successor) == {f"SPY@{spot.owner}"}
            publish(successor, "SPY", 2)
            assert next(updates).seq == 2
            assert spot.latest("SPY") == {"SPY": update_of("SPY", 2)}


def test_a_master_that_became_a_replica(own_server: Server, tmp_path: Path) -> None:
    """A server that takes no writes any more is told by an error, and the reading goes on."""
    with (
        Server(tmp_path / "other") as other,
        Spot(own_server.url) as spot,
        own_server.client() as admin,
    ):
        admin.replicaof("127.0.0.1", other.port)
        with pytest.raises(RedisUnavailableError, match=r"READONLY|read only|replica"):
            spot.add("SPY")
        with pytest.raises(RedisUnavailableError, match=r"READONLY|read only|replica"):
            next(spot.updates("SPY", timeout=GUARD_S))
