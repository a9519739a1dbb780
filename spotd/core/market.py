"""Decides what one quote, trade or trading status means. Must not keep anything.

Sources of the rules: the sale condition tables of the consolidated tapes (CTA for tapes A and B,
UTP for C; which conditions update the last sale), their codes of trading status, and the wire
contract for what is never published.
"""

from __future__ import annotations

from spotd.core.messages import Correction, Trade

_INFINITY = float("inf")

# A trade with one of these conditions does not set the last sale.
_NOT_LAST_SALE_AB = frozenset("BCHIMNPQRUVZ47")
_NOT_LAST_SALE_CO = frozenset("CGHIMNPQRUVWZ47")
_NOT_LAST_SALE = {
    "A": _NOT_LAST_SALE_AB,
    "B": _NOT_LAST_SALE_AB,
    "C": _NOT_LAST_SALE_CO,
    "O": _NOT_LAST_SALE_CO,
}
# A tape that the tables do not know (N, overnight): what either table excludes.
_NOT_LAST_SALE_ELSEWHERE = _NOT_LAST_SALE_AB | _NOT_LAST_SALE_CO

# CTA: 2 halt, 3 resume. UTP: H halt, P volatility pause, T trading resumption.
_HALTS = {"A": frozenset("2"), "B": frozenset("2")}
_RESUMES = {"A": frozenset("3"), "B": frozenset("3")}
_HALTS_ELSEWHERE = frozenset("HP")
_RESUMES_ELSEWHERE = frozenset("T")


def is_two_sided(bid: float, ask: float) -> bool:
    """Return whether a quote may be published: both sides and their sum positive and finite."""
    # No comparison with NaN is true. The sum is finite only if the mid is.
    return bid > 0.0 and ask > 0.0 and bid + ask < _INFINITY


def why_dropped(bid: float, ask: float) -> str:
    """Return the label under which a quote that is not two-sided is counted."""
    return "one_sided" if bid <= 0.0 or ask <= 0.0 else "not_finite"


def sets_last_sale(trade: Trade | Correction) -> bool:
    """Return whether a trade has a real price, and no condition that excludes it on its tape.

    A correction is read as the corrected trade.
    """
    if not 0.0 < trade.price < _INFINITY:
        return False
    return _NOT_LAST_SALE.get(trade.tape, _NOT_LAST_SALE_ELSEWHERE).isdisjoint(trade.conditions)


def halts(tape: str, code: str) -> bool:
    """Return whether a status with this code on this tape halts the trading of its symbol."""
    return code in _HALTS.get(tape, _HALTS_ELSEWHERE)


def resumes(tape: str, code: str) -> bool:
    """Return whether a status with this code on this tape ends a halt.

    A resumption of quoting alone (Q of UTP) does not.
    """
    return code in _RESUMES.get(tape, _RESUMES_ELSEWHERE)
