"""Who gets which messages, in which frames, and what damage is done to them on the way.

Sessions that get the same share one encoded frame. Never waits: a session that does not take its
frames is that session's affair.
"""

import random
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeAlias

from spotd.simulator.knobs import Faults
from spotd.simulator.session import Frame, Session
from spotd.simulator.wire import Encoding, Message, encode

_OVERSIZE_BYTES = (1 << 20) + 4096
_GARBAGE_BYTES = 64
Share: TypeAlias = tuple[str, Encoding, object]


class Delivery:
    """Puts messages into the outboxes of the sessions that are subscribed to them."""

    def __init__(self, faults: Faults, seed: int = 0) -> None:
        self.faults = faults
        self._random = random.Random(seed)

    def deliver(
        self, sessions: Iterable[Session], messages: Sequence[Message], per_frame: int = 0
    ) -> None:
        """Send each session what it is subscribed to, at most `per_frame` in a frame (0: all)."""
        faults = self.faults
        if faults.mute or not messages:
            return
        if faults.mute_symbols:
            messages = [one for one in messages if one.get("S") not in faults.mute_symbols]
        shared: dict[Share, list[Frame]] = {}
        for session in sessions:
            if not session.authenticated or session.closing:
                continue
            route = session.conversation.route
            share = (session.feed, session.encoding, route.key)
            if share not in shared:
                mine = [one for one in messages if route.takes(one)]
                shared[share] = list(self._frames(mine, session.encoding, per_frame))
            for frame in shared[share]:
                session.offer(frame)

    def _frames(
        self, messages: list[Message], encoding: Encoding, per_frame: int
    ) -> Iterator[Frame]:
        size = per_frame or len(messages) or 1
        for start in range(0, len(messages), size):
            batch = messages[start : start + size]
            if self.faults.damaging:
                yield from self._damaged(batch, encoding)
            else:
                yield frame_of(batch, encoding)

    def _damaged(self, batch: list[Message], encoding: Encoding) -> Iterator[Frame]:
        faults, chance = self.faults, self._random.random
        if chance() < faults.garbage_p:
            garbage = self._random.randbytes(_GARBAGE_BYTES)
            yield Frame(
                garbage.hex().encode() if encoding == "json" else garbage, encoding == "json"
            )
        extra: list[Message] = []
        if chance() < faults.unknown_type_p:
            extra.append({"T": "zz", "S": batch[0].get("S"), "what": ["new", {"in": 2031}]})
        if chance() < faults.malformed_p:
            extra.append(self._random.choice(_MALFORMED) | {"S": batch[0].get("S")})
        if chance() < faults.oversize_p:
            extra.append({"T": "pad", "S": batch[0].get("S"), "pad": "x" * _OVERSIZE_BYTES})
        as_text = chance() < faults.text_frame_p
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
    """Messages as one frame, counted."""
    kinds = [one["T"] for one in messages]
    return Frame(
        encode(messages, encoding),
        encoding == "json",
        kinds.count("q"),
        kinds.count("t"),
        len(messages),
    )
