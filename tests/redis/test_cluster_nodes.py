"""Which node of a cluster serves our keys, and whom to ask for it."""

from __future__ import annotations

from spotd.redis.cluster_nodes import ClusterNodes, SlotRange

A, B, C, REPLICA, NAMED = ("a", 1), ("b", 2), ("c", 3), ("r", 4), ("name", 9)
RANGES = [SlotRange(0, 99, [A, REPLICA]), SlotRange(100, 199, [B]), SlotRange(200, 299, [C])]
PROMOTED = [SlotRange(0, 99, [REPLICA]), SlotRange(100, 199, [B]), SlotRange(200, 299, [C])]


def nodes(slot: int | None = 50, *, named: tuple[tuple[str, int], ...] = (NAMED,)) -> ClusterNodes:
    """Return a cluster that nobody has asked yet, with a shuffle that changes nothing."""
    return ClusterNodes(named, slot=slot, shuffle=lambda _: None)


def test_only_the_url_is_known_at_first() -> None:
    """Before the first answer there is no owner, and the addresses of the URL are asked."""
    cluster = nodes()
    assert (cluster.owner, cluster.is_doubtful) == (None, True)
    assert cluster.to_ask() == [NAMED]
    assert cluster.to_subscribe() == []


def test_the_owner_is_the_master_of_the_slot() -> None:
    """The first node of the range that holds the slot owns it."""
    for slot, owner in ((0, A), (99, A), (100, B), (299, C)):
        cluster = nodes(slot)
        assert cluster.answered(NAMED, RANGES)
        assert (cluster.owner, cluster.is_doubtful) == (owner, False)
        assert cluster.known == (A, REPLICA, B, C)


def test_a_slot_that_nobody_owns() -> None:
    """An answer without an owner of our slot changes nothing, so that another node is asked."""
    cluster = nodes(50)
    cluster.answered(NAMED, RANGES)
    assert not cluster.answered(B, RANGES[1:])
    assert not nodes(50).answered(B, [])
    assert cluster.owner == A
    assert cluster.known == (A, REPLICA, B, C)


def test_an_owner_in_doubt_is_asked_last() -> None:
    """An owner that does not answer may hang, so all others come before it."""
    cluster = nodes()
    cluster.answered(NAMED, RANGES)
    assert cluster.to_ask() == [A, NAMED, REPLICA, B, C]
    assert cluster.to_subscribe() == [A, REPLICA, B, C]
    cluster.doubt()
    assert cluster.to_ask() == [NAMED, REPLICA, B, C, A]
    assert cluster.to_subscribe() == [REPLICA, B, C, A]


def test_a_promotion() -> None:
    """After a promotion the replica is the owner, and the former owner is not known any more."""
    cluster = nodes()
    cluster.answered(NAMED, RANGES)
    cluster.doubt()
    assert cluster.answered(B, PROMOTED)
    assert (cluster.owner, cluster.is_doubtful) == (REPLICA, False)
    assert A not in cluster.to_ask()


def test_the_url_has_its_turn_soon() -> None:
    """Known nodes and addresses of the URL alternate, and none is asked twice."""
    cluster = nodes(named=(NAMED, B, ("other", 9)))
    cluster.answered(NAMED, RANGES)
    assert cluster.to_ask() == [A, NAMED, REPLICA, B, ("other", 9), C]


def test_moved() -> None:
    """MOVED names slot and owner; a node that does not know its own host is that asked before."""
    cluster = nodes(None)
    assert cluster.answered(NAMED, RANGES)
    assert cluster.owner == A
    cluster.moved(150, B)
    assert (cluster.slot, cluster.owner) == (150, B)
    cluster.moved(150, ("d", 5))
    assert cluster.owner == ("d", 5)
    assert ("d", 5) in cluster.known
    cluster.moved(150, ("", 6))
    assert cluster.owner == ("d", 6)


def test_without_a_slot_the_owner_stays() -> None:
    """Until the slot is known any master will do, and the same one while it is a master."""
    cluster = nodes(None)
    cluster.answered(NAMED, RANGES[1:])
    assert cluster.owner == B
    cluster.answered(NAMED, RANGES)
    assert cluster.owner == B
    cluster.answered(NAMED, RANGES[2:])
    assert cluster.owner == C


def test_a_node_that_does_not_know_its_own_address() -> None:
    """An empty host is that of the node that was asked."""
    cluster = nodes()
    cluster.answered(NAMED, [SlotRange(0, 299, [("", 1), REPLICA])])
    assert cluster.owner == ("name", 1)
    assert cluster.known == (("name", 1), REPLICA)


def test_each_client_asks_in_its_own_order() -> None:
    """The order is shuffled, so that not all clients ask or subscribe at the same node."""
    cluster = ClusterNodes([NAMED], slot=50, shuffle=lambda order: order.reverse())
    cluster.answered(NAMED, RANGES)
    assert cluster.to_ask()[0] == C
    assert cluster.to_subscribe() == [C, B, REPLICA, A]
