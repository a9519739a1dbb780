"""Decides which verdicts are written to Redis next. Must not write them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import chain, islice
from typing import NamedTuple

from spotd.core.verdicts import Verdict


def _never(_: str, __: Verdict | None) -> bool:
    return False


class StateBatch(NamedTuple):
    """States to write in one call, and names whose states end."""

    states: dict[str, Verdict]
    ended: list[str]


class StateWrites:
    """Which states Redis holds, and which are to be written next.

    States that end go first and refused ones last, so that Redis never shows more refused entries
    than we do. Within each of these, names go in the order in which they changed.
    """

    def __init__(self) -> None:
        # What each name holds in Redis, None where only Redis knows.
        self._written: dict[str, Verdict | None] = {}
        self._ended: dict[str, None] = {}
        self._others: dict[str, None] = {}
        self._refused: dict[str, None] = {}

    def __bool__(self) -> bool:
        """Return whether anything is to be written."""
        return bool(self._ended or self._others or self._refused)

    def changed(self, names: Iterable[str], verdicts: Mapping[str, Verdict]) -> None:
        """Note names that got another verdict. A state that Redis holds already is not written."""
        planned = [some for some in (self._ended, self._others, self._refused) if some]
        for name in names:
            for some in planned:
                some.pop(name, None)
            verdict = verdicts.get(name)
            if verdict is None:
                if name in self._written:
                    self._ended[name] = None
            elif verdict != self._written.get(name):
                (self._refused if verdict.state == "refused" else self._others)[name] = None

    def start_afresh(self, stored: Iterable[str], verdicts: Mapping[str, Verdict]) -> None:
        """Plan to write everything anew. ``stored`` are the names of which Redis holds a state."""
        self._written = dict.fromkeys(stored)
        self._ended, self._others, self._refused = {}, {}, {}
        self.changed(self._written.keys() | verdicts.keys(), verdicts)

    def lost(self, held: int | None) -> bool:
        """Return whether Redis, which holds ``held`` states, lost some although no call failed.

        None: nobody knows how many it holds.
        """
        return held is not None and held < len(self._written)

    def next_batch(
        self,
        count: int,
        verdicts: Mapping[str, Verdict],
        is_early: Callable[[str, Verdict | None], bool] = _never,
    ) -> StateBatch:
        """Return at most ``count`` of what is to be written, as the verdicts are now.

        A name whose verdict ``is_early``, None where its state ends, is left for a later batch.
        """
        batch = StateBatch({}, [])
        names = chain(self._ended, self._others, self._refused)
        ready = (name for name in names if not is_early(name, verdicts.get(name)))
        for name in islice(ready, count):
            verdict = verdicts.get(name)
            if verdict is None:
                batch.ended.append(name)
            else:
                batch.states[name] = verdict
        return batch

    def wrote(self, batch: StateBatch, verdicts: Mapping[str, Verdict]) -> None:
        """Take in that Redis took a batch. A state that changed meanwhile is still to write."""
        self._written |= batch.states
        for name in batch.ended:
            self._written.pop(name, None)
        self.changed(chain(batch.states, batch.ended), verdicts)
