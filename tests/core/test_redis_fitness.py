"""Whether a server is fit, by tables of what INFO and CONFIG say."""

from __future__ import annotations

import pytest

from spotd.core.redis_fitness import (
    Level,
    clocks,
    memory,
    output_buffers,
    persistence,
    role,
    version,
)

MB = 1 << 20


@pytest.mark.parametrize(
    ("info", "level", "words"),
    [
        ({}, "unknown", "version"),
        ({"redis_version": "unstable"}, "unknown", "version"),
        ({"redis_version": "6.0.16"}, "failure", "Redis 6.0.16 lacks commands"),
        ({"redis_version": "6.2.0"}, "warning", "Redis 6.2.0 is older"),
        ({"redis_version": "7.0.15"}, "ok", "Redis 7.0.15"),
        ({"redis_version": "8.2.1"}, "ok", "Redis 8.2.1"),
        ({"redis_version": "7.2.4", "valkey_version": "9.0.1"}, "ok", "Valkey 9.0.1"),
    ],
)
def test_version(info: dict[str, str], level: Level, words: str) -> None:
    """7.0 is what spotd is tested with; before 6.2 commands are missing."""
    found = version(info)
    assert found.level == level
    assert words in found.text
    assert bool(found.remedy) is (level != "ok")


@pytest.mark.parametrize(
    ("info", "level", "words"),
    [
        ({}, "unknown", "master"),
        ({"role": "master"}, "ok", "master"),
        (
            {"role": "slave", "master_host": "10.0.0.1", "master_port": "6379"},
            "failure",
            "replica of 10.0.0.1:6379",
        ),
    ],
)
def test_role(info: dict[str, str], level: Level, words: str) -> None:
    """A replica takes no writes, so a daemon cannot lead there."""
    found = role(info)
    assert found.level == level
    assert words in found.text


@pytest.mark.parametrize(
    ("redis_s", "alpaca_s", "level", "words"),
    [
        (0.1, None, "ok", "agrees with Redis' within 2 s"),
        (-0.1, 1.9, "ok", "agrees with Redis' and Alpaca's within 2 s"),
        (3.0, 0.0, "warning", "3.0 s ahead of Redis', by which leases lapse"),
        (0.0, -7.25, "warning", "7.2 s behind Alpaca's"),
        (3.0, 3.0, "warning", "3.0 s ahead of Redis', by which leases lapse, and 3.0 s ahead of A"),
    ],
)
def test_clocks(redis_s: float, alpaca_s: float | None, level: Level, words: str) -> None:
    """A difference that a reading cannot explain is a warning that says whose clock it is."""
    found = clocks(redis_s, alpaca_s)
    assert found.level == level
    assert words in found.text


@pytest.mark.parametrize(
    ("limits", "level", "words"),
    [
        (None, "unknown", "unread"),
        ("", "unknown", "unread"),
        (
            "normal 0 0 0 slave 268435456 67108864 60 pubsub 33554432 8388608 60",
            "ok",
            "leaves more than 32 MB or more than 8 MB for 60 s unread is cut off",
        ),
        ("normal 0 0 0 replica 0 0 0 pubsub 2147483648 0 0", "ok", "more than 2 GB unread"),
        ("pubsub 0 524288 10", "ok", "more than 512 KB for 10 s unread"),
        ("pubsub 0 0 0", "warning", "fill the memory"),
        ("pubsub 65536 0 0", "warning", "leaves 385 updates unread"),
        ("pubsub 33554432 100000 1", "warning", "leaves 588 updates unread"),
    ],
)
def test_output_buffers(limits: str | None, level: Level, words: str) -> None:
    """A subscriber needs room for a pause, and the server needs a limit."""
    found = output_buffers(limits)
    assert found.level == level
    assert words in found.text


OFF = {"aof_enabled": "0"}
SAVES = {"save": "3600 1 300 100", "stop-writes-on-bgsave-error": "yes"}


@pytest.mark.parametrize(
    ("info", "config", "level", "words"),
    [
        ({}, SAVES, "unknown", "survives"),
        ({"aof_enabled": "1"}, None, "ok", "append-only file"),
        ({"aof_enabled": "1", "aof_last_write_status": "err"}, None, "failure", "refuses writes"),
        (OFF, None, "unknown", "snapshots unknown"),
        (OFF, SAVES, "ok", "snapshots"),
        (OFF, {"save": ""}, "warning", "does not survive"),
        (OFF | {"rdb_last_bgsave_status": "err"}, SAVES, "failure", "refuses writes"),
        (OFF | {"rdb_last_bgsave_status": "err"}, None, "failure", "refuses writes"),
        (
            OFF | {"rdb_last_bgsave_status": "err"},
            SAVES | {"stop-writes-on-bgsave-error": "no"},
            "warning",
            "the last snapshot failed",
        ),
        (OFF | {"rdb_last_bgsave_status": "err"}, {"save": ""}, "warning", "does not survive"),
    ],
)
def test_persistence(
    info: dict[str, str], config: dict[str, str] | None, level: Level, words: str
) -> None:
    """The plain demand survives where Redis writes it to disk; a failing disk stops writes."""
    found = persistence(info, config)
    assert found.level == level
    assert words in found.text


@pytest.mark.parametrize(
    ("limit", "policy", "used", "level", "words"),
    [
        (None, "noeviction", 0, "unknown", "evicts"),
        (0, None, 0, "unknown", "evicts"),
        (0, "allkeys-lru", 0, "ok", "no limit"),
        (100 * MB, "allkeys-lru", 0, "warning", "demand, the prices and the leader key"),
        (100 * MB, "volatile-ttl", 0, "warning", "the leader key and the status"),
        (100 * MB, "noeviction", 80 * MB, "ok", "80 MB of 100 MB are in use"),
        (100 * MB, "noeviction", 90 * MB, "warning", "when it is full"),
        (100 * MB, "noeviction", 100 * MB, "failure", "refuses writes"),
        (1000, "noeviction", 10, "ok", "10 bytes of 1000 bytes"),
    ],
)
def test_memory(limit: int | None, policy: str | None, used: int, level: Level, words: str) -> None:
    """What may be evicted is a warning; without eviction, the room that is left decides."""
    told = {"maxmemory": limit, "maxmemory_policy": policy, "used_memory": used}
    found = memory({name: str(value) for name, value in told.items() if value is not None})
    assert found.level == level
    assert words in found.text
