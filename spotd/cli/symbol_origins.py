"""Who asks for one symbol, as ``spotd symbols who`` shows it: lines, or JSON.

Reads Redis by an observer. Must write nothing to Redis.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import inf

import msgspec

from spotd.cli.table import NO_DAEMON, counted, why_text
from spotd.core.demand_origins import origins
from spotd.core.leases import FAR_AHEAD_S
from spotd.models import SymbolState
from spotd.redis.observer import Observer
from spotd.symbols import WILDCARD


class LeaseLeft(msgspec.Struct, frozen=True):
    """A lease, and in how many seconds by Redis' clock it lapses; None: never."""

    owner: str
    left_s: float | None


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """Who asks for a symbol.

    ``entries`` are those of the set that mean it, as written. ``subscribers`` is the number of
    plain subscribers of its channel; None where the user of Redis may not ask. By
    ``whole_market`` the demand holds ``*``. ``state`` is None where no daemon runs, or has not read
    the demand.
    """

    symbol: str
    entries: Sequence[str]
    leases: Sequence[LeaseLeft]
    subscribers: int | None
    subscribers_are_demand: bool
    whole_market: bool
    daemon: bool
    state: SymbolState | None


async def read_asked(
    observer: Observer, symbols: Sequence[str], *, subscribers_are_demand: bool
) -> list[Asked]:
    """Return who asks for each of the symbols. Raises RedisUnavailableError."""
    demand = origins(*await observer.demand())
    subscribers = await observer.subscribers(*symbols)
    daemon = await observer.status() is not None
    states = await observer.states(*symbols) if daemon else {}
    return [
        Asked(
            symbol=symbol,
            entries=demand.entries.get(symbol, ()),
            leases=[
                LeaseLeft(lease.owner, None if lease.left_s == inf else round(lease.left_s, 3))
                for lease in demand.leases.get(symbol, ())
            ],
            subscribers=None if subscribers is None else subscribers[symbol],
            subscribers_are_demand=subscribers_are_demand,
            whole_market=WILDCARD in demand.entries or WILDCARD in demand.leases,
            daemon=daemon,
            state=states.get(symbol),
        )
        for symbol in symbols
    ]


def asked_lines(asked: Asked) -> Iterator[str]:
    """Yield who asks for a symbol, below a line with its state."""
    yield f"{asked.symbol} {_state_text(asked)}"
    others = [entry for entry in asked.entries if entry != asked.symbol]
    if asked.entries:
        yield "  set" + (f", written {', '.join(map(repr, others))}" if others else "")
    for lease in asked.leases:
        left = "never lapses" if lease.left_s is None else f"{lease.left_s:,.1f} s left"
        far = lease.left_s is not None and lease.left_s > FAR_AHEAD_S
        hint = "; is its score in milliseconds?" if far else ""
        yield f"  lease of {lease.owner or '(no owner)'}, {left}{hint}"
    if asked.subscribers is None:
        yield "  subscribers: unknown, the user of Redis may not ask (PUBSUB NUMSUB)"
    elif asked.subscribers:
        verb = "is" if asked.subscribers == 1 else "are"
        hint = "" if asked.subscribers_are_demand else f", which {verb} no demand"
        yield f"  {counted(asked.subscribers, 'subscriber')}{hint}"
    if asked.whole_market and asked.symbol != WILDCARD:
        yield "  the whole market is asked for (*)"
    if not (asked.entries or asked.leases or asked.subscribers or asked.whole_market):
        yield "  nobody asks for it"


def _state_text(asked: Asked) -> str:
    state = asked.state
    if state is None:
        return "has no state" if asked.daemon else f"has no state: {NO_DAEMON}"
    why = why_text(state.reason, state.detail)
    return f"is {state.state}" + (f": {why}" if why else "")
