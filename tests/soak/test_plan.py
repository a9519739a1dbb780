"""Which faults happen: by the seed alone, each kind in turn, none in the way of another."""

from __future__ import annotations

from collections import Counter
from itertools import islice, pairwise

import pytest

from tests.soak.contradictions import Window
from tests.soak.plan import (
    KINDS,
    TOPOLOGIES,
    Hiding,
    Planned,
    Topology,
    hidden,
    kinds_of,
    rounds,
)


def _first(number: int, seed: int = 7, topology: Topology = "server") -> list[list[Planned]]:
    return list(islice(rounds(seed, topology), number))


def test_the_same_seed_gives_the_same_faults() -> None:
    """Two runs with one seed have the same faults at the same times; another seed has others."""
    assert _first(50) == _first(50)
    assert _first(50) != _first(50, seed=8)


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_each_kind_comes_before_any_comes_again(topology: Topology) -> None:
    """After any round, no kind came more than once more than another."""
    counts = Counter(dict.fromkeys(kinds_of(topology), 0))
    for planned in _first(60, topology=topology):
        counts.update(each.kind for each in planned)
        assert max(counts.values()) - min(counts.values()) <= 1
    assert counts.keys() == set(kinds_of(topology))


def test_every_second_round_has_one_fault() -> None:
    """The recovery from each kind can be told apart."""
    assert all(len(planned) == 1 for planned in _first(40)[::2])
    assert all(len(planned) > 1 for planned in _first(40)[1::2])


def test_faults_of_one_target_follow_each_other() -> None:
    """A server that is killed is not frozen at the same time."""
    for planned in _first(200):
        for target in ("redis", "stream", "daemon"):
            mine = [each for each in planned if KINDS[each.kind].target == target]
            for before, after in pairwise(mine):
                assert after.at_s >= before.at_s + before.lasts_s
        for each in planned:
            assert KINDS[each.kind].shortest_s <= each.lasts_s <= KINDS[each.kind].longest_s


def test_some_kinds_alone() -> None:
    """Only the kinds that were asked for come."""
    chosen = islice(rounds(1, "server", ("stream_cut", "leader_kill")), 20)
    assert {each.kind for planned in chosen for each in planned} == {"stream_cut", "leader_kill"}


def test_a_fault_hides_the_truth_for_its_time_and_not_after_its_end() -> None:
    """A stream that is mute for 50 s hides prices for 25 s of each session, and nothing else."""
    whole = hidden([Hiding("stream_mute", 100.0, 150.0)], [90.0, 128.0])
    assert whole == {"prices": (Window(100.0, 125.0), Window(128.0, 150.0))}
    assert hidden([Hiding("stream_mute", 100.0, 104.0)], []) == {"prices": (Window(100.0, 104.0),)}
    assert not hidden([Hiding("redis_kill", 100.0)], [101.0])


def test_the_end_of_a_half_open_connection_is_hidden_until_it_is_over() -> None:
    """The simulator reads nothing meanwhile, so it counts a session that spotd has given up."""
    found = hidden([Hiding("stream_freeze", 100.0, 127.0)], [])
    assert found["connection"] == (Window(100.0, 127.0),)
    assert found["prices"] == found["answers"] == (Window(100.0, 115.0),)
