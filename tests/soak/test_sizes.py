"""A process that grows without end is found."""

from __future__ import annotations

from dataclasses import replace

from tests.soak.processes import Size
from tests.soak.sizes import grown

YOUNG = Size(at=1_005.0, rss_bytes=60_000_000, descriptors=20, threads=5, tasks=20)
ADULT = replace(YOUNG, at=1_061.0, rss_bytes=130_000_000)
OLD = replace(ADULT, at=1_200.0, rss_bytes=135_000_000)


def _found(*sizes: Size) -> list[str]:
    return [used for used, _ in grown(1_000.0, sizes)]


def test_a_process_may_grow_while_it_is_young() -> None:
    """It loads what it needs, and keeps it."""
    assert not _found(YOUNG, ADULT, OLD)
    assert not _found(YOUNG)
    assert not _found()


def test_memory_that_grows_later_is_found() -> None:
    """A leak of 0.1 MB a second is found after two minutes."""
    leak = [replace(ADULT, at=1_061.0 + s, rss_bytes=130_000_000 + s * 100_000) for s in (0, 121)]
    assert _found(YOUNG, *leak) == ["142.1 MB"]


def test_descriptors_threads_and_tasks_are_bounded() -> None:
    """At any moment of its life."""
    assert _found(YOUNG, replace(ADULT, descriptors=500), OLD) == ["500 descriptors"]
    assert _found(YOUNG, replace(ADULT, threads=500), OLD) == ["500 threads"]
    assert _found(YOUNG, replace(ADULT, tasks=500), OLD) == ["500 tasks"]
