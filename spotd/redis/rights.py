"""What a Redis user of the daemon must be allowed to do, and how Redis is asked whether it is.

Decides nothing, and changes nothing in Redis. ``deploy/redis/users.acl`` grants the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from spotd.keys import Keys

Right = tuple[str, ...]  # a command as it is sent

# ARGV: for each command how many words it has, and the words. Returns the places, from 1 on, of
# those that the user may not run. Redis before 7.0 and other servers cannot be asked.
DENIED = """
if not redis.acl_check_cmd then return {} end
local denied, place, i = {}, 1, 1
while i <= #ARGV do
  local words = tonumber(ARGV[i])
  if not redis.acl_check_cmd(unpack(ARGV, i + 1, i + words)) then table.insert(denied, place) end
  place = place + 1
  i = i + words + 1
end
return denied
"""


def rights_of_daemon(keys: Keys, *, subscribers_are_demand: bool = False) -> list[Right]:
    """Return every command that the daemon runs, also those in its scripts.

    A command of several keys or channels comes once for each.
    """
    written = [keys.last, keys.states]
    rights: list[Right] = [
        # The demand.
        ("SCARD", keys.symbols),
        ("SMEMBERS", keys.symbols),
        ("SSCAN", keys.symbols, "0"),
        ("SMISMEMBER", keys.symbols, "SPY"),
        ("ZREMRANGEBYSCORE", keys.leases, "-inf", "0"),
        ("ZCARD", keys.leases),
        ("ZRANGEBYSCORE", keys.leases, "0", "+inf"),
        ("ZSCAN", keys.leases, "0"),
        ("ZMSCORE", keys.leases, "SPY@owner"),
        *(("DUMP", key) for key in (keys.symbols, keys.leases)),
        # The scripts.
        ("EVAL", "return 1", "0"),
        ("EVAL", "return 1", "1", keys.leases),
        ("TIME",),
        # Redis wants the right to read and to write for each key that is given to a script.
        *(
            ("EVALSHA", "0" * 40, "1", key)
            for key in (keys.leases, keys.leader, keys.seq, keys.status, *written)
        ),
        *(("GET", key) for key in (keys.leader, keys.seq)),
        ("PTTL", keys.leader),
        *(("SET", key, "") for key in (keys.leader, keys.seq, keys.status)),
        *(("DEL", key) for key in (keys.leader, keys.status, *written)),
        *(("TYPE", key) for key in written),
        *(("HSET", key, "SPY", "") for key in written),
        *(("HDEL", key, "SPY") for key in written),
        ("HLEN", keys.states),
        *(("HKEYS", key) for key in written),
        *(("HVALS", key) for key in written),
        # Channels.
        *(("PUBLISH", channel, "") for channel in (keys.channel("*"), keys.events, keys.leaders)),
        *(("SUBSCRIBE", channel) for channel in (keys.wake, keys.leaders)),
        ("PING",),
    ]
    if subscribers_are_demand:
        rights.append(("PUBSUB", "CHANNELS", keys.channel("*")))
    return rights


def as_arguments(rights: Iterable[Right]) -> list[str]:
    """Return the ARGV of ``DENIED``."""
    return [word for right in rights for word in (str(len(right)), *right)]


def as_text(rights: Sequence[Right]) -> str:
    """Return rights for people, each with its key or channel: ``HSET spotd:last, EVAL``."""
    return ", ".join(" ".join((right[0], _object_of(right))).rstrip() for right in rights)


def _object_of(right: Right) -> str:
    place = 3 if right[0] in ("EVAL", "EVALSHA") else 2 if right[0] == "PUBSUB" else 1
    return right[place] if len(right) > place else ""
