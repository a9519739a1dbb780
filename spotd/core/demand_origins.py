"""Decides who asks for what, from the raw entries of the demand. Must not talk to Redis.

The daemon needs to know only what is desired (``core.demand_reader``). A person wants to know by
whom.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from spotd.symbols import as_written, symbol_of


class Lease(NamedTuple):
    """A lease that has not lapsed. It lapses in ``left_s`` seconds, unless it is renewed."""

    owner: str
    left_s: float


@dataclass(frozen=True, slots=True)
class DemandOrigins:
    """Who asks for each symbol. ``*``, the whole market, is one of them.

    ``entries`` are those of the set, and ``leases`` those of the sorted set. ``of_owner`` holds the
    symbols of each owner. The owners with most symbols come first. ``garbage`` are entries and
    members that name no symbol, as written.
    """

    entries: Mapping[str, Sequence[str]]
    leases: Mapping[str, Sequence[Lease]]
    of_owner: Mapping[str, Sequence[str]]
    garbage: Sequence[str]


def origins(
    entries: Iterable[bytes], leases: Iterable[tuple[bytes, float]], unix_s: float
) -> DemandOrigins:
    """Return who asks, by the entries of the set, and members and scores of leases.

    ``unix_s`` is the clock of Redis, by which leases lapse.
    """
    of_set: dict[str, list[str]] = {}
    of_leases: dict[str, list[Lease]] = {}
    of_owner: dict[str, set[str]] = {}
    garbage: set[str] = set()
    for entry in entries:
        symbol = symbol_of(entry, allow_wildcard=True)
        if isinstance(symbol, str):
            of_set.setdefault(symbol, []).append(as_written(entry))
        else:
            garbage.add(as_written(entry))
    for member, lapses_at in leases:
        if lapses_at <= unix_s:
            continue
        entry, _, owner = member.partition(b"@")
        symbol = symbol_of(entry, allow_wildcard=True)
        if isinstance(symbol, str):
            lease = Lease(as_written(owner), lapses_at - unix_s)
            of_leases.setdefault(symbol, []).append(lease)
            of_owner.setdefault(lease.owner, set()).add(symbol)
        else:
            garbage.add(as_written(member))
    return DemandOrigins(
        entries={symbol: sorted(of_set[symbol]) for symbol in sorted(of_set)},
        leases={symbol: sorted(of_leases[symbol]) for symbol in sorted(of_leases)},
        of_owner={
            owner: sorted(of_owner[owner])
            for owner in sorted(of_owner, key=lambda owner: (-len(of_owner[owner]), owner))
        },
        garbage=sorted(garbage),
    )
