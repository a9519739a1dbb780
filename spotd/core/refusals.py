"""Decides which symbols Alpaca refused, and for how long. Must not know what else is asked for.

Alpaca refuses symbols in two ways:

- 400 refuses a whole request for one ill-formed symbol, and does not name it. So the request is
  halved until a request for one symbol is refused: the *suspects* are the halves that are not
  asked for yet. Requests are atomic, so no half is active before it is asked for alone.
- An acknowledgement leaves symbols out without an error.

A symbol is in one of three states:

- *not refused* -> *suspected*: a request with this and other symbols was answered with 400.
- *suspected* -> *not refused*: its half was acknowledged, or the session ended.
- *not refused* or *suspected* -> *refused*: a request for this symbol alone was answered with an
  error, or an acknowledgement left the symbol out.
- *refused* -> *not refused*: one hour passed (the symbol may have been listed since), nobody
  desires it any more (when it comes back, it is asked for anew), or Alpaca acknowledged it.

A new session does not end a refusal.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from itertools import takewhile

from spotd.models import RefusalReason
from spotd.symbols import Refusal

RETRY_REFUSED_S = 3_600.0

_REASON: RefusalReason = "refused_by_alpaca"


class Refusals:
    """What Alpaca refused to one account, over all its sessions."""

    def __init__(self) -> None:
        #: Refused symbols with the reason. A change replaces the mapping and never alters it.
        self.by_symbol: Mapping[str, Refusal] = {}
        self._refused_at: dict[str, float] = {}  # the same symbols, the earliest first
        self._suspects: list[tuple[str, ...]] = []  # the last group is asked for next

    def refuse(self, symbols: Collection[str], detail: str, now: float) -> None:
        """Refuse symbols for an hour. None of them is refused yet."""
        if symbols:
            refusal = Refusal(_REASON, detail)
            self.by_symbol = {**self.by_symbol, **dict.fromkeys(symbols, refusal)}
            self._refused_at.update(dict.fromkeys(symbols, now))

    def forget(self, symbols: Collection[str]) -> None:
        """Drop the refusals of symbols, of which some may have none."""
        refused = self._refused_at.keys() & symbols
        if not refused:
            return
        left = dict(self.by_symbol)
        for symbol in refused:
            del left[symbol], self._refused_at[symbol]
        self.by_symbol = left

    def forgive(self, now: float) -> bool:
        """Drop the refusals that are one hour old. Return whether there were any."""
        since = self._refused_at
        # The earliest come first, so the first refusal that is younger ends the search.
        old = list(takewhile(lambda symbol: now - since[symbol] >= RETRY_REFUSED_S, since))
        self.forget(old)
        return bool(old)

    def suspect(self, symbols: tuple[str, ...]) -> str:
        """Halve a request for several symbols that was refused as a whole. Return a log line."""
        half = len(symbols) // 2
        self._suspects += [symbols[half:], symbols[:half]]
        return f"{len(symbols)} symbols refused together (400): looking for the ill-formed one"

    def next_suspects(self) -> tuple[str, ...] | None:
        """Remove and return the half to ask for next; None: nothing is suspected."""
        return self._suspects.pop() if self._suspects else None

    def disconnected(self) -> None:
        """Take in that the session is over: no symbol is suspected, all are asked for anew."""
        self._suspects = []
