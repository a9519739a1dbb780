"""Who lacks the final values is named."""

from __future__ import annotations

import json

from tests.soak.finals import not_final
from tests.soak.prices import bid_of

SALE = 11.5


def _lacks(
    *, stored: int = 9, sale: float | None = SALE, heard: int = 9, told: int = 9
) -> list[str]:
    update = json.dumps({"bid_price": bid_of(stored), "last_price": sale})
    return not_final({"SPY": (9, heard)}, {"SPY": SALE}, {"SPY": update}, {"relay": {"SPY": told}})


def test_who_has_the_final_values_lacks_nothing() -> None:
    """The hash, the channel and each consumer hold the quote that was sent last."""
    assert not _lacks()


def test_each_that_lacks_them_is_named() -> None:
    """The hash, the last sale, the channel, or a consumer."""
    assert _lacks(stored=8) == ["spotd:last of SPY is 8, not 9"]
    assert _lacks(sale=None) == ["last_price of SPY is None"]
    assert _lacks(heard=8) == ["the channel of SPY brought 8, not 9"]
    assert _lacks(told=8) == ["relay holds 8 of SPY, not 9"]
    assert len(not_final({"SPY": (9, 9)}, {"SPY": SALE}, {}, {"relay": {}})) == 3
