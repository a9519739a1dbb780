"""Who asks for what: by set and lease, by owner, and what names no symbol."""

from __future__ import annotations

import math

from spotd.core.demand_origins import Lease, origins


def test_set_and_leases() -> None:
    """Each symbol has its entries as written, and its leases with owner and seconds left."""
    seen = origins(
        [b"spy ", b"SPY", b"*", b"sp-y"],
        [(b"SPY@b", 130.0), (b"spy@a:b@c", 107.5), (b"QQQ", 101.0), (b"IWM@a", math.inf)],
        100.0,
    )
    assert seen.entries == {"*": ["*"], "SPY": ["SPY", "spy "]}
    assert seen.leases == {
        "IWM": [Lease("a", math.inf)],
        "QQQ": [Lease("", 1.0)],
        "SPY": [Lease("a:b@c", 7.5), Lease("b", 30.0)],
    }
    assert seen.garbage == ["sp-y"]


def test_a_lapsed_lease_asks_for_nothing() -> None:
    """A lease lapses at its score, by the clock that is given."""
    seen = origins([], [(b"SPY@a", 100.0), (b"x-y@a", 99.0)], 100.0)
    assert seen == origins([], [], 0.0)


def test_owners() -> None:
    """The owners with most symbols come first, then the name decides."""
    leases = [(member, 2.0) for member in (b"SPY@c", b"SPY@b", b"spy@b", b"QQQ@a", b"IWM@a")]
    seen = origins([], leases, 1.0)
    assert list(seen.of_owner.items()) == [("a", ["IWM", "QQQ"]), ("b", ["SPY"]), ("c", ["SPY"])]


def test_garbage_is_told_as_it_is_written() -> None:
    """A lease that names no symbol is garbage with its owner; a long entry is cut."""
    seen = origins([b"\xff", b"x" * 100], [(b"sp-y@svc", 2.0)], 1.0)
    assert seen.garbage == ["\\xff", "sp-y@svc", "x" * 64]
