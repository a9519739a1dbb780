"""Decides how long something wrong may last before it is a violation. Talks to nothing.

Nothing can be known at once: a daemon learns from its next call that Redis is gone, and the
checker reads both at different moments. So a rule has a *grace*, and what is wrong is a violation
where it lasts longer. For every rule the checker keeps the longest time, so that a reader sees how
much of each grace is used.

Time in which a process concerned was ready to run and got no CPU does not count: ``waited_s`` is a
clock of such time. Nor does time in which a fault hides the truth from spotd.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple


class Rule(NamedTuple):
    """A rule, the time in seconds for which it may be broken, and the reason for that time."""

    name: str
    grace_s: float
    why: str


class Window(NamedTuple):
    """A time, in monotonic seconds."""

    begins: float
    ends: float


class Wrong(NamedTuple):
    """What is wrong with one subject at one moment.

    ``hidden``: the times in which a fault hides it from spotd.
    """

    rule: Rule
    subject: str
    said: str
    true: str
    hidden: tuple[Window, ...] = ()


@dataclass(slots=True)
class Violation:
    """A rule that was broken for longer than its grace; ``at_s`` from the soak's begin."""

    at_s: float
    rule: str
    subject: str
    said: str
    true: str
    lasted_s: float = 0.0
    waited_s: float = 0.0
    context: str = ""
    timed: bool = True
    """The rule is about time; false: it holds at any pace of the machine."""

    def __str__(self) -> str:
        """Return one line."""
        lasted = f" for {self.lasted_s:.2f} s" if self.lasted_s else ""
        waited = f" (and {self.waited_s:.2f} s without CPU)" if self.waited_s > 0.05 else ""
        return (
            f"{self.at_s:8.2f} {self.rule} [{self.subject}]{lasted}{waited}: "
            f"said {self.said}; true: {self.true}"
        )


@dataclass(slots=True)
class _Episode:
    since: float
    seen_at: float
    began_waited_s: float
    waited_s: float
    counted_s: float = 0.0
    violation: Violation | None = None


@dataclass(slots=True)
class Contradictions:
    """What is wrong now, and since when. ``begun_at`` is the soak's begin, in monotonic seconds."""

    begun_at: float
    longest_s: dict[str, float] = field(default_factory=dict)
    _episodes: dict[tuple[str, str], _Episode] = field(default_factory=dict)

    def seen(self, found: list[Wrong], now: float, waited_s: float) -> list[Violation]:
        """Take in all that is wrong at ``now``. Return the violations that begin."""
        wrong: Mapping[tuple[str, str], Wrong] = {(w.rule.name, w.subject): w for w in found}
        for key in self._episodes.keys() - wrong.keys():
            del self._episodes[key]
        new = []
        for key, one in wrong.items():
            episode = self._episodes.setdefault(key, _Episode(now, now, waited_s, waited_s))
            step_s = now - episode.seen_at - (waited_s - episode.waited_s)
            step_s -= covered_s(Window(episode.seen_at, now), one.hidden)
            episode.counted_s += max(0.0, step_s)
            episode.seen_at, episode.waited_s = now, waited_s
            waited = waited_s - episode.began_waited_s
            lasted_s = now - episode.since
            counted_s = episode.counted_s
            name = one.rule.name
            self.longest_s[name] = max(self.longest_s.get(name, 0.0), counted_s)
            if episode.violation is not None:
                episode.violation.lasted_s, episode.violation.waited_s = lasted_s, waited
            elif counted_s > one.rule.grace_s:
                episode.violation = Violation(
                    now - self.begun_at, name, one.subject, one.said, one.true, lasted_s, waited
                )
                new.append(episode.violation)
        return new


def covered_s(window: Window, others: Iterable[Window]) -> float:
    """Return how much of a window the others cover, in seconds; they may overlap."""
    covered_s, reached = 0.0, window.begins
    for other in sorted(others):
        begins, ends = max(other.begins, reached), min(other.ends, window.ends)
        if ends > begins:
            covered_s += ends - begins
            reached = ends
    return covered_s
