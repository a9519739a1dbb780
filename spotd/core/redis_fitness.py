"""Decides whether a Redis server is fit for spotd, by what its INFO and CONFIG say.

Where the user may not ask, as on managed servers, nothing is known: that is no failure, and the
remedy names the command that an administrator runs instead. Must not talk to Redis.

Source of the rules: the documentation of Redis (persistence, eviction, client handling).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal, NamedTuple

from spotd.core.lag import CLOCK_SLACK_S

Level = Literal["ok", "warning", "failure", "unknown", "skipped"]
Info = Mapping[str, str]

_NEEDED = (6, 2)  # ZMSCORE and SMISMEMBER came with it
_TESTED = (7, 0)  # the oldest that the tests run on; users of channels came with it
_FULL = 0.9  # of maxmemory
_SMALL_HARD_BYTES, _SMALL_SOFT_BYTES = 1 << 20, 256 << 10
_UPDATE_BYTES = 170  # one message of a price, in a buffer


class Finding(NamedTuple):
    """One thing that was checked. ``remedy`` says what a person does about it."""

    level: Level
    text: str
    remedy: str = ""
    exit_code: int = 1  # of a failure


def version(info: Info) -> Finding:
    """Return whether the server is new enough. Valkey tells the Redis that it is compatible to."""
    found = re.match(r"(\d+)\.(\d+)", info.get("redis_version", ""))
    if found is None:
        return Finding("unknown", "its version", "it has to be 7.0 or newer: INFO server")
    name = f"Valkey {info['valkey_version']}" if "valkey_version" in info else ""
    name = name or f"Redis {info['redis_version']}"
    number = (int(found[1]), int(found[2]))
    remedy = "install Redis or Valkey 7.0 or newer"
    if number < _NEEDED:
        return Finding("failure", f"{name} lacks commands that spotd needs", remedy)
    if number < _TESTED:
        return Finding("warning", f"{name} is older than what spotd is tested with", remedy)
    return Finding("ok", name)


def role(info: Info) -> Finding:
    """Return whether the server takes writes."""
    found = info.get("role")
    if found is None:
        return Finding("unknown", "whether it is a master", "INFO replication")
    if found != "master":
        return Finding(
            "failure",
            f"it is a replica of {info.get('master_host', '?')}:{info.get('master_port', '?')}, "
            "and takes no writes",
            "name the master, or the Sentinels (redis+sentinel://…)",
        )
    return Finding("ok", "a master")


def clocks(redis_ahead_s: float, alpaca_ahead_s: float | None) -> Finding:
    """Return whether this machine's clock agrees with Redis' and with Alpaca's.

    ``…_ahead_s`` is by how much ours is ahead, in seconds; None where it is not known.
    """
    wrong = []
    if abs(redis_ahead_s) > CLOCK_SLACK_S:
        wrong.append(f"{_ahead(redis_ahead_s)} Redis', by which leases lapse")
    if alpaca_ahead_s is not None and abs(alpaca_ahead_s) > CLOCK_SLACK_S:
        wrong.append(f"{_ahead(alpaca_ahead_s)} Alpaca's, by which lag is measured")
    if wrong:
        told = f"this machine's clock is {', and '.join(wrong)}"
        return Finding("warning", told, "set the clocks (timedatectl, chrony)")
    others = "Redis'" if alpaca_ahead_s is None else "Redis' and Alpaca's"
    return Finding("ok", f"agrees with {others} within {CLOCK_SLACK_S:g} s")


def _ahead(seconds: float) -> str:
    return f"{abs(seconds):.1f} s {'ahead of' if seconds > 0 else 'behind'}"


def output_buffers(limits: str | None) -> Finding:
    """Return whether subscribers have room. ``limits``: ``client-output-buffer-limit``, or None."""
    found = re.search(r"\bpubsub (\d+) (\d+) (\d+)", limits or "")
    if found is None:
        return Finding(
            "unknown",
            "how much a slow subscriber may leave unread",
            "CONFIG GET client-output-buffer-limit; 32mb 8mb 60 is the default of pubsub",
        )
    hard, soft, soft_s = map(int, found.groups())
    remedy = 'CONFIG SET client-output-buffer-limit "pubsub 32mb 8mb 60"'
    if not hard and not soft:
        return Finding("warning", "a slow subscriber may fill the memory of Redis", remedy)
    if 0 < hard < _SMALL_HARD_BYTES or 0 < soft < _SMALL_SOFT_BYTES:
        least = min(limit for limit in (hard, soft) if limit)
        told = f"a subscriber that leaves {least // _UPDATE_BYTES:,} updates unread is cut off"
        return Finding("warning", told, remedy)
    parts = [f"more than {_size(hard)}"] if hard else []
    parts += [f"more than {_size(soft)} for {soft_s} s"] if soft else []
    return Finding("ok", f"a subscriber that leaves {' or '.join(parts)} unread is cut off")


def persistence(info: Info, config: Mapping[str, str] | None) -> Finding:
    """Return whether the plain demand survives a restart of the server.

    ``config`` has ``save`` and ``stop-writes-on-bgsave-error``; None where it may not be asked.
    """
    aof = info.get("aof_enabled")
    if aof is None:
        return Finding("unknown", "whether the demand survives a restart", "INFO persistence")
    snapshots = None if config is None else bool(config.get("save"))
    if aof == "1":
        if info.get("aof_last_write_status", "ok") != "ok":
            return Finding(
                "failure",
                "the append-only file cannot be written, so Redis refuses writes",
                "read the log of Redis; is its disk full?",
            )
        return Finding("ok", "the demand survives a restart: append-only file")
    if snapshots is not False and info.get("rdb_last_bgsave_status", "ok") != "ok":
        refuses = config is None or config.get("stop-writes-on-bgsave-error") != "no"
        return Finding(
            "failure" if refuses else "warning",
            "the last snapshot failed" + (", so Redis refuses writes" if refuses else ""),
            "read the log of Redis; is its disk full?",
        )
    if snapshots is None:
        return Finding(
            "unknown",
            "whether the demand survives a restart: the append-only file is off, snapshots unknown",
            "CONFIG GET save",
        )
    if snapshots:
        return Finding("ok", "the demand survives a restart, but for the last minutes: snapshots")
    return Finding(
        "warning",
        "the plain demand does not survive a restart: nothing is written to disk",
        "CONFIG SET appendonly yes, or demand by leases, which their owners renew",
    )


def memory(info: Info) -> Finding:
    """Return whether the server may evict what spotd keeps in it, or is full."""
    limit, policy = info.get("maxmemory"), info.get("maxmemory_policy")
    if limit is None or policy is None:
        return Finding("unknown", "what Redis evicts when its memory is full", "INFO memory")
    if limit == "0":
        return Finding("ok", "no limit, so nothing is evicted")
    size, used = int(limit), int(info.get("used_memory", "0"))
    own = "CONFIG SET maxmemory-policy noeviction, or a server of its own"
    if policy.startswith("allkeys"):
        told = "Redis may evict the demand, the prices and the leader key"
        return Finding("warning", f"{told} (maxmemory-policy {policy})", own)
    if policy.startswith("volatile"):
        told = "Redis may evict the leader key and the status, which end the daemon's term"
        return Finding("warning", f"{told} (maxmemory-policy {policy})", own)
    told = f"{_size(used)} of {_size(size)} are in use, and nothing is evicted"
    if used >= size:
        return Finding("failure", f"{told}: Redis refuses writes", "raise maxmemory")
    if used >= _FULL * size:
        return Finding(
            "warning", f"{told}: Redis refuses writes when it is full", "raise maxmemory"
        )
    return Finding("ok", told)


def _size(size_bytes: int) -> str:
    for unit, factor in (("GB", 1 << 30), ("MB", 1 << 20), ("KB", 1 << 10)):
        if size_bytes >= factor:
            return f"{size_bytes / factor:.4g} {unit}"
    return f"{size_bytes} bytes"
