"""Which symbols get the room where there is a limit: live ones, then by source, then by arrival."""

from __future__ import annotations

from typing import NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from tests.core.alpaca_model import Plan, Talk

NAMES = "ABCDEFGHIJKL"


class Want(NamedTuple):
    """What the set, the leases and plain subscribers name."""

    of_set: frozenset[str]
    of_leases: frozenset[str]
    of_subscribers: frozenset[str]

    @property
    def symbols(self) -> frozenset[str]:
        """All of them."""
        return self.of_set | self.of_leases | self.of_subscribers

    def source(self, symbol: str) -> int:
        """Return the number of the first source that names a symbol."""
        return [symbol in names for names in self].index(True)

    def become_desired(self, talk: Talk) -> None:
        """Have a daemon take this over."""
        talk.desire(self.symbols, sources=(self.of_set, self.of_leases))


class Reconnect(NamedTuple):
    """The stream is lost and opened again."""


class Restart(NamedTuple):
    """Another daemon leads, which knows nothing but the demand and the states."""


_some = st.frozensets(st.sampled_from(NAMES), max_size=6)
_steps = st.lists(
    st.one_of(st.builds(Want, _some, _some, _some), st.builds(Reconnect), st.builds(Restart)),
    min_size=1,
    max_size=10,
)
_limits = st.one_of(
    st.tuples(st.integers(1, 6), st.none()),
    st.tuples(st.none(), st.integers(1, 6)),
    st.tuples(st.integers(1, 6), st.integers(1, 6)),
)


@given(_limits, _steps)
def test_room_goes_to_what_is_live_then_to_the_set_then_to_the_first_come(
    limits: tuple[int | None, int | None], steps: list[Want | Reconnect | Restart]
) -> None:
    """Nothing that is live and desired loses its room, over a restart neither.

    Each symbol that gets room comes before each that gets none, by source, arrival and name.
    """
    cap, max_symbols = limits
    room = min(limit for limit in limits if limit is not None)
    plan = Plan(cap=cap)
    talk = Talk(plan, max_symbols=max_symbols)
    want = Want(frozenset(), frozenset(), frozenset())
    arrived: dict[str, int] = {}
    for now, step in enumerate(steps):
        live = talk.subs.active
        match step:
            case Want():
                want = step
                arrived = {symbol: arrived.get(symbol, now) for symbol in want.symbols}
                want.become_desired(talk)
            case Reconnect():
                talk.subs.disconnected()
                talk.reconnect()
            case Restart():
                arrived = dict.fromkeys(arrived, now)
                talk = Talk(plan, max_symbols=max_symbols)
                want.become_desired(talk)
                talk.take_over(live)
        talk.talk()
        active, desired = talk.subs.active, want.symbols
        assert live & desired <= active
        assert len(active) == min(room, len(desired))
        order = {symbol: (want.source(symbol), arrived[symbol], symbol) for symbol in desired}
        got_room = [order[symbol] for symbol in active - live]
        got_none = [order[symbol] for symbol in desired - active]
        assert not got_room or not got_none or max(got_room) < min(got_none)
        assert talk.refused("symbol_limit") == desired - active
