"""All that the daemon says to Redis, against a real server."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from dataclasses import replace

import pytest
import redis

from spotd.core.leadership import LeaderKeyAnswer
from spotd.errors import NotLeaderError, RedisUnavailableError
from spotd.keys import Keys
from spotd.redis.demand import DIGEST_UP_TO, DemandRead, SameDemand
from spotd.redis.errors import WrongTypeError
from spotd.redis.port import MAX_FIELDS_PER_CALL, SCAN_ABOVE, RedisPort
from tests.kit.recorder import Recorder
from tests.kit.redis_port import clock_after, led, patient, publish
from tests.kit.servers import Server, redis_server
from tests.kit.waiting import until

KEYS = Keys()
LARGEST = 4_000  # updates in one call, and more than a script may unpack at once
OURS, THEIRS = "ours:1", "theirs:1"


@pytest.fixture(scope="module", params=["valkey", "redis"])
def process(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """Yield one server of each kind for the tests that leave it running."""
    binary = redis_server() if request.param == "redis" else None
    if request.param == "redis" and binary is None:
        pytest.skip("redis-server is not installed")
    with Server(tmp_path_factory.mktemp("redis"), binary=binary) as running:
        yield running


@pytest.fixture
async def port(process: Server, db: redis.Redis) -> AsyncIterator[RedisPort]:
    """Yield the port under test."""
    under_test = patient(process.url, KEYS)
    yield under_test
    await under_test.close()


@pytest.fixture
async def recorder(process: Server) -> AsyncIterator[Recorder]:
    """Yield a recorder of all prices and events."""
    async with Recorder(process.url) as recording:
        yield recording


def update(symbol: str, seq: int) -> bytes:
    """Return a line that stands for an update."""
    return json.dumps({"symbol": symbol, "seq": seq}, separators=(",", ":")).encode() + b"\n"


def clock_of(db: redis.Redis) -> float:
    """Return Redis' own clock in unix seconds."""
    seconds, microseconds = db.time()
    return float(seconds) + microseconds / 1_000_000


async def entries_of(port: RedisPort) -> list[bytes]:
    """Return the whole demand set."""
    return [entry async for some in port.demand_set() for entry in some]


def everything(db: redis.Redis) -> dict[str, object]:
    """Return all keys with their values."""
    return {str(key): db.dump(key) for key in db.scan_iter("*")}


# Leading


async def test_a_free_key_is_acquired_and_then_renewed(port: RedisPort, db: redis.Redis) -> None:
    """The first answer is *acquired*, later ones are *renewed*, and each starts the TTL again."""
    assert await port.lead(OURS, 600.0) == LeaderKeyAnswer("acquired")
    assert db.get(KEYS.leader) == OURS
    db.pexpire(KEYS.leader, 60_000)
    assert await port.lead(OURS, 600.0) == LeaderKeyAnswer("renewed")
    assert 60_000 < db.pttl(KEYS.leader) <= 600_000
    assert await port.leader() == OURS


async def test_a_held_key_is_left_alone(port: RedisPort, db: redis.Redis) -> None:
    """Another's key keeps its token and its TTL."""
    db.set(KEYS.leader, THEIRS, px=60_000)
    answer = await port.lead(OURS, 600.0)
    assert (answer.held, answer.leader) == ("another", THEIRS)
    assert db.get(KEYS.leader) == THEIRS
    assert db.pttl(KEYS.leader) <= 60_000


async def test_the_key_lapses_by_itself(port: RedisPort, db: redis.Redis) -> None:
    """A daemon that dies blocks its successor for one TTL."""
    await port.lead(THEIRS, 0.05)
    await until(lambda: db.get(KEYS.leader) is None, "the key to lapse")
    assert (await port.lead(OURS, 1.0)).held == "acquired"


async def test_anothers_key_without_a_ttl_gets_one(port: RedisPort, db: redis.Redis) -> None:
    """A leader key that would block everybody for good lapses, unless its owner renews it."""
    db.set(KEYS.leader, THEIRS)
    assert (await port.lead(OURS, 60.0)).leader == THEIRS
    first = db.pttl(KEYS.leader)
    assert 0 < first <= 60_000
    assert (await port.lead(OURS, 600.0)).leader == THEIRS  # it is not prolonged
    assert 0 < db.pttl(KEYS.leader) <= first


