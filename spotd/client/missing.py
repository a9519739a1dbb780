"""Decides why symbols have no price, by what is found in Redis. Must not talk to anything.

A claim about prefixes needs somebody who listens under another one: on a replica, and on a node of
a cluster, a daemon that listens elsewhere is not seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from spotd.keys import Keys
from spotd.models import DaemonStatus, SymbolState, rfc3339

_MOST_NAMES = 5
_UNSEEN = "channel_prefix is not the daemon's SPOTD_CHANNEL_PREFIX"


class Found(NamedTuple):
    """What was found: the status, states by symbol, and the channels on which daemons listen.

    ``led`` is whether a daemon holds the leader key. Since each status is that of a leader, a
    status without one was left by a daemon that is gone. ``led`` and ``listening`` are None where
    the user of Redis may not ask for them.
    """

    status: DaemonStatus | None
    led: bool | None
    states: Mapping[str, SymbolState]
    listening: Sequence[str] | None


def listening_patterns() -> tuple[str, str]:
    """Return the patterns of the channels on which daemons of any prefix listen."""
    return Keys("*", "*").wake, Keys("*", "*").leaders


def reasons(
    keys: Keys, symbols: Sequence[str], found: Found, *, demanded: bool = True
) -> list[str]:
    """Return the reasons for which ``symbols`` have no price, one sentence each."""
    wake, leaders = listening_patterns()
    key_prefixes = _prefixes(found.listening or (), wake)
    channel_prefixes = _prefixes(found.listening or (), leaders)
    if found.status is None:
        return [_no_daemon(keys, key_prefixes)]
    if found.led is False:
        return [no_leader(found.status)]
    if channel_prefixes and keys.channel_prefix not in channel_prefixes:
        return [_wrong_channels(keys, channel_prefixes)]
    by_text: dict[str, list[str]] = {}
    for symbol in symbols:
        state = found.states.get(symbol)
        text = _of_symbol(state, found.status, demanded=demanded)
        if found.listening is None and state is not None and state.state == "live":
            text += f"; or {_UNSEEN}: this user of Redis may not ask which one is right"
        by_text.setdefault(text, []).append(symbol)
    return [f"{_names(names)}: {text}" for text, names in by_text.items()]


def no_leader(left: DaemonStatus) -> str:
    """Return what there is to say about the status of a daemon that does not lead any more."""
    at = rfc3339(left.at)
    return f"no leader: {left.instance} wrote the last status, {left.state}, at {at}"


def _no_daemon(keys: Keys, key_prefixes: Sequence[str]) -> str:
    here = f"no daemon runs under the key prefix {keys.key_prefix!r}"
    if keys.key_prefix in key_prefixes:
        return (
            f"{here} in this database, but one listens at this server: another database, or it "
            "is about to start"
        )
    if key_prefixes:
        return (
            f"{here}, but under {_listed(key_prefixes)}: key_prefix must be the daemon's "
            "SPOTD_KEY_PREFIX"
        )
    return f"{here}: there is no {keys.status}"


def _wrong_channels(keys: Keys, channel_prefixes: Sequence[str]) -> str:
    return (
        f"nobody publishes under the channel prefix {keys.channel_prefix!r}, but under "
        f"{_listed(channel_prefixes)}: channel_prefix must be the daemon's SPOTD_CHANNEL_PREFIX"
    )


def _of_symbol(state: SymbolState | None, status: DaemonStatus, *, demanded: bool) -> str:
    if state is None:
        untaken = "the daemon has not taken in the demand"
        return untaken if demanded else f"nobody demands it, or {untaken}"
    why = ": ".join(text for text in (state.reason, state.detail) if text)
    if state.state == "live" and not why:
        why = "no quote with both sides has come yet"
    if state.state == "pending" and not why:
        why = f"the daemon is {status.state}"
        if status.reason:
            why += f", {status.reason}"
    return f"{state.state}, {why}" if why else state.state


def _prefixes(channels: Sequence[str], pattern: str) -> list[str]:
    before, after = pattern.split("*")
    return sorted(
        channel[len(before) : len(channel) - len(after)]
        for channel in channels
        if channel.startswith(before) and channel.endswith(after)
    )


def _listed(prefixes: Sequence[str]) -> str:
    return ", ".join(map(repr, prefixes[:_MOST_NAMES]))


def _names(symbols: Sequence[str]) -> str:
    more = len(symbols) - _MOST_NAMES
    return ", ".join(symbols[:_MOST_NAMES]) + (f" and {more} more" if more > 0 else "")
