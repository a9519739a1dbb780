"""How many REST requests a key may still send in the current minute.

Decides; does not read the clock: `now_s` is seconds since 1970.
"""

UNLIMITED = 10_000
"""The limit that the headers show when there is none: that of Alpaca's paid plan."""


class RateLimit:
    """Requests per key and minute."""

    def __init__(self) -> None:
        self._used: dict[str, tuple[int, int]] = {}  # by key: its newest minute, requests in it

    def count(self, key: str, limit: int | None, now_s: float) -> tuple[bool, dict[str, str]]:
        """Count a request. Return whether it is within the limit, and the headers of its answer."""
        shown = UNLIMITED if limit is None else limit
        minute = int(now_s) // 60
        newest, used = self._used.get(key, (minute, 0))
        self._used[key] = minute, used + 1 if newest == minute else 1
        left = shown - self._used[key][1]
        return limit is None or left >= 0, {
            "X-RateLimit-Limit": str(shown),
            "X-RateLimit-Remaining": str(max(0, left)),
            "X-RateLimit-Reset": str((minute + 1) * 60),
        }