async def test_a_key_that_holds_our_own_former_token_is_taken_over(
    port: RedisPort, db: redis.Redis
) -> None:
    """A daemon that stepped down by its own clock does not wait until its own key lapses."""
    await port.lead(OURS, 60.0)
    assert (await port.lead("ours:2", 600.0, former=OURS)).held == "acquired"
    assert db.get(KEYS.leader) == "ours:2"
    assert (await port.lead("ours:3", 600.0, former="")).held == "another"
    assert (await port.lead("ours:3", 600.0, former=OURS)).held == "another"


async def test_release_deletes_only_what_is_ours(port: RedisPort, db: redis.Redis) -> None:
    """Leader key and status go together, and only by the token that holds the key."""
    db.set(KEYS.leader, THEIRS)
    db.set(KEYS.status, "theirs")
    assert not await port.release(OURS)
    assert db.mget(KEYS.leader, KEYS.status) == [THEIRS, "theirs"]
    assert await port.release(THEIRS)
    assert db.exists(KEYS.leader, KEYS.status) == 0
    assert not await port.release(THEIRS)
    assert await port.leader() is None


@pytest.mark.parametrize(
    "garbage",
    [
        "", "abc", "-1", "1e9", "12abc", "12\n", "00000000000000012 x",
        "9007199254740992", "99999999999999999999 x",
    ],
)  # fmt: skip
async def test_garbage_in_place_of_a_seq_is_unknown(
    port: RedisPort, db: redis.Redis, garbage: str
) -> None:
    """Leading and publishing go on, whatever somebody wrote there."""
    db.set(KEYS.seq, garbage)
    assert (await port.lead(OURS, 600.0)).highest_seq is None
    await publish(port, OURS, update("SPY", 7), 7)
    answer = await port.lead(OURS, 600.0)
    assert (answer.highest_seq, answer.published_by) == (7, OURS)


async def test_a_seq_of_the_wrong_type_is_replaced(port: RedisPort, db: redis.Redis) -> None:
    """The key is spotd's own, so spotd mends it."""
    db.rpush(KEYS.seq, "x")
    assert (await port.lead(OURS, 600.0)).highest_seq is None
    await publish(port, OURS, update("SPY", 7), 7)
    assert (await port.lead(OURS, 600.0)).highest_seq == 7


async def test_a_seq_of_the_far_future_is_taken_for_unknown(
    port: RedisPort, db: redis.Redis
) -> None:
    """Garbage below 2^53 would outrank every seq for centuries; a clock may be some days ahead."""
    now = time.time_ns() // 1000
    await port.lead(OURS, 60.0)
    for garbage in (2**53 - 1, now + 400 * 86_400_000_000):
        db.set(KEYS.seq, f"{garbage} x")
        answer = await port.lead(OURS, 60.0)
        assert (answer.highest_seq, answer.published_by) == (None, None)
        await publish(port, OURS, update("SPY", now), now)
        assert (await port.lead(OURS, 60.0)).highest_seq == now
    ahead = now + 300 * 86_400_000_000
    db.set(KEYS.seq, f"{ahead} x")
    assert (await port.lead(OURS, 60.0)).highest_seq == ahead
    with pytest.raises(NotLeaderError):
        await publish(port, OURS, update("SPY", now), now)


async def test_a_bare_seq_is_read_too(port: RedisPort, db: redis.Redis) -> None:
    """A seq without a token has an unknown publisher."""
    db.set(KEYS.seq, "12")
    answer = await port.lead(OURS, 600.0)
    assert (answer.highest_seq, answer.published_by) == (12, None)


# Publishing


async def test_channel_and_hash_get_the_same_bytes(
    port: RedisPort, db: redis.Redis, recorder: Recorder
) -> None:
    """Each update is published and kept, byte for byte, and the highest seq with them."""
    await port.lead(OURS, 600.0)
    raw = '{"symbol":"SPY","größe":"\x00\\"}'.encode()
    await publish(port, OURS, raw + b"\n" + update("QQQ", 5), 5)
    await until(lambda: len(recorder.heard) == 2, "both updates")
    assert recorder.raw("SPY") == [raw]
    assert db.hget(KEYS.last, "SPY") == raw.decode()
    assert recorder.raw("QQQ")[0].decode() == db.hget(KEYS.last, "QQQ")
    assert (await port.lead(OURS, 600.0)).highest_seq == 5


