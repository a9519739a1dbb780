"""Which states Redis has to be told, and in which order."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from spotd.core.state_writes import StateBatch, StateWrites
from spotd.core.verdicts import Verdict

LIVE, PENDING = Verdict("live"), Verdict("pending")
STALE = Verdict("stale", "the stream is interrupted", code="interrupted")
REFUSED = Verdict("refused", "symbol_limit")


def test_states_that_end_go_first_and_refused_ones_last() -> None:
    """Redis never shows more refused entries than we do."""
    writes = StateWrites()
    verdicts = {"OLD": LIVE}
    writes.changed(["OLD"], verdicts)
    writes.wrote(writes.next_batch(9, verdicts), verdicts)
    verdicts = {"REF": REFUSED, "NEW": PENDING}
    writes.changed(["REF", "NEW", "OLD"], verdicts)
    assert writes.next_batch(1, verdicts) == StateBatch({}, ["OLD"])
    batch = writes.next_batch(9, verdicts)
    assert batch.ended == ["OLD"]
    assert list(batch.states) == ["NEW", "REF"]


def test_what_is_early_is_left_for_later() -> None:
    """Others are written meanwhile, and it is not forgotten."""
    writes = StateWrites()
    verdicts = {"OLD": LIVE, "AAA": LIVE}
    writes.changed(verdicts, verdicts)
    writes.wrote(writes.next_batch(9, verdicts), verdicts)
    verdicts = {"AAA": STALE, "BBB": PENDING}
    writes.changed(["OLD", "AAA", "BBB"], verdicts)
    early = {("OLD", None), ("AAA", STALE)}
    batch = writes.next_batch(1, verdicts, lambda name, verdict: (name, verdict) in early)
    assert batch == StateBatch({"BBB": PENDING}, [])
    writes.wrote(batch, verdicts)
    assert writes.next_batch(9, verdicts) == StateBatch({"AAA": STALE}, ["OLD"])


def test_what_changed_there_and_back_is_not_written() -> None:
    """A name that came and left before Redis heard of it is not written."""
    writes = StateWrites()
    writes.changed(["AAA"], {"AAA": LIVE})
    writes.wrote(writes.next_batch(9, {"AAA": LIVE}), {"AAA": LIVE})
    writes.changed(["AAA", "BBB"], {"AAA": STALE, "BBB": PENDING})
    assert writes
    writes.changed(["AAA", "BBB"], {"AAA": LIVE})
    assert not writes


def test_what_changes_while_redis_answers_is_written_again() -> None:
    """The batch that was under way holds what was true when it was sent."""
    writes = StateWrites()
    writes.changed(["AAA", "BBB"], {"AAA": PENDING, "BBB": PENDING})
    batch = writes.next_batch(9, {"AAA": PENDING, "BBB": PENDING})
    now = {"AAA": LIVE}
    writes.changed(["AAA", "BBB"], now)
    writes.wrote(batch, now)
    assert writes.next_batch(9, now) == StateBatch({"AAA": LIVE}, ["BBB"])


def test_afresh_everything_is_written_and_what_is_left_over_ends() -> None:
    """Nobody knows what Redis holds of the names that it stores."""
    writes = StateWrites()
    verdicts = {"AAA": LIVE}
    writes.changed(["AAA"], verdicts)
    writes.wrote(writes.next_batch(9, verdicts), verdicts)
    writes.start_afresh(["AAA", "GONE"], verdicts)
    assert writes.next_batch(9, verdicts) == StateBatch({"AAA": LIVE}, ["GONE"])


@given(
    st.lists(
        st.tuples(
            st.dictionaries(
                st.sampled_from("ABCDE"), st.sampled_from([LIVE, STALE, REFUSED, PENDING])
            ),
            st.integers(0, 3),
            st.booleans(),
        )
    ),
    st.randoms(),
)
def test_redis_comes_to_hold_what_is_true(
    history: list[tuple[dict[str, Verdict], int, bool]], random: Random
) -> None:
    """Redis comes to hold what is true, whatever changes meanwhile and whatever Redis loses."""
    writes, redis = StateWrites(), {"LEFT": LIVE}
    verdicts: dict[str, Verdict] = {}
    writes.start_afresh(redis, verdicts)

    def write(count: int, meanwhile: dict[str, Verdict]) -> None:
        nonlocal verdicts
        batch = writes.next_batch(count, verdicts)
        changed = [n for n in verdicts.keys() | meanwhile if verdicts.get(n) != meanwhile.get(n)]
        verdicts = meanwhile
        writes.changed(changed, verdicts)
        redis.update(batch.states)
        for name in batch.ended:
            redis.pop(name, None)
        writes.wrote(batch, verdicts)
        assert not writes.lost(len(redis))

    for after, count, lost in history:
        write(count, after)
        if lost:
            held = len(redis)
            for name in list(redis):
                if random.random() < 0.5:
                    del redis[name]
            assert writes.lost(len(redis)) is (len(redis) < held)
            writes.start_afresh(redis, verdicts)
    for _ in range(20):
        write(2, verdicts)
    assert not writes
    assert redis == verdicts
