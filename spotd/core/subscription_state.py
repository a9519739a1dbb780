"""Decides what others may know of the subscriptions, as one value. Must not change anything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from spotd.core.difference import Difference
from spotd.core.feed_channels import FeedChannels
from spotd.core.refusals import Refusals
from spotd.core.symbol_limit import SymbolLimit
from spotd.symbols import Refusal


@dataclass(frozen=True, slots=True)
class SubscriptionState:
    """The subscriptions at one moment. Nothing in it is altered after it was handed out."""

    #: Symbols that Alpaca acknowledged in this session.
    active: frozenset[str] = frozenset()
    #: Desired symbols that were active, in any session, since they became desired.
    served: frozenset[str] = frozenset()
    #: Desired symbols that are not subscribed for a reason. The same object until it changes.
    refused: Mapping[str, Refusal] = field(default_factory=dict)
    #: Symbols are desired, none is active, and every one is refused.
    all_refused: bool = False
    #: Some symbol limit is known: the order of waiting decides which symbols get room.
    limited: bool = False
    #: The plan's limit in symbols, once it is known exactly.
    learned_limit: int | None = None
    #: Symbols of the last acknowledged request for trades whose trades were left out.
    without_trades: frozenset[str] = frozenset()
    #: Trades are asked for in this session.
    trades: bool = True


def state_of(
    difference: Difference,
    limit: SymbolLimit,
    refusals: Refusals,
    channels: FeedChannels,
    *,
    before: SubscriptionState,
) -> SubscriptionState:
    """Return the state of the four machines: the object ``before`` if it still holds."""
    refused = _refused(difference, limit, refusals)
    if refused == before.refused:
        refused = before.refused
    state = SubscriptionState(
        active=difference.active,
        served=difference.served,
        refused=refused,
        # Only desired symbols are refused. As a consequence, equal numbers mean the same symbols.
        all_refused=not difference.active and 0 < len(difference.desired) == len(refused),
        limited=limit.limit is not None,
        learned_limit=limit.learned,
        without_trades=channels.without_trades,
        trades=channels.trades,
    )
    return before if state == before else state


def _refused(
    difference: Difference, limit: SymbolLimit, refusals: Refusals
) -> Mapping[str, Refusal]:
    """Return what Alpaca or the limit refuses."""
    if difference.whole_market == "granted":
        return {}  # every symbol is live, as a part of the whole market
    room = limit.room(len(difference.active))
    if room is None or difference.whole_market == "waits":
        return refusals.by_symbol  # Alpaca's answer will tell whether single symbols need room
    beyond = difference.waiting_beyond(room)
    return {**refusals.by_symbol, **dict.fromkeys(beyond, limit.refusal)}