async def test_the_largest_batch_goes_in_one_call(
    port: RedisPort, db: redis.Redis, recorder: Recorder
) -> None:
    """It is written in parts, because a script may unpack only a part of it at once."""
    await port.lead(OURS, 600.0)
    lines = b"".join(update(f"S{n}", n + 1) for n in range(LARGEST))
    await publish(port, OURS, lines, LARGEST)
    assert db.hlen(KEYS.last) == LARGEST
    await until(lambda: len(recorder.heard) == LARGEST, "all updates")
    assert recorder.raw("S3999") == [update("S3999", 4000).rstrip()]
    assert [heard.channel for heard in recorder.heard[:2]] == ["spot:S0", "spot:S1"]


async def test_without_the_leader_key_nothing_is_touched(
    port: RedisPort, db: redis.Redis, recorder: Recorder
) -> None:
    """Every script that writes is fenced: with another's token or none, no byte changes."""
    db.hset(KEYS.last, "SPY", "old")
    db.hset(KEYS.states, "SPY", "old")
    db.set(KEYS.status, "old")
    db.set(KEYS.seq, "3 somebody")
    for held in (THEIRS, None):
        if held is None:
            db.delete(KEYS.leader)
        else:
            db.set(KEYS.leader, held)
        before = everything(db)
        for write in (
            publish(port, OURS, update("SPY", 9), 9),
            port.write_states(OURS, {"QQQ": b"{}"}, {"SPY": b"{}"}),
            port.write_status(OURS, b"{}", 600.0, announce=True),
            port.announce(OURS, b"{}"),
            port.drop_last(OURS, ["SPY"]),
        ):
            with pytest.raises(NotLeaderError):
                await write
        assert everything(db) == before
    db.publish("spot:END", "{}")
    await until(lambda: recorder.heard, "the end")
    assert [heard.channel for heard in recorder.heard] == ["spot:END"]


async def test_what_was_given_up_is_not_done_later(server: Server) -> None:
    """A server that was frozen finds the calls in its sockets, and their time is over."""
    hurried, port = RedisPort(server.url, KEYS, call_timeout_s=0.2), patient(server.url, KEYS)
    async with Recorder(server.url) as heard:
        clock_is_off_s = await led(hurried, OURS)
        with server.client() as db:
            db.hset(KEYS.last, "SPY", "{}")
        for _ in range(2):  # the second time, the server has the scripts
            server.freeze()
            given_up = await asyncio.gather(
                hurried.write_states(OURS, {"SPY": b"old"}, {}),
                hurried.write_status(OURS, b"old", 60.0, announce=True),
                hurried.announce(OURS, b"old"),
                hurried.drop_last(OURS, ["SPY"]),
                return_exceptions=True,
            )
            assert {type(error) for error in given_up} == {RedisUnavailableError}
            await until(clock_after(clock_is_off_s), "the end of their time")
            server.thaw()
            await port.write_states(OURS, {"SPY": b"new"}, {})
            await port.write_status(OURS, b"new", 60.0, announce=True)
            await port.announce(OURS, b"new")
            await port.drop_last(OURS, ["QQQ"])
        await until(lambda: len(heard.heard) >= 6, "the events")
        assert [each.raw for each in heard.heard] == [b"new"] * 6
        assert await port.last_fields() == {"SPY"}
    for each in (hurried, port):
        await each.close()


async def test_a_batch_that_arrives_late_is_dropped(
    port: RedisPort, db: redis.Redis, recorder: Recorder
) -> None:
    """Nothing is published after something newer, even if a call was under way for long."""
    await port.lead(OURS, 600.0)
    await publish(port, OURS, update("SPY", 9), 9)
    with pytest.raises(NotLeaderError):
        await publish(port, OURS, update("SPY", 9), 9)
    with pytest.raises(NotLeaderError):
        await publish(port, OURS, update("SPY", 8), 8)
    await publish(port, OURS, update("SPY", 10), 10)
    await until(lambda: len(recorder.heard) == 2, "both")
    assert recorder.seqs("SPY") == [9, 10]


