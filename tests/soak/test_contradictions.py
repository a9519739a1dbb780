"""How long something wrong may last before it is a violation, by a manual clock."""

from __future__ import annotations

from tests.soak.contradictions import Contradictions, Rule, Window, Wrong, covered_s

RULE = Rule("ready", 1.0, "a reason")


def _wrong(subject: str = "a", *hidden: Window) -> list[Wrong]:
    return [Wrong(RULE, subject, "200", "no session", hidden)]


def test_it_is_a_violation_once_where_it_lasts_longer_than_the_grace() -> None:
    """Up to the grace it is none; then it is one, whose duration grows while it lasts."""
    seen = Contradictions(begun_at=100.0)
    assert not seen.seen(_wrong(), 110.0, 0.0)
    assert not seen.seen(_wrong(), 111.0, 0.0)
    [violation] = seen.seen(_wrong(), 111.1, 0.0)
    assert (violation.rule, violation.subject) == ("ready", "a")
    assert round(violation.at_s, 3) == 11.1
    assert not seen.seen(_wrong(), 115.0, 0.0)
    assert violation.lasted_s == 5.0


def test_what_is_right_in_between_begins_anew() -> None:
    """Two short episodes are not one long one."""
    seen = Contradictions(begun_at=0.0)
    for at in range(10):
        assert not seen.seen(_wrong() if at % 2 else [], float(at), 0.0)


def test_each_subject_has_its_own_time() -> None:
    """What one daemon says does not count for another."""
    seen = Contradictions(begun_at=0.0)
    seen.seen(_wrong("a"), 0.0, 0.0)
    assert not seen.seen(_wrong("b"), 1.5, 0.0)
    assert seen.seen(_wrong("b"), 2.6, 0.0)


def test_time_without_cpu_does_not_count() -> None:
    """Of 3 s, 2.5 s were spent waiting for the CPU: half a second counts."""
    seen = Contradictions(begun_at=0.0)
    seen.seen(_wrong(), 0.0, 10.0)
    assert not seen.seen(_wrong(), 3.0, 12.5)
    assert seen.longest_s == {"ready": 0.5}
    assert seen.seen(_wrong(), 3.6, 12.5)


def test_time_in_which_the_truth_is_hidden_does_not_count() -> None:
    """What a fault hides for 10 s may be wrong for 10 s and the grace, and no longer."""
    seen = Contradictions(begun_at=0.0)
    fault = Window(-5.0, 10.0)
    for at in range(12):
        assert not seen.seen(_wrong("a", fault), float(at), 0.0)
    assert seen.seen(_wrong("a", fault), 11.1, 0.0)


def test_a_fault_that_ended_soon_hides_no_longer() -> None:
    """A fault that could hide something for long hides nothing after its end."""
    seen = Contradictions(begun_at=0.0)
    seen.seen(_wrong("a", Window(0.0, 320.0)), 0.0, 0.0)
    seen.seen(_wrong("a", Window(0.0, 3.0)), 3.9, 0.0)
    assert seen.seen(_wrong("a", Window(0.0, 3.0)), 4.1, 0.0)


def test_windows_that_overlap_cover_once() -> None:
    """Two faults at one time hide it once."""
    windows = [Window(4.0, 6.0), Window(1.0, 3.0), Window(2.0, 5.0), Window(8.0, 20.0)]
    assert covered_s(Window(2.5, 9.0), windows) == 3.5 + 1.0
    assert covered_s(Window(6.5, 7.5), windows) == 0.0
