"""One daemon and its demand at one moment, as ``spotd status`` shows it, also as JSON.

Reads Redis by an observer. Must write nothing to Redis.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import msgspec

from spotd.cli.table import NO_DAEMON
from spotd.client.missing import no_leader
from spotd.core.demand_origins import DemandOrigins, origins
from spotd.core.states import shows_ready
from spotd.errors import RedisUnavailableError
from spotd.models import DaemonStatus, SymbolState
from spotd.reasons import MEANINGS, Code
from spotd.redis.errors import RefusedError
from spotd.redis.observer import Observer

# With more symbols, states are read only where the status counts some that are not live.
_ALL_STATES_UP_TO = 2_000


@dataclass(frozen=True, slots=True)
class Overview:
    """What Redis held. ``away``: why it could not be read; then all else is empty.

    ``led`` is whether a daemon holds the leader key. Since each status is that of a leader, a
    status without one is what a daemon left that was killed or cut off. ``led`` is None where our
    user may not read it, ``demand`` where Redis refuses to read it. ``not_live`` are the states of
    symbols that have no live price, sorted by state, code and name. ``unreadable`` says why demand
    or states could not be read, by their name.
    """

    status: DaemonStatus | None = None
    led: bool | None = None
    demand: DemandOrigins | None = None
    not_live: Sequence[SymbolState] = field(default=())
    away: str | None = None
    unreadable: Mapping[str, str] = field(default_factory=dict)

    @property
    def ready(self) -> bool:
        """Whether a daemon leads, and works."""
        status = self.status
        return status is not None and not self.left and shows_ready(status.state, status.code)

    @property
    def left(self) -> bool:
        """Whether the status is a left one, which says nothing about now."""
        return self.status is not None and self.led is False

    def to_json(self) -> bytes:
        """Return the DaemonStatus, with what is known beside it, for programs."""
        demand = self.demand
        return msgspec.json.encode(
            {
                **self._status_fields(),
                "ready": self.ready,
                "action": action_of(self.code),
                "demand": None if demand is None else _demand_fields(demand),
                "not_live": [msgspec.Raw(state.to_json()) for state in self.not_live],
                "unreadable": self.unreadable,
            }
        )

    def _status_fields(self) -> dict[str, Any]:
        if self.status is not None and not self.left:
            return cast("dict[str, Any]", msgspec.json.decode(self.status.to_json()))
        state, reason = ("absent", self.absent) if self.away is None else ("unknown", self.away)
        return {"type": "daemon", "state": state, "reason": reason, "code": self.code}

    @property
    def absent(self) -> str:
        """Why no status counts, where Redis answers."""
        if self.status is None:
            return f"{NO_DAEMON}: Redis answers, but holds no status"
        return no_leader(self.status)

    @property
    def code(self) -> str | None:
        """The code of what is wrong, or of what there is to know."""
        if self.left:
            return "no_leader"
        if self.status is not None:
            return self.status.code
        return "no_daemon" if self.away is None else "redis_away"


async def read_overview(observer: Observer) -> Overview:
    """Return what Redis holds; where it does not answer, that."""
    try:
        status = await observer.status()
        led = await observer.led()
        demand: DemandOrigins | None = None
        not_live: Sequence[SymbolState] = ()
        unreadable = {}
        try:
            demand = origins(*await observer.demand())
        except RefusedError as error:
            unreadable["demand"] = str(error)
        try:
            # What a daemon left that is gone does not count.
            if status is not None and led is not False:
                not_live = await _not_live(observer, status)
        except RefusedError as error:
            unreadable["states"] = str(error)
        return Overview(status, led, demand, not_live, unreadable=unreadable)
    except RedisUnavailableError as error:
        return Overview(away=str(error))


async def _not_live(observer: Observer, status: DaemonStatus) -> list[SymbolState]:
    counts = status.symbols
    not_live = counts.pending + counts.stale + counts.halted + counts.refused
    if not not_live and counts.desired > _ALL_STATES_UP_TO:
        return []
    states = (await observer.states()).values()
    found = [state for state in states if state.state != "live" or state.code is not None]
    return sorted(found, key=lambda each: (*group_of(each), each.symbol))


def action_of(code: str | None) -> str | None:
    """Return what a person does about a code; None for one that is not known."""
    meaning = MEANINGS.get(cast("Code", code))
    return None if meaning is None else meaning.action.replace("`", "")


def _demand_fields(demand: DemandOrigins) -> dict[str, Any]:
    return {
        "set": list(demand.entries),
        "leases": sum(map(len, demand.leases.values())),
        "owners": demand.of_owner,
        "garbage": demand.garbage,
    }


_ORDER = ("refused", "stale", "halted", "pending", "live", "ended")


def group_of(state: SymbolState) -> tuple[int, str]:
    """Return what states are grouped by, in the order in which they are shown: state, reason."""
    return _ORDER.index(state.state), state.code or state.reason or ""