@pytest.mark.parametrize("loss", ["script flush", "restart"])
async def test_scripts_that_the_server_forgot_are_sent_again(
    port: RedisPort, process: Server, db: redis.Redis, loss: str
) -> None:
    """NOSCRIPT is healed within the call."""
    await port.lead(OURS, 600.0)
    await publish(port, OURS, update("SPY", 1), 1)
    if loss == "script flush":
        db.script_flush()
    else:
        process.restart(lose_data=True)
        with suppress(RedisUnavailableError):  # the connection was lost, noticed or not
            await port.leader()
    await port.lead(OURS, 600.0)
    await publish(port, OURS, update("SPY", 2), 2)
    await port.write_states(OURS, {"SPY": b"{}"}, {})
    await port.write_status(OURS, b"{}", 600.0, announce=False)
    assert db.hget(KEYS.last, "SPY") is not None
    await port.drop_last(OURS, ["SPY"])
    assert await port.release(OURS)


@pytest.mark.parametrize("kind", ["string", "list", "set"])
async def test_an_own_hash_of_the_wrong_type_is_replaced(
    port: RedisPort, db: redis.Redis, kind: str
) -> None:
    """``spotd:last`` and ``spotd:states`` belong to spotd alone, so spotd mends them."""
    await port.lead(OURS, 600.0)

    def break_both() -> None:
        db.delete(KEYS.last, KEYS.states)
        for key in (KEYS.last, KEYS.states):
            if kind == "string":
                db.set(key, "x")
            elif kind == "list":
                db.rpush(key, "x")
            else:
                db.sadd(key, "x")

    break_both()
    assert await port.last_fields() == set()
    assert await port.state_fields() == set()
    await port.drop_last(OURS, ["SPY"])
    await port.write_states(OURS, {}, {"SPY": b"{}"})
    break_both()
    await publish(port, OURS, update("SPY", 1), 1)
    await port.write_states(OURS, {"SPY": b"{}"}, {})
    assert await port.last_fields() == {"SPY"}
    assert await port.state_fields() == {"SPY"}


async def test_states_are_written_removed_and_announced(
    port: RedisPort, db: redis.Redis, recorder: Recorder
) -> None:
    """A change goes to the hash and to the events; the end of a field that was there, too."""
    await port.lead(OURS, 600.0)
    db.hset(KEYS.states, mapping={"OLD": "{}", "OLDER": "{}", "STAYS": "{}"})
    ended = {"OLD": b'{"n":3}', "OLDER": b'{"n":4}', "NONE": b'{"n":5}'}
    await port.write_states(OURS, {"SPY": b'{"n":1}', "a b": b'{"n":2}'}, ended)
    assert await port.state_fields() == {"STAYS", "SPY", "a b"}
    await port.announce(OURS, b'{"n":6}')
    await until(lambda: len(recorder.heard) == 5, "the events")
    assert [(heard.channel, heard.raw) for heard in recorder.heard] == [
        (KEYS.events, b'{"n":%d}' % n) for n in (3, 4, 1, 2, 6)
    ]


@pytest.mark.parametrize("announce", [True, False])
async def test_the_status_has_a_ttl_and_is_announced_when_asked(
    port: RedisPort, db: redis.Redis, recorder: Recorder, announce: bool
) -> None:
    """It lapses with its daemon."""
    await port.lead(OURS, 600.0)
    await port.write_status(OURS, b"{}", 600.0, announce=announce)
    assert db.get(KEYS.status) == "{}"
    assert 60_000 < db.pttl(KEYS.status) <= 600_000
    db.publish("spot:END", "")
    await until(lambda: recorder.heard, "the end")
    assert (recorder.heard[0].channel == KEYS.events) is announce


