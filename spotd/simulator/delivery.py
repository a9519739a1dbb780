"""Which session receives which messages, in which frames, and how frames are damaged on the way.

Sessions with the same subscriptions share one encoded frame. Delivery never waits for a session; a
session that reads too slowly is cut by its own buffer limit.
"""

import random
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import TypeAlias

from spotd.simulator.changes import Changes
from spotd.simulator.knobs import Faults
from spotd.simulator.latest import LatestMessages
from spotd.simulator.messages import FEEDS
from spotd.simulator.session import Frame, Session
from spotd.simulator.wire import Encoding, Message, encode

REPLAYED_PER_FRAME = 250
"""Most messages in one frame of a replay."""
_OVERSIZE_BYTES = (1 << 20) + 4096
_GARBAGE_BYTES = 64
Share: TypeAlias = tuple[str, Encoding, object]


class Delivery:
    """Queues messages for the sessions that are subscribed to them. A replay plays on it."""

    def __init__(
        self,
        sessions: Mapping[int, Session],
        latest: LatestMessages,
        faults: Faults,
        changes: Changes,
        seed: int = 0,
    ) -> None:
        self._sessions, self._latest = sessions, latest
        self._faults, self._changes = faults, changes
        self._random = random.Random(seed)
        self._subscribed: dict[str, tuple[object, frozenset[str]]] = {}

    def deliver(self, messages: list[Message], feeds: Collection[str], per_frame: int = 0) -> None:
        """Send each session of these feeds the messages that it is subscribed to.

        At most `per_frame` messages share a frame; 0 means all. From now on REST answers with these
        messages, also when a fault keeps them from the stream.
        """
        self._latest.remember(feeds, messages)
        faults = self._faults
        if faults.mute:
            return
        if faults.mute_symbols:
            messages = [one for one in messages if one.get("S") not in faults.mute_symbols]
        shared: dict[Share, list[Frame]] = {}
        for session in self._sessions.values():
            if session.feed not in feeds or not session.authenticated or session.closing:
                continue
            route = session.conversation.route
            share = (session.feed, session.encoding, route.key)
            if share not in shared:
                mine = [one for one in messages if route.takes(one)]
                shared[share] = list(self._frames(mine, session.encoding, per_frame))
            for frame in shared[share]:
                session.offer_late(frame, faults.data_delay_s)

    def live_feeds(self) -> set[str]:
        """Return the feeds that have an authenticated session."""
        return {one.feed for one in self._sessions.values() if one.authenticated}

    def subscribed(self, feed: str) -> frozenset[str]:
        """Return the symbols whose prices are subscribed to on a feed.

        The result is the same object until it changes, so that the market recognizes it quickly.
        """
        routes = [one.conversation.route for one in self._sessions.values() if one.feed == feed]
        known = self._subscribed.get(feed)
        if known is not None and known[0] == routes:
            return known[1]
        symbols = frozenset().union(*(route.priced for route in routes))
        self._subscribed[feed] = (routes, symbols)
        return symbols

    # the stage of a replay (replay.Stage)

    def play(self, messages: list[Message]) -> None:
        """Send complete messages on every feed."""
        self.deliver(messages, FEEDS, REPLAYED_PER_FRAME)

    def wanted(self, symbols: frozenset[str]) -> bool:
        """Return whether any session is subscribed to one of the symbols."""
        wanted = symbols | {"*"}
        return any(not self.subscribed(feed).isdisjoint(wanted) for feed in self.live_feeds())

    def wake_up(self) -> None:
        """Make all waiters check their conditions again."""
        self._changes.wake_up()

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait for a condition, checked whenever something was received or sent."""
        await self._changes.until(condition)

    async def drained(self, most_bytes: int = 0) -> None:
        """Wait until no session has more than this many bytes that are not written to it yet."""
        sessions = self._sessions
        await self._changes.until(
            lambda: all(one.queued_bytes <= most_bytes or one.closing for one in sessions.values())
        )

    # inside

    def _frames(
        self, messages: list[Message], encoding: Encoding, per_frame: int
    ) -> Iterator[Frame]:
        size = per_frame or len(messages) or 1
        for start in range(0, len(messages), size):
            batch = messages[start : start + size]
            if self._faults.damaging:
                yield from self._damaged(batch, encoding)
            else:
                yield frame_of(batch, encoding)

    def _damaged(self, batch: list[Message], encoding: Encoding) -> Iterator[Frame]:
        faults, draw = self._faults, self._random.random
        if draw() < faults.garbage_p:
            garbage = self._random.randbytes(_GARBAGE_BYTES)
            text = encoding == "json"
            yield Frame(garbage.hex().encode() if text else garbage, text)
        symbol = batch[0].get("S")
        extra: list[Message] = []
        if draw() < faults.unknown_type_p:
            extra.append({"T": "zz", "S": symbol, "what": ["new", {"in": 2031}]})
        if draw() < faults.malformed_p:
            extra.append(self._random.choice(_MALFORMED) | {"S": symbol})
        if draw() < faults.oversize_p:
            extra.append({"T": "pad", "S": symbol, "pad": "x" * _OVERSIZE_BYTES})
        as_text = draw() < faults.text_frame_p
        place = self._random.randrange(len(batch) + 1)
        whole = [*batch[:place], *extra, *batch[place:]]
        yield frame_of(whole, "json" if as_text else encoding)


_MALFORMED: list[Message] = [
    {"T": "q", "bp": None, "ap": "high", "t": "yesterday"},
    {"T": "q", "bx": "V", "bp": 1.5, "bs": 100},
    {"T": "t", "i": 1, "p": [], "s": -1, "c": None},
    {"T": "q", "bp": "12.3", "bs": {}, "ap": 12.4, "as": 100, "c": "R", "z": 7, "t": 0},
]


def frame_of(messages: list[Message], encoding: Encoding) -> Frame:
    """Return the messages as one frame, with the numbers that the counters need."""
    kinds = [one["T"] for one in messages]
    return Frame(
        encode(messages, encoding),
        encoding == "json",
        kinds.count("q"),
        kinds.count("t"),
        len(messages),
    )
