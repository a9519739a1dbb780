"""Decides which node of a Redis cluster serves our keys, and which nodes are asked for that.

All keys of spotd are in one slot, so one node, the *owner* of the slot, serves every call. It may
hang, be replaced, or give the slot away. The nodes that are known may all be gone, and then only
the addresses of the URL lead to the cluster.

Must not connect to anything.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from itertools import chain, zip_longest
from typing import NamedTuple

Address = tuple[str, int]  # host and port


class SlotRange(NamedTuple):
    """One line of CLUSTER SLOTS: slots from ``first`` to ``last``, their master, its replicas."""

    first: int
    last: int
    nodes: Sequence[Address]


class ClusterNodes:
    """What is known of one cluster. ``addresses`` are those of the URL.

    ``owner`` is the node that serves our keys, None before the first answer. ``known`` are the
    nodes in the newest answer, without those that the cluster counts as failed.
    """

    def __init__(
        self,
        addresses: Sequence[Address],
        *,
        slot: int | None = None,
        shuffle: Callable[[list[Address]], None] = random.shuffle,
    ) -> None:
        self.slot = slot  # that of our keys; None: not known before the first MOVED
        self.owner: Address | None = None
        self.known: tuple[Address, ...] = ()
        self.is_doubtful = True  # whether the nodes are asked before the next connection
        self._addresses = tuple(addresses)
        self._shuffle = shuffle

    def to_ask(self) -> list[Address]:
        """Return the nodes to ask for the owner, in this order.

        Known nodes and those of the URL alternate: where all known ones are gone, the URL's turn
        comes soon. An owner that is in doubt is the last one, since it may hang.
        """
        known, named = list(self.known), list(self._addresses)
        self._shuffle(known)  # so that not all clients ask the same node
        self._shuffle(named)
        order = [a for a in chain(*zip_longest(known, named)) if a is not None]
        return self._owner_last(order)

    def to_subscribe(self) -> list[Address]:
        """Return the nodes at which to subscribe, in this order: each receives every message."""
        known = list(self.known)
        self._shuffle(known)
        return self._owner_last(known)

    def answered(self, asked: Address, ranges: Iterable[SlotRange]) -> bool:
        """Take in what a node says. Return False where it names no owner of our slot.

        A node that does not know its own address leaves it empty: then it is that of ``asked``.
        """
        ranges = [
            each._replace(nodes=[(host or asked[0], port) for host, port in each.nodes])
            for each in ranges
        ]
        slot = self.slot
        owners = [r.nodes[0] for r in ranges if slot is None or r.first <= slot <= r.last]
        if not owners:
            return False
        # Without a slot any master will do: it says by MOVED which slot and whose it is.
        self.owner = self.owner if slot is None and self.owner in owners else owners[0]
        self.known = tuple(dict.fromkeys(node for each in ranges for node in each.nodes))
        self.is_doubtful = False
        return True

    def moved(self, slot: int, owner: Address) -> None:
        """Take in that a node says by MOVED who owns the slot of a key."""
        self.slot = slot
        self.owner = owner if owner[0] or self.owner is None else (self.owner[0], owner[1])
        self.is_doubtful = False
        if self.owner not in self.known:
            self.known = (*self.known, self.owner)

    def doubt(self) -> None:
        """Take in that the owner did not answer, or said that it cannot serve our slot."""
        self.is_doubtful = True

    def _owner_last(self, order: list[Address]) -> list[Address]:
        unique = list(dict.fromkeys(order))
        if self.is_doubtful and self.owner in unique:
            unique.remove(self.owner)
            unique.append(self.owner)
        return unique