async def test_the_status_tells_how_many_states_are_stored(
    port: RedisPort, db: redis.Redis
) -> None:
    """So that a loss is noticed of which no call that fails tells; a wrong type holds none."""
    await port.lead(OURS, 600.0)
    await port.write_states(OURS, {"SPY": b"{}", "QQQ": b"{}"}, {})
    assert await port.write_status(OURS, b"{}", 15.0, announce=False) == 2
    db.delete(KEYS.states)
    assert await port.write_status(OURS, b"{}", 15.0, announce=False) == 0
    db.set(KEYS.states, "x")
    assert await port.write_status(OURS, b"{}", 15.0, announce=False) == 0


async def test_many_last_prices_are_dropped_in_one_call(port: RedisPort, db: redis.Redis) -> None:
    """As many as a call may hold; no other price goes with them."""
    await port.lead(OURS, 600.0)
    names = [f"S{n}" for n in range(MAX_FIELDS_PER_CALL)]
    db.hset(KEYS.last, mapping=dict.fromkeys(names, "{}"))
    db.hset(KEYS.last, "SPY", "{}")
    await port.drop_last(OURS, names)
    assert await port.last_fields() == {"SPY"}


# Demand


async def test_the_demand_set_is_read_whole(port: RedisPort, db: redis.Redis) -> None:
    """Without the key nothing is wanted. Entries come as they were written."""
    assert await entries_of(port) == []
    db.sadd(KEYS.symbols, "SPY", " qqq ", b"\xff\x00")
    assert sorted(await entries_of(port)) == [b" qqq ", b"SPY", b"\xff\x00"]


async def test_a_large_demand_is_read_in_slices(port: RedisPort, db: redis.Redis) -> None:
    """Above SCAN_ABOVE no single answer holds all of it, and nothing is missing."""
    names = {f"S{n}".encode() for n in range(SCAN_ABOVE + 1)}
    db.sadd(KEYS.symbols, *names)
    slices = [list(some) async for some in port.demand_set()]
    assert len(slices) > 1
    assert max(map(len, slices)) < SCAN_ABOVE
    assert {entry for some in slices for entry in some} == names


async def test_many_leases_are_read_in_slices(port: RedisPort, db: redis.Redis) -> None:
    """Above SCAN_ABOVE, too, lapsed leases are left out and removed."""
    now = clock_of(db)
    names = {f"S{n}@me" for n in range(SCAN_ABOVE + 1)}
    db.zadd(KEYS.leases, dict.fromkeys(names, now + 600))
    db.zadd(KEYS.leases, {"IWM@a": now - 1, "DIA@a": "+inf"})
    read = await port.leases()
    assert set(read.live) == {b"DIA@a", *(name.encode() for name in names)}
    assert read.lapsed == [(b"IWM@a", now - 1)]
    assert db.zcard(KEYS.leases) == len(names) + 1


async def test_entries_that_left_are_asked_by_name(port: RedisPort, db: redis.Redis) -> None:
    """A lapsed lease has left, whether it was removed or not."""
    names = [f"S{n}".encode() for n in range(MAX_FIELDS_PER_CALL)]
    assert await port.not_in_set(names) == names
    db.sadd(KEYS.symbols, *names[1:])
    assert await port.not_in_set(names) == names[:1]
    now = 1_768_885_920.25
    assert await port.not_leased(names, now) == names
    db.zadd(KEYS.leases, dict.fromkeys(names[2:], now + 0.001) | {names[1]: now})
    assert await port.not_leased(names, now) == names[:2]


async def read_of(port: RedisPort, known: bytes = b"") -> DemandRead:
    """Return a demand that is not the known one."""
    read = await port.demand(known)
    assert isinstance(read, DemandRead)
    return read


async def test_a_demand_is_read_in_one_round_trip(port: RedisPort, db: redis.Redis) -> None:
    """Set and leases come together, also at a server that does not know the script yet."""
    db.sadd(KEYS.symbols, "SPY", "QQQ")
    db.zadd(KEYS.leases, {"DIA@a": time.time() + 600, "IWM@a": 1.0})
    db.script_flush()
    for lapsed in ([(b"IWM@a", 1.0)], []):
        read = await read_of(port)
        assert [set(some) async for some in port.demand_entries(read)] == [{b"SPY", b"QQQ"}]
        assert (read.leases.live, read.leases.lapsed) == ([b"DIA@a"], lapsed)
        assert (read.size, read.leased) == (2, 1)


