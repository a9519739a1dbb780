"""Decides which leases are doubtful, and which of them to log. Must not talk to Redis.

A lease lapses at its score, unix time in seconds. Two kinds are doubtful:

- *lapsed*: it had lapsed before it came, so it demands nothing. Its owner's clock is behind, or the
  score is a duration.
- *far*: it lapses more than a year ahead. The score may be milliseconds, as JavaScript's clock
  counts them, or infinite. The lease is demand all the same, and does not die with its owner.

Each is counted when it comes, and logged once per owner.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

FAR_AHEAD_S = 366 * 86_400.0
MAX_OWNERS = 1_000  # remembered; the earliest is forgotten first

LeaseDoubt = Literal["lapsed", "far"]


class DoubtfulLease(NamedTuple):
    """A doubtful lease that is to be logged. ``lapses_in_s`` is negative if it has lapsed."""

    kind: LeaseDoubt
    member: bytes
    lapses_in_s: float

    @property
    def owner(self) -> bytes:
        """What follows the first ``@`` of the member."""
        return self.member.partition(b"@")[2]


class LeaseDoubts:
    """The doubtful leases of one daemon. ``counts`` are all that came, by kind."""

    def __init__(self) -> None:
        self.counts: Counter[LeaseDoubt] = Counter()
        self._lapsed_removed_at: float | None = None
        self._far: frozenset[bytes] = frozenset()
        self._told: dict[tuple[LeaseDoubt, bytes], None] = {}

    def begin(self) -> None:
        """Take in that a term began. Leases that lapsed meanwhile are no doubtful ones."""
        self._lapsed_removed_at = None

    def lapsed(
        self, leases: Iterable[tuple[bytes, float]], unix_s: float
    ) -> Sequence[DoubtfulLease]:
        """Take in the lapsed leases, with their scores, that were removed at ``unix_s``.

        All that had lapsed at the last removal were removed then. As a consequence, one of these
        that had lapsed by then came later, with a score that lay in the past. Return what to log.
        """
        before, self._lapsed_removed_at = self._lapsed_removed_at, unix_s
        if before is None:
            return []
        return self._came("lapsed", [lease for lease in leases if lease[1] <= before], unix_s)

    def far(self, leases: Iterable[tuple[bytes, float]], unix_s: float) -> Sequence[DoubtfulLease]:
        """Take in the leases that lapse later than ``FAR_AHEAD_S`` from now, with their scores.

        Return what to log.
        """
        scores = dict(leases)
        new = [(member, score) for member, score in scores.items() if member not in self._far]
        self._far = frozenset(scores)
        return self._came("far", new, unix_s)

    def _came(
        self, kind: LeaseDoubt, leases: Sequence[tuple[bytes, float]], unix_s: float
    ) -> Sequence[DoubtfulLease]:
        self.counts[kind] += len(leases)
        to_log = []
        for member, score in leases:
            lease = DoubtfulLease(kind, member, score - unix_s)
            if (kind, lease.owner) not in self._told:
                self._told[kind, lease.owner] = None
                to_log.append(lease)
        while len(self._told) > MAX_OWNERS:
            del self._told[next(iter(self._told))]
        return to_log
