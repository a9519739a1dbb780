"""Decides how many symbols may be asked for. Must not know which symbols.

Two limits hold, and the smaller one counts: the setting ``SPOTD_MAX_SYMBOLS``, and the plan's
limit, which Alpaca does not tell. Alpaca answers 405 to a whole request that needs more room than
there is, and keeps what was subscribed before. So the plan's limit is searched:

========= ================================================ ====================================
state     known                                            how many to ask for
========= ================================================ ====================================
unknown   nothing: no request was too large                a full request
searching a number of symbols that is too many, the        half of the way from the active
          *ceiling*                                        symbols to the ceiling
exact     one symbol more than the active ones is too many what is left up to the limit
========= ================================================ ====================================

- unknown -> searching: a 405. The ceiling is the number of symbols that were active and asked for.
- searching -> searching: a 405 lowers the ceiling, an acknowledgement raises the active symbols.
- searching -> exact: one symbol lies between the active ones and the ceiling.
- exact -> searching: a 405 with fewer symbols. The plan became smaller.
- any -> unknown: the ceiling, or more, was acknowledged. The plan became larger.

The plan may have grown while nobody was connected. So each new session *probes* once: when
all room is taken, one symbol above the limit is asked for. The probe never exceeds the setting.

Alpaca may count trades and statuses too. The search does not need to know: its result is the
number of symbols that fit, whatever each of them costs.
"""

from __future__ import annotations

from spotd.models import RefusalReason
from spotd.symbols import Refusal

_REASON: RefusalReason = "symbol_limit"


class SymbolLimit:
    """The limit of one account, over all its sessions."""

    def __init__(self, max_symbols: int | None = None) -> None:
        self._max_symbols = max_symbols
        self._ceiling: int | None = None  # the fewest symbols that are known to be too many
        self._exact = False
        self._may_probe = False

    @property
    def learned(self) -> int | None:
        """The plan's limit in symbols; None unless it is known exactly."""
        return self._ceiling - 1 if self._ceiling is not None and self._exact else None

    @property
    def limit(self) -> int | None:
        """How many symbols may be active, as far as it is known; None: no limit is known.

        While the plan's limit is searched, it may turn out to be smaller.
        """
        ceiling, most = self._ceiling, self._max_symbols
        if ceiling is None:
            return most
        return ceiling - 1 if most is None else min(most, ceiling - 1)

    @property
    def refusal(self) -> Refusal:
        """The reason for which a symbol without room is refused."""
        limit, most = self.limit, self._max_symbols
        if limit == most:  # the plan's limit is below the setting, or it is not known
            return Refusal(_REASON, f"SPOTD_MAX_SYMBOLS={most} is the limit")
        return Refusal(_REASON, f"the limit of the Alpaca plan is {limit}")

    def room(self, active: int) -> int | None:
        """Return how many symbols may join ``active`` active ones; None: no limit is known."""
        limit = self.limit
        return None if limit is None else max(0, limit - active)

    def request_size(self, active: int, at_most: int) -> int:
        """Return how many symbols to ask for beside ``active`` ones, at most ``at_most``."""
        room = self.room(active)
        size = at_most if room is None else min(at_most, room)
        if self._ceiling is not None and not self._exact:
            size = min(size, max(1, (self._ceiling - active) // 2))
        if size == 0 and self._may_probe and not self._setting_reached(active):
            return 1
        return size

    def connected(self) -> None:
        """Take in a new session: a limit that was learned earlier may be probed once in it."""
        self._may_probe = self._ceiling is not None

    def acknowledged(self, active: int) -> None:
        """Take in that Alpaca acknowledged a list of ``active`` symbols."""
        if self._ceiling is not None and active >= self._ceiling:
            self._ceiling, self._exact = None, False
        self._conclude(active)

    def exceeded(self, active: int, asked: int) -> str:
        """Take in a 405 to ``asked`` symbols beside ``active`` active ones. Return a log line."""
        self._ceiling, self._exact = active + asked, False
        self._may_probe = False
        self._conclude(active)
        return f"symbol limit exceeded with {self._ceiling} symbols"

    def _conclude(self, active: int) -> None:
        """End the search when one more symbol than the active ones is known to be too many."""
        if self._ceiling is not None and self._ceiling - active == 1:
            self._exact = True

    def _setting_reached(self, active: int) -> bool:
        return self._max_symbols is not None and active >= self._max_symbols