async def test_a_large_set_is_scanned(port: RedisPort, db: redis.Redis) -> None:
    """What one round trip does not bring of a set comes in slices, and nothing is missing."""
    names = {f"S{n}".encode() for n in range(2 * SCAN_ABOVE)}
    db.sadd(KEYS.symbols, *names)
    read = await read_of(port)
    assert read.size == len(names)
    slices = [set(some) async for some in port.demand_entries(read)]
    assert len(slices) > 1
    assert set[bytes]().union(*slices) == names


async def test_a_demand_that_is_known_is_not_returned(port: RedisPort, db: redis.Redis) -> None:
    """Its digest tells; any change of set or leases, and each lease that lapses, has it returned.

    A lease that had lapsed before it came changes nothing, and is returned nevertheless.
    """
    db.sadd(KEYS.symbols, *(f"S{n}" for n in range(2 * SCAN_ABOVE)))
    db.zadd(KEYS.leases, {"DIA@a": 4e9})
    read = await read_of(port)
    changes: tuple[Callable[[], object], ...] = (
        lambda: db.srem(KEYS.symbols, "S1"),
        lambda: db.sadd(KEYS.symbols, "S1"),
        lambda: db.zadd(KEYS.leases, {"DIA@b": 4e9}),
        lambda: db.zadd(KEYS.leases, {"DIA@b": 4e9 + 1}),
        lambda: db.zadd(KEYS.leases, {"DIA@b": 1.0}),
        lambda: db.zadd(KEYS.leases, {"IWM@a": 1.0}),
        lambda: db.delete(KEYS.leases),
        lambda: db.delete(KEYS.symbols),
    )
    for change in changes:
        assert isinstance(await port.demand(read.digest), SameDemand)
        change()
        read = await read_of(port, read.digest)
    assert read == ((read.leases.unix_s, [], [], []), read.digest, 0, 0, [])


async def test_a_server_that_tells_no_digest_returns_each_demand(
    port: RedisPort, db: redis.Redis
) -> None:
    """Without DUMP the digest is empty, and an empty one is never taken for known."""
    db.sadd(KEYS.symbols, "SPY")
    db.acl_setuser("default", enabled=True, commands=["+@all", "-dump"])
    try:
        for _ in range(2):
            read = await read_of(port)
            assert (read.digest, read.entries) == (b"", [b"SPY"])
    finally:
        db.acl_setuser("default", enabled=True, commands=["+@all"])


async def test_a_demand_whose_digest_would_hold_the_server_has_none(
    port: RedisPort, db: redis.Redis
) -> None:
    """Leases and entries count together; one fewer, and the digest is told again."""
    db.sadd(KEYS.symbols, *range(DIGEST_UP_TO))
    assert (await read_of(port)).digest
    db.zadd(KEYS.leases, {"DIA@a": 4e9})
    read = await read_of(port)
    assert (read.digest, read.size, read.leased) == (b"", DIGEST_UP_TO, 1)
    db.srem(KEYS.symbols, 0)
    assert (await read_of(port)).digest


async def test_what_is_scanned_is_not_read_at_once(port: RedisPort, db: redis.Redis) -> None:
    """Neither a set nor leases that are more than one round trip brings."""
    names = [f"S{n}@a" for n in range(SCAN_ABOVE + 1)]
    db.zadd(KEYS.leases, dict.fromkeys(names[1:], 4e9))
    assert (await read_of(port)).at_once
    db.zadd(KEYS.leases, {names[0]: 4e9})
    assert not (await read_of(port)).at_once
    db.delete(KEYS.leases)
    db.sadd(KEYS.symbols, *names)
    assert not (await read_of(port)).at_once


@pytest.mark.parametrize("key", [KEYS.symbols, KEYS.leases])
async def test_a_demand_that_is_refused_in_part_is_read_in_parts(
    port: RedisPort, db: redis.Redis, key: str
) -> None:
    """Where one key is refused, nothing is returned: asking for each alone tells which."""
    db.set(key, "SPY")
    assert await port.demand() is None


