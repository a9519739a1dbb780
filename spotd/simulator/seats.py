"""Who counts against the connection limit of an endpoint.

Decides, talks to nobody; `now` is monotonic seconds. A clean close frees a seat at once, a
session that vanished keeps it for a while: that is why a crashed client meets 406 when it is back.
"""

from typing import TypeAlias

Endpoint: TypeAlias = tuple[str, str]
"""A feed and a key."""


class Seats:
    """The taken seats: one per authenticated session, and one per session held as half dead."""

    def __init__(self) -> None:
        self._holders: dict[int, Endpoint] = {}
        self._held_until: dict[int, float] = {}

    def take(self, holder: int, endpoint: Endpoint, limit: int, now: float) -> bool:
        """A seat for this session, unless the endpoint is full: then the new one is refused."""
        if self.taken(endpoint, now) >= limit:
            return False
        self._holders[holder] = endpoint
        return True

    def taken(self, endpoint: Endpoint, now: float) -> int:
        """How many seats of the endpoint are taken, lapsed ones let go."""
        for holder in [one for one, until in self._held_until.items() if until <= now]:
            self.free(holder)
        return sum(1 for each in self._holders.values() if each == endpoint)

    def free(self, holder: int) -> None:
        """The session ended cleanly, or its hold lapsed."""
        self._holders.pop(holder, None)
        self._held_until.pop(holder, None)

    def hold(self, holder: int, until: float) -> None:
        """The session vanished: its seat stays taken until then."""
        if holder in self._holders:
            self._held_until[holder] = until
