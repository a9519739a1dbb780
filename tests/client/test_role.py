"""When a subscription leaves a server because of its role, by a manual clock."""

from __future__ import annotations

import pytest

from spotd.client.role import Role

MASTER, FOLLOWS, ALONE = (True, False), (False, True), (False, False)


@pytest.mark.parametrize(
    ("seen", "left_at"),
    [
        # A replica that was chosen receives every message, or will again.
        ([(0, FOLLOWS), (1, ALONE), (2, FOLLOWS)], []),
        ([(0, MASTER), (1, MASTER)], []),
        # A master that became a replica was replaced: what came between is fetched anew.
        ([(0, MASTER), (1, FOLLOWS), (2, FOLLOWS), (30, FOLLOWS)], [1]),
        # While it follows nobody it is left again and again, after pauses that double.
        ([(0, MASTER), *((n / 2, ALONE) for n in range(2, 40))], [1, 1.5, 2.5, 4.5, 8.5, 16.5]),
        # A new master ends that.
        ([(0, MASTER), (1, ALONE), (1.5, MASTER), (2, FOLLOWS), (2.5, ALONE)], [1, 2, 2.5]),
    ],
)  # fmt: skip
def test_when_a_server_is_left(
    seen: list[tuple[float, tuple[bool, bool]]], left_at: list[float]
) -> None:
    """A master that becomes a replica is left once, and again while it follows no master."""
    role = Role()
    assert [
        at
        for at, (is_master, follows) in seen
        if role.seen(is_master=is_master, follows=follows, now=100.0 + at)
    ] == left_at