async def test_a_demand_of_the_wrong_type_says_so(port: RedisPort, db: redis.Redis) -> None:
    """The error is of its own class and names the key."""
    db.set(KEYS.symbols, "SPY")
    db.set(KEYS.leases, "SPY")
    with pytest.raises(WrongTypeError, match=KEYS.symbols):
        await entries_of(port)
    with pytest.raises(WrongTypeError, match=KEYS.leases):
        await port.leases()
    with pytest.raises(WrongTypeError, match=KEYS.symbols):
        await port.not_in_set([b"SPY"])
    with pytest.raises(WrongTypeError, match=KEYS.leases):
        await port.not_leased([b"SPY"], time.time())


async def test_doubtful_leases_come_with_their_scores(port: RedisPort, db: redis.Redis) -> None:
    """Lapsed ones and those far ahead are read in the order of their times."""
    now = clock_of(db)
    leases: dict[str, float | str] = {
        "SPY@a": now + 600,
        "QQQ@a": now,
        "X@a": "-inf",
        "JS@a": now * 1000,
        "DIA@a": "inf",
    }
    db.zadd(KEYS.leases, leases)
    read = await port.leases(far_s=3_600)
    assert read.lapsed == [(b"X@a", float("-inf")), (b"QQQ@a", now)]
    assert read.far == [(b"JS@a", now * 1000), (b"DIA@a", float("inf"))]
    assert sorted(read.live) == [b"DIA@a", b"JS@a", b"SPY@a"]
    many = {f"S{n}@a": 1.0 for n in range(MAX_FIELDS_PER_CALL + 1)}
    db.zadd(KEYS.leases, many)
    assert len((await port.leases()).lapsed) == MAX_FIELDS_PER_CALL
    assert db.zcard(KEYS.leases) == 3


async def test_states_are_read_as_they_are_stored(port: RedisPort, db: redis.Redis) -> None:
    """Whatever was written comes back; who reads it takes care of what is malformed."""
    assert await port.states() == []
    db.hset(KEYS.states, mapping={"SPY": "{}", "QQQ": "x"})
    assert sorted(await port.states()) == [b"x", b"{}"]


async def test_lapsed_leases_are_removed(port: RedisPort, db: redis.Redis) -> None:
    """A lease counts before its time by Redis' clock, and not after."""
    now = clock_of(db)
    db.zadd(
        KEYS.leases,
        {"SPY@a": now + 600, "QQQ@a": now, "IWM@a": now - 1, "DIA@a": "+inf", "X@a": "-inf"},
    )
    read = await port.leases()
    assert sorted(read.live) == [b"DIA@a", b"SPY@a"]
    assert now <= read.unix_s <= clock_of(db)
    assert set(db.zrange(KEYS.leases, 0, -1)) == {"SPY@a", "DIA@a"}


