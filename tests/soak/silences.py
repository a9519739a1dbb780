"""Decides which silences on the channels no Gap tells of. Talks to nothing.

All times are unix seconds.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from tests.soak.contradictions import Window, covered_s
from tests.soak.moment import Json

# A session ends up to a window and a call before its last update; the first update comes after the
# acknowledgement. An outage of Redis begins with the call that it did not answer.
_EDGES_S = 2.0
_SHORTEST_S = 3.0


def window_of(gap: Json) -> Window:
    """Return the time that a Gap tells of."""
    begins, ends = (datetime.fromisoformat(gap[name]).timestamp() for name in ("from", "to"))
    return Window(begins, ends)


def untold(silences: Iterable[Window], gaps: Iterable[Json]) -> list[Window]:
    """Return the silences of at least 3 s that gaps do not cover up to their edges."""
    told = [window_of(gap) for gap in gaps]
    return [
        silence
        for silence in silences
        if silence.ends - silence.begins >= _SHORTEST_S
        and covered_s(silence, told) < silence.ends - silence.begins - _EDGES_S
    ]
