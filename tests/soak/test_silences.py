"""Which silences no gap tells of."""

from __future__ import annotations

from spotd.models import utc
from tests.soak.contradictions import Window
from tests.soak.moment import Json
from tests.soak.silences import untold

SILENCE = Window(1_800_000_000.0, 1_800_000_008.0)


def _gap(begins: float, ends: float) -> Json:
    begin, end = (utc(SILENCE.begins + at).isoformat() for at in (begins, ends))
    return {"type": "gap", "from": begin, "to": end}


def test_a_silence_is_told() -> None:
    """By one gap or by two that follow each other, which may be late by an edge."""
    assert not untold([SILENCE], [_gap(-0.2, 7.9)])
    assert not untold([SILENCE], [_gap(1.0, 7.5)])
    assert not untold([SILENCE], [_gap(-1.0, 4.0), _gap(4.0, 9.0)])


def test_a_silence_of_which_nothing_is_said() -> None:
    """No gap, one of another time, or one that is far too short, is a lie."""
    assert untold([SILENCE], []) == [SILENCE]
    assert untold([SILENCE], [_gap(-60.0, -50.0)]) == [SILENCE]
    assert untold([SILENCE], [_gap(0.0, 5.0)]) == [SILENCE]


def test_a_short_silence_needs_no_gap() -> None:
    """A price that comes late is no gap."""
    assert not untold([Window(SILENCE.begins, SILENCE.begins + 2.9)], [])