async def test_our_own_clock_says_nothing_about_leases(
    port: RedisPort, db: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it jumps an hour ahead, no live lease is removed; where it is behind, none lives on."""
    now = clock_of(db)
    for wrong_s in (3_600.0, -3_600.0):
        db.zadd(KEYS.leases, {"SPY@a": now + 600, "QQQ@a": now - 600})
        monkeypatch.setattr(time, "time", lambda wrong_s=wrong_s: now + wrong_s)
        assert (await port.leases()).live == [b"SPY@a"]
        assert db.zrange(KEYS.leases, 0, -1) == ["SPY@a"]


@pytest.mark.parametrize("prefix", ["spot:", "s*t:", "s?t[a-c]^\\:", "{spot}-", "s]p"])
async def test_channels_are_found_under_any_prefix(
    process: Server, db: redis.Redis, prefix: str
) -> None:
    """Glob characters in the prefix mean themselves; pattern subscriptions do not count."""
    port = patient(process.url, Keys("spotd:", prefix))
    with process.client() as other, other.pubsub() as subscriber:
        subscriber.subscribe(f"{prefix}SPY", "spXt:QQQ", "sabct:IWM", "sa:DIA")
        subscriber.psubscribe(f"{prefix}*")
        await until(lambda: len(db.pubsub_channels()) == 4, "the subscriptions")
        assert await port.subscribed_channels() == [b"SPY"]
    await port.close()


async def test_own_channels_are_no_demand(process: Server, db: redis.Redis) -> None:
    """Where the prefixes overlap, a subscriber of wakes or events does not ask for a symbol."""
    keys = Keys("spot:", "spot:")
    port = patient(process.url, keys)
    with process.client() as other, other.pubsub() as subscriber:
        subscriber.subscribe(keys.wake, keys.events, "spot:SPY")
        await until(lambda: len(db.pubsub_channels()) == 3, "the subscriptions")
        assert await port.subscribed_channels() == [b"SPY"]
    await port.close()


# Wakes


class Wakes:
    """Counts what ``wakes`` yields, until it ends."""

    def __init__(self, port: RedisPort) -> None:
        self.count = 0
        self.failure: BaseException | None = None
        self._port = port
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Stop listening."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        try:
            async for _ in self._port.wakes():
                self.count += 1
        except RedisUnavailableError as error:
            self.failure = error


async def test_a_wake_is_heard(port: RedisPort, db: redis.Redis) -> None:
    """It yields once when listening began, for what came before, and once for each message."""
    wakes = Wakes(port)
    await until(lambda: wakes.count == 1, "listening")
    db.publish(KEYS.wake, "x")
    db.publish("spotd:other", "x")
    await until(lambda: wakes.count == 2, "the wake")
    db.publish(KEYS.wake, "")
    await until(lambda: wakes.count == 3, "the next wake")
    await wakes.stop()


async def test_listening_ends_with_the_connection(port: RedisPort, process: Server) -> None:
    """An error tells the caller, so that it can listen again."""
    wakes = Wakes(port)
    await until(lambda: wakes.count == 1, "listening")
    process.restart()
    await until(lambda: wakes.failure is not None, "the failure")
    await wakes.stop()


async def test_a_silent_peer_is_given_up(process: Server, db: redis.Redis) -> None:
    """After a silence a ping is sent, and a ping without an answer ends the listening."""
    port = patient(process.url, KEYS, wake_silence_s=0.3)

    def pings() -> int:
        return int(db.info("commandstats").get("cmdstat_ping", {}).get("calls", 0))

    async def pinged() -> Wakes | None:
        """Return what listens on after some pings; None where it ended: an answer took longer."""
        wakes, before = Wakes(port), pings()
        await until(lambda: pings() > before + 3 or wakes.failure, "pings")
        if wakes.failure is None:
            return wakes
        await wakes.stop()
        return None

    wakes: Wakes = await until(pinged, "pings, each answered")
    process.freeze()
    try:
        await until(lambda: wakes.failure is not None, "giving up")
    finally:
        process.thaw()
    await wakes.stop()
    await port.close()


# Being there


async def test_two_prefixes_share_one_server(process: Server, db: redis.Redis) -> None:
    """Neither sees or touches what the other wrote."""
    one = patient(process.url, KEYS)
    two = patient(process.url, replace(KEYS, key_prefix="other:", channel_prefix="o:"))
    for port in (one, two):
        assert (await port.lead(OURS, 600.0)).held == "acquired"
    await publish(one, OURS, update("SPY", 1), 1)
    before = {k: v for k, v in everything(db).items() if k.startswith("spotd:")}
    await publish(two, OURS, update("QQQ", 1), 1)
    await two.write_states(OURS, {"QQQ": b"{}"}, {})
    assert await one.last_fields() == {"SPY"}
    assert await two.last_fields() == {"QQQ"}
    assert await two.release(OURS)
    assert {k: v for k, v in everything(db).items() if k.startswith("spotd:")} == before
    await one.close()
    await two.close()


async def test_a_cancelled_call_is_over(process: Server, db: redis.Redis) -> None:
    """A cancellation ends a call at whatever moment it comes: no loop goes on by mistake."""
    swallowed = 0
    for steps in range(1, 41):
        for _ in range(4):
            port = patient(process.url, KEYS)
            call = asyncio.create_task(port.lead(OURS, 600.0))
            for _ in range(steps):
                await asyncio.sleep(0)
            if not call.done():
                call.cancel()
                with suppress(asyncio.CancelledError):
                    await call
                    swallowed += 1
            await port.close()
    assert swallowed == 0
