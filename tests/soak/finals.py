"""Decides who lacks the final values, after which Alpaca sent nothing. Talks to nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping

from tests.soak.prices import number_of


def not_final(
    finals: Mapping[str, tuple[int, int]],
    last_sales: Mapping[str, float],
    stored: Mapping[str, str],
    told: Mapping[str, Mapping[str, int]],
) -> list[str]:
    """Return what lacks the final value of which symbol.

    ``finals``: symbol to the number of the quote that was sent last, and of the update that its
    channel brought last. ``stored``: ``spotd:last``. ``told``: consumer to symbol to the number of
    the quote that it holds.
    """
    lacks = []
    for symbol, (sent, heard) in sorted(finals.items()):
        update = json.loads(stored.get(symbol, "{}"))
        found = number_of(update.get("bid_price", 0.0))
        if found != sent:
            lacks.append(f"spotd:last of {symbol} is {found}, not {sent}")
        if update.get("last_price") != last_sales[symbol]:
            lacks.append(f"last_price of {symbol} is {update.get('last_price')}")
        if heard != sent:
            lacks.append(f"the channel of {symbol} brought {heard}, not {sent}")
        lacks += [
            f"{consumer} holds {newest.get(symbol)} of {symbol}, not {sent}"
            for consumer, newest in told.items()
            if newest.get(symbol) != sent
        ]
    return lacks
