"""Which sessions count against the connection limit of an endpoint.

Decides; does not read the clock: `now` is monotonic seconds. A session that closes cleanly frees
its slot at once. A session that vanishes keeps its slot for a while. As a consequence, a client
that crashed receives 406 when it connects again.
"""

from typing import TypeAlias

Endpoint: TypeAlias = tuple[str, str]
"""A feed and a key."""


class ConnectionSlots:
    """The taken slots: one for each authenticated session, and one for each that is still held."""

    def __init__(self) -> None:
        self._endpoints: dict[int, Endpoint] = {}
        self._held_until: dict[int, float] = {}

    def take(self, session: int, endpoint: Endpoint, limit: int, now: float) -> bool:
        """Take a slot for a session. Return False if the endpoint has no free one."""
        if self.taken(endpoint, now) >= limit:
            return False
        self._endpoints[session] = endpoint
        return True

    def taken(self, endpoint: Endpoint, now: float) -> int:
        """Free the holds that lapsed. Return the number of taken slots of an endpoint."""
        for session in [one for one, until in self._held_until.items() if until <= now]:
            self.free(session)
        return sum(1 for each in self._endpoints.values() if each == endpoint)

    def free(self, session: int) -> None:
        """Free the slot of a session that ended cleanly, or whose hold lapsed."""
        self._endpoints.pop(session, None)
        self._held_until.pop(session, None)

    def hold(self, session: int, until: float) -> None:
        """Keep the slot of a session that vanished until `until`."""
        if session in self._endpoints:
            self._held_until[session] = until
