"""Decides whether a process grew: its memory, descriptors, threads and tasks. Talks to nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tests.soak.processes import Size

YOUNG_S = 60.0  # a process grows while it is young
_GROWTH_BYTES = 8_000_000
_MOST_DESCRIPTORS, _MOST_TASKS, _MOST_THREADS = 40, 40, 12


def grown(started_at: float, sizes: Sequence[Size]) -> Iterator[tuple[str, str]]:
    """Yield by what a process grew more than it may: what it uses, and what is allowed."""
    adult = [size.rss_bytes for size in sizes if size.at - started_at > YOUNG_S]
    if adult and adult[-1] > adult[0] + _GROWTH_BYTES:
        yield f"{adult[-1] / 1e6:.1f} MB", f"{adult[0] / 1e6:.1f} MB when {YOUNG_S:g} s old"
    for what, most, used in (
        ("descriptors", _MOST_DESCRIPTORS, [size.descriptors for size in sizes]),
        ("threads", _MOST_THREADS, [size.threads for size in sizes]),
        ("tasks", _MOST_TASKS, [size.tasks for size in sizes]),
    ):
        if max(used, default=0) > most:
            yield f"{max(used)} {what}", f"at most {most}"


def size_of(sizes: Sequence[Size]) -> str:
    """Return how large a process was at its begin and at its end."""
    first, last = sizes[0], sizes[-1]
    tasks = [size.tasks for size in sizes if size.tasks >= 0]
    return (
        f"{last.at - first.at:5.0f} s: RSS {first.rss_bytes / 1e6:.1f} -> "
        f"{last.rss_bytes / 1e6:.1f} MB, descriptors {first.descriptors} -> {last.descriptors} "
        f"(most {max(size.descriptors for size in sizes)}), tasks at most "
        f"{max(tasks, default=-1)}, threads {last.threads}"
    )
